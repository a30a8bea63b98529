"""RL^2 on a bandit in plain PyTorch, as a worker for benchmarks/recurrent_speed.py: one JSON command a line, seconds back.

Written as one writes it: a NumPy bandit for all tasks at once, a GRU cell while acting, nn.GRU over whole trials while learning,
the same PPO (epochs, minibatches of trials, clip, Adam) as Nacre's. With "core": "per-action" the memory is one GRU cell for each
arm and a common one, as in nacre.per_action, stepped in a loop over the trial. Needs torch and numpy.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn


class Agent(nn.Module):
    def __init__(self, arms: int, width: int):
        super().__init__()
        self.gru = nn.GRU(arms + 3, width, batch_first=True)
        self.policy, self.value = nn.Linear(width, arms), nn.Linear(width, 1)

    def forward(self, x, h=None):
        out, h = self.gru(x, h)
        return torch.distributions.Categorical(logits=self.policy(out)), self.value(out)[..., 0], h


class PerActionAgent(nn.Module):
    """A cell for each arm with shared weights, of which the pulled arm's is brought up to date, and a common one."""

    def __init__(self, arms: int, width: int):
        super().__init__()
        self.arms, self.width = arms, width
        self.own, self.common = nn.GRUCell(3, width), nn.GRUCell(3, width)
        self.policy = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 1))
        self.value = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x, h=None):
        if h is None:
            h = x.new_zeros(len(x), self.arms, self.width), x.new_zeros(len(x), self.width)
        (each, common), states = h, []
        for step in x.unbind(dim=1):
            chosen, rest = step[:, 1:-2, None], torch.cat([step[:, :1], step[:, -2:]], dim=-1)
            before = (chosen * each).sum(dim=1)
            each = each + chosen * (self.own(rest, before) - before)[:, None]
            common = self.common(rest, common)
            states.append(torch.cat([each, common[:, None]], dim=1))
        cells = torch.stack(states, dim=1)  # [N, T, A + 1, W]
        own = cells[:, :, :-1]
        shared = torch.cat([own.mean(dim=2), own.amax(dim=2), cells[:, :, -1]], dim=-1)
        logits = self.policy(torch.cat([own, shared[:, :, None].expand(-1, -1, self.arms, -1)], dim=-1))[..., 0]
        return torch.distributions.Categorical(logits=logits), self.value(shared)[..., 0], (each, common)


class Rl2:
    """config: arms, pulls, tasks, width, epochs, parts, core."""

    def __init__(self, config: dict):
        self.c = config
        self.agent = {"gru": Agent, "per-action": PerActionAgent}[config["core"]](config["arms"], config["width"])
        self.adam = torch.optim.Adam(self.agent.parameters(), lr=1e-2)
        self.rng = np.random.default_rng(0)

    def collect(self):
        c, n = self.c, self.c["tasks"]
        chances, h = self.rng.random((n, c["arms"])), None
        x, kept = torch.zeros(n, 1, c["arms"] + 3), []
        for _ in range(c["pulls"]):
            with torch.no_grad():
                says, value, h = self.agent(x, h)
                action = says.sample()
                log_prob = says.log_prob(action)
            arm = action[:, 0].numpy()
            reward = torch.from_numpy((self.rng.random(n) < chances[np.arange(n), arm]).astype(np.float32))
            kept.append((x[:, 0], action[:, 0], log_prob[:, 0], value[:, 0], reward))
            one_hot = nn.functional.one_hot(action, c["arms"]).float()
            x = torch.cat([torch.zeros(n, 1, 1), one_hot, reward[:, None, None], torch.ones(n, 1, 1)], dim=-1)
        return [torch.stack(leaf, dim=1) for leaf in zip(*kept, strict=True)]

    def iteration(self) -> None:
        c = self.c
        x, action, old, value, reward = self.collect()
        advantage, later = torch.zeros_like(value), torch.zeros(len(value))
        following = torch.cat([value[:, 1:], torch.zeros(len(value), 1)], dim=1)
        delta = reward + 0.99 * following - value
        for t in reversed(range(c["pulls"])):
            later = delta[:, t] + 0.99 * 0.3 * later
            advantage[:, t] = later
        returns = advantage + value
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(c["epochs"]):
            for rows in torch.randperm(c["tasks"]).chunk(c["parts"]):
                says, now, _ = self.agent(x[rows])
                ratio = (says.log_prob(action[rows]) - old[rows]).exp()
                bounded = ratio.clamp(0.8, 1.2)
                loss = -torch.minimum(ratio * advantage[rows], bounded * advantage[rows]).mean()
                loss = loss + 0.5 * (now - returns[rows]).square().mean() - 0.01 * says.entropy().mean()
                self.adam.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
                self.adam.step()


class Sweep:
    """Forward and backward of nn.GRU. config: rows, steps, width."""

    def __init__(self, config: dict):
        self.gru = nn.GRU(config["width"], config["width"], batch_first=True)
        self.x = torch.randn(config["rows"], config["steps"], config["width"])

    def iteration(self) -> None:
        self.gru.zero_grad()
        self.gru(self.x)[0].square().mean().backward()


def main() -> None:
    what, config = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(config["threads"])
    job = {"rl2": Rl2, "sweep": Sweep}[what](config)
    job.iteration()
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(json.loads(line)):
            job.iteration()
        print(json.dumps(time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
