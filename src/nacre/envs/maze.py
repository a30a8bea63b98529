"""Random mazes: an open stand-in for the visual maze of RL^2 (Duan et al. 2016, arXiv:1611.02779, section 3.3). Pure JAX.

Layout, start and target stay the same through a trial; every episode begins at the start and ends at the target.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.envs.maze_layout import (
    MOVES,
    SIDES,
    Task,
    distances,
    draw,
    from_numbers,
    offsets,
    shortest,
    shortest_way,
)  # fmt: skip
from nacre.types import Discrete, EnvSpec, Step, Trajectory

TASK_SEED = 1337
TARGET, BUMP, STEP = 1.0, -0.001, -0.04  # the published rewards: at the target, for a wall, for every env step
PER_CELL = 4  # env steps of the derived horizon per cell: a walk through a tree and back takes less than two


class State(NamedTuple):
    task: Task
    cell: Array  # [B] where the agent is
    views: Array  # [B, cells, places * 5] int8: what is seen from each cell; drawn when the episode starts


@dataclass(frozen=True)
class Maze:
    """Find the target in a maze, and remember the way. Reward: 1 at the target, -0.001 for a bump, -0.04 per env step.

    Mazes are minimum spanning trees of the grid under independent uniform weights (random Kruskal's algorithm; not uniform over
    trees), of whose walls each is then opened with probability `openings`. The start is uniform over cells, the target over
    the others. A maze smaller than `size`, for those who learn, is a closed square in the lower left of a larger one.

    The agent sees its cell and those straight ahead on each side, up to `view` of them or to the next wall: of each its four
    sides and whether it is the target. No position: equal surroundings look equal.
    """

    size: int = 5  # cells per side
    view: int = 2  # cells seen on each side, walls permitting
    observations: Literal["symbolic", "image"] = "symbolic"  # numbers per cell seen, or a small picture of the same
    horizon: int = 0  # env steps per episode; 0: four per cell
    episodes: int = 3  # of a trial
    openings: float = 0.0  # probability that a wall of the tree is opened; above 0 there are several ways
    smallest: int = (
        0  # cells per side of the smallest mazes that learners draw, up to `size` alike often; 0: all have `size`
    )
    n_train: int = 1000  # fixed training mazes, for agents that cannot draw fresh ones as RL^2 and VariBAD do
    n_test: int = 200  # held-out mazes, the next ones of the same stream

    train_is_test = False  # not a field
    observes_task: ClassVar[str] = "the walls around the start are seen, as in the published maze"

    def __post_init__(self):
        for name, least in (("size", 3), ("view", 1), ("episodes", 1), ("n_train", 1), ("n_test", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"maze: {name} must be at least {least}, got {getattr(self, name)}")
        if self.view >= self.size:
            raise ValueError(f"maze: view must be less than size, {self.size}: nobody sees further, got {self.view}")
        if self.smallest and not 2 <= self.smallest <= self.size:
            raise ValueError(
                f"maze: smallest must be 0 (all mazes have size) or 2 to size, {self.size}, got {self.smallest}"
            )
        if self.observations not in ("symbolic", "image"):
            raise ValueError(f"maze: observations must be 'symbolic' or 'image', got {self.observations!r}")
        if self.horizon and self.horizon < self.size**2 - 1:
            longest = self.size**2 - 1
            raise ValueError(
                f"maze: horizon must be 0 (four env steps per cell) or at least {longest}, the longest way to a target "
                f"in a maze of {self.size} x {self.size} cells, got {self.horizon}"
            )
        if not 0 <= self.openings <= 1:
            raise ValueError(f"maze: openings is a probability, 0 to 1, got {self.openings}")

    @property
    def horizon_steps(self) -> int:
        return self.horizon or PER_CELL * self.size**2

    @property
    def spec(self) -> EnvSpec:
        image = (4 * self.view + 3, 4 * self.view + 3, 3) if self.observations == "image" else ()
        names = tuple(
            f"{place}: {what}" for place in places(self.view)[0] for what in (*(f"way {s}" for s in SIDES), "target")
        )
        return EnvSpec(
            name="maze",
            obs_size=math.prod(image) if image else len(names),
            action=Discrete(len(MOVES)),
            horizon=self.horizon_steps,
            jittable=True,
            can_terminate=True,
            trial_episodes=self.episodes,
            exploration_episodes=0,
            image_shape=image,
            obs_names=() if image else names,
            reward_note="1 at the target, -0.001 for a bump, -0.04 per env step",
        )

    # ------------------------------------------------------------------------------------------------------ tasks

    @functools.cached_property
    def _tasks(self) -> Task:
        """The first n_train + n_test different tasks of the stream, in which each has a key of its own: counts do not change
        them. Small mazes do repeat."""
        n = self.n_train + self.n_test
        with jax.ensure_compile_time_eval():  # a run may ask for its tasks while it is being compiled
            key = jax.random.key(TASK_SEED)
            for count in (n + 16, 4 * n, 32 * n):
                keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))
                tasks = jax.tree.map(np.asarray, draw(keys, self.size, self.openings))
                flat = np.concatenate([leaf.reshape(count, -1) for leaf in tasks], axis=1)
                first = np.sort(np.unique(flat, axis=0, return_index=True)[1])
                if len(first) >= n:
                    return jax.tree.map(lambda leaf: leaf[first[:n]], tasks)  # noqa: B023  called at once
        raise ValueError(f"maze: there are not {n} different mazes of size {self.size}; lower n_train or n_test")

    @property
    def train_tasks(self) -> Task:
        return jax.tree.map(lambda leaf: leaf[: self.n_train], self._tasks)

    @property
    def test_tasks(self) -> Task:
        return jax.tree.map(lambda leaf: leaf[self.n_train :], self._tasks)

    def sample_tasks(self, key: Array, n: int) -> Task:
        return draw(jax.random.split(key, n), self.size, self.openings, self.smallest)

    # ------------------------------------------------------------------------------------------------------ episodes

    def reset(self, key: Array, tasks: Task):
        tasks = jax.tree.map(jnp.asarray, tasks)
        state = State(tasks, tasks.start, views(tasks, self.view))
        return state, self._observe(state)

    def restart(self, key: Array, state: State, over: Array):
        state = state._replace(cell=jnp.where(over, state.task.start, state.cell))
        return state, self._observe(state)

    def step(self, state: State, action: Array, active: Array):
        way = state.task.passages[jnp.arange(state.cell.shape[0]), state.cell, action]
        cell = state.cell + jnp.where(way, jnp.asarray(offsets(self.size))[action], 0)
        state = state._replace(cell=cell)
        there = cell == state.task.target
        reward = STEP + jnp.where(way, 0.0, BUMP) + jnp.where(there, TARGET, 0.0)
        x, y = cell % self.size, cell // self.size
        info = {"x": x.astype(jnp.float32), "y": y.astype(jnp.float32), "success": there.astype(jnp.float32)}
        return state, Step(self._observe(state), reward, reward, there, info)

    def _observe(self, state: State) -> Array:
        seen = state.views[jnp.arange(state.cell.shape[0]), state.cell].astype(jnp.float32)
        return image(seen, self.view) if self.observations == "image" else seen

    def regret(self, tasks: Task, episodes: Trajectory) -> Array:
        """See nacre.types.Environment; [..., N, E, T]."""
        far, left = distances(tasks), self.horizon_steps - jnp.arange(episodes.reward.shape[-1])
        after = (episodes.info["y"] * self.size + episodes.info["x"]).astype(jnp.int32)
        start = jnp.broadcast_to(tasks.start[:, None, None], after[..., :1].shape)
        before = jnp.concatenate([start, after[..., :-1]], axis=-1)

        def worth(cell, left):
            """What a policy that knows the maze gets in `left` env steps."""
            way = jnp.take_along_axis(jnp.broadcast_to(far[:, None], (*cell.shape[:-1], far.shape[-1])), cell, axis=-1)
            return jnp.where(way == 0, 0.0, STEP * jnp.minimum(way, left) + TARGET * (way <= left))

        return worth(before, left) - episodes.reward - worth(after, left - 1)

    def oracle(self, tasks: Task, obs: Array, t: Array) -> Array:
        """The move at env step t of a shortest way from the start: observations do not tell where one is."""
        moves = shortest_way(jax.tree.map(jnp.asarray, tasks))  # [cells - 1, B]
        row = jnp.arange(moves.shape[1])
        return moves[jnp.minimum(jnp.broadcast_to(t, row.shape), len(moves) - 1), row]

    # ------------------------------------------------------------------------------------------------------ drawings

    def task_axis(self, tasks: Any) -> tuple[str, np.ndarray]:
        """For pictures: the length of the shortest way. tasks: their numbers [N, cells * 4 + 2]."""
        return "shortest way to the target (env steps)", shortest(from_numbers(tasks))

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.maze_pictures import pictures

        return pictures(evaluation)

    def frames(self, trial: dict):
        from nacre.envs.maze_pictures import frames

        return frames(trial)


# ------------------------------------------------------------------------------------------------------- what is seen


@functools.cache
def places(view: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the cells that may be seen, here first, then side by side from near to far; and their (x, y) from here."""
    names, where = ["here"], [(0, 0)]
    for side, (dx, dy) in zip(SIDES, MOVES, strict=True):
        for k in range(1, view + 1):
            names.append(f"{k} {side}")
            where.append((k * dx, k * dy))
    return tuple(names), np.array(where)


