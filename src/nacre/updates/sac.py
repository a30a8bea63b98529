"""Soft actor-critic losses, optionally conditioned on a latent of the task, for continuous and discrete actions.

Two critics are known: `value`, the first SAC (Haarnoja et al. 2018a) that PEARL builds on, with a state value V, a slowly
following copy of it as target and two Q without targets; and `twin`, the later SAC (2018b), whose targets are copies of the
two Q. Rows are [N * M, ...] with a latent z [N, L]; row n * M + m belongs to task n.
"""

import jax
import jax.numpy as jnp
from jax import Array

from nacre import distributions, nn
from nacre.replay import Batch

Policy = nn.GaussianPolicy | nn.CategoricalPolicy


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
