"""Environments as the book's agents see them, and acting in them (chapter 10)."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import DataError, DependencyError, SearchError, TargetError, check_whole, needs
from ..generator import GeneratedNetwork
from .configurations import outputs

with needs("an agent", "gymnasium", "stable-baselines3"):
    import gymnasium
    from gymnasium.spaces import Box, Discrete
    from gymnasium.wrappers import TimeLimit, TransformObservation
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

# After how many steps an environment that sets no limit of its own is cut off.
MOST_STEPS = 10_000


def make_environment(name: str, *, render: bool = False) -> gymnasium.Env[Any, Any]:
    """Make an environment whose observations are flat vectors and whose actions are numbered.

    In MiniGrid, what is observed is the view of 7x7 squares: the object (0 to 10), its colour
    (0 to 5) and its state (0 to 3) of each, 147 whole numbers. They are divided by 10, so that they
    lie in [0, 1]. The mission's text and the compass are left out, as in arXiv 2505.09653.

    To read such an observation, ``reshape(7, 7, 3)``: the first index counts squares from the
    agent's left to its right, the second from the farthest ahead to its own, [3, 6]; the third is
    object, colour, state. An object of 1 is an empty square, 2 a wall, 8 the goal. The actions are
    0 turn left, 1 turn right, 2 forward; 3 to 6 handle objects.

    An environment that was registered without ``max_episode_steps`` is cut off after 10,000 steps.

    Args:
        name: The id that gymnasium knows it by, such as ``"CartPole-v1"`` or
            ``"MiniGrid-Empty-5x5-v0"``, or that you have registered one of your own by.
        render: Whether ``render()`` gives pictures, uint8, shape (height, width, 3), drawn without
            a window, unless SDL_VIDEODRIVER is set.

    Returns:
        Observations have shape (n,), float32; actions are 0, ..., k - 1.

    Raises:
        DataError: if there is no such environment, or its spaces are of other kinds.
        DependencyError: if it needs a package that is not installed.
    """
    if not isinstance(name, str):
        raise DataError(f"the environment must be an id, such as 'CartPole-v1', got {name!r}")
    if render:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    grid = name.startswith(("MiniGrid-", "BabyAI-"))
    try:
        if grid:
            from minigrid.wrappers import ImgObsWrapper  # which registers the ids
        made = gymnasium.make(name, render_mode="rgb_array" if render else None)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        needed = "minigrid" if grid else "'gymnasium[all]'"
        raise DependencyError(
            f"{name} needs a package that cannot be imported ({error}): pip install {needed}"
        ) from error
    except gymnasium.error.Error as error:
        raise DataError(
            f"gymnasium cannot make {name!r} ({error}); gymnasium.pprint_registry() lists what it "
            f"can make, and the packages of other environments have to be imported first"
        ) from error
    if grid:
        made = ImgObsWrapper(made)  # type: ignore[no-untyped-call]
    actions, seen = made.action_space, made.observation_space
    numbered = isinstance(actions, Discrete) and actions.start == 0
    if not numbered or not isinstance(seen, Box) or not np.prod(seen.shape):
        made.close()
        raise DataError(
            f"{name} has the actions {actions} and the observations {seen}; these agents choose "
            f"among 0, ..., k - 1 and see a Box of numbers: register the environment with "
            f"gymnasium.wrappers.DiscretizeAction or FlattenObservation"
        )
    if made.spec is None or made.spec.max_episode_steps is None:
        made = TimeLimit(made, MOST_STEPS)
    scale = 10.0 if grid else 1.0
    low, high = (np.ravel(bound).astype(np.float32) / scale for bound in (seen.low, seen.high))
    return TransformObservation(
        made, lambda x: np.ravel(x).astype(np.float32) / np.float32(scale), Box(low, high)
    )


class Actor:
    """What acts: a policy network, or chance.

    Attributes:
        network: Gives the logits of actions, shape (batch, k), for observations, shape (batch, n).
            It acts in eval mode, and a generated network is exported. None acts at random.
        n_actions: How many actions there are, k.
    """

    def __init__(self, network: nn.Module | None, n_actions: int, seed: int) -> None:
        """Take what acts, the number of actions, and the seed of what is drawn."""
        self.network = network.export() if isinstance(network, GeneratedNetwork) else network
        self.n_actions = check_whole(SearchError, 1, n_actions=n_actions)
        seed = check_whole(SearchError, 0, 2**32, seed=seed)
        self._generator = torch.Generator().manual_seed(seed)

    def predict(
        self, observation: np.ndarray, deterministic: bool = False, **_: Any
    ) -> tuple[np.ndarray, None]:
        """Choose actions, shape (batch,), for observations, shape (batch, n).

        ``deterministic`` takes the largest logit, if there is a network, instead of drawing from
        the softmax. The form is that of stable-baselines3, where the second part is a memory.

        Raises:
            TargetError: if the network does not give k logits that make a softmax.
        """
        if self.network is None:
            logits, deterministic = torch.zeros(len(observation), self.n_actions), False
        else:
            logits = outputs(self.network, torch.as_tensor(observation), self.n_actions)
        shares = logits.softmax(1)
        if shares.isnan().any():
            raise TargetError("the policy's logits make no softmax: there is an infinite one")
        if deterministic:
            return logits.argmax(1).numpy(), None
        return torch.multinomial(shares, 1, generator=self._generator)[:, 0].numpy(), None


@dataclass(frozen=True)
class Episode:
    """One episode, to be shown.

    Attributes:
        frames: Pictures of the first state to the last, each uint8, shape (height, width, 3).
        rewards: What each step gave: one fewer than there are pictures.
        terminated: Whether it ended by the environment's rules: at a goal, by a fall.
        truncated: Whether it was cut off by a limit on the number of steps.
    """

    frames: list[np.ndarray] = field(repr=False)
    rewards: list[float]
    terminated: bool
    truncated: bool


def record_episode(
    network: nn.Module | None,
    environment: str,
    *,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 1000,
) -> Episode:
    """Act for one episode, and take a picture of every state.

    Args:
        network: The policy, as for :class:`Actor`; None acts at random.
        environment: As for :func:`make_environment`.
        seed: What the environment starts from, and actions are drawn from.
        deterministic: Whether to take the likeliest action, instead of drawing one.
        max_steps: After how many steps the episode is cut off, at least 1: its pictures fill the
            memory. The environment's own limit, ``max_episode_steps``, may be lower.

    Raises:
        SearchError: if ``seed`` or ``max_steps`` is not as described.
        DependencyError: if drawing needs another package.
        QuantumTrainError: as :func:`make_environment` and :meth:`Actor.predict`.
    """
    check_whole(SearchError, 1, max_steps=max_steps)
    seed = check_whole(SearchError, 0, 2**31, seed=seed)
    with closing(make_environment(environment, render=True)) as made:
        actor = Actor(network, int(made.action_space.n), seed)  # type: ignore[attr-defined]
        observation, _ = made.reset(seed=seed)
        try:
            frames: list[Any] = [made.render()]
        except gymnasium.error.DependencyNotInstalled as error:
            raise DependencyError(f"{environment} cannot be drawn: {error}") from error
        rewards: list[float] = []
        terminated = truncated = False
        while not (terminated or truncated):
            actions, _ = actor.predict(observation[None], deterministic)
            observation, reward, terminated, truncated, _ = made.step(int(actions[0]))
            rewards.append(float(reward))
            frames.append(made.render())
            truncated = not terminated and (truncated or len(rewards) == max_steps)
    return Episode(frames, rewards, bool(terminated), bool(truncated))


@dataclass(frozen=True)
class Evaluation:
    """What some episodes gave.

    Attributes:
        returns: The sum of rewards of each episode, in the order in which they ended.
        lengths: The number of steps of each.
        terminated: How many ended by the environment's rules, as of :class:`Episode`.
        truncated: How many were cut off.
    """

    returns: list[float]
    lengths: list[int]
    terminated: int
    truncated: int

    @property
    def mean_return(self) -> float:
        """The mean of the returns."""
        return float(np.mean(self.returns))


def evaluate(
    network: nn.Module | None,
    environment: str,
    *,
    episodes: int = 20,
    seed: int = 0,
    deterministic: bool = True,
) -> Evaluation:
    """Act for some episodes, by stable-baselines3's ``evaluate_policy``.

    Args:
        network: The policy, as for :class:`Actor`. None acts at random, which an agent has to beat.
        environment: As for :func:`make_environment`.
        episodes: How many, 1 to 10,000; number i, from 0, starts from ``seed`` + i.
        seed: Actions are drawn from it, too.
        deterministic: Whether to take the likeliest action, instead of drawing one.

    Raises:
        SearchError: if ``episodes`` or ``seed`` is not as described.
        QuantumTrainError: as :func:`make_environment` and :meth:`Actor.predict`.
    """
    check_whole(SearchError, 1, 10_000, episodes=episodes)
    seed = check_whole(SearchError, 0, 2**31, seed=seed)
    cut: list[bool] = []

    def count(here: dict[str, Any], _: dict[str, Any]) -> None:
        if here["done"]:
            cut.append(bool(here["info"]["TimeLimit.truncated"]))

    made = make_vec_env(partial(make_environment, environment), episodes, seed=seed)
    with closing(made) as side_by_side:
        actor: Any = Actor(network, side_by_side.action_space.n, seed)  # type: ignore[attr-defined]
        returns, lengths = evaluate_policy(
            actor,
            side_by_side,
            episodes,
            deterministic,
            callback=count,
            return_episode_rewards=True,
        )
    return Evaluation(returns, lengths, len(cut) - sum(cut), sum(cut))  # type: ignore[arg-type]
