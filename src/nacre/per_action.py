"""A memory for each action, with the same weights for all: what is learnt about one action holds for every other.

Where the actions of a family could be renumbered without anybody noticing, as the arms of a bandit, a policy should be renumbered
with them (be permutation-equivariant). Kirsch et al. 2021 (arXiv:2109.10781) build this into RL^2 by cells that share their
weights and tell each other messages at every step. Here it is had for less: only the cell of the action that was made is
brought up to date, a common cell sees every step, and what the cells say of each other is their mean and their maximum, which the
layers after them see. So a policy does not depend on the number of actions either.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre import nn
from nacre.nn import Parts


class PerActionCore(eqx.Module):
    """GRUs, one per action and a common one, in the shape of nn.RecurrentCore. Inputs end with the action before as a one-hot, its
    reward and whether the episode was over. A state is [the actions' in their order, the common one]."""

    own: nn.RecurrentCore
    common: nn.RecurrentCore
    actions: int = eqx.field(static=True)

    def __init__(self, in_size: int, width: int, actions: int, *, key: Array):
        own_key, common_key = jax.random.split(key)
        self.own = nn.RecurrentCore(in_size - actions, width, key=own_key)
        self.common = nn.RecurrentCore(in_size - actions, width, key=common_key)
        self.actions = actions

    @property
    def width(self) -> int:
        """Numbers of an action's part of the output, and of the common one."""
        return self.own.width

    def begin(self, rows: tuple[int, ...]) -> Array:
        """Nothing seen: [*rows, (actions + 1) * width]."""
        # behind a barrier: XLA would take seconds to work out what the layers after it make of a large constant
        return jax.lax.optimization_barrier(jnp.zeros((*rows, (self.actions + 1) * self.own.width)))

    def kept(self, valid: Array, new: Array, old: Array) -> Array:
        """`new` in the rows [...] where the step counts, elsewhere `old`."""
        return jnp.where(valid[..., None], new, old)

    def output(self, state: Array) -> Array:
        return state

    def once(self, x: Array, state: Array) -> Array:
        """One step: inputs x [..., d], state [..., (actions + 1) * width] -> state."""
        chosen, rest = self._split(x)
        cells = state.reshape(*state.shape[:-1], self.actions + 1, -1)
        each, common = cells[..., :-1, :], cells[..., -1, :]
        before = (chosen * each).sum(axis=-2)
        each = each + chosen * (self.own.once(rest, before) - before)[..., None, :]
        common = self.common.once(rest, common)
        return jnp.concatenate([each, common[..., None, :]], axis=-2).reshape(state.shape)

    def __call__(
        self, x: Array, state: Array, valid: Array | None = None, fresh: Array | None = None, truncate: int = 0
    ) -> tuple[Array, Array]:
        """x [N, T, d], state [N, S] -> states after each step [N, T, S], the last one. See nn.RecurrentCore."""
        n, t = x.shape[:2]
        chosen, rest = self._split(x)
        cells = state.reshape(n, self.actions + 1, -1)
        common, _ = self.common(rest, cells[:, -1], valid, fresh, truncate)
        forget = jnp.zeros((n, t), bool) if fresh is None else fresh
        if valid is not None:
            chosen, forget = jnp.where(valid[..., None, None], chosen, 0.0), forget & valid
        cut = jnp.arange(t) % truncate == 0 if truncate else jnp.zeros(t, bool)
        shares, *weights = self.own.prepared(rest)
        each = _sweep(self.own.cell, *weights, shares, chosen.swapaxes(0, 1), cells[:, :-1], (forget.T, cut))
        states = jnp.concatenate([each.swapaxes(0, 1), common[:, :, None]], axis=2).reshape(n, t, -1)
        return states, states[:, -1]

    def _split(self, x: Array) -> tuple[Array, Array]:
        """Inputs [..., d] -> which action was before [..., actions, 1], all else [..., d - actions]."""
        first, chosen, last = jnp.split(x, (x.shape[-1] - self.actions - 2, x.shape[-1] - 2), axis=-1)
        return chosen[..., None], jnp.concatenate([first, last], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sweep(
    cell: Callable, weights: Parts, biases: Parts, shares: Parts, chosen: Array, start: Array, marks: tuple[Array, Array]
) -> Array:  # fmt: skip
    """The cells of all actions [T, N, A, width] after each step; chosen [T, N, A, 1] names the one that takes it, or none.
    marks: forget [T, N], cut [T], as in nn.

    The gradient is written out: that of a scan would keep all cells several times over for each step.
    """
    return _states(cell, weights, biases, shares, chosen, start, marks)[0]


def _states(cell, weights, biases, shares, chosen, start, marks):
    """All cells after each step, the chosen one before it, and that one's shares of the gates."""

    def step(each, inputs):
        share, chosen, forget = inputs
        each = jnp.where(forget[:, None, None], 0.0, each)
        before = (chosen * each).sum(axis=1)
        again = nn.products(before, weights, biases)
        (after,) = cell(share, again, (before,))
        each = each + chosen * (after - before)[:, None]
        return each, (each, before, again)

    return jax.lax.scan(step, start, (shares, chosen, marks[0]))[1]


def _sweep_forward(cell, weights, biases, shares, chosen, start, marks):
    each, before, again = _states(cell, weights, biases, shares, chosen, start, marks)
    return each, (weights, shares, before, again, chosen, marks)


def _sweep_back(cell, kept, wanted):
    weights, shares, before, again, chosen, (forget, cut) = kept

    def step(later, inputs):
        wanted, share, again, before, chosen, forget, cut = inputs
        total = wanted + later
        here = (chosen * total).sum(axis=1)
        d_share, d_again, (d_before,) = jax.vjp(cell, share, again, (before,))[1]((here,))
        d_before = d_before + sum(x @ weight.T for x, weight in zip(d_again, weights, strict=True))
        total = total + chosen * (d_before - here)[:, None]
        return jnp.where(cut | forget[:, None, None], 0.0, total), (d_share, d_again)

    inputs = wanted, shares, again, before, chosen, forget, cut
    d_start, (d_shares, d_again) = jax.lax.scan(step, jnp.zeros_like(wanted[0]), inputs, reverse=True)
    rows = tuple(x.reshape(-1, x.shape[-1]) for x in (before, *d_again))
    d_weights = tuple(rows[0].T @ x for x in rows[1:])
    return d_weights, tuple(x.sum(axis=0) for x in rows[1:]), d_shares, jnp.zeros_like(chosen), d_start, None


_sweep.defvjp(_sweep_forward, _sweep_back)


class PerActionHead(eqx.Module):
    """Layers after a PerActionCore: a number for each action (each: of its own cell and what all cells say), or one for all."""

    net: nn.MLP
    actions: int = eqx.field(static=True)
    each: bool = eqx.field(static=True)

    def __init__(self, width: int, hidden: tuple[int, ...], actions: int, each: bool, *, key: Array):
        self.net = nn.MLP(((4 if each else 3) * width, *hidden, 1), key=key, hidden_bias=0.0)
        self.actions, self.each = actions, each

    def __call__(self, state: Array) -> Array:
        """[..., (actions + 1) * width] -> [..., actions] or [..., 1]."""
        rows = state.shape[:-1]
        cells = state.reshape(-1, self.actions + 1, state.shape[-1] // (self.actions + 1))
        own, common = cells[:, :-1], cells[:, -1]
        shared = jnp.concatenate([own.mean(axis=1), own.max(axis=1), common], axis=-1)
        found = self.net(own.reshape(-1, own.shape[-1]), shared) if self.each else self.net(shared)
        return found.reshape(*rows, -1)
