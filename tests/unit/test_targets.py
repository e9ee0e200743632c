"""Any module can be a target: one suite that each of them has to pass."""

import copy
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune

from qtdqas_lite import FixedCircuit, GeneratedNetwork, TargetError, n_qubits_for


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def convolution():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )


def frozen():
    target = mlp()
    target[0].weight.requires_grad_(False)
    return target


def empty_parameter():
    target = mlp()
    target.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3)))
    return target


class Tied(nn.Module):
    """An autoencoder whose mirror has the encoder's own weight."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 3, bias=False)
        self.decoder = nn.Linear(3, 5)
        self.mirror = nn.Linear(5, 3, bias=False)
        self.mirror.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(self.encoder(x) + self.mirror(x))


class TiedEmbedding(nn.Module):
    """A language model in small: the decoder's weight is the embedding's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3, padding_idx=0)
        self.decoder = nn.Linear(3, 6)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(self.embedding(x))


class Shared(nn.Module):
    """One layer under two names, called twice, and once more inside another module."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.block = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), self.first)

    def forward(self, x):
        return self.block(self.again(torch.tanh(self.first(x))))


class Loose(nn.Module):
    """Parameters in lists and dictionaries, and a single number under two names."""

    def __init__(self):
        super().__init__()
        self.list = nn.ParameterList([nn.Parameter(numbers(4)), nn.Parameter(numbers(2, 4))])
        self.dict = nn.ParameterDict({"scale": nn.Parameter(numbers(2))})
        self.number = self.again = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.number * self.again * (x * self.list[0]) @ self.list[1].T * self.dict["scale"]


class Attention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)


class Mixed(nn.Module):
    """Two layers of different precision."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3).double(), nn.Linear(3, 2)

    def forward(self, x):
        hidden = self.first(x.to(self.first.weight.dtype))
        return self.second(torch.tanh(hidden).to(self.second.weight.dtype))


def normalised():
    first = parametrizations.weight_norm(nn.Linear(4, 5))
    return nn.Sequential(first, nn.Tanh(), parametrizations.spectral_norm(nn.Linear(5, 2)))


INDICES = torch.tensor([[0, 5, 1], [2, 2, 0]])
TARGETS = {
    "mlp": (mlp, numbers(3, 4)),
    "convolution and batch norm": (convolution, numbers(5, 1, 4, 4)),
    "convolution in one dimension": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2, groups=1), nn.PReLU(), nn.GroupNorm(3, 3)),
        numbers(2, 2, 5),
    ),
    "transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.LayerNorm(4)),
        numbers(2, 1, 3, 3),
    ),
    "lstm": (lambda: nn.LSTM(2, 3, batch_first=True), numbers(2, 4, 2)),
    "lstm, both ways": (
        lambda: nn.LSTM(2, 3, num_layers=2, bidirectional=True),
        numbers(4, 2, 2),
    ),
    "gru": (lambda: nn.GRU(2, 3, num_layers=2), numbers(4, 2, 2)),
    "attention": (lambda: Attention(4, 2, batch_first=True), numbers(2, 3, 4)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        numbers(2, 3, 4),
    ),
    "embedding": (lambda: nn.Embedding(6, 3), INDICES),
    "embedding with padding": (lambda: nn.Embedding(6, 3, padding_idx=-5), INDICES),
    "embedding bag": (lambda: nn.EmbeddingBag(6, 3, padding_idx=2), INDICES),
    "tied": (Tied, numbers(2, 5)),
    "tied embedding": (TiedEmbedding, INDICES),
    "shared": (Shared, numbers(2, 4)),
    "loose parameters": (Loose, numbers(3, 4)),
    "parametrized": (normalised, numbers(3, 4)),
    "frozen": (frozen, numbers(3, 4)),
    "empty parameter": (empty_parameter, numbers(3, 4)),
    "mixed precision": (Mixed, numbers(3, 4)),
}
each_target = pytest.mark.parametrize("name", TARGETS)


