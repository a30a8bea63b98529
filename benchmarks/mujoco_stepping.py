"""Env steps per second of the ways to step a batch of half-cheetahs in MuJoCo's C library, side by side in one run.

    python benchmarks/mujoco_stepping.py [--seconds 0.1] [--turns 10] [--rows 16 64 256]

Every way steps the same model (5 substeps per env step) with the same random actions and hands back qpos and qvel after
each env step. "bare" is one process per core, each looping over its share of the rows with one MjData per row.
Ways take turns; the table shows each one's best and median turn (on a busy machine trust the best). Under 40 s.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import jax
import mujoco
import mujoco.rollout
import numpy as np

from nacre.envs.backends.mujoco_physics import Physics, cores, gymnasium_asset, has_batch, load_model, quiet
from nacre.envs.cheetah import FRAME_SKIP as SKIPS
from nacre.envs.cheetah import CheetahVel

FRAME_SKIP = SKIPS["gym"]
PATH = gymnasium_asset("half_cheetah.xml")
CYCLE = 50  # env steps after which the actions repeat
Way = Callable[[np.ndarray], None]  # one env step of the batch with actions [B, 6]


def actions(rows: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (CYCLE, rows, 6)).astype(np.float32)


def rate(way: Way, rows: int, seconds: float) -> float:
    """Env steps per second over about `seconds`, after a short warm-up."""
    table = actions(rows)
    for action in table[:2]:
        way(action)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        way(table[count % CYCLE])
        count += 1
    return count * rows / (time.perf_counter() - start)


class Bare:
    """One process per core, kept for all turns; the rate is the sum over them."""

    def __init__(self, rows: int):
        context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads in an unknown state
        pipes = [context.Pipe() for _ in range(cores())]
        self.pipes = [ours for ours, _ in pipes]
        self.jobs = [
            context.Process(target=bare_worker, args=(theirs, max(1, rows // cores())), daemon=True)
            for _, theirs in pipes
        ]
        for job in self.jobs:
            job.start()
        for pipe in self.pipes:
            pipe.recv()  # ready

    def rate(self, seconds: float) -> float:
        for pipe in self.pipes:
            pipe.send(seconds)
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(0.0)
        for job in self.jobs:
            job.join()


def bare_worker(pipe, rows: int) -> None:
    way = loop_over_data(rows, 1)
    pipe.send("ready")
    while seconds := pipe.recv():
        pipe.send(rate(way, rows, seconds))


def loop_over_data(rows: int, threads: int) -> Way:
    """One MjData per row, in contiguous chunks, one chunk per thread."""
    model = load_model(PATH)
    datas = [mujoco.MjData(model) for _ in range(rows)]
    ctrl, qpos, qvel = ([getattr(data, name) for data in datas] for name in ("ctrl", "qpos", "qvel"))
    positions, velocities = np.empty((rows, model.nq)), np.empty((rows, model.nv))

    def run(ids: range, action: np.ndarray) -> None:
        for i in ids:
            ctrl[i][:] = action[i]
            mujoco.mj_step(model, datas[i], FRAME_SKIP)
            positions[i], velocities[i] = qpos[i], qvel[i]

    chunks = [range(c[0], c[-1] + 1) for c in np.array_split(np.arange(rows), threads) if len(c)]
    if threads == 1:
        return lambda action: run(chunks[0], action)
    pool = ThreadPoolExecutor(threads - 1)

    def way(action: np.ndarray) -> None:
        waiting = [pool.submit(run, ids, action) for ids in chunks[1:]]
        run(chunks[0], action)
        for future in waiting:
            future.result()

    return way


def physics_way(rows: int, native: bool) -> Way:
    """The back end's own stepping, without observation and reward."""
    physics = Physics(PATH, FRAME_SKIP, ("xpos",), native=native)
    state = physics.begin(np.zeros((rows, 9)), np.zeros((rows, 9)))
    ids = np.arange(rows)

    def way(action: np.ndarray) -> None:
        nonlocal state
        state[0][:, physics.ctrl] = action
        state = physics.run(*state, ids, FRAME_SKIP)

    return way


def rollout_way(rows: int) -> Way:
    model = load_model(PATH)
    runner = mujoco.rollout.Rollout(nthread=cores())
    datas = [mujoco.MjData(model) for _ in range(cores())]
    state = np.zeros((rows, mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_FULLPHYSICS))))

    def way(action: np.ndarray) -> None:
        nonlocal state
        out, _ = runner.rollout(model, datas, state, np.repeat(action[:, None], FRAME_SKIP, axis=1))
        state = out[:, -1]

    return way


def family_way(rows: int) -> Way:
    """cheetah-vel whole: physics, observation, reward, checks."""
    env = CheetahVel()
    state, _ = env.reset(jax.random.key(0), env.sample_tasks(jax.random.key(1), rows))
    active = np.ones(rows, bool)

    def way(action: np.ndarray) -> None:
        nonlocal state
        state, _ = env.step(state, action, active)

    return way


def gymnasium_way(rows: int) -> Way:
    sys.modules.setdefault("imageio", types.ModuleType("imageio"))  # only its video recorder needs the real one
    with quiet():
        envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("HalfCheetah-v5")] * rows)
    envs.reset(seed=0)
    return envs.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a turn")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256])
    args = parser.parse_args()
    print(f"half-cheetah, {FRAME_SKIP} substeps per env step, {cores()} cores, MuJoCo {mujoco.__version__}")
    for rows in args.rows:
        ways = {
            "threads, one MjData per row": loop_over_data(rows, cores()),
            "threads, one MjData per thread": physics_way(rows, native=False),
            "mujoco.rollout": rollout_way(rows),
            "nacre cheetah-vel, whole step": family_way(rows),
            "gymnasium SyncVectorEnv": gymnasium_way(rows),
        }
        if has_batch():
            ways["mujoco.batch (default)"] = physics_way(rows, native=True)
        workers = Bare(rows)
        seen: dict[str, list[float]] = {"bare, one process per core": []}
        for _ in range(args.turns):
            seen["bare, one process per core"].append(workers.rate(args.seconds))
            for name, way in ways.items():
                seen.setdefault(name, []).append(rate(way, rows, args.seconds))
        workers.close()
        ceiling = max(seen["bare, one process per core"])
        print(f"\n{rows} rows, env steps/s".ljust(36), "best    median  best / bare")
        for name, values in seen.items():
            print(
                f"  {name:<30} {max(values):>9,.0f} {statistics.median(values):>9,.0f} {max(values) / ceiling:>12.2f}"
            )


if __name__ == "__main__":
    main()
