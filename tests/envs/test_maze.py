"""Mazes against SciPy's graphs, moves and views against loops in NumPy, and what may be known of the task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, shortest_path

from nacre import rollout
from nacre.envs import maze, maze_layout, maze_pictures
from nacre.envs.check_env import check_env
from nacre.envs.maze import MOVES, Maze, Task
from nacre.envs.registry import make_family
from nacre.evaluate import Oracle, meta_test, task_params
from nacre.types import take_tasks

KEY = jax.random.key(0)


def numpy_tasks(env: Maze, n: int, seed: int = 0) -> Task:
    return jax.device_get(jax.jit(env.sample_tasks, static_argnums=1)(jax.random.fold_in(KEY, seed), n))


def by_hand(*ways: tuple[int, int], start: int, target: int, size: int = 3) -> Task:
    """One task whose passages are the given pairs of neighbours."""
    passages = np.zeros((size * size, 4), bool)
    for a, b in ways:
        side = MOVES.index((b % size - a % size, b // size - a // size))
        passages[a, side] = passages[b, (side + 2) % 4] = True
    return Task(passages[None], np.array([start], np.int32), np.array([target], np.int32))


def graph(passages: np.ndarray) -> np.ndarray:
    """Which cells are connected, [cells, cells], from the positions of cells."""
    size = int(len(passages) ** 0.5)
    out = np.zeros((len(passages),) * 2)
    for cell, side in np.argwhere(passages):
        x, y = cell % size + MOVES[side][0], cell // size + MOVES[side][1]
        assert 0 <= x < size and 0 <= y < size, "a way out of the grid"
        out[cell, y * size + x] = 1
    return out


def run(env: Maze, tasks: Task, actions: np.ndarray):
    """Observations [T + 1, B, d] and Steps of `actions` [T, B]."""
    state, obs = jax.jit(env.reset)(KEY, tasks)
    step, seen, out = jax.jit(env.step), [np.asarray(obs)], []
    for action in actions:
        state, result = step(state, action, np.ones(len(action), bool))
        seen.append(np.asarray(result.obs))
        out.append(jax.tree.map(np.asarray, result))
    return np.stack(seen), jax.tree.map(lambda *x: np.stack(x), *out)


@pytest.mark.parametrize("size", [3, 5, 9])
def test_mazes_are_spanning_trees(size):
    env = Maze(size=size)
    tasks = numpy_tasks(env, 40)
    for passages in tasks.passages:
        ways = graph(passages)
        np.testing.assert_array_equal(ways, ways.T)  # a wall is one from both sides
        assert ways.sum() == 2 * (size**2 - 1) and connected_components(csr_matrix(ways))[0] == 1
    assert (tasks.start != tasks.target).all()
    for cells in (tasks.start, tasks.target):
        assert cells.min() >= 0 and cells.max() < size**2
    assert len(np.unique(tasks.passages.reshape(40, -1), axis=0)) > 30


def test_trees_are_those_of_least_weight():
    """Kruskal's algorithm in a loop."""
    weights = np.asarray(jax.random.uniform(KEY, (5, 24)))
    pairs, _ = maze_layout.edges(4)
    found = np.asarray(maze_layout.spanning_tree(jnp.asarray(weights), 4))
    for row, chosen in zip(weights, found, strict=True):
        group, tree = np.arange(16), np.zeros(24, bool)
        for edge in np.argsort(row):
            a, b = group[pairs[edge]]
            if a != b:
                tree[edge], group[group == a] = True, b
        np.testing.assert_array_equal(chosen, tree)


