"""Which of several circuits can do anything, and which of their angles (chapter 04)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .circuits import Candidate
from .errors import CircuitError, check_whole, refuses
from .score import angle_jacobian, jacobian_score
from .search_space import list_candidates
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
    """

    number: int
    candidate: Candidate
    live: bool
    reason: str
    duplicate_of: int | None
    rank: int
    score: float
    dead: tuple[tuple[int, int], ...]


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


@refuses(CircuitError)
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


def diagnose(space: Iterable[Candidate | str], seed: int = 0) -> Diagnosis:
    """Find which candidates are dead, which are the same, and which angles do the work.

    Everything is measured in float64 at three random settings of the angles. That a candidate is
    live is then certain; that one is dead, or two are the same, is as good as certain.

    Args:
        space: The candidates: a search space, or a list of candidates or of their JSON texts.
        seed: The seed of the angles.

    Returns:
        One report a candidate, in their order.

    Raises:
        CircuitError: if there are more than 1,000, or the derivatives would not fit into this
            machine's memory.
    """
    candidates = list_candidates(space)
    for candidate in candidates:
        # Each angle has a row of derivatives, in twice the precision that training uses.
        rows = 4 * candidate.n_layers * candidate.n_qubits
        check_memory(candidate.n_qubits, rows, real=False)
    check_whole(CircuitError, 0, seed=seed)
    found = same_probabilities(candidates, seed)
    reports = []
    for i, (candidate, (first, live)) in enumerate(zip(candidates, found, strict=True)):
        shape = candidate.n_layers, candidate.n_qubits
        circuit = candidate.circuit(generator=torch.Generator()).double()
        settings = [angle_jacobian(circuit.layers, theta) for theta in _draws(shape, seed)]
        jacobians = torch.stack([len(p) * derivatives for p, derivatives in settings])
        # What is idle at one setting by chance is not at the others.
        idle = (torch.linalg.vector_norm(jacobians, dim=-1) <= 1e-8).all(0).view(shape)
        scores = torch.stack([jacobian_score(*setting) for setting in settings])
        reports.append(
            Report(
                number=i + 1,
                candidate=candidate,
                live=live,
                reason="" if live else _reason(candidate, settings[0][0]),
                duplicate_of=first + 1 if first != i else None,
                rank=int(torch.linalg.matrix_rank(jacobians, atol=1e-8, rtol=1e-9).max()),
                score=scores.mean().item(),
                dead=tuple((layer, wire) for layer, wire in idle.nonzero().tolist()),
            )
        )
    return Diagnosis(tuple(reports))


def _reason(candidate: Candidate, constant: Tensor) -> str:
    """Say why a candidate is dead, in words, from its gates and its constant probabilities."""
    names = {name for layer in candidate.rotations for name in layer}
    uniform = bool((len(constant) * constant - 1).abs().max() < 1e-8)
    if names == {"rx"} and uniform:
        return "RX only multiplies |+> by a phase, so every outcome stays equally likely"
    if names == {"rz"}:
        stays = "every outcome stays equally likely" if uniform else "one outcome stays certain"
        return f"RZ changes phases alone, and entanglers only move them: {stays}"
    return "its angles cancel out of every probability"
