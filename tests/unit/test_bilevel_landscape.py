"""The bilevel landscape: the package's hypergradients on the toy, and traits that are checked."""

import math

import numpy as np
import pytest
import torch
import traitlets

from qtdqas_lite.bilevel import METHODS, hypergradient
from qtdqas_lite.widgets import BilevelLandscape
from qtdqas_lite.widgets.bilevel_landscape import MU, STEPS, THETA_STEP, THETA_VAL, B, C

CASES = [
    {},
    {"start": [2.0, 1.0], "xi": 0.8},
    {"train_wish": [-1.0, 0.3], "learning_rate": 0.3},
    {"val_wish": [1.5, -2.0], "learning_rate": 0.02, "xi": 0.9},
]


def raced(method, widget):
    """The places and cosines, by the package's own hypergradient in double precision."""
    b, c, val = (torch.tensor(values) for values in (B, C, THETA_VAL))
    wishes = [torch.tensor(w, dtype=torch.double) for w in (widget.train_wish, widget.val_wish)]

    def train_loss(theta, alpha):
        away, wish = theta[0] - b @ alpha[0], alpha[0] - wishes[0]
        return (away @ c @ away + MU * wish @ wish) / 2

    def val_loss(theta, alpha):
        away, wish = theta[0] - val, alpha[0] - wishes[1]
        return (away @ away + MU * wish @ wish) / 2

    options = {"learning_rate": widget.xi} if method == "second-order" else {}
    alpha = torch.tensor(widget.start, dtype=torch.double).requires_grad_()
    theta = (b @ alpha).detach().requires_grad_()
    places, cosines = [], []
    for _ in range(STEPS + 1):
        (gradient,) = hypergradient(method, train_loss, val_loss, (theta,), (alpha,), **options)
        trained = (b @ alpha).detach().requires_grad_()  # there, implicit is the truth
        (true,) = hypergradient("implicit", train_loss, val_loss, (trained,), (alpha,))
        [slope] = torch.autograd.grad(train_loss((theta,), (alpha,)), theta)
        places.append(alpha.tolist())
        cosines.append(torch.cosine_similarity(gradient, true, dim=0, eps=0).item())
        with torch.no_grad():
            alpha -= widget.learning_rate * gradient
            theta -= THETA_STEP * slope
    return places, cosines


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_the_race_is_the_packages(case, method):
    widget = BilevelLandscape(**case)
    places, cosines = raced(method, widget)
    assert np.allclose(widget.paths[method], places, rtol=0, atol=1e-9)
    known = [(a, b) for a, b in zip(widget.cosines[method], cosines, strict=True) if a is not None]
    assert known
    assert np.allclose(*zip(*known, strict=True), rtol=0, atol=1e-5)


def test_where_they_end():
    widget = BilevelLandscape(learning_rate=0.2)
    ends = {method: path[-1] for method, path in widget.paths.items()}
    assert ends["joint"] == pytest.approx(widget.train_wish, abs=0.01)
    assert ends["first-order"] == pytest.approx(widget.val_wish, abs=0.01)
    assert ends["implicit"] == pytest.approx(widget.best, abs=0.01)
    assert widget.cosines["implicit"][0] == pytest.approx(1)
    assert BilevelLandscape(widget.best).cosines["implicit"][0] is None  # it is there
    assert "implicit at" in repr(widget)


def test_observed_once_and_reset():
    widget = BilevelLandscape()
    before, changes = widget.paths, []
    widget.observe(changes.append, "paths")
    widget.set_state({"val_wish": [1, 1], "step": 3})  # JSON has no 1.0
    assert len(changes) == 1
    assert changes[0].new == widget.paths != before
    widget.reset()
    assert (widget.paths, widget.step) == (before, STEPS)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("start", [1.0], r"shape \(2,\)"),
        ("train_wish", "ab", "numbers"),
        ("val_wish", [math.nan, 0.0], "finite"),
        ("learning_rate", 0.6, "between -0.3 and 0.3"),
        ("learning_rate", 0.0, "positive"),
        ("xi", -0.1, "positive"),
        ("xi", 1.3, "between"),
        ("step", STEPS + 1, "150"),
        ("paths", {}, "read-only"),
        ("best", [0.0, 0.0], "read-only"),
    ],
)
def test_a_bad_value_leaves_the_old_one(name, value, text):
    widget = BilevelLandscape()
    before = widget.get_state()
    with pytest.raises(traitlets.TraitError, match=text):
        setattr(widget, name, value)
    assert widget.get_state() == before
