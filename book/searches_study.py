"""A hundred searches a method: what `make results TASK=searches` runs (chapter 06).

Every method may spend the price of four trainings, counted in gradients, and gives one circuit. It
is trained anew from three fresh seeds, for a short time and a longer one. A method that has a
setting tries three of them, with seeds for nothing else, and the best on validation data is taken.
Each seed has its own split of the digits; the test part is looked at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from growth_study import Parts, Rates, Row, chosen_rates, images, rate_of
from torch import Tensor, nn

from qtdqas_lite import (
    Candidate,
    GeneratedNetwork,
    RelaxedCircuit,
    SearchSpace,
    Step,
    fit,
    paper_space,
    search,
    select,
)
from qtdqas_lite.diagnosis import same_probabilities
from qtdqas_lite.experiments import read_table
from qtdqas_lite.score import angle_score
from qtdqas_lite.tasks.classification import accuracy

TABLE = Path(__file__).resolve().parent.parent / "qtdqas_lite" / "results" / "searches.csv"
SEEDS, TUNING_SEEDS = range(1, 101), range(1001, 1006)
BUDGET = 320  # gradients of a search: four trainings of 80
LENGTHS = (80, 300)  # of what is trained anew, in steps of one gradient
LONG = (*LENGTHS, 1000)
RETRAININGS = 3
#: The learning rate of all angles, here and in the trainings: of four, it was the best in the mean
#: of eight circuits out of a hat, after 80 steps, and the second best after 300.
LEARNING_RATE = 0.1
#: What a step of each gradient search costs; implicit takes two products with the Hessian.
PRICES = {"joint": 1, "first-order": 2, "second-order": 4, "implicit": 6}
#: What a method with a setting tries: the rate of the logits, or the length of its trainings.
RATES, STEPS = (0.03, 0.1, 0.3), (40.0, 80.0, 160.0)
#: Logits of a choice that is closed. Its weight is exactly zero in single precision.
CLOSED = -200.0

SPACES: dict[str, SearchSpace] = {
    "coarse": SearchSpace(
        10,
        3,
        entanglers=("chain", "ring", "reversed", "stride", "cz-ring", "none"),
        sharing="layer",
    ),
    "paper": paper_space(10, 3),
}


def seeded(seed: int) -> torch.Generator:
    """Give a generator of this seed."""
    return torch.Generator().manual_seed(seed)


def network(circuit: nn.Module, seed: int) -> GeneratedNetwork:
    """Let a circuit write one linear layer of 650 weights."""
    torch.manual_seed(seed)
    return GeneratedNetwork(nn.Linear(64, 10), circuit, generator=seeded(seed))


def trained(candidate: Candidate, parts: Parts, seed: int, steps: int) -> GeneratedNetwork:
    """Train a circuit from fresh angles."""
    net = network(candidate.circuit(generator=seeded(seed)), seed)
    fit(net, parts[0], steps=steps, learning_rate=LEARNING_RATE, generator=seeded(seed))
    return net


@cache
def parts_of(seed: int) -> Parts:
    """Split the digits for a seed."""
    return images(seed)


# --- The methods


@dataclass
class Search:
    """A search in progress: a space, data, a seed and the method's setting."""

    space: SearchSpace
    parts: Parts
    seed: int
    setting: float
    relaxed: GeneratedNetwork | None = field(default=None, init=False)

    def network(self, **options: Any) -> GeneratedNetwork:
        """Make a network with a relaxed circuit of the space."""
        space = {name: getattr(self.space, name) for name in self.space.__dataclass_fields__}
        circuit = RelaxedCircuit(**space, **options, generator=seeded(self.seed))
        self.relaxed = network(circuit, self.seed)
        return self.relaxed

    def run(self, net: GeneratedNetwork, method: str, gradients: float, **options: Any) -> None:
        """Search for as many steps as some gradients pay for."""
        data = self.parts[0], self.parts[1]
        options |= {"architecture_learning_rate": self.setting, "generator": seeded(self.seed)}
        options["learning_rate"] = LEARNING_RATE
        if method == "implicit":
            options["method_options"] = {"damping": 1.0, "iterations": 2}
        steps = int(gradients / PRICES[method])
        search(net, *data, method=method, steps=steps, **options)


def plainly(one: Search, method: str, **options: Any) -> Candidate:
    """Search, and take the argmax."""
    net = one.network(**options)
    one.run(net, method, BUDGET)
    return chosen(net)


