"""MAML, E-MAML and ProMP piece by piece: meta-gradients against finite differences and exact expectations, the trust region, the
memory."""

import importlib.util
import itertools
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import nacre
from ender import Ender
from nacre import optim, rollout
from nacre.algorithms.maml import EMAML, MAML, Config, ExploringConfig
from nacre.algorithms.promp import Config as ProConfig
from nacre.algorithms.promp import ProMP
from nacre.algorithms.promp import Seen as ProSeen
from nacre.distributions import Actions
from nacre.envs.point_robot import PointRobot
from nacre.evaluate import meta_test
from nacre.types import Discrete, EnvSpec, Trajectory
from nacre.updates import adapting, inner, outer

KEY = jax.random.key(0)
TINY = dict(hidden=(5,), episodes_per_step=3, tasks_per_iteration=4)
FAMILIES = {"discrete": Ender(), "continuous": PointRobot(n_train=4, n_test=2, horizon=6)}


def maml(env, **options) -> MAML:
    return MAML(Config(**{**TINY, **options}), env.spec)


def promp(env, **options) -> ProMP:
    return ProMP(ProConfig(**{**TINY, **options}), env.spec)


# Each is one program, and not one of each of its operations.
@partial(jax.jit, static_argnums=(0, 1))
def begun(agent, env):
    return agent.init(KEY, env, 0)


@partial(jax.jit, static_argnums=(0, 2))
def begin(agent, params, rows):
    return agent.begin(params, KEY, rows)


@partial(jax.jit, static_argnums=(0, 1))
def experience(agent, env):
    """Parameters, and an iteration's rounds. Compiled once for all tests of the same agent."""
    params = agent.params(begun(agent, env))
    tasks = env.sample_tasks(KEY, agent.config.tasks_per_iteration)
    memory = agent.begin(params, KEY, (len(tasks), agent.config.episodes_per_step))
    return params, adapting.collect(env, agent, params, memory, tasks, KEY)[0]


@partial(jax.jit, static_argnums=0)
def seen_by(agent, rounds):
    return agent.experience(rounds)


@partial(jax.jit, static_argnums=0)
def credited(credit, data):
    return credit.round(data, data.reward)


@partial(jax.jit, static_argnums=0)
def pro_seen(agent, rounds):
    return ProSeen(*agent.adaptation.credit.rounds(rounds))


@partial(jax.jit, static_argnums=0)
def adapt(agent, params, memory, data):
    return agent.adapt(params, memory, data, KEY)


def mean_losses(agent, params, seen):
    return outer.mean_over_tasks(lambda s: agent.losses(params, s), seen)


def first(tree):
    return jax.tree.map(lambda x: np.asarray(x)[0], tree)


def raveled(tree):
    """[P] of all numbers, and the way back, in NumPy."""
    back = ravel_pytree(tree)[1]
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]), back


# ------------------------------------------------------------------------------------------------- steps of optimisation


@pytest.mark.parametrize("agent", [maml, promp])
@pytest.mark.parametrize("activation, by_hand", [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0.0))])
def test_the_policys_network(agent, activation, by_hand):
    env = FAMILIES["continuous"]
    policy = agent(env, activation=activation, action_range=2.0).init(KEY, env, 0).params.policy
    obs = np.random.default_rng(0).normal(size=(7, env.spec.obs_size)).astype(np.float32)
    (first, last), (shift, bias) = ([np.asarray(x) for x in part] for part in (policy.net.weights, policy.net.biases))
    expected = (by_hand(obs @ first + shift) @ last + bias) / 2.0
    np.testing.assert_allclose(policy(obs).raw, expected, rtol=1e-5, atol=1e-6)


def test_conjugate_gradients_solve():
    root = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    a, b = root @ root.T + np.eye(6, dtype=np.float32), np.arange(6, dtype=np.float32)
    solve = jax.jit(lambda b: optim.conjugate_gradients(lambda x: a @ x, b, 12))
    np.testing.assert_allclose(solve(b), np.linalg.solve(a, b), atol=1e-3)


def test_conjugate_gradients_of_nothing_are_nothing():
    assert not optim.conjugate_gradients(lambda x: 2 * x, jnp.zeros(3), 10).any()


