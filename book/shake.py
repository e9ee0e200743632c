"""Run chapters many times, each time with another rounding: `make shake`.

The trainings of the book are chaotic, so a guard on what one of them found may fail on another
processor. Here each run moves the parameters of every optimiser by a millionth before its first
step and takes other arithmetic; the report says how often each guard held, and by how much.

What has been run is kept in _build/shake, and is run anew when the chapter's code, the package or
a version has changed. So the same call goes on where an interrupted one stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parent))
import shake_report

ROOT = Path(__file__).resolve().parent.parent
KERNEL = Path(__file__).resolve().parent / "shake_kernel.py"
PAGE = ROOT / "tests/notebooks/shake.md"
RUNS = 20
ISA = ("SSE4_2", "AVX2")
STARTUP = """\
import sys
sys.path.append({folder!r})
import shake_kernel
sys.path.remove({folder!r})
shake_kernel.install(get_ipython())
del sys, shake_kernel
"""


def arithmetic(run: int) -> dict[str, str]:
    """Say which variables a run sets; a machine ignores those of another processor.

    Run 0 is the machine's own arithmetic. Two threads are slow on a busy machine, so few runs
    have them.
    """
    threads = "2" if run % 8 == 5 else "1"
    # On processors of AMD, MKL heeds only MKL_CBWR.
    multiply = ({}, {"MKL_CBWR": "COMPATIBLE"}, *({"MKL_ENABLE_INSTRUCTIONS": i} for i in ISA))
    chosen = {
        "ATEN_CPU_CAPABILITY": ("", "default", "avx2")[run % 3],
        "NUMBA_CPU_NAME": ("", "generic")[run % 2],
        **multiply[run // 3 % 4],
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    return {name: value for name, value in chosen.items() if value}


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Get the cells that are run; the first has the number 1, as Jupyter shows it."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]


def read(chapter: Path) -> NotebookNode:
    """Read a chapter as it is stored."""
    text = chapter.read_text("utf-8")
    notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def key(chapter: Path) -> str:
    """Hash all that the runs of a chapter depend on, besides the machine.

    A table of results counts for the chapters that name it.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["chapters"]
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in wanted]
    package = ROOT / "qtdqas_lite"
    sources = [cell.source for cell in code_cells(read(chapter))]
    named = [path for path in package.rglob("*.csv") if f'"{path.stem}"' in "".join(sources)]
    files = sorted([*package.rglob("*.py"), *named, KERNEL])
    parts = [
        platform.python_version(),
        *(importlib.metadata.version(name) for name in names),
        *sources,
        *(hashlib.sha256(path.read_bytes()).hexdigest() for path in files),
        json.dumps([arithmetic(run) for run in range(RUNS)]),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def place(into: Path, chapter: Path, run: int) -> Path:
    """Say where the result of a run is kept."""
    return into / chapter.stem / f"{run:02}.json"


def load(path: Path) -> dict[str, Any] | None:
    """Read a result, if there is a whole one."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and "outputs" in result else None


def results(
    into: Path, chapter: Path, runs: int, stale_ok: bool = False
) -> dict[int, dict[str, Any]]:
    """Get the results that there are, by run."""
    found = {run: load(place(into, chapter, run)) for run in range(runs)}
    now = key(chapter)
    return {
        run: result
        for run, result in found.items()
        if result and (stale_ok or result["key"] == now)
    }


# --- One run, in a process of its own


def gather(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put together what the kernel has recorded of each guard."""
    guards: dict[tuple[int, int], dict[str, Any]] = {}
    for line in lines:
        where = (line["cell"], line["guard"])
        if "text" in line:
            guards[where] = {**line, "held": True, "times": 0, "error": None, "sides": []}
            continue
        guard = guards[where]
        guard["times"] += 1
        guard["held"] = guard["held"] and line["held"]
        guard["error"] = guard["error"] or line["error"]
        guard["sides"] += line["sides"]
    return list(guards.values())


def execute(into: Path, chapter: Path, run: int) -> None:
    """Run a chapter from its first cell to its last, whatever fails, and store what happened."""
    before, start = key(chapter), time.time()
    notebook = read(chapter)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as records:
        record = Path(records) / "guards.jsonl"
        os.environ["SHAKE_RECORD"] = str(record)
        NotebookClient(
            notebook,
            timeout=900,
            startup_timeout=300,  # the start-up file imports torch
            interrupt_on_timeout=True,
            allow_errors=True,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
        lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    cells = code_cells(notebook)
    errors = {
        number: f"{output.ename}: {output.evalue}"
        for number, cell in enumerate(cells, 1)
        for output in cell.outputs
        if output.output_type == "error"
    }
    result = {
        "key": before,
        "run": run,
        "arithmetic": arithmetic(run),
        "kernel": lines[0]["kernel"],
        "seconds": round(time.time() - start),
        "guards": gather(lines[1:]),
        "errors": errors,
        "outputs": {n: shake_report.texts(c.outputs) for n, c in enumerate(cells, 1)},
    }
    if before != key(chapter):
        sys.exit("the chapter or the package changed while it ran")
    path = place(into, chapter, run)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(result), "utf-8")
    part.replace(path)


# --- Many runs


def profile(into: Path) -> Path:
    """Write the profile whose start-up file shakes a kernel."""
    home = into / "ipython"
    startup = home / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "00-shake.py").write_text(STARTUP.format(folder=str(KERNEL.parent)), "utf-8")
    # Without this, every kernel warns that its socket on this machine is not encrypted.
    config = home / "profile_default" / "ipython_kernel_config.py"
    config.write_text("c.IPKernelApp.log_level = 'ERROR'\n", "utf-8")
    return home


