"""A user's own task family, made of a function that builds a gymnasium environment for a task and a task sampler.

    import gymnasium, nacre

    def make(task):                                   # one task: a number, or an array [k]
        env = gymnasium.make("Pendulum-v1")
        env.unwrapped.m = task
        return env

    def sample_tasks(rng, n):                         # NumPy generator, count -> [n] or [n, k]
        return rng.uniform(0.5, 2.0, n)

    pendulum = nacre.family(make, sample_tasks)       # use it as `path/file.py:pendulum`

Rows are stepped one after another in this process, each by an environment of its own, built when it is first needed and
kept for the next episode of the same task.
"""

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from nacre.envs.backends.gymnasium_spaces import describe, native_action, same_space
from nacre.types import Array, EnvSpec, Key, Step

SPLIT_SEED = 1337  # the train/test split of a family is drawn once from this


def family(
    make: Callable[[Any], gymnasium.Env],
    sample_tasks: Callable[[np.random.Generator, int], Array],
    *,
    train: int | Array = 40,
    test: int | Array = 20,
    horizon: int | None = None,
    name: str | None = None,
    allow_overlap: bool = False,
    max_idle: int = 128,
) -> "GymnasiumFamily":
    """A task family from `make(task) -> gymnasium.Env` and `sample_tasks(rng, n) -> array [n] or [n, k]`.

    train, test: how many tasks to draw (once, from a fixed seed), or the tasks themselves. horizon: env steps per
    episode; None takes the environment's own time limit. allow_overlap: test tasks may equal training tasks (families
    of a few tasks). max_idle: environments kept open for later episodes. `make` gets a Python number where tasks are
    [n] and a NumPy array [k] where they are [n, k]; it must build a new environment each time, with the same spaces.

    Observations: Box, Discrete (one-hot), MultiDiscrete, MultiBinary, Dict and Tuple of these, flattened to float32.
    Actions: Box with finite bounds, or Discrete. Raises ValueError or TypeError that says what to change.
    """
    name = name or getattr(make, "__name__", "family")
    for what, value in (("make", make), ("sample_tasks", sample_tasks)):
        if not callable(value):
            raise TypeError(f"{name}: {what} must be a function, got {value!r}")
    train_tasks, test_tasks = task_sets(name, sample_tasks, train, test)
    overlap = overlapping(train_tasks, test_tasks)
    if len(overlap) and not allow_overlap:
        raise ValueError(
            f"{name}: test task {overlap[0].tolist()} is also a training task, so the test would say nothing about new "
            "tasks; pass other tasks as test=, or allow_overlap=True if the family has only a few tasks"
        )
    pool = Pool(name, make, max_idle)
    first = pool.take(train_tasks[0])
    spec = describe(name, first, horizon)
    pool.give(train_tasks[0], first)
    return GymnasiumFamily(spec, train_tasks, test_tasks, sample_tasks, pool, train_is_test=len(overlap) > 0)


