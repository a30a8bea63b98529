"""A walker and a hopper whose bodies differ from task to task (walker-params, hopper-params), as PEARL has them.

Source: Rakelly et al. 2019, oyster 44e20fd, rlkit/envs/walker_rand_params_wrapper.py, hopper_rand_params_wrapper.py over
rand_param_envs 4d1529d (base.py, walker2d_rand_params.py, hopper_rand_params.py). The models are gym's walker2d.xml and
hopper.xml, rewritten by gymnasium for MuJoCo 3 (masses, geoms and joints coincide), with the original's time step of 0.004 s
and 4 substeps: an env step is 0.016 s.

A task multiplies each body's mass and each of its three inertias, each joint's damping and each geom's three frictions by a
factor of its own. What MuJoCo derives from masses when it compiles a model stays as it was, as in the original; `mj_setConst`
would make contacts softer or stiffer.
"""

import copy
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nacre.envs import locomotion
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import Physics, gymnasium_asset
from nacre.types import Array, EnvSpec

FRAME_SKIP = 4
TIME_STEP = 0.004  # s, of the original's XML; gymnasium's has 0.002
DT = 0.016  # seconds: FRAME_SKIP * TIME_STEP
RESET_NOISE = 0.005  # half width of the uniform noise on qpos and qvel
SPREAD = 3.0  # factors are base ** U(-3, 3)
# model field, base of its factors, columns per entry
SCALED = (("body_mass", 1.5, 1), ("body_inertia", 1.5, 3), ("dof_damping", 1.3, 1), ("geom_friction", 1.5, 3))
KEPT = 256  # models of the tasks played last, about 1 MB each


def factor_names(bodies: tuple[str, ...], joints: tuple[str, ...], geoms: tuple[str, ...]) -> tuple[str, ...]:
    """One per number of a task, in the order of the model's arrays."""
    dofs = ("rootx", "rootz", "rooty", *joints)
    names = [f"mass {body}" for body in bodies]
    names += [f"inertia {body} {axis}" for body in bodies for axis in "xyz"]
    names += [f"damping {dof}" for dof in dofs]
    names += [f"friction {geom} {kind}" for geom in geoms for kind in ("slide", "spin", "roll")]
    return tuple(names)


# What both families share; `family` is either of them, which take these functions as methods.


def draw(family: Any, rng: Any, n: int) -> np.ndarray:
    """Factors [n, k], independent and log-uniform; one row after another, so that a task does not depend on how many follow."""
    parts = [(base, columns * family.sizes[name]) for name, base, columns in SCALED]
    bases = np.concatenate([np.full(count, base) for base, count in parts])
    return (bases ** rng.uniform(-SPREAD, SPREAD, (n, len(bases)))).astype(np.float32)


def physics(family: Any) -> Physics:
    path = gymnasium_asset(family.asset)
    return Physics(path, FRAME_SKIP, timestep=TIME_STEP, threads=family.threads)


def models(family: Any, tasks: np.ndarray) -> list:
    """A model per row, kept for later episodes of the same task."""
    tasks = np.asarray(tasks, np.float32)
    expected = (len(tasks), len(family.spec.task_names))
    if tasks.shape != expected or not (tasks > 0).all() or not np.isfinite(tasks).all():
        found = f"shape {tasks.shape}" if tasks.shape != expected else f"{tasks.min()} to {tasks.max()}"
        raise ValueError(f"{family.name}: tasks must be finite positive factors of the shape {expected}, got {found}")
    kept, out = family.kept_models, []
    for task in tasks:
        key = task.tobytes()
        kept[key] = kept.pop(key, None) or scaled(family, task)  # the newest comes last
        out.append(kept[key])
        if len(kept) > KEPT:
            del kept[next(iter(kept))]
    return out


def factors(family: Any, task: Any) -> dict[str, Any]:
    """Field of the model -> what multiplies it, from a task's numbers [k]."""
    out, at = {}, 0
    for name, _, columns in SCALED:
        count = family.sizes[name] * columns
        part = task[at : at + count]
        out[name] = part.reshape(-1, columns) if columns > 1 else part
        at += count
    return out


def scaled(family: Any, task: np.ndarray) -> Any:
    """A copy of the model with its numbers multiplied by the task's factors."""
    model = copy.copy(family.physics.model)
    for name, factor in family.factors(task).items():
        getattr(model, name)[:] *= factor
    return model


