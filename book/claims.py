"""Write the tables of book/claims.md from the stored results: `make results` calls this at its end.

What the paper says stands here as text; what was found here is computed from the tables, verdicts
included, so that no number of ours is typed.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from pandas import DataFrame, Series
from scipy import stats

from qtdqas_lite import Candidate, paper_space
from qtdqas_lite.experiments import stored_results
from qtdqas_lite.statistics import paired
from qtdqas_lite.tasks.classification import mlp
from qtdqas_lite.tasks.configurations import build

PAGE = Path(__file__).resolve().parent / "claims.md"

# Circuits of the paper whose probabilities do not depend on their angles (chapter 04).
UNIFORM, ONE_STATE = (1, 3, 4, 6), (9, 12)

# Test MSE, times 1e-6, as a digest of arXiv 2505.09653 gives it: the searched mixture, the best and
# the worst of the twelve (number), the uniform circuits, the circuits that stay in one state.
PAPER_MSE: dict[str, tuple[str, str, str, str, str]] = {
    "bessel": ("40", "141 (8)", "7428 (11)", "515", "1391"),
    "damped-motion": ("36", "40 (7)", "32072 (11)", "155", "154"),
    "delayed-control": ("1710", "211 (11)", "2638 (6)", "676-2638", "956"),
    "narma-5": ("50", "24 (5)", "91 (8)", "38", "45"),
    "narma-10": ("117", "81 (8)", "140 (11)", "95", "125"),
}
NAMES = {
    "bessel": "Bessel function",
    "damped-motion": "Damped motion",
    "delayed-control": "Delayed quantum control",
    "narma-5": "NARMA-5",
    "narma-10": "NARMA-10",
}


Found = tuple[float, float, float]
#: The verdicts, in the order in which the summary counts them.
VERDICTS = REPRODUCED, DIFFERS, OPEN, UNTESTABLE = (
    "reproduced",
    "differs",
    "not settled",
    "cannot be tested",
)


def difference(one: Series, other: Series, comparisons: int = 1) -> Found:
    """Give the mean of one minus other, paired by seed, and its interval (appendix A2)."""
    both = one.to_frame("one").join(other.to_frame("other"), how="inner").dropna()
    first, second = (torch.tensor(both[name].to_numpy(float)) for name in ("one", "other"))
    found = paired(first, second, comparisons)
    return found.mean, *found.interval


def ratio(one: Series, other: Series, comparisons: int = 1) -> Found:
    """Give the geometric mean of one over other, paired by seed, and its interval."""
    mean, low, high = map(math.exp, difference(np.log(one), np.log(other), comparisons))
    return mean, low, high


def at_the_ceiling(one: Series, other: Series) -> bool:
    """Say whether nothing can be told apart, because both are right every time."""
    return bool((one == 1).all() and (other == 1).all())


def verdict(found: Found, neutral: float, paper_is_below: bool) -> str:
    """Say whether our interval lies on the same side as the paper's figure."""
    _, low, high = found
    if low <= neutral <= high:
        return OPEN
    return REPRODUCED if (high < neutral) == paper_is_below else DIFFERS


def shown(found: Found, digits: int = 2) -> str:
    """Write a value and its interval."""
    value, low, high = (f"{round(x, digits) + 0.0:.{digits}f}" for x in found)  # no -0.00
    return f"{value} [{low}, {high}]"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Write a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(x) for x in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_seed(rows: DataFrame, column: str, **wanted: object) -> Series:
    """Give a column of the rows that are wanted, by seed."""
    for name, value in wanted.items():
        rows = rows[rows[name].isna() if value is None else rows[name] == value]
    return rows.set_index("seed")[column].sort_index()


# --- Forecasting


def million(values: Iterable[float]) -> str:
    """Write errors in units of 1e-6: the median, and in brackets the smallest and the largest."""
    found = sorted(1e6 * value for value in values)
    three = np.median(found), found[0], found[-1]
    median, low, high = (f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in three)
    return f"{median} ({low} to {high})"


