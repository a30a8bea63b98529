"""From what a user gives (names, preset, values) to what a run is made of, with every value resolved and checked."""

import dataclasses
import importlib
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nacre import _head_start, runs
from nacre._errors import UserError, check_seed
from nacre._memory import check_memory
from nacre.algorithms import registry
from nacre.envs import check_env as check
from nacre.envs.files import absolute
from nacre.envs.registry import FAMILIES, family_class, make_family, simulated, unknown
from nacre.types import exploration_episodes, take_tasks, task_count, trial_episodes

EVALUATIONS = 20  # in a run, unless eval_every says otherwise


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, how often to evaluate and to save; the same for every algorithm."""

    env_steps: int = 1_000_000  # env steps per seed after which training ends; sizes the replay
    minutes: float | None = None  # after which training ends; looked at between slices of work; None: no limit
    eval_every: int | None = None  # env steps between evaluations; None: a twentieth of env_steps
    eval_episodes: int | None = None  # episodes of an evaluation trial; None: the family's published protocol
    eval_repetitions: int = 1  # evaluation trials per test task
    eval_tasks: int | None = None  # most test tasks of an evaluation, evenly spaced among them; None: all
    checkpoint_seconds: float = 60.0  # between checkpoints for --resume; longer where saving takes long
    vectorise: bool | None = None  # train several seeds as one program (families in JAX); None: on a GPU
    tensorboard: bool = True  # write TensorBoard events beside metrics.jsonl

    def __post_init__(self):
        positive = "env_steps minutes eval_every eval_episodes eval_repetitions eval_tasks checkpoint_seconds"
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        if self.env_steps >= 2**31:
            raise ValueError(f"env_steps must be below 2^31 (counters are 32 bits wide), got {self.env_steps}")

    def minutes_of(self, together: int, seeds: int) -> float | None:
        """Of `together` seeds among all: those that train one after another share the minutes. None: no limit."""
        return None if self.minutes is None else self.minutes * together / seeds


@dataclass(frozen=True)
class Plan:
    """A run before it has a directory."""

    algorithm: Any
    env: Any
    config: dict[str, Any]  # what config.json will hold; see runs.Run
    command: str  # that repeats it
    start: _head_start.HeadStart | None = None  # what it takes over from another run

    @property
    def loop(self) -> LoopConfig:
        return LoopConfig(**self.config["loop"])


def make_plan(
    algorithm: Any, family: Any, *, preset: str = "fast", seeds: tuple[int, ...] = (0,),
    env_params: dict[str, Any] | None = None, values: dict[str, Any] | None = None, start_from: Any = None,
) -> Plan:  # fmt: skip
    """Resolve a run. algorithm, family: names or objects. values: fields of the algorithm's Config and of LoopConfig
    that are not as the preset has them. start_from: the run whose networks it begins with. Raises ValueError for
    anything unknown, of the wrong type, or out of range."""
    seeds = check_seeds(seeds)
    if not isinstance(env_params or {}, Mapping):
        raise UserError(f"env_params must be a dict of the family's parameters, got {env_params!r}")
    env, origin = find_family(family, dict(env_params or {}))
    check_family(env, origin)
    values = dict(values or {})
    by_name = isinstance(algorithm, str)
    if not by_name and not hasattr(algorithm, "config"):
        raise UserError(f"expected an algorithm's name, such as 'pearl', or one made of its class, got {algorithm!r}")
    name = absolute(algorithm) if by_name else registry.name_of(algorithm)
    defaults = preset_values(name, preset, origin["env"], env.spec)
    known = fields_of(registry.config_class(name))
    own, loop = split_values(name, {**defaults, **values}, known)
    if by_name:
        algorithm = registry.make_algorithm(name, env.spec, own)
    else:
        refused = [key for key in values if key in known]
        if refused:
            raise UserError(f"{', '.join(refused)}: set this in the Config of the algorithm that you pass as an object")
        if algorithm.spec != env.spec:
            raise UserError(f"the algorithm was made for {algorithm.spec}, the family has {env.spec}; pass env.spec")
    loop = resolve_loop(registry.make_config(LoopConfig, loop), algorithm, seeds)
    check_fits(algorithm, name, env, loop)
    check_memory(algorithm, env, loop.env_steps, len(seeds) if loop.vectorise else 1)
    config = {
        "schema": runs.SCHEMA,
        "algorithm": name,
        **origin,
        "preset": preset if by_name and presets_of(name) else None,
        "seeds": list(seeds),
        "config": dataclasses.asdict(algorithm.config),
        "loop": dataclasses.asdict(loop),
        "spec": dataclasses.asdict(env.spec),
        "tasks": runs.digest(env),
        "exploration_episodes": exploration_episodes(algorithm),
    }
    start = _head_start.read(start_from, name, algorithm, env, seeds) if start_from is not None else None
    if start:
        config["start_from"], values["start_from"] = start.told, str(start_from)
    command = command_of(name, origin, preset=preset, seeds=seeds, env_params=env_params or {}, values=values)
    return Plan(algorithm, env, json.loads(json.dumps(config)), command, start)


# ------------------------------------------------------------------------------------------------------- the parts


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """As ints; raises UserError unless they are different whole numbers that a JAX key can be made of."""
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise UserError(
            f"seeds must be several whole numbers, as in [0, 1, 2], got {seeds!r}; one alone is seed={seeds!r}"
        )
    seeds = tuple(map(check_seed, seeds))
    if not seeds:
        raise UserError("give at least one seed, as in --seeds 0 1 2")
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise UserError(f"seed {twice[0]} is given more than once; seeds must differ, or the runs would be the same")
    return seeds


def find_family(family: Any, params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """-> the Environment and env, env_params, env_from for config.json."""
    if isinstance(family, str):
        name = absolute(family)
        env = make_family(name, **params)
        cls = family_class(name)
        return env, {"env": name, "env_params": fields_of(cls, env) if cls else params, "env_from": "name"}
    if params:
        raise UserError("env_params go with a family's name; set them in the object that you pass instead")
    rules = getattr(family, "rules", family)  # what the MJX back end wraps
    cls = type(rules)
    for name, (path, _) in FAMILIES.items():
        if path == f"{cls.__module__}:{cls.__qualname__}":
            return simulated(family), {"env": name, "env_params": fields_of(cls, rules), "env_from": "name"}
    if isinstance(family, type) or not hasattr(family, "spec"):
        raise UserError(
            f"expected a family's name or an Environment, got {family!r}; make one of a gymnasium environment by "
            "nacre.family(make, sample_tasks)"
        )
    return family, {"env": family.spec.name, "env_params": {}, "env_from": "object"}


def fields_of(cls: type, of: Any = None) -> dict[str, Any]:
    """name -> value (of the object `of`) or annotation of a dataclass's fields."""
    return {f.name: f.type if of is None else getattr(of, f.name) for f in dataclasses.fields(cls) if f.init}


