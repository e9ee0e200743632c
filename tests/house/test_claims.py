"""The claims page: its verdicts, and that it says what the tables say."""

import importlib.util
import math
import re
import statistics
from pathlib import Path

import nbformat
import pandas
import pytest
from scipy.stats import t as student

from qtdqas_lite import paper_space
from qtdqas_lite.experiments import stored_results

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("book_claims", ROOT / "book" / "claims.py")
claims = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(claims)

T_4 = 2.7764451051977987  # the 0.975 quantile of Student's t with 4 degrees of freedom


def seeds(*values):
    return pandas.Series(values, index=range(1, len(values) + 1), dtype=float)


def test_the_page_says_what_the_tables_say():
    assert claims.page() == claims.PAGE.read_text("utf-8"), "run make results"


def test_a_difference_is_paired_by_seed():
    one, other = seeds(0.9, 0.8, 0.95, 0.7, 0.85), seeds(0.8, 0.75, 0.8, 0.72, 0.8)
    gaps = [a - b for a, b in zip(one, other, strict=True)]
    mean, half = statistics.mean(gaps), T_4 * statistics.stdev(gaps) / math.sqrt(5)
    assert claims.difference(one, other) == pytest.approx((mean, mean - half, mean + half))
    # The order of the rows does not matter, and a seed that one of them lacks is left out.
    shuffled = other.sample(frac=1, random_state=0)
    assert claims.difference(one, shuffled) == pytest.approx((mean, mean - half, mean + half))
    more = pandas.concat([one, pandas.Series([9.0], index=[6])])
    assert claims.difference(more, other) == pytest.approx((mean, mean - half, mean + half))
    wider = claims.difference(one, other, comparisons=12)  # Bonferroni: the quantile 1 - 0.025 / 12
    assert wider[2] - mean == pytest.approx(half * student.ppf(1 - 0.025 / 12, 4) / T_4)


def test_a_difference_without_spread():
    assert claims.difference(seeds(1, 1, 1), seeds(0.5, 0.5, 0.5)) == (0.5, 0.5, 0.5)


def test_a_ratio_is_a_difference_of_logarithms():
    one, other = seeds(2e-5, 8e-5, 1e-5, 3e-5, 2e-5), seeds(1e-5, 1e-5, 1e-5, 1e-5, 1e-4)
    logs = [math.log(a / b) for a, b in zip(one, other, strict=True)]
    mean, half = statistics.mean(logs), T_4 * statistics.stdev(logs) / math.sqrt(5)
    expected = tuple(math.exp(x) for x in (mean, mean - half, mean + half))
    assert claims.ratio(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "paper_is_below", "said"),
    [
        ((0.5, 0.3, 0.8), True, "reproduced"),
        ((0.5, 0.3, 0.8), False, "differs"),
        ((2.0, 1.5, 3.0), True, "differs"),
        ((2.0, 1.5, 3.0), False, "reproduced"),
        ((0.9, 0.8, 1.1), True, "not settled"),
        ((0.9, 0.8, 1.1), False, "not settled"),
    ],
)
def test_verdicts_follow_from_the_interval(found, paper_is_below, said):
    assert claims.verdict(found, 1.0, paper_is_below).startswith(said)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((0.1, 0.05, 0.2), "reproduced"),
        ((0.1, -0.05, 0.2), "not settled"),
        ((-0.1, -0.2, -0.05), "differs"),
    ],
)
def test_matching_takes_an_interval_that_is_not_below_zero(found, said):
    assert claims.not_below(found) == said
    assert claims.not_below(found, ceiling=True) == "cannot be tested"


def test_the_ceiling_is_where_both_are_right_every_time():
    assert claims.at_the_ceiling(seeds(1, 1, 1), seeds(1, 1, 1))
    assert not claims.at_the_ceiling(seeds(1, 1, 1), seeds(1, 1, 0.99))
    assert not claims.at_the_ceiling(seeds(0.9, 0.9), seeds(0.9, 0.9))  # a tie, and no ceiling


