"""Both simulators against dense matrices, and the fast one against the plain one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from qtdqas_lite import CircuitError
from qtdqas_lite.gates import entangler_permutation
from qtdqas_lite.statevector import evolve, probabilities

POOL = ("ring", "cz-ring", "reversed")
CHOICES = {
    "one": None,
    "numbers": [2, 0, 1],
    "weights": torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.9, 0.1], [1.5, -0.4, 0.3]]).double(),
}


def problem(n, generator, *, real=False, copies=1):
    """Random unitary gates of three layers, a random start, and the pool of entanglers."""
    dtype = torch.double if real else torch.cdouble
    gates = torch.linalg.qr(torch.randn(3, n, 2, 2, dtype=dtype, generator=generator)).Q
    start = torch.randn(copies, 2**n, dtype=torch.double, generator=generator)
    start = torch.nn.functional.normalize(start, dim=-1).flatten()
    permutations, signs = zip(*[entangler_permutation(name, n) for name in POOL], strict=True)
    return start, gates, torch.stack(permutations), torch.stack(signs)


def entangler_matrix(source, sign):
    return np.diag(sign.numpy()) @ np.eye(len(source))[source.numpy()]


def dense(start, gates, permutations, signs, choice):
    """The oracle: one matrix after another, in numpy."""
    state = start.numpy()
    matrices = [entangler_matrix(*pair) for pair in zip(permutations, signs, strict=True)]
    choice = [0] * len(gates) if choice is None else choice
    for layer, chosen in zip(gates.numpy(), choice, strict=True):
        if isinstance(chosen, torch.Tensor):
            state = sum(w * m for w, m in zip(chosen.numpy(), matrices, strict=True)) @ state
            state = state / np.linalg.norm(state)
        else:
            state = matrices[chosen] @ state
        product = np.eye(1)
        for gate in layer:
            product = np.kron(product, gate)
        state = product @ state
    return np.abs(state) ** 2


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("real", [True, False])
def test_both_paths_multiply_matrices(n, choice, real, generator):
    parts = problem(n, generator, real=real)
    expected = dense(*parts, choice)
    np.testing.assert_allclose(evolve(*parts, choice).abs() ** 2, expected, atol=1e-14)
    np.testing.assert_allclose(probabilities(*parts, choice), expected, atol=1e-14)
    if choice is not CHOICES["weights"]:
        found = probabilities(*parts, choice, reversible=True)
        np.testing.assert_allclose(found, expected, atol=1e-14)
    permutations = parts[2][0], parts[3][0]
    if choice is None:  # a single entangler may come without a dimension for the pool
        single = probabilities(*parts[:2], *permutations)
        np.testing.assert_allclose(single, expected, atol=1e-14)


# One group of wires, two, two at the limit, three, four.
@pytest.mark.parametrize("n", [1, 3, 6, 12, 13, 16])
@pytest.mark.parametrize("way", [*CHOICES, "one, reversible", "numbers, reversible"])
@pytest.mark.parametrize("real", [True, False])
def test_the_fast_gradient_is_the_plain_one(n, way, real, generator):
    choice, reversible = CHOICES[way.split(",")[0]], "reversible" in way
    weighted = way == "weights"
    start, gates, *pool = problem(n, generator, real=real)
    cotangent = torch.randn(2**n, 2, dtype=torch.double, generator=generator)[:, 0]
    leaves = [start.requires_grad_(), gates.requires_grad_()]
    if weighted:
        choice = choice.clone().requires_grad_()
        leaves.append(choice)
    fast = probabilities(start, gates, *pool, choice, reversible=reversible)
    plain = evolve(start, gates, *pool, choice).abs() ** 2
    torch.testing.assert_close(fast, plain, atol=1e-13, rtol=1e-9)
    found, expected = (torch.autograd.grad(p, leaves, cotangent) for p in (fast, plain))
    # Gates are unitary, and a start has norm 1: the rest of a gradient has no meaning.
    for one, two, leaf in zip(found, expected, leaves, strict=True):
        torch.testing.assert_close(
            tangent(one, leaf), tangent(two, leaf), atol=1e-12, rtol=1e-8, msg=str(leaf.shape)
        )


def tangent(gradient, leaf):
    """The part of a gradient along which a unit vector stays one, and a unitary matrix unitary."""
    if leaf.dim() == 1:
        return gradient - (gradient @ leaf) * leaf
    return gradient if leaf.dim() == 2 else leaf.mH @ gradient - gradient.mH @ leaf


def test_a_start_may_be_complex(generator):
    _, gates, *pool = problem(3, generator)
    start = torch.randn(8, dtype=torch.cdouble, generator=generator)
    start = torch.nn.functional.normalize(start, dim=0).requires_grad_()
    paths = probabilities(start, gates, *pool), evolve(start, gates, *pool).abs() ** 2
    found, expected = (torch.autograd.grad(p[5], start)[0] for p in paths)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_start_may_be_a_view_that_is_conjugate(choice, generator):
    _, gates, *pool = problem(3, generator)
    start = torch.nn.functional.normalize(
        torch.randn(8, dtype=torch.cdouble, generator=generator), dim=0
    )
    gates = gates.requires_grad_()
    slopes = [
        torch.autograd.grad(probabilities(s, gates, *pool, choice)[5], gates)[0]
        for s in (start.conj(), start.conj().resolve_conj())
    ]
    assert torch.equal(*slopes)


@pytest.mark.parametrize("dtype", [torch.long, torch.float, torch.double])
@pytest.mark.parametrize("precision", [torch.cfloat, torch.cdouble])
def test_weights_and_signs_may_have_another_dtype(dtype, precision, generator):
    start, gates, permutations, signs = problem(3, generator)
    weights = torch.tensor([[1, 0, 2], [0, 1, 0], [1, 1, 1]])
    expected = dense(start, gates, permutations, signs, weights.double())
    start, gates = start.to(precision.to_real()), gates.to(precision).requires_grad_()
    for choice, changed in ((weights.to(dtype), signs), (weights, signs.to(dtype))):
        found = probabilities(start, gates, permutations, changed, choice)
        np.testing.assert_allclose(found.detach(), expected, atol=1e-6)
        found[3].backward()
    order = probabilities(start, gates, permutations, signs.to(dtype), [1, 2, 0])
    order[3].backward()
    assert gates.grad.isfinite().all()


def test_there_is_one_choice_for_each_layer(generator):
    for choice in ([0, 1], [0, 1, 2, 0], CHOICES["weights"][:2]):
        with pytest.raises(CircuitError, match=f"3 layers, and entanglers .* for {len(choice)}"):
            probabilities(*problem(2, generator), choice)


def test_no_layers_leave_the_start(generator):
    start, gates, *pool = problem(2, generator)
    torch.testing.assert_close(probabilities(start, gates[:0], *pool), start**2)


def test_threads_may_share_a_graph(generator):
    """Nothing that one backward pass writes to may be seen by another."""
    start, gates, *pool = problem(13, generator)
    p = probabilities(start, gates.requires_grad_(), *pool, CHOICES["weights"])
    cotangents = torch.randn(8, len(p), dtype=torch.double, generator=generator)

    def slope(cotangent):
        return torch.autograd.grad(p, gates, cotangent, retain_graph=True)[0]

    expected = [slope(cotangent) for cotangent in cotangents]
    with ThreadPoolExecutor(4) as pool_of_threads:
        for _ in range(3):
            for one, other in zip(pool_of_threads.map(slope, cotangents), expected, strict=True):
                torch.testing.assert_close(one, other)


def test_a_batch_of_gradients_under_vmap(generator):
    start, gates, *pool = problem(3, generator)
    gates = gates.requires_grad_()
    cotangents = torch.randn(4, 8, dtype=torch.double, generator=generator)
    p = probabilities(start, gates, *pool)

    def slope(cotangent):
        return torch.autograd.grad(p, gates, cotangent, retain_graph=True)[0]

    together = torch.vmap(slope)(cotangents)
    for one, cotangent in zip(together, cotangents, strict=True):
        torch.testing.assert_close(tangent(one, gates), tangent(slope(cotangent), gates))


def test_single_gradients_are_asked_for_alone(generator):
    for wanted in range(3):
        start, gates, *pool = problem(2, generator)
        leaves = [start, gates, CHOICES["weights"].clone()]
        leaf = leaves[wanted].requires_grad_()
        fast = probabilities(*leaves[:2], *pool, leaves[2])
        (slope,) = torch.autograd.grad(fast[1], leaf, create_graph=True)
        assert slope.requires_grad
        (again,) = torch.autograd.grad(fast[1], leaf)
        torch.testing.assert_close(tangent(again, leaf), tangent(slope.detach(), leaf))


@pytest.mark.parametrize("choice", [None, [1, 2, 0]], ids=["one", "numbers"])
def test_copies_side_by_side_are_as_each_alone(choice, generator):
    start, gates, permutations, signs = problem(3, generator, copies=2)
    shifted = torch.stack([permutations, permutations.flip(0) + 8], 2).flatten(1)
    both = torch.stack([signs, signs.flip(0)], 2).flatten(1)
    expected = []
    for i, (p, s) in enumerate([(permutations, signs), (permutations.flip(0), signs.flip(0))]):
        expected.append(evolve(start[8 * i : 8 * i + 8], gates, p, s, choice).abs() ** 2)
    cotangent = torch.randn(16, dtype=torch.double, generator=generator)
    gates = gates.requires_grad_()
    for reversible in (False, True):
        found = probabilities(start, gates, shifted, both, choice, reversible=reversible)
        torch.testing.assert_close(found, torch.cat(expected))
        plain = evolve(start, gates, shifted, both, choice).abs() ** 2
        torch.testing.assert_close(plain, found)
        slopes = [torch.autograd.grad(p, gates, cotangent)[0] for p in (found, plain)]
        torch.testing.assert_close(*(tangent(slope, gates) for slope in slopes))


def test_many_layers_are_taken_in_blocks(generator):
    """The gradient collects the states of many layers: of all sizes, whole and broken blocks."""
    n, n_layers = 13, 9  # blocks of four
    start, gates, *pool = problem(n, generator, real=True)
    gates = gates.repeat(3, 1, 1, 1)[:n_layers].requires_grad_()
    cotangent = torch.randn(2**n, dtype=torch.double, generator=generator)
    order = [0, 1, 2] * 3
    fast = probabilities(start, gates, *pool, order)
    plain = evolve(start, gates, *pool, order) ** 2
    slopes = [torch.autograd.grad(p, gates, cotangent)[0] for p in (fast, plain)]
    torch.testing.assert_close(*(tangent(slope, gates) for slope in slopes), atol=1e-12, rtol=1e-8)


def test_a_sum_of_entanglers_cannot_be_reversed(generator):
    with pytest.raises(CircuitError, match="cannot be undone"):
        probabilities(*problem(2, generator), CHOICES["weights"], reversible=True)


def test_two_forward_passes_before_the_first_backward_pass(generator):
    start, gates, *pool = problem(3, generator)
    one, other = gates.requires_grad_(), gates.detach().roll(1, 0).requires_grad_()
    (alone,) = torch.autograd.grad(probabilities(start, one, *pool)[3], one)
    first, _second = probabilities(start, one, *pool), probabilities(start, other, *pool)
    (interleaved,) = torch.autograd.grad(first[3], one)
    assert torch.equal(alone, interleaved)


@pytest.mark.parametrize("form", ["transposed", "expanded", "strided", "layers last"])
def test_gates_may_lie_in_memory_in_any_way(form, generator):
    start, gates, *pool = problem(3, generator)
    gates = {
        "transposed": gates.mT,
        "expanded": gates[:1].expand(3, 3, 2, 2),
        "strided": torch.stack([gates, gates], 1)[:, 0],
        "layers last": gates.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }[form].requires_grad_()
    fast = probabilities(start, gates, *pool)
    expected = dense(start, gates.detach(), *pool, None)
    np.testing.assert_allclose(fast.detach(), expected, atol=1e-14)
    fast.sum().backward()  # with a cotangent that is expanded
