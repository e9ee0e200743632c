"""Growing circuits against their rivals: what `make results TASK=growth` runs (chapter 07).

All methods get a problem with the same trained numbers, K angles (or what stands for them) and the
mapping's, the same number of gradients unless their row says otherwise, and the same batches. Their
learning rate is chosen on validation data, among the same five, with seeds for nothing else. Then
comes the test, once a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import growth_room
import torch
from growth_room import ROOM
from pandas import DataFrame
from pauli_words import PauliWords, WordGrowth
from sklearn.datasets import make_friedman1
from torch import Tensor, nn

from qtdqas_lite import (
    Candidate,
    FixedCircuit,
    GeneratedNetwork,
    RelaxedCircuit,
    SearchSpace,
    fit,
    paper_space,
    search,
    select,
)
from qtdqas_lite.errors import DataError, QuantumTrainError
from qtdqas_lite.experiments import read_table
from qtdqas_lite.growing_circuit import GrowingCircuit
from qtdqas_lite.growth import Rule, grow
from qtdqas_lite.mapping import log_feature
from qtdqas_lite.statistics import paired
from qtdqas_lite.tasks.classification import accuracy, digits_cnn, mlp
from qtdqas_lite.tasks.forecasting import LSTMForecaster
from qtdqas_lite.tasks.images import digits
from qtdqas_lite.tasks.series import SERIES
from qtdqas_lite.tasks.windows import split_series
from qtdqas_lite.training import Data, Run

TABLE = Path(__file__).resolve().parent.parent / "qtdqas_lite" / "results" / "growth.csv"
SEEDS, TUNING_SEEDS = range(1, 11), range(101, 104)
DEPTH = 32

Row = dict[str, Any]
#: The learning rate that was chosen for each task and method.
Rates = Mapping[tuple[str, str], float]
Parts = tuple[Data, Data, Data]  # for training, for validation and for the test


# --- The problems


@dataclass(frozen=True)
class Problem:
    """What is learned: by a target whose weights ``n_qubits`` hold, from ``n_angles`` angles."""

    n_qubits: int
    n_angles: int
    target: Callable[[], nn.Module]
    data: Callable[[int], Parts]  # called with the seed
    metric: Literal["accuracy", "log10 mse"] = "accuracy"
    gain: float = 2.0
    steps_each: int = 10
    final_steps: int = 100

    def measure(self, net: nn.Module, data: Data) -> float:
        """Give the accuracy, or the decimal logarithm of the mean squared error."""
        if self.metric == "accuracy":
            return accuracy(net, data)
        with torch.no_grad():
            error = (net(data[0]) - data[1]).double().square().mean().item()
        return math.log10(error) if math.isfinite(error) else math.inf


def images(seed: int, **options: Any) -> Parts:
    """Split the digits anew for each seed."""
    data = digits(seed=seed, **options)
    return data.train, data.validation, data.test


def series(name: str, seed: int) -> Parts:
    """Give a series in three parts; time decides which, and no seed."""
    data = split_series(SERIES[name]())
    return data.train, data.validation, data.test


def friedman(seed: int) -> Parts:
    """Draw Friedman's first function of ten inputs, of which five matter, for each seed."""
    inputs, outputs = make_friedman1(1000, n_features=10, noise=1.0, random_state=seed)
    x, y = torch.tensor(inputs).float() * 2 - 1, torch.tensor(outputs).float()[:, None]
    y = (y - y[:600].mean()) / y[:600].std()
    return (x[:600], y[:600]), (x[600:800], y[600:800]), (x[800:], y[800:])


PROBLEMS = {
    "linear": Problem(10, 30, lambda: nn.Linear(64, 10), images),
    "mlp": Problem(12, 36, lambda: mlp(64, 32, 10), images),
    "cnn": Problem(11, 36, digits_cnn, images, gain=1.5),
    "friedman": Problem(10, 24, lambda: mlp(10, 32, 16, 1), friedman, "log10 mse"),
    "bessel": Problem(11, 12, LSTMForecaster, partial(series, "bessel"), "log10 mse"),
    "narma-5": Problem(11, 12, LSTMForecaster, partial(series, "narma-5"), "log10 mse"),
    "1 against 5": Problem(
        17,
        34,
        lambda: mlp(784, 128, 64, 2),
        partial(images, classes=(1, 5), side=28),
        steps_each=4,
        final_steps=64,
    ),
}


