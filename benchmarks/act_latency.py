"""Microseconds per env step of a deployed policy (act + observe) and per end_episode, one environment.

    python benchmarks/act_latency.py [--steps 2000]

The agent is PEARL with untrained networks: time does not depend on the weights.
"""

import argparse
import time

import jax
import numpy as np

from nacre.agent import Agent
from nacre.algorithms.pearl import PEARL, Config, Params
from nacre.types import Box, EnvSpec


def microseconds(obs_size: int, hidden: tuple[int, ...], encoder: tuple[int, ...], steps: int) -> tuple[float, ...]:
    """Median and 99th percentile of act, median of observe, median of end_episode."""
    spec = EnvSpec("timing", obs_size, Box((-1.0,) * 6, (1.0,) * 6), horizon=200, jittable=False)
    algorithm = PEARL(Config(hidden=hidden, encoder_hidden=encoder), spec)
    nets = algorithm.networks(jax.random.key(0))
    policy = Agent(algorithm, Params(nets.encoder, nets.sac.policy), None, "pearl", "timing").start()
    obs = np.zeros(obs_size, np.float32)
    acts, observes, ends = [], [], []
    for _ in range(steps):
        times = [time.perf_counter()]
        policy.act(obs)
        times.append(time.perf_counter())
        policy.observe(0.0, obs)
        times.append(time.perf_counter())
        if policy.over:
            policy.end_episode()
            ends.append(time.perf_counter() - times[-1])
        acts.append(times[1] - times[0])
        observes.append(times[2] - times[1])
    acts = np.array(acts[210:])  # the first episode compiles
    found = np.median(acts), np.quantile(acts, 0.99), np.median(observes[210:]), np.median(ends[1:])
    return tuple(float(value) * 1e6 for value in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="env steps timed")
    steps = parser.parse_args().steps
    print(f"{'policy':<14}{'act':>8}{'act 99 %':>10}{'observe':>9}{'end_episode':>13}   microseconds")
    for name, hidden, encoder in (("3 x 300", (300,) * 3, (200,) * 3), ("2 x 64", (64,) * 2, (64,) * 2)):
        act, tail, observe, end = microseconds(20, hidden, encoder, steps)
        print(f"{name:<14}{act:8.0f}{tail:10.0f}{observe:9.0f}{end:13.0f}")


if __name__ == "__main__":
    main()
