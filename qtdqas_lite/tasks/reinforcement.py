"""Agents whose policy and value a circuit writes, trained by stable-baselines3 (chapter 09)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..circuits import Candidate
from ..errors import SearchError, TargetError, check_positive
from ..generator import GeneratedNetwork
from ..relaxation import Relaxation
from .configurations import Kind, build
from .environments import (
    Actor,
    Episode,
    Evaluation,
    check_whole,
    evaluate,
    make_environment,
    record_episode,
)
from .learning_curves import interquartile_mean_curve
from .policies import GeneratedPolicy

# isort: split
# The modules above say what to install where these are missing.
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.vec_env import VecNormalize

__all__ = [
    "SETTINGS",
    "Actor",
    "Agent",
    "Episode",
    "Evaluation",
    "GeneratedPolicy",
    "evaluate",
    "interquartile_mean_curve",
    "make_environment",
    "record_episode",
    "train_agent",
]

SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {
        "learning_rate": 1e-2,
        "n_envs": 8,
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 8,
        "gamma": 0.99,
    },
    "a2c": {
        "learning_rate": 1e-2,
        "n_envs": 16,
        "n_steps": 5,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "normalize_advantage": True,
        "use_rms_prop": False,
    },
}
"""What :func:`train_agent` passes on by default, by algorithm.

