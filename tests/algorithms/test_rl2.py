"""RL^2 and PPO piece by piece: sweep against acting step by step, what resets what, how far credit reaches."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ender import Ender
from nacre import nn, rollout
from nacre.algorithms.rl2 import RL2, Config
from nacre.attention import AttentionCore
from nacre.envs.bandit import Bandit
from nacre.envs.grid_navi import GridNavi
from nacre.envs.maze import Maze
from nacre.envs.point_robot import PointRobot
from nacre.envs.tabular import TabularMdp
from nacre.evaluate import Oracle
from nacre.per_action import PerActionCore
from nacre.updates import baselines, ppo
from nacre.updates.trials import learnt_from, packed, sequences

KEY = jax.random.key(0)
TINY = dict(width=8, tasks_per_iteration=6, updates_per_epoch=2, epochs=2)


FAMILIES = {"discrete": Ender(), "continuous": PointRobot(n_train=4, n_test=2)}


def make(env, **options) -> RL2:
    return RL2(Config(**{**TINY, **options}), env.spec)


@partial(jax.jit, static_argnums=(0, 1))
def trials(rl2: RL2, env):
    """Parameters with some life in them, and six trials collected with them. Compiled once for all tests of the same agent."""
    nets = jax.tree.map(lambda x: x * 3, rl2.networks(KEY))
    tasks = env.sample_tasks(KEY, 6)
    data, _ = rollout.trial(env, rl2, nets, tasks, KEY, episodes=rl2.trial_episodes, explore=True)
    return nets, data


# each one program, and not one of each of its operations
sweep = jax.jit(RL2.sweep, static_argnums=0)
targets = jax.jit(RL2.targets, static_argnums=0)
sequenced = jax.jit(sequences, static_argnums=1)


@partial(jax.jit, static_argnums=(0, 1))
def begun(rl2: RL2, env):
    return rl2.init(KEY, env, 0)


@partial(jax.jit, static_argnums=(0, 1))
def iterate(rl2: RL2, env, state, key):
    return rl2.iterate(state, env, key, "iteration")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@partial(jax.jit, static_argnums=(0, 1))
def swept(rl2: RL2, spec, nets, data):
    """What learning sees of trials, and what it makes of them: sequences, log-probabilities, values."""
    seen = sequences(data, spec)
    actions, value = rl2.sweep(nets, seen)
    return seen, actions.log_prob(seen.action), value


# ------------------------------------------------------------------------------------------------- the recurrent core


@pytest.mark.parametrize("kind", ["gru", "lstm", "per-action"])
def test_sweep_is_the_core_step_by_step(kind):
    """Its outputs, and its gradient, which is written by hand."""
    rng, x = np.random.default_rng(0), normal(2, 9, 3)
    valid, fresh = rng.random((2, 9)) < 0.7, np.zeros((2, 9), bool)
    fresh[0, 4] = fresh[1, 6] = valid[0, 4] = True
    valid[1, 6] = False
    if kind == "per-action":
        core = jax.jit(lambda: PerActionCore(5, 4, 2, key=KEY))()
        chosen = np.eye(2, dtype=np.float32)[rng.integers(0, 2, (2, 9))]
        chosen[0, 0] = 0.0
        x = np.concatenate([x[..., :1], chosen, x[..., 1:]], axis=-1)
    else:
        core = jax.jit(lambda: nn.RecurrentCore(3, 4, kind, key=KEY))()
    start = normal(*jax.eval_shape(lambda: core.begin((2,))).shape, seed=1)

    def loop(core, x, state, truncate):
        def once(state, t):
            state = jnp.where(truncate and t % truncate == 0, jax.lax.stop_gradient(state), state)
            before = jnp.where(jnp.asarray(fresh)[:, t, None], 0.0, state)
            state = jnp.where(jnp.asarray(valid)[:, t, None], core.once(x[:, t], before), state)
            return state, core.output(state)

        state, outputs = jax.lax.scan(once, state, jnp.arange(9))
        return jnp.moveaxis(outputs, 0, 1), state

    for truncate in (0, 4):

        def loss(sweep, core, rest, start, truncate=truncate):
            # which action was made is no number to differentiate by
            inputs = (
                rest if kind != "per-action" else jnp.concatenate([rest[..., :1], x[..., 1:3], rest[..., 3:]], axis=-1)
            )
            outputs, last = sweep(core, inputs, start)
            return (jnp.cos(outputs) * jnp.arange(9.0)[:, None]).sum() + (last**2).sum(), (outputs, last)

        by_sweep = lambda core, x, start, t=truncate: core(x, start, valid, fresh, t)  # noqa: E731
        by_loop = lambda core, x, start, t=truncate: loop(core, x, start, t)  # noqa: E731
        both = (
            jax.jit(jax.grad(partial(loss, f), (0, 1, 2), has_aux=True))(core, x, start) for f in (by_sweep, by_loop)
        )
        gradients, results = zip(*both, strict=True)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), *results)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), *gradients)


def test_gru_is_equinoxs():
    """An independent cell with the same weights."""

    @jax.jit
    def both():
        core, cell = nn.RecurrentCore(3, 4, key=KEY), eqx.nn.GRUCell(3, 4, key=KEY)
        parts = lambda c: (c.weight_ih, c.weight_hh, c.bias, c.bias_n)  # noqa: E731
        cell = eqx.tree_at(parts, cell, (core.into.T, core.again.T, core.bias, core.candidate_bias))
        x, h = normal(3), normal(4, seed=1)
        return core.once(x, h), cell(x, h)

    np.testing.assert_allclose(*both(), atol=1e-6)


def test_lstm_is_equinoxs():
    @jax.jit
    def both():
        core, cell = nn.RecurrentCore(3, 4, "lstm", key=KEY), eqx.nn.LSTMCell(3, 4, key=KEY)
        cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, (core.into.T, core.again.T, core.bias))
        x, h, c = (normal(size, seed=i) for i, size in enumerate((3, 4, 4)))
        return core.once(x, np.concatenate([h, c])), jnp.concatenate(cell(x, (h, c)))

    np.testing.assert_allclose(*both(), atol=1e-6)


def test_truncated_gradients_stop_at_multiples_of_the_length():
    core = jax.jit(lambda: nn.RecurrentCore(2, 3, key=KEY))()
    start = np.zeros((1, 3), np.float32)

    @partial(jax.jit, static_argnums=1)
    def influence(x, truncate):
        def output(x):
            out = core(x, start, truncate=truncate)[0]
            return out[0, 9].sum(), out

        return jax.grad(output, has_aux=True)(x)

    (cut, same), (whole, out) = (jax.device_get(influence(normal(1, 10, 2), t)) for t in (4, 0))
    assert not cut[0, :8].any() and cut[0, 8:].all() and whole.all()
    np.testing.assert_allclose(same, out)  # values are the same


# ------------------------------------------------------------------------------------------------------- attention


def test_attention_is_softmax_over_what_was_seen_and_nothing():
    """One layer, one head, worked out by a loop."""
    core = jax.jit(lambda: AttentionCore(2, 4, 1, 1, 9, key=KEY))()
    x, layer, out = normal(1, 5, 2), core.layers[0], []
    valid = np.asarray([[True, False, True, True, True]])
    h, found_by_core = jax.device_get(jax.jit(lambda x: (core.embed(x[0]), core(x, valid)[0]))(x))
    level = lambda h: (h - h.mean()) / np.sqrt(h.var() + 1e-5)  # noqa: E731
    parts = [np.split(level(row) @ np.asarray(layer.query_key_value), 3) for row in h]
    for t in range(5):
        logit = {j: parts[t][0] @ parts[j][1] / 2 for j in range(t + 1) if valid[0, j] or j == t}
        whole = 1 + sum(map(np.exp, logit.values()))
        found = sum(np.exp(logit[j]) / whole * parts[j][2] for j in logit)
        row = h[t] + found @ np.asarray(layer.out)
        row = row + np.maximum(level(row) @ np.asarray(layer.up), 0) @ np.asarray(layer.down)
        out.append(level(row))
    np.testing.assert_allclose(found_by_core, np.stack(out), atol=1e-4)


def test_attention_remembers_as_many_steps_as_it_has_room_for():
    core = jax.jit(lambda: AttentionCore(2, 4, 1, 2, 3, key=KEY))()
    x, other = normal(2, 6, 2), normal(2, 6, 2, seed=1)

    @jax.jit
    def last(x):
        return jax.lax.fori_loop(0, 6, lambda t, state: core.once(x[:, t], state), core.begin((2,))).output

    before, same, changed = (
        np.asarray(last(np.concatenate(parts, axis=1)))
        for parts in ([x], [other[:, :3], x[:, 3:]], [x[:, :3], other[:, 3:4], x[:, 4:]])
    )
    np.testing.assert_allclose(same, before, atol=1e-6)
    assert np.abs(changed - before).min(axis=1).all()


# ------------------------------------------------------------------------------------------------ a memory per action


def test_actions_that_change_their_numbers_change_them_in_what_is_said():
    env, order = Bandit(arms=4, pulls=5), np.asarray([2, 0, 3, 1])
    rl2 = make(env, core="per-action", hidden=(5,))
    nets, data = trials(rl2, env)
    seen = jax.device_get(sequenced(data, env.spec))
    renamed = seen._replace(action_before=seen.action_before[..., order])
    (actions, value), (other, same) = (jax.device_get(sweep(rl2, nets, x)) for x in (seen, renamed))
    np.testing.assert_allclose(other.raw, actions.raw[..., order], atol=1e-6)
    np.testing.assert_allclose(same, value, atol=1e-6)
    assert actions.raw[:, -1].std(axis=1).max() > 1e-4  # and what was seen does make a difference


def test_what_was_learnt_about_few_actions_serves_for_many():
    few, many = (make(Bandit(arms=k, pulls=3), core="per-action", hidden=(5,)) for k in (2, 40))
    shapes = [[x.shape for x in jax.tree.leaves(jax.eval_shape(a.networks, KEY))] for a in (few, many)]
    assert shapes[0] == shapes[1]


def test_a_memory_per_action_is_refused_where_actions_cannot_be_counted():
    with pytest.raises(ValueError, match="per-action"):
        make(FAMILIES["continuous"], core="per-action")


# ------------------------------------------------------------------------------------------------------- sequences


GRU, ATTENTION = {"core": "gru", "hidden": (5,), "input_obs": True}, {"core": "attention", "input_obs": True}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, options) for family in FAMILIES for options in ({}, GRU, ATTENTION)),
        ("discrete", {"memory_reset": "episode", "input_reset": True}),
        ("discrete", {"core": "attention", "memory_reset": "episode", "heads": 2}),
        ("discrete", {"core": "per-action", "hidden": (5,)}),
        ("discrete", {"core": "per-action", "memory_reset": "episode", "input_obs": True}),
    ],
    ids=str,
)
def test_learning_sees_what_acting_saw(family, options):
    """The sweep over a trial gives the log-probabilities and values that were recorded step by step, early ends included."""
    env = FAMILIES[family]
    rl2 = make(env, **options)
    nets, data = trials(rl2, env)
    batch, log_prob, value = jax.device_get(swept(rl2, env.spec, nets, data))
    valid = batch.valid
    assert valid.all() != env.spec.can_terminate
    np.testing.assert_allclose(value[valid], batch.extras["value"][valid], atol=1e-5)
    np.testing.assert_allclose(log_prob[valid], batch.extras["log_prob"][valid], atol=1e-4)


@pytest.mark.parametrize(
    ("reset", "fed", "kept"), [("trial", True, True), ("episode", True, False), ("episode", False, False)]
)
def test_memory_lasts_as_long_as_it_should(reset, fed, kept):
    """What the first episode paid changes what is done in the second, unless episodes begin anew."""
    env = FAMILIES["discrete"]
    rl2 = make(env, memory_reset=reset, input_reset=fed, input_obs=not fed)
    nets, data = trials(rl2, env)
    only_first = np.float32(np.arange(rl2.trial_episodes) == 0).reshape(-1, 1, 1, 1)
    other = data._replace(reward=np.asarray(data.reward) + 5.0 * only_first * np.asarray(data.valid))
    (seen, _, before), (_, _, after) = (jax.device_get(swept(rl2, env.spec, nets, x)) for x in (data, other))
    second = (seen.episode == 1) & seen.valid
    changed = np.abs(before - after)[second] > 0
    # an episode of one step tells nothing, since what it paid is not fed to the next one here
    assert changed.mean() > 0.7 if kept else not changed.any()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_settings_must_be_finite(value):
    for name in ("learning_rate", "clip", "initial_std", "max_gradient"):
        with pytest.raises(ValueError, match=f"{name} must"):
            Config(**{name: value})


@partial(jax.jit, static_argnums=0)
def core_inputs(rl2: RL2, seen):
    before = seen.obs, seen.obs_before, seen.action_before, seen.reward_before, seen.over_before, seen.begun
    return rl2.inputs(*before)


def test_first_input_of_a_trial_is_zero_and_later_ones_tell_the_step_before():
    env = FAMILIES["discrete"]
    rl2 = make(env)
    _, data = trials(rl2, env)
    seen = jax.device_get(sequenced(data, env.spec))
    x, valid, action, reward, over = np.asarray(core_inputs(rl2, seen)), seen.valid, seen.action, seen.reward, seen.over
    np.testing.assert_array_equal(x[:, 0], 0.0)
    for i, t in np.argwhere(valid[:, 1:])[:40]:
        before = np.flatnonzero(valid[i, : t + 1])[-1]
        np.testing.assert_allclose(x[i, t + 1, 1:], [*np.eye(2)[action[i, before]], reward[i, before], over[i, before]])
    assert over.sum() == 6 * 3  # every episode ends once


def test_input_reset_hides_the_end_of_the_episode_before():
    env = FAMILIES["discrete"]
    rl2 = make(env, input_reset=True)
    x = np.asarray(core_inputs(rl2, sequenced(trials(rl2, env)[1], env.spec)))
    np.testing.assert_array_equal(x[:, [0, 5, 10], 1:], 0.0)
    assert not x[..., -1].any() and x[:, 1:5, 1:].any()


def test_trials_of_a_batch_do_not_leak_into_each_other():
    env = FAMILIES["continuous"]
    rl2 = make(env)
    nets, data = trials(rl2, env)
    seen = sequenced(data, env.spec)
    gradient = jax.jit(jax.grad(lambda obs: rl2.sweep(nets, seen._replace(obs=obs))[0].raw[2].sum()))(seen.obs)
    gradient = np.asarray(gradient)
    assert np.abs(gradient[2]).sum() > 0 and np.abs(np.delete(gradient, 2, axis=0)).sum() == 0


# ------------------------------------------------------------------------------------------------------ advantages


@pytest.mark.parametrize(("advantages", "free"), [("trial", 0), ("trial", 1), ("episode", 0)])
def test_advantages_are_the_brute_force_sum(advantages, free):
    env = FAMILIES["discrete"]
    rl2 = make(env, advantages=advantages, free_episodes=free, discount=0.9, gae_decay=0.8)
    _, data = trials(make(env), env)
    seen = sequenced(data, env.spec)
    found, returns = map(np.asarray, targets(rl2, seen, np.float32(4.0), 0))
    seen = jax.tree.map(np.asarray, seen)
    for i in range(6):
        steps = np.flatnonzero(seen.valid[i])
        reward = np.where(seen.episode[i] < free, 0.0, seen.reward[i])[steps] / 2.0
        value, over = seen.extras["value"][i][steps], seen.over[i][steps]
        for a in range(len(steps)):
            total, factor = 0.0, 1.0
            for b in range(a, len(steps)):
                cut = b == len(steps) - 1 or (advantages == "episode" and over[b])
                total += factor * (reward[b] + (0.0 if cut else 0.9 * value[b + 1]) - value[b])
                if cut:
                    break
                factor *= 0.9 * 0.8
            np.testing.assert_allclose(found[i, steps[a]], total, atol=1e-4)
            np.testing.assert_allclose(returns[i, steps[a]], total + value[a], atol=1e-4)


def test_generalised_advantages_with_lambda_one_are_returns_minus_values():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 3, 7)).astype(np.float32)
    last = rng.normal(size=3).astype(np.float32)
    found = ppo.advantages(jnp.asarray(reward), jnp.asarray(value), jnp.asarray(last), jnp.ones((3, 7)), 0.9, 1.0)
    powers = 0.9 ** np.arange(8)
    whole = np.concatenate([reward, last[:, None]], axis=1)
    for t in range(7):
        np.testing.assert_allclose(found[:, t], whole[:, t:] @ powers[: 8 - t] - value[:, t], rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------- PPO


def test_first_gradient_is_the_policy_gradient_of_one_state():
    """Softmax over three actions, ratio 1: d loss / d logit_j = -mean_i A_i (1[a_i = j] - pi_j)."""
    logits, action = np.float32([0.1, 0.7, -0.3]), np.asarray([0, 1, 1, 2])
    advantage, pi = np.float32([1.0, -2.0, 0.5, 3.0]), np.exp(logits) / np.exp(logits).sum()
    old, rest = np.log(pi)[action], (jnp.zeros(4), jnp.zeros(4))

    def loss(logits):
        log_prob = jax.nn.log_softmax(logits)[action]
        return ppo.Objective().loss(log_prob, *rest, old, jnp.zeros(4), advantage, jnp.zeros(4), jnp.ones(4))[0]

    expected = -np.mean(advantage[:, None] * (np.eye(3)[action] - pi), axis=0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(logits), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"), [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, -1.0, False), (0.5, 1.0, True)]
)
def test_a_ratio_beyond_the_clip_gives_no_gradient_where_it_would_go_on(ratio, advantage, moves):
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)

    def loss(log_ratio):
        return ppo.Objective(clip=0.2).loss(log_ratio, zero, zero, zero, zero, advantage * one, zero, one)[0]

    gradient = jax.jit(jax.grad(loss))(np.log(ratio * one))
    np.testing.assert_allclose(gradient, -ratio * advantage if moves else 0.0, rtol=1e-5)


def test_what_does_not_count_changes_nothing():
    env = FAMILIES["discrete"]
    rl2 = make(env)
    nets, data = trials(rl2, env)
    seen = sequenced(data, env.spec)
    seen, (found, returns) = jax.device_get((seen, targets(rl2, seen, np.float32(1.0), 0)))
    noise = lambda x: np.where(seen.valid, x, np.float32(99.0))  # noqa: E731
    other = seen._replace(extras=jax.tree.map(noise, seen.extras)), noise(found), noise(returns)
    objective = jax.jit(rl2.objective)
    np.testing.assert_allclose(objective(nets, (seen, found, returns))[0], objective(nets, other)[0], rtol=1e-6)


# --------------------------------------------------------------------------------------------------------- schedule


def test_an_iteration_counts_and_moves_everything():
    env = FAMILIES["continuous"]
    rl2 = make(env)
    state = begun(rl2, env)
    after, metrics = iterate(rl2, env, state, KEY)
    assert int(after.env_steps) == 6 * 3 * 20 == rl2.minimum_env_steps(env) and int(after.updates) == 4
    assert all(np.isfinite(float(x)) for x in metrics.values()) and set(metrics) <= set(rl2.metrics_help)
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.nets, after.nets)
    assert all(jax.tree.leaves(moved)) and float(after.scale) != 1.0


def test_learning_rate_falls_over_env_steps():
    """By what was seen, which is little where episodes end early: at the end of the fall a step is a twentieth of the first."""
    env = FAMILIES["discrete"]
    rl2 = make(env, decay_env_steps=1000, epochs=1, updates_per_epoch=1)
    learn = jax.jit(lambda state: rl2.iterate(state, env, KEY, "iteration")[0])
    state = rl2.init(KEY, env, 0)
    steps = []
    for seen in (0, 500, 1000, 9000):
        after = learn(dataclasses.replace(state, env_steps=jnp.asarray(seen, jnp.int32)))
        steps.append(float(np.abs(np.asarray(after.nets.policy.weights[0]) - state.nets.policy.weights[0]).max()))
    np.testing.assert_allclose(np.divide(steps, steps[0]), [1.0, 0.525, 0.05, 0.05], rtol=1e-2)


def test_fixed_tasks_come_from_the_training_set():
    env = Bandit(arms=2, pulls=3, n_train=1)
    rl2 = make(env, tasks="fixed")
    assert np.isfinite(float(iterate(rl2, env, begun(rl2, env), KEY)[1]["collect/return"]))


@pytest.mark.training
def test_it_learns_the_bandit():
    """Pulls an arm that paid again: more than a policy without memory can get (half)."""
    env = Bandit(arms=2, pulls=10)
    options = dict(
        core="gru", width=16, epochs=4, updates_per_epoch=4, learning_rate=1e-2, gae_decay=0.3, max_gradient=0.5
    )
    rl2 = make(env, tasks_per_iteration=256, **options)
    state, late = begun(rl2, env), []
    for i in range(60):
        state, metrics = iterate(rl2, env, state, jax.random.fold_in(KEY, i))
        late.append([float(metrics["collect/return"]), float(metrics["collect/return_last"])])
    whole, last = np.mean(late[-20:], axis=0)  # of 5000 trials
    assert whole > 0.575 and last > 0.6


@pytest.mark.parametrize("bad", [
    {"width": 0}, {"epochs": 0}, {"clip": 0.0}, {"discount": 1.5}, {"hidden": (0,)}, {"updates_per_epoch": 4},
    {"episodes": 2, "free_episodes": 2}, {"free_episodes": 1, "advantages": "episode"}, {"core": "rnn"},
])  # fmt: skip
def test_bad_values_are_refused_by_name(bad):
    from nacre.algorithms.registry import make_config

    with pytest.raises(ValueError, match=next(iter(bad)) if len(bad) == 1 else "free_episodes"):
        make_config(Config, {**TINY, **bad})


def test_a_trial_that_is_all_free_is_refused():
    with pytest.raises(ValueError, match="nothing would be learnt"):
        make(FAMILIES["discrete"], free_episodes=3)


@pytest.mark.parametrize(
    "env", [Bandit(pulls=4), TabularMdp(episodes=2), GridNavi(), Maze(size=3)], ids=lambda env: env.spec.name
)
def test_regret_is_what_the_oracle_has_more(env):
    tasks = jax.jit(lambda: env.sample_tasks(KEY, 4000))()
    anything = rollout.Scripted(lambda m, obs, k: rollout.uniform_action(env.spec, k, obs.shape[:2]), env.spec)
    oracle, n = Oracle(env), env.spec.trial_episodes

    @jax.jit
    def play(tasks):
        data, _ = rollout.trial(env, anything, (), tasks, KEY, episodes=n)
        best, _ = rollout.trial(env, oracle, (), tasks, KEY, episodes=n, memory=oracle.start(tasks))
        return data, best, env.regret(tasks, data) * data.valid, env.regret(tasks, best) * best.valid

    data, best, regret, none = jax.device_get(play(tasks))
    assert regret.shape == data.reward.shape and regret.min() > -1e-5 and regret.max() > 0.05
    np.testing.assert_allclose(none, 0.0, atol=1e-5)
    mean = lambda x: float(x.sum(axis=(0, 2, 3)).mean())  # noqa: E731
    np.testing.assert_allclose(mean(data.reward) + mean(regret), mean(best.reward), rtol=0.01)


def test_learning_from_regrets_changes_what_is_learnt_and_not_what_is_seen():
    env = Bandit(pulls=3)
    tasks = jax.jit(lambda: env.sample_tasks(KEY, 6))()
    _, data = trials(make(env), env)
    both = jax.jit(lambda tasks, data: (learnt_from(env, "regret", tasks, data), env.regret(tasks, data)))
    learnt, regret = jax.device_get(both(tasks, data))
    np.testing.assert_allclose(learnt.train_reward, -regret)
    np.testing.assert_array_equal(learnt.reward, data.reward)
    assert learnt_from(env, "reward", tasks, data) is data
    with pytest.raises(ValueError, match=r"learn_from=regret: point-robot .* use learn_from=reward"):
        make(FAMILIES["continuous"], learn_from="regret").check_family(FAMILIES["continuous"])


def test_discount_rises_as_its_horizon_grows_geometrically():
    at = lambda now: float(ppo.rising(0.5, 0.98, 100, jnp.asarray(now)))  # noqa: E731
    np.testing.assert_allclose([at(0), at(50), at(100), at(1000)], [0.5, 0.9, 0.98, 0.98], atol=1e-6)
    assert ppo.rising(0.0, 0.98, 0, 5) == 0.98
    with pytest.raises(ValueError, match=r"first_discount, in .* go together, got 0.5 and 0"):
        Config(first_discount=0.5)


def test_images_go_through_convolutions_and_only_there():
    """Looked at once in learning and twice in acting, in rows of their own or together: the core sees the same."""
    env = Maze(size=3, view=1, observations="image", episodes=2)
    options = dict(channels=(4, 5), image_features=6, input_obs=True)
    rl2, together = make(env, **options), make(env, pack_rows=4, **options)

    @jax.jit
    def found(key):
        nets = jax.tree.map(lambda x: x * 3 + 0.1, rl2.networks(key))  # with biases, nothing does not look like zeros
        data, _ = rollout.trial(env, rl2, nets, env.sample_tasks(key, 6), key, episodes=2, explore=True)
        batch = sequences(data, env.spec)
        cut = jnp.arange(batch.valid.shape[1]) < jnp.asarray([72, 30, 40, 72, 60, 12])[:, None]
        batch = batch._replace(valid=batch.valid & cut)
        rows, valid, held = packed((batch,), batch.valid, 4)
        rows = rows[0]._replace(valid=valid)
        slope = jax.grad(lambda n: (jnp.square(rl2.sweep(n, batch)[1]) * batch.weight).sum())(nets)
        return nets, batch, rl2.sweep(nets, batch)[1], rows, together.sweep(nets, rows)[1], held, slope

    nets, batch, value, rows, packed_value, held, slope = jax.device_get(found(KEY))
    assert nets.core.into.shape[0] == 2 * 6 + 4 + 2 and nets.eyes.filters[1].shape == (3, 3, 4, 5)
    assert held == 1.0 and not batch.valid.all() and (nets.eyes(jnp.zeros(env.spec.obs_size)) > 0).any()
    np.testing.assert_allclose(value[batch.valid], batch.extras["value"][batch.valid], atol=1e-4)
    np.testing.assert_allclose(packed_value[rows.valid], rows.extras["value"][rows.valid], atol=1e-4)
    assert all(np.abs(f).max() > 0 for f in slope.eyes.filters)
    assert jax.eval_shape(make(FAMILIES["discrete"]).networks, KEY).eyes is None


def test_linear_baseline_is_ridge_regression_per_task():
    rng = np.random.default_rng(0)
    obs, returns = rng.normal(size=(2, 30, 2)).astype(np.float32), rng.normal(size=(2, 30)).astype(np.float32)
    time, weight = np.tile(np.arange(30.0) % 15, (2, 1)), (rng.random((2, 30)) < 0.8).astype(np.float32)
    found = jax.jit(baselines.linear)(obs, time, returns, weight)
    for i in range(2):
        t = time[i] / 100
        x = np.column_stack([obs[i], obs[i] ** 2, t, t**2, t**3, np.ones(30)])
        keep = weight[i] > 0
        x /= np.sqrt((x[keep] ** 2).mean(axis=0))
        system = np.vstack([x[keep], np.sqrt(1e-5 * keep.sum()) * np.eye(x.shape[1])])
        solution = np.linalg.lstsq(system, np.append(returns[i][keep], np.zeros(x.shape[1])), rcond=None)[0]
        np.testing.assert_allclose(found[i], x @ solution, atol=5e-3)


def test_linear_baseline_takes_away_what_time_and_state_explain():
    env = FAMILIES["continuous"]
    advantage = {}
    for baseline in ("learnt", "linear"):
        rl2 = make(env, baseline=baseline, advantages="episode", discount=0.9, gae_decay=1.0)
        seen = sequenced(trials(make(env), env)[1], env.spec)
        seen = seen._replace(extras={**seen.extras, "value": np.zeros(seen.reward.shape, np.float32)})
        advantage[baseline], returns = map(np.asarray, targets(rl2, seen, np.float32(1.0), 0))
    np.testing.assert_allclose(returns, advantage["learnt"], atol=1e-4)  # what is left is the return's
    assert advantage["linear"].std() < 0.3 * returns.std() and abs(advantage["linear"].mean()) < 0.01


def test_linear_baseline_sees_what_the_policy_sees():
    """Rewards that the action and reward before tell are no surprise."""
    env = FAMILIES["discrete"]
    rl2 = make(env, baseline="linear", discount=1e-6)
    _, data = trials(make(env), env)
    seen = sequenced(data, env.spec)
    seen = seen._replace(train_reward=(seen.action_before[..., 0] + 2.0 * seen.reward_before) * seen.weight)
    found, _ = targets(rl2, seen, np.float32(1.0), 0)
    assert np.abs(found * seen.weight).max() < 0.02 < np.abs(seen.train_reward).max()


def test_linear_baseline_of_many_things_that_stand_still():
    """Of 120 numbers that never change float32 finds no solution for some tasks; they take a larger ridge, the others do not."""
    rng, tasks, n = np.random.default_rng(0), 6, 400
    still = np.repeat(rng.normal(size=(tasks, 1, 120)), n, axis=1)
    obs = np.concatenate([still, rng.normal(size=(tasks, n, 3))], axis=2).astype(np.float32)
    time = np.tile(np.arange(100.0, dtype=np.float32), (tasks, n // 100))
    returns = -500.0 * (1.0 - 0.99 ** (100.0 - time))
    found = np.asarray(jax.jit(baselines.linear)(obs, time, returns, np.ones_like(time)))
    assert np.abs(found - returns).max() < 1.0  # of 317; NaN once


@pytest.mark.parametrize("what", ["one-hot", "constant", "beyond the clip", "zero"])
def test_linear_baseline_where_features_coincide(what):
    """As a float64 solution has it: there is one, and it is finite."""
    rng, n = np.random.default_rng(0), 400
    obs = {"one-hot": np.eye(8)[rng.integers(0, 8, n)], "constant": np.ones((n, 1)), "zero": np.zeros((n, 3)),
           "beyond the clip": 20.0 + rng.normal(size=(n, 3))}[what]  # fmt: skip
    time, returns = np.tile(np.arange(100.0), n // 100), rng.normal(size=n)
    found = jax.jit(baselines.linear)(*(np.float32(x)[None] for x in (obs, time, returns, np.ones(n))))[0]
    obs, t = np.clip(obs, -10.0, 10.0), time / 100
    x = np.column_stack([obs, obs**2, t, t**2, t**3, np.ones(n)])
    exact = x @ np.linalg.lstsq(x, returns, rcond=None)[0]
    np.testing.assert_allclose(found, exact, atol=0.02)
