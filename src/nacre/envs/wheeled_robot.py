"""A cart on two driven wheels that must find a hidden goal on a half circle (wheeled-robot), as MAESN has it.

Source: Gupta et al. 2018, RussellM2020/maesn_suite e944491, wheeled_robot.py and wheeled.xml; the model is ours, from its numbers
(models/wheeled_robot.xml): Euler steps of 0.01 s, one per env step. The original asks for 14 kg in all, of which 3.79 kg are the
ball that shows the goal and never moves; so the cart has 10.21 kg here as there.

Observation (12 numbers): places of the six joints and their velocities.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nacre.envs import locomotion, maesn
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import Physics, own_asset
from nacre.types import Array, EnvSpec

DT = 0.01  # s: the model's time step, one per env step
TORQUE = 2.0  # Nm: bound of a wheel's
CONTROL_COST = 0.05  # per squared torque in Nm
POSE_NOISE, MOTION_NOISE = 0.01, 0.1  # standard deviations on qpos and qvel
JOINTS = ("x (m)", "y (m)", "z (m)", "heading (rad)", "right wheel (rad)", "left wheel (rad)")
NAMES = JOINTS + tuple(name.replace("(m)", "velocity (m/s)").replace("(rad)", "velocity (rad/s)") for name in JOINTS)


@dataclass(frozen=True)
class WheeledRobot:
    """Drive to a place: dense reward -|p - g| - 0.05 |a|^2 with torques a in Nm; in the sparse one the distance counts within 0.8 m
    of the goal only, and is |g| = 2 m beyond. A task is the goal (gx, gy) in m, on a half circle of 2 m; float32 [n, 2].
    """

    rewards: maesn.Rewards = "published"  # "published": trained on dense, seen sparse; "dense", "sparse": both the same
    radius: float = 0.8  # m: of the zone around the goal in which the sparse reward tells the distance
    horizon: int = 200  # env steps of 0.01 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed; at most 100
    n_test: int = 30  # test tasks, the first of 100 that the same stream draws next
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "wheeled-robot"
    trial: ClassVar[tuple[int, int]] = maesn.TRIAL

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        maesn.check(self)
        note = maesn.note(self, "-|p - g|", "-|g|", " - 0.05 |a|^2")
        options = {"bound": TORQUE, "actions": 2, "dt": DT}
        return locomotion.make_spec(self, NAMES, ("goal x (m)", "goal y (m)"), note, **options)

    @functools.cached_property
    def physics(self) -> Physics:
        return Physics(own_asset("wheeled_robot.xml"), 1, threads=self.threads)

    def start(self, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """rllab's reset noise."""
        pose, motion = locomotion.normal(POSE_NOISE), locomotion.normal(MOTION_NOISE)
        return locomotion.noisy_start(rng, model, rows, pose, motion)

    def observe(self, data: Data) -> Array:
        """[B, 12]."""
        return data.qpos.__array_namespace__().concat([data.qpos, data.qvel], axis=-1)

    def distance(self, after: Data, task: Array) -> Array:
        """From the goal, m, [B]."""
        return maesn.length(after.qpos[..., :2] - task)

    def score(self, after: Data, action: Array, task: Array, sparse: bool) -> Array:
        """wheeled_robot.py."""
        xp = action.__array_namespace__()
        distance = self.distance(after, task)
        term = maesn.zoned(self, sparse, distance, -distance, -maesn.length(task))
        return term - CONTROL_COST * xp.sum(action**2, axis=-1)

    def measure(self, before: Data, after: Data, dt: float) -> dict[str, Array]:
        """x, y [B] in m; qpos [B, 6] if asked for."""
        info = {"x": after.qpos[..., 0], "y": after.qpos[..., 1]}
        return {**info, "qpos": after.qpos} if self.record_qpos else info

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Turns toward the goal, forward or backward, and drives there with the brake in mind. Good, not the best there is."""
        xp = obs.__array_namespace__()
        gap, heading, turning = tasks - obs[:, :2], obs[:, 3], obs[:, 9]
        bearing = xp.atan2(gap[:, 1], gap[:, 0]) - heading
        aside = xp.atan(xp.tan(bearing))  # to the nearer of both ends of the cart
        ahead = xp.sum(gap * locomotion.unit(heading), axis=-1)
        speed = xp.sum(obs[:, 6:8] * locomotion.unit(heading), axis=-1)
        wanted = xp.sign(ahead) * xp.sqrt(2 * 2.0 * xp.abs(ahead)) * xp.cos(aside) ** 2  # slows down at 2 m/s^2
        drive = xp.clip(8.0 * (wanted - speed), -1.8, 1.8)
        turn = xp.where(xp.abs(ahead) + maesn.length(gap) > 0.2, 3.0 * aside, 0.0) - 0.6 * turning
        return xp.clip(xp.stack([drive + turn, drive - turn], axis=-1), -TORQUE, TORQUE)

    draw, task_set = maesn.on_half_circle, maesn.goals_set
    _split, sample_tasks = functools.cached_property(maesn.split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    terminal, recording = locomotion.never, locomotion.recording
    reward, train_reward, measure_task = maesn.reward, maesn.train_reward, maesn.measure_task
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
    task_axis, pictures, frames = locomotion.goal_axis, maesn.goal_pictures, locomotion.goal_frames
    comparisons = maesn.found_comparison
