"""What stands in a circuit's place, held against NumPy."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from qtdqas_lite import GeneratedNetwork
from qtdqas_lite.controls import BitNetwork, FreeVector, PermutedCircuit, RandomSubspace
from qtdqas_lite.errors import CircuitError, EncodingError


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def numbers(circuit):
    return circuit().detach().numpy()


def test_a_free_vector_reaches_every_distribution(generator):
    wanted = torch.rand(8, generator=generator)
    circuit = FreeVector(3)
    circuit.theta.data = wanted.log()
    assert np.allclose(numbers(circuit), wanted / wanted.sum())


def test_a_subspace_adds_up_its_directions(generator):
    circuit = RandomSubspace(4, 3, generator=generator).double()
    theta, directions = circuit.theta.detach().numpy(), circuit.frozen.numpy()
    expected = sum(number * row for number, row in zip(theta, directions, strict=True))
    assert np.allclose(numbers(circuit), softmax(expected))
    assert np.linalg.matrix_rank(directions) == 3


def test_the_directions_of_a_subspace_give_logits_of_order_one(generator):
    circuit = RandomSubspace(10, 50, generator=generator)
    assert circuit.logits(circuit.theta).std().item() == pytest.approx(1, rel=0.3)


def test_a_bit_network_is_a_function_of_the_bits(generator):
    n, hidden = 3, 4
    circuit = BitNetwork(n, hidden, generator=generator).double()
    rows = circuit.theta.detach().numpy().reshape(n + 2, hidden)
    expected = []
    for string in itertools.product([-1, 1], repeat=n):
        units = [np.tanh(np.dot(string, rows[:n, k]) + rows[n, k]) for k in range(hidden)]
        expected.append(np.dot(units, rows[n + 1]) / hidden**0.5)
    # Which of the two values of a bit is -1 is up to the encoding, and the same for all bits.
    found = np.log(numbers(circuit))
    both = [softmax(np.array(order)) for order in (expected, expected[::-1])]
    assert any(np.allclose(np.exp(found), one) for one in both)


@pytest.mark.parametrize(("hadamard", "rotation"), [(True, "ry"), (False, "rx")])
def test_a_permuted_circuit_is_a_product_of_dense_matrices(hadamard, rotation, generator):
    n, n_layers = 3, 2
    circuit = PermutedCircuit(n, n_layers, hadamard=hadamard, rotation=rotation).double()
    state = np.full(8, 8**-0.5) if hadamard else np.eye(8)[0]
    for layer in circuit.theta.detach().numpy():
        state, whole = state[circuit.frozen.numpy()], np.eye(1)
        for angle in layer:
            cos, sin = np.cos(angle / 2), np.sin(angle / 2)
            off = [-sin, sin] if rotation == "ry" else [-1j * sin, -1j * sin]
            whole = np.kron(whole, [[cos, off[0]], [off[1], cos]])
        state = whole @ state
    assert np.allclose(numbers(circuit), np.abs(state) ** 2)


def test_no_architecture_names_a_permutation():
    with pytest.raises(CircuitError, match="random permutation"):
        PermutedCircuit(2, 1).architecture()


@pytest.mark.parametrize(
    "build",
    [
        FreeVector,
        lambda n, **options: RandomSubspace(n, 6, **options),
        lambda n, **options: BitNetwork(n, 2, **options),
        lambda n, **options: PermutedCircuit(n, 3, **options),
    ],
)
def test_networks_with_controls_are_trained_saved_and_loaded(build, tmp_path, generator):
    net = GeneratedNetwork(nn.Linear(5, 3), build(5, generator=generator), generator=generator)
    inputs, wanted = torch.randn(20, 5, generator=generator), torch.randn(20, 3)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = (net(inputs) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses) < losses[0]
    net.save(tmp_path / "net.safetensors")
    path, other = tmp_path / "net.safetensors", build(5)
    again = GeneratedNetwork.load(path, nn.Linear(5, 3), circuit=other)
    assert torch.equal(again(inputs), net(inputs))
    assert json.dumps(net.circuit.configuration()) == json.dumps(again.circuit.configuration())


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (lambda: FreeVector(0), EncodingError, "n_qubits"),
        (lambda: FreeVector(60), CircuitError, "fewer qubits"),
        (lambda: RandomSubspace(3, 0), CircuitError, "n_numbers"),
        (lambda: RandomSubspace(20, 10**7), CircuitError, "fewer"),
        (lambda: BitNetwork(3, 0), CircuitError, "hidden"),
        (lambda: PermutedCircuit(3, 0), CircuitError, "n_layers"),
    ],
)
def test_what_cannot_be_built_is_refused(build, error, says):
    with pytest.raises(error, match=says):
        build()


def test_lost_numbers_are_named():
    circuit = FreeVector(2)
    circuit.theta.data[1] = torch.nan
    with pytest.raises(CircuitError, match="finite"):
        circuit()
