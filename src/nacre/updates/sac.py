"""Soft actor-critic losses, optionally conditioned on a latent of the task, for continuous and discrete actions.

Two critics are known: `value`, the first SAC (Haarnoja et al. 2018a) that PEARL builds on, with a state value V, a slowly
following copy of it as target and two Q without targets; and `twin`, the later SAC (2018b), whose targets are copies of the
two Q. Rows are [N * M, ...] with a latent z [N, L]; row n * M + m belongs to task n.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import distributions, nn
from nacre.replay import Batch
from nacre.types import EnvSpec, Metric

Policy = nn.GaussianPolicy | nn.CategoricalPolicy

METRICS = {
    "loss/critic": Metric("reward^2", "squared Bellman error, both critics"),
    "loss/value": Metric("reward^2", "squared error of V"),
    "loss/policy": Metric("reward", "E[alpha log pi - min Q] with regularisers"),
    "q/mean": Metric("reward", "mean Q1 on the RL batch (scaled reward)"),
    "q/target": Metric("reward", "mean Bellman target"),
    "v/mean": Metric("reward", "mean V on the RL batch, or soft value"),
    "policy/entropy": Metric("nats", "-E[log pi]"),
    "policy/temperature": Metric("", "alpha"),
}


class Networks(eqx.Module):
    """What SAC trains, and the targets that follow."""

    critics: tuple[nn.MLP, nn.MLP]
    value: nn.MLP | None
    target: Any  # of `value`, or of both critics
    policy: Policy
    log_alpha: Array


def networks(
    keys: list[Array], spec: EnvSpec, latent_size: int, hidden: tuple[int, ...], critic: Literal["value", "twin"],
    temperature: float, norm: bool = False,
) -> Networks:  # fmt: skip
    """Fresh networks that take a latent of `latent_size` numbers; keys of Q1, Q2, V and the policy. norm: layer
    normalisation in the critics."""
    q1_key, q2_key, v_key, pi_key = keys
    state, act = spec.obs_size + latent_size, spec.action.size
    q_sizes = (state, *hidden, act) if spec.discrete else (state + act, *hidden, 1)
    critics = tuple(nn.MLP(q_sizes, key=k, norm=norm) for k in (q1_key, q2_key))
    value = nn.MLP((state, *hidden, 1), key=v_key, norm=norm) if critic == "value" else None
    policy_class = nn.CategoricalPolicy if spec.discrete else nn.GaussianPolicy
    policy = policy_class(state, hidden, act, key=pi_key)
    target = jax.tree.map(jnp.copy, critics if value is None else value)
    return Networks(critics, value, target, policy, jnp.asarray(math.log(temperature), jnp.float32))


def q_values(q: nn.MLP, obs: Array, action: Array, z: Array, discrete: bool) -> Array:
    """Q(s, a, z), [rows]. Discrete: the network maps (s, z) to all actions, `action` is one-hot."""
    if discrete:
        return (q(obs, z) * action).sum(axis=-1)
    return q(jnp.concatenate([obs, action], axis=-1), z)[:, 0]


def soft_value(
    policy: Policy, critics: tuple[nn.MLP, nn.MLP], obs: Array, z: Array, noise: Array | None, alpha: Array
) -> tuple[Array, dict[str, Array]]:
    """E_a[min_i Q_i(s, a, z) - alpha log pi(a|s, z)], [rows]; one reparameterised draw (noise [rows, A]), or exact where
    actions are discrete. aux: log_prob (its expectation), q (min, its expectation), mean and log_std of the Normal.
    """
    if isinstance(policy, nn.CategoricalPolicy):
        log_p = jax.nn.log_softmax(policy(obs, z), axis=-1)
        p = jnp.exp(log_p)
        q = jnp.minimum(critics[0](obs, z), critics[1](obs, z))
        value = (p * (q - alpha * log_p)).sum(axis=-1)
        return value, {"log_prob": (p * log_p).sum(axis=-1), "q": (p * q).sum(axis=-1)}
    mean, log_std = policy(obs, z)
    action, log_prob = distributions.tanh_normal(mean, log_std, noise)
    q = jnp.minimum(*(q_values(c, obs, action, z, discrete=False) for c in critics))
    return q - alpha * log_prob, {"log_prob": log_prob, "q": q, "mean": mean, "log_std": log_std}


def critic_loss(
    critics: tuple[nn.MLP, nn.MLP], batch: Batch, z: Array, target: Array, discrete: bool
) -> tuple[Array, Array]:
    """mean (Q1 - y)^2 + mean (Q2 - y)^2, without the factor 1/2 (official PEARL). No gradient to `target` -> loss, Q1."""
    q1, q2 = (q_values(q, batch.obs, batch.action, z, discrete) for q in critics)
    return jnp.mean((q1 - target) ** 2) + jnp.mean((q2 - target) ** 2), q1


def policy_loss(
    policy: Policy, critics: tuple[nn.MLP, nn.MLP], obs: Array, z: Array, noise: Array | None, alpha: Array,
    mean_weight: float, std_weight: float,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    """mean [alpha log pi - min Q] + mean_weight mean(mu^2) + std_weight mean(log_std^2). aux holds the soft value."""
    value, aux = soft_value(policy, critics, obs, z, noise, alpha)
    loss = -jnp.mean(value)
    if "mean" in aux:
        loss = loss + mean_weight * jnp.mean(aux["mean"] ** 2) + std_weight * jnp.mean(aux["log_std"] ** 2)
    return loss, {**aux, "value": value}


def value_loss(v: nn.MLP, obs: Array, z: Array, target: Array) -> tuple[Array, Array]:
    """mean (V(s, z) - y)^2 -> loss, V."""
    value = v(obs, z)[:, 0]
    return jnp.mean((value - target) ** 2), value


def temperature_loss(log_alpha: Array, log_prob: Array, target_entropy: float) -> Array:
    """-log alpha * (log pi + target entropy), SAC 2018b eq. 18 in the form of the official code."""
    return -jnp.mean(log_alpha * jax.lax.stop_gradient(log_prob + target_entropy))


def follow(target, online, tau: float):
    """target + tau (online - target) on every leaf, as (1 - tau) target + tau online."""
    return jax.tree.map(lambda t, o: (1.0 - tau) * t + tau * o, target, online)


@dataclass(frozen=True)
class Learner:
    """The coefficients of SAC and one gradient step with them. `step(name, gradients, parameters)` is the optimiser's."""

    discount: float
    target_rate: float
    reward_scale: float
    policy_mean_weight: float
    policy_std_weight: float
    learn_temperature: bool
    target_entropy: float  # nats

    def bellman_target(self, nets: Networks, batch: Batch, z: Array, noise: Array | None) -> Array:
        """y = reward_scale r + (1 - terminal) gamma V'(s', z), [rows]; V' is the target network, or the soft value of the
        target critics (noise [rows, A]). Time limits bootstrap."""
        if nets.value is not None:
            following = nets.target(batch.next_obs, z)[:, 0]
        else:
            following, _ = soft_value(nets.policy, nets.target, batch.next_obs, z, noise, jnp.exp(nets.log_alpha))
        return self.reward_scale * batch.train_reward + (1.0 - batch.terminal) * self.discount * following

    def improve(
        self, nets: Networks, critics: tuple[nn.MLP, nn.MLP], batch: Batch, z: Array, noise: Array | None,
        step: Callable[[str, Any, Any], Any],
    ) -> tuple[Networks, dict[str, Array]]:  # fmt: skip
        """After the critics' step: V, its target and the policy, in the official order, then the temperature. All see the
        stepped critics, the policy's loss and V's target one draw of actions."""
        alpha = jax.lax.stop_gradient(jnp.exp(nets.log_alpha))
        policy_grad = eqx.filter_value_and_grad(policy_loss, has_aux=True)
        weights = self.policy_mean_weight, self.policy_std_weight
        (pi_loss, pi), g_policy = policy_grad(nets.policy, critics, batch.obs, z, noise, alpha, *weights)
        v_loss, v, value, target = jnp.zeros(()), pi["value"], nets.value, critics
        if value is not None:
            v_grad = eqx.filter_value_and_grad(value_loss, has_aux=True)
            (v_loss, v), g_value = v_grad(value, batch.obs, z, jax.lax.stop_gradient(pi["value"]))
            value = target = step("value", g_value, value)
        target = follow(nets.target, target, self.target_rate)
        policy = step("policy", g_policy, nets.policy)
        log_alpha = nets.log_alpha
        if self.learn_temperature:
            g_alpha = jax.grad(temperature_loss)(log_alpha, pi["log_prob"], self.target_entropy)
            log_alpha = step("log_alpha", g_alpha, log_alpha)
        metrics = {
            "loss/value": v_loss, "loss/policy": pi_loss, "v/mean": v.mean(),
            "policy/entropy": -pi["log_prob"].mean(), "policy/temperature": alpha,
        }  # fmt: skip
        return Networks(critics, value, target, policy, log_alpha), metrics
