"""The words of a report, and its tables."""

import time
from typing import Any

import numpy as np

from nacre.report_compare import differences_from_first, gain
from nacre.report_data import Run
from nacre.report_figures import key_shots
from nacre.report_summary import Group, differences, flat_config, gap_closed, show


def number(value: float) -> str:
    """A return as people read it: three significant digits, no more than needed."""
    if not np.isfinite(value):
        return "not finite"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def minutes_of(group: Group) -> str:
    """Of training, mean over seeds."""
    seconds = [seed.last.get("seconds") for seed in group.seeds if seed.last.get("seconds") is not None]
    return f"{np.mean(seconds) / 60:.1f}" if seconds else ""


def subtitle(groups: list[Group]) -> str:
    """Preset and seeds of one group; how many runs otherwise."""
    if len(groups) > 1:
        return f"{sum(len(group.runs) for group in groups)} runs compared"
    config = groups[0].first.config
    seeds = [seed.label.replace("seed", "").strip() for seed in groups[0].seeds]
    words = [f"preset {config['preset']}"] if config.get("preset") else []
    if any(seeds):
        words.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}")
    if origin := config.get("start_from"):
        words.append(f"starts from what {origin['env']} taught in {max(origin['env_steps']):,} env steps")
    return " · ".join(words)


def status(groups: list[Group]) -> list[str]:
    """What a reader must know before trusting the numbers: runs that have not ended, or were never evaluated."""
    out = []
    for group in groups:
        for run in group.runs:
            name = f"{run.path.resolve().name}: " if sum(len(g.runs) for g in groups) > 1 else ""
            out += [f"{name}{text}" for text in unfinished(run)]
            missing = [seed.label for seed in run.seeds if not seed.returns]
            if missing and len(missing) == len(run.seeds):
                out.append(f"{name}there is no evaluation yet.")
            elif missing:
                out.append(f"{name}no evaluation yet of {', '.join(missing)}.")
        newest = {max(seed.returns) for seed in group.seeds if seed.returns}
        named = f"{group.label}: " if len(groups) > 1 else ""
        if len(newest) > 1 and not all(run.current_result for run in group.runs):
            steps = f"{min(newest):,} to {max(newest):,}"
            out.append(f"{named}the seeds stand at different points ({steps} env steps); the last of each counts.")
        numbers = [seed.label for seed in group.seeds if seed.label]
        if twice := sorted({one for one in numbers if numbers.count(one) > 1}):
            out.append(f"{named}{', '.join(twice)} is there more than once, and each counts as a seed of its own.")
    return out


def unfinished(run: Run) -> list[str]:
    """A sentence about a run that is not at its end."""
    loop = run.config.get("loop") or {}
    steps, limit = loop.get("env_steps"), loop.get("minutes")
    if run.current_result or (steps and run.done >= steps) or (limit and out_of_time(run, limit)):
        return []
    stands = f"it stands at {run.done:,}{f' of {steps:,}' if steps else ''} env steps"
    if run.error:
        return [f"this run failed and {stands}: {run.error}"]
    return [f"this run has not ended (or was cut short): {stands}."]


def out_of_time(run: Run, limit: float) -> bool:
    """As the training loop counts: evaluations too, and seeds that train one after another share the minutes."""
    loop = run.config.get("loop") or {}
    share = 60 * limit / (1 if loop.get("vectorise") else max(1, len(run.config.get("seeds") or [0])))
    spent = [(seed.last.get("seconds") or 0.0) + (seed.last.get("evaluation_seconds") or 0.0) for seed in run.seeds]
    return min(spent, default=0.0) >= share


def describe(groups: list[Group], name: str) -> list[str]:
    """A short summary in plain words; name: of what they were tested on."""
    if len(groups) > 1:
        tested = [group for group in groups if group.final is not None]
        best = max(tested, key=lambda group: group.final.shots[-1], default=None)
        if best is None:
            return [f"None of the runs on {name} has been evaluated yet."]
        low = best.final.interval[0, -1]
        near = [group.label for group in tested if group is not best and not group.final.interval[1, -1] < low]
        apart = f"; its interval is not apart from that of {', '.join(near)}" if near else ""
        return [
            f"On {name}, the highest return at the last shot is {number(best.final.shots[-1])} "
            f"({best.label}){apart}; the table and the figures below show all of them."
        ]
    return [trained(groups[0]), *tested_words(groups[0])]


