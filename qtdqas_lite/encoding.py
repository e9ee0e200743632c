"""Numbers in and out of a register of qubits (chapter 01)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import EncodingError, check_fits, check_whole


def n_qubits_for(count: int) -> int:
    """Give the smallest number of qubits whose basis states can index ``count`` numbers.

    Args:
        count: How many numbers are to be held; at least 1.

    Returns:
        ceil(log2(count)), and 1 where that would be 0.

    Raises:
        EncodingError: if ``count`` is not a whole number, or is less than 1.
    """
    count = check_whole(EncodingError, 1, count=count)
    return max(1, (count - 1).bit_length())


def basis_bits(n_qubits: int, n_states: int | None = None) -> Tensor:
    """List the bits of the basis states, written as -1 (bit 0) and +1 (bit 1).

    Args:
        n_qubits: The number of qubits n, at least 1.
        n_states: How many basis states to list, from 0 on: 1 to 2**n, and by default all.

    Returns:
        Float tensor of shape (n_states, n). Row i holds the bits of i, most significant first:
        column 0 belongs to wire 0, as in PennyLane.

    Raises:
        EncodingError: if these are not such whole numbers, or the bits would not fit into memory.
    """
    n_qubits = check_whole(EncodingError, 1, n_qubits=n_qubits)
    every = 2 ** min(n_qubits, 60)
    count = check_whole(EncodingError, 1, n_states=every if n_states is None else n_states)
    if count > every:
        raise EncodingError(f"n_states must be at most {every:,}, got {count:,}")
    size = count * (4 * n_qubits + 16)
    check_fits(EncodingError, f"bits of {n_qubits} qubits", size, "ask for fewer states")
    index = torch.arange(count)
    bits = torch.empty(count, n_qubits)
    for wire in range(n_qubits):  # column by column, to keep the peak of memory low
        bits[:, wire] = (index >> (n_qubits - 1 - wire)) & 1
    return bits.mul_(2).sub_(1)


def amplitude_encode(vector: Any) -> Tensor:
    """Write a vector into the amplitudes of a quantum state.

    The vector is padded with zeros to the next power of two and divided by its Euclidean norm.
    Signs and phases are kept; the norm is not, so keep it yourself if you want the vector back.

    Args:
        vector: Shape (count,), real or complex, at least one entry: a tensor, or what
            ``torch.as_tensor`` makes one of.

    Returns:
        State of shape (2**n,) and norm 1, with n = ``n_qubits_for(count)``. Integers become the
        default float type; other dtypes are kept.

    Raises:
        EncodingError: if the vector is not one-dimensional, is empty, is zero, or holds NaN,
            infinity or something else than numbers.
    """
    vector = checked_vector(vector)
    # Divided by the largest part, the squares stay inside the range of the dtype.
    parts = torch.view_as_real(vector) if vector.is_complex() else vector
    largest = parts.abs().max()
    if largest == 0:
        raise EncodingError("the zero vector has no direction, so no state can hold it")
    scaled = vector / largest
    padding = 2 ** n_qubits_for(vector.numel()) - vector.numel()
    return nn.functional.pad(scaled / torch.linalg.vector_norm(scaled), (0, padding))


def checked_vector(vector: Any) -> Tensor:
    """Return what is to be encoded as a vector of floating-point numbers, or refuse it.

    Raises:
        EncodingError: as :func:`amplitude_encode`.
    """
    try:
        tensor = torch.as_tensor(vector)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EncodingError(f"expected a vector of numbers, got {vector!r}") from error
    if tensor.dim() != 1 or tensor.numel() == 0:
        raise EncodingError(
            f"expected a vector of shape (count,) with at least one entry, got shape "
            f"{tuple(tensor.shape)}; flatten it first"
        )
    if not (tensor.is_floating_point() or tensor.is_complex()):
        tensor = tensor.to(torch.get_default_dtype())
    if bad := (~torch.isfinite(tensor)).sum().item():
        raise EncodingError(
            f"{bad} of {tensor.numel()} entries are NaN or infinite; a state has finite amplitudes"
        )
    return tensor
