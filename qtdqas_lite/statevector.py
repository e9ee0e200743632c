"""From the gates of a layered circuit to the probabilities of its outcomes (chapter 02).

A layer is an entangler, which only reorders the basis states and changes signs, and then one 2x2
gate on every wire. Wire 0 is the most significant bit of a basis state's index, as in PennyLane.

There are two paths. :func:`evolve` is the reference: a few lines of plain tensor operations.
:func:`probabilities` is the fast path, with a gradient of its own. The tests hold one against the
other, and both against PennyLane.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .errors import CircuitError
from .kronecker import apply_all, group_sizes, kron, overlaps, trace_index

#: Which entangler acts in each layer: None if there is only one, a number for each layer, or a
#: weight for each layer and entangler, shape (n_layers, n_entanglers).
Choice = Sequence[int] | Tensor | None


def apply_gate(state: Tensor, gate: Tensor, wire: int) -> Tensor:
    """Apply a 2x2 gate to one wire of a state, or of several, of shape (..., 2**n)."""
    cube = state.reshape(*state.shape[:-1], 2**wire, 2, -1)
    return torch.einsum("ab,...lbr->...lar", gate, cube).reshape(state.shape)


def evolve(
    state: Tensor,
    gates: Tensor,
    permutations: Tensor,
    signs: Tensor | None = None,
    choice: Choice = None,
) -> Tensor:
    """Run every layer on a state: the reference path.

    Args:
        state: Amplitudes before the first layer, shape (2**n,). Several circuits with the same
            gates can run side by side: their states follow one another, shape (copies * 2**n,).
        gates: One 2x2 gate per layer and wire, shape (n_layers, n, 2, 2).
        permutations: The entanglers, as :func:`~qtdqas_lite.gates.entangler_permutation` gives
            them: the shape of ``state``, or (n_entanglers, that shape) if there are several.
        signs: Their signs, of the same shape; by default all +1.
        choice: Which of them acts in each layer. With weights, the layer is their weighted sum,
            and the state is then divided by its norm.

    Returns:
        Amplitudes after the last layer, of the shape of ``state``.
    """
    n_layers, n_qubits = gates.shape[:2]
    state = state.to(gates.dtype)
    moves = rows(permutations, len(state)), rows(signs, len(state))
    for layer, chosen in zip(gates, per_layer(choice, n_layers), strict=True):
        state = entangle(state, *moves, chosen).view(-1, 2**n_qubits)
        if isinstance(chosen, Tensor):
            state = state / torch.linalg.vector_norm(state)
        for wire, gate in enumerate(layer):
            state = apply_gate(state, gate, wire)
        state = state.reshape(-1)
    return state


def per_layer(choice: Choice, n_layers: int) -> Sequence[Any]:
    """Give each layer's entangler: a number, or weights of shape (n_entanglers,)."""
    if isinstance(choice, Tensor):
        return choice.unbind()
    return [0] * n_layers if choice is None else choice


def rows(pool: Tensor | None, size: int) -> Sequence[Tensor] | None:
    """Take the pool of permutations, or of signs, apart: one tensor for each entangler."""
    return None if pool is None else pool.view(-1, size).unbind()


def entangle(
    state: Tensor, permutations: Any, signs: Any, chosen: Any, out: Tensor | None = None
) -> Tensor:
    """Apply one entangler, or a weighted sum of all, to states of shape (..., 2**n)."""
    if not isinstance(chosen, Tensor):
        moved: Tensor = torch.index_select(state, -1, permutations[chosen], out=out)
        return moved if signs is None else torch.mul(moved, signs[chosen], out=out)
    return _mix(chosen, [entangle(state, permutations, signs, k) for k in range(len(chosen))])


def _mix(weights: Tensor, states: list[Tensor]) -> Tensor:
    # A real weight times a complex state would be computed as a complex product.
    parts = [torch.view_as_real(s) if s.is_complex() else s for s in states]
    total: Tensor = reduce(torch.add, map(torch.mul, weights, parts))
    return torch.view_as_complex(total) if states[0].is_complex() else total


