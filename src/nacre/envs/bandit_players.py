"""Classical algorithms for Bernoulli bandits, in the shape of an Algorithm: what a learned learner is measured against.

Each scores the arms by what it has seen and pulls one of the best, ties broken at random. All assume the family's prior, a
uniform one on each arm's probability, so that the posterior after a wins and b losses is Beta(1 + a, 1 + b).
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.envs.players import pick
from nacre.types import EnvSpec, Key, Trajectory, Transition


class Counts(NamedTuple):
    """What a player has seen."""

    wins: Array  # [N, k]
    losses: Array  # [N, k]


Score = Callable[[Counts, Key], Array]  # -> [N, k]


@dataclass(frozen=True)
class Player:
    """Pulls an arm with the highest score; with probability `random` any arm."""

    spec: EnvSpec
    score: Score
    random: float = 0.0

    def begin(self, params, key: Key, rows: tuple[int, int]) -> Counts:
        nothing = jnp.zeros((rows[0], self.spec.action.size))
        return Counts(nothing, nothing)

    def act(self, params, memory: Counts, obs: Array, key: Key, explore: bool):
        score_key, tie_key, any_key, coin_key = jax.random.split(key, 4)
        arm = pick(self.score(memory, score_key), self.random, tie_key, any_key, coin_key)
        return jnp.broadcast_to(arm[:, None], obs.shape[:2]), (), memory

    def observe(self, params, memory: Counts, transition: Transition) -> Counts:
        pulled = jax.nn.one_hot(transition.action, self.spec.action.size) * transition.valid[..., None]  # [N, E, k]
        won = (pulled * transition.reward[..., None]).sum(axis=1)
        return Counts(memory.wins + won, memory.losses + pulled.sum(axis=1) - won)

    def adapt(self, params, memory: Counts, episodes: Trajectory, key: Key) -> Counts:
        return memory


def posterior_mean(seen: Counts, key: Key) -> Array:
    """Greedy: (1 + a) / (2 + a + b)."""
    return (1.0 + seen.wins) / (2.0 + seen.wins + seen.losses)


def thompson(seen: Counts, key: Key) -> Array:
    """A draw from the posterior (Thompson 1933)."""
    return jax.random.beta(key, 1.0 + seen.wins, 1.0 + seen.losses)


def optimistic_thompson(seen: Counts, key: Key) -> Array:
    """The draw, but not below the posterior mean (May et al. 2012)."""
    return jnp.maximum(thompson(seen, key), posterior_mean(seen, key))


def ucb1(width: float) -> Score:
    """Mean + width sqrt(2 log t / pulls) (Auer et al. 2002, where width is 1), the prior's win and loss counted as pulls: with few
    pulls of many arms there is no time to try each, and the published scores cannot be had by doing so."""

    def score(seen: Counts, key: Key) -> Array:
        pulls = 2.0 + seen.wins + seen.losses
        return posterior_mean(seen, key) + width * jnp.sqrt(2.0 * jnp.log(pulls.sum(axis=-1, keepdims=True)) / pulls)

    return score


@functools.cache
def gittins_table(discount: float, most: int, levels: int = 400) -> np.ndarray:
    """Gittins index of an arm with a wins and b losses at [a, b], a + b <= most; NaN beyond.

    An arm is worth an income g for ever if playing it as long as it is good and then taking g is worth as much as taking g at
    once; the index is that g (Whittle 1980). Values are worked out backward from a + b = most + 1 / (1 - discount) pulls, where
    the arm's mean is taken for known, for `levels` incomes at once, and the index is interpolated between them.
    """
    last = most + int(np.ceil(1.0 / (1.0 - discount)))
    income = np.linspace(0.0, 1.0, levels)[:, None]
    table = np.full((most + 1, most + 1), np.nan)
    mean = (1.0 + np.arange(last + 1)) / (2.0 + last)
    value = np.maximum(income, mean) / (1.0 - discount)  # [levels, wins], of a + b = last
    for total in range(last - 1, -1, -1):
        mean = (1.0 + np.arange(total + 1)) / (2.0 + total)
        play = mean * (1.0 + discount * value[:, 1:]) + (1.0 - mean) * discount * value[:, :-1]
        gain = play - income / (1.0 - discount)  # falls as the income rises; 0 at the index
        if total <= most:
            after = (gain > 0).sum(axis=0).clip(1, levels - 1)
            high, low = np.take_along_axis(gain, np.stack([after - 1, after]), axis=0)
            share = np.clip(high / np.maximum(high - low, 1e-12), 0.0, 1.0)
            wins = np.arange(total + 1)
            table[wins, total - wins] = (after - 1 + share) / (levels - 1)
        value = np.maximum(play, income / (1.0 - discount))
    return table


def gittins(discount: float, pulls: int) -> Score:
    """The Gittins index for an endless game with this discount: optimal there, near to it in `pulls` pulls if the discount
    suits them. An arm that was pulled more often is scored by its posterior mean."""
    table = gittins_table(discount, pulls)

    def score(seen: Counts, key: Key) -> Array:
        wins, losses = (jnp.minimum(x, pulls).astype(jnp.int32) for x in seen)
        index = jnp.asarray(table, jnp.float32)[wins, losses]
        return jnp.where(seen.wins + seen.losses > pulls, posterior_mean(seen, key), index)

    return score


@functools.cache
def best_sum(arms: int, pulls: int) -> float:
    """The highest expected sum of rewards that anybody can have who does not know the task, by dynamic programming over beliefs.

    A belief is how many arms have how many wins and losses, in whatever order. There are 4 thousand of them with 10 pulls of many
    arms, 70 thousand with 14, and then soon too many. Raises ValueError for impossible sizes.
    """
    if arms < 1 or pulls < 0:
        raise ValueError(
            f"a bandit needs at least one arm and no negative number of pulls, got arms={arms}, pulls={pulls}"
        )

    @functools.cache
    def worth(seen: tuple[tuple[int, int], ...], left: int) -> float:
        if not left:
            return 0.0
        kinds = set(seen) | ({(0, 0)} if len(seen) < arms else set())
        return max(pulled(seen, kind, left) for kind in kinds)

    def pulled(seen, kind: tuple[int, int], left: int) -> float:
        others, (wins, losses) = list(seen), kind
        if kind in seen:
            others.remove(kind)
        mean = (1 + wins) / (2 + wins + losses)
        won, lost = (tuple(sorted([*others, x])) for x in ((wins + 1, losses), (wins, losses + 1)))
        return mean * (1.0 + worth(won, left - 1)) + (1.0 - mean) * worth(lost, left - 1)

    return worth((), pulls)


def players(
    spec: EnvSpec, discount: float | None = None, width: float = 0.3, random: float = 0.05
) -> dict[str, Player]:
    """The classical algorithms for a bandit of k arms and n pulls. discount: of the Gittins index, None: 1 - 1 / n, at least
    0.5; width: of UCB1's interval; random: share of random pulls of epsilon-greedy. Published tables tuned these per row."""
    n = spec.trial_episodes
    gamma = max(0.5, 1.0 - 1.0 / n) if discount is None else discount
    if not 0.0 < gamma < 1.0:
        raise ValueError(f"discount of the Gittins index must lie between 0 and 1, got {discount}")
    scores = {
        "Gittins index": gittins(gamma, n), "Thompson sampling": thompson, "optimistic Thompson sampling": optimistic_thompson,
        "UCB1": ucb1(width), "epsilon-greedy": posterior_mean, "greedy": posterior_mean,
    }  # fmt: skip
    found = {name: Player(spec, score) for name, score in scores.items()}
    found["epsilon-greedy"] = dataclasses.replace(found["epsilon-greedy"], random=random)
    return found
