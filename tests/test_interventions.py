"""Interventions on compute: what a cap changes of a path, what it leaves, and how it is told."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest

from forecast import batch, interventions, prediction
from forecast.dynamics import DYNAMICS
from forecast.paths import Cap, make_grid
from forecast.schema import InputError
from sampled import prior_run, save

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "data" / "interventions").glob("*.toml"))
GOOD = 'title = "t"\nreason = "r"\nfrom = 2027-07-01\nmost = 1.5\n'


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """A stored run whose draws are the prior's, and its folder."""
    rows = inputs.selection.rows
    found = prior_run(inputs.worldviews["neutral"], rows, inputs, islands=4, draws=100)
    found = dataclasses.replace(found, manifest=found.manifest | {"as_of": inputs.as_of})
    return found, save(found, tmp_path_factory.mktemp("store"))


def path(run, name, cap=None):
    return DYNAMICS[name](make_grid(), run[0].posteriors[name].theta, cap)


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_cap_that_never_binds_changes_nothing(name, run):
    for mine, other in zip(path(run, name)[1:], path(run, name, Cap(2027.0, 50.0))[1:], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DYNAMICS)
def test_nothing_changes_before_the_cap(name, run):
    free, capped = path(run, name), path(run, name, Cap(2028.0, 0.0))
    before = free.time <= 2028.0
    for field in ("s", "k", "e", "eD", "log_m"):
        np.testing.assert_allclose(
            getattr(capped, field)[:, before], getattr(free, field)[:, before], rtol=1e-10, atol=1e-10
        )
    later = free.time > 2028.0
    assert (capped.k[:, later] < free.k[:, later]).all()


@pytest.mark.parametrize(("start", "growth"), [(2026.5, 0.3), (2028.1, 0.0), (2030.6, 0.7)])
def test_compute_is_the_integral_of_its_capped_growth(start, growth, run):
    theta = run[0].posteriors["amdahl"].theta
    fine = make_grid(per_year=400)
    k = DYNAMICS["amdahl"](make_grid(), theta, Cap(start, growth)).k
    middle = (fine[1:] + fine[:-1]) / 2
    rate = np.where(middle < theta["ts"][:, None], theta["gK1"][:, None], theta["gK2"][:, None])
    rate = np.where(middle >= start, np.minimum(rate, growth), rate)
    summed = np.concatenate([np.zeros((len(rate), 1)), np.cumsum(rate / 400, axis=1)], axis=1)
    np.testing.assert_allclose(k, summed[:, ::100], atol=0.01)


def test_less_compute_never_brings_a_milestone_of_automation_nearer(inputs, run):
    some = {n: m for n, m in inputs.milestones.items() if n.startswith(("m_", "F_", "H_"))}
    for name in DYNAMICS:
        theta = run[0].posteriors[name].theta
        free, capped = (
            prediction.predict(name, theta, some, cap=cap)["passage"].values
            for cap in (None, Cap(2027.0, 0.0))
        )
        assert (capped >= free).all() and (capped > free).any()


def test_a_plateau_under_a_cap_is_none_while_compute_grows_at_its_old_rate(inputs, run):
    (plateau,) = some = {m: x for m, x in inputs.milestones.items() if m == "plateau_before_compute_slows"}
    theta = run[0].posteriors["decaying"].theta
    for growth, slowed in ((0.0, True), (0.9, True), (1.1, False)):
        cap = Cap(2027.0, growth)
        found = prediction.predict("decaying", theta, some, cap=cap)["passage"].sel(milestone=plateau).values
        after = np.isfinite(found) & (found > 2027.0)
        assert after.any() != slowed


def test_a_comparison_keeps_the_posterior_and_moves_the_milestones(inputs, run):
    worldview = inputs.worldviews["neutral"]
    asked = interventions.Intervention("t", "r", dt.date(2027, 1, 1), 1.0)
    found = interventions.compare(run[1], inputs, worldview, worldview, asked)
    assert len(found["milestones"]) == len(inputs.milestones)
    one = next(m for m in found["milestones"] if m["id"] == "m_10")
    for date, change in one["change"]["by"].items():
        assert change == pytest.approx(one["with"]["by"][date] - one["without"]["by"][date])
        # Nothing was learnt, so the mixture is that of today's weights: here all alike.
        mixed = np.mean([each[date] for each in one["with"]["by_dynamic"].values()])
        assert one["with"]["by"][date] == pytest.approx(mixed)
    assert one["change"]["by"]["2035-01-01"] < 0
    # The same draws on both sides make the change surer than the difference of two runs.
    apart = np.hypot(one["with"]["by_se"]["2035-01-01"], one["without"]["by_se"]["2035-01-01"])
    assert one["change"]["by_se"]["2035-01-01"] < apart


@pytest.mark.parametrize("file", SHIPPED, ids=lambda p: p.stem)
def test_shipped_interventions_load(file, inputs):
    assert interventions.load_intervention(file, inputs.as_of).cap.start == 2027.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("most", "moste", "unknown field 'moste'; did you mean 'most'"),
        ('"r"', '""', "reason is missing"),
        ("2027-07-01", "2026-01-01", "is not after 2026-06-30"),
        ("2027-07-01", '"soon"', "give a day without quotes"),
        ("1.5", "0.5", "most: give the largest factor"),
        ("1.5", "nan", "most: give the largest factor"),
        ("most = 1.5", "most =", "not TOML"),
    ],
)
def test_a_bad_intervention_is_refused(old, new, said, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as error:
        interventions.load_intervention(file, "2026-06-30")
    assert said in str(error.value) and "mine.toml" in str(error.value)


def test_the_command_says_what_a_cap_does(run, command_line, monkeypatch):
    monkeypatch.setattr(batch, "update", lambda *a, **k: [run[1]])
    monkeypatch.setenv("COLUMNS", "160")
    words = ["update", "--worldview", "neutral", "--compute", SHIPPED[0]]
    code, out, err = command_line(*words)
    assert code == 0, err
    assert "without -> with" in out and "Compute stands still" in out and "explosive" in out
    code, out, _ = command_line(*words, "--format", "json")
    (found,) = json.loads(out)
    assert code == 0 and found["compute"]["most"] == 1.0
