import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_targets import TARGETS, mlp, wrap
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qtdqas_lite import (
    AffineMapping,
    CircuitError,
    EncodingError,
    FixedCircuit,
    GeneratedNetwork,
    MLPMapping,
    RelaxedCircuit,
    TargetError,
    basis_bits,
    log_feature,
)
from qtdqas_lite.mapping import FEATURES


@pytest.mark.parametrize("mapping", ["affine", "mlp"])
@pytest.mark.parametrize("feature", ["log", "scaled", "raw", torch.sqrt])
def test_weights_agree_with_finite_differences(mapping, feature):
    net = wrap(nn.Linear(3, 2), mapping=mapping, feature=feature).double()
    x = torch.randn(4, 3, dtype=torch.double)
    names, values = zip(
        *((k, p) for k, p in net.named_parameters() if p.requires_grad), strict=True
    )

    def function(*values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, [v.detach().clone().requires_grad_() for v in values])


def test_weights_follow_the_formula():
    net = wrap(mlp()).double()
    with torch.no_grad():
        p = net.circuit()
        mapping = net.mapping
        expected = []
        for i in range(net.n_weights):
            bits = [2 * int(b) - 1 for b in format(i, f"0{net.circuit.n_qubits}b")]
            x = math.log(len(p) * p[i] + 0.01)
            raw = mapping.feature_coefficient * x + mapping.bias
            raw += sum(b * c for b, c in zip(bits, mapping.bit_coefficients, strict=True))
            expected.append((raw - net.raw_mean) / net.raw_deviation)
        weights = net.weights()
    expected = torch.stack(expected)
    assert list(weights) == [name for name, _ in mlp().named_parameters()]
    position = 0
    for (name, tensor), scale, centre in zip(weights.items(), net.scale, net.centre, strict=True):
        piece = expected[position : position + tensor.numel()].view(tensor.shape)
        torch.testing.assert_close(tensor, (centre + scale * piece).double(), msg=name)
        position += tensor.numel()
    assert position == net.n_weights


class Open(nn.Module):
    """A circuit of six qubits that holds a choice open: which of two outcomes to read."""

    n_qubits = 6

    def __init__(self):
        super().__init__()
        self.circuit = FixedCircuit(6, 2, generator=torch.Generator().manual_seed(0))
        self.taken = (0.7, 0.3)

    def forward(self):
        p = self.circuit()
        return self.taken[0] * p + self.taken[1] * p.flip(0)

    def discretize(self):
        chosen = copy.copy(self)  # which still shares its parameters
        chosen.taken, chosen.training = (1.0, 0.0), True
        return chosen


def test_discretizing_changes_the_circuit_and_nothing_else():
    target = TARGETS["convolution and batch norm"][0]()
    relaxed = GeneratedNetwork(target, Open()).eval()
    with torch.no_grad():
        relaxed.weights()  # what was written before must not be handed on
        before = {name: value.clone() for name, value in relaxed.state_dict().items()}
        discrete = relaxed.discretize()
        assert not any(module.training for module in discrete.modules())
        found = discrete.weights()
        # The oracle: the same numbers in a network that was built with the chosen circuit.
        expected = GeneratedNetwork(target, FixedCircuit(6, 2))
        state = {name.replace("circuit.circuit", "circuit"): v for name, v in before.items()}
        expected.load_state_dict(state)
        for name, weight in expected.weights().items():
            torch.testing.assert_close(weight, found[name])
            assert not torch.allclose(weight, relaxed.weights()[name])
        for tensor in discrete.state_dict().values():
            tensor.zero_()
        for name, value in relaxed.state_dict().items():
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("sampling", ["softmax", "score-function"])
def test_a_relaxed_circuit_becomes_a_fixed_one(sampling):
    net = GeneratedNetwork(mlp(), RelaxedCircuit(6, 3, sharing="layer", sampling=sampling))
    net(torch.randn(2, 4))
    assert net.count().architecture > 0
    discrete = net.discretize()
    assert type(discrete.circuit) is FixedCircuit
    assert discrete.circuit.architecture() == net.circuit.architecture()
    assert discrete.count().architecture == 0
    assert torch.equal(discrete.circuit.theta, net.circuit.theta)
    discrete(torch.randn(2, 4)).sum().backward()
    assert net.circuit.theta.grad is None


