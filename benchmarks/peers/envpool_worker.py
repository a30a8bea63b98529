"""EnvPool with a policy of three layers of 300 in the loop, in a process and a Python of its own. Talks JSON lines.

python benchmarks/peers/envpool_worker.py ID ROWS THREADS     then per line: seconds -> env steps per second
"""

import itertools
import json
import sys
import time

import envpool
import jax
import jax.numpy as jnp
import numpy as np


def main() -> None:
    name, rows, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    env = envpool.make(name, env_type="gymnasium", num_envs=rows, num_threads=threads, seed=0)
    low, high = env.action_space.low, env.action_space.high
    obs, _ = env.reset()
    sizes = [obs.shape[-1], 300, 300, 300, 2 * len(low)]
    keys = jax.random.split(jax.random.key(0), len(sizes))
    layers = [0.1 * jax.random.normal(key, shape) for key, shape in zip(keys, itertools.pairwise(sizes), strict=False)]

    @jax.jit
    def act(obs, t):
        x = obs.astype(jnp.float32)
        for layer in layers[:-1]:
            x = jax.nn.relu(x @ layer)
        mean, log_std = jnp.split(x @ layers[-1], 2, axis=-1)
        noise = jax.random.normal(jax.random.fold_in(keys[-1], t), mean.shape)
        a = jnp.tanh(mean + jnp.exp(jnp.clip(log_std, -20, 2)) * noise)
        return low + 0.5 * (a + 1) * (high - low)

    count = 0
    for line in sys.stdin:
        seconds, done, start = json.loads(line), 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            obs, *_ = env.step(np.asarray(act(obs, count), env.action_space.dtype))
            count += 1
            done += rows
        print(json.dumps(done / (time.perf_counter() - start)), flush=True)


if __name__ == "__main__":
    main()
