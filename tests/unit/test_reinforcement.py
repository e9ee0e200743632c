"""Environments, policies and agents, against gymnasium's own loop, plain networks and torch."""

import copy
import importlib.util
import json
import random
import sys
import tempfile

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from torch import nn
from torch.distributions import Categorical

from qtdqas_lite import (
    CircuitError,
    DataError,
    DependencyError,
    GeneratedNetwork,
    GrowingCircuit,
    Growth,
    SearchError,
    TargetError,
    paper_space,
)
from qtdqas_lite.tasks import environments, policies
from qtdqas_lite.tasks.configurations import build
from qtdqas_lite.tasks.environments import Actor, evaluate, make_environment, record_episode
from qtdqas_lite.tasks.policies import GeneratedPolicy
from qtdqas_lite.tasks.reinforcement import train_agent

GRID, POLE = "MiniGrid-Empty-5x5-v0", "CartPole-v1"


SEEDS = []  # of every reset of a clock
CLOSED = []  # every clock that was closed


class Clock(gymnasium.Env):
    """Five steps, and then the end: of this kind or of that."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    observation_space = spaces.Box(-1.0, 1.0, (2, 1))
    action_space = spaces.Discrete(3)

    def __init__(self, end="terminated", reward=0.0, render_mode=None, **given_spaces):
        self.end, self.reward, self.render_mode = end, reward, render_mode
        vars(self).update(given_spaces)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        SEEDS.append(seed)
        self.time = 0
        return np.full((2, 1), 0.5, np.float32), {}

    def step(self, action):
        self.time += 1
        observation = np.full((2, 1), 0.5 - self.time / 5, np.float32)
        over = self.time == 5
        ends = over and self.end == "terminated", over and self.end == "truncated"
        return observation, self.reward, *ends, {}

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        CLOSED.append(self)


class Undrawable(Clock):
    def render(self):
        raise gymnasium.error.DependencyNotInstalled("no paint")


def unmakeable(**_):
    raise gymnasium.error.DependencyNotInstalled("no box")


@pytest.fixture(autouse=True, scope="module")
def own_environments():
    made = {
        "terminated": (Clock, {}),
        "truncated": (Clock, {"end": "truncated"}),
        "both": (Clock, {}),
        "endless": (Clock, {"end": "never"}),
        "continuous": (Clock, {"action_space": spaces.Box(-1.0, 1.0, (1,))}),
        "from-one": (Clock, {"action_space": spaces.Discrete(3, start=1)}),
        "numbered": (Clock, {"observation_space": spaces.Discrete(4)}),
        "blind": (Clock, {"observation_space": spaces.Box(0.0, 1.0, (0,))}),
        "undrawable": (Undrawable, {}),
        "unmakeable": (unmakeable, {}),
    }
    for name, (entry, options) in made.items():
        limit = 5 if name == "both" else None
        gymnasium.register(f"own/{name}-v0", entry, kwargs=options, max_episode_steps=limit)
    yield
    for name in made:
        gymnasium.registry.pop(f"own/{name}-v0")


class Always(nn.Module):
    """One action, whatever is seen."""

    def __init__(self, action, n_actions):
        super().__init__()
        self.logits = nn.Parameter(9.0 * torch.eye(n_actions)[action])

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def mlp(n_inputs, n_outputs):
    return nn.Sequential(nn.Linear(n_inputs, 4), nn.Tanh(), nn.Linear(4, n_outputs))


def networks(kind="relaxed", n_inputs=4, n_actions=2):
    torch.manual_seed(0)
    targets = mlp(n_inputs, n_actions), mlp(n_inputs, 1)
    return tuple(build(kind, target, 2, seed=i) for i, target in enumerate(targets))


def small(environment=POLE, kind="fixed", **options):
    defaults = {"n_layers": 2, "hidden": (4,), "episodes": 2, "total_steps": 64}
    defaults |= {"n_envs": 2, "n_steps": 16}
    if options.get("algorithm") != "a2c":
        defaults |= {"batch_size": 16, "n_epochs": 2}
    return train_agent(environment, kind, **(defaults | options))


# --- Environments


def test_minigrid_is_seen_as_147_numbers():
    ours, theirs = make_environment(GRID), gymnasium.make(GRID)
    seen, raw = ours.reset(seed=1)[0], theirs.reset(seed=1)[0]
    for action in (2, 1, 2, 0, 2, 5):
        assert seen.shape == (147,)
        assert seen.dtype == np.float32
        assert seen in ours.observation_space
        assert np.array_equal(np.rint(seen.reshape(7, 7, 3) * 10), raw["image"])
        assert seen.max() <= 1
        one, other = ours.step(action), theirs.step(action)
        assert one[1:4] == other[1:4]
        seen, raw = one[0], other[0]
    assert ours.action_space == spaces.Discrete(7)


def test_vectors_are_left_as_they_are():
    ours, theirs = make_environment(POLE), gymnasium.make(POLE)
    assert np.array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    assert np.array_equal(ours.step(1)[0], theirs.step(1)[0])
    assert ours.observation_space == theirs.observation_space
    assert make_environment("own/terminated-v0").reset()[0].shape == (2,)


@pytest.mark.parametrize(
    ("error", "match", "name"),
    [
        (DataError, "cannot make 'CartPole-v9'.*pprint_registry", "CartPole-v9"),
        (DataError, "cannot make 'Nowhere-v0'", "Nowhere-v0"),
        (DataError, "cannot make 'ALE/Pong-v5'.*have to be imported first", "ALE/Pong-v5"),
        (DataError, "cannot make 'MiniGrid-Empty-3x3-v0'", "MiniGrid-Empty-3x3-v0"),
        (DataError, "cannot make ''", ""),
        (DataError, "must be an id, such as 'CartPole-v1', got 3", 3),
        (DataError, "must be an id.* got None", None),
        (DataError, r"the actions Box\(.*DiscretizeAction", "Pendulum-v1"),
        (DataError, "the actions Box.*choose among 0, ..., k - 1", "own/continuous-v0"),
        (DataError, r"the actions Discrete\(3, start=1\)", "own/from-one-v0"),
        (DataError, r"the observations Discrete\(4\).*FlattenObservation", "own/numbered-v0"),
        (DataError, "and see a Box of numbers", "own/blind-v0"),
        (DependencyError, r"no box.*pip install 'gymnasium\[all\]'", "own/unmakeable-v0"),
    ],
)
@pytest.mark.parametrize("use", [make_environment, small, lambda name: evaluate(None, name)])
def test_hostile_environments(error, match, name, use):
    with pytest.raises(error, match=match):
        use(name)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid.wrappers", None)
    with pytest.raises(DependencyError, match=r"MiniGrid-Empty-5x5-v0 needs.*pip install minigrid"):
        make_environment(GRID)
    with pytest.raises(DependencyError, match="undrawable-v0 cannot be drawn: no paint"):
        record_episode(None, "own/undrawable-v0")
    for module, package, match in (
        (environments, "stable_baselines3.common.evaluation", "gymnasium stable-baselines3"),
        (environments, "gymnasium", "gymnasium stable-baselines3"),
        (policies, "stable_baselines3.common.policies", "stable-baselines3"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        spec = importlib.util.find_spec(module.__name__)
        with pytest.raises(DependencyError, match=f"pip install {match}$"):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))


# --- Acting


def by_hand(network, environment, seed):
    """The oracle: one episode in gymnasium's own loop."""
    made = make_environment(environment)
    x, rewards, over = made.reset(seed=seed)[0], [], (False, False)
    while not any(over):
        with torch.no_grad():
            action = network(torch.from_numpy(x)[None]).argmax().item()
        x, reward, *over, _ = made.step(action)
        rewards.append(reward)
    return sum(rewards), len(rewards), *over


