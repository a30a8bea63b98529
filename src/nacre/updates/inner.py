"""Adaptation by policy gradients: what MAML, E-MAML and ProMP share.

A task's parameters are the meta-trained ones after some gradient steps on what was seen of the task. Each step takes a round of
episodes, acted with the parameters before it. Everything here is for one task or leads with the axis of tasks, as said.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import nn
from nacre.distributions import Actions
from nacre.types import EnvSpec, Trajectory
from nacre.updates import baselines, ppo

Surrogate = Literal["score", "ratio", "dice"]


class Policy(eqx.Module):
    """A feed-forward policy: logits, or the means of a Normal whose standard deviation depends on nothing."""

    net: nn.MLP
    log_std: Array | None  # [A]
    reach: float = eqx.field(static=True)  # of its own numbers that stands for the environment's [-1, 1]
    least: float = eqx.field(static=True)  # of log_std

    def __init__(
        self, spec: EnvSpec, hidden: tuple[int, ...], reach: float, initial_std: float, least_std: float, *, key: Array,
        latent: int = 0, tanh: bool = True,
    ):  # fmt: skip
        """latent: how many numbers it reads beside an observation."""
        sizes = (spec.obs_size + latent, *hidden, spec.action.size)
        self.net = nn.MLP(sizes, key=key, tanh=tanh, xavier=True)
        self.log_std = None if spec.discrete else jnp.full(spec.action.size, math.log(initial_std), jnp.float32)
        self.reach, self.least = reach, math.log(least_std)

    def __call__(self, obs: Array) -> Actions:
        """[..., obs_size] -> distribution of actions in the agent's units."""
        raw = self.net(obs)
        if self.log_std is None:
            return Actions(raw, None)
        log_std = jnp.maximum(self.log_std, self.least) - math.log(self.reach)
        return Actions(raw / self.reach, jnp.broadcast_to(log_std, raw.shape))


class Round(NamedTuple):
    """Episodes of one task as a gradient step sees them: E of them, T env steps each; or of N tasks, which lead."""

    obs: Array  # [E, T, d]
    action: Array  # [E, T, A] or [E, T]
    advantage: Array  # [E, T] standardised over the round, if asked for
    gain: Array  # [E, T] discounted to the episode's beginning, less the mean over episodes: for DICE, also after an early end
    weight: Array  # [E, T] 1 where the env step counts
    log_prob: Array  # [E, T] when it was acted
    said: Actions | None  # the distributions then, [E, T, A]; None in what is remembered


@dataclass(frozen=True)
class Credit:
    """How advantages are worked out: a linear baseline per task and round, generalised advantages."""

    discount: float
    decay: float  # lambda
    standardise: bool
    baseline: Literal["linear", "time", "none"]

    def round(self, data: Trajectory, reward: Array) -> Round:
        """Episodes [N, E, T] of N tasks, and the reward to learn from."""
        n, e, t = reward.shape
        weight = data.valid.astype(jnp.float32)
        paid = reward * weight
        rows = lambda x: x.reshape(n, e * t, *x.shape[3:])  # noqa: E731
        time = jnp.broadcast_to(jnp.arange(t), reward.shape)
        more = jnp.concatenate([weight[..., 1:], jnp.zeros_like(weight[..., :1])], axis=-1)
        of = lambda value, decay: ppo.advantages(  # noqa: E731
            paid, value * weight, jnp.zeros((n, e)), more, self.discount, decay
        )
        value = jnp.zeros_like(reward)
        returns = of(value, 1.0)
        if self.baseline == "linear":
            value = baselines.linear(rows(data.obs), rows(time), rows(returns), rows(weight)).reshape(reward.shape)
        elif self.baseline == "time":
            mean = (returns * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)
            value = jnp.broadcast_to(mean[:, None], reward.shape)
        advantage = of(value, self.decay)
        if self.standardise:
            advantage = jax.vmap(ppo.standardised)(advantage, weight)
        # an episode that is over goes on without rewards, so that what ends it is credited with what it forgoes
        gain = (paid - paid.mean(axis=1, keepdims=True)) * self.discount ** jnp.arange(t)
        said = data.extras.get("said")
        return Round(data.obs, data.action, advantage * weight, gain, weight, data.extras["log_prob"], said)

    def rounds(self, rounds: tuple[Trajectory, ...]) -> tuple[tuple[Round, ...], Round]:
        """An iteration's -> those before each inner step, from what the agent sees; the last, from what is learnt from."""
        *before, last = rounds
        return tuple(self.round(data, data.reward) for data in before), self.round(last, last.train_reward)


