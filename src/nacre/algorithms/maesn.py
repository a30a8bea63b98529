"""MAESN: Gupta et al. 2018 (arXiv:1802.07245), structured exploration by a latent variable that is held for an episode.

  L1   while not done:
  L2     draw N of the training tasks; each has a latent distribution of its own, N(mu, sigma)
  L3     for each inner step: P episodes, each with one z ~ N(mu, sigma) for all its env steps -> D;
           mu, sigma <- mu, sigma + alpha grad E[log N(z; mu, sigma) A] over D; the policy stays as it is
  L4     P more episodes with z from what came out -> D'
  L5     TRPO step of the policy, all tasks' mu, sigma, and alpha on the mean over tasks of
           E[ratio A] over D', with z = mu' + sigma' noise, and so through the inner steps
  L6         - kl_weight KL(N(mu, sigma) || N(0, I)), of the latents before adaptation
  L7   meta-test: from N(0, I), L3 on a task that was never seen; alpha halves at each step from the third on

So what a new task begins with, N(0, I), is where the training tasks' latents are kept, and a z is a way to explore.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import distributions
from nacre._checks import require
from nacre.distributions import Actions
from nacre.types import Environment, EnvSpec, Metric, Trajectory, task_count
from nacre.updates import adapting, inner, outer, ppo
from nacre.updates.inner import Policy, Rates, Round
from nacre.updates.trials import draw_training_tasks

# Where all episodes of a round earn the same, their advantages differ by rounding, in float32 by up to 1e-3 of an env step's
# standard deviation (episodes that differ: by about 1). Standardised to 1, that would move latents at random; the official code
# has float64.
NOISE = 0.03


@dataclass(frozen=True)
class Config:
    """Bare defaults: the official code's (maesn_suite, launchers/train.py, released hyper-parameters)."""

    hidden: tuple[int, ...] = (100, 100)  # ReLU
    latent_size: int = 2
    action_range: float = 1.0  # of the policy's numbers that stands for the environment's bounds
    initial_std: float = 1.0  # in that range
    least_std: float = 1e-6
    inner_steps: int = 1  # in meta-training; 0: latents are learnt as the policy is (the paper's multi-task baseline)
    inner_rate: float = 1.0  # alpha at the beginning; one for each number, meta-trained
    natural: bool = False  # inner steps in units of the latent's own spread: natural gradients (ours)
    inner_reward: Literal["train", "seen"] = "train"  # of meta-training; seen: what meta-test has
    episodes_per_step: int = 50  # P: of a round
    test_steps: int = 0  # inner steps that meta-test takes at most; 0: as many as meta-training
    test_episodes_per_step: int = 0  # episodes of a round of meta-test; 0: as in meta-training
    start: Literal["prior", "tasks"] = "prior"  # of meta-test; tasks: as all training tasks' latents spread (ours)
    later_rate: float = 0.5  # by which meta-test multiplies alpha at each step from the third on
    kl_weight: float = 0.1  # of the divergence of latents before adaptation from N(0, I)
    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    trust_region: float = 0.01  # delta: most that the mean divergence from the adapted policies before may be
    damping: float = 1e-5  # of the curvature, as conjugate gradients see it
    learning_rate: float = 1e-3  # of outer=ppo and gradient, Adam
    latent_learning_rate: float = 1e-2  # the same for the training tasks' latents, each of which is seen less often
    epochs: int = 5  # of outer=ppo
    clip: float = 0.3  # of outer=ppo
    tasks_per_iteration: int = 20
    discount: float = 0.99
    gae_decay: float = 1.0  # lambda
    baseline: Literal["linear", "time", "none"] = "linear"  # linear: features, per task and round; time: mean
    standardise: bool = True  # advantages, per task and round

    def __post_init__(self):
        require(
            self,
            positive="latent_size action_range initial_std least_std inner_rate episodes_per_step trust_region learning_rate "
                     "latent_learning_rate epochs clip tasks_per_iteration later_rate",
            not_negative="inner_steps test_steps test_episodes_per_step damping kl_weight",
            fraction="discount gae_decay",
            layers="hidden",
        )  # fmt: skip
        for name in ("episodes_per_step", "test_episodes_per_step"):
            if getattr(self, name) == 1:
                raise ValueError(
                    f"{name} must be at least 2: an inner step learns from which z went better than others"
                )


