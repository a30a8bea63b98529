"""Networks: what is not tested by the algorithms that use them."""

import jax
import jax.numpy as jnp
import numpy as np

from nacre import nn


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
