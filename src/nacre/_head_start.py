"""A run that begins with what another one learnt: curricula, and training on in another family with the same observations.

What is taken over are the fields of the algorithm's State that its class names in `learnt`. They are copied into the new
run, which so stays whole where the other is gone.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nacre import _checkpoints, runs
from nacre._errors import UserError
from nacre.algorithms.registry import algorithm_class, shown

START = Path("checkpoints/start")


@dataclass(frozen=True)
class HeadStart:
    """Networks and other numbers of an earlier run."""

    run: str  # its directory, as it was given
    env: str
    env_steps: dict[int, int]  # seed of the new run -> how long they had been trained
    arrays: dict[int, dict[str, np.ndarray]]  # seed of the new run -> arrays by name

    @property
    def told(self) -> dict[str, Any]:
        """For config.json."""
        return {"run": self.run, "env": self.env, "env_steps": list(self.env_steps.values())}


def read(path: str | Path, name: str, algorithm: Any, env: Any, seeds: tuple[int, ...]) -> HeadStart:
    """What the run at `path` had learnt by its newest checkpoint, for a run of the algorithm `name`.

    A seed goes on from its own in a run of several seeds, all of them from the one seed of others. Raises UserError for a run
    that has nothing to give, or nothing that fits.
    """
    source = runs.open_run(path)
    fields = getattr(algorithm, "learnt", ())
    if not fields:
        raise UserError(
            f"{shown(name)} cannot start from a run: its class does not say in `learnt` what of its State to take"
        )
    if not _related(source.algorithm_name, name):
        raise UserError(
            f"{shown(name)} cannot start from {path}, a run of {shown(source.algorithm_name)}: only from its own kind"
        )
    spec, was = env.spec, source.config["spec"]
    have, need = _ends(was["obs_size"], was["action"]), _ends(spec.obs_size, vars(spec.action))
    if have != need:
        raise UserError(
            f"{path} cannot be started from: it was trained on {source.env_name} with {have}, {spec.name} has {need}"
        )
    like = jax.eval_shape(lambda key: _taken(algorithm.init(key, env, 1), fields), jax.random.key(0))
    together = source.several and source.config["loop"]["vectorise"]  # one checkpoint, seeds along the first axis
    newest = functools.cache(lambda folder: _newest(source, folder, like, together))  # several seeds may share it
    steps, arrays = {}, {}
    for seed in seeds:
        own = _seed_of(source, seed)
        place = source.config["seeds"].index(own) if together else 0
        record, found = newest((source.path if together else source.seed_dir(own)) / runs.STATE)
        steps[seed] = int(record["loop"]["env_steps"][place])
        arrays[seed] = {name: x[place] if together else x for name, x in found.items()}
    return HeadStart(str(path), source.env_name, steps, arrays)


def keep(run: runs.Run, start: HeadStart) -> None:
    """Into the run's directory. Raises OSError where that is impossible."""
    writer = _checkpoints.Writer()
    try:
        for seed in run.seeds:
            record = {"identity": run.identity}
            writer.save(run.seed_dir(seed) / START, start.env_steps[seed], start.arrays[seed], record)
        writer.wait()
    finally:
        writer.close()


def put(run: runs.Run, seeds: tuple[int, ...], state: Any, together: bool) -> Any:
    """The fresh state of these seeds with what the run keeps of another; together: seeds lie along the first axis. Raises
    UserError where that was damaged since."""
    fields = run.algorithm.learnt
    like = jax.eval_shape(lambda s: jax.tree.map(lambda x: x[0], s) if together else s, _taken(state, fields))
    taken = []
    for seed in seeds:
        label = run.config["start_from"]["env_steps"][run.config["seeds"].index(seed)]
        try:
            taken.append(_checkpoints.load(run.seed_dir(seed) / START / str(label), like, run.identity)[0])
        except _checkpoints.CheckpointError as error:
            raise UserError(f"{error}; start the run anew: {run.path / 'command.txt'}") from error
    new = jax.tree.map(lambda *x: jnp.stack(x), *taken) if together else taken[0]
    return state._replace(**new) if hasattr(state, "_replace") else dataclasses.replace(state, **new)


def _taken(state: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(state, name) for name in fields}


def _related(one: str, other: str) -> bool:
    """Whether the class of one algorithm is the other's or extends it."""
    if one == other:
        return True
    try:
        classes = [algorithm_class(name) for name in (one, other)]
    except ValueError:  # a user's own, whose file is gone
        return False
    return issubclass(*classes) or issubclass(*reversed(classes))


def _ends(obs_size: int, action: dict[str, Any]) -> str:
    """What a network has at its two ends."""
    actions = f"{action['n']} actions" if "n" in action else f"{len(action['low'])} numbers per action"
    return f"{obs_size} numbers observed and {actions}"


def _seed_of(source: runs.Run, seed: int) -> int:
    """Which of its seeds a new seed goes on from."""
    if len(source.seeds) == 1 or seed in source.seeds:
        return seed if seed in source.seeds else source.seeds[0]
    known = ", ".join(map(str, source.seeds))
    raise UserError(
        f"{source.path} has the seeds {known}, and each seed starts from its own: seed {seed} has none there; name one seed for "
        f"all by its directory, {source.path / f'seed-{source.seeds[0]}'}"
    )


def _newest(source: runs.Run, folder: Path, like: Any, together: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Record and arrays of the newest checkpoint that is whole, of the arrays those that are asked for."""
    trouble = f"{source.path} holds no checkpoint yet; train longer or resume it"
    for label in reversed(_checkpoints.labels(folder)):
        path = folder / str(label)
        try:
            record = _checkpoints.read_record(path, {"algorithm": source.algorithm_name})
            told = {n: layout for n, layout in _checkpoints.layouts(record).items() if n.split(".")[0] in like}
            each = {name: (shape[together:], dtype) for name, (shape, dtype) in told.items()}
            if different := _checkpoints.difference(each, like):  # before a replay is read for nothing
                raise UserError(
                    f"{source.path} cannot be started from: {different}; give the settings that it was trained with"
                )
            arrays = _checkpoints.read_arrays(path, record)
        except _checkpoints.CheckpointError as error:
            trouble = str(error)
            continue
        return record, {name: arrays[name] for name in told}
    raise UserError(f"{trouble}; there is nothing to start from")
