"""A user's own families: what works, and what each mistake is answered with."""

import gc

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from nacre.envs.backends.gymnasium import family, single
from nacre.envs.registry import make_family


class Toy(gymnasium.Env):
    """Moves by its action; the reward is minus the distance to the task. Parts can be replaced by keyword."""

    def __init__(self, task=0.0, obs_space=None, action_space=None, obs=None, reset=None, step=None, limit=None):
        self.task, self.observe, self.broken_reset, self.broken_step, self.limit = task, obs, reset, step, limit
        self.observation_space = obs_space or spaces.Box(-10, 10, (1,), np.float64)
        self.action_space = action_space or spaces.Box(-1, 1, (1,), np.float32)
        self.closed = False

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1, 1), 0
        return self.broken_reset if self.broken_reset is not None else (self._obs(), {})

    def _obs(self):
        return self.x.copy() if self.observe is None else self.observe(self)

    def step(self, action):
        self.x, self.t = self.x + np.sum(action), self.t + 1
        if self.broken_step is not None:
            return self.broken_step(self)
        return self._obs(), -abs(float(self.x[0]) - np.sum(self.task)), False, self.t == self.limit, {}

    def close(self):
        self.closed = True


def uniform(rng, n):
    return rng.uniform(-1, 1, n)


def toys(horizon=10, **kwargs):
    return family(lambda task: Toy(task, **kwargs), uniform, train=4, test=2, horizon=horizon, name="toy")


def begin(env, n=3, seed=0):
    return env.reset(jax.random.key(seed), env.train_tasks[:n])


def step(env, state, action=0.5, active=None):
    n = len(state.rows.tasks)
    value = np.full(n, action) if env.spec.discrete else np.full((n, env.spec.action.size), action)
    return env.step(state, value, np.ones(n, bool) if active is None else np.array(active))


# ---------------------------------------------------------------- what works


def test_a_family_steps_its_tasks():
    env = toys()
    assert (env.spec.obs_size, env.spec.action.size, env.spec.horizon, env.spec.jittable) == (1, 1, 10, False)
    assert env.spec.can_terminate and env.spec.name == "toy" and not env.train_is_test
    state, first = begin(env)
    state, out = step(env, state)
    assert first.dtype == out.obs.dtype == out.reward.dtype == np.float32 and out.terminal.dtype == bool
    np.testing.assert_allclose(out.obs, first + 0.5, rtol=1e-6)
    np.testing.assert_allclose(out.reward, -abs(out.obs[:, 0] - env.train_tasks[:3]), rtol=1e-5)
    assert np.array_equal(out.reward, out.train_reward) and not out.terminal.any() and not out.info["truncated"].any()
    assert env.oracle(env.train_tasks, first, 0) is None


def test_task_sets_come_from_the_sampler_and_a_fixed_seed():
    first, second = family(Toy, uniform, horizon=5), family(Toy, uniform, horizon=5)
    assert first.train_tasks.shape == (40,) and first.test_tasks.shape == (20,)
    assert np.array_equal(first.train_tasks, second.train_tasks)
    assert not set(first.train_tasks.tolist()) & set(first.test_tasks.tolist())
    explicit = family(Toy, uniform, train=[0.1, 0.2], test=np.array([[0.3]])[0], horizon=5)
    assert explicit.train_tasks.tolist() == np.float32([0.1, 0.2]).tolist() and len(explicit.test_tasks) == 1
    key = jax.random.key(3)
    assert np.array_equal(first.sample_tasks(key, 7), first.sample_tasks(jax.random.clone(key), 7))


def test_make_gets_plain_numbers_or_arrays():
    seen = []
    family(lambda task: seen.append(task) or Toy(task), uniform, horizon=5)
    family(lambda task: seen.append(task) or Toy(task), lambda rng, n: rng.uniform(size=(n, 2)), horizon=5)
    family(lambda task: seen.append(task) or Toy(task), lambda rng, n: rng.integers(0, 10**6, n), horizon=5)
    assert type(seen[0]) is float and type(seen[2]) is int
    assert seen[1].shape == (2,) and seen[1].dtype == np.float64


