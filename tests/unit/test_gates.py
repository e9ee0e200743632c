import math

import numpy as np
import pennylane as qml
import pytest
import torch
from conftest import ENTANGLE, ROTATE

from qtdqas_lite import CircuitError
from qtdqas_lite.simulator import gates
from qtdqas_lite.simulator.gates import (
    entangler_permutation,
    is_real,
    quaternion_gates,
    rotation_gates,
)
from qtdqas_lite.simulator.statevector import group_sizes, kron

ANGLES = torch.linspace(-7, 7, 12, dtype=torch.double).view(3, 4)


def pennylane_matrix(queue, n):
    """The matrix of what a function queues in PennyLane."""
    tape = qml.tape.make_qscript(queue)()
    return qml.matrix(tape, wire_order=range(n)) if len(tape) else np.eye(2**n)


@pytest.mark.parametrize("rotation", [*gates.ROTATIONS, "tilted"])
@pytest.mark.usefixtures("plugged")
def test_rotations_are_pennylanes(rotation):
    found = rotation_gates(rotation, ANGLES)
    assert found.shape == (3, 4, 2, 2)
    assert is_real(rotation) == (rotation in ("ry", "identity")) == (not found.is_complex())
    assert rotation_gates(rotation, ANGLES.float()).dtype.itemsize * 2 == found.dtype.itemsize
    for angle, gate in zip(ANGLES.flatten().tolist(), found.flatten(0, 1), strict=True):
        expected = pennylane_matrix(lambda angle=angle: ROTATE[rotation](angle, wires=0), 1)
        np.testing.assert_allclose(gate.numpy(), expected, atol=1e-14)


def test_the_identity_does_nothing_at_all():
    quaternions = gates.rotation_quaternions("identity", ANGLES.float())
    assert torch.equal(quaternions, torch.eye(4)[0].expand(3, 4, 4))
    assert gates.rotation_quaternions("identity", torch.tensor([math.nan])).isnan().any()


def test_a_quaternion_is_a_sum_of_pauli_matrices():
    w, x, y, z = 0.1, 0.2, 0.3, 0.4
    expected = w * np.eye(2) - 1j * (
        x * qml.PauliX(0).matrix() + y * qml.PauliY(0).matrix() + z * qml.PauliZ(0).matrix()
    )
    found = quaternion_gates(torch.tensor([[[w, x, y, z]]], dtype=torch.double))
    np.testing.assert_allclose(found[0, 0].numpy(), expected)
    real = quaternion_gates(torch.tensor([w, 0, y, 0], dtype=torch.double), real=True)
    np.testing.assert_allclose(real.numpy(), [[w, -y], [y, w]])


@pytest.mark.parametrize("entangler", [*gates.ENTANGLERS, "star"])
@pytest.mark.parametrize("n", range(1, 6))
@pytest.mark.usefixtures("plugged")
def test_entanglers_are_pennylanes(entangler, n):
    source, sign = entangler_permutation(entangler, n)
    assert source.dtype == torch.int64
    assert sorted(source.tolist()) == list(range(2**n))
    found = np.diag(sign.numpy()) @ np.eye(2**n)[source.numpy()]
    np.testing.assert_array_equal(found, pennylane_matrix(lambda: ENTANGLE[entangler](n), n))


def test_the_ring_ends_with_a_cnot_onto_wire_0():
    # |011>: CNOT(0,1) idle; CNOT(1,2) flips wire 2 -> |010>; the ring's CNOT(2,0) is idle.
    state = torch.eye(8)[0b011]
    assert state[entangler_permutation("ring", 3)[0]].argmax() == 0b010
    # |001>: only the ring's CNOT(2,0) acts -> |101>.
    state = torch.eye(8)[0b001]
    assert state[entangler_permutation("chain", 3)[0]].argmax() == 0b001
    assert state[entangler_permutation("ring", 3)[0]].argmax() == 0b101


@pytest.mark.parametrize(
    "rotation",
    [
        lambda theta: None,
        lambda theta: theta,
        lambda theta: torch.stack([theta] * 4, -1),
        lambda theta: torch.stack([theta.cos(), theta.sin(), 0 * theta, 0 * theta], 1),
        lambda theta: torch.stack([theta.cos(), theta.sin(), 0 * theta, 0 * theta], -1).float(),
        lambda theta: torch.stack([theta / 0, theta, theta, theta], -1),
    ],
)
def test_a_rotation_that_is_none_is_refused(rotation, monkeypatch):
    monkeypatch.setitem(gates.ROTATIONS, "mine", rotation)
    with pytest.raises(CircuitError, match=r"'mine' must turn angles .* into unit quaternions"):
        is_real("mine")


@pytest.mark.parametrize(
    "gate",
    [("cnot", 0, 3), ("cnot", -1, 0), ("cz", 3, 0), ("cz", 0, -1), ("cnot", 1, 1), ("swap", 0, 1)],
)
def test_an_entangler_on_wires_that_are_not_there_is_refused(gate, monkeypatch):
    monkeypatch.setitem(gates.ENTANGLERS, "mine", lambda n: [("cnot", 0, 1), gate])
    with pytest.raises(CircuitError, match=r"'mine' has a gate .* on 3 qubits"):
        entangler_permutation("mine", 3)


def test_unknown_gates_are_refused():
    with pytest.raises(CircuitError, match=r"rotation must be one of .*'rx', 'ry', 'rz'.* 'u3'"):
        rotation_gates("u3", ANGLES)
    with pytest.raises(CircuitError, match=r"entangler must be one of .*'chain', 'ring'.* 'all'"):
        entangler_permutation("all", 3)


def test_gates_made_in_inference_mode_can_be_trained_with_later():
    gates._constant.cache_clear()
    with torch.inference_mode():
        rotation_gates("ry", ANGLES)
    angles = ANGLES.clone().requires_grad_()
    rotation_gates("ry", angles).sum().backward()
    torch.testing.assert_close(angles.grad, -torch.sin(ANGLES / 2))


@pytest.mark.parametrize("n", range(1, 25))
def test_groups_cover_the_wires_with_small_matrices(n):
    sizes = group_sizes(n)
    assert sum(sizes) == n
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == (min(2, n) if n <= 12 else math.ceil(n / 5))


def test_kron_is_numpys():
    parts = torch.arange(24.0).view(2, 3, 2, 2)
    for layer, found in zip(parts.numpy(), kron(parts), strict=True):
        np.testing.assert_array_equal(found, np.kron(np.kron(layer[0], layer[1]), layer[2]))
