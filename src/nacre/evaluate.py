"""The meta-test: what an agent earns in each episode of a trial on tasks it has never seen, beside references.

Published protocol (PEARL): act deterministically; memory starts empty, is adapted after every episode with all that was
seen in the trial, and is never told the task. Evaluation's env steps are counted apart from training's.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nacre import rollout
from nacre._errors import UserError, check_count, check_seed
from nacre.results import Result, summary
from nacre.types import (
    Algorithm,
    Array,
    Box,
    Environment,
    EnvSpec,
    Key,
    Memory,
    Params,
    Trajectory,
    exploration_episodes,
    spread_tasks,
    task_count,
    trial_episodes,
)

STREAM = 20190319  # evaluation's keys come from this and never from a training seed
BATCH = {True: 4096, False: 256}  # rows stepped at once by families in JAX, on the host: bounds the memory
REPETITIONS = {True: 10, False: 2}  # trials per task by default: families in JAX, on the host


class Shots(NamedTuple):
    """What a meta-test measured, in NumPy. R repetitions, N tasks, K episodes of a trial, T env steps."""

    returns: np.ndarray  # [R, N, K] undiscounted sums of the reward
    beliefs: dict[str, np.ndarray]  # [R, K, N, ...] at the start of episode k, as the algorithm names it
    info: dict[str, np.ndarray]  # [K, N, T, ...] the family's measurements in the first repetition, 0 after the end
    env_steps: int  # taken in all
    lengths: np.ndarray  # [R, N, K] env steps of each episode
    success: np.ndarray | None = None  # [R, N, K] whether info["success"] was 1 at any step, where the family has one


def evaluation_key(seed: int = 0) -> Key:
    """The key of meta-tests: the same for every run, so that a run always evaluates to the same numbers. Raises ValueError for
    a seed that no key can be made of."""
    return jax.random.fold_in(jax.random.key(STREAM), check_seed(seed))


def meta_test(
    env: Environment, algorithm: Algorithm, params: Params, tasks: Any, key: Key,
    *, episodes: int, repetitions: int = 1, explore: bool = False, reset_memory: bool = False,
) -> Shots:  # fmt: skip
    """`repetitions` trials of `episodes` episodes on each of the tasks (leaves [N, ...]), all in one batch.

    explore: act stochastically. reset_memory: forget everything before every episode (the no-adaptation reference).
    Families in JAX run as one compiled program, kept for the next call with the same sizes; the others are stepped on
    the host, at most 256 rows at once. Raises UserError for counts below 1, FloatingPointError for a return that is
    not finite, naming task and episode.
    """
    episodes, repetitions = check_count("episodes", episodes), check_count("repetitions", repetitions)
    n = task_count(tasks)
    rows = jax.tree.map(lambda leaf: np.concatenate([np.asarray(leaf)] * repetitions), tasks)  # [R * N, ...]
    count = repetitions * n
    run = _compiled if env.spec.jittable else _trial
    at_once = getattr(env, "rows_at_once", BATCH[env.spec.jittable])
    parts, most = [], max(1, at_once // rollout.round_episodes(algorithm, episodes))
    for i, part in enumerate(np.array_split(np.arange(count), -(-count // most))):
        batch = jax.tree.map(lambda leaf, part=part: leaf[part], rows)
        shown = int((part < n).sum())  # rows of the first repetition
        out = run(env, algorithm, params, batch, jax.random.fold_in(key, i), episodes, explore, reset_memory, shown)
        parts.append(jax.device_get(out))
    per_shot, beliefs, info = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)  # [K, rows, ...]
    split = lambda leaf: leaf.reshape(episodes, repetitions, n, *leaf.shape[2:])  # noqa: E731
    returns, lengths, success = jax.tree.map(lambda x: np.moveaxis(split(x), 0, 2), per_shot)  # [R, N, K]
    beliefs = {name: np.moveaxis(split(leaf), 0, 1) for name, leaf in beliefs.items()}  # [R, K, N, ...]
    _require_finite(env, returns)
    return Shots(returns, beliefs, info, int(lengths.sum()), lengths, success)


def _trial(env, algorithm, params, tasks, key, episodes, explore, reset_memory, shown):
    """(returns, lengths, success) [K, B], beliefs [K, B, ...], info [K, shown, T, ...] of one batch of rows."""
    memory = algorithm.start(tasks) if isinstance(algorithm, Oracle) else None
    options = {"episodes": episodes, "explore": explore, "reset_memory": reset_memory, "memory": memory}
    data, beliefs = rollout.trial(env, algorithm, params, tasks, key, **options)  # [K, B, 1, T]
    # what the agent believes at each step stands beside what the family measures
    told = {name: leaf for name, leaf in dict(data.extras or {}).items() if name.startswith("belief/")}
    measured = {name: leaf for name, leaf in data.info.items() if name != "truncated"}
    info = {name: leaf[:, :shown, 0] for name, leaf in (measured | told).items()}
    lengths = data.valid[:, :, 0].sum(axis=-1)
    success = (data.info["success"] > 0).any(axis=-1)[:, :, 0] if "success" in data.info else None
    return (data.episode_return[:, :, 0], lengths, success), beliefs, info


_compiled = partial(jax.jit, static_argnums=(0, 1, 5, 6, 7, 8))(_trial)


def _require_finite(env: Environment, returns: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(returns))
    if len(bad):
        r, n, k = (int(i) for i in bad[0])
        raise FloatingPointError(
            f"{env.spec.name}: the return of episode {k} on task {n} (repetition {r}) is {returns[r, n, k]}; expected "
            "finite rewards; look at the family's reward, or at the agent's parameters if training diverged"
        )


# ------------------------------------------------------------------------------------------------- references


@functools.cache
def _uniform_rule(spec: EnvSpec):
    return lambda memory, obs, key: rollout.uniform_action(spec, key, obs.shape[:2])


@functools.cache
def _still_rule(spec: EnvSpec):
    zero = to_agent_action(spec, np.zeros(spec.action.size, np.float32))
    return lambda memory, obs, key: jnp.broadcast_to(zero, (*obs.shape[:2], spec.action.size))


def to_agent_action(spec: EnvSpec, action: Array) -> Array:
    """The inverse of rollout.to_env_action: the environment's units -> [-1, 1] per dimension, or the index."""
    if not isinstance(spec.action, Box):
        return action
    low, high = np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32)
    return (action - low) / (high - low) * 2.0 - 1.0


