"""VariBAD piece by piece: the evidence lower bound against loops and exact posteriors, what is trained by what, the buffer."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ender import Ender
from nacre import distributions, nn, rollout
from nacre.algorithms.varibad import Config, VariBAD
from nacre.envs.cheetah import CheetahDir
from nacre.envs.grid_navi import GridNavi
from nacre.envs.point_robot import PointRobot
from nacre.types import Discrete, EnvSpec
from nacre.updates import elbo
from nacre.updates.trials import sequences

KEY = jax.random.key(0)
TINY = dict(latent_size=2, width=6, embeddings=(3, 4, 6), hidden=(8,), policy_embeddings=(4, 4), reward_hidden=(7,),
            state_hidden=(5,), task_hidden=(5,), belief_trials=3, belief_capacity=10, tasks_per_iteration=4,
            updates_per_epoch=2, epochs=2, elbo_beliefs=0, elbo_decodes=0, truncate=0)  # fmt: skip


FAMILIES = {"discrete": Ender(), "continuous": PointRobot(n_train=4, n_test=2)}


def make(env, **options) -> VariBAD:
    return VariBAD(Config(**{**TINY, **options}), env.spec)


def trials(varibad: VariBAD, env):
    """A state with some life in its networks, four trials collected with it, and their tasks. Compiled once for all tests of agents
    that differ in no more than what training does with them."""
    default = Config(**TINY)
    training = "epochs updates_per_epoch belief_updates kl_weight elbo_weighting".split()
    same = dataclasses.replace(varibad.config, **{name: getattr(default, name) for name in training})
    return _trials(VariBAD(same, varibad.spec), env)


@partial(jax.jit, static_argnums=(0, 1))
def _trials(varibad, env):
    state = varibad.init(KEY, env, 0)
    state = eqx.tree_at(lambda s: s.params, state, jax.tree.map(lambda x: x * 2, state.params))
    tasks = env.sample_tasks(KEY, 4)
    data, _ = rollout.trial(env, varibad, state.params, tasks, KEY, episodes=varibad.trial_episodes, explore=True)
    return state, data, tasks


learn = jax.jit(VariBAD.learn, static_argnums=(0, 5))
infer = jax.jit(VariBAD.infer, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def experience(spec, data, tasks):
    return elbo.experience(data, spec, tasks)


# ------------------------------------------------------------------------------------------------------------ the bound


def test_kl_is_the_integral():
    mean, log_var, prior_mean, prior_log_var = 0.3, -0.7, -0.4, 0.5
    x = np.linspace(-12, 12, 200_001)
    log_p = lambda m, v: -0.5 * ((x - m) ** 2 / np.exp(v) + v + np.log(2 * np.pi))  # noqa: E731
    integral = np.trapezoid(np.exp(log_p(mean, log_var)) * (log_p(mean, log_var) - log_p(prior_mean, prior_log_var)), x)
    args = (np.full((3, 2), v, np.float32) for v in (mean, log_var, prior_mean, prior_log_var))
    np.testing.assert_allclose(jax.jit(distributions.kl_of_normals)(*args), 2 * integral, rtol=1e-4)


def sure(model: elbo.Model, latent: int) -> elbo.Model:
    """The same with hardly any variance, so that draws are means."""
    shift = np.repeat(np.float32([0, -25]), latent)
    return eqx.tree_at(lambda m: m.encoder.head.biases, model, (np.asarray(model.encoder.head.biases[0]) + shift,))


def losses_by_a_loop(varibad: VariBAD, model: elbo.Model, x: elbo.Experience) -> tuple[float, float, float, float]:
    """Sums over trials, beliefs and steps: of rewards, states and tasks, and of the KL."""
    d, parts = varibad.config.latent_size, (model.reward, model.state, model.task, distributions.kl_of_normals)
    reward, state, of_task, kl = (jax.jit(lambda *x, part=part: part(*x)) for part in parts)
    beliefs, x = np.asarray(jax.jit(lambda x: model.encoder(x))(x)), jax.tree.map(np.asarray, x)
    out = np.zeros(4)
    for b in range(len(x.reward)):
        q = [beliefs[b, 0]]
        prior = np.zeros_like(q[0])
        for t in range(-1, x.reward.shape[1]):
            if t >= 0 and not x.valid[b, t]:
                continue
            now, z = beliefs[b, t + 1], beliefs[b, t + 1, :d]
            out[3] += kl(now[:d], now[d:], prior[:d], prior[d:])
            prior = now
            out[2] += np.mean((np.asarray(of_task(z)) - x.task[b]) ** 2)
            for k in np.flatnonzero(x.valid[b]):
                step = np.concatenate([x.obs[b, k], x.action[b, k]])
                out[0] += (float(reward(np.concatenate([x.next_obs[b, k], step, z]))[0]) - x.reward[b, k]) ** 2
                out[1] += np.mean((np.asarray(state(np.concatenate([step, z]))) - x.next_obs[b, k]) ** 2)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_the_sum_over_beliefs_and_steps(family):
    env = FAMILIES[family]
    varibad = make(env, episodes=1, state_weight=0.5, task_weight=2.0, kl_weight=0.3, elbo_weighting="corrected")
    state, data, tasks = trials(varibad, env)
    x = experience(env.spec, data, tasks)
    model = sure(state.params.model, 2)
    rewards, states, of_tasks, kl = losses_by_a_loop(varibad, model, x)
    loss, metrics = jax.jit(varibad.elbo.loss)(model, x, KEY)
    np.testing.assert_allclose(loss, (rewards + 0.5 * states + 2.0 * of_tasks + 0.3 * kl) / 4, rtol=1e-4)
    steps = np.asarray(x.valid).sum(axis=1)
    np.testing.assert_allclose(metrics["belief/reward"], rewards / ((steps + 1) * steps).sum(), rtol=1e-4)
    np.testing.assert_allclose(metrics["belief/kl"], kl / (steps + 1).sum(), rtol=1e-4)
    official = make(env, episodes=1, state_weight=0.5, task_weight=2.0, kl_weight=0.3)
    np.testing.assert_allclose(
        jax.jit(official.elbo.loss)(model, x, KEY)[0] - loss, (2.0 * of_tasks + 0.3 * kl) * 3 / 4, rtol=1e-3
    )  # summed over the four trials
    alone = make(env, episodes=1, reward_weight=0.0, task_weight=2.0, kl_weight=0.0)
    np.testing.assert_allclose(jax.jit(alone.elbo.loss)(model, x, KEY)[0], 2.0 * of_tasks, rtol=1e-4)


def test_subsets_of_beliefs_and_steps_estimate_the_whole():
    env = FAMILIES["continuous"]
    whole = make(env, episodes=1, elbo_weighting="corrected")
    part = make(env, episodes=1, elbo_weighting="corrected", elbo_beliefs=7, elbo_decodes=5)
    official = make(env, episodes=1, elbo_beliefs=7, elbo_decodes=5, kl_weight=0.0)
    state, data, tasks = trials(whole, env)
    x, model = experience(env.spec, data, tasks), sure(state.params.model, 2)
    keys = jax.random.split(KEY, 400)
    mean = lambda a: np.mean(jax.jit(lambda: jax.lax.map(lambda k: a.elbo.loss(model, x, k)[0], keys))())  # noqa: E731
    np.testing.assert_allclose(mean(part), jax.jit(whole.elbo.loss)(model, x, KEY)[0], rtol=0.05)
    no_kl = make(env, episodes=1, elbo_weighting="corrected", kl_weight=0.0)
    shrunk = 7 / 21 * 5 / 20  # the official sums are over the subsets alone
    np.testing.assert_allclose(mean(official), shrunk * jax.jit(no_kl.elbo.loss)(model, x, KEY)[0], rtol=0.05)


def test_subsets_are_of_valid_steps():
    """Trials of 20, 6 and 1 env steps: as the official code, which draws from as many as a trial has."""
    valid = (jnp.arange(20) < jnp.array([20, 6, 1])[:, None]).astype(jnp.float32)
    at, counts = elbo.chosen(KEY, 7, jnp.broadcast_to(jnp.arange(20.0), (3, 20)), valid)
    assert (at < jnp.array([20, 6, 1])[:, None]).all() and at.shape == (3, 7)
    np.testing.assert_allclose(counts, np.array([[20], [6], [1]]) / 7 * np.ones(7))
    many, _ = elbo.chosen(KEY, 19, jnp.broadcast_to(jnp.arange(20.0), (4000, 20)), jnp.tile(valid[1], (4000, 1)))
    np.testing.assert_allclose(np.bincount(np.asarray(many, int).ravel()) / many.size, 1 / 6, rtol=0.03)
    nothing, counts = elbo.chosen(KEY, 7, valid, jnp.zeros_like(valid))
    assert nothing.shape == (3, 7) and not counts.any()

    env = FAMILIES["continuous"]
    whole = make(env, episodes=1, elbo_weighting="corrected", kl_weight=0.0)
    part = make(env, episodes=1, elbo_weighting="corrected", kl_weight=0.0, elbo_beliefs=7, elbo_decodes=5)
    official = make(env, episodes=1, elbo_beliefs=7, elbo_decodes=5, kl_weight=0.0)
    state, data, tasks = trials(whole, env)
    x, model = experience(env.spec, data, tasks), sure(state.params.model, 2)
    lengths = jnp.array([20, 6, 2, 1])[:, None]
    x = x._replace(valid=x.valid & (jnp.arange(x.valid.shape[1]) < lengths))
    keys = jax.random.split(KEY, 400)
    mean = lambda a: np.mean(jax.jit(lambda: jax.lax.map(lambda k: a.elbo.loss(model, x, k)[0], keys))())  # noqa: E731
    np.testing.assert_allclose(mean(part), jax.jit(whole.elbo.loss)(model, x, KEY)[0], rtol=0.05)
    alone = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], x) for i in range(4)]
    loss = jax.jit(whole.elbo.loss)
    means = [float(loss(model, one, KEY)[0]) / (n * (n + 1)) for one, n in zip(alone, (20, 6, 2, 1), strict=True)]
    np.testing.assert_allclose(mean(official), 7 * 5 * np.mean(means), rtol=0.05)


@pytest.mark.training
def test_belief_after_all_steps_is_the_exact_posterior_of_a_conjugate_task():
    """m ~ N(0, 1); rewards m + noise of variance 1/2, whose -log p is the squared error. With the KL to N(0, I) at weight one
    the last belief is the posterior: precision 1 + 2 n, mean 2 sum(r) / (1 + 2 n)."""
    spec, n = EnvSpec("toy", 1, Discrete(2), horizon=4, jittable=True), 4
    bound = elbo.Elbo(spec, 1, "gaussian", (1.0, 0.0, 0.0), False, 1.0, "standard", "corrected", 0, 0, 0)

    def draw(key, trials=128):
        task_key, noise_key = jax.random.split(key)
        m = jax.random.normal(task_key, (trials, 1))
        reward = m + jnp.sqrt(0.5) * jax.random.normal(noise_key, (trials, n))
        zero = jnp.zeros((trials, n, 1))
        return elbo.Experience(zero, jnp.zeros((trials, n, 2)), reward, zero, zero[..., 0], zero[..., 0] == 0, m)

    adam = optax.adam(optax.linear_schedule(5e-3, 0.0, 1500))

    def step(carry, key):
        model, state = carry
        data_key, loss_key = jax.random.split(key)
        grads = eqx.filter_grad(lambda m: bound.loss(m, draw(data_key), loss_key)[0])(model)
        grads = eqx.tree_at(lambda g: g.reward, grads, jax.tree.map(jnp.zeros_like, grads.reward))
        change, state = adam.update(grads, state, model)
        return (optax.apply_updates(model, change), state), None

    @jax.jit
    def trained():
        model = bound.model((0, 0, 16), 24, ((8,), (8,), (8,)), 1, KEY)
        says_m = eqx.tree_at(
            lambda d: d.weights, nn.MLP((2, 1), key=KEY, out_scale=0.0), (jnp.asarray([[0.0], [1.0]]),)
        )
        model = eqx.tree_at(lambda m: m.reward, model, says_m)
        (model, _), _ = jax.lax.scan(step, (model, adam.init(model)), jax.random.split(KEY, 1500))
        x = draw(jax.random.key(1), 1000)
        return x, model.encoder(x)[:, -1]

    x, belief = jax.device_get(trained())
    mean, log_var = belief.T
    exact = 2 * np.asarray(x.reward).sum(axis=1) / (1 + 2 * n)
    assert np.sqrt(np.mean((mean - exact) ** 2)) < 0.1 * exact.std()
    np.testing.assert_allclose(np.exp(log_var).mean(), 1 / (1 + 2 * n), rtol=0.1)


# ------------------------------------------------------------------------------------------------- acting and learning


@pytest.mark.parametrize("family", FAMILIES)
def test_learning_sees_what_acting_saw(family):
    """The encoder's sweep gives the recorded beliefs, early ends included; policy and value the recorded numbers."""
    env = FAMILIES[family]
    varibad = make(env)
    state, data, tasks = trials(varibad, env)

    @jax.jit
    def sweep(params, data, tasks):
        seen, x = sequences(data, env.spec), elbo.experience(data, env.spec, tasks)
        actions, value = varibad.judge(params, params.actor, seen.obs, seen.over_before, seen.extras["belief"])
        return seen, params.model.encoder(x)[:, :-1], value, actions.log_prob(seen.action)

    seen, belief, value, log_prob = jax.device_get(sweep(state.params, data, tasks))
    valid = seen.valid
    assert valid.all() != env.spec.can_terminate
    np.testing.assert_allclose(belief[valid], seen.extras["belief"][valid], atol=1e-5)
    np.testing.assert_allclose(value[valid], seen.extras["value"][valid], atol=1e-5)
    np.testing.assert_allclose(log_prob[valid], seen.extras["log_prob"][valid], atol=1e-4)


