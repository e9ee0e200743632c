"""The episode player's Python side: every frame comes back, and what does not fit is refused."""

import base64
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from torch import nn

from qtdqas_lite import DataError
from qtdqas_lite.tasks.environments import Episode, record_episode
from qtdqas_lite.widgets import EpisodePlayer, episode_player


def plain(*greys, size=(4, 6)):
    """Frames of one grey each."""
    return [np.full((*size, 3), grey, np.uint8) for grey in greys]


SHORT = Episode(plain(1, 2, 1), [0.0, 0.5], True, False)
LONG = Episode(plain(1, 3, 3, 4, 1), [1.0, -2.0, 0.0, 4.0], False, True)


@pytest.fixture
def player():
    return EpisodePlayer({"Short": SHORT, "Long": LONG})


def decoded(player, film=0):
    """The pictures of a film at every step, as Pillow reads them."""
    data = [base64.b64decode(picture) for picture in player.pictures]
    images = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in data]
    return [images[number] for number in player.films[film]["shown"]]


def kilobytes(player):
    """The size of the state, less the front end, which all players share."""
    state = player.get_state()
    del state["_esm"], state["_css"]
    return len(json.dumps(state)) / 1000


# ---- Pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 64), (40, 360)])
@pytest.mark.parametrize("colours", [1, 2, 16, 17, 256, 257, 10**6])
def test_frames_come_back_bit_for_bit(size, colours):
    draw = np.random.default_rng(0)
    few = draw.integers(0, 256, (colours, 3), dtype=np.uint8)
    frames = [few[draw.integers(0, colours, size)] for _ in range(3)]
    film = Episode([*frames, frames[0][::-1]], [0.0] * 3, True, False)
    player = EpisodePlayer({"Noise": film})
    assert (player.films[0]["height"], player.films[0]["width"]) == size
    for shown, frame in zip(decoded(player), film.frames, strict=True):
        assert np.array_equal(shown, frame)


def test_equal_pictures_are_sent_once(player):
    assert player.films[0]["shown"] == [0, 1, 0]
    assert player.films[1]["shown"] == [0, 2, 2, 3, 0]
    assert len(player.pictures) == len(set(player.pictures)) == 4
    for film, episode in enumerate((SHORT, LONG)):
        assert np.array_equal(decoded(player, film), episode.frames)


def test_large_squares_stay_sharp():
    """MiniGrid's largest rooms: 19 x 19 squares of 32 pixels. Every second one is left."""
    squares = np.random.default_rng(1).integers(0, 256, (19, 19, 3), dtype=np.uint8)
    frame = squares.repeat(32, 0).repeat(32, 1)
    player = EpisodePlayer({"Room": Episode([frame, frame], [0.0], False, True)})
    assert np.array_equal(decoded(player)[1], frame[::2, ::2])


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((360, 360), (360, 360)),
        ((361, 10), (181, 5)),
        ((400, 600), (200, 300)),
        ((3, 1500), (1, 300)),
    ],
)
def test_large_pictures_are_averaged(size, small):
    frame = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    player = EpisodePlayer({"Large": Episode([frame, frame], [0.0], False, True)})
    (film,), shown = player.films, decoded(player)[0]
    assert shown.shape == (*small, 3) == (film["height"], film["width"], 3)
    k = math.ceil(max(size) / 360)
    expected = frame[:k, :k].mean((0, 1))
    assert np.abs(shown[0, 0] - expected).max() <= 0.5 + 1e-9


def test_real_episodes_are_small_and_exact():
    grid = record_episode(None, "MiniGrid-Empty-6x6-v0", deterministic=False)
    balance = nn.Linear(4, 2, bias=False)  # pushes to where the pole falls
    with torch.no_grad():
        balance.weight.copy_(torch.tensor([[-1.0], [1.0]]) * torch.tensor([0.1, 0.4, 3, 1]))
    pole = record_episode(balance, "CartPole-v1")
    assert (len(grid.rewards), len(pole.rewards)) == (144, 500)
    player = EpisodePlayer({"Grid": grid})
    assert np.array_equal(decoded(player), grid.frames)
    assert len(player.pictures) == len({frame.tobytes() for frame in grid.frames})
    assert kilobytes(player) < 30
    player = EpisodePlayer({"Pole": pole})
    assert kilobytes(player) < 200
    last = pole.frames[-1].reshape(200, 2, 300, 2, 3).mean((1, 3))
    assert np.abs(decoded(player)[-1] - last).max() <= 0.5
    player.step = 123
    assert player.returns == {"Pole": 123}


