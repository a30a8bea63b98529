"""Drawings that belong to a task family: what its agents did in a meta-test. A family names them as `pictures`.

A drawing takes an `evaluation`, a dict of NumPy arrays: "returns" [R, N, K]; "tasks" [N, ...]; "beliefs", by name
[R, K, N, ...]; "info", by name [K, N, T], of the first repetition; "success" [R, N, K], where the family has it;
"exploration_episodes", an int. It returns a list of (title, caption, matplotlib Figure). matplotlib is imported when
something is drawn.
"""

from typing import Any

import numpy as np

from nacre.plotting import (
    DASHES,
    INK,
    MUTED,
    SERIES,
    colour_bar,
    legend_above,
    new_figure,
    shot_bar,
    shot_colours,
    styled,
    task_colours,
    task_scale,
    whole_ticks,
)  # fmt: skip

Picture = tuple[str, str, Any]  # title, caption, matplotlib Figure


def angles(tasks: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and value [N] of the direction of goals [N, 2] seen from the middle, degrees from -180 to 180."""
    tasks = np.asarray(tasks)
    return "direction of the goal (degrees)", np.degrees(np.arctan2(tasks[:, 1], tasks[:, 0]))


def chosen_shots(shots: int, exploration: int, most: int) -> list[int]:
    """At most `most` shots to show: the first ones, one past the exploration, the last, in order."""
    if shots <= most:
        return list(range(shots))
    wanted = [*range(min(exploration + 1, most - 2)), shots // 2, shots - 1]
    for k in range(shots):
        if len(set(wanted)) >= most:
            break
        wanted.append(k)
    return sorted(set(wanted))[:most]


def shot_title(k: int, exploration: int) -> str:
    """Episode k of a trial, counted from 0, and on what it acts."""
    if k == 0:
        return "shot 0: knows nothing"
    return f"shot {k}: exploring" if k < exploration else f"shot {k}: adapted"


def spread(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` elements that are evenly spread over the sorted values."""
    order = np.argsort(values)
    return order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]


# ------------------------------------------------------------------------------------------------------ point robots


def point_robot_pictures(
    evaluation: dict, *, radius: float | None = None, start: tuple[float, float] | None = None
) -> list[Picture]:
    """Paths over the goals, and how soon goals are found. radius: of the rewarded disc, None where the reward is dense;
    start: where every episode begins, None where it is random."""
    paths = np.stack([held(evaluation, name) for name in "xy"], axis=-1)  # [K, N, T, 2]
    if start is not None:
        first = np.broadcast_to(np.asarray(start, float), (*paths.shape[:2], 1, 2))
        paths = np.concatenate([first, paths], axis=2)
    goals, exploration = np.asarray(evaluation["tasks"], float), int(evaluation.get("exploration_episodes", 0))
    out = [
        (
            "Where the agent goes, shot by shot",
            "One line per test goal, in the colour of its goal. An agent that adapts goes the same ways for all goals at first, "
            "and in the end to each line's own.",
            draw_paths(paths, goals, exploration, radius),
        ),
        (
            "How the search goes on single goals",
            "All episodes of one trial per panel, coloured by shot: early guesses dark, later ones light. Dashed: "
            "episodes that still explore; dots: where episodes start.",
            draw_trials(paths, goals, exploration, radius),
        ),
    ]
    return [*out, found_picture(evaluation, exploration) if radius else distance_picture(paths, goals, exploration)]


def held(evaluation: dict, name: str) -> np.ndarray:
    """A recording [K, N, T] with the last value again after episodes ended early."""
    values = np.asarray(evaluation["info"][name], float)
    if "lengths" not in evaluation:
        return values
    lengths = np.asarray(evaluation["lengths"])[0].T[..., None]  # [K, N, 1], of the first repetition as recorded
    return np.take_along_axis(values, np.minimum(np.arange(values.shape[-1]), lengths - 1), axis=-1)