@dataclass(frozen=True)
class Oracle:
    """The family's policy that knows the task, in the shape of an Algorithm. Memory: the tasks and the env step."""

    env: Environment
    observes = False

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec

    @property
    def known(self) -> bool:
        """Whether the family has such a policy."""
        one = jax.tree.map(lambda leaf: np.asarray(leaf)[:1], self.env.test_tasks)
        return self.env.oracle(one, np.zeros((1, self.spec.obs_size), np.float32), 0) is not None

    def start(self, tasks: Any) -> Memory:
        return jax.tree.map(jnp.asarray, tasks), jnp.zeros((), jnp.int32)

    def begin(self, params: Params, key: Key, rows: tuple[int, int]) -> Memory:
        raise NotImplementedError("an oracle starts from the tasks")

    def act(self, params: Params, memory: Memory, obs: Array, key: Key, explore: bool):
        tasks, t = memory
        action = to_agent_action(self.spec, self._ask(tasks, obs[:, 0], t))
        return action[:, None], (), (tasks, t + 1)

    def adapt(self, params: Params, memory: Memory, episodes: Trajectory, key: Key) -> Memory:
        return memory[0], jnp.zeros((), jnp.int32)

    def _ask(self, tasks: Any, obs: Array, t: Array) -> Array:
        """Host families answer in NumPy, out of the compiled step."""
        if self.spec.jittable:
            return self.env.oracle(tasks, obs, t)
        discrete = self.spec.discrete
        shape = (obs.shape[0],) if discrete else (obs.shape[0], self.spec.action.size)
        like = jax.ShapeDtypeStruct(shape, np.int32 if discrete else np.float32)

        def on_host(tasks, obs, t):
            return np.asarray(self.env.oracle(jax.tree.map(np.asarray, tasks), np.asarray(obs), int(t)), like.dtype)

        return jax.pure_callback(on_host, like, tasks, obs, t)


