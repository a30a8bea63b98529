"""What a report says of the runs it read: groups of seeds, learning curves, the last evaluation, how runs differ."""

import dataclasses
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

    @property
    def exploration(self) -> int:
        """Episodes of a trial before the reported adaptation."""
        return int(self.first.spec.get("exploration_episodes", 0))

    @functools.cached_property
    def learns_within(self) -> bool:
        """Whether the agent learns at every step, so that its first episode has adaptation in it."""
        from nacre.algorithms.registry import algorithm_class

        known = attempt("algorithm", [], lambda: algorithm_class(self.first.algorithm))
        return known is not None and getattr(known, "observes", True)

    @functools.cached_property
    def curve(self) -> "Curve":
        return learning_curve(self.seeds, self.all_tasks)

    @functools.cached_property
    def all_tasks(self) -> bool:
        """Whether the test tasks are also those that were trained on, all that the family has."""
        return getattr(family_of(self.first), "train_is_test", False)

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
    by_seed: np.ndarray | None = None  # [S, N, K], where each seed's own are known


# ------------------------------------------------------------------------------------------------------ comparing


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in their seeds only go together; labels say what differs between the groups."""
    by_identity: dict[str, list[Run]] = {}
    for run in runs:
        by_identity.setdefault(run.identity, []).append(run)
    members = list(by_identity.values())
    return [Group(label, group) for label, group in zip(labels([group[0] for group in members]), members, strict=True)]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Without seeds that were named before: a run given twice, or a run and one of its own seeds, count once."""
    seen, kept = set(), []
    for run in runs:
        run.seeds = [seed for seed in run.seeds if (seed.path.resolve(), seed.label) not in seen]
        seen |= {(seed.path.resolve(), seed.label) for seed in run.seeds}
        kept += [run] * bool(run.seeds)
    return kept


def flat_config(run: Run) -> dict[str, Any]:
    """Every setting by a flat name, for tables."""
    top = {name: run.config[name] for name in ("algorithm", "env", "preset") if name in run.config}
    parts = [("env.", run.config.get("env_params")), ("", run.config.get("config")), ("", run.config.get("loop"))]
    nested = {
        f"{prefix}{name}": value for prefix, part in parts if isinstance(part, dict) for name, value in part.items()
    }
    seeds, origin = run.config.get("seeds", run.config.get("seed")), run.config.get("start_from")
    if origin:
        top["start_from"] = f"{origin['env']}, {max(origin['env_steps']):,} env steps"
    return {**top, **({} if seeds is None else {"seeds": seeds}), **nested}


def differences(runs: list[Run]) -> list[str]:
    """Names of settings that are not the same in all runs, seeds left out."""
    flat = [flat_config(run) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one if name not in ("seeds", "seed"))
    return [name for name in names if len({json.dumps(one.get(name), default=str) for one in flat}) > 1]


def labels(runs: list[Run]) -> list[str]:
    """A short name for each: two settings that differ, more where these do not tell them apart, then the run's directory."""
    differing = differences(runs)
    for most in range(2, len(differing) + 1):
        names = [label_of(run, differing, most) for run in runs]
        if len(set(names)) == len(names):
            return names
    names = [label_of(run, differing, len(differing)) for run in runs]
    if len(set(names)) < len(names):
        names = [f"{name}, {run.path.resolve().name}" for name, run in zip(names, runs, strict=True)]
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]


def label_of(run: Run, differing: list[str], most: int) -> str:
    """What differs, at most so many settings of it, or algorithm and preset where nothing does."""
    flat = flat_config(run)
    words = [run.shown] * ("algorithm" in differing) + [str(flat.get("preset"))] * ("preset" in differing)
    rest = [name for name in differing if name not in ("algorithm", "preset", "env") and name in flat]
    words += [f"{name.replace('_', ' ')} {show(flat[name])}" for name in rest[:most]]
    return ", ".join(words) or f"{run.shown} ({run.config.get('preset', 'no preset')})"


def show(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (list, tuple)):
        return " ".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------------------------------- summarising


