"""The errors that this package raises: each says what was given, what is allowed and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class QuantumTrainError(Exception):
    """The base of every error of this package."""


class EncodingError(QuantumTrainError, ValueError):
    """A vector or a count that no quantum state can hold."""


class CircuitError(QuantumTrainError, ValueError):
    """A circuit that cannot be built or run as described."""


class TargetError(QuantumTrainError, ValueError):
    """A target network, or a mapping to its weights, that cannot be generated."""


class CheckpointError(QuantumTrainError, ValueError):
    """A file that is not a checkpoint of this package, or not of this network."""


class SearchError(QuantumTrainError, ValueError):
    """A search that cannot be run as asked."""


class DataError(QuantumTrainError, ValueError):
    """Data that is damaged, or that a task cannot use as asked."""


class DependencyError(QuantumTrainError, ImportError):
    """A package that is needed here and is not installed."""


@contextmanager
def needs(what: str, *packages: str) -> Iterator[None]:
    """Let an import that fails inside say what these packages are needed for.

    Raises:
        DependencyError: for any ImportError.
    """
    try:
        yield
    except ImportError as error:
        raise DependencyError(
            f"{what} needs {' and '.join(packages)}, and cannot import all of it ({error}): "
            f"pip install {' '.join(packages)}"
        ) from error
