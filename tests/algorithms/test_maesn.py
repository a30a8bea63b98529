"""MAESN piece by piece: the latent's step by hand, meta-gradients against finite differences, what is held and what is drawn."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from nacre import rollout
from nacre.algorithms.maesn import MAESN, Config, Latent
from nacre.envs.point_robot import SparsePointRobot
from nacre.updates import adapting, outer
from nacre.updates.trials import draw_training_tasks

KEY = jax.random.key(0)
ENV = SparsePointRobot(n_train=6, n_test=3, horizon=8, radius=1.0)
TINY = dict(hidden=(5,), episodes_per_step=4, tasks_per_iteration=3)


def maesn(**options) -> MAESN:
    return MAESN(Config(**{**TINY, **options}), ENV.spec)


@partial(jax.jit, static_argnums=0)
def experience(agent):
    """Parameters, an iteration's experience, its memories. Compiled once for all tests of the same agent."""
    c, params, chosen = agent.config, agent.params(agent.init(KEY, ENV, 0)), jnp.array([4, 0, 2])
    memory = agent.begin(params, KEY, (3, c.episodes_per_step))
    memory = memory._replace(adapted=jax.tree.map(lambda x: x[chosen], params.latents))
    tasks = jnp.asarray(ENV.train_tasks)[chosen]
    rounds, memories, _ = adapting.collect(
        ENV, agent, params, memory, tasks, KEY, train_reward=c.inner_reward == "train"
    )
    return params, agent.experience(chosen, rounds, memories), memories


def test_the_latents_step_is_reinforce_over_episodes():
    """d log N(z; m, s) / dm = (z - m) / s^2 and, to log s, ((z - m) / s)^2 - 1, times the standardised credit, mean over
    episodes; step sizes per number."""
    agent, random = maesn(), np.random.default_rng(0)
    mean, log_std, noise, credit = (
        random.normal(size=2),
        random.normal(size=2),
        random.normal(size=(4, 2)),
        random.normal(size=4),
    )
    params = agent.params(agent.init(KEY, ENV, 0))
    sizes = Latent(jnp.array([0.5, 2.0]), jnp.array([0.1, 0.3]))
    rates = eqx.tree_at(lambda r: r.each, params.rates, sizes)
    new = agent.moved(
        rates,
        0.5,
        Latent(jnp.asarray(mean), jnp.asarray(log_std)),
        jnp.asarray(mean + np.exp(log_std) * noise),
        jnp.asarray(credit),
    )
    up = (noise / np.exp(log_std) * credit[:, None]).mean(axis=0), ((noise**2 - 1.0) * credit[:, None]).mean(axis=0)
    np.testing.assert_allclose(new.mean, mean + 0.5 * np.array([0.5, 2.0]) * up[0], rtol=1e-4)
    np.testing.assert_allclose(new.log_std, log_std + 0.5 * np.array([0.1, 0.3]) * up[1], rtol=1e-4)


def test_credit_is_the_discounted_return_of_an_episode_standardised_over_the_round():
    """All episodes of this family begin in the same place, so that what a baseline takes off is the same for all."""
    agent = maesn(baseline="time")

    @jax.jit
    def play(key):
        params = agent.params(agent.init(key, ENV, 0))
        data, _ = rollout.episode(ENV, agent, params, agent.begin(params, key, (3, 4)), ENV.test_tasks, key, episodes=4)
        return data, agent.credit_of(data, data.train_reward)

    data, found = jax.device_get(play(KEY))
    returns = (np.asarray(data.train_reward) * 0.99 ** np.arange(8)).sum(axis=-1)
    expected = (returns - returns.mean(axis=1, keepdims=True)) / returns.std(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("reward", ["train", "seen"])
def test_the_memory_adapts_as_the_objective_says_it_does(reward):
    agent = maesn(inner_steps=2, inner_reward=reward)
    params, seen, memories = experience(agent)
    after = jax.jit(jax.vmap(agent.latent_after, (None, 0)))(params, seen)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), after, memories[-1].adapted)
    assert jnp.abs(memories[-1].adapted.mean - memories[0].adapted.mean).max() > 0.01


