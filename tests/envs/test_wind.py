"""Wind: the published winds, the rule of motion, the disc, and the policy that knows the wind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre.envs.registry import make_family
from nacre.envs.wind import GOAL, RADIUS, Wind
from nacre.evaluate import Oracle, evaluation_key, meta_test, references
from nacre.types import Environment

KEY = jax.random.key(0)


def test_the_winds_are_the_published_ones():
    """The official code draws pairs one by one from NumPy's global stream, then shuffles indices from the same stream."""
    before = np.random.RandomState(1337)
    drawn = np.array([[before.uniform(-0.08, 0.08), before.uniform(-0.08, 0.08)] for _ in range(60)], np.float32)
    np.testing.assert_allclose(drawn[0], [-0.03808, -0.05461], atol=5e-6)
    order = before.permutation(range(60))
    np.testing.assert_array_equal(Wind().train_tasks, drawn[order[:40]])
    np.testing.assert_array_equal(Wind().test_tasks, drawn[order[-20:]])
    assert len(np.unique(np.concatenate([Wind().train_tasks, Wind().test_tasks]), axis=0)) == 60


def test_global_random_state_is_left_alone():
    np.random.seed(5)  # noqa: NPY002  the very state that must not change
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    make_family("wind").train_tasks  # noqa: B018
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_fresh_winds_fill_the_square():
    winds = np.asarray(Wind().sample_tasks(KEY, 20_000))
    assert np.abs(winds).max() <= 0.08
    np.testing.assert_allclose(winds.mean(axis=0), 0.0, atol=0.002)
    np.testing.assert_allclose(winds.std(axis=0), 0.16 / 12**0.5, rtol=0.02)


def test_a_step_adds_action_and_wind():
    env = Wind()
    winds = np.array([[0.05, -0.02], [-0.08, 0.08]], np.float32)
    state, obs = env.reset(KEY, winds)
    np.testing.assert_array_equal(obs, np.zeros((2, 2)))
    place = np.zeros((2, 2))
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-0.15, 0.15, (2, 2)).astype(np.float32)
        state, out = env.step(state, action, jnp.ones(2, bool))
        place = place + np.clip(action, -0.1, 0.1) + winds
        np.testing.assert_allclose(out.obs, place, atol=1e-6)
        assert not np.asarray(out.terminal).any() and not np.asarray(out.reward).any()
        np.testing.assert_array_equal(out.info["x"], out.obs[:, 0])


def test_the_reward_is_one_within_the_disc():
    env = Wind()
    near = np.array([[0.0, 1.0], [0.029, 1.0], [0.0, 0.971], [0.021, 1.021], [0.031, 1.0], [0.022, 1.022]], np.float32)
    state = (jnp.asarray(near), jnp.zeros((6, 2)))
    _, out = env.step(state, np.zeros((6, 2), np.float32), jnp.ones(6, bool))
    np.testing.assert_array_equal(out.reward, [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(out.train_reward, out.reward)


def test_the_oracle_goes_straight_to_the_goal_and_stays():
    env = Wind()
    tasks = jnp.concatenate([env.train_tasks, env.test_tasks, jnp.asarray([[0.08, -0.08], [-0.08, 0.08]])])
    shots = meta_test(env, Oracle(env), (), tasks, KEY, episodes=1)
    x, y = shots.info["x"][0], shots.info["y"][0]
    inside = np.hypot(x - GOAL[0], y - GOAL[1]) <= RADIUS
    first = inside.argmax(axis=1)
    assert inside.any(axis=1).all() and all(inside[i, first[i] :].all() for i in range(len(inside)))
    needed = np.ceil((GOAL[1] - RADIUS) / (0.1 + np.asarray(tasks[:, 1])) - 1e-4)  # steps at full speed upward
    assert np.all(np.abs(first + 1 - needed) <= 1)
    np.testing.assert_array_equal(shots.returns[0, :, 0], 75 - first)


def test_scores_of_the_documentation():
    env = Wind()
    found = references(env, env.test_tasks, evaluation_key(), episodes=1, repetitions=10)
    np.testing.assert_allclose([*found["random"], *found["still"]], [0.01, 0.05], atol=0.001)
    np.testing.assert_allclose(found["oracle"], [63.95], atol=0.01)


def test_a_trial_is_one_episode_unless_asked_otherwise():
    spec = Wind().spec
    assert (spec.trial_episodes, spec.exploration_episodes, spec.horizon, spec.can_terminate) == (1, 0, 75, False)
    assert Wind(episodes=3).spec.trial_episodes == 3 and isinstance(Wind(), Environment)


@pytest.mark.parametrize("field", ["n_train", "n_test", "horizon", "episodes"])
def test_impossible_sizes_are_refused(field):
    with pytest.raises(ValueError, match=rf"wind: {field} must be at least 1, got 0"):
        Wind(**{field: 0})


@pytest.mark.parametrize("shots", [1, 3, 9])
def test_pictures(shots):
    env = Wind(n_test=5, horizon=10)
    seen = meta_test(env, Oracle(env), (), env.test_tasks, KEY, episodes=shots)
    made = {"returns": seen.returns, "info": seen.info, "tasks": env.test_tasks, "exploration_episodes": 0}
    drawn = env.pictures(made)
    assert drawn[0][0] == "Where the agent goes, shot by shot" and len(drawn) == 3
    for _, caption, figure in drawn:
        labels = {text for axis in figure.axes for text in (axis.get_xlabel(), axis.get_ylabel()) if text}
        assert caption.endswith(".") and len(labels) >= 2
    share = drawn[-1][2].axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(share.sum(), seen.returns[0, :, 0].mean(), rtol=1e-6)


def test_frames():
    env = Wind(horizon=4)
    zero = np.zeros((1, 4))
    trial = {"task": env.test_tasks[0], "returns": np.zeros(1), "reward": zero, "obs": np.zeros((1, 4, 2)),
             "info": {"x": zero, "y": zero}, "exploration_episodes": 0}  # fmt: skip
    assert len(list(env.frames(trial))) == 5
