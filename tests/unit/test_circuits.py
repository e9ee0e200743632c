import math

import pennylane as qml
import pytest
import torch
from conftest import TWELVE, pennylane_probabilities

from qtdqas_lite import CircuitError, EncodingError, FixedCircuit
from qtdqas_lite.statevector import (
    entangler_permutation,
    evolve,
    group_sizes,
    probabilities,
    rotation_gates,
)


def build(n, n_layers, choice, generator):
    hadamard, entangler, rotation = choice
    return FixedCircuit(
        n,
        n_layers,
        hadamard=hadamard,
        entangler=entangler,
        rotation=rotation,
        generator=generator,
    ).double()


@pytest.mark.parametrize("choice", TWELVE)
@pytest.mark.parametrize(("n", "n_layers"), [(1, 2), (2, 3), (3, 4), (5, 3)])
def test_probabilities_and_gradients_are_pennylanes(n, n_layers, choice, generator):
    circuit = build(n, n_layers, choice, generator)
    cotangent = torch.randn(2**n, generator=generator, dtype=torch.double)
    theta = circuit.theta.detach().clone().requires_grad_()
    expected = pennylane_probabilities(
        theta, hadamard=choice[0], entangler=choice[1], rotation=choice[2]
    )
    found = circuit()
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(found @ cotangent, circuit.theta)
    (expected_slope,) = torch.autograd.grad(expected @ cotangent, theta)
    torch.testing.assert_close(slope, expected_slope, atol=1e-12, rtol=0)


@pytest.mark.parametrize("choice", TWELVE)
def test_gradient_agrees_with_finite_differences(choice, generator):
    circuit = build(4, 3, choice, generator)
    gates = rotation_gates(choice[2], circuit.theta)
    assert gates.is_complex() == (choice[2] != "ry")

    def function(theta):
        gates = rotation_gates(choice[2], theta)
        return probabilities(circuit.initial_state(), gates, circuit.permutation)

    assert torch.autograd.gradcheck(function, circuit.theta.detach().clone().requires_grad_())


@pytest.mark.parametrize("rotation", ["rx", "ry"])
@pytest.mark.parametrize("n", [6, 12, 13])  # two equal groups, two at the limit, four groups
def test_fast_path_equals_reference_path(n, rotation, generator):
    circuit = build(n, 3, (True, "ring", rotation), generator)
    cotangent = torch.randn(2**n, generator=generator, dtype=torch.double)
    start = torch.nn.functional.normalize(torch.randn_like(cotangent), dim=0)
    gates = rotation_gates(rotation, circuit.theta)
    fast = probabilities(start, gates, circuit.permutation)
    reference = evolve(start, gates, circuit.permutation).abs() ** 2
    for p in (fast, reference):
        circuit.theta.grad = None
        (p @ cotangent).backward(retain_graph=True)
        p.slope = circuit.theta.grad
    torch.testing.assert_close(fast, reference, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(fast.slope, reference.slope, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("choice", [(True, "ring", "ry"), (False, "chain", "rx")])
def test_second_derivatives_agree_with_finite_differences(choice, generator):
    circuit = build(3, 2, choice, generator)

    def function(theta):
        gates = rotation_gates(choice[2], theta)
        return probabilities(circuit.initial_state(), gates, circuit.permutation)

    assert torch.autograd.gradgradcheck(function, circuit.theta.detach().clone().requires_grad_())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch, of itself
def test_transforms_of_torch_func_agree_with_autograd(generator):
    circuit = build(3, 2, (False, "ring", "rx"), generator)
    theta = circuit.theta.detach()

    def function(theta):
        return torch.func.functional_call(circuit, {"theta": theta}, ())

    expected = torch.autograd.functional.jacobian(function, theta)
    torch.testing.assert_close(torch.func.jacrev(function)(theta), expected)
    torch.testing.assert_close(torch.func.jacfwd(function)(theta), expected)
    both = torch.func.vmap(function)(torch.stack([theta, theta + 1]))
    torch.testing.assert_close(both, torch.stack([function(theta), function(theta + 1)]))


def test_two_forward_passes_before_the_first_backward_pass(generator):
    circuit = build(4, 3, (False, "ring", "rx"), generator)
    other = build(4, 3, (False, "ring", "rx"), generator)
    (alone,) = torch.autograd.grad(circuit()[3], circuit.theta)
    first, _second = circuit(), other()
    (interleaved,) = torch.autograd.grad(first[3], circuit.theta)
    assert torch.equal(alone, interleaved)


def test_half_of_the_twelve_do_not_depend_on_their_angles(generator):
    uniform = torch.full((16,), 1 / 16, dtype=torch.double)
    delta = torch.eye(16, dtype=torch.double)[0]
    dead = 0
    for choice in TWELVE:
        p = build(4, 3, choice, generator)().detach()
        for fixed in (uniform, delta):
            dead += torch.allclose(p, fixed)
    assert dead == 6


def test_single_precision_is_close_and_normalised(generator):
    single = FixedCircuit(10, 20, generator=generator)
    p = single()
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.sum().item(), 1.0, atol=1e-5, rtol=0)
    torch.testing.assert_close(p.double(), single.double()(), atol=1e-6, rtol=0)


def test_the_ring_ends_with_a_cnot_onto_wire_0():
    # |011>: CNOT(0,1) idle; CNOT(1,2) flips wire 2 -> |010>; the ring's CNOT(2,0) is idle.
    state = torch.eye(8)[0b011]
    assert state[entangler_permutation("ring", 3)].argmax() == 0b010
    # |001>: only the ring's CNOT(2,0) acts -> |101>.
    state = torch.eye(8)[0b001]
    assert state[entangler_permutation("chain", 3)].argmax() == 0b001
    assert state[entangler_permutation("ring", 3)].argmax() == 0b101


@pytest.mark.parametrize("n", range(1, 25))
def test_groups_cover_the_wires_with_small_matrices(n):
    sizes = group_sizes(n)
    assert sum(sizes) == n
    assert max(sizes) <= (6 if n <= 12 else 5)


def test_seeds_repeat_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, two = (FixedCircuit(4, 2, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.theta, two.theta)
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.theta.abs().max() <= math.pi


def test_architecture_builds_the_circuit_again():
    circuit = FixedCircuit(3, 2, hadamard=False, entangler="chain", rotation="rx")
    again = FixedCircuit(**circuit.architecture())
    again.load_state_dict(circuit.state_dict())
    assert torch.equal(circuit(), again())
    assert "entangler='chain'" in repr(circuit)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_qubits": 0}, EncodingError, "n_qubits must be at least 1"),
        ({"n_qubits": 2.0}, EncodingError, "whole number"),
        ({"n_layers": 0}, CircuitError, "n_layers must be at least 1"),
        ({"n_layers": "2"}, CircuitError, "whole number"),
        ({"rotation": "u3"}, CircuitError, "'rx', 'ry' or 'rz'"),
        ({"entangler": "star"}, CircuitError, "'chain' or 'ring'"),
        ({"n_qubits": 50}, CircuitError, "50 qubits .* need about .* GB"),
        ({"n_qubits": 5000}, CircuitError, "5000 qubits"),
    ],
)
def test_bad_circuits_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        FixedCircuit(**{"n_qubits": 2, "n_layers": 2, **arguments})


