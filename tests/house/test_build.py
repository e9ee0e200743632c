"""The scripts behind `make book` and `make notebooks`, tried on small books and notebooks."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
VIEW = "application/vnd.jupyter.widget-view+json"


def script(name):
    """Import a script of book/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"book_{name}", ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, execute, status = script("build"), script("execute"), script("status")


def python(*arguments, **options):
    pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, text=True, **pipes, **options)


# --- One at a time


def test_the_second_waits_and_a_lock_dies_with_its_holder(tmp_path):
    alone = ROOT / "book/alone.py", tmp_path / "new folder" / "a.lock", sys.executable, "-c"
    with python(*alone, "print('first', flush=True); input()") as first:
        assert first.stdout.readline() == "first\n"
        with python(*alone, "print('second')") as second:
            assert second.stdout.readline().startswith("Another make is doing the same")
            first.send_signal(signal.SIGKILL)
            assert second.stdout.read() == "second\n"


# --- A small book


def widget_notebook():
    view = new_output("display_data", {VIEW: {"model_id": "a"}})
    cell = new_code_cell("w", outputs=[view], execution_count=1)
    made = new_notebook(cells=[new_markdown_cell("# A chapter"), cell])
    state = {"state": {"a": {"state": {"_esm": "'</script>'"}}}}
    made.metadata.update(kernelspec=execute.KERNEL, language_info={"name": "python"})
    made.metadata["widgets"] = {build.STATE: state}
    return made


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book of two pages, built once, in a folder whose name has a space."""
    root = tmp_path_factory.mktemp("books") / "a book"
    (root / "book").mkdir(parents=True)
    (root / "chapters").mkdir()
    for name in ("build.py", "finish.py"):
        shutil.copy(ROOT / "book" / name, root / "book")
    config = """
