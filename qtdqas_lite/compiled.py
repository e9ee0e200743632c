"""The loops of the fast path, compiled: circuits forward and backward, gate by gate (chapter 02).

A state is an array of shape (planes, 2**n): the real parts of its amplitudes and, unless all gates
are real, the imaginary parts. A gate is a unit quaternion (w, x, y, z), see :mod:`.gates`. There
are two ways to apply one. :func:`mix` works in place, on pairs that lie far apart. Near pairs would
make short loops, so :func:`turn` reads both halves of a row and writes pairs next to each other:
the first wire of the row becomes the last. In both, inner loops become vector instructions.

Nothing here checks its arguments: :mod:`.statevector` prepares them.
"""

# In one file, since numba keeps what it has compiled until this very file changes.
# ruff: noqa: ANN001, ANN201, D103 - numba finds out the types, and compiles for each of them
from __future__ import annotations

from typing import Any

import numba
import numpy as np

# Sums may be taken in any order, so that they can be vectorised; NaN and infinity stay themselves.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
_INNER: Any = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inner, _kernel = numba.njit(**_INNER), numba.njit(cache=True, **_OPTIONS)

ROW_WIRES = 11  # two rows of 2**11 numbers fit into the fastest memory
# Inner loops: for the only plane ("real"), one of two ("plane"; r, s or q: the other), or both.


@_inner
def turn_real(u, v, out, w, y):
    for i in range(len(u)):
        out[2 * i] = w * u[i] - y * v[i]
        out[2 * i + 1] = y * u[i] + w * v[i]


@_inner
def turn_plane(u, v, r, s, out, w, x, y, z):
    for i in range(len(u)):
        out[2 * i] = w * u[i] - y * v[i] + z * r[i] + x * s[i]
        out[2 * i + 1] = y * u[i] + w * v[i] + x * r[i] - z * s[i]


@_inner
def turn(row, out, gate):
    """Apply the gate of a row's first wire, and make it the last; n turns restore the order."""
    w, x, y, z = gate[0], gate[1], gate[2], gate[3]
    half = row.shape[1] // 2
    a, b = row[0, :half], row[0, half:]
    if len(row) == 1:
        turn_real(a, b, out[0], w, y)
    else:
        c, d = row[1, :half], row[1, half:]
        turn_plane(a, b, c, d, out[0], w, x, y, z)
        turn_plane(c, d, a, b, out[1], w, -x, y, -z)


@_inner
def mix_real(u, v, w, y):
    for i in range(len(u)):
        a, b = u[i], v[i]
        u[i] = w * a - y * b
        v[i] = y * a + w * b


@_inner
def mix_planes(u, v, r, s, w, x, y, z):
    for i in range(len(u)):
        a, b, c, d = u[i], v[i], r[i], s[i]
        u[i] = w * a - y * b + z * c + x * d
        v[i] = y * a + w * b + x * c - z * d
        r[i] = w * c - y * d - z * a - x * b
        s[i] = y * c + w * d - x * a + z * b


@_inner
def mix(state, apart, gate):
    """Apply a gate in place, to amplitudes that lie ``apart`` numbers apart."""
    w, x, y, z = gate[0], gate[1], gate[2], gate[3]
    for k in range(0, state.shape[1], 2 * apart):
        m, n = k + apart, k + 2 * apart
        if len(state) == 1:
            mix_real(state[0, k:m], state[0, m:n], w, y)
        else:
            a, b, c, d = state[0, k:m], state[0, m:n], state[1, k:m], state[1, m:n]
            mix_planes(a, b, c, d, w, x, y, z)


@_inner
def slopes_planes(a, b, c, d, e, f, g, h):
    x = y = z = a.dtype.type(0)
    for i in range(len(a)):
        x += e[i] * d[i] - g[i] * b[i] + f[i] * c[i] - h[i] * a[i]
        y += f[i] * a[i] - e[i] * b[i] + h[i] * c[i] - g[i] * d[i]
        z += e[i] * c[i] - g[i] * a[i] - f[i] * d[i] + h[i] * b[i]
    return x, y, z


@_inner
def collect(gate, out, x, y, z):
    """Add the gradient with respect to a quaternion, along unit quaternions.

    A rotation by 2 eps before the gate multiplies its quaternion by 1 + eps i, j, k from the right,
    and psi by 1 - i eps P: the slopes are the real parts of <lam| -i P psi> for P = X, Y, Z.
    """
    out[0] += -gate[1] * x - gate[2] * y - gate[3] * z
    out[1] += gate[0] * x - gate[3] * y + gate[2] * z
    out[2] += gate[3] * x + gate[0] * y - gate[1] * z
    out[3] += -gate[2] * x + gate[1] * y + gate[0] * z