@pytest.mark.parametrize("wall", [None, 0.3, 0.0])
def test_trust_region_step_never_gets_worse_or_too_far(wall):
    """A slope that becomes a wall sooner or later, with a divergence that grows faster than its second derivative says."""
    loss = lambda x: -x[0] if wall is None else jnp.where(jnp.abs(x[0]) > wall, 10.0, -x[0])  # noqa: E731
    far = lambda x: (x**2).sum() / 2 + (x**4).sum()  # noqa: E731

    @jax.jit
    def step(start, slope):
        both, region = lambda x: (loss(x), far(x)), optim.TrustRegion(0.5)
        new, told = optim.trust_region_step(both, start, slope, lambda v: v, loss(start), region)
        return new, told, both(start), both(new)

    start, slope = np.zeros(2, np.float32), np.asarray([-1.0, 0.0], np.float32)
    new, told, (before, _), (after, moved) = jax.device_get(step(start, slope))
    if wall == 0.0:
        assert not new.any() and not told["step/accepted"]
    else:
        assert after < before and 0 < moved <= 0.5 and told["step/accepted"]
        assert told["step/shrunk"] > 0 and new[0] <= (wall or 1)
        np.testing.assert_allclose(told["step/gain"], before - after, rtol=1e-5)


# -------------------------------------------------------------------------------------------------- meta-gradients


def doubled(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@partial(jax.jit, static_argnums=0)
def slopes(f, params, step=1e-5):
    """Of f in a direction in which all numbers change: as the gradient says, and by differences."""
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)
    move = lambda s: jax.tree.map(lambda x, d: x + s * d, params, direction)  # noqa: E731
    # one compiled copy of f for both differences
    above, below = jax.lax.map(f, jax.tree.map(lambda *x: jnp.stack(x), move(step), move(-step)))
    told = jax.tree.map(jnp.vdot, jax.grad(f)(params), direction)
    return sum(jax.tree.leaves(told)), (above - below) / (2 * step)


