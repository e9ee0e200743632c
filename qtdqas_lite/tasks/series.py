"""The series that are forecast: five of arXiv 2505.09653 from their formulas, and a real one.

The paper names its series and does not print their parameters. Those used here are the ones in the
public code of its first author, as far as there is any (github.com/ycchen1989/FederatedQLSTM, and
the data sets of arXiv 2605.06734, which have the same origin); each function says which.

All have at most 100,000 points, are float64, of shape (n_points,), and finite. A function raises
:class:`~qtdqas_lite.DataError` for arguments that its docstring rules out or that lead too far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError, check_type, check_whole, needs


def bessel(n_points: int = 256, *, first: float = 2.0, last: float = 100.0) -> Tensor:
    """Sample the Bessel function of the first kind J2(x), by SciPy.

    Args:
        n_points: How many points, at least 2. The public code has 256, and elsewhere 1000.
        first: The first x.
        last: The last x; the points are equally far from each other.

    Raises:
        DependencyError: if SciPy is not installed.
    """
    _check_numbers(first=first, last=last)
    if first >= last:
        raise DataError(f"x must grow from first to last, got first={first}, last={last}")
    x = torch.linspace(first, last, _check_count(n_points), dtype=torch.double)
    # Those of torch.special are wrong in the seventh digit near x = 5.
    with needs("this series", "scipy"):
        from scipy.special import jv
    values = jv(2, x.numpy())
    return torch.from_numpy(values)


def damped_motion(
    n_points: int = 240,
    *,
    duration: float = 20.0,
    damping: float = 0.15,
    stiffness: float = 9.81,
    speed: float = 3.0,
) -> Tensor:
    """Follow a damped pendulum: the angular velocity w of a'' = -damping a' - stiffness sin(a).

    The paper calls this damped simple harmonic motion. With the speed of 3 rad/s that the public
    code starts with, the pendulum swings to 55 degrees, so it is not quite harmonic. Integrated by
    the classical Runge-Kutta method with steps of at most 5 ms.

    Args:
        n_points: How many points, at least 2, equally far from each other.
        duration: The last time, in seconds, above 0 and at most 1000; the first is 0.
        damping: Friction over mass, in 1/s.
        stiffness: Gravity over length, in 1/s^2.
        speed: The angular velocity at the start, in rad/s; the angle is 0.

    Raises:
        DataError: if an argument is not as described, or the motion grows without bound.
    """
    _check_numbers(duration=duration, damping=damping, stiffness=stiffness, speed=speed)
    if not 0 < duration <= 1000:
        raise DataError(f"duration must be above 0 and at most 1000 seconds, got {duration}")
    span = duration / (_check_count(n_points) - 1)
    parts = math.ceil(span / 0.005)
    h = span / parts

    def rates(a: float, w: float) -> tuple[float, float]:
        return w, -damping * w - stiffness * math.sin(a)

    a, w, speeds = 0.0, float(speed), [float(speed)]
    for _ in range(n_points - 1):
        for _ in range(parts):
            a1, w1 = rates(a, w)
            a2, w2 = rates(a + h / 2 * a1, w + h / 2 * w1)
            a3, w3 = rates(a + h / 2 * a2, w + h / 2 * w2)
            a4, w4 = rates(a + h * a3, w + h * w3)
            a += h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
            w += h / 6 * (w1 + 2 * w2 + 2 * w3 + w4)
            if not (abs(a) < 1e100 and abs(w) < 1e100):
                raise DataError("the motion grows without bound: give a damping of 0 or more")
        speeds.append(w)
    return torch.tensor(speeds, dtype=torch.double)


def delayed_control(n_points: int = 2200) -> Tensor:
    """Sum the pulses that stand for delayed quantum control: Gaussians that come back weaker.

    f(t) = exp(-t / 16) * sum over k = 0, ..., 10 of exp(-10 (t - 2 k)^2), for t from -2 to 20. This
    is what the public code has under this name.

    Args:
        n_points: How many points, at least 2; the public code has 2200, a step of 0.01.
    """
    t = -2 + 22 / _check_count(n_points) * torch.arange(n_points, dtype=torch.double)
    pulses = torch.exp(-10 * (t[:, None] - 2 * torch.arange(11)) ** 2).sum(1)
    return torch.exp(-t / 16) * pulses


def narma(
    order: int = 5,
    n_points: int = 300,
    *,
    drive: Literal["sines", "uniform"] = "sines",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run the nonlinear autoregressive moving average of an order (Atiya and Parlos, 2000).

    y(t+1) = 0.3 y(t) + 0.05 y(t) (y(t) + ... + y(t-order+1)) + 1.5 u(t-order+1) u(t) + 0.1, with
    y(0) = 0.196 and zeros before, as in the public code. The input u is either

    - ``"sines"``, that code's: 0.1 (sin(2.11 x) sin(3.73 x) sin(4.11 x) + 1), with
      x = 2 pi t / n_points;
    - ``"uniform"``, the usual one: independent draws from [0, 0.5). The next u is then unknown to
      every forecast from past y, and most of the variance cannot be forecast at all.

    Args:
        order: How far the memory reaches back, 1 to 1000; the paper has 5 and 10.
        n_points: How many points, at least 2.
        drive: The input.
        generator: Where uniform inputs are drawn from; torch's global one by default.

    Raises:
        DataError: if an argument is not as described, or y grows without bound, as it does for
            some draws of uniform inputs.
    """
    check_whole(DataError, 1, 1000, order=order)
    check_type(DataError, torch.Generator, type(None), generator=generator)
    if drive not in ("sines", "uniform"):
        raise DataError(f"drive must be 'sines' or 'uniform', got {drive!r}")
    if drive == "uniform":
        u = 0.5 * torch.rand(_check_count(n_points), dtype=torch.double, generator=generator)
    else:
        x = 2 * math.pi / _check_count(n_points) * torch.arange(n_points, dtype=torch.double)
        u = 0.1 * (torch.sin(2.11 * x) * torch.sin(3.73 * x) * torch.sin(4.11 * x) + 1)
    inputs, y = [0.0] * (order - 1) + u.tolist(), [0.0] * (order - 1) + [0.196]
    for t in range(n_points - 1):
        past = 0.05 * y[-1] * sum(y[-order:])
        y.append(0.3 * y[-1] + past + 1.5 * inputs[t] * inputs[t + order - 1] + 0.1)
        if y[-1] > 1e6:
            raise DataError(f"NARMA-{order} grows without bound for these inputs; draw others")
    return torch.tensor(y[order - 1 :], dtype=torch.double)


def sunspots() -> Tensor:
    """Read the mean sunspot number of each year from 1700 to 2008, which statsmodels ships.

    Raises:
        DependencyError: if statsmodels is not installed.
    """
    with needs("this series", "statsmodels"):
        from statsmodels.datasets import sunspots
    numbers = sunspots.load_pandas().data["SUNACTIVITY"]
    return torch.tensor(numbers.tolist(), dtype=torch.double)


SERIES: dict[str, Callable[..., Tensor]] = {
    "bessel": bessel,
    "damped-motion": damped_motion,
    "delayed-control": delayed_control,
    "narma-5": partial(narma, 5),
    "narma-10": partial(narma, 10),
    "sunspots": sunspots,
}
"""Functions that make a series, by name; the first five are the paper's."""


def _check_count(n_points: int) -> int:
    return check_whole(DataError, 2, 100_000, n_points=n_points)


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int | float) or not abs(value) < 1e300:
            raise DataError(f"{name} must be a finite number below 1e300, got {value!r}")
