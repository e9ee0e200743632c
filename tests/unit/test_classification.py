import copy
import gzip
import math
from dataclasses import replace
from http.client import IncompleteRead
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from torch import nn

from qtdqas_lite import (
    CircuitError,
    DataError,
    FixedCircuit,
    GeneratedNetwork,
    SearchError,
    TargetError,
)
from qtdqas_lite.tasks import images as images_module
from qtdqas_lite.tasks.classification import (
    accuracy,
    build,
    classify,
    confusion,
    digits_cnn,
    first_layer_images,
    mlp,
    predict,
)
from qtdqas_lite.tasks.image_files import FILES
from qtdqas_lite.tasks.images import Images, digits, mnist_files, openml

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def ones_fives():
    return digits((1, 5))


def write_folder(folder, train, test):
    """Write IDX files: images of 3x3 whose first pixel counts them, with these labels."""
    for part, (images, labels) in zip((train, test), (FILES[:2], FILES[2:]), strict=True):
        squares = np.zeros((len(part), 3, 3), dtype=np.uint8)
        squares[:, 0, 0] = np.arange(len(part))
        count = len(part).to_bytes(4, "big")
        head = b"\0\0\x08\x03" + count + (3).to_bytes(4, "big") * 2
        (folder / images).write_bytes(head + squares.tobytes())
        (folder / f"{labels}.gz").write_bytes(gzip.compress(b"\0\0\x08\x01" + count + bytes(part)))
    return folder


# --- Digits


def test_ten_digits_are_all_there_once():
    data = digits()
    assert [len(getattr(data, part)[1]) for part in PARTS] == [987, 360, 450]
    known = load_digits()
    expected = sorted(
        (*pixels, label) for pixels, label in zip(known.data, known.target, strict=True)
    )
    found = [
        (*(16 * pixels).tolist(), label.item())
        for part in PARTS
        for pixels, label in zip(*getattr(data, part), strict=True)
    ]
    assert sorted(found) == expected
    assert data.train[0].dtype == torch.float32
    assert data.train[1].dtype == torch.int64


def test_a_pair_is_numbered_in_the_order_given():
    data = digits((5, 1))
    assert data.classes == (5, 1)
    known = load_digits()
    fives = {tuple(p) for p in known.data[known.target == 5]}
    for part in PARTS:
        for pixels, label in zip(*getattr(data, part), strict=True):
            assert (tuple((16 * pixels).tolist()) in fives) == (label == 0)


def test_every_class_has_its_share():
    data = digits()
    whole = np.bincount(load_digits().target)
    for part, share in zip(PARTS, (0.55, 0.2, 0.25), strict=True):
        counts = getattr(data, part)[1].bincount().numpy()
        assert abs(counts - share * whole).max() < 2


def test_the_seed_decides_the_parts():
    one, again, other = digits((1, 5)), digits((1, 5)), digits((1, 5), seed=1)
    assert all(torch.equal(getattr(one, p)[0], getattr(again, p)[0]) for p in PARTS)
    assert not torch.equal(one.test[0], other.test[0])


def bilinear(image, side):
    """Resize a square by the formula: pixel centres at (i + 1/2) / side, edges repeated."""
    size = len(image)
    result = np.zeros((side, side))
    for i, j in np.ndindex(side, side):
        y, x = (np.clip((k + 0.5) * size / side - 0.5, 0, size - 1) for k in (i, j))
        top, left = int(y), int(x)
        bottom, right = min(top + 1, size - 1), min(left + 1, size - 1)
        v, h = y - top, x - left
        result[i, j] = (1 - v) * ((1 - h) * image[top, left] + h * image[top, right]) + v * (
            (1 - h) * image[bottom, left] + h * image[bottom, right]
        )
    return result


