"""The meta-test: its numbers against hand-made loops, its references, its files."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import evaluate as meta
from nacre import rollout, stats
from nacre._errors import UserError
from nacre.algorithms.pearl import PEARL, Config, Params
from nacre.envs.point_robot import SparsePointRobot
from nacre.envs.registry import make_family
from nacre.results import Result, shown_shots, summary
from nacre.types import Box, EnvSpec, Step

KEY = meta.evaluation_key()
ENV = SparsePointRobot()


def pearl(env=ENV, **changes):
    return PEARL(Config(hidden=(16,), encoder_hidden=(16,), latent_size=3, **changes), env.spec)


def params_of(algorithm, seed=0):
    """Untrained networks, the policy's outputs far from their tiny initial size, so that z matters."""
    nets = algorithm.networks(jax.random.key(seed))
    return Params(nets.encoder, jax.tree.map(lambda w: w * 30, nets.sac.policy))


@dataclass(frozen=True)
class Stepper:
    """Moves along +x by 0.01 per episode of the trial that it remembers (times `params`), plus nothing."""

    spec: EnvSpec
    traces: list = field(default_factory=list, compare=False)
    observes = False

    def begin(self, params, key, rows):
        return jnp.zeros(rows[0])

    def act(self, params, memory, obs, key, explore):
        self.traces.append(1)
        speed = 0.1 * memory[:, None, None] * params  # in the agent's units: [-1, 1] is +-0.1
        return jnp.concatenate([speed, jnp.zeros_like(speed)], axis=-1), (), memory

    def adapt(self, params, memory, episodes, key):
        return memory + 1

    def beliefs(self, params, memory):
        return {"count": memory}


@dataclass(frozen=True)
class HostPoint:
    """Dense point robot on the host, from the origin; ends at x >= 0.15 (0.3 for task 1)."""

    spec: ClassVar = EnvSpec("host-point", 2, Box((-0.1, -0.2), (0.1, 0.2)), horizon=6, jittable=False)
    train_tasks = np.zeros((1, 2), np.float32)
    test_tasks = np.array([[0.15, 0.5], [0.3, 0.5], [9.0, 0.5]], np.float32)

    def reset(self, key, tasks):
        assert type(tasks) is np.ndarray
        return (np.zeros((len(tasks), 2), np.float32), tasks), np.zeros((len(tasks), 2), np.float32)

    def step(self, state, action, active):
        position = state[0] + action
        over = position[:, 0] >= state[1][:, 0] - 1e-6
        reward = position.sum(axis=-1).astype(np.float32)
        return (position, state[1]), Step(position, reward, reward, over, {"x": position[:, 0], "far": position})

    def oracle(self, tasks, obs, t):
        assert type(tasks) is np.ndarray and type(obs) is np.ndarray  # not a tracer
        return np.stack([np.full(len(obs), 0.05), np.full(len(obs), 0.01 * t)], axis=-1)


def stepped(goals, k, params=1.0):
    """Return of episode k of a Stepper by hand."""
    x = min(0.01 * k * params, 0.1) * np.arange(1, 21)
    distance = np.hypot(x - goals[:, :1], goals[:, 1:])
    return np.where(distance <= 0.2, 1 - distance, 0).sum(axis=-1)


# ------------------------------------------------------------------------------------------------ meta_test


def test_axes_counts_and_numbers_by_hand():
    goals = np.array([[1.003, 0.0], [0.8, 0.1], [0.0, 1.0]], np.float32)
    shots = meta.meta_test(ENV, Stepper(ENV.spec), 1.0, goals, KEY, episodes=8, repetitions=2)
    expected = np.stack([stepped(goals, k) for k in range(8)], axis=1)  # [N, K]
    assert expected[0, 7] > 1 and expected[2].max() == 0
    assert shots.returns.shape == (2, 3, 8)
    np.testing.assert_allclose(shots.returns, [expected, expected], atol=1e-4)
    assert shots.beliefs["count"].shape == (2, 8, 3)
    np.testing.assert_array_equal(shots.beliefs["count"][1, :, 2], np.arange(8))
    assert shots.info["x"].shape == (8, 3, 20)
    np.testing.assert_allclose(shots.info["x"][5, 1], 0.05 * np.arange(1, 21), rtol=1e-5)
    assert shots.env_steps == 2 * 3 * 8 * 20
    assert all(type(leaf) is np.ndarray for leaf in (shots.returns, shots.beliefs["count"], shots.info["x"]))


