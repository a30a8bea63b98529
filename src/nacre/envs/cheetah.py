"""Half-cheetah that must run at a hidden speed (cheetah-vel) or in a hidden direction (cheetah-dir), as PEARL has them.

Source: Rakelly et al. 2019, oyster 44e20fd, rlkit/envs/half_cheetah_vel.py and half_cheetah_dir.py. The model is gym's
half_cheetah.xml as gymnasium ships it (text unchanged since gym 0.12.1): 5 substeps of 0.01 s per env step.

Observation (20 numbers): qpos without x (8), qvel (9), torso position (3) as MuJoCo leaves it after the substeps, that
is at the start of the last one. It holds the absolute x; "gymnasium" leaves the last three out (17 numbers).
Reward: task term - 0.05 |action|^2, with the velocity (x after - x before) / 0.05 s and the action clipped to [-1, 1].
No episode ends early.

simulator "rllab" is the half-cheetah of MAML (cbfinn/maml_rl, rllab/envs/mujoco/half_cheetah_env_rand.py): one substep per
env step, everything computed anew after it, velocity and last three numbers those of the mass centre, Gaussian reset noise.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from nacre.envs import locomotion
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import Physics, gymnasium_asset
from nacre.types import Array, EnvSpec, Key

FRAME_SKIP = {"gym": 5, "rllab": 1}
TIME_STEP = 0.01  # seconds, the model's
RESET_NOISE = 0.1  # m, rad: half width of the uniform noise on qpos; m/s, rad/s: standard deviation on qvel
RLLAB_POSE_NOISE = 0.01  # m, rad: standard deviation on qpos
CONTROL_COST = 0.05
JOINTS = ("rootz (m)", "rooty (rad)", *(f"{leg}{part} (rad)" for leg in "bf" for part in ("thigh", "shin", "foot")))
OBS_NAMES = (
    *JOINTS,
    "rootx velocity (m/s)",
    *(name.replace("(m)", "velocity (m/s)").replace("(rad)", "velocity (rad/s)") for name in JOINTS),
)

Observation = Literal["pearl", "gymnasium"]
Simulator = Literal["gym", "rllab"]


def velocity(family: Any, before: Data, after: Data, dt: float) -> Array:
    """Forward velocity, m/s, [B]: of the root over the env step, or with rllab of the mass centre at its end."""
    if family.simulator == "rllab":
        return after.fields["subtree_linvel"][..., 1, 0]
    return (after.qpos[..., 0] - before.qpos[..., 0]) / dt


def control_cost(action: Array) -> Array:
    """0.05 |action|^2, [B]; the action is the clipped one."""
    xp = action.__array_namespace__()
    return CONTROL_COST * xp.sum(action**2, axis=-1)


# What both families share; `family` is either of them, which take these functions as methods.


def start(family: Any, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """gym's or rllab's reset noise."""
    pose = {"gym": locomotion.uniform(RESET_NOISE), "rllab": locomotion.normal(RLLAB_POSE_NOISE)}[family.simulator]
    return locomotion.noisy_start(rng, model, rows, pose, locomotion.normal(RESET_NOISE))


def observe(family: Any, data: Data) -> Array:
    """[B, 20] or [B, 17]."""
    xp = data.qpos.__array_namespace__()
    parts = [data.qpos[..., 1:], data.qvel]
    if family.observation == "pearl":
        place = "xpos" if family.simulator == "gym" else "subtree_com"
        parts.append(data.fields[place][..., 1, :])  # body 1 is the torso, its subtree everything
    return xp.concat(parts, axis=-1)


def measure(family: Any, before: Data, after: Data, dt: float) -> dict[str, Array]:
    """velocity [B] in m/s; qpos [B, 9] if asked for."""
    info = {"velocity": velocity(family, before, after, dt)}
    return {**info, "qpos": after.qpos} if family.record_qpos else info


def physics(family: Any) -> Physics:
    path, skip = gymnasium_asset("half_cheetah.xml"), FRAME_SKIP[family.simulator]
    if family.simulator == "rllab":
        fields, finish = ("subtree_com", "subtree_linvel"), ("mj_forward", "mj_subtreeVel")
        return Physics(path, skip, fields, finish=finish, threads=family.threads)
    return Physics(path, skip, ("xpos",) * (family.observation == "pearl"), threads=family.threads)


def make_spec(family: Any, task_name: str, reward_note: str) -> EnvSpec:
    """Raises ValueError for parameters out of range."""
    good = family.observation in ("pearl", "gymnasium")
    locomotion.require(family, "observation", good, "be 'pearl' (20 numbers) or 'gymnasium' (17 numbers)")
    locomotion.require(family, "simulator", family.simulator in FRAME_SKIP, "be 'gym' or 'rllab'")
    locomotion.check(family)
    place = {"gym": "torso", "rllab": "mass centre"}[family.simulator]
    names = OBS_NAMES + tuple(f"{place} {axis} (m)" for axis in "xyz" if family.observation == "pearl")
    dt = TIME_STEP * FRAME_SKIP[family.simulator]
    return locomotion.make_spec(family, names, (task_name,), reward_note, actions=6, dt=dt)


def direction_pictures(family: Any, evaluation: dict) -> list:
    """Of families whose tasks are directions."""
    from nacre.envs.cheetah_pictures import pictures

    return pictures(evaluation, dt=family.spec.dt, directions=True)


def direction_frames(family: Any, trial: dict):
    from nacre.envs.animations import cheetah_frames

    return cheetah_frames(trial, family, directions=True)


@dataclass(frozen=True)
class CheetahVel:
    """Run at a hidden speed: reward -|v - v*| - 0.05 |a|^2. A task is v* in m/s; tasks are float32 [n].

    Doing nothing is worth about -283.5 per episode on the test tasks.
    """

    observation: Observation = "pearl"  # "pearl": 20 numbers with the torso's position; "gymnasium": 17 without
    simulator: Simulator = "gym"  # "gym": env steps of 0.05 s; "rllab": of 0.01 s, as in MAML's code
    horizon: int = 200  # env steps per episode
    max_speed: float = 3.0  # m/s; target speeds are uniform between 0 and this
    n_train: int = 100  # training tasks, drawn once from oyster's seed 1337
    n_test: int = 30  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "cheetah-vel"
    trial: ClassVar[tuple[int, int]] = (3, 2)

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        locomotion.require(self, "max_speed", 0 < self.max_speed < float("inf"), "be positive and finite (m/s)")
        note = f"-|v - v*| - 0.05 |a|^2 per step, v* between 0 and {self.max_speed:g} m/s"
        return make_spec(self, "target speed (m/s)", note)

    def draw(self, rng: Any, n: int) -> np.ndarray:
        """n speeds in m/s."""
        return rng.uniform(0, self.max_speed, n).astype(np.float32)

    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """oyster half_cheetah_vel.py: -|v - v*| - 0.05 |a|^2."""
        xp = action.__array_namespace__()
        return -xp.abs(velocity(self, before, after, dt) - task) - control_cost(action)

    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, locomotion.never, measure, locomotion.no_oracle
    reset, restart, step, recording = mjc.reset, mjc.restart, mjc.step, locomotion.recording

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.cheetah_pictures import pictures

        return pictures(evaluation, dt=self.spec.dt)

    def frames(self, trial: dict):
        from nacre.envs.animations import cheetah_frames

        return cheetah_frames(trial, self)


@dataclass(frozen=True)
class CheetahDir:
    """Run forward or backward: reward direction * v - 0.05 |a|^2. Tasks: -1 and +1, float32 [2], train = test.

    An agent that ignores the task averages about zero; two tasks say nothing about generalisation.
    """

    observation: Observation = "pearl"  # "pearl": 20 numbers with the torso's position; "gymnasium": 17 without
    simulator: Simulator = "gym"  # "gym": env steps of 0.05 s; "rllab": of 0.01 s, as in MAML's code
    horizon: int = 200  # env steps per episode
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "cheetah-dir"
    trial: ClassVar[tuple[int, int]] = (3, 2)
    train_is_test: ClassVar[bool] = True  # by the published design

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return make_spec(self, "direction", "direction * v - 0.05 |a|^2 per step, direction -1 or +1")

    @property
    def train_tasks(self) -> np.ndarray:
        return np.array([-1.0, 1.0], np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return mjc.host_generator(key).choice(self.train_tasks, n)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """oyster half_cheetah_dir.py: direction * v - 0.05 |a|^2."""
        return task * velocity(self, before, after, dt) - control_cost(action)

    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, locomotion.never, measure, locomotion.no_oracle
    reset, restart, step, recording = mjc.reset, mjc.restart, mjc.step, locomotion.recording
    pictures, frames = direction_pictures, direction_frames


@dataclass(frozen=True)
class HalfCheetah:
    """Run forward, gymnasium's HalfCheetah-v5: reward v - 0.1 |a|^2. One task, direction +1, float32 [1]."""

    horizon: int = 1000  # env steps per episode
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "half-cheetah"
    trial: ClassVar[tuple[int, int]] = (1, 0)
    train_is_test: ClassVar[bool] = True  # there is only one task
    observation: ClassVar[Observation] = "gymnasium"
    simulator: ClassVar[Simulator] = "gym"

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return make_spec(self, "direction", "v - 0.1 |a|^2 per step")

    @property
    def train_tasks(self) -> np.ndarray:
        return np.ones(1, np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return np.ones(n, np.float32)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """HalfCheetah-v5: forward_reward_weight 1, ctrl_cost_weight 0.1."""
        return task * velocity(self, before, after, dt) - 2.0 * control_cost(action)

    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, locomotion.never, measure, locomotion.no_oracle
    reset, restart, step, recording = mjc.reset, mjc.restart, mjc.step, locomotion.recording
    pictures, frames = direction_pictures, direction_frames
