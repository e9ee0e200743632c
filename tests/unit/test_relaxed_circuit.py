import copy
import itertools
import math

import numpy as np
import pennylane as qml
import pytest
import torch
from conftest import ENTANGLE, pennylane_probabilities
from torch import nn

from qtdqas_lite import (
    CircuitEnsemble,
    CircuitError,
    EncodingError,
    RelaxedCircuit,
    paper_space,
)
from qtdqas_lite.simulator import gates, probabilities

# --- Against dense matrices

PAULI = {"rx": qml.PauliX(0).matrix(), "ry": qml.PauliY(0).matrix(), "rz": qml.PauliZ(0).matrix()}


def rotation_matrix(name, angle):
    pauli = PAULI.get(name, np.zeros((2, 2)))
    angle = 0 if name == "identity" else angle
    return math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * pauli


def entangler_matrix(name, n, power=1.0):
    """An entangler, every gate to a power, as PennyLane's matrices."""
    gates = qml.tape.make_qscript(ENTANGLE[name])(n).operations
    matrix = np.eye(2**n)
    for gate in gates:
        gate = qml.pow(gate, power, lazy=True) if power != 1 else gate
        matrix = qml.matrix(gate, wire_order=range(n)) @ matrix
    return matrix


def dense(circuit, theta):
    """The oracle: mix matrices, one layer after another."""
    weights = {k: a.detach().softmax(-1).numpy() for k, a in circuit.alpha.items()}
    n, space = circuit.n_qubits, circuit.space
    t = weights["hadamard"][0, space.hadamards.index(True)] if "hadamard" in weights else 1.0
    qubit, state = np.array([math.cos(t * math.pi / 4), math.sin(t * math.pi / 4)]), np.eye(1)[0]
    for _ in range(n):
        state = np.kron(state, qubit)
    for layer in range(circuit.n_layers):
        mix = weights["entangler"]
        mix = mix[min(layer, len(mix) - 1)]
        pairs = list(zip(space.entanglers, mix, strict=True))
        if circuit.entangler_mixture == "unitary":
            for name, power in pairs:
                state = entangler_matrix(name, n, power) @ state
        else:
            state = sum(weight * entangler_matrix(name, n) for name, weight in pairs) @ state
            state = state / np.linalg.norm(state)
        product = np.eye(1)
        for wire in range(n):
            row = weights["rotation"][min(layer, len(weights["rotation"]) - 1)]
            row = row[min(wire, len(row) - 1)]
            gate = np.zeros((2, 2))
            for number, name in enumerate(space.rotations):
                angle = theta[number] if circuit.separate_angles else theta
                gate = gate + row[number] * rotation_matrix(name, angle[layer, wire].item())
            product = np.kron(product, gate / np.sqrt(np.linalg.det(gate)))
        state = product @ state
    return np.abs(state) ** 2


def scattered(n, n_layers, seed=0, **options):
    """A relaxed circuit with weights that are far from equal."""
    generator = torch.Generator().manual_seed(seed)
    circuit = RelaxedCircuit(n, n_layers, **options, generator=generator).double()
    for alpha in circuit.alpha.values():
        alpha.data = torch.randn(alpha.shape, generator=generator).double()
    return circuit


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("sharing", ["global", "layer", "qubit"])
@pytest.mark.parametrize("mixture", ["renormalised", "unitary"])
@pytest.mark.parametrize("separate", [False, True])
def test_mixtures_are_those_of_matrices(n, sharing, mixture, separate):
    circuit = scattered(
        n,
        2,
        rotations=("rx", "identity", "rz", "ry"),
        entanglers=("ring", "cz-ring", "stride"),
        hadamards=(True, False) if n > 1 else (False, True),
        sharing=sharing,
        entangler_mixture=mixture,
        separate_angles=separate,
    )
    expected = dense(circuit, circuit.theta.detach())
    np.testing.assert_allclose(circuit().detach(), expected, atol=1e-13)


def test_a_mixed_rotation_turns_about_a_tilted_axis():
    circuit = scattered(2, 3, entanglers=("ring",), sharing="qubit")
    axes = circuit.alpha["rotation"].detach().softmax(-1).numpy()
    gates = circuit.layers(circuit.theta).gates.detach()
    torch.testing.assert_close(gates @ gates.mH, torch.eye(2).cdouble().expand(3, 2, 2, 2))
    for layer, wire in itertools.product(range(3), range(2)):
        theta, axis = circuit.theta[layer, wire].item(), axes[layer, wire]
        length = np.linalg.norm(axis)
        angle = 2 * math.atan2(length * math.sin(theta / 2), math.cos(theta / 2))
        pauli = sum(a * p for a, p in zip(axis / length, PAULI.values(), strict=True))
        expected = math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * pauli
        np.testing.assert_allclose(gates[layer, wire], expected, atol=1e-14)


# --- With one weight 1, it is the discrete circuit

ENTANGLERS = ("chain", "ring", "reversed", "stride", "cz-ring", "none")
ROTATIONS = ("rx", "ry", "rz", "identity")


def decide(circuit, choices):
    """Push the logits of one choice in each slot, given by kind, far above the others."""
    for kind, index in choices.items():
        count = circuit.alpha[kind].shape[-1]
        one_hot = nn.functional.one_hot(torch.as_tensor(index), count).double()
        circuit.alpha[kind].data = (120 * one_hot - 60).view(circuit.alpha[kind].shape)


@pytest.mark.parametrize("kind", [RelaxedCircuit, CircuitEnsemble])
def test_logits_that_are_not_finite_choose_nothing(kind):
    circuit = kind(2, 1) if kind is RelaxedCircuit else kind(paper_space(2, 1))
    next(iter(circuit.alpha.values())).data.fill_(math.nan)
    for use in (circuit.architecture, circuit.discretize, circuit):
        with pytest.raises(CircuitError, match="are not finite"):
            use()