def test_reset_memory_forgets_before_every_episode():
    shots = meta.meta_test(ENV, Stepper(ENV.spec), 1.0, ENV.test_tasks, KEY, episodes=4, reset_memory=True)
    assert not shots.beliefs["count"].any() and not shots.info["x"].any()


def test_batches_do_not_change_the_numbers(monkeypatch):
    goals = ENV.test_tasks[:4]
    whole = meta.meta_test(ENV, Stepper(ENV.spec), 1.0, goals, KEY, episodes=3, repetitions=3)
    monkeypatch.setitem(meta.BATCH, True, 7)  # 6 rows twice: cuts inside a repetition
    parts = meta.meta_test(ENV, Stepper(ENV.spec), 1.0, goals, KEY, episodes=3, repetitions=3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)


def test_compiled_once_for_equal_settings_and_other_parameters():
    algorithm = Stepper(ENV.spec)
    first = meta.meta_test(ENV, algorithm, jnp.float32(1.0), ENV.test_tasks, KEY, episodes=9, repetitions=2)
    traces = len(algorithm.traces)
    again = meta.meta_test(
        SparsePointRobot(), algorithm, jnp.float32(0.5), ENV.test_tasks, KEY, episodes=9, repetitions=2
    )
    assert traces > 0 and len(algorithm.traces) == traces
    assert (first.returns != again.returns).any()


def test_host_families_terminate_by_themselves():
    env = HostPoint()
    shots = meta.meta_test(env, Stepper(env.spec), 5.0, env.test_tasks, KEY, episodes=3, repetitions=2)
    # episode k moves 0.05 k: over after x >= 0.15, 0.3, never
    np.testing.assert_array_equal(shots.lengths[1], [[6, 3, 2], [6, 6, 3], [6, 6, 6]])
    assert shots.env_steps == 2 * shots.lengths[0].sum()
    np.testing.assert_allclose(shots.returns[0, 0], [0, 0.3, 0.3], atol=1e-6)
    np.testing.assert_allclose(shots.info["x"][2, 0], [0.1, 0.2, 0, 0, 0, 0], atol=1e-6)
    assert shots.info["far"].shape == (3, 3, 6, 2)


def test_host_batches_do_not_change_the_numbers(monkeypatch):
    env = HostPoint()
    run = lambda: meta.meta_test(env, Stepper(env.spec), 5.0, env.test_tasks, KEY, episodes=2, repetitions=2)  # noqa: E731
    whole = run()
    monkeypatch.setitem(meta.BATCH, False, 5)  # 3 rows twice
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, run())


def test_the_last_episode_uses_all_earlier_context():
    algorithm = pearl(exploration_episodes=2)
    params, goals = params_of(algorithm), ENV.test_tasks[:3]
    shots = meta.meta_test(ENV, algorithm, params, goals, KEY, episodes=5, repetitions=2)
    beliefs = {name: leaf[0] for name, leaf in shots.beliefs.items()}  # [K, N, ...]
    after = np.stack([shots.info["x"], shots.info["y"]], axis=-1)  # positions [K, N, T, 2] after each step
    before = np.concatenate([np.zeros((5, 3, 1, 2)), after[:, :, :-1]], axis=2)  # every episode starts at the origin
    distance = np.linalg.norm(after - goals[:, None], axis=-1, keepdims=True)
    reward = np.where(distance <= 0.2, 1 - distance, 0)
    context = np.concatenate([before, (after - before) / 0.1, reward], axis=-1).astype(
        np.float32
    )  # obs, action, reward
    np.testing.assert_allclose(shots.returns[0], reward.sum(axis=(2, 3)).T, atol=1e-4)  # info is the first repetition's
    assert (shots.returns[0] != shots.returns[1]).any()
    assert (beliefs["mean"][0] == 0).all() and (beliefs["variance"][0] == 1).all()
    for k in range(1, 5):  # the posterior by hand, from every transition of the episodes before
        factors = params.encoder.net(context[:k].reshape(-1, 5)).reshape(k, 3, 20, -1)
        mean, raw = np.split(np.asarray(factors), 2, axis=-1)
        weight = 1 / np.logaddexp(0, raw)  # 1 / softplus
        precision = weight.sum(axis=(0, 2))
        np.testing.assert_allclose(beliefs["variance"][k], 1 / precision, rtol=1e-4)
        np.testing.assert_allclose(beliefs["mean"][k], (weight * mean).sum(axis=(0, 2)) / precision, atol=1e-5)
    standard = np.abs((beliefs["z"][:, :, 0] - beliefs["mean"]) / np.sqrt(beliefs["variance"]))
    assert standard[2:].max() < 5 < standard[1].max()  # z is drawn from it once the exploration episodes are over


