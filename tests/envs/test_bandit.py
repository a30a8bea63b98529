"""Bandits against their definition, and the classical players against published indices and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import rollout
from nacre.envs import bandit_players
from nacre.envs.bandit import Bandit
from nacre.evaluate import Oracle

KEY = jax.random.key(0)


def scores(env: Bandit, player, tasks, key=KEY) -> np.ndarray:
    """Sum of rewards per trial."""
    memory = player.start(tasks) if isinstance(player, Oracle) else None
    run = jax.jit(lambda k: rollout.trial(env, player, (), tasks, k, episodes=env.pulls, memory=memory)[0].reward)
    return np.asarray(run(key)).sum(axis=(0, 2, 3))


def test_arms_pay_with_their_probabilities():
    env = Bandit(arms=3)
    tasks = jnp.tile(jnp.asarray([[0.1, 0.5, 0.9]]), (30_000, 1))
    arm = jnp.arange(30_000) % 3
    state, obs = env.reset(KEY, tasks)
    _, out = env.step(state, arm, jnp.ones(30_000, bool))
    np.testing.assert_allclose([out.reward[arm == i].mean() for i in range(3)], [0.1, 0.5, 0.9], atol=0.02)
    assert set(np.unique(out.reward)) == {0.0, 1.0} and not obs.any() and not out.obs.any()


def test_tasks_are_uniform_and_held_out_ones_are_others():
    env = Bandit(arms=4, n_train=500, n_test=300)
    assert env.train_tasks.shape == (500, 4) and env.test_tasks.shape == (300, 4)
    np.testing.assert_array_equal(Bandit(arms=4, n_train=100).train_tasks, env.train_tasks[:100])
    assert not np.isin(env.test_tasks, env.train_tasks).any()
    for tasks in (env.train_tasks, env.sample_tasks(KEY, 2000)):
        np.testing.assert_allclose([tasks.mean(), tasks.std()], [0.5, 12**-0.5], atol=0.02)


def test_oracle_pulls_the_best_arm_and_random_has_half():
    env = Bandit(arms=5, pulls=20)
    tasks = env.sample_tasks(KEY, 2000)
    best = scores(env, Oracle(env), tasks)
    np.testing.assert_allclose(best.mean(), 20 * 5 / 6, rtol=0.01)  # the expected maximum of five uniform numbers
    any_arm = rollout.Scripted(lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec)
    np.testing.assert_allclose(scores(env, any_arm, tasks).mean(), 10.0, rtol=0.02)


def test_gittins_indices_are_the_published_ones():
    """Gittins, Glazebrook and Weber 2011, tables of the Bernoulli reward process: alpha wins and beta losses with the prior's
    one of each, discount 0.9 and 0.99."""
    table = bandit_players.gittins_table(0.9, 8, levels=2000)
    found = [table[0, 0], table[1, 0], table[0, 1], table[1, 1], table[2, 0]]
    np.testing.assert_allclose(found, [0.7029, 0.8001, 0.5001, 0.6346, 0.8452], atol=2e-4)
    np.testing.assert_allclose(bandit_players.gittins_table(0.99, 2, levels=2000)[0, 0], 0.8699, atol=2e-4)
    assert (np.diff(table[:8, 0]) > 0).all() and (np.diff(table[0, :8]) < 0).all()


def test_arms_pulled_more_often_than_the_table_holds_have_their_mean():
    seen = bandit_players.Counts(jnp.array([[3.0, 9.0]]), jnp.array([[2.0, 4.0]]))
    score = bandit_players.gittins(0.9, 10)(seen, KEY)
    np.testing.assert_allclose(score[0], [bandit_players.gittins_table(0.9, 10)[3, 2], 10 / 15], rtol=1e-5)


def test_players_have_their_published_scores():
    """Sums of rewards of RL^2's table for ten pulls of five arms, whose own standard error is unknown; ours is 0.03."""
    env = Bandit(arms=5, pulls=10)
    tasks = env.sample_tasks(jax.random.key(5), 4000)
    known = env.players()
    for name, published in {
        "Gittins index": 6.6,
        "Thompson sampling": 5.7,
        "epsilon-greedy": 6.6,
        "greedy": 6.6,
    }.items():
        found = scores(env, known[name], tasks).mean()
        assert abs(found - published) < 0.16, (name, found)
    mean = {name: scores(env, player, tasks).mean() for name, player in known.items()}
    assert mean["Thompson sampling"] < mean["optimistic Thompson sampling"] < mean["Gittins index"]


def test_best_sum_is_that_by_hand_and_near_the_gittins_index():
    assert bandit_players.best_sum(1, 7) == pytest.approx(3.5)  # nothing to choose
    assert bandit_players.best_sum(2, 2) == pytest.approx(1 / 2 + (1 / 2) * (2 / 3) + (1 / 2) * (1 / 2))
    # three pulls of two arms: a win is stayed with; after a loss the other arm, and after two losses it does not matter
    third = (2 / 3) * (3 / 4) + (1 / 3) * (1 / 2), (1 / 2) * (2 / 3) + (1 / 2) * (1 / 3)
    assert bandit_players.best_sum(2, 3) == pytest.approx(1 / 2 + (2 / 3 + third[0]) / 2 + (1 / 2 + third[1]) / 2)
    assert bandit_players.best_sum(10, 10) == bandit_players.best_sum(50, 10) > bandit_players.best_sum(5, 10)
    env = Bandit(arms=5, pulls=10)
    sums = scores(env, env.players()["Gittins index"], env.sample_tasks(KEY, 20_000))  # near to the best there is
    assert abs(sums.mean() - bandit_players.best_sum(5, 10)) < 3 * sums.std() / len(sums) ** 0.5 + 0.02
    with pytest.raises(ValueError, match="arms=0"):
        bandit_players.best_sum(0, 3)


@pytest.mark.parametrize("name", ["Thompson sampling", "UCB1", "Gittins index"])
def test_regret_falls(name):
    """They find the best arm: the last pulls of a long trial lose little, the first ones as much as random."""
    env = Bandit(arms=2, pulls=300)
    tasks = jnp.tile(jnp.asarray([[0.2, 0.7]]), (300, 1))
    player = env.players()[name]
    run = jax.jit(lambda k: rollout.trial(env, player, (), tasks, k, episodes=300)[0].action)
    best = np.asarray(run(KEY))[:, :, 0, 0] == 1  # [K, N]
    assert 0.35 < best[0].mean() < 0.65 and best[-50:].mean() > 0.9


def test_a_player_counts_what_is_valid_only():
    env = Bandit(arms=3)
    player = env.players()["greedy"]
    memory = player.begin((), KEY, (2, 1))
    action, reward = jnp.asarray([[1], [2]]), jnp.asarray([[1.0], [1.0]])
    seen = rollout.Transition(
        jnp.zeros((2, 1, 1)), action, reward, jnp.zeros((2, 1, 1)), *[jnp.asarray([[True], [False]])] * 3
    )
    after = player.observe((), memory, seen)
    np.testing.assert_array_equal(after.wins, [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(after.losses, 0)


@pytest.mark.parametrize(("field", "value"), [("arms", 1), ("pulls", 0), ("n_train", 0), ("n_test", 0)])
def test_impossible_sizes_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"bandit: {field} must be at least"):
        Bandit(**{field: value})
