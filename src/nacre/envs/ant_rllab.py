"""The ants of MAML's code: a hidden direction, a hidden speed, a hidden place (maml/ant-dir, maml/ant-vel, maml/ant-goal).

Source: Finn et al. 2017, cbfinn/maml_rl, rllab/envs/mujoco/ant_env_rand_direc.py, ant_env_rand.py, ant_env_rand_goal.py,
mujoco_env.py, vendor/mujoco_models/ant.xml. Its model is gym's ant (motors of +-150 without a gear are ours of +-1 with one of
150) with softer contacts, steps of 0.02 s and a crouching start. One substep per env step, everything computed anew after it;
velocity and place are those of the mass centre.

Observation (125 numbers): qpos (15), qvel (14), contact forces clipped to +-1 (84), the torso's rotation (9), mass centre (3).
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nacre.envs import locomotion
from nacre.envs.ant import CONTACTS, HIGHEST, MOTION, POSE, clipped_contacts, cost
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import CONTACT_FORCES, Physics, gymnasium_asset
from nacre.types import Array, EnvSpec

TIME_STEP = 0.02  # s: of a substep and of an env step
SOLIMP = (0.8, 0.8, 0.01, 0.5, 2.0)  # softness of contacts; gym's ant has MuJoCo's 0.9, 0.95, 0.001
START = (0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1)  # qpos: crouching; the last eight are joints in rad
POSE_NOISE, MOTION_NOISE = 0.01, 0.1  # standard deviations on qpos and qvel
LOWEST = 0.2  # m: an ant whose torso is below is over
CONTROL_COST, ALIVE = 0.005, 0.05
NAMES = (
    POSE + MOTION + CONTACTS + locomotion.numbered("rotation", 9) + tuple(f"mass centre {axis} (m)" for axis in "xyz")
)


def soften(model: Any) -> None:
    """MAML's contacts."""
    model.geom_solimp[:] = SOLIMP


def centre(data: Data) -> Array:
    """The mass centre on the ground, m, [B, 2]."""
    return data.fields["subtree_com"][..., 1, :2]  # the torso's subtree is everything


def speed(data: Data) -> Array:
    """Of the mass centre along x, m/s, [B]."""
    return data.fields["subtree_linvel"][..., 1, 0]


# Methods of all three.


