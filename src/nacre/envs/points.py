"""Points of ProMP that must go to one of four corners (Rothfuss et al. 2019; official code meta_policy_search/envs/point_envs,
point_env_2d_corner.py and point_env_2d_momentum.py). Pure JAX. The same among walls: nacre.envs.point_walls.

The corner is the task and is never observed. There are only four, so train tasks are test tasks, as in the official code.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Box, EnvSpec, Step

Reward = Literal["sparse", "dense", "dense_squared"]
CORNERS = np.array([(-2, -2), (2, -2), (-2, 2), (2, 2)], np.float32)  # in the official code's order
START, START_SPEED = 0.2, 0.1  # positions and velocities begin uniform within them, per axis
DEAD_ZONE = 0.5  # L1 distance from the middle, of point-corners' sparse reward
BASIN = 2.0  # distance from the goal at which sparse rewards of the others begin


class ToCorners:
    """What these families have in common. They have a name, a reward and a horizon."""

    name: ClassVar[str]
    reward: Reward
    horizon: int
    notes: ClassVar[dict[str, str]]  # reward -> its equation

    def __post_init__(self):
        if self.reward not in get_args(Reward):
            known = ", ".join(get_args(Reward))
            raise ValueError(f"{self.name}: reward must be one of {known}, got {self.reward!r}")
        if self.horizon < 1:
            raise ValueError(f"{self.name}: horizon must be at least 1, got {self.horizon}")

    def described(self, fastest: float, *, obs_names: tuple[str, ...], task_names: tuple[str, ...]) -> EnvSpec:
        """fastest: bound of actions, per axis."""
        return EnvSpec(
            name=self.name,
            obs_size=len(obs_names),
            action=Box((-fastest,) * 2, (fastest,) * 2),
            horizon=self.horizon,
            jittable=True,
            trial_episodes=2,
            exploration_episodes=1,
            obs_names=obs_names,
            task_names=task_names,
            reward_note=self.notes[self.reward],
        )

    def dense_or(self, sparse: Array, distance: Array) -> Array:
        """The reward that was asked for."""
        return {"sparse": sparse, "dense": -distance, "dense_squared": -(distance**2)}[self.reward]

    def task_axis(self, tasks: Any) -> tuple[str, np.ndarray]:
        """For pictures: the number that tells tasks apart, and its name."""
        from nacre.envs.pictures import angles

        return angles(np.asarray(tasks)[:, :2])

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.points_pictures import pictures

        return pictures(evaluation)

    def frames(self, trial: dict) -> Any:
        from nacre.envs.points_pictures import frames

        return frames(trial)


class FourTasks(ToCorners):
    """Tasks are goals [N, 2]."""

    train_is_test: ClassVar[bool] = True  # by the published design

    @property
    def train_tasks(self) -> np.ndarray:
        return CORNERS.copy()

    @property
    def test_tasks(self) -> np.ndarray:
        return CORNERS.copy()

    def sample_tasks(self, key: Array, n: int) -> Array:
        return jnp.asarray(CORNERS)[jax.random.randint(key, (n,), 0, len(CORNERS))]


def seen(position: Array, obs: Array, reward: Array) -> Step:
    info = {"x": position[:, 0], "y": position[:, 1]}
    return Step(obs, reward, reward, jnp.zeros(reward.shape, bool), info)


@dataclass(frozen=True)
class PointCorners(FourTasks):
    """Go to one of the corners (+-2, +-2) from near the middle. The sparse reward tells nothing near the middle and in other
    quadrants, so episodes before adaptation have to visit quadrants on purpose.

    Sparse: by how much the env step came closer to the goal, if it ends in the goal's quadrant and at least 0.5 (L1) from the
    middle; else 0. That pays for every way in, and no way out costs anything that ends where nothing is paid, which the oracle
    uses: it goes in and out, and to the corner at the end.
    """

    reward: Reward = "sparse"
    horizon: int = 100  # env steps per episode

    name: ClassVar[str] = "point-corners"
    fastest: ClassVar[float] = 0.2  # per axis and env step
    notes: ClassVar[dict[str, str]] = {
        "sparse": "progress toward the goal in its quadrant, 0.5 from the middle, else 0",
        "dense": "-|p - g|",
        "dense_squared": "-|p - g|^2",
    }

    @property
    def spec(self) -> EnvSpec:
        return self.described(self.fastest, obs_names=("x", "y"), task_names=("goal_x", "goal_y"))

    def reset(self, key: Array, tasks: Array):
        """The state of an environment: position [B, 2], goal [B, 2]."""
        position = jax.random.uniform(key, (len(tasks), 2), minval=-START, maxval=START)
        return (position, jnp.asarray(tasks)), position

    def step(self, state: Any, action: Array, active: Array):
        before, goal = state
        position = before + jnp.clip(action, -self.fastest, self.fastest)
        distance = jnp.linalg.norm(position - goal, axis=-1)
        progress = jnp.linalg.norm(before - goal, axis=-1) - distance
        own = jnp.all(position * goal >= 0, axis=-1)  # no corner is nearer
        paid = own & (jnp.abs(position).sum(axis=-1) >= DEAD_ZONE)
        return (position, goal), seen(position, position, self.dense_or(jnp.where(paid, progress, 0.0), distance))

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Dense: each axis at full speed until it is there. Sparse: in and out on the diagonal, and at the end to the corner."""
        there = jnp.clip(tasks - obs, -self.fastest, self.fastest)
        if self.reward != "sparse":
            return there
        way = jnp.sign(tasks) * self.fastest  # straight to the corner
        inside = jnp.abs(obs).sum(axis=-1, keepdims=True) < DEAD_ZONE
        paid_next = jnp.abs(obs + way).sum(axis=-1, keepdims=True) >= DEAD_ZONE
        back = jnp.clip(0.5 * way - obs, -self.fastest, self.fastest)  # where one such step ends outside the dead zone
        at_the_end = jnp.broadcast_to(t, obs.shape[:1])[:, None] >= self.horizon - 9
        return jnp.where(at_the_end, there, jnp.where(inside & paid_next, way, back))


