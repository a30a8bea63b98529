"""cheetah-vel and cheetah-dir against oyster's published tasks and gymnasium's own simulation."""

import subprocess
import sys
import types

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from nacre.envs.backends.mujoco import Data, render_frames
from nacre.envs.backends.mujoco_physics import CONTACT_FORCES, Physics, gymnasium_asset, quiet
from nacre.envs.cheetah import CheetahDir, CheetahVel

ALL = np.ones(4, bool)
TASKS = np.array([0.5, 1.0, 2.0, 3.0], np.float32)


@pytest.fixture(scope="module")
def vel():
    return CheetahVel()


@pytest.fixture
def key():
    return jax.random.key(7)


def again(key):
    return jax.random.clone(key)


def random_actions(steps, rows, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, rows, 6)).astype(np.float32)


def play(env, key, tasks, actions, active=None):
    """-> states (T + 1), steps (T)."""
    state, obs = env.reset(key, tasks)
    states, steps = [state], []
    for action in actions:
        state, out = env.step(state, action, np.ones(len(tasks), bool) if active is None else active)
        states.append(state)
        steps.append(out)
    return obs, states, steps


def gymnasium_env(name, monkeypatch, **kwargs):
    monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))  # only its video recorder needs it
    with quiet():
        env = gymnasium.make(name, **kwargs).unwrapped
    env.reset(seed=0)
    return env


# ---------------------------------------------------------------- tasks


def test_tasks_are_those_of_pearl(vel):
    first = [0.7861, 0.4761, 0.8344, 1.3780, 0.9630, 1.5552, 0.7858, 2.9283, 2.1984, 0.3458]
    test = [2.0510, 0.0831, 0.7015, 2.2093, 2.8026, 1.8408, 1.2224, 2.5617, 2.9785, 0.8861, 1.1705, 2.0969, 1.0711,
            0.0958, 1.0474, 1.4543, 0.1447, 2.7451, 2.1767, 2.3174, 0.2893, 0.1117, 0.7794, 0.3765, 0.7144, 2.0465,
            1.4437, 2.8095, 1.7442, 0.5583]  # fmt: skip
    assert vel.train_tasks.shape == (100,) and vel.train_tasks.dtype == np.float32
    np.testing.assert_allclose(vel.train_tasks[:10], first, atol=5.1e-5)
    np.testing.assert_allclose(vel.test_tasks, test, atol=5.1e-5)
    assert CheetahDir().train_tasks.tolist() == CheetahDir().test_tasks.tolist() == [-1.0, 1.0]


def test_drawing_tasks_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    CheetahVel().train_tasks  # noqa: B018
    CheetahVel().sample_tasks(jax.random.key(0), 5)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_sampled_tasks(vel, key):
    speeds = vel.sample_tasks(key, 1000)
    assert speeds.dtype == np.float32 and speeds.min() >= 0 and 2.9 < speeds.max() <= 3
    assert np.array_equal(speeds, vel.sample_tasks(again(key), 1000))
    assert CheetahVel(max_speed=1.0).sample_tasks(again(key), 1000).max() <= 1
    assert set(CheetahDir().sample_tasks(again(key), 100)) == {-1.0, 1.0}


# ---------------------------------------------------------------- physics


@pytest.mark.parametrize("way", ["native", "threads"])
def test_same_bits_as_gymnasium_over_whole_episodes(way, key, monkeypatch):
    if way == "native":
        pytest.importorskip("mujoco.batch")
    env = CheetahVel()
    physics = Physics(gymnasium_asset("half_cheetah.xml"), 5, ("xpos",), threads=2, native=way == "native")
    monkeypatch.setitem(env.__dict__, "physics", physics)
    state, _ = env.reset(key, TASKS)
    twins = [gymnasium_env("HalfCheetah-v5", monkeypatch) for _ in TASKS]
    for i, twin in enumerate(twins):
        mujoco.mj_resetData(twin.model, twin.data)
        twin.set_state(state.rows[i, physics.qpos], state.rows[i, physics.qvel])
    for t, action in enumerate(random_actions(200, 4)):
        state, out = env.step(state, action, ALL)
        for i, twin in enumerate(twins):
            twin.step(action[i])
            assert np.array_equal(state.rows[i, physics.qpos], twin.data.qpos), (t, i)
            assert np.array_equal(state.rows[i, physics.qvel], twin.data.qvel), (t, i)
            torso = twin.data.body("torso").xpos
            expected = np.concatenate([twin.data.qpos[1:], twin.data.qvel, torso]).astype(np.float32)
            assert np.array_equal(out.obs[i], expected), (t, i)
    assert env.spec.dt == pytest.approx(twins[0].dt) == pytest.approx(physics.dt)


