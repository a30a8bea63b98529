"""docs/figures/maesn.png: MAESN's three families, each in the middle of an episode and from above: hidden goals, the zones in which
the sparse reward tells the distance, and paths of the scripted players (of an ant with random torques). Needs OpenGL.

MUJOCO_GL=egl python benchmarks/maesn_figure.py docs/figures/maesn.png
"""

import sys

import jax
import numpy as np
from matplotlib.collections import LineCollection

from nacre.envs.backends.mujoco import render_frames
from nacre.envs.block_push import chosen
from nacre.envs.pictures import draw_goals
from nacre.envs.registry import make_family
from nacre.plotting import new_figure, styled, task_colours

SHOWN = {"wheeled-robot": 60, "block-push": 62, "ant-ring": 30}  # the env step that is rendered


def played(name: str) -> tuple:
    """An episode of each test task: the family, poses [T, N, nq], places of what must come to the goal [T + 1, N, 2]."""
    env = make_family(name, record_qpos=True)
    tasks = env.test_tasks
    state, obs = env.reset(jax.random.key(0), tasks)
    places = [chosen(tasks, tasks[:, 3:]) if name == "block-push" else np.zeros((len(tasks), 2))]
    rng, high, poses = np.random.default_rng(0), np.array(env.spec.action.high), []
    for t in range(env.spec.horizon):
        action = env.oracle(tasks, obs, t)
        action = rng.uniform(-high, high, (len(tasks), len(high))) if action is None else action
        state, out = env.step(state, action, np.ones(len(tasks), bool))
        obs = out.obs
        poses.append(out.info["qpos"])
        places.append(np.stack([out.info["x"], out.info["y"]], axis=-1))
    return env, np.array(poses), np.array(places)


@styled
def figure() -> object:
    picture, axes = new_figure(2, 3, height=5.4)
    for k, (name, step) in enumerate(SHOWN.items()):
        env, poses, places = played(name)
        _, values = env.task_axis(env.test_tasks)
        row = int(np.argsort(values)[len(values) // 3])
        above, below = axes[:, k]
        above.imshow(render_frames(env, poses[step : step + 1, row], 480, 360)[0])
        above.set_axis_off()
        above.set_title(name)
        goals = env.test_tasks[:, 1:3] if name == "block-push" else env.test_tasks
        colours = task_colours()((values - values.min()) / np.ptp(values))
        draw_goals(below, goals, colours, env.radius)
        below.add_collection(LineCollection(list(places.swapaxes(0, 1)), colors=colours, linewidths=1.2, zorder=3))
        points = np.concatenate([goals, places.reshape(-1, 2)])
        low, high = points.min(axis=0) - env.radius - 0.05, points.max(axis=0) + env.radius + 0.05
        below.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xlabel="x (m)")
        below.grid(False)
    axes[1, 0].set_ylabel("y (m)")
    return picture


if __name__ == "__main__":
    figure().savefig(sys.argv[1], dpi=110)
