"""Tabular MDPs of RL^2 (Duan et al. 2016, arXiv:1611.02779, section 3.2), which took them from Osband et al. 2013. Pure JAX."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Discrete, EnvSpec, Step, Trajectory

TASK_SEED = 1337


class Mdp(NamedTuple):
    """A task, or n of them with a leading axis."""

    transition: Array  # [S, A, S] probabilities of the next state
    reward: Array  # [S, A] mean reward


@dataclass(frozen=True)
class TabularMdp:
    """Random MDPs: next states from a flat Dirichlet distribution, mean rewards from N(1, 1), rewards with N(0, 1) noise. The
    agent sees its state, one-hot; every episode starts in state 0.

    A trial is n episodes, the published score the sum of its rewards; acting at random has 10 n, since an episode's ten
    rewards have mean 1. train_reward is the same as the reward.
    """

    states: int = 10
    actions: int = 5
    horizon: int = 10  # env steps per episode
    episodes: int = 10  # n, episodes of a trial
    n_train: int = 100  # fixed training tasks, for agents that cannot draw fresh ones as RL^2 and VariBAD do
    n_test: int = 1000  # held-out tasks, the next ones of the same stream

    train_is_test = False  # not a field

    def __post_init__(self):
        for name, least in (
            ("states", 2),
            ("actions", 2),
            ("horizon", 1),
            ("episodes", 1),
            ("n_train", 1),
            ("n_test", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"tabular-mdp: {name} must be at least {least}, got {getattr(self, name)}")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name="tabular-mdp",
            obs_size=self.states,
            action=Discrete(self.actions),
            horizon=self.horizon,
            jittable=True,
            trial_episodes=self.episodes,
            exploration_episodes=0,
            states=tuple(map(tuple, np.eye(self.states).tolist())),
            obs_names=tuple(f"in state {s}" for s in range(self.states)),
            reward_note="N(mean of state and action, 1)",
        )

    def _draw(self, first: int, n: int) -> Mdp:
        """Tasks first .. first + n - 1; each has a generator of its own, so that counts do not change them."""
        shape = self.states, self.actions
        transition, reward = np.empty((n, *shape, self.states), np.float32), np.empty((n, *shape), np.float32)
        for i in range(n):
            rng = np.random.default_rng([TASK_SEED, first + i])
            transition[i] = rng.dirichlet(np.ones(self.states), shape)
            reward[i] = rng.normal(1.0, 1.0, shape)
        return Mdp(transition, reward)

    @functools.cached_property
    def train_tasks(self) -> Mdp:
        return self._draw(0, self.n_train)

    @functools.cached_property
    def test_tasks(self) -> Mdp:
        return self._draw(self.n_train, self.n_test)

    def sample_tasks(self, key: Array, n: int) -> Mdp:
        next_key, reward_key = jax.random.split(key)
        shape = n, self.states, self.actions
        weight = jax.random.exponential(next_key, (*shape, self.states))  # normalised: a flat Dirichlet
        return Mdp(weight / weight.sum(axis=-1, keepdims=True), 1.0 + jax.random.normal(reward_key, shape))

    def reset(self, key: Array, tasks: Mdp):
        """The state of an environment: tasks, state [B], key."""
        tasks = jax.tree.map(jnp.asarray, tasks)
        start = jnp.zeros(tasks.reward.shape[0], jnp.int32)
        return (tasks, start, key), jax.nn.one_hot(start, self.states)

    def step(self, state, action: Array, active: Array):
        tasks, place, key = state
        key, next_key, noise_key = jax.random.split(key, 3)
        row = jnp.arange(place.shape[0])
        u = jax.random.uniform(next_key, place.shape)
        below = jnp.cumsum(tasks.transition[row, place, action], axis=-1) < u[:, None]
        following = jnp.minimum(below.sum(axis=-1), self.states - 1).astype(jnp.int32)
        reward = tasks.reward[row, place, action] + jax.random.normal(noise_key, place.shape)
        done = jnp.zeros(reward.shape, bool)
        return (tasks, following, key), Step(jax.nn.one_hot(following, self.states), reward, reward, done)

    def oracle(self, tasks: Mdp, obs: Array, t: Array) -> Array:
        """The optimal action with horizon - t env steps to go."""
        values = action_values(tasks.transition, tasks.reward, self.horizon)  # [T, B, S, A]
        row = jnp.arange(obs.shape[0])
        return values[jnp.broadcast_to(t, row.shape), row, obs.argmax(axis=-1)].argmax(axis=-1)

    def regret(self, tasks: Mdp, episodes: Trajectory) -> Array:
        """See nacre.types.Environment; [..., N, E, T]."""
        q = action_values(tasks.transition, tasks.reward, self.horizon)  # [T, N, S, A]
        loss = q.max(axis=-1, keepdims=True) - q
        chosen = jax.nn.one_hot(episodes.action, self.actions)
        return jnp.einsum("tnsa,...nets,...neta->...net", loss, episodes.obs, chosen)

    def players(self) -> dict[str, Any]:
        """Algorithms that are known to solve MDPs, name -> player without parameters (nacre.envs.tabular_players)."""
        from nacre.envs import tabular_players

        return tabular_players.players(self.spec)


def action_values(transition: Array, reward: Array, horizon: int) -> Array:
    """Q of the optimal policy by backward induction: transition [..., S, A, S], reward [..., S, A] -> [T, ..., S, A]."""

    return backward_induction(
        lambda value: reward + jnp.einsum("...sap,...p->...sa", transition, value), reward.shape[:-1], horizon
    )


def backward_induction(q_of: Callable[[Array], Array], shape: tuple[int, ...], horizon: int) -> Array:
    """Action values [T, ..., S, A] of acting greedily with respect to q_of(values of the states a step later, of `shape`)."""

    def back(value, _):
        q = q_of(value)
        return q.max(axis=-1), q

    return jax.lax.scan(back, jnp.zeros(shape), None, length=horizon, reverse=True)[1]
