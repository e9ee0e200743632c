"""The gates that a layer is made of: rotations of single qubits, entanglers of all (chapter 02).

Both kinds are looked up by name in :data:`ROTATIONS` and :data:`ENTANGLERS`. Add an entry, and
every circuit, search space and relaxation of the package knows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CircuitError, check_whole, refuses

CNOT, CZ = "cnot", "cz"

# The matrices 1, -iX, -iY, -iZ, one a row: real and imaginary part of each entry, row by row.
_COMPLEX = (
    (1, 0, 0, 0, 0, 0, 1, 0),
    (0, 0, 0, -1, 0, -1, 0, 0),
    (0, 0, -1, 0, 1, 0, 0, 0),
    (0, -1, 0, 0, 0, 0, 0, 1),
)
_REAL = tuple(row[::2] for row in _COMPLEX)
# The 4 x 4 matrices by which 1, i, j and k multiply a quaternion from the left, one a row.
_PRODUCT = (
    (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1),
    (0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0),
    (0, 0, -1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, -1, 0, 0),
    (0, 0, 0, -1, 0, 0, -1, 0, 0, 1, 0, 0, 1, 0, 0, 0),
)


@lru_cache(maxsize=64)
def _constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in that mode could not be trained with later
        return torch.tensor(values, dtype=dtype, device=device)


def _about(axis: int) -> Callable[[Tensor], Tensor]:
    def quaternions(theta: Tensor) -> Tensor:
        # cos(t) = sin(t + pi/2): one sine gives every entry.
        kind = theta.dtype, theta.device
        return torch.addcmul(
            _constant(shift, *kind), theta.unsqueeze(-1), _constant(half, *kind)
        ).sin()

    shift = (math.pi / 2, 0.0, 0.0, 0.0)
    half = tuple(0.5 * (i in (0, axis)) for i in range(4))
    return quaternions


#: A rotation turns angles of any shape (radians) into unit quaternions, that shape and then (4,):
#: (w, x, y, z) stands for the gate w I - i (x X + y Y + z Z). Every gate of one qubit has this
#: form, up to a phase that no probability shows.
ROTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rx": _about(1),
    "ry": _about(2),
    "rz": _about(3),
    "identity": lambda theta: nn.functional.pad((1 + 0 * theta)[..., None], (0, 3)),
}

#: An entangler turns the number of qubits n into a list of gates (kind, control wire, target
#: wire), first gate first; the kind is "cnot" or "cz".
ENTANGLERS: dict[str, Callable[[int], list[tuple[str, int, int]]]] = {
    "chain": lambda n: [(CNOT, i, i + 1) for i in range(n - 1)],
    "ring": lambda n: [(CNOT, i, (i + 1) % n) for i in range(n) if n > 1],
    "reversed": lambda n: [(CNOT, i + 1, i) for i in reversed(range(n - 1))],
    "stride": lambda n: [(CNOT, i, (i + 2) % n) for i in range(n) if n > 2],
    "cz-ring": lambda n: [(CZ, i, (i + 1) % n) for i in range(n if n > 2 else n - 1)],
    "none": lambda n: [],
}


@refuses(CircuitError)
def rotation_quaternions(rotation: str, theta: Tensor) -> Tensor:
    """Look a rotation up and apply it to angles.

    Args:
        rotation: A name in :data:`ROTATIONS`.
        theta: Angles in radians, any shape.

    Returns:
        Unit quaternions (w, x, y, z): the shape of ``theta`` and then (4,).

    Raises:
        CircuitError: if there is no rotation of that name.
    """
    if rotation not in ROTATIONS:
        raise CircuitError(f"rotation must be one of {list(ROTATIONS)}, got {rotation!r}")
    return ROTATIONS[rotation](theta)


@refuses(CircuitError)
def compose(second: Tensor, first: Tensor) -> Tensor:
    """Multiply quaternions, shape (..., 4): the gate that does what two do, one after the other."""
    product = _constant(_PRODUCT, second.dtype, second.device)
    columns = torch.mm(second.reshape(-1, 4), product).view(-1, 4, 4)
    return torch.bmm(columns, first.reshape(-1, 4, 1)).view(second.shape)


class Rotation:
    """A rotation as it is registered now: what is registered later under its name is another.

    A copy is the same rotation. A pickle holds the name, which is looked up again where it is read.

    Attributes:
        name: Its name in :data:`ROTATIONS`.
    """

    def __init__(self, name: str) -> None:
        is_real(name)  # which refuses a name that there is not
        self.name, self._quaternions = name, ROTATIONS[name]

    def __call__(self, theta: Tensor) -> Tensor:
        """Turn angles of any shape into unit quaternions, as :func:`rotation_quaternions`."""
        return self._quaternions(theta)

    def __deepcopy__(self, _memo: Any) -> Rotation:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Rotation, (self.name,)


@refuses(CircuitError)
def quaternion_gates(quaternions: Tensor, *, real: bool = False) -> Tensor:
    """Write the gates w I - i (x X + y Y + z Z) as matrices.

    Args:
        quaternions: (w, x, y, z) along the last axis, shape (..., 4).
        real: Whether x and z are known to be zero, so that the matrices are real.

    Returns:
        Shape (..., 2, 2), real or complex.
    """
    shape = quaternions.shape[:-1]
    matrices = _constant(_REAL if real else _COMPLEX, quaternions.dtype, quaternions.device)
    parts = torch.mm(quaternions.reshape(-1, 4), matrices)
    if real:
        return parts.view(*shape, 2, 2)
    return torch.view_as_complex(parts.view(*shape, 2, 2, 2))


def rotation_gates(rotation: str, theta: Tensor) -> Tensor:
    """Build the matrices of a rotation; for the three Pauli axes P, exp(-i theta P / 2).

    Args:
        rotation: A name in :data:`ROTATIONS`, such as ``"rx"``, ``"ry"`` or ``"rz"``.
        theta: Angles in radians, any shape.

    Returns:
        The shape of ``theta`` and then (2, 2): real where the rotation is real, otherwise complex,
        of the same precision.

    Raises:
        CircuitError: if there is no rotation of that name.
    """
    return quaternion_gates(rotation_quaternions(rotation, theta), real=is_real(rotation))


@refuses(CircuitError)
def is_real(rotation: str) -> bool:
    """Tell whether the gates of a rotation are real, as those of RY are.

    Raises:
        CircuitError: if there is no rotation of that name, or what it gives are not unit
            quaternions.
    """
    probe = torch.linspace(-3.0, 3.0, 6, dtype=torch.float64).view(2, 3)
    quaternions = rotation_quaternions(rotation, probe)
    form = (probe.dtype, (*probe.shape, 4))
    sound = isinstance(quaternions, Tensor) and (quaternions.dtype, quaternions.shape) == form
    if not sound or not torch.allclose(quaternions.square().sum(-1), torch.ones_like(probe)):
        raise CircuitError(
            f"the rotation {rotation!r} must turn angles of any shape into unit quaternions "
            f"(w, x, y, z) along one more axis, of the angles' dtype"
        )
    return not quaternions[..., [1, 3]].any()


@refuses(CircuitError)
def entangler_gates(entangler: str, n_qubits: int) -> list[tuple[str, int, int]]:
    """List the gates of an entangler, first gate first: (kind, control wire, target wire).

    Raises:
        CircuitError: if there is no entangler of that name, or it names a gate or a wire that
            there is not.
    """
    if entangler not in ENTANGLERS:
        raise CircuitError(f"entangler must be one of {list(ENTANGLERS)}, got {entangler!r}")
    gates = ENTANGLERS[entangler](check_whole(CircuitError, 1, 10_000, n_qubits=n_qubits))
    for kind, control, target in gates:
        known = kind in (CNOT, CZ) and control != target
        if not (known and min(control, target) >= 0 and max(control, target) < n_qubits):
            raise CircuitError(
                f"the entangler {entangler!r} has a gate {(kind, control, target)} on {n_qubits} "
                f"qubits; a gate is ('cnot' or 'cz', control wire, another wire)"
            )
    return gates


@refuses(CircuitError)
def gate_permutation(kind: str, control: int, target: int, n_qubits: int) -> tuple[Tensor, Tensor]:
    """Write one gate of an entangler as :func:`entangler_permutation` writes them all."""
    source = torch.arange(2**n_qubits)
    on, flip = (source >> (n_qubits - 1 - control)) & 1, n_qubits - 1 - target
    if kind == CNOT:
        return source ^ (on << flip), torch.ones(2**n_qubits)
    return source, 1.0 - 2 * (on & (source >> flip))


@refuses(CircuitError)
def entangler_permutation(entangler: str, n_qubits: int) -> tuple[Tensor, Tensor]:
    """Write an entangler as a reordering of the basis states and a change of signs.

    Args:
        entangler: A name in :data:`ENTANGLERS`: ``"chain"`` = CNOT(i, i+1) for i = 0, ..., n-2;
            ``"ring"`` adds CNOT(n-1, 0); ``"reversed"`` = CNOT(i+1, i) for i = n-2, ..., 0;
            ``"stride"`` = CNOT(i, i+2) around the ring; ``"cz-ring"`` = CZ(i, i+1) around it;
            ``"none"``. On few qubits, gates that would undo each other are left out.
        n_qubits: The number of qubits n, at least 1.

    Returns:
        Whole numbers and signs +-1, each of shape (2**n,): the new amplitude i is
        ``sign[i] * state[permutation[i]]``.

    Raises:
        CircuitError: as :func:`entangler_gates`.
    """
    # Each gate is its own inverse, so where an amplitude comes from is found by undoing the gates
    # from the last to the first. A mask says which bits of the new index add up to an old bit.
    gates = entangler_gates(entangler, n_qubits)
    masks = [1 << (n_qubits - 1 - wire) for wire in range(n_qubits)]
    sign = torch.ones(2**n_qubits)
    for kind, control, target in reversed(gates):
        if kind == CNOT:
            masks[target] ^= masks[control]
        else:
            on, flipped = ([masks[w] >> b & 1 for b in range(n_qubits)] for w in (control, target))
            sign *= 1 - 2 * (_xor_table(on) & _xor_table(flipped))
    columns = [
        sum((mask >> b & 1) << (n_qubits - 1 - wire) for wire, mask in enumerate(masks))
        for b in range(n_qubits)
    ]
    return _xor_table(columns), sign


@refuses(CircuitError)
def entangler_pool(names: Sequence[str], n_qubits: int) -> tuple[Tensor, Tensor | None]:
    """Stack entanglers for the simulator: permutations and signs, (n_entanglers, 2**n_qubits).

    The permutations are of dtype int32. The signs are None if all of them are +1.
    """
    found = [entangler_permutation(name, n_qubits) for name in names]
    permutations, signs = (torch.stack(part) for part in zip(*found, strict=True))
    return permutations.to(torch.int32), signs if (signs < 0).any() else None


def _xor_table(columns: list[int]) -> Tensor:
    """List the XOR of the columns that each whole number's bits pick, the lowest bit first."""
    table = torch.zeros(2 ** len(columns), dtype=torch.long)
    for b, column in enumerate(columns):
        torch.bitwise_xor(table[: 2**b], column, out=table[2**b : 2 ** (b + 1)])
    return table