def test_first_states_are_gyms_reset_noise(vel):
    state, obs = vel.reset(jax.random.key(0), np.zeros(2000, np.float32))
    qpos, qvel = state.rows[:, vel.physics.qpos], state.rows[:, vel.physics.qvel]
    assert np.abs(qpos).max() <= 0.1 and qpos.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.02)
    assert qvel.std() == pytest.approx(0.1, rel=0.02) and abs(qvel.mean()) < 0.005
    assert obs.dtype == np.float32
    np.testing.assert_allclose(obs[:, 17:], np.c_[qpos[:, 0], np.zeros(2000), qpos[:, 1] + 0.7], atol=1e-6)


def test_contact_forces_as_gymnasium_has_them(monkeypatch):
    ant = gymnasium_env("Ant-v5", monkeypatch)
    physics = Physics(gymnasium_asset("ant.xml"), 5, ("cfrc_ext",), finish=(CONTACT_FORCES,), threads=2)
    rows, fields = physics.begin(np.tile(ant.data.qpos, (3, 1)), np.tile(ant.data.qvel, (3, 1)))
    mujoco.mj_resetData(ant.model, ant.data)
    ant.set_state(rows[0, physics.qpos].copy(), rows[0, physics.qvel].copy())
    touched = False
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 8)):
        rows[:, physics.ctrl] = action
        rows, fields = physics.run(rows, fields, np.arange(3), 5)
        ant.step(action)
        assert np.array_equal(fields["cfrc_ext"][2], ant.data.cfrc_ext)
        touched |= np.abs(ant.data.cfrc_ext).max() > 1
    assert touched


def test_each_row_may_have_a_model_of_its_own():
    path = gymnasium_asset("half_cheetah.xml")
    light, heavy = Physics(path, 5, native=False), Physics(path, 5, native=False)
    heavy.model.body_mass[:] *= 2
    start = np.zeros((2, 9)), np.zeros((2, 9))
    models = [light.model, heavy.model]

    def after(physics, models):
        rows, fields = physics.begin(*start, models)
        for action in random_actions(20, 2):
            rows[:, physics.ctrl] = action
            rows, fields = physics.run(rows, fields, np.arange(2), 5, models)
        return rows

    mixed = after(light, models)
    assert np.array_equal(mixed[0], after(light, None)[0])
    assert np.array_equal(mixed[1], after(heavy, None)[1])
    assert not np.array_equal(mixed[1], after(light, None)[1])


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_changes_nothing(vel, key, threads):
    actions = random_actions(10, 4)
    _, states, _ = play(CheetahVel(threads=threads), key, TASKS, actions)
    _, expected, _ = play(vel, again(key), TASKS, actions)
    assert np.array_equal(states[-1].rows, expected[-1].rows)


# ---------------------------------------------------------------- reward and observation


