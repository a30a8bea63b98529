"""Run directories, read with tolerance: whatever is missing or damaged becomes a remark, not an error."""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nacre._errors import UserError
from nacre.algorithms.registry import shown

NOT_THE_TEST = ("backend", "threads", "processes", "record_qpos", "n_train")  # parameters of families


@dataclass
class Seed:
    """One training seed: its lines of metrics.jsonl and its evaluation files."""

    label: str
    path: Path
    train: list[dict[str, Any]]
    evaluation_lines: list[dict[str, Any]]
    files: dict[int, Path]  # env steps -> evaluations/<env steps>.npz
    remarks: list[str] = field(default_factory=list)

    @functools.cached_property
    def returns(self) -> dict[int, np.ndarray]:
        """Env steps -> returns [R, N, K] of each evaluation that can be read."""
        found = {steps: self.evaluation(steps, only=("returns",)).get("returns") for steps in sorted(self.files)}
        return {steps: value for steps, value in found.items() if value is not None and value.ndim == 3}

    def evaluation(self, env_steps: int, only: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        """The arrays of one evaluation (`only` these names), {} where it is damaged."""
        try:
            with np.load(self.files[env_steps], allow_pickle=False) as file:
                return {name: file[name] for name in file.files if only is None or name in only}
        except Exception:  # NumPy raises many kinds for a damaged archive
            self.remarks.append(f"evaluation {self.files[env_steps].name} of {self.label} is damaged, left out")
            return {}

    def minutes(self, env_steps: int) -> float:
        """Minutes of training until an evaluation; interpolated where its line is missing, NaN if nothing is known."""
        lines = [line for line in self.evaluation_lines + self.train if "env_steps" in line and "seconds" in line]
        exact = [line["seconds"] for line in self.evaluation_lines if line.get("env_steps") == env_steps]
        if exact and exact[-1] is not None:
            return exact[-1] / 60
        if not lines:
            return float("nan")
        lines.sort(key=lambda line: line["env_steps"])
        return float(np.interp(env_steps, [s["env_steps"] for s in lines], [s["seconds"] for s in lines])) / 60

    @property
    def last(self) -> dict[str, Any]:
        """Counters where training stands: env_steps, updates, seconds."""
        lines = [line for line in self.train + self.evaluation_lines if "env_steps" in line]
        return max(lines, key=lambda line: (line["env_steps"], line.get("updates", 0)), default={})


@dataclass(eq=False)
class Run:
    """One run directory."""

    path: Path
    config: dict[str, Any]
    versions: dict[str, Any]
    command: str
    result: dict[str, Any]
    seeds: list[Seed]
    remarks: list[str]
    error: str = ""  # last line of error.txt

    @property
    def family(self) -> str:
        return str(self.config.get("env", "unknown family"))

    @property
    def algorithm(self) -> str:
        return str(self.config.get("algorithm", "unknown algorithm"))

    @property
    def shown(self) -> str:
        """The algorithm's name as people read it."""
        return shown(self.algorithm)

    @property
    def spec(self) -> dict[str, Any]:
        """The family's, with the episodes before adaptation as the algorithm counts them, where it does."""
        spec, counted = self.config.get("spec") or {}, self.config.get("exploration_episodes")
        return spec | {"exploration_episodes": counted} if spec and counted is not None else spec

    @property
    def identity(self) -> str:
        """Runs with the same identity differ in nothing but their seeds."""
        kept = {name: self.config.get(name) for name in ("algorithm", "env", "env_params", "preset", "config")}
        kept["start_from"] = (self.config.get("start_from") or {}).get("env")
        loop = self.config.get("loop") or {}
        kept["eval_tasks"] = loop.get("eval_tasks")
        return json.dumps([kept, loop.get("env_steps"), loop.get("minutes")], sort_keys=True, default=str)

    @property
    def test(self) -> str:
        """Runs with the same test can stand beside one another: family, parameters but for those that change no test task, and
        how many of the test tasks were evaluated."""
        params = {
            name: value for name, value in (self.config.get("env_params") or {}).items() if name not in NOT_THE_TEST
        }
        most = (self.config.get("loop") or {}).get("eval_tasks")
        return json.dumps([self.family, params, most], sort_keys=True, default=str)

    @property
    def newest(self) -> int:
        """Env steps of the newest evaluation that all evaluated seeds have reached, -1 before the first."""
        return min((max(seed.returns) for seed in self.seeds if seed.returns), default=-1)

    @property
    def done(self) -> int:
        """Env steps of training, the least of the seeds'."""
        return min((seed.last.get("env_steps", 0) for seed in self.seeds), default=0)

    @property
    def current_result(self) -> dict[str, Any]:
        """result.json, {} where the run has gone on since it was written."""
        at = self.result.get("env_steps")
        return {} if at is None or at < max(self.newest, self.done) else self.result


# --------------------------------------------------------------------------------------------------------- reading


def read_run(path: Path) -> Run:
    """Read a run directory. Raises UserError where the path is no run at all."""
    path = Path(path).expanduser()
    seed_name = None
    if (
        not (path / "config.json").is_file()
        and path.name.startswith("seed-")
        and (path.parent / "config.json").is_file()
    ):
        path, seed_name = path.parent, path.name
    if not path.is_dir():
        raise UserError(f"there is no run directory {path}")
    below = sorted(path.glob("seed-*"), key=lambda p: (len(p.name), p.name))
    if not ((path / "config.json").is_file() or (path / "metrics.jsonl").is_file() or below):
        raise UserError(f"{path} is not a run: it holds neither config.json nor metrics.jsonl")
    remarks: list[str] = []
    config, versions = read_json(path / "config.json", remarks), read_json(path / "versions.json", remarks)
    result = read_json(path / "result.json", remarks, needed=False)
    command = path / "command.txt"
    text = command.read_text(encoding="utf-8", errors="replace").strip() if command.is_file() else ""
    names = config.get("seeds") or [config.get("seed", "")]
    places = [(place.name.replace("-", " "), place) for place in below] or [(f"seed {names[0]}".strip(), path)]
    if seed_name:
        places = [(seed_name.replace("-", " "), path / seed_name)]
        result = {}
    seeds = [read_seed(label, place) for label, place in places]
    return Run(path, config, versions, text, result, seeds, remarks, last_line(path / "error.txt"))


def last_line(path: Path) -> str:
    """The last line of a text file that is not blank; '' where there is none."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def read_json(path: Path, remarks: list[str], needed: bool = True) -> dict[str, Any]:
    """The object in a file, {} with a remark where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            remarks.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError) as error:
        remarks.append(f"{path.name} is damaged: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def read_seed(label: str, path: Path) -> Seed:
    remarks: list[str] = []
    lines = read_lines(path / "metrics.jsonl", label, remarks)
    files = {int(file.stem): file for file in (path / "evaluations").glob("*.npz") if file.stem.isdigit()}
    train = [line for line in lines if line.get("kind") == "train"]
    return Seed(label, path, train, [line for line in lines if line.get("kind") == "evaluation"], files, remarks)


def read_lines(path: Path, label: str, remarks: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, metrics flattened into them; damaged ones (a cut last line) are left out."""
    if not path.is_file():
        return []
    out, bad = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            nested = line.pop("metrics", None) or {}
            out.append({**nested, **line})
        except (ValueError, AttributeError, TypeError):
            bad += 1
    if bad:
        remarks.append(f"metrics.jsonl of {label} has {bad} damaged line{'s' * (bad > 1)}, left out")
    return out


def metric_series(seed: Seed) -> tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Every number that training logged: what it is over (gradient steps; env steps where none are counted), and
    name -> (x, values)."""
    counters = ("env_steps", "updates", "seconds", "evaluation_seconds", "kind")
    x_name = "updates" if any(line.get("updates") for line in seed.train) else "env_steps"
    found: dict[str, list] = {}
    for line in seed.train:
        for name, value in line.items():
            if name not in counters and (value is None or isinstance(value, (int, float))):
                found.setdefault(name, []).append((line.get(x_name, 0), np.nan if value is None else float(value)))
    axis = "gradient steps" if x_name == "updates" else "env steps"
    return axis, {name: merged(*np.asarray(points, float).T) for name, points in found.items()}


def merged(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending x, and the mean of the values at each; NaN only where nothing else was logged there."""
    places, index = np.unique(x, return_inverse=True)
    good = np.isfinite(values)
    total = np.bincount(index, np.where(good, values, 0.0), len(places))
    count = np.bincount(index, good, len(places))
    return places, np.where(count > 0, total / np.maximum(count, 1), np.nan)