def test_only_a_circuit_with_choices_can_be_discretized():
    net = GeneratedNetwork(mlp(), Says(torch.softmax(torch.arange(64.0), 0)))
    with pytest.raises(TargetError, match=r"Says has no discretize\(\)"):
        net.discretize()


def test_weights_start_as_wide_as_the_targets_own():
    torch.manual_seed(0)
    target = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.LayerNorm(10))
    flat = {k: w.detach() for k, w in wrap(target, gain=1.5).weights().items()}
    for name in ("0.weight", "2.weight"):
        ratio = flat[name].std() / target.state_dict()[name].std()
        assert 1.2 < ratio < 1.8
    # A constant tensor of a normalisation layer moves about its constant.
    assert wrap(target).centre.tolist() == [0, 0, 0, 0, 1, 0]
    assert wrap(target).scale[-2:].tolist() == pytest.approx([0.1, 0.1])


def test_spread_of_tensors_that_tell_little_of_themselves():
    torch.manual_seed(0)
    layer = nn.Linear(500, 1)  # one bias, drawn as the 500 weights were
    deviation = layer.weight.std().item()
    assert wrap(layer, gain=3.0).scale.tolist() == pytest.approx([3 * deviation] * 2, rel=1e-2)
    assert wrap(layer).centre.tolist() == [0, 0]
    nn.init.zeros_(layer.bias)
    two = nn.Linear(500, 2)
    nn.init.zeros_(two.bias)  # a constant beside values that vary: neither pooled nor widened
    assert wrap(two, gain=1.0).scale.tolist() == pytest.approx([two.weight.std().item(), 0.1], 1e-2)
    nn.init.uniform_(two.weight, 3, 5)  # far from zero: its deviation counts, not its size
    assert wrap(two, gain=1.0).scale[0].item() == pytest.approx(two.weight.std().item(), 1e-2)
    alone = nn.Sequential(nn.PReLU(), nn.BatchNorm1d(1))
    assert wrap(alone).centre.tolist() == [0.25, 1, 0]
    assert wrap(alone).scale.tolist() == pytest.approx([0.1] * 3)


def test_the_start_is_what_the_documentation_says():
    net = wrap(mlp()).double()
    mapping = net.mapping
    assert mapping.feature_coefficient == 1
    assert mapping.bias == 0
    assert AffineMapping(1000).bit_coefficients.std().item() * 1000**0.5 == pytest.approx(
        0.1, rel=0.1
    )
    numbers = torch.cat(
        [
            ((w.detach() - c) / s).flatten()
            for w, c, s in zip(net.weights().values(), net.centre, net.scale, strict=True)
        ]
    )
    assert numbers.mean().item() == pytest.approx(0, abs=1e-6)
    assert numbers.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    target = mlp()
    assert torch.equal(wrap(target).scale, 2 * wrap(target, gain=1.0).scale)


