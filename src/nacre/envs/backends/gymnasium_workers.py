"""The same rows in several processes, for environments that are slow: row i belongs to worker i modulo their number.

A worker is a plain `python -c` that is handed the family's `make`; it never imports the user's main script, so scripts need
no `if __name__ == "__main__"`. Workers end with the process that started them.
"""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from nacre.envs.backends.gymnasium_rows import Local, Outcome

CODE = "import sys; from nacre.envs.backends.gymnasium_workers import serve; serve(int(sys.argv[1]))"


class Worker:
    """One process and the pipe to it."""

    def __init__(self, name: str, payload: bytes):
        self.name = name
        self.pipe, theirs = Pipe()
        # JAX is imported by a worker but has nothing to do there: it must not take a GPU's memory
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", CODE, str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL)
        theirs.close()
        self.pipe.send_bytes(payload)

    def ask(self, method: str, *args: Any) -> None:
        try:
            self.pipe.send((method, args))
        except (BrokenPipeError, OSError) as error:
            raise self.died() from error

    def answer(self) -> Any:
        """The result of what was asked first and not answered yet; raises what the worker raised."""
        try:
            result, error = self.pipe.recv()
        except (EOFError, OSError) as gone:
            raise self.died() from gone
        if error is not None:
            raise error
        return result

    def died(self) -> RuntimeError:
        code = self.process.wait()
        return RuntimeError(f"{self.name}: a worker process ended (exit code {code}); its output above may say why")

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.wait()


class Shares:
    """The rows of one reset, spread over the workers."""

    def __init__(self, ticket: int, rows: int):
        self.ticket, self.rows = ticket, rows


class Workers:
    """As `Local`, with `count` processes that step their rows at the same time. They start when they are first needed."""

    def __init__(self, name: str, make: Callable, max_idle: int, info: tuple[str, ...], count: int):
        self.name, self.count = name, count
        self._payload = portable(name, make, max_idle, info)
        self._workers: list[Worker] = []
        self._tickets = itertools.count()
        self._left: list[int] = []  # tickets that nobody refers to any more

    def _all(self) -> list[Worker]:
        if not self._workers:
            self._workers = [Worker(self.name, self._payload) for _ in range(self.count)]
            weakref.finalize(self, end, self._workers)  # at the end of this process at the latest
        return self._workers

    def _each(self, method: str, shares: "Shares", ids: np.ndarray, *arrays: np.ndarray) -> list[tuple]:
        """Ask every worker that owns some of the rows `ids` -> (their places in ids, answer). All answers are read, also
        where one is an error."""
        workers, asked, out, failed = self._all(), [], [], None
        for w, worker in enumerate(workers):
            places = np.flatnonzero(ids % self.count == w)
            if len(places):
                worker.ask(method, shares.ticket, ids[places] // self.count, *(x[places] for x in arrays))
                asked.append((worker, places))
        for worker, places in asked:
            try:
                out.append((places, worker.answer()))
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return out

    def open(self, tasks: np.ndarray) -> Shares:
        shares = Shares(next(self._tickets), len(tasks))
        while self._left:
            self._close(self._left.pop())
        self._each("open", shares, np.arange(len(tasks)), tasks)
        return shares

    def close(self, shares: Shares) -> None:
        """Called when the rows are no longer referred to, at any moment; so the workers are told at the next opening."""
        self._left.append(shares.ticket)

    def _close(self, ticket: int) -> None:
        for worker in self._workers:
            worker.ask("close", ticket)
        for worker in self._workers:
            worker.answer()

    def begin(self, shares: Shares, ids: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        parts = self._each("begin", shares, ids, seeds)
        obs = np.empty((len(ids), *parts[0][1].shape[1:]), np.float32)
        for places, part in parts:
            obs[places] = part
        return obs

    def step(self, shares: Shares, ids: np.ndarray, actions: np.ndarray, steps: np.ndarray) -> Outcome:
        parts = self._each("step", shares, ids, actions, steps)
        first = parts[0][1]
        out = Outcome(*(np.empty((len(ids), *x.shape[1:]), x.dtype) for x in first))
        for places, part in parts:
            for whole, piece in zip(out, part, strict=True):
                whole[places] = piece
        return out


def end(workers: list[Worker]) -> None:
    for worker in workers:
        worker.end()
    workers.clear()


def portable(name: str, make: Callable, *options: Any) -> bytes:
    """What a worker needs, as bytes. Functions of the user's own file travel by value. Raises ValueError where they hold
    something that cannot be sent."""
    import cloudpickle

    module = sys.modules.get(getattr(make, "__module__", ""), None)
    by_value = module is not None and module.__name__.startswith("nacre_user_")
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps((name, make, *options))
    except Exception as error:
        raise ValueError(
            f"{name}: make cannot be sent to worker processes ({type(error).__name__}: {error}); build what it needs inside "
            "of it, or leave processes out"
        ) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


# ---------------------------------------------------------------- in the worker


def serve(descriptor: int) -> None:
    """Answer until the other end is gone. Ctrl-C, which reaches every process of a terminal, is for the other end to handle:
    it may still need its environments to come to a good end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe, opened = Connection(descriptor), {}
    try:
        local = Local(*pickle.loads(pipe.recv_bytes()))
        while True:
            method, args = pipe.recv()
            try:
                result, error = answer(local, opened, method, *args), None
            except Exception as raised:
                result, error = None, sendable(raised)
            pipe.send((result, error))
    except (EOFError, OSError):
        return


def answer(local: Local, opened: dict, method: str, ticket: int, *args: Any) -> Any:
    if method == "open":
        opened[ticket] = local.open(args[1])
        return None
    if method == "close":
        if ticket in opened:
            local.close(opened.pop(ticket))
        return None
    return getattr(local, method)(opened[ticket], *args)


def sendable(error: Exception) -> Exception:
    """The error itself where it survives the journey, else one with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return told
    return error