@pytest.mark.parametrize("mixture", ["renormalised", "unitary"])
def test_a_gate_that_is_redefined_changes_no_circuit_that_exists(mixture, monkeypatch):
    options = {"entanglers": ("ring", "chain"), "rotations": ("rx", "ry"), "sharing": "qubit"}
    circuit = scattered(3, 2, entangler_mixture=mixture, **options)
    before = circuit()
    monkeypatch.setitem(gates.ROTATIONS, "rx", gates.ROTATIONS["rz"])
    monkeypatch.setitem(gates.ENTANGLERS, "ring", gates.ENTANGLERS["none"])
    assert torch.equal(circuit(), before)
    assert torch.equal(copy.deepcopy(circuit)(), before)
    assert not torch.equal(scattered(3, 2, entangler_mixture=mixture, **options)(), before)


def test_a_mixture_that_is_given_is_the_one_that_runs(generator):
    circuit = scattered(3, 2, sampling="gumbel", sharing="layer")
    mixture = circuit.mixture()
    expected = probabilities(circuit.layers(circuit.theta, mixture))
    assert torch.equal(circuit(mixture), expected)
    assert not torch.equal(circuit(), expected)
    for wrong in (
        {},
        {**mixture, "other": mixture["rotation"]},
        {**mixture, "rotation": torch.ones(2)},
    ):
        with pytest.raises(CircuitError, match="a mixture has weights of shapes"):
            circuit(wrong)


@pytest.mark.parametrize("mixture", ["renormalised", "unitary"])
def test_every_choice_becomes_its_discrete_circuit(mixture):
    options = {"rotations": ROTATIONS, "entanglers": ENTANGLERS, "entangler_mixture": mixture}
    circuit = scattered(3, 2, **options)
    everything = itertools.product((0, 1), range(len(ENTANGLERS)), range(len(ROTATIONS)))
    for start, entangler, rotation in everything:
        decide(circuit, {"hadamard": start, "entangler": entangler, "rotation": rotation})
        names = {"entangler": ENTANGLERS[entangler], "rotation": ROTATIONS[rotation]}
        theta = circuit.theta.detach()
        expected = pennylane_probabilities(theta, hadamard=not start, **names)
        torch.testing.assert_close(circuit().detach(), expected, atol=1e-12, rtol=0)
        assert circuit.entropy() < 1e-12


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sharing", ["layer", "qubit"])
def test_choices_of_each_layer_and_qubit_stay_where_they_are(sharing, seed):
    options = {"rotations": ROTATIONS, "entanglers": ENTANGLERS, "sharing": sharing}
    circuit = scattered(3, 4, seed, separate_angles=seed % 2 == 1, **options)
    draw = torch.Generator().manual_seed(seed)
    start = seed % 2
    entanglers = torch.randint(6, (4,), generator=draw)
    rotations = torch.randint(4, (4, 3 if sharing == "qubit" else 1), generator=draw)
    decide(circuit, {"hadamard": start, "entangler": entanglers, "rotation": rotations})
    index = rotations.expand(4, 3)
    theta = circuit.theta.detach()
    if circuit.separate_angles:
        theta = torch.stack([theta[index[i, j], i, j] for i in range(4) for j in range(3)]).view(
            4, 3
        )
    expected = pennylane_probabilities(
        theta,
        hadamard=not start,
        entangler=[ENTANGLERS[i] for i in entanglers],
        rotation=[[ROTATIONS[i] for i in row] for row in index],
    )
    torch.testing.assert_close(circuit().detach(), expected, atol=1e-12, rtol=0)
    with torch.no_grad():  # what is decided is run as one entangler in each layer
        assert circuit.layers(circuit.theta).choice == entanglers.tolist()
        torch.testing.assert_close(circuit(), expected, atol=1e-12, rtol=0)
    discrete = circuit.discretize()
    assert torch.equal(discrete.theta, theta)
    torch.testing.assert_close(discrete().detach(), expected, atol=1e-12, rtol=0)


def test_logits_and_angles_start_as_described(generator):
    circuit = RelaxedCircuit(4, 60, sharing="qubit", generator=generator)
    shapes = {"hadamard": (1, 2), "entangler": (60, 2), "rotation": (60, 4, 3)}
    assert {name: tuple(alpha.shape) for name, alpha in circuit.alpha.items()} == shapes
    assert 0.009 < circuit.alpha["rotation"].std() < 0.011
    assert circuit.entropy() > 0.999
    assert circuit.theta.shape == (60, 4)
    assert -math.pi <= circuit.theta.min() < -3
    assert 3 < circuit.theta.max() < math.pi


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_qubits": 0}, EncodingError, "n_qubits must be at least 1"),
        ({"n_layers": 1.5}, CircuitError, "whole number"),
        ({"n_qubits": 60}, CircuitError, "60 qubits need about"),
        ({"rotations": ()}, CircuitError, "rotations must be a tuple of at least one"),
        ({"entanglers": ["ring", "ring"]}, CircuitError, "names a choice twice"),
        ({"rotations": ("rx", "u3")}, CircuitError, "rotation must be one of"),
        ({"hadamards": (None,)}, CircuitError, "True, False or both"),
        ({"sharing": "none"}, CircuitError, "sharing must be"),
        ({"sampling": "argmax"}, CircuitError, "sampling must be .* got 'argmax'"),
        ({"temperature": 0.0}, CircuitError, "temperature must be"),
        ({"entangler_mixture": "mean"}, CircuitError, "'renormalised' or 'unitary', got 'mean'"),
    ],
)
def test_bad_relaxed_circuits_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        RelaxedCircuit(**{"n_qubits": 2, "n_layers": 2, **arguments})