title: T
only_build_toc_files: true
execute: {execute_notebooks: "off", stderr_output: warn}
"""
    (root / "_config.yml").write_text(config)
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": build.LANDING_CHAPTER}]}
    (root / "_toc.yml").write_text(json.dumps(toc))
    (root / "index.md").write_text("# Good\n")
    (root / "_build" / ".jupyter_cache").mkdir(parents=True)  # an older version left it
    nbformat.write(widget_notebook(), root / f"{build.LANDING_CHAPTER}.ipynb")
    code, said = make(root)
    assert code == 0, said
    assert "2 pages. Open this one" in said
    assert (root / "_build/html/index.html").as_uri() in said
    return root


def make(root):
    with python(root / "book/build.py") as done:
        said = "".join(done.communicate())
    return done.returncode, said


def test_a_book_is_built_and_nothing_else_stays(book):
    landing = "landing-widget.html"
    assert {path.name for path in (book / "_build").iterdir()} == {"html", landing}
    assert "A chapter" in (book / f"_build/html/{build.LANDING_CHAPTER}.html").read_text("utf-8")


def stored(*outputs):
    def damage(book):
        made = widget_notebook()
        made.cells[1].outputs = [*made.cells[1].outputs, *outputs]
        nbformat.write(made, book / f"{build.LANDING_CHAPTER}.ipynb")

    return damage


def without_outputs(book):
    made = widget_notebook()
    made.cells[1].outputs = []
    nbformat.write(made, book / f"{build.LANDING_CHAPTER}.ipynb")


FAILING = {
    "a link to nowhere": (
        lambda book: (book / "index.md").write_text("# Bad\n\n[x](nowhere.md)\n"),
        "nowhere.md",
    ),
    "no page": (
        lambda book: (book / f"{build.LANDING_CHAPTER}.ipynb").unlink(),
        "03-quantum-train.ipynb is not there, and _toc.yml names it.",
    ),
    "a stored warning": (stored(new_output("stream", name="stderr", text="x")), "stderr"),
    "a stored error": (
        stored(new_output("error", ename="OSError", evalue="", traceback=[])),
        "03-quantum-train.ipynb holds the output of a cell that failed: OSError.",
    ),
    "no outputs": (without_outputs, "03-quantum-train.ipynb holds no outputs."),
    "a conflict": (
        lambda book: (book / f"{build.LANDING_CHAPTER}.ipynb").write_text("<<<<<<< HEAD\n{}"),
        "03-quantum-train.ipynb cannot be read as a notebook",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_book_that_fails_says_why_and_leaves_the_former_pages(book, tmp_path, name):
    damage, sentence = FAILING[name]
    copy = tmp_path / "book"
    shutil.copytree(book, copy)
    damage(copy)
    code, said = make(copy)
    assert code == 1
    assert sentence in said
    assert "Open this one" not in said
    assert "Good" in (copy / "_build/html/index.html").read_text("utf-8")


def test_a_missing_page_is_seen(tmp_path):
    toc = {"root": "a", "parts": [{"chapters": [{"file": "b/c", "sections": [{"file": "b/d"}]}]}]}
    assert build.toc_files(toc) == ["a", "b/c", "b/d"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.html").touch()
    assert build.missing_pages(toc, tmp_path) == ["a", "b/d"]


def test_the_landing_page_has_a_chapters_widget():
    made = widget_notebook()
    texts = re.findall(r'<script type="([^"]+)">(.*?)</script>', build.widget_html(made))
    assert [(kind, json.loads(text)) for kind, text in texts] == [
        (build.STATE, made.metadata.widgets[build.STATE]),
        (build.VIEW, {"model_id": "a"}),
    ]


# --- Executing


def test_one_that_fails_stops_no_other_and_keeps_its_file(tmp_path):
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print(6 * 7)")]), good)
    nbformat.write(new_notebook(cells=[new_code_cell("gone + 1")]), bad)
    before = bad.read_bytes()
    with python(ROOT / "book/execute.py", "--jobs", 1, bad, good, cwd=tmp_path) as done:
        out, err = done.communicate()
    assert done.returncode == 1
    assert sorted(out.splitlines()) == ["FAILED  bad.ipynb", "done  good.ipynb"]
    assert "bad.ipynb failed, and its file is as it was" in err
    assert "NameError" in err
    assert bad.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"good.ipynb", "bad.ipynb"}
    made = nbformat.read(good, as_version=4)
    assert made.cells[0].outputs[0].text == "42\n"
    assert set(made.metadata.last_run) == {"date", "seconds", "processor", "python", "versions"}
    assert set(made.metadata.last_run.versions) == set(execute.PACKAGES)


def test_a_name_without_a_file_runs_nothing(tmp_path):
    with python(ROOT / "book/execute.py", tmp_path / "gone.ipynb") as done:
        _, err = done.communicate()
    assert done.returncode == 2
    assert re.search(r"no such file: .*gone\.ipynb", err)


def test_a_file_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execute.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            execute.write(path, b"new")
    assert path.read_bytes() == b"old"
    execute.write(path, b"new")
    assert path.read_bytes() == b"new"


def test_stored_widgets_do_not_depend_on_the_run():
    def notebook(first, second):
        view = new_output("display_data", {VIEW: {"model_id": first}})
        cell = new_code_cell("w", outputs=[view], id="one", metadata={"execution": {}})
        made = new_notebook(cells=[cell])
        state = {second: {"state": {}}, first: {"state": {"layout": f"IPY_MODEL_{second}"}}}
        made.metadata["widgets"] = {execute.WIDGETS: {"state": state}}
        made.metadata["language_info"] = {"name": "python", "version": "3.11.2"}
        return execute.tidy(made, "x.ipynb")

    one, other = notebook("a" * 32, "b" * 32), notebook("d" * 32, "c" * 32)
    assert nbformat.writes(one) == nbformat.writes(other)
    assert "a" * 32 not in nbformat.writes(one)
    assert one.metadata.language_info == {"name": "python"}
    assert one.cells[0].metadata == {}
    shown = one.cells[0].outputs[0].data[VIEW]["model_id"]
    assert shown in one.metadata.widgets[execute.WIDGETS]["state"]


def test_the_landing_picture_is_a_chapters_own():
    chapters = status.chapters().values()
    (png,) = [png for chapter in chapters for png in execute.landing_pictures(chapter)]
    assert execute.LANDING_PICTURE.read_bytes() == png, "run make notebooks"


# --- The page on the state of the chapters


def test_the_page_says_what_the_notebooks_hold():
    page = status.PAGE.read_text("utf-8")
    assert page == status.status_page(status.chapters()), "run .venv/bin/python book/status.py"


def test_a_line_of_the_page():
    answer = "<details>\n<summary>Answer</summary>\n\nnot counted\n\n</details>"
    text = new_markdown_cell(f"# A title\n\n{'word ' * 1195}\n\n{answer} tail")
    shown = [new_code_cell("1") for _ in range(7)]
    folded = [new_code_cell("1", metadata={"tags": ["hide-input"]}) for _ in range(9)]
    made = new_notebook(cells=[text, *shown, *folded])
    line = "[01 A title](../chapters/01-a.ipynb) | 1,200 | 15 |"
    assert status.words(made) == 1199
    assert status.row("01-a", made) == f"| {line} not recorded yet |  |  |  |\n"
    made.metadata["last_run"] = {
        **{"date": "2026-01-02", "seconds": 61, "processor": "P, AVX2", "python": "3.11.2"},
        "versions": {"torch": "2.5", "numpy": "1.26"},
    }
    rest = "2026-01-02 | 61 | P, AVX2 | Python 3.11.2, torch 2.5, numpy 1.26 |\n"
    assert status.row("01-a", made) == f"| {line} {rest}"
    assert status.status_page({"01-a": made}).endswith(f"|\n| {line} {rest}")
