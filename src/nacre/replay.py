"""Replay on the device: one flat store for all tasks, with an index of blocks per task.

Every task numbers its own transitions 0, 1, 2, ... in the order of arrival. They live in blocks of a common store, so that
memory follows the experience of the run and not tasks x capacity. When the store is full, the oldest block of all is reused.
The *window* of a task is the range of its numbers that counts as recent context (PEARL's encoder buffer).
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import Discrete, EnvSpec, Trajectory


class Batch(eqx.Module):
    """Transitions with any leading axes; action is one-hot where actions are discrete."""

    obs: Array
    action: Array
    reward: Array  # what the agent sees
    train_reward: Array  # what learners may use
    terminal: Array  # float, 1 where the MDP ended
    next_obs: Array


class Replay(eqx.Module):
    """See the module's docstring. All counters are int32; `block` and the sizes are static."""

    store: Array  # [blocks * block, width] packed transitions
    owner: Array  # [blocks] task of each block
    index: Array  # [tasks, blocks] physical block of a task's logical block (a ring)
    total: Array  # [tasks] transitions ever added
    oldest: Array  # [tasks] number of the oldest one kept
    window: Array  # [tasks] number at which the recent window starts
    window_end: Array  # [tasks]
    used: Array  # blocks ever allocated
    block: int = eqx.field(static=True)
    obs_size: int = eqx.field(static=True)
    action_size: int = eqx.field(static=True)

    @property
    def blocks(self) -> int:
        return self.owner.shape[0]


def create(spec: EnvSpec, tasks: int, capacity: int) -> Replay:
    """An empty store for `capacity` transitions (rounded up to whole blocks, one more per task for open ones)."""
    block, blocks = block_size(spec), blocks_for(spec, tasks, capacity)
    zeros = lambda: jnp.zeros(tasks, jnp.int32)  # noqa: E731  separate buffers, so that all can be donated
    width = 2 * spec.obs_size + spec.action.size + 3
    return Replay(
        store=jnp.zeros((blocks * block, width), jnp.float32),
        owner=jnp.zeros(blocks, jnp.int32),
        index=jnp.zeros((tasks, blocks), jnp.int32),
        total=zeros(),
        oldest=zeros(),
        window=zeros(),
        window_end=zeros(),
        used=jnp.zeros((), jnp.int32),
        block=block,
        obs_size=spec.obs_size,
        action_size=spec.action.size,
    )


def blocks_for(spec: EnvSpec, tasks: int, capacity: int) -> int:
    """Blocks that hold `capacity` transitions, with an open one per task."""
    return int(np.ceil(capacity / block_size(spec))) + tasks


def block_size(spec: EnvSpec) -> int:
    """Transitions per block: no episode may need more than one new block."""
    return max(spec.horizon, 128)


