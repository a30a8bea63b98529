"""MAESN's families against plain mj_step loops, with rewards worked out from the state."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from nacre.envs import maesn
from nacre.envs.ant_ring import AntRing
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import gymnasium_asset, own_asset
from nacre.envs.block_push import BlockPush
from nacre.envs.wheeled_robot import WheeledRobot

FAMILIES = (WheeledRobot, BlockPush, AntRing)


def plain_model(family):
    """The model as MuJoCo reads it."""
    if family is AntRing:
        text = gymnasium_asset("ant.xml").read_text()
        assert text.count('gear="150"') == 8
        return mujoco.MjModel.from_xml_string(text.replace('gear="150"', 'gear="30"'))
    return mujoco.MjModel.from_xml_path(str(own_asset(f"{family.name.replace('-', '_')}.xml")))


def by_hand(family, model, data, action, task):
    """(dense, sparse) reward, whether it is in the zone, and the observation, from MuJoCo's own state after a step."""
    obs = np.concatenate([data.qpos, data.qvel])
    if family is BlockPush:
        k = int(task[0])
        gap = np.hypot(data.qpos[3 + 2 * k] - task[1], data.qpos[4 + 2 * k] - task[2])
        far = -5 * np.hypot(task[1], task[2])
        return -5 * gap, -5 * gap if gap <= 0.2 else far, gap <= 0.2, obs
    if family is WheeledRobot:
        gap, cost = np.linalg.norm(data.qpos[:2] - task), 0.05 * (action[0] ** 2 + action[1] ** 2)
        return -gap - cost, (-gap if gap <= 0.8 else -np.linalg.norm(task)) - cost, gap <= 0.8, obs
    centre = (model.body_mass[1:, None] * data.xipos[1:]).sum(axis=0) / model.body_mass[1:].sum()
    contacts = np.clip(data.cfrc_ext, -1, 1)
    rest = 4.05 - 0.005 * np.sum(action**2) - 0.5e-3 * np.sum(contacts**2)
    near, far = -np.abs(centre[:2] - task).sum(), -np.abs(task).sum()
    found = np.linalg.norm(centre[:2] - task) <= 0.8
    obs = np.concatenate([obs, contacts.ravel(), data.xmat[1], centre])
    return near + rest, (near if found else far) + rest, found, obs


@pytest.mark.parametrize("family", FAMILIES)
def test_episodes_are_those_of_a_plain_loop(family):
    """Half of the rows meet a goal that lies where they begin, so that both sides of the zone are seen."""
    env, rows = family(), 4
    tasks = env.train_tasks[:rows].copy()
    goal = slice(1, 3) if family is BlockPush else slice(0, 2)
    for i in (1, 3):
        start = tasks[i, 3:].reshape(5, 2)[int(tasks[i, 0])] if family is BlockPush else np.zeros(2)
        tasks[i, goal] = start + 0.9 * env.radius * np.array([1, 0])
    state, _ = env.reset(jax.random.key(0), tasks)
    model = plain_model(family)
    datas = [mujoco.MjData(model) for _ in range(rows)]
    for i, data in enumerate(datas):
        data.qpos[:], data.qvel[:] = state.rows[i, env.physics.qpos], state.rows[i, env.physics.qvel]
        mujoco.mj_forward(model, data)
    high, rng, seen = np.array(env.spec.action.high), np.random.default_rng(1), set()
    pushing = np.array([1.0, 0, 0]) if family is BlockPush else 0.0
    for t in range(env.spec.horizon):
        action = rng.uniform(-1.3 * high, 1.3 * high, (rows, len(high))) + pushing  # beyond the bounds, too
        state, out = env.step(state, action.astype(np.float32), np.ones(rows, bool))
        for i, data in enumerate(datas):
            data.ctrl[:] = np.clip(action[i].astype(np.float32), -high, high)
            mujoco.mj_step(model, data)
            if family is AntRing:
                mujoco.mj_forward(model, data)
                mujoco.mj_rnePostConstraint(model, data)
            assert np.array_equal(state.rows[i, env.physics.qpos], data.qpos), (t, i)
            dense, sparse, found, expected = by_hand(family, model, data, data.ctrl, tasks[i])
            seen.add(bool(found))
            np.testing.assert_allclose(out.train_reward[i], dense, rtol=2e-5, atol=2e-5)
            np.testing.assert_allclose(out.reward[i], sparse, rtol=2e-5, atol=2e-5)
            np.testing.assert_allclose(out.obs[i], expected, rtol=1e-5, atol=1e-5)
            assert out.info["success"][i] == found
            over = family is AntRing and not 0.2 <= data.qpos[2] <= 1.0
            assert out.terminal[i] == over
    assert seen == {True, False}
    if family is BlockPush:  # blocks were pushed, so contacts were alive
        assert np.abs(out.obs[:, 3:13] - tasks[:, 3:]).max() > 0.1


