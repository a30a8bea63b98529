"""Keep the evidence of a run that is quoted somewhere: its curve, command, versions and final evaluation, as one small file.

python benchmarks/keep_result.py RUN [NAME]  ->  benchmarks/results/NAME.json
"""

import argparse
import json
import re
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
HOME = f"{Path(__file__).parent.parent.resolve()}/"  # families in files are named from here
MOST_NUMBERS = 5000  # with more, those per task are left out, so that files stay small


def curve(folder: Path) -> list[dict]:
    """One entry per evaluation: counters, seconds of training and evaluation, return per shot."""
    out = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "evaluation":
            shots = {k: v for k, v in record["metrics"].items() if k.startswith("return/shot_")}
            returns = [round(shots[f"return/shot_{k}"], 3) for k in range(len(shots))]
            keep = ("env_steps", "updates", "seconds", "evaluation_seconds")
            out.append({**{k: record[k] for k in keep}, "shots": returns})
    return out


def evidence(run: Path) -> dict:
    config = json.loads((run / "config.json").read_text())
    versions = json.loads((run / "versions.json").read_text())
    folders = sorted(run.glob("seed-*")) or [run]
    result = run / "result.json"
    found = json.loads(result.read_text()) if result.exists() else None
    if found and len(found["per_task"]) * len(found["shots"]) > MOST_NUMBERS:  # the intervals are worked out already
        found = {k: v for k, v in found.items() if k not in ("per_task", "task_params", "success_per_task")}
    command = (run / "command.txt").read_text().strip()
    origin = config.get("start_from")
    for written, kept in (
        (r"--resume \S+", "--resume RUN"),
        (r" --out \S+", ""),
        (r"--start-from \S+", "--start-from RUN"),
    ):
        command = re.sub(written, kept, command)
    return {
        "command": command,
        **({"start_from": {k: v for k, v in origin.items() if k != "run"}} if origin else {}),
        "algorithm": config["algorithm"], "env": config["env"], "preset": config["preset"], "seeds": config["seeds"],
        "config": config["config"], "loop": config["loop"], "env_params": config["env_params"],
        "versions": {k: v for k, v in versions.items() if k not in ("started", "system")},
        "curves": {folder.name if len(folders) > 1 else f"seed-{config['seeds'][0]}": curve(folder) for folder in folders},
        "result": found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of nacre train")
    parser.add_argument("name", nargs="?", help="of the file; algorithm, family, preset and seeds by default")
    args = parser.parse_args()
    if not (args.run / "config.json").exists():
        parser.error(f"{args.run} is not a run directory: it has no config.json")
    found = evidence(args.run)
    default = "{algorithm}-{env}-{preset}-seed-".format(**found) + "-".join(map(str, found["seeds"]))
    path = RESULTS / f"{args.name or default}.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, separators=(",", ":"), sort_keys=True).replace(HOME, "") + "\n")
    print(path)


if __name__ == "__main__":
    main()