def start(family: Any, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """gym's reset noise."""
    noise = locomotion.uniform(RESET_NOISE)
    return locomotion.noisy_start(rng, model, rows, noise, noise)


def observe(family: Any, data: Data) -> Array:
    """qpos without x, and qvel clipped to +-10."""
    xp = data.qpos.__array_namespace__()
    return xp.concat([data.qpos[..., 1:], xp.clip(data.qvel, -10.0, 10.0)], axis=-1)


def reward(family: Any, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
    """rand_param_envs: (x after - x before) / dt + 1 - 0.001 |a|^2."""
    xp = action.__array_namespace__()
    return (after.qpos[..., 0] - before.qpos[..., 0]) / dt + 1.0 - 1e-3 * xp.sum(action**2, axis=-1)


def measure(family: Any, before: Data, after: Data, dt: float) -> dict[str, Array]:
    """x [B] in m; qpos if asked for."""
    return {"x": after.qpos[..., 0], **({"qpos": after.qpos} if family.record_qpos else {})}


def make_spec(family: Any) -> EnvSpec:
    """Raises ValueError for parameters out of range."""
    locomotion.check(family)
    joints = tuple(f"{name} (rad)" for name in family.joints)
    pose = ("z (m)", "angle (rad)", *joints)
    moving = ("x (m)", *pose)
    names = pose + tuple(name.replace("(m)", "velocity (m/s)").replace("(rad)", "velocity (rad/s)") for name in moving)
    note = "forward velocity + 1 - 0.001 |a|^2 per step upright"
    options = {"actions": len(family.joints), "dt": DT, "can_terminate": True}
    return locomotion.make_spec(family, names, family.task_names, note, **options)


def task_axis(family: Any, tasks: np.ndarray) -> tuple[str, np.ndarray]:
    """For pictures: the number that tells tasks apart, and its name."""
    bodies = family.sizes["body_mass"]
    return "mean factor of the masses", np.exp(np.log(np.asarray(tasks)[:, 1:bodies]).mean(axis=1))


def pictures(family: Any, evaluation: dict) -> list:
    from nacre.envs.locomotion_pictures import progress_pictures

    return progress_pictures(evaluation, *family.task_axis(evaluation["tasks"]), dt=DT)


def frames(family: Any, trial: dict):
    from nacre.envs.animations import located_frames

    label, value = family.task_axis(np.asarray(trial["task"])[None])
    return located_frames(trial, family, f"{label} {value[0]:.2f}")


@dataclass(frozen=True)
class WalkerParams:
    """Walk forward with a body that is hidden: reward v + 1 - 0.001 |a|^2. A task is 65 factors (see `spec.task_names`),
    float32 [n, 65]: 8 masses (the world's is 0), 24 inertias, 9 dampings, 24 frictions.
    """

    horizon: int = 200  # env steps of 0.016 s per episode
    n_train: int = 40  # training tasks, drawn once from a fixed seed (the original draws new ones in every run)
    n_test: int = 10  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "walker-params"
    trial: ClassVar[tuple[int, int]] = (3, 2)
    asset: ClassVar[str] = "walker2d.xml"
    sizes: ClassVar[dict[str, int]] = {"body_mass": 8, "body_inertia": 8, "dof_damping": 9, "geom_friction": 8}
    joints: ClassVar[tuple[str, ...]] = ("thigh", "leg", "foot", "thigh left", "leg left", "foot left")
    parts: ClassVar[tuple[str, ...]] = ("torso", *joints)
    task_names: ClassVar[tuple[str, ...]] = factor_names(("world", *parts), joints, ("floor", *parts))

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    def terminal(self, data: Data) -> Array:
        """Too low, too high or tilted by more than 1 rad, [B]."""
        xp = data.qpos.__array_namespace__()
        z, angle = data.qpos[..., 1], data.qpos[..., 2]
        return ~((z > 0.8) & (z < 2.0) & (xp.abs(angle) < 1.0))

    spec = functools.cached_property(make_spec)
    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    draw = draw
    kept_models = functools.cached_property(lambda self: {})
    physics = functools.cached_property(physics)
    factors, models, start, observe, reward, measure, oracle = (
        factors,
        models,
        start,
        observe,
        reward,
        measure,
        locomotion.no_oracle,
    )
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
    task_axis, pictures, frames, recording = task_axis, pictures, frames, locomotion.recording


@dataclass(frozen=True)
class HopperParams:
    """Hop forward with a body that is hidden: reward v + 1 - 0.001 |a|^2. A task is 41 factors (see `spec.task_names`),
    float32 [n, 41]: 5 masses (the world's is 0), 15 inertias, 6 dampings, 15 frictions.
    """

    horizon: int = 200  # env steps of 0.016 s per episode
    n_train: int = 40  # training tasks, drawn once from a fixed seed (the original draws new ones in every run)
    n_test: int = 10  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "hopper-params"
    trial: ClassVar[tuple[int, int]] = (3, 2)
    asset: ClassVar[str] = "hopper.xml"
    sizes: ClassVar[dict[str, int]] = {"body_mass": 5, "body_inertia": 5, "dof_damping": 6, "geom_friction": 5}
    joints: ClassVar[tuple[str, ...]] = ("thigh", "leg", "foot")
    parts: ClassVar[tuple[str, ...]] = ("torso", *joints)
    task_names: ClassVar[tuple[str, ...]] = factor_names(("world", *parts), joints, ("floor", *parts))

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    def terminal(self, data: Data) -> Array:
        """Too low, tilted by 0.2 rad, or any other number of the state at 100, [B]."""
        xp = data.qpos.__array_namespace__()
        z, angle = data.qpos[..., 1], data.qpos[..., 2]
        rest = xp.concat([data.qpos[..., 2:], data.qvel], axis=-1)
        return ~((z > 0.7) & (xp.abs(angle) < 0.2) & xp.all(xp.abs(rest) < 100.0, axis=-1))

    spec = functools.cached_property(make_spec)
    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    draw = draw
    kept_models = functools.cached_property(lambda self: {})
    physics = functools.cached_property(physics)
    factors, models, start, observe, reward, measure, oracle = (
        factors,
        models,
        start,
        observe,
        reward,
        measure,
        locomotion.no_oracle,
    )
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
    task_axis, pictures, frames, recording = task_axis, pictures, frames, locomotion.recording
