"""Sweeps: what is run, what is kept, and what goes on from where it stopped."""

import gzip
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import distributed
import joblib
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtdqas_lite import DataError, DependencyError, SearchError
from qtdqas_lite.experiments import read_table, stored_results, sweep

# What tables are known to change: texts that read as numbers or as nothing, large integers, ends of
# lines, quotes, and every kind of number.
TEXTS = [
    "6e12345",
    "0012345",
    "1234567",
    "NA",
    "None",
    "nan",
    "True",
    "",
    " ",
    "1_0",
    '"',
    ",",
    '"",',
]
TEXTS += ["50%\r100%", "a\nb", "a\r\nb", "\0", "\ufeff", "\x1a", "\u2028", "\x85", "\\ud800", "ä"]
NUMBERS = [0, -1, 2**53 + 1, 2**63, -(2**200), True, False, 0.1 + 0.2, -0.0, 5e-324, 1e308, 1e22]
NUMBERS += [math.nan, math.inf, -math.inf]


def given_back(values, path):
    """What a table gives for values of one column, one row each."""
    plan = [{"i": i} for i in range(len(values))]
    table = sweep(lambda i: {"value": values[i]}, plan, path, progress=False)
    pandas.testing.assert_frame_equal(table, read_table(path))
    return table["value"].tolist()


def exactly(value):
    """A value with its type; no two of these are equal unless table cells are the same."""
    return type(value), repr(value)


def double(x, seed=0, **_):
    return {"x": x, "seed": seed, "twice": 2 * x, "method": "fit", "note": None}


def grid(*values, **more):
    return [{"x": x, "seed": seed, **more} for x in values for seed in (0, 1)]


def no_sevens(x, seed):
    if x == 7:
        raise ValueError("no convergence \ud800")
    return double(x, seed)


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


@pytest.mark.parametrize("value", [*TEXTS, *NUMBERS, None])
def test_a_value_comes_back_with_its_type(value, tmp_path):
    assert exactly(given_back([value], tmp_path / "t.csv")[0]) == exactly(value)


def test_values_of_all_kinds_share_a_column(tmp_path):
    values = [*TEXTS, *NUMBERS, None, "x"]
    found = given_back(values, tmp_path / "t.csv")
    assert [*map(exactly, found)] == [*map(exactly, values)]


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(st.characters(codec="utf-8")),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=25)
def test_any_values_share_a_column(values):
    with tempfile.TemporaryDirectory() as folder:
        found = given_back(values, Path(folder) / "t.csv.gz")
    for value, back in zip(values, found, strict=True):
        if value is None:
            assert pandas.isna(back)
        else:  # beside other numbers, an integer is a float where that is the same number
            assert value == back or (value != value and back != back)
            assert isinstance(back, str) == isinstance(value, str)


def test_columns_have_the_types_that_they_would_have_in_a_data_frame(tmp_path):
    rows = [
        {"whole": 1, "part": 0.5, "text": "1", "gap": 1, "flag": True, "large": 2**60 + 1},
        {"whole": 2, "part": 1, "text": "x", "gap": None, "flag": False, "large": None},
    ]
    plan = [{"i": 0}, {"i": 1}]
    table = sweep(lambda i: rows[i], plan, tmp_path / "t.csv", progress=False)
    usual = pandas.DataFrame(rows)
    for name in ("whole", "part", "text", "gap", "flag"):
        assert table[name].dtype == usual[name].dtype
    assert table["gap"][0] == 1
    assert math.isnan(table["gap"][1])
    assert table["large"].tolist() == [2**60 + 1, None]  # a data frame would have rounded it


def test_numpy_scalars_become_plain(tmp_path):
    scalars = [np.int64(3), np.float32(0.1), np.float64(0.1), np.bool_(True), np.str_("3")]
    found = given_back(scalars, tmp_path / "t.csv")
    assert [*map(exactly, found)] == [*map(exactly, [3, float(np.float32(0.1)), 0.1, True, "3"])]
    run = Counted()
    sweep(run, [{"x": np.float32(0.5), "seed": s} for s in np.arange(2)], tmp_path / "u.csv")
    sweep(run, grid(0.5), tmp_path / "u.csv")
    assert len(run.calls) == 2


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(1 / 3),
        np.ones(1),
        [1],
        {"a": 1},
        1j,
        pandas.NaT,
        "\ud800",
        np.datetime64(1, "s"),
    ],
)
def test_other_values_are_refused_and_no_other_row_is_lost(value, tmp_path):
    path, plan = tmp_path / "t.csv", [{"i": i} for i in range(3)]
    with pytest.raises(SearchError, match=r"the column 'value' is given .* convert it"):
        sweep(lambda i: {"value": value if i == 2 else i}, plan, path, progress=False)
    assert read_table(path)["value"].tolist() == [0, 1]
    with pytest.raises(SearchError, match="the column 'commit' is given"):
        sweep(pytest.fail, [{"reason": "it ran"}], path, columns={"commit": value})


