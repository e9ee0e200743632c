"""Growth: ordinary training says which closed gate to open next (chapter 07)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from .errors import SearchError, check_callable, check_positive, check_whole
from .growing_circuit import GrowingCircuit
from .training import Data, Run, Step, fit

Rule = Literal["slope", "random"]
#: How much of the averaged slopes stays from one step to the next.
MEMORY = 0.9


class Growth:
    """Opens slots while something else trains the network: :func:`grow` is built on it.

    Inside of its block, call it after every step of an optimiser, as ``on_step`` of :func:`.fit`
    or from a hook of the optimiser, where a library runs the loop (stable-baselines3, say, whose
    callbacks hear of steps of the environment and not of the optimiser; ``model`` is its agent)::

        with Growth(net.circuit, n_angles=30) as growth:
            fit(net, train, steps=400, on_step=growth)

        with Growth(net.circuit, n_angles=30) as growth:
            hook = model.policy.optimizer.register_step_post_hook(lambda *_: growth())
            model.learn(10_000)
            hook.remove()

    Policy and value each take a Growth of their own, called from one hook.

    Attributes:
        circuit: The circuit.
        choices: What was opened, in that order: dicts of ``step``, ``layer``, ``axis``, ``wire``,
            ``slope`` (the average that it was chosen for), ``loss_before`` and ``loss_after`` (the
            mean losses of the steps since the choice before, and until the next one; None where
            they are not known).
    """

    def __init__(
        self,
        circuit: nn.Module,
        n_angles: int,
        *,
        rule: Rule = "slope",
        steps_each: int = 10,
        reopen: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Prepare the growth; for the arguments and errors see :func:`grow`."""
        if not isinstance(circuit, GrowingCircuit):
            raise SearchError(
                f"only a GrowingCircuit can grow, and this circuit is a {type(circuit).__name__}"
            )
        if rule not in get_args(Rule):
            raise SearchError(f"rule must be one of {list(get_args(Rule))}, got {rule!r}")
        check_whole(SearchError, 1, steps_each=steps_each)
        check_whole(SearchError, 0, reopen=reopen)
        n_slots = circuit.is_open.numel()
        least = max(circuit.n_open, int(reopen > 0))
        if check_whole(SearchError, least, n_angles=n_angles) + bool(reopen) > n_slots:
            raise SearchError(
                f"n_angles={n_angles} slots cannot be open"
                f"{' with one more to choose' if reopen else ''}: the circuit has {n_slots}"
            )
        self.circuit, self.rule, self.generator = circuit, rule, generator
        self.steps_each, self.reopen = steps_each, reopen
        self.to_open = n_angles - circuit.n_open
        self.choices: list[dict[str, Any]] = []
        self._mean = torch.zeros_like(circuit.theta)
        self._losses: list[float] = []
        self._step = 0
        self._stack = ExitStack()
        self._slopes: torch.Tensor | None = None

    @property
    def n_steps(self) -> int:
        """How many steps it takes until the last slot has been opened."""
        return (self.to_open + self.reopen) * self.steps_each

    def __enter__(self) -> Self:
        self._slopes = self._stack.enter_context(self.circuit.slopes())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._slopes = None

    def __call__(self, step: Step | None = None) -> None:
        """Take the slopes of a step, and open a slot when it is time to.

        Raises:
            SearchError: if a slope is not finite, or this is called outside of the block.
        """
        if self._slopes is None:
            raise SearchError("call a Growth inside of its block: with Growth(...) as growth")
        with torch.no_grad():  # an optimiser's momentum still moves what has just been closed
            self.circuit.theta.masked_fill_(~self.circuit.is_open, 0.0)
        if self._step == self.n_steps:
            return
        self._step += 1
        if step is not None:
            self._losses.append(step.loss)
        if self._slopes.grad is None:  # no backward pass since the last call
            self._mean.mul_(MEMORY)
        else:
            if not self._slopes.grad.isfinite().all():
                raise SearchError(
                    f"a slope is not finite in step {self._step}; lower the learning rate, or look "
                    f"for NaN in the data"
                )
            self._mean.lerp_(self._slopes.grad, 1 - MEMORY)
            self._slopes.grad = None
        if self._step % self.steps_each == 0:
            self._close_and_open()
        if self._step == self.n_steps:
            self._stack.close()  # from here on, slopes would cost and serve nothing

    def _close_and_open(self) -> None:
        circuit, closed = self.circuit, ~self.circuit.is_open
        if len(self.choices) >= self.to_open:  # all are open: the smallest angle makes room
            sizes = circuit.theta.detach().abs().masked_fill(closed, torch.inf)
            circuit.close(*circuit.slot(int(sizes.argmin())))
        places = closed.flatten().nonzero()[:, 0]
        means = self._mean.flatten()[places]
        draw = torch.randint(len(places), (), generator=self.generator)
        chosen = int(draw) if self.rule == "random" else int(means.abs().argmax())
        slot = circuit.slot(int(places[chosen]))
        circuit.open(*slot)
        before = sum(self._losses) / len(self._losses) if self._losses else None
        if self.choices:
            self.choices[-1]["loss_after"] = before
        # The average started at 0, and that pulls all slopes down by the same factor.
        slope = means[chosen].item() / (1 - MEMORY**self._step)
        row = {"step": self._step, **slot._asdict(), "slope": slope}
        self.choices.append({**row, "loss_before": before, "loss_after": None})
        self._losses.clear()