def test_same_key_same_episode_and_rows_have_seeds_of_their_own():
    env = toys()
    tasks = np.zeros(3, np.float32)
    first = env.reset(jax.random.key(0), tasks)[1]
    env.reset(jax.random.key(1), tasks)
    assert np.array_equal(first, env.reset(jax.random.key(0), tasks)[1])
    assert np.array_equal(first[:2], env.reset(jax.random.key(0), tasks[:2])[1])
    assert len(set(first[:, 0].tolist())) == 3
    assert not np.array_equal(first, env.reset(jax.random.key(1), tasks)[1])


def test_inactive_rows_are_not_stepped():
    env = toys()
    state, first = begin(env)
    state, out = step(env, state, active=[True, False, True])
    assert [e.t for e in state.rows.opened.envs] == [1, 0, 1]
    assert np.array_equal(out.obs[1], first[1]) and out.reward[1] == 0


def test_the_environments_own_time_limit_is_a_truncation():
    env = toys(horizon=10, limit=2)
    state, _ = begin(env)
    state, out = step(env, state)
    assert not out.info["truncated"].any()
    state, out = step(env, state)
    assert out.info["truncated"].all() and not out.terminal.any()


def test_an_episode_that_ends_at_its_limit_is_terminal():
    env = toys(step=lambda toy: (toy.x, 1.0, True, True, {}))
    _, out = step(env, begin(env)[0])
    assert out.terminal.all() and not out.info["truncated"].any()


@pytest.mark.parametrize("make", [
    lambda task: gymnasium.make("Pendulum-v1"),
    lambda task: gymnasium.wrappers.TimeLimit(Toy(task), 200),
    lambda task: gymnasium.wrappers.TransformReward(gymnasium.wrappers.TimeLimit(Toy(task), 200), abs),
])  # fmt: skip
def test_horizon_defaults_to_the_time_limit(make):
    assert family(make, uniform, name="limited").spec.horizon == 200


@pytest.mark.parametrize("space, obs, flat", [
    (spaces.Discrete(4), lambda toy: 2, [0, 0, 1, 0]),
    (spaces.MultiBinary(3), lambda toy: np.array([1, 0, 1]), [1, 0, 1]),
    (spaces.MultiDiscrete([2, 3]), lambda toy: np.array([1, 2]), [0, 1, 0, 0, 1]),
    (spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(2)), lambda toy: {"a": [0.5, 0.25], "b": 1},
     [0.5, 0.25, 0, 1]),
    (spaces.Tuple([spaces.Discrete(2), spaces.Box(-9, 9, (1, 2))]), lambda toy: (0, [[3, 4]]), [1, 0, 3, 4]),
    (spaces.Box(-9, 9, (2, 2)), lambda toy: np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
])  # fmt: skip
def test_observations_are_flattened(space, obs, flat):
    env = toys(obs_space=space, obs=obs)
    assert env.spec.obs_size == len(flat)
    assert begin(env)[1].tolist() == [flat] * 3


def test_discrete_actions_count_from_the_spaces_start():
    env = toys(action_space=spaces.Discrete(3, start=5))
    assert env.spec.action.n == 3 and env.spec.discrete
    state, first = begin(env)
    np.testing.assert_allclose(step(env, state, action=2)[1].obs, first + 7, rtol=1e-6)


def test_actions_are_shaped_and_clipped():
    env = toys(action_space=spaces.Box(-1, 1, (2, 2), np.float32))
    assert env.spec.action.size == 4
    state, first = begin(env)
    np.testing.assert_allclose(step(env, state, action=3.0)[1].obs, first + 4, rtol=1e-6)


def test_environments_are_kept_and_closed_when_too_many():
    made = []
    env = family(lambda task: made.append(Toy(task)) or made[-1], uniform, train=4, test=2, horizon=5, max_idle=3)
    state, _ = begin(env, 4)
    del state
    count = len(made)
    assert count == 4 and [toy.closed for toy in made].count(True) == 1
    state, _ = begin(env, 3)
    assert len(made) <= count + 1
    held = state.rows.opened.envs
    state2, _ = begin(env, 3)
    assert not {id(e) for e in held} & {id(e) for e in state2.rows.opened.envs}  # two live states never share one
    assert not any(e.closed for e in [*held, *state2.rows.opened.envs])


