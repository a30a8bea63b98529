"""The command line: nacre train | evaluate | report | watch | list | check-env | doctor.

Exit codes: 0 success; 2 a mistake in what was given (one message, no traceback); 1 a run that failed; 130 Ctrl-C; 143
SIGTERM. Only what a command is asked for goes to standard output; progress and messages go to standard error.

This file imports nothing of JAX, so that help and lists come at once.
"""

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nacre._errors import RunError, UserError
from nacre._signals import Stopped, leave, leave_at_once
from nacre.algorithms.registry import list_algorithms
from nacre.envs.registry import list_families, listing, unknown

USAGE = """usage: nacre COMMAND ...

Meta-reinforcement learning: agents that adapt to tasks they have never seen.

  nacre train ALGORITHM FAMILY     train an agent         nacre train pearl sparse-point-robot
  nacre train --resume RUN         go on with a run that was stopped
  nacre evaluate RUN               returns per shot on held-out tasks, beside references
  nacre report RUN...              one HTML page with figures
  nacre watch RUN                  an animation of a trial
  nacre list                       algorithms and task families
  nacre check-env FAMILY           is a task family what Nacre expects?
  nacre doctor                     does this machine have what Nacre needs?

  nacre COMMAND --help tells the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; -> its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with leave_at_once():
            return dispatch(words)
    except Stopped as stopped:
        say_stopped(stopped)
    except SystemExit as leaving:  # of the parsers, which have said why
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except UserError as error:
        return say(f"nacre: error: {error}", 2)
    except (RunError, FloatingPointError) as error:
        return say(f"nacre: the run failed: {error}", 1)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 0
    except OSError as error:
        return say(f"nacre: failed: {error}", 1)
    except Exception:
        traceback.print_exc()
        return say("nacre: failed with an unexpected error; see above", 1)


def dispatch(words: list[str]) -> int:
    """The command that the first word names; -> exit code."""
    if not words:
        print(USAGE, file=sys.stderr, end="")
        return 2
    name, *rest = words
    if name in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if name == "--version":
        from nacre import __version__

        print(f"nacre {__version__}")
        return 0
    if name not in COMMANDS:
        raise mistake(unknown("command", name, list(COMMANDS)))
    return COMMANDS[name](rest)


def say(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)
    return code


def say_stopped(stopped: Stopped) -> None:
    """Ends the process without taking it down in order: JAX may be at work in other threads, and crash then."""
    run = getattr(stopped, "run", None)
    more = f"; go on with: nacre train --resume {run.path}" if run is not None else ""
    sys.stdout.flush()
    leave(stopped.number, f"{stopped}{more}")


def mistake(error: Exception) -> UserError:
    notes = getattr(error, "__notes__", ())  # say where it happened
    return error if isinstance(error, UserError) and not notes else UserError("; ".join([str(error), *notes]))


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """What is raised while a user's values are looked at is a mistake of the user's."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        raise mistake(error) from error


@contextlib.contextmanager
def quiet_output() -> Iterator[Any]:
    """Standard output for the answer alone: whatever prints meanwhile goes to standard error."""
    real = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield real


# --------------------------------------------------------------------------------------------------- the commands


def parser(command: str, about: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"nacre {command}", description=about, allow_abbrev=False)


def train(words: list[str]) -> int:
    from nacre import _cli_train

    return _cli_train.train(words)


def check_env(words: list[str]) -> int:
    from nacre import _cli_train

    return _cli_train.check_env(words)


def doctor(words: list[str]) -> int:
    parser("doctor", "Versions, devices, threads, OpenGL, cache; what is broken, and what to do about it.").parse_args(
        words
    )
    from nacre import _doctor

    return _doctor.doctor()


