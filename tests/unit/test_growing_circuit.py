"""Growing circuits: against PennyLane, finite differences, and the plain circuits that they are."""

import copy
import math

import pennylane as qml
import pytest
import torch
from conftest import ENTANGLE, ROTATE
from torch import nn

from qtdqas_lite import Candidate, CircuitError, EncodingError, GeneratedNetwork, GrowingCircuit
from qtdqas_lite.pennylane_bridge import draw_architecture, to_qnode


def grown(n=3, n_layers=4, share=0.3, **options):
    """A circuit with about this share of its slots open, at random angles, in double precision."""
    draw = torch.Generator().manual_seed(n)
    circuit = GrowingCircuit(n, n_layers, generator=draw, **options).double()
    for number in range(circuit.is_open.numel()):
        if torch.rand((), generator=draw) < share:
            angle = 6 * torch.rand((), generator=draw).item() - 3
            circuit.open(*circuit.slot(number), angle)
    return circuit


def in_pennylane(circuit, entangler="ring"):
    """The oracle: the scaffold, gate by gate."""
    n = circuit.n_qubits
    angles = circuit.frozen + circuit.theta.detach() * circuit.is_open

    @qml.qnode(qml.device("default.qubit", wires=n))
    def outcomes():
        for wire in range(n):
            if circuit.state is None:
                qml.Hadamard(wire)
                qml.T(wire)
        if circuit.state is not None:
            qml.StatePrep(torch.complex(*circuit.state), wires=range(n))
        for layer in angles:
            ENTANGLE[entangler](n)
            for name, row in zip(circuit.axes, layer, strict=True):
                for wire in range(n):
                    ROTATE[name](row[wire], wires=wire)
        return qml.probs(wires=range(n))

    return outcomes()


def own_state(n, generator):
    state = torch.randn(2**n, dtype=torch.complex128, generator=generator)
    return state / torch.linalg.vector_norm(state)


OPTIONS = {
    "ht": {"start": "ht"},
    "random": {"start": "random"},
    "two axes": {"start": "ht", "axes": ("rz", "ry"), "entangler": "chain"},
    "signs": {"start": "ht", "axes": ("rx",), "entangler": "cz-ring"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_gives_the_probabilities_of_pennylane(options, n, share):
    circuit = grown(n, 3, share, **options)
    expected = in_pennylane(circuit, options.get("entangler", "ring"))
    torch.testing.assert_close(circuit().detach(), expected, atol=1e-12, rtol=0)
    plain = circuit.discretize()
    torch.testing.assert_close(plain().detach(), expected, atol=1e-12, rtol=0)
    assert Candidate.from_json(circuit.architecture().to_json()) == plain.architecture()


def test_starts_in_a_state_of_ones_own(generator):
    torch.set_default_dtype(torch.float64)
    try:
        circuit = grown(3, start=own_state(3, generator))
        real = grown(3, start=torch.eye(8)[5])
    finally:
        torch.set_default_dtype(torch.float32)
    for one in (circuit, real):
        torch.testing.assert_close(one().detach(), in_pennylane(one), atol=1e-12, rtol=0)
    again = GrowingCircuit(**circuit.configuration()).double()
    again.load_state_dict(circuit.state_dict())
    torch.testing.assert_close(again(), circuit(), atol=1e-7, rtol=0)
    with pytest.raises(CircuitError, match="state of your own"):
        circuit.architecture()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_slopes_are_those_of_finite_differences(options, share, generator):
    circuit = grown(3, 3, share, **options)
    cotangent = torch.randn(8, dtype=torch.float64, generator=generator)
    with circuit.slopes() as zeros:
        (circuit() @ cotangent).backward()
    assert circuit._probe is None
    for number, slope in enumerate(zeros.grad.flatten().tolist()):
        values = []
        for step in (1e-5, -1e-5):
            moved = copy.deepcopy(circuit)
            if not moved.is_open.flatten()[number]:
                moved.open(*moved.slot(number))
            moved.theta.data.view(-1)[number] += step
            values.append((moved() @ cotangent).item())
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)
    # An ordinary gradient is the same where slots are open, and zero elsewhere.
    torch.testing.assert_close(circuit.theta.grad, zeros.grad * circuit.is_open)


def test_single_precision_and_more_qubits_are_as_good(generator):
    circuit = grown(9, 6, 0.1, start="ht")
    cotangent = torch.randn(512, dtype=torch.float64, generator=generator)
    found = []
    for one in (circuit, copy.deepcopy(circuit).float()):
        with one.slopes() as zeros:
            p = one()
            (p @ cotangent.to(p)).backward()
        found.append((p.detach().double(), zeros.grad.double()))
    (p, slopes), (single, rough) = found
    torch.testing.assert_close(single, p, atol=1e-7, rtol=1e-4)
    assert (rough - slopes).abs().max() < 1e-4 * slopes.abs().max()


def test_opening_changes_nothing_and_closing_takes_a_gate_away():
    circuit = grown()
    before = circuit().detach()
    slot = next(circuit.slot(i) for i in range(36) if not circuit.is_open.flatten()[i])
    circuit.open(*slot)
    assert slot in circuit.open_slots()
    torch.testing.assert_close(circuit().detach(), before, atol=1e-15, rtol=0)
    circuit.theta.data[slot.layer, circuit.axes.index(slot.axis), slot.wire] = 2.0
    assert (circuit() - before).abs().max() > 1e-3
    circuit.close(*slot)
    assert slot not in circuit.open_slots()
    torch.testing.assert_close(circuit().detach(), before, atol=1e-15, rtol=0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
    ],
)
def test_no_optimizer_moves_what_is_closed(optimizer, generator):
    circuit = grown()
    chosen = optimizer([circuit.theta])
    cotangent = torch.randn(8, dtype=torch.float64, generator=generator)
    before = circuit.theta.detach().clone()
    for _ in range(5):
        chosen.zero_grad()
        (circuit() @ cotangent).backward()
        chosen.step()
    moved = circuit.theta != before
    assert not moved[~circuit.is_open].any()
    assert moved[circuit.is_open].all()


