"""Episodes and trials: a `lax.scan` for families in JAX, a loop on the host for the others; the same Trajectory out.

This is the only place that steps environments. It owns time limits, the mapping of actions to the environment's units, the
masking of rows that are over, and the passage between episodes. It knows an algorithm through begin, act, observe, adapt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import (
    Algorithm,
    Box,
    Environment,
    EnvSpec,
    Memory,
    Params,
    Trajectory,
    Transition,
    flat_rows,
    grid_rows,
    task_count,
)  # fmt: skip

Refill = Callable[[Array, Memory, Array], Memory]  # key, memory, which rows [N, E] begin another episode -> memory


def to_env_action(spec: EnvSpec, action: Array) -> Array:
    """The agent's action ([-1, 1] per dimension, or an index) in the environment's units, clipped to its bounds."""
    if not isinstance(spec.action, Box):
        return action
    xp = action.__array_namespace__()
    low, high = xp.asarray(spec.action.low, dtype=xp.float32), xp.asarray(spec.action.high, dtype=xp.float32)
    return low + (xp.clip(action, -1.0, 1.0) + 1.0) * 0.5 * (high - low)


def _rows_of(tasks: Any, e: int) -> Any:
    """Tasks [N, ...] -> one per flat row [N * E, ...]."""
    return jax.tree.map(lambda x: x.repeat(e, axis=0) if e > 1 else x, tasks)


def episode(
    env: Environment, algorithm: Algorithm, params: Params, memory: Memory, tasks: Any, key: Array,
    *, episodes: int = 1, explore: bool = True, refill: Refill | None = None,
) -> tuple[Trajectory, Memory]:  # fmt: skip
    """One episode in each of the rows [N, E] (E = `episodes`) -> Trajectory [N, E, T] and the memory after it.

    explore: act stochastically, as in training; else deterministically. Memory is not adapted here. refill(key, memory, over)
    -> memory for the rows [N, E] that are over: with it, rows whose episode ends early begin another at once, so that every
    row is T env steps of experience, for environments that can (`refillable`).
    """
    rows = (task_count(tasks), episodes)
    run = _episode_scan if env.spec.jittable else _episode_host
    return run(env, algorithm, params, memory, tasks, key, rows, explore, refill if refillable(env) else None)


def refillable(env: Environment) -> bool:
    """Whether episodes may end early and another can begin in their row."""
    return env.spec.can_terminate and hasattr(env, "restart")


def mean_return(episodes: Trajectory) -> Array:
    """The mean return of the episodes in [N, E, T]. Of a row that was refilled those count that began with it or came to an end in
    it: the last piece was cut by the row's end and would count for less than it is."""
    over = (episodes.terminal | episodes.info.get("truncated", False)) & episodes.valid
    ended = jnp.cumsum(over, axis=-1) - over  # before each step
    whole = (ended == 0) | (ended < over.sum(axis=-1, keepdims=True))
    count = jnp.maximum(1, over.sum(axis=-1))
    return (episodes.reward * episodes.valid * whole).sum() / count.sum()


def trial(
    env: Environment, algorithm: Algorithm, params: Params, tasks: Any, key: Array,
    *, episodes: int, explore: bool = False, reset_memory: bool = False, memory: Memory | None = None,
) -> tuple[Trajectory, Any]:  # fmt: skip
    """K episodes one after another on each task, adapting after each -> Trajectory [K, N, 1, T], beliefs before each.

    reset_memory: forget everything before every episode (the no-adaptation reference). Episodes of a round, between which the
    agent does not change (`round_episodes`), are acted at once where K is whole rounds.
    """
    together = round_episodes(algorithm, episodes)
    rows = (task_count(tasks), together)
    begin_key, key = jax.random.split(key)
    start = algorithm.begin(params, begin_key, rows) if memory is None else memory
    beliefs = getattr(algorithm, "beliefs", lambda params, memory: {})
    begin_again = getattr(algorithm, "begin_unadapted", algorithm.begin)

    def one(memory, k):
        fresh_key, env_key, adapt_key = jax.random.split(jax.random.fold_in(key, k), 3)
        if reset_memory:
            memory = begin_again(params, fresh_key, rows)
        acted_with = beliefs(params, memory)
        data, memory = episode(env, algorithm, params, memory, tasks, env_key, episodes=together, explore=explore)
        memory = adapt(algorithm, params, memory, data, adapt_key)
        return memory, (data, acted_with)

    data, acted_with = repeat(env, one, start, episodes // together)[1]
    if together == 1:
        return data, acted_with
    data = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 1).reshape(episodes, rows[0], 1, *x.shape[3:]), data)
    return data, jax.tree.map(lambda x: jnp.repeat(x, together, axis=0), acted_with)


