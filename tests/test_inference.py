"""The engine against models whose evidence and posterior are known exactly."""

import hashlib
import subprocess
import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from forecast.compilation import compile_model
from forecast.evidence import mean_evidence
from forecast.inference import Settings, describe, pooled, sample

SETTINGS = Settings(islands=8, chains=256, steps=4, final_sweeps=3)


def linear_gaussian(dimension, seed=0):
    """A regression with known noise; its exact log evidence, posterior mean and covariance."""
    rng = np.random.default_rng(seed + dimension)
    A = rng.standard_normal((30, dimension))
    y = A @ rng.standard_normal(dimension) + 0.5 * rng.standard_normal(30)
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 2.0, shape=dimension)
        pm.Deterministic("mu", pm.math.dot(A, b))
        pm.Normal("y", pm.math.dot(A, b), 0.5, observed=y)
    exact = stats.multivariate_normal(np.zeros(30), 4 * A @ A.T + 0.25 * np.eye(30)).logpdf(y)
    covariance = np.linalg.inv(A.T @ A / 0.25 + np.eye(dimension) / 4)
    return model, exact, covariance @ A.T @ y / 0.25, covariance


@pytest.mark.parametrize(
    "dimension", [2, pytest.param(5, marks=pytest.mark.slow), 10, pytest.param(20, marks=pytest.mark.slow)]
)
def test_linear_gaussian_models_are_exact(dimension):
    model, exact, mean, covariance = linear_gaussian(dimension)
    fit = sample(compile_model(model), 3, SETTINGS)
    value, error = mean_evidence(fit.log_evidence)
    assert abs(fit.check[0, 0] - exact) < 0.02
    assert abs(value[0] - exact) < 0.10
    assert error[0] < 0.15
    islands = fit.draws[0].mean(axis=1)
    z = (islands.mean(axis=0) - mean) / (islands.std(axis=0, ddof=1) / np.sqrt(len(islands)))
    assert np.abs(z).max() < 5.5  # t with 7 degrees of freedom, the largest of `dimension`
    assert fit.draws[0].reshape(-1, dimension).std(axis=0) == pytest.approx(
        np.sqrt(np.diag(covariance)), rel=0.08
    )


@pytest.fixture(scope="module")
def two_means():
    """Two Gaussian models under one label, compiled once; the observation is data."""
    with pm.Model() as model:
        y = pm.Data("y", np.array([1.0, 1.5]))
        label = pm.Categorical("label", p=[0.5, 0.5])
        x = pm.Normal("x", 0.0, 1.0)
        pm.Potential("seen", pm.logp(pm.Normal.dist(pt.stack([x, 3.0 + x])[label], 1.0), y).sum())
    return compile_model(model)


def exact_two_means(y):
    covariance = np.eye(2) + 1.0
    return [stats.multivariate_normal(np.full(2, m), covariance).logpdf(y) for m in (0.0, 3.0)]


def test_each_value_of_a_label_gets_its_evidence(two_means):
    fit = sample(two_means, 1, SETTINGS)
    assert mean_evidence(fit.log_evidence)[0] == pytest.approx(exact_two_means([1.0, 1.5]), abs=0.1)
    assert fit.check[:, 0] == pytest.approx(exact_two_means([1.0, 1.5]), abs=0.05)
    # Posterior means: (2 ybar)/3 and (2 (ybar - 3))/3.
    assert fit.draws[..., 0].mean(axis=(1, 2)) == pytest.approx([2.5 / 3, (2.5 - 6) / 3], abs=0.05)


def test_a_pool_of_fits_says_what_they_say_on_average_with_less_error(two_means):
    fits = [sample(two_means, seed, SETTINGS) for seed in (1, 2, 3, 4)]
    pool = pooled(fits)
    each = np.array([mean_evidence(f.log_evidence) for f in fits])
    value, error = mean_evidence(pool.log_evidence)
    assert value == pytest.approx(each[:, 0].mean(0))
    assert value == pytest.approx(exact_two_means([1.0, 1.5]), abs=0.05)
    assert (error < each[:, 1].max(0)).all()
    assert pool.check[:, 1] == pytest.approx(np.linalg.norm([f.check[:, 1] for f in fits], axis=0) / 4)
    assert pool.check[:, 0] == pytest.approx(exact_two_means([1.0, 1.5]), abs=0.03)
    # An island has the draws of all fits one after the other, and there are no more islands.
    size = fits[0].draws.shape[2]
    assert pool.draws.shape[:3] == (2, SETTINGS.islands, 4 * size)
    np.testing.assert_array_equal(pool.draws[:, :, size : 2 * size], fits[1].draws)


def test_changed_data_need_no_new_model(two_means):
    other = np.array([4.0, 2.0])
    fit = sample(two_means, 1, SETTINGS, {"y": other})
    assert mean_evidence(fit.log_evidence)[0] == pytest.approx(exact_two_means(other), abs=0.1)


def test_constrained_parameters_keep_their_support():
    with pm.Model() as model:
        p = pm.Beta("p", 2.0, 3.0)
        s = pm.Deterministic("s", 2 * p)
        pm.HalfNormal("unused", 1.0)
        pm.Binomial("k", 20, s / 2, observed=6)
    compiled = compile_model(model)
    fit = sample(compiled, 2, SETTINGS)
    exact = stats.betabinom(20, 2, 3).logpmf(6)
    assert mean_evidence(fit.log_evidence)[0][0] == pytest.approx(exact, abs=0.1)
    drawn = describe(compiled, fit, 0)["s"].values / 2
    assert drawn.min() > 0 and drawn.max() < 1
    assert drawn.mean() == pytest.approx(8 / 25, abs=0.01)


def test_a_point_where_the_model_is_undefined_is_impossible():
    with pm.Model() as model:
        x = pm.Normal("x", 0.0, 1.0)
        pm.Potential("root", pt.switch(x > 0.0, 0.0, np.nan))
    fit = sample(compile_model(model), 1, SETTINGS)
    assert mean_evidence(fit.log_evidence)[0][0] == pytest.approx(np.log(0.5), abs=0.05)
    assert (fit.draws > 0).all()


def test_two_discrete_variables_are_refused():
    with pm.Model() as model:
        pm.Categorical("a", p=[0.5, 0.5])
        pm.Categorical("b", p=[0.5, 0.5])
        pm.Normal("x", 0.0, 1.0)
    with pytest.raises(ValueError, match="one scalar discrete variable"):
        compile_model(model)


SCRIPT = """
import hashlib, sys
sys.path.insert(0, "tests")
from test_inference import Settings, compile_model, linear_gaussian, sample
fit = sample(compile_model(linear_gaussian(2)[0]), 5, Settings(islands=2, chains=16))
print(hashlib.sha256(fit.draws.tobytes() + fit.log_evidence.tobytes()).hexdigest())
"""


def test_same_seed_same_bits_in_two_processes():
    fit = sample(compile_model(linear_gaussian(2)[0]), 5, Settings(islands=2, chains=16))
    here = hashlib.sha256(fit.draws.tobytes() + fit.log_evidence.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here