def chosen(net: GeneratedNetwork) -> Candidate:
    """Give the likeliest architecture of a network with a relaxed circuit."""
    circuit: Any = net.circuit
    candidate: Candidate = circuit.architecture()
    return candidate


def slots_of(net: GeneratedNetwork) -> list[Tensor]:
    """List the logits of every slot: views, shape (number of choices,)."""
    circuit: Any = net.circuit
    return [slot for one in circuit.alpha.values() for slot in one.view(-1, one.shape[-1])]


def from_small_angles(one: Search) -> Candidate:
    """Start near angle 0, where every rotation is nearly the identity."""
    net = one.network()
    circuit: Any = net.circuit
    with torch.no_grad():
        circuit.theta.mul_(0.03)
    one.run(net, "first-order", BUDGET)
    return chosen(net)


def after_warm_up(one: Search) -> Candidate:
    """Train the angles alone for a quarter of the price, in the undecided mixture."""
    net = one.network()
    circuit: Any = net.circuit
    alpha = list(circuit.alpha.values())
    for logits in alpha:
        logits.requires_grad_(False)
    options = {"learning_rate": LEARNING_RATE, "generator": seeded(one.seed)}
    fit(net, one.parts[0], steps=BUDGET // 4, **options)
    for logits in alpha:
        logits.requires_grad_(True)
    one.run(net, "first-order", 3 * BUDGET / 4)
    return chosen(net)


def shrinking(one: Search) -> Candidate:
    """Close the weaker half of every slot's choices after a third, and again after two thirds."""
    net = one.network()

    @torch.no_grad()
    def shrink(step: Step) -> None:
        if step.step not in (step.steps // 3, 2 * step.steps // 3):
            return
        for slot in slots_of(net):
            left = (slot > CLOSED / 2).nonzero()[:, 0]
            order = left[slot[left].argsort()]
            slot[order[: len(left) // 2]] = CLOSED

    one.run(net, "first-order", BUDGET, on_step=shrink)
    return chosen(net)


@torch.no_grad()
def by_perturbation(one: Search) -> Candidate:
    """Decide slot by slot for what is missed most, by the validation loss without it.

    Wang et al., arXiv 2108.04392, without training between the decisions. To try a choice costs a
    third of a gradient.
    """
    net = one.network()
    slots = slots_of(net)
    with torch.enable_grad():
        one.run(net, "first-order", BUDGET - sum(map(len, slots)) / 3)
    net.eval()
    inputs, labels = one.parts[1]
    for i in torch.randperm(len(slots), generator=seeded(one.seed)).tolist():
        slot, losses = slots[i], []
        for choice in range(len(slot)):
            before = slot.clone()
            slot[choice] = CLOSED
            losses.append(nn.functional.cross_entropy(net(inputs), labels).item())
            slot.copy_(before)
        kept = int(torch.tensor(losses).argmax())
        slot.fill_(CLOSED)[kept] = 0.0
    return chosen(net)


def by_training(one: Search, strategy: Literal["random", "successive-halving"]) -> Candidate:
    """Train candidates; the setting is the length of a full training."""

    def train(candidate: Candidate, steps: int, seed: int) -> float:
        net = trained(candidate, one.parts, seed, steps)
        return -accuracy(net, one.parts[1])

    steps = int(one.setting)
    found = select(
        one.space, train, strategy=strategy, budget=BUDGET, steps=steps, generator=seeded(one.seed)
    )
    return found.candidate


def by_score(one: Search, strategy: Literal["score", "score-ascent"]) -> Candidate:
    """Score candidates, at the price of four gradients each; nothing is trained."""
    found = select(
        one.space,
        None,
        strategy=strategy,
        budget=BUDGET,
        steps=LENGTHS[0],
        score_cost=4,
        generator=seeded(one.seed),
    )
    return found.candidate


def one_draw(one: Search) -> Candidate:
    """Take a circuit out of a hat."""
    return one.space.sample(1, generator=seeded(one.seed))[0]


@dataclass(frozen=True)
class Method:
    """How a method searches, and the settings that it tries."""

    run: Callable[[Search], Candidate]
    settings: tuple[float, ...] = ()


METHODS = {
    "first-order": Method(partial(plainly, method="first-order"), RATES),
    "random search": Method(partial(by_training, strategy="random"), STEPS),
    "one draw": Method(one_draw),
    "joint": Method(partial(plainly, method="joint"), RATES),
    "second-order": Method(partial(plainly, method="second-order"), RATES),
    "implicit": Method(partial(plainly, method="implicit"), RATES),
    "score ascent": Method(partial(by_score, strategy="score-ascent")),
    "successive halving": Method(partial(by_training, strategy="successive-halving"), STEPS),
    "score alone": Method(partial(by_score, strategy="score")),
    "separate angles": Method(partial(plainly, method="first-order", separate_angles=True), RATES),
    "small angles": Method(from_small_angles, RATES),
    "warm-up": Method(after_warm_up, RATES),
    "perturbation": Method(by_perturbation, RATES),
    "shrinking": Method(shrinking, RATES),
}


# --- One row


def retrained(candidate: Candidate, parts: Parts, seed: int, lengths: tuple[int, ...]) -> Row:
    """Train a circuit anew from seeds of its own; give means and, for the test, every value."""
    row: Row = {}
    for steps in lengths:
        nets = [trained(candidate, parts, 10_000 * seed + i, steps) for i in range(RETRAININGS)]
        for name, data in (("validation", parts[1]), ("test", parts[2])):
            scores = [accuracy(net, data) for net in nets]
            row[f"{name}_{steps}"] = sum(scores) / len(scores)
            row[f"each_{name}_{steps}"] = json.dumps(scores)
    return row


def searches(
    space: str,
    method: str,
    phase: Literal["tune", "test", "ranks"],
    seed: int,
    *,
    setting: float | None = None,
    rates: Rates | None = None,
) -> Row:
    """Run one search, and train what it has found anew.

    In the phase ``"ranks"``, one circuit out of a hat is trained on one split that all share, also
    for a thousand steps.
    """
    torch.set_num_threads(1)
    known = METHODS[method]
    if setting is None and known.settings:
        rates = stored_settings(TABLE) if rates is None else rates
        setting = rate_of(space, method, rates)
    parts = parts_of(0 if phase == "ranks" else seed)
    one = Search(SPACES[space], parts, seed, setting or 0.0)
    found = known.run(one)
    row: Row = {"space": space, "method": method, "phase": phase, "seed": seed}
    row |= {"setting": setting, "found": found.to_json()}
    row["alive"] = same_probabilities([found])[0][1]
    if one.relaxed is not None:
        row["relaxed"] = accuracy(one.relaxed, parts[1])
        row["argmax"] = accuracy(one.relaxed.discretize(), parts[1])
    if phase == "ranks":
        scores = [scored(found, seed=s) for s in range(RETRAININGS)]
        row |= {"score": sum(scores) / len(scores)}
    lengths = {"tune": LENGTHS[:1], "test": LENGTHS, "ranks": LONG}[phase]
    values = retrained(found, parts, seed, lengths)
    if phase == "tune":  # the test part is not looked at
        values = {name: value for name, value in values.items() if "test" not in name}
    return row | values | {"ended": "finished"}


def scored(candidate: Candidate, seed: int) -> float:
    """Score a candidate at random angles."""
    circuit = candidate.circuit(generator=seeded(seed)).double()
    theta: Tensor = circuit.theta.detach()
    value = angle_score(circuit.layers, theta).item()
    return value if math.isfinite(value) else 0.0


def stored_settings(table: Path, grid: tuple[float, ...] = RATES) -> Rates:
    """Choose each method's setting: the best of the three on validation data, after retraining."""
    if not table.exists():
        return {}
    names = {"space": "task", "setting": "learning_rate", f"validation_{LENGTHS[0]}": "validation"}
    rows = read_table(table).rename(columns=names).assign(metric="accuracy")
    return chosen_rates(rows, grid)


def searches_plan() -> list[Row]:
    """List the configurations, seed by seed, so that a table that is cut short is a fair one."""
    plan: list[Row] = []
    for space in SPACES:
        methods = METHODS if space == "coarse" else [*METHODS][:6]
        plan += [
            {"space": space, "method": method, "phase": "tune", "seed": seed, "setting": setting}
            for method in methods
            for seed, setting in product(TUNING_SEEDS, METHODS[method].settings)
        ]
        plan += [
            {"space": space, "method": method, "phase": "test", "seed": seed}
            for seed, method in product(SEEDS, methods)
        ]
        if space == "coarse":
            plan += [
                {"space": space, "method": "one draw", "phase": "ranks", "seed": seed}
                for seed in SEEDS[:60]
            ]
    return plan
