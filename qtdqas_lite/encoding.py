"""Numbers in and out of a register of qubits (chapter 01)."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import EncodingError, check_whole


def n_qubits_for(count: int) -> int:
    """Give the smallest number of qubits whose basis states can index ``count`` numbers.

    For the weights of a network, ``count`` is
    ``sum(p.numel() for p in net.parameters() if p.requires_grad)``.

    Args:
        count: How many numbers are to be held; at least 1.

    Returns:
        ceil(log2(count)), and 1 where that would be 0.

    Raises:
        EncodingError: if ``count`` is not a whole number, or is less than 1.
    """
    count = check_whole(EncodingError, 1, count=count)
    return max(1, (count - 1).bit_length())


def basis_bits(n_qubits: int) -> Tensor:
    """List the bits of every basis state, written as -1 (bit 0) and +1 (bit 1).

    Args:
        n_qubits: The number of qubits n, at least 1.

    Returns:
        Float tensor of shape (2**n, n). Row i holds the bits of i, most significant first:
        column 0 belongs to wire 0, as in PennyLane.

    Raises:
        EncodingError: if ``n_qubits`` is not a whole number of at least 1.
    """
    n_qubits = check_whole(EncodingError, 1, n_qubits=n_qubits)
    index = torch.arange(2**n_qubits)
    bits = torch.empty(2**n_qubits, n_qubits)
    for wire in range(n_qubits):  # column by column, to keep the peak of memory low
        bits[:, wire] = (index >> (n_qubits - 1 - wire)) & 1
    return bits.mul_(2).sub_(1)


def amplitude_encode(vector: Tensor) -> Tensor:
    """Write a vector into the amplitudes of a quantum state.

    The vector is padded with zeros to the next power of two and divided by its Euclidean norm.
    Signs and phases are kept; the norm is not, so keep it yourself if you want the vector back.

    Args:
        vector: Shape (count,), real or complex, at least one entry.

    Returns:
        State of shape (2**n,) and norm 1, with n = ``n_qubits_for(count)``. Integers become the
        default float type; other dtypes are kept.

    Raises:
        EncodingError: if the vector is not one-dimensional, is empty, is zero, or holds NaN or
            infinity.
    """
    vector = torch.as_tensor(vector)
    if vector.dim() != 1 or vector.numel() == 0:
        raise EncodingError(
            f"expected a vector of shape (count,) with at least one entry, got shape "
            f"{tuple(vector.shape)}; flatten it first"
        )
    if not (vector.is_floating_point() or vector.is_complex()):
        vector = vector.to(torch.get_default_dtype())
    bad = (~torch.isfinite(vector)).sum().item()
    if bad:
        raise EncodingError(
            f"{bad} of {vector.numel()} entries are NaN or infinite; a state has finite amplitudes"
        )
    # Dividing by the largest part first keeps the squares inside the range of the dtype.
    parts = torch.view_as_real(vector) if vector.is_complex() else vector
    largest = parts.abs().max()
    if largest == 0:
        raise EncodingError("the zero vector has no direction, so no state can hold it")
    scaled = vector / largest
    padding = 2 ** n_qubits_for(vector.numel()) - vector.numel()
    return torch.nn.functional.pad(scaled / torch.linalg.vector_norm(scaled), (0, padding))
