"""What MAESN's families share: a dense reward to train on and a sparse one to be tested with, goals on a half circle, task sets.

Source: Gupta et al. 2018, RussellM2020/maesn_suite e944491, maesn/rllab/envs/mujoco/. There, meta-training sees the dense reward
and meta-test the sparse one. Outside of a zone around its goal the sparse one is constant, and not 0.

A family has the fields `rewards`, `radius`, `n_train`, `n_test`, a method score(after, action, task, sparse) -> [B] and a method
task_set(rng) -> 100 tasks; `distance(after, task)` is that of what must come to the goal, in m.
"""

from typing import Any, Literal

import numpy as np

from nacre.envs import locomotion
from nacre.envs.backends.mujoco import Data
from nacre.types import Array

Rewards = Literal[
    "published", "dense", "sparse"
]  # published: learners may use the dense one, the agent sees the sparse one
GOAL_RADIUS = 2.0  # m: of the half circle on which goals lie
SET = 100  # tasks of the training set, and of the validation set of which the first 30 are the test tasks
TRIAL = (10, 5)  # ours, for agents that adapt by episodes; MAESN's own trial is 100 gradient steps of 10,000 env steps


def check(family: Any) -> None:
    """Raise ValueError for parameters out of range."""
    good = family.rewards in ("published", "dense", "sparse")
    locomotion.require(family, "rewards", good, "be 'published', 'dense' or 'sparse'")
    locomotion.require(family, "radius", 0 < family.radius < float("inf"), "be positive and finite (m)")
    for name in ("n_train", "n_test"):
        locomotion.require(family, name, 1 <= getattr(family, name) <= SET, f"lie between 1 and {SET}")
    locomotion.check(family)


def note(family: Any, near: str, far: str, costs: str = "") -> str:
    """One line on the reward."""
    if family.rewards == "dense":
        return near + costs
    learners = " (learners: without the zone)" * (family.rewards == "published")
    return f"{near} within {family.radius:g} m of the goal, {far} beyond{learners}{costs}"


def on_half_circle(family: Any, rng: Any, n: int) -> np.ndarray:
    """n goals [n, 2] at uniform angles between 0 and pi."""
    return (GOAL_RADIUS * locomotion.unit(rng.uniform(0, np.pi, n))).astype(np.float32)


def goals_set(family: Any, rng: Any) -> np.ndarray:
    """100 goals [100, 2]."""
    return family.draw(rng, SET)


def split(family: Any) -> tuple[np.ndarray, np.ndarray]:
    """Training tasks and test tasks: the first ones of two sets of 100, from one stream that leaves global state alone. The
    originals are published as files of data; ours are drawn in the same ranges."""
    rng = np.random.RandomState(locomotion.TASK_SEED)
    train, validation = family.task_set(rng), family.task_set(rng)
    return train[: family.n_train], validation[: family.n_test]


def zoned(family: Any, sparse: bool, distance: Array, near: Array, far: Array) -> Array:
    """`near`; where the reward is sparse, `far` beyond the zone of `radius`. Each [B]."""
    xp = distance.__array_namespace__()
    return xp.where(distance > family.radius, far, near) if sparse else near


def length(vector: Array) -> Array:
    """Euclidean, [..., 2] -> [...]."""
    return vector.__array_namespace__().linalg.vector_norm(vector, axis=-1)


# Methods of families.


def reward(family: Any, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
    """What the agent sees."""
    return family.score(after, action, task, family.rewards != "dense")


def train_reward(family: Any, before: Data, after: Data, action: Array, task: Array, dt: float) -> Array:
    """What learners may use instead."""
    return family.score(after, action, task, family.rewards == "sparse")


def measure_task(family: Any, after: Data, task: Array) -> dict[str, Array]:
    """success [B]: it is within the zone."""
    return {"success": family.distance(after, task) <= family.radius}


def goal_pictures(family: Any, evaluation: dict) -> list:
    """Of families whose tasks are goals and whose episodes begin in the middle."""
    from nacre.envs.maesn_pictures import zone_pictures

    goals = np.asarray(evaluation["tasks"], float)
    return zone_pictures(evaluation, goals, np.zeros_like(goals), family.radius, family.task_axis(goals))


def found_comparison(family: Any, evaluations: dict) -> list:
    from nacre.envs.pictures import found_comparison

    return found_comparison(evaluations)
