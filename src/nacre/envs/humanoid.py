"""A humanoid that must run in a hidden direction (humanoid-dir), as PEARL has it.

Source: Rakelly et al. 2019, oyster 44e20fd, rlkit/envs/humanoid_dir.py. The model is gym's humanoid.xml as gymnasium ships
it: RK4, 5 substeps of 0.003 s per env step, PGS solver.

The bonus of 5 per step alive outweighs everything else: 200 steps upright are worth 1000, whatever the direction.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nacre.envs import locomotion
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import CONTACT_FORCES, Physics, gymnasium_asset
from nacre.types import Array, EnvSpec

FRAME_SKIP = 5
DT = 0.015  # seconds: FRAME_SKIP * the model's time step of 0.003
SPEED_WEIGHT = 1.25  # per m/s: the original's 0.25 per distance / 0.003 s, which is the time step and not the env step
RESET_NOISE = 0.01  # half width of the uniform noise on qpos and qvel
BODIES, JOINTS, ACTIONS = 14, 17, 17  # the world is a body
FIELDS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")  # of the observation, in this order
NAMES = (
    "z (m)",
    *(f"orientation {part}" for part in "wxyz"),
    *locomotion.numbered("joint angle (rad)", JOINTS),
    *(f"velocity {axis} (m/s)" for axis in "xyz"),
    *(f"angular velocity {axis} (rad/s)" for axis in "xyz"),
    *locomotion.numbered("joint velocity (rad/s)", JOINTS),
    *locomotion.numbered("inertia about the mass centre", 10 * BODIES),
    *locomotion.numbered("velocity about the mass centre", 6 * BODIES),
    *locomotion.numbered("actuator force", 6 + JOINTS),
    *locomotion.numbered("contact force", 6 * BODIES),
)


@dataclass(frozen=True)
class HumanoidDir:
    """Run in a hidden direction: reward 1.25 v . u - 0.1 |a|^2 - min(5e-7 |contacts|^2, 10) + 5, with v the velocity of the
    mass centre and actions within +-0.4. A task is the angle of u in rad, uniform in 0 .. 2 pi; float32 [n].
    """

    horizon: int = 200  # env steps of 0.015 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed (the original draws new ones in every run)
    n_test: int = 30  # test tasks, the next ones of the same stream
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "humanoid-dir"
    trial: ClassVar[tuple[int, int]] = (3, 2)

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        locomotion.check(self)
        note = "1.25 * velocity in the task's direction - 0.1 |a|^2 - min(5e-7 |contacts|^2, 10) + 5 per step alive"
        options = {"bound": 0.4, "actions": ACTIONS, "dt": DT, "can_terminate": True}
        return locomotion.make_spec(self, NAMES, ("direction (rad)",), note, **options)

    @functools.cached_property
    def physics(self) -> Physics:
        path, fields = gymnasium_asset("humanoid.xml"), (*FIELDS, "xipos")
        return Physics(path, FRAME_SKIP, fields, finish=(CONTACT_FORCES,), threads=self.threads)

    def start(self, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """gym's reset noise."""
        noise = locomotion.uniform(RESET_NOISE)
        return locomotion.noisy_start(rng, model, rows, noise, noise)

    def observe(self, data: Data) -> Array:
        """[B, 376]."""
        xp = data.qpos.__array_namespace__()
        flat = [data.fields[name].reshape(*data.qpos.shape[:-1], -1) for name in FIELDS]
        return xp.concat([data.qpos[..., 2:], data.qvel, *flat], axis=-1)

    def mass_centre(self, data: Data) -> Array:
        """Of the whole body, on the ground, m, [B, 2]."""
        xp = data.qpos.__array_namespace__()
        mass = xp.asarray(self.physics.model.body_mass)[:, None]
        return xp.sum(mass * data.fields["xipos"][..., :2], axis=-2) / xp.sum(mass)

    def reward(self, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
        """oyster humanoid_dir.py: 0.25 u . (distance of the mass centre) / 0.003 - 0.1 |ctrl|^2 - impact + 5."""
        xp = action.__array_namespace__()
        velocity = (self.mass_centre(after) - self.mass_centre(before)) / dt
        forward = SPEED_WEIGHT * xp.sum(velocity * locomotion.unit(task), axis=-1)
        impact = xp.clip(5e-7 * xp.sum(after.fields["cfrc_ext"] ** 2, axis=(-2, -1)), 0.0, 10.0)
        return forward - 0.1 * xp.sum(action**2, axis=-1) - impact + 5.0

    def terminal(self, data: Data) -> Array:
        """The torso is below 1 m or above 2 m, [B]."""
        z = data.qpos[..., 2]
        return (z < 1.0) | (z > 2.0)

    def measure(self, before: Data, after: Data, dt: float) -> dict[str, Array]:
        """x, y of the mass centre [B] in m; qpos [B, 24] if asked for."""
        place = self.mass_centre(after)
        info = {"x": place[..., 0], "y": place[..., 1]}
        return {**info, "qpos": after.qpos} if self.record_qpos else info

    draw = locomotion.any_direction
    _split, sample_tasks = functools.cached_property(locomotion.drawn_split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    oracle, recording = locomotion.no_oracle, locomotion.recording
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
    pictures, frames = locomotion.heading_pictures, locomotion.heading_frames
