"""Speed of MAML's outer step, beside torch.func.

    python -m venv peer && peer/bin/pip install torch numpy
    python benchmarks/maml_speed.py --peer-python peer/bin/python

One inner step, 40 tasks x 20 episodes x 200 env steps of 17 numbers and 6 actions, two tanh layers of 64. The peer
(benchmarks/peers/torch_maml_worker.py) has the same arrays and number of threads, and must give the same gradient; it runs over
tasks by vmap and by a loop. All take turns in one run, each while the others wait; seconds are medians over turns, ratios are of
those, by the clock and by the processor's own time, which says more where others use the machine. Peak memory is a whole process's,
the largest up to there. `taskset -c 1` before the command measures one core.
"""

import argparse
import json
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from nacre._versions import packages
from nacre.algorithms import maml, promp
from nacre.envs.backends.mujoco_physics import cores
from nacre.types import Box, EnvSpec
from nacre.updates import outer
from nacre.updates.inner import Round

WORKER = Path(__file__).parent / "peers" / "torch_maml_worker.py"
TASKS, EPISODES, STEPS = 40, 20, 200
TOLERANCE = 1e-4  # of the gradient's norm, in float32


def made_up_spec() -> EnvSpec:
    """The size of MuJoCo's cheetah: 17 positions and velocities, 6 joints."""
    return EnvSpec("cheetah-sized", 17, Box((-1.0,) * 6, (1.0,) * 6), STEPS, True)


def made_up_round(policy, rng: np.random.Generator) -> Round:
    """Episodes as the policy could have acted them."""
    shape = TASKS, EPISODES, STEPS
    noise = lambda *last: jnp.asarray(rng.standard_normal((*shape, *last)), jnp.float32)  # noqa: E731
    obs, advantage = noise(17), noise()
    said = policy(obs)
    action = said.raw + jnp.exp(said.log_std) * noise(6)
    return Round(obs, action, advantage, advantage, jnp.ones(shape), said.log_prob(action), said)


def experience(agent) -> tuple:
    """-> state, (rounds before the inner step, the round after it)."""
    state, rng = agent.init(jax.random.key(0), None, 0), np.random.default_rng(0)
    return state, (made_up_round(state.params.policy, rng),), made_up_round(state.params.policy, rng)


def arrays(policy, before: Round, last: Round) -> dict[str, np.ndarray]:
    """For the peer."""
    found = {"log_std": policy.log_std}
    for i, (w, b) in enumerate(zip(policy.net.weights, policy.net.biases, strict=True)):
        found |= {f"weight{i}": w, f"bias{i}": b}
    for when, seen in (("before", before), ("last", last)):
        for name in ("obs", "action", "advantage", "log_prob"):
            x = getattr(seen, name)
            found[f"{when}_{name}"] = x.reshape(TASKS, EPISODES * STEPS, *x.shape[3:])
    return {name: np.asarray(x) for name, x in found.items()}


class Peer:
    """torch.func in a process of its own."""

    def __init__(self, python: str, config: dict):
        command = [python, str(WORKER), json.dumps({**config, "threads": cores()})]
        self.job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.torch, self.peak = json.loads(self.job.stdout.readline()), 0.0

    def __call__(self) -> tuple[float, float]:
        self.job.stdin.write("1\n")
        self.job.stdin.flush()
        *took, self.peak = json.loads(self.job.stdout.readline())
        return tuple(took)

    def close(self) -> None:
        self.job.stdin.close()
        self.job.wait()


class Ours:
    """A jitted function -> seconds by the clock and by the processor."""

    def __init__(self, f, *args):
        self.f, self.args = jax.jit(f).lower(*args).compile(), args
        self.found = jax.block_until_ready(self.f(*args))

    def __call__(self) -> tuple[float, float]:
        start, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(self.f(*self.args))
        return time.perf_counter() - start, time.process_time() - used


def in_turns(jobs: dict, turns: int) -> dict[str, tuple[float, float]]:
    """Median seconds of each, by the clock and by the processor."""
    took = {name: [] for name in jobs}
    for _ in range(turns):
        for name, job in jobs.items():
            took[name].append(job())
    return {name: tuple(map(statistics.median, zip(*seen, strict=True))) for name, seen in took.items()}