def mean_and_interval(values: np.ndarray, all_tasks: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns [S, N, K] -> mean [K], 95 % interval [2, K], see stats.of_means; NaN where there is none."""
    if not np.isfinite(values).all() or values.shape[:2] == (1, 1):
        return values.mean(axis=(0, 1)), np.full((2, values.shape[-1]), np.nan)
    return stats.mean(values), stats.of_means(values, np.random.default_rng(0), all_tasks, RESAMPLES)


def learning_curve(seeds: list[Seed], all_tasks: bool = False) -> Curve:
    """Mean over the seeds, as far as all of them have come; seeds evaluated at other env steps are interpolated. all_tasks: the
    test tasks are all that the family has."""
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
    grid = grid[grid <= min(steps[-1] for steps, _, _ in tracks)]  # beyond, fewer seeds would speak for all
    points = [at_step(x, tracks, tasks) for x in grid]
    summary = [mean_and_interval(values, all_tasks) for _, values in points]
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
    """Reference returns per shot, NaN where a reference has fewer, from result.json or references.json. What is the agent's own
    (no_adaptation) is the mean over runs, and told only where all of them have it and have not gone on since."""
    found: dict[str, np.ndarray] = {}
    own = []
    for run in group.runs:
        known = run.result.get("references") or read_json(run.path / "references.json", [], needed=False)
        lists = {name: np.asarray(value, float) for name, value in known.items() if isinstance(value, list) and value}
        agent = lists.pop("no_adaptation", None)
        if agent is not None and run.current_result:
            own.append(padded(agent, shots))
        found = {name: padded(value, shots) for name, value in lists.items()} | found
    return found | ({"no_adaptation": np.mean(own, axis=0)} if own and len(own) == len(group.runs) else {})


def padded(values: np.ndarray, shots: int) -> np.ndarray:
    """`values` [K] for another number of shots."""
    return np.concatenate([values, np.full(max(0, shots - len(values)), np.nan)])[:shots]


def final_evaluation(group: Group) -> Final | None:
    """The last evaluation of all seeds, pooled; the numbers of result.json where every run has one as new."""
    results = [run.current_result for run in group.runs]
    if all(result.get("shots") and result.get("split", "test") == "test" for result in results):
        if len(results) == 1:
            return from_result(group, results[0])
        if together := pooled_results(group, results):
            return together
    seeds = [seed for seed in group.seeds if seed.returns]
    if not seeds:
        return None
    last = [seed.returns[max(seed.returns)] for seed in seeds]
    n, k = (min(value.shape[axis] for value in last) for axis in (1, 2))
    values = np.stack([value.mean(axis=0)[:n, :k] for value in last])  # [S, N, K]
    mean, interval = mean_and_interval(values, group.all_tasks)
    tasks = task_array(seeds[0].evaluation(max(seeds[0].returns)))
    tasks = np.arange(n, dtype=float)[:, None] if tasks is None else tasks[:n]
    newest = min(max(seed.returns) for seed in seeds)
    return Final(
        newest, mean, interval, values.mean(axis=0), tasks, known_references(group, k), len(last[0]), len(seeds), values
    )


def from_result(group: Group, result: dict[str, Any]) -> Final:
    """What result.json says of one run."""
    shots = np.asarray(result["shots"], float)
    known = result.get("intervals") or [[np.nan, np.nan]] * len(shots)
    interval = np.asarray([end or (np.nan, np.nan) for end in known], float).T
    per_task = np.atleast_2d(np.asarray(result.get("per_task") or [shots], float))
    tasks = np.asarray(result.get("task_params") or np.arange(len(per_task)), float).reshape(len(per_task), -1)
    seeds = len(result.get("seeds") or [0])
    by_seed = result.get("per_seed") or ([per_task] if seeds == 1 else None)
    return Final(int(result["env_steps"]), shots, interval, per_task, tasks, known_references(group, len(shots)),
                 int(result.get("repetitions", 1)), seeds, None if by_seed is None else np.asarray(by_seed))  # fmt: skip


def pooled_results(group: Group, results: list[dict[str, Any]]) -> Final | None:
    """Of several runs of one seed each on the same tasks, else None."""
    kinds = {
        (np.shape(one.get("per_task") or ()), one.get("repetitions"), str(one.get("task_params"))) for one in results
    }
    if len(kinds) > 1 or any(len(one.get("seeds") or ()) != 1 or not one.get("per_task") for one in results):
        return None
    values = np.asarray([one["per_task"] for one in results], float)  # [S, N, K]
    mean, interval = mean_and_interval(values, group.all_tasks)
    one = from_result(group, results[0])
    return dataclasses.replace(
        one, env_steps=min(int(result["env_steps"]) for result in results), shots=mean, interval=interval,
        per_task=values.mean(axis=0), seeds=len(results), by_seed=values,
    )  # fmt: skip


def gap_closed(final: Final, exploration: int) -> float | None:
    """How much of the way from doing nothing (or random actions) to the oracle the shots after exploration go.

    None where there is no oracle or no way."""
    low = final.references.get("still", final.references.get("random"))
    high = final.references.get("oracle")
    if low is None or high is None:
        return None
    first = min(exploration, len(final.shots) - 1)
    start, end, ours = (float(np.nanmean(values[first:])) for values in (low, high, final.shots))
    return (ours - start) / (end - start) if end > start else None


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
    known = {name: arrays[name] for name in ("returns", "lengths", "success") if name in arrays}
    parts = {name: nested(arrays, name) for name in ("beliefs", "info")}
    return seed, {**known, **parts, "tasks": tasks, "exploration_episodes": group.exploration}


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
