"""Env steps per second of the MuJoCo families with a policy of three layers of 300 in the loop, beside others, in one run.

    python -m venv peer && peer/bin/pip install envpool jax gymnasium
    python benchmarks/families_speed.py --envpool-python peer/bin/python

"nacre" collects as PEARL does: whole episodes, rows begin again where they fall, everything recorded. "gymnasium" is its
vector environment (sync: one process; async: one per row) with the same jitted policy. "envpool" is its own thread pool with a
policy of the same size. "bare" is mj_step alone, one process per core, one MjData per row, random actions, begun anew after as
many env steps as an episode of nacre's lasted, so that all step the same kind of states; it has neither policy nor reward, nor
contact forces. Ways take turns; a rate is the best of its turns (on a busy machine the others are smaller by what others did).
"one model" is the same family with one body for all rows. About 8 minutes.
"""

import argparse
import functools
import itertools
import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from nacre import rollout
from nacre.algorithms.pearl import PEARL, Config
from nacre.envs.backends.mujoco import first_pose
from nacre.envs.backends.mujoco_physics import cores, quiet
from nacre.envs.registry import make_family
from nacre.types import take_tasks, task_count

WORKER = Path(__file__).parent / "peers" / "envpool_worker.py"
# family -> id of gymnasium's (and EnvPool's) environment with the same physics, with keywords for gymnasium; None: there is none
PEERS = {
    "cheetah-vel": ("HalfCheetah-v5", {}), "ant-dir": ("Ant-v5", {}), "ant-goal": ("Ant-v5", {"terminate_when_unhealthy": False}),
    "humanoid-dir": ("Humanoid-v5", {}), "walker-params": ("Walker2d-v5", {}), "hopper-params": ("Hopper-v5", {}),
    "wheeled-robot": None, "block-push": None, "ant-ring": None,
}  # fmt: skip


def tasks_for(env, rows: int):
    return take_tasks(env.train_tasks, np.arange(rows) % task_count(env.train_tasks))


class Nacre:
    """Episodes of `rows` tasks at once, as collection for learning runs them."""

    def __init__(self, name: str, rows: int, one_model: bool = False):
        self.env = make_family(name)
        if one_model:
            self.env.__dict__["kept_models"] = Same(self.env.physics.model)
        self.algorithm = PEARL(Config(), self.env.spec)
        self.params = self.algorithm.params(self.algorithm.init(jax.random.key(0), self.env, 100))
        self.memory = self.algorithm.begin(self.params, jax.random.key(1), (rows, 1))
        self.tasks, self.count = tasks_for(self.env, rows), 0
        self.episode_length = float(self.env.spec.horizon)

    def rate(self, seconds: float) -> float:
        steps, start = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - start < seconds:
            self.count += 1
            data, _ = rollout.episode(
                self.env, self.algorithm, self.params, self.memory, self.tasks, jax.random.key(self.count),
                refill=lambda key, memory, over: memory,
            )  # fmt: skip
            steps += int(data.valid.sum())
        taken = time.perf_counter() - start
        ended = int(data.terminal.sum())
        self.episode_length = data.valid.size / (ended + data.valid.shape[0])
        return steps / taken


