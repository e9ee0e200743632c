"""Circuits of RX and CNOT that start in ``|0...0>``: the same cost for any number of layers.

In the Hadamard frame RX is diagonal, a CNOT swaps control and target, and ``|0...0>`` becomes the
uniform state, which no CNOT changes. All gates then commute but for a relabelling of the basis
states, so the whole circuit is one phase per basis state between two Walsh-Hadamard transforms (an
IQP circuit: Shepherd and Bremner, arXiv 0809.0847).
"""

from __future__ import annotations

from functools import lru_cache, reduce

import torch
from torch import Tensor

from ..errors import CircuitError, refuses
from .gates import CNOT, entangler_gates
from .statevector import apply_group, group_sizes


@refuses(CircuitError)
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


@refuses(CircuitError)
def iqp_probabilities(theta: Tensor, masks: Tensor) -> Tensor:
    """Give the probabilities of a circuit of RX layers that starts in ``|0...0>``.

    Args:
        theta: Angles in radians, shape (n_layers, n).
        masks: Of the same shape, from :func:`iqp_masks`.

    Returns:
        Shape (2**n,), with every derivative.
    """
    n_qubits = theta.shape[1]
    coefficients = theta.new_zeros(2**n_qubits).scatter_add(0, masks.flatten(), theta.flatten() / 2)
    phases = walsh_hadamard(coefficients, n_qubits)
    parts = walsh_hadamard(torch.stack([phases.cos(), phases.sin()]), n_qubits)
    return parts.square().sum(0) * 0.25**n_qubits


@refuses(CircuitError)
def walsh_hadamard(values: Tensor, n_qubits: int) -> Tensor:
    """Sum (-1)**(bits(i) . bits(j)) * values[j] over j, for every i; shape (..., 2**n) is kept."""
    for size in group_sizes(n_qubits):
        values = apply_group(_hadamards(size, values.dtype, values.device), values)
    return values


@lru_cache(maxsize=32)
def _hadamards(n_qubits: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in that mode could not be trained with later
        one = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=dtype, device=device)
        return reduce(torch.kron, [one] * n_qubits)