@pytest.mark.parametrize("environment", [POLE, GRID])
def test_evaluation_is_a_plain_loop(environment):
    sizes = (4, 2) if environment == POLE else (147, 7)
    network = networks("fixed", *sizes)[0]
    found = evaluate(network, environment, episodes=3, seed=5)
    expected = [by_hand(network, environment, seed) for seed in (5, 6, 7)]
    assert sorted(found.returns) == pytest.approx(sorted(row[0] for row in expected))
    assert sorted(found.lengths) == sorted(row[1] for row in expected)
    assert found.terminated == sum(row[2] for row in expected)
    assert found.truncated == sum(row[3] for row in expected)
    assert found.mean_return == pytest.approx(np.mean([row[0] for row in expected]))
    exported = evaluate(network.export(), environment, episodes=3, seed=5)
    assert exported == found


def test_an_end_and_a_cut_are_counted_apart():
    for end in ("terminated", "truncated"):
        found = evaluate(None, f"own/{end}-v0", episodes=4)
        assert found.lengths == [5] * 4
        assert getattr(found, end) == 4
        assert found.terminated + found.truncated == 4


def test_an_end_in_the_step_of_the_limit_is_an_end():
    found = evaluate(None, "own/both-v0", episodes=2)
    assert (found.terminated, found.truncated, found.lengths) == (2, 0, [5, 5])
    shown = record_episode(None, "own/both-v0")
    assert (shown.terminated, shown.truncated, len(shown.frames)) == (True, False, 6)


