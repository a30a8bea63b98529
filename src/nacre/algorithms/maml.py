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

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from nacre import optim
from nacre.types import (
    Environment,
    EnvSpec,
    Metric,
    Trajectory,
    require_fraction,
    require_layers,
    require_not_negative,
    require_positive,
)  # fmt: skip
from nacre.updates import adapting, inner, ppo
from nacre.updates.adapting import Params
from nacre.updates.inner import Policy, Rates, Round
from nacre.updates.trials import draw_tasks


@dataclass(frozen=True)
class Config:
    """Bare defaults: MAML as ProMP's authors run it (ProMP, run_scripts/maml_run_mujoco.py), inner steps by the score function as
    the paper has them."""

    hidden: tuple[int, ...] = (64, 64)  # tanh
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
        require_positive(self, "action_range initial_std least_std inner_rate episodes_per_step trust_region learning_rate epochs "
                         "clip tasks_per_iteration later_rate")  # fmt: skip
        require_not_negative(self, "inner_steps test_steps damping exploration_weight")
        require_fraction(self, "discount gae_decay")
        require_layers(self, "hidden")
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
class MAML(adapting.Adapting):
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    metrics_help = {  # noqa: RUF012  read only
        **adapting.METRICS,
        "loss/outer": Metric("", "outer loss before the step: minus the mean advantage after adaptation"),
        "step/accepted": Metric("share", "outer steps by TRPO that were taken"),
        "step/shrunk": Metric("times", "how often the step was shortened until the loss fell within the region"),
        "step/divergence": Metric("nats", "from the adapted policies before the outer step to those after it"),
        "step/gain": Metric("", "by how much the outer loss fell"),
        "gradient/norm": Metric("", "of the meta-gradient"),
        "policy/kl": Metric("nats", "from the adapted policies before the step to those after it, in its last epoch"),
    }

    # -------------------------------------------------------------------------------------------------- set-up

    @property
    def adaptation(self) -> inner.Adaptation:  # L3, L7
        c = self.config
        credit = inner.Credit(c.discount, c.gae_decay, c.standardise, c.baseline)
        steps = c.test_steps or c.inner_steps
        return inner.Adaptation(c.surrogate, credit, c.episodes_per_step, steps, c.later_rate)

    @property
    def adam(self) -> optax.GradientTransformation:
        return optax.adam(self.config.learning_rate)

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        c = self.config
        policy = Policy(self.spec, c.hidden, c.action_range, c.initial_std, c.least_std, key=key)
        params = Params(policy, Rates(policy, c.inner_rate, c.learnt_rates))
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(params, self.adam.init(params), *counters)

    # ------------------------------------------------------------------------------------------------- objective

    def policy_after(self, params: Params, rounds: tuple[Round, ...]) -> Policy:
        """One task's adapted policy, differentiable in params."""
        c = self.config
        return inner.adapted(params.policy, params.rates, rounds, c.surrogate, first_order=c.first_order)

    def losses(self, params: Params, seen: Seen) -> tuple[Array, Array]:  # L5
        """One task's outer loss, and the divergence of its adapted policy from the one that acted."""
        new = self.policy_after(params, seen.rounds)(seen.last.obs)
        ratio = jnp.exp(new.log_prob(seen.last.action) - seen.last.log_prob)
        gain = ratio * seen.last.advantage
        if self.config.outer == "ppo":
            gain = ppo.clipped(ratio, seen.last.advantage, self.config.clip)
        loss = -ppo.mean_of(gain, seen.last.weight) + self.credit_for_exploring(params, seen)
        return loss, ppo.mean_of(seen.last.said.kl(new), seen.last.weight)

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

    def outer_gradient(self, params: Params, seen: Seen) -> tuple[Array, Params]:
        """Mean over tasks of the outer loss, and its gradient."""
        loss = lambda s: jax.value_and_grad(lambda p: self.losses(p, s)[0])(params)  # noqa: E731
        return jax.tree.map(lambda x: x.mean(axis=0), inner.over_tasks(loss, seen))

    def curvature(self, params: Params, seen: Seen) -> Callable[[Params], Params]:
        """v -> the second derivative of the mean divergence times v, where the divergence is zero and so has no gradient: what the
        adapted policies say changes linearly, and the divergence with the square of that. The linear parts are worked out once,
        for all iterations of conjugate gradients."""

        def linear(s: Seen):
            said = lambda p: self.policy_after(p, s.rounds)(s.last.obs)  # noqa: E731
            now, forward = jax.linearize(said, params)
            return forward, jax.linearize(jax.grad(lambda new: ppo.mean_of(s.last.said.kl(new), s.last.weight)), now)[1]

        def product(forward, bend, v):
            return jax.linear_transpose(forward, params)(bend(forward(v)))[0]

        parts = inner.over_tasks(linear, seen)
        mean = lambda tree: jax.tree.map(lambda x: x.mean(axis=0), tree)  # noqa: E731
        return lambda v: mean(inner.over_tasks(lambda forward, bend: product(forward, bend, v), *parts))

    def mean_losses(self, params: Params, seen: Seen) -> tuple[Array, Array]:
        return jax.tree.map(lambda x: x.mean(), inner.over_tasks(lambda s: self.losses(params, s), seen))

    # ------------------------------------------------------------------------------------------------- update

    def learn(self, state: State, seen: Seen, env_steps: Array) -> tuple[State, dict[str, Array]]:  # L5
        c, params, optimiser = self.config, state.params, state.optimiser
        if c.outer == "trpo":
            loss, gradient = self.outer_gradient(params, seen)
            region = optim.TrustRegion(c.trust_region, damping=c.damping)
            product = self.curvature(params, seen)
            params, metrics = optim.trust_region_step(
                lambda p: self.mean_losses(p, seen), params, gradient, product, loss, region
            )
        else:

            def step(carry, _):
                params, optimiser = carry
                loss, gradient = self.outer_gradient(params, seen)
                change, optimiser = self.adam.update(gradient, optimiser, params)
                return (optax.apply_updates(params, change), optimiser), (loss, optax.tree.norm(gradient))

            epochs = c.epochs if c.outer == "ppo" else 1
            (params, optimiser), (losses, norms) = jax.lax.scan(step, (params, optimiser), None, length=epochs)
            loss = losses[0]
            metrics = {"gradient/norm": norms.mean(), "policy/kl": self.mean_losses(params, seen)[1]}
        state = State(params, optimiser, state.env_steps + env_steps, state.updates + 1)
        return state, {"loss/outer": loss, **metrics}

    # --------------------------------------------------------------------------------------------- the schedule

    @property
    def iteration_env_steps(self) -> int:
        """At most, where no episode ends early."""
        c = self.config
        return c.tasks_per_iteration * c.episodes_per_step * (c.inner_steps + 1) * self.spec.horizon

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, trial_key = jax.random.split(key)
        tasks = draw_tasks(env, c.tasks, task_key, c.tasks_per_iteration)  # L2
        rounds, metrics = adapting.collect(env, self, state.params, tasks, trial_key, c.inner_steps)  # L3, L4
        state, more = _learn(self, state, rounds)
        return state, {**metrics, **more}

    def experience(self, rounds: tuple[Trajectory, ...]) -> Seen:
        """From what was acted: advantages of each round."""
        last = rounds[-1]
        weight = last.valid.astype(jnp.float32)
        earned = (last.train_reward * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
        explored = (earned - earned.mean()) / (earned.std() + 1e-8 if self.config.exploration == "rewards" else 1.0)
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
