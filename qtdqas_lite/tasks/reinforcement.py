"""Agents whose policy and value a circuit writes, trained by stable-baselines3 (chapter 10)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..circuits import Candidate
from ..errors import SearchError, TargetError, check_positive, check_type, check_whole
from ..generator import GeneratedNetwork
from ..relaxation import Relaxation
from .configurations import Kind, build, trained_numbers
from .environments import evaluate, make_environment
from .policies import GeneratedPolicy

# isort: split
# The modules above say what to install where these are missing.
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.vec_env import VecNormalize

_ALL = {"learning_rate": 1e-2, "gamma": 0.99}
_A2C = {"gae_lambda": 0.95, "normalize_advantage": True, "use_rms_prop": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {**_ALL, "n_envs": 8, "n_steps": 128, "batch_size": 256, "n_epochs": 8},
    "a2c": {**_ALL, "n_envs": 16, "n_steps": 5, **_A2C},
}
"""What :func:`train_agent` passes on by default, by algorithm.

PPO learns from 8 x 128 steps in 32 minibatches, and each runs the two circuits once. A2C has the 16
workers of arXiv 2505.09653. The discount is 0.99: the paper's, 0.9, would leave 0.12 of a goal that
is twenty steps away. All this was chosen on CartPole and the empty rooms with a fixed circuit, on
other seeds than those that the book reports.
"""


class _Recorder(BaseCallback):
    """Records each episode, and trains two groups of parameters, if any, in alternate updates."""

    def __init__(self, groups: list[list[nn.Parameter]]) -> None:
        super().__init__()
        self.curve: list[dict[str, Any]] = []
        self.groups, self.updates = groups, 0

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                episode, cut = info["episode"], bool(info["TimeLimit.truncated"])
                row = {"return": float(episode["r"]), "length": int(episode["l"]), "truncated": cut}
                self.curve.append({"step": self.num_timesteps, **row})
        return True

    def _on_rollout_end(self) -> None:
        self._train_groups(self.updates % 2)
        self.updates += 1

    def _on_training_end(self) -> None:
        self._train_groups(0, 1)

    def _train_groups(self, *numbers: int) -> None:
        for number, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(number in numbers)


@dataclass(frozen=True)
class Agent:
    """A trained agent and what it is worth.

    Attributes:
        row: One row of a table, plain values by name: the settings, what is trained
            (:func:`~qtdqas_lite.tasks.configurations.trained_numbers` of both networks), and
            returns. ``mean_return`` is that of the likeliest actions, ``sampled_return`` of actions
            that are drawn as in training, each over ``episodes`` episodes from seeds that training
            has not seen; ``terminated`` and ``truncated`` say how the former ended.
            ``discrete_return`` is ``mean_return`` right after the gates of an ensemble or a relaxed
            circuit are chosen, with no further training (None for others).
        curve: One row for each episode of training, in the order in which they ended: the ``step``
            when it did, counted over all environments, ``return``, ``length`` and ``truncated``.
        policy: The network that gives logits of actions.
        value: The network that gives values.
        model: What stable-baselines3 has trained. To keep an agent, save its two networks: saving
            ``model`` would write a pickle.
    """

    row: dict[str, Any]
    curve: list[dict[str, Any]] = field(repr=False)
    policy: nn.Module = field(repr=False)
    value: nn.Module = field(repr=False)
    model: PPO | A2C = field(repr=False)


def train_agent(
    environment: str,
    kind: Kind | Candidate = "fixed",
    *,
    seed: int = 0,
    method: Literal["joint", "first-order"] = "joint",
    algorithm: Literal["ppo", "a2c"] = "ppo",
    total_steps: int = 40_000,
    n_layers: int = 10,
    hidden: Sequence[int] = (32, 32),
    episodes: int = 20,
    circuit: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    **options: Any,
) -> Agent:
    """Train an agent with two networks, its policy and its value, and measure it.

    With ten layers and the default networks, MiniGrid needs 13 qubits, and ``"ensemble"`` trains
    the 157 + 157 numbers of arXiv 2505.09653 for 6,023 + 5,825 weights. A2C is the synchronous form
    of the A3C that is used there. While training, rewards are divided by the running deviation of
    the discounted return: without that, CartPole was learned less steadily.

    Args:
        environment: As for :func:`.make_environment`.
        kind: What writes the weights, as for :func:`~qtdqas_lite.tasks.configurations.build`.
        seed: Everything random follows from it; the global generators are left as they were.
            Training starts from the seeds 1000 ``seed``, 1000 ``seed`` + 1, ..., and measuring from
            500 above.
        method: How the logits of an ensemble or a relaxed circuit are trained: with all the rest
            (``"joint"``), or in turn, on the steps of every other update, which angles and
            mapping are not trained on (``"first-order"``, as of arXiv 1806.09055).
        algorithm: ``"ppo"``, or ``"a2c"`` which uses each step for one update only.
        total_steps: How many steps, over all environments, at least 1; the last update is finished.
        n_layers: The layers of each circuit, at least 1.
        hidden: The units of each hidden layer of both networks; tanh follows each.
        episodes: How many are measured, 1 to 500.
        circuit: More arguments of the circuit's class.
        network: More arguments of :class:`~qtdqas_lite.GeneratedNetwork`.
        options: ``n_envs``, how many environments run side by side (1 to 500);
            ``learning_rate``, from which it falls to 0 in a straight line; and what PPO or A2C of
            stable-baselines3 takes, such as ``n_steps``, but not its policy, device and seed. Those
            not given are in :data:`.SETTINGS`.

    Raises:
        SearchError: if an argument is not as described, stable-baselines3 does not take an option,
            or a relaxed circuit draws its gates.
        TargetError: if ``hidden`` is not as described, or weights are not finite, as with a
            learning rate that is too high.
        QuantumTrainError: as :func:`.make_environment` and
            :func:`~qtdqas_lite.tasks.configurations.build`.
    """
    if algorithm not in ("ppo", "a2c"):
        raise SearchError(f"algorithm must be 'ppo' or 'a2c', got {algorithm!r}")
    if method not in ("joint", "first-order"):
        raise SearchError(f"method must be 'joint' or 'first-order' for agents, got {method!r}")
    options = {**SETTINGS[algorithm], **options}
    n_envs, rate = options.pop("n_envs"), options.pop("learning_rate")
    check_whole(SearchError, 0, 10**6, seed=seed)
    check_whole(SearchError, 1, 500, episodes=episodes, n_envs=n_envs)
    check_whole(SearchError, 1, 10**9, total_steps=total_steps, n_steps=options["n_steps"])
    n_updates = -(-total_steps // (n_envs * options["n_steps"]))
    check_positive(learning_rate=rate, gamma=options["gamma"])
    whole = {name: options[name] for name in ("batch_size", "n_epochs") if name in options}
    check_whole(SearchError, 1, 10**9, **whole)
    check_type(TargetError, list, tuple, hidden=hidden)
    check_whole(TargetError, 1, **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
    worlds = make_vec_env(partial(make_environment, environment), n_envs)
    with _generators_restored(), closing(worlds):
        n_inputs, n_actions = worlds.observation_space.shape[0], worlds.action_space.n  # type: ignore[index,attr-defined]
        torch.manual_seed(seed)  # the values that the targets start with
        policy, value = (
            build(
                kind,
                nn.Sequential(*create_mlp(n_inputs, n_outputs, [*hidden], nn.Tanh)),
                n_layers,
                circuit=circuit,
                network=network,
                seed=2 * seed + number,
            )
            for number, n_outputs in enumerate((n_actions, 1))
        )
        try:
            model = {"ppo": PPO, "a2c": A2C}[algorithm](
                GeneratedPolicy,
                VecNormalize(worlds, norm_obs=False, gamma=options["gamma"]),
                # What remains is measured after the steps of an update, and the last has to move.
                learning_rate=lambda remaining: rate * (remaining + 1 / n_updates),
                policy_kwargs={"networks": (policy, value)},
                seed=1000 * seed,
                device="cpu",
                **options,
            )
        except (AssertionError, TypeError) as error:
            raise SearchError(
                f"stable-baselines3's {algorithm} cannot be made with these options: {error}. "
                f"Policy, policy_kwargs, device and seed are set here; leave them out"
            ) from error
        logits, others = _split(model.policy)
        model.set_logger(Logger(None, []))  # or it would make a folder for its log
        recorder = _Recorder([others, logits] if logits and method == "first-order" else [])
        started = time.perf_counter()
        model.learn(n_updates * n_envs * options["n_steps"], recorder)
        seconds = time.perf_counter() - started
    measure = partial(evaluate, environment=environment, episodes=episodes, seed=1000 * seed + 500)
    best, drawn = measure(policy), measure(policy, deterministic=False)
    generated = [net for net in (policy, value) if isinstance(net, GeneratedNetwork)]
    row = {
        "environment": environment,
        "kind": "candidate" if isinstance(kind, Candidate) else kind,
        "method": method if logits else "fit",
        "algorithm": algorithm,
        "seed": seed,
        "n_qubits": max([net.bits.shape[1] for net in generated], default=0),
        "n_layers": n_layers if generated else 0,
        "total_steps": model.num_timesteps,
        "seconds": seconds,
        **trained_numbers(policy, value),
        "episodes": episodes,
        "mean_return": best.mean_return,
        "terminated": best.terminated,
        "truncated": best.truncated,
        "sampled_return": drawn.mean_return,
        "discrete_return": None,
    }
    if logits and isinstance(policy, GeneratedNetwork):
        row["discrete_return"] = measure(policy.discretize()).mean_return
    return Agent(row, recorder.curve, policy, value, model)


def _split(policy: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Tell the logits of relaxed circuits from the other trained parameters."""
    relaxed = [module for module in policy.modules() if isinstance(module, Relaxation)]
    if any(module.sampling != "softmax" for module in relaxed):
        raise SearchError(
            f"sampling must be 'softmax' for agents, got {relaxed[0].sampling!r}: the policy that "
            f"acts has to be the one that is trained, and gates drawn anew would change it"
        )
    logits = {id(p) for module in relaxed for p in module.alpha.values()}
    trained = [p for p in policy.parameters() if p.requires_grad]
    return [p for p in trained if id(p) in logits], [p for p in trained if id(p) not in logits]


@contextmanager
def _generators_restored() -> Iterator[None]:
    """Put back what stable-baselines3 seeds: the generators of Python, NumPy and torch."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
