"""The meta-policy gradient: what is only tried leaves nothing behind, the teacher's gradient is that of the expected meta-reward,
and without a teacher nothing but the noise is different."""

import dataclasses
import itertools
import json
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import nacre
from nacre import nn, replay
from nacre.algorithms import registry
from nacre.algorithms.teacher import Config, Params, Teacher
from nacre.envs.far_goal import FarGoal
from nacre.envs.grid_navi import GridNavi
from nacre.envs.pendulum import Pendulum
from nacre.envs.point_robot import PointRobot
from nacre.envs.registry import make_family
from nacre.presets import teacher as presets
from nacre.replay import Batch
from nacre.types import Box, EnvSpec, Step, Trajectory
from nacre.updates import ddpg
from nacre.updates.exploring import Noise, Scale
from nacre.updates.students import DELAY, SMOOTHING

KEY = jax.random.key(0)
ENV = Pendulum(horizon=12)
SMALL = dict(hidden=(8,), teacher_hidden=(4,), teacher_steps=8, student_steps=24, trial_updates=3, updates_per_iteration=4,
             batch_size=6)  # fmt: skip


def make(**values):
    return Teacher(Config(**{**SMALL, **values}), ENV.spec)


def assert_same(a, b, same=True):
    equal = [np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    assert all(equal) if same else not all(equal)


# ------------------------------------------------------------------------------------------------------- a lesson


def test_what_is_tried_is_rolled_back_and_all_that_was_acted_is_kept():
    algorithm = make(before="same-starts", teacher_std=1.5)
    state = algorithm.init(KEY, ENV, 200)
    after, metrics = jax.jit(lambda s, k: algorithm.lesson(s, ENV, k))(state, KEY)
    assert_same(after.learning, state.learning)
    assert metrics["trial/moved"] > 0 and int(after.updates) == 0
    assert_same(after.explorer, state.explorer)  # the first meta-reward has nothing to be above
    again, _ = jax.jit(lambda s, k: algorithm.lesson(s, ENV, k))(after, jax.random.key(1))
    assert_same(again.explorer, after.explorer, same=False)
    # D0 is part of an episode, D1 two whole ones, and so is what pi acted
    assert int(after.env_steps) == int(after.replay.total[0]) == algorithm.minimum_env_steps(ENV) == 8 + 24 + 24
    kept = replay.unpack(after.replay, after.replay.store[:56])
    assert np.abs(kept.action).max() == 1.0  # the teacher drew more; the environment saw this
    np.testing.assert_allclose(kept.obs[1:8], kept.next_obs[:7])
    np.testing.assert_array_equal(kept.obs[8], kept.obs[32])  # pi' and pi begin alike
    assert not np.array_equal(kept.next_obs[31], kept.next_obs[55])
    returns = kept.reward[8:32].sum() / 2, kept.reward[32:].sum() / 2
    np.testing.assert_allclose([metrics["collect/return_trial"], metrics["collect/return_student"]], returns, rtol=1e-5)
    np.testing.assert_allclose(metrics["meta/reward"], returns[0] - returns[1], rtol=1e-3, atol=1e-5)


def test_where_episodes_end_early_another_begins():
    env = make_family("gymnasium/InvertedPendulum-v5")
    algorithm = Teacher(Config(**SMALL), env.spec)
    state = algorithm.init(KEY, env, 500)
    after, _ = algorithm.lesson(state, env, KEY)
    assert int(after.env_steps) == algorithm.minimum_env_steps(env)
    kept = replay.unpack(after.replay, after.replay.store[: int(after.env_steps)])
    assert kept.terminal.any()


def test_without_a_teacher_it_stays_as_it_is_and_the_student_acts_and_learns_as_much():
    algorithm = make(teacher="none")
    state = algorithm.init(KEY, ENV, 200)
    after, _ = jax.jit(lambda s, k: algorithm.iterate(s, ENV, k, "iteration"))(state, KEY)
    assert_same((after.explorer, after.optimiser), (state.explorer, state.optimiser))
    assert int(after.env_steps) == make().minimum_env_steps(ENV) == 56
    assert int(after.updates) == int(after.learning.steps) == 4
    assert_same(after.learning, state.learning, same=False)


def test_random_actions_come_first_where_asked_for():
    algorithm = make(initial_steps=20)
    state = algorithm.init(KEY, ENV, 200)
    assert algorithm.phase(state, ENV) == "initial" and algorithm.minimum_env_steps(ENV) == 24 + 56
    after, _ = algorithm.iterate(state, ENV, KEY, "initial")
    assert int(after.env_steps) == 24 and algorithm.phase(after, ENV) == "iteration"


# --------------------------------------------------------------------------------------------- the teacher's gradient


@pytest.mark.parametrize("kind", ["independent", "student-mean"])
def test_the_teachers_gradient_is_that_of_the_expected_meta_reward(kind):
    """Two env steps whose meta-reward is a polynomial of both actions, so that Gauss-Hermite quadrature is exact; the expectation
    itself is differentiated by central differences."""
    jax.config.update("jax_enable_x64", True)
    try:
        algorithm = make(teacher=kind)
        state = algorithm.init(KEY, ENV, 200)
        wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)  # noqa: E731
        explorer, policy = wide(state.explorer), wide(state.learning.nets.policy)
        explorer = jax.tree.map(
            lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), explorer
        )
        obs = jnp.array([[0.3, -0.8, 1.0], [0.9, 0.1, -2.0]])
        points, weights = np.polynomial.hermite_e.hermegauss(7)
        grid = jnp.array(list(itertools.product(points, repeat=2)))[..., None]  # [49, 2, 1]
        weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
        reward = lambda a: 2.0 * a[:, 0] - (a[:, 0] * a[:, 1] - 0.2) ** 2 + a[:, 1] ** 3  # noqa: E731
        draws = lambda explorer: algorithm.mean(explorer, policy, obs) + jnp.exp(explorer.log_std) * grid  # noqa: E731

        def gradient(action, paid):
            seen = Trajectory(obs, action, None, None, None, None, jnp.ones(2))
            return ravel_pytree(jax.grad(algorithm.teacher_loss)(explorer, policy, seen, paid))[0]

        actions = draws(explorer)
        total = weights @ jax.jit(jax.vmap(gradient))(actions, reward(actions[..., 0]))
        flat, back = ravel_pytree(explorer)
        expected = jax.jit(jax.vmap(lambda x: weights @ reward(draws(back(x))[..., 0])))
        off = 1e-5 * jnp.eye(flat.size)
        found = (expected(flat + off) - expected(flat - off)) / 2e-5
        assert np.abs(found).max() > 0.1
        np.testing.assert_allclose(-total, found, rtol=1e-5, atol=1e-7)
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("baseline", [True, False])
def test_meta_rewards_count_by_their_running_mean_and_deviation(baseline):
    """Mean and deviation are those under the weights that shares of 1, 1/2, 0.4, 0.4, ... leave to each reward."""
    algorithm = make(meta_baseline=baseline, meta_memory=0.4)
    state, weights, rewards = algorithm.init(KEY, ENV, 200), np.zeros(0), np.array([3.0, -1.0, 4.0, 0.5])
    seen = jax.tree.map(lambda x: x[:, :, :3], _nothing(algorithm))
    for k, reward in enumerate(rewards):
        before = weights @ rewards[:k]
        share = max(0.4, 1 / (k + 1))
        weights = np.append((1 - share) * weights, share)
        mean = weights @ rewards[: k + 1]
        deviation = (weights @ (rewards[: k + 1] - mean) ** 2) ** 0.5
        state, metrics = algorithm.instruct(state, seen, jnp.asarray(reward))
        expected = (reward - before * baseline) / deviation if k else 0.0
        np.testing.assert_allclose(metrics["meta/advantage"], expected, rtol=1e-4)


