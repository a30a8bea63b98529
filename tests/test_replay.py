"""The replay against plain Python lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import replay
from nacre.types import Box, Discrete, EnvSpec, Trajectory

SPEC = EnvSpec("toy", 2, Box((-1.0,), (1.0,)), horizon=5, jittable=True, can_terminate=True)
TASKS = 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(replay, "block_size", lambda spec: 5)


def episodes(start: int, tasks: list[int], lengths: list[int], parallel: int = 1) -> Trajectory:
    """Episodes whose reward counts up from `start`, so that every transition has a number of its own."""
    n, e, t = len(tasks), parallel, SPEC.horizon
    length = np.resize(lengths, (n, e))
    valid = np.arange(t) < length[..., None]
    number = start + np.arange(n * e * t, dtype=np.float32).reshape(n, e, t)
    number = np.where(valid, number, -1.0)
    obs = np.stack([number, -number], axis=-1)
    return Trajectory(obs, number[..., None] / 1e4, number, 2 * number, obs + 0.5, valid & (number % 2 == 0), valid)


class Lists:
    """The slow truth: per task all numbers in order of arrival."""

    def __init__(self):
        self.kept = {t: [] for t in range(TASKS)}
        self.window = {t: [] for t in range(TASKS)}

    def add(self, tasks, data, recent):
        for row, task in enumerate(tasks):
            for e in range(data.valid.shape[1]):
                new = data.reward[row, e][data.valid[row, e]].tolist()
                self.kept[task] += new
                if recent:
                    self.window[task] += new


def numbers(r, task, recent=False, n=400):
    batch = replay.sample(r, jax.random.key(1), jnp.array([task]), n, recent=recent)
    assert batch.reward.shape == (1, n)
    reward = np.asarray(batch.reward[0])
    np.testing.assert_allclose(batch.train_reward[0], 2 * reward)
    np.testing.assert_allclose(batch.obs[0, :, 1], -reward)
    np.testing.assert_allclose(batch.next_obs[0, :, 0], reward + 0.5)
    np.testing.assert_allclose(batch.action[0, :, 0], reward / 1e4, rtol=1e-6)
    np.testing.assert_allclose(batch.terminal[0], reward % 2 == 0)
    return set(reward.tolist())


def test_samples_all_and_only_what_each_task_has():
    r, truth = replay.create(SPEC, TASKS, 200), Lists()
    for i, (tasks, lengths) in enumerate([([0, 1], [5, 3]), ([1, 2], [2, 5]), ([0, 0], [4, 1]), ([2, 1], [5, 5])]):
        data = episodes(100 * i, tasks, lengths, parallel=2)
        r = replay.append(r, SPEC, jnp.array(tasks), data, recent=i % 2 == 0)
        truth.add(tasks, data, recent=i % 2 == 0)
    for task in range(TASKS):
        assert numbers(r, task) == set(truth.kept[task])
        assert int(r.total[task]) == len(truth.kept[task])


def test_recent_window_starts_where_it_was_cleared():
    r, truth = replay.create(SPEC, TASKS, 200), Lists()
    old = episodes(0, [0, 1], [5, 5])
    r = replay.append(r, SPEC, jnp.array([0, 1]), old, recent=True)
    truth.add([0, 1], old, recent=True)
    r = replay.clear_window(r, jnp.array([0]))
    truth.window[0] = []
    new, extra = episodes(100, [0], [4]), episodes(200, [0], [5])
    r = replay.append(r, SPEC, jnp.array([0]), new, recent=True)
    r = replay.append(r, SPEC, jnp.array([0]), extra, recent=False)  # RL data only
    truth.add([0], new, recent=True)
    for task in (0, 1):
        assert numbers(r, task, recent=True) == set(truth.window[task])
    assert numbers(r, 0) == {*range(5), *range(100, 104), *range(200, 205)}


def fill(r, rounds):
    kept = []
    for i in range(rounds):
        task = [0, 1, 0, 2][i % 4]
        data = episodes(10 * i, [task], [5])
        r = replay.append(r, SPEC, jnp.array([task]), data, recent=True)
        kept += [(task, x) for x in range(10 * i, 10 * i + 5)]
    return r, kept


def test_a_full_store_forgets_the_oldest_block_first():
    r = replay.create(SPEC, TASKS, 20)  # 4 blocks and 3 open ones
    assert r.blocks == 7
    r, kept = fill(r, 17)
    kept = kept[-7 * 5 :]
    for task in range(TASKS):
        assert numbers(r, task) == {x for t, x in kept if t == task}


def test_a_block_that_is_reused_while_its_task_still_fills_it():
    r = replay.create(SPEC, TASKS, 20)
    r = replay.append(r, SPEC, jnp.array([1]), episodes(900, [1], [3]), recent=True)  # leaves its block open
    for k in range(7):  # as many as there are
        r = replay.append(r, SPEC, jnp.array([0]), episodes(10 * k, [0], [5]), recent=True)
    assert int(r.oldest[1]) == int(r.total[1])  # nothing is left of task 1
    r = replay.append(r, SPEC, jnp.array([1]), episodes(800, [1], [2]), recent=True)
    assert numbers(r, 1) == numbers(r, 1, recent=True) == {800, 801}
    assert numbers(r, 0) == {10 * k + i for k in range(1, 7) for i in range(5)}


@pytest.mark.parametrize("rounds", [5, 17])
def test_growing_keeps_the_content_and_the_order(rounds):
    r, kept = fill(replay.create(SPEC, TASKS, 20), rounds)
    r = replay.grow(r, 11)
    kept = kept[-7 * 5 :]
    for task in range(TASKS):
        assert numbers(r, task) == {x for t, x in kept if t == task}
    for i in range(100, 109):
        r = replay.append(r, SPEC, jnp.array([1]), episodes(10 * i, [1], [5]), recent=True)
        kept += [(1, x) for x in range(10 * i, 10 * i + 5)]
    for task in range(TASKS):
        assert numbers(r, task) == {x for t, x in kept[-11 * 5 :] if t == task}
    with pytest.raises(ValueError, match="cannot shrink"):
        replay.grow(r, 3)


def test_sequences_are_consecutive_and_masked_when_short():
    r = replay.create(SPEC, TASKS, 200)
    for i in range(3):
        r = replay.append(r, SPEC, jnp.array([0, 1]), episodes(10 * i, [0, 1], [5, 2]), recent=True)
    batch, valid = replay.sample_sequence(r, jax.random.key(0), jnp.array([0, 1]), 8)
    assert valid[0].all() and valid[1].sum() == 6  # task 1 has six transitions
    kept = [x for i in range(3) for x in range(10 * i, 10 * i + 5)]
    first = kept.index(int(batch.reward[0, 0]))
    np.testing.assert_array_equal(batch.reward[0], kept[first : first + 8])


def test_discrete_actions_come_back_one_hot():
    spec = EnvSpec("toy", 2, Discrete(3), horizon=5, jittable=True)
    r = replay.create(spec, 1, 20)
    data = episodes(0, [0], [5])._replace(action=np.array([[[0, 2, 1, 2, 0]]]))
    r = replay.append(r, spec, jnp.array([0]), data, recent=True)
    batch, _ = replay.sample_sequence(r, jax.random.key(0), jnp.array([0]), 5)
    np.testing.assert_array_equal(batch.action[0].argmax(axis=-1), [0, 2, 1, 2, 0])
    np.testing.assert_array_equal(batch.action[0].sum(axis=-1), 1)
