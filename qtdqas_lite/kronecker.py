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


def apply(matrix: Tensor, state: Tensor, right: int, out: Tensor | None = None) -> Tensor:
    """Apply a (d, d) matrix to the middle axis of a state seen as (left, d, right).

    The result has the shape of ``state``; ``out``, if given, is where it is written to.
    """
    size = len(matrix)
    if right == 1:
        shape: tuple[int, ...] = (-1, size)
    elif size * right == state.numel():
        shape = (size, right)
    else:
        shape = (state.numel() // (size * right), size, right)
    cube, into = state.view(shape), None if out is None else out.view(shape)
    if right == 1:
        result = torch.mm(cube, matrix.T, out=into)
    elif len(shape) == 2:
        result = torch.mm(matrix, cube, out=into)
    else:
        result = torch.bmm(matrix.expand(shape[0], size, size), cube, out=into)
    return result.view(-1) if out is None else out


def apply_all(
    matrices: Sequence[Tensor],
    rights: Sequence[int],
    state: Tensor,
    spare: Sequence[Tensor],
    out: Tensor | None = None,
) -> Tensor:
    """Apply one matrix after the other, to and fro between two spare states.

    Fresh states in place of spare ones would cost time, and leave a heap that is full of holes.

    Args:
        matrices: One for each group of wires.
        rights: How many indices stand behind each group.
        state: Any state but ``spare[1]``.
        spare: Two states that are overwritten.
        out: Where the result is written to; by default one of the spare ones.
    """
    for i, (matrix, right) in enumerate(zip(matrices, rights, strict=True)):
        last = out is not None and i == len(matrices) - 1
        state = apply(matrix, state, right, out if last else spare[(i + 1) % 2])
    return state


def overlaps(one: Tensor, other: Tensor, size: int, right: int) -> Tensor:
    """Sum one[b, l, d, r] * conj(other[b, l, e, r]) over l and r: shape (b, d, e)."""
    block = len(one)
    if right == 1:
        return one.view(block, -1, size).mT @ other.view(block, -1, size).conj()
    products = one.view(-1, size, right) @ other.view(-1, size, right).mH
    return products if len(products) == block else products.view(block, -1, size, size).sum(1)


@lru_cache(maxsize=64)
def trace_index(k: int, device: torch.device) -> Tensor:
    """Find the terms of the partial traces of a (2**k, 2**k) matrix, flattened.

    Returns:
        Shape (4 k, 2**(k-1)): the terms of entry (a, b) of the 2x2 trace that keeps wire w are in
        row 4 w + 2 a + b.
    """
    index = torch.arange(4**k).view([2] * (2 * k))
    rows = [
        index.movedim((wire, k + wire), (0, 1)).reshape(4, 2 ** (k - 1), -1).diagonal(0, 1, 2)
        for wire in range(k)
    ]
    return torch.cat(rows).to(device)
