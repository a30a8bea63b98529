"""A pendulum whose mass and length are hidden: `nacre train pearl examples/pendulum_family.py:pendulum`."""

import gymnasium

import nacre


def make(task):  # task: (mass in kg, length in m)
    env = gymnasium.make("Pendulum-v1")
    env.unwrapped.m, env.unwrapped.l = task
    return env


def sample_tasks(rng, n):
    return rng.uniform(0.5, 1.5, (n, 2))


pendulum = nacre.family(make, sample_tasks, name="pendulum")
