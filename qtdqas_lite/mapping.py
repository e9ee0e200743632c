"""From probabilities to the numbers that weights are made of (chapter 03)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import TargetError, check_whole, refuses

Feature = Literal["log", "scaled", "raw"]


@refuses(TargetError)
def log_feature(probabilities: Tensor) -> Tensor:
    """Turn probabilities into numbers of order one: log(2**n p + 0.01).

    The factor 2**n makes the mean of 2**n p 1, whatever the number of qubits; the logarithm brings
    outliers back; 0.01 keeps it and its gradient finite at p = 0.

    Args:
        probabilities: Shape (2**n,).

    Returns:
        Shape (2**n,), between log(0.01) and log(2**n + 0.01).
    """
    return torch.log(len(probabilities) * probabilities + 0.01)


FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "log": log_feature,
    "scaled": lambda probabilities: len(probabilities) * probabilities - 1,
    "raw": lambda probabilities: probabilities,
}


def feature_function(feature: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function of a feature's name, or the function itself."""
    if callable(feature):
        return feature
    if feature not in list(FEATURES):  # a list, because what is passed may have no hash
        raise TargetError(f"feature must be one of {list(FEATURES)}, got {feature!r}")
    return FEATURES[feature]


class AffineMapping(nn.Module):
    """One affine map from the bits and the feature of a basis state to a number.

    Its n + 2 trained numbers fit the parameter counts of arXiv 2505.09653.

    Attributes:
        bit_coefficients: Shape (n_qubits,), drawn from N(0, 0.1**2 / n_qubits).
        feature_coefficient: Shape (), starts at 1.
        bias: Shape (), starts at 0.
    """

    def __init__(self, n_qubits: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        n_qubits = check_whole(TargetError, 1, n_qubits=n_qubits)
        draw = torch.randn(n_qubits, generator=generator)
        self.bit_coefficients = nn.Parameter(0.1 / math.sqrt(n_qubits) * draw)
        self.feature_coefficient = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, bits: Tensor, feature: Tensor) -> Tensor:
        """Map bits (rows, n_qubits) and feature (rows,) to numbers (rows,)."""
        return bits @ self.bit_coefficients + self.feature_coefficient * feature + self.bias


class MLPMapping(nn.Module):
    """A network with one hidden tanh layer, from bits and feature of a basis state to a number.

    It has (n_qubits + 3) * hidden + 1 trained numbers. Each hidden unit is centred over the basis
    states: its mean would move all weights of the target at once, until every ReLU there is dead.
    """

    @refuses(TargetError)
    def __init__(
        self, n_qubits: int, hidden: int = 8, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_whole(TargetError, 1, n_qubits=n_qubits, hidden=hidden)
        # The layers' own initialisers would draw from the global generator.
        self.hidden_layer = nn.utils.skip_init(nn.Linear, n_qubits + 1, hidden)  # type: ignore[no-untyped-call]
        self.output_layer = nn.utils.skip_init(nn.Linear, hidden, 1)  # type: ignore[no-untyped-call]
        nn.init.normal_(self.hidden_layer.weight, std=1.0, generator=generator)
        nn.init.normal_(self.hidden_layer.bias, std=0.5, generator=generator)
        nn.init.normal_(self.output_layer.weight, std=hidden**-0.5, generator=generator)
        nn.init.zeros_(self.output_layer.bias)

    def forward(self, bits: Tensor, feature: Tensor) -> Tensor:
        """Map bits (rows, n_qubits) and feature (rows,) to numbers (rows,)."""
        units = torch.tanh(self.hidden_layer(torch.cat([bits, feature[:, None]], 1)))
        numbers: Tensor = self.output_layer(units - units.mean(0))
        return numbers[:, 0]


def make_mapping(
    mapping: str | nn.Module, n_qubits: int, *, generator: torch.Generator | None
) -> nn.Module:
    """Return the mapping of a name, newly drawn, or the module itself."""
    if isinstance(mapping, nn.Module):
        return mapping
    if mapping == "mlp":
        return MLPMapping(n_qubits, generator=generator)
    if mapping != "affine":
        raise TargetError(f"mapping must be 'affine', 'mlp' or a module, got {mapping!r}")
    return AffineMapping(n_qubits, generator=generator)
