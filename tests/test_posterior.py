"""The engine against NUTS (nutpie) and bridge sampling, on each real dynamic and the shipped data."""

from __future__ import annotations

from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

from forecast import batch, evidence, inference, model, reports
from forecast.compilation import compile_model
from forecast.dynamics import DYNAMICS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def engine():
    """The joint fit of the neutral worldview: compiled model, inputs of the model, and the fit."""
    inputs = batch.load_inputs(ROOT / "data", ROOT / "priors", "2026-06-30")
    worldview = inputs.worldviews["neutral"]
    declared = batch.declared_parameters(inputs.selection.rows, worldview)
    rows, names = inputs.selection.rows, list(DYNAMICS)
    compiled = compile_model(model.build(names, rows, declared, [1 / len(names)] * len(names)))
    data = model.data_values(declared)
    fit = inference.sample(
        compiled,
        1,
        inference.Settings(final_sweeps=8),
        data,
        draw_prior=lambda s, n: model.prior_draws(names, declared, rows, s, n)[0],
    )
    return compiled, worldview, rows, data, fit


SEEDS = (1, 2, 3)
REFERENCE_ERROR = 0.15
"""Largest error, in nats, of an evidence from NUTS draws that may judge others: a stuck chain makes it one."""


def reference(name, worldview, rows):
    """`nuts` with the first seed whose draws are good enough to bridge from, whatever they say."""
    for seed in SEEDS:
        theta, (log_evidence, error) = nuts(name, worldview, rows, seed)
        print(f"{name}: NUTS with seed {seed}, log evidence {log_evidence:.2f} +- {error:.2f}", flush=True)
        if error <= REFERENCE_ERROR:
            return theta, (log_evidence, error)
    return pytest.fail(f"no NUTS run of {name} is a reference: the error is {error:.2f} nats")


def nuts(name, worldview, rows, seed):
    """Draws of one dynamic by parameter, and its log evidence and error by bridge sampling."""
    import nutpie

    built = model.build([name], rows, batch.declared_parameters(rows, worldview, [name]), [1.0])
    trace = nutpie.sample(
        nutpie.compile_pymc_model(built),
        draws=1000,
        tune=500,
        chains=4,
        cores=2,
        seed=seed,
        progress_bar=False,
        adaptation="low_rank",
    )
    posterior = trace["posterior"].to_dataset()
    flat = np.concatenate([posterior[rv.name].values for rv in built.free_RVs], axis=-1)
    compiled = compile_model(built)
    return posterior["theta"], inference.one_shot(compiled, np.random.default_rng(1), flat, 0, compiled.data)


def moments(theta):
    """Mean and sd of every parameter, each with its Monte Carlo error, over chains of any length."""
    dataset = theta.to_dataset(dim="parameter") if theta.name is None else theta.to_dataset(name="x")
    result = {}
    for method, statistic in (("mean", "mean"), ("sd", "std")):
        error = az.mcse(dataset, method=method)["x"].values
        result[method] = getattr(theta, statistic)(("chain", "draw")).values, error
    return result


def leave_one_out(means: dict[str, np.ndarray], sd: float) -> xr.DataTree:
    """A run whose rows have these log likelihoods, (row,), give or take `sd` from draw to draw."""
    tree, rng = xr.DataTree(), np.random.default_rng(5)
    for name in DYNAMICS:
        drawn = means[name] + rng.normal(0, sd, (4, 250, len(means[name])))
        tree[f"{name}/posterior"] = xr.DataTree(xr.Dataset({"x": (("chain", "draw"), rng.random((4, 250)))}))
        rows = xr.Dataset({"rows": (("chain", "draw", "row"), drawn)})
        tree[f"{name}/log_likelihood"] = xr.DataTree(rows)
    return tree


def test_stacking_shares_weight_between_dynamics_that_each_predict_some_rows():
    means = {name: np.full(60, -5.0) for name in DYNAMICS}
    means["decaying"][:15], means["amdahl"][15:] = 0.0, 0.0
    found = batch.stacking(leave_one_out(means, 0.01), 1)["weights"]
    # Where each row has one dynamic that can tell, weights are shares of rows, give or take exp(-5).
    assert found["decaying"][0] == pytest.approx(0.25, abs=0.01)
    assert found["amdahl"][0] == pytest.approx(0.75, abs=0.01)
    assert found["decaying"][1] == pytest.approx(np.sqrt(0.25 * 0.75 / 60), rel=0.25)


def test_stacking_is_not_said_where_dynamics_predict_alike():
    means = {name: np.full(50, 0.07 * k / 3) for k, name in enumerate(DYNAMICS)}
    found = batch.stacking(leave_one_out(means, 0.01), 1)
    assert found["weights"] is None and found["apart"] == pytest.approx(3.5, abs=0.1)
    assert "predict a row from the others alike, 3.5 nats apart over 50 rows" in reports.stacking_words(found)


def test_stacking_is_not_said_where_draws_cannot_leave_a_row_out():
    means = {name: np.zeros(20) for name in DYNAMICS}
    assert batch.stacking(leave_one_out(means, 8.0), 1) == {"rows": 0, "apart": None, "weights": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMICS)
def test_posterior_and_evidence_agree_with_nuts(name, engine):
    compiled, worldview, rows, data, fit = engine
    k = list(DYNAMICS).index(name)
    drawn, (log_evidence, error) = reference(name, worldview, rows)
    ours = inference.describe(compiled, fit, k, data)["theta"].sel(parameter=drawn["parameter"].values)
    for method, (mine, e1) in moments(ours).items():
        theirs, e2 = moments(drawn)[method]
        away = np.abs(mine - theirs) / np.hypot(e1, e2)
        worst = drawn["parameter"].values[away.argmax()]
        print(f"{name}: largest difference of a posterior {method} {away.max():.1f} errors, of {worst}")
        assert away.max() < 4, worst
    sequential = evidence.mean_evidence(fit.log_evidence)[0][k]
    print(
        f"{name}: log evidence {sequential:.2f}, one-shot {fit.check[k, 0]:.2f}; from NUTS "
        f"{log_evidence:.2f} +- {error:.2f}"
    )
    assert abs(sequential - log_evidence) < 0.2
