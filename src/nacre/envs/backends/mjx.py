"""The MuJoCo families in JAX, for GPUs: the same rules on MJX (backend "mjx") or on MuJoCo Warp (backend "warp").

MJX is MuJoCo's physics written in JAX, in single precision, so whole episodes are one compiled program. MuJoCo Warp is the same
physics as kernels of NVIDIA's Warp, which JAX calls, through the same interface. Extras: pip install -e '.[mjx]', '.[warp]'. On a
CPU both are slower by far than MuJoCo's own library, which is the default everywhere. Two things differ from it, and numbers with
them: models that ask for the PGS solver (the humanoid) are solved by Newton's method, and there is no check for divergence within
an episode; returns that are not finite are reported where they are used.
"""

import copy
import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nacre.envs.backends.mujoco import Data, first_pose, measured, rewards
from nacre.types import EnvSpec, Key, Step, task_count

FINISH = {"mj_rnePostConstraint": "rne_postconstraint", "mj_forward": "forward", "mj_subtreeVel": "subtree_vel"}
INSIDE = ("cinert", "cfrc_ext", "subtree_linvel")  # fields that MJX keeps in the part of Data that is its own
BACKENDS = {"mjx": ("jax", "mujoco.mjx"), "warp": ("warp", "warp")}  # -> MJX's word for it, the module that it needs


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
    """B simulations: all that an env step depends on."""

    data: Data
    warmstart: Array  # [B, nv] where the solver of contacts begins
    tasks: Any
    steps: Array  # [B] env steps since the episode began


