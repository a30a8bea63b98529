"""Balance the pole while driving left or right, which is hidden. Discrete actions; two tasks, trained and tested on.

`nacre check-env examples/cartpole_direction.py:cartpole`
"""

import gymnasium
import numpy as np

import nacre

DIRECTIONS = np.array([-1, 1])


def make(task):  # task: -1 left, +1 right
    env = gymnasium.make("CartPole-v1", max_episode_steps=200)
    return gymnasium.wrappers.TransformReward(env, lambda reward: reward + task * env.unwrapped.state[1])


def sample_tasks(rng, n):
    return rng.choice(DIRECTIONS, n)


cartpole = nacre.family(
    make, sample_tasks, train=DIRECTIONS, test=DIRECTIONS, allow_overlap=True, name="cartpole-direction"
)
