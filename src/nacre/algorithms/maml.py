"""MAML: Finn et al. 2017 (arXiv:1703.03400), its outer step by TRPO; E-MAML: Stadie et al. 2018 (arXiv:1803.01118).

  L1   while not done:
  L2     draw N tasks; for each, phi = theta
  L3     for each inner step: P episodes with phi -> D; phi <- phi - alpha grad L_in(phi; D)
  L4     P more episodes with phi -> D'
  L5     theta <- step on the mean over tasks of L_out(phi(theta); D'), through the inner steps' own gradients
  L6     E-MAML: plus -log pi_theta(D) times what D' earned, since theta also chose what was seen before adaptation
  L7   meta-test: L3, on a task that was never seen

The inner loss L_in is a choice (`surrogate`), in which published codes differ without saying so: docs/algorithms/maml.md.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre._checks import require
from nacre.distributions import Actions
from nacre.types import Environment, EnvSpec, Trajectory
from nacre.updates import adapting, inner, outer, ppo
from nacre.updates.adapting import Params
from nacre.updates.inner import Policy, Rates, Round
from nacre.updates.trials import draw_tasks


@dataclass(frozen=True)
class Config:
    """Bare defaults: MAML as ProMP's authors run it (ProMP, run_scripts/maml_run_mujoco.py), inner steps by the score function as
    the paper has them."""

    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    action_range: float = (
        10.0  # of the policy's numbers that stands for the environment's bounds (ProMP's action scale)
    )
    initial_std: float = 1.0  # in that range
    least_std: float = 1e-6
    surrogate: Literal["score", "ratio", "dice"] = "score"  # of inner steps; ratio: low-variance curvature
    inner_steps: int = 1  # in meta-training
    inner_rate: float = 0.1  # alpha
    learnt_rates: bool = False  # one alpha for each number, meta-trained (Meta-SGD)
    first_order: bool = False  # the gradient of an inner step counts as a constant
    episodes_per_step: int = 20  # P: of a round
    test_steps: int = 0  # inner steps that meta-test takes at most; 0: as many as meta-training
    test_episodes_per_step: int = 0  # episodes of a round of meta-test; 0: as in meta-training
    later_rate: float = 1.0  # by which meta-test multiplies alpha after its first step
    outer: Literal["trpo", "ppo", "gradient"] = "trpo"
    trust_region: float = 0.01  # delta: most that the mean divergence from the adapted policies before may be
    damping: float = 0.0  # of the curvature, as conjugate gradients see it
    learning_rate: float = 1e-3  # of outer=ppo and gradient, Adam
    epochs: int = 5  # of outer=ppo
    clip: float = 0.3  # of outer=ppo
    exploration: Literal["none", "rewards", "returns"] = "none"  # E-MAML's term, see `credit_for_exploring`
    exploration_weight: float = 1.0
    tasks_per_iteration: int = 40
    tasks: Literal["fresh", "fixed"] = "fresh"  # fresh: drawn from the family's distribution; fixed: its training tasks
    discount: float = 0.99
    gae_decay: float = 1.0  # lambda
    baseline: Literal["linear", "time", "none"] = (
        "linear"  # linear: features fitted per task and round; time: mean per env step
    )
    standardise: bool = True  # advantages, per task and round

    def __post_init__(self):
        require(
            self,
            positive="action_range initial_std least_std inner_rate episodes_per_step trust_region learning_rate epochs clip "
                     "tasks_per_iteration later_rate",
            not_negative="inner_steps test_steps test_episodes_per_step damping exploration_weight",
            fraction="discount gae_decay",
            layers="hidden",
        )  # fmt: skip
        if self.surrogate == "dice" and self.standardise:
            raise ValueError(
                "surrogate=dice weighs discounted rewards themselves: standardise has no meaning there, set standardise=False"
            )
        if self.first_order and self.surrogate != "score":
            raise ValueError(
                "first_order leaves the inner gradient's own derivative out, in which surrogates differ: "
                f"{self.surrogate} would do the same as score; use surrogate=score"
            )
        if self.exploration != "none" and not self.inner_steps:
            raise ValueError("exploration credits what was seen before an inner step, and inner_steps is 0")


class State(eqx.Module):
    """All that training changes."""

    params: Params
    optimiser: Any  # of outer=ppo and gradient
    env_steps: Array  # counters, int32
    updates: Array  # outer steps


class Seen(eqx.Module):
    """One iteration's experience; leaves lead with N tasks."""

    rounds: tuple[Round, ...]  # before each inner step
    last: Round  # after them all
    explored: Array  # [N] how much better than other tasks' it went after adaptation


