"""The network whose weights are written when a series is forecast (chapter 08)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import TargetError


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
            units: The size of the state, at least 1.

        Raises:
            TargetError: if that is not a whole number of at least 1.
        """
        super().__init__()
        if type(units) is not int or units < 1:
            raise TargetError(f"units must be a whole number of at least 1, got {units!r}")
        self.units = units
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
        state = cell = x.new_zeros(len(x), self.units)
        for value in x.unbind(1):
            total = value @ self.input_weight.T + state @ self.state_weight.T + self.bias
            admit, keep, fresh, show = total.chunk(4, 1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(fresh)
            state = torch.sigmoid(show) * torch.tanh(cell)
        forecast: Tensor = self.read_out(state)
        return forecast
