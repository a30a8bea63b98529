"""Outer steps of agents that adapt by gradients: on the mean over tasks of a loss, through each task's inner steps.

An agent says, of one task: losses(params, seen) -> its outer loss and the divergence of its adapted policy from the one that acted;
said(params, seen) -> what the adapted policy says where that one acted. `seen` leads with the axis of tasks and has the
last round in `seen.last`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import optim
from nacre.distributions import Actions
from nacre.types import Metric
from nacre.updates import inner, ppo

METRICS = {
    "loss/outer": Metric("", "outer loss before the step: minus the mean advantage after adaptation"),
    "step/accepted": Metric("share", "outer steps by TRPO that were taken"),
    "step/shrunk": Metric("times", "how often the step was shortened until the loss fell within the region"),
    "step/divergence": Metric("nats", "from the adapted policies before the outer step to those after it"),
    "step/gain": Metric("", "by how much the outer loss fell"),
    "gradient/norm": Metric("", "of the meta-gradient"),
    "policy/kl": Metric("nats", "from the adapted policies before the step to those after it, in its last epoch"),
}

Losses = Callable[[Any, Any], tuple[Array, Array]]


def mean_over_tasks(f: Callable[..., Any], *args: Any) -> Any:
    return jax.tree.map(lambda x: x.mean(axis=0), inner.over_tasks(f, *args))


def curvature(said: Callable[[Any, Any], Any], params: Any, seen: Any) -> Callable[[Any], Any]:
    """v -> the second derivative of the mean divergence times v, where the divergence is zero and so has no gradient: what the
    adapted policies say changes linearly, and the divergence with the square of that. The linear parts are worked out once, for
    all iterations of conjugate gradients."""

    def linear(s):
        now, forward = jax.linearize(lambda p: said(p, s), params)
        return forward, jax.linearize(jax.grad(lambda new: ppo.mean_of(s.last.said.kl(new), s.last.weight)), now)[1]

    def product(forward, bend, v):
        return jax.linear_transpose(forward, params)(bend(forward(v)))[0]

    parts = inner.over_tasks(linear, seen)
    return lambda v: mean_over_tasks(lambda forward, bend: product(forward, bend, v), *parts)


@dataclass(frozen=True)
class Outer:
    """How the step is taken. TRPO; several clipped steps on the same episodes (the loss clips its ratio); one plain step."""

    kind: Literal["trpo", "ppo", "gradient"]
    trust_region: float
    damping: float
    adam: optax.GradientTransformation  # of ppo and gradient
    epochs: int  # of ppo
    clip: float  # of ppo

    def loss(self, new: Actions, last: inner.Round) -> tuple[Array, Array]:
        """One task's: minus the mean advantage by ratios, clipped for ppo, and the divergence from the policy that acted."""
        ratio = jnp.exp(new.log_prob(last.action) - last.log_prob)
        gain = ppo.clipped(ratio, last.advantage, self.clip) if self.kind == "ppo" else ratio * last.advantage
        return -ppo.mean_of(gain, last.weight), ppo.mean_of(last.said.kl(new), last.weight)

    def gradient(self, losses: Losses, params: Any, seen: Any) -> tuple[Array, Any]:
        """Mean over tasks of the outer loss, and its gradient."""
        return mean_over_tasks(lambda s: jax.value_and_grad(lambda p: losses(p, s)[0])(params), seen)

    def step(
        self, losses: Losses, said: Callable[[Any, Any], Any], params: Any, optimiser: Any, seen: Any
    ) -> tuple[Any, Any, dict[str, Array]]:  # fmt: skip
        """-> params, the optimiser's state, metrics."""
        mean_losses = lambda p: mean_over_tasks(lambda s: losses(p, s), seen)  # noqa: E731
        if self.kind == "trpo":
            loss, gradient = self.gradient(losses, params, seen)
            region = optim.TrustRegion(self.trust_region, damping=self.damping)
            product = curvature(said, params, seen)
            params, metrics = optim.trust_region_step(mean_losses, params, gradient, product, loss, region)
            return params, optimiser, {"loss/outer": loss, **metrics}

        def one(carry, _):
            params, optimiser = carry
            loss, gradient = self.gradient(losses, params, seen)
            change, optimiser = self.adam.update(gradient, optimiser, params)
            return (optax.apply_updates(params, change), optimiser), (loss, optax.tree.norm(gradient))

        epochs = self.epochs if self.kind == "ppo" else 1
        (params, optimiser), (loss, norms) = jax.lax.scan(one, (params, optimiser), None, length=epochs)
        told = {"loss/outer": loss[0], "gradient/norm": norms.mean(), "policy/kl": mean_losses(params)[1]}
        return params, optimiser, told
