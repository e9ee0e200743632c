"""The loops of the fast path: a circuit forward and backward, gate by gate, compiled.

A state is an array of planes, shape (planes, 2**n): the real parts of its amplitudes and, unless
all gates are real, the imaginary parts. On the way back the gradient's planes stand behind those of
the state, so that whatever moves one moves the other. A gate is a unit quaternion (w, x, y, z), see
:mod:`.gates`.

Only three loops are compiled, because a reader waits for the compiler when the first circuit runs:
:func:`rotate` applies a layer's gates, :func:`entangle` an entangler, and :func:`share` measures
how much an entangler contributes. Nothing here checks its arguments: :mod:`.compiled` does.
"""

# In one file, since numba keeps what it has compiled until this very file changes.
# ruff: noqa: ANN001, ANN201, D103 - numba finds out the types, and compiles for each of them
from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
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


def forward(arrays: tuple[Any, ...], kept: Any, norms: Any) -> None:
    """Run a circuit.

    Args:
        arrays: Gates, (n_layers, n, 4); the sources and signs of all entanglers, (n_entanglers,
            2**n); which of them acts in each layer; and None, or weights of shape (n_layers,
            n_entanglers) in its place: layers then add up entanglers, and divide by the norm.
        kept: Holds the first state, and then the last one, (1, planes, 2**n), or all of them, with
            n_layers + 1 in place of 1.
        norms: Takes what sums are divided by, shape (n_layers,).
    """
    gates, sources, signs, order, weights = arrays
    state, real, one = kept[0], kept.shape[1] == 1, gates.dtype.type(1)
    work, blocks, no_slopes = np.zeros_like(state), _blocks(state), np.empty((0, 3), gates.dtype)
    for layer, of_layer in enumerate(gates):
        out = kept[layer + 1] if len(kept) > 1 else work
        if weights is None:
            k = order[layer]
            entangle(state, sources[k], signs[k], one, False, False, out)
        else:
            for k, weight in enumerate(weights[layer]):
                entangle(state, sources[k], signs[k], weight, False, k > 0, out)
            norms[layer] = np.linalg.norm(out)
            out /= norms[layer]
        rotate(out, of_layer, real, blocks, no_slopes)
        state, work = out, state
    if len(kept) == 1 and len(gates) % 2:
        kept[0] = state


def backward(arrays: tuple[Any, ...], kept: Any, norms: Any, lam: Any, of_weights: Any) -> Any:
    """Carry a gradient back through the circuit that :func:`forward` has run.

    Args:
        arrays: As for :func:`forward`.
        kept: As :func:`forward` has left it.
        norms: Likewise.
        lam: The gradient of the last state, shape (planes, 2**n); becomes that of the first.
        of_weights: Takes that of the weights, if there are any.

    Returns:
        The slopes of rotations about X, Y and Z behind each gate, shape (n_layers, n, 3).
    """
    gates, sources, signs, order, weights = arrays
    inverse = gates * np.array([1, -1, -1, -1], gates.dtype)
    slopes = np.zeros((*gates.shape[:2], 3), gates.dtype)
    planes, one = len(lam), gates.dtype.type(1)
    both = np.concatenate([kept[-1], lam])  # psi, and lam behind it
    work, blocks = np.zeros_like(both), _blocks(both)
    for layer in reversed(range(len(gates))):
        rotate(both, inverse[layer], planes == 1, blocks, slopes[layer])
        if weights is None:
            k = order[layer]
            entangle(both, sources[k], signs[k], one, True, False, work)
        else:  # a sum cannot be undone
            work[:planes] = kept[layer]
            for k, weight in enumerate(weights[layer] / norms[layer]):
                entangler = sources[k], signs[k]
                entangle(both[planes:], *entangler, weight, True, k > 0, work[planes:])
                of_weights[layer, k] = share(both[planes:], *entangler, kept[layer]) / norms[layer]
        both, work = work, both
    lam[:] = both[planes:]
    return slopes


def _blocks(state: Any) -> Any:
    """Make two blocks to work in."""
    planes, length = state.shape
    return np.empty((2, planes, min(length, 2**BLOCK_WIRES)), state.dtype)
