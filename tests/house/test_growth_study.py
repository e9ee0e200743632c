"""The study of growing circuits: its rivals' algebra, a small run of each method, its choices."""

import dataclasses
import functools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import nn

from qtdqas_lite.errors import DataError
from qtdqas_lite.mapping import log_feature

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import growth_study as study
import pauli_words as pauli

PAULIS = {
    (0, 0): np.eye(2),
    (1, 0): np.array([[0, 1], [1, 0]]),
    (1, 1): np.array([[0, -1j], [1j, 0]]),
    (0, 1): np.diag([1, -1]),
}


def dense(x, z, n):
    """The matrix of a word, as a Kronecker product; the first factor is the highest bit."""
    factors = [PAULIS[x >> b & 1, z >> b & 1] for b in reversed(range(n))]
    return functools.reduce(np.kron, factors)


def random_state(n, seed=0):
    values = torch.randn(2**n, 2, generator=torch.Generator().manual_seed(seed)).double()
    state = torch.view_as_complex(values)
    return state / state.norm()


def test_walsh_hadamard_is_hadamards_matrix():
    values = torch.randn(3, 16, dtype=torch.double)
    expected = values.numpy() @ scipy.linalg.hadamard(16)
    assert np.allclose(pauli.walsh_hadamard(values), expected)


def test_slopes_of_all_words_are_those_of_dense_matrices_and_of_differences():
    n = 3
    state, gradient = random_state(n), torch.randn(2**n, dtype=torch.double)
    found = pauli.word_slopes(state, gradient, torch.arange(2**n))
    psi, weights, h = state.numpy(), gradient.numpy(), 1e-6
    for x in range(2**n):
        for z in range(2**n):
            word = dense(x, z, n)
            bracket = np.vdot(weights * psi, word @ psi).imag
            ends = [
                weights @ np.abs(scipy.linalg.expm(-0.5j * angle * word) @ psi) ** 2
                for angle in (h, -h)
            ]
            assert found[x, z].item() == pytest.approx(bracket, abs=1e-12)
            assert found[x, z].item() == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)


def test_words_turn_as_matrix_exponentials_do():
    chosen, n = [(3, 5), (1, 0), (6, 6)], 3
    circuit = pauli.PauliWords(n, 4, random_state(n, 1))
    circuit.double()
    angles = torch.randn(4, dtype=torch.double)
    with torch.no_grad():
        circuit.theta.copy_(angles)
    expected = circuit.start.numpy()
    for word, angle in zip(chosen, angles.tolist(), strict=False):
        circuit.append(word)
        expected = scipy.linalg.expm(-0.5j * angle * dense(*word, n)) @ expected
    assert np.allclose(circuit().detach(), np.abs(expected) ** 2)
    assert np.allclose(circuit.state, expected)
    assert circuit.choice_bits == pytest.approx(math.log2(64 * 63 * 62))


def test_the_steepest_word_is_chosen_and_each_once():
    n, weights = 3, torch.randn(8)
    circuit = pauli.PauliWords(n, 3, random_state(n).to(torch.complex64))
    draw = torch.Generator().manual_seed(0)
    growth = pauli.WordGrowth(circuit, "slope", 1, draw)
    optimizer = torch.optim.SGD(circuit.parameters(), lr=0)
    for step in range(1, 5):
        state = circuit.state
        (circuit() @ weights).backward()
        optimizer.step()
        growth(type("Step", (), {"step": step}))
    assert len(set(circuit.words)) == 3
    all_slopes = pauli.word_slopes(state, weights, torch.arange(8)).abs()
    assert all_slopes[circuit.words[0]] == all_slopes.max()


# --- The rivals that are no circuits


