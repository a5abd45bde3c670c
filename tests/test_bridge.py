"""Bridge sampling recovers normalising constants that are known exactly."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from forecast.bridge import bridge, constants, jackknife_values, ratio


@pytest.mark.parametrize("dimension", [1, 5, 30])
def test_a_gaussian_with_a_known_constant(dimension):
    rng = np.random.default_rng(dimension)
    root = rng.normal(size=(dimension, dimension)) + 2 * np.eye(dimension)
    law = stats.multivariate_normal(np.arange(dimension), root @ root.T)
    draws = law.rvs(4 * 1000, random_state=rng).reshape(4, 1000, dimension)
    value, error = bridge(draws, lambda x: np.atleast_1d(law.logpdf(x)) + 7.5, rng)
    assert value == pytest.approx(7.5, abs=max(4 * error, 1e-9))
    assert error < 0.05


def test_heavier_tails_than_the_proposal_cost_precision_not_truth():
    rng = np.random.default_rng(3)
    law = stats.multivariate_t(np.zeros(5), np.eye(5), df=6)
    draws = law.rvs(4 * 2000, random_state=rng).reshape(4, 2000, 5)
    value, error = bridge(draws, lambda x: law.logpdf(x) - 100.0, rng)
    assert value == pytest.approx(-100.0, abs=4 * error)
    assert 0.001 < error < 0.1


def test_constants_of_overlapping_gaussians_are_their_known_ones():
    rng = np.random.default_rng(4)
    means, known = np.array([0.0, 1.5, 3.0]), np.array([0.0, -2.0, 5.0])
    size = np.array([4000, 8000, 4000])
    x = np.concatenate([rng.normal(m, 1, n) for m, n in zip(means, size, strict=True)])
    log_density = known + stats.norm.logpdf(x[:, None], means)
    found = constants(log_density, size, np.zeros(3))
    np.testing.assert_allclose(found - found[0], known, atol=0.1)
    assert found.mean() == pytest.approx(0.0, abs=1e-9)


def test_constants_of_densities_that_no_draw_connects_keep_their_first_guess():
    log_density = np.array([[0.0, -2000.0]] * 5 + [[-2000.0, 0.0]] * 5)
    found = constants(log_density, np.array([5, 5]), np.array([1.0, 4.0]))
    np.testing.assert_allclose(found, [1.0, 4.0])


def test_the_ratio_of_constants_is_read_off_draws_of_both():
    """Densities of N(0, 1) and of e^2 N(1, 1), on islands of which none is alone."""
    rng = np.random.default_rng(5)
    before, after = rng.standard_normal((5, 4, 500)), 1.0 + rng.standard_normal((5, 4, 300))
    found = ratio(*(x - 0.5 + 2.0 for x in (before, after)))
    assert found.shape == (5,)
    assert np.abs(found - 2.0).max() < 4 * np.sqrt(1.0 / 1200)
    for a, b, value in zip(before, after, found, strict=True):
        x = np.concatenate([a.ravel(), b.ravel()])
        both = np.stack([-0.5 * x**2, 2.0 - 0.5 * (x - 1.0) ** 2], axis=1)
        same = constants(both, np.array([a.size, b.size]), np.zeros(2))
        assert value == pytest.approx(same[1] - same[0], abs=1e-6)


@pytest.mark.parametrize("impossible", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("apart", [0.0, 1.0, 4.0])
def test_a_ratio_is_found_however_far_the_densities_are_and_whatever_is_impossible(apart, impossible):
    """The second density is e^-500 N(apart, 1), and impossible at some draws of the first."""
    rng = np.random.default_rng(7)
    draws = rng.standard_normal((2, 3, 400)) + np.array([0.0, apart])[:, None, None]
    before, after = apart * (draws - apart / 2) - 500.0
    before[rng.random(before.shape) < impossible] = -1e300
    (found,) = ratio(before[None], after[None])

    def excess(z: float) -> float:
        return expit(np.append(before, after) - z).mean() - 0.5

    assert abs(excess(found)) < 1e-9
    # The root is the only one: what is taken for a draw of the second falls all the way.
    assert excess(found - 1e-6) > 0 > excess(found + 1e-6)


def test_jackknife_values_of_a_mean_are_the_values():
    x = np.array([3.0, 1.0, 8.0, 2.0])
    np.testing.assert_allclose(jackknife_values(lambda used: x[used].mean(), 4), x)


def test_jackknife_values_take_the_first_order_bias_away():
    """The variance with divisor n is low by 1/n; the mean of its pseudo-values is not."""
    x = np.random.default_rng(5).normal(size=8)
    assert jackknife_values(lambda used: x[used].var(), 8).mean() == pytest.approx(x.var(ddof=1))
