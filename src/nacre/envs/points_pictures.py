"""What points that go to corners draw of their agents: paths, single trials with the walls, where episodes end."""

from typing import Any

import numpy as np

from nacre.envs.animations import Frames, point_robot_frames
from nacre.envs.pictures import Picture, distance_picture, draw_paths, draw_trials
from nacre.plotting import INK


def pictures(evaluation: dict, *, walls: bool = False) -> list[Picture]:
    """Paths [K, N, T, 2] over the goals. walls: tasks [N, 4] name the middles of the gaps too."""
    paths = np.stack([np.asarray(evaluation["info"][name], float) for name in "xy"], axis=-1)
    tasks, exploration = np.asarray(evaluation["tasks"], float), int(evaluation.get("exploration_episodes", 0))
    goals = tasks[:, :2]
    of_one_task = (lambda axis, task: draw_walls(axis, tasks[task, 2:])) if walls else None
    return [
        (
            "Where the agent goes, shot by shot",
            "One line per task, in the colour of its goal: episodes of one trial, before and after adaptation.",
            draw_paths(paths, goals, exploration, None),
        ),
        (
            "Single goals",
            "Episodes of one trial, coloured by shot. Dashed: before the last adaptation; dots: after the first step.",
            draw_trials(paths, goals, exploration, None, ground=of_one_task),
        ),
        distance_picture(paths, goals, exploration),
    ]


def draw_walls(axis: Any, gaps: np.ndarray) -> None:
    """Both circles of one task, without what can be passed. gaps: angles of their middles, rad."""
    from matplotlib.patches import Arc

    from nacre.envs.point_walls import GAP, RADII

    for radius, middle in zip(RADII, np.degrees(gaps), strict=True):
        half = np.degrees(2 * np.arcsin(GAP / (2 * radius)))  # of the gap, seen from the middle
        axis.add_patch(
            Arc((0, 0), 2 * radius, 2 * radius, angle=middle, theta1=half, theta2=360 - half, color=INK, linewidth=1.2)
        )


def frames(trial: dict, *, walls: bool = False) -> Frames:
    """T + 1 frames per episode."""
    task = np.asarray(trial["task"], float)
    ground = (lambda axis: draw_walls(axis, task[2:])) if walls else None
    return point_robot_frames({**trial, "task": task[:2]}, ground=ground)
