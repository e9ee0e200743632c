"""Agents in a small room whose two circuits grow while PPO trains them: part of `growth_study.py`.

A growth has to hear of every step of the optimiser; stable-baselines3's callbacks hear of the
environment's. So a hook of the optimiser calls it.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from qtdqas_lite import GeneratedNetwork, paper_space
from qtdqas_lite.growing_circuit import GrowingCircuit
from qtdqas_lite.growth import Growth
from qtdqas_lite.tasks.reinforcement import SETTINGS, GeneratedPolicy, evaluate, make_environment

ROOM = "MiniGrid-Empty-5x5-v0"
QUBITS, LAYERS = 13, 2  # of each network's circuit, one angle a wire and layer
STEPS, STEPS_EACH = 40_960, 30

RULES: dict[str, Any] = {"growth": "slope", "random slots": "random"}
NUMBERS = {"circuit 5": 5, "circuit 10": 10}


def train(
    method: str, seed: int, rate: float, depth: int, total_steps: int = STEPS
) -> tuple[list[GeneratedNetwork], int, float]:
    """Train an agent with two circuits of as many angles by whatever method.

    Returns:
        The networks of policy and value, the number of gradients, and the choice's bits in both.
    """
    settings = {k: v for k, v in SETTINGS["ppo"].items() if k != "learning_rate"}
    worlds = make_vec_env(partial(make_environment, ROOM), settings.pop("n_envs"))
    n_updates = total_steps // (worlds.num_envs * settings["n_steps"])
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        torch.manual_seed(seed)  # the values that the targets start with
        networks = []
        for number, n_outputs in enumerate((worlds.action_space.n, 1)):
            draw = torch.Generator().manual_seed(2 * seed + number)
            if method in RULES:
                circuit: nn.Module = GrowingCircuit(QUBITS, depth, generator=draw)
            else:
                candidate = list(paper_space(QUBITS, LAYERS))[NUMBERS[method] - 1]
                circuit = candidate.circuit(generator=draw)
            inputs = worlds.observation_space.shape[0]
            target = nn.Sequential(*create_mlp(inputs, n_outputs, [32, 32], nn.Tanh))
            networks.append(GeneratedNetwork(target, circuit, generator=draw))
        model = PPO(
            GeneratedPolicy,
            VecNormalize(worlds, norm_obs=False, gamma=settings["gamma"]),
            learning_rate=lambda remaining: rate * (remaining + 1 / n_updates),
            policy_kwargs={"networks": tuple(networks)},
            seed=1000 * seed,
            device="cpu",
            **settings,
        )
        model.set_logger(Logger(None, []))
        calls: list[Any] = [lambda: None]
        if method in RULES:
            options = {"rule": RULES[method], "steps_each": STEPS_EACH}
            calls = [
                stack.enter_context(Growth(net.circuit, QUBITS * LAYERS, generator=draw, **options))
                for net in networks
            ]
        counted = []

        def after(*_: object) -> None:
            counted.append(1)
            for call in calls:
                call()

        model.policy.optimizer.register_step_post_hook(after)
        model.learn(n_updates * worlds.num_envs * settings["n_steps"])
    worlds.close()
    return networks, len(counted), sum(net.count().choice_bits for net in networks)


def sampled_return(policy: nn.Module, seed: int) -> float:
    """Give the mean return of 20 episodes with drawn actions, from this seed on."""
    return evaluate(policy, ROOM, episodes=20, seed=seed, deterministic=False).mean_return