def test_no_adaptation_is_a_prior_only_agent():
    algorithm, prior_only = pearl(exploration_episodes=1), pearl(exploration_episodes=99)
    params, tasks = params_of(algorithm), ENV.test_tasks[:2]
    shots = meta.meta_test(ENV, algorithm, params, tasks, KEY, episodes=3, reset_memory=True)
    assert not shots.beliefs["mean"].any() and (shots.beliefs["variance"] == 1).all()
    assert np.ptp(shots.beliefs["z"], axis=1).min() > 0  # a new z in every episode

    @jax.jit
    def alone(fresh, env_key):
        memory = prior_only.begin(params, fresh, (2, 1))
        return rollout.episode(ENV, prior_only, params, memory, tasks, env_key, explore=False)[0]

    _, key = jax.random.split(jax.random.fold_in(KEY, 0))
    for k in range(3):  # the same keys, an agent that has never seen anything
        fresh, env_key, _ = jax.random.split(jax.random.fold_in(key, k), 3)
        data = alone(fresh, env_key)
        np.testing.assert_allclose(shots.returns[0, :, k], data.episode_return[:, 0], atol=1e-4)
        np.testing.assert_allclose(shots.info["x"][k], data.info["x"][:, 0], atol=1e-5)


def test_counts_must_be_positive_and_returns_finite():
    with pytest.raises(UserError, match="episodes must be at least 1, got 0"):
        meta.meta_test(ENV, Stepper(ENV.spec), 1.0, ENV.test_tasks, KEY, episodes=0)
    with pytest.raises(UserError, match="repetitions must be at least 1, got -1"):
        meta.meta_test(ENV, Stepper(ENV.spec), 1.0, ENV.test_tasks, KEY, episodes=1, repetitions=-1)
    tasks = ENV.test_tasks[:3] * np.array([[1], [np.nan], [1]], np.float32)
    env = make_family("point-robot")
    with pytest.raises(FloatingPointError, match=r"episode 0 on task 1 \(repetition 0\) is nan"):
        meta.meta_test(env, Stepper(env.spec), 1.0, tasks, KEY, episodes=2)


# ----------------------------------------------------------------------------------------------- references


def test_references_of_the_sparse_point_robot():
    found = meta.references(ENV, ENV.test_tasks, KEY, episodes=3, repetitions=2)
    assert found["oracle"] == pytest.approx([13.4] * 3, abs=0.05)
    assert found["still"] == [0, 0, 0] and max(found["random"]) < 0.5


def test_random_actions_are_uniform_and_fresh():
    env = make_family("point-robot")
    actor = rollout.Scripted(meta._uniform_rule(env.spec), env.spec)
    x = meta.meta_test(env, actor, (), env.test_tasks, KEY, episodes=3, repetitions=1).info["x"]
    moves = np.diff(x, axis=-1)
    assert abs(moves).max() <= 0.1 + 1e-6 and moves.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.05)
    assert len(np.unique(moves.round(6))) > 0.9 * moves.size


