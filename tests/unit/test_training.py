import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from qtdqas_lite import (
    CircuitEnsemble,
    FixedCircuit,
    GeneratedNetwork,
    RelaxedCircuit,
    SearchError,
    anneal,
    fit,
    paper_space,
    search,
    training,
)
from qtdqas_lite.training import warm_up_and_cosine

mse = nn.functional.mse_loss


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def data(count=40, seed=0, dtype=torch.float32):
    x = torch.randn(count, 3, generator=seeded(seed), dtype=dtype)
    return x, x @ torch.tensor([[1.0, -1.0], [0.5, 0.0], [-2.0, 1.0]], dtype=dtype) + 0.3


def generated(sampling="softmax", dropout=0.0, double=False, **options):
    torch.manual_seed(0)
    target = nn.Sequential(nn.Dropout(dropout), nn.Linear(3, 2))
    circuit = RelaxedCircuit(3, 2, sampling=sampling, generator=seeded(1), **options)
    net = GeneratedNetwork(target, circuit, generator=seeded(2))
    return net.double() if double else net


def run(net, steps=12, **options):
    defaults = {"loss": mse, "steps": steps, "batch_size": 16}
    method = options.pop("method", None)
    options = {**defaults, "generator": seeded(3), **options}
    if method is None:
        return fit(net, data(), data(20, 1), **options)
    return search(net, data(), data(20, 1), method=method, **options)


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- What is learned


def test_fit_finds_the_least_squares_solution():
    x, y = data(60, dtype=torch.double)
    y = y + 0.1 * torch.randn(y.shape, generator=seeded(5), dtype=torch.double)
    net = nn.Linear(3, 2).double()
    options = {"batch_size": 60, "steps": 1500, "learning_rate": 0.05}
    fit(net, (x, y), loss=mse, **options)
    ones = torch.cat([x, torch.ones(60, 1, dtype=torch.double)], 1)
    solution = torch.linalg.lstsq(ones, y).solution
    torch.testing.assert_close(net.weight.detach(), solution[:3].T, atol=1e-4, rtol=0)
    torch.testing.assert_close(net.bias.detach(), solution[3], atol=1e-4, rtol=0)


def losses(net, train, validation):
    """The two losses as functions of everything else and of alpha, by name."""
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    logits = [name for name in names if ".alpha." in name]
    others = [name for name in names if name not in logits]

    def on(pair, theta, alpha):
        values = dict(zip(others + logits, [*theta, *alpha], strict=True))
        return mse(functional_call(net, values, (pair[0],)), pair[1])

    theta = [net.get_parameter(name).detach().clone() for name in others]
    alpha = [net.get_parameter(name).detach().clone() for name in logits]
    return (lambda t, a: on(train, t, a)), (lambda t, a: on(validation, t, a)), theta, alpha, logits


@pytest.mark.parametrize("method", ["joint", "first-order", "second-order"])
def test_the_first_step_moves_alpha_along_its_gradient(method, monkeypatch):
    monkeypatch.setattr(training, "CLIP_NORM", 1e9)
    net = generated(double=True)
    train, validation = data(dtype=torch.double), data(20, 1, dtype=torch.double)
    on_train, on_validation, theta, alpha, names = losses(net, train, validation)
    before = copy.deepcopy(net)

    def judged(change):
        moved = [a + change * d for a, d in zip(alpha, direction, strict=True)]
        if method == "joint":
            return on_train(theta, moved).item()
        ahead = theta
        if method == "second-order":
            leaves = [t.clone().requires_grad_() for t in theta]
            slopes = torch.autograd.grad(on_train(leaves, moved), leaves)
            ahead = [t - 0.7 * s for t, s in zip(theta, slopes, strict=True)]
        return on_validation(ahead, moved).item()

    search(
        net,
        train,
        validation,
        method=method,
        architecture_learning_rate=0.01,
        method_options={"learning_rate": 0.7} if method == "second-order" else None,
        optimizer=torch.optim.SGD,
        loss=mse,
        steps=1,
        batch_size=1000,  # more than there are: all of them
    )
    moves = [net.get_parameter(n).detach() - before.get_parameter(n).detach() for n in names]
    direction = [torch.randn_like(a) for a in alpha]
    slope = (judged(1e-5) - judged(-1e-5)) / 2e-5
    along = sum((m * d).sum() for m, d in zip(moves, direction, strict=True)).item()
    assert along == pytest.approx(-0.01 * slope, rel=1e-6)
    # The rest moved against the training loss alone, at the alpha that had moved before (or not).
    rest = [n for n, p in net.named_parameters() if n not in names and p.requires_grad]
    used = alpha if method == "joint" else [net.get_parameter(n).detach() for n in names]
    leaves = [t.clone().requires_grad_() for t in theta]
    slopes = torch.autograd.grad(on_train(leaves, used), leaves)
    rate = 3e-2 * warm_up_and_cosine(0.5)
    for name, t, s in zip(rest, theta, slopes, strict=True):
        torch.testing.assert_close(net.get_parameter(name).detach(), t - rate * s)


