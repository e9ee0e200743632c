"""Series, windows, measures and forecasters, against closed forms, loops and torch's own LSTM."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import nn

from qtdqas_lite import (
    CircuitError,
    DataError,
    DependencyError,
    FixedCircuit,
    GeneratedNetwork,
    QuantumTrainError,
    RelaxedCircuit,
    SearchError,
    TargetError,
    paper_space,
)
from qtdqas_lite.tasks.forecasting import LSTMForecaster, roll_out, train_forecaster
from qtdqas_lite.tasks.series import (
    SERIES,
    bessel,
    damped_motion,
    delayed_control,
    narma,
    sunspots,
)
from qtdqas_lite.tasks.windows import (
    Scaler,
    mean_absolute_scaled_error,
    mean_squared_error,
    naive,
    skill_score,
    split_series,
    windows,
)

NAN, INF = math.nan, math.inf
RAMP = torch.arange(20.0)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def close(found, expected, atol):
    assert found.dtype == torch.double
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)


# --- The series


def test_bessel_is_its_integral():
    x = np.linspace(2, 100, 256)
    turn = 2 * np.pi * np.arange(4000) / 4000  # over a period, a plain mean is exact
    close(bessel(), np.cos(2 * turn - np.outer(x, np.sin(turn))).mean(1), 1e-13)
    close(bessel(3, first=0.0, last=1.0)[:1], [0.0], 0)
    assert bessel(first=-9e299, last=9e299).isfinite().all()


def test_damped_motion_solves_its_equation():
    times = np.linspace(0, 20, 240)
    options = {"t_eval": times, "rtol": 1e-11, "atol": 1e-12}
    solved = solve_ivp(
        lambda _, s: [s[1], -0.15 * s[1] - 9.81 * np.sin(s[0])], (0, 20), [0, 3], **options
    )
    close(damped_motion(), solved.y[1], 1e-7)
    # Started slowly, it is harmonic: a' of e^(-dt/2) sin(ft) v/f.
    d, f, v = 0.4, math.sqrt(4 - 0.04), 1e-5
    closed = v * np.exp(-d / 2 * times) * (np.cos(f * times) - d / 2 / f * np.sin(f * times))
    close(damped_motion(damping=d, stiffness=4, speed=v) / v, closed / v, 1e-7)


def test_delayed_control_is_a_sum_of_pulses():
    times = np.arange(-2, 20, 0.01)
    pulses = sum(np.exp(-10 * (times - 2 * k) ** 2 - times / 16) for k in range(11))
    close(delayed_control(), pulses, 1e-12)


@pytest.mark.parametrize("order", [1, 5, 10])
@pytest.mark.parametrize("drive", ["sines", "uniform"])
def test_narma_obeys_its_recurrence(order, drive):
    y = narma(order, 60, drive=drive, generator=seeded(3)).numpy()
    t = np.arange(60)
    u = 0.1 + 0.1 * np.prod([np.sin(2 * np.pi * f * t / 60) for f in (2.11, 3.73, 4.11)], 0)
    if drive == "uniform":
        u = torch.rand(60, dtype=torch.double, generator=seeded(3)).numpy() / 2
    expected = np.zeros(60)
    expected[0] = 0.196
    for i in range(59):
        window = sum(expected[i - j] for j in range(order) if i >= j)
        memory = u[i] * u[i - order + 1] if i >= order - 1 else 0
        expected[i + 1] = 0.3 * expected[i] + 0.05 * expected[i] * window + 1.5 * memory + 0.1
    np.testing.assert_allclose(y, expected, atol=1e-14)


def test_uniform_inputs_follow_the_seed():
    one, same, other = (narma(5, drive="uniform", generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_table_of_series():
    assert list(SERIES)[:5] == ["bessel", "damped-motion", "delayed-control", "narma-5", "narma-10"]
    assert torch.equal(SERIES["narma-10"](n_points=40), narma(10, 40))
    for make in SERIES.values():
        values = make()
        assert (values.dim(), values.dtype) == (1, torch.double)
        assert values.isfinite().all()
    with pytest.raises(DataError, match=r"must be one of \['bessel'.*got 'besel'"):
        train_forecaster("besel")


def test_sunspots_of_the_years():
    pytest.importorskip("statsmodels")
    numbers = sunspots()
    assert numbers.shape == (309,)
    assert numbers[[0, 1957 - 1700]].tolist() == [5.0, 190.2]


@pytest.mark.parametrize(
    ("name", "module"), [("sunspots", "statsmodels.datasets"), ("bessel", "scipy.special")]
)
def test_a_missing_package_is_named(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    package = module.partition(".")[0]
    with pytest.raises(DependencyError, match=rf"{module}.*pip install {package}$"):
        SERIES[name]()
    assert issubclass(DependencyError, ImportError)
    assert issubclass(DependencyError, QuantumTrainError)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: bessel(1), "n_points must be at least 2, got 1"),
        (lambda: bessel(10**9), "n_points must be at most 100,000"),
        (lambda: bessel(2.0), "n_points must be a whole number"),
        (lambda: bessel(first=3, last=3), "grow from first to last"),
        (lambda: bessel(last=INF), "last must be a finite number below 1e300, got inf"),
        (lambda: bessel(first=-1e308, last=1e308), "first must be a finite number below 1e300"),
        (lambda: bessel(last=10**400), "last must be a finite number below 1e300"),
        (lambda: damped_motion(duration=0), "duration must be above 0"),
        (lambda: damped_motion(duration=1e299), "at most 1000 seconds"),
        (lambda: damped_motion(stiffness=1e299), "grows without bound"),
        (
            lambda: damped_motion(damping="x"),
            "damping must be a finite number below 1e300, got 'x'",
        ),
        (lambda: damped_motion(speed=NAN), "speed must be a finite number"),
        (lambda: damped_motion(20, damping=-1e3), "grows without bound"),
        (lambda: delayed_control(0), "n_points must"),
        (lambda: narma(0), "order must be at least 1"),
        (lambda: narma(generator=3), "generator must be of type Generator or NoneType, got int"),
        (lambda: narma(10**9), "order must be at most 1,000"),
        (lambda: narma(drive="noise"), "'sines' or 'uniform', got 'noise'"),
        (lambda: narma(200, 5000, drive="uniform", generator=seeded(0)), "grows without bound"),
    ],
)
def test_series_that_cannot_be_made(call, match):
    with pytest.raises(DataError, match=match):
        call()


# --- Windows, split and scale


@given(st.integers(2, 12), st.integers(1, 11))
def test_windows_are_those_of_a_loop(n_points, window):
    series = torch.arange(n_points, dtype=torch.double) ** 2
    if n_points <= window:
        with pytest.raises(DataError, match=f"{n_points} points, and needs at least {window + 1}"):
            windows(series, window)
        return
    inputs, following = windows(series, window)
    expected = [[[(i + j) ** 2] for j in range(window)] for i in range(n_points - window)]
    assert inputs.tolist() == expected
    assert torch.equal(following, series[window:, None])
    inputs.zero_()  # nothing is shared
    assert series[-1] == (n_points - 1) ** 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(-1e6, 1e6))
def test_the_scaler_is_affine_and_comes_back(values, other):
    values = torch.tensor(values, dtype=torch.double)
    if values.max() - values.min() < 1e-3:
        return
    scaler = Scaler.fit(values)
    scaled = scaler.transform(values)
    assert scaled.min().item() == pytest.approx(-1)
    assert scaled.max().item() == pytest.approx(1)
    there = scaler.inverse(scaler.transform(torch.tensor(other, dtype=torch.double)))
    assert there.item() == pytest.approx(other, abs=1e-6)


def test_parts_follow_in_time_and_only_the_first_is_measured():
    series = torch.cat([torch.linspace(2, 6, 12), torch.linspace(50, 90, 8)])
    split = split_series(series, 3, (0.6, 0.2))
    assert split.starts == (12, 16)
    assert split.scaler == Scaler(2.0, 6.0)
    torch.testing.assert_close(split.values, (series.double() - 2) / 2 - 1)
    for (inputs, following), (first, end) in (
        (split.train, (3, 12)),
        (split.validation, (12, 16)),
        (split.test, (16, 20)),
    ):
        assert inputs.dtype == torch.float32
        assert torch.equal(following[:, 0], split.values[first:end].float())
        for k, window in enumerate(inputs):
            assert torch.equal(window[:, 0], split.values[first + k - 3 : first + k].float())
    later = series.clone()
    later[12:] = -1e4  # what comes later changes nothing in the training part
    assert torch.equal(split_series(later, 3).train[0], split.train[0])


def test_fractions_do_not_lose_a_point_to_rounding():
    assert split_series(torch.arange(100.0), 4, (0.29, 0.28)).starts == (29, 57)


HOSTILE = [
    (torch.tensor([1, NAN, 2, 3, 4, INF]), "not finite at 2 of its 6 points, first at number 1"),
    (torch.zeros(4, 1), r"shape \(n_points,\), got Tensor \(4, 1\)"),
    ([1.0, 2.0], "got list"),
    (torch.zeros(9, dtype=torch.cfloat), "a real tensor"),
    (torch.zeros(0), "has 0 points"),
]


@pytest.mark.parametrize(("series", "match"), HOSTILE)
@pytest.mark.parametrize("use", [windows, split_series, Scaler.fit, naive, train_forecaster])
def test_hostile_series(series, match, use):
    with pytest.raises(DataError, match=match):
        use(series)


@pytest.mark.parametrize("window", [0, -1, 2.0, None, True])
def test_hostile_windows(window):
    with pytest.raises(DataError, match="window must be"):
        windows(RAMP, window)


@pytest.mark.parametrize(
    "fractions", [(0.6, 0.4), (0.0, 0.5), (-0.1, 0.5), (NAN, 0.2), (0.8,), 0.7, ("a", 0.2), (1, 1)]
)
def test_hostile_fractions(fractions):
    with pytest.raises(DataError, match=r"two numbers above 0.*sum below 1"):
        split_series(RAMP, 4, fractions)


def test_what_cannot_be_split():
    with pytest.raises(DataError, match="the series is constant"):
        split_series(torch.ones(50))
    with pytest.raises(DataError, match=r"constant .* where its range is measured"):
        split_series(torch.cat([torch.zeros(30), RAMP]))
    for size in (1e-310, 1e307):
        with pytest.raises(DataError, match="constant or goes too far"):
            split_series(size * (RAMP.double() - 9))
    with pytest.raises(DataError, match="3 points, and needs at least 5"):
        split_series(RAMP[:3])
    with pytest.raises(DataError, match="split into 4, 2 and 2, are too few for a window of 4"):
        split_series(RAMP[:8], 4, (0.5, 0.25))


# --- References and measures


def test_naive_forecasts():
    series = torch.tensor([1.0, 5.0, 2.0, 6.0, 3.0], dtype=torch.double)
    assert naive(series).tolist() == [1, 5, 2, 6]
    assert naive(series, 2).tolist() == [1, 5, 2]
    with pytest.raises(DataError, match="5 points, and needs at least 6"):
        naive(series, 5)
    with pytest.raises(DataError, match="period must be at least 1"):
        naive(series, 0)


def test_measures_by_hand():
    actual, forecast = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 2.0])
    reference, history = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 2.0, 3.0, 1.0])
    assert mean_squared_error(forecast, actual) == pytest.approx(5 / 3)
    assert skill_score(forecast, actual, reference) == pytest.approx(1 - 5 / 14)
    assert skill_score(actual, actual, reference) == 1
    assert skill_score(reference, actual, reference) == 0
    assert mean_absolute_scaled_error(forecast, actual, history) == pytest.approx(1 / (5 / 3))


@pytest.mark.parametrize(
    ("forecast", "actual", "match"),
    [
        (torch.zeros(3, 1), torch.zeros(3), r"one shape .* \[\(3, 1\), \(3,\)\]"),
        (torch.full((1,), 1e200, dtype=torch.double), torch.zeros(1), "too far from each other"),
        ([1.0], torch.zeros(1), "must be tensors of one shape .* got list"),
        (torch.zeros(0), torch.zeros(0), "not be empty"),
        (torch.tensor([NAN]), torch.zeros(1), "not finite"),
    ],
)
def test_measures_do_not_broadcast_or_hide_nan(forecast, actual, match):
    for measure in (
        mean_squared_error,
        lambda f, a: skill_score(f, a, torch.ones_like(a)),
        lambda f, a: mean_absolute_scaled_error(f, a, RAMP),
    ):
        with pytest.raises(DataError, match=match):
            measure(forecast, actual)


def test_a_perfect_reference_is_refused():
    ones = torch.ones(3)
    with pytest.raises(DataError, match="the reference makes no error"):
        skill_score(ones, ones, ones)
    with pytest.raises(DataError, match="there is no scale"):
        mean_absolute_scaled_error(ones, ones, ones)
    steps = torch.cat([torch.rand(30, generator=seeded(0)), torch.ones(20)])
    with pytest.raises(DataError, match="the reference makes no error"):
        train_forecaster(steps, "plain", steps=10**9)


# --- The network


def torch_lstm(ours):
    """The oracle: torch's LSTM, its two biases summing to ours."""
    theirs = nn.LSTM(1, ours.units, batch_first=True, dtype=torch.double)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input_weight)
        theirs.weight_hh_l0.copy_(ours.state_weight)
        theirs.bias_ih_l0.normal_()
        theirs.bias_hh_l0.copy_(ours.bias - theirs.bias_ih_l0)
    return theirs


