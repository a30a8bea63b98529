"""Env steps per second of a gymnasium family in this process and in worker processes, by how long one step takes.

    python benchmarks/worker_speed.py [--microseconds 10 100 1000] [--rows 16] [--processes 2]

The environment computes for the given time in each step and does nothing else. Under a minute.
"""

import argparse
import time

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

import nacre


class Busy(gymnasium.Env):
    """Takes its time."""

    observation_space = spaces.Box(-1, 1, (20,), np.float32)
    action_space = spaces.Box(-1, 1, (4,), np.float32)

    def __init__(self, microseconds):
        self.nanoseconds = 1000 * microseconds
        self.obs = np.zeros(20, np.float32)

    def reset(self, seed=None, options=None):
        return self.obs, {}

    def step(self, action):
        end = time.perf_counter_ns() + self.nanoseconds
        while time.perf_counter_ns() < end:
            pass
        return self.obs, 0.0, False, False, {}


def rate(microseconds: int, rows: int, processes: int) -> float:
    """The best of five half seconds."""

    def make(task):
        return Busy(microseconds)

    env = nacre.family(make, lambda rng, n: rng.uniform(0, 1, n), horizon=1000, processes=processes)
    state, _ = env.reset(jax.random.key(0), np.resize(env.train_tasks, rows))
    action, active = np.zeros((rows, 4), np.float32), np.ones(rows, bool)
    best = 0.0
    for _ in range(5):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < 0.5:
            state, _ = env.step(state, action, active)
            count += rows
        best = max(best, count / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microseconds", type=int, nargs="+", default=[10, 100, 1000], help="that one step takes")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    print(f"{args.rows} rows; env steps/s in this process, in {args.processes} worker processes, ratio")
    for microseconds in args.microseconds:
        here, there = (rate(microseconds, args.rows, n) for n in (0, args.processes))
        print(f"  {microseconds:>6} us per step {here:>10,.0f} {there:>10,.0f} {there / here:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
