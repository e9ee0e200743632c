"""From the gates of a layered circuit to the probabilities of its outcomes (chapter 02).

A layer is an entangler, which only reorders the basis states and changes signs, and then one gate
on every wire. Wire 0 is the most significant bit of a basis state's index, as in PennyLane.

There are two paths. :func:`evolve` is the reference: plain tensor operations, for every device and
every derivative. :func:`probabilities` is the fast path: compiled loops, with a gradient of their
own. The tests hold one against the other, and both against PennyLane.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import CircuitError
from .gates import quaternion_gates
from .kronecker import group_sizes, kron, turn

#: Which entangler acts in each layer: None if there is only one, a number for each layer, or a
#: weight for each layer and entangler, shape (n_layers, n_entanglers). For several circuits,
#: numbers for each of them, shape (n_circuits, n_layers).
Choice = Sequence[int] | Sequence[Sequence[int]] | Tensor | None


class Layers(NamedTuple):
    """All that a circuit is made of: what :func:`evolve` and :func:`probabilities` take."""

    start: Tensor
    """Real amplitudes before the first layer, shape (2**n,), norm 1. Circuits with the same gates
    can run together, with a start each: (n_circuits, 2**n)."""
    quaternions: Tensor
    """The gate of each layer and wire as a unit quaternion (w, x, y, z), shape (n_layers, n, 4).
    It stands for w I - i (x X + y Y + z Z)."""
    permutations: Tensor
    """The entanglers as :func:`~qtdqas_lite.gates.entangler_permutation` gives them, of shape
    (2**n,), or (n_entanglers, 2**n) if there are several."""
    signs: Tensor | None = None
    """Their signs, of the same shape; by default all +1."""
    choice: Choice = None
    """Which of them acts in each layer. With weights, the layer is their weighted sum, and the
    state is then divided by its norm."""
    real: bool = False
    """Whether x and z are zero in every gate, and stay so. Amplitudes are then real numbers."""

    @property
    def gates(self) -> Tensor:
        """The gates as matrices, real or complex, of shape (n_layers, n, 2, 2)."""
        return quaternion_gates(self.quaternions, real=self.real)


def apply_gate(state: Tensor, gate: Tensor, wire: int) -> Tensor:
    """Apply a 2x2 gate to one wire of a state, or of several, of shape (..., 2**n)."""
    cube = state.reshape(*state.shape[:-1], 2**wire, 2, -1)
    return torch.einsum("ab,...lbr->...lar", gate, cube).reshape(state.shape)


def evolve(layers: Layers) -> Tensor:
    """Run every layer: the reference path.

    Returns:
        Amplitudes after the last layer, real or complex, of the shape of ``start``.
    """
    start, _, permutations, signs, choice, _ = layers
    gates = layers.gates
    sizes = group_sizes(gates.shape[1])
    matrices = [kron(group).unbind() for group in torch.split(gates, sizes, 1)]
    signs = None if signs is None else signs.to(layers.quaternions.dtype)
    moves = rows(permutations, start.shape[-1]), rows(signs, start.shape[-1])

    def run(state: Tensor, choice: Choice) -> Tensor:
        for layer, chosen in enumerate(per_layer(choice, len(gates))):
            state = entangle(state, *moves, chosen)
            if isinstance(chosen, Tensor):
                state = state / torch.linalg.vector_norm(state)
            for matrix in matrices:
                state = turn(matrix[layer], state)
        return state

    state = start.to(gates.dtype)
    if start.dim() == 1:
        return run(state, choice)
    choices: Any = [None] * len(state) if choice is None else choice
    return torch.stack([run(*pair) for pair in zip(state, choices, strict=True)])


def per_layer(choice: Choice, n_layers: int) -> Sequence[Any]:
    """Give each layer's entangler: a number, or weights of shape (n_entanglers,)."""
    if isinstance(choice, Tensor):
        return choice.unbind()
    return [0] * n_layers if choice is None else choice


def rows(pool: Tensor | None, size: int) -> Sequence[Tensor] | None:
    """Take the pool of permutations, or of signs, apart: one tensor for each entangler."""
    return None if pool is None else pool.view(-1, size).unbind()