def test_what_stands_in_the_file_is_copied_as_it_is(tmp_path):
    path = tmp_path / "t.csv"
    old = pandas.DataFrame(
        {
            "seed": [1, 2],
            "score": [0.1 + 0.2, None],
            "kind": ["a, b", None],
            "ok": [True, False],
            "found": [2.0, None],
            "configuration": ['{"x": 1}', "{}"],
        }
    )
    old.to_csv(path, index=False)  # as tables were written once: text without quotes
    lines = path.read_text("utf-8").splitlines()[1:]
    pandas.testing.assert_frame_equal(read_table(path), pandas.read_csv(path))
    sweep(lambda x: {"commit": "0012"}, [{"x": 2}, {"x": 3}], path, progress=False)
    after = path.read_text("utf-8").splitlines()
    assert [line.removesuffix(",,") for line in after[1:3]] == lines
    sweep(lambda **_: pytest.fail("it ran again"), [{"x": 1}, {}, {"x": 3}], path, progress=False)
    assert path.read_text("utf-8").splitlines() == after
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").strip())
    assert read_table(path)["commit"].tolist()[2:] == ["0012", "0012"]


def test_a_table_may_be_compressed(tmp_path):
    path = tmp_path / "t.csv.gz"
    table = sweep(double, grid(1), path, progress=False)
    assert gzip.decompress(path.read_bytes()).startswith(b'"x",')
    assert pandas.read_csv(path)["twice"].tolist() == table["twice"].tolist()
    assert sweep(double, grid(1, 2), path, progress=False)["x"].tolist() == [1, 1, 2, 2]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not a table"):
        read_table(path)


@pytest.mark.parametrize("name", ["t", "t.parquet", "t.csv.zip", "t.gz"])
def test_a_name_of_another_kind_of_file_is_refused_before_anything_runs(name, tmp_path):
    with pytest.raises(DataError, match="does not end in"):
        sweep(pytest.fail, [{"reason": "it ran"}], tmp_path / name)