def _inverses(permutations: Tensor) -> Tensor:
    index = torch.arange(permutations.shape[1], device=permutations.device)
    return torch.empty_like(permutations).scatter_(1, permutations, index.expand_as(permutations))


def _disentangle(
    state: Tensor, inverses: Any, signs: Any, chosen: int, out: Tensor | None = None
) -> Tensor:
    if signs is not None:
        state = state * signs[chosen]
    return torch.index_select(state, 0, inverses[chosen], out=out)


def probabilities(
    state: Tensor,
    gates: Tensor,
    permutations: Tensor,
    signs: Tensor | None = None,
    choice: Choice = None,
    *,
    reversible: bool = False,
) -> Tensor:
    """Run every layer and square the amplitudes: the fast path.

    The result and its gradients are those of ``evolve(...).abs() ** 2``. Every gate must be
    unitary. Where a gradient is itself to be differentiated (``create_graph=True``), and under the
    transforms of ``torch.func``, :func:`evolve` does the work, and it costs what that costs.

    Args:
        state: As for :func:`evolve`; the norm is 1.
        gates: As for :func:`evolve`; unitary.
        permutations: As for :func:`evolve`.
        signs: As for :func:`evolve`.
        choice: As for :func:`evolve`.
        reversible: Whether the gradient computes the state of each layer backwards from the last
            one, in place of keeping one state per layer: less memory, more time.

    Returns:
        Probabilities of the outcomes: real, of the shape of ``state``.

    Raises:
        CircuitError: if a weighted sum of entanglers, which cannot be undone, is to be reversible.
    """
    weights = choice if isinstance(choice, Tensor) else None
    if reversible and weights is not None:
        raise CircuitError(
            "a weighted sum of entanglers cannot be undone, so reversible must be off"
        )
    if transforms_active():
        return squares(evolve(state, gates, permutations, signs, choice))
    order = [0] * len(gates) if choice is None or weights is not None else list(choice)
    reversible = reversible or not torch.is_grad_enabled()  # with no gradient, nothing is kept
    result: Tensor = _Probabilities.apply(  # type: ignore[no-untyped-call]
        gates, state, weights, permutations, signs, order, reversible
    )
    return result


def transforms_active() -> bool:
    """Tell whether a transform of ``torch.func`` (grad, vmap, jvp, ...) is at work.

    These refuse a function with a gradient of its own, and cannot branch on values.
    """
    return torch._C._are_functorch_transforms_active()


