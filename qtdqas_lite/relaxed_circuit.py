"""One circuit in which every choice of gates is relaxed (chapter 05)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .circuits import Candidate, FixedCircuit, saved_by_name
from .errors import CircuitError
from .relaxation import Relaxation, Sampling
from .search_space import SearchSpace, Sharing
from .simulator import Layers, apply_gate, entangler_gates, probabilities, rotation_quaternions
from .simulator.gates import entangler_pool, gate_permutation, is_real
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
        rotations: Iterable[str] = ("rx", "ry", "rz"),
        entanglers: Iterable[str] = ("chain", "ring"),
        hadamards: Iterable[bool] = (True, False),
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
        pools = tuple(hadamards), tuple(entanglers), tuple(rotations)
        self.space = SearchSpace(n_qubits, n_layers, *pools, sharing)
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

    def forward(self) -> Tensor:
        """Return the probabilities of all outcomes: shape (2**n_qubits,), sum 1."""
        with torch.autocast(self.theta.device.type, enabled=False):
            layers = self.layers(self.theta)
            if self.entangler_mixture == "unitary" and isinstance(layers.choice, Tensor):
                return squares(self._interpolated(layers.start, layers.gates, layers.choice))
            return probabilities(layers)

    def layers(self, theta: Tensor, mixture: dict[str, Tensor] | None = None) -> Layers:
        """Turn angles into what the simulator takes.

        Args:
            theta: Angles in radians, of the shape of ``theta``.
            mixture: What :meth:`.Relaxation.mixture` gave; by default it is called.

        Returns:
            Where entanglers are mixed, ``choice`` is their weights, shape (n_layers,
            n_entanglers). The simulator, and what is built on it, takes these for those of a
            ``"renormalised"`` mixture.
        """
        mixture = self.mixture() if mixture is None else mixture
        rotations = self.space.rotations
        angles = theta if self.separate_angles else [theta] * len(rotations)
        quaternions = torch.stack(
            [rotation_quaternions(*pair) for pair in zip(rotations, angles, strict=True)], -2
        )
        if "rotation" in mixture:
            total = (mixture["rotation"][..., None] * quaternions).sum(-2)
            quaternions = nn.functional.normalize(total, dim=-1)
        else:
            quaternions = quaternions[..., 0, :]
        choice: list[int] | Tensor = [0] * self.n_layers
        if "entangler" in mixture:
            choice = mixture["entangler"].expand(self.n_layers, -1)
            decided = not (choice.requires_grad or transforms_active())
            if decided and (choice.amax(-1) == 1).all():  # a single entangler in each layer
                choice = choice.argmax(-1).tolist()
        entanglers = self.permutations, self.signs, choice
        return Layers(self._start(mixture), quaternions, *entanglers, self.real)

    def _start(self, mixture: dict[str, Tensor]) -> Tensor:
        """Put RY(t pi/2)|0> on every qubit: the n-th tensor power, by squaring."""
        weight = self.theta.new_tensor(float(self.space.hadamards[0]))
        if "hadamard" in mixture:
            weight = mixture["hadamard"][0, self.space.hadamards.index(True)]
        qubit = torch.stack([torch.cos(weight * math.pi / 4), torch.sin(weight * math.pi / 4)])
        state = qubit
        for bit in f"{self.n_qubits:b}"[1:]:
            state = torch.outer(state, state).flatten()
            if bit == "1":
                state = torch.outer(state, qubit).flatten()
        return state

    def _interpolated(self, state: Tensor, gates: Tensor, powers: Tensor) -> Tensor:
        """Run the layers with every entangler's gates to the power of its weight."""
        n, device = self.n_qubits, state.device
        state = torch.complex(state, torch.zeros_like(state))
        phases = torch.polar(torch.ones_like(powers), math.pi * powers)
        tables = [
            [tuple(part.to(device) for part in gate_permutation(*gate, n)) for gate in gates_of_one]
            for gates_of_one in (entangler_gates(name, n) for name in self.space.entanglers)
        ]
        for layer, row in zip(gates, phases, strict=True):
            for table, phase in zip(tables, row, strict=True):
                for source, sign in table:
                    # A gate G with G G = 1 has the powers (1 + phase)/2 + (1 - phase)/2 G.
                    moved = state[source] * sign
                    state = (1 + phase) / 2 * state + (1 - phase) / 2 * moved
            for wire, gate in enumerate(layer):
                state = apply_gate(state, gate.to(state.dtype), wire)
        return state

    def architecture(self, mixture: dict[str, Tensor] | None = None) -> Candidate:
        """Return the architecture of the largest logits, or of the largest weights of a mixture."""
        chosen = self.alpha if mixture is None else mixture
        best = {name: weights.argmax(-1) for name, weights in chosen.items()}
        space = self.space
        zero = torch.zeros(1, dtype=torch.long)
        rotations = best.get("rotation", zero[None]).tolist()
        return space.candidate(
            space.hadamards[int(best.get("hadamard", zero))],
            [space.entanglers[i] for i in best.get("entangler", zero).tolist()],
            [[space.rotations[i] for i in row] for row in rotations],
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
        """Return the arguments that build this circuit again; plain JSON values."""
        return {
            "n_qubits": self.n_qubits,
            "n_layers": self.n_layers,
            "rotations": list(self.space.rotations),
            "entanglers": list(self.space.entanglers),
            "hadamards": list(self.space.hadamards),
            "sharing": self.space.sharing,
            "temperature": self.temperature,
            "sampling": self.sampling,
            "entangler_mixture": self.entangler_mixture,
            "separate_angles": self.separate_angles,
        }