@functools.partial(jax.jit, static_argnums=1)
def views(tasks: Task, view: int) -> Array:
    """What is seen from each cell, [B, cells, places * 5] int8. Per place its sides, 1 a way, -1 a wall, and 1 if it is the
    target; all 0 where a wall or the distance hides it."""
    passages, cells = tasks.passages, tasks.passages.shape[-2]
    target = jnp.arange(cells) == tasks.target[:, None]
    entries = jnp.concatenate([2 * passages.astype(jnp.int8) - 1, target[..., None].astype(jnp.int8)], axis=-1)
    out = [entries]
    for side, step in enumerate(offsets(math.isqrt(cells)).tolist()):
        seen = passages[..., side]
        for k in range(1, view + 1):
            out.append(jnp.roll(entries, -k * step, axis=1) * seen[..., None])
            seen &= jnp.roll(passages[..., side], -k * step, axis=1)
    return jnp.concatenate(out, axis=-1)


@functools.cache
def _brush(view: int) -> np.ndarray:
    """Which values of the image an entry of `views` paints when negative, and when positive: [2 * places * 5, H * W * 3]."""
    middle, wide = 2 * view + 1, 4 * view + 3
    brush = np.zeros((2, len(places(view)[1]), 5, wide, wide, 3), np.float32)
    for place, (x, y) in enumerate(places(view)[1]):
        row, column = middle - 2 * y, middle + 2 * x
        brush[1, place, 4, row, column, 2] = 1
        for side, (dx, dy) in enumerate(MOVES):
            brush[1, place, side, row, column, 1] = brush[1, place, side, row - dy, column + dx, 1] = 1
            for along in (-1, 0, 1):  # a wall ends in two corners
                brush[0, place, side, row - dy + along * dx, column + dx + along * dy, 0] = 1
    return brush.reshape(2 * len(places(view)[1]) * 5, -1)


@functools.partial(jax.jit, static_argnums=1)
def image(seen: Array, view: int) -> Array:
    """Rows of `views` [B, places * 5] as flattened images [B, H * W * 3] of zeros and ones: H = W = 4 view + 3, the agent in
    the middle, up is up. A pixel is a cell, a side of one, or a corner; channels: wall, way, target; black is not seen."""
    signs = jnp.concatenate([seen < 0, seen > 0], axis=-1).astype(jnp.float32)
    return (signs @ _brush(view) > 0).astype(jnp.float32)