def round_episodes(algorithm: Algorithm, episodes: int) -> int:
    """How many of a trial's episodes may be acted at once."""
    together = getattr(algorithm, "round_episodes", 1)
    return together if episodes % together == 0 else 1


@partial(jax.jit, static_argnums=0)
def adapt(algorithm: Algorithm, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
    """`algorithm.adapt`, compiled once: on the host, control flow within it would be compiled at each call, and kept."""
    return algorithm.adapt(params, memory, episodes, key)


def repeat(env: Environment, body: Any, carry: Any, n: int) -> tuple[Any, Any]:
    """`lax.scan` of body(carry, k) for families in JAX, a loop for the others; results are stacked."""
    if env.spec.jittable:
        return jax.lax.scan(body, carry, jnp.arange(n))
    out = []
    for k in range(n):
        carry, result = body(carry, k)
        out.append(result)
    return carry, jax.tree.map(lambda *x: jnp.stack(x), *out)


@dataclass(frozen=True)
class Scripted:
    """A policy without learning, in the shape of an Algorithm: rule(memory, obs [N, E, d], key) -> action. Its memory is
    whatever the caller hands to `episode` or `trial`, and adaptation leaves it alone. For references and exploration."""

    rule: Callable[[Memory, Array, Array], Array]
    spec: EnvSpec
    observes = False

    def begin(self, params: Params, key: Array, rows: tuple[int, int]) -> Memory:
        return ()

    def act(self, params: Params, memory: Memory, obs: Array, key: Array, explore: bool):
        return self.rule(memory, obs, key), (), memory

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Array) -> Memory:
        return memory


def uniform_action(spec: EnvSpec, key: Array, rows: tuple[int, int]) -> Array:
    """Uniformly random actions in the agent's units, one per row [N, E]."""
    if isinstance(spec.action, Box):
        return jax.random.uniform(key, (*rows, spec.action.size), minval=-1.0, maxval=1.0)
    return jax.random.randint(key, rows, 0, spec.action.n)


def held_action(memory: Memory, obs: Array, key: Array) -> Array:
    """Scripted rule: repeat the action that memory holds."""
    return memory


def held_distribution(memory: Memory, obs: Array, key: Array) -> Array:
    """Scripted rule: draw from the distribution whose log weights memory holds."""
    return jax.random.categorical(key, memory)


def held(spec: EnvSpec, key: Array, rows: tuple[int, int]) -> tuple[Scripted, Array]:
    """Exploration that keeps to one thing through an episode, [N, E] of them -> the actor and its memory. It is a uniformly
    random action; where actions are discrete, a distribution over them that is uniform among all distributions, since one
    action alone leads nowhere."""
    if isinstance(spec.action, Box):
        return Scripted(held_action, spec), uniform_action(spec, key, rows)
    # minus a Gumbel variate is the log of an exponential one, and normalised exponentials are Dirichlet(1)
    return Scripted(held_distribution, spec), -jax.random.gumbel(key, (*rows, spec.action.n))


# ------------------------------------------------------------------------------------------- families in JAX


def _episode_scan(env, algorithm, params, memory, tasks, key, rows, explore, refill=None):
    spec = env.spec
    reset_key, step_key = jax.random.split(key)
    state, obs = env.reset(reset_key, _rows_of(tasks, rows[1]))

    def step(carry, t):
        state, obs, active, memory = carry
        act_key = jax.random.fold_in(step_key, t)
        action, extras, memory = algorithm.act(params, memory, grid_rows(obs, rows), act_key, explore)
        state, out = env.step(state, to_env_action(spec, flat_rows(action)), active)
        over = out.terminal | out.info.get("truncated", False)
        row = _record(spec, grid_rows(obs, rows), action, grid_rows(out, rows), grid_rows(active, rows), extras)
        if getattr(algorithm, "observes", True):
            memory = algorithm.observe(params, memory, _transition(row, t + 1 == spec.horizon))
        if refill is None:
            return (state, out.obs, active & ~over, memory), row

        def begin_again(state, obs, memory):
            env_key, memory_key = jax.random.split(jax.random.fold_in(reset_key, t))
            state, obs = env.restart(env_key, state, over)
            return state, obs, refill(memory_key, memory, over.reshape(rows))

        some = over.any() & (t + 1 < spec.horizon)
        state, obs, memory = jax.lax.cond(some, begin_again, lambda *same: same, state, out.obs, memory)
        return (state, obs, active, memory), row

    active = jnp.ones(rows[0] * rows[1], bool)
    (_, _, _, memory), data = jax.lax.scan(step, (state, obs, active, memory), jnp.arange(spec.horizon))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), data), memory


