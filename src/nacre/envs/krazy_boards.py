"""Boards of Krazy World: tile types, and how a board is laid out. The same code for NumPy (fixed tasks) and JAX (fresh ones).

Cells are numbered row by row: cell = row * size + column. Public code: bstadie/krazyworld d97fa07, krazy_gridworld.py (v2.0) and
legacy/krazy_world_old.py. Every thing has a cell of its own here, every cell can be chosen, and goals keep their distance from the
start; docs/families/krazy-world.md says where the public code slips.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from nacre._checks import hints, require_type
from nacre.types import Array

TILES = ("hole", "normal", "goal", "agent", "transporter", "door", "key", "death", "ice", "energy")
HOLE, NORMAL, GOAL, AGENT, TRANSPORTER, DOOR, KEY, DEATH, ICE, ENERGY = range(10)
RGB = (  # of the tile types, in their order, as the public code draws them
    (0, 0, 0), (255, 255, 255), (255, 223, 0), (0, 0, 255), (255, 140, 0), (192, 192, 192), (255, 0, 255), (255, 0, 0),
    (75, 0, 130), (0, 255, 0),
)  # fmt: skip
LAID = ("start", "key", "death", "energy", "ice", "transporter", "goal")  # in this order
DOORWAY = 2  # death and ice are further than this from a door, in steps


class Board(NamedTuple):
    """A task, or n of them with a leading axis."""

    tiles: Array  # [cells] int8, a tile type each
    start: Array  # int32, the cell where episodes start
    portals: Array  # [2 * transporters] int32, cells; each pair of neighbours is connected
    moves: Array  # [4] int32, the direction that each action moves in
    colours: Array  # [10] int32, the number that each tile type is shown as


class Counts(NamedTuple):
    """How many of what a board holds."""

    size: int  # cells per side
    death: int
    energy: int
    ice: int
    transporters: int  # pairs
    goals: int
    keys: int  # 0 or 1: a corner behind a door
    goal_distance: int  # goals are further than this from the start, in steps

    @property
    def cells(self) -> int:
        return self.size**2

    @property
    def noise(self) -> int:
        """Uniform numbers that a board is made of."""
        return len(LAID) * self.cells + 4 + len(TILES) + 3

    @property
    def needed(self) -> int:
        """Cells that must be there so that any start leaves room for everything."""
        things = 1 + self.keys + self.death + self.energy + self.ice + 2 * self.transporters + self.goals
        near = 2 * self.goal_distance * (self.goal_distance + 1)  # too near for a goal
        walls = 2 * (self.size - 2) + 2 * DOORWAY * (DOORWAY + 1)  # the longest, and what a door keeps free
        return things + near + walls * self.keys


def layout(counts: Counts, noise: Array, permuted_moves: bool, permuted_colours: bool, xp: Any = np) -> Board:
    """Boards of n tasks from noise [n, counts.noise], uniform in [0, 1); xp: numpy or jax.numpy."""
    n, cells = noise.shape[0], counts.cells
    row, col = np.divmod(np.arange(cells), counts.size)
    priority = noise[:, : len(LAID) * cells].reshape(n, len(LAID), cells)
    priorities = {name: priority[:, i] for i, name in enumerate(LAID)}
    moves, colours, corner = xp.split(noise[:, len(LAID) * cells :], [4, 4 + len(TILES)], axis=1)
    tiles = xp.full((n, cells), NORMAL, np.int8)
    beside, doorway = xp.ones((n, cells), bool), xp.zeros((n, cells), bool)  # on the start's side; near a door
    if counts.keys:
        tiles, room, doorway = walled(counts.size, corner, xp)
    start = lowest(xp.where(tiles == NORMAL, priorities["start"], 2.0), 1, xp)
    free = np.arange(cells) != start
    if counts.keys:
        beside = room == xp.take_along_axis(room, start, axis=1)
    far = abs(row - start // counts.size) + abs(col - start % counts.size) > counts.goal_distance
    portals = start
    for name, code, count, allowed in (
        ("key", KEY, counts.keys, beside),
        ("death", DEATH, counts.death, ~doorway),
        ("energy", ENERGY, counts.energy, True),
        ("ice", ICE, counts.ice, ~doorway),
        ("transporter", TRANSPORTER, 2 * counts.transporters, True),
        ("goal", GOAL, counts.goals, far),
    ):
        chosen = lowest(xp.where((tiles == NORMAL) & free & allowed, priorities[name], 2.0), count, xp)
        here = (np.arange(cells) == chosen[:, :, None]).any(axis=1)
        tiles = xp.where(here, np.int8(code), tiles)
        portals = chosen if code == TRANSPORTER else portals
    moves = lowest(moves if permuted_moves else xp.zeros_like(moves), 4, xp)
    colours = lowest(colours if permuted_colours else xp.zeros_like(colours), len(TILES), xp)
    return Board(tiles, *(x.astype(np.int32) for x in (start[:, 0], portals, moves, colours)))


def lowest(values: Array, count: int, xp: Any) -> Array:
    """Indices [n, count] of the lowest values [n, m] in rising order; of equal ones the first, so that zeros give 0, 1, 2, ..."""
    if xp is np:
        return np.argsort(values, axis=-1, stable=True)[:, :count]
    return jax.lax.top_k(-values, count)[1]  # a sort takes many times as long


def walled(size: int, u: Array, xp: Any) -> tuple[Array, Array, Array]:
    """Tiles with one corner cut off by walls and a door in them, which cells are in the corner, and which are near the door; each
    [n, cells]. u: [n, 3] uniform. The corner has at least 2 x 2 cells, so that start and key fit in it."""
    row, col = np.divmod(np.arange(size**2), size)
    turn = 2 + (u[:, :2] * (size - 4)).astype(np.int32)  # where the two walls meet
    a, b = turn[:, :1], turn[:, 1:]
    low, right = a > size // 2, b > size // 2  # the corner is below, to the right
    upright = (col == b) & xp.where(low, row >= a, row < a)
    level = (row == a) & xp.where(right, col >= b, col < b)
    room = xp.where(low, row > a, row < a) & xp.where(right, col > b, col < b)
    at = xp.where(low, a + 1, 0) + (u[:, 2:] * xp.where(low, size - 1 - a, a)).astype(np.int32)
    doorway = abs(row - at) + abs(col - b) <= DOORWAY
    tiles = xp.where(upright | level, np.int8(HOLE), np.int8(NORMAL))
    return xp.where((row == at) & (col == b), np.int8(DOOR), tiles), room, doorway


def check(family: Any) -> None:
    """Raises ValueError for parameters of a KrazyWorld out of range, and for boards that cannot hold all that they should."""
    name = family.name

    def require(fields: str, good, what: str) -> None:
        for field in fields.split():
            if not good(getattr(family, field)):
                raise ValueError(f"{name}: {field} must {what}, got {getattr(family, field)!r}")

    require("size", lambda x: 3 <= x <= 100, "lie between 3 and 100 tiles")
    require("death ice energy_tiles", lambda x: 0 <= x <= 1, "be a share of the tiles, from 0 to 1")
    require("goals horizon episodes n_train n_test", lambda x: x >= 1, "be at least 1")
    require("energy replenish goal_distance transporters slide_energy", lambda x: x >= 0, "not be negative")
    require("keys", lambda x: x in (0, 1), "be 0 or 1")
    for field in ("dynamics", "colours", "start", "view", "encoding", "reward"):
        require_type(f"{name}: {field}", getattr(family, field), hints(type(family))[field])
    if family.keys and family.size < 5:
        raise ValueError(f"{name}: a board with a key needs a size of at least 5 tiles, got {family.size}")
    if family.counts.needed > family.counts.cells:
        raise ValueError(
            f"{name}: these tiles and distances take up to {family.counts.needed} cells, a board of size {family.size} has "
            f"{family.counts.cells}; lower the shares, goals, transporters or goal_distance, or raise size"
        )
