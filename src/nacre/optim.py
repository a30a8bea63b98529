"""Steps of optimisation that Optax does not have: conjugate gradients and the trust region."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree


def conjugate_gradients(
    product: Callable[[Array], Array], b: Array, steps: int = 10, tolerance: float = 1e-10
) -> Array:
    """About A^-1 b for a symmetric, positive definite A, of which only product(x) = A x is known (Hestenes and Stiefel 1952)."""

    def step(carry, _):
        x, residual, direction, square = carry
        applied = product(direction)
        going = square > tolerance
        length = jnp.where(going, square / jnp.maximum(direction @ applied, 1e-30), 0.0)
        x, residual = x + length * direction, residual - length * applied
        after = residual @ residual
        direction = residual + jnp.where(going, after / jnp.maximum(square, 1e-30), 0.0) * direction
        return (x, residual, direction, after), None

    start = jnp.zeros_like(b), b, b, b @ b
    return jax.lax.scan(step, start, None, length=steps)[0][0]


class TrustRegion(NamedTuple):
    """Settings of a step."""

    size: float = 0.01  # most that the divergence may be
    iterations: int = 10  # of conjugate gradients
    damping: float = 0.0  # is added to the curvature's diagonal
    shrink: float = 0.8  # of the step, as long as it is refused
    tries: int = 15


def trust_region_step(
    loss: Callable[[Any], tuple[Array, Array]], params: Any, gradient: Any, product: Callable[[Any], Any], now: Array,
    region: TrustRegion,
) -> tuple[Any, dict[str, Array]]:  # fmt: skip
    """One step of TRPO (Schulman et al. 2015, arXiv:1502.05477) -> params, metrics.

    loss(params) -> what falls, and the divergence from the policy before; product(v): the divergence's second derivative times v;
    gradient: of the first, at params, where its value is `now`. The step along H^-1 g reaches the region's border in second order,
    and is shortened until the loss falls and the divergence is no larger than the region; if it never is, params stay.
    """
    flat, back = ravel_pytree(params)
    g = ravel_pytree(gradient)[0]
    curved = lambda v: ravel_pytree(product(back(v)))[0] + region.damping * v  # noqa: E731
    direction = conjugate_gradients(curved, g, region.iterations)
    reach = jnp.maximum(direction @ curved(direction), 0.0)
    whole = jnp.sqrt(2.0 * region.size / (reach + 1e-8))
    whole = jnp.where(jnp.isfinite(whole), whole, 0.0)

    def at(i):
        moved = flat - whole * region.shrink**i * direction
        return moved, *loss(back(moved))

    def refused(carry):
        i, _, value, divergence = carry
        good = (value < now) & (divergence <= region.size)  # False for NaN
        return ~good & (i < region.tries)

    def again(carry):
        i = carry[0] + 1
        return i, *at(i)

    i, moved, value, divergence = jax.lax.while_loop(refused, again, (jnp.zeros((), jnp.int32), *at(0)))
    good = (value < now) & (divergence <= region.size)
    new = back(jnp.where(good, moved, flat))
    metrics = {
        "step/accepted": good.astype(jnp.float32), "step/shrunk": i.astype(jnp.float32),
        "step/divergence": jnp.where(good, divergence, 0.0), "step/gain": jnp.where(good, now - value, 0.0),
        "gradient/norm": optax.tree.norm(gradient),
    }  # fmt: skip
    return new, metrics