@pytest.mark.parametrize("kind", [AffineMapping, MLPMapping])
def test_mappings_draw_from_their_generator_only(kind):
    before = torch.random.get_rng_state()
    one, two = (kind(4, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    # Old seeds keep their meaning: in this order, and nothing between.
    one, draws = kind(4, generator=torch.Generator().manual_seed(3)), torch.Generator()
    draws.manual_seed(3)
    if kind is AffineMapping:
        assert torch.equal(one.bit_coefficients, 0.05 * torch.randn(4, generator=draws))
    else:
        assert torch.equal(one.hidden_layer.weight, torch.randn(8, 5, generator=draws))
        assert torch.equal(one.hidden_layer.bias, 0.5 * torch.randn(8, generator=draws))
        expected = 8**-0.5 * torch.randn(1, 8, generator=draws)
        torch.testing.assert_close(one.output_layer.weight.detach(), expected)


@pytest.mark.parametrize("mapping", ["affine", "mlp"])
def test_the_generator_reaches_the_mapping(mapping):
    one, other = (list(wrap(mlp(), mapping=mapping, seed=9).mapping.parameters()) for _ in "12")
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def test_features_follow_their_formulas():
    p = torch.tensor([0.5, 0.25, 0.125, 0.125])
    assert FEATURES["raw"](p).tolist() == p.tolist()
    assert FEATURES["scaled"](p).tolist() == [1.0, 0.0, -0.5, -0.5]
    expected = [math.log(4 * value + 0.01) for value in p.tolist()]
    assert FEATURES["log"](p).tolist() == pytest.approx(expected)


def test_hidden_units_are_centred_over_the_weights():
    # What moves every hidden unit alike must not move the mean of the numbers.
    mapping = MLPMapping(5, 7, generator=torch.Generator().manual_seed(0))
    bits, feature = basis_bits(5), torch.randn(32)
    before = mapping(bits, feature).mean()
    with torch.no_grad():
        mapping.hidden_layer.bias += 1.0
    torch.testing.assert_close(mapping(bits, feature).mean(), before, atol=1e-5, rtol=0)


def test_autocast_writes_the_same_weights():
    net = wrap(mlp())
    with torch.no_grad():
        expected = net.weights()
        with torch.autocast("cpu", torch.bfloat16):
            net.circuit.theta += 0  # a fresh look, not a cached one
            net._cache.clear()
            found = net.weights()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch, of itself
def test_forward_mode_under_no_grad_sees_through_the_cache():
    net, x = wrap(mlp()), torch.randn(2, 4)
    theta = net.circuit.theta.detach()

    def function(theta):
        return torch.func.functional_call(net, {"circuit.theta": theta}, (x,))

    tangent = torch.randn_like(theta)
    _, expected = torch.func.jvp(function, (theta,), (tangent,))
    with torch.no_grad():
        net(x)
        _, found = torch.func.jvp(function, (theta,), (tangent,))
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)
    copy.deepcopy(net)


@pytest.mark.parametrize("name", ["mlp", "embedding with padding"])
def test_many_parameter_sets_at_once(name):
    make, x = TARGETS[name]
    net = wrap(make())
    theta = torch.stack([net.circuit.theta.detach(), net.circuit.theta.detach() + 1])

    def function(theta):
        return torch.func.functional_call(net, {"circuit.theta": theta}, (x,))

    torch.testing.assert_close(
        torch.func.vmap(function)(theta), torch.stack([function(t) for t in theta])
    )


class Tempered(AffineMapping):
    temperature = 1.0

    def forward(self, bits, feature):
        return super().forward(bits, torch.tanh(feature / self.temperature))


class Nested(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, bits, feature):
        return self.part(bits, feature)


class Attributes(nn.Module):
    """A circuit that keeps what it needs in every way but as a parameter."""

    n_qubits = 6

    def __init__(self):
        super().__init__()
        self.inner = FixedCircuit(6, 2, generator=torch.Generator().manual_seed(0))
        self.register_buffer("phase", torch.zeros(2, 6), persistent=False)
        self.tensor, self.array = torch.zeros(2, 6), np.zeros((2, 6))
        self.number, self.pair = np.float32(0), [0.0, 0.0]

    def forward(self):
        shift = self.phase + self.tensor + torch.tensor(self.array).float()
        return self.inner.run(self.inner.theta + shift + float(self.number) + self.pair[1])


def test_whatever_a_circuit_holds_is_watched():
    net = GeneratedNetwork(mlp(), Attributes())
    circuit = net.circuit
    with torch.no_grad():
        first = net.weights()["0.weight"]
        for change in (
            lambda: circuit.phase.add_(0.1),
            lambda: circuit.tensor.add_(0.1),
            lambda: circuit.array.__iadd__(0.1),
            lambda: setattr(circuit, "number", np.float32(0.1)),
            lambda: circuit.pair.__setitem__(1, 0.1),
        ):
            change()
            second = net.weights()["0.weight"]
            assert not torch.equal(first, second)
            assert torch.equal(second, net.weights()["0.weight"])
            first = second
    torch.testing.assert_close(net.weights()["0.weight"], first)


def test_modes_attributes_and_feature_are_watched_too():
    class Noisy(AffineMapping):
        def forward(self, bits, feature):
            return nn.functional.dropout(super().forward(bits, feature), training=self.training)

    net = GeneratedNetwork(mlp(), FixedCircuit(6, 2), Noisy(6))
    with torch.no_grad():
        first = net.weights()["0.weight"]
        assert not torch.equal(first, net.weights()["0.weight"])  # drawn anew, as in any network
        net.mapping.eval()  # and the network itself still in training mode
        first = net.weights()["0.weight"]
        assert torch.equal(first, net.weights()["0.weight"])
        assert not torch.equal(first, net.train().weights()["0.weight"])
        net = wrap(mlp())
        first = net.weights()["0.weight"]
        net.feature = "scaled"
        assert not torch.equal(first, net.weights()["0.weight"])
        net = wrap(mlp(), mapping=Nested(Tempered(6)))
        first = net.weights()["0.weight"]
        net.mapping.part.temperature = 0.5
        assert not torch.equal(first, net.weights()["0.weight"])
        net = GeneratedNetwork(mlp(), RelaxedCircuit(6, 2)).eval()
        first = net.weights()["0.weight"]
        net.circuit.temperature = 0.01
        assert not torch.equal(first, net.weights()["0.weight"])
        net = wrap(mlp())
        # Other parts with the same numbers and attributes.
        for part in ("circuit", "mapping"):
            first, other = net.weights()["0.weight"], copy.deepcopy(getattr(net, part))
            other.register_forward_hook(lambda _module, _args, result: result.flip(0))
            setattr(net, part, other)
            assert not torch.equal(first, net.weights()["0.weight"])
        net = wrap(mlp())
    with torch.inference_mode():
        net.weights()
    with torch.no_grad():
        assert not net.weights()["0.weight"].is_inference()


def test_the_cache_and_the_export_are_the_networks_own():
    net, x = wrap(mlp()), torch.randn(2, 4)
    with torch.no_grad():
        net.weights().clear()
        expected = net(x)
        net.weights().clear()
        for parameter in net.export().parameters():
            parameter.zero_()
        assert torch.equal(net(x), expected)


@pytest.mark.parametrize("feature", ["log", "scaled", "raw"])
def test_networks_can_be_sent_to_other_processes(feature):
    net, x = wrap(mlp(), feature=feature), torch.randn(2, 4)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))


