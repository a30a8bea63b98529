"""Checks any task family against the contract of nacre.types.Environment: what is wrong, and what to do about it."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from nacre._errors import told
from nacre.envs.probe import Probe, close, oracle_actions, others, rows_of, same, task_rows
from nacre.types import Array, Box, Discrete, Environment, EnvSpec, Key, Step, take_tasks, task_count

ROWS = 6  # tasks looked at
STEPS = 20  # env steps of the comparisons
LONGEST = 1000  # env steps of the whole-episode check at most


class Violation(NamedTuple):
    """One broken clause of the contract."""

    what: str  # what is wrong, one sentence
    expected: str
    remedy: str


def check_env(env: Environment, key: Key) -> list[Violation]:
    """Every clause of the contract that the environment breaks; an empty list if it keeps it. Takes seconds.

    key: a typed key; the same key gives the same report. Exceptions of the environment are reported, not raised.
    """
    found = guarded({"the description": lambda: check_spec(env)})
    if found:  # nothing below can be judged without it
        return found
    found = guarded({"the task sets": lambda: check_tasks(env, jax.random.clone(key))})
    if found:
        return found
    tasks = take_tasks(env.train_tasks, np.arange(ROWS) % task_count(env.train_tasks))
    probe = Probe(env, key, jax.tree.map(np.asarray, tasks))
    found = guarded({"reset and step": lambda: check_arrays(probe)})
    if found:
        return found
    wrong = guarded({"jit": lambda: check_jit(probe)})
    if env.spec.jittable and not wrong:
        probe = replace(probe, compiled=True)  # thousands of steps follow
    repeats = cache(partial(repeatable, probe))
    comparisons: dict[str, Callable[[Probe], Iterator[Violation]]] = {
        "the meaning of tasks": check_tasks_matter,
        "the first observation": check_task_hidden,
        "rows": check_rows,
        "rows that are over": check_inactive,
        "rows that begin again": check_restart,
    }
    checks = {
        "a whole episode": partial(check_episode, probe),
        "repeating an episode": lambda: check_repeats(repeats()),
        **{name: lambda check=check: check(probe) if repeats() else () for name, check in comparisons.items()},
        "actions at the bounds": partial(check_bounds, probe),
    }
    return guarded(checks) + wrong


def guarded(checks: dict[str, Callable[[], Iterable[Violation]]]) -> list[Violation]:
    """The violations of all checks. An exception is one too, told once however many checks it comes up in."""
    found: list[Violation] = []
    raised: dict[tuple[str, str], list[str]] = {}
    for name, check in checks.items():
        try:
            found += list(check())
        except Exception as error:  # any error of a user's environment belongs in the report
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"the last line that ran is {last.lineno} of {last.filename}"
            raised.setdefault((told(error), where), []).append(name)
    for (what, where), names in raised.items():
        remedy = f"{where}; run the same calls by hand to see how it comes there"
        found.append(Violation(f"checking {', '.join(names)} raised {what}", "no exception", remedy))
    return found


def check_spec(env: Environment) -> Iterator[Violation]:
    needed = ("spec", "train_tasks", "test_tasks", "sample_tasks", "reset", "step", "oracle")
    missing = [name for name in needed if not hasattr(env, name)]
    if missing:
        remedy = "write them, or build the family with nacre.family(make, sample_tasks)"
        yield Violation(f"the environment lacks {', '.join(missing)}", "all of nacre.types.Environment", remedy)
        return
    spec = env.spec
    if not isinstance(spec, EnvSpec):
        yield Violation(f"spec is a {type(spec).__name__}", "a nacre.types.EnvSpec", "build one")
        return
    for name in ("horizon", "obs_size"):
        value = getattr(spec, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield Violation(f"spec.{name} is {value!r}", "a whole number, at least 1", f"set {name} in the spec")
    if isinstance(spec.action, Discrete):
        if spec.action.n < 2:
            yield Violation(f"there are {spec.action.n} actions", "at least 2", "set Discrete(n) to their number")
    elif isinstance(spec.action, Box):
        low, high = np.asarray(spec.action.low), np.asarray(spec.action.high)
        good = low.shape == high.shape and low.ndim == 1 and low.size > 0
        if not (good and np.all(np.isfinite([low, high])) and np.all(low < high)):
            what = f"action bounds are {spec.action.low} to {spec.action.high}"
            yield Violation(what, "finite numbers, low < high in each dimension", "scale the actions to a finite box")
    else:
        yield Violation(f"spec.action is {spec.action!r}", "Box(low, high) or Discrete(n)", "use nacre.types")


def check_tasks(env: Environment, key: Key) -> Iterator[Violation]:
    first, second, other = env.sample_tasks(key, 5), env.sample_tasks(jax.random.clone(key), 5), env.train_tasks
    sets = {"train_tasks": env.train_tasks, "test_tasks": env.test_tasks, "sample_tasks(key, 5)": first}
    for name, tasks in sets.items():
        n = 5 if tasks is first else None
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tasks)}
        if len(lengths) != 1 or lengths == {()} or lengths == {(0,)} or (n and lengths != {(n,)}):
            expected = f"arrays that all lead with {n or 'one (not empty)'} task axis"
            yield Violation(f"{name} leads with {sorted(lengths)}", expected, "stack one row per task")
            return
        layout = [(np.shape(x)[1:], np.asarray(x).dtype) for x in jax.tree.leaves(tasks)]
        expected = [(np.shape(x)[1:], np.asarray(x).dtype) for x in jax.tree.leaves(other)]
        if layout != expected:
            remedy = "give all tasks of the family one shape and dtype"
            yield Violation(f"{name} has (shape, dtype) {layout} per task", f"{expected} as train_tasks", remedy)
        if not all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(tasks)):
            yield Violation(f"{name} holds numbers that are not finite", "finite task parameters", "check the sampler")
    if not same(first, second):
        remedy = "draw from the key alone (with nacre.family: from the generator that is handed over), not from global random state"
        yield Violation("sample_tasks gives other tasks for the same key", "the same tasks", remedy)
    shared = len(task_rows(env.train_tasks) & task_rows(env.test_tasks))
    if shared and not getattr(env, "train_is_test", False):
        what = f"{shared} test task(s) are also training tasks"
        remedy = "draw the test tasks anew, or set train_is_test = True if the family has only these tasks"
        yield Violation(what, "disjoint sets, so that the test is about new tasks", remedy)


def check_arrays(probe: Probe) -> Iterator[Violation]:
    """Shapes and dtypes of what reset and step return."""
    spec, n = probe.env.spec, task_count(probe.tasks)
    state, obs = probe.env.reset(probe.fresh_key(), probe.tasks)
    yield from check_array("the observation of reset", obs, (n, spec.obs_size), np.float32)
    _, out = probe.env.step(state, probe.actions(1)[0], np.ones(n, bool))
    if not isinstance(out, Step):
        yield Violation(f"step returns a {type(out).__name__}", "(state, nacre.types.Step)", "build a Step")
        return
    yield from check_array("the observation of step", out.obs, (n, spec.obs_size), np.float32)
    yield from check_array("the reward", out.reward, (n,), np.float32)
    yield from check_array("the training reward", out.train_reward, (n,), np.float32)
    yield from check_array("terminal", out.terminal, (n,), bool)
    for name, value in out.info.items():
        if np.shape(value)[:1] != (n,):
            remedy = "give one entry per row"
            yield Violation(f"info[{name!r}] has shape {np.shape(value)}", f"a leading axis of {n} rows", remedy)
    if "truncated" in out.info:
        yield from check_array("info['truncated']", out.info["truncated"], (n,), bool)


def check_array(name: str, value: Array, shape: tuple, dtype: Any) -> Iterator[Violation]:
    found = np.asarray(value)
    if found.shape != shape:
        yield Violation(f"{name} has shape {found.shape}", f"{shape}, rows first", "fix the shape, or spec.obs_size")
    if found.dtype != dtype:
        name_of = np.dtype(dtype).name
        yield Violation(f"{name} has dtype {found.dtype}", name_of, f"convert it with .astype({name_of!r})")
    elif not np.all(np.isfinite(found)):
        yield Violation(f"{name} holds numbers that are not finite", "finite numbers", "look for a division by zero")


def check_episode(probe: Probe) -> Iterator[Violation]:
    """Whole episodes with random actions."""
    spec = probe.env.spec
    steps = min(spec.horizon, LONGEST)
    seen = probe.run(probe.tasks, probe.actions(steps))
    for name in ("obs", "reward", "train_reward"):
        bad = ~np.isfinite(getattr(seen, name)).reshape(len(seen.obs), -1).all(axis=1)
        if bad.any():
            what = f"{name} is not finite at env step {int(np.argmax(bad))} of an episode with random actions"
            yield Violation(what, "finite numbers", "bound the state, or end the episode before it diverges")
    ended = seen.terminal.any() or seen.truncated[: spec.horizon - 1].any()
    if ended and not spec.can_terminate:
        what = f"an episode ended before the horizon of {spec.horizon} env steps though spec.can_terminate is False"
        yield Violation(what, "episodes of full length", "set can_terminate=True in the spec")


def repeatable(probe: Probe) -> bool:
    """Same key, same actions: the same episode, whatever ran in between."""
    actions = probe.actions(min(STEPS, probe.env.spec.horizon))
    first = probe.run(probe.tasks, actions)
    probe.run(probe.tasks, actions[::-1], key=jax.random.fold_in(probe.fresh_key(), 1))
    return same(first, probe.run(probe.tasks, actions))


def check_repeats(repeats: bool) -> Iterator[Violation]:
    if not repeats:
        what = "the same key and actions gave two different episodes, so that nothing could be checked by comparing two"
        remedy = (
            "take all randomness from the key (a gymnasium environment: from self.np_random, after super().reset(seed=seed)) "
            "and reset every part of the state; then check again"
        )
        yield Violation(what, "the same episode", remedy)


def check_tasks_matter(probe: Probe) -> Iterator[Violation]:
    """Same key, same actions, another task: another reward or another observation. Uses the oracle where there is one,
    since random actions may never see a sparse reward."""
    if len(task_rows(probe.env.train_tasks) | task_rows(probe.env.test_tasks)) < 2:
        return
    steps = min(10 * STEPS, probe.env.spec.horizon)
    actions = oracle_actions(probe, steps)
    here, there = probe.run(probe.tasks, actions), probe.run(others(probe), actions)
    if same(here._replace(first=0), there._replace(first=0)):
        what = f"over {steps} env steps neither reward nor observation depended on the task"
        remedy = "use the task in the reward or the dynamics; if the reward is sparse, give the family an oracle"
        yield Violation(what, "tasks that differ", remedy)


def check_task_hidden(probe: Probe) -> Iterator[Violation]:
    """The first observation must not tell the task, unless the benchmark is made so (`observes_task` says how)."""
    if getattr(probe.env, "observes_task", ""):
        return
    here = np.asarray(probe.env.reset(probe.fresh_key(), probe.tasks)[1])
    there = np.asarray(probe.env.reset(probe.fresh_key(), others(probe))[1])
    columns = np.flatnonzero(np.abs(here - there).max(axis=0) > 1e-6)
    if columns.size:
        what = f"the first observation changes with the task (entries {columns.tolist()[:8]}), so the task can be read"
        remedy = "leave the task out of the observation, and draw the same start for every task"
        yield Violation(what, "the same first observation for the same key whatever the task", remedy)


def check_rows(probe: Probe) -> Iterator[Violation]:
    """The first half of the rows must not notice that the others do something else."""
    half = task_count(probe.tasks) // 2
    actions = probe.actions(min(STEPS, probe.env.spec.horizon))
    changed = actions.copy()
    changed[:, half:] = probe.actions(len(actions), seed=1)[:, half:]
    tasks = jax.tree.map(lambda a, b: np.concatenate([a[:half], b[half:]]), probe.tasks, others(probe))
    if not close(rows_of(probe.run(probe.tasks, actions), half), rows_of(probe.run(tasks, changed), half)):
        what = "a row's episode changed with the tasks or actions of other rows"
        remedy = (
            "look for sums or state shared over the row axis (environments of gymnasium: for globals that they share)"
        )
        yield Violation(what, "rows that do not depend on each other", remedy)


def check_inactive(probe: Probe) -> Iterator[Violation]:
    """Rows that are over must not disturb the others."""
    half = task_count(probe.tasks) // 2
    actions = probe.actions(min(STEPS, probe.env.spec.horizon))
    active = np.arange(task_count(probe.tasks)) < half
    if not close(
        rows_of(probe.run(probe.tasks, actions), half), rows_of(probe.run(probe.tasks, actions, active), half)
    ):
        what = "active rows changed when other rows were inactive"
        yield Violation(what, "the same episode", "do not let `active` reach the rows that are active")


def check_restart(probe: Probe) -> Iterator[Violation]:
    """Rows that begin again do so as after a reset with the same key; the others do not notice."""
    if not hasattr(probe.env, "restart"):
        return
    n = task_count(probe.tasks)
    over = np.arange(n) < n // 2
    state, _ = probe.env.reset(jax.random.fold_in(probe.fresh_key(), 1), probe.tasks)
    state, out = probe.env.step(state, probe.actions(1)[0], np.ones(n, bool))
    goes_on = ~over & ~np.asarray(out.terminal, bool)
    _, obs = probe.env.restart(probe.fresh_key(), state, over)
    _, first = probe.env.reset(probe.fresh_key(), probe.tasks)
    if not close(np.asarray(obs)[over], np.asarray(first)[over]):
        what = "a row that begins again does not begin as after reset with the same key"
        yield Violation(what, "the first observation that reset gives", "draw the start for all rows, as reset does")
    if not close(np.asarray(obs)[goes_on], np.asarray(out.obs)[goes_on]):
        what = "rows changed when others began again"
        yield Violation(what, "the observation they had", "write only to the rows where `over` is True")


def check_bounds(probe: Probe) -> Iterator[Violation]:
    """Actions at both ends of the range are legal and finite."""
    spec, n = probe.env.spec, task_count(probe.tasks)
    ends = (0, spec.action.n - 1) if spec.discrete else (spec.action.low, spec.action.high)
    dtype = np.int32 if spec.discrete else np.float32
    for end in ends:
        action = np.broadcast_to(np.asarray(end, dtype), (n, *np.shape(end)))
        seen = probe.run(probe.tasks, np.stack([action] * min(5, spec.horizon)))
        if not (np.all(np.isfinite(seen.obs)) and np.all(np.isfinite(seen.reward))):
            what = f"the action {end} led to numbers that are not finite"
            yield Violation(what, "finite numbers within the action bounds", "narrow the bounds or fix the dynamics")


def check_jit(probe: Probe) -> Iterator[Violation]:
    """Families that say so can be compiled, and compute the same."""
    if not probe.env.spec.jittable:
        return
    active = np.ones(task_count(probe.tasks), bool)
    action = probe.actions(1)[0]
    state, obs = probe.env.reset(probe.fresh_key(), probe.tasks)
    compiled_state, compiled_obs = jax.jit(probe.env.reset)(probe.fresh_key(), probe.tasks)
    plain = probe.env.step(state, action, active)[1]
    compiled = jax.jit(probe.env.step)(compiled_state, action, active)[1]
    if not close((obs, plain), (compiled_obs, compiled)):
        remedy = "write reset and step with jax.numpy only, or set jittable=False in the spec"
        yield Violation("compiled and plain results differ", "the same numbers", remedy)