def single(env_id: str, horizon: int | None = None) -> "GymnasiumFamily":
    """One registered gymnasium environment as a family with a single task (0), for training and test."""

    def make(task: Any) -> gymnasium.Env:
        try:
            return gymnasium.make(env_id, disable_env_checker=True)
        except (gymnasium.error.Error, ImportError) as error:
            raise ValueError(f"gymnasium/{env_id}: cannot be made: {error}") from error

    def sample_tasks(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros(n, np.float32)

    name = f"gymnasium/{env_id}"
    return family(make, sample_tasks, train=1, test=1, horizon=horizon, name=name, allow_overlap=True)


# ---------------------------------------------------------------- tasks


def task_sets(name: str, sample_tasks: Callable, train: int | Array, test: int | Array) -> tuple[Array, Array]:
    """Training and test tasks; those given as counts come from one stream, training first."""
    rng = np.random.default_rng(SPLIT_SEED)
    sets = []
    for what, value in (("train", train), ("test", test)):
        if isinstance(value, (int, np.integer)):
            if value < 1:
                raise ValueError(f"{name}: {what} must be at least 1 task, got {value}")
            sets.append(draw(name, sample_tasks, rng, int(value)))
        else:
            sets.append(checked_tasks(name, f"{what}=", value, None))
    if sets[0].shape[1:] != sets[1].shape[1:]:
        shapes = (sets[0].shape[1:], sets[1].shape[1:])
        raise ValueError(f"{name}: training and test tasks must have one shape, got {shapes[0]} and {shapes[1]}")
    return sets[0], sets[1]


def draw(name: str, sample_tasks: Callable, rng: np.random.Generator, n: int) -> np.ndarray:
    return checked_tasks(name, f"sample_tasks(rng, {n})", sample_tasks(rng, n), n)


def checked_tasks(name: str, what: str, tasks: Any, n: int | None) -> np.ndarray:
    """[n] or [n, k], float32 or int32."""
    tasks = np.asarray(tasks)
    if tasks.dtype.kind not in "fiub" or not np.all(np.isfinite(tasks)):
        raise ValueError(f"{name}: {what} must give finite numbers, got {tasks!r}"[:400])
    if tasks.ndim not in (1, 2) or len(tasks) == 0 or (n is not None and len(tasks) != n):
        expected = f"[{n if n is not None else 'n'}] or [{n if n is not None else 'n'}, k]"
        raise ValueError(f"{name}: {what} must give an array {expected} with one task per row, got shape {tasks.shape}")
    return tasks.astype(np.float32 if tasks.dtype.kind == "f" else np.int32)


def overlapping(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The test tasks that equal a training task."""
    known = {task.tobytes() for task in train}
    return test[[task.tobytes() in known for task in test]]


def plain(task: np.ndarray) -> Any:
    """What `make` gets: a Python number, or an array [k] in double precision, so that users' arithmetic is too."""
    return task.item() if np.ndim(task) == 0 else np.array(task, np.float64 if task.dtype.kind == "f" else np.int64)


# ---------------------------------------------------------------- environments per row


class Pool:
    """Open environments that no row uses, by task; the longest unused are closed beyond `max_idle`."""

    def __init__(self, name: str, make: Callable, max_idle: int):
        self.name, self.make, self.max_idle = name, make, max_idle
        self.idle: OrderedDict[int, tuple[bytes, gymnasium.Env]] = OrderedDict()  # by order of return
        self.open: set[int] = set()  # ids of all environments, idle or held by a row
        self.spaces: tuple | None = None
        self._count = itertools.count()

    def take(self, task: np.ndarray) -> gymnasium.Env:
        """An environment of this task for one row alone."""
        wanted = task.tobytes()
        for ticket, (key, env) in self.idle.items():
            if key == wanted:
                del self.idle[ticket]
                return env
        return self._build(task)

    def give(self, task: np.ndarray, env: gymnasium.Env) -> None:
        self.idle[next(self._count)] = (task.tobytes(), env)
        while len(self.idle) > self.max_idle:
            _, (_, oldest) = self.idle.popitem(last=False)
            self.open.discard(id(oldest))
            oldest.close()

    def _build(self, task: np.ndarray) -> gymnasium.Env:
        label = f"{self.name}: make({plain(task)!r})"
        try:
            env = self.make(plain(task))
        except Exception as error:
            error.add_note(f"raised by {label}")
            raise
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"{label} returned {env!r}; expected a gymnasium.Env (not one of the old gym package)")
        if id(env) in self.open:
            raise ValueError(f"{label} returned an environment that is in use; build a new one at each call")
        found = (env.observation_space, env.action_space)
        if self.spaces is None:
            self.spaces = found
        for what, space, expected in zip(("observation", "action"), found, self.spaces, strict=True):
            if not same_space(space, expected, bounds=what == "action"):
                raise ValueError(
                    f"{label} has the {what} space {space}, other tasks have {expected}; spaces must not change with "
                    "the task: pad or wrap the environment"
                )
        self.open.add(id(env))
        return env


@dataclass(eq=False)
class Rows:
    """The environments of one reset; shared by its states, of which only the newest may be stepped."""

    envs: list
    tasks: np.ndarray
    obs: np.ndarray  # [B, obs_size] newest
    steps: np.ndarray  # [B] env steps taken
    generation: int = 0


class GymnasiumState(NamedTuple):
    rows: Rows
    generation: int  # of this state; a state that was stepped is stale


@dataclass(frozen=True, eq=False)
class GymnasiumFamily:
    """An Environment (see nacre.types) over gymnasium environments; made by `family`."""

    spec: EnvSpec
    train_tasks: np.ndarray  # [n] or [n, k]
    test_tasks: np.ndarray
    sampler: Callable = field(repr=False)
    pool: Pool = field(repr=False)
    train_is_test: bool = False  # the family has test tasks that are training tasks, by its maker's word

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return draw(self.spec.name, self.sampler, np.random.default_rng(np.asarray(jax.random.key_data(key))), n)

    def reset(self, key: Key, tasks: Array) -> tuple[GymnasiumState, np.ndarray]:
        """Every row's environment is seeded from the key and its row. -> state, obs [B, obs_size] float32."""
        tasks = np.asarray(tasks, self.train_tasks.dtype)
        if tasks.ndim != self.train_tasks.ndim or tasks.shape[1:] != self.train_tasks.shape[1:]:
            expected = ("B", *self.train_tasks.shape[1:])
            raise ValueError(f"{self.spec.name}: tasks must have the shape {expected}, got {tasks.shape}")
        seeds = np.random.default_rng(np.asarray(jax.random.key_data(key))).integers(2**31 - 1, size=len(tasks))
        obs = np.zeros((len(tasks), self.spec.obs_size), np.float32)
        envs: list[gymnasium.Env] = []
        rows = Rows(envs, tasks, obs, np.zeros(len(tasks), np.int32))
        # the environments go back to the pool when no state refers to them any more
        weakref.finalize(rows, give_back, self.pool, tasks, envs).atexit = False
        for i, task in enumerate(tasks):
            envs.append(self.pool.take(task))
            out = call(self, rows, i, envs[i].reset, seed=int(seeds[i]))
            if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], dict)):
                raise TypeError(f"{place(self, rows, i)}: reset() returned {short(out)}; expected (observation, info)")
            obs[i] = flat_obs(self, rows, i, out[0])
        require_finite(self, rows, "observation", obs, np.arange(len(tasks)))
        return GymnasiumState(rows, 0), obs.copy()

    def step(self, state: GymnasiumState, action: Array, active: Array) -> tuple[GymnasiumState, Step]:
        """One env step of the active rows, one after another. info["truncated"] [B]: the environment's own time limit.

        Inactive rows keep their observation and get reward 0. Raises RuntimeError for a state that was stepped before.
        """
        rows = state.rows
        if rows.generation != state.generation:
            raise RuntimeError(f"{self.spec.name}: this state was stepped before and cannot be again; use the newest")
        active = np.asarray(active, bool)
        ids = np.flatnonzero(active)
        action = np.asarray(action)
        reward = np.zeros(len(active), np.float32)
        terminal, truncated = np.zeros((2, len(active)), bool)
        if not self.spec.discrete:
            require_finite(self, rows, "action", action, ids)
        for i in ids:
            out = call(self, rows, i, rows.envs[i].step, native_action(rows.envs[i].action_space, action[i]))
            if not (isinstance(out, tuple) and len(out) == 5 and np.size(out[1]) == 1):
                expected = "expected (observation, reward, terminated, truncated, info)"
                raise TypeError(f"{place(self, rows, i)}: step() returned {short(out)}; {expected}")
            rows.obs[i] = flat_obs(self, rows, i, out[0])
            reward[i], terminal[i], truncated[i] = np.asarray(out[1]).item(), bool(out[2]), bool(out[3])
        require_finite(self, rows, "observation", rows.obs, ids)
        require_finite(self, rows, "reward", reward[:, None], ids)
        rows.steps[ids] += 1
        rows.generation += 1
        info = {"truncated": truncated & ~terminal}
        return GymnasiumState(rows, rows.generation), Step(rows.obs.copy(), reward, reward.copy(), terminal, info)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> None:
        """None: nothing is known of a user's environment."""
        return None