def test_a_running_deviation_is_that_of_the_rewards_however_far_from_zero_they_are():
    rewards = np.random.default_rng(0).normal(9.0, 1.0, 20)
    scale = Scale(*(jnp.zeros(()) for _ in range(3)))
    for k, reward in enumerate(rewards):
        scale = scale.include(jnp.asarray(reward), 0.0)
        np.testing.assert_allclose(scale.square, rewards[: k + 1].var(), rtol=1e-3, atol=1e-4)
    assert Scale(*(jnp.zeros(()) for _ in range(3))).include(jnp.asarray(0.0), 0.1).square == 0


def test_the_first_meta_reward_teaches_nothing():
    algorithm = make(meta_memory=0.05)
    state = algorithm.init(KEY, ENV, 200)
    after, metrics = algorithm.instruct(
        state, jax.tree.map(lambda x: x[:, :, :3], _nothing(algorithm)), jnp.asarray(9.0)
    )
    assert metrics["meta/advantage"] == 0.0
    np.testing.assert_array_equal(after.explorer.log_std, state.explorer.log_std)


def _nothing(algorithm):
    zero = jnp.zeros((1, 1, 8))
    obs = jnp.zeros((1, 1, 8, 3))
    return Trajectory(obs, zero[..., None], zero, zero, obs, zero > 0, zero == 0)


