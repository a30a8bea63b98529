"""A user's own task family, made of a function that builds a gymnasium environment for a task and a task sampler.

    import gymnasium, nacre

    def make(task):                                   # one task: a number, or an array [k]
        env = gymnasium.make("Pendulum-v1")
        env.unwrapped.m = task
        return env

    def sample_tasks(rng, n):                         # NumPy generator, count -> [n] or [n, k]
        return rng.uniform(0.5, 2.0, n)

    pendulum = nacre.family(make, sample_tasks)       # use it as `path/file.py:pendulum`

Rows are stepped one after another in this process, or by several worker processes, each by an environment of its own, built
when it is first needed and kept for the next episode of the same task.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

from nacre.envs.backends.gymnasium_rows import Local, label, short
from nacre.envs.backends.gymnasium_spaces import describe
from nacre.envs.backends.gymnasium_workers import Workers
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
    processes: int = 0,
    info: tuple[str, ...] = (),
) -> "GymnasiumFamily":
    """A task family from `make(task) -> gymnasium.Env` and `sample_tasks(rng, n) -> array [n] or [n, k]`.

    train, test: how many tasks to draw (once, from a fixed seed), or the tasks themselves. horizon: env steps per
    episode; None takes the environment's own time limit. allow_overlap: test tasks may equal training tasks (families
    of a few tasks). max_idle: environments kept open for later episodes. processes: 0 steps all rows in this process; a
    number, for environments slower than about a tenth of a millisecond per step, in so many worker processes (results are
    the same). info: names of numbers in the environment's info that go with each step, for pictures; `success`, where there
    is one, is reported by evaluations. `make` gets a Python number where tasks are
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
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 0:
        raise ValueError(f"{name}: processes must be 0 or a positive whole number, got {processes!r}")
    if isinstance(max_idle, bool) or not isinstance(max_idle, int) or max_idle < 0:
        raise ValueError(f"{name}: max_idle must be 0 or a positive whole number, got {max_idle!r}")
    info = (info,) if isinstance(info, str) else tuple(info)
    stepper = local = Local(name, make, max_idle, info)
    first = local.open(train_tasks[:1])
    spec = describe(name, first.envs[0], horizon)
    local.pool.limit = spec.horizon if horizon is None else None
    local.close(first)
    if processes:
        stepper = Workers(processes, name, make, max_idle, info, local.pool.spaces, local.pool.limit)
        local.shutdown()
    shared = len(overlap) > 0
    made = GymnasiumFamily(spec, train_tasks, test_tasks, sample_tasks, stepper, info, train_is_test=shared)
    weakref.finalize(
        made, stepper.shutdown
    )  # what environments hold is given back, at the end of the process at the latest
    return made


