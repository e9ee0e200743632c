"""The study of controls: each method's size and cost, and what it must not do."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import controls_study as study
from growth_study import Trial

REFERENCES = {name for name, method in study.METHODS.items() if method.kind == "reference"}
PLANNED = sorted({(one["task"], one["method"]) for one in study.controls_plan()})


def trial(task, **changes):
    short = {"n_angles": study.TASKS[task].n_angles, "steps_each": 1, "final_steps": 2}
    problem = dataclasses.replace(study.TASKS[task], **(short | changes))
    return Trial(task, problem, 3, 0.03, problem.n_angles, 32, problem.data(3))


@pytest.mark.parametrize("method", study.METHODS)
def test_methods_of_the_linear_task_have_one_budget_and_one_cost(method, monkeypatch):
    if ("linear", method) not in PLANNED:
        pytest.skip("the smallest of its kind is too large")
    short = trial("linear").problem
    monkeypatch.setitem(study.TASKS, "linear", short)
    row = study.controls("linear", method, "tune", 101, learning_rate=0.03)
    assert json.loads(json.dumps(row)) == row
    assert row["gradients"] == short.n_angles + 2
    assert row["test"] is None
    assert 0 <= row["validation"] <= 1
    most = study.budget(trial("linear"))
    assert (
        row["trainables"] > most if method in REFERENCES else most / 2 < row["trainables"] <= most
    )


def test_frozen_parts_are_not_trained():
    one = trial("linear")
    for method in ("frozen circuit", "frozen vector", "mapping only"):
        net = study.METHODS[method].run(one).run.net
        trained = {name for name, p in net.named_parameters() if p.requires_grad}
        assert trained
        assert all(name.startswith("mapping.") for name in trained)


def test_amplitudes_are_the_roots_of_the_probabilities():
    circuit = study.ring(trial("linear"))
    found = study.Amplitudes(circuit)()
    assert torch.allclose(found.square(), 2**10 * circuit(), atol=1e-4)
    assert found.min() < 0 < found.max()


def test_free_gates_are_three_angles_between_rings():
    net = study.METHODS["free gates"].run(trial("linear")).run.net
    architecture = net.circuit.architecture()
    assert architecture.entanglers == ("ring", "none", "none")
    assert [set(layer) for layer in architecture.rotations] == [{"rz"}, {"ry"}, {"rz"}]


def test_a_projection_is_made_of_training_inputs_alone():
    one = trial("linear")
    inputs = one.parts[0][0].flatten(1)
    found = study.Projection(inputs, 3)(inputs)
    centred = (inputs - inputs.mean(0)).numpy()
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :3] * (len(inputs) - 1) ** 0.5
    signs = np.sign((found.numpy() * expected).sum(0))
    assert np.allclose(found, expected * signs, atol=1e-3)
    assert values[2] > values[3]


def test_the_tumours_are_split_and_scaled_by_their_training_part():
    parts = study.tumours(2)
    assert [len(y) for _, y in parts] == [341, 114, 114]
    x = parts[0][0]
    assert torch.allclose(x.mean(0), torch.zeros(30), atol=1e-5)
    assert torch.allclose(x.std(0, correction=0), torch.ones(30), atol=1e-4)
    shares = [y.float().mean().item() for _, y in parts]
    assert max(shares) - min(shares) < 0.02
    rows = torch.cat([x for x, _ in parts])
    assert len(rows.unique(dim=0)) == 569
    assert not torch.equal(study.tumours(3)[0][0], x)


def test_no_mixture_is_decided():
    net = study.METHODS["undecided mixture"].run(trial("linear")).run.net
    assert all(torch.equal(a, torch.zeros_like(a)) for a in net.circuit.alpha.values())


def test_a_training_that_is_lost_is_the_worst_choice_and_no_test(monkeypatch):
    def lose(_):
        raise study.QuantumTrainError("the training loss is not finite")

    monkeypatch.setitem(study.METHODS, "circuit 5", study.Method(lose, "circuit"))
    row = study.controls("linear", "circuit 5", "tune", 101, learning_rate=1.5)
    assert (row["validation"], row["ended"]) == (0.0, "not finite")
    with pytest.raises(study.QuantumTrainError):
        study.controls("linear", "circuit 5", "test", 1, learning_rate=1.5)


def test_every_kind_is_on_every_task():
    for task in study.TASKS:
        kinds = {study.METHODS[method].kind for t, method in PLANNED if t == task}
        assert len(kinds) == 4
