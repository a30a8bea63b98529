"""The point among walls of ProMP (Rothfuss et al. 2019; official code meta_policy_search/envs/point_envs/
point_env_2d_walls.py). Pure JAX.

Two circles around the middle cannot be left but through a gap each. The corner and both gaps are the task and are never observed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.envs.points import BASIN, CORNERS, START, Reward, ToCorners, seen
from nacre.types import EnvSpec

RADII = (1.0, 2.0)  # of the walls
GAP = 1.0  # who comes out this near to the middle of the gap passes
TASK_SEED = 1337  # ours: the official code draws fresh tasks in every iteration
# of the oracle: how far outside a wall it aims, and how far from the middle of its gap it dares (rad)
OUTSIDE, NEAR_GAP = 0.05, (0.95, 0.45)


@dataclass(frozen=True)
class PointWalls(ToCorners):
    """Go to one of the corners (+-2, +-2) from near the middle, through a gap in each of two circular walls.

    As coded: only env steps that end outside a wall and began inside are stopped, at the wall; ways in are free. The reward of
    such a step is that of the place it would have reached without the wall. The default is the official code's, dense.
    Sparse: by how much the env step came closer to the goal, where it ends within 2 of it, else 0 (the official code returns
    nothing there, and cannot be run so).
    """

    reward: Reward = "dense"
    horizon: int = 100  # env steps per episode; ours, as point-corners has: no published script runs this family
    n_train: int = 40  # tasks to train on, for agents that cannot draw fresh ones
    n_test: int = 20  # held-out tasks, the next ones

    train_is_test = False  # not a field
    name: ClassVar[str] = "point-walls"
    fastest: ClassVar[float] = 0.2  # per axis and env step
    notes: ClassVar[dict[str, str]] = {
        "sparse": "progress toward the goal within 2 of it, else 0", "dense": "-|p - g|", "dense_squared": "-|p - g|^2",
    }  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        for field in ("n_train", "n_test"):
            if getattr(self, field) < 1:
                raise ValueError(f"point-walls: {field} must be at least 1, got {getattr(self, field)}")

    @property
    def spec(self) -> EnvSpec:
        names = ("goal_x", "goal_y", "inner_gap (rad)", "outer_gap (rad)")
        return self.described(self.fastest, obs_names=("x", "y"), task_names=names)

    @property
    def _tasks(self) -> np.ndarray:
        random = np.random.RandomState(TASK_SEED)
        rows = [
            (*CORNERS[random.randint(len(CORNERS))], *random.uniform(-np.pi, np.pi, 2))
            for _ in range(self.n_train + self.n_test)
        ]
        return np.array(rows, np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._tasks[: self.n_train]

    @property
    def test_tasks(self) -> np.ndarray:
        return self._tasks[self.n_train :]

    def sample_tasks(self, key: Array, n: int) -> Array:
        goal_key, gap_key = jax.random.split(key)
        goals = jnp.asarray(CORNERS)[jax.random.randint(goal_key, (n,), 0, len(CORNERS))]
        gaps = jax.random.uniform(gap_key, (n, 2), minval=-jnp.pi, maxval=jnp.pi)
        return jnp.concatenate([goals, gaps], axis=-1)

    def reset(self, key: Array, tasks: Array):
        """The state of an environment: position [B, 2], task [B, 4]."""
        position = jax.random.uniform(key, (len(tasks), 2), minval=-START, maxval=START)
        return (position, jnp.asarray(tasks)), position

    def step(self, state: Any, action: Array, active: Array):
        before, task = state
        goal = task[:, :2]
        free = before + jnp.clip(action, -self.fastest, self.fastest)
        distance = jnp.linalg.norm(free - goal, axis=-1)
        progress = jnp.linalg.norm(before - goal, axis=-1) - distance
        reward = self.dense_or(jnp.where(distance < BASIN, progress, 0.0), distance)
        position = stopped(before, free, task[:, 2:])
        return (position, task), seen(position, position, reward)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """From gap to gap on the shortest way around the circle just left, then to the corner."""
        goal, radius = tasks[:, :2], jnp.linalg.norm(obs, axis=-1)
        outer = nearest_angle(jnp.arctan2(goal[:, 1], goal[:, 0]), tasks[:, 3], NEAR_GAP[1])
        inner = nearest_angle(outer, tasks[:, 2], NEAR_GAP[0])
        stage = (radius >= RADII[0]).astype(int) + (radius >= RADII[1])  # walls behind us
        rows = jnp.arange(len(obs))
        aims = jnp.stack([at(RADII[0] + OUTSIDE, inner), at(RADII[1] + OUTSIDE, outer), goal], axis=1)
        around = jnp.asarray([0.0, RADII[0] + OUTSIDE / 2, RADII[1] + OUTSIDE / 2])[stage]
        way = detour(obs, aims[rows, stage], around)
        return way * jnp.minimum(1.0, self.fastest / jnp.maximum(jnp.abs(way).max(axis=-1, keepdims=True), 1e-9))

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.points_pictures import pictures

        return pictures(evaluation, walls=True)

    def frames(self, trial: dict) -> Any:
        from nacre.envs.points_pictures import frames

        return frames(trial, walls=True)


def at(radius: float, angle: Array) -> Array:
    """[..., 2]"""
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def stopped(before: Array, free: Array, gaps: Array) -> Array:
    """Where env steps from `before` to `free` [B, 2] end; gaps: angles [B, 2]. A step is at most 0.29 long, so it meets one wall
    at most."""
    start, end = jnp.linalg.norm(before, axis=-1), jnp.linalg.norm(free, axis=-1)
    position = free
    for k, radius in enumerate(RADII):
        closed = jnp.linalg.norm(free - at(radius, gaps[:, k]), axis=-1) > GAP
        held = (start < radius) & (end > radius) & closed
        at_wall = free / (end / radius + 1e-6)[:, None]  # just inside, as coded
        position = jnp.where(held[:, None], at_wall, position)
    return position


def nearest_angle(wanted: Array, middle: Array, reach: float) -> Array:
    """The angle within `reach` of `middle` that is nearest to the one wanted, rad."""
    off = (wanted - middle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    return middle + jnp.clip(off, -reach, reach)


def detour(position: Array, aim: Array, radius: Array) -> Array:
    """The first straight piece [B, 2] of the shortest way to `aim` outside the disc around the middle, radius [B]."""
    way = aim - position
    length = jnp.maximum(jnp.linalg.norm(way, axis=-1), 1e-9)
    # share of the way, where it is nearest to the middle
    along = jnp.clip(-(position * way).sum(axis=-1) / length**2, 0.0, 1.0)
    clear = (along == 0.0) | (jnp.linalg.norm(position + along[:, None] * way, axis=-1) >= radius)
    far = jnp.maximum(jnp.linalg.norm(position, axis=-1), 1e-9)
    cross = position[:, 0] * aim[:, 1] - position[:, 1] * aim[:, 0]
    turn = jnp.pi - jnp.where(cross >= 0, 1.0, -1.0) * jnp.arcsin(jnp.minimum(radius / far, 1.0))
    angle = jnp.arctan2(position[:, 1], position[:, 0]) + turn
    return jnp.where(clear[:, None], way, at(1.0, angle))
