"""The families in JAX, by MJX and by MuJoCo Warp, beside MuJoCo's own library. Needs the extras mjx and warp; single precision,
so to a tolerance."""

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre._settings import find_family
from nacre.envs.ant import AntDir
from nacre.envs.backends.mjx import KeyGenerator, MjxFamily
from nacre.envs.backends.mujoco import view
from nacre.envs.registry import make_family

there = importlib.util.find_spec("mujoco.mjx") is not None
needed = pytest.mark.skipif(not there, reason="MJX is not installed: pip install -e '.[mjx]'")
has_warp = there and importlib.util.find_spec("warp") is not None
warp_needed = pytest.mark.skipif(not has_warp, reason="MuJoCo Warp is not installed: pip install -e '.[warp]'")
ROWS = 3


def test_the_generator_has_what_rules_use():
    rng = KeyGenerator(jax.random.key(0))
    first, second = rng.spawn(2)
    a, b = first.uniform(-2.0, 2.0, (1000, 3)), second.uniform(-2.0, 2.0, (1000, 3))
    assert a.shape == (1000, 3) and abs(float(a.mean())) < 0.1 and float(a.min()) >= -2 and not jnp.array_equal(a, b)
    assert not jnp.array_equal(first.uniform(0, 1, 5), first.uniform(0, 1, 5)) and rng.uniform(0, 1, 4).shape == (4,)
    assert float(first.standard_normal((5000,)).std()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("backend, module", [("mjx", "mujoco.mjx"), ("warp", "mujoco.mjx"), ("warp", "warp")])
def test_without_it_the_error_says_what_to_install(monkeypatch, backend, module):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(ModuleNotFoundError, match=rf"cheetah-vel: backend {backend} needs an extra: .*\.\[{backend}\]"):
        make_family("cheetah-vel", backend=backend)


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="ant-dir: backend must be 'c', 'mjx' or 'warp', got 'gpu'"):
        make_family("ant-dir", backend="gpu")


@pytest.fixture
def friction_axes_of_c(monkeypatch):
    """MJX takes other axes for the friction of a capsule that stands within 30 degrees of upright (google-deepmind/mujoco#2774);
    C takes the capsule's own, always."""
    from mujoco.mjx._src import collision_driver, collision_primitive

    pair = (collision_driver.GeomType.PLANE, collision_driver.GeomType.CAPSULE)
    known = collision_driver._COLLISION_FUNC[pair]

    def collide(m, d, key, geom):
        dist, pos, _ = known(m, d, key, geom)
        normal, axis = d.geom_xmat[geom[:, 0], :, 2], d.geom_xmat[geom[:, 1], :, 2]
        along = axis - normal * (axis * normal).sum(-1, keepdims=True)
        along = along / jnp.linalg.norm(along, axis=-1, keepdims=True)
        frame = jnp.stack([normal, along, jnp.cross(normal, along)], axis=1)
        return dist, pos, jnp.repeat(frame, known.ncon, axis=0)

    collide.ncon = known.ncon
    monkeypatch.setitem(collision_driver._COLLISION_FUNC, pair, collide)
    assert collision_primitive.plane_capsule is known


FAMILIES = ("maml/cheetah-dir", "ant-goal", "ant-dir", "walker-params", "humanoid-dir", "wheeled-robot", "ant-ring")
CASES = [
    pytest.param("mjx", "cheetah-vel", marks=needed),
    pytest.param("warp", "cheetah-vel", marks=warp_needed),
    # rounds too roughly without the flags of training
    pytest.param("mjx", "hopper-params", marks=[needed, pytest.mark.slow, pytest.mark.training]),
    *(pytest.param("mjx", name, marks=[needed, pytest.mark.slow]) for name in FAMILIES),
    *(pytest.param("warp", name, marks=[warp_needed, pytest.mark.slow]) for name in ("hopper-params", *FAMILIES)),
]


def random_actions(env, steps):
    high = np.array(env.spec.action.high)
    return np.random.default_rng(0).uniform(-high, high, (steps, ROWS, len(high))).astype(np.float32)


