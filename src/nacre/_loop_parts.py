"""What the training loop is made of: its record, what hooks are given, its own metrics."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nacre._errors import UserError
from nacre.evaluate import Shots
from nacre.types import Key, Metric

METRICS = {
    "rate/env_steps": Metric("1/s", "env steps per second of this slice"),
    "rate/updates": Metric("1/s", "gradient steps per second of this slice"),
    "return/shot_<k>": Metric("reward", "mean return of episode k of a trial on the test tasks"),
    "return/trial": Metric("reward", "mean over the test tasks of the sum over a trial's episodes"),
    "evaluation/env_steps": Metric("", "env steps that this evaluation took (not counted in env_steps)"),
}


class Evaluation(NamedTuple):
    """What a hook of the user's own is given after each evaluation; it returns numbers by name, which join its line."""

    run: Path
    seed: int
    env_steps: int  # of training
    updates: int
    seconds: float  # of training
    metrics: dict[str, float]  # so far
    shots: Shots
    tasks: Any  # the test tasks
    env: Any
    algorithm: Any
    params: Any


Hook = Callable[[Evaluation], dict[str, float]]


@dataclass
class Record:
    """What the loop knows beside the state."""

    slices: int = 0
    env_steps: list[int] = field(default_factory=list)  # per seed
    updates: list[int] = field(default_factory=list)
    seconds: float = 0.0  # of training
    evaluation_seconds: float = 0.0
    evaluations: int = 0
    next_evaluation: int = 0  # env steps
    evaluated: list[int] = field(default_factory=list)  # env steps and updates of the last evaluation
    bytes: list[int] = field(default_factory=list)  # of metrics.jsonl, per seed
    sized_for: int = 0  # env_steps that the state was made for
    finished: list = field(default_factory=list)  # env_steps and minutes that training ended at


def refuse_lost_state(run: Any, seeds: tuple[int, ...]) -> None:
    """Raise UserError where a run was trained and the state to go on from is not there: to begin anew would empty its metrics."""
    loop = run.config["loop"]
    for seed in seeds:
        trained = max(run.checkpoints(seed), default=0)
        try:
            last = run.metrics(seed)[-1]
            long = last["seconds"] + last["evaluation_seconds"] > loop["checkpoint_seconds"] + 60
        except (OSError, ValueError, KeyError, IndexError):
            long = False
        if long or trained >= loop["env_steps"] or (trained and (run.path / "result.json").exists()):
            raise UserError(
                f"{run.path} was trained, and the state to go on from (checkpoints/state) is not there: put it back, or start a "
                f"new run with the command in {run.path / 'command.txt'}. What is there can be evaluated and stays as it is"
            )


def fold(key: Key, name: str) -> Key:
    """A key of its own for each purpose."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def refuse_changes(path: Path, saved: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise UserError where config.json is not what the checkpoint was made with; only env_steps and minutes may
    differ.
    """

    def flat(values: dict[str, Any]) -> dict[str, Any]:
        free = ("env_steps", "minutes")
        inner = {f"{group}.{k}": v for group in ("config", "env_params") for k, v in values.get(group, {}).items()}
        loop = {f"loop.{k}": v for k, v in values.get("loop", {}).items() if k not in free}
        return {**inner, **loop, **{k: values.get(k) for k in ("algorithm", "env", "preset", "seeds")}}

    old, new = flat(saved), flat(config)
    changed = [
        f"{name} is {new.get(name)!r}, was {old.get(name)!r}" for name in new | old if old.get(name) != new.get(name)
    ]
    if changed:
        raise UserError(
            f"config.json is not what the checkpoint {path} was made with: {'; '.join(changed)}. A run goes on with "
            "the configuration it began with: put it back, or start a new run"
        )