def _record(spec, obs, action, out, active, extras) -> Trajectory:
    """One env step of all rows [N, E] with everything zero where the episode was over."""

    def mask(x):
        return jnp.where(active.reshape(active.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x))

    data = Trajectory(
        mask(obs), mask(action), mask(out.reward), mask(out.train_reward), mask(out.obs),
        out.terminal & active, active, extras, jax.tree.map(mask, dict(out.info)),
    )  # fmt: skip
    return data


def _transition(row: Trajectory, last) -> Transition:
    ended_by_env = row.info.get("truncated", jnp.zeros_like(row.terminal)) & row.valid
    truncated = (ended_by_env | (row.valid & last)) & ~row.terminal
    return Transition(row.obs, row.action, row.reward, row.next_obs, row.terminal, truncated, row.valid)


# --------------------------------------------------------------------------------------- families on the host


@partial(jax.jit, static_argnums=1)
def _host_keys(key, horizon):
    """An episode's keys, the same as in a scan: for its reset, [T] for its actions, [T, 2] for what begins again. All at once,
    since on a CPU one draw costs half as much as a small policy."""
    reset_key, step_key = jax.random.split(key)
    act_keys, again_keys = (
        jax.vmap(partial(jax.random.fold_in, k))(jnp.arange(horizon)) for k in (step_key, reset_key)
    )
    return reset_key, act_keys, jax.vmap(jax.random.split)(again_keys)


@jax.jit
def _pair(keys, t):
    return keys[t, 0], keys[t, 1]


@partial(jax.jit, static_argnums=(0, 6, 7))
def _act(algorithm, params, memory, obs, keys, t, explore, rows):
    action, extras, memory = algorithm.act(params, memory, grid_rows(obs, rows), keys[t], explore)
    return to_env_action(algorithm.spec, flat_rows(action)), flat_rows(action), extras, memory


@partial(jax.jit, static_argnums=0)
def _observe(algorithm, params, memory, transition):
    return algorithm.observe(params, memory, transition)


def _episode_host(env, algorithm, params, memory, tasks, key, rows, explore, refill=None):
    spec = env.spec
    n = rows[0] * rows[1]
    reset_key, act_keys, again_keys = _host_keys(key, spec.horizon)
    tasks = jax.tree.map(np.asarray, tasks)
    state, obs = env.reset(reset_key, _rows_of(tasks, rows[1]))
    active, steps, extras = np.ones(n, bool), [], []
    for t in range(spec.horizon):
        env_action, action, extra, memory = _act(algorithm, params, memory, obs, act_keys, t, explore, rows)
        before = obs
        state, out = env.step(state, np.asarray(env_action), active)
        obs = out.obs
        row = Trajectory(
            before, np.asarray(action), out.reward, out.train_reward, obs, out.terminal & active, active, (), out.info
        )
        steps.append(row)
        extras.append(extra)
        if getattr(algorithm, "observes", True):
            grid = grid_rows(jax.tree.map(jnp.asarray, row), rows)
            memory = _observe(algorithm, params, memory, _transition(grid, t + 1 == spec.horizon))
        over = active & (out.terminal | out.info.get("truncated", False))
        if refill is None:
            active = active & ~over
        elif over.any() and t + 1 < spec.horizon:
            env_key, memory_key = _pair(again_keys, t)
            state, obs = env.restart(env_key, state, over)
            memory = refill(memory_key, memory, over.reshape(rows))
        if not active.any():
            break
    data = _stack(steps, spec.horizon, rows)
    if jax.tree.leaves(extras[0]):
        pad = spec.horizon - len(extras)
        stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=2), *extras)
        stacked = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 3)), stacked)
        data = data._replace(extras=stacked)
    return data, memory


def _stack(steps: list[Trajectory], horizon: int, rows: tuple[int, int]) -> Trajectory:
    """Host steps, each [B, ...] -> one Trajectory [N, E, T] on the device, zero where not valid."""
    n = rows[0] * rows[1]
    valid = np.zeros((n, horizon), bool)
    for t, step in enumerate(steps):
        valid[:, t] = step.valid

    def collect(*leaves):
        first = np.asarray(leaves[0])
        out = np.zeros((n, horizon, *first.shape[1:]), np.float32 if first.dtype == np.float64 else first.dtype)
        for t, leaf in enumerate(leaves):
            out[:, t] = leaf
        out[~valid] = 0
        return jnp.asarray(out.reshape(*rows, *out.shape[1:]))

    return jax.tree.map(collect, *steps)
