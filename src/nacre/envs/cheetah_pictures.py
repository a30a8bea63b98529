"""Drawings of the half-cheetahs: speeds and directions, asked for and reached."""

import numpy as np

from nacre.envs.pictures import Picture, chosen_shots, shot_axis, shot_title, spread
from nacre.plotting import MUTED, SERIES, legend_above, new_figure, styled, task_colours


def pictures(evaluation: dict, *, dt: float = 0.05, directions: bool = False) -> list[Picture]:
    """Commanded against reached speed. dt: seconds per env step; directions: the task is a direction, not a speed."""
    velocity = np.asarray(evaluation["info"]["velocity"], float)  # [K, N, T] m/s
    tasks, exploration = np.asarray(evaluation["tasks"], float), int(evaluation.get("exploration_episodes", 0))
    first = direction_picture if directions else speed_picture
    return [first(velocity, tasks, exploration), time_picture(velocity, tasks, exploration, dt, directions)]


@styled
def speed_picture(velocity: np.ndarray, tasks: np.ndarray, exploration: int) -> Picture:
    """Scatter of the mean speed over the second half of each episode, one panel per shot."""
    reached = velocity[..., velocity.shape[-1] // 2 :].mean(axis=-1)  # [K, N]
    shots = chosen_shots(len(reached), exploration, 4)
    figure, axes = new_figure(1, len(shots), height=3.5, sharex=True, sharey=True)
    low = min(0.0, np.nanmin(reached), tasks.min()) - 0.15
    high = max(np.nanmax(reached), tasks.max()) + 0.15
    for axis, k in zip(axes[0], shots, strict=True):
        axis.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--", label="reached = commanded")
        axis.scatter(tasks, reached[k], s=26, color=SERIES[0], alpha=0.8, linewidth=0, label="one test task")
        axis.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="commanded speed (m/s)")
        axis.set_title(shot_title(k, exploration))
        error = np.abs(reached[k] - tasks).mean()
        axis.text(0.97, 0.04, f"mean error {error:.2f} m/s", transform=axis.transAxes, ha="right", fontsize=8.5)
    axes[0, 0].set_ylabel("reached speed (m/s)")
    legend_above(figure, axes)
    caption = "Mean speed over the second half of each episode against the hidden target; first repetition."
    return "Commanded and reached speed", caption, figure


@styled
def direction_picture(velocity: np.ndarray, tasks: np.ndarray, exploration: int) -> Picture:
    """Mean velocity per direction and shot."""
    reached = velocity.mean(axis=-1)  # [K, N]
    figure, axes = new_figure(height=3.0)
    axis, x = axes[0, 0], np.arange(len(reached))
    axis.axhline(0, color=MUTED, linewidth=1)
    for k, direction in enumerate(np.unique(tasks)):
        ours = reached[:, tasks == direction]
        label = "must run forward (+1)" if direction > 0 else "must run backward (-1)"
        axis.plot(x, ours.mean(axis=1), color=SERIES[k], marker="v^"[k % 2], markersize=7, label=label)
    shot_axis(axis, len(reached), exploration)
    axis.set_ylabel("mean velocity (m/s)")
    legend_above(figure, axis)
    return "Velocity per direction", "Mean forward velocity of each episode; first repetition.", figure


@styled
def time_picture(velocity: np.ndarray, tasks: np.ndarray, exploration: int, dt: float, directions: bool) -> Picture:
    """Velocity over time within an episode, a panel per shot."""
    shots = chosen_shots(len(velocity), exploration, 4)
    picked = spread(tasks, 6)
    figure, axes = new_figure(1, len(shots), height=3.2, sharex=True, sharey=True)
    width = max(1, round(0.5 / dt))
    kernel = np.ones(width) / width
    scale = (tasks - tasks.min()) / max(np.ptp(tasks), 1e-9)
    for axis, k in zip(axes[0], shots, strict=True):
        for task in picked:
            smooth = np.convolve(velocity[k, task], kernel, mode="valid")
            colour = SERIES[int(tasks[task] > 0)] if directions else task_colours()(scale[task])
            label = f"direction {tasks[task]:+.0f}" if directions else f"target {tasks[task]:.2f} m/s"
            axis.plot((np.arange(len(smooth)) + width / 2) * dt, smooth, color=colour, linewidth=1.5, label=label)
            if not directions:
                axis.axhline(tasks[task], color=colour, linewidth=1, linestyle=":")
        axis.set_title(shot_title(k, exploration))
        axis.set_xlabel("time in the episode (s)")
    axes[0, 0].set_ylabel("velocity (m/s)")
    legend_above(figure, axes)
    dotted = "" if directions else " Dotted: the target."
    return "Velocity within an episode", f"Averaged over half a second; a few test tasks.{dotted}", figure
