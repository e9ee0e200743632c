"""Circuits against what may stand in their place: `make results TASK=controls` (chapter 11).

All methods of a task have about the same trained numbers, the same number of gradients and the
same batches. Their learning rate is chosen on validation data, among the same seven, with seeds for
nothing else. Then comes the test, once a seed; each seed has a split of the data of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from growth_study import (
    PROBLEMS,
    Outcome,
    Parts,
    Problem,
    Rates,
    Row,
    Trial,
    by_hand,
    classical,
    compared,
    grown,
    images,
    layers_for,
    measured,
    rate_of,
    stored_rates,
)
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from qtdqas_lite import FixedCircuit, MLPMapping, RelaxedCircuit
from qtdqas_lite.controls import BitNetwork, FreeVector, PermutedCircuit, RandomSubspace
from qtdqas_lite.errors import QuantumTrainError
from qtdqas_lite.simulator import evolve
from qtdqas_lite.tasks.classification import mlp

TABLE = Path(__file__).resolve().parent.parent / "qtdqas_lite" / "results" / "controls.csv"
#: The learning rates that every method tries.
RATES = (0.006, 0.015, 0.04, 0.1, 0.25, 0.6, 1.5)


def tumours(seed: int) -> Parts:
    """Split scikit-learn's breast cancer data anew for each seed: 569 cells, 30 measures each."""
    inputs, labels = load_breast_cancer(return_X_y=True)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=114, stratify=labels, random_state=seed
    )
    train, validation = train_test_split(
        rest, test_size=114, stratify=labels[rest], random_state=seed
    )
    scaled = StandardScaler().fit(inputs[train]).transform(inputs)
    x, y = torch.tensor(scaled, dtype=torch.float32), torch.tensor(labels)
    first, second, third = ((x[part], y[part]) for part in (train, validation, test))
    return first, second, third


TASKS = {
    "linear": PROBLEMS["linear"],
    "mlp": PROBLEMS["mlp"],
    "friedman": replace(PROBLEMS["friedman"], n_angles=30),  # as many in each layer
    # The network of chapter 03: 2,410 weights from 398 numbers.
    "mlp, 398 numbers": Problem(12, 384, lambda: mlp(64, 32, 10), images, steps_each=1),
    # The new task of chapter 12: 530 weights from 32 numbers.
    "tumours": Problem(10, 20, lambda: mlp(30, 16, 2), tumours),
}


# --- Controls that train as many numbers as a circuit with its mapping does


def budget(trial: Trial) -> int:
    """Count what a circuit and its affine mapping train."""
    return trial.n_angles + trial.problem.n_qubits + 2


def written(trial: Trial, circuit: nn.Module, **options: Any) -> Outcome:
    """Let a circuit, or what stands in its place, write the target."""
    return Outcome(trial.fit(trial.network(circuit, **options)), trial.steps, start="random")


