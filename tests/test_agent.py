"""Deployment: the policy in the field computes what the meta-test computed, and says what is wrong with a call."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import nacre
from nacre import _checkpoints, _settings, rollout, runs
from nacre import evaluate as meta
from nacre._errors import UserError
from nacre.agent import Agent, agent_of
from nacre.algorithms.pearl import PEARL, Config, Params
from nacre.envs.as_gymnasium import TaskEnv
from nacre.envs.point_robot import SparsePointRobot
from nacre.types import Box, Discrete, EnvSpec, Step

ROBOT = SparsePointRobot(horizon=8)


@functools.cache
def pearl_agent(env=ROBOT, spec=None, **changes):
    """Untrained, all outputs far from their tiny initial size."""
    spec = env.spec if spec is None else spec
    algorithm = PEARL(Config(hidden=(16,), encoder_hidden=(16,), exploration_episodes=1, **changes), spec)
    nets = algorithm.networks(jax.random.key(1))
    params = jax.tree.map(lambda w: w * 20, Params(nets.encoder, nets.sac.policy))
    return Agent(algorithm, params, env, "pearl", spec.name)


@dataclass(frozen=True)
class Hall:
    """A line from 0: an action in [1, 3] moves by a tenth of it; the episode ends beyond the task's length."""

    spec: ClassVar = EnvSpec("hall", 1, Box((1.0,), (3.0,)), horizon=6, jittable=True, can_terminate=True)
    train_tasks = test_tasks = np.array([0.45, 9.0], np.float32)

    def reset(self, key, tasks):
        position = jnp.zeros((len(tasks), 1))
        return (position, tasks), position

    def step(self, state, action, active):
        position = state[0] + action / 10
        return (position, state[1]), Step(position, position[:, 0], position[:, 0], position[:, 0] > state[1])

    def oracle(self, tasks, obs, t):
        return None


class Seen(eqx.Module):
    total: jax.Array  # [N] rewards observed
    ends: jax.Array  # [N, 2] terminals and truncations observed
    acts: jax.Array  # [N]
    chances: jax.Array  # [N] sum of extras of the episodes adapted to


@dataclass(frozen=True)
class Learner:
    """Learns inside the episode and brings extras: everything that a policy must pass on shows in its memory."""

    spec: EnvSpec

    def begin(self, params, key, rows):
        n = jnp.zeros(rows[0])
        return Seen(n, jnp.zeros((rows[0], 2)), n, n)

    def act(self, params, memory, obs, key, explore):
        noise = jax.random.uniform(key, obs.shape) if explore else 0.3
        action = jnp.tanh(obs - memory.total[:, None, None]) * params + noise
        return action, {"chance": action[..., 0] * 2}, eqx.tree_at(lambda m: m.acts, memory, memory.acts + 1)

    def observe(self, params, memory, transition):
        step = transition
        ends = memory.ends + jnp.stack([step.terminal[:, 0] & step.valid[:, 0], step.truncated[:, 0]], axis=-1)
        total = memory.total + (step.reward * step.valid)[:, 0] + 0.01 * (step.next_obs - step.obs)[:, 0, 0]
        return Seen(total, ends, memory.acts, memory.chances)

    def adapt(self, params, memory, episodes, key):
        chance = (episodes.extras["chance"] * episodes.valid).sum(axis=(1, 2))
        return Seen(memory.total, memory.ends, memory.acts, memory.chances + chance + jax.random.uniform(key))

    def beliefs(self, params, memory):
        return {"total": memory.total, "ends": memory.ends, "acts": memory.acts, "chances": memory.chances}


def live(agent, env, episodes, seed=0, explore=False):
    """Returns, beliefs at the end of each episode before adapting, and beliefs after all, of a hand-made loop."""
    policy = agent.start(seed, explore)
    returns, beliefs = np.zeros(episodes), []
    for k in range(episodes):
        obs, _ = env.reset()
        over = False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
            policy.observe(reward, obs, terminated, truncated)
            returns[k] += reward
            over = terminated or truncated
        beliefs.append(policy.beliefs)
        policy.end_episode()
    return returns, {name: np.stack([b[name] for b in beliefs]) for name in beliefs[0]}, policy.beliefs


