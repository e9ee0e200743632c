"""What moves the logits of a relaxed circuit during a search (chapter 06)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .bilevel import hypergradient
from .errors import SearchError, check_finite, check_positive, check_type
from .relaxation import Relaxation

Data = tuple[Tensor, Tensor]
Method = Literal["joint", "first-order", "second-order", "implicit", "score-function"]


class Architect:
    """Moves the logits of all relaxed circuits of a network."""

    def __init__(
        self,
        net: nn.Module,
        method: Method,
        learning_rate: float,
        options: dict[str, Any],
        optimizer: Callable[..., torch.optim.Optimizer],
    ) -> None:
        check_type(SearchError, nn.Module, net=net)
        found = {k: m for k, m in net.named_modules() if isinstance(m, Relaxation)}
        names = [
            f"{path}.{name}".lstrip(".")
            for path, circuit in found.items()
            for name in circuit.architecture_parameters
        ]
        self.circuits = list(found.values())
        self.names = [name for name in names if net.get_parameter(name).requires_grad]
        if not self.names:
            raise SearchError("there is no architecture to search: no trainable logits alpha")
        if method not in get_args(Method):
            raise SearchError(f"method must be one of {list(get_args(Method))}, got {method!r}")
        for circuit in self.circuits:
            if (method == "score-function") != (circuit.sampling == "score-function"):
                raise SearchError(
                    f"the method is {method!r} and the circuit's sampling {circuit.sampling!r}: "
                    f"'score-function' needs and is needed by 'score-function'"
                )
        check_positive(architecture_learning_rate=learning_rate)
        self.method, self.options = method, options
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
            gradient = self._hypergradient(net, loss, train, validation, rate)
        for alpha, part in zip(self.alpha, gradient, strict=True):
            alpha.grad = part
        self.optimizer.step()

    def _hypergradient(
        self, net: nn.Module, loss: Any, train: Data, validation: Data, rate: float
    ) -> tuple[Tensor, ...]:
        theta = {
            name: parameter
            for name, parameter in net.named_parameters()
            if parameter.requires_grad and parameter.numel() and name not in self.names
        }

        def on(data: Data, theta_now: Any, alpha_now: Any) -> Tensor:
            both = dict(zip([*theta, *self.names], [*theta_now, *alpha_now], strict=True))
            return _judged(net, loss, data, both)

        options = dict(self.options)
        if self.method == "second-order" or options.get("solver") == "neumann":
            options.setdefault("learning_rate", rate)
        losses = partial(on, train), partial(on, validation)
        return hypergradient(self.method, *losses, tuple(theta.values()), self.alpha, **options)

    def _score_function(self, net: nn.Module, loss: Any, data: Data, step: int) -> Any:
        """Multiply the loss of drawn circuits by the gradient of the draw's log-probability."""
        with ExitStack() as held:
            drawn = [circuit.mixture() for circuit in self.circuits]
            for circuit, mixture in zip(self.circuits, drawn, strict=True):
                held.enter_context(circuit.register_forward_pre_hook(partial(_run_with, mixture)))
            # With gradients on, since the network would otherwise keep the weights of one draw.
            value = _judged(net, loss, data, {}).item()
        check_finite(value, "validation loss", step)
        before = value if self.baseline is None else self.baseline
        self.baseline = 0.9 * before + 0.1 * value
        pairs = zip(self.circuits, drawn, strict=True)
        logs = torch.stack([circuit.log_probability(mixture) for circuit, mixture in pairs])
        surrogate = (value - before) * logs.sum()
        return torch.autograd.grad(surrogate, self.alpha, materialize_grads=True)


def _judged(net: nn.Module, loss: Any, data: Data, parameters: dict[str, Tensor]) -> Tensor:
    """Measure the loss with these parameters.

    Running statistics, as of a BatchNorm, follow the batches that the network is trained on: here
    copies of all buffers are changed in their place.
    """
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    value: Tensor = loss(functional_call(net, parameters | buffers, (data[0],)), data[1])
    return value


def _run_with(mixture: dict[str, Tensor], _circuit: nn.Module, _arguments: Any) -> Any:
    """Let a circuit run with this mixture in place of one that it draws itself."""
    return (mixture,)