def test_directions_begin_as_the_scaffold_and_their_slopes_are_derivatives():
    start = study.GrowingCircuit(3, 5, generator=torch.Generator().manual_seed(1))
    base = log_feature(start()).detach()
    draw = torch.Generator().manual_seed(2)
    dictionary = study.Dictionary(start, 2, ("rx", "ry", "rz"), draw)
    sparse = study.SingleWeights(start, 7)
    weights = torch.randn(8)
    for circuit in (dictionary, sparse):
        assert torch.equal(circuit(), base)
        with circuit.slopes() as zeros:
            (circuit() @ weights).backward()
        for number in range(circuit.theta.numel()):
            circuit.open(*circuit.slot(number), angle=1.0)
            moved = (circuit() - base) @ weights  # linear, so that a step of 1 is as good as any
            circuit.close(*circuit.slot(number))
            assert zeros.grad.flatten()[number].item() == pytest.approx(moved.item(), abs=1e-5)
    sparse.open(*sparse.slot(4), angle=0.5)
    assert (sparse() - base).tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0, 0, 0])


def test_trimmed_circuits_have_as_many_angles_as_asked_for():
    circuit = list(study.paper_space(4, 3))[9]
    found = study.trimmed(circuit, 9)
    assert found.rotations == (("rx",) * 4, ("rx",) * 4, ("rx", *["identity"] * 3))
    assert found.entanglers == circuit.entanglers
    assert study.trimmed(circuit, 12) == circuit


