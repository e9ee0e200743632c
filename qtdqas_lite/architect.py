"""What moves the logits of a relaxed circuit during a search (chapter 06)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .bilevel import hypergradient
from .errors import SearchError, check_finite, check_positive
from .relaxation import Relaxation

Data = tuple[Tensor, Tensor]
Method = Literal["joint", "first-order", "second-order", "implicit", "score-function"]


class Architect:
    """Moves the logits of a relaxed circuit."""

    def __init__(
        self,
        net: nn.Module,
        method: Method,
        learning_rate: float,
        options: dict[str, Any],
        optimizer: Callable[..., torch.optim.Optimizer],
    ) -> None:
        found = [(k, m) for k, m in net.named_modules() if isinstance(m, Relaxation)]
        names = [f"{k}.{name}".lstrip(".") for k, m in found for name in m.architecture_parameters]
        self.names = [name for name in names if net.get_parameter(name).requires_grad]
        if not self.names:
            raise SearchError("there is no architecture to search: no trainable logits alpha")
        self.circuit = found[0][1]
        if method not in get_args(Method):
            raise SearchError(f"method must be one of {list(get_args(Method))}, got {method!r}")
        if (method == "score-function") != (self.circuit.sampling == "score-function"):
            raise SearchError(
                f"the method is {method!r} and the circuit's sampling {self.circuit.sampling!r}: "
                f"'score-function' needs and is needed by 'score-function'"
            )
        check_positive(architecture_learning_rate=learning_rate)
        self.method, self.options, self.learning_rate = method, options, learning_rate
        self.alpha = tuple(net.get_parameter(name) for name in self.names)
        self.optimizer = optimizer(list(self.alpha), lr=learning_rate)
        self.baseline: float | None = None

    def step(
        self, net: nn.Module, loss: Any, train: Data, validation: Data, rate: float, step: int
    ) -> None:
        """Move the logits once; with ``"joint"`` they wait for the gradient of the others."""
        if self.method == "joint":
            return
        if self.method == "score-function":
            gradient = self._score_function(net, loss, validation, step)
        else:
            others = {k: p for k, p in net.named_parameters() if p.requires_grad}
            theta = {k: p for k, p in others.items() if k not in self.names}

            def on(data: Data, theta_now: Any, alpha_now: Any) -> Tensor:
                both = dict(zip([*theta, *self.names], [*theta_now, *alpha_now], strict=True))
                value: Tensor = loss(functional_call(net, both, (data[0],)), data[1])
                return value

            options = dict(self.options)
            if self.method == "second-order" or options.get("solver") == "neumann":
                options.setdefault("learning_rate", rate)
            gradient = hypergradient(
                self.method,
                partial(on, train),
                partial(on, validation),
                tuple(theta.values()),
                self.alpha,
                **options,
            )
        for alpha, slope in zip(self.alpha, gradient, strict=True):
            alpha.grad = slope
        self.optimizer.step()

    def _score_function(self, net: nn.Module, loss: Any, data: Data, step: int) -> Any:
        value = loss(net(data[0]), data[1]).item()
        check_finite(value, "validation loss", step)
        before = value if self.baseline is None else self.baseline
        self.baseline = 0.9 * before + 0.1 * value
        surrogate = (value - before) * self.circuit.log_probability
        return torch.autograd.grad(surrogate, self.alpha, materialize_grads=True)
