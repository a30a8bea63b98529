"""Training from a name to an agent: makes or reopens the run directory and lets nacre._loop do the rest."""

import contextlib
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nacre import _checkpoints, _head_start, _platform, _versions, runs
from nacre._errors import RunError, UserError
from nacre._loop import Loop
from nacre._loop_parts import METRICS, Evaluation, Hook, refuse_changes
from nacre._progress import Progress
from nacre._records import Lock
from nacre._settings import LoopConfig, Plan, make_plan
from nacre._signals import Stop, Stopped
from nacre.algorithms.registry import shown

__all__ = ["METRICS", "Evaluation", "Hook", "LoopConfig", "resume", "train"]


def train(
    algorithm: Any, family: Any, *, preset: str = "fast", seed: int = 0, seeds: Sequence[int] | None = None,
    env_steps: int | None = None, minutes: float | None = None, out: str | Path | None = None,
    env_params: dict[str, Any] | None = None, start_from: str | Path | None = None, progress: bool = True,
    hooks: Sequence[Hook] = (), **values: Any,
) -> Any:  # fmt: skip
    """Train and return the agent (of the first seed; `nacre.load` gives the others).

    algorithm: a registered name, or an object. family: a registered name, `gymnasium/<id>`, `file.py:name`, or an
    Environment. preset: "fast" or "paper". seeds: train several, one after another or as one program (`vectorise`).
    env_steps, minutes: where to stop, per seed and in all (None: as the preset says). out: the run directory, new or
    empty; None: a new one below ./runs. env_params: the family's parameters. start_from: a run of the same algorithm, on a
    family with the same observations and actions, whose networks to begin with instead of fresh ones. values: any field of the
    algorithm's Config or of LoopConfig.

    hooks: functions of an `Evaluation` (what was just measured on the test tasks, and with which parameters) that
    return numbers by name; they join the evaluation's line in metrics.jsonl, TensorBoard and the report:

        def spread(event):
            return {"return/spread": event.shots.returns[0, :, -1].std()}

        nacre.train("pearl", "point-robot", hooks=[spread])

    Raises ValueError (UserError) for what cannot be, RunError where training could not go on. Ctrl-C saves what was
    done and raises KeyboardInterrupt; `resume` goes on from there.
    """
    if seeds is not None and seed != 0:
        raise UserError(f"give seed ({seed}) or seeds ({seeds!r}), not both")
    given = {"env_steps": env_steps, "minutes": minutes}
    values |= {name: value for name, value in given.items() if value is not None}
    chosen = seeds if seeds is not None else (seed,)
    _platform.prepare()
    plan = make_plan(
        algorithm, family, preset=preset, seeds=chosen, env_params=env_params, values=values, start_from=start_from
    )
    with as_interrupts():
        run = start(plan, out, hooks=functions(hooks), quiet=not progress)
    return _agent(run)


def resume(
    run: str | Path,
    *,
    env_steps: int | None = None,
    family: Any = None,
    progress: bool = True,
    hooks: Sequence[Hook] = (),
) -> Any:
    """Go on with a run that was stopped, to the numbers that it would have had without the stop; -> the agent.

    env_steps: train further than the run was meant to; no other setting can change. family: the Environment, where the
    run was trained on a Python object. Raises UserError as `train` does, and for a run that is finished, is being
    trained by another process, or whose checkpoints are all damaged.
    """
    _platform.prepare()
    with as_interrupts():
        opened = go_on(run, env_steps, family=family, hooks=functions(hooks), quiet=not progress)
    return _agent(opened)


def functions(hooks: Any) -> tuple[Hook, ...]:
    """Hooks, if they can be called; raises UserError before anything is made."""
    hooks = tuple(hooks) if isinstance(hooks, Sequence) else (hooks,)
    for hook in hooks:
        if not callable(hook):
            raise UserError(f"hooks must be functions of an Evaluation, got {hook!r}")
    return hooks


def _agent(run: runs.Run) -> Any:
    from nacre.agent import load

    return load(run.path, family=run.family)


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """Stopped becomes what Python programs expect."""
    try:
        yield
    except Stopped as stopped:
        if stopped.number == 2:  # SIGINT
            raise KeyboardInterrupt(*stopped.args) from stopped
        raise SystemExit(128 + stopped.number) from stopped


def start(
    plan: Plan, out: str | Path | None, *, hooks=(), quiet=False, hard=False, command: str | None = None
) -> runs.Run:
    """Make the run directory and train. Raises UserError, RunError, Stopped (which carries the run as `run`)."""
    versions = {**_versions.collect(), "started": time.time()}
    run = runs.create(out, plan.config, versions, command or plan.command, family=plan.env)
    with Lock(run.path):
        if plan.start:
            try:
                _head_start.keep(run, plan.start)
            except OSError as error:
                raise RunError(str(error)) from error
        execute(run, hooks=hooks, quiet=quiet, hard=hard)
    return run


def go_on(
    path: str | Path, env_steps: int | None = None, *, family: Any = None, hooks=(), quiet=False, hard=False
) -> runs.Run:
    """Resume: check that this may go on, say what is different, and train. Raises as `start`."""
    run = runs.open_run(path, family)
    run = dataclasses.replace(run, seeds=tuple(run.config["seeds"]))
    runs.check_path(run.path)
    with Lock(run.path):
        check_spec(run)
        run = extend(run, env_steps)
        warn_of_versions(run)
        execute(run, hooks=hooks, quiet=quiet, hard=hard)
    return run


