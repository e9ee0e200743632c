"""Classifying images with weights that a circuit writes (chapter 08)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from ..architect import Data, Method
from ..circuits import Candidate
from ..errors import DataError, TargetError, check_type, check_whole
from ..generator import GeneratedNetwork
from .configurations import Kind, Trained, build, make_seeded, outputs, train
from .images import Images, check_pair


def mlp(*sizes: int) -> nn.Sequential:
    """Build linear layers with ReLUs between them.

    ``mlp(784, 128, 64, 2)`` is the image network of arXiv 2505.09653 (108,866 weights, 17 qubits),
    and ``mlp(64, 32, 10)`` the digits' own (2,410 weights, 12 qubits).

    Args:
        sizes: The number of inputs, of units of each hidden layer, and of classes.

    Raises:
        TargetError: if there are fewer than two sizes, or one is not a whole number above 0.
    """
    if len(sizes) < 2:
        raise TargetError(f"a network needs at least two sizes, got {sizes}")
    check_whole(TargetError, 1, 10**6, **{f"size {i}": size for i, size in enumerate(sizes)})
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digits_cnn(n_classes: int = 10) -> nn.Sequential:
    """Build a small convolutional network for 8x8 images: 1,898 weights for ten classes.

    Two convolutions of 3x3, with 8 and 16 channels, each followed by a ReLU and by pooling over
    2x2, and a linear layer. It fits on 11 qubits, so that a circuit of 35 layers and an affine
    mapping train 398 numbers.
    """
    check_whole(TargetError, 1, 10**6, n_classes=n_classes)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, n_classes)),
    )


def predict(net: nn.Module, pixels: Tensor) -> Tensor:
    """Give the label with the largest output, in eval mode: int64, shape (count,).

    Args:
        net: Maps pixels, shape (count, number of pixels), to (count, number of classes).
        pixels: The images.

    Raises:
        TargetError: if the network does not take the images, or gives another shape or NaN.
    """
    check_type(DataError, Tensor, pixels=pixels)
    return torch.cat([outputs(net, part).argmax(1) for part in torch.split(pixels, 4096)])


def accuracy(net: nn.Module, data: Data) -> float:
    """Give the share of images, from 0 to 1, that are classified correctly.

    Raises:
        DataError: if there are no images, or not as many labels of shape (count,).
        TargetError: as :func:`predict`.
    """
    pixels, labels = check_pair(data, "data")
    return (predict(net, pixels) == labels).double().mean().item()


def confusion(net: nn.Module, data: Data, n_classes: int) -> Tensor:
    """Count what is taken for what.

    Returns:
        Shape (n_classes, n_classes), int64: in row i and column j, how many images of label i
        are taken for j. A class without images is a row of zeros.
    """
    pixels, labels = check_pair(data, "data")
    classes = range(check_whole(DataError, 1, 10_000, n_classes=n_classes))
    found = predict(net, pixels).cpu()
    return torch.from_numpy(confusion_matrix(labels.cpu(), found, labels=classes))


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
    check_type(TargetError, nn.Module, net=net)
    plain = net.export() if isinstance(net, GeneratedNetwork) else net
    first = next((tensor for tensor in plain.parameters() if tensor.dim() > 1), torch.zeros(0, 0))
    side = math.isqrt(first[:1].numel())
    if not side or first[0].shape not in [(side**2,), (1, side, side)]:
        raise TargetError(
            f"{type(net).__name__} has no layer whose units see square grey images: the first "
            f"tensor with several axes has shape {tuple(first.shape)}"
        )
    return first.detach().reshape(-1, side, side).clone()


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
) -> Trained:
    """Train one network and measure it. The same seed gives the same row, seconds apart.

    Args:
        images: The data. Networks are trained on ``images.train`` alone, except that all methods
            but ``"joint"`` move the logits of a relaxed circuit by ``images.validation``: its
            accuracy there then flatters it.
        make_target: Builds the target, such as ``lambda: mlp(64, 32, 10)``.
        kind: What writes the weights, as for :func:`~qtdqas_lite.tasks.configurations.build`.
        n_layers: The number of layers of a circuit, at least 1.
        method: How the logits of an ensemble or a relaxed circuit are moved, as for
            :func:`~qtdqas_lite.search`. The paper's is ``"joint"``.
        hidden: How many hidden units the mapping has; 0 for an affine one.
        circuit: More arguments of the circuit's class.
        network: More arguments of :class:`~qtdqas_lite.GeneratedNetwork`.
        seed: Everything random follows from it; which image is in which part does not.
        training: As for :func:`~qtdqas_lite.fit` and :func:`~qtdqas_lite.search`, such as
            ``steps``. The learning rate is 0.03 by default, and 0.01 for a plain network.

    Returns:
        The training; its row has ``validation_accuracy``, ``test_accuracy`` (0 to 1) and
        ``discrete_accuracy``, on the test part.

    Raises:
        TargetError: if the target does not map these images to an output for each class.
        QuantumTrainError: as :func:`~qtdqas_lite.tasks.configurations.build`,
            :func:`~qtdqas_lite.fit` and :func:`~qtdqas_lite.search`.
    """
    check_type(DataError, Images, images=images)
    target = make_seeded(make_target, seed)
    # A wrong size would otherwise fail in the middle of a training, or go unseen.
    outputs(target, images.train[0][:1].cpu(), len(images.classes))
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
    return Trained(row, run, images)
