"""Both simulators against dense matrices, and the fast one against the plain one."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from qtdqas_lite import CircuitError
from qtdqas_lite.simulator import Layers, evolve, probabilities
from qtdqas_lite.simulator.gates import entangler_permutation

POOL = ("ring", "cz-ring", "reversed")
CHOICES = {
    "one": None,
    "numbers": [2, 0, 1],
    "weights": torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.9, 0.1], [1.5, -0.4, 0.3]]).double(),
}


def problem(n, generator, *, choice=None, real=False, n_layers=3):
    """Random gates, a random start, and the pool of entanglers, in double precision."""
    quaternions = torch.randn(n_layers, n, 4, dtype=torch.double, generator=generator)
    if real:
        quaternions[..., [1, 3]] = 0
    start = torch.randn(2**n, dtype=torch.double, generator=generator)
    permutations, signs = zip(*[entangler_permutation(name, n) for name in POOL], strict=True)
    entanglers = torch.stack(permutations), torch.stack(signs)
    return Layers(
        normalize(start, dim=0), normalize(quaternions, dim=-1), *entanglers, choice, real
    )


def entangler_matrix(source, sign):
    return np.diag(sign.numpy()) @ np.eye(len(source))[source.numpy()]


def matrix(quaternion):
    """The gate w I - i (x X + y Y + z Z)."""
    w, x, y, z = quaternion.tolist()
    return np.array([[w - 1j * z, -y - 1j * x], [y - 1j * x, w + 1j * z]])


def dense(layers):
    """The oracle: one matrix after another, in numpy."""
    state = layers.start.detach().numpy()
    pairs = zip(layers.permutations, layers.signs, strict=True)
    matrices = [entangler_matrix(*pair) for pair in pairs]
    choice = [0] * len(layers.quaternions) if layers.choice is None else layers.choice
    for layer, chosen in zip(layers.quaternions.detach(), choice, strict=True):
        if isinstance(chosen, torch.Tensor):
            state = sum(w * m for w, m in zip(chosen.numpy(), matrices, strict=True)) @ state
            state = state / np.linalg.norm(state)
        else:
            state = matrices[chosen] @ state
        product = np.eye(1)
        for quaternion in layer:
            product = np.kron(product, matrix(quaternion))
        state = product @ state
    return np.abs(state) ** 2


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("real", [True, False])
def test_both_paths_multiply_matrices(n, choice, real, generator):
    layers = problem(n, generator, choice=choice, real=real)
    expected = dense(layers)
    np.testing.assert_allclose(evolve(layers).abs() ** 2, expected, atol=1e-14)
    np.testing.assert_allclose(probabilities(layers), expected, atol=1e-14)
    assert evolve(layers).is_complex() == (not real)
    if choice is None:  # a single entangler may come without a dimension for the pool
        single = layers._replace(permutations=layers.permutations[0], signs=layers.signs[0])
        for found in (probabilities(single), evolve(single).abs() ** 2):
            np.testing.assert_allclose(found, expected, atol=1e-14)


def slopes_of_both(layers, generator, wanted=("start", "quaternions", "choice")):
    """Gradients by both paths with respect to what is wanted, along what has a meaning."""
    leaves = {name: getattr(layers, name) for name in wanted}
    leaves = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in leaves.items()}
    layers = layers._replace(**leaves)
    # a view whose entries do not follow one another
    cotangent = torch.randn(*layers.start.shape, 2, dtype=layers.start.dtype, generator=generator)
    fast, plain = probabilities(layers), evolve(layers).abs() ** 2
    gradients = [
        torch.autograd.grad(p, list(leaves.values()), cotangent[..., 0]) for p in (fast, plain)
    ]
    slopes = [
        {name: tangent(name, slope, leaf) for (name, leaf), slope in zip(*pair, strict=True)}
        for pair in ((leaves.items(), gradient) for gradient in gradients)
    ]
    return (fast, *slopes[:1]), (plain, *slopes[1:])


def tangent(name, gradient, leaf):
    """The part of a gradient along which a unit vector or a unit quaternion stays one."""
    if name == "choice":
        return gradient
    return gradient - (gradient * leaf).sum(-1, keepdim=True) * leaf


# A row of one wire, of three, two, eleven; two rows, and thirty-two.
@pytest.mark.parametrize("n", [1, 2, 3, 11, 12, 16])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("real", [True, False])
def test_the_fast_gradient_is_the_plain_one(n, choice, real, generator):
    fast, plain = slopes_of_both(problem(n, generator, choice=choice, real=real), generator)
    if real:  # the plain path does not look at x and z, so they have no slope there
        for slopes in (fast[1], plain[1]):
            slopes["quaternions"] = slopes["quaternions"][..., ::2]
    torch.testing.assert_close(fast, plain, atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_single_precision_is_as_good(choice, generator):
    layers = problem(12, generator, choice=choice)
    double, _ = slopes_of_both(layers, generator)
    single = Layers(
        *(t.float() if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in layers)
    )
    generator.manual_seed(1)
    (p, slopes), (plain, expected) = slopes_of_both(single, generator)
    assert p.dtype == torch.float
    torch.testing.assert_close(p, double[0].float(), atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(p, plain, atol=1e-7, rtol=1e-4)
    for name, slope in slopes.items():
        assert slope.dtype == torch.float
        assert (slope - expected[name]).abs().max() < 1e-4 * expected[name].abs().max()


def test_gradients_stay_along_unit_quaternions(generator):
    layers = problem(4, generator)
    quaternions = layers.quaternions.requires_grad_()
    (slope,) = torch.autograd.grad(probabilities(layers)[3], quaternions)
    assert (slope * quaternions).sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.int32, torch.long, torch.float, torch.double])
@pytest.mark.parametrize("precision", [torch.float, torch.double])
def test_weights_signs_and_start_may_have_another_dtype(dtype, precision, generator):
    weights = torch.tensor([[1, 0, 2], [0, 1, 0], [1, 1, 1]])
    layers = problem(3, generator, choice=weights.double())
    expected = dense(layers)
    quaternions = layers.quaternions.to(precision).requires_grad_()
    layers = layers._replace(quaternions=quaternions, choice=weights.to(dtype))
    layers = layers._replace(signs=layers.signs.to(dtype))
    if dtype.is_floating_point:
        layers = layers._replace(start=layers.start.to(dtype))
    p = probabilities(layers)
    assert p.dtype == precision
    np.testing.assert_allclose(p.detach(), expected, atol=1e-6)
    p[3].backward()
    assert quaternions.grad.dtype == precision
    assert quaternions.grad.isfinite().all()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.half])
def test_reduced_precision_takes_the_plain_path(precision, generator):
    layers = problem(3, generator, real=True)
    reduced = layers._replace(quaternions=layers.quaternions.to(precision).requires_grad_())
    p = probabilities(reduced)
    assert p.dtype == precision
    np.testing.assert_allclose(p.detach().float(), dense(layers), atol=0.05)
    p[3].backward()


def test_there_is_one_choice_for_each_layer(generator):
    for choice in ([0, 1], [0, 1, 2, 0], CHOICES["weights"][:2]):
        with pytest.raises(CircuitError, match=f"3 layers, and entanglers .* for {len(choice)}"):
            probabilities(problem(2, generator, choice=choice))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: {"permutations": one.permutations + 1},
        lambda one: {"permutations": one.permutations - 1},
        lambda one: {"quaternions": one.quaternions[..., :2]},
        lambda one: {"quaternions": one.quaternions[:, :2]},
        lambda one: {"start": one.start[:4], "permutations": one.permutations.view(-1, 4)},
        lambda one: {"signs": one.signs[:2]},
        lambda one: {"choice": torch.ones(3, 2)},
    ],
)
def test_what_does_not_fit_together_is_refused(change, generator):
    """Compiled loops check nothing: they would read and write memory that is not theirs."""
    layers = problem(3, generator)
    with pytest.raises(CircuitError, match="do not fit together"):
        probabilities(layers._replace(**change(layers)))


def test_no_layers_leave_the_start(generator):
    layers = problem(2, generator, n_layers=0)
    torch.testing.assert_close(probabilities(layers), layers.start**2)


def test_not_a_number_stays_one(generator):
    layers = problem(3, generator)
    layers.quaternions[1, 1, 2] = float("nan")
    layers.quaternions.requires_grad_()
    p = probabilities(layers)
    assert p.isnan().any()
    p.sum().backward()
    assert layers.quaternions.grad.isnan().any()


def test_threads_may_share_a_graph(generator):
    """Nothing that one backward pass writes to may be seen by another."""
    layers = problem(13, generator, choice=CHOICES["weights"])
    quaternions = layers.quaternions.requires_grad_()
    p = probabilities(layers)
    cotangents = torch.randn(8, len(p), dtype=torch.double, generator=generator)

    def slope(cotangent):
        return torch.autograd.grad(p, quaternions, cotangent, retain_graph=True)[0]

    expected = [slope(cotangent) for cotangent in cotangents]
    with ThreadPoolExecutor(4) as pool_of_threads:
        for _ in range(3):
            for one, other in zip(pool_of_threads.map(slope, cotangents), expected, strict=True):
                assert torch.equal(one, other)


def test_a_batch_of_gradients_under_vmap(generator):
    layers = problem(3, generator)
    quaternions = layers.quaternions.requires_grad_()
    cotangents = torch.randn(4, 8, dtype=torch.double, generator=generator)
    p = probabilities(layers)

    def slope(cotangent):
        return torch.autograd.grad(p, quaternions, cotangent, retain_graph=True)[0]

    for one, cotangent in zip(torch.vmap(slope)(cotangents), cotangents, strict=True):
        pair = (tangent("quaternions", each, quaternions) for each in (one, slope(cotangent)))
        torch.testing.assert_close(*pair)


@pytest.mark.parametrize("wanted", ["start", "quaternions", "choice"])
def test_single_gradients_are_asked_for_alone(wanted, generator):
    layers = problem(2, generator, choice=CHOICES["weights"].clone())
    leaf = getattr(layers, wanted).requires_grad_()
    p = probabilities(layers)
    (slope,) = torch.autograd.grad(p[1], leaf, create_graph=True)
    assert slope.requires_grad
    (again,) = torch.autograd.grad(p[1], leaf)
    pair = (tangent(wanted, each.detach(), leaf) for each in (again, slope))
    torch.testing.assert_close(*pair)


def test_two_forward_passes_before_the_first_backward_pass(generator):
    layers = problem(3, generator)
    quaternions = layers.quaternions.requires_grad_()
    (alone,) = torch.autograd.grad(probabilities(layers)[3], quaternions)
    first = probabilities(layers)
    probabilities(layers._replace(quaternions=quaternions.roll(1, 0)))
    for _ in range(2):
        (slope,) = torch.autograd.grad(first[3], quaternions, retain_graph=True)
        assert torch.equal(alone, slope)


def test_what_a_gradient_needs_must_not_change_meanwhile(generator):
    layers = problem(3, generator)
    leaf = layers.quaternions.clone().requires_grad_()
    p = probabilities(layers._replace(quaternions=leaf))
    with torch.no_grad():
        leaf.neg_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        p[3].backward()


@pytest.mark.parametrize("form", ["transposed", "expanded", "strided", "negative"])
def test_tensors_may_lie_in_memory_in_any_way(form, generator):
    layers = problem(3, generator)
    quaternions = {
        "transposed": layers.quaternions.mT.contiguous().mT,
        "expanded": layers.quaternions[:1].expand(3, 3, 4),
        "strided": torch.stack([layers.quaternions] * 2, 1)[:, 0],
        "negative": torch.complex(layers.quaternions, -layers.quaternions).conj().imag,
    }[form].requires_grad_()
    start = torch.stack([layers.start] * 2, 1)[:, 0]
    layers = layers._replace(quaternions=quaternions, start=start)
    p = probabilities(layers)
    np.testing.assert_allclose(p.detach(), dense(layers), atol=1e-14)
    p.sum().backward()  # with a cotangent that is expanded


def test_no_gradient_no_history(generator):
    layers = problem(3, generator, choice=CHOICES["weights"])
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            np.testing.assert_allclose(probabilities(layers), dense(layers), atol=1e-14)
