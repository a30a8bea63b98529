"""How many env steps agents need: return at the last shot over env steps of kept runs (benchmarks/results/NAME.json) on one family,
one axis, env steps on a logarithmic scale; and the env steps at which each first passes given returns.

    python benchmarks/samples_figure.py docs/figures/samples.png --returns 300 500 700 NAME NAME ...
"""

import argparse
import json
from pathlib import Path

from nacre.plotting import DASHES, SERIES, legend_above, new_figure, styled

RESULTS = Path(__file__).parent / "results"
PROPER = {"pearl": "PEARL", "rl2": "RL²", "varibad": "VariBAD"}


def curve(kept: dict) -> tuple[list[int], list[float]]:
    points = [entry for entry in next(iter(kept["curves"].values())) if entry["env_steps"]]
    return [entry["env_steps"] for entry in points], [entry["shots"][-1] for entry in points]


@styled
def draw(results: list[dict], path: Path) -> None:
    figure, axes = new_figure(height=3.4)
    axis = axes[0, 0]
    for i, kept in enumerate(results):
        label = f"{PROPER.get(kept['algorithm'], kept['algorithm'])}, seed {kept['seeds'][0]}"
        axis.plot(*curve(kept), color=SERIES[i % len(SERIES)], linestyle=DASHES[i % len(DASHES)], label=label)
    axis.set(xscale="log", xlabel="env steps", ylabel=f"return in the last episode, {results[0]['env']}")
    legend_above(figure, axis)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of benchmarks/results/NAME.json")
    parser.add_argument("--returns", nargs="*", type=float, default=[])
    args = parser.parse_args()
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in args.names]
    families = {kept["env"] for kept in results}
    if len(families) > 1:
        parser.error(f"runs of one family belong on one axis, got {', '.join(sorted(families))}")
    draw(results, args.out)
    for name, kept in zip(args.names, results, strict=True):
        steps, returns = curve(kept)
        first = [next((s for s, r in zip(steps, returns, strict=True) if r >= level), None) for level in args.returns]
        print(
            f"{name}: best {max(returns):.0f}; "
            + ", ".join(f"{level:g} at {at}" for level, at in zip(args.returns, first, strict=True))
        )


if __name__ == "__main__":
    main()