def test_what_never_ends_is_cut_off(monkeypatch):
    monkeypatch.setattr(environments, "MOST_STEPS", 30)
    found = evaluate(None, "own/endless-v0", episodes=2)
    assert (found.terminated, found.truncated, found.lengths) == (0, 2, [30, 30])
    shown = record_episode(None, "own/endless-v0", max_steps=7)
    assert (shown.terminated, shown.truncated, len(shown.rewards)) == (False, True, 7)
    assert len(record_episode(None, "own/endless-v0").rewards) == 30
    with pytest.raises(SearchError, match="max_steps must be at least 1"):
        record_episode(None, POLE, max_steps=0)


def test_environments_are_closed():
    CLOSED.clear()
    evaluate(None, "own/truncated-v0", episodes=3)
    record_episode(None, "own/truncated-v0")
    assert len(CLOSED) == 4
    for call in (
        lambda: evaluate(nn.Linear(5, 3), "own/truncated-v0", episodes=1),
        lambda: record_episode(nn.Linear(5, 3), "own/truncated-v0"),
        lambda: make_environment("own/continuous-v0"),
        lambda: small("own/truncated-v0", n_envs=1, kind="dqn"),
    ):
        CLOSED.clear()
        with pytest.raises((DataError, SearchError, TargetError)):
            call()
        assert len(CLOSED) == 1


def test_acting_is_in_eval_mode():
    torch.manual_seed(0)
    noisy = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.8), nn.Linear(64, 2))
    before = copy.deepcopy(noisy.train().state_dict())
    noisy[2].eval()
    quiet = copy.deepcopy(noisy).eval()
    options = {"episodes": 3, "seed": 3}
    assert evaluate(noisy, POLE, **options) == evaluate(quiet, POLE, **options)
    assert record_episode(noisy, POLE).rewards == record_episode(quiet, POLE).rewards
    assert [part.training for part in noisy] == [True, True, False, True]
    assert all(torch.equal(noisy.state_dict()[name], value) for name, value in before.items())
    written = build("fixed", noisy, 2)  # a generated network that is in training mode
    assert evaluate(written, POLE, **options) == evaluate(written.eval(), POLE, **options)


class Gives(nn.Module):
    """Gives the same row of numbers for each observation."""

    def __init__(self, *row):
        super().__init__()
        self.row = torch.tensor(row)

    def forward(self, x):
        return self.row.expand(len(x), -1)


