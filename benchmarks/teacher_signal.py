"""What a meta-reward says of the teacher's deviation: its mean over trials from one student, for several deviations.

python benchmarks/teacher_signal.py far-goal --seed 0 --iterations 10 60 160 --trials 40

The student is the preset `fast`'s, taught by a teacher that does not learn. The teacher that is tried acts around its own mean, or
around the student's; nothing that is tried is kept.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from nacre import rollout
from nacre.algorithms.teacher import Config, Teacher, _try
from nacre.envs import registry
from nacre.presets import teacher as presets

DEVIATIONS = 0.02, 0.1, 0.3, 0.7, 1.2, 2.0  # in the agent's units
AT_ONCE = 8  # trials


def trial(algorithm, env, state, log_std, imitate, key):
    """The meta-reward of one D0, from the same starts, and the student's return before."""
    seen_key, try_key, measure_key = jax.random.split(key, 3)

    def act(params, obs, key):
        mean = jnp.where(imitate, algorithm.student.best(params.policy, obs), params.explorer.mean(None, obs))
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

    actor, params = rollout.Scripted(act, env.spec), algorithm.params(state)
    seen = algorithm.collect(env, actor, params, seen_key, algorithm.config.teacher_steps)
    policies = _try(algorithm, state, seen, try_key)[0].nets.policy, params.policy
    after, before = (rollout.mean_return(algorithm.measure(env, p, state.explorer, measure_key)) for p in policies)
    return after - before, before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=("far-goal", "pendulum"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, nargs="+", default=[10, 60, 160], help="ages of the student")
    parser.add_argument("--trials", type=int, default=40, help="for each deviation")
    parser.add_argument("--trial-updates", type=int, default=20)
    args = parser.parse_args()
    env = registry.make_family(args.family)
    values = presets.preset("fast", args.family, env.spec)
    values |= dict(teacher_rate=1e-9, trial_updates=args.trial_updates)
    algorithm = Teacher(Config(**{k: v for k, v in values.items() if k in Config.__dataclass_fields__}), env.spec)
    state = algorithm.init(jax.random.key(args.seed), env, 60_000)
    step = jax.jit(lambda state, key: algorithm.iterate(state, env, key, "iteration"))

    @jax.jit
    def many(state, log_std, imitate, key):
        keys = jax.random.split(key, args.trials)
        return jax.lax.map(lambda key: trial(algorithm, env, state, log_std, imitate, key), keys, batch_size=AT_ONCE)

    done = 0
    for age in sorted(args.iterations):
        for k in range(done, age):
            state, _ = step(state, jax.random.fold_in(jax.random.key(args.seed + 100), k))
        done = age
        for imitate in (False, True):
            cells = []
            for std in DEVIATIONS:
                reward, before = map(np.asarray, many(state, jnp.log(std), jnp.asarray(imitate), jax.random.key(7)))
                cells.append(f"{std}: {reward.mean():.1f} +- {reward.std() / args.trials**0.5:.1f}")
            around = "student-mean" if imitate else "independent"
            print(
                f"{int(state.env_steps)} env steps, return {before.mean():.1f}, {around}:", *cells, sep="  ", flush=True
            )


if __name__ == "__main__":
    main()
