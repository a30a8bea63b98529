"""How sure a mean is: interquartile mean, bootstrap intervals, probability of improvement. NumPy only.

Scores are arrays [S, N, ...]: S training seeds, N test tasks, then whatever is kept apart (the shots of a trial). After
Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice" (arXiv:2108.13264).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]  # scores [S, N, ...] -> [...]


def scores(values: np.ndarray, what: str = "scores") -> np.ndarray:
    """`values` as float64 [S, N, ...]; raises ValueError for fewer than two axes, no entries, or NaN and infinity."""
    values = np.asarray(values, np.float64)
    if values.ndim < 2 or values.size == 0:
        raise ValueError(f"{what} must be [seeds, tasks, ...] with at least one of each, got shape {values.shape}")
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{what} must be finite, got {values[where]} at seed {where[0]}, task {where[1]}")
    return values


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over seeds and tasks: [S, N, ...] -> [...]."""
    return values.mean(axis=(0, 1))


def iqm(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the S * N scores: [S, N, ...] -> [...].

    The mean of what is left when the floor(S * N / 4) lowest and as many highest are dropped (rliable's and SciPy's
    `trim_mean` at 0.25). Robust against a failed run, less wasteful than the median.
    """
    ordered = np.sort(values.reshape(-1, *values.shape[2:]), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(axis=0)


def interval(
    values: np.ndarray, rng: np.random.Generator, statistic: Statistic = mean, *,
    scheme: Literal["crossed", "seeds", "stratified"] = "crossed", resamples: int = 2000, level: float = 0.95,
) -> np.ndarray:  # fmt: skip
    """Percentile bootstrap interval of `statistic`: [S, N, ...] -> [2, ...], low and high.

    crossed: seeds and tasks are both samples of something larger; each resample draws S seeds and N tasks with
    replacement and takes every pair. One seed: only tasks are drawn, and the interval says nothing about training anew.
    seeds: the tasks are the benchmark itself; each resample draws S whole seeds, since one agent plays all tasks (S >= 2).
    stratified: within each task S of its own seeds are drawn (rliable's, for benchmarks with a training run per task; S >= 2).
    Where one agent plays all tasks that is far too narrow: what a seed does to all of them averages out.
    The ends are the (1 - level) / 2 and (1 + level) / 2 quantiles over the resamples, interpolated linearly. Only what
    `rng` gives is random. Raises ValueError for scores that are not finite [S, N, ...] and for options out of range.
    """
    values = scores(values)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    found = np.stack([statistic(draw) for draw in draws(values, rng, scheme, resamples)])
    return np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)


def of_means(values: np.ndarray, rng: np.random.Generator, all_tasks: bool, resamples: int = 2000) -> np.ndarray:
    """95 % interval [2, ...] of the mean of scores [S, N, ...]: of one seed over tasks, of several over seeds and tasks (crossed),
    or over seeds alone where the tasks are all that there are. As any bootstrap it is too narrow where little is drawn from: by
    simulation, where seeds differ half as much as tasks, 95 % are in truth 88 with 3 seeds x 20 tasks, 80 with 2 x 20, 66 with
    1 x 4, 40 with 1 x 2; over seeds alone 50 with 2 seeds, 75 with 3, 89 with 8."""
    scheme = "seeds" if all_tasks and len(values) > 1 else "crossed"
    return interval(values, rng, scheme=scheme, resamples=resamples)


def draws(values: np.ndarray, rng: np.random.Generator, scheme: str, resamples: int):
    """Yields `resamples` arrays of the shape of `values` [S, N, ...]; see `interval`."""
    seeds, tasks = values.shape[:2]
    if scheme not in ("crossed", "seeds", "stratified"):
        raise ValueError(f"scheme must be 'crossed', 'seeds' or 'stratified', got {scheme!r}")
    if scheme != "crossed" and seeds < 2:
        raise ValueError(f"scheme={scheme!r} draws seeds, so it needs at least 2, got 1; use scheme='crossed'")
    for _ in range(resamples):
        if scheme == "crossed":
            rows = rng.integers(seeds, size=seeds)[:, None]
            yield values[rows, rng.integers(tasks, size=tasks)]
        elif scheme == "seeds":
            yield values[rng.integers(seeds, size=seeds)]
        else:
            yield values[rng.integers(seeds, size=(seeds, tasks)), np.arange(tasks)]


def difference_interval(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, all_tasks: bool = False, resamples: int = 2000,
    level: float = 0.95,
) -> np.ndarray:  # fmt: skip
    """Percentile bootstrap interval [2] of mean(x) - mean(y); x [Sx, N], y [Sy, N] on the same tasks. Seeds of X and of Y are
    drawn apart, tasks together, so that what makes a task hard for both does not count; all_tasks: only seeds are drawn, where
    there is more than one of either."""
    return _paired_interval(x, y, rng, lambda x, y: x.mean() - y.mean(), all_tasks, resamples, level)


def improvement(x: np.ndarray, y: np.ndarray) -> float:
    """Probability that a run of X beats one of Y on a task drawn at random; x [Sx, N], y [Sy, N] on the same tasks.

    The mean over tasks of 1 / (Sx Sy) * sum over pairs of [x > y] + [x = y] / 2 (a Mann-Whitney U per task). 0.5: no
    difference.
    """
    x, y = paired(x, y)
    wins = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])  # [Sx, Sy, N]
    return float(wins.mean())


def improvement_interval(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, all_tasks: bool = False, resamples: int = 2000,
    level: float = 0.95,
) -> np.ndarray:  # fmt: skip
    """Percentile bootstrap interval [2] of `improvement`: seeds of X and of Y are drawn apart, tasks together; all_tasks: as in
    `difference_interval`."""
    return _paired_interval(x, y, rng, improvement, all_tasks, resamples, level)


def _paired_interval(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    statistic: Callable,
    all_tasks: bool,
    resamples: int,
    level: float,
) -> np.ndarray:
    """Of a statistic of two agents on the same tasks."""
    x, y = paired(x, y)
    n, fixed, found = x.shape[1], all_tasks and len(x) + len(y) > 2, []
    for _ in range(resamples):
        rows_x, rows_y = (rng.integers(k, size=k) for k in (len(x), len(y)))
        columns = np.arange(n) if fixed else rng.integers(n, size=n)
        found.append(statistic(x[rows_x][:, columns], y[rows_y][:, columns]))
    return np.quantile(found, [(1 - level) / 2, (1 + level) / 2])


def paired(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as scores [S, N]; raises ValueError where they are not, or are not of the same tasks."""
    x, y = scores(x, "x"), scores(y, "y")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be [seeds, tasks] on the same tasks, got shapes {x.shape} and {y.shape}")
    return x, y
