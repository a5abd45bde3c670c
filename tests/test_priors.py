"""Priors as maps from scores: against SciPy, in both tails, on NumPy and PyTensor alike."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from forecast.priors import (
    FAMILIES,
    Beta,
    HalfNormal,
    LogNormal,
    LogUniform,
    Normal,
    PositiveNormal,
    Prior,
    Uniform,
    finite,
    from_score,
    make_prior,
    read_prior,
    to_score,
    widened,
)
from forecast.schema import InputError

EXAMPLES = [
    Normal(0.4, 0.2),
    Normal(126.0, 3.0),
    LogNormal(1.5, 0.4),
    Prior("logitnormal", 0.3, 1.2),
    Uniform(0.0, 1.0),
    Uniform(2026.5, 2030.0),
    LogUniform(0.15, 0.6),
    HalfNormal(0.7),
    PositiveNormal(0.58, 0.18),
    PositiveNormal(-0.5, 1.0),
    PositiveNormal(3.0, 0.1),
    Beta(6.0, 11.0),
    Beta(1.0, 12.0),
    Beta(2.0, 10.0),
    Beta(0.5, 0.5),
]
SCORES = np.linspace(-6.0, 6.0, 481)


def reference(prior: Prior, z: np.ndarray) -> np.ndarray:
    """Quantiles by SciPy, each from the tail in which Phi(z) is precise."""
    if prior.family == "logitnormal":
        return special.expit(special.logit(prior.a) + prior.b * z)
    frozen = prior.frozen()
    return np.where(z < 0, frozen.ppf(special.ndtr(z)), frozen.isf(special.ndtr(-z)))


def logit_of_beta(alpha: float, beta: float, z: np.ndarray) -> np.ndarray:
    x = special.betaincinv(alpha, beta, special.ndtr(z))
    rest = special.betaincinv(beta, alpha, special.ndtr(-z))
    return np.log(x) - np.log(rest)


def test_every_family_has_an_example():
    assert {p.family for p in EXAMPLES} == set(FAMILIES)


@pytest.mark.parametrize("prior", EXAMPLES, ids=str)
def test_quantiles_agree_with_scipy_far_into_the_tails(prior):
    spread = np.ptp(reference(prior, np.array([-1.0, 1.0])))
    np.testing.assert_allclose(
        from_score(prior.family, SCORES, prior.hyper),
        reference(prior, SCORES),
        rtol=2e-7,
        atol=1e-14 * spread,
    )


@pytest.mark.parametrize("prior", EXAMPLES, ids=str)
def test_maps_rise_and_stay_inside_the_support(prior):
    values = from_score(prior.family, np.linspace(-8.0, 8.0, 2001), prior.hyper)
    assert np.isfinite(values).all()
    assert (np.diff(values) >= 0).all()
    low, high = prior.frozen().support() if prior.family != "logitnormal" else (0.0, 1.0)
    assert low <= values.min() and values.max() <= high


@pytest.mark.parametrize("prior", EXAMPLES, ids=str)
def test_pytensor_agrees_with_numpy(prior):
    z, hyper = pt.vector("z"), pt.matrix("hyper")
    graph = pytensor.function([z, hyper], from_score(prior.family, z, hyper), mode="FAST_COMPILE")
    scores = np.array([-5.9, -1.3, 0.0, 0.4, 6.0])
    both = np.stack([prior.hyper] * len(scores))
    np.testing.assert_allclose(graph(scores, both), from_score(prior.family, scores, prior.hyper), rtol=1e-12)


def test_leading_axes_of_hyper_parameters_broadcast():
    priors = [Beta(6.0, 11.0), Beta(1.0, 12.0)]
    scores = np.array([[-2.0, 0.5], [0.0, 1.0], [3.0, -3.0]])
    together = from_score("beta", scores, np.stack([p.hyper for p in priors]))
    for j, prior in enumerate(priors):
        np.testing.assert_array_equal(together[:, j], from_score("beta", scores[:, j], prior.hyper))


@given(st.floats(0.5, 100.0), st.floats(0.5, 100.0))
def test_beta_table_is_exact_to_a_millionth_of_the_logit(alpha, beta):
    z = np.linspace(-6.0, 6.0, 301)
    exact = logit_of_beta(alpha, beta, z)
    z, exact = z[exact < 16], exact[exact < 16]  # above, 1 - theta is lost to rounding
    found = special.logit(from_score("beta", z, Beta(alpha, beta).hyper))
    error = np.abs(found - exact) / np.maximum(1.0, np.abs(exact))
    assert error[exact < 6].max(initial=0) < 1e-7
    assert error.max() < 1e-6 if exact.max() < 12 else error.max() < 1e-3


@given(st.floats(-5.0, 5.0), st.floats(0.01, 3.0), st.floats(-7.0, 7.0), st.floats(0.0, 2.0))
def test_maps_rise_for_any_hyper_parameters(centre, sd, z, step):
    for prior in (
        Normal(centre, sd),
        LogNormal(np.exp(centre), sd),
        Prior("logitnormal", float(special.expit(centre)), sd),
        Uniform(centre, centre + sd),
        LogUniform(np.exp(centre), np.exp(centre + sd)),
        HalfNormal(sd),
        PositiveNormal(max(centre, -4 * sd), sd),
        Beta(np.exp(centre / 2), sd + 0.1),
    ):
        low, high = from_score(prior.family, np.array([z, z + step]), prior.hyper)
        assert low <= high


@given(st.floats(0.001, 0.999))
def test_quantile_is_the_inverse_of_the_distribution_function(q):
    for prior in EXAMPLES:
        if prior.family != "logitnormal":
            assert prior.frozen().cdf(float(prior.quantile(q))) == pytest.approx(q, abs=1e-7)


def test_logitnormal_by_hand():
    prior = Prior("logitnormal", 0.25, 1.0)  # odds of the median are 1/3
    assert float(prior.quantile(0.5)) == pytest.approx(0.25, rel=1e-14)
    odds = np.exp(1.0) / 3
    assert from_score("logitnormal", np.array(1.0), prior.hyper) == pytest.approx(
        odds / (1 + odds), rel=1e-14
    )


def test_text_names_the_hyper_parameters():
    assert str(Beta(6.0, 11.0)) == "beta(alpha 6, beta 11)"
    assert str(HalfNormal(0.7)) == "halfnormal(sd 0.7)"


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("nromal", {"mean": 0.0, "sd": 1.0}, "x: unknown dist 'nromal'; did you mean 'normal'?"),
        (
            "normal",
            {"mean": 0.0, "std": 1.0},
            "x: normal has no field 'std'; did you mean 'sd'?; give mean and sd",
        ),
        ("normal", {"mean": 0.0}, "x.sd: normal needs a finite number here, got nothing"),
        ("normal", {"mean": 0.0, "sd": "1"}, "x.sd: normal needs a finite number here, got '1'"),
        ("normal", {"mean": float("nan"), "sd": 1.0}, "x.mean: normal needs a finite number here, got nan"),
        ("normal", {"mean": True, "sd": 1.0}, "x.mean: normal needs a finite number here, got True"),
        ("normal", {"mean": 0.0, "sd": 0.0}, "x: normal needs sd > 0"),
        ("lognormal", {"median": 0.0, "sd": 1.0}, "x: lognormal needs median > 0 and sd > 0"),
        ("logitnormal", {"median": 1.0, "sd": 1.0}, "x: logitnormal needs median between 0 and 1 and sd > 0"),
        ("uniform", {"lower": 1.0, "upper": 1.0}, "x: uniform needs lower < upper"),
        ("loguniform", {"lower": 0.0, "upper": 1.0}, "x: loguniform needs 0 < lower < upper"),
        ("positive_normal", {"mean": -6.0, "sd": 1.0}, "x: positive_normal needs sd > 0 and mean > -5 sd"),
        ("beta", {"alpha": 0.01, "beta": 1.0}, "x: beta needs alpha and beta of at least 0.1"),
    ],
)
def test_make_prior_refuses_in_one_line(family, fields, message):
    with pytest.raises(InputError) as error:
        make_prior(family, fields, "x")
    assert str(error.value) == message


def test_make_prior_takes_whole_numbers_of_any_size():
    assert make_prior("uniform", {"lower": 0, "upper": 2**70}, "x") == Uniform(0.0, float(2**70))
    with pytest.raises(InputError, match="finite number"):
        make_prior("uniform", {"lower": 0, "upper": 10**400}, "x")


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()))
def test_finite_is_a_float_or_nothing(value):
    number = finite(value)
    assert number is None or (isinstance(number, float) and np.isfinite(number) and number == value)


# There and back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", EXAMPLES, ids=str)
def test_scores_turn_quantiles_round_and_narrow_priors_freeze(prior):
    z = np.linspace(-4, 4, 33)
    np.testing.assert_allclose(to_score(prior, from_score(prior.family, z, prior.hyper)), z, atol=2e-5)
    middle = float(prior.quantile(np.array(0.5)))
    held = prior.narrowed(middle)
    assert held.family == prior.family and held.hyper.shape == prior.hyper.shape
    np.testing.assert_allclose(from_score(held.family, z, held.hyper), middle, rtol=0.15, atol=1e-3)


# Widening -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [p for p in EXAMPLES if p.a != 0.5], ids=str)
def test_a_widened_prior_keeps_family_and_place_and_is_about_twice_as_wide(prior):
    wide = widened(prior)
    assert wide.family == prior.family
    link = {"lognormal": np.log, "loguniform": np.log, "logitnormal": special.logit}.get(
        prior.family, lambda x: x
    )
    z = np.linspace(-3, 3, 4001)
    weight = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()

    def spread(one: Prior) -> float:
        x = link(reference(one, z))
        return float(np.sqrt(weight @ (x - weight @ x) ** 2))

    # A cut at 0, or at the least count of a beta, leaves less.
    least = 1.25 if prior.family in ("uniform", "beta", "positive_normal") else 1.99
    most = 2.5 if prior.family == "positive_normal" else 2.01
    assert least < spread(wide) / spread(prior) < most
    if prior.family not in ("halfnormal", "positive_normal", "beta", "uniform"):
        assert wide.quantile(0.5) == pytest.approx(prior.quantile(0.5))
    if prior.family == "beta":
        assert wide.a / wide.b == pytest.approx(prior.a / prior.b) and min(wide.a, wide.b) >= 0.5


def test_widened_priors_keep_their_sign():
    assert widened(Uniform(0.0, 1.0)) == Uniform(0.0, 1.5)
    assert widened(Uniform(-1.0, 1.0)) == Uniform(-2.0, 2.0)
    assert widened(LogUniform(0.15, 0.6)).a == pytest.approx(0.075)
    assert widened(Beta(0.3, 0.9)) == Beta(0.3, 0.9)


@pytest.mark.parametrize("prior", EXAMPLES, ids=str)
def test_a_prior_is_read_back_from_its_text(prior):
    assert read_prior(str(prior)) == prior


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normal", "no prior"),
        ("normal(mean)", "a name and a number"),
        ("normal(mean x, sd 1)", "finite number"),
        ("cauchy(mean 0, sd 1)", "unknown dist"),
    ],
)
def test_text_that_is_no_prior_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_prior(text)
