"""The families in JAX beside MuJoCo's own library. Needs the extra mjx; single precision, so to a tolerance."""

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre._settings import find_family
from nacre.envs.ant import AntDir
from nacre.envs.backends.mjx import KeyGenerator, MjxFamily
from nacre.envs.registry import make_family

there = importlib.util.find_spec("mujoco.mjx") is not None
needed = pytest.mark.skipif(not there, reason="MJX is not installed: pip install -e '.[mjx]'")
ROWS = 3


def test_the_generator_has_what_rules_use():
    rng = KeyGenerator(jax.random.key(0))
    first, second = rng.spawn(2)
    a, b = first.uniform(-2.0, 2.0, (1000, 3)), second.uniform(-2.0, 2.0, (1000, 3))
    assert a.shape == (1000, 3) and abs(float(a.mean())) < 0.1 and float(a.min()) >= -2 and not jnp.array_equal(a, b)
    assert not jnp.array_equal(first.uniform(0, 1, 5), first.uniform(0, 1, 5)) and rng.uniform(0, 1, 4).shape == (4,)
    assert float(first.standard_normal((5000,)).std()) == pytest.approx(1, rel=0.05)


@pytest.mark.skipif(there, reason="MJX is installed")
def test_without_it_the_error_says_what_to_install():
    with pytest.raises(ModuleNotFoundError, match=r"cheetah-vel: backend mjx needs MJX: pip install 'nacre\[mjx\]'"):
        make_family("cheetah-vel", backend="mjx")


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="ant-dir: backend must be 'c' or 'mjx', got 'gpu'"):
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


@needed
@pytest.mark.parametrize("name", [
    "cheetah-vel",
    pytest.param("hopper-params", marks=[pytest.mark.slow, pytest.mark.training]),  # rounds too roughly without them
    pytest.param("maml/cheetah-dir", marks=pytest.mark.slow),
    pytest.param("ant-goal", marks=pytest.mark.slow),
    pytest.param("ant-dir", marks=pytest.mark.slow),
    pytest.param("walker-params", marks=pytest.mark.slow),
    pytest.param("humanoid-dir", marks=pytest.mark.slow),
    pytest.param("wheeled-robot", marks=pytest.mark.slow),
    pytest.param("ant-ring", marks=pytest.mark.slow),
])  # fmt: skip
def test_steps_are_those_of_the_c_library(name, request):
    """From the same states, over a few env steps: single precision apart. The humanoid's solver is another one. Ants agree once
    the friction of steep capsules has the axes that it has in C (docs/simulation.md)."""
    if name.startswith("ant-"):
        request.getfixturevalue("friction_axes_of_c")
    env, twin = make_family(name, backend="mjx"), make_family(name)
    assert isinstance(env, MjxFamily) and env.spec.jittable and not twin.spec.jittable
    tasks = np.resize(env.train_tasks, (ROWS, *env.train_tasks.shape[1:]))
    state, obs = jax.jit(env.reset)(jax.random.key(0), tasks)
    expected, _ = twin.reset(jax.random.key(0), tasks)
    rows, fields = twin.physics.begin(
        *(np.asarray(x, float) for x in (state.data.qpos, state.data.qvel)), expected.models
    )
    expected = expected._replace(rows=rows, fields=fields)
    step, active = jax.jit(env.step), np.array([True, True, False])
    high = np.array(env.spec.action.high)
    close = 0.05 if name == "humanoid-dir" else 2e-3  # of the largest number
    kept = np.asarray(obs[2])
    for action in np.random.default_rng(0).uniform(-high, high, (4, ROWS, len(high))).astype(np.float32):
        state, out = step(state, action, active)
        expected, twins = twin.step(expected, action, active)
        scale = max(1.0, np.abs(twins.obs).max())
        np.testing.assert_allclose(out.obs[:2], twins.obs[:2], atol=close * scale)
        np.testing.assert_allclose(out.reward, twins.reward, atol=close * 5)
        np.testing.assert_allclose(out.train_reward, twins.train_reward, atol=close * 5)
        assert np.array_equal(out.terminal, twins.terminal)
        assert np.array_equal(out.obs[2], kept) and out.reward[2] == 0  # nobody touches rows that are over
    again, first = jax.jit(env.restart)(jax.random.key(1), state, np.array([False, True, True]))
    assert np.array_equal(first[0], out.obs[0]) and not np.array_equal(first[1], out.obs[1])
    assert again.steps.tolist() == [4, 0, 0]


def test_block_push_refuses_it():
    with pytest.raises(ValueError, match="block-push: backend must be 'c': MJX takes many minutes"):
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
