"""Bridge sampling recovers normalising constants that are known exactly."""

import numpy as np
import pytest
from scipy import stats

from forecast.bridge import bridge


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
