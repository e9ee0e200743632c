"""What is done to built pages, and the command that writes the repository's address."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(f"book_{name}", ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


finish, moving = script("finish"), script("set_repository")


def test_the_icons_script_goes_and_folds_are_named_by_what_they_say(tmp_path):
    page = tmp_path / "chapters" / "a.html"
    kept = '<script defer src="../_static/scripts/bootstrap.js?digest=1"></script>'
    tag = '<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>'
    preload = '<link rel="preload" as="script" href="../_static/scripts/fontawesome.js?digest=1">'
    fold = '<summary aria-label="Toggle hidden content"><span>How it is drawn</span></summary>'
    parts = '<summary><span class="toctree-toggle"></span></summary>'
    corner = "<tr><th></th><th>a</th></tr>"
    for path in (page, tmp_path / "_static/scripts/fontawesome.js.map"):
        path.parent.mkdir(parents=True)
        path.write_text(preload + tag + kept + fold + parts + corner, "utf-8")
    finish.without_icon_script(tmp_path)
    found = page.read_text("utf-8").removeprefix(f"{kept}<summary><span>How it is drawn</span>")
    assert found == (
        '</summary><summary aria-label="Parts of this page"><span class="toctree-toggle">'
        "</span></summary><tr><td></td><th>a</th></tr>"
    )
    assert not list(tmp_path.glob("_static/scripts/fontawesome*"))


def test_figures_are_numbered_by_appendix(tmp_path):
    (tmp_path / "chapters").mkdir()
    caption = '<span class="caption-number">Fig. {} </span>'
    pages = {"a1-fast": (1, 2), "a2-more": (3,), "12-verdict": ("12.1",)}
    for name, numbers in pages.items():
        text = "".join(caption.format(number) for number in numbers)
        (tmp_path / "chapters" / f"{name}.html").write_text(text, "utf-8")
    finish.number_appendix_figures(tmp_path)
    for name, numbers in {"a1-fast": ("A1.1", "A1.2"), "a2-more": ("A2.1",)}.items():
        text = "".join(caption.format(number) for number in numbers)
        assert (tmp_path / "chapters" / f"{name}.html").read_text("utf-8") == text
    assert "Fig. 12.1 " in (tmp_path / "chapters" / "12-verdict.html").read_text("utf-8")


def notebook():
    stream = new_output("stream", text="3 weights\n")
    drawn = new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
    metadata = {"mystnb": {"figure": {"caption": "A circle."}, "image": {"alt": "A round thing."}}}
    return new_notebook(
        cells=[
            new_markdown_cell("# A title\n\nSee [chapter 05](05-x.ipynb#here). And more."),
            new_code_cell("install", metadata={"tags": ["remove-input"]}),
            new_code_cell("print(3)", outputs=[stream]),
            new_code_cell("draw()", outputs=[drawn], metadata=metadata),
            new_code_cell("assert True", metadata={"tags": ["remove-cell"]}),
        ]
    )


def test_a_notebook_as_markdown():
    text = finish.markdown(notebook())
    assert "```python\nprint(3)\n```\n\n```text\n3 weights\n```" in text
    assert "*Figure: A circle.*" in text
    for absent in ("install", "assert True", "<Figure>"):
        assert absent not in text


def test_each_page_has_a_twin_and_one_list_names_them(tmp_path):
    for folder in ("site/book", "site/chapters", "book", "chapters"):
        (tmp_path / folder).mkdir(parents=True)
    index = "# The book\n\n```{raw} html\n```\n\nIt begins *here*. Then it goes on.\n"
    (tmp_path / "book/index.md").write_text(index, "utf-8")
    nbformat.write(notebook(), tmp_path / "chapters/05-x.ipynb")
    names = ["book/index", "chapters/05-x"]
    finish.write_twins(tmp_path, names, tmp_path / "site", "The book")
    assert "[chapter 05](05-x.md#here)" in (tmp_path / "site/chapters/05-x.md").read_text("utf-8")
    listed = (tmp_path / "site/llms.txt").read_text("utf-8")
    assert listed.startswith("# The book\n\n> It begins here.\n")
    assert "- [A title](chapters/05-x.md): See chapter 05." in listed


# --- The address


@pytest.fixture
def elsewhere(tmp_path):
    """A repository with the files that name the address."""
    listed = subprocess.run(
        ["git", "grep", "-lI", "OWNER"], cwd=ROOT, capture_output=True, text=True
    )
    names = [*listed.stdout.split(), "book/_static/favicon.svg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path, [tmp_path / name for name in names]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository's history")
def test_the_address_is_written_everywhere_and_can_be_written_again(elsewhere):
    root, files = elsewhere
    before = {path: path.read_bytes() for path in files}
    owner, name = "an-owner", "a.book"  # never side by side: this file is changed and restored too
    changed = moving.set_repository(root, files, f"https://github.com/{owner}/{name}.git")
    assert len(changed) > 15
    left = [p.name for p in changed if "OWNER" in p.read_text("utf-8") and p.suffix != ".py"]
    assert [name for name in left if name not in ("CONTRIBUTING.md",)] == []
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    assert config["repository"]["url"] == f"https://github.com/{owner}/{name}"
    sphinx = config["sphinx"]["config"]
    assert sphinx["html_baseurl"] == sphinx["ogp_site_url"] == f"https://{owner}.github.io/{name}/"
    assert sphinx["notfound_urls_prefix"] == "/a.book/"
    moving.set_repository(root, files, "https://github.com/OWNER/REPO")
    assert {path: path.read_bytes() for path in files} == before


def test_another_repository_is_left_alone():
    forms = moving.forms("a", "b"), moving.forms("x", "y")
    text = "github.com/a/b a/b-more aa/b https://a.github.io/b/ https://github.com/a/b.git"
    wanted = "github.com/x/y a/b-more aa/b https://x.github.io/y/ https://github.com/x/y.git"
    assert moving.replaced(text, *forms) == wanted


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a"]
)
def test_what_is_no_address_is_refused(url, monkeypatch, capsys, tmp_path):
    with pytest.raises(ValueError, match="must look like"):
        moving.set_repository(ROOT, [], url)
    monkeypatch.setattr(sys, "argv", ["set_repository.py", url])
    monkeypatch.setattr(moving.subprocess, "run", lambda *a, **k: type("R", (), {"stdout": b""}))
    assert moving.main() == 2
    assert "must look like" in capsys.readouterr().err