@pytest.mark.parametrize(
    ("family", "options"),
    [("discrete", {}), *(("continuous", o) for o in ({"inner_steps": 2}, {"learnt_rates": True}, {"inner_steps": 0}))],
    ids=str,
)
def test_meta_gradient_is_the_slope(family, options):
    """In float64, of MAML's outer loss through inner steps by the score function, E-MAML's term included."""
    env = FAMILIES[family]
    agent = maml(env, exploration="rewards" if options.get("inner_steps", 1) else "none", **options)
    params, rounds = experience(agent, env)
    with jax.enable_x64(True):
        seen = doubled(first(seen_by(agent, rounds)))
        told, found = slopes(lambda p: agent.losses(p, seen)[0], doubled(params))
        assert abs(told) > 1e-4
        np.testing.assert_allclose(told, found, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_promps_gradient_is_the_slope_after_some_epochs(family):
    """Away from the policy that acted, where ratios are not one and divergences not zero."""
    env = FAMILIES[family]
    agent = promp(env, inner_steps=2, kl_weight=0.5)
    params, rounds = experience(agent, env)
    with jax.enable_x64(True):
        seen, params = doubled(first(pro_seen(agent, rounds))), doubled(params)
        params = jax.tree.map(lambda x: x + 0.02 * np.cos(np.arange(x.size)).reshape(x.shape), params)
        objective = lambda p: agent.objective(p, jnp.full(2, 0.5), seen)  # noqa: E731
        told, found = slopes(lambda p: objective(p)[0], params)
        assert np.min(jax.jit(lambda p: objective(p)[1]["kl"])(params)) > 1e-6
        np.testing.assert_allclose(told, found, rtol=1e-5)


def meta_gradients(steps: int):
    """As benchmarks/meta_gradients.py has them, of its first policy."""
    path = Path(__file__).parents[2] / "benchmarks" / "meta_gradients.py"
    spec = importlib.util.spec_from_file_location("meta_gradients", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    return benchmark.gradients(steps)(benchmark.policy(0))


def test_surrogates_know_what_their_papers_say():
    """One env step: the ratio's curvature is all there is. Two: DICE has all of it, the ratio misses what one step does to the
    next, and the score function misses more."""
    one, two = meta_gradients(1), meta_gradients(2)
    norm = np.linalg.norm
    gap = lambda found, kind: norm(np.asarray(found[kind]) - found["exact"]) / norm(found["exact"])  # noqa: E731
    assert gap(one, "ratio") < 1e-4 and gap(one, "dice") < 1e-4 and gap(one, "score") > 0.02
    assert gap(two, "dice") < 1e-4
    assert 0.005 < gap(two, "ratio") < gap(two, "score")


def test_first_order_leaves_the_curvature_out():
    env = FAMILIES["continuous"]
    whole, plain = maml(env), maml(env, first_order=True)
    params, rounds = experience(whole, env)
    bare = maml(env, inner_steps=0)

    @jax.jit
    def gradients(params, seen):
        adapted = eqx.tree_at(lambda p: p.policy, params, whole.policy_after(params, seen.rounds))
        at_adapted = jax.grad(lambda p: bare.losses(p, eqx.tree_at(lambda s: s.rounds, seen, ()))[0])(adapted)
        of = lambda agent: jax.grad(lambda p: agent.losses(p, seen)[0])(params)  # noqa: E731
        return [ravel_pytree(g)[0] for g in (at_adapted, of(plain), of(whole))]

    at_adapted, of_plain, of_whole = gradients(params, first(seen_by(whole, rounds)))
    np.testing.assert_allclose(of_plain, at_adapted, atol=1e-6)
    assert np.abs(np.asarray(of_whole) - at_adapted).max() > 1e-4


@pytest.mark.parametrize(
    ("family", "options"), [("discrete", {}), ("continuous", {"surrogate": "ratio", "inner_steps": 2})], ids=str
)
def test_curvature_is_the_divergences_second_derivative(family, options):
    """Against the dense Hessian of the mean divergence."""
    env = FAMILIES[family]
    agent = maml(env, **options)
    params, rounds = experience(agent, env)
    seen = seen_by(agent, rounds)
    flat, back = raveled(params)
    # the Hessian of the whole has a term with the gradient of the divergence, which is zero here
    hessian = jax.jit(jax.hessian(lambda x: mean_losses(agent, back(x), seen)[1]))(flat)

    @jax.jit
    def products(params, seen):
        product = outer.curvature(agent.said, params, seen)
        return jax.lax.map(lambda v: ravel_pytree(product(back(v)))[0], np.eye(flat.size, dtype=np.float32))

    dense = products(params, seen)
    assert np.abs(hessian).max() > 1e-3
    np.testing.assert_allclose(dense, hessian, atol=2e-3 * np.abs(hessian).max())


@pytest.mark.parametrize("agent", [maml, promp])
@pytest.mark.parametrize("family", FAMILIES)
def test_before_the_outer_step_ratios_are_one_and_nothing_diverges(agent, family):
    env = FAMILIES[family]
    agent = agent(env, inner_steps=2)
    params, rounds = experience(agent, env)
    if isinstance(agent, MAML):
        seen = seen_by(agent, rounds)
        loss, divergence = jax.jit(partial(mean_losses, agent))(params, seen)
        mean = jax.jit(jax.vmap(inner.ppo.mean_of))(seen.last.advantage, seen.last.weight).mean()
        np.testing.assert_allclose(loss, -mean, atol=1e-5)
        np.testing.assert_allclose(divergence, 0.0, atol=1e-6)
    else:
        seen = first(pro_seen(agent, rounds))
        loss, told = jax.jit(lambda p, s: agent.objective(p, jnp.ones(2), s))(params, seen)
        mean = jax.jit(inner.ppo.mean_of)(seen.last.advantage, seen.last.weight)
        np.testing.assert_allclose(loss, -mean, atol=1e-5)
        np.testing.assert_allclose(told["kl"], 0.0, atol=1e-6)


def test_without_inner_steps_it_is_trpo():
    """The step goes along the natural gradient, solved densely."""
    env = FAMILIES["continuous"]
    agent = maml(env, inner_steps=0, damping=3e-2)
    params, rounds = experience(agent, env)
    seen = seen_by(agent, rounds)
    flat, back = raveled(params)
    state, losses = begun(agent, env), jax.jit(lambda x, i: mean_losses(agent, back(x), seen)[i], static_argnums=1)
    g = np.asarray(jax.jit(jax.grad(lambda x: losses(x, 0)))(flat))
    hessian = np.asarray(jax.jit(jax.hessian(lambda x: losses(x, 1)))(flat)) + 3e-2 * np.eye(flat.size)
    state, _ = jax.jit(lambda state, seen: agent.learn(state, seen, jnp.zeros((), jnp.int32)))(state, seen)
    moved, natural = raveled(state.params)[0] - flat, -np.linalg.solve(hessian, g)
    cosine = moved @ natural / np.linalg.norm(moved) / np.linalg.norm(natural)
    assert cosine > 0.99


# ------------------------------------------------------------------------------------------------------ credit, memory


def test_advantages_have_a_standard_deviation_of_one_per_task_and_ends_do_not_count():
    env = FAMILIES["discrete"]
    agent = maml(env, episodes_per_step=12)
    _, rounds = experience(agent, env)
    seen = seen_by(agent, rounds).last
    for advantage, weight in zip(np.asarray(seen.advantage), np.asarray(seen.weight) > 0, strict=True):
        assert not weight.all() and not advantage[~weight].any()
        np.testing.assert_allclose(advantage[weight].mean(), 0.0, atol=1e-5)
        np.testing.assert_allclose(advantage[weight].std(), 1.0, atol=1e-3)


def test_advantages_are_discounted_returns_less_the_linear_baseline():
    env = FAMILIES["discrete"]
    credit = inner.Credit(0.9, 1.0, False, "none")
    _, (data, *_) = experience(maml(env), env)
    seen, reward, valid = jax.device_get(credited(credit, data)), np.asarray(data.reward), np.asarray(data.valid)
    for n, e in itertools.product(range(4), range(3)):
        for t in np.flatnonzero(valid[n, e]):
            wanted = sum(0.9 ** (s - t) * reward[n, e, s] for s in range(t, reward.shape[-1]))
            np.testing.assert_allclose(seen.advantage[n, e, t], wanted, rtol=1e-5)
    fitted = credited(inner.Credit(0.9, 1.0, False, "linear"), data)
    spread = lambda r: (np.asarray(r.advantage) ** 2 * r.weight).sum()  # noqa: E731
    assert spread(fitted) < 0.7 * spread(seen)  # the baseline says something


def test_dice_gains_are_discounted_from_the_beginning_less_the_mean_of_the_step():
    env = FAMILIES["continuous"]
    _, (data, *_) = experience(maml(env), env)
    gain = np.asarray(credited(inner.Credit(0.9, 1.0, False, "none"), data).gain)
    reward = np.asarray(data.reward)
    np.testing.assert_allclose(gain, (reward - reward.mean(axis=1, keepdims=True)) * 0.9 ** np.arange(6), atol=1e-5)


@pytest.mark.parametrize("agent", [maml, promp])
@pytest.mark.parametrize("family", FAMILIES)
def test_episodes_one_by_one_adapt_as_a_round_does(agent, family):
    env = FAMILIES[family]
    agent = agent(env)
    params, (data, _) = experience(agent, env)
    data, memory = jax.device_get(data), begin(agent, params, (4, 1))
    whole = adapt(agent, params, begin(agent, params, (4, 3)), data)
    for e in range(3):
        assert not np.any(memory.steps)
        jax.tree.map(np.testing.assert_array_equal, first(memory.adapted), params.policy)
        memory = adapt(agent, params, memory, jax.tree.map(lambda x, e=e: x[:, e : e + 1], data))
    assert (np.asarray(memory.steps) == 1).all() and not np.any(memory.count)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), memory.adapted, whole.adapted)
    moved = np.asarray(jax.jit(agent.beliefs)(params, memory)["moved"])
    assert moved.shape == (4, 1) and moved.min() > 0
    # and it is the step that meta-training differentiates
    seen = first(credited(agent.adaptation.credit, data))
    step = jax.jit(lambda p, seen: inner.adapted(p.policy, p.rates, (seen,), agent.adaptation.surrogate))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), step(params, seen), first(whole.adapted))


