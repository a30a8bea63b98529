"""What a configuration checks at the moment it is made: each field against its annotation, and against its range."""

import dataclasses
import functools
import math
import types
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

hints = functools.cache(get_type_hints)


def require(config: Any, *, positive: str = "", not_negative: str = "", fraction: str = "", layers: str = "") -> None:
    """Check all fields of a dataclass against their annotations, and those named, blanks between, against a range.

    fraction: in (0, 1]. layers: sizes of at least one layer. Raises ValueError that names the field and what it may be.
    """
    for field in dataclasses.fields(config):
        require_type(field.name, getattr(config, field.name), hints(type(config))[field.name])
    _require(config, positive, lambda x: x > 0, "be positive")
    _require(config, not_negative, lambda x: x >= 0, "not be negative")
    _require(config, fraction, lambda x: 0 < x <= 1, "lie in (0, 1]")
    _require(config, layers, lambda x: len(x) > 0 and min(x) > 0, "name at least one layer of at least one unit")


def _require(config: Any, names: str, good: Callable[[Any], bool], what: str) -> None:
    for name in names.split():
        value = getattr(config, name)
        if not good(value):
            raise ValueError(f"{name} must {what}, got {value!r}")


def require_type(name: str, value: Any, hint: Any) -> None:
    """Raise ValueError unless the value is of the annotated type, and finite."""
    if not fits(value, hint):
        raise ValueError(f"{name} must be {describe(hint)}, got {value!r}")
    if isinstance(value, Real) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated type: numbers, strings, Literal, unions and tuples of these."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if args[-1] is Ellipsis:
            return all(fits(x, args[0]) for x in value)
        return len(value) == len(args) and all(map(fits, value, args))
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def describe(hint: Any) -> str:
    """An annotation in words."""
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a string", type(None): "None"}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, args))
    if origin is tuple and args[-1] is Ellipsis:
        return f"a tuple, each entry {describe(args[0])}"
    return words.get(hint, str(hint))
