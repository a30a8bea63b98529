"""Ants, humanoid, walkers and hoppers against gymnasium's own simulation, with rewards worked out from its state."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from test_cheetah import gymnasium_env, play

from nacre.envs import variants
from nacre.envs.ant import AntDir, AntDir2D, AntGoal, AntGoalNoContact
from nacre.envs.ant_rllab import MamlAntDir, MamlAntGoal, MamlAntVel
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import Physics, gymnasium_asset, has_batch
from nacre.envs.humanoid import HumanoidDir
from nacre.envs.rand_params import HopperParams, WalkerParams
from nacre.envs.registry import VARIANTS, family_class, make_family, varied

ANTS = (AntDir, AntDir2D, AntGoal, AntGoalNoContact)
EVERY = (*ANTS, HumanoidDir, WalkerParams, HopperParams)


@pytest.fixture
def key():
    return jax.random.key(3)


def actions_of(env, steps, rows, seed=0, size=1.0):
    high = np.array(env.spec.action.high)
    return (size * np.random.default_rng(seed).uniform(-high, high, (steps, rows, len(high)))).astype(np.float32)


def tasks_of(env, rows):
    return np.resize(env.train_tasks, (rows, *env.train_tasks.shape[1:]))


def twins_of(name, monkeypatch, env, state, **kwargs):
    """gymnasium's environments, one per row, in the states of the rows."""
    twins = [gymnasium_env(name, monkeypatch, **kwargs) for _ in state.steps]
    for i, twin in enumerate(twins):
        mujoco.mj_resetData(twin.model, twin.data)
        twin.set_state(state.rows[i, env.physics.qpos].copy(), state.rows[i, env.physics.qvel].copy())
    return twins


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("family, obs, act, bound, dt, ends, train, test", [
    (AntDir, 27, 8, 1.0, 0.05, True, 2, 2),
    (AntDir2D, 27, 8, 1.0, 0.05, True, 100, 30),
    (AntGoal, 113, 8, 1.0, 0.05, False, 150, 30),
    (AntGoalNoContact, 29, 8, 1.0, 0.05, False, 150, 30),
    (HumanoidDir, 376, 17, 0.4, 0.015, True, 100, 30),
    (WalkerParams, 17, 6, 1.0, 0.016, True, 40, 10),
    (HopperParams, 11, 3, 1.0, 0.016, True, 40, 10),
])  # fmt: skip
def test_the_papers_sizes(family, obs, act, bound, dt, ends, train, test, key):
    env = family()
    spec = env.spec
    assert (spec.obs_size, spec.action.size, spec.action.high[0]) == (obs, act, bound)
    assert spec.action.low == tuple(-high for high in spec.action.high) and len(spec.obs_names) == obs
    assert spec.horizon == 200 and (spec.trial_episodes, spec.exploration_episodes) == (3, 2)
    assert spec.dt == dt == pytest.approx(env.physics.dt) and spec.can_terminate is ends
    assert (len(env.train_tasks), len(env.test_tasks)) == (train, test)
    assert env.physics.model.nu == act
    np.testing.assert_array_equal(env.physics.model.actuator_ctrlrange, [[-bound, bound]] * act)
    assert env.train_tasks.dtype == env.sample_tasks(key, 3).dtype == np.float32
    assert env.sample_tasks(jax.random.key(0), 7).shape == (7, *env.train_tasks.shape[1:])
    assert len(spec.task_names) == (1 if env.train_tasks.ndim == 1 else env.train_tasks.shape[1])


# ---------------------------------------------------------------- ants


