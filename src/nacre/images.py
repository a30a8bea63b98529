"""Convolutions, for observations that are images."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from nacre.nn import MLP


def _convolved(x: Array, kernel: Array) -> Array:
    """A convolution with stride 2 over images [N, H, W, in], padded evenly, kernel [3, 3, in, out]. As one product of all
    patches: on a CPU XLA's convolutions are ten times slower than this inside of a loop, where all of ours are
    (benchmarks/image_speed.py)."""
    n, *size, _ = x.shape
    pads = jax.lax.padtype_to_pads(size, (3, 3), (2, 2), "SAME")
    x, outs = jnp.pad(x, ((0, 0), *pads, (0, 0))), [-(-side // 2) for side in size]
    height, width = (2 * out - 1 for out in outs)
    patches = jnp.concatenate(
        [x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)], axis=-1
    )
    return (patches.reshape(n * outs[0] * outs[1], -1) @ kernel.reshape(-1, kernel.shape[-1])).reshape(n, *outs, -1)


class ImageEncoder(eqx.Module):
    """Convolutions of 3 x 3 with stride 2 and ReLUs, then a layer: images -> features. Stride 2 from the first one on, as
    RL^2's visual maze has it: with 1 there are four times as many patches."""

    filters: tuple[Array, ...]  # [3, 3, in, out]
    biases: tuple[Array, ...]
    last: MLP
    shape: tuple[int, ...] = eqx.field(static=True)  # (H, W, C)

    def __init__(self, shape: tuple[int, ...], channels: tuple[int, ...], out: int, *, key: Array):
        keys, filters = jax.random.split(key, len(channels) + 1), []
        for k, n_in, n_out in zip(keys, (shape[2], *channels), channels, strict=False):
            bound = (6 / (9 * n_in)) ** 0.5  # He et al. 2015
            filters.append(jax.random.uniform(k, (3, 3, n_in, n_out), minval=-bound, maxval=bound))
        side = [-(-size // 2 ** len(channels)) for size in shape[:2]]
        size = side[0] * side[1] * channels[-1]
        self.filters, self.biases, self.shape = tuple(filters), tuple(jnp.zeros(n) for n in channels), shape
        self.last = MLP((size, out), key=keys[-1], out_scale=size**-0.5)

    def __call__(self, x: Array) -> Array:
        """Flattened images [..., H * W * C] -> [..., out]."""
        h = x.reshape(-1, *self.shape)
        for kernel, bias in zip(self.filters, self.biases, strict=True):
            h = jax.nn.relu(_convolved(h, kernel) + bias)
        return jax.nn.relu(self.last(h.reshape(h.shape[0], -1))).reshape(*x.shape[:-1], -1)