def test_meta_test_takes_as_many_steps_as_it_may_and_later_ones_shorter():
    env = FAMILIES["continuous"]
    agent = maml(env, test_steps=2, later_rate=0.5)
    params, (data, _) = experience(agent, env)
    assert agent.test_episodes == 9 and agent.test_exploration == 6
    memories = [begin(agent, params, (4, 3))]
    for _ in range(3):
        memories.append(adapt(agent, params, memories[-1], data))
    flat = [raveled(first(m.adapted))[0] for m in memories]
    other = maml(env, test_steps=2)
    same = adapt(other, params, adapt(other, params, begin(other, params, (4, 3)), data), data)
    np.testing.assert_allclose(flat[2] - flat[1], 0.5 * (raveled(first(same.adapted))[0] - flat[1]), atol=1e-6)
    np.testing.assert_array_equal(flat[3], flat[2])
    assert (np.asarray(memories[3].steps) == 2).all()


@pytest.mark.parametrize("agent", [maml, promp])
def test_rounds_of_meta_test_may_have_other_numbers_of_episodes(agent):
    env = FAMILIES["continuous"]
    other, plain = agent(env, test_episodes_per_step=5), agent(env)
    assert (plain.test_episodes, plain.test_exploration) == (6, 3)
    assert (other.test_episodes, other.test_exploration) == (10, 5)
    state = begun(plain, env)
    shots = meta_test(env, other, state.params, env.test_tasks, KEY, episodes=10)
    assert (shots.beliefs["steps"][0, :, 0, 0] == [0] * 5 + [1] * 5).all() and shots.beliefs["moved"][0, -1].min() > 0
    trained = [one.iterate(state, env, KEY, "iteration")[0].params for one in (plain, other)]
    jax.tree.map(np.testing.assert_array_equal, *trained)