@pytest.mark.parametrize("side", [28, 5, 1])
def test_digits_are_resized_bilinearly(ones_fives, side):
    large = digits((1, 5), side=side)
    assert large.side == side
    for part in PARTS:
        small, resized = getattr(ones_fives, part)[0], getattr(large, part)[0]
        assert resized.shape == (len(small), side**2)
        whole = nn.functional.interpolate(small.view(-1, 1, 8, 8), (side, side), mode="bilinear")
        torch.testing.assert_close(resized, whole.flatten(1))
        np.testing.assert_allclose(
            resized[0].view(side, side), bilinear(small[0].view(8, 8).numpy(), side), atol=1e-6
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": (3,)}, "at least two classes, each once"),
        ({"classes": (3, 3)}, "at least two classes, each once"),
        ({"classes": ()}, "at least two classes"),
        ({"classes": (1, 10)}, "no image of class 10; there are .0, 1, "),
        ({"side": 0}, "side must be at least 1, got 0"),
        ({"side": 10**6}, "side must be at most 256"),
        ({"side": 28.0}, "side must be"),
        ({"classes": 3}, "classes must be whole numbers"),
        ({"classes": ("a", "b")}, "each class must be a whole number, got 'a'"),
        ({"classes": None}, "classes must be whole numbers"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"test": 0}, "between 0 and 1, got 0"),
        ({"test": 1.0}, "between 0 and 1"),
        ({"validation": math.nan}, "between 0 and 1, got nan"),
        ({"validation": "much"}, "between 0 and 1, got 'much'"),
        ({"test": 0.6, "validation": 0.5}, "cannot be parted"),
        ({"test": 0.001}, "cannot be parted so that 2 are taken out"),
        ({"validation": 0.999, "test": 0.0005}, "cannot be parted"),
    ],
)
def test_digits_that_cannot_be_had(options, message):
    with pytest.raises(DataError, match=message):
        digits(**options)


# --- Published files


def test_files_become_images(tmp_path):
    labels = [7, 3, 9] * 20
    data = mnist_files(write_folder(tmp_path, labels, [3, 9, 7, 9]), (9, 3), validation=0.25)
    assert (data.classes, data.side) == ((9, 3), 3)
    assert len(data.validation[1]) == 10
    seen = []
    for pixels, label in (*zip(*data.train, strict=True), *zip(*data.validation, strict=True)):
        number = round(255 * pixels[0].item())
        seen.append(number)
        assert labels[number] == (9, 3)[label]
        assert not pixels[1:].any()
    assert sorted(seen) == [i for i in range(60) if labels[i] != 7]
    # The published test stays the test, in its order.
    torch.testing.assert_close(255 * data.test[0][:, 0], torch.tensor([0.0, 1.0, 3.0]))
    assert data.test[1].tolist() == [1, 0, 0]


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=5),
    share=st.floats(0.1, 0.6),
    seed=st.integers(0, 1000),
)
def test_parts_are_whole_and_even_or_refused(tmp_path_factory, counts, share, seed):
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    classes = range(len(counts))
    folder = write_folder(tmp_path_factory.mktemp("files"), labels, list(classes))
    size = math.ceil(share * len(labels))
    try:
        data = mnist_files(folder, classes, validation=share, seed=seed)
    except DataError:
        # Some class would have less than one image on one of the sides.
        assert min(counts) * min(size, len(labels) - size) < len(labels)
        return
    taken = data.validation[1].bincount(minlength=len(counts))
    numbers = torch.cat([data.train[0][:, 0], data.validation[0][:, 0]])
    assert sorted((255 * numbers).round().int().tolist()) == list(range(len(labels)))
    assert len(data.validation[1]) == size
    even = torch.tensor(counts) * size / len(labels)
    assert (taken - even).abs().max() <= 1


def test_a_class_that_is_missing_from_the_published_test(tmp_path):
    folder = write_folder(tmp_path, [0, 1, 2] * 9, [0, 1])
    with pytest.raises(DataError, match=r"no image of class 2; there are \[0, 1\]"):
        mnist_files(folder, (0, 1, 2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 10, r"labels of the test part must be 0 to 1, .*\(1, 5\); there are \[0\]"),
        ([0, 1, 2, 0, 1] * 2, r"labels of the test part must be 0 to 1, .*there are \[0, 1, 2\]"),
        ([0, 1] * 4, r"the test part must be a pair.* got \[\(10, 64\), \(8,\)\]"),
        ([[0], [1]] * 5, r"the test part must be a pair.* got \[\(10, 64\), \(10, 1\)\]"),
    ],
)
def test_parts_that_do_not_fit(ones_fives, labels, message):
    pixels = ones_fives.test[0][:10]
    with pytest.raises(DataError, match=message):
        replace(ones_fives, test=(pixels, torch.tensor(labels)))