def wrap(target, n_layers=2, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    count = sum(p.numel() for p in target.parameters() if p.requires_grad)
    circuit = FixedCircuit(n_qubits_for(count), n_layers, generator=generator)
    return GeneratedNetwork(target, circuit, generator=generator, **options)


def output(module, x):
    result = module(x)
    return result[0] if isinstance(result, tuple) else result


@each_target
def test_the_call_is_the_targets_own_with_these_weights(name):
    make, x = TARGETS[name]
    target = make()
    net = wrap(target)
    weights = net.weights()
    written = {k: p for k, p in target.named_parameters() if p.requires_grad and p.numel()}
    assert {k: (w.shape, w.dtype) for k, w in weights.items()} == {
        k: (p.shape, p.dtype) for k, p in written.items()
    }
    assert list(weights) == list(written)
    assert net.n_weights == sum(p.numel() for p in written.values())
    for training in (True, False):
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                net.train(training)
                plain = copy.deepcopy(target.train(training))
                if "batch norm" in name or name == "parametrized":  # these move with every call
                    kept = {k: b for k, b in net.target.named_buffers() if b.numel()}
                    plain.load_state_dict(kept, strict=False)
                expected = functional_call(plain, net.weights(), (x,))
                expected = expected[0] if isinstance(expected, tuple) else expected
                assert torch.equal(output(net, x), expected)


@each_target
@pytest.mark.parametrize("training", [True, False])
def test_the_export_is_bitwise_the_same_and_the_original_is_left_alone(name, training):
    make, x = TARGETS[name]
    target = make().train(training)
    before = copy.deepcopy(target.state_dict())
    net = wrap(target)
    output(net, x).square().sum().backward()  # a first call must leave nothing behind
    plain = net.export()
    assert type(plain) is type(target)
    assert plain.training == training
    assert not plain._forward_pre_hooks
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            # torch takes another kernel, which rounds differently, where a weight is trained.
            same = net.export().requires_grad_(gradients)
            assert torch.equal(output(same, x), output(net, x))
    assert plain.state_dict().keys() == before.keys()
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key])
    trains = {k: p.requires_grad for k, p in target.named_parameters()}
    assert {k: p.requires_grad for k, p in plain.named_parameters()} == trains
    output(plain, x).sum().backward()  # and goes on training as an ordinary network
    for trained in (net.parameters(), plain.parameters()):
        assert all(p.grad is not None for p in trained if p.numel() and p.requires_grad)


