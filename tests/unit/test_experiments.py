"""Sweeps: what is run, what is kept, and what goes on from where it stopped."""

import json
import math
import re
import sys

import joblib
import pandas
import pytest

from qtdqas_lite import DataError, DependencyError, SearchError
from qtdqas_lite.experiments import read_table, stored_results, sweep


def double(x, seed=0, **_):
    return {"x": x, "seed": seed, "twice": 2 * x, "method": "fit", "note": None}


def grid(*values, **more):
    return [{"x": x, "seed": seed, **more} for x in values for seed in (0, 1)]


class Counted:
    """A run that counts its calls, and fails when told to."""

    def __init__(self, failing=()):
        self.calls, self.failing = [], failing

    def __call__(self, x, seed):
        if x in self.failing:
            raise self.failing[x]
        self.calls.append((x, seed))
        return double(x, seed)


def test_a_row_for_each_configuration_in_order(tmp_path):
    path = tmp_path / "new folder" / "a table.csv"
    table = sweep(double, grid(3.5, 1, 2), path, columns={"commit": "abc"}, progress=False)
    assert table["x"].tolist() == [3.5, 3.5, 1, 1, 2, 2]
    assert table["twice"].tolist() == [7, 7, 2, 2, 4, 4]
    assert set(table["commit"]) == {"abc"}
    assert (table["wall_seconds"] >= 0).all()
    assert json.loads(table["configuration"][2]) == {"x": 1, "seed": 0}
    assert table["note"].isna().all()
    pandas.testing.assert_frame_equal(table, read_table(path))


def test_floats_come_back_bit_for_bit(tmp_path):
    values = [0.1 + 0.2, math.pi * 1e-12, 1 / 3, 5e-324, -1.7976931348623157e308]
    table = sweep(
        lambda i: {"value": values[i]},
        [{"i": i} for i in range(5)],
        tmp_path / "t.csv",
        progress=False,
    )
    assert table["value"].tolist() == values
    assert read_table(tmp_path / "t.csv")["value"].tolist() == values


def test_nothing_is_run_twice(tmp_path):
    path, run = tmp_path / "t.csv", Counted()
    first = sweep(run, grid(1, 2), path, progress=False)
    assert run.calls == [(1, 0), (1, 1), (2, 0), (2, 1)]
    again = sweep(run, grid(2, 1, 5), path, progress=False)
    assert run.calls[4:] == [(5, 0), (5, 1)]
    assert again["x"].tolist() == [2, 2, 1, 1, 5, 5]
    assert again["wall_seconds"][2] == first["wall_seconds"][0]
    # The order of the values does not matter, and rows that are not asked for are kept.
    only = sweep(run, [{"seed": 1, "x": 2}], path, progress=False)
    assert only["twice"].tolist() == [4]
    assert len(run.calls) == 6
    assert len(read_table(path)) == 6


def test_values_of_another_type_are_another_configuration(tmp_path):
    run = Counted()
    sweep(run, [{"x": 1, "seed": 0}, {"x": 1.0, "seed": 0}, {"x": True, "seed": 0}], tmp_path / "t")
    assert len(run.calls) == 3


@pytest.mark.parametrize("error", [ValueError("no convergence"), KeyboardInterrupt()])
def test_what_was_finished_is_kept(tmp_path, error):
    path, run = tmp_path / "t.csv", Counted({7: error})
    with pytest.raises(type(error)):
        sweep(run, grid(1, 7, 2), path, progress=False)
    assert read_table(path)["x"].tolist() == [1, 1]
    run.failing = {}
    assert sweep(run, grid(1, 7, 2), path, progress=False)["x"].tolist() == [1, 1, 7, 7, 2, 2]
    assert run.calls.count((1, 0)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_two_sweeps_share_a_table(tmp_path):
    path = tmp_path / "t.csv"

    def first(x, seed):  # while it runs, another sweep does some of its work, and more
        if (x, seed) == (1, 0):
            sweep(double, grid(2, 9), path, columns={"who": "other"}, progress=False)
        return double(x, seed)

    found = sweep(first, grid(1, 2), path, columns={"who": "first"}, progress=False)
    assert found["who"].tolist() == ["first", "first", "other", "other"]
    assert sorted(read_table(path)["x"]) == [1, 1, 2, 2, 9, 9]


def test_processes_give_the_same_table(tmp_path):
    alone = sweep(double, grid(1, 2, 3), tmp_path / "a.csv", progress=False)
    shared = sweep(double, grid(1, 2, 3), tmp_path / "b.csv", n_jobs=2, progress=False)
    pandas.testing.assert_frame_equal(
        alone.drop(columns="wall_seconds"), shared.drop(columns="wall_seconds")
    )


def test_another_backend_is_used(tmp_path):
    with joblib.parallel_config(backend="threading"):
        found = sweep(Counted(), grid(1), tmp_path / "t.csv", n_jobs=2, progress=False)
    assert found["twice"].tolist() == [2, 2]


def test_the_bar_counts_what_is_missing(tmp_path, capsys):
    sweep(double, grid(1), tmp_path / "few.csv", progress=False)
    assert capsys.readouterr().err == ""
    sweep(double, grid(1, 2), tmp_path / "few.csv")
    assert "few: 100%" in (shown := capsys.readouterr().err)
    assert "2/2" in shown


def test_no_configurations(tmp_path):
    assert len(sweep(double, [], tmp_path / "t.csv", progress=False)) == 0
    sweep(double, grid(1), tmp_path / "t.csv", progress=False)
    assert len(sweep(double, [], tmp_path / "t.csv", progress=False)) == 0
    assert len(read_table(tmp_path / "t.csv")) == 2


@pytest.mark.parametrize(
    "configurations",
    [[{"x": {1, 2}}], [{"x": math.nan}], [{"x": pytest}]],
)
def test_values_that_json_cannot_hold(tmp_path, configurations):
    with pytest.raises(SearchError, match="plain values that JSON can hold"):
        sweep(double, configurations, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


def test_twice_the_same(tmp_path):
    with pytest.raises(SearchError, match="this one is twice: " + re.escape('{"seed": 0, "x": 1}')):
        sweep(double, [{"x": 1, "seed": 0}, {"seed": 0, "x": 1}], tmp_path / "t.csv")


@pytest.mark.parametrize("taken", ["configuration", "wall_seconds", "commit"])
def test_a_column_that_is_taken(tmp_path, taken):
    with pytest.raises(SearchError, match=rf"the columns \['{taken}'\] are taken"):
        sweep(lambda: {taken: 1}, [{}], tmp_path / "t.csv", columns={"commit": "c"}, progress=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "configuration\n1\n1\n",
        "configuration,a\n,1\n",
        'configuration\n"{',
        "\1",
    ],
)
def test_a_file_that_is_no_table_is_left_alone(tmp_path, text):
    path = tmp_path / "notes.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"notes\.csv is not a table"):
        sweep(double, grid(1), path, progress=False)
    assert path.read_text() == text


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00configuration")
    with pytest.raises(DataError, match="is not a table"):
        read_table(tmp_path / "t.csv")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "none.csv")


def test_results_that_are_not_there():
    with pytest.raises(DataError, match="none of 'cooking'"):
        stored_results("cooking")
    with pytest.raises(DataError, match=r"none of '\.\./pyproject'"):
        stored_results("../pyproject")


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "qtdqas_lite.experiments")
    with pytest.raises(DependencyError, match=r"a sweep needs .*pandas.*pip install joblib pandas"):
        import qtdqas_lite.experiments  # noqa: F401
