"""What agents that adapt by policy gradients do in the same way: acting, adapting, collecting. How a step is taken is in inner."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre import rollout
from nacre.types import Environment, EnvSpec, Metric, Trajectory, Transition
from nacre.updates import inner
from nacre.updates.inner import Memory, Policy, Rates


class Params(eqx.Module):
    """Meta-trained: theta, and the step sizes from it."""

    policy: Policy
    rates: Rates


class Adapting:
    """What agents that adapt by gradients promise in the same way (nacre.types.Algorithm). They have a config, a spec, and say how
    many gradient steps meta-test takes at most (`steps`), and after how many episodes each (`round_episodes`)."""

    config: Any
    spec: EnvSpec
    steps: int
    round_episodes: int
    observes = False
    test_acts = "stochastic until the last step, then deterministic"  # it learns from the differences between actions

    def begin_unadapted(self, params: Any, key: Array, rows: tuple[int, int]) -> Any:
        """A memory that acts as after the last step, with nothing adapted."""
        memory = self.begin(params, key, rows)
        return memory._replace(steps=jnp.full_like(memory.steps, self.steps))

    @property
    def training(self) -> "Adapting":
        """Itself in meta-training, where what is differentiated is `inner_steps` whole steps: how many episodes and steps meta-test
        takes, and of what size, is not for there."""
        plain = dataclasses.replace(self.config, test_steps=0, later_rate=1.0, test_episodes_per_step=0)
        return dataclasses.replace(self, config=plain)

    @property
    def test_episodes(self) -> int:
        """Of a trial: a round for each step, and one after the last."""
        return self.round_episodes * (self.steps + 1)

    @property
    def test_exploration(self) -> int:
        return self.round_episodes * self.steps

    def params(self, state: Any) -> Any:
        return state.params

    def observe(self, params: Any, memory: Any, transition: Transition) -> Any:
        return memory

    def trouble(self, metrics: dict[str, Any]) -> str:
        return trouble(metrics)

    @property
    def iteration_env_steps(self) -> int:
        """At most, where no episode ends early."""
        c = self.config
        return c.tasks_per_iteration * c.episodes_per_step * (c.inner_steps + 1) * self.spec.horizon

    def minimum_env_steps(self, env: Environment) -> int:
        return self.iteration_env_steps

    def phase(self, state: Any, env: Environment) -> str:
        return "iteration"


class AdaptingPolicy(Adapting):
    """Those whose policy itself is adapted, as `adaptation` says."""

    adaptation: inner.Adaptation

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Memory:
        return inner.begin(self.spec, params.policy, rows, self.adaptation.episodes)

    def act(self, params: Params, memory: Memory, obs: Array, key: Array, explore: bool):
        return inner.act(self.adaptation, memory, obs, key, explore)

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
        return self.adaptation.take(params.rates, memory, episodes)

    def beliefs(self, params: Params, memory: Memory) -> dict[str, Array]:
        """For pictures: gradient steps taken, and how far they went, [N, 1]."""
        return inner.beliefs(params.policy, memory)


METRICS = {
    "collect/return_before": Metric("reward", "mean return of episodes before adaptation"),
    "collect/return": Metric("reward", "mean return of episodes after all inner steps"),
    "adapt/moved": Metric("", "distance of the adapted parameters from the meta-trained ones, mean over tasks"),
    "adapt/furthest": Metric("", "the largest such distance among the iteration's tasks"),
    "adapt/furthest_task": Metric("", "which of the iteration's tasks that is"),
    "adapt/std": Metric("", "geometric mean of the adapted policies' standard deviations, in the agent's units"),
}


def collect(
    env: Environment, algorithm: Any, params: Any, memory: Any, tasks: Any, key: Array, *, train_reward: bool = False
) -> tuple[tuple[Trajectory, ...], tuple[Any, ...], dict[str, Array]]:  # fmt: skip
    """A round of episodes before each inner step and one after the last -> rounds [N, P, T], the memory at the beginning of each,
    metrics. memory: begun by the algorithm's `training`. train_reward: inner steps see that instead of what the agent sees."""
    algorithm, c = algorithm.training, algorithm.config
    keys = jax.random.split(key, 1 + 2 * c.inner_steps)
    rounds, memories = [], [memory]
    for k in range(c.inner_steps + 1):
        data, _ = rollout.episode(env, algorithm, params, memory, tasks, keys[2 * k], episodes=c.episodes_per_step)
        rounds.append(data)
        if k < c.inner_steps:
            seen = data._replace(reward=data.train_reward) if train_reward else data
            memory = rollout.adapt(algorithm, params, memory, seen, keys[2 * k + 1])
            memories.append(memory)
    moved = inner.moved(memories[0].adapted, memory.adapted)  # NaN counts as the largest
    metrics = {
        "collect/return_before": rollout.mean_return(rounds[0]), "collect/return": rollout.mean_return(rounds[-1]),
        "adapt/moved": moved.mean(), "adapt/furthest": moved.max(), "adapt/furthest_task": moved.argmax().astype(jnp.float32),
    }  # fmt: skip
    policy = memory.adapted if isinstance(memory.adapted, Policy) else params.policy
    if policy.log_std is not None:
        metrics["adapt/std"] = jnp.exp(policy.log_std.mean()) / policy.reach
    return tuple(rounds), tuple(memories), metrics


def trouble(metrics: dict[str, Any]) -> str:
    """Which task's inner step exploded, if one did."""
    if np.isfinite(metrics.get("adapt/furthest", 0.0)):
        return ""
    return (
        f"The inner steps moved the parameters of task {int(metrics['adapt/furthest_task'])} of this iteration by "
        f"{metrics['adapt/furthest']}: a smaller inner_rate helps. "
    )
