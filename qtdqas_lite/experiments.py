"""Sweeps: each configuration is run once, and its row is kept in a table as soon as it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from .checkpoint import write_atomically
from .errors import DataError, SearchError, needs

if TYPE_CHECKING:
    from pandas import DataFrame

with needs("a sweep", "joblib", "pandas"):
    import joblib
    import pandas

# What tells rows apart. JSON, because a table cannot tell 1 from 1.0 or None from nothing.
KEY = "configuration"


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

    The table is written anew, at once or not at all, when a run ends. After an error or Ctrl-C it
    holds what was finished, and the same call goes on from there. Rows of other configurations
    stay in it. Of two sweeps that share a table at the same time, each keeps the other's rows,
    except one that is written in the very moment between its own reading and writing.

    Args:
        run: Called as ``run(**configuration)``; gives the row's columns, as plain values.
        configurations: Their values are plain too: whatever JSON can hold.
        path: The table, a CSV file; it need not exist.
        columns: More columns of each new row, such as the commit.
        n_jobs: How many processes; -1 for as many as there are cores. joblib runs them, and on a
            cluster inside a block of its ``parallel_config`` with the backend ``"dask"``.
        progress: Whether to show a progress bar.

    Returns:
        One row a configuration, in the order given. Beside the columns of ``run`` and ``columns``
        there are ``wall_seconds`` and ``configuration``, which is JSON.

    Raises:
        SearchError: if a configuration is given twice, or cannot be written as JSON, or a row has
            a column that is already taken.
        DataError: if the file is not such a table.
        Exception: what ``run`` raises.
    """
    keys = [_key(configuration) for configuration in configurations]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise SearchError(f"each configuration is run once, and this one is twice: {min(repeated)}")
    path = Path(path)
    held = set(_read_if_there(path)[KEY])
    more = dict(columns or {})
    missing = [dict(one) for one, key in zip(configurations, keys, strict=True) if key not in held]
    jobs = [joblib.delayed(_row)(run, configuration, more) for configuration in missing]
    rows = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs)
    for row in tqdm(rows, total=len(missing), disable=not progress, desc=path.stem):
        table = _read_if_there(path)  # anew, because another sweep may have written to it
        if row[KEY] not in set(table[KEY]):
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pandas.DataFrame([*table.to_dict("records"), row])
            write_atomically(path, table.to_csv(index=False).encode())
    table = _read_if_there(path)
    return table.set_index(KEY).loc[keys].reset_index()[table.columns]


def read_table(path: str | PathLike[str]) -> DataFrame:
    """Read a table that :func:`sweep` has written: a row a run, a column a quantity.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if the file is not such a table.
    """
    try:
        table = pandas.read_csv(path)
    except (ValueError, pandas.errors.ParserError) as error:
        raise DataError(f"{path} is not a table: {error}") from error
    if KEY not in table or table[KEY].isna().any() or table[KEY].duplicated().any():
        raise DataError(
            f"{path} is not a table of a sweep: each row needs a {KEY!r} of its own. Give another "
            f"path, or move this file away"
        )
    return table


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


def _read_if_there(path: Path) -> DataFrame:
    return read_table(path) if path.exists() else pandas.DataFrame({KEY: []})


def _key(configuration: Mapping[str, Any]) -> str:
    try:
        return json.dumps(configuration, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SearchError(
            f"a configuration has plain values that JSON can hold, and {dict(configuration)} has "
            f"others: {error}"
        ) from error


def _row(
    run: Callable[..., Mapping[str, Any]], configuration: dict[str, Any], columns: dict[str, Any]
) -> dict[str, Any]:
    started = time.perf_counter()
    found = dict(run(**configuration))
    taken = {**columns, "wall_seconds": time.perf_counter() - started, KEY: _key(configuration)}
    if both := sorted(found.keys() & taken.keys()):
        raise SearchError(f"the columns {both} are taken, and a run gives them too")
    return {**found, **taken}
