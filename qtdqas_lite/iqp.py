"""Circuits of RX and CNOT that start in ``|0...0>``: the same cost for any number of layers.

In the Hadamard frame RX is diagonal, a CNOT swaps control and target, and ``|0...0>`` becomes the
uniform state, which no CNOT changes. All gates then commute but for a relabelling of the basis
states, so the whole circuit is one phase per basis state between two Walsh-Hadamard transforms (an
IQP circuit: Shepherd and Bremner, arXiv 0809.0847).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .gates import CNOT, entangler_gates
from .kronecker import group_sizes


def iqp_masks(entanglers: tuple[str, ...], n_qubits: int) -> Tensor | None:
    """Find the parity of the basis state's bits that decides the sign of each angle.

    Args:
        entanglers: The entangler of each layer.
        n_qubits: The number of qubits n.

    Returns:
        Whole numbers of shape (n_layers, n): bit n-1-q of a mask says whether wire q is in the
        parity. None if a gate is not a CNOT.
    """
    masks = [1 << (n_qubits - 1 - wire) for wire in range(n_qubits)]
    layers = []
    for entangler in reversed(entanglers):
        layers.append(list(masks))
        for kind, control, target in reversed(entangler_gates(entangler, n_qubits)):
            if kind != CNOT:
                return None
            masks[control] ^= masks[target]
    return torch.tensor(layers[::-1])


def iqp_probabilities(theta: Tensor, masks: Tensor) -> Tensor:
    """Give the probabilities of a circuit of RX layers that starts in ``|0...0>``.

    Args:
        theta: Angles in radians, shape (n_layers, n).
        masks: Of the same shape, from :func:`iqp_masks`.

    Returns:
        Shape (2**n,), with every derivative.
    """
    n_qubits = theta.shape[1]
    coefficients = theta.new_zeros(2**n_qubits).index_add(0, masks.flatten(), theta.flatten() / 2)
    phases = walsh_hadamard(coefficients, n_qubits)
    parts: Tensor = walsh_hadamard(torch.stack([phases.cos(), phases.sin()]), n_qubits)
    return parts.square().sum(0) * 0.25**n_qubits


def walsh_hadamard(values: Tensor, n_qubits: int) -> Tensor:
    """Sum (-1)**(bits(i) . bits(j)) * values[j] over j, for every i; shape (..., 2**n) is kept."""
    hadamard = values.new_tensor([[1.0, 1.0], [1.0, -1.0]])
    right = 2**n_qubits
    for size in group_sizes(n_qubits):
        matrix = hadamard
        for _ in range(size - 1):
            matrix = torch.kron(matrix, hadamard)
        right //= 2**size
        cube = values.reshape(-1, 2**size, right)
        moved = cube[..., 0] @ matrix if right == 1 else matrix @ cube
        values = moved.reshape(values.shape)
    return values