def test_pixels_that_are_not_finite(ones_fives):
    pixels = ones_fives.train[0].clone()
    pixels[3, 4] = math.nan
    with pytest.raises(DataError, match=r"pixels of the train part must .*, all of them finite"):
        replace(ones_fives, train=(pixels, ones_fives.train[1]))
    with pytest.raises(DataError, match=r"pixels of the train part must have shape \(count, 64\)"):
        replace(ones_fives, train=(pixels[:, :63], ones_fives.train[1]))
    for part in (None, pixels, (pixels,), (1, 2)):
        with pytest.raises(DataError, match="the train part must be a pair of tensors"):
            replace(ones_fives, train=part)


# --- OpenML


def published_like(last):
    """As OpenML gives it: floats, names, and the test images after the others."""
    names = np.array([str(c) for c in range(10)] * 6000 + last, dtype=object)
    data = np.zeros((len(names), 784), dtype=np.uint8)
    data[:, 0] = names.astype(int)
    return SimpleNamespace(data=data, target=names)


def test_openml(monkeypatch):
    found = published_like([str(c) for c in range(10)] * 1000)
    monkeypatch.setattr(images_module, "fetch_openml", lambda *_, **__: found)
    data = openml("fashion-mnist", (5, 7))
    assert [len(getattr(data, p)[1]) for p in PARTS] == [10_800, 1_200, 2_000]
    for pixels, labels in (data.train, data.validation, data.test):
        assert pixels.shape[1] == 784
        assert torch.equal((255 * pixels[:, 0]).round() == 7, labels == 1)
    with pytest.raises(DataError, match="not the 60,000 and 10,000 images that were published"):
        openml("mnist")  # whose classes are not all of one size
    found.data = found.data[:, :783]
    with pytest.raises(DataError, match="not the 60,000 and 10,000 images that were published"):
        openml("fashion-mnist")


@pytest.mark.parametrize(
    "failure",
    [URLError("no"), ImportError("pandas"), ValueError("gone"), EOFError(), IncompleteRead(b"x")],
)
def test_openml_out_of_reach(monkeypatch, failure):
    def fetch(*_, **__):
        raise failure

    monkeypatch.setattr(images_module, "fetch_openml", fetch)
    with pytest.raises(DataError, match=r"mnist_784 could not be fetched .*use digits\(\)"):
        openml("mnist")
    with pytest.raises(DataError, match=r"name must be one of .* got 'kmnist'"):
        openml("kmnist")


# --- Targets and budgets


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_targets_have_the_known_sizes():
    assert count(mlp(784, 128, 64, 2)) == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 2 + 2 == 108_866
    assert count(mlp(64, 32, 10)) == 2_410
    assert count(digits_cnn()) == 9 * 8 + 8 + 9 * 8 * 16 + 16 + 64 * 10 + 10 == 1_898
    assert digits_cnn(3)(torch.rand(5, 64)).shape == (5, 3)
    assert mlp(4, 3)(torch.rand(5, 4)).shape == (5, 3)


def test_an_mlp_is_relu_between_linear_layers():
    net, x = mlp(5, 4, 3), torch.randn(6, 5)
    w1, b1, w2, b2 = net.parameters()
    torch.testing.assert_close(net(x), (x @ w1.T + b1).clamp(min=0) @ w2.T + b2)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0), (3, 2.0), (3, True)])
def test_sizes_that_no_mlp_has(sizes):
    with pytest.raises(TargetError, match=r"at least two sizes|size \d must be"):
        mlp(*sizes)


@pytest.mark.parametrize(
    ("kind", "angles", "architecture"), [("fixed", 255, 0), ("frozen", 0, 0), ("ensemble", 255, 12)]
)
def test_the_papers_counts(kind, angles, architecture):
    budget = build(kind, mlp(784, 128, 64, 2)).count()
    assert (budget.angles, budget.architecture, budget.mapping) == (angles, architecture, 19)
    assert budget.total == {"fixed": 274, "frozen": 19, "ensemble": 286}[kind]
    assert budget.target == 108_866


def test_the_cnn_through_less_than_400_numbers():
    assert build("fixed", digits_cnn(), 35).count().total == 35 * 11 + 13 == 398


