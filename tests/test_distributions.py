"""Densities against numeric derivatives and SciPy; products of Gaussians against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nacre import distributions as d


def test_tanh_normal_log_prob_against_a_numeric_jacobian():
    mean, log_std = jnp.array([0.3, -0.8]), jnp.array([-0.5, 0.2])
    noise = jnp.array([0.4, -1.1])
    action, log_prob = d.tanh_normal(mean, log_std, noise)
    jacobian = jax.jacfwd(lambda n: d.tanh_normal(mean, log_std, n)[0])(noise)
    expected = stats.norm.logpdf(noise).sum() - np.log(abs(np.linalg.det(jacobian)))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    np.testing.assert_allclose(action, np.tanh(mean + np.exp(log_std) * noise), rtol=1e-6)


def test_tanh_normal_density_integrates_to_one():
    mean, log_std = jnp.array([0.5]), jnp.array([-0.3])
    action = jnp.linspace(-0.99999, 0.99999, 200_001)
    noise = (jnp.arctanh(action) - mean) / jnp.exp(log_std)
    _, log_prob = d.tanh_normal(mean, log_std, noise[:, None])
    assert jnp.trapezoid(jnp.exp(log_prob), action) == pytest.approx(1.0, abs=1e-3)


def test_normal_log_prob_sums_over_the_action():
    x, mean, log_std = np.array([[0.1, 2.0]]), np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]])
    expected = stats.norm.logpdf(x, mean, np.exp(log_std)).sum(axis=-1)
    np.testing.assert_allclose(d.normal_log_prob(x, mean, log_std), expected, rtol=1e-6)


def test_product_of_equal_gaussians():
    """(mu, s2) n times is (mu, s2 / n)."""
    mean, variance = jnp.full((7, 3), 1.5), jnp.full((7, 3), 2.0)
    m, v = d.from_natural(*d.product_of_gaussians(mean, variance, axis=0))
    np.testing.assert_allclose(m, 1.5, rtol=1e-6)
    np.testing.assert_allclose(v, 2.0 / 7, rtol=1e-6)


def test_product_of_two_different_gaussians_by_hand():
    """N(0, 1) N(3, 0.5): precision 1 + 2 = 3, mean (0 + 6) / 3 = 2."""
    m, v = d.from_natural(*d.product_of_gaussians(jnp.array([0.0, 3.0]), jnp.array([1.0, 0.5]), axis=0))
    np.testing.assert_allclose([m, v], [2.0, 1 / 3], rtol=1e-6)


def test_no_evidence_is_the_prior_and_variance_has_a_floor():
    assert [float(x) for x in d.from_natural(jnp.zeros(()), jnp.zeros(()))] == [0.0, 1.0]
    precision, _ = d.product_of_gaussians(jnp.zeros(1), jnp.zeros(1), axis=0)
    assert float(precision) == pytest.approx(1e7, rel=1e-3)


def test_kl_to_standard_normal():
    assert float(d.kl_to_standard_normal(jnp.zeros(4), jnp.ones(4))) == 0.0
    # 0.5 (1 + 0.25 - 1 - log 0.25) = 0.818147
    assert float(d.kl_to_standard_normal(jnp.array([1.0]), jnp.array([0.25]))) == pytest.approx(0.8181472, abs=1e-6)
