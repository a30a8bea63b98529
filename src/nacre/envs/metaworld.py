"""Meta-World's meta-learning benchmarks: ml1/<task>, ml10, ml25, ml45. Needs the extra: pip install -e '.[metaworld]'.

Source: Yu et al. 2019; Farama's Meta-World 3.1.1 (metaworld/__init__.py, sawyer_xyz_env.py). Built from the benchmark objects
and `set_task`, because the package's own vector entry points give the test goals for training, too.

A task is its class (an index into CLASSES, which is the package's order) and the vector of object and goal positions, padded
with zeros: float32 [n, 1 + VECTOR]. Each class has 50 goals to train on, and 50 to be tested on, from `seed`. The observation
has 39 numbers: hand (3), gripper, two objects (7 each); the same one env step before; three zeros where the goal would be.
Object positions are a part of it, so it tells as much of the task as the benchmark lets it. Episodes take 500 env steps.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium.wrappers import TransformObservation

from nacre.envs.backends.gymnasium import GymnasiumFamily, family
from nacre.envs.backends.mujoco_physics import cores
from nacre.types import Array, EnvSpec, Key

HORIZON = 500  # env steps of 0.0125 s, at most
OBJECTS = (*range(4, 18), *range(22, 36))  # numbers of the observation that are objects, now and one env step before
VECTOR = 6  # numbers of the longest task vector
BENCHMARKS = {"ml10": "ML10", "ml25": "ML25", "ml45": "ML45"}
TASK_NAMES = ("class", *(f"{what} {axis} (m)" for what in ("object", "goal") for axis in "xyz"))
MISSING = (
    "{name} needs Meta-World: pip install -e '.[metaworld]', with Python below 3.14. It brings MuJoCo 3.3.0, which its "
    "rewards depend on, so it excludes newer ones and their MJX (the extra mjx); an environment of its own is the simplest"
)


def load(name: str) -> Any:
    """The package. Raises ModuleNotFoundError that says what to install."""
    if importlib.util.find_spec("metaworld") is None:
        raise ModuleNotFoundError(MISSING.format(name=name))
    import metaworld

    return metaworld


def vector(task: Any) -> np.ndarray:
    """A Task of the package -> its row [1 + VECTOR] float32."""
    classes = list(load("metaworld").env_dict.ALL_V3_ENVIRONMENTS)
    numbers = np.asarray(pickle.loads(task.data)["rand_vec"], np.float64)
    return np.concatenate([[classes.index(task.env_name)], numbers, np.zeros(VECTOR - len(numbers))]).astype(np.float32)


def maker(name: str, tasks: list, reward_version: str, hide_objects: bool) -> Callable[[np.ndarray], Any]:
    """make(row) -> the environment of that task. Rows of the benchmark give its very goals, others the numbers they hold."""
    metaworld = load(name)
    classes = metaworld.env_dict.ALL_V3_ENVIRONMENTS
    names = list(classes)
    exact = {vector(task).tobytes(): task for task in tasks}
    examples = {task.env_name: task for task in tasks}

    def make(row: np.ndarray) -> Any:
        row = np.asarray(row, np.float32)
        task = exact.get(row.tobytes())
        if task is None:
            index = int(row[0])
            if not (0 <= index < len(names) and index == row[0] and names[index] in examples):
                known = ", ".join(f"{names.index(env)} ({env})" for env in examples)
                raise ValueError(f"{name}: class {row[0]:g} is not one of its classes: {known}")
            example = examples[names[index]]
            data = pickle.loads(example.data)
            size = len(data["rand_vec"])
            task = example._replace(data=pickle.dumps({**data, "rand_vec": row[1 : 1 + size].astype(np.float64)}))
        env = classes[task.env_name](reward_function_version=reward_version)
        env.set_task(task)
        return TransformObservation(env, without_objects, env.observation_space) if hide_objects else env

    return make


def without_objects(obs: np.ndarray) -> np.ndarray:
    """Observations [..., 39] with zeros in the place of objects, as Meta-World has them where there are none."""
    obs = np.array(obs)
    obs[..., OBJECTS] = 0.0
    return obs


@contextlib.contextmanager
def told_if_slow(text: str, seconds: float = 3.0) -> Iterator[None]:
    """Says on standard error what is waited for, if it takes longer."""
    timer = threading.Timer(seconds, print, [text], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def inner(self: Any) -> GymnasiumFamily:
    """The family that does the work."""
    metaworld = load(self.name)
    with told_if_slow(f"Meta-World draws the goals of {self.name}, about a second for each of its classes ..."):
        benchmark = self.benchmark(metaworld)
    train, test = (
        np.stack([vector(task) for task in tasks]) for tasks in (benchmark.train_tasks, benchmark.test_tasks)
    )

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return train[rng.integers(len(train), size=n)]

    processes = self.processes or cores()
    tasks = [*benchmark.train_tasks, *benchmark.test_tasks]
    return family(
        maker(self.name, tasks, self.reward_version, self.hide_objects), sample, train=train, test=test,
        horizon=self.horizon, name=self.name, allow_overlap=True, info=("success",),
        processes=0 if processes == 1 else processes, max_idle=-(-self.rows_at_once // processes),
    )  # fmt: skip


def check(self: Any) -> None:
    """Raises ValueError for parameters out of range, ModuleNotFoundError without the package."""
    for name, good, what in (
        ("horizon", 1 <= self.horizon <= HORIZON, f"lie between 1 and {HORIZON} env steps"),
        ("processes", self.processes >= 0, "be 0 (one per core) or a positive number"),
        ("seed", 0 <= self.seed < 2**31, "be a whole number from 0 to 2147483647"),
        ("hide_objects", isinstance(self.hide_objects, bool), "be True or False"),
        ("reward_version", self.reward_version in ("v1", "v2"), "be 'v2' or 'v1'"),
    ):
        if not good:
            raise ValueError(f"{self.name}: {name} must {what}, got {getattr(self, name)!r}")
    load(self.name)


@dataclass(frozen=True)
class MetaWorld:
    """One of the benchmarks; the class variables say which. Reward of version v2: 0 to 10 per env step, 10 once the task is
    solved (in most classes). An episode succeeds if the task is solved at any of its steps."""

    seed: int = 0  # of the goals
    reward_version: Literal["v1", "v2"] = "v2"  # "v2": 0 to 10 per env step; "v1": the first version
    hide_objects: bool = False  # zeros for objects: where reach's one lies tells its training goals apart
    horizon: int = HORIZON  # env steps of 0.0125 s per episode
    processes: int = 0  # worker processes that step environments; 0: one per core, 1: none beside this one

    name: ClassVar[str] = "ml10"
    rows_at_once: ClassVar[int] = 64  # of a meta-test: an environment takes 35 MB
    observes_task: ClassVar[str] = "object positions are observed, by the benchmark's design"

    def __post_init__(self):
        check(self)

    def benchmark(self, metaworld: Any) -> Any:
        """The package's benchmark object with our seed."""
        return getattr(metaworld, BENCHMARKS[self.name])(seed=self.seed)

    _inner = functools.cached_property(inner)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        note = "Meta-World's reward, 0 to 10 per step" if self.reward_version == "v2" else "Meta-World's first reward"
        found = self._inner.spec
        return dataclasses.replace(found, task_names=TASK_NAMES, reward_note=note, dt=0.0125, can_terminate=False)

    @property
    def train_tasks(self) -> np.ndarray:
        return self._inner.train_tasks

    @property
    def test_tasks(self) -> np.ndarray:
        return self._inner.test_tasks

    def sample_tasks(self, key: Key, n: int) -> np.ndarray:
        """n of the training tasks: the benchmark has no others."""
        return self._inner.sample_tasks(key, n)

    def reset(self, key: Key, tasks: Array) -> tuple:
        return self._inner.reset(key, tasks)

    def step(self, state: Any, action: Array, active: Array) -> tuple:
        return self._inner.step(state, action, active)

    def oracle(self, tasks: Array, obs: Array, t: Array) -> None:
        """None: the package's scripted policies see the goal, and are not the best."""
        return None

    def task_axis(self, tasks: np.ndarray) -> tuple[str, np.ndarray]:
        """For pictures: the number that tells tasks apart, and its name."""
        tasks = np.asarray(tasks)
        if len(np.unique(tasks[:, 0])) > 1:
            return "class of Meta-World", tasks[:, 0]
        # classes of which one place varies have it first
        return ("goal x (m)", tasks[:, 4]) if tasks[:, 4:].any() else ("object x (m)", tasks[:, 1])


@dataclass(frozen=True)
class ML10(MetaWorld):
    """Ten classes to train on, five others held out."""

    name: ClassVar[str] = "ml10"


@dataclass(frozen=True)
class ML25(MetaWorld):
    """25 classes to train on, five held out; basketball-v3 is in both, by the package's word."""

    name: ClassVar[str] = "ml25"


@dataclass(frozen=True)
class ML45(MetaWorld):
    """45 classes to train on, five others held out."""

    name: ClassVar[str] = "ml45"


@functools.cache
def ml1(task: str) -> type:
    """The family ml1/<task>: 50 goals of one class to train on, 50 others held out."""

    @dataclass(frozen=True)
    class ML1(MetaWorld):
        name: ClassVar[str] = f"ml1/{task}"

        def benchmark(self, metaworld: Any) -> Any:
            return metaworld.ML1(task, seed=self.seed)

        def __post_init__(self):
            super().__post_init__()
            known = list(load(self.name).ML1.ENV_NAMES)
            if task not in known:
                from nacre.envs.registry import unknown

                raise unknown("task of Meta-World", task, known)

    ML1.__doc__ = f"{task}: 50 goals to train on, 50 others held out."
    return ML1
