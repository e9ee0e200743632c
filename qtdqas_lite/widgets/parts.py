"""Where the widgets' front ends are read from."""

from __future__ import annotations

from pathlib import Path


def front_end(name: str) -> tuple[str, str]:
    """Read the JavaScript module and the style sheet of one widget.

    Each is the part that all widgets share (``parts.js``, ``parts.css``) and then the widget's own,
    in one text: a page without a kernel has nothing to import from.

    Args:
        name: The widget's files are ``name.js`` and ``name.css``, beside this module.

    Returns:
        The module and the style sheet.
    """
    folder = Path(__file__).parent
    module, style = (
        "\n".join((folder / f"{stem}.{kind}").read_text("utf-8") for stem in ("parts", name))
        for kind in ("js", "css")
    )
    return module, style
