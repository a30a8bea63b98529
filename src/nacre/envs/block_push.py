"""A gripper that must push one of five blocks to a goal, and is told neither which nor where (block-push), as MAESN has it.

Source: Gupta et al. 2018, RussellM2020/maesn_suite e944491, pusher.py and pusher_env.xml; the model is ours, from its numbers
(models/block_push.xml): Euler steps of 0.01 s, one per env step, no gravity, no friction. Each block starts in a band of its own,
0.2 m wide, and its goal lies 0.1 to 0.6 m further along x in the same band. Episodes of one task begin alike, without noise.

Observation (26 numbers): the gripper's place and turn (3), the blocks' places (10), the velocities of all (13). So the layout is
seen.
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
FORCE = 2.0  # N, Nm: bound of the gripper's along x and y and about z
WEIGHT = 5.0  # reward per m
BLOCKS = 5
BAND, LOWEST = 0.2, -0.5  # m: width of a block's band along y, lower edge of the first
BLOCK_X, GOAL_X = (0.35, 0.65), (0.75, 0.95)  # m
LAYOUTS = maesn.SET // BLOCKS  # of a set: each with a task for each of its blocks
BEHIND, BESIDE = 0.05, 0.05  # m: from the gripper's middle to that of a block which it touches
PLACES = (
    *("gripper x (m)", "gripper y (m)", "gripper turn (rad)"),
    *(f"block {k} {axis} (m)" for k in range(BLOCKS) for axis in "xy"),
)
NAMES = PLACES + tuple(name.replace("(m)", "velocity (m/s)").replace("(rad)", "velocity (rad/s)") for name in PLACES)
TASK_NAMES = ("block", "goal x (m)", "goal y (m)", *PLACES[3:])


def layouts(rng: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n times the places of the blocks and of their goals, [n, 5, 2] each, in bands that are shuffled."""
    order = rng.uniform(0, 1, (n, BLOCKS)).argsort(axis=-1)
    xp = order.__array_namespace__()

    def scattered(x: tuple[float, float]) -> np.ndarray:
        y = LOWEST + BAND * (order + rng.uniform(0, 1, (n, BLOCKS)))
        return xp.stack([rng.uniform(*x, (n, BLOCKS)), y], axis=-1)

    return scattered(BLOCK_X), scattered(GOAL_X)


def chosen(task: Array, places: Array) -> Array:
    """That of the block which the task [..., 13] names, among places [..., 10 or 5, 2] of all, [..., 2]."""
    xp = places.__array_namespace__()
    places = places.reshape(*task.shape[:-1], BLOCKS, 2)
    this = task[..., :1] == xp.arange(BLOCKS)
    return xp.sum(xp.where(this[..., None], places, 0.0), axis=-2)


