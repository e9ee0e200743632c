"""From the gates of a layered circuit to the probabilities of its outcomes (chapter 02).

A layer is an entangler, which only reorders the basis states, and then one 2x2 gate on every wire.
Wire 0 is the most significant bit of a basis state's index, as in PennyLane.

There are two paths. :func:`evolve` is the reference: a few lines of plain tensor operations.
:func:`probabilities` is the fast path, with a gradient of its own. The tests hold one against the
other, and both against PennyLane.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import CircuitError

Rotation = Literal["rx", "ry", "rz"]
Entangler = Literal["chain", "ring"]


def rotation_gates(rotation: Rotation, theta: Tensor) -> Tensor:
    """Build the matrices exp(-i theta P / 2) of rotations about one Pauli axis P.

    Args:
        rotation: ``"rx"``, ``"ry"`` or ``"rz"``.
        theta: Angles in radians, any shape.

    Returns:
        The shape of ``theta`` and then (2, 2): real for ``"ry"``, otherwise complex, of the same
        precision.

    Raises:
        CircuitError: if the rotation has another name.
    """
    cos, sin = torch.cos(theta / 2), torch.sin(theta / 2)
    zero = torch.zeros_like(cos)
    if rotation == "ry":
        rows = [[cos, -sin], [sin, cos]]
    elif rotation == "rx":
        off = torch.complex(zero, -sin)
        rows = [[cos + 0 * off, off], [off, cos + 0 * off]]
    elif rotation == "rz":
        rows = [
            [torch.complex(cos, -sin), torch.complex(zero, zero)],
            [torch.complex(zero, zero), torch.complex(cos, sin)],
        ]
    else:
        raise CircuitError(f"rotation must be 'rx', 'ry' or 'rz', got {rotation!r}")
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def entangler_permutation(entangler: Entangler, n_qubits: int) -> Tensor:
    """Write a layer of CNOTs as a reordering of the basis states.

    The chain applies CNOT(0, 1), CNOT(1, 2), ..., CNOT(n-2, n-1), in this order. The ring adds
    CNOT(n-1, 0) at the end; on one qubit both do nothing.

    Args:
        entangler: ``"chain"`` or ``"ring"``.
        n_qubits: The number of qubits n, at least 1.

    Returns:
        Integer tensor of shape (2**n,): the new amplitude i is the old amplitude ``result[i]``,
        so that ``state[result]`` applies the layer.

    Raises:
        CircuitError: if the entangler has another name.
    """
    if entangler not in ("chain", "ring"):
        raise CircuitError(f"entangler must be 'chain' or 'ring', got {entangler!r}")
    gates = [(wire, wire + 1) for wire in range(n_qubits - 1)]
    if entangler == "ring" and n_qubits > 1:
        gates.append((n_qubits - 1, 0))
    source = torch.arange(2**n_qubits)
    # A CNOT is its own inverse, so where an amplitude comes from is found by undoing the gates
    # from the last to the first.
    for control, wire in reversed(gates):
        control_bit = (source >> (n_qubits - 1 - control)) & 1
        source = source ^ (control_bit << (n_qubits - 1 - wire))
    return source


def apply_gate(state: Tensor, gate: Tensor, wire: int) -> Tensor:
    """Apply a 2x2 gate to one wire of a state of shape (2**n,)."""
    cube = state.reshape(2**wire, 2, -1)
    return torch.einsum("ab,lbr->lar", gate, cube).reshape(-1)


def evolve(state: Tensor, gates: Tensor, permutation: Tensor) -> Tensor:
    """Run every layer on a state: the reference path.

    Args:
        state: Amplitudes before the first layer, shape (2**n,).
        gates: One 2x2 gate per layer and wire, shape (n_layers, n, 2, 2).
        permutation: The entangler, as :func:`entangler_permutation` gives it, shape (2**n,).

    Returns:
        Amplitudes after the last layer, shape (2**n,).
    """
    state = state.to(gates.dtype)
    for layer in gates:
        state = state[permutation]
        for wire, gate in enumerate(layer):
            state = apply_gate(state, gate, wire)
    return state


def probabilities(state: Tensor, gates: Tensor, permutation: Tensor) -> Tensor:
    """Run every layer and square the amplitudes: the fast path.

    The result and its gradient with respect to ``gates`` are those of
    ``evolve(state, gates, permutation).abs() ** 2``. Every gate must be unitary. Where a gradient
    is itself to be differentiated (``create_graph=True``), and under the transforms of
    ``torch.func``, :func:`evolve` does the work, and it costs what that costs. Memory: one state
    per layer.

    Args:
        state: Amplitudes before the first layer, shape (2**n,); not differentiated.
        gates: One unitary 2x2 gate per layer and wire, shape (n_layers, n, 2, 2).
        permutation: The entangler, as :func:`entangler_permutation` gives it, shape (2**n,).

    Returns:
        Probabilities of the 2**n outcomes: real, shape (2**n,).
    """
    if transforms_active():
        return _squares(evolve(state, gates, permutation))
    result: Tensor = _Probabilities.apply(gates, state, permutation)  # type: ignore[no-untyped-call]
    return result


def transforms_active() -> bool:
    """Tell whether a transform of ``torch.func`` (grad, vmap, jvp, ...) is at work.

    These refuse a function with a gradient of its own, and cannot branch on values.
    """
    return torch._C._are_functorch_transforms_active()


def group_sizes(n_qubits: int) -> list[int]:
    """Split the wires into neighbouring groups, each applied as one matrix product.

    Large matrices mean few calls, small ones little arithmetic: two groups are fastest up to 12
    qubits, groups of at most five above.
    """
    n_groups = min(2, n_qubits) if n_qubits <= 12 else -(-n_qubits // 5)
    size, larger = divmod(n_qubits, n_groups)
    return [size + 1] * larger + [size] * (n_groups - larger)


def _kron(gates: Tensor) -> Tensor:
    """Multiply out the tensor product of gates: (n_layers, k, 2, 2) -> (n_layers, 2**k, 2**k)."""

    def pair(left: Tensor, right: Tensor) -> Tensor:
        product = left[:, :, None, :, None] * right[:, None, :, None, :]
        size = left.shape[1] * right.shape[1]
        return product.reshape(-1, size, size)

    return reduce(pair, gates.unbind(1))


def _apply(matrix: Tensor, state: Tensor, left: int) -> Tensor:
    """Apply a (d, d) matrix to the middle axis of a state seen as (left, d, right)."""
    size = matrix.shape[0]
    if left == 1:
        return (matrix @ state.view(size, -1)).view(-1)
    if left * size == state.numel():
        return (state.view(left, size) @ matrix.T).view(-1)
    return (matrix.expand(left, size, size) @ state.view(left, size, -1)).view(-1)


def _overlap(one: Tensor, other: Tensor, left: int, size: int) -> Tensor:
    """Sum one[l, d, r] * conj(other[l, e, r]) over l and r: shape (d, e)."""
    if left == 1:
        return one.view(size, -1) @ other.view(size, -1).mH
    if left * size == one.numel():
        return one.view(left, size).T @ other.view(left, size).conj()
    return (one.view(left, size, -1) @ other.view(left, size, -1).mH).sum(0)


def _squares(state: Tensor) -> Tensor:
    return state.real**2 + state.imag**2 if state.is_complex() else state**2


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, start: Tensor, permutation: Tensor) -> Tensor:
        n_layers, n_qubits = gates.shape[:2]
        ctx.sizes = group_sizes(n_qubits)
        ctx.matrices = [_kron(group) for group in torch.split(gates, ctx.sizes, 1)]
        state = start.to(gates.dtype)
        states = state.new_empty(n_layers, 2**n_qubits)
        for layer in range(n_layers):
            state = torch.index_select(state, 0, permutation)
            left = 1
            for matrices in ctx.matrices:
                state = _apply(matrices[layer], state, left)
                left *= matrices.shape[1]
            states[layer] = state
        ctx.save_for_backward(gates, start, states, permutation)
        return _squares(state)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        gates, start, states, permutation = ctx.saved_tensors
        if torch.is_grad_enabled():  # the caller wants to differentiate this gradient again
            again = _squares(evolve(start, gates, permutation))
            return *torch.autograd.grad(again, gates, grad, create_graph=True), None, None
        # Within a layer all gates commute, so gate i can be thought of as the last one to act:
        # psi_before = G_i^-1 psi_after. With the gradient lambda of the state after the layer,
        # dL/dG_i = lambda psi_before^H, traced over the other wires, = S_i G_i, where S_i is
        # the same trace of lambda psi_after^H and G_i is unitary.
        n_layers = len(gates)
        inverse = torch.empty_like(permutation)
        inverse[permutation] = torch.arange(len(permutation), device=permutation.device)
        gradient = 2 * grad * states[-1]
        overlaps = [gradient.new_empty(n_layers, 2**k, 2**k) for k in ctx.sizes]
        for layer in reversed(range(n_layers)):
            left = 1
            for k, overlap in zip(ctx.sizes, overlaps, strict=True):
                overlap[layer] = _overlap(gradient, states[layer], left, 2**k)
                left *= 2**k
            left = 1
            for matrices in ctx.matrices:
                gradient = _apply(matrices[layer].mH, gradient, left)
                left *= matrices.shape[1]
            gradient = torch.index_select(gradient, 0, inverse)
        traces = []
        for k, overlap in zip(ctx.sizes, overlaps, strict=True):
            for wire in range(k):
                left, right = 2**wire, 2 ** (k - 1 - wire)
                cube = overlap.reshape(n_layers, left, 2, right, left, 2, right)
                traces.append(cube.diagonal(0, 1, 4).diagonal(0, 2, 4).sum((-2, -1)))
        return torch.stack(traces, 1) @ gates, None, None
