"""What the package costs: mixtures, memory, imports, training steps, growth, and the floor."""

import itertools
import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from conftest import calls_in_a_turn
from simulators import turn

from qtdqas_lite import (
    CircuitEnsemble,
    FixedCircuit,
    GeneratedNetwork,
    GrowingCircuit,
    RelaxedCircuit,
    fit,
    grow,
    n_qubits_for,
    paper_space,
)


def seeded():
    return torch.Generator().manual_seed(0)


def repeated(step):
    """A turn of about 30 ms."""
    step()
    return partial(turn, step, calls_in_a_turn(partial(turn, step)))


def both_ways(circuit):
    """A turn of forward and backward."""
    cotangent = torch.randn(2**circuit.n_qubits, generator=seeded())

    def step():
        circuit.zero_grad()
        (circuit() * cotangent).sum().backward()

    return repeated(step)


@pytest.mark.parametrize(("n", "n_layers", "rounds"), [(11, 10, 31), (17, 15, 11)])
def test_relaxed_mixture(race, n, n_layers, rounds):
    relaxed = RelaxedCircuit(n_qubits=n, n_layers=n_layers)
    turns = {"relaxed": both_ways(relaxed), "fixed": both_ways(FixedCircuit(n, n_layers))}
    race.run(turns, rounds)
    race.report(
        "The relaxed mixture against one fixed RY circuit",
        **{"n, L": f"{n}, {n_layers}", "fixed": race.ms("fixed")},
        relaxed=race.ms("relaxed"),
        ratio=f"{race.ratio('relaxed', 'fixed'):.2f}x (target at most 5x)",
    )


