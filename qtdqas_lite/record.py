"""The record of a training run: its history, its best state, and what resuming it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from .architect import Architect
from .checkpoint import read_file, write_file
from .circuits import Candidate
from .errors import CheckpointError


@dataclass
class Step:
    """Where a run stands after a step: what ``on_step`` is called with.

    Attributes:
        step: The steps done so far.
        steps: The steps that were asked for.
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


@dataclass(frozen=True)
class Run:
    """What a run gives back.

    Attributes:
        net: The network that was passed, trained in place.
        history: One row a step, as a dict: pandas.DataFrame(history) is a tidy table.
        ended: ``"finished"``, ``"early"`` (no better for ``patience`` measurements),
            ``"stopped"`` (by ``on_step``) or ``"interrupted"`` (by Ctrl-C).
    """

    net: nn.Module = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    ended: str

    @property
    def architecture(self) -> Candidate:
        """The architecture that the network's circuit has, or that its search has found so far."""
        candidate: Candidate = self.net.circuit.architecture()  # type: ignore[operator, union-attr]
        return candidate


class Record:
    """The history of a run, its best state so far, and all that resuming it takes."""

    def __init__(
        self,
        net: nn.Module,
        descents: list[torch.optim.Optimizer],
        settings: dict[str, Any],
        architect: Architect | None,
    ) -> None:
        self.net, self.descents, self.settings, self.architect = net, descents, settings, architect
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    @property
    def since_best(self) -> int:
        """How many measurements of the validation loss there were since the best one."""
        losses = [r["validation_loss"] for r in self.history if r["validation_loss"] is not None]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

    def add(self, state: Step, *, keep_best: bool) -> None:
        """Write a row, and keep the network's state if it is the best so far."""
        kept = [f.name for f in fields(state) if f.name not in ("steps", "net", "stop")]
        self.history.append({name: getattr(state, name) for name in kept})
        if keep_best and state.validation_loss is not None and self.since_best == 0:
            self.best = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def restore_best(self) -> None:
        """Go back to the best measured state, if one was kept."""
        if self.best:
            self.net.load_state_dict(self.best)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to a file."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()} | _random_state()
        numbers = {"baseline": None if self.architect is None else self.architect.baseline}
        for which, descent in enumerate(self.descents):
            for index, values in descent.state_dict()["state"].items():
                for key, value in values.items():
                    place = f"descent.{which}.{index}.{key}"
                    (tensors if isinstance(value, Tensor) else numbers)[place] = value
        header = {"settings": self.settings, "history": self.history, "numbers": numbers}
        write_file(path, "run", header, tensors)

    def load(self, path: str | PathLike[str]) -> None:
        """Read what :meth:`save` wrote, and go on from there."""
        kinds = {"settings": dict, "history": list, "numbers": dict}
        header, tensors = read_file(path, "run", kinds)
        there, here = header["settings"], json.loads(json.dumps(self.settings))
        for name in {**here, **there}:
            if there.get(name) != here.get(name):
                raise CheckpointError(
                    f"{path} is of another run: {name} is {there.get(name)} there, and "
                    f"{here.get(name)} here; delete it, or name another file"
                )
        try:
            kinds_of_parts = ("net", "best", "random", "descent", "baseline")
            parts: dict[str, dict[str, Any]] = {part: {} for part in kinds_of_parts}
            for name, tensor in (tensors | header["numbers"]).items():
                part, _, rest = name.partition(".")
                parts[part][rest] = tensor
            self.net.load_state_dict(parts["net"])
            for which, descent in enumerate(self.descents):
                state: dict[int, dict[str, Any]] = {}
                for name, value in parts["descent"].items():
                    place, index, key = name.split(".", 2)
                    if int(place) == which:
                        state.setdefault(int(index), {})[key] = value
                descent.load_state_dict({**descent.state_dict(), "state": state})
            if self.architect is not None:
                self.architect.baseline = parts["baseline"][""]
            _set_random_state(parts["random"])
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} belongs to another run or is damaged: {error}"
            ) from error
        self.history, self.best = header["history"], parts["best"]


def _random_state() -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random.cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