@dataclass(frozen=True)
class PointMomentum(FourTasks):
    """Go to one of the corners (+-2, +-2) from near the middle by accelerating: actions change the velocity.

    Sparse: max(2 - distance, 0) after the move.
    """

    reward: Reward = "sparse"
    horizon: int = 200  # env steps per episode

    name: ClassVar[str] = "point-momentum"
    strongest: ClassVar[float] = 0.1  # change of velocity per axis and env step
    notes: ClassVar[dict[str, str]] = {
        "sparse": "max(2 - |p - g|, 0)", "dense": "-|p - g|", "dense_squared": "-|p - g|^2",
    }  # fmt: skip

    @property
    def spec(self) -> EnvSpec:
        names = ("x", "y", "velocity_x (per env step)", "velocity_y (per env step)")
        return self.described(self.strongest, obs_names=names, task_names=("goal_x", "goal_y"))

    def reset(self, key: Array, tasks: Array):
        """The state of an environment: position [B, 2] and velocity [B, 2] beside each other, goal [B, 2]."""
        scale = jnp.asarray([START, START, START_SPEED, START_SPEED])
        obs = jax.random.uniform(key, (len(tasks), 4), minval=-1.0, maxval=1.0) * scale
        return (obs, jnp.asarray(tasks)), obs

    def step(self, state: Any, action: Array, active: Array):
        before, goal = state
        velocity = before[:, 2:] + jnp.clip(action, -self.strongest, self.strongest)
        position = before[:, :2] + velocity
        distance = jnp.linalg.norm(position - goal, axis=-1)
        obs = jnp.concatenate([position, velocity], axis=-1)
        return (obs, goal), seen(position, obs, self.dense_or(jnp.maximum(BASIN - distance, 0.0), distance))

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Each axis as fast as it can still stop at the goal."""
        left, unit = tasks - obs[:, :2], self.strongest
        # n env steps, each slower by one unit than the one before, cover n (n + 1) / 2 units at most
        n = jnp.maximum(jnp.ceil((jnp.sqrt(1.0 + 8.0 * jnp.abs(left) / unit) - 1.0) / 2.0), 1.0)
        fastest = jnp.abs(left) / n + unit * (n - 1.0) / 2.0
        return jnp.clip(jnp.sign(left) * fastest - obs[:, 2:], -unit, unit)
