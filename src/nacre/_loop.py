"""The only training loop. It knows algorithms and families through their protocols alone.

What a loop needs to go on is its state (all that the algorithm changes) and its Record (counters, clock, what was
written). Both are saved together between two slices of work. Every random number comes from the seed's key by named
folds and the number of the slice, so that a loop that goes on from a checkpoint does what the uninterrupted one would
have done.
"""

import contextlib
import dataclasses
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nacre import _checkpoints, _head_start, evaluate, runs
from nacre._errors import RunError, UserError
from nacre._loop_parts import Evaluation, Hook, Record, fold, refuse_changes, refuse_lost_state
from nacre._progress import Progress
from nacre._records import Records
from nacre._settings import LoopConfig
from nacre._signals import Stop, Stopped
from nacre.types import spread_tasks

KEEP = 2  # checkpoints of the whole state
SAVE_SHARE = 0.05  # of the time may go into saving


@dataclass
class Loop:
    """Training of one seed, or of several as one program."""

    run: runs.Run
    seeds: tuple[int, ...]
    progress: Progress
    stop: Stop
    hooks: tuple[Hook, ...] = ()
    started: float = 0.0  # Unix time of the run's start

    def __post_init__(self):
        self.env, self.algorithm = self.run.env, self.run.algorithm
        self.config = LoopConfig(**self.run.config["loop"])
        self.test_tasks = spread_tasks(self.env.test_tasks, self.config.eval_tasks)
        self.together = len(self.seeds) > 1
        whole = self.together or not self.run.several
        self.folder = (self.run.path if whole else self.run.seed_dir(self.seeds[0])) / runs.STATE
        keys = [jax.random.key(seed) for seed in self.seeds]
        self.key = jnp.stack(keys) if self.together else keys[0]
        self.writer = _checkpoints.Writer()
        self.record = Record(
            env_steps=[0] * len(self.seeds), updates=[0] * len(self.seeds), bytes=[0] * len(self.seeds)
        )
        self.compiled: set[Any] = set()
        self.steady = False  # state, record and files belong together, so they may be saved
        self.iterate = self._program()

    # ---------------------------------------------------------------------------------------------------- programs

    def each(self, function: Callable) -> Callable:
        """A function of one seed's arrays, for all seeds of this loop."""
        return jax.vmap(function) if self.together else function

    def _program(self) -> Callable:
        """iterate(state, key, phase) -> state, metrics; compiled as a whole for families in JAX. Consumes the state."""

        def iterate(state, key, phase):
            return self.each(lambda s, k: self.algorithm.iterate(s, self.env, k, phase))(state, key)

        return jax.jit(iterate, static_argnums=2, donate_argnums=0) if self.env.spec.jittable else iterate

    def fresh(self, sized_for: int) -> Any:
        """The state of a new run; under eval_shape its layout. Types are made as definite as those of restored
        arrays.
        """

        def init(key):
            state = self.algorithm.init(fold(key, "init"), self.env, sized_for)
            return jax.tree.map(lambda x: x if _checkpoints.is_key(x) else x.astype(x.dtype), state)

        return self.each(init)(self.key)

    # --------------------------------------------------------------------------------------------------- beginning

    def begin(self) -> None:
        """Take up the last good checkpoint, or start. Raises UserError if there are checkpoints but none is good."""
        self.state = self._restore()
        if self.state is None:
            self.record.sized_for = self.config.env_steps
            self.record.evaluated = [-1, -1]
            self.state = jax.jit(self.fresh, static_argnums=0)(self.config.env_steps)
            if self.run.config.get("start_from"):
                self.state = _head_start.put(self.run, self.seeds, self.state, self.together)
        elif self.config.env_steps > self.record.sized_for:
            self.state = self._grow(self.state)
        _checkpoints.clean(self.folder, self.record.slices)
        self.records = []
        for seed, offset, steps in zip(self.seeds, self.record.bytes, self.record.env_steps, strict=True):
            folder = self.run.seed_dir(seed)
            _checkpoints.clean(folder / runs.PARAMS, steps)
            files = Records(folder, offset, steps, started=self.started, tensorboard=self.config.tensorboard)
            self.records.append(files)
            if files.short:
                self.progress.warn(
                    f"warning: {folder}/metrics.jsonl is shorter than at the checkpoint; lines are missing"
                )

    def _restore(self) -> Any:
        labels = _checkpoints.labels(self.folder)
        if not labels:
            refuse_lost_state(self.run, self.seeds)
        trouble = []
        for label in reversed(labels):
            path = self.folder / str(label)
            try:
                record = _checkpoints.read_record(path, self.run.identity)
                if trouble:
                    self.progress.warn(f"going on from the checkpoint before it, {path}")
                refuse_changes(path, record.get("config", {}), self.run.config)
                like = jax.eval_shape(lambda n=record["loop"]["sized_for"]: self.fresh(n))
                state, record = _checkpoints.load(path, like, self.run.identity)
                record = Record(**record["loop"])
            except (_checkpoints.CheckpointError, KeyError, TypeError) as error:  # the latter: another Nacre's record
                trouble.append(str(error))
                self.progress.warn(f"warning: {error}")
                continue
            self.record = record
            return state
        if trouble:
            raise UserError(
                f"no checkpoint of {self.run.path} can be used: {trouble[-1]}; start a new run with the command in "
                f"{self.run.path / 'command.txt'}"
            )
        return None

    def _grow(self, state: Any) -> Any:
        """The same state with room for more experience, as far as the algorithm can."""
        target = self.config.env_steps
        if hasattr(self.algorithm, "grow"):
            self.record.sized_for = target
            return self.each(lambda s: self.algorithm.grow(s, self.env, target))(state)
        now, wanted = (jax.eval_shape(lambda n=n: self.fresh(n)) for n in (self.record.sized_for, target))
        if _layouts(now) != _layouts(wanted):
            self.progress.warn("warning: the replay keeps its size; the oldest experience will be overwritten")
        return state

    # ---------------------------------------------------------------------------------------------------- the loop

    def train(self) -> None:
        """Until env_steps or minutes are reached. Raises Stopped on a signal, RunError where training cannot go on; the
        last good checkpoint stays either way."""
        try:
            self._train()
        except OSError as error:
            raise RunError(
                f"{error}{self._where(error)}; what was written before stays, and --resume goes on from there"
            ) from error
        finally:
            self.writer.close()
            for files in getattr(self, "records", []):
                with contextlib.suppress(OSError):  # of a full disk was told already
                    files.close()

    def _where(self, error: OSError) -> str:
        """More about an error that is not of our own files: most likely the environment's."""
        own = error.errno in (None, errno.ENOSPC, errno.EDQUOT) or str(error.filename or "").startswith(
            str(self.run.path)
        )
        return "" if own else f" (where it came from stands in {self.run.path / 'error.txt'})"

    def _train(self) -> None:
        try:
            self.begin()
            self._saved = time.monotonic()
            self.steady = True
            while True:
                phase = self.algorithm.phase(self.state, self.env)
                late = self.out_of_time()
                if late or self.collects(phase):
                    self.evaluate_if_due(last=late or self.reached())
                if late or (self.reached() and self.collects(phase)):
                    break
                self.slice(phase)
                self.stop.check()
                self.writer.check()
                self.save_if_due()
            self.record.finished = [self.config.env_steps, self.config.minutes]
            self.save()
        except Stopped:
            if self.steady:
                with self.stop.saving():
                    self.save()
            raise

    @property
    def finished(self) -> bool:
        return self.record.finished == [self.config.env_steps, self.config.minutes]

    def collects(self, phase: Any) -> bool:
        """Whether the next slice adds experience. An algorithm that does not say is taken to do so always."""
        return getattr(self.algorithm, "collects", lambda phase: True)(phase)

    def reached(self) -> bool:
        return min(self.record.env_steps) >= self.config.env_steps

    def out_of_time(self) -> bool:
        minutes = self.config.minutes_of(len(self.seeds), len(self.run.config["seeds"]))
        return minutes is not None and self.record.seconds + self.record.evaluation_seconds >= 60 * minutes

    def slice(self, phase: Any) -> None:
        """One slice of work, and its line of metrics."""
        record, start, self.steady = self.record, time.monotonic(), False
        before = record.env_steps, record.updates
        number = record.slices
        key = self.each(lambda k: jax.random.fold_in(fold(k, "slices"), number))(self.key)
        first = phase not in self.compiled
        with self.progress.doing(f"compiling {phase}" if first else "", line=first):
            state, metrics = self.iterate(self.state, key, phase)
            self.state = state
            metrics, steps, updates = jax.device_get((metrics, state.env_steps, state.updates))
        self.compiled.add(phase)
        record.env_steps, record.updates = _numbers(steps), _numbers(updates)
        record.slices += 1
        took = time.monotonic() - start
        record.seconds += took
        for i, seed in enumerate(self.seeds):
            one = {name: value[i] if self.together else value for name, value in metrics.items()}
            self.require_finite(one, seed, i)
            rates = {
                "rate/env_steps": record.env_steps[i] - before[0][i],
                "rate/updates": record.updates[i] - before[1][i],
            }
            self.write("train", i, {**one, **{name: n / took for name, n in rates.items() if n}})
        self.steady = True
        total = record.seconds + record.evaluation_seconds
        self.progress.update(min(record.env_steps), min(record.updates), total)

    def write(self, kind: str, i: int, metrics: dict[str, Any]) -> None:
        """A line of metrics.jsonl of the i-th seed."""
        record = self.record
        self.records[i].write({
            "kind": kind, "env_steps": record.env_steps[i], "updates": record.updates[i],
            "seconds": round(record.seconds, 3), "evaluation_seconds": round(record.evaluation_seconds, 3),
            "metrics": metrics,
        })  # fmt: skip

    def require_finite(self, metrics: dict[str, Any], seed: int, i: int) -> None:
        """Raise RunError, naming metric, env step and seed, for a number that is not finite."""
        for name, value in metrics.items():
            if not np.all(np.isfinite(value)):
                known = getattr(self.algorithm, "trouble", lambda metrics: "")(metrics)
                raise RunError(
                    f"{name} is {value} at env step {self.record.env_steps[i]:,} (gradient step "
                    f"{self.record.updates[i]:,}) of seed {seed}: training diverged, or the family gives rewards or "
                    f"observations that are not finite. {known}A lower learning rate often helps; nacre check-env tests the "
                    f"family. What was saved before stays in {self.run.path}"
                )

    # -------------------------------------------------------------------------------------------------- evaluation

    def evaluate_if_due(self, *, last: bool) -> None:
        """Meta-test where env_steps passed the next multiple of eval_every; at the start and (last) at the end. Not
        again as long as nothing was learnt."""
        record, steps = self.record, min(self.record.env_steps)
        learnt = record.evaluated[1] != min(record.updates)
        due = record.evaluations == 0 or (learnt and steps >= record.next_evaluation)
        if not due and not (last and record.evaluated != [steps, min(record.updates)]):
            return
        start, line = time.monotonic(), record.evaluations == 0
        known = "evaluation" in self.compiled  # an exception in the middle of a compilation can end in a crash
        with self.stop.interruptible(now=known), self.progress.doing("evaluating", line=line):
            found = [self.measure(i) for i in range(len(self.seeds))]
        self.compiled.add("evaluation")
        self.steady = False
        record.evaluation_seconds += time.monotonic() - start
        record.evaluations += 1
        record.next_evaluation = (steps // self.config.eval_every + 1) * self.config.eval_every
        record.evaluated = [steps, min(record.updates)]
        for i, (params, shots, metrics) in enumerate(found):
            self.records[i].write_evaluation(record.env_steps[i], evaluate.evaluation_arrays(shots, self.test_tasks))
            self.write("evaluation", i, metrics)
            origin = {"identity": self.run.identity, "updates": record.updates[i]}
            folder = self.run.seed_dir(self.seeds[i]) / runs.PARAMS
            self.writer.save(folder, record.env_steps[i], params, origin)
        self.steady = True
        mean = np.mean([shots.returns.mean(axis=(0, 1)) for _, shots, _ in found], axis=0)
        self.progress.evaluated(steps, mean.tolist())

    def measure(self, i: int) -> tuple[Any, evaluate.Shots, dict[str, float]]:
        """Parameters of one seed, its meta-test and numbers of it."""
        state, config = self.state, self.config
        if self.together:
            state = jax.tree.map(lambda x: x[i], state)
        params = jax.tree.map(jnp.copy, self.algorithm.params(state))
        self.require_finite(_checkpoints.to_host(params), self.seeds[i], i)
        shots = evaluate.meta_test(
            self.env, self.algorithm, params, self.test_tasks, evaluate.evaluation_key(),
            episodes=config.eval_episodes, repetitions=config.eval_repetitions,
        )  # fmt: skip
        mean = shots.returns.mean(axis=(0, 1))
        metrics = {f"return/shot_{k}": float(value) for k, value in enumerate(mean)}
        metrics |= {"return/trial": float(mean.sum()), "evaluation/env_steps": shots.env_steps}
        record = self.record
        for hook in self.hooks:
            event = Evaluation(
                self.run.path, self.seeds[i], record.env_steps[i], record.updates[i], record.seconds, dict(metrics),
                shots, self.test_tasks, self.env, self.algorithm, params,
            )  # fmt: skip
            metrics |= hook(event)
        self.require_finite(metrics, self.seeds[i], i)
        return params, shots, metrics

    # ------------------------------------------------------------------------------------------------- checkpoints

    def save_if_due(self) -> None:
        pause = max(self.config.checkpoint_seconds, self.writer.seconds / SAVE_SHARE)
        if time.monotonic() - self._saved >= pause and not self.writer.busy:
            self._save_state()

    def save(self) -> None:
        """Now, and until it is on disk."""
        self._save_state()
        self.writer.wait()

    def _save_state(self) -> None:
        for i, seed in enumerate(self.seeds):
            state = jax.tree.map(lambda x, i=i: x[i], self.state) if self.together else self.state
            self.require_finite(_checkpoints.to_host(self.algorithm.params(state)), seed, i)
        self.record.bytes = [files.offset for files in self.records]
        config = {name: value for name, value in self.run.config.items() if name != "spec"}
        record = {"identity": self.run.identity, "loop": dataclasses.asdict(self.record), "config": config}
        self.writer.save(self.folder, self.record.slices, self.state, record, keep=KEEP)
        self._saved = time.monotonic()


def _layouts(tree: Any) -> list[tuple]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _numbers(counter: Any) -> list[int]:
    return [int(n) for n in np.reshape(counter, -1)]
