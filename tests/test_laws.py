"""Laws of observed values: densities against SciPy and quadrature, gradients, and draws against densities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special, stats

from forecast.laws import Counted, Observed, Reported, Shortfall, SplitShortfall, log_normal_cdf

RATIOS = [0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 100.0]
"""Scale of the shortfall over the sd of the noise."""
SDS = np.unique(
    np.concatenate([np.linspace(-60, 60, 241), np.linspace(-3, 3, 61), [-26.0, -25.0, 25.0, 26.0]])
)
"""Distance of an observation from the frontier, in sds of the noise."""


def seen(low: Any, high: Any = None, n: Any = 0.0) -> Observed:
    """Observations: values if `high` is not given."""
    low = np.atleast_1d(np.asarray(low, float))
    high = low if high is None else np.broadcast_to(np.asarray(high, float), low.shape)
    none = np.zeros(len(low))
    return Observed(low, high, none, none, none + n)


def above(bound: Any) -> Observed:
    return seen(bound, np.inf)


def below(bound: Any) -> Observed:
    bound = np.atleast_1d(np.asarray(bound, float))
    return seen(np.full(len(bound), -np.inf), bound)


class Evaluator:
    """Log density of a law and its gradient, compiled once for each pattern of rows."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.fields = kind._fields

    def __call__(self, y: Observed, *values: Any, slopes: bool = False) -> Any:
        size = len(y.low)
        inputs = [pt.vector(name, shape=(size,)) for name in self.fields]
        out = self.kind(*inputs).logp(y, y.at)
        wanted = [out, *(pytensor.grad(out.sum(), inputs) if slopes else [])]
        function = pytensor.function(inputs, wanted, mode="FAST_COMPILE")
        found = function(*(np.broadcast_to(np.asarray(v, float), size).copy() for v in values))
        return found if slopes else found[0]


shortfall, split, reported, counted = map(Evaluator, (Shortfall, SplitShortfall, Reported, Counted))


def panels(edges: np.ndarray, order: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on each panel between `edges`."""
    node, weight = np.polynomial.legendre.leggauss(order)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + node)).ravel(), (half * weight).ravel()


def exponential_sum(x: np.ndarray, sd: float, scale: float) -> np.ndarray:
    """SciPy's log density of N(0, sd^2) + Exponential(scale)."""
    return np.asarray(stats.exponnorm.logpdf(x, scale / sd, scale=sd))


def two_piece(y: np.ndarray, mu: float, sd_low: float, sd_high: float, scale: float) -> np.ndarray:
    """Log density of the two-piece law up to a constant, continuous at mu by construction."""
    x = mu - y
    join = exponential_sum(np.zeros(1), sd_low, scale) - exponential_sum(np.zeros(1), sd_high, scale)
    return np.where(x < 0, exponential_sum(x, sd_low, scale), exponential_sum(x, sd_high, scale) + join)


def log_integral(mu: float, sd_low: float, sd_high: float, scale: float, bound: float = -np.inf) -> float:
    """Log of the integral of `two_piece` above `bound`."""
    steps = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 30), np.linspace(1.1, 12, 60)])
    reach = [
        mu + 12 * sd_low * steps,
        mu - 12 * sd_high * steps,
        mu - 60 * scale * steps,
        [mu - 80 * sd_high],
    ]
    if np.isfinite(bound):
        near = sd_low / max(1.0, abs(bound - mu) / sd_low)
        reach += [bound + 12 * sd_low * steps, bound + 5 * near * steps]
    edges = np.unique(np.maximum(np.concatenate(reach), bound))
    node, weight = panels(edges)
    return float(special.logsumexp(two_piece(node, mu, sd_low, sd_high, scale) + np.log(weight)))


# Densities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("sd", [0.02, 1.0, 30.0])
def test_shortfall_is_an_exponentially_modified_normal(ratio, sd):
    got = shortfall(seen(2.0 - SDS * sd), 2.0, sd, ratio * sd)
    expected = exponential_sum(SDS * sd, sd, ratio * sd)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-9)


