"""The MuJoCo families in JAX: the same rules on MJX, for GPUs. Needs the extra: pip install -e '.[mjx]'.

MJX is MuJoCo's physics written in JAX, in single precision, so whole episodes are one compiled program. On a CPU it is an order
of magnitude slower than MuJoCo's own library, which is the default everywhere. Two things differ from it, and numbers with them:
models that ask for the PGS solver (the humanoid) are solved by Newton's method, and there is no check for divergence within an
episode; returns that are not finite are reported where they are used.
"""

import dataclasses
import functools
import importlib.util
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nacre.envs.backends.mujoco import Data, first_pose, measured, rewards
from nacre.types import EnvSpec, Key, Step, task_count

FINISH = {"mj_rnePostConstraint": "rne_postconstraint", "mj_forward": "forward", "mj_subtreeVel": "subtree_vel"}
INSIDE = ("cinert", "cfrc_ext", "subtree_linvel")  # fields that MJX keeps in the part of Data that is its own


class KeyGenerator:
    """The methods of a NumPy generator that rules use, from a JAX key; each call has numbers of its own."""

    def __init__(self, key: Key):
        self.key = key

    def _next(self) -> Key:
        self.key, key = jax.random.split(self.key)
        return key

    def spawn(self, n: int) -> list["KeyGenerator"]:
        return [KeyGenerator(key) for key in jax.random.split(self._next(), n)]

    def uniform(self, low: float, high: float, shape: Any) -> Array:
        return jax.random.uniform(self._next(), (shape,) if isinstance(shape, int) else shape, minval=low, maxval=high)

    def standard_normal(self, shape: Any) -> Array:
        return jax.random.normal(self._next(), shape)


class MjxState(NamedTuple):
    """B simulations."""

    data: Any  # mjx.Data, leaves [B, ...]
    tasks: Any
    steps: Array  # [B] env steps since the episode began


@dataclass(frozen=True)
class MjxFamily:
    """`rules`, a family of the MuJoCo back end, simulated in JAX; all else it hands on."""

    rules: Any

    def __post_init__(self):
        if importlib.util.find_spec("mujoco.mjx") is None:
            raise ModuleNotFoundError(
                f"{self.rules.name}: backend mjx needs MJX: pip install -e '.[mjx]'; its version must be MuJoCo's"
            )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "rules":
            raise AttributeError(name)
        return getattr(self.rules, name)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return dataclasses.replace(self.rules.spec, jittable=True)

    @functools.cached_property
    def model(self) -> Any:
        """The model on the device."""
        import copy

        import mujoco
        from mujoco import mjx

        model = copy.copy(self.rules.physics.model)
        if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
            model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        with jax.ensure_compile_time_eval():
            return mjx.put_model(model)

    def sample_tasks(self, key: Key, n: int) -> Any:
        """n fresh tasks, on the device."""
        if hasattr(self.rules, "draw"):
            return self.rules.draw(KeyGenerator(key), n)
        tasks = jnp.asarray(self.rules.train_tasks)
        return tasks[jax.random.randint(key, (n,), 0, len(tasks))]

    def reset(self, key: Key, tasks: Any) -> tuple[MjxState, Array]:
        """Start an episode in each row -> state, obs [B, obs_size]."""
        from mujoco import mjx

        n = task_count(tasks)
        qpos, qvel = first_pose(self.rules, KeyGenerator(key), tasks)

        def one(task, qpos, qvel):
            model = self._model_of(task)
            data = mjx.make_data(self.rules.physics.model).replace(qpos=qpos, qvel=qvel)
            return self._finish(model, mjx.forward(model, data))

        data = jax.vmap(one)(tasks, jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32))
        state = MjxState(data, tasks, jnp.zeros(n, jnp.int32))
        return state, self._observe(data)

    def restart(self, key: Key, state: MjxState, over: Array) -> tuple[MjxState, Array]:
        """A new episode, of the same task, in the rows where `over` [B] is True; the others go on."""
        fresh, _ = self.reset(key, state.tasks)
        data = select(over, fresh.data, state.data)
        return MjxState(data, state.tasks, jnp.where(over, 0, state.steps)), self._observe(data)

    def step(self, state: MjxState, action: Array, active: Array) -> tuple[MjxState, Step]:
        """One env step of the active rows; the others keep their state, their reward is 0."""
        from mujoco import mjx

        spec, physics = self.spec, self.rules.physics
        low, high = jnp.asarray(spec.action.low, jnp.float32), jnp.asarray(spec.action.high, jnp.float32)
        action = jnp.clip(action, low, high)

        def one(task, data, ctrl):
            model = self._model_of(task)
            data = jax.lax.fori_loop(0, physics.frame_skip, lambda _, d: mjx.step(model, d), data.replace(ctrl=ctrl))
            return self._finish(model, data)

        data = select(active, jax.vmap(one)(state.tasks, state.data, action), state.data)
        before, after = self._view(state.data), self._view(data)
        reward, train_reward = rewards(self.rules, before, after, action, state.tasks)
        info = measured(self.rules, before, after, state.tasks)
        out = Step(
            obs=self._observe(data),
            reward=jnp.where(active, reward, 0.0).astype(jnp.float32),
            train_reward=jnp.where(active, train_reward, 0.0).astype(jnp.float32),
            terminal=self.rules.terminal(after) & active,
            info={name: jnp.asarray(x, jnp.float32) for name, x in info.items()},
        )
        return MjxState(data, state.tasks, state.steps + active), out

    def _model_of(self, task: Any) -> Any:
        if not hasattr(self.rules, "factors"):
            return self.model
        fields = {name: getattr(self.model, name) * factor for name, factor in self.rules.factors(task).items()}
        return self.model.replace(**fields)

    def _finish(self, model: Any, data: Any) -> Any:
        from mujoco import mjx

        for name in self.rules.physics.finish:
            data = getattr(mjx, FINISH[name])(model, data)
        return data

    def _view(self, data: Any) -> Data:
        names = self.rules.physics.fields
        fields = {name: getattr(data._impl if name in INSIDE else data, name) for name in names}
        return Data(data.qpos, data.qvel, fields)

    def _observe(self, data: Any) -> Array:
        return self.rules.observe(self._view(data)).astype(jnp.float32)


def select(rows: Array, yes: Any, no: Any) -> Any:
    """The leaves of `yes` in the rows [B] that are True, of `no` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(rows.reshape(rows.shape + (1,) * (x.ndim - 1)), x, y), yes, no)