def test_the_cell_is_that_of_torch():
    torch.manual_seed(0)
    ours = LSTMForecaster(7).double()
    theirs, x = torch_lstm(ours), torch.randn(3, 5, 1, dtype=torch.double)
    expected = ours.read_out(theirs(x)[0][:, -1])
    torch.testing.assert_close(ours(x), expected)
    (ours(x) ** 2).sum().backward()
    ours.read_out.zero_grad()
    (ours.read_out(theirs(x)[0][:, -1]) ** 2).sum().backward()
    for name, other in (("input_weight", "ih"), ("state_weight", "hh")):
        found = getattr(ours, name).grad
        torch.testing.assert_close(found, getattr(theirs, f"weight_{other}_l0").grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias_ih_l0.grad)


def test_the_papers_number_of_weights():
    torch.manual_seed(0)
    net = LSTMForecaster()
    assert sum(p.numel() for p in net.parameters()) == 1781
    values = torch.cat([p.detach().flatten() for p in net.parameters()])
    assert 0.95 < values.abs().max() * math.sqrt(20) <= 1
    assert values.std().item() == pytest.approx(math.sqrt(1 / 60), rel=0.05)


def test_an_exported_forecaster_takes_any_batch():
    torch.manual_seed(0)
    circuit = FixedCircuit(7, 2, generator=seeded(0))
    plain = GeneratedNetwork(LSTMForecaster(3), circuit, generator=seeded(1)).eval().export()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(plain, (torch.rand(3, 4, 1),), dynamic_shapes=(batch,)).module()
    for count in (2, 7):
        x = torch.rand(count, 4, 1)
        torch.testing.assert_close(program(x), plain(x))


