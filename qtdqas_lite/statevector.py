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
from .kronecker import Entanglers, first, group_sizes, inner, kron, last, trace_index

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
            Entry ``i * copies + c`` of their entanglers is then amplitude i of copy c.
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
        state = entangle(state, *moves, chosen)
        if isinstance(chosen, Tensor):
            state = state / torch.linalg.vector_norm(state)
        state = state.view(2**n_qubits, -1).mT  # a row for each copy
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


def entangle(state: Tensor, permutations: Any, signs: Any, chosen: Any) -> Tensor:
    """Apply one entangler, or a weighted sum of all, to states of shape (..., 2**n)."""
    if isinstance(chosen, Tensor):
        parts = (entangle(state, permutations, signs, k) for k in range(len(chosen)))
        return reduce(torch.add, map(torch.mul, chosen, parts))
    moved: Tensor = torch.index_select(state, -1, permutations[chosen])
    return moved if signs is None else moved * signs[chosen]


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

    The result and its gradients are those of ``evolve(...).abs() ** 2``; with weights, the gates'
    along changes that keep them unitary. Every gate must be unitary. Where a gradient is itself to
    be differentiated (``create_graph=True``), and under the transforms of ``torch.func``,
    :func:`evolve` does the work, and it costs what that costs.

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
        CircuitError: if a weighted sum of entanglers, which cannot be undone, is to be reversible,
            or ``choice`` is not one choice for each layer.
    """
    weights = choice if isinstance(choice, Tensor) else None
    if reversible and weights is not None:
        raise CircuitError(
            "a weighted sum of entanglers cannot be undone, so reversible must be off"
        )
    if choice is not None and len(choice) != len(gates):
        raise CircuitError(
            f"there are {len(gates)} layers, and entanglers are chosen for {len(choice)}"
        )
    if transforms_active() or not len(gates):
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
    if state.is_complex():
        return state.real * state.real + state.imag * state.imag
    return state * state


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
        state = start.to(gates.dtype).resolve_conj()
        sizes = group_sizes(gates.shape[1])
        ctx.matrices = [kron(group) for group in torch.split(gates.mT, sizes, 1)]  # transposed
        entanglers = Entanglers(permutations, signs, order, weights, state)
        ctx.order, ctx.reversible, ctx.scales = order, reversible, []
        kept = state.new_empty(1 if reversible else len(gates), len(state))
        times = len(gates) // len(kept)
        states, results = kept.unbind() * times, last(kept, sizes[-1]).unbind() * times
        # To and fro between two spare states: fresh ones cost time, and leave a heap full of holes.
        spare = state.new_empty(2, len(state))
        sources = [first(spare[i % 2], size).mT for i, size in enumerate(sizes)]
        targets = [last(spare[(i + 1) % 2], size) for i, size in enumerate(sizes[:-1])]
        moved = spare[0]
        for layer, factors in enumerate(zip(*[m.unbind() for m in ctx.matrices], strict=True)):
            entanglers.apply(layer, state, out=moved)
            if weights is not None:  # the first matrix divides by the norm as it goes
                ctx.scales.append(inner(moved, moved).rsqrt())
                factors = factors[0] * ctx.scales[-1], *factors[1:]
            written = *targets, results[layer]
            for factor, source, target in zip(factors, sources, written, strict=True):
                torch.mm(source, factor, out=target)
            state = states[layer]
        ctx.save_for_backward(gates, start, weights, permutations, signs, kept)
        return squares(state)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The caller may want to differentiate this gradient again, or many gradients at once.
        batched = transforms_active() or torch._C._functorch.is_legacy_batchedtensor(grad)
        plain = torch.is_grad_enabled() or batched
        found = _plain_gradients(ctx, grad) if plain else _fast_gradients(ctx, grad)
        return *found, None, None, None, None


def _plain_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Differentiate the reference path, for gates, start and weights, and let that be repeated."""
    gates, start, weights, permutations, signs, _ = ctx.saved_tensors
    inputs = [t for t in (gates, start, weights) if t is not None and t.requires_grad]
    choice = ctx.order if weights is None else weights
    with torch.enable_grad():
        p = squares(evolve(start, gates, permutations, signs, choice))
    found = iter(torch.autograd.grad(p, inputs, grad, create_graph=torch.is_grad_enabled()))
    return [
        next(found) if t is not None and t.requires_grad else None for t in (gates, start, weights)
    ]