def test_small_mazes_are_closed_squares_of_all_sizes():
    env = Maze(size=6, smallest=3)
    tasks = jax.tree.map(np.asarray, env.sample_tasks(KEY, 4000))
    reached = np.asarray(maze.distances(tasks)) < 36
    side = np.sqrt(reached.sum(axis=1)).astype(int)
    np.testing.assert_allclose(np.bincount(side)[3:], 1000, rtol=0.12)  # alike often
    number = np.arange(36)
    square = (number % 6 < side[:, None]) & (number // 6 < side[:, None])
    np.testing.assert_array_equal(reached, square)
    row = np.arange(4000)
    assert square[row, tasks.start].all() and square[row, tasks.target].all() and (tasks.start != tasks.target).all()
    within = (tasks.passages * square[..., None]).sum(axis=(1, 2)) / 2
    np.testing.assert_array_equal(within, side**2 - 1)  # trees
    whole = side == 6
    counts = np.bincount(tasks.start[whole], minlength=36)
    np.testing.assert_allclose(counts, whole.sum() / 36, rtol=0.7)
    for given in (env.train_tasks, env.test_tasks):  # what is measured on has the full size
        assert (np.asarray(maze.distances(given)) < 36).all()


def test_openings():
    inner = 2 * 5 * 4
    plain, all_open = numpy_tasks(Maze(), 200), numpy_tasks(Maze(openings=1.0), 2)
    assert (all_open.passages.sum(axis=(1, 2)) == 2 * inner).all()
    some = numpy_tasks(Maze(openings=0.25), 200)
    assert (some.passages >= plain.passages).all()  # the same trees, with more ways
    extra = some.passages.sum(axis=(1, 2)) / 2 - 24
    np.testing.assert_allclose(extra.mean(), 0.25 * (inner - 24), rtol=0.1)


def test_ends_are_uniform():
    tasks = numpy_tasks(Maze(size=3), 20_000)
    counts = np.zeros((9, 9))
    np.add.at(counts, (tasks.start, tasks.target), 1)
    assert np.diag(counts).sum() == 0
    np.testing.assert_allclose(
        counts[~np.eye(9, dtype=bool)], 20_000 / 72, rtol=0.25
    )  # five standard deviations are 0.3


@pytest.mark.parametrize("openings", [0.0, 0.3])
def test_steps_follow_a_replay(openings):
    env, n, steps = Maze(size=4, openings=openings), 30, 60
    tasks = numpy_tasks(env, n)
    actions = np.random.default_rng(0).integers(4, size=(steps, n)).astype(np.int32)
    _, out = run(env, tasks, actions)
    bumps = 0
    for i in range(n):
        x, y = tasks.start[i] % 4, tasks.start[i] // 4
        for t in range(steps):
            way = tasks.passages[i, 4 * y + x, actions[t, i]]
            bumps += not way
            if way:
                x, y = x + MOVES[actions[t, i]][0], y + MOVES[actions[t, i]][1]
            there = 4 * y + x == tasks.target[i]
            expected = -0.04 - 0.001 * (not way) + 1.0 * there
            assert (out.info["x"][t, i], out.info["y"][t, i]) == (x, y)
            np.testing.assert_allclose([out.reward[t, i], out.train_reward[t, i]], expected, atol=1e-6)
            assert out.terminal[t, i] == there == out.info["success"][t, i]
    assert bumps > 100


def looked(task: Task, cell: int, view: int) -> np.ndarray:
    """What is seen from a cell of one task by walking there, [places * 5]."""
    size = int(task.passages.shape[1] ** 0.5)
    passages, target = task.passages[0], task.target[0]
    look = lambda at: [*np.where(passages[at], 1, -1), at == target]  # noqa: E731
    out = look(cell)
    for side, (dx, dy) in enumerate(MOVES):
        at, hidden = cell, False
        for _ in range(view):
            hidden = hidden or not passages[at, side]
            at = at if hidden else at + dx + dy * size
            out += [0] * 5 if hidden else look(at)
    return np.array(out)


@pytest.mark.parametrize("view", [1, 2, 3])
def test_views_end_at_walls(view):
    tasks = numpy_tasks(Maze(openings=0.2), 5)
    seen = np.asarray(maze.views(jax.tree.map(jnp.asarray, tasks), view))
    assert seen.shape[2] == Maze(view=view).spec.obs_size == len(Maze(view=view).spec.obs_names)
    for i in range(5):
        for cell in range(25):
            task = take_tasks(tasks, np.array([i]))
            np.testing.assert_array_equal(seen[i, cell], looked(task, cell, view))


def test_observations_follow_the_agent():
    env = Maze()
    tasks = numpy_tasks(env, 8)
    actions = np.random.default_rng(1).integers(4, size=(30, 8)).astype(np.int32)
    obs, out = run(env, tasks, actions)
    for i in range(8):
        task = take_tasks(tasks, np.array([i]))
        cells = np.concatenate([task.start, (out.info["y"][:, i] * 5 + out.info["x"][:, i]).astype(int)])
        for t, cell in enumerate(cells):
            np.testing.assert_array_equal(obs[t, i], looked(task, cell, 2))


def test_what_is_not_in_view_is_not_told():
    """Equal surroundings look equal, whatever the rest of the maze, the place in it and the target are."""
    one = by_hand((0, 1), (1, 2), (2, 5), (5, 4), (4, 3), (3, 6), (6, 7), (7, 8), start=0, target=8)
    other = by_hand((0, 1), (1, 2), (2, 5), (5, 8), (8, 7), (7, 4), (7, 6), (6, 3), start=0, target=3)
    higher = by_hand((6, 7), (7, 8), (8, 5), (5, 4), (4, 3), (3, 0), (0, 1), (1, 2), start=0, target=7)
    lower = by_hand((0, 1), (1, 2), (0, 3), (3, 4), (4, 5), (5, 8), (8, 7), (7, 6), start=6, target=1)
    for observations in ("symbolic", "image"):
        env = Maze(size=3, view=1, observations=observations)
        first = [np.asarray(env.reset(KEY, task)[1])[0] for task in (one, other, higher, lower)]
        np.testing.assert_array_equal(first[0], first[1])
        assert (first[2] != first[0]).any()  # another way out
    # the middle of a corridor of three cells, at the bottom and at the top of the grid
    bottom = by_hand((0, 1), (1, 2), (2, 5), (5, 8), (8, 7), (7, 6), (6, 3), (3, 4), start=1, target=4)
    top = by_hand((6, 7), (7, 8), (8, 5), (5, 2), (2, 1), (1, 0), (0, 3), (3, 4), start=7, target=4)
    env = Maze(size=3, view=1)
    (here,), (there,) = (np.asarray(env.reset(KEY, task)[1]).reshape(1, 5, 5) for task in (bottom, top))
    mirrored = there[[0, 3, 2, 1, 4]][:, [2, 1, 0, 3, 4]]  # places and sides, up for down
    np.testing.assert_array_equal(here, mirrored)


def test_target_in_sight():
    ways = (0, 1), (1, 2), (2, 5), (5, 4), (4, 3), (3, 6), (6, 7), (7, 8)
    names = Maze(size=3).spec.obs_names
    for target, name in ((1, "1 right"), (2, "2 right")):
        _, obs = Maze(size=3).reset(KEY, by_hand(*ways, start=0, target=target))
        targets = [n for n, value in zip(names, np.asarray(obs)[0], strict=True) if n.endswith("target") and value]
        assert targets == [f"{name}: target"]
    _, obs = Maze(size=3).reset(KEY, by_hand(*ways, start=0, target=3))  # next to it, behind a wall
    assert not any(n.endswith("target") and value for n, value in zip(names, np.asarray(obs)[0], strict=True))


@pytest.mark.parametrize("view", [1, 2])
def test_image_shows_what_the_numbers_say(view):
    numbers, env = Maze(view=view, openings=0.2), Maze(view=view, openings=0.2, observations="image")
    tasks = numpy_tasks(env, 200)
    seen, painted = np.asarray(numbers.reset(KEY, tasks)[1]), np.asarray(env.reset(KEY, tasks)[1])
    height, width, channels = env.spec.image_shape
    assert painted.shape[1] == env.spec.obs_size == height * width * channels and not numbers.spec.image_shape
    pictures = painted.reshape(-1, height, width, channels)
    assert pictures.dtype == np.float32 and set(np.unique(pictures)) == {0.0, 1.0}
    middle = 2 * view + 1
    for picture, row in zip(pictures, seen.reshape(200, -1, 5), strict=True):
        wall, way, target = np.zeros((3, height, width))
        for (x, y), (*sides, here) in zip(maze.places(view)[1], row, strict=True):
            down, right = middle - 2 * y, middle + 2 * x
            target[down, right] = here
            for (dx, dy), side in zip(MOVES, sides, strict=True):
                way[down, right] += side != 0
                way[down - dy, right + dx] += side == 1
                for along in (-1, 0, 1):
                    wall[down - dy + along * dx, right + dx + along * dy] += side == -1
        np.testing.assert_array_equal(picture, np.stack([wall > 0, way > 0, target > 0], axis=-1))
    _, index = np.unique(seen, axis=0, return_inverse=True)
    _, image_index = np.unique(painted, axis=0, return_inverse=True)
    assert len({(int(a), int(b)) for a, b in zip(index.ravel(), image_index.ravel(), strict=True)}) == index.max() + 1
    assert index.max() == image_index.max()  # neither tells more than the other


def test_restart_begins_again_where_the_episode_began():
    env = Maze()
    tasks = numpy_tasks(env, 6)
    step = jax.jit(env.step)
    state, first = jax.jit(env.reset)(KEY, tasks)
    for action in maze.shortest_way(jax.tree.map(jnp.asarray, tasks))[:3]:
        state, out = step(state, action, np.ones(6, bool))
    over = np.arange(6) % 2 == 0
    again, obs = jax.jit(env.restart)(KEY, state, over)
    np.testing.assert_array_equal(obs, np.where(over[:, None], first, out.obs))
    np.testing.assert_array_equal(again.cell, np.where(over, tasks.start, state.cell))


def test_collection_goes_on_in_rows_that_are_over():
    env = Maze(size=3)
    tasks = env.sample_tasks(KEY, 50)
    actor = rollout.Scripted(lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec)
    data, _ = rollout.episode(env, actor, (), (), tasks, KEY, refill=lambda key, memory, over: memory)
    ended = np.asarray(data.terminal)[:, 0]
    assert data.valid.all() and ended.sum() > 50  # more than one end per row
    fresh = np.asarray(env.reset(KEY, tasks)[1])
    for row, t in np.argwhere(ended[:, :-1]):
        np.testing.assert_array_equal(data.obs[row, 0, t + 1], fresh[row])


@pytest.mark.parametrize("openings", [0.0, 0.3])
def test_oracle_takes_a_shortest_way(openings):
    env = Maze(openings=openings, n_train=1, n_test=60)
    tasks = env.test_tasks
    best = []
    for passages, start, target in zip(*tasks, strict=True):
        between = shortest_path(csr_matrix(graph(passages)), unweighted=True)
        np.testing.assert_array_equal(maze.distances(Task(passages, start, target)), between[:, target])
        best.append(between[start, target])
    np.testing.assert_array_equal(maze.shortest(tasks), best)
    np.testing.assert_array_equal(maze.shortest(maze.from_numbers(task_params(tasks))), best)
    shots = meta_test(env, Oracle(env), (), tasks, KEY, episodes=2)
    assert shots.success.all()
    np.testing.assert_array_equal(shots.lengths[0], np.stack([best, best], axis=1))
    np.testing.assert_allclose(shots.returns[0, :, 0], 1 - 0.04 * np.array(best), rtol=1e-5)
    evaluation = {"lengths": shots.lengths, "success": shots.success, "tasks": tasks}
    np.testing.assert_allclose(maze_pictures.path_ratio(evaluation), 1.0)


def test_path_ratio_by_hand():
    tasks = by_hand((0, 1), (1, 2), (2, 5), (5, 4), (4, 3), (3, 6), (6, 7), (7, 8), start=0, target=5)
    made = {"lengths": np.array([[[36, 6, 3]]]), "success": np.array([[[False, True, True]]]), "tasks": tasks}
    np.testing.assert_array_equal(maze_pictures.path_ratio(made), [[[np.nan, 2.0, 1.0]]])
    np.testing.assert_array_equal(maze_pictures.path_ratio({**made, "tasks": tasks._asdict()}), [[[np.nan, 2.0, 1.0]]])


def test_task_sets():
    env = Maze(n_train=40, n_test=30)
    both = [Maze(n_train=10).train_tasks, take_tasks(env.train_tasks, np.arange(10))]
    jax.tree.map(np.testing.assert_array_equal, *both)
    shifted = [Maze(n_train=50).test_tasks, env.test_tasks]
    jax.tree.map(
        np.testing.assert_array_equal,
        *[take_tasks(t, np.arange(10) + k) for t, k in zip(shifted, (0, 10), strict=True)],
    )
    flat = np.concatenate([np.asarray(leaf).reshape(1200, -1) for leaf in jax.tree.map(
        lambda *x: np.concatenate(x), Maze().train_tasks, Maze().test_tasks)[:1]], axis=1)  # fmt: skip
    assert len(np.unique(flat, axis=0)) == 1200  # even the layouts differ
    small = np.array(task_params(Maze(size=3, n_train=900, n_test=900)._tasks))
    assert len(np.unique(small, axis=0)) == 1800  # where chance repeats mazes they count once
    with pytest.raises(ValueError, match="there are not 80 different mazes of size 3"):  # one layout, 72 pairs of ends
        _ = Maze(size=3, openings=1.0, n_train=60, n_test=20).train_tasks


def test_tasks_may_be_asked_for_while_something_is_compiled():
    env = Maze(size=4, n_train=7, n_test=3)
    jax.jit(lambda: jnp.asarray(env.train_tasks.start))()
    assert isinstance(env.train_tasks.start, np.ndarray)


def test_contract():
    """As it is registered, in test_check_env.py; here with other observations."""
    env = make_family("maze", size=3, openings=0.5, observations="image")
    assert check_env(env, KEY) == []
    assert env.spec.can_terminate and env.spec.horizon == 4 * env.size**2
    assert Maze(horizon=60).spec.horizon == 60


@pytest.mark.parametrize(("params", "message"), [
    ({"smallest": 1}, "smallest must be 0 .*got 1"),
    ({"size": 4, "smallest": 5}, "smallest must be 0 .*2 to size, 4, got 5"),
    ({"size": 2}, "size must be at least 3"),
    ({"view": 0}, "view must be at least 1"),
    ({"view": 5}, "view must be less than size, 5.*got 5"),
    ({"episodes": 0}, "episodes must be at least 1"),
    ({"n_train": 0}, "n_train must be at least 1"),
    ({"n_test": 0}, "n_test must be at least 1"),
    ({"observations": "pixels"}, "observations must be 'symbolic' or 'image', got 'pixels'"),
    ({"horizon": 23}, "horizon must be 0 .*or at least 24.*5 x 5 cells, got 23"),
    ({"horizon": -1}, "horizon must be 0"),
    ({"openings": 1.5}, "openings is a probability.*1.5"),
])  # fmt: skip
def test_impossible_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=f"maze: {message}"):
        Maze(**params)


