"""From the gates of a layered circuit to the probabilities of its outcomes: the fast path.

The compiled loops run the circuit gate by gate, and a gradient of their own undoes it.
The tests hold this path against :func:`.evolve`, and both against PennyLane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CircuitError, refuses
from .statevector import Layers, evolve, squares, transforms_active


@refuses(CircuitError)
def probabilities(layers: Layers) -> Tensor:
    """Run every layer and square the amplitudes.

    The result and its gradients are those of ``evolve(layers).abs() ** 2``, along changes that
    keep quaternions unit quaternions. The gradient undoes the layers one by one, so that it needs
    the memory of a few states for any number of them; a weighted sum of entanglers cannot be
    undone, and takes a state for each layer.

    The loops run on the processor, in single or double precision, and are compiled when they are
    called for the first time. Elsewhere, under the transforms of ``torch.func``, and where a
    gradient is itself to be differentiated (``create_graph=True``), :func:`.evolve` does the work,
    and it costs what that costs.

    Returns:
        Probabilities of the outcomes, shape (2**n,).

    Raises:
        CircuitError: if ``choice`` is not one choice for each layer, or shapes do not fit together.
    """
    start, quaternions, permutations, signs, choice, real, turning = layers
    n_layers = len(quaternions)
    if choice is not None and len(choice) != n_layers:
        raise CircuitError(
            f"there are {n_layers} layers, and entanglers are chosen for {len(choice)}"
        )
    fast = quaternions.device.type == "cpu" and quaternions.dtype in (torch.float, torch.double)
    if transforms_active() or not fast or not n_layers:
        return squares(evolve(layers))
    weights = choice if isinstance(choice, Tensor) else None
    order = [0] * n_layers if choice is None or isinstance(choice, Tensor) else list(choice)
    keep_all = weights is not None and torch.is_grad_enabled()
    plan = order, real, None if real else turning
    result: Tensor = _Probabilities.apply(  # type: ignore[no-untyped-call]
        quaternions, start, weights, permutations, signs, plan, keep_all
    )
    return result


# Which entangler acts in each layer, whether all is real, and the wires whose gates may turn.
_Plan = tuple[list[int], bool, Sequence[Sequence[int]] | None]


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        quaternions: Tensor,
        start: Tensor,
        weights: Tensor | None,
        permutations: Tensor,
        signs: Tensor | None,
        plan: _Plan,
        keep_all: bool,
    ) -> Tensor:
        from . import passes  # importing numba takes a moment, and is of no use without a circuit

        arrays = _arrays(quaternions, start, weights, permutations, signs, plan)
        gates, dtype = arrays[0], arrays[0].dtype
        planes = 1 if plan[1] else 2
        kept = np.zeros((len(gates) + 1 if keep_all else 1, planes, len(start)), dtype)
        amplitudes = start.numpy(force=True)
        kept[0, 0] = amplitudes.real
        if start.is_complex():
            kept[0, 1] = amplitudes.imag
        norms = np.ones(len(gates), dtype)
        passes.forward(arrays, kept, norms)
        ctx.arrays, ctx.plan = arrays, plan
        # PyTorch counts, moves and watches what it saves, and so notices what is changed meanwhile.
        saved = torch.from_numpy(kept), torch.from_numpy(norms)
        ctx.save_for_backward(quaternions, start, weights, permutations, signs, *saved)
        return torch.from_numpy(np.square(kept[-1]).sum(0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The caller may want to differentiate this gradient again, or many gradients at once.
        batched = transforms_active() or torch._C._functorch.is_legacy_batchedtensor(grad)
        plain = torch.is_grad_enabled() or batched
        found = _plain_gradients(ctx, grad) if plain else _fast_gradients(ctx, grad)
        return *found, None, None, None, None


def _plain_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Differentiate the plain path: quaternions, start, weights; and let that be repeated."""
    quaternions, start, weights, permutations, signs, *_ = ctx.saved_tensors
    leaves = quaternions, start, weights
    inputs = [t for t in leaves if t is not None and t.requires_grad]
    order, real, _ = ctx.plan
    choice = order if weights is None else weights
    with torch.enable_grad():
        p = squares(evolve(Layers(start, quaternions, permutations, signs, choice, real)))
    found = iter(torch.autograd.grad(p, inputs, grad, create_graph=torch.is_grad_enabled()))
    return [next(found) if t is not None and t.requires_grad else None for t in leaves]


