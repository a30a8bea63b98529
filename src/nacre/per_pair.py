"""A memory for each pair of a state and an action, with the same weights for all, and a plan over them: a tabular learner that is
itself learnt.

Where states are few and could be renumbered without anybody noticing, as in random MDPs, so should a policy be. What a pair paid
goes into a cell of its own (a GRU, the same for all), where it led to is counted. From the cells a reward is read for each pair,
whatever is best to plan with, so higher where little is known and much time is left. On it and on the posterior mean of the
transitions some steps of value iteration are done, through which gradients flow, as Tamar et al. 2016 (arXiv:1602.02867) do on
images. The policy sees the cells of the state that it is in, and what the plan says of each action. The same weights serve any
number of states and actions, a symmetry as in Kirsch et al. 2021 (arXiv:2109.10781).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import nn


class State(NamedTuple):
    """Leading axes of the rows [...]."""

    cells: Array  # [..., S, A, width]
    counts: Array  # [..., S, A, S] transitions seen
    common: Array  # [..., width]
    output: Array  # [..., (A + 1) * (width + depth)] see PerPairCore.look


class PerPairCore(eqx.Module):
    """GRUs, one per pair of a state and an action and a common one, in the shape of nn.RecurrentCore. Inputs are the observation,
    the one before, the action before as a one-hot, its reward, and whether the episode was over."""

    own: nn.RecurrentCore
    common: nn.RecurrentCore
    worth: nn.MLP  # the common cell -> how a reward is read from a pair's cell
    log_prior: Array  # of the number of times that each transition is taken to have been seen before any was
    states: tuple[tuple[float, ...], ...] = eqx.field(static=True)  # all observations there are
    actions: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)  # steps of the plan

    def __init__(self, states: tuple[tuple[float, ...], ...], width: int, actions: int, depth: int, *, key: Array):
        own_key, common_key, worth_key = jax.random.split(key, 3)
        self.own = nn.RecurrentCore(2, width, key=own_key)
        self.common = nn.RecurrentCore(2, width, key=common_key)
        self.worth = nn.MLP((width, width), key=worth_key, out_scale=width**-0.5)
        self.log_prior = jnp.zeros(())
        self.states, self.actions, self.depth = states, actions, depth

    @property
    def width(self) -> int:
        """Numbers of an action's part of the output, and of the common one."""
        return self.own.width + self.depth

    def begin(self, rows: tuple[int, ...]) -> State:
        """Nothing seen."""
        s, a, width = len(self.states), self.actions, self.own.width
        shapes = (s, a, width), (s, a, s), (width,), ((a + 1) * self.width,)
        return jax.lax.optimization_barrier(State(*(jnp.zeros((*rows, *shape)) for shape in shapes)))

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
        flat = (y.reshape(-1, *y.shape[len(rows) :]) for y in state[:3])
        now, *rest = self._split(x.reshape(-1, x.shape[-1]))
        cells, counts, common = self._seen(*flat, now, *rest)
        output = self.look(cells[jnp.arange(len(now)), now], self.rewards(cells, common), counts, common, now)
        return State(*(y.reshape(*rows, *y.shape[1:]) for y in (cells, counts, common, output)))

    def __call__(
        self, x: Array, state: State, valid: Array | None = None, fresh: Array | None = None, truncate: int = 0
    ) -> tuple[Array, State]:
        """x [N, T, d] -> outputs [N, T, (A + 1) * width], the last state. See nn.RecurrentCore."""
        n, t = x.shape[:2]
        keep = jnp.ones((n, t), bool) if valid is None else valid
        forget = jnp.zeros((n, t), bool) if fresh is None else fresh & keep
        cut = jnp.arange(t) % truncate == 0 if truncate else jnp.zeros(t, bool)

        def step(before, inputs):
            x, keep, forget, cut = inputs
            if truncate:
                before = jax.tree.map(lambda y: jnp.where(cut, jax.lax.stop_gradient(y), y), before)
            if fresh is not None:
                before = [jnp.where(forget.reshape(-1, *(1,) * (y.ndim - 1)), 0.0, y) for y in before]
            cells, counts, common = after = self._seen(*before, *x, keep)
            return after, (cells[jnp.arange(n), x[0]], self.rewards(cells, common), counts, common, x[0])

        inputs = jax.tree.map(lambda y: y.swapaxes(0, 1), (self._split(x), keep, forget))
        last, seen = jax.lax.scan(step, tuple(state[:3]), (*inputs, cut))
        outputs = self.look(*(y.reshape(t * n, *y.shape[2:]) for y in seen)).reshape(t, n, -1).swapaxes(0, 1)
        return outputs, State(*last, outputs[:, -1])

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

    def _seen(self, cells, counts, common, now, before, action, rest, keep=True):
        """What a step says: numbers [N], rest [N, 2]; rows that do not `keep` stay as they are."""
        pair = jnp.arange(len(now)), before, action
        old, real = cells[pair], (action >= 0) & keep
        cells = cells.at[pair].set(jnp.where(real[:, None], self.own.once(rest, old), old))
        # the first state of the next episode tells nothing of the action before
        counts = counts.at[(*pair, now)].add(real * (1.0 - rest[:, 1]))
        return cells, counts, jnp.where(jnp.asarray(keep)[..., None], self.common.once(rest, common), common)

    def rewards(self, cells: Array, common: Array) -> Array:
        """To plan with: cells [N, S, A, width], common [N, width] -> [N, S, A]."""
        return jnp.einsum("nsaw,nw->nsa", cells, self.worth(common))

    def look(self, here: Array, reward: Array, counts: Array, common: Array, now: Array) -> Array:
        """Cells [N, A, width] of the states `now` [N], rewards [N, S, A], counts and the common cell -> for each action its cell
        and what it falls short of the best one in plans of 1 to depth steps, then the common cell and their worth per step."""
        prior = jnp.exp(self.log_prior)
        chance = (counts + prior) / (counts.sum(axis=-1, keepdims=True) + prior * counts.shape[-1])
        rows, value, short, best = jnp.arange(len(now)), jnp.zeros(reward.shape[:2]), [], []
        for k in range(self.depth):
            q = reward + jnp.einsum("nsap,np->nsa", chance, value)
            value = q.max(axis=-1)
            short.append(q[rows, now] - value[rows, now][:, None])
            best.append(value[rows, now] / (k + 1))
        each = jnp.concatenate([here, jnp.stack(short, axis=-1)], axis=-1)
        shared = jnp.concatenate([common, jnp.stack(best, axis=-1)], axis=-1)
        return jnp.concatenate([each.reshape(len(now), -1), shared], axis=-1)