def test_oracles_on_the_host_and_actions_in_the_environments_units():
    env = HostPoint()
    found = meta.references(env, env.test_tasks[2:], KEY, episodes=2)
    x, y = 0.05 * np.arange(1, 7), np.cumsum(0.01 * np.arange(6))  # the clock starts anew in each episode
    assert found["oracle"] == pytest.approx([(x + y).sum()] * 2, abs=1e-4)
    assert found["still"] == [0, 0]
    away = EnvSpec("away", 2, Box((0.1,), (0.3,)), horizon=6, jittable=False)
    native = np.array([[0.1], [0.25]], np.float32)
    np.testing.assert_allclose(rollout.to_env_action(away, meta.to_agent_action(away, native)), native, atol=1e-6)


def test_what_a_family_does_not_have_is_none():
    env = make_family("gymnasium/CartPole-v1")
    found = meta.references(env, env.test_tasks, KEY, episodes=2, repetitions=8)
    assert found["still"] is None and found["oracle"] is None  # discrete actions have no zero
    assert 12 < np.mean(found["random"]) < 40  # about 22


def test_standing_still_on_cheetah_vel():
    env = make_family("cheetah-vel")
    found = meta.references(env, env.test_tasks, KEY, episodes=1)
    assert found["still"] == pytest.approx([-283], abs=2)
    assert found["oracle"] is None


# -------------------------------------------------------------------------------------------------- evaluate


def agent(seed=0, env=ENV, algorithm=None, params=1.0):
    return SimpleNamespace(
        algorithm=algorithm or Stepper(env.spec), params=params, env=env, spec=env.spec, algorithm_name="stepper",
        env_name=env.spec.name, preset="fast", seed=seed, env_steps=1000 + seed,
    )  # fmt: skip


class TwoSeeds(SimpleNamespace):
    """What evaluate uses of nacre.runs.Run."""

    env, algorithm, seeds = ENV, Stepper(ENV.spec), (3, 5)
    algorithm_name, env_name, preset = "stepper", "sparse-point-robot", "fast"

    def checkpoints(self, seed):
        return [100, 200 + seed]

    def newest(self, seed):
        return 200 + seed

    def warn_of_changes(self):
        pass

    def params(self, checkpoint, seed):
        assert checkpoint in self.checkpoints(seed)
        return 1.0 if seed == 3 else 2.0


def test_result_of_one_agent():
    result = meta.evaluate(agent(), episodes=8, repetitions=2)
    expected = np.stack([stepped(ENV.test_tasks, k) for k in range(8)], axis=1)
    np.testing.assert_allclose(result.per_task, expected, atol=1e-4)
    np.testing.assert_allclose(result.shots, expected.mean(axis=0), atol=1e-5)
    assert result.trial_return == pytest.approx(expected.sum(axis=1).mean(), abs=1e-4)
    low, high = np.array(result.intervals).T
    assert (low <= result.shots).all() and (result.shots <= high).all() and high[7] - low[7] > 0.1
    np.testing.assert_allclose(result.task_params, ENV.test_tasks)
    assert result.references["no_adaptation"] == [0] * 8
    assert result.references["oracle"] == pytest.approx([13.4] * 8, abs=0.05)
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    named = "algorithm env preset seeds env_steps split deterministic repetitions shots intervals per_task task_params"
    more = "trial_return references trial_interval gain gain_interval adaptation adaptation_interval"
    assert list(value) == ["schema", *named.split(), *more.split()]
    assert result.adaptation == pytest.approx(result.shots[-1])  # without adaptation there is nothing
    low, high = result.trial_interval
    assert low < result.trial_return < high
    gain = expected[:, 7] - expected[:, 0]
    assert result.gain == pytest.approx(gain.mean(), abs=1e-4)
    assert gain.min() <= result.gain_interval[0] < result.gain < result.gain_interval[1] <= gain.max()
    assert (value["schema"], value["seeds"], value["env_steps"], value["split"]) == (1, [0], 1000, "test")
    assert (value["deterministic"], value["repetitions"], value["preset"]) == (True, 2, "fast")
    assert set(value["references"]) == {"random", "still", "oracle", "no_adaptation"}