class Latent(NamedTuple):
    """A Normal over z; both lead with the axis of tasks, or stand for one."""

    mean: Array  # [..., latent_size]
    log_std: Array

    def at(self, noise: Array) -> Array:
        """noise [..., P, latent_size] -> z of P episodes."""
        return self.mean[..., None, :] + jnp.exp(self.log_std)[..., None, :] * noise

    @property
    def kl_to_prior(self) -> Array:
        return distributions.kl_to_standard_normal(self.mean, jnp.exp(2.0 * self.log_std))


def together(latents: Latent) -> Latent:
    """The Normal with the mean and the variance that a z of a random task has."""
    variance = latents.mean.var(axis=0) + jnp.exp(2.0 * latents.log_std).mean(axis=0)
    return Latent(latents.mean.mean(axis=0), 0.5 * jnp.log(variance))


class Params(eqx.Module):
    """All that gradients train. Acting on a new task reads the latents with start=tasks only."""

    policy: Policy
    rates: Rates  # alpha, of mu and of log sigma
    latents: Latent  # [training tasks, latent_size]


class State(eqx.Module):
    """All that training changes."""

    params: Params
    optimiser: Any  # of outer=ppo and gradient
    env_steps: Array  # counters, int32
    updates: Array  # outer steps


class Memory(NamedTuple):
    """What is carried through a trial. N tasks; P episodes make a round."""

    adapted: Latent  # [N, latent_size]
    noise: Array  # [N, P, latent_size] from which each episode's z is made
    seen: Any  # Trajectory [N, P, T] of the round that is going on
    count: Array  # [N] episodes in it, int32; the same for all
    steps: Array  # [N] gradient steps taken, int32; the same for all


class Seen(eqx.Module):
    """One iteration's experience; leaves lead with N tasks."""

    task: Array  # index among the training tasks
    z: tuple[Array, ...]  # [P, latent_size] of each round before an inner step
    credit: tuple[Array, ...]  # [P] of the same: how much better an episode went than the others
    noise: Array  # [P, latent_size] of the last round's z
    last: Round  # after all inner steps


