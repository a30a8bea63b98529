"""Baselines that are fitted anew to each task's returns, instead of a value function that is learnt over iterations."""

import jax
import jax.numpy as jnp
from jax import Array


def linear(obs: Array, time: Array, returns: Array, weight: Array, ridge: float = 1e-5) -> Array:
    """What a linear function of simple features says of the returns it is fitted to, per task: [N, L].

    Features (Duan et al. 2016, arXiv:1604.06778, as rllab and ProMP have them): observations within +-10, their squares, time,
    its square and cube in hundreds of env steps, and one. obs [N, L, d]; time [N, L] of the episode; returns, weight [N, L].
    Least squares with `ridge` times the squared coefficients, of features that are scaled to a mean square of one: of the features
    as they are float32 would lose it, and where two of them coincide (x = x^2 of a binary one) there would be no solution.
    """
    obs, t = jnp.clip(obs, -10.0, 10.0), (time / 100.0)[..., None]
    x = jnp.concatenate([obs, obs**2, t, t**2, t**3, jnp.ones_like(t)], axis=-1)
    share = (weight / jnp.maximum(weight.sum(axis=1, keepdims=True), 1.0))[..., None]
    x = x / jnp.sqrt(jnp.maximum((x**2 * share).sum(axis=1, keepdims=True), 1e-12))
    gram = jnp.einsum("nli,nlj->nij", x * share, x) + ridge * jnp.eye(x.shape[-1])
    moments = jnp.einsum("nli,nl->ni", x * share, returns)
    solve = jax.vmap(lambda a, b: jax.scipy.linalg.solve(a, b, assume_a="pos"))
    return jnp.einsum("nli,ni->nl", x, solve(gram, moments))
