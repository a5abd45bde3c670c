"""Simulate data from each dynamic at parameters drawn from its prior, fit them, and look whether they are found."""

from __future__ import annotations

import numpy as np
import pytest

from forecast import calibration
from forecast.dynamics import DYNAMICS


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMICS)
def test_four_fifths_of_parameters_lie_in_their_interval(name, selection):
    inside = calibration.coverage(calibration.positions(name, selection.rows, 50)[1], 0.8)
    print(f"{name}: 80 % intervals cover {inside.mean():.3f}", flush=True)
    assert 0.7 <= inside.mean() <= 0.9
    # Of a hundred parameters the worst of 50 simulations each lies within five standard errors.
    assert np.abs(inside.mean(axis=0) - 0.8).max() < 5 * np.sqrt(0.16 / 50)


def test_a_few_simulations_of_a_few_indicators_are_recovered(selection):
    few = ["time_horizon", "uplift_trial", "reported_multiplier"]
    rows = selection.rows[selection.rows["indicator"].isin(few)].reset_index(drop=True)
    inside = calibration.coverage(calibration.positions("decaying", rows, 4)[1], 0.8)
    # Two hundred and some intervals, those of one data set not independent.
    assert 0.65 <= inside.mean() <= 0.95
