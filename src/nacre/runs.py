"""The run directory: what a training leaves on disk, and how it is found again.

    runs/<algorithm>-<env>-<time>-<id>/
      config.json  command.txt  versions.json  lock
      metrics.jsonl  events.out.tfevents.*                      one line per slice of work and per evaluation
      evaluations/<env steps>.npz                               what `evaluate.evaluation_arrays` gave
      checkpoints/params/<env steps>/  checkpoints/state/<slice>/
      report.html

A run of several seeds has `seed-<n>/` with metrics, evaluations and checkpoints of its own below one config.json;
where its seeds train as one vectorised program, the resume checkpoint (checkpoints/state) is the top directory's.

Reading a run never executes code from its files; a family of the user's own (`file.py:name`) is code and is imported.
"""

import dataclasses
import difflib
import functools
import json
import secrets
import time
import warnings
import zlib
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from nacre import _checkpoints
from nacre._errors import UserError, whole
from nacre.algorithms.registry import make_algorithm, shown
from nacre.envs.files import close_matches, is_file
from nacre.envs.registry import make_family

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """A run on disk, or one seed of it. Made by `open_run`.

    config.json holds: schema, algorithm, env, env_params, env_from ("name" or "object"), preset, seeds, config (the
    algorithm's settings), loop (train.LoopConfig), spec (the family's EnvSpec as a dict) and exploration_episodes (of a
    meta-test's trial).
    """

    path: Path  # the directory of config.json
    config: dict[str, Any]
    seeds: tuple[int, ...]  # the seeds this object speaks of: all, or the one whose directory was opened
    family: Any = field(default=None, compare=False)  # the Environment itself, for families that have no name

    @property
    def algorithm_name(self) -> str:
        return self.config["algorithm"]

    @property
    def env_name(self) -> str:
        """As it was given: a registered name, `gymnasium/<id>`, or `/absolute/file.py:name`."""
        return self.config["env"]

    @property
    def preset(self) -> str | None:
        """None: the algorithm was given as an object with its own Config."""
        return self.config["preset"]

    @property
    def several(self) -> bool:
        """Whether the run has one directory per seed."""
        return len(self.config["seeds"]) > 1

    @functools.cached_property
    def env(self) -> Any:
        """The task family. Raises UserError where it cannot be made again."""
        if self.family is not None:
            return self.family
        if self.config["env_from"] == "object":
            raise UserError(
                f"{self.path} was trained on a family given as a Python object ({self.env_name}), which has no name to "
                "be made from; pass it again, as in nacre.load(run, family=...)"
            )
        params = {name: tuple(v) if isinstance(v, list) else v for name, v in self.config["env_params"].items()}
        try:
            return make_family(self.env_name, **params)
        except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
            own = is_file(self.env_name)
            remedy = f"put it back there, or pass it: nacre.load({str(self.path)!r}, family=nacre.make_family('new/file.py:name'))"
            more = f"; {self.path} was trained on {self.env_name}: {remedy}" if own else ""
            raise UserError(f"{error}{more}") from error

    @functools.cached_property
    def algorithm(self) -> Any:
        """The algorithm with this run's settings, for the family's spec."""
        return make_algorithm(self.algorithm_name, self.env.spec, self.config["config"])

    def changes(self) -> tuple[list[str], list[str]]:
        """How the family's spec, and how its tasks, are not what the run began with, in words."""
        now, was = json.loads(json.dumps(dataclasses.asdict(self.env.spec))), self.config["spec"]
        spec = [
            f"{name} is {now.get(name)!r}, was {was.get(name)!r}"
            for name in now | was
            if now.get(name) != was.get(name)
        ]
        known = self.config.get("tasks")
        return spec, ["its tasks are others"] if known is not None and known != digest(self.env) else []

    def warn_of_changes(self) -> None:
        """For whoever uses the agent: numbers will be of the family as it is now."""
        if found := [text for part in self.changes() for text in part]:
            warnings.warn(
                f"the family {self.env_name} is not what {self.path} was trained on: {'; '.join(found)}", stacklevel=3
            )

    def seed_dir(self, seed: int | None = None) -> Path:
        """Where metrics, evaluations and params of a seed lie; None: of the first."""
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise UserError(f"{self.path} has no seed {seed!r}; its seeds are {', '.join(map(str, self.seeds))}")
        return seed_dir(self.path, self.config["seeds"], seed)

    @property
    def seed_dirs(self) -> dict[int, Path]:
        return {seed: self.seed_dir(seed) for seed in self.seeds}

    # ------------------------------------------------------------------------------------------- what is in it

    def checkpoints(self, seed: int | None = None) -> list[int]:
        """Env steps at which the parameters of a seed were kept, ascending."""
        return _checkpoints.labels(self.seed_dir(seed) / PARAMS)

    def newest(self, seed: int | None = None) -> int:
        """Env steps of the last of them. Raises UserError where there is none yet."""
        known = self.checkpoints(seed)
        if not known:
            raise UserError(f"{self.seed_dir(seed)} holds no checkpoint yet; train longer or resume the run")
        return known[-1]

    def params(self, checkpoint: int | None = None, seed: int | None = None) -> Any:
        """What acting needs, as `algorithm.params` gives it: at env steps `checkpoint` (None: the last), of `seed`
        (None: the first). Raises UserError for a checkpoint that is missing, damaged or foreign."""
        newest, known = self.newest(seed), self.checkpoints(seed)
        asked, checkpoint = checkpoint, newest if checkpoint is None else whole(checkpoint)
        if checkpoint is None:
            raise UserError(f"a checkpoint is named by its env steps, a whole number, got {asked!r}")
        if checkpoint not in known:
            near = close_matches(str(checkpoint), list(map(str, known)))
            raise UserError(f"{self.seed_dir(seed)} has no checkpoint {checkpoint}.{near} It has {_list(known)}.")
        path = self.seed_dir(seed) / PARAMS / str(checkpoint)
        try:
            return _checkpoints.load(path, self._params_like(), self.identity)[0]
        except _checkpoints.CheckpointError as error:
            before = [n for n in known if n < checkpoint]
            offer = (
                f"the one before it is {before[-1]} (--checkpoint {before[-1]})" if before else "there is none before"
            )
            raise UserError(f"{error}; {offer}") from error

    def _params_like(self) -> Any:
        """Shapes and structure of the parameters."""
        import jax

        def make(key):
            return self.algorithm.params(self.algorithm.init(key, self.env, 1))

        return jax.eval_shape(make, jax.random.key(0))

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must have been made by to fit this run."""
        return {"schema": SCHEMA, "algorithm": self.algorithm_name, "spec": self.config["spec"]}

    def env_steps(self, seed: int | None = None) -> int:
        """Env steps of the last line of metrics, 0 where there is none."""
        lines = self.metrics(seed)
        return lines[-1]["env_steps"] if lines else 0

    def metrics(self, seed: int | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl: kind (train, evaluation), env_steps, updates, seconds (of training, evaluation left
        out), evaluation_seconds, metrics (numbers by name). kind: only these."""
        path = self.seed_dir(seed) / "metrics.jsonl"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        return [line for line in lines if kind is None or line["kind"] == kind]

    def evaluations(self, seed: int | None = None) -> list[int]:
        """Env steps at which the seed was evaluated, ascending."""
        return sorted(
            int(path.stem) for path in (self.seed_dir(seed) / "evaluations").glob("*.npz") if path.stem.isdigit()
        )

    def evaluation(self, env_steps: int, seed: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of one evaluation. Raises UserError where there is none."""
        path = self.seed_dir(seed) / "evaluations" / f"{env_steps}.npz"
        if not path.is_file():
            raise UserError(f"{self.seed_dir(seed)} was not evaluated at {env_steps} env steps")
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}


NEEDED = ("algorithm", "env", "env_params", "env_from", "preset", "seeds", "config", "loop", "spec")
PARAMS, STATE = Path("checkpoints/params"), Path("checkpoints/state")


def digest(env: Any) -> int:
    """A checksum of the tasks to train and to test on."""
    import jax

    crc = 0
    for leaf in jax.tree.leaves((env.train_tasks, env.test_tasks)):
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc


def seed_dir(path: Path, seeds: list[int], seed: int) -> Path:
    """One seed lives in the run directory itself, several in directories below it."""
    return path / f"seed-{seed}" if len(seeds) > 1 else path


def _list(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[-8:]))
    return shown if len(numbers) <= 8 else f"{len(numbers)} of them, the last: {shown}"


def open_run(path: str | Path, family: Any = None) -> Run:
    """The run at `path`: its directory, or `seed-<n>` in it. family: the Environment, if it was given as an object.

    Raises UserError where there is no run, or one that another version of Nacre wrote.
    """
    if not isinstance(path, str | PathLike):
        raise UserError(f"expected the path of a run directory, got {path!r}")
    path = Path(path).expanduser()
    seed, full = None, path.resolve()
    if not (path / "config.json").is_file() and full.name.startswith("seed-"):
        path = path.parent if path.name == full.name else full.parent
        seed = full.name.removeprefix("seed-")
    config_file = path / "config.json"
    if not config_file.is_file():
        raise UserError(f"{path} is not a run: it has no config.json.{_near(path)}")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        schema = config["schema"]
        missing = [name for name in NEEDED if name not in config]
        if schema == SCHEMA and missing:
            raise KeyError(f"it lacks {', '.join(missing)}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config_file} is damaged: {error}") from error
    if schema != SCHEMA:
        raise UserError(f"{config_file} has schema {schema!r}, this Nacre reads {SCHEMA}; use the Nacre that wrote it")
    seeds = tuple(config["seeds"])
    if seed is not None:
        if not seed.isdigit() or int(seed) not in seeds:
            raise UserError(f"{path} has no seed {seed!r}; its seeds are {', '.join(map(str, seeds))}")
        seeds = (int(seed),)
    return Run(path, config, seeds, family)


def _near(path: Path) -> str:
    """Runs in a directory that is none itself, or beside a name that is none."""
    inside = path.is_dir()
    folder = path if inside else path.parent
    found = [file.parent for file in folder.glob("*/config.json")] if folder.is_dir() else []
    if not found:
        return ""
    if not inside:
        close = difflib.get_close_matches(path.name, [other.name for other in found], n=1)
        return f" Did you mean {folder / close[0]}?" if close else ""
    return f" The newest run there is {max(found, key=lambda other: other.stat().st_mtime)}."


# ---------------------------------------------------------------------------------------------------- a new run


def create(
    out: str | Path | None, config: dict[str, Any], versions: dict[str, Any], command: str, family: Any = None
) -> Run:
    """Make the directory of a new run (out None: a new name below ./runs) with config.json, versions.json, command.txt.

    Raises UserError if it is in use or cannot be made.
    """
    named = f"{shown(config['algorithm'])}-{short_name(config['env'])}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path("runs") / f"{named}-{secrets.token_hex(2)}" if out is None else Path(out).expanduser()
    check_free(path)
    config = json.loads(json.dumps(config))  # as it will be read: tuples become lists
    try:
        for seed in config["seeds"]:
            seed_dir(path, config["seeds"], seed).mkdir(parents=True, exist_ok=True)
        _checkpoints.write_json(path / "config.json", config)
        _checkpoints.write_json(path / "versions.json", versions)
        (path / "command.txt").write_text(command + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"the run directory {path} cannot be written ({error.strerror}); name another with --out DIR"
        ) from error
    return Run(path, config, tuple(config["seeds"]), family)


def check_path(path: Path) -> None:
    """Raise UserError for a name in which checkpoints cannot be written: Orbax reads brackets as a pattern."""
    if "[" in str(path.absolute()):
        raise UserError(f"the run directory {path.absolute()} has a '[' in its path, where checkpoints cannot be written; "
                        "name another with --out DIR, or rename it")  # fmt: skip


def check_free(path: Path) -> None:
    """Raise UserError unless `path` is new or an empty directory."""
    check_path(path)
    if (path / "config.json").is_file():
        raise UserError(
            f"the run directory {path} holds a run already; name a new or empty one with --out DIR, or go on with that "
            f"run: nacre train --resume {path}"
        )
    try:
        used = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise UserError(
            f"the run directory {path} cannot be read ({error.strerror}); name another with --out DIR"
        ) from error
    if used:
        what = "holds other files" if path.is_dir() else "is a file"
        raise UserError(f"the run directory {path} {what}; name a new or empty one with --out DIR")


def short_name(env: str) -> str:
    """A family's name in a directory's name: `file.py:name` is name, slashes are dashes."""
    name = env.rpartition(":")[2] if is_file(env) and ":" in env else env
    return name.replace("/", "-").replace(":", "-")


def change_loop(run: Run, **values: Any) -> Run:
    """The same run with other loop settings in its config.json (`--env-steps` raised at a resume)."""
    config = {**run.config, "loop": {**run.config["loop"], **values}}
    _checkpoints.write_json(run.path / "config.json", config)
    return Run(run.path, config, run.seeds, run.family)