def single(env_id: str, horizon: int | None = None, processes: int = 0) -> "GymnasiumFamily":
    """One registered gymnasium environment as a family with a single task (0), for training and test."""

    def make(task: Any) -> gymnasium.Env:
        try:
            return gymnasium.make(env_id, disable_env_checker=True)
        except (gymnasium.error.Error, ImportError) as error:
            raise ValueError(f"gymnasium/{env_id}: cannot be made: {error}") from error

    def sample_tasks(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros(n, np.float32)

    name = f"gymnasium/{env_id}"
    options = {"horizon": horizon, "name": name, "allow_overlap": True, "processes": processes}
    return family(make, sample_tasks, train=1, test=1, **options)


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
    with np.errstate(over="ignore"):
        cast = tasks.astype(np.float32 if tasks.dtype.kind == "f" else np.int32)
    whole = tasks == np.floor(tasks)  # ids, seeds, levels: another number would be another task
    if not np.isfinite(cast).all() or (cast[whole] != tasks[whole]).any():
        most = (
            "whole numbers up to 16,777,216 (float32)"
            if tasks.dtype.kind == "f"
            else "from -2147483648 to 2147483647 (int32)"
        )
        raise ValueError(
            f"{name}: {what} gives tasks that are not kept exactly; numbers must be {most}, got {tasks!r}"[:400]
        )
    return cast


def overlapping(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The test tasks that equal a training task."""
    kind = np.result_type(train, test)
    train, given, test = train.astype(kind), test, test.astype(kind)
    known = {task.tobytes() for task in train}
    return given[[task.tobytes() in known for task in test]]


@dataclass(eq=False)
class Rows:
    """The environments of one reset; shared by its states, of which only the newest may be stepped."""

    opened: Any  # what the stepper calls them
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
    stepper: Any = field(repr=False)  # gymnasium_rows.Local or gymnasium_workers.Workers
    info: tuple[str, ...] = ()  # names of the numbers in Step.info, besides "truncated"
    train_is_test: bool = False  # the family has test tasks that are training tasks, by its maker's word

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return draw(self.spec.name, self.sampler, np.random.default_rng(np.asarray(jax.random.key_data(key))), n)

    def reset(self, key: Key, tasks: Array) -> tuple[GymnasiumState, np.ndarray]:
        """Every row's environment is seeded from the key and its row. -> state, obs [B, obs_size] float32."""
        tasks = np.asarray(tasks, self.train_tasks.dtype)
        if tasks.ndim != self.train_tasks.ndim or tasks.shape[1:] != self.train_tasks.shape[1:]:
            expected = ("B", *self.train_tasks.shape[1:])
            raise ValueError(f"{self.spec.name}: tasks must have the shape {expected}, got {tasks.shape}")
        n = len(tasks)
        opened = self.stepper.open(tasks)
        rows = Rows(opened, tasks, np.zeros((n, self.spec.obs_size), np.float32), np.zeros(n, np.int32))
        # the environments are free again when no state refers to them any more
        weakref.finalize(rows, self.stepper.close, opened).atexit = False
        return self._begin(rows, key, np.arange(n))

    def restart(self, key: Key, state: GymnasiumState, over: Array) -> tuple[GymnasiumState, np.ndarray]:
        """A new episode, of the same task, in the rows where `over` [B] is True, as `reset` would begin it with this key;
        the others go on. -> state, obs [B, obs_size]."""
        self._require_newest(state)
        state.rows.generation += 1
        return self._begin(state.rows, key, np.flatnonzero(over))

    def _begin(self, rows: Rows, key: Key, ids: np.ndarray) -> tuple[GymnasiumState, np.ndarray]:
        """Reset the environments of the rows `ids`."""
        n = len(rows.tasks)
        seeds = np.random.default_rng(np.asarray(jax.random.key_data(key))).integers(2**31 - 1, size=n)
        rows.steps[ids] = 0
        if len(ids):
            rows.obs[ids] = self.stepper.begin(rows.opened, ids, seeds[ids])
        require_finite(self, rows, "observation", rows.obs, ids)
        return GymnasiumState(rows, rows.generation), rows.obs.copy()

    def _require_newest(self, state: GymnasiumState) -> None:
        if state.rows.generation != state.generation:
            raise RuntimeError(f"{self.spec.name}: this state was stepped before and cannot be again; use the newest")

    def step(self, state: GymnasiumState, action: Array, active: Array) -> tuple[GymnasiumState, Step]:
        """One env step of the active rows. info["truncated"] [B]: the environment's own time limit; the names of `info`.

        Inactive rows keep their observation and get reward 0. Raises RuntimeError for a state that was stepped before.
        """
        self._require_newest(state)
        rows = state.rows
        active = np.asarray(active, bool)
        ids = np.flatnonzero(active)
        action = np.asarray(action)
        reward = np.zeros(len(active), np.float32)
        terminal, truncated = np.zeros((2, len(active)), bool)
        measured = np.zeros((len(active), len(self.info)), np.float32)
        if not self.spec.discrete:
            require_finite(self, rows, "action", action, ids)
        if len(ids):
            out = self.stepper.step(rows.opened, ids, action[ids], rows.steps[ids])
            rows.obs[ids], reward[ids], terminal[ids], truncated[ids], measured[ids] = out
        require_finite(self, rows, "observation", rows.obs, ids)
        require_finite(self, rows, "reward", reward[:, None], ids)
        rows.steps[ids] += 1
        rows.generation += 1
        info = {"truncated": truncated & ~terminal, **dict(zip(self.info, measured.T.copy(), strict=True))}
        return GymnasiumState(rows, rows.generation), Step(rows.obs.copy(), reward, reward.copy(), terminal, info)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> None:
        """None: nothing is known of a user's environment."""
        return None


def require_finite(env: GymnasiumFamily, rows: Rows, what: str, value: np.ndarray, ids: np.ndarray) -> None:
    """Raise FloatingPointError, naming task and step, where value [B, d] is NaN or infinite in one of the rows."""
    good = np.isfinite(value[ids]).all(axis=-1)
    if not good.all():
        i = int(ids[np.argmin(good)])
        raise FloatingPointError(
            f"{label(env.spec.name, rows.tasks[i], int(rows.steps[i]))}: {what} is {short(value[i].tolist())}; expected "
            "finite numbers; look for a division by zero or an unstable simulation in the environment"
        )