@pytest.mark.parametrize("backend, name", CASES)
def test_steps_are_those_of_the_c_library(backend, name, request):
    """From the same states, over a few env steps: single precision apart. The humanoid's solver is another one. Ants agree once
    the friction of steep capsules has the axes that it has in C (docs/simulation.md); Warp's axes are MJX's, and inside it."""
    twins_of = "c"
    if name.startswith("ant-") and backend == "warp":
        twins_of = "mjx"
    elif name.startswith("ant-"):
        request.getfixturevalue("friction_axes_of_c")
    env = make_family(name, backend=backend)
    assert isinstance(env, MjxFamily) and env.spec.jittable and not make_family(name).spec.jittable
    tasks = np.resize(env.train_tasks, (ROWS, *env.train_tasks.shape[1:]))
    state, obs = jax.jit(env.reset)(jax.random.key(0), tasks)
    twin_step, expected = the_same(name, twins_of, tasks, state, obs)
    step, active = jax.jit(env.step), np.array([True, True, False])
    close = 0.05 if name == "humanoid-dir" else 2e-3  # of the largest number
    begun = state
    for action in random_actions(env, 4):
        state, out = step(state, action, active)
        expected, twins = twin_step(expected, action, active)
        scale = max(1.0, np.abs(twins.obs).max())
        np.testing.assert_allclose(out.obs[:2], twins.obs[:2], atol=close * scale)
        np.testing.assert_allclose(out.reward, twins.reward, atol=close * 5)
        np.testing.assert_allclose(out.train_reward, twins.train_reward, atol=close * 5)
        assert np.array_equal(out.terminal, twins.terminal)
        # nobody touches rows that are over; what is observed of them is computed again, in another program
        assert np.array_equal(state.data.qpos[2], begun.data.qpos[2]) and out.reward[2] == 0
        np.testing.assert_allclose(out.obs[2], obs[2], atol=1e-6)
    again, first = jax.jit(env.restart)(jax.random.key(1), state, np.array([False, True, True]))
    assert np.array_equal(again.data.qvel[0], state.data.qvel[0]) and again.steps.tolist() == [4, 0, 0]
    np.testing.assert_allclose(first[0], out.obs[0], atol=1e-6)
    assert not np.allclose(first[1], out.obs[1], atol=1e-3)


def the_same(name, backend, tasks, state, obs):
    """step, and the state on another back end that has the qpos and qvel of `state`; its first observation is the same."""
    twin = make_family(name, backend=backend)
    if backend != "c":
        return jax.jit(twin.step), state
    expected, _ = twin.reset(jax.random.key(0), tasks)
    rows, fields = twin.physics.begin(
        *(np.asarray(x, float) for x in (state.data.qpos, state.data.qvel)), expected.models
    )
    first = twin.observe(view(twin.physics, rows, fields))
    if not name.startswith("ant-"):  # whose first contacts have other axes
        np.testing.assert_allclose(obs, first, atol=2e-3 * max(1.0, np.abs(first).max()))
    return twin.step, expected._replace(rows=rows, fields=fields)


@warp_needed
@pytest.mark.slow
def test_warp_pushes_blocks_as_c_does():
    """Whole episodes of the scripted player, with all their contacts of boxes."""
    env, twin = make_family("block-push", backend="warp"), make_family("block-push")
    tasks, active, step = env.train_tasks[:5], np.ones(5, bool), jax.jit(env.step)
    state, obs = jax.jit(env.reset)(jax.random.key(0), tasks)
    expected, obs = twin.reset(jax.random.key(0), tasks)
    for t in range(100):
        action = np.asarray(twin.oracle(tasks, obs, t), np.float32)
        state, out = step(state, action, active)
        expected, twins = twin.step(expected, action, active)
        np.testing.assert_allclose(out.obs, twins.obs, atol=1e-3)
        obs = twins.obs
    assert (twins.reward > -0.2).all()  # they arrived, so they were pushed


@warp_needed
@pytest.mark.slow
def test_a_vmap_of_warp_means_more_rows():
    """As seeds that train as one program: with room for the contacts of all."""
    env = make_family("wheeled-robot", backend="warp")
    tasks = jnp.asarray(env.train_tasks[:6]).reshape(2, 3, -1)

    def once(key, tasks):
        state, obs = env.reset(key, tasks)
        _, out = env.step(state, jnp.ones((3, env.spec.action.size)), jnp.ones(3, bool))
        return obs, out.obs

    keys = jax.random.split(jax.random.key(0))
    together, alone = jax.jit(jax.vmap(once))(keys, tasks), jax.jit(once)
    for i in range(2):
        for x, y in zip(together, alone(keys[i], tasks[i]), strict=True):
            np.testing.assert_allclose(x[i], y, atol=1e-6)


def test_block_push_refuses_it():
    with pytest.raises(ValueError, match="block-push: backend must be 'c' or 'warp': MJX takes many minutes"):
        make_family("block-push", backend="mjx")


@needed
def test_a_family_made_as_an_object_is_simulated_by_what_it_names():
    env, origin = find_family(AntDir(backend="mjx"), {})
    assert isinstance(env, MjxFamily) and origin["env"] == "ant-dir" and origin["env_params"]["backend"] == "mjx"
    same, again = find_family(env, {})
    assert same is env and again == origin
    assert find_family(AntDir(), {})[1]["env_params"]["backend"] == "c"
    own = SimpleNamespace(backend="mjx", spec=env.spec)  # a user's, whose field means something else
    assert find_family(own, {})[0] is own


@needed
def test_fresh_tasks_are_drawn_on_the_device():
    for name in ("cheetah-vel", "cheetah-dir", "ant-goal", "varibad/ant-dir-2d", "hopper-params", "wheeled-robot"):
        env = make_family(name, backend="mjx")
        tasks = jax.jit(env.sample_tasks, static_argnums=1)(jax.random.key(0), 6)
        assert tasks.shape == (6, *env.train_tasks.shape[1:]) and tasks.dtype == jnp.float32
        assert env.train_tasks.shape == make_family(name).train_tasks.shape and env.test_tasks is not None
