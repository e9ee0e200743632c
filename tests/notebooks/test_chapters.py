"""The rules that every chapter keeps, checked without running it (nbval runs it)."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import qtdqas_lite

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(ROOT.glob("chapters/*.ipynb"))
URL = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]
INSTALL = f"""import sys

if "google.colab" in sys.modules:
    %pip install -q "qtdqas-lite[chapters] @ git+{URL}"
    from google.colab import output

    output.enable_custom_widget_manager()"""
# What the book understands and Colab shows as raw text.
BOOK_ONLY = re.compile(
    r"""^\s*(`{3,}|~{3,}|:{3,})\{   # a directive: ```{note} or :::{note}
    | \{[a-z][\w:+.-]*\}`         # a role: {cite}`key`
    | ^\([\w-]+\)=\s*$            # a target: (name)=
    | \$\$\ *\([\w:-]+\)\s*$      # a labelled equation: $$x$$ (name)
    | \{\{.*?\}\}                 # a substitution: {{ name }}
    """,
    re.MULTILINE | re.VERBOSE,
)
DEFINITION = (ast.FunctionDef, ast.ClassDef)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def where(cell):
    return (cell.source.strip().splitlines() or ["(an empty cell)"])[0]


# Each check yields one line for each fault that it finds.


def outputs_are_stored(notebook):
    cells = code_cells(notebook)
    if not any(cell.outputs for cell in cells):
        yield "no outputs are stored: run make notebooks"
    for cell in cells:
        if cell.execution_count is None:
            yield f"never run: {where(cell)}"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{output.ename} in: {where(cell)}"
            if output.get("name") == "stderr":
                yield f"a warning in: {where(cell)}"
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield f"not run once from first to last: {counts}"


def cells_are_short(notebook):
    for cell in code_cells(notebook):
        if len(cell.source.splitlines()) > 25:
            yield f"{len(cell.source.splitlines())} lines: {where(cell)}"


def colab_installs_first(notebook):
    cells = code_cells(notebook)
    if not cells or cells[0].source.strip() != INSTALL:
        yield f"the first code cell has to be:\n{INSTALL}"
    for cell in cells[1:]:
        if re.search(r"^\s*[%!]\s*(pip|conda|uv)\b", cell.source, re.MULTILINE):
            yield f"a second installation: {where(cell)}"


def pictures_have_alt_text(notebook):
    for cell in code_cells(notebook):
        kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if any(kind.startswith("image/") for kind in kinds) and not alt.strip():
            yield f"no mystnb.image.alt in the metadata of: {where(cell)}"
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(r"!\[\s*\]\(", cell.source):
            yield f"a picture without alt text: {where(cell)}"


def colab_shows_every_cell(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"(?ms)^```(?!\{).*?^```\s*$", "", cell.source)
            for match in BOOK_ONLY.finditer(prose):
                yield f"Colab shows this as text: {match[0].strip()!r} in: {where(cell)}"


def numbered_equations_are_one_line(notebook):
    r"""Sphinx wraps an equation with ``\\`` in an environment where ``\tag`` is an error."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for equation in re.findall(r"(?s)\$\$(.+?)\$\$", cell.source):
                if r"\tag" in equation and r"\\" in equation:
                    yield rf"write \cr for the line break in: {equation.strip()[:60]}"


def numbers_are_checked(notebook):
    """At least one cell has its output compared, by the comment or by the quieter tag."""
    for cell in code_cells(notebook):
        if "nbval-check-output" in tags(cell) or re.search(r"#\s*NBVAL_CHECK_OUTPUT", cell.source):
            return
    yield "no cell is marked NBVAL_CHECK_OUTPUT"


def metadata_is_stable(notebook):
    if notebook.metadata.get("language_info", {}) != {"name": "python"}:
        yield "the metadata name an interpreter: run make notebooks"
    known = {"kernelspec", "language_info", "last_run", "widgets"}
    if more := sorted(set(notebook.metadata) - known):
        yield f"the metadata have {', '.join(more)}: run make notebooks"
    facts = {"date", "processor", "python", "seconds", "versions"}
    if set(notebook.metadata.get("last_run", facts)) != facts:
        yield f"last_run has to say {', '.join(sorted(facts))}: run make notebooks"
    for cell in code_cells(notebook):
        if "execution" in cell.metadata:
            yield f"timestamps are stored in: {where(cell)}"


def bare(node):
    """The syntax tree as text, without docstrings: a chapter may explain in prose instead."""
    for inner in ast.walk(node):
        if isinstance(inner, DEFINITION) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(node)


def definitions(source):
    nodes = ast.parse(source).body
    return {node.name: bare(node) for node in nodes if isinstance(node, DEFINITION)}


def core_definitions():
    names = [info.name for info in pkgutil.walk_packages(qtdqas_lite.__path__, "qtdqas_lite.")]
    found = {}
    for name in names:
        source = Path(importlib.util.find_spec(name).origin).read_text("utf-8")
        for key, tree in definitions(source).items():
            found.setdefault(key, set()).add(tree)
    return found


def from_core_cells_agree(notebook, core=None):
    core = core_definitions() if core is None else core
    for cell in code_cells(notebook):
        if "from-core" not in tags(cell):
            continue
        here = definitions(cell.source)
        if not here:
            yield f"tagged from-core, and defines nothing: {where(cell)}"
        for name, tree in here.items():
            if name not in core:
                yield f"tagged from-core, but qtdqas_lite defines no {name}"
            elif tree not in core[name]:
                yield f"{name} differs from the one in qtdqas_lite"


CHECKS = [
    outputs_are_stored,
    cells_are_short,
    colab_installs_first,
    pictures_have_alt_text,
    colab_shows_every_cell,
    numbered_equations_are_one_line,
    numbers_are_checked,
    metadata_is_stable,
    from_core_cells_agree,
]


def test_there_are_chapters():
    toc = (ROOT / "_toc.yml").read_text("utf-8")
    assert CHAPTERS
    assert [path.stem for path in CHAPTERS if f"chapters/{path.stem}\n" not in toc] == []


def test_figures_have_one_name():
    """Two chapters that name a figure alike: the book would link one of them to the other."""
    cells = [cell for path in CHAPTERS for cell in code_cells(nbformat.read(path, as_version=4))]
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    names = [name for name in names if name]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, check):
    assert list(check(nbformat.read(path, as_version=4))) == []


# --- The checks themselves: a notebook that keeps every rule, and for each rule some that break it.


def good_notebook():
    install = new_code_cell(INSTALL, execution_count=1)
    number = new_code_cell("print(1)", execution_count=2, metadata={"tags": ["nbval-check-output"]})
    number.outputs = [new_output("stream", name="stdout", text="1\n")]
    figure = new_code_cell("plt.show()", execution_count=3)
    figure.outputs = [new_output("display_data", {"image/png": ""})]
    figure.metadata["mystnb"] = {"image": {"alt": "A curve."}}
    code = new_code_cell("def double(x):\n    return 2 * x", execution_count=4)
    code.metadata["tags"] = ["from-core"]
    words = "# A title\n\n$p_i = 1$, [a link](x)\n\n```python\nf'{x}`'\n```\n\n$$x \\tag{1}$$"
    notebook = new_notebook(cells=[new_markdown_cell(words), install, number, figure, code])
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


CORE = {"double": {*definitions('def double(x):\n    """Twice x."""\n    return 2 * x').values()}}
INSTALL_CELL, NUMBER, FIGURE, CORE_CELL = 1, 2, 3, 4


def run(check, notebook):
    return list(check(notebook, CORE) if check is from_core_cells_agree else check(notebook))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_good_notebook_passes(check):
    assert run(check, good_notebook()) == []


def output(*args, **kwargs):
    return lambda notebook: notebook.cells[NUMBER].outputs.append(new_output(*args, **kwargs))


def prose(text):
    return lambda notebook: notebook.cells.append(new_markdown_cell(text))


def source(place, text):
    return lambda notebook: notebook.cells[place].update(source=text)


BROKEN = {
    "no outputs": (outputs_are_stored, lambda n: [c.update(outputs=[]) for c in code_cells(n)]),
    "not run": (outputs_are_stored, lambda n: n.cells[NUMBER].update(execution_count=None)),
    "run twice": (outputs_are_stored, lambda n: n.cells[NUMBER].update(execution_count=9)),
    "an error": (outputs_are_stored, output("error", ename="OSError", evalue="", traceback=[])),
    "a warning": (outputs_are_stored, output("stream", name="stderr", text="beware")),
    "26 lines": (cells_are_short, source(NUMBER, "x = 1\n" * 26)),
    "another URL": (colab_installs_first, source(INSTALL_CELL, INSTALL.replace(URL, f"{URL}2"))),
    "unguarded": (colab_installs_first, source(INSTALL_CELL, "%pip install qtdqas-lite")),
    "second pip": (colab_installs_first, source(NUMBER, "!pip install more")),
    "no alt": (pictures_have_alt_text, lambda n: n.cells[FIGURE].metadata.pop("mystnb")),
    "empty alt": (pictures_have_alt_text, prose("![](x.png)")),
    "directive": (colab_shows_every_cell, prose("```{note}\nx\n```")),
    "colon fence": (colab_shows_every_cell, prose(":::{note}\nx\n:::")),
    "role": (colab_shows_every_cell, prose("as in {cite}`chen2025diffqas`")),
    "target": (colab_shows_every_cell, prose("(a-target)=\n## x")),
    "label": (colab_shows_every_cell, prose("$$x$$ (eq-x)")),
    "split": (numbered_equations_are_one_line, prose(r"$$a \\ b \tag{1}$$")),
    "unchecked": (numbers_are_checked, lambda n: n.cells[NUMBER].metadata.pop("tags")),
    "interpreter": (metadata_is_stable, lambda n: n.metadata.language_info.update(version="3.11")),
    "an editor": (metadata_is_stable, lambda n: n.metadata.update(toc={"base_numbering": 1})),
    "half a run": (metadata_is_stable, lambda n: n.metadata.update(last_run={"seconds": 3})),
    "timestamps": (metadata_is_stable, lambda n: n.cells[NUMBER].metadata.update(execution={})),
    "drift": (from_core_cells_agree, source(CORE_CELL, "def double(x):\n    return x + x")),
    "unknown": (from_core_cells_agree, source(CORE_CELL, "def treble(x):\n    return 3 * x")),
    "nothing": (from_core_cells_agree, source(CORE_CELL, "x = 1")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_notebook_is_caught(name):
    check, damage = BROKEN[name]
    notebook = good_notebook()
    damage(notebook)
    assert run(check, notebook) != []
