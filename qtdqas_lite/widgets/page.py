"""Widgets as a page of their own, which needs neither Jupyter nor the network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from anywidget import AnyWidget
from ipywidgets.embed import dependency_state, embed_data

from ..errors import DataError, check_type
from ..files import write_atomically
from .parts import BookWidget

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ margin: 0; font-family: sans-serif; color: #1d2426; background: #fff }}
html[data-theme="dark"] body {{ color: #dfe4e4; background: #14191c }}
main {{ max-width: 56rem; margin: auto; padding: 0 16px }}
</style>
<script>
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
if (dark) document.documentElement.dataset.theme = "dark";
</script>
</head>
<body>
<main>
<h1>{title}</h1>
{views}
</main>
<script type="application/vnd.jupyter.widget-state+json">{state}</script>
<script>{host}</script>
</body>
</html>
"""


def save_html(
    widgets: AnyWidget | Sequence[AnyWidget],
    path: str | PathLike[str],
    *,
    title: str = "Widgets",
) -> None:
    """Save widgets, as they are now, to one HTML file that works by itself.

    It can be put on a course's page or opened from a stick: it loads nothing from anywhere.

    Args:
        widgets: A widget of this package, or several.
        path: The file.
        title: The page's title and heading.

    Raises:
        FileNotFoundError: if there is no such folder.
        DataError: if these are other widgets, or the path is not that of a file.
    """
    shown = [widgets] if isinstance(widgets, AnyWidget) else list(widgets)
    for widget in shown:
        check_type(DataError, BookWidget, widget=widget)
    data = embed_data(shown, state=dependency_state(shown, drop_defaults=False))
    views = [
        f'<script type="application/vnd.jupyter.widget-view+json">{_text(view)}</script>'
        for view in data["view_specs"]
    ]
    page = PAGE.format(
        title=html.escape(title),
        views="\n".join(views),
        state=_text(data["manager_state"]),
        host=Path(__file__).with_name("anyhost.js").read_text("utf-8"),
    )
    write_atomically(DataError, path, page.encode())


def _text(value: object) -> str:
    """Write JSON so that it cannot end the script that it stands in."""
    return json.dumps(value).replace("</", "<\\/")
