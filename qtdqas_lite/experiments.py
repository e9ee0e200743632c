"""Sweeps: each configuration is run once, and its row is kept in a table as soon as it is there."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from tqdm.auto import tqdm

from .errors import DataError, SearchError, check_whole, needs

if TYPE_CHECKING:
    from pandas import DataFrame

with needs("a sweep", "joblib", "pandas", "filelock"):
    import joblib

    from .files import as_path
    from .tables import KEY, Row, add_rows, cells, read_rows, to_frame


def sweep(
    run: Callable[..., Mapping[str, Any]],
    configurations: Sequence[Mapping[str, Any]],
    path: str | PathLike[str],
    *,
    columns: Mapping[str, Any] | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> DataFrame:
    """Run every configuration that a table does not hold yet, and give the rows of all of them.

    The table is written anew, at once or not at all, when a run ends. After Ctrl-C or a kill it
    holds what was finished, and the same call goes on from there. A run that raises an error stops
    no other: its row says why in a column ``error``. To run it again, delete the row. Rows of other
    configurations stay in the table, and several sweeps may share it at the same time: while one of
    them writes, it holds a lock on the empty file ``.NAME.lock`` beside the table.

    Args:
        run: Called as ``run(**configuration)``; gives the row's columns. A value is text, a
            number, a bool or None, of Python or NumPy.
        configurations: Their values are plain too: whatever JSON can hold.
        path: The table, a file that ends in ``.csv`` or, to be compressed, in ``.csv.gz``. It
            need not exist.
        columns: More columns of each new row, such as the commit.
        n_jobs: How many processes; -1 for as many as there are cores. joblib runs them, and on a
            cluster inside a block of its ``parallel_config`` with the backend ``"dask"``.
        progress: Whether to show a progress bar.

    Returns:
        One row a configuration, in the order given. Beside the columns of ``run`` and ``columns``
        there are ``wall_seconds`` and ``configuration``, which is JSON. See :func:`read_table`.

    Raises:
        SearchError: if a configuration is given twice, or cannot be written as JSON, or a row has
            a column that is already taken or a value that a table cannot hold.
        DataError: if the file is not such a table, or its name ends otherwise.
        OSError: if nothing can be written there.

    Warns:
        RuntimeWarning: if a run failed.
    """
    if not callable(run) or not isinstance(configurations, Iterable):
        raise SearchError(f"run is a function and configurations a list, got {run!r:.200}")
    n_jobs = check_whole(SearchError, -1, n_jobs=n_jobs)
    path, more = as_path(DataError, path), cells(_named("columns", columns or {}))
    _check_free(more, {"wall_seconds", "error", KEY})
    plan = [_named("a configuration", one) for one in configurations]
    keys = [row_key(one) for one in plan]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise SearchError(f"each configuration is run once, and this one is twice: {min(repeated)}")
    table = read_rows(path)
    rows = {key: table[key] for key in keys if key in table}
    missing = [one for one, key in zip(plan, keys, strict=True) if key not in rows]
    if missing:  # a folder that cannot be written to is noticed before the first run
        path.parent.mkdir(parents=True, exist_ok=True)
        add_rows(path, {})
    jobs = [joblib.delayed(_row)(run, one, more) for one in missing]
    found = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs)
    failed = []
    for name, row in tqdm(found, total=len(missing), disable=not progress, desc=path.stem):
        rows[name] = row
        table = add_rows(path, rows)  # all of them, should somebody have removed some
        failed += [name] if "error" in row else []
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(missing)} runs failed, the first of them {failed[0]}: the "
            f"column error says why. Delete their rows to run them again",
            RuntimeWarning,
            stacklevel=2,
        )
    return to_frame(table, keys)


def read_table(path: str | PathLike[str]) -> DataFrame:
    """Read a table that :func:`sweep` has written: a row a run, a column a quantity.

    Every value is the one that was written: ``"0012"`` is text and ``12`` a number. A column has
    the type that pandas gives to such values, so that None beside numbers is NaN. Where that would
    change a value, as it rounds large integers beside None, the column holds Python objects.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if the file is not such a table.
    """
    path = as_path(DataError, path)
    path.stat()  # a missing file is the caller's FileNotFoundError, and for a sweep it is none
    table = read_rows(path)
    return to_frame(table, table)


def stored_results(task: str) -> DataFrame:
    """Read the book's own results of a task, as ``make results`` has left them.

    Args:
        task: ``"classification"``, ``"forecasting"``, ``"reinforcement"`` or ``"growth"``.

    Raises:
        DataError: if there are none of this task.
    """
    folder = files("qtdqas_lite").joinpath("results")
    names = sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".csv"))
    if task not in names:
        raise DataError(f"there are stored results of {names}, and none of {task!r}")
    return read_table(str(folder.joinpath(f"{task}.csv")))


def _row(run: Callable[..., Any], configuration: dict[str, Any], columns: Row) -> tuple[str, Row]:
    started, problem = time.perf_counter(), {}
    try:
        given = run(**configuration)
    except Exception as error:  # whatever it is, the other runs go on
        text = f"{type(error).__name__}: {error}"[:1000]
        given, problem = {}, {"error": text.encode(errors="replace").decode()}
    found, name = _named("what a run gives", given), row_key(configuration)
    row = columns | cells({**problem, "wall_seconds": time.perf_counter() - started, KEY: name})
    _check_free(found, [*row, "error"])
    return name, cells(found) | row


def _named(what: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SearchError(f"{what} must map names to values, and is {values!r:.200}; give a dict")
    return dict(values)


def _check_free(names: Iterable[str], taken: Iterable[str]) -> None:
    if both := sorted({*names} & {*taken}):
        raise SearchError(f"the columns {both} are taken; give them other names")


def row_key(configuration: Mapping[str, Any]) -> str:
    """Write a configuration as the text that a table knows it by.

    It is JSON, because a table cannot tell 1 from 1.0 or None from nothing.

    Raises:
        SearchError: if a value is nothing that JSON can hold.
    """
    try:
        return json.dumps(configuration, sort_keys=True, allow_nan=False, default=_item)
    except (TypeError, ValueError, RecursionError) as error:
        raise SearchError(
            f"a configuration has plain values that JSON can hold, and {configuration!r:.200} has "
            f"others: {error}"
        ) from error


def _item(value: Any) -> Any:
    if isinstance(value, numpy.generic):
        return value.item()
    raise TypeError(f"{value!r:.200} is of type {type(value).__name__}")
