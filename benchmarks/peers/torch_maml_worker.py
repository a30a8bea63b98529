"""MAML's outer gradient by torch.func, as a worker for benchmarks/maml_speed.py: how often, a line;
back come seconds by the clock and by the processor, and the peak memory so far in GiB.

Written as one writes it: grad of a loss of functional_call, inside it grad of another; over tasks by vmap, or by a loop. The arrays
come from the benchmark, and the gradient goes back to it once, to be compared. Needs torch and numpy.
"""

import json
import math
import resource
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap


class Policy(nn.Module):
    """Means of a Normal by tanh layers, in the agent's units, and a logarithm of its standard deviation."""

    def __init__(self, weights: list, biases: list, log_std: np.ndarray, reach: float):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*w.shape) for w in weights)
        for layer, w, b in zip(self.layers, weights, biases, strict=True):
            layer.weight.data, layer.bias.data = torch.from_numpy(w.T.copy()), torch.from_numpy(b)
        self.log_std, self.reach = nn.Parameter(torch.from_numpy(log_std)), reach

    def forward(self, obs, action):
        """Log-probability of the action."""
        h = obs
        for layer in self.layers[:-1]:
            h = torch.tanh(layer(h))
        mean, log_std = self.layers[-1](h) / self.reach, self.log_std - math.log(self.reach)
        z = (action - mean) * torch.exp(-log_std)
        return (-0.5 * (z.square() + math.log(2 * math.pi)) - log_std).sum(-1)


class Maml:
    """config: file (arrays, leading with tasks), surrogate, over, rate, reach."""

    def __init__(self, config: dict):
        self.c, stored = config, np.load(config["file"])
        layers = range(sum(name.startswith("weight") for name in stored))
        policy = Policy(
            [stored[f"weight{i}"] for i in layers], [stored[f"bias{i}"] for i in layers], stored["log_std"], config["reach"]
        )  # fmt: skip
        self.policy, self.theta = policy, {name: p.detach() for name, p in policy.named_parameters()}
        names = ("obs", "action", "advantage", "log_prob")
        self.before, self.last = (
            tuple(torch.from_numpy(stored[f"{when}_{x}"]) for x in names) for when in ("before", "last")
        )

    def inner_loss(self, theta, obs, action, advantage, _):
        log_prob = functional_call(self.policy, theta, (obs, action))
        if self.c["surrogate"] == "ratio":
            return -(torch.exp(log_prob - log_prob.detach()) * advantage).mean()
        return -(log_prob * advantage).mean()

    def outer_loss(self, theta, before, last):
        slopes = grad(self.inner_loss)(theta, *before)
        phi = {name: x - self.c["rate"] * slopes[name] for name, x in theta.items()}
        obs, action, advantage, old = last
        return -(torch.exp(functional_call(self.policy, phi, (obs, action)) - old) * advantage).mean()

    def iteration(self) -> dict:
        """The mean over tasks of the gradient."""
        one = grad(self.outer_loss)
        if self.c["over"] == "vmap":
            return {
                k: x.mean(0) for k, x in vmap(one, in_dims=(None, 0, 0))(self.theta, self.before, self.last).items()
            }
        n, total = len(self.last[0]), None
        for i in range(n):
            found = one(self.theta, tuple(x[i] for x in self.before), tuple(x[i] for x in self.last))
            total = found if total is None else {k: total[k] + x for k, x in found.items()}
        return {k: x / n for k, x in total.items()}


def main() -> None:
    config = json.loads(sys.argv[1])
    torch.set_num_threads(config["threads"])
    job = Maml(config)
    np.savez(config["answer"], **{name: x.numpy() for name, x in job.iteration().items()})
    print(json.dumps(torch.__version__), flush=True)
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        for _ in range(json.loads(line)):
            job.iteration()
        took = time.perf_counter() - start, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB
        print(json.dumps([*took, peak]), flush=True)


if __name__ == "__main__":
    main()
