"""Writes what a run tells while it trains: metrics.jsonl, TensorBoard events, evaluations. And the lock of a run."""

import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from nacre._errors import UserError
from nacre._files import whole_file

FLUSH_SECONDS = 10.0  # after which events are on disk


class Lock:
    """Held while a run is written to. The system frees it when the process ends, however that happens."""

    def __init__(self, run: Path):
        """Raises UserError if another process trains this run."""
        self._file = (run / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(f"{run} is being trained by {holder}; wait for it, or stop it first") from error
        except OSError as error:
            print(
                f"warning: {run} lies where files cannot be locked ({error.strerror}): see that only one process trains it",
                file=sys.stderr,
            )
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error) -> None:
        self.release()


class Records:
    """The files of one seed. Every line is on disk (in the system's hands) when `write` returns.

    offset: bytes of metrics.jsonl that count (at a resume: as of the checkpoint, at `env_steps`; what was written after is
    dropped, with the evaluations and events that belong to it). started: Unix time of the run's start, for TensorBoard.
    """

    def __init__(
        self, folder: Path, offset: int = 0, env_steps: int = 0, *, started: float = 0.0, tensorboard: bool = True
    ):
        self.folder = folder
        self._started = started
        self._shown: dict[str, int] = {}  # env steps of the last event of each metric
        self._path = folder / "metrics.jsonl"
        (folder / "evaluations").mkdir(parents=True, exist_ok=True)
        self.short = _truncate(self._path, offset)
        lines, bad = _readable(self._path)
        self.short |= bad
        evaluated = {str(line["env_steps"]) for line in lines if line["kind"] == "evaluation"}
        for path in (folder / "evaluations").glob("*"):
            lost_line = self.short and path.suffix == ".npz" and path.stem.isdigit() and int(path.stem) < env_steps
            if path.stem not in evaluated and not lost_line:
                path.unlink()
        for path in folder.glob("events.out.tfevents.*"):  # derived from metrics.jsonl: written anew
            path.unlink()
        self._file = self._path.open("ab")
        self._events = Events(folder) if tensorboard else None
        for line in lines:
            self._write_events(line)

    @property
    def offset(self) -> int:
        """Bytes of metrics.jsonl."""
        return self._file.tell()

    def write(self, line: dict[str, Any]) -> None:
        """line: kind, env_steps, updates, seconds, evaluation_seconds and metrics (finite numbers by name).

        Raises OSError where the disk is full or the directory is gone.
        """
        if not self._path.exists():
            raise FileNotFoundError(f"{self._path} is gone")
        metrics = {name: number(value) for name, value in sorted(line["metrics"].items())}
        line = {**line, "metrics": metrics}
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        self._write_events(line)

    def write_evaluation(self, env_steps: int, arrays: dict[str, np.ndarray]) -> None:
        """evaluations/<env_steps>.npz, whole or not at all."""
        folder = self.folder / "evaluations"
        with whole_file(folder / f"{env_steps}.npz") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def _write_events(self, line: dict[str, Any]) -> None:
        if self._events is None:
            return
        when, step = self._started + line["seconds"] + line["evaluation_seconds"], line["env_steps"]
        for name, value in line["metrics"].items():
            tag = f"{line['kind']}/{name}"
            if self._shown.get(tag) != step:  # one point of each metric per count of env steps
                self._events.add(tag, value, step, when)
                self._shown[tag] = step

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            if self._events is not None:
                self._events.close()


def number(value: Any) -> float | int:
    """A Python number, the shortest one that means the same in the precision it was computed in."""
    x = np.asarray(value)[()]
    if isinstance(x, np.bool_ | np.integer):
        return int(x)
    return float(str(np.float32(x))) if x.dtype.itemsize <= 4 else float(x)


def _truncate(path: Path, offset: int) -> bool:
    """Cut a file after `offset` bytes and at the end of a line; -> whether it had fewer."""
    path.touch()
    size = path.stat().st_size
    if size > offset:
        os.truncate(path, offset)
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(path, whole)
    return size < offset


def _readable(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of metrics.jsonl, and whether some were damaged, which are taken out of the file."""
    lines, kept = [], []
    text = path.read_bytes().splitlines(keepends=True)
    for line in text:
        try:
            lines.append({"kind": "", "env_steps": -1} | json.loads(line))
            kept.append(line)
        except (ValueError, TypeError):
            continue
    if len(kept) < len(text):
        with whole_file(path) as file:
            file.write(b"".join(kept))
    return lines, len(kept) < len(text)


class Events:
    """TensorBoard's events of a run. Written by this thread: SummaryWriter has one of its own, which ends without a word where the
    disk is full, and then blocks whoever has more to write."""

    def __init__(self, folder: Path):
        from tensorboardX.event_file_writer import EventsWriter

        self._file, self._flushed = EventsWriter(str(folder / "events")), time.monotonic()

    def add(self, tag: str, value: float, step: int, when: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._file.write_event(Event(summary=scalar(tag, value), step=step, wall_time=when))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()
