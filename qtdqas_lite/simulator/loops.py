"""The loops of the fast path: a circuit forward and backward, gate by gate, compiled.

A state is an array of planes, shape (planes, 2**n): the real parts of its amplitudes and, unless
all gates are real, the imaginary parts. On the way back the gradient's planes stand behind those of
the state, so that whatever moves one moves the other. A gate is a unit quaternion (w, x, y, z), see
:mod:`.gates`.

Few loops are compiled, because a reader waits for the compiler when the first circuit runs:
:func:`rotate` applies a layer's gates, :func:`entangle` an entangler, and :func:`share` measures
how much an entangler contributes. For layers in which few gates turn there are :func:`turn`, which
applies a single gate, and :func:`overlaps`, which applies none. Nothing here checks its arguments:
:mod:`.compiled` does.
"""

# In one file, since numba keeps what it has compiled until this very file changes.
# ruff: noqa: ANN001, ANN201, D103 - numba finds out the types, and compiles for each of them
from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache

# Sums may be taken in any order, so that they can be vectorised; NaN and infinity stay themselves.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
_INNER: Any = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inner = numba.njit(**_INNER)

BLOCK_WIRES = 11  # two blocks of 2**11 numbers fit into the fastest memory
FAR_WIRES = 6  # a block of 2**6 stretches of a state still reads 2**5 numbers at a time


class _Cache(FunctionCache):
    """Compiled loops on disk, if that works: a file that cannot be used is as good as none."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever a damaged or foreign file makes of being read
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk, a folder that is gone
            super().save_overload(sig, data)


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile a function, and keep the result where there is a place to."""
    compiled = numba.njit(**_OPTIONS)(function)
    with contextlib.suppress(RuntimeError, OSError):  # neither this folder nor home can be written
        compiled._cache = _Cache(function)
    return compiled


@_inner
def turn_real(u, v, out, w, y):
    for i in range(len(u)):
        out[2 * i] = w * u[i] - y * v[i]
        out[2 * i + 1] = y * u[i] + w * v[i]


@_inner
def turn_both_real(a, b, e, f, psi, lam, w, y):
    slope = a.dtype.type(0)
    for i in range(len(a)):
        slope += f[i] * a[i] - e[i] * b[i]
        psi[2 * i] = w * a[i] - y * b[i]
        psi[2 * i + 1] = y * a[i] + w * b[i]
        lam[2 * i] = w * e[i] - y * f[i]
        lam[2 * i + 1] = y * e[i] + w * f[i]
    return slope


@_inner
def turn_plane(u, v, r, s, out, w, x, y, z):
    for i in range(len(u)):
        out[2 * i] = w * u[i] - y * v[i] + z * r[i] + x * s[i]
        out[2 * i + 1] = y * u[i] + w * v[i] + x * r[i] - z * s[i]


@_inner
def slopes_of(a, b, c, d, e, f, g, h):
    x = y = z = a.dtype.type(0)
    for i in range(len(a)):
        x += e[i] * d[i] - g[i] * b[i] + f[i] * c[i] - h[i] * a[i]
        y += f[i] * a[i] - e[i] * b[i] + h[i] * c[i] - g[i] * d[i]
        z += e[i] * c[i] - g[i] * a[i] - f[i] * d[i] + h[i] * b[i]
    return x, y, z


