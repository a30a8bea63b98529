"""An environment under test: runs of it with known actions, and comparisons of what they showed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from nacre.types import Environment, Key, take_tasks, task_count


class Episode(NamedTuple):
    """What a run of T env steps showed; arrays lead with [T, B] after `first`."""

    first: np.ndarray  # [B, obs_size]
    obs: np.ndarray
    reward: np.ndarray
    train_reward: np.ndarray
    terminal: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True)
class Probe:
    """The environment under test, its key, and tasks for ROWS rows."""

    env: Environment
    key: Key
    tasks: Any
    compiled: bool = False  # step and reset as one program each, for families that are known to allow it

    @cached_property
    def reset(self) -> Callable:
        return jax.jit(self.env.reset) if self.compiled else self.env.reset

    @cached_property
    def step(self) -> Callable:
        return jax.jit(self.env.step) if self.compiled else self.env.step

    def actions(self, steps: int, seed: int = 0) -> np.ndarray:
        """Random actions [steps, B, ...] in the environment's units."""
        rng = np.random.default_rng(seed)
        spec, n = self.env.spec, task_count(self.tasks)
        if spec.discrete:
            return rng.integers(spec.action.n, size=(steps, n)).astype(np.int32)
        return rng.uniform(spec.action.low, spec.action.high, (steps, n, spec.action.size)).astype(np.float32)

    def fresh_key(self) -> Key:
        """The same key, allowed to be used again."""
        return jax.random.clone(self.key)

    def run(self, tasks: Any, actions: np.ndarray, active: np.ndarray | None = None, key: Key | None = None) -> Episode:
        """Steps until `actions` are used up; rows go on after their end only if `active` says so."""
        state, first = self.reset(self.fresh_key() if key is None else key, tasks)
        alive = np.ones(task_count(tasks), bool) if active is None else active
        steps = []
        for action in actions:
            if not alive.any():
                break
            state, out = self.step(state, action, alive)
            truncated = np.asarray(out.info.get("truncated", np.zeros(len(alive), bool)))
            mask = [np.where(alive.reshape(-1, *[1] * (np.ndim(x) - 1)), x, 0) for x in out[:4]]
            steps.append((*mask, truncated & alive))
            alive = alive & ~np.asarray(out.terminal, bool) & ~truncated
        stacked = [np.stack(column) for column in zip(*steps, strict=True)]
        return Episode(np.asarray(first), *stacked)


def others(probe: Probe) -> Any:
    """Another task in every row that can have one: the next of the family's tasks that differs from the row's own."""
    everything = jax.tree.map(lambda *x: np.concatenate(x), probe.env.train_tasks, probe.env.test_tasks)
    known, own = as_bytes(everything), as_bytes(probe.tasks)
    n, chosen = len(known), []
    for row, task in enumerate(own):
        others = (k % n for k in range(row + 1, row + 1 + n))
        chosen.append(next((k for k in others if known[k] != task), row % n))
    return take_tasks(jax.tree.map(np.asarray, everything), np.array(chosen))


def as_bytes(tasks: Any) -> list[bytes]:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tasks)]
    return [b"".join(leaf[k].tobytes() for leaf in leaves) for k in range(task_count(tasks))]


def oracle_actions(probe: Probe, steps: int) -> np.ndarray:
    """[steps, B, ...]: what the oracle does in the probe's tasks; random where it is unknown."""
    actions = probe.actions(steps)
    state, obs = probe.reset(probe.fresh_key(), probe.tasks)
    active = np.ones(task_count(probe.tasks), bool)
    for t in range(steps):
        best = probe.env.oracle(probe.tasks, obs, np.full(len(active), t))
        if best is None:
            break
        actions[t] = best
        state, out = probe.step(state, actions[t], active)
        obs = out.obs
    return actions


def task_rows(tasks: Any) -> set[bytes]:
    """Each task as bytes."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tasks)]
    return {b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))}


def rows_of(seen: Episode, n: int) -> Episode:
    """The first n rows."""
    return Episode(seen.first[:n], *(x[:, :n] for x in seen[1:]))


def same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def close(a: Any, b: Any) -> bool:
    """Equal up to float32 rounding; trailing steps of a run that went on longer do not count."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        n = min(len(x), len(y))
        if not np.allclose(x[:n], y[:n], rtol=1e-4, atol=1e-5):
            return False
    return True
