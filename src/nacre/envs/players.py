"""What the classical algorithms for bandits and for MDPs share."""

import jax
import jax.numpy as jnp
from jax import Array

from nacre.types import Key


def pick(score: Array, random: float, tie_key: Key, any_key: Key, coin_key: Key) -> Array:
    """The index [...] of one of the highest scores [..., A], ties broken at random; with probability `random` any index."""
    best = score >= score.max(axis=-1, keepdims=True)
    chosen = jnp.where(best, jax.random.uniform(tie_key, score.shape), -1.0).argmax(axis=-1)
    if random:
        other = jax.random.randint(any_key, chosen.shape, 0, score.shape[-1])
        chosen = jnp.where(jax.random.uniform(coin_key, chosen.shape) < random, other, chosen)
    return chosen