def references(
    env: Environment, tasks: Any, key: Key, *, episodes: int, repetitions: int = 1,
    tell: Callable[[str], None] = lambda what: None,
) -> dict[str, list[float] | None]:  # fmt: skip
    """Mean return per shot of policies that do not learn: `random` (uniform actions), `still` (the zero action, where
    the bounds hold it), `oracle` (knows the task); None where the family has none. tell: as in `evaluate`."""
    spec = env.spec
    at_rest = isinstance(spec.action, Box) and all(
        low <= 0 <= high for low, high in zip(spec.action.low, spec.action.high, strict=True)
    )
    actors: dict[str, Any] = {
        "random": rollout.Scripted(_uniform_rule(spec), spec),
        "still": rollout.Scripted(_still_rule(spec), spec) if at_rest else None,
        "oracle": Oracle(env) if Oracle(env).known else None,
    }
    found: dict[str, list[float] | None] = dict.fromkeys(actors)
    for name, actor in actors.items():
        if actor is not None:
            tell({"random": "random actions", "still": "the zero action", "oracle": "the oracle"}[name])
            again = jax.random.clone(key)  # the same starts for everyone who acts episode by episode
            shots = meta_test(env, actor, (), tasks, again, episodes=episodes, repetitions=repetitions)
            found[name] = shots.returns.mean(axis=(0, 1)).tolist()
    return found


# --------------------------------------------------------------------------------------------------- results


class Member(NamedTuple):
    """One trained agent among those that are evaluated together."""

    algorithm: Algorithm
    params: Params
    seed: int
    env_steps: int


def members(agent_or_run: Any, checkpoint: int | None) -> list[Member]:
    """An agent is one; a run (nacre.runs.Run) has one per seed, at env steps `checkpoint` (None: each seed's last)."""
    if hasattr(agent_or_run, "checkpoints"):
        run, found = agent_or_run, []
        run.warn_of_changes()
        for seed in run.seeds:
            at = run.newest(seed) if checkpoint is None else checkpoint  # once: a run that trains may write another
            found.append(Member(run.algorithm, run.params(at, seed), seed, int(at)))
        return found
    if hasattr(agent_or_run, "params"):
        if checkpoint is not None:
            raise UserError(f"an agent is one checkpoint already; evaluate its run to choose checkpoint {checkpoint}")
        agent = agent_or_run
        return [Member(agent.algorithm, agent.params, agent.seed, agent.env_steps)]
    raise TypeError(f"expected an agent (nacre.load(path)) or a run (nacre.open_run(path)), got {agent_or_run!r}")