@dataclass(frozen=True)
class MjxFamily:
    """`rules`, a family of the MuJoCo back end, simulated in JAX; all else it hands on."""

    rules: Any

    def __post_init__(self):
        for module in ("mujoco.mjx", BACKENDS[self.rules.backend][1]):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(
                    f"{self.rules.name}: backend {self.rules.backend} needs an extra: pip install -e '.[{self.rules.backend}]'; "
                    "MJX's version must be MuJoCo's"
                )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "rules":
            raise AttributeError(name)
        return getattr(self.rules, name)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return dataclasses.replace(self.rules.spec, jittable=True)

    @property
    def impl(self) -> str:
        """Which of MJX's implementations."""
        return BACKENDS[self.rules.backend][0]

    @property
    def named(self) -> dict[str, str]:
        """MJX's argument for it; older ones have none, and JAX is what all begin with."""
        return {} if self.impl == "jax" else {"impl": self.impl}

    @functools.cached_property
    def host_model(self) -> Any:
        """MuJoCo's model, without what neither implementation knows."""
        import mujoco

        model = copy.copy(self.rules.physics.model)
        if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
            model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        if hasattr(mujoco.mjtDisableBit, "mjDSBL_AUTORESET"):  # what diverges stays so in both
            model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        return model

    @functools.cached_property
    def model(self) -> Any:
        """The model on the device. Warp computes at the end of each forward pass what rules want of `mj_step`'s successors."""
        mjx = imported()
        with jax.ensure_compile_time_eval():
            model = mjx.put_model(self.host_model, **self.named)
        if self.impl != "warp":
            return model
        finish = self.rules.physics.finish
        inside = model._impl.replace(sensor_subtree_vel="mj_subtreeVel" in finish)
        options = model.opt._impl.replace(run_rne_postconstraint="mj_rnePostConstraint" in finish)
        return model.replace(_impl=inside, opt=model.opt.replace(_impl=options))

    @functools.cached_property
    def room(self) -> tuple[int, int]:
        """Contacts and rows of constraints that one simulation can have at most, as MJX counts them."""
        inside = imported().make_data(self.host_model)._impl
        return inside.contact.dist.shape[0], inside.efc_J.shape[0]

    def blank(self, rows: int) -> Any:
        """mjx.Data of one of so many simulations."""
        room = {}
        if self.impl == "warp":
            contacts, constraints = self.room
            room = {"naconmax": max(1, rows * contacts), "njmax": max(1, constraints)}
        return imported().make_data(self.host_model, **self.named, **room)

    def sample_tasks(self, key: Key, n: int) -> Any:
        """n fresh tasks, on the device."""
        if hasattr(self.rules, "draw"):
            return self.rules.draw(KeyGenerator(key), n)
        tasks = jnp.asarray(self.rules.train_tasks)
        return tasks[jax.random.randint(key, (n,), 0, len(tasks))]

    def reset(self, key: Key, tasks: Any) -> tuple[MjxState, Array]:
        """Start an episode in each row -> state, obs [B, obs_size]."""
        qpos, qvel = first_pose(self.rules, KeyGenerator(key), tasks)
        data, warmstart = self._begin(tasks, jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32))
        return MjxState(data, warmstart, tasks, jnp.zeros(task_count(tasks), jnp.int32)), self._observe(data)

    def restart(self, key: Key, state: MjxState, over: Array) -> tuple[MjxState, Array]:
        """A new episode, of the same task, in the rows where `over` [B] is True; the others go on."""
        fresh, _ = self.reset(key, state.tasks)
        state = select(over, fresh, state)
        return state, self._observe(state.data)

    def step(self, state: MjxState, action: Array, active: Array) -> tuple[MjxState, Step]:
        """One env step of the active rows; the others keep their state, their reward is 0."""
        spec = self.spec
        low, high = jnp.asarray(spec.action.low, jnp.float32), jnp.asarray(spec.action.high, jnp.float32)
        action = jnp.clip(action, low, high)
        moved = self._advance(state.tasks, state.data, state.warmstart, action)
        data, warmstart = select(active, moved, (state.data, state.warmstart))
        reward, train_reward = rewards(self.rules, state.data, data, action, state.tasks)
        info = measured(self.rules, state.data, data, state.tasks)
        out = Step(
            obs=self._observe(data),
            reward=jnp.where(active, reward, 0.0).astype(jnp.float32),
            train_reward=jnp.where(active, train_reward, 0.0).astype(jnp.float32),
            terminal=self.rules.terminal(data) & active,
            info={name: jnp.asarray(x, jnp.float32) for name, x in info.items()},
        )
        return MjxState(data, warmstart, state.tasks, state.steps + active), out

    @functools.cached_property
    def _begin(self) -> Any:
        """Tasks, qpos, qvel of rows -> their Data and warm starts."""

        def rows(tasks, qpos, qvel):
            def one(task, qpos, qvel):
                model, blank = self._model_of(task), self.blank(task_count(tasks))
                data, warmstart = self._finish(model, imported().forward(model, blank.replace(qpos=qpos, qvel=qvel)))
                return data._replace(qpos=qpos), warmstart  # MJX normalises its quaternions, C with the first step

            return jax.vmap(one)(tasks, qpos, qvel)

        return by_rows(rows)

    @functools.cached_property
    def _advance(self) -> Any:
        """Tasks, Data, warm starts and actions of rows -> their Data and warm starts after frame_skip substeps."""

        def rows(tasks, data, warmstart, action):
            def one(task, data, warmstart, action):
                model, blank = self._model_of(task), self.blank(task_count(tasks))
                data = blank.replace(qpos=data.qpos, qvel=data.qvel, qacc_warmstart=warmstart, ctrl=action)
                substep = lambda _, data: imported().step(model, data)  # noqa: E731
                return self._finish(model, jax.lax.fori_loop(0, self.rules.physics.frame_skip, substep, data))

            return jax.vmap(one)(tasks, data, warmstart, action)

        return by_rows(rows)

    def _model_of(self, task: Any) -> Any:
        if not hasattr(self.rules, "factors"):
            return self.model
        fields = {name: getattr(self.model, name) * factor for name, factor in self.rules.factors(task).items()}
        return self.model.replace(**fields)

    def _finish(self, model: Any, data: Any) -> tuple[Data, Array]:
        """One simulation after its last substep -> what rules read of it, and where the next step's solver begins."""
        mjx, physics = imported(), self.rules.physics
        for name in physics.finish:
            if self.impl == "jax" or name == "mj_forward":  # Warp has done the others, see `model`
                data = getattr(mjx, FINISH[name])(model, data)
        fields = {name: getattr(data._impl if name in INSIDE else data, name) for name in physics.fields}
        return Data(data.qpos, data.qvel, fields), data.qacc_warmstart

    def _observe(self, data: Data) -> Array:
        return self.rules.observe(data).astype(jnp.float32)


def by_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays that begin with rows, for which a vmap (over seeds) means more rows: Warp's room for contacts belongs to
    all rows together."""
    whole = jax.custom_batching.custom_vmap(function)

    @whole.def_vmap
    def more(size, batched, *args):
        args = jax.tree.map(
            lambda x, along: x if along else jnp.broadcast_to(x, (size, *x.shape)), args, tuple(batched)
        )
        out = whole(*jax.tree.map(lambda x: x.reshape(size * x.shape[1], *x.shape[2:]), args))
        out = jax.tree.map(lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return whole


@functools.cache
def imported() -> Any:
    """mujoco.mjx; Warp, where it is there, does not talk."""
    if importlib.util.find_spec("warp") is not None:
        import warp

        warp.config.log_level = warp.LOG_ERROR
    from mujoco import mjx

    return mjx


def select(rows: Array, yes: Any, no: Any) -> Any:
    """The leaves of `yes` in the rows [B] that are True, of `no` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(rows.reshape(rows.shape + (1,) * (x.ndim - 1)), x, y), yes, no)
