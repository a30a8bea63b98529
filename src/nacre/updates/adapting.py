"""What agents that adapt by policy gradients do in the same way: acting, adapting, collecting. How a step is taken is in inner."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre import rollout
from nacre.types import Environment, EnvSpec, Metric, Trajectory, Transition, task_count
from nacre.updates import inner
from nacre.updates.inner import Memory, Policy, Rates


class Params(eqx.Module):
    """Meta-trained: theta, and the step sizes from it."""

    policy: Policy
    rates: Rates


class Adapting:
    """What agents that adapt by gradients promise in the same way (nacre.types.Algorithm). They have a config, a spec, and say how
    they adapt (`adaptation`) and what an iteration takes (`iteration_env_steps`)."""

    config: Any
    spec: EnvSpec
    adaptation: inner.Adaptation
    iteration_env_steps: int
    observes = False

    @property
    def test_episodes(self) -> int:
        """Of a trial: a round for each step, and one after the last."""
        return self.adaptation.episodes * (self.adaptation.steps + 1)

    @property
    def test_exploration(self) -> int:
        return self.adaptation.episodes * self.adaptation.steps

    def params(self, state: Any) -> Params:
        return state.params

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Memory:
        return inner.begin(self.spec, params.policy, rows, self.adaptation.episodes)

    def act(self, params: Params, memory: Memory, obs: Array, key: Array, explore: bool):
        return inner.act(self.adaptation, memory, obs, key, explore)

    def observe(self, params: Params, memory: Memory, transition: Transition) -> Memory:
        return memory

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
        return self.adaptation.take(params.rates, memory, episodes)

    def beliefs(self, params: Params, memory: Memory) -> dict[str, Array]:
        """For pictures: gradient steps taken, and how far they went, [N, 1]."""
        return inner.beliefs(params.policy, memory)

    def trouble(self, metrics: dict[str, Any]) -> str:
        return trouble(metrics)

    def minimum_env_steps(self, env: Environment) -> int:
        return self.iteration_env_steps

    def phase(self, state: Any, env: Environment) -> str:
        return "iteration"


METRICS = {
    "collect/return_before": Metric("reward", "mean return of episodes before adaptation"),
    "collect/return": Metric("reward", "mean return of episodes after all inner steps"),
    "adapt/moved": Metric("", "distance of the adapted parameters from the meta-trained ones, mean over tasks"),
    "adapt/furthest": Metric("", "the largest such distance among the iteration's tasks"),
    "adapt/furthest_task": Metric("", "which of the iteration's tasks that is"),
    "adapt/std": Metric("", "geometric mean of the adapted policies' standard deviations, in the agent's units"),
}


def collect(
    env: Environment, algorithm: Any, params: Any, tasks: Any, key: Array, steps: int
) -> tuple[tuple[Trajectory, ...], dict[str, Array]]:
    """A round of episodes before each inner step and one after the last -> rounds [N, P, T], metrics."""
    episodes = algorithm.config.episodes_per_step
    begin_key, *keys = jax.random.split(key, 2 + 2 * steps)
    memory = algorithm.begin(params, begin_key, (task_count(tasks), episodes))
    rounds = []
    for k in range(steps + 1):
        data, _ = rollout.episode(env, algorithm, params, memory, tasks, keys[2 * k], episodes=episodes, explore=True)
        rounds.append(data)
        if k < steps:
            memory = _adapt(algorithm, params, memory, data, keys[2 * k + 1])
    moved = inner.beliefs(params.policy, memory)["moved"][:, 0]  # NaN counts as the largest
    metrics = {
        "collect/return_before": rollout.mean_return(rounds[0]), "collect/return": rollout.mean_return(rounds[-1]),
        "adapt/moved": moved.mean(), "adapt/furthest": moved.max(), "adapt/furthest_task": moved.argmax().astype(jnp.float32),
    }  # fmt: skip
    if memory.policy.log_std is not None:
        metrics["adapt/std"] = jnp.exp(memory.policy.log_std.mean()) / memory.policy.reach
    return tuple(rounds), metrics


def trouble(metrics: dict[str, Any]) -> str:
    """Which task's inner step exploded, if one did."""
    if np.isfinite(metrics.get("adapt/furthest", 0.0)):
        return ""
    return (
        f"The inner steps moved the parameters of task {int(metrics['adapt/furthest_task'])} of this iteration by "
        f"{metrics['adapt/furthest']}: a smaller inner_rate helps. "
    )


@partial(jax.jit, static_argnums=0)
def _adapt(algorithm, params, memory, data, key):
    return algorithm.adapt(params, memory, data, key)