# ------------------------------------------------------------------------------------ the same numbers as rollout


@pytest.mark.parametrize("explore, changes", [
    (False, {}),
    (True, {"encoder": "gru"}),
    (True, {"latent": "deterministic", "context_next_obs": True}),
])  # fmt: skip
def test_pearl_in_the_field_is_pearl_in_the_meta_test(explore, changes):
    agent = pearl_agent(latent_size=3, **changes)
    task = np.array([0.2, 0.1], np.float32)  # rewarding from the start, so that context carries rewards
    options = {"episodes": 4, "explore": explore}
    run = jax.jit(lambda key: rollout.trial(ROBOT, agent.algorithm, agent.params, task[None], key, **options))
    data, beliefs = run(jax.random.key(5))
    returns, field, last = live(agent, TaskEnv(ROBOT, task), 4, seed=5, explore=explore)
    np.testing.assert_allclose(returns, data.episode_return[:, 0, 0], rtol=1e-4, atol=1e-5)
    assert np.ptp(returns) > 1e-3 and returns.max() > 0.5
    for name in ("mean", "variance", "z"):
        np.testing.assert_allclose(field[name], beliefs[name][:, 0], rtol=1e-3, atol=1e-4)
    assert np.ptp(field["mean"], axis=0).min() > 0.01
    adapted = agent.adapt(TaskEnv(ROBOT, task), episodes=4, seed=5, explore=explore)
    np.testing.assert_allclose(adapted.returns, returns, rtol=1e-5)
    np.testing.assert_array_equal(adapted.lengths, [8] * 4)
    np.testing.assert_allclose(adapted.policy.beliefs["mean"], last["mean"], rtol=1e-5)
    assert adapted.policy.episode == 4
    adapted.policy.act(np.zeros(2))  # ready to go on


def test_copies_go_their_own_way():
    agent = pearl_agent(latent_size=3)
    task = np.array([0.2, 0.1], np.float32)
    policy = agent.adapt(TaskEnv(ROBOT, task), episodes=5, seed=5).policy
    before, other = policy.beliefs, policy.copy()
    assert other.episode == policy.episode == 5
    np.testing.assert_array_equal(other.act(np.zeros(2)), policy.act(np.zeros(2)))
    other.observe(0.9, np.zeros(2))
    with pytest.raises(RuntimeError, match="copy was called within an episode"):
        other.copy()
    other.end_episode()
    assert other.episode == 6 and policy.episode == 5
    np.testing.assert_array_equal(policy.beliefs["mean"], before["mean"])
    assert not np.array_equal(other.beliefs["mean"], before["mean"])
    policy.observe(0.9, np.zeros(2))  # its own action still waits for its outcome


