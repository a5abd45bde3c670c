"""Simulate data from each dynamic at parameters drawn from its prior, fit them, and look whether they are found."""

from __future__ import annotations

import numpy as np
import pytest

from forecast import calibration
from forecast.dynamics import DYNAMICS

SIMULATIONS = 60


@pytest.fixture(scope="module")
def program(selection):
    return calibration.prepare(selection.rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMICS)
def test_four_fifths_of_parameters_lie_in_their_interval(name, program):
    inside = calibration.coverage(calibration.positions(program, name, SIMULATIONS).position, 0.8)
    print(f"{name}: 80 % intervals cover {inside.mean():.3f}", flush=True)
    assert 0.7 <= inside.mean() <= 0.9
    # Of a hundred parameters the worst of some simulations each lies within five standard errors.
    assert np.abs(inside.mean(axis=0) - 0.8).max() < 5 * np.sqrt(0.16 / SIMULATIONS)


def test_a_batch_of_simulations_of_a_few_indicators_is_recovered(selection):
    few = ["time_horizon", "uplift_trial", "reported_multiplier"]
    rows = selection.rows[selection.rows["indicator"].isin(few)].reset_index(drop=True)
    found = calibration.positions(calibration.prepare(rows), "decaying", 20)
    inside = calibration.coverage(found.position, 0.8)
    # A thousand intervals, those of one data set not independent.
    assert 0.72 <= inside.mean() <= 0.88
    assert found.believed.shape == (20, 4) and found.believed.sum(axis=1) == pytest.approx(1.0)