def squares(state: Tensor) -> Tensor:
    """Square the sizes of amplitudes, real or complex."""
    return state.real**2 + state.imag**2 if state.is_complex() else state**2


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        start: Tensor,
        weights: Tensor | None,
        permutations: Tensor,
        signs: Tensor | None,
        order: list[int],
        reversible: bool,
    ) -> Tensor:
        n_qubits = gates.shape[1]
        ctx.order, ctx.norms = order, []
        ctx.sizes = group_sizes(n_qubits)
        # How many indices stand behind each group of wires.
        ctx.rights = [2 ** sum(ctx.sizes[i + 1 :]) for i in range(len(ctx.sizes))]
        ctx.groups = [kron(group) for group in torch.split(gates, ctx.sizes, 1)]
        moves = rows(permutations, len(start)), rows(signs, len(start))
        state = start.to(gates.dtype)
        spare = [torch.empty_like(state), torch.empty_like(state)]
        states = state.new_empty(1 if reversible else len(gates), len(state))
        for layer, matrices in enumerate(zip(*[g.unbind() for g in ctx.groups], strict=True)):
            if weights is None:
                state = entangle(state, *moves, order[layer], out=spare[0])
            else:  # the first matrix divides by the norm as it goes
                state = entangle(state, *moves, weights[layer])
                ctx.norms.append(torch.vdot(state, state).real.sqrt())
                matrices = matrices[0] / ctx.norms[-1], *matrices[1:]
            row = states[0 if reversible else layer]
            state = apply_all(matrices, ctx.rights, state, spare, out=row)
        ctx.reversible = reversible
        ctx.save_for_backward(gates, start, weights, permutations, signs, states)
        return squares(state)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, start, weights, permutations, signs, states = ctx.saved_tensors
        nothing = (None,) * 4
        # The caller wants to differentiate this gradient again, or many gradients at once.
        again = torch.is_grad_enabled()
        if again or torch._C._functorch.is_legacy_batchedtensor(grad):
            choice = ctx.order if weights is None else weights
            inputs = [t for t in (gates, start, weights) if t is not None and t.requires_grad]
            with torch.enable_grad():
                p = squares(evolve(start, gates, permutations, signs, choice))
            found = iter(torch.autograd.grad(p, inputs, grad, create_graph=again))
            given = [
                next(found) if t is not None and t.requires_grad else None
                for t in (gates, start, weights)
            ]
            return *given, *nothing
        # Within a layer all gates commute, so gate i can be thought of as the last one to act:
        # psi_before = G_i^-1 psi_after. With the gradient lambda of the state after the layer,
        # dL/dG_i = lambda psi_before^H, traced over the other wires, = S_i G_i, where S_i is
        # the same trace of lambda psi_after^H and G_i is unitary.
        n_layers = len(gates)
        pool = permutations.view(-1, len(start))
        matrices = [*zip(*[g.mH.resolve_conj().unbind() for g in ctx.groups], strict=True)]
        states = states.clone() if ctx.reversible else states  # one state, about to be undone
        state = states[-1]
        if weights is not None:  # a norm was divided out: along it there is no gradient
            grad = grad - grad @ squares(state)
        slopes: list[Tensor] = []
        # Results between the large temporary tensors would keep the memory of these apart, unused.
        collected = [state.new_empty(n_layers, 2**k, 2**k) for k in ctx.sizes]
        spare = [torch.empty_like(state), torch.empty_like(state)]
        # The overlaps of small states wait for one another: one call for many is faster.
        block = 1 if ctx.reversible else max(1, min(n_layers, 2**15 // len(start)))
        gradients = state.new_empty(block, len(start))
        undo = _inverses(pool).unbind(), rows(signs, len(start))
        gradient = torch.mul(state, grad, out=gradients[(n_layers - 1) % block]).mul_(2)
        for layer in reversed(range(n_layers)):
            if layer % block == 0:
                after = states if ctx.reversible else states[layer : layer + block]
                for k, right, overlap in zip(ctx.sizes, ctx.rights, collected, strict=True):
                    overlap[layer : layer + block] = overlaps(
                        gradients[: len(after)], after, 2**k, right
                    )
            row = gradients[(layer - 1) % block]
            gradient = apply_all(matrices[layer], ctx.rights, gradient, spare)
            if weights is None:
                gradient = _disentangle(gradient, *undo, ctx.order[layer], out=row)
            else:
                before = states[layer - 1] if layer else start.to(gates.dtype)
                moved = [_disentangle(gradient, *undo, k) for k in range(len(pool))]
                slope = torch.stack([torch.vdot(m, before).real for m in moved])
                slopes.append(slope / ctx.norms[layer])
                gradient = row.copy_(_mix(weights[layer] / ctx.norms[layer], moved))
            if ctx.reversible:
                state = apply_all(matrices[layer], ctx.rights, states[0], spare)
                _disentangle(state, *undo, ctx.order[layer], out=states[0])
        traces = [
            overlap.flatten(1)[:, trace_index(k, gates.device)].sum(-1)
            for k, overlap in zip(ctx.sizes, collected, strict=True)
        ]
        start_gradient = gradient if start.is_complex() else gradient.real
        gates_gradient = torch.cat(traces, 1).view(gates.shape) @ gates
        weights_gradient = torch.stack(slopes[::-1]) if slopes else None
        return gates_gradient, start_gradient, weights_gradient, *nothing
