"""Far goal (ours): one point task whose reward is so far from the start that small noise never meets it. Pure JAX.

A single task, for methods that learn how to explore it. White noise with a standard deviation of 0.2 of the largest action
reached the disc in none of 20,000 episodes, of 1.0 in one in a hundred.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Box, EnvSpec, Step

MAX_STEP = 0.1  # per axis and env step, in the units of the plane
WALL = 1.0  # the point stays within +-1
START, GOAL = (-0.5, -0.5), (0.65, 0.1)  # no straight way at full speed on one axis or both leads there


@dataclass(frozen=True)
class FarGoal:
    """From (-0.5, -0.5) into the disc around (0.65, 0.1), and stay there. Reward: 1 in the disc, else 0."""

    radius: float = 0.2  # of the rewarded disc
    horizon: int = 50  # env steps per episode

    train_is_test = True  # there is only one task; not a field

    def __post_init__(self):
        if not 0 < self.radius < float("inf"):
            raise ValueError(f"far-goal: radius must be positive and finite, got {self.radius}")
        if self.horizon < 1:
            raise ValueError(f"far-goal: horizon must be at least 1, got {self.horizon}")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name="far-goal",
            obs_size=2,
            action=Box((-MAX_STEP,) * 2, (MAX_STEP,) * 2),
            horizon=self.horizon,
            jittable=True,
            trial_episodes=1,
            exploration_episodes=0,
            obs_names=("x", "y"),
            task_names=("goal_x", "goal_y"),
            reward_note=f"1 within {self.radius:g} of (0.65, 0.1), else 0",
        )

    @property
    def train_tasks(self) -> np.ndarray:
        return np.array([GOAL], np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Array, n: int) -> Array:
        return jnp.tile(jnp.asarray(GOAL), (n, 1))

    def reset(self, key: Array, tasks: Array):
        """The state: position [B, 2], goal [B, 2]."""
        position = jnp.tile(jnp.asarray(START), (tasks.shape[0], 1))
        return (position, jnp.asarray(tasks)), position

    def step(self, state, action: Array, active: Array):
        position, goal = state
        position = jnp.clip(position + jnp.clip(action, -MAX_STEP, MAX_STEP), -WALL, WALL)
        reward = (jnp.linalg.norm(position - goal, axis=-1) <= self.radius).astype(jnp.float32)
        done = jnp.zeros(reward.shape, bool)
        return (position, goal), Step(position, reward, reward, done, {"x": position[:, 0], "y": position[:, 1]})

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Each axis toward the goal at full speed: no path enters the disc earlier."""
        return jnp.clip(tasks - obs, -MAX_STEP, MAX_STEP)

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.pictures import point_robot_pictures

        return point_robot_pictures(evaluation, radius=self.radius, start=START)

    def frames(self, trial: dict):
        from nacre.envs.animations import point_robot_frames

        return point_robot_frames(trial, radius=self.radius)
