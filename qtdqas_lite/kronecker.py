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
        (*front, a, _), b = left.shape, right.shape[-1]
        product = left.view(*front, a, 1, a, 1) * right.view(*front, 1, b, 1, b)
        return product.view(*front, a * b, a * b)

    even = gates.shape[1] // 2 * 2
    neighbours = pair(gates[:, 1:even:2], gates[:, :even:2])  # every two of them, in one call
    factors = *neighbours.unbind(1), *gates[:, even:].unbind(1)
    return reduce(pair, reversed(factors))  # from the right: long rows are multiplied fast


def apply(matrix: Tensor, states: Tensor, right: int) -> Tensor:
    """Apply a (d, d) matrix to the middle axis of states seen as (left, d, right)."""
    cube = states.reshape(-1, len(matrix), right)
    moved = cube[..., 0] @ matrix.mT if right == 1 else matrix @ cube
    return moved.reshape(states.shape)


class Products:
    """The matrix products that are a layer of gates: one for each group of wires.

    A state is seen as (left, 2**k, right), the middle axis being the group's; where left or right
    is 1, as the matrix that remains, the group's axis first. All that does not change from layer to
    layer is prepared here: on a small state it would cost as much as the products themselves.

    Attributes:
        sizes: How many wires are in each group.
        rights: How many indices stand behind each group.
        spare: Two flat states, of shape (length,), that are overwritten.
    """

    def __init__(self, n_qubits: int, like: Tensor) -> None:
        """Plan for states like this one: of 2**n_qubits amplitudes, or several times as many."""
        self.sizes = group_sizes(n_qubits)
        self.rights = [2 ** sum(self.sizes[i + 1 :]) for i in range(len(self.sizes))]
        self._shapes: list[tuple[int, ...]] = []
        for size, right in zip(self.sizes, self.rights, strict=True):
            left = len(like) // (right << size)
            shape = (left, 2**size, right)
            self._shapes.append(shape[:2] if right == 1 else shape[1:] if left == 1 else shape)
        # From one spare state to the other and back, group after group. Fresh ones in their place
        # would cost time, and leave a heap full of holes.
        self.spare = like.new_empty(2, len(like)).unbind()
        groups = range(len(self.sizes))
        self._inputs = [self.see(self.spare[i % 2], i) for i in groups]
        self._outputs = [self.see(self.spare[(i + 1) % 2], i) for i in groups]
        self._multiply = [torch.mm if len(shape) == 2 else torch.bmm for shape in self._shapes]

    def see(self, states: Tensor, group: int) -> Tensor:
        """View flat states, shape (..., length), as the product of a group needs them."""
        views = states.view(*states.shape[:-1], *self._shapes[group])
        return views.mT if self.rights[group] == 1 else views

    def factors(self, matrices: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Take apart one (n_layers, 2**k, 2**k) tensor per group: for each layer, its factors."""
        factors = []
        for matrix, state in zip(matrices, self._inputs, strict=True):
            if state.dim() == 3:
                matrix = matrix.unsqueeze(1).expand(-1, len(state), -1, -1)
            factors.append(matrix.unbind())
        return [*zip(*factors, strict=True)]

    def apply(
        self, factors: Sequence[Tensor], state: Tensor | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Apply a layer.

        Args:
            factors: What :meth:`factors` gave for this layer.
            state: A state as the first group sees it; by default the first spare one.
            out: Where the result is written to, a state as the last group sees it; by default one
                of the spare ones, which is returned.

        Returns:
            The flat spare state that the result is in if there is no ``out``.
        """
        inputs = self._inputs if state is None else [state, *self._inputs[1:]]
        outputs = self._outputs if out is None else [*self._outputs[:-1], out]
        for multiply, factor, before, after in zip(
            self._multiply, factors, inputs, outputs, strict=True
        ):
            multiply(factor, before, out=after)
        return self.spare[len(inputs) % 2]


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
