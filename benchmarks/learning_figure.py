"""Learning curves of kept runs (benchmarks/results/NAME.json), one panel each: return at the first and the last shot on held-out
tasks over env steps, beside the final evaluation's references.

python benchmarks/learning_figure.py docs/figures/learning-bodies.png NAME NAME ...
"""

import argparse
import json
from pathlib import Path

from nacre.plotting import MUTED, SERIES, legend_above, new_figure, styled, thousands

RESULTS = Path(__file__).parent / "results"
COLUMNS = 3
REFERENCES = {"no_adaptation": ("no adaptation", "--"), "random": ("random", ":")}


def panel(axis, kept: dict) -> None:
    curve = next(iter(kept["curves"].values()))
    steps = [entry["env_steps"] for entry in curve]
    last = len(curve[0]["shots"]) - 1
    for shot, colour in ((0, SERIES[1]), (last, SERIES[0])):
        label = "first episode of a trial" if shot == 0 else "last episode, after adaptation"
        axis.plot(steps, [entry["shots"][shot] for entry in curve], color=colour, label=label)
    for name, (label, dash) in REFERENCES.items():
        values = kept["result"]["references"].get(name)
        if values is not None:
            axis.axhline(values[-1], color=MUTED, linestyle=dash, linewidth=1.2, label=label)
    minutes = (curve[-1]["seconds"] + curve[-1]["evaluation_seconds"]) / 60
    axis.set_title(f"{kept['env']}, seed {kept['seeds'][0]}, {minutes:.0f} min")
    axis.set_xlabel("env steps")
    thousands(axis.xaxis)


@styled
def draw(results: list[dict], path: Path) -> None:
    rows = -(-len(results) // COLUMNS)
    figure, axes = new_figure(rows, min(COLUMNS, len(results)), height=2.6 * rows + 0.3)
    flat = list(axes.flat)
    for axis, kept in zip(flat, results, strict=False):
        panel(axis, kept)
    for axis in flat[len(results) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel("return on held-out tasks")
    legend_above(figure, axes)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of benchmarks/results/NAME.json")
    args = parser.parse_args()
    draw([json.loads((RESULTS / f"{name}.json").read_text()) for name in args.names], args.out)


if __name__ == "__main__":
    main()
