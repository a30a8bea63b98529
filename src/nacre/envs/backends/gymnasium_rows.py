"""Rows of gymnasium environments, stepped one after another: what each call may return, and errors that name task and step."""

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from nacre.envs.backends.gymnasium_spaces import native_action, same_space


def plain(task: np.ndarray) -> Any:
    """What `make` gets: a Python number, or an array [k] in double precision, so that users' arithmetic is too."""
    return task.item() if np.ndim(task) == 0 else np.array(task, np.float64 if task.dtype.kind == "f" else np.int64)


def label(name: str, task: np.ndarray, step: int) -> str:
    """Where something happened, for errors."""
    return f"{name}: task {plain(task)!r}, env step {step}"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 120 else text[:117] + "..."


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
        made = f"{self.name}: make({plain(task)!r})"
        try:
            env = self.make(plain(task))
        except Exception as error:
            error.add_note(f"raised by {made}")
            raise
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"{made} returned {env!r}; expected a gymnasium.Env (not one of the old gym package)")
        if id(env) in self.open:
            raise ValueError(f"{made} returned an environment that is in use; build a new one at each call")
        refuse_autoreset(made, env)
        found = (env.observation_space, env.action_space)
        if self.spaces is None:
            self.spaces = found
        for what, space, expected in zip(("observation", "action"), found, self.spaces, strict=True):
            if not same_space(space, expected, bounds=what == "action"):
                raise ValueError(
                    f"{made} has the {what} space {space}, other tasks have {expected}; spaces must not change with "
                    "the task: pad or wrap the environment"
                )
        self.open.add(id(env))
        return env


def refuse_autoreset(made: str, env: gymnasium.Env) -> None:
    """Raise ValueError for a wrapper that begins episodes by itself: a trial's memory must know where an episode ends."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.Autoreset):
            raise ValueError(
                f"{made} returned an environment inside gymnasium.wrappers.Autoreset, which would begin episodes by "
                "itself; leave that wrapper out"
            )
        env = env.env


class Outcome(NamedTuple):
    """One env step of some rows, in their order."""

    obs: np.ndarray  # [n, obs_size] float32
    reward: np.ndarray  # [n] float32
    terminal: np.ndarray  # [n] bool
    truncated: np.ndarray  # [n] bool
    info: np.ndarray  # [n, names] float32


@dataclass(eq=False)
class Opened:
    """One environment per row."""

    envs: list
    tasks: np.ndarray


class Local:
    """Steps rows in this process, one after another. info: names of numbers in the environment's info to hand on."""

    def __init__(self, name: str, make: Callable, max_idle: int, info: tuple[str, ...] = ()):
        self.name, self.pool, self.info = name, Pool(name, make, max_idle), info

    def open(self, tasks: np.ndarray) -> Opened:
        """Environments for rows of these tasks; to be closed when nobody refers to the rows any more."""
        opened = Opened([], tasks)
        try:
            for task in tasks:
                opened.envs.append(self.pool.take(task))
        except BaseException:
            self.close(opened)
            raise
        return opened

    def close(self, opened: Opened) -> None:
        """The environments go back to the pool."""
        for task, env in zip(opened.tasks, opened.envs, strict=False):  # fewer environments where opening failed
            self.pool.give(task, env)

    def begin(self, opened: Opened, ids: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Reset the rows `ids`, each with its seed -> obs [n, obs_size]."""
        obs = []
        for i, seed in zip(ids, seeds, strict=True):
            where = label(self.name, opened.tasks[i], 0)
            out = call(where, opened.envs[i].reset, seed=int(seed))
            if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], dict)):
                raise TypeError(f"{where}: reset() returned {short(out)}; expected (observation, info)")
            obs.append(flat_obs(where, opened.envs[i].observation_space, out[0]))
        return np.array(obs, np.float32)

    def step(self, opened: Opened, ids: np.ndarray, actions: np.ndarray, steps: np.ndarray) -> Outcome:
        """One env step of the rows `ids` with an action each; steps: env steps they have taken, for errors."""
        obs, reward, info = [], np.zeros(len(ids), np.float32), np.zeros((len(ids), len(self.info)), np.float32)
        terminal, truncated = np.zeros((2, len(ids)), bool)
        for k, i in enumerate(ids):
            env, where = opened.envs[i], label(self.name, opened.tasks[i], int(steps[k]))
            out = call(where, env.step, native_action(env.action_space, actions[k]))
            if not (isinstance(out, tuple) and len(out) == 5 and np.size(out[1]) == 1):
                expected = "expected (observation, reward, terminated, truncated, info)"
                raise TypeError(f"{where}: step() returned {short(out)}; {expected}")
            obs.append(flat_obs(where, env.observation_space, out[0]))
            reward[k], terminal[k], truncated[k] = np.asarray(out[1]).item(), bool(out[2]), bool(out[3])
            info[k] = [number(where, name, out[4]) for name in self.info]
        return Outcome(np.array(obs, np.float32), reward, terminal, truncated, info)


def number(where: str, name: str, info: dict) -> float:
    """info[name]; raises ValueError where it is not there, or not a number."""
    try:
        return float(np.asarray(info[name]).item())
    except (KeyError, TypeError, ValueError) as error:
        known = ", ".join(map(str, info)) or "nothing"
        raise ValueError(f"{where}: info has no number {name!r}, which the family asks for; it has {known}") from error


def flat_obs(where: str, space: spaces.Space, obs: Any) -> np.ndarray:
    """[obs_size]; raises ValueError where the observation does not fit its space."""
    try:
        flat = np.asarray(obs if isinstance(space, spaces.Box) else spaces.flatten(space, obs), np.float32)
    except Exception as error:
        raise ValueError(f"{where}: observation {short(obs)} does not fit the space {space}") from error
    if np.size(flat) != spaces.flatdim(space) or (isinstance(space, spaces.Box) and flat.shape != space.shape):
        raise ValueError(
            f"{where}: observation has shape {np.shape(obs)}, its space says {space.shape}; fix the environment's "
            "observation_space"
        )
    return flat.ravel()


def call(where: str, method: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call into the user's environment; what it raises gets a note with the task and the step."""
    try:
        return method(*args, **kwargs)
    except Exception as error:
        error.add_note(f"raised by the environment of {where}")
        raise
