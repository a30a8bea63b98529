"""Classical algorithms for tabular MDPs with short episodes, in the shape of an Algorithm: what a learned learner is measured
against.

Each plans anew before every episode, by backward induction, on an MDP that it makes of what it has seen, and acts on the plan.
All that are Bayesian assume the family's prior: Dirichlet(1, ..., 1) for transitions, N(m, 1) for mean rewards with m = 1 and noise
N(0, 1), so that the posteriors are Dirichlet(1 + counts) and N((m + sum) / (1 + n), 1 / (1 + n)). With m = 0 they have the scores
of the published table (docs/families/tabular-mdp.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nacre.envs.players import pick
from nacre.envs.tabular import action_values, backward_induction
from nacre.types import EnvSpec, Key, Trajectory, Transition


class Seen(NamedTuple):
    """What a player knows, leading axis N."""

    counts: Array  # [N, S, A, S] of transitions
    rewards: Array  # [N, S, A] sums of rewards
    plan: Array  # [N, T, S, A] action values of this episode
    t: Array  # [N] env steps of this episode

    @property
    def visits(self) -> Array:
        return self.counts.sum(axis=-1)


Plan = Callable[[Seen, Key, int], Array]  # -> action values [T, N, S, A]
PRIOR = 1.0  # m, mean of the prior of mean rewards, as the family draws them


@dataclass(frozen=True)
class Player:
    """Acts on `plan`; with probability `random` any action."""

    spec: EnvSpec
    plan: Plan
    random: float = 0.0

    def begin(self, params, key: Key, rows: tuple[int, int]) -> Seen:
        n, s, a, h = rows[0], self.spec.obs_size, self.spec.action.size, self.spec.horizon
        zeros = jnp.zeros((n, s, a))
        seen = Seen(jnp.zeros((n, s, a, s)), zeros, jnp.zeros((n, h, s, a)), jnp.zeros(n, jnp.int32))
        return self._planned(seen, key)

    def _planned(self, seen: Seen, key: Key) -> Seen:
        values = jnp.moveaxis(self.plan(seen, key, self.spec.horizon), 0, 1)
        return seen._replace(plan=values, t=jnp.zeros_like(seen.t))

    def act(self, params, memory: Seen, obs: Array, key: Key, explore: bool):
        tie_key, any_key, coin_key = jax.random.split(key, 3)
        now = memory.plan[jnp.arange(obs.shape[0]), memory.t]  # [N, S, A]
        score = jnp.take_along_axis(now, obs.argmax(axis=-1)[..., None], axis=1)  # [N, E, A]
        return pick(score, self.random, tie_key, any_key, coin_key), (), memory

    def observe(self, params, memory: Seen, transition: Transition) -> Seen:
        keep = transition.valid[..., None]
        did = jax.nn.one_hot(transition.action, self.spec.action.size) * keep
        pair = transition.obs[..., :, None] * did[..., None, :]  # [N, E, S, A]
        counts = memory.counts + jnp.einsum("nesa,nep->nsap", pair, transition.next_obs)
        rewards = memory.rewards + (pair * transition.reward[..., None, None]).sum(axis=1)
        return memory._replace(counts=counts, rewards=rewards, t=memory.t + transition.valid.any(axis=1))

    def adapt(self, params, memory: Seen, episodes: Trajectory, key: Key) -> Seen:
        return self._planned(memory, key)


def posterior_means(seen: Seen, prior: float = PRIOR) -> tuple[Array, Array]:
    """Expected transitions and rewards."""
    s = seen.counts.shape[-1]
    return (1.0 + seen.counts) / (s + seen.visits)[..., None], (prior + seen.rewards) / (1.0 + seen.visits)


def draw(seen: Seen, key: Key, prior: float = PRIOR) -> tuple[Array, Array]:
    """Transitions and rewards of an MDP from the posterior."""
    next_key, reward_key = jax.random.split(key)
    weight = jax.random.gamma(next_key, 1.0 + seen.counts)
    _, mean = posterior_means(seen, prior)
    reward = mean + jax.random.normal(reward_key, mean.shape) / jnp.sqrt(1.0 + seen.visits)
    return weight / weight.sum(axis=-1, keepdims=True), reward


def greedy(prior: float) -> Plan:
    """Plan on the posterior's means."""
    return lambda seen, key, horizon: action_values(*posterior_means(seen, prior), horizon)


