"""Loops that train a network, and that search for an architecture while they do (chapter 06)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .architect import Architect, Data, Method, check_finite, check_positive
from .errors import SearchError
from .record import Record, Run, Step
from .relaxation import Relaxation


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
    learning_rate: float = 3e-2,
    schedule: Callable[[float], float] = warm_up_and_cosine,
    clip_norm: float = 1.0,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    temperature: tuple[float, float] | None = None,
    evaluate_every: int = 25,
    patience: int | None = None,
    on_step: Callable[[Step], object] | None = None,
    progress: bool = True,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = 100,
    generator: torch.Generator | None = None,
    architect: Architect | None = None,
) -> Run:
    """Train every parameter of a network, in place, on random batches.

    Ctrl-C ends the run and keeps what was learned. The global random generators are left as they
    were: everything random, dropout included, follows from ``generator``.

    Args:
        net: A :class:`~qtdqas_lite.GeneratedNetwork`, or any other module.
        train: Inputs and labels; both have the examples along their first axis.
        validation: The same, for the validation loss.
        loss: Turns outputs and labels into a number.
        steps: How many updates, at least 1.
        batch_size: How many different examples a step draws; all if there are fewer.
        learning_rate: The highest learning rate, above 0.
        schedule: What it is multiplied with, from the part of the run that is done (0 to 1).
        clip_norm: The largest norm that a gradient keeps, above 0.
        optimizer: Called with the parameters and ``lr``.
        temperature: The first and the last temperature of a relaxed circuit; in between it changes
            by the same factor in each step.
        evaluate_every: How many steps lie between two measurements of the validation loss.
        patience: End after so many measurements without a better one, and go back to the best.
        on_step: Called with a :class:`Step` after each step.
        progress: Whether to show a progress bar.
        checkpoint: A file to resume from, if it is there, and to save to. A resumed run gives the
            same as one that was never interrupted, bit for bit.
        checkpoint_every: How many steps lie between two savings; Ctrl-C can come in the middle of
            a step, so it adds none.
        generator: Where the seed of the run is drawn from; torch's global one by default.
        architect: What moves the logits of a relaxed circuit; :func:`search` makes it.

    Returns:
        The network, the history and how the run ended.

    Raises:
        SearchError: if an argument is not as described, or a loss or a gradient is not finite; the
            network is then as it was before that step.
        CheckpointError: if the checkpoint is damaged or belongs to another run.
    """
    counts: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "evaluate_every": evaluate_every,
    }
    counts |= {"checkpoint_every": checkpoint_every, "patience": patience}
    _check(train, validation, counts, learning_rate=learning_rate, clip_norm=clip_norm)
    skip = () if architect is None else architect.names
    parameters = [p for k, p in net.named_parameters() if p.requires_grad and k not in skip]
    if not parameters:
        raise SearchError("there is nothing to train: no parameter requires a gradient")
    descents = [optimizer(parameters, lr=learning_rate)]
    moving = descents[:]
    if architect is not None:
        descents.append(architect.descent)
        moving = descents if architect.method == "joint" else moving
    relaxed = next((m for m in net.modules() if isinstance(m, Relaxation)), None)
    if temperature is not None:
        if relaxed is None:
            raise SearchError("there is no relaxed circuit whose temperature could change")
        if not isinstance(temperature, tuple | list) or len(temperature) != 2:
            raise SearchError(f"temperature must be a pair, (first, last), got {temperature!r}")
        check_positive(first_temperature=temperature[0], last_temperature=temperature[1])
    if patience is not None and validation is None:
        raise SearchError("patience needs validation data to be measured on")
    if not isinstance(generator, torch.Generator | None):
        raise SearchError(f"generator must be a torch.Generator, got {generator!r}")
    settings: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    settings |= {"clip_norm": clip_norm, "temperature": temperature, "method": None}
    if architect is not None:
        settings["method"] = architect.method
        settings["architecture_learning_rate"] = architect.learning_rate
    for name, part in (("train", train), ("validation", validation)):
        settings[name] = None if part is None else [_fingerprint(tensor) for tensor in part]
    record = Record(net, descents, settings, architect)
    ended = "finished"
    with _isolated(generator, parameters[0].device):
        if checkpoint is not None and Path(checkpoint).exists():
            record.load(checkpoint)
        bar = tqdm(total=steps, initial=len(record.history), disable=not progress, leave=False)
        try:
            for step in range(len(record.history) + 1, steps + 1):
                if patience is not None and record.since_best >= patience:
                    ended = "early"
                    break
                done = (step - 0.5) / steps
                rate = learning_rate * schedule(done)
                if temperature is not None and relaxed is not None:
                    relaxed.temperature = temperature[0] ** (1 - done) * temperature[1] ** done
                batch = _batch(train, batch_size)
                if architect is not None and validation is not None:
                    architect.step(net, loss, batch, _batch(validation, batch_size), rate, step)
                value = _descend(net, loss, batch, moving, rate, clip_norm, step)
                state = Step(
                    step=step,
                    steps=steps,
                    loss=value,
                    validation_loss=None,
                    learning_rate=rate,
                    temperature=None if relaxed is None else relaxed.temperature,
                    entropy=None if relaxed is None else relaxed.entropy().item(),
                    net=net,
                )
                if validation is not None and (step % evaluate_every == 0 or step == steps):
                    state.validation_loss = _evaluate(net, loss, validation)
                record.add(state, keep_best=patience is not None)
                if on_step is not None:
                    on_step(state)
                if checkpoint is not None and (step % checkpoint_every == 0 or step == steps):
                    record.save(checkpoint)
                bar.set_postfix(loss=f"{value:.3g}", refresh=False)
                bar.update()
                if state.stop:
                    ended = "stopped"
                    break
            if checkpoint is not None and ended != "finished":
                record.save(checkpoint)
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            bar.close()
    record.restore_best()
    return Run(net, record.history, ended)


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
            sampling, or as :func:`fit`.
        CheckpointError: as :func:`fit`.
    """
    architect = Architect(net, method, architecture_learning_rate, method_options or {}, optimizer)
    return fit(net, train, validation, optimizer=optimizer, architect=architect, **options)