@pytest.mark.parametrize("gradients", [False, True])
def test_threads_share_a_network(gradients):
    net, x = wrap(mlp()).eval(), torch.randn(8, 4)
    with torch.set_grad_enabled(gradients):
        expected = net(x)

    def work(_):
        with torch.set_grad_enabled(gradients):
            same = [torch.equal(net(x), expected) for _ in range(20)]
        return all(same) and torch.equal(net.export()(x), expected)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
    assert not dict(net.target.named_parameters())
    net.circuit.theta.data += 0.3
    assert torch.equal(net(x), net.export()(x))
    assert not torch.equal(net(x), expected)


def test_a_call_that_fails_leaves_the_network_as_it_was():
    net, x = wrap(mlp()), torch.randn(2, 4)
    expected = net(x)
    with pytest.raises(RuntimeError):
        net(torch.randn(2, 3))
    with pytest.raises(TargetError, match="only the target's skeleton"):
        net.target(x)
    assert torch.equal(net(x), expected)


def test_averages_follow_a_network_that_was_called():
    net, x = GeneratedNetwork(mlp(), RelaxedCircuit(6, 2)), torch.randn(2, 4)
    net(x)
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    mean.update_parameters(net)
    net.circuit.theta.data += 1
    mean.update_parameters(net)
    torch.testing.assert_close(mean.module.circuit.theta, net.circuit.theta - 0.5)


