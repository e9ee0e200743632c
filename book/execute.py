"""Run every chapter and store its outputs and widgets in the notebook: `make notebooks`.

Name notebooks to run only those; with --check, nothing is stored. A chapter that fails does not
stop the others, and its file stays as it was. What would change from one run to the next without
meaning anything (timestamps of cells, random widget ids) is not stored; one entry of the metadata
says when, where and with which versions the chapter was run.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import os
import platform
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
# The README and the landing page show a picture that a chapter has drawn.
LANDING_PICTURE = ROOT / "book/_static/digits-from-a-circuit.png"
WIDGETS = "application/vnd.jupyter.widget-state+json"
# The packages that a chapter's numbers depend on.
PACKAGES = ("torch", "numpy", "numba", "pennylane", "qtdqas-lite")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def tidy(notebook: NotebookNode, name: str) -> NotebookNode:
    """Keep the metadata that matters, and name widget models by their order alone."""
    widgets = notebook.metadata.get("widgets")
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    if not widgets:
        return notebook
    notebook.metadata["widgets"] = widgets
    text = nbformat.writes(notebook)
    ids = sorted(widgets[WIDGETS]["state"], key=text.index)
    new_ids = [hashlib.sha256(f"{name} {i}".encode()).hexdigest()[:32] for i in range(len(ids))]
    stable = dict(zip(ids, new_ids, strict=True))
    text = re.sub("|".join(ids), lambda match: stable[match[0]], text)
    return nbformat.reads(text, as_version=4)


def landing_pictures(notebook: NotebookNode) -> list[bytes]:
    """Get the picture of the cell tagged ``landing-picture``, if there is one."""
    cells = [c for c in notebook.cells if "landing-picture" in c.metadata.get("tags", [])]
    data = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]


def processor() -> str:
    """Name the processor and the vector instructions that torch uses on it."""
    import torch  # here, because only this needs it

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8") if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def last_run(seconds: float) -> dict[str, Any]:
    """Say when and where a chapter was run, how long that took, and with which versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(seconds),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def write(path: Path, content: bytes) -> None:
    """Write a file at once: whatever happens, it is the old or the new one, and whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def execute(path: Path, store: bool = True) -> None:
    """Run one notebook from its first cell to its last, in a fresh kernel and an empty folder."""
    notebook, start = nbformat.read(path, as_version=4), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=900,
            startup_timeout=300,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    if not store:
        return
    notebook = tidy(notebook, path.name)
    notebook.metadata["last_run"] = last_run(time.monotonic() - start)
    for png in landing_pictures(notebook):
        write(LANDING_PICTURE, png)
    write(path, f"{nbformat.writes(notebook)}\n".encode())


def outcome(path: Path, store: bool) -> str:
    """Execute a notebook and give what went wrong, or nothing."""
    try:
        execute(path, store)
    except Exception as error:  # whatever it was, the other notebooks are to run
        return str(error) or repr(error)
    return ""


def last_seconds(path: Path) -> int:
    """Give how long a notebook took the last time: the longest begin, so that none ends alone."""
    return nbformat.read(path, as_version=4).metadata.get("last_run", {}).get("seconds", 0)


def main() -> int:
    """Run the notebooks, several at a time, and report those that failed at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="all chapters, if none is named")
    parser.add_argument("--check", action="store_true", help="store nothing")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run at a time")
    given = parser.parse_args()
    paths = given.notebooks or sorted(ROOT.glob("chapters/*.ipynb"))
    if absent := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such file: {', '.join(absent)}")
    if not paths:
        parser.error("there are no notebooks in chapters/")

    failed = {}
    with ProcessPoolExecutor(given.jobs) as pool:
        paths.sort(key=last_seconds, reverse=True)
        running = {pool.submit(outcome, path, not given.check): path for path in paths}
        for future in as_completed(running):
            path, died = running[future], future.exception()
            if text := f"its process ended: {died!r}" if died else future.result():
                failed[path] = text
            print(f"{'FAILED' if text else 'done'}  {path.name}", flush=True)
    for path, text in sorted(failed.items()):
        print(f"\n--- {path.name} failed, and its file is as it was:\n{text}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