@_inner
def unmix_real(u, v, r, s, w, y):
    slope = u.dtype.type(0)
    for i in range(len(u)):
        a, b, e, f = w * u[i] + y * v[i], w * v[i] - y * u[i], r[i], s[i]
        u[i], v[i], r[i], s[i] = a, b, w * e + y * f, w * f - y * e
        slope += s[i] * a - r[i] * b
    return slope


@_inner
def unmix(psi, lam, apart, gate, out):
    """Undo :func:`mix` in psi and lam, and collect the gate's slopes."""
    w, x, y, z = gate[0], gate[1], gate[2], gate[3]
    for k in range(0, psi.shape[1], 2 * apart):
        m, n = k + apart, k + 2 * apart
        a, b, e, f = psi[0, k:m], psi[0, m:n], lam[0, k:m], lam[0, m:n]
        if len(psi) == 1:
            collect(gate, out, 0, unmix_real(a, b, e, f, w, y), 0)
        else:
            c, d, g, h = psi[1, k:m], psi[1, m:n], lam[1, k:m], lam[1, m:n]
            mix_planes(a, b, c, d, w, -x, -y, -z)
            mix_planes(e, f, g, h, w, -x, -y, -z)
            collect(gate, out, *slopes_planes(a, b, c, d, e, f, g, h))


@_inner
def unturn_real(p, q, u, v, r, s, w, y):
    slope = u.dtype.type(0)
    for i in range(len(u)):
        a, b = w * p[2 * i] + y * p[2 * i + 1], w * p[2 * i + 1] - y * p[2 * i]
        e, f = w * q[2 * i] + y * q[2 * i + 1], w * q[2 * i + 1] - y * q[2 * i]
        u[i], v[i], r[i], s[i] = a, b, e, f
        slope += f * a - e * b
    return slope


@_inner
def unturn_plane(p, q, u, v, w, x, y, z):
    for i in range(len(u)):
        u[i] = w * p[2 * i] + y * p[2 * i + 1] - z * q[2 * i] - x * q[2 * i + 1]
        v[i] = w * p[2 * i + 1] - y * p[2 * i] - x * q[2 * i] + z * q[2 * i + 1]


@_inner
def unturn(psi, lam, psi_out, lam_out, gate, out):
    """Undo :func:`turn` in psi and lam, and collect the gate's slopes."""
    w, x, y, z = gate[0], gate[1], gate[2], gate[3]
    half = psi.shape[1] // 2
    a, b, e, f = psi_out[0, :half], psi_out[0, half:], lam_out[0, :half], lam_out[0, half:]
    if len(psi) == 1:
        collect(gate, out, 0, unturn_real(psi[0], lam[0], a, b, e, f, w, y), 0)
    else:
        c, d, g, h = psi_out[1, :half], psi_out[1, half:], lam_out[1, :half], lam_out[1, half:]
        unturn_plane(psi[0], psi[1], a, b, w, x, y, z)
        unturn_plane(psi[1], psi[0], c, d, w, -x, y, -z)
        unturn_plane(lam[0], lam[1], e, f, w, x, y, z)
        unturn_plane(lam[1], lam[0], g, h, w, -x, y, -z)
        collect(gate, out, *slopes_planes(a, b, c, d, e, f, g, h))


@_inner
def copy(state, start, out, begin, length):
    """Copy a stretch of a state to a place in another one."""
    for plane in range(len(state)):
        source, target = state[plane, start : start + length], out[plane, begin : begin + length]
        for i in range(length):
            target[i] = source[i]


@_inner
def rotate(state, gates, rows):
    """Apply the gates of one layer, in place, with two rows to work in."""
    a, b = rows[0], rows[1]
    left, row, length = max(0, len(gates) - ROW_WIRES), rows.shape[2], state.shape[1]
    for wire in range(left):
        mix(state, length >> (wire + 1), gates[wire])
    for start in range(0, length, row):
        copy(state, start, a, 0, row)
        for wire in range(left, len(gates)):
            turn(a, b, gates[wire])
            a, b = b, a
        copy(a, 0, state, start, row)


