"""Rows in worker processes: the same numbers, the same errors."""

import gc
import os
import signal
import threading

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from test_gymnasium_backend import Toy, begin, step, uniform

from nacre.envs.backends.gymnasium import family, single
from nacre.envs.check_env import check_env
from nacre.envs.registry import make_family


def toys(processes, make=Toy, **kwargs):
    options = {"train": 4, "test": 2, "horizon": 10, "name": "toy", "processes": processes}
    return family(lambda task: make(task, **kwargs), uniform, **options)


def episode(env, rows=5):
    state, obs = env.reset(jax.random.key(0), np.resize(env.train_tasks, rows))
    seen = [obs]
    rng = np.random.default_rng(0)
    for t in range(6):
        if t == 3:
            state, obs = env.restart(jax.random.key(1), state, np.arange(rows) % 2 == 1)
            seen.append(obs)
        action = rng.integers(2, size=rows) if env.spec.discrete else rng.uniform(-1, 1, (rows, 1))
        state, out = env.step(state, action, np.arange(rows) != 2)
        seen += [out.obs, out.reward, out.terminal, out.info["truncated"]]
    return seen


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_give_the_same_numbers(processes):
    for here, there in zip(episode(toys(0)), episode(toys(processes)), strict=True):
        assert here.dtype == there.dtype and np.array_equal(here, there)


def test_a_registered_environment_in_two_processes():
    assert check_env(make_family("gymnasium/CartPole-v1", processes=2), jax.random.key(0)) == []
    for here, there in zip(episode(single("CartPole-v1")), episode(single("CartPole-v1", processes=2)), strict=True):
        assert np.array_equal(here, there)


def test_functions_of_a_users_file_travel(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import gymnasium, nacre\n"
        "GRAVITY = 3.0\n"
        "def make(task):\n"
        "    env = gymnasium.make('Pendulum-v1')\n"
        "    env.unwrapped.g = GRAVITY * task\n"
        "    return env\n"
        "pendulum = nacre.family(make, lambda rng, n: rng.uniform(1, 2, n), train=3, test=2, processes=2)\n"
    )
    env = make_family(f"{file}:pendulum")
    state, _ = env.reset(jax.random.key(0), env.train_tasks)
    _, out = env.step(state, np.zeros((3, 1)), np.ones(3, bool))
    assert np.isfinite(out.reward).all() and len(set(out.reward)) == 3


class Bad(Toy):
    def step(self, action):
        if self.t == 1 and self.task > 0:
            raise ZeroDivisionError("in the middle")
        return super().step(action)


def test_errors_of_the_environment_come_back_with_their_place():
    env = toys(2, make=Bad)
    state, _ = env.reset(jax.random.key(0), np.array([-1, -1, -1, 0.5], np.float32))
    state, _ = step(env, state)
    with pytest.raises(ZeroDivisionError, match="in the middle") as caught:
        step(env, state)
    assert any("toy: task 0.5, env step 1" in note for note in caught.value.__notes__)
    state, _ = begin(env)  # the workers are as good as new
    step(env, state)


def test_wrong_shapes_are_told_as_in_one_process():
    env = toys(2, obs=lambda toy: np.zeros(2) if toy.t else np.zeros(1))
    state, _ = begin(env)
    with pytest.raises(ValueError, match=r"toy: task .*, env step 0: observation has shape \(2,\)"):
        step(env, state)


def test_a_worker_that_dies_is_told():
    env = toys(2)
    state, _ = begin(env)
    env.stepper._workers[1].process.kill()
    with pytest.raises(RuntimeError, match=r"toy: a worker process ended \(exit code -9\)"):
        step(env, state)
    state, _ = begin(env)  # others have started
    step(env, state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_are_not_for_the_workers(number):
    env = toys(2)
    state, _ = begin(env)
    for worker in env.stepper._workers:
        os.kill(worker.process.pid, number)
    step(env, state)


def test_workers_end_with_the_family():
    env = toys(2)
    state, _ = begin(env)
    processes = [worker.process for worker in env.stepper._workers]
    del env, state
    assert all(process.poll() is not None for process in processes)


def test_bad_numbers_of_processes_and_makes_that_cannot_travel():
    for bad in (-1, 1.5, True):
        with pytest.raises(ValueError, match="toy: processes must be 0 or a positive whole number"):
            toys(bad)
    lock = threading.Lock()
    with pytest.raises(ValueError, match="toy: make cannot be sent to worker processes"):
        toys(2, make=lambda task: Toy(task, limit=lock and None))


class Auto(gymnasium.Env):
    observation_space = action_space = spaces.Box(-1, 1, (1,), np.float32)


def test_wrappers_that_reset_by_themselves_are_refused():
    def make(task):
        return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.Autoreset(Auto()), 5)

    with pytest.raises(ValueError, match=r"inside gymnasium.wrappers.Autoreset.*leave that wrapper out"):
        family(make, uniform, train=2, test=1, name="toy")


def test_after_an_interruption_no_answer_is_another_questions():
    env = toys(2)
    state, _ = begin(env)

    def interrupted():
        raise KeyboardInterrupt

    env.stepper._workers[1].answer = interrupted  # before the answer was read
    with pytest.raises(KeyboardInterrupt):
        step(env, state)
    with pytest.raises(RuntimeError, match="ended with the worker that held them; reset the family"):
        step(env, state)
    there, here = begin(env)[1], begin(toys(0))[1]
    np.testing.assert_array_equal(there, here)


class Leaves(Toy):
    def close(self):
        with open(self.limit, "a") as file:
            file.write("closed\n")


@pytest.mark.parametrize("processes", [0, 2])
def test_environments_are_closed_with_the_family(processes, tmp_path):
    file = tmp_path / "closed"
    env = toys(processes, make=Leaves, limit=str(file))
    state, _ = begin(env)
    del env, state
    gc.collect()
    assert file.read_text().count("closed") == 3 + (processes > 0)  # three rows, and one that was looked at first


def test_a_make_of_partial_and_bounds_of_other_workers_tasks(tmp_path):
    file = tmp_path / "partly.py"
    file.write_text(
        "import functools, gymnasium, nacre\n"
        "def make(task, g):\n"
        "    env = gymnasium.make('Pendulum-v1')\n"
        "    env.unwrapped.g = g * task\n"
        "    return env\n"
        "partly = nacre.family(functools.partial(make, g=3.0), lambda rng, n: rng.uniform(1, 2, n), train=3, test=2,\n"
        "                      processes=2, name='partly')\n"
    )
    env = make_family(f"{file}:partly")
    env.reset(jax.random.key(0), env.train_tasks)

    def bounded(task):
        return Toy(task, action_space=spaces.Box(-1 - task, 1 + task, (1,), np.float32))

    env = family(bounded, uniform, train=np.arange(4), test=np.arange(4, 6), horizon=5, name="toy", processes=2)
    with pytest.raises(ValueError, match=r"make\(\d\) has the action space"):
        env.reset(jax.random.key(0), env.train_tasks)
