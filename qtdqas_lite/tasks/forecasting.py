"""Forecasts of a series by networks that a circuit writes (chapter 08)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..architect import Method
from ..circuits import Candidate
from ..errors import DataError, SearchError, TargetError
from ..generator import GeneratedNetwork
from ..training import Run
from .configurations import Kind, build, train
from .lstm import LSTMForecaster
from .series import (
    SERIES,
    bessel,
    damped_motion,
    delayed_atom,
    delayed_control,
    make_series,
    narma,
    sunspots,
)
from .windows import (
    Scaler,
    SplitSeries,
    check_series,
    mean_absolute_scaled_error,
    mean_squared_error,
    naive,
    naive_ahead,
    skill_score,
    split_series,
    windows,
)

__all__ = [
    "SERIES",
    "Forecast",
    "LSTMForecaster",
    "Scaler",
    "SplitSeries",
    "bessel",
    "damped_motion",
    "delayed_atom",
    "delayed_control",
    "make_series",
    "mean_absolute_scaled_error",
    "mean_squared_error",
    "naive",
    "naive_ahead",
    "narma",
    "roll_out",
    "skill_score",
    "split_series",
    "sunspots",
    "train_forecaster",
    "windows",
]


def roll_out(net: nn.Module, history: Tensor, horizon: int, window: int = 4) -> Tensor:
    """Forecast many steps ahead by feeding forecasts back in as if they had been observed.

    Args:
        net: Maps windows, shape (1, window, 1), to forecasts, shape (1, 1). It is put into eval
            mode meanwhile.
        history: Values so far, scaled as in training: shape (n_points,), at least a window.
        horizon: How many values to forecast, at least 1.
        window: How many values the network sees, at least 1.

    Returns:
        Shape (horizon,), in float64.

    Raises:
        DataError: if an argument is not as described, or the forecasts grow beyond all bounds.
        TargetError: if the network gives another shape.
    """
    for name, number in (("horizon", horizon), ("window", window)):
        if type(number) is not int or number < 1:
            raise DataError(f"{name} must be a whole number of at least 1, got {number!r}")
    values = check_series(history, window)[-window:].tolist()
    like = next(net.parameters(), torch.empty(0))
    for _ in range(horizon):
        x = torch.tensor(values[-window:], dtype=like.dtype, device=like.device)
        values.append(_forecast(net, x.view(1, window, 1)).item())
    return check_series(torch.tensor(values[window:], dtype=torch.double), 1)


@dataclass(frozen=True)
class Forecast:
    """A trained forecaster and what it is worth.

    Attributes:
        row: One row of a table, plain values by name. ``test_mse`` is on the scale where the
            training part is [-1, 1], ``skill`` is against persistence, ``mase`` is scaled by
            persistence on the training part; ``discrete_mse`` is the test error right after the
            gates of an ensemble or a relaxed circuit are chosen, with no further training (None
            for others); ``seasonal_mse`` is that of the seasonal-naive forecast;
            ``angles``, ``architecture`` and ``mapping`` are the trained numbers of each sort,
            ``trainables`` their sum, and ``weights`` those of the forecaster.
        run: The training; ``run.net`` is the network.
        data: The split series.
    """

    row: dict[str, Any]
    run: Run = field(repr=False)
    data: SplitSeries = field(repr=False)


def train_forecaster(
    series: str | Tensor,
    kind: Kind | Candidate = "fixed",
    *,
    seed: int = 0,
    window: int = 4,
    fractions: tuple[float, float] = (0.6, 0.2),
    period: int | None = None,
    target: Callable[[], nn.Module] = LSTMForecaster,
    n_layers: int = 10,
    hidden: int = 0,
    circuit: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    method: Method = "joint",
    **options: Any,
) -> Forecast:
    """Train one forecaster on the first part of a series, and measure it on the last.

    Args:
        series: A name in :data:`.SERIES`, or a series of shape (n_points,).
        kind: What writes the weights: a ``"fixed"`` circuit, the paper's ``"ensemble"`` of twelve,
            a ``"relaxed"`` circuit, an architecture such as a search has found, a ``"frozen"``
            circuit whose angles are not trained, or nothing (``"plain"``: the target itself is
            trained).
        seed: Everything random follows from it; torch's global generators are left alone.
        window: How many values a forecast sees.
        fractions: The parts for training and for validation; see :func:`split_series`.
        period: How many points a season has, for ``seasonal_mse``; None if there are no seasons.
        target: Called without arguments, builds the network to be written; it maps
            (batch, window, 1) to (batch, 1).
        n_layers: The layers of the circuit, at least 1.
        hidden: How many hidden units the mapping has; 0 for an affine one.
        circuit: Passed to :class:`~qtdqas_lite.FixedCircuit`,
            :class:`~qtdqas_lite.CircuitEnsemble` or :class:`~qtdqas_lite.RelaxedCircuit`.
        network: Passed to :class:`~qtdqas_lite.GeneratedNetwork`.
        method: How the architecture is trained: ``"joint"`` or another of
            :func:`~qtdqas_lite.search`.
        options: Passed to :func:`~qtdqas_lite.fit` or :func:`~qtdqas_lite.search`.

    Returns:
        The row for a table, the training and the data.

    Raises:
        DataError: as :func:`make_series` and :func:`split_series`, or if persistence makes no
            error on the test part, or the period is not from 1 to the length before it.
        DependencyError: as :func:`make_series`.
        CircuitError: if the circuit cannot be built.
        SearchError: if the kind or the seed is not as described, or the training cannot be run.
        TargetError: if the target cannot be written.
    """
    if type(seed) is not int or seed < 0:
        raise SearchError(f"seed must be a whole number of at least 0, got {seed!r}")
    name = series if isinstance(series, str) else "own"
    values = make_series(series) if isinstance(series, str) else series
    data = split_series(values, window, fractions)
    actual = data.values[data.starts[1] :, None]
    persistence = naive(data.values)[-len(actual) :, None]
    skill_score(persistence, actual, persistence)  # refuse what cannot be compared before training
    seasonal = None
    if period is not None:
        seasonal = mean_squared_error(naive(data.values, period)[-len(actual) :, None], actual)
    with torch.random.fork_rng(devices=[]):  # targets draw from the global generator
        torch.manual_seed(seed)
        net = target()
    if not isinstance(net, nn.Module):
        raise TargetError(f"target must build an nn.Module, and it built {type(net).__name__}")
    _forecast(net, data.train[0][:1])  # a wrong shape would be broadcast in the loss
    net = build(kind, net, n_layers, hidden=hidden, circuit=circuit, network=network, seed=seed)
    options = {"loss": nn.functional.mse_loss, **options}
    run, columns = train(net, data.train, data.validation, method=method, seed=seed, **options)
    inputs, following = data.validation
    forecast = _forecast(net, data.test[0])
    row = {
        "series": name,
        "kind": "candidate" if isinstance(kind, Candidate) else kind,
        **columns,
        "hidden": 0 if kind == "plain" else hidden,
        "validation_mse": mean_squared_error(_forecast(net, inputs), following),
        "test_mse": mean_squared_error(forecast, actual),
        "persistence_mse": mean_squared_error(persistence, actual),
        "seasonal_mse": seasonal,
        "skill": skill_score(forecast, actual, persistence),
        "mase": mean_absolute_scaled_error(forecast, actual, data.values[: data.starts[0]]),
        "discrete_mse": None,
    }
    if columns["architecture"] and isinstance(net, GeneratedNetwork):
        discrete = _forecast(net.discretize(), data.test[0])
        row["discrete_mse"] = mean_squared_error(discrete, actual)
    return Forecast(row, run, data)


@torch.no_grad()
def _forecast(net: nn.Module, inputs: Tensor) -> Tensor:
    """Forecast what follows windows, in eval mode: shape (n, window, 1) to (n, 1)."""
    training = net.training
    net.eval()
    try:
        forecast = net(inputs)
    finally:
        net.train(training)
    if not isinstance(forecast, Tensor) or forecast.shape != (len(inputs), 1):
        found = getattr(forecast, "shape", None)
        raise TargetError(
            f"a forecaster must give shape (batch, 1), and for {len(inputs)} window(s) this one "
            f"gave {'a ' + type(forecast).__name__ if found is None else tuple(found)}"
        )
    return forecast
