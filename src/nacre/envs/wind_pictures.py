"""What `wind` draws of its agents: paths over the winds, and how long they hold out in the goal."""

from typing import Any

import numpy as np

from nacre.envs.pictures import Picture, chosen_shots, resampled, shot_title, spread
from nacre.plotting import INK, SERIES, colour_bar, legend_above, new_figure, styled, task_colours, task_scale

ARROW = 5.0  # drawn length of a wind over its length per env step


def wind_pictures(evaluation: dict, *, goal: tuple[float, float], radius: float) -> list[Picture]:
    """Paths [K, N, T, 2] from (0, 0) shot by shot, in single winds, and the share of winds in which the agent is in the goal."""
    paths = np.stack([np.asarray(evaluation["info"][name], float) for name in "xy"], axis=-1)
    inside = np.linalg.norm(paths - np.asarray(goal), axis=-1) <= radius  # [K, N, T]
    paths = np.concatenate([np.zeros_like(paths[:, :, :1]), paths], axis=2)
    winds, exploration = np.asarray(evaluation["tasks"], float), int(evaluation.get("exploration_episodes", 0))
    return [
        (
            "Where the agent goes, shot by shot",
            "One line per held-out wind, coloured by how much it blows toward the goal (the disc with the star).",
            draw_shots(paths, winds, exploration, goal, radius),
        ),
        (
            "Single winds",
            f"The episodes of one trial per panel. Arrow: what the wind does to the point in {ARROW:.0f} env steps.",
            draw_winds(paths, winds, goal, radius),
        ),
        (
            "In the goal, step by step",
            "Share of held-out winds in which the agent is in the disc after each env step. Bands: 95 % bootstrap over winds.",
            draw_inside(inside, exploration),
        ),
    ]


def window(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners [2] of what is shown: start and goal, and paths as far as 1 from them, since some winds carry far away."""
    points = paths.reshape(-1, 2)
    return np.clip(points.min(axis=0), -1.0, -0.3), np.clip(points.max(axis=0), (0.3, 1.2), (1.0, 2.0))


def draw_goal(axis: Any, goal: tuple[float, float], radius: float) -> None:
    from matplotlib.patches import Circle

    axis.add_patch(Circle(goal, radius, facecolor=SERIES[1], alpha=0.5, linewidth=0, zorder=4))
    axis.plot(*goal, marker="*", markersize=7, color=SERIES[1], markeredgecolor=INK, markeredgewidth=0.5, zorder=5)


def panels(count: int, columns: int, low: np.ndarray, high: np.ndarray) -> tuple[Any, list]:
    """(figure, axes) of `count` planes that show the window."""
    columns = min(columns, count)
    rows = -(-count // columns)
    height = min(8.0 / columns * (high[1] - low[1]) / (high[0] - low[0]), 3.5) + 0.3  # inches
    figure, axes = new_figure(rows, columns, height=rows * height + 0.3, sharex=True, sharey=True)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for axis in axes.flat[:count]:
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[0], yticks=[0, 1])
        axis.grid(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("y")
    for axis in axes[-1]:
        axis.set_xlabel("x")
    return figure, list(axes.flat[:count])


@styled
def draw_shots(paths: np.ndarray, winds: np.ndarray, exploration: int, goal: tuple, radius: float) -> Any:
    """Small multiples over shots: the paths of all winds."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection

    shots = chosen_shots(len(paths), exploration, 8)
    figure, axes = panels(len(shots), 4, *window(paths[shots]))
    along = winds[:, 1]
    scale, colour_map = task_scale(along), task_colours()
    for axis, k in zip(axes, shots, strict=True):
        axis.add_collection(LineCollection(list(paths[k]), colors=colour_map(scale(along)), linewidths=1.2, zorder=3))
        draw_goal(axis, goal, radius)
        axis.set_title(shot_title(k, exploration))
    colour_bar(figure, axes, ScalarMappable(scale, colour_map), "wind toward the goal, per env step")
    return figure


@styled
def draw_winds(paths: np.ndarray, winds: np.ndarray, goal: tuple, radius: float) -> Any:
    """A few winds, one panel each: all episodes of the trial, and the wind as an arrow from the start."""
    picked = spread(winds[:, 1], 4)
    figure, axes = panels(len(picked), 4, *window(paths[:, picked]))
    shots, colour_map = len(paths), task_colours()
    for axis, task in zip(axes, picked, strict=True):
        for k in range(shots):
            axis.plot(*paths[k, task].T, color=colour_map(k / max(1, shots - 1)), linewidth=1.4, label=f"shot {k}")
        axis.annotate(
            "", ARROW * winds[task], (0, 0), arrowprops={"arrowstyle": "->", "color": SERIES[1], "linewidth": 1.6}
        )
        draw_goal(axis, goal, radius)
        wind = ", ".join(f"{value:+.2f}" for value in winds[task]).replace("-", "\u2212")
        axis.set_title(f"wind ({wind})")
    if 1 < shots <= 6:
        legend_above(figure, np.asarray(axes, dtype=object))
    return figure


@styled
def draw_inside(inside: np.ndarray, exploration: int) -> Any:
    """Share of winds [K, N, T] in which the agent is in the disc, over env steps; a line per shot."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_figure(height=3.0)
    axis, steps = axes[0, 0], np.arange(1, inside.shape[-1] + 1)
    for i, k in enumerate(chosen_shots(len(inside), exploration, 6)):
        share = inside[k].astype(float)
        axis.fill_between(steps, *resampled(share), color=SERIES[i], alpha=0.18, linewidth=0)
        axis.plot(steps, share.mean(axis=0), color=SERIES[i], label=shot_title(k, exploration))
    axis.set(ylim=(0, 1.03), xlim=(0, len(steps)), xlabel="env step", ylabel="share of winds")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_above(figure, axis)
    return figure
