"""PEARL beside its official PyTorch code on one machine: gradient step, collection, whole iteration, and the GEMM rate.

    git clone https://github.com/katerakelly/oyster && git -C oyster checkout 44e20fd
    python -m venv peer && peer/bin/pip install torch numpy python-dateutil joblib packaging "gymnasium[mujoco]"
    python benchmarks/pearl_speed.py --oyster oyster --peer-python peer/bin/python

Both codes take turns in one run (ours, the peer, ours, ...), each while the other waits; ratios are of medians over turns.
Paper size is cheetah-vel as published (16 tasks x 256 transitions, context 100, three layers of 300). A whole iteration is
put together from its parts as measured: 2000 gradient steps, 5 tasks x 1000 env steps, and trials of three episodes on 30
test tasks. About 4 minutes.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nacre import _platform, rollout
from nacre._versions import packages
from nacre.algorithms.pearl import PEARL, Config
from nacre.envs.cheetah import CheetahVel

WORKER = Path(__file__).parent / "peers" / "oyster_worker.py"
SMALL = dict(
    hidden=(64, 64), encoder_hidden=(64, 64), meta_batch=4, batch_size=128, context_batch=64, initial_steps=400
)


class Peer:
    """The official code in a process of its own, with its own Python."""

    def __init__(self, python: str, checkout: str, size: str):
        command = [python, str(WORKER), checkout, size]
        self.job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, what: str, amount: int) -> tuple[float, int]:
        """Seconds that `amount` of something took, and the env steps, gradient steps or trials done."""
        self.job.stdin.write(json.dumps([what, amount]) + "\n")
        self.job.stdin.flush()
        line = self.job.stdout.readline()
        if not line:
            raise SystemExit(f"the peer stopped: {' '.join(self.job.args)}")
        return tuple(json.loads(line))

    def close(self) -> None:
        self.job.stdin.close()
        self.job.wait()


class Ours:
    """The same pieces of work in this process."""

    def __init__(self, env, config: Config, slice_steps: int):
        self.env, self.pearl = env, PEARL(dataclasses.replace(config, updates_per_slice=slice_steps), env.spec)
        self.key, self.turn = jax.random.key(0), 0
        self.state = self.pearl.init(self.key, env, 500_000)

    def _timed(self, pearl: PEARL, phase: str) -> float:
        self.turn += 1
        key = jax.random.fold_in(self.key, self.turn)
        start = time.perf_counter()
        self.state, metrics = pearl.iterate(self.state, self.env, key, phase)
        jax.block_until_ready((eqx.filter(self.state, eqx.is_array), metrics))
        return time.perf_counter() - start

    def initial(self) -> None:
        while self.pearl.phase(self.state, self.env) == "initial":
            self._timed(self.pearl, "initial")

    def train(self) -> tuple[float, int]:
        return self._timed(self.pearl, "train"), self.pearl.config.updates_per_slice

    def collect(self, tasks: int) -> tuple[float, int]:
        pearl = PEARL(dataclasses.replace(self.pearl.config, tasks_per_iteration=tasks), self.pearl.spec)
        before = int(self.state.env_steps)
        return self._timed(pearl, "collect"), int(self.state.env_steps) - before

    def evaluate(self, tasks: int) -> tuple[float, int]:
        start = time.perf_counter()
        data, _ = rollout.trial(
            self.env, self.pearl, self.pearl.params(self.state), self.env.test_tasks[:tasks], self.key, episodes=3
        )
        jax.block_until_ready(data)
        return time.perf_counter() - start, tasks

    def bare(self, rows: int, steps: int = 200) -> tuple[float, int]:
        """The same physics with no agent: fixed actions."""
        tasks = np.resize(self.env.train_tasks, rows)
        state, _ = self.env.reset(self.key, tasks)
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, rows, 6)).astype(np.float32)
        active = np.ones(rows, bool)
        start = time.perf_counter()
        for action in actions:
            state, _ = self.env.step(state, action, active)
        return time.perf_counter() - start, rows * steps


def matmul_flops(config: Config, obs: int, action: int) -> float:
    """Multiply-adds of a gradient step that no formulation can leave out, times two (critic="value")."""

    def layers(*sizes):
        return sum(a * b for a, b in itertools.pairwise(sizes))

    state, rows = obs + config.latent_size, config.meta_batch * config.batch_size
    q, v = layers(state + action, *config.hidden, 1), layers(state, *config.hidden, 1)
    pi = layers(state, *config.hidden, 2 * action)
    encoder = layers(obs + action + 1, *config.encoder_hidden, 2 * config.latent_size)
    # forward 1, gradients of weights and of activations 1 each; Q in the policy's loss has no gradient of weights
    rl = 2 * q * (3 + 2) + v * (3 + 1) + pi * 3
    return 2.0 * (rows * rl + config.meta_batch * config.context_batch * encoder * 3)


@partial(jax.jit, static_argnums=2)
def _chain(x, w, times):
    return jax.lax.fori_loop(0, times, lambda _, x: x @ w, x)


def gemm(rows: int, width: int, times: int = 40) -> tuple[float, float]:
    """Seconds and GFLOP of x [rows, width] @ w [width, width], a chain in one program."""
    x, w = jnp.ones((rows, width)), jnp.eye(width)
    _chain(x, w, times).block_until_ready()
    start = time.perf_counter()
    _chain(x, w, times).block_until_ready()
    return time.perf_counter() - start, 2e-9 * rows * width * width * times


def in_turns(turns: int, **pieces) -> dict[str, float]:
    """Each piece once per turn -> median seconds per unit of work. A first turn compiles and warms up; it does not count."""
    seconds = {name: [] for name in pieces}
    for turn in range(turns + 1):
        for name, piece in pieces.items():
            took, amount = piece()
            if turn:
                seconds[name].append(took / amount)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oyster", required=True, help="checkout of the official code at 44e20fd")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with torch; this one by default")
    parser.add_argument("--turns", type=int, default=7, help="turns per measurement")
    args = parser.parse_args()
    _platform.prepare()
    print("versions:", json.dumps(packages()), f"| {os.cpu_count()} cores, {jax.devices()[0].platform}")

    env = CheetahVel()
    peer, config = Peer(args.peer_python, args.oyster, "cheetah-vel"), Config()
    ours = Ours(env, config, 10)
    ours.initial()
    peer("initial", 0)
    step = in_turns(args.turns, ours=ours.train, peer=lambda: peer("train", 5), gemm=lambda: gemm(4096, 300))
    gflops, peak = matmul_flops(config, 20, 6) / step["ours"] / 1e9, 1.0 / step["gemm"]
    print(f"gradient step, paper size      ours {step['ours'] * 1e3:7.1f} ms   official {step['peer'] * 1e3:7.1f} ms   "
          f"ratio {step['peer'] / step['ours']:.2f}")  # fmt: skip
    print(f"  {gflops:.0f} GFLOP/s of {peak:.0f} in a chain of 4096 x 300 x 300 products: {100 * gflops / peak:.0f} %")

    collection = in_turns(
        args.turns, peer=lambda: peer("collect", 2), c5=lambda: ours.collect(5), c16=lambda: ours.collect(16),
        c64=lambda: ours.collect(64), b16=lambda: ours.bare(16), b64=lambda: ours.bare(64),
    )  # fmt: skip
    print(f"collection, official           {1 / collection['peer']:7.0f} env steps/s")
    for tasks in (5, 16, 64):
        mine = collection[f"c{tasks}"]
        share = f"   {100 * collection[f'b{tasks}'] / mine:.0f} % of stepping alone" if tasks > 5 else ""
        print(
            f"collection, ours, {tasks:2d} tasks     {1 / mine:7.0f} env steps/s   ratio {collection['peer'] / mine:.2f}{share}"
        )

    test = in_turns(3, ours=lambda: ours.evaluate(30), peer=lambda: peer("evaluate", 4))
    whole = {
        "ours": 2000 * step["ours"] + 5000 * collection["c5"] + 30 * test["ours"],
        "peer": 2000 * step["peer"] + 5000 * collection["peer"] + 30 * test["peer"],
    }
    print(f"evaluation, a trial            ours {test['ours'] * 1e3:7.1f} ms   official {test['peer'] * 1e3:7.1f} ms   "
          f"ratio {test['peer'] / test['ours']:.2f}")  # fmt: skip
    print(f"iteration, from these parts    ours {whole['ours']:7.1f} s    official {whole['peer']:7.1f} s    "
          f"ratio {whole['peer'] / whole['ours']:.2f}")  # fmt: skip
    peer.close()

    peer, ours = (
        Peer(args.peer_python, args.oyster, "small"),
        Ours(CheetahVel(n_train=8, n_test=2), Config(**SMALL), 200),
    )
    ours.initial()
    peer("initial", 0)
    step = in_turns(args.turns, ours=ours.train, peer=lambda: peer("train", 100))
    print(f"gradient step, 4x128, 2x64     ours {step['ours'] * 1e3:7.2f} ms   official {step['peer'] * 1e3:7.2f} ms   "
          f"ratio {step['peer'] / step['ours']:.2f}")  # fmt: skip
    peer.close()


if __name__ == "__main__":
    main()
