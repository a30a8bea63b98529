"""Distributions: of actions, tanh-Normal, Gaussians and their product."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

LOG_2PI = 1.8378770664093453
TANH_EPSILON = 1e-6  # keeps log(1 - a^2) finite; the value of the official code, which the numbers depend on
VARIANCE_FLOOR = 1e-7


def normal_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    """Log density of a diagonal Normal, summed over the last axis: [..., d] -> [...]."""
    z = (x - mean) * jnp.exp(-log_std)
    return (-0.5 * (z**2 + LOG_2PI) - log_std).sum(axis=-1)


class Actions(NamedTuple):
    """What a policy gradient's policy says about actions: Categorical(logits), or a Normal of each dimension."""

    raw: Array  # [..., A] logits, or means
    log_std: Array | None  # [A] or [..., A]; None: actions are discrete

    def draw(self, key: Array, explore: bool) -> Array:
        """An action: [..., A], or an index [...]. explore False: the most probable one."""
        if self.log_std is None:
            return jax.random.categorical(key, self.raw) if explore else self.raw.argmax(axis=-1)
        noise = jax.random.normal(key, self.raw.shape) if explore else 0.0
        return self.raw + jnp.exp(self.log_std) * noise

    def log_prob(self, action: Array) -> Array:
        """[...] nats, summed over the dimensions of an action."""
        if self.log_std is None:
            return jnp.take_along_axis(jax.nn.log_softmax(self.raw), action[..., None], axis=-1)[..., 0]
        return normal_log_prob(action, self.raw, self.log_std)

    @property
    def entropy(self) -> Array:
        """[...] nats."""
        if self.log_std is None:
            log_p = jax.nn.log_softmax(self.raw)
            return -(jnp.exp(log_p) * log_p).sum(axis=-1)
        return jnp.broadcast_to((self.log_std + 0.5 * (1.0 + LOG_2PI)).sum(axis=-1), self.raw.shape[:-1])

    def kl(self, other: "Actions") -> Array:
        """KL(self || other) in nats, [...]."""
        if self.log_std is None:
            ours, theirs = jax.nn.log_softmax(self.raw), jax.nn.log_softmax(other.raw)
            return (jnp.exp(ours) * (ours - theirs)).sum(axis=-1)
        return kl_of_normals(self.raw, 2.0 * self.log_std, other.raw, 2.0 * other.log_std)


def tanh_normal(mean: Array, log_std: Array, noise: Array) -> tuple[Array, Array]:
    """Reparameterised draw a = tanh(mean + std * noise) and its log density [...] (SAC, appendix C)."""
    u = mean + jnp.exp(log_std) * noise
    action = jnp.tanh(u)
    correction = jnp.log(1.0 - action**2 + TANH_EPSILON).sum(axis=-1)
    return action, normal_log_prob(u, mean, log_std) - correction


def product_of_gaussians(mean: Array, variance: Array, axis: int) -> tuple[Array, Array]:
    """Natural parameters of the product of Gaussian factors along `axis`: (precision, precision-weighted mean).

    PEARL, section 4.1: q(z|c) is proportional to the product of N(z; mu_n, var_n). There is no prior factor. Variances are
    clipped below at 1e-7. Sums of natural parameters add up, so evidence can arrive piece by piece.
    """
    precision = 1.0 / jnp.maximum(variance, VARIANCE_FLOOR)
    return precision.sum(axis=axis), (precision * mean).sum(axis=axis)


class Gaussian(NamedTuple):
    """N(mean, covariance) of a batch. root None: the covariance is diagonal; else it is root @ root^T."""

    mean: Array  # [..., d]
    variance: Array  # [..., d] the covariance's diagonal
    root: Array | None = None  # [..., d, d]

    def at(self, noise: Array) -> Array:
        """Reparameterised draw for standard normal noise [..., d]."""
        if self.root is None:
            return self.mean + jnp.sqrt(self.variance) * noise
        return self.mean + jnp.einsum("...ij,...j->...i", self.root, noise)

    def kl_to_standard_normal(self) -> Array:
        """KL(self || N(0, I)) in nats, [...]."""
        if self.root is None:
            return kl_to_standard_normal(self.mean, self.variance)
        half_log_det = jnp.log(jnp.diagonal(self.root, axis1=-2, axis2=-1)).sum(axis=-1)  # the root is triangular
        return 0.5 * (self.mean**2 + self.variance - 1.0).sum(axis=-1) - half_log_det


def from_natural(precision: Array, weighted_mean: Array) -> tuple[Array, Array]:
    """(precision, precision * mean) -> (mean, variance). A precision of zero (no evidence) is the prior N(0, 1)."""
    known = precision > 0
    safe = jnp.where(known, precision, 1.0)
    return jnp.where(known, weighted_mean / safe, 0.0), 1.0 / safe


def from_natural_matrix(precision: Array, weighted_mean: Array) -> Gaussian:
    """(precision matrix [..., d, d], positive definite, precision @ mean [..., d]) -> the Gaussian, its root upper
    triangular."""
    lower = jnp.linalg.cholesky(precision)
    eye = jnp.broadcast_to(jnp.eye(precision.shape[-1]), precision.shape)
    inverse = jax.scipy.linalg.solve_triangular(lower, eye, lower=True)  # covariance = inverse^T @ inverse
    root = jnp.swapaxes(inverse, -1, -2)
    mean = jnp.einsum("...ji,...jk,...k->...i", inverse, inverse, weighted_mean)
    return Gaussian(mean, (root**2).sum(axis=-1), root)


def kl_of_normals(mean: Array, log_var: Array, prior_mean: Array, prior_log_var: Array) -> Array:
    """KL(N(mean, e^log_var) || N(prior_mean, e^prior_log_var)) of diagonal Gaussians in nats, summed over the last axis."""
    ratio = jnp.exp(log_var - prior_log_var) + (mean - prior_mean) ** 2 * jnp.exp(-prior_log_var)
    return 0.5 * (ratio - 1.0 - log_var + prior_log_var).sum(axis=-1)


def kl_to_standard_normal(mean: Array, variance: Array) -> Array:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the last axis."""
    return 0.5 * (mean**2 + variance - 1.0 - jnp.log(variance)).sum(axis=-1)
