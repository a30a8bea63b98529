"""A memory for each pair of a state and an action, with the same weights for all: a tabular learner that is itself learnt.

Where states are few and could be renumbered without anybody noticing, as in random MDPs, so should a policy be. A transition
s, a -> r, s' brings the cell of (s, a) up to date, from r and from what the cells of s' say of it: what they say becomes, in
training, whatever is worth to be known of a state, as its value is in Q-learning; how much to trust it, and what to try, is learnt,
too. The same weights serve any number of states and actions, a symmetry as in Kirsch et al. 2021 (arXiv:2109.10781). A common cell
sees every step.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import nn


class State(NamedTuple):
    """Leading axes of the rows [...]."""

    cells: Array  # [..., states, actions, width]
    common: Array  # [..., width]
    output: Array  # [..., (actions + 1) * width] the cells of the state that the agent is in, and the common one


class PerPairCore(eqx.Module):
    """GRUs, one per pair of a state and an action and a common one, in the shape of nn.RecurrentCore. Inputs are the observation,
    the one before, the action before as a one-hot, its reward, and whether the episode was over."""

    own: nn.RecurrentCore
    common: nn.RecurrentCore
    states: tuple[tuple[float, ...], ...] = eqx.field(static=True)  # all observations there are
    actions: int = eqx.field(static=True)

    def __init__(self, states: tuple[tuple[float, ...], ...], width: int, actions: int, *, key: Array):
        own_key, common_key = jax.random.split(key)
        self.own = nn.RecurrentCore(2 + 2 * width, width, key=own_key)
        self.common = nn.RecurrentCore(2 + 2 * width, width, key=common_key)
        self.states, self.actions = states, actions

    def begin(self, rows: tuple[int, ...]) -> State:
        """Nothing seen."""
        width = self.own.width
        cells = jnp.zeros((*rows, len(self.states), self.actions, width))
        return jax.lax.optimization_barrier(
            State(cells, jnp.zeros((*rows, width)), jnp.zeros((*rows, (self.actions + 1) * width)))
        )

    def kept(self, valid: Array, new: State, old: State) -> State:
        """`new` in the rows [...] where the step counts, elsewhere `old`."""
        return jax.tree.map(
            lambda a, b: jnp.where(valid.reshape(valid.shape + (1,) * (a.ndim - valid.ndim)), a, b), new, old
        )

    def output(self, state: State) -> Array:
        return state.output

    def once(self, x: Array, state: State) -> State:
        """One step: inputs x [..., d]."""
        rows = x.shape[:-1]
        flat = jax.tree.map(lambda y: y.reshape(-1, *y.shape[len(rows) :]), state)
        after = self._step(flat.cells, flat.common, *self._split(x.reshape(-1, x.shape[-1])))
        return State(*(y.reshape(*rows, *y.shape[1:]) for y in after))

    def __call__(
        self, x: Array, state: State, valid: Array | None = None, fresh: Array | None = None, truncate: int = 0
    ) -> tuple[Array, State]:
        """x [N, T, d] -> outputs [N, T, (actions + 1) * width], the last state. See nn.RecurrentCore."""
        n, t = x.shape[:2]
        keep = jnp.ones((n, t), bool) if valid is None else valid
        forget = jnp.zeros((n, t), bool) if fresh is None else fresh
        cut = jnp.arange(t) % truncate == 0 if truncate else jnp.zeros(t, bool)

        def step(state, inputs):
            x, keep, forget, cut = inputs
            before = jax.tree.map(lambda y: jnp.where(cut, jax.lax.stop_gradient(y), y), state) if truncate else state
            if fresh is not None:
                before = self.kept(forget & keep, jax.tree.map(jnp.zeros_like, before), before)
            after = State(*self._step(before.cells, before.common, *x, keep))
            return after, after.output

        inputs = jax.tree.map(lambda y: y.swapaxes(0, 1), (self._split(x), keep, forget))
        last, outputs = jax.lax.scan(step, state, (*inputs, cut))
        return outputs.swapaxes(0, 1), last

    def _split(self, x: Array) -> tuple[Array, ...]:
        """Inputs [..., d] -> the state, the one before, the action before [...] (-1: none), reward and end [..., 2]."""
        size = len(self.states[0])
        now, before, action, rest = jnp.split(x, (size, 2 * size, 2 * size + self.actions), axis=-1)
        action = jnp.where(action.sum(axis=-1) > 0, jnp.argmax(action, axis=-1), -1)
        return self._number(now), self._number(before), action, rest

    def _number(self, obs: Array) -> Array:
        """Of the state that is nearest to an observation [..., size]."""
        table = jnp.asarray(self.states, jnp.float32)
        return jnp.argmax(obs @ table.T - 0.5 * (table**2).sum(axis=-1), axis=-1)

    def _step(self, cells, common, now, before, action, rest, keep=True):
        """cells [N, S, A, width], common [N, width], numbers [N], rest [N, 2]; rows that do not `keep` stay as they are."""
        rows = jnp.arange(len(now))
        here = cells[rows, now]
        # the first state of the next episode tells nothing of the action before
        told = jnp.concatenate([here.mean(axis=1), here.max(axis=1)], axis=-1) * (1.0 - rest[:, 1:])
        seen = jnp.concatenate([rest, told], axis=-1)
        old = cells[rows, before, action]
        counts = ((action >= 0) & keep)[:, None]
        cells = cells.at[rows, before, action].set(jnp.where(counts, self.own.once(seen, old), old))
        common = jnp.where(jnp.asarray(keep)[..., None], self.common.once(seen, common), common)
        return cells, common, jnp.concatenate([cells[rows, now].reshape(len(now), -1), common], axis=-1)
