"""Simulate data from each dynamic at parameters drawn from its prior, fit them, and look whether they are found."""

from __future__ import annotations

import numpy as np
import pytest

from forecast import inference, model
from forecast.compilation import compile_model
from forecast.dynamics import DYNAMICS
from forecast.indicators import INDICATORS

SMALL = inference.Settings(islands=4, chains=64, final_sweeps=2)


def coverage(name: str, rows, simulations: int, level: float = 0.8) -> np.ndarray:
    """Whether the central interval of each parameter holds the truth, (simulation, parameter)."""
    declared = model.ordered(model.parameters([name], rows))
    compiled = compile_model(model.build([name], rows, declared, [1.0]))

    def draw_prior(seed, size):
        return model.prior_draws([name], declared, rows, seed, size)[0]

    x = draw_prior(1, simulations)
    theta = dict(
        zip(compiled.names, compiled.outputs(x, np.zeros(simulations, int), compiled.data), strict=True)
    )
    truth = np.asarray(theta["theta"])
    # Bounds and intervals say where a value lies, not what it is, so only plain values are simulated.
    exact = np.concatenate(
        [INDICATORS[n].prepare(rows[rows["indicator"] == n]).exact for n in dict.fromkeys(rows["indicator"])]
    )
    found = []
    for i in range(simulations):
        drawn = model.simulate_rows(name, rows, dict(zip(declared, truth[i], strict=True)), seed=i)
        data = {
            "value": np.where(exact, np.concatenate(drawn), compiled.data["value"]),
            "weight": exact.astype(float),
        }
        fit = inference.sample(compiled, i, SMALL, data, draw_prior=draw_prior)
        posterior = inference.describe(compiled, fit, 0, data)["theta"].values.reshape(-1, len(declared))
        low, high = np.quantile(posterior, [(1 - level) / 2, (1 + level) / 2], axis=0)
        found.append((low <= truth[i]) & (truth[i] <= high))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMICS)
def test_four_fifths_of_parameters_lie_in_their_interval(name, selection):
    inside = coverage(name, selection.rows, 50)
    print(f"{name}: 80 % intervals cover {inside.mean():.3f}; core {inside[:, :17].mean():.3f}")
    assert 0.7 <= inside.mean() <= 0.9
    # Of a hundred parameters the worst of 50 simulations each lies within five standard errors.
    assert np.abs(inside.mean(axis=0) - 0.8).max() < 5 * np.sqrt(0.16 / 50)


def test_a_few_simulations_of_a_few_indicators_are_recovered(selection):
    few = ["time_horizon", "uplift_trial", "reported_multiplier"]
    rows = selection.rows[selection.rows["indicator"].isin(few)].reset_index(drop=True)
    inside = coverage("decaying", rows, 4)
    # Two hundred and some intervals, those of one data set not independent.
    assert 0.65 <= inside.mean() <= 0.95
