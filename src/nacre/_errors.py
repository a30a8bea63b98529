"""The two ways in which a command ends badly, and what is said of errors and of seeds in several places."""

import operator
from typing import Any


class UserError(ValueError):
    """A mistake in what the user gave. The message says the value, what was expected and what to do. Exit code 2."""


class RunError(RuntimeError):
    """A run that could not go on: numbers that are not finite, a full disk, a vanished directory. Exit code 1."""


def told(error: Exception, *more: str) -> str:
    """An error of a user's code in a line: its kind and words, what else is known, its notes."""
    return "; ".join([f"{type(error).__name__}: {error}", *more, *getattr(error, "__notes__", ())])


def check_seed(seed: Any) -> int:
    """The seed as an int; raises UserError unless a JAX key can be made of it."""
    number = whole(seed)
    if number is None or not 0 <= number < 2**31:
        raise UserError(f"a seed must be a whole number from 0 to 2147483647, got {seed!r}")
    return number


def check_count(name: str, value: Any) -> int:
    """A count as an int; raises UserError unless it is a whole number from 1 on."""
    number = whole(value)
    if number is None or number < 1:
        raise UserError(f"{name} must be at least 1, got {value!r}" if number is not None else
                        f"{name} must be a whole number, got {value!r}")  # fmt: skip
    return number


def whole(value: Any) -> int | None:
    """An int from Python's or NumPy's kinds of whole numbers; None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