def give_back(pool: Pool, tasks: np.ndarray, envs: list) -> None:
    for task, env in zip(tasks, envs, strict=False):  # fewer environments than tasks where a reset failed
        pool.give(task, env)


def flat_obs(env: GymnasiumFamily, rows: Rows, i: int, obs: Any) -> np.ndarray:
    """[obs_size]; raises ValueError where the observation does not fit its space."""
    space = rows.envs[i].observation_space
    try:
        flat = np.asarray(obs if isinstance(space, spaces.Box) else spaces.flatten(space, obs), np.float32)
    except Exception as error:
        raise ValueError(f"{place(env, rows, i)}: observation {short(obs)} does not fit the space {space}") from error
    if np.size(flat) != env.spec.obs_size or (isinstance(space, spaces.Box) and flat.shape != space.shape):
        raise ValueError(
            f"{place(env, rows, i)}: observation has shape {np.shape(obs)}, its space says {space.shape}; fix the "
            "environment's observation_space"
        )
    return flat.ravel()


def place(env: GymnasiumFamily, rows: Rows, i: int) -> str:
    return f"{env.spec.name}: task {plain(rows.tasks[i])!r}, env step {int(rows.steps[i])}"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 120 else text[:117] + "..."


def call(env: GymnasiumFamily, rows: Rows, i: int, method: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call into the user's environment; what it raises gets a note with the task and the step."""
    try:
        return method(*args, **kwargs)
    except Exception as error:
        error.add_note(f"raised by the environment of {place(env, rows, i)}")
        raise


def require_finite(env: GymnasiumFamily, rows: Rows, what: str, value: np.ndarray, ids: np.ndarray) -> None:
    """Raise FloatingPointError, naming task and step, where value [B, d] is NaN or infinite in one of the rows."""
    good = np.isfinite(value[ids]).all(axis=-1)
    if not good.all():
        i = int(ids[np.argmin(good)])
        raise FloatingPointError(
            f"{place(env, rows, i)}: {what} is {short(value[i].tolist())}; expected finite numbers; look "
            "for a division by zero or an unstable simulation in the environment"
        )