def test_options_reach_circuit_mapping_and_network():
    net = build(
        "relaxed",
        mlp(64, 2),
        2,
        hidden=3,
        circuit={"sharing": "qubit"},
        network={"feature": "scaled", "gain": 1.5},
    )
    assert net.count().architecture == 2 + 2 * 2 + 2 * 8 * 3
    assert net.count().mapping == 3 * (8 + 1) + 3 + 3 + 1
    assert net.feature == "scaled"
    circuit = build("fixed", mlp(64, 2), 2, circuit={"rotation": "rx", "hadamard": False}).circuit
    expected = FixedCircuit(
        8, 2, rotation="rx", hadamard=False, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(circuit(), expected())


# --- What is measured


class Table(nn.Module):
    """Gives outputs that are written in the pixels; worthless outside eval mode."""

    def forward(self, x):
        return -x if self.training else x


class Total(nn.Module):
    """Gives one number for all images."""

    def forward(self, x):
        return x.sum()


ZEROS = torch.zeros(6)


def test_confusion_and_accuracy():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5000, 4, generator=generator)
    labels = torch.randint(3, (5000,), generator=generator)
    table = Table()
    found = predict(table, outputs)
    assert table.training
    assert torch.equal(found, outputs.argmax(1))
    matrix = confusion(table, (outputs, labels), 4)
    by_hand = torch.zeros(4, 4, dtype=torch.int64)
    for true, taken in zip(labels, found, strict=True):
        by_hand[true, taken] += 1
    assert torch.equal(matrix, by_hand)
    assert accuracy(table, (outputs, labels)) == pytest.approx(accuracy_score(labels, found))


def test_each_module_keeps_its_mode():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.9), Table()).train()
    net[0].eval()
    x, labels = torch.randn(50, 4), torch.arange(50) % 4
    before = net[0].running_mean.clone()
    assert torch.equal(predict(net, x), predict(net, x))
    assert [module.training for module in net.modules()] == [True, False, True, True]
    assert torch.equal(net[0].running_mean, before)
    with pytest.raises(TargetError, match=r"does not take inputs of shape \(50, 3\)"):
        accuracy(net, (x[:, :3], labels))
    assert [module.training for module in net.modules()] == [True, False, True, True]


@pytest.mark.parametrize(
    ("error", "message", "net", "data"),
    [
        (DataError, "at least 1, got .*0, 4.*0,", Table(), (torch.zeros(0, 4), torch.zeros(0))),
        (DataError, "got .*6, 4.*6, 1", Table(), (torch.zeros(6, 4), torch.zeros(6, 1))),
        (DataError, "must be a pair of tensors", Table(), None),
        (TargetError, "gives NaN", Table(), (torch.full((2, 4), math.nan), torch.zeros(2))),
        (TargetError, r"shape \(6, 2, 2\) for", Table(), (torch.zeros(6, 2, 2), torch.zeros(6))),
        (TargetError, r"shape \(6,\) for .*any number", nn.Flatten(0), (torch.zeros(6, 1), ZEROS)),
        (TargetError, r"shape \(\) for", Total(), (torch.zeros(6, 1), ZEROS)),
        (
            TargetError,
            "net must be of type Module, got str",
            "net",
            (torch.zeros(6, 2), torch.zeros(6)),
        ),
    ],
)
def test_accuracy_that_there_is_not(error, message, net, data):
    with pytest.raises(error, match=message):
        accuracy(net, data)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (TargetError, lambda data: build("fixed", None)),
        (SearchError, lambda data: build("fixed", small(), circuit="ry")),
        (SearchError, lambda data: build(["fixed"], small())),
        (DataError, lambda data: classify(None, small)),
        (TargetError, lambda data: classify(data, None)),
        (DataError, lambda data: predict(small(), [0.0])),
        (DataError, lambda data: confusion(small(), None, 2)),
        (DataError, lambda data: confusion(small(), data.test, 0)),
        (TargetError, lambda data: first_layer_images("net")),
        (TargetError, lambda data: digits_cnn(0)),
        (DataError, lambda data: replace(data, classes=None)),
        (DataError, lambda data: replace(data, side="8")),
    ],
)
def test_arguments_of_another_type(ones_fives, error, call):
    with pytest.raises(error, match=r"must be (of type|a whole number|at least 1|a pair)"):
        call(ones_fives)


