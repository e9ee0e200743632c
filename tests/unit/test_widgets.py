"""The widgets' Python side: traits that are checked, and weights that the core writes."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import traitlets
from torch import nn

from qtdqas_lite import CircuitError, FixedCircuit, GeneratedNetwork, TargetError
from qtdqas_lite.widgets import (
    BilevelLandscape,
    CandidateExplorer,
    CircuitGrower,
    EpisodePlayer,
    RelaxedGate,
    WeightWriter,
)
from qtdqas_lite.widgets.parts import BookWidget


def network(n_qubits=4, n_layers=2, pixels=9, seed=0, **circuit):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    fixed = FixedCircuit(n_qubits, n_layers, generator=generator, **circuit)
    return GeneratedNetwork(nn.Linear(pixels, 1), fixed, generator=generator)


def images(count=5, side=3, seed=0):
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed))


LABELS = [0, 1, 1, 0, 1]

STILL = SimpleNamespace(
    frames=[np.zeros((3, 4, 3), np.uint8)] * 2, rewards=[1], terminated=True, truncated=False
)
KINDS = {
    BilevelLandscape: (),
    CandidateExplorer: (),
    CircuitGrower: (),
    EpisodePlayer: ({"Still": STILL},),
    RelaxedGate: (),
    WeightWriter: (),
}


def flat(net):
    with torch.no_grad():
        return torch.cat([tensor.flatten() for tensor in net.weights().values()]).tolist()


@pytest.fixture
def net():
    return network()


@pytest.fixture
def widget(net):
    return WeightWriter.from_network(net, images(), LABELS, ("no", "yes"))


def heard(widget, name="weights"):
    changes = []
    widget.observe(changes.append, name)
    return changes


# ---- From a network ------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", ["rx", "ry", "rz"])
@pytest.mark.parametrize("entangler", ["chain", "ring"])
@pytest.mark.parametrize("hadamard", [True, False])
def test_weights_are_the_networks(hadamard, entangler, rotation):
    net = network(hadamard=hadamard, entangler=entangler, rotation=rotation)
    with torch.no_grad():  # away from the start, where the mapping's bias is 0
        for parameter in net.parameters():
            parameter.add_(0.3)
    widget = WeightWriter.from_network(net, images(), LABELS)
    assert widget.theta == net.circuit.theta.tolist()
    # The widget counts in double precision; single precision has seven digits.
    assert widget.weights == pytest.approx(flat(net), abs=1e-5)
    assert widget.weights == pytest.approx(flat(net.double()), abs=1e-6)
    assert (widget.hadamard, widget.entangler, widget.rotation) == (hadamard, entangler, rotation)


def test_a_trained_network(net):
    x, y = images(20).flatten(1), torch.arange(20) % 2
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(20):
        loss = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    widget = WeightWriter.from_network(net, x, y, selected=3)
    assert widget.weights == pytest.approx(flat(net), abs=1e-6)
    assert widget.selected == 3
    assert widget.labels == y.tolist()


def test_dragging_leaves_the_network_as_it_is(net, widget):
    before = flat(net)
    widget.theta = [[0.0] * 4] * 2
    assert flat(net) == before


def test_a_network_in_double_precision():
    net = network().double()
    widget = WeightWriter.from_network(net, images(), LABELS)
    assert widget.weights == pytest.approx(flat(net), abs=1e-6)


def test_shapes_of_images(net):
    for same in (
        images(),
        images().flatten(1),
        images()[:, None],
        images().numpy(),
        images().tolist(),
    ):
        widget = WeightWriter.from_network(net, same, LABELS)
        assert widget.images[1] == pytest.approx(images()[1].flatten().tolist())


@pytest.mark.parametrize(
    ("error", "text", "change"),
    [
        (TargetError, "a GeneratedNetwork, got Linear", {"net": nn.Linear(9, 1)}),
        (TargetError, "square", {"images": torch.rand(5, 3, 4)}),
        (TargetError, "square", {"images": torch.rand(5, 10)}),
        (TargetError, "shape", {"images": torch.rand(5)}),
        (TargetError, "shape", {"images": torch.rand(0, 3, 3)}),
        (TargetError, "all of one size", {"images": [[0.0, 0.0], [0.0]]}),
        (TargetError, "between 0 and 1", {"images": 16 * images()}),
        (TargetError, "between 0 and 1", {"images": images() * float("nan")}),
        (TargetError, "5 images and 4 labels", {"labels": [0, 1, 1, 0]}),
        (TargetError, "5 images and 0 labels", {"labels": None}),
        (TargetError, "0 or 1", {"labels": [0, 1, 5, 0, 1]}),
        (TargetError, "0 or 1", {"labels": ["a", "b", "a", "b", "a"]}),
        (TargetError, "two names", {"class_names": ["1", "5", "7"]}),
        (
            TargetError,
            r"images of 4 pixels need the target nn.Linear\(4, 1\)",
            {"images": images(5, 2)},
        ),
    ],
)
def test_bad_arguments(net, error, text, change):
    arguments = {"net": net, "images": images(), "labels": LABELS, **change}
    with pytest.raises(error, match=text):
        WeightWriter.from_network(**arguments)


def test_networks_of_another_kind():
    class Own(FixedCircuit):
        pass

    frozen = nn.Linear(9, 1)
    frozen.bias.requires_grad_(False)
    circuit = FixedCircuit(4, 2)
    nets = [
        (
            TargetError,
            "feature 'log', got 'raw'",
            GeneratedNetwork(nn.Linear(9, 1), circuit, feature="raw"),
        ),
        (TargetError, "MLPMapping", GeneratedNetwork(nn.Linear(9, 1), circuit, "mlp")),
        (CircuitError, "FixedCircuit, got Own", GeneratedNetwork(nn.Linear(9, 1), Own(4, 2))),
        (CircuitError, "n_layers <= 4, got 5", network(n_layers=5)),
        (CircuitError, "n_qubits <= 8, got 9", network(n_qubits=9)),
        (TargetError, "with a bias", GeneratedNetwork(nn.Linear(9, 1, bias=False), circuit)),
        (TargetError, "nothing frozen", GeneratedNetwork(frozen, circuit)),
        (TargetError, "Linear", GeneratedNetwork(nn.Linear(9, 2), FixedCircuit(5, 2))),
        (TargetError, "Sequential", GeneratedNetwork(nn.Sequential(nn.Linear(9, 1)), circuit)),
    ]
    for error, text, net in nets:
        with pytest.raises(error, match=text):
            WeightWriter.from_network(net, images(), LABELS)


# ---- Without a network ---------------------------------------------------------------------------


def test_works_at_once():
    widget = WeightWriter()
    assert repr(widget) == "WeightWriter(7 qubits, 2 layers, 65 weights, 40 images)"
    assert widget.theta == WeightWriter().theta != WeightWriter(seed=1).theta
    assert widget.labels == [0, 1] * 20
    assert WeightWriter(class_names=("3", "8"), n_qubits=8, n_layers=4).class_names == ["3", "8"]


def test_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    widget = WeightWriter()
    widget.rotation = "rx"
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (TargetError, "use n_qubits=7", {"n_qubits": 6}),
        (CircuitError, "n_qubits <= 8", {"n_qubits": 9}),
        (CircuitError, "at least 1", {"n_layers": 0}),
        (CircuitError, "rotation must be", {"rotation": "u3"}),
        (CircuitError, "entangler must be", {"entangler": "star"}),
        (TargetError, "two digits", {"class_names": ("cat", "dog")}),
        (traitlets.TraitError, r"theta must be shape \(2, 7\)", {"theta": [[0.0]]}),
    ],
)
def test_bad_sizes(error, text, arguments):
    with pytest.raises(error, match=text):
        WeightWriter(**arguments)


# ---- Traits: checked, observed, linked -----------------------------------------------------------


def test_tensors_and_arrays_become_lists(widget):
    widget.theta = torch.ones(2, 4, requires_grad=True)
    assert widget.theta == [[1.0] * 4] * 2
    widget.bit_coefficients = np.arange(4, dtype=np.float32)
    assert widget.bit_coefficients == [0.0, 1.0, 2.0, 3.0]
    widget.bias = torch.tensor(2)
    assert widget.bias == 2.0


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("theta", [[0.0] * 4], r"shape \(2, 4\) = \(n_layers, n_qubits\), got shape \(1, 4\)"),
        ("theta", [[0.0] * 4, [0.0] * 3], "must hold numbers"),
        ("theta", [[0.0] * 4, [0.0] * 3 + [float("nan")]], "finite"),
        ("theta", None, "finite|numbers|shape"),
        ("bit_coefficients", [float("inf")] * 4, "finite"),
        ("bit_coefficients", "abc", "must hold numbers"),
        ("feature_coefficient", [1.0], "a single number"),
        ("bias", 1e30, "finite numbers between"),
        ("raw_deviation", 0.0, "positive"),
        ("scale", [1.0], r"shape \(2,\)"),
        ("entangler", "star", "entangler"),
        ("rotation", "u3", "rotation"),
        ("selected", 5, "from 0 to 4"),
        ("selected", -1, "from 0 to 4"),
        ("weights", [0.0] * 10, "read-only"),
        ("images", [], "read-only"),
        ("labels", [], "read-only"),
        ("n_qubits", 5, "read-only"),
    ],
)
def test_a_bad_value_leaves_the_old_one(widget, name, value, text):
    before = getattr(widget, name), widget.weights
    changes = heard(widget)
    with pytest.raises(traitlets.TraitError, match=text):
        setattr(widget, name, value)
    assert (getattr(widget, name), widget.weights) == before
    assert changes == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta", [[0.1] * 4] * 2),
        ("bit_coefficients", [0.5, -0.5, 0.0, 1.0]),
        ("feature_coefficient", -1.0),
        ("bias", 0.7),
        ("raw_mean", 0.2),
        ("raw_deviation", 2.0),
        ("centre", [1.0, -1.0]),
        ("scale", [2.0, 3.0]),
        ("hadamard", False),
        ("entangler", "chain"),
        ("rotation", "rx"),
    ],
)
def test_one_change_is_heard_once(widget, name, value):
    changes = heard(widget)
    setattr(widget, name, value)
    assert len(changes) == 1
    setattr(widget, name, value)  # nothing new
    assert len(changes) == 1
    again = WeightWriter.from_network(network(), images(), LABELS, **{name: value})
    assert widget.weights == again.weights == changes[0].new


def test_weights_follow_before_the_angles_are_heard(widget):
    seen = []
    widget.observe(lambda change: seen.append(widget.weights), "theta")
    before = widget.weights
    widget.theta = [[1.0] * 4] * 2
    assert seen == [widget.weights]
    assert seen != [before]


def test_linked_widgets_agree(net, widget):
    other = WeightWriter.from_network(net, images(), LABELS)
    traitlets.link((widget, "theta"), (other, "theta"))
    widget.theta = [[0.2, 0.4, 0.6, 0.8]] * 2
    assert other.weights == widget.weights
    other.theta = [[-1.0] * 4] * 2
    assert other.weights == widget.weights


def test_reset(widget):
    before = widget.weights
    widget.theta = [[1.0] * 4] * 2
    widget.bias = 3.0
    changes = heard(widget)
    widget.reset()
    assert widget.weights == before
    assert len(changes) == 1


# ---- What the front end does ---------------------------------------------------------------------


def test_messages_of_the_front_end(widget):
    """A front end sends the traits that its sliders changed; the weights follow, once."""
    changes = heard(widget)
    theta = [[0, 1, 2, 3], [0.5, 0.5, 0.5, 0.5]]  # JSON has no 0.0
    widget.set_state({"theta": theta, "bit_coefficients": [1, 0, 0, 0], "selected": 2})
    assert (widget.theta, widget.selected) == (theta, 2)
    assert len(changes) == 1
    again = WeightWriter.from_network(
        network(), images(), LABELS, theta=theta, bit_coefficients=[1, 0, 0, 0]
    )
    assert widget.weights == again.weights


def test_a_bad_message_changes_nothing(widget):
    before = widget.get_state()
    for state in ({"theta": [[0.0]]}, {"bias": float("nan")}, {"selected": 99}):
        with pytest.raises(traitlets.TraitError):
            widget.set_state(state)
    assert widget.get_state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_plain_json(kind):
    widget = kind(*KINDS[kind])
    state = json.loads(json.dumps(widget.get_state(), allow_nan=False))
    own = set(kind.class_traits(sync=True)) - set(BookWidget.class_traits())
    assert own
    assert {name: state[name] for name in own} == {name: getattr(widget, name) for name in own}
    assert "export default" in state["_esm"]
    assert "http" not in state["_esm"].replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in state["_css"]


def test_the_core_does_not_import_the_widgets():
    code = (
        "import sys, qtdqas_lite; heavy = {'anywidget', 'ipywidgets', 'traitlets', 'sklearn'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_option_is_refused(kind):
    with pytest.raises(TypeError, match=f"no option 'layers'.*{kind.__name__}"):
        kind(*KINDS[kind], layers=3)
