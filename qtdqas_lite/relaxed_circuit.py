"""One circuit in which every choice of gates is relaxed (chapter 05)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .circuits import Candidate, FixedCircuit, check_angles, saved_by_name
from .errors import CircuitError, refuses
from .relaxation import Relaxation, Sampling
from .search_space import SearchSpace, Sharing
from .simulator import Layers, apply_gate, entangler_gates, probabilities
from .simulator.gates import Rotation, entangler_pool, gate_permutation, is_real
from .simulator.statevector import check_memory, squares, transforms_active


@saved_by_name
class RelaxedCircuit(Relaxation):
    """One circuit in which every choice of gates is relaxed: its cost does not grow with the space.

    - A rotation slot adds the unit quaternions of its gates, weighted, and divides the sum by its
      norm: the result is a rotation again, about a tilted axis. With weight 1 on one gate it is
      that gate.
    - An entangler slot applies a weighted sum of its entanglers and divides the state by its norm
      (``"renormalised"``), or applies each entangler to the power of its weight, gate by gate
      (``"unitary"``: slower, every step unitary).
    - The start is RY(t pi/2)|0> on every qubit, with t the weight of the Hadamards.

    Attributes:
        space: The :class:`~qtdqas_lite.SearchSpace` that the choices span.
        theta: The angles in radians, uniform in [-pi, pi): shape (n_layers, n_qubits), or with
            ``separate_angles`` (n_rotations, n_layers, n_qubits).
        alpha: Logits from N(0, 0.01**2), where there is a choice: ``"hadamard"``, shape
            (1, n_hadamards); ``"entangler"``, shape (1 or n_layers, n_entanglers); ``"rotation"``,
            shape (1 or n_layers, 1 or n_qubits, n_rotations).
    """

    permutations: Tensor
    signs: Tensor | None

    def __init__(
        self,
        n_qubits: int,
        n_layers: int,
        *,
        rotations: Sequence[str] = ("rx", "ry", "rz"),
        entanglers: Sequence[str] = ("chain", "ring"),
        hadamards: Sequence[bool] = (True, False),
        sharing: Sharing = "global",
        temperature: float = 1.0,
        sampling: Sampling = "softmax",
        entangler_mixture: Literal["renormalised", "unitary"] = "renormalised",
        separate_angles: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the circuit.

        Args:
            n_qubits: The number of qubits n, at least 1.
            n_layers: The number of layers, at least 1.
            rotations: As for :class:`~qtdqas_lite.SearchSpace`; ``"identity"`` is one.
            entanglers: As for :class:`~qtdqas_lite.SearchSpace`.
            hadamards: As for :class:`~qtdqas_lite.SearchSpace`.
            sharing: As for :class:`~qtdqas_lite.SearchSpace`.
            temperature: Above 0; see :class:`.Relaxation`.
            sampling: See :class:`.Relaxation`.
            entangler_mixture: ``"renormalised"`` or ``"unitary"``.
            separate_angles: Whether each gate of a rotation slot has an angle of its own.
            generator: Where angles and logits are drawn from; torch's global one by default.

        Raises:
            EncodingError: if ``n_qubits`` is not a whole number of at least 1.
            CircuitError: if another argument is not as described, or the circuit's states would
                not fit into this machine's memory.
        """
        super().__init__(temperature, sampling)
        if entangler_mixture not in ("renormalised", "unitary"):
            raise CircuitError(
                f"entangler_mixture must be 'renormalised' or 'unitary', got {entangler_mixture!r}"
            )
        self.space = SearchSpace(n_qubits, n_layers, hadamards, entanglers, rotations, sharing)
        self.n_qubits, self.n_layers = self.space.n_qubits, self.space.n_layers
        self.entangler_mixture = entangler_mixture
        self.separate_angles = bool(separate_angles)
        self.real = all(is_real(name) for name in self.space.rotations)
        check_memory(self.n_qubits, self.n_layers, real=self.real)
        shape = (self.n_layers, self.n_qubits)
        angles = torch.rand(
            (len(self.space.rotations), *shape) if separate_angles else shape, generator=generator
        )
        self.theta = nn.Parameter(math.pi * (2 * angles - 1))
        entangler_slots, rotation_slots = self.space.slots
        for name, slots, pool in (
            ("hadamard", (1,), self.space.hadamards),
            ("entangler", (entangler_slots,), self.space.entanglers),
            ("rotation", rotation_slots, self.space.rotations),
        ):
            if len(pool) > 1:
                draw = torch.randn(*slots, len(pool), generator=generator)
                self.alpha[name] = nn.Parameter(0.01 * draw)
        permutations, signs = entangler_pool(self.space.entanglers, self.n_qubits)
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("signs", signs, persistent=False)
        # As they are now: gates that are redefined later change no circuit that exists.
        self._rotations = [Rotation(name) for name in self.space.rotations]
        self._entanglers = [entangler_gates(name, self.n_qubits) for name in self.space.entanglers]

    def forward(self, mixture: dict[str, Tensor] | None = None) -> Tensor:
        """Return the probabilities of all outcomes: shape (2**n_qubits,), sum 1.

        Args:
            mixture: What :meth:`.Relaxation.mixture` gave; by default it is called.
        """
        with torch.autocast(self.theta.device.type, enabled=False):
            layers = self.layers(check_angles(self.theta, self.theta.shape), mixture)
            if self.entangler_mixture == "unitary" and isinstance(layers.choice, Tensor):
                return squares(self._interpolated(layers, layers.choice))
            return probabilities(layers)

    def layers(self, theta: Tensor, mixture: dict[str, Tensor] | None = None) -> Layers:
        """Turn angles into what the simulator takes.

        Args:
            theta: Angles in radians, of the shape of ``theta``.
            mixture: As for :meth:`forward`.

        Returns:
            Where entanglers are mixed, ``choice`` is their weights, shape (n_layers,
            n_entanglers). The simulator takes these for those of a ``"renormalised"`` mixture.
        """
        mixture = self._given(mixture)
        angles = theta if self.separate_angles else [theta] * len(self._rotations)
        pairs = zip(self._rotations, angles, strict=True)
        quaternions = torch.stack([rotation(angle) for rotation, angle in pairs], -2)
        if "rotation" in mixture:
            quaternions = mixed_rotation(mixture["rotation"], quaternions)
        else:
            quaternions = quaternions[..., 0, :]
        choice: list[int] | Tensor = [0] * self.n_layers
        if "entangler" in mixture:
            choice = mixture["entangler"].expand(self.n_layers, -1)
            decided = not (choice.requires_grad or transforms_active())
            if decided and (choice.amax(-1) == 1).all():  # a single entangler in each layer
                choice = choice.argmax(-1).tolist()
        start = interpolated_start(self._hadamard_weight(mixture), self.n_qubits)
        return Layers(start, quaternions, self.permutations, self.signs, choice, self.real)

    def _hadamard_weight(self, mixture: dict[str, Tensor]) -> Tensor:
        """Give the weight of the Hadamards, shape ()."""
        if "hadamard" in mixture:
            return mixture["hadamard"][0, self.space.hadamards.index(True)]
        return self.theta.new_tensor(float(self.space.hadamards[0]))

    def _interpolated(self, layers: Layers, weights: Tensor) -> Tensor:
        """Run the layers with every entangler's gates to the power of its weight."""
        n, state = self.n_qubits, torch.complex(layers.start, torch.zeros_like(layers.start))
        entanglers = [
            [[table.to(state.device) for table in gate_permutation(*gate, n)] for gate in gates]
            for gates in self._entanglers
        ]
        for layer, powers in zip(layers.gates.to(state.dtype), weights, strict=True):
            for gates, power in zip(entanglers, powers, strict=True):
                for source, sign in gates:
                    state = gate_power(state, source, sign, power)
            for wire, rotation in enumerate(layer):
                state = apply_gate(state, rotation, wire)
        return state

    @property
    def choice_bits(self) -> float:
        """How many bits say which architecture of the space was chosen."""
        return math.log2(self.space.n_architectures)

    @refuses(CircuitError)
    def architecture(self, mixture: dict[str, Tensor] | None = None) -> Candidate:
        """Return the architecture of the largest logits, or of the largest weights of a mixture.

        Raises:
            CircuitError: as :meth:`.Relaxation.logits`.
        """
        chosen = self.logits() if mixture is None else mixture
        best = {name: weights.argmax(-1).tolist() for name, weights in chosen.items()}
        space = self.space
        return space.candidate(
            space.hadamards[best.get("hadamard", [0])[0]],
            [space.entanglers[i] for i in best.get("entangler", [0])],
            [[space.rotations[i] for i in row] for row in best.get("rotation", [[0]])],
        )

    def discretize(self) -> FixedCircuit:
        """Return the circuit of :meth:`architecture`, with the angles that this one has."""
        circuit = self.architecture().circuit(generator=torch.Generator()).to(self.theta)
        theta = self.theta.detach()
        if self.separate_angles:
            names = circuit.architecture().rotations
            index = [[self.space.rotations.index(name) for name in row] for row in names]
            theta = theta.gather(0, torch.tensor(index, device=theta.device)[None])[0]
        with torch.no_grad():
            circuit.theta.copy_(theta)
        return circuit

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this circuit again, as JSON can hold them."""
        return {
            **asdict(self.space),
            "temperature": self.temperature,
            "sampling": self.sampling,
            "entangler_mixture": self.entangler_mixture,
            "separate_angles": self.separate_angles,
        }


def mixed_rotation(weights: Tensor, quaternions: Tensor) -> Tensor:
    """Add up unit quaternions, shape (..., k, 4), with weights, shape (..., k), to unit length."""
    total = (weights[..., None] * quaternions).sum(-2)
    return nn.functional.normalize(total, dim=-1)


def interpolated_start(weight: Tensor, n_qubits: int) -> Tensor:
    """Put RY(weight pi/2)|0> on every qubit: ``|0...0>`` at weight 0, Hadamards at 1; (2**n,)."""
    qubit = torch.stack([torch.cos(weight * math.pi / 4), torch.sin(weight * math.pi / 4)])
    state = qubit
    for _ in range(n_qubits - 1):
        state = torch.outer(state, qubit).flatten()
    return state


def gate_power(state: Tensor, source: Tensor, sign: Tensor, power: Tensor) -> Tensor:
    """Apply a gate G, as :func:`.gate_permutation` writes it, to a power; G G is 1."""
    phase = torch.polar(torch.ones_like(power), math.pi * power)
    return (1 + phase) / 2 * state + (1 - phase) / 2 * (sign * state[source])