def test_several_seeds_are_pooled():
    result = meta.evaluate(TwoSeeds(), episodes=8, repetitions=2)
    tasks = ENV.test_tasks
    by_seed = np.array([[stepped(tasks, k, params) for k in range(8)] for params in (1.0, 2.0)])  # [S, K, N]
    np.testing.assert_allclose(result.per_task, by_seed.mean(axis=0).T, atol=1e-4)
    assert result.seeds == [3, 5] and result.env_steps == 203
    np.testing.assert_allclose(result.to_json()["per_seed"], np.moveaxis(by_seed, 1, 2), atol=1e-4)
    expected = stats.interval(np.moveaxis(by_seed, 1, 2), np.random.default_rng(0))  # draws seeds and tasks
    np.testing.assert_allclose(np.transpose(result.intervals), expected, atol=1e-4)
    assert meta.evaluate(TwoSeeds(), episodes=8, repetitions=2, checkpoint=100).env_steps == 100


def test_seeds_at_different_checkpoints_are_told():
    assert "seeds stand at 203 to 205 env steps" in meta.evaluate(TwoSeeds(), episodes=1, repetitions=1).table()
    assert "100 env steps;" in meta.evaluate(TwoSeeds(), episodes=1, repetitions=1, checkpoint=100).table()


def test_intervals_where_there_is_little_to_draw_from():
    returns = np.random.default_rng(0).normal(size=(1, 4, 1, 2))  # [S, R, N, K]
    alone = summary(returns, success=returns > 0)
    assert alone["intervals"] == alone["success_intervals"] == [None, None] and alone["trial_interval"] is None
    text = result_of(2, **alone, task_params=[[0.0]]).table()
    assert "nan" not in text and "one task and one seed: no interval" in text
    # two directions are all the tasks that there are: their difference does not make the mean of them unsure
    apart = np.array([0.0, 100.0])[None, None, :, None] + np.random.default_rng(1).normal(size=(5, 1, 2, 1))
    (low, high), (least, most) = (summary(apart, all_tasks=known)["intervals"][0] for known in (True, False))
    assert high - low < 3 and most - least > 50


def test_the_same_agent_evaluates_to_the_same_numbers():
    algorithm = pearl(exploration_episodes=1)
    held = agent(algorithm=algorithm, params=params_of(algorithm))
    first, second = (meta.evaluate(held, episodes=8, repetitions=2) for _ in range(2))
    assert first.to_json() == second.to_json()
    meta._compiled.clear_cache()
    keys = (meta.evaluation_key(0), meta.evaluation_key(1))
    run = [meta.meta_test(ENV, algorithm, held.params, ENV.test_tasks, k, episodes=8, repetitions=2) for k in keys]
    np.testing.assert_array_equal(run[0].returns.astype(np.float64).mean(axis=0), np.array(first.per_task))
    assert (run[0].beliefs["z"] != run[1].beliefs["z"]).any()


def test_defaults_are_the_familys_protocol(monkeypatch):
    calls = []

    def record(env, algorithm, params, tasks, key, *, episodes, repetitions, **flags):
        calls.append((episodes, repetitions, len(tasks), flags))
        return SimpleNamespace(returns=np.zeros((repetitions, len(tasks), episodes)), success=None)

    monkeypatch.setattr(meta, "meta_test", record)
    result = meta.evaluate(agent(), split="train", explore=True)
    assert calls[-1] == (20, 10, 80, {"explore": True, "reset_memory": False})  # the agent
    assert calls[0] == (20, 10, 80, {"explore": True, "reset_memory": True})  # without adaptation
    assert calls[1:-1] == [(20, 10, 80, {})] * 3  # random, still, oracle on the same tasks
    assert len(result.shots) == 20 and result.split == "train" and not result.deterministic
    calls.clear()
    assert meta.evaluate(agent(env=HostPoint())).deterministic
    assert {call[:3] for call in calls} == {(3, 2, 3)}  # host families are slower


def test_some_of_the_tasks_are_spread_over_all():
    whole = meta.evaluate(agent(), episodes=2, repetitions=1)
    assert len(whole.per_task) == 20
    some = meta.evaluate(agent(), episodes=2, repetitions=1, n_tasks=5)
    assert some.task_params == whole.task_params[::4] and "5 test tasks" in some.table()
    np.testing.assert_allclose(some.per_task, whole.per_task[::4], atol=1e-5)  # Stepper does the same in every trial
    three = meta.evaluate(agent(), episodes=2, repetitions=1, n_tasks=3)
    assert three.task_params == [whole.task_params[i] for i in (0, 6, 13)]
    more = meta.evaluate(agent(), episodes=2, repetitions=1, n_tasks=21)  # than there are
    assert more.to_json() == whole.to_json()


