"""PEARL piece by piece: the list of the reference (posterior, gradient routing, schedule), each option, and the checks."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import distributions, replay, rollout
from nacre.algorithms.pearl import PEARL, Config
from nacre.distributions import Gaussian
from nacre.envs.grid_navi import GridNavi
from nacre.envs.point_robot import SparsePointRobot
from nacre.types import take_tasks
from nacre.updates import sac

TINY = dict(
    latent_size=3, hidden=(8, 8), encoder_hidden=(8, 8), meta_batch=4, batch_size=6, context_batch=10, initial_steps=20,
    tasks_per_iteration=3, prior_steps=20, extra_steps=40, updates_per_iteration=4, updates_per_slice=2,
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


@partial(jax.jit, static_argnums=(0, 1))
def filled(pearl: PEARL, env=ENV):
    """A state after its initial collection (one slice for these small families)."""
    return pearl.iterate(pearl.init(KEY, env, 2000), env, KEY, "initial")[0]


def update_once(pearl: PEARL, state, nets=None):
    return _update_once(pearl, state.nets if nets is None else nets, state.replay)


@partial(jax.jit, static_argnums=0)
def _update_once(pearl, nets, store):
    return pearl.update(nets, pearl.optimisers(nets), *pearl.sample(store, jax.random.key(3)))


def context(n=2, m=5, seed=0):
    x = jax.random.normal(jax.random.key(seed), (n, m, 5))
    return x, jnp.ones((n, m), bool)


def norm(tree) -> float:
    return float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(tree)))


# ----------------------------------------------------------------------------------------------------- inference


KINDS = [
    {}, {"factors": "precision"}, {"factors": "matrix"}, {"latent": "deterministic"},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS)
def test_posterior_ignores_the_order_of_the_context(options):
    pearl = make(**options)
    nets = pearl.networks(KEY)
    x, valid = context()
    forward = pearl.belief.infer(nets.encoder, x, valid)
    backward = pearl.belief.infer(nets.encoder, x[:, ::-1], valid)
    np.testing.assert_allclose(forward[0], backward[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(forward[1], backward[1], rtol=1e-4)


@pytest.mark.parametrize("options", [*KINDS, {"encoder": "gru"}])
def test_evidence_piece_by_piece_equals_all_at_once_and_masked_rows_do_not_count(options):
    pearl = make(**options)
    encoder = pearl.networks(KEY).encoder
    x, valid = context(m=6)
    blank = pearl.belief.blank((2, 1))
    whole = pearl.belief.posterior(pearl.belief.see(encoder, blank, x, valid))
    parts = pearl.belief.see(encoder, pearl.belief.see(encoder, blank, x[:, :2], valid[:, :2]), x[:, 2:], valid[:, 2:])
    padded = jnp.concatenate([x, 100 * x], axis=1), jnp.concatenate([valid, ~valid], axis=1)
    for memory in (parts, pearl.belief.see(encoder, blank, *padded)):
        other = pearl.belief.posterior(memory)
        np.testing.assert_allclose(whole[0], other[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(whole[1], other[1], rtol=1e-4)


@pytest.mark.parametrize("options", KINDS)
def test_a_context_that_counts_twice_is_the_same_as_the_context_twice(options):
    pearl = make(**options)
    encoder = pearl.networks(KEY).encoder
    x, valid = context()
    twice = pearl.belief.infer(encoder, jnp.concatenate([x, x], axis=1), jnp.concatenate([valid, valid], axis=1))
    weighted = pearl.belief.infer(encoder, x, valid, jnp.full((2, 1), 2.0))
    for a, b in zip(jax.tree.leaves(twice), jax.tree.leaves(weighted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_trial_evidence_counts_each_transition_of_a_trial_so_often():
    whole, half = make(factors="precision"), make(factors="precision", trial_evidence=0.5)
    params = whole.params(whole.init(KEY, ENV, 2000))
    data, _ = rollout.trial(ENV, whole, params, take_tasks(ENV.train_tasks, np.arange(2)), KEY, episodes=1)
    seen = jax.tree.map(lambda x: x[0], data)
    a, b = (p.adapt(params, p.begin(params, KEY, (2, 1)), seen, KEY) for p in (whole, half))
    np.testing.assert_allclose(2 * b.precision, a.precision, rtol=1e-5)
    np.testing.assert_allclose(2 * b.weighted, a.weighted, rtol=1e-5)
    assert float(a.precision.min()) > 0


def test_context_reach_draws_weights_up_to_it():
    pearl = make(context_reach=40)
    state = filled(pearl)
    weights = np.stack([pearl.sample(state.replay, jax.random.key(k))[1][2] for k in range(50)])
    size = weights * pearl.config.context_batch
    assert 1 <= size.min() < 5 and 36 < size.max() <= 40
    new, _, _ = update_once(pearl, state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


def test_recurrent_encoder_depends_on_the_order():
    pearl = make(encoder="gru")
    encoder = pearl.networks(KEY).encoder
    x, valid = context()
    a = pearl.belief.infer(encoder, x, valid)[0]
    b = pearl.belief.infer(encoder, x[:, ::-1], valid)[0]
    assert float(jnp.abs(a - b).max()) > 1e-7


def test_matrix_factors_are_a_linear_regression_on_what_each_transition_reads():
    """By hand: rows A z = y with unit noise over the precision of each, prior N(0, I); Bishop 2006, eq. 3.50 and 3.51."""
    pearl = make(factors="matrix", latent_size=2)
    encoder = pearl.networks(KEY).encoder
    weights = tuple(w * (100 if i == len(encoder.net.weights) - 1 else 1) for i, w in enumerate(encoder.net.weights))
    encoder = eqx.tree_at(lambda e: e.net.weights, encoder, weights)  # a fresh encoder hardly depends on its input
    x, valid = context()
    y, raw, skew = np.split(np.asarray(encoder.net(x), np.float64), [2, 4], axis=-1)
    rows = (skew.reshape(2, -1, 2, 2) + np.eye(2)).reshape(2, -1, 2)
    heavy = np.log1p(np.exp(raw - 3.0)).reshape(2, -1)
    assert skew.std() > 0.05
    q = pearl.belief.infer(encoder, x, valid)
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
    q = distributions.from_natural_matrix(jnp.asarray(precision[None]), jnp.asarray((precision @ [1.0, 1.0])[None]))
    assert abs(float(q.kl_to_standard_normal()[0]) - (1 + 0.5 * (np.log(10001) - 1 + 1 / 10001))) < 1e-3
    points = jnp.asarray(np.repeat(np.linspace(-2, 2, 256), 2).reshape(-1, 2)) * jnp.array([1.0, -1.0])
    for p, std in ((None, 1.0), (points, np.sqrt(2 * 4 / 3))):
        z = belief.place(q, jax.random.uniform(KEY, (1, 4000, 2)), p)[0]
        along, across = (z @ jnp.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)).T
        assert abs(float(along.mean()) - np.sqrt(2)) < 0.01 and float(along.std()) < 0.03
        assert abs(float(across.mean())) < 0.06 and abs(float(across.std()) - std) < 0.05


def test_context_pieces_are_stretches_of_the_task_in_a_random_number():
    pearl = make(context_pieces=3, context_batch=12, context_source="buffer")
    state, tasks = filled(pearl), jnp.arange(6)
    counts = []
    for k in range(20):
        seen, valid = pearl.context(state.replay, jax.random.key(k), tasks)
        counts.append(np.asarray(valid).sum(axis=1))
        obs = np.asarray(seen[..., :2]).reshape(6, 3, 4, 2)  # a point robot moves by a tenth of its action
        moved = obs[:, :, :-1] + 0.1 * np.asarray(seen[..., 2:4]).reshape(6, 3, 4, 2)[:, :, :-1]
        assert (np.abs(obs[:, :, 1:] - moved).max(axis=-1) < 1e-5).mean() > 0.8  # but where an episode ended in between
        assert not np.asarray(valid).reshape(6, 3, 4).std(axis=-1).any()  # whole stretches count, or not at all
    assert set(np.concatenate(counts)) == {4, 8, 12}
    pearl = make(context_pieces=3, context_batch=12, context_reach=40)
    sizes = [
        (c[2] * c[1].sum(axis=1, keepdims=True))
        for c in (pearl.sample(state.replay, jax.random.key(k))[1] for k in range(30))
    ]
    assert 1 <= np.min(sizes) < 5 and 36 < np.max(sizes) <= 40


def test_deterministic_latent_is_the_mean_embedding_and_its_prior_is_zero():
    pearl = make(latent="deterministic")
    encoder = pearl.networks(KEY).encoder
    x, valid = context()
    mean, variance, _ = q = pearl.belief.infer(encoder, x, valid)
    np.testing.assert_allclose(mean, encoder.net(x).mean(axis=1), rtol=1e-4, atol=1e-7)
    assert float(jnp.abs(variance).max()) == 0
    np.testing.assert_array_equal(pearl.belief.place(q, jnp.full((2, 1, mean.shape[1]), 0.8), None)[:, 0], mean)
    assert float(jnp.abs(pearl.belief.begin(KEY, (2, 4)).z).max()) == 0


@pytest.mark.parametrize("options", [{}, {"factors": "matrix"}])
def test_precision_factors_are_the_prior_where_nothing_is_known(options):
    pearl = make(**{"factors": "precision"} | options)
    mean, variance, _ = pearl.belief.posterior(pearl.belief.blank((1, 1)))
    assert float(jnp.abs(mean).max()) == 0 and float(jnp.abs(variance - 1).max()) == 0


def test_prior_z_until_exploration_is_over_then_the_posterior():
    """The third of three episodes with exploration_episodes=2 is the first that knows, and it knows all that was seen."""
    pearl = make(exploration_episodes=2)
    state = pearl.init(KEY, ENV, 2000)
    params = pearl.params(state)
    tasks = jnp.asarray(ENV.test_tasks)
    data, beliefs = rollout.trial(ENV, pearl, params, tasks, KEY, episodes=3)
    assert data.obs.shape == (3, 2, 1, 20, 2)
    seen = jax.tree.map(lambda x: jnp.moveaxis(x[:2, :, 0], 0, 1), data)  # [N, 2 episodes, T]
    memory = pearl.belief.see(params.encoder, pearl.belief.blank((2, 1)), *pearl.context_of(seen))
    np.testing.assert_allclose(beliefs["mean"][2], pearl.belief.posterior(memory)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(beliefs["variance"][2], pearl.belief.posterior(memory)[1], rtol=1e-4)
    spread = np.abs(beliefs["z"][:2]).mean() / np.sqrt(np.asarray(beliefs["variance"][2])).mean()
    assert spread > 1.5  # 40 factors leave a narrow posterior, the prior's z are wide
    np.testing.assert_allclose(
        beliefs["z"][2, :, 0], beliefs["mean"][2], atol=6 * float(beliefs["variance"][2].max()) ** 0.5
    )


# ---------------------------------------------------------------------------------------------- gradient routing


def batch_of(pearl, state):
    return pearl.sample(state.replay, jax.random.key(3))


def test_only_critic_loss_and_kl_reach_the_encoder():
    pearl = make()
    state = filled(pearl)
    batch, ctx, noises = batch_of(pearl, state)
    nets = state.nets

    def through(loss):
        def of(encoder):
            q = pearl.belief.infer(encoder, *ctx)
            return loss(q.at(noises["z"]), q.mean, q.variance)

        return norm(jax.grad(of)(nets.encoder))  # fmt: skip

    stopped = jax.lax.stop_gradient

    def policy(z, *_):
        return sac.policy_loss(nets.sac.policy, nets.sac.critics, batch.obs, stopped(z), noises["action"], 1.0, 0, 0)[0]

    assert through(policy) == 0.0
    assert through(lambda z, *_: sac.value_loss(nets.sac.value, batch.obs, stopped(z), jnp.zeros(24))[0]) == 0.0
    assert through(lambda z, *_: sac.critic_loss(nets.sac.critics, batch, z, jnp.zeros(24), False)[0]) > 0


@pytest.mark.parametrize(("kl", "moves"), [(0.0, False), (0.1, True)])
def test_encoder_stands_still_without_critic_gradient_and_kl(kl, moves):
    """Critics whose z weights are zero give no gradient to z; then only the KL can move the encoder."""
    pearl = make(kl_weight=kl)
    state = filled(pearl)
    nets = state.nets
    blind = tuple(eqx.tree_at(lambda q: q.weights[0], q, q.weights[0].at[4:].set(0.0)) for q in nets.sac.critics)
    nets = eqx.tree_at(lambda n: n.sac.critics, nets, blind)
    new, _, _ = update_once(pearl, state, nets)
    change = norm(jax.tree.map(lambda a, b: a - b, new.encoder, nets.encoder))
    assert (change > 0) == moves
    assert norm(jax.tree.map(lambda a, b: a - b, new.sac.policy, nets.sac.policy)) > 0


def test_no_bottleneck_is_no_kl():
    free, weightless = make(bottleneck=False), make(kl_weight=0.0)
    state = filled(free)
    a, b = update_once(free, state)[0], update_once(weightless, state)[0]
    assert norm(jax.tree.map(lambda x, y: x - y, a, b)) == 0
    c = update_once(make(), state)[0]
    assert norm(jax.tree.map(lambda x, y: x - y, a.encoder, c.encoder)) > 0


@pytest.mark.parametrize("critic", ["value", "twin"])
def test_target_follows_by_tau_each_step(critic):
    pearl = make(critic=critic, target_rate=0.25)
    state = filled(pearl)
    new, _, _ = update_once(pearl, state)
    online = new.sac.value if critic == "value" else new.sac.critics
    expected = jax.tree.map(lambda t, o: 0.75 * t + 0.25 * o, state.nets.sac.target, online)
    for a, b in zip(jax.tree.leaves(new.sac.target), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_terminal_cuts_the_bootstrap_and_reward_scale_acts_on_the_learners_reward():
    pearl = make(reward_scale=7.0, discount=0.5)
    state = filled(pearl)
    batch, ctx, _ = batch_of(pearl, state)
    z = pearl.belief.infer(state.nets.encoder, *ctx)[0]
    ended = dataclasses.replace(batch, terminal=jnp.ones(24))
    np.testing.assert_allclose(
        pearl.learner.bellman_target(state.nets.sac, ended, z, None), 7.0 * batch.train_reward, rtol=1e-6
    )
    following = state.nets.sac.target(batch.next_obs, z)[:, 0]
    expected = 7.0 * batch.train_reward + 0.5 * following
    np.testing.assert_allclose(pearl.learner.bellman_target(state.nets.sac, batch, z, None), expected, rtol=1e-5)
    assert float(jnp.abs(batch.train_reward - batch.reward).min()) > 0  # dense against sparse


@pytest.mark.parametrize(("target", "sign"), [(50.0, 1), (-50.0, -1)])
def test_learned_temperature_pushes_entropy_to_its_target(target, sign):
    pearl = make(critic="twin", learn_temperature=True, target_entropy=target, temperature=0.5)
    state = filled(pearl)
    new, _, metrics = update_once(pearl, state)
    assert float(metrics["policy/temperature"]) == pytest.approx(0.5)
    assert sign * (float(new.sac.log_alpha) - np.log(0.5)) > 1e-5


def test_discrete_soft_value_is_the_exact_expectation():
    pearl = make(GridNavi(), critic="twin")
    nets = pearl.networks(KEY)
    obs, z = jax.random.normal(KEY, (6, 2)), jax.random.normal(jax.random.key(1), (2, 3))
    value, _ = sac.soft_value(nets.sac.policy, nets.sac.critics, obs, z, None, 0.7)
    rows = jnp.repeat(z, 3, axis=0)
    x = jnp.concatenate([obs, rows], axis=-1)
    p = jax.nn.softmax(nets.sac.policy(x))
    q = jnp.minimum(nets.sac.critics[0](x), nets.sac.critics[1](x))
    np.testing.assert_allclose(value, (p * (q - 0.7 * jnp.log(p))).sum(axis=-1), rtol=1e-4)


# ------------------------------------------------------------------------------------------- schedule and options


def spied(pearl: PEARL, env=ENV):
    """Run one collection and note what each gathering was asked for."""
    calls = []

    class Spy(PEARL):
        def gather(self, state, env, key, tasks, episodes, *, recent, use=None, scripted=False):
            calls.append((episodes, recent, None if use is None else np.asarray(use)))
            return super().gather(state, env, key, tasks, episodes, recent=recent, use=use, scripted=scripted)

    state = filled(pearl, env)
    Spy(pearl.config, pearl.spec).collect(state, env, KEY)
    return calls


def test_collection_prior_first_then_a_leading_prior_episode_then_the_posterior():
    prior, extra = spied(make())
    assert prior[:2] == (1, True) and prior[2] is None
    assert extra[:2] == (2, False)  # RL data only
    assert not extra[2][:, 0].any() and extra[2][:, 1:].all()
    assert spied(make(lead_prior=False))[1][2].all()


def test_phases_and_counters():
    pearl = make(posterior_steps=40)
    state = pearl.init(KEY, ENV, 5000)
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


OPTIONS = [
    {"critic": "twin", "learn_temperature": True}, {"latent": "deterministic"}, {"encoder": "gru"},
    {"encoder": "gru", "latent": "deterministic"}, {"context_source": "buffer"}, {"context_source": "rl_batch"},
    {"context_source": "rl_batch", "context_reach": 40, "prior": "tasks"}, {"latent": "deterministic", "prior": "tasks"},
    {"context_next_obs": True}, {"factors": "precision"}, {"critic_norm": True},
]  # fmt: skip


def test_normalised_observations_are_what_networks_see_in_training_and_in_trials():
    options = {"normalise_obs": True, "context_next_obs": True}
    pearl, plain = make(**options), make(context_next_obs=True)
    state = filled(pearl)
    assert float(state.scale.count) == float(state.replay.total.sum())  # of everything that was collected, once
    kept = replay.sample(state.replay, KEY, jnp.arange(6).repeat(50), 20).obs
    np.testing.assert_allclose(state.scale.mean, kept.mean((0, 1)), atol=0.05)
    after = run(pearl, ENV, state, KEY, "collect")[0].scale
    assert float(after.count) == float(state.scale.count) + 3 * (20 + 40)

    batch, (features, _), _ = pearl.sample(state.replay, KEY, state.scale)
    raw, (raw_features, _), _ = plain.sample(state.replay, KEY)
    np.testing.assert_allclose(batch.obs, state.scale(raw.obs))
    np.testing.assert_allclose(batch.next_obs, state.scale(raw.next_obs))
    np.testing.assert_allclose(features[..., :2], state.scale(raw_features[..., :2]))
    np.testing.assert_array_equal(features[..., 2:5], raw_features[..., 2:5])  # action, reward

    # an agent that sees observations through `scale` does in a trial what one does that is given them
    params = eqx.tree_at(lambda p: p.scale, pearl.params(state), None)
    memory = pearl.begin(params, KEY, (3, 1))
    obs = jax.random.normal(KEY, (3, 1, 2))
    action, _, _ = pearl.act(pearl.params(state), memory, obs, KEY, True)
    np.testing.assert_allclose(action, pearl.act(params, memory, state.scale(obs), KEY, True)[0])
    tasks = take_tasks(ENV.train_tasks, jnp.arange(3))
    seen, _ = rollout.episode(ENV, pearl, pearl.params(state), memory, tasks, KEY, episodes=1)
    given = seen._replace(obs=state.scale(seen.obs), next_obs=state.scale(seen.next_obs))
    ours, theirs = (pearl.adapt(*args, KEY) for args in ((pearl.params(state), memory, seen), (params, memory, given)))
    np.testing.assert_allclose(ours.weighted, theirs.weighted, rtol=1e-5)


@pytest.fixture(scope="module")
def experience():
    """The same initial data for all options, and what one update makes of it by default."""
    state = filled(make())
    state = eqx.tree_at(lambda s: s.replay.window, state, state.replay.total - 5)  # recent is less than all
    return state, update_once(make(), state)[2]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_changes_the_update(experience, options):
    state, default = experience
    pearl = make(**options)
    _, _, metrics = update_once(pearl, state, pearl.networks(KEY))
    assert all(np.isfinite(float(x)) for x in metrics.values())
    assert any(float(metrics[name]) != float(default[name]) for name in default)


@pytest.mark.parametrize(
    "options", [{"encoder": "gru", "posterior_steps": 20}, {"factors": "precision", "critic": "twin"}]
)
def test_discrete_actions_train_through_all_phases(options):
    env, pearl = GridNavi(), make(GridNavi(), **options)
    state = pearl.init(KEY, env, 5000)
    for phase in ("initial", "train", "train", "collect", "train"):
        assert pearl.phase(state, env) == phase
        state, metrics = run(pearl, env, state, jax.random.fold_in(KEY, int(state.updates)), phase)
        assert all(np.isfinite(float(x)) for x in metrics.values())


def test_same_key_same_numbers():
    pearl = make()
    state = filled(pearl)
    a, b, c = (run(pearl, ENV, state, jax.random.key(k), "train")[0].nets for k in (5, 5, 6))
    assert norm(jax.tree.map(lambda x, y: x - y, a, b)) == 0
    assert norm(jax.tree.map(lambda x, y: x - y, a, c)) > 0


def test_held_exploration_repeats_one_action_per_episode_and_initial_updates_delay_the_first_collection():
    pearl = make(initial_exploration="held", initial_updates=6)
    state = filled(pearl)
    batch, _ = replay.sample_sequence(state.replay, KEY, jnp.arange(6), 20)
    assert float(jnp.abs(batch.action - batch.action[:, :1]).max()) == 0
    assert float(jnp.abs(batch.action[0] - batch.action[1]).max()) > 0
    phases = [pearl.phase(dataclasses.replace(state, updates=jnp.array(u)), ENV) for u in (0, 4, 8, 10)]
    assert phases == ["train", "train", "train", "collect"]


def test_held_exploration_of_discrete_actions_keeps_to_one_distribution_per_episode():
    env = GridNavi(horizon=200)
    pearl = make(env, initial_exploration="held", initial_steps=200)
    state = run(pearl, env, pearl.init(KEY, env, 5000), KEY, "initial")[0]
    batch, _ = replay.sample_sequence(state.replay, KEY, jnp.arange(8), 200)
    halves = np.asarray(batch.action.reshape(8, 2, 100, 5).mean(axis=2))  # shares of each action, [task, half, action]
    assert np.abs(halves[:, 0] - halves[:, 1]).std() < 0.08  # sampling noise: 0.035
    assert halves.mean(axis=1).std(axis=0).mean() > 0.1  # between distributions: 0.16
    _, random = rollout.held(env.spec, KEY, (5000, 1))
    mean = np.asarray(jax.nn.softmax(random).mean(axis=(0, 1)))
    np.testing.assert_allclose(mean, 0.2, atol=0.01)
    spread = np.asarray(jax.nn.softmax(random)).std(axis=(0, 1))
    np.testing.assert_allclose(spread, np.sqrt(0.2 * 0.8 / 6), atol=0.005)  # of a uniform Dirichlet over five


def test_no_bottleneck_with_a_heavy_kl_differs_from_the_bottleneck():
    state = filled(make())
    a, b = (update_once(make(kl_weight=5.0, bottleneck=b), state)[0].encoder for b in (True, False))
    assert norm(jax.tree.map(lambda x, y: x - y, a, b)) > 0


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
    pearl = make()
    state = filled(pearl)
    before = np.asarray(state.replay.window_end - state.replay.window)
    assert (before == 20).all()
    cleared = replay.clear_window(state.replay, jnp.array([1]))
    size = np.asarray(cleared.window_end - cleared.window)
    assert size[1] == 0 and (np.delete(size, 1) == 20).all()


def test_spread_draws_are_each_from_the_posterior_and_together_even():
    """One draw over many trials is N(0, 1); eight draws of one trial leave no gap wider than two eighths of the mass."""
    belief = make(draws="spread").belief
    memory, unknown = belief.begin(KEY, (4000, 1)), Gaussian(jnp.zeros((4000, 3)), jnp.ones((4000, 3)))
    successive = []
    for k in range(8):
        memory = dataclasses.replace(memory, episodes=jnp.full(4000, k))
        z = belief.draw(memory, KEY, jnp.zeros(4000, bool), unknown).z[:, 0]
        assert float(jnp.abs(z.mean(axis=0)).max()) < 0.06 and float(jnp.abs(z.std(axis=0) - 1).max()) < 0.05
        successive.append(z)
    u = np.sort(np.asarray(jax.scipy.stats.norm.cdf(jnp.stack(successive))), axis=0)  # [8, trials, latent]
    gaps = np.diff(np.concatenate([u, u[:1] + 1]), axis=0).max(axis=0)
    random = np.sort(np.random.default_rng(0).uniform(size=u.shape), axis=0)
    random_gaps = np.diff(np.concatenate([random, random[:1] + 1]), axis=0).max(axis=0)
    assert gaps.max() < 0.3 < random_gaps.mean()


def test_learning_rate_falls_to_a_twentieth_by_the_step_named():
    """Adam's first step is the learning rate in size, whatever the gradient; its step k at a constant gradient, too."""
    params, ones = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
    for first, want in ((0, [0.1, 0.07625, 0.0525, 0.02875, 0.005, 0.005]), (2, [0.1, 0.1, 0.1, 0.0525, 0.005, 0.005])):
        adam = make(decay_updates=4, decay_from=first, learning_rate=0.1)._adam
        state, sizes = adam.init(params), []
        for _ in range(6):
            change, state = adam.update(ones, state, params)
            sizes.append(-float(change["w"][0]))
        np.testing.assert_allclose(sizes, want, rtol=1e-3)
    pearl = make(decay_updates=4, learning_rate=0.1)
    _, optimisers, _ = update_once(pearl, filled(pearl))
    counts = [int(x) for x in jax.tree.leaves(optimisers["policy"]) if x.dtype == jnp.int32]
    assert counts == [1, 1]  # of Adam and of its schedule: resumed with the rest of the state


