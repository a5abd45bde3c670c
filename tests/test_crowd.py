"""Many data sets carried on at once, against regressions whose evidence and posterior are known exactly."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from forecast import crowd
from forecast.compilation import Metric, compile_model, log_densities, log_density
from forecast.evidence import mean_evidence
from forecast.inference import Settings
from forecast.particles import Particles, next_power
from forecast.sweeps import Run

SETS, ROWS, DIMENSION, NOISE, ISLANDS = 6, 12, 3, 0.7, 4
GAINS = np.array([1.0, -0.5])
RNG = np.random.default_rng(8)
A = RNG.standard_normal((ROWS, DIMENSION))
Y = RNG.standard_normal((SETS, DIMENSION)) @ A.T + NOISE * RNG.standard_normal((SETS, ROWS))
SOME = np.repeat([1.0, 0.0], ROWS // 2)
NONE, ALL = np.zeros(ROWS), np.ones(ROWS)
SETTINGS = Settings(islands=ISLANDS, chains=64, final_sweeps=2)


def program(rows):
    """y = gain of the label * A b + noise, b ~ N(0, 1), values and weights of some rows given for each particle."""
    with pm.Model() as model:
        value, weight = pm.Data("value", Y[0, rows]), pm.Data("weight", ALL[rows])
        label = pm.Categorical("label", p=[0.5, 0.5])
        b = pm.Normal("b", 0.0, 1.0, shape=DIMENSION)
        mean = pt.as_tensor(GAINS)[label] * pt.dot(A[rows], b)
        pm.Potential("seen", (weight * pm.logp(pm.Normal.dist(mean, NOISE), value)).sum())
    return compile_model(model, each=("value", "weight"))


@pytest.fixture(scope="module")
def compiled():
    return program(np.arange(ROWS))


@pytest.fixture(scope="module")
def start():
    """Draws from the prior, the same for every set."""
    draws = RNG.standard_normal((len(GAINS), ISLANDS, 400, DIMENSION))
    return crowd.begin(np.broadcast_to(draws, (SETS, *draws.shape)), 0.3)


def exact(y, gain, weight):
    """Log evidence, and mean and sd of the posterior."""
    X, seen = gain * A[weight > 0], y[weight > 0]
    covariance = np.linalg.inv(X.T @ X / NOISE**2 + np.eye(DIMENSION))
    cover = X @ X.T + NOISE**2 * np.eye(len(seen))
    evidence = stats.multivariate_normal.logpdf(seen, np.zeros(len(seen)), cover)
    return evidence, covariance @ X.T @ seen / NOISE**2, np.sqrt(np.diag(covariance))


def test_each_particle_is_judged_by_its_own_rows(compiled):
    x, label = RNG.standard_normal((SETS, DIMENSION)), np.arange(SETS) % 2
    weight = RNG.integers(0, 2, (SETS, ROWS)).astype(float)
    own = {"value": Y, "weight": weight}
    _, found = log_density(compiled, x, label, own)
    _, both = log_densities(compiled, x, own)
    for i in range(SETS):
        for k, gain in enumerate(GAINS):
            expected = (weight[i] * stats.norm.logpdf(Y[i], gain * A @ x[i], NOISE)).sum()
            assert both[i, k] == pytest.approx(expected)
        assert found[i] == both[i, label[i]]


def test_every_set_gets_its_evidence_and_draws_in_one_step_and_in_two(compiled, start):
    once = crowd.advance(compiled, 1, start, {"value": Y}, NONE, ALL, {}, SETTINGS)
    half = crowd.advance(compiled, 2, start, {"value": Y}, NONE, SOME, {}, SETTINGS)
    twice = crowd.advance(compiled, 3, half, {"value": Y}, SOME, ALL, {}, SETTINGS)
    for found in (once, twice):
        value, error = zip(*map(mean_evidence, found.log_evidence), strict=True)
        # One error has as few degrees of freedom as there are islands, all of them together enough.
        pooled = np.sqrt(np.mean(np.square(error)))
        assert pooled < 0.2
        for i in range(SETS):
            for k, gain in enumerate(GAINS):
                evidence, mean, sd = exact(Y[i], gain, ALL)
                assert abs(value[i][k] - evidence) < 4.5 * pooled
                flat = found.draws[i, k].reshape(-1, DIMENSION)
                assert flat.mean(axis=0) == pytest.approx(mean, abs=0.25 * sd.max())
                assert flat.std(axis=0) == pytest.approx(sd, rel=0.2)


def test_strides_of_many_groups_are_those_of_each():
    change = RNG.normal(scale=[[[0.1]], [[2.0]], [[30.0]], [[1e4]], [[3.0]]], size=(5, ISLANDS, 50))
    change[4, :2] = -1e300
    power = np.array([0.0, 0.0, 0.3, 0.0, 0.0])
    found = crowd._next(change, power, 0.4)
    for one, at, expected in zip(change, power, found, strict=True):
        nothing = np.zeros((*one.shape, 1))
        cloud = Particles(nothing, nothing, one[..., None])
        assert next_power(cloud, np.zeros(1), at, 0.4) == pytest.approx(expected, rel=1e-6)
    assert found[0] == 1.0 and (found > power).all()


def test_the_covariance_follows_what_is_brought_in(compiled, start):
    found = crowd.advance(compiled, 1, start, {"value": Y}, NONE, ALL, {}, SETTINGS)
    for i in range(SETS):
        for k, gain in enumerate(GAINS):
            X = gain * A
            expected = np.linalg.inv(X.T @ X / NOISE**2 + np.eye(DIMENSION))
            factor = found.factor[i, k]
            # The prior's covariance is that of 2,400 draws.
            np.testing.assert_allclose(factor @ factor.T, expected, rtol=0.2, atol=0.05 * expected.max())
            assert (np.triu(factor, 1) == 0).all()


def test_other_coordinates_carry_draws_and_covariance(start):
    """An affine map, and one that bends: exact for the first, to second order for the other."""
    turn = RNG.standard_normal((DIMENSION, DIMENSION))
    found = crowd.recast(start, [lambda x: x @ turn.T + 3.0, np.sinh])
    np.testing.assert_allclose(found.draws[:, 0], start.draws[:, 0] @ turn.T + 3.0)
    np.testing.assert_allclose(found.draws[:, 1], np.sinh(start.draws[:, 1]))
    for i in range(SETS):
        root = turn @ start.factor[i, 0]
        np.testing.assert_allclose(found.factor[i, 0] @ found.factor[i, 0].T, root @ root.T, rtol=1e-9)
        spread = found.factor[i, 1] @ found.factor[i, 1].T
        np.testing.assert_allclose(np.diag(spread), np.sinh(1.0) ** 2, rtol=0.2)


def test_only_rows_that_may_change_are_read_to_weigh_a_step(start):
    """A model of some rows alone, interleaved with the others, and weights that differ from set to set."""
    where = np.array([1, 4, 5, 8, 9, 11])
    whole, part = program(np.arange(ROWS)), program(where)
    fixed = np.setdiff1d(np.arange(ROWS), where)
    old = np.zeros(ROWS)
    old[fixed] = 1.0
    first = crowd.advance(whole, 1, start, {"value": Y}, NONE, old, {}, SETTINGS)
    new = np.tile(old, (SETS, 1))
    new[:, where] = RNG.integers(0, 2, (SETS, len(where)))
    changing = crowd.Changing(part, where)
    found = crowd.advance(whole, 2, first, {"value": Y}, old, new, {}, SETTINGS, changing)
    value, error = zip(*map(mean_evidence, found.log_evidence), strict=True)
    pooled = np.sqrt(np.mean(np.square(error)))
    assert pooled < 0.2
    for i in range(SETS):
        for k, gain in enumerate(GAINS):
            evidence, mean, sd = exact(Y[i], gain, new[i])
            assert abs(value[i][k] - evidence) < 4.5 * pooled
            assert found.draws[i, k].reshape(-1, DIMENSION).mean(axis=0) == pytest.approx(
                mean, abs=0.3 * sd.max()
            )
    with pytest.raises(ValueError, match="not among those that may"):
        crowd.advance(whole, 2, start, {"value": Y}, NONE, ALL, {}, SETTINGS, changing)


def test_a_set_with_an_impossible_row_is_lost_alone(compiled, start):
    value = Y.copy()
    value[2, 0] = np.nan
    found = crowd.advance(compiled, 1, start, {"value": value}, NONE, ALL, {}, SETTINGS)
    lost = np.isnan(found.log_evidence).any(axis=(1, 2))
    assert lost.tolist() == [False, False, True, False, False, False]
    for i in np.flatnonzero(~lost):
        for k, gain in enumerate(GAINS):
            assert mean_evidence(found.log_evidence[i])[0][k] == pytest.approx(
                exact(Y[i], gain, ALL)[0], abs=0.6
            )
    # It stays lost, and does not stop the others.
    again = crowd.advance(compiled, 2, found, {"value": value}, ALL, SOME, {}, SETTINGS)
    assert np.isnan(again.log_evidence).any(axis=(1, 2)).tolist() == lost.tolist()


def test_same_seed_same_bits(compiled, start):
    one, two = (crowd.advance(compiled, 7, start, {"value": Y}, NONE, ALL, {}, SETTINGS) for _ in range(2))
    np.testing.assert_array_equal(one.draws, two.draws)
    np.testing.assert_array_equal(one.log_evidence, two.log_evidence)


def test_one_in_a_narrow_place_does_not_slow_the_others(compiled):
    """Two groups draw from the same prior; one of them moves in coordinates thirty times too wide."""
    count, nowhere = 32, np.zeros((2, DIMENSION))
    run = Run(compiled, 1, SETTINGS, None)
    run.step_size = np.array([0.3, 0.3])
    own = {"value": np.tile(Y[0], (2 * count, 1)), "weight": np.zeros((2 * count, ROWS))}
    factor = np.array([1.0, 30.0])[:, None, None] * np.eye(DIMENSION)
    metric = Metric(nowhere, factor, np.zeros_like(factor), nowhere)
    x, label = RNG.standard_normal((2 * count, DIMENSION)), np.zeros(2 * count, int)
    for _ in range(12):
        states, _ = run.move(x, label, ((0.0, 1.0, 1.0), own), 1.0, metric, SETTINGS.steps)
        x = states[-1]
    wide, narrow = run.step_size
    assert wide > 0.3 and narrow < wide / 10
    # Both go on drawing from their target.
    assert x.reshape(2, count, DIMENSION).std(axis=(1, 2)) == pytest.approx([1.0, 1.0], abs=0.35)
