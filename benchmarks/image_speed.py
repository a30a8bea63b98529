"""What an image costs the convolutions that agents see with: ours, a product of patches, beside XLA's own, alone and inside
of a loop, where training is. `taskset -c 1 python benchmarks/image_speed.py` measures one core, in half a minute.
"""

import time
from functools import partial

import equinox as eqx
import jax

from nacre import images
from nacre._versions import packages

SHAPE, IMAGES, STEPS, TURNS = (11, 11, 3), 2400, 8, 5  # maze's images, a minibatch of them, gradient steps in a loop


def xla(x, kernel, stride=2):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)


def loss(eyes, x, convolved):
    h = x
    for kernel, bias in zip(eyes.filters, eyes.biases, strict=True):
        h = jax.nn.relu(convolved(h, kernel) + bias)
    return eyes.last(h.reshape(len(h), -1)).sum()


def microseconds(f, eyes, x, steps: int) -> float:
    """Processor time per image, the best of some turns."""
    jax.block_until_ready(f(eyes, x))
    took = []
    for _ in range(TURNS):
        start = time.process_time()
        jax.block_until_ready(f(eyes, x))
        took.append(time.process_time() - start)
    return min(took) / steps / IMAGES * 1e6


def main() -> None:
    eyes = images.ImageEncoder(SHAPE, (16, 32), 64, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (IMAGES, *SHAPE))
    print(
        f"jax {packages().get('jax')}, backend {jax.default_backend()}; gradient, microseconds per image: alone, in a loop"
    )
    for name, convolved in (("product of patches", images._convolved), ("XLA's convolution", xla)):
        gradient = jax.grad(partial(loss, convolved=convolved))

        def step(eyes, x, gradient=gradient):
            return jax.tree.map(lambda p, g: p - 1e-6 * g, eyes, gradient(eyes, x))

        def several(eyes, x, step=step):
            return jax.lax.scan(lambda eyes, _: (step(eyes, x), None), eyes, None, length=STEPS)[0]

        times = microseconds(eqx.filter_jit(step), eyes, x, 1), microseconds(eqx.filter_jit(several), eyes, x, STEPS)
        print(f"  {name:<20}{times[0]:8.1f}{times[1]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
