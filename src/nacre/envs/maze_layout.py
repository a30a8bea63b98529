"""Layouts of mazes: how they are drawn, and the ways through them. Pure JAX.

Cells are numbered from the lower left one: cell = y * size + x. Sides and moves are numbered alike: up, right, down, left.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.types import task_count

MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (x, y): up, right, down, left
SIDES = ("up", "right", "down", "left")


class Task(NamedTuple):
    """A maze, or n of them with a leading axis."""

    passages: Array  # [cells, 4] bool: whether one can leave the cell by that side
    start: Array  # cell, int32
    target: Array  # another cell, int32


def offsets(size: int) -> np.ndarray:
    """What each move adds to the number of the cell, [4]."""
    return np.array([dx + dy * size for dx, dy in MOVES], np.int32)


@functools.cache
def edges(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbours, [edges, 2], the lower cell first; and the edge at each side of each cell [cells, 4], `edges` where
    the grid ends."""
    pairs, at = [], np.full((size * size, 4), 2 * size * (size - 1))
    for cell in range(size * size):
        for side, inside in ((0, cell // size < size - 1), (1, cell % size < size - 1)):
            if inside:
                neighbour = cell + offsets(size)[side]
                at[cell, side] = at[neighbour, side + 2] = len(pairs)
                pairs.append((cell, neighbour))
    return np.array(pairs), at


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def draw(keys: Array, size: int, openings: float, smallest: int = 0) -> Task:
    """A task per key, of one draw: random numbers are most of what there is to compile. smallest: see Maze."""
    pairs, at = edges(size)
    n, (one, other) = keys.shape[0], pairs.T
    u = jax.vmap(lambda key: jax.random.uniform(key, (2 * len(pairs) + 2 + bool(smallest),)))(keys)
    weights, wall, ends, sizes = jnp.split(u, (len(pairs), 2 * len(pairs), 2 * len(pairs) + 2), axis=1)
    side = smallest + (sizes * (size + 1 - smallest)).astype(jnp.int32) if smallest else jnp.full((n, 1), size)
    number = jnp.arange(size * size)
    within = (number % size < side) & (number // size < side)  # [n, cells]
    crossing = within[:, one] != within[:, other]
    # the last edges of the tree, so that what is left without them is a tree of the small maze
    opened = (spanning_tree(weights + crossing, size) | (wall < openings)) & ~crossing
    passages = jnp.concatenate([opened, jnp.zeros((n, 1), bool)], axis=1)[:, at]
    cells = side[:, 0] ** 2
    start = (ends[:, 0] * cells).astype(jnp.int32)
    further = 1 + (ends[:, 1] * (cells - 1)).astype(jnp.int32)
    places = [k // side[:, 0] * size + k % side[:, 0] for k in (start, (start + further) % cells)]
    return Task(passages, *places)


def spanning_tree(weights: Array, size: int) -> Array:
    """Which edges are in the minimum spanning tree under weights [n, edges]: [n, edges] bool. Prim's algorithm."""
    (one, other), cells = edges(size)[0].T, size * size

    def grow(_, carry):
        inside, tree = carry
        border = inside[:, one] != inside[:, other]
        best = jnp.where(border, weights, jnp.inf).argmin(axis=1)[:, None]
        ends = jnp.asarray(one)[best], jnp.asarray(other)[best]
        number = jnp.arange(cells)
        return inside | (number == ends[0]) | (number == ends[1]), tree | (jnp.arange(len(one)) == best)

    first = jnp.broadcast_to(jnp.arange(cells) == 0, (weights.shape[0], cells))
    return jax.lax.fori_loop(0, cells - 1, grow, (first, jnp.zeros(weights.shape, bool)))[1]


def neighbours(values: Array) -> Array:
    """Values [..., cells] of the neighbour at each side, [..., cells, 4]; where the grid ends it is some other cell's, but no
    passage leads there."""
    size = math.isqrt(values.shape[-1])
    return jnp.stack([jnp.roll(values, -step, axis=-1) for step in offsets(size).tolist()], axis=-1)


@jax.jit
def distances(tasks: Task) -> Array:
    """Env steps from each cell to the target, [..., cells] int32."""
    passages = jnp.asarray(tasks.passages)
    cells = passages.shape[-2]
    far = jnp.where(jnp.arange(cells) == jnp.asarray(tasks.target)[..., None], 0, cells).astype(jnp.int32)

    def nearer(carry):
        far, _ = carry
        less = jnp.minimum(far, jnp.where(passages, neighbours(far), cells).min(axis=-1) + 1)
        return less, (less != far).any()

    return jax.lax.while_loop(lambda carry: carry[1], nearer, (far, jnp.asarray(True)))[0]


@jax.jit
def shortest_way(tasks: Task) -> Array:
    """Moves of a shortest way from the start, [cells - 1, B], any ones after the target."""
    passages, cells = tasks.passages, tasks.passages.shape[-2]
    down = jnp.where(passages, neighbours(distances(tasks)), cells).argmin(axis=-1)  # [B, cells]
    step, row = jnp.asarray(offsets(math.isqrt(cells))), jnp.arange(len(tasks.start))

    def go(cell, _):
        move = down[row, cell]
        return cell + step[move], move

    return jax.lax.scan(go, tasks.start, None, length=cells - 1)[1]


def shortest(tasks: Task) -> np.ndarray:
    """Length of the shortest way from the start to the target, env steps, [N]."""
    return np.asarray(distances(tasks))[np.arange(task_count(tasks)), np.asarray(tasks.start)]


def from_numbers(numbers: Any) -> Task:
    """Tasks from their numbers [N, cells * 4 + 2], as results keep them."""
    numbers = np.asarray(numbers).astype(np.int32)
    return Task(numbers[:, :-2].reshape(len(numbers), -1, 4) > 0, numbers[:, -2], numbers[:, -1])