def surrogate(kind: Surrogate, policy: Policy, seen: Round, recorded: bool = False) -> Array:
    """What a gradient step on one task makes smaller. All have the policy gradient as their gradient where the policy is the one
    that acted; they differ in how that gradient itself changes with the policy, which is what a meta-gradient is made of.

    score: -E[log pi A] (MAML, Finn et al. 2017): leaves out that another policy would have seen other episodes.
    ratio: -E[pi / stop(pi) A], the low-variance curvature of ProMP (Rothfuss et al. 2019, eq. 10): each env step's own share of it.
    dice: -E[sum_t prod_{s<=t} pi_s / stop(pi_s) r_t], all of it (Foerster et al. 2018), with a baseline per env step.
    recorded: ratios are to the probabilities when it was acted, which are no longer the policy's own in later epochs of ProMP.
    """
    log_prob = policy(seen.obs).log_prob(seen.action)
    before = seen.log_prob if recorded else jax.lax.stop_gradient(log_prob)
    if kind == "score":
        return -ppo.mean_of(log_prob * seen.advantage, seen.weight)
    if kind == "ratio":
        return -ppo.mean_of(jnp.exp(log_prob - before) * seen.advantage, seen.weight)
    so_far = jnp.cumsum((log_prob - before) * (seen.weight > 0), axis=-1)
    return -(jnp.exp(so_far) * seen.gain).sum() / jnp.maximum(seen.weight.sum(), 1.0)


class Rates(eqx.Module):
    """Step sizes of adaptation: one, or (Meta-SGD, Li et al. 2017, arXiv:1707.09835) one for each number, which are learnt."""

    each: Any  # as the policy's parameters, or None
    one: float = eqx.field(static=True)

    def __init__(self, policy: Policy, rate: float, learnt: bool):
        self.each = jax.tree.map(lambda x: jnp.full_like(x, rate), policy) if learnt else None
        self.one = rate

    def step(self, policy: Policy, gradient: Policy, scale: Array | float) -> Policy:
        if self.each is None:
            return jax.tree.map(lambda x, g: x - scale * self.one * g, policy, gradient)
        return jax.tree.map(lambda x, rate, g: x - scale * rate * g, policy, self.each, gradient)


def adapted(
    policy: Policy, rates: Rates, rounds: tuple[Round, ...], kind: Surrogate, *, first_order: bool = False,
    recorded: bool = False,
) -> Policy:  # fmt: skip
    """The policy after a gradient step on each of one task's rounds; differentiable in policy and rates. first_order: the
    gradient of a step counts as a constant."""
    for seen in rounds:
        gradient = jax.grad(lambda p, seen=seen: surrogate(kind, p, seen, recorded))(policy)
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        policy = rates.step(policy, gradient, 1.0)
    return policy


