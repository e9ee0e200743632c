"""Layers of one-qubit gates as a few matrix products, and the traces that their gradient needs."""

from __future__ import annotations

from collections.abc import Sequence
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
        product = left[:, :, None, :, None] * right[:, None, :, None, :]
        size = left.shape[1] * right.shape[1]
        return product.view(-1, size, size)

    return reduce(pair, reversed(gates.unbind(1)))  # from the right: long rows are multiplied fast


def apply(matrix: Tensor, states: Tensor, right: int) -> Tensor:
    """Apply a (d, d) matrix to the middle axis of states seen as (left, d, right)."""
    cube = states.reshape(-1, len(matrix), right)
    moved = cube[..., 0] @ matrix.mT if right == 1 else matrix @ cube
    return moved.reshape(states.shape)


#: One state in several shapes: as the product of each group needs it, and at last flat.
Views = tuple[Tensor, ...]


class Products:
    """The matrix products that are a layer of gates: one for each group of wires.

    All that does not change from layer to layer is prepared here, since on a small state it would
    cost as much as the products themselves. A state is seen as (left, 2**k, right), the middle
    axis being the group's.

    Attributes:
        sizes: How many wires are in each group.
        rights: How many indices stand behind each group.
    """

    def __init__(self, n_qubits: int, length: int) -> None:
        """Plan for states of ``length`` amplitudes: 2**n_qubits, or several times as many."""
        self.sizes = group_sizes(n_qubits)
        self.rights = [2 ** sum(self.sizes[i + 1 :]) for i in range(len(self.sizes))]
        self._shapes: list[tuple[int, ...]] = []
        for size, right in zip(self.sizes, self.rights, strict=True):
            left = length // (right << size)
            shape = (left, 2**size, right)
            self._shapes.append(shape[:2] if right == 1 else shape[1:] if left == 1 else shape)

    def views(self, states: Tensor) -> list[Views]:
        """Give the views of each row of a (rows, length) tensor."""
        shapes = [*self._shapes, states.shape[1:]]
        return [*zip(*[states.view(-1, *shape).unbind() for shape in shapes], strict=True)]

    def prepare(self, matrices: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Take apart one (n_layers, 2**k, 2**k) tensor per group: for each layer, its factors."""
        factors = []
        for matrix, shape, right in zip(matrices, self._shapes, self.rights, strict=True):
            if right == 1:
                matrix = matrix.mT
            elif len(shape) == 3:
                matrix = matrix[:, None].expand(-1, shape[0], -1, -1)
            factors.append(matrix.unbind())
        return [*zip(*factors, strict=True)]

    def apply(
        self,
        factors: Sequence[Tensor],
        state: Views,
        spare: Sequence[Views],
        out: Views | None = None,
    ) -> Views:
        """Apply a layer, to and fro between two spare states.

        Fresh states in place of spare ones would cost time, and leave a heap full of holes.

        Args:
            factors: What :meth:`prepare` gave for this layer.
            state: Any state but ``spare[1]``.
            spare: Two states that are overwritten.
            out: Where the result is written to; by default one of the spare ones.
        """
        last = len(factors) - 1
        for i, factor in enumerate(factors):
            into = out if i == last and out is not None else spare[(i + 1) % 2]
            if i == last:
                torch.mm(state[i], factor, out=into[i])
            else:
                (torch.mm if factor.dim() == 2 else torch.bmm)(factor, state[i], out=into[i])
            state = into
        return state


def overlaps(one: Tensor, other: Tensor, right: int, out: Tensor) -> None:
    """Write the sum of one[b, l, d, r] * conj(other[b, l, e, r]) over l and r to out[b, d, e]."""
    block, size = out.shape[:2]
    if right == 1:
        torch.bmm(one.view(block, -1, size).mT, other.view(block, -1, size).conj(), out=out)
    elif one.numel() == block * size * right:
        torch.bmm(one.view(block, size, right), other.view(block, size, right).mH, out=out)
    else:
        products = one.view(-1, size, right) @ other.view(-1, size, right).mH
        torch.sum(products.view(block, -1, size, size), 1, out=out)


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
