"""How much kept runs gain by adapting: return at the last shot minus that at the first, task by task on held-out tasks, with a
95 % bootstrap interval over the tasks.

python benchmarks/adaptation_gain.py NAME ...  (of benchmarks/results/NAME.json)
"""

import json
import sys
from pathlib import Path

import numpy as np

from nacre.stats import interval

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    for name in sys.argv[1:]:
        kept = json.loads((RESULTS / f"{name}.json").read_text())
        evaluations = {
            key: value for key, value in kept.items() if key.startswith("seed ")
        }  # of several runs, measured again
        for seed, result in (evaluations or {"": kept.get("result")}).items():
            told(f"{name} {seed}".strip(), result)


def told(name: str, result: dict | None) -> None:
    if not result or "per_task" not in result:
        print(f"{name}: its file keeps no numbers per task")
        return
    returns = np.array(result["per_task"])
    gain = returns[:, -1] - returns[:, 0]
    low, high = interval(gain[None], np.random.default_rng(0))
    print(f"{name}: {gain.mean():.1f} ({low:.1f} to {high:.1f}), {(gain > 0).sum()} of {len(gain)} tasks gain")


if __name__ == "__main__":
    main()
