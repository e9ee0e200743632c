"""What the runs of `make shake` say about each guard."""

from __future__ import annotations

import configparser
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

SANITIZE = Path(__file__).resolve().parent.parent / "tests/notebooks/nbval-sanitize.cfg"
NARROW = 0.5  # of its range over the runs: a guard that comes nearer to its bound held narrowly
ABOUT = """
`make shake` runs the chapters many times and writes this page. In each run but the first the
parameters of every optimiser are moved by a millionth of their size before its first step, and
torch, Numba and MKL take other arithmetic in turn. A guard is an assertion, an output that is
compared with the stored one, or the rule that a cell ends without an error. A cell has the number
that Jupyter shows. Algebra and stored tables do not vary; what a training found does.
"""
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


@cache
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


def brief(value: float | str) -> str:
    """Write a value with four digits."""
    return value if isinstance(value, str) else f"{value:.4g}"


def span(values: list[float | str]) -> str:
    """Write the smallest and the largest of some values; of texts, the first few."""
    numbers = sorted({value for value in values if not isinstance(value, str)})
    words = sorted({value for value in values if isinstance(value, str)})
    if words:
        return " or ".join([*map(brief, numbers), *words][:4])
    low, high = brief(numbers[0]), brief(numbers[-1])
    return low if low == high else f"{low} to {high}"


@dataclass
class Comparison:
    """A comparison that a guard makes, in all runs that made it."""

    sides: list[Side]

    @property
    def least(self) -> float:
        """The smallest distance to the bound over the runs."""
        return min(map(distance, self.sides))

    @property
    def spread(self) -> float:
        """How far the distance ranges over the runs."""
        return max(map(distance, self.sides)) - self.least

    @property
    def ratio(self) -> float:
        """How many spreads there are between the bound and the nearest run."""
        return self.least / self.spread if self.spread else math.copysign(math.inf, self.least)

    @property
    def varies(self) -> bool:
        """Say whether a side differs between the runs."""
        return len({(str(a), str(b)) for _, a, b in self.sides}) > 1

    @property
    def is_measured(self) -> bool:
        """Say whether it has a distance, which equality and texts lack."""
        return not any(math.isnan(distance(side)) for side in self.sides)

    def __str__(self) -> str:
        left, right = (span([side[i] for side in self.sides]) for i in (1, 2))
        return f"{left} {self.sides[0][0]} {right}"


@dataclass
class Guard:
    """An assertion, a compared output, or the rule that a cell ends without an error."""

    cell: int
    text: str
    held: list[bool] = field(default_factory=list)
    sides: list[list[Side]] = field(default_factory=list)  # one list for each run
    errors: list[str] = field(default_factory=list)

    @property
    def comparisons(self) -> list[Comparison]:
        """Get what it compares: in a loop, many pairs of numbers."""
        longest = max((len(sides) for sides in self.sides), default=0)
        return [Comparison([s[i] for s in self.sides if i < len(s)]) for i in range(longest)]

    @property
    def varies(self) -> bool:
        """Say whether anything in it differs between the runs."""
        return any(comparison.varies for comparison in self.comparisons)

    @property
    def nearest(self) -> Comparison | None:
        """Find the comparison that a further run would break most easily."""
        measured = [comparison for comparison in self.comparisons if comparison.is_measured]
        return min(measured, key=lambda c: c.ratio) if measured else None

    @property
    def is_narrow(self) -> bool:
        """Say whether it held, and came near to its bound for how much it varies."""
        nearest = self.nearest
        return all(self.held) and nearest is not None and nearest.varies and nearest.ratio < NARROW

    def over_the_runs(self) -> str:
        """Say what the runs found."""
        if self.nearest:
            others = len(self.comparisons) - 1
            return f"{self.nearest}" + (f" (nearest of {others + 1})" if others else "")
        seen = [str(comparison) for comparison in self.comparisons if comparison.varies]
        return "; ".join(seen) or next((error for error in self.errors if error), "")


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
                for comparison in guard.comparisons:
                    lines.append(f"    {comparison}")
                    if cell is not None and comparison.varies:
                        for place, name in ((1, "left"), (2, "right")):
                            values = [side[place] for side in comparison.sides]
                            if len(set(values)) > 1:
                                lines.append(f"      {name}: {', '.join(map(brief, values))}")
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
    text = " ".join(text.split())
    text = text if len(text) <= 160 else text[:157] + "..."
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"


def table(head: list[str], rows: list[list[object]]) -> list[str]:
    """Write a table of Markdown."""
    if not rows:
        return ["None."]
    lines: list[list[object]] = [[*head], ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def entries(study: Study, guards: list[Guard]) -> list[list[object]]:
    """Write a row for each of some guards."""
    rows: list[list[object]] = []
    for guard in guards:
        nearest = guard.nearest
        far = [f"{nearest.least:.3g}", f"{nearest.spread:.3g}"] if nearest else ["", ""]
        kept = f"{sum(guard.held)} of {len(guard.held)}"
        found = code(guard.over_the_runs()) if guard.over_the_runs() else ""
        rows.append([study.name[:2], guard.cell, code(guard.text), kept, found, *far])
    return rows


HEAD = ["chapter", "cell", "guard", "held", "over the runs", "smallest distance", "its range"]


def arithmetic(studies: list[Study]) -> str:
    """Say how many runs had which arithmetic."""
    runs = [result for study in studies for result in study.results]
    found = {
        "Kernels of torch": Counter(run["kernel"]["kernels"] for run in runs),
        "compiled code for": Counter(
            "any processor" if "NUMBA_CPU_NAME" in run["arithmetic"] else "this one" for run in runs
        ),
        "threads": Counter(str(run["kernel"]["threads"]) for run in runs),
    }
    parts = [
        f"{name} {', '.join(f'{what} ({count})' for what, count in sorted(counts.items()))}"
        for name, counts in found.items()
    ]
    return f"Runs by their arithmetic: {'; '.join(parts)}."


def summary(studies: list[Study]) -> str:
    """Write how many guards held, and those that did not or that held narrowly."""
    counts: list[list[object]] = []
    failed: list[list[object]] = []
    narrow: list[list[object]] = []
    for study in studies:
        guards = study.guards
        failed += entries(study, [guard for guard in guards if not all(guard.held)])
        narrow += entries(study, [guard for guard in guards if guard.is_narrow])
        held, vary = sum(all(g.held) for g in guards), sum(g.varies for g in guards)
        counts.append([study.name, len(study.results), len(guards), held, vary])
    lines = [
        *("# How often each guard held", ABOUT, f"{arithmetic(studies)}\n"),
        *table(["chapter", "runs", "guards", "held in all", "vary"], counts),
        *("", "## Guards that failed", "", *table(HEAD, failed)),
        *("", "## Guards that held narrowly", ""),
        *("Their smallest distance to the bound is under half of its range over the runs.", ""),
        *table(HEAD, narrow),
    ]
    return "\n".join(lines) + "\n"


def page(studies: list[Study]) -> str:
    """Write the whole report."""
    rows: list[list[object]] = []
    for study in studies:
        rows += entries(study, [guard for guard in study.guards if guard.varies])
    lines = ["", "## Guards that vary", "", *table(HEAD, rows)]
    return summary(studies) + "\n".join(lines) + "\n"
