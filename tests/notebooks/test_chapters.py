"""The rules that every chapter keeps, checked without running it (nbval runs it)."""

import ast
import io
import re
import tokenize
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
CORE_FOLDER = ROOT / "qtdqas_lite"
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


def guards(node):
    """Whether a decorator only refuses what a function does not take."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "refuses"


def bare(node):
    """The syntax tree as text, without docstrings, which prose may replace, and without guards."""
    for inner in ast.walk(node):
        if isinstance(inner, DEFINITION):
            inner.decorator_list = [one for one in inner.decorator_list if not guards(one)]
        if isinstance(inner, DEFINITION) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(node)


def shown_as(node):
    """The name and the syntax tree of a statement that a from-core cell may hold, or None."""
    if isinstance(node, DEFINITION):
        return node.name, bare(node)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        [target] = node.targets if isinstance(node, ast.Assign) else [node.target]
        return ast.dump(target), ast.dump(node)
    return None


def head(node):
    """A class without its body: it may be shown in part."""
    return ast.dump(ast.ClassDef(node.name, node.bases, node.keywords, [], node.decorator_list))


class Module:
    """What a module of the core defines: name -> tree -> line numbers, methods included."""

    def __init__(self, source):
        self.code, self.known = code_lines(source), {}
        for node in ast.parse(source).body:
            self.add(node)
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                self.add(inner, node.name)
                if isinstance(inner, DEFINITION) and inner.args.args[:1]:
                    self.add(inner)  # a method may be shown as a function

    def add(self, node, owner=""):
        lines = set(range(node.lineno, node.end_lineno + 1)) & self.code
        lines |= {item.lineno for item in getattr(node, "decorator_list", ())}
        if isinstance(node, ast.ClassDef):
            lines = {node.lineno}
            self.known.setdefault(f"class {node.name}", {})[head(node)] = lines
        elif pair := shown_as(node):
            self.known.setdefault(f"{owner}.{pair[0]}".lstrip("."), {})[pair[1]] = lines

    def compare(self, node, owner=""):
        """Yield the faults of a statement in a cell, and the lines of the module that it shows."""
        if isinstance(node, ast.ClassDef):
            name, tree = f"class {node.name}", head(node)
        elif (pair := shown_as(node)) is None:
            return
        else:
            name, tree = f"{owner}.{pair[0]}".lstrip("."), pair[1]
        if name not in self.known and not isinstance(node, DEFINITION):
            return  # an abbreviation, say, of the chapter's own
        if name not in self.known:
            yield f"tagged from-core, but its module defines no {name}", set()
        elif tree not in self.known[name]:
            yield f"{name} differs from the one in its module", set()
        else:
            yield None, self.known[name][tree]
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            yield from self.compare(inner, node.name)


def code_lines(source):
    """The numbers of the lines that are neither empty nor comment nor docstring."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        for inner in node.body if isinstance(getattr(node, "body", None), list) else ():
            value = getattr(inner, "value", None) if isinstance(inner, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings |= set(range(inner.lineno, inner.end_lineno + 1))
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    blank += (tokenize.ENDMARKER, tokenize.ENCODING)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spans = [(t.start[0], t.end[0]) for t in tokens if t.type not in blank]
    return {line for first, last in spans for line in range(first, last + 1)} - docstrings


def read_core(name):
    path = ROOT / name
    inside = CORE_FOLDER in path.resolve().parents and path.suffix == ".py"
    return path.read_text("utf-8") if inside and path.is_file() else None


def from_core(notebook, read=read_core):
    """Yield module, fault and shown lines for each definition of a from-core cell.

    The first line of such a cell says in a comment from which module it comes.
    """
    for cell in code_cells(notebook):
        if "from-core" not in tags(cell):
            continue
        name = where(cell).removeprefix("# ")
        source = read(name)
        if source is None:
            yield name, f"the first line has to name a module of the core: {where(cell)}", set()
            continue
        module, found = Module(source), []
        for node in ast.parse(cell.source).body:
            found += module.compare(node)
        for fault, lines in found or [(f"tagged from-core, and defines nothing: {name}", set())]:
            yield name, fault, lines


def from_core_cells_agree(notebook, read=read_core):
    for _, fault, _ in from_core(notebook, read):
        if fault:
            yield fault


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


# The modules of the chapters, and the least part of their code lines that chapters have to show.
SHOWN = {
    "01 to 03": (
        "encoding circuits simulator/[!_]* mapping target generator ledger",
        0.20,
    ),
    "04 to 06": (
        "search_space diagnosis score relaxation relaxed_circuit ensemble bilevel architect "
        "selection training",
        0.20,
    ),
}


@pytest.mark.parametrize("chapters", SHOWN)
def test_the_book_shows_its_core(chapters):
    names, least = SHOWN[chapters]
    paths = [path for name in names.split() for path in CORE_FOLDER.glob(f"{name}.py")]
    every = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    lines = {name: code_lines(source) for name, source in every.items()}
    shown = {name: set() for name in lines}
    for path in CHAPTERS:
        for name, _, found in from_core(nbformat.read(path, as_version=4)):
            shown.setdefault(name, set()).update(found)
    share = {name: f"{len(shown[name])} of {len(lines[name])}" for name in lines}
    total = sum(len(shown[name]) for name in lines) / sum(map(len, lines.values()))
    assert total >= least, f"{total:.1%} are shown: {share}"


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
    code = new_code_cell(SHOWN_CELL, execution_count=4)
    code.metadata["tags"] = ["from-core"]
    words = "# A title\n\n$p_i = 1$, [a link](x)\n\n```python\nf'{x}`'\n```\n\n$$x \\tag{1}$$"
    notebook = new_notebook(cells=[new_markdown_cell(words), install, number, figure, code])
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


CORE_TEXT = '''
LIMIT = 3


def double(x):
    """Twice x."""
    return 2 * x  # why


class Pair(list):
    """Two numbers."""

    def total(self):
        """Add them up."""
        return sum(self)

    def least(self):
        return min(self)
'''
SHOWN_CELL = """# core.py
LIMIT = 3


def double(x):
    return 2 * x


def least(self):
    return min(self)


class Pair(list):
    def total(self):
        return sum(self)"""


INSTALL_CELL, NUMBER, FIGURE, CORE_CELL = 1, 2, 3, 4


def run(check, notebook):
    core = {"core.py": CORE_TEXT}.get
    return list(check(notebook, core) if check is from_core_cells_agree else check(notebook))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_good_notebook_passes(check):
    assert run(check, good_notebook()) == []


def output(*args, **kwargs):
    return lambda notebook: notebook.cells[NUMBER].outputs.append(new_output(*args, **kwargs))


def prose(text):
    return lambda notebook: notebook.cells.append(new_markdown_cell(text))


def source(place, text):
    return lambda notebook: notebook.cells[place].update(source=text)


def changed(old, new):
    return source(CORE_CELL, SHOWN_CELL.replace(old, new))


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
    "drift": (from_core_cells_agree, changed("return 2 * x", "return x + x")),
    "drift of a number": (from_core_cells_agree, changed("LIMIT = 3", "LIMIT = 4")),
    "drift of a method": (from_core_cells_agree, changed("return sum(self)", "return len(self)")),
    "drift of a class": (from_core_cells_agree, changed("(list)", "(tuple)")),
    "drift of a function from a method": (from_core_cells_agree, changed("min(self)", "max(self)")),
    "unknown": (from_core_cells_agree, changed("double", "treble")),
    "unknown method": (from_core_cells_agree, changed("total", "largest")),
    "another module": (from_core_cells_agree, changed("# core.py", "# other.py")),
    "no module": (from_core_cells_agree, changed("# core.py\n", "")),
    "nothing": (from_core_cells_agree, source(CORE_CELL, "# core.py\nprint(1)")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_notebook_is_caught(name):
    check, damage = BROKEN[name]
    notebook = good_notebook()
    damage(notebook)
    assert run(check, notebook) != []


def test_shown_lines_are_counted_once():
    """The cell shows every line of code; a line of a comment or a docstring is none."""
    assert len(code_lines(CORE_TEXT)) == 8
    found = [lines for _, _, lines in from_core(good_notebook(), {"core.py": CORE_TEXT}.get)]
    assert set().union(*found) == code_lines(CORE_TEXT)
