"""What a report says of the runs it read: groups of seeds, learning curves, the last evaluation, how runs differ."""

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre import stats
from nacre.report_data import Run, Seed, read_json

RESAMPLES = 1000  # of the bootstrap intervals


@dataclass
class Group:
    """Runs that differ in their seed only; one colour of the figures."""

    label: str
    runs: list[Run]

    @property
    def seeds(self) -> list[Seed]:
        return [seed for run in self.runs for seed in run.seeds]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @functools.cached_property
    def curve(self) -> "Curve":
        return learning_curve(self.seeds)

    @functools.cached_property
    def final(self) -> "Final | None":
        return final_evaluation(self)


@dataclass
class Curve:
    """Returns over training; P points, K shots. Empty (P = 0) before the first evaluation."""

    env_steps: np.ndarray  # [P]
    minutes: np.ndarray  # [P] of training, mean over seeds
    mean: np.ndarray  # [P, K]
    interval: np.ndarray  # [P, 2, K]
    per_seed: list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # env steps, minutes, mean return [., K] of each seed

    @property
    def shots(self) -> int:
        return self.mean.shape[-1]


@dataclass
class Final:
    """The last evaluation. K shots, N tasks."""

    env_steps: int
    shots: np.ndarray  # [K]
    interval: np.ndarray  # [2, K]
    per_task: np.ndarray  # [N, K]
    tasks: np.ndarray  # [N, task numbers]
    references: dict[str, np.ndarray]  # [K] each: random, still, oracle, no_adaptation, those that are known
    repetitions: int
    seeds: int


# ------------------------------------------------------------------------------------------------------ comparing


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in their seeds only go together; labels say what differs between the groups."""
    by_identity: dict[str, list[Run]] = {}
    for run in runs:
        by_identity.setdefault(run.identity, []).append(run)
    members = list(by_identity.values())
    differing = differences([group[0] for group in members])
    return [Group(label_of(group[0], differing), group) for group in members]


def flat_config(run: Run) -> dict[str, Any]:
    """Every setting by a flat name, for tables."""
    top = {name: run.config[name] for name in ("algorithm", "env", "preset") if name in run.config}
    parts = [("env.", run.config.get("env_params")), ("", run.config.get("config")), ("", run.config.get("loop"))]
    nested = {
        f"{prefix}{name}": value for prefix, part in parts if isinstance(part, dict) for name, value in part.items()
    }
    seeds = run.config.get("seeds", run.config.get("seed"))
    return {**top, **({} if seeds is None else {"seeds": seeds}), **nested}


def differences(runs: list[Run]) -> list[str]:
    """Names of settings that are not the same in all runs, seeds left out."""
    flat = [flat_config(run) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one if name not in ("seeds", "seed"))
    return [name for name in names if len({json.dumps(one.get(name), default=str) for one in flat}) > 1]


def label_of(run: Run, differing: list[str]) -> str:
    """A short name: what differs, or algorithm and preset where nothing does."""
    flat = flat_config(run)
    words = [str(flat.get(name)) for name in ("algorithm", "preset") if name in differing]
    rest = [name for name in differing if name not in ("algorithm", "preset", "env") and name in flat]
    words += [f"{name.replace('_', ' ')} {show(flat[name])}" for name in rest[:2]]
    return ", ".join(words) or f"{run.algorithm} ({run.config.get('preset', 'no preset')})"


def show(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (list, tuple)):
        return " ".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------------------------------- summarising


def mean_and_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns [S, N, K] -> mean [K], 95 % interval [2, K]: over tasks (one seed), over seeds and tasks (several)."""
    if not np.isfinite(values).all():
        return values.mean(axis=(0, 1)), np.full((2, values.shape[-1]), np.nan)
    return stats.mean(values), stats.interval(values, np.random.default_rng(0), resamples=RESAMPLES)


def learning_curve(seeds: list[Seed]) -> Curve:
    """Mean over the seeds that cover each point; seeds evaluated at other env steps are interpolated."""
    seeds = [seed for seed in seeds if seed.returns]
    if not seeds:
        empty = np.zeros(0)
        return Curve(empty, empty, np.zeros((0, 0)), np.zeros((0, 2, 0)), [])
    shots = min(value.shape[-1] for seed in seeds for value in seed.returns.values())
    tracks = []
    for seed in seeds:
        count = {value.shape[1] for value in seed.returns.values()}
        keep = min(count)
        steps = np.asarray(list(seed.returns), float)
        values = np.stack([value.mean(axis=0)[:keep, :shots] for value in seed.returns.values()])  # [P, N, K]
        tracks.append((steps, np.asarray([seed.minutes(int(s)) for s in steps]), values))
    tasks = min(values.shape[1] for _, _, values in tracks)
    grid = np.unique(np.concatenate([steps for steps, _, _ in tracks]))
    points = [at_step(x, tracks, tasks) for x in grid]
    summary = [mean_and_interval(values) for _, values in points]
    per_seed = [(steps, minutes, values.mean(axis=1)) for steps, minutes, values in tracks]
    mean, interval = (np.stack([one[i] for one in summary]) for i in (0, 1))
    return Curve(grid, np.asarray([minutes for minutes, _ in points]), mean, interval, per_seed)