def test_shortfall_falls_behind_the_frontier_not_ahead():
    behind, ahead = shortfall(seen([-3.0, 3.0]), 0.0, 0.5, 1.0)
    assert behind > ahead + 10


@pytest.mark.parametrize("ratio", RATIOS)
def test_shortfall_above_a_bound_is_the_tail_of_the_sum(ratio):
    x = np.linspace(-8, 8, 33)
    got = shortfall(above(2.0 - 0.5 * x), 2.0, 0.5, ratio * 0.5)
    np.testing.assert_allclose(got, stats.exponnorm.logcdf(0.5 * x, ratio, scale=0.5), rtol=1e-6, atol=1e-6)


def test_shortfall_keeps_row_order_of_values_and_bounds():
    both = seen([1.0, 0.5, 1.2, -0.3], [np.inf, 0.5, np.inf, -0.3])
    got = shortfall(both, [1.0, 2.0, 0.0, 1.0], 0.5, 1.0)
    values = shortfall(seen([0.5, -0.3]), [2.0, 1.0], 0.5, 1.0)
    bounds = shortfall(above([1.0, 1.2]), [1.0, 0.0], 0.5, 1.0)
    np.testing.assert_allclose(got, [bounds[0], values[0], bounds[1], values[1]], rtol=1e-12)


@pytest.mark.parametrize("ratio", RATIOS)
def test_split_shortfall_with_equal_sds_is_a_shortfall(ratio):
    y = seen(1.0 - 0.3 * SDS)
    np.testing.assert_allclose(
        split(y, 1.0, 0.3, 0.3, 0.3 * ratio), shortfall(y, 1.0, 0.3, 0.3 * ratio), rtol=1e-11, atol=1e-11
    )


PIECES = [
    (0.3, 0.3, 1.0),
    (0.2, 0.9, 0.5),
    (0.9, 0.2, 0.5),
    (0.5, 0.4, 0.01),
    (0.05, 1.5, 5.0),
    (1.0, 0.6, 60.0),
]
"""Sd below, sd above and scale of a two-piece law."""


@pytest.mark.parametrize(("sd_low", "sd_high", "scale"), PIECES)
def test_split_shortfall_has_two_shortfall_shapes_and_integrates_to_one(sd_low, sd_high, scale):
    mu = 6.0
    y = mu - SDS * np.where(SDS < 0, sd_low, sd_high)
    expected = two_piece(y, mu, sd_low, sd_high, scale) - log_integral(mu, sd_low, sd_high, scale)
    np.testing.assert_allclose(split(seen(y), mu, sd_low, sd_high, scale), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(("sd_low", "sd_high", "scale"), PIECES)
def test_split_shortfall_is_continuous_at_the_frontier(sd_low, sd_high, scale):
    left, at, right = split(seen([-1e-9, 0.0, 1e-9]), 0.0, sd_low, sd_high, scale)
    assert left == pytest.approx(at, abs=1e-6)
    assert right == pytest.approx(at, abs=1e-6)


def test_split_shortfall_takes_the_error_that_points_to_the_frontier():
    # A value above the frontier is explained by its error downwards.
    tight, wide = (split(seen(1.0), 0.0, sd, 0.2, 0.3)[0] for sd in (0.2, 0.8))
    assert wide > tight + 5


@pytest.mark.parametrize(("sd_low", "sd_high", "scale"), PIECES)
def test_split_shortfall_above_a_bound_is_the_integral_of_the_density(sd_low, sd_high, scale):
    mu = 6.0
    x = np.array([-60, -30, -10, -3, -1, -0.1, -1e-6, 1e-6, 0.1, 1, 3, 10, 24, 26, 30, 60.0])
    bound = mu - x * np.where(x < 0, sd_low, sd_high)
    total = log_integral(mu, sd_low, sd_high, scale)
    expected = [log_integral(mu, sd_low, sd_high, scale, b) - total for b in bound]
    np.testing.assert_allclose(
        split(above(bound), mu, sd_low, sd_high, scale), expected, rtol=1e-7, atol=1e-9
    )


def test_split_shortfall_keeps_row_order_of_values_and_bounds():
    low = np.array([1.0, 2.0, -1.0, 0.5, 3.0])
    high = np.where([False, True, False, True, True], np.inf, low)
    mixed = split(seen(low, high), 0.7, 0.4, 0.6, 0.9)
    apart = [split(seen(a, b), 0.7, 0.4, 0.6, 0.9)[0] for a, b in zip(low, high, strict=True)]
    np.testing.assert_allclose(mixed, apart, rtol=1e-13)


@pytest.mark.parametrize("shape", [-4.0, 0.0, 0.3, 1.0, 8.0])
def test_reported_value_is_skew_normal(shape):
    z = np.linspace(-12, 12, 97)
    y = 0.5 + 0.35 * z
    # SciPy's own density loses its far tail; the formula of Azzalini (1985) does not.
    expected = np.log(2 / 0.35) + stats.norm.logpdf(z) + stats.norm.logcdf(shape * z)
    got = reported(seen(y), 0.5, 0.35, shape)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)
    middle = np.abs(z) < 4
    scipy = stats.skewnorm.logpdf(y[middle], shape, 0.5, 0.35)
    np.testing.assert_allclose(got[middle & (expected > -20)], scipy[expected[middle] > -20], rtol=1e-6)


