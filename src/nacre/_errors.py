"""The two ways in which a command ends badly, and what is said of errors and of seeds in several places."""

from typing import Any


class UserError(ValueError):
    """A mistake in what the user gave. The message says the value, what was expected and what to do. Exit code 2."""


class RunError(RuntimeError):
    """A run that could not go on: numbers that are not finite, a full disk, a vanished directory. Exit code 1."""


def told(error: Exception, *more: str) -> str:
    """An error of a user's code in a line: its kind and words, what else is known, its notes."""
    return "; ".join([f"{type(error).__name__}: {error}", *more, *getattr(error, "__notes__", ())])


def check_seed(seed: Any) -> None:
    """Raise UserError unless a JAX key can be made of it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise UserError(f"a seed must be a whole number from 0 to 2147483647, got {seed!r}")
