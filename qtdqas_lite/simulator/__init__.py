"""The simulator: from angles to probabilities, forward and backward.

:mod:`.gates` says what a layer is made of, :mod:`.statevector` is the plain path, :mod:`.compiled`
the fast one with its :mod:`.loops`, and :mod:`.iqp` a shortcut for circuits of RX and CNOT.
"""

from .compiled import probabilities
from .gates import (
    CNOT,
    CZ,
    ENTANGLERS,
    ROTATIONS,
    entangler_gates,
    entangler_permutation,
    rotation_gates,
    rotation_quaternions,
)
from .statevector import Choice, Layers, apply_gate, evolve

__all__ = [
    "CNOT",
    "CZ",
    "ENTANGLERS",
    "ROTATIONS",
    "Choice",
    "Layers",
    "apply_gate",
    "entangler_gates",
    "entangler_permutation",
    "evolve",
    "probabilities",
    "rotation_gates",
    "rotation_quaternions",
]