def twelve(rows: DataFrame, numbers: Iterable[int]) -> dict[int, Series]:
    """Give the test errors of the paper's circuits, each trained by itself, by seed."""
    return {n: by_seed(rows, "test_mse", kind="fixed", number=n) for n in numbers}


def group(circuits: dict[int, Series], numbers: Iterable[int]) -> Series:
    """Give the geometric mean over some circuits, by seed."""
    return np.exp(sum(np.log(circuits[n]) for n in numbers) / len(list(numbers)))


def series_section(rows: DataFrame, name: str) -> str:
    """Compare one series with the paper: figures side by side, then what can be decided."""
    rows = rows[rows["series"] == name]
    searched = by_seed(rows, "test_mse", kind="ensemble", method="joint")
    circuits = twelve(rows, range(1, 13))
    validated = {
        n: np.log(by_seed(rows, "validation_mse", kind="fixed", number=n)).mean() for n in circuits
    }
    order = sorted(circuits, key=lambda n: validated[n])
    best, worst = order[0], order[-1]
    theirs = PAPER_MSE[name]
    uniform, one_state = group(circuits, UNIFORM), group(circuits, ONE_STATE)
    figures = table(
        ["test MSE, $10^{-6}$", "paper", "here"],
        [
            ("searched mixture, 135 numbers", theirs[0], million(searched)),
            ("best of the twelve [number]", theirs[1], f"{million(circuits[best])} [{best}]"),
            ("worst of the twelve [number]", theirs[2], f"{million(circuits[worst])} [{worst}]"),
            ("circuits 1, 3, 4, 6: no angle matters", theirs[3], million(uniform)),
            ("circuits 9, 12: no angle matters", theirs[4], million(one_state)),
        ],
    )
    mixture, best_of, _, even, single = (float(x.split()[0].split("-")[0]) for x in theirs)
    relations = []
    for label, other, theirs_other in (
        (f"the best of the twelve (here {best})", circuits[best], best_of),
        ("circuits 1, 3, 4, 6", uniform, even),
        ("circuits 9, 12", one_state, single),
    ):
        found = ratio(searched, other, comparisons=3)
        relations.append(
            (
                f"mixture over {label}",
                f"{mixture / theirs_other:.2f}",
                shown(found),
                verdict(found, 1.0, mixture < theirs_other),
            )
        )
    compared = table(["error of the", "paper", "here [95 %]", "verdict"], relations)
    seeds = f"{len(searched)} seeds; of the twelve one by one, {len(circuits[best])}."
    return f"### {NAMES[name]}\n\n{seeds}\n\n{figures}\n\n{compared}\n"


# --- Counts


def counts(classification: DataFrame, forecasting: DataFrame) -> str:
    """Compare the sizes that the paper states; those of the agents are the package's to give."""
    rows = []
    for network, paper, found in (
        (
            "MLP 784-128-64-2",
            (108_866, 286),
            classification[classification["task"] == "1 against 5"],
        ),
        ("LSTM with 20 units", (1_781, 135), forecasting),
    ):
        found = found[(found["kind"] == "ensemble") & (found["method"] == "joint")]
        ((weights, trained),) = set(zip(found["weights"], found["trainables"], strict=True))
        rows.append((network, paper, (weights, trained)))
    for name, n_outputs, paper in (("policy", 7, (6_023, 157)), ("value", 1, (5_825, 157))):
        budget = build("ensemble", mlp(147, 32, 32, n_outputs), 10).count()  # type: ignore[operator]
        rows.append((f"{name} 147-32-32-{n_outputs}", paper, (budget.target, budget.total)))
    return table(
        ["network", "paper: weights, trained", "here", "verdict"],
        [
            (
                name,
                f"{a:,}; {b:,}",
                f"{c:,}; {d:,}",
                REPRODUCED if a == c and b == d else DIFFERS,
            )
            for name, (a, b), (c, d) in rows
        ],
    )


