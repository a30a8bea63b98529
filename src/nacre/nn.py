"""Networks as Equinox modules: the module is its parameters, and all of them act on the last axis of batched arrays."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # hard clamp of the official code: no gradient outside


class MLP(eqx.Module):
    """ReLU (or tanh) layers with a linear output. Weights are [in, out].

    A latent that is shared by all rows of a task enters the first layer through its own product, computed once per task:
    [x, z] @ W = x @ W_x + z @ W_z. So dense layers stay two-dimensional, which is what a CPU multiplies fastest.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    norm: bool = eqx.field(static=True)
    tanh: bool = eqx.field(static=True)

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        key: Array,
        out_scale: float = 3e-3,
        hidden_bias: float = 0.1,
        norm: bool = False,
        tanh: bool = False,
        xavier: bool = False,
    ):
        """sizes = (in, hidden..., out). tanh: instead of the ReLU. xavier: all weights uniform within sqrt(6 / (in + out)) (Glorot
        and Bengio 2010), all biases zero. norm: hidden units of a row are brought to mean 0 and
        variance 1 before it (layer normalisation, Ba et al. 2016, without gains). Initialisation of the official PEARL code
        (rlkit): hidden weights uniform within 1/sqrt(fan-out) (its known slip: the literature says fan-in), hidden biases 0.1,
        output +-out_scale."""
        weights, biases, self.norm, self.tanh = [], [], norm, tanh
        for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            w_key, b_key = jax.random.split(jax.random.fold_in(key, layer))
            last = layer == len(sizes) - 2
            bound = (6 / (n_in + n_out)) ** 0.5 if xavier else out_scale if last else n_out**-0.5
            weights.append(jax.random.uniform(w_key, (n_in, n_out), minval=-bound, maxval=bound))
            bias = jax.random.uniform(b_key, (n_out,), minval=-bound, maxval=bound)
            constant = jnp.full((n_out,), 0.0 if xavier else hidden_bias, jnp.float32)
            biases.append(bias if last and not xavier else constant)
        self.weights, self.biases = tuple(weights), tuple(biases)

    def __call__(self, x: Array, per_task: Array | None = None) -> Array:
        """x [..., in] -> [..., out]; or x [N * M, d] with per_task [N, in - d], row n * M + m belonging to task n."""
        if per_task is None:
            # flat: of products with more axes, second derivatives make transposed copies of activations on a CPU
            flat = x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x
            return self._after_first(flat @ self.weights[0]).reshape(*x.shape[:-1], self.biases[-1].shape[-1])
        d = x.shape[-1]
        h = x @ self.weights[0][:d]
        shared = per_task @ self.weights[0][d:]  # [N, hidden]
        h = (h.reshape(shared.shape[0], -1, h.shape[-1]) + shared[:, None]).reshape(h.shape)
        return self._after_first(h)

    def pairs(self, x: Array, z: Array) -> Array:
        """x [B, k, d], z [B, t, in - d] -> [B, t, k, out]: every z with every x of its row."""
        d = x.shape[-1]
        first = (x @ self.weights[0][:d])[:, None] + (z @ self.weights[0][d:])[:, :, None]
        return self._after_first(first)

    def _after_first(self, h: Array) -> Array:
        """h: what the first layer's weights make of the input."""
        h, act = h + self.biases[0], jnp.tanh if self.tanh else jax.nn.relu
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = act(jax.nn.standardize(h, axis=-1) if self.norm else h) @ weight + bias
        return h


class Normaliser(eqx.Module):
    """Mean and variance of all that it was shown; x -> (x - mean) / standard deviation, within +-10. The standard deviation
    counts as at least 0.01, so that numbers which never changed stay small when they do."""

    count: Array
    mean: Array  # [d]
    squares: Array  # [d] sum of squared deviations from the mean

    def __init__(self, size: int):
        self.count, self.mean, self.squares = jnp.zeros(()), jnp.zeros(size), jnp.zeros(size)

    def __call__(self, x: Array) -> Array:
        """x [..., d]; unchanged while nothing was seen."""
        std = jnp.maximum(jnp.sqrt(self.squares / jnp.maximum(self.count, 1.0)), 0.01)
        return jnp.where(self.count > 0, jnp.clip((x - self.mean) / std, -10.0, 10.0), x)

    @jax.jit
    def include(self, x: Array, valid: Array) -> "Normaliser":
        """With the x [..., d] that are marked in `valid` [...] as well (Chan et al. 1983, the update by groups)."""
        keep, axes = valid[..., None], tuple(range(valid.ndim))
        n = valid.sum()
        mean = jnp.where(keep, x, 0.0).sum(axes) / jnp.maximum(n, 1)
        squares = jnp.where(keep, (x - mean) ** 2, 0.0).sum(axes)
        total = self.count + n
        shift, share = mean - self.mean, n / jnp.maximum(total, 1.0)
        parts = total, self.mean + share * shift, self.squares + squares + shift**2 * self.count * share
        return eqx.tree_at(lambda s: (s.count, s.mean, s.squares), self, parts)