def test_networks_that_are_refused():
    for units in (0, 2.0, None):
        with pytest.raises(TargetError, match="units must be"):
            LSTMForecaster(units)
    for shape in ((3, 4), (3, 4, 2), (4,)):
        with pytest.raises(TargetError, match=r"\(batch, window, 1\), got"):
            LSTMForecaster(2)(torch.zeros(shape))


class Last(nn.Module):
    """Gives twice the oldest value less the newest, and a shape of choice."""

    def __init__(self, shape=(-1, 1), factor=1.0):
        super().__init__()
        self.shape = shape
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.double))

    def forward(self, x):
        assert not self.training
        return (self.factor * (2 * x[:, 0] - x[:, -1])).reshape(self.shape)


def test_roll_out_feeds_forecasts_back():
    history, net = torch.tensor([9.0, 1.0, 2.0, 4.0]), Last().train()
    values = [1.0, 2.0, 4.0]
    for _ in range(6):
        values.append(2 * values[-3] - values[-1])
    assert roll_out(net, history, 6, window=3).tolist() == values[3:]
    assert net.training
    net = LSTMForecaster(3)  # in float32, and one step is what the network says
    one = net(history[None, :, None]).item()
    assert roll_out(net, history, 1).tolist() == [one]
    with pytest.raises(TargetError, match=r"outputs of shape \(1,\) .*must give \(1, 1\)"):
        roll_out(Last((1,)), history, 1)
    with pytest.raises(DataError, match="not finite"):
        roll_out(Last(factor=1e300), history, 3)
    with pytest.raises(DataError, match="4 points, and needs at least 5"):
        roll_out(net, history, 1, window=5)
    with pytest.raises(TargetError, match="net must be of type Module"):
        roll_out(None, history, 1)
    for options in ({"horizon": 0}, {"horizon": 1.5}, {"horizon": 10**9}, {"window": 0}):
        with pytest.raises(DataError, match=f"{next(iter(options))} must be"):
            roll_out(net, history, **{"horizon": 1, **options})