def entangle(state: Tensor, permutations: Any, signs: Any, chosen: Any) -> Tensor:
    """Apply one entangler, or a weighted sum of all, to states of shape (..., 2**n)."""
    if isinstance(chosen, Tensor):
        parts = (entangle(state, permutations, signs, k) for k in range(len(chosen)))
        return reduce(torch.add, map(torch.mul, chosen, parts))
    moved: Tensor = torch.index_select(state, -1, permutations[chosen])
    return moved if signs is None else moved * signs[chosen]


def probabilities(layers: Layers) -> Tensor:
    """Run every layer and square the amplitudes: the fast path.

    The result and its gradients are those of ``evolve(layers).abs() ** 2``, along changes that
    keep quaternions unit quaternions. The gradient undoes the layers one by one, so that it needs
    the memory of a few states for any number of them; a weighted sum of entanglers cannot be
    undone, and takes a state for each layer.

    The loops run on the processor, in single or double precision, and are compiled when they are
    called for the first time. Elsewhere, under the transforms of ``torch.func``, and where a
    gradient is itself to be differentiated (``create_graph=True``), :func:`evolve` does the work,
    and it costs what that costs.

    Returns:
        Probabilities of the outcomes, shape (2**n,).

    Raises:
        CircuitError: if ``choice`` is not one choice for each layer, or shapes do not fit together.
    """
    start, quaternions, permutations, signs, choice, real = layers
    weights = choice if isinstance(choice, Tensor) else None
    needed = *start.shape[:-1], len(quaternions)
    order = np.zeros(needed, int) if choice is None or weights is not None else np.array(choice)
    given = order.shape if weights is None else tuple(weights.shape[:-1])
    if given != needed:
        raise CircuitError(
            f"there are {len(quaternions)} layers, and entanglers are chosen for {given[-1]}"
        )
    compiled = quaternions.device.type == "cpu" and quaternions.dtype in (torch.float, torch.double)
    if transforms_active() or not compiled or not len(quaternions):
        return squares(evolve(layers))
    keep_all = weights is not None and torch.is_grad_enabled()
    result: Tensor = _Probabilities.apply(  # type: ignore[no-untyped-call]
        quaternions, start, weights, permutations, signs, order, real, keep_all
    )
    return result


def transforms_active() -> bool:
    """Tell whether a transform of ``torch.func`` (grad, vmap, jvp, ...) is at work.

    These refuse a function with a gradient of its own, and cannot branch on values.
    """
    return torch._C._are_functorch_transforms_active()


def squares(state: Tensor) -> Tensor:
    """Square the sizes of amplitudes, real or complex."""
    if state.is_complex():
        return state.real * state.real + state.imag * state.imag
    return state * state


def check_memory(n_qubits: int, n_states: int, *, real: bool) -> None:
    """Refuse what needs more states than fit into this machine's memory.

    Args:
        n_qubits: The number of qubits n.
        n_states: How many states are kept, beside a handful to work with.
        real: Whether they are real.

    Raises:
        CircuitError: if they do not fit.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told by every operating system
        return
    # A handful of states to work with, the probabilities and their gradient, and indices.
    needed = 2 ** min(n_qubits, 200) * ((n_states + 4) * (4 if real else 8) + 12)
    if needed > memory:
        raise CircuitError(
            f"{n_qubits} qubits need about {needed / 1e9:,.0f} GB here, and this machine has "
            f"{memory / 1e9:,.0f} GB; use fewer qubits, or fewer layers of a relaxed circuit"
        )


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        quaternions: Tensor,
        start: Tensor,
        weights: Tensor | None,
        permutations: Tensor,
        signs: Tensor | None,
        order: Any,
        real: bool,
        keep_all: bool,
    ) -> Tensor:
        from .compiled import forward  # takes a moment, and is of no use without a circuit

        starts, layers, orders, shares = _arrays(
            quaternions, start, weights, permutations, signs, order
        )
        gates = layers[0]
        n_states = len(gates) + 1 if keep_all else 1
        kept = np.zeros((len(starts), n_states, 2 - real, starts.shape[1]), gates.dtype)
        kept[:, 0, 0] = starts
        scales = np.empty((len(starts), len(gates)), gates.dtype)
        for run in zip(orders, shares, kept, scales, strict=True):
            forward(layers, *run)
        ctx.order, ctx.real, ctx.arrays = order, real, (layers, orders, shares)
        # PyTorch counts, moves and watches what it saves, and so notices what is changed meanwhile.
        saved = torch.from_numpy(kept), torch.from_numpy(scales)
        ctx.save_for_backward(quaternions, start, weights, permutations, signs, *saved)
        return torch.from_numpy(np.square(kept[:, -1]).sum(1)).view(start.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The caller may want to differentiate this gradient again, or many gradients at once.
        batched = transforms_active() or torch._C._functorch.is_legacy_batchedtensor(grad)
        plain = torch.is_grad_enabled() or batched
        found = _plain_gradients(ctx, grad) if plain else _fast_gradients(ctx, grad)
        return *found, None, None, None, None, None


def _plain_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Differentiate the reference path: quaternions, start, weights; and let that be repeated."""
    quaternions, start, weights, permutations, signs, *_ = ctx.saved_tensors
    leaves = quaternions, start, weights
    inputs = [t for t in leaves if t is not None and t.requires_grad]
    choice = ctx.order if weights is None else weights
    with torch.enable_grad():
        p = squares(evolve(Layers(start, quaternions, permutations, signs, choice, ctx.real)))
    found = iter(torch.autograd.grad(p, inputs, grad, create_graph=torch.is_grad_enabled()))
    return [next(found) if t is not None and t.requires_grad else None for t in leaves]


