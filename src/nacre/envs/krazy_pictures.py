"""What `krazy-world` draws of its agents: boards with the path of each episode, and the goals collected per shot."""

from typing import Any

import numpy as np

from nacre.envs import krazy_boards as boards
from nacre.envs.pictures import Picture, resampled, shot_axis, spread
from nacre.plotting import GRID, INK, SERIES, legend_above, new_figure, shot_bar, shot_colours, styled

# softer than the public code's colours, so that paths stay visible; in the order of the tile types
PAINT = ("#3d4148", "#fbfbf9", "#ffd54a", "#0072b2", "#f2a15f", "#b4b8bd", "#e08bd8", "#e2605a", "#b3a6ea", "#7ccb86")
MOST = 6  # boards shown


def krazy_pictures(evaluation: dict, family: Any) -> list[Picture]:
    """family: the KrazyWorld whose evaluation it is."""
    info, tasks = evaluation["info"], evaluation["tasks"]
    tasks = boards.Board(**tasks) if isinstance(tasks, dict) else tasks
    collected = np.asarray(info["goals"]).max(axis=-1) / family.goals  # [K, N] share; what is after the end is zero
    cells = np.stack([np.asarray(info["x"]), np.asarray(info["y"])], axis=-1).astype(float)  # [K, N, T, 2]
    lengths = np.asarray(evaluation["lengths"])[0].T  # [K, N] of the first repetition, as info
    starts = None if family.start == "random" else np.stack(np.divmod(tasks.start, family.size)[::-1], axis=-1)
    picked = spread(collected[-1] + 1e-6 * np.arange(collected.shape[1]), MOST)
    paths = [[path_of(cells[k, i, : lengths[k, i]], starts, i) for k in range(len(cells))] for i in picked]
    exploration = int(evaluation.get("exploration_episodes", 0))
    return [
        (
            "Boards, and where the agent goes",
            "Held-out boards, from the fewest goals collected in the last episode to the most; the line of each episode is "
            "coloured by shot and ends in a dot. Lines cross several tiles at once where the agent slides or is transported.",
            draw_boards(np.asarray(tasks.tiles)[picked], paths, collected[:, picked], family.size),
        ),
        (
            "Goals collected",
            "Mean over held-out boards, first repetition. Bands: 95 % bootstrap over boards.",
            draw_collected(collected, exploration),
        ),
    ]


def path_of(cells: np.ndarray, starts: np.ndarray | None, i: int) -> np.ndarray:
    """Places [steps, 2] of one episode, with the start where it is known."""
    return cells if starts is None else np.concatenate([starts[i][None], cells])


@styled
def draw_boards(tiles: np.ndarray, paths: list, collected: np.ndarray, size: int) -> Any:
    """tiles [N, cells], paths N lists of K paths [steps, 2], collected [K, N]."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    count, shots = len(tiles), len(collected)
    columns = min(3, count)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, height=rows * min(8.6 / columns, 3.4) + 0.7)
    scale, colour_map = shot_colours(shots)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    shifts = np.linspace(-0.2, 0.2, shots) if shots > 1 else np.zeros(1)  # so that episodes lie beside each other
    for axis, board, of_board, share in zip(axes.flat, tiles, paths, collected.T, strict=False):
        axis.pcolormesh(np.arange(size + 1) - 0.5, np.arange(size + 1) - 0.5, board.reshape(size, size), vmin=-0.5, vmax=9.5,
                        cmap=ListedColormap(PAINT), edgecolors=GRID, linewidth=0.5)  # fmt: skip
        for k, path in enumerate(of_board):
            colour = colour_map(scale(k))
            axis.plot(*(path + shifts[k]).T, color=colour, linewidth=1.8, zorder=3)
            axis.plot(*(path[-1] + shifts[k]), "o", color=colour, markersize=5, markeredgecolor=INK, zorder=4)
        axis.plot(*of_board[0][0], "D", color="white", markersize=5, markeredgecolor=INK, zorder=5)
        axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
        axis.set_title("goals: " + ", ".join(f"{value:.0%}" for value in share[:6]))
        axis.grid(False)
    seen = [code for code in np.unique(tiles) if code != boards.NORMAL]
    handles = [Patch(facecolor=PAINT[code], edgecolor=GRID, label=boards.TILES[code]) for code in seen]
    figure.legend(handles=handles, loc="outside upper left", ncols=8, handlelength=1.2, columnspacing=1.4)
    shot_bar(figure, axes, shots, "shot (diamond: the start)")
    return figure


@styled
def draw_collected(collected: np.ndarray, exploration: int) -> Any:
    """Share of the goals [K, N] per shot, and of the boards on which all are collected."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = new_figure(height=3.2)
    axis, x = axes[0, 0], np.arange(len(collected))
    for k, (values, label) in enumerate(((collected, "goals collected"), (collected == 1, "boards with all goals"))):
        per_board = values.T.astype(float)  # [N, K]
        axis.fill_between(x, *resampled(per_board), color=SERIES[k], alpha=0.18, linewidth=0)
        axis.plot(x, per_board.mean(axis=0), color=SERIES[k], marker="os"[k], markersize=5, label=label)
    shot_axis(axis, len(x), exploration)
    axis.set(ylim=(0, 1.03), ylabel="share")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_above(figure, axis)
    return figure
