"""The best return that a board of krazy-world allows, exactly: a search over everything that an episode can come to.

    python benchmarks/krazy_world_best.py krazy-world --boards 100

Prints the mean over held-out boards beside that of uniformly random actions. An agent that has seen the board and its actions
in the earlier episodes of a trial can get no more than this; episodes are deterministic where `start` is fixed.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from nacre.envs import krazy_boards as boards
from nacre.envs.krazy_world import KrazyWorld
from nacre.envs.registry import make_family
from nacre.evaluate import evaluation_key, references, summary
from nacre.types import take_tasks

CHUNK = 1024  # situations stepped at once


@functools.partial(jax.jit, static_argnums=0)
def step_all(env: KrazyWorld, state, action):
    return env.step(state, action, jnp.ones(action.shape, bool))


def successors(env: KrazyWorld, states, count: int):
    """What each of the four actions makes of the first `count` of states -> states, over [count * 4]."""
    after, over = [], []
    for first in range(0, 4 * count, CHUNK):
        index = np.minimum(np.arange(first, first + CHUNK), 4 * count - 1)
        state, out = step_all(
            env, jax.tree.map(lambda x, i=index: x[i // 4], states), jnp.asarray(index % 4, jnp.int32)
        )
        after.append(jax.tree.map(np.asarray, state))
        over.append(np.asarray(out.terminal))
    return jax.tree.map(lambda *x: np.concatenate(x)[: 4 * count], *after), np.concatenate(over)[: 4 * count]


def best_goals(env: KrazyWorld, board) -> int:
    """The most goals that one episode on board (leaves lead with 1) can collect.

    Situations are searched in order of env steps. Two that differ in nothing but the energy that they have left do not meet: what
    was taken from the board and the number of steps fix it, and reaching a situation sooner is never worse.
    """
    if env.slide_energy or env.start != "fixed":
        raise ValueError("the search is for boards with a fixed start and free slides (slide_energy 0)")
    states, _ = env.reset(jax.random.key(0), board)
    states = jax.tree.map(np.asarray, states)
    seen, most = set(), 0
    for _ in range(env.horizon):
        after, over = successors(env, states, len(states.cell))
        most = max(most, int(after.goals.max(initial=0)))
        if most == env.goals:
            break
        keep = []
        for i in np.flatnonzero(~over):
            name = (int(after.cell[i]), after.tiles[i].tobytes())
            if name not in seen:
                seen.add(name)
                keep.append(i)
        if not keep:
            break
        states = jax.tree.map(lambda x, keep=keep: x[np.array(keep)], after)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="?", default="krazy-world")
    parser.add_argument("--boards", type=int, default=100)
    options = parser.parse_args()
    env = make_family(options.family)
    tasks = take_tasks(env.test_tasks, np.arange(min(options.boards, env.n_test)))
    best = np.array([best_goals(env, take_tasks(tasks, np.array([i]))) for i in range(len(tasks.start))])
    random = references(env, tasks, evaluation_key(), episodes=env.episodes, repetitions=100)["random"]
    (low, high), mean = summary(best[None, None, :, None])["intervals"][0], best.mean()
    placed = (tasks.tiles == boards.GOAL).sum(axis=1).mean()
    print(f"{options.family}, {len(best)} held-out boards with {placed:.1f} goals each")
    print(f"best possible: {mean:.2f} goals per episode (95 % over boards {low:.2f} to {high:.2f})")
    print(f"all of them can be collected on {(best == env.goals).mean():.0%}")
    print(f"uniformly random actions: {np.mean(random):.3f}")


if __name__ == "__main__":
    main()
