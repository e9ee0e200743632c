"""A circuit forward, and a gradient back through it, one compiled loop after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import loops


def forward(arrays: tuple[Any, ...], kept: Any, norms: Any) -> None:
    """Run a circuit.

    Args:
        arrays: Gates, (n_layers, n, 4); the sources and signs of all entanglers, (n_entanglers,
            2**n); which of them acts in each layer; and None, or weights of shape (n_layers,
            n_entanglers) in its place: layers then add up entanglers, and divide by the norm; and
            the wires of each layer whose gate is not the identity, or None if all may be such.
        kept: Holds the first state, and then the last one, (1, planes, 2**n), or all of them, with
            n_layers + 1 in place of 1.
        norms: Takes what sums are divided by, shape (n_layers,).
    """
    gates, sources, signs, order, weights, turning = arrays
    state, real, one = kept[0], kept.shape[1] == 1, gates.dtype.type(1)
    work, blocks, no_slopes = np.zeros_like(state), _blocks(state), np.empty((0, 3), gates.dtype)
    for layer, of_layer in enumerate(gates):
        out = kept[layer + 1] if len(kept) > 1 else work
        if weights is None:
            k = order[layer]
            loops.entangle(state, sources[k], signs[k], one, False, False, out)
        else:
            for k, weight in enumerate(weights[layer]):
                loops.entangle(state, sources[k], signs[k], weight, False, k > 0, out)
            norms[layer] = np.linalg.norm(out)
            out /= norms[layer]
        if turning is None or len(turning[layer]) == len(of_layer):
            loops.rotate(out, of_layer, real, blocks, no_slopes)
        else:
            for wire in turning[layer]:
                loops.turn(out, wire, of_layer[wire])
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
    gates, sources, signs, order, weights, turning = arrays
    inverse = gates * np.array([1, -1, -1, -1], gates.dtype)
    slopes = np.zeros((*gates.shape[:2], 3), gates.dtype)
    planes, one = len(lam), gates.dtype.type(1)
    both = np.concatenate([kept[-1], lam])  # psi, and lam behind it
    work, blocks = np.zeros_like(both), _blocks(both)
    for layer in reversed(range(len(gates))):
        if turning is None or len(turning[layer]) == gates.shape[1]:
            loops.rotate(both, inverse[layer], planes == 1, blocks, slopes[layer])
        else:
            loops.overlaps(both, work, slopes[layer])
            for wire in turning[layer]:
                loops.turn(both, wire, inverse[layer, wire])
        if weights is None:
            k = order[layer]
            loops.entangle(both, sources[k], signs[k], one, True, False, work)
        else:  # a sum cannot be undone
            work[:planes] = kept[layer]
            for k, weight in enumerate(weights[layer] / norms[layer]):
                entangler = sources[k], signs[k]
                loops.entangle(both[planes:], *entangler, weight, True, k > 0, work[planes:])
                of_weights[layer, k] = (
                    loops.share(both[planes:], *entangler, kept[layer]) / norms[layer]
                )
        both, work = work, both
    lam[:] = both[planes:]
    return slopes


def _blocks(state: Any) -> Any:
    """Make two blocks to work in."""
    planes, length = state.shape
    return np.empty((2, planes, min(length, 2**loops.BLOCK_WIRES)), state.dtype)
