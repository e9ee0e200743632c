"""The book's experiments: what is asked for, and what the stored tables hold."""

import dataclasses
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

import pandas
import pytest

from qtdqas_lite import Candidate
from qtdqas_lite.experiments import KEY, read_table

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("book_results", ROOT / "book" / "results.py")
results = importlib.util.module_from_spec(SPEC)
sys.modules["book_results"] = results  # where its dataclass looks for itself
SPEC.loader.exec_module(results)
applications, growth_study = sys.modules["applications_study"], sys.modules["growth_study"]
TASKS = list(results.TASKS)
# Tables with tunings and tests.
STUDIES = {"growth": growth_study.RATES, "controls": sys.modules["controls_study"].RATES}
searches_study = sys.modules["searches_study"]
SEEDS = {name: {*growth_study.SEEDS, *growth_study.TUNING_SEEDS} for name in STUDIES}
SEEDS["searches"] = {*searches_study.SEEDS, *searches_study.TUNING_SEEDS}
TABLES = sorted(path.stem for path in (ROOT / "qtdqas_lite" / "results").glob("*.csv"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A repository without results."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    return tmp_path / "qtdqas_lite" / "results"


def asked(name):
    return results.TASKS[name].plan()


@pytest.mark.parametrize("name", TASKS)
def test_every_configuration_is_asked_for_once_and_can_be_passed(name):
    texts = [json.dumps(one, sort_keys=True) for one in asked(name)]
    assert len(texts) == len(set(texts))
    for one in asked(name):
        inspect.signature(results.TASKS[name].run).bind(**one)
    assert {one["seed"] for one in asked(name)} == {*SEEDS.get(name, applications.SEEDS)}


def test_there_are_tables():
    assert set(TABLES) <= set(TASKS)
    assert len(TABLES) >= 2


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_hold_what_is_asked_for(name):
    table = read_table(ROOT / "qtdqas_lite" / "results" / f"{name}.csv")
    wanted = {json.dumps(one, sort_keys=True) for one in asked(name)}
    # The studies take hours: what is there is said with its number of seeds.
    missing = set() if name in SEEDS else wanted - set(table[KEY])
    assert not missing, f"run make results TASK={name}"
    assert set(table[KEY]) <= wanted
    assert table["commit"].str.fullmatch(r"[0-9a-f]{12}").all(), "results of code that was changed"
    if name in STUDIES:  # a learning rate that is too high to finish is not chosen
        table = table[table["phase"] != "tune"]
    assert set(table["ended"]) == {"finished"}


@pytest.mark.parametrize("name", sorted({*STUDIES} & {*TABLES}))
def test_what_was_tested_has_the_rate_that_the_stored_tuning_chooses(name):
    table = read_table(ROOT / "qtdqas_lite" / "results" / f"{name}.csv")
    chosen = growth_study.chosen_rates(table, STUDIES[name])
    for _, row in table[table["phase"] == "test"].iterrows():
        method = row["task"], row["method"]
        assert row["learning_rate"] == chosen[method], method
    assert table.loc[table["phase"] == "tune", "test"].isna().all()


def test_the_numbers_of_the_papers_circuits():
    twelve = [applications.circuit_options(number) for number in range(1, 13)]
    # arXiv 2505.09653: 1 to 6 begin with Hadamards; Ent-Rx, -Ry, -Rz, then Cyc-Rx, -Ry, -Rz.
    assert [one["hadamard"] for one in twelve] == [True] * 6 + [False] * 6
    assert [one["entangler"] for one in twelve] == (["chain"] * 3 + ["ring"] * 3) * 2
    assert [one["rotation"] for one in twelve] == ["rx", "ry", "rz"] * 4
    assert applications.circuit_options() == {}
    assert applications.circuit_options(None, "qubit") == {"sharing": "qubit"}


SMALL = [
    ("classification", {"task": "digits mlp", "kind": "relaxed", "n_layers": 2}),
    ("classification", {"task": "digits mlp", "kind": "random", "n_layers": 2}),
    ("classification", {"task": "digits mlp", "kind": "fixed", "n_layers": 2, "number": 10}),
    ("forecasting", {"series": "sunspots", "kind": "ensemble", "method": "first-order"}),
    ("forecasting", {"series": "narma-5", "kind": "fixed", "number": 3}),
]

AGENT = {"environment": "CartPole-v1", "seed": 2, "n_layers": 2, "episodes": 2}


@pytest.mark.parametrize(("name", "one"), SMALL)
def test_a_row(name, one):
    row = results.TASKS[name].run(**one, steps=3, seed=2)
    assert json.loads(json.dumps(row)) == row
    for key in ("kind", "number"):
        assert row[key] == one.get(key)
    score, retrained = {
        "classification": ("test_accuracy", "retrained_accuracy"),
        "forecasting": ("test_mse", "retrained_mse"),
    }[name]
    if one["kind"] not in ("relaxed", "ensemble"):
        assert (row["found"], row[retrained]) == (None, None)
        return
    # What was found is trained by itself, and gives what the table says.
    found = Candidate.from_json(row["found"])
    if name == "classification":
        again = applications.classify(
            applications.images(one["task"]),
            applications.TARGETS[one["task"]],
            found,
            seed=2,
            steps=3,
            network={"gain": 2.0},
        ).row
    else:
        again = applications.train_forecaster("sunspots", found, seed=2, steps=3).row
    assert row[retrained] == again[score]


def test_one_table_from_the_command(elsewhere, monkeypatch, capsys):
    few = dataclasses.replace(
        results.TASKS["forecasting"],
        plan=lambda: [{"series": "narma-5", "kind": "plain", "steps": 2, "seed": 1}],
    )
    monkeypatch.setitem(results.TASKS, "forecasting", few)
    monkeypatch.setattr(sys, "argv", ["results.py", "forecasting", "--jobs", "1"])
    assert results.main() == 0
    assert "forecasting.csv: 1 rows" in capsys.readouterr().out
    table = pandas.read_csv(elsewhere / "forecasting.csv")
    assert table["weights"].tolist() == [1781]
    assert "torch" in table["versions"][0]
    assert [file.name for file in elsewhere.glob("[!.]*")] == ["forecasting.csv"]


def test_what_is_tuned_is_stored_before_it_is_tested(elsewhere, monkeypatch):
    def run(phase, seed):
        table = elsewhere / "growth.csv"
        return {"phase": phase, "before": len(pandas.read_csv(table)) if table.exists() else 0}

    order = [("tune", 1), ("tune", 2), ("test", 1), ("tune", 3), ("test", 3)]
    plan = [{"phase": phase, "seed": seed} for phase, seed in order]
    monkeypatch.setitem(results.TASKS, "growth", results.Task(run, lambda: plan))
    monkeypatch.setattr(sys, "argv", ["results.py", "growth", "--jobs", "2"])
    assert results.main() == 0
    before = pandas.read_csv(elsewhere / "growth.csv").set_index("configuration")["before"]
    assert before[json.dumps({"phase": "test", "seed": 1})] == 2
    assert before[json.dumps({"phase": "test", "seed": 3})] == 4


def test_a_plan_says_what_is_missing_and_what_it_costs(elsewhere, monkeypatch, capsys):
    def run(task, seed):
        return {"task": task, "seed": seed, "ended": "finished"}

    plan = [{"task": task, "seed": seed} for task in ("short", "long") for seed in (1, 2, 3)]
    table = results.sweep(run, plan[:1] + plan[3:4], elsewhere / "growth.csv", progress=False)
    lines = (elsewhere / "growth.csv").read_text()
    for seconds, hours in zip(table["wall_seconds"], ("360.0", "7200.0"), strict=True):
        lines = lines.replace(repr(seconds), hours)
    (elsewhere / "growth.csv").write_text(lines)
    monkeypatch.setitem(results.TASKS, "growth", results.Task(run, lambda: plan))
    monkeypatch.setattr(sys, "argv", ["results.py", "growth", "--plan"])
    assert results.main() == 0
    said = capsys.readouterr().out
    assert said == "growth: 4 of 6 rows are missing: about 4.2 hours of one core\n"
    assert (elsewhere / "growth.csv").read_text() == lines
    (elsewhere / "growth.csv").unlink()
    assert results.main() == 0
    assert "6 of 6 rows are missing: nothing is stored yet" in capsys.readouterr().out


def test_a_study_runs_on_a_cluster(elsewhere, monkeypatch):
    """Workers have neither the book's scripts nor the table: they are sent all that they need."""

    def tuned(**one):
        return one | {"metric": "accuracy", "validation": one["learning_rate"], "test": None}

    tunings = growth_study.compared("linear", "growth", seeds=(), tuning=(101,))
    results.sweep(tuned, tunings, elsewhere / "growth.csv", progress=False)
    sizes = {"phase": "curve", "seed": 1, "n_angles": 1, "n_layers": 3}
    plan = [*tunings, {"task": "linear", "method": "growth", **sizes}]
    task = dataclasses.replace(results.TASKS["growth"], plan=lambda: plan)
    monkeypatch.setitem(results.TASKS, "growth", task)
    monkeypatch.setattr(sys, "argv", ["results.py", "growth", "--jobs", "1", "--dask", "local"])
    assert results.main() == 0
    last = read_table(elsewhere / "growth.csv").iloc[-1]
    assert (last["phase"], last["learning_rate"], last["ended"]) == ("curve", 0.6, "finished")


def test_a_run_that_fails_is_told(elsewhere, monkeypatch, capsys):
    def run(seed):
        raise ValueError("no convergence")

    monkeypatch.setitem(results.TASKS, "growth", results.Task(run, lambda: [{"seed": 1}]))
    monkeypatch.setattr(sys, "argv", ["results.py", "growth", "--jobs", "1"])
    with pytest.warns(RuntimeWarning, match="1 of 1 runs failed"):
        assert results.main() == 1
    assert "failed: 1 rows" in capsys.readouterr().out


def test_no_such_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["results.py", "cooking"])
    with pytest.raises(SystemExit, match="2"):
        results.main()
    assert "TASK must be one of classification, forecasting" in capsys.readouterr().err


def test_rows_say_which_code_they_come_from():
    assert re.fullmatch(r"[0-9a-f]{12}\+?", results.origin()["commit"])


def test_a_row_of_an_agent():
    one = {**AGENT, "total_steps": 100, "n_steps": 32, "n_envs": 2, "batch_size": 64}
    row = applications.reinforcement(kind="relaxed", **one)
    assert json.loads(json.dumps(row)) == row
    found = Candidate.from_json(row["found"])
    again = applications.train_agent(kind=found, **one).row
    assert row["retrained_return"] == again["mean_return"]
    points = json.loads(row["curve"])
    assert len(points) == applications.CURVE_POINTS
    returns = [point for point in points if point is not None]
    assert returns
    assert min(returns) >= 1


def test_small_plain_networks_have_about_as_many_weights_as_an_ensemble_has_numbers():
    one = {**AGENT, "environment": applications.ROOMS[0], "total_steps": 100}
    one |= {"n_steps": 32, "n_envs": 2, "batch_size": 64}
    row = applications.reinforcement(kind="small plain", **one)
    assert row["kind"] == "small plain"
    # 147 inputs, one hidden unit, seven logits and one value, with biases.
    assert row["trainables"] == row["weights"] == (147 + 1 + 7 + 7) + (147 + 1 + 1 + 1) == 312


def test_the_curve_is_the_mean_of_what_ended_in_each_part():
    episodes = [(1, 2.0), (25, 4.0), (26, 8.0), (999, 1.0), (1000, 3.0)]
    curve = applications.curve([{"step": s, "return": r} for s, r in episodes], 1000)
    assert curve == [3.0, 8.0, *[None] * 37, 2.0]


def test_a_row_of_chance():
    row = applications.reinforcement("CartPole-v1", "random", 2)
    expected = applications.evaluate(None, "CartPole-v1", seed=2500)
    assert (row["mean_return"], row["terminated"]) == (expected.mean_return, expected.terminated)
