"""PEARL piece by piece: the list of the reference (posterior, gradient routing, schedule), each option, and the checks."""

import dataclasses
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from nacre import distributions, replay, rollout
from nacre.algorithms import pearl as module
from nacre.algorithms.pearl import PEARL, Config
from nacre.distributions import Gaussian
from nacre.envs.grid_navi import GridNavi
from nacre.envs.point_robot import SparsePointRobot
from nacre.envs.registry import make_family
from nacre.types import exploration_episodes, take_tasks
from nacre.updates import sac

TINY = dict(
    latent_size=3, hidden=(8,), encoder_hidden=(8,), meta_batch=4, batch_size=6, context_batch=10, initial_steps=20,
    tasks_per_iteration=3, prior_steps=20, extra_steps=40, updates_per_iteration=4, updates_per_slice=2,
    target_rate=0.25,
)  # fmt: skip
ENV = SparsePointRobot(n_train=6, n_test=2)
KEY = jax.random.key(0)


def make(env=ENV, **options) -> PEARL:
    return PEARL(Config(**{**TINY, **options}), env.spec)


# Each is one program, as the training loop runs it, and compiled once for all tests of the same agent.
@partial(jax.jit, static_argnums=(0, 1, 4))
def run(pearl: PEARL, env, state, key, phase):
    """One slice."""
    return pearl.iterate(state, env, key, phase)


# Agents that differ in other options have the same networks.
SHAPES = (
    """latent_size latent encoder factors critic critic_norm context_next_obs temperature prior normalise_obs""".split()
)


def shape_of(pearl: PEARL) -> PEARL:
    return PEARL(Config(**{**TINY, **{name: getattr(pearl.config, name) for name in SHAPES}}), pearl.spec)


@partial(jax.jit, static_argnums=(0, 1))
def _begun(pearl, env):
    return pearl.init(KEY, env, 5000)


def begun(pearl: PEARL, env=ENV):
    return _begun(shape_of(pearl), env)


def networks(pearl: PEARL, env=ENV):
    return begun(pearl, env).nets


def collected(pearl: PEARL, env=ENV):
    """A state after its initial collection (one slice for these small families)."""
    return run(pearl, env, begun(pearl, env), KEY, "initial")[0]


@cache
def default_data():
    state = collected(make(posterior_steps=40))
    return {name: getattr(state, name) for name in ("replay", "env_steps", "collections")}


def filled(pearl: PEARL):
    """A fresh agent with the initial data of the default one: so all need but one program that collects."""
    return dataclasses.replace(begun(pearl), **default_data())


def update_once(pearl: PEARL, state, nets=None):
    return _update_once(pearl, state.nets if nets is None else nets, state.replay)


@partial(jax.jit, static_argnums=0)
def _update_once(pearl, nets, store):
    return pearl.update(nets, pearl.optimisers(nets), *pearl.sample(store, jax.random.key(3)))


@partial(jax.jit, static_argnums=0)
def batch_of(pearl, store):
    return pearl.sample(store, jax.random.key(3))


@partial(jax.jit, static_argnums=0)
def many_contexts(pearl, store, keys):
    return jax.vmap(lambda key: pearl.sample(store, key)[1])(keys)


@partial(jax.jit, static_argnums=0)
def infer(pearl, encoder, *context):
    return pearl.belief.infer(encoder, *context)


def context(n=2, m=5, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, m, 5)).astype(np.float32)
    return x, np.ones((n, m), bool)