def start(family: Any, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """rllab's reset noise around the crouching pose."""
    pose, motion = locomotion.normal(POSE_NOISE), locomotion.normal(MOTION_NOISE)
    qpos, qvel = locomotion.noisy_start(rng, model, rows, pose, motion)
    return qpos - model.qpos0 + np.array(START, float), qvel


def observe(family: Any, data: Data) -> Array:
    """[B, 125]."""
    xp = data.qpos.__array_namespace__()
    rotation = data.fields["xmat"].reshape(*data.qpos.shape[:-1], -1, 9)[..., 1, :]  # MJX has 3 x 3
    return xp.concat(
        [data.qpos, data.qvel, clipped_contacts(data), rotation, data.fields["subtree_com"][..., 1, :]], axis=-1
    )


def terminal(family: Any, data: Data) -> Array:
    """The torso is too low or too high, [B]."""
    z = data.qpos[..., 2]
    return (z < LOWEST) | (z > HIGHEST)


def measure(family: Any, before: Data, after: Data, dt: float) -> dict[str, Array]:
    """x, y of the mass centre [B] in m, velocity along x in m/s; qpos [B, 15] if asked for."""
    place = centre(after)
    info = {"x": place[..., 0], "y": place[..., 1], "velocity": speed(after)}
    return {**info, "qpos": after.qpos} if family.record_qpos else info


def physics(family: Any) -> Physics:
    fields, finish = (
        ("subtree_com", "subtree_linvel", "xmat", "cfrc_ext"),
        ("mj_forward", "mj_subtreeVel", CONTACT_FORCES),
    )
    options = {"finish": finish, "timestep": TIME_STEP, "adjust": soften, "threads": family.threads}
    return Physics(gymnasium_asset("ant.xml"), 1, fields, **options)


def make_spec(family: Any, task_names: tuple[str, ...], reward: str) -> EnvSpec:
    """Raises ValueError for parameters out of range."""
    locomotion.check(family)
    note = f"{reward} - 0.005 |a|^2 - 5e-4 |contacts|^2 + 0.05 per step alive"
    options = {"actions": 8, "dt": TIME_STEP, "can_terminate": True}
    return locomotion.make_spec(family, NAMES, task_names, note, **options)


@dataclass(frozen=True)
class MamlAntDir:
    """Run forward or backward: reward direction * v - 0.005 |a|^2 - 5e-4 |contacts|^2 + 0.05. Tasks: -1 and +1, float32 [2],
    train = test."""

    horizon: int = 200  # env steps of 0.02 s per episode
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "maml/ant-dir"
    trial: ClassVar[tuple[int, int]] = (2, 1)
    train_is_test: ClassVar[bool] = True  # by the published design

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return make_spec(self, ("direction",), "direction * v")

    @property
    def train_tasks(self) -> np.ndarray:
        return np.array([-1.0, 1.0], np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Any, n: int) -> np.ndarray:
        return mjc.host_generator(key).choice(self.train_tasks, n)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """ant_env_rand_direc.py."""
        return task * speed(after) - cost(after, action, CONTROL_COST) + ALIVE

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.locomotion_pictures import speed_pictures

        return speed_pictures(evaluation, "direction")

    def frames(self, trial: dict):
        from nacre.envs.animations import cheetah_frames

        return cheetah_frames(trial, self, directions=True)

    physics, recording = functools.cached_property(physics), locomotion.recording
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, locomotion.no_oracle
    reset, restart, step = mjc.reset, mjc.restart, mjc.step


@dataclass(frozen=True)
class MamlAntVel:
    """Run at a hidden speed: reward 1 - |v - v*| - 0.005 |a|^2 - 5e-4 |contacts|^2 + 0.05. A task is v* in m/s, uniform in
    0 .. 3; float32 [n]."""

    horizon: int = 200  # env steps of 0.02 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed
    n_test: int = 40  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "maml/ant-vel"
    trial: ClassVar[tuple[int, int]] = (2, 1)

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return make_spec(self, ("target speed (m/s)",), "1 - |v - v*|")

    def draw(self, rng: Any, n: int) -> np.ndarray:
        """n speeds in m/s."""
        return rng.uniform(0, 3.0, n).astype(np.float32)

    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """ant_env_rand.py."""
        xp = action.__array_namespace__()
        return 1.0 - xp.abs(speed(after) - task) - cost(after, action, CONTROL_COST) + ALIVE

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.locomotion_pictures import speed_pictures

        return speed_pictures(evaluation, "target speed (m/s)")

    def frames(self, trial: dict):
        from nacre.envs.animations import cheetah_frames

        return cheetah_frames(trial, self)

    physics, recording = functools.cached_property(physics), locomotion.recording
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, locomotion.no_oracle
    reset, restart, step = mjc.reset, mjc.restart, mjc.step


@dataclass(frozen=True)
class MamlAntGoal:
    """Go to a place: reward 4 - |x - gx| - |y - gy| - 0.005 |a|^2 - 5e-4 |contacts|^2 + 0.05. A task is the goal (gx, gy) in m,
    uniform in a square of +-3; float32 [n, 2]."""

    horizon: int = 200  # env steps of 0.02 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed
    n_test: int = 40  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "maml/ant-goal"
    trial: ClassVar[tuple[int, int]] = (2, 1)

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return make_spec(self, ("goal x (m)", "goal y (m)"), "4 - |x - gx| - |y - gy|")

    def draw(self, rng: Any, n: int) -> np.ndarray:
        """n goals [n, 2]."""
        return rng.uniform(-3.0, 3.0, (n, 2)).astype(np.float32)

    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """ant_env_rand_goal.py."""
        xp = action.__array_namespace__()
        return 4.0 - xp.sum(xp.abs(centre(after) - task), axis=-1) - cost(after, action, CONTROL_COST) + ALIVE

    task_axis, pictures, frames = locomotion.goal_axis, locomotion.goal_pictures, locomotion.goal_frames
    physics, recording = functools.cached_property(physics), locomotion.recording
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, locomotion.no_oracle
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
