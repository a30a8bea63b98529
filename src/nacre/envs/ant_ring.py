"""An ant with weak motors that must find a hidden goal on a half circle (ant-ring), as MAESN has it.

Source: Gupta et al. 2018, RussellM2020/maesn_suite e944491, ant_env_rand_goal_ring.py and low_gear_ratio_ant.xml, which is gym's
ant with a gear of 30 instead of 150. One RK4 step of 0.01 s per env step, everything computed anew after it, places are those
of the mass centre; observation (125 numbers), start and heights are those of MAML's ants (ant_rllab.py), of the same framework.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from nacre.envs import ant_rllab, locomotion, maesn
from nacre.envs.ant import cost
from nacre.envs.ant_rllab import ALIVE, CONTROL_COST, centre
from nacre.envs.backends import mujoco as mjc
from nacre.envs.backends.mujoco import Data
from nacre.envs.backends.mujoco_physics import CONTACT_FORCES, Physics, gymnasium_asset
from nacre.types import Array, EnvSpec

DT = 0.01  # s: the model's time step, one per env step
GEAR = 30.0  # Nm at the bound of an action
BASE = 4.0  # per env step, so that to fall is never the best


def weaken(model: Any) -> None:
    """MAESN's motors."""
    model.actuator_gear[:, 0] = GEAR


@dataclass(frozen=True)
class AntRing:
    """Go to a place: dense reward 4 - |x - gx| - |y - gy| - 0.005 |a|^2 - 5e-4 |contacts|^2 + 0.05; in the sparse one the distance
    counts within 0.8 m (Euclidean) of the goal only, and is |gx| + |gy| beyond. A task is the goal (gx, gy) in m, on a half circle
    of 2 m; float32 [n, 2].
    """

    rewards: maesn.Rewards = "published"  # "published": trained on dense, seen sparse; "dense", "sparse": both the same
    radius: float = 0.8  # m: of the zone around the goal in which the sparse reward tells the distance
    horizon: int = 200  # env steps of 0.01 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed; at most 100
    n_test: int = 30  # test tasks, the first of 100 that the same stream draws next
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "mjx", "warp": for GPUs (extras)

    name: ClassVar[str] = "ant-ring"
    trial: ClassVar[tuple[int, int]] = maesn.TRIAL

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        maesn.check(self)
        costs = " - 0.005 |a|^2 - 5e-4 |contacts|^2 + 0.05 per step alive"
        note = maesn.note(self, "4 - |x - gx| - |y - gy|", "4 - |gx| - |gy|", costs)
        options = {"actions": 8, "dt": DT, "can_terminate": True}
        return locomotion.make_spec(self, ant_rllab.NAMES, ("goal x (m)", "goal y (m)"), note, **options)

    @functools.cached_property
    def physics(self) -> Physics:
        fields, finish = ("subtree_com", "xmat", "cfrc_ext"), ("mj_forward", CONTACT_FORCES)
        return Physics(gymnasium_asset("ant.xml"), 1, fields, finish=finish, adjust=weaken, threads=self.threads)

    def distance(self, after: Data, task: Array) -> Array:
        """From the goal, m, [B]."""
        return maesn.length(centre(after) - task)

    def score(self, after: Data, action: Array, task: Array, sparse: bool) -> Array:
        """ant_env_rand_goal_ring.py."""
        xp = action.__array_namespace__()
        near = BASE - xp.sum(xp.abs(centre(after) - task), axis=-1)
        far = BASE - xp.sum(xp.abs(task), axis=-1)
        return (
            maesn.zoned(self, sparse, self.distance(after, task), near, far) - cost(after, action, CONTROL_COST) + ALIVE
        )

    def measure(self, before: Data, after: Data, dt: float) -> dict[str, Array]:
        """x, y of the mass centre [B] in m; qpos [B, 15] if asked for."""
        place = centre(after)
        info = {"x": place[..., 0], "y": place[..., 1]}
        return {**info, "qpos": after.qpos} if self.record_qpos else info

    draw, task_set = maesn.on_half_circle, maesn.goals_set
    _split, sample_tasks = functools.cached_property(maesn.split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    start, observe, terminal, oracle = ant_rllab.start, ant_rllab.observe, ant_rllab.terminal, locomotion.no_oracle
    reward, train_reward, measure_task = maesn.reward, maesn.train_reward, maesn.measure_task
    reset, restart, step, recording = mjc.reset, mjc.restart, mjc.step, locomotion.recording
    task_axis, pictures, frames = locomotion.goal_axis, maesn.goal_pictures, locomotion.goal_frames
    comparisons = maesn.found_comparison