@dataclass(frozen=True)
class MAESN(adapting.Adapting):
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    learnt = ("params",)
    metrics_help = {  # noqa: RUF012  read only
        **adapting.METRICS,
        **outer.METRICS,
        "latent/kl": Metric(
            "nats", "of the training tasks' latents, before adaptation, from N(0, I); mean over the iteration's"
        ),
        "latent/std": Metric("", "geometric mean of the adapted latents' standard deviations"),
        "latent/rate": Metric("", "mean of the learnt step sizes alpha"),
    }

    # -------------------------------------------------------------------------------------------------- set-up

    @property
    def credit(self) -> inner.Credit:
        c = self.config
        return inner.Credit(c.discount, c.gae_decay, c.standardise, c.baseline)

    @property
    def learner(self) -> outer.Outer:
        c = self.config
        adams = {"latents": optax.adam(c.latent_learning_rate), "rest": optax.adam(c.learning_rate)}
        adam = optax.partition(adams, lambda params: Params("rest", "rest", "latents"))
        return outer.Outer(c.outer, c.trust_region, c.damping, adam, c.epochs, c.clip)

    @property
    def steps(self) -> int:
        """Inner steps of a meta-test's trial."""
        return self.config.test_steps or self.config.inner_steps

    @property
    def round_episodes(self) -> int:
        """Of meta-test, before each inner step and after the last."""
        return self.config.test_episodes_per_step or self.config.episodes_per_step

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        c = self.config
        policy_key, latent_key = jax.random.split(key)
        policy = Policy(self.spec, c.hidden, c.action_range, c.initial_std, c.least_std, key=policy_key,
                        latent=c.latent_size, tanh=False)  # fmt: skip
        shape = task_count(env.train_tasks), c.latent_size
        latents = Latent(jax.random.normal(latent_key, shape), jnp.zeros(shape))
        params = Params(policy, Rates(self.prior(()), c.inner_rate, True), latents)
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(params, self.learner.adam.init(params), *counters)

    def prior(self, shape: tuple[int, ...]) -> Latent:
        zero = jnp.zeros((*shape, self.config.latent_size))
        return Latent(zero, zero)

    # ------------------------------------------------------------------------------------------ acting, adapting

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Memory:
        """The same latent for every task, and nothing seen."""
        c = self.config
        start = self.prior(()) if c.start == "prior" else together(params.latents)
        noise = jax.random.normal(key, (rows[0], self.round_episodes, c.latent_size))
        nothing = inner.nothing(self.spec, rows[0], self.round_episodes)
        zero = jnp.zeros(rows[0], jnp.int32)
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows[0], *x.shape)), start)
        return Memory(start, noise, nothing, zero, zero)

    def act(self, params: Params, memory: Memory, obs: Array, key: Array, explore: bool):
        """obs [N, E, d]; the E episodes are the round's next ones."""
        noise = jax.lax.dynamic_slice_in_dim(memory.noise, memory.count[0], obs.shape[1], axis=1)
        z = memory.adapted.at(noise)
        said = params.policy(jnp.concatenate([obs, z], axis=-1))
        action = inner.drawn(said, key, explore, memory.steps[0] < self.steps)
        return action, {"log_prob": said.log_prob(action), "said": said}, memory

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:  # L7
        """Remember episodes [N, E, T]; move each task's latent where they complete a round."""
        return inner.by_rounds(memory, episodes, self.round_episodes, partial(self._step, params.rates, key))

    def _step(self, rates: Rates, key: Array, memory: Memory) -> Memory:
        credit = self.credit_of(memory.seen, memory.seen.reward)
        scale = self.config.later_rate ** jnp.maximum(memory.steps[0] - 1, 0)
        z = memory.adapted.at(memory.noise)
        new = jax.vmap(partial(self.moved, rates, scale))(memory.adapted, z, credit)
        goes_on = memory.steps[0] < self.steps
        latent = jax.tree.map(lambda x, y: jnp.where(goes_on, x, y), new, memory.adapted)
        noise = jax.random.normal(key, memory.noise.shape)
        return Memory(latent, noise, memory.seen, jnp.zeros_like(memory.count), memory.steps + goes_on)

    def credit_of(self, data: Trajectory, reward: Array) -> Array:
        """Episodes [N, P, T] -> [N, P] the advantages of their first env steps, standardised over the round: the official code's
        measure of an episode's z."""
        first = self.credit.round(data, reward).advantage[..., 0]
        return jax.vmap(partial(ppo.standardised, least=NOISE))(first, jnp.ones_like(first))

    def moved(self, rates: Rates, scale: Array | float, latent: Latent, z: Array, credit: Array) -> Latent:  # L3
        """One task's latent after a gradient step on a round, differentiable in rates and latent; what was drawn is data."""
        loss = lambda l: -(distributions.normal_log_prob(z, l.mean, l.log_std) * credit).mean()  # noqa: E731, E741
        gradient = jax.grad(loss)(latent)
        if self.config.natural:  # times the inverse of a Normal's Fisher information: sigma^2, and 1/2 for log sigma
            gradient = Latent(jnp.exp(2.0 * latent.log_std) * gradient.mean, 0.5 * gradient.log_std)
        return rates.step(latent, gradient, scale)

    def beliefs(self, params: Params, memory: Memory) -> dict[str, Array]:
        """For pictures: the latent that is acted with [N, latent_size], gradient steps taken [N, 1]."""
        steps = memory.steps.astype(jnp.float32)[:, None]
        return {"mean": memory.adapted.mean, "variance": jnp.exp(2.0 * memory.adapted.log_std), "steps": steps}

    # ------------------------------------------------------------------------------------------------- objective

    def latent_after(self, params: Params, seen: Seen) -> Latent:
        """One task's adapted latent."""
        latent = jax.tree.map(lambda x: x[seen.task], params.latents)
        for z, credit in zip(seen.z, seen.credit, strict=True):
            latent = self.moved(params.rates, 1.0, latent, z, credit)
        return latent

    def said(self, params: Params, seen: Seen) -> Actions:  # L5
        """What the policy says with one task's adapted z where it was after adaptation."""
        z = self.latent_after(params, seen).at(seen.noise)
        obs = seen.last.obs
        z = jnp.broadcast_to(z[:, None], (*obs.shape[:-1], z.shape[-1]))
        return params.policy(jnp.concatenate([obs, z], axis=-1))

    def losses(self, params: Params, seen: Seen) -> tuple[Array, Array]:
        """One task's outer loss, and the divergence of its adapted policy from the one that acted."""
        loss, divergence = self.learner.loss(self.said(params, seen), seen.last)
        before = jax.tree.map(lambda x: x[seen.task], params.latents)
        return loss + self.config.kl_weight * before.kl_to_prior, divergence  # L6

    # --------------------------------------------------------------------------------------------- the schedule

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, begin_key, trial_key = jax.random.split(key, 3)
        chosen, tasks = draw_training_tasks(env, task_key, c.tasks_per_iteration)  # L2
        memory = self.training.begin(state.params, begin_key, (c.tasks_per_iteration, c.episodes_per_step))
        memory = memory._replace(adapted=jax.tree.map(lambda x: x[chosen], state.params.latents))
        privileged = c.inner_reward == "train"
        rounds, memories, metrics = adapting.collect(
            env, self, state.params, memory, tasks, trial_key, train_reward=privileged
        )  # L3, L4
        state, more = _learn(self, state, chosen, rounds, memories)
        after = memories[-1].adapted
        more |= {"latent/std": jnp.exp(after.log_std.mean())}
        return state, {**metrics, **more}

    def experience(self, chosen: Array, rounds: tuple[Trajectory, ...], memories: tuple[Memory, ...]) -> Seen:
        """From what was acted: each round's z and their credit, advantages of the last round."""
        *before, last = rounds
        reward = lambda data: data.train_reward if self.config.inner_reward == "train" else data.reward  # noqa: E731
        credit = tuple(self.credit_of(data, reward(data)) for data in before)
        z = tuple(m.adapted.at(m.noise) for m in memories[:-1])
        return Seen(chosen, z, credit, memories[-1].noise, self.credit.round(last, last.train_reward))


@partial(jax.jit, static_argnums=0)
def _learn(algorithm, state, chosen, rounds, memories):
    seen = algorithm.experience(chosen, rounds, memories)
    env_steps = sum(data.valid.sum() for data in rounds).astype(jnp.int32)
    step = algorithm.learner.step(algorithm.losses, algorithm.said, state.params, state.optimiser, seen)
    params, optimiser, metrics = step
    # Adam's moments would move the latents of tasks that were not played as well, which was most of how latents moved
    played = jnp.zeros(len(params.latents.mean), bool).at[chosen].set(True)[:, None]
    latents = jax.tree.map(lambda new, old: jnp.where(played, new, old), params.latents, state.params.latents)
    params = Params(params.policy, params.rates, latents)
    kl = jax.tree.map(lambda x: x[chosen], params.latents).kl_to_prior.mean()
    metrics |= {"latent/kl": kl, "latent/rate": (params.rates.each.mean.mean() + params.rates.each.log_std.mean()) / 2}
    return State(params, optimiser, state.env_steps + env_steps, state.updates + 1), metrics