def test_it_acts_stochastically_until_its_last_step():
    env = FAMILIES["continuous"]
    agent = maml(env)
    params, (data, _) = experience(agent, env)
    act, obs = jax.jit(agent.act, static_argnums=4), np.zeros((4, 3, 2), np.float32)
    acted = lambda m, k: np.asarray(act(params, m, obs, jax.random.key(k), False)[0])  # noqa: E731
    memory = begin(agent, params, (4, 3))
    assert (acted(memory, 0) != acted(memory, 1)).all()
    after = adapt(agent, params, memory, data)
    np.testing.assert_array_equal(acted(after, 0), acted(after, 1))


def test_without_adaptation_it_acts_as_after_its_last_step():
    env = FAMILIES["continuous"]
    agent = maml(env, test_steps=2)
    params, (data, _) = experience(agent, env)
    memory = agent.begin_unadapted(params, jax.random.key(0), (4, 3))
    obs = np.zeros((4, 3, 2), np.float32)
    one, two = (np.asarray(agent.act(params, memory, obs, jax.random.key(k), False)[0]) for k in range(2))
    np.testing.assert_array_equal(one, two)
    after = adapt(agent, params, memory, data)
    for old, new in zip(jax.tree.leaves(memory.adapted), jax.tree.leaves(after.adapted), strict=True):
        np.testing.assert_array_equal(old, new)


