"""What the widgets share on the Python side: their front ends, their traits, and going back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor

LARGEST = 1e6


def front_end(name: str) -> tuple[str, str]:
    """Read the JavaScript module and the style sheet of one widget.

    Each is the part that all widgets share (``parts.js``, ``parts.css``) and then the widget's own,
    in one text: a page without a kernel has nothing to import from.

    Args:
        name: The widget's files are ``name.js`` and ``name.css``, beside this module.

    Returns:
        The module and the style sheet.
    """
    folder = Path(__file__).parent
    module, style = (
        "\n".join((folder / f"{stem}.{kind}").read_text("utf-8") for stem in ("parts", name))
        for kind in ("js", "css")
    )
    return module, style


class Numbers(traitlets.TraitType):  # type: ignore[type-arg]  # not generic yet on Colab
    """Finite numbers of one shape, kept as (nested lists of) floats; tensors are accepted.

    An axis is a length, or the name of the trait that holds it. No axis means a single number. None
    is further from zero than ``most``.
    """

    def __init__(self, *axes: str | int, positive: bool = False, most: float = LARGEST) -> None:
        super().__init__()
        self.axes = axes
        self.positive = positive
        self.most = most

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the numbers as floats; raise ``traitlets.TraitError`` if they do not fit."""
        try:
            numbers = as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise traitlets.TraitError(f"{self.name} must hold numbers: {error}") from None
        shape = tuple(getattr(obj, axis) if isinstance(axis, str) else axis for axis in self.axes)
        if numbers.shape != shape:
            wanted = f"shape {shape}" if shape else "a single number"
            names = f" = ({', '.join(map(str, self.axes))})" if shape else ""
            raise traitlets.TraitError(
                f"{self.name} must be {wanted}{names}, got shape {tuple(numbers.shape)}"
            )
        if not bool((numbers.abs() <= self.most).all()):
            raise traitlets.TraitError(
                f"{self.name} must hold finite numbers between -{self.most:g} and {self.most:g}"
            )
        if self.positive and not bool((numbers >= 1 / LARGEST).all()):
            raise traitlets.TraitError(f"{self.name} must be positive, at least {1 / LARGEST:g}")
        return numbers.tolist()


class BookWidget(anywidget.AnyWidget):
    """What all widgets can do: refuse misspelt options, and go back to where they started."""

    # The traits that reset() sets back.
    _dragged: tuple[str, ...] = ()
    # What it sets them to; the front end's Reset button goes back to it, too.
    _given = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        unknown = sorted(set(traits) - set(self.trait_names()))
        if unknown:  # a misspelt option would otherwise be passed over
            name = type(self).__name__
            raise TypeError(f"there is no option {unknown[0]!r}; see the documentation of {name}")
        super().__init__(**traits)
        self._given = {name: getattr(self, name) for name in self._dragged}

    def reset(self) -> None:
        """Go back to what the widget was made with, in all that the reader can drag or choose."""
        with self.hold_trait_notifications():
            for name, value in self._given.items():
                setattr(self, name, value)


def as_tensor(values: Any) -> Tensor:
    """Copy a tensor, an array or nested lists to a float64 tensor on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double()
    return torch.tensor(np.asarray(values, dtype=np.float64))
