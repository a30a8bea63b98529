"""What users hold: a trained agent, and the policy with a memory that it is in one task it has never seen.

    agent = nacre.load("runs/...")
    policy = agent.start()                       # knows nothing of its task
    for each episode:
        obs = ...
        until the episode is over:
            action = policy.act(obs)             # in the environment's own units
            ...                                  # do it, look at what came of it
            policy.observe(reward, obs, terminated, truncated)
        policy.end_episode()                     # adapts to all that was seen

`agent.adapt(env)` is this loop on a gymnasium environment.
"""

import contextlib
import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nacre import _checkpoints, _platform, _policy_file, rollout
from nacre._errors import check_count, check_seed
from nacre.rollout import to_env_action
from nacre.runs import Run, open_run
from nacre.types import (
    Algorithm,
    Array,
    Environment,
    EnvSpec,
    Key,
    Params,
    Trajectory,
    Transition,
    flat_rows,
    trial_episodes,
)

ROWS = (1, 1)  # one task, one episode at a time


@dataclass(frozen=True, eq=False)
class Agent:
    """A trained agent: what acts (algorithm, params), the family it was trained on, and where it comes from."""

    algorithm: Algorithm
    params: Params
    env: Environment
    algorithm_name: str
    env_name: str
    preset: str | None = None
    seed: int = 0  # of its training
    env_steps: int = 0  # of its training
    path: Path | None = None  # of its run

    @property
    def spec(self) -> EnvSpec:
        return self.algorithm.spec

    def start(self, seed: int = 0, explore: bool = False) -> "Policy":
        """A policy that knows nothing of its task. seed: of all it draws; explore: act stochastically."""
        return Policy(self.algorithm, self.params, jax.random.key(check_seed(seed)), explore)

    def restore(self, path: str | Path) -> "Policy":
        """The policy that `Policy.save` wrote to `path`, at the beginning of its next episode: it goes on as the saved one
        would have. Raises UserError (a ValueError) for a file that is missing, damaged, or another agent's."""
        return Policy._read(path, self.algorithm, self.params)

    def adapt(self, env: Any, episodes: int | None = None, seed: int = 0, explore: bool = False) -> "Adapted":
        """Act for `episodes` (None: a trial of the family) in a gymnasium environment, adapting after each.

        Its spaces must be those of the training family, after flattening. Episodes end where the environment says so
        and at the family's horizon at the latest. seed: of the first reset and of the policy. Raises ValueError for
        other spaces, TypeError for what is not a gymnasium environment, FloatingPointError for NaN or infinity.
        """
        from nacre.envs.backends import gymnasium_spaces as spaces  # here: an import of gymnasium takes a moment

        episodes = trial_episodes(self.algorithm) if episodes is None else check_count("episodes", episodes)
        spaces.check_spaces(self.spec, env)
        policy = self.start(seed, explore)
        returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
        for k in range(episodes):
            obs, _ = spaces.answer(env.reset(seed=seed) if k == 0 else env.reset(), "reset", 2, "(observation, info)")
            obs = spaces.flattened(env.observation_space, obs).ravel()
            while not policy.over:
                action = np.asarray(policy.act(obs))
                out = env.step(spaces.native_action(env.action_space, action))
                obs, reward, terminated, truncated, _ = spaces.answer(out, "step", 5, spaces.STEP)
                obs = spaces.flattened(env.observation_space, obs).ravel()
                policy.observe(reward, obs, terminated, truncated)
                returns[k] += reward
                lengths[k] += 1
            policy.end_episode()
        return Adapted(returns, lengths, policy)


class Adapted(NamedTuple):
    """What `Agent.adapt` brings back."""

    returns: np.ndarray  # [K] undiscounted, per episode
    lengths: np.ndarray  # [K] env steps
    policy: "Policy"  # as it is after the last episode, ready for the next one


def load(run: str | Path, checkpoint: int | None = None, seed: int | None = None, family: Any = None) -> Agent:
    """The agent of a run directory (or of `seed-<n>` in it).

    checkpoint: env steps at which its parameters were kept; None: the last. seed: of a run of several; None: the first.
    family: the Environment, where the run was trained on a Python object. Raises UserError (a ValueError) for what is
    not there or is damaged.
    """
    _platform.prepare()
    return agent_of(open_run(run, family), checkpoint, seed)


def agent_of(run: Run, checkpoint: int | None = None, seed: int | None = None) -> Agent:
    """As `load`, from a run that is open."""
    run.warn_of_changes()
    seed = run.seeds[0] if seed is None else seed
    at = run.newest(seed) if checkpoint is None else checkpoint  # once: a run that trains may write another
    params = run.params(at, seed)
    return Agent(run.algorithm, params, run.env, run.algorithm_name, run.env_name, run.preset, seed, int(at), run.path)