@pytest.mark.parametrize(
    ("policy", "match"),
    [
        (Gives(1.0), r"shape \(\d, 1\) for inputs of shape \(\d, 4\), and must give \(\d, 2\)"),
        (Gives(1.0, 2.0, 3.0, 4.0, 5.0), r"must give \(\d, 2\)"),
        (Gives(1.0, float("nan")), "gives NaN"),
        (Gives(1.0, float("inf")), "make no softmax"),
        (nn.Linear(5, 2), r"does not take inputs of shape \(\d, 4\)"),
        (nn.LSTM(4, 2), "shape .'tuple',."),
        ("left", "net must be of type Module, got str"),
    ],
)
def test_policies_of_another_environment(policy, match):
    for use in (lambda: evaluate(policy, POLE, episodes=3), lambda: record_episode(policy, POLE)):
        with pytest.raises(TargetError, match=match):
            use()
    forbids = Gives(1.0, -float("inf"))  # a logit of -inf rules an action out
    assert set(Actor(forbids, 2, 0).predict(np.zeros((99, 4), np.float32))[0]) == {0}


def test_the_random_reference():
    found = evaluate(None, POLE, episodes=200, seed=0)
    assert 18 < found.mean_return < 27  # about 22
    assert found == evaluate(None, POLE, episodes=200, seed=0, deterministic=False)
    assert found != evaluate(None, POLE, episodes=200, seed=1000)


def test_what_is_drawn_follows_the_softmax():
    network = mlp(4, 3)
    x = np.tile(np.float32([0.3, -1, 2, 0.5]), (20_000, 1))
    with torch.no_grad():
        logits = network(torch.from_numpy(x[:1]))[0]
    state = torch.get_rng_state()
    drawn, memory = Actor(network, 3, 0).predict(x)
    assert memory is None
    share = np.bincount(drawn, minlength=3) / len(x)
    np.testing.assert_allclose(share, Categorical(logits=logits).probs, atol=0.015)
    assert set(Actor(network, 3, 0).predict(x, True)[0]) == {logits.argmax().item()}
    share = np.bincount(Actor(None, 3, 0).predict(x, True)[0], minlength=3) / len(x)
    np.testing.assert_allclose(share, 1 / 3, atol=0.015)
    assert torch.equal(state, torch.get_rng_state())


def test_a_recorded_episode(capfd):
    left = record_episode(Always(0, 2), POLE, seed=4)
    assert (sum(left.rewards), len(left.rewards), left.terminated, left.truncated) == by_hand(
        Always(0, 2), POLE, 4
    )
    assert left.terminated
    assert len(left.frames) == len(left.rewards) + 1
    assert {(frame.shape, frame.dtype) for frame in left.frames} == {
        ((400, 600, 3), np.dtype("uint8"))
    }
    assert not np.array_equal(left.frames[0], left.frames[-1])
    turning = record_episode(Always(0, 7), GRID)
    assert turning.truncated
    assert not turning.terminated
    assert sum(turning.rewards) == 0
    assert len(turning.frames) == 101
    one, same, other = (record_episode(None, POLE, seed=seed) for seed in (1, 1, 2))
    assert one.rewards == same.rewards
    assert np.array_equal(one.frames[-1], same.frames[-1])
    assert not np.array_equal(one.frames[0], other.frames[0])
    assert capfd.readouterr() == ("", "")


# --- The policy


