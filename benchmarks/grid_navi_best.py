"""The best that any learner can have on grid-navi, by going through its walks: return per episode, mean over the 21 goals.

    python benchmarks/grid_navi_best.py

Before a goal is found nothing tells goals apart, so an episode's search is one fixed walk, and the first episode's best is the best
walk. Walks that come back to a cell are left out: they see less. For the whole trial, every set of cells that a first walk can see
is taken with its best walk, and then the best second walk for the goals that it left out; a goal once found costs its distance in
later episodes. A few seconds.
"""

import numpy as np

from nacre.envs.grid_navi import GridNavi


def walks(size: int, horizon: int, goals: list[tuple[int, int]]) -> np.ndarray:
    """Env step at which each walk first stands on each goal [walks, goals], 0: never."""
    number, found, seen, times = {goal: i for i, goal in enumerate(goals)}, set(), {(0, 0)}, [0] * len(goals)

    def go(x: int, y: int, t: int) -> None:
        ends = True
        for place in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if t == horizon or place in seen or not (0 <= place[0] < size and 0 <= place[1] < size):
                continue
            ends, goal = False, number.get(place)
            seen.add(place)
            if goal is not None:
                times[goal] = t + 1
            go(*place, t + 1)
            if goal is not None:
                times[goal] = 0
            seen.remove(place)
        if ends:
            found.add(tuple(times))

    go(0, 0, 0)
    return np.array(sorted(found))


def main() -> None:
    env = GridNavi()
    goals = [tuple(map(int, goal)) for goal in env.train_tasks]
    times = walks(env.size, env.horizon, goals)
    value = lambda t: np.asarray(env.value(np.asarray(t), env.horizon))  # noqa: E731  of standing there at env step t
    never, known = -0.1 * env.horizon, value(np.abs(env.train_tasks).sum(axis=-1))
    returns = np.where(times > 0, value(np.maximum(times, 1)), never)  # [walks, goals]
    print(f"knows the goal: {known.mean():.2f} in every episode")
    print(f"best first episode: {returns.mean(axis=1).max():.2f}, one of {len(times)} walks")
    best = {}
    for row, seen in zip(returns, times > 0, strict=True):
        key = seen.tobytes()
        best[key] = max(best.get(key, (-np.inf,)), (row.mean(), seen.tolist()))
    trials = []
    for first, seen in best.values():
        seen = np.array(seen)
        second = returns[:, ~seen].sum(axis=1)
        now = seen | (times[second.argmax()] > 0)
        per_episode = first, (known[seen].sum() + second.max()) / len(goals), np.where(now, known, never).mean()
        trials.append((sum(per_episode) + per_episode[2], per_episode))
    total, episodes = max(trials)
    print(f"best trial of four episodes: {total:.2f} = " + " + ".join(f"{e:.2f}" for e in (*episodes, episodes[2])))


if __name__ == "__main__":
    main()
