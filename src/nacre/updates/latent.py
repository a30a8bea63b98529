"""A belief over a task's latent variable z: the memory of agents that infer their task from a set of transitions.

PEARL, section 4.1 (arXiv:1903.08254): q(z|c) is a product of independent Gaussian factors, one per transition of the context,
so evidence adds up in natural parameters and needs no stored context. Also here: the point estimate of the paper's ablation
(the mean of the embeddings) and a recurrent encoder that reads the context in order.
"""

import dataclasses
from dataclasses import dataclass
from itertools import count, islice, product
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre import distributions, nn
from nacre.distributions import Gaussian

POINTS = 256  # of the tasks' posteriors together
DRAWS_PER_TASK = 16  # draws from each task's posterior that they are taken from
EVIDENCE = 1e5  # trace of the evidence that counts: beyond it float32 cannot hold a prior's precision of 1 beside it
PRECISION_BIAS = -3.0  # so that a fresh encoder's factors are weak evidence: softplus(-3) = 0.05


class Memory(eqx.Module):
    """Natural parameters of q(z|c): sums over the transitions seen, so a trial of any length fits. Leading axis N."""

    z: Array  # [N, E, latent]
    precision: Array  # [N, latent]; zero: nothing seen, q = r(z). Deterministic: the number of transitions. With matrix
    # factors: [N, latent^2], a precision matrix
    weighted: Array  # [N, latent] precision * mean. Deterministic: the sum of embeddings
    hidden: Array  # [N, width] of a recurrent encoder, width 0 otherwise
    episodes: Array  # [N] episodes seen in this trial
    shift: Array  # [N, 1, latent] where the quasi-random sequence of this trial starts, in [0, 1)


def renew(memory: Memory | Array, fresh: Memory | Array, over: Array) -> Memory | Array:
    """`memory` with the z of `fresh` in the episodes marked in `over` [N, E]; what was seen of the tasks stays. Memories of
    scripted policies are arrays [N, E, ...], which change as z does."""
    if not isinstance(memory, Memory):
        return jnp.where(over[..., None], fresh, memory)
    return dataclasses.replace(memory, z=jnp.where(over[..., None], fresh.z, memory.z))


def sequence_steps(n: int) -> np.ndarray:
    """n steps in (0, 1) whose multiples, modulo one, leave small gaps from the first few on: continued fractions that repeat
    a word of ones and twos. The golden ratio is the word (1); words that are no rotation or power of another give numbers
    that are independent of each other."""

    def fraction(word: tuple[int, ...]) -> float:
        x = 0.0
        for quotient in reversed((word * 40)[:40]):
            x = 1 / (quotient + x)
        return x

    words = (
        w for size in count(1) for w in product((1, 2), repeat=size) if all(w < w[k:] + w[:k] for k in range(1, size))
    )
    return np.array([fraction(w) for w in islice(words, n)], np.float32)


