"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) and generalised advantages (Schulman et al. 2016).

Batches are sequences [N, L]: a trial's env steps one after another. What they were collected with, `old` log-probability and
value, is data; the policy gives the new ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre.types import Metric

METRICS = {
    "loss/policy": Metric("", "clipped surrogate, to be minimised"),
    "loss/value": Metric(
        "reward^2", "squared error of the value, in units of its returns' standard deviation if normalised"
    ),
    "policy/entropy": Metric("nats", "entropy of the policy"),
    "policy/kl": Metric("nats", "estimate of KL(old || new), mean of (ratio - 1) - log ratio"),
    "policy/clipped": Metric("", "share of steps whose ratio is beyond the clip"),
    "value/explained": Metric("", "share of the returns' variance that the value explained when they were collected"),
    "gradient/norm": Metric("", "norm of the gradient before it is scaled down"),
}


def advantages(reward: Array, value: Array, last: Array, alive: Array, discount: float, decay: float) -> Array:
    """Generalised advantages along the last axis: d_t = r_t + discount alive_t V_{t+1} - V_t, A_t = d_t + discount decay alive_t
    A_{t+1}. reward, value, alive [..., L]; last [...]: the value after the last step; alive 0 cuts what follows off."""
    following = jnp.concatenate([value[..., 1:], last[..., None]], axis=-1)
    delta = reward + discount * alive * following - value

    def back(a, x):
        d, keep = x
        a = d + discount * decay * keep * a
        return a, a

    move = lambda x: jnp.moveaxis(x, -1, 0)  # noqa: E731
    _, found = jax.lax.scan(back, jnp.zeros_like(last), (move(delta), move(alive * jnp.ones_like(delta))), reverse=True)
    return jnp.moveaxis(found, 0, -1)


def mean_of(x: Array, weight: Array) -> Array:
    """Weighted mean over all axes; 0 where nothing counts."""
    return (x * weight).sum() / jnp.maximum(weight.sum(), 1e-8)


def standardised(x: Array, weight: Array, least: float = 1e-4) -> Array:
    """Mean 0 and standard deviation 1 over what counts; differences well below `least` stay small."""
    mean = mean_of(x, weight)
    return (x - mean) / jnp.sqrt(mean_of((x - mean) ** 2, weight) + least**2)


def clipped(ratio: Array, advantage: Array, clip: float) -> Array:
    """min(ratio A, clip(ratio) A): no gain from a ratio that has left 1 +- clip (Schulman et al. 2017, arXiv:1707.06347)."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


@dataclass(frozen=True)
class Objective:
    """Coefficients of the loss."""

    clip: float = 0.2  # of the ratio
    value_clip: float = 0.0  # of the value's move from the old one; 0: none
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    huber: bool = False  # the value's error counts linearly where it is larger than 1

    def error(self, x: Array) -> Array:
        """x^2; with huber 2 |x| - 1 beyond 1."""
        return jnp.where(jnp.abs(x) < 1.0, x**2, 2.0 * jnp.abs(x) - 1.0) if self.huber else x**2

    def loss(
        self, log_prob: Array, entropy: Array, value: Array, old_log_prob: Array, old_value: Array, advantage: Array,
        returns: Array, weight: Array,
    ) -> tuple[Array, dict[str, Array]]:  # fmt: skip
        """-E[min(ratio A, clip(ratio) A)] + value_weight * E[(V - R)^2] - entropy_weight H, all [N, L] and weighted."""
        log_ratio = log_prob - old_log_prob
        ratio = jnp.exp(log_ratio)
        policy = -mean_of(clipped(ratio, advantage, self.clip), weight)
        error = self.error(value - returns)
        if self.value_clip:
            near = old_value + jnp.clip(value - old_value, -self.value_clip, self.value_clip)
            error = jnp.maximum(error, self.error(near - returns))
        value_loss, spread = mean_of(error, weight), mean_of(entropy, weight)
        metrics = {
            "loss/policy": policy, "loss/value": value_loss, "policy/entropy": spread,
            "policy/kl": mean_of(ratio - 1.0 - log_ratio, weight),
            "policy/clipped": mean_of((jnp.abs(ratio - 1.0) > self.clip).astype(ratio.dtype), weight),
        }  # fmt: skip
        return policy + self.value_weight * value_loss - self.entropy_weight * spread, metrics


def adam(max_gradient: float = 0.0) -> optax.GradientTransformation:
    """Adam's steps before their learning rate. max_gradient: gradients of a larger norm are scaled down to it; 0: never."""
    clip = optax.clip_by_global_norm(max_gradient) if max_gradient else optax.identity()
    return optax.chain(clip, optax.scale_by_adam())


def moved(params: Any, change: Any, rate: Array | float) -> Any:
    """Parameters after one of these steps."""
    return optax.apply_updates(params, jax.tree.map(lambda x: -rate * x, change))


def falling(rate: float, over: int, now: Array) -> Array | float:
    """A learning rate that falls linearly to a twentieth in `over` env steps; over 0: constant."""
    return rate * (1.0 - 0.95 * jnp.minimum(now / float(over), 1.0)) if over else rate


def rising(first: float, last: float, over: int, now: Array) -> Array | float:
    """A discount that rises from `first` to `last` in `over` env steps, 1 - discount falling geometrically; over 0: `last`."""
    if not over:
        return last
    part = jnp.minimum(now / float(over), 1.0)
    return 1.0 - (1.0 - first) ** (1.0 - part) * max(1.0 - last, 1e-6) ** part


def train(
    objective: Callable[[Any, Any], tuple[Array, dict[str, Array]]], optimiser: optax.GradientTransformation,
    params: Any, optimiser_state: Any, batch: Any, key: Array, *, rate: Array | float, epochs: int, parts: int,
) -> tuple[Any, Any, dict[str, Array]]:  # fmt: skip
    """Some epochs of gradient steps on minibatches of whole rows -> params, the optimiser's state, mean metrics.

    objective(params, minibatch) -> loss, metrics. batch: leaves lead with N rows, of which a minibatch has N / parts.
    """
    n = jax.tree.leaves(batch)[0].shape[0]
    gradient = eqx.filter_value_and_grad(objective, has_aux=True)

    def step(carry, rows):
        params, state = carry
        (_, metrics), grads = gradient(params, jax.tree.map(lambda x: x[rows], batch))
        change, state = optimiser.update(grads, state, params)
        return (moved(params, change, rate), state), {**metrics, "gradient/norm": optax.tree.norm(grads)}

    shuffled = jax.vmap(lambda k: jax.random.permutation(k, n))(jax.random.split(key, epochs))
    rows = shuffled.reshape(epochs * parts, n // parts)
    (params, optimiser_state), metrics = jax.lax.scan(step, (params, optimiser_state), rows)
    return params, optimiser_state, jax.tree.map(lambda x: x.mean(), metrics)


def explained(advantage: Array, returns: Array, weight: Array) -> Array:
    """Share of the returns' variance that values explained, where advantage = return - value."""
    variance = mean_of(returns**2, weight) - mean_of(returns, weight) ** 2
    return 1.0 - mean_of(advantage**2, weight) / jnp.maximum(variance, 1e-8)


def followed(scale: Array, returns: Array, weight: Array, first: Array) -> Array:
    """The mean square of discounted returns, by whose root values are scaled, after returns that are in its units. It follows
    slowly, but takes the first ones as they are."""
    follow = jnp.where(first, 1.0, 0.05)
    return jnp.maximum(scale * (1.0 + follow * (mean_of(returns**2, weight) - 1.0)), 1e-4)