def test_emaml_adds_what_exploration_is_credited_with():
    env = FAMILIES["continuous"]
    plain = maml(env)
    params, rounds = experience(plain, env)
    for which in ("rewards", "returns"):
        agent = EMAML(ExploringConfig(**TINY, exploration=which, exploration_weight=0.5), env.spec)
        one, before = first(seen_by(agent, rounds)), first(rounds[0])
        log_prob = np.asarray(jax.jit(lambda p, x: p.policy(x.obs).log_prob(x.action))(params, before))
        total = log_prob.sum() if which == "returns" else log_prob.mean()
        reward = np.asarray(rounds[1].reward)
        if (
            which == "rewards"
        ):  # ProMP, meta_sample_processor.py: by the deviation of single env steps, not of tasks' means
            reward = (reward - reward.mean()) / reward.std()
        explored = reward.mean(axis=(1, 2)) - reward.mean()
        difference = jax.jit(lambda p, s, a=agent: a.losses(p, s)[0] - plain.losses(p, s)[0])(params, one)
        np.testing.assert_allclose(difference, -0.5 * explored[0] * total, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("schedule", [dict(test_steps=1), dict(later_rate=0.5), dict(test_steps=1, later_rate=0.5)])
def test_the_schedule_of_meta_test_is_not_for_meta_training(schedule):
    """What acted is what is differentiated: nothing diverges from it before the outer step."""
    env = FAMILIES["continuous"]
    agent = maml(env, inner_steps=3, inner_rate=0.5, **schedule)
    params, rounds = experience(agent, env)
    divergence = jax.jit(lambda p, s: mean_losses(agent, p, s)[1])(params, seen_by(agent, rounds))
    assert len(rounds) == 4 and abs(divergence) < 1e-5


def test_promps_divergence_is_that_after_all_epochs():
    agent = promp(FAMILIES["continuous"], epochs=1, learning_rate=0.1, kl_target=1e-6)
    seen = pro_seen(agent, experience(agent, FAMILIES["continuous"])[1])
    state, metrics = jax.jit(agent.learn)(begun(agent, FAMILIES["continuous"]), seen, 1)
    assert metrics["policy/kl"] > 1e-4 and (state.kl_weights > agent.config.kl_weight).all()


@pytest.mark.parametrize("kind", ["score", "ratio", "dice"])
def test_surrogates_have_the_policy_gradient_where_episodes_end_early(kind):
    """Each env step pays 1 and one of two actions ends the episode: J = sum_t (1 - p)^t over six steps."""
    spec = EnvSpec("ends", 2, Discrete(2), 6, True, can_terminate=True)
    policy = inner.Policy(spec, (4,), 1.0, 1.0, 1e-6, key=KEY)
    p = float(jax.nn.softmax(policy(jnp.ones(2)).raw)[1])
    ends = np.random.default_rng(0).uniform(size=(1, 20_000, 6)) < p
    valid = np.concatenate([np.ones((1, 20_000, 1), bool), np.cumprod(~ends, axis=-1)[..., :-1] > 0], axis=-1)
    obs, reward, action = (
        np.ones((*valid.shape, 2), np.float32) * valid[..., None],
        valid.astype(np.float32),
        ends & valid,
    )
    log_prob = np.log(np.where(action, p, 1.0 - p)).astype(np.float32)
    data = Trajectory(obs, action.astype(np.int32), reward, reward, obs, action, valid, {"log_prob": log_prob})
    seen = first(credited(inner.Credit(1.0, 1.0, False, "none"), data))
    gradient = jax.jit(jax.grad(lambda q: inner.surrogate(kind, q, seen)))(policy).net.biases[-1]
    worth = sum((1.0 - p) ** t for t in range(6))
    wanted = p * (1.0 - p) * sum(t * (1.0 - p) ** (t - 1) for t in range(1, 6)) / worth
    np.testing.assert_allclose(gradient, [-wanted, wanted], rtol=0.05)


def test_promps_weight_follows_its_target():
    agent = promp(FAMILIES["continuous"], kl_target=0.01, inner_steps=3)
    np.testing.assert_allclose(agent.next_weights(jnp.ones(3), jnp.asarray([0.001, 0.01, 0.1])), [0.5, 1.0, 2.0])
    still = promp(FAMILIES["continuous"])
    assert still.next_weights(jnp.ones(1), jnp.asarray([5.0])) == 1.0


OTHERS = {
    "maml": maml, "promp": promp, "ppo": partial(maml, outer="ppo"),
    "gradient": partial(maml, outer="gradient", learnt_rates=True, surrogate="dice", standardise=False),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "family"), [(name, "discrete" if name == "promp" else "continuous") for name in OTHERS]
)
def test_an_iteration_counts_and_moves_everything(name, family):
    env = FAMILIES[family]
    agent = OTHERS[name](env)
    state = begun(agent, env)
    new, metrics = jax.jit(lambda s, k: agent.iterate(s, env, k, "iteration"))(state, KEY)
    before, after = (raveled(s.params)[0] for s in (state, new))
    if metrics.get("step/accepted", 1.0):  # with so few episodes a step may be refused
        assert np.mean(before != after) > 0.8
    else:
        np.testing.assert_array_equal(before, after)
    assert 0 < int(new.env_steps) <= agent.iteration_env_steps and int(new.updates) > 0
    assert set(metrics) <= set(agent.metrics_help) and all(np.isfinite(float(x)) for x in metrics.values())


