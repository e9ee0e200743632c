"""Which of several circuits can do anything, and which of their angles (chapter 04)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .circuits import Candidate
from .errors import CircuitError
from .score import angle_jacobian, angle_score
from .simulator import evolve
from .simulator.statevector import check_memory


@dataclass(frozen=True)
class Report:
    """What the angles of one candidate can do. Angles are named (layer, wire), both from 0.

    Attributes:
        number: The candidate's number, from 1.
        candidate: The candidate.
        live: Whether its probabilities depend on any angle.
        reason: Why they do not; empty for a live candidate.
        duplicate_of: The number of an earlier candidate with the same probabilities at the same
            angles, or None.
        rank: How many independent directions the angles move the probabilities in.
        score: The mean of :func:`~qtdqas_lite.score.angle_score`.
        dead: The angles that move nothing.
        redundant: The live angles that move nothing which those before them do not move as well.
    """

    number: int
    candidate: Candidate
    live: bool
    reason: str
    duplicate_of: int | None
    rank: int
    score: float
    dead: tuple[tuple[int, int], ...]
    redundant: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Diagnosis:
    """The reports on several candidates, in their order; printed as a table."""

    reports: tuple[Report, ...]

    @property
    def distinct(self) -> list[Candidate]:
        """The candidates that are live and duplicate no earlier one."""
        return [r.candidate for r in self.reports if r.live and r.duplicate_of is None]

    def __str__(self) -> str:
        rows = [f"{'no':>4} {'live':<5}{'same as':<8}{'angles':>7}{'rank':>6}{'score':>8}  circuit"]
        for r in self.reports:
            angles = r.candidate.n_qubits * r.candidate.n_layers
            rows.append(
                f"{r.number:>4} {'yes' if r.live else 'no':<5}{r.duplicate_of or '':<8}{angles:>7}"
                f"{r.rank:>6}{r.score:>8.1f}  {r.candidate}{': ' if r.reason else ''}{r.reason}"
            )
        return "\n".join(rows)


def same_probabilities(candidates: Iterable[Candidate], seed: int = 0) -> list[tuple[int, bool]]:
    """Compare candidates by their probabilities at three random settings of the angles, in float64.

    Returns:
        For each candidate the position of the first one (perhaps itself) with the same number of
        angles and the same probabilities at each setting, and whether its probabilities differ
        between the settings, that is whether it is live.
    """
    known: list[tuple[int, tuple[int, int], Tensor]] = []
    found = []
    for position, candidate in enumerate(candidates):
        shape = candidate.n_layers, candidate.n_qubits
        table = torch.stack([_probabilities(candidate, theta) for theta in _draws(shape, seed)])
        alike = (
            number
            for number, other_shape, other in known
            if shape == other_shape and torch.allclose(table, other, rtol=1e-8, atol=1e-8)
        )
        first = next(alike, position)
        if first == position:
            known.append((position, shape, table))
        found.append((first, not torch.allclose(table[:1], table, rtol=1e-8, atol=1e-8)))
    return found


def _draws(shape: tuple[int, int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return math.pi * (2 * torch.rand(3, *shape, generator=generator, dtype=torch.float64) - 1)


@torch.no_grad()
def _probabilities(candidate: Candidate, theta: Tensor) -> Tensor:
    """Give 2**n p, so that tolerances mean the same for any number of qubits."""
    circuit = candidate.circuit(generator=torch.Generator()).double()
    amplitudes = evolve(circuit.layers(theta))
    table: Tensor = 2**candidate.n_qubits * (amplitudes.conj() * amplitudes).real
    return table


def diagnose(candidates: Iterable[Candidate], seed: int = 0) -> Diagnosis:
    """Find which candidates are dead, which are the same, and which angles do the work.

    Everything is measured in float64 at three random settings of the angles. That a candidate is
    live is then certain; that one is dead, or two are the same, is as good as certain.

    Args:
        candidates: The candidates: a list of them, or a search space.
        seed: The seed of the angles.

    Returns:
        One report a candidate, in their order.

    Raises:
        CircuitError: if there are more than 1,000, or the derivatives would not fit into this
            machine's memory.
    """
    candidates = list(itertools.islice(candidates, 1001))
    if len(candidates) > 1000:
        raise CircuitError(
            "more than 1,000 circuits are too many to diagnose: take a sample of the space, such "
            "as space.sample(100, generator)"
        )
    reports = []
    for position, (first, live) in enumerate(same_probabilities(candidates, seed)):
        candidate = candidates[position]
        shape = candidate.n_layers, candidate.n_qubits
        # Each angle has a row of derivatives, in twice the precision that training uses.
        check_memory(candidate.n_qubits, 4 * math.prod(shape), real=False)
        circuit = candidate.circuit(generator=torch.Generator()).double()
        draws = _draws(shape, seed)
        settings = [angle_jacobian(circuit.layers, theta) for theta in draws]
        # What is idle at one setting by chance is not at the others.
        alive, independent = set(), set()
        for squares, jacobian in settings:
            moving, directions = _working_angles(len(squares) * jacobian)
            alive |= moving
            independent |= directions
        names = [(layer, wire) for layer in range(shape[0]) for wire in range(shape[1])]
        scores = [angle_score(circuit.layers, theta).item() for theta in draws]
        reports.append(
            Report(
                number=position + 1,
                candidate=candidate,
                live=live,
                reason="" if live else _reason(candidate, settings[0][0]),
                duplicate_of=first + 1 if first != position else None,
                rank=len(independent),
                score=sum(scores) / len(scores),
                dead=tuple(name for i, name in enumerate(names) if i not in alive),
                redundant=tuple(names[i] for i in sorted(alive - independent)),
            )
        )
    return Diagnosis(tuple(reports))


def _working_angles(jacobian: Tensor) -> tuple[set[int], set[int]]:
    """Find the rows that are not zero, and of these the ones outside the span of those before."""
    moving, independent = set(), set()
    basis = jacobian[:0]
    for i, row in enumerate(jacobian):
        size = torch.linalg.vector_norm(row)
        if size <= 1e-8:
            continue
        moving.add(i)
        rest = row / size
        for _ in range(2):  # once more, for what rounding left
            rest = rest - basis.T @ (basis @ rest)
        length = torch.linalg.vector_norm(rest)
        if length > 1e-6:
            independent.add(i)
            basis = torch.cat([basis, rest[None] / length])
    return moving, independent


def _reason(candidate: Candidate, squares: Tensor) -> str:
    """Say why a candidate is dead, in words, from its gates and its constant probabilities."""
    names = {name for layer in candidate.rotations for name in layer}
    uniform = bool((len(squares) * squares - 1).abs().max() < 1e-8)
    if names == {"rx"} and uniform:
        return "RX only multiplies |+> by a phase, so every outcome stays equally likely"
    if names == {"rz"}:
        stays = "every outcome stays equally likely" if uniform else "one outcome stays certain"
        return f"RZ changes phases alone, and entanglers only move them: {stays}"
    return "its angles cancel out of every probability"