@pytest.mark.parametrize("family", [AntDir2D, AntGoal])
def test_ants_are_gymnasiums_with_the_papers_reward(family, key, monkeypatch):
    env = family()
    tasks = tasks_of(env, 3)
    state, _ = env.reset(key, tasks)
    twins = twins_of("Ant-v5", monkeypatch, env, state)
    everyone = np.ones(3, bool)
    touched = 0.0
    for t, action in enumerate(actions_of(env, 200, 3, size=1.3)):  # beyond the bounds: everything sees the clipped one
        before = [twin.data.body("torso").xpos.copy() for twin in twins]
        state, out = env.step(state, action, everyone)
        for i, twin in enumerate(twins):
            used = np.clip(action[i].astype(np.float64), -1, 1)
            twin.step(used)
            data = twin.data
            assert np.array_equal(state.rows[i, env.physics.qpos], data.qpos), (t, i)
            assert np.array_equal(state.rows[i, env.physics.qvel], data.qvel), (t, i)
            forces = np.clip(data.cfrc_ext, -1, 1)
            touched = max(touched, np.abs(forces).max())
            place = data.body("torso").xpos
            contact = 5e-4 * np.sum(forces**2)
            if family is AntDir2D:
                direction = np.array([np.cos(tasks[i]), np.sin(tasks[i])])
                reward = (place - before[i])[:2] @ direction / 0.05 - 0.5 * np.sum(used**2) - contact + 1
                expected = np.concatenate([data.qpos[2:], data.qvel])
                assert out.terminal[i] == (not 0.2 <= data.qpos[2] <= 1.0)
            else:
                reward = -np.abs(place[:2] - tasks[i]).sum() - 0.1 * np.sum(used**2) - contact
                expected = np.concatenate([data.qpos, data.qvel, forces.ravel()])
                assert not out.terminal[i]
            np.testing.assert_allclose(out.reward[i], reward, rtol=1e-5, atol=1e-5)
            assert np.array_equal(out.obs[i], expected.astype(np.float32)), (t, i)
            np.testing.assert_allclose([out.info["x"][i], out.info["y"][i]], place[:2], rtol=1e-5, atol=1e-6)
    assert touched == 1.0  # contact forces are alive


def test_without_contacts_only_they_are_missing(key):
    with_them, without = AntGoal(), AntGoalNoContact()
    tasks, actions = tasks_of(with_them, 2), actions_of(with_them, 30, 2)
    _, states, steps = play(with_them, key, tasks, actions)
    _, others, other_steps = play(without, jax.random.clone(key), tasks, actions)
    assert np.array_equal(states[-1].rows, others[-1].rows)
    assert np.array_equal(steps[-1].obs[:, :29], other_steps[-1].obs)
    gap = np.sum([b.reward - a.reward for a, b in zip(steps, other_steps, strict=True)], axis=0)
    assert (gap > 0).all() and (gap < 30 * 0.039).all()


def test_staying_at_the_start_costs_an_ant_509_over_the_disc(key):
    env = AntGoal()
    goals = env.sample_tasks(key, 20_000)
    radius = np.linalg.norm(goals, axis=1)
    assert radius.max() <= 3 and np.mean(radius < 1.5) == pytest.approx(0.25, abs=0.02)  # uniform in the disc
    assert 200 * np.abs(goals).sum(axis=1).mean() == pytest.approx(509, abs=6)
    tasks = env.test_tasks
    _, _, steps = play(env, jax.random.key(0), tasks, np.zeros((40, len(tasks), 8)))
    returns = np.sum([out.reward for out in steps], axis=0)
    assert returns.mean() == pytest.approx(-40 * np.abs(tasks).sum(axis=1).mean(), rel=0.05)  # it drifts as it falls


@pytest.mark.parametrize("height, over", [(0.19, True), (0.21, False), (0.99, False), (1.01, True)])
def test_ants_are_over_outside_of_their_heights(height, over):
    qpos = np.zeros((1, 15))
    qpos[0, 2] = height
    data = Data(qpos, np.zeros((1, 14)), {})
    assert AntDir().terminal(data)[0] == over and not AntGoal().terminal(data)[0]
    assert variants.PrompAntDir().terminal(data)[0] == (height > 1)


# ---------------------------------------------------------------- humanoid


def test_the_humanoid_is_gymnasiums_with_the_papers_reward(key, monkeypatch):
    env = HumanoidDir()
    tasks = tasks_of(env, 2)
    state, _ = env.reset(key, tasks)
    twins = twins_of("Humanoid-v5", monkeypatch, env, state)

    def centre(twin):
        mass = twin.model.body_mass[:, None]
        return ((mass * twin.data.xipos).sum(axis=0) / mass.sum())[:2]

    for t, action in enumerate(actions_of(env, 60, 2)):
        before = [centre(twin) for twin in twins]
        state, out = env.step(state, action, np.ones(2, bool))
        for i, twin in enumerate(twins):
            twin.step(action[i])
            data = twin.data
            assert np.array_equal(state.rows[i, env.physics.qpos], data.qpos), (t, i)
            parts = (data.qpos[2:], data.qvel, data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext)
            expected = np.concatenate([part.ravel() for part in parts])
            assert np.array_equal(out.obs[i], expected.astype(np.float32)), (t, i)
            direction = np.array([np.cos(tasks[i]), np.sin(tasks[i])])
            speed = 0.25 * (centre(twin) - before[i]) @ direction / 0.003
            impact = min(5e-7 * np.sum(data.cfrc_ext**2), 10)
            control = 0.1 * np.sum(action[i].astype(np.float64) ** 2)
            np.testing.assert_allclose(out.reward[i], speed - control - impact + 5, rtol=1e-5, atol=1e-4)
            assert out.terminal[i] == (data.qpos[2] < 1 or data.qpos[2] > 2)


