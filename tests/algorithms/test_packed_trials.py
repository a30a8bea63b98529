"""Trials laid one after another into rows: every step where it belongs, and the same gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ender import Ender
from nacre import rollout
from nacre.algorithms.rl2 import RL2, Config
from nacre.updates import ppo
from nacre.updates.trials import packed, sequences

KEY = jax.random.key(0)


def test_each_trial_lies_behind_the_one_before_and_what_has_no_room_is_left_out():
    valid = np.zeros((5, 6), bool)
    for i, steps in enumerate([[0, 3], [1, 2, 4], [0, 1, 5], [], [2, 3]]):
        valid[i, steps] = True
    number = np.arange(30).reshape(5, 6)
    (found,), there, held = jax.jit(partial(packed, rows=2))((jnp.asarray(number),), jnp.asarray(valid))
    assert np.where(there, found, -1).tolist() == [[0, 3, 7, 8, 10, -1], [12, 13, 17, 26, 27, -1]]
    assert float(held) == 1.0
    (found,), there, held = jax.jit(partial(packed, rows=1))((jnp.asarray(number),), jnp.asarray(valid))
    assert np.where(there, found, -1).tolist() == [[0, 3, 7, 8, 10, -1]]
    assert float(held) == pytest.approx(0.5)


@pytest.mark.parametrize("options", [
    dict(core="gru"), dict(core="attention", heads=2, memory_reset="episode"), dict(core="attention", heads=2),
    dict(core="per-action", input_obs=True),
])  # fmt: skip
def test_the_gradient_is_that_of_trials_in_rows_of_their_own(options):
    env, common = Ender(), dict(width=8, tasks_per_iteration=6, updates_per_epoch=2)
    rl2, other = (RL2(Config(**common, **options, pack_rows=rows), env.spec) for rows in (0, 4))

    @jax.jit
    def gradients(key):
        nets = jax.tree.map(lambda x: x * 3, rl2.networks(key))
        data, _ = rollout.trial(env, rl2, nets, env.sample_tasks(key, 6), key, episodes=3, explore=True)
        seen = sequences(data, env.spec)
        seen = seen._replace(valid=seen.valid & (jnp.arange(15) < jnp.asarray([[15], [5], [8], [4], [9], [6]])))
        batch = seen, *rl2.targets(seen, jnp.ones(()), 0)
        rows, valid, held = packed(batch, seen.valid, 4)
        rows = rows[0]._replace(valid=valid), *rows[1:]
        slope = jax.grad(lambda agent, nets, batch: agent.objective(nets, batch)[0], argnums=1)
        return slope(rl2, nets, batch), slope(other, nets, rows), held, seen.valid

    alone, together, held, valid = gradients(KEY)
    assert float(held) == 1.0 and 0 < np.asarray(valid).mean() < 0.6
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5 * max(1.0, float(np.abs(a).max())))
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(alone)) > 1e-3


def test_an_iteration_learns_from_rows():
    env = Ender()
    rl2 = RL2(Config(core="gru", width=8, tasks_per_iteration=6, updates_per_epoch=2, pack_rows=2), env.spec)
    state = rl2.init(KEY, env, 0)
    after, metrics = jax.jit(lambda s, k: rl2.iterate(s, env, k, "iteration"))(state, KEY)
    assert 0.2 < float(metrics["learn/packed"]) <= 1.0 and set(metrics) <= set(rl2.metrics_help)
    assert int(after.updates) == 2 * 5 and all(np.isfinite(float(x)) for x in metrics.values())


@pytest.mark.parametrize(("rows", "message"), [
    (5, r"updates_per_epoch \(2\) must divide pack_rows \(5\)"), (8, r"pack_rows \(8\) must not be above .* \(6\)"),
    (-1, "pack_rows must not be negative"),
])  # fmt: skip
def test_impossible_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Config(tasks_per_iteration=6, updates_per_epoch=2, pack_rows=rows)


def test_learning_rates_fall_with_the_env_steps_seen():
    assert ppo.falling(1e-3, 0, 50) == 1e-3
    found = [float(ppo.falling(1e-3, 100, jnp.asarray(now))) for now in (0, 50, 100, 500)]
    np.testing.assert_allclose(found, [1e-3, 5.25e-4, 5e-5, 5e-5], rtol=1e-5)
    optimiser = ppo.adam()
    change, _ = optimiser.update(jnp.asarray([3.0, -0.1]), optimiser.init(jnp.zeros(2)))
    np.testing.assert_allclose(ppo.moved(jnp.ones(2), change, 0.01), [0.99, 1.01], rtol=1e-4)