@pytest.mark.parametrize("kind", ["fixed", "ensemble", "relaxed", "plain"])
def test_the_policy_is_its_two_networks(kind):
    pair = networks(kind)
    model = PPO(GeneratedPolicy, make_environment(POLE), policy_kwargs={"networks": pair}, seed=1)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    plain = pair if kind == "plain" else [net.export() for net in pair]
    logits, values = (net(x).detach() for net in plain)
    oracle = Categorical(logits=logits)
    with torch.no_grad():
        actions, found, logs = model.policy(x)
    assert torch.equal(found, values)
    torch.testing.assert_close(logs, oracle.log_prob(actions))
    assert torch.equal(model.policy.predict_values(x).detach(), values)
    assert model.predict(x.numpy(), deterministic=True)[0].tolist() == logits.argmax(1).tolist()
    found, logs, entropy = model.policy.evaluate_actions(x, actions)
    torch.testing.assert_close(found.detach(), values)
    torch.testing.assert_close(logs.detach(), oracle.log_prob(actions))
    torch.testing.assert_close(entropy.detach(), oracle.entropy())
    (found.sum() + logs.sum()).backward()
    trained = {k: p for k, p in model.policy.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    for net, part in zip(pair, ("policy", "value"), strict=True):
        for name in ("circuit.theta", "mapping") if kind != "plain" else ():
            slopes = [p.grad for k, p in trained.items() if f"{part}.{name}" in k]
            assert any(slope.abs().max() > 0 for slope in slopes)
        if kind in ("ensemble", "relaxed"):
            assert any(p.grad.abs().max() > 0 for p in net.circuit.alpha.values())


@pytest.mark.parametrize(("algorithm", "minibatches"), [(PPO, 4), (A2C, 1)])
def test_weights_are_written_once_for_each_update(algorithm, minibatches):
    pair, calls = networks("fixed"), []
    for which, net in enumerate(pair):
        net.circuit.register_forward_hook(
            lambda *_, which=which: calls.append((which, torch.is_grad_enabled()))
        )
    options = {"batch_size": 8, "n_epochs": 2} if algorithm is PPO else {}
    model = algorithm(
        GeneratedPolicy,
        make_environment(POLE),
        n_steps=16,
        policy_kwargs={"networks": pair},
        **options,
    )
    model.learn(3 * 16)
    for which in (0, 1):
        assert calls.count((which, False)) == 3  # while 16 steps are made, three times
        assert calls.count((which, True)) == 3 * minibatches


def test_a_cut_is_worth_what_the_value_says_and_an_end_nothing():
    options = {"n_envs": 1, "n_steps": 10, "batch_size": 10, "total_steps": 1}
    options |= {"gamma": 0.8, "learning_rate": 1e-30}
    for end in ("terminated", "truncated"):
        agent = small(f"own/{end}-v0", **options)
        assert [row["truncated"] for row in agent.curve] == [end == "truncated"] * 2
        assert [row["step"] for row in agent.curve] == [5, 10]
        with torch.no_grad():
            value = agent.value(torch.full((1, 2), -0.5)).item()
        assert abs(value) > 1e-3
        expected = np.zeros(10)
        expected[[4, 9]] = 0.8 * value * (end == "truncated")
        buffer = agent.model.rollout_buffer
        np.testing.assert_allclose(buffer.rewards[:, 0], expected, rtol=1e-5, atol=1e-9)


# --- Training


def test_the_counts_of_the_paper():
    agent = small(GRID, "ensemble", n_layers=10, hidden=(32, 32), total_steps=1)
    for net, weights in ((agent.policy, 6023), (agent.value, 5825)):
        budget = net.count()
        assert (budget.total, budget.target) == (157, weights)
        assert (budget.angles, budget.architecture, budget.mapping) == (130, 12, 15)
    row = agent.row
    assert (row["trainables"], row["weights"], row["n_qubits"]) == (314, 11_848, 13)
    assert [row[k] for k in ("angles", "architecture", "mapping")] == [260, 24, 30]


KINDS = [
    ("fixed", {"circuit": {"rotation": "rx", "hadamard": False}}),
    ("frozen", {"network": {"gain": 1.0}}),
    (paper_space(5, 3).candidate(True, ("chain",), (("ry",),)), {}),
    ("ensemble", {"method": "first-order"}),
    ("relaxed", {"circuit": {"sharing": "qubit"}, "algorithm": "a2c"}),
    ("plain", {}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_record_repeats_and_is_what_it_says(kind, options):
    first = small(kind=kind, **options)
    torch.rand(3)  # where the global generators stand makes no difference
    np.random.rand(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    again, other = small(kind=kind, **options), small(kind=kind, seed=1, **options)
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
    row = first.row
    assert json.loads(json.dumps([row, first.curve])) == [row, first.curve]
    assert row | {"seconds": 0} == again.row | {"seconds": 0}
    assert first.curve == again.curve
    assert first.curve != other.curve
    for one, same in zip(first.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(one, same)
    assert row["total_steps"] == 64
    assert all(row["return"] == row["length"] for row in first.curve)  # of CartPole
    assert sum(row["length"] for row in first.curve) <= 64
    measured = {"episodes": 2, "seed": 500}
    assert row["mean_return"] == evaluate(first.policy, POLE, **measured).mean_return
    drawn = evaluate(first.policy, POLE, deterministic=False, **measured)
    assert row["sampled_return"] == drawn.mean_return
    assert row["terminated"] + row["truncated"] == 2
    searched = kind in ("ensemble", "relaxed")
    assert row["method"] == (options.get("method", "joint") if searched else "fit")
    assert (row["discrete_return"] is not None) == searched
    if searched:
        chosen = first.policy.discretize().export()
        assert row["discrete_return"] == evaluate(chosen, POLE, **measured).mean_return
    assert row["trainables"] == sum(
        p.numel() for p in first.model.policy.parameters() if p.requires_grad
    )
    assert row["weights"] == 4 * 4 + 4 + 4 * 2 + 2 + 4 * 4 + 4 + 4 + 1
    assert (row["angles"] > 0) == (kind not in ("frozen", "plain"))


def test_an_agent_is_measured_on_seeds_of_its_own():
    SEEDS.clear()
    small("own/terminated-v0", seed=4, episodes=3)
    measured = [4500, 4501, 4502]
    assert [seed for seed in SEEDS if seed is not None] == [4000, 4001, *measured, *measured]


@pytest.mark.parametrize("method", ["joint", "first-order"])
def test_who_moves_when(method, monkeypatch):
    moved, train = [], PPO.train

    def watched(model):
        before = {k: p.clone() for k, p in model.policy.named_parameters()}
        rate = model.lr_schedule(model._current_progress_remaining)
        train(model)
        changed = {k for k, p in model.policy.named_parameters() if not torch.equal(p, before[k])}
        parts = {k.split(".")[3] if "circuit" in k else "mapping" for k in changed}
        moved.append((parts, pytest.approx(rate)))

    monkeypatch.setattr(PPO, "train", watched)
    agent = small(kind="relaxed", method=method, total_steps=100, learning_rate=0.04)
    parts = [{"theta", "mapping"}, {"alpha"}] * 2
    if method == "joint":
        parts = [{"theta", "alpha", "mapping"}] * 4
    assert moved == list(zip(parts, (0.04, 0.03, 0.02, 0.01), strict=True))
    assert agent.row["total_steps"] == 128
    for net in (agent.policy, agent.value):
        trained = {k.split(".")[0] for k, p in net.named_parameters() if p.requires_grad}
        assert trained == {"circuit", "mapping"}
        assert all(p.requires_grad for p in net.circuit.parameters())


def test_training_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_training_learns():
    options = {"n_envs": 4, "n_steps": 128, "batch_size": 128, "n_epochs": 8}
    agent = small(total_steps=4096, n_layers=2, episodes=10, hidden=(8,), **options)
    assert agent.row["mean_return"] > 3 * evaluate(None, POLE, episodes=10).mean_return


def test_a_saved_policy_acts_as_before(tmp_path):
    agent = small(kind="ensemble")
    agent.policy.save(tmp_path / "policy.safetensors")
    target = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    loaded = GeneratedNetwork.load(tmp_path / "policy.safetensors", target)
    assert evaluate(loaded, POLE, seed=500, episodes=2).mean_return == agent.row["mean_return"]


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (SearchError, "kind must be one of.*got 'dqn'", {"kind": "dqn"}),
        (SearchError, "algorithm must be 'ppo' or 'a2c', got 'a3c'", {"algorithm": "a3c"}),
        (SearchError, "'joint' or 'first-order' for agents.*got 'imp", {"method": "implicit"}),
        (SearchError, "seed must be at least 0", {"seed": -1}),
        (SearchError, "seed must be at most 1,000,000", {"seed": 10**7}),
        (SearchError, "seed must be a whole number.*got 1.5", {"seed": 1.5}),
        (SearchError, "total_steps must be at least 1", {"total_steps": 0}),
        (SearchError, "n_steps must be a whole number.*got 'x'", {"n_steps": "x"}),
        (SearchError, "n_envs must be at most 500", {"n_envs": 501}),
        (SearchError, "episodes must be at least 1", {"episodes": 0}),
        (SearchError, "learning_rate must be a finite number", {"learning_rate": 0}),
        (SearchError, "learning_rate must be", {"learning_rate": float("nan")}),
        (TargetError, r"hidden\[0\] must be at least 1, got 0", {"hidden": (0,)}),
        (SearchError, "options: .*'device'.* device and seed are set here", {"device": "cpu"}),
        (SearchError, "options: .*'policy_kwargs'", {"policy_kwargs": {}}),
        (SearchError, "options: .*'policy'", {"policy": "MlpPolicy"}),
        (SearchError, "options: .*'clip'", {"clip": 0.1}),
        (SearchError, "options: .*batch_size", {"batch_size": 1}),
        (SearchError, "batch_size must be a whole number", {"batch_size": None}),
        (SearchError, "gamma must be a finite number above 0", {"gamma": "x"}),
        (TargetError, "hidden must be of type list or tuple, got str", {"hidden": "32"}),
        (TargetError, "hidden must be of type list or tuple, got int", {"hidden": 32}),
        (CircuitError, "n_layers must be at least 1", {"n_layers": 0}),
        (CircuitError, "theta must hold finite angles", {"learning_rate": 1e30}),
        (TargetError, "3 qubits have 8 basis states", {"kind": paper_space(3, 1).sample(1)[0]}),
        (
            SearchError,
            "must be 'softmax' for agents, got 'gumbel'",
            {"kind": "relaxed", "circuit": {"sampling": "gumbel"}},
        ),
    ],
)
def test_hostile_trainings(error, match, options):
    with pytest.raises(error, match=match):
        small(**options)


def test_a_circuit_grows_while_an_agent_trains():
    """As the docstring of Growth says: a hook of the optimiser hears of every step."""
    targets = nn.Linear(4, 2), nn.Linear(4, 1)
    policy, value = (GeneratedNetwork(target, GrowingCircuit(4, 3)) for target in targets)
    options = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu", "seed": 0}
    networks = {"networks": (policy, value)}
    model = PPO(GeneratedPolicy, make_environment("CartPole-v1"), policy_kwargs=networks, **options)
    with Growth(policy.circuit, 3, steps_each=2) as growth:
        hook = model.policy.optimizer.register_step_post_hook(lambda *_: growth())
        model.learn(64)
        hook.remove()
    assert (policy.circuit.n_open, value.circuit.n_open) == (3, 0)
    assert (policy.circuit.theta != 0).sum() == 3
    assert all(choice["slope"] != 0 for choice in growth.choices)


def test_a_view_is_read_as_the_documentation_says():
    world = make_environment("MiniGrid-Empty-5x5-v0")
    seen, _ = world.reset(seed=0)
    objects = (10 * seen.reshape(7, 7, 3)[:, :, 0]).round()
    # The agent is at [3, 6], a wall to its left, and the goal two ahead and two to its right.
    assert (objects[5, 4], objects[3, 6], objects[2, 6]) == (8, 1, 2)
    ahead = world.step(2)[0].reshape(7, 7, 3)
    assert round(10 * float(ahead[5, 5, 0])) == 8
