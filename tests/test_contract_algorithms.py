"""What every registered algorithm promises, on a small family."""

import dataclasses
from functools import partial
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import rollout
from nacre.agent import Agent
from nacre.algorithms import registry
from nacre.envs.grid_navi import GridNavi
from nacre.envs.point_robot import PointRobot

TINY = {
    "pearl": dict(latent_size=2, hidden=(8,), encoder_hidden=(8,), meta_batch=2, batch_size=4, context_batch=6,
                  initial_steps=20, prior_steps=20, extra_steps=20, updates_per_iteration=2, updates_per_slice=2),
    "rl2": dict(width=8, tasks_per_iteration=4, updates_per_epoch=2, epochs=1),
    "varibad": dict(latent_size=2, width=8, embeddings=(3, 3, 3), hidden=(8,), policy_embeddings=(4, 4), reward_hidden=(8,),
                    belief_trials=2, belief_capacity=10, tasks_per_iteration=4, updates_per_epoch=2, epochs=1),
    "maml": dict(hidden=(8,), tasks_per_iteration=3, episodes_per_step=2),
    "promp": dict(hidden=(8,), tasks_per_iteration=3, episodes_per_step=2, epochs=2),
    "maesn": dict(hidden=(8,), tasks_per_iteration=3, episodes_per_step=2),
    "teacher": dict(hidden=(8,), teacher_hidden=(4,), teacher_steps=10, student_steps=20, initial_steps=20, trial_updates=2,
                    updates_per_iteration=2, batch_size=4),
}  # fmt: skip
PHASES = {
    "pearl": ("initial", "train", "collect"), "rl2": ("iteration",), "varibad": ("initial", "iteration"),
    "maml": ("iteration",), "promp": ("iteration",), "maesn": ("iteration",), "teacher": ("initial", "iteration"),
}  # fmt: skip
NAMES = sorted(registry.ALGORITHMS.keys() - {"e-maml"})  # which is MAML with one more term
FAMILIES = {"continuous": PointRobot(n_train=4, n_test=3), "discrete": GridNavi()}
CASES = [(a, f) for a in NAMES for f in FAMILIES if (a, f) != ("teacher", "discrete")]  # which it refuses
KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    name, family = request.param
    env = FAMILIES[family]
    algorithm = registry.make_algorithm(name, env.spec, TINY[name])
    return env, algorithm, jax.jit(lambda: algorithm.init(KEY, env, 1000))()


def some_tasks(env, n=3):
    return np.asarray(env.test_tasks)[:n]


@partial(jax.jit, static_argnums=(0, 1, 5))
def trial(env, algorithm, params, tasks, key, explore):
    """Compiled once for all tests of a case."""
    return rollout.trial(env, algorithm, params, jnp.asarray(tasks), key, episodes=3, explore=explore)[0]


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_a_slice_of_each_phase_keeps_the_states_layout(case):
    env, algorithm, state = case
    name = registry.name_of(algorithm)
    assert algorithm.phase(state, env) in PHASES[name]
    for phase in PHASES[name]:
        out, metrics = jax.eval_shape(lambda s, k, p=phase: algorithm.iterate(s, env, k, p), state, KEY)
        before, after = jax.tree.leaves(jax.eval_shape(lambda: state)), jax.tree.leaves(out)
        assert [(x.shape, x.dtype, x.weak_type) for x in before] == [(x.shape, x.dtype, x.weak_type) for x in after]
        assert all(value.shape == () for value in metrics.values())
        assert set(metrics) <= set(algorithm.metrics_help), "every metric is explained"


def test_acting_does_not_depend_on_the_other_tasks_in_the_batch(case):
    env, algorithm, state = case

    @jax.jit
    def acts(params):
        memory, obs = algorithm.begin(params, KEY, (3, 2)), jax.random.normal(KEY, (3, 2, env.spec.obs_size))
        first = jax.tree.map(lambda x: x[:1], memory)
        whole, _, _ = algorithm.act(params, memory, obs, KEY, False)
        return whole, algorithm.act(params, first, obs[:1], KEY, False)[0]

    whole, alone = map(np.asarray, acts(algorithm.params(state)))
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-5, atol=1e-6)