def test_a_place_that_cannot_be_written_to_is_noticed_before_anything_runs(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        sweep(pytest.fail, [{"reason": "it ran"}], tmp_path / "file" / "t.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="not a file"):
        sweep(pytest.fail, [{"reason": "it ran"}], tmp_path / "pipe.csv")


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
    ones = [{"x": one, "seed": 0} for one in (1, 1.0, True)]
    sweep(run, ones, tmp_path / "t.csv")
    assert len(run.calls) == 3


def test_what_was_finished_is_kept(tmp_path):
    path, run = tmp_path / "t.csv", Counted({7: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        sweep(run, grid(1, 7, 2), path, progress=False)
    assert read_table(path)["x"].tolist() == [1, 1]
    run.failing = {}
    assert sweep(run, grid(1, 7, 2), path, progress=False)["x"].tolist() == [1, 1, 7, 7, 2, 2]
    assert run.calls.count((1, 0)) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"t.csv", ".t.csv.lock"}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_run_that_fails_is_a_row_and_stops_nobody(tmp_path, n_jobs):
    path = tmp_path / "t.csv"
    with pytest.warns(RuntimeWarning, match=r"2 of 6 runs failed, .*column error"):
        found = sweep(no_sevens, grid(1, 7, 2), path, n_jobs=n_jobs, progress=False)
    assert found["x"].dropna().tolist() == [1, 1, 2, 2]
    assert found["error"][2:4].tolist() == ["ValueError: no convergence ?"] * 2
    assert found["error"].isna().tolist() == [True] * 2 + [False] * 2 + [True] * 2
    pandas.testing.assert_frame_equal(found, sweep(pytest.fail, grid(1, 7, 2), path))
    # A row that is deleted is run again.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "no convergence" not in line))
    again = sweep(double, grid(1, 7, 2), path, progress=False)
    assert again["x"].tolist() == [1, 1, 7, 7, 2, 2]


def killed_once(x, seed, marks):
    """Kill the process that runs it, the first time that this is configuration (3, 0)."""
    mark = Path(marks) / f"{x}-{seed}-{os.getpid()}"
    mark.touch()
    if (x, seed) == (3, 0) and len([*Path(marks).glob("3-0-*")]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return double(x, seed)


def test_a_cluster_whose_worker_is_killed_gives_the_same_table(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    plan = grid(*range(6), marks=str(marks))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.Client(**options), joblib.parallel_config(backend="dask"):
        found = sweep(killed_once, plan, tmp_path / "a.csv", progress=False)
    assert len([*marks.glob("3-0-*")]) == 2  # it was killed, and run again elsewhere
    alone = sweep(killed_once, plan, tmp_path / "b.csv", progress=False)
    pandas.testing.assert_frame_equal(
        found.drop(columns="wall_seconds"), alone.drop(columns="wall_seconds")
    )
    assert len(read_table(tmp_path / "a.csv")) == 12


def test_two_sweeps_share_a_table(tmp_path):
    path = tmp_path / "t.csv"

    def first(x, seed):  # while it runs, another sweep does some of its work, and more
        if (x, seed) == (1, 0):
            sweep(double, grid(2, 9), path, columns={"who": "other"}, progress=False)
        return double(x, seed)

    found = sweep(first, grid(1, 2), path, columns={"who": "first"}, progress=False)
    assert found["who"].tolist() == ["first", "first", "other", "other"]
    assert sorted(read_table(path)["x"]) == [1, 1, 2, 2, 9, 9]


def test_two_sweeps_at_full_speed_lose_no_row(tmp_path):
    path, link = tmp_path / "t.csv", tmp_path / "link.csv"
    link.symlink_to(path)
    lengths = []

    def work(number):
        plan = [{"x": x, "seed": number} for x in range(30)]
        lengths.append(len(sweep(double, plan, (path, link)[number], progress=False)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [30, 30]
    assert len(read_table(path)) == 60


def test_rows_that_somebody_removes_are_there_in_the_end(tmp_path):
    path = tmp_path / "t.csv"
    sweep(double, grid(1), path, progress=False)

    def run(x, seed):
        path.unlink(missing_ok=True)
        return double(x, seed)

    assert sweep(run, grid(2, 1, 3), path, progress=False)["x"].tolist() == [2, 2, 1, 1, 3, 3]
    assert len(read_table(path)) == 6


def test_a_sweep_that_is_killed_while_it_writes_goes_on(tmp_path):
    path = tmp_path / "t.csv"
    code = (
        "import os, signal, sys; from qtdqas_lite.experiments import sweep\n"
        "def run(x, seed):\n"
        "    if x == 2: os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return {'x': x, 'seed': seed, 'twice': 2 * x, 'method': 'fit', 'note': None}\n"
        f"sweep(run, {grid(1, 2)!r}, sys.argv[1], progress=False)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert read_table(path)["x"].tolist() == [1, 1]  # and the lock that it held is free
    found = sweep(double, grid(1, 2), path, progress=False).drop(columns="wall_seconds")
    alone = sweep(double, grid(1, 2), tmp_path / "u.csv", progress=False)
    pandas.testing.assert_frame_equal(found, alone.drop(columns="wall_seconds"))


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


@pytest.mark.parametrize("n_jobs", [None, "two", 1.5, -2, True])
def test_a_number_of_processes_that_is_none(n_jobs, tmp_path):
    with pytest.raises(SearchError, match="n_jobs must be"):
        sweep(pytest.fail, [{"reason": "it ran"}], tmp_path / "t.csv", n_jobs=n_jobs)


def test_no_configurations(tmp_path):
    assert len(sweep(double, [], tmp_path / "t.csv", progress=False)) == 0
    sweep(double, grid(1), tmp_path / "t.csv", progress=False)
    assert len(sweep(double, [], tmp_path / "t.csv", progress=False)) == 0
    assert len(read_table(tmp_path / "t.csv")) == 2


@pytest.mark.parametrize(
    "configurations",
    [[{"x": {1, 2}}], [{"x": math.nan}], [{"x": pytest}], [{"x": np.complex64(1)}]],
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
    if taken != "commit":
        with pytest.raises(SearchError, match="are taken"):
            sweep(pytest.fail, [{"reason": "it ran"}], tmp_path / "t.csv", columns={taken: 1})


@pytest.mark.parametrize(
    ("run", "configurations", "columns", "message"),
    [
        (None, [{}], None, "run is a function"),
        (double, None, None, "configurations a list"),
        (double, 7, None, "configurations a list"),
        (double, {"x": 1}, None, "a configuration must map names"),
        (double, [None], None, "a configuration must map names"),
        (double, [{1: 2}], None, "a configuration must map names"),
        (double, [{"x": 1}], ["commit"], "columns must map names"),
        (lambda: 0.5, [{}], None, "what a run gives must map names"),
        (lambda: {0: 0.5}, [{}], None, "what a run gives must map names"),
    ],
)
def test_arguments_of_other_types(run, configurations, columns, message, tmp_path):
    with pytest.raises(SearchError, match=message):
        sweep(run, configurations, tmp_path / "t.csv", columns=columns)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "configuration\n1\n1\n",
        "configuration,a\n,1\n",
        'configuration\n"{',
        'configuration,a\n"{""x"": 1}"\n',
        "configuration,a,a\nc,1,2\n",
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
    for name in ("experiments", "tables"):
        monkeypatch.delitem(sys.modules, f"qtdqas_lite.{name}")
    with pytest.raises(DependencyError, match=r"a sweep needs .*pandas.*pip install joblib pandas"):
        import qtdqas_lite.experiments  # noqa: F401
