"""What a circuit's angles can move: their Jacobian, and a score without training (chapter 04)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .errors import CircuitError, check_callable, check_type
from .simulator import Layers, apply_gate
from .simulator.statevector import apply_group, group_sizes, kron


def tangents(layers: Layers, gates: Tensor, gate_derivatives: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the derivatives with respect to every angle along with the state.

    All of it is plain tensor operations, so that the result can itself be differentiated, with
    respect to the weights of a relaxed architecture for example.

    Args:
        layers: The circuit; its gates are replaced by the next two.
        gates: Unitary gates, shape (n_layers, n, 2, 2).
        gate_derivatives: With respect to their own angles, of the same shape.

    Returns:
        The probabilities, shape (2**n,), and their derivatives, shape (n_layers * n, 2**n).
    """
    n_layers, n_qubits = gates.shape[:2]
    groups = [kron(group) for group in torch.split(gates, group_sizes(n_qubits), 1)]
    # This makes the state behind a gate its derivative with respect to the angle.
    replaced = gate_derivatives @ gates.mH
    # The state, and then one row for each angle so far.
    states = layers.start.to(gates.dtype)[None]
    for layer in range(n_layers):
        states = layers.entangle(states, layer)
        for group in groups:
            states = apply_group(group[layer], states)
        pairs = zip(replaced[layer], range(n_qubits), strict=True)
        new = torch.stack([apply_gate(states[0], gate, wire) for gate, wire in pairs])
        states = torch.cat([states, new])
    p = (states[0].conj() * states[0]).real
    derivatives = 2 * (states[0].conj() * states[1:]).real
    # The state of a mixture of entanglers is divided by its norm, and so are these.
    if isinstance(layers.choice, Tensor):
        total = p.sum()
        p = p / total
        derivatives = (derivatives - derivatives.sum(1, keepdim=True) * p) / total
    return p, derivatives


def angle_jacobian(layers: Callable[[Tensor], Any], theta: Tensor) -> tuple[Tensor, Tensor]:
    """Differentiate every probability with respect to every angle.

    Args:
        layers: The ``layers`` method of a circuit, which turns angles into :class:`.Layers`. It is
            called once.
        theta: Angles in radians, shape (n_layers, n), best in float64.

    Returns:
        The probabilities, shape (2**n,), and their derivatives, shape (n_layers * n, 2**n).
        The memory is that of the second, or twice that for complex gates.

    Raises:
        CircuitError: if there is not one angle for each gate.
    """
    check_callable(CircuitError, layers=layers)
    check_type(CircuitError, Tensor, theta=theta)
    # A gate depends on its own angle alone: one forward derivative gives all of them.
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)  # torch's own
        dual = forward_ad.make_dual(theta, torch.ones_like(theta))  # type: ignore[no-untyped-call]
        run = layers(dual)
        gates, derivatives = forward_ad.unpack_dual(run.gates)  # type: ignore[no-untyped-call]
    if theta.shape != gates.shape[:2]:
        raise CircuitError(
            f"there must be one angle for each gate, {tuple(gates.shape[:2])}, got angles of shape "
            f"{tuple(theta.shape)}"
        )
    return tangents(run, gates, torch.zeros_like(gates) if derivatives is None else derivatives)


def angle_score(layers: Callable[[Tensor], Any], theta: Tensor) -> Tensor:
    """Score how many directions the angles can move the weights in, without any training.

    The score is logdet(1 + 10 J J^T / 2**n), with J the derivatives of the log feature
    log(2**n p + 0.01). It is zero for a dead circuit, and grows with the number of independent
    directions and with their lengths.

    Args:
        layers: As for :func:`angle_jacobian`.
        theta: Angles in radians, shape (n_layers, n).

    Returns:
        Shape (), at least 0.
    """
    return jacobian_score(*angle_jacobian(layers, theta))


def jacobian_score(p: Tensor, derivatives: Tensor) -> Tensor:
    """Give :func:`angle_score` from what :func:`angle_jacobian` gives."""
    size = len(p)
    of_feature = size * derivatives / (size * p + 0.01)
    identity = torch.eye(len(of_feature), dtype=p.dtype, device=p.device)
    return torch.logdet(identity + 10 / size * of_feature @ of_feature.T)
