"""`nacre train` and `nacre check-env`: options made by tyro from the dataclasses of the algorithm, the loop and the
family.
"""

import contextlib
import dataclasses
import inspect
import io
import itertools
import json
import shlex
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from nacre import _platform
from nacre._errors import UserError
from nacre.algorithms import registry
from nacre.algorithms.registry import list_algorithms
from nacre.cli import mistakes, quiet_output
from nacre.envs.files import absolute, load_from_file
from nacre.envs.registry import GYMNASIUM, family_class, list_families, listing, make_family

RESULT = "result.json"  # of a run that was measured at its end
TRAIN_HELP = """usage: nacre train ALGORITHM FAMILY [--preset fast|paper] [--seed N | --seeds N...] [--env-steps N]
                   [--minutes M] [--out DIR] [--start-from RUN] [--any-setting VALUE]... [--env.any-parameter VALUE]...
       nacre train --resume RUN [--env-steps N]

{lists}
--backend c|mjx says who simulates MuJoCo's families (the same as --env.backend): MuJoCo's own library, or MJX on a GPU.
nacre train ALGORITHM FAMILY --help shows every setting, what it means, and its value in the preset.
"""


@dataclass(frozen=True)
class RunOptions:
    """Which run to make."""

    preset: Literal["fast", "paper"] = "fast"  # fast: ours, tuned for time; paper: the published configuration
    seed: int = 0  # everything random comes from it
    seeds: tuple[int, ...] = ()  # several seeds in one run, instead of --seed
    out: str | None = None  # the run directory, new or empty; None: a new one below ./runs
    resume: str | None = None  # go on with the run in this directory; only --env-steps may be given with it
    start_from: str | None = None  # begin with the networks of this run, of the same algorithm, instead of fresh ones
    quiet: bool = False  # no progress, only warnings and what came out


@dataclass(frozen=True)
class Given:
    """What was asked for on the command line."""

    options: RunOptions
    values: dict[str, Any]  # settings of the algorithm and the loop that are not as the defaults have them
    env_params: dict[str, Any]