def test_single_gymnasium_environment():
    env = single("CartPole-v1")
    assert env.spec.name == "gymnasium/CartPole-v1" and env.spec.action.n == 2 and env.spec.horizon == 500
    assert env.train_tasks.tolist() == env.test_tasks.tolist() == [0.0] and env.train_is_test
    state, _ = begin(env, 1)
    for _ in range(30):
        state, out = step(env, state, action=1)
        if out.terminal[0]:
            return
    pytest.fail("a cart pushed to one side drops its pole")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("kwargs, message", [
    ({"action_space": spaces.Box(-np.inf, np.inf, (1,))}, "must be finite with low < high.*leave out .*ClipAction"),
    ({"action_space": spaces.MultiDiscrete([2, 2])}, "action space MultiDiscrete.*expected Box of floats, or Discrete"),
    ({"action_space": spaces.Box(0, 5, (1,), np.int32)}, "expected Box of floats, or Discrete"),
    ({"obs_space": spaces.Text(5)}, "observation space Text.*expected Box, Discrete, MultiDiscrete, MultiBinary"),
    ({"obs_space": spaces.Dict(a=spaces.Sequence(spaces.Discrete(2)))}, "observation space Sequence.*is not supported"),
    ({"horizon": None}, "no time limit; pass horizon="),
    ({"horizon": 0}, "whole number of env steps, at least 1, got 0"),
    ({"horizon": 2.5}, "whole number of env steps"),
])  # fmt: skip
def test_unsupported_environments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        toys(**kwargs)


@pytest.mark.parametrize("sampler, kwargs, message", [
    (lambda rng, n: np.zeros(n), {}, "test task 0.0 is also a training task.*allow_overlap=True"),
    (lambda rng, n: rng.uniform(size=n + 1), {}, r"sample_tasks\(rng, 40\) must give an array \[40\]"),
    (lambda rng, n: 1.0, {}, r"\[40\] or \[40, k\] with one task per row, got shape \(\)"),
    (lambda rng, n: ["a"] * n, {}, "must give finite numbers"),
    (lambda rng, n: np.full(n, np.nan), {}, "must give finite numbers"),
    (uniform, {"train": 0}, "train must be at least 1 task, got 0"),
    (uniform, {"train": []}, "train="),
    (uniform, {"test": np.zeros((3, 2))}, "training and test tasks must have one shape"),
])  # fmt: skip
def test_bad_tasks(sampler, kwargs, message):
    with pytest.raises(ValueError, match=message):
        family(Toy, sampler, horizon=5, **kwargs)


def test_overlap_may_be_allowed():
    assert family(Toy, uniform, train=[0.0, 1.0], test=[1.0], allow_overlap=True, horizon=5).train_is_test


def test_arguments_that_are_not_functions():
    with pytest.raises(TypeError, match="make must be a function"):
        family(Toy(), uniform, horizon=5)
    with pytest.raises(TypeError, match="sample_tasks must be a function"):
        family(Toy, np.zeros(3), horizon=5)


def test_make_that_returns_something_else():
    with pytest.raises(TypeError, match=r"returned None; expected a gymnasium\.Env"):
        family(lambda task: None, uniform, horizon=5)


def test_make_that_returns_the_same_environment_twice():
    shared = Toy()
    env = family(lambda task: shared, uniform, train=4, test=2, horizon=5)
    with pytest.raises(ValueError, match="is in use; build a new one at each call"):
        begin(env, 2)


def test_make_that_raises_names_the_task():
    def make(task):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        family(make, uniform, horizon=5, name="fragile")
    assert "fragile: make(" in caught.value.__notes__[0]


@pytest.mark.parametrize("changed, message", [
    ({"obs_space": spaces.Box(-1, 1, (2,))}, "observation space Box.*must not change with the task"),
    ({"action_space": spaces.Box(-2, 2, (1,), np.float32)}, "action space Box.*must not change with the task"),
    ({"action_space": spaces.Discrete(2)}, "action space Discrete.*must not change with the task"),
])  # fmt: skip
def test_spaces_that_change_with_the_task(changed, message):
    env = family(lambda task: Toy(task, **(changed if task == 1 else {})), uniform, train=[0.0, 1.0], horizon=5)
    with pytest.raises(ValueError, match=message):
        begin(env, 2)


