"""Baselines that are fitted anew to each task's returns, instead of a value function that is learnt over iterations."""

import jax.numpy as jnp
from jax import Array


def linear(obs: Array, time: Array, returns: Array, weight: Array, ridge: float = 1e-5) -> Array:
    """What a linear function of simple features says of the returns it is fitted to, per task: [N, L].

    Features (Duan et al. 2016, arXiv:1604.06778, as rllab and ProMP have them): observations within +-10, their squares, time,
    its square and cube in hundreds of env steps, and one. obs [N, L, d]; time [N, L] of the episode; returns, weight [N, L].
    Least squares with `ridge` times the squared coefficients.
    """
    obs, t = jnp.clip(obs, -10.0, 10.0), (time / 100.0)[..., None]
    x = jnp.concatenate([obs, obs**2, t, t**2, t**3, jnp.ones_like(t)], axis=-1)
    counted = x * weight[..., None]
    gram = jnp.einsum("nli,nlj->nij", counted, x) + ridge * jnp.eye(x.shape[-1])
    moments = jnp.einsum("nli,nl->ni", counted, returns)
    coefficients = jnp.linalg.solve(gram, moments[..., None])
    return (x @ coefficients)[..., 0]
