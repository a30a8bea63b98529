"""The same rows in several processes, for environments that are slow: row i belongs to worker i modulo their number.

A worker is a plain `python -c` that is handed the family's `make`; it never imports the user's main script, so scripts need
no `if __name__ == "__main__"`. Workers end with the process that started them.
"""

import contextlib
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from nacre.envs.backends.gymnasium_rows import Local, Outcome

# Ctrl-C and what ends a whole group of processes are for the other end to handle, which may still need its environments to come
# to a good end; so before anything is imported. A handler, since what is ignored stays so in an environment's own programs.
CODE = (
    "import signal, sys; nothing = lambda *_: None; "
    "signal.signal(signal.SIGINT, nothing); signal.signal(signal.SIGTERM, nothing); "
    "from nacre.envs.backends.gymnasium_workers import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)
PATIENCE = 3.0  # seconds for a worker to close its environments


class WorkerError(RuntimeError):
    """A worker process is gone."""


class Worker:
    """One process and the pipe to it."""

    def __init__(self, name: str, payload: bytes):
        self.name = name
        self.pipe, theirs = Pipe()
        # JAX is imported by a worker but has nothing to do there: it must not take a GPU's memory
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", CODE, str(theirs.fileno()), str(os.getpid())]
        files = {"stdin": subprocess.DEVNULL, "stdout": 2}  # standard output is for the answers of commands
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env, **files)
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

    def died(self) -> WorkerError:
        code = self.process.wait()
        return WorkerError(f"{self.name}: a worker process ended (exit code {code}); its output above may say why")

    def end(self) -> None:
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Shares:
    """The rows of one reset, spread over the workers."""

    def __init__(self, ticket: int, rows: int):
        self.ticket, self.rows = ticket, rows


class Workers:
    """As `Local`, with `count` processes that step their rows at the same time. They start when they are first needed."""

    def __init__(self, count: int, name: str, make: Callable, *options: Any):
        """options: further arguments of Local."""
        self.name, self.count = name, count
        self._payload = portable(name, make, *options)
        self._workers: list[Worker] = []
        self._tickets = itertools.count()
        self._left: list[int] = []  # tickets that nobody refers to any more

    def _all(self) -> list[Worker]:
        if not self._workers:
            self._workers = [Worker(self.name, self._payload) for _ in range(self.count)]
            weakref.finalize(self, end, self._workers)  # at the end of this process at the latest
        return self._workers

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """Every question has its answer: where one is left over (an interruption, a worker that died), it would answer the next
        question. So all workers end then, and others start when they are needed."""
        try:
            yield
        except BaseException:
            end(self._workers)
            raise

    def _each(self, method: str, shares: "Shares", ids: np.ndarray, *arrays: np.ndarray) -> list[tuple]:
        """Ask every worker that owns some of the rows `ids` -> (their places in ids, answer). All answers are read, also
        where one is an error."""
        asked, out, failed = [], [], None
        with self._in_step():
            for w, worker in enumerate(self._all()):
                places = np.flatnonzero(ids % self.count == w)
                if len(places):
                    worker.ask(method, shares.ticket, ids[places] // self.count, *(x[places] for x in arrays))
                    asked.append((worker, places))
            for worker, places in asked:
                try:
                    out.append((places, worker.answer()))
                except WorkerError:
                    raise
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
        with self._in_step():
            for worker in self._workers:
                worker.ask("close", ticket)
            for worker in self._workers:
                worker.answer()

    def shutdown(self) -> None:
        """End the workers, and with them their environments."""
        end(self._workers)

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
        worker.pipe.close()  # all at once, so that they close their environments at the same time
    for worker in workers:
        worker.end()
    workers.clear()


def portable(name: str, make: Callable, *options: Any) -> bytes:
    """What a worker needs, as bytes. Functions of the user's own file travel by value. Raises ValueError where they hold
    something that cannot be sent."""
    import cloudpickle

    by_value = [module for name, module in list(sys.modules.items()) if name.startswith("nacre_user_")]
    for module in by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps((name, make, *options))
    except Exception as error:
        raise ValueError(
            f"{name}: make cannot be sent to worker processes ({type(error).__name__}: {error}); build what it needs inside "
            "of it, or leave processes out"
        ) from error
    finally:
        for module in by_value:
            cloudpickle.unregister_pickle_by_value(module)


# ---------------------------------------------------------------- in the worker


def serve(descriptor: int, parent: int) -> None:
    """Answer until the other end is gone, also if that happens while the environment does not come back."""
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    pipe, opened, local = Connection(descriptor), {}, None
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
        if local is not None:
            local.shutdown()
            for rows in opened.values():
                local.close(rows)


def end_with(parent: int) -> None:
    """End this process soon after its parent, whatever it does."""
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(PATIENCE)
    os._exit(1)


def answer(local: Local, opened: dict, method: str, ticket: int, *args: Any) -> Any:
    if method == "open":
        opened[ticket] = local.open(args[1])
        return None
    if method == "close":
        if ticket in opened:
            local.close(opened.pop(ticket))
        return None
    if ticket not in opened:
        raise RuntimeError(f"{local.name}: these environments ended with the worker that held them; reset the family")
    return getattr(local, method)(opened[ticket], *args)


def sendable(error: Exception) -> Exception:
    """The error itself where it survives the journey, else one with its text; and the place, which stays behind."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    error.add_note(f"in a worker process, at line {frame.lineno} of {frame.filename}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        return told
    return error
