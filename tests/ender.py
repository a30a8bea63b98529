"""A small family whose episodes end early, for the tests of agents that learn within the episode."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nacre.types import Discrete, EnvSpec, Step


@dataclass(frozen=True)
class Ender:
    """Two actions; the second ends the episode with probability 0.5. The task is a number that is added to the reward."""

    spec = EnvSpec(
        name="ender", obs_size=1, action=Discrete(2), horizon=5, jittable=True, can_terminate=True, trial_episodes=3,
        states=((0.0,), (1.0,)),
    )  # fmt: skip
    train_tasks = test_tasks = np.array([[0.0], [1.0]], np.float32)

    def sample_tasks(self, key, n):
        return jax.random.normal(key, (n, 1))

    def reset(self, key, tasks):
        return (jnp.asarray(tasks), key), jnp.zeros((tasks.shape[0], 1))

    def step(self, state, action, active):
        tasks, key = state
        key, coin = jax.random.split(key)
        ends = (action == 1) & (jax.random.uniform(coin, action.shape) < 0.5)
        reward = tasks[:, 0] + action
        return (tasks, key), Step(action[:, None] + 0.0, reward, reward, ends, {})

    def oracle(self, tasks, obs, t):
        return None