def evaluate(words: list[str]) -> int:
    p = parser("evaluate", "Meta-test a run on tasks that it was not trained on. Several seeds are pooled.")
    p.add_argument("run", metavar="RUN", help="a run directory, or seed-N in it")
    p.add_argument(
        "--episodes", type=int, help="episodes of a trial (default: the family's protocol, or the algorithm's)"
    )
    p.add_argument("--repetitions", type=int, help="trials per task and seed (default: 10 in JAX, 2 on the host)")
    p.add_argument("--n-tasks", type=int, help="at most so many tasks, evenly spaced among them (default: all)")
    p.add_argument("--split", choices=("train", "test"), default="test", help="which tasks (default: test)")
    p.add_argument("--checkpoint", type=int, help="env steps at which parameters were kept (default: the last)")
    p.add_argument("--explore", action="store_true", help="act stochastically, as in training")
    p.add_argument("--seed", type=int, default=0, help="of the evaluation itself (default: 0)")
    p.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    p.add_argument(
        "--save", action="store_true", help="keep it as the run's result.json, from which reports take references"
    )
    given = vars(p.parse_args(words))
    path, as_json, save = given.pop("run"), given.pop("json"), given.pop("save")
    with quiet_output() as out, mistakes():
        from nacre import _platform, _progress
        from nacre.evaluate import evaluate
        from nacre.runs import open_run

        _platform.prepare()
        run = open_run(path)
        if save:
            part = (
                given["split"] != "test" or given["checkpoint"] is not None or len(run.seeds) < len(run.config["seeds"])
            )
            if part or given["explore"]:
                raise UserError(
                    "--save is for a whole run as it stands, on its test tasks, acting as at meta-test: leave --split, "
                    "--checkpoint, --explore and seed-N out"
                )
        result = evaluate(run, **given, tell=_progress.Measuring(given["split"]))
    if save:
        result.save(run.path / "result.json")
    print(json.dumps(result.to_json()) if as_json else result.table(), file=out)
    return 0


def report(words: list[str]) -> int:
    p = parser("report", "Write one self-contained HTML page with the figures of one or several runs.")
    p.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run directories")
    p.add_argument(
        "--out", type=Path, help="the page (default: report.html in the run, comparison.html in the first of several)"
    )
    given = p.parse_args(words)
    with quiet_output() as out, mistakes():
        from nacre import report

        path = report.write(given.runs, given.out)
    print(path, file=out)
    return 0


def watch(words: list[str]) -> int:
    p = parser("watch", "Render a trial on a held-out task as an animation.")
    p.add_argument("run", metavar="RUN", type=Path, help="a run directory, or seed-N in it")
    p.add_argument("--out", type=Path, help="the file (default: a GIF in the run directory)")
    p.add_argument("--task", type=int, help="index of the test task (default: 0)")
    p.add_argument("--episodes", type=int, help="episodes of the trial (default: the family's published protocol)")
    p.add_argument("--checkpoint", type=int, help="env steps at which parameters were kept (default: the last)")
    p.add_argument("--seed", type=int, default=0, help="of the trial itself (default: 0)")
    given = {name: value for name, value in vars(p.parse_args(words)).items() if value is not None}
    with quiet_output() as out, mistakes():
        from nacre import _platform, watch

        _platform.prepare()
        path = watch.watch(given.pop("run"), given.pop("out", None), **given)
    print(path, file=out)
    return 0


def list_names(words: list[str]) -> int:
    p = parser("list", "Algorithms and task families.")
    p.add_argument("--json", action="store_true", help="one JSON object on standard output")
    as_json = p.parse_args(words).json
    found = {"algorithms": list_algorithms(), "families": list_families()}
    if as_json:
        named = {kind: [{"name": name, "summary": line} for name, line in entries] for kind, entries in found.items()}
        print(json.dumps({"schema": 1, **named}))
        return 0
    for kind, entries in found.items():
        print(f"{kind}:", listing(entries), sep="\n")
    print(
        "further families: ml1/<task> (a class of Meta-World), gymnasium/<id> (one environment as a single task),\n"
        "  path/file.py:name (your own); further algorithms: path/file.py:Class (your own)"
    )
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "evaluate": evaluate,
    "report": report,
    "watch": watch,
    "list": list_names,
    "check-env": check_env,
    "doctor": doctor,
}
