"""Pendulum: gymnasium's Pendulum-v1 in JAX, one task unless its mass and length are made to vary.

Source: gymnasium/envs/classic_control/pendulum.py. A rod that has to be swung up and held up by a torque that cannot lift it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Box, EnvSpec, Step

MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m
DT = 0.05  # seconds per env step
GRAVITY = 10.0  # m/s^2
TASK_SEED = 1337


@dataclass(frozen=True)
class Pendulum:
    """Swing up and hold. Reward, of the state before the step: -(angle^2 + 0.1 speed^2 + 0.001 torque^2), angle 0 upright.

    A task is (mass in kg, length in m), float32 [2]: (1, 1), or uniform within 1 +- `vary`.
    """

    vary: float = 0.0  # half width of the range of mass and length; 0: gymnasium's pendulum, the only task
    n_train: int = 40  # where they vary: tasks trained on, drawn with seed 1337
    n_test: int = 20  # held-out tasks, the next ones
    horizon: int = 200  # env steps per episode

    def __post_init__(self):
        if not 0 <= self.vary < 1:
            raise ValueError(f"pendulum: vary must be at least 0 and below 1, got {self.vary}")
        for name in ("n_train", "n_test", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"pendulum: {name} must be at least 1, got {getattr(self, name)}")

    @property
    def train_is_test(self) -> bool:
        return self.vary == 0

    @property
    def spec(self) -> EnvSpec:
        single = self.vary == 0
        return EnvSpec(
            name="pendulum",
            obs_size=3,
            action=Box((-MAX_TORQUE,), (MAX_TORQUE,)),
            horizon=self.horizon,
            jittable=True,
            dt=DT,
            trial_episodes=1 if single else 3,
            exploration_episodes=0 if single else 2,
            obs_names=("cos angle", "sin angle", "speed (rad/s)"),
            task_names=("mass (kg)", "length (m)"),
            reward_note="-(angle^2 + 0.1 speed^2 + 0.001 torque^2)",
        )

    def _tasks(self) -> np.ndarray:
        draw = np.random.RandomState(TASK_SEED).uniform(1 - self.vary, 1 + self.vary, (self.n_train + self.n_test, 2))
        return draw.astype(np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._tasks()[: self.n_train] if self.vary else np.ones((1, 2), np.float32)

    @property
    def test_tasks(self) -> np.ndarray:
        return self._tasks()[self.n_train :] if self.vary else np.ones((1, 2), np.float32)

    def sample_tasks(self, key: Array, n: int) -> Array:
        return (
            jax.random.uniform(key, (n, 2), minval=1 - self.vary, maxval=1 + self.vary)
            if self.vary
            else jnp.ones((n, 2))
        )

    def reset(self, key: Array, tasks: Array):
        """The state: angle in rad [B], speed in rad/s [B], tasks [B, 2]."""
        high = jnp.asarray([jnp.pi, 1.0])
        start = jax.random.uniform(key, (tasks.shape[0], 2), minval=-high, maxval=high)
        state = start[:, 0], start[:, 1], jnp.asarray(tasks)
        return state, _observe(state)

    def step(self, state, action: Array, active: Array):
        angle, speed, tasks = state
        mass, length = tasks[:, 0], tasks[:, 1]
        torque = jnp.clip(action[:, 0], -MAX_TORQUE, MAX_TORQUE)
        wrapped = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
        pull = 3 * GRAVITY / (2 * length) * jnp.sin(angle) + 3.0 / (mass * length**2) * torque
        speed = jnp.clip(speed + pull * DT, -MAX_SPEED, MAX_SPEED)
        state = angle + speed * DT, speed, tasks
        done = jnp.zeros(reward.shape, bool)
        return state, Step(_observe(state), reward, reward, done, {"angle": wrapped})

    def oracle(self, tasks: Array, obs: Array, t: Array) -> None:
        """None: the best policy is not known in closed form."""
        return None


def _observe(state) -> Array:
    angle, speed, _ = state
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed], axis=-1)