def test_prior_of_tasks_is_their_posteriors_together_and_yields_to_what_is_known():
    pearl = make(prior="tasks", factors="precision", context_source="buffer")
    state, _ = pearl.iterate(filled(pearl), ENV, KEY, "train")
    mean, variance = np.random.default_rng(0).normal(3.0, 0.5, (6, 3)), np.full((6, 3), 0.01)
    mean[:3] -= 6.0  # half of the tasks on either side
    belief, points = pearl.belief, pearl.belief.points_of(Gaussian(jnp.asarray(mean), jnp.asarray(variance)))
    memory = belief.begin(KEY, (4000, 1), points)
    assert 0.45 < float((memory.z > 0).mean()) < 0.55 and float((jnp.abs(memory.z) > 1.0).mean()) > 0.98
    side = np.asarray(memory.z > 0)[:, 0]
    assert (side.all(axis=1) | ~side.any(axis=1)).all()  # jointly, not dimension by dimension
    half = np.asarray(points > 0)[:, 0].astype(int)
    assert np.abs(np.diff(half)).sum() == 1  # in order, so that even indices spread over the tasks
    known = Gaussian(jnp.full((4000, 3), 2.0), jnp.full((4000, 3), 1e-4))
    z = belief.draw(memory, KEY, jnp.ones(4000, bool), known, points).z
    assert abs(float(z.mean()) - 2.0) < 1e-2 and 0.009 < float(z.std()) < 0.011
    # after a gradient step: of the networks as they are now, in what acts, and not what training starts with
    assert state.prior.shape == points.shape and np.isfinite(state.prior).all()
    assert float(jnp.abs(state.prior - filled(pearl).prior).max()) > 1e-4
    assert pearl.params(state).prior is state.prior