def test_training_goes_on_after_inference_mode_and_a_graph_can_be_walked_twice():
    net, x = wrap(mlp()), torch.randn(2, 4)
    with torch.inference_mode():
        net(x)
    with torch.no_grad():
        weight = net.weights()["0.weight"]
    nn.functional.linear(torch.randn(1, 4, requires_grad=True), weight).sum().backward()
    loss = net(x).square().sum()
    one, two = (torch.autograd.grad(loss, net.circuit.theta, retain_graph=True) for _ in "12")
    assert torch.equal(one[0], two[0])
    assert one[0].abs().sum() > 0


@pytest.mark.parametrize("mapping", ["affine", "mlp"])
@pytest.mark.parametrize("rotation", ["ry", ["rz", "rx"] * 10])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_reduced_precision_reaches_the_weights_but_not_the_circuit(mapping, rotation, dtype):
    circuit = FixedCircuit(6, 20, rotation=rotation, generator=torch.Generator().manual_seed(0))
    net = GeneratedNetwork(mlp(), circuit, mapping).to(dtype)
    exact = copy.deepcopy(net).float()  # from the same rounded angles
    assert torch.equal(net.circuit(), exact.circuit())
    net(torch.randn(2, 4, dtype=dtype)).sum().backward()
    assert net.circuit.theta.grad.dtype == dtype
    assert net.circuit.theta.grad.abs().sum() > 0
    for name, weight in net.weights().items():
        assert weight.dtype == dtype
        torch.testing.assert_close(weight.float(), exact.weights()[name], rtol=0.1, atol=0.1)


def test_numbers_of_numpy_are_numbers():
    circuit = Says(torch.softmax(torch.arange(64.0), 0), np.ceil(np.log2(44)).astype(int))
    net = GeneratedNetwork(mlp(), circuit, gain=np.float32(2))
    assert net.bits.shape == (44, 6)


def test_a_large_circuit_costs_no_bits_that_are_not_used():
    net = GeneratedNetwork(nn.Linear(3, 2), FixedCircuit(20, 1))
    assert net.bits.untyped_storage().nbytes() == 8 * 20 * 4


def test_mixed_precision_targets_keep_their_dtypes():
    target = mlp()
    target[0].to(torch.bfloat16)
    assert [w.dtype for w in wrap(target).weights().values()] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]


def test_budget_counts_every_trainable():
    net = wrap(mlp(), n_layers=3)
    n = net.circuit.n_qubits
    budget = net.count()
    assert (budget.angles, budget.architecture, budget.mapping) == (3 * n, 0, n + 2)
    assert budget.total == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert budget.target == 4 * 6 + 6 + 6 * 2 + 2
    assert budget.ratio == budget.target / budget.total
    assert "44" in str(budget)
    net.circuit.theta.requires_grad_(False)
    assert net.count().angles == 0
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert net.count().ratio == math.inf


def test_budget_tells_architecture_from_angles():
    class Choosing(FixedCircuit):
        architecture_parameters = ("alpha",)

        def __init__(self):
            super().__init__(5, 1)
            self.alpha = nn.Parameter(torch.zeros(12))

    net = GeneratedNetwork(mlp(), _bigger(Choosing()))
    budget = net.count()
    assert (budget.angles, budget.architecture, budget.mapping) == (5, 12, 8)
    net.circuit.part.alpha.requires_grad_(False)
    assert net.count().architecture == 0


def _bigger(circuit):
    """Give a 5-qubit circuit the interface of a 6-qubit one: any module will do as a circuit."""

    class Pair(nn.Module):
        n_qubits = 6
        architecture_parameters = ("part.alpha",)

        def __init__(self):
            super().__init__()
            self.part = circuit

        def forward(self):
            return torch.cat([self.part(), self.part().flip(0)]) / 2

    return Pair()