# --- One trial of one method


@dataclass(frozen=True)
class Trial:
    """A problem with a seed and settings; all randomness of a method follows from the seed."""

    task: str
    problem: Problem
    seed: int
    learning_rate: float
    n_angles: int
    n_layers: int
    parts: Parts
    rates: Rates = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """How many gradients a growth takes, and so how many the others may take."""
        return self.problem.steps_each * self.n_angles + self.problem.final_steps

    def draw(self, what: int) -> torch.Generator:
        """Seed a generator: 0 for angles, 1 for the mapping, 2 for batches, 3 for the rest."""
        return torch.Generator().manual_seed(10 * self.seed + what)

    def network(self, circuit: nn.Module, **options: Any) -> GeneratedNetwork:
        """Let a circuit write the target; target and mapping start alike for all methods."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            target = self.problem.target()
        options |= {"gain": self.problem.gain, "generator": self.draw(1)}
        return GeneratedNetwork(target, circuit, **options)

    def scaffold(self, start: Any = "random") -> GrowingCircuit:
        """Build a circuit that can grow."""
        n = self.problem.n_qubits
        return GrowingCircuit(n, self.n_layers, start=start, generator=self.draw(0))

    @property
    def training(self) -> Row:
        """The options that every training has in common."""
        loss = {"accuracy": nn.functional.cross_entropy, "log10 mse": nn.functional.mse_loss}
        return {"loss": loss[self.problem.metric], "generator": self.draw(2)}

    def fit(self, net: nn.Module, **options: Any) -> Run:
        """Train all that is there, for as many steps as a growth takes."""
        options = {"steps": self.steps, "learning_rate": self.learning_rate} | options
        return fit(net, self.parts[0], **(self.training | options))

    def grow(self, net: nn.Module, rule: Rule = "slope") -> Run:
        """Open as many slots as there may be angles."""
        schedule = {"n_angles": self.n_angles, "steps_each": self.problem.steps_each}
        schedule |= {"final_steps": self.problem.final_steps}
        rate = self.learning_rate
        return grow(net, self.parts[0], rule=rule, learning_rate=rate, **schedule, **self.training)


class Outcome(NamedTuple):
    """What a method leaves: a run, what it cost, and what the choice carries."""

    run: Run
    gradients: int
    choice_bits: float = 0.0
    start: str = "uniform angles"


def grown(trial: Trial, start: str = "random", rule: Rule = "slope") -> Outcome:
    """Grow a circuit."""
    net = trial.network(trial.scaffold(start))
    run = trial.grow(net, rule)
    return Outcome(run, trial.steps, net.count().choice_bits, start)


def anew(trial: Trial, largest: float) -> Outcome:
    """Train the structure of a growth from other angles, with its mapping as it was at first."""
    found = grown(replace(trial, learning_rate=rate_of(trial.task, "growth", trial.rates)))
    circuit = trial.scaffold()
    draw = trial.draw(3)
    for slot in found.run.net.circuit.open_slots():  # type: ignore[operator, union-attr]
        angle = largest * (2 * torch.rand((), generator=draw).item() - 1)
        circuit.open(*slot, angle=angle)
    run = trial.fit(trial.network(circuit))
    start = f"random, angles below {largest:.3g}"
    return Outcome(run, found.gradients + trial.steps, found.choice_bits, start)


def trimmed(candidate: Candidate, n_angles: int) -> Candidate:
    """Take the last gates away, in layers and wires, so that ``n_angles`` are left."""
    names = [name for layer in candidate.rotations for name in layer][:n_angles]
    names += ["identity"] * (candidate.n_qubits * candidate.n_layers - n_angles)
    rows = [names[i : i + candidate.n_qubits] for i in range(0, len(names), candidate.n_qubits)]
    return replace(candidate, rotations=tuple(map(tuple, rows)))


def layers_for(trial: Trial) -> int:
    """Give the layers that hold the angles, one on each wire."""
    return -(-trial.n_angles // trial.problem.n_qubits)


def by_hand(trial: Trial, number: int) -> Outcome:
    """Train one of the paper's circuits, numbered from 1."""
    candidate = list(paper_space(trial.problem.n_qubits, layers_for(trial)))[number - 1]
    circuit = trimmed(candidate, trial.n_angles).circuit(generator=trial.draw(0))
    return Outcome(trial.fit(trial.network(circuit)), trial.steps)


