"""Networks as Equinox modules: the module is its parameters, and all of them act on the last axis of batched arrays."""

import itertools

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

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        key: Array,
        out_scale: float = 3e-3,
        hidden_bias: float = 0.1,
    ):
        """sizes = (in, hidden..., out). Initialisation of the official PEARL code (rlkit): hidden weights uniform
        within 1/sqrt(fan-out) (its known slip: the literature says fan-in), hidden biases 0.1, output +-out_scale."""
        weights, biases = [], []
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
            h = jax.nn.relu(h) @ weight + bias
        return h


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
    """A GRU over the time axis, on batches: x [N, T, d], h [N, width] -> (outputs [N, T, width], h)."""

    cell: eqx.nn.GRUCell
    width: int = eqx.field(static=True)

    def __init__(self, in_size: int, width: int, *, key: Array):
        self.cell, self.width = eqx.nn.GRUCell(in_size, width, key=key), width

    def __call__(self, x: Array, h: Array, valid: Array | None = None) -> tuple[Array, Array]:
        """Steps where `valid` [N, T] is False leave h as it was."""
        keep = jnp.ones(x.shape[:2], bool) if valid is None else valid

        def step(h, inputs):
            x_t, keep_t = inputs
            new = jnp.where(keep_t[:, None], jax.vmap(self.cell)(x_t, h), h)
            return new, new

        h, outputs = jax.lax.scan(step, h, (x.swapaxes(0, 1), keep.swapaxes(0, 1)))
        return outputs.swapaxes(0, 1), h


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
