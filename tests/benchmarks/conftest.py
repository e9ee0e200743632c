"""How the benchmarks are run and printed.

pytest-benchmark calls one function many times before it turns to the next, and what the machine
does meanwhile would fall on that one alone. So each test gives it a single function, a round: in it
every contender takes one turn, which is timed by itself. What is printed are medians over the
rounds: of times, and of the ratio of two times of the same round. The file of --benchmark-json has
the same rows and every single time, as ``extra_info``.
"""

import os
import statistics

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


def pytest_configure(config):
    config.stash[TABLES] = {}


def pytest_benchmark_update_machine_info(machine_info):
    machine_info |= {"torch": torch.__version__, "load": os.getloadavg()}


def pytest_terminal_summary(terminalreporter, config):
    for title, rows in config.stash[TABLES].items():
        columns = list(rows[0])
        lines = [columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)]
        terminalreporter.write_line(f"\n### {title}\n")
        for line in lines:
            terminalreporter.write_line(f"| {' | '.join(line)} |")
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    terminalreporter.write_line(
        f"\nMedians over interleaved rounds, one thread. Load of this machine's {os.cpu_count()} "
        f"cores in the last 1, 5 and 15 minutes: {load}; much more than 1 makes the figures noisy."
    )