def test_score_function_gradient_is_unbiased():
    net = generated("score-function", entanglers=("ring",), hadamards=(False,), double=True)
    train = data(dtype=torch.double)
    alpha = net.circuit.alpha["rotation"]
    with torch.no_grad():
        alpha.copy_(torch.tensor([[[0.3, -0.2, 0.5]]]))
        net.eval()
        values = []
        for k in range(3):  # in eval mode the largest logit is taken
            alpha.fill_(0)[0, 0, k] = 1
            values.append(mse(net(train[0]), train[1]))
        alpha.copy_(torch.tensor([[[0.3, -0.2, 0.5]]]))
    net.train()
    leaf = alpha.detach().flatten().clone().requires_grad_()
    expected = torch.autograd.grad(torch.softmax(leaf, 0) @ torch.stack(values), leaf)[0]
    moves = []
    for seed in range(250):
        copied = copy.deepcopy(net)
        # Two steps: the first only sets the baseline, so that the second is not zero.
        options = {"optimizer": torch.optim.SGD, "learning_rate": 1e-12, "loss": mse, "steps": 2}
        search(
            copied,
            train,
            train,
            method="score-function",
            architecture_learning_rate=1.0,
            batch_size=1000,
            generator=seeded(seed),
            **options,
        )
        moves.append((alpha - copied.circuit.alpha["rotation"]).detach().flatten())
    moves = torch.stack(moves)
    error = (moves.mean(0) - expected) / (moves.std(0) / math.sqrt(len(moves)))
    assert error.abs().max() < 4
    assert (expected.abs() / moves.std(0) * math.sqrt(len(moves))).max() > 5  # it can tell


# --- What repeats, and what is left alone

KINDS = {
    "fixed": lambda: GeneratedNetwork(nn.Linear(3, 2), FixedCircuit(3, 2, generator=seeded(1))),
    "dropout": lambda: generated(dropout=0.5),
    "gumbel": lambda: generated("gumbel", sharing="qubit"),
    "score-function": lambda: generated("score-function"),
    "ensemble": lambda: GeneratedNetwork(
        nn.Linear(3, 2), CircuitEnsemble(paper_space(3, 2), generator=seeded(1))
    ),
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("fixed", {}),
        ("fixed", {"optimizer": torch.optim.RMSprop}),
        ("dropout", {"method": "joint"}),
        ("gumbel", {"method": "first-order"}),
        ("score-function", {"method": "score-function"}),
        ("ensemble", {"method": "second-order", "method_options": {"exact": False}}),
    ],
)
def test_a_run_repeats_bit_for_bit(kind, options):
    def build():
        torch.manual_seed(9)
        return KINDS[kind]()

    one, two, start = build(), build(), build()
    assert run(one, **options).history == run(two, **options).history
    assert same(one, two)
    assert not same(one, start)


def test_ctrl_c_keeps_what_was_learned():
    def interrupt(state):
        if state.step == 7:
            raise KeyboardInterrupt

    def stop(state):
        state.stop = state.step == 7

    one, two, start = generated(), generated(), generated()
    assert run(one, on_step=interrupt).ended == "interrupted"
    assert run(two, on_step=stop).ended == "stopped"
    assert same(one, two)
    assert not same(one, start)


def test_runs_repeat_and_leave_the_global_generator_alone():
    nets = [generated("gumbel", dropout=0.5) for _ in range(3)]
    before = torch.random.get_rng_state()
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        run(net, method="first-order", generator=seeded(seed))
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])
    torch.manual_seed(11)
    one = run(generated(), generator=None)
    torch.manual_seed(11)
    assert run(generated(), generator=None).history == one.history