@each_target
def test_the_gradient_is_the_slope(name):
    make, x = TARGETS[name]
    torch.manual_seed(0)
    net = wrap(make()).double().eval()
    x = x.double() if x.is_floating_point() else x
    trained = [p for p in net.parameters() if p.requires_grad and p.numel()]
    direction = [numbers(*p.shape).double() for p in trained]

    def loss():
        result = output(net, x)
        return (result * numbers(*result.shape)).sum()

    gradients = torch.autograd.grad(loss(), trained)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))

    def at(step):
        with torch.no_grad():
            for p, d in zip(trained, direction, strict=True):
                p += step * d
            value = loss()
            for p, d in zip(trained, direction, strict=True):
                p -= step * d
        return value

    assert slope.abs() > 1e-3
    torch.testing.assert_close(slope, (at(1e-6) - at(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-6)


@each_target
def test_without_gradients_weights_are_written_once_until_something_changes(name):
    make, x = TARGETS[name]
    net = wrap(make()).eval()
    calls = []
    net.circuit.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        for expected in (1, 2, 3):
            first, second = output(net, x), output(net, x)
            assert torch.equal(first, second)
            assert len(calls) == expected
            net.circuit.theta += 0.1
            net.mapping.bias += 0.1
    output(net, x)
    output(net, x)
    assert len(calls) == 5


def test_batch_norm_counts_in_the_wrapped_target_and_travels_with_the_export():
    make, x = TARGETS["convolution and batch norm"]
    target = make()
    net = wrap(target)
    net.weights()
    assert net.target[1].num_batches_tracked == 0
    net(x)
    net(x)
    assert net.target[1].num_batches_tracked == 2
    assert not torch.equal(net.target[1].running_mean, target[1].running_mean)
    assert torch.equal(net.export()[1].running_mean, net.target[1].running_mean)
    mean = net.target[1].running_mean.clone()
    net.eval()(x)
    assert torch.equal(net.target[1].running_mean, mean)


def test_frozen_parameters_are_left_alone():
    target = frozen()
    net = wrap(target)
    assert "0.weight" not in net.weights()
    assert net.n_weights == 6 + 12 + 2
    assert torch.equal(net.export()[0].weight, target[0].weight)


def test_tied_weights_are_written_once_and_stay_tied():
    net = wrap(Tied())
    assert net.n_weights == 15 + 15 + 5
    plain = net.export()
    assert plain.mirror.weight is plain.encoder.weight
    plain = wrap(TiedEmbedding()).export()
    assert plain.decoder.weight is plain.embedding.weight
    plain = wrap(Shared()).export()
    assert plain.block[1] is plain.first is plain.again


def test_hooks_of_the_targets_own_are_kept():
    target, x = mlp(), TARGETS["mlp"][1]
    target.register_forward_pre_hook(lambda _module, args: (args[0] * 2,))
    net = wrap(target)
    plain = net.export()
    assert torch.equal(plain(x), net(x))
    plain._forward_pre_hooks.clear()
    assert torch.equal(plain(2 * x), net(x))


def test_zero_size_parameters_are_passed_over():
    assert "nothing" not in wrap(empty_parameter()).weights()


def test_the_padding_of_an_embedding_stays_zero():
    # No gradient comes back from that row, so its numbers could not be trained.
    for name, rows in (("embedding with padding", [1]), ("embedding bag", [2])):
        net = wrap(TARGETS[name][0]())
        weight = net.export().weight.detach()
        assert (weight.abs().sum(1) == 0).nonzero().flatten().tolist() == rows
    assert (wrap(nn.Embedding(6, 3)).weights()["weight"] != 0).all()
    held = nn.Embedding(6, 3, padding_idx=1)
    held.weight.requires_grad_(False)
    wrap(nn.Sequential(held, nn.Linear(3, 1)))(INDICES)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.double, 1e-5), (torch.bfloat16, 0.1), (torch.half, 0.02)]
)
def test_the_network_follows_its_dtype(dtype, tolerance):
    net, x = wrap(mlp()), TARGETS["mlp"][1]
    with torch.no_grad():
        weights, result = net.weights(), net(x)
        net.to(dtype)
        for name, weight in net.weights().items():
            assert weight.dtype == dtype
            torch.testing.assert_close(
                weight.float(), weights[name], rtol=tolerance, atol=tolerance
            )
        torch.testing.assert_close(net(x.to(dtype)).float(), result, rtol=tolerance, atol=tolerance)
        assert torch.equal(net.export()(x.to(dtype)), net(x.to(dtype)))


def test_the_meta_device_holds_no_numbers_and_gives_none():
    net, x = wrap(mlp()), TARGETS["mlp"][1]
    with torch.no_grad():
        net(x)
        kept = copy.deepcopy(net)
        moved = copy.deepcopy(net).to("meta")
        assert all(tensor.is_meta for tensor in moved.state_dict().values())
        with pytest.raises(RuntimeError):
            moved(x)  # and not what was written before
        assert torch.equal(kept(x), net(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single")  # torch, of itself
def test_the_network_follows_its_device(tmp_path):
    for make, x in TARGETS.values():
        target = make()
        net = wrap(target).eval()
        with torch.no_grad():
            expected = output(net, x)
            net.cuda()
            assert {weight.device.type for weight in net.weights().values()} == {"cuda"}
            found = output(net, x.cuda())
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(output(net.export(), x.cuda()), found)
        output(net, x.cuda()).sum().backward()
        assert net.circuit.theta.grad.is_cuda
        net.save(tmp_path / "net")
        again = GeneratedNetwork.load(tmp_path / "net", target)
        torch.testing.assert_close(output(again, x), expected, rtol=1e-3, atol=1e-3)
        circuit = FixedCircuit(net.circuit.n_qubits, 2).cuda()
        built = GeneratedNetwork(target, circuit)  # on the circuit's device from the start
        assert output(built, x.cuda()).is_cuda


def not_finite():
    target = mlp()
    target[2].bias.data[1] = torch.nan
    return target


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.relu, "must be an nn.Module, got builtin"),
        (nn.ReLU, "ReLU has no trainable parameters"),
        (lambda: mlp().requires_grad_(False), "check requires_grad"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)), "1.weight has no shape yet"),
        (lambda: nn.Linear(2, 2, dtype=torch.cfloat), "weight is complex"),
        (lambda: nn.Linear(2, 2, device="meta"), "weight is on the meta device"),
        (lambda: nn.Embedding(6, 3, sparse=True), "the target gives sparse gradients"),
        (lambda: nn.Sequential(nn.EmbeddingBag(6, 3, sparse=True)), "0 gives sparse gradients"),
        (not_finite, "2.bias starts with values that are not finite"),
    ],
)
def test_targets_that_cannot_be_written_are_refused(make, message):
    with pytest.raises(TargetError, match=message):
        GeneratedNetwork(make(), FixedCircuit(6, 2))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.weight_norm(nn.Linear(3, 2)),
        lambda: nn.utils.spectral_norm(nn.Linear(3, 2)),
        lambda: prune.l1_unstructured(nn.Linear(3, 2), "weight", 0.5),
    ],
)
def test_targets_that_cannot_be_copied_once_called_are_told_what_to_use_instead(make, called):
    target = nn.Sequential(make())
    if called:
        target.eval()(torch.ones(1, 3))
    with pytest.raises(TargetError, match=r"torch\.nn\.utils\.parametrizations"):
        GeneratedNetwork(target, FixedCircuit(4, 1))


