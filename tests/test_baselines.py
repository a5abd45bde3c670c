"""Trend and random walk against closed forms, calibration on series of their own kind, and no look-ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from forecast import baselines
from forecast.baselines import BASELINES, LEAST_ROWS, predict, quantities, random_walk, series, trend


def test_trend_is_the_textbook_prediction_interval():
    time, value = np.array([2024.0, 2024.3, 2024.9, 2025.1, 2025.6]), np.array([1.0, 1.4, 1.2, 2.0, 2.1])
    found = trend(time, value, np.array([2026.0]))
    fit = stats.linregress(time, value)
    assert found.loc[0] == pytest.approx(fit.intercept + fit.slope * 2026.0)
    assert found.df[0] == 3
    residual = value - fit.intercept - fit.slope * time
    X = np.stack([np.ones(5), time], axis=1)
    x = np.array([1.0, 2026.0])
    variance = residual @ residual / 3 * (1 + x @ np.linalg.solve(X.T @ X, x))
    assert found.scale[0] == pytest.approx(np.sqrt(variance), rel=1e-5)


def test_random_walk_by_hand():
    # Quarters 0, 1, 3, 4 with means 1, 2, 3, 5: drift 1, residual steps 0, -1 (over two), 1.
    time = np.array([2025.0, 2025.25, 2025.30, 2025.75, 2026.0])
    value = np.array([1.0, 1.5, 2.5, 3.0, 5.0])
    found = random_walk(time, value, np.array([2026.5, 2026.1, 2025.5]))
    variance = (0 + 1 / 2 + 1) / 2
    np.testing.assert_allclose(found.loc, [7.0, 5.0, 3.0])
    far = np.array([2.0, 1.0, 1.0])
    np.testing.assert_allclose(found.scale, np.sqrt(variance * (far + far**2 / 4)))
    np.testing.assert_array_equal(found.df, 2)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_calibrated_on_their_own_kind_of_series(name):
    rng = np.random.default_rng(1)
    time, covered = 2024 + np.arange(9) / 4, []
    for _ in range(1500):
        noise = rng.normal(size=10)
        y = 0.4 * np.arange(10) + (np.cumsum(noise) if name == "random_walk" else noise)
        one = BASELINES[name](time, y[:9], np.array([2024 + 9 / 4]))
        covered.append(abs(stats.t(one.df[0]).cdf((y[9] - one.loc[0]) / one.scale[0]) - 0.5) < 0.4)
    assert abs(np.mean(covered) - 0.8) < 4 * np.sqrt(0.16 / 1500)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("count", range(LEAST_ROWS))
def test_with_too_few_rows_there_is_no_forecast(name, count):
    time = 2024 + np.arange(count) / 4
    found = BASELINES[name](time, np.arange(count) ** 2.0, np.array([2026.0, 2027.0]))
    assert np.isnan(found).all() and np.shape(found) == (3, 2)


@pytest.mark.parametrize("name", BASELINES)
def test_a_series_without_error_or_extent_has_no_forecast(name):
    line = 2024 + np.arange(6) / 4
    assert np.isnan(BASELINES[name](line, np.arange(6.0), np.array([2026.0]))).all()
    assert np.isnan(BASELINES[name](np.full(6, 2024.0), np.arange(6.0), np.array([2026.0]))).all()


def test_series_join_suites_and_part_companies(selection):
    rows = selection.rows
    names = series(rows)
    time_horizon = rows["indicator"] == "time_horizon"
    assert rows[time_horizon]["indicator_id"].nunique() == 2 and names[time_horizon].nunique() == 1
    code = rows["indicator_id"] == "ai_code_share"
    assert (
        set(names[code]) == {f"ai_code_share/{c}" for c in rows["company"][code]}
        and names[code].nunique() > 1
    )
    assert set(quantities(rows[rows["indicator"] == "ladder"])) == set(
        rows[rows["indicator"] == "ladder"]["indicator_id"]
    )


@pytest.mark.parametrize("name", BASELINES)
def test_a_forecast_sees_only_known_rows_of_its_series(selection, name):
    rng = np.random.default_rng(2)
    rows = selection.rows.sort_values("published_at", ignore_index=True)
    value, known, targets = rng.normal(size=len(rows)), np.arange(200), np.arange(200, len(rows))
    before = predict(name, rows, value, known, targets)
    poisoned = np.where(np.arange(len(rows)) < 200, value, 1e9)
    for a, b in zip(before, predict(name, rows, poisoned, known, targets), strict=True):
        np.testing.assert_array_equal(a, b)
    one = series(rows).to_numpy() == "capability_index"
    alone = BASELINES[name](
        rows["time"].to_numpy()[known][one[known]],
        value[known][one[known]],
        rows["time"].to_numpy()[targets][one[targets]],
    )
    np.testing.assert_array_equal(before.loc[one[targets]], alone.loc)
    assert np.isfinite(alone.loc).all() and len(alone.loc) > 0


def test_bounds_and_counts_are_left_out(selection):
    rows = pd.concat([selection.rows[selection.rows["indicator_id"] == "swe_pro"]] * 2, ignore_index=True)
    value = np.linspace(0, 1, len(rows)) ** 2
    value[0] = np.nan
    found = baselines.predict("trend", rows, value, np.arange(6), np.array([len(rows) - 1]))
    other = baselines.predict("trend", rows, value, np.arange(1, 6), np.array([len(rows) - 1]))
    np.testing.assert_array_equal(found, other)