def check_family(env: Any, origin: dict[str, Any]) -> None:
    """A short check of families of the user's own (`nacre check-env` does the whole). Raises UserError."""
    if origin["env_from"] == "name" and origin["env"] in FAMILIES:
        return
    found = check.guarded({"the description": lambda: check.check_spec(env)})
    key = jax.random.key(0)
    found = found or check.guarded({"the task sets": lambda: check.check_tasks(env, jax.random.clone(key))})
    if not found:
        tasks = jax.tree.map(
            np.asarray, take_tasks(env.train_tasks, np.arange(check.ROWS) % task_count(env.train_tasks))
        )
        found = check.guarded({"reset and step": lambda: check.check_arrays(check.Probe(env, key, tasks))})
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        first = found[0]
        raise UserError(
            f"{origin['env']} is not a task family: {first.what}; expected {first.expected}; {first.remedy}{more}. "
            f"nacre check-env {origin['env']} tells all"
        )


def presets_of(algorithm: str) -> Callable[[str, str, Any], dict[str, Any]] | None:
    """preset(name, family, spec) of an algorithm: its class's own, or of the registered one that it is or extends; else None."""
    cls = registry.algorithm_class(algorithm)
    if hasattr(cls, "preset"):
        return cls.preset
    name = registry.nearest(cls)
    return importlib.import_module(f"nacre.presets.{name.replace('-', '_')}").preset if name else None