def over_tasks(f: Callable[..., Any], *args: Any) -> Any:
    """f over the leading axis of args: one task after another on a CPU, whose cache holds what one of them needs; all at once on an
    accelerator."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda x: f(*x), args)
    return jax.vmap(f)(*args)


# ------------------------------------------------------------------------------------------------------- the memory


class Memory(NamedTuple):
    """What an agent that adapts by gradients carries through a trial. N tasks; P episodes make a round."""

    adapted: Policy  # leaves [N, ...], of each task
    seen: Any  # Trajectory [N, P, T] of the round that is going on
    count: Array  # [N] episodes in it, int32; the same for all
    steps: Array  # [N] gradient steps taken, int32; the same for all


def nothing(spec: EnvSpec, n: int, episodes: int) -> Trajectory:
    """Room for a round on each of n tasks."""
    shape = n, episodes, spec.horizon
    action = jnp.zeros(shape, jnp.int32) if spec.discrete else jnp.zeros((*shape, spec.action.size))
    obs, number, no = jnp.zeros((*shape, spec.obs_size)), jnp.zeros(shape), jnp.zeros(shape, bool)
    return Trajectory(obs, action, number, number, obs, no, no, {"log_prob": number})


def begin(spec: EnvSpec, policy: Policy, rows: tuple[int, int], episodes: int) -> Memory:
    """The meta-trained policy for every task, and nothing seen."""
    n, zero = rows[0], jnp.zeros(rows[0], jnp.int32)
    own = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), policy)
    return Memory(own, nothing(spec, n, episodes), zero, zero)


def remembered(memory: Memory, episodes: Trajectory) -> Memory:
    """With more episodes [N, E, T], E a divisor of P."""
    place = (jnp.zeros((), jnp.int32), memory.count[0])

    def put(old, new):
        start = (*place, *(jnp.zeros((), jnp.int32),) * (old.ndim - 2))
        return jax.lax.dynamic_update_slice(old, new.astype(old.dtype), start)

    new = episodes._replace(extras={name: episodes.extras[name] for name in memory.seen.extras}, info={})
    seen = jax.tree.map(put, memory.seen, new)
    return memory._replace(seen=seen, count=memory.count + episodes.reward.shape[1])


def by_rounds(memory: Any, episodes: Trajectory, size: int, step: Callable[[Any], Any]) -> Any:
    """Remember episodes [N, E, T]; step(memory) where they complete a round of `size`."""
    memory = remembered(memory, episodes)
    return jax.lax.cond(memory.count[0] < size, lambda m: m, step, memory)


def actions(memory: Memory, obs: Array) -> Actions:
    """What each task's policy does at obs [N, E, d]."""
    return eqx.filter_vmap(lambda policy, x: policy(x))(memory.adapted, obs)


@dataclass(frozen=True)
class Adaptation:
    """How a task's policy is adapted while it acts, in meta-training and at meta-test."""

    surrogate: Surrogate
    credit: Credit
    episodes: int  # of a round, after which a step is taken
    steps: int  # at most
    later_rate: float  # by which step sizes are multiplied after the first step

    def take(self, rates: Rates, memory: Memory, episodes: Trajectory) -> Memory:
        """Remember episodes [N, E, T]; take a gradient step on each task where they complete a round."""
        return by_rounds(memory, episodes, self.episodes, partial(self._step, rates))

    def _step(self, rates: Rates, memory: Memory) -> Memory:
        rounds = self.credit.round(memory.seen, memory.seen.reward)
        scale = jnp.where(memory.steps[0] == 0, 1.0, self.later_rate)

        def one(policy, seen):
            return rates.step(policy, jax.grad(lambda p: surrogate(self.surrogate, p, seen))(policy), scale)

        new = over_tasks(one, memory.adapted, rounds)
        goes_on = memory.steps[0] < self.steps
        policy = jax.tree.map(lambda x, y: jnp.where(goes_on, x, y), new, memory.adapted)
        return Memory(policy, memory.seen, jnp.zeros_like(memory.count), memory.steps + goes_on)


def drawn(said: Actions, key: Array, explore: bool, more: Array) -> Array:
    """Actions: stochastic as long as a step is to come (`more`), since it learns from the differences between them; then as
    `explore` says."""
    action = said.draw(key, True)
    return action if explore else jnp.where(more, action, said.draw(key, False))


def act(adaptation: Adaptation, memory: Memory, obs: Array, key: Array, explore: bool):
    said = actions(memory, obs)
    action = drawn(said, key, explore, memory.steps[0] < adaptation.steps)
    return action, {"log_prob": said.log_prob(action), "said": said}, memory


def moved(before: Any, after: Any) -> Array:
    """How far apart each task's numbers are, [N]; leaves lead with N, or (before) are the same for all."""
    squares = (
        ((new - old) ** 2).reshape(new.shape[0], -1).sum(axis=1)
        for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    )
    return jnp.sqrt(sum(squares))


def beliefs(policy: Policy, memory: Memory) -> dict[str, Array]:
    """For pictures: gradient steps taken, and how far they went, [N, 1] each."""
    return {"steps": memory.steps.astype(jnp.float32)[:, None], "moved": moved(policy, memory.adapted)[:, None]}
