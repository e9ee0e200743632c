"""How the benchmarks are run and printed.

pytest-benchmark calls one function many times before it turns to the next, and what the machine
does meanwhile would fall on that one alone. So each test gives it a single function, a round: in it
every contender takes one turn, which is timed by itself. What is printed are medians over the
rounds: of times, and of the ratio of two times of the same round. The file of --benchmark-json has
the same rows and every single time, as ``extra_info``. --tables writes what is printed to a file.
"""

import os
import platform
import re
import statistics
from datetime import date
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
TABLES = pytest.StashKey()


def calls_in_a_turn(turn):
    """How many calls make up about 150 ms, where one takes less; turn(calls) gives seconds.

    Much less, and who takes little time would be charged for waking up in a cold cache.
    """
    return max(1, min(300, int(0.15 / turn(1))))


class Race:
    """The rounds of one test, and the tables that its results go to."""

    def __init__(self, benchmark, tables):
        self.benchmark, self.tables, self.seconds = benchmark, tables, {}

    def run(self, turns, rounds):
        """Let everyone take a turn, round after round: functions that give seconds, by name."""
        self.seconds = {name: [] for name in turns}

        def one_round():
            for name, turn in turns.items():
                self.seconds[name].append(turn())

        self.benchmark.pedantic(one_round, rounds=rounds)
        self.benchmark.extra_info["turns"] = self.seconds

    def median(self, name):
        return statistics.median(self.seconds[name])

    def ms(self, name):
        milliseconds = 1e3 * self.median(name)
        return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"

    def ratio(self, name, other):
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return statistics.median(one / another for one, another in pairs)

    def report(self, table, **row):
        """Add a row to a table: a keyword is a column."""
        self.tables.setdefault(table, []).append(row)
        self.benchmark.extra_info.setdefault(table, []).append(row)


@pytest.fixture
def race(benchmark, request):
    return Race(benchmark, request.config.stash[TABLES])


def pytest_addoption(parser):
    parser.addoption("--tables", metavar="FILE", help="where to write the tables of all benchmarks")


def pytest_configure(config):
    config.stash[TABLES] = {}


def pytest_benchmark_update_machine_info(machine_info):
    machine_info |= {"torch": torch.__version__, "load": os.getloadavg()}


def reached(tables):
    """Say which targets of the comparisons were reached: ratios, as cells give them."""
    met, missed = 0, []
    for rows in tables.values():
        for row in rows:
            for cell in row.values():
                if found := re.match(r"([\d.,]+)x \(target (\d+)x\)", str(cell)):
                    ratio, target = (float(part.replace(",", "")) for part in found.groups())
                    met += ratio >= target
                    if ratio < target:
                        where = f"{row['circuit']} at n, L = {row['n, L']}"
                        missed.append(f"{where} against {row['simulator']}")
    listed = "".join(f"\n- {one}" for one in missed)
    found = f"Of {met + len(missed)} targets of these comparisons, {met} are reached."
    return found + (f" Not reached:\n{listed}" if missed else "") if met or missed else ""


def report(tables):
    """Write all tables in Markdown, each under a heading."""
    parts = [part for part in [reached(tables)] if part]
    # What is compared with others comes first, whoever ran first.
    for title, rows in sorted(tables.items(), key=lambda item: "as ours" not in item[0]):
        columns = list(rows[0])
        lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
        parts += [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    parts.append(
        f"Medians over interleaved rounds, one thread, on {date.today():%d %B %Y}, with torch "
        f"{torch.__version__} and Python {platform.python_version()}. Load of this machine's "
        f"{os.cpu_count()} cores in the last 1, 5 and 15 minutes: {load}; much more than 1 makes "
        f"the figures noisy."
    )
    return "\n\n".join(parts)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    tables = config.stash[TABLES]
    if not tables:
        return
    text = report(tables)
    terminalreporter.write_line(f"\n{text}")
    if config.option.tables and not exitstatus:
        Path(config.option.tables).write_text(f"{text}\n", "utf-8")