@pytest.mark.parametrize("kwargs, message", [
    ({"reset": np.zeros(1)}, r"reset\(\) returned array.*expected \(observation, info\)"),
    ({"reset": (np.zeros(1), None)}, r"expected \(observation, info\)"),
])  # fmt: skip
def test_reset_that_returns_the_wrong_thing(kwargs, message):
    with pytest.raises(TypeError, match=message):
        begin(toys(**kwargs))


@pytest.mark.parametrize("obs", [lambda toy: np.zeros(2), lambda toy: 0.0, lambda toy: None])
def test_observations_that_do_not_fit(obs):
    with pytest.raises(ValueError, match=r"toy: task .*, env step 0: observation"):
        begin(toys(obs=obs))


def test_dict_observations_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit the space Dict"):
        begin(toys(obs_space=spaces.Dict(a=spaces.Discrete(2)), obs=lambda toy: {"b": 1}))


@pytest.mark.parametrize("result, error, message", [
    (lambda toy: (toy.x, 0.0, False, {}), TypeError, r"step\(\) returned .*expected \(observation, reward, terminated"),
    (lambda toy: (toy.x, np.zeros(2), False, False, {}), TypeError, r"step\(\) returned"),
    (lambda toy: (toy.x, np.nan, False, False, {}), FloatingPointError, "task -?[0-9.]+, env step 0: reward is"),
    (lambda toy: (toy.x * np.inf, 0.0, False, False, {}), FloatingPointError, "env step 0: observation is"),
])  # fmt: skip
def test_steps_that_return_the_wrong_thing(result, error, message):
    env = toys(step=result)
    with pytest.raises(error, match=message):
        step(env, begin(env)[0])


def test_step_number_is_named():
    env = toys(step=lambda toy: (toy.x, 0.0 if toy.t < 3 else np.nan, False, False, {}))
    state, _ = begin(env)
    with pytest.raises(FloatingPointError, match="env step 2"):
        for _ in range(3):
            state, _ = step(env, state)


def test_errors_inside_an_environment_name_task_and_step():
    env = toys(step=lambda toy: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        step(env, begin(env)[0])
    assert "env step 0" in caught.value.__notes__[0] and "task" in caught.value.__notes__[0]


def test_actions_that_are_not_finite():
    env = toys()
    with pytest.raises(FloatingPointError, match="action is"):
        step(env, begin(env)[0], action=np.nan)


def test_a_state_that_was_stepped_is_dead():
    env = toys()
    state, _ = begin(env)
    step(env, state)
    with pytest.raises(RuntimeError, match="this state was stepped before"):
        step(env, state)


def test_tasks_of_another_shape():
    with pytest.raises(ValueError, match=r"tasks must have the shape \('B',\), got \(2, 3\)"):
        toys().reset(jax.random.key(0), np.zeros((2, 3)))


def test_single_names_that_do_not_exist():
    with pytest.raises(ValueError, match=r"gymnasium/CartPol-v1: cannot be made.*CartPole"):
        single("CartPol-v1")
    with pytest.raises(ValueError, match="no time limit"):
        single("Blackjack-v1")
    assert single("Blackjack-v1", horizon=20).spec.horizon == 20


@pytest.mark.parametrize("tasks", [[2**40, 1], np.array([4294967295, 1], np.uint32), [586611206.0, 1.0], [1e300, 1.0]])
def test_tasks_that_would_become_others_are_refused(tasks):
    with pytest.raises(ValueError, match="tasks that are not kept exactly"):
        family(Toy, uniform, train=tasks, test=[0.5], horizon=5, name="toy")


def test_tasks_of_two_kinds_overlap_where_they_are_equal():
    with pytest.raises(ValueError, match=r"test task 1(\.0)? is also a training task"):
        family(Toy, uniform, train=[1.0, 2.0], test=[1, 3], horizon=5, name="toy")


def test_an_environment_that_ends_the_process_is_an_error():
    def leave(toy):
        raise SystemExit(0)

    env = toys(step=leave)
    with pytest.raises(RuntimeError, match=r"env step 0: the environment ended the process \(sys.exit\(0\)\)"):
        step(env, begin(env)[0])


@pytest.mark.parametrize("result, message", [
    ((np.zeros(1), "3", False, False, {}), "reward '3'; expected one number"),
    ((np.zeros(1), None, False, False, {}), "reward None; expected one number"),
    ((np.zeros(1), 0.0, "False", False, {}), "terminated 'False'; expected one bool"),
    ((np.zeros(1), 0.0, np.array([True, False]), False, {}), "terminated .*; expected one bool"),
])  # fmt: skip
def test_rewards_and_ends_of_another_kind(result, message):
    env = toys(step=lambda toy: result)
    with pytest.raises(TypeError, match=f"toy: task .*, env step 0: step\\(\\) returned {message}"):
        step(env, begin(env)[0])


@pytest.mark.parametrize("space, obs", [
    (spaces.Discrete(4), -1), (spaces.Discrete(4, start=-2), 2), (spaces.MultiDiscrete([3, 2]), np.array([0, 2])),
    (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (1,))}), {"a": 2, "b": np.zeros(1)}),
])  # fmt: skip
def test_discrete_observations_outside_of_their_space(space, obs):
    env = toys(obs_space=space, obs=lambda toy: obs)
    with pytest.raises(ValueError, match="does not fit the space"):
        begin(env)