def _fast_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Carry the gradient back through the layers: quaternions, start and weights."""
    from .compiled import along_quaternions, backward

    _, start, weights, _, _, *saved = ctx.saved_tensors
    kept, scales = (tensor.numpy() for tensor in saved)
    layers, orders, shares = ctx.arrays
    slopes = _array(grad, grad.dtype).reshape(len(kept), -1)
    if weights is not None:  # a norm was divided out: along it there is no gradient
        slopes = slopes - (slopes * np.square(kept[:, -1]).sum(1)).sum(1, keepdims=True)
    lam = 2 * slopes[:, None] * kept[:, -1]
    of_weights = np.empty((*scales.shape, len(layers[1])), scales.dtype)
    runs = zip(orders, shares, kept, scales, lam, of_weights, strict=True)
    of_gates = along_quaternions(layers[0], sum(backward(layers, *run) for run in runs))
    return [
        torch.from_numpy(of_gates),
        torch.from_numpy(lam[:, 0]).view(start.shape).to(start),
        None if weights is None else torch.from_numpy(of_weights).view(weights.shape).to(weights),
    ]


def _arrays(
    quaternions: Tensor,
    start: Tensor,
    weights: Tensor | None,
    permutations: Tensor,
    signs: Tensor | None,
    order: Any,
) -> tuple[Any, ...]:
    """Prepare what the compiled loops take: starts, layers, and choices, one for each circuit."""
    dtype, length = quaternions.dtype, start.shape[-1]
    starts, gates = _array(start, dtype).reshape(-1, length), _array(quaternions, dtype)
    sources = _array(permutations.view(-1, length), torch.int32).view(np.uint32)
    if signs is None:
        changes = np.ones(sources.shape, gates.dtype)
    else:
        changes = _array(signs.view(-1, length), dtype)
    if weights is None:
        shares, n_chosen = [None] * len(starts), order.max() + 1
    else:
        shares, n_chosen = _array(weights, dtype), weights.shape[-1]
        shares = shares.reshape(-1, len(gates), n_chosen)
    # The loops trust their arguments, and would read and write elsewhere.
    fits = gates.shape[2:] == (4,) and 2 ** gates.shape[1] == length and sources.max() < length
    enough = n_chosen <= len(sources) if weights is None else n_chosen == len(sources)
    if not fits or changes.shape != sources.shape or not enough:
        raise CircuitError(
            f"these layers do not fit together: a start of {length} amplitudes, quaternions of "
            f"shape {tuple(quaternions.shape)}, permutations of shape {sources.shape} and up to "
            f"{sources.max()}, signs of shape {changes.shape}, {n_chosen} weights a layer"
        )
    orders = order.reshape(-1, len(gates)).tolist()
    return starts, (gates, sources, changes), orders, shares


def _array(tensor: Tensor, dtype: torch.dtype) -> Any:
    """View a tensor as an array whose entries follow each other in memory, or make one."""
    tensor = tensor if tensor.dtype == dtype else tensor.to(dtype)
    return tensor.contiguous().numpy(force=True)