def test_the_first_layer_as_images():
    net = build("fixed", mlp(64, 3, 2), 2)
    pictures = first_layer_images(net)
    assert not pictures.requires_grad
    x = torch.randn(5, 64)
    layer = net.export()[0]
    by_picture = (x.view(5, 1, 8, 8) * pictures).sum((2, 3)) + layer.bias
    torch.testing.assert_close(by_picture, layer(x))
    plain = mlp(9, 2)
    assert torch.equal(first_layer_images(plain)[1, 2, 0], plain[0].weight[1, 6])
    cnn = digits_cnn()
    assert torch.equal(first_layer_images(cnn), cnn[1].weight[:, 0])
    pictures = first_layer_images(plain)
    pictures.zero_()
    assert plain[0].weight.any()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.BatchNorm1d(4), "BatchNorm1d has no layer whose units see square grey images"),
        (nn.Linear(8, 2), "several axes has shape .2, 8."),
        (nn.Conv2d(4, 2, 3), "shape .2, 4, 3, 3."),
        (nn.Conv2d(1, 2, (2, 8)), "shape .2, 1, 2, 8."),
    ],
)
def test_first_layers_that_are_no_images(net, message):
    with pytest.raises(TargetError, match=message):
        first_layer_images(net)


# --- Training


def small():
    return mlp(64, 2)


def tiny(data, kind="fixed", make=small, n_layers=2, **options):
    return classify(data, make, kind, n_layers, **{"steps": 12, **options})