# ---------------------------------------------------------------- hidden bodies


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("family, twin_name, asset", [
    (WalkerParams, "Walker2d-v5", "walker2d.xml"), (HopperParams, "Hopper-v5", "hopper.xml"),
])  # fmt: skip
def test_hidden_bodies_are_gymnasiums_with_scaled_numbers(family, twin_name, asset, native, key, monkeypatch):
    if native and not has_batch():
        pytest.skip("this MuJoCo has no native batch")
    env = family()
    monkeypatch.setitem(env.__dict__, "physics", Physics(gymnasium_asset(asset), 4, timestep=0.004, native=native))
    tasks = env.train_tasks[:3]
    state, _ = env.reset(key, tasks)
    path = str(gymnasium_asset(asset))
    twins = twins_of(twin_name, monkeypatch, env, state, xml_file=path, frame_skip=4)
    for twin, task in zip(twins, tasks, strict=True):
        model, rest = twin.model, task
        model.opt.timestep = 0.004
        for name, shape in (("body_mass", (model.nbody,)), ("body_inertia", (model.nbody, 3)),
                            ("dof_damping", (model.nv,)), ("geom_friction", (model.ngeom, 3))):  # fmt: skip
            count = int(np.prod(shape))
            getattr(model, name)[:] = getattr(model, name) * rest[:count].reshape(shape)
            rest = rest[count:]
        assert rest.size == 0
        mujoco.mj_resetData(model, twin.data)
    for i, twin in enumerate(twins):
        twin.set_state(state.rows[i, env.physics.qpos].copy(), state.rows[i, env.physics.qvel].copy())
    fell = 0
    for t, action in enumerate(actions_of(env, 100, 3)):
        x = [twin.data.qpos[0] for twin in twins]
        state, out = env.step(state, action, np.ones(3, bool))
        for i, twin in enumerate(twins):
            twin.do_simulation(action[i], 4)
            qpos, qvel = twin.data.qpos, twin.data.qvel
            assert np.array_equal(state.rows[i, env.physics.qpos], qpos), (t, i)
            expected = np.concatenate([qpos[1:], np.clip(qvel, -10, 10)])
            assert np.array_equal(out.obs[i], expected.astype(np.float32)), (t, i)
            reward = (qpos[0] - x[i]) / 0.016 + 1 - 1e-3 * np.sum(action[i].astype(np.float64) ** 2)
            np.testing.assert_allclose(out.reward[i], reward, rtol=1e-5, atol=1e-5)
            if family is WalkerParams:
                alive = 0.8 < qpos[1] < 2 and -1 < qpos[2] < 1
            else:
                small = np.all(np.abs(np.concatenate([qpos, qvel])[2:]) < 100)
                alive = small and qpos[1] > 0.7 and abs(qpos[2]) < 0.2
            assert out.terminal[i] == (not alive), (t, i)
            fell += not alive
    assert fell > 50  # random actions do not keep anyone upright
    assert twins[0].dt == pytest.approx(env.spec.dt)


@pytest.mark.parametrize("family", [WalkerParams, HopperParams])
def test_factors_are_log_uniform_and_the_model_stays(family, key):
    env = family()
    model = env.physics.model
    names = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
    nominal = {name: getattr(model, name).copy() for name in names}
    tasks = env.sample_tasks(key, 1000)
    damping = np.array([name.startswith("damping") for name in env.task_names])
    low, high = tasks.min(axis=0), tasks.max(axis=0)
    assert (low[~damping] >= 0.2962).all() and (high[~damping] <= 3.3751).all() and high[~damping].max() > 3.3
    assert (low[damping] >= 0.4551).all() and (high[damping] <= 2.1971).all() and high[damping].max() > 2.19
    assert np.log(tasks[:, ~damping]).mean() == pytest.approx(0, abs=0.01)
    assert abs(np.corrcoef(np.log(tasks[:, 1:4]).T)[0, 1]) < 0.1  # each its own
    env.models(tasks)
    for name, value in nominal.items():
        assert np.array_equal(getattr(model, name), value), name
    assert env.models(tasks[:1])[0] is env.models(tasks[:1])[0]
    doubled = env.models(np.full((1, tasks.shape[1]), 2, np.float32))[0]
    np.testing.assert_array_equal(doubled.body_mass, 2 * nominal["body_mass"])
    np.testing.assert_array_equal(doubled.body_invweight0, model.body_invweight0)  # as the original: no mj_setConst