def trained(group: Group) -> str:
    """How much training there was."""
    last = [seed.last for seed in group.seeds if seed.last]
    name = f"The agent was meta-trained on {group.first.family}"
    if not last:
        return f"{name}; nothing has been logged yet."
    env_steps = min(line["env_steps"] for line in last)
    seconds = np.mean([line.get("seconds") or 0.0 for line in last])
    updates = max(line.get("updates", 0) for line in last)
    each = ", for each seed" if len(group.seeds) > 1 else ""
    return f"{name} for {env_steps:,} env steps and {updates:,} gradient steps ({duration(seconds)} of training{each})."


def tested_words(group: Group) -> list[str]:
    final = group.final
    if final is None:
        return ["It has not been evaluated yet, so nothing can be said of how well it adapts."]
    last, n = len(final.shots) - 1, len(final.per_task)
    low, high = final.interval[:, -1]
    interval = f" (95 % interval {number(low)} to {number(high)})" if np.isfinite([low, high]).all() else ""
    first = number(final.shots[0])
    many = n != 1
    if group.all_tasks:
        seen = "which are also its training tasks" if many else "which is also what it trained on"
    else:
        seen = "which it has never seen"
    when = "in the first episode" if group.learns_within else "before any adaptation"
    start = f"On {n} test task{'s' * many}, {seen}, an episode earns {first} {when}"
    text = f"{start} and {number(final.shots[last])}{interval} at shot {last}." if last else f"{start}{interval}."
    without = f"the same agent without {'memory of earlier episodes' if group.learns_within else 'adaptation'}"
    known = {"random": "random actions", "still": "doing nothing", "no_adaptation": without,
             "oracle": "a policy that knows the task"}  # fmt: skip
    told = [
        f"{words} {number(final.references[name][last])}" for name, words in known.items() if name in final.references
    ]
    if not told:
        text += f" Its references are not known: nacre evaluate {group.first.path} --save works them out."
    else:
        text += f" For comparison: {', '.join(told)}."
    return [text + gain_words(group), *gap_words(group, final)]


def gain_words(group: Group) -> str:
    """What adapting is worth; nothing for a trial of one episode."""
    known = gain(group)
    if known is None:
        return ""
    mean, low, high = known if known[0] >= 0 else (known[0], -known[2], -known[1])
    sure = f" (95 % interval {number(low)} to {number(high)})" if np.isfinite(low) else ""
    than = f"{'more' if mean >= 0 else 'less'} than shot 0"
    return f" Task by task, shot {len(group.final.shots) - 1} earns {number(abs(mean))} {than}{sure}."


def gap_words(group: Group, final: Any) -> list[str]:
    exploration = group.exploration
    share = gap_closed(final, exploration)
    if share is None:
        return []
    start = "doing nothing" if "still" in final.references else "random actions"
    last = len(final.shots) - 1
    first = min(exploration, last)
    which = (
        f"At shot {first}" if first == last else f"Over shots {first} to {last}{', after exploration' * (first > 0)}"
    )
    return [f"{which}, the agent goes {percent(share)} of the way from {start} to the oracle."]


def percent(share: float) -> str:
    rounded = round(100 * share)  # no minus zero
    return f"{rounded} %".replace("-", "\u2212")


def tiles(group: Group) -> list[dict[str, str]]:
    """The few numbers that matter."""
    last = max((seed.last for seed in group.seeds), key=lambda line: line.get("env_steps", 0), default={})
    out = []
    final = group.final
    if final is not None:
        shots = len(final.shots)
        first = "first shot" if group.learns_within else "first shot, before adaptation"
        names = {0: first, shots - 1: "last shot"}
        for k in key_shots(shots, group.exploration):
            name = names.get(k, "first shot after exploration")
            out.append({"value": number(final.shots[k]), "label": f"return at shot {k}: {name}"})
        if "oracle" in final.references:
            out.append(
                {"value": number(final.references["oracle"][-1]), "label": "return of the oracle, which knows the task"}
            )
    if last:
        steps, measured = last.get("env_steps", 0), final.env_steps if final is not None else None
        older = "" if measured in (None, steps) else f"; the returns are from {measured:,}"
        out.append({"value": f"{steps:,}", "label": f"env steps of training{older}"})
        minutes = minutes_of(group)
        out += [{"value": minutes, "label": "minutes of training"}] if minutes else []
    return out


# --------------------------------------------------------------------------------------------------------- tables