def test_nothing_seen_is_one_belief_for_all_and_what_is_paid_changes_it():
    env = FAMILIES["discrete"]
    varibad = make(env)
    state, data, tasks = trials(varibad, env)
    x = experience(env.spec, data, tasks)
    more = np.array(x.reward)
    more[1, 0] += 3.0
    encode = jax.jit(lambda x: state.params.model.encoder(x))
    beliefs, other = np.asarray(encode(x)), np.asarray(encode(x._replace(reward=more)))
    np.testing.assert_array_equal(beliefs[0, 0], beliefs[3, 0])
    assert np.abs(other - beliefs)[1, 1:].max(axis=-1).all() and not np.abs(other - beliefs)[[0, 2, 3]].any()


@pytest.mark.parametrize("reaches", [False, True])
def test_policy_gradient_stops_at_the_belief_unless_asked(reaches):
    env = FAMILIES["discrete"]
    varibad = make(env, policy_trains_encoder=reaches, belief_updates=0)
    state, data, tasks = trials(varibad, env)
    before = state.params
    after, _ = learn(varibad, state, data, tasks, KEY, False)
    moved = lambda part: any(  # noqa: E731
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(*(jax.tree.leaves(part(p)) for p in (before, after.params)), strict=True)
    )
    assert moved(lambda p: p.actor.policy) and moved(lambda p: p.actor.value)
    assert moved(lambda p: p.model.encoder) == reaches and not moved(lambda p: p.model.reward)


