"""Point robots of PEARL (Rakelly et al. 2019; official code rlkit/envs/point_robot.py). Pure JAX.

A point in the plane moves by its action, at most 0.1 per axis and step. The goal is the task and is never observed.
"""

import dataclasses
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Box, EnvSpec, Step

MAX_STEP = 0.1  # per axis and env step, in the units of the plane
TASK_SEED = 1337  # the official code's


def _spec(name: str, horizon: int, episodes: int, exploration: int, note: str) -> EnvSpec:
    return EnvSpec(
        name=name,
        obs_size=2,
        action=Box((-MAX_STEP,) * 2, (MAX_STEP,) * 2),
        horizon=horizon,
        jittable=True,
        trial_episodes=episodes,
        exploration_episodes=exploration,
        obs_names=("x", "y"),
        task_names=("goal_x", "goal_y"),
        reward_note=note,
    )


def _toward(goal: Array, position: Array) -> Array:
    """Each axis at full speed until it is there: no path enters the goal's disc earlier."""
    return jnp.clip(goal - position, -MAX_STEP, MAX_STEP)


def _check_counts(family: str, train: int, test: int, horizon: int) -> None:
    for name, value in (("n_train", train), ("n_test", test), ("horizon", horizon)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{family}: {name} must be at least 1, got {value!r}")


@dataclass(frozen=True)
class PointRobot:
    """Go to a goal in the square [-1, 1]^2 from a random start. Reward: -|p - g| after the move."""

    n_train: int = 80  # goals trained on; the first of 100 drawn with seed 1337
    n_test: int = 20  # held-out goals, the next ones
    horizon: int = 20  # env steps per episode

    def __post_init__(self):
        _check_counts("point-robot", self.n_train, self.n_test, self.horizon)

    @property
    def spec(self) -> EnvSpec:
        return _spec("point-robot", self.horizon, 3, 1, "-|p - g|")

    @property
    def _goals(self) -> np.ndarray:
        random = np.random.RandomState(TASK_SEED)
        return random.uniform(-1.0, 1.0, (self.n_train + self.n_test, 2)).astype(np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._goals[: self.n_train]

    @property
    def test_tasks(self) -> np.ndarray:
        return self._goals[self.n_train :]

    def sample_tasks(self, key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, 2), minval=-1.0, maxval=1.0)

    def reset(self, key: Array, tasks: Array):
        position = jax.random.uniform(key, tasks.shape, minval=-1.0, maxval=1.0)
        return (position, tasks), position

    def step(self, state, action: Array, active: Array):
        position, goal = state
        position = position + jnp.clip(action, -MAX_STEP, MAX_STEP)
        reward = -jnp.linalg.norm(position - goal, axis=-1)
        done = jnp.zeros(reward.shape, bool)
        return (position, goal), Step(position, reward, reward, done, {"x": position[:, 0], "y": position[:, 1]})

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        return _toward(tasks, obs)

    def task_axis(self, tasks) -> tuple:
        """For pictures: the number that tells tasks apart, and its name."""
        from nacre.envs.pictures import angles

        return angles(tasks)

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.pictures import point_robot_pictures

        return point_robot_pictures(evaluation)

    def frames(self, trial: dict):
        from nacre.envs.animations import point_robot_frames

        return point_robot_frames(trial)


@dataclass(frozen=True)
class MamlPointRobot(PointRobot):
    """Goals in [-0.5, 0.5]^2, from the origin, 100 env steps; over when both |x - g_x| and |y - g_y| are below 0.01.

    Finn et al. 2017: cbfinn/maml_rl, maml_examples/point_env_randgoal.py. Test goals: those of its test_maml_point.py (NumPy seed
    1); training goals are drawn anew in every iteration there, here also a fixed sample for agents that cannot.
    """

    n_train: int = 100
    n_test: int = 40
    horizon: int = 100

    name: ClassVar[str] = "maml/point-robot"
    half: ClassVar[float] = 0.5  # side of the goals' square
    near: ClassVar[float] = 0.01  # of the goal, per axis

    def __post_init__(self):
        _check_counts(self.name, self.n_train, self.n_test, self.horizon)

    @property
    def spec(self) -> EnvSpec:
        spec = _spec(self.name, self.horizon, 2, 1, "-|p - g|; over within 0.01 of the goal on both axes")
        return dataclasses.replace(spec, can_terminate=True)

    def _drawn(self, seed: int, n: int) -> np.ndarray:
        return np.random.RandomState(seed).uniform(-self.half, self.half, (n, 2)).astype(np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._drawn(TASK_SEED, self.n_train)

    @property
    def test_tasks(self) -> np.ndarray:
        return self._drawn(1, self.n_test)

    def sample_tasks(self, key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, 2), minval=-self.half, maxval=self.half)

    def reset(self, key: Array, tasks: Array):
        position = jnp.zeros(tasks.shape)
        return (position, jnp.asarray(tasks)), position

    def restart(self, key: Array, state: Any, over: Array):
        position, goal = state
        position = jnp.where(over[:, None], 0.0, position)
        return (position, goal), position

    def step(self, state: Any, action: Array, active: Array):
        state, out = super().step(state, action, active)
        position, goal = state
        return state, out._replace(terminal=jnp.all(jnp.abs(position - goal) < self.near, axis=-1))

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.pictures import point_robot_pictures

        return point_robot_pictures(evaluation, start=(0.0, 0.0))


@dataclass(frozen=True)
class SparsePointRobot:
    """Find a goal on the unit half circle. The agent sees a reward only within `radius` of it: 1 - |p - g|, else 0.

    Published protocol (privileged training, and to be stated with every result): learners train on the dense reward
    -|p - g|, while the context, adaptation and all reported returns use the sparse one. `train_on_sparse` trains on the
    sparse reward itself.
    """

    train_on_sparse: bool = False  # learn from the sparse reward instead of the dense one
    radius: float = 0.2  # of the rewarded disc around the goal
    n_train: int = 80  # goals trained on; the first of the equally spaced angles, shuffled with seed 1337
    n_test: int = 20  # held-out goals, the rest
    horizon: int = 20  # env steps per episode

    def __post_init__(self):
        _check_counts("sparse-point-robot", self.n_train, self.n_test, self.horizon)
        if not self.radius > 0:
            raise ValueError(f"sparse-point-robot: radius must be positive, got {self.radius}")

    @property
    def spec(self) -> EnvSpec:
        return _spec(
            "sparse-point-robot", self.horizon, 20, 5, f"1 - |p - g| within {self.radius:g} of the goal, else 0"
        )

    @property
    def _goals(self) -> np.ndarray:
        angles = np.linspace(0.0, np.pi, self.n_train + self.n_test)
        goals = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        np.random.RandomState(TASK_SEED).shuffle(goals)
        return goals.astype(np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._goals[: self.n_train]

    @property
    def test_tasks(self) -> np.ndarray:
        return self._goals[self.n_train :]

    def sample_tasks(self, key: Array, n: int) -> Array:
        angle = jax.random.uniform(key, (n,), maxval=jnp.pi)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    def reset(self, key: Array, tasks: Array):
        position = jnp.zeros(tasks.shape)
        return (position, jnp.asarray(tasks)), position

    def step(self, state, action: Array, active: Array):
        position, goal = state
        position = position + jnp.clip(action, -MAX_STEP, MAX_STEP)
        distance = jnp.linalg.norm(position - goal, axis=-1)
        sparse = jnp.where(distance <= self.radius, 1.0 - distance, 0.0)
        train = sparse if self.train_on_sparse else -distance
        done = jnp.zeros(distance.shape, bool)
        return (position, goal), Step(position, sparse, train, done, {"x": position[:, 0], "y": position[:, 1]})

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        return _toward(tasks, obs)

    def task_axis(self, tasks) -> tuple:
        """For pictures: the number that tells tasks apart, and its name."""
        from nacre.envs.pictures import angles

        return angles(tasks)

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.pictures import point_robot_pictures

        return point_robot_pictures(evaluation, radius=self.radius, start=(0.0, 0.0))

    def comparisons(self, evaluations: dict) -> list:
        from nacre.envs.pictures import found_comparison

        return found_comparison(evaluations)

    def frames(self, trial: dict):
        from nacre.envs.animations import point_robot_frames

        return point_robot_frames(trial, radius=self.radius)
