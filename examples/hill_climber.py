"""An algorithm from scratch: hill climbing on a linear policy, which sees the last reward besides the observation.

    nacre train examples/hill_climber.py:Climber point-robot --env-steps 300000 --step 0.2

A second of training goes a quarter of the way to the oracle, without knowing anything of the task but its last reward.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nacre import rollout
from nacre.types import EnvSpec, Metric


@dataclass(frozen=True)
class Config:
    step: float = 0.1  # size of a try


class State(NamedTuple):
    """All that training changes."""

    weights: jax.Array
    best: jax.Array
    env_steps: jax.Array
    updates: jax.Array


@dataclass(frozen=True)
class Climber:
    """Keeps random changes of its weights that are better on all training tasks."""

    config: Config
    spec: EnvSpec
    metrics_help = {  # noqa: RUF012  read only
        "climb/best": Metric("reward", "best mean return so far")
    }

    def init(self, key, env, env_steps):
        zero = jnp.zeros((), jnp.int32)
        return State(jnp.zeros((self.spec.obs_size + 2, self.spec.action.size)), jnp.float32(-jnp.inf), zero, zero)

    def params(self, state):
        return state.weights

    def begin(self, params, key, rows):
        return jnp.zeros(rows)  # the last reward of each task and episode [N, E]

    def act(self, params, memory, obs, key, explore):
        x = jnp.concatenate([obs, memory[..., None], jnp.ones_like(memory)[..., None]], axis=-1)
        return jnp.tanh(x @ params), (), memory

    def observe(self, params, memory, t):
        return jnp.where(t.valid, t.reward, memory)

    def adapt(self, params, memory, episodes, key):
        return memory

    def phase(self, state, env):
        return "try"

    def iterate(self, state, env, key, phase):
        change_key, trial_key = jax.random.split(key)
        weights = state.weights + self.config.step * jax.random.normal(change_key, state.weights.shape)
        tasks = jax.tree.map(jnp.asarray, env.train_tasks)
        data, _ = rollout.trial(env, self, weights, tasks, trial_key, episodes=1)  # Trajectory [K, N, 1, T]
        found = data.episode_return.mean()
        better, steps = found > state.best, data.valid.sum().astype(jnp.int32)
        best = jnp.where(better, found, state.best)
        kept = jnp.where(better, weights, state.weights)
        return State(kept, best, state.env_steps + steps, state.updates + 1), {"climb/best": best}