def grow(
    net: nn.Module,
    train: Data,
    validation: Data | None = None,
    *,
    n_angles: int,
    rule: Rule = "slope",
    steps_each: int = 10,
    final_steps: int = 100,
    reopen: int = 0,
    learning_rate: float = 0.015,
    on_step: Callable[[Step], object] | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Run:
    """Train a network and open the slots of its circuit one by one, in place.

    Every ``steps_each`` steps, a slot is opened and trains along from then on. Which one: that
    with the steepest slope, averaged over the last steps (each slope counts 0.9 times as much as
    the one after it). No architecture is trained twice, and nothing is rounded at the end: the
    network that was grown is the result. In spirit ADAPT-VQE (Grimsley et al.,
    arXiv 1812.11173) and RigL (arXiv 1911.11134); that slopes are averaged over steps is from
    sparse momentum (arXiv 1907.04840).

    Args:
        net: A :class:`~qtdqas_lite.GeneratedNetwork` whose circuit is a :class:`GrowingCircuit`.
        train: As for :func:`~qtdqas_lite.fit`.
        validation: Likewise.
        n_angles: How many slots are to be open in the end, those open now included.
        rule: ``"slope"``, or ``"random"``: any closed slot. That is the control, to which nothing
            but the choice is different.
        steps_each: How many steps before each choice, at least 1.
        final_steps: How many steps after the last choice, at least 1; in these the learning rate
            falls to 0 along a cosine. Before, it stays the same.
        reopen: How many times more to choose, each time in place of the open slot with the
            smallest angle.
        learning_rate: Above 0.
        on_step: As for :func:`~qtdqas_lite.fit`; it is called after a slot has been opened.
        generator: Where the seed of the run, and random slots, are drawn from; torch's global one
            by default.
        options: ``loss``, ``batch_size`` and ``optimizer``, as for :func:`~qtdqas_lite.fit`.

    Returns:
        As :func:`~qtdqas_lite.fit`. Rows of the history in whose step a slot was opened tell of it:
        ``layer``, ``axis``, ``wire``, ``slope``, ``loss_before``, ``loss_after``, as in
        :class:`Growth`; in other rows these are None.

    Raises:
        SearchError: if an argument is not as described, the circuit cannot grow or has too few
            slots, a slope is not finite, or as :func:`~qtdqas_lite.fit`.
    """
    check_positive(learning_rate=learning_rate)
    check_whole(SearchError, 1, final_steps=final_steps)
    check_callable(SearchError, on_step=print if on_step is None else on_step)
    circuit: Any = getattr(net, "circuit", net)
    with Growth(
        circuit, n_angles, rule=rule, steps_each=steps_each, reopen=reopen, generator=generator
    ) as growth:
        steps = growth.n_steps + final_steps

        def rate(progress: float) -> float:
            done = max(0.0, (progress * steps - growth.n_steps) / final_steps)
            return learning_rate * (1 + math.cos(math.pi * done)) / 2

        def after(step: Step) -> None:
            growth(step)
            if on_step is not None:
                on_step(step)

        options |= {"steps": steps, "learning_rate": rate, "on_step": after}
        run = fit(net, train, validation, generator=generator, **options)
    columns = ("layer", "axis", "wire", "slope", "loss_before", "loss_after")
    told = {choice["step"]: choice for choice in growth.choices}
    for row in run.history:
        row.update({name: told.get(row["step"], {}).get(name) for name in columns})
    return run
