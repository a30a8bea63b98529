"""Krazy World of E-MAML (Stadie et al. 2018, arXiv:1803.01118) as its authors published it. Pure JAX, discrete.

Public code: bstadie/krazyworld d97fa07. The rules are those of krazy_gridworld.py (v2.0), which is a new implementation: the one
of the paper was never opened. Keys and doors are those of legacy/krazy_world_old.py.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre.envs import krazy_boards as boards
from nacre.envs.krazy_boards import Board
from nacre.types import Discrete, EnvSpec, Step

TASK_SEED = 1337  # ours
MOVES = np.array(((1, 0), (-1, 0), (0, 1), (0, -1)), np.int32)  # rows and columns; rows count downward
AROUND = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], np.int32)
UNSEEN = -1  # instead of a tile type


class State(NamedTuple):
    """Of B environments."""

    board: Board
    tiles: Array  # [B, cells] int8, as they are now
    cell: Array  # [B] int32, where the agent is
    energy: Array  # [B] int32, steps that are left
    goals: Array  # [B] int32, collected in this episode
    key: Array  # [B] bool, the agent has it
    dead: Array  # [B] bool


@dataclass(frozen=True)
class KrazyWorld:
    """Collect the goals of a board, +1 each, before the energy is gone. Death tiles end the episode, ice is slid over in a
    straight line, energy tiles give more steps, a transporter leads to its partner. The board and what the actions do are the
    task; the agent sees the tiles around it.

    Numbers are those of the v2.0 constructor. Its own defaults hide nothing (view="global", dynamics="fixed").
    """

    size: int = 10  # tiles per side
    death: float = 0.1  # share of the tiles that end the episode
    ice: float = 0.05  # share that is slid over
    energy_tiles: float = 0.05  # share that gives energy, once
    energy: int = 11  # steps that an episode starts with; 0: no energy is needed
    replenish: int = 8  # steps that an energy tile gives
    goals: int = 3  # tiles of +1, once each
    goal_distance: int = 2  # goals are further than this from the start, in steps
    transporters: int = 1  # pairs
    keys: int = 0  # 1: walls cut off a corner, and its door needs a key
    slide_energy: int = 0  # energy per tile slid over; the public code takes 1, against its own description
    dynamics: Literal["permuted", "fixed"] = "permuted"  # which action moves where: a part of the task, or known
    colours: Literal["fixed", "permuted"] = "fixed"  # which number or colour a tile type is shown as
    start: Literal["fixed", "random"] = "fixed"  # one start per board, or another normal tile in each episode
    view: Literal["local", "masked", "global"] = "local"  # 3 x 3 tiles and the place; the board, the rest unseen; all
    encoding: Literal["one-hot", "integer", "image"] = "one-hot"  # of a tile: ten numbers, one, or red, green and blue
    reward: Literal["sparse", "dense"] = "sparse"  # +1 per goal; or 3 per goal and the way made toward all goals
    horizon: int = 51  # env steps per episode: what 11 steps and five energy tiles last for
    episodes: int = 3  # of a trial; all but the last explore
    n_train: int = 100  # fixed boards, for agents that cannot draw fresh ones as RL^2 and VariBAD do
    n_test: int = 100  # held-out boards, the next ones of the same stream

    name: ClassVar[str] = "krazy-world"
    observes_task: ClassVar[str] = "the tiles around the agent, or all, are observed, by the benchmark's design"
    train_is_test = False  # not a field

    def __post_init__(self):
        boards.check(self)

    @property
    def counts(self) -> boards.Counts:
        """How many of each tile there are; shares are rounded down, as in the public code."""
        death, energy, ice = (int(self.size**2 * share) for share in (self.death, self.energy_tiles, self.ice))
        return boards.Counts(
            self.size, death, energy, ice, self.transporters, self.goals, self.keys, self.goal_distance
        )

    @property
    def spec(self) -> EnvSpec:
        names = self._obs_names()
        return EnvSpec(
            name=self.name,
            obs_size=len(names),
            action=Discrete(len(MOVES)),
            horizon=self.horizon,
            jittable=True,
            can_terminate=True,
            trial_episodes=self.episodes,
            exploration_episodes=self.episodes - 1,
            obs_names=names,
            reward_note="+1 per goal" if self.reward == "sparse" else "+3 per goal, minus what is added to distances",
        )

    def _obs_names(self) -> tuple[str, ...]:
        parts = {"one-hot": [f"shown as {i}" for i in range(len(boards.TILES))], "integer": ["shown as"]}
        parts = parts.get(self.encoding, ["red", "green", "blue"])
        if self.view == "local":
            cells = [f"tile {i:+d} down, {j:+d} right" for i, j in AROUND]
        else:
            cells = [f"tile {i}, {j}" for i in range(self.size) for j in range(self.size)]
        names = [f"{cell}: {part}" for cell in cells for part in parts]
        if self.view != "local":
            return tuple(names)
        if self.encoding != "one-hot":
            return (*names, "row", "column")
        return (*names, *(f"at {i}, {j}" for i in range(self.size) for j in range(self.size)))

    # ------------------------------------------------------------------------------------------------------ tasks

    def _fixed(self, first: int, n: int) -> Board:
        """Boards first .. first + n - 1; each has a generator of its own, so that counts do not change them."""
        noise = [np.random.default_rng([TASK_SEED, first + i]).random(self.counts.noise) for i in range(n)]
        return self._layout(np.stack(noise), np)

    def _layout(self, noise: Array, xp) -> Board:
        return boards.layout(self.counts, noise, self.dynamics == "permuted", self.colours == "permuted", xp)

    @functools.cached_property
    def train_tasks(self) -> Board:
        return self._fixed(0, self.n_train)

    @functools.cached_property
    def test_tasks(self) -> Board:
        return self._fixed(self.n_train, self.n_test)

    def sample_tasks(self, key: Array, n: int) -> Board:
        return self._layout(jax.random.uniform(key, (n, self.counts.noise)), jnp)

    # ----------------------------------------------------------------------------------------------------- episodes

    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key: Array, tasks: Board):
        board = jax.tree.map(jnp.asarray, tasks)
        cell = board.start
        if self.start == "random":
            weights = jnp.where(board.tiles == boards.NORMAL, 0.0, -jnp.inf)
            cell = jax.random.categorical(key, weights).astype(jnp.int32)
        zero, no = jnp.zeros(cell.shape, jnp.int32), jnp.zeros(cell.shape, bool)
        state = State(board, board.tiles, cell, jnp.full_like(cell, self.energy), zero, no, no)
        return state, self._observe(state)

    def restart(self, key: Array, state: State, over: Array):
        """A new episode on the same board in the rows where `over` [B] is True -> state, obs."""
        fresh, _ = self.reset(key, state.board)
        choose = lambda new, old: jnp.where(over.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)  # noqa: E731
        state = State(state.board, *jax.tree.map(choose, tuple(fresh[1:]), tuple(state[1:])))
        return state, self._observe(state)

    @functools.partial(jax.jit, static_argnums=0)  # its loop would be compiled anew at each call outside of jit
    def step(self, state: State, action: Array, active: Array):
        direction = jnp.take_along_axis(state.board.moves, action[:, None].astype(jnp.int32), axis=1)[:, 0]
        before = state
        state, sliding = self._move(state._replace(energy=state.energy - 1), direction, active)

        def slide(carry):
            now, sliding = carry
            after, further = self._move(now, direction, sliding)
            moved = after.cell != now.cell  # a transporter never leads back to the ice
            return after._replace(energy=after.energy - self.slide_energy * moved), further

        # a slide ends at the latest where the board does
        state, _ = jax.lax.while_loop(lambda carry: carry[1].any(), slide, (state, sliding))
        over = state.dead | (state.energy < 1 if self.energy else False)
        reward = self._reward(before, state)
        info = {
            "x": state.cell % self.size,
            "y": state.cell // self.size,
            "goals": state.goals,
            "energy": state.energy if self.energy else jnp.zeros_like(state.energy),
            "success": (state.goals == self.goals).astype(jnp.float32),
        }
        return state, Step(self._observe(state), reward, reward, over, info)

    def _move(self, state: State, direction: Array, moving: Array) -> tuple[State, Array]:
        """One tile ahead where there is one, and what it does -> state, and which rows [B] slide on."""
        n, (board, tiles, cell, energy, goals, key, dead) = self.size, state
        step = jnp.asarray(MOVES)[direction]
        row, col = cell // n + step[:, 0], cell % n + step[:, 1]
        moved = moving & (row >= 0) & (row < n) & (col >= 0) & (col < n)
        ahead = jnp.where(moved, row * n + col, cell)
        if self.keys:
            code = at(tiles, ahead)
            moved &= (code != boards.HOLE) & ((code != boards.DOOR) | key)
        cell = jnp.where(moved, ahead, cell)
        code = jnp.where(moving, at(tiles, cell), boards.NORMAL)
        found, charged = code == boards.GOAL, code == boards.ENERGY
        taken = found | charged | (code == boards.KEY)
        here = jnp.arange(n * n) == cell[:, None]
        tiles = jnp.where(here & taken[:, None], np.int8(boards.NORMAL), tiles)
        after = State(
            board, tiles, self._transported(board, cell, code), energy + self.replenish * charged, goals + found,
            key | (code == boards.KEY), dead | (code == boards.DEATH),
        )  # fmt: skip
        return after, moved & (code == boards.ICE)

    def _transported(self, board: Board, cell: Array, code: Array) -> Array:
        """The partner of a transporter that the agent is on, also after it bumped into the edge there; else where it is."""
        if not self.transporters:
            return cell
        partners = board.portals.reshape(-1, self.transporters, 2)[:, :, ::-1].reshape(board.portals.shape)
        hit = (board.portals == cell[:, None]) & (code == boards.TRANSPORTER)[:, None]
        return jnp.where(hit.any(axis=1), (hit * partners).sum(axis=1), cell)

    def _reward(self, before: State, after: State) -> Array:
        collected = (after.goals - before.goals).astype(jnp.float32)
        if self.reward == "sparse":
            return collected
        return 3.0 * collected - (self._distance(after) - self._distance(before))

    def _distance(self, state: State) -> Array:
        """Sum [B] of the steps to all goals of the board, also to those that are collected, as in the public code."""
        row, col = np.divmod(np.arange(self.size**2), self.size)
        there = abs(row - state.cell[:, None] // self.size) + abs(col - state.cell[:, None] % self.size)
        return (there * (state.board.tiles == boards.GOAL)).sum(axis=1).astype(jnp.float32)

    # -------------------------------------------------------------------------------------------------- observations

    def _observe(self, state: State) -> Array:
        """[B, obs_size] float32; the agent's tile shows the agent, and tiles that are not seen are zeros."""
        n, cell = self.size, state.cell[:, None]
        row, col = np.divmod(np.arange(n * n), n)
        if self.view == "local":
            rows, cols = cell // n + AROUND[:, 0], cell % n + AROUND[:, 1]  # [B, 9]
            seen = (rows >= 0) & (rows < n) & (cols >= 0) & (cols < n)
            codes = jnp.take_along_axis(state.tiles, jnp.where(seen, rows * n + cols, 0), axis=1).astype(jnp.int32)
            codes = jnp.where((AROUND == 0).all(axis=1), boards.AGENT, codes)
        else:
            codes = jnp.where(np.arange(n * n) == cell, boards.AGENT, state.tiles.astype(jnp.int32))
            near = jnp.maximum(abs(row - cell // n), abs(col - cell % n)) <= 1
            seen = near if self.view == "masked" else jnp.ones_like(near)
        shown = self._encoded(state.board, codes, seen)
        if self.view != "local":
            return shown
        place = jnp.concatenate([cell // n, cell % n], axis=1).astype(jnp.float32)
        place = jax.nn.one_hot(cell[:, 0], n * n) if self.encoding == "one-hot" else place
        return jnp.concatenate([shown, place], axis=1)

    def _encoded(self, board: Board, codes: Array, seen: Array) -> Array:
        """Tile types [B, V] as the agent sees them, [B, V * (10, 1 or 3)]."""
        if self.colours == "permuted":
            codes = jnp.take_along_axis(board.colours, codes, axis=1)
        if self.encoding == "integer":
            return jnp.where(seen, codes, 0).astype(jnp.float32)
        if self.encoding == "one-hot":
            out = jax.nn.one_hot(jnp.where(seen, codes, UNSEEN), len(boards.TILES))
        else:
            out = (jnp.asarray(boards.RGB, jnp.float32) / 255)[codes] * seen[..., None]
        return out.reshape(out.shape[0], -1)

    def oracle(self, tasks: Board, obs: Array, t: Array) -> None:
        """None: the best plan depends on what is collected already. benchmarks/krazy_world_best.py finds its return."""
        return None

    # ------------------------------------------------------------------------------------------------------ pictures

    def task_axis(self, tasks) -> tuple[str, np.ndarray]:
        """For pictures: boards have no one number, so they are numbered."""
        return "board", np.arange(len(np.asarray(tasks)), dtype=float)

    def pictures(self, evaluation: dict) -> list:
        from nacre.envs.krazy_pictures import krazy_pictures

        return krazy_pictures(evaluation, self)


def at(tiles: Array, cell: Array) -> Array:
    """The tile type [B] in tiles [B, cells] at cell [B]."""
    return jnp.take_along_axis(tiles, cell[:, None], axis=1)[:, 0]


# ------------------------------------------------------------- the presets of the legacy file, by the rules of v2.0


@dataclass(frozen=True)
class Easy(KrazyWorld):
    """5 x 5 tiles, three goals; no energy is needed, and actions are known. EASY_GRID_KWARGS of the legacy file."""

    size: int = 5
    death: float = 0.15
    ice: float = 0.15
    energy_tiles: float = 0.0
    energy: int = 0
    goal_distance: int = 1
    transporters: int = 0
    dynamics: Literal["permuted", "fixed"] = "fixed"
    horizon: int = 25  # ours: as many steps as tiles

    name: ClassVar[str] = "krazy-world/easy"


@dataclass(frozen=True)
class Medium(KrazyWorld):
    """7 x 7 tiles, one goal, energy for 8 steps; actions are known. MEDIUM_GRID_KWARGS of the legacy file."""

    size: int = 7
    ice: float = 0.1
    energy: int = 8
    goals: int = 1
    goal_distance: int = 1
    dynamics: Literal["permuted", "fixed"] = "fixed"
    horizon: int = 24  # what 8 steps and two energy tiles last for

    name: ClassVar[str] = "krazy-world/medium"


@dataclass(frozen=True)
class Hard(KrazyWorld):
    """10 x 10 tiles, more of all, and a corner behind a door that needs its key. HARD_GRID_KWARGS of the legacy file."""

    death: float = 0.15
    ice: float = 0.1
    energy_tiles: float = 0.1
    energy: int = 12
    goal_distance: int = 1
    keys: int = 1
    horizon: int = 92  # what 12 steps and ten energy tiles last for

    name: ClassVar[str] = "krazy-world/hard"