@pytest.mark.parametrize("env, task_term", [
    (CheetahVel(), lambda v, task: -abs(v - task)),
    (CheetahDir(), lambda v, task: task * v),
])  # fmt: skip
def test_reward_from_the_state(env, task_term, key):
    tasks = np.array([-1.0, 1.0, 1.0, -1.0], np.float32)
    actions = 2 * random_actions(30, 4)  # beyond the bounds: physics and cost see the clipped action
    _, states, steps = play(env, key, tasks, actions)
    qpos = np.stack([state.rows[:, env.physics.qpos] for state in states])
    v = np.diff(qpos[:, :, 0], axis=0) / 0.05
    expected = task_term(v, tasks) - 0.05 * np.sum(np.clip(actions, -1, 1) ** 2, axis=-1)
    np.testing.assert_allclose(np.stack([out.reward for out in steps]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack([out.info["velocity"] for out in steps]), v, rtol=1e-5, atol=1e-6)
    for out in steps:
        assert out.reward.dtype == np.float32 and np.array_equal(out.reward, out.train_reward)
        assert out.terminal.dtype == bool and not out.terminal.any()
    _, clipped, _ = play(env, again(key), tasks, np.clip(actions, -1, 1))
    assert np.array_equal(states[-1].rows, clipped[-1].rows)


def test_doing_nothing_scores_minus_283(vel):
    n = len(vel.test_tasks)
    _, _, steps = play(vel, jax.random.key(0), vel.test_tasks, np.zeros((200, n, 6)))
    returns = np.sum([out.reward for out in steps], axis=0)
    assert returns.mean() == pytest.approx(-283.5, abs=1.0)
    np.testing.assert_allclose(returns, -200 * vel.test_tasks, atol=3)


def test_seventeen_numbers_are_gymnasiums_observation(key, monkeypatch):
    env = CheetahVel(observation="gymnasium")
    state, obs = env.reset(key, TASKS)
    twin = gymnasium_env("HalfCheetah-v5", monkeypatch)
    twin.set_state(state.rows[1, env.physics.qpos], state.rows[1, env.physics.qvel])
    assert env.spec.obs_size == 17 == len(env.spec.obs_names)
    np.testing.assert_array_equal(obs[1], twin._get_obs().astype(np.float32))
    assert CheetahVel().spec.obs_size == 20 == len(CheetahVel().spec.obs_names)


def test_rules_run_on_jax_arrays_too(vel):
    rng = np.random.default_rng(0)
    before, after = (
        Data(rng.normal(size=(4, 9)), rng.normal(size=(4, 9)), {"xpos": rng.normal(size=(4, 8, 3))}) for _ in range(2)
    )
    action = rng.uniform(-1, 1, (4, 6))
    moved = jax.tree.map(jnp.asarray, (before, after, action))
    for env in (vel, CheetahDir()):
        expected = env.reward(before, after, action, TASKS, 0.05)
        np.testing.assert_allclose(env.reward(*moved, jnp.asarray(TASKS), 0.05), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(vel.observe(moved[1]), vel.observe(after), rtol=1e-6)
    assert isinstance(vel.observe(moved[1]), jax.Array) and not vel.terminal(moved[1]).any()


def test_poses_are_recorded_on_request(key):
    env = CheetahVel(record_qpos=True)
    _, states, steps = play(env, key, TASKS, random_actions(2, 4))
    np.testing.assert_allclose(steps[-1].info["qpos"], states[-1].rows[:, env.physics.qpos], rtol=1e-6)
    assert "qpos" not in play(CheetahVel(), again(key), TASKS, random_actions(1, 4))[2][0].info


# ---------------------------------------------------------------- episodes and rows


def test_an_episode_depends_on_key_and_row_only(vel, key):
    actions = random_actions(30, 4)
    obs, states, _ = play(vel, key, TASKS, actions)
    play(vel, jax.random.key(99), np.zeros(9, np.float32), random_actions(5, 9))  # leaves nothing behind
    obs_again, states_again, _ = play(vel, again(key), TASKS, actions)
    assert np.array_equal(obs, obs_again) and np.array_equal(states[-1].rows, states_again[-1].rows)
    fewer, states_fewer, _ = play(vel, again(key), TASKS[:2], actions[:, :2])
    assert np.array_equal(obs[:2], fewer) and np.array_equal(states[-1].rows[:2], states_fewer[-1].rows)
    other, _ = vel.reset(jax.random.key(8), TASKS)[1], None
    assert not np.array_equal(obs, other) and not np.array_equal(obs[0], obs[1])


def test_states_are_values(vel, key):
    state, _ = vel.reset(key, TASKS)
    kept = state.rows.copy()
    action = random_actions(1, 4)[0]
    first, second = vel.step(state, action, ALL)[1], vel.step(state, action, ALL)[1]
    assert np.array_equal(state.rows, kept) and np.array_equal(first.obs, second.obs)


def test_rows_do_not_see_each_other(vel, key):
    actions = random_actions(30, 4)
    changed = actions.copy()
    changed[:, 2:] *= -1
    _, states, steps = play(vel, key, TASKS, actions)
    _, others, other_steps = play(vel, again(key), np.array([0.5, 1.0, 0.0, 0.0], np.float32), changed)
    assert np.array_equal(states[-1].rows[:2], others[-1].rows[:2])
    assert np.array_equal(steps[-1].reward[:2], other_steps[-1].reward[:2])
    assert not np.array_equal(states[-1].rows[2:], others[-1].rows[2:])


@pytest.mark.parametrize("native", [True, False])
def test_inactive_rows_cost_no_physics(key, native, monkeypatch):
    if native:
        pytest.importorskip("mujoco.batch")
    env = CheetahVel()
    physics = Physics(gymnasium_asset("half_cheetah.xml"), 5, ("xpos",), native=native)
    monkeypatch.setitem(env.__dict__, "physics", physics)
    active = np.array([True, False, True, False])
    actions = random_actions(10, 4)
    actions[:, 1] = np.nan  # of no interest
    obs, states, steps = play(env, key, TASKS, actions, active)
    _, full, full_steps = play(env, again(key), TASKS, np.nan_to_num(actions))
    assert np.array_equal(states[-1].rows[active], full[-1].rows[active])
    assert np.array_equal(steps[-1].obs[active], full_steps[-1].obs[active])
    assert np.array_equal(steps[-1].obs[~active], obs[~active]) and not steps[-1].reward[~active].any()
    assert states[-1].rows[~active, 0].tolist() == [0.0, 0.0]  # their clock stands still
    assert states[-1].steps.tolist() == [10, 0, 10, 0]
    still, _ = env.step(states[-1], actions[0], np.zeros(4, bool))
    assert np.array_equal(still.rows[:, physics.motion], states[-1].rows[:, physics.motion])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_named(vel, key, bad):
    state, _ = vel.reset(key, TASKS)
    state, _ = vel.step(state, np.zeros((4, 6)), ALL)
    action = np.zeros((4, 6))
    action[2, 3] = bad
    with pytest.raises(FloatingPointError, match=r"cheetah-vel: action is .* in row 2 at env step 1"):
        vel.step(state, action, ALL)


@pytest.mark.parametrize("native", [True, False])
def test_a_diverged_simulation_is_named(key, native, monkeypatch, tmp_path):
    if native:
        pytest.importorskip("mujoco.batch")
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log of it
    env = CheetahVel()
    physics = Physics(gymnasium_asset("half_cheetah.xml"), 5, ("xpos",), native=native)
    monkeypatch.setitem(env.__dict__, "physics", physics)
    state, _ = env.reset(key, TASKS)
    state.rows[3, physics.qvel] = 1e9
    with pytest.raises(FloatingPointError, match=r"row 3 at env step 0 .*diverged"):
        for action in random_actions(3, 4):
            state, _ = env.step(state, action, ALL)


@pytest.mark.parametrize("params, message", [
    ({"observation": "pixels"}, "observation must be 'pearl'"),
    ({"horizon": 0}, "horizon must be at least 1"),
    ({"max_speed": 0.0}, "max_speed must be positive"),
    ({"max_speed": float("nan")}, "max_speed must be positive"),
    ({"n_train": 0}, "n_train must be at least 1, got 0"),
    ({"threads": -1}, "threads must be 0"),
])  # fmt: skip
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        CheetahVel(**params)


@pytest.mark.filterwarnings("ignore::UserWarning")  # GLFW tells of the missing display
def test_pictures_or_an_error_that_helps(vel):
    try:
        frames = render_frames(vel, np.zeros((2, 9)), width=64, height=48)
    except RuntimeError as error:
        assert "MUJOCO_GL=egl" in str(error) and "libegl1" in str(error)
    else:
        assert len(frames) == 2 and frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8


def test_names_are_listed_without_importing_mujoco():
    code = """
import sys
from nacre.envs.registry import family_class, list_families
assert "cheetah-vel" in dict(list_families()) and "jax" not in sys.modules
env = family_class("cheetah-vel")()
assert len(env.train_tasks) == 100 and env.spec.obs_size == 20
assert not {"mujoco", "gymnasium"} & set(sys.modules), "imported too early"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
