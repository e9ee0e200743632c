"""What the runs of `make shake` say about each guard."""

from __future__ import annotations

import configparser
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

SANITIZE = Path(__file__).resolve().parent.parent / "tests/notebooks/nbval-sanitize.cfg"
Side = tuple[str, Any, Any]  # a sign, and what stands left and right of it


def texts(outputs: list[NotebookNode]) -> dict[str, list[str]]:
    """Get the outputs of a cell that can be compared: streams joined, no pictures, no widgets."""
    found: dict[str, list[str]] = defaultdict(list)
    for output in outputs:
        if output.output_type == "stream":
            found[output.name] = ["".join([*found[output.name], output.text])]
        for kind, value in output.get("data", {}).items():
            if not kind.startswith(("image/", "application/vnd.jupyter.widget")):
                found[kind].append(value if isinstance(value, str) else repr(value))
    return dict(found)


def patterns() -> list[tuple[str, str]]:
    """Read what is replaced before outputs are compared, as nbval reads it."""
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(SANITIZE.read_text("utf-8"))
    return [(config[name]["regex"], config[name].get("replace", "")) for name in config.sections()]


def sanitized(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Replace what may differ."""
    clean = {}
    for kind, values in found.items():
        clean[kind] = list(values)
        for regex, replace in patterns():
            clean[kind] = [re.sub(regex, replace, value) for value in clean[kind]]
    return clean


def is_checked(cell: NotebookNode) -> bool:
    """Say whether nbval compares the outputs of a cell."""
    tagged = "nbval-check-output" in cell.metadata.get("tags", [])
    return tagged or re.search(r"#\s*NBVAL_CHECK_OUTPUT", cell.source) is not None


def distance(side: Side) -> float:
    """Say how far a comparison is from its bound; negative if it fails."""
    sign, left, right = side
    if sign not in ("<", "<=", ">", ">=") or isinstance(left, str) or isinstance(right, str):
        return math.nan
    return float(right - left if sign.startswith("<") else left - right)


def span(values: list[Any]) -> str:
    """Write the smallest and the largest of some values."""
    plain = sorted({v for v in values if not isinstance(v, str)})
    other = sorted({v for v in values if isinstance(v, str)})
    if other:
        return " or ".join([*(f"{v:.4g}" for v in plain), *other][:4])
    low, high = f"{plain[0]:.4g}", f"{plain[-1]:.4g}"
    return low if low == high else f"{low} to {high}"


@dataclass
class Narrowest:
    """The comparison of a guard that comes nearest to its bound, measured by its own spread."""

    least: float  # the smallest distance to the bound over all runs
    spread: float  # how far the distance ranges over the runs
    text: str

    @property
    def ratio(self) -> float:
        """How many spreads there are between the bound and the nearest run."""
        return self.least / self.spread if self.spread else math.copysign(math.inf, self.least)


@dataclass
class Guard:
    """An assertion, a compared output, or the rule that a cell ends without an error."""

    cell: int
    text: str
    held: list[bool] = field(default_factory=list)
    sides: list[list[Side]] = field(default_factory=list)  # one list for each run
    errors: list[str] = field(default_factory=list)

    def compared(self) -> list[list[Side]]:
        """Get each comparison of the guard, in all runs that made it."""
        longest = max((len(sides) for sides in self.sides), default=0)
        return [[s[i] for s in self.sides if i < len(s)] for i in range(longest)]

    def varies(self) -> bool:
        """Say whether anything in it differs between the runs."""
        return any(len({(str(a), str(b)) for _, a, b in same}) > 1 for same in self.compared())

    def narrowest(self) -> Narrowest | None:
        """Find the comparison that a further run would break most easily."""
        found = []
        for same in self.compared():
            distances = [distance(side) for side in same]
            if any(math.isnan(d) for d in distances):
                continue
            text = f"{span([a for _, a, _ in same])} {same[0][0]} {span([b for _, _, b in same])}"
            found.append(Narrowest(min(distances), max(distances) - min(distances), text))
        return min(found, key=lambda n: n.ratio) if found else None


class Study:
    """All runs of one chapter."""

    def __init__(self, name: str, cells: list[NotebookNode], results: list[dict[str, Any]]) -> None:
        self.name, self.results = name, results
        guards: dict[tuple[int, Any, str], Guard] = {}

        def guard(cell: int, number: Any, text: str) -> Guard:
            return guards.setdefault((cell, number, text), Guard(cell, text))

        for result in results:
            errors = {int(cell): text for cell, text in result["errors"].items()}
            for entry in result["guards"]:
                one = guard(entry["cell"], entry["guard"], entry["text"])
                never = not entry["times"] and entry["cell"] in errors
                one.held.append(entry["held"] and not never)
                one.sides.append([tuple(side) for side in entry["sides"]])
                one.errors += ["not reached" if never else entry["error"] or ""]
            for number, cell in enumerate(cells, 1):
                one = guard(number, "~error", "the cell ends without an error")
                one.held.append(number not in errors)
                one.errors.append(errors.get(number, ""))
                fresh = result["outputs"].get(str(number))
                if is_checked(cell) and fresh is not None:
                    same = sanitized(fresh) == sanitized(texts(cell.outputs))
                    one = guard(number, "~output", "the output is the stored one")
                    one.held.append(same)
                    one.errors.append("" if same else "another output")
        self.guards = sorted(guards.values(), key=lambda g: g.cell)

    def held(self) -> bool:
        """Say whether every guard held in every run."""
        return all(all(guard.held) for guard in self.guards)

    def values(self, cell: int | None) -> list[str]:
        """List both sides of every guard over the runs."""
        lines = []
        for guard in self.guards:
            if cell in (None, guard.cell) and guard.sides:
                kept = f"held {sum(guard.held)} of {len(guard.held)}"
                lines.append(f"[{guard.cell}] {kept}: {guard.text}")
                for same in guard.compared():
                    left, right = span([a for _, a, _ in same]), span([b for _, _, b in same])
                    lines.append(f"      {left}  {same[0][0]}  {right}")
        return lines

    def differing_outputs(self, cell: int | None) -> list[str]:
        """List the texts that a cell prints, where they differ between the runs."""
        lines = []
        numbers = sorted({int(n) for result in self.results for n in result["outputs"]})
        for number in numbers:
            seen: dict[str, list[int]] = defaultdict(list)
            for result in self.results:
                found = result["outputs"].get(str(number), {})
                text = "\n".join([*found.get("stdout", []), *found.get("text/plain", [])])
                seen[text].append(result["run"])
            if cell == number or (cell is None and len(seen) > 1):
                for text, runs in seen.items():
                    lines += [f"--- cell [{number}], runs {', '.join(map(str, runs))}", text]
        return lines


def code(text: str) -> str:
    """Write a piece of code into a table of Markdown."""
    text = text if len(text) <= 160 else text[:157] + "..."
    return "`" + " ".join(text.split()).replace("|", "\\|") + "`"


def page(studies: list[Study]) -> str:
    """Write the report."""
    lines = [
        "# How often each guard held",
        "",
        "`make shake` runs the chapters many times and writes this page. In each run but the first",
        "the parameters of every optimiser are moved by a millionth of their size before its first",
        "step, and torch, Numba and MKL use other arithmetic. A guard is an assertion, an output",
        "that is compared, or that a cell ends without an error. A cell has the number that",
        "Jupyter shows.",
        "",
        "| chapter | runs | guards | held in all | vary |",
        "|---|---|---|---|---|",
    ]
    for study in studies:
        counted = [g for g in study.guards if g.sides or not all(g.held) or "output" in g.text]
        held, vary = sum(all(g.held) for g in counted), sum(g.varies() for g in counted)
        row = [study.name, len(study.results), len(counted), held, vary]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    lines += ["", "## Guards that failed", ""]
    rows = []
    for study in studies:
        for guard in study.guards:
            if not all(guard.held):
                nearest = guard.narrowest()
                errors = [text for text in guard.errors if text]
                why = nearest.text if nearest else errors[0] if errors else ""
                worst = f"{nearest.least:.3g}" if nearest else ""
                kept = f"{sum(guard.held)} of {len(guard.held)}"
                cells = [study.name[:2], guard.cell, code(guard.text), kept, code(why), worst]
                rows.append("| " + " | ".join(map(str, cells)) + " |")
    table = ["| chapter | cell | guard | held | over the runs | worst distance |"]
    lines += [*table, "|---|---|---|---|---|---|", *rows] if rows else ["None."]
    lines += ["", "## Guards that held narrowly", ""]
    lines += ["Their smallest distance to the bound is under half of its range over the runs.", ""]
    rows = []
    for study in studies:
        for guard in study.guards:
            nearest = guard.narrowest()
            if all(guard.held) and nearest and nearest.spread > 0 and nearest.ratio < 0.5:
                cells = [study.name[:2], guard.cell, code(guard.text), nearest.text]
                cells += [f"{nearest.least:.3g}", f"{nearest.spread:.3g}"]
                rows.append("| " + " | ".join(map(str, cells)) + " |")
    table = ["| chapter | cell | guard | over the runs | smallest distance | its range |"]
    lines += [*table, "|---|---|---|---|---|---|", *rows] if rows else ["None."]
    return "\n".join(lines) + "\n"
