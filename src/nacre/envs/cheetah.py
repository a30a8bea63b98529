"""Half-cheetah that must run at a hidden speed (cheetah-vel) or in a hidden direction (cheetah-dir), as PEARL has them.

Source: Rakelly et al. 2019, oyster 44e20fd, rlkit/envs/half_cheetah_vel.py and half_cheetah_dir.py. The model is gym's
half_cheetah.xml as gymnasium ships it (text unchanged since gym 0.12.1): 5 substeps of 0.01 s per env step.

Observation (20 numbers): qpos without x (8), qvel (9), torso position (3) as MuJoCo leaves it after the substeps, that
is at the start of the last one. It holds the absolute x; "gymnasium" leaves the last three out (17 numbers).
Reward: task term - 0.05 |action|^2, with the velocity (x after - x before) / 0.05 s and the action clipped to [-1, 1].
No episode ends early.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nacre.envs.backends import mujoco as backend
from nacre.envs.backends.mujoco import Data
from nacre.types import Array, Box, EnvSpec, Key

FRAME_SKIP = 5
DT = 0.05  # seconds: FRAME_SKIP * the model's time step of 0.01
RESET_NOISE = 0.1  # m, rad: half width of the uniform noise on qpos; m/s, rad/s: standard deviation on qvel
CONTROL_COST = 0.05
TASK_SEED = 1337  # oyster's
JOINTS = ("rootz (m)", "rooty (rad)", *(f"{leg}{part} (rad)" for leg in "bf" for part in ("thigh", "shin", "foot")))
OBS_NAMES = (
    *JOINTS,
    "rootx velocity (m/s)",
    *(name.replace("(m)", "velocity (m/s)").replace("(rad)", "velocity (rad/s)") for name in JOINTS),
    *(f"torso {axis} (m)" for axis in "xyz"),
)

Observation = Literal["pearl", "gymnasium"]


def velocity(before: Data, after: Data, dt: float) -> Array:
    """Mean forward velocity over the env step, m/s, [B]."""
    return (after.qpos[..., 0] - before.qpos[..., 0]) / dt


def control_cost(action: Array) -> Array:
    """0.05 |action|^2, [B]; the action is the clipped one."""
    xp = action.__array_namespace__()
    return CONTROL_COST * xp.sum(action**2, axis=-1)


# What both families share; `family` is either of them, which take these functions as methods.


def start(family: Any, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """gym's reset noise; one stream each for qpos and qvel, so that a row does not depend on how many follow it."""
    for_qpos, for_qvel = rng.spawn(2)
    qpos = model.qpos0 + for_qpos.uniform(-RESET_NOISE, RESET_NOISE, (rows, model.nq))
    return qpos, RESET_NOISE * for_qvel.standard_normal((rows, model.nv))


def observe(family: Any, data: Data) -> Array:
    """[B, 20] or [B, 17]."""
    xp = data.qpos.__array_namespace__()
    parts = [data.qpos[..., 1:], data.qvel]
    if family.observation == "pearl":
        parts.append(data.fields["xpos"][..., 1, :])  # body 1 is the torso
    return xp.concat(parts, axis=-1)


def terminal(family: Any, data: Data) -> Array:
    """Never."""
    xp = data.qpos.__array_namespace__()
    return xp.zeros(data.qpos.shape[:-1], dtype=bool)


def measure(family: Any, before: Data, after: Data, dt: float) -> dict[str, Array]:
    """velocity [B] in m/s; qpos [B, 9] if asked for."""
    info = {"velocity": velocity(before, after, dt)}
    return {**info, "qpos": after.qpos} if family.record_qpos else info


def physics(family: Any) -> backend.Physics:
    fields = ("xpos",) if family.observation == "pearl" else ()
    return backend.Physics(backend.gymnasium_asset("half_cheetah.xml"), FRAME_SKIP, fields, threads=family.threads)


def no_oracle(family: Any, tasks: Array, obs: Array, t: Array) -> None:
    """None: no policy that solves a given speed is known in closed form."""
    return None