PPO learns from 8 x 128 steps in 32 minibatches, and each runs the two circuits once. A2C has the 16
workers of arXiv 2505.09653 and an update every 5 steps. The discount is 0.99: the paper's, 0.9,
would leave 0.12 of a goal that is twenty steps away. All this was chosen on CartPole and the empty
rooms with a fixed circuit, on other seeds than those that the book reports.
"""


class _Watch(BaseCallback):
    """Notes each episode; with ``"first-order"``, lets logits and the others move in turn."""

    def __init__(self, groups: list[list[nn.Parameter]]) -> None:
        super().__init__()
        self.curve: list[dict[str, Any]] = []
        self.groups, self.turn = groups, 0

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                episode, cut = info["episode"], bool(info["TimeLimit.truncated"])
                row = {"return": float(episode["r"]), "length": int(episode["l"]), "truncated": cut}
                self.curve.append({"step": self.num_timesteps, **row})
        return True

    def _on_rollout_end(self) -> None:
        self._move(self.turn)
        self.turn = 1 - self.turn

    def _on_training_end(self) -> None:
        self._move(0, 1)

    def _move(self, *turns: int) -> None:
        for turn, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(turn in turns)


@dataclass(frozen=True)
class Agent:
    """A trained agent and what it is worth.

    Attributes:
        row: One row of a table, plain values by name. ``mean_return`` is that of the likeliest
            actions, ``sampled_return`` of actions that are drawn as in training, each over
            ``episodes`` episodes from seeds that training has not seen; ``terminated`` and
            ``truncated`` say how the former ended. ``discrete_return`` is ``mean_return`` right
            after the gates of an ensemble or a relaxed circuit are chosen, with no further training
            (None for others). ``angles``, ``architecture`` and ``mapping`` are the trained numbers
            of each sort in both networks, ``trainables`` their sum, and ``weights`` those written.
        curve: One row for each episode of training, in the order in which they ended: the ``step``
            when it did, counted over all environments, ``return``, ``length`` and ``truncated``.
        policy: The network that gives logits of actions; a
            :class:`~qtdqas_lite.GeneratedNetwork`, unless the kind is ``"plain"``.
        value: The network that gives values, likewise.
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
        circuit: Passed to the circuit's class.
        network: Passed to :class:`~qtdqas_lite.GeneratedNetwork`.
        options: ``n_envs``, how many environments run side by side (1 to 500);
            ``learning_rate``, from which it falls to 0 in a straight line; and what
            stable-baselines3 takes, such as ``n_steps``. Those not given are in :data:`.SETTINGS`.

    Raises:
        DataError: as :func:`.make_environment`.
        DependencyError: as :func:`.make_environment`.
        SearchError: if an argument is not as described, the kind is unknown, or a relaxed circuit
            draws its gates, which PPO and A2C would take for a change of the policy.
        TargetError: if ``hidden`` is not as described, or weights are not finite, as with a
            learning rate that is too high.
        CircuitError: if the circuit cannot be built.
    """
    if algorithm not in ("ppo", "a2c"):
        raise SearchError(f"algorithm must be 'ppo' or 'a2c', got {algorithm!r}")
    if method not in ("joint", "first-order"):
        raise SearchError(f"method must be 'joint' or 'first-order' for agents, got {method!r}")
    options = {**SETTINGS[algorithm], **options}
    n_envs, rate = options.pop("n_envs"), options.pop("learning_rate")
    check_whole(0, 10**6, seed=seed)
    check_whole(1, 500, episodes=episodes, n_envs=n_envs)
    check_whole(1, 10**9, total_steps=total_steps, n_steps=options["n_steps"])
    n_updates = -(-total_steps // (n_envs * options["n_steps"]))
    check_positive(learning_rate=rate)
    if not isinstance(hidden, list | tuple) or not all(type(n) is int and n > 0 for n in hidden):
        raise TargetError(f"hidden must be whole numbers above 0, got {hidden!r}")
    with _own_randomness():
        worlds = make_vec_env(partial(make_environment, environment), n_envs)
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
        model = {"ppo": PPO, "a2c": A2C}[algorithm](
            GeneratedPolicy,
            VecNormalize(worlds, norm_obs=False, gamma=options["gamma"]),
            # What remains is measured after the steps of an update, and the last one has to move.
            learning_rate=lambda remaining: rate * (remaining + 1 / n_updates),
            policy_kwargs={"networks": (policy, value)},
            seed=1000 * seed,
            device="cpu",
            **options,
        )
        logits, others = _split(model.policy)
        model.set_logger(Logger(None, []))  # or it would make a folder for its log
        watch = _Watch([others, logits] if logits and method == "first-order" else [])
        started = time.perf_counter()
        model.learn(n_updates * n_envs * options["n_steps"], watch)
        seconds = time.perf_counter() - started
        worlds.close()
    measure = partial(evaluate, environment=environment, episodes=episodes, seed=1000 * seed + 500)
    best, drawn = measure(policy), measure(policy, deterministic=False)
    generated = [net for net in (policy, value) if isinstance(net, GeneratedNetwork)]
    budgets = [net.count() for net in generated]
    size = sum(p.numel() for p in model.policy.parameters() if p.requires_grad)
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
        "trainables": size,
        "angles": sum(budget.angles for budget in budgets),
        "architecture": sum(budget.architecture for budget in budgets),
        "mapping": sum(budget.mapping for budget in budgets),
        "weights": sum(budget.target for budget in budgets) or size,
        "episodes": episodes,
        "mean_return": best.mean_return,
        "terminated": best.terminated,
        "truncated": best.truncated,
        "sampled_return": drawn.mean_return,
        "discrete_return": None,
    }
    if logits and isinstance(policy, GeneratedNetwork):
        row["discrete_return"] = measure(policy.discretize()).mean_return
    return Agent(row, watch.curve, policy, value, model)


def _split(policy: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Tell the logits of relaxed circuits from the other trained parameters."""
    relaxed = [module for module in policy.modules() if isinstance(module, Relaxation)]
    if any(module.sampling != "softmax" for module in relaxed):
        raise SearchError(
            f"sampling must be 'softmax' for agents, got {relaxed[0].sampling!r}: the policy that "
            f"acts has to be the one that is trained, and gates drawn anew would change it"
        )
    names = {id(p) for module in relaxed for p in module.alpha.values() if p.requires_grad}
    trained = [p for p in policy.parameters() if p.requires_grad]
    return [p for p in trained if id(p) in names], [p for p in trained if id(p) not in names]


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Put back what stable-baselines3 seeds: the generators of Python, NumPy and torch."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