def test_divergence_of_actions_is_the_mean_log_ratio():
    """Against a sum over many draws."""
    say = lambda *rows: [np.asarray(row, np.float32) for row in rows]  # noqa: E731
    old, new = Actions(*say([0.3, -0.2], [-0.5, 0.1])), Actions(*say([0.0, 0.4], [0.0, -0.3]))
    a, b = (Actions(*say(row), None) for row in ([0.0, 1.0, 2.0], [1.0, 1.0, -1.0]))

    @jax.jit
    def of():
        drawn = jax.vmap(lambda k: old.draw(k, True))(jax.random.split(KEY, 200_000))
        return old.kl(new), (old.log_prob(drawn) - new.log_prob(drawn)).mean(), a.kl(b)

    told, drawn, discrete = of()
    np.testing.assert_allclose(told, drawn, rtol=0.02)
    p, q = (np.exp(x.raw) / np.exp(x.raw).sum() for x in (a, b))
    np.testing.assert_allclose(discrete, (p * np.log(p / q)).sum(), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("agent", "bad", "named"), [
    (maml, {"surrogate": "dice"}, "standardise"), (maml, {"surrogate": "ratio", "first_order": True}, "first_order"),
    (maml, {"inner_steps": 0, "exploration": "rewards"}, "exploration"), (maml, {"inner_rate": 0.0}, "inner_rate"),
    (maml, {"trust_region": -1.0}, "trust_region"), (promp, {"kl_target": 0.1, "kl_weight": 0.0}, "kl_target"),
    (promp, {"inner_steps": 0}, "inner_steps"), (promp, {"episodes_per_step": 0}, "episodes_per_step"),
])  # fmt: skip
def test_contradictions_are_refused_by_name(agent, bad, named):
    with pytest.raises(ValueError, match=named):
        agent(FAMILIES["continuous"], **bad)


def test_the_same_seed_meta_tests_the_same():
    env = FAMILIES["continuous"]
    agent = maml(env)
    params = agent.params(begun(agent, env))
    run = jax.jit(lambda key: rollout.trial(env, agent, params, env.test_tasks, key, episodes=4)[0].reward)
    np.testing.assert_array_equal(run(KEY), run(KEY))


def test_an_exploding_inner_step_stops_with_its_task(tmp_path):
    options = dict(
        TINY, inner_rate=1e30, env_steps=1000, eval_every=1000, eval_episodes=1
    )  # its evaluation takes no step
    with pytest.raises(nacre.RunError, match=r"of task \d of this iteration by (nan|inf).*inner_rate"):
        nacre.train("maml", FAMILIES["continuous"], seed=0, out=tmp_path / "run", progress=False, **options)


def test_a_meta_test_acts_the_episodes_of_a_round_at_once():
    """As whole rounds, and what comes out is that of the episodes one after another; an odd number is acted one by one."""
    env = FAMILIES["continuous"]
    agent = promp(env)
    params = agent.params(begun(agent, env))
    tasks = env.test_tasks
    run = jax.jit(lambda k: rollout.trial(env, agent, params, tasks, KEY, episodes=k), static_argnums=0)
    data, beliefs = run(6)
    assert data.obs.shape == (6, 2, 1, 6, 2) and beliefs["steps"].shape == (6, 2, 1)
    np.testing.assert_array_equal(np.asarray(beliefs["steps"])[:, 0, 0], [0, 0, 0, 1, 1, 1])
    first_round = jax.tree.map(lambda x: np.moveaxis(np.asarray(x)[:3, :, 0], 0, 1), data)

    @jax.jit
    def moved(params, data):
        return agent.beliefs(params, agent.adapt(params, agent.begin(params, KEY, (2, 3)), data, KEY))["moved"]

    np.testing.assert_allclose(np.asarray(beliefs["moved"])[3], moved(params, first_round), rtol=1e-5)
    assert len({float(x) for x in np.asarray(data.obs)[:, 0, 0, 0, 0]}) == 6, "each begins in a place of its own"
    assert rollout.round_episodes(agent, 5) == 1