def check_same(ours, answer: Path) -> float:
    """Relative distance of the peer's gradient from ours."""
    theirs, net = np.load(answer), ours.policy.net
    pairs = [(theirs["log_std"], ours.policy.log_std)]
    for i, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        pairs += [(theirs[f"layers.{i}.weight"].T, w), (theirs[f"layers.{i}.bias"], b)]
    gap = sum(float(((x - np.asarray(y)) ** 2).sum()) for x, y in pairs) ** 0.5
    size = sum(float((x**2).sum()) for x, _ in pairs) ** 0.5
    if not gap <= TOLERANCE * size:
        raise SystemExit(f"the peer's gradient differs from Nacre's by {gap / size:.1e} of its norm: nothing was timed")
    return gap / size


def peak() -> float:
    """GiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def gradients(surrogate: str, python: str | None, folder: Path, turns: int) -> None:
    """One outer gradient, of all."""
    agent = maml.MAML(maml.Config(surrogate=surrogate), made_up_spec())
    state, rounds, last = experience(agent)
    seen = maml.Seen(rounds, last, jnp.zeros(TASKS))
    one = lambda p, s: jax.value_and_grad(lambda p: agent.losses(p, s)[0])(p)  # noqa: E731
    jobs = {"nacre": Ours(lambda p, s: agent.learner.gradient(agent.losses, p, s), state.params, seen)}
    memory = peak()
    peers = {}
    if python:
        np.savez(folder / "arrays.npz", **arrays(state.params.policy, rounds[0], last))
        for over in ("vmap", "loop"):
            answer = folder / f"{over}.npz"
            peers[f"torch {over}"] = Peer(python, {
                "file": str(folder / "arrays.npz"), "answer": str(answer), "surrogate": surrogate, "over": over,
                "rate": agent.config.inner_rate, "reach": agent.config.action_range,
            })  # fmt: skip
            gap = check_same(jobs["nacre"].found[1], answer)
            print(f"  {surrogate}, torch {over}: gradient differs by {gap:.0e} of its norm", flush=True)
    jobs |= peers
    jobs["nacre vmap"] = Ours(jax.vmap(one, in_axes=(None, 0)), state.params, seen)
    took = in_turns(jobs, turns)
    for name, (clock, used) in took.items():
        size = f"{peers[name].peak:.2f} GiB" if name in peers else f"{memory:.2f} GiB" if name == "nacre" else ""
        ratios = clock / took["nacre"][0], used / took["nacre"][1]
        print(
            f"  {surrogate:<6} {name:<11}{clock:8.2f}{used:8.2f}{ratios[0]:8.2f}{ratios[1]:8.2f}   {size}", flush=True
        )
    for peer in peers.values():
        peer.close()


def steps(turns: int) -> None:
    """Products with the curvature, whole outer steps."""
    spec, zero = made_up_spec(), jnp.zeros((), jnp.int32)
    agent, pro = maml.MAML(maml.Config(), spec), promp.ProMP(promp.Config(), spec)
    state, rounds, last = experience(agent)
    seen = maml.Seen(rounds, last, jnp.zeros(TASKS))

    def products(n):
        def run(params, seen):
            product = outer.curvature(agent.said, params, seen)
            return jax.lax.scan(lambda v, _: (product(v), None), params, None, length=n)[0]

        return Ours(run, state.params, seen)

    jobs = {"1 curvature product": products(1), "3 curvature products": products(3)}
    jobs["whole TRPO step"] = Ours(lambda s, x: agent.learn(s, x, zero), state, seen)
    jobs["ProMP, 5 epochs"] = Ours(lambda s, x: pro.learn(s, x, zero), experience(pro)[0], promp.Seen(rounds, last))
    for name, (clock, used) in in_turns(jobs, turns).items():
        print(f"  {name:<22}{clock:8.2f}{used:8.2f}", flush=True)
    print(f"  peak memory of the whole process {peak():.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python with torch and numpy; without it only Nacre is measured")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    print(f"{cores()} cores, jax {packages().get('jax')}, backend {jax.default_backend()}")
    print("\nouter gradient            seconds by clock, processor; times nacre's by clock, processor; peak memory")
    with tempfile.TemporaryDirectory() as folder:
        for surrogate in ("score", "ratio"):
            gradients(surrogate, args.peer_python, Path(folder), args.turns)
    print("\nouter steps, score        seconds by clock, processor")
    steps(args.turns)


if __name__ == "__main__":
    main()