class Holder(nn.Module):
    """A target whose forward calls what it holds."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x)


EVERYWHERE = Holder()


def with_partial(target):
    call = partial(target.linear)
    target.head = lambda x: call(x)


def with_wrapped_forward(target):
    before = target.linear.forward
    target.linear.forward = lambda x: 2 * before(x)


REACHING = {
    "a closure": lambda target: setattr(target, "head", lambda x: target.linear(x)),
    "a default": lambda target: setattr(target, "head", lambda x, layer=target.linear: layer(x)),
    "a partial": with_partial,
    "a list": lambda target: setattr(target, "heads", {"a": [lambda x: target.linear(x)]}),
    "a weak reference": lambda target: setattr(target, "parent", weakref.ref(target)),
    "a hook": lambda target: target.register_forward_hook(lambda *_: target.linear(_[1][0])),
    "a wrapped forward": with_wrapped_forward,
}


@pytest.mark.parametrize("name", REACHING)
def test_functions_that_would_use_the_original_are_refused(name):
    target = Holder()
    REACHING[name](target)
    with pytest.raises(TargetError, match="still refers to the module that was copied"):
        GeneratedNetwork(target, FixedCircuit(4, 2))


def test_a_function_that_finds_the_original_by_a_global_name_is_refused():
    EVERYWHERE.head = lambda x: EVERYWHERE.linear(x)
    with pytest.raises(TargetError, match="a function in head of the target still refers"):
        GeneratedNetwork(EVERYWHERE, FixedCircuit(4, 2))


class Held(Holder):
    """Bound methods, lists of modules and hooks are copied with the target, or touch nothing."""

    def __init__(self, seen):
        super().__init__()
        self.head, self.parts = self.inside, [self.linear]
        self.linear.register_forward_hook(lambda module, _args, out: seen.append((module, out)))

    def inside(self, x):
        self.decay = sum(p.square().sum() for p in self.parameters())
        return self.parts[0](x.to(next(self.parameters()).device)) + self.decay


def test_what_a_target_holds_besides_goes_on_working():
    seen, x = [], numbers(2, 4)
    net = wrap(Held(seen))
    torch.testing.assert_close(net(x), net.export()(x))
    weights = net.weights()
    decay = sum(weight.square().sum() for weight in weights.values())
    torch.testing.assert_close(net.target.decay, decay)
    assert seen[0][0] is net.target.linear  # a hook sees the same module in every call
    torch.testing.assert_close(net(x), nn.functional.linear(x, *weights.values()) + decay)


def overlapping(name):
    target = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    if name == "a transposed view":
        target[1].weight = nn.Parameter(target[0].weight.data.t())
    elif name == "a row":
        target.register_parameter("row", nn.Parameter(target[0].weight.data[1]))
    elif name == "a frozen view":
        target[1].weight = nn.Parameter(target[0].weight.data.t(), requires_grad=False)
    elif name == "a buffer":
        target.register_buffer("same", target[0].weight.data)
    return target


@pytest.mark.parametrize("name", ["a transposed view", "a row", "a frozen view", "a buffer"])
def test_tensors_that_share_memory_are_refused(name):
    wrap(overlapping("none"))
    with pytest.raises(TargetError, match="share memory, and would be written as two"):
        wrap(overlapping(name))


def test_tensors_side_by_side_in_one_memory_are_written():
    target, memory = nn.Linear(4, 2), torch.randn(10)
    target.weight.data, target.bias.data = memory[:8].view(2, 4), memory[8:]
    assert wrap(target).n_weights == 10
    target.bias.data = memory[7:9]
    with pytest.raises(TargetError, match="weight and bias share memory"):
        wrap(target)


@each_target
def test_the_skeleton_of_the_target_refuses_to_be_called(name):
    make, x = TARGETS[name]
    net = wrap(make())
    for form in (net.target, copy.deepcopy(net).target):
        with pytest.raises(TargetError, match="only the target's skeleton"):
            form(x)


class Encoder(nn.Module):
    """A recurrent layer and a head, and a method that needs the layer alone."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"layer": nn.LSTM(1, 3), "head": nn.Linear(3, 1)})

    def encode(self, x):
        return self.parts["layer"](x)[0]

    def forward(self, x):
        return self.parts["head"](self.encode(x))


