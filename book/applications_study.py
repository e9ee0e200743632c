"""The applications of chapters 08 to 10 at full size: what their tables hold, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import torch

from qtdqas_lite import Candidate, SearchSpace, paper_space
from qtdqas_lite.tasks.classification import classify, digits_cnn, mlp
from qtdqas_lite.tasks.environments import evaluate
from qtdqas_lite.tasks.forecasting import train_forecaster
from qtdqas_lite.tasks.images import Images, digits
from qtdqas_lite.tasks.reinforcement import train_agent

SEEDS = range(1, 6)

Row = dict[str, Any]


def circuit_options(number: int | None = None, sharing: str | None = None) -> Row:
    """Say how a circuit is made; what is None is left as it is by default.

    The number, from 1 to 12, stands for the gates of one of the paper's circuits.
    """
    options: Row = {} if sharing is None else {"sharing": sharing}
    if number is not None:
        one = list(paper_space(1, 1))[number - 1]
        options |= {"hadamard": one.hadamard, "entangler": one.entanglers[0]}
        options |= {"rotation": one.rotations[0][0]}
    return options


def with_found(row: Row, net: Any, train: Callable[[Candidate], Row], score: str) -> Row:
    """Add what a search has found in a network, and the score when that is trained anew.

    Where nothing was searched, both columns stay empty.
    """
    retrained = f"retrained_{score.split('_')[-1]}"
    if not row["architecture"]:
        return row | {"found": None, retrained: None}
    found = net.circuit.architecture()
    return row | {"found": found.to_json(), retrained: train(found)[score]}


# --- Classification

TARGETS: dict[str, Callable[[], torch.nn.Module]] = {
    "digits mlp": lambda: mlp(64, 32, 10),
    "digits cnn": digits_cnn,
    "digits small mlp": lambda: mlp(64, 5, 10),
    "1 against 5": lambda: mlp(784, 128, 64, 2),
}


@cache
def images(task: str) -> Images:
    """Give the images of a task; every seed has the same parts."""
    return digits((1, 5), side=28) if task == "1 against 5" else digits()


def classification(
    task: str,
    kind: str,
    seed: int,
    *,
    number: int | None = None,
    sharing: str | None = None,
    gain: float = 2.0,
    **options: Any,
) -> Row:
    """Train one network; what a search has found is trained anew from fresh angles.

    The kind ``"random"`` is one architecture from the space that ``sharing="qubit"`` searches.
    """
    torch.set_num_threads(1)
    data, make = images(task), TARGETS[task]
    circuit = circuit_options(number, sharing)
    options |= {"seed": seed, "network": {"gain": gain}}
    what: Any = kind
    if kind == "random":
        space = SearchSpace(12, options["n_layers"], sharing="qubit")
        what, circuit = space.sample(1, generator=torch.Generator().manual_seed(seed))[0], {}
    outcome = classify(data, make, what, circuit=circuit, **options)
    row = {"task": task, "number": number, "sharing": sharing, "gain": gain, **outcome.row}
    row["kind"] = kind

    def again(found: Candidate) -> Row:
        return classify(data, make, found, **{**options, "method": "joint"}).row

    return with_found(row, outcome.run.net, again, "test_accuracy")


def classification_plan() -> list[Row]:
    """List the configurations: every network at about the same number of trained numbers."""
    mlp_, cnn, pair = (
        {"task": name, "steps": steps}
        for name, steps in (("digits mlp", 800), ("digits cnn", 800), ("1 against 5", 200))
    )
    searches = ("joint", "first-order")
    configurations = [
        {**mlp_, "kind": "fixed", "n_layers": 32},
        {**mlp_, "kind": "frozen", "n_layers": 32, "hidden": 26},
        *({**mlp_, "kind": "ensemble", "n_layers": 32, "method": m} for m in searches),
        *(
            {**mlp_, "kind": "relaxed", "n_layers": layers, "sharing": sharing, "method": m}
            for (layers, sharing), m in product([(32, "global"), (8, "qubit")], searches)
        ),
        {**mlp_, "kind": "random", "n_layers": 8},
        {**mlp_, "kind": "plain"},
        {**mlp_, "task": "digits small mlp", "kind": "plain"},
        {**cnn, "kind": "fixed", "n_layers": 35, "gain": 1.5},
        {**cnn, "kind": "plain"},
        {**pair, "kind": "fixed", "n_layers": 15},
        {**pair, "kind": "frozen", "n_layers": 15, "learning_rate": 0.1},
        *({**pair, "kind": "ensemble", "n_layers": 15, "method": m} for m in searches),
        {**pair, "kind": "relaxed", "n_layers": 15, "sharing": "global"},
        {**pair, "kind": "plain"},
        *({**pair, "kind": "fixed", "n_layers": 15, "number": k} for k in range(1, 13)),
    ]
    return [{**one, "seed": seed} for seed, one in product(SEEDS, configurations)]


# --- Forecasting

STEPS = {"damped-motion": 1500, "delayed-control": 1500}
SERIES = ("bessel", "damped-motion", "delayed-control", "narma-5", "narma-10", "sunspots")
SUNSPOT_CYCLE = 11  # years


def forecasting(
    series: str,
    kind: str,
    seed: int,
    *,
    number: int | None = None,
    sharing: str | None = None,
    gain: float = 2.0,
    **options: Any,
) -> Row:
    """Train one forecaster; what a search has found is trained anew from fresh angles."""
    torch.set_num_threads(1)
    options |= {"seed": seed, "period": SUNSPOT_CYCLE if series == "sunspots" else None}
    options |= {"network": {"gain": gain}}
    circuit = circuit_options(number, sharing)
    done = train_forecaster(series, kind, circuit=circuit, **options)  # type: ignore[arg-type]
    row = {"number": number, "sharing": sharing, "gain": gain, **done.row}

    def again(found: Candidate) -> Row:
        return train_forecaster(series, found, **{**options, "method": "joint"}).row

    return with_found(row, done.run.net, again, "test_mse")


def forecasting_plan() -> list[Row]:
    """List the configurations: the paper's sizes, and its twelve circuits one by one."""
    kinds = [
        {"kind": "fixed"},
        {"kind": "frozen", "hidden": 8, "gain": 0.5},
        {"kind": "ensemble", "method": "joint"},
        {"kind": "ensemble", "method": "first-order"},
        {"kind": "relaxed", "sharing": "global", "method": "joint"},
        {"kind": "relaxed", "sharing": "qubit", "method": "joint"},
        {"kind": "plain", "learning_rate": 1e-2},
        *({"kind": "fixed", "number": number} for number in range(1, 13)),
    ]
    return [
        {"series": series, "steps": STEPS.get(series, 400), **kind, "seed": seed}
        for seed, series, kind in product(SEEDS, SERIES, kinds)
    ]