def train(words: list[str]) -> int:
    """nacre train; -> exit code."""
    if not words or {"-h", "--help"} & set(words[:1] if words[0].startswith("-") else words[1:2]):
        print(TRAIN_HELP.format(lists=lists()), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if any(word == "--resume" or word.startswith("--resume=") for word in words):
        return resume(words)
    algorithm, family, rest = names(words)
    from nacre import train as training
    from nacre._settings import make_plan

    _platform.prepare()
    with mistakes():
        given = parse(algorithm, family, rest, preset_of(rest))
    with quiet_output() as out:
        with mistakes():
            seeds = chosen_seeds(given.options, rest)
            own = dict(env_params=given.env_params, values=given.values, start_from=given.options.start_from)
            plan = make_plan(algorithm, family, preset=given.options.preset, seeds=seeds, **own)
        command = shlex.join(["nacre", "train", *words])
        run = training.start(plan, given.options.out, quiet=given.options.quiet, hard=True, command=command)
        finish(run, out)
    return 0


def resume(words: list[str]) -> int:
    """nacre train --resume; -> exit code."""
    with quiet_output() as out:
        path, rest = take_resume(words)
        from nacre import runs
        from nacre import train as training

        _platform.prepare()
        with mistakes():
            run = runs.open_run(path)
            run = dataclasses.replace(run, seeds=tuple(run.config["seeds"]))  # also by one seed's directory
            env_steps, quiet = same_settings(run, rest)
            cut_off = env_steps is None and training.is_done(run) and not measured(run)
        if cut_off:  # while it was measured
            print(f"{run.path} is trained, and its measurement is missing", file=sys.stderr)
            finish(run, out)
            return 0
        run = training.go_on(path, env_steps, quiet=quiet, hard=True)
        with contextlib.suppress(OSError), (run.path / "command.txt").open("a", encoding="utf-8") as file:
            file.write(shlex.join(["nacre", "train", *words]) + "\n")
        finish(run, out)
    return 0


def measured(run: Any) -> bool:
    """Whether result.json speaks of the run as it stands."""
    try:
        return json.loads((run.path / RESULT).read_bytes())["env_steps"] >= min(map(run.newest, run.seeds))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def finish(run: Any, out: Any) -> None:
    """The table of returns, result.json and the report. What fails here leaves the run as it is."""
    from nacre import _progress, evaluate, report

    n_tasks = run.config["loop"].get("eval_tasks")
    result = evaluate.evaluate(run, n_tasks=n_tasks, tell=_progress.Measuring())
    result.save(run.path / RESULT)
    print(result.table(), file=out)
    try:
        page = report.write([run.path])
    except Exception as error:  # figures are not worth a run
        print(f"warning: the report could not be written ({type(error).__name__}: {error})", file=sys.stderr)
    else:
        print(f"report: {page}", file=out)
    print(f"run: {run.path}", file=out)


def check_env(words: list[str]) -> int:
    """nacre check-env; -> exit code."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: nacre check-env FAMILY [--env.any-parameter VALUE]...\n\n" + lists(), end="")
        return 0 if words else 2
    family, *rest = words
    with quiet_output() as out, mistakes():
        import jax

        from nacre.envs import check_env as check

        _platform.prepare()
        params = parse_params(family, rest)
        found = check.check_env(make_family(family, **params), jax.random.key(0))
    for violation in found:
        print(f"- {violation.what}\n  expected: {violation.expected}\n  what to do: {violation.remedy}", file=out)
    if found:
        print(f"{family}: {len(found)} violation{'s' * (len(found) > 1)} of the contract", file=sys.stderr)
        return 2
    print(f"{family} keeps the contract", file=out)
    return 0


# --------------------------------------------------------------------------------------------------------- parsing


def lists() -> str:
    """The names that can be given."""
    text = io.StringIO()
    parts = ("algorithms", list_algorithms(), "path/file.py:Class"), (
        "families", list_families(), "ml1/<task>, gymnasium/<id>, path/file.py:name")  # fmt: skip
    for kind, entries, more in parts:
        print(f"{kind}:", listing(entries), f"  {more}\n", sep="\n", file=text)
    return text.getvalue()


def names(words: list[str]) -> tuple[str, str, list[str]]:
    """ALGORITHM and FAMILY, which come first, and the rest."""
    if words[0].startswith("-"):
        raise UserError(f"expected ALGORITHM FAMILY before the options, got {words[0]!r}; nacre train --help")
    check_name(words[0])
    if len(words) < 2 or words[1].startswith("-"):
        known = ", ".join(name for name, _ in list_families() if "/" not in name)
        raise UserError(f"which task family? nacre train {words[0]} FAMILY, where FAMILY is one of {known}, their variants "
                        "(nacre list), ml1/<task>, gymnasium/<id> or path/file.py:name")  # fmt: skip
    return words[0], words[1], words[2:]


def check_name(name: str) -> None:
    with mistakes():
        registry.algorithm_class(name)


def preset_of(words: list[str]) -> str:
    """The preset, which decides the defaults of everything else, before the whole is parsed."""
    for i, word in enumerate(words):
        if word == "--preset" and i + 1 < len(words):
            return words[i + 1]
        if word.startswith("--preset="):
            return word.partition("=")[2]
    return "fast"


def take_resume(words: list[str]) -> tuple[str, list[str]]:
    """The run that --resume names, and the other words."""
    for i, word in enumerate(words):
        if word.startswith("--resume="):
            return word.partition("=")[2], words[:i] + words[i + 1 :]
        if word == "--resume" and i + 1 < len(words) and not words[i + 1].startswith("-"):
            return words[i + 1], words[:i] + words[i + 2 :]
    raise UserError("--resume needs the directory of a run: nacre train --resume RUN")


def parse(algorithm: str, family: str, words: list[str], preset: str) -> Given:
    """Options of a new run; defaults are the preset's."""
    from nacre import _settings

    params = params_class(family)
    env = make_family(family)
    start = default_params(params, env)
    values = _settings.preset_values(algorithm, preset, absolute(family), env.spec)
    config_class = registry.config_class(algorithm)
    own, loop = _settings.split_values(algorithm, values, _settings.fields_of(config_class))
    config, loop = registry.make_config(config_class, own), registry.make_config(_settings.LoopConfig, loop)
    defaults = (RunOptions(preset=preset), loop, config, start)
    whose = f"those of the {preset} preset" if _settings.presets_of(algorithm) else "its own"
    about = f"Train {registry.shown(algorithm)} on {family}. Defaults are {whose}."
    options, *found = read(f"nacre train {algorithm} {family}", about, defaults, words)
    return Given(options, changes(defaults[1], found[0]) | changes(defaults[2], found[1]), changes(start, found[2]))


def read(program: str, about: str, defaults: tuple, words: list[str]) -> list[Any]:
    """The words as objects like (run options, loop, algorithm's Config, family's parameters or None)."""
    parts = list(zip(("run", "loop", "config", "env"), defaults, strict=True))
    plain = tyro.conf.arg(name="")
    fields = [
        (name, type(value) if name == "env" else Annotated[type(value), plain])
        for name, value in parts
        if value is not None
    ]
    cls = dataclasses.make_dataclass("Options", fields, frozen=True)
    start = cls(**{name: value for name, value in parts if value is not None})
    found = tyro.cli(cls, prog=program, description=about, default=start, args=with_values(full_names(words)))
    return [getattr(found, name, None) for name, _ in parts]


def full_names(words: list[str]) -> list[str]:
    """--backend is short for --env.backend."""
    return ["--env." + word[2:] if word.partition("=")[0] == "--backend" else word for word in words]


def changes(before: Any, after: Any) -> dict[str, Any]:
    """Fields that differ."""
    if before is None:
        return {}
    pairs = ((f.name, getattr(before, f.name), getattr(after, f.name)) for f in dataclasses.fields(before) if f.init)
    return {name: new for name, old, new in pairs if new != old}


def with_values(words: list[str]) -> list[str]:
    """--vectorise and --no-vectorise, whose default is neither, as the options with a value that they are."""
    out = []
    for word, following in itertools.pairwise([*words, "--"]):
        bare = word in ("--vectorise", "--no-vectorise") and following.startswith("--")
        out += ["--vectorise", str(word == "--vectorise")] if bare else [word]
    return out


def parse_params(family: str, words: list[str]) -> dict[str, Any]:
    """--env.NAME options alone."""
    params = params_class(family)
    if params is None:
        if words:
            raise UserError(f"{family} takes no parameters, got {' '.join(words)}")
        return {}
    start = default_params(params, make_family(family))
    cls = dataclasses.make_dataclass("Options", [("env", params)], frozen=True)
    found = tyro.cli(cls, prog=f"nacre check-env {family}", default=cls(start), args=full_names(words))
    return changes(start, found.env)


def params_class(family: str) -> type | None:
    """A dataclass of the family's parameters, or None where it has none."""
    if family.startswith(GYMNASIUM):
        horizon = Annotated[int | None, tyro.conf.arg(help="env steps per episode; None: the environment's own limit")]
        text = "worker processes that step environments at the same time; 0: all in this process"
        processes = Annotated[int, tyro.conf.arg(help=text)]
        fields = [("horizon", horizon, None), ("processes", processes, 0)]
        return dataclasses.make_dataclass("Parameters", fields, frozen=True)
    cls = family_class(family)
    if cls is not None:
        return cls
    found = load_from_file(family)
    if not callable(found):
        return None
    fields = [
        (p.name, type(p.default) if p.annotation is p.empty else p.annotation, p.default)
        for p in inspect.signature(found).parameters.values()
        if p.default is not p.empty
    ]
    return dataclasses.make_dataclass("Parameters", fields, frozen=True) if fields else None


def default_params(params: type | None, env: Any) -> Any:
    """The parameters as they are unless something is given."""
    return None if params is None else env if isinstance(env, params) else params()


def chosen_seeds(options: RunOptions, words: list[str]) -> tuple[int, ...]:
    one = any(word == "--seed" or word.startswith("--seed=") for word in words)
    several = any(word == "--seeds" or word.startswith("--seeds=") for word in words)
    if one and several:
        raise UserError("give --seed N for one run or --seeds N N ... for several, not both")
    return options.seeds if several else (options.seed,)


# ---------------------------------------------------------------------------------------------------------- resume


def same_settings(run: Any, words: list[str]) -> tuple[int | None, bool]:
    """-> the new --env-steps if one is given, and --quiet. Raises UserError, naming what differs from the run."""
    from nacre._settings import LoopConfig

    given = [word for word in words[:2] if not word.startswith("-")] if words and not words[0].startswith("-") else []
    config = run.config
    different = [
        f"{kind} {word} (the run has {config[kind]})"
        for kind, word in zip(("algorithm", "env"), given, strict=False)
        if absolute(word) != config[kind]
    ]
    loop = registry.make_config(LoopConfig, config["loop"])
    own = registry.make_config(registry.config_class(run.algorithm_name), config["config"])
    seeds, preset = tuple(config["seeds"]), run.preset or "fast"
    origin = (config.get("start_from") or {}).get("run")
    options = RunOptions(preset=preset, seed=seeds[0], seeds=seeds if len(seeds) > 1 else (), start_from=origin)
    params = params_class(run.env_name) if config["env_from"] == "name" else None
    start = (
        params(**{k: tuple(v) if isinstance(v, list) else v for k, v in config["env_params"].items()})
        if params
        else None
    )
    defaults = (options, loop, own, start)
    program = f"nacre train --resume {run.path}"
    found = read(program, "Go on with a run. Only --env-steps may be given anew.", defaults, words[len(given) :])
    changed: dict[str, tuple] = {}
    for before, after, prefix in zip(defaults, found, ("", "", "", "env."), strict=True):
        changed |= {prefix + name: (getattr(before, name), new) for name, new in changes(before, after).items()}
    changed.pop("env_steps", None)
    # asked for even where it is what the run has: one that ended by its minutes goes on to it
    asked = any(word.split("=")[0].replace("_", "-") == "--env-steps" for word in words)
    env_steps, quiet = found[1].env_steps if asked else None, changed.pop("quiet", (None, False))[1]
    different += [f"{name} {new!r} (the run has {old!r})" for name, (old, new) in changed.items()]
    if different:
        raise UserError(
            f"{run.path} goes on with the configuration it began with, but you gave another "
            f"{'; another '.join(different)}. Only --env-steps may be given anew; for other settings start a new run"
        )
    return env_steps, quiet
