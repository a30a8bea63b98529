"""The vocabulary: spaces, steps, trajectories and the two protocols. Imports nothing of ours.

Letters of axes, used in every shape comment:

  N tasks (rows of a batch that share a memory)   E episodes in parallel per task   T env steps of an episode
  B = N * E flat environment rows                 K episodes of a trial, one after another
  S seeds                                         d feature size
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

Array = Any  # jax.Array or numpy.ndarray: environments on the host speak NumPy, the others JAX
Key = jax.Array  # a typed key of jax.random.key
Memory = Any  # a pytree with leading axis N
Params = Any
State = Any
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Box:
    """Continuous actions between finite bounds, one pair per dimension, in the environment's units."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.low)


@dataclass(frozen=True)
class Discrete:
    """Actions 0 .. n-1."""

    n: int

    @property
    def size(self) -> int:
        """Length of the one-hot vector that networks see."""
        return self.n


@dataclass(frozen=True)
class EnvSpec:
    """What an algorithm may know of a task family before it sees a task."""

    name: str
    obs_size: int  # observations are flat float32 vectors
    action: Box | Discrete
    horizon: int  # env steps after which an episode is truncated
    jittable: bool  # True: reset and step are pure JAX; False: they run on the host with NumPy
    can_terminate: bool = False  # False: every episode lasts exactly `horizon` steps
    dt: float | None = None  # seconds per env step, where there is a physical clock
    trial_episodes: int = 3  # K: episodes of a trial in the family's published protocol
    exploration_episodes: int = 2  # of these, how many before the reported adaptation
    image_shape: tuple[int, ...] = ()  # (H, W, C) of which an observation is the flattened image; (): it is a vector
    obs_names: tuple[str, ...] = ()  # with units, for docs and pictures
    states: tuple[tuple[float, ...], ...] = ()  # all observations there are, where they are few
    task_names: tuple[str, ...] = ()  # name of each task parameter, for pictures and JSON
    reward_note: str = ""  # one line shown by `nacre list`

    @property
    def discrete(self) -> bool:
        return isinstance(self.action, Discrete)


class Step(NamedTuple):
    """What one env step returns; every array leads with the row axis B."""

    obs: Array  # [B, obs_size] after the step
    reward: Array  # [B] what the agent sees and what is reported
    train_reward: Array  # [B] what learners may use instead (= reward unless the family says otherwise)
    terminal: Array  # [B] bool: the MDP ended (time limits are not terminals)
    info: dict[str, Array] = {}  # noqa: RUF012  [B] each; measurements for pictures and metrics


class Transition(NamedTuple):
    """One env step as the agent saw it; leading axes [N, E]."""

    obs: Array
    action: Array  # in the agent's units: [-1, 1] per dimension, or an integer
    reward: Array
    next_obs: Array
    terminal: Array
    truncated: Array
    valid: Array  # False: this row was over already, `observe` must leave its memory as it is


class Trajectory(NamedTuple):
    """Episodes, one per row, padded to the horizon; leading axes [N, E, T].

    `valid` is False after the episode ended; everything else is zero there.
    """

    obs: Array  # [N, E, T, obs_size] float32
    action: Array  # [N, E, T, action size] float32 in [-1, 1], or [N, E, T] int32
    reward: Array  # [N, E, T]
    train_reward: Array  # [N, E, T]
    next_obs: Array  # [N, E, T, obs_size]
    terminal: Array  # [N, E, T] bool
    valid: Array  # [N, E, T] bool
    extras: Any = ()  # whatever `act` returned beside the action
    info: dict[str, Array] = {}  # noqa: RUF012

    @property
    def episode_return(self) -> Array:
        """Undiscounted sum of `reward`, [N, E]."""
        return (self.reward * self.valid).sum(axis=-1)


@runtime_checkable
class Environment(Protocol):
    """A task family and who simulates it. Batched: B rows at once, each with a task of its own; values in, values out.

    `reset` and `step` never start a new episode by themselves; time limits, passage between episodes and the masking of
    rows that are over belong to `nacre.rollout`. Host environments (spec.jittable False) take and return NumPy arrays;
    their state may be reused in place by `step`, so a state that was stepped is dead.

    Optional: `restart(key, state, over)` -> (state, obs [B, obs_size]), a new episode in the rows where `over` [B] is True,
    with which collection for learning goes on where episodes end early. `regret(tasks, episodes)` -> [..., N, E, T], of each
    action in a Trajectory [..., N, E, T]: the return that the best policy for the task expects from there, minus what it
    expects after this action, as a mean over the rewards' and the next states' noise. `rows_at_once`: most rows of a meta-test that
    are stepped together, where each takes much memory.
    """

    spec: EnvSpec
    train_tasks: Any  # pytree of arrays with a leading task axis, from the family's own fixed seed
    test_tasks: Any

    def sample_tasks(self, key: Key, n: int) -> Any:
        """n fresh tasks from the family's distribution."""

    def reset(self, key: Key, tasks: Any) -> tuple[Any, Array]:
        """Start an episode in each row -> (state, obs [B, obs_size]). tasks: leaves lead with B."""

    def step(self, state: Any, action: Array, active: Array) -> tuple[Any, Step]:
        """One env step. action: [B, size] in the environment's units or [B] int; active: [B] bool, rows that are False
        need not be simulated (what is returned for them is ignored)."""

    def oracle(self, tasks: Any, obs: Array, t: Array) -> Array | None:
        """Action (environment's units) of a policy that knows the task, at env step t; None where none is known."""