@dataclass(frozen=True)
class Belief:
    """How a Memory is read, extended and sampled."""

    size: int  # dimensions of z
    latent: Literal["gaussian", "deterministic"] = "gaussian"
    factors: Literal["variance", "precision", "matrix"] = (
        "variance"  # what the encoder gives; with precision and matrix
    )
    # (factors that are not diagonal) r(z) is a factor, too
    draws: Literal["random", "spread"] = "random"
    recurrent_width: int = 0  # of a recurrent encoder's state

    @property
    def factor_size(self) -> int:
        """Numbers that the encoder gives per factor."""
        return self.size * (1 if self.latent == "deterministic" else 2) + self.matrix * self.size**2

    @property
    def matrix(self) -> bool:
        return self.factors == "matrix" and self.latent == "gaussian"

    def blank(self, rows: tuple[int, int]) -> Memory:
        """Nothing seen, z = 0."""
        zeros, hidden = jnp.zeros((rows[0], self.size)), jnp.zeros((rows[0], self.recurrent_width))
        precision = jnp.zeros((rows[0], self.size**2)) if self.matrix else zeros
        episodes, shift = jnp.zeros(rows[0], jnp.int32), jnp.zeros((rows[0], 1, self.size))
        return Memory(jnp.zeros((*rows, self.size)), precision, zeros, hidden, episodes, shift)

    def begin(self, key: Array, rows: tuple[int, int], points: Array | None = None) -> Memory:
        """Nothing seen, z from the prior."""
        shift_key, draw_key = jax.random.split(key)
        memory = dataclasses.replace(self.blank(rows), shift=jax.random.uniform(shift_key, (rows[0], 1, self.size)))
        prior = jnp.zeros((rows[0], self.size))
        return self.draw(memory, draw_key, jnp.zeros(rows[0], bool), Gaussian(prior, prior), points)

    def posterior(self, memory: Memory) -> Gaussian:
        """q(z|c) of N trials; N(0, I) where nothing was seen (deterministic: mean and variance 0)."""
        if self.matrix:
            evidence = memory.precision.reshape(-1, self.size, self.size)
            trace = jnp.trace(evidence, axis1=-2, axis2=-1)[:, None]
            held = EVIDENCE / jnp.maximum(trace, EVIDENCE)
            precision = jnp.eye(self.size) + held[..., None] * evidence
            return distributions.from_natural_matrix(precision, held * memory.weighted)
        deterministic = self.latent == "deterministic"
        prior = not deterministic and self.factors == "precision"
        mean, variance = distributions.from_natural(memory.precision + prior, memory.weighted)
        return Gaussian(mean, jnp.zeros_like(variance) if deterministic else variance)

    def draw(
        self, memory: Memory, key: Array, informed: Array, posterior: Gaussian, points: Array | None = None
    ) -> Memory:
        """z of each of the E episodes from the posterior where `informed` [N], else from the prior."""
        prior_variance = 0.0 if self.latent == "deterministic" else 1.0
        mean = jnp.where(informed[:, None], posterior.mean, 0.0)
        variance = jnp.where(informed[:, None], posterior.variance, prior_variance)
        root = posterior.root
        if root is not None:
            root = jnp.where(informed[:, None, None], root, jnp.eye(self.size))
        return dataclasses.replace(
            memory, z=self.place(Gaussian(mean, variance, root), self.uniform(memory, key), points)
        )

    def uniform(self, memory: Memory, key: Array) -> Array:
        """Uniform numbers in (0, 1) for z, [N, E, latent]. spread: u_k = shift + k step mod 1, a step per dimension: a
        Kronecker sequence, uniform for each k, evenly spread over successive k."""
        if self.draws == "random":
            return jax.random.uniform(key, memory.z.shape)
        k = memory.episodes[:, None, None] + jnp.arange(memory.z.shape[1])[:, None]
        return (memory.shift + k * jnp.asarray(sequence_steps(self.size))) % 1.0

    def place(self, q: Gaussian, u: Array, points: Array | None) -> Array:
        """The z [N, E, latent] at u in (0, 1)^latent of q, of N trials. points [P, latent] of what the tasks' posteriors are
        together stand for the prior: they are used in the measure in which a direction still has the prior's variance."""
        noise = jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))
        of_tasks = noise
        if points is not None:
            of_tasks = points[jnp.minimum((u[..., 0] * len(points)).astype(jnp.int32), len(points) - 1)]
        variance = q.variance
        if q.root is not None:  # along the covariance's own axes, of which none has more variance than the prior
            variance, axes = jnp.linalg.eigh(q.root @ jnp.swapaxes(q.root, -1, -2))
            variance = jnp.clip(variance, 0.0, 1.0)
            noise, of_tasks = noise @ axes, of_tasks @ axes
        variance = variance[:, None]
        open_ = jnp.clip(variance, 0.0, 1.0)
        z = jnp.sqrt(variance) * ((1 - open_) * noise + open_ * of_tasks)
        return q.mean[:, None] + (z if q.root is None else z @ jnp.swapaxes(axes, -1, -2))

    def points_of(self, q: Gaussian) -> Array:
        """Points [POINTS, latent] of the mixture of the Gaussians of n tasks, in order along the direction in which the
        means differ most, so that an even sequence of indices spreads over the tasks."""
        k = jnp.arange(DRAWS_PER_TASK)[:, None, None] + 0.5
        i = jnp.arange(q.mean.shape[0])[:, None]
        u = (k / DRAWS_PER_TASK + (k + i) * jnp.asarray(sequence_steps(self.size))) % 1.0
        points = q.at(jax.scipy.special.ndtri(jnp.clip(u, 1e-3, 1 - 1e-3)))  # [draw, task, latent]
        points = points.swapaxes(0, 1).reshape(-1, self.size)
        spread = q.mean - q.mean.mean(axis=0)
        direction = jnp.linalg.eigh(spread.T @ spread)[1][:, -1]
        order = jnp.argsort(points @ direction)
        chosen = ((jnp.arange(POINTS) + 0.5) / POINTS * len(points)).astype(jnp.int32)
        return points[order[chosen]]

    def product(self, factors: Array, keep: Array) -> tuple[Array, Array]:
        """Natural parameters of the product of M factors [N, M, factor_size] where `keep` [N, M, 1]: precision and weighted
        as a Memory has them."""
        if self.latent == "deterministic":  # the mean of the embeddings
            count = jnp.broadcast_to(keep.sum(axis=1), (factors.shape[0], self.size)).astype(factors.dtype)
            return count, (factors * keep).sum(axis=1)
        mean, raw, skew = jnp.split(factors, [self.size, 2 * self.size], axis=-1)
        if self.factors == "variance":
            variance = jnp.where(keep, jax.nn.softplus(raw), jnp.inf)  # an infinite variance is no evidence
            return distributions.product_of_gaussians(mean, variance, axis=1)
        each = jnp.where(keep, jax.nn.softplus(raw + PRECISION_BIAS), 0.0)
        if not self.matrix:
            return each.sum(axis=1), (each * mean).sum(axis=1)
        # A factor is `size` readings of (I + skew) z, independent of each other: N(mean; (I + skew) z, 1 / each).
        axes = skew.reshape(*skew.shape[:2], self.size, self.size) + jnp.eye(self.size)
        heavy = each[..., None] * axes
        precision = jnp.einsum("nmri,nmrj->nij", heavy, axes).reshape(-1, self.size**2)
        return precision, jnp.einsum("nmri,nmr->ni", heavy, mean)

    def see(
        self, encoder: nn.ContextEncoder, memory: Memory, x: Array, valid: Array, weight: Array | float = 1.0
    ) -> Memory:
        """Update q(z|c) with context x [N, M, d] where valid [N, M]. weight: how often each transition counts, one number
        or [N, 1]; a recurrent encoder does not count."""
        keep = valid[..., None]
        factors = encoder.net(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:2], -1)
        hidden = memory.hidden
        if encoder.core is not None:
            _, hidden = encoder.core(jax.nn.relu(factors), hidden, valid)
            factors, keep = encoder.head(hidden)[:, None], valid.any(axis=1)[:, None, None]
        precision, weighted = self.product(factors, keep)
        if encoder.core is not None:  # the last output speaks for the whole sequence: replace, do not add
            new = keep[:, 0]
            precision = jnp.where(new, precision, memory.precision)
            weighted = jnp.where(new, weighted, memory.weighted)
        else:
            precision, weighted = memory.precision + weight * precision, memory.weighted + weight * weighted
        return dataclasses.replace(memory, precision=precision, weighted=weighted, hidden=hidden)

    def infer(self, encoder: nn.ContextEncoder, x: Array, valid: Array, weight: Array | float = 1.0) -> Gaussian:
        """Context -> q(z|c) of N tasks; see `see`. Differentiable in the encoder."""
        return self.posterior(self.see(encoder, self.blank((x.shape[0], 1)), x, valid, weight))
