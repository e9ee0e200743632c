"""Build the book into _build/html, and prove that it is whole: `make book` calls this.

Every chapter is executed, unless neither it nor the package has changed since its last run.
Warnings are errors, a chapter that fails shows its traceback, and a missing page fails the build.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
# The landing page shows the widget of this chapter, alive.
LANDING_CHAPTER = ROOT / "chapters/03-quantum-train.ipynb"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def package_key(root: Path) -> str:
    """Hash what a chapter's outputs depend on besides its own cells.

    jupyter-cache looks at a notebook's code only: without this key, a change of the package would
    leave yesterday's outputs in the book.
    """
    digest = hashlib.sha256()
    found = (root / "qtdqas_lite").rglob("*")
    files = [p for p in found if p.is_file() and p.parent.name != "__pycache__"]
    for path in sorted([*files, root / "requirements.txt"]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def toc_files(toc: dict[str, Any]) -> list[str]:
    """List every document that the table of contents names, root first."""
    found = [toc[key] for key in ("root", "file") if key in toc]
    for key in ("parts", "chapters", "sections"):
        for child in toc.get(key, []):
            found += toc_files(child)
    return found


def run_chapters(names: list[str], cache_folder: Path) -> None:
    """Execute the chapters that the cache does not hold, as many at a time as there are cores.

    jupyter-book would run them one after the other. It takes what it finds in the cache, and runs
    again, and reports, what failed here.
    """
    cache = get_cache(cache_folder)
    for path in [ROOT / f"{name}.ipynb" for name in names]:
        if path.is_file():
            cache.add_nb_to_project(str(path))
    load_executor("temp-parallel", cache).run_and_cache(timeout=300)


def missing_pages(toc: dict[str, Any], html: Path) -> list[str]:
    """List the documents of the table of contents that have no page under ``html``."""
    return [name for name in toc_files(toc) if not (html / f"{name}.html").is_file()]


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


def main() -> int:
    """Build, check, and print the page to open."""
    build, toc = ROOT / "_build", yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    html, stamp, key = build / "html", build / "package-key", package_key(ROOT)
    if not stamp.is_file() or stamp.read_text() != key:
        shutil.rmtree(build / ".jupyter_cache", ignore_errors=True)
    # An old page must not stand in for one that was not built. Outputs come from the cache.
    shutil.rmtree(html, ignore_errors=True)
    build.mkdir(exist_ok=True)
    stamp.write_text(key)
    landing = widget_html(nbformat.read(LANDING_CHAPTER, as_version=4))
    (build / "landing-widget.html").write_text(landing, "utf-8")

    run_chapters(toc_files(toc), build / ".jupyter_cache")

    # --all: Sphinx warns of a page only when it reads it; without, a second run would pass.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    options = ["build", ".", "--all", "-W", "-n", "--keep-going"]
    status = subprocess.run(command + options, cwd=ROOT, check=False).returncode
    for report in sorted(html.rglob("reports/**/*.err.log")):
        print(f"\n--- {report.relative_to(html)}\n{report.read_text('utf-8')}", file=sys.stderr)
    if status:
        print("The book was not built: see the messages above.", file=sys.stderr)
        return status
    if missing := missing_pages(toc, html):
        print(f"The build passed but left out: {', '.join(missing)}", file=sys.stderr)
        return 1
    print(f"\n{len(toc_files(toc))} pages. Open this one in your browser:")
    print((html / f"{toc['root']}.html").as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
