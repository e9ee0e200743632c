"""From a series to examples, and from forecasts to figures of merit (chapter 08)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..errors import DataError

Pair = tuple[Tensor, Tensor]


def check_series(series: Tensor, at_least: int = 2) -> Tensor:
    """Return a series as float64; refuse it unless it is 1-D, finite and as long."""
    if not isinstance(series, Tensor) or series.dim() != 1 or series.is_complex():
        shape = tuple(getattr(series, "shape", ()))
        raise DataError(
            f"a series must be a real tensor of shape (n_points,), got {type(series).__name__} "
            f"{shape}"
        )
    if len(series) < at_least:
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
        if not high > low:
            raise DataError(
                f"the series is constant ({low:g}) where its range is measured, so it cannot be "
                f"scaled, and there is nothing to learn from it"
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
        DataError: if the series is not finite or has no more points than the window, or the window
            is no whole number of at least 1.
    """
    if type(window) is not int or window < 1:
        raise DataError(f"window must be a whole number of at least 1, got {window!r}")
    check_series(series, window + 1)
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
        train: Windows and next values as of :func:`windows`, in float32.
        validation: The same.
        test: The same.
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
        DataError: if an argument is not as described, the series is not finite, a part would have
            nothing to forecast, or the training part is constant.
    """
    if (
        not isinstance(fractions, tuple | list)
        or len(fractions) != 2
        or not all(isinstance(part, int | float) and part > 0 for part in fractions)
        or not sum(fractions) < 1
    ):
        raise DataError(
            f"fractions must be two numbers above 0, for training and validation, with a sum below "
            f"1 so that something is left for the test, got {fractions!r}"
        )
    values = check_series(series)
    windows(values, window)
    first = int(fractions[0] * len(values) + 1e-9)
    second = int((fractions[0] + fractions[1]) * len(values) + 1e-9)
    if not window < first < second < len(values):
        raise DataError(
            f"{len(values)} points, split into {first}, {second - first} and "
            f"{len(values) - second}, are too few for a window of {window}: each part needs a "
            f"value to forecast, and the training part a window before it"
        )
    scaler = Scaler.fit(values[:first])
    values = scaler.transform(values)
    inputs, following = windows(values.float(), window)
    # The example with number i is about the value with number i + window.
    a, b = first - window, second - window
    train, validation = (inputs[:a], following[:a]), (inputs[a:b], following[a:b])
    test = inputs[b:], following[b:]
    return SplitSeries(values, scaler, (first, second), train, validation, test)


def naive(series: Tensor, period: int = 1) -> Tensor:
    """Forecast each value by the one a period before: persistence (1), or seasonal-naive.

    Args:
        series: Shape (n_points,).
        period: How many points a season has, at least 1.

    Returns:
        Forecasts of ``series[period:]``, shape (n_points - period,).

    Raises:
        DataError: if the series is not finite or not longer than the period, or the period is no
            whole number of at least 1.
    """
    _check_whole(period=period)
    return check_series(series, period + 1)[:-period]


def naive_ahead(history: Tensor, horizon: int, period: int = 1) -> Tensor:
    """Forecast many steps ahead: the last value (period 1), or the last season, over and over.

    Args:
        history: All values so far, shape (n_points,).
        horizon: How many values to forecast, at least 1.
        period: How many points a season has, at least 1.

    Returns:
        Shape (horizon,).

    Raises:
        DataError: as :func:`naive`, or if the history is shorter than a period.
    """
    _check_whole(period=period, horizon=horizon)
    season = check_series(history, period)[-period:]
    return season.repeat(-(-horizon // period))[:horizon]


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


def mean_absolute_scaled_error(
    forecast: Tensor, actual: Tensor, history: Tensor, period: int = 1
) -> float:
    """Scale the mean absolute error by that of :func:`naive` on the training part (MASE).

    Below 1, the forecast is better than the naive one was there (Hyndman and Koehler, 2006,
    doi:10.1016/j.ijforecast.2006.03.001).

    Args:
        forecast: Any shape.
        actual: The same shape.
        history: The training part of the series, shape (n_points,).
        period: How many points a season has, at least 1.

    Raises:
        DataError: as :func:`mean_squared_error` and :func:`naive`, or if the naive forecast makes
            no error on the training part.
    """
    scale = (check_series(history)[period:] - naive(history, period)).abs().mean().item()
    if scale == 0:
        raise DataError("the naive forecast makes no error on the training part: no scale for MASE")
    return _errors(forecast, actual).abs().mean().item() / scale


def _errors(forecast: Tensor, actual: Tensor) -> Tensor:
    if forecast.shape != actual.shape or not forecast.numel():
        raise DataError(
            f"forecast and actual values must have one shape and not be empty, got "
            f"{tuple(forecast.shape)} and {tuple(actual.shape)}"
        )
    errors = forecast.detach().double() - actual.detach().double()
    if not math.isfinite(errors.abs().sum().item()):
        raise DataError("there are forecasts or actual values that are not finite")
    return errors


def _check_whole(**numbers: int) -> None:
    for name, value in numbers.items():
        if type(value) is not int or value < 1:
            raise DataError(f"{name} must be a whole number of at least 1, got {value!r}")