# --- Classification


def points(found: Found) -> str:
    """Write a difference of accuracies in points, with its interval."""
    value, low, high = found
    return shown((100 * value, 100 * low, 100 * high), 1)


def not_below(found: Found, ceiling: bool = False) -> str:
    """Judge a claim of matching or beating by our interval alone."""
    _, low, high = found
    if ceiling:
        return UNTESTABLE
    return DIFFERS if high < 0 else REPRODUCED if low > 0 else OPEN


def above_most(
    gaps: dict[int, Found], ceiling: Iterable[int] = (), word: str = "above"
) -> tuple[str, str]:
    """Count the circuits that a mixture is above, by its interval; judge whether these are most.

    Circuits at the ceiling are level with a mixture that is there too, whatever the claim.
    """
    level = set(ceiling)
    above = [n for n, (_, low, _) in gaps.items() if low > 0]
    below = [n for n, (_, _, high) in gaps.items() if high < 0]
    parts = [f"{word} {', '.join(map(str, above)) or 'none'}"]
    parts += [f"level at the ceiling with {', '.join(map(str, sorted(level)))}"] if level else []
    left = len(gaps) - len(above) - len(level) - len(below)
    parts += [f"not {word} {', '.join(map(str, below))}"] if below else []
    parts += [f"of {left} it cannot be told"] if left else []
    said = "; ".join(parts)
    if 2 * len(above) > len(gaps):
        return said, REPRODUCED
    if 2 * len(below) >= len(gaps):
        return said, DIFFERS
    return said, UNTESTABLE if 2 * (len(above) + left) <= len(gaps) else OPEN


def classification_section(rows: DataFrame) -> str:
    """Compare what the paper says of images, at its size."""
    rows = rows[rows["task"] == "1 against 5"]
    searched = by_seed(rows, "test_accuracy", kind="ensemble", method="joint")
    alone, validated = (
        {n: by_seed(rows, column, kind="fixed", number=n) for n in range(1, 13)}
        for column in ("test_accuracy", "validation_accuracy")
    )
    chosen = max(validated, key=lambda n: (validated[n].mean(), n))
    by_hand = difference(searched, alone[chosen])
    ceiling = [n for n, one in alone.items() if at_the_ceiling(searched, one)]
    plain = difference(searched, by_seed(rows, "test_accuracy", kind="plain"))
    frozen = difference(searched, by_seed(rows, "test_accuracy", kind="frozen"))
    gaps = {n: difference(searched, one, comparisons=12) for n, one in alone.items()}
    most, judged = above_most(gaps, ceiling)
    discrete = by_seed(rows, "discrete_accuracy", kind="ensemble", method="joint")
    retrained = by_seed(rows, "retrained_accuracy", kind="ensemble", method="joint")
    percent = 100 * searched
    claims = [
        (
            "over 98 % of FashionMNIST's 1 against 5",
            f"{percent.median():.1f} % ({percent.min():.1f} to {percent.max():.1f}) of resized "
            f"digits",
            f"{UNTESTABLE}: other images",
        ),
        (
            "above most of the twelve circuits (curves)",
            most,
            judged,
        ),
        (
            "matches or beats circuits made by hand",
            f"less circuit {chosen}, the best on validation images: {points(by_hand)}"
            + ("; both are at the ceiling" if chosen in ceiling else ""),
            not_below(by_hand, chosen in ceiling),
        ),
        (
            "no discrete circuit is reported",
            f"the likeliest circuit, as trained: {100 * discrete.median():.1f} %; retrained: "
            f"{100 * retrained.median():.1f} %",
            "nothing to compare with",
        ),
        (
            "no such control",
            f"less the plain network of 108,866 numbers: {points(plain)}; less a frozen circuit "
            f"with a mapping of 19 trained numbers: {points(frozen)}",
            "nothing to compare with",
        ),
    ]
    found = table(["the paper", "here (differences in points)", "verdict"], claims)
    return f"{len(searched)} seeds.\n\n{found}"


