"""Whether one agent is better than another, and what an agent gains by adapting: differences task by task, which are far surer than
two means beside each other, since most of what makes returns differ is the task."""

import math
from dataclasses import dataclass

import numpy as np

from nacre import stats
from nacre.report_summary import RESAMPLES, Group
from nacre.results import intervals


@dataclass
class Difference:
    """A group less the first one, at the last shot of each."""

    label: str
    mean: float
    interval: np.ndarray  # [2], NaN where there is nothing to draw from
    better: float  # probability that a run of it beats one of the first group's on a task
    better_interval: np.ndarray


def gain(group: Group) -> tuple[float, float, float] | None:
    """The last shot less the first: mean, and its 95 % interval, NaN where there is none. None for trials of one episode."""
    final = group.final
    if final is None or len(final.shots) < 2 or final.by_seed is None:
        return None
    less = final.by_seed[..., -1:] - final.by_seed[..., :1]
    known = None
    if np.isfinite(less).all():
        known = intervals(less, 0, group.all_tasks)[0]  # as the table of nacre evaluate draws it
    low, high = known or (math.nan, math.nan)
    return float(less.mean()), low, high


def same_tasks(a: Group, b: Group) -> bool:
    """Whether both were tested on the same tasks, in the same order, and each seed's returns are known."""
    known = [group.final for group in (a, b) if group.final is not None and group.final.by_seed is not None]
    return len(known) == 2 and np.array_equal(known[0].tasks, known[1].tasks)


def differences_from_first(groups: list[Group]) -> list[Difference]:
    """Of all others that were tested on the tasks of the first, at their last shots."""
    first, *others = groups
    return [difference(group, first) for group in others if same_tasks(group, first)]


def difference(group: Group, first: Group) -> Difference:
    x, y = (one.final.by_seed[..., -1] for one in (group, first))  # [S, N]
    mean, better = float(x.mean() - y.mean()), stats.improvement(x, y)
    if x.size == y.size == 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Difference(group.label, mean, np.full(2, np.nan), better, np.full(2, np.nan))
    options = {"all_tasks": group.all_tasks, "resamples": RESAMPLES}
    apart, sure = (
        of(x, y, np.random.default_rng(0), **options) for of in (stats.difference_interval, stats.improvement_interval)
    )
    return Difference(group.label, mean, apart, better, sure)
