"""ProMP: Rothfuss et al. 2019 (arXiv:1810.06784), proximal meta-policy search.

  L1   while not done:
  L2     draw N tasks; for each, phi = theta
  L3     for each inner step: P episodes with phi -> D; phi <- phi + alpha grad E[pi_phi / pi_old A] over D
  L4     P more episodes with phi -> D'
  L5     for some epochs, on the same D and D': recompute the inner steps from the theta of now, and
  L6       theta <- step up mean over tasks of min(ratio A, clip(ratio) A) over D'  -  eta KL(theta before || theta) over D
  L7     eta doubles or halves, where it is to hold that divergence near a target
  L8   meta-test: L3, on a task that was never seen

Against MAML: ratios instead of log-probabilities in the inner step, whose derivative then knows that another theta would have seen
other episodes (low-variance curvature); clipping and a penalty instead of a trust region, so several steps on the same episodes.
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
from nacre.types import Environment, EnvSpec, Metric
from nacre.updates import adapting, inner, ppo
from nacre.updates.adapting import Params
from nacre.updates.inner import Policy, Rates, Round
from nacre.updates.trials import draw_tasks


@dataclass(frozen=True)
class Config:
    """Bare defaults: the official code's (run_scripts/pro-mp_run_mujoco.py)."""

    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    action_range: float = 10.0  # of the policy's numbers that stands for the environment's bounds
    initial_std: float = 1.0  # in that range
    least_std: float = 1e-6
    inner_steps: int = 1  # in meta-training
    inner_rate: float = 0.1  # alpha
    learnt_rates: bool = False  # one alpha for each number, meta-trained
    episodes_per_step: int = 20  # P: of a round
    test_steps: int = 0  # inner steps that meta-test takes at most; 0: as many as meta-training
    test_episodes_per_step: int = 0  # episodes of a round of meta-test; 0: as in meta-training
    later_rate: float = 1.0  # by which meta-test multiplies alpha after its first step
    learning_rate: float = 1e-3  # Adam
    epochs: int = 5
    clip: float = 0.3  # of the ratio after adaptation
    kl_weight: float = 5e-4  # eta
    kl_target: float = 0.0  # of the divergence before adaptation; 0: eta stays
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
            positive="action_range initial_std least_std inner_steps inner_rate episodes_per_step learning_rate epochs clip "
                     "tasks_per_iteration later_rate",
            not_negative="test_steps test_episodes_per_step kl_weight kl_target",
            fraction="discount gae_decay",
            layers="hidden",
        )  # fmt: skip
        if self.kl_target and not self.kl_weight:
            raise ValueError("kl_target is held by kl_weight, which doubles and halves: it cannot begin at 0")


class State(eqx.Module):
    """All that training changes."""

    params: Params
    optimiser: Any
    kl_weights: Array  # [inner steps] eta
    env_steps: Array  # counters, int32
    updates: Array  # Adam's steps


class Seen(eqx.Module):
    """One iteration's experience; leaves lead with N tasks."""

    rounds: tuple[Round, ...]  # before each inner step
    last: Round  # after them all