def _fast_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Carry the gradient back through the layers: gates, start and weights."""
    # Within a layer all gates commute, so gate i can be thought of as the last one to act:
    # psi_before = G_i^-1 psi_after. With the gradient lambda of the state after the layer,
    # dL/dG_i = lambda psi_before^H, traced over the other wires, = S_i G_i, where S_i is the
    # same trace of lambda psi_after^H and G_i is unitary. To undo gates on those other wires, in
    # psi and lambda alike, does not change S_i. So the groups are undone from the last to the
    # first. The overlaps of a group are taken while its axis is the last one, where the product
    # is fast. Undoing it moves that axis to the front, and brings the group before to the end.
    gates, start, weights, permutations, signs, states = ctx.saved_tensors
    n_layers, length, sizes = len(gates), len(start), group_sizes(gates.shape[1])
    groups = range(len(sizes))
    undo = [matrix.conj().resolve_conj() for matrix in ctx.matrices]
    factors = [matrix.unbind() for matrix in undo]
    states = states.clone() if ctx.reversible else states  # one state, about to be undone
    if weights is not None:  # a norm was divided out: along it there is no gradient
        grad = grad - grad @ squares(states[-1])
    # Allocated first: small results between large temporary tensors would leave holes in the heap.
    overlaps = [states.new_empty(n_layers, 2**size, 2**size) for size in sizes]
    slopes = None if weights is None else grad.new_zeros(weights.shape)
    entanglers = Entanglers(permutations, signs, ctx.order, weights, states[-1])
    # Small states are collected in blocks of layers, so that one call gives the overlaps of a whole
    # block. The gradients before each group is undone wait with them. Two buffers are enough for
    # those of all groups but the last: where there are more groups, a block is a single layer.
    block = 1 if ctx.reversible else max(1, min(n_layers, 2**15 // length))
    behind = states.new_empty(block, length)
    turns, work = states.new_empty(2, 2, block, length)
    gradients = [*[turns[i % 2] for i in groups[:-1]], behind]
    undone, earlier = work[1, 0], behind.unbind()
    sources = [last(gradients[i], sizes[i]).mT.unbind() for i in groups]
    targets = [(first(undone, sizes[0]),) * block]
    targets += [first(gradients[i - 1], sizes[i]).unbind() for i in groups[1:]]
    torch.mul(states[-1], grad, out=earlier[(n_layers - 1) % block]).mul_(2)
    for layer in reversed(range(n_layers)):
        row = layer % block
        if row == 0:
            after = states if ctx.reversible else states[layer : layer + block]
        for i in reversed(groups):
            if row == 0:
                layers, seen = slice(layer, layer + len(after)), last(after, sizes[i])
                of_block = last(gradients[i][: len(after)], sizes[i])
                torch.bmm(of_block.mT, seen.conj(), out=overlaps[i][layers])
                if i or ctx.reversible:
                    after = work[i % 2, : len(after)]
                    torch.bmm(undo[i][layers], seen.mT, out=first(after, sizes[i]))
            torch.mm(factors[i][layer], sources[i][row], out=targets[i][row])
        if layer == 0 and not any(ctx.needs_input_grad[1:3]):
            break  # the first state and the weights are constants
        gradient = earlier[(layer - 1) % block]
        scale = 1.0 if slopes is None else ctx.scales[layer]
        parts = entanglers.undo(layer, undone, gradient, scale)
        if slopes is not None:
            before = states[layer - 1] if layer else start.to(gates.dtype).resolve_conj()
            torch.mul(inner(parts, before), scale, out=slopes[layer])
        if ctx.reversible:
            entanglers.undo(layer, after[0], states[0])
    traces = [
        overlap.flatten(1)
        .index_select(1, trace_index(size, gates.device))
        .view(n_layers, 4 * size, -1)
        .sum(-1)
        for size, overlap in zip(sizes, overlaps, strict=True)
    ]
    of_gates = torch.cat(traces, 1).view(gates.shape) @ gates
    of_start = None
    if ctx.needs_input_grad[1]:
        of_start = gradient if start.is_complex() else gradient.real
    return [of_gates, of_start, slopes]