def test_meta_gradients_against_finite_differences():
    with jax.enable_x64():
        agent = maesn(inner_steps=2, kl_weight=0.3)
        double = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, tree)  # noqa: E731
        params, seen, _ = experience(agent)
        params, seen = double(params), double(jax.tree.map(lambda x: x[0], seen))
        flat, back = ravel_pytree(params)
        loss = lambda x: agent.losses(back(x), seen)[0]  # noqa: E731
        found = np.asarray(jax.jit(jax.grad(loss))(flat))
        step, loss, flat = 1e-6, jax.jit(loss), np.asarray(flat)
        expected = np.array([(loss(flat + d) - loss(flat - d)) / (2 * step) for d in step * np.eye(flat.size)])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        of = back(jnp.asarray(found))
        assert np.abs(of.rates.each.mean).min() > 0 and np.abs(of.rates.each.log_std).min() > 0, "step sizes are learnt"
        assert np.abs(of.latents.mean[4]).min() > 0 and np.abs(of.latents.log_std[4]).min() > 0
        assert not np.delete(np.asarray(of.latents.mean), 4, axis=0).any(), "other tasks' latents have no part in it"


def test_before_the_outer_step_ratios_are_one_and_only_the_latents_kl_is_added():
    agent = maesn(kl_weight=0.5)
    params, seen, _ = experience(agent)
    loss, divergence = jax.jit(jax.vmap(agent.losses, (None, 0)))(params, seen)
    mean, log_std = (np.asarray(x)[[4, 0, 2]] for x in params.latents)
    kl = 0.5 * (mean**2 + np.exp(2 * log_std) - 1 - 2 * log_std).sum(axis=-1)
    advantage = np.asarray(seen.last.advantage).mean(axis=(1, 2))
    np.testing.assert_allclose(loss, 0.5 * kl - advantage, atol=1e-4)
    np.testing.assert_allclose(divergence, 0.0, atol=1e-6)


def test_curvature_is_the_divergences_second_derivative():
    agent = maesn()
    params, seen, _ = experience(agent)
    flat, back = ravel_pytree(params)
    divergence = lambda x: outer.mean_over_tasks(lambda s: agent.losses(back(x), s), seen)[1]  # noqa: E731
    hessian = jax.jit(jax.hessian(divergence))(flat)

    @jax.jit
    def products(params, seen):
        product = outer.curvature(agent.said, params, seen)
        return jax.lax.map(lambda v: ravel_pytree(product(back(v)))[0], jnp.eye(flat.size))

    dense = products(params, seen)
    np.testing.assert_allclose(dense, hessian, atol=2e-3 * float(jnp.abs(hessian).max()))


def test_an_episode_has_one_z_and_a_new_round_has_new_ones():
    agent = maesn()
    params = agent.params(agent.init(KEY, ENV, 0))
    memory = agent.begin(params, KEY, (2, 1))
    obs, z = jnp.zeros((2, 1, 2)), []
    act = jax.jit(lambda m: agent.act(params, m, obs, KEY, True))
    mean = lambda m: act(m)[1]["said"].raw[:, 0]  # noqa: E731
    adapt = jax.jit(lambda m, data: agent.adapt(params, m, data, jax.random.key(1)))
    episode, _ = jax.jit(lambda m: rollout.episode(ENV, agent, params, m, ENV.test_tasks[:2], KEY))(memory)
    for _ in range(5):
        _, _, same = act(memory)
        np.testing.assert_array_equal(mean(memory), mean(same))
        z.append(np.asarray(memory.adapted.at(memory.noise)))
        memory = adapt(memory, episode)
    assert all((x == z[0]).all() for x in z[:4]) and memory.count[0] == 1 and memory.steps[0] == 1
    assert (z[4] != z[0]).all()
    first = agent.begin(params, KEY, (2, 1))
    assert (mean(first) != mean(first._replace(count=first.count + 1))).any(), "each episode of a round has its own z"


