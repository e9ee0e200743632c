import math

import hypothesis
import pennylane as qml
import pytest
import torch

torch.set_num_threads(1)
# A test may wait for a busy machine; how long it takes says nothing about what it checks.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

TWELVE = [
    (hadamard, entangler, rotation)
    for hadamard in (True, False)
    for entangler in ("chain", "ring")
    for rotation in ("rx", "ry", "rz")
]


def _tilted(angle, wires):
    """A rotation about (X + Y) / sqrt(2), which the package does not have."""
    qml.RZ(-math.pi / 4, wires=wires)
    qml.RX(angle, wires=wires)
    qml.RZ(math.pi / 4, wires=wires)


def _cnots(*pairs):
    for pair in pairs:
        qml.CNOT(pair)


def _czs(*pairs):
    for pair in pairs:
        qml.CZ(pair)


def _star(n):
    """An entangler of both kinds of gates, which the package does not have."""
    _czs(*[[0, 1]] * (n > 1))
    _cnots(*[[0, i] for i in range(1, n)])


def _stride(n):
    _cnots(*[[i, i + 2] for i in range(n - 2)], *[[n - 2, 0], [n - 1, 1]] * (n > 2))


ROTATE = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ, "identity": lambda *_, **__: None}
ROTATE["tilted"] = _tilted
ENTANGLE = {
    "chain": lambda n: _cnots(*[[i, i + 1] for i in range(n - 1)]),
    "ring": lambda n: _cnots(*[[i, i + 1] for i in range(n - 1)], *[[n - 1, 0]] * (n > 1)),
    "reversed": lambda n: _cnots(*[[i + 1, i] for i in range(n - 2, -1, -1)]),
    "stride": _stride,
    "cz-ring": lambda n: _czs(*[[i, i + 1] for i in range(n - 1)], *[[n - 1, 0]] * (n > 2)),
    "none": lambda n: None,
    "star": _star,
}


def each(value, count):
    """Give one name for each layer, or qubit, if there is only one for all of them."""
    return [value] * count if isinstance(value, str) else value


def pennylane_probabilities(theta, *, hadamard, entangler, rotation):
    """The oracle: the same circuit, gate by gate, in PennyLane."""
    n_layers, n = theta.shape

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    def circuit(theta):
        for wire in range(n if hadamard else 0):
            qml.Hadamard(wire)
        for angles, entangle, names in zip(
            theta, each(entangler, n_layers), each(rotation, n_layers), strict=True
        ):
            ENTANGLE[entangle](n)
            for wire, name in enumerate(each(names, n)):
                ROTATE[name](angles[wire], wires=wire)
        return qml.probs(wires=range(n))

    return circuit(theta)


def candidate_probabilities(candidate, theta):
    """The oracle for an architecture."""
    return pennylane_probabilities(
        theta,
        hadamard=candidate.hadamard,
        entangler=candidate.entanglers,
        rotation=candidate.rotations,
    )


@pytest.fixture
def plugged(monkeypatch):
    """A reader's own gates, put where the package looks gates up."""
    from qtdqas_lite.simulator import gates

    def tilted(theta):
        w, s = torch.cos(theta / 2), torch.sin(theta / 2) / math.sqrt(2)
        return torch.stack([w, s, s, torch.zeros_like(theta)], -1)

    def star(n):
        return [("cz", 0, 1)] * (n > 1) + [("cnot", 0, i) for i in range(1, n)]

    monkeypatch.setitem(gates.ROTATIONS, "tilted", tilted)
    monkeypatch.setitem(gates.ENTANGLERS, "star", star)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)
