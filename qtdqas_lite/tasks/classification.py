"""Classifying images with weights that a circuit writes (chapter 07)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from ..architect import Data, Method
from ..circuits import Candidate
from ..errors import TargetError
from ..generator import GeneratedNetwork
from ..training import Run
from .configurations import Kind, build, train
from .images import Images


def mlp(*sizes: int) -> nn.Sequential:
    """Build linear layers with ReLUs between them.

    ``mlp(784, 128, 64, 2)`` is the image network of arXiv 2505.09653 (108,866 weights, 17 qubits),
    and ``mlp(64, 32, 10)`` the digits' own (2,410 weights, 12 qubits).

    Args:
        sizes: The number of inputs, of units of each hidden layer, and of classes.

    Raises:
        TargetError: if there are fewer than two sizes, or one is not a whole number above 0.
    """
    if len(sizes) < 2 or any(type(size) is not int or size < 1 for size in sizes):
        raise TargetError(f"sizes must be at least two whole numbers above 0, got {sizes}")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digits_cnn(n_classes: int = 10) -> nn.Sequential:
    """Build a small convolutional network for 8x8 images: 1,898 weights for ten classes.

    Two convolutions of 3x3, with 8 and 16 channels, each followed by a ReLU and by pooling over
    2x2, and a linear layer. It fits on 11 qubits, so that a circuit of 35 layers and an affine
    mapping train 398 numbers.

    Args:
        n_classes: The number of classes.
    """
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, n_classes)),
    )


@torch.no_grad()
def predict(net: nn.Module, pixels: Tensor) -> Tensor:
    """Give the label with the largest output, in eval mode.

    Args:
        net: Gives outputs of shape (count, number of classes).
        pixels: Shape (count, number of pixels).

    Returns:
        Labels, int64, shape (count,).
    """
    training = net.training
    net.eval()
    try:
        return torch.cat([net(part).argmax(1) for part in torch.split(pixels, 4096)])
    finally:
        net.train(training)


def accuracy(net: nn.Module, data: Data) -> float:
    """Give the share of images, from 0 to 1, that are classified correctly."""
    return (predict(net, data[0]) == data[1]).double().mean().item()


def confusion(net: nn.Module, data: Data, n_classes: int) -> Tensor:
    """Count what is taken for what.

    Returns:
        Shape (n_classes, n_classes), int64: in row i and column j, how many images of label i
        are taken for j. A class without images is a row of zeros.
    """
    found = predict(net, data[0]).cpu()
    return torch.from_numpy(confusion_matrix(data[1].cpu(), found, labels=range(n_classes)))


def first_layer_images(net: nn.Module) -> Tensor:
    """Give the weights of the first layer as one small image for each of its units.

    Args:
        net: A :class:`~qtdqas_lite.GeneratedNetwork` or a plain network, for grey images. Its
            first layer is the first tensor that has more than one axis.

    Returns:
        Shape (units, side, side); with a convolution, side is that of its kernel.

    Raises:
        TargetError: if there is no such layer, or its units do not see square grey images.
    """
    with torch.no_grad():
        tensors = (
            net.weights() if isinstance(net, GeneratedNetwork) else dict(net.named_parameters())
        )
    first = next((tensor.detach() for tensor in tensors.values() if tensor.dim() > 1), None)
    if first is None:
        raise TargetError(
            f"{type(net).__name__} has no layer whose weights could be seen as images"
        )
    side = math.isqrt(first[0].numel())
    if side**2 != first[0].numel() or (first.dim() == 4 and first.shape[1:] != (1, side, side)):
        raise TargetError(
            f"the first layer's weights have shape {tuple(first.shape)}, and a unit of it does not "
            f"see a square grey image"
        )
    return first.reshape(-1, side, side).clone()


@dataclass(frozen=True)
class Outcome:
    """A trained network and what there is to say about it.

    Attributes:
        run: The network, its history and how the training ended.
        row: One row of a table, plain values: the settings, ``validation_accuracy`` and
            ``test_accuracy`` (0 to 1), ``discrete_accuracy``, on the test part once the gates of an
            ensemble or a relaxed circuit are chosen, with no further training (None for others),
            the numbers that are trained (``trainables``, of these ``angles``, ``architecture`` and
            ``mapping``), ``weights`` of the target, and ``seconds`` of training.
    """

    run: Run = field(repr=False)
    row: dict[str, Any]


def classify(
    images: Images,
    make_target: Callable[[], nn.Module],
    kind: Kind | Candidate = "fixed",
    n_layers: int = 15,
    *,
    method: Method = "joint",
    hidden: int = 0,
    circuit: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    seed: int = 0,
    **training: Any,
) -> Outcome:
    """Train one network and measure it. The same seed gives the same row, seconds apart.

    Args:
        images: The data. Networks are trained on ``images.train`` alone, except that all methods
            but ``"joint"`` move the logits of a relaxed circuit by ``images.validation``: its
            accuracy there then flatters it.
        make_target: Builds the target, such as ``lambda: mlp(64, 32, 10)``.
        kind: As for :func:`~qtdqas_lite.tasks.configurations.build`.
        n_layers: As for :func:`~qtdqas_lite.tasks.configurations.build`.
        method: How the logits of an ensemble or a relaxed circuit are moved, as for
            :func:`~qtdqas_lite.search`. The paper's is ``"joint"``.
        hidden: As for :func:`~qtdqas_lite.tasks.configurations.build`.
        circuit: As for :func:`~qtdqas_lite.tasks.configurations.build`.
        network: As for :func:`~qtdqas_lite.tasks.configurations.build`.
        seed: Everything random follows from it; which image is in which part does not.
        training: As for :func:`~qtdqas_lite.fit` and :func:`~qtdqas_lite.search`, such as
            ``steps``. The learning rate is 0.03 by default, and 0.01 for a plain network.

    Raises:
        TargetError: if the target does not take these images or gives another number of outputs
            than there are classes, or as :func:`~qtdqas_lite.tasks.configurations.build`.
        SearchError: as :func:`~qtdqas_lite.tasks.configurations.build`, :func:`~qtdqas_lite.fit`
            and :func:`~qtdqas_lite.search`.
        CircuitError: as :func:`~qtdqas_lite.tasks.configurations.build`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        target = make_target()
        _check_outputs(target, images)
    net = build(kind, target, n_layers, hidden=hidden, circuit=circuit, network=network, seed=seed)
    net.to(images.train[0].device)
    training = {"learning_rate": 1e-2 if kind == "plain" else 3e-2, **training}
    run, columns = train(net, images.train, images.validation, method=method, seed=seed, **training)
    row = {
        "kind": "candidate" if isinstance(kind, Candidate) else kind,
        **columns,
        "hidden": 0 if kind == "plain" else hidden,
        "validation_accuracy": accuracy(net, images.validation),
        "test_accuracy": accuracy(net, images.test),
        "discrete_accuracy": None,
    }
    if columns["architecture"] and isinstance(net, GeneratedNetwork):
        row["discrete_accuracy"] = accuracy(net.discretize(), images.test)
    return Outcome(run, row)


def _check_outputs(target: nn.Module, images: Images) -> None:
    """Try one image: later, a wrong size would fail in the middle of a training, or go unseen."""
    image, n_classes = images.train[0][:1].cpu(), len(images.classes)
    if not isinstance(target, nn.Module):
        raise TargetError(f"make_target must build an nn.Module, and gives {target!r}")
    try:
        shape = tuple(target.eval()(image).shape)
    except RuntimeError as error:
        message = f"the target does not take images of {images.side**2} pixels: {error}"
        raise TargetError(message) from error
    finally:
        target.train()
    if shape != (1, n_classes):
        raise TargetError(
            f"the target gives outputs of shape {shape} for one image, and {n_classes} classes "
            f"need (1, {n_classes})"
        )
