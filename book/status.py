"""Write the page book/status.md from what the notebooks hold: `make notebooks` calls this."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book/status.md"
# As slow as a textbook: formulas are looked at twice, and a cell is a thing to think about.
WORDS_A_MINUTE, MINUTES_A_CELL = 120, 1
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
HEAD = f"""\
# The state of the chapters

`make notebooks` writes this page. It says when each chapter was last run from its first cell to its
last, how long that took, and where: the pages of this book show the outputs of that run. After the
processor stand the vector instructions that torch used on it. On another processor, a training ends
with other numbers; what the text says of it holds there too.

Words are counted outside of code and of folded solutions, and rounded to hundreds. The minutes are
those of reading at {WORDS_A_MINUTE} words a minute, and of {MINUTES_A_CELL} minute for each cell
of code that is not folded, rounded to fives. Time for exercises comes on top.

| chapter | words | minutes | last run | seconds | processor | versions |
|---|---|---|---|---|---|---|
"""


def words(notebook: NotebookNode) -> int:
    """Count the words of the text, without the solutions that are folded."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return len(re.sub(r"(?s)<details>.*?</details>", "", "\n\n".join(cells)).split())


def minutes(notebook: NotebookNode) -> float:
    """Estimate how long the text and the code that is shown take to read."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [cell for cell in code if not FOLDED & {*cell.metadata.get("tags", [])}]
    return words(notebook) / WORDS_A_MINUTE + MINUTES_A_CELL * len(shown)


def row(name: str, notebook: NotebookNode) -> str:
    """Write the line of one chapter."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    label = f"{name[:2]} {title[1]}" if title else name
    run = notebook.metadata.get("last_run")
    facts = ["not recorded yet", "", "", ""]
    if run:
        versions = {"Python": run["python"], **run["versions"]}
        together = ", ".join(f"{key} {value}" for key, value in versions.items())
        facts = [run["date"], run["seconds"], run["processor"], together]
    counts = [f"{round(words(notebook), -2):,}", 5 * round(minutes(notebook) / 5)]
    cells = [f"[{label}](../chapters/{name}.ipynb)", *counts, *facts]
    return f"| {' | '.join(map(str, cells))} |\n"


def status_page(notebooks: Mapping[str, NotebookNode]) -> str:
    """Write the page for these notebooks, by the names of their files without the ending."""
    return HEAD + "".join(row(name, notebook) for name, notebook in notebooks.items())


def chapters() -> dict[str, NotebookNode]:
    """Read the book's chapters, in order."""
    paths = sorted(ROOT.glob("chapters/*.ipynb"))
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


if __name__ == "__main__":
    PAGE.write_text(status_page(chapters()), "utf-8")