def test_reported_bounds_use_the_normal_part_alone():
    bound = 0.5 + 0.35 * np.linspace(-40, 40, 161)
    for shape in (0.0, 3.0):
        np.testing.assert_allclose(
            reported(above(bound), 0.5, 0.35, shape),
            stats.norm.logsf(bound, 0.5, 0.35),
            rtol=1e-11,
            atol=1e-300,
        )
        np.testing.assert_allclose(
            reported(below(bound), 0.5, 0.35, shape),
            stats.norm.logcdf(bound, 0.5, 0.35),
            rtol=1e-11,
            atol=1e-300,
        )


@pytest.mark.parametrize("width", [1e-3, 0.1, 2.0, 10.0])
def test_reported_interval_is_a_difference_of_probabilities_in_both_tails(width):
    low = np.linspace(-45, 40, 86)
    high = low + width
    # By symmetry read where the smaller of both probabilities is not 1 - something.
    a, b = np.where(low + high > 0, -high, low), np.where(low + high > 0, -low, high)
    top, bottom = stats.norm.logcdf(b), stats.norm.logcdf(a)
    expected = top + np.log(-np.expm1(bottom - top))
    np.testing.assert_allclose(reported(seen(low, high), 0.0, 1.0, 2.0), expected, rtol=1e-9, atol=1e-11)


def test_reported_keeps_row_order_of_values_bounds_and_intervals():
    low = np.array([1.0, -np.inf, 0.2, 0.4, -0.3, 0.1])
    high = np.array([1.0, 0.9, np.inf, 1.4, -0.3, 0.2])
    mixed = reported(seen(low, high), 0.7, 0.4, 1.5)
    apart = [reported(seen(a, b), 0.7, 0.4, 1.5)[0] for a, b in zip(low, high, strict=True)]
    np.testing.assert_allclose(mixed, apart, rtol=1e-13)


def test_counted_is_binomial_with_a_probit():
    k, n = np.array([0, 1, 5, 18, 0, 16.0]), np.array([4, 18, 10, 18, 18, 16.0])
    for probit in (-5.0, -1.3, 0.0, 0.4, 5.0):
        expected = stats.binom.logpmf(k, n, stats.norm.cdf(probit))
        np.testing.assert_allclose(counted(seen(k, n=n), probit), expected, rtol=1e-9, atol=1e-12)