# --- Designs: what the joint searches of the twelve pointed at


def number(found: str) -> int:
    """Give the number, among the paper's twelve, of a circuit that was found."""
    circuit = Candidate.from_json(found)
    return 1 + list(paper_space(circuit.n_qubits, circuit.n_layers)).index(circuit)


def against_lot(dead: int, searches: int) -> str:
    """Compare a count of dead circuits with a lot's, half, by the exact binomial test at 5 %."""
    if stats.binomtest(dead, searches).pvalue > 0.05:
        return "cannot be told from a lot"
    return "better than a lot" if 2 * dead < searches else "worse than a lot"


def designs(tasks: dict[str, tuple[DataFrame, str, str]]) -> str:
    """Count, by task, what became of the mixture's likeliest circuit.

    Each task has its rows, the column of the mixture's score, and the rest of the name of the
    columns of its likeliest circuit; of errors, lower is better.
    """
    found = []
    for name, (rows, score, rest) in tasks.items():
        rows = rows[(rows["kind"] == "ensemble") & (rows["method"] == "joint")]
        sign = -1 if rest == "mse" else 1
        mixture, trained, anew = (
            sign * rows[column] for column in (score, f"discrete_{rest}", f"retrained_{rest}")
        )
        dead = sum(number(text) in UNIFORM + ONE_STATE for text in rows["found"])
        judged = against_lot(dead, len(rows))
        found.append(
            (name, len(rows), (trained < mixture).sum(), (anew > trained).sum(), dead, judged)
        )
    counts = ["searches", "worse than the mixture", "better when retrained", "dead"]
    return table(["task", *counts, "verdict"], found)


# --- Reinforcement learning

ROOMS = {"MiniGrid-Empty-5x5-v0": "The 5x5 room", "MiniGrid-Empty-6x6-v0": "The 6x6 room"}


def while_training(curves: Series) -> Series:
    """Give the mean return over the whole training, by seed."""
    return curves.map(lambda text: np.nanmean(np.array(json.loads(text), dtype=float)))