def test_the_teachers_deviation_stays_in_its_range():
    algorithm = make(teacher_rate=10.0)
    state, _ = algorithm.instruct(algorithm.init(KEY, ENV, 200), _nothing(algorithm), jnp.zeros(()))
    for reward, bound in (
        (1.0, 0.02),
        (-1.0, 2.0),
    ):  # actions at the mean: the better they are, the smaller the deviation
        after, _ = algorithm.instruct(state, _nothing(algorithm), jnp.asarray(reward))
        np.testing.assert_allclose(jnp.exp(after.explorer.log_std), bound, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------- the student


def linear(*rows):
    """A layer [in, 1] with these weights, the last of which is the bias."""
    net = nn.MLP((len(rows) - 1, 1), key=KEY)
    weights = jnp.array(rows, jnp.float32)
    return eqx.tree_at(lambda n: (n.weights, n.biases), net, ((weights[:-1, None],), (weights[-1:],)))


def test_targets_by_hand():
    """mu'(s) = tanh(s), Q'1 = 2 s + 3 a + 1, Q'2 = s - a + 4; next states 0.5 and -0.2, of which the second is terminal."""
    policy, first, second = linear(1.0, 0.0), linear(2.0, 3.0, 1.0), linear(1.0, -1.0, 4.0)
    obs, next_obs = jnp.zeros((2, 1)), jnp.array([[0.5], [-0.2]])
    batch = Batch(obs, obs, None, jnp.array([1.0, -2.0]), jnp.array([0.0, 1.0]), next_obs)
    noise = jnp.array([[1.5], [0.0]])
    one = ddpg.Networks(policy, (first,), policy, (first,))
    learner = ddpg.Learner(discount=0.9, target_rate=0.1, reward_scale=2.0)
    y = learner.bellman_target(one, batch, noise)
    np.testing.assert_allclose(y, [2.0 + 0.9 * (1.0 + 3 * np.tanh(0.5) + 1), -4.0], rtol=1e-6)
    two = ddpg.Networks(policy, (first, second), policy, (first, second))
    td3 = ddpg.Learner(0.9, 0.1, 2.0, smoothing=SMOOTHING, delay=DELAY)
    action = np.tanh(0.5) + 0.3
    least = min(2 * 0.5 + 3 * action + 1, 0.5 - action + 4)
    np.testing.assert_allclose(td3.bellman_target(two, batch, noise), [2.0 + 0.9 * least, -4.0], rtol=1e-6)
    for limit, action in ((0.5, np.tanh(0.5) + 0.5), (2.0, 1.0)):  # of the noise; the action stays within 1
        wild = dataclasses.replace(td3, smoothing_limit=limit).bellman_target(two, batch, 10 * noise)
        least = min(2 * 0.5 + 3 * action + 1, 0.5 - action + 4)
        np.testing.assert_allclose(wild[0], 2.0 + 0.9 * least, rtol=1e-6)
    loss, q = ddpg.critic_loss((first, second), batch, jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(q, [1.0, 1.0])
    np.testing.assert_allclose(loss, (1 + 1) / 2 + (4 + 16) / 2)
    value = np.mean([2 * s + 3 * np.tanh(s) + 1 for s in (0.5, -0.2)])
    np.testing.assert_allclose(ddpg.policy_loss(policy, first, next_obs), -value, rtol=1e-6)


def test_td3_updates_its_policy_every_other_step():
    student = make(student="td3").student
    random = lambda k, *shape: jax.random.normal(jax.random.fold_in(KEY, k), shape)  # noqa: E731
    batch = Batch(random(0, 6, 3), random(1, 6, 1), None, random(2, 6), jnp.zeros(6), random(3, 6, 3))
    step, now = jax.jit(student.step), student.begin(KEY)
    for k in range(4):
        after, _ = step(now, batch, random(4, 2, 6, 1))
        assert_same(after.nets.policy, now.nets.policy, same=k % 2 == 0)
        assert_same(after.nets.target_critics, now.nets.target_critics, same=k % 2 == 0)
        assert_same(after.optimisers["policy"], now.optimisers["policy"], same=k % 2 == 0)
        assert_same(after.nets.critics, now.nets.critics, same=False)
        now = after


def test_own_noise_lasts():
    def run(pull):
        def step(noise, key):
            noise = noise.drawn(jax.random.normal(key, noise.now.shape), 0.4, pull)
            return noise, noise.now

        return np.asarray(jax.lax.scan(step, Noise(jnp.zeros((1, 500, 1))), jax.random.split(KEY, 200))[1])[
            100:, 0, :, 0
        ]

    for pull, correlation in ((0.15, 0.85), (1.0, 0.0)):
        x = run(pull)
        np.testing.assert_allclose(x.std(), 0.4, rtol=0.03)
        np.testing.assert_allclose((x[1:] * x[:-1]).mean() / x.var(), correlation, atol=0.02)


def test_batches_may_be_half_from_another_store():
    """A student whose steps are replaced by a look at their batch."""
    student = make(batch_size=6).student

    def stored(reward, n):
        zero, row = jnp.zeros((1, 1, n, 3)), jnp.full((1, 1, n), reward)
        data = Trajectory(zero, zero[..., :1], row, row, zero, row < 0, row == row)
        return replay.append(replay.create(ENV.spec, 1, 12), ENV.spec, jnp.zeros(1, jnp.int32), data, recent=False)

    class Looks(type(student)):
        def step(self, now, batch, noise):
            return now, {"reward": batch.reward}

    looks = Looks(**dataclasses.asdict(student) | dict(spec=ENV.spec))
    for beside, expected in ((None, [1] * 6), (stored(2.0, 5), [1, 2] * 3), (replay.create(ENV.spec, 1, 12), [1] * 6)):
        np.testing.assert_array_equal(looks.learn((), stored(1.0, 4), KEY, 2, beside)[1]["reward"], expected)


# ------------------------------------------------------------------------------------------------------------- learning


@dataclasses.dataclass(frozen=True)
class Side:
    """Reward: the action, wherever one is."""

    train_is_test = True
    train_tasks = test_tasks = np.zeros((1, 1), np.float32)
    spec = EnvSpec("side", 1, Box((-1.0,), (1.0,)), horizon=5, jittable=True, trial_episodes=1, exploration_episodes=0,
                   obs_names=("nothing",), task_names=("none",), reward_note="the action")  # fmt: skip

    def sample_tasks(self, key, n):
        return jnp.zeros((n, 1))

    def reset(self, key, tasks):
        return (), jnp.zeros((tasks.shape[0], 1))

    def step(self, state, action, active):
        still = jnp.zeros((action.shape[0], 1))
        return state, Step(still, action[:, 0], action[:, 0], still[:, 0] > 0, {})

    def oracle(self, tasks, obs, t):
        return None


OTHER = dict(student="sac", teacher="student-mean", before="last", trial_data="mixed")


@pytest.mark.parametrize("options", [dict(before="rollout"), OTHER], ids=["ddpg", "sac"])
def test_students_learn(tmp_path, options):
    short = dict(
        hidden=(16,), teacher_hidden=(8,), teacher_steps=10, student_steps=10, trial_updates=5, batch_size=16, discount=0.5,
        updates_per_iteration=50, policy_rate=1e-2, critic_rate=1e-2, env_steps=300, eval_every=300,
    )  # fmt: skip
    agent = nacre.train("teacher", Side(), **options, out=tmp_path / "run", progress=False, **short)
    result = nacre.evaluate(agent, repetitions=2)
    assert len(result.shots) == 1 and result.shots[0] > 4.5
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = next(line["metrics"] for line in lines if line["kind"] == "train")
    assert (first["meta/reward"] == 0) == (options["before"] == "last")  # which has nothing to compare with at first


# --------------------------------------------------------------------------------------------------------------- limits


def test_families_that_it_cannot_learn_are_refused():
    with pytest.raises(ValueError, match="continuous actions, and those of grid-navi are discrete"):
        registry.make_algorithm("teacher", GridNavi().spec, {})
    algorithm = Teacher(Config(), PointRobot().spec)
    with pytest.raises(
        ValueError, match=r"a single task .*point-robot has 80 to train on and 20 to be tested on; take pendulum"
    ):
        algorithm.check_family(PointRobot())
    with pytest.raises(ValueError, match="has 1 to train on and 1 to be tested on"):
        algorithm.check_family(PointRobot(n_train=1, n_test=1))
    for env in (Pendulum(), FarGoal()):
        algorithm.check_family(env)


@pytest.mark.parametrize("values, message", [
    (dict(trial_updates=0), "trial_updates is 0"),
    (dict(teacher_std=3.0), "teacher_std must lie within 0.02 and 2.0, got 3.0"),
    (dict(noise_pull=0.0), r"noise_pull must lie in \(0, 1\], got 0.0"),
])  # fmt: skip
def test_settings_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)
    assert Config(teacher="none", trial_updates=0).teacher == "none"


def test_presets_fit_their_families():
    for name, family in itertools.product(("fast", "paper"), ("pendulum", "far-goal", "half-cheetah")):
        spec = registry.load_object("nacre.envs.registry:make_family")(family).spec
        if (name, family) == ("paper", "far-goal"):
            with pytest.raises(ValueError, match="paper has no far-goal; it has pendulum, half-cheetah"):
                presets.preset(name, family, spec)
            continue
        values = presets.preset(name, family, spec)
        own = {key: value for key, value in values.items() if key in Config.__dataclass_fields__}
        made = registry.make_algorithm("teacher", spec, own)
        assert values["env_steps"] >= 10 * made.minimum_env_steps(None)
        if name == "paper":
            assert made.config == Config()


def test_params_hold_the_teacher_for_pictures():
    algorithm = make()
    params = algorithm.params(algorithm.init(KEY, ENV, 200))
    assert isinstance(params, Params)
    far = partial(algorithm.explore, params, jnp.zeros((1, 4000, 3)))
    np.testing.assert_allclose(far(KEY).std(), 0.5, rtol=0.05)