def test_episodes_that_earn_the_same_move_nothing():
    """Their advantages differ by rounding alone, which must not count as a standard deviation of one."""
    env = SparsePointRobot(n_train=6, n_test=3, horizon=100)
    agent = MAESN(Config(**TINY), env.spec)
    params = agent.params(jax.jit(lambda: agent.init(KEY, env, 0))())
    memory = agent.begin(params, KEY, (3, 4))
    data, _ = jax.jit(lambda m: rollout.episode(env, agent, params, m, env.test_tasks, KEY, episodes=4))(memory)
    credit_of = jax.jit(agent.credit_of)
    same = jnp.full_like(data.reward, -4.9)
    assert jnp.abs(credit_of(data, same)).max() < 0.2
    better = same.at[:, 2].add(0.5)
    np.testing.assert_allclose(credit_of(data, better)[:, 2], 3**0.5, atol=0.1)


def test_step_sizes_at_meta_test():
    """Whole for two steps, then halved each time; none after the last."""
    agent = maesn(test_steps=4)
    params = agent.params(agent.init(KEY, ENV, 0))
    memory = agent.begin(params, KEY, (2, 4))
    data, _ = jax.jit(lambda m: rollout.episode(ENV, agent, params, m, ENV.test_tasks[:2], KEY, episodes=4))(memory)
    adapt = jax.jit(agent.adapt)
    credit, moves = jax.jit(agent.credit_of)(data, data.reward), []
    step = jax.jit(
        lambda m: jax.vmap(partial(agent.moved, params.rates, 1.0))(m.adapted, m.adapted.at(m.noise), credit)
    )
    for _ in range(5):
        whole = step(memory)
        after = adapt(params, memory._replace(count=memory.count * 0), data, KEY)
        moves.append((after.adapted.mean - memory.adapted.mean) / (whole.mean - memory.adapted.mean))
        memory = after
    np.testing.assert_allclose(np.stack(moves)[:, 0], np.array([1, 1, 0.5, 0.25, 0])[:, None] * np.ones(2), atol=1e-4)
    assert agent.test_episodes == 20 and agent.test_exploration == 16


def test_without_inner_steps_latents_are_learnt_as_the_policy_is():
    """The paper's multi-task baseline; its meta-test still takes steps."""
    agent = maesn(inner_steps=0, test_steps=1)
    params, seen, _ = experience(agent)
    gradient = jax.jit(jax.grad(lambda p: outer.mean_over_tasks(lambda s: agent.losses(p, s), seen)[0]))(params)
    assert jnp.abs(gradient.latents.mean[4]).min() > 0 and not gradient.rates.each.mean.any()
    assert agent.test_episodes == 8


@pytest.mark.parametrize("kind", ["ppo", "trpo"])
def test_latents_of_tasks_that_are_not_played_stay(kind):
    agent = maesn(outer=kind)
    state = agent.init(KEY, ENV, 0)
    for i in range(3):  # Adam's moments remember earlier iterations
        key = jax.random.fold_in(KEY, i)
        chosen = set(np.asarray(draw_training_tasks(ENV, jax.random.split(key, 3)[0], 3)[0]).tolist())
        after, _ = agent.iterate(state, ENV, key, "iteration")
        moved = np.abs(np.asarray(after.params.latents.mean - state.params.latents.mean)).max(axis=1) > 0
        assert set(np.flatnonzero(moved)) == chosen and len(chosen) < 6
        state = after


def test_bad_options():
    for options, words in (
        (dict(latent_size=0), "latent_size"), (dict(episodes_per_step=1), "at least 2"), (dict(kl_weight=-1.0), "kl_weight"),
        (dict(inner_rate=0.0), "inner_rate"), (dict(test_episodes_per_step=1), "test_episodes_per_step must be at least 2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            maesn(**options)


def test_the_schedule_of_meta_test_is_not_for_meta_training():
    """What acted is what is differentiated: nothing diverges from it before the outer step."""
    agent = maesn(inner_steps=3, test_steps=1)
    params, seen, memories = experience(agent)
    divergence = jax.jit(lambda p, s: outer.mean_over_tasks(lambda one: agent.losses(p, one), s)[1])(params, seen)
    assert len(memories) == 4 and abs(divergence) < 1e-5
