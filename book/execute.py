"""Run every chapter and store its outputs and widgets in the notebook: `make notebooks`.

Name notebooks to run only those; with --check, nothing is stored. What would change from one run
to the next without meaning anything (timestamps, the interpreter's patch version, random widget
ids) is not stored.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
# The README and the landing page show a picture that a chapter has drawn.
LANDING_PICTURE = ROOT / "book/_static/digits-from-a-circuit.png"
WIDGETS = "application/vnd.jupyter.widget-state+json"
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


def execute(path: Path, store: bool = True) -> None:
    """Run one notebook from its first cell to its last, in a fresh kernel and an empty folder."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    if not store:
        return
    notebook = tidy(notebook, path.name)
    nbformat.write(notebook, path)
    for png in landing_pictures(notebook):
        LANDING_PICTURE.write_bytes(png)


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--check"]
    paths = [Path(name) for name in names] or sorted(ROOT.glob("chapters/*.ipynb"))
    if not paths:
        sys.exit("no notebooks in chapters/")
    for chapter in paths:
        print(f"running {chapter}", flush=True)
        execute(chapter, store="--check" not in sys.argv)
