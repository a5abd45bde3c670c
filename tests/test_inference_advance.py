"""Stepping from one set of row weights to another, against models whose answers are known exactly."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from forecast.compilation import Compiled, compile_model
from forecast.evidence import increments, mean_evidence
from forecast.inference import Fit, Settings, advance, anchored, sample

SETTINGS = Settings(islands=8, chains=128, final_sweeps=3)
ROWS, DIMENSION, NOISE = 24, 4, 0.7
GAINS = (1.0, -0.5)
"""Under each label the regression is multiplied by its gain."""
RNG = np.random.default_rng(4)
A = RNG.standard_normal((ROWS, DIMENSION))
Y = A @ RNG.standard_normal(DIMENSION) + NOISE * RNG.standard_normal(ROWS)
HALF = np.repeat([1.0, 0.0], ROWS // 2)
ALL = np.ones(ROWS)


def regression(gains: tuple[float, ...]) -> Compiled:
    """y = gain of the label * A b + noise, b ~ N(0, 1), with a weight for each row."""
    with pm.Model() as model:
        weight = pm.Data("weight", ALL)
        label = pm.Categorical("label", p=np.full(len(gains), 1 / len(gains))) if len(gains) > 1 else 0
        b = pm.Normal("b", 0.0, 1.0, shape=DIMENSION)
        mean = pt.as_tensor(np.array(gains))[label] * pt.dot(A, b)
        pm.Potential("seen", (weight * pm.logp(pm.Normal.dist(mean, NOISE), Y)).sum())
    return compile_model(model)


def exact(weight: np.ndarray, gain: float = 1.0) -> tuple[float, np.ndarray, np.ndarray]:
    """Log evidence, and mean and sd of the posterior."""
    X, y = gain * A[weight > 0], Y[weight > 0]
    covariance = np.linalg.inv(X.T @ X / NOISE**2 + np.eye(DIMENSION))
    evidence = stats.multivariate_normal.logpdf(y, np.zeros(len(y)), X @ X.T + NOISE**2 * np.eye(len(y)))
    return evidence, covariance @ X.T @ y / NOISE**2, np.sqrt(np.diag(covariance))


def assert_exact(fit: Fit, weight: np.ndarray, gains: tuple[float, ...] = (1.0,)) -> None:
    value, error = mean_evidence(fit.log_evidence)
    for k, gain in enumerate(gains):
        evidence, mean, sd = exact(weight, gain)
        assert abs(value[k] - evidence) < min(0.15, 5 * error[k] + 0.01)
        assert abs(fit.check[k, 0] - evidence) < 0.05
        flat = fit.draws[k].reshape(-1, DIMENSION)
        assert flat.mean(axis=0) == pytest.approx(mean, abs=0.08 * sd.max())
        assert flat.std(axis=0) == pytest.approx(sd, rel=0.08)


@pytest.fixture(scope="module")
def plain() -> Compiled:
    return regression((1.0,))


@pytest.fixture(scope="module")
def half(plain) -> Fit:
    return sample(plain, 1, SETTINGS, {"weight": HALF})


RETRACTED = np.where(np.arange(ROWS) == 3, 0.0, HALF)
REVISED = np.where(np.arange(ROWS) == 15, 1.0, RETRACTED)


@pytest.mark.parametrize("new", [ALL, RETRACTED, REVISED], ids=["added", "retracted", "revised"])
def test_a_step_is_exact(plain, half, new):
    fit = advance(plain, 2, half, {"weight": HALF}, {"weight": new}, SETTINGS)
    assert fit.draws.shape == (1, 8, 128 * 4 * 3, DIMENSION)
    assert_exact(fit, new)


def test_a_step_from_thinned_and_rounded_draws_is_exact(plain, half):
    thin = half._replace(draws=half.draws[:, :, ::5].astype("float32").astype(float))
    assert_exact(advance(plain, 2, thin, {"weight": HALF}, {"weight": ALL}, SETTINGS), ALL)


def test_there_and_back_again(plain, half):
    there = advance(plain, 2, half, {"weight": HALF}, {"weight": ALL}, SETTINGS)
    assert_exact(advance(plain, 3, there, {"weight": ALL}, {"weight": HALF}, SETTINGS), HALF)


def test_every_label_steps_on_its_own():
    compiled = regression(GAINS)
    first = sample(
        compiled,
        1,
        SETTINGS,
        {"weight": HALF},
        draw_prior=lambda seed, n: np.random.default_rng(seed).normal(size=(n, DIMENSION)),
    )
    assert_exact(first, HALF, GAINS)
    assert_exact(advance(compiled, 2, first, {"weight": HALF}, {"weight": ALL}, SETTINGS), ALL, GAINS)


def test_same_seed_same_step(plain, half):
    one, two = (advance(plain, 5, half, {"weight": HALF}, {"weight": ALL}, SETTINGS) for _ in range(2))
    assert np.array_equal(one.draws, two.draws) and np.array_equal(one.log_evidence, two.log_evidence)


# The level of the evidence -------------------------------------------------------------------------------

CARRIED = np.array([-10.0, -11.0, -12.5])[:, None] + 0.5 * np.linspace(-1, 1, 8)
"""Log evidence of three labels on eight islands whose errors are all of the level."""
ERROR = CARRIED.mean(0).std(ddof=1) / np.sqrt(8)


def one_shots(away: float, spread: float) -> np.ndarray:
    """Estimates that lie some way off the carried ones on average, and their errors."""
    return np.stack([CARRIED.mean(1) + away + spread * np.array([-1.0, 0.0, 1.0]), np.full(3, 0.01)], axis=1)


def test_a_level_known_better_in_one_shot_is_taken_from_there():
    found = anchored(CARRIED, one_shots(0.3, 0.05), RNG)
    assert found.mean(1) == pytest.approx(CARRIED.mean(1) + 0.3)
    assert found.mean(0).std(ddof=1) / np.sqrt(8) == pytest.approx(0.05 / np.sqrt(3))
    assert found - found[:1] == pytest.approx(CARRIED - CARRIED[:1])


@pytest.mark.parametrize(("away", "spread"), [(0.3, 2 * ERROR), (4 * ERROR, 0.05)], ids=["vague", "apart"])
def test_a_level_that_is_vague_or_far_off_is_not_taken(away, spread):
    assert np.array_equal(anchored(CARRIED, one_shots(away, spread), RNG), CARRIED)


def test_two_dates_whose_level_is_taken_in_one_shot_share_no_error():
    """Else the error of the increment between them would be next to nothing."""
    errors = []
    for _ in range(400):
        one, two = (anchored(CARRIED, one_shots(away, 0.05), RNG) for away in (0.0, 0.3))
        errors.append(increments(one, two)[1])
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(0.05 * np.sqrt(2 / 3), rel=0.05)
