"""What a taught student gains over its own noise: states that the teacher visits early and late in training, and learning curves.

python benchmarks/teacher_states.py docs/figures/teacher-pendulum.png TAUGHT ALONE  (run directories of nacre train teacher, the
second with --teacher none, both with the same seeds, on far-goal or pendulum; the states are those of TAUGHT's first seed)
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nacre
from nacre import rollout
from nacre.plotting import MUTED, SERIES, legend_above, new_figure, styled, thousands

EPISODES = 20
PLANES = {  # family -> observation [..., d] to two numbers, and their names
    "far-goal": (lambda obs: (obs[..., 0], obs[..., 1]), ("x", "y")),
    "pendulum": (
        lambda obs: (np.arctan2(obs[..., 1], obs[..., 0]), obs[..., 2]),
        ("angle (rad), 0 upright", "speed (rad/s)"),
    ),
}


def visited(run: Any, checkpoint: int, who: str) -> np.ndarray:
    """Observations [E, T, d] of the teacher or the student as they were at a checkpoint; each from the same starts."""
    algorithm, env = run.algorithm, run.env
    params = run.params(checkpoint, run.seeds[0])
    key, task = jax.random.key(0), jnp.asarray(env.train_tasks)
    actor = rollout.Scripted(algorithm.explore, env.spec) if who == "teacher" else algorithm
    memory = params if who == "teacher" else algorithm.begin(params, key, (1, EPISODES))
    act = jax.jit(
        lambda: rollout.episode(env, actor, params, memory, task, key, episodes=EPISODES, explore=who == "teacher")
    )
    return np.asarray(act()[0].obs[0])


def curves(run: Any, kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Env steps [n], and a metric per seed [S, n]."""
    found = []
    for seed in run.seeds:
        lines = (run.seed_dir(seed) / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found.append(
            [(r["env_steps"], r["metrics"][name]) for r in records if r["kind"] == kind and name in r["metrics"]]
        )
    n = min(map(len, found))
    return np.array(found[0][:n])[:, 0], np.array([values[:n] for values in found])[..., 1]


def draw_curves(axis: Any, run: Any, kind: str, name: str, colour: str, label: str) -> None:
    steps, values = curves(run, kind, name)
    for one in values:
        axis.plot(steps, one, color=colour, linewidth=0.8, alpha=0.45)
    axis.plot(steps, values.mean(axis=0), color=colour, label=f"{label}, mean of {len(values)} seeds")


@styled
def draw(taught: Any, alone: Any, path: Path) -> None:
    plane, names = PLANES[taught.env_name]
    figure, axes = new_figure(2, 3, height=5.6)
    checkpoints = taught.checkpoints(taught.seeds[0])
    early, late = checkpoints[1], checkpoints[-1]
    panels = [("teacher", early), ("teacher", late), ("student", late)]
    for axis, (who, checkpoint) in zip(axes[0], panels, strict=True):
        x, y = plane(visited(taught, checkpoint, who))
        axis.scatter(x, y, s=3, color=SERIES[0 if who == "teacher" else 1], alpha=0.35, linewidth=0, rasterized=True)
        axis.set(title=f"{who} at {checkpoint:,} env steps", xlabel=names[0])
        spread = np.sqrt(np.var(x) + np.var(y))
        axis.text(0.03, 0.97, f"spread {spread:.2f}", transform=axis.transAxes, va="top", fontsize=8.5)
    axes[0, 0].set_ylabel(names[1])
    limits = np.array([axis.axis() for axis in axes[0]])
    low, high = limits.min(axis=0), limits.max(axis=0)
    for axis in axes[0]:
        axis.set(xlim=(low[0], high[1]), ylim=(low[2], high[3]))
    draw_curves(axes[1, 0], taught, "evaluation", "return/shot_0", SERIES[0], "teacher")
    draw_curves(axes[1, 0], alone, "evaluation", "return/shot_0", SERIES[1], "own noise")
    axes[1, 0].set_ylabel("return of the student")
    draw_curves(axes[1, 1], taught, "train", "teacher/std", SERIES[0], "teacher")
    axes[1, 1].set_ylabel("teacher's standard deviation")
    draw_curves(axes[1, 2], taught, "train", "meta/reward", SERIES[0], "teacher")
    axes[1, 2].axhline(0, color=MUTED, linewidth=1)
    axes[1, 2].set_ylabel("meta-reward")
    for axis in axes[1]:
        axis.set_xlabel("env steps")
        thousands(axis.xaxis)
    legend_above(figure, axes[1, 0])
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("taught", type=Path, help="run directory of nacre train teacher")
    parser.add_argument("alone", type=Path, help="the same with --teacher none")
    args = parser.parse_args()
    runs = nacre.open_run(args.taught), nacre.open_run(args.alone)
    if runs[0].env_name not in PLANES:
        parser.error(f"{args.taught} was trained on {runs[0].env_name}; expected one of {', '.join(PLANES)}")
    draw(*runs, args.out)


if __name__ == "__main__":
    main()
