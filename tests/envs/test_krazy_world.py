"""Krazy World against a plain replay of its rules, boards against their description, and what the agent may see."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import rollout
from nacre.envs.krazy_boards import AGENT, DEATH, DOOR, ENERGY, GOAL, HOLE, ICE, KEY, NORMAL, RGB, TRANSPORTER, Board
from nacre.envs.krazy_world import Easy, Hard, KrazyWorld, Medium
from nacre.evaluate import Oracle, evaluation_arrays, evaluation_key, meta_test, references
from nacre.report_summary import nested
from nacre.types import Environment, take_tasks

FIRST = jax.random.key(0)
DOWN, UP, RIGHT, LEFT = range(4)


def drawn(env: KrazyWorld, n: int) -> Board:
    """n fresh boards, in NumPy."""
    sample = jax.jit(functools.partial(env.sample_tasks, n=n))
    return jax.tree.map(np.asarray, sample(jax.random.clone(FIRST)))


class Replay:
    """The rules as sentences: one environment, no arrays."""

    def __init__(self, env: KrazyWorld, board: Board):
        n = env.size
        self.env, self.happened = env, set()
        self.grid = {(c // n, c % n): int(code) for c, code in enumerate(board.tiles)}
        self.place = (int(board.start) // n, int(board.start) % n)
        cells = [(int(c) // n, int(c) % n) for c in board.portals]
        self.portal = {a: b for i in range(0, len(cells), 2) for a, b in (cells[i : i + 2], cells[i : i + 2][::-1])}
        self.ways = [[(1, 0), (-1, 0), (0, 1), (0, -1)][m] for m in board.moves]
        self.energy, self.goals, self.dead, self.key = env.energy, 0, False, False

    def passable(self, place) -> bool:
        tile = self.grid.get(place, HOLE)
        return tile != HOLE and (tile != DOOR or self.key)

    def step(self, action: int) -> tuple[int, bool]:
        """-> goals collected by it, whether the episode is over."""
        before, way = self.goals, self.ways[action]
        self.energy -= 1
        self.enter(way)
        while self.grid[self.place] == ICE:
            ahead = self.place[0] + way[0], self.place[1] + way[1]
            if not self.passable(ahead):
                break
            self.happened.add("slides")
            self.energy -= self.env.slide_energy
            self.enter(way)
        return self.goals - before, self.dead or (self.env.energy > 0 and self.energy < 1)

    def enter(self, way) -> None:
        ahead = self.place[0] + way[0], self.place[1] + way[1]
        if self.passable(ahead):
            self.place = ahead
        tile = self.grid[self.place]
        if tile in (GOAL, ENERGY, KEY):
            self.grid[self.place] = NORMAL
        self.goals += tile == GOAL
        self.energy += self.env.replenish * (tile == ENERGY)
        self.key |= tile == KEY
        self.dead |= tile == DEATH
        self.happened.add({DOOR: "door", TRANSPORTER: "transported"}.get(tile, tile))
        self.place = self.portal.get(self.place, self.place)


def board(*rows: str, start=(0, 0), portals=(), moves=(0, 1, 2, 3)) -> Board:
    """A task of one board, drawn in letters."""
    codes = {
        ".": NORMAL,
        "G": GOAL,
        "T": TRANSPORTER,
        "D": DOOR,
        "K": KEY,
        "X": DEATH,
        "i": ICE,
        "E": ENERGY,
        "#": HOLE,
    }
    tiles = np.array([[codes[letter] for row in rows for letter in row]], np.int8)
    n = len(rows)
    cells = np.array([[i * n + j for i, j in portals]], np.int32)
    first, moves = np.array([start[0] * n + start[1]], np.int32), np.array([moves], np.int32)
    return Board(tiles, first, cells, moves, np.arange(10, dtype=np.int32)[None])


def small(**params) -> KrazyWorld:
    """A family for boards of 3 x 3 that are drawn by hand."""
    nothing = {"death": 0.0, "ice": 0.0, "energy_tiles": 0.0, "transporters": 0, "goals": 1, "goal_distance": 0}
    return KrazyWorld(**{"size": 3, **nothing, **params})


def play(env: KrazyWorld, task: Board, *actions: int) -> list[dict]:
    """What each action did."""
    state, _ = env.reset(jax.random.clone(FIRST), task)
    step, out = jax.jit(env.step), []
    for action in actions:
        state, result = step(state, jnp.asarray([action]), jnp.ones(1, bool))
        out.append({name: value[0].item() for name, value in result.info.items()})
        out[-1] |= {"reward": result.reward[0].item(), "over": result.terminal[0].item()}
    return out


@pytest.mark.parametrize("env", [
    KrazyWorld(ice=0.15, transporters=2, death=0.05),
    KrazyWorld(slide_energy=1, ice=0.2, energy_tiles=0.1, death=0.02),
    Easy(dynamics="permuted"),
    Medium(replenish=2),
    Hard(death=0.03, energy=40),
], ids=["many", "paid slides", "easy", "medium", "hard"])  # fmt: skip
def test_steps_are_those_of_a_plain_replay(env):
    n = 60
    tasks = drawn(env, n)
    replays = [Replay(env, jax.tree.map(lambda x, i=i: np.asarray(x)[i], tasks)) for i in range(n)]
    state, _ = jax.jit(env.reset)(jax.random.clone(FIRST), tasks)
    step, rng, alive = jax.jit(env.step), np.random.default_rng(0), np.ones(n, bool)
    for _ in range(env.horizon):
        action = rng.integers(4, size=n)
        state, out = step(state, action.astype(np.int32), alive)
        tiles, out = jax.device_get((state.tiles, out))
        for i in np.flatnonzero(alive):
            replay = replays[i]
            assert (float(out.reward[i]), bool(out.terminal[i])) == replay.step(action[i])
            assert (int(out.info["y"][i]), int(out.info["x"][i])) == replay.place
            assert int(out.info["energy"][i]) == (replay.energy if env.energy else 0)
            assert int(out.info["goals"][i]) == replay.goals
            np.testing.assert_array_equal(tiles[i], list(replay.grid.values()))
        alive &= ~out.terminal
    happened = set().union(*(replay.happened for replay in replays))
    wanted = {"slides", GOAL, DEATH} | ({ENERGY} if env.energy_tiles else set())
    wanted |= ({"transported"} if env.transporters else set()) | ({KEY, "door"} if env.keys else set())
    assert wanted <= happened


def test_ice_is_slid_over_to_its_end_or_the_edge():
    task = board("iiG", "iX.", "i..", start=(0, 0))
    (right,) = play(small(energy=3), task, RIGHT)
    assert (right["x"], right["y"], right["reward"], right["energy"]) == (2, 0, 1.0, 2)  # a slide is free
    (paid,) = play(small(energy=9, slide_energy=1), task, RIGHT)
    assert paid["energy"] == 7
    down, stays = play(small(energy=9), task, DOWN, DOWN)
    assert (down["x"], down["y"]) == (stays["x"], stays["y"]) == (0, 2) and stays["energy"] == 7


def test_a_transporter_leads_to_its_partner_and_back_from_the_edge():
    task = board(".T.", "...", "..T", portals=((0, 1), (2, 2)))
    there, back, off = play(small(transporters=1, goals=1), task, RIGHT, RIGHT, DOWN)
    assert (there["x"], there["y"]) == (2, 2)
    assert (back["x"], back["y"]) == (1, 0)  # it bumped into the edge, on a transporter
    assert (off["x"], off["y"]) == (1, 1)


def test_energy_is_counted_and_ends_the_episode():
    task = board(".E.", "...", "..G")
    taken, gone, *_, last = play(small(energy=3, replenish=2), task, RIGHT, LEFT, RIGHT, LEFT, RIGHT)
    assert (taken["energy"], gone["energy"]) == (4, 3)  # 3 - 1 + 2, and the tile gives nothing more
    assert (last["energy"], last["over"]) == (0, True)
    assert not any(step["over"] for step in play(small(energy=0), task, *[RIGHT, LEFT] * 10))


def test_death_ends_the_episode_and_goals_count_once():
    got, again, dead = play(small(goals=1), board(".GX", "...", "..."), RIGHT, LEFT, RIGHT)[:3]
    assert (got["reward"], got["success"], got["over"]) == (1.0, 1.0, False)  # an episode goes on without goals
    assert again["reward"] == dead["reward"] == 0.0 and dead["goals"] == 1
    assert play(small(), board(".GX", "...", "..."), RIGHT, RIGHT)[-1]["over"]


def test_a_door_opens_with_its_key():
    env = small(size=5, keys=1)
    task = board("KD...", ".#...", ".#...", ".#...", ".#..G", start=(1, 0))
    wall, key, door, through = play(env, task, RIGHT, UP, RIGHT, RIGHT)
    assert (wall["x"], wall["y"]) == (0, 1) and (key["x"], key["y"]) == (0, 0)
    assert (door["x"], through["x"]) == (1, 2)


def test_the_dense_reward_is_what_the_public_code_says():
    """Minus the steps to all goals, collected ones too, and 3 per goal collected; as a difference."""
    env = small(goals=2, reward="dense")
    found, on = play(env, board(".G.", "...", "..G"), RIGHT, DOWN)
    assert (found["reward"], on["reward"]) == (3.0 + (1 + 4) - (0 + 3), (0 + 3) - (1 + 2))


@pytest.mark.parametrize("env", [KrazyWorld(), Easy(), Medium(), Hard()], ids=lambda env: env.name)
def test_boards_hold_what_they_should(env):
    fixed = jax.tree.map(lambda *x: np.concatenate(x), env.train_tasks, env.test_tasks)
    for tasks in (fixed, drawn(env, 300)):
        counts, n = env.counts, env.size
        assert (counts.death, counts.ice, counts.energy) == {
            "krazy-world": (10, 5, 5), "krazy-world/easy": (3, 3, 0), "krazy-world/medium": (4, 4, 2),
            "krazy-world/hard": (15, 10, 10),
        }[env.name]  # fmt: skip
        for code, count in (
            (DEATH, counts.death), (ICE, counts.ice), (ENERGY, counts.energy), (GOAL, counts.goals), (KEY, counts.keys),
            (DOOR, counts.keys), (TRANSPORTER, 2 * counts.transporters), (AGENT, 0),
        ):  # fmt: skip
            assert np.all((tasks.tiles == code).sum(axis=1) == count)
        rows = np.arange(len(tasks.start))
        assert np.all(tasks.tiles[rows, tasks.start] == NORMAL)
        assert np.all(tasks.tiles[rows[:, None], tasks.portals] == TRANSPORTER)
        assert all(len(set(row)) == 2 * counts.transporters for row in tasks.portals)
        goals = np.argwhere(tasks.tiles == GOAL)
        start = tasks.start[goals[:, 0]]
        distance = abs(goals[:, 1] // n - start // n) + abs(goals[:, 1] % n - start % n)
        assert distance.min() == env.goal_distance + 1
        assert np.all((tasks.tiles == HOLE).any(axis=1) == bool(env.keys))


def test_every_cell_is_as_likely_as_the_others():
    """The public code never uses the last row and column, and may put two things on one tile."""
    env = KrazyWorld(goal_distance=0)
    tasks = drawn(env, 20_000)
    for code, count in ((DEATH, 10), (ICE, 5), (ENERGY, 5), (TRANSPORTER, 2), (GOAL, 3)):
        np.testing.assert_allclose(
            (tasks.tiles == code).mean(axis=0), count / 100, atol=6 * (count / 100 / 20_000) ** 0.5
        )
    np.testing.assert_allclose(np.bincount(tasks.start, minlength=100) / 20_000, 0.01, atol=0.0043)
    orders, times = np.unique(tasks.moves, axis=0, return_counts=True)
    assert len(orders) == 24 and times.min() > 0.85 * 20_000 / 24


def test_the_key_lies_on_the_side_of_the_start():
    env = Hard(death=0.0, ice=0.0)
    tasks = drawn(env, 200)
    for i in range(200):
        grid = tasks.tiles[i].reshape(10, 10)
        for closed in ((HOLE, DOOR), (HOLE,)):
            open_cells = ~np.isin(grid, closed)
            seen, front = set(), [divmod(int(tasks.start[i]), 10)]
            while front:
                row, col = front.pop()
                if (row, col) in seen or not (0 <= row < 10 and 0 <= col < 10 and open_cells[row, col]):
                    continue
                seen.add((row, col))
                front += [(row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)]
            if DOOR in closed:
                assert tuple(np.argwhere(grid == KEY)[0]) in seen and len(seen) < open_cells.sum()
            else:
                assert len(seen) == open_cells.sum()
    tiles = drawn(Hard(), 100).tiles
    for i, cell in np.argwhere(tiles == DOOR):
        others = np.flatnonzero(np.isin(tiles[i], (DEATH, ICE)))
        assert (abs(others // 10 - cell // 10) + abs(others % 10 - cell % 10)).min() > 2


def test_tasks_stay_through_a_trial_and_do_not_depend_on_counts():
    env = KrazyWorld(n_train=5, n_test=4)
    for a, b in zip(env.train_tasks, KrazyWorld(n_train=9, n_test=1).train_tasks, strict=True):
        np.testing.assert_array_equal(a, b[:5])
    for a, b in zip(env.test_tasks, KrazyWorld().train_tasks, strict=True):
        np.testing.assert_array_equal(a, b[5:9])
    other = lambda memory, obs, key: uniform_or_right(obs)  # noqa: E731
    data, _ = rollout.trial(env, rollout.Scripted(other, env.spec), (), env.test_tasks, FIRST, episodes=3)
    for k in (1, 2):  # nothing is random: the same actions, the same episodes
        np.testing.assert_array_equal(data.obs[0], data.obs[k])
        np.testing.assert_array_equal(data.reward[0], data.reward[k])


def uniform_or_right(obs):
    """A fixed rule of the observation."""
    return (obs.sum(axis=-1).astype(jnp.int32) + obs.argmax(axis=-1)) % 4


def test_the_first_observation_tells_nothing_of_the_actions():
    env = KrazyWorld()
    task = take_tasks(env.test_tasks, np.zeros(24, int))
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    state, obs = env.reset(FIRST, task._replace(moves=orders))
    assert np.all(np.asarray(obs) == np.asarray(obs)[0])
    _, out = env.step(state, jnp.zeros(24, jnp.int32), jnp.ones(24, bool))
    assert len(np.unique(out.obs, axis=0)) > 1
    np.testing.assert_array_equal(KrazyWorld(dynamics="fixed").train_tasks.moves, np.tile(np.arange(4), (100, 1)))


def test_views_and_encodings_show_the_same_board():
    task = take_tasks(KrazyWorld().test_tasks, np.arange(20))
    views = {}
    for view in ("local", "masked", "global"):
        for encoding, width in (("one-hot", 10), ("integer", 1), ("image", 3)):
            env = KrazyWorld(view=view, encoding=encoding)
            state, _ = jax.jit(env.reset)(jax.random.clone(FIRST), task)
            _, out = jax.jit(env.step)(state, np.zeros(20, np.int32), np.ones(20, bool))
            views[view, encoding] = np.asarray(out.obs)
            place = {"local": 100 if encoding == "one-hot" else 2}.get(view, 0)
            tiles = 9 if view == "local" else 100
            assert out.obs.shape == (20, tiles * width + place) == (20, len(env.spec.obs_names))
            assert out.obs.dtype == jnp.float32
    for view in ("local", "masked", "global"):
        hot, number, image = (views[view, encoding] for encoding in ("one-hot", "integer", "image"))
        tiles = 9 if view == "local" else 100
        hot = hot[:, : tiles * 10].reshape(20, tiles, 10)
        np.testing.assert_array_equal(hot.argmax(axis=-1), number[:, :tiles])
        np.testing.assert_allclose(hot @ (np.array(RGB) / 255), image[:, : tiles * 3].reshape(20, tiles, 3), atol=1e-6)
    at = np.argwhere(views["global", "integer"] == AGENT)[:, 1]
    near = np.maximum(abs(np.arange(100) // 10 - at[:, None] // 10), abs(np.arange(100) % 10 - at[:, None] % 10)) <= 1
    np.testing.assert_array_equal(views["masked", "integer"], views["global", "integer"] * near)
    np.testing.assert_array_equal(views["local", "integer"][:, 9:], np.stack([at // 10, at % 10], axis=1))
    np.testing.assert_array_equal(views["local", "one-hot"][:, 90:].argmax(axis=1), at)
    around = views["local", "integer"][:, :9]
    for i in range(20):
        np.testing.assert_array_equal(
            np.sort(around[i][around[i] > 0]), np.sort(views["global", "integer"][i][near[i]])
        )
    assert np.all(around[:, 4] == AGENT)


def test_permuted_colours_are_a_part_of_the_task():
    env = KrazyWorld(colours="permuted", view="global", encoding="integer")
    _, obs = env.reset(FIRST, env.test_tasks)
    for i, colours in enumerate(env.test_tasks.colours):
        assert sorted(colours) == list(range(10))
        codes = env.test_tasks.tiles[i].copy()
        codes[env.test_tasks.start[i]] = AGENT
        np.testing.assert_array_equal(obs[i], colours[codes])
    assert len(np.unique(env.test_tasks.colours, axis=0)) == 100


def test_random_starts_are_normal_tiles():
    env = KrazyWorld(start="random")
    task = take_tasks(env.test_tasks, np.zeros(3000, int))
    state, _ = env.reset(FIRST, task)
    assert set(np.asarray(state.cell)) == set(np.flatnonzero(env.test_tasks.tiles[0] == NORMAL))


def test_episodes_end_early_and_begin_again_on_the_same_board():
    env = KrazyWorld()
    policy = rollout.Scripted(lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec)
    key = jax.random.key(1)
    played = jax.jit(lambda key, refill: rollout.episode(env, policy, (), (), env.test_tasks, key, refill=refill)[0],
                     static_argnums=1)  # fmt: skip
    data = jax.device_get(played(key, lambda key, memory, over: memory))
    assert data.valid.all() and data.terminal.sum() > 200
    _, first = jax.jit(env.reset)(FIRST, env.test_tasks)
    ended = np.argwhere(data.terminal[:, 0, :-1])
    np.testing.assert_array_equal(data.obs[ended[:, 0], 0, ended[:, 1] + 1], np.asarray(first)[ended[:, 0]])
    goals = data.info["goals"][:, 0]
    assert np.all(goals[ended[:, 0], ended[:, 1] + 1] <= 1)  # counted anew
    lengths = np.asarray(played(jax.random.key(1), None).valid).sum(axis=-1)
    assert lengths.max() <= 51 and lengths.min() < 11


def test_energy_lasts_for_the_horizon_at_most():
    """11 steps, five tiles of 8."""
    for env in (KrazyWorld(), Medium(), Hard()):
        assert env.horizon == env.energy + env.replenish * env.counts.energy


def test_scores_of_the_documentation():
    for env, random in ((KrazyWorld(), 0.10), (Easy(), 0.53), (Medium(), 0.06), (Hard(), 0.10)):
        found = references(env, env.test_tasks, evaluation_key(), episodes=1, repetitions=40)
        np.testing.assert_allclose(np.mean(found["random"]), random, atol=0.025)
        assert found["oracle"] is None and not Oracle(env).known


@pytest.mark.parametrize(("params", "message"), [
    ({"size": 2}, "size must lie between 3 and 100 tiles, got 2"),
    ({"death": 1.5}, "death must be a share of the tiles, from 0 to 1, got 1.5"),
    ({"ice": -0.1}, "ice must be a share"),
    ({"energy_tiles": 2}, "energy_tiles must be a share"),
    ({"energy": -1}, "energy must not be negative"),
    ({"goals": 0}, "goals must be at least 1, got 0"),
    ({"n_test": 0}, "n_test must be at least 1"),
    ({"keys": 2}, "keys must be 0 or 1, got 2"),
    ({"dynamics": "random"}, "dynamics must be 'permuted' or 'fixed', got 'random'"),
    ({"view": "all"}, "view must be 'local' or 'masked' or 'global'"),
    ({"keys": 1, "size": 4, "death": 0, "ice": 0}, "a board with a key needs a size of at least 5"),
    ({"death": 0.9}, "take up to .* cells, a board of size 10 has 100; lower the shares"),
    ({"goal_distance": 6}, "take up to .* cells"),
])  # fmt: skip
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=f"krazy-world: .*{message}"):
        KrazyWorld(**params)
    with pytest.raises(ValueError, match="krazy-world/easy: goals"):
        Easy(goals=0)


@pytest.mark.parametrize(("env", "shots"), [
    (KrazyWorld(n_test=8), 3), (Hard(n_test=1), 1), (KrazyWorld(n_test=3, start="random"), 8),
])  # fmt: skip
def test_pictures(env, shots):
    policy = rollout.Scripted(lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec)
    seen = meta_test(env, policy, (), env.test_tasks, FIRST, episodes=shots)
    tasks = nested(evaluation_arrays(seen, env.test_tasks), "tasks")  # as a report hands them over
    made = {"returns": seen.returns, "lengths": seen.lengths, "info": seen.info, "exploration_episodes": shots - 1}
    (_, caption, figure), (title, _, share) = env.pictures({**made, "tasks": tasks})
    assert caption.endswith(".") and title == "Goals collected"
    lines = {line.get_label(): line.get_ydata() for line in share.axes[0].lines}
    np.testing.assert_allclose(lines["goals collected"], seen.returns[0].mean(axis=0) / 3, rtol=1e-6)
    np.testing.assert_allclose(lines["boards with all goals"], seen.success[0].mean(axis=0), rtol=1e-6)
    paths = figure.axes[0].lines
    assert len(paths) == 2 * shots + 1
    name, values = env.task_axis(np.zeros((4, 9)))
    assert name == "board" and values.tolist() == [0, 1, 2, 3]


def test_it_is_an_environment():
    spec = KrazyWorld().spec
    assert isinstance(KrazyWorld(), Environment) and spec.can_terminate and spec.obs_size == 190
    assert (spec.trial_episodes, spec.exploration_episodes) == (3, 2)
    assert KrazyWorld(episodes=1).spec.exploration_episodes == 0


@pytest.mark.parametrize("env", [KrazyWorld(colours="permuted"), Hard()], ids=lambda env: env.name)
def test_numpy_and_jax_lay_out_the_same_boards(env):
    noise = np.random.default_rng(0).random((50, env.counts.noise)).astype(np.float32)
    in_jax = jax.jit(lambda noise: env._layout(noise, jnp))
    for ours, theirs in zip(env._layout(noise, np), in_jax(noise), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
