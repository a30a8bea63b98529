"""Speed of what learns in its memory: families in JAX alone, the GRU's sweep beside torch.nn.GRU, a whole RL^2 beside PyTorch.

    python -m venv peer && peer/bin/pip install torch numpy
    python benchmarks/recurrent_speed.py --peer-python peer/bin/python

Families: env steps per second of bare stepping with random actions, nothing recorded, 4096 rows. RL^2: env steps per second of
whole iterations (collection, advantages, all gradient steps) of a GRU, and of the memory per arm that the preset has, on bandits of
5 arms, 512 tasks x 10 pulls and 256 x 100; the peer is a vectorised loop of the same agent in plain PyTorch
(benchmarks/peers/torch_rl2_worker.py).
Both take turns in one run, each while the other waits; ratios are of medians over turns. About 3 minutes.
"""

import argparse
import json
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from nacre import nn, rollout
from nacre._versions import packages
from nacre.algorithms.rl2 import RL2, Config
from nacre.envs.backends.mujoco_physics import cores
from nacre.envs.registry import make_family

WORKER = Path(__file__).parent / "peers" / "torch_rl2_worker.py"
TURNS = 5
FAMILIES = {"bandit": {}, "grid-navi": {}, "tabular-mdp": {}, "wind": {}, "maze": {}, "krazy-world": {}}
SWEEPS = ({"rows": 16, "steps": 200, "width": 128}, {"rows": 64, "steps": 400, "width": 256})
AGENTS = (
    {"core": "gru", "arms": 5, "pulls": 10, "tasks": 512, "width": 32, "epochs": 4, "parts": 4},
    {"core": "gru", "arms": 5, "pulls": 100, "tasks": 256, "width": 64, "epochs": 4, "parts": 4},
    # what the preset `fast` trains
    {"core": "per-action", "arms": 5, "pulls": 10, "tasks": 512, "width": 16, "epochs": 4, "parts": 4},
    {"core": "per-action", "arms": 5, "pulls": 100, "tasks": 256, "width": 16, "epochs": 4, "parts": 4},
)


def timed(f, amount: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f(amount))
    return time.perf_counter() - start


def bare(name: str, rows: int = 4096) -> float:
    """Env steps per second, the best of TURNS turns of about half a second."""
    env = make_family(name, **FAMILIES[name])
    tasks = env.sample_tasks(jax.random.key(0), rows)
    state, _ = env.reset(jax.random.key(1), tasks)
    active = jnp.ones(rows, bool)

    @partial(jax.jit, static_argnums=1)
    def run(state, steps):
        def step(carry, key):
            action = rollout.to_env_action(env.spec, rollout.uniform_action(env.spec, key, (rows,)))
            state, out = env.step(carry[0], action, active)
            return (state, carry[1] + out.reward.sum()), None

        return jax.lax.scan(step, (state, 0.0), jax.random.split(jax.random.key(2), steps))[0]

    steps = 20
    jax.block_until_ready(run(state, steps))
    while timed(lambda n: run(state, n), steps) < 0.3:
        steps *= 4
        jax.block_until_ready(run(state, steps))
    return rows * steps / min(timed(lambda n: run(state, n), steps) for _ in range(TURNS))


class Peer:
    """PyTorch in a process of its own."""

    def __init__(self, python: str, what: str, config: dict):
        command = [python, str(WORKER), what, json.dumps({**config, "threads": cores()})]
        self.job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, amount: int) -> float:
        self.job.stdin.write(json.dumps(amount) + "\n")
        self.job.stdin.flush()
        return json.loads(self.job.stdout.readline())

    def close(self) -> None:
        self.job.stdin.close()
        self.job.wait()


def sweep(config: dict):
    """Forward and backward of Nacre's GRU -> a function of how often."""
    rows, steps, width = config["rows"], config["steps"], config["width"]
    core, x = (
        nn.RecurrentCore(width, width, key=jax.random.key(0)),
        jax.random.normal(jax.random.key(1), (rows, steps, width)),
    )
    gradient = jax.jit(jax.grad(lambda core: jnp.square(core(x, core.begin((rows,)))[0]).mean()))
    jax.block_until_ready(gradient(core))

    def run(amount):
        for _ in range(amount):
            out = jax.block_until_ready(gradient(core))
        return out

    return partial(timed, run)


def rl2(config: dict):
    """Whole iterations of RL2 -> a function of how many."""
    env = make_family("bandit", arms=config["arms"], pulls=config["pulls"])
    config_of = Config(
        core=config["core"], width=config["width"], hidden=(config["width"],) * (config["core"] != "gru"), learning_rate=1e-2,
        tasks_per_iteration=config["tasks"], epochs=config["epochs"], updates_per_epoch=config["parts"], max_gradient=0.5,
        gae_decay=0.3, entropy_weight=0.01,
    )  # fmt: skip
    algorithm = RL2(config_of, env.spec)
    iterate = jax.jit(lambda state, key: algorithm.iterate(state, env, key, "iteration")[0], donate_argnums=0)
    kept = {"state": algorithm.init(jax.random.key(0), env, 0), "key": jax.random.key(1)}

    def run(amount):
        for _ in range(amount):
            kept["key"], key = jax.random.split(kept["key"])
            kept["state"] = iterate(kept["state"], key)
        return kept["state"].env_steps

    jax.block_until_ready(run(1))
    return partial(timed, run)


def duel(ours, peer, amount: int) -> tuple[float, float]:
    """Median seconds per item of both, in turns."""
    pairs = [(ours(amount) / amount, peer(amount) / amount) for _ in range(TURNS)]
    return tuple(statistics.median(column) for column in zip(*pairs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python with torch and numpy; without it only Nacre is measured")
    args = parser.parse_args()
    versions = packages()
    print(f"{cores()} cores, jax {versions.get('jax')}, backend {jax.default_backend()}")
    print("\nbare stepping, 4096 rows, random actions (million env steps/s)")
    for name in FAMILIES:
        print(f"  {name:<14}{bare(name) / 1e6:8.1f}", flush=True)
    if not args.peer_python:
        return
    print("\nGRU, forward and backward (ms)          nacre   torch   torch / nacre")
    for config in SWEEPS:
        peer = Peer(args.peer_python, "sweep", config)
        ours, theirs = duel(sweep(config), peer, 5)
        peer.close()
        name = f"{config['rows']} rows x {config['steps']} steps, {config['width']} units"
        print(f"  {name:<36}{ours * 1e3:8.0f}{theirs * 1e3:8.0f}{theirs / ours:10.2f}", flush=True)
    print("\nRL^2 on a bandit, whole iterations (env steps/s)   nacre     torch   nacre / torch")
    for config in AGENTS:
        peer = Peer(args.peer_python, "rl2", config)
        ours, theirs = (config["tasks"] * config["pulls"] / seconds for seconds in duel(rl2(config), peer, 10))
        peer.close()
        name = f"{config['pulls']} pulls, {config['tasks']} tasks, {config['core']}, {config['width']} units"
        print(f"  {name:<44}{ours:10.0f}{theirs:10.0f}{ours / theirs:10.1f}", flush=True)


if __name__ == "__main__":
    main()
