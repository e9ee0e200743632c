"""From the gates of a layered circuit to the probabilities of its outcomes (chapter 02).

A layer is an entangler, which only reorders the basis states and changes signs, and then one 2x2
gate on every wire. Wire 0 is the most significant bit of a basis state's index, as in PennyLane.

There are two paths. :func:`evolve` is the reference: a few lines of plain tensor operations.
:func:`probabilities` is the fast path, with a gradient of its own. The tests hold one against the
other, and both against PennyLane.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .errors import CircuitError
from .kronecker import Products, kron, overlaps, trace_index

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


def check_memory(n_qubits: int, n_layers: int, *, real: bool) -> None:
    """Refuse a circuit whose states alone would fill this machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told by every operating system
        return
    # A state per layer, a handful to work with, and the entangler's 8-byte indices.
    needed = 2 ** min(n_qubits, 200) * ((n_layers + 4) * (4 if real else 8) + 16)
    if needed > memory:
        raise CircuitError(
            f"{n_qubits} qubits and {n_layers} layers need about {needed / 1e9:,.0f} GB to train, "
            f"and this machine has {memory / 1e9:,.0f} GB; use fewer qubits or layers"
        )


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
        ctx.order, ctx.norms = order, []
        ctx.products = products = Products(gates.shape[1], len(start))
        ctx.groups = [kron(group) for group in torch.split(gates, products.sizes, 1)]
        moves = rows(permutations, len(start)), rows(signs, len(start))
        flat = start.to(gates.dtype)
        spare = products.views(flat.new_empty(2, len(flat)))
        states = flat.new_empty(1 if reversible else len(gates), len(flat))
        kept = products.views(states) * (len(gates) if reversible else 1)
        for layer, factors in enumerate(products.prepare(ctx.groups)):
            if weights is None:
                entangle(flat, *moves, order[layer], out=spare[0][-1])
                state = spare[0]
            else:  # the first matrix divides by the norm as it goes
                flat = entangle(flat, *moves, weights[layer])
                (state,) = products.views(flat[None])
                ctx.norms.append(torch.vdot(flat, flat).real.sqrt())
                factors = factors[0] / ctx.norms[-1], *factors[1:]
            flat = products.apply(factors, state, spare, out=kept[layer])[-1]
        ctx.reversible = reversible
        ctx.save_for_backward(gates, start, weights, permutations, signs, states)
        return squares(flat)

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
        n_layers, length, products = len(gates), len(start), ctx.products
        pool = permutations.view(-1, length)
        undo = _inverses(pool).unbind(), rows(signs, length)
        factors = products.prepare([g.mH.resolve_conj() for g in ctx.groups])
        states = states.clone() if ctx.reversible else states  # one state, about to be undone
        if weights is not None:  # a norm was divided out: along it there is no gradient
            grad = grad - grad @ squares(states[-1])
        slopes: list[Tensor] = []
        # Results between the large temporary tensors would keep the memory of these apart, unused.
        collected = [states.new_empty(n_layers, 2**k, 2**k) for k in products.sizes]
        spare = products.views(states.new_empty(2, length))
        # The overlaps of small states wait for one another: one call for many is faster.
        block = 1 if ctx.reversible else max(1, min(n_layers, 2**15 // length))
        gradients = states.new_empty(block, length)
        views = products.views(gradients)
        state = products.views(states)[0] if ctx.reversible else spare[0]
        gradient = views[(n_layers - 1) % block]
        torch.mul(states[-1], grad, out=gradient[-1]).mul_(2)
        for layer in reversed(range(n_layers)):
            if layer % block == 0:
                after = states if ctx.reversible else states[layer : layer + block]
                for right, overlap in zip(products.rights, collected, strict=True):
                    into = overlap[layer : layer + block]
                    overlaps(gradients[: len(into)], after, right, into)
            row = views[(layer - 1) % block]
            moved = products.apply(factors[layer], gradient, spare)[-1]
            if weights is None:
                _disentangle(moved, *undo, ctx.order[layer], out=row[-1])
            else:
                before = states[layer - 1] if layer else start.to(gates.dtype)
                parts = [_disentangle(moved, *undo, k) for k in range(len(pool))]
                slope = torch.stack([torch.vdot(part, before).real for part in parts])
                slopes.append(slope / ctx.norms[layer])
                row[-1].copy_(_mix(weights[layer] / ctx.norms[layer], parts))
            gradient = row
            if ctx.reversible:
                earlier = products.apply(factors[layer], state, spare)[-1]
                _disentangle(earlier, *undo, ctx.order[layer], out=state[-1])
        traces = [
            overlap.flatten(1)
            .index_select(1, trace_index(k, gates.device))
            .view(n_layers, 4 * k, -1)
            .sum(-1)
            for k, overlap in zip(products.sizes, collected, strict=True)
        ]
        start_gradient = gradient[-1] if start.is_complex() else gradient[-1].real
        gates_gradient = torch.cat(traces, 1).view(gates.shape) @ gates
        weights_gradient = torch.stack(slopes[::-1]) if slopes else None
        return gates_gradient, start_gradient, weights_gradient, *nothing
