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


def pennylane_probabilities(theta, *, hadamard, entangler, rotation):
    """The oracle: the same circuit, gate by gate, in PennyLane."""
    n_layers, n = theta.shape
    gate = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ}[rotation]

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    def circuit(theta):
        for wire in range(n if hadamard else 0):
            qml.Hadamard(wire)
        for layer in range(n_layers):
            for wire in range(n - 1):
                qml.CNOT([wire, wire + 1])
            if entangler == "ring" and n > 1:
                qml.CNOT([n - 1, 0])
            for wire in range(n):
                gate(theta[layer, wire], wires=wire)
        return qml.probs(wires=range(n))

    return circuit(theta)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)