@dataclass(frozen=True)
class ProMP(adapting.AdaptingPolicy):
    """The algorithm for one family; see nacre.types.Algorithm for what each method promises."""

    config: Config
    spec: EnvSpec
    learnt = ("params",)
    metrics_help = {  # noqa: RUF012  read only
        **adapting.METRICS,
        "loss/outer": Metric("", "clipped outer loss in the first epoch: minus the mean advantage after adaptation"),
        "policy/kl": Metric("nats", "after all epochs, of the policies before adaptation from those that acted"),
        "policy/kl_weight": Metric("", "eta, mean over inner steps"),
        "policy/clipped": Metric(
            "share", "env steps after adaptation whose ratio left the clip range in the last epoch"
        ),
        "gradient/norm": Metric("", "of the meta-gradient"),
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
    def adaptation(self) -> inner.Adaptation:  # L3, L8
        c = self.config
        credit = inner.Credit(c.discount, c.gae_decay, c.standardise, c.baseline)
        return inner.Adaptation("ratio", credit, self.round_episodes, self.steps, c.later_rate)

    @property
    def adam(self) -> optax.GradientTransformation:
        return optax.adam(self.config.learning_rate)

    def init(self, key: Array, env: Environment, env_steps: int) -> State:
        c = self.config
        policy = Policy(
            self.spec, c.hidden, c.action_range, c.initial_std, c.least_std, key=key, tanh=c.activation == "tanh"
        )
        params = Params(policy, Rates(policy, c.inner_rate, c.learnt_rates))
        counters = (jnp.zeros((), jnp.int32) for _ in range(2))
        return State(params, self.adam.init(params), jnp.full(c.inner_steps, c.kl_weight), *counters)

    # ------------------------------------------------------------------------------------------------- update

    def objective(self, params: Params, kl_weights: Array, seen: Seen) -> tuple[Array, dict[str, Array]]:  # L5, L6
        """One task's loss."""
        c, policy, rates, divergences = self.config, params.policy, params.rates, []
        for before in seen.rounds:
            divergences.append(ppo.mean_of(before.said.kl(policy(before.obs)), before.weight))
            policy = inner.adapted(policy, rates, (before,), "ratio", recorded=True)
        new, last, kl = policy(seen.last.obs), seen.last, jnp.stack(divergences)
        loss = ppo.Objective(c.clip, value_weight=0.0).loss
        nothing = jnp.zeros_like(last.advantage)
        outer, metrics = loss(new.log_prob(last.action), nothing, nothing, last.log_prob, nothing, last.advantage, nothing,
                              last.weight)  # fmt: skip
        told = {"loss/outer": outer, "policy/clipped": metrics["policy/clipped"], "kl": kl}
        return outer + (kl_weights * kl).mean(), told

    def learn(self, state: State, seen: Seen, env_steps: Array) -> tuple[State, dict[str, Array]]:
        c = self.config
        one = jax.value_and_grad(self.objective, has_aux=True)

        def step(carry, _):
            params, optimiser = carry
            found = inner.over_tasks(lambda s: one(params, state.kl_weights, s), seen)
            (_, told), gradient = jax.tree.map(lambda x: x.mean(axis=0), found)
            change, optimiser = self.adam.update(gradient, optimiser, params)
            return (optax.apply_updates(params, change), optimiser), {
                **told,
                "gradient/norm": optax.tree.norm(gradient),
            }

        (params, optimiser), told = jax.lax.scan(step, (state.params, state.optimiser), None, length=c.epochs)
        told.pop("kl")  # before each of Adam's steps
        kl = inner.over_tasks(lambda s: self.objective(params, state.kl_weights, s)[1]["kl"], seen).mean(axis=0)
        weights = self.next_weights(state.kl_weights, kl)
        metrics = {
            "loss/outer": told["loss/outer"][0], "policy/clipped": told["policy/clipped"][-1], "policy/kl": kl.mean(),
            "policy/kl_weight": weights.mean(), "gradient/norm": told["gradient/norm"].mean(),
        }  # fmt: skip
        counters = state.env_steps + env_steps, state.updates + c.epochs
        return State(params, optimiser, weights, *counters), metrics

    def next_weights(self, weights: Array, kl: Array) -> Array:  # L7
        """eta of each inner step, given the divergence that it let through."""
        target = self.config.kl_target
        if not target:
            return weights
        return jnp.where(kl < target / 1.5, weights / 2.0, jnp.where(kl > target * 1.5, weights * 2.0, weights))

    # --------------------------------------------------------------------------------------------- the schedule

    def iterate(self, state: State, env: Environment, key: Array, phase: str) -> tuple[State, dict[str, Array]]:  # L1
        c = self.config
        task_key, trial_key = jax.random.split(key)
        tasks = draw_tasks(env, c.tasks, task_key, c.tasks_per_iteration)  # L2
        memory = self.training.begin(state.params, trial_key, (c.tasks_per_iteration, c.episodes_per_step))
        rounds, _, metrics = adapting.collect(env, self, state.params, memory, tasks, trial_key)  # L3, L4
        state, more = _learn(self, state, rounds)
        return state, {**metrics, **more}


@partial(jax.jit, static_argnums=0)
def _learn(algorithm, state, rounds):
    seen = Seen(*algorithm.adaptation.credit.rounds(rounds))
    env_steps = sum(data.valid.sum() for data in rounds).astype(jnp.int32)
    return algorithm.learn(state, seen, env_steps)
