"""Scores against closed forms and against each other, stacking by its optimum, and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forecast.scoring import LEVELS, Outcome, Student, block_bootstrap, score_draws, score_student, stack

NAN = np.nan


def outcome(low, high=None, threshold=NAN) -> Outcome:
    low = np.atleast_1d(np.asarray(low, float))
    high = low if high is None else np.atleast_1d(np.asarray(high, float))
    return Outcome(low, high, np.broadcast_to(np.asarray(threshold, float), low.shape).copy())


def student(size: int, df=5.0, loc=0.0, scale=1.0) -> Student:
    return Student(*(np.full(size, float(x)) for x in (df, loc, scale)))


def even(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


def test_draws_of_a_distribution_score_as_the_distribution():
    seen = outcome([-2.0, 0.3, 1.0, 4.0], threshold=0.5)
    exact = score_student(seen, student(4))
    draws = stats.t(5).ppf((np.arange(20_000) + 0.5) / 20_000)
    found = score_draws(seen, exact["log_score"].to_numpy(), np.tile(draws[:, None], 4), even(20_000), 1)
    assert list(found) == list(exact)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], atol=2e-3, err_msg=name)


def test_weights_of_draws_count_as_repetitions():
    rng = np.random.default_rng(1)
    draws, seen = rng.normal(size=(6, 3)), outcome([0.0, 1.0, -1.0], threshold=0.2)
    weight = np.array([3, 1, 1, 2, 1, 2]) / 10
    repeated = np.repeat(draws, [3, 1, 1, 2, 1, 2], axis=0)
    a = score_draws(seen, np.zeros(3), draws, weight, 1)
    b = score_draws(seen, np.zeros(3), repeated, even(10), 1)
    for name in ("crps", "pit", "probability", "brier"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-12, err_msg=name)


def test_a_bound_scores_its_probability_and_nothing_else():
    seen = outcome([1.0, -np.inf, 30.0, 0.0], [np.inf, 1.0, np.inf, 1.0], threshold=[0.5, 0.5, NAN, 0.5])
    found = score_student(seen, student(4))
    law = stats.t(5)
    expected = [law.sf(1), law.cdf(1), law.sf(30), law.cdf(1) - law.cdf(0)]
    np.testing.assert_allclose(found["log_score"], np.log(expected), rtol=1e-9)
    assert found[["crps", "pit", "covered_80"]].isna().all(axis=None)
    # At least 1 is above 0.5; at most 1, and between 0 and 1, may or may not be.
    np.testing.assert_array_equal(found["event"], [1.0, NAN, NAN, NAN])
    np.testing.assert_array_equal(np.isnan(found["brier"]), [False, True, True, True])


def test_no_forecast_has_no_score():
    found = score_student(outcome([1.0, 2.0], threshold=0.0), Student(*np.full((3, 2), NAN)))
    assert found.isna().all(axis=None)


def test_the_truth_scores_best_and_is_covered():
    rng = np.random.default_rng(3)
    y = rng.standard_t(250, size=4000)
    seen = outcome(y, threshold=0.5)
    true, wrong = (score_student(seen, student(4000, 250, loc, sd)) for loc, sd in ((0, 1), (0.5, 0.5)))
    better = {"log_score": 1, "crps": -1, "brier": -1}
    for name, sign in better.items():
        gap = sign * (true[name] - wrong[name])
        assert gap.mean() > 4 * gap.std() / np.sqrt(len(gap)), name
    for level in LEVELS:
        rate = true[f"covered_{100 * level:.0f}"].mean()
        assert abs(rate - level) < 4 * np.sqrt(level * (1 - level) / 4000)
    assert stats.kstest(true["pit"], "uniform").pvalue > 0.001


def test_ties_of_counts_get_random_ranks():
    """The PIT of a count is uniform although its distribution function jumps."""
    rng = np.random.default_rng(4)
    y, draws = rng.binomial(4, 0.4, 3000).astype(float), rng.binomial(4, 0.4, (2000, 3000)).astype(float)
    found = score_draws(outcome(y), np.zeros(3000), draws, even(2000), 5)
    assert stats.kstest(found["pit"], "uniform").pvalue > 0.001


def test_stacking_finds_the_mixture_that_made_the_values():
    rng = np.random.default_rng(5)
    y = np.where(rng.random(20_000) < 0.3, rng.normal(-1, 1, 20_000), rng.normal(1, 1, 20_000))
    log_density = stats.norm([-1, 1, 6], 1).logpdf(y[:, None])
    weight = stack(log_density)
    np.testing.assert_allclose(weight, [0.3, 0.7, 0.0], atol=0.03)
    # At the optimum no component can gain: E[p_k/p] is 1 where weight stands and at most 1 elsewhere.
    ratio = (np.exp(log_density) / (np.exp(log_density) @ weight)[:, None]).mean(axis=0)
    np.testing.assert_allclose(ratio[:2], 1.0, atol=1e-3)
    assert ratio[2] <= 1


def test_stacking_without_values_is_even_and_survives_impossible_components():
    np.testing.assert_allclose(stack(np.zeros((0, 4))), 0.25)
    weight = stack(np.array([[-1.0, -np.inf], [-2.0, -5000.0]]))
    np.testing.assert_allclose(weight, [1.0, 0.0], atol=1e-6)


def test_bootstrap_of_independent_origins_has_the_normal_width():
    rng = np.random.default_rng(6)
    x, origin = rng.normal(0.3, 1, 400), np.arange(400)
    low, high = block_bootstrap(origin, 1, lambda w: float(w @ x / w.sum()))
    half = 1.645 * x.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert (high + low) / 2 == pytest.approx(x.mean(), abs=0.1 * half)


def test_bootstrap_in_blocks_knows_that_neighbours_agree():
    rng = np.random.default_rng(7)
    x, origin = np.repeat(rng.normal(size=100), 4), np.arange(400)

    def width(length: int) -> float:
        low, high = block_bootstrap(origin, length, lambda w: float(w @ x / w.sum()))
        return high - low

    assert width(8) > 1.5 * width(1)


def test_rows_of_one_origin_stay_together():
    # Within an origin everything is the same, so a hundred rows know no more than one.
    x, origin = np.repeat([0.0, 1.0, 2.0, 3.0], 100), np.repeat(np.arange(4), 100)
    one = block_bootstrap(np.arange(4), 1, lambda w: float(w @ np.arange(4.0) / w.sum()))
    assert block_bootstrap(origin, 1, lambda w: float(w @ x / w.sum())) == pytest.approx(one)


def test_too_few_origins_have_no_interval():
    assert block_bootstrap(np.array([0, 0, 1, 1]), 1, lambda w: 0.0) is None
    assert block_bootstrap(np.arange(5), 2, lambda w: 0.0) is None
