"""An algorithm that learns nothing in no time, for tests of what is around algorithms. Used as "counting:Counting".

One slice in three collects an episode on every training task; the others draw a random walk of one weight.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from nacre import rollout
from nacre.types import EnvSpec, take_tasks, task_count


@dataclass(frozen=True)
class Config:
    scale: float = 1.0  # of a step of the walk
    bad_after: int = 0  # gradient steps after which the loss is NaN; 0: never
    size: int = 1  # of the weight
    style: str = "plain"  # no meaning


class State(eqx.Module):
    weight: jax.Array
    memory: jax.Array  # sized by env_steps, like a replay
    env_steps: jax.Array
    updates: jax.Array


@dataclass(frozen=True)
class Counting:
    config: Config
    spec: EnvSpec
    observes = False
    learnt = ("weight",)

    def init(self, key, env, env_steps):
        zero = jnp.zeros((), jnp.int32)
        return State(jax.random.normal(key, (self.config.size,)), jnp.zeros(env_steps), zero, zero + 0)

    def grow(self, state, env, env_steps):
        return dataclasses.replace(state, memory=jnp.pad(state.memory, (0, env_steps - state.memory.shape[-1])))

    def minimum_env_steps(self, env):
        return task_count(env.train_tasks) * self.spec.horizon

    def params(self, state):
        return state.weight

    def begin(self, params, key, rows):
        return jnp.zeros(rows)

    def act(self, params, memory, obs, key, explore):
        action = jnp.zeros((*obs.shape[:2], self.spec.action.size)) + jnp.tanh(params[0])
        return action, (), memory

    def adapt(self, params, memory, episodes, key):
        return memory + episodes.episode_return

    def collects(self, phase):
        return phase == "collect"

    def phase(self, state: State, env: Any):
        updates = int(jnp.max(state.updates))
        episodes = int(jnp.max(state.env_steps)) // self.minimum_env_steps(env)
        return "collect" if updates >= 2 * episodes else "learn"

    def iterate(self, state, env, key, phase):
        if phase == "learn":
            weight = state.weight + 0.01 * self.config.scale * jax.random.normal(key, state.weight.shape)
            updates = state.updates + 1
            loss = jnp.where((self.config.bad_after > 0) & (updates > self.config.bad_after), jnp.nan, weight.sum())
            return dataclasses.replace(state, weight=weight, updates=updates), {"loss/walk": loss}
        tasks = take_tasks(jax.tree.map(jnp.asarray, env.train_tasks), jnp.arange(task_count(env.train_tasks)))
        memory = self.begin(state.weight, key, (task_count(tasks), 1))
        data, _ = rollout.episode(env, self, state.weight, memory, tasks, key)
        steps = state.env_steps + data.valid.sum().astype(jnp.int32)
        held = state.memory.at[state.updates].set(data.reward.mean())
        state = dataclasses.replace(state, memory=held, env_steps=steps)
        return state, {"collect/return": data.episode_return.mean()}
