"""Ants that must run in a hidden direction (ant-dir, ant-dir-2d) or to a hidden place (ant-goal), as PEARL has them.

Source: Rakelly et al. 2019, oyster 44e20fd, rlkit/envs/ant_dir.py, ant_goal.py, ant_multitask_base.py. The model is gym's
ant.xml as gymnasium ships it (text unchanged since gym 0.12.1): RK4, 5 substeps of 0.01 s per env step, gear 150.

Velocities and places are those of the torso as MuJoCo leaves them after the substeps (with RK4 a prediction made in the
last one), as in the original code. Contact forces are computed after each env step: MuJoCo 1.50, which the paper used, did
so by itself, later ones leave zeros unless asked.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from nacre.envs import locomotion
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import CONTACT_FORCES, Physics, gymnasium_asset
from nacre.types import Array, EnvSpec, Key

FRAME_SKIP = 5
DT = 0.05  # seconds: FRAME_SKIP * the model's time step of 0.01
RESET_NOISE = 0.1  # m, rad: half width of the uniform noise on qpos; m/s, rad/s: standard deviation on qvel
CONTACT_COST = 5e-4  # per squared contact force, clipped to 1, over all bodies
HIGHEST = 1.0  # m: an ant whose torso is above is over
BODIES = 14  # of the model, the world included
JOINTS = tuple(f"{joint} {k} (rad)" for k in (1, 2, 3, 4) for joint in ("hip", "ankle"))
POSE = ("x (m)", "y (m)", "z (m)", *(f"orientation {part}" for part in "wxyz"), *JOINTS)
MOTION = (
    *(f"velocity {axis} (m/s)" for axis in "xyz"),
    *(f"angular velocity {axis} (rad/s)" for axis in "xyz"),
    *(name.replace("(rad)", "velocity (rad/s)") for name in JOINTS),
)
CONTACTS = locomotion.numbered("contact force, clipped", 6 * BODIES)

Observation = Literal["pearl", "contacts"]


def torso(data: Data) -> Array:
    """The torso's place on the ground, m, [B, 2]."""
    return data.fields["xpos"][..., 1, :2]  # body 1 is the torso


def clipped_contacts(data: Data) -> Array:
    """Forces and torques on all bodies, clipped to +-1, [B, 84]."""
    xp = data.qpos.__array_namespace__()
    forces = data.fields["cfrc_ext"]
    return xp.clip(forces, -1.0, 1.0).reshape(*forces.shape[:-2], -1)


def cost(data: Data, action: Array, control: float) -> Array:
    """control |action|^2 + 5e-4 |clipped contact forces|^2, [B]; the action is the clipped one."""
    xp = action.__array_namespace__()
    contact = CONTACT_COST * xp.sum(clipped_contacts(data) ** 2, axis=-1) if "cfrc_ext" in data.fields else 0.0
    return control * xp.sum(action**2, axis=-1) + contact


# What the families share; `family` is any of them, which take these functions as methods.


