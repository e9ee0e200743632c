"""Loops that train a network, and that search for an architecture while they do (chapter 06)."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .architect import Architect, Method
from .circuits import Candidate
from .errors import (
    SearchError,
    check_callable,
    check_data,
    check_finite,
    check_positive,
    check_type,
    check_whole,
)
from .relaxation import Relaxation
from .target import in_mode

Data = tuple[Tensor, Tensor]
#: Gradients are cut back to this norm: without that, a single step can end a training.
CLIP_NORM = 1.0
_LEFT_OUT = "steps", "net", "stop"  # of a step, in the history
#: How many steps lie between two measurements on validation data.
EVALUATE_EVERY = 25


@dataclass
class Step:
    """Where a run stands after a step: what ``on_step`` is called with.

    Attributes:
        step: The steps done so far, of ``steps``.
        loss: The loss on this step's training batch.
        validation_loss: The loss on all validation data, on steps where it was measured.
        learning_rate: The learning rate of this step.
        temperature: The temperature of a relaxed circuit.
        entropy: The entropy of a relaxed circuit's choices, from 0 to 1.
        net: The network that is trained.
        stop: Set it to end the run after this step.
    """

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    learning_rate: float
    temperature: float | None
    entropy: float | None
    net: nn.Module
    stop: bool = False

    def row(self) -> dict[str, Any]:
        """Give what the history keeps."""
        return {name: value for name, value in vars(self).items() if name not in _LEFT_OUT}


@dataclass(frozen=True)
class Run:
    """What a run gives back.

    Attributes:
        net: The network that was passed, trained in place.
        history: One row a step, as a dict: pandas.DataFrame(history) is a tidy table.
        ended: ``"finished"``, ``"stopped"`` (by ``on_step``) or ``"interrupted"`` (by Ctrl-C).
    """

    net: nn.Module = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    ended: str

    @property
    def architecture(self) -> Candidate:
        """The architecture that the network's circuit has, or that its search has found so far."""
        candidate: Candidate = self.net.circuit.architecture()  # type: ignore[operator, union-attr]
        return candidate


def warm_up_and_cosine(progress: float) -> float:
    """Scale the learning rate: from 0 up to 1 in the first 5 %, then down to 0 along a cosine.

    Args:
        progress: The part of the run that is done, from 0 to 1.
    """
    if progress < 0.05:
        return progress / 0.05
    return (1 + math.cos(math.pi * (progress - 0.05) / 0.95)) / 2


def fit(
    net: nn.Module,
    train: Data,
    validation: Data | None = None,
    *,
    loss: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
    steps: int = 400,
    batch_size: int = 128,
    learning_rate: float | Callable[[float], float] = 3e-2,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    on_step: Callable[[Step], object] | None = None,
    generator: torch.Generator | None = None,
) -> Run:
    """Train every parameter of a network, in place, on random batches.

    A network in eval mode is trained in training mode, and is in eval mode again afterwards.
    Gradients are cut back to norm 1. Ctrl-C ends the run and keeps what was learned. The global
    random generators are left as they were: everything random, dropout included, follows from
    ``generator``.

    Args:
        net: A :class:`~qtdqas_lite.GeneratedNetwork`, or any other module.
        train: Inputs and labels; both have the examples along their first axis.
        validation: The same, for the validation loss: measured every 25 steps and at the end.
        loss: Turns outputs and labels into a number.
        steps: How many updates, at least 1.
        batch_size: How many different examples a step draws; all if there are fewer.
        learning_rate: The highest learning rate, above 0, which :func:`.warm_up_and_cosine` scales;
            or a function that gives the learning rate for the part of the run that is done, 0 to 1.
        optimizer: Called with the parameters and ``lr``. Where it makes groups with rates of their
            own, each is scaled by the same factor. LBFGS and schedule-free ones are refused.
        on_step: Called with a :class:`Step` after each step.
        generator: Where the seed of the run is drawn from; torch's global one by default.

    Returns:
        The network, the history and how the run ended.

    Raises:
        SearchError: if an argument is not as described; if a loss or a gradient is not finite, with
            the parameters as they were before that step; or if the last step has lost them.
    """
    options: dict[str, Any] = {"loss": loss, "steps": steps, "batch_size": batch_size}
    options |= {"learning_rate": learning_rate, "optimizer": optimizer, "on_step": on_step}
    return _run(net, train, validation, None, generator=generator, **options)


def search(
    net: nn.Module,
    train: Data,
    validation: Data,
    *,
    method: Method = "first-order",
    architecture_learning_rate: float = 3e-2,
    method_options: dict[str, Any] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    **options: Any,
) -> Run:
    """Train a network with a relaxed circuit, and its architecture with it, in place.

    In each step the logits alpha move first and everything else after them.

    Args:
        net: A :class:`~qtdqas_lite.GeneratedNetwork` whose circuit is a
            :class:`~qtdqas_lite.RelaxedCircuit` or a :class:`~qtdqas_lite.CircuitEnsemble`.
        train: Inputs and labels that everything but alpha is trained on.
        validation: Inputs and labels that alpha is judged on; ``"joint"`` only measures on them.
        method: Where the gradient of alpha comes from: ``"joint"``, ``"first-order"``,
            ``"second-order"`` and ``"implicit"`` are those of
            :func:`~qtdqas_lite.bilevel.hypergradient`; ``"score-function"`` (for a circuit with
            ``sampling="score-function"``) is the validation loss of the drawn circuit, less the
            mean of those before, times the gradient of the draw's log-probability.
        architecture_learning_rate: The learning rate of alpha, above 0; it stays the same.
        method_options: Passed to the hypergradient. For ``"second-order"`` and a Neumann series,
            ``learning_rate`` is by default that of the step.
        optimizer: Called with the parameters and ``lr``, once for alpha and once for the others.
        options: As for :func:`fit`.

    Returns:
        As :func:`fit`; ``architecture`` is what was found.

    Raises:
        SearchError: if there are no logits to train, the method does not fit the circuit's
            sampling, or as :func:`fit`; of the step that failed, the logits may have been moved.
    """
    architect = Architect(net, method, architecture_learning_rate, method_options or {}, optimizer)
    return _run(net, train, validation, architect, optimizer=optimizer, **options)


