"""The bilevel landscape: four hypergradients race on the toy problem of chapter 06."""

from __future__ import annotations

from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from ..bilevel import METHODS
from .parts import BookWidget, Numbers, front_end

Vector = NDArray[np.float64]

# The toy of chapter 06; bilevel_landscape.js has the same numbers.
B, C = np.array([[1.0, 0.4], [-0.3, 0.8]]), np.array([[2.0, 0.6], [0.6, 0.5]])
THETA_VAL, MU = np.array([1.2, 0.9]), 0.4
STEPS, THETA_STEP = 150, 0.3
# A gradient shorter than this has arrived: its direction is rounding.
SHORTEST = 1e-6


class BilevelLandscape(BookWidget):
    """The toy of chapter 06 as a map of alpha, on which four methods race downhill.

    The training loss is ``(away C away + mu |alpha - train_wish|**2) / 2``, with
    ``away = theta - B alpha``, and the validation loss
    ``(|theta - theta_val|**2 + mu |alpha - val_wish|**2) / 2``. In every step alpha moves against
    the method's hypergradient, that of :mod:`qtdqas_lite.bilevel`, and theta takes one step of 0.3
    down the training loss; it begins at its minimum.

    Every attribute is a trait: assign to it, ``observe`` it, ``link`` it. Assign a new list instead
    of changing one in place, which no observer could notice. A value that does not fit raises
    ``traitlets.TraitError``, and the old one stays.

    Attributes:
        start: Where alpha begins, two numbers.
        train_wish: What the training loss wants of alpha by itself, two numbers.
        val_wish: What the validation loss wants of alpha by itself, two numbers.
        learning_rate: The length of alpha's steps, above 0 and at most 0.3.
        xi: The step that second-order looks ahead, above 0 and at most 0.9.
        step: The step of the race that is shown, 0 to 150.
        best: The minimum of the validation loss with trained theta, two numbers (read-only).
        paths: For each method the 151 places of alpha (read-only).
        cosines: For each method the cosine of its gradient with the true hypergradient at each of
            these places, or None where one of the two has vanished (read-only).
    """

    _esm, _css = front_end("bilevel_landscape")
    _dragged = ("start", "train_wish", "val_wish", "learning_rate", "xi", "step")

    start = Numbers(2).tag(sync=True)
    train_wish = Numbers(2).tag(sync=True)
    val_wish = Numbers(2).tag(sync=True)
    learning_rate = Numbers(positive=True, most=0.3).tag(sync=True)
    xi = Numbers(positive=True, most=0.9).tag(sync=True)
    step = traitlets.Int(0, min=0, max=STEPS).tag(sync=True)
    # Not sent: the front end computes its own.
    best: Any = traitlets.List(read_only=True)
    paths: Any = traitlets.Dict(read_only=True)
    cosines: Any = traitlets.Dict(read_only=True)

    def __init__(
        self,
        start: Any = (-1.6, -0.9),
        *,
        train_wish: Any = (0.6, -1.0),
        val_wish: Any = (-1.0, 0.6),
        learning_rate: Any = 0.1,
        xi: Any = 0.1,
        step: int = STEPS,
        **traits: Any,
    ) -> None:
        """Build a landscape; without arguments it is that of chapter 06.

        Args:
            start: Where alpha begins.
            train_wish: What the training loss wants of alpha by itself.
            val_wish: What the validation loss wants of alpha by itself.
            learning_rate: The length of alpha's steps.
            xi: The step that second-order looks ahead.
            step: The step of the race that is shown.
            **traits: Values of other traits, such as ``layout``.

        Raises:
            traitlets.TraitError: if a value has the wrong shape or is out of range.
        """
        wishes = {"train_wish": train_wish, "val_wish": val_wish}
        steps = {"learning_rate": learning_rate, "xi": xi, "step": step}
        super().__init__(start=start, **wishes, **steps, **traits)

    def __repr__(self) -> str:
        ends = (f"{name} at ({p[-1][0]:.2f}, {p[-1][1]:.2f})" for name, p in self.paths.items())
        return f"BilevelLandscape({', '.join(ends)})"

    @traitlets.observe("start", "train_wish", "val_wish", "learning_rate", "xi")
    def _race(self, _change: Any) -> None:
        pull = B.T @ THETA_VAL + MU * np.array(self.val_wish)
        found: dict[str, dict[str, Any]] = {"paths": {}, "cosines": {}}
        for method in METHODS:
            alpha = np.array(self.start)
            theta = B @ alpha
            path, cosines = [], []
            for _ in range(STEPS + 1):
                gradient = self._gradient(method, theta, alpha)
                path.append(alpha.tolist())
                cosines.append(_cosine(gradient, (B.T @ B + MU * np.eye(2)) @ alpha - pull))
                slope = C @ (theta - B @ alpha)
                alpha = alpha - self.learning_rate * gradient
                theta = theta - THETA_STEP * slope
            found["paths"][method], found["cosines"][method] = path, cosines
        with self.hold_trait_notifications():  # whoever hears of one finds the others up to date
            self.set_trait("best", np.linalg.solve(B.T @ B + MU * np.eye(2), pull).tolist())
            for name, value in found.items():
                self.set_trait(name, value)

    def _gradient(self, method: str, theta: Vector, alpha: Vector) -> Vector:
        """Give what the method of ``qtdqas_lite.bilevel`` gives here, in closed form."""
        away = theta - B @ alpha
        wish = self.train_wish if method == "joint" else self.val_wish
        found: Vector = MU * (alpha - wish)  # the direct part
        if method == "joint":
            found = found - B.T @ C @ away
        elif method == "second-order":
            found = found + self.xi * B.T @ C @ (theta - self.xi * C @ away - THETA_VAL)
        elif method == "implicit":
            found = found + B.T @ (theta - THETA_VAL)
        return found


def _cosine(one: Vector, other: Vector) -> float | None:
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    return float(one @ other) / lengths[0] / lengths[1] if min(lengths) > SHORTEST else None
