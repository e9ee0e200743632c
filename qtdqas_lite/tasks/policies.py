"""Generated networks in the form that stable-baselines3 trains (chapter 10)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import needs

with needs("an agent", "stable-baselines3"):
    from stable_baselines3.common.policies import ActorCriticPolicy


class _Both(nn.Module):
    """The part that comes before the heads in stable-baselines3; here, it is all there is."""

    def __init__(self, policy: nn.Module, value: nn.Module) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(features), self.value(features)

    def forward_actor(self, features: Tensor) -> Any:
        return self.policy(features)

    def forward_critic(self, features: Tensor) -> Any:
        return self.value(features)


class GeneratedPolicy(ActorCriticPolicy):
    """An ``ActorCriticPolicy`` of stable-baselines3 made of two whole networks: policy and value.

    While gradients are off, as when acting, a :class:`~qtdqas_lite.GeneratedNetwork` writes its
    weights only once after each update, not at every step of an environment.
    """

    def __init__(self, *spaces: Any, networks: tuple[nn.Module, nn.Module], **options: Any) -> None:
        """Take what stable-baselines3 passes, and two networks as ``policy_kwargs``.

        Args:
            spaces: The spaces of observations and actions, and the schedule of the learning rate.
            networks: They map observations, shape (batch, n), to logits of actions, shape
                (batch, k), and to values, shape (batch, 1).
            options: As for stable-baselines3's ``ActorCriticPolicy``.
        """
        self._networks = networks
        super().__init__(*spaces, **{**options, "ortho_init": False})

    def _build(self, lr_schedule: Any) -> None:
        self.mlp_extractor = _Both(*self._networks)  # type: ignore[assignment]
        self.action_net = self.value_net = nn.Identity()  # type: ignore[assignment]
        options = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **options)