def shot_table(groups: list[Group]) -> list[list[str]]:
    """Return per shot: one group beside its references, or groups beside each other."""
    finals = [(group.label, group.final) for group in groups]
    if len(finals) > 1:
        rows = [["shot", *(label for label, _ in finals)]]
        most = max(len(final.shots) for _, final in finals)
        for k in range(most):
            rows.append([str(k), *(number(f.shots[k]) if k < len(f.shots) else "" for _, f in finals)])
        return rows
    final = finals[0][1]
    rows = [["shot", "return", "95 % interval", *(name.replace("_", " ") for name in final.references)]]
    for k, value in enumerate(final.shots):
        low, high = final.interval[:, k]
        interval = f"{number(low)} to {number(high)}" if np.isfinite(low) else ""
        rows.append([str(k), number(value), interval, *(number(v[k]) for v in final.references.values())])
    return rows


def overview(groups: list[Group]) -> list[list[str]]:
    """One line per group."""
    rows = [
        [
            "",
            "seeds",
            "env steps",
            "minutes",
            "shot 0",
            "last shot",
            "95 % interval",
            "last less first",
            "of the way to the oracle",
        ]
    ]
    for group in groups:
        final = group.final
        if final is None:
            rows.append([group.label, str(len(group.seeds)), "", "", "not evaluated yet", "", "", "", ""])
            continue
        low, high = final.interval[:, -1]
        share = gap_closed(final, group.exploration)
        way = "" if share is None else percent(share)
        first, last = number(final.shots[0]), number(final.shots[-1])
        counts = [str(len(group.seeds)), f"{final.env_steps:,}", minutes_of(group)]
        interval = f"{number(low)} to {number(high)}" if np.isfinite(low) else ""
        rows.append([group.label, *counts, first, last, interval, with_interval(gain(group)), way])
    told = [
        k for k in range(len(rows[0])) if k == 0 or any(row[k] for row in rows[1:])
    ]  # columns with something in them
    return [[row[k] for k in told] for row in rows]


def with_interval(known: tuple[float, float, float] | None) -> str:
    """A mean and its interval in a cell."""
    if known is None:
        return ""
    mean, low, high = known
    return f"{number(mean)} ({number(low)} to {number(high)})" if np.isfinite(low) else number(mean)


def differences_words(groups: list[Group]) -> str:
    """What the table of differences says, and what it does not."""
    alone = min(group.final.seeds for group in groups) == 1
    missing = len(groups) - 1 - len(differences_from_first(groups))
    return (
        "Task by task on the same test tasks, with 95 % bootstrap intervals: an interval without 0 is a difference. Better on "
        "a task: the chance that one run of it earns more on a task drawn at random than one run of the first; 50 % is no "
        "difference."
        + " One seed says nothing of training anew: give several." * alone
        + f" Left out for other test tasks: {missing}." * (missing > 0)
    )


def difference_table(groups: list[Group]) -> list[list[str]]:
    """A line per group that was tested on the tasks of the first; [] where there is none."""
    found = differences_from_first(groups)
    rows = [["", f"return at the last shot, less that of {groups[0].label}", "better on a task"]]
    for one in found:
        low, high = one.better_interval
        ends = f" ({percent(low)} to {percent(high)})" if np.isfinite(low) else ""
        rows.append([one.label, with_interval((one.mean, *one.interval)), f"{percent(one.better)}{ends}"])
    return rows if found else []


def configuration(groups: list[Group]) -> dict[str, Any]:
    """Rows of the table of settings: one column, or one per group with what differs first."""
    flat = [flat_config(group.first) for group in groups]
    differing = differences([group.first for group in groups])
    names = list(dict.fromkeys([*differing, *(name for one in flat for name in one)]))
    rows = []
    for name in names:
        cells = [show(one[name]) if name in one else "" for one in flat]
        rows.append({"name": name, "cells": cells, "differs": name in differing})
    return {"names": [group.label for group in groups] if len(groups) > 1 else [], "rows": rows}


def repetition(run: Run, named: bool) -> dict[str, Any]:
    """Command and versions."""
    rows = []
    for name, value in run.versions.items():
        if name == "started" and isinstance(value, (int, float)):
            value = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value))
        if name == "resumed" and isinstance(value, list):
            value = f"{len(value)} time{'s' * (len(value) != 1)}"
        inner = value.items() if isinstance(value, dict) else [(name, value)]
        rows += [(str(key), show(item)) for key, item in inner if item not in (None, "", [])]
    return {"label": run.path.resolve().name if named else "", "command": run.command, "versions": rows}
