import copy
from functools import partial

import pytest
import torch
from torch import nn

from qtdqas_lite import GeneratedNetwork, RelaxedCircuit, SearchError, search
from qtdqas_lite.architect import Architect

mse = nn.functional.mse_loss
LAYER = {"sharing": "layer", "entanglers": ("ring", "chain"), "hadamards": (False,)}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def generated(target, seed=1, **options):
    torch.manual_seed(seed)
    circuit = RelaxedCircuit(5, 2, **LAYER, **options, generator=seeded(seed))
    return GeneratedNetwork(target, circuit, generator=seeded(seed)).double()


def pair(count, seed):
    x = torch.randn(count, 4, generator=seeded(seed)).double()
    return x, x @ torch.randn(4, 3, generator=seeded(9)).double()


class Sum(nn.Module):
    """A network with two relaxed circuits."""

    def __init__(self, **options):
        super().__init__()
        self.parts = nn.ModuleList(generated(nn.Linear(4, 3), seed, **options) for seed in (1, 2))

    def forward(self, x):
        return sum(part(x) for part in self.parts)


def searched(net, method, data=None, **options):
    data = data or (pair(30, 0), pair(30, 1))
    defaults = {"steps": 3, "loss": mse, "optimizer": torch.optim.SGD, "generator": seeded(0)}
    return search(net, *data, method=method, **{**defaults, **options}).net


# --- Statistics of a BatchNorm


@pytest.mark.parametrize(
    ("method", "sampling", "options"),
    [
        ("joint", "softmax", None),
        ("first-order", "softmax", None),
        ("second-order", "gumbel", None),
        ("second-order", "softmax", {"exact": False}),
        ("implicit", "softmax", {"damping": 50.0}),
        ("score-function", "score-function", None),
    ],
)
def test_running_statistics_follow_the_training_batches_alone(method, sampling, options):
    net = generated(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), sampling=sampling)
    zeros, far = torch.zeros(40, 4).double(), torch.full((40, 4), 100.0).double()
    data = (zeros, pair(40, 0)[1]), (far, pair(40, 1)[1])
    searched(net, method, data, steps=5, method_options=options)
    assert net.target[0].running_mean.tolist() == [0] * 4
    assert net.target[0].num_batches_tracked == 5  # one batch a step


# --- Noise


def one_move(net, method, **options):
    """What one step of gradient descent with the rate 1 subtracts from all logits."""
    before = copy.deepcopy(net)
    options = {"steps": 1, "architecture_learning_rate": 1.0, **options}
    after = searched(net, method, **options).circuit.alpha
    moves = [alpha.detach() - after[name].detach() for name, alpha in before.circuit.alpha.items()]
    return torch.cat([move.flatten() for move in moves])


@pytest.mark.parametrize("sampling", ["softmax", "gumbel"])
def test_a_difference_of_gradients_is_of_one_draw(sampling):
    """The exact way needs two calls of the losses, the difference four: all see the same noise."""
    target = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))
    build = partial(generated, target, sampling=sampling, temperature=0.5)
    moves = [
        one_move(build(), "second-order", method_options={"exact": exact, "learning_rate": 0.3})
        for exact in (True, False)
    ]
    torch.testing.assert_close(*moves, rtol=1e-4, atol=1e-8)
    assert moves[0].norm() > 1e-3


# --- The score function


@pytest.mark.parametrize("build", [partial(generated, nn.Linear(4, 3)), Sum])
def test_the_score_function_is_of_the_draw_that_gave_the_loss(build):
    net, data = build(sampling="score-function", temperature=0.7), pair(30, 1)
    architect = Architect(net, "score-function", 0.1, {}, torch.optim.SGD)
    architect.baseline = 0.0
    circuits = [module for module in net.modules() if isinstance(module, RelaxedCircuit)]
    for seed in range(3):
        torch.manual_seed(seed)
        drawn = [circuit.mixture() for circuit in circuits]
        decided = copy.deepcopy(net).eval()  # the oracle: circuits that have made these choices
        copies = [module for module in decided.modules() if isinstance(module, RelaxedCircuit)]
        expected = []
        for circuit, its_copy, mixture in zip(circuits, copies, drawn, strict=True):
            for name, weights in mixture.items():
                its_copy.alpha[name].data = 50 * weights
                soft = torch.softmax(circuit.alpha[name].detach() / 0.7, -1)
                expected.append((weights - soft) / 0.7)
        value = mse(decided(data[0]), data[1]).item()
        torch.manual_seed(seed)
        architect.baseline = 0.0
        found = architect._score_function(net, mse, data, 1)
        for gradient, direction in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, value * direction)
    assert not any(circuit._forward_pre_hooks for circuit in circuits)


@pytest.mark.parametrize("method", ["joint", "first-order", "second-order"])
def test_all_relaxed_circuits_of_a_network_are_searched(method):
    net = Sum()
    before = copy.deepcopy(net)
    searched(net, method)
    for part, old in zip(net.parts, before.parts, strict=True):
        for name, alpha in part.circuit.alpha.items():
            assert not torch.equal(alpha, old.circuit.alpha[name])


def test_circuits_that_disagree_with_the_method_are_refused():
    net = Sum()
    net.parts[1].circuit.sampling = "score-function"
    for method in ("joint", "score-function"):
        with pytest.raises(SearchError, match="needs and is needed by"):
            searched(net, method)


@pytest.mark.parametrize("method", ["joint", "first-order", "second-order", "implicit"])
def test_a_network_that_was_frozen_and_thawed_can_be_searched(method):
    net = generated(nn.Linear(4, 3))
    net.requires_grad_(False)
    with pytest.raises(SearchError, match="no trainable logits"):
        searched(net, method)
    net.requires_grad_(True)
    searched(net, method, method_options={"damping": 50.0} if method == "implicit" else None)