def test_weights_are_cached_only_without_gradients_and_never_stale():
    net = wrap(mlp())
    calls = []
    net.circuit.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 4)

    def turned(circuit):  # the same numbers in another circuit
        other = FixedCircuit(circuit.n_qubits, 2, rotation="rx", hadamard=False).double()
        other.load_state_dict(circuit.state_dict())
        other.register_forward_hook(lambda *_: calls.append(1))
        return other

    with torch.no_grad():
        first = net(x)
        net(x)
        assert len(calls) == 1
        for change in (
            lambda: net.circuit.theta.data.add_(0.1),  # .data hides from version counters
            lambda: net.mapping.bias.mul_(1).add_(1),
            lambda: net.scale.mul_(2),
            lambda: net.load_state_dict(copy.deepcopy(wrap(mlp(), seed=5).state_dict())),
            lambda: net.double(),
            lambda: setattr(net, "circuit", turned(net.circuit)),
        ):
            change()
            second = net(x.to(net.circuit.theta.dtype))
            assert not torch.equal(first, second)
            first = second
        assert len(calls) == 7
    net(x.double())
    net(x.double())
    assert len(calls) == 9


def test_training_steps_reduce_the_loss_and_repeat():
    def losses():
        torch.manual_seed(1)
        x, net = torch.randn(64, 4), wrap(mlp(), n_layers=6)
        y = (x[:, 0] * x[:, 1] > 0).long()
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-2)
        history = []
        for _ in range(60):
            loss = nn.functional.cross_entropy(net(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            history.append(loss.item())
        return history

    history = losses()
    assert history[-1] < 0.6 * history[0]
    assert history == losses()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=64))
def test_log_feature_is_finite_on_every_probability(values):
    p = torch.tensor(values, dtype=torch.double).requires_grad_()
    x = log_feature(p)
    x.sum().backward()
    assert x.isfinite().all()
    assert x.min() >= math.log(0.01) - 1e-9
    assert p.grad.isfinite().all()


@pytest.mark.parametrize("n", [1, 5, 17])
def test_log_feature_does_not_depend_on_the_number_of_qubits(n):
    uniform = torch.full((2**n,), 2.0**-n, dtype=torch.double)
    torch.testing.assert_close(log_feature(uniform), torch.full_like(uniform, math.log(1.01)))


def test_mappings_have_the_parameters_that_they_say():
    affine, hidden = AffineMapping(9), MLPMapping(9, 5)
    assert sum(p.numel() for p in affine.parameters()) == 9 + 2
    assert sum(p.numel() for p in hidden.parameters()) == (9 + 3) * 5 + 1
    # Four affine values determine an affine map; a hidden layer bends away from it.
    bits = basis_bits(9)[:4]
    line = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    for mapping, is_affine in ((affine, True), (hidden, False)):
        values = mapping(bits[:1].expand(4, -1), line)
        second = values[:-2] - 2 * values[1:-1] + values[2:]
        assert torch.allclose(second, torch.zeros(2), atol=1e-6) == is_affine


class Constant(nn.Module):
    def forward(self, bits, feature):
        return 0 * feature + 0.1


class FeatureOnly(nn.Module):
    def forward(self, bits, feature):
        return feature


class Says(nn.Module):
    """A circuit that gives what it is told to."""

    def __init__(self, output, n_qubits=6):
        super().__init__()
        self.output, self.n_qubits = output, n_qubits

    def forward(self):
        return self.output


def half_precision():
    target = mlp()
    target[0].half()
    net = wrap(target)
    net.mapping.feature_coefficient.data.fill_(1e9)
    return net.weights()


class Wrong(nn.Module):
    def forward(self, bits, feature):
        return feature[:, None]


class Nothing(nn.Module):
    def forward(self, bits, feature):
        pass