# ------------------------------------------------------------------------------------------------ the policy


class Policy:
    """An agent in one task: its memory, and how far the episode is. One environment, one call per env step.

    It draws and computes what `nacre.rollout.trial` does with the same key on one task, so that what was evaluated is
    what is deployed. Calls out of order raise RuntimeError, wrong shapes ValueError, NaN or infinity
    FloatingPointError; none of these changes the policy: correct the call and go on.
    """

    def __init__(self, algorithm: Algorithm, params: Params, key: Key, explore: bool = False):
        begin_key, self._key = jax.random.split(key)
        self._algorithm, self._spec, self._params, self._explore = algorithm, algorithm.spec, params, bool(explore)
        self._leaves, params_def = jax.tree.flatten(params)
        self._memory, memory_def = jax.tree.flatten(_begin(algorithm, params, begin_key))
        self._programs = programs(algorithm, params_def, memory_def, self._explore)
        self._memory_def = memory_def
        self.episode = 0  # episodes that have ended
        self._fresh()

    def _fresh(self) -> None:
        """Before the first env step of an episode."""
        _, env_key, self._adapt_key = jax.random.split(jax.random.fold_in(self._key, self.episode), 3)
        _, self._step_key = jax.random.split(env_key)
        self.steps = 0  # env steps of this episode
        self.over = False  # the episode has ended; `end_episode` comes next
        self._acted: tuple | None = None  # obs, action, extras that wait for `observe`
        self._record: list[tuple] = []

    def act(self, obs: Array) -> np.ndarray | int:
        """obs [obs_size] -> action in the environment's units: float32 [size], or an int for discrete actions."""
        if self.over:
            raise RuntimeError(
                f"the episode is over after {self.steps} env steps (terminated, truncated, or at the horizon of "
                f"{self._spec.horizon}): call end_episode(), reset the environment, then act"
            )
        if self._acted is not None:
            raise RuntimeError("act was called twice in a row: tell the outcome of the first action with observe()")
        obs = self._checked(obs, "obs")
        native, action, extras, self._memory = self._programs.act(
            self._leaves, self._memory, obs, self._step_key, self.steps
        )
        self._acted = (obs, action, extras)
        return int(native) if self._spec.discrete else np.array(native)

    def observe(self, reward: float, next_obs: Array, terminated: bool = False, truncated: bool = False) -> None:
        """The outcome of the last action. terminated: the task ended; truncated: time was up."""
        if self._acted is None:
            raise RuntimeError("observe was called without an action before it: call act(obs) first")
        next_obs = self._checked(next_obs, "next_obs")
        reward = self._checked_reward(reward)
        terminal = bool(terminated)
        over = terminal or bool(truncated) or self.steps + 1 == self._spec.horizon
        obs, action, extras = self._acted
        if getattr(self._algorithm, "observes", True):
            step = (obs, action, reward, next_obs, np.bool_(terminal), np.bool_(over and not terminal))
            self._memory = self._programs.observe(self._leaves, self._memory, step)
        self._record.append((obs, np.asarray(action), reward, next_obs, terminal, extras))
        self._acted, self.over = None, over
        self.steps += 1

    def end_episode(self) -> None:
        """Adapt to the episode; the next `act` begins another. Before the end it cuts the episode short."""
        if self._acted is not None:
            raise RuntimeError("the last action has no outcome yet: call observe() before end_episode()")
        if not self._record:
            raise RuntimeError("end_episode was called without a step in the episode: act and observe first")
        memory = jax.tree.unflatten(self._memory_def, self._memory)
        data = padded(self._record, self._spec.horizon)
        self._memory = jax.tree.leaves(rollout.adapt(self._algorithm, self._params, memory, data, self._adapt_key))
        self.episode += 1
        self._fresh()

    def copy(self) -> "Policy":
        """Another policy that has seen what this one has, and goes its own way from here; at the beginning of an episode."""
        self._between("copy")
        other = copy.copy(self)
        other._fresh()  # an empty record of its own
        return other

    def _between(self, method: str) -> None:
        if self._record or self._acted is not None:
            raise RuntimeError(
                f"{method} was called within an episode: call it before the first act or after end_episode()"
            )

    def warm_up(self) -> None:
        """Compile what `act`, `observe` and `end_episode` run, which takes seconds, before the first env step that matters. The
        policy stays as it is; at the beginning of an episode."""
        other, nothing = self.copy(), np.zeros(self._spec.obs_size, np.float32)
        other.act(nothing)
        other.observe(0.0, nothing, truncated=True)
        with contextlib.suppress(FloatingPointError):  # a step on nothing may explode, which is compiled by then
            other.end_episode()

    def save(self, path: str | Path) -> None:
        """Write what the policy knows of its task to one file, whole or not at all; `Agent.restore` reads it. At the beginning
        of an episode. Raises OSError where the file cannot be written."""
        self._between("save")
        tree = jax.tree.unflatten(self._memory_def, self._memory), self._key
        record = {**identity_of(self._algorithm, self._params), "episode": self.episode, "explore": self._explore}
        _policy_file.write(path, tree, record)

    @classmethod
    def _read(cls, path: str | Path, algorithm: Algorithm, params: Params) -> "Policy":
        arrays, record = _policy_file.read(path, identity_of(algorithm, params))
        policy = cls(algorithm, params, jax.random.key(0), record["explore"])
        like = jax.tree.unflatten(policy._memory_def, policy._memory), policy._key
        memory, policy._key = _checkpoints.from_host(arrays, like)
        policy._memory, policy.episode = jax.tree.leaves(memory), record["episode"]
        policy._fresh()
        return policy

    @property
    def beliefs(self) -> dict[str, np.ndarray]:
        """Named arrays of what the memory holds, as the algorithm tells them (PEARL: mean, variance, z)."""
        told = getattr(self._algorithm, "beliefs", lambda params, memory: {})
        found = told(self._params, jax.tree.unflatten(self._memory_def, self._memory))
        return {name: np.asarray(leaf)[0] for name, leaf in found.items()}

    def _checked(self, obs: Array, name: str) -> np.ndarray:
        try:
            found = np.array(obs, np.float32)  # a copy: environments may reuse theirs
        except (TypeError, ValueError):
            found = None
        if found is None or found.shape != (self._spec.obs_size,):
            got = f"a {type(obs).__name__}" if found is None else found.shape
            raise ValueError(
                f"{name} must be numbers of the shape ({self._spec.obs_size},), got {got}; flatten it as the family "
                "does, e.g. with gymnasium.spaces.flatten"
            )
        if not np.isfinite(found).all():
            raise FloatingPointError(f"{name} at {self._place()} is {found.tolist()}; expected finite numbers")
        return found

    def _checked_reward(self, reward: float) -> np.float32:
        try:
            found = np.float32(np.asarray(reward).item())
        except (TypeError, ValueError):
            raise ValueError(f"reward must be one number, got {reward!r}") from None
        if not np.isfinite(found):
            raise FloatingPointError(f"reward at {self._place()} is {found}; expected a finite number")
        return found

    def _place(self) -> str:
        return f"env step {self.steps} of episode {self.episode}"