def test_every_part_of_the_skeleton_refuses_to_be_called():
    net, x = wrap(Encoder()), torch.zeros(4, 2, 1)
    net(x)
    for part in (lambda: net.target.encode(x), lambda: net.target.parts["head"](torch.ones(3))):
        with pytest.raises(TargetError, match="only the target's skeleton"):
            part()
    plain = net.export()
    assert torch.equal(plain.parts["head"](plain.encode(x)), net(x))


@each_target
def test_only_what_is_trained_or_kept_is_a_parameter(name):
    make, x = TARGETS[name]
    target = make()
    net = wrap(target)
    kept = {k for k, p in target.named_parameters() if not (p.requires_grad and p.numel())}
    assert {k for k, _ in net.target.named_parameters()} == kept
    trained = [k for k, p in net.named_parameters() if p.requires_grad and p.numel()]
    assert not any(k.startswith("target") for k in trained)
    net.requires_grad_(False).requires_grad_(True)
    output(net, x).square().sum().backward()
    own = [*net.circuit.parameters(), *net.mapping.parameters()]
    assert all(p.grad is not None for p in own)


def test_gradients_of_single_examples_by_the_usual_way():
    net, x = wrap(mlp()), TARGETS["mlp"][1]
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def loss(parameters, example):
        return functional_call(net, parameters, (example[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for number, example in enumerate(x):
        net.zero_grad()
        net(example[None]).square().sum().backward()
        for name, value in net.named_parameters():
            torch.testing.assert_close(found[name][number], value.grad, rtol=1e-3, atol=1e-4)


class Forecaster(nn.Module):
    """A recurrent layer and a head on its last step."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer(2, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


# Notes of the exporter about its own code.
@pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
    "ignore:_check_is_size will be removed:FutureWarning",
    r"ignore:The tensor attributes? .*_flat_weights.* assigned during export:UserWarning",
)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (mlp, (4,)),
        (convolution, (1, 4, 4)),
        (lambda: Forecaster(nn.LSTM), (7, 2)),
        (lambda: Forecaster(nn.GRU), (7, 2)),
    ],
    ids=["mlp", "convolution", "lstm", "gru"],
)
def test_the_export_runs_in_onnx(make, shape, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    plain = wrap(make()).eval().export()
    path = tmp_path / "plain.onnx"
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(plain, (numbers(2, *shape),), path, dynamo=True, dynamic_shapes=batch)
    session = runtime.InferenceSession(path)
    x = numbers(5, *shape)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, plain(x).detach().numpy(), rtol=1e-4, atol=1e-5)