def only_mapping(trial: Trial, circuit: nn.Module) -> Outcome:
    """Freeze a circuit and give what it would train to a larger mapping."""
    n = trial.problem.n_qubits
    hidden = max(1, (budget(trial) - 1) // (n + 3))
    mapping = MLPMapping(n, hidden, generator=trial.draw(1))
    return written(trial, circuit.requires_grad_(False), mapping=mapping)


def uniform(trial: Trial) -> Outcome:
    """Give the mapping nothing but the bits."""
    return only_mapping(trial, FixedCircuit(trial.problem.n_qubits, 1, rotation="rx"))


def ring(trial: Trial, **options: Any) -> FixedCircuit:
    """Build the paper's circuit 5, or a relative of it."""
    n, layers = trial.problem.n_qubits, layers_for(trial)
    return FixedCircuit(n, layers, generator=trial.draw(0), **options)


def frozen(trial: Trial, what: Literal["circuit", "vector"]) -> Outcome:
    """Freeze a circuit, or noise."""
    if what == "circuit":
        return only_mapping(trial, ring(trial))
    return only_mapping(trial, FreeVector(trial.problem.n_qubits, generator=trial.draw(0)))


def vector(trial: Trial, what: Literal["free", "subspace", "bits"]) -> Outcome:
    """Train numbers that no circuit stands behind."""
    n, draw = trial.problem.n_qubits, trial.draw(0)
    if what == "free":
        return written(trial, FreeVector(n, generator=draw))
    if what == "subspace":
        return written(trial, RandomSubspace(n, trial.n_angles, generator=draw))
    return written(trial, BitNetwork(n, max(1, trial.n_angles // (n + 2)), generator=draw))


class Projection(nn.Module):
    """The first principal components of the training inputs, in units of their deviations."""

    mean: Tensor
    components: Tensor

    def __init__(self, inputs: Tensor, count: int) -> None:
        super().__init__()
        fitted = PCA(count, svd_solver="full").fit(inputs.numpy())
        scaled = fitted.components_ / fitted.explained_variance_[:, None] ** 0.5
        self.register_buffer("mean", torch.tensor(fitted.mean_, dtype=inputs.dtype))
        self.register_buffer("components", torch.tensor(scaled, dtype=inputs.dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        """Project inputs, shape (count, n_inputs)."""
        return (inputs - self.mean) @ self.components.T


def outputs(trial: Trial) -> int:
    """Count the outputs of the task's network."""
    *_, last = trial.problem.target().modules()
    return int(last.out_features)  # type: ignore[arg-type]


def seeded(trial: Trial, build: Callable[[], nn.Module]) -> nn.Module:
    """Build an ordinary network from the trial's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        return build()


def projected(trial: Trial) -> Outcome:
    """Train a linear layer on principal components, as many as the budget allows."""
    inputs, n_outputs = trial.parts[0][0].flatten(1), outputs(trial)
    count = min(budget(trial) // n_outputs - 1, inputs.shape[1])
    head = seeded(trial, lambda: nn.Linear(count, n_outputs))
    net = nn.Sequential(nn.Flatten(), Projection(inputs, count), head)
    return Outcome(trial.fit(net), trial.steps, start="usual")


def small_network(trial: Trial) -> Outcome:
    """Train a plain network with one hidden layer, as wide as the budget allows."""
    n_inputs, n_outputs = trial.parts[0][0][0].numel(), outputs(trial)
    hidden = max(1, (budget(trial) - n_outputs) // (n_inputs + n_outputs + 1))
    net = seeded(trial, lambda: nn.Sequential(nn.Flatten(), mlp(n_inputs, hidden, n_outputs)))
    return Outcome(trial.fit(net), trial.steps, start="usual")


def plain(trial: Trial) -> Outcome:
    """Train the target's own weights, all of them: what the others save is saved from this."""
    net = seeded(trial, trial.problem.target)
    return Outcome(trial.fit(net), trial.steps, start="usual")


class Amplitudes(nn.Module):
    """The amplitudes of a real circuit in place of its probabilities, times the root of 2**n."""

    def __init__(self, circuit: FixedCircuit) -> None:
        super().__init__()
        self.circuit, self.n_qubits = circuit, circuit.n_qubits

    def forward(self) -> Tensor:
        """Give signed numbers whose squares have the mean 1, shape (2**n_qubits,)."""
        return 2 ** (self.n_qubits / 2) * evolve(self.circuit.layers(self.circuit.theta))


def amplitudes(trial: Trial) -> Outcome:
    """Read the state out in place of the probabilities; no measurement gives that."""
    return written(trial, Amplitudes(ring(trial)), feature=torch.nn.Identity())


def free_gates(trial: Trial) -> Outcome:
    """Give each wire any gate, RZ RY RZ, and so a third of the layers."""
    n, layers = trial.problem.n_qubits, max(1, layers_for(trial) // 3)
    names = {
        "entangler": ["ring", "none", "none"] * layers,
        "rotation": ["rz", "ry", "rz"] * layers,
    }
    return written(trial, FixedCircuit(n, 3 * layers, generator=trial.draw(0), **names))


def permuted(trial: Trial) -> Outcome:
    """Put a random permutation in place of the ring."""
    n, layers = trial.problem.n_qubits, layers_for(trial)
    return written(trial, PermutedCircuit(n, layers, generator=trial.draw(0)))


def undecided(trial: Trial) -> Outcome:
    """Train the angles of a relaxed circuit whose choices all have the same weight."""
    n, layers = trial.problem.n_qubits, layers_for(trial)
    circuit = RelaxedCircuit(n, layers, generator=trial.draw(0))
    for logits in circuit.alpha.values():
        nn.init.zeros_(logits.requires_grad_(False))
    return written(trial, circuit)


@dataclass(frozen=True)
class Method:
    """How a trial is run, and where the method stands in the tables of chapters 11 and 12."""

    run: Callable[[Trial], Outcome]
    kind: Literal["circuit", "quantum control", "classical control", "reference"]


METHODS = {
    "growth": Method(grown, "circuit"),
    "circuit 5": Method(partial(by_hand, number=5), "circuit"),
    "circuit 10": Method(partial(by_hand, number=10), "circuit"),
    "random slots": Method(partial(grown, rule="random"), "quantum control"),
    "frozen circuit": Method(partial(frozen, what="circuit"), "quantum control"),
    "no entangler": Method(lambda t: written(t, ring(t, entangler="none")), "quantum control"),
    "random permutation": Method(permuted, "quantum control"),
    "amplitudes": Method(amplitudes, "quantum control"),
    "free gates": Method(free_gates, "quantum control"),
    "undecided mixture": Method(undecided, "quantum control"),
    "mapping only": Method(uniform, "classical control"),
    "frozen vector": Method(partial(frozen, what="vector"), "classical control"),
    "random subspace": Method(partial(vector, what="subspace"), "classical control"),
    "bit network": Method(partial(vector, what="bits"), "classical control"),
    "sparse weights": Method(partial(classical, what="sparse"), "classical control"),
    "dictionary": Method(partial(classical, what="dictionary"), "classical control"),
    "projection": Method(projected, "classical control"),
    "small network": Method(small_network, "classical control"),
    "free vector": Method(partial(vector, what="free"), "reference"),
    "all weights": Method(plain, "reference"),
}


def controls(
    task: str,
    method: str,
    phase: Literal["tune", "test"],
    seed: int,
    *,
    learning_rate: float | None = None,
    rates: Rates | None = None,
) -> Row:
    """Run one method; the test part is not looked at while its settings are tuned.

    A rate at which a training ends in numbers that are not finite is the worst one, and no error.
    """
    torch.set_num_threads(1)
    rates = stored_rates(TABLE, RATES) if rates is None else rates
    rate = rate_of(task, method, rates) if learning_rate is None else learning_rate
    problem, tested = TASKS[task], phase == "test"
    first = {"phase": phase, "task": task, "method": method, "learning_rate": rate, "seed": seed}
    trial = Trial(task, problem, seed, rate, problem.n_angles, 32, problem.data(seed), rates)
    try:
        return first | measured(trial, METHODS[method].run(trial), tested)
    except (QuantumTrainError, ValueError) as error:
        if tested or not any(sign in str(error).lower() for sign in ("not finite", "nan")):
            raise
    worst = math.inf if problem.metric == "log10 mse" else 0.0
    row = {"metric": problem.metric, "validation": worst, "test": None, "ended": "not finite"}
    return first | row


def controls_plan() -> list[Row]:
    """List the configurations."""
    plan = []
    for task in TASKS:
        # One hidden unit on so many inputs takes more numbers than the small budgets have.
        wide = task in ("linear", "mlp", "tumours")
        left_out = {"small network"} if wide else set()
        methods = [name for name in METHODS if name not in left_out]
        plan += compared(task, *methods, rates=RATES)
    return plan