def test_counted_far_tail_is_finite_and_exact():
    # SciPy's probability would be 1 or 0 here.
    got = counted(seen([0.0, 3.0], n=[7.0, 7.0]), [30.0, -30.0])
    np.testing.assert_allclose(
        got, [7 * stats.norm.logcdf(-30), np.log(35) + 3 * stats.norm.logcdf(-30)], rtol=1e-12
    )


def test_log_normal_cdf_is_exact_in_both_tails():
    x = np.linspace(-60, 60, 481)
    got = log_normal_cdf(pt.as_tensor(x)).eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(got, stats.norm.logcdf(x), rtol=1e-12, atol=1e-300)


# Gradients ------------------------------------------------------------------------------------------


def check_slopes(evaluate: Evaluator, y: Observed, *values: Any, step: float = 1e-6) -> None:
    """All finite; equal to central differences where these are precise."""
    values = tuple(np.broadcast_to(np.asarray(v, float), len(y.low)).copy() for v in values)
    out, *slopes = evaluate(y, *values, slopes=True)
    assert np.isfinite(out).all()
    for i, (slope, name) in enumerate(zip(slopes, evaluate.fields, strict=True)):
        assert np.isfinite(slope).all(), f"gradient in {name} at {np.flatnonzero(~np.isfinite(slope))}"
        width = step * np.maximum(np.abs(values[i]), 1e-2)
        ends = [evaluate(y, *(v + s * width * (i == j) for j, v in enumerate(values))) for s in (1, -1)]
        differences = (ends[0] - ends[1]) / (2 * width)
        rounding = 1e-14 * np.abs(out) / width
        error = np.abs(slope - differences) / (1 + np.abs(differences) + 1e6 * rounding)
        assert error.max() < 2e-4, f"gradient in {name}, row {error.argmax()}"


def grid(*axes: Any) -> list[np.ndarray]:
    return [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]


FAR = np.array([-60, -40, -26, -25.1, -24.9, -10, -3, -1, -0.1, 0.1, 1, 3, 10, 24.9, 25.1, 26, 40, 60.0])
"""Distances in sds that avoid the seams, where differences of either side do not agree."""


def test_gradients_of_shortfall():
    x, ratio, sd = grid(FAR, RATIOS, [0.05, 2.0])
    check_slopes(shortfall, seen(1.0 - x * sd), 1.0, sd, ratio * sd)


def test_gradients_of_censored_shortfall():
    x, ratio, sd = grid(FAR, RATIOS, [0.05, 2.0])
    check_slopes(shortfall, above(1.0 - x * sd), 1.0, sd, ratio * sd)


def test_gradients_of_split_shortfall():
    x, ratio, low, high = grid(FAR, RATIOS, [0.3, 1.0], [0.3, 1.0])
    y = 1.0 - x * np.where(x < 0, low, high)
    check_slopes(split, seen(y), 1.0, low, high, ratio * low)


def test_gradients_of_censored_split_shortfall():
    x, ratio, low, high = grid(FAR, RATIOS, [0.3, 1.0], [0.3, 1.0])
    y = 1.0 - x * np.where(x < 0, low, high)
    check_slopes(split, above(y), 1.0, low, high, ratio * low)


def test_gradients_of_reported_values_bounds_and_intervals_in_one_batch():
    z, shape = grid(np.linspace(-30.1, 30, 41), [-2.0, 0.0, 0.5, 5.0])
    y = 0.4 * z + 1.0
    kinds = np.arange(len(y)) % 4
    low = np.where(kinds == 1, -np.inf, y)
    high = np.select([kinds == 0, kinds == 1, kinds == 2], [y, y, np.inf], y + 0.3)
    check_slopes(reported, seen(low, high), 1.0, 0.4, shape)


def test_gradients_of_counted():
    probit, k = grid(np.linspace(-30.1, 30, 41), [0, 1, 9, 18.0])
    check_slopes(counted, seen(k, n=18.0), probit)