@pytest.mark.parametrize("options, message", [
    ({"n_tasks": 0}, "n_tasks must be at least 1, got 0"),
    ({"split": "validation"}, "split must be 'test' or 'train', got 'validation'"),
    ({"episodes": 0}, "episodes must be at least 1, got 0"),
    ({"repetitions": 0}, "repetitions must be at least 1, got 0"),
    ({"checkpoint": 100}, "one checkpoint already"),
])  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        meta.evaluate(agent(), **options)


def test_what_is_not_an_agent_is_refused():
    with pytest.raises(TypeError, match=r"expected an agent .* got 3"):
        meta.evaluate(3)
    with pytest.raises(UserError, match="runs/x is not a run"):
        meta.evaluate("runs/x")


def test_episodes_that_end_before_it_adapts_are_told():
    text = result_of(5).table()
    assert (
        "this agent adapts after 5 episodes: none of these 5 is adapted (--episodes)" in text
        and "of the way" not in text
    )


# --------------------------------------------------------------------------------------------------- results


def result_of(k, **changes):
    shots = [float(i) for i in range(k)]
    values = dict(
        algorithm="pearl", env="sparse-point-robot", preset="fast", seeds=[0], env_steps=50_000, split="test",
        deterministic=True, repetitions=10, shots=shots, intervals=[[s - 1, s + 1] for s in shots],
        per_task=[shots, shots], task_params=[[0.0], [1.0]], trial_return=sum(shots),
        references={"random": [0.5] * k, "still": [0.0] * k, "oracle": [20.0] * k, "no_adaptation": [1.5] * k},
        exploration_episodes=5,
    )  # fmt: skip
    return Result(**(values | changes))


def test_table_of_a_long_trial():
    text = result_of(20).table()
    lines = text.splitlines()
    assert "pearl on sparse-point-robot (fast), seed 0, 50,000 env steps; 2 test tasks x 10 trials" in lines[0]
    assert lines[1].split()[:2] == ["shot", "return"] and "no adaptation" in lines[1]
    shown = [line.split()[0] for line in lines[2:-3]]
    assert shown[:6] == list("012345") and shown[-1] == "19" and len(shown) == 12
    assert lines[-1] == "one seed on 2 tasks: the intervals are too narrow; --seeds trains more than one"
    assert lines[2 + 5].split() == ["5", "5.0", "4.0", "to", "6.0", "0.5", "0.0", "20.0", "1.5"]
    assert lines[-3].split() == ["5-19", "12.0", "0.5", "0.0", "20.0", "1.5"]
    assert lines[-2] == "shots 5-19: 60% of the way from standing still to the oracle"
    assert len({len(line) for line in lines[1:-2]}) == 1  # columns line up


def test_digits_follow_what_agents_can_have_not_what_random_actions_lose():
    references = {"random": [-97.25] * 3, "still": None, "oracle": [0.789] * 3, "no_adaptation": [0.25] * 3}
    changes = dict(shots=[0.1, 0.567, 0.601], references=references, exploration_episodes=1)
    lines = result_of(3, **changes).table().splitlines()
    assert lines[3].split() == ["1", "0.567", "0.000", "to", "2.000", "-97.250", "0.789", "0.250"]
    assert lines[5].split() == ["1-2", "0.584", "-97.250", "0.789", "0.250"]


def test_table_without_an_oracle_and_of_three_shots():
    references = {"random": [-3.0] * 3, "still": None, "oracle": None, "no_adaptation": [-1.0] * 3}
    lines = result_of(3, references=references, exploration_episodes=2, seeds=[0, 1]).table().splitlines()
    assert "seeds 0 1" in lines[0] and "oracle" not in lines[1] and "still" not in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]