def begin(into: Path, chapter: Path, run: int) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own."""
    chosen = arithmetic(run)
    known = set().union(*map(arithmetic, range(RUNS)))
    kept = {name: value for name, value in os.environ.items() if name not in known}
    environment = {
        **kept,
        **chosen,
        "NUMBA_CACHE_DIR": str(into / f"numba-{chosen.get('NUMBA_CPU_NAME', 'own')}"),
        "IPYTHONDIR": str(profile(into)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "SHAKE_RUN": str(run),
        "SHAKE_THREADS": chosen["OMP_NUM_THREADS"],
    }
    command = [sys.executable, __file__, str(chapter), "--into", str(into), "--execute", str(run)]
    log = place(into, chapter, run).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def run_all(into: Path, chapters: list[Path], runs: int, jobs: int) -> bool:
    """Run what has no result yet, and say whether every run came to its end."""
    done = {chapter: results(into, chapter, runs) for chapter in chapters}
    queue = [(c, run) for run in range(runs) for c in chapters if run not in done[c]]
    print(f"{len(queue)} of {runs * len(chapters)} runs to do", flush=True)
    running: dict[subprocess.Popen[bytes], tuple[Path, int]] = {}
    whole = True
    try:
        while queue or running:
            while queue and len(running) < jobs:
                chapter, run = queue.pop(0)
                running[begin(into, chapter, run)] = (chapter, run)
            time.sleep(0.2)
            for process in [p for p in running if p.poll() is not None]:
                chapter, run = running.pop(process)
                end, log = "done", place(into, chapter, run).with_suffix(".log")
                if process.returncode:
                    whole, end = False, f"came to no end, see {log}"
                else:
                    log.unlink(missing_ok=True)
                print(f"{chapter.stem}, run {run}: {end}", flush=True)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return whole


def stop(*_: Any) -> None:
    """End as Ctrl-C does, so that no run is left behind."""
    raise KeyboardInterrupt


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run chapters with many roundings.")
    parser.add_argument("chapters", nargs="*", type=Path, help="all, if none is named")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--report", action="store_true", help="run nothing, only report")
    parser.add_argument("--values", action="store_true", help="both sides of every guard")
    parser.add_argument("--outputs", action="store_true", help="outputs that differ between runs")
    parser.add_argument("--cell", type=int, help="only this cell, by the number Jupyter shows")
    parser.add_argument("--stale-ok", action="store_true", help="show results of older code too")
    parser.add_argument("--into", type=Path, default=ROOT / "_build/shake", help=argparse.SUPPRESS)
    parser.add_argument("--execute", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Do what the command line says."""
    options = parsed()
    into = options.into.resolve()
    chapters = [path.resolve() for path in options.chapters]
    chapters = chapters or sorted(ROOT.glob("chapters/*.ipynb"))
    if options.execute is not None:
        execute(into, chapters[0], options.execute)
        return 0
    whole = True
    if not (options.report or options.values or options.outputs):
        signal.signal(signal.SIGTERM, stop)
        try:
            whole = run_all(into, chapters, options.runs, options.jobs)
        except KeyboardInterrupt:
            print("stopped; the same call goes on from here")
            return 130
    studies = []
    for path in chapters:
        found = results(into, path, options.runs, options.stale_ok)
        studies.append(shake_report.Study(path.stem, code_cells(read(path)), list(found.values())))
    if options.values or options.outputs:
        for study in studies:
            lines = study.values if options.values else study.differing_outputs
            print("\n".join([f"# {study.name}, {len(study.results)} runs", *lines(options.cell)]))
        return 0
    complete = all(len(study.results) == options.runs for study in studies)
    lasting = complete and options.runs >= RUNS and not (options.chapters or options.stale_ok)
    page = PAGE if lasting else into / "report.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(shake_report.page(studies), "utf-8")
    print(shake_report.summary(studies))
    print(f"More is in {page}")
    return 0 if whole and complete and all(study.held() for study in studies) else 1


if __name__ == "__main__":
    sys.exit(main())