def _run(
    net: nn.Module,
    train: Data,
    validation: Data | None,
    architect: Architect | None,
    *,
    loss: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
    steps: int = 400,
    batch_size: int = 128,
    learning_rate: float | Callable[[float], float] = 3e-2,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    on_step: Callable[[Step], object] | None = None,
    generator: torch.Generator | None = None,
) -> Run:
    """Do what :func:`fit` and :func:`search` have in common."""
    check_data("train", train)
    if validation is not None:
        check_data("validation", validation)
    check_whole(SearchError, 1, 10**9, steps=steps, batch_size=batch_size)
    check_type(SearchError, torch.Generator, type(None), generator=generator)
    check_type(SearchError, nn.Module, net=net)
    hook: Any = (lambda _: None) if on_step is None else on_step
    check_callable(SearchError, loss=loss, optimizer=optimizer, on_step=hook)
    if callable(learning_rate):
        highest, schedule, nominal = 1.0, learning_rate, learning_rate(0.5) or 1.0
    else:
        check_positive(learning_rate=learning_rate)
        highest, schedule, nominal = learning_rate, warm_up_and_cosine, learning_rate
    logits = architect.names if architect else ()
    parameters = [p for k, p in net.named_parameters() if p.requires_grad and k not in logits]
    if not parameters:
        raise SearchError("there is nothing to train: no parameter requires a gradient")
    weights = optimizer(parameters, lr=nominal)
    closure = inspect.signature(weights.step).parameters["closure"].default
    if closure is inspect.Parameter.empty or hasattr(weights, "eval"):
        raise SearchError(f"{type(weights).__name__} needs a closure or has modes: use another")
    shares = [group["lr"] / nominal for group in weights.param_groups]
    together = architect is not None and architect.method == "joint"
    optimizers = [weights, architect.optimizer] if architect and together else [weights]
    relaxed = next((m for m in net.modules() if isinstance(m, Relaxation)), None)
    history: list[dict[str, Any]] = []
    ended = "finished"
    with _isolated(generator, parameters[0].device), in_mode(net, True):
        try:
            for step in range(1, steps + 1):
                rate = highest * schedule((step - 0.5) / steps)
                batch = _batch(train, batch_size)
                if architect is not None and validation is not None:
                    architect.step(net, loss, batch, _batch(validation, batch_size), rate, step)
                for group, share in zip(weights.param_groups, shares, strict=True):
                    group["lr"] = rate * share
                value = _descend(net, loss, batch, optimizers, step)
                temperature = None if relaxed is None else relaxed.temperature
                entropy = None if relaxed is None else relaxed.entropy().item()
                state = Step(step, steps, value, None, rate, temperature, entropy, net)
                if validation is not None and (step % EVALUATE_EVERY == 0 or step == steps):
                    state.validation_loss = _evaluate(net, loss, validation)
                history.append(state.row())
                hook(state)
                if state.stop:
                    ended = "stopped"
                    break
        except KeyboardInterrupt:
            ended = "interrupted"
    # No later loss tells of what the last step left.
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise SearchError("the last step left numbers that are not finite: lower the learning rate")
    return Run(net, history, ended)


def _descend(
    net: nn.Module, loss: Any, batch: Data, optimizers: list[torch.optim.Optimizer], step: int
) -> float:
    """Move the parameters of all optimisers once, unless something is not finite."""
    net.zero_grad()
    value = loss(net(batch[0]), batch[1])
    check_finite(value.item(), "training loss", step)
    value.backward()
    longest = CLIP_NORM
    for optimizer in optimizers:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, longest)
        check_finite(norm.item(), "gradient's norm", step)
        longest = math.inf  # logits are never cut back, whichever method moves them
    for optimizer in optimizers:
        optimizer.step()
    return float(value.item())


@torch.no_grad()
def _evaluate(net: nn.Module, loss: Any, data: Data) -> float:
    """Measure the loss on all examples, in eval mode."""
    with in_mode(net, False):
        outputs: Any = [net(part) for part in torch.split(data[0], 4096)]
        joined = all(isinstance(output, Tensor) for output in outputs)
        # Whatever else a network gives, its loss knows.
        outputs = torch.cat(outputs) if joined else net(data[0])
        return float(loss(outputs, data[1]).item())


def _batch(data: Data, size: int) -> Data:
    drawn = torch.randperm(len(data[0]))[:size].to(data[0].device)
    return data[0][drawn], data[1][drawn]


@contextlib.contextmanager
def _isolated(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and give them back as they were."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