def test_gradients_at_the_seams_are_finite():
    for evaluate, y, values in (
        (shortfall, seen([0.0, 0.0]), (0.0, 1.0, 1.0)),
        (split, seen([0.0, 0.0]), (0.0, 1.0, 2.0, 1.0)),
        (split, above([0.0, 0.0]), (0.0, 1.0, 2.0, 1.0)),
        (reported, seen([0.0, 1.0]), (0.0, 1.0, 0.0)),
        (counted, seen([0.0, 3.0], n=3), (0.0,)),
    ):
        assert all(np.isfinite(found).all() for found in evaluate(y, *values, slopes=True))


# Draws ----------------------------------------------------------------------------------------------

SIZE = 20_000


def drawn(law: Any, y: Observed | None = None) -> np.ndarray:
    law = type(law)(*(np.full(SIZE, v, float) for v in law))
    return law.draw(np.random.default_rng(7), seen(np.zeros(SIZE)) if y is None else y)


def assert_uniform(probability: np.ndarray) -> None:
    """Kolmogorov-Smirnov; a distance of .02 has p = 1e-6 at this size."""
    assert stats.kstest(probability, "uniform").pvalue > 0.01


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_draws_of_shortfall(ratio):
    values = drawn(Shortfall(2.0, 0.5, 0.5 * ratio))
    assert_uniform(stats.exponnorm.sf(2.0 - values, ratio, scale=0.5))


@pytest.mark.parametrize(
    ("sd_low", "sd_high", "scale"), [(0.3, 0.3, 1.0), (0.2, 0.9, 0.5), (0.9, 0.2, 0.5), (0.5, 0.5, 0.05)]
)
def test_draws_of_split_shortfall(sd_low, sd_high, scale):
    values = drawn(SplitShortfall(2.0, sd_low, sd_high, scale))
    bounds = np.linspace(values.min() - 1, values.max() + 1, 2000)
    total = split(above(bounds), 2.0, sd_low, sd_high, scale)
    assert_uniform(np.interp(values, bounds, np.exp(total)))


@pytest.mark.parametrize("shape", [-3.0, 0.0, 1.0, 8.0])
def test_draws_of_reported(shape):
    values = drawn(Reported(0.5, 0.35, shape))
    assert_uniform(stats.skewnorm.cdf(values, shape, 0.5, 0.35))


def test_draws_of_counted():
    values = drawn(Counted(-0.7), seen(np.zeros(SIZE), n=18))
    found = np.bincount(values.astype(int), minlength=19)
    expected = SIZE * stats.binom.pmf(np.arange(19), 18, stats.norm.cdf(-0.7))
    common = expected > 5
    statistic = ((found - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2.sf(statistic, common.sum() - 1) > 0.01
    assert found[~common].sum() < 10


def test_draws_of_many_parameters_have_a_row_for_each():
    """Fields (draw, row) give draws (draw, row), each from its own parameters, improbable pieces included."""
    mu = np.array([0.0, 50.0]) + np.zeros((4000, 1))
    fields = [np.broadcast_to(x, mu.shape) for x in ([0.1, 0.2], [0.3, 0.1], [20.0, 0.1])]
    found = SplitShortfall(mu, *fields).draw(np.random.default_rng(2), seen(np.zeros(2)))
    assert found.shape == mu.shape
    for k in range(2):
        alone = drawn(SplitShortfall(mu[0, k], *(f[0, k] for f in fields)))
        assert stats.ks_2samp(found[:, k], alone).pvalue > 0.001


def test_draws_scatter_each_row_around_its_own_prediction():
    mu, rng = np.array([0.0, 100.0, -50.0]), np.random.default_rng(1)
    for law in (
        Shortfall(mu, np.full(3, 0.1), np.full(3, 0.1)),
        SplitShortfall(mu, np.full(3, 0.1), np.full(3, 0.2), np.full(3, 0.1)),
        Reported(mu, np.full(3, 0.1), np.zeros(3)),
    ):
        np.testing.assert_allclose(law.draw(rng, seen(np.zeros(3))), mu, atol=2.0)
