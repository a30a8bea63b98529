"""Meta-World's reach as a point in JAX, to try settings of PEARL in two minutes instead of 25.

    nacre train pearl benchmarks/reach_point.py:ReachPoint --env.thing ...

A hand that lags half a step behind its action, the goals' range, the horizon and a reward of the same shape and range as
`ml1/reach-v3`'s (0 to 10 per env step, 10 within 5 cm); no arm, no gripper, no contacts. What is learnt here was checked on the
real one before it was believed (docs/families/metaworld.md).
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nacre.types import Array, Box, EnvSpec, Key, Step

GOALS = np.array([[-0.1, 0.8, 0.05], [0.1, 0.9, 0.3]])  # m, lowest and highest
ROOM = jnp.array([[-0.5, 0.4, 0.05], [0.5, 1.0, 0.5]])  # m, where the hand may be
START = jnp.array([0.0, 0.6, 0.2])
NEAR = 0.05  # m, that count as there
REACH = 0.01  # m per env step


@dataclass(frozen=True)
class ReachPoint:
    """Observation: the hand now and one env step before (m, times scale), then what is told. A task is the goal [3], m."""

    told: bool = False  # the goal is observed: what the policy can do without inference
    thing: bool = False  # a thing of no use is observed, at one place per task, as Meta-World's puck is
    scale: float = 5.0  # of what is observed; 5 gives about unit deviations
    n_tasks: int = 50

    train_is_test: ClassVar[bool] = False

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name="reach-point", obs_size=6 + 3 * (self.told + self.thing), action=Box((-1.0,) * 3, (1.0,) * 3), horizon=500,
            jittable=True, trial_episodes=3, exploration_episodes=2, task_names=("goal x (m)", "goal y (m)", "goal z (m)"),
        )  # fmt: skip

    @property
    def train_tasks(self) -> np.ndarray:
        return np.random.default_rng(0).uniform(*GOALS, (self.n_tasks, 3)).astype(np.float32)

    @property
    def test_tasks(self) -> np.ndarray:
        return np.random.default_rng(1).uniform(*GOALS, (50, 3)).astype(np.float32)

    def sample_tasks(self, key: Key, n: int) -> Array:
        return jnp.asarray(self.train_tasks)[jax.random.randint(key, (n,), 0, self.n_tasks)]

    def observation(self, hand: Array, before: Array, goals: Array) -> Array:
        parts = [hand, before]
        if self.told:
            parts.append(goals)
        if self.thing:  # numbers that look random, the same for a goal each time
            parts.append(0.2 * (jnp.modf(jnp.abs(jnp.sin(goals * 12345.678) * 43758.5453))[0] - 0.5))
        return jnp.concatenate(parts, axis=-1) * self.scale

    def reset(self, key: Key, tasks: Array) -> tuple:
        tasks = jnp.asarray(tasks)
        hand = START + 0.005 * jax.random.normal(key, tasks.shape)
        return (hand, tasks, jnp.zeros_like(hand)), self.observation(hand, hand, tasks)

    def step(self, state: tuple, action: Array, active: Array) -> tuple:
        before, goals, velocity = state
        velocity = 0.5 * velocity + 0.5 * REACH * jnp.clip(action, -1.0, 1.0)
        hand = jnp.clip(before + velocity, *ROOM)
        distance = jnp.linalg.norm(hand - goals, axis=-1)
        margin = jnp.linalg.norm(START - goals, axis=-1)
        reward = 10.0 / ((3.0 * jnp.maximum(distance - NEAR, 0.0) / margin) ** 2 + 1.0)
        info = {"success": (distance <= NEAR).astype(jnp.float32)}
        obs = self.observation(hand, before, goals)
        return (hand, goals, velocity), Step(obs, reward, reward, jnp.zeros(reward.shape, bool), info)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Straight to the goal."""
        return jnp.clip((tasks - obs[:, :3] / self.scale) / REACH, -1.0, 1.0)