def evaluate(
    agent_or_run: Any, *, episodes: int | None = None, repetitions: int | None = None, n_tasks: int | None = None,
    split: str = "test", checkpoint: int | None = None, explore: bool = False, seed: int = 0,
    tell: Callable[[str], None] = lambda what: None,
) -> Result:  # fmt: skip
    """Meta-test an agent, or all seeds of a run (or its directory) pooled, with intervals and references.

    episodes: of a trial; None: the family's published protocol, or the algorithm's. repetitions: trials per task and
    seed; None: 10 for families in JAX, 2 on the host. n_tasks: at most so many tasks, evenly spaced in their order;
    None: all. split: "test" or "train" tasks. checkpoint: env steps at which a run's parameters were kept; None: the
    last. explore: act stochastically. seed: of the evaluation itself; the same gives the same numbers. tell: is told who
    acts next, for progress. Raises UserError for values out of range, FloatingPointError for returns that are not finite.
    """
    if split not in ("test", "train"):
        raise UserError(f"split must be 'test' or 'train', got {split!r}")
    if isinstance(agent_or_run, (str, Path)):
        from nacre.runs import open_run

        agent_or_run = open_run(agent_or_run)
    agents = members(agent_or_run, checkpoint)
    env, spec = agent_or_run.env, agent_or_run.env.spec
    counts = {
        "episodes": trial_episodes(agents[0].algorithm) if episodes is None else episodes,
        "repetitions": REPETITIONS[spec.jittable] if repetitions is None else repetitions,
    }
    most = None if n_tasks is None else check_count("n_tasks", n_tasks)
    tasks = spread_tasks(env.test_tasks if split == "test" else env.train_tasks, most)

    def shots(agent, reset_memory):
        of_seed = f", seed {agent.seed}" if len(agents) > 1 else ""
        tell(f"the agent{' without adaptation' if reset_memory else ''}{of_seed}")
        options = {"explore": explore, "reset_memory": reset_memory, **counts}
        return meta_test(env, agent.algorithm, agent.params, tasks, evaluation_key(seed), **options)

    fixed = np.stack([shots(agent, True).returns for agent in agents])  # [S, R, N, K]
    known = references(env, tasks, evaluation_key(seed), tell=tell, **counts)
    found = [shots(agent, False) for agent in agents]
    success = None if found[0].success is None else np.stack([of_seed.success for of_seed in found])
    returns = np.stack([of_seed.returns for of_seed in found])
    return Result(
        algorithm=agent_or_run.algorithm_name,
        env=agent_or_run.env_name,
        preset=agent_or_run.preset,
        seeds=[int(agent.seed) for agent in agents],
        env_steps=min(int(agent.env_steps) for agent in agents),
        split=split,
        deterministic=not explore,
        repetitions=counts["repetitions"],
        task_params=task_params(tasks),
        references={**known, "no_adaptation": fixed.mean(axis=(0, 1, 2)).tolist()},
        exploration_episodes=exploration_episodes(agents[0].algorithm),
        acts=None if explore else getattr(agents[0].algorithm, "test_acts", None),
        furthest=max(int(agent.env_steps) for agent in agents),
        **summary(returns, seed, success, getattr(env, "train_is_test", False), fixed),
    )


# --------------------------------------------------------------------------------------------- files


def task_params(tasks: Any) -> list[list[float]]:
    """Per task its numbers; the leaves of a pytree one after another."""
    leaves = [np.asarray(leaf).reshape(np.shape(leaf)[0], -1) for leaf in jax.tree.leaves(tasks)]
    return np.concatenate(leaves, axis=1).tolist()


def evaluation_arrays(shots: Shots, tasks: Any) -> dict[str, np.ndarray]:
    """A flat dict for numpy.savez: returns, lengths, env_steps, success where it is known, tasks/<index or name>,
    beliefs/<name>, info/<name>."""
    arrays = {"returns": shots.returns, "lengths": shots.lengths, "env_steps": np.asarray(shots.env_steps)}
    if shots.success is not None:
        arrays["success"] = shots.success
    for path, leaf in jax.tree_util.tree_leaves_with_path(tasks):
        arrays[f"tasks/{jax.tree_util.keystr(path, simple=True, separator='/') or '0'}"] = np.asarray(leaf)
    arrays |= {f"beliefs/{name}": leaf for name, leaf in shots.beliefs.items()}
    return arrays | {f"info/{name}": leaf for name, leaf in shots.info.items()}


def load_evaluation(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an evaluation file. Raises FileNotFoundError, or ValueError for a file that is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no evaluation {path}") from None
    except Exception as error:  # NumPy raises many kinds for a damaged archive
        raise ValueError(f"{path} is damaged or not an evaluation (.npz) of Nacre: {error}") from error
    if "returns" not in arrays or not any(name.startswith("tasks/") for name in arrays):
        raise ValueError(f"{path} is not an evaluation of Nacre: it holds {', '.join(arrays) or 'nothing'}")
    return arrays