def test_belief_steps_leave_the_policy_alone():
    env = FAMILIES["discrete"]
    varibad = make(env)
    state, data, tasks = trials(varibad, env)
    state, _ = learn(varibad, state, data, tasks, KEY, True)
    after, metrics = infer(varibad, state, KEY)
    jax.tree.map(np.testing.assert_array_equal, after.params.actor, state.params.actor)
    changed = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), after.params.model, state.params.model)
    assert all(jax.tree.leaves(changed.encoder.core)) and all(jax.tree.leaves(changed.reward.weights))
    assert set(metrics) == {"belief/reward", "belief/kl"} and int(after.updates) == 1


def test_buffer_keeps_the_last_trials_whole():
    env = FAMILIES["discrete"]
    varibad = make(env)
    state, data, tasks = trials(varibad, env)
    for i in range(3):
        state, metrics = learn(varibad, state, data, np.asarray(tasks) + i, KEY, True)
        assert metrics == {}
    tasks, kept = np.asarray(tasks), state.buffer.trials
    assert int(state.buffer.added) == 12 and int(state.env_steps) == 3 * np.sum(data.valid)
    np.testing.assert_allclose(kept.task, np.concatenate([tasks[2:] + 2, tasks[2:], tasks + 1, tasks[:2] + 2]))
    paid = np.asarray(experience(env.spec, data, tasks).reward)
    np.testing.assert_array_equal(np.asarray(kept.reward)[2], paid[2])