def test_parts_go_between_their_marks():
    text = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    new = claims.written(text, {"x": "new"})
    assert new == "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n"
    assert claims.written(new, {"x": "new"}) == new
    with pytest.raises(ValueError, match=r"claims\.md needs the lines '<!-- y -->"):
        claims.written(text, {"y": "new"})


def test_what_rounds_to_zero_has_no_sign():
    assert claims.shown((-0.001, -0.004, 0.004)) == "0.00 [0.00, 0.00]"


def test_errors_are_written_in_millionths():
    assert claims.million([3e-6, 1.23456e-6, 0.02]) == "3 (1.23 to 20,000)"


def test_groups_are_geometric_means():
    circuits = {1: seeds(1e-6, 4e-6), 3: seeds(4e-6, 1e-6), 5: seeds(9, 9)}
    assert claims.group(circuits, (1, 3)).tolist() == pytest.approx([2e-6, 2e-6])


def gaps(ahead, behind):
    three = [(1.0, 0.5, 1.5)] * ahead + [(-1.0, -1.5, -0.5)] * behind
    three += [(0.5, -0.5, 1.5)] * (12 - len(three))
    return dict(enumerate(three, 1))


@pytest.mark.parametrize(
    ("found", "ceiling", "counted", "judged"),
    [
        (gaps(7, 5), (), "above 1, 2, 3, 4, 5, 6, 7; not above 8, 9, 10, 11, 12", "reproduced"),
        (gaps(6, 6), (), "above 1, 2, 3, 4, 5, 6; not above 7, 8, 9, 10, 11, 12", "differs"),
        (gaps(0, 2), (), "above none; not above 1, 2; of 10 it cannot be told", "not settled"),
        (
            gaps(6, 0),
            range(7, 13),
            "above 1, 2, 3, 4, 5, 6; level at the ceiling with 7, 8, 9, 10, 11, 12",
            "cannot be tested",
        ),
        (
            gaps(5, 0),
            (10, 11, 12),
            "above 1, 2, 3, 4, 5; level at the ceiling with 10, 11, 12; of 4 it cannot be told",
            "not settled",
        ),
    ],
)
def test_most_is_more_than_half(found, ceiling, counted, judged):
    assert claims.above_most(found, ceiling) == (counted, judged)


def test_the_best_of_the_twelve_is_chosen_on_validation_data():
    rows = [
        {"series": "bessel", "kind": "fixed", "method": "joint", "number": n, "seed": seed}
        | {"validation_mse": 1e-6 * abs(n - 3.1), "test_mse": 1e-6 * n * seed}
        for n in range(1, 13)
        for seed in (1, 2)
    ]
    mixture = {"series": "bessel", "kind": "ensemble", "method": "joint", "test_mse": 1e-6}
    rows += [{**mixture, "seed": 1}, {**mixture, "seed": 2}]
    text = claims.series_section(pandas.DataFrame(rows), "bessel")
    assert "| best of the twelve [number] | 141 (8) | 4.5 (3 to 6) [3] |" in text
    assert "| worst of the twelve [number] | 7428 (11) | 18 (12 to 24) [12] |" in text


def test_the_summary_counts_the_verdicts():
    head = "| a | verdict |\n| --- | --- |\n"
    parts = dict.fromkeys(("sizes", "series", "agents"), head + "| x | reproduced |")
    parts["images"] = head + "| x | differs |\n| y | cannot be tested: other images |\n| z | - |"
    lines = claims.summary(parts).splitlines()
    assert lines[2] == "| sizes | 1 |  |  |  |"
    assert lines[3] == "| images |  | 1 |  | 1 |"


def test_curves_are_summarised_over_the_parts_in_which_episodes_ended():
    curves = pandas.Series(["[null, 0.0, 0.5, 1.0, null, 0.0]"], index=[1])
    assert claims.while_training(curves).tolist() == pytest.approx([1.5 / 4])
    assert claims.unsteadiness(curves).tolist() == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("dead", "searches", "said"),
    [
        (0, 15, "better than a lot"),
        (15, 15, "worse than a lot"),
        (6, 10, "cannot be told from a lot"),
        (0, 4, "cannot be told from a lot"),  # a lot has none in one case of sixteen
    ],
)
def test_a_few_searches_cannot_be_told_from_a_lot(dead, searches, said):
    assert claims.against_lot(dead, searches) == said


