"""What a meta-gradient through an inner step makes of each surrogate, beside the exact one.

    python benchmarks/meta_gradients.py [docs/figures/meta_gradients.png]

A task of two states and two actions, whose trajectories can all be counted, so that expectations are sums: the inner step is the
exact policy gradient, and what differs is only how each surrogate says that it changes with the policy. Exact: the derivative of
the expected return after the step, by the chain rule through the expectation itself. Printed: the error's norm in parts of the
exact gradient's, and the cosine between the two, over policies drawn at random.
"""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from nacre.plotting import SERIES, legend_above, new_figure, styled, whole_ticks
from nacre.types import Discrete, EnvSpec
from nacre.updates import inner
from nacre.updates.inner import Policy, Rates, Round

KINDS = {"score": "score function (MAML)", "ratio": "ratio, LVC (ProMP)", "dice": "DICE"}
RATE, POLICIES, LONGEST = 0.4, 20, 5


def trajectories(steps: int):
    """All of them from state 0: action 1 goes to the other state and pays 0.3, and state 1 pays 2 for action 0, 1 for action 1."""
    rows = []
    for chosen in itertools.product((0, 1), repeat=steps):
        state, states, rewards = 0, [], []
        for action in chosen:
            states.append(state)
            rewards.append(state * (2.0 - action) + 0.3 * action)
            state = 1 - state if action else state
        rows.append((states, chosen, rewards))
    return (np.array(x) for x in zip(*rows, strict=True))


def gradients(steps: int):
    """policy -> {name: meta-gradient as a vector}, of trajectories of so many env steps."""
    states, chosen, rewards = trajectories(steps)
    obs, later = jnp.eye(2)[states], jnp.asarray(np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1])

    def probability(policy):
        return jnp.exp(policy(obs).log_prob(chosen).sum(axis=1))

    def earned(policy):
        return (probability(policy) * rewards.sum(axis=1)).sum() / steps

    def after(policy, kind):
        weight = jnp.broadcast_to(jax.lax.stop_gradient(probability(policy))[:, None], rewards.shape)
        seen = Round(obs, chosen, later, jnp.asarray(rewards) * weight, weight, policy(obs).log_prob(chosen), None)
        return inner.adapted(policy, Rates(policy, RATE, False), (seen,), kind)

    def exactly(policy):
        return earned(jax.tree.map(lambda x, g: x + RATE * g, policy, jax.grad(earned)(policy)))

    def found(policy):
        by = {kind: jax.grad(lambda p, kind=kind: earned(after(p, kind)))(policy) for kind in KINDS}
        return {name: ravel_pytree(g)[0] for name, g in {"exact": jax.grad(exactly)(policy), **by}.items()}

    return jax.jit(found)


def policy(seed: int) -> Policy:
    spec = EnvSpec(name="two states", obs_size=2, action=Discrete(2), horizon=1, jittable=True)
    return jax.tree.map(lambda x: 2.0 * x, Policy(spec, (4,), 1.0, 1.0, 1e-6, key=jax.random.key(seed)))


def main() -> None:
    policies = [policy(i) for i in range(POLICIES)]
    errors = {kind: [] for kind in KINDS}
    print(f"relative error (cosine) of the meta-gradient, mean of {POLICIES} policies, inner step {RATE}")
    for steps in range(1, LONGEST + 1):
        of, line = gradients(steps), []
        found = [of(policy) for policy in policies]
        for kind, of_kind in errors.items():
            pairs = [(np.asarray(f[kind]), np.asarray(f["exact"])) for f in found]
            error = np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])
            cosine = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
            of_kind.append(error)
            line.append(f"{kind} {error:.5f} ({cosine:.4f})")
        print(f"{steps} env steps: " + "   ".join(line), flush=True)
    if len(sys.argv) > 1:
        draw(errors, sys.argv[1])


@styled
def draw(errors: dict[str, list[float]], path: str) -> None:
    figure, axes = new_figure(height=2.8, width=5.6)
    axis = axes[0, 0]
    for (kind, name), colour in zip(KINDS.items(), SERIES, strict=False):
        axis.plot(range(1, LONGEST + 1), errors[kind], marker="o", color=colour, label=name)
    axis.set_xlabel("env steps of an episode")
    axis.set_ylabel("error of the meta-gradient")
    axis.set_ylim(bottom=-0.005)
    whole_ticks(axis.xaxis)
    legend_above(figure, axes)
    figure.savefig(path)


if __name__ == "__main__":
    main()
