"""Classical algorithms on bandits and tabular MDPs, tuned per row, beside the published table of RL^2.

    python benchmarks/classical_players.py bandit --rows 10,5 10,10 10,50 100,5 100,10 100,50 --trials 10000
    python benchmarks/classical_players.py tabular-mdp --rows 10 25 --trials 1000

A row is pulls,arms or episodes. What an algorithm has to choose (discount of the Gittins index, width of UCB1 and UCRL2, bonus of
BEB, draws of OPSRL, share of random actions) is chosen on other tasks than those that are scored. Mean sum of rewards per trial
and its standard error. Thompson sampling is slow here (draws from Beta and gamma distributions on a CPU).
"""

import argparse
import time

import jax
import numpy as np

from nacre import rollout
from nacre.envs import bandit_players, tabular_players
from nacre.envs.bandit import Bandit
from nacre.envs.tabular import TabularMdp
from nacre.evaluate import Oracle
from nacre.types import take_tasks, task_count

# Duan et al. 2016, tables 1 and 2: per row the classical scores in the order of `players`, then RL^2
PUBLISHED = {
    "bandit": {
        (10, 5): "6.6 5.7 6.5 6.7 6.6 6.6 6.7", (10, 10): "6.6 5.5 6.2 6.7 6.6 6.6 6.7", (10, 50): "6.5 5.2 5.5 6.6 6.5 6.5 6.8",
        (100, 5): "78.3 74.7 77.9 78.0 75.4 74.8 78.7", (100, 10): "82.8 76.7 81.4 82.4 77.4 77.1 83.5",
        (100, 50): "85.2 64.5 67.7 84.3 78.3 78.0 84.9", (500, 5): "405.8 402.0 406.7 405.8 388.2 380.6 401.6",
        (500, 10): "437.8 429.5 438.9 437.1 408.0 395.0 432.5", (500, 50): "463.7 427.2 437.6 457.6 413.6 402.8 438.9",
    },
    "tabular-mdp": {
        (10,): "138.1 144.1 146.6 150.2 132.8 134.8 156.2", (25,): "408.8 425.2 424.1 427.8 377.3 368.8 445.7",
        (50,): "904.4 930.7 918.9 917.8 823.3 769.3 936.1", (75,): "1417.1 1449.2 1427.6 1422.6 1293.9 1172.9 1428.8",
        (100,): "1939.5 1973.9 1942.1 1935.1 1778.2 1578.5 1913.7",
    },
}  # fmt: skip
# player -> (argument of `players`, values to choose from)
CHOICES = {
    "bandit": {
        "Gittins index": ("discount", (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)),
        "UCB1": ("width", (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)),
        "epsilon-greedy": ("random", (0.0, 0.01, 0.02, 0.05, 0.1)),
    },
    "tabular-mdp": {
        "OPSRL": ("draws", (2, 5)), "UCRL2": ("width", (0.02, 0.05, 0.1, 0.2)), "BEB": ("bonus", (0.25, 0.5, 1.0, 2.0, 4.0)),
        "epsilon-greedy": ("random", (0.0, 0.02, 0.05, 0.1)),
    },
}  # fmt: skip
CHUNK = 1000  # trials at once


def scores(env, player, tasks, key) -> np.ndarray:
    """Sum of rewards of a trial per task."""
    oracle = isinstance(player, Oracle)

    @jax.jit
    def run(some, key):
        memory = player.start(some) if oracle else None
        data, _ = rollout.trial(env, player, (), some, key, episodes=env.spec.trial_episodes, memory=memory)
        return data.reward.sum(axis=(0, 2, 3))

    n = task_count(tasks)
    parts = [slice(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]
    return np.concatenate([run(take_tasks(tasks, part), jax.random.fold_in(key, part.start)) for part in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=sorted(PUBLISHED))
    parser.add_argument("--rows", nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--tuning-trials", type=int, default=2000)
    parser.add_argument(
        "--held-out", action="store_true", help="score on the family's 1000 held-out tasks, over and over"
    )
    parser.add_argument("--only", nargs="+", help="some of the algorithms, by name")
    parser.add_argument(
        "--prior", type=float, help="of tabular-mdp: the mean that mean rewards are expected to have (theirs: 1)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.prior is not None and args.family == "bandit":
        parser.error("--prior goes with tabular-mdp")
    fixed = {} if args.prior is None else {"prior": args.prior}
    make, module = (Bandit, bandit_players) if args.family == "bandit" else (TabularMdp, tabular_players)
    for row in args.rows:
        numbers = tuple(map(int, row.split(",")))
        env = Bandit(pulls=numbers[0], arms=numbers[1]) if make is Bandit else TabularMdp(episodes=numbers[0])
        draw, tune, run = jax.random.split(jax.random.key(args.seed), 3)
        tasks, others = env.sample_tasks(draw, args.trials), env.sample_tasks(tune, args.tuning_trials)
        if args.held_out:  # as nacre evaluate does
            tasks = take_tasks(env.test_tasks, np.arange(args.trials) % task_count(env.test_tasks))
        names = list(module.players(env.spec))
        published = dict(zip((*names, "RL^2"), PUBLISHED[args.family].get(numbers, "").split(), strict=False))
        print(f"{args.family} {row}, {args.trials} trials; published RL^2 {published.get('RL^2', '-')}", flush=True)
        for name in args.only or names:
            start, note = time.perf_counter(), ""
            player = module.players(env.spec, **fixed)[name]
            if name in CHOICES[args.family]:
                argument, values = CHOICES[args.family][name]
                tried = [module.players(env.spec, **fixed, **{argument: value})[name] for value in values]
                means = [scores(env, p, others, tune).mean() for p in tried]
                player, note = tried[int(np.argmax(means))], f"{argument} {values[int(np.argmax(means))]}"
            found = scores(env, player, tasks, run)
            error = found.std() / len(found) ** 0.5
            line = (
                f"  {name:<30}{found.mean():8.2f} +- {error:.2f}   published {published.get(name, '-'):>7}   {note:<16}"
            )
            print(f"{line}{time.perf_counter() - start:6.0f} s", flush=True)
        if args.family == "bandit" and numbers[0] <= 14:
            best = bandit_players.best_sum(numbers[1], numbers[0])
            print(f"  {'best possible, exact':<30}{best:8.3f}   over all tasks, these or others", flush=True)
        oracle = scores(env, Oracle(env), tasks, run)
        print(f"  {'knows the task':<30}{oracle.mean():8.2f} +- {oracle.std() / len(oracle) ** 0.5:.2f}", flush=True)


if __name__ == "__main__":
    main()
