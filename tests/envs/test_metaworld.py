"""Meta-World's benchmarks beside the package's own objects. Needs the extra: make test-metaworld."""

import importlib.util
import pickle
import time

import jax
import numpy as np
import pytest

import nacre
from nacre.envs.check_env import check_env
from nacre.envs.metaworld import told_if_slow
from nacre.envs.registry import make_family
from nacre.presets.pearl import META_WORLD_TASKS, preset

there = importlib.util.find_spec("metaworld") is not None
needed = pytest.mark.skipif(not there, reason="Meta-World is not installed: pip install -e '.[metaworld]'")


@pytest.fixture(scope="module")
def reach():
    return make_family("ml1/reach-v3", processes=1)


@pytest.mark.skipif(there, reason="Meta-World is installed")
@pytest.mark.parametrize("name", ["ml1/reach-v3", "ml10"])
def test_without_the_package_the_error_says_what_to_install(name):
    with pytest.raises(
        ModuleNotFoundError, match=rf"{name} needs Meta-World: pip install -e '.\[metaworld\]'.*excludes"
    ):
        make_family(name)


def vectors(tasks):
    return np.array([pickle.loads(task.data)["rand_vec"] for task in tasks])


def test_what_is_waited_for_is_told_only_if_it_is_slow(capsys):
    with told_if_slow("goals ...", seconds=60.0):
        pass
    assert capsys.readouterr().err == ""
    with told_if_slow("goals ...", seconds=0.01):
        time.sleep(0.5)
    assert capsys.readouterr().err == "goals ...\n"


@needed
def test_goals_are_the_benchmarks_and_apart(reach):
    import metaworld

    benchmark = metaworld.ML1("reach-v3", seed=0)
    np.testing.assert_array_equal(reach.train_tasks[:, 1:], vectors(benchmark.train_tasks).astype(np.float32))
    np.testing.assert_array_equal(reach.test_tasks[:, 1:], vectors(benchmark.test_tasks).astype(np.float32))
    assert reach.train_tasks.shape == reach.test_tasks.shape == (50, 7)
    assert not {task.tobytes() for task in reach.train_tasks} & {task.tobytes() for task in reach.test_tasks}
    other = make_family("ml1/reach-v3", processes=1, seed=5)
    assert not np.array_equal(other.train_tasks, reach.train_tasks)


@needed
def test_building_tasks_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_family("ml1/push-v3", processes=1).train_tasks  # noqa: B018
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@needed
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("task", ["reach-v3", "door-open-v3"])
def test_steps_are_the_packages(task, version):
    import metaworld

    env = make_family(f"ml1/{task}", processes=1, reward_version=version)
    benchmark = metaworld.ML1(task, seed=0)
    state, obs = env.reset(jax.random.key(0), env.test_tasks[:2])
    twin = benchmark.test_classes[task](reward_function_version=version)
    twin.set_task(benchmark.test_tasks[1])
    first, _ = twin.reset()
    np.testing.assert_array_equal(obs[1], first.astype(np.float32))
    assert not obs[:, 36:].any()  # the goal is hidden
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 2, 4)).astype(np.float32):
        state, out = env.step(state, action, np.ones(2, bool))
        expected, reward, _, _, info = twin.step(action[1])
        np.testing.assert_array_equal(out.obs[1], expected.astype(np.float32))
        assert out.reward[1] == np.float32(reward) and out.info["success"][1] == info["success"]
    assert not out.terminal.any()


@needed
def test_hidden_objects_read_zero_and_nothing_else_changes():
    plain, hidden = (make_family("ml1/push-v3", processes=1, hide_objects=hide) for hide in (False, True))
    states, seen = zip(*(env.reset(jax.random.key(0), env.train_tasks[:2]) for env in (plain, hidden)), strict=True)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2, 4)).astype(np.float32)
    for t in range(21):
        objects = np.r_[4:18, 22:36]
        assert np.abs(seen[0][:, 4:7]).min() > 0 and not seen[1][:, objects].any()
        np.testing.assert_array_equal(np.delete(seen[0], objects, axis=1), np.delete(seen[1], objects, axis=1))
        if t < 20:
            steps = [env.step(s, actions[t], np.ones(2, bool)) for env, s in zip((plain, hidden), states, strict=True)]
            states, out = zip(*steps, strict=True)
            np.testing.assert_array_equal(out[0].reward, out[1].reward)
            seen = [step.obs for step in out]


@needed
def test_contract(reach):
    assert check_env(reach, jax.random.key(0)) == []
    assert reach.spec.obs_size == 39 and reach.spec.action.size == 4 and reach.spec.horizon == 500
    assert not reach.spec.can_terminate and reach.spec.dt == 0.0125


@needed
def test_the_time_limit_is_a_truncation():
    env = make_family("ml1/reach-v3", processes=1, horizon=500)
    state, _ = env.reset(jax.random.key(0), env.train_tasks[:1])
    for t in range(500):
        state, out = env.step(state, np.zeros((1, 4)), np.ones(1, bool))
        assert not out.terminal[0] and out.info["truncated"][0] == (t == 499)