KINDS = ["fixed", "frozen", "ensemble", "relaxed", "plain"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_says_what_was_trained(ones_fives, kind):
    before = torch.get_rng_state()
    outcome = tiny(ones_fives, kind, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    row, net = outcome.row, outcome.run.net
    parts = {
        "fixed": (16, 0, 10),
        "frozen": (0, 0, 10),
        "ensemble": (16, 12, 10),
        "relaxed": (16, 7, 10),
        "plain": (0, 0, 0),
    }[kind]
    assert (row["angles"], row["architecture"], row["mapping"]) == parts
    assert row["trainables"] == (sum(parts) or 130)
    assert row["weights"] == 130
    assert (row["n_qubits"], row["n_layers"]) == ((0, 0) if kind == "plain" else (8, 2))
    assert (row["kind"], row["seed"], row["steps"], row["ended"]) == (kind, 4, 12, "finished")
    if kind in ("ensemble", "relaxed"):
        chosen = outcome.run.net.discretize()
        assert chosen.circuit.architecture() == outcome.run.architecture
        right = chosen(ones_fives.test[0]).argmax(1) == ones_fives.test[1]
        assert row["discrete_accuracy"] == right.double().mean().item()
    else:
        assert row["discrete_accuracy"] is None
    assert row["method"] == ("joint" if kind in ("ensemble", "relaxed") else "fit")
    for part in ("validation", "test"):
        pixels, labels = getattr(ones_fives, part)
        with torch.no_grad():
            expected = accuracy_score(labels, net(pixels).argmax(1))
        assert row[f"{part}_accuracy"] == pytest.approx(expected)
    assert all(isinstance(value, str | int | float | None) for value in row.values())
    again = tiny(ones_fives, kind, seed=4).row
    del row["seconds"], again["seconds"]
    assert again == row


def trained(outcome):
    return {k: v.detach() for k, v in outcome.run.net.named_parameters()}


def test_what_was_found_can_be_trained(ones_fives):
    found = tiny(ones_fives, "relaxed").run.architecture
    row = tiny(ones_fives, found).row
    assert (row["kind"], row["method"], row["architecture"]) == ("candidate", "fit", 0)
    assert row["angles"] == 2 * 8


def start(kind, seed=0):
    torch.manual_seed(seed)
    return dict(build(kind, small(), 2, seed=seed).named_parameters())


def test_frozen_angles_stay_and_the_mapping_moves(ones_fives):
    first, last = start("frozen"), trained(tiny(ones_fives, "frozen"))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert {name.split(".")[0] for name in moved} == {"mapping"}
    assert len(moved) == 3


@pytest.mark.parametrize("kind", ["ensemble", "relaxed"])
@pytest.mark.parametrize("method", ["joint", "first-order"])
def test_only_bilevel_methods_see_the_validation_part(ones_fives, kind, method):
    first, one = start(kind), tiny(ones_fives, kind, method=method)
    pixels, labels = ones_fives.validation
    other = tiny(replace(ones_fives, validation=(1 - pixels, 1 - labels)), kind, method=method)
    logits = [name for name in first if ".alpha." in name]
    assert not any(torch.equal(first[name], trained(one)[name]) for name in logits)
    same = all(torch.equal(trained(one)[name], trained(other)[name]) for name in logits)
    assert same == (method == "joint")
    assert one.row["method"] == method


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_sees_the_test_part(ones_fives, kind):
    pixels, labels = ones_fives.test
    other = replace(ones_fives, test=(1 - pixels, 1 - labels))
    method = {"method": "first-order"} if kind == "relaxed" else {}
    one, two = trained(tiny(ones_fives, kind, **method)), trained(tiny(other, kind, **method))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_seeds_differ_in_target_circuit_and_batches(ones_fives):
    one, two = (tiny(ones_fives, seed=seed, steps=1).run for seed in (0, 1))
    assert not torch.equal(one.net.scale, two.net.scale)  # of the target's own initial values
    assert not torch.equal(one.net.circuit.theta, two.net.circuit.theta)
    assert one.history[0]["loss"] != two.history[0]["loss"]


def test_ones_and_fives_are_learned(ones_fives):
    outcome = classify(ones_fives, small, "fixed", 4, steps=150)
    assert outcome.row["test_accuracy"] > 0.9
    assert classify(ones_fives, small, "plain", steps=150).row["test_accuracy"] > 0.95
    matrix = confusion(outcome.run.net, ones_fives.test, 2)
    assert matrix.trace() / matrix.sum() == pytest.approx(outcome.row["test_accuracy"])


def test_the_cnn_learns_through_a_circuit():
    data = digits((0, 1, 2))
    outcome = classify(data, lambda: digits_cnn(3), "fixed", 3, steps=40)
    assert isinstance(outcome.run.net, GeneratedNetwork)
    assert outcome.row["test_accuracy"] > 0.6


def test_a_plain_network_has_a_lower_learning_rate(ones_fives):
    rates = {
        kind: max(r["learning_rate"] for r in tiny(ones_fives, kind, steps=60).run.history)
        for kind in ("plain", "fixed")
    }
    assert rates["plain"] == pytest.approx(0.01, rel=0.02)
    assert rates["fixed"] == pytest.approx(0.03, rel=0.02)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (
            lambda: mlp(64, 10),
            {},
            TargetError,
            r"shape \(1, 10\) for inputs of shape \(1, 64\), and must give \(1, 2\)",
        ),
        (lambda: mlp(784, 2), {}, TargetError, "does not take inputs of shape .1, 64."),
        (lambda: "net", {}, TargetError, "target must be of type Module, got str"),
        (small, {"seed": "x"}, SearchError, "seed must be a whole number"),
        (nn.Identity, {}, TargetError, r"shape \(1, 64\)"),
        (small, {"kind": "best"}, SearchError, "kind must be one of .'fixed', "),
        (small, {"kind": "relaxed", "method": "best"}, SearchError, "method must be one of"),
        (small, {"n_layers": 0}, CircuitError, "n_layers must be at least 1, got 0"),
        (small, {"circuit": {"rotation": "rq"}}, CircuitError, "rq"),
        (small, {"hidden": -1}, TargetError, "hidden must be at least 0, got -1"),
        (small, {"steps": 0}, SearchError, "steps must be"),
        (small, {"learning_rate": -1}, SearchError, "learning_rate"),
    ],
)
def test_what_cannot_be_trained(ones_fives, make, options, error, message):
    with pytest.raises(error, match=message):
        tiny(ones_fives, make=make, **options)


def test_a_target_without_weights(ones_fives):
    frozen = small().requires_grad_(False)
    with pytest.raises(TargetError, match="no trainable parameters"):
        tiny(ones_fives, make=lambda: copy.deepcopy(frozen))
    with pytest.raises(SearchError, match="nothing to train"):
        tiny(ones_fives, "plain", make=lambda: copy.deepcopy(frozen))


def test_images_by_hand():
    part = torch.rand(6, 4), torch.tensor([0, 1, 2] * 2)
    data = Images(part, part, part, (3, 6, 9), 2)
    assert tiny(data, "plain", make=lambda: mlp(4, 3)).row["weights"] == 15
