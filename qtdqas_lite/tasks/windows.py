"""From a series to examples, and from forecasts to figures of merit (chapter 09)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError, check_whole

Pair = tuple[Tensor, Tensor]


def check_series(series: Tensor, at_least: int = 2) -> Tensor:
    """Return a series as float64, or raise :class:`.DataError` unless it is finite and 1-D."""
    if not isinstance(series, Tensor) or series.dim() != 1 or series.is_complex():
        found = f"{type(series).__name__} {tuple(getattr(series, 'shape', ()))}"
        raise DataError(f"a series must be a real tensor of shape (n_points,), got {found}")
    if len(series) < check_whole(DataError, 0, at_least=at_least):
        raise DataError(f"the series has {len(series)} points, and needs at least {at_least} here")
    bad = (~series.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"the series is not finite at {len(bad)} of its {len(series)} points, first at number "
            f"{bad[0]}; fill such gaps, or cut them out"
        )
    return series.detach().double()


@dataclass(frozen=True)
class Scaler:
    """The affine map of an interval to [-1, 1].

    Attributes:
        low: What becomes -1.
        high: What becomes 1, above ``low``.
    """

    low: float
    high: float

    @classmethod
    def fit(cls, series: Tensor) -> Scaler:
        """Take the smallest and the largest value of a series: fit on the training part only.

        Raises:
            DataError: if the series is constant, not finite or empty.
        """
        values = check_series(series, 1)
        low, high = values.min().item(), values.max().item()
        if not 1e-300 < high - low < 1e300:  # the scale, 2 / (high - low), would not be finite
            raise DataError(
                f"the series is constant or goes too far ({low:g} to {high:g}) where its range is "
                f"measured, so it cannot be scaled"
            )
        return cls(low, high)

    def transform(self, values: Tensor) -> Tensor:
        """Map values of any shape; those outside of what was seen come out beyond -1 and 1."""
        return (values - self.low) * (2 / (self.high - self.low)) - 1

    def inverse(self, values: Tensor) -> Tensor:
        """Undo :meth:`transform`."""
        return (values + 1) * ((self.high - self.low) / 2) + self.low


def windows(series: Tensor, window: int = 4) -> Pair:
    """Cut a series into windows, each with the value that follows it.

    Args:
        series: Shape (n_points,).
        window: How many values a forecast sees, at least 1.

    Returns:
        Inputs, shape (n_points - window, window, 1), the oldest value first, and what follows
        them, shape (n_points - window, 1). Both in the precision of the series.

    Raises:
        DataError: if the series is not finite, or has no more points than the window.
    """
    check_series(series, check_whole(DataError, 1, window=window) + 1)
    return series[:-1].unfold(0, window, 1)[..., None].clone(), series[window:, None].clone()


@dataclass(frozen=True)
class SplitSeries:
    """A series in its scaled form, and the examples of its three parts.

    An example belongs to the part that the value to be forecast lies in: the first windows of the
    validation and the test part reach back into the part before.

    Attributes:
        values: The whole series, scaled, shape (n_points,), float64.
        scaler: What scaled it, fitted on the training part.
        starts: Where the validation and where the test part begin in ``values``.
        train: Windows and next values as of :func:`windows`, in float32; like the other parts.
    """

    values: Tensor
    scaler: Scaler
    starts: tuple[int, int]
    train: Pair
    validation: Pair
    test: Pair


def split_series(
    series: Tensor, window: int = 4, fractions: tuple[float, float] = (0.6, 0.2)
) -> SplitSeries:
    """Split a series in the order of time, scale it to [-1, 1], and cut it into windows.

    Args:
        series: Shape (n_points,).
        window: As for :func:`windows`.
        fractions: The training and the validation part; the rest is for the test. All above 0.

    Raises:
        DataError: if an argument is not as described, a part would have nothing to forecast, or
            the training part is constant.
    """
    pair = isinstance(fractions, tuple | list) and len(fractions) == 2
    positive = pair and all(isinstance(part, int | float) and part > 0 for part in fractions)
    if not positive or not sum(fractions) < 1:
        raise DataError(
            f"fractions must be two numbers above 0, for training and validation, with a sum below "
            f"1 so that something is left for the test, got {fractions!r}"
        )
    values = check_series(series)
    windows(values, window)
    first = int(fractions[0] * len(values) + 1e-9)
    second = int((fractions[0] + fractions[1]) * len(values) + 1e-9)
    if not window < first < second < len(values):
        shares = f"{first}, {second - first} and {len(values) - second}"
        raise DataError(
            f"{len(values)} points, split into {shares}, are too few for a window of {window}: "
            f"each part needs a value to forecast, and the training part a window before it"
        )
    scaler = Scaler.fit(values[:first])
    values = scaler.transform(values)
    inputs, following = windows(values.float(), window)
    # The example with number i is about the value with number i + window.
    sizes = [first - window, second - first, len(values) - second]
    parts = zip(torch.split(inputs, sizes), torch.split(following, sizes), strict=True)
    return SplitSeries(values, scaler, (first, second), *parts)


def naive(series: Tensor, period: int = 1) -> Tensor:
    """Forecast each value by the one a period before: persistence (1), or seasonal-naive.

    Args:
        series: Shape (n_points,).
        period: How many points a season has, 1 to n_points - 1.

    Returns:
        Forecasts of ``series[period:]``, shape (n_points - period,).
    """
    check_whole(DataError, 1, period=period)
    return check_series(series, period + 1)[:-period]


def mean_squared_error(forecast: Tensor, actual: Tensor) -> float:
    """Average the squared errors.

    Raises:
        DataError: if the two have not the same shape (nothing is broadcast), or are not finite.
    """
    return _errors(forecast, actual).square().mean().item()


def skill_score(forecast: Tensor, actual: Tensor, reference: Tensor) -> float:
    """Compare with a reference forecast: 1 - MSE / MSE of the reference.

    Returns:
        1 for a perfect forecast, 0 for one no better than the reference, below 0 for a worse one.

    Raises:
        DataError: as :func:`mean_squared_error`, or if the reference is perfect.
    """
    base = mean_squared_error(reference, actual)
    if base == 0:
        raise DataError("the reference makes no error here, so no forecast can be compared with it")
    return 1 - mean_squared_error(forecast, actual) / base


def mean_absolute_scaled_error(forecast: Tensor, actual: Tensor, history: Tensor) -> float:
    """Scale the mean absolute error by that of persistence on the training part (MASE).

    Below 1, the forecast is better than persistence was there (Hyndman and Koehler, 2006,
    doi:10.1016/j.ijforecast.2006.03.001). The training part is the history, shape (n_points,).

    Raises:
        DataError: as :func:`mean_squared_error`, or if persistence makes no error there.
    """
    scale = check_series(history).diff().abs().mean().item()
    if scale == 0:
        raise DataError("persistence makes no error on the training part: there is no scale")
    return _errors(forecast, actual).abs().mean().item() / scale


def _errors(forecast: Tensor, actual: Tensor) -> Tensor:
    pair = isinstance(forecast, Tensor) and isinstance(actual, Tensor)
    if not pair or forecast.shape != actual.shape or not forecast.numel():
        raise DataError(
            f"forecast and actual values must be tensors of one shape and not be empty, got "
            f"{[tuple(x.shape) for x in (forecast, actual)] if pair else type(forecast).__name__}"
        )
    errors = forecast.detach().double() - actual.detach().double()
    if not errors.square().sum().isfinite():
        raise DataError("forecasts or actual values are not finite, or too far from each other")
    return errors