def test_growth_is_ahead_where_accuracy_is_higher_or_an_error_lower():
    rows = [
        {
            "phase": "test",
            "task": task,
            "metric": metric,
            "method": method,
            "seed": seed,
            "test": test,
        }
        for task, metric, values in (
            ("digits", "accuracy", {"growth": (0.8, 0.9), "circuit 5": (0.5, 0.6)}),
            ("series", "log10 mse", {"growth": (-4.0, -5.0), "random slots": (-3.0, -4.0)}),
        )
        for method, tests in values.items()
        for seed, test in enumerate(tests, 1)
    ]
    tuning = {**rows[0], "phase": "tune", "test": math.nan}
    digits, series = claims.growth_section(pandas.DataFrame([*rows, tuning])).splitlines()[2:]
    ahead = "30.0 [30.0, 30.0]"
    missing = " | not run"
    assert digits == f"| digits | points | 2{missing} | {ahead}{3 * missing} |"
    ahead = "1.00 [1.00, 1.00]"
    assert series == f"| series | -log10 MSE | 2 | {ahead}{4 * missing} |"


def test_designs_are_counted_by_task():
    twelve = [candidate.to_json() for candidate in paper_space(4, 2)]
    assert [claims.number(text) for text in twelve] == list(range(1, 13))
    rows = pandas.DataFrame(
        {
            "kind": ["ensemble", "ensemble", "relaxed"],
            "method": "joint",
            "test_mse": [1.0, 1.0, 1.0],
            "discrete_mse": [3.0, 0.5, 9.0],
            "retrained_mse": [2.0, 0.6, 1.0],
            "found": [twelve[0], twelve[4], twelve[11]],
        }
    )
    found = claims.designs({"series": (rows, "test_mse", "mse")}).splitlines()[-1]
    assert found == "| series | 2 | 1 | 1 | 1 | cannot be told from a lot |"


def shown(number):
    """The prose of a chapter, and what its cells show."""
    [path] = ROOT.glob(f"chapters/{number}-*.ipynb")
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        texts.append(cell.source if cell.cell_type == "markdown" else "")
        for output in cell.get("outputs", []):
            texts.append(output.get("text", output.get("data", {}).get("text/plain", "")))
    return "\n".join(texts)


def cells_of(table):
    return [line.strip("| ").split(" | ") for line in table.splitlines()]


@pytest.mark.parametrize(
    ("task", "rivals"),
    [("linear", 5), ("mlp", 5), ("cnn", 3), ("friedman", 5), ("bessel", 3), ("narma-5", 3)],
)
def test_chapter_07_has_the_leads_of_the_page(task, rivals):
    chapter, page = shown("07"), cells_of(claims.growth_section(stored_results("growth")))
    [leads] = [row[3 : 3 + rivals] for row in page if row[0] == task]
    assert all("[" in lead and lead in chapter for lead in leads), leads


def test_chapters_08_to_10_have_the_numbers_of_the_page():
    part = re.search(r"(?s)<!-- designs -->(.*)<!-- end of designs -->", claims.page())[1]
    dead = {row[0]: (row[4], row[1]) for row in cells_of(part.strip())}
    chapter = shown("08")
    assert "For joint training alone that makes {} of {}".format(*dead["images"]) in chapter
    assert "{} of {} on series".format(*dead["series"]) in chapter
    assert re.search("{} (times )?of {}".format(*dead["series"]), shown("09"))
    assert dead["agents"][0] == "0"
    assert "searches found a dead circuit, 0 of them an ensemble" in shown("10")
    for name in claims.PAPER_MSE:
        section = claims.series_section(stored_results("forecasting"), name)
        median = section.split("| searched mixture, 135 numbers | ")[1].split(" | ")[1].split()[0]
        assert re.search(rf"(?<![\d.]){re.escape(median)}\*? ", shown("09")), (name, median)