def identity_of(algorithm: Algorithm, params: Params) -> dict[str, str]:
    """Of what must be the same where a saved policy goes on."""
    return {
        "algorithm": type(algorithm).__name__, "family": algorithm.spec.name, "parameters": _policy_file.fingerprint(params),
    }  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _begin(algorithm, params, key):
    return algorithm.begin(params, key, ROWS)


class Programs(NamedTuple):
    """What runs at every env step, compiled; takes and gives lists of leaves, which are cheaper to dispatch."""

    act: Any
    observe: Any


@functools.lru_cache(maxsize=64)
def programs(algorithm: Algorithm, params_def: Any, memory_def: Any, explore: bool) -> Programs:
    """The same for all policies of one algorithm object's settings."""

    @jax.jit
    def act(params, memory, obs, key, t):
        params, memory = jax.tree.unflatten(params_def, params), jax.tree.unflatten(memory_def, memory)
        act_key = jax.random.fold_in(key, t)
        action, extras, memory = algorithm.act(params, memory, obs[None, None], act_key, explore)
        native = to_env_action(algorithm.spec, flat_rows(action))[0]
        return native, action[0, 0], extras, jax.tree.leaves(memory)

    @jax.jit
    def observe(params, memory, step):
        params, memory = jax.tree.unflatten(params_def, params), jax.tree.unflatten(memory_def, memory)
        row = [jnp.asarray(leaf)[None, None] for leaf in step]
        return jax.tree.leaves(algorithm.observe(params, memory, Transition(*row, jnp.ones(ROWS, bool))))

    return Programs(act, observe)


def padded(record: list[tuple], horizon: int) -> Trajectory:
    """One episode, step by step -> Trajectory [1, 1, T], zero after its end."""

    def column(*leaves):
        stacked = np.stack([np.asarray(leaf) for leaf in leaves])
        return np.pad(stacked, [(0, horizon - len(stacked))] + [(0, 0)] * (stacked.ndim - 1))[None, None]

    obs, action, reward, next_obs, terminal = (column(*leaves) for leaves in list(zip(*record, strict=True))[:5])
    extras = jax.tree.map(lambda *x: column(*(leaf[0, 0] for leaf in x)), *(step[5] for step in record))
    valid = (np.arange(horizon) < len(record))[None, None]
    return Trajectory(obs, action, reward, reward, next_obs, terminal, valid, extras)
