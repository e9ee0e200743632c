"""Which circuits there are to choose from (chapter 04)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .circuits import MAX_ANGLES, Candidate
from .errors import CircuitError, EncodingError, check_whole, refuses
from .simulator.gates import entangler_gates, is_real

Sharing = Literal["global", "layer", "qubit"]


@dataclass(frozen=True)
class SearchSpace:
    """All the circuits that a few choices allow.

    Attributes:
        n_qubits: The number of qubits n, at least 1.
        n_layers: The number of layers, at least 1.
        hadamards: The starts to choose from: with Hadamards (True), without (False).
        entanglers: The entanglers to choose from, names in :data:`.ENTANGLERS`.
        rotations: The rotations to choose from, names in :data:`.ROTATIONS`.
        sharing: Who shares a choice: with ``"global"`` one entangler and one rotation serve the
            whole circuit; with ``"layer"`` each layer chooses both; with ``"qubit"`` each layer
            chooses its entangler, and each qubit in it its rotation.
    """

    n_qubits: int
    n_layers: int
    hadamards: Sequence[bool] = (True, False)
    entanglers: Sequence[str] = ("chain", "ring")
    rotations: Sequence[str] = ("rx", "ry", "rz")
    sharing: Sharing = "global"

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            EncodingError: if ``n_qubits`` is not a whole number of at least 1.
            CircuitError: if ``n_layers`` is not one either, there would be more than ten million
                rotations, a pool is empty, repeats itself or names an unknown gate, or
                ``sharing`` is unknown.
        """
        object.__setattr__(self, "n_qubits", check_whole(EncodingError, 1, n_qubits=self.n_qubits))
        object.__setattr__(self, "n_layers", check_whole(CircuitError, 1, n_layers=self.n_layers))
        if self.n_qubits * self.n_layers > MAX_ANGLES:
            raise CircuitError(
                f"{self.n_layers:,} layers on {self.n_qubits:,} qubits have more than "
                f"{MAX_ANGLES:,} rotations; use fewer of either"
            )
        for field in ("hadamards", "entanglers", "rotations"):
            pool = getattr(self, field)
            if isinstance(pool, str) or not isinstance(pool, Sequence) or not pool:
                raise CircuitError(
                    f"{field} must be a tuple of at least one choice, such as (..., ), got {pool!r}"
                )
            kind = bool if field == "hadamards" else str
            if not all(isinstance(choice, kind) for choice in pool):
                choices = "True, False or both" if kind is bool else "names"
                raise CircuitError(f"{field} must hold {choices}, got {pool!r}")
            if len(set(pool)) < len(pool):
                raise CircuitError(f"{field} names a choice twice: {pool!r}")
            object.__setattr__(self, field, tuple(pool))
        for entangler in self.entanglers:
            entangler_gates(entangler, self.n_qubits)
        for rotation in self.rotations:
            is_real(rotation)
        if self.sharing not in ("global", "layer", "qubit"):
            raise CircuitError(
                f"sharing must be 'global', 'layer' or 'qubit', got {self.sharing!r}"
            )

    @property
    def slots(self) -> tuple[int, tuple[int, int]]:
        """How often an entangler is chosen, and in how many layers and wires a rotation is."""
        layers = 1 if self.sharing == "global" else self.n_layers
        return layers, (layers, self.n_qubits if self.sharing == "qubit" else 1)

    @property
    def n_architectures(self) -> int:
        """The number of architectures, an exact whole number however large."""
        entangler_slots, rotation_slots = self.slots
        entanglers: int = len(self.entanglers) ** entangler_slots
        rotations: int = len(self.rotations) ** math.prod(rotation_slots)
        return len(self.hadamards) * entanglers * rotations

    @refuses(CircuitError)
    def candidate(
        self, hadamard: bool, entanglers: Sequence[str], rotations: Sequence[Sequence[str]]
    ) -> Candidate:
        """Build an architecture from one choice for each slot.

        Args:
            hadamard: Whether it starts with Hadamards.
            entanglers: One name, or one for each layer.
            rotations: One row, or one for each layer; in it one name, or one for each wire.
        """
        rows = [tuple(row) * (self.n_qubits // len(row)) for row in rotations]
        return Candidate(
            self.n_qubits,
            hadamard,
            tuple(entanglers) * (self.n_layers // len(entanglers)),
            tuple(rows) * (self.n_layers // len(rows)),
        )

    def __iter__(self) -> Iterator[Candidate]:
        """Go through all architectures: starts, in each the entanglers, in each the rotations."""
        entangler_slots, (rows, columns) = self.slots
        for hadamard, entanglers, rotations in itertools.product(
            self.hadamards,
            itertools.product(self.entanglers, repeat=entangler_slots),
            itertools.product(self.rotations, repeat=rows * columns),
        ):
            table = [rotations[i : i + columns] for i in range(0, rows * columns, columns)]
            yield self.candidate(hadamard, entanglers, table)

    @refuses(CircuitError)
    def sample(self, count: int, *, generator: torch.Generator | None = None) -> list[Candidate]:
        """Draw different architectures, each with the same chance.

        Args:
            count: How many.
            generator: Where they are drawn from; torch's global one by default.

        Raises:
            CircuitError: if ``count`` is not a whole number from 1 to all that there are, or a
                million.
        """
        count = check_whole(CircuitError, 1, count=count)
        most = min(self.n_architectures, 1_000_000)
        if count > most:
            raise CircuitError(f"count must be at most {most:,} here, got {count}")
        if self.n_architectures <= 10_000:
            chosen = torch.randperm(self.n_architectures, generator=generator)[:count]
            everything = list(self)
            return [everything[i] for i in chosen]

        def draw(pool: Sequence[Any], times: int) -> list[Any]:
            return [pool[i] for i in torch.randint(len(pool), (times,), generator=generator)]

        entangler_slots, (rows, columns) = self.slots
        found: dict[Candidate, None] = {}
        while len(found) < count:
            rotations = [draw(self.rotations, columns) for _ in range(rows)]
            (hadamard,) = draw(self.hadamards, 1)
            entanglers = draw(self.entanglers, entangler_slots)
            found[self.candidate(hadamard, entanglers, rotations)] = None
        return list(found)


@refuses(CircuitError)
def list_candidates(space: Iterable[Candidate | str], limit: int = 1000) -> list[Candidate]:
    """List the candidates of a space, or of a list of candidates or of their JSON texts.

    Raises:
        CircuitError: if it is neither, or there are more than ``limit``.
    """
    if not isinstance(space, Iterable):
        raise CircuitError(f"space must be a SearchSpace or a list of candidates, got {space!r}")
    listed = list(itertools.islice(space, limit + 1))
    if len(listed) > limit:
        raise CircuitError(
            f"more than {limit:,} circuits are too many here: take a sample of the space, such as "
            f"space.sample(100)"
        )
    candidates = [Candidate.from_json(one) if isinstance(one, str) else one for one in listed]
    for one in candidates:
        if not isinstance(one, Candidate):
            raise CircuitError(f"space must be a SearchSpace or a list of candidates, not {one!r}")
    return candidates


def paper_space(n_qubits: int, n_layers: int) -> SearchSpace:
    """Give the twelve circuits of arXiv 2505.09653, in the paper's order.

    Numbered from 1: 1 to 6 with Hadamards, 7 to 12 without; of each six the first three have the
    chain ("Ent"), the others the ring ("Cyc"); of each three the rotations are RX, RY, RZ.
    """
    return SearchSpace(n_qubits, n_layers)