def mixture(trial: Trial, choose: bool = False) -> Outcome:
    """Search with a relaxed circuit; keep the mixture, or train what it chose anew."""
    n, layers = trial.problem.n_qubits, layers_for(trial)
    circuit = RelaxedCircuit(n, layers, sharing="qubit", generator=trial.draw(0))
    net = trial.network(circuit)
    train, validation, _ = trial.parts
    options = {"steps": trial.steps, "learning_rate": trial.learning_rate}
    run = search(net, train, validation, method="first-order", **options, **trial.training)
    if not choose:  # each step takes a gradient on training and one on validation data
        return Outcome(run, 2 * trial.steps)
    found = trimmed(run.architecture, trial.n_angles).circuit(generator=trial.draw(3))
    bits = math.log2(circuit.space.n_architectures)
    return Outcome(trial.fit(trial.network(found)), 3 * trial.steps, bits)


def as_large(trial: Trial) -> Outcome:
    """Grow as many angles as a mixture has numbers in its circuit, with as many gradients."""
    circuit = RelaxedCircuit(trial.problem.n_qubits, layers_for(trial), sharing="qubit")
    n_angles = sum(p.numel() for p in circuit.parameters())
    last = trial.problem.final_steps
    each = (2 * trial.steps - last) // n_angles
    problem = replace(trial.problem, steps_each=each, final_steps=2 * trial.steps - each * n_angles)
    return grown(replace(trial, problem=problem, n_angles=n_angles))


def selected(trial: Trial, strategy: Any, times: int = 4) -> Outcome:
    """Take the best of several architectures on validation data, at ``times`` the gradients."""
    space = SearchSpace(trial.problem.n_qubits, layers_for(trial), sharing="qubit")
    runs: dict[tuple[Candidate, int], Run] = {}

    def train(candidate: Candidate, steps: int, seed: int) -> float:
        draw = torch.Generator().manual_seed(seed)
        net = trial.network(trimmed(candidate, trial.n_angles).circuit(generator=draw))
        run = trial.fit(net, steps=steps, validation=trial.parts[1])
        runs[candidate, steps] = run
        return float(run.history[-1]["validation_loss"])

    budget = {"budget": times * trial.steps, "steps": trial.steps}
    found = select(space, train, strategy=strategy, **budget, generator=trial.draw(3))
    bits = math.log2(space.n_architectures)
    return Outcome(runs[found.candidate, trial.steps], int(found.spent), bits)


