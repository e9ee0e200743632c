"""What the theme leaves to be desired is done to the built pages: `make book` calls this.

The icons' script (1.5 MB for a dozen icons) goes; the stylesheet draws them. Folds are named by
what they say. Beside each page lies its text in Markdown, and llms.txt lists all of them.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ICON_SCRIPT = re.compile(
    r"<script[^>]*/fontawesome\.js[^>]*></script>\s*|<link[^>]*/fontawesome\.js[^>]*>"
)
# The same for all folds, and so of no use to somebody who hears it; the visible text says more.
FOLD = re.compile(r'<summary aria-label="Toggle hidden content">')
# The arrow that opens a page's parts in the table of contents says nothing at all.
PARTS = re.compile(r'<summary>(?=<span class="toctree-toggle")')
# The corner of a table of pandas heads nothing.
CORNER = re.compile(r"<th[^>]*>\s*</th>")
# Sphinx numbers figures by chapter, and through all appendices, which are no chapters.
FIGURE = re.compile(r'(?<=<span class="caption-number">Fig\. )\d+(?= )')


def without_icon_script(html: Path) -> None:
    """Take the icons' script out of every page, and its files away; mend what is read aloud."""
    for page in html.rglob("*.html"):
        text = page.read_text("utf-8")
        changed = FOLD.sub("<summary>", ICON_SCRIPT.sub("", text))
        changed = PARTS.sub('<summary aria-label="Parts of this page">', changed)
        changed = CORNER.sub("<td></td>", changed)
        if changed != text:
            page.write_text(changed, "utf-8")
    for left in html.glob("_static/scripts/fontawesome.js*"):
        left.unlink()
    shutil.rmtree(html / "_static/vendor/fontawesome", ignore_errors=True)


def number_appendix_figures(html: Path) -> None:
    """Number the figures of each appendix for itself: A1.1, A1.2 and so on."""
    for page in html.glob("chapters/a[0-9]-*.html"):
        name, number = page.stem[:2].upper(), itertools.count(1)
        text = page.read_text("utf-8")
        page.write_text(FIGURE.sub(lambda _, n=name, k=number: f"{n}.{next(k)}", text), "utf-8")


def output_text(cell: NotebookNode) -> str:
    """Give what a cell prints, and in place of pictures what their captions say."""
    texts = []
    picture = cell.metadata.get("mystnb", {})
    caption = picture.get("figure", {}).get("caption") or picture.get("image", {}).get("alt")
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            texts.append(f"```text\n{output.text.rstrip()}\n```")
        elif any(kind.startswith("image/") for kind in data) and caption:
            texts.append(f"*Figure: {' '.join(caption.split())}*")
        elif "text/plain" in data and "application/vnd.jupyter.widget-view+json" not in data:
            texts.append(f"```text\n{data['text/plain'].rstrip()}\n```")
    return "\n\n".join(texts)


def markdown(notebook: NotebookNode) -> str:
    """Write a notebook as Markdown: its text, its code and what it prints."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif "remove-cell" not in cell.metadata.get("tags", []):
            if "remove-input" not in cell.metadata.get("tags", []):
                parts.append(f"```python\n{cell.source}\n```")
            parts.append(output_text(cell))
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(text: str) -> tuple[str, str]:
    """Give the title of a page in Markdown, and its first sentence."""
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    after = text[title.end() :] if title else text
    paragraphs = (" ".join(part.split()) for part in after.split("\n\n"))
    first = next((p for p in paragraphs if p and p[0] not in "`#<|:-!"), "")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", first).replace("*", "")
    return title[1] if title else "", re.split(r"(?<=[.?!]) ", plain)[0]


def write_twins(root: Path, names: Iterable[str], html: Path, title: str) -> None:
    """Put the Markdown of every page beside it, and list all of them in llms.txt."""
    lines = [f"# {title}", ""]
    for number, name in enumerate(names):
        source = root / f"{name}.md"
        if source.is_file():
            text = source.read_text("utf-8")
        else:
            text = markdown(nbformat.read(root / f"{name}.ipynb", as_version=4))
        # Links between pages lead from twin to twin.
        text = re.sub(r"\]\(((?!https?:)[^)#]+)\.ipynb(#[^)]*)?\)", r"](\1.md\2)", text)
        (html / f"{name}.md").write_text(text, "utf-8")
        heading, first = summary(text)
        if number == 0:
            lines += [f"> {first}", "", "## Pages", ""]
        lines.append(f"- [{heading}]({name}.md): {first}")
    (html / "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")
