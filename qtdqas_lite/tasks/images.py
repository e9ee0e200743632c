"""Images to classify, in three parts: scikit-learn's digits, and the MNIST family (chapter 08)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import fetch_openml, load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from ..architect import Data
from ..errors import DataError, check_type, check_whole
from .image_files import read_files

# OpenML's name, and how often each class stands among the 10,000 published test images.
_MNIST_TEST = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
_OPENML = {"mnist": ("mnist_784", _MNIST_TEST), "fashion-mnist": ("Fashion-MNIST", (1000,) * 10)}


@dataclass(frozen=True)
class Images:
    """Images and their labels, in three parts.

    Each part is a pair: pixels, floating point, shape (count, side * side), row by row, 0 is
    background and 1 is full ink; and labels, int64, shape (count,), from 0 to len(classes) - 1.

    Attributes:
        train: What is trained on.
        validation: What settings are chosen by.
        test: What is reported, and nothing is chosen by.
        classes: What each label stands for: label 1 of classes (1, 5) is a five.
        side: The height and the width of an image in pixels.
    """

    train: Data
    validation: Data
    test: Data
    classes: tuple[int, ...]
    side: int

    def __post_init__(self) -> None:
        """Raise :class:`.DataError` if a part is not as described, or lacks a class."""
        check_type(DataError, tuple, classes=self.classes)
        check_whole(DataError, 1, side=self.side)
        for name in ("train", "validation", "test"):
            pixels, labels = check_pair(getattr(self, name), f"the {name} part")
            if pixels.shape[1:] != (self.side**2,) or not pixels.isfinite().all():
                want = f"shape (count, {self.side**2}), all of them finite"
                raise DataError(f"pixels of the {name} part must have {want}")
            found = set(labels.tolist())
            if found != {*range(len(self.classes))}:
                raise DataError(
                    f"labels of the {name} part must be 0 to {len(self.classes) - 1}, each of them "
                    f"at least once, for the classes {self.classes}; there are {sorted(found)[:20]}"
                )


def check_pair(data: Data, what: str) -> Data:
    """Return inputs and labels, or raise :class:`.DataError` unless there is one label for each."""
    pair = isinstance(data, tuple | list) and all(isinstance(x, Tensor) and x.dim() for x in data)
    if not pair or len(data) != 2 or data[1].shape != data[0].shape[:1] or not len(data[0]):
        found = [tuple(x.shape) for x in data] if pair else type(data).__name__
        want = "of shape (count, ...) and (count,) with a count of at least 1"
        raise DataError(f"{what} must be a pair of tensors, {want}, got {found}")
    return data


def digits(
    classes: Iterable[int] = range(10),
    *,
    side: int = 8,
    validation: float = 0.2,
    test: float = 0.25,
    seed: int = 0,
) -> Images:
    """Give scikit-learn's 1,797 handwritten digits; nothing is downloaded.

    Args:
        classes: Which digits, at least two; labels are numbered in this order.
        side: Height and width in pixels, 1 to 256. Other than 8, images are resized bilinearly.
        validation: The part of all images that is for validation, between 0 and 1.
        test: The part of all images that is for the test.
        seed: Decides which image is in which part. Each class has the same share in each part.

    Raises:
        DataError: if there is no such class, or the parts leave a class without images.
    """
    everything, names = load_digits(), _checked(classes)
    pixels, labels = _choose(everything.data, everything.target, names, 16)
    if check_whole(DataError, 1, 256, side=side) != 8:
        squares = pixels.view(-1, 1, 8, 8)
        pixels = nn.functional.interpolate(squares, size=(side, side), mode="bilinear").flatten(1)
    rest, tested = _split((pixels, labels), test, len(labels), seed)
    trained, validated = _split(rest, validation, len(labels), seed)
    return Images(trained, validated, tested, names, side)


def mnist_files(
    source: str | PathLike[str],
    classes: Iterable[int] = range(10),
    *,
    validation: float = 0.1,
    seed: int = 0,
) -> Images:
    """Read MNIST, FashionMNIST or their like from files in one of the published formats.

    Args:
        source: A folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each compressed with gzip or
            not; or an npz file with the arrays x_train, y_train, x_test and y_test.
        classes: As for :func:`digits`.
        validation: The part of the training images that is for validation, between 0 and 1. The
            test images are the published ones.
        seed: Decides which image is for validation.

    Raises:
        FileNotFoundError: if a file is missing; nothing is downloaded.
        DataError: if a file is damaged or of another format, or as :func:`digits`.
    """
    if not isinstance(source, str | PathLike):
        raise DataError(f"source must be the path of a folder or of an npz file, got {source!r}")
    return _published(read_files(Path(source)), classes, validation, seed)


def openml(
    name: Literal["mnist", "fashion-mnist"],
    classes: Iterable[int] = range(10),
    *,
    validation: float = 0.1,
    seed: int = 0,
    data_home: str | PathLike[str] | None = None,
) -> Images:
    """Download MNIST or FashionMNIST from OpenML with scikit-learn, which keeps a copy.

    Args:
        name: ``"mnist"`` or ``"fashion-mnist"``.
        classes: As for :func:`mnist_files`, like ``validation`` and ``seed``.
        validation: The part of the training images that is for validation.
        seed: Decides which image is for validation.
        data_home: The folder of the copy; scikit-learn's own by default.

    Raises:
        DataError: if OpenML cannot be reached, or as :func:`digits`.
    """
    if name not in list(_OPENML):
        raise DataError(f"name must be one of {list(_OPENML)}, got {name!r}")
    full_name, counts = _OPENML[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the second attempt, before the error itself
            found = fetch_openml(
                full_name, version=1, as_frame=False, n_retries=1, delay=1.0, data_home=data_home
            )
    except Exception as error:  # what can happen to a download has no common type
        raise DataError(
            f"OpenML's {full_name} could not be fetched ({error}); without a network use digits(), "
            f"or mnist_files() with files that you have"
        ) from error
    labels = found.target.astype(np.int64)
    # OpenML appends the test images to the others. Only if they stand there are they a test.
    tested = tuple(np.bincount(labels[60_000:], minlength=10).tolist())
    if found.data.shape != (70_000, 784) or tested != counts:
        raise DataError(
            f"OpenML's {full_name} is not the 60,000 and 10,000 images that were published, in "
            f"their order; use mnist_files()"
        )
    squares = found.data.astype(np.uint8).reshape(-1, 28, 28)
    arrays = squares[:60_000], labels[:60_000], squares[60_000:], labels[60_000:]
    return _published(arrays, classes, validation, seed)


def _published(
    arrays: Sequence[np.ndarray], classes: Iterable[int], validation: float, seed: int
) -> Images:
    names, side = _checked(classes), arrays[0].shape[-1]
    known = _choose(arrays[0], arrays[1], names, 255)
    tested = _choose(arrays[2], arrays[3], names, 255)
    trained, validated = _split(known, validation, len(known[1]), seed)
    return Images(trained, validated, tested, names, side)


def _checked(classes: Iterable[int]) -> tuple[int, ...]:
    if not isinstance(classes, Iterable):
        raise DataError(f"classes must be whole numbers, such as (1, 5), got {classes!r}")
    names = tuple(check_whole(DataError, 0, **{"each class": name}) for name in classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"classes must name at least two classes, each once, got {names}")
    return names


def _choose(pixels: np.ndarray, labels: np.ndarray, classes: tuple[int, ...], top: int) -> Data:
    """Keep some classes, number them, and bring pixels from 0..top to 0..1, in float32."""
    there = np.unique(labels)
    if missing := [c for c in classes if c not in there]:
        raise DataError(f"there is no image of class {missing[0]}; there are {there.tolist()}")
    kept = np.isin(labels, classes)
    numbers = (labels[kept, None] == np.array(classes)).argmax(1)
    chosen = pixels[kept].reshape(len(numbers), -1).astype(np.float32) / np.float32(top)
    return torch.from_numpy(chosen), torch.from_numpy(numbers)


def _split(data: Data, part: float, of: int, seed: int) -> tuple[Data, Data]:
    """Take out a part of a count, with the same share of each class; give the rest and it."""
    check_whole(DataError, 0, 2**32 - 1, seed=seed)
    if not isinstance(part, int | float) or not 0 < part < 1:
        raise DataError(f"a part of the images must be between 0 and 1, got {part!r}")
    size = math.ceil(part * of)
    pixels, labels = (tensor.numpy() for tensor in data)
    try:
        parts = train_test_split(pixels, labels, test_size=size, random_state=seed, stratify=labels)
    except ValueError as error:
        raise DataError(
            f"{len(labels)} images cannot be parted so that {size} are taken out: {error}"
        ) from error
    a, b, c, d = (torch.from_numpy(part) for part in parts)
    return (a, c), (b, d)
