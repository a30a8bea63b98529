"""Episodes that end early: rows that are over, and rows that begin again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import rollout
from nacre.algorithms import registry
from nacre.algorithms.pearl import PEARL, Config
from nacre.envs.cheetah import CheetahDir
from nacre.envs.grid_navi import GridNavi
from nacre.types import Box, EnvSpec, Step

SPEC = EnvSpec("toy", obs_size=2, action=Box((-1.0,), (1.0,)), horizon=6, jittable=False, can_terminate=True)


class Toy:
    """Row i's episodes take as many env steps as its task says; obs is (env steps taken, episode), reward 1 per step."""

    spec = SPEC
    train_tasks = test_tasks = np.array([2.0, 3.0, 9.0], np.float32)

    def reset(self, key, tasks):
        state = np.zeros((len(tasks), 2), np.float32)
        return (state, np.asarray(tasks)), state

    def restart(self, key, state, over):
        state, tasks = state
        state = np.where(over[:, None], np.stack([0 * state[:, 0], state[:, 1] + 1], axis=1), state)
        return (state, tasks), state

    def step(self, state, action, active):
        state, tasks = state
        state = state + np.array([1.0, 0.0], np.float32) * active[:, None]
        reward = np.ones(len(tasks), np.float32)
        return (state, tasks), Step(state, reward, reward, (state[:, 0] == tasks) & active, {})


class Held:
    """Acts with the number that its memory holds."""

    spec, observes = SPEC, False

    def begin(self, params, key, rows):
        return jnp.zeros(rows)

    def act(self, params, memory, obs, key, explore):
        return memory[..., None], (), memory


def play(env=None, **kwargs):
    env = env or Toy()
    memory = jnp.zeros((3, 1))
    return rollout.episode(env, Held(), (), memory, env.train_tasks, jax.random.key(0), **kwargs)[0]


def test_rows_that_are_over_are_masked():
    data = play()
    assert data.valid.sum(axis=-1)[:, 0].tolist() == [2, 3, 6]
    assert data.reward.sum() == 11 and data.terminal.sum() == 2
    assert rollout.mean_return(data) == pytest.approx(11 / 3)


def test_with_new_memories_every_row_is_full():
    drawn = []

    def refill(key, memory, over):
        drawn.append(key)
        return jnp.where(over, 0.1 * len(drawn), memory)

    data = play(refill=refill)
    assert data.valid.all() and data.reward.sum() == 18
    assert data.obs[0, 0, :, 0].tolist() == [0, 1, 0, 1, 0, 1] and data.obs[0, 0, :, 1].tolist() == [0, 0, 1, 1, 2, 2]
    assert data.next_obs[0, 0, :, 0].tolist() == [1, 2, 1, 2, 1, 2]
    assert data.obs[1, 0, :, 0].tolist() == [0, 1, 2, 0, 1, 2] and data.obs[2, 0, :, 0].tolist() == list(range(6))
    assert data.terminal[0, 0].tolist() == [False, True] * 3 and not data.terminal[2].any()
    # a row acts with the memory drawn when it began, the others keep theirs
    np.testing.assert_allclose(data.action[0, 0, :, 0], [0, 0, 0.1, 0.1, 0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(data.action[1, 0, :, 0], [0, 0, 0, 0.2, 0.2, 0.2], rtol=1e-6)
    assert not data.action[2].any() and len(drawn) == 3  # nobody begins again at the very end
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in drawn}) == 3
    assert rollout.mean_return(data) == pytest.approx(18 / 6)  # three, two and one episode


def test_a_piece_that_the_rows_end_cuts_is_no_episode():
    env = Toy()
    env.train_tasks = np.array([4.0, 4.0, 4.0], np.float32)
    data = play(env, refill=lambda key, memory, over: memory)
    assert data.valid.all() and rollout.mean_return(data) == 4  # not (4 + 2) / 2