def _fast_gradients(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Carry the gradient back through the layers: quaternions, start and weights."""
    from . import passes

    _, start, weights, _, _, *saved = ctx.saved_tensors
    kept, norms = (tensor.numpy() for tensor in saved)
    of_p = _array(grad, grad.dtype)
    if weights is not None:  # a norm was divided out: along it there is no gradient
        of_p = of_p - (of_p * np.square(kept[-1]).sum(0)).sum()
    lam = 2 * of_p * kept[-1]
    of_weights = None if weights is None else np.empty(weights.shape, lam.dtype)
    slopes = passes.backward(ctx.arrays, kept, norms, lam, of_weights)
    return [
        torch.from_numpy(along_quaternions(ctx.arrays[0], slopes)),
        torch.from_numpy(lam[0] + 1j * lam[1] if start.is_complex() else lam[0]).to(start),
        None if weights is None else torch.from_numpy(of_weights).to(weights),
    ]


def along_quaternions(gates: Any, slopes: Any) -> Any:
    """Turn slopes into the gradient of gates, shape (n_layers, n, 4).

    A rotation by 2 eps behind a gate multiplies its quaternion q by 1 + eps i, j or k from the
    left, and psi by 1 - i eps P. So the gradient is the sum of slopes times i q, j q and k q.
    """
    w, x, y, z = np.moveaxis(gates, -1, 0)
    a, b, c = np.moveaxis(slopes, -1, 0)
    parts = (
        -a * x - b * y - c * z,
        a * w + b * z - c * y,
        -a * z + b * w + c * x,
        a * y - b * x + c * w,
    )
    return np.stack(parts, -1)


def _arrays(
    quaternions: Tensor,
    start: Tensor,
    weights: Tensor | None,
    permutations: Tensor,
    signs: Tensor | None,
    plan: _Plan,
) -> tuple[Any, ...]:
    """Prepare what the loops take, and check it: they trust it, and would read elsewhere."""
    order, real, turning = plan
    dtype, length = quaternions.dtype, len(start)
    gates = _array(quaternions, dtype)
    sources = _array(permutations.view(-1, length), torch.int32).view(np.uint32)
    if signs is None:
        changes = np.ones(sources.shape, gates.dtype)
    else:
        changes = _array(signs.view(-1, length), dtype)
    shares = None if weights is None else _array(weights, dtype)
    fits = gates.shape[2:] == (4,) and 2 ** gates.shape[1] == length and sources.max() < length
    n_chosen = max(order) + 1 if shares is None else shares.shape[-1]
    enough = n_chosen <= len(sources) if shares is None else n_chosen == len(sources)
    fits = fits and not (real and start.is_complex()) and len(turning or gates) == len(gates)
    if not fits or changes.shape != sources.shape or not enough:
        raise CircuitError(
            f"these layers do not fit together: a start of {length} amplitudes ({start.dtype}, and "
            f"{real=}), quaternions of shape {tuple(quaternions.shape)}, permutations of shape "
            f"{sources.shape} and up to {sources.max()}, signs of shape {changes.shape}, and "
            f"{n_chosen} weights a layer"
        )
    return gates, sources, changes, order, shares, turning


def _array(tensor: Tensor, dtype: torch.dtype) -> Any:
    """View a tensor as an array whose entries follow each other in memory, or make one."""
    tensor = tensor if tensor.dtype == dtype else tensor.to(dtype)
    return tensor.contiguous().numpy(force=True)
