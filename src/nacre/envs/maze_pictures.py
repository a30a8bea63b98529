"""Drawings of mazes: where the agent goes, episode by episode, and how many env steps it takes beside the shortest way. See
`pictures.py` for what an evaluation is, `animations.py` for a trial."""

import math
from typing import Any

import numpy as np

from nacre.envs import maze
from nacre.envs.animations import HOLD_MS, Frames, Scene
from nacre.envs.pictures import Picture, chosen_shots, resampled, shot_axis, spread
from nacre.plotting import INK, MUTED, SERIES, colour_bar, legend_above, new_figure, styled, task_colours

STEP_MS = 90  # between env steps
ASIDE = 0.13  # cells: paths keep to the right, so that the way there and the way back are two lines


def tasks_of(evaluation: dict) -> maze.Task:
    """The tasks of an evaluation, a Task or a dict of its arrays."""
    tasks = evaluation["tasks"]
    return maze.Task(**tasks) if isinstance(tasks, dict) else maze.Task(*tasks)


def path_ratio(evaluation: dict) -> np.ndarray:
    """Env steps of each episode over those of the shortest way, [R, N, K]: 1 is as short as can be. NaN where the target was not
    reached. evaluation: "lengths" and "success" [R, N, K], "tasks", as nacre.evaluate.Shots has them."""
    ratio = np.asarray(evaluation["lengths"]) / maze.shortest(tasks_of(evaluation))[:, None]
    return np.where(evaluation["success"], ratio, np.nan)


def pictures(evaluation: dict) -> list[Picture]:
    return [paths_picture(evaluation), steps_picture(evaluation)]


