"""A trial of a trained agent as an animation: `nacre watch RUN`.

What a frame shows is the family's (its methods `frames` and `recording`, see nacre.envs.animations); here the trial is
run and the GIF written.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nacre import rollout
from nacre._errors import UserError
from nacre._files import whole_file
from nacre.agent import Agent, load
from nacre.evaluate import evaluation_key
from nacre.types import exploration_episodes, take_tasks, task_count, trial_episodes


def watch(
    run: str | Path, out: str | Path | None = None, *, task: int | None = None, episodes: int | None = None,
    checkpoint: int | None = None, seed: int = 0, family: Any = None,
) -> Path:  # fmt: skip
    """Write an animation (GIF) of one trial on a test task and return its path.

    run: a run directory, or seed-<n> in it. out: the file; None: trial-<task>.gif in the run. task: index of the test
    task; None: 0. episodes: of the trial; None: the family's published protocol. checkpoint, family: as in nacre.load.
    seed: of the trial. Raises UserError for what cannot be: a family without an animation, a task it does not have, no
    OpenGL.
    """
    choose_graphics()
    agent = load(run, checkpoint, family=family)
    task, episodes = checked(agent, task, episodes)
    out = agent.path / f"trial-{task}.gif" if out is None else Path(out).expanduser()
    if out.suffix.lower() != ".gif":
        raise UserError(f"animations are GIF files: expected a path that ends in .gif, got {out}")
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: there is no directory {out.parent}")
    env = agent.env.recording() if hasattr(agent.env, "recording") else agent.env
    refuse_without_graphics(env)
    frames = env.frames(play(agent, env, task, episodes, seed))
    return write_gif(frames, out)


def choose_graphics() -> None:
    """On Linux without a display, let MuJoCo draw with the first of EGL and OSMesa that works, unless MUJOCO_GL says
    what to take. MuJoCo reads it when it is imported."""
    display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"))
    if display or sys.platform != "linux" or "mujoco" in sys.modules:
        return
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if find_library(library) and draws(name):
            os.environ["MUJOCO_GL"] = name
            return


def draws(name: str) -> bool:
    """Whether MuJoCo can open a context of this kind; tried in a process of its own, as it may end the process."""
    program = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    try:
        tried = subprocess.run([sys.executable, "-c", program], env={**os.environ, "MUJOCO_GL": name},
                               capture_output=True, timeout=60)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def checked(agent: Agent, task: int | None, episodes: int | None) -> tuple[int, int]:
    """The task and the number of episodes, if the family can show them."""
    if not hasattr(agent.env, "frames"):
        raise UserError(
            f"{agent.env_name} brings no animation; a family that can be watched has a method frames(trial), as the "
            "point robots and the cheetahs have (nacre.envs.animations)"
        )
    task, n = 0 if task is None else task, task_count(agent.env.test_tasks)
    if not 0 <= task < n:
        raise UserError(f"task must be the index of a test task, 0 to {n - 1}, got {task}")
    episodes = trial_episodes(agent.algorithm) if episodes is None else episodes
    if episodes < 1:
        raise UserError(f"episodes must be at least 1, got {episodes}")
    return task, episodes


def refuse_without_graphics(env: Any) -> None:
    """Raise UserError, before a trial is run, where frames need OpenGL and there is none."""
    if hasattr(env, "physics"):
        from nacre.envs.backends.mujoco import render_frames

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GLFW warns of what the error says
                render_frames(env, env.physics.model.qpos0[None], width=8, height=8)
        except RuntimeError as error:
            raise UserError(str(error)) from error


def play(agent: Agent, env: Any, task: int, episodes: int, seed: int) -> dict[str, Any]:
    """One trial as the frames of a family take it; NumPy."""
    tasks = take_tasks(jax.tree.map(np.asarray, env.test_tasks), np.array([task]))
    key = evaluation_key(seed)
    data, _ = rollout.trial(env, agent.algorithm, agent.params, tasks, key, episodes=episodes)  # [K, 1, 1, T]
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0, 0], data._replace(extras=()))
    reward = data.reward * data.valid
    return {
        "task": jax.tree.map(lambda leaf: leaf[0], tasks),
        "returns": reward.sum(axis=-1),
        "reward": reward,
        "obs": data.obs,
        "valid": data.valid,
        "info": data.info,
        "exploration_episodes": exploration_episodes(agent.algorithm),
    }


def write_gif(frames: Iterable[tuple[Any, int]], out: Path) -> Path:
    """Frames (PIL image, milliseconds) -> an endless GIF, whole or not at all."""
    from PIL import Image

    images, times = [], []
    for image, milliseconds in frames:
        images.append(image.quantize(colors=256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
        times.append(milliseconds)
    try:
        with whole_file(out) as file:
            images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=times, loop=0)
    except OSError as error:
        raise UserError(f"cannot write the animation to {out}: {error.strerror or error}") from error
    return out
