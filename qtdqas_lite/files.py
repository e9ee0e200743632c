"""Files that are whole at any time, whoever writes them and whatever stops it."""

from __future__ import annotations

import os
import stat
import uuid
from os import PathLike
from pathlib import Path
from typing import Any

from .errors import QuantumTrainError


def as_path(error: type[QuantumTrainError], path: Any) -> Path:
    """Return a path that was given as text or as a path; raise ``error`` for anything else."""
    try:
        return Path(path)
    except TypeError:
        raise error(f"a path is text or a pathlib.Path, got {path!r:.200}") from None


def is_file(error: type[QuantumTrainError], path: str | PathLike[str]) -> bool:
    """Say whether there is a file at a path; a link counts as what it leads to.

    Raises:
        QuantumTrainError: of the type ``error``, if there is something else: a folder, a device,
            or a pipe, which would block whoever opens it.
    """
    path = as_path(error, path)
    if path.exists() and not path.is_file():
        raise error(f"{path} is a folder, a pipe or a device, and not a file; give another path")
    return path.exists()


def write_atomically(
    error: type[QuantumTrainError], path: str | PathLike[str], data: bytes
) -> None:
    """Write a file so that at any time it holds the old bytes or the new ones, and never a part.

    Any number of threads and processes may write one path; the last of them stays. A file that is
    replaced hands on its mode, and a link stays a link. A process that is killed while it writes
    leaves a hidden file ``.*.part`` behind, which can be deleted.

    Raises:
        FileNotFoundError: if there is no such folder.
        QuantumTrainError: of the type ``error``, as :func:`is_file` raises it.
    """
    path = Path(os.path.realpath(as_path(error, path)))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to save into")
    mode = stat.S_IMODE(path.stat().st_mode) if is_file(error, path) else None
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:  # "x" opens a new file only, and follows no link
            if mode is not None:  # before anything is in it that others may not read
                part.chmod(mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