def test_scales_and_ratio_do_not_change_while_ppo_trains():
    """The first step's ratio is one: what the policy saw while acting is what it sees when it learns."""
    env = FAMILIES["continuous"]
    varibad = make(env, epochs=1, updates_per_epoch=1, belief_updates=0)
    state, data, tasks = trials(varibad, env)
    after, metrics = learn(varibad, state, data, tasks, KEY, False)
    np.testing.assert_allclose(metrics["policy/kl"], 0.0, atol=1e-6)
    np.testing.assert_allclose(after.params.obs_scale.count, np.sum(data.valid))


# ------------------------------------------------------------------------------------------------- where it may be


def test_chance_of_a_reward_at_every_place():
    env = GridNavi()
    kinds = [make(env, reward_model=kind, step_inputs=False, episodes=1) for kind in ("per_state", "bernoulli")]
    _, data, tasks = trials(kinds[0], env)
    for varibad in kinds:

        @jax.jit
        def told(data, tasks, varibad=varibad):
            params, x = varibad.init(KEY, env, 0).params, elbo.experience(data, env.spec, tasks)
            params = jax.tree.map(lambda x: x * 2, params)
            beliefs = varibad.beliefs(params, varibad.begin(params, KEY, (3, 1)))
            errors = varibad.elbo.reward_errors(params.model, jnp.zeros((4, 1, 2)), x)[:, 0]  # [B, L]
            return x, beliefs["pays"], errors, varibad.elbo.pays(params.model, jnp.zeros((1, 4)))[0]

        x, pays, error, chance = jax.device_get(told(data, tasks))
        assert pays.shape == (3, 25) and (pays > 0).all() and (pays < 1).all()
        chance, paid = chance[x.next_obs.astype(int) @ [5, 1]], x.reward > 0
        np.testing.assert_allclose(error, -np.log(np.where(paid, chance, 1 - chance)), rtol=1e-3)

    varibad = make(env)
    abstract = jax.eval_shape(lambda: varibad.init(KEY, env, 0).params)
    told = jax.eval_shape(lambda p: varibad.beliefs(p, varibad.begin(p, KEY, (3, 1))), abstract)
    assert not varibad.knows_where and set(told) == {"mean", "variance"}