def window(goals: np.ndarray, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners [2] of what is shown: all goals, and paths as far as 1.6 from the middle, or a bit beyond the goals."""
    points = np.concatenate([goals, np.nan_to_num(paths).reshape(-1, 2)])
    far = max(1.6, 1.2 * np.abs(goals).max())
    low, high = np.minimum(points.min(axis=0), -1.0), np.maximum(points.max(axis=0), 1.0)
    if goals[:, 1].min() >= 0:
        low[1] = min(points[:, 1].min(), 0.0)
    return np.maximum(low, -far) - 0.28, np.minimum(high, far) + 0.28


def plane(axis: Any, low: np.ndarray, high: np.ndarray) -> None:
    """Equal scales, few ticks."""
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axis.xaxis.set_ticks([tick for tick in range(-2, 3) if low[0] < tick < high[0]])
    axis.yaxis.set_ticks([tick for tick in range(-2, 3) if low[1] < tick < high[1]])
    axis.grid(False)


def goal_name(goal: np.ndarray) -> str:
    x, y = (f"{value:.2f}".replace("-", "\u2212").replace("\u22120.00", "0.00") for value in goal)
    return f"goal ({x}, {y})"


def draw_goals(axis: Any, goals: np.ndarray, colours: Any, radius: float | None) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    if radius:
        discs = PatchCollection([Circle(goal, radius) for goal in goals], facecolor=colours, alpha=0.16, linewidth=0)
        axis.add_collection(discs)
    marker, size = ("*", 60) if len(goals) == 1 else ("o", 24)
    axis.scatter(*goals.T, s=size, marker=marker, c=colours, edgecolor=INK, linewidth=0.6, zorder=4)


@styled
def draw_paths(paths: np.ndarray, goals: np.ndarray, exploration: int, radius: float | None) -> Any:
    """Small multiples over shots: the paths of all tasks."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection

    shots = chosen_shots(len(paths), exploration, 8)
    columns = min(4, len(shots))
    rows = -(-len(shots) // columns)
    low, high = window(goals, paths[shots])
    panel = 8.0 / columns * (high[1] - low[1]) / (high[0] - low[0]) + 0.3  # inches
    figure, axes = new_figure(rows, columns, height=rows * panel + 0.3, sharex=True, sharey=True)
    label, values = angles(goals)
    scale, colour_map = task_scale(values), task_colours()
    colours = colour_map(scale(values))
    for axis in axes.flat[len(shots) :]:
        axis.set_visible(False)
    for axis, k in zip(axes.flat, shots, strict=False):
        draw_goals(axis, goals, colours, radius)
        axis.add_collection(LineCollection(list(paths[k]), colors=colours, linewidths=1.2, alpha=0.9, zorder=3))
        plane(axis, low, high)
        axis.set_title(shot_title(k, exploration))
    for axis in axes[:, 0]:
        axis.set_ylabel("y")
    for axis in axes[-1]:
        axis.set_xlabel("x")
    colour_bar(figure, axes, ScalarMappable(scale, colour_map), label)
    return figure


@styled
def draw_trials(paths: np.ndarray, goals: np.ndarray, exploration: int, radius: float | None, ground=None) -> Any:
    """A few tasks, one panel each: the paths of all episodes of the trial, on what ground(axis, task) draws."""
    tasks = spread(angles(goals)[1], 6)
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    low, high = window(goals[tasks], paths[:, tasks])
    panel = 8.0 / columns * (high[1] - low[1]) / (high[0] - low[0]) + 0.3  # inches
    figure, axes = new_figure(rows, columns, height=rows * panel + 0.3, sharex=True, sharey=True)
    shots = len(paths)
    scale, colour_map = shot_colours(shots)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        draw_goals(axis, goals[task][None], SERIES[1], radius)
        if ground:
            ground(axis, task)
        for k in range(shots):
            style = {"linestyle": (0, (3, 1.5))} if k < exploration else {}
            colour = colour_map(scale(k))
            axis.plot(*paths[k, task].T, color=colour, linewidth=1.3, alpha=0.9, zorder=2, label=f"shot {k}", **style)
            axis.plot(*paths[k, task, 0], color=colour, marker="o", markersize=3, zorder=2)
        plane(axis, low, high)
        axis.set_title(goal_name(goals[task]))
    for axis in axes[:, 0]:
        axis.set_ylabel("y")
    for axis in axes[-1]:
        axis.set_xlabel("x")
    if shots <= 6:
        legend_above(figure, axes)
        return figure
    shot_bar(figure, axes, shots)
    return figure


def resampled(values: np.ndarray, draws: int = 500) -> np.ndarray:
    """[low, high] [2, K] of the mean of values [N, K] over N: percentile bootstrap, 95 %."""
    random = np.random.default_rng(0)
    index = random.integers(0, len(values), (draws, len(values)))
    return np.percentile(values[index].mean(axis=1), [2.5, 97.5], axis=0)


def shot_axis(axis: Any, shots: int, exploration: int) -> None:
    """The x axis of a plot per shot, with the exploration shaded."""
    if 0 < exploration < shots:
        axis.axvspan(-0.5, exploration - 0.5, color=MUTED, alpha=0.12, linewidth=0)
        axis.text(exploration - 0.58, 1.0, "exploring", transform=axis.get_xaxis_transform(), ha="right", va="bottom",
                  color=MUTED, fontsize=8.5)  # fmt: skip
    axis.set(xlim=(-0.5, shots - 0.5), xlabel="shot (episode of the trial)")
    whole_ticks(axis.xaxis)


def goals_found(evaluation: dict) -> np.ndarray:
    """[R, N, K]: whether an episode met its goal, as the family says or else because the reward is zero outside the disc."""
    return np.asarray(evaluation["success"] if "success" in evaluation else evaluation["returns"]) > 0


@styled
def found_picture(evaluation: dict, exploration: int) -> Picture:
    """The share of goals found per shot."""
    from matplotlib.ticker import PercentFormatter

    found = goals_found(evaluation)
    figure, axes = new_figure(height=3.2)
    axis, x = axes[0, 0], np.arange(found.shape[-1])
    so_far = np.logical_or.accumulate(found, axis=-1)
    lines = ((so_far, "found in this or an earlier episode", "--"), (found, "found in this episode", "-"))
    for k, (values, label, dash) in enumerate(lines):
        per_task = values.mean(axis=0)
        axis.fill_between(x, *resampled(per_task), color=SERIES[k], alpha=0.18, linewidth=0)
        axis.plot(x, per_task.mean(axis=0), color=SERIES[k], marker="so"[k], markersize=4, linestyle=dash, label=label)
    shot_axis(axis, found.shape[-1], exploration)
    axis.set(ylim=(0, 1.03), ylabel="share of goals found")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_above(figure, axis)
    caption = (
        "An episode finds its goal when it meets the rewarded disc at least once. Bands: 95 % bootstrap over goals."
    )
    return "Goals found", caption, figure


@styled
def found_comparison(evaluations: dict[str, dict]) -> list[Picture]:
    """The share of goals found in each episode, a line per agent; evaluations by the agents' names."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_figure(height=3.4)
    axis = axes[0, 0]
    for k, (label, evaluation) in enumerate(evaluations.items()):
        per_task = goals_found(evaluation).mean(axis=0)  # [N, K]
        x, look = (
            np.arange(per_task.shape[1]),
            {"color": SERIES[k % 6], "linestyle": DASHES[k % 6], "marker": "osD^vP"[k % 6]},
        )
        axis.fill_between(x, *resampled(per_task), color=look["color"], alpha=0.18, linewidth=0)
        axis.plot(x, per_task.mean(axis=0), markersize=4, label=label, **look)
    first = next(iter(evaluations.values()))
    shot_axis(axis, max(e["returns"].shape[-1] for e in evaluations.values()), int(first["exploration_episodes"]))
    axis.set(ylim=(0, 1.03), ylabel="share of goals found")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_above(figure, axis, columns=3)
    caption = "Episodes that meet the rewarded disc at least once. Bands: 95 % bootstrap over goals."
    return [("Goals found", caption, figure)]


@styled
def distance_picture(paths: np.ndarray, goals: np.ndarray, exploration: int) -> Picture:
    """How far from the goal episodes end."""
    gap = np.linalg.norm(paths[:, :, -1] - goals, axis=-1)  # [K, N]
    figure, axes = new_figure(height=3.0)
    axis, x = axes[0, 0], np.arange(len(gap))
    jitter = np.linspace(-0.12, 0.12, gap.shape[1])
    for k in x:
        axis.scatter(k + jitter, gap[k], s=16, color=SERIES[0], alpha=0.5, linewidth=0, label="one goal")
    axis.plot(x, np.median(gap, axis=1), color=SERIES[1], marker="s", markersize=5, label="median")
    shot_axis(axis, len(gap), exploration)
    axis.set(ylim=(-0.03 * gap.max(), None), ylabel="distance to the goal at the end")
    legend_above(figure, axis)
    return "Where episodes end", "The distance left at the end of each episode, in the units of the plane.", figure
