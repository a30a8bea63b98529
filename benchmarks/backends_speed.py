"""Env steps per second of the MuJoCo families in MuJoCo's own library, in JAX (MJX) and in MuJoCo Warp, with a policy of three
layers of 300 in the loop, and from which number of tasks on each is ahead of the first. Needs the extra warp, which brings both,
and is meant for a GPU.

    python benchmarks/backends_speed.py                       # 256, 2048 and 8192 tasks, whole episodes
    python benchmarks/backends_speed.py --families hopper-params --rows 4 --horizon 5    # on a CPU: minutes, most of it compiling

All collect as PEARL does: episodes of `--horizon` env steps, everything recorded, rows begin again where they fall. Compiling is
measured apart. Way by way, best of `--turns` episodes.
"""

import argparse
import time

import jax
import mujoco
import numpy as np

from nacre import rollout
from nacre.algorithms.pearl import PEARL, Config
from nacre.envs.backends.mujoco_physics import cores
from nacre.envs.registry import make_family
from nacre.types import take_tasks, task_count

FAMILIES = ("cheetah-vel", "ant-dir", "ant-goal", "humanoid-dir", "walker-params", "hopper-params")


def measure(name: str, backend: str, rows: int, horizon: int, turns: int) -> tuple[float, float]:
    """Best env steps per second, and seconds of the first episode beyond a later one."""
    env = make_family(name, backend=backend, horizon=horizon)
    algorithm = PEARL(Config(), env.spec)
    params = algorithm.params(algorithm.init(jax.random.key(0), env, 100))
    memory = algorithm.begin(params, jax.random.key(1), (rows, 1))
    tasks = take_tasks(env.train_tasks, np.arange(rows) % task_count(env.train_tasks))

    def once(key):
        return rollout.episode(env, algorithm, params, memory, tasks, key, episodes=1, refill=lambda k, m, over: m)[0]

    if env.spec.jittable:
        once = jax.jit(once)
    seconds = []
    for turn in range(turns + 1):
        start = time.perf_counter()
        steps = int(once(jax.random.key(turn)).valid.sum())
        seconds.append(time.perf_counter() - start)
    return steps / min(seconds[1:]), seconds[0] - min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 2048, 8192], help="tasks at once")
    parser.add_argument("--horizon", type=int, default=200, help="env steps per episode")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=["mjx", "warp"], choices=("mjx", "warp"))
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {cores()} cores, MuJoCo {mujoco.__version__}, JAX {jax.__version__}")
    heads = "".join(f"{name:>12}{name + ' / c':>10}{'compiling':>11}" for name in args.backends)
    print(f"{'env steps/s':<16}{'rows':>6}{'c':>12}{heads}")
    for family in args.families:
        ahead = {}
        for rows in args.rows:
            c, _ = measure(family, "c", rows, args.horizon, args.turns)
            print(f"{family:<16}{rows:>6}{c:>12,.0f}", end="", flush=True)
            for name in args.backends:
                speed, compiling = measure(family, name, rows, args.horizon, args.turns)
                print(f"{speed:>12,.0f}{speed / c:>10.3f}{compiling:>9.0f} s", end="", flush=True)
                if speed > c:
                    ahead.setdefault(name, rows)
            print(flush=True)
        for name in args.backends:
            where = f"is ahead from {ahead[name]} tasks on" if name in ahead else "is behind at all sizes"
            print(f"{family}: {name} {where}", flush=True)


if __name__ == "__main__":
    main()