def test_counts_what_is_open_and_what_the_choice_says():
    circuit = GrowingCircuit(3, 4)
    assert (circuit.n_open, circuit.choice_bits) == (0, 0.0)
    for wire in range(3):
        circuit.open(2, "ry", wire)
    assert circuit.n_open == 3
    assert circuit.choice_bits == pytest.approx(math.log2(36 * 35 * 34 / 6))
    net = GeneratedNetwork(nn.Linear(3, 2), circuit)
    assert net.count().angles == 3
    assert net.count().total == 3 + sum(p.numel() for p in net.mapping.parameters())
    assert net.count().choice_bits == circuit.choice_bits
    circuit.theta.requires_grad_(False)
    assert net.count().angles == 0


def test_a_network_goes_through_a_file(tmp_path):
    torch.manual_seed(0)
    for start in ("ht", "random"):
        circuit = grown(3, start=start).float()
        net = GeneratedNetwork(nn.Linear(3, 2), circuit)
        net.save(tmp_path / "net.safetensors")
        again = GeneratedNetwork.load(tmp_path / "net.safetensors", nn.Linear(3, 2))
        assert again.circuit.open_slots() == circuit.open_slots()
        assert torch.equal(again(torch.ones(1, 3)), net(torch.ones(1, 3)))


def test_weights_that_were_written_once_are_written_anew_when_a_slot_opens():
    net = GeneratedNetwork(nn.Linear(3, 2), GrowingCircuit(3, 4))  # with nothing open
    with torch.no_grad():
        before = net(torch.ones(1, 3))
        net.circuit.open(2, "ry", 1, angle=1.0)
        assert not torch.allclose(net(torch.ones(1, 3)), before)


def test_becomes_a_qnode_and_a_drawing():
    circuit = grown(3, 5, start="ht")
    qnode = to_qnode(circuit)
    found = qnode(circuit.theta.detach())
    torch.testing.assert_close(found, circuit().detach(), atol=1e-12, rtol=0)
    specs = qml.specs(qnode)(circuit.theta.detach())
    gates = specs["resources"].gate_types
    assert gates["CNOT"] == 3 * 5
    assert gates["RX"] + gates["RY"] + gates["RZ"] == circuit.n_open + 3  # and the three T
    figure, axes = draw_architecture(circuit)
    assert figure.axes == [axes]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"n_qubits": 0}, EncodingError, "n_qubits"),
        ({"n_layers": 0}, CircuitError, "n_layers"),
        ({"n_layers": 2.5}, CircuitError, "whole"),
        ({"axes": ()}, CircuitError, "axes"),
        ({"axes": ("rx", "rx")}, CircuitError, "different"),
        ({"axes": ("up",)}, CircuitError, "rotation"),
        ({"entangler": "knot"}, CircuitError, "entangler"),
        ({"start": "zero"}, CircuitError, "start"),
        ({"start": torch.ones(8)}, CircuitError, "norm 1"),
        ({"start": torch.ones(4) / 2}, CircuitError, "8 amplitudes"),
        ({"start": torch.full((8,), math.nan)}, CircuitError, "norm 1"),
        ({"start": None}, CircuitError, "start"),
        ({"n_qubits": 45}, CircuitError, "GB"),
    ],
)
def test_says_what_it_cannot_be_built_from(arguments, error, match):
    with pytest.raises(error, match=match):
        GrowingCircuit(**{"n_qubits": 3, **arguments})


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda c: [c.open(0, "rx", 0), c.open(0, "rx", 0)], "is open"),
        (lambda c: c.close(0, "rx", 0), "is closed"),
        (lambda c: c.open(9, "rx", 0), "no slot"),
        (lambda c: c.open(-1, "rx", 0), "at least 0"),
        (lambda c: c.open(0, "rw", 0), "no slot"),
        (lambda c: c.open(0, "rx", 3), "no slot"),
        (lambda c: c.open(0.5, "rx", 0), "whole"),
        (lambda c: c.open(0, "rx", 0, math.nan), "finite"),
    ],
)
def test_says_which_slots_there_are(act, match):
    circuit = GrowingCircuit(3, 4)
    with pytest.raises(CircuitError, match=match):
        act(circuit)
    assert circuit.n_open <= 1
