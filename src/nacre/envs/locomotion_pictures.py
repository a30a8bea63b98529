"""Drawings of the MuJoCo locomotion families: where bodies go, shot by shot. See `pictures.py` for what an evaluation is."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from nacre.envs.pictures import Picture, chosen_shots, shot_axis, shot_title
from nacre.plotting import MUTED, SERIES, colour_bar, legend_above, new_figure, styled, task_colours, task_scale


def tracks(evaluation: dict, names: Iterable[str]) -> list[list[np.ndarray]]:
    """[K][N] arrays [steps, len(names)] of the named measurements in the first repetition, as long as the episode was."""
    values = np.stack([np.asarray(evaluation["info"][name], float) for name in names], axis=-1)  # [K, N, T, d]
    lengths = np.asarray(evaluation["lengths"], int)[0].T  # [K, N]
    return [[track[:n] for track, n in zip(*shot, strict=True)] for shot in zip(values, lengths, strict=True)]


def compass(angles: np.ndarray) -> Any:
    """A colour per angle in rad, and what a colour bar needs; the ends of the scale have one colour."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    degrees = np.degrees(angles) % 360
    scale, colours = Normalize(0, 360), colormaps["twilight_shifted"]
    return colours(scale(degrees)), ScalarMappable(scale, colours), "direction asked for (degrees)"


@styled
def draw_tracks(
    paths: list, colours: Any, bar: Any, label: str, exploration: int, goals: np.ndarray | None = None
) -> Any:
    """Small multiples over shots: all paths seen from above, in the colour of their task."""
    from matplotlib.collections import LineCollection

    shots = chosen_shots(len(paths), exploration, 4)
    points = np.concatenate([np.concatenate(paths[k]) for k in shots] + ([] if goals is None else [goals]))
    reach = max(1.0, 1.08 * np.abs(points).max())
    figure, axes = new_figure(1, len(shots), height=8.6 / len(shots) + 0.5, sharex=True, sharey=True)
    for axis, k in zip(axes[0], shots, strict=True):
        lines = [np.concatenate([np.zeros((1, 2)), path]) for path in paths[k]]  # bodies start at the origin
        axis.add_collection(LineCollection(lines, colors=colours, linewidths=1.3, alpha=0.9, zorder=3))
        if goals is not None:
            axis.scatter(*goals.T, s=22, c=colours, edgecolor=MUTED, linewidth=0.6, zorder=4)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="x (m)")
        axis.set_title(shot_title(k, exploration))
    axes[0, 0].set_ylabel("y (m)")
    colour_bar(figure, axes, bar, label)
    return figure


@styled
def draw_dots(values: np.ndarray, ylabel: str, exploration: int) -> Any:
    """values [K, N] per shot: a dot per task, and the median."""
    figure, axes = new_figure(height=3.0)
    axis, x = axes[0, 0], np.arange(len(values))
    jitter = np.linspace(-0.12, 0.12, values.shape[1])
    for k in x:
        axis.scatter(k + jitter, values[k], s=16, color=SERIES[0], alpha=0.5, linewidth=0, label="one test task")
    axis.plot(x, np.median(values, axis=1), color=SERIES[1], marker="s", markersize=5, label="median")
    axis.axhline(0, color=MUTED, linewidth=0.8)
    shot_axis(axis, len(values), exploration)
    axis.set_ylabel(ylabel)
    legend_above(figure, axis)
    return figure


def exploration_of(evaluation: dict) -> int:
    return int(evaluation.get("exploration_episodes", 0))


def heading_pictures(evaluation: dict) -> list[Picture]:
    """Tasks are directions [N] in rad; info has x, y in m."""
    angles, exploration = np.asarray(evaluation["tasks"], float), exploration_of(evaluation)
    paths = tracks(evaluation, "xy")
    along = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    gained = np.array([[path[-1] @ u for path, u in zip(shot, along, strict=True)] for shot in paths])
    return [
        (
            "Where the body goes, shot by shot",
            "Seen from above, one line per test task in the colour of the direction asked for; lines end where episodes "
            "end. First repetition.",
            draw_tracks(paths, *compass(angles), exploration),
        ),
        (
            "Distance in the direction asked for",
            "From the start to the end of each episode, counted along the hidden direction; first repetition.",
            draw_dots(gained, "distance (m)", exploration),
        ),
    ]