class Undefined(nn.Module):
    def forward(self, bits, feature):
        return feature / 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneratedNetwork(mlp(), FixedCircuit(5, 1)), "the target has 44; use n_qubits=6"),
        (lambda: GeneratedNetwork(mlp(), Says(torch.ones(1), 0)), "n_qubits must be at least 1"),
        (
            lambda: GeneratedNetwork(mlp(), Says(torch.ones(64), 6.0)),
            "n_qubits must be a whole number",
        ),
        (lambda: MLPMapping(4, 0), "hidden must be at least 1"),
        (lambda: AffineMapping(0), "n_qubits must be at least 1"),
        (lambda: GeneratedNetwork(mlp(), nn.Linear(1, 1)), "n_qubits must be a whole number"),
        (lambda: GeneratedNetwork(mlp(), None), "circuit must be of type Module"),
        (
            lambda: GeneratedNetwork(mlp(), FixedCircuit(6, 1), generator=0),
            "generator must be of type Generator",
        ),
        (lambda: wrap(mlp(), mapping="cubic"), "'affine', 'mlp' or a module"),
        (lambda: wrap(mlp(), feature="loud"), "feature must be one of"),
        (lambda: wrap(mlp(), mapping=Constant()), "same number for every weight"),
        (lambda: wrap(mlp(), mapping=Wrong()), r"must give shape \(44,\)"),
        (lambda: wrap(mlp(), mapping=Undefined()), "not finite"),
        (lambda: wrap(mlp(), gain=0.0), "gain"),
        (lambda: wrap(mlp(), gain=math.nan), "gain"),
        (lambda: wrap(mlp(), gain="2"), "gain"),
        (lambda: wrap(mlp(), feature=["log"]), "feature must be one of"),
        (lambda: wrap(mlp(), feature=lambda p: p[:-1]), r"feature must give shape \(64,\)"),
        (
            lambda: GeneratedNetwork(
                mlp(), FixedCircuit(6, 2, rotation="rz"), mapping=FeatureOnly()
            ),
            "same number for every weight",
        ),
        (
            lambda: GeneratedNetwork(mlp(), FixedCircuit(6, 2), mapping=AffineMapping(7)),
            "failed on 6 bits",
        ),
        (lambda: MLPMapping(3, 0), "hidden must be at least 1"),
        (lambda: GeneratedNetwork(mlp(), Says(torch.ones(1, 64) / 64)), r"shape \(64,\) of"),
        (lambda: GeneratedNetwork(mlp(), Says(torch.ones(128) / 128)), r"gave Tensor .* \(128,\)"),
        (lambda: GeneratedNetwork(mlp(), Says(torch.ones(64).int())), "gave Tensor torch.int32"),
        (lambda: GeneratedNetwork(mlp(), Says([1 / 64] * 64)), "circuit must give .* gave list"),
        (lambda: wrap(mlp(), feature=lambda p: p.tolist()), "feature must give .* gave list"),
        (lambda: wrap(mlp(), mapping=Nothing()), "mapping must give .* gave NoneType"),
        (lambda: GeneratedNetwork(mlp(), Says(torch.ones(64) / 8j)), "complex64"),
        (half_precision, "not finite"),
    ],
)
def test_bad_targets_mappings_and_circuits_are_refused(make, message):
    with pytest.raises((TargetError, EncodingError), match=message):
        make()


@pytest.mark.parametrize("angle", [math.nan, math.inf, -3e38])
def test_angles_that_no_circuit_can_run_at_are_reported_not_passed_on(angle):
    net = wrap(mlp())
    net.circuit.theta.data[0, 0] = angle
    with pytest.raises(CircuitError, match="lower the learning rate"):
        net(torch.randn(2, 4))


def test_a_mapping_that_is_not_finite_is_reported_not_passed_on():
    net = wrap(mlp())
    net.mapping.bias.data.fill_(math.nan)
    with pytest.raises(TargetError, match="lower the learning rate"):
        net(torch.randn(2, 4))