@needed
def test_ten_classes_to_train_on_and_five_others():
    import metaworld

    env = make_family("ml10", processes=1)
    names = list(metaworld.env_dict.ALL_V3_ENVIRONMENTS)
    train = {names[int(i)] for i in env.train_tasks[:, 0]}
    test = {names[int(i)] for i in env.test_tasks[:, 0]}
    assert len(train) == 10 and "basketball-v3" in train and "reach-v3" in train
    assert test == {"drawer-open-v3", "door-close-v3", "shelf-place-v3", "sweep-into-v3", "lever-pull-v3"}
    assert len(env.train_tasks) == 500 and len(env.test_tasks) == 250
    state, _ = env.reset(jax.random.key(0), env.test_tasks[::50])  # one of each class at once
    state, out = env.step(state, np.zeros((5, 4)), np.ones(5, bool))
    assert out.obs.shape == (5, 39) and np.isfinite(out.reward).all()


@needed
@pytest.mark.parametrize("name", META_WORLD_TASKS)
def test_pearls_preset_goes_beyond_the_first_episodes(name):
    """Which are one of 500 env steps for each of 50 goals of every class."""
    from metaworld import env_dict

    tasks = 50 * len(getattr(env_dict, f"{name.upper()}_V3")["train"])
    assert tasks == META_WORLD_TASKS[name]
    settings = preset("fast", name, None)
    assert settings["initial_steps"] == 500 and settings["env_steps"] >= tasks * 500 + 300_000


@needed
def test_goals_of_ones_own(reach):
    row = reach.train_tasks[0].copy()
    row[4:] = (0.05, 0.85, 0.2)
    env = nacre.make(reach, row)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(4, np.float32))
    assert np.isfinite(reward) and info["success"] == 0
    row[0] = 3
    with pytest.raises(ValueError, match=r"class 3 is not one of its classes: \d+ \(reach-v3\)"):
        nacre.make(reach, row).reset(seed=0)


@needed
@pytest.mark.parametrize("params, message", [
    ({"horizon": 501}, "horizon must lie between 1 and 500 env steps, got 501"),
    ({"processes": -1}, "processes must be 0 .one per core. or a positive number"),
    ({"seed": -1}, "seed must be a whole number from 0"),
    ({"hide_objects": "no"}, "hide_objects must be True or False, got 'no'"),
    ({"reward_version": "v3"}, "reward_version must be 'v2' or 'v1'"),
])  # fmt: skip
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=f"ml1/reach-v3: {message}"):
        make_family("ml1/reach-v3", **params)


@needed
def test_unknown_task_has_close_matches():
    with pytest.raises(ValueError, match=r"unknown task of Meta-World 'rech-v3'. Did you mean .*reach-v3"):
        make_family("ml1/rech-v3")


@needed
def test_a_run_reports_success(tmp_path):
    """In worker processes, through training, evaluation and resume."""
    options = {"initial_steps": 20, "prior_steps": 20, "extra_steps": 20, "tasks_per_iteration": 2, "meta_batch": 2,
               "updates_per_iteration": 20, "updates_per_slice": 10, "batch_size": 8, "context_batch": 9}  # fmt: skip
    agent = nacre.train(
        "pearl", "ml1/reach-v3", env_params={"horizon": 20, "processes": 2}, env_steps=1080, out=tmp_path / "run",
        **options,
    )  # fmt: skip
    result = nacre.evaluate(agent, repetitions=1)
    assert len(result.success) == 3 and all(0 <= share <= 1 for share in result.success)
    assert "success" in result.table() and "success" in result.to_json()
    assert len(result.success_per_task) == 50


@needed
def test_the_packages_own_evaluation(tmp_path):
    """An agent that cannot know anything yet, through the package's protocol."""
    from nacre.metaworld_evaluation import official_evaluation

    small = {"initial_steps": 500, "prior_steps": 500, "extra_steps": 0, "tasks_per_iteration": 1, "meta_batch": 2,
             "updates_per_iteration": 10, "updates_per_slice": 10, "batch_size": 8, "context_batch": 9}  # fmt: skip
    agent = nacre.train(
        "pearl", "ml1/reach-v3", env_params={"processes": 2, "hide_objects": True}, env_steps=25_500, eval_repetitions=1,
        eval_episodes=1, eval_every=100_000, out=tmp_path / "run", **small,
    )  # fmt: skip
    found = official_evaluation(agent, meta_batch_size=2, num_evals=1, adaptation_episodes=2, evaluation_episodes=1)
    assert set(found.per_class) == {"reach-v3"} and found.success in (0.0, 1.0)
    assert 0 < found.mean_return < 5000


def test_the_packages_evaluation_is_for_its_agents():
    from nacre.metaworld_evaluation import official_evaluation

    class Agent:
        env = make_family("point-robot")

    with pytest.raises(ValueError, match="for agents of ml1/<task>, ml10, ml25 or ml45, got one of point-robot"):
        official_evaluation(Agent())
