"""Bernoulli bandits of RL^2 (Duan et al. 2016, arXiv:1611.02779, section 3.1). Pure JAX.

k arms, each pays 1 with a probability of its own, else 0. A pull is an episode of one env step; a trial is n pulls.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Discrete, EnvSpec, Step, Trajectory

TASK_SEED = 1337


@dataclass(frozen=True)
class Bandit:
    """k arms that pay 1 with probabilities drawn uniformly from [0, 1] for each task, else 0. Nothing is observed.

    A task is the probabilities [k]. The published score is the sum of rewards over the trial; pulling at random has n / 2.
    """

    arms: int = 5  # k
    pulls: int = 100  # n, episodes of a trial
    n_train: int = 100  # fixed training tasks, for agents that cannot draw fresh ones as RL^2 and VariBAD do
    n_test: int = 1000  # held-out tasks, the next ones of the same stream

    horizon = 1  # not fields: every pull is an episode
    train_is_test = False

    def __post_init__(self):
        for name, least in (("arms", 2), ("pulls", 1), ("n_train", 1), ("n_test", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"bandit: {name} must be at least {least}, got {getattr(self, name)}")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name="bandit",
            obs_size=1,
            action=Discrete(self.arms),
            horizon=self.horizon,
            jittable=True,
            trial_episodes=self.pulls,
            exploration_episodes=0,
            obs_names=("nothing (0)",),
            task_names=tuple(f"probability of arm {i}" for i in range(self.arms)),
            reward_note="1 with the arm's probability, else 0",
        )

    def _draw(self, skip: int, n: int) -> np.ndarray:
        rng = np.random.default_rng([TASK_SEED, self.arms])
        return rng.uniform(size=(skip + n, self.arms))[skip:].astype(np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._draw(0, self.n_train)

    @property
    def test_tasks(self) -> np.ndarray:
        return self._draw(self.n_train, self.n_test)

    def sample_tasks(self, key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, self.arms))

    def reset(self, key: Array, tasks: Array):
        """The noise of the pull is drawn now, since an episode is one step."""
        tasks = jnp.asarray(tasks)
        return (tasks, jax.random.uniform(key, tasks.shape[:1])), jnp.zeros((tasks.shape[0], 1))

    def step(self, state, action: Array, active: Array):
        tasks, noise = state
        reward = (noise < jnp.take_along_axis(tasks, action[:, None], axis=1)[:, 0]).astype(jnp.float32)
        done = jnp.zeros(reward.shape, bool)
        return state, Step(jnp.zeros((reward.shape[0], 1)), reward, reward, done)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """The best arm."""
        return tasks.argmax(axis=-1)

    def regret(self, tasks: Array, episodes: Trajectory) -> Array:
        """By how much the best arm pays more, [..., N, E, T]."""
        tasks, pulled = tasks[:, None, None], jax.nn.one_hot(episodes.action, self.arms)
        return tasks.max(axis=-1) - (tasks * pulled).sum(axis=-1)

    def players(self) -> dict[str, Any]:
        """Algorithms that are known to solve bandits, name -> player without parameters (nacre.envs.bandit_players)."""
        from nacre.envs import bandit_players

        return bandit_players.players(self.spec)