def rows_of(block: Array, goals: Array, places: Array) -> np.ndarray:
    """Tasks [n, 13] of blocks [n], goals and places [n, 5, 2] of all."""
    xp = goals.__array_namespace__()
    block = block[:, None]
    return xp.concat([block, chosen(block, goals), places.reshape(len(block), 2 * BLOCKS)], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class BlockPush:
    """Push a block to a place: dense reward -5 |b - g|; the sparse one is that within 0.2 m of the goal and -5 |g| beyond. A task
    is the block's number 0 .. 4, its goal (gx, gy) in m and the places of all blocks at the start; float32 [n, 13].
    """

    rewards: maesn.Rewards = "published"  # "published": trained on dense, seen sparse; "dense", "sparse": both the same
    radius: float = 0.2  # m: of the zone around the goal in which the sparse reward tells the block's distance
    horizon: int = 100  # env steps of 0.01 s per episode
    n_train: int = 100  # training tasks, drawn once from a fixed seed: 20 layouts, one per block; at most 100
    n_test: int = 30  # test tasks, the first of 100 that the same stream draws next
    threads: int = 0  # threads that step the simulation; 0: all cores
    record_qpos: bool = False  # also return the pose in info, so that episodes can be drawn
    backend: mjc.Backend = "c"  # who simulates: "c": MuJoCo's own library; "warp": for GPUs (an extra); not "mjx"

    name: ClassVar[str] = "block-push"
    trial: ClassVar[tuple[int, int]] = maesn.TRIAL
    observes_task: ClassVar[str] = "the blocks' places are observed, not which is meant nor its goal, as published"

    def __post_init__(self):
        _ = self.spec  # refuses bad values now

    @functools.cached_property
    def spec(self) -> EnvSpec:
        good = self.backend != "mjx"
        locomotion.require(
            self, "backend", good, "be 'c' or 'warp': MJX takes many minutes to compile contacts of boxes"
        )
        maesn.check(self)
        note = maesn.note(self, "-5 |b - g|", "-5 |g|")
        return locomotion.make_spec(self, NAMES, TASK_NAMES, note, bound=FORCE, actions=3, dt=DT)

    @functools.cached_property
    def physics(self) -> Physics:
        return Physics(own_asset("block_push.xml"), 1, threads=self.threads)

    def draw(self, rng: Any, n: int) -> np.ndarray:
        """n tasks, each with a layout of its own."""
        places, goals = layouts(rng, n)
        return rows_of(rng.uniform(0, BLOCKS, n) // 1, goals, places)

    def task_set(self, rng: Any) -> np.ndarray:
        """100 tasks: 20 layouts, with a task for each of their blocks, shuffled."""
        places, goals = (np.repeat(x, BLOCKS, axis=0) for x in layouts(rng, LAYOUTS))
        return rows_of(np.tile(np.arange(BLOCKS), LAYOUTS), goals, places)[rng.permutation(maesn.SET)]

    def start(self, rng: np.random.Generator, model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The gripper at the origin, everything at rest."""
        return np.zeros((rows, model.nq)), np.zeros((rows, model.nv))

    def arrange(self, qpos: Array, tasks: Array) -> Array:
        """The blocks where the tasks say. Raises ValueError for a block that there is not."""
        if isinstance(tasks, np.ndarray) and not np.isin(tasks[:, 0], np.arange(BLOCKS)).all():
            found = tasks[~np.isin(tasks[:, 0], np.arange(BLOCKS)), 0][0]
            raise ValueError(f"block-push: a task's block must be one of 0 .. {BLOCKS - 1}, got {found:g}")
        return tasks.__array_namespace__().concat([qpos[:, :3], tasks[:, 3:]], axis=-1)

    def observe(self, data: Data) -> Array:
        """[B, 26]."""
        return data.qpos.__array_namespace__().concat([data.qpos, data.qvel], axis=-1)

    def distance(self, after: Data, task: Array) -> Array:
        """Of the block from its goal, m, [B]."""
        return maesn.length(chosen(task, after.qpos[..., 3:]) - task[..., 1:3])

    def score(self, after: Data, action: Array, task: Array, sparse: bool) -> Array:
        """pusher.py."""
        distance = self.distance(after, task)
        return maesn.zoned(self, sparse, distance, -WEIGHT * distance, -WEIGHT * maesn.length(task[..., 1:3]))

    def measure(self, before: Data, after: Data, dt: float) -> dict[str, Array]:
        """qpos [B, 13] if asked for."""
        return {"qpos": after.qpos} if self.record_qpos else {}

    def measure_task(self, after: Data, task: Array) -> dict[str, Array]:
        """x, y of the block that is meant [B] in m; success [B]: it is within the zone."""
        block = chosen(task, after.qpos[..., 3:])
        return {"x": block[..., 0], "y": block[..., 1], **maesn.measure_task(self, after, task)}

    def oracle(self, tasks: Array, obs: Array, t: Array) -> Array:
        """Goes behind its block and pushes it with the back and one arm of the U. Good, not the best there is."""
        xp = obs.__array_namespace__()
        gripper, speed, goal = obs[:, :2], obs[:, 13:15], tasks[:, 1:3]
        block = chosen(tasks, obs[:, 3:13])
        offset = block - gripper
        around = (offset[:, 0] > 0) & (xp.abs(offset[:, 1]) < 0.06)  # it is before the U's opening or in it
        inside = around & (offset[:, 0] < 0.11)
        side = xp.sign(goal[:, 1] - block[:, 1])
        last = xp.stack([goal[:, 0] - BEHIND, goal[:, 1] + BESIDE * side], axis=-1)
        before = xp.stack([xp.full_like(block[:, 0], 0.14), block[:, 1]], axis=-1)
        onward = xp.stack([last[:, 0], block[:, 1]], axis=-1)
        target = xp.where(inside[:, None], last, xp.where(around[:, None], onward, before))
        wanted = xp.clip(15.0 * (target - gripper), -2.0, 2.0)  # m/s: faster, and it goes through blocks
        force = 4.0 * (wanted - speed) + 0.5 * speed
        turn = -4.0 * obs[:, 2:3] - 0.5 * obs[:, 15:16]
        return xp.clip(xp.concat([force, turn], axis=-1), -FORCE, FORCE)

    def task_axis(self, tasks: np.ndarray) -> tuple[str, np.ndarray]:
        """For pictures: the number that tells tasks apart, and its name."""
        return TASK_NAMES[2], np.asarray(tasks)[:, 2]

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.maesn_pictures import zone_pictures

        tasks = np.asarray(evaluation["tasks"], float)
        starts = chosen(tasks, tasks[:, 3:])
        return zone_pictures(evaluation, tasks[:, 1:3], starts, self.radius, self.task_axis(tasks))

    def frames(self, trial: dict):
        from nacre.envs.animations import located_frames

        block, x, y = np.asarray(trial["task"])[:3]
        return located_frames(trial, self, f"block {block:.0f} must go to {x:+.2f} m, {y:+.2f} m")

    _split, sample_tasks = functools.cached_property(maesn.split), locomotion.sample_tasks
    train_tasks, test_tasks = locomotion.train_tasks, locomotion.test_tasks
    terminal, recording = locomotion.never, locomotion.recording
    reward, train_reward, comparisons = maesn.reward, maesn.train_reward, maesn.found_comparison
    reset, restart, step = mjc.reset, mjc.restart, mjc.step
