"""Networks: what is not tested by the algorithms that use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nacre import nn
from nacre.images import ImageEncoder


def test_normaliser_holds_mean_and_variance_of_all_that_was_marked():
    rng, scale, shown = np.random.default_rng(0), nn.Normaliser(3), []
    x = jnp.asarray([[1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(scale(x), x)  # nothing seen
    for size in (5, 1, 40):
        data = rng.normal([100.0, 0.0, 7.0], [3.0, 0.1, 0.0], (size, 4, 3)).astype(np.float32)
        valid = rng.random((size, 4)) < 0.7
        scale = scale.include(jnp.asarray(data), jnp.asarray(valid))
        shown.append(data[valid])
    shown = np.concatenate(shown)
    out = np.asarray(scale(jnp.asarray(shown)))
    np.testing.assert_allclose(out[:, :2].mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(out[:, :2].std(0), 1.0, atol=1e-3)
    np.testing.assert_allclose(out[:, 2], 0.0, atol=1e-3)  # never changed, so a change of 0.01 counts as one
    np.testing.assert_allclose(scale(jnp.asarray([100.0, 0.0, 7.02]))[2], 2.0, atol=0.05)
    assert float(jnp.abs(scale(jnp.full(3, 1e6))).max()) == 10.0


def test_normaliser_is_unchanged_by_nothing():
    scale = nn.Normaliser(2).include(jnp.ones((4, 2)), jnp.ones(4, bool))
    same = scale.include(jnp.full((4, 2), 9.0), jnp.zeros(4, bool))
    jax.tree.map(np.testing.assert_array_equal, scale, same)


@pytest.mark.parametrize("shape", [(11, 11, 3), (8, 5, 2)])
def test_images_are_convolved_as_by_xla(shape):
    """Our products of patches are its convolution with stride 2 and even padding."""
    eyes = ImageEncoder(shape, (4,), 6, key=jax.random.key(0))
    images = np.random.default_rng(0).normal(size=(2, 7, *shape)).astype(np.float32)
    flat = images.reshape(14, *shape)
    pads = [(n // 2, n - n // 2) for n in (2 * -(-side // 2) + 1 - side for side in shape[:2])]

    @jax.jit
    def both(eyes, x):
        h = jax.lax.conv_general_dilated(
            flat, eyes.filters[0], (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return eyes(x), jax.nn.relu(eyes.last(jax.nn.relu(h + eyes.biases[0]).reshape(14, -1)))

    found, expected = both(eyes, images.reshape(2, 7, -1))
    assert found.shape == (2, 7, 6)
    np.testing.assert_allclose(found.reshape(14, 6), expected, atol=1e-5)
