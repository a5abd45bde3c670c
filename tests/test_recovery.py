"""Simulate data from each dynamic at parameters drawn from its prior, fit them, and look whether they are found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from forecast import calibration, foresight, free_values, inference, model
from forecast.compilation import compile_model
from forecast.dynamics import DYNAMICS
from forecast.indicators import prepared

SETTINGS = inference.Settings(islands=4, chains=48, final_sweeps=2)


def inside(name: str, rows: pd.DataFrame, simulations: int) -> np.ndarray:
    """Whether 80 % intervals of fits by the engine hold the truth, (simulation, parameter).

    Rows that are bounds or intervals, which say where a value lies and not what it is, do not count.
    """
    declared = model.ordered(model.parameters([name], rows))
    compiled = compile_model(model.build([name], rows, declared, [1.0]))

    def draw_prior(seed: int, size: int) -> np.ndarray:
        return free_values.prior_draws([name], declared, rows, seed, size)[0]

    values = compiled.outputs(draw_prior(1, simulations), np.zeros(simulations, int), compiled.data)
    truth = np.asarray(dict(zip(compiled.names, values, strict=True))["theta"])
    exact = prepared(rows).exact
    position = []
    for i in range(simulations):
        drawn = model.simulate_rows(name, rows, dict(zip(declared, truth[i], strict=True)), seed=i)
        data = {
            "value": np.where(exact, np.concatenate(drawn), compiled.data["value"]),
            "weight": exact.astype(float),
        }
        fit = inference.sample(compiled, i, SETTINGS, data, draw_prior=draw_prior)
        posterior = inference.describe(compiled, fit, 0, data)["theta"].values.reshape(-1, len(declared))
        position.append((posterior < truth[i]).mean(axis=0))
    return calibration.coverage(np.array(position), 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMICS)
def test_four_fifths_of_parameters_lie_in_their_interval(name, selection):
    found = inside(name, selection.rows, 50)
    print(f"{name}: 80 % intervals cover {found.mean():.3f}", flush=True)
    assert 0.7 <= found.mean() <= 0.9
    # Of a hundred parameters the worst of 50 simulations each lies within five standard errors.
    assert np.abs(found.mean(axis=0) - 0.8).max() < 5 * np.sqrt(0.16 / 50)


@pytest.fixture(scope="module")
def few(selection):
    """Rows of a few indicators."""
    names = ["time_horizon", "uplift_trial", "reported_multiplier"]
    return selection.rows[selection.rows["indicator"].isin(names)].reset_index(drop=True)


def test_a_few_simulations_of_a_few_indicators_are_recovered(few):
    # Two hundred and some intervals, those of one data set not independent.
    assert 0.65 <= inside("decaying", few, 4).mean() <= 0.95


def test_curves_of_fifty_simulations_lie_in_their_bands(few):
    """A quick `forecast calibrate`: all parameters, few indicators."""
    roles = {n: p.role for n, p in model.parameters(list(DYNAMICS), few).items()}
    fewer = dataclasses.replace(calibration.SETTINGS, chains=8)
    found = calibration.positions(calibration.prepare(few), "decaying", 50, settings=fewer)
    record = calibration.record("decaying", found, roles)
    # Of some fifty curves, several of which move together, 95 % should.
    assert record["inside"] >= 0.85 and not record["beyond"]
    assert record["log_evidence"] == []
    for level, share in record["coverage"].items():
        assert share["value"] == pytest.approx(float(level), abs=4 * share["se"])


def weights_of(rows: pd.DataFrame, simulations: int, settings: inference.Settings) -> dict:
    """What `calibrate --weights` finds."""
    roles = {n: p.role for n, p in model.parameters(list(DYNAMICS), rows).items()}
    program, records = calibration.prepare(rows, together=False), []
    for name in DYNAMICS:
        found = calibration.weighed(program, name, simulations, settings=settings)
        assert found.log_evidence.shape == (simulations, len(DYNAMICS), settings.islands)
        records.append(calibration.record(name, found, roles))
    return foresight.weight_record(records, "2026-06-30")


def test_few_rows_tell_little_of_the_dynamic_and_nothing_false(few):
    found = weights_of(few, 10, dataclasses.replace(calibration.WEIGHED, chains=16, final_sweeps=1))
    print(found["bits"], found["slope"], found["noise"])
    assert found["failed"] == [] and found["lost"] == 0
    # No data take anything from what is known, on average.
    assert -4 * found["bits"]["se"] < found["bits"]["value"] < 1.0


@pytest.mark.slow
def test_each_dynamic_made_the_data_as_often_as_its_weight_says(selection):
    found = weights_of(selection.rows, 40, calibration.WEIGHED)
    print(found["bits"], found["slope"], found["noise"], flush=True)
    assert found["noise"] < 0.3
    assert found["bits"]["value"] > 3 * found["bits"]["se"]
    assert abs(found["slope"]["value"] - 1) < 3 * found["slope"]["se"]
