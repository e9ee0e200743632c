"""The relaxed gate's Python side: PennyLane's matrices, mixed."""

import math

import numpy as np
import pennylane as qml
import pytest
import torch
import traitlets

from qtdqas_lite import RelaxedCircuit
from qtdqas_lite.widgets import RelaxedGate

ROTATE = (qml.RX, qml.RY, qml.RZ)
DERIVED = ["weights", "axis", "angle", "kappa", "deviation", "gate"]


def matrix(rows):
    return np.array(rows) @ [1, 1j]


@pytest.mark.parametrize("seed", range(12))
def test_the_gate_is_the_weighted_sum_of_pennylanes(seed):
    draw = np.random.default_rng(seed)
    alpha, temperature, theta = 2 * draw.normal(size=3), draw.uniform(0.1, 3), draw.uniform(-7, 7)
    widget = RelaxedGate(alpha, temperature=temperature, theta=theta)
    soft = np.exp(alpha / temperature)
    assert widget.weights == pytest.approx(soft / soft.sum(), abs=1e-12)
    plain = [gate(theta, wires=0).matrix() for gate in ROTATE]
    total = np.einsum("k,kab->ab", widget.weights, plain)
    gate = matrix(widget.gate)
    assert np.allclose(widget.kappa * gate, total, atol=1e-12)
    assert np.allclose(gate.conj().T @ gate, np.eye(2), atol=1e-12)
    off = np.abs(total.conj().T @ total - np.eye(2)).max()
    assert widget.deviation == pytest.approx(off, abs=1e-12)
    # Axis and angle describe the same gate.
    paulis = np.stack([qml.matrix(p(0)) for p in (qml.X, qml.Y, qml.Z)])
    half, axis = widget.angle / 2, np.einsum("k,kab->ab", widget.axis, paulis)
    assert np.linalg.norm(widget.axis) == pytest.approx(1)
    assert np.allclose(gate, math.cos(half) * np.eye(2) - 1j * math.sin(half) * axis, atol=1e-12)


@pytest.mark.parametrize("k", range(3))
def test_one_gate_alone(k):
    """At a low temperature the largest logit takes all, and the gate is a plain rotation."""
    alpha = [-4.0] * 3
    alpha[k] = 4.0
    widget = RelaxedGate(alpha, temperature=0.1, theta=1.3)
    assert widget.weights == pytest.approx([float(j == k) for j in range(3)], abs=1e-30)
    assert widget.axis == pytest.approx(widget.weights, abs=1e-30)
    assert (widget.angle, widget.kappa) == pytest.approx((1.3, 1))
    assert abs(widget.deviation) < 1e-12
    assert np.allclose(matrix(widget.gate), ROTATE[k](1.3, wires=0).matrix(), atol=1e-12)


def test_a_slot_of_a_circuit():
    circuit = RelaxedCircuit(3, 2, sharing="qubit", temperature=0.5).double()
    alpha = circuit.alpha["rotation"]
    with torch.no_grad():
        alpha.normal_(generator=torch.Generator().manual_seed(1))
    widget = RelaxedGate(alpha[1, 2], temperature=circuit.temperature, theta=circuit.theta[1, 2])
    gate = circuit.layers(circuit.theta).gates[1, 2].detach()
    assert np.allclose(matrix(widget.gate), gate.numpy(), atol=1e-12)


def test_works_at_once():
    assert repr(RelaxedGate()) == "RelaxedGate(0.51 RX + 0.31 RY + 0.19 RZ, turns by 0.45 pi)"


def test_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    RelaxedGate().alpha = [0, 0, 1]
    assert torch.rand(1) == expected


def test_a_change_is_heard_with_all_that_follows_from_it():
    widget = RelaxedGate()
    heard = {}
    widget.observe(lambda c: heard.update({c["name"]: (widget.weights, widget.gate)}), DERIVED)
    widget.alpha = [0, 0, 0]
    assert set(heard) == set(DERIVED)
    assert heard["weights"] == heard["gate"] == (widget.weights, widget.gate)
    assert widget.weights == pytest.approx([1 / 3] * 3)
    heard.clear()
    widget.theta = 2
    assert set(heard) == {"angle", "kappa", "deviation", "gate"}


def test_linked_gates_agree():
    warm, cold = RelaxedGate(), RelaxedGate(temperature=0.3)
    traitlets.link((warm, "alpha"), (cold, "alpha"))
    warm.alpha = torch.tensor([0.1, 0.2, 0.4], requires_grad=True)
    assert cold.alpha == pytest.approx([0.1, 0.2, 0.4])
    assert cold.weights[2] > warm.weights[2]
    warm.temperature = 0.3
    assert cold.weights == warm.weights


def test_reset():
    widget = RelaxedGate([1, 2, 3], temperature=2, theta=-1)
    before = {name: getattr(widget, name) for name in DERIVED}
    widget.alpha, widget.temperature, widget.theta = [0, 0, 5], 0.2, 3
    widget.reset()
    assert (widget.alpha, widget.temperature, widget.theta) == ([1, 2, 3], 2, -1)
    assert {name: getattr(widget, name) for name in DERIVED} == before


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("alpha", [0.0, 1.0], r"shape \(3,\)"),
        ("alpha", [0.0, 1.0, math.inf], "finite"),
        ("alpha", "abc", "must hold numbers"),
        ("temperature", 0, "positive"),
        ("temperature", -1, "positive"),
        ("temperature", math.nan, "finite"),
        ("theta", [1.0], "a single number"),
        ("theta", None, "finite|numbers|shape"),
        ("weights", [1, 0, 0], "read-only"),
        ("axis", [1, 0, 0], "read-only"),
        ("angle", 0.0, "read-only"),
        ("kappa", 1.0, "read-only"),
        ("deviation", 0.0, "read-only"),
        ("gate", [], "read-only"),
    ],
)
def test_a_bad_value_leaves_the_old_one(name, value, text):
    widget = RelaxedGate()
    before = widget.get_state()
    with pytest.raises(traitlets.TraitError, match=text):
        setattr(widget, name, value)
    assert widget.get_state() == before
    with pytest.raises(traitlets.TraitError, match=text):
        RelaxedGate(**{name: value})


def test_extremes_stay_finite():
    for alpha, temperature in (([1e6, -1e6, 0], 1e-6), ([1e6, 1e6, 1e6], 1e-6), ([0, 0, 0], 1e6)):
        widget = RelaxedGate(alpha, temperature=temperature, theta=math.pi)
        assert sum(widget.weights) == pytest.approx(1)
        assert all(math.isfinite(part) for part in (*widget.axis, widget.angle, widget.kappa))


def test_a_message_of_the_front_end():
    widget = RelaxedGate()
    widget.set_state({"alpha": [4, -4, -4], "temperature": 1})  # JSON has no 1.0
    assert widget.weights[0] > 0.999
    with pytest.raises(traitlets.TraitError):
        widget.set_state({"alpha": [4, -4]})
    assert widget.alpha == [4, -4, -4]