@pytest.mark.parametrize("rotation", ["rx", "ry", "rz"])
def test_rotation_gates_are_pennylanes(rotation):
    angles = torch.linspace(-7, 7, 12, dtype=torch.double).view(3, 4)
    gates = rotation_gates(rotation, angles)
    assert gates.shape == (3, 4, 2, 2)
    make = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ}[rotation]
    for angle, gate in zip(angles.flatten().tolist(), gates.flatten(0, 1), strict=True):
        expected = torch.as_tensor(qml.matrix(make(angle, wires=0))).to(torch.complex128)
        torch.testing.assert_close(gate.to(torch.complex128), expected)


@pytest.mark.parametrize(
    ("gigabytes", "n_layers", "rotation", "fits"),
    # 2**20 amplitudes: 4 bytes each if real, 8 if complex, one state per layer and four to spare.
    [
        (0.10, 10, "ry", True),
        (0.07, 10, "ry", False),
        (0.10, 10, "rx", False),
        (0.10, 40, "ry", False),
    ],
)
def test_memory_is_counted(gigabytes, n_layers, rotation, fits, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1e9, "SC_PHYS_PAGES": gigabytes}.get)
    if fits:
        FixedCircuit(20, n_layers, rotation=rotation)
    else:
        with pytest.raises(CircuitError, match="use fewer qubits or layers"):
            FixedCircuit(20, n_layers, rotation=rotation)


def test_defaults_are_the_books_circuit():
    circuit = FixedCircuit(8, 50)
    assert circuit.architecture() == {
        "n_qubits": 8,
        "n_layers": 50,
        "hadamard": True,
        "entangler": "ring",
        "rotation": "ry",
    }
    assert circuit.theta.min() < -3
    assert circuit.theta.max() > 3


@pytest.mark.parametrize("choice", [(True, "ring", "ry"), (False, "ring", "rx")])
def test_autocast_does_not_round_probabilities(choice, generator):
    circuit = FixedCircuit(
        6, 3, hadamard=choice[0], entangler=choice[1], rotation=choice[2], generator=generator
    )
    (expected,) = torch.autograd.grad(circuit()[5], circuit.theta)
    with torch.autocast("cpu", torch.bfloat16):
        p = circuit()
    assert p.dtype == torch.float32
    (slope,) = torch.autograd.grad(p[5], circuit.theta)
    assert torch.equal(slope, expected)


def test_batched_gradients_agree_with_single_ones(generator):
    circuit = build(4, 2, (False, "ring", "rx"), generator)
    p = circuit()
    rows = torch.eye(16, dtype=torch.double)
    single = torch.stack(
        [torch.autograd.grad(p, circuit.theta, row, retain_graph=True)[0] for row in rows]
    )
    (batched,) = torch.autograd.grad(p, circuit.theta, rows, is_grads_batched=True)
    torch.testing.assert_close(batched, single)
