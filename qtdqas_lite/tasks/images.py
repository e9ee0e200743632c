"""Images to classify, in three parts: scikit-learn's digits, and the MNIST family (chapter 07)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import fetch_openml, load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from ..architect import Data
from ..errors import DataError
from .image_files import Arrays, read_published

# How often each class stands among the 10,000 published test images.
_MNIST_TEST = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
_OPENML = {"mnist": ("mnist_784", _MNIST_TEST), "fashion-mnist": ("Fashion-MNIST", (1000,) * 10)}


@dataclass(frozen=True)
class Images:
    """Images and their labels: to train on, to choose by, and to report on.

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
        """Check the three parts.

        Raises:
            DataError: if a part is not as described, or a class is missing from it.
        """
        for name in ("train", "validation", "test"):
            pixels, labels = getattr(self, name)
            if pixels.shape != (len(labels), self.side**2) or labels.dim() != 1:
                raise DataError(
                    f"the {name} part has pixels of shape {tuple(pixels.shape)} and labels of "
                    f"shape {tuple(labels.shape)}, and must have (count, {self.side**2}) and "
                    f"(count,)"
                )
            if not pixels.isfinite().all():
                raise DataError(f"the {name} part has pixels that are not finite")
            found = set(labels.tolist())
            if unknown := found - {*range(len(self.classes))}:
                raise DataError(
                    f"the {name} part has the labels {sorted(unknown)}, and {len(self.classes)} "
                    f"classes have labels from 0 to {len(self.classes) - 1}"
                )
            missing = [c for label, c in enumerate(self.classes) if label not in found]
            if missing:
                raise DataError(
                    f"no image of class {missing[0]} is in the {name} part of {len(labels)}: give "
                    f"it a larger part, or leave this class out"
                )


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
        side: Height and width in pixels, at least 1. Other than 8, images are resized bilinearly.
        validation: The part of all images that is for validation, between 0 and 1.
        test: The part of all images that is for the test, between 0 and 1.
        seed: Decides which image is in which part. Each class has the same share in each part.

    Raises:
        DataError: if there is no such class, or the parts leave a class without images.
    """
    everything = load_digits()
    pixels, labels = _choose(everything.data, everything.target, _checked(classes), 16)
    if type(side) is not int or side < 1:
        raise DataError(f"side must be a whole number of at least 1, got {side!r}")
    if side != 8:
        squares = pixels.view(-1, 1, 8, 8)
        pixels = nn.functional.interpolate(squares, size=(side, side), mode="bilinear").flatten(1)
    n_test, n_validation = _count(test, len(labels)), _count(validation, len(labels))
    rest, tested = _split((pixels, labels), n_test, seed)
    trained, validated = _split(rest, n_validation, seed)
    return Images(trained, validated, tested, _checked(classes), side)


def mnist_files(
    source: str | PathLike[str],
    classes: Iterable[int] = range(10),
    *,
    validation: float = 0.1,
    seed: int = 0,
) -> Images:
    """Read MNIST, FashionMNIST or their like from files in one of the published formats.

    Args:
        source: A folder with the four IDX files, compressed or not, or an npz file.
        classes: Which classes, at least two; labels are numbered in this order.
        validation: The part of the training images that is for validation, between 0 and 1. The
            test images are the published ones.
        seed: Decides which image is for validation.

    Raises:
        FileNotFoundError: if a file is missing; nothing is downloaded.
        DataError: if a file is damaged or of another format, there is no such class, or the
            parts leave a class without images.
    """
    return _published(read_published(source), classes, validation, seed)


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
        classes: As for :func:`mnist_files`.
        validation: As for :func:`mnist_files`.
        seed: As for :func:`mnist_files`.
        data_home: The folder of the copy; scikit-learn's own by default.

    Raises:
        DataError: if OpenML cannot be reached, or as :func:`mnist_files`.
    """
    if name not in _OPENML:
        raise DataError(f"name must be one of {list(_OPENML)}, got {name!r}")
    full_name, counts = _OPENML[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the second attempt, before the error itself
            found = fetch_openml(
                full_name, version=1, as_frame=False, n_retries=1, delay=1.0, data_home=data_home
            )
    except (ImportError, OSError, ValueError) as error:
        raise DataError(
            f"OpenML's {full_name} could not be fetched ({error}); without a network use digits(), "
            f"which needs none, or mnist_files() with files that you have"
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


def _published(arrays: Arrays, classes: Iterable[int], validation: float, seed: int) -> Images:
    names, side = _checked(classes), arrays[0].shape[-1]
    known = _choose(arrays[0], arrays[1], names, 255)
    tested = _choose(arrays[2], arrays[3], names, 255)
    trained, validated = _split(known, _count(validation, len(known[1])), seed)
    return Images(trained, validated, tested, names, side)


def _checked(classes: Iterable[int]) -> tuple[int, ...]:
    names = tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"classes must name at least two classes, each once, got {names}")
    return names


def _choose(pixels: np.ndarray, labels: np.ndarray, classes: tuple[int, ...], top: int) -> Data:
    """Keep some classes, number them, and bring pixels from 0..top to 0..1, in float32."""
    there = np.unique(labels)
    if missing := [c for c in classes if c not in there]:
        raise DataError(f"there is no image of class {missing[0]}; there are {there.tolist()}")
    kept = np.isin(labels, classes)
    numbers = np.zeros(int(kept.sum()), dtype=np.int64)
    for number, name in enumerate(classes):
        numbers[labels[kept] == name] = number
    chosen = pixels[kept].reshape(len(numbers), -1).astype(np.float32) / np.float32(top)
    return torch.from_numpy(chosen), torch.from_numpy(numbers)


def _count(part: float, count: int) -> int:
    if not isinstance(part, int | float) or not 0 < part < 1:
        raise DataError(f"a part of the images must be between 0 and 1, got {part!r}")
    return math.ceil(part * count)


def _split(data: Data, size: int, seed: int) -> tuple[Data, Data]:
    """Take out ``size`` examples, with the same share of each class; give the rest and those."""
    try:
        rest, taken = train_test_split(
            np.arange(len(data[1])), test_size=size, random_state=seed, stratify=data[1]
        )
    except ValueError as error:
        raise DataError(
            f"{len(data[1])} images cannot be parted so that {size} are taken out and every class "
            f"stands on both sides: {error}"
        ) from error

    def rows(chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(chosen)
        return data[0][index], data[1][index]

    return rows(rest), rows(taken)