def test_history_is_a_tidy_table_and_the_schedules_are_what_they_say():
    rates = []
    net = generated(temperature=4.0)
    cool = anneal(4.0, 0.25)

    def on_step(state):
        rates.append(state.learning_rate)
        cool(state)

    ended = run(net, method="joint", steps=60, on_step=on_step)
    assert [row["step"] for row in ended.history] == list(range(1, 61))
    assert {tuple(row) for row in ended.history} == {
        ("step", "loss", "validation_loss", "learning_rate", "temperature", "entropy")
    }
    measured = [row["step"] for row in ended.history if row["validation_loss"] is not None]
    assert measured == [25, 50, 60]
    assert rates[0] == pytest.approx(0.03 / 120 / 0.05)  # in a warm-up of 5 %
    assert rates[30] == pytest.approx(
        0.03 * (1 + math.cos(math.pi * (30.5 / 60 - 0.05) / 0.95)) / 2
    )
    temperatures = [row["temperature"] for row in ended.history]
    assert temperatures == pytest.approx([4 * (0.25 / 4) ** (k / 60) for k in range(60)])
    assert net.circuit.temperature == pytest.approx(0.25)
    assert ended.architecture == net.circuit.architecture()
    assert ended.net is net


def test_the_learning_rate_may_be_a_function():
    rates = []
    run(
        generated(),
        steps=4,
        learning_rate=lambda done: 0.1 * done,
        on_step=lambda state: rates.append(state.learning_rate),
    )
    assert rates == pytest.approx([0.0125, 0.0375, 0.0625, 0.0875])


def test_frozen_logits_are_left_alone():
    net = generated()
    net.circuit.alpha["rotation"].requires_grad_(False)
    before = {k: v.detach().clone() for k, v in net.circuit.alpha.items()}
    run(net, method="first-order")
    assert torch.equal(net.circuit.alpha["rotation"], before["rotation"])
    assert not torch.equal(net.circuit.alpha["entangler"], before["entangler"])