def test_what_adapting_is_worth_is_told_task_by_task():
    """Tasks that differ by hundreds, and each gains 3 to 5."""
    first, rng = np.arange(0.0, 2000, 100), np.random.default_rng(0)
    returns = np.stack([first, first + rng.uniform(3, 5, 20)], axis=-1)[None, None]
    found = summary(returns)
    (_, high), (low, _) = found["intervals"]
    assert low < high, "the shots' own intervals cannot tell"
    assert 3.5 < found["gain_interval"][0] < found["gain"] < found["gain_interval"][1] < 4.5
    unadapted = np.stack([first, first + 1], axis=-1)[None, None]
    found |= summary(returns, unadapted=unadapted)
    assert 2.5 < found["adaptation_interval"][0] < found["adaptation"] < found["adaptation_interval"][1] < 3.5
    changes = {**found, "exploration_episodes": 1}
    assert (
        "task by task: shot 1 less shot 0 +4.0 (3.7 to 4.3), less no adaptation +3.0 (2.7 to 3.3)"
        in result_of(2, **changes).table()
    )
    assert "task by task" not in result_of(2, **changes | {"exploration_episodes": 2}).table()
    assert "gain" not in summary(returns[..., :1])


def test_shown_shots_hold_first_and_last():
    for k in range(1, 60):
        shown = shown_shots(k)
        assert shown == sorted(set(shown)) and shown[0] == 0 and shown[-1] == k - 1 and len(shown) <= 12


def test_save_is_the_json(tmp_path):
    result_of(4).save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == result_of(4).to_json()


def test_evaluation_files_come_back(tmp_path):
    shots = meta.meta_test(ENV, Stepper(ENV.spec), 1.0, ENV.test_tasks, KEY, episodes=2)
    np.savez_compressed(tmp_path / "5000.npz", **meta.evaluation_arrays(shots, ENV.test_tasks))
    arrays = meta.load_evaluation(tmp_path / "5000.npz")
    assert set(arrays) == {"returns", "lengths", "env_steps", "tasks/0", "beliefs/count", "info/x", "info/y"}
    np.testing.assert_array_equal(arrays["returns"], shots.returns)
    np.testing.assert_array_equal(arrays["tasks/0"], ENV.test_tasks)
    assert arrays["env_steps"] == 20 * 2 * 20
    named = meta.evaluation_arrays(shots, {"goal": ENV.test_tasks, "wind": np.zeros(20)})
    assert {"tasks/goal", "tasks/wind"} < set(named)
    assert np.shape(meta.task_params({"goal": ENV.test_tasks, "wind": np.zeros(20)})) == (20, 3)


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no evaluation .*missing\.npz"):
        meta.load_evaluation(tmp_path / "missing.npz")
    shots = meta.meta_test(ENV, Stepper(ENV.spec), 1.0, ENV.test_tasks, KEY, episodes=2)
    path = tmp_path / "cut.npz"
    np.savez(path, **meta.evaluation_arrays(shots, ENV.test_tasks))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.npz is damaged"):
        meta.load_evaluation(path)
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz is not an evaluation of Nacre: it holds weights"):
        meta.load_evaluation(tmp_path / "other.npz")
    np.savez(tmp_path / "code.npz", returns=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="damaged or not an evaluation"):
        meta.load_evaluation(tmp_path / "code.npz")


def test_success_is_counted_per_task():
    """A task that always succeeds says nothing about the others, however soon its episodes end."""
    success = np.zeros((1, 2, 4, 3), bool)  # seeds, repetitions, tasks, shots
    success[:, :, 0] = True
    success[:, 0, 1, 2] = True
    found = summary(np.zeros((1, 2, 4, 3)), 0, success)
    assert found["success"] == pytest.approx([0.25, 0.25, 0.375])
    assert found["success_per_task"] == [[1, 1, 1], [0, 0, 0.5], [0, 0, 0], [0, 0, 0]]
    assert all(
        low <= share <= high for share, (low, high) in zip(found["success"], found["success_intervals"], strict=True)
    )
    assert "success" not in summary(np.zeros((1, 2, 4, 3)), 0)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, True])
def test_seeds_that_no_key_can_be_made_of(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        meta.evaluation_key(seed)
