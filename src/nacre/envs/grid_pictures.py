"""What `grid-navi` draws of its agents: paths, how soon goals are found, and where an agent believes the goal is."""

from typing import Any

import numpy as np

from nacre.envs.pictures import Picture, chosen_shots, resampled, shot_title, spread
from nacre.plotting import GRID, INK, SERIES, colour_bar, legend_above, new_figure, styled

MOST = 6  # goals whose paths are shown
BELIEF = "belief/pays"  # probability of a reward on each cell before each env step, if the agent has one


def grid_pictures(evaluation: dict, size: int) -> list[Picture]:
    """size: cells per side."""
    info, goals = evaluation["info"], np.asarray(evaluation["tasks"], float)
    cells = np.stack([np.asarray(info["x"]), np.asarray(info["y"])], axis=-1).astype(float)  # [K, N, T, 2]
    cells = np.concatenate([np.zeros_like(cells[:, :, :1]), cells], axis=2)  # every episode begins at (0, 0)
    exploration = int(evaluation.get("exploration_episodes", 0))
    there = (cells == goals[:, None]).all(axis=-1)  # [K, N, T + 1]
    pictures = [
        (
            "Where the agent goes, shot by shot",
            "Some goals (stars), from the nearest to the farthest, first repetition. A path ends in a dot; on the goal the agent "
            "should stay.",
            draw_paths(cells, goals, exploration, size),
        ),
        (
            "How soon goals are found",
            "Share of the goals that were reached by then, per env step of each shot, first repetition. Dashed: a policy "
            "that knows the goal.",
            draw_found(there, goals),
        ),
    ]
    if BELIEF in info:
        belief = np.asarray(info[BELIEF], float)  # [K, N, T, cells]
        task = int(spread(goals.sum(axis=-1), 5)[-2:][0])  # a far one
        pictures.insert(
            0,
            (
                "Where the agent believes the goal is, step by step",
                "One goal (star): a row per shot, a column per env step. The darker a cell, the more probable a reward there by "
                "the agent's own reward decoder; the line is the path until then.",
                draw_belief(belief[:, task], cells[:, task], goals[task], size),
            ),
        )
    return pictures


def board(axis: Any, size: int) -> None:
    axis.set(xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5), aspect="equal", xticks=[], yticks=[])
    axis.grid(False)
    for i in range(1, size):
        axis.axvline(i - 0.5, color=GRID, linewidth=0.6)
        axis.axhline(i - 0.5, color=GRID, linewidth=0.6)


@styled
def draw_belief(belief: np.ndarray, cells: np.ndarray, goal: np.ndarray, size: int) -> Any:
    """belief [K, T, cells], the cells x by x; cells [K, T + 1, 2]."""
    shots = chosen_shots(len(belief), 1, 4)
    steps = np.unique(np.linspace(0, belief.shape[1] - 1, min(8, belief.shape[1])).round().astype(int))
    figure, axes = new_figure(len(shots), len(steps), height=len(shots) * 1.25 + 0.5)
    for row, k in enumerate(shots):
        for column, t in enumerate(steps):
            axis = axes[row, column]
            image = axis.imshow(belief[k, t].reshape(size, size).T, origin="lower", cmap="Blues", vmin=0.0, vmax=1.0)
            board(axis, size)
            axis.plot(*cells[k, : t + 1].T, color=SERIES[1], linewidth=1.4)
            axis.plot(*cells[k, t], "o", color=SERIES[1], markersize=5)
            axis.plot(*goal, "*", color="#ffd54a", markeredgecolor=INK, markersize=10)
            if row == 0:
                axis.set_title(f"step {t}", fontsize=8.5)
            if column == 0:
                axis.set_ylabel(f"shot {k}")
    colour_bar(figure, axes, image, "probability of a reward")
    return figure


@styled
def draw_paths(cells: np.ndarray, goals: np.ndarray, exploration: int, size: int) -> Any:
    """Rows: shots; columns: goals."""
    shots = chosen_shots(len(cells), exploration, 4)
    picked = spread(goals.sum(axis=-1) + 1e-3 * goals[:, 0], MOST)
    figure, axes = new_figure(len(shots), len(picked), height=len(shots) * 1.6 + 0.3)
    for row, k in enumerate(shots):
        for column, i in enumerate(picked):
            axis, path = axes[row, column], cells[k, i]
            board(axis, size)
            steps = np.arange(len(path)) / max(len(path) - 1, 1)
            shift = (0.24 * (steps - 0.5))[:, None]  # so that ways there and back lie beside each other
            axis.plot(*(path + shift).T, color=SERIES[0], linewidth=1.4)
            axis.plot(*(path[-1] + shift[-1]), "o", color=SERIES[0], markersize=5)
            axis.plot(*goals[i], "*", color="#ffd54a", markeredgecolor=INK, markersize=10)
            if column == 0:
                axis.set_title(shot_title(k, exploration), fontsize=8.5)
    return figure


@styled
def draw_found(there: np.ndarray, goals: np.ndarray) -> Any:
    """there [K, N, T + 1]: on the goal before env step t."""
    figure, axes = new_figure(height=3.2)
    axis, found = axes[0, 0], np.maximum.accumulate(there, axis=-1)
    for k in chosen_shots(len(found), 1, 4):
        x = np.arange(found.shape[-1])
        low, high = resampled(found[k].astype(float))
        axis.fill_between(x, low, high, color=SERIES[k % len(SERIES)], alpha=0.15, linewidth=0)
        axis.plot(x, found[k].mean(axis=0), color=SERIES[k % len(SERIES)], label=f"shot {k}")
    distance = goals.sum(axis=-1)
    axis.plot(x, (distance[:, None] <= x).mean(axis=0), color=INK, linestyle="--", label="knows the goal")
    axis.set(xlabel="env step", ylabel="share of goals reached", ylim=(0, 1.03))
    legend_above(figure, axis)
    return figure
