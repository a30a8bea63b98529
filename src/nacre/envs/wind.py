"""Wind of POMDP-baselines (Ni et al. 2022; official code envs/meta/toy_navigation/wind.py). Pure JAX.

A point in the plane moves by its action and by a wind that is the task and is never observed. The goal is the same in all tasks.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Box, EnvSpec, Step

MAX_STEP = 0.1  # of an action, per axis and env step, in the units of the plane
STRONGEST = 0.08  # wind, per axis and env step
GOAL = (0.0, 1.0)
RADIUS = 0.03  # of the rewarded disc around the goal
TASK_SEED = 1337  # the official code's


@dataclass(frozen=True)
class Wind:
    """Reach the disc around (0, 1) from (0, 0) and stay in it, whatever the wind. Reward: 1 in the disc, else 0.

    A trial is one episode, as published: the agent has to feel the wind and hold against it within 75 env steps. A policy
    that knows the wind gets 63.95 on average over the held-out tasks.
    """

    n_train: int = 40  # winds trained on, of n_train + n_test drawn and shuffled with seed 1337
    n_test: int = 20  # held-out winds, the rest
    horizon: int = 75  # env steps per episode
    episodes: int = 1  # of a trial

    train_is_test = False  # not a field

    def __post_init__(self):
        for name in ("n_train", "n_test", "horizon", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"wind: {name} must be at least 1, got {getattr(self, name)}")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name="wind",
            obs_size=2,
            action=Box((-MAX_STEP,) * 2, (MAX_STEP,) * 2),
            horizon=self.horizon,
            jittable=True,
            trial_episodes=self.episodes,
            exploration_episodes=0,
            obs_names=("x", "y"),
            task_names=("wind_x", "wind_y"),
            reward_note="1 within 0.03 of (0, 1), else 0",
        )

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        """Winds [n, 2] to train on and to be tested on, drawn and then shuffled from one stream, as the official code does."""
        random = np.random.RandomState(TASK_SEED)
        winds = random.uniform(-STRONGEST, STRONGEST, (self.n_train + self.n_test, 2)).astype(np.float32)
        order = random.permutation(len(winds))
        return winds[order[: self.n_train]], winds[order[self.n_train :]]

    @property
    def train_tasks(self) -> np.ndarray:
        return self._split()[0]

    @property
    def test_tasks(self) -> np.ndarray:
        return self._split()[1]

    def sample_tasks(self, key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, 2), minval=-STRONGEST, maxval=STRONGEST)

    def reset(self, key: Array, tasks: Array):
        """The state of an environment: position [B, 2], wind [B, 2]."""
        position = jnp.zeros(tasks.shape)
        return (position, jnp.asarray(tasks)), position

    def step(self, state, action: Array, active: Array):
        position, wind = state
        position = position + jnp.clip(action, -MAX_STEP, MAX_STEP) + wind
        reward = (jnp.linalg.norm(position - jnp.asarray(GOAL), axis=-1) <= RADIUS).astype(jnp.float32)
        done = jnp.zeros(reward.shape, bool)
        return (position, wind), Step(position, reward, reward, done, {"x": position[:, 0], "y": position[:, 1]})

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Against the wind, and each axis toward the goal as fast as it can: no path enters the disc earlier."""
        return jnp.clip(jnp.asarray(GOAL) - obs - tasks, -MAX_STEP, MAX_STEP)

    def task_axis(self, tasks) -> tuple[str, np.ndarray]:
        """For pictures: the number that tells tasks apart, and its name."""
        return "wind toward the goal, per env step", np.asarray(tasks)[:, 1]

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.wind_pictures import wind_pictures

        return wind_pictures(evaluation, goal=GOAL, radius=RADIUS)

    def frames(self, trial: dict) -> Any:
        from nacre.envs.animations import point_robot_frames

        return point_robot_frames({**trial, "task": GOAL}, radius=RADIUS)
