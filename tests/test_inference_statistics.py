"""The engine's statistics: labels with own priors, impossible regions, errors of islands, other samplers."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import integrate, special, stats

from forecast.bridge import bridge
from forecast.compilation import Compiled, compile_model
from forecast.evidence import bayes_factors, mean_evidence, weights
from forecast.inference import Fit, Settings, describe, sample

FINE = Settings(islands=8, chains=256, ess=0.7, final_sweeps=2)
"""One size for all: other shapes would be compiled again."""
EVIDENCE = 0.10
"""Largest error of a log evidence, nats."""


def assert_moments(draws: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> None:
    """Mean and sd of (chain, draw, dimension) within 4 Monte Carlo errors by effective sample size."""
    for i in range(draws.shape[-1]):
        x = draws[..., i]
        ess = float(az.ess(x, method="mean"))
        assert ess > 200
        assert abs(x.mean() - mean[i]) < 4 * sd[i] / np.sqrt(ess), f"mean of {i}"
        assert abs(x.std() - sd[i]) < 4 * sd[i] / np.sqrt(2 * float(az.ess(x, method="sd"))), f"sd of {i}"


def assert_evidence(fit: Fit, label: int, exact: float) -> None:
    mean, error = mean_evidence(fit.log_evidence)
    assert abs(mean[label] - exact) < min(EVIDENCE, 5 * error[label])
    estimate, own_error = fit.check[label]
    assert abs(estimate - exact) < min(EVIDENCE, 5 * own_error + 1e-3)


# Labels ---------------------------------------------------------------------------------------------

CENTRES = np.array([[0.0, 0.5], [2.0, -1.0], [-0.5, 3.0]])
GAINS = np.array([[1.0, 1.0], [0.3, 2.0], [-1.0, 0.5]])
VALUES = np.array([[1.0, 2.0], [0.8, 1.6]])


def mixture() -> pm.Model:
    """z ~ N(centre of the label, 1), values ~ N(gain of the label * z, .5)."""
    with pm.Model(coords={"part": ["a", "b"]}) as model:
        label = pm.Categorical("label", p=[0.2, 0.5, 0.3])
        z = pm.Normal("z", pt.stack([pt.as_tensor(c) for c in CENTRES])[label], 1.0, shape=2)
        gain = pt.stack([pt.as_tensor(g) for g in GAINS])[label]
        pm.Deterministic("mean", gain * z, dims="part")
        pm.Normal("values", gain * z, 0.5, observed=VALUES)
    return model


def mixture_prior(seed: int, size: int) -> np.ndarray:
    return CENTRES[np.arange(size) % 3] + np.random.default_rng(seed).normal(size=(size, 2))


def test_evidence_and_posterior_where_the_prior_depends_on_the_label():
    compiled = compile_model(mixture())
    assert (compiled.dimension, compiled.labels) == (2, 3)
    seen: list[tuple[str, float]] = []
    settings = Settings(islands=8, chains=192, final_sweeps=2)
    fit = sample(
        compiled,
        1,
        settings,
        draw_prior=mixture_prior,
        progress=lambda what, share: seen.append((what, share)),
    )
    assert fit.draws.shape == (3, 8, 64 * 4 * 2, 2)
    for k, (centre, gain) in enumerate(zip(CENTRES, GAINS, strict=True)):
        exact, mean, sd = 0.0, np.empty(2), np.empty(2)
        for j in range(2):
            covariance = gain[j] ** 2 + 0.25 * np.eye(2)
            exact += stats.multivariate_normal.logpdf(
                VALUES[:, j], np.full(2, gain[j] * centre[j]), covariance
            )
            precision = 1 + 2 * gain[j] ** 2 / 0.25
            mean[j] = (centre[j] + gain[j] * VALUES[:, j].sum() / 0.25) / precision
            sd[j] = precision**-0.5
        assert_evidence(fit, k, exact)
        assert_moments(fit.draws[k], mean, sd)
        found = describe(compiled, fit, k)["mean"]
        assert found.dims == ("chain", "draw", "part")
        np.testing.assert_allclose(found, gain * fit.draws[k], rtol=1e-9)
    for what in ("tempering", "drawing"):
        shares = [share for w, share in seen if w == what]
        assert shares == sorted(shares) and shares[-1] == 1.0


def test_particles_must_divide_among_labels():
    with pytest.raises(ValueError, match="multiple of the number of labels"):
        sample(compile_model(mixture()), 1, Settings(islands=2, chains=10, steps=1), draw_prior=mixture_prior)


def test_a_vector_of_labels_is_refused():
    with pm.Model() as model:
        labels = pm.Categorical("labels", p=[0.5, 0.5], shape=3)
        pm.Normal("x", labels.sum())
    with pytest.raises(ValueError, match="one scalar discrete variable"):
        compile_model(model)


# Constrained parameters and impossible regions ------------------------------------------------------


def test_constrained_parameters_have_their_exact_moments():
    with pm.Model() as model:
        scale = pm.HalfNormal("scale", 1.0)
        share = pm.Beta("share", 2.0, 5.0)
        pm.Deterministic("both", pt.stack([scale, share]))
        pm.Normal("y", scale, 0.5, observed=0.4)
        pm.Binomial("k", 20, share, observed=9)
    compiled = compile_model(model)
    fit = sample(compiled, 2, FINE)

    def moment(power: int) -> float:
        return integrate.quad(
            lambda s: s**power * stats.halfnorm.pdf(s) * stats.norm.pdf(0.4, s, 0.5), 0, 20
        )[0]

    mass, first, second = (moment(p) for p in range(3))
    assert_evidence(fit, 0, np.log(mass) + stats.betabinom.logpmf(9, 20, 2, 5))
    posterior = stats.beta(11, 16)
    mean = np.array([first / mass, posterior.mean()])
    sd = np.array([np.sqrt(second / mass - mean[0] ** 2), posterior.std()])
    found = describe(compiled, fit, 0)["both"].to_numpy()
    assert_moments(found, mean, sd)
    expected = np.stack([np.exp(fit.draws[0][..., 0]), special.expit(fit.draws[0][..., 1])], -1)
    np.testing.assert_allclose(found, expected)


@pytest.fixture(scope="module")
def undefined() -> Compiled:
    """A likelihood that is not a number below `cut` in its first dimension."""
    with pm.Model() as model:
        cut = pm.Data("cut", 0.0)
        z = pm.Normal("z", 0.0, 1.0, shape=2)
        pm.Potential("likelihood", pt.log(z[0] - cut) - 0.5 * z[1] ** 2)
    return compile_model(model)


@pytest.mark.parametrize("cut", [-1.0, 0.0, 1.0])
def test_tempering_advances_when_most_of_the_prior_is_impossible(undefined, cut):
    # From a sixth to five sixths of the prior.
    calls = 0

    def progress(what: str, share: float) -> None:
        nonlocal calls
        calls += 1
        assert calls < 60, "tempering does not advance"

    fit = sample(undefined, 6, FINE, data={"cut": np.asarray(cut)}, progress=progress)
    for field in (fit.draws, fit.log_evidence, fit.check):
        assert np.isfinite(field).all()
    assert fit.draws[..., 0].min() > cut
    assert_evidence(fit, 0, np.log(stats.norm.pdf(cut) - cut * stats.norm.sf(cut)) - 0.5 * np.log(2))


def test_more_sweeps_are_more_particles(undefined):
    data = {"cut": np.asarray(-3.0)}
    fit = sample(undefined, 3, replace(FINE, sweeps=3), data)
    assert fit.draws.shape == (1, 8, 256 * 4 * 6, 2)
    other = sample(undefined, 4, replace(FINE, sweeps=3), data)
    # Numbers of 32 bits coincide now and then, points do not.
    assert not np.isin(*(f.draws.view(complex) for f in (fit, other))).any()


# Bridge sampling and the combination of islands -----------------------------------------------------


def test_bridge_owns_its_error_on_a_skewed_density():
    # A log-gamma density: normalising constant ln Gamma(a) in each dimension.
    rng = np.random.default_rng(1)
    shape, found = 3.0, []
    for _ in range(40):
        draws = np.log(rng.gamma(shape, size=(4, 400, 3)))
        found.append(bridge(draws, lambda x: (shape * x - np.exp(x)).sum(-1), rng))
    estimates, errors = np.array(found).T
    assert abs(estimates.mean() - 3 * special.gammaln(shape)) < 4 * estimates.std() / np.sqrt(40)
    assert estimates.std() / errors.mean() == pytest.approx(1.0, abs=0.4)


def test_evidence_is_the_mean_over_islands():
    each = np.array([[1.0, 2.0, 3.0, 6.0], [4.0, 4.0, 4.0, 4.0]]) - 900.0
    mean, error = mean_evidence(each)
    np.testing.assert_allclose(mean, [-897.0, -896.0])
    np.testing.assert_allclose(error, [np.std([1, 2, 3, 6], ddof=1) / 2, 0.0])


def test_weights_are_odds_times_evidence():
    each = np.log([[1.0, 4.0, 2.0], [6.0, 6.0, 6.0], [5.0, 5.0, 5.0]]) - 900.0
    found = weights(each, np.array([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(found.posterior, [0.25, 0.75, 0.0])
    assert found.posterior_se[0] == pytest.approx(found.posterior_se[1])
    assert found.posterior_se[2] == 0.0


def test_what_all_labels_share_cancels_in_a_bayes_factor():
    shared = np.random.default_rng(0).normal(size=8)
    noise = 0.1 * np.random.default_rng(1).normal(size=8)
    each = np.stack([shared, shared - 2.0, shared - 1.0 + noise])
    factors = bayes_factors(("a", "b", "c"), each)
    assert list(factors) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert factors["a", "b"] == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-12))
    assert 0.01 < factors["a", "c"][1] < 0.1 < mean_evidence(each)[1][0]


# Full statistics ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [5, 20])
def test_errors_of_the_evidence_are_honest(dimension):
    """Over thirty seeds: unbiased, and errors the size that the islands and the bridge say."""
    rng = np.random.default_rng(dimension)
    A, y = rng.normal(size=(dimension + 3, dimension)), rng.normal(size=dimension + 3) * 2
    sd = rng.uniform(0.5, 2.0, dimension)
    with pm.Model() as model:
        z = pm.Normal("z", 0.0, sd, shape=dimension)
        pm.Normal("y", pt.dot(A, z), 2.0, observed=y)
    exact = stats.multivariate_normal.logpdf(y, np.zeros(len(y)), A * sd**2 @ A.T + 4 * np.eye(len(y)))
    compiled = compile_model(model)
    fits = [sample(compiled, seed, FINE) for seed in range(30)]
    islands = np.array([[m[0], e[0]] for m, e in (mean_evidence(f.log_evidence) for f in fits)])
    for estimate, error in (islands.T, np.array([f.check[0] for f in fits]).T):
        away = (estimate - exact) / error
        assert abs(away.mean()) < 4 * away.std() / np.sqrt(30)
        assert 0.6 < away.std() < 1.7


@pytest.mark.slow
def test_agrees_with_nuts_on_a_model_that_is_not_gaussian():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.poisson(3.0, size=40)
    with pm.Model() as model:
        a, b = pm.Normal("a"), pm.Normal("b")
        shape = pm.HalfNormal("shape", 5.0)
        pm.Deterministic("all", pt.stack([a, b, shape]))
        pm.NegativeBinomial("y", mu=pt.exp(a + b * x), alpha=shape, observed=y)
        trace = pm.sample(2000, chains=4, cores=1, random_seed=1, progressbar=False)
    compiled = compile_model(model)
    found = describe(compiled, sample(compiled, 1, FINE), 0)["all"].to_numpy()
    reference = trace["posterior"]["all"].to_numpy()
    for i in range(3):
        error = np.hypot(float(az.mcse(found[..., i])), float(az.mcse(reference[..., i])))
        assert abs(found[..., i].mean() - reference[..., i].mean()) < 4 * error
        assert found[..., i].std() == pytest.approx(reference[..., i].std(), rel=0.1)
