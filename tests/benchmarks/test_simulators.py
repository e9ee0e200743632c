"""Forward and backward against other simulators: one circuit, and the paper's ensemble of 12."""

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import calls_in_a_turn

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "_build" / "peers"
# Who takes part: its name in the table, and the precision it computes in.
RIVALS = {
    "default_qubit": ("PennyLane default.qubit, backprop", "single"),
    "default_adjoint": ("PennyLane default.qubit, adjoint, device_vjp", "double"),
    "lightning": ("lightning.qubit, adjoint", "single"),
    "kokkos": ("lightning.kokkos, adjoint", "single"),
    "torchquantum": ("TorchQuantum", "single"),
    "tensorcircuit": ("TensorCircuit, JAX scan", "single"),
    "mindquantum": ("MindQuantum", "single"),
    "qulacs": ("Qulacs", "double"),
}
# Those that are not in the book's environment.
GUESTS = ("kokkos", "torchquantum", "tensorcircuit", "mindquantum", "qulacs")
# The factors that the project means to reach at least; None: measured, without a target.
SMALL = {"default_qubit": 50, "lightning": 18, "torchquantum": 40, "tensorcircuit": 2}
MIDDLE = {"default_qubit": 30, "lightning": 10, "torchquantum": 40, "tensorcircuit": 3}
LARGE = {"default_qubit": 30, "lightning": 7, "torchquantum": 18, "tensorcircuit": 15}
NEW = dict.fromkeys(("kokkos", "mindquantum", "qulacs"))


def workload(n, n_layers, ensemble):
    random = np.random.default_rng(0)
    twelve = itertools.product((True, False), ("chain", "ring"), ("rx", "ry", "rz"))
    circuits = list(twelve) if ensemble else [(True, "ring", "ry")]
    arrays = {
        "theta": random.uniform(-np.pi, np.pi, (n_layers, n)),
        "logits": random.normal(size=len(circuits)),
        "cotangent": random.normal(size=2**n),
    }
    return {"n": n, "circuits": circuits, **{k: v.astype("float32") for k, v in arrays.items()}}


class Absent(Exception):  # noqa: N818
    """A simulator cannot take part; the message says why."""


@pytest.fixture(scope="session")
def trouble():
    """Put the guests into a folder of their own, and say what went wrong."""
    wanted, there = HERE / "peers-requirements.txt", PEERS / "peers-requirements.txt"
    if not there.is_file() or there.read_bytes() != wanted.read_bytes():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
        command = [*pip, "--target", PEERS, "-r", wanted]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return "not installed: " + done.stderr.strip().split("\n")[-1]
        there.write_bytes(wanted.read_bytes())
    return ""


class Simulator:
    """A simulator at work in a process of its own."""

    def __init__(self, name, work):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, HERE / "simulators.py", name],
            env={**os.environ, "PYTHONPATH": str(PEERS) if name in GUESTS else ""},
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors},
        )
        self.versions = self.hear()
        self.found, self.first_call = self.ask(work)

    def ask(self, request):
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        return self.hear()

    def hear(self):
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            self.errors.seek(0)
            reason = self.errors.read().strip().split("\n")[-1]
            self.close()
            raise Absent(f"failed: {reason}") from None

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def agrees(self, other):
        """Compare probabilities and slopes, to 1e-4 of the largest entry of each."""
        pairs = zip(self.found, other.found, strict=True)
        return all(abs(mine - its).max() <= 1e-4 * abs(its).max() for mine, its in pairs)


@pytest.mark.parametrize(
    ("n", "n_layers", "ensemble", "rounds", "targets"),
    [
        (11, 10, False, 31, SMALL | NEW | {"default_adjoint": None}),  # too slow for more qubits
        (13, 10, False, 21, MIDDLE | NEW),
        (17, 15, False, 7, LARGE | NEW),
        (11, 10, True, 11, {"default_qubit": 300, "lightning": 100, "tensorcircuit": 12}),
        (17, 15, True, 3, {"default_qubit": 60, "lightning": 15}),
    ],
)
def test_against_others(race, trouble, n, n_layers, ensemble, rounds, targets):
    work, running, absent = workload(n, n_layers, ensemble), {}, {}
    with ExitStack() as stack:
        ours = stack.enter_context(closing(Simulator("ours", work)))
        for name in [rival for rival in RIVALS if rival in targets]:
            try:
                if trouble and name in GUESTS:
                    raise Absent(trouble)
                simulator = stack.enter_context(closing(Simulator(name, work)))
            except Absent as reason:
                absent[name] = str(reason)
                continue
            if simulator.agrees(ours):
                running[name] = simulator
            else:
                absent[name] = "another answer, so not timed"
        turns = {
            name: partial(simulator.ask, calls_in_a_turn(simulator.ask))
            for name, simulator in {"ours": ours, **running}.items()
        }
        race.run(turns, rounds)
    versions = {name: simulator.versions for name, simulator in running.items()}
    race.benchmark.extra_info["versions"] = {"ours": ours.versions, **versions}

    def report(name, title, precision, first_call, factor):
        race.report(
            "Forward and backward: how many times as long as ours",
            **{"circuit": "paper's 12" if ensemble else "H, ring, RY", "n, L": f"{n}, {n_layers}"},
            simulator=title,
            precision=precision,
            time=race.ms(name) if first_call is not None else "-",
            **{"first call": f"{first_call:.2g} s" if first_call is not None else "-"},
            **{"times ours": factor},
        )

    report("ours", "qtdqas_lite", "single", ours.first_call, "1")
    for name in [rival for rival in RIVALS if rival in targets]:
        factor = absent.get(name)
        if name in running:
            target = f" (target {targets[name]}x)" if targets[name] else ""
            factor = f"{race.ratio(name, 'ours'):.1f}x{target}"
        first_call = running[name].first_call if name in running else None
        report(name, *RIVALS[name], first_call, factor)
    wrong = [name for name, reason in absent.items() if reason.startswith("another")]
    assert not wrong, f"other probabilities or slopes than ours: {wrong}"