def preset_values(algorithm: str, preset: str, family: str, spec: Any) -> dict[str, Any]:
    """What the preset says. An algorithm without presets has its Config's defaults."""
    if preset not in ("fast", "paper"):
        raise unknown("preset", str(preset), ["fast", "paper"])
    known = presets_of(algorithm)
    if known is None and preset != "fast":
        raise UserError(
            f"{registry.shown(algorithm)} has no preset {preset!r}: a static method preset(name, family, spec) of its class "
            "would give it"
        )
    return {} if known is None else known(preset, family, spec)


def split_values(algorithm: str, values: dict[str, Any], known: dict[str, Any]) -> tuple[dict, dict]:
    """Flat values -> those of the algorithm's Config (fields `known`), those of LoopConfig."""
    loop = fields_of(LoopConfig)
    for name in values:
        if name not in known and name not in loop:
            raise unknown(f"setting of {algorithm}", name, [*known, *loop])
    return {k: v for k, v in values.items() if k in known}, {k: v for k, v in values.items() if k in loop}


def resolve_loop(loop: LoopConfig, algorithm: Any, seeds: tuple[int, ...]) -> LoopConfig:
    """Every None of LoopConfig that stands for a value becomes one."""
    spec = algorithm.spec
    # Three seeds of sparse-point-robot on two cores: 261 gradient steps/s in all as one program, 270-295 one after another.
    accelerator = spec.jittable and len(seeds) > 1 and jax.default_backend() != "cpu"
    together = accelerator if loop.vectorise is None else loop.vectorise
    if together and not spec.jittable:
        raise UserError(f"vectorise: {spec.name} is stepped on the host; seeds train one after another there")
    return dataclasses.replace(
        loop,
        eval_every=loop.eval_every or max(1, loop.env_steps // EVALUATIONS),
        eval_episodes=loop.eval_episodes or trial_episodes(algorithm),
        vectorise=together and len(seeds) > 1,
    )


def check_fits(algorithm: Any, name: str, env: Any, loop: LoopConfig) -> None:
    """Raise UserError where the family lacks what the algorithm needs, or training would end before it began."""
    if hasattr(algorithm, "check_family"):
        try:
            algorithm.check_family(env)
        except ValueError as error:
            raise UserError(str(error)) from error
    least = algorithm.minimum_env_steps(env) if hasattr(algorithm, "minimum_env_steps") else 1
    if loop.env_steps < least:
        raise UserError(
            f"env_steps is {loop.env_steps:,}, but the first collection of {name} on {env.spec.name} alone takes "
            f"{least:,} before anything is learnt; give at least --env-steps {least}, or make the first collection "
            "smaller"
        )


def command_of(
    algorithm: str, origin: dict[str, Any], *, preset: str, seeds: tuple[int, ...], env_params: dict, values: dict
) -> str:
    """The command line that repeats a run."""
    options = {"preset": preset, "seeds" if len(seeds) > 1 else "seed": seeds, **values}
    options |= {f"env.{name}": value for name, value in env_params.items()}
    words = ["nacre", "train", algorithm, origin["env"]]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            group, dot, last = flag.removeprefix("--").rpartition(".")
            words.append(f"--{group}{dot}{'' if value else 'no-'}{last}")
        else:
            words += [flag, *(map(str, value) if isinstance(value, tuple | list) else [str(value)])]
    return shlex.join(words)
