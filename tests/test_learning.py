"""Short real trainings through the public loop, with thresholds that a broken agent cannot pass.

HiddenSign is the probe: every task looks the same, and the better action of one task is the worse one of the other. What a
policy without inference earns is at most 0 on average; what an agent that infers the sign earns is 1 per env step.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nacre
from nacre.types import Box, Discrete, EnvSpec, Step

pytestmark = pytest.mark.training
HORIZON = 5


@dataclass(frozen=True)
class HiddenSign:
    """Reward: the task (+1 or -1) times the action. The observation is always 0."""

    discrete: bool = False  # two actions, -1 and +1, instead of a number

    @property
    def spec(self) -> EnvSpec:
        action = Discrete(2) if self.discrete else Box((-1.0,), (1.0,))
        return EnvSpec(
            name="hidden-sign", obs_size=1, action=action, horizon=HORIZON, jittable=True, trial_episodes=3,
            exploration_episodes=1, obs_names=("nothing",), task_names=("sign",), reward_note="sign * action",
        )  # fmt: skip

    train_is_test = True
    train_tasks = test_tasks = np.array([[-1.0], [1.0]] * 4, np.float32)

    def sample_tasks(self, key, n):
        return jax.random.rademacher(key, (n, 1), dtype=jnp.float32)

    def reset(self, key, tasks):
        return jnp.asarray(tasks), jnp.zeros((tasks.shape[0], 1))

    def step(self, state, action, active):
        move = 2.0 * action - 1.0 if self.discrete else action[:, 0]
        reward = state[:, 0] * move
        done = jnp.zeros(reward.shape, bool)
        return state, Step(jnp.zeros((reward.shape[0], 1)), reward, reward, done, {})

    def oracle(self, tasks, obs, t):
        return (tasks[..., 0] > 0).astype(jnp.int32) if self.discrete else tasks


PROBE = dict(
    latent_size=2, hidden=(32, 32), encoder_hidden=(32, 32), learning_rate=3e-3, discount=0.5, meta_batch=8, batch_size=16,
    context_batch=16, initial_steps=20, tasks_per_iteration=8, prior_steps=10, extra_steps=10, updates_per_iteration=50,
    updates_per_slice=50, exploration_episodes=1, env_steps=8_000, eval_every=8_000,
)  # fmt: skip


@pytest.mark.parametrize("discrete", [False, True])
def test_only_an_agent_that_infers_its_task_earns_anything(tmp_path, discrete):
    agent = nacre.train("pearl", HiddenSign(discrete), seed=0, out=tmp_path / "run", progress=False, **PROBE)
    result = nacre.evaluate(agent, repetitions=10)
    _, second, third = (shot / HORIZON for shot in result.shots)
    assert third > 0.8
    assert second > 0.3  # a first guess near 0 tells little
    assert abs(result.references["no_adaptation"][2]) / HORIZON < 0.4


ON_POLICY = dict(
    tasks_per_iteration=64, epochs=4, updates_per_epoch=2, learning_rate=5e-3, discount=0.9, gae_decay=0.5, entropy_weight=0.0,
    env_steps=100_000, eval_every=100_000,
)  # fmt: skip
AGENTS = {
    "gru": ("rl2", dict(core="gru", width=16)),
    "attention": ("rl2", dict(core="attention", layers=1, heads=2, width=16)),
    "varibad": ("varibad", dict(latent_size=2, width=16, embeddings=(8, 0, 8), hidden=(16,), policy_embeddings=(8, 8),
                                reward_hidden=(16,), elbo_beliefs=0, elbo_decodes=0, truncate=0, initial_env_steps=0,
                                belief_updates=4, belief_learning_rate=5e-3, belief_capacity=500, clip=0.2, value_clip=0.0,
                                elbo_weighting="corrected")),
}  # fmt: skip


@pytest.mark.parametrize(("agent", "discrete"), [("gru", False), ("attention", True), ("varibad", False)])
def test_agents_that_learn_within_the_episode_know_the_sign_from_the_second_step_on(tmp_path, agent, discrete):
    """What the first step pays tells the sign, so the first episode can have 4 of 5, and later ones all."""
    name, options = AGENTS[agent]
    options = {**ON_POLICY, **options}
    trained = nacre.train(name, HiddenSign(discrete), seed=0, out=tmp_path / "run", progress=False, **options)
    result = nacre.evaluate(trained, repetitions=10)
    first, *later = (shot / HORIZON for shot in result.shots)
    assert first > 0.6
    assert min(later) > 0.85
    assert result.references["no_adaptation"][2] / HORIZON < 0.85


GRADIENTS = {
    "promp": dict(learning_rate=1e-2),
    "maml": dict(surrogate="ratio", trust_region=0.03),
    "maesn": dict(
        test_steps=0, latent_size=1, natural=True, inner_rate=2.0, outer="ppo", learning_rate=1e-2, initial_std=0.5
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_agents_that_adapt_by_gradients_know_the_sign_after_one_step(tmp_path, name):
    """Ten episodes before the step, with both signs as likely; after it they earn most of what there is."""
    options = dict(
        hidden=(16,), action_range=2.0, inner_rate=1.0, episodes_per_step=10, tasks_per_iteration=20, discount=0.9,
        env_steps=100_000, eval_every=100_000,
    )  # fmt: skip
    options |= GRADIENTS[name]
    trained = nacre.train(name, HiddenSign(), seed=0, out=tmp_path / "run", progress=False, **options)
    result = nacre.evaluate(trained, repetitions=2)
    assert len(result.shots) == 20
    before, after = np.mean(result.shots[:10]) / HORIZON, np.mean(result.shots[10:]) / HORIZON
    assert after > 0.7 and abs(before) < 0.4
    assert abs(np.mean(result.references["no_adaptation"])) / HORIZON < 0.4


@pytest.mark.slow  # two minutes, most of them gradient steps
def test_sparse_point_robot_learns_to_find_goals(tmp_path):
    """A tenth of the main job: chance and a standing robot earn 0.0, no adaptation 1.0, this 5.2 and 5.6 with two seeds."""
    short = dict(env_steps=185_000, initial_updates=4_000, eval_every=400_000)
    agent = nacre.train("pearl", "sparse-point-robot", seed=0, out=tmp_path / "run", progress=False, **short)
    result = nacre.evaluate(agent)
    late = float(np.mean(result.shots[10:]))
    assert late > 2.5
    assert late > 2 * float(np.mean(result.references["no_adaptation"]))
