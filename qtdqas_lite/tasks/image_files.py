"""MNIST and its like from files that a reader has: four IDX files, or one npz file."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
from pathlib import Path

import numpy as np

from ..errors import DataError, refuses

# Images to train on and their labels, images to test on and their labels.
KINDS = "images-idx3-ubyte", "labels-idx1-ubyte"
FILES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in KINDS]
KEYS = ("x_train", "y_train", "x_test", "y_test")
MOST_BYTES = 2**30  # a file can claim any size; the largest of this family, EMNIST, has 0.55 GB


@refuses(DataError)
def read_files(source: Path) -> list[np.ndarray]:
    """Read images (bytes) and labels to train on, and the same for the test. Unpickle nothing.

    Raises:
        FileNotFoundError: if a file is missing; nothing is downloaded.
        DataError: if a file is damaged or larger than 1 GiB, or holds something else.
    """
    paths = [_find(source, name) for name in FILES] if source.is_dir() else [source]
    if missing := [path.name for path in paths if not path.exists()]:
        raise FileNotFoundError(
            f"there is no {missing[0]} in {paths[0].parent}. Of IDX files, {', '.join(FILES)} are "
            f"needed, each with or without .gz; openml() downloads them, digits() needs none"
        )
    arrays: list[np.ndarray] = []
    for path in paths:
        try:
            if not path.is_file():
                raise ValueError("it is not a regular file")
            arrays += [_read_idx(path)] if source.is_dir() else _read_npz(path)
        except Exception as error:  # damage makes gzip, zipfile and NumPy fail in a dozen ways
            raise DataError(f"{path} cannot be read: {error}; download it again") from error
    for images, labels in (arrays[:2], arrays[2:]):
        square = images.ndim == 3 and images.shape[1:] == 2 * arrays[0].shape[-1:]
        each = images.size > 0 and labels.shape == images.shape[:1]
        if not square or not each or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{source} must hold square images as bytes and a whole number for each, twice, "
                f"and holds {', '.join(f'{array.dtype} {array.shape}' for array in arrays)}"
            )
    return arrays


def _find(folder: Path, name: str) -> Path:
    # Some archives write a dot in place of the second hyphen.
    names = [f"{one}{end}" for one in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    return next((folder / one for one in names if (folder / one).exists()), folder / name)


def _read_idx(path: Path) -> np.ndarray:
    """Read two zero bytes, 8 for bytes, the number of axes, their sizes, and the values."""
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        head = file.read(4)
        if head[:3] != b"\0\0\x08":
            raise ValueError(f"an IDX file of bytes starts with 00 00 08, and it with {head!r}")
        shape = np.frombuffer(file.read(4 * head[3]), ">u4").tolist()
        if math.prod(shape) > MOST_BYTES:
            raise ValueError("it claims to hold more than 1 GiB")
        # A byte more is asked for, so that the end is reached and gzip compares its checksum.
        return np.frombuffer(file.read(math.prod(shape) + 1), np.uint8).reshape(shape)


def _read_npz(path: Path) -> list[np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if max(archive.getinfo(f"{key}.npy").file_size for key in KEYS) > MOST_BYTES:
            raise ValueError("it claims to hold more than 1 GiB")
        # An entry is read to its end, where its checksum stands: NumPy alone would stop before.
        files = [io.BytesIO(archive.read(f"{key}.npy")) for key in KEYS]
        return [np.lib.format.read_array(file, allow_pickle=False) for file in files]
