"""Build the book into _build/html, and prove that it is whole: `make book` calls this.

No chapter is executed: the pages show the outputs that the notebooks hold. Warnings are errors, and
a missing page fails the build. The pages are built aside and change places with the former ones at
the end, so a build that fails or is interrupted leaves those as they were.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parent))
import finish

ROOT = Path(__file__).resolve().parent.parent
# The landing page shows the widget of this chapter, alive.
LANDING_CHAPTER = "chapters/03-quantum-train"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
# What earlier versions of this script kept in _build, and what an interrupted build leaves there.
LEFTOVERS = (".doctrees", ".jupyter_cache", "jupyter_execute", "next", "package-key", "former")


def toc_files(toc: dict[str, Any]) -> list[str]:
    """List every document that the table of contents names, root first."""
    found = [toc[key] for key in ("root", "file") if key in toc]
    for key in ("parts", "chapters", "sections"):
        for child in toc.get(key, []):
            found += toc_files(child)
    return found


def missing_pages(toc: dict[str, Any], html: Path) -> list[str]:
    """List the documents of the table of contents that have no page under ``html``."""
    return [name for name in toc_files(toc) if not (html / f"{name}.html").is_file()]


def faults(path: Path) -> list[str]:
    """Say what keeps a notebook's stored outputs from being shown, one sentence for each fault."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        return [f"{path.name} is not there, and _toc.yml names it."]
    except ValueError as error:  # a conflict of a merge, half a file
        return [f"{path.name} cannot be read as a notebook: {str(error).splitlines()[0]}"]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    if cells and not outputs:
        return [f"{path.name} holds no outputs."]
    errors = [output.ename for output in outputs if output.output_type == "error"]
    return [f"{path.name} holds the output of a cell that failed: {name}." for name in errors]


def widget_html(notebook: NotebookNode) -> str:
    """Write a notebook's first widget as it stands in a built page, for a page that is not run."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    view = next(out.data[VIEW] for out in outputs if VIEW in out.get("data", {}))
    texts = {STATE: json.dumps(notebook.metadata.widgets[STATE]), VIEW: json.dumps(view)}
    lines = []
    for kind, text in texts.items():
        text = text.replace("</", r"<\/")  # a script's text ends at the first "</"
        lines.append(f'<script type="{kind}">{text}</script>\n')
    return "".join([*lines, '<script src="../_static/anyhost.js"></script>\n'])


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pages(build: Path) -> bool:
    """Build the pages into ``build / "html"``, and say whether there was nothing to complain of."""
    # Here, because it takes a second, and a fault of a notebook is said at once.
    from jupyter_book.sphinx import build_sphinx

    # What is None or empty in the end is no error; an exception comes back as what it is.
    return not build_sphinx(
        ROOT,
        build / "html",
        noconfig=True,  # _config.yml in place of Sphinx's own conf.py
        path_config=ROOT / "_config.yml",
        confoverrides={
            "external_toc_path": (ROOT / "_toc.yml").as_posix(),
            "latex_individualpages": False,
            "nitpicky": True,
        },
        warningiserror=True,
        keep_going=True,
        quiet=True,
    )


def main() -> int:
    """Build, check, and print the page to open."""
    build, toc = ROOT / "_build", yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    names = toc_files(toc)
    build.mkdir(exist_ok=True)
    for name in LEFTOVERS:
        remove(build / name)

    notebooks = [ROOT / f"{name}.ipynb" for name in names if not (ROOT / f"{name}.md").is_file()]
    if found := [fault for path in notebooks for fault in faults(path)]:
        print(*found, sep="\n", file=sys.stderr)
        print("A chapter is executed anew by: make notebooks ONLY=chapters/...", file=sys.stderr)
        return 1
    landing = widget_html(nbformat.read(ROOT / f"{LANDING_CHAPTER}.ipynb", as_version=4))
    (build / "landing-widget.html").write_text(landing, "utf-8")

    print(f"Building {len(names)} pages from the stored outputs.", flush=True)
    fresh = build / "next" / "html"
    if not pages(fresh.parent):
        print("The book was not built: see the messages above.", file=sys.stderr)
        return 1
    if missing := missing_pages(toc, fresh):
        print(f"The build passed but left out: {', '.join(missing)}", file=sys.stderr)
        return 1
    finish.without_icon_script(fresh)
    finish.number_appendix_figures(fresh)
    title = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["title"]
    finish.write_twins(ROOT, names, fresh, title)
    html, former = build / "html", build / "former"
    if html.exists():
        html.rename(former)
    fresh.rename(html)
    for name in LEFTOVERS:
        remove(build / name)
    print(f"\n{len(names)} pages. Open this one in your browser:")
    print((html / f"{toc['root']}.html").as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