def goal_pictures(evaluation: dict) -> list[Picture]:
    """Tasks are places [N, 2] in m; info has x, y in m."""
    goals, exploration = np.asarray(evaluation["tasks"], float), exploration_of(evaluation)
    paths = tracks(evaluation, "xy")
    left = np.array(
        [[np.linalg.norm(path[-1] - goal) for path, goal in zip(shot, goals, strict=True)] for shot in paths]
    )
    colours, bar, label = compass(np.arctan2(goals[:, 1], goals[:, 0]))
    label = "direction of the goal (degrees)"
    return [
        (
            "Where the body goes, shot by shot",
            "Seen from above, one line per test task; a dot in the line's colour is its hidden goal. First repetition.",
            draw_tracks(paths, colours, bar, label, exploration, goals),
        ),
        (
            "Where episodes end",
            "The distance from the goal at the end of each episode; first repetition.",
            draw_dots(left, "distance (m)", exploration),
        ),
    ]


def speed_pictures(evaluation: dict, label: str) -> list[Picture]:
    """Tasks are numbers [N], called `label`; info has velocity in m/s."""
    tasks, exploration = np.asarray(evaluation["tasks"], float), exploration_of(evaluation)
    reached = np.array([[path.mean() for path in shot] for shot in tracks(evaluation, ["velocity"])])
    caption = "Mean velocity of each episode, up to its end, against what was asked for; first repetition."
    return [("Velocity against the task", caption, draw_speeds(tasks, reached, label, exploration))]


@styled
def draw_speeds(tasks: np.ndarray, reached: np.ndarray, label: str, exploration: int) -> Any:
    """reached [K, N] against tasks [N], a panel per shot."""
    shots = chosen_shots(len(reached), exploration, 4)
    figure, axes = new_figure(1, len(shots), height=3.4, sharex=True, sharey=True)
    for axis, k in zip(axes[0], shots, strict=True):
        axis.axhline(0, color=MUTED, linewidth=0.8)
        axis.scatter(tasks, reached[k], s=24, color=SERIES[0], alpha=0.8, linewidth=0)
        axis.set_title(shot_title(k, exploration))
        axis.set_xlabel(label)
    axes[0, 0].set_ylabel("velocity (m/s)")
    return figure


def progress_pictures(evaluation: dict, label: str, values: np.ndarray, dt: float) -> list[Picture]:
    """info has x in m; values [N]: the number that tells tasks apart, called `label`; dt: seconds per env step."""
    exploration = exploration_of(evaluation)
    paths = tracks(evaluation, "x")
    gained = np.array([[path[-1, 0] for path in shot] for shot in paths])
    lengths = np.array([[len(path) * dt for path in shot] for shot in paths])
    return [
        (
            "How far the body comes",
            f"Place over time, one line per test task; lines that end early are falls. Colour: {label}. First repetition.",
            draw_progress(paths, label, np.asarray(values, float), dt, exploration),
        ),
        (
            "Distance per episode",
            "From start to end; first repetition.",
            draw_dots(gained, "distance (m)", exploration),
        ),
        ("Time upright", "First repetition.", draw_dots(lengths, "time until the end (s)", exploration)),
    ]


@styled
def draw_progress(paths: list, label: str, values: np.ndarray, dt: float, exploration: int) -> Any:
    """x over time, a panel per shot."""
    from matplotlib.cm import ScalarMappable

    shots = chosen_shots(len(paths), exploration, 4)
    figure, axes = new_figure(1, len(shots), height=3.4, sharex=True, sharey=True)
    scale, colours = task_scale(values), task_colours()
    for axis, k in zip(axes[0], shots, strict=True):
        for path, value in zip(paths[k], values, strict=True):
            axis.plot((np.arange(len(path)) + 1) * dt, path[:, 0], color=colours(scale(value)), linewidth=1.3)
            axis.plot(len(path) * dt, path[-1, 0], "o", color=colours(scale(value)), markersize=3)
        axis.set_title(shot_title(k, exploration))
        axis.set_xlabel("time in the episode (s)")
    axes[0, 0].set_ylabel("x (m)")
    colour_bar(figure, axes, ScalarMappable(scale, colours), label)
    return figure
