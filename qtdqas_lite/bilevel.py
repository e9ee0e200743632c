"""Bilevel optimisation: move an architecture, and its weights follow (chapter 06).

Weights theta are trained for an architecture alpha on one loss, L_train(theta, alpha), and alpha is
judged with its trained weights on another, L_val(theta*(alpha), alpha). The gradient of that with
respect to alpha, the *hypergradient*, has a direct and an indirect part:

    d/dalpha L_val - d/dalpha (v . d/dtheta L_train),   with v held constant.                  (1)

The methods differ in v. A loss takes theta and alpha as two tuples, so that no model is copied: for
a module ``net`` whose parameters with ``requires_grad`` have the names ``names``, first theta's and
then alpha's (a generated network's frozen target is not among them), it returns
``criterion(torch.func.functional_call(net, dict(zip(names, theta + alpha)), inputs), labels)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import SearchError, check_callable, check_positive, check_whole

Tensors = tuple[Tensor, ...]
Loss = Callable[[Tensors, Tensors], Tensor]


def joint(train_loss: Loss, validation_loss: Loss, theta: Tensors, alpha: Tensors) -> Tensors:
    """Differentiate L_train instead: one level (arXiv 2505.09653). L_val is not called."""
    return _shaped(_gradient(_evaluate("training", train_loss, theta, alpha), alpha), alpha)


def first_order(train_loss: Loss, validation_loss: Loss, theta: Tensors, alpha: Tensors) -> Tensors:
    """Let the weights stay: v = 0 (arXiv 1806.09055 with xi = 0). L_train is not called."""
    return _shaped(_gradient(_evaluate("validation", validation_loss, theta, alpha), alpha), alpha)


def unrolled(
    train_loss: Loss,
    validation_loss: Loss,
    theta: Tensors,
    alpha: Tensors,
    *,
    learning_rate: float,
    exact: bool = True,
) -> Tensors:
    """Let the weights follow for one step: theta' = theta - xi d/dtheta L_train(theta, alpha).

    The result is the gradient of L_val(theta', alpha): DARTS, second order (arXiv 1806.09055, eq.
    7). In (1), L_val is taken at theta', and v = xi d/dtheta' L_val, with learning rate xi > 0. If
    not ``exact``, the indirect part is a difference of gradients (eq. 8); ReLUs can spoil it.
    """
    check_positive(learning_rate=learning_rate)
    value = _evaluate("training", train_loss, theta, alpha)
    gradient = _gradient(value, theta, create_graph=exact)
    ahead = _moved(theta, -learning_rate * gradient)
    loss = _evaluate("validation", validation_loss, ahead, alpha)
    vector, direct = _gradient(loss, ahead + alpha).tensor_split([len(gradient)])
    if exact:
        indirect = _gradient((gradient * vector).sum(), alpha)
    else:
        indirect = _difference(train_loss, theta, alpha, vector)
    return _shaped(direct - learning_rate * indirect, alpha)


def _difference(train_loss: Loss, theta: Tensors, alpha: Tensors, vector: Tensor) -> Tensor:
    """Differentiate the gradient in alpha along a vector of theta, from two gradients."""
    # Moving by h errs by about h^2 + eps / h, so h = eps^(1/3); DARTS takes 0.01.
    eps = max(torch.finfo(tensor.dtype).eps for tensor in theta + alpha)
    step = eps ** (1 / 3) / (vector.norm() or 1.0)
    moved = [_moved(theta, step * vector), _moved(theta, -step * vector)]
    ends = [_gradient(_evaluate("training", train_loss, t, alpha), alpha) for t in moved]
    difference: Tensor = (ends[0] - ends[1]) / (2 * step)
    return difference


def implicit(
    train_loss: Loss,
    validation_loss: Loss,
    theta: Tensors,
    alpha: Tensors,
    *,
    solver: Literal["cg", "neumann"] = "cg",
    iterations: int = 10,
    damping: float = 0.0,
    learning_rate: float | None = None,
) -> Tensors:
    """Let the weights follow to the new minimum: implicit function theorem (arXiv 1911.02590).

    In (1), v solves (H + damping I) v = d/dtheta L_val, with H the Hessian of L_train in theta. At
    theta*(alpha), with H positive definite and no damping, that gives the hypergradient itself.
    ``"cg"``, conjugate gradients, needs no more ``iterations`` (products with H) than theta has
    numbers. Do not trust it unless H + damping I is positive definite, as near a minimum: where the
    curvature is not positive, it stops with the v that it has; with none yet, that is an error.
    ``"neumann"`` sums v = eta sum_k (I - eta (H + damping I))^k d/dtheta L_val to k = iterations.
    Growing terms are an error: ``learning_rate`` eta must be below 2 / (largest eigenvalue).
    """
    eta = _step_length(solver, learning_rate, iterations, damping)
    value = _evaluate("training", train_loss, theta, alpha)
    gradient = _gradient(value, theta, create_graph=True)
    loss = _evaluate("validation", validation_loss, theta, alpha)
    right, direct = _gradient(loss, theta + alpha).tensor_split([len(gradient)])

    def product(v: Tensor) -> Tensor:
        along = _gradient((gradient * v).sum(), theta, retain_graph=True)
        return eta * (along + damping * v)

    solve = _conjugate_gradients if solver == "cg" else _neumann_series
    v = solve(product, eta * right, iterations)
    return _shaped(direct - _gradient((gradient * v).sum(), alpha), alpha)


METHODS: dict[str, Callable[..., Tensors]] = {
    "joint": joint,
    "first-order": first_order,
    "second-order": unrolled,
    "implicit": implicit,
}


def hypergradient(
    method: str,
    train_loss: Loss,
    validation_loss: Loss,
    theta: Tensors,
    alpha: Tensors,
    **options: Any,
) -> Tensors:
    """Return a hypergradient, detached, with alpha's shapes and dtypes; no ``.grad`` is touched.

    Args:
        method: ``"joint"``, ``"first-order"``, ``"second-order"`` (:func:`unrolled`) or
            ``"implicit"``.
        train_loss: ``train_loss(theta, alpha)`` gives a real tensor of shape (). Each call must see
            the same data. What it draws from torch's global generators (dropout, the choices of a
            circuit) is the same in every call here, and another in the next hypergradient. What a
            loss does not use has gradient 0.
        validation_loss: The same on other data.
        theta: The weights: tensors of any shapes that require gradients. They are not changed.
        alpha: The architecture, likewise.
        **options: The method's keyword arguments.

    Raises:
        SearchError: if an argument is not as described, or a loss or a gradient is not finite.
    """
    check_callable(SearchError, train_loss=train_loss, validation_loss=validation_loss)
    if method not in list(METHODS):
        raise SearchError(f"method must be one of {list(METHODS)}, got {method!r}")

    def again(loss: Loss, theta: Tensors, alpha: Tensors) -> Tensor:
        devices = {tensor.device for tensor in theta + alpha if tensor.is_cuda}
        with torch.random.fork_rng(list(devices)):  # each call begins where the first one began
            return loss(theta, alpha)

    losses = partial(again, train_loss), partial(again, validation_loss)
    found = METHODS[method](*losses, theta, alpha, **options)
    for device in {torch.device("cpu"), *(part.device for part in found)}:
        torch.rand((), device=device)
    return found


def _step_length(solver: str, learning_rate: Any, iterations: int, damping: float) -> float:
    """Check the options of :func:`implicit`, and give eta."""
    if solver not in ("cg", "neumann"):
        raise SearchError(f"solver must be 'cg' or 'neumann', got {solver!r}")
    check_whole(SearchError, 1, iterations=iterations)
    if not isinstance(damping, int | float) or not 0 <= damping < torch.inf:
        raise SearchError(f"damping must be a finite number of at least 0, got {damping!r}")
    if solver == "neumann":
        check_positive(learning_rate=learning_rate)
    return 1.0 if solver == "cg" else learning_rate


def _evaluate(which: str, loss: Loss, theta: Tensors, alpha: Tensors) -> Tensor:
    for name, tensors in (("theta", theta), ("alpha", alpha)):
        if not (isinstance(tensors, tuple) and tensors and all(t.requires_grad for t in tensors)):
            raise SearchError(f"{name} must be a tuple of tensors that require grad, not {tensors}")
    value = loss(theta, alpha)
    if not (isinstance(value, Tensor) and value.shape == () and value.isfinite()):
        raise SearchError(f"the {which} loss must be a finite tensor of shape (), got {value}")
    if not value.requires_grad:
        raise SearchError(f"the {which} loss depends neither on theta nor on alpha")
    return value


def _gradient(value: Tensor, inputs: Tensors, **options: Any) -> Tensor:
    if not value.requires_grad:  # such as a gradient that is constant
        return torch.cat([torch.zeros_like(tensor).flatten() for tensor in inputs])
    parts = torch.autograd.grad(value, inputs, materialize_grads=True, **options)
    gradient = torch.cat([part.flatten() for part in parts])
    if not gradient.isfinite().all():
        raise SearchError("a gradient is not finite; look for a power or a logarithm at 0")
    return gradient


def _shaped(vector: Tensor, like: Tensors) -> Tensors:
    parts = zip(torch.split(vector, [tensor.numel() for tensor in like]), like, strict=True)
    return tuple(part.view_as(tensor).to(tensor.dtype) for part, tensor in parts)


def _moved(theta: Tensors, move: Tensor) -> Tensors:
    return tuple(t.detach().requires_grad_() for t in map(torch.add, theta, _shaped(move, theta)))


def _conjugate_gradients(product: Callable[..., Tensor], right: Tensor, iterations: int) -> Tensor:
    solution, residual, direction = torch.zeros_like(right), right, right
    for step in range(iterations):
        image = product(direction)
        curvature = direction @ image
        if step == 0 and curvature <= 0 < right.norm():
            raise SearchError("no positive curvature; train theta further, or raise damping")
        if curvature <= 0 or residual.norm() <= torch.finfo(right.dtype).eps * right.norm():
            break  # where H is singular, a residual of rounding errors would grow
        length = residual @ residual / curvature
        solution = solution + length * direction
        previous, residual = residual, residual - length * image
        direction = residual + (residual @ residual) / (previous @ previous) * direction
    return solution


def _neumann_series(product: Callable[..., Tensor], right: Tensor, iterations: int) -> Tensor:
    total = term = right
    for _ in range(iterations):
        previous, term = term, term - product(term)
        if term.norm() > 1.001 * previous.norm():  # more than rounding, and so will all later ones
            raise SearchError("the Neumann series grows; lower learning_rate, or raise damping")
        total = total + term
    return total
