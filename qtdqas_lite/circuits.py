"""Circuits whose outcome probabilities a network's weights are made from (chapters 02 and 03)."""

from __future__ import annotations

import math
import operator
import os

import torch
from torch import Tensor, nn

from .encoding import check_n_qubits
from .errors import CircuitError
from .statevector import (
    Entangler,
    Rotation,
    entangler_permutation,
    probabilities,
    rotation_gates,
)


class FixedCircuit(nn.Module):
    """A layered circuit with a fixed choice of gates: only its angles are trained.

    Every qubit starts in state 0, or in the equal superposition of 0 and 1 if ``hadamard``. Each
    layer is the entangler and then one rotation on every qubit. These are the twelve candidates
    of arXiv 2505.09653 (2 starts x 2 entanglers x 3 rotations).

    Not every choice depends on its angles. With Hadamards, ``"rx"`` and ``"rz"`` leave the
    probabilities uniform; without them, ``"rz"`` leaves the first outcome certain.

    Attributes:
        theta: The angles in radians, shape (n_layers, n_qubits), drawn uniformly from
            [-pi, pi).
    """

    permutation: Tensor

    def __init__(
        self,
        n_qubits: int,
        n_layers: int,
        *,
        hadamard: bool = True,
        entangler: Entangler = "ring",
        rotation: Rotation = "ry",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the circuit.

        Args:
            n_qubits: The number of qubits n, at least 1.
            n_layers: The number of layers, at least 1.
            hadamard: Whether a Hadamard acts on every qubit before the first layer.
            entangler: ``"chain"`` = CNOT(i, i+1) for i = 0, ..., n-2; ``"ring"`` adds CNOT(n-1, 0).
            rotation: The rotation on every qubit: ``"rx"``, ``"ry"`` or ``"rz"``.
            generator: Where the initial angles are drawn from; torch's global one by default.

        Raises:
            EncodingError: if ``n_qubits`` is not a whole number of at least 1.
            CircuitError: if ``n_layers`` is not one either, a gate has an unknown name, or the
                circuit's states would not fit into this machine's memory.
        """
        super().__init__()
        self.n_qubits = check_n_qubits(n_qubits)
        try:
            self.n_layers = operator.index(n_layers)
        except TypeError:
            raise CircuitError(f"n_layers must be a whole number, got {n_layers!r}") from None
        if self.n_layers < 1:
            raise CircuitError(f"n_layers must be at least 1, got {n_layers}")
        self.hadamard = bool(hadamard)
        self.entangler = entangler
        self.rotation = rotation
        rotation_gates(rotation, torch.zeros(1))  # an unknown name is refused here
        _check_memory(self.n_qubits, self.n_layers, real=rotation == "ry")
        angles = torch.rand(self.n_layers, self.n_qubits, generator=generator)
        self.theta = nn.Parameter(math.pi * (2 * angles - 1))
        permutation = entangler_permutation(entangler, self.n_qubits)
        self.register_buffer("permutation", permutation, persistent=False)

    def forward(self) -> Tensor:
        """Return the probabilities of all outcomes: shape (2**n_qubits,), sum 1."""
        # Reduced precision would pass for 2**n probabilities and be wrong in the third digit.
        with torch.autocast(self.theta.device.type, enabled=False):
            gates = rotation_gates(self.rotation, self.theta)
            return probabilities(self.initial_state(), gates, self.permutation)

    def initial_state(self) -> Tensor:
        """Return the amplitudes before the first layer: real, shape (2**n_qubits,)."""
        if self.hadamard:
            return self.theta.new_full((2**self.n_qubits,), 2 ** (-self.n_qubits / 2))
        state = self.theta.new_zeros(2**self.n_qubits)
        state[0] = 1
        return state

    def architecture(self) -> dict[str, int | bool | str]:
        """Return the arguments that build this circuit again, angles apart; plain JSON values."""
        return {
            "n_qubits": self.n_qubits,
            "n_layers": self.n_layers,
            "hadamard": self.hadamard,
            "entangler": self.entangler,
            "rotation": self.rotation,
        }

    def extra_repr(self) -> str:
        """Show the architecture when the circuit is printed."""
        return ", ".join(f"{name}={value!r}" for name, value in self.architecture().items())


def _check_memory(n_qubits: int, n_layers: int, *, real: bool) -> None:
    """Refuse a circuit whose states alone would fill this machine's memory."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told by every operating system
        return
    # One state per layer, a handful to work with, and the entangler's 8-byte indices.
    needed = 2 ** min(n_qubits, 200) * ((n_layers + 4) * (4 if real else 8) + 16)
    if needed > memory:
        raise CircuitError(
            f"{n_qubits} qubits and {n_layers} layers need about {needed / 1e9:,.0f} GB to train, "
            f"and this machine has {memory / 1e9:,.0f} GB; use fewer qubits or layers"
        )
