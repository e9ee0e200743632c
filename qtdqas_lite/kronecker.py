"""Layers as a few large operations: matrix products for the gates, gathers for the entanglers."""

from __future__ import annotations

from functools import lru_cache, reduce

import torch
from torch import Tensor


def group_sizes(n_qubits: int) -> list[int]:
    """Split the wires into neighbouring groups, each applied as one matrix product.

    Large matrices mean few calls, small ones little arithmetic: two groups are fastest up to 12
    qubits, groups of at most five above.
    """
    n_groups = min(2, n_qubits) if n_qubits <= 12 else -(-n_qubits // 5)
    size, larger = divmod(n_qubits, n_groups)
    return [size + 1] * larger + [size] * (n_groups - larger)


def kron(gates: Tensor) -> Tensor:
    """Multiply out the tensor product of gates: (n_layers, k, 2, 2) -> (n_layers, 2**k, 2**k)."""

    def pair(right: Tensor, left: Tensor) -> Tensor:
        (*front, a, _), b = left.shape, right.shape[-1]
        product = left.view(*front, a, 1, a, 1) * right.view(*front, 1, b, 1, b)
        return product.view(*front, a * b, a * b)

    even = gates.shape[1] // 2 * 2
    neighbours = pair(gates[:, 1:even:2], gates[:, :even:2])  # every two of them, in one call
    factors = *neighbours.unbind(1), *gates[:, even:].unbind(1)
    return reduce(pair, reversed(factors))  # from the right: long rows are multiplied fast


def turn(matrix: Tensor, states: Tensor) -> Tensor:
    """Apply the matrix of the group whose axis is the first, and put that axis last.

    When every group has had its turn, the axes are in their order again. A matrix product may
    write its result in either order of axes, so the turning costs nothing.

    Args:
        matrix: Shape (d, d), d = 2**size for a group of that many wires.
        states: Shape (..., 2**n).
    """
    turned: Tensor = first(states, len(matrix).bit_length() - 1).mT @ matrix.mT
    return turned.flatten(-2)


def first(states: Tensor, size: int) -> Tensor:
    """View states (..., length) as (..., d, rest), where the axis of the group is in front."""
    return states.view(*states.shape[:-1], 2**size, -1)


def last(states: Tensor, size: int) -> Tensor:
    """View states (..., length) as (..., rest, d), where the axis of the group is behind."""
    return states.view(*states.shape[:-1], -1, 2**size)


def inner(states: Tensor, other: Tensor) -> Tensor:
    """Give the real part of the inner product of each of the states, or of one, with another."""
    return _real(states) @ _real(other)


def _real(states: Tensor) -> Tensor:
    return torch.view_as_real(states).flatten(-2) if states.is_complex() else states


class Entanglers:
    """The entanglers of all layers; :meth:`undo` stands in for their automatic gradient."""

    def __init__(
        self,
        permutations: Tensor,
        signs: Tensor | None,
        order: list[int],
        weights: Tensor | None,
        like: Tensor,
    ) -> None:
        """Take the arguments of :func:`~qtdqas_lite.statevector.probabilities`, and a state."""
        self._pool = permutations.view(-1, len(like))
        self._signs = None
        if signs is not None:
            self._signs = signs.view(-1, len(like)).to(_real(like).dtype)
        self._weights = None
        if weights is not None:
            self._weights = weights.to(_real(like).dtype).unsqueeze(1).unbind()
            self._parts = like.new_empty(self._pool.shape)
            return
        moves = self._pool.unbind()
        self._moves = [moves[k] for k in order]
        changes = () if self._signs is None else self._signs.unbind()
        self._changes = [changes[k] for k in order] if changes else []

    def apply(self, layer: int, state: Tensor, out: Tensor) -> None:
        """Write what the entangler of a layer, or the weighted sum of all, makes of a state."""
        if self._weights is None:
            torch.index_select(state, 0, self._moves[layer], out=out)
            if self._signs is not None:
                out.mul_(self._changes[layer])
            return
        torch.index_select(state, 0, self._pool.view(-1), out=self._parts.view(-1))
        if self._signs is not None:
            self._parts.mul_(self._signs)
        # The weights are real: as a product of complex numbers, this would cost twice as much.
        torch.mm(self._weights[layer], _real(self._parts), out=_real(out).unsqueeze(0))

    def undo(self, layer: int, state: Tensor, out: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Write what the transpose of :meth:`apply` makes of a state; of a weighted sum, scaled.

        Returns:
            What each entangler of a weighted sum adds, without weight and scale: shape
            (n_entanglers, length). It is overwritten by the next call.
        """
        if self._weights is None:
            state = state if self._signs is None else state * self._changes[layer]
            return out.scatter_(0, self._moves[layer], state)
        states = state.expand_as(self._parts) if self._signs is None else state * self._signs
        self._parts.scatter_(1, self._pool, states)
        torch.mm(self._weights[layer] * scale, _real(self._parts), out=_real(out).unsqueeze(0))
        return self._parts


@lru_cache(maxsize=64)
def trace_index(k: int, device: torch.device) -> Tensor:
    """Find the terms of the partial traces of a (2**k, 2**k) matrix, flattened.

    Returns:
        Shape (4 k 2**(k-1),): the terms of entry (a, b) of the 2x2 trace that keeps wire w are in
        row 4 w + 2 a + b of 4 k rows.
    """
    index = torch.arange(4**k).view([2] * (2 * k))
    rows = [
        index.movedim((wire, k + wire), (0, 1)).reshape(4, 2 ** (k - 1), -1).diagonal(0, 1, 2)
        for wire in range(k)
    ]
    return torch.cat(rows).flatten().to(device)