# --- Reinforcement learning

ROOMS = ("MiniGrid-Empty-5x5-v0", "MiniGrid-Empty-6x6-v0")
ENVIRONMENTS = ("CartPole-v1", *ROOMS)
CURVE_POINTS = 40


def curve(episodes: list[Row], total_steps: int) -> list[float | None]:
    """Give the mean return of the episodes that ended in each part of the training; None: none."""
    parts: list[list[float]] = [[] for _ in range(CURVE_POINTS)]
    for episode in episodes:
        place = (episode["step"] - 1) * CURVE_POINTS // total_steps
        parts[min(place, CURVE_POINTS - 1)].append(episode["return"])
    return [sum(part) / len(part) if part else None for part in parts]


def reinforcement(
    environment: str, kind: str, seed: int, *, number: int | None = None, **options: Any
) -> Row:
    """Train one agent; what its policy's search has found is trained anew from fresh angles.

    The kind ``"random"`` draws its actions and learns nothing; ``"small plain"`` has one hidden
    unit in each network, so that in the rooms 312 weights stand against an ensemble's 314 numbers.
    """
    torch.set_num_threads(1)
    if kind == "random":
        measured = evaluate(None, environment, seed=1000 * seed + 500)
        row = {"environment": environment, "kind": kind, "method": "none", "seed": seed}
        row |= {"mean_return": measured.mean_return, "ended": "finished"}
        return row | {"terminated": measured.terminated, "truncated": measured.truncated}
    options |= {"seed": seed}
    what: Any = kind
    if kind == "small plain":
        what, options["hidden"] = "plain", (1,)
    agent = train_agent(environment, what, circuit=circuit_options(number), **options)
    row = {"number": number, **agent.row, "kind": kind, "ended": "finished"}
    row["curve"] = json.dumps(curve(agent.curve, row["total_steps"]))

    def again(found: Candidate) -> Row:
        return train_agent(environment, found, **{**options, "method": "joint"}).row

    return with_found(row, agent.policy, again, "mean_return")


def reinforcement_plan() -> list[Row]:
    """List the configurations: the paper's sizes in MiniGrid and CartPole, and its twelve."""
    kinds = [
        {"kind": "fixed"},
        {"kind": "ensemble", "method": "joint"},
        {"kind": "relaxed", "method": "joint"},
        {"kind": "plain"},
        {"kind": "random"},
        {"kind": "frozen"},
        {"kind": "ensemble", "method": "first-order"},
    ]
    in_rooms: list[Row] = [{"kind": "fixed", "number": number} for number in range(1, 13)]
    in_rooms += [{"kind": "small plain"}]
    return [
        {"environment": environment, **kind, "seed": seed}
        for seed in SEEDS
        for kind, environment in (*product(kinds, ENVIRONMENTS), *product(in_rooms, ROOMS))
    ]