def change(a, b) -> float:
    """Sum of the absolute differences of two pytrees."""
    return sum(float(np.abs(np.asarray(x) - y).sum()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def norm(tree) -> float:
    return sum(float(np.abs(x).sum()) for x in jax.tree.leaves(tree))


# ----------------------------------------------------------------------------------------------------- inference


KINDS = [
    {}, {"factors": "precision"}, {"factors": "matrix"}, {"latent": "deterministic"},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS)
def test_posterior_ignores_the_order_of_the_context(options):
    pearl = make(**options)
    encoder = networks(pearl).encoder
    x, valid = context()
    forward, backward = infer(pearl, encoder, x, valid), infer(pearl, encoder, x[:, ::-1], valid)
    np.testing.assert_allclose(forward[0], backward[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(forward[1], backward[1], rtol=1e-4)


@pytest.mark.parametrize("options", [*KINDS, {"encoder": "gru"}])
def test_evidence_piece_by_piece_equals_all_at_once_and_masked_rows_do_not_count(options):
    pearl = make(**options)
    x, valid = context(m=6)
    padded = np.concatenate([x, 100 * x], axis=1), np.concatenate([valid, ~valid], axis=1)

    @jax.jit
    def posteriors(encoder):
        blank = pearl.belief.blank((2, 1))
        first = pearl.belief.see(encoder, blank, x[:, :2], valid[:, :2])
        parts = pearl.belief.see(encoder, first, x[:, 2:], valid[:, 2:])
        ways = pearl.belief.see(encoder, blank, x, valid), parts, pearl.belief.see(encoder, blank, *padded)
        return [pearl.belief.posterior(memory) for memory in ways]

    whole, *others = posteriors(networks(pearl).encoder)
    for other in others:
        np.testing.assert_allclose(whole[0], other[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(whole[1], other[1], rtol=1e-4)


@pytest.mark.parametrize("options", KINDS)
def test_a_context_that_counts_twice_is_the_same_as_the_context_twice(options):
    pearl = make(**options)
    encoder = networks(pearl).encoder
    x, valid = context()
    twice = infer(pearl, encoder, np.concatenate([x, x], axis=1), np.concatenate([valid, valid], axis=1))
    weighted = infer(pearl, encoder, x, valid, np.full((2, 1), 2.0, np.float32))
    for a, b in zip(jax.tree.leaves(twice), jax.tree.leaves(weighted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_trial_evidence_counts_each_transition_of_a_trial_so_often():
    whole, half = make(factors="precision"), make(factors="precision", trial_evidence=0.5)

    @jax.jit
    def seen():
        params = whole.params(whole.init(KEY, ENV, 2000))
        data, _ = rollout.trial(ENV, whole, params, take_tasks(ENV.train_tasks, np.arange(2)), KEY, episodes=1)
        episodes = jax.tree.map(lambda x: x[0], data)
        return [p.adapt(params, p.begin(params, KEY, (2, 1)), episodes, KEY) for p in (whole, half)]

    a, b = seen()
    np.testing.assert_allclose(2 * np.asarray(b.precision), a.precision, rtol=1e-5)
    np.testing.assert_allclose(2 * np.asarray(b.weighted), a.weighted, rtol=1e-5)
    assert np.min(a.precision) > 0


def test_context_reach_draws_weights_up_to_it():
    pearl = make(context_reach=40)
    state = filled(pearl)
    weights = np.asarray(many_contexts(pearl, state.replay, jax.random.split(KEY, 50))[2])
    size = weights * pearl.config.context_batch
    assert 1 <= size.min() < 5 and 36 < size.max() <= 40
    new, _, _ = update_once(make(**REACH), state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


def test_recurrent_encoder_depends_on_the_order():
    pearl = make(encoder="gru")
    encoder = networks(pearl).encoder
    x, valid = context()
    a, b = infer(pearl, encoder, x, valid)[0], infer(pearl, encoder, x[:, ::-1], valid)[0]
    assert np.abs(np.asarray(a) - b).max() > 1e-7


def test_matrix_factors_are_a_linear_regression_on_what_each_transition_reads():
    """By hand: rows A z = y with unit noise over the precision of each, prior N(0, I); Bishop 2006, eq. 3.50 and 3.51."""
    pearl = make(factors="matrix", latent_size=2)
    encoder = networks(pearl).encoder
    weights = tuple(
        np.asarray(w) * (100 if i == len(encoder.net.weights) - 1 else 1) for i, w in enumerate(encoder.net.weights)
    )
    encoder = eqx.tree_at(lambda e: e.net.weights, encoder, weights)  # a fresh encoder hardly depends on its input
    x, valid = context()
    y, raw, skew = np.split(np.asarray(jax.jit(lambda x: encoder.net(x))(x), np.float64), [2, 4], axis=-1)
    rows = (skew.reshape(2, -1, 2, 2) + np.eye(2)).reshape(2, -1, 2)
    heavy = np.log1p(np.exp(raw - 3.0)).reshape(2, -1)
    assert skew.std() > 0.05
    q = jax.tree.map(np.asarray, infer(pearl, encoder, x, valid))
    for n in range(2):
        covariance = np.linalg.inv(np.eye(2) + rows[n].T @ (heavy[n, :, None] * rows[n]))
        mean = covariance @ rows[n].T @ (heavy[n] * y[n].reshape(-1))
        np.testing.assert_allclose(q.mean[n], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(q.root[n] @ q.root[n].T, covariance, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(q.variance[n], np.diag(covariance), rtol=1e-4)


def test_draws_follow_a_posterior_whose_dimensions_depend_on_each_other():
    """One direction is known, (1, 1); in the other the tasks' points stand for the prior."""
    belief = make(factors="matrix", latent_size=2).belief
    precision = np.eye(2) + 5e3 * np.ones((2, 2))
    points = np.repeat(np.linspace(-2, 2, 256, dtype=np.float32), 2).reshape(-1, 2) * np.array([1, -1], np.float32)

    @jax.jit
    def draws():
        q = distributions.from_natural_matrix(jnp.asarray(precision[None]), jnp.asarray((precision @ [1.0, 1.0])[None]))
        u = jax.random.uniform(KEY, (1, 4000, 2))
        return q.kl_to_standard_normal(), [belief.place(q, u, p)[0] for p in (None, jnp.asarray(points))]

    kl, drawn = draws()
    assert abs(float(kl[0]) - (1 + 0.5 * (np.log(10001) - 1 + 1 / 10001))) < 1e-3
    for z, std in zip(drawn, (1.0, np.sqrt(2 * 4 / 3)), strict=True):
        along, across = (np.asarray(z) @ np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)).T
        assert abs(along.mean() - np.sqrt(2)) < 0.01 and along.std() < 0.03
        assert abs(across.mean()) < 0.06 and abs(across.std() - std) < 0.05


def test_context_pieces_are_stretches_of_the_task_in_a_random_number():
    pearl = make(context_pieces=3, context_batch=12, context_source="buffer")
    state, keys = filled(pearl), jax.random.split(KEY, 30)
    every = jax.jit(jax.vmap(lambda key: pearl.context(state.replay, key, jnp.arange(6))))
    counts = []
    for seen, valid in zip(*map(np.asarray, every(keys[:20])), strict=True):
        counts.append(valid.sum(axis=1))
        obs = seen[..., :2].reshape(6, 3, 4, 2)  # a point robot moves by a tenth of its action
        moved = obs[:, :, :-1] + 0.1 * seen[..., 2:4].reshape(6, 3, 4, 2)[:, :, :-1]
        assert (np.abs(obs[:, :, 1:] - moved).max(axis=-1) < 1e-5).mean() > 0.8  # but where an episode ended in between
        assert not valid.reshape(6, 3, 4).std(axis=-1).any()  # whole stretches count, or not at all
    assert set(np.concatenate(counts)) == {4, 8, 12}
    pearl = make(context_pieces=3, context_batch=12, context_reach=40)
    _, valid, weight = map(np.asarray, many_contexts(pearl, state.replay, keys))
    sizes = weight * valid.sum(axis=2, keepdims=True)
    assert 1 <= sizes.min() < 5 and 36 < sizes.max() <= 40


def test_deterministic_latent_is_the_mean_embedding_and_its_prior_is_zero():
    pearl = make(latent="deterministic")
    x, valid = context()

    @jax.jit
    def of(encoder):
        q = pearl.belief.infer(encoder, x, valid)
        placed = pearl.belief.place(q, jnp.full((2, 1, q.mean.shape[1]), 0.8), None)[:, 0]
        return q, encoder.net(x), placed, pearl.belief.begin(KEY, (2, 4)).z

    (mean, variance, _), embedded, placed, prior = jax.tree.map(np.asarray, of(networks(pearl).encoder))
    np.testing.assert_allclose(mean, embedded.mean(axis=1), rtol=1e-4, atol=1e-7)
    assert not variance.any() and not prior.any()
    np.testing.assert_array_equal(placed, mean)


def test_evidence_that_drowns_the_prior_leaves_a_belief_and_its_gradients_finite():
    """A training run ended with this: along one direction a precision of 1e8, beside which float32 has no 1."""
    belief = make(factors="matrix", latent_size=3).belief
    along = np.array([[0.6, 0.64, 0.48]])

    def kl(size):
        memory = dataclasses.replace(
            belief.blank((1, 1)),
            precision=(size * jnp.asarray(along.T @ along)).reshape(1, -1),
            weighted=size * jnp.asarray(2.0 * along),
        )
        q = belief.posterior(memory)
        return q.kl_to_standard_normal().sum(), q

    for size in (1e2, 1e6, 1e8, 1e12):
        (value, q), slope = jax.value_and_grad(kl, has_aux=True)(size)
        assert np.isfinite([value, slope]).all()
        covariance = np.asarray(q.root[0] @ q.root[0].T)
        np.testing.assert_allclose(along @ covariance @ along.T, 1 / (1 + min(size, 1e5)), atol=1e-3)
        np.testing.assert_allclose(np.trace(covariance), 2.0, atol=0.03)  # where nothing was read the prior stays
        np.testing.assert_allclose(q.mean[0], 2.0 * along[0], atol=0.03)


@pytest.mark.parametrize("options", [{}, {"factors": "matrix"}])
def test_precision_factors_are_the_prior_where_nothing_is_known(options):
    belief = make(**{"factors": "precision"} | options).belief
    mean, variance, _ = jax.jit(lambda: belief.posterior(belief.blank((1, 1))))()
    assert np.abs(mean).max() == 0 and np.abs(np.asarray(variance) - 1).max() == 0


def test_prior_z_until_exploration_is_over_then_the_posterior():
    """The third of three episodes with exploration_episodes=2 is the first that knows, and it knows all that was seen."""
    pearl = make(exploration_episodes=2)

    @jax.jit
    def trial(params):
        data, beliefs = rollout.trial(ENV, pearl, params, jnp.asarray(ENV.test_tasks), KEY, episodes=3)
        seen = jax.tree.map(lambda x: jnp.moveaxis(x[:2, :, 0], 0, 1), data)  # [N, 2 episodes, T]
        memory = pearl.belief.see(params.encoder, pearl.belief.blank((2, 1)), *pearl.context_of(seen))
        return data.obs, beliefs, pearl.belief.posterior(memory)

    obs, beliefs, expected = jax.tree.map(np.asarray, trial(pearl.params(begun(pearl))))
    assert obs.shape == (3, 2, 1, 20, 2)
    np.testing.assert_allclose(beliefs["mean"][2], expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(beliefs["variance"][2], expected[1], rtol=1e-4)
    spread = np.abs(beliefs["z"][:2]).mean() / np.sqrt(np.asarray(beliefs["variance"][2])).mean()
    assert spread > 1.5  # 40 factors leave a narrow posterior, the prior's z are wide
    np.testing.assert_allclose(
        beliefs["z"][2, :, 0], beliefs["mean"][2], atol=6 * float(beliefs["variance"][2].max()) ** 0.5
    )


# ---------------------------------------------------------------------------------------------- gradient routing


def test_only_critic_loss_and_kl_reach_the_encoder():
    pearl = make()
    state = filled(pearl)
    nets, (batch, ctx, noises) = state.nets, batch_of(pearl, state.replay)
    stopped = jax.lax.stop_gradient

    def policy(z):
        return sac.policy_loss(nets.sac.policy, nets.sac.critics, batch.obs, stopped(z), noises["action"], 1.0, 0, 0)[0]

    def value(z):
        return sac.value_loss(nets.sac.value, batch.obs, stopped(z), jnp.zeros(24))[0]

    def critic(z):
        return sac.critic_loss(nets.sac.critics, batch, z, jnp.zeros(24), False)[0]

    @jax.jit
    def through(encoder):
        losses = policy, value, critic
        return [jax.grad(lambda e, f=f: f(pearl.belief.infer(e, *ctx).at(noises["z"])))(encoder) for f in losses]

    assert [norm(gradient) > 0 for gradient in through(nets.encoder)] == [False, False, True]


BLIND = np.array([1, 1, 1, 1, 0, 0, 0], np.float32)[:, None]  # obs, action, z


@pytest.mark.parametrize(("kl", "moves"), [(0.0, False), (0.1, True)])
def test_encoder_stands_still_without_critic_gradient_and_kl(kl, moves):
    """Critics whose z weights are zero give no gradient to z; then only the KL can move the encoder."""
    pearl = make(kl_weight=kl)
    state = filled(pearl)
    nets = state.nets
    blind = tuple(eqx.tree_at(lambda q: q.weights[0], q, np.asarray(q.weights[0]) * BLIND) for q in nets.sac.critics)
    nets = eqx.tree_at(lambda n: n.sac.critics, nets, blind)
    new, _, _ = update_once(pearl, state, nets)
    assert (change(new.encoder, nets.encoder) > 0) == moves
    assert change(new.sac.policy, nets.sac.policy) > 0


def test_no_bottleneck_is_no_kl():
    """However heavy it would be."""
    free, weightless, weighted = make(bottleneck=False, kl_weight=5.0), make(kl_weight=0.0), make()
    state = filled(free)
    a, b, c = (update_once(pearl, state)[0] for pearl in (free, weightless, weighted))
    assert change(a, b) == 0
    assert change(a.encoder, c.encoder) > 0


@pytest.mark.parametrize("critic", ["value", "twin"])
def test_target_follows_by_tau_each_step(critic):
    pearl = make(**TWIN if critic == "twin" else {})
    state = filled(pearl)
    new, _, _ = update_once(pearl, state)
    online = new.sac.value if critic == "value" else new.sac.critics
    expected = jax.tree.map(lambda t, o: 0.75 * np.asarray(t) + 0.25 * np.asarray(o), state.nets.sac.target, online)
    for a, b in zip(jax.tree.leaves(new.sac.target), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_terminal_cuts_the_bootstrap_and_reward_scale_acts_on_the_learners_reward():
    pearl = make(reward_scale=7.0, discount=0.5)
    state = filled(pearl)
    batch, ctx, _ = batch_of(make(), state.replay)

    @jax.jit
    def targets(nets):
        z = pearl.belief.infer(nets.encoder, *ctx)[0]
        ended = dataclasses.replace(batch, terminal=jnp.ones(24))
        following = nets.sac.target(batch.next_obs, z)[:, 0]
        return following, *(pearl.learner.bellman_target(nets.sac, b, z, None) for b in (ended, batch))

    following, ended, target = map(np.asarray, targets(state.nets))
    reward = np.asarray(batch.train_reward)
    np.testing.assert_allclose(ended, 7.0 * reward, rtol=1e-6)
    np.testing.assert_allclose(target, 7.0 * reward + 0.5 * following, rtol=1e-5)
    assert np.abs(reward - batch.reward).min() > 0  # dense against sparse


@pytest.mark.parametrize(("options", "sign"), [({"target_entropy": 50.0, "temperature": 0.5}, 1), ({}, -1)])
def test_learned_temperature_pushes_entropy_to_its_target(options, sign):
    """By default the target is -2 nats, less than the policy starts with."""
    pearl = make(**TWIN, **options)
    new, _, metrics = update_once(pearl, filled(pearl))
    start = pearl.config.temperature
    assert float(metrics["policy/temperature"]) == pytest.approx(start)
    assert sign * (float(new.sac.log_alpha) - np.log(start)) > 1e-5


def test_discrete_soft_value_is_the_exact_expectation():
    nets = networks(make(GridNavi(), critic="twin"), GridNavi())
    obs, z = jax.random.normal(KEY, (6, 2)), jax.random.normal(jax.random.key(1), (2, 3))
    x = np.concatenate([obs, np.repeat(z, 3, axis=0)], axis=-1)

    @jax.jit
    def of():
        value, _ = sac.soft_value(nets.sac.policy, nets.sac.critics, obs, z, None, 0.7)
        return value, jax.nn.softmax(nets.sac.policy(x)), jnp.minimum(*(critic(x) for critic in nets.sac.critics))

    value, p, q = map(np.asarray, of())
    np.testing.assert_allclose(value, (p * (q - 0.7 * np.log(p))).sum(axis=-1), rtol=1e-4)


# ------------------------------------------------------------------------------------------- schedule and options


def spied(pearl: PEARL):
    """What each gathering of one collection was asked for. All else that the program makes is left out of it."""
    calls = []

    class Spy(PEARL):
        def gather(self, state, env, key, tasks, episodes, *, recent, use=None, scripted=False):
            calls.append([episodes, recent, use])
            return super().gather(state, env, key, tasks, episodes, recent=recent, use=use, scripted=scripted)

    @jax.jit
    def uses(state):
        Spy(pearl.config, pearl.spec).collect(state, ENV, KEY)
        return [use for *_, use in calls]

    got = uses(filled(pearl))
    return [(*call[:2], None if use is None else np.asarray(use)) for call, use in zip(calls, got, strict=True)]


def test_collection_prior_first_then_a_leading_prior_episode_then_the_posterior():
    prior, extra = spied(make())
    assert prior[:2] == (1, True) and prior[2] is None
    assert extra[:2] == (2, False)  # RL data only
    assert not extra[2][:, 0].any() and extra[2][:, 1:].all()
    assert spied(make(lead_prior=False))[1][2].all()


def test_episodes_that_begin_in_a_row_after_the_leading_one_act_on_the_posterior(monkeypatch):
    env = make_family("maml/point-robot")
    monkeypatch.setattr(type(env), "near", 0.45)  # a large goal, so that many episodes end early
    pearl = PEARL(Config(**{**TINY, "latent": "deterministic", "initial_steps": 100}), env.spec)  # the prior's z is 0
    seen, original = [], module.renew

    def renew(memory, fresh, over):
        jax.debug.callback(lambda over, z: seen.append(z[over]), over, fresh.z)
        return original(memory, fresh, over)

    monkeypatch.setattr(module, "renew", renew)
    state, _ = jax.jit(lambda s: pearl.initial(s, env, KEY))(pearl.init(KEY, env, 200_000))
    jax.effects_barrier()
    seen.clear()
    use = jnp.ones((3, 3), bool).at[:, 0].set(False)
    jax.block_until_ready(pearl.gather(state, env, KEY, jnp.arange(3), 3, recent=False, use=use)[0].env_steps)
    jax.effects_barrier()
    begun_again = np.concatenate(seen)
    assert len(begun_again) > 50 and (begun_again != 0).any(axis=-1).all()


def test_a_collection_beyond_the_last_env_step_forgets_nothing():
    """Otherwise a task that lost its newest block would be learnt from another's."""
    pearl = make(tasks_per_iteration=30)
    state = jax.jit(lambda: pearl.init(KEY, ENV, 121))()
    for k, phase in enumerate(("initial", "collect")):
        state, _ = run(pearl, ENV, state, jax.random.fold_in(KEY, k), phase)
    assert int(state.env_steps) == 120 + 30 * 60 == np.sum(state.replay.total) and not state.replay.oldest.any()
    assert pearl.grow(state, ENV, 5000).replay.blocks > state.replay.blocks


def test_what_is_reported_as_adapted_follows_the_exploring_episodes():
    assert exploration_episodes(make(exploration_episodes=7)) == 7


def test_phases_and_counters():
    pearl = make(posterior_steps=40)
    state = begun(pearl)
    seen = []
    for i in range(8):
        phase = pearl.phase(state, ENV)
        seen.append(phase)
        state, metrics = run(pearl, ENV, state, jax.random.fold_in(KEY, i), phase)
        assert all(np.isfinite(float(x)) for x in metrics.values())
    assert seen == ["initial", "train", "train", "collect", "train", "train", "collect", "train"]
    assert pearl.minimum_env_steps(ENV) == 6 * 20
    assert int(state.env_steps) == 120 + 2 * 3 * (20 + 40 + 40)
    assert int(state.updates) == 10


TWIN = {"critic": "twin", "learn_temperature": True}
REACH = {"context_source": "rl_batch", "context_reach": 40, "prior": "tasks"}
OPTIONS = [
    TWIN, {"latent": "deterministic"}, {"encoder": "gru"},
    {"encoder": "gru", "latent": "deterministic"}, {"context_source": "buffer"}, {"context_source": "rl_batch"},
    REACH, {"latent": "deterministic", "prior": "tasks"},
    {"context_next_obs": True}, {"factors": "precision"}, {"critic_norm": True},
]  # fmt: skip


def test_normalised_observations_are_what_networks_see_in_training_and_in_trials():
    options = {"normalise_obs": True, "context_next_obs": True}
    pearl, plain = make(**options), make(context_next_obs=True)
    state = collected(pearl)
    assert float(state.scale.count) == np.sum(state.replay.total)  # of everything that was collected, once
    after = run(pearl, ENV, state, KEY, "collect")[0].scale
    assert float(after.count) == float(state.scale.count) + 3 * (20 + 40)

    @jax.jit
    def seen(store, scale):
        batch, (features, _), _ = pearl.sample(store, KEY, scale)
        raw, (raw_features, _), _ = plain.sample(store, KEY)
        obs, next_obs, context = scale(raw.obs), scale(raw.next_obs), scale(raw_features[..., :2])
        kept = replay.sample(store, KEY, jnp.arange(6).repeat(50), 20).obs.mean((0, 1))
        expected = obs, next_obs, jnp.concatenate([context, raw_features[..., 2:5]], axis=-1)  # action, reward
        return kept, (batch.obs, batch.next_obs, features[..., :5]), expected

    kept, ours, expected = seen(state.replay, state.scale)
    np.testing.assert_allclose(state.scale.mean, kept, atol=0.05)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)

    # an agent that sees observations through `scale` does in a trial what one does that is given them
    @jax.jit
    def acted(state):
        scale, with_scale = state.scale, pearl.params(state)
        without = eqx.tree_at(lambda p: p.scale, with_scale, None)
        memory = pearl.begin(without, KEY, (3, 1))
        obs = jax.random.normal(KEY, (3, 1, 2))
        tasks = take_tasks(jnp.asarray(ENV.train_tasks), jnp.arange(3))
        episodes, _ = rollout.episode(ENV, pearl, with_scale, memory, tasks, KEY, episodes=1)
        given = episodes._replace(obs=scale(episodes.obs), next_obs=scale(episodes.next_obs))
        ways = (with_scale, obs, episodes), (without, scale(obs), given)
        return [(pearl.act(p, memory, o, KEY, True)[0], pearl.adapt(p, memory, e, KEY).weighted) for p, o, e in ways]

    for a, b in zip(*acted(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.fixture(scope="module")
def experience():
    """The same initial data for all options, and what one update makes of it by default."""
    state = filled(make())
    state = eqx.tree_at(lambda s: s.replay.window, state, np.asarray(state.replay.total) - 5)  # recent is less than all
    return state, update_once(make(), state)[2]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_changes_the_update(experience, options):
    state, default = experience
    pearl = make(**options)
    _, _, metrics = update_once(pearl, state, networks(pearl))
    assert all(np.isfinite(float(x)) for x in metrics.values())
    assert any(float(metrics[name]) != float(default[name]) for name in default)


def test_discrete_actions_train_through_all_phases():
    env = GridNavi()
    pearl = make(env, encoder="gru", posterior_steps=20, critic="twin")
    state = begun(pearl, env)
    for phase in ("initial", "train", "train", "collect", "train"):
        assert pearl.phase(state, env) == phase
        state, metrics = run(pearl, env, state, jax.random.fold_in(KEY, int(state.updates)), phase)
        assert all(np.isfinite(float(x)) for x in metrics.values())


def test_same_key_same_numbers():
    pearl = make(posterior_steps=40)
    state = filled(pearl)
    a, b, c = (run(pearl, ENV, state, jax.random.key(k), "train")[0].nets for k in (5, 5, 6))
    assert change(a, b) == 0
    assert change(a, c) > 0


@partial(jax.jit, static_argnums=(1, 2))
def sequences(store, tasks, steps):
    return replay.sample_sequence(store, KEY, jnp.arange(tasks), steps)[0]


def test_held_exploration_repeats_one_action_per_episode_and_initial_updates_delay_the_first_collection():
    pearl = make(initial_exploration="held", initial_updates=6)
    state = collected(pearl)
    action = np.asarray(sequences(state.replay, 6, 20).action)
    assert not (action - action[:, :1]).any() and (action[0] - action[1]).any()
    phases = [pearl.phase(dataclasses.replace(state, updates=np.array(u)), ENV) for u in (0, 4, 8, 10)]
    assert phases == ["train", "train", "train", "collect"]


def test_held_exploration_of_discrete_actions_keeps_to_one_distribution_per_episode():
    env = GridNavi(horizon=200)
    pearl = make(env, initial_exploration="held", initial_steps=200)
    action = np.asarray(sequences(collected(pearl, env).replay, 8, 200).action)
    halves = action.reshape(8, 2, 100, 5).mean(axis=2)  # shares of each action, [task, half, action]
    assert np.abs(halves[:, 0] - halves[:, 1]).std() < 0.08  # sampling noise: 0.035
    assert halves.mean(axis=1).std(axis=0).mean() > 0.1  # between distributions: 0.16
    random = np.asarray(jax.jit(lambda: jax.nn.softmax(rollout.held(env.spec, KEY, (5000, 1))[1]))())
    np.testing.assert_allclose(random.mean(axis=(0, 1)), 0.2, atol=0.01)
    np.testing.assert_allclose(
        random.std(axis=(0, 1)), np.sqrt(0.2 * 0.8 / 6), atol=0.005
    )  # of a uniform Dirichlet over five


@pytest.mark.parametrize("bad", [
    {"latent_size": 0}, {"discount": 1.5}, {"hidden": ()}, {"updates_per_slice": 3},
    {"encoder": "gru", "context_source": "rl_batch"}, {"kl_weight": -1.0}, {"encoder": "gru", "context_reach": 100},
    {"encoder": "gru", "trial_evidence": 0.5}, {"context_pieces": 3, "context_batch": 10}, {"context_pieces": -1},
    {"context_pieces": 2, "context_batch": 10, "context_source": "rl_batch"},
    {"context_reach": -1}, {"trial_evidence": 0.0}, {"decay_updates": -1}, {"decay_from": 10, "decay_updates": 5},
])  # fmt: skip
def test_bad_values_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        make(**bad)


def test_window_clears_only_the_collecting_tasks():
    store = filled(make()).replay
    before = np.asarray(store.window_end) - store.window
    assert (before == 20).all()
    cleared = jax.jit(replay.clear_window)(store, np.array([1]))
    size = np.asarray(cleared.window_end) - cleared.window
    assert size[1] == 0 and (np.delete(size, 1) == 20).all()


def test_spread_draws_are_each_from_the_posterior_and_together_even():
    """One draw over many trials is N(0, 1); eight draws of one trial leave no gap wider than two eighths of the mass."""
    belief = make(draws="spread").belief
    unknown = Gaussian(np.zeros((4000, 3), np.float32), np.ones((4000, 3), np.float32))

    @jax.jit
    def draw(k):
        memory = dataclasses.replace(belief.begin(KEY, (4000, 1)), episodes=jnp.full(4000, k))
        return belief.draw(memory, KEY, jnp.zeros(4000, bool), unknown).z[:, 0]

    successive = np.stack([draw(k) for k in range(8)])
    assert np.abs(successive.mean(axis=1)).max() < 0.06 and np.abs(successive.std(axis=1) - 1).max() < 0.05
    u = np.sort(scipy.stats.norm.cdf(successive), axis=0)  # [8, trials, latent]
    gaps = np.diff(np.concatenate([u, u[:1] + 1]), axis=0).max(axis=0)
    random = np.sort(np.random.default_rng(0).uniform(size=u.shape), axis=0)
    random_gaps = np.diff(np.concatenate([random, random[:1] + 1]), axis=0).max(axis=0)
    assert gaps.max() < 0.3 < random_gaps.mean()


def test_learning_rate_falls_to_a_twentieth_by_the_step_named():
    """Adam's first step is the learning rate in size, whatever the gradient; its step k at a constant gradient, too."""
    params, ones = {"w": np.zeros(3, np.float32)}, {"w": np.ones(3, np.float32)}
    for first, want in ((0, [0.1, 0.07625, 0.0525, 0.02875, 0.005, 0.005]), (2, [0.1, 0.1, 0.1, 0.0525, 0.005, 0.005])):
        adam = make(decay_updates=4, decay_from=first, learning_rate=0.1)._adam
        state, sizes, update = adam.init(params), [], jax.jit(adam.update)
        for _ in range(6):
            step, state = update(ones, state, params)
            sizes.append(-float(step["w"][0]))
        np.testing.assert_allclose(sizes, want, rtol=1e-3)
    pearl = make(decay_updates=4, learning_rate=0.1)
    state = filled(pearl)
    counting = jax.jit(lambda nets: whole_numbers(_update_once(pearl, nets, state.replay)[1]["policy"]))
    assert counting(state.nets) == [1, 1]  # of Adam and of its schedule: resumed with the rest of the state


def whole_numbers(tree):
    return [x for x in jax.tree.leaves(tree) if x.dtype == jnp.int32]


def test_prior_of_tasks_is_their_posteriors_together_and_yields_to_what_is_known():
    pearl = make(prior="tasks", factors="precision", context_source="buffer")
    mean, variance = np.random.default_rng(0).normal(3.0, 0.5, (6, 3)), np.full((6, 3), 0.01)
    mean[:3] -= 6.0  # half of the tasks on either side
    belief, known = pearl.belief, Gaussian(np.full((4000, 3), 2.0, np.float32), np.full((4000, 3), 1e-4, np.float32))

    @jax.jit
    def draws():
        points = belief.points_of(Gaussian(jnp.asarray(mean), jnp.asarray(variance)))
        memory = belief.begin(KEY, (4000, 1), points)
        return points, memory.z, belief.draw(memory, KEY, jnp.ones(4000, bool), known, points).z

    points, unknown, z = map(np.asarray, draws())
    assert 0.45 < (unknown > 0).mean() < 0.55 and (np.abs(unknown) > 1.0).mean() > 0.98
    side = (unknown > 0)[:, 0]
    assert (side.all(axis=1) | ~side.any(axis=1)).all()  # jointly, not dimension by dimension
    half = (points > 0)[:, 0].astype(int)
    assert np.abs(np.diff(half)).sum() == 1  # in order, so that even indices spread over the tasks
    assert abs(z.mean() - 2.0) < 1e-2 and 0.009 < z.std() < 0.011
    # after a gradient step: of the networks as they are now, in what acts, and not what training starts with
    start = filled(pearl)
    state, _ = run(pearl, ENV, start, KEY, "train")
    assert state.prior.shape == points.shape and np.isfinite(state.prior).all()
    assert np.abs(np.asarray(state.prior) - start.prior).max() > 1e-4
    assert pearl.params(state).prior is state.prior
