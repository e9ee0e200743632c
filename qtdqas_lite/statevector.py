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
    if isinstance(chosen, Tensor):
        parts = (entangle(state, permutations, signs, k) for k in range(len(chosen)))
        return reduce(torch.add, map(torch.mul, chosen, parts))
    moved: Tensor = torch.index_select(state, -1, permutations[chosen], out=out)
    return moved if signs is None else torch.mul(moved, signs[chosen], out=out)


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
        flat = start.to(gates.dtype)
        ctx.products = products = Products(gates.shape[1], flat)
        ctx.matrices = [kron(group) for group in torch.split(gates, products.sizes, 1)]
        ctx.entanglers = entanglers = _Entanglers(permutations, signs, order, weights, flat)
        ctx.reversible, ctx.scales = reversible, []
        kept = flat.new_empty(1 if reversible else len(gates), len(flat))
        times = len(gates) // len(kept)
        states = zip(kept.unbind() * times, products.see(kept, -1).unbind() * times, strict=True)
        for layer, (factors, (after, seen)) in enumerate(
            zip(products.factors(ctx.matrices), states, strict=True)
        ):
            entanglers.apply(layer, flat, out=products.spare[0])
            if weights is not None:  # the first matrix divides by the norm as it goes
                ctx.scales.append(_inner(products.spare[0], products.spare[0]).rsqrt())
                factors = factors[0] * ctx.scales[-1], *factors[1:]
            products.apply(factors, out=seen)
            flat = after
        ctx.save_for_backward(gates, start, weights, permutations, signs, kept)
        return squares(flat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, start, weights, permutations, signs, states = ctx.saved_tensors
        nothing = (None,) * 4
        # The caller wants to differentiate this gradient again, or many gradients at once.
        again = torch.is_grad_enabled()
        if again or torch._C._functorch.is_legacy_batchedtensor(grad):
            choice = ctx.entanglers.order if weights is None else weights
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
        n_layers, products, entanglers = len(gates), ctx.products, ctx.entanglers
        factors = products.factors([matrix.mH.resolve_conj() for matrix in ctx.matrices])
        states = states.clone() if ctx.reversible else states  # one state, about to be undone
        state = products.see(states[-1], 0)
        slopes = None if weights is None else torch.empty_like(weights)
        if weights is not None:  # a norm was divided out: along it there is no gradient
            grad = grad - grad @ squares(states[-1])
        # Results between the large temporary tensors would keep the memory of these apart, unused.
        collected = [states.new_empty(n_layers, 2**k, 2**k) for k in products.sizes]
        # The overlaps of small states wait for one another: one call for many is faster.
        block = 1 if ctx.reversible else max(1, min(n_layers, 2**15 // len(start)))
        gradients = states.new_empty(block, len(start))
        flat, seen = gradients.unbind(), products.see(gradients, 0).unbind()
        torch.mul(states[-1], grad, out=flat[(n_layers - 1) % block]).mul_(2)
        for layer in reversed(range(n_layers)):
            if layer % block == 0:
                after = states if ctx.reversible else states[layer : layer + block]
                for right, overlap in zip(products.rights, collected, strict=True):
                    into = overlap[layer : layer + block]
                    overlaps(gradients[: len(into)], after, right, into)
            if layer == 0 and not any(ctx.needs_input_grad[1:3]):
                break  # the first state and the weights are constants
            moved = products.apply(factors[layer], seen[layer % block])
            scale = 1 if slopes is None else ctx.scales[layer]
            parts = entanglers.undo(layer, moved, scale, out=flat[(layer - 1) % block])
            if slopes is not None:
                before = states[layer - 1] if layer else start.to(gates.dtype)
                torch.mul(_inner(parts, before), scale, out=slopes[layer])
            if ctx.reversible:
                entanglers.undo(layer, products.apply(factors[layer], state), 1, out=states[0])
        traces = [
            overlap.flatten(1)
            .index_select(1, trace_index(k, gates.device))
            .view(n_layers, 4 * k, -1)
            .sum(-1)
            for k, overlap in zip(products.sizes, collected, strict=True)
        ]
        gates_gradient = torch.cat(traces, 1).view(gates.shape) @ gates
        start_gradient = None
        if ctx.needs_input_grad[1]:
            start_gradient = flat[-1] if start.is_complex() else flat[-1].real
        return gates_gradient, start_gradient, slopes, *nothing


class _Entanglers:
    """The entanglers of all layers, applied and undone without a gradient of their own."""

    def __init__(
        self,
        permutations: Tensor,
        signs: Tensor | None,
        order: list[int],
        weights: Tensor | None,
        like: Tensor,
    ) -> None:
        self.pool = permutations.view(-1, len(like))
        self.signs = None if signs is None else signs.view(-1, len(like))
        self.order, self.weights = order, None
        self._moves = [self.pool[k] for k in order]
        self._changes = [None if self.signs is None else self.signs[k] for k in order]
        if weights is not None:
            self.weights = weights.to(_real(like).dtype).unsqueeze(1).unbind()
            self._parts = like.new_empty(self.pool.shape)

    def apply(self, layer: int, state: Tensor, out: Tensor) -> None:
        """Apply the entangler of a layer, or the weighted sum of all."""
        if self.weights is None:
            torch.index_select(state, 0, self._moves[layer], out=out)
            if self.signs is not None:
                out.mul_(self._changes[layer])
            return
        torch.index_select(state, 0, self.pool.view(-1), out=self._parts.view(-1))
        if self.signs is not None:
            self._parts.mul_(self.signs)
        torch.mm(self.weights[layer], _real(self._parts), out=_real(out).unsqueeze(0))

    def undo(self, layer: int, state: Tensor, scale: Any, out: Tensor) -> Tensor | None:
        """Apply the transpose of what :meth:`apply` does, scaled; give each summand, unweighted."""
        if self.weights is None:
            changes = self._changes[layer]
            out.scatter_(0, self._moves[layer], state if changes is None else state * changes)
            return None
        states = state.expand_as(self._parts) if self.signs is None else state * self.signs
        self._parts.scatter_(1, self.pool, states)
        torch.mm(self.weights[layer] * scale, _real(self._parts), out=_real(out).unsqueeze(0))
        return self._parts


def _real(states: Tensor) -> Tensor:
    """View complex states as real ones of twice the length."""
    return torch.view_as_real(states).flatten(-2) if states.is_complex() else states


def _inner(states: Tensor, other: Tensor) -> Tensor:
    """Give the real part of the inner product of each state with another one."""
    return _real(states) @ _real(other)
