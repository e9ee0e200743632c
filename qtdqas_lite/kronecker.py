"""The gates of a layer as a few large matrix products."""

from __future__ import annotations

from functools import reduce

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
    turned: Tensor = states.view(*states.shape[:-1], len(matrix), -1).mT @ matrix.mT
    return turned.flatten(-2)