def start(family: Any, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """gym's reset noise."""
    return locomotion.noisy_start(rng, model, rows, locomotion.uniform(RESET_NOISE), locomotion.normal(RESET_NOISE))


def measure(family: Any, before: Data, after: Data, dt: float) -> dict[str, Array]:
    """x, y of the torso [B] in m; qpos [B, 15] if asked for."""
    place = torso(after)
    info = {"x": place[..., 0], "y": place[..., 1]}
    return {**info, "qpos": after.qpos} if family.record_qpos else info


def physics(family: Any) -> Physics:
    contacts = getattr(family, "contacts", True)
    fields, finish = (("xpos", "cfrc_ext"), (CONTACT_FORCES,)) if contacts else (("xpos",), ())
    path = gymnasium_asset("ant.xml")
    return Physics(path, FRAME_SKIP, fields, finish=finish, threads=family.threads)


# ------------------------------------------------------------------------------------------------------- directions


def observe(family: Any, data: Data) -> Array:
    """[B, 27] or, with contact forces, [B, 111]."""
    xp = data.qpos.__array_namespace__()
    parts = [data.qpos[..., 2:], data.qvel]
    if family.observation == "contacts":
        parts.append(clipped_contacts(data))
    return xp.concat(parts, axis=-1)


def terminal(family: Any, data: Data) -> Array:
    """The torso is too low or too high, [B]."""
    z = data.qpos[..., 2]
    return (z < family.lowest) | (z > HIGHEST)


def direction_reward(family: Any, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
    """oyster ant_dir.py: v . u - 0.5 |a|^2 - 5e-4 |contacts|^2 + 1, with u the direction at the task's angle."""
    xp = action.__array_namespace__()
    velocity = (torso(after) - torso(before)) / dt
    return xp.sum(velocity * locomotion.unit(task), axis=-1) - cost(after, action, 0.5) + 1.0


def direction_spec(family: Any) -> EnvSpec:
    """Raises ValueError for parameters out of range."""
    good = family.observation in ("pearl", "contacts")
    locomotion.require(family, "observation", good, "be 'pearl' (27 numbers) or 'contacts' (111 numbers)")
    locomotion.require(family, "lowest", 0 <= family.lowest < HIGHEST, f"lie between 0 and {HIGHEST:g} m")
    locomotion.check(family)
    names = POSE[2:] + MOTION + CONTACTS * (family.observation == "contacts")
    note = "velocity in the task's direction - 0.5 |a|^2 - 5e-4 |contacts|^2 + 1 per step alive"
    return locomotion.make_spec(family, names, ("direction (rad)",), note, actions=8, dt=DT, can_terminate=True)


@dataclass(frozen=True)
class AntDir:
    """Run forward or backward: reward v . u - 0.5 |a|^2 - 5e-4 |contacts|^2 + 1. Tasks: the angles 0 and pi of u, float32
    [2], train = test, as the paper means it (the released configuration leaves `forward_backward` out, and so trains on two
    random angles). Standing still is worth about 200 per episode; an ant that ignores the task can do no better.
    """

    observation: Observation = "pearl"  # "pearl": 27 numbers; "contacts": 111, with the clipped contact forces
    lowest: float = 0.2  # m: an ant whose torso is below is over
    horizon: int = 200  # env steps of 0.05 s per episode
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "ant-dir"
    trial: ClassVar[tuple[int, int]] = (3, 2)
    angles: ClassVar[tuple[float, ...]] = (0.0, float(np.pi))
    train_is_test: ClassVar[bool] = True  # by the published design

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @property
    def train_tasks(self) -> np.ndarray:
        return np.array(self.angles, np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return mjc.host_generator(key).choice(self.train_tasks, n)

    spec = functools.cached_property(direction_spec)
    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, locomotion.no_oracle
    reward, reset, restart, step = direction_reward, mjc.reset, mjc.restart, mjc.step
    pictures, frames, recording = locomotion.heading_pictures, locomotion.heading_frames, locomotion.recording


@dataclass(frozen=True)
class AntDir2D:
    """Run in any direction: reward as ant-dir's. A task is the angle of u in rad, uniform in 0 .. 2 pi; float32 [n].

    Continuous headings as in ProMP, VariBAD's "2D" and MACAW; observation, cost and termination are PEARL's.
    """

    observation: Observation = "pearl"  # "pearl": 27 numbers; "contacts": 111, with the clipped contact forces
    lowest: float = 0.2  # m: an ant whose torso is below is over
    horizon: int = 200  # env steps of 0.05 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed
    n_test: int = 30  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "ant-dir-2d"
    trial: ClassVar[tuple[int, int]] = (3, 2)

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    draw = locomotion.any_direction
    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    spec = functools.cached_property(direction_spec)
    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, locomotion.no_oracle
    reward, reset, restart, step = direction_reward, mjc.reset, mjc.restart, mjc.step
    pictures, frames, recording = locomotion.heading_pictures, locomotion.heading_frames, locomotion.recording


# ------------------------------------------------------------------------------------------------------------ goals


@dataclass(frozen=True)
class AntGoal:
    """Go to a place: reward -|x - gx| - |y - gy| - 0.1 |a|^2 - 5e-4 |contacts|^2. A task is the goal (gx, gy) in m, uniform
    in a disc; float32 [n, 2]. No episode ends early. Staying at the start is worth about -509 per episode over the disc.
    """

    contacts: bool = True  # contact forces in observation and reward; False: 29 numbers, which steps faster
    radius: float = 3.0  # m, of the disc of goals
    horizon: int = 200  # env steps of 0.05 s per episode
    n_train: int = 150  # training tasks, drawn once from a fixed seed (the original draws new ones in every run)
    n_test: int = 30  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "ant-goal"
    trial: ClassVar[tuple[int, int]] = (3, 2)

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        locomotion.require(self, "radius", 0 < self.radius < float("inf"), "be positive and finite (m)")
        locomotion.check(self)
        names = POSE + MOTION + CONTACTS * self.contacts
        note = "-|x - gx| - |y - gy| - 0.1 |a|^2" + " - 5e-4 |contacts|^2" * self.contacts + " per step"
        return locomotion.make_spec(self, names, ("goal x (m)", "goal y (m)"), note, actions=8, dt=DT)

    def draw(self, rng: Any, n: int) -> np.ndarray:
        """n goals [n, 2], uniform in the disc."""
        angle, distance = rng.uniform(0, 2 * np.pi, n), self.radius * rng.uniform(0, 1, n) ** 0.5
        return (distance[:, None] * locomotion.unit(angle)).astype(np.float32)

    def observe(self, data: Data) -> Array:
        """[B, 113], or [B, 29] without contact forces."""
        xp = data.qpos.__array_namespace__()
        parts = [data.qpos, data.qvel]
        if self.contacts:
            parts.append(clipped_contacts(data))
        return xp.concat(parts, axis=-1)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """oyster ant_goal.py: -|x - gx| - |y - gy| - 0.1 |a|^2 - 5e-4 |contacts|^2."""
        xp = action.__array_namespace__()
        return -xp.sum(xp.abs(torso(after) - task), axis=-1) - cost(after, action, 0.1)

    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    physics = functools.cached_property(physics)
    start, terminal, measure, oracle = start, locomotion.never, measure, locomotion.no_oracle
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
    task_axis, pictures, frames = locomotion.goal_axis, locomotion.goal_pictures, locomotion.goal_frames
    recording = locomotion.recording


@dataclass(frozen=True)
class AntGoalNoContact(AntGoal):
    """ant-goal as MuJoCo 2.x gave it to those who did not ask for contact forces: these are left out of observation (29
    numbers; others have the zeros in it) and reward."""

    contacts: bool = False

    name: ClassVar[str] = "ant-goal-no-contact"
