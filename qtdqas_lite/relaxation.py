"""How a choice gets a gradient: logits, temperature, noise (chapter 05)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .errors import CircuitError, SearchError, check_positive, refuses
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
      :meth:`log_probability` has one (DQAS, Zhang et al., arXiv 2010.08561).

    In eval mode nothing is drawn: the first two give the softmax, the others the likeliest choice.
    Noise comes from torch's global generator, as that of dropout does.

    Attributes:
        alpha: The logits of each kind of slot, by name; the choices are along the last axis.
    """

    alpha: nn.ParameterDict
    _temperature: Tensor

    def __init__(self, temperature: float, sampling: Sampling) -> None:
        super().__init__()
        if sampling not in get_args(Sampling):
            raise CircuitError(f"sampling must be one of {get_args(Sampling)}, got {sampling!r}")
        # A buffer, since it changes what the circuit gives: saved, moved and copied with it.
        self.register_buffer("_temperature", torch.ones(()))
        self.temperature = temperature
        self.sampling = sampling
        self.alpha = nn.ParameterDict()

    @property
    def temperature(self) -> float:
        """The temperature of the softmax, above 0, in the precision of the circuit.

        A low one decides, a high one evens out.
        """
        return self._temperature.item()

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CircuitError(f"temperature must be a finite number above 0, got {value!r}")
        self._temperature.fill_(value)

    @property
    def architecture_parameters(self) -> tuple[str, ...]:
        """The names of the parameters that choose the architecture."""
        return tuple(f"alpha.{name}" for name in self.alpha)

    def logits(self) -> dict[str, Tensor]:
        """Divide alpha by the temperature.

        Raises:
            CircuitError: if the result is not finite.
        """
        found = {name: alpha / self._temperature for name, alpha in self.alpha.items()}
        for name, logits in found.items():
            if not transforms_active() and not (logits.isfinite() & (self._temperature > 0)).all():
                raise CircuitError(
                    f"the logits alpha[{name!r}] / temperature are not finite; lower their "
                    f"learning rate, or raise the temperature"
                )
        return found

    def mixture(self) -> dict[str, Tensor]:
        """Turn the logits into weights, drawing where ``sampling`` says so.

        Returns:
            The weights of the choices, by the names and of the shapes of ``alpha``. A circuit runs
            with them if it is called with them.

        Raises:
            CircuitError: as :meth:`logits`.
        """
        return {name: self._weights(logits) for name, logits in self.logits().items()}

    @refuses(CircuitError)
    def _given(self, mixture: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Return a mixture that was given, if it is one of this circuit, or make one."""
        if mixture is None:
            return self.mixture()
        shapes = {name: tuple(alpha.shape) for name, alpha in self.alpha.items()}
        given = {name: tuple(weights.shape) for name, weights in mixture.items()}
        if given != shapes:
            raise CircuitError(f"a mixture has weights of shapes {shapes} here, got {given}")
        return mixture

    def _weights(self, logits: Tensor) -> Tensor:
        if self.training:
            return sampled_weights(logits, self._temperature, self.sampling)
        soft = self.sampling in ("softmax", "gumbel")
        return torch.softmax(logits, -1) if soft else one_hot(logits.argmax(-1), logits)

    @refuses(CircuitError)
    def log_probability(self, mixture: dict[str, Tensor]) -> Tensor:
        """Give the log-probability with which the softmax draws these choices.

        Args:
            mixture: One-hot weights, as :meth:`mixture` draws them for ``"score-function"``.

        Returns:
            Shape (), with its gradient to alpha.
        """
        parts = [
            (mixture[name] * torch.log_softmax(logits, -1)).sum()
            for name, logits in self.logits().items()
        ]
        return torch.stack(parts).sum() if parts else torch.zeros(())

    def entropy(self) -> Tensor:
        """Tell how undecided the slots are: the mean entropy of the softmax, over its maximum.

        Returns:
            Shape (), from 0 (every slot has decided) to 1 (every choice is as likely).
        """
        parts = []
        for logits in self.logits().values():
            logs = torch.log_softmax(logits, -1)
            nats = -(logs.exp() * logs).sum(-1)
            parts.append((nats / math.log(max(2, logits.shape[-1]))).flatten())
        return torch.cat(parts).mean() if parts else torch.zeros(())


def sampled_weights(logits: Tensor, temperature: Tensor, sampling: Sampling) -> Tensor:
    """Turn logits, which the temperature has divided, into weights, as :class:`Relaxation` says."""
    if sampling == "score-function":
        shares = torch.softmax(logits.detach(), -1)
        drawn = torch.multinomial(shares.view(-1, shares.shape[-1]), 1)
        return one_hot(drawn.view(shares.shape[:-1]), shares)
    if sampling == "softmax":
        return torch.softmax(logits, -1)
    noise = -torch.empty_like(logits).exponential_().log()  # Gumbel's
    soft = torch.softmax(logits + noise / temperature, -1)
    if sampling == "gumbel":
        return soft
    return one_hot(soft.argmax(-1), soft) + soft - soft.detach()


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    """Give 1 at an index along the last axis, 0 elsewhere, in the shape and dtype of ``like``."""
    return nn.functional.one_hot(index, like.shape[-1]).to(like.dtype)


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
        done = step.step / step.steps
        for circuit in relaxed:
            circuit.temperature = first ** (1 - done) * last**done

    return cool