@_inner
def unrotate(psi, lam, gates, rows, out):
    """Undo the gates of one layer in psi and lam, in place, and collect the gates' slopes."""
    a, b, c, d = rows[0], rows[1], rows[2], rows[3]
    left, row, length = max(0, len(gates) - ROW_WIRES), rows.shape[2], psi.shape[1]
    for start in range(0, length, row):
        copy(psi, start, a, 0, row)
        copy(lam, start, c, 0, row)
        for wire in range(len(gates) - 1, left - 1, -1):
            unturn(a, c, b, d, gates[wire], out[wire])
            a, b, c, d = b, a, d, c
        copy(a, 0, psi, start, row)
        copy(c, 0, lam, start, row)
    for wire in range(left):
        unmix(psi, lam, length >> (wire + 1), gates[wire], out[wire])


@_inner
def entangle(state, source, sign, weight, back, add, out):
    """Write a weight times what an entangler or its transpose makes of a state; or add it."""
    for plane in range(len(state)):
        a, b = state[plane], out[plane]
        for i in range(len(source)):
            m, n = (source[i], i) if back else (i, source[i])
            b[m] = add * b[m] + weight * sign[i] * a[n]


@_inner
def share(lam, source, sign, psi):
    """Give the real part of the inner product of lam with what an entangler makes of psi."""
    total = 0.0
    for plane in range(len(psi)):
        for i in range(len(source)):
            total += lam[plane, i] * sign[i] * psi[plane, source[i]]
    return total


@_kernel
def forward(circuits, mixed, kept, scales):
    """Run circuits with the same gates.

    Args:
        circuits: First states, real, (n_circuits, 2**n); gates, (n_layers, n, 4); sources and signs
            of entanglers, (n_entanglers, 2**n); weights, (n_circuits, n_layers, n_entanglers).
        mixed: Whether layers add up entanglers, and divide by the norm. If not, one weight is 1.
        kept: Takes the last state, (n_circuits, 1, planes, 2**n), or all, with n_layers + 1 for 1.
        scales: Takes what the sums are multiplied by: shape (n_circuits, n_layers).
    """
    starts, gates, sources, signs, weights = circuits
    planes, length = kept.shape[2:]
    rows, shape = np.empty((2, planes, min(length, 2**ROW_WIRES)), kept.dtype), (planes, length)
    for c in range(len(starts)):
        state, work = np.zeros(shape, kept.dtype), np.zeros(shape, kept.dtype)
        copy(starts[c : c + 1], 0, state, 0, length)
        copy(state, 0, kept[c, 0], 0, length)
        for layer in range(len(gates)):
            norm = 0.0
            for k in range(len(sources)):
                weight = weights[c, layer, k]
                if mixed or weight:
                    entangle(state, sources[k], signs[k], weight, False, mixed and k > 0, work)
            for plane in range(planes if mixed else 0):
                for i in range(length):
                    norm += work[plane, i] * work[plane, i]
            scales[c, layer] = 1 / np.sqrt(norm) if mixed else 1.0
            for plane in range(planes if mixed else 0):
                for i in range(length):
                    work[plane, i] *= scales[c, layer]
            rotate(work, gates[layer], rows)
            state, work = work, state
            copy(state, 0, kept[c, max(0, layer - len(gates) + kept.shape[1])], 0, length)


@_kernel
def backward(circuits, mixed, kept, scales, lam, of_gates, of_weights):  # noqa: D417
    """Carry gradients back through the circuits that :func:`forward` has run.

    Args:
        lam: That of the last states, shape (n_circuits, planes, 2**n); becomes that of the first.
        of_gates: Zeros, to which that of the gates is added, along unit quaternions.
        of_weights: Takes that of the weights, if ``mixed``.
    """
    _, gates, sources, signs, weights = circuits
    planes, length = kept.shape[2:]
    rows, shape = np.empty((4, planes, min(length, 2**ROW_WIRES)), kept.dtype), (planes, length)
    for c in range(len(lam)):
        psi, before = np.empty(shape, kept.dtype), np.zeros(shape, kept.dtype)
        now, then = lam[c], np.zeros(shape, kept.dtype)
        copy(kept[c, kept.shape[1] - 1], 0, psi, 0, length)
        for layer in range(len(gates) - 1, -1, -1):
            unrotate(psi, now, gates[layer], rows, of_gates[layer])
            scale = scales[c, layer]
            if mixed:
                copy(kept[c, layer], 0, before, 0, length)
            for k in range(len(sources)):
                weight, source, sign = scale * weights[c, layer, k], sources[k], signs[k]
                if mixed or weight:
                    entangle(now, source, sign, weight, True, mixed and k > 0, then)
                if mixed:
                    of_weights[c, layer, k] = scale * share(now, source, sign, before)
                elif weight:
                    entangle(psi, source, sign, weight, True, False, before)
            psi, before, now, then = before, psi, then, now
        copy(now, 0, lam[c], 0, length)
