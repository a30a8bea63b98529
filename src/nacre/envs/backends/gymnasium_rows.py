"""Rows of gymnasium environments, stepped one after another: what each call may return, and errors that name task and step."""

import itertools
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from nacre._errors import told
from nacre.envs.backends.gymnasium_spaces import flattened, native_action, same_space, time_limit


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

    def __init__(self, name: str, make: Callable, max_idle: int, spaces: tuple | None, limit: int | None):
        self.name, self.make, self.max_idle, self.limit = name, make, max_idle, limit
        self.idle: OrderedDict[int, tuple[bytes, gymnasium.Env]] = OrderedDict()  # by order of return
        self.open: set[int] = set()  # ids of all environments, idle or held by a row
        self.spaces = spaces  # of observations and actions; None: those of the first environment
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
        self.trim()

    def trim(self) -> None:
        while len(self.idle) > self.max_idle:
            _, (_, oldest) = self.idle.popitem(last=False)
            self.open.discard(id(oldest))
            try:
                oldest.close()
            except Exception as error:
                warnings.warn(f"{self.name}: close() of an environment raised {told(error)}", stacklevel=2)

    def shutdown(self) -> None:
        """Close what is idle, and from now on whatever comes back."""
        self.max_idle = 0
        self.trim()

    def _build(self, task: np.ndarray) -> gymnasium.Env:
        made = f"{self.name}: make({plain(task)!r})"
        env = call(made, self.make, plain(task), note=f"raised by {made}")
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"{made} returned {env!r}; expected a gymnasium.Env (not one of the old gym package)")
        if id(env) in self.open:
            raise ValueError(f"{made} returned an environment that is in use; build a new one at each call")
        refuse_autoreset(made, env)
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), gymnasium.Space):
                raise TypeError(
                    f"{made} returned an environment without {name}: set it, a gymnasium.spaces object, in __init__"
                )
        found = (env.observation_space, env.action_space)
        if self.spaces is None:
            self.spaces = found
        for what, space, expected in zip(("observation", "action"), found, self.spaces, strict=True):
            if not same_space(space, expected, bounds=what == "action"):
                raise ValueError(
                    f"{made} has the {what} space {space}, other tasks have {expected}; spaces must not change with "
                    "the task: pad or wrap the environment"
                )
        limit = time_limit(env)
        if self.limit is not None and limit is not None and limit != self.limit:
            raise ValueError(
                f"{made} has a time limit of {limit} env steps, other tasks have {self.limit}; pass horizon="
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
    """Steps rows in this process, one after another. info: names of numbers in the environment's info to hand on. spaces, limit:
    what environments must have; None: the first one's spaces, any time limit."""

    def __init__(
        self, name: str, make: Callable, max_idle: int, info: tuple[str, ...] = (), spaces: tuple | None = None,
        limit: int | None = None,
    ):  # fmt: skip
        self.name, self.pool, self.info = name, Pool(name, make, max_idle, spaces, limit), info

    def shutdown(self) -> None:
        self.pool.shutdown()

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
            bad = diverged(env)
            out = call(where, env.step, native_action(env.action_space, actions[k]))
            if diverged(env) > bad:
                raise FloatingPointError(
                    f"{where}: the simulation diverged, and MuJoCo began it anew; smaller time steps or actions help"
                )
            if not (isinstance(out, tuple) and len(out) == 5):
                expected = "expected (observation, reward, terminated, truncated, info)"
                raise TypeError(f"{where}: step() returned {short(out)}; {expected}")
            obs.append(flat_obs(where, env.observation_space, out[0]))
            reward[k] = scalar(where, "reward", out[1], "fiub")
            terminal[k], truncated[k] = (
                scalar(where, what, value, "bui") for what, value in (("terminated", out[2]), ("truncated", out[3]))
            )
            info[k] = [number(where, name, out[4]) for name in self.info]
        return Outcome(np.array(obs, np.float32), reward, terminal, truncated, info)


def scalar(where: str, what: str, value: Any, kinds: str) -> Any:
    """One number or flag of what step() returned; raises TypeError where it is none."""
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in kinds:
        raise TypeError(
            f"{where}: step() returned {what} {short(value)}; expected one {'number' if 'f' in kinds else 'bool'}"
        )
    return found.item()


def diverged(env: gymnasium.Env) -> int:
    """How often MuJoCo found the state of this simulation impossible since its reset, and silently began anew; 0 for others."""
    mujoco = sys.modules.get("mujoco")
    data = getattr(env.unwrapped, "data", None)
    if mujoco is None or not isinstance(data, mujoco.MjData):
        return 0
    kinds = mujoco.mjtWarning
    return sum(data.warning[kind].number for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC))


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
        if not inside(space, obs):
            raise ValueError("outside")
        flat = flattened(space, obs)
    except Exception as error:
        raise ValueError(f"{where}: observation {short(obs)} does not fit the space {space}") from error
    if np.size(flat) != spaces.flatdim(space) or (isinstance(space, spaces.Box) and flat.shape != space.shape):
        raise ValueError(
            f"{where}: observation has shape {np.shape(obs)}, its space says {space.shape}; fix the environment's "
            "observation_space"
        )
    return flat.ravel()


def inside(space: spaces.Space, obs: Any) -> bool:
    """Whether the discrete parts of an observation lie in their spaces: one-hot vectors have no place for others."""
    if isinstance(space, spaces.Dict):
        return all(inside(part, obs[name]) for name, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(inside(part, value) for part, value in zip(space.spaces, obs, strict=True))
    if isinstance(space, spaces.Box):
        return True
    low = getattr(space, "start", 0)
    size = (
        2
        if isinstance(space, spaces.MultiBinary)
        else space.nvec
        if isinstance(space, spaces.MultiDiscrete)
        else space.n
    )
    place = np.asarray(obs) - low
    return bool(np.all((place >= 0) & (place < size)))


def call(where: str, method: Callable, *args: Any, note: str = "", **kwargs: Any) -> Any:
    """Call into the user's environment; what it raises gets a note with the task and the step."""
    try:
        return method(*args, **kwargs)
    except SystemExit as error:
        raise RuntimeError(f"{where}: the environment ended the process (sys.exit({error.code!r}))") from error
    except Exception as error:
        error.add_note(note or f"raised by the environment of {where}")
        raise
