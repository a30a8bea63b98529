"""The official PEARL code as a worker for benchmarks/pearl_speed.py: reads one JSON command a line, answers with seconds.

    python benchmarks/peers/oyster_worker.py CHECKOUT cheetah-vel|small

CHECKOUT is github.com/katerakelly/oyster at 44e20fd, unchanged. It was written for Python 3.5, gym and mujoco-py; here the
modules that it imports but that a measurement does not need (gtimer, gym's base classes, its environments' package) are
stood in for, and its cheetah runs on gymnasium's HalfCheetah-v5. Needs torch, numpy, python-dateutil, joblib, gymnasium[mujoco].
"""

import json
import sys
import time
import types
import warnings

import gymnasium
import numpy as np
import torch

warnings.filterwarnings("ignore")
COLLECTED = {"cheetah-vel": (2000, 400, 600, 5), "small": (400, 200, 200, 2)}  # initial, prior, extra steps; tasks


def stand_in() -> None:
    """Modules of 2019 that the official code imports."""
    np.bool = bool
    timer = types.ModuleType("gtimer")
    timer.stamp = lambda *args, **options: None
    spaces = types.ModuleType("gym.spaces")
    for name in ("Box", "Discrete", "Tuple"):
        setattr(spaces, name, getattr(gymnasium.spaces, name))
    gym = types.ModuleType("gym")
    gym.Env, gym.spaces = object, spaces
    sys.modules.update({"gtimer": timer, "gym": gym, "gym.spaces": spaces})


class CheetahVel:
    """The official cheetah-vel in the old interface: 20 numbers, no termination."""

    def __init__(self, tasks: int):
        self._env = gymnasium.make("HalfCheetah-v5", exclude_current_positions_from_observation=True).unwrapped
        self._velocities = np.random.RandomState(1337).uniform(0.0, 3.0, tasks)
        self._goal = self._velocities[0]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (20,), np.float32)
        self.action_space = self._env.action_space

    def reset_task(self, index: int) -> None:
        self._goal = self._velocities[index]
        self.reset()

    def _obs(self):
        data = self._env.data
        parts = [data.qpos.flat[1:], data.qvel.flat, data.body("torso").xpos.flat]
        return np.concatenate(parts).astype(np.float32).flatten()

    def reset(self):
        self._env.reset()
        return self._obs()

    def step(self, action):
        before = self._env.data.qpos[0]
        self._env.do_simulation(action, self._env.frame_skip)
        velocity = (self._env.data.qpos[0] - before) / self._env.dt
        reward = -abs(velocity - self._goal) - 0.05 * np.sum(np.square(action))
        return self._obs(), reward, False, {}


def algorithm(checkout: str, size: str):
    """The official agent with the configuration of cheetah-vel, or the small nets of our fast presets."""
    sys.path.insert(0, checkout)
    stand_in()
    from rlkit.torch.networks import FlattenMlp, MlpEncoder
    from rlkit.torch.sac.agent import PEARLAgent
    from rlkit.torch.sac.policies import TanhGaussianPolicy
    from rlkit.torch.sac.sac import PEARLSoftActorCritic

    small = size == "small"
    tasks = 10 if small else 130
    env, latent = CheetahVel(tasks), 5
    hidden, encoder = ([64, 64], [64, 64]) if small else ([300] * 3, [200] * 3)
    critics = [FlattenMlp(hidden_sizes=hidden, input_size=20 + 6 + latent, output_size=1) for _ in range(2)]
    value = FlattenMlp(hidden_sizes=hidden, input_size=20 + latent, output_size=1)
    policy = TanhGaussianPolicy(hidden_sizes=hidden, obs_dim=20 + latent, latent_dim=latent, action_dim=6)
    context = MlpEncoder(hidden_sizes=encoder, input_size=27, output_size=2 * latent)
    options = dict(
        recurrent=False, use_information_bottleneck=True, sparse_rewards=False, use_next_obs_in_context=False
    )
    agent = PEARLAgent(latent, context, policy, **options)
    initial, prior, extra, collecting = COLLECTED[size]
    return PEARLSoftActorCritic(
        env=env, train_tasks=list(range(tasks - tasks // 4)), eval_tasks=list(range(tasks - tasks // 4, tasks)),
        latent_dim=latent, nets=[agent, *critics, value], meta_batch=4 if small else 16,
        batch_size=128 if small else 256, embedding_batch_size=64 if small else 100,
        embedding_mini_batch_size=64 if small else 100, num_initial_steps=initial, num_tasks_sample=collecting,
        num_steps_prior=prior, num_steps_posterior=0, num_extra_rl_steps_posterior=extra, num_evals=1,
        num_steps_per_eval=600, num_exp_traj_eval=2, max_path_length=200, discount=0.99, reward_scale=5.0, kl_lambda=0.1,
        soft_target_tau=0.005, policy_lr=3e-4, qf_lr=3e-4, vf_lr=3e-4, context_lr=3e-4,
        # its buffers hold this many transitions for each task, in float64; sized for what is measured
        replay_buffer_size=20_000, **options,
    )  # fmt: skip


def initial(agent, _: int) -> int:
    for task in agent.train_tasks:
        agent.task_idx = task
        agent.env.reset_task(task)
        agent.collect_data(agent.num_initial_steps, 1, np.inf)
    return agent.num_initial_steps * len(agent.train_tasks)


def collect(agent, tasks: int) -> int:
    """One iteration's collection (prior and posterior episodes) on `tasks` tasks -> env steps."""
    for _ in range(tasks):
        task = agent.task_idx = np.random.randint(len(agent.train_tasks))  # noqa: NPY002
        agent.env.reset_task(task)
        agent.enc_replay_buffer.task_buffers[task].clear()
        agent.collect_data(agent.num_steps_prior, 1, np.inf)
        agent.collect_data(agent.num_extra_rl_steps_posterior, 1, 1, add_to_enc_buffer=False)
    return tasks * (agent.num_steps_prior + agent.num_extra_rl_steps_posterior)


def train(agent, steps: int) -> int:
    for _ in range(steps):
        agent._do_training(np.random.choice(agent.train_tasks, agent.meta_batch))  # noqa: NPY002
    return steps


def evaluate(agent, tasks: int) -> int:
    """Trials of three episodes on `tasks` tasks."""
    for task in agent.eval_tasks[:tasks]:
        agent.collect_paths(task, 0, 0)
    return tasks


def main() -> None:
    torch.set_num_threads(2)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    agent = algorithm(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        command, amount = json.loads(line)
        start = time.perf_counter()
        done = {"initial": initial, "collect": collect, "train": train, "evaluate": evaluate}[command](agent, amount)
        print(json.dumps([time.perf_counter() - start, done]), flush=True)


if __name__ == "__main__":
    main()