def test_the_frames_are_copied():
    frames = plain(1, 2)
    player = EpisodePlayer({"Own": Episode(frames, [0.0], True, False)})
    before = player.get_state()
    frames[0][:] = 9
    assert player.get_state() == before


# ---- What stands below ---------------------------------------------------------------------------


def test_every_step_by_hand(player):
    assert player.n_steps == 4
    rows = [
        (0.0, 0.0, "", ""),
        (0.0, 1.0, "", ""),
        (0.5, -1.0, "terminated", ""),
        (0.5, -1.0, "terminated", ""),
        (0.5, 3.0, "terminated", "truncated"),
    ]
    for player.step, row in enumerate(rows):
        assert (*player.returns.values(), *player.endings.values()) == row
    assert list(player.returns) == list(player.endings) == ["Short", "Long"]
    assert repr(player) == "EpisodePlayer('Short': 2 steps, 'Long': 4 steps)"


@pytest.mark.parametrize(
    ("terminated", "truncated", "ending"),
    [
        (True, False, "terminated"),
        (False, True, "truncated"),
        (True, True, "terminated"),  # by the rules, whatever the limit says
        (False, False, "unfinished"),
        (np.True_, np.False_, "terminated"),
    ],
)
def test_how_it_ended(terminated, truncated, ending):
    episode = replace(SHORT, terminated=terminated, truncated=truncated)
    assert EpisodePlayer({"One": episode}, step=2).endings == {"One": ending}


def test_whatever_looks_like_an_episode_will_do():
    like = SimpleNamespace(
        frames=np.stack(LONG.frames),
        rewards=torch.tensor(LONG.rewards, requires_grad=True),
        terminated=torch.tensor(False),
        truncated=1,
    )
    assert EpisodePlayer({"A": like}).films == EpisodePlayer({"A": LONG}).films


# ---- Traits: checked, observed, linked -----------------------------------------------------------


def test_a_step_is_heard_with_all_that_follows_from_it(player):
    heard = {}
    names = ["step", "returns", "endings"]
    player.observe(lambda c: heard.update({c["name"]: (player.returns, player.endings)}), names)
    player.step = 4
    assert list(heard.values()) == [({"Short": 0.5, "Long": 3.0}, player.endings)] * 3
    heard.clear()
    player.step = 4
    assert heard == {}


def test_linked_players_agree(player):
    other = EpisodePlayer({"Long": LONG})
    traitlets.link((player, "step"), (other, "step"))
    player.step = 3
    assert (other.step, other.returns) == (3, {"Long": -1.0})
    other.step = 1
    assert player.returns == {"Short": 0.0, "Long": 1.0}


def test_reset():
    player = EpisodePlayer({"Long": LONG}, step=1, speed="slow")
    player.step, player.speed = 4, "fast"
    player.reset()
    assert (player.step, player.speed, player.returns) == (1, "slow", {"Long": 1.0})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("step", -1, "from 0 to 4, got -1"),
        ("step", 5, "from 0 to 4, got 5"),
        ("step", 1.5, "step"),
        ("step", None, "step"),
        ("speed", "warp", "speed"),
        ("speed", 8, "speed"),
        ("n_steps", 9, "read-only"),
        ("returns", {}, "read-only"),
        ("endings", {}, "read-only"),
        ("films", [], "read-only"),
        ("pictures", [], "read-only"),
    ],
)
def test_a_bad_value_leaves_the_old_one(player, name, value, text):
    before = player.get_state()
    with pytest.raises(traitlets.TraitError, match=text):
        setattr(player, name, value)
    assert player.get_state() == before
    with pytest.raises(traitlets.TraitError, match=text):
        EpisodePlayer({"Short": SHORT, "Long": LONG}, **{name: value})


def test_messages_of_the_front_end(player):
    player.set_state({"step": 2, "speed": "fast"})
    assert (player.returns["Short"], player.speed) == (0.5, "fast")
    for state in ({"step": 99}, {"step": "2"}, {"speed": ""}):
        with pytest.raises(traitlets.TraitError):
            player.set_state(state)
    assert (player.step, player.returns["Short"]) == (2, 0.5)