def normalised(data: Any, scale: Normaliser | None) -> Any:
    """A Batch or Trajectory as networks see it."""
    if scale is None:
        return data
    return eqx.tree_at(lambda d: (d.obs, d.next_obs), data, (scale(data.obs), scale(data.next_obs)))


class GaussianPolicy(eqx.Module):
    """Mean and log standard deviation of a Normal that tanh squashes to [-1, 1]."""

    net: MLP

    def __init__(self, in_size: int, hidden: tuple[int, ...], action_size: int, *, key: Array):
        self.net = MLP((in_size, *hidden, 2 * action_size), key=key, out_scale=1e-3)

    def __call__(self, x: Array, per_task: Array | None = None) -> tuple[Array, Array]:
        mean, log_std = jnp.split(self.net(x, per_task), 2, axis=-1)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


class CategoricalPolicy(eqx.Module):
    """Logits over actions."""

    net: MLP

    def __init__(self, in_size: int, hidden: tuple[int, ...], n: int, *, key: Array):
        self.net = MLP((in_size, *hidden, n), key=key, out_scale=1e-3)

    def __call__(self, x: Array, per_task: Array | None = None) -> Array:
        return self.net(x, per_task)


class RecurrentCore(eqx.Module):
    """A GRU (Cho et al. 2014) or an LSTM (Hochreiter and Schmidhuber 1997) over the time axis of a batch.

    The input's share of all gates is one product over the whole sequence; only the state's share is computed step by step.
    """

    into: Array  # [in, gates * width]
    again: Array  # [width, gates * width]
    bias: Array  # [gates * width]
    candidate_bias: Array | None  # [width] GRU: of the state's share of the candidate
    width: int = eqx.field(static=True)

    def __init__(self, in_size: int, width: int, kind: Literal["gru", "lstm"] = "gru", *, key: Array):
        keys, gates = jax.random.split(key, 4), 3 if kind == "gru" else 4

        def uniform(key, *shape):
            return jax.random.uniform(key, shape, minval=-(width**-0.5), maxval=width**-0.5)

        self.into = uniform(keys[0], in_size, gates * width)
        self.again = uniform(keys[1], width, gates * width)
        self.bias = uniform(keys[2], gates * width)
        self.candidate_bias = uniform(keys[3], width) if kind == "gru" else None
        self.width = width

    @property
    def state_size(self) -> int:
        """Numbers of a state: the output, and the LSTM's cell."""
        return self.width * (1 if self.candidate_bias is not None else 2)

    def begin(self, rows: tuple[int, ...]) -> Array:
        """Nothing seen: [*rows, state_size]."""
        return jnp.zeros((*rows, self.state_size))

    def kept(self, valid: Array, new: Array, old: Array) -> Array:
        """`new` in the rows [...] where the step counts, elsewhere `old`."""
        return jnp.where(valid[..., None], new, old)

    def output(self, state: Array) -> Array:
        """What the layers after it see of a state [..., state_size]."""
        return state[..., : self.width]

    def once(self, x: Array, state: Array) -> Array:
        """One step: inputs x [..., d], state [..., state_size] -> state."""
        again = products(self.output(state), self._gates(self.again), self._again_bias)
        shares = products(x, self._gates(self.into), self._gates(self.bias))
        return jnp.concatenate(self.cell(shares, again, self._parts(state)), axis=-1)

    def __call__(
        self, x: Array, state: Array, valid: Array | None = None, fresh: Array | None = None, truncate: int = 0
    ) -> tuple[Array, Array]:
        """x [N, T, d], state [N, state_size] -> outputs [N, T, width], the last state.

        Steps where `valid` [N, T] is False leave the state as it was. fresh [N, T]: the state is zero before this step. truncate:
        gradients do not reach back beyond multiples of so many steps (truncated back-propagation); 0: they do.
        """
        n, t = x.shape[:2]
        shares, *weights = self.prepared(x)
        keep = jnp.ones((t, n), bool) if valid is None else valid.swapaxes(0, 1)
        forget = jnp.zeros((t, n), bool) if fresh is None else fresh.swapaxes(0, 1)
        cut = jnp.arange(t) % truncate == 0 if truncate else jnp.zeros(t, bool)
        states = _sweep(self.cell, *weights, shares, self._parts(state), (keep, forget, cut))
        return states[0].swapaxes(0, 1), jnp.concatenate([part[-1] for part in states], axis=-1)

    def prepared(self, x: Array) -> tuple["Parts", "Parts", "Parts"]:
        """For a sweep over x [N, T, d]: the input's shares of the gates [T, N, width], weights and biases of the state's."""
        n, t = x.shape[:2]
        shares = products(x.swapaxes(0, 1).reshape(t * n, -1), self._gates(self.into), self._gates(self.bias))
        return tuple(share.reshape(t, n, -1) for share in shares), self._gates(self.again), self._again_bias

    def _gates(self, x: Array) -> "Parts":
        """One array [..., width] per gate: elementwise work on slices of a wide array takes three times as long on a CPU."""
        return tuple(jnp.split(x, x.shape[-1] // self.width, axis=-1))

    _parts = _gates  # of a state: output, and the LSTM's cell

    @property
    def _again_bias(self) -> "Parts":
        """What is added to the state's shares of the gates."""
        zero = jnp.zeros(self.width)
        return (zero,) * 4 if self.candidate_bias is None else (zero, zero, self.candidate_bias)

    @property
    def cell(self) -> Callable:
        """(shares of the input, of the state, the state) -> the state, each as one array per gate or part."""
        return _lstm if self.candidate_bias is None else _gru


Parts = tuple[Array, ...]
Marks = tuple[Array, Array, Array]  # keep [T, N], forget [T, N], cut [T]: gradients end before this step


def products(x: Array, weights: Parts, biases: Parts) -> Parts:
    return tuple(x @ weight + bias for weight, bias in zip(weights, biases, strict=True))


def _gru(shares: Parts, again: Parts, state: Parts) -> Parts:
    """Shares of input and state of the three gates, and the state, [..., width] each -> state."""
    reset, update = (jax.nn.sigmoid(shares[i] + again[i]) for i in (0, 1))
    candidate = jnp.tanh(shares[2] + reset * again[2])
    return (candidate + update * (state[0] - candidate),)


def _lstm(shares: Parts, again: Parts, state: Parts) -> Parts:
    """The same with four gates; the state is output and cell."""
    i, f, g, o = (x + y for x, y in zip(shares, again, strict=True))
    cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sweep(cell: Callable, weights: Parts, biases: Parts, shares: Parts, start: Parts, marks: Marks) -> Parts:
    """States [T, N, width] after each step: cell(shares [T, N, width], outputs @ weights + biases, the state before).

    The gradient is written out, since that of a scan adds up the weights' step by step: here it is one product over all steps at
    the end.
    """
    return _states(cell, weights, biases, shares, start, marks)[0]


def _states(cell, weights, biases, shares, start, marks):
    """States after each step, before it, and the states' shares of the gates."""

    def step(state, inputs):
        share, keep, forget = inputs
        before = tuple(jnp.where(forget[:, None], 0.0, x) for x in state)
        again = products(before[0], weights, biases)
        after = cell(share, again, before)
        after = tuple(jnp.where(keep[:, None], x, y) for x, y in zip(after, state, strict=True))
        return after, (after, before, again)

    return jax.lax.scan(step, start, (shares, *marks[:2]))[1]


def _sweep_forward(cell, weights, biases, shares, start, marks):
    after, before, again = _states(cell, weights, biases, shares, start, marks)
    return after, (weights, shares, before, again, marks)


def _sweep_back(cell, kept, wanted):
    weights, shares, before, again, (keep, forget, cut) = kept
    turned = tuple(weight.T for weight in weights)

    def step(later, inputs):
        wanted, share, again, before, keep, forget, cut = inputs
        total = tuple(x + y for x, y in zip(wanted, later, strict=True))
        here = tuple(jnp.where(keep[:, None], x, 0.0) for x in total)
        d_share, d_again, d_before = jax.vjp(cell, share, again, before)[1](here)
        through = sum(x @ weight for x, weight in zip(d_again, turned, strict=True))
        d_before = d_before[0] + through, *d_before[1:]
        d_before = (jnp.where(forget[:, None], 0.0, x) for x in d_before)
        passed = (jnp.where(keep[:, None], x, y) for x, y in zip(d_before, total, strict=True))
        return tuple(jnp.where(cut, 0.0, x) for x in passed), (d_share, d_again)

    inputs = wanted, shares, again, before, keep, forget, cut
    zeros = tuple(jnp.zeros_like(x[0]) for x in before)
    d_start, (d_shares, d_again) = jax.lax.scan(step, zeros, inputs, reverse=True)
    rows = tuple(x.reshape(-1, x.shape[-1]) for x in (before[0], *d_again))
    d_weights = tuple(rows[0].T @ x for x in rows[1:])
    return d_weights, tuple(x.sum(axis=0) for x in rows[1:]), d_shares, d_start, None


_sweep.defvjp(_sweep_forward, _sweep_back)


class ContextEncoder(eqx.Module):
    """Factors of a posterior over the task. mlp: one per transition of the context; recurrent: one for its sequence."""

    net: MLP
    core: RecurrentCore | None
    head: MLP | None

    def __init__(self, in_size: int, hidden: tuple[int, ...], out: int, recurrent: bool, *, key: Array):
        net_key, core_key, head_key = jax.random.split(key, 3)
        width = hidden[-1]
        scale = width**-0.5 if recurrent else 3e-3
        self.net = MLP((in_size, *hidden, width if recurrent else out), key=net_key, out_scale=scale)
        self.core = RecurrentCore(width, width, key=core_key) if recurrent else None
        self.head = MLP((width, out), key=head_key) if recurrent else None
