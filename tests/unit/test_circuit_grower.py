"""The growing circuit's Python side: it is grow's training, one opening at a time."""

import pytest
import torch
import traitlets
from torch import nn

from qtdqas_lite import GeneratedNetwork, GrowingCircuit, TargetError, grow
from qtdqas_lite.widgets import CircuitGrower

N_SLOTS = 8 * 3 * 6


@pytest.fixture(scope="module")
def grown():
    """Three slots opened by the rule, and never changed."""
    widget = CircuitGrower()
    for _ in range(3):
        widget.open_slot(*widget.steepest)
    return widget


def untrained(seed=0):
    """The network that a widget of this seed starts from, built as its documentation says."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    target = nn.Linear(16, 4, bias=False).double()
    circuit = GrowingCircuit(6, 8, start="ht")
    return GeneratedNetwork(target, circuit, generator=generator).double()


def test_it_is_grow(grown):
    """The same slots for the same slopes, and the same losses, as from one call of grow."""
    images = torch.tensor(grown.images, dtype=torch.double)
    labels = torch.tensor(grown.labels)
    last = []
    run = grow(
        untrained(),
        (images, labels),
        n_angles=3,
        final_steps=10,
        learning_rate=0.015,
        on_step=lambda step: last.append(step.loss),
        generator=torch.Generator(),
    )
    opened = [row for row in run.history if row["layer"] is not None]
    expected = [(row["layer"], row["axis"], row["wire"]) for row in opened]
    assert [tuple(grown.slot(number)) for number in grown.choices] == expected
    # The loss of a step is the one before it, so that of step 11 comes after ten steps.
    assert grown.losses[:3] == pytest.approx([last[10], last[20], last[30]], abs=1e-6)
    slopes = []
    for n_open, number in enumerate(grown.choices):
        before = CircuitGrower(choices=grown.choices[:n_open])
        slopes.append(torch.tensor(before.slopes).flatten()[number].item())
    assert slopes == pytest.approx([row["slope"] for row in opened], abs=1e-5)


def test_what_is_shown_is_the_networks(grown):
    net = grown.network
    images = torch.tensor(grown.images, dtype=torch.double)
    labels = torch.tensor(grown.labels)
    with torch.no_grad():
        outputs = net(images)
    assert grown.losses[-1] == pytest.approx(nn.functional.cross_entropy(outputs, labels).item())
    assert grown.accuracies[-1] == (outputs.argmax(1) == labels).double().mean()
    assert torch.tensor(grown.weights).reshape(4, 16) @ images[7].float() == pytest.approx(
        outputs[7].float(), abs=1e-4
    )
    assert torch.tensor(grown.theta) == pytest.approx(net.circuit.theta.detach().float())
    assert net.circuit.is_open.flatten().nonzero()[:, 0].tolist() == sorted(grown.choices)
    assert net.count().angles == 3


def test_slopes_are_derivatives():
    """The average over ten steps, from finite differences of the network that trains beside it."""
    widget = CircuitGrower(seed=2)
    net, places = untrained(seed=2), [(0, "rx", 1), (2, "ry", 5), (7, "rz", 0), (4, "ry", 3)]
    images = torch.tensor(widget.images, dtype=torch.double)
    labels = torch.tensor(widget.labels)
    averages = [0.0] * len(places)
    optimizer = torch.optim.Adam(net.mapping.parameters(), lr=0.015)

    @torch.no_grad()
    def loss_at(place, angle):
        net.circuit.open(*place, angle)
        value = nn.functional.cross_entropy(net(images), labels).item()
        net.circuit.close(*place)
        return value

    for _ in range(10):
        for i, place in enumerate(places):
            slope = (loss_at(place, 1e-5) - loss_at(place, -1e-5)) / 2e-5
            averages[i] = 0.9 * averages[i] + 0.1 * slope
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        nn.utils.clip_grad_norm_(net.mapping.parameters(), 1.0)
        optimizer.step()
    expected = [average / (1 - 0.9**10) for average in averages]
    shown = [
        widget.slopes[layer][("rx", "ry", "rz").index(axis)][wire] for layer, axis, wire in places
    ]
    assert shown == pytest.approx(expected, abs=1e-6)
    assert max(map(abs, shown)) > 0.01


def test_the_rule_beats_chance(grown):
    assert grown.losses[-1] < grown.rival_losses[-1]
    assert grown.accuracies[-1] > grown.rival_accuracies[-1]


def test_the_rival_trains_as_the_reader_does():
    """Whoever opens what chance opens gets what chance gets."""
    rival = CircuitGrower().rival
    widget = CircuitGrower(choices=rival[:2])
    assert widget.losses == widget.rival_losses
    assert widget.accuracies == widget.rival_accuracies
    assert widget.weights == widget.rival_weights


def test_starts_with_nothing_open():
    widget = CircuitGrower()
    assert widget.choices == []
    assert len(widget.losses) == len(widget.rival_losses) == 1
    assert widget.losses == widget.rival_losses
    assert torch.tensor(widget.theta).shape == torch.tensor(widget.slopes).shape == (8, 3, 6)
    assert not torch.tensor(widget.theta).any()
    assert widget.rival == CircuitGrower().rival != CircuitGrower(seed=1).rival
    assert widget.start == CircuitGrower().start != CircuitGrower(seed=1).start
    assert repr(widget).startswith("CircuitGrower(0 of 144 slots open, loss 1.")
    assert CircuitGrower(class_names=(4, 7, 8, 9)).class_names == ["4", "7", "8", "9"]


def test_undo_and_the_order(grown):
    again = CircuitGrower(choices=grown.choices)
    assert again.losses == grown.losses
    before = again.get_state()
    again.open_slot(7, "rz", 5)
    assert again.choices[-1] == N_SLOTS - 1
    assert again.losses[:-1] == grown.losses
    again.undo()
    assert again.get_state() == before
    again.choices = grown.choices[::-1]
    assert again.losses[-1] != grown.losses[-1]
    again.reset()
    assert again.get_state() == before


def test_another_rival(grown):
    widget = CircuitGrower(choices=grown.choices)
    widget.rival = torch.arange(12)
    assert widget.losses == grown.losses
    assert widget.rival_losses[0] == grown.rival_losses[0]
    assert widget.rival_losses[1:] != grown.rival_losses[1:]
    widget.reset()
    assert widget.rival_losses == grown.rival_losses


def test_a_choice_is_heard_with_all_that_follows_from_it():
    widget = CircuitGrower()
    heard = []
    names = ["losses", "accuracies", "weights", "slopes", "theta", "rival_losses"]

    def hear(change):
        sizes = len(widget.losses), len(widget.rival_losses), torch.tensor(widget.theta).any()
        heard.append((change["name"], *sizes))

    widget.observe(hear, names)
    widget.open_slot(3, "ry", 2)
    assert sorted(name for name, *_ in heard) == sorted(names)
    assert {tuple(map(int, rest)) for _, *rest in heard} == {(2, 2, 1)}


def test_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    CircuitGrower(choices=[5])
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("choices", [144], "from 0 to 143"),
        ("choices", [-1], "from 0 to 143"),
        ("choices", [1.0], "from 0 to 143"),
        ("choices", [True], "from 0 to 143"),
        ("choices", "abc", "from 0 to 143"),
        ("choices", None, "from 0 to 143"),
        ("choices", [5, 6, 5], "no slot twice"),
        ("choices", list(range(13)), "at most 12 slots, got 13"),
        ("rival", list(range(11)), "exactly 12 slots, got 11"),
        ("rival", [0] * 12, "no slot twice"),
        ("losses", [], "read-only"),
        ("slopes", [], "read-only"),
        ("start", {}, "read-only"),
        ("n_qubits", 5, "read-only"),
    ],
)
def test_a_bad_value_leaves_the_old_one(grown, name, value, text):
    before = grown.get_state()
    with pytest.raises(traitlets.TraitError, match=text):
        setattr(grown, name, value)
    assert grown.get_state() == before
    with pytest.raises(traitlets.TraitError, match=text):
        CircuitGrower(**{name: value})


def test_bad_slots_and_names(grown):
    before = grown.choices
    for slot in ((8, "rx", 0), (0, "u3", 0), (0, "rx", 6), (-1, "rx", 0)):
        with pytest.raises(traitlets.TraitError, match="there is no slot"):
            grown.open_slot(*slot)
    with pytest.raises(traitlets.TraitError, match="no slot twice"):
        grown.open_slot(*grown.slot(before[0]))
    assert grown.choices == before
    for names in (("1", "5"), ("1", "1", "2", "3"), ("a", "b", "c", "d"), ("10", "1", "2", "3")):
        with pytest.raises(TargetError, match="four different digits"):
            CircuitGrower(class_names=names)


def test_a_message_of_the_front_end(grown):
    widget = CircuitGrower()
    widget.set_state({"choices": grown.choices, "rival": widget.rival[::-1]})
    assert widget.losses == grown.losses
    with pytest.raises(traitlets.TraitError):
        widget.set_state({"choices": [144]})
    assert widget.losses == grown.losses