def grow(replay: Replay, blocks: int) -> Replay:
    """The same content in a store of more blocks; vmaps over seeds."""
    r, old = replay, replay.owner.shape[0]
    if blocks < old:
        raise ValueError(f"a replay of {old} blocks cannot shrink to {blocks}")
    shift = jnp.where(r.used > old, r.used % old, 0)  # the oldest block comes first
    rows = r.store.reshape(old, r.block, -1)
    pad = lambda x: jnp.concatenate([jnp.roll(x, -shift, axis=0), jnp.zeros((blocks - old, *x.shape[1:]), x.dtype)])  # noqa: E731
    low = (r.oldest // r.block)[:, None]
    logical = low + (jnp.arange(blocks) - low) % blocks
    index = jnp.take_along_axis((r.index - shift) % old, logical % old, axis=1)
    new = (pad(rows).reshape(blocks * r.block, -1), pad(r.owner), index, jnp.minimum(r.used, old))
    return eqx.tree_at(lambda r: (r.store, r.owner, r.index, r.used), r, new)


def pack(spec: EnvSpec, episodes: Trajectory) -> Array:
    """Trajectory [..., T] -> packed rows [..., T, width]."""
    action = episodes.action
    if isinstance(spec.action, Discrete):
        action = jax.nn.one_hot(action, spec.action.n)
    scalars = jnp.stack([episodes.reward, episodes.train_reward, episodes.terminal.astype(jnp.float32)], axis=-1)
    return jnp.concatenate([episodes.obs, action, scalars, episodes.next_obs], axis=-1).astype(jnp.float32)


def unpack(replay: Replay, rows: Array) -> Batch:
    d, a = replay.obs_size, replay.action_size
    obs, action, scalars, next_obs = jnp.split(rows, [d, d + a, d + a + 3], axis=-1)
    return Batch(obs, action, scalars[..., 0], scalars[..., 1], scalars[..., 2], next_obs)


def clear_window(replay: Replay, tasks: Array) -> Replay:
    """Forget what was recent for these tasks; their transitions stay."""
    start = replay.window.at[tasks].set(replay.total[tasks])
    return eqx.tree_at(
        lambda r: (r.window, r.window_end), replay, (start, replay.window_end.at[tasks].set(start[tasks]))
    )


@partial(jax.jit, static_argnums=1, static_argnames="recent", donate_argnums=0)
def append(replay: Replay, spec: EnvSpec, tasks: Array, episodes: Trajectory, *, recent: bool) -> Replay:
    """Add episodes [N, E, T] of tasks [N]. recent: they join the window too (which they extend to the newest). The replay
    that is passed is consumed."""
    rows = pack(spec, episodes)
    n, e, t, width = rows.shape
    flat = (jnp.repeat(tasks, e), rows.reshape(n * e, t, width), episodes.valid.reshape(n * e, t).sum(axis=-1))

    def add(replay: Replay, row):
        return _append_row(replay, *row, recent=recent), None

    return jax.lax.scan(add, replay, flat)[0]


def _append_row(r: Replay, task: Array, rows: Array, length: Array, *, recent: bool) -> Replay:
    """One episode: rows [T, width] of which the first `length` count."""
    total = r.total[task]
    last_block = (total + r.block - 1) // r.block  # the first logical block that is not allocated yet
    grow = total + length > last_block * r.block
    physical = r.used % r.blocks
    loser = r.owner[physical]
    evict = grow & (r.used >= r.blocks)
    oldest = r.oldest.at[loser].add(jnp.where(evict, r.block, 0))
    # a block that was still being filled: its task goes on with the next one
    totals = r.total.at[loser].max(jnp.where(evict, oldest[loser], 0))
    index = r.index.at[task, last_block % r.blocks].set(jnp.where(grow, physical, r.index[task, last_block % r.blocks]))
    owner = r.owner.at[physical].set(jnp.where(grow, task, loser))
    step = jnp.arange(rows.shape[0])
    number = total + step
    place = index[task, (number // r.block) % r.blocks] * r.block + number % r.block
    place = jnp.where(step < length, place, r.store.shape[0])  # out of bounds: dropped
    store = r.store.at[place].set(rows, mode="drop")
    total = total + length
    end = r.window_end.at[task].set(jnp.where(recent, total, r.window_end[task]))
    return Replay(
        store, owner, index, totals.at[task].set(total), oldest, r.window, end, r.used + grow.astype(jnp.int32),
        r.block, r.obs_size, r.action_size,
    )  # fmt: skip


def _gather(r: Replay, tasks: Array, numbers: Array) -> Batch:
    """numbers [N, n] of tasks [N] -> Batch [N, n]."""
    physical = r.index[tasks[:, None], (numbers // r.block) % r.blocks]
    return unpack(r, r.store[physical * r.block + numbers % r.block])


def _range(r: Replay, tasks: Array, recent: bool) -> tuple[Array, Array]:
    """First number and one past the last of what counts, [N] each."""
    if not recent:
        return r.oldest[tasks], r.total[tasks]
    low = jnp.maximum(r.oldest[tasks], r.window[tasks])
    return low, jnp.maximum(r.window_end[tasks], low)


def sample(r: Replay, key: Array, tasks: Array, n: int, *, recent: bool = False) -> Batch:
    """n transitions per task [N], uniform with replacement, from all that is kept or from the recent window -> [N, n]."""
    low, high = _range(r, tasks, recent)
    u = jax.random.uniform(key, (tasks.shape[0], n))
    size = (high - low)[:, None]
    offset = jnp.minimum((u * size).astype(jnp.int32), jnp.maximum(size - 1, 0))
    return _gather(r, tasks, low[:, None] + offset)


def sample_sequence(r: Replay, key: Array, tasks: Array, n: int, *, recent: bool = True) -> tuple[Batch, Array]:
    """n consecutive transitions per task in order of arrival, from a random start -> Batch [N, n], valid [N, n]."""
    low, high = _range(r, tasks, recent)
    room = jnp.maximum(high - low - n, 0) + 1
    start = low + (jax.random.uniform(key, tasks.shape) * room).astype(jnp.int32)
    numbers = start[:, None] + jnp.arange(n)
    valid = numbers < high[:, None]
    return _gather(r, tasks, jnp.minimum(numbers, jnp.maximum(high - 1, low)[:, None])), valid


def sample_pieces(
    r: Replay, key: Array, tasks: Array, most: int, length: int, *, recent: bool = False
) -> tuple[Batch, Array]:
    """`most` sequences of `length` transitions per task [N], of which a random number, 1 to `most`, count -> Batch
    [N, most * length], valid [N, most * length]."""
    n = tasks.shape[0]
    start_key, count_key = jax.random.split(key)
    seen, valid = sample_sequence(r, start_key, jnp.repeat(tasks, most), length, recent=recent)
    count = jax.random.randint(count_key, (n, 1), 1, most + 1)
    valid = valid.reshape(n, most, length) & (jnp.arange(most) < count)[..., None]
    return jax.tree.map(lambda x: x.reshape(n, most * length, *x.shape[2:]), seen), valid.reshape(n, -1)