def test_impossible_settings_are_refused():
    for options, message in (
        (dict(reward_weight=0.0), "all 0: the belief would learn nothing"),
        (dict(embeddings=(0, 0, 0)), "embeddings must not be negative and not all 0"),
        (dict(updates_per_epoch=3), r"updates_per_epoch \(3\) must divide tasks_per_iteration \(4\)"),
        (dict(kl_weight=-1.0), "kl_weight must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            Config(**{**TINY, **options})
    with pytest.raises(ValueError, match="per_state: the observations of point-robot are not a short list"):
        make(FAMILIES["continuous"], reward_model="per_state")
    with pytest.raises(ValueError, match="learn_from=regret"):
        make(FAMILIES["continuous"], learn_from="regret").check_family(FAMILIES["continuous"])


def test_a_supervised_belief_learns_the_task():
    """Only the task decoder: the belief's loss falls to what an agent can know."""
    env = FAMILIES["discrete"]
    varibad = make(
        env, reward_weight=0.0, task_weight=1.0, belief_updates=400, belief_learning_rate=1e-2, kl_weight=0.0
    )
    state, data, tasks = trials(varibad, env)
    state, _ = learn(varibad, state, data, tasks, KEY, True)
    state, metrics = infer(varibad, state, KEY)
    x, model = experience(env.spec, data, tasks), state.params.model
    found = jax.jit(lambda x: model.task(model.encoder(x)[:, -1, :2]))(x)
    np.testing.assert_allclose(found, x.task, atol=0.4)
    assert set(metrics) == {"belief/task", "belief/kl"} and state.params.model.reward is None


def test_families_on_the_host_train_as_well():
    """init is traced by the training loop, where host families cannot draw tasks; the rest of an iteration is not."""
    env = CheetahDir(horizon=5)
    varibad = make(env, tasks_per_iteration=2, updates_per_epoch=1, episodes=2)
    state = jax.jit(lambda k: varibad.init(k, env, 0))(KEY)
    before, after = np.array(state.params.actor.log_std), varibad.iterate(state, env, KEY, "iteration")[0]
    assert int(after.env_steps) == 20 and (np.asarray(after.params.actor.log_std) != before).all()
