"""Run the book's experiments at full size: `make results TASK=...` calls this.

Rows that the table already holds are not run again, so a run that was stopped goes on where it was.
Tables lie inside the package, because a chapter reads them wherever it runs.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import joblib
import pandas

from qtdqas_lite.experiments import read_table, row_key, sweep

sys.path.insert(0, str(Path(__file__).resolve().parent))
from applications_study import (
    classification,
    classification_plan,
    forecasting,
    forecasting_plan,
    reinforcement,
    reinforcement_plan,
)
from controls_study import RATES as CONTROLS_RATES
from controls_study import controls, controls_plan
from growth_study import RATES, Rates, Row, growth, growth_plan, stored_rates
from searches_study import searches, searches_plan, stored_settings

#: What tells, in this order, how long a run takes.
ALIKE = (
    "task",
    "series",
    "environment",
    "space",
    "phase",
    "method",
    "kind",
    "n_angles",
    "n_layers",
)
#: What tells, in this order, how long a run takes.
ALIKE = ("task", "series", "environment", "space", "method", "kind", "n_angles", "n_layers")
ROOT = Path(__file__).resolve().parent.parent
#: What workers of a cluster have to import, each after those that it imports itself.
SCRIPTS = (
    "growth_room",
    "pauli_words",
    "growth_study",
    "controls_study",
    "searches_study",
    "applications_study",
)


@dataclass(frozen=True)
class Task:
    """One table: what is run for a row, and which rows there are to be.

    A study that tunes reads from its table what was chosen, and its ``run`` is passed that.
    """

    run: Callable[..., Row]
    plan: Callable[[], list[Row]]
    tuned: Callable[[Path], Rates] | None = None


TASKS = {
    "classification": Task(classification, classification_plan),
    "forecasting": Task(forecasting, forecasting_plan),
    "reinforcement": Task(reinforcement, reinforcement_plan),
    "growth": Task(growth, growth_plan, partial(stored_rates, grid=RATES)),
    "controls": Task(controls, controls_plan, partial(stored_rates, grid=CONTROLS_RATES)),
    "searches": Task(searches, searches_plan, stored_settings),
}


def git(*arguments: str) -> str:
    """Ask git, and give nothing where there is none."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def origin() -> Row:
    """Say which code the rows come from: ``+`` behind the commit means that it was changed."""
    changed = git("status", "--porcelain", "--", "qtdqas_lite/*.py", "book/*.py")
    packages = ("qtdqas-lite", "torch", "numpy")
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") + ("+" if changed else ""),
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "python": platform.python_version(),
    }


def missing(task: Task, path: Path) -> tuple[list[Row], float]:
    """List what a table lacks, and estimate the seconds of one core that it takes.

    A row takes as long as stored ones of which the most settings are the same, in the mean.
    """
    table = read_table(path) if path.exists() else pandas.DataFrame({"configuration": []})
    there = set(table["configuration"])
    lacks = [one for one in task.plan() if row_key(one) not in there]
    seconds = 0.0
    for one in lacks:
        alike = table
        for name in ALIKE:
            if name in one and name in alike and (alike[name] == one[name]).any():
                alike = alike[alike[name] == one[name]]
        seconds += alike["wall_seconds"].mean() if len(alike) else float("nan")
    return lacks, seconds


@contextmanager
def cluster(address: str | None, jobs: int) -> Iterator[None]:
    """Let joblib run on a Dask cluster: one at an address, or ``"local"`` for one of its own."""
    if address is None:
        yield
        return
    import dask.distributed

    if address == "local":
        options: Row = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": ":0"}
    else:
        options = {"address": address}
    with dask.distributed.Client(**options) as client:
        for script in SCRIPTS:
            client.upload_file(str(Path(__file__).with_name(f"{script}.py")))
        with joblib.parallel_config(backend="dask"):
            yield


def main() -> int:
    """Run what is missing of one table, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help=f"which of {', '.join(TASKS)}; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many processes")
    parser.add_argument("--dask", help="a Dask scheduler's address, or local to start one here")
    parser.add_argument("--plan", action="store_true", help="only say what would be run")
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - set(TASKS):
        parser.error(f"TASK must be one of {', '.join(TASKS)}, got {', '.join(sorted(unknown))}")
    paths = {
        name: ROOT / "qtdqas_lite" / "results" / f"{name}.csv" for name in arguments.tasks or TASKS
    }
    if arguments.plan:
        for name, path in paths.items():
            lacks, seconds = missing(TASKS[name], path)
            cost = f": about {seconds / 3600:.1f} hours of one core" if lacks else ""
            if math.isnan(seconds):
                cost = ": nothing is stored yet that would tell how long they take"
            print(f"{name}: {len(lacks)} of {len(TASKS[name].plan())} rows are missing{cost}")
        return 0
    failed = 0
    with cluster(arguments.dask, arguments.jobs):
        for name, path in paths.items():
            task, found, columns = TASKS[name], 0, origin()
            # What is tuned has to be there before it is tested, whatever other processes do.
            for _, part in groupby(task.plan(), lambda one: one.get("phase")):
                rates = {"rates": task.tuned(path)} if task.tuned else {}
                rows = sweep(
                    partial(task.run, **rates),
                    [*part],
                    path,
                    columns=columns,
                    n_jobs=arguments.jobs,
                )
                found += len(rows)
                failed += int(rows["error"].notna().sum()) if "error" in rows else 0
            print(f"{path.relative_to(ROOT)}: {found} rows")
    if failed:
        print(f"failed: {failed} rows; their column error says why, and deleted rows are run again")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
