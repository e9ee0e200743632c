"""What is trained against what is shipped (chapter 03)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterCount:
    """What is trained against what is shipped.

    Attributes:
        angles: Trained angles of the circuit.
        architecture: Trained numbers that choose the architecture.
        mapping: Trained numbers of the mapping.
        total: Everything that is trained.
        target: The weights that are written, M.
        ratio: Weights written per trained number, target / total (infinite if nothing is trained).
        choice_bits: How many bits tell which architecture was chosen among those that could have
            been; 0 for a fixed circuit, of which that is not known.
    """

    angles: int
    architecture: int
    mapping: int
    total: int
    target: int
    ratio: float
    choice_bits: float = 0.0

    def __str__(self) -> str:
        rows = [
            ("angles of the circuit", self.angles),
            ("architecture", self.architecture),
            ("mapping", self.mapping),
            ("trained in all", self.total),
            ("weights written", self.target),
        ]
        lines = [f"{name:<24}{count:>10,}" for name, count in rows]
        lines.append(f"{'weights per trained':<24}{self.ratio:>10.1f}")
        if self.choice_bits:
            lines.append(f"{'bits of the choice':<24}{self.choice_bits:>10.1f}")
        return "\n".join(lines)


def count_parameters(network: nn.Module, circuit: nn.Module, n_weights: int) -> ParameterCount:
    """Count every parameter of ``network`` that requires a gradient; ``circuit`` is a part of it.

    A circuit names the parameters that choose its architecture in an attribute
    ``architecture_parameters``; its others are angles.
    """
    chooses = set(getattr(circuit, "architecture_parameters", ()))
    angles = architecture = 0
    for name, parameter in circuit.named_parameters():
        if parameter.requires_grad and name in chooses:
            architecture += parameter.numel()
        elif parameter.requires_grad:
            angles += parameter.numel()
    total = sum(p.numel() for p in network.parameters() if p.requires_grad)
    ratio = n_weights / total if total else math.inf
    return ParameterCount(
        angles, architecture, total - angles - architecture, total, n_weights, ratio
    )


def count_choice(count: ParameterCount, circuit: nn.Module) -> ParameterCount:
    """Leave out the angles of slots that are closed, and add the bits of a choice (chapter 07).

    A circuit that grows has a mask ``is_open`` of the shape of ``theta``; one whose architecture
    was chosen has a number ``choice_bits``.
    """
    is_open, theta = getattr(circuit, "is_open", None), getattr(circuit, "theta", None)
    closed = 0
    if isinstance(is_open, Tensor) and isinstance(theta, Tensor) and theta.requires_grad:
        closed = int((~is_open).sum())
    total = count.total - closed
    return replace(
        count,
        angles=count.angles - closed,
        total=total,
        ratio=count.target / total if total else math.inf,
        choice_bits=float(getattr(circuit, "choice_bits", 0.0)),
    )
