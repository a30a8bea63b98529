"""One task of any family as a gymnasium environment, for other people's tools and for field use."""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from nacre.envs.registry import make_family, simulated
from nacre.types import Array, Environment


def make(family: str | Environment, task: Any, **params: Any) -> "TaskEnv":
    """`family` (a name for nacre.envs.registry.make_family with its parameters, or an Environment) at one task.

    task: one row of the family's tasks, e.g. 1.5 for cheetah-vel or (0.5, -0.2) for point-robot. Raises ValueError for a task that
    is none, and for parameters beside an Environment.
    """
    if isinstance(family, str):
        return TaskEnv(make_family(family, **params), task)
    if params:
        raise ValueError(
            f"{', '.join(params)}: parameters go with a family's name; set them in the object that you pass"
        )
    if not hasattr(family, "spec"):
        raise ValueError(f"expected a family's name, such as 'cheetah-vel', or an Environment, got {family!r}")
    return TaskEnv(simulated(family), task)


class TaskEnv(gymnasium.Env):
    """A batch of one row. Observations are float32; actions are in the family's own units.

    Episodes are truncated at spec.horizon, or earlier where the family says so in info["truncated"]. `reset(seed=)`
    fixes the episodes that follow. Stepping after the end raises RuntimeError.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  gymnasium's own convention

    def __init__(self, env: Environment, task: Any):
        self.env = env
        self.task = one_task(env, task)
        size = env.spec.obs_size
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        action = env.spec.action
        if env.spec.discrete:
            self.action_space = spaces.Discrete(action.n)
        else:
            self.action_space = spaces.Box(np.array(action.low, np.float32), np.array(action.high, np.float32))
        jit = jax.jit if env.spec.jittable else lambda function: function
        self._reset, self._step = jit(env.reset), jit(env.step)
        self._state: Any = None
        self._t = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """A new episode of the task -> obs [obs_size], {}. Without a seed it goes on with the random stream."""
        super().reset(seed=seed)
        key = jax.random.key(int(self.np_random.integers(2**31)))
        self._state, obs = self._reset(key, self.task)
        self._t = 0
        return np.asarray(obs[0], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """-> obs, reward, terminated, truncated, info (the family's measurements of this step)."""
        if self._state is None:
            raise RuntimeError(f"{self.env.spec.name}: no episode is under way; call reset() first")
        native = self._native(action)
        if native is None:
            raise ValueError(f"{self.env.spec.name}: action must be in {self.action_space}, got {action!r}")
        self._state, out = self._step(self._state, native[None], np.ones(1, bool))
        self._t += 1
        out = jax.tree.map(lambda leaf: np.asarray(leaf)[0], out)
        if not (np.isfinite(out.obs).all() and np.isfinite(out.reward)):
            self._state = None
            raise FloatingPointError(
                f"{self.env.spec.name}: env step {self._t} gives reward {out.reward} and observation {out.obs}; is the task "
                "a possible one?"
            )
        terminated = bool(out.terminal)
        cut_short = bool(out.info.get("truncated", False))
        truncated = (self._t >= self.env.spec.horizon or cut_short) and not terminated
        if terminated or truncated:
            self._state = None
        info = {name: value for name, value in out.info.items() if name != "truncated"}
        return np.asarray(out.obs, np.float32), float(out.reward), terminated, truncated, info

    def _native(self, action: Any) -> np.ndarray | None:
        """The action as the family takes it, None if it is none."""
        try:
            found = np.asarray(action, np.float32)
        except (TypeError, ValueError):
            return None
        if self.env.spec.discrete:
            if found.shape or not np.isfinite(found) or found != np.floor(found):
                return None
            found = found.astype(np.int32)
        return found if self.action_space.contains(found) else None


def one_task(env: Environment, task: Any) -> Array:
    """Tasks with one row, of the family's shape and dtype; raises ValueError where it does not fit."""

    def row(value: Any, like: Array) -> np.ndarray:
        try:
            found = np.asarray(value, np.asarray(like).dtype)
        except (TypeError, ValueError):
            found = None
        if found is None or found.shape != np.shape(like)[1:] or not np.isfinite(found).all():
            raise ValueError(
                f"{env.spec.name}: a task is finite numbers of the shape {np.shape(like)[1:]} "
                f"({', '.join(env.spec.task_names) or 'unnamed'}), got {value!r}; for instance env.test_tasks[0]"
            )
        return found[None]

    try:
        return jax.tree.map(lambda like, value: row(value, like), env.test_tasks, task)
    except ValueError as error:
        if str(error).startswith(env.spec.name):
            raise
        example = jax.tree.map(lambda leaf: np.asarray(leaf)[0], env.test_tasks)
        raise ValueError(f"{env.spec.name}: a task looks like {example!r}, got {task!r}") from error