def test_tasks_with_longer_limits_than_the_first():
    def make(task):
        return gymnasium.wrappers.TimeLimit(Toy(task), 10 if task < 2 else 50)

    env = family(make, uniform, train=np.arange(3), test=[3], name="toy")
    with pytest.raises(
        ValueError, match=r"make\(2\) has a time limit of 50 env steps, other tasks have 10; pass horizon="
    ):
        begin(env)
    assert family(make, uniform, train=np.arange(3), test=[3], horizon=20, name="toy").spec.horizon == 20


def test_a_simulation_that_diverged_and_began_anew():
    def make(task):
        env = gymnasium.make("HalfCheetah-v5")
        env.unwrapped.model.actuator_gear[:] *= task
        return env

    env = family(make, uniform, train=[1.0, 1e7], test=[2.0], name="cheetah")
    state, _ = env.reset(jax.random.key(0), env.train_tasks)
    with pytest.raises(FloatingPointError, match=r"cheetah: task 10000000.0, env step \d+: the simulation diverged"):
        for _ in range(20):
            state, _ = env.step(state, np.ones((2, 6), np.float32), np.ones(2, bool))


def test_a_close_that_raises_is_a_warning():
    class Stubborn(Toy):
        def close(self):
            raise OSError("busy")

    env = family(Stubborn, uniform, train=4, test=2, horizon=5, name="toy", max_idle=0)
    with pytest.warns(UserWarning, match=r"toy: close\(\) of an environment raised OSError: busy"):
        begin(env)
        gc.collect()
    with pytest.raises(ValueError, match="max_idle must be 0 or a positive whole number, got -1"):
        family(Toy, uniform, horizon=5, name="toy", max_idle=-1)


def test_one_name_of_a_number_is_one_name():
    env = family(Toy, uniform, train=4, test=2, horizon=5, name="toy", info="success")
    with pytest.raises(ValueError, match="info has no number 'success'"):
        step(env, begin(env)[0])


def test_an_environment_without_spaces_is_told():
    class Bare(gymnasium.Env):
        pass

    with pytest.raises(TypeError, match=r"without observation_space: set it, a gymnasium.spaces object"):
        family(lambda task: Bare(), lambda rng, n: rng.uniform(-1, 1, (n, 1)), horizon=5)


def test_what_a_family_function_of_ones_own_raises_is_told_with_its_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def pars(low: float = 0.7):\n    return 1 / (low - low)\n")
    with pytest.raises(ValueError, match=r"mine.py raised ZeroDivisionError.*line 2"):
        make_family(f"{file}:pars", low=0.5)