def position(cell: Any, size: int) -> np.ndarray:
    """(x, y) of cells, [..., 2]."""
    return np.stack([np.asarray(cell) % size, np.asarray(cell) // size], axis=-1).astype(float)


def walked(start: np.ndarray, x: np.ndarray, y: np.ndarray, length: int) -> np.ndarray:
    """Positions of an episode [length + 1, 2], the start first."""
    return np.concatenate([start[None], np.stack([x, y], axis=-1)[:length]]).astype(float)


def on_the_right(path: np.ndarray) -> np.ndarray:
    """The same path, each move a little to the right of the middle. Bumps are left out."""
    moves = np.diff(path, axis=0)
    moved = np.abs(moves).sum(axis=1) > 0
    aside = ASIDE * np.stack([moves[:, 1], -moves[:, 0]], axis=-1)
    ends = np.stack([path[:-1] + aside, path[1:] + aside], axis=1)[moved]  # [moves, 2, 2]
    return ends.reshape(-1, 2)


def draw_maze(axis: Any, passages: np.ndarray, start: np.ndarray, target: np.ndarray) -> None:
    """Walls, the target as a star, the start as a ring; passages [cells, 4]."""
    from matplotlib.collections import LineCollection

    size = math.isqrt(len(passages))
    walls = set()
    for cell, side in np.argwhere(~np.asarray(passages, bool)):
        (x, y), (dx, dy) = position(cell, size), maze.MOVES[side]
        middle, half = np.array([x + dx / 2, y + dy / 2]), np.array([abs(dy), abs(dx)]) / 2
        walls.add((tuple(middle - half), tuple(middle + half)))
    axis.add_collection(LineCollection(sorted(walls), colors=MUTED, linewidths=1.6, capstyle="round", zorder=2))
    axis.scatter(*start, s=34, facecolor="none", edgecolor=INK, linewidth=1.0, zorder=5)
    axis.scatter(*target, s=70, marker="*", color=SERIES[1], edgecolor=INK, linewidth=0.5, zorder=5)
    axis.set(xlim=(-0.6, size - 0.4), ylim=(-0.6, size - 0.4), aspect="equal")
    ticks = np.unique([0, (size - 1) // 2, size - 1])
    axis.xaxis.set_ticks(ticks)
    axis.yaxis.set_ticks(ticks)
    axis.grid(False)
    axis.spines[["left", "bottom"]].set_visible(False)


@styled
def paths_picture(evaluation: dict) -> Picture:
    """Small multiples: mazes side by side, shots below each other."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    tasks = tasks_of(evaluation)
    size, lengths = math.isqrt(np.shape(tasks.passages)[1]), np.asarray(evaluation["lengths"], int)[0]
    x, y = (np.asarray(evaluation["info"][name]) for name in "xy")  # [K, N, T]
    best, found = maze.shortest(tasks), np.asarray(evaluation["info"]["success"]).any(axis=-1)
    shots, shown = chosen_shots(len(x), int(evaluation.get("exploration_episodes", 0)), 4), spread(best, 5)
    figure, axes = new_figure(len(shots), len(shown), height=8.8 / len(shown) * len(shots) + 0.6,
                              sharex=True, sharey=True)  # fmt: skip
    scale = Normalize(0, max(2, lengths[np.ix_(shown, shots)].max()))
    for axis, k, n in ((axes[i, j], k, n) for i, k in enumerate(shots) for j, n in enumerate(shown)):
        start, length = position(tasks.start[n], size), int(lengths[n, k])
        draw_maze(axis, np.asarray(tasks.passages)[n], start, position(tasks.target[n], size))
        way = on_the_right(walked(start, x[k, n], y[k, n], length))
        lines = LineCollection(
            np.stack([way[:-1], way[1:]], axis=1) if len(way) else [], cmap=task_colours(), norm=scale, linewidths=1.5
        )
        lines.set_array(np.linspace(0, length, max(0, len(way) - 1)))
        axis.add_collection(lines)
        end = f"{length} steps" if found[k, n] else "not found"
        axis.set_title(f"shortest way: {best[n]}\n" * (k == shots[0]) + f"shot {k}: {end}", fontsize=8.5)
    for axis in axes[:, 0]:
        axis.set_ylabel("y (cells)")
    for axis in axes[-1]:
        axis.set_xlabel("x (cells)")
    colour_bar(figure, axes, ScalarMappable(scale, task_colours()), "env step of the episode")
    caption = (
        "Held-out mazes side by side, from a near target to a far one; the episodes of a trial below each other. Ring: start, "
        "star: target. Paths keep to the right, so a dead end shows two lines; an agent that remembers has one, from ring to star."
    )
    return "The way through single mazes", caption, figure


@styled
def steps_picture(evaluation: dict) -> Picture:
    """Env steps per shot beside the shortest way."""
    lengths = np.asarray(evaluation["lengths"], float).mean(axis=0)  # [N, K]
    best = maze.shortest(tasks_of(evaluation)).mean()
    figure, axes = new_figure(height=3.2)
    axis, shots = axes[0, 0], np.arange(lengths.shape[1])
    axis.fill_between(shots, *resampled(lengths), color=SERIES[0], alpha=0.18, linewidth=0)
    axis.plot(shots, lengths.mean(axis=0), color=SERIES[0], marker="o", markersize=4, label="the agent")
    axis.axhline(best, color=MUTED, linestyle="--", label="the shortest way")
    shot_axis(axis, len(shots), int(evaluation.get("exploration_episodes", 0)))
    axis.set(ylim=(0, None), ylabel="env steps of an episode")
    legend_above(figure, axis)
    caption = (
        "Mean env steps to the target on held-out mazes; an episode that does not find it counts with its horizon. Band: 95 % "
        "bootstrap over mazes."
    )
    return "Steps to the target", caption, figure


def frames(trial: dict) -> Frames:
    """A frame per env step: the maze, earlier episodes faded, the path so far, the returns."""
    task = trial["task"]
    size, lengths = math.isqrt(len(task.passages)), np.asarray(trial["valid"]).sum(axis=-1)
    start = position(task.start, size)
    longest = int(lengths.max())
    walks = [walked(start, *xy, n) for *xy, n in zip(trial["info"]["x"], trial["info"]["y"], lengths, strict=True)]
    paths = np.stack([np.pad(walk, ((0, longest + 1 - len(walk)), (0, 0)), mode="edge") for walk in walks])

    def ground(axis: Any) -> None:
        draw_maze(axis, task.passages, start, position(task.target, size))
        axis.set(xlabel="x (cells)", ylabel="y (cells)")

    scene = Scene(paths, trial, ground)
    for k, length in enumerate(lengths):
        scene.begin(k)
        for t in range(length + 1):
            yield scene.frame(k, t), HOLD_MS if t == length else STEP_MS