class Directions(GrowingCircuit):
    """No circuit at all: each slot adds a direction to what the mapping takes for its feature.

    It begins with the feature of a scaffold in which nothing is open, and it grows by the same
    rule. So a growth of it differs from one of a circuit in what can be chosen, and in nothing
    else.
    """

    def __init__(self, start: GrowingCircuit, n_layers: int, axes: tuple[str, ...]) -> None:
        """Take the scaffold to begin with, and the shape in which slots are numbered."""
        super().__init__(start.n_qubits, n_layers, axes=axes, start="ht")
        self.start_name = start.start_name
        with torch.no_grad():
            self.register_buffer("base", log_feature(start()))

    def added(self, amounts: Tensor) -> Tensor:
        """Turn the slots' numbers, shape (n_slots,), into what is added, shape (2**n_qubits,)."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        """Return the feature itself, shape (2**n_qubits,)."""
        amounts = torch.where(self.is_open, self.theta, 0.0)
        if self._probe is not None:
            amounts = amounts + self._probe
        return self.base + self.added(amounts.flatten())  # type: ignore[operator]


class Dictionary(Directions):
    """As many Gaussian directions as a scaffold of as many layers has slots."""

    def __init__(
        self, start: GrowingCircuit, n_layers: int, axes: tuple[str, ...], draw: torch.Generator
    ) -> None:
        super().__init__(start, n_layers, axes)
        shape = self.theta.numel(), 2**self.n_qubits
        self.register_buffer("directions", torch.randn(shape, generator=draw), persistent=False)

    def added(self, amounts: Tensor) -> Tensor:
        """Add up the directions."""
        return amounts @ self.directions  # type: ignore[operator]


class SingleWeights(Directions):
    """One direction for each weight."""

    def __init__(self, start: GrowingCircuit, n_weights: int) -> None:
        super().__init__(start, -(-n_weights // start.n_qubits), ("ry",))

    def added(self, amounts: Tensor) -> Tensor:
        """Leave each number where it is, and fill up or cut off what is no weight."""
        size = 2**self.n_qubits
        return nn.functional.pad(amounts, (0, max(0, size - len(amounts))))[:size]


def classical(trial: Trial, what: Literal["dictionary", "sparse", "subspace"]) -> Outcome:
    """Choose directions in the space of weights, by the rule of growth or (a subspace) by lot."""
    start = trial.scaffold()
    if what == "sparse":
        with torch.random.fork_rng(devices=[]):
            weights = sum(p.numel() for p in trial.problem.target().parameters())
        circuit: Directions = SingleWeights(start, weights)
    elif what == "dictionary":
        circuit = Dictionary(start, trial.n_layers, start.axes, trial.draw(3))
    else:
        circuit = Dictionary(start, layers_for(trial), ("ry",), trial.draw(3))
        for number in range(trial.n_angles):
            circuit.open(*circuit.slot(number))
    net = trial.network(circuit, feature="raw")
    if what == "subspace":
        return Outcome(trial.fit(net), trial.steps, start="random")
    return Outcome(trial.grow(net), trial.steps, circuit.choice_bits, "random")


def words(trial: Trial, rule: Rule = "slope") -> Outcome:
    """Grow with rotations about Pauli words at the end of a random state."""
    n, each = trial.problem.n_qubits, trial.problem.steps_each
    draw = trial.draw(3)
    amplitudes = torch.view_as_complex(torch.randn(2**n, 2, generator=trial.draw(0)))
    circuit = PauliWords(n, trial.n_angles, amplitudes / amplitudes.norm())
    last = trial.problem.final_steps

    def rate(progress: float) -> float:
        done = max(0.0, (progress - 1) * trial.steps / last + 1)
        return trial.learning_rate * (1 + math.cos(math.pi * done)) / 2

    growth = WordGrowth(circuit, rule, each, draw)
    run = trial.fit(trial.network(circuit), learning_rate=rate, on_step=growth)
    return Outcome(run, trial.steps, circuit.choice_bits, "random state")


METHODS: dict[str, Callable[[Trial], Outcome]] = {
    "growth": grown,
    "random slots": partial(grown, rule="random"),
    "growth from ht": partial(grown, start="ht"),
    "random slots from ht": partial(grown, start="ht", rule="random"),
    "circuit 5": partial(by_hand, number=5),
    "circuit 10": partial(by_hand, number=10),
    "mixture": mixture,
    "growth, as large as the mixture": as_large,
    "mixture's choice": partial(mixture, choose=True),
    "random search": partial(selected, strategy="random"),
    "successive halving": partial(selected, strategy="successive-halving"),
    "anew from near zero": partial(anew, largest=0.1),
    "anew from anywhere": partial(anew, largest=math.pi),
    "dictionary": partial(classical, what="dictionary"),
    "sparse weights": partial(classical, what="sparse"),
    "random subspace": partial(classical, what="subspace"),
    "words": words,
    "random words": partial(words, rule="random"),
}
#: The learning rates that every method tries.
RATES = (0.015, 0.04, 0.1, 0.25, 0.6)


def chosen_rates(rows: DataFrame, grid: tuple[float, ...] = RATES) -> Rates:
    """Choose learning rates: those that were best on validation data, in the mean of tuning seeds.

    Args:
        rows: A table with tunings.
        grid: The rates that every method tries. One that has not tried all of them, as often as
            each other, is left out.
    """
    found = {}
    tunings = rows[rows["phase"] == "tune"]
    for (task, method), tuned in tunings.groupby(["task", "method"]):
        tries = tuned.groupby("learning_rate")["validation"]
        if len(tries) == len(grid) and tries.size().nunique() == 1:
            means = tries.mean()
            lower = set(tuned["metric"]) == {"log10 mse"}
            found[task, method] = float(means.idxmin() if lower else means.idxmax())
    return found


def stored_rates(table: Path, grid: tuple[float, ...] = RATES) -> Rates:
    """Choose learning rates from a stored table, if there is one."""
    return chosen_rates(read_table(table), grid) if table.exists() else {}


def rate_of(task: str, method: str, rates: Rates) -> float:
    """Look a chosen learning rate up.

    Raises:
        DataError: if the tuning is not complete.
    """
    if (task, method) not in rates:
        raise DataError(f"{method} on {task} has to be tuned first")
    return rates[task, method]


def angles(net: GeneratedNetwork) -> int:
    """Count the angles that turn anything."""
    if type(net.circuit) is not FixedCircuit or not net.circuit.theta.requires_grad:
        return net.count().angles
    names = sum(net.circuit.architecture().rotations, ())
    return len(names) - names.count("identity")


def growth(
    task: str,
    method: str,
    phase: Literal["tune", "test", "curve"],
    seed: int,
    *,
    learning_rate: float | None = None,
    n_angles: int | None = None,
    n_layers: int = DEPTH,
    rates: Rates | None = None,
) -> Row:
    """Run one method; the test part is not looked at while its settings are tuned.

    Without a learning rate, that of ``rates`` is taken, by default those of the stored table. A
    rate at which a training ends in numbers that are not finite is the worst one, and no error.
    """
    torch.set_num_threads(1)
    rates = stored_rates(TABLE) if rates is None else rates
    rate = rate_of(task, method, rates) if learning_rate is None else learning_rate
    first = {"phase": phase, "task": task, "method": method, "learning_rate": rate, "seed": seed}
    tested = phase != "tune"
    try:
        if task == ROOM:
            return first | agent(method, seed, rate, n_layers, tested)
        problem = PROBLEMS[task]
        k = problem.n_angles if n_angles is None else n_angles
        trial = Trial(task, problem, seed, rate, k, n_layers, problem.data(seed), rates)
        return first | measured(trial, METHODS[method](trial), tested)
    except (QuantumTrainError, ValueError) as error:
        if tested or not any(sign in str(error).lower() for sign in ("not finite", "nan")):
            raise
    metric = "return" if task == ROOM else PROBLEMS[task].metric
    worst = math.inf if metric == "log10 mse" else 0.0
    return first | {"metric": metric, "validation": worst, "test": None, "ended": "not finite"}


def measured(trial: Trial, outcome: Outcome, tested: bool) -> Row:
    """Measure what one method has left, on data that is there at once."""
    problem = trial.problem
    run, gradients, bits, start = outcome
    net: Any = run.net
    row = {"n_angles": 0, "n_layers": 0, "start": start}
    if isinstance(net, GeneratedNetwork):
        count, turning = net.count(), angles(net)
        row |= {"n_angles": turning, "n_layers": getattr(net.circuit, "n_layers", 0)}
        row |= {"trainables": count.total - count.angles + turning, "weights": count.target}
    else:
        trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
        row |= {"trainables": trained, "weights": trained}
    return row | {
        "choice_bits": bits,
        "gradients": gradients,
        "metric": problem.metric,
        "validation": problem.measure(net, trial.parts[1]),
        "test": problem.measure(net, trial.parts[2]) if tested else None,
        "ended": run.ended,
    }


def agent(method: str, seed: int, rate: float, depth: int, tested: bool, **options: Any) -> Row:
    """Train an agent; measuring for validation and for the test begin with different seeds."""
    nets, gradients, bits = growth_room.train(method, seed, rate, depth, **options)
    counts = [net.count() for net in nets]
    policy: Any = nets[0]
    return {
        "n_angles": sum(count.angles for count in counts),
        "n_layers": policy.circuit.n_layers,
        "start": "random" if method in growth_room.RULES else "uniform angles",
        "trainables": sum(count.total for count in counts),
        "weights": sum(count.target for count in counts),
        "choice_bits": bits,
        "gradients": gradients,
        "metric": "return",
        "validation": growth_room.sampled_return(policy, 1000 * seed + 500),
        "test": growth_room.sampled_return(policy, 1000 * seed + 700) if tested else None,
        "ended": "finished",
    }


# --- What there is to be run, the most important first


def compared(
    task: str,
    *methods: str,
    seeds: Any = SEEDS,
    tuning: Any = TUNING_SEEDS,
    rates: tuple[float, ...] = RATES,
) -> list[Row]:
    """List the tuning of some methods on a task, and then their tests."""
    tuned = [
        {"task": task, "method": method, "phase": "tune", "seed": seed, "learning_rate": rate}
        for method in methods
        for seed, rate in product(tuning, rates)
    ]
    tests = [
        {"task": task, "method": method, "phase": "test", "seed": seed}
        for seed, method in product(seeds, methods)
    ]
    return tuned + tests


FIRST = ("growth", "random slots", "circuit 5", "circuit 10")
FROM_HT = ("growth from ht", "random slots from ht")
CLASSICAL = ("dictionary", "sparse weights", "random subspace")
ANEW = ("anew from near zero", "anew from anywhere")
MIXTURES = ("mixture", "growth, as large as the mixture", "mixture's choice")
SEARCHES = ("random search", "successive halving")
WORDS = ("words", "random words")


def curves() -> list[Row]:
    """List growth and its control on the linear task over K and over depth, at its rate there."""
    sizes = [(k, DEPTH) for k in (5, 10, 20, 60, 120)] + [(30, d) for d in (3, 8, 16, 64)]
    return [
        {"task": "linear", "method": method, "phase": "curve", "seed": seed}
        | {"n_angles": k, "n_layers": depth}
        for (k, depth), seed, method in product(sizes, SEEDS[:5], FIRST[:2])
    ]


def growth_plan() -> list[Row]:
    """List the configurations."""
    digits_, others = ("linear", "mlp"), ("friedman", "bessel", "narma-5", "cnn")
    plan = [one for task in digits_ for one in compared(task, *FIRST)]
    plan += [one for task in digits_ for one in compared(task, *FROM_HT, *CLASSICAL, *ANEW)]
    plan += [one for task in others for one in compared(task, *FIRST)]
    plan += [one for task in digits_ for one in compared(task, *WORDS)]
    plan += [one for task in digits_ for one in compared(task, *MIXTURES)]
    plan += curves()
    plan += [one for task in digits_ for one in compared(task, *SEARCHES)]
    for task in others:
        plan += compared(task, *FROM_HT, *CLASSICAL, *ANEW, *MIXTURES, *SEARCHES)
    plan += compared("1 against 5", *FIRST, seeds=SEEDS[:3], tuning=TUNING_SEEDS[:1])
    return plan + compared(ROOM, *FIRST, seeds=SEEDS[:5], tuning=TUNING_SEEDS[:1])


def summary(rows: DataFrame, reference: str = "growth") -> DataFrame:
    """Give, for each task and method, the mean of the tests, their deviation and the difference.

    The difference is that of the reference to the method, paired by seed, with its 95 % interval.
    """
    tests = rows[rows["phase"] == "test"]
    found = []
    for (task, method), group in tests.groupby(["task", "method"], sort=False):
        ours = tests[(tests["task"] == task) & (tests["method"] == reference)]
        both = ours.set_index("seed")["test"].to_frame("ours")
        both = both.join(group.set_index("seed")["test"].to_frame("other"), how="inner")
        gap = None
        if method != reference and len(both) > 1:
            gap = paired(torch.tensor(both["ours"].values), torch.tensor(both["other"].values))
        found.append(
            {"task": task, "method": method, "seeds": len(both)}
            | {"learning_rate": group["learning_rate"].iloc[0]}
            | {"mean": group["test"].mean(), "deviation": group["test"].std()}
            | {"difference": gap and gap.mean}
            | {"low": gap and gap.interval[0], "high": gap and gap.interval[1]}
        )
    return DataFrame(found)
