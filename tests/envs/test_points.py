"""Points of ProMP and of MAML: motion, walls, rewards and ends against the official rules worked out in NumPy, one env step of one
row at a time, and the policies that know the task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre.algorithms import registry
from nacre.envs.point_robot import MamlPointRobot
from nacre.envs.point_walls import PointWalls
from nacre.envs.points import PointCorners, PointMomentum
from nacre.envs.registry import make_family
from nacre.presets import e_maml, maml, promp
from nacre.types import Environment

KEY = jax.random.key(0)
CORNERS = [(-2.0, -2.0), (2.0, -2.0), (-2.0, 2.0), (2.0, 2.0)]
norm = np.linalg.norm
REWARDS = ["sparse", "dense", "dense_squared"]


class Corner:
    """point_env_2d_corner.py"""

    bound = 0.2

    def __init__(self, task, first):
        self.task, self.goal, self.place = task, np.asarray(task[:2], float), np.asarray(first, float)

    def move(self, action):
        return self.place + action

    def sparse(self, before, after, gap):
        if abs(after[0]) + abs(after[1]) < 0.5:
            return 0.0
        if gap > min(norm(after - np.array(corner)) for corner in CORNERS) + 1e-12:
            return 0.0
        return norm(before - self.goal) - gap

    def step(self, action):
        before, after = self.place, self.move(np.clip(np.asarray(action, float), -self.bound, self.bound))
        gap = norm(after - self.goal)
        rewards = [self.sparse(before, after, gap), -gap, -(gap**2)]
        self.place = self.end(before, after)
        return self.place, rewards

    def end(self, before, after):
        return after


class Momentum(Corner):
    """point_env_2d_momentum.py"""

    bound = 0.1

    def __init__(self, task, first):
        super().__init__(task, first[:2])
        self.velocity = np.asarray(first[2:], float)

    def move(self, action):
        self.velocity = self.velocity + action
        return self.place + self.velocity

    def sparse(self, before, after, gap):
        return max(2.0 - gap, 0.0)

    def step(self, action):
        place, rewards = super().step(action)
        return np.concatenate([place, self.velocity]), rewards


class Walls(Corner):
    """point_env_2d_walls.py: the reward is worked out before the wall is."""

    def sparse(self, before, after, gap):
        return norm(before - self.goal) - gap if gap < 2 else 0.0

    def end(self, before, after):
        for radius, angle in zip((1.0, 2.0), self.task[2:], strict=True):
            if norm(before) < radius < norm(after):
                gap = radius * np.array([np.cos(angle), np.sin(angle)])
                return after if norm(after - gap) <= 1 else after / norm(after) * radius * (1 - 1e-6)
        return after


PAIRS = [(PointCorners, Corner), (PointMomentum, Momentum), (PointWalls, Walls)]


@pytest.mark.parametrize(("family", "replay"), PAIRS)
def test_episodes_are_the_official_ones(family, replay):
    """Rows that wander outward and back, so that they meet walls, gaps and every quadrant."""
    envs, rng, stopped = [family(reward=kind, horizon=60) for kind in REWARDS], np.random.default_rng(1), 0
    tasks = np.asarray(envs[0].sample_tasks(KEY, 12))
    state, obs = envs[0].reset(KEY, tasks)
    rows = [replay(task, first) for task, first in zip(tasks, np.asarray(obs), strict=True)]
    drift = rng.uniform(-0.15, 0.15, (12, 2))

    @jax.jit
    def step(state, action):
        after = [env.step(state, action, jnp.ones(12, bool)) for env in envs]
        return after[0][0], after[0][1], jnp.stack([out.reward for _, out in after], axis=-1)

    for t in range(60):
        action = ((drift if t < 35 else -drift) + rng.uniform(-0.15, 0.15, (12, 2))).astype(np.float32)
        if replay is Momentum:
            action = rng.uniform(-0.12, 0.12, (12, 2)).astype(np.float32)
        state, out, paid = step(state, action)
        places, rewards = zip(*(row.step(a) for row, a in zip(rows, action, strict=True)), strict=True)
        np.testing.assert_allclose(out.obs, places, atol=3e-5)
        np.testing.assert_allclose(paid, rewards, atol=1e-4, rtol=1e-4)
        np.testing.assert_array_equal(out.train_reward, out.reward)
        np.testing.assert_array_equal(np.stack([out.info["x"], out.info["y"]], axis=-1), np.asarray(out.obs)[:, :2])
        assert not np.asarray(out.terminal).any()
        for row, place, obs in zip(rows, places, np.asarray(out.obs), strict=True):  # roundings do not add up
            stopped += replay is Walls and min(abs(norm(place) - 1), abs(norm(place) - 2)) < 1e-5
            row.place = obs[:2].astype(float)
    assert stopped > 20 or replay is not Walls


def test_walls_hold_outside_their_gap_and_only_outward():
    task = np.tile(np.array([2, 2, np.pi / 2, np.pi], np.float32), (5, 1))
    before = np.array([[0.9, 0.0], [0.0, 0.9], [1.1, 0.0], [-1.9, 0.0], [1.9, 0.0]], np.float32)
    way = np.array([[0.2, 0.0], [0.0, 0.2], [-0.2, 0.0], [-0.2, 0.0], [0.2, 0.0]], np.float32)
    _, out = PointWalls().step((jnp.asarray(before), jnp.asarray(task)), way, jnp.ones(5, bool))
    expected = [[1.0, 0.0], [0.0, 1.1], [0.9, 0.0], [-2.1, 0.0], [2.0, 0.0]]
    np.testing.assert_allclose(out.obs, expected, atol=5e-6)
    np.testing.assert_allclose(out.reward, -norm(before + way - 2.0, axis=1), rtol=1e-6)  # as if nobody was stopped


@pytest.mark.parametrize("family", [PointCorners, PointMomentum, PointWalls])
def test_starts(family):
    env = family()
    _, obs = env.reset(KEY, jnp.asarray(env.train_tasks)[np.zeros(20_000, int)])
    reach = np.array([0.2, 0.2, 0.1, 0.1])[: env.spec.obs_size]
    assert np.abs(obs).max(axis=0).tolist() <= reach.tolist()
    np.testing.assert_allclose(np.std(obs, axis=0), 2 * reach / 12**0.5, rtol=0.03)


def test_tasks_of_corners_and_walls():
    for family in (PointCorners, PointMomentum):
        assert family().train_tasks.tolist() == family().test_tasks.tolist() == [list(corner) for corner in CORNERS]
        drawn = np.asarray(family().sample_tasks(KEY, 4000))
        assert {tuple(goal) for goal in drawn.tolist()} == set(CORNERS)
        np.testing.assert_allclose([(drawn == corner).all(axis=1).mean() for corner in CORNERS], 0.25, atol=0.03)
    for tasks in (PointWalls().sample_tasks(KEY, 4000), PointWalls(n_train=4000).train_tasks):
        tasks = np.asarray(tasks)
        np.testing.assert_allclose([(tasks[:, :2] == corner).all(axis=1).mean() for corner in CORNERS], 0.25, atol=0.03)
        np.testing.assert_allclose(np.std(tasks[:, 2:], axis=0), 2 * np.pi / 12**0.5, rtol=0.03)
    assert len(PointWalls().train_tasks) == 40 and len(PointWalls().test_tasks) == 20


def test_mamls_point():
    """maml_examples/point_env_randgoal.py: from the origin, over when both axes are within 0.01 of the goal."""
    env, rng = MamlPointRobot(), np.random.default_rng(0)
    goals = np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))  # of test_maml_point.py
    np.testing.assert_allclose(env.test_tasks, goals, rtol=1e-6)
    assert np.abs(env.train_tasks).max() <= 0.5 and len(env.train_tasks) == 100
    assert 0.49 < np.abs(np.asarray(env.sample_tasks(KEY, 500))).max() <= 0.5
    state, obs = env.reset(KEY, env.test_tasks)
    np.testing.assert_array_equal(obs, np.zeros((40, 2)))
    place, ended, step = np.zeros((40, 2)), 0, jax.jit(env.step)
    for t in range(12):
        noise = 0.0 if t % 2 else rng.uniform(-0.012, 0.012, (40, 2))
        action = (goals - place + noise).astype(np.float32)
        state, out = step(state, action, jnp.ones(40, bool))
        place = place + np.clip(action, -0.1, 0.1)
        off = place - goals
        np.testing.assert_allclose(out.obs, place, atol=1e-6)
        np.testing.assert_allclose(out.reward, -norm(off, axis=1), atol=1e-6)
        over = (np.abs(off) < 0.01).all(axis=1)
        np.testing.assert_array_equal(out.terminal, over)
        ended += int(over.sum())
    assert 0 < ended < 12 * 40
    spec = env.spec
    assert spec.can_terminate and (spec.horizon, spec.trial_episodes, spec.exploration_episodes) == (100, 2, 1)
    _, begun = env.restart(KEY, state, jnp.arange(40) < 3)
    np.testing.assert_array_equal(np.asarray(begun)[:3], 0.0)
    np.testing.assert_array_equal(begun[3:], out.obs[3:])


@pytest.mark.parametrize(("name", "scores"), [
    ("point-corners", (0.46, 0.0, 15.30)), ("point-momentum", (2.5, 8.4, 391.0)), ("point-walls", (-287.2, -283.0, -58.7)),
    ("maml/point-robot", (-61.4, -40.1, -0.54)),
])  # fmt: skip
def test_scores_of_the_documentation_and_where_the_oracle_ends(name, scores):
    """Random, still and oracle in one program, over the test tasks again and again."""
    env = make_family(name)
    assert isinstance(env, Environment)
    again = 800 // len(env.test_tasks)
    tasks = jnp.tile(jnp.asarray(env.test_tasks), (3 * again, 1))
    who, bound = jnp.repeat(jnp.arange(3), 800)[:, None], env.spec.action.high[0]

    @jax.jit
    def play(key):
        def step(carry, t):
            state, obs, going, total = carry
            action = jax.random.uniform(jax.random.fold_in(key, t), (2400, 2), minval=-bound, maxval=bound)
            action = jnp.where(who == 0, action, jnp.where(who == 1, 0.0, env.oracle(tasks, obs, t)))
            state, out = env.step(state, action, going)
            obs = jnp.where(going[:, None], out.obs, obs)
            return (state, obs, going & ~out.terminal, total + going * out.reward), None

        start = (*env.reset(key, tasks), jnp.ones(2400, bool), jnp.zeros(2400))
        _, obs, _, total = jax.lax.scan(step, start, jnp.arange(env.spec.horizon))[0]
        return obs, total.reshape(3, 800).mean(axis=1)

    obs, found = play(KEY)
    np.testing.assert_allclose(obs[1600:, :2], tasks[1600:, :2], atol=0.11 if name == "point-corners" else 0.01)
    np.testing.assert_allclose(found, scores, rtol=0.05, atol=0.5)
    np.testing.assert_allclose(found[2], scores[2], rtol=0.005, atol=0.02)


def test_the_oracle_finds_its_way_through_all_walls():
    env, tasks = PointWalls(), PointWalls().sample_tasks(KEY, 2000)

    def step(carry, t):
        state, obs = carry
        state, out = env.step(state, env.oracle(tasks, obs, t), jnp.ones(2000, bool))
        return (state, out.obs), None

    (_, obs), _ = jax.jit(lambda key: jax.lax.scan(step, env.reset(key, tasks), jnp.arange(60)))(KEY)
    np.testing.assert_allclose(obs, tasks[:, :2], atol=1e-4)


def test_bad_options_are_refused():
    for family, name in (
        (PointCorners, "point-corners"),
        (PointMomentum, "point-momentum"),
        (PointWalls, "point-walls"),
    ):
        with pytest.raises(
            ValueError, match=f"{name}: reward must be one of sparse, dense, dense_squared, got 'spare'"
        ):
            family(reward="spare")
        with pytest.raises(ValueError, match=f"{name}: horizon must be at least 1, got 0"):
            family(horizon=0)
    with pytest.raises(ValueError, match="point-walls: n_test must be at least 1, got 0"):
        PointWalls(n_test=0)
    with pytest.raises(ValueError, match="maml/point-robot: n_train must be at least 1, got 0"):
        MamlPointRobot(n_train=0)


@pytest.mark.parametrize("name", ["point-walls", "maml/point-robot"])
def test_pictures_and_frames(name):
    env, random = make_family(name), np.random.default_rng(0)
    lengths = np.array([[3, 8], [8, 5], [8, 8]])  # [N, K]
    valid = np.arange(8) < lengths.T[..., None]  # [K, N, T]
    info = {axis: np.where(valid, random.uniform(-2, 2, (2, 3, 8)), 0.0) for axis in "xy"}
    made = {"returns": np.zeros((1, 3, 2)), "lengths": lengths[None], "info": info, "tasks": env.test_tasks[:3],
            "exploration_episodes": 1}  # fmt: skip
    drawn = env.pictures(made)
    assert len(drawn) == 3 and all(caption.endswith(".") for _, caption, _ in drawn)
    arcs = sum(type(patch).__name__ == "Arc" for axis in drawn[1][2].axes for patch in axis.patches)
    assert arcs == (6 if name == "point-walls" else 0)  # two for each task
    paths = [path.vertices for path in drawn[0][2].axes[0].collections[-1].get_paths()]
    if name == "maml/point-robot":  # paths stay where episodes end, and begin at the origin
        assert (
            (paths[0][3:] == paths[0][3]).all()
            and not paths[0][0].any()
            and (paths[0][3] == [info["x"][0, 0, 2], info["y"][0, 0, 2]]).all()
        )
    trial = {"task": env.test_tasks[0], "returns": np.zeros(2), "reward": np.zeros((2, 8)), "obs": np.zeros((2, 8, 2)),
             "info": {axis: info[axis][:, 0] for axis in "xy"}, "valid": valid[:, 0], "exploration_episodes": 1}  # fmt: skip
    assert len(list(env.frames(trial))) == 4 + 9


def test_paper_presets_are_the_official_ones():
    made = {
        (name, family): (values := presets.preset("paper", family, make_family(family).spec), registry.make_algorithm(
            name, make_family(family).spec, {k: v for k, v in values.items() if k != "env_steps"}
        ))
        for name, presets in (("maml", maml), ("e-maml", e_maml), ("promp", promp))
        for family in ("point-corners", "point-momentum")
    }  # fmt: skip
    for (name, family), (values, algorithm) in made.items():
        c = algorithm.config
        steps, horizon = (1, 100) if family == "point-corners" else (3, 200)
        assert values["env_steps"] == 1001 * 40 * 20 * (steps + 1) * horizon
        assert (c.inner_steps, c.inner_rate, c.action_range) == (steps, 0.1, 10.0)
        assert getattr(c, "surrogate", "score") == "score"
        assert c.hidden == ((128, 128) if (name, family) == ("promp", "point-momentum") else (64, 64))
    with pytest.raises(ValueError, match="promp's paper has no point-walls"):
        promp.preset("paper", "point-walls", PointWalls().spec)
    values = maml.preset("paper", "maml/point-robot", MamlPointRobot().spec)
    assert values["env_steps"] == 100 * 40 * 20 * 2 * 100
    assert (values["inner_rate"], values["later_rate"], values["test_steps"], values["surrogate"]) == (
        0.5,
        0.5,
        4,
        "score",
    )