# ------------------------------------------------------------------------------------------------------ drawings


def evaluation(env: Maze, episodes: int = 3) -> dict:
    actor = rollout.Scripted(lambda memory, obs, key: rollout.uniform_action(env.spec, key, obs.shape[:2]), env.spec)
    shots = meta_test(env, actor, (), env.test_tasks, KEY, episodes=episodes, repetitions=2)
    tasks = env.test_tasks._asdict()
    return {
        "lengths": shots.lengths,
        "success": shots.success,
        "info": shots.info,
        "tasks": tasks,
        "returns": shots.returns,
    }


def test_pictures():
    env = Maze(n_train=1, n_test=6)
    made = evaluation(env)
    (paths, caption, figure), (_, steps_caption, steps) = env.pictures(made)
    assert "mazes" in paths and caption.endswith(".") and steps_caption.endswith(".")
    assert len(figure.axes) == 3 * 5 + 1  # mazes by shots, and the bar
    assert {axis.get_xlabel() for axis in figure.axes} >= {"x (cells)"}
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in steps.axes[0].lines}
    np.testing.assert_allclose(lines["the agent"], made["lengths"].mean(axis=(0, 1)))
    np.testing.assert_allclose(lines["the shortest way"], maze.shortest(env.test_tasks).mean())
    name, values = env.task_axis(np.array(task_params(env.test_tasks)))
    assert "shortest way" in name and values.shape == (6,)