@pytest.mark.parametrize("family, obs, act, bound, horizon", [
    (WheeledRobot, 12, 2, 2.0, 200), (BlockPush, 26, 3, 2.0, 100), (AntRing, 125, 8, 1.0, 200),
])  # fmt: skip
def test_the_published_sizes(family, obs, act, bound, horizon):
    env = family()
    spec = env.spec
    assert (spec.obs_size, spec.action.high, spec.horizon, spec.dt) == (obs, (bound,) * act, horizon, 0.01)
    assert env.physics.dt == 0.01 and len(spec.obs_names) == obs and len(spec.task_names) == env.train_tasks.shape[1]
    np.testing.assert_array_equal(env.physics.model.actuator_ctrlrange, [[-bound, bound]] * act)
    assert (len(env.train_tasks), len(env.test_tasks)) == (100, 30) and env.train_tasks.dtype == np.float32
    more = family(n_test=100, n_train=7)  # the same sets, more or less of them
    assert np.array_equal(more.test_tasks[:30], env.test_tasks) and np.array_equal(
        more.train_tasks, env.train_tasks[:7]
    )
    for name, value in (("n_test", 101), ("rewards", "none"), ("radius", 0.0)):
        with pytest.raises(ValueError, match=f"{env.name}: {name} must"):
            family(**{name: value})


def test_models_have_the_published_numbers():
    cart, push, ant = (family().physics.model for family in FAMILIES)
    ball, wheel, deck = 4 / 3 * np.pi * 0.1**3, np.pi * 0.1**2 * 0.092, 0.3 * 0.2 * 0.092
    share = 14 / (ball + 2 * wheel + deck)  # 14 kg with the ball that shows the goal, of one density
    np.testing.assert_allclose(cart.body_mass[1:], [share * deck, share * wheel, share * wheel], rtol=1e-6)
    np.testing.assert_array_equal(cart.geom_friction, np.full((4, 3), 0.4))
    assert not cart.dof_damping.any() and not cart.dof_armature.any() and cart.jnt_range[2].tolist() == [-1, 0.03]
    np.testing.assert_allclose(cart.body_pos[2:, 1], [-0.2, 0.2])
    np.testing.assert_array_equal(push.dof_damping, [0.5] * 3 + [1.5] * 10)
    np.testing.assert_array_equal(push.dof_armature, np.full(13, 0.04))
    np.testing.assert_array_equal(push.geom_size[-5:], [[0.03, 0.03, 0.05]] * 5)
    np.testing.assert_allclose(push.body_mass[3:], 1.8e-7)
    np.testing.assert_allclose(push.body_invweight0[3:, 0], 2 / 3 / 0.04, rtol=1e-3)  # contacts know of the armature
    assert not push.opt.gravity.any() and {cart.opt.timestep, push.opt.timestep, ant.opt.timestep} == {0.01}
    np.testing.assert_array_equal(ant.actuator_gear[:, 0], np.full(8, 30.0))
    assert ant.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4


def test_goals_lie_on_a_half_circle():
    for env in (WheeledRobot(), AntRing()):
        for goals in (env.train_tasks, env.test_tasks, env.sample_tasks(jax.random.key(0), 500)):
            np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 2, rtol=1e-6)
            assert (goals[:, 1] >= 0).all() and abs(goals[:, 0].mean()) < 0.6


