"""The mathematics of absorption against closed forms and identities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from forecast import absorption
from forecast.absorption import Estimate, Moments, jackknife
from forecast.schema import BELT

ROLES = ("core", "timing", "inputs", "production", "measurement", "calibration", "timing", "core")


def some_moments(seed: int, count: int = len(ROLES)) -> Moments:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((count, count)) / np.sqrt(count) + np.eye(count)
    return Moments(rng.standard_normal(count), root @ root.T)


def islands(x: np.ndarray, count: int = 8) -> np.ndarray:
    return x.reshape(count, -1, *x.shape[1:])


# Divergences ----------------------------------------------------------------------------------------


def test_divergence_of_one_gaussian_from_another_is_the_closed_form():
    one = Moments(np.array([1.0]), np.array([[0.25]]))
    two = Moments(np.array([0.0]), np.array([[4.0]]))
    assert absorption.divergence(one, two) == pytest.approx(np.log(4.0) + (0.25 + 1.0) / 8 - 0.5)
    assert absorption.divergence(one, one) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_parts_of_an_account_sum_to_the_whole(a, b):
    after, before = some_moments(a), some_moments(b)
    found = absorption.split(after, before, ROLES)
    assert found.sum() == pytest.approx(absorption.divergence(after, before))
    assert (found[[0, 5]] >= -1e-9).all() and found[1:5].sum() >= -1e-9
    core = absorption.divergence(after.of([0, 7]), before.of([0, 7]))
    assert found[0] == pytest.approx(core)


def test_independent_assumptions_take_in_what_each_does_alone():
    after = Moments(np.arange(8) / 4, np.diag(np.linspace(0.2, 1.0, 8)))
    found = absorption.split(after, absorption.standard(8), ROLES)
    alone = [absorption.divergence(after.of([i]), absorption.standard(1)) for i in range(8)]
    np.testing.assert_allclose(
        found, [alone[0] + alone[7], alone[1] + alone[6], alone[2], alone[3], alone[4], alone[5]]
    )


def test_a_parameter_that_was_not_there_before_had_its_prior():
    before = some_moments(1, 2)
    found = absorption.aligned(("new", "b", "a"), before, ("a", "b"))
    np.testing.assert_allclose(found.mean, [0.0, before.mean[1], before.mean[0]])
    np.testing.assert_allclose(found.covariance[0], [1.0, 0.0, 0.0])
    assert found.covariance[1, 2] == before.covariance[1, 0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=16, max_size=16))
def test_shapley_shares_sum_to_the_total_and_a_player_that_adds_nothing_gets_nothing(values):
    from itertools import combinations

    every = [frozenset(c) for size in range(5) for c in combinations(BELT, size)]
    worth = dict(zip(every, values, strict=True))
    shares = absorption.shapley(worth, BELT)
    assert sum(shares.values()) == pytest.approx(worth[frozenset(BELT)] - worth[frozenset()])
    idle = {c: worth[c - {"inputs"}] for c in every}
    assert absorption.shapley(idle, BELT)["inputs"] == pytest.approx(0.0, abs=1e-12)


def test_last_moved_is_what_an_assumption_adds_to_all_others():
    after = some_moments(3)
    blocks = [[0], [2], [1, 4]]
    fast = absorption.moved(after, None, blocks)
    for j, b in enumerate(blocks):
        rest = [i for i in range(len(ROLES)) if i not in b]
        whole = absorption.divergence(after, absorption.standard(len(ROLES)))
        without = absorption.divergence(after.of(rest), absorption.standard(len(rest)))
        assert fast.last[j] == pytest.approx(whole - without)
    assert fast.shift[0] == after.mean[0] and np.isnan(fast.shift[2])


def test_two_assumptions_that_stand_in_for_each_other_have_a_ridge_between_first_and_last():
    ridge = Moments(np.zeros(2), np.array([[1.0, -0.99], [-0.99, 1.0]]))
    found = absorption.moved(ridge, None, [[0], [1]])
    assert (found.first < 1e-9).all() and (found.last > 1.5).all()


# Errors ---------------------------------------------------------------------------------------------


def test_the_jackknife_takes_the_bias_out_of_a_divergence_in_many_dimensions():
    count, dimension = 2000, 60
    found = []
    for seed in range(20):
        x = islands(np.random.default_rng(seed).standard_normal((count, dimension)))
        found.append(
            jackknife(
                lambda d: absorption.divergence(absorption.moments(d), absorption.standard(dimension)), x
            )
        )
    biased = dimension * (dimension + 3) / 4 / count
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 0.1 * biased
    assert 0.5 < np.mean([f.se for f in found]) / values.std() < 2.0


def test_the_error_of_a_mean_is_that_of_its_islands():
    x = np.random.default_rng(1).standard_normal((8, 50)) + np.arange(8)[:, None]
    found = jackknife(np.mean, x)
    assert found.value == pytest.approx(x.mean())
    assert found.se == pytest.approx(x.mean(1).std(ddof=1) / np.sqrt(8))


def test_errors_of_sums_and_differences_add_in_quadrature():
    one, two = Estimate(3.0, 0.3), Estimate(1.0, 0.4)
    assert (one - two) == (2.0, pytest.approx(0.5)) and (one + two) == (4.0, pytest.approx(0.5))


# Reliance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "law", [stats.norm(0.7, 0.4), stats.skewnorm(3, -0.8, 0.9), stats.gumbel_r(0.2, 0.5)]
)
def test_the_density_of_draws_is_right_for_skewed_ones_too(law):
    x = law.rvs(20_000, random_state=1)
    for at in (law.median(), 0.0, law.ppf(0.9)):
        assert absorption.log_density(x, at) == pytest.approx(law.logpdf(at), abs=0.12)


@pytest.mark.parametrize("observed", [-1.0, 0.0, 0.5, 1.5])
def test_reliance_is_the_evidence_lost_by_freezing_in_a_conjugate_model(observed):
    """y ~ N(a, .7^2), a ~ N(0, 1): the evidence free and with a = 0 are both closed forms."""
    sd = 0.7
    free = stats.norm.logpdf(observed, 0, np.hypot(1, sd))
    frozen = stats.norm.logpdf(observed, 0, sd)
    variance = 1 / (1 + 1 / sd**2)
    x = stats.norm.rvs(variance * observed / sd**2, np.sqrt(variance), size=16_000, random_state=2)
    found = absorption.reliance(islands(x))
    assert found is not None
    assert found.value == pytest.approx(free - frozen, abs=0.02 + 3 * found.se)
    # Freezing at a good value saves its price.
    assert (found.value < 0) == (abs(observed) < 0.8)


def test_no_density_is_read_off_draws_far_away():
    x = islands(stats.norm.rvs(2.0, 0.5, size=4000, random_state=1))
    assert absorption.reliance(x) is None
    assert absorption.reliance(x, at=1.5) is not None


# Reweighting ----------------------------------------------------------------------------------------


def test_reweighting_finds_the_evidence_of_a_new_row():
    """theta ~ N(0, 1), y = .8 ~ N(theta, 1): the evidence is N(.8; 0, 2)."""
    theta = islands(np.random.default_rng(1).standard_normal(16_000))
    found = absorption.reweight(stats.norm.logpdf(0.8, theta, 1))
    assert found.k < absorption.GOOD_K
    expected = stats.norm.logpdf(0.8, 0, np.sqrt(2))
    assert found.change.value == pytest.approx(expected, abs=3 * found.change.se + 0.01)
    assert found.values.mean() == pytest.approx(found.change.value) and found.values.shape == (8,)
    mean = (np.exp(found.log_weight) * theta).sum()
    assert mean == pytest.approx(0.4, abs=0.03)


def test_reweighting_that_hangs_on_a_few_draws_says_so():
    theta = islands(np.random.default_rng(1).standard_normal(4000))
    assert absorption.reweight(stats.norm.logpdf(4.5, theta, 0.05)).k > absorption.GOOD_K


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_equal_and_impossible_ratios_need_no_smoothing(share):
    """A prior cut to a part of itself: draws in it count alike, the others not at all."""
    ratio = np.where(np.arange(4000) % 10 < 10 * (1 - share), 0.3, -np.inf).reshape(8, -1)
    found = absorption.reweight(ratio)
    assert found.k < 0 and found.change.value == pytest.approx(0.3 + np.log(1 - share))


# Verdicts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "se", "expected"),
    [
        (3.2, 0.1, "separated"),
        (-3.2, 0.1, "separated"),
        (3.2, 0.2, "leaning"),
        (-1.3, 0.05, "leaning"),
        (1.3, 0.2, "not identified"),
        (0.0, 0.0, "not identified"),
    ],
)
def test_a_verdict_takes_two_errors_off_a_bayes_factor(value, se, expected):
    assert absorption.verdict(value, se) == expected


def test_knowing_what_two_posteriors_agree_on_tells_nothing_apart():
    one, two = some_moments(1, 3), some_moments(1, 3)
    assert absorption.pinned(one, two, [0]) == pytest.approx(0.0, abs=1e-12)
    apart = Moments(two.mean + np.array([2.0, 0.0, 0.0]), two.covariance)
    expected = 2.0 / two.covariance[0, 0]
    assert absorption.pinned(one, apart, [0]) == pytest.approx(expected)


def test_weights_that_do_not_move_decide_nothing():
    w = np.array([0.1, 0.2, 0.7, 0.0])
    assert absorption.decided(w, np.array([0.1, 0.2, 0.7, 0.0])) == 0.0
    assert absorption.decided(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert absorption.total_variation(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == 0.75
