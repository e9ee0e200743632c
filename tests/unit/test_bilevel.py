import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from qtdqas_lite import FixedCircuit, GeneratedNetwork
from qtdqas_lite.bilevel import METHODS, first_order, hypergradient, implicit, joint, unrolled
from qtdqas_lite.errors import QuantumTrainError, SearchError

XI = 0.1
EYE = torch.eye(5, dtype=torch.float64)
WAYS = {
    "joint": joint,
    "first order": first_order,
    "unrolled": partial(unrolled, learning_rate=XI),
    "unrolled by differences": partial(unrolled, learning_rate=XI, exact=False),
    "conjugate gradients": partial(implicit, damping=0.1),
    "Neumann series": partial(implicit, solver="neumann", learning_rate=XI, damping=0.1),
}
WAYS_EXACT = {WAYS["unrolled by differences"]: WAYS["unrolled"]}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def leaves(*tensors):
    return tuple(tensor.clone().requires_grad_() for tensor in tensors)


# --- Quadratic losses, where every answer has a closed form


class Quadratic:
    """L_train = t'At/2 - t'Ba + a'Da/2 and L_val = |t - c|^2/2 + t'Ea + mu |a|^2/2.

    theta has 5 numbers in two tensors, alpha 4 in two: their order and shapes matter.
    """

    mu = 0.3

    def __init__(self, eigenvalues=(0.5, 1.0, 2.0, 3.0, 4.0), dtype=torch.float64):
        draw = partial(torch.randn, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        basis = torch.linalg.qr(draw(5, 5)).Q
        self.A = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T
        self.B, self.E, self.c, self.D = draw(5, 4), draw(5, 4), draw(5), torch.diag(draw(4))
        self.t, self.a = draw(5), draw(4)
        for name in "ABEcDta":
            setattr(self, name, getattr(self, name).to(dtype))
        self.theta = leaves(self.t[:2], self.t[2:].view(1, 3))
        self.alpha = leaves(self.a[:3].view(3, 1), self.a[3])
        self.problem = (self.train_loss, self.validation_loss, self.theta, self.alpha)

    def train_loss(self, theta, alpha):
        t, a = (torch.cat([tensor.flatten() for tensor in group]) for group in (theta, alpha))
        return t @ self.A @ t / 2 - t @ self.B @ a + a @ self.D @ a / 2

    def validation_loss(self, theta, alpha):
        t, a = (torch.cat([tensor.flatten() for tensor in group]) for group in (theta, alpha))
        return (t - self.c) @ (t - self.c) / 2 + t @ self.E @ a + self.mu * a @ a / 2

    def direct(self, t):
        return self.E.T @ t + self.mu * self.a

    def slope(self, t):
        """The gradient of the validation loss in theta."""
        return t - self.c + self.E @ self.a

    def unrolled(self, xi):
        ahead = self.t - xi * (self.A @ self.t - self.B @ self.a)
        return self.direct(ahead) + xi * self.B.T @ self.slope(ahead)

    def implicit(self, inverse):
        """With any matrix in the place of the Hessian's inverse."""
        return self.direct(self.t) + self.B.T @ inverse @ self.slope(self.t)


@pytest.fixture
def quadratic():
    return Quadratic()


def close(result, expected, rtol=1e-10):
    torch.testing.assert_close(flat(result), expected, rtol=rtol, atol=rtol)


def test_joint_and_first_order_in_closed_form(quadratic):
    q = quadratic
    close(joint(*q.problem), -q.B.T @ q.t + q.D @ q.a)
    close(first_order(*q.problem), q.direct(q.t))


@pytest.mark.parametrize("xi", [0.01, 0.1, 1, 3.0])
def test_unrolled_in_closed_form(quadratic, xi):
    close(unrolled(*quadratic.problem, learning_rate=xi), quadratic.unrolled(xi))


@pytest.mark.parametrize("xi", [0.01, 0.1, 3.0])
def test_differences_of_a_quadratic_are_exact_up_to_rounding(quadratic, xi):
    result = unrolled(*quadratic.problem, learning_rate=xi, exact=False)
    close(result, quadratic.unrolled(xi), rtol=1e-8)


def test_implicit_at_the_minimum_is_the_gradient_of_the_whole(quadratic):
    """The oracle: L_val(A^-1 B a, a) as a function of a alone, differentiated by autograd."""
    q = quadratic
    a = q.a.clone().requires_grad_()
    q.validation_loss((torch.linalg.solve(q.A, q.B @ a),), (a,)).backward()
    minimum = torch.linalg.solve(q.A, q.B @ q.a)
    theta = leaves(minimum[:2], minimum[2:].view(1, 3))
    result = implicit(q.train_loss, q.validation_loss, theta, q.alpha, iterations=5)
    close(result, a.grad)


@pytest.mark.parametrize("damping", [0, 0.7])
def test_conjugate_gradients_take_no_more_iterations_than_theta_has_numbers(quadratic, damping):
    q = quadratic
    exact = q.implicit(torch.linalg.inv(q.A + damping * EYE))
    for iterations in (5, 6, 50):  # more than enough must not spoil it
        close(implicit(*q.problem, iterations=iterations, damping=damping), exact)
    short = flat(implicit(*q.problem, iterations=4, damping=damping))
    assert (short - exact).norm() > 1e-4 * exact.norm()


def test_conjugate_gradients_need_an_iteration_per_distinct_eigenvalue():
    q = Quadratic(eigenvalues=(1.0, 1.0, 1.0, 3.0, 3.0))
    close(implicit(*q.problem, iterations=2), q.implicit(torch.linalg.inv(q.A)))


@pytest.mark.parametrize(("iterations", "damping"), [(1, 0), (2, 0.5), (7, 0)])
def test_neumann_series_term_by_term(quadratic, iterations, damping):
    q, eta = quadratic, 0.2
    step = EYE - eta * (q.A + damping * EYE)
    powers = [torch.linalg.matrix_power(step, k) for k in range(iterations + 1)]
    options = {"iterations": iterations, "damping": damping, "learning_rate": eta}
    result = implicit(*q.problem, solver="neumann", **options)
    close(result, q.implicit(eta * sum(powers)))


def test_ten_iterations_unless_told_otherwise(quadratic):
    options = {"solver": "neumann", "learning_rate": 0.2}
    expected = implicit(*quadratic.problem, iterations=10, **options)
    assert torch.equal(flat(implicit(*quadratic.problem, **options)), flat(expected))


def test_neumann_series_converges_to_the_same(quadratic):
    result = implicit(*quadratic.problem, solver="neumann", iterations=200, learning_rate=0.4)
    close(result, quadratic.implicit(torch.linalg.inv(quadratic.A)))


@pytest.mark.parametrize("eta", [0.51, 5.0])
def test_a_neumann_series_that_diverges_is_refused(quadratic, eta):
    """The largest eigenvalue is 4, so the limit is 1/2."""
    options = {"solver": "neumann", "iterations": 300}
    implicit(*quadratic.problem, learning_rate=0.49, **options)
    with pytest.raises(SearchError, match=r"grows; lower learning_rate, or raise damping"):
        implicit(*quadratic.problem, learning_rate=eta, **options)


def test_a_neumann_series_may_stand_still():
    """Where L_train is flat, terms neither grow nor shrink; rounding must not look like growth."""
    q = Quadratic(eigenvalues=(0.0, 0.3, 0.7, 1.0, 1.5), dtype=torch.float32)
    implicit(*q.problem, solver="neumann", iterations=500, learning_rate=1.0)


@pytest.mark.parametrize("seed", range(3))
def test_conjugate_gradients_bear_directions_in_which_both_losses_are_flat(seed):
    """Ten of thirty angles are dead. The oracle is the pseudo-inverse."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.linalg.qr(draw(30, 30)).Q
    eigenvalues = torch.cat([torch.zeros(10), torch.logspace(-1, 1, 20)]).double()
    A = basis @ torch.diag(eigenvalues) @ basis.T  # noqa: N806
    B, c = A @ draw(30, 4), A @ draw(30)  # noqa: N806
    expected = -B.T @ torch.linalg.pinv(A) @ c
    A, B, c = A.float(), B.float(), c.float()  # noqa: N806

    def train_loss(theta, alpha):
        return theta[0] @ A @ theta[0] / 2 + theta[0] @ B @ alpha[0]

    def validation_loss(theta, alpha):
        return c @ theta[0]

    problem = (train_loss, validation_loss, leaves(torch.zeros(30)), leaves(torch.zeros(4)))
    result = flat(implicit(*problem, iterations=300)).double()
    assert (result - expected).norm() < 1e-5 * expected.norm()


def test_conjugate_gradients_without_a_first_step_are_refused():
    q = Quadratic(eigenvalues=(-1.0, -1.0, -1.0, -2.0, -2.0))
    with pytest.raises(SearchError, match="no positive curvature; train theta further, or raise"):
        implicit(*q.problem)
    close(implicit(*q.problem, damping=4.0), q.implicit(torch.linalg.inv(q.A + 4 * EYE)))


def test_conjugate_gradients_stop_at_negative_curvature_with_what_they_have():
    q = Quadratic(eigenvalues=(-0.2, 4.0, 4.0, 4.0, 4.0))
    g = q.slope(q.t)
    length = g @ g / (g @ q.A @ g)
    residual = g - length * q.A @ g
    direction = residual + (residual @ residual) / (g @ g) * g
    assert length > 0
    assert direction @ q.A @ direction < 0
    close(implicit(*q.problem, iterations=9), q.direct(q.t) + q.B.T @ (length * g))


@pytest.mark.parametrize("solver", ["cg", "neumann"])
def test_a_validation_loss_at_its_minimum_has_no_indirect_part(quadratic, solver):
    q = quadratic
    minimum = q.c - q.E @ q.a
    theta = leaves(minimum[:2], minimum[2:].view(1, 3))
    result = implicit(q.train_loss, q.validation_loss, theta, q.alpha, solver=solver,
                      learning_rate=0.1)  # fmt: skip
    close(result, q.direct(minimum))


@pytest.mark.parametrize("exact", [True, False])
def test_looking_ahead_to_the_minimum_of_validation(quadratic, exact):
    """v is exactly zero there: differences must not divide by its length."""
    alone = (quadratic.train_loss, lambda theta, alpha: (alpha[0] ** 2).sum())
    result = unrolled(*alone, *quadratic.problem[2:], learning_rate=XI, exact=exact)
    close(result, torch.cat([2 * quadratic.a[:3], torch.zeros(1)]).double())


@pytest.mark.parametrize(
    ("way", "tolerance"),
    [
        ("joint", 1e-5),
        ("first order", 1e-5),
        ("unrolled", 1e-5),
        ("unrolled by differences", 1e-3),
        ("conjugate gradients", 1e-4),
        ("Neumann series", 1e-5),
    ],
)
def test_float32(way, tolerance):
    exact, single = Quadratic(), Quadratic(dtype=torch.float32)
    result = WAYS[way](*single.problem)
    assert {tensor.dtype for tensor in result} == {torch.float32}
    close((flat(result).double(),), flat(WAYS[way](*exact.problem)), rtol=tolerance)


# --- What every method has in common


@every_way
def test_shapes_and_nothing_left_behind(quadratic, way):
    q = quadratic
    variables = (*q.theta, *q.alpha)
    before = [(v.detach().clone(), v._version) for v in variables]
    q.theta[0].grad = torch.full((2,), 7.0, dtype=torch.float64)
    result = way(*q.problem)
    assert isinstance(result, tuple)
    assert [(g.shape, g.dtype) for g in result] == [(a.shape, a.dtype) for a in q.alpha]
    assert not any(g.requires_grad for g in result)
    assert torch.equal(q.theta[0].grad, torch.full((2,), 7.0, dtype=torch.float64))
    assert all(v.grad is None for v in variables[1:])
    for variable, (value, version) in zip(variables, before, strict=True):
        assert torch.equal(variable, value)
        assert variable._version == version


class Marked(torch.autograd.Function):
    """The square, whose node in the graph holds an object that can be watched."""

    nodes: list = []  # noqa: RUF012

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.mark = nn.Identity()
        Marked.nodes.append(weakref.ref(ctx.mark))
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


@every_way
def test_no_graph_is_kept(way):
    def loss(theta, alpha):
        return (Marked.apply(theta[0]) * Marked.apply(alpha[0])).sum()

    Marked.nodes.clear()
    gc.disable()  # a graph that only the collector would find is kept too long
    try:
        result = way(loss, loss, leaves(torch.ones(2)), leaves(torch.ones(2)))
        assert Marked.nodes
        assert all(node() is None for node in Marked.nodes)
    finally:
        gc.enable()
    assert result[0].shape == (2,)


@every_way
@pytest.mark.parametrize("first", [torch.float32, torch.float64])
@pytest.mark.parametrize("second", [torch.float32, torch.float64])
def test_dtypes_may_differ(way, first, second):
    def loss(theta, alpha):
        return sum((t**2).sum() for t in theta) * sum(torch.exp(a).sum() for a in alpha)

    theta = leaves(torch.full((2,), 0.7, dtype=first), torch.full((2,), 0.7, dtype=first))
    alpha = leaves(torch.zeros((), dtype=second), torch.zeros(1, dtype=torch.float64))
    result = way(loss, loss, theta, alpha)
    assert [g.dtype for g in result] == [second, torch.float64]
    exact = leaves(*(tensor.detach().double() for tensor in theta + alpha))
    expected = flat(WAYS_EXACT.get(way, way)(loss, loss, exact[:2], exact[2:]))
    close(result, expected, rtol=2e-4)


@every_way
def test_what_a_loss_does_not_use_has_gradient_zero(way, quadratic):
    q = quadratic
    idle = leaves(torch.ones(3, dtype=torch.float64))
    expected = way(*q.problem)
    train = lambda theta, alpha: q.train_loss(theta[:2], alpha[:2])  # noqa: E731
    validation = lambda theta, alpha: q.validation_loss(theta[:2], alpha[:2])  # noqa: E731
    result = way(train, validation, q.theta + idle, q.alpha + idle)
    torch.testing.assert_close(result[:2], expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(result[2], torch.zeros(3, dtype=torch.float64))


@every_way
def test_a_training_loss_without_alpha_leaves_the_direct_part(way, quadratic):
    q = quadratic
    train = lambda theta, alpha: (theta[0] ** 2).sum() + (theta[1] ** 2).sum()  # noqa: E731
    result = way(train, q.validation_loss, q.theta, q.alpha)
    ahead = q.t * (1 - 2 * XI) if "learning_rate" in way_options(way) else q.t
    expected = torch.zeros(4).double() if way is joint else q.direct(ahead)
    close(result, expected)


def way_options(way):
    """What a step of training depends on."""
    return way.keywords if isinstance(way, partial) and way.func is unrolled else {}


@pytest.mark.parametrize("exact", [True, False])
def test_a_linear_training_loss_has_no_indirect_part(quadratic, exact):
    """The slope is then constant, and cannot be differentiated at all."""
    q = quadratic
    train = lambda theta, alpha: theta[0].sum() - theta[1].sum()  # noqa: E731
    result = unrolled(train, *q.problem[1:], learning_rate=XI, exact=exact)
    step = torch.tensor([1.0, 1, -1, -1, -1]).double()
    close(result, q.direct(q.t - XI * step))
    with pytest.raises(SearchError, match="no positive curvature"):
        implicit(train, *q.problem[1:])


def test_differences_and_first_order_need_no_second_derivative(quadratic):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            if torch.is_grad_enabled():
                raise RuntimeError("asked for a graph of the gradient")
            (x,) = ctx.saved_tensors
            return 3 * x**2 * grad

    def loss(power, theta, alpha):
        return (power(theta[0]) * alpha[0][:2, 0] ** 2).sum() + alpha[1] ** 2

    hard, easy = partial(loss, Once.apply), partial(loss, lambda x: x**3)
    variables = quadratic.problem[2:]
    for way in (joint, first_order, WAYS["unrolled by differences"]):
        close(way(hard, hard, *variables), flat(way(easy, easy, *variables)))
    exact = unrolled(easy, easy, *variables, learning_rate=XI)
    close(WAYS["unrolled by differences"](hard, hard, *variables), flat(exact), rtol=1e-7)
    with pytest.raises(RuntimeError, match="asked for a graph"):
        unrolled(hard, hard, *variables, learning_rate=XI)


def test_a_kink_within_the_step_spoils_the_differences():
    """The second derivative of relu(theta) alpha is 1 at theta > 0; half of the step sees 0."""

    def train(theta, alpha):
        return torch.relu(theta[0]) * alpha[0]

    def validation(theta, alpha):
        return theta[0]

    problem = (train, validation, leaves(torch.tensor(1e-3)), leaves(torch.tensor(0.0)))
    (exact,), (differences,) = WAYS["unrolled"](*problem), WAYS["unrolled by differences"](*problem)
    assert exact == pytest.approx(-XI)
    assert -0.7 * XI < differences < -0.4 * XI


def test_only_the_losses_that_are_needed_are_called(quadratic):
    def never(theta, alpha):
        raise AssertionError

    train, validation, theta, alpha = quadratic.problem
    joint(train, never, theta, alpha)
    first_order(never, validation, theta, alpha)


@pytest.mark.parametrize(
    ("method", "function", "options"),
    [
        ("joint", joint, {}),
        ("first-order", first_order, {}),
        ("second-order", unrolled, {"learning_rate": 0.2, "exact": False}),
        ("implicit", implicit, {"solver": "neumann", "iterations": 3, "learning_rate": 0.1}),
    ],
)
def test_methods_by_name(quadratic, method, function, options):
    result = hypergradient(method, *quadratic.problem, **options)
    assert torch.equal(flat(result), flat(function(*quadratic.problem, **options)))
    assert METHODS[method] is function


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("joint", {}),
        ("first-order", {}),
        ("second-order", {"learning_rate": XI}),
        ("second-order", {"learning_rate": XI, "exact": False}),
        ("implicit", {"damping": 0.5}),
    ],
)
def test_all_calls_of_noisy_losses_see_one_draw(method, options):
    def loss(noise, theta, alpha):
        z = torch.randn(3, dtype=torch.double) if noise is None else noise
        return ((theta[0] - z * alpha[0]) ** 2).sum() + (z * alpha[0] ** 3).sum()

    variables = leaves(torch.ones(3).double()), leaves(torch.tensor([0.3, -0.5, 0.2]).double())
    torch.manual_seed(4)
    drawn = torch.randn(3, dtype=torch.double)
    expected = hypergradient(method, *[partial(loss, drawn)] * 2, *variables, **options)
    torch.manual_seed(4)
    noisy = [partial(loss, None)] * 2
    close(hypergradient(method, *noisy, *variables, **options), flat(expected), rtol=1e-8)
    again = hypergradient(method, *noisy, *variables, **options)
    assert not torch.allclose(flat(again), flat(expected))  # the next one is of another draw


def test_there_are_four_methods():
    assert list(METHODS) == ["joint", "first-order", "second-order", "implicit"]


def test_an_unknown_method_is_refused(quadratic):
    allowed = r"\['joint', 'first-order', 'second-order', 'implicit'\], got 'darts'"
    with pytest.raises(SearchError, match=allowed):
        hypergradient("darts", *quadratic.problem)


# --- What is refused


def test_the_error_is_one_of_this_package():
    assert issubclass(SearchError, QuantumTrainError)
    assert issubclass(SearchError, ValueError)


@pytest.mark.parametrize("rate", [0, -0.1, float("inf"), float("nan")])
def test_a_learning_rate_that_is_not_positive_and_finite_is_refused(quadratic, rate):
    message = f"learning_rate must be .* above 0, got {rate}"
    with pytest.raises(SearchError, match=message):
        unrolled(*quadratic.problem, learning_rate=rate)
    with pytest.raises(SearchError, match=message):
        implicit(*quadratic.problem, solver="neumann", learning_rate=rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lu"}, "'cg' or 'neumann', got 'lu'"),
        ({"solver": "lu", "learning_rate": 0.1}, "'cg' or 'neumann', got 'lu'"),
        ({"solver": "neumann"}, "learning_rate must be .* above 0, got None"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"iterations": -3}, "iterations must be at least 1, got -3"),
        ({"damping": -0.1}, "damping must be .* at least 0, got -0.1"),
        ({"damping": float("nan")}, "damping must be .* at least 0, got nan"),
        ({"damping": float("inf")}, "damping must be .* at least 0, got inf"),
    ],
)
def test_options_of_implicit_out_of_range_are_refused(quadratic, options, message):
    with pytest.raises(SearchError, match=message):
        implicit(*quadratic.problem, **options)


@every_way
@pytest.mark.parametrize("name", ["theta", "alpha"])
@pytest.mark.parametrize(
    "wrong", [(), torch.ones(2, requires_grad=True), (torch.ones(2),), [torch.ones(2)]]
)
def test_variables_that_are_no_tuple_of_tensors_with_gradients_are_refused(
    quadratic, way, name, wrong
):
    train, validation, theta, alpha = quadratic.problem
    variables = {"theta": theta, "alpha": alpha, name: wrong}
    with pytest.raises(SearchError, match=f"{name} must be a tuple of tensors that require grad"):
        way(train, validation, variables["theta"], variables["alpha"])


def test_one_frozen_tensor_is_enough_to_refuse(quadratic):
    train, validation, theta, alpha = quadratic.problem
    frozen = (theta[0], theta[1].detach())
    with pytest.raises(SearchError, match="theta must be a tuple of tensors that require grad"):
        first_order(train, validation, frozen, alpha)


@every_way
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_refused(quadratic, way, value):
    train, validation, *variables = quadratic.problem
    broken = lambda theta, alpha: train(theta, alpha) * value  # noqa: E731
    names = {joint: ["training"], first_order: ["validation"]}.get(way, ["training", "validation"])
    for name in names:
        losses = (broken, validation) if name == "training" else (train, broken)
        with pytest.raises(
            SearchError, match=rf"the {name} loss must be a finite .* got .*(nan|inf)"
        ):
            way(*losses, *variables)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda theta, alpha: theta[0], r"finite tensor of shape \(\), got tensor\(\["),
        (lambda theta, alpha: theta[0][:1], r"finite tensor of shape \(\), got tensor\(\["),
        (lambda theta, alpha: 0.5, r"finite tensor of shape \(\), got 0.5"),
        (lambda theta, alpha: torch.tensor(0.5), "loss depends neither on theta nor on alpha"),
        (
            lambda theta, alpha: (theta[0].sum() * alpha[1]).detach(),
            "loss depends neither on theta nor on alpha",
        ),
    ],
)
def test_a_loss_that_is_no_number_or_has_no_gradient_is_refused(quadratic, loss, message):
    train, validation, theta, alpha = quadratic.problem
    with pytest.raises(SearchError, match="training.*" + message):
        joint(loss, validation, theta, alpha)
    with pytest.raises(SearchError, match="validation.*" + message):
        first_order(train, loss, theta, alpha)


def test_a_gradient_that_is_not_finite_is_refused(quadratic):
    broken = lambda theta, alpha: (0 * alpha[0]).abs().sqrt().sum() + alpha[1]  # noqa: E731
    with pytest.raises(SearchError, match="a gradient is not finite; look for a power"):
        joint(broken, *quadratic.problem[1:])


# --- A network that a circuit writes


class Generated:
    """Squared errors of a linear target; theta are the angles, alpha is the mapping."""

    def __init__(self, rotation, dtype=torch.float64, ridge=0.0):
        generator = torch.Generator().manual_seed(5)
        torch.manual_seed(5)
        circuit = FixedCircuit(
            4, 2, hadamard=rotation == "ry", rotation=rotation, generator=generator
        )
        self.network = GeneratedNetwork(nn.Linear(4, 3), circuit, generator=generator).to(dtype)
        parameters = {k: p for k, p in self.network.named_parameters() if p.requires_grad}
        angles = [name for name in parameters if name.startswith("circuit.")]
        self.names = angles + [name for name in parameters if name not in angles]
        self.theta = tuple(parameters[name] for name in self.names[: len(angles)])
        self.alpha = tuple(parameters[name] for name in self.names[len(angles) :])
        self.inputs = torch.randn(2, 12, 4, generator=generator).to(dtype)
        self.labels = torch.randn(2, 12, 3, generator=generator).to(dtype)
        self.ridge = ridge
        self.problem = (partial(self.loss, 0), partial(self.loss, 1), self.theta, self.alpha)

    def loss(self, split, theta, alpha):
        parameters = dict(zip(self.names, theta + alpha, strict=True))
        outputs = functional_call(self.network, parameters, self.inputs[split])
        ridge = self.ridge / 2 * sum((t**2).sum() for t in theta) if split == 0 else 0
        return nn.functional.mse_loss(outputs, self.labels[split]) + ridge

    # The oracle knows nothing of functional_call: it writes numbers into the module itself.

    def module_loss(self, split):
        loss = nn.functional.mse_loss(self.network(self.inputs[split]), self.labels[split])
        ridge = self.ridge / 2 * sum((t**2).sum() for t in self.theta)
        return loss + ridge if split == 0 else loss

    def step(self, xi):
        gradient = torch.autograd.grad(self.module_loss(0), self.theta)
        with torch.no_grad():
            for t, g in zip(self.theta, gradient, strict=True):
                t -= xi * g

    def minimise(self):
        optimizer = torch.optim.LBFGS(self.theta, max_iter=300, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            loss = self.module_loss(0)
            loss.backward(inputs=self.theta)
            return loss

        optimizer.step(closure)
        optimizer.zero_grad()
        for _ in range(3):
            assert self.newton_step() < 1e-3
        assert self.newton_step() < 1e-13

    def newton_step(self):
        (theta,) = self.theta
        (gradient,) = torch.autograd.grad(self.module_loss(0), theta, create_graph=True)
        rows = [torch.autograd.grad(g, theta, retain_graph=True)[0] for g in gradient.flatten()]
        hessian = torch.stack(rows).view(theta.numel(), -1)
        assert torch.linalg.eigvalsh(hessian)[0] > 0.1
        with torch.no_grad():
            theta -= torch.linalg.solve(hessian, gradient.flatten()).view_as(theta)
        return gradient.norm().item()

    def differences(self, follow, h=1e-5):
        """The central differences of alpha -> L_val after the weights have followed."""
        start, result = [t.detach().clone() for t in self.theta], []

        def value():
            follow()
            with torch.no_grad():
                worth = self.module_loss(1).item()
                for t, s in zip(self.theta, start, strict=True):
                    t.copy_(s)
            return worth

        for numbers in [a.detach().view(-1) for a in self.alpha]:
            for i in range(len(numbers)):
                numbers[i] += h
                plus = value()
                numbers[i] -= 2 * h
                minus = value()
                numbers[i] += h
                result.append((plus - minus) / (2 * h))
        return torch.tensor(result, dtype=torch.float64)


def close_in_norm(result, expected, tolerance):
    assert (flat(result) - expected).norm() < tolerance * expected.norm()


both_rotations = pytest.mark.parametrize("rotation", ["ry", "rx"])


@both_rotations
def test_first_order_of_a_network(rotation):
    net = Generated(rotation)
    close_in_norm(first_order(*net.problem), net.differences(lambda: None), 1e-8)


@both_rotations
@pytest.mark.parametrize("xi", [0.03, 0.1])
def test_unrolled_of_a_network(rotation, xi):
    net = Generated(rotation)
    expected = net.differences(lambda: net.step(xi))
    result = unrolled(*net.problem, learning_rate=xi)
    close_in_norm(result, expected, 1e-8)
    # The second order matters here, or the test would say nothing about it.
    assert (flat(first_order(*net.problem)) - expected).norm() > 0.1 * expected.norm()
    close_in_norm(unrolled(*net.problem, learning_rate=xi, exact=False), flat(result), 1e-9)


@both_rotations
@pytest.mark.parametrize(("exact", "tolerance"), [(True, 5e-5), (False, 1e-3)])
def test_float32_of_a_network(rotation, exact, tolerance):
    expected = flat(unrolled(*Generated(rotation).problem, learning_rate=XI))
    single = Generated(rotation, dtype=torch.float32)
    result = unrolled(*single.problem, learning_rate=XI, exact=exact)
    assert flat(result).dtype == torch.float32
    close_in_norm(result, expected, tolerance)


@both_rotations
def test_implicit_of_a_network(rotation):
    """A ridge makes the inner problem convex; the oracle solves it anew for every alpha."""
    net = Generated(rotation, ridge=2.0)
    net.minimise()
    expected = net.differences(lambda: [net.newton_step() for _ in range(3)])
    result = implicit(*net.problem, iterations=8)
    close_in_norm(result, expected, 1e-8)
    assert (flat(first_order(*net.problem)) - expected).norm() > 0.1 * expected.norm()
    series = implicit(*net.problem, solver="neumann", iterations=300, learning_rate=0.1)
    close_in_norm(series, expected, 1e-8)


def test_descending_a_hypergradient_lowers_the_validation_loss_after_a_step():
    net = Generated("ry")
    worth = []
    for _ in range(5):
        gradient = hypergradient("second-order", *net.problem, learning_rate=0.5)
        with torch.no_grad():
            for a, g in zip(net.alpha, gradient, strict=True):
                a -= 0.1 * g
        start = [t.detach().clone() for t in net.theta]
        net.step(0.5)
        worth.append(net.module_loss(1).item())
        with torch.no_grad():
            for t, s in zip(net.theta, start, strict=True):
                t.copy_(s)
    assert worth == sorted(worth, reverse=True)
