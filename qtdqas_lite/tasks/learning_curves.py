"""Learning curves of several seeds, summarised (chapter 10)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import DataError, check_type, check_whole, needs


def interquartile_mean_curve(
    curves: Sequence[Sequence[dict[str, Any]]],
    *,
    n_points: int = 50,
    window: int = 20,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Summarise the learning curves of several seeds, as arXiv 2108.13264 recommends.

    At each point, a curve's value is the mean return of the last ``window`` episodes. The
    interquartile mean leaves out the lowest and the highest quarter of the seeds, rounded down: it
    takes four seeds to leave any out. The interval is that of the percentile bootstrap, 95 %, from
    2,000 draws of the seeds.

    Args:
        curves: One for each seed, at least two, as :class:`.Agent` has them.
        n_points: At how many steps, at least 2, evenly spaced from where every curve has its first
            episode to where the first of them ends.
        window: How many episodes are averaged, at least 1; fewer at the start.
        seed: What the bootstrap draws from.

    Returns:
        One row for each point: ``step``, the interquartile mean ``return``, and the ends of its
        interval, ``low`` and ``high``.

    Raises:
        DataError: if an argument is not as described, or the curves have no step in common.
        DependencyError: if SciPy is not installed.
    """
    with needs("an interval", "scipy"):
        from scipy import stats
    check_whole(DataError, 2, 10_000, n_points=n_points)
    check_whole(DataError, 1, 10**9, window=window)
    check_whole(DataError, 0, seed=seed)
    check_type(DataError, list, tuple, curves=curves)
    check_type(DataError, list, tuple, **{f"curves[{i}]": curve for i, curve in enumerate(curves)})
    if len(curves) < 2 or not all(curves):
        found = f"{len(curves)}, with {[len(curve) for curve in curves]} episodes"
        raise DataError(f"it takes at least two curves with an episode each; there are {found}")
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
    options = {"n_resamples": 2000, "method": "percentile", "rng": seed}
    interval = stats.bootstrap((np.array(rows),), middle, **options).confidence_interval
    columns = grid, middle(np.array(rows)), interval.low, interval.high
    names = "step", "return", "low", "high"
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]