def test_rows_that_are_over_leave_the_memory_alone(case):
    env, algorithm, state = case

    @jax.jit
    def memories(params):
        tasks, start = jnp.asarray(some_tasks(env)), algorithm.begin(params, KEY, (3, 1))
        data, memory = rollout.episode(env, algorithm, params, start, tasks, KEY)
        t = jax.tree.map(lambda x: x[:, :, 0], data)
        over = rollout._transition(t._replace(valid=jnp.zeros_like(t.valid)), False)
        empty = jax.tree.map(jnp.zeros_like, data)  # no valid step: adapting teaches nothing about the task
        beliefs = [algorithm.beliefs(params, m) for m in (memory, algorithm.adapt(params, memory, empty, KEY))]
        return memory, algorithm.observe(params, memory, over), *beliefs

    memory, after, known, still = memories(algorithm.params(state))
    for a, b in zip(leaves(memory), leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in known.keys() - {"z"}:  # what an agent draws anew is no belief
        np.testing.assert_allclose(still[name], known[name], atol=1e-6)


def test_same_key_same_trial_and_exploration_differs(case):
    env, algorithm, state = case
    run = partial(trial, env, algorithm, algorithm.params(state), some_tasks(env), KEY)
    a, b = run(True), run(True)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(leaves(a.action), leaves(run(False).action), strict=True))
    assert a.obs.shape == (3, 3, 1, env.spec.horizon, env.spec.obs_size)


def test_tasks_change_the_memory_only_through_experience(case):
    """The first action of a trial is the same whatever the task, and all of the first episode's where agents do not learn
    within it."""
    env, algorithm, state = case
    tasks = some_tasks(env)
    first = lambda tasks: np.asarray(trial(env, algorithm, algorithm.params(state), tasks, KEY, False).action)[0]  # noqa: E731
    same = slice(None) if not getattr(algorithm, "observes", True) else 0
    np.testing.assert_array_equal(first(tasks)[:, :, same], first(tasks[::-1])[:, :, same])


def live(policy, env, episodes=1):
    """Actions and beliefs of short episodes on made-up observations."""
    rng, acts = np.random.default_rng(policy.episode), []
    for _ in range(episodes):
        for step in range(4):
            obs, after = np.eye(env.spec.obs_size, dtype=np.float32)[rng.integers(env.spec.obs_size, size=2)]
            acts.append(policy.act(obs))
            policy.observe(rng.normal(), after, truncated=step == 3)
        policy.end_episode()
    return [*acts, *policy.beliefs.values()]


def test_a_saved_policy_goes_on_as_it_would_have(case, tmp_path):
    env, algorithm, state = case
    agent = Agent(algorithm, algorithm.params(state), env, registry.name_of(algorithm), env.spec.name)
    policy, cold = agent.start(seed=3, explore=True), agent.start(seed=3, explore=True)
    policy.warm_up()
    for a, b in zip(live(policy, env, 2), live(cold, env, 2), strict=True):  # warm or cold, the same
        np.testing.assert_array_equal(a, b)
    policy.save(tmp_path / "memory")
    other = agent.restore(tmp_path / "memory")
    assert other.episode == 2 and [p.name for p in tmp_path.iterdir()] == ["memory"]
    for a, b in zip(live(policy, env, 2), live(other, env, 2), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_settings_made_by_hand_are_checked_against_their_annotations(name):
    config = registry.config_class(name)
    choices = {field.name: field.type for field in dataclasses.fields(config) if get_origin(field.type) is Literal}
    for setting, hint in choices.items():
        expected = " or ".join(map(repr, get_args(hint)))
        with pytest.raises(ValueError, match=f"^{setting} must be {expected}, got 'none of these'$"):
            config(**{setting: "none of these"})
    with pytest.raises(ValueError, match=r"^discount must be a number, got '0.9'$"):
        config(discount="0.9")
    with pytest.raises(ValueError, match=r"must be a tuple, each entry a whole number, got \[8\]$"):
        config(**{"channels" if name == "rl2" else "hidden": [8]})
    assert config(discount=np.float32(0.5)).discount == 0.5