def at_step(x: float, tracks: list, tasks: int) -> tuple[float, np.ndarray]:
    """Minutes and returns [S, N, K] at env step x of the seeds whose evaluations reach around it."""
    minutes, values = [], []
    for steps, times, track in tracks:
        if not steps[0] <= x <= steps[-1]:
            continue
        right = int(np.searchsorted(steps, x))
        left = right if steps[right] == x else right - 1
        share = 0.0 if left == right else (x - steps[left]) / (steps[right] - steps[left])
        minutes.append((1 - share) * times[left] + share * times[right])
        values.append((1 - share) * track[left, :tasks] + share * track[right, :tasks])
    return float(np.mean(minutes)), np.stack(values)


def task_array(arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """Task numbers [N, d] of an evaluation, leaves of the pytree side by side."""
    leaves = [np.asarray(value) for name, value in arrays.items() if name == "tasks" or name.startswith("tasks/")]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1) if leaves else None


def known_references(group: Group, shots: int) -> dict[str, np.ndarray]:
    """Reference returns per shot, from result.json or references.json of the first run that has them."""
    for run in group.runs:
        found = run.result.get("references") or read_json(run.path / "references.json", [], needed=False)
        lists = {name: value for name, value in found.items() if isinstance(value, list) and value}
        if lists:
            return {name: np.resize(np.asarray(value, float), shots) for name, value in lists.items()}
    return {}


def final_evaluation(group: Group) -> Final | None:
    """The last evaluation of all seeds, pooled; result.json's numbers where they are as new."""
    seeds = [seed for seed in group.seeds if seed.returns]
    newest = min((max(seed.returns) for seed in seeds), default=-1)
    result = group.first.result if len(group.runs) == 1 else {}
    if result.get("shots") and result.get("env_steps", 0) >= newest and result.get("split", "test") == "test":
        shots = np.asarray(result["shots"], float)
        interval = np.asarray(result.get("intervals") or np.full((len(shots), 2), np.nan), float).T
        per_task = np.atleast_2d(np.asarray(result.get("per_task") or [shots], float))
        tasks = np.asarray(result.get("task_params") or np.arange(len(per_task)), float).reshape(len(per_task), -1)
        return Final(int(result.get("env_steps", newest)), shots, interval, per_task, tasks,
                     known_references(group, len(shots)), int(result.get("repetitions", 1)),
                     len(result.get("seeds") or [0]))  # fmt: skip
    if not seeds:
        return None
    last = [seed.returns[max(seed.returns)] for seed in seeds]
    n, k = (min(value.shape[axis] for value in last) for axis in (1, 2))
    values = np.stack([value.mean(axis=0)[:n, :k] for value in last])  # [S, N, K]
    mean, interval = mean_and_interval(values)
    tasks = task_array(seeds[0].evaluation(max(seeds[0].returns)))
    tasks = np.arange(n, dtype=float)[:, None] if tasks is None else tasks[:n]
    return Final(
        newest, mean, interval, values.mean(axis=0), tasks, known_references(group, k), len(last[0]), len(seeds)
    )


def pooled(returns: list[np.ndarray]) -> np.ndarray:
    """Returns [R, N, K] of several seeds as repetitions of one; what only some of them have is left out."""
    n, k = (min(value.shape[axis] for value in returns) for axis in (1, 2))
    return np.concatenate([value[:, :n, :k] for value in returns])


def nested(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix/`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(f"{prefix}/")}


def evaluation_for_pictures(group: Group) -> tuple[Seed, dict[str, Any]] | None:
    """The seed whose behaviour is drawn (the first with an evaluation) and its last evaluation, as drawings take it."""
    seed = next((seed for seed in group.seeds if seed.returns), None)
    if seed is None:
        return None
    arrays = seed.evaluation(max(seed.returns))
    leaves = {name: value for name, value in arrays.items() if name == "tasks" or name.startswith("tasks/")}
    tasks = next(iter(leaves.values())) if len(leaves) == 1 else nested(arrays, "tasks")
    exploration = int(group.first.spec.get("exploration_episodes", 0))
    known = {name: arrays[name] for name in ("returns", "lengths", "success") if name in arrays}
    parts = {name: nested(arrays, name) for name in ("beliefs", "info")}
    return seed, {**known, **parts, "tasks": tasks, "exploration_episodes": exploration}


def attempt(what: str, remarks: list[str], make: Callable[[], Any]) -> Any:
    """make(), or None with a remark: one picture that fails must not cost the page."""
    try:
        return make()
    except Exception as error:
        remarks.append(f"{what} could not be made: {type(error).__name__}: {error}")
        return None


@functools.cache
def family_of(run: Run) -> Any:
    """The task family of a run, for its own drawings; None where it cannot be made again (say, without its file)."""
    from nacre.envs.registry import make_family

    if run.config.get("env_from", "name") != "name" or "env" not in run.config:
        return None
    params = run.config.get("env_params") or {}
    params = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
    try:
        return make_family(run.config["env"], **params)
    except Exception:
        return None