def test_blocks_and_goals_lie_in_their_bands():
    env = BlockPush(n_test=100)
    fresh = env.sample_tasks(jax.random.key(0), 500)
    for tasks in (env.train_tasks, env.test_tasks, fresh):
        blocks = tasks[:, 3:].reshape(-1, 5, 2)
        band = np.floor((blocks[..., 1] + 0.5) / 0.2)
        assert (np.sort(band, axis=1) == np.arange(5)).all()
        assert (blocks[..., 0] >= 0.35).all() and (blocks[..., 0] <= 0.65).all()
        mine = band[np.arange(len(tasks)), tasks[:, 0].astype(int)]
        assert np.array_equal(np.floor((tasks[:, 2] + 0.5) / 0.2), mine)
        assert tasks[:, 1].min() >= 0.75 and tasks[:, 1].max() <= 0.95
        assert set(tasks[:, 0]) == set(range(5))
    assert len(np.unique(band, axis=0)) > 90  # of the 120 orders
    for tasks in (env.train_tasks, env.test_tasks):  # 20 layouts, each with a task for each of its blocks
        layouts, which = np.unique(tasks[:, 3:], axis=0, return_inverse=True)
        assert len(layouts) == 20
        assert all(sorted(tasks[which.ravel() == k, 0]) == [0, 1, 2, 3, 4] for k in range(20))
    with pytest.raises(ValueError, match=r"a task's block must be one of 0 \.\. 4, got 5"):
        env.reset(jax.random.key(0), np.full((1, 13), 5, np.float32))


def test_boxes_are_not_simulated_in_jax():
    with pytest.raises(
        ValueError, match=r"block-push: backend must be 'c' or 'warp': MJX takes many minutes .* got 'mjx'"
    ):
        BlockPush(backend="mjx")


def test_the_first_observation_shows_the_layout_and_nothing_else_of_the_task():
    env = BlockPush()
    tasks = env.train_tasks
    same = tasks[(tasks[:, 3:] == tasks[0, 3:]).all(axis=1)]  # another block and goal each
    assert len(same) == 5
    _, obs = env.reset(jax.random.key(0), same)
    assert (obs == obs[0]).all() and np.array_equal(obs[0, 3:13], same[0, 3:]) and not obs[0, :3].any()
    state, _ = env.reset(jax.random.key(1), tasks[:9])  # no noise, and restart puts the blocks back
    state, _ = env.step(state, np.full((9, 3), 2.0), np.ones(9, bool))
    _, again = env.restart(jax.random.key(2), state, np.ones(9, bool))
    assert np.array_equal(again, env.reset(jax.random.key(3), tasks[:9])[1])


@pytest.mark.parametrize("family", [WheeledRobot, AntRing])
def test_starts_are_noisy(family):
    """rllab's: deviations of 0.01 on places and 0.1 on velocities."""
    env = family()
    qpos, qvel = env.start(np.random.default_rng(0), env.physics.model, 4000)
    np.testing.assert_allclose(qpos.std(axis=0), 0.01, rtol=0.1)
    np.testing.assert_allclose(qvel.std(axis=0), 0.1, rtol=0.1)
    assert qpos.mean(axis=0)[2] == pytest.approx(0.55 if family is AntRing else 0.0, abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_rewards_can_be_the_same(family):
    tasks = family().train_tasks[:2]
    action = np.ones((2, family().spec.action.size))
    seen = {}
    for kind in ("published", "dense", "sparse"):
        env = family(rewards=kind)
        out = env.step(env.reset(jax.random.key(0), tasks)[0], action, np.ones(2, bool))[1]
        seen[kind] = (out.reward, out.train_reward)
    sparse, dense = seen["published"]
    assert (np.abs(sparse - dense) > 1e-3).all()
    for kind, one in (("dense", dense), ("sparse", sparse)):
        assert all(np.array_equal(x, one) for x in seen[kind])


def test_rules_are_the_same_in_jax():
    rng = np.random.default_rng(0)
    for env, n in ((WheeledRobot(), 6), (BlockPush(), 13)):
        qpos, task, action = (
            rng.uniform(-1, 1, (8, n)),
            env.train_tasks[:8],
            rng.uniform(-2, 2, (8, env.spec.action.size)),
        )
        for rule in (maesn.reward, maesn.train_reward):
            ours = rule(env, None, Data(qpos, None, {}), action, task, 0.01)
            theirs = rule(env, None, Data(jnp.asarray(qpos), None, {}), jnp.asarray(action), jnp.asarray(task), 0.01)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("family, least", [(WheeledRobot, -290), (BlockPush, -270)])
def test_the_scripted_player_finds_every_goal(family, least):
    env = family()
    tasks = env.test_tasks
    state, obs = env.reset(jax.random.key(0), tasks)
    total = 0.0
    for t in range(env.spec.horizon):
        state, out = env.step(state, env.oracle(tasks, obs, t), np.ones(len(tasks), bool))
        obs, total = out.obs, total + out.reward
    assert out.info["success"].all() and total.mean() > least
