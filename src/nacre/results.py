"""What an evaluation found, for people (a table) and for programs (JSON)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nacre import stats
from nacre._files import write_text
from nacre.algorithms.registry import shown

SCHEMA = 1  # of Result.to_json


@dataclass(frozen=True)
class Result:
    """An evaluation in plain Python values. Lists named per shot have one entry per episode of the trial."""

    algorithm: str
    env: str
    preset: str | None
    seeds: list[int]
    env_steps: int  # of training; the smallest of the seeds
    split: str  # "test" or "train"
    deterministic: bool
    repetitions: int  # trials per task and seed
    shots: list[float]  # mean return per shot over seeds, repetitions and tasks
    # 95 % [low, high] per shot (nacre.stats.of_means); None for one seed on one task, which has none
    intervals: list[list[float] | None]
    per_task: list[list[float]]  # per task its mean return per shot
    task_params: list[list[float]]  # per task its parameters, in the order of EnvSpec.task_names
    trial_return: float  # mean over trials of the sum over their episodes
    references: dict[str, list[float] | None]  # random, still, oracle, no_adaptation: per shot
    exploration_episodes: int = field(default=0, repr=False)  # episodes before the reported adaptation; not in the JSON
    acts: str | None = field(default=None, repr=False)  # how, where `deterministic` is not all of it; not in the JSON
    furthest: int | None = field(default=None, repr=False)  # env_steps' largest of the seeds; not in the JSON
    trial_interval: list[float] | None = None  # 95 % [low, high] of trial_return, as intervals
    # by what the last shot is above the first, and above that of the same agent without adaptation, task by task, with intervals;
    # None, and not in the JSON, for one episode
    gain: float | None = None
    gain_interval: list[float] | None = None
    adaptation: float | None = None
    adaptation_interval: list[float] | None = None
    per_seed: list[list[list[float]]] | None = None  # per seed as per_task; None, and not in the JSON, for one seed
    # share of trials that succeed per shot, its intervals, and per task; None, and not in the JSON, where none is known
    success: list[float] | None = None
    success_intervals: list[list[float] | None] | None = None
    success_per_task: list[list[float]] | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict for json.dumps; `schema` says which fields it has."""
        values = {
            name: value
            for name, value in vars(self).items()
            if name not in ("exploration_episodes", "furthest", "acts")
        }
        unknown = {"success": self.success, "gain": self.gain, "adaptation": self.adaptation, "per_seed": self.per_seed}
        for left_out in (name for name, value in unknown.items() if value is None):
            values = {name: value for name, value in values.items() if not name.startswith(left_out)}
        return {"schema": SCHEMA, **values}

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file, whole or not at all."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1) + "\n")

    def table(self) -> str:
        """Returns per shot beside the references, as text; long trials show some of their shots. Where no episode of a trial is
        for exploring alone, the trial's sum is shown, too."""
        known = {name: shots for name, shots in self.references.items() if shots is not None}
        # by what agents can have: where random actions are far worse, agents still differ by hundredths
        reached = (self.shots, known.get("oracle", ()), known.get("no_adaptation", ()))
        largest = max(abs(value) for shots in reached for value in shots)
        digits = 1 if largest >= 5 else 3
        lines = [["shot", "return", "95 % interval", *(name.replace("_", " ") for name in known)]]
        if self.success is not None:
            lines[0] += ["success", "95 % interval"]
        for k in shown_shots(len(self.shots)):
            ends = " to ".join(f"{end:.{digits}f}" for end in self.intervals[k] or ())
            lines.append([str(k), *(f"{shots[k]:.{digits}f}" for shots in (self.shots, *known.values()))])
            lines[-1].insert(2, ends)
            if self.success is not None:
                lines[-1] += [
                    f"{self.success[k]:.0%}",
                    " to ".join(f"{end:.0%}" for end in self.success_intervals[k] or ()),
                ]
        after = slice(self.exploration_episodes, None)
        if 0 < self.exploration_episodes < len(self.shots) - 1:
            means = [f"{np.mean(shots[after]):.{digits}f}" for shots in (self.shots, *known.values())]
            share = [] if self.success is None else [f"{np.mean(self.success[after]):.0%}", ""]
            lines.append([f"{self.exploration_episodes}-{len(self.shots) - 1}", means[0], "", *means[1:], *share])
        if self.exploration_episodes == 0 and len(self.shots) > 1:
            sums = [f"{np.sum(shots):.{digits}f}" for shots in (self.shots, *known.values())]
            ends = " to ".join(f"{end:.{digits}f}" for end in self.trial_interval or ())
            lines.append(["sum", sums[0], ends, *sums[1:], *([] if self.success is None else ["", ""])])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self._title(), *text, *self._gain(digits), *self._gap(known), *self._caution()])

    def _gain(self, digits: int) -> list[str]:
        """What adapting is worth, which the intervals of single shots hide: tasks differ more than shots of a task."""
        if self.gain is None or len(self.shots) <= self.exploration_episodes:
            return []
        last = f"shot {len(self.shots) - 1} less"
        pairs = [(f"{last} shot 0", self.gain, self.gain_interval)]
        if self.adaptation is not None:
            pairs.append(("less no adaptation", self.adaptation, self.adaptation_interval))
        told = [
            f"{words} {value:+.{digits}f}" + (f" ({' to '.join(f'{end:.{digits}f}' for end in ends)})" if ends else "")
            for words, value, ends in pairs
        ]
        return [f"task by task: {', '.join(told)}"]

    def _title(self) -> str:
        policy = self.acts or ("deterministic" if self.deterministic else "stochastic")
        preset = f" ({self.preset})" if self.preset else ""
        seeds = f"seed{'s' * (len(self.seeds) > 1)} {' '.join(map(str, self.seeds))}"
        counts = f"{len(self.per_task)} {self.split} tasks x {self.repetitions} trial{'s' * (self.repetitions > 1)}"
        steps = f"{self.env_steps:,}"
        if self.furthest not in (None, self.env_steps):
            steps = f"seeds stand at {steps} to {self.furthest:,}"
        return f"{shown(self.algorithm)} on {self.env}{preset}, {seeds}, {steps} env steps; {counts}, {policy}"

    def _caution(self) -> list[str]:
        """What the intervals cannot say."""
        n = len(self.per_task)
        if len(self.seeds) > 1 or n >= 5:
            return []
        told = (
            "one task and one seed: no interval" if n == 1 else f"one seed on {n} tasks: the intervals are too narrow"
        )
        return [f"{told}; --seeds trains more than one"]

    def _gap(self, known: dict[str, list[float]]) -> list[str]:
        """How much of the way from doing nothing to the oracle the reported shots go."""
        if len(self.shots) <= self.exploration_episodes:
            return [
                f"this agent adapts after {self.exploration_episodes} episodes: none of these {len(self.shots)} is adapted "
                "(--episodes)"
            ]
        low = known.get("still", known["random"])
        if "oracle" not in known:
            return []
        first = min(self.exploration_episodes, len(self.shots) - 1)
        agent, low, high = (float(np.mean(shots[first:])) for shots in (self.shots, low, known["oracle"]))
        start = "standing still" if "still" in known else "random actions"
        which = f"shot {first}" if first == len(self.shots) - 1 else f"shots {first}-{len(self.shots) - 1}"
        return [f"{which}: {percent(agent - low, high - low)} of the way from {start} to the oracle"] * (high > low)


