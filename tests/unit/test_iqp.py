import numpy as np
import pytest
import torch
from conftest import ENTANGLE, pennylane_probabilities

from qtdqas_lite import FixedCircuit
from qtdqas_lite.simulator import probabilities
from qtdqas_lite.simulator.iqp import _hadamards, iqp_masks, iqp_probabilities, walsh_hadamard

CNOTS = [name for name in ENTANGLE if name not in ("cz-ring", "star")]


@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_the_transform_is_multiplication_by_a_hadamard_matrix(n, generator):
    values = torch.randn(2, 2**n, dtype=torch.double, generator=generator)
    found = walsh_hadamard(values, n)
    for i in (0, 1, 2**n // 3, 2**n - 1):
        signs = [(-1) ** (i & j).bit_count() for j in range(2**n)]
        np.testing.assert_allclose(found[:, i], values.numpy() @ signs, atol=1e-11)


@pytest.mark.parametrize("entangler", CNOTS)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_probabilities_and_slopes_are_pennylanes(entangler, n, generator):
    circuit = FixedCircuit(
        n, 3, hadamard=False, entangler=entangler, rotation="rx", generator=generator
    ).double()
    theta = circuit.theta.detach().requires_grad_()
    expected = pennylane_probabilities(theta, hadamard=False, entangler=entangler, rotation="rx")
    cotangent = torch.randn(2**n, dtype=torch.double, generator=generator)
    assert circuit.masks is not None
    for found in (circuit(), probabilities(circuit.layers(circuit.theta))):
        torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
        (slope,) = torch.autograd.grad(found @ cotangent, circuit.theta)
        (reference,) = torch.autograd.grad(expected @ cotangent, theta, retain_graph=True)
        torch.testing.assert_close(slope, reference, atol=1e-12, rtol=0)


def test_each_layer_may_have_another_entangler(generator):
    entanglers = ("ring", "none", "reversed", "stride")
    theta = torch.randn(4, 3, dtype=torch.double, generator=generator)
    expected = pennylane_probabilities(theta, hadamard=False, entangler=entanglers, rotation="rx")
    found = iqp_probabilities(theta, iqp_masks(entanglers, 3))
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_masks_are_the_parities_that_angles_turn():
    # One layer: its rotations come last, and each turns its own wire. In the layer before, each
    # turns what the chain CNOT(0,1), CNOT(1,2) carries to the other wires: an X on wire 0 becomes
    # one on all three.
    masks = iqp_masks(("chain", "chain"), 3)
    assert masks.tolist() == [[0b111, 0b011, 0b001], [0b100, 0b010, 0b001]]


@pytest.mark.parametrize(
    "options",
    [
        {"hadamard": True},
        {"rotation": ("rx", "ry")},
        {"entangler": ("ring", "cz-ring")},
    ],
)
def test_other_circuits_take_the_general_path(options):
    circuit = FixedCircuit(3, 2, **{"hadamard": False, "rotation": "rx", **options})
    assert circuit.masks is None


def test_single_precision_holds_for_many_layers(generator):
    circuit = FixedCircuit(12, 40, hadamard=False, rotation="rx", generator=generator)
    p = circuit()
    torch.testing.assert_close(p.sum().item(), 1.0, atol=1e-4, rtol=0)
    torch.testing.assert_close(2**12 * p.double(), 2**12 * circuit.double()(), atol=1e-3, rtol=1e-3)


def test_a_first_run_in_inference_mode_leaves_nothing_behind():
    _hadamards.cache_clear()
    circuit = FixedCircuit(5, 2, hadamard=False, rotation="rx")
    with torch.inference_mode():
        circuit()
    circuit()[0].backward()
    assert circuit.theta.grad.any()