def test_bodies_that_cannot_be_are_refused(key):
    env = HopperParams()
    for bad, message in (
        (np.ones((2, 40), np.float32), r"tasks must have the shape \('n', 41\), got \(2, 40\)"),
        (np.zeros((2, 41), np.float32), "finite positive factors .* got 0.0 to 0.0"),
        (np.full((2, 41), np.nan, np.float32), "is impossible; expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            env.reset(jax.random.clone(key), bad)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("family, on_qpos, on_qvel", [
    (AntDir, 0.1, 0.1), (HumanoidDir, 0.01, None), (WalkerParams, 0.005, None), (HopperParams, 0.005, None),
])  # fmt: skip
def test_reset_noise_is_gyms(family, on_qpos, on_qvel):
    env = family()
    state, _ = env.reset(jax.random.key(0), tasks_of(env, 500))
    qpos = state.rows[:, env.physics.qpos] - env.physics.model.qpos0
    qvel = state.rows[:, env.physics.qvel]
    assert np.abs(qpos).max() <= on_qpos and qpos.std() == pytest.approx(2 * on_qpos / np.sqrt(12), rel=0.02)
    if on_qvel:
        assert qvel.std() == pytest.approx(on_qvel, rel=0.02)
    else:
        assert np.abs(qvel).max() <= on_qpos and qvel.std() == pytest.approx(2 * on_qpos / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize("family", EVERY)
def test_rules_run_on_jax_arrays_too(family):
    env = family()
    model, rng, data = env.physics.model, np.random.default_rng(0), []
    for _ in range(2):
        fields = {name: rng.normal(size=(4, *shape)) for name, shape in env.physics._shapes.items()}
        data.append(Data(rng.normal(size=(4, model.nq)), rng.normal(size=(4, model.nv)), fields))
    before, after = data
    action, tasks = rng.uniform(-1, 1, (4, model.nu)), tasks_of(env, 4)
    moved = jax.tree.map(jnp.asarray, (before, after, action, tasks))
    expected = env.reward(before, after, action, tasks, 0.05)
    np.testing.assert_allclose(env.reward(*moved, 0.05), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(env.observe(moved[1]), env.observe(after), rtol=1e-5)
    assert np.array_equal(env.terminal(moved[1]), env.terminal(after))


@pytest.mark.parametrize("family", [AntDir, WalkerParams])
def test_rows_that_begin_again(family, key):
    """They begin as a reset with that key would, the others go on."""
    env = family()
    tasks, actions = tasks_of(env, 4), actions_of(env, 6, 4, size=0.1)
    _, states, steps = play(env, key, tasks, actions[:3])
    over = np.array([False, True, False, True])
    other_key = jax.random.key(8)
    state, obs = env.restart(other_key, states[-1], over)
    fresh, first = env.reset(jax.random.clone(other_key), tasks)
    assert np.array_equal(state.rows[over], fresh.rows[over]) and np.array_equal(obs[over], first[over])
    assert np.array_equal(state.rows[~over], states[-1].rows[~over])
    assert np.array_equal(obs[~over], steps[-1].obs[~over])
    assert state.steps.tolist() == [3, 0, 3, 0]
    everyone = np.ones(4, bool)
    gone_on, out = env.step(state, actions[3], everyone)
    expected, unbroken = env.step(states[-1], actions[3], everyone)
    assert np.array_equal(gone_on.rows[~over], expected.rows[~over])
    np.testing.assert_array_equal(out.reward[~over], unbroken.reward[~over])
    begun, as_fresh = env.step(fresh, actions[3], everyone)
    assert np.array_equal(gone_on.rows[over], begun.rows[over])
    np.testing.assert_array_equal(out.reward[over], as_fresh.reward[over])


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("param, value, message", [
    ("horizon", 0, "horizon must be at least 1 env step, got 0"),
    ("threads", -1, "threads must be 0 .all cores. or a positive number, got -1"),
    ("n_test", 0, "n_test must be at least 1, got 0"),
])  # fmt: skip
def test_bad_parameters(family, param, value, message):
    if param == "n_test" and family is AntDir:
        pytest.skip("it has no counts")
    with pytest.raises(ValueError, match=f"^{family.name}: {message}"):
        family(**{param: value})


@pytest.mark.parametrize("family, params, message", [
    (AntDir, {"observation": "pixels"}, "observation must be 'pearl' .27 numbers. or 'contacts'"),
    (AntDir, {"lowest": 1.0}, "lowest must lie between 0 and 1 m"),
    (AntGoal, {"radius": 0.0}, "radius must be positive and finite"),
    (variants.MacawCheetahVel, {"n_train": 10}, "fixed list of 35 to train on and 5 held out, got n_train=10"),
    (variants.MacawAntDir, {"n_test": 6}, "fixed list of 45 to train on and 5 held out"),
])  # fmt: skip
def test_other_bad_parameters(family, params, message):
    with pytest.raises(ValueError, match=message):
        family(**params)


@pytest.mark.parametrize("shape", [(2,), (3, 8), (2, 7)])
def test_actions_of_another_shape_are_refused(shape, key):
    env = AntDir()
    state, _ = env.reset(key, env.train_tasks)
    with pytest.raises(ValueError, match=r"ant-dir: action must have the shape \(2, 8\), one row per task, got"):
        env.step(state, np.zeros(shape), np.ones(2, bool))


def test_impossible_tasks_are_refused(key):
    with pytest.raises(ValueError, match=r"ant-goal: task \[0.0, inf\] .row 1. is impossible.*goal x"):
        AntGoal().reset(key, np.array([[0, 1], [0, np.inf]], np.float32))


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    file = tmp_path / "broken.xml"
    file.write_text("<mujoco><worldbody><body><geom size='-1'/></body></worldbody></mujoco>")
    with pytest.raises(ValueError, match=r"MuJoCo [\d.]+ cannot load the model .*broken.xml: "):
        Physics(file, 1)


def test_a_diverged_body_names_its_task(key):
    env = HopperParams()
    state, _ = env.reset(key, env.train_tasks[:2])
    kept = state.rows.copy()
    action = np.zeros((2, 3))
    action[1, 0] = np.nan
    with pytest.raises(FloatingPointError, match=r"hopper-params: action .* in row 1 at env step 0 .* task \[\d"):
        env.step(state, action, np.ones(2, bool))
    assert np.array_equal(state.rows, kept)  # nobody was harmed


# ---------------------------------------------------------------- variants


def test_variants_carry_their_names_and_have_a_family():
    for name in VARIANTS:
        env = make_family(name)
        assert env.spec.name == name == family_class(name).name
        assert env.spec.trial_episodes == 2 and env.spec.exploration_episodes == 1
        assert issubclass(type(env), type(make_family(varied(name)))) or name.startswith("maml/ant")


def test_task_lists_of_other_codes(key):
    assert variants.VaribadAntDir().train_tasks.tolist() == [-1.0, 1.0]
    np.testing.assert_allclose(variants.VaribadAntDirAsWritten().train_tasks, [0, np.pi], rtol=1e-6)
    narrow = variants.VaribadAntDir2D().sample_tasks(key, 2000)
    assert np.abs(narrow).max() <= 1 and np.mean(np.abs(narrow) > 0.9) == pytest.approx(0.287, abs=0.03)  # arcsine
    speeds = variants.MacawCheetahVel()
    np.testing.assert_allclose(speeds.test_tasks, [0.225, 0.6, 1.2, 1.8, 2.025], rtol=1e-6)
    assert len(speeds.train_tasks) == 35 and speeds.train_tasks.max() == 3 and len(np.unique(speeds.train_tasks)) == 35
    angles = variants.MacawAntDir()
    np.testing.assert_allclose(angles.test_tasks, [0.2454, 1.7781, 0.9042, 3.5688, 4.1419], rtol=1e-6)
    assert len(angles.train_tasks) == 45 and not set(angles.train_tasks) & set(angles.test_tasks)
    assert variants.MamlCheetahVel().sample_tasks(jax.random.key(1), 500).max() < 2.0


@pytest.mark.parametrize("family", [variants.MamlCheetahVel, variants.MamlCheetahDir])
def test_mamls_cheetah_worked_out_by_hand(family, key):
    """One substep, everything computed anew, velocity and place of the mass centre."""
    env = family()
    model = mujoco.MjModel.from_xml_path(str(gymnasium_asset("half_cheetah.xml")))
    data = mujoco.MjData(model)
    tasks = tasks_of(env, 2)
    state, _ = env.reset(key, tasks)
    data.qpos[:], data.qvel[:] = state.rows[1, env.physics.qpos], state.rows[1, env.physics.qvel]
    mujoco.mj_forward(model, data)
    mass = model.body_mass
    for action in actions_of(env, 100, 2):
        state, out = env.step(state, action, np.ones(2, bool))
        data.ctrl[:] = action[1]
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        momentum = np.zeros(3)
        for body in range(model.nbody):
            speed = np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, speed, 0)
            momentum += mass[body] * speed[3:]
        velocity = momentum[0] / mass.sum()
        centre = (mass[:, None] * data.xipos).sum(axis=0) / mass.sum()
        task_term = -abs(velocity - tasks[1]) if family is variants.MamlCheetahVel else tasks[1] * velocity
        np.testing.assert_allclose(out.reward[1], task_term - 0.05 * np.sum(action[1] ** 2), rtol=1e-4, atol=1e-5)
        expected = np.concatenate([data.qpos[1:], data.qvel, centre])
        np.testing.assert_allclose(out.obs[1], expected, rtol=1e-5, atol=1e-5)
    assert env.spec.dt == pytest.approx(0.01) == pytest.approx(env.physics.dt)
    many, _ = env.reset(jax.random.key(0), np.ones(2000, np.float32))
    assert many.rows[:, env.physics.qpos].std() == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("family", [MamlAntDir, MamlAntVel, MamlAntGoal])
def test_mamls_ants_worked_out_by_hand(family, key):
    env = family()
    model = mujoco.MjModel.from_xml_path(str(gymnasium_asset("ant.xml")))
    model.opt.timestep, model.geom_solimp[:] = 0.02, (0.8, 0.8, 0.01, 0.5, 2)
    data, tasks = mujoco.MjData(model), tasks_of(env, 2)
    state, _ = env.reset(key, tasks)
    data.qpos[:], data.qvel[:] = state.rows[1, env.physics.qpos], state.rows[1, env.physics.qvel]
    mujoco.mj_forward(model, data)
    mass, alive = model.body_mass, np.ones(2, bool)
    for action in actions_of(env, 60, 2):
        state, out = env.step(state, action, alive)
        data.ctrl[:] = action[1]
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        momentum = np.zeros(3)
        for body in range(model.nbody):
            speed = np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, speed, 0)
            momentum += mass[body] * speed[3:]
        velocity = momentum[0] / mass.sum()
        centre = (mass[:, None] * data.xipos).sum(axis=0) / mass.sum()
        forces = np.clip(data.cfrc_ext, -1, 1)
        term = {
            MamlAntDir: tasks[1] * velocity,
            MamlAntVel: 1 - abs(velocity - tasks[1]),
            MamlAntGoal: 4 - np.abs(centre[:2] - tasks[1]).sum(),
        }[family]
        cost = 0.005 * np.sum(action[1].astype(np.float64) ** 2) + 5e-4 * np.sum(forces**2)
        np.testing.assert_allclose(out.reward[1], term - cost + 0.05, rtol=1e-4, atol=1e-4)
        torso = data.body("torso")
        expected = np.concatenate([data.qpos, data.qvel, forces.ravel(), torso.xmat, centre])
        np.testing.assert_allclose(out.obs[1], expected, rtol=1e-4, atol=1e-5)
        assert out.terminal[1] == (not 0.2 <= data.qpos[2] <= 1.0)
    assert env.spec.obs_size == 125 and env.spec.dt == 0.02 == env.physics.dt and env.spec.can_terminate
    many, _ = env.reset(jax.random.key(0), tasks_of(env, 1000))
    qpos = many.rows[:, env.physics.qpos]
    np.testing.assert_allclose(qpos.mean(axis=0), [0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1], atol=0.002)
    assert (qpos - qpos.mean(axis=0)).std() == pytest.approx(0.01, rel=0.03)


def test_tasks_of_mamls_ants(key):
    assert MamlAntDir().train_tasks.tolist() == [-1, 1]
    assert 2.9 < MamlAntVel().sample_tasks(key, 1000).max() < 3 and len(MamlAntVel().test_tasks) == 40
    goals = MamlAntGoal().sample_tasks(jax.random.clone(key), 1000)
    assert goals.shape == (1000, 2) and 2.9 < np.abs(goals).max() < 3 and abs(goals.mean()) < 0.2
