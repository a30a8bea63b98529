"""Trials as sequences, for agents that learn within them: what came before each env step, and advantages along the trial."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nacre import rollout
from nacre.types import Environment, EnvSpec, Metric, Trajectory, take_tasks, task_count
from nacre.updates import ppo

METRICS = {
    "collect/return": Metric("reward", "mean return of the trials' episodes"),
    "collect/return_last": Metric("reward", "mean return of the trials' last episodes"),
}


class Sequences(NamedTuple):
    """N trials of L = K * T env steps, [N, L, ...]. Steps after the early end of an episode are there, and not valid."""

    obs: Array
    action: Array
    reward: Array
    train_reward: Array
    valid: Array  # bool
    over: Array  # bool: the last step of its episode, by whatever reason
    episode: Array  # number of the episode within the trial
    obs_before: Array  # of the valid step before, zero before the first; so are the next three
    action_before: Array  # [N, L, A] one-hot where actions are discrete
    reward_before: Array
    over_before: Array  # float
    begun: Array  # float: 0 at the first step of an episode
    extras: dict[str, Array]  # what was recorded while acting

    @property
    def weight(self) -> Array:
        return self.valid.astype(jnp.float32)

    @property
    def first(self) -> Array:
        """bool: the first step of its trial. Rows may hold several (`packed`)."""
        return (self.begun == 0) & (self.episode == 0) & self.valid

    def of_step_before(self, x: Array, nothing: Array) -> Array:
        """x [N, L, d] of the valid step before each; `nothing` [d] at the first of a trial."""
        return jnp.where(self.first[..., None], nothing, step_before(x, self.valid))


def encoded(spec: EnvSpec, action: Array) -> Array:
    """[..., A] for networks: one-hot where actions are discrete."""
    return jax.nn.one_hot(action, spec.action.size) if spec.discrete else action


def along(x: Array) -> Array:
    """A trial's episodes one after another along time: [K, N, 1, T, ...] -> [N, K * T, ...]."""
    x = jnp.moveaxis(x[:, :, 0], 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def episode_ends(data: Trajectory) -> Array:
    """Which steps [K, N, 1, T] were the last of their episode, by whatever reason."""
    limit = jnp.arange(data.reward.shape[-1]) == data.reward.shape[-1] - 1
    return (data.terminal | data.info.get("truncated", False) | limit) & data.valid


def step_before(x: Array, valid: Array) -> Array:
    """x [N, L, ...] of the last valid step before each; zero where there is none."""
    last = jax.lax.cummax(jnp.where(valid, jnp.arange(valid.shape[1]), -1), axis=1)
    last = jnp.concatenate([jnp.full_like(last[:, :1], -1), last[:, :-1]], axis=1)
    last = last.reshape(last.shape + (1,) * (x.ndim - 2))
    return jnp.where(last < 0, 0, jnp.take_along_axis(x, jnp.maximum(last, 0), axis=1))


def sequences(data: Trajectory, spec: EnvSpec) -> Sequences:
    """Trials [K, N, 1, T] one after another along time."""
    k, _, _, t = data.reward.shape
    valid, steps, over = along(data.valid), jnp.arange(k * t), along(episode_ends(data))
    before = partial(step_before, valid=valid)
    obs, action, reward = along(data.obs), along(data.action), along(data.reward)
    over_before = before(over.astype(jnp.float32))
    return Sequences(
        obs, action, reward, along(data.train_reward), valid, over, jnp.broadcast_to(steps // t, valid.shape),
        before(obs), before(encoded(spec, action)), before(reward), over_before,
        (1.0 - over_before) * (steps > 0), jax.tree.map(along, data.extras),
    )  # fmt: skip


def advantages(
    trials: Sequences, reward: Array, value: Array, discount: float, decay: float, per_episode: bool
) -> Array:  # fmt: skip
    """Generalised advantages [N, L] of valid steps, along the trial or (per_episode) within each episode.

    A trial ends with its last step and is worth nothing afterwards. The end of an episode is no end of the trial: the agent goes
    on in the next one, with what it has learnt. Steps that are not valid neither discount nor pay: they are sorted behind the
    others, and back.
    """
    alive = 1.0 - trials.over * per_episode
    order = jnp.argsort(~trials.valid, axis=1, stable=True)
    valid, reward, value, alive = (jnp.take_along_axis(x, order, axis=1) for x in (trials.valid, reward, value, alive))
    more = jnp.concatenate([valid[:, 1:], jnp.zeros_like(valid[:, :1])], axis=1)
    nothing = jnp.zeros(valid.shape[0])
    found = ppo.advantages(reward * valid, value * valid, nothing, alive * more, discount, decay)
    return jnp.take_along_axis(found, jnp.argsort(order, axis=1), axis=1)


def packed(batch: Any, valid: Array, rows: int) -> tuple[Any, Array, Array]:
    """Trials [N, L, ...] that end early, laid one after another into `rows` rows of the same length.

    -> the rows [rows, L, ...], what of them is valid [rows, L], the share of all valid steps that they hold. Each trial is laid
    where the one before ends, or into the next row if that has no room for it; those that no row is left for are left out. Places
    that stay empty hold a step that is somewhere else, too, and are not valid.
    """
    n, length = valid.shape

    def lay(carry, size):
        row, used = carry
        fits = used + size <= length
        row, start = row + ~fits, jnp.where(fits, used, 0)
        return (row, start + size), row * length + start

    _, first = jax.lax.scan(lay, (jnp.zeros((), jnp.int32),) * 2, valid.sum(axis=1).astype(jnp.int32))
    place = jnp.where(valid, first[:, None] + jnp.cumsum(valid, axis=1) - 1, rows * length).reshape(-1)
    there = jnp.zeros(rows * length, bool).at[place].set(True, mode="drop")
    source = jnp.zeros(rows * length, jnp.int32).at[place].set(jnp.arange(n * length), mode="drop")
    moved = jax.tree.map(
        lambda x: x.reshape(n * length, *x.shape[2:])[source].reshape(rows, length, *x.shape[2:]), batch
    )
    return moved, there.reshape(rows, length), there.sum() / jnp.maximum(valid.sum(), 1)


def collect(
    env: Environment, algorithm: Any, params: Any, tasks: Any, key: Array, *, learn_from: str
) -> tuple[Trajectory, dict[str, Array]]:
    """A trial of algorithm.trial_episodes episodes on each task -> trials [K, N, 1, T] with what is learnt from, metrics."""
    data, _ = rollout.trial(env, algorithm, params, tasks, key, episodes=algorithm.trial_episodes, explore=True)
    returns = data.episode_return  # [K, N, 1]
    metrics = {"collect/return": returns.mean(), "collect/return_last": returns[-1].mean()}
    return learnt_from(env, learn_from, tasks, data), metrics


def draw_tasks(env: Environment, which: str, key: Array, n: int) -> Any:
    """n tasks for an iteration. which: "fresh", from the family's distribution, or "fixed", of its training tasks."""
    if which == "fresh":
        return env.sample_tasks(key, n)
    return draw_training_tasks(env, key, n)[1]


def draw_training_tasks(env: Environment, key: Array, n: int) -> tuple[Array, Any]:
    """n of the training tasks, with replacement -> their numbers [n], the tasks."""
    chosen = jax.random.randint(key, (n,), 0, task_count(env.train_tasks))
    return chosen, take_tasks(jax.tree.map(jnp.asarray, env.train_tasks), chosen)


def require_regret(env: Environment, learn_from: str) -> None:
    """Raises ValueError where regrets are asked for that the family does not know."""
    if learn_from == "regret" and not hasattr(env, "regret"):
        raise ValueError(
            f"learn_from=regret: {env.spec.name} does not know what the best action is worth (it has no `regret`); "
            "use learn_from=reward"
        )


def learnt_from(env: Environment, what: str, tasks: Any, data: Trajectory) -> Trajectory:
    """Trials [K, N, 1, T] whose train_reward is what is learnt from: the family's, or minus the regret of each action."""
    return data if what == "reward" else data._replace(train_reward=-env.regret(tasks, data) * data.valid)
