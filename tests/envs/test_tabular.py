"""Tabular MDPs against their definition, backward induction against a loop, and the players."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from nacre import rollout
from nacre.envs import tabular_players
from nacre.envs.tabular import Mdp, TabularMdp, action_values
from nacre.evaluate import Oracle
from nacre.types import take_tasks

KEY = jax.random.key(0)


def scores(env: TabularMdp, player, tasks, key=KEY) -> np.ndarray:
    """Sum of rewards per trial."""
    memory = player.start(tasks) if isinstance(player, Oracle) else None
    run = jax.jit(lambda k: rollout.trial(env, player, (), tasks, k, episodes=env.episodes, memory=memory)[0].reward)
    return np.asarray(run(key)).sum(axis=(0, 2, 3))


def test_steps_follow_the_tables():
    env = TabularMdp(states=3, actions=2)
    task = env.sample_tasks(KEY, 1)
    n = 40_000
    tasks = take_tasks(task, jnp.zeros(n, jnp.int32))
    (tasks, _, key), obs = env.reset(KEY, tasks)
    np.testing.assert_array_equal(obs, np.eye(3)[np.zeros(n, int)])
    place, action = jnp.arange(n) % 3, jnp.arange(n) // 3 % 2
    _, out = env.step((tasks, place, key), action, jnp.ones(n, bool))
    for s in range(3):
        for a in range(2):
            rows = (place == s) & (action == a)
            np.testing.assert_allclose(out.obs[rows].mean(axis=0), task.transition[0, s, a], atol=0.02)
            np.testing.assert_allclose(out.reward[rows].mean(), task.reward[0, s, a], atol=0.05)
            np.testing.assert_allclose(out.reward[rows].std(), 1.0, atol=0.05)


def test_tasks_come_from_the_published_distributions():
    env = TabularMdp(n_train=40, n_test=30)
    np.testing.assert_array_equal(TabularMdp(n_train=10).train_tasks.reward, env.train_tasks.reward[:10])
    np.testing.assert_array_equal(TabularMdp(n_train=50).train_tasks.reward[40:], env.test_tasks.reward[:10])
    for tasks in (env.train_tasks, env.sample_tasks(KEY, 60)):
        np.testing.assert_allclose(tasks.transition.sum(axis=-1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(
            tasks.transition.std(), np.sqrt(0.1 * 0.9 / 11), rtol=0.03
        )  # of a flat Dirichlet over ten
        np.testing.assert_allclose([tasks.reward.mean(), tasks.reward.std()], 1.0, atol=0.08)


def test_backward_induction_is_a_loop_over_states():
    task = TabularMdp(states=4, actions=3).sample_tasks(KEY, 2)
    found = np.asarray(action_values(task.transition, task.reward, 5))
    for i in range(2):
        value = np.zeros(4)
        for t in reversed(range(5)):
            q = np.array(
                [[task.reward[i, s, a] + task.transition[i, s, a] @ value for a in range(3)] for s in range(4)]
            )
            np.testing.assert_allclose(found[t, i], q, rtol=1e-5)
            value = q.max(axis=1)


def test_oracle_gets_what_backward_induction_promises():
    env = TabularMdp(episodes=1)
    tasks = env.sample_tasks(KEY, 4000)
    promised = action_values(tasks.transition, tasks.reward, 10)[0, :, 0].max(axis=-1)
    np.testing.assert_allclose(scores(env, Oracle(env), tasks).mean(), promised.mean(), rtol=0.01)
    any_action = rollout.Scripted(
        lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec
    )
    np.testing.assert_allclose(scores(env, any_action, tasks).mean(), 10.0, rtol=0.02)


def test_optimistic_mean_solves_its_linear_program():
    rng = np.random.default_rng(0)
    for radius in (0.0, 0.3, 1.0, 2.0):
        mean, value = rng.dirichlet(np.ones(5)), rng.normal(size=5)
        found = tabular_players.optimistic_mean(
            jnp.asarray(mean)[None, None, None], jnp.full((1, 1, 1), radius), jnp.asarray(value)[None]
        )
        # maximise p . value with p >= 0, sum p = 1, sum |p - mean| <= radius: variables p and its distances
        objective = np.concatenate([-value, np.zeros(5)])
        eye = np.eye(5)
        above = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, 5)), np.ones((1, 5))]])
        limit = np.concatenate([mean, -mean, [radius]])
        best = linprog(objective, above, limit, [[1.0] * 5 + [0.0] * 5], [1.0], bounds=(0, None))
        np.testing.assert_allclose(found[0, 0, 0], -best.fun, atol=1e-5)


def test_draws_come_from_the_posterior():
    n = 3000
    counts = jnp.zeros((n, 2, 1, 2)).at[:, 0, 0].set(jnp.asarray([3.0, 1.0]))
    rewards = jnp.zeros((n, 2, 1)).at[:, 0, 0].set(12.0)
    seen = tabular_players.Seen(counts, rewards, jnp.zeros((n, 1, 2, 1)), jnp.zeros(n, jnp.int32))
    transition, reward = tabular_players.draw(seen, KEY)
    np.testing.assert_allclose(transition[:, 0, 0].mean(axis=0), [4 / 6, 2 / 6], atol=0.02)
    np.testing.assert_allclose(transition[:, 0, 0, 0].std(), np.sqrt(4 * 2 / 36 / 7), atol=0.01)
    np.testing.assert_allclose([reward[:, 0, 0].mean(), reward[:, 0, 0].std()], [13 / 5, 5**-0.5], atol=0.03)
    np.testing.assert_allclose([reward[:, 1, 0].mean(), reward[:, 1, 0].std()], [1.0, 1.0], atol=0.06)


def test_players_learn():
    """All beat random (100 in ten episodes) by far, none the oracle, and later episodes are better than the first."""
    env = TabularMdp()
    tasks = env.sample_tasks(KEY, 40)
    best = scores(env, Oracle(env), tasks).mean()
    for name, player in env.players().items():
        run = jax.jit(lambda k, p=player: rollout.trial(env, p, (), tasks, k, episodes=10)[0].reward)
        returns = np.asarray(run(KEY)).sum(axis=(2, 3))  # [K, N]
        assert 115 < returns.sum(axis=0).mean() < best, name
        assert returns[-2:].mean() > returns[:2].mean() + 2.0, name


def test_a_player_counts_what_is_valid_only():
    env = TabularMdp(states=3, actions=2)
    player = env.players()["greedy"]
    memory = player.begin((), KEY, (2, 1))
    obs, after = jax.nn.one_hot(jnp.asarray([[0], [1]]), 3), jax.nn.one_hot(jnp.asarray([[2], [2]]), 3)
    seen = rollout.Transition(
        obs, jnp.asarray([[1], [0]]), jnp.full((2, 1), 5.0), after, *[jnp.asarray([[True], [False]])] * 3
    )
    now = player.observe((), memory, seen)
    assert float(now.counts.sum()) == float(now.counts[0, 0, 1, 2]) == 1.0
    assert float(now.rewards.sum()) == float(now.rewards[0, 0, 1]) == 5.0
    np.testing.assert_array_equal(now.t, [1, 0])


@pytest.mark.parametrize("field", ["states", "actions", "horizon", "episodes", "n_train", "n_test"])
def test_impossible_sizes_are_refused(field):
    with pytest.raises(ValueError, match=rf"tabular-mdp: {field} must be at least"):
        TabularMdp(**{field: 0})


def test_a_task_is_a_pytree_of_two_tables():
    assert isinstance(TabularMdp(n_train=2).train_tasks, Mdp)
