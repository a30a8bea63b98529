"""A memory for each pair of a state and an action, and its plan: against plain loops, and under other numbers of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nacre
from nacre import rollout
from nacre.algorithms.rl2 import RL2, Config
from nacre.envs.bandit import Bandit
from nacre.envs.point_robot import PointRobot
from nacre.envs.tabular import TabularMdp
from nacre.per_pair import PerPairCore
from nacre.updates.trials import sequences

KEY = jax.random.key(0)
STATES, ACTIONS, WIDTH, DEPTH = tuple(map(tuple, np.eye(3).tolist())), 2, 4, 3
OPTIONS = dict(core="per-pair", input_obs=True, width=WIDTH, plan_steps=DEPTH, tasks_per_iteration=4, epochs=1)


def inputs(seed=0, rows=3, steps=7, state=(0, 1, 2), action=(0, 1)):
    """States, the ones before, actions, rewards and ends as the core sees them, their numbers changed by `state` and `action`."""
    rng = np.random.default_rng(seed)
    s, a = rng.integers(0, 3, (rows, steps)), rng.integers(0, 2, (rows, steps))
    before = np.concatenate([np.zeros((rows, 1), int), s[:, :-1]], axis=1)
    reward, over = rng.normal(size=(rows, steps, 1)), rng.uniform(size=(rows, steps, 1)) < 0.2
    chosen = np.eye(2)[np.asarray(action)[a]] * (np.arange(steps) > 0)[:, None]
    eye, number = np.eye(3), np.asarray(state)
    x = np.concatenate(
        [eye[number[s]], eye[number[before]], chosen, reward * (np.arange(steps) > 0)[:, None], over], axis=-1
    )
    return jnp.asarray(x, jnp.float32), s, before, a


def planned(reward, counts, depth):
    """Value iteration on the mean of the posterior: action values [depth, S, A]."""
    chance, value, found = (counts + 1) / (counts + 1).sum(axis=-1, keepdims=True), np.zeros(len(reward)), []
    for _ in range(depth):
        q = reward + chance @ value
        value = q.max(axis=-1)
        found.append(q)
    return np.stack(found)


def test_the_pair_that_was_tried_is_brought_up_to_date_and_planned_with():
    core = PerPairCore(STATES, WIDTH, ACTIONS, DEPTH, key=KEY)
    x, s, before, a = inputs()
    state, once = core.begin((3,)), jax.jit(lambda x, state: core.once(x, state))
    own, every = [jax.jit(lambda x, h, cell=cell: cell.once(x, h)) for cell in (core.own, core.common)]
    rewards = jax.jit(lambda *args: core.rewards(*args))
    cells, counts = np.zeros((3, 3, 2, WIDTH), np.float32), np.zeros((3, 3, 2, 3))
    common = np.zeros((3, WIDTH), np.float32)
    for t in range(7):
        state = once(x[:, t], state)
        seen, pair = x[:, t, -2:], (np.arange(3), before[:, t], a[:, t])
        if t:
            cells[pair] = own(seen, cells[pair])
            counts[(*pair, s[:, t])] += np.asarray(seen[:, 1]) == 0
        common = np.asarray(every(seen, common))
        np.testing.assert_allclose(state.cells, cells, atol=1e-6)
        np.testing.assert_array_equal(state.counts, counts)
        out = np.asarray(core.output(state)).reshape(3, ACTIONS + 1, WIDTH + DEPTH)
        for i, reward in enumerate(np.asarray(rewards(cells, common))):
            q = planned(reward, counts[i], DEPTH)[:, s[i, t]]  # [depth, A]
            np.testing.assert_allclose(out[i, :ACTIONS, :WIDTH], cells[i, s[i, t]], atol=1e-6)
            np.testing.assert_allclose(out[i, :ACTIONS, WIDTH:], (q - q.max(axis=-1, keepdims=True)).T, atol=1e-5)
            np.testing.assert_allclose(out[i, -1, :WIDTH], common[i], atol=1e-6)
            np.testing.assert_allclose(out[i, -1, WIDTH:], q.max(axis=-1) / (np.arange(DEPTH) + 1), atol=1e-5)
    assert counts.sum() > 8 and np.abs(out[:, :ACTIONS, WIDTH:]).max() > 1e-2


def test_sweep_is_the_core_step_by_step():
    core, steps, truncate = PerPairCore(STATES, WIDTH, ACTIONS, 2, key=KEY), 4, 2
    core = jax.tree.map(lambda x: 3 * x, core)
    x = inputs(steps=steps)[0]
    valid = jnp.asarray([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0]], bool)
    fresh = jnp.zeros((3, steps), bool).at[0, 3].set(True).at[2, 1].set(True)

    def loop(core, x):
        state, out = core.begin((3,)), []
        for t in range(steps):
            state = jax.lax.stop_gradient(state) if t % truncate == 0 else state
            start = core.kept(fresh[:, t] & valid[:, t], core.begin((3,)), state)
            state = core.kept(valid[:, t], core.once(x[:, t], start), start)
            out.append(core.output(state))
        return jnp.stack(out, axis=1)

    def swept(core, x):
        return core(x, core.begin((3,)), valid, fresh, truncate)[0]

    def slope(of):
        def loss(core, x):
            out = jnp.where(valid[..., None], of(core, x), 0.0)
            return (out**2).sum(), out

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(core, x)

    found, expected = slope(swept), slope(loop)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert all(np.abs(a).max() > 0 for a in jax.tree.leaves(found[0][0].own))


def test_numbers_of_states_and_actions_mean_nothing():
    env = TabularMdp(states=3, actions=2, n_train=2, n_test=2)
    rl2 = RL2(Config(**OPTIONS), env.spec)
    nets = jax.tree.map(lambda x: x * 3, rl2.networks(KEY))

    @jax.jit
    def says(x):
        h, _ = nets.core(x, nets.core.begin((3,)))
        return nets.policy(h), nets.value(h)

    policy, value = says(inputs()[0])
    other, same = says(inputs(state=(2, 0, 1), action=(1, 0))[0])
    np.testing.assert_allclose(policy, other[..., ::-1], atol=1e-6)
    np.testing.assert_allclose(value, same, atol=1e-6)
    assert float(np.abs(policy[..., 0] - policy[..., 1]).max()) > 1e-3


def test_learning_sees_what_acting_saw():
    env = TabularMdp(states=3, actions=2, episodes=2, n_train=2, n_test=2)
    rl2 = RL2(Config(**OPTIONS), env.spec)

    @jax.jit
    def both(key):
        nets = jax.tree.map(lambda x: x * 3, rl2.networks(key))
        data, _ = rollout.trial(env, rl2, nets, env.sample_tasks(key, 4), key, episodes=2, explore=True)
        seen = sequences(data, env.spec)
        actions, value = rl2.sweep(nets, seen)
        return actions.log_prob(seen.action), value, seen.extras

    log_prob, value, extras = both(KEY)
    np.testing.assert_allclose(log_prob, extras["log_prob"], atol=1e-5)
    np.testing.assert_allclose(value, extras["value"], atol=1e-5)


def test_families_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="set input_obs"):
        Config(core="per-pair")
    with pytest.raises(ValueError, match=r"point-robot .*continuous"):
        RL2(Config(**OPTIONS), PointRobot().spec)
    spec = Bandit().spec
    if not spec.states:
        with pytest.raises(ValueError, match="does not name its `states`"):
            RL2(Config(**OPTIONS), spec)


@pytest.mark.slow
@pytest.mark.training
def test_it_beats_what_recurrent_memories_learn_in_ten_million_env_steps(tmp_path):
    """Published RL^2 has 156.2, after 250 M env steps; ours with attention 155.4 after 20 M, on the same tasks."""
    agent = nacre.train("rl2", "tabular-mdp", seed=0, env_steps=500_000, out=tmp_path / "run", progress=False)
    assert np.sum(nacre.evaluate(agent).shots) > 156.2
