"""The errors that this package raises, and the checks that several modules share.

An error says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")
#: What goes wrong inside a function that is given something else than it takes.
MISFITS = TypeError, AttributeError, LookupError, ArithmeticError, ValueError, RuntimeError


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


def refuses(error: type[QuantumTrainError]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function refuse arguments of other types or shapes than it takes, as ``error``.

    For functions that run no code of the caller's, whose own faults would be hidden.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def refusing(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except (QuantumTrainError, torch.OutOfMemoryError):
                raise
            except MISFITS as fault:
                given = ", ".join(type(value).__name__ for value in (*args, *kwargs.values()))
                raise error(
                    f"{function.__qualname__} does not take these arguments, of type {given}: "
                    f"{fault}; its documentation says which"
                ) from fault

        return refusing

    return decorate


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


def check_whole(
    error: type[QuantumTrainError], least: int, most: int | None = None, **values: Any
) -> int:
    """Check that each value is a whole number from ``least`` to ``most``; return the last one.

    Raises:
        QuantumTrainError: of the type ``error``, which names the argument.
    """
    number = least
    for name, value in values.items():
        try:
            number = operator.index(value)
        except TypeError:
            raise error(f"{name} must be a whole number, got {value!r}; pass an int") from None
        if isinstance(value, bool) or number < least:
            raise error(f"{name} must be at least {least}, got {value!r}")
        if most is not None and number > most:
            raise error(f"{name} must be at most {most:,}, got {value!r}")
    return number


def check_type(error: type[QuantumTrainError], *kinds: type, **values: Any) -> None:
    """Check that each value is of one of the kinds.

    Raises:
        QuantumTrainError: of the type ``error``, which names the argument.
    """
    for name, value in values.items():
        if not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise error(f"{name} must be of type {names}, got {type(value).__name__}")


def check_callable(error: type[QuantumTrainError], **values: Any) -> None:
    """Raise ``error``, which names the argument, unless each value is a function."""
    for name, value in values.items():
        if not callable(value):
            raise error(f"{name} must be a function, got {value!r:.200}")


def check_positive(error: type[QuantumTrainError] = SearchError, /, **values: Any) -> None:
    """Raise ``error`` unless each value is a finite number above 0."""
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise error(f"{name} must be a finite number above 0, got {value!r}")


def check_fits(error: type[QuantumTrainError], what: str, needed: int, advice: str) -> None:
    """Raise ``error`` if ``what`` takes more bytes than this machine has."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told by every operating system
        return
    if needed > memory:
        raise error(
            f"{what} need about {needed / 1e9:,.0f} GB here, and this machine has "
            f"{memory / 1e9:,.0f} GB; {advice}"
        )


def check_finite(value: float, what: str, step: int) -> None:
    """Raise :class:`SearchError` unless the value is finite."""
    if not math.isfinite(value):
        raise SearchError(
            f"the {what} is {value} in step {step}; the parameters are as they were before that "
            f"step: lower the learning rate, or look for NaN in the data"
        )


def check_data(what: str, data: Any) -> None:
    """Raise :class:`SearchError` unless the data are a pair of tensors with as many examples."""
    pair = isinstance(data, tuple | list) and len(data) == 2
    if not pair or not all(isinstance(part, Tensor) and part.dim() for part in data):
        raise SearchError(
            f"{what} must be a pair of tensors, inputs and labels, got {type(data).__name__}"
        )
    if not len(data[0]) or len(data[0]) != len(data[1]):
        raise SearchError(
            f"{what} has {len(data[0])} inputs and {len(data[1])} labels; give at least one of "
            f"each, as many of one as of the other"
        )
