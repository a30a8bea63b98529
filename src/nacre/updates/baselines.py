"""Baselines that are fitted anew to each task's returns, instead of a value function that is learnt over iterations."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


def linear(obs: Array, time: Array, returns: Array, weight: Array, ridge: float = 1e-5) -> Array:
    """What a linear function of simple features says of the returns it is fitted to, per task: [N, L].

    Features (Duan et al. 2016, arXiv:1604.06778, as rllab and ProMP have them): observations within +-10, their squares, time,
    its square and cube in hundreds of env steps, and one. obs [N, L, d]; time [N, L] of the episode; returns, weight [N, L].
    Least squares with `ridge` times the squared coefficients, of features that are scaled to a mean square of one: of the features
    as they are float32 would lose it, and where two of them coincide (x = x^2 of a binary one) there would be no solution. Where
    many do (things that stand still) float32 can still find none, and that task's ridge grows tenfold until there is one.
    """
    obs, t = jnp.clip(obs, -10.0, 10.0), (time / 100.0)[..., None]
    x = jnp.concatenate([obs, obs**2, t, t**2, t**3, jnp.ones_like(t)], axis=-1)
    share = (weight / jnp.maximum(weight.sum(axis=1, keepdims=True), 1.0))[..., None]
    x = x / jnp.sqrt(jnp.maximum((x**2 * share).sum(axis=1, keepdims=True), 1e-12))
    gram = jnp.einsum("nli,nlj->nij", x * share, x)
    moments = jnp.einsum("nli,nl->ni", x * share, returns)
    return jnp.einsum("nli,ni->nl", x, jax.vmap(partial(_solved, ridge))(gram, moments))


def _solved(ridge: float, gram: Array, moments: Array) -> Array:
    """Coefficients of one task, as rllab finds them: by the least of the ridges `ridge`, 10 `ridge`, ... that gives finite ones."""

    def by(ridge):
        return ridge, jax.scipy.linalg.solve(gram + ridge * jnp.eye(len(gram)), moments, assume_a="pos")

    lost = lambda found: (found[0] < 1.0) & ~jnp.isfinite(found[1]).all()  # noqa: E731
    return jax.lax.while_loop(lost, lambda found: by(10.0 * found[0]), by(jnp.asarray(ridge, gram.dtype)))[1]
