"""The engine against NUTS (nutpie) and bridge sampling, on each real dynamic and the shipped data."""

from __future__ import annotations

from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

from forecast import batch, evidence, free_values, inference, model, reports
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
        draw_prior=lambda s, n: free_values.prior_draws(names, declared, rows, s, n)[0],
    )
    return compiled, worldview, rows, data, fit


SEEDS = (1, 2, 3, 4, 5)
REFERENCE_ERROR = 0.15
"""Largest error, in nats, of an evidence from NUTS draws that may judge others."""
CONVERGED = 1.05
"""Largest R-hat of a run of NUTS that may judge others: some have a chain that is stuck."""


def reference(name, worldview, rows):
    """Draws by parameter from as many converged runs of NUTS as the evidence needs, and that with its error.

    Runs are judged by their chains alone, and never by what they say.
    """
    import nutpie

    built = model.build([name], rows, batch.declared_parameters(rows, worldview, [name]), [1.0])
    program, compiled = nutpie.compile_pymc_model(built), compile_model(built)
    free, theta = [], []
    for seed in SEEDS:
        posterior = nutpie.sample(
            program,
            draws=1000,
            tune=500,
            chains=4,
            cores=2,
            seed=seed,
            progress_bar=False,
            adaptation="low_rank",
        )["posterior"].to_dataset()
        worst = float(az.rhat(posterior["theta"].to_dataset(name="theta"))["theta"].max())
        print(f"{name}: NUTS with seed {seed}, largest R-hat {worst:.3f}", flush=True)
        if worst > CONVERGED:
            continue
        free.append(np.concatenate([posterior[rv.name].values for rv in built.free_RVs], axis=-1))
        theta.append(posterior["theta"])
        chains = np.concatenate(free)
        found = inference.one_shot(compiled, np.random.default_rng(1), chains, 0, compiled.data)
        print(f"{name}: log evidence from {len(chains)} chains {found[0]:.2f} +- {found[1]:.2f}", flush=True)
        if found[1] <= REFERENCE_ERROR:
            joined = xr.concat(theta, "chain").assign_coords(chain=np.arange(len(chains)))
            return joined, found
    return pytest.fail(f"no runs of NUTS with {name} are a reference")


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


@pytest.mark.parametrize("moves", ["good", "bad"])
def test_a_fit_that_misses_the_gate_is_pooled_with_another_unless_its_moves_were_bad(moves, monkeypatch):
    seeds: list[int] = []

    def sample(compiled, seed, settings, *_):
        seeds.append(seed)
        stage = inference.Stage(1.0, 0.8, 0.5 if moves == "good" or len(seeds) > 1 else 0.0, 5)
        # The first has a tenth of the distinct draws.
        x = np.random.default_rng(seed).standard_normal((4, 8, 40 if len(seeds) == 1 else 400, 1))
        draws = np.repeat(x, 10, axis=2) if len(seeds) == 1 else x
        return inference.Fit(draws, np.zeros((4, 8)), np.zeros((4, 2)), (stage,), 0.1)

    def describe(compiled, fit, k, data):
        return xr.Dataset({"theta": (("chain", "draw", "parameter"), fit.draws[k])}, {"parameter": ["x"]})

    monkeypatch.setattr(inference, "sample", sample)
    monkeypatch.setattr(inference, "describe", describe)
    data = {"centring": np.zeros((2, 1))}
    judged = batch.sample_until_sound(None, {"x": None}, None, data, inference.Settings(), 1, None)
    assert not judged.failed and len(set(seeds)) == 2 and len(judged.earlier) == 1
    assert judged.fit.draws.shape[2] == (800 if moves == "good" else 400)


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