def percent(part: float, whole: float) -> str:
    return f"{round(100 * part / whole)}%"  # no minus zero


def shown_shots(k: int) -> list[int]:
    """0..5, then some, then the last: at most 12 of k."""
    if k <= 12:
        return list(range(k))
    return [*range(6), *np.unique(np.linspace(6, k - 1, 6).round().astype(int)).tolist()]


# ------------------------------------------------------------------------------------------ from returns


def summary(
    returns: np.ndarray,
    seed: int = 0,
    success: np.ndarray | None = None,
    all_tasks: bool = False,
    unadapted: np.ndarray | None = None,
) -> dict[str, Any]:
    """Fields of Result from returns and success [S, R, N, K]: every task counts its own trials, and tasks count alike.
    seed: of the bootstrap; all_tasks: the family has no others; unadapted: returns of the same agent without adaptation."""
    by_task = returns.astype(np.float64).mean(axis=1)  # [S, N, K]
    found = {
        "shots": stats.mean(by_task).tolist(),
        "intervals": intervals(by_task, seed, all_tasks),
        "per_task": by_task.mean(axis=0).tolist(),
        "trial_return": float(stats.mean(by_task).sum()),
        "trial_interval": intervals(by_task.sum(axis=-1, keepdims=True), seed, all_tasks)[0],
        "per_seed": by_task.tolist() if len(by_task) > 1 else None,
    }
    if by_task.shape[-1] > 1:
        others = {"gain": by_task[..., :1]}
        if unadapted is not None:
            others["adaptation"] = unadapted.astype(np.float64).mean(axis=1)[..., -1:]
        for name, other in others.items():
            less = by_task[..., -1:] - other
            found |= {name: float(less.mean()), f"{name}_interval": intervals(less, seed, all_tasks)[0]}
    if success is not None:
        share = success.astype(np.float64).mean(axis=1)
        found |= {"success": stats.mean(share).tolist(), "success_intervals": intervals(share, seed, all_tasks)}
        found["success_per_task"] = share.mean(axis=0).tolist()
    return found


def intervals(by_task: np.ndarray, seed: int, all_tasks: bool) -> list[list[float] | None]:
    """95 % [low, high] of each of K means of [S, N, K]; None where one seed on one task leaves nothing to draw from."""
    if by_task.shape[:2] == (1, 1):
        return [None] * by_task.shape[-1]
    return stats.of_means(by_task, np.random.default_rng(seed), all_tasks).T.tolist()
