"""Networks as Equinox modules: the module is its parameters, and all of them act on the last axis of batched arrays."""

import itertools
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # hard clamp of the official code: no gradient outside


class MLP(eqx.Module):
    """ReLU layers with a linear output. Weights are [in, out].

    A latent that is shared by all rows of a task enters the first layer through its own product, computed once per task:
    [x, z] @ W = x @ W_x + z @ W_z. So dense layers stay two-dimensional, which is what a CPU multiplies fastest.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    norm: bool = eqx.field(static=True)

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        key: Array,
        out_scale: float = 3e-3,
        hidden_bias: float = 0.1,
        norm: bool = False,
    ):
        """sizes = (in, hidden..., out). norm: hidden units of a row are brought to mean 0 and variance 1 before the ReLU
        (layer normalisation, Ba et al. 2016, without gains). Initialisation of the official PEARL code (rlkit): hidden
        weights uniform within 1/sqrt(fan-out) (its known slip: the literature says fan-in), hidden biases 0.1, output
        +-out_scale."""
        weights, biases, self.norm = [], [], norm
        for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            w_key, b_key = jax.random.split(jax.random.fold_in(key, layer))
            last = layer == len(sizes) - 2
            bound = out_scale if last else n_out**-0.5
            weights.append(jax.random.uniform(w_key, (n_in, n_out), minval=-bound, maxval=bound))
            bias = jax.random.uniform(b_key, (n_out,), minval=-bound, maxval=bound)
            biases.append(bias if last else jnp.full((n_out,), hidden_bias, jnp.float32))
        self.weights, self.biases = tuple(weights), tuple(biases)

    def __call__(self, x: Array, per_task: Array | None = None) -> Array:
        """x [..., in] -> [..., out]; or x [N * M, d] with per_task [N, in - d], row n * M + m belonging to task n."""
        if per_task is None:
            h = x @ self.weights[0]
        else:
            d = x.shape[-1]
            h = x @ self.weights[0][:d]
            shared = per_task @ self.weights[0][d:]  # [N, hidden]
            h = (h.reshape(shared.shape[0], -1, h.shape[-1]) + shared[:, None]).reshape(h.shape)
        h = h + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = jax.nn.relu(jax.nn.standardize(h, axis=-1) if self.norm else h) @ weight + bias
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

    def output(self, state: Array) -> Array:
        """What the layers after it see of a state [..., state_size]."""
        return state[..., : self.width]

    def step(self, shares: Array, state: Array) -> Array:
        """One step: shares of the gates x @ into + bias [..., gates * width], state [..., state_size] -> state."""
        h = self.output(state)
        again = h @ self.again
        if self.candidate_bias is None:
            i, f, g, o = jnp.split(shares + again, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * state[..., self.width :] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(cell), cell], axis=-1)
        w = self.width
        reset, update = jnp.split(jax.nn.sigmoid(shares[..., : 2 * w] + again[..., : 2 * w]), 2, axis=-1)
        candidate = jnp.tanh(shares[..., 2 * w :] + reset * (again[..., 2 * w :] + self.candidate_bias))
        return candidate + update * (h - candidate)

    def once(self, x: Array, state: Array) -> Array:
        """One step on inputs x [..., d]."""
        return self.step(x @ self.into + self.bias, state)

    def __call__(
        self, x: Array, state: Array, valid: Array | None = None, fresh: Array | None = None, truncate: int = 0
    ) -> tuple[Array, Array]:
        """x [N, T, d], state [N, state_size] -> outputs [N, T, width], the last state.

        Steps where `valid` [N, T] is False leave the state as it was. fresh [N, T]: the state is zero before this step. truncate:
        gradients do not reach back beyond multiples of so many steps (truncated back-propagation); 0: they do.
        """
        shares = (x.reshape(-1, x.shape[-1]) @ self.into + self.bias).reshape(*x.shape[:2], -1)
        keep = jnp.ones(x.shape[:2], bool) if valid is None else valid
        forget = jnp.zeros(x.shape[:2], bool) if fresh is None else fresh

        def step(state, inputs):
            share, keep_t, forget_t, t = inputs
            if truncate:
                state = jnp.where(t % truncate == 0, jax.lax.stop_gradient(state), state)
            before = jnp.where(forget_t[:, None], 0.0, state)
            state = jnp.where(keep_t[:, None], self.step(share, before), state)
            return state, self.output(state)

        along = lambda v: v.swapaxes(0, 1)  # noqa: E731
        sequence = along(shares), along(keep), along(forget), jnp.arange(x.shape[1])
        state, outputs = jax.lax.scan(step, state, sequence)
        return outputs.swapaxes(0, 1), state


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
