"""DDPG (Lillicrap et al. 2016, arXiv:1509.02971) and TD3 (Fujimoto et al. 2018, arXiv:1802.09477): a deterministic policy that
climbs a learnt Q, for continuous actions. DDPG has one critic; TD3 two, of which the smaller counts, smoothed targets, and a
policy that is updated less often."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import nn
from nacre.replay import Batch
from nacre.types import EnvSpec
from nacre.updates.sac import follow

Critics = tuple[nn.MLP, ...]


class Networks(eqx.Module):
    """What is trained, and the copies that follow."""

    policy: nn.MLP
    critics: Critics  # one, or TD3's two
    target_policy: nn.MLP
    target_critics: Critics


def networks(keys: list[Array], spec: EnvSpec, hidden: tuple[int, ...], norm: bool) -> Networks:
    """Fresh networks; keys of the policy and of each critic. norm: layer normalisation in all."""
    size = spec.action.size
    policy = nn.MLP((spec.obs_size, *hidden, size), key=keys[0], norm=norm)
    critics = tuple(nn.MLP((spec.obs_size + size, *hidden, 1), key=key, norm=norm) for key in keys[1:])
    return Networks(policy, critics, *jax.tree.map(jnp.copy, (policy, critics)))


def act(policy: nn.MLP, obs: Array) -> Array:
    """The action in [-1, 1]^A, [..., A]."""
    return jnp.tanh(policy(obs))


def q_value(critic: nn.MLP, obs: Array, action: Array) -> Array:
    """Q(s, a), [rows]."""
    return critic(jnp.concatenate([obs, action], axis=-1))[:, 0]


def critic_loss(critics: Critics, batch: Batch, target: Array) -> tuple[Array, Array]:
    """Sum over critics of mean (Q - y)^2; no gradient to `target` -> loss, Q1."""
    qs = [q_value(q, batch.obs, batch.action) for q in critics]
    return sum(jnp.mean((q - target) ** 2) for q in qs), qs[0]


def policy_loss(policy: nn.MLP, critic: nn.MLP, obs: Array) -> Array:
    """-mean Q1(s, mu(s))."""
    return -jnp.mean(q_value(critic, obs, act(policy, obs)))


@dataclass(frozen=True)
class Learner:
    """The coefficients and one gradient step with them. `step(name, gradients, parameters)` is the optimiser's."""

    discount: float
    target_rate: float
    reward_scale: float
    smoothing: float = 0.0  # standard deviation of the noise on the target's action; 0: DDPG
    smoothing_limit: float = 0.5
    delay: int = 1  # critic steps to one step of the policy and the targets

    def bellman_target(self, nets: Networks, batch: Batch, noise: Array) -> Array:
        """y = reward_scale r + (1 - terminal) gamma min_i Q'_i(s', a'), [rows]; a' is the target policy's action with clipped
        noise (standard normals [rows, A]). Time limits bootstrap."""
        blur = jnp.clip(self.smoothing * noise, -self.smoothing_limit, self.smoothing_limit)
        action = jnp.clip(act(nets.target_policy, batch.next_obs) + blur, -1.0, 1.0)
        following = jnp.stack([q_value(q, batch.next_obs, action) for q in nets.target_critics]).min(axis=0)
        return self.reward_scale * batch.train_reward + (1.0 - batch.terminal) * self.discount * following

    def improve(
        self, nets: Networks, batch: Batch, noise: Array, step: Callable[[str, Any, Any], Any]
    ) -> tuple[Networks, dict[str, Array]]:
        """One step of the critics, then of the policy by the stepped critic, and the targets after both."""
        target = jax.lax.stop_gradient(self.bellman_target(nets, batch, noise))
        grad = eqx.filter_value_and_grad(critic_loss, has_aux=True)
        (loss, q), g_critics = grad(nets.critics, batch, target)
        critics = step("critics", g_critics, nets.critics)
        pi_loss, g_policy = eqx.filter_value_and_grad(policy_loss)(nets.policy, critics[0], batch.obs)
        policy = step("policy", g_policy, nets.policy)
        followed = follow((nets.target_policy, nets.target_critics), (policy, critics), self.target_rate)
        metrics = {"loss/critic": loss, "loss/policy": pi_loss, "q/mean": q.mean(), "q/target": target.mean()}
        return Networks(policy, critics, *followed), metrics
