"""The episode player: films of an agent side by side, on one slider (chapter 10)."""

from __future__ import annotations

import base64
import io
from itertools import accumulate
from typing import Any

import numpy as np
import traitlets
from PIL import Image

from ..errors import DataError
from .parts import LARGEST, BookWidget, as_tensor, front_end

LONGER_SIDE = 360
MEGABYTES = 4


class EpisodePlayer(BookWidget):
    """Recorded episodes of one or several agents, side by side, all at the same step.

    Drag the step, go one back or forward, or press Play: nothing moves before. Below each film
    stand its step, the return so far, and at its end how it ended. A film that has ended stays at
    its last picture while a longer one goes on.

    ``step`` and ``speed`` are traits: assign to them, ``observe`` them, ``link`` them. A value that
    does not fit raises ``traitlets.TraitError``, and the old one stays.

    Attributes:
        step: The step that is shown, from 0 (the start) to ``n_steps``.
        speed: ``"slow"``, ``"normal"`` or ``"fast"``: 2, 8 or 30 steps a second.
        n_steps: The number of steps of the longest episode (read-only).
        returns: The sum of rewards up to ``step``, for each name (read-only).
        endings: How each episode has ended, for each name: ``"terminated"``, ``"truncated"`` or,
            if it was neither, ``"unfinished"``; empty while it still goes on (read-only).
        films: Of each episode its ``name``, ``width`` and ``height``, the index ``shown`` of the
            picture at each step, the ``returns`` up to each, and its ``ending`` (read-only).
        pictures: The different pictures of all films, as PNG in base64 (read-only).
    """

    _esm, _css = front_end("episode_player")
    _dragged = ("step", "speed")

    step = traitlets.Int(0).tag(sync=True)
    speed = traitlets.Enum(["slow", "normal", "fast"], "normal").tag(sync=True)
    n_steps = traitlets.Int(read_only=True).tag(sync=True)
    returns: Any = traitlets.Dict(read_only=True).tag(sync=True)
    endings: Any = traitlets.Dict(read_only=True).tag(sync=True)
    films: Any = traitlets.List(read_only=True).tag(sync=True)
    pictures: Any = traitlets.List(read_only=True).tag(sync=True)

    def __init__(self, episodes: Any, **traits: Any) -> None:
        """Build a player.

        Args:
            episodes: A dict of names and episodes, in the order in which they are shown. An episode
                is an :class:`.Episode`, or has its attributes: ``frames``, each uint8, shape
                (height, width, 3), one more than there are ``rewards``; ``terminated``;
                ``truncated``. Sides of more than 360 pixels are divided by a whole number.
            **traits: Values of traits, ``step=5`` for example.

        Raises:
            DataError: if ``episodes`` is not as described, or more than a page can hold, 4 MB.
            traitlets.TraitError: if one of ``traits`` does not fit.
        """
        if not isinstance(episodes, dict) or not episodes:
            raise DataError(
                "expected names and episodes, such as {'After training': episode}, got "
                + ("an empty dict" if isinstance(episodes, dict) else type(episodes).__name__)
            )
        album = _Album()
        films = [_film(name, episode, album) for name, episode in episodes.items()]
        n_steps = max(len(film["shown"]) for film in films) - 1
        fixed = {"films": films, "pictures": list(album.pictures), "n_steps": n_steps}
        for name, value in fixed.items():
            self.set_trait(name, value)
        super().__init__(**traits)
        self._follow(None)

    def __repr__(self) -> str:
        films = [f"{film['name']!r}: {len(film['shown']) - 1} steps" for film in self.films]
        return f"EpisodePlayer({', '.join(films)})"

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> int:
        step = int(proposal["value"])
        if not 0 <= step <= self.n_steps:
            raise traitlets.TraitError(f"step must be from 0 to {self.n_steps}, got {step}")
        return step

    @traitlets.observe("step")
    def _follow(self, _change: Any) -> None:
        returns, endings = {}, {}
        for film in self.films:
            last = len(film["shown"]) - 1
            returns[film["name"]] = film["returns"][min(self.step, last)]
            endings[film["name"]] = film["ending"] if self.step >= last else ""
        with self.hold_trait_notifications():  # whoever hears of one finds the other up to date
            self.set_trait("returns", returns)
            self.set_trait("endings", endings)


class _Album:
    """The different pictures of all films, each once, as PNG in base64, and their numbers."""

    def __init__(self) -> None:
        self.pictures: dict[str, int] = {}
        self._room = MEGABYTES * 10**6

    def number(self, image: Image.Image) -> int:
        """Give a picture's number; a new one is added."""
        colours = np.asarray(image, dtype=np.uint32) @ np.array([1, 2**8, 2**16], dtype=np.uint32)
        palette, indices = np.unique(colours, return_inverse=True)
        if len(palette) <= 256:  # exact, and a third of the size
            image = Image.fromarray(indices.reshape(colours.shape).astype(np.uint8))
            image.putpalette(palette.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        self._room -= 20 + len(data) * (data not in self.pictures)  # a step takes some, too
        if self._room < 0:
            raise DataError(
                f"these episodes take more than the {MEGABYTES} MB that a page should hold; show "
                f"fewer or shorter ones, or only their beginnings: "
                f"Episode(e.frames[:201], e.rewards[:200], terminated=False, truncated=False)"
            )
        return self.pictures.setdefault(data, len(self.pictures))


def _film(name: Any, episode: Any, album: _Album) -> dict[str, Any]:
    """Check an episode, and describe it for the front end."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"the name of an episode must be a text, got {name!r}")
    try:
        frames = [np.asarray(frame) for frame in episode.frames]
        rewards = as_tensor(episode.rewards)
        ends = {"terminated": bool(episode.terminated), "truncated": bool(episode.truncated)}
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: an episode has frames, rewards (numbers), terminated and truncated, as "
            f"record_episode gives it; in this {type(episode).__name__}: {error}"
        ) from None
    if rewards.shape != (len(frames) - 1,) or len(frames) < 2:
        raise DataError(
            f"{name}: an episode has one frame more than rewards, and at least two; there are "
            f"{len(frames)} frames, and rewards of shape {tuple(rewards.shape)}"
        )
    if not bool((rewards.abs() <= LARGEST).all()):
        raise DataError(f"{name}: rewards must be finite, from -{LARGEST:g} to {LARGEST:g}")
    height, width = (*frames[0].shape, 0, 0)[:2]
    for step, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.shape != (height, width, 3) or not frame.size:
            raise DataError(
                f"{name}: frames must be uint8, all of one shape (height, width, 3); frame {step} "
                f"is {frame.dtype}, shape {frame.shape}, and the first is {frames[0].shape}"
            )
    factor = -(-max(height, width) // LONGER_SIDE)  # whole: squares stay sharp
    images = (Image.fromarray(frame).reduce(factor) for frame in frames)
    return {
        "name": name,
        "width": -(-width // factor),
        "height": -(-height // factor),
        "shown": [album.number(image) for image in images],
        "returns": list(accumulate(rewards.tolist(), initial=0.0)),
        "ending": next((ending for ending, so in ends.items() if so), "unfinished"),
    }
