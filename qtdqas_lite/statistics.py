"""How results of several runs are compared (chapter 04)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import SearchError, check_whole, needs, refuses


@dataclass(frozen=True)
class VarianceDecomposition:
    """How much of a spread of results is due to architectures, and how much to seeds.

    Attributes:
        mean: The mean of all results.
        best: The best mean of an architecture; with few seeds, in part luck.
        architecture_deviation: The standard deviation that architectures cause.
        seed_deviation: The standard deviation over the seeds of one architecture.
        share: The share of the variance that is due to architectures, from 0 to 1 (the intraclass
            correlation coefficient of one-way random effects).
    """

    mean: float
    best: float
    architecture_deviation: float
    seed_deviation: float
    share: float


def variance_decomposition(results: Tensor) -> VarianceDecomposition:
    """Tell, before any search, whether architectures differ by more than their seeds do.

    Args:
        results: One result (an accuracy, say: higher is better) for each architecture and seed,
            shape (n_architectures, n_seeds), at least 2 of each, finite.

    Raises:
        SearchError: if the results are not as described.
    """
    try:
        results = torch.as_tensor(results, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SearchError(f"results must be a table of numbers: {error}") from error
    # Squares of larger numbers would not be finite.
    if results.dim() != 2 or min(results.shape) < 2 or not (results.abs() < 1e150).all():
        raise SearchError(
            f"results must be finite, with at least 2 architectures and 2 seeds, got shape "
            f"{tuple(results.shape)}"
        )
    within = results.var(1).mean().item()
    between = max(0.0, results.mean(1).var().item() - within / results.shape[1])
    return VarianceDecomposition(
        mean=results.mean().item(),
        best=results.mean(1).max().item(),
        architecture_deviation=between**0.5,
        seed_deviation=within**0.5,
        share=between / max(between + within, 1e-300),
    )


@dataclass(frozen=True)
class Estimate:
    """What several independent results say of their mean.

    Attributes:
        mean: The mean.
        deviation: The standard deviation of the results.
        interval: The interval of the mean, from Student's t distribution.
    """

    mean: float
    deviation: float
    interval: tuple[float, float]


@refuses(SearchError)
def estimate(results: Tensor, comparisons: int = 1) -> Estimate:
    """Give the mean of independent results and its 95 % interval (appendix A2).

    Args:
        results: One result for each repetition (a seed, a split), finite, shape (n,), at least 2.
        comparisons: How many intervals are looked at together; each is widened so that all of
            them hold at once in 95 of 100 studies (Bonferroni).

    Raises:
        SearchError: if the results are not as described.
        DependencyError: if SciPy is not installed.
    """
    with needs("an interval", "scipy"):
        from scipy.stats import t as student
    check_whole(SearchError, 1, 10**6, comparisons=comparisons)
    values = torch.as_tensor(results, dtype=torch.float64)
    if values.dim() != 1 or len(values) < 2 or not values.isfinite().all():
        raise SearchError(
            f"results must be finite, one for each of at least 2 repetitions, got shape "
            f"{tuple(values.shape)}"
        )
    mean, deviation = values.mean().item(), values.std().item()
    quantile = float(student.ppf(1 - 0.025 / comparisons, len(values) - 1))
    half = quantile * deviation / len(values) ** 0.5
    return Estimate(mean, deviation, (mean - half, mean + half))


@refuses(SearchError)
def paired(first: Tensor, second: Tensor, comparisons: int = 1) -> Estimate:
    """Compare two methods seed by seed: what both of them owe to a seed cancels.

    Args:
        first: One result for each seed, finite, shape (n_seeds,), at least 2.
        second: The other method's, of the same seeds in the same order.
        comparisons: As for :func:`estimate`.

    Returns:
        The estimate of the differences, the first less the second.

    Raises:
        SearchError: if the results are not as described.
        DependencyError: if SciPy is not installed.
    """
    pair = [torch.as_tensor(one, dtype=torch.float64) for one in (first, second)]
    if pair[0].shape != pair[1].shape:
        raise SearchError(
            f"both methods need one result for each of the same seeds, got shapes "
            f"{tuple(pair[0].shape)} and {tuple(pair[1].shape)}"
        )
    return estimate(pair[0] - pair[1], comparisons)
