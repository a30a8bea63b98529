"""A task of a family as a gymnasium environment."""

import warnings

import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from nacre.envs.as_gymnasium import TaskEnv, make
from nacre.envs.cheetah import CheetahVel
from nacre.envs.registry import make_family


@pytest.mark.parametrize("family, task", [
    ("cheetah-vel", 1.5),
    ("cheetah-dir", -1),
    ("point-robot", (0.5, -0.2)),
    ("gymnasium/CartPole-v1", 0),
])  # fmt: skip
def test_passes_gymnasiums_own_checks(family, task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on bounds and render modes
        check_env(make(family, task))


def test_is_the_family_at_that_task():
    env = make("cheetah-vel", 1.5, horizon=5)
    obs, _ = env.reset(seed=3)
    assert obs.shape == (20,) and obs.dtype == np.float32
    ends = []
    for _ in range(5):
        _, reward, terminated, truncated, info = env.step(np.zeros(6, np.float32))
        assert reward == pytest.approx(-abs(info["velocity"] - 1.5), abs=1e-5)
        ends.append((terminated, truncated))
    assert ends == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(np.zeros(6, np.float32))


def test_seeds():
    env = make(CheetahVel(), 1.0)
    first, second = env.reset(seed=3)[0], env.reset()[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(first, env.reset(seed=3)[0]) and np.array_equal(second, env.reset()[0])


def test_the_end_of_the_environment_itself():
    env = make("gymnasium/CartPole-v1", 0)
    env.reset(seed=0)
    for _ in range(30):
        _, _, terminated, truncated, info = env.step(1)
        assert "truncated" not in info
        if terminated:
            break
    assert terminated and not truncated


def test_compiled_families_give_their_own_numbers():
    env = make("point-robot", (0.5, -0.2))
    assert isinstance(env, TaskEnv)
    start, _ = env.reset(seed=0)
    obs, reward, *_ = env.step(np.array([0.1, 0.1], np.float32))
    np.testing.assert_allclose(obs, start + 0.1, rtol=1e-5)
    assert reward == pytest.approx(-np.linalg.norm(obs - [0.5, -0.2]), rel=1e-5)
    assert isinstance(env._state, tuple | jax.Array)


@pytest.mark.parametrize("family, task, message", [
    ("point-robot", 1.0, r"a task is finite numbers of the shape \(2,\) \(goal_x, goal_y\), got 1.0"),
    ("point-robot", (float("nan"), 0.0), r"a task is finite numbers"), ("point-robot", "a", r"a task is finite numbers.*got 'a'"),
    ("cheetah-vel", (1.0, 2.0), r"a task is finite numbers of the shape \(\)"),
])  # fmt: skip
def test_tasks_that_do_not_fit(family, task, message):
    with pytest.raises(ValueError, match=message):
        make(family, task)


@pytest.mark.parametrize("action", [1.5, np.nan, 9, "left", np.zeros(2)])
def test_discrete_actions_that_do_not_fit(action):
    env = make("grid-navi", make_family("grid-navi").test_tasks[0])
    env.reset(seed=0)
    env.step(2.0)  # whole
    with pytest.raises(ValueError, match=r"action must be in Discrete"):
        env.step(action)


@pytest.mark.parametrize("action", [np.zeros(5), np.full(6, 2.0), np.full(6, np.nan)])
def test_actions_that_do_not_fit(action):
    env = make(CheetahVel(), 1.0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be in Box"):
        env.step(action)


def test_parameters_beside_an_object_are_refused_and_its_backend_is_obeyed():
    with pytest.raises(ValueError, match="horizon: parameters go with a family's name"):
        make(CheetahVel(), 1.0, horizon=5)
    with pytest.raises(ValueError, match="expected a family's name, such as 'cheetah-vel', or an Environment, got 3"):
        make(3, 1.0)
    pytest.importorskip("mujoco.mjx")
    assert make(CheetahVel(backend="mjx"), 1.0).env.spec.jittable
