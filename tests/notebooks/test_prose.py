"""The weight, the shape and the words of the chapters."""

import re
import statistics
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
from status import FOLDED, words

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(ROOT.glob("chapters/*.ipynb"))
PAGES = [p for p in sorted(ROOT.glob("book/*.md")) if p.stem not in ("status", "benchmarks-tables")]
FILES = {path.stem[:2].upper(): path.name for path in CHAPTERS}
PREDICT = "**Predict before you run.**"
MENTION = re.compile(r"(?<!\[)\b(?:chapters?|appendix|appendices) (\d\d|a\d)\b", re.IGNORECASE)
NAMED_FIRST = re.compile(r"\[[^\]]*\b(?:chapters?|appendix) (\d\d|A\d)\]\(([^)#]*)", re.IGNORECASE)


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(text):
    """The text without code, formulas and folded summaries, in which a link would be raw text."""
    text = re.sub(r"(?ms)^(`{3,}).*?^\1\s*$", "", text)
    text = re.sub(r"`[^`]*`|<summary>.*?</summary>|<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"\$[^$]*\$", "", text)


def text_of(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def forbidden():
    """What the glossary's last table says not to write, by what is written for it."""
    table = (ROOT / "book/glossary.md").read_text("utf-8").split("## One name for one thing")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {phrase: row[0] for row in rows[1:] for phrase in row[1].split(", ")}


# Each check yields one line for each fault that it finds.


def takes_about_an_hour(notebook):
    if (count := words(notebook)) > 4000:
        yield f"{count} words"
    if (count := len(code(notebook))) > 55:
        yield f"{count} code cells"


def half_of_the_visible_cells_are_short(notebook):
    lengths = [len(c.source.splitlines()) for c in code(notebook) if not tags(c) & FOLDED]
    if lengths and statistics.median(lengths) > 8:
        yield f"the median of {len(lengths)} visible cells is {statistics.median(lengths)} lines"


def opens_with_a_picture(notebook):
    """At most two folded cells are seen before the first picture, its own among them; no print."""
    number = 0
    for cell in code(notebook)[1:]:
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if any(output.output_type == "stream" for output in cell.outputs):
            yield f"printed before the first picture: {cell.source[:60]!r}"
        if not tags(cell) & FOLDED:
            yield f"not folded before the first picture: {cell.source[:60]!r}"
        number += not tags(cell) & {"remove-input", "remove-cell"}
        if any(kind.startswith("image/") for kind in kinds):
            break
        if number >= 2:
            yield "more than two cells before the first picture has come"
            break


def predictions_keep_their_answer_folded(notebook):
    for cell, after in zip(notebook.cells, notebook.cells[1:], strict=False):
        asks = cell.cell_type == "markdown" and PREDICT in cell.source.split("\n\n")[-1]
        if asks and after.cell_type == "code" and not tags(after) & {"hide-output", "hide-cell"}:
            yield f"the answer is open: {after.source[:60]!r}"


CHECKS = [
    takes_about_an_hour,
    half_of_the_visible_cells_are_short,
    opens_with_a_picture,
    predictions_keep_their_answer_folded,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, check):
    notebook = nbformat.read(path, as_version=4)
    assert not list(check(notebook))


def unlinked(text, own=""):
    """Mentions of other chapters that are no links, and links that lead elsewhere."""
    for line in prose(text).splitlines():
        if line.startswith("#"):
            continue
        outside = re.sub(r"\[[^\]]*\]\([^)]*\)", "", line)
        for match in MENTION.finditer(outside):
            if match[1].upper() in FILES and match[1].upper() != own:
                yield f"{match[0]!r} is no link in: {line[:80]}"
        for number, target in NAMED_FIRST.findall(line):
            if Path(target).stem != Path(FILES[number.upper()]).stem:
                yield f"chapter {number} leads to {target}"


@pytest.mark.parametrize("path", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)
def test_chapters_are_linked_where_they_are_named(path):
    if path.suffix == ".md":
        assert not list(unlinked(path.read_text("utf-8")))
        return
    notebook = nbformat.read(path, as_version=4)
    assert not list(unlinked(text_of(notebook), path.stem[:2].upper()))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_papers_are_in_the_bibliography(path):
    listed = (ROOT / "book/references.bib").read_text("utf-8")
    cited = re.findall(r"arxiv\.org/abs/([\d.]+\d)", text_of(nbformat.read(path, as_version=4)))
    assert cited
    assert [paper for paper in cited if paper not in listed] == []


@pytest.mark.parametrize("path", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)
def test_one_thing_has_one_name(path):
    if path.suffix == ".md":
        text = path.read_text("utf-8").split("## One name for one thing")[0]
    else:
        text = text_of(nbformat.read(path, as_version=4))
    text = " ".join(prose(text).split())
    found = {
        phrase: name
        for phrase, name in forbidden().items()
        if re.search(rf"\b{re.escape(phrase)}\b", text, re.IGNORECASE)
    }
    assert not found, "the glossary has other names for these"


# --- The checks themselves


def picture(**metadata):
    output = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
    return new_code_cell("plot()", outputs=[output], metadata=metadata)


def test_a_heavy_chapter_is_caught():
    heavy = new_notebook(cells=[new_markdown_cell("word " * 4001)])
    assert list(takes_about_an_hour(heavy)) == ["4001 words"]
    folded = new_notebook(cells=[new_markdown_cell("<details>" + "word " * 4001 + "</details>")])
    assert not list(takes_about_an_hour(folded))
    many = new_notebook(cells=[new_code_cell("1") for _ in range(56)])
    assert list(takes_about_an_hour(many)) == ["56 code cells"]


def test_long_cells_are_caught():
    cells = [new_code_cell("1\n" * n) for n in (2, 9, 9)]
    assert list(half_of_the_visible_cells_are_short(new_notebook(cells=cells)))
    cells[1].metadata["tags"] = ["hide-input"]
    assert not list(half_of_the_visible_cells_are_short(new_notebook(cells=cells)))


def test_a_slow_opening_is_caught():
    hidden = {"tags": ["hide-input"]}
    install, drawn = new_code_cell("install"), picture(**hidden)
    imports, more = (new_code_cell("import torch", metadata=hidden) for _ in range(2))
    printed = new_output("stream", text="loss 0.3\n")
    loud = new_code_cell("print()", metadata=hidden, outputs=[printed])
    unseen = new_code_cell("import math", metadata={"tags": ["remove-input"]})
    for good in ([install, drawn], [install, unseen, imports, drawn, loud]):
        assert not list(opens_with_a_picture(new_notebook(cells=good)))
    for bad in ([install, picture()], [install, loud, drawn], [install, imports, more, drawn]):
        assert list(opens_with_a_picture(new_notebook(cells=bad)))


def test_an_open_answer_is_caught():
    question = new_markdown_cell(f"Look.\n\n{PREDICT} How many?")
    open_, folded = new_code_cell("1"), new_code_cell("1", metadata={"tags": ["hide-output"]})
    assert list(predictions_keep_their_answer_folded(new_notebook(cells=[question, open_])))
    assert not list(predictions_keep_their_answer_folded(new_notebook(cells=[question, folded])))


def test_mentions_without_links_are_caught():
    assert list(unlinked("As chapter 01 says"))
    assert not list(unlinked("As chapter 01 says", own="01"))
    assert not list(unlinked(f"As [chapter 01]({FILES['01']}) says, `chapter 02` and chapter 77"))
    assert list(unlinked(f"As [chapter 02]({FILES['01']}) says"))


def test_there_are_names_to_avoid():
    assert forbidden()["trained anew"] == "retrained"
    assert len(forbidden()) > 10