def psrl(prior: float) -> Plan:
    """Posterior sampling (Strens 2000; Osband et al. 2013): plan on one draw per episode."""
    return lambda seen, key, horizon: action_values(*draw(seen, key, prior), horizon)


def opsrl(draws: int, prior: float) -> Plan:
    """Optimistic posterior sampling: in every backward step the best of several draws."""

    def plan(seen: Seen, key: Key, horizon: int) -> Array:
        transition, reward = jax.vmap(lambda k: draw(seen, k, prior))(jax.random.split(key, draws))

        def best_of_draws(value):
            return (reward + jnp.einsum("dnsap,np->dnsa", transition, value)).max(axis=0)

        return backward_induction(best_of_draws, reward.shape[1:3], horizon)

    return plan


def beb(bonus: float, prior: float) -> Plan:
    """Bayesian exploration bonus (Kolter and Ng 2009): the means, and bonus / (1 + visits) on top of the reward."""

    def plan(seen: Seen, key: Key, horizon: int) -> Array:
        transition, reward = posterior_means(seen, prior)
        return action_values(transition, reward + bonus / (1.0 + seen.visits), horizon)

    return plan


def ucrl2(width: float) -> Plan:
    """UCRL2 (Jaksch et al. 2010), for episodes: plan on the best MDP within confidence sets around what was seen. width scales
    the radii of the original, sqrt(7 log(2 S A t / d) / 2 n) for rewards and sqrt(14 S log(2 S A t / d) / n) for the L1 distance of
    transitions (the original's logarithm has no S there), d = 0.05; where nothing was seen, the reward is taken for 1 + 3 width."""

    def plan(seen: Seen, key: Key, horizon: int) -> Array:
        s, a = seen.counts.shape[-1], seen.counts.shape[-2]
        visits = seen.visits
        n = jnp.maximum(visits, 1.0)
        log = jnp.log(2 * s * a * jnp.maximum(visits.sum(axis=(1, 2), keepdims=True), 1.0) / 0.05)
        reward = jnp.where(visits == 0, 1.0, seen.rewards / n)
        reward = reward + width * jnp.where(visits == 0, 3.0, jnp.sqrt(7 * log / (2 * n)))
        mean = jnp.where(visits[..., None] == 0, 1.0 / s, seen.counts / n[..., None])
        radius = jnp.minimum(2.0, width * jnp.sqrt(14 * s * log / n))

        return backward_induction(
            lambda value: reward + optimistic_mean(mean, radius, value), reward.shape[:2], horizon
        )

    return plan


def optimistic_mean(mean: Array, radius: Array, value: Array) -> Array:
    """max over p with |p - mean|_1 <= radius of p . value: mean [N, S, A, S], radius [N, S, A], value [N, S] -> [N, S, A].

    Half the radius is added to the best next state and taken from the worst ones (Jaksch et al. 2010, figure 2)."""
    order = jnp.argsort(-value, axis=-1)  # best first
    ranked = jnp.take_along_axis(value, order, axis=-1)[:, None, None]
    p = jnp.take_along_axis(mean, jnp.broadcast_to(order[:, None, None], mean.shape), axis=-1)
    added = jnp.minimum(1.0 - p[..., 0], radius / 2.0)
    p = p.at[..., 0].add(added)
    kept = jnp.clip(1.0 - (jnp.cumsum(p, axis=-1) - p), 0.0, p)  # fill up to a sum of one, best first
    return (kept * ranked).sum(axis=-1)


def players(
    spec: EnvSpec, bonus: float = 4.0, width: float = 0.1, draws: int = 5, random: float = 0.05, prior: float = PRIOR
) -> dict[str, Player]:
    """The classical algorithms. bonus: of BEB; width: of UCRL2's confidence sets; draws: of OPSRL; random: share of random
    actions of epsilon-greedy; prior: the mean that mean rewards are expected to have. Published tables tuned these per row."""
    plans = {
        "PSRL": psrl(prior),
        "OPSRL": opsrl(draws, prior),
        "UCRL2": ucrl2(width),
        "BEB": beb(bonus, prior),
        "epsilon-greedy": greedy(prior),
        "greedy": greedy(prior),
    }
    return {name: Player(spec, plan, random if name == "epsilon-greedy" else 0.0) for name, plan in plans.items()}
