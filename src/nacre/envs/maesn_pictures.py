"""Drawings of MAESN's families: paths to hidden goals and the zones around them in which the sparse reward says more. See
`pictures.py` for what an evaluation is."""

from typing import Any

import numpy as np

from nacre.envs.locomotion_pictures import exploration_of, tracks
from nacre.envs.pictures import Picture, chosen_shots, draw_goals, found_picture, shot_title
from nacre.plotting import colour_bar, new_figure, styled, task_colours, task_scale

MARGIN = 0.15  # m around what is drawn


def zone_pictures(
    evaluation: dict, goals: np.ndarray, starts: np.ndarray, radius: float, axis: tuple[str, np.ndarray]
) -> list[Picture]:
    """goals, starts [N, 2] in m; radius of the zones in m; axis: what tells tasks apart, and its values [N]; info has x, y."""
    exploration = exploration_of(evaluation)
    paths = [
        [np.concatenate([start[None], path]) for start, path in zip(starts, shot, strict=True)]
        for shot in tracks(evaluation, "xy")
    ]
    return [
        (
            "Where it goes, shot by shot",
            "Seen from above, one line per test task from start to end of its episode; a dot in the line's colour is the hidden "
            f"goal, the disc around it the zone of {radius:g} m in which the sparse reward tells the distance. First repetition.",
            draw_zones(paths, goals, radius, axis, exploration),
        ),
        found_picture(evaluation, exploration),
    ]


@styled
def draw_zones(paths: list, goals: np.ndarray, radius: float, told: tuple[str, np.ndarray], exploration: int) -> Any:
    """Small multiples over shots: the paths [K][N] of all tasks."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection

    shots = chosen_shots(len(paths), exploration, 4)
    points = np.concatenate([goals, *(path for k in shots for path in paths[k])])
    low, high = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
    width = 7.4 / len(shots)  # inches of a panel
    figure, axes = new_figure(
        1, len(shots), height=width * (high[1] - low[1]) / (high[0] - low[0]) + 0.8, sharex=True, sharey=True
    )
    label, values = told
    scale, colour_map = task_scale(values), task_colours()
    colours = colour_map(scale(values))
    for axis, k in zip(axes[0], shots, strict=True):
        draw_goals(axis, goals, colours, radius)
        axis.add_collection(LineCollection(paths[k], colors=colours, linewidths=1.3, alpha=0.9, zorder=3))
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xlabel="x (m)")
        axis.set_title(shot_title(k, exploration))
        axis.grid(False)
    axes[0, 0].set_ylabel("y (m)")
    colour_bar(figure, axes, ScalarMappable(scale, colour_map), label)
    return figure