class Same(dict):
    """A cache of models in which every task has the nominal one."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def pop(self, key, default=None):
        return self.model


def bare_worker(pipe, name: str, rows: int, length: int) -> None:
    env = make_family(name, threads=1)
    physics, tasks = env.physics, tasks_for(env, rows)
    models = env.models(tasks) if hasattr(env, "models") else [physics.model] * rows
    qpos, qvel = first_pose(env, np.random.default_rng(0), tasks)
    datas = [mujoco.MjData(model) for model in models]
    high = np.array(env.spec.action.high)
    actions = np.random.default_rng(1).uniform(-high, high, (50, rows, len(high)))
    age = np.linspace(0, length, rows, endpoint=False).astype(int)  # so that not all begin at once
    pipe.send("ready")
    count = 0
    while seconds := pipe.recv():
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            action = actions[count % 50]
            count += 1
            for i, data in enumerate(datas):
                if age[i] % length == 0:
                    mujoco.mj_resetData(models[i], data)
                    data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
                data.ctrl[:] = action[i]
                mujoco.mj_step(models[i], data, physics.frame_skip)
                age[i] += 1
            steps += rows
        pipe.send(steps / (time.perf_counter() - start))


class Bare:
    def __init__(self, name: str, rows: int, length: float):
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(cores())]
        self.pipes = [ours for ours, _ in pipes]
        args = (name, max(1, rows // cores()), max(1, round(length)))
        self.jobs = [context.Process(target=bare_worker, args=(theirs, *args), daemon=True) for _, theirs in pipes]
        for job in self.jobs:
            job.start()
        for pipe in self.pipes:
            pipe.recv()

    def rate(self, seconds: float) -> float:
        for pipe in self.pipes:
            pipe.send(seconds)
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(0.0)


class Gymnasium:
    """gymnasium's vector environment with the policy of the same size."""

    def __init__(self, name: str, rows: int, kind: str):
        env_id, kwargs = PEERS[name]
        make = functools.partial(gymnasium.make, env_id, **kwargs)
        options = {"context": "spawn"} if kind == "Async" else {}
        with quiet():
            self.envs = getattr(gymnasium.vector, f"{kind}VectorEnv")([make] * rows, **options)
        self.obs, _ = self.envs.reset(seed=0)
        env, self.count, self.rows = make_family(name), 0, rows
        size, act = self.obs.shape[-1], env.spec.action.size
        sizes = [size, 300, 300, 300, 2 * act]
        keys = jax.random.split(jax.random.key(0), 5)
        layers = [0.1 * jax.random.normal(k, shape) for k, shape in zip(keys, itertools.pairwise(sizes), strict=False)]
        high = jnp.array(env.spec.action.high)

        @jax.jit
        def policy(obs, t):
            x = obs.astype(jnp.float32)
            for layer in layers[:-1]:
                x = jax.nn.relu(x @ layer)
            mean, log_std = jnp.split(x @ layers[-1], 2, axis=-1)
            noise = jax.random.normal(jax.random.fold_in(keys[-1], t), mean.shape)
            return high * jnp.tanh(mean + jnp.exp(jnp.clip(log_std, -20, 2)) * noise)

        self.policy = policy

    def rate(self, seconds: float) -> float:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            self.count += 1
            self.obs, *_ = self.envs.step(np.asarray(self.policy(self.obs, self.count)))
            steps += self.rows
        return steps / (time.perf_counter() - start)

    def close(self) -> None:
        self.envs.close()


class EnvPool:
    def __init__(self, python: str, name: str, rows: int):
        command = [python, str(WORKER), PEERS[name][0], str(rows), str(cores())]
        self.job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, seconds: float) -> float:
        self.job.stdin.write(json.dumps(seconds) + "\n")
        self.job.stdin.flush()
        line = self.job.stdout.readline()
        if not line:
            raise SystemExit(f"EnvPool stopped: {' '.join(self.job.args)}")
        return json.loads(line)

    def close(self) -> None:
        self.job.stdin.close()
        self.job.wait()


def measure(name: str, rows: int, args: argparse.Namespace) -> dict[str, float]:
    ways = {"nacre": Nacre(name, rows)}
    ways["nacre"].rate(args.seconds)  # compiles, and tells how long episodes last
    if hasattr(ways["nacre"].env, "models"):
        ways["one model"] = Nacre(name, rows, one_model=True)
        ways["one model"].rate(args.seconds)
    ways["bare"] = Bare(name, rows, ways["nacre"].episode_length)
    if PEERS[name]:
        ways["sync"] = Gymnasium(name, rows, "Sync")
    if PEERS[name] and rows <= 16:
        ways["async"] = Gymnasium(name, rows, "Async")
    if PEERS[name] and args.envpool_python:
        ways["envpool"] = EnvPool(args.envpool_python, name, rows)
    for way in ways.values():
        way.rate(0.2)  # warm-up
    seen = {way: [] for way in ways}
    for _ in range(args.turns):
        for label, way in ways.items():
            seen[label].append(way.rate(args.seconds))
    for way in ways.values():
        getattr(way, "close", lambda: None)()
    return {label: max(rates) for label, rates in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--envpool-python", help="a Python that has envpool and jax")
    args = parser.parse_args()
    print(
        f"{cores()} cores, MuJoCo {mujoco.__version__}, gymnasium {gymnasium.__version__}, Python {sys.version.split()[0]}"
    )
    columns = ("bare", "nacre", "one model", "sync", "async", "envpool")
    print(
        f"{'env steps/s':<16}{'rows':>5}",
        *(f"{c:>10}" for c in columns),
        f"{'/ bare':>8}{'/ sync':>8}{'/ envpool':>10}",
    )
    for name in args.families:
        for rows in args.rows:
            rates = measure(name, rows, args)
            cells = [f"{rates[c]:>10,.0f}" if c in rates else f"{'':>10}" for c in columns]
            ratios = [rates["nacre"] / rates[c] if c in rates else float("nan") for c in ("bare", "sync", "envpool")]
            print(f"{name:<16}{rows:>5}", *cells, f"{ratios[0]:>8.2f}{ratios[1]:>8.2f}{ratios[2]:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