# --- Training


class TorchLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.read_out = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.read_out(self.lstm(x)[0][:, -1])


def wide():
    return nn.Linear(1, 2)


def mean():
    return nn.Sequential(nn.Flatten(), nn.AvgPool1d(4))


def small(kind="fixed", series="narma-5", **options):
    defaults = {"target": lambda: LSTMForecaster(3), "n_layers": 2, "steps": 3, "batch_size": 16}
    return train_forecaster(series, kind, **(defaults | options))


@pytest.mark.parametrize(
    ("kind", "trained"), [("fixed", 110 + 13), ("ensemble", 110 + 12 + 13), ("plain", 1781)]
)
def test_the_counts_of_the_paper(kind, trained):
    row = train_forecaster("narma-5", kind, steps=1).row
    assert row["trainables"] == trained
    assert row["weights"] == 1781
    if kind == "ensemble":
        assert [row[k] for k in ("angles", "architecture", "mapping")] == [110, 12, 13]


KINDS = [
    ("fixed", {"circuit": {"rotation": "rx", "hadamard": False}}),
    (paper_space(7, 3).candidate(True, ("chain",), (("ry",),)), {}),
    ("ensemble", {}),
    ("ensemble", {"method": "second-order"}),
    ("relaxed", {"circuit": {"sharing": "qubit"}}),
    ("relaxed", {"method": "first-order", "batch_size": 16}),
    ("plain", {"learning_rate": 1e-2}),
    ("plain", {"target": TorchLSTM}),
    ("frozen", {"hidden": 3}),
    ("fixed", {"target": TorchLSTM, "network": {"gain": 1.0}}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_record_repeats_and_is_what_it_says(kind, options):
    first = small(kind, **options)
    torch.rand(3)  # where the global generator stands makes no difference
    state = torch.random.get_rng_state()
    again, other = small(kind, **options), small(kind, seed=1, **options)
    assert torch.equal(state, torch.random.get_rng_state())
    assert json.loads(json.dumps(first.row)) == first.row
    assert first.row | {"seconds": 0} == again.row | {"seconds": 0}
    assert first.row["test_mse"] != other.row["test_mse"]
    # Anew, from the network and the series, in numpy.
    series = narma(5).numpy()
    low, high = series[:180].min(), series[:180].max()
    scaled = 2 * (series - low) / (high - low) - 1
    x = torch.tensor(np.array([scaled[i - 4 : i] for i in range(240, 300)])[..., None]).float()
    with torch.no_grad():
        errors = first.run.net(x).numpy()[:, 0] - scaled[240:]
    persisting = ((scaled[239:-1] - scaled[240:]) ** 2).mean()
    row = first.row
    assert row["test_mse"] == pytest.approx((errors**2).mean(), rel=1e-5)
    assert row["skill"] == pytest.approx(1 - (errors**2).mean() / persisting, rel=1e-4)
    scale = np.abs(np.diff(scaled[:180])).mean()
    assert row["mase"] == pytest.approx(np.abs(errors).mean() / scale, rel=1e-4)
    assert row["validation_mse"] == pytest.approx(first.run.history[-1]["validation_loss"], 1e-4)
    assert row["trainables"] == sum(
        p.numel() for p in first.run.net.parameters() if p.requires_grad
    )
    searched = kind in ("ensemble", "relaxed")
    if searched:
        with torch.no_grad():
            errors = first.run.net.discretize()(x).numpy()[:, 0] - scaled[240:]
        assert row["discrete_mse"] == pytest.approx((errors**2).mean(), rel=1e-5)
    else:
        assert row["discrete_mse"] is None
    assert row["method"] == (options.get("method", "joint") if searched else "fit")


def test_what_was_found_can_be_trained():
    found = small("relaxed", circuit={"sharing": "qubit"}).run.architecture
    again = small(found)
    assert again.run.architecture == found
    assert again.row["kind"] == "candidate"


def test_training_learns():
    row = small(n_layers=6, steps=60, target=lambda: LSTMForecaster(4)).row
    assert row["test_mse"] < small(n_layers=6, target=lambda: LSTMForecaster(4)).row["test_mse"] / 3


def test_a_series_of_ones_own():
    wave = torch.sin(0.3 * torch.arange(120))
    row = small(series=wave, window=6, fractions=(0.5, 0.25)).row
    assert row["series"] == "own"
    assert row["seasonal_mse"] is None
    row = small(series=wave, period=21).row
    season = ((wave[96:] - wave[75:-21]) ** 2).mean() * 4 / (wave.max() - wave.min()) ** 2
    assert row["seasonal_mse"] == pytest.approx(season.item(), rel=1e-3)
    assert row["seasonal_mse"] < row["persistence_mse"] / 50
    for period, match in ((0, "period must be"), (97, "one shape"), (120, "needs at least 121")):
        with pytest.raises(DataError, match=match):
            small(series=wave, period=period, steps=10**9)


def test_every_target_keeps_its_shape():
    target = LSTMForecaster()
    net = GeneratedNetwork(target, RelaxedCircuit(11, 1, generator=seeded(0)))
    x = torch.rand(5, 4, 1)
    assert net(x).shape == (5, 1)
    torch.testing.assert_close(net.export()(x), net(x).detach())


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (SearchError, "kind must be one of.*got 'lstm'", {"kind": "lstm"}),
        (SearchError, "seed must be at least 0", {"seed": -1}),
        (SearchError, "seed must be a whole number", {"seed": 1.5}),
        (SearchError, "steps must be at least 1", {"steps": 0}),
        (SearchError, "method", {"kind": "relaxed", "method": "magic"}),
        (CircuitError, "n_layers must be at least 1", {"n_layers": 0}),
        (DataError, "series must be one of", {"series": "weather"}),
        (DataError, "window", {"window": 0}),
        (TargetError, "target must be of type Module, got int", {"target": lambda: 3}),
        (TargetError, "no trainable parameters", {"target": mean}),
        (TargetError, r"outputs of shape \(1, 4, 2\).* must give \(1, 1\)", {"target": wide}),
        (TargetError, r"must give \(1, 1\)", {"target": wide, "kind": "plain"}),
        (TargetError, "shape .'tuple',.", {"target": lambda: nn.LSTM(1, 1, batch_first=True)}),
        (TargetError, "6 qubits have 64", {"kind": paper_space(6, 1).sample(1)[0]}),
    ],
)
def test_hostile_trainings(error, match, options):
    with pytest.raises(error, match=match):
        small(**({"target": lambda: LSTMForecaster(4)} | options))


def test_a_forecast_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small().row = {}
