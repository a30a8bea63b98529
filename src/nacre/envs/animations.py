"""Moving pictures that belong to a task family: one trial, frame by frame. A family names them as `frames`.

A trial is a dict of NumPy arrays: "task", "returns" [K], "reward" [K, T], "obs" [K, T, d], "valid" [K, T], "info", by
name [K, T, ...], and "exploration_episodes", an int. Frames come as (PIL image, milliseconds to show it).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nacre.envs.pictures import draw_goals, plane, shot_title, window
from nacre.plotting import GRID, INK, SERIES, styled, task_colours, whole_ticks

Frames = Iterator[tuple[Any, int]]
STEP_MS, HOLD_MS = 60, 700  # of point robots: between env steps, after an episode
STRIDE = 2  # env steps per frame of simulated robots


# ------------------------------------------------------------------------------------------------------ point robots


def point_robot_frames(trial: dict, *, radius: float | None = None, ground: Any = None) -> Frames:
    """Frames of each episode until it ends: the goal on what ground(axis) draws, earlier episodes faded, the path so far, the
    returns."""
    xy = np.stack([trial["info"]["x"], trial["info"]["y"]], axis=-1)
    paths = np.concatenate([trial["obs"][:, :1, :2], xy], axis=1).astype(float)  # [K, T + 1, 2]
    goals = np.asarray(trial["task"], float)[None]
    ends = np.asarray(trial.get("valid", trial["reward"] == trial["reward"])).sum(axis=1)  # [K] env steps
    for path, end in zip(paths, ends, strict=True):
        path[end + 1 :] = path[end]

    def beneath(axis: Any) -> None:
        plane(axis, *window(goals, paths))
        axis.set(xlabel="x", ylabel="y")
        draw_goals(axis, goals, SERIES[1], radius)
        if ground:
            ground(axis)

    scene = Scene(paths, trial, beneath)
    for k, last in enumerate(ends):
        scene.begin(k)
        for t in range(last + 1):
            yield scene.frame(k, t), HOLD_MS if t == last else STEP_MS


class Scene:
    """The figure of a trial in the plane: paths [K, T + 1, 2] on what `ground` draws, beside the returns. What stays through an
    episode is drawn once, the rest on top of it."""

    @styled
    def __init__(self, paths: np.ndarray, trial: dict, ground: Callable[[Any], None]):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.paths, self.returns = paths, trial["returns"]
        self.exploration = int(trial["exploration_episodes"])
        self.sums = np.concatenate([np.zeros((len(paths), 1)), np.cumsum(trial["reward"], axis=1)], axis=1)
        self.figure = Figure(figsize=(8.0, 4.4), dpi=90, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.plane = self.figure.add_axes((0.06, 0.1, 0.53, 0.78))
        self.bars = self.figure.add_axes((0.69, 0.1, 0.29, 0.78))
        ground(self.plane)
        self.plane.set_anchor("N")
        self._prepare_bars()
        colours = task_colours()
        self.colours = [colours(k / max(1, len(paths) - 1)) for k in range(len(paths))]
        (self.trail,) = self.plane.plot([], [], linewidth=2.6, animated=True, zorder=5)
        (self.robot,) = self.plane.plot([], [], "o", markersize=9, markeredgecolor=INK, animated=True, zorder=6)
        self.bar = self.bars.bar([0], [0.0], width=0.8, animated=True)[0]
        self.title = self.plane.text(0, 1.04, "", transform=self.plane.transAxes, fontsize=11, animated=True)
        self.note = self.bars.text(0, 1.04, "", transform=self.bars.transAxes, fontsize=11, animated=True)

    def _prepare_bars(self) -> None:
        ends = np.concatenate([self.sums.ravel(), [0.0]])
        margin = 0.05 * max(np.ptp(ends), 1e-3)
        low = ends.min() - margin if ends.min() < 0 else 0.0
        high = ends.max() + margin if ends.max() > 0 else 0.0
        high = high if high > low else 1.0
        self.bars.set(xlim=(-0.6, len(self.paths) - 0.4), ylim=(low, high), xlabel="shot", ylabel="return")
        self.bars.grid(axis="x", visible=False)
        self.bars.axhline(0, color=GRID, linewidth=0.8)
        whole_ticks(self.bars.xaxis)

    @styled
    def begin(self, k: int) -> None:
        """Episode k is next: the ones before it become part of the background."""
        if k:
            colour = self.colours[k - 1]
            self.plane.plot(*self.paths[k - 1].T, color=colour, linewidth=1.2, alpha=0.4, zorder=2)
            self.bars.bar([k - 1], [self.sums[k - 1, -1]], width=0.8, color=colour, alpha=0.75)
        self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(self.figure.bbox)
        self.trail.set_color(self.colours[k])
        self.robot.set_color(self.colours[k])
        self.robot.set_markeredgecolor(INK)
        self.bar.set(x=k - 0.4, color=self.colours[k])

    def frame(self, k: int, t: int) -> Any:
        """After t env steps of episode k."""
        from PIL import Image

        self.canvas.restore_region(self.background)
        self.trail.set_data(*self.paths[k, : t + 1].T)
        self.robot.set_data(*self.paths[k, t : t + 1].T)
        self.bar.set_height(self.sums[k, t])
        self.title.set_text(shot_title(k, self.exploration))
        self.note.set_text(f"step {t}, return {self.sums[k, t]:.1f}".replace("-", "\u2212"))
        for axes, artist in ((self.plane, self.trail), (self.plane, self.robot), (self.bars, self.bar)):
            axes.draw_artist(artist)
        self.plane.draw_artist(self.title)
        self.bars.draw_artist(self.note)
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3].copy())


# ------------------------------------------------------------------------------------------------------ MuJoCo robots


def simulated_frames(trial: dict, family: Any, describe: Any) -> Frames:
    """Every other env step of each episode, rendered by MuJoCo, with a line of text. describe(k, t) -> that text.

    Raises RuntimeError where no OpenGL is available.
    """
    from PIL import Image

    from nacre.envs.backends.mujoco import render_frames

    milliseconds = round(1000 * STRIDE * family.spec.dt)
    for k, poses in enumerate(trial["info"]["qpos"]):
        steps = np.flatnonzero(trial["valid"][k])[::STRIDE]
        for t, pixels in zip(steps, render_frames(family, poses[steps]), strict=True):
            yield captioned(Image.fromarray(pixels), describe(k, int(t))), milliseconds


def captioned(image: Any, text: str) -> Any:
    """The picture above a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    out = Image.new("RGB", (image.width, image.height + 28), "white")
    out.paste(image, (0, 0))
    ImageDraw.Draw(out).text((10, image.height + 6), text, fill="#1c2126", font=ImageFont.load_default(size=14))
    return out


def cheetah_frames(trial: dict, family: Any, *, directions: bool = False) -> Frames:
    """Half-cheetahs: shot, time, velocity and what was asked for."""
    way = "forward" if trial["task"] > 0 else "backward"
    target = f"must run {way}" if directions else f"target {trial['task']:.2f} m/s"
    exploration = int(trial["exploration_episodes"])

    def describe(k: int, t: int) -> str:
        velocity = trial["info"]["velocity"][k, max(0, t - 9) : t + 1].mean()  # over half a second
        time = (t + 1) * family.spec.dt
        return f"{shot_title(k, exploration)}     {time:4.1f} s     {velocity:+.2f} m/s, {target}"

    return simulated_frames(trial, family, describe)


def located_frames(trial: dict, family: Any, asked: str) -> Frames:
    """Other bodies: shot, time, where it is and what was asked for."""
    exploration = int(trial["exploration_episodes"])

    def describe(k: int, t: int) -> str:
        at = ", ".join(f"{name} {trial['info'][name][k, t]:+.2f} m" for name in ("x", "y") if name in trial["info"])
        return f"{shot_title(k, exploration)}     {(t + 1) * family.spec.dt:4.1f} s     {at}; {asked}"

    return simulated_frames(trial, family, describe)
