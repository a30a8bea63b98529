"""Run directories with made-up numbers that look like a trained agent's, for tests of what reads run directories."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from nacre.envs.registry import make_family

ENV_STEPS = 150_000


def hunt(rng: np.random.Generator, goals: np.ndarray, shots: int, skill: float) -> dict[str, np.ndarray]:
    """Paths x, y [K, N, T] of robots that try directions until they meet their goal on the half circle, and returns."""
    n, steps = len(goals), 20
    angle = np.arctan2(goals[:, 1], goals[:, 0])
    known = np.zeros(n, bool)
    x, y = np.zeros((shots, n, steps)), np.zeros((shots, n, steps))
    returns = np.zeros((n, shots))
    for k in range(shots):
        heading = np.where(known, angle + 0.03 * rng.normal(size=n), rng.uniform(0, np.pi, n))
        heading = heading + np.where(rng.uniform(size=n) < 0.1, rng.normal(0, 0.5, n), 0)
        heading = np.where(rng.uniform(size=n) < skill, heading, rng.normal(1.2, 0.4, n))
        distance = np.minimum(np.arange(1, steps + 1) * 0.115, 1.0)[None]
        bend = 0.12 * np.sin(np.arange(steps) / 4)[None] * rng.normal(size=(n, 1))
        x[k], y[k] = distance * np.cos(heading[:, None] + bend), distance * np.sin(heading[:, None] + bend)
        gap = np.hypot(x[k] - goals[:, :1], y[k] - goals[:, 1:])
        reward = np.where(gap <= 0.2, 1 - gap, 0.0)
        returns[:, k] = reward.sum(axis=-1)
        known |= returns[:, k] > 0
    return {"x": x, "y": y, "returns": returns}


def run_fast(rng: np.random.Generator, speeds: np.ndarray, shots: int, skill: float) -> dict[str, np.ndarray]:
    """Velocities [K, N, T] of cheetahs that learn their speed over the shots, and returns."""
    t = np.arange(200) * 0.05
    rise = 1 - np.exp(-t / 0.6)
    guess = rng.uniform(0.5, 2.5, (shots, len(speeds)))
    trust = (skill * np.clip(np.arange(shots) / max(1, shots - 1), 0, 1))[:, None]
    reached = trust * speeds + (1 - trust) * guess
    velocity = reached[..., None] * rise + 0.25 * rng.normal(size=(shots, len(speeds), 200))
    returns = -np.abs(velocity - speeds[:, None]).sum(axis=-1) - 20
    return {"velocity": velocity, "returns": returns.T}


def play(family: str, rng: np.random.Generator, tasks: np.ndarray, shots: int, skill: float) -> dict[str, np.ndarray]:
    if family == "sparse-point-robot":
        return hunt(rng, tasks, shots, skill)
    if family == "cheetah-vel":
        return run_fast(rng, tasks, shots, skill)
    if family == "cheetah-dir":
        out = run_fast(rng, np.full(len(tasks), 5.0), shots, skill)
        out["velocity"] = out["velocity"] * tasks[:, None]
        return {"velocity": out["velocity"], "returns": np.swapaxes(out["velocity"].sum(axis=-1) * tasks, 0, 1)}
    paths = hunt(rng, tasks, shots, skill)
    ends = np.linspace(0.05, 1, 20)
    for axis, name in enumerate("xy"):
        start = rng.uniform(-1, 1, (shots, len(tasks), 1))
        aim = np.where(np.arange(shots)[:, None] > 0, tasks[:, axis], 0.3 * rng.normal(size=(shots, len(tasks))))
        paths[name] = start + (aim[..., None] - start) * np.minimum(1.6 * ends, 1)
    gap = np.hypot(paths["x"] - tasks[:, :1], paths["y"] - tasks[:, 1:])
    return {**paths, "returns": -gap.sum(axis=-1).T}


def beliefs(rng: np.random.Generator, tasks: np.ndarray, shots: int, repetitions: int, latent: int) -> dict:
    """mean, variance [R, K, N, latent] that sharpen towards an embedding of the task."""
    flat = np.reshape(tasks, (len(tasks), -1))
    embed = np.tanh(flat @ rng.normal(size=(flat.shape[1], latent)) * 1.2)
    trust = np.clip(np.arange(shots) / max(1, min(6, shots - 1)), 0, 1)[None, :, None, None]
    mean = trust * embed + 0.12 * trust * rng.normal(size=(repetitions, shots, len(tasks), latent))
    return {"mean": mean, "variance": np.broadcast_to(1 - 0.95 * trust, mean.shape)}


def write_evaluation(file: Path, family: str, rng: np.random.Generator, skill: float, repetitions: int, latent: int):
    """One evaluations/<env steps>.npz; returns its returns [R, N, K]."""
    env = make_family(family)
    tasks, shots = np.asarray(env.test_tasks), env.spec.trial_episodes
    plays = [play(family, rng, tasks, shots, skill) for _ in range(repetitions)]
    returns = np.stack([one.pop("returns") for one in plays])
    save = {"returns": returns, "tasks/0": tasks}
    save |= {f"beliefs/{name}": value for name, value in beliefs(rng, tasks, shots, repetitions, latent).items()}
    save |= {f"info/{name}": value for name, value in plays[0].items()}
    np.savez(file, **save)
    return returns


def train_metrics(rng: np.random.Generator, done: float) -> dict:
    """What a training loop logs at the share `done` of its run."""
    noise = rng.normal(size=10)
    return {
        "loss/critic": 900 * np.exp(-4 * done) * np.exp(0.2 * noise[0]) + 3,
        "loss/value": 40 * np.exp(-3 * done) + 1,
        "loss/policy": -30 * done + noise[1],
        "kl/posterior": 8 * done + 0.2 * noise[2],
        "posterior/variance": np.exp(-3 * done),
        "posterior/mean_abs": 0.6 * done,
        "q/mean": 30 * done + noise[3],
        "policy/entropy": 1.4 - 2 * done + 0.1 * noise[4],
        "policy/temperature": 1.0 - 0.6 * done,
        "collect/return_prior": 3 * done + noise[5],
        "rate/updates": 140 + 5 * noise[6],
        "rate/env_steps": 800 + 30 * noise[7],
    }


def references(family: str, shots: int) -> dict[str, list[float] | None]:
    known = {
        "sparse-point-robot": {"random": 0.2, "still": 0.0, "oracle": 13.4, "no_adaptation": 1.9},
        "point-robot": {"random": -22.0, "still": -21.0, "oracle": -5.0, "no_adaptation": -16.0},
        "cheetah-vel": {"random": -292.0, "still": -283.5, "oracle": None, "no_adaptation": -160.0},
        "cheetah-dir": {"random": -20.0, "still": 0.0, "oracle": None, "no_adaptation": 0.0},
    }[family]
    return {name: None if value is None else [value] * shots for name, value in known.items()}


def result(family: str, seeds: list[int], returns: np.ndarray, env_steps: int) -> dict:
    """The JSON object of `nacre evaluate`; returns [R, N, K]."""
    env = make_family(family)
    shots = returns.mean(axis=(0, 1))
    spread = 1.96 * returns.mean(axis=0).std(axis=0) / np.sqrt(returns.shape[1])
    return {
        "schema": 1, "algorithm": "pearl", "env": family, "preset": "fast", "seeds": seeds, "env_steps": env_steps,
        "split": "test", "deterministic": True, "repetitions": len(returns) // len(seeds), "shots": shots.tolist(),
        "intervals": np.stack([shots - spread, shots + spread], axis=-1).tolist(),
        "per_task": returns.mean(axis=0).tolist(), "task_params": np.asarray(env.test_tasks).tolist(),
        "trial_return": float(returns.sum(axis=-1).mean()), "references": references(family, returns.shape[-1]),
    }  # fmt: skip


def write_seed(path: Path, family: str, seed: int, repetitions: int = 3, points: int = 6, latent: int = 5):
    """metrics.jsonl and evaluations/ of one seed; returns the last evaluation's returns [R, N, K]."""
    rng = np.random.default_rng(seed)
    (path / "evaluations").mkdir(parents=True)
    seconds, lines = 280.0 + 10 * seed, []
    for k in range(60):
        done = (k + 1) / 60
        counters = {"env_steps": int(ENV_STEPS * done), "updates": int(30_000 * done), "seconds": seconds * done}
        counters["evaluation_seconds"] = 0.1 * k
        lines.append({"kind": "train", **counters, "metrics": train_metrics(rng, done)})
        if (k + 1) % (60 // points) == 0:
            skill = float(np.clip(1.25 * done - 0.2 + 0.05 * rng.normal(), 0, 1))
            file = path / "evaluations" / f"{counters['env_steps']}.npz"
            returns = write_evaluation(file, family, rng, skill, repetitions, latent)
            shots = {f"return/shot_{i}": float(value) for i, value in enumerate(returns.mean(axis=(0, 1)))}
            lines.append({"kind": "evaluation", **counters, "metrics": shots})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return returns


def write_run(path: Path, family: str = "sparse-point-robot", seeds: tuple[int, ...] = (0,), **settings) -> Path:
    """A finished run with everything that a report can show. settings: further values of the algorithm's."""
    path.mkdir(parents=True)
    places = [path] if len(seeds) == 1 else [path / f"seed-{seed}" for seed in seeds]
    returns = [write_seed(place, family, seed) for place, seed in zip(places, seeds, strict=True)]
    algorithm = {"latent_size": 5, "hidden": [128, 128], "learning_rate": 1e-3, "target_entropy": None, **settings}
    config = {
        "schema": 1, "algorithm": "pearl", "env": family, "env_params": {}, "env_from": "name", "preset": "fast",
        "seeds": list(seeds), "config": algorithm, "loop": {"env_steps": ENV_STEPS, "evaluate_every": 25_000},
        "spec": dataclasses.asdict(make_family(family).spec),
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    versions = {"python": "3.11.9", "packages": {"nacre": "0.1.0", "jax": "0.10.2"}, "devices": ["cpu: cpu"]}
    (path / "versions.json").write_text(json.dumps(versions))
    (path / "command.txt").write_text(f"nacre train pearl {family} --seeds {' '.join(map(str, seeds))}\n")
    (path / "result.json").write_text(json.dumps(result(family, list(seeds), np.concatenate(returns), ENV_STEPS)))
    return path