MEMORY = """
import torch, qtdqas_lite
torch.set_num_threads(1)
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))
qtdqas_lite.FixedCircuit(2, 1)().sum().backward()
before = status("VmRSS")
circuit = qtdqas_lite.FixedCircuit(20, 40)
(circuit() * torch.randn(2**20)).sum().backward()
print((status("VmHWM") - before) * 1024 / 1e6)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_memory(race):
    """The most resident memory of a fresh process, above what it had after the imports.

    A small circuit runs first, so that the compiler, or its cache, is not counted as a state.

    Besides as it is, with a C library that gives every large block back as soon as it is free.
    """

    def megabytes(**environment):
        command = [sys.executable, "-c", MEMORY]
        return float(subprocess.check_output(command, env={**os.environ, **environment}))

    tight = partial(megabytes, MALLOC_MMAP_THRESHOLD_="1048576")
    race.run({"MB": megabytes, "MB, tight": tight}, 3)  # not seconds, but rounds all the same
    race.report(
        "Memory of forward and backward, n = 20, L = 40, above the imports",
        circuit="RY",
        peak=f"{race.median('MB'):.0f} MB (target below 100 MB)",
        **{"without fragmentation": f"{race.median('MB, tight'):.0f} MB"},
    )


def test_import(race):
    def process(module):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        return time.perf_counter() - start

    names = ["torch", "qtdqas_lite"]
    for name in names:
        process(name)
    race.run({name: partial(process, name) for name in names}, 15)
    slower = 100 * (race.ratio("qtdqas_lite", "torch") - 1)
    race.report(
        "Import, in a fresh process",
        **{f"import {name}": race.ms(name) for name in names},
        difference=f"{slower:+.1f} % (target at most +15 %)",
    )


def mlp(*sizes):
    pairs = itertools.pairwise(sizes)
    layers = [part for pair in pairs for part in (torch.nn.Linear(*pair), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("sizes", "n_layers", "circuit", "mapping", "target"),
    [
        ((64, 32, 10), 10, "FixedCircuit", "affine", None),
        ((784, 128, 64, 2), 15, "FixedCircuit", "affine", None),
        ((784, 128, 64, 2), 15, "CircuitEnsemble", "affine", 250),
        ((784, 128, 64, 2), 15, "CircuitEnsemble", "mlp", 250),
    ],
)
def test_training_step(race, sizes, n_layers, circuit, mapping, target):
    """An optimiser step on a batch of 100, and the part of it that writes the weights."""
    network = mlp(*sizes)
    n = n_qubits_for(sum(parameter.numel() for parameter in network.parameters()))
    if circuit == "CircuitEnsemble":
        writer = CircuitEnsemble(paper_space(n, n_layers))
    else:
        writer = FixedCircuit(n, n_layers)
    net = GeneratedNetwork(network, writer, mapping)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    images = torch.randn(100, sizes[0], generator=seeded())
    labels = torch.randint(sizes[-1], (100,), generator=seeded())
    cotangents = [torch.randn_like(weight) for weight in net.weights().values()]

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    def write():
        net.zero_grad()
        torch.autograd.backward(list(net.weights().values()), cotangents)

    race.run({"step": repeated(step), "write": repeated(write)}, 21)
    race.report(
        "A training step: batch of 100, Adam",
        target="-".join(map(str, sizes)),
        **{"n, L": f"{n}, {n_layers}", "circuit": circuit, "mapping": mapping},
        step=race.ms("step") + (f" (target {target} ms)" if target else ""),
        **{"of it writing weights": f"{100 * race.ratio('write', 'step'):.0f} %"},
    )


@pytest.mark.parametrize(
    ("sizes", "n_angles", "n_layers", "target"), [((64, 10), 30, 3, 1), ((64, 32, 10), 36, 3, 3)]
)
def test_grown_circuit(race, sizes, n_angles, n_layers, target):
    """A whole growth, and as many steps of a fixed circuit of RY that has as many angles."""
    network = mlp(*sizes)
    n = n_qubits_for(sum(parameter.numel() for parameter in network.parameters()))
    images = torch.randn(1000, sizes[0], generator=seeded())
    labels = torch.randint(sizes[-1], (1000,), generator=seeded())
    steps = 10 * n_angles + 100

    def growth():
        net = GeneratedNetwork(network, GrowingCircuit(n, generator=seeded()), generator=seeded())
        grow(net, (images, labels), n_angles=n_angles, generator=seeded())

    def fixed():
        circuit = FixedCircuit(n, n_layers, generator=seeded())
        net = GeneratedNetwork(network, circuit, generator=seeded())
        fit(net, (images, labels), steps=steps, generator=seeded())

    race.run({"growth": partial(turn, growth, 1), "fixed": partial(turn, fixed, 1)}, 5)
    race.report(
        "Growing a circuit of 32 layers, and training a fixed one of as many angles",
        target="-".join(map(str, sizes)),
        **{"n, angles": f"{n}, {n_angles}", "steps": str(steps)},
        growth=race.ms("growth") + f" (target {target} s)",
        fixed=race.ms("fixed"),
        ratio=f"{race.ratio('growth', 'fixed'):.1f}x",
    )


@pytest.mark.parametrize(
    ("n", "n_layers", "rounds"), [(11, 10, 31), (13, 10, 21), (17, 15, 11), (20, 10, 7)]
)
def test_distance_to_the_floor(race, n, n_layers, rounds):
    """The time of the arithmetic and of moving the states, if nothing else took any.

    A gate takes 3 operations for each amplitude (4 multiplications and 2 additions for a pair). It
    is applied once on the way forward, and undone in two states on the way back, with 2 more for
    the slope. A layer gathers one state forward and two back. Arithmetic runs at the rate of a
    large matrix product, and gathers at that of copying.
    """
    matrix, state = torch.randn(512, 512), torch.randn(2 ** max(n, 16))
    product, copy = torch.empty_like(matrix), torch.empty_like(state)
    kernels = {
        "multiply": repeated(lambda: torch.mm(matrix, matrix, out=product)),
        "copy": repeated(lambda: copy.copy_(state)),
    }
    race.run({"circuit": both_ways(FixedCircuit(n, n_layers)), **kernels}, rounds)
    operations = 2 * 512**3 / race.median("multiply")  # in a second
    numbers = len(state) / race.median("copy")
    floor = n_layers * 2**n * (n * (3 * 3 + 2) / operations + 3 / numbers)
    race.report(
        "Distance of one RY circuit to the floor: its arithmetic, and its gathers at copying speed",
        **{"n, L": f"{n}, {n_layers}"},
        multiplying=f"{operations / 1e9:.0f} GFLOP/s",
        copying=f"{8 * numbers / 1e9:.0f} GB/s",
        floor=f"{1e3 * floor:.3g} ms",
        measured=race.ms("circuit"),
        ratio=f"{race.median('circuit') / floor:.1f}x",
    )


GROWTH = [(n, 10) for n in range(8, 21)] + [(13, layers) for layers in (5, 10, 20, 40)]


def test_growth(race):
    """One RY circuit of growing width or depth."""
    turns = {f"{n}, {layers}": both_ways(FixedCircuit(n, layers)) for n, layers in GROWTH}
    race.run(turns, 7)
    for n, n_layers in GROWTH:
        seconds = race.median(f"{n}, {n_layers}")
        race.report(
            "Growth of one RY circuit, forward and backward",
            **{"n, L": f"{n}, {n_layers}", "time": f"{1e3 * seconds:.3g} ms"},
            **{"per layer and amplitude": f"{1e9 * seconds / n_layers / 2**n:.3g} ns"},
        )