def test_beliefs_of_a_trial_are_those_that_an_episode_begins_with():
    class Counting(Held):
        observes = True

        def observe(self, params, memory, transition):
            return memory + transition.valid

        def adapt(self, params, memory, episodes, key):
            return memory + 100

        def beliefs(self, params, memory):
            return {"mean": memory}

    env = Toy()
    _, beliefs = rollout.trial(env, Counting(), (), env.train_tasks, jax.random.key(0), episodes=2)
    assert beliefs["mean"][:, :, 0].tolist() == [[0, 0, 0], [102, 103, 106]]


class InJax:
    """The same toy as pure JAX."""

    spec = dataclasses.replace(SPEC, jittable=True)
    train_tasks = test_tasks = Toy.train_tasks

    def reset(self, key, tasks):
        state = jnp.zeros((len(tasks), 2))
        return (state, tasks), state

    def restart(self, key, state, over):
        state, tasks = state
        state = jnp.where(over[:, None], jnp.stack([0 * state[:, 0], state[:, 1] + 1], axis=1), state)
        return (state, tasks), state

    def step(self, state, action, active):
        state, tasks = state
        state = state + jnp.array([1.0, 0.0]) * active[:, None]
        reward = jnp.ones(len(tasks))
        return (state, tasks), Step(state, reward, reward, (state[:, 0] == tasks) & active, {})


@pytest.mark.parametrize("refilled", [True, False])
def test_families_in_jax_do_the_same(refilled):
    """One compiled program, the same episodes."""

    def refill(key, memory, over):
        return jnp.where(over, memory + 0.1, memory)

    kwargs = {"refill": refill} if refilled else {}
    here, there = play(**kwargs), play(InJax(), **kwargs)
    for name in ("obs", "next_obs", "action", "reward", "terminal", "valid"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-6, err_msg=name)


def test_environments_that_cannot_begin_again_are_left_alone():
    class Without(Toy):
        restart = property(lambda self: (_ for _ in ()).throw(AttributeError("no restart")))

    assert rollout.refillable(Toy()) and not rollout.refillable(Without()) and not rollout.refillable(GridNavi())
    data = play(Without(), refill=lambda *_: pytest.fail("asked for memories"))
    assert data.valid.sum(axis=-1)[:, 0].tolist() == [2, 3, 6]


def test_pearl_collects_what_its_configuration_says():
    """However early episodes end: initial_steps per task, then prior_steps and extra_steps per visit."""
    env = Toy()
    config = Config(initial_steps=12, prior_steps=6, extra_steps=12, tasks_per_iteration=2, updates_per_iteration=10,
                    updates_per_slice=10, meta_batch=2, batch_size=4, context_batch=4, hidden=(8,),
                    encoder_hidden=(8,))  # fmt: skip
    algorithm = PEARL(config, SPEC)
    state = algorithm.init(jax.random.key(0), env, 200)
    state, metrics = algorithm.iterate(state, env, jax.random.key(1), "initial")
    assert int(state.env_steps) == 3 * 12 and state.replay.total.tolist() == [12, 12, 12]
    assert metrics["collect/return_prior"] == pytest.approx(36 / (6 + 4 + 2))
    state, metrics = algorithm.iterate(state, env, jax.random.key(2), "collect")
    assert int(state.env_steps) == 36 + 2 * 18
    assert 2 <= metrics["collect/return_posterior"] <= 6


@pytest.mark.parametrize("name, options", [("promp", {"epochs": 1}), ("maesn", {"outer": "gradient"})])
def test_on_the_host_nothing_is_compiled_twice(name, options, caplog):
    """Programs are kept for good, so that compiling at each call ends a long run for want of memory."""
    env = CheetahDir(horizon=3)
    algorithm = registry.make_algorithm(
        name, env.spec, dict(hidden=(4,), tasks_per_iteration=2, episodes_per_step=2) | options
    )
    key = jax.random.key(0)
    state = algorithm.init(key, env, 0)

    def work(key):
        rollout.trial(env, algorithm, algorithm.params(state), env.test_tasks, key, episodes=algorithm.test_episodes)
        algorithm.iterate(state, env, key, "iteration")

    work(key)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        work(jax.random.key(1))
    assert [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()] == []
