"""Forecasts of a series by networks that a circuit writes (chapter 09)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..architect import Method
from ..circuits import Candidate
from ..errors import DataError, TargetError, check_type, check_whole
from ..generator import GeneratedNetwork
from .configurations import Kind, Trained, build, make_seeded, outputs, train
from .series import SERIES
from .windows import (
    check_series,
    mean_absolute_scaled_error,
    mean_squared_error,
    naive,
    skill_score,
    split_series,
)


class LSTMForecaster(nn.Module):
    """A long short-term memory with one bias for each gate, and a linear read-out of its state.

    The LSTM of torch adds two biases. With one, and 20 units, there are the 1,781 weights of
    arXiv 2505.09653. All start uniform in [-1/sqrt(units), 1/sqrt(units)], as in torch.

    Attributes:
        input_weight: Shape (4 units, 1): input gate, forget gate, cell and output gate.
        state_weight: Shape (4 units, units), in the same order.
        bias: Shape (4 units,), in the same order.
        read_out: The linear layer from the last state to the forecast.
    """

    def __init__(self, units: int = 20) -> None:
        """Build the network; its weights are drawn from torch's global generator.

        Args:
            units: The size of the state, 1 to 10,000.

        Raises:
            TargetError: if that is not such a whole number.
        """
        super().__init__()
        self.units = units = check_whole(TargetError, 1, 10_000, units=units)
        self.input_weight = nn.Parameter(torch.empty(4 * units, 1))
        self.state_weight = nn.Parameter(torch.empty(4 * units, units))
        self.bias = nn.Parameter(torch.empty(4 * units))
        self.read_out = nn.Linear(units, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(units**-0.5), units**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map windows, shape (batch, window, 1), to forecasts, shape (batch, 1).

        Raises:
            TargetError: if the windows have another shape.
        """
        if x.dim() != 3 or x.shape[-1] != 1:
            raise TargetError(f"windows must have shape (batch, window, 1), got {tuple(x.shape)}")
        # To a tracer, len(x) would be a constant: the exported network had one batch size only.
        state = cell = x.new_zeros(x.shape[0], self.units)
        for value in x.unbind(1):
            total = value @ self.input_weight.T + state @ self.state_weight.T + self.bias
            admit, keep, fresh, show = total.chunk(4, 1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(fresh)
            state = torch.sigmoid(show) * torch.tanh(cell)
        forecast: Tensor = self.read_out(state)
        return forecast


def roll_out(net: nn.Module, history: Tensor, horizon: int, window: int = 4) -> Tensor:
    """Forecast many steps ahead, shape (horizon,), float64, by feeding forecasts back in.

    Args:
        net: Maps windows, shape (1, window, 1), to forecasts, shape (1, 1), in eval mode.
        history: Values so far, scaled as in training: shape (n_points,), at least a window.
        horizon: How many values to forecast, 1 to 1,000,000.
        window: How many values the network sees, at least 1.

    Raises:
        DataError: if an argument is not as described, or the forecasts grow beyond all bounds.
        TargetError: if the network gives another shape or NaN.
    """
    check_whole(DataError, 1, 10**6, horizon=horizon, window=window)
    check_type(TargetError, nn.Module, net=net)
    values = check_series(history, window)[-window:].tolist()
    like = next(net.parameters(), torch.empty(0))
    for _ in range(horizon):
        x = torch.tensor(values[-window:], dtype=like.dtype, device=like.device)
        values.append(outputs(net, x.view(1, window, 1), 1).item())
    return check_series(torch.tensor(values[window:], dtype=torch.double), 1)


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
) -> Trained:
    """Train one forecaster on the first part of a series, and measure it on the last.

    Args:
        series: A name in :data:`.SERIES`, or a series of shape (n_points,).
        kind: What writes the weights, as for :func:`~qtdqas_lite.tasks.configurations.build`.
        seed: Everything random follows from it; torch's global generators are left alone.
        window: How many values a forecast sees.
        fractions: The parts for training and for validation; see :func:`.split_series`.
        period: How many points a season has, for ``seasonal_mse``; None if there are no seasons.
        target: Called without arguments, builds the network to be written; it maps
            (batch, window, 1) to (batch, 1).
        n_layers: The layers of the circuit, at least 1.
        hidden: How many hidden units the mapping has; 0 for an affine one.
        circuit: More arguments of the circuit's class.
        network: More arguments of :class:`~qtdqas_lite.GeneratedNetwork`.
        method: How the architecture is trained, as for :func:`~qtdqas_lite.search`.
        options: Passed to :func:`~qtdqas_lite.fit` or :func:`~qtdqas_lite.search`.

    Returns:
        The training. In its row, ``test_mse`` is on the scale where the training part is [-1, 1],
        like ``discrete_mse`` and ``seasonal_mse``, the error of the seasonal-naive forecast;
        ``skill`` is against persistence, and ``mase`` is scaled by persistence on the training
        part. Its data are a :class:`~qtdqas_lite.tasks.windows.SplitSeries`.

    Raises:
        DataError: if there is no such series, as :func:`.split_series`, or if persistence makes no
            error on the test part, or the period is longer than what comes before it.
        TargetError: if the target does not map (batch, window, 1) to (batch, 1).
        QuantumTrainError: as :func:`~qtdqas_lite.tasks.configurations.build`,
            :func:`~qtdqas_lite.fit` and :func:`~qtdqas_lite.search`.
    """
    name = series if isinstance(series, str) else "own"
    if isinstance(series, str):
        if series not in SERIES:
            raise DataError(f"the series must be one of {list(SERIES)}, got {series!r}")
        series = SERIES[series]()
    data = split_series(series, window, fractions)
    actual = data.values[data.starts[1] :, None]
    persistence = naive(data.values)[-len(actual) :, None]
    skill_score(persistence, actual, persistence)  # refuse what cannot be compared before training
    seasonal = None
    if period is not None:
        seasonal = mean_squared_error(naive(data.values, period)[-len(actual) :, None], actual)
    net = make_seeded(target, seed)
    outputs(net, data.train[0][:1], 1)  # a wrong shape would be broadcast in the loss
    net = build(kind, net, n_layers, hidden=hidden, circuit=circuit, network=network, seed=seed)
    options = {"loss": nn.functional.mse_loss, **options}
    run, columns = train(net, data.train, data.validation, method=method, seed=seed, **options)
    inputs, following = data.validation
    forecast = outputs(net, data.test[0], 1)
    row = {
        "series": name,
        "kind": "candidate" if isinstance(kind, Candidate) else kind,
        **columns,
        "hidden": 0 if kind == "plain" else hidden,
        "validation_mse": mean_squared_error(outputs(net, inputs, 1), following),
        "test_mse": mean_squared_error(forecast, actual),
        "persistence_mse": mean_squared_error(persistence, actual),
        "seasonal_mse": seasonal,
        "skill": skill_score(forecast, actual, persistence),
        "mase": mean_absolute_scaled_error(forecast, actual, data.values[: data.starts[0]]),
        "discrete_mse": None,
    }
    if columns["architecture"] and isinstance(net, GeneratedNetwork):
        discrete = outputs(net.discretize(), data.test[0], 1)
        row["discrete_mse"] = mean_squared_error(discrete, actual)
    return Trained(row, run, data)
