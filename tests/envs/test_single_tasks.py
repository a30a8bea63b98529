"""Families of one task: pendulum and half-cheetah equal gymnasium's, far-goal's disc, and what random noise finds of it."""

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from nacre import rollout
from nacre.envs.check_env import check_env
from nacre.envs.far_goal import FarGoal
from nacre.envs.pendulum import Pendulum
from nacre.envs.registry import make_family
from nacre.evaluate import Oracle, meta_test

KEY = jax.random.key(0)


@pytest.mark.parametrize("mass_and_length", [(1.0, 1.0), (0.7, 1.3)])
def test_pendulum_is_gymnasiums(mass_and_length):
    env = Pendulum()
    tasks = np.tile(np.array(mass_and_length, np.float32), (3, 1))
    state, obs = env.reset(KEY, tasks)
    twins = [gymnasium.make("Pendulum-v1").unwrapped for _ in tasks]
    for i, twin in enumerate(twins):
        twin.reset(seed=0)
        twin.m, twin.l = mass_and_length
        twin.state = np.array([float(state[0][i]), float(state[1][i])])
        np.testing.assert_allclose(obs[i], twin._get_obs(), atol=1e-6)
    rng, step = np.random.default_rng(0), jax.jit(env.step)
    for _ in range(100):  # errors of float32 grow with time, since the pendulum is chaotic
        action = rng.uniform(-3, 3, (3, 1)).astype(np.float32)
        state, out = step(state, action, jnp.ones(3, bool))
        for i, twin in enumerate(twins):
            expected, reward, *_ = twin.step(action[i])
            np.testing.assert_allclose(out.obs[i], expected, atol=2e-3)
            np.testing.assert_allclose(out.reward[i], reward, rtol=2e-3, atol=2e-3)


def test_pendulum_starts_as_gymnasiums_does():
    _, obs = Pendulum().reset(KEY, np.ones((20_000, 2), np.float32))
    angle = np.arctan2(obs[:, 1], obs[:, 0])
    np.testing.assert_allclose([angle.mean(), obs[:, 2].mean()], 0.0, atol=0.05)
    np.testing.assert_allclose([angle.std(), obs[:, 2].std()], [np.pi / 3**0.5, 1 / 3**0.5], rtol=0.02)


def test_pendulums_of_other_mass_and_length_are_held_out():
    one, many = Pendulum(), Pendulum(vary=0.3, n_train=5, n_test=4)
    assert one.train_is_test and not many.train_is_test and many.spec.trial_episodes == 3
    np.testing.assert_array_equal(one.train_tasks, [[1, 1]])
    both = np.concatenate([many.train_tasks, many.test_tasks])
    assert len(np.unique(both, axis=0)) == 9 and both.min() > 0.7 and both.max() < 1.3
    assert check_env(many, KEY) == []
    with pytest.raises(ValueError, match="vary must be at least 0 and below 1, got 1"):
        Pendulum(vary=1)
    with pytest.raises(ValueError, match="n_train must be at least 1, got 0"):
        Pendulum(n_train=0)


def test_half_cheetah_is_gymnasiums():
    env = make_family("half-cheetah", horizon=50, threads=1)
    state, _ = env.reset(KEY, env.train_tasks)
    twin = gymnasium.make("HalfCheetah-v5").unwrapped
    mujoco.mj_resetData(twin.model, twin.data)
    twin.set_state(state.rows[0, env.physics.qpos], state.rows[0, env.physics.qvel])
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
        state, out = env.step(state, action, np.ones(1, bool))
        expected, reward, *_ = twin.step(action[0])
        np.testing.assert_array_equal(out.obs[0], expected.astype(np.float32))
        np.testing.assert_allclose(out.reward[0], reward, rtol=1e-5, atol=1e-5)
    assert make_family("half-cheetah").spec.horizon == 1000 and env.spec.dt == pytest.approx(twin.dt)


def test_far_goal_pays_in_its_disc_and_keeps_within_its_walls():
    env = FarGoal()
    place = np.array([[0.65, 0.1], [0.84, 0.1], [0.65, -0.09], [0.8, 0.25], [0.95, -0.95]], np.float32)
    state = jnp.asarray(place), jnp.tile(jnp.asarray(env.train_tasks), (5, 1))
    _, out = env.step(state, np.zeros((5, 2), np.float32), jnp.ones(5, bool))
    np.testing.assert_array_equal(out.reward, [1, 1, 1, 0, 0])
    _, out = env.step(state, np.full((5, 2), [3.0, -3.0], np.float32), jnp.ones(5, bool))  # of which 0.1 counts
    np.testing.assert_allclose(out.obs, np.clip(place + np.array([0.1, -0.1]), -1, 1), atol=1e-6)
    best = meta_test(env, Oracle(env), (), env.test_tasks, KEY, episodes=1).returns
    np.testing.assert_array_equal(best, [[[50 - 9]]])  # the tenth step of 0.1 along x reaches it and pays
    with pytest.raises(ValueError, match="radius must be positive and finite, got 0"):
        FarGoal(radius=0)


def test_small_noise_never_finds_the_far_goal():
    """White noise of a standard deviation of 0.2 of the largest action: no episode of 20,000; of 1: one in a hundred."""
    env, found = FarGoal(), []
    for std in (0.2, 1.0):
        noise = rollout.Scripted(lambda memory, obs, key, std=std: std * jax.random.normal(key, obs.shape), env.spec)
        run = jax.jit(
            lambda noise=noise: rollout.episode(env, noise, (), (), env.train_tasks, KEY, episodes=20_000)[0].reward
        )
        found.append(float((run().max(axis=-1) > 0).mean()))
    assert found[0] == 0.0
    np.testing.assert_allclose(found[1], 0.01, atol=0.004)


def test_the_half_cheetah_is_drawn():
    velocity = np.linspace(0.0, 3.0, 20).reshape(1, 1, 20)
    found = make_family("half-cheetah").pictures({"info": {"velocity": velocity}, "tasks": np.ones(1)})
    assert len(found) == 2 and all(figure.axes for *_, figure in found)
