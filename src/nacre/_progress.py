"""What people see while a run trains: a live line on a terminal, one line at intervals elsewhere. Standard error
only.
"""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

LINE_SECONDS = 10.0  # between lines without a terminal
WINDOW = 60.0  # seconds over which rates are taken


class Measuring:
    """For `tell` of nacre.evaluate: says what a long measurement is at, and of a short one only that it began."""

    def __init__(self, split: str = "test"):
        print(f"measuring on the {split} tasks ...", file=sys.stderr, flush=True)
        self._begun = time.monotonic()

    def __call__(self, what: str) -> None:
        if time.monotonic() - self._begun > LINE_SECONDS:
            print(f"measuring {what} ...", file=sys.stderr, flush=True)


class Progress:
    """Counters of one training, shown now and then. quiet: warnings and nothing else."""

    def __init__(self, target: int, minutes: float | None, *, quiet: bool = False, seeds: int = 1):
        self._target, self._minutes, self._quiet, self._seeds = target, minutes, quiet, seeds
        self._live = sys.stderr.isatty() and not quiet
        self._status: Any = None
        self._history: deque[tuple[float, int, int, float]] = (
            deque()
        )  # time, env steps, gradient steps, seconds counted
        self._shots = ""
        self._said = time.monotonic()
        self._doing = ""

    def __enter__(self) -> "Progress":
        if self._live:
            from rich.console import Console

            self._status = Console(stderr=True).status("starting", spinner="dots")
            self._status.start()
        return self

    def __exit__(self, *error) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def note(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """One line that stays, also when quiet."""
        if self._status is not None:
            self._status.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
        self._said = time.monotonic()

    @contextlib.contextmanager
    def doing(self, what: str, *, line: bool = False) -> Iterator[None]:
        """Show what takes long. line: worth a line of its own without a terminal."""
        self._doing = what
        if self._status is not None:
            self._show()
        elif line:
            self.note(f"{what} ...")
        yield
        self._doing = ""

    def update(self, env_steps: int, updates: int, seconds: float) -> None:
        """Counters of the slowest seed after a slice; seconds: counted so far, evaluation included."""
        now = time.monotonic()
        self._history.append((now, env_steps, updates, seconds))
        while len(self._history) > 2 and self._history[1][0] < now - WINDOW:
            self._history.popleft()
        if self._status is not None:
            self._show()
        elif not self._quiet and now - self._said > LINE_SECONDS:
            self.note(self.text())

    def evaluated(self, env_steps: int, shots: list[float]) -> None:
        """Mean return per shot on the test tasks."""
        shown = shots if len(shots) <= 6 else [*shots[:5], shots[-1]]
        numbers = [f"{value:.4g}" for value in shown]
        if len(shots) > 6:
            numbers.insert(5, "..")
        self._shots = f"test shots {' '.join(numbers)}"
        self.note(self.text() if self._history else f"{env_steps:,} env steps · {self._shots}")

    def text(self) -> str:
        """Env steps, gradient steps, both rates, shots, time left."""
        if not self._history:
            return self._doing or "starting"
        _, env_steps, updates, seconds = self._history[-1]
        parts = [f"{env_steps:,}/{self._target:,} env steps", f"{updates:,} gradient steps"]
        if len(self._history) > 1:
            before, old_steps, old_updates, _ = self._history[0]
            elapsed = max(self._history[-1][0] - before, 1e-9)
            rates = (env_steps - old_steps) / elapsed, (updates - old_updates) / elapsed
            named = zip(rates, ("env steps/s", "gradient steps/s"), strict=True)
            parts += [", ".join(f"{_rate(rate)} {name}" for rate, name in named if rate > 0)] if any(rates) else []
            parts += self._left(env_steps, seconds, rates[0])
        each = "each of the seeds: " if self._seeds > 1 else ""
        return each + " · ".join([*parts, *filter(None, [self._shots, self._doing])])

    def _left(self, env_steps: int, seconds: float, rate: float) -> list[str]:
        ends = [(self._target - env_steps) / rate] if rate > 0 else []
        if self._minutes is not None:
            ends.append(60 * self._minutes - seconds)
        return [f"{duration(max(0.0, min(ends)))} left"] if ends else []

    def _show(self) -> None:
        self._status.update(self.text())


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