@_inner
def load(state, start, step, width, block):
    """Fill a block with stretches of a state, each ``width`` long and ``step`` apart."""
    for plane in range(len(state)):
        for k in range(block.shape[1] // width):
            begin = start + k * step
            source, target = state[plane, begin : begin + width], block[plane, k * width :]
            for i in range(width):
                target[i] = source[i]


@_inner
def store(block, state, start, step, width):
    """Write a block back in which each wire has become the last: its columns are the stretches."""
    count = block.shape[1] // width
    for plane in range(len(state)):
        source = block[plane]
        for k in range(count):
            begin = start + k * step
            target = state[plane, begin : begin + width]
            for i in range(width):
                target[i] = source[i * count + k]


@_kernel
def rotate(state, gates, real, blocks, slopes):
    """Apply the gates of one layer, in place.

    Wires are taken in groups, and a group's part of the state in blocks that fit into the fastest
    memory. A gate reads both halves of a block and writes pairs: its wire was the first and becomes
    the last. So inner loops become vector instructions, and after the last wire of a group all
    stand in their order again.

    Args:
        state: Planes of psi, and on the way back those of its gradient lam: (planes, 2**n).
        gates: Unit quaternions, shape (n, 4).
        real: Whether a state is one plane, in place of a real and an imaginary one.
        blocks: To work in, shape (2, planes, min(2**n, 2**BLOCK_WIRES)).
        slopes: If there is a gradient, zeros to which the real parts of <lam| -i P |psi> before
            each gate are added, for P = X, Y, Z: shape (n, 3). They are also those behind all
            gates, which act on other wires. Otherwise shape (0, 3).
    """
    n, length, size = len(gates), state.shape[1], blocks.shape[2]
    near, half = max(0, n - BLOCK_WIRES), size // 2
    first = 0
    while first < n:
        last = min(first + FAR_WIRES, near) if first < near else n
        step = length >> last
        width = size if last == n else min(step, size >> (last - first))
        for outer in range(0, length, length >> first):
            for start in range(outer, outer + step, width):
                block, out = blocks[0], blocks[1]
                load(state, start, step, width, block)
                for wire in range(first, last):
                    w, x, y, z = gates[wire, 0], gates[wire, 1], gates[wire, 2], gates[wire, 3]
                    a, b = block[0, :half], block[0, half:]
                    if len(block) == 1:
                        turn_real(a, b, out[0], w, y)
                    else:
                        c, d = block[1, :half], block[1, half:]
                        if real:
                            slope = turn_both_real(a, b, c, d, out[0], out[1], w, y)
                            slopes[wire, 1] += slope
                        else:
                            turn_plane(a, b, c, d, out[0], w, x, y, z)
                            turn_plane(c, d, a, b, out[1], w, -x, y, -z)
                            if len(block) == 4:
                                e, f, g, h = (
                                    block[2, :half],
                                    block[2, half:],
                                    block[3, :half],
                                    block[3, half:],
                                )
                                turn_plane(e, f, g, h, out[2], w, x, y, z)
                                turn_plane(g, h, e, f, out[3], w, -x, y, -z)
                                sx, sy, sz = slopes_of(a, b, c, d, e, f, g, h)
                                slopes[wire, 0] += sx
                                slopes[wire, 1] += sy
                                slopes[wire, 2] += sz
                    block, out = out, block
                store(block, state, start, step, width)
        first = last


@_kernel
def turn(state, wire, gate):
    """Apply one gate of a circuit with complex gates, in place, to psi and whatever is behind it.

    Args:
        state: Planes of psi, and on the way back those of its gradient lam: (2 or 4, 2**n).
        wire: Which wire it acts on.
        gate: A unit quaternion, shape (4,).
    """
    w, x, y, z = gate[0], gate[1], gate[2], gate[3]
    half = state.shape[1] >> (wire + 1)
    for plane in range(0, len(state), 2):
        for start in range(0, state.shape[1], 2 * half):
            for i in range(start, start + half):
                a, b = state[plane, i], state[plane, i + half]
                c, d = state[plane + 1, i], state[plane + 1, i + half]
                state[plane, i] = w * a - y * b + z * c + x * d
                state[plane, i + half] = y * a + w * b + x * c - z * d
                state[plane + 1, i] = w * c - y * d - z * a - x * b
                state[plane + 1, i + half] = y * c + w * d - x * a + z * b


@_kernel
def overlaps(both, turned, slopes):
    """Measure the slopes of all wires behind a layer of complex gates, without applying any.

    Args:
        both: Planes of psi and lam, shape (4, 2**n).
        turned: To work in, of the same shape.
        slopes: Takes what :func:`rotate` adds to its own, shape (n, 3).
    """
    n, length = len(slopes), both.shape[1]
    near = n // 2  # the last wires come first in a copy, because inner loops have to be long
    rows, columns = 1 << (n - near), 1 << near
    for plane in range(4):
        for i in range(rows):
            for j in range(columns):
                turned[plane, j * rows + i] = both[plane, i * columns + j]
    for wire in range(n):
        state = both if wire < n - near else turned
        half = length >> (wire + 1) if wire < n - near else length >> (wire - (n - near) + 1)
        x = y = z = both.dtype.type(0)
        for start in range(0, length, 2 * half):
            middle, end = start + half, start + 2 * half
            sx, sy, sz = slopes_of(
                state[0, start:middle],
                state[0, middle:end],
                state[1, start:middle],
                state[1, middle:end],
                state[2, start:middle],
                state[2, middle:end],
                state[3, start:middle],
                state[3, middle:end],
            )
            x += sx
            y += sy
            z += sz
        slopes[wire, 0], slopes[wire, 1], slopes[wire, 2] = x, y, z


@_kernel
def entangle(state, source, sign, weight, back, add, out):
    """Write a weight times what an entangler or its transpose makes of a state; or add it."""
    for plane in range(len(state)):
        a, b = state[plane], out[plane]
        for i in range(len(source)):
            m, n = (source[i], i) if back else (i, source[i])
            b[m] = add * b[m] + weight * sign[i] * a[n]


@_kernel
def share(lam, source, sign, psi):
    """Give the real part of the inner product of lam with what an entangler makes of psi."""
    total = 0.0
    for plane in range(len(psi)):
        for i in range(len(source)):
            total += lam[plane, i] * sign[i] * psi[plane, source[i]]
    return total
