"""Names of the algorithms. Holds strings only: an algorithm's file is imported when it is asked for."""

import dataclasses
from typing import Any, get_type_hints

from nacre._checks import hints, require_type
from nacre.envs.files import is_file, load_from_file
from nacre.envs.registry import load_object, unknown

# name -> (module:class, module:config class, one line for `nacre list`)
ALGORITHMS: dict[str, tuple[str, str, str]] = {
    "pearl": (
        "nacre.algorithms.pearl:PEARL",
        "nacre.algorithms.pearl:Config",
        "off-policy; infers a latent task variable by posterior sampling (Rakelly et al. 2019)",
    ),
    "rl2": (
        "nacre.algorithms.rl2:RL2",
        "nacre.algorithms.rl2:Config",
        "on-policy; a recurrent policy whose memory lasts for the whole trial (Duan et al. 2016)",
    ),
    "maml": (
        "nacre.algorithms.maml:MAML",
        "nacre.algorithms.maml:Config",
        "on-policy; adapts its parameters by policy gradients, meta-trained by TRPO (Finn et al. 2017)",
    ),
    "e-maml": (
        "nacre.algorithms.maml:EMAML",
        "nacre.algorithms.maml:ExploringConfig",
        "MAML whose exploration is credited with what comes of it (Stadie et al. 2018)",
    ),
    "promp": (
        "nacre.algorithms.promp:ProMP",
        "nacre.algorithms.promp:Config",
        "on-policy; adapts its parameters by policy gradients, several clipped outer steps (Rothfuss et al. 2019)",
    ),
    "maesn": (
        "nacre.algorithms.maesn:MAESN",
        "nacre.algorithms.maesn:Config",
        "on-policy; adapts a latent variable of its policy by gradients, for exploration (Gupta et al. 2018)",
    ),
    "teacher": (
        "nacre.algorithms.teacher:Teacher",
        "nacre.algorithms.teacher:Config",
        "off-policy, one task; a teacher learns to explore by what its data does for the student (Xu et al. 2018)",
    ),
    "varibad": (
        "nacre.algorithms.varibad:VariBAD",
        "nacre.algorithms.varibad:Config",
        "on-policy; acts on a belief that is learnt by predicting the task (Zintgraf et al. 2020)",
    ),
}


def list_algorithms() -> list[tuple[str, str]]:
    """(name, one line) of each registered algorithm; imports nothing."""
    return [(name, line) for name, (_, _, line) in ALGORITHMS.items()]


def algorithm_class(name: str) -> type:
    """The class of a registered algorithm, of `path/file.py:Class` or of `module:Class`. Raises ValueError, with close matches."""
    return _own(name) if _is_own(name) else load_object(_entry(name)[0])


def config_class(name: str) -> type:
    """The frozen dataclass of an algorithm's settings; of one's own algorithm the type of its field `config`."""
    return get_type_hints(_own(name))["config"] if _is_own(name) else load_object(_entry(name)[1])


def _is_own(name: str) -> bool:
    """Whether the name means a class outside of Nacre."""
    return ":" in name or is_file(name)


def _entry(name: str) -> tuple[str, str, str]:
    if name not in ALGORITHMS:
        hint = "An algorithm of your own is path/file.py:Class, or module:Class."
        raise ValueError(f"{unknown('algorithm', name, list(ALGORITHMS))} {hint}")
    return ALGORITHMS[name]


def _own(name: str) -> type:
    """A class outside of Nacre, if it can be an Algorithm."""
    try:
        found = load_from_file(name, "algorithm") if is_file(name) else load_object(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"algorithm {name!r} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise ValueError(f"algorithm {name!r} is {found!r}; expected a class like nacre.types.Algorithm")
    fields = [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
    needed = [what for what in METHODS if what != "observe" or getattr(found, "observes", True)]
    missing = [what for what in needed if not hasattr(found, what)]
    missing += [field for field in ("config", "spec") if field not in fields]
    if missing or not dataclasses.is_dataclass(get_type_hints(found)["config"]):
        lacks = f"is without {', '.join(missing)}" if missing else "has a config that is no dataclass"
        raise ValueError(
            f"algorithm {name!r} {lacks}; expected a frozen dataclass with the fields config (a dataclass of its settings, by its "
            "annotation) and spec, and the methods of nacre.types.Algorithm"
        )
    return found


METHODS = ("init", "params", "begin", "act", "observe", "adapt", "phase", "iterate")  # of nacre.types.Algorithm


def nearest(cls: type) -> str | None:
    """The registered algorithm whose class this is or extends, None where there is none."""
    names = {path: name for name, (path, _, _) in ALGORITHMS.items()}
    paths = [f"{base.__module__}:{base.__qualname__}" for base in cls.__mro__]
    return next((names[path] for path in paths if path in names), None)


def shown(name: str) -> str:
    """An algorithm's name as people read it: without the file or the module that it is in."""
    return name.rpartition(":")[2]


def make_algorithm(name: str, spec: Any, values: dict[str, Any]) -> Any:
    """The algorithm for one family's EnvSpec; values: fields of its Config, lists standing for tuples.

    Raises ValueError for names, fields and values that it does not know.
    """
    return algorithm_class(name)(make_config(config_class(name), values), spec)


def name_of(algorithm: Any) -> str:
    """The name under which `algorithm_class` finds the class of this object."""
    cls = type(algorithm)
    path = f"{cls.__module__}:{cls.__qualname__}"
    return next((name for name, entry in ALGORITHMS.items() if entry[0] == path), path)


def make_config(cls: type, values: dict[str, Any]) -> Any:
    """cls(**values), lists standing for tuples and NumPy's numbers for Python's.

    Raises ValueError for unknown fields (with close matches) and for values of another type than the field's.
    """
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    checked = {}
    for name, value in values.items():
        if name not in known:
            raise unknown("setting", name, known)
        value = tuple(value) if isinstance(value, list) else value.item() if hasattr(value, "item") else value
        require_type(name, value, hints(cls)[name])
        checked[name] = value
    return cls(**checked)