def unsteadiness(curves: Series) -> Series:
    """Give the deviation of a curve's second half from its mean, by seed."""

    def late(text: str) -> float:
        values = np.array(json.loads(text), dtype=float)
        return float(np.nanstd(values[len(values) // 2 :]))

    return curves.map(late)


def spread(values: Series) -> str:
    """Write the median, and in brackets the smallest and the largest."""
    return f"{values.median():.2f} ({values.min():.2f} to {values.max():.2f})"


def room_section(rows: DataFrame, room: str) -> str:
    """Compare one of MiniGrid's rooms with the paper, which gives curves and no figures."""
    rows = rows[rows["environment"] == room]
    mixture: dict[str, object] = {"kind": "ensemble", "method": "joint"}
    searched = by_seed(rows, "curve", **mixture)
    alone = {n: by_seed(rows, "curve", kind="fixed", number=n) for n in range(1, 13)}
    height, wobble = while_training(searched), unsteadiness(searched)
    higher, is_higher = above_most(
        {n: difference(height, while_training(one), 12) for n, one in alone.items()}
    )
    steadier, is_steadier = above_most(
        {n: difference(unsteadiness(one), wobble, 12) for n, one in alone.items()}, word="below"
    )
    greedy = by_seed(rows, "mean_return", **mixture)
    chance, frozen, plain, small, one = (
        shown(difference(greedy, by_seed(rows, "mean_return", kind=kind, number=None)))
        for kind in ("random", "frozen", "plain", "small plain", "fixed")
    )
    discrete, retrained = (
        spread(by_seed(rows, column, **mixture))
        for column in ("discrete_return", "retrained_return")
    )
    claims = [
        (
            "higher than most of the twelve (curves)",
            f"mean return while training, {higher}",
            is_higher,
        ),
        (
            "steadier than most of the twelve (curves)",
            f"deviation along the second half of training, {steadier}",
            is_steadier,
        ),
        (
            "curves, no figures",
            f"return of the trained mixture's likeliest actions: {spread(greedy)}",
            "nothing to compare with",
        ),
        (
            "no discrete circuit is reported",
            f"the likeliest circuit, as trained: {discrete}; retrained: {retrained}",
            "nothing to compare with",
        ),
        (
            "no such control",
            f"less chance: {chance}; less a frozen circuit with a trained mapping: {frozen}; less "
            f"the plain networks: {plain}; less plain ones of 312 weights: {small}; less one "
            f"circuit (number 5): {one}",
            "nothing to compare with",
        ),
    ]
    found = table(["the paper", "here (differences of returns)", "verdict"], claims)
    return f"### {ROOMS[room]}\n\n{len(searched)} seeds.\n\n{found}\n"


# --- Growth

RIVALS = ("random slots", "circuit 5", "circuit 10", "sparse weights", "dictionary")
#: How many rivals growth has in chapter 07, whose intervals the page repeats.
COMPARISONS = 9


def growth_section(rows: DataFrame) -> str:
    """Say how far growth is ahead of its rivals, task by task; of errors, lower is ahead."""
    rows = rows[rows["phase"] == "test"]
    lines = []
    for task in dict.fromkeys(rows["task"]):
        here = rows[rows["task"] == task]
        is_accuracy = set(here["metric"]) == {"accuracy"}
        grown = by_seed(here, "test", method="growth")
        gaps = []
        for rival in RIVALS:
            other = by_seed(here, "test", method=rival)
            if len(grown) < 2 or not set(grown.index) <= set(other.index):
                gaps.append("not run")
            elif is_accuracy:
                gaps.append(points(difference(grown, other, COMPARISONS)))
            else:
                gaps.append(shown(difference(other, grown, COMPARISONS)))
        lines.append((task, "points" if is_accuracy else "-log10 MSE", len(grown), *gaps))
    return table(["task", "unit", "seeds", *(f"ahead of {rival}" for rival in RIVALS)], lines)


# --- The page


def written(text: str, parts: dict[str, str]) -> str:
    """Put each part between its two marks, in place of what is there."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{PAGE.name} needs the lines {begin!r} and {end!r}, once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{part}\n\n{end}{rest.split(end)[1]}"
    return text


def summary(parts: dict[str, str]) -> str:
    """Count the verdicts of each part whose statements are the paper's."""
    lines = []
    for name in ("sizes", "images", "series", "agents"):
        last = [line.split(" | ")[-1].strip(" |") for line in parts[name].splitlines()]
        count = Counter(text.split(":")[0] for text in last)
        lines.append((name, *(count[kind] or "" for kind in VERDICTS)))
    return table(["part", *VERDICTS], lines)


def page() -> str:
    """Give the page, with what the tables say now."""
    classification, forecasting, reinforcement, growth = map(
        stored_results, ("classification", "forecasting", "reinforcement", "growth")
    )
    parts = {
        "sizes": counts(classification, forecasting),
        "designs": designs(
            {
                "images": (classification, "test_accuracy", "accuracy"),
                "series": (forecasting, "test_mse", "mse"),
                "agents": (reinforcement, "mean_return", "return"),
            }
        ),
        "growth": growth_section(growth),
        "images": classification_section(classification),
        "series": "\n".join(series_section(forecasting, name) for name in PAPER_MSE).strip(),
        "agents": "\n".join(room_section(reinforcement, room) for room in ROOMS).strip(),
    }
    parts["summary"] = summary(parts)
    return written(PAGE.read_text("utf-8"), parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