# --- A small run of each method


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A problem with twelve angles and 54 gradients, of which growth is tuned."""
    problem = dataclasses.replace(
        study.PROBLEMS["linear"], n_angles=12, steps_each=4, final_steps=6
    )
    monkeypatch.setitem(study.PROBLEMS, "linear", problem)
    tuned = [
        {"phase": "tune", "task": "linear", "method": method, "learning_rate": rate, "seed": seed}
        | {"metric": "accuracy", "validation": 0.5 + 0.1 * (rate == 0.1)}
        for method in ("growth", "circuit 5")
        for rate in study.RATES
        for seed in study.TUNING_SEEDS
    ]
    table = pandas.DataFrame(tuned)
    table["configuration"] = range(len(table))
    table.to_csv(tmp_path / "growth.csv")
    monkeypatch.setattr(study, "TABLE", tmp_path / "growth.csv")


COSTS = {
    "mixture": 108,
    "mixture's choice": 162,
    "growth, as large as the mixture": 108,
    "anew from near zero": 108,
    "anew from anywhere": 108,
    "random search": 216,
    # 6 trainings of 13 steps, 3 of 27 and one of 54: no more than four trainings.
    "successive halving": 213,
}


@pytest.mark.parametrize("method", study.METHODS)
def test_a_row_of_each_method(small, method):
    row = study.growth("linear", method, "tune", 2, learning_rate=0.03, n_layers=4)
    assert json.loads(json.dumps(row)) == row
    assert row["test"] is None
    assert row["gradients"] == COSTS.get(method, 54)
    assert (row["weights"], row["ended"]) == (650, "finished")
    assert 0 <= row["validation"] <= 1
    if "mixture" in method and "choice" not in method:
        # Two layers: an angle, three rotations for each wire; two entanglers each; two starts.
        assert row["trainables"] == 2 * (10 + 30 + 2) + 2 + 12
    else:
        assert (row["n_angles"], row["trainables"]) == (12, 24)


def test_what_is_tested_has_the_rate_that_was_best(small):
    row = study.growth("linear", "circuit 5", "test", 2)
    assert row["learning_rate"] == 0.1
    assert 0 <= row["test"] <= 1
    again = study.growth("linear", "circuit 5", "tune", 2, learning_rate=0.1)
    assert again["validation"] == row["validation"]
    with pytest.raises(DataError, match="tuned first"):
        study.growth("linear", "circuit 10", "test", 2)


def test_the_lowest_error_is_the_best():
    rows = pandas.DataFrame(
        {"phase": "tune", "task": "bessel", "method": "growth", "metric": "log10 mse"}
        | {"learning_rate": rate, "validation": -3 - (rate == 0.04)}
        for rate in study.RATES
    )
    assert study.chosen_rates(rows) == {("bessel", "growth"): 0.04}
    assert study.chosen_rates(rows[1:]) == {}  # a rate was not tried


def test_a_rate_without_finite_numbers_is_the_worst(monkeypatch):
    def diverge(trial):
        raise study.QuantumTrainError("the training loss is not finite")

    monkeypatch.setitem(study.METHODS, "growth", diverge)
    row = study.growth("bessel", "growth", "tune", 101, learning_rate=0.6)
    assert (row["validation"], row["test"], row["ended"]) == (math.inf, None, "not finite")
    assert study.growth("mlp", "growth", "tune", 101, learning_rate=0.6)["validation"] == 0
    with pytest.raises(study.QuantumTrainError):
        study.growth("bessel", "growth", "curve", 1, learning_rate=0.6)
    problem = study.PROBLEMS["bessel"]
    nothing = nn.Linear(1, 1)
    nn.init.constant_(nothing.weight, math.nan)
    inputs, outputs = problem.data(1)[0]
    assert problem.measure(nothing, (inputs[:, 0], outputs)) == math.inf


def test_methods_see_the_same_batches_and_start_from_the_same_target(small, monkeypatch):
    seen = {}
    for method in ("growth", "circuit 10", "dictionary", "words"):
        inputs = []

        def watched(x, y, inputs=inputs):
            inputs.append(y.tolist())
            return nn.functional.cross_entropy(x, y)

        problem = study.PROBLEMS["linear"]
        trial = study.Trial("linear", problem, 3, 0.03, 12, 4, problem.data(3))
        options = {"loss": watched, "generator": trial.draw(2)}
        monkeypatch.setattr(study.Trial, "training", options)
        run = study.METHODS[method](trial).run
        seen[method] = inputs, run.net.scale.tolist()
    assert len({str(value) for value in seen.values()}) == 1


@pytest.mark.parametrize("task", study.PROBLEMS)
def test_problems_fit_their_qubits_and_their_targets(task):
    problem = study.PROBLEMS[task]
    target = problem.target()
    weights = sum(p.numel() for p in target.parameters())
    assert 2 ** (problem.n_qubits - 1) < weights <= 2**problem.n_qubits
    train, validation, test = problem.data(1)
    assert math.isfinite(problem.measure(target, validation))
    assert len(train[0]) > len(test[0]) > 0
    other = problem.data(2)[0][0]
    assert torch.equal(train[0], other) == (task in ("bessel", "narma-5"))


def test_the_regressions_are_measured_by_their_mean_squared_error():
    problem = study.PROBLEMS["friedman"]
    zero = nn.Linear(10, 1)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    (_, outputs), *_ = problem.data(1)
    assert problem.measure(zero, problem.data(1)[0]) == pytest.approx(
        math.log10(np.mean(outputs.numpy() ** 2)), abs=1e-6
    )


@pytest.mark.parametrize("method", ["random slots", "circuit 5"])
def test_a_row_of_an_agent(method, monkeypatch):
    monkeypatch.setattr(study.growth_room, "STEPS_EACH", 1)
    row = study.agent(method, 2, 0.01, 4, True, total_steps=1024)
    assert json.loads(json.dumps(row)) == row
    assert row["gradients"] == 32  # 8 epochs of 4 minibatches
    assert row["n_angles"] == 52
    assert row["trainables"] == 52 + 2 * 15
    assert row["test"] >= 0


# --- The plan and the summary


def test_methods_are_tuned_before_they_are_tested_and_growth_before_what_builds_on_it():
    tuned, done = set(), set()
    for one in study.growth_plan():
        what = one["task"], one["method"]
        if one["phase"] == "tune":
            assert what not in done
            tuned.add(what)
            if one["method"].startswith("anew"):
                assert (one["task"], "growth") in done
        else:
            assert what in tuned
            done.add(what)
    assert {method for _, method in done} == {*study.METHODS}


def test_the_summary_pairs_seeds():
    draw = np.random.default_rng(0)
    ours, others = draw.normal(0.8, 0.1, 6), draw.normal(0.7, 0.1, 6)
    rows = [
        {"phase": "test", "task": "mlp", "method": method, "seed": seed, "test": value}
        | {"learning_rate": 0.1}
        for method, values in (("growth", ours), ("circuit 5", others))
        for seed, value in enumerate(values)
    ]
    rows += [{"phase": "tune", "task": "mlp", "method": "growth", "seed": 101}]
    found = study.summary(pandas.DataFrame(rows[::-1])).set_index("method").loc["circuit 5"]
    interval = scipy.stats.ttest_rel(ours, others).confidence_interval(0.95)
    assert found["difference"] == pytest.approx((ours - others).mean())
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["seeds"] == 6
