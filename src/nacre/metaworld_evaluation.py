"""Meta-World's own evaluation of an agent, for comparison with numbers published by it. Ours is `nacre.evaluate`.

`metaworld.evaluation.metalearning_evaluation` (3.1.1): on each of many environments, several goals of every class at once, the
agent adapts over some episodes of 500 env steps, then acts without learning; episodes end at success. A class's score comes from
the first `evaluation_episodes` that finish over all its goals, so a goal that is solved soon may supply them all: the score is
an optimistic one. Quote it as the package's, next to the per-goal one.
"""

from typing import Any, NamedTuple

import numpy as np

from nacre.envs.metaworld import BENCHMARKS, load, without_objects


class Official(NamedTuple):
    """What the package's evaluation says."""

    success: float  # mean over classes
    mean_return: float  # of the episodes it counts, which end at success
    per_class: dict[str, float]  # success


class Adapter:
    """An agent in the shape of metaworld.evaluation.MetaLearningAgent: a policy per environment."""

    def __init__(self, agent: Any, count: int, seed: int):
        self.agent, self.count, self.seed, self.round = agent, count, seed, 0
        self.seen = without_objects if agent.env.hide_objects else np.asarray

    def init(self) -> None:
        """Agents who know nothing of their tasks."""
        start = self.seed + 1000 * self.round
        self.policies = [self.agent.start(seed=start + i) for i in range(self.count)]
        self.round += 1

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict]:
        observations = self.seen(observations)
        for policy, pending, obs in zip(self.policies, getattr(self, "pending", []), observations, strict=False):
            if pending is not None:
                policy.observe(pending, obs)
        self.pending: list = [None] * self.count
        return np.stack([policy.act(obs) for policy, obs in zip(self.policies, observations, strict=True)]), {}

    def step(self, timestep: Any) -> None:
        """The package hands over no next observation: it is that of the next call, or, at the end of an episode, where the
        environment has been reset by then, the last one again."""
        observations = self.seen(timestep.observation)
        for i, policy in enumerate(self.policies):
            if timestep.terminated[i] or timestep.truncated[i]:
                policy.observe(timestep.reward[i], observations[i], truncated=True)
                policy.end_episode()
            else:
                self.pending[i] = timestep.reward[i]

    def adapt(self) -> None:
        """Policies have adapted after each episode."""
        self.acting = [policy.copy() for policy in self.policies]

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Without learning: rewards are not told here, and nothing is kept beyond the episode."""
        actions = []
        for policy, obs in zip(self.acting, self.seen(observations), strict=True):
            actions.append(policy.act(obs))
            policy.observe(0.0, obs)
        return np.stack(actions)

    def reset(self, env_mask: np.ndarray) -> None:
        for i in np.flatnonzero(env_mask):
            self.acting[i] = self.policies[i].copy()


def official_evaluation(
    agent: Any, *, seed: int = 0, meta_batch_size: int | None = None, num_evals: int | None = None,
    adaptation_episodes: int = 10, evaluation_episodes: int = 3, vector_strategy: str = "sync",
) -> Official:  # fmt: skip
    """Meta-World's own evaluation on the held-out goals of the agent's benchmark.

    meta_batch_size: environments at once, None: 10 for ml1, 4 per held-out class otherwise. num_evals: rounds with other
    goals, None: until every goal of a batch had its turn (5 for ml1, 10 otherwise). vector_strategy: "sync" or "async". Takes
    about a million env steps for ml10. Raises ValueError for an agent of another family.
    """
    name = agent.env.spec.name
    if name not in BENCHMARKS and not name.startswith("ml1/"):
        raise ValueError(f"Meta-World's evaluation is for agents of ml1/<task>, ml10, ml25 or ml45, got one of {name}")
    metaworld = load(name)
    from metaworld.evaluation import metalearning_evaluation

    one = name.startswith("ml1/")
    batch = meta_batch_size or (10 if one else 20)
    options = {"seed": agent.env.seed, "meta_batch_size": batch, "vector_strategy": vector_strategy}
    if not one:
        options["total_tasks_per_cls"] = 40  # the package asks for a number that divides evenly
    envs = metaworld.make_ml_envs_test(
        name.removeprefix("ml1/") if one else BENCHMARKS[name],
        reward_function_version=agent.env.reward_version,
        **options,
    )
    try:
        success, mean_return, per_class = metalearning_evaluation(
            Adapter(agent, envs.num_envs, seed), envs, num_evals=num_evals or (5 if one else 10),
            adaptation_episodes=adaptation_episodes, evaluation_episodes=evaluation_episodes,
        )  # fmt: skip
    finally:
        envs.close()
    return Official(float(success), float(mean_return), {key: float(value) for key, value in per_class.items()})