# ---- What cannot be shown ------------------------------------------------------------------------

ODD = {
    "floats": [np.zeros((4, 6, 3))] * 3,
    "no colour": [np.zeros((4, 6), np.uint8)] * 3,
    "alpha": [np.zeros((4, 6, 4), np.uint8)] * 3,
    "another size": plain(1, 2) + plain(3, size=(6, 4)),
    "no pixels": plain(1, 2, 3, size=(0, 6)),
    "numbers": [1, 2, 3],
    "nothing": [None, None, None],  # as render() gives without render_mode
    "text": "abc",
    "signed": [np.zeros((4, 6, 3), np.int8)] * 3,
}


@pytest.mark.parametrize("frames", ODD.values(), ids=ODD)
def test_odd_frames(frames):
    with pytest.raises(DataError, match=r"Odd: frames must be uint8, .*\(height, width, 3\)"):
        EpisodePlayer({"Good": SHORT, "Odd": replace(SHORT, frames=frames)})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"frames": []}, "0 frames"),
        ({"frames": plain(1)}, "1 frames"),
        ({"frames": plain(1), "rewards": []}, "at least two"),
        ({"frames": plain(1, 2)}, r"2 frames, and rewards of shape \(2,\)"),
        ({"rewards": [0.0] * 3}, "one frame more than rewards"),
        ({"rewards": [[0.0], [1.0]]}, r"shape \(2, 1\)"),
        ({"rewards": 1.0}, r"shape \(\)"),
        ({"rewards": None}, "rewards"),
        ({"rewards": ["a", "b"]}, "has frames, rewards"),
        ({"rewards": [[0.0], [1.0, 2.0]]}, "has frames, rewards"),
        ({"rewards": [0.0, math.nan]}, "finite"),
        ({"rewards": [0.0, -math.inf]}, "finite"),
        ({"rewards": [0.0, 2e6]}, "finite, from"),
        ({"frames": None}, "has frames"),
        ({"frames": [[[1, 2], [3]]] * 3}, "has frames"),
        ({"terminated": np.array([True, False])}, "terminated"),
    ],
)
def test_odd_episodes(change, text):
    with pytest.raises(DataError, match=f"^Odd: .*{text}"):
        EpisodePlayer({"Odd": replace(SHORT, **change)})


@pytest.mark.parametrize(
    ("episodes", "text"),
    [
        ({}, "an empty dict"),
        (SHORT, "names and episodes, such as .* got Episode"),
        ([SHORT], "got list"),
        (np.zeros(3), "got ndarray"),
        (None, "got NoneType"),
        ({1: SHORT}, "name .* got 1"),
        ({"": SHORT}, "name .* got ''"),
        ({" \n": SHORT}, "name"),
        ({"A": None}, "A: an episode has .* in this NoneType"),
        ({"A": (SHORT.frames, SHORT.rewards, True, False)}, "in this tuple"),
    ],
)
def test_odd_arguments(episodes, text):
    with pytest.raises(DataError, match=text):
        EpisodePlayer(episodes)


def test_too_many_pictures():
    draw = np.random.default_rng(3)
    noise = [draw.integers(0, 256, (360, 360, 3), dtype=np.uint8) for _ in range(8)]
    fits = Episode(noise[:7], [0.0] * 6, True, False)
    assert kilobytes(EpisodePlayer({"Noise": fits})) < 4000
    with pytest.raises(DataError, match=r"more than the 4 MB .* Episode\(e.frames\[:201\]"):
        EpisodePlayer({"Noise": Episode(noise, [0.0] * 7, True, False)})
    with pytest.raises(DataError, match="4 MB"):  # all films together
        EpisodePlayer({"Noise": fits, "More": Episode(noise[6:], [0.0], True, False)})


def test_too_many_steps(monkeypatch):
    monkeypatch.setattr(episode_player, "MEGABYTES", 0.01)
    frame = plain(1)
    EpisodePlayer({"Still": Episode(frame * 400, [0.1] * 399, True, False)})
    with pytest.raises(DataError, match="shorter ones"):
        EpisodePlayer({"Still": Episode(frame * 600, [0.1] * 599, True, False)})


def test_needs_no_agents():
    code = (
        "import sys, qtdqas_lite.widgets; heavy = {'gymnasium', 'stable_baselines3', 'minigrid'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
