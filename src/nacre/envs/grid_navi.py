"""GridNavi of VariBAD (Zintgraf et al. 2020; official code environments/navigation/gridworld.py). Pure JAX, discrete.

A 5 x 5 grid, a start in the corner (0, 0) and a hidden goal cell that is not next to it. Reward +1 on the goal, -0.1 elsewhere.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Discrete, EnvSpec, Step, Trajectory

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # no-op, up, right, down, left


@dataclass(frozen=True)
class GridNavi:
    """Find the goal cell and stay on it. 21 goals, train = test as published; 4 episodes of 15 steps per trial.

    A policy that knows the goal gets 11.07 per episode on average.
    """

    horizon: int = 15  # env steps per episode
    size: int = 5  # cells per side

    train_is_test = True  # by the published design; not a field

    def __post_init__(self):
        if self.horizon < 1:
            raise ValueError(f"grid-navi: horizon must be at least 1, got {self.horizon}")
        if self.size < 3:
            raise ValueError(f"grid-navi: size must be at least 3 cells, got {self.size}")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name="grid-navi",
            obs_size=2,
            action=Discrete(len(MOVES)),
            horizon=self.horizon,
            jittable=True,
            trial_episodes=4,
            exploration_episodes=1,
            obs_names=("x (cells)", "y (cells)"),
            states=tuple((float(x), float(y)) for x in range(self.size) for y in range(self.size)),
            task_names=("goal_x", "goal_y"),
            reward_note="+1 on the goal, -0.1 elsewhere",
        )

    @property
    def train_tasks(self) -> np.ndarray:
        cells = [(x, y) for x in range(self.size) for y in range(self.size) if x > 1 or y > 1]
        return np.array(cells, np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Array, n: int) -> Array:
        cells = jnp.asarray(self.train_tasks)
        return cells[jax.random.randint(key, (n,), 0, len(cells))]

    def reset(self, key: Array, tasks: Array):
        position = jnp.zeros(tasks.shape)
        return (position, jnp.asarray(tasks)), position

    def step(self, state, action: Array, active: Array):
        position, goal = state
        position = jnp.clip(position + jnp.asarray(MOVES, jnp.float32)[action], 0, self.size - 1)
        reward = jnp.where((position == goal).all(axis=-1), 1.0, -0.1)
        done = jnp.zeros(reward.shape, bool)
        return (position, goal), Step(position, reward, reward, done, {"x": position[:, 0], "y": position[:, 1]})

    def value(self, distance: Array, left: Array) -> Array:
        """What a policy that knows the goal gets in `left` env steps from so many cells away."""
        walked = jnp.minimum(jnp.maximum(distance - 1, 0), left)
        return -0.1 * walked + jnp.where(distance == 0, left, jnp.maximum(left - distance + 1, 0))

    def regret(self, tasks: Array, episodes: Trajectory) -> Array:
        """See nacre.types.Environment; [..., N, E, T]."""
        left = self.horizon - jnp.arange(episodes.reward.shape[-1])
        before, after = (jnp.abs(obs - tasks[:, None, None]).sum(axis=-1) for obs in (episodes.obs, episodes.next_obs))
        return self.value(before, left) - episodes.reward - self.value(after, left - 1)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        dx, dy = tasks[..., 0] - obs[..., 0], tasks[..., 1] - obs[..., 1]
        vertical = jnp.where(dy > 0, 1, jnp.where(dy < 0, 3, 0))
        return jnp.where(dx > 0, 2, jnp.where(dx < 0, 4, vertical))

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.grid_pictures import grid_pictures

        return grid_pictures(evaluation, self.size)