def _descend(
    net: nn.Module,
    loss: Any,
    batch: Data,
    descents: list[torch.optim.Optimizer],
    rate: float,
    clip_norm: float,
    step: int,
) -> float:
    """Move the parameters of all descents once, unless something is not finite."""
    net.zero_grad()
    value = loss(net(batch[0]), batch[1])
    check_finite(value.item(), "training loss", step)
    value.backward()
    for descent in descents:
        parameters = [p for group in descent.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        check_finite(norm.item(), "gradient's norm", step)
    for group in descents[0].param_groups:
        group["lr"] = rate
    for descent in descents:
        descent.step()
    return float(value.item())


@torch.no_grad()
def _evaluate(net: nn.Module, loss: Any, data: Data) -> float:
    """Measure the mean loss on all examples, in eval mode."""
    training = net.training
    net.eval()
    try:
        parts = zip(torch.split(data[0], 4096), torch.split(data[1], 4096), strict=True)
        return float(sum(loss(net(x), y).item() * len(x) for x, y in parts) / len(data[0]))
    finally:
        net.train(training)


def _fingerprint(tensor: Tensor) -> list[Any]:
    # Enough to tell one data set from another.
    return [list(tensor.shape), float(tensor.double().nansum())]


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


def _check(train: Data, validation: Data | None, whole: dict[str, Any], **above: Any) -> None:
    for what, data in (("train", train), ("validation", validation)):
        if data is None and what == "validation":
            continue
        if (
            not isinstance(data, tuple | list)
            or len(data) != 2
            or not all(isinstance(part, Tensor) and part.dim() for part in data)
        ):
            raise SearchError(
                f"{what} must be a pair of tensors, inputs and labels, got {type(data).__name__}"
            )
        if not len(data[0]) or len(data[0]) != len(data[1]):
            raise SearchError(
                f"{what} has {len(data[0])} inputs and {len(data[1])} labels; give at least one of "
                f"each, as many of one as of the other"
            )
    for name, value in whole.items():
        if value is not None and (type(value) is not int or value < 1):
            raise SearchError(f"{name} must be a whole number of at least 1, got {value!r}")
    check_positive(**above)