def test_what_is_saved_is_whole_and_the_same_agents(tmp_path):
    agent, path = pearl_agent(latent_size=3), tmp_path / "robot"
    policy = agent.adapt(TaskEnv(ROBOT, np.array([0.2, 0.1], np.float32)), episodes=2, seed=5).policy
    policy.save(path)
    np.testing.assert_array_equal(agent.restore(path).beliefs["mean"], policy.beliefs["mean"])
    with pytest.raises(UserError, match=r"no file .*other; policy.save"):
        agent.restore(tmp_path / "other")
    with pytest.raises(OSError, match="nowhere"):
        policy.save(tmp_path / "nowhere" / "robot")
    trained_on = dataclasses.replace(agent, params=jax.tree.map(lambda w: w + 1, agent.params))
    with pytest.raises(UserError, match=r"another agent \(parameters"):
        trained_on.restore(path)
    with pytest.raises(UserError, match="another agent"):
        pearl_agent(latent_size=2).restore(path)
    whole = path.read_bytes()
    header = whole.index(b"NUMPY") + 200  # behind it: numbers
    flipped = whole[:header] + bytes([whole[header] ^ 1]) + whole[header + 1 :]
    for damaged in (b"", b"text", whole[:-40], whole[: len(whole) // 2], flipped):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            agent.restore(path)
    policy.act(np.zeros(2))
    for call in (policy.warm_up, lambda: policy.save(path)):
        with pytest.raises(RuntimeError, match="was called within an episode"):
            call()


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("task", [0, 1])
def test_learning_inside_the_episode_ends_and_extras(task, explore):
    agent = Agent(Learner(Hall.spec), jnp.float32(0.7), Hall(), "learner", "hall")
    tasks = Hall.test_tasks[task : task + 1]
    run = jax.jit(
        lambda key: rollout.trial(Hall(), agent.algorithm, agent.params, tasks, key, episodes=3, explore=explore)
    )
    data, beliefs = run(jax.random.key(2))
    returns, field, _ = live(agent, TaskEnv(Hall(), tasks[0]), 3, seed=2, explore=explore)
    np.testing.assert_allclose(returns, data.episode_return[:, 0, 0], rtol=1e-5)
    for name in ("total", "ends"):  # at an episode's end what they are at the next one's start
        np.testing.assert_allclose(field[name][:-1], beliefs[name][1:, 0], rtol=1e-4)
    np.testing.assert_allclose(field["chances"], beliefs["chances"][:, 0], rtol=1e-4)
    np.testing.assert_array_equal(field["ends"][:, task], [1, 2, 3])  # terminals of the short hall, else truncations
    assert field["chances"][1] != 0 and (data.valid.sum() < 18) == (task == 0)


@pytest.mark.parametrize("flags, ends", [
    ((False, False), [0, 1]),  # the horizon is a time limit, even where the environment goes on
    ((False, True), [0, 1]),
    ((True, False), [1, 0]),
    ((True, True), [1, 0]),  # a terminal is not a truncation
])  # fmt: skip
def test_an_agent_that_learns_inside_the_episode_is_told_how_it_ended(flags, ends):
    policy = Agent(Learner(Hall.spec), 0.7, Hall(), "learner", "hall").start()
    for t in range(6):
        policy.act([0.0])
        policy.observe(1.0, [0.0], *(flags if t == 5 else ()))
    np.testing.assert_array_equal(policy.beliefs["ends"], ends)
    assert policy.over and policy.beliefs["total"] == 6


def test_another_seed_draws_another_z_and_the_same_seed_the_same():
    agent = pearl_agent()
    z = [agent.start(seed).beliefs["z"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(z[0], z[1])
    assert (z[0] != z[2]).all()
    explored = [agent.start(seed, explore=True).act(np.zeros(2)).tolist() for seed in (0, 0)]
    assert explored[0] == explored[1] != agent.start(0).act(np.zeros(2)).tolist()


def test_actions_are_in_the_environments_units_and_the_callers_own():
    agent = Agent(Learner(Hall.spec), 0.0, Hall(), "learner", "hall")  # acts 0.3 in [-1, 1]
    policy = agent.start()
    action = policy.act([0.0])
    assert type(action) is np.ndarray and action.dtype == np.float32 and action.shape == (1,)
    assert action[0] == pytest.approx(1 + 1.3 / 2 * 2)
    action += 1  # writable
    discrete = pearl_agent(spec=EnvSpec("keys", 2, Discrete(4), horizon=8, jittable=True))
    action = discrete.start(explore=True).act(np.zeros(2))
    assert type(action) is int and 0 <= action < 4


def test_observations_are_copied():
    """Environments may write their next observation into the array they gave before."""
    kept, reused = pearl_agent().start(), pearl_agent().start()
    buffer = np.zeros(2, np.float32)
    for t in range(3):
        old, new = np.array([t, 0.5], np.float32), np.array([t + 1, 0.5], np.float32)
        kept.act(old)
        kept.observe(1.0, new)
        buffer[:] = old
        reused.act(buffer)
        buffer[:] = new
        reused.observe(1.0, buffer)
    kept.end_episode()
    reused.end_episode()
    np.testing.assert_array_equal(kept.beliefs["mean"], reused.beliefs["mean"])


def test_an_episode_cut_short_counts_what_was_seen():
    policy = pearl_agent().start()
    precision = []
    for steps in (1, 3):
        for _ in range(steps):
            policy.act(np.zeros(2))
            policy.observe(0.0, np.zeros(2))
        policy.end_episode()
        precision.append(1 / policy.beliefs["variance"])
    np.testing.assert_allclose(precision[1] / precision[0], 4, rtol=0.5)  # 1, then 4 transitions
    assert (precision[1] > 2 * precision[0]).all()


def test_compiled_once_for_all_policies_of_an_agent():
    agent = pearl_agent()
    first = agent.start()
    first.act(np.zeros(2))
    size = first._programs.act._cache_size()
    for seed in range(3):
        policy = agent.start(seed)
        for _ in range(2):
            policy.act(np.zeros(2))
            policy.observe(0.0, np.zeros(2))
    assert policy._programs is first._programs and first._programs.act._cache_size() == size == 1


# ------------------------------------------------------------------------------------------------ wrong calls


def test_calls_out_of_order_say_what_comes_first():
    policy, obs = pearl_agent().start(), np.zeros(2)
    with pytest.raises(RuntimeError, match=r"observe was called without an action.*call act\(obs\) first"):
        policy.observe(0.0, obs)
    with pytest.raises(RuntimeError, match="end_episode was called without a step"):
        policy.end_episode()
    policy.act(obs)
    with pytest.raises(RuntimeError, match="act was called twice in a row"):
        policy.act(obs)
    with pytest.raises(RuntimeError, match=r"no outcome yet: call observe\(\)"):
        policy.end_episode()
    policy.observe(0.0, obs)
    with pytest.raises(RuntimeError, match="without an action"):
        policy.observe(0.0, obs)


@pytest.mark.parametrize("ends, steps", [((True, False), 1), ((False, True), 1), ((False, False), 8)])
def test_a_forgotten_end_episode_is_noticed(ends, steps):
    policy, obs = pearl_agent().start(), np.zeros(2)
    for _ in range(steps):
        assert not policy.over
        policy.act(obs)
        policy.observe(0.0, obs, *ends)
    assert policy.over
    with pytest.raises(RuntimeError, match=rf"over after {steps} env steps .*horizon of 8.*call end_episode\(\)"):
        policy.act(obs)
    policy.end_episode()
    policy.act(obs)
    assert policy.episode == 1 and policy.steps == 0


@pytest.mark.parametrize("obs, error, message", [
    (np.zeros(3), ValueError, r"obs must be numbers of the shape \(2,\), got \(3,\); flatten it"),
    ({"x": np.zeros(2)}, ValueError, r"obs must be numbers of the shape \(2,\), got a dict; flatten it"),
    (np.zeros((1, 2)), ValueError, r"got \(1, 2\)"),
    (0.0, ValueError, r"got \(\)"),
    ([0.0, np.nan], FloatingPointError, r"obs at env step 0 of episode 0 is \[0.0, nan\]"),
    ([np.inf, 0.0], FloatingPointError, "expected finite numbers"),
])  # fmt: skip
def test_bad_observations(obs, error, message):
    policy = pearl_agent().start()
    with pytest.raises(error, match=message):
        policy.act(obs)
    policy.act(np.zeros(2))
    with pytest.raises(error, match=message.replace("obs ", "next_obs ")):
        policy.observe(0.0, obs)
    policy.observe(0.0, np.zeros(2))  # a refused call left no trace


@pytest.mark.parametrize("reward, error", [(np.nan, FloatingPointError), (np.inf, FloatingPointError),
                                           ([1.0, 2.0], ValueError)])  # fmt: skip
def test_bad_rewards(reward, error):
    policy = pearl_agent().start()
    policy.act(np.zeros(2))
    policy.observe(np.array([0.5]), np.zeros(2))
    policy.act(np.zeros(2))
    with pytest.raises(error, match=r"reward (at env step 1 of episode 0 is|must be one number)"):
        policy.observe(reward, np.zeros(2))
    policy.observe(0.0, np.zeros(2))
    assert policy.steps == 2


# ------------------------------------------------------------------------------------ gymnasium environments


class Room(gymnasium.Env):
    """Dict observations, actions [2, 1] with bounds of their own; never ends by itself; reward 1 a step."""

    def __init__(self, high=1.0):
        self.observation_space = spaces.Dict({"door": spaces.Discrete(3), "at": spaces.Box(-9, 9, (2,))})
        self.action_space = spaces.Box(np.zeros((2, 1), np.float32), np.full((2, 1), high, np.float32))
        self.seeds, self.actions = [], []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return {"door": 1, "at": np.zeros(2, np.float32)}, {}

    def step(self, action):
        self.actions.append(action)
        return {"door": 2, "at": np.ones(2, np.float32)}, 1.0, False, False, {}


ROOM = EnvSpec("room", 5, Box((0.0, 0.0), (1.0, 1.0)), horizon=7, jittable=False, trial_episodes=2)


def test_adapt_flattens_shapes_and_stops_at_the_horizon():
    agent, env = pearl_agent(spec=ROOM), Room()
    adapted = agent.adapt(env, seed=4)
    assert adapted.returns.tolist() == [7, 7] and adapted.lengths.tolist() == [7, 7]  # the protocol's episodes
    assert env.seeds == [4, None] and all(env.action_space.contains(action) for action in env.actions)


def test_adapt_honours_the_environments_own_limits():
    limited = gymnasium.wrappers.TimeLimit(Room(), 3)
    assert pearl_agent(spec=ROOM).adapt(limited, episodes=2).lengths.tolist() == [3, 3]
    cart = EnvSpec("cart", 4, Discrete(2), horizon=500, jittable=False)
    adapted = pearl_agent(spec=cart).adapt(gymnasium.make("CartPole-v1"), episodes=2)
    np.testing.assert_array_equal(adapted.returns, adapted.lengths)  # a reward per step until the pole falls
    assert adapted.lengths.max() < 500


@pytest.mark.parametrize("env, message", [
    (lambda: Room(high=2.0), r"actions Box\(low=\(0.0, 0.0\), high=\(2.0, 2.0\)\).*trained on room.*high=\(1.0, 1.0\)"),
    (lambda: gymnasium.make("CartPole-v1"), r"has 4 observations and actions Discrete\(n=2\).*5 observations"),
    (lambda: gymnasium.make("Pendulum-v1"), "has 3 observations"),
])  # fmt: skip
def test_other_spaces_are_refused_by_name(env, message):
    with pytest.raises(ValueError, match=message):
        pearl_agent(spec=ROOM).adapt(env())


def test_what_is_not_one_gymnasium_environment_is_refused():
    agent = pearl_agent(spec=ROOM)
    for wrong in (ROBOT, gymnasium.make_vec("CartPole-v1", num_envs=2)):
        with pytest.raises(TypeError, match=r"expected a single gymnasium\.Env"):
            agent.adapt(wrong)
    with pytest.raises(UserError, match="episodes must be at least 1, got 0"):
        agent.adapt(Room(), episodes=0)


def test_wrong_reset_step_and_nan_rewards_of_an_environment():
    agent, env = pearl_agent(spec=ROOM), Room()
    env.reset = lambda **_: np.zeros(5)
    with pytest.raises(TypeError, match=r"reset\(\) of the environment must return \(observation, info\)"):
        agent.adapt(env)
    env = Room()
    env.step = lambda action: (Room().reset()[0], 0.0, False, {})
    with pytest.raises(TypeError, match=r"step\(\) .* \(observation, reward, terminated, truncated, info\)"):
        agent.adapt(env)
    env = Room()
    env.step = lambda action: (Room().reset()[0], float("nan"), False, False, {})
    with pytest.raises(FloatingPointError, match="reward at env step 0 of episode 0 is nan"):
        agent.adapt(env)


# ------------------------------------------------------------------------------------------- runs, evaluation


def test_agents_evaluate():
    agent = Agent(Learner(Hall.spec), jnp.float32(0.7), Hall(), "learner", "hall", seed=3, env_steps=70)
    result = meta.evaluate(agent, episodes=2, repetitions=1)
    assert (result.algorithm, result.env, result.preset, result.seeds) == ("learner", "hall", None, [3])
    assert result.env_steps == 70 and result.shots[0] > 0
    assert result.references["still"] is None  # 0 is not a possible action
    json.dumps(result.to_json(), allow_nan=False)


def test_agents_of_a_run():
    made = pearl_agent()

    class Run(SimpleNamespace):
        algorithm, env, algorithm_name, env_name, preset = made.algorithm, ROBOT, "pearl", "sparse-point-robot", "fast"
        seeds, path = (4, 6), "runs/x"

        def params(self, checkpoint, seed):
            return (checkpoint, seed)

        def newest(self, seed):
            return 200

        def warn_of_changes(self):
            pass

    first = agent_of(Run())
    assert (first.seed, first.env_steps, first.params, first.preset) == (4, 200, (200, 4), "fast")
    other = agent_of(Run(), checkpoint=100, seed=6)
    assert (other.seed, other.env_steps, other.params) == (6, 100, (100, 6))


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    """A run of two seeds on disk with untrained parameters, seed 5's at 0 and 160 env steps."""
    path = tmp_path_factory.mktemp("runs") / "run"
    plan = _settings.make_plan(
        "pearl", "sparse-point-robot", seeds=(4, 5), values={"env_steps": 10**6, "hidden": (16,)}
    )
    run = runs.create(path, plan.config, {}, "made by hand", family=None)
    writer = _checkpoints.Writer()
    for seed, at in ((4, 0), (5, 0), (5, 160)):
        params = plan.algorithm.params(plan.algorithm.init(jax.random.key(seed + at), plan.env, 10**5))
        folder = run.seed_dir(seed) / runs.PARAMS
        folder.mkdir(parents=True, exist_ok=True)
        writer.save(folder, at, params, {"identity": run.identity, "updates": 0})
    writer.wait()
    writer.close()
    return path


def test_load_gives_the_agent_that_was_saved(run_path):
    agent = nacre.load(run_path, seed=5)
    assert (agent.seed, agent.env_steps, agent.path, agent.preset) == (5, 160, run_path, "fast")
    assert agent.algorithm.config.hidden == (16,) and agent.env == SparsePointRobot()
    state = agent.algorithm.init(jax.random.key(165), agent.env, 10**5)
    for found, saved in zip(jax.tree.leaves(agent.params), jax.tree.leaves(agent.algorithm.params(state)), strict=True):
        np.testing.assert_array_equal(found, saved)
    before = nacre.load(run_path / "seed-5", checkpoint=0)
    assert before.env_steps == 0 and nacre.load(str(run_path)).seed == 4
    action, other = (a.start().act(np.ones(2)) for a in (agent, before))
    assert action.shape == (2,) and (action != other).all()


@pytest.mark.parametrize("options, message", [
    ({"seed": 6}, "has no seed 6; its seeds are 4, 5"),
    ({"seed": 5, "checkpoint": 161}, r"no checkpoint 161\. Did you mean 160.*It has 0, 160"),
])  # fmt: skip
def test_load_of_what_is_not_there(run_path, options, message):
    with pytest.raises(UserError, match=message):
        nacre.load(run_path, **options)


def test_load_of_what_is_not_a_run(tmp_path):
    with pytest.raises(UserError, match=r"is not a run: it has no config\.json"):
        nacre.load(tmp_path)


def test_a_run_evaluates_with_all_its_seeds(run_path):
    run = nacre.open_run(run_path)
    result = nacre.evaluate(run, episodes=1, repetitions=1)
    assert result.seeds == [4, 5] and result.env_steps == 0 and result.preset == "fast"
    again = nacre.evaluate(nacre.open_run(run_path), episodes=1, repetitions=1)
    assert again.to_json() == result.to_json()