def test_paths_keep_to_the_right_and_leave_bumps_out():
    path = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])  # there, a bump, back
    there, back = maze_pictures.on_the_right(path).reshape(2, 2, 2)
    np.testing.assert_allclose(there, [[0, -0.13], [1, -0.13]])
    np.testing.assert_allclose(back, [[1, 0.13], [0, 0.13]])


def test_frames():
    """A frame before each episode and one per env step of it."""
    env = Maze(size=3, n_train=1, n_test=1)
    data, _ = rollout.trial(
        env, Oracle(env), (), env.test_tasks, KEY, episodes=2, memory=Oracle(env).start(env.test_tasks)
    )
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0, 0], data._replace(extras=()))
    trial = {
        "task": jax.tree.map(lambda leaf: leaf[0], env.test_tasks), "returns": data.reward.sum(axis=-1), "reward": data.reward,
        "obs": data.obs, "valid": data.valid, "info": data.info, "exploration_episodes": 0,
    }  # fmt: skip
    shown = list(env.frames(trial))
    assert len(shown) == 2 * (maze.shortest(env.test_tasks)[0] + 1)
    pixels = [np.asarray(image) for image, _ in shown[:2]]
    assert pixels[0].shape == pixels[1].shape and (pixels[0] != pixels[1]).any()
