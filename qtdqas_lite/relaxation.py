"""How a choice gets a gradient: logits, temperature, noise (chapter 05)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import CircuitError, SearchError, check_positive
from .simulator.statevector import transforms_active

Sampling = Literal["softmax", "gumbel", "straight-through", "score-function"]


class Relaxation(nn.Module):
    """What every relaxed choice has: logits, a temperature, and a way from logits to weights.

    In training mode, ``sampling`` says how a slot's logits become the weights of its choices:

    - ``"softmax"``: softmax(alpha / temperature);
    - ``"gumbel"``: the same after Gumbel noise on alpha, drawn anew on every call (Jang et al.,
      arXiv 1611.01144);
    - ``"straight-through"``: the largest of these becomes 1 and the others 0, so that a single
      circuit runs, while the gradient is that of ``"gumbel"``;
    - ``"score-function"``: one choice is drawn from the softmax, without a gradient to alpha;
      ``log_probability`` is that of what was drawn last (DQAS, Zhang et al., arXiv 2010.08561).

    In eval mode nothing is drawn: the first two give the softmax, the others the likeliest choice.
    Noise comes from torch's global generator, as that of dropout does.

    Attributes:
        alpha: The logits of each kind of slot, by name; the choices are along the last axis.
        log_probability: The log-probability of the last draw, shape (), with its gradient.
    """

    alpha: nn.ParameterDict

    def __init__(self, temperature: float, sampling: Sampling) -> None:
        super().__init__()
        if sampling not in ("softmax", "gumbel", "straight-through", "score-function"):
            raise CircuitError(
                f"sampling must be 'softmax', 'gumbel', 'straight-through' or 'score-function', "
                f"got {sampling!r}"
            )
        self.temperature = temperature
        self.sampling = sampling
        self.alpha = nn.ParameterDict()
        self.log_probability = torch.zeros(())

    @property
    def temperature(self) -> float:
        """The temperature of the softmax, above 0; a low one decides, a high one evens out."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CircuitError(f"temperature must be a finite number above 0, got {value!r}")
        self._temperature = float(value)

    @property
    def architecture_parameters(self) -> tuple[str, ...]:
        """The names of the parameters that choose the architecture."""
        return tuple(f"alpha.{name}" for name in self.alpha)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the graph of the last draw out of copies: it is no part of the circuit."""
        return {**self.__dict__, "log_probability": self.log_probability.detach()}

    def mixture(self) -> dict[str, Tensor]:
        """Turn the logits into weights, drawing where ``sampling`` says so.

        Returns:
            The weights of the choices, by the names and of the shapes of ``alpha``.

        Raises:
            CircuitError: if a logit, divided by the temperature, is not finite.
        """
        self.log_probability = torch.zeros(())
        return {name: self._weights(name, alpha) for name, alpha in self.alpha.items()}

    def _weights(self, name: str, alpha: Tensor) -> Tensor:
        logits = alpha / self.temperature
        if not transforms_active() and not logits.isfinite().all():
            raise CircuitError(
                f"the logits alpha[{name!r}] / temperature are not finite; lower their learning "
                f"rate, or raise the temperature"
            )
        soft = torch.softmax(logits, -1)
        hard = self.sampling in ("straight-through", "score-function")
        if not self.training:
            return _one_hot(alpha.argmax(-1), alpha) if hard else soft
        if self.sampling == "softmax":
            return soft
        if self.sampling != "score-function":
            return nn.functional.gumbel_softmax(alpha, self.temperature, hard=hard)
        drawn = torch.multinomial(soft.detach().view(-1, alpha.shape[-1]), 1).view(alpha.shape[:-1])
        logs = torch.log_softmax(logits, -1).gather(-1, drawn[..., None]).sum()
        self.log_probability = self.log_probability.to(logs) + logs
        return _one_hot(drawn, alpha)

    def entropy(self) -> Tensor:
        """Tell how undecided the slots are: the mean entropy of the softmax, over its maximum.

        Returns:
            Shape (), from 0 (every slot has decided) to 1 (every choice is as likely).
        """
        parts = []
        for alpha in self.alpha.values():
            logs = torch.log_softmax(alpha / self.temperature, -1)
            nats = -(logs.exp() * logs).sum(-1)
            parts.append((nats / math.log(max(2, alpha.shape[-1]))).flatten())
        return torch.cat(parts).mean() if parts else torch.zeros(())


def anneal(first: float, last: float) -> Callable[[Any], None]:
    """Give an ``on_step`` that lowers the temperature by the same factor in each step.

    Args:
        first: The temperature at the start: build the circuit with it.
        last: The temperature after the last step.

    Raises:
        SearchError: if one of them is not a finite number above 0, or (in a run) the network has
            no relaxed circuit.
    """
    check_positive(first=first, last=last)

    def cool(step: Any) -> None:
        relaxed = [m for m in step.net.modules() if isinstance(m, Relaxation)]
        if not relaxed:
            raise SearchError("there is no relaxed circuit whose temperature could change")
        for circuit in relaxed:
            done = step.step / step.steps
            circuit.temperature = first ** (1 - done) * last**done

    return cool


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return nn.functional.one_hot(index, like.shape[-1]).to(like.dtype)
