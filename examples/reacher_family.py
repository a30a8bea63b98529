"""A two-link arm that must reach a hidden point: `nacre train pearl examples/reacher_family.py:reacher`."""

import gymnasium
import numpy as np

import nacre


class Arm(gymnasium.Env):  # task: target (x, y) in m; two links of 0.1 m; actions are turns in rad per step
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (4,)), gymnasium.spaces.Box(-0.2, 0.2, (2,))

    def __init__(self, target):
        self.target = target

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.move(self.np_random.uniform(-np.pi, np.pi, 2)), {}

    def move(self, joints):
        self.joints, angles = joints, np.cumsum(joints)
        self.tip = 0.1 * np.array([np.cos(angles).sum(), np.sin(angles).sum()])
        return np.concatenate([np.cos(joints), np.sin(joints)])

    def step(self, action):
        obs = self.move(self.joints + action)
        return obs, -np.linalg.norm(self.tip - self.target), False, False, {}


reacher = nacre.family(Arm, lambda rng, n: rng.uniform(-0.13, 0.13, (n, 2)), horizon=50, name="reacher")