# --- Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number above 0"),
        ({"generator": 3}, "of type Generator or NoneType, got int"),
        ({"method": "darts"}, "method must be one of .*'joint'"),
        ({"method": "joint", "architecture_learning_rate": 0}, "learning_rate must be a finite"),
        ({"method": "score-function"}, "needs and is needed by"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(SearchError, match=message):
        run(generated(), **options)


def test_bad_data_is_refused():
    x, y = data()
    for train, message in [
        (x, "pair of tensors"),
        ((x, y[:5]), "40 inputs and 5 labels"),
        ((x[:0], y[:0]), "0 inputs"),
    ]:
        with pytest.raises(SearchError, match=message):
            fit(nn.Linear(3, 2), train)
    with pytest.raises(SearchError, match="validation has"):
        fit(nn.Linear(3, 2), (x, y), (x, y[1:]))


def test_nothing_to_train_or_to_search_is_refused():
    with pytest.raises(SearchError, match="nothing to train"):
        fit(nn.Flatten(), data())
    fixed = GeneratedNetwork(nn.Linear(3, 2), FixedCircuit(3, 2))
    with pytest.raises(SearchError, match="no trainable logits"):
        run(fixed, method="joint")
    with pytest.raises(SearchError, match="no relaxed circuit"):
        run(fixed, on_step=anneal(1.0, 0.1))
    with pytest.raises(SearchError, match="last must be a finite number above 0"):
        anneal(1.0, 0.0)


def test_what_is_not_finite_leaves_the_network_as_it_was():
    net = generated()
    x, y = data()
    run(net)
    before = copy.deepcopy(net)
    for spoilt in ((x * math.nan, y), (x * 1e30, y)):
        with pytest.raises(SearchError, match="step 1; the parameters are as they were"):
            fit(net, spoilt, loss=mse, steps=3)
        assert same(net, before)

    def steep(output, label):  # finite, but its gradient is not
        return (output - output.detach()).abs().sqrt().sum() + 0 * label.sum()

    with pytest.raises(SearchError, match=r"gradient's norm is (nan|inf)"):
        fit(net, data(), loss=steep, steps=3)
    assert same(net, before)


def test_groups_keep_the_proportions_of_their_rates():
    def grouped(parameters, lr):
        weight, bias = parameters
        groups = [{"params": [weight], "lr": 0.1 * lr}, {"params": [bias], "lr": 0.0}]
        return torch.optim.SGD(groups, lr=lr)

    net, rates = nn.Linear(3, 2), []
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    data = torch.randn(9, 3), torch.randint(2, (9,))

    def keep(parameters, lr):
        rates.append(grouped(parameters, lr))
        return rates[0]

    run = fit(net, data, steps=4, optimizer=keep)
    groups = rates[0].param_groups
    assert groups[0]["lr"] == pytest.approx(0.1 * run.history[-1]["learning_rate"])
    assert groups[1]["lr"] == 0
    assert torch.equal(net.bias, before["bias"])
    assert not torch.equal(net.weight, before["weight"])


def test_an_optimizer_that_needs_a_closure_is_refused():
    with pytest.raises(SearchError, match="LBFGS needs a closure"):
        fit(nn.Linear(3, 2), (torch.ones(4, 3), torch.zeros(4).long()), optimizer=torch.optim.LBFGS)


def test_what_the_last_step_leaves_is_finite():
    class Lost(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data.fill_(math.nan)

    with pytest.raises(SearchError, match="the last step left numbers that are not finite"):
        fit(nn.Linear(3, 2), (torch.ones(4, 3), torch.zeros(4).long()), steps=1, optimizer=Lost)


def test_an_optimizer_with_modes_is_refused():
    """Schedule-free ones step from one place and evaluate at another."""

    class Free(torch.optim.SGD):
        def eval(self):
            raise AssertionError("nobody calls it")

    with pytest.raises(SearchError, match="Free needs a closure or has modes: use another"):
        fit(nn.Linear(3, 2), (torch.ones(4, 3), torch.zeros(4).long()), optimizer=Free)


@pytest.mark.parametrize("training", [True, False])
def test_trains_in_training_mode_and_gives_modes_back(training):
    """Running statistics and dropout need it; a part that was frozen in eval mode stays so."""
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Dropout(0.5))
    net.train(training)
    if training:
        net[0].eval()
    modes, seen = [module.training for module in net.modules()], []
    data = torch.randn(9, 3) + 5, torch.randint(2, (9,))
    fit(net, data, data, steps=2, on_step=lambda step: seen.append(step.net[2].training))
    assert seen == [True, True]
    assert [module.training for module in net.modules()] == modes
    assert bool(net[0].running_mean.any()) == (not training)


def test_the_validation_loss_is_that_of_all_data():
    """A root of a mean is not the mean of the roots of its parts."""
    inputs = torch.cat([torch.zeros(4096, 1), torch.full((4096, 1), 2.0)])
    net = nn.Linear(1, 1)
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)

    def root(outputs, labels):
        return (outputs - labels).square().mean().sqrt()

    data = inputs, torch.zeros(8192, 1)
    run = fit(net, data, data, loss=root, steps=1, learning_rate=1e-9)
    assert run.history[-1]["validation_loss"] == pytest.approx(2**0.5, rel=1e-4)


def test_logits_are_never_cut_back(monkeypatch):
    """Whichever method moves them, their gradient is as it is."""
    moved = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            parameters = [p for group in self.param_groups for p in group["params"]]
            moved.setdefault(len(parameters), []).append(
                torch.cat([p.grad.flatten() for p in parameters]).norm().item()
            )
            return super().step(closure)

    generator = torch.Generator().manual_seed(0)
    circuit = RelaxedCircuit(3, 2, generator=generator)
    net = GeneratedNetwork(nn.Linear(3, 2), circuit, generator=generator)
    data = torch.randn(9, 3, generator=generator), torch.randint(2, (9,), generator=generator)

    def steep(outputs, labels):
        return 1e4 * nn.functional.cross_entropy(outputs, labels)

    options = {"loss": steep, "steps": 1, "optimizer": Spy, "learning_rate": 1e-9}
    search(net, data, data, method="joint", architecture_learning_rate=1e-9, **options)
    n_alpha = len(circuit.alpha)
    assert moved[n_alpha][0] > 1
    trained = [p for p in net.parameters() if p.requires_grad]
    assert moved[len(trained) - n_alpha][0] == pytest.approx(1, rel=1e-3)


def test_an_optimizer_may_go_on_where_another_run_left_it():
    """With a function for the rate, one that exists already keeps its own rate and its moments."""
    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.015)
    data = torch.randn(9, 3), torch.randint(2, (9,))
    for _ in range(2):
        fit(net, data, steps=3, learning_rate=lambda _: 0.015, optimizer=lambda *_, **__: optimizer)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.015)
    assert optimizer.state[net.weight]["step"] == 6
