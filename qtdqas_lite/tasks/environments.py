"""Environments as the book's agents see them, and acting in them (chapter 09)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import DataError, DependencyError, SearchError, needs
from ..generator import GeneratedNetwork

with needs("an agent", "gymnasium", "stable-baselines3"):
    import gymnasium
    from gymnasium.spaces import Box, Discrete
    from gymnasium.wrappers import TransformObservation
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy


def make_environment(name: str, *, render: bool = False) -> gymnasium.Env[Any, Any]:
    """Make an environment whose observations are flat vectors and whose actions are numbered.

    In MiniGrid, what is observed is the view of 7x7 squares: the object (0 to 10), its colour
    (0 to 5) and its state (0 to 3) of each, 147 whole numbers. They are divided by 10, so that they
    lie in [0, 1]. The mission's text and the compass are left out, as in arXiv 2505.09653.

    To read such an observation, ``reshape(7, 7, 3)``: the first index counts squares from the
    agent's left to its right, the second from the farthest ahead to its own, [3, 6]; the third is
    object, colour, state. An object of 1 is an empty square, 2 a wall, 8 the goal. The actions are
    0 turn left, 1 turn right, 2 forward; 3 to 6 handle objects.

    Args:
        name: The id that gymnasium knows it by, such as ``"CartPole-v1"`` or
            ``"MiniGrid-Empty-5x5-v0"``, or that you have registered one of your own by.
        render: Whether ``render()`` gives pictures, uint8, shape (height, width, 3). SDL, which
            draws some of them, is told to open no window, unless SDL_VIDEODRIVER is set.

    Returns:
        Observations have shape (n,), float32; actions are 0, ..., k - 1.

    Raises:
        DataError: if there is no such environment, its actions are not numbered, or its
            observations are not a box of numbers.
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
    if not isinstance(actions, Discrete) or actions.start != 0:
        raise DataError(
            f"{name} has the actions {actions}, and these agents choose among 0, ..., k - 1; to "
            f"offer them a few values of a continuous action, register the environment with "
            f"gymnasium.wrappers.DiscretizeAction"
        )
    if not isinstance(seen, Box) or not np.prod(seen.shape):
        raise DataError(
            f"{name} has the observations {seen}, and these agents see a Box of numbers; register "
            f"the environment with gymnasium.wrappers.FlattenObservation, which makes one of most"
        )
    scale = 10.0 if grid else 1.0
    low, high = (np.ravel(bound).astype(np.float32) / scale for bound in (seen.low, seen.high))
    return TransformObservation(
        made, lambda x: np.ravel(x).astype(np.float32) / np.float32(scale), Box(low, high)
    )


class Actor:
    """What acts: a policy network, or chance.

    Attributes:
        network: Gives the logits of actions, shape (batch, k), for observations, shape (batch, n).
            A generated network is exported, since acting needs only what it has written. None
            acts at random.
    """

    def __init__(self, network: nn.Module | None, n_actions: int, seed: int) -> None:
        """Take what acts, the number of actions k, and the seed of what is drawn."""
        self.network = network.export() if isinstance(network, GeneratedNetwork) else network
        self._equal = torch.zeros(n_actions)
        self._generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def predict(
        self, observation: np.ndarray, deterministic: bool = False, **_: Any
    ) -> tuple[np.ndarray, None]:
        """Choose actions, shape (batch,), for observations, shape (batch, n).

        ``deterministic`` takes the largest logit, if there is a network, instead of drawing from
        the softmax. The form is that of stable-baselines3, where the second part is a memory.
        """
        if self.network is None:
            logits, deterministic = self._equal.expand(len(observation), -1), False
        else:
            logits = self.network(torch.as_tensor(observation))
        if deterministic:
            return logits.argmax(1).numpy(), None
        drawn = torch.multinomial(logits.softmax(1), 1, generator=self._generator)
        return drawn[:, 0].numpy(), None


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
    network: nn.Module | None, environment: str, *, seed: int = 0, deterministic: bool = True
) -> Episode:
    """Act for one episode, and take a picture of every state.

    Args:
        network: The policy, as for :class:`Actor`; None acts at random.
        environment: As for :func:`make_environment`.
        seed: What the environment starts from, and actions are drawn from.
        deterministic: Whether to take the likeliest action, instead of drawing one.

    Raises:
        DataError: as :func:`make_environment`.
        DependencyError: as :func:`make_environment`, or if drawing needs another package.
    """
    made = make_environment(environment, render=True)
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
    made.close()
    return Episode(frames, rewards, bool(terminated), bool(truncated))


@dataclass(frozen=True)
class Evaluation:
    """What some episodes gave.

    Attributes:
        returns: The sum of rewards of each episode, in the order in which they ended.
        lengths: The number of steps of each.
        terminated: How many ended by the environment's rules: at a goal, by a fall.
        truncated: How many were cut off by a limit on the number of steps.
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
        network: The policy, as for :class:`Actor`. None acts at random: the reference that an agent
            has to beat.
        environment: As for :func:`make_environment`.
        episodes: How many, at least 1; number i, from 0, starts from ``seed`` + i.
        seed: Actions are drawn from it, too.
        deterministic: Whether to take the likeliest action, instead of drawing one.

    Raises:
        DataError: as :func:`make_environment`.
        DependencyError: as :func:`make_environment`.
        SearchError: if ``episodes`` or ``seed`` is not as described.
    """
    check_whole(1, 10**6, episodes=episodes)
    check_whole(0, 2**31, seed=seed)
    cut: list[bool] = []

    def count(here: dict[str, Any], _: dict[str, Any]) -> None:
        if here["done"]:
            cut.append(bool(here["info"]["TimeLimit.truncated"]))

    side_by_side = make_vec_env(partial(make_environment, environment), episodes, seed=seed)
    actor: Any = Actor(network, side_by_side.action_space.n, seed)  # type: ignore[attr-defined]
    returns, lengths = evaluate_policy(
        actor, side_by_side, episodes, deterministic, callback=count, return_episode_rewards=True
    )
    side_by_side.close()
    return Evaluation(returns, lengths, len(cut) - sum(cut), sum(cut))  # type: ignore[arg-type]


def check_whole(least: int, most: int, **numbers: int) -> None:
    """Raise :class:`~qtdqas_lite.SearchError` unless each number is whole and within the bounds."""
    for name, value in numbers.items():
        if type(value) is not int or not least <= value <= most:
            raise SearchError(
                f"{name} must be a whole number from {least} to {most:,}, got {value!r}"
            )
