"""The formats that MNIST and FashionMNIST are published in: IDX, compressed or not, and npz."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Array = NDArray[Any]
Arrays = tuple[Array, Array, Array, Array]
# Images to train on and their labels, images to test on and their labels.
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
KEYS = ("x_train", "y_train", "x_test", "y_test")
# A file can claim any size. The largest of this family, EMNIST, has about 0.55 GB.
_MOST_BYTES = 2**30
_AGAIN = "download it again, or restore it from a copy"


def read_idx(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, compressed with gzip or not.

    The format: two zero bytes, a type (8: unsigned bytes), the number of axes, their sizes as
    big-endian 32-bit numbers, and the values, the last axis fastest (LeCun, Cortes and Burges,
    the MNIST database).

    Returns:
        The values, in the shape that the file names.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if the file is of another format or type, damaged, shorter or longer than its
            header says, or larger than 1 GiB.
    """
    path = Path(path)
    with path.open("rb") as raw:  # a missing file is the caller's FileNotFoundError
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            with gzip.open(raw) if packed else raw as file:
                shape, body = _parts(cast(IO[bytes], file), path)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path} is damaged ({error}); {_AGAIN}") from error
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _parts(file: IO[bytes], path: Path) -> tuple[list[int], bytes]:
    """Read shape and values, and look for the end."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or not magic[3]:
        raise DataError(
            f"{path} is not an IDX file: it starts with {magic.hex(' ') or 'nothing'}, images with "
            f"00 00 08 03 and labels with 00 00 08 01; {_AGAIN}"
        )
    if magic[2] != 8:
        raise DataError(f"{path} holds values of type {magic[2]}, and unsigned bytes (8) are read")
    if magic[3] > 8:
        raise DataError(f"{path} claims to have {magic[3]} axes: its header is damaged; {_AGAIN}")
    sizes = file.read(4 * magic[3])
    shape = [int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4)]
    if len(sizes) == 4 * magic[3]:
        count = math.prod(shape)
        if count > _MOST_BYTES:
            raise DataError(f"{path} claims to hold {count:,} bytes: its header is damaged")
        body = file.read(count + 1)
        if len(body) > count:
            raise DataError(f"{path} is longer than the {count:,} values that it names; {_AGAIN}")
        if len(body) == count:
            return shape, body
    raise DataError(f"{path} ends too early: it was cut off; {_AGAIN}")


def read_npz(path: str | PathLike[str]) -> Arrays:
    """Read the arrays x_train, y_train, x_test and y_test of an npz file. Nothing is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if the file is of another format, is damaged, lacks an array, or holds one that
            is a pickle or larger than 1 GiB.
    """
    path = Path(path)
    with path.open("rb") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                for entry in archive.infolist():
                    if entry.file_size > _MOST_BYTES:
                        raise DataError(
                            f"{path} claims to hold more than 1 GiB in {entry.filename}"
                        )
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                # numpy does not read an entry to its end, where a wrong checksum would be seen.
                if damaged := archive.testzip():
                    raise DataError(f"{path} is damaged, in {damaged}; {_AGAIN}")
            if missing := [key for key in KEYS if key not in names]:
                raise DataError(
                    f"{path} lacks {', '.join(missing)}; there is {', '.join(sorted(names))}"
                )
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as arrays:
                a, b, c, d = (np.asarray(arrays[key]) for key in KEYS)
        except DataError:
            raise
        except Exception as error:  # a damaged header makes numpy fail in a dozen ways
            raise DataError(
                f"{path} is damaged, is not an npz file, or holds a pickle ({error}); {_AGAIN}"
            ) from error
    return a, b, c, d


def read_published(source: str | PathLike[str]) -> Arrays:
    """Read a folder of four IDX files, or an npz file.

    Args:
        source: A folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each plain or with ``.gz``,
            or the path of an npz file.

    Returns:
        Images to train on, unsigned bytes of shape (count, side, side), their labels, integers
        of shape (count,), and the same for the test.

    Raises:
        FileNotFoundError: if a file is missing; nothing is downloaded.
        DataError: if a file cannot be read, or holds something else.
    """
    source = Path(source)
    if source.is_dir():
        a, b, c, d = (read_idx(_find(source, name)) for name in FILES)
        arrays: Arrays = a, b, c, d
    elif source.exists():
        arrays = read_npz(source)
    else:
        raise FileNotFoundError(f"there is no {source}; {_absent()}")
    for what, images, labels in (("training", *arrays[:2]), ("test", *arrays[2:])):
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise DataError(
                f"the {what} images of {source} are {images.dtype} of shape {images.shape}, and "
                f"must be unsigned bytes of shape (count, side, side)"
            )
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise DataError(
                f"the {what} labels of {source} are {labels.dtype} of shape {labels.shape}, and "
                f"must be whole numbers of shape (count,)"
            )
        if not images.size or len(images) != len(labels):
            raise DataError(
                f"{source} has {len(images)} {what} images and {len(labels)} labels; there must be "
                f"as many of one as of the other, and at least one"
            )
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        raise DataError(
            f"the training images of {source} have shape {arrays[0].shape[1:]}, those of the test "
            f"{arrays[2].shape[1:]}: these are not of one data set"
        )
    return arrays


def _find(folder: Path, name: str) -> Path:
    # Some archives write a dot in place of the second hyphen.
    for spelling in (name, name.replace("-idx", ".idx")):
        for path in (folder / spelling, folder / f"{spelling}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"there is no {name} or {name}.gz in {folder}; {_absent()}")


def _absent() -> str:
    return (
        f"nothing is downloaded here: with a network, get {', '.join(FILES)} (each with .gz) into "
        f"one folder, or one npz file with {', '.join(KEYS)}, or call openml(); without one, use "
        f"digits(), which comes with scikit-learn"
    )