def make_spec(family: Any, name: str, task_name: str, reward_note: str) -> EnvSpec:
    """Raises ValueError for parameters out of range."""
    if family.observation not in ("pearl", "gymnasium"):
        raise ValueError(
            f"{name}: observation must be 'pearl' (20 numbers) or 'gymnasium' (17 numbers), got {family.observation!r}"
        )
    if family.horizon < 1:
        raise ValueError(f"{name}: horizon must be at least 1 env step, got {family.horizon}")
    if family.threads < 0:
        raise ValueError(f"{name}: threads must be 0 (all cores) or a positive number, got {family.threads}")
    size = 20 if family.observation == "pearl" else 17
    return EnvSpec(
        name=name,
        obs_size=size,
        action=Box((-1.0,) * 6, (1.0,) * 6),
        horizon=family.horizon,
        jittable=False,
        dt=DT,
        obs_names=OBS_NAMES[:size],
        task_names=(task_name,),
        reward_note=reward_note,
    )


@dataclass(frozen=True)
class CheetahVel:
    """Run at a hidden speed: reward -|v - v*| - 0.05 |a|^2. A task is v* in m/s; tasks are float32 [n].

    Doing nothing is worth about -283.5 per episode on the test tasks.
    """

    observation: Observation = "pearl"  # "pearl": 20 numbers with the torso's position; "gymnasium": 17 without
    horizon: int = 200  # env steps of 0.05 s per episode
    max_speed: float = 3.0  # m/s; target speeds are uniform between 0 and this
    n_train: int = 100  # training tasks, drawn once from oyster's seed 1337
    n_test: int = 30  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn

    def __post_init__(self):
        if not 0 < self.max_speed < float("inf"):
            raise ValueError(f"cheetah-vel: max_speed must be positive and finite (m/s), got {self.max_speed}")
        if self.n_train < 1 or self.n_test < 1:
            counts = (self.n_train, self.n_test)
            raise ValueError(f"cheetah-vel: n_train and n_test must be at least 1, got {counts}")
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        note = f"-|v - v*| - 0.05 |a|^2 per step, v* between 0 and {self.max_speed:g} m/s"
        return make_spec(self, "cheetah-vel", "target speed (m/s)", note)

    @functools.cached_property
    def _speeds(self) -> np.ndarray:
        rng = np.random.RandomState(TASK_SEED)  # the published split, drawn without touching global state
        return rng.uniform(0, self.max_speed, self.n_train + self.n_test).astype(np.float32)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._speeds[: self.n_train]

    @property
    def test_tasks(self) -> np.ndarray:
        return self._speeds[self.n_train :]

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return backend.host_generator(key).uniform(0, self.max_speed, n).astype(np.float32)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """oyster half_cheetah_vel.py: -|v - v*| - 0.05 |a|^2."""
        xp = action.__array_namespace__()
        return -xp.abs(velocity(before, after, dt) - task) - control_cost(action)

    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, no_oracle
    reset, step = backend.reset, backend.step

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.pictures import cheetah_pictures

        return cheetah_pictures(evaluation)

    def frames(self, trial: dict):
        from nacre.envs.animations import cheetah_frames

        return cheetah_frames(trial, self)

    def recording(self):
        """The same family that also records poses, so that its episodes can be drawn."""
        return dataclasses.replace(self, record_qpos=True)


@dataclass(frozen=True)
class CheetahDir:
    """Run forward or backward: reward direction * v - 0.05 |a|^2. Tasks: -1 and +1, float32 [2], train = test.

    An agent that ignores the task averages about zero; two tasks say nothing about generalisation.
    """

    observation: Observation = "pearl"  # "pearl": 20 numbers with the torso's position; "gymnasium": 17 without
    horizon: int = 200  # env steps of 0.05 s per episode
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn

    train_is_test = True  # by the published design; not a field

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        return make_spec(self, "cheetah-dir", "direction", "direction * v - 0.05 |a|^2 per step, direction -1 or +1")

    @property
    def train_tasks(self) -> np.ndarray:
        return np.array([-1.0, 1.0], np.float32)

    test_tasks = train_tasks

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        return backend.host_generator(key).choice(self.train_tasks, n)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """oyster half_cheetah_dir.py: direction * v - 0.05 |a|^2."""
        return task * velocity(before, after, dt) - control_cost(action)

    physics = functools.cached_property(physics)
    start, observe, terminal, measure, oracle = start, observe, terminal, measure, no_oracle
    reset, step = backend.reset, backend.step

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.pictures import cheetah_pictures

        return cheetah_pictures(evaluation, directions=True)

    def frames(self, trial: dict):
        from nacre.envs.animations import cheetah_frames

        return cheetah_frames(trial, self, directions=True)

    def recording(self):
        """The same family that also records poses, so that its episodes can be drawn."""
        return dataclasses.replace(self, record_qpos=True)