@runtime_checkable
class Algorithm(Protocol):
    """A frozen dataclass that holds its Config and the EnvSpec; pure functions over pytrees.

    A State has the counters `env_steps` and `updates`, int32 scalars. Metrics are finite scalars by name. Optional: `observes
    = False` (observe does nothing and need not be called), `collects(phase)` (whether a slice adds env steps; evaluations and
    the end of a run come before such a one), `grow(state, env, env_steps)` (room for a longer run), `learnt` (names of the
    State's fields that another run may start from), `minimum_env_steps(env)` (what the first collection takes),
    `test_episodes` and `test_exploration` (of a meta-test's trial, and of these before it has adapted, where the algorithm
    says so and not the family), `round_episodes` (so many episodes of a trial, after which it adapts, may be acted at once),
    `begin_unadapted(params, key, rows)` (a memory for the reference without adaptation, where that is not `begin`'s),
    `test_acts` (how it acts at meta-test, in words), `trouble(metrics)` (a sentence on what diverged, from metrics that are
    not finite, or ""), `check_family(env)` (raises ValueError where it lacks what the settings need), `beliefs(params,
    memory)` (named arrays for pictures), `metrics_help` (name -> Metric).
    """

    config: Any
    spec: EnvSpec

    def init(self, key: Key, env: Environment, env_steps: int) -> State:
        """All that training changes, and only that. env_steps sizes what must hold the run's experience."""

    def params(self, state: State) -> Params:
        """The part of the state that acting needs."""

    def begin(self, params: Params, key: Key, rows: tuple[int, int]) -> Memory:
        """Memories of agents who know nothing of their task yet; rows = (N, E)."""

    def act(self, params: Params, memory: Memory, obs: Array, key: Key, explore: bool) -> tuple[Array, Any, Memory]:
        """obs [N, E, obs_size] -> action, extras, memory."""

    def observe(self, params: Params, memory: Memory, transition: Transition) -> Memory:
        """After each env step; identity unless the agent learns within the episode."""

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Key) -> Memory:
        """After an episode (or E parallel ones) of each of the N tasks."""

    def phase(self, state: State, env: Environment) -> Any:
        """A hashable name of the next slice of work, from the counters alone."""

    def iterate(self, state: State, env: Environment, key: Key, phase: Any) -> tuple[State, Metrics]:
        """One slice of work of about a second. Pure in JAX for jittable families (so that seeds can be vmapped)."""


@dataclass
class Metric:
    """A named number for people: unit and meaning, shown by docs and the report."""

    unit: str
    meaning: str


def trial_episodes(algorithm: Any) -> int:
    """Episodes of a meta-test's trial: the algorithm's protocol where it has one, else the family's."""
    return getattr(algorithm, "test_episodes", algorithm.spec.trial_episodes)


def exploration_episodes(algorithm: Any) -> int:
    """How many of them come before what is reported as adapted."""
    return getattr(algorithm, "test_exploration", algorithm.spec.exploration_episodes)


def flat_rows(tree: Any) -> Any:
    """[N, E, ...] -> [B, ...] on every leaf."""
    return jax.tree.map(lambda x: x.reshape((x.shape[0] * x.shape[1], *x.shape[2:])), tree)


def grid_rows(tree: Any, rows: tuple[int, int]) -> Any:
    """[B, ...] -> [N, E, ...] on every leaf."""
    return jax.tree.map(lambda x: x.reshape((*rows, *x.shape[1:])), tree)


def task_count(tasks: Any) -> int:
    return int(np.shape(jax.tree.leaves(tasks)[0])[0])


def take_tasks(tasks: Any, index: Any) -> Any:
    """The tasks at `index` (an int array); leaves lead with its axes."""
    return jax.tree.map(lambda x: x[index], tasks)


def spread_tasks(tasks: Any, most: int | None) -> Any:
    """At most so many of the tasks, evenly spaced in their order, the first among them; None: all."""
    n = task_count(tasks)
    if most is None or most >= n:
        return tasks
    return jax.tree.map(lambda x: np.asarray(x)[np.arange(most) * n // most], tasks)
