"""Finding a goal on a half circle that pays only near it: PEARL, MAESN, ProMP and MAML side by side. Trains what is not there yet,
draws paths before and after adaptation and the returns of the trial's episodes, and prints a table.

python benchmarks/half_circle.py docs/figures/half-circle.png --runs runs/half-circle --seeds 0 1 2

Curves of the runs are kept by `python benchmarks/keep_result.py RUN NAME`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from nacre.evaluate import load_evaluation
from nacre.plotting import GRID, MUTED, SERIES, new_figure, styled
from nacre.stats import interval

FAMILY, RADIUS = "sparse-point-robot", 0.2
AGENTS = {"pearl": "PEARL", "maesn": "MAESN", "promp": "ProMP", "maml": "MAML"}
SHOWN = 5  # goals whose paths are drawn
LAST = 5  # episodes drawn after adaptation


def trained(name: str, seed: int, runs: Path) -> Path:
    """The run directory, trained to its end and measured."""
    out = runs / f"{name}-seed-{seed}"
    if not (out / "result.json").exists():
        how = ["--resume", out] if (out / "config.json").exists() else [name, FAMILY, "--seed", seed, "--out", out]
        subprocess.run([sys.executable, "-m", "nacre", "train", *map(str, how)], check=True)
    return out


def measured(out: Path) -> dict:
    """The last evaluation's paths, and the final result."""
    arrays = load_evaluation(max((out / "evaluations").glob("*.npz"), key=lambda p: int(p.stem)))
    result = json.loads((out / "result.json").read_text())
    config = json.loads((out / "config.json").read_text())
    xy = np.stack([arrays["info/x"], arrays["info/y"]], axis=-1)  # [K, N, T, 2]
    goals = next(value for key, value in arrays.items() if key == "tasks" or key.startswith("tasks/"))
    first_round = config["config"].get("episodes_per_step", config["exploration_episodes"])
    return {
        "paths": xy, "goals": goals, "before": first_round, "env_steps": result["env_steps"],
        "per_task": np.asarray(result["per_task"]), "references": result["references"],
    }  # fmt: skip


def draw_paths(axis, paths: np.ndarray, goals: np.ndarray) -> None:
    """paths [K, N, T, 2] of N goals."""
    from matplotlib.patches import Circle

    angle = np.linspace(0, np.pi, 100)
    axis.plot(np.cos(angle), np.sin(angle), color=GRID, linewidth=1, zorder=0)
    for n, goal in enumerate(goals):
        colour = SERIES[n % len(SERIES)]
        axis.add_patch(Circle(goal, RADIUS, color=colour, alpha=0.25, linewidth=0))
        for path in paths[:, n]:
            whole = np.concatenate([[[0.0, 0.0]], path])
            axis.plot(whole[:, 0], whole[:, 1], color=colour, linewidth=0.7, alpha=0.7)
    axis.set(xlim=(-1.45, 1.45), ylim=(-0.5, 1.45), aspect="equal", xticks=[-1, 0, 1], yticks=[0, 1])
    axis.grid(False)


@styled
def draw(found: dict[str, list[dict]], path: Path) -> None:
    figure, axes = new_figure(3, len(found), height=5.6, gridspec_kw={"height_ratios": [1, 1, 1.5]})
    for (name, seeds), before, after in zip(found.items(), axes[0], axes[1], strict=True):
        first = seeds[0]
        order = np.argsort(np.arctan2(first["goals"][:, 1], first["goals"][:, 0]))
        shown = order[np.linspace(0, len(order) - 1, SHOWN + 2).astype(int)[1:-1]]
        draw_paths(before, first["paths"][: min(first["before"], 20)][:, shown], first["goals"][shown])
        draw_paths(after, first["paths"][-LAST:][:, shown], first["goals"][shown])
        before.set_title(f"{AGENTS[name]}, {first['env_steps'] / 1e6:.1f} M env steps")
    axes[0][0].set_ylabel(f"before adaptation\n({SHOWN} held-out goals)")
    axes[1][0].set_ylabel("after adaptation\n(last episodes)")
    grid = axes[2][0].get_gridspec()
    for axis in axes[2]:
        axis.remove()
    axis = figure.add_subplot(grid[2, :])
    for colour, (name, seeds) in zip(SERIES, found.items(), strict=False):
        mean = np.mean([s["per_task"].mean(axis=0) for s in seeds], axis=0)
        axis.plot(np.arange(1, len(mean) + 1), mean, color=colour, label=AGENTS[name])
    axis.axhline(
        np.mean(next(iter(found.values()))[0]["references"]["oracle"]), color=MUTED, linestyle=":", label="oracle"
    )
    axis.set(xscale="log", xlabel="episode of the trial", ylabel="return on held-out goals")
    axis.legend(loc="center left")
    figure.savefig(path, dpi=110)


def table(found: dict[str, list[dict]]) -> str:
    """Mean return of the episodes before anything is adapted, and of the last five, with 95 % intervals over goals (and seeds)."""
    lines = [f"{'agent':8} {'env steps':>10} {'seeds':>6} {'episodes':>9} {'before':>22} {'last five':>22}"]
    for name, seeds in found.items():
        parts = []
        for part in (slice(0, seeds[0]["before"]), slice(-LAST, None)):
            values = np.stack([s["per_task"][:, part].mean(axis=1) for s in seeds])  # [seeds, goals]
            low, high = interval(values, np.random.default_rng(0))
            parts.append(f"{values.mean():6.2f} ({low:5.2f} to {high:5.2f})")
        episodes = seeds[0]["per_task"].shape[1]
        lines.append(
            f"{name:8} {seeds[0]['env_steps']:>10,} {len(seeds):>6} {episodes:>9} {parts[0]:>22} {parts[1]:>22}"
        )
    references = next(iter(found.values()))[0]["references"]
    lines.append(f"oracle {np.mean(references['oracle']):.2f}, random {np.mean(references['random']):.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the figure, .png")
    parser.add_argument("--runs", type=Path, default=Path("runs/half-circle"), help="where runs are, or will be")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    args = parser.parse_args()
    found = {name: [measured(trained(name, seed, args.runs)) for seed in args.seeds] for name in args.agents}
    draw(found, args.out)
    print(table(found))


if __name__ == "__main__":
    main()
