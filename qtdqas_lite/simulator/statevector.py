"""From the gates of a layered circuit to the amplitudes of its last state: the plain path.

A layer is an entangler, which only reorders the basis states and changes signs, and then one gate
on every wire. Wire 0 is the most significant bit of a basis state's index, as in PennyLane.

Everything here is plain tensor operations, for every device and every derivative (chapter 02).
:mod:`.compiled` computes the same several times faster, on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CircuitError, check_fits, refuses
from .gates import quaternion_gates

#: Which entangler acts in each layer: None if there is only one, a number for each layer, or a
#: weight for each layer and entangler, shape (n_layers, n_entanglers).
Choice = Sequence[int] | Tensor | None


class Layers(NamedTuple):
    """All that a circuit is made of: what :func:`evolve` and :func:`.probabilities` take."""

    start: Tensor
    """Amplitudes before the first layer, shape (2**n,), norm 1; complex only if not ``real``."""
    quaternions: Tensor
    """The gate of each layer and wire as a unit quaternion (w, x, y, z), shape (n_layers, n, 4).
    It stands for w I - i (x X + y Y + z Z)."""
    permutations: Tensor
    """The entanglers as :func:`~qtdqas_lite.simulator.gates.entangler_permutation` gives them, of
    shape (2**n,), or (n_entanglers, 2**n) if there are several."""
    signs: Tensor | None = None
    """Their signs, of the same shape; by default all +1."""
    choice: Choice = None
    """Which of them acts in each layer. With weights, the layer is their weighted sum, and the
    state is then divided by its norm."""
    real: bool = False
    """Whether x and z are zero in every gate, and stay so. Amplitudes are then real numbers."""
    turning: Sequence[Sequence[int]] | None = None
    """The wires of each layer whose gates may differ from the identity, so that the fast path can
    leave the others out; by default all. The gradients are those of all gates."""

    @property
    def gates(self) -> Tensor:
        """The gates as matrices, real or complex, of shape (n_layers, n, 2, 2)."""
        return quaternion_gates(self.quaternions, real=self.real)

    def entangle(self, states: Tensor, layer: int) -> Tensor:
        """Apply a layer's entangler, or the weighted sum, to states of shape (..., 2**n)."""
        length = states.shape[-1]
        permutations = self.permutations.view(-1, length)
        signs = None if self.signs is None else self.signs.view(-1, length)

        def one(k: int) -> Tensor:
            moved = torch.index_select(states, -1, permutations[k])
            return moved if signs is None else moved * signs[k].to(self.quaternions.dtype)

        if not isinstance(self.choice, Tensor):
            return one(0 if self.choice is None else self.choice[layer])
        weights = self.choice[layer]
        return reduce(torch.add, [weights[k] * one(k) for k in range(len(weights))])


@refuses(CircuitError)
def evolve(layers: Layers) -> Tensor:
    """Run every layer.

    Returns:
        Amplitudes after the last layer, real or complex, shape (2**n,).
    """
    gates = layers.gates
    groups = [kron(group) for group in torch.split(gates, group_sizes(gates.shape[1]), 1)]
    state = layers.start.to(gates.dtype)
    for layer in range(len(gates)):
        state = layers.entangle(state, layer)
        if isinstance(layers.choice, Tensor):
            state = state / torch.linalg.vector_norm(state)
        for group in groups:
            state = apply_group(group[layer], state)
    return state


@refuses(CircuitError)
def apply_gate(state: Tensor, gate: Tensor, wire: int) -> Tensor:
    """Apply a 2x2 gate to one wire of a state, or of several, of shape (..., 2**n)."""
    cube = state.reshape(*state.shape[:-1], 2**wire, 2, -1)
    return torch.einsum("ab,...lbr->...lar", gate, cube).reshape(state.shape)


def group_sizes(n_qubits: int) -> list[int]:
    """Split the wires into neighbouring groups, each applied as one matrix product.

    Large matrices mean few calls, small ones little arithmetic: two groups are fastest up to 12
    qubits, groups of at most five above.
    """
    n_groups = min(2, n_qubits) if n_qubits <= 12 else -(-n_qubits // 5)
    size, larger = divmod(n_qubits, n_groups)
    return [size + 1] * larger + [size] * (n_groups - larger)


def kron(gates: Tensor) -> Tensor:
    """Multiply out the tensor product of gates: (n_layers, k, 2, 2) -> (n_layers, 2**k, 2**k)."""

    def pair(right: Tensor, left: Tensor) -> Tensor:
        (*front, a, _), b = left.shape, right.shape[-1]
        product = left.view(*front, a, 1, a, 1) * right.view(*front, 1, b, 1, b)
        return product.view(*front, a * b, a * b)

    return reduce(pair, reversed(gates.unbind(1)))  # from the right: long rows are multiplied fast


def apply_group(matrix: Tensor, states: Tensor) -> Tensor:
    """Apply the matrix of the group of wires that comes first in memory, and put the group last.

    When every group has been applied, the wires are in their order again. A matrix product may
    write its result in either order of axes, so the reordering costs nothing.

    Args:
        matrix: Shape (d, d).
        states: Shape (..., 2**n).
    """
    columns = states.view(*states.shape[:-1], len(matrix), -1)
    reordered: Tensor = columns.mT @ matrix.mT
    return reordered.flatten(-2)


def product_state(qubit: Tensor, n_qubits: int) -> Tensor:
    """Put the same state on every qubit: the n-th tensor power of shape (2,), by squaring."""
    state = qubit
    for bit in f"{n_qubits:b}"[1:]:
        state = torch.outer(state, state).flatten()
        if bit == "1":
            state = torch.outer(state, qubit).flatten()
    return state


def squares(state: Tensor) -> Tensor:
    """Square the sizes of amplitudes, real or complex."""
    if state.is_complex():
        return state.real * state.real + state.imag * state.imag
    return state * state


def transforms_active() -> bool:
    """Tell whether a transform of ``torch.func`` (grad, vmap, jvp, ...) is at work.

    These refuse a function with a gradient of its own, and cannot branch on values.
    """
    return torch._C._are_functorch_transforms_active()


def check_memory(n_qubits: int, n_states: int, *, real: bool) -> None:
    """Refuse what needs more states than fit into this machine's memory.

    Args:
        n_qubits: The number of qubits n.
        n_states: How many states are kept, beside a handful to work with.
        real: Whether they are real.

    Raises:
        CircuitError: if they do not fit.
    """
    # A handful of states to work with, the probabilities and their gradient, and indices.
    needed = 2 ** min(n_qubits, 60) * ((n_states + 4) * (4 if real else 8) + 12)
    advice = "use fewer qubits, or fewer layers of a relaxed circuit"
    check_fits(CircuitError, f"{n_qubits} qubits", needed, advice)
