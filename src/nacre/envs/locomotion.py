"""What the MuJoCo locomotion families share: reset noise, directions, the spec, the checks of parameters.

A family is a frozen dataclass with the fields `horizon`, `threads` and `record_qpos`, and these class variables, which the
variants of other codes (`variants.py`) replace: `name`, `trial` (episodes of a trial, how many of them explore). Those whose
tasks are drawn have `n_train`, `n_test` and a method draw(rng, n), where rng is a generator of NumPy's, old or new.
"""

import dataclasses
from collections.abc import Callable
from numbers import Integral
from typing import Any, get_args

import numpy as np

from nacre.envs.backends.mujoco import Backend, host_generator
from nacre.types import Array, Box, EnvSpec, Key

TASK_SEED = 1337  # oyster's where it fixes one; ours, for the same counts, where it leaves tasks unseeded

Noise = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def uniform(half: float) -> Noise:
    """Uniform within +-half."""
    return lambda rng, shape: rng.uniform(-half, half, shape)


def normal(deviation: float) -> Noise:
    """Gaussian with this standard deviation."""
    return lambda rng, shape: deviation * rng.standard_normal(shape)


def noisy_start(
    rng: np.random.Generator, model: Any, rows: int, on_qpos: Noise, on_qvel: Noise
) -> tuple[np.ndarray, np.ndarray]:
    """The model's pose with noise, and velocities that are noise; one stream each for qpos and qvel, so that a row does not
    depend on how many follow it."""
    for_qpos, for_qvel = rng.spawn(2)
    return model.qpos0 + on_qpos(for_qpos, (rows, model.nq)), on_qvel(for_qvel, (rows, model.nv))


def unit(angle: Array) -> Array:
    """[B] rad -> [B, 2], the direction in the plane."""
    xp = angle.__array_namespace__()
    return xp.stack([xp.cos(angle), xp.sin(angle)], axis=-1)


def require(family: Any, name: str, good: bool, what: str) -> None:
    """Raise ValueError for a parameter that is out of range."""
    if not good:
        raise ValueError(f"{family.name}: {name} must {what}, got {getattr(family, name)!r}")


def check(family: Any) -> None:
    """Raise ValueError for a horizon, a number of threads or of tasks that is out of range."""
    whole = lambda name, least: isinstance(value := getattr(family, name, 1), Integral) and value >= least  # noqa: E731
    require(family, "horizon", whole("horizon", 1), "be at least 1 env step")
    require(family, "backend", family.backend in get_args(Backend), "be 'c', 'mjx' or 'warp'")
    require(family, "threads", whole("threads", 0), "be 0 (all cores) or a positive number")
    for name in ("n_train", "n_test"):
        require(family, name, whole(name, 1), "be at least 1")


def make_spec(
    family: Any, obs_names: tuple[str, ...], task_names: tuple[str, ...], note: str, *,
    bound: float = 1.0, actions: int, dt: float, can_terminate: bool = False,
) -> EnvSpec:  # fmt: skip
    """The spec of a family whose actions lie within +-bound."""
    episodes, exploration = family.trial
    return EnvSpec(
        name=family.name,
        obs_size=len(obs_names),
        action=Box((-bound,) * actions, (bound,) * actions),
        horizon=family.horizon,
        jittable=False,
        can_terminate=can_terminate,
        dt=dt,
        trial_episodes=episodes,
        exploration_episodes=exploration,
        obs_names=obs_names,
        task_names=task_names,
        reward_note=note,
    )


def numbered(name: str, n: int) -> tuple[str, ...]:
    """'name 0', 'name 1', ..."""
    return tuple(f"{name} {i}" for i in range(n))


# Methods of families.


def drawn_split(family: Any) -> tuple[np.ndarray, np.ndarray]:
    """Training tasks and test tasks, from one stream that leaves global state alone."""
    tasks = family.draw(np.random.RandomState(TASK_SEED), family.n_train + family.n_test)
    return tasks[: family.n_train], tasks[family.n_train :]


train_tasks = property(lambda family: family._split[0])
test_tasks = property(lambda family: family._split[1])


def sample_tasks(family: Any, key: Key, n: int) -> np.ndarray:
    """n fresh tasks."""
    return family.draw(host_generator(key), n)


def recording(family: Any) -> Any:
    """The same family that also records poses, so that its episodes can be drawn."""
    return dataclasses.replace(family, record_qpos=True)


def any_direction(family: Any, rng: Any, n: int) -> np.ndarray:
    """n angles in rad."""
    return rng.uniform(0, 2 * np.pi, n).astype(np.float32)


def heading_pictures(family: Any, evaluation: dict) -> list:
    """Of families whose tasks are directions in rad."""
    from nacre.envs.locomotion_pictures import heading_pictures

    return heading_pictures(evaluation)


def heading_frames(family: Any, trial: dict):
    from nacre.envs.animations import located_frames

    return located_frames(trial, family, f"must run towards {np.degrees(float(trial['task'])) % 360:.0f} degrees")


def goal_axis(family: Any, tasks: np.ndarray) -> tuple[str, np.ndarray]:
    """For pictures: the number that tells goals apart, and its name."""
    from nacre.envs.pictures import angles

    return angles(tasks)


def goal_pictures(family: Any, evaluation: dict) -> list:
    """Of families whose tasks are places in m."""
    from nacre.envs.locomotion_pictures import goal_pictures

    return goal_pictures(evaluation)


def goal_frames(family: Any, trial: dict):
    from nacre.envs.animations import located_frames

    return located_frames(trial, family, "goal at {:+.2f} m, {:+.2f} m".format(*trial["task"]))


def no_oracle(family: Any, tasks: Array, obs: Array, t: Array) -> None:
    """None: no policy that solves a given task is known in closed form."""
    return None


def never(family: Any, data: Any) -> Array:
    """No episode ends early."""
    xp = data.qpos.__array_namespace__()
    return xp.zeros(data.qpos.shape[:-1], dtype=bool)
