"""What a taught student gains over its own noise: states that the teacher visits early and late in training, and learning curves.

python benchmarks/teacher_states.py docs/figures/teacher-pendulum.png TAUGHT ALONE  (run directories of nacre train teacher, the
second with --teacher none, both with the same seeds, on far-goal or pendulum)

States are of 20 episodes from the same starts, shown for TAUGHT's first seed. How wide they lie is told for every seed: on how
many of 20 x 20 cells of the plane, as the exponential of the entropy of a state's cell (all alike: 400; a single one: 1).
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

EPISODES, CELLS = 20, 20
PLANES = {  # family -> observation [..., d] to two numbers, their names, where they may lie
    "far-goal": (lambda obs: (obs[..., 0], obs[..., 1]), ("x", "y"), ((-1, 1), (-1, 1))),
    "pendulum": (
        lambda obs: (np.arctan2(obs[..., 1], obs[..., 0]), obs[..., 2]),
        ("angle (rad), 0 upright", "speed (rad/s)"),
        ((-np.pi, np.pi), (-8, 8)),
    ),
}


class Visits:
    """What a run's teacher and student visit, as they were at a checkpoint."""

    def __init__(self, run: Any):
        self.run, (self.plane, self.names, self.limits) = run, PLANES[run.env_name]
        self.played = jax.jit(self._played, static_argnums=1)

    def _played(self, params: Any, teacher: bool) -> jax.Array:
        algorithm, env, key = self.run.algorithm, self.run.env, jax.random.key(0)
        actor = rollout.Scripted(algorithm.explore, env.spec) if teacher else algorithm
        memory = params if teacher else algorithm.begin(params, key, (1, EPISODES))
        task = jnp.asarray(env.train_tasks)
        data, _ = rollout.episode(env, actor, params, memory, task, key, episodes=EPISODES, explore=teacher)
        return data.obs[0]

    def states(self, seed: int, checkpoint: int, who: str) -> tuple[np.ndarray, np.ndarray]:
        """The two numbers of each state [E, T]."""
        return self.plane(np.asarray(self.played(self.run.params(checkpoint, seed), who == "teacher")))

    def width(self, seed: int, checkpoint: int) -> float:
        """On how many cells the teacher's states lie."""
        x, y = (v.ravel() for v in self.states(seed, checkpoint, "teacher"))
        share = np.histogram2d(x, y, bins=CELLS, range=self.limits)[0].ravel() / x.size
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum()))


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


def draw_curves(axis: Any, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    for one in values:
        axis.plot(steps, one, color=colour, linewidth=0.8, alpha=0.45)
    axis.plot(steps, values.mean(axis=0), color=colour, label=f"{label}, mean of {len(values)} seeds")


def draw_states(axis: Any, visits: Visits, checkpoint: int, who: str) -> None:
    x, y = visits.states(visits.run.seeds[0], checkpoint, who)
    axis.scatter(x, y, s=3, color=SERIES[0 if who == "teacher" else 1], alpha=0.35, linewidth=0, rasterized=True)
    title = f"{who} at {checkpoint / 1000:g}k env steps"
    axis.set(title=title, xlabel=visits.names[0], xlim=visits.limits[0], ylim=visits.limits[1])


@styled
def draw(taught: Any, alone: Any, path: Path) -> None:
    visits = Visits(taught)
    figure, axes = new_figure(2, 4, height=5.6)
    checkpoints = [taught.checkpoints(seed) for seed in taught.seeds]
    first, middle, last = (checkpoints[0][int(i)] for i in np.linspace(0, len(checkpoints[0]) - 1, 3))
    panels = [("teacher", first), ("teacher", middle), ("teacher", last), ("student", last)]
    for axis, (who, checkpoint) in zip(axes[0], panels, strict=True):
        draw_states(axis, visits, checkpoint, who)
    axes[0, 0].set_ylabel(visits.names[1])
    draw_curves(axes[1, 0], *curves(taught, "evaluation", "return/shot_0"), SERIES[0], "teacher")
    draw_curves(axes[1, 0], *curves(alone, "evaluation", "return/shot_0"), SERIES[1], "own noise")
    widths = np.array([[visits.width(s, c) for c in there] for s, there in zip(taught.seeds, checkpoints, strict=True)])
    draw_curves(axes[1, 1], np.array(checkpoints[0]), widths, SERIES[0], "teacher")
    draw_curves(axes[1, 2], *curves(taught, "train", "teacher/std"), SERIES[0], "teacher")
    draw_curves(axes[1, 3], *curves(taught, "train", "meta/reward"), SERIES[0], "teacher")
    axes[1, 3].axhline(0, color=MUTED, linewidth=1)
    what = "return of the student", "cells the teacher visits", "teacher's standard deviation", "meta-reward"
    for axis, name in zip(axes[1], what, strict=True):
        axis.set(ylabel=name, xlabel="env steps")
        thousands(axis.xaxis)
    legend_above(figure, axes[1, 0])
    figure.savefig(path, dpi=110)
    print("cells that the teacher visits, by seed: at", f"{first:,}, {middle:,} and {last:,} env steps")
    for seed, line in zip(taught.seeds, widths, strict=True):
        print(f"  seed {seed}: {line[0]:.0f}, {line[len(line) // 2]:.0f}, {line[-1]:.0f}")


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
