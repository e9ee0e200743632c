"""Learning curves of several seeds, summarised (chapter 09)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import DataError, needs


def interquartile_mean_curve(
    curves: Sequence[Sequence[dict[str, Any]]],
    *,
    n_points: int = 50,
    window: int = 20,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Summarise the learning curves of several seeds, as arXiv 2108.13264 recommends.

    At each point, a curve's value is the mean return of the last ``window`` episodes. The
    interquartile mean leaves out the lowest and the highest quarter of the seeds, rounded
    down: with three it is the mean, and it takes four to leave any out. The interval is that of the
    percentile bootstrap over seeds; with three it is hardly more than the range of their values.

    Args:
        curves: One for each seed, at least two, as :class:`.Agent` has them.
        n_points: At how many steps, at least 2, evenly spaced from where every curve has its first
            episode to where the first of them ends.
        window: How many episodes are averaged, at least 1; fewer at the start.
        confidence: Of the interval, above 0 and below 1.
        n_resamples: How often the seeds are drawn anew, at least 1.
        seed: What they are drawn from.

    Returns:
        One row for each point: ``step``, the interquartile mean ``return``, and the ends of its
        interval, ``low`` and ``high``.

    Raises:
        DataError: if there are fewer than two curves, one is empty, they have no step in common, or
            another argument is not as described.
        DependencyError: if SciPy is not installed.
    """
    with needs("an interval", "scipy"):
        from scipy import stats
    for name, number, least in (("n_points", n_points, 2), ("window", window, 1)):
        if type(number) is not int or number < least:
            raise DataError(f"{name} must be a whole number of at least {least}, got {number!r}")
    if type(n_resamples) is not int or n_resamples < 1 or not 0 < confidence < 1:
        raise DataError(
            f"n_resamples must be a whole number of at least 1 and confidence between 0 and 1, got "
            f"{n_resamples!r} and {confidence!r}"
        )
    if len(curves) < 2 or not all(curves):
        raise DataError(
            f"an interval takes at least two curves with an episode each, and there are "
            f"{len(curves)}, with {[len(curve) for curve in curves]} episodes"
        )
    first = max(curve[0]["step"] for curve in curves)
    last = min(curve[-1]["step"] for curve in curves)
    if first > last:
        raise DataError(f"one curve ends at step {last}, before another begins at step {first}")
    grid, rows = np.linspace(first, last, n_points), []
    for curve in curves:
        ends = np.searchsorted([row["step"] for row in curve], grid, "right")
        returns = np.array([row["return"] for row in curve])
        rows.append([returns[max(0, end - window) : end].mean() for end in ends])
    middle = partial(stats.trim_mean, proportiontocut=0.25)
    interval = stats.bootstrap(
        (np.array(rows),),
        middle,
        n_resamples=n_resamples,
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    ).confidence_interval
    columns = grid, middle(np.array(rows)), interval.low, interval.high
    names = "step", "return", "low", "high"
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
