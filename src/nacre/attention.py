"""A memory that looks back: causal self-attention over the env steps of a trial, in place of a recurrent core.

Mishra et al. 2018 (SNAIL, arXiv:1707.03141) put attention between temporal convolutions; this is the transformer that has become
usual since (Vaswani et al. 2017, arXiv:1706.03762; layer normalisation first), with two changes that suit trials. A head's
interest fades with the age of a step at a rate of its own, one head's not at all (Press et al. 2022, arXiv:2108.12409), so no step
is numbered and a trial may be longer than in training. And a head may look at nothing: a step adds exp(logit) to a sum that starts
at one, so what it sees tells how often something was, not only how it was on average.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nacre import nn

FADED = -1e9


class State(NamedTuple):
    """Keys and values of the steps seen, leading axes of the rows [...]."""

    seen: Array  # [..., layers, 2, heads, room, width / heads] keys and values
    count: Array  # [...] int32, steps that count
    output: Array  # [..., width] of the last step


class Layer(eqx.Module):
    """Weights [in, out] of one block."""

    query_key_value: Array  # [width, 3 * width]
    out: Array  # [width, width]
    up: Array  # [width, 2 * width]
    down: Array  # [2 * width, width]

    def __init__(self, width: int, layers: int, *, key: Array):
        keys = jax.random.split(key, 4)

        def uniform(key, n_in, n_out, scale=1.0):
            bound = scale * n_in**-0.5
            return jax.random.uniform(key, (n_in, n_out), minval=-bound, maxval=bound)

        self.query_key_value = uniform(keys[0], width, 3 * width)
        self.out = uniform(keys[1], width, width, layers**-0.5)
        self.up = uniform(keys[2], width, 2 * width)
        self.down = uniform(keys[3], 2 * width, width, layers**-0.5)

    def after(self, h: Array, found: Array) -> Array:
        """The rest of the block [..., width], given what attention found."""
        h = h + found @ self.out
        return h + jax.nn.relu(jax.nn.standardize(h) @ self.up) @ self.down


class AttentionCore(eqx.Module):
    """Blocks of attention over a trial, in the shape of nn.RecurrentCore. room: steps that acting remembers, the last ones."""

    embed: nn.MLP  # in -> width; not linear, so that one layer can already tell what an action paid
    layers: tuple[Layer, ...]
    heads: int = eqx.field(static=True)
    room: int = eqx.field(static=True)

    def __init__(self, in_size: int, width: int, layers: int, heads: int, room: int, *, key: Array):
        keys = jax.random.split(key, layers + 1)
        self.embed = nn.MLP((in_size, width, width), key=keys[0], out_scale=width**-0.5, hidden_bias=0.0)
        self.layers = tuple(Layer(width, layers, key=k) for k in keys[1:])
        self.heads, self.room = heads, room

    @property
    def width(self) -> int:
        return self.embed.biases[-1].shape[0]

    @property
    def fading(self) -> Array:
        """[heads] by which a logit falls per step of age: 0, 1/2, 1/4, 1/8, ..."""
        return jnp.asarray([0.0, *(2.0**-i for i in range(1, self.heads))], jnp.float32)

    def begin(self, rows: tuple[int, ...]) -> State:
        """Nothing seen."""
        width = self.width
        seen = jnp.zeros((*rows, len(self.layers), 2, self.heads, self.room, width // self.heads))
        return State(seen, jnp.zeros(rows, jnp.int32), jnp.zeros((*rows, width)))

    def output(self, state: State) -> Array:
        return state.output

    def kept(self, valid: Array, new: State, old: State) -> State:
        """`new` in the rows where the step counts; elsewhere `old`, whose next step overwrites what this one wrote."""
        output = jnp.where(valid[..., None], new.output, old.output)
        return State(new.seen, jnp.where(valid, new.count, old.count), output)

    def once(self, x: Array, state: State) -> State:
        """One step: inputs x [..., d]."""
        rows = x.shape[:-1]
        n, width = int(np.prod(rows)), self.width
        seen, count = state.seen.reshape(n, *state.seen.shape[len(rows) :]), state.count.reshape(n)
        h, place, row = self.embed(x.reshape(n, -1)), count % self.room, jnp.arange(n)
        age = (place[:, None] - jnp.arange(self.room)) % self.room
        shade = (
            jnp.where(age <= count[:, None], 0.0, FADED)[:, None] - self.fading[:, None] * age[:, None]
        )  # [n, heads, room]
        for i, layer in enumerate(self.layers):
            parts = jnp.split(jax.nn.standardize(h) @ layer.query_key_value, 3, axis=-1)
            query, key, value = map(self.split, parts)  # [n, heads, d]
            seen = seen.at[row, i, :, :, place].set(jnp.stack([key, value], axis=1))
            # heads stand before room, so that these are products of whole matrices: ten times as fast on a CPU
            logit = jnp.einsum("nhd,nhtd->nht", query, seen[:, i, 0]) * self.temper + shade
            found = jnp.einsum("nht,nhtd->nhd", self.weights(logit), seen[:, i, 1])
            h = layer.after(h, found.reshape(n, width))
        new = seen.reshape(state.seen.shape), (count + 1).reshape(rows), jax.nn.standardize(h).reshape(*rows, width)
        return State(*new)

    def __call__(self, x: Array, valid: Array, fresh: Array | None = None) -> Array:
        """x [N, T, d] -> outputs [N, T, width], each of what was seen until then. Steps that are not `valid` [N, T] are not looked
        at. fresh [N, T]: nothing before this step is."""
        n, t, _ = x.shape
        number = jnp.cumsum(valid, axis=1)
        age = number[:, :, None] - number[:, None]
        looks = jnp.tril(jnp.ones((t, t), bool)) & (valid[:, None] | jnp.eye(t, dtype=bool))
        if fresh is not None:
            part = jnp.cumsum(fresh & valid, axis=1)
            looks &= part[:, :, None] == part[:, None]
        shade = jnp.where(looks, 0.0, FADED)[:, None] - self.fading[:, None, None] * age[:, None]  # [N, heads, T, T]
        h = self.embed(x.reshape(n * t, -1))
        for layer in self.layers:
            parts = jnp.split(jax.nn.standardize(h) @ layer.query_key_value, 3, axis=-1)
            query, key, value = (self.split(p).reshape(n, t, self.heads, -1).swapaxes(1, 2) for p in parts)
            logit = jnp.einsum("nhtd,nhsd->nhts", query, key) * self.temper + shade
            found = jnp.einsum("nhts,nhsd->nhtd", self.weights(logit), value)
            h = layer.after(h, found.swapaxes(1, 2).reshape(n * t, -1))
        return jax.nn.standardize(h).reshape(n, t, -1)

    def split(self, x: Array) -> Array:
        """[..., width] -> [..., heads, width / heads]."""
        return x.reshape(*x.shape[:-1], self.heads, -1)

    @property
    def temper(self) -> float:
        return (self.width // self.heads) ** -0.5

    def weights(self, logit: Array) -> Array:
        """exp(logit) / (1 + sum exp(logit)) along the last axis: what is missing to one is the weight of looking at nothing."""
        most = jnp.maximum(jax.lax.stop_gradient(logit.max(axis=-1, keepdims=True)), 0.0)
        each = jnp.exp(logit - most)
        return each / (jnp.exp(-most) + each.sum(axis=-1, keepdims=True))
