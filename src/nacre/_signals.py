"""Ctrl-C and SIGTERM. In training the slice at hand is finished and saved, or given up after a few seconds; elsewhere a
command ends at once.

Python runs signal handlers only between instructions of the main thread, which a compilation or a native call can
hold for long. An Ear is a thread that hears of signals all the same.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

GRACE = 6.0  # seconds that a slice may still take after the first signal
SAVING = 120.0  # seconds that saving may take
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Training was asked to stop. Like KeyboardInterrupt, it is no error that code in between should handle."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {name_of(number)}")
        self.number = number


def name_of(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Ear:
    """Calls heard(signal number) in a thread of its own when SIGINT or SIGTERM comes for the first time. Main thread only."""

    def __init__(self, heard: Callable[[int], None]):
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._previous = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

        def listen() -> None:
            told = False
            while number := os.read(read, 1)[0]:  # until closed: Python goes on to write of every signal
                if number in SIGNALS and not told:
                    told = True
                    heard(number)
            os.close(read)

        threading.Thread(target=listen, name="nacre-signals", daemon=True).start()

    def close(self) -> None:
        signal.set_wakeup_fd(self._previous)
        os.write(self._write, b"\0")
        os.close(self._write)


@contextlib.contextmanager
def handlers(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Python's handler of both signals, while in the context."""
    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave(number: int, message: str) -> None:
    """End the process now, with the exit code of a signal."""
    print(message, file=sys.stderr, flush=True)
    os._exit(128 + number)


@contextlib.contextmanager
def leave_at_once() -> Iterator[None]:
    """In the context a signal ends the process. A Stop inside of it takes over for as long as it lasts."""
    if not in_main_thread():
        yield
        return
    ear = Ear(lambda number: leave(number, f"stopped by {name_of(number)}"))
    try:
        with handlers(lambda number, frame: None):
            yield
    finally:
        ear.close()


class Stop:
    """Within `with Stop() as stop:` signals do not interrupt a slice of work; `check()` after it raises Stopped.

    In `interruptible()` they raise Stopped at once, and a second signal does so anywhere. hard: where the main thread
    does not come back within GRACE seconds, end the process; what was saved before stays. In threads other than the
    main one signals are left alone. hint: how to go on, for the message of such an end.
    """

    def __init__(self, *, hard: bool = False, grace: float = GRACE, hint: str = ""):
        self.number: int | None = None  # of the signal that came
        self._hard, self._grace, self._hint = hard, grace, hint
        self._now = False  # raise at once
        self._over = threading.Event()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Stop":
        if in_main_thread():
            self._stack.enter_context(handlers(self._handle))
            if self._hard:
                self._stack.callback(Ear(self._wait).close)
        return self

    def __exit__(self, *error) -> None:
        self._over.set()
        self._stack.close()

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.number is not None:
            raise Stopped(self.number)

    @contextlib.contextmanager
    def interruptible(self, now: bool = True) -> Iterator[None]:
        """Work that may be given up in the middle (now False: only before and after)."""
        self.check()
        self._now = now
        try:
            yield
        finally:
            self._now = False
        self.check()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Work that must not be given up soon."""
        self._over.set()
        timer = threading.Timer(SAVING, self._end)
        timer.daemon = True
        if self._hard:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.number is not None
        self.number = number
        if self._now or again:
            self._now = False
            raise Stopped(number)

    def _wait(self, number: int) -> None:
        if not self._over.wait(self._grace):
            self.number = number
            self._end()

    def _end(self) -> None:
        number = self.number or signal.SIGTERM
        leave(
            number,
            f"stopped by {name_of(number)} in the middle of a slice of work; what was saved before stays{self._hint}",
        )