def execute(run: runs.Run, *, hooks=(), quiet=False, hard=False) -> None:
    """Train what is not finished of a run that is locked."""
    config, groups = LoopConfig(**run.config["loop"]), groups_of(run)
    started = read_versions(run).get("started", time.time())
    try:
        with Stop(hard=hard, hint=f"; go on with: nacre train --resume {run.path}") as stop:
            for number, group in enumerate(groups):
                if is_finished(run, group):
                    continue
                minutes = config.minutes_of(len(group), len(run.config["seeds"]))
                with Progress(config.env_steps, minutes, quiet=quiet, seeds=len(group)) as progress:
                    which = (
                        f"seeds {' '.join(map(str, group))} as one program" if len(group) > 1 else f"seed {group[0]}"
                    )
                    of = f" ({number + 1} of {len(groups)})" if len(groups) > 1 else ""
                    begun = f", starting from {origin['run']}" if (origin := run.config.get("start_from")) else ""
                    progress.note(
                        f"training {shown(run.algorithm_name)} on {run.env_name}, {which}{of}{begun}, in {run.path}"
                    )
                    Loop(run, group, progress, stop, tuple(hooks), started).train()
    except Stopped as stopped:
        stopped.run = run
        raise
    except FloatingPointError as error:
        raise RunError(f"{error}. What was saved before stays in {run.path}") from error
    except Exception as error:
        keep_traceback(run, error)
        raise


def keep_traceback(run: runs.Run, error: Exception) -> None:
    """Into error.txt of the run, for whoever looks into it later."""
    if run.path.is_dir() and not isinstance(error, UserError):
        with contextlib.suppress(OSError):
            (run.path / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- resume


def groups_of(run: runs.Run) -> list[tuple[int, ...]]:
    """The seeds that are trained together, in their order."""
    together = run.config["loop"]["vectorise"] or len(run.seeds) == 1
    return [run.seeds] if together else [(seed,) for seed in run.seeds]


def is_done(run: runs.Run) -> bool:
    """Whether all seeds reached their end."""
    return all(is_finished(run, group) for group in groups_of(run))


def is_finished(run: runs.Run, group: tuple[int, ...]) -> bool:
    """Whether these seeds reached the end that config.json names."""
    loop = run.config["loop"]
    record = last_record(run, group)
    return record is not None and record.get("finished") == [loop["env_steps"], loop["minutes"]]


def last_record(run: runs.Run, group: tuple[int, ...]) -> dict[str, Any] | None:
    """The loop's record of the newest checkpoint; None where there is none or it cannot be used. Raises UserError where
    config.json was changed since."""
    whole = len(group) > 1 or not run.several
    folder = (run.path if whole else run.seed_dir(group[0])) / runs.STATE
    labels = _checkpoints.labels(folder)
    if not labels:
        return None
    path = folder / str(labels[-1])
    try:
        record = _checkpoints.read_record(path, run.identity)
    except _checkpoints.CheckpointError:
        return None
    refuse_changes(path, record["config"], run.config)
    return record["loop"]


def extend(run: runs.Run, env_steps: int | None) -> runs.Run:
    """The run with its new end, if one is given. Raises UserError for a run that is finished, or an end that lies
    back.
    """
    loop, done = run.config["loop"], is_done(run)
    if env_steps is not None and env_steps < loop["env_steps"]:
        raise UserError(f"--env-steps can only be raised: the run has {loop['env_steps']:,}, got {env_steps:,}")
    by_time = done and loop["minutes"] is not None
    stands = max((n for group in groups_of(run) if done for n in last_record(run, group)["env_steps"]), default=0)
    if done and (env_steps is None or (env_steps == loop["env_steps"] and not by_time)):
        why = f"its {loop['minutes']:g} minutes or " if by_time else ""
        least = loop["env_steps"] if by_time else f"{max(loop['env_steps'], stands) + 1} or more"
        raise UserError(
            f"{run.path} is finished: it reached {why}its {loop['env_steps']:,} env steps. To train further: "
            f"nacre train --resume {run.path} --env-steps {least}"
        )
    if env_steps is None or (env_steps == loop["env_steps"] and not by_time):
        return run
    if done and env_steps <= stands:
        raise UserError(f"{run.path} stands at {stands:,} env steps already: give more than these, got {env_steps:,}")
    LoopConfig(**{**loop, "env_steps": env_steps})  # checks the range
    keep = {"env_steps": env_steps, "minutes": None if by_time else loop["minutes"]}
    return runs.change_loop(run, **keep)


def check_spec(run: runs.Run) -> None:
    """Raise UserError where the family is not what the run began with; warn where only its tasks are others."""
    spec, tasks = run.changes()
    if spec:
        raise UserError(f"the family {run.env_name} is not what {run.path} began with: {'; '.join(spec)}")
    if tasks:
        print(f"warning: the family {run.env_name} is not what {run.path} began with: {tasks[0]}", file=sys.stderr)


def read_versions(run: runs.Run) -> dict[str, Any]:
    try:
        return json.loads((run.path / "versions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def warn_of_versions(run: runs.Run) -> None:
    """Say what is different from when the run was last trained, and keep it in versions.json."""
    versions = read_versions(run)
    now = _versions.collect()
    last = versions["resumed"][-1] if versions.get("resumed") else versions
    different = _versions.differences(last, now) if last else ["the versions that it began with are not known"]
    if different:
        print(
            f"warning: this is not what {run.path} was trained with so far, its numbers may differ from those of an "
            f"uninterrupted run: {'; '.join(different)}",
            file=sys.stderr,
        )
    _checkpoints.write_json(run.path / "versions.json", {**versions, "resumed": [*versions.get("resumed", []), now]})