@dataclass(frozen=True)
class MAML(adapting.AdaptingPolicy):
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    learnt = ("params",)
    metrics_help = {  # noqa: RUF012  read only
        **adapting.METRICS,
        **outer.METRICS,
    }

    # -------------------------------------------------------------------------------------------------- set-up

    @property
    def steps(self) -> int:
        """Inner steps of a meta-test's trial."""
        return self.config.test_steps or self.config.inner_steps

    @property
    def round_episodes(self) -> int:
        """Of meta-test, before each inner step and after the last."""
        return self.config.test_episodes_per_step or self.config.episodes_per_step

    @property
    def adaptation(self) -> inner.Adaptation:  # L3, L7
        c = self.config
        credit = inner.Credit(c.discount, c.gae_decay, c.standardise, c.baseline)
        return inner.Adaptation(c.surrogate, credit, self.round_episodes, self.steps, c.later_rate)

    @property
    def learner(self) -> outer.Outer:
        c = self.config
        return outer.Outer(c.outer, c.trust_region, c.damping, optax.adam(c.learning_rate), c.epochs, c.clip)

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        c = self.config
        policy = Policy(
            self.spec, c.hidden, c.action_range, c.initial_std, c.least_std, key=key, tanh=c.activation == "tanh"
        )
        params = Params(policy, Rates(policy, c.inner_rate, c.learnt_rates))
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(params, self.learner.adam.init(params), *counters)

    # ------------------------------------------------------------------------------------------------- objective

    def policy_after(self, params: Params, rounds: tuple[Round, ...]) -> Policy:
        """One task's adapted policy, differentiable in params."""
        c = self.config
        return inner.adapted(params.policy, params.rates, rounds, c.surrogate, first_order=c.first_order)

    def said(self, params: Params, seen: Seen) -> Actions:
        """What one task's adapted policy says where the one that acted after adaptation was."""
        return self.policy_after(params, seen.rounds)(seen.last.obs)

    def losses(self, params: Params, seen: Seen) -> tuple[Array, Array]:  # L5
        """One task's outer loss, and the divergence of its adapted policy from the one that acted."""
        loss, divergence = self.learner.loss(self.said(params, seen), seen.last)
        return loss + self.credit_for_exploring(params, seen), divergence

    def credit_for_exploring(self, params: Params, seen: Seen) -> Array:  # L6
        """E-MAML's term of one task. returns: log-probabilities are summed over all that was seen before adaptation, as the paper
        derives it. rewards: they are averaged, as ProMP's authors have it, which has less variance and is not to scale."""
        c = self.config
        if c.exploration == "none":
            return jnp.zeros(())
        before = seen.rounds[0]  # acted by theta itself; later rounds by what adaptation made of it
        log_prob = params.policy(before.obs).log_prob(before.action)
        summed = c.exploration == "returns"
        total = (log_prob * before.weight).sum() if summed else ppo.mean_of(log_prob, before.weight)
        return -c.exploration_weight * seen.explored * total

    # ------------------------------------------------------------------------------------------------- update

    def learn(self, state: State, seen: Seen, env_steps: Array) -> tuple[State, dict[str, Array]]:  # L5
        params, optimiser, metrics = self.learner.step(self.losses, self.said, state.params, state.optimiser, seen)
        return State(params, optimiser, state.env_steps + env_steps, state.updates + 1), metrics

    # --------------------------------------------------------------------------------------------- the schedule

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, trial_key = jax.random.split(key)
        tasks = draw_tasks(env, c.tasks, task_key, c.tasks_per_iteration)  # L2
        memory = self.training.begin(state.params, trial_key, (c.tasks_per_iteration, c.episodes_per_step))
        rounds, _, metrics = adapting.collect(env, self, state.params, memory, tasks, trial_key)  # L3, L4
        state, more = _learn(self, state, rounds)
        return state, {**metrics, **more}

    def experience(self, rounds: tuple[Trajectory, ...]) -> Seen:
        """From what was acted: advantages of each round."""
        reward, weight = rounds[-1].train_reward, rounds[-1].valid.astype(jnp.float32)
        if self.config.exploration == "rewards":  # of the deviation of single env steps, all tasks' together
            reward = ppo.standardised(reward, weight)
        earned = (reward * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
        explored = earned if self.config.exploration == "rewards" else earned - earned.mean()
        return Seen(*self.adaptation.credit.rounds(rounds), explored)


@partial(jax.jit, static_argnums=0)
def _learn(algorithm, state, rounds):
    seen = algorithm.experience(rounds)
    env_steps = sum(data.valid.sum() for data in rounds).astype(jnp.int32)
    return algorithm.learn(state, seen, env_steps)


@dataclass(frozen=True)
class ExploringConfig(Config):
    """MAML's, with the term that E-MAML adds (ProMP, run_scripts/e-maml_run_mujoco.py)."""

    exploration: Literal["none", "rewards", "returns"] = "rewards"


@dataclass(frozen=True)
class EMAML(MAML):
    """MAML whose exploration is given credit for what comes of it."""

    config: ExploringConfig
