"""Simulated worlds: truths the engine does not know, reweighting and stepping alike, and the commands."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, logsumexp
from scipy.stats import norm

from forecast import batch, beliefs, calibration, foresight, model, readings, scenarios, worlds
from forecast import deviation as dev
from forecast.compilation import log_density
from forecast.disclosure import load_plan
from forecast.dynamics import DYNAMICS
from forecast.indicators import prepared
from sampled import pooled, prior_run

ROOT = Path(__file__).parents[1]
PLAN = """
[series.pace]
indicator = "audited_pace"
every = 12
value = 1.5
interval = [0.9, 2.5]
[series.time]
indicator = "human_time_share"
every = 12
value = 50.0
interval = [25.0, 75.0]
[tiers.A]
title = "audited pace"
reason = "-"
series = ["pace"]
[tiers.B]
title = "and human time"
reason = "-"
extends = "A"
series = ["time"]
"""
NAMES = ["A", "B"]
AS_OF = pd.Timestamp("2026-06-30")


@pytest.fixture(scope="module")
def plan(inputs, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "disclosure.toml"
    path.write_text(PLAN, encoding="utf-8")
    return load_plan(path, inputs.archive, "2026-06-30", "2030-01-01")


@pytest.fixture(scope="module")
def setup(inputs, plan):
    """Worlds of a run that has seen nothing, so that its draws are the prior's."""
    run = prior_run(inputs.worldviews["neutral"], plan.rows, inputs, islands=8, draws=500)
    return worlds.prepare(run, plan)


@pytest.fixture(scope="module")
def made(setup, inputs):
    return worlds.simulate(setup, inputs.milestones, 40, seed=1)


@pytest.fixture(scope="module")
def days():
    return worlds.dates("2026-06-30", 7)


def reweighted(setup, published, tiers, days):
    """What `worlds.follow` returns, by reweighting prior draws, which the two coarse series of the plan allow."""
    rows, islands = setup.plan.rows, setup.half
    found = np.zeros((len(published.value), len(tiers), len(days), len(DYNAMICS), islands))
    for k, name in enumerate(DYNAMICS):
        theta = {n: x[: islands * 500] for n, x in setup.known[name].theta.items()}
        laws = readings.laws(rows, readings.at_draws(DYNAMICS[name], theta, model.fit_grid(rows)))
        for w, seen in enumerate(published.value):
            each = model.log_likelihood(laws, seen)
            for t, tier in enumerate(tiers):
                for d, day in enumerate(days):
                    total = each[:, setup.plan.counted(tier, day)].sum(1).reshape(islands, -1)
                    found[w, t, d, k] = pooled(logsumexp(total, axis=1) - np.log(total.shape[1]))
    return found


@pytest.fixture(scope="module")
def added(setup, made, days):
    return reweighted(setup, made.published, NAMES, days[:3])


def test_days_are_half_years_after_the_run():
    days = worlds.dates("2026-06-30", 10)
    assert [f"{d:%Y-%m-%d}" for d in days[:2]] == ["2027-01-01", "2027-07-01"]
    assert len(days) == 10 and f"{days[-1]:%Y-%m-%d}" == "2031-07-01"
    # A day just after the run would show nothing new.
    assert f"{worlds.dates('2026-12-20', 2)[0]:%Y-%m-%d}" == "2027-07-01"


def test_truths_are_not_among_the_draws_the_engine_starts_from(setup, made):
    for k, name in enumerate(DYNAMICS):
        draws = setup.known[name].theta["g0"].reshape(8, -1)
        assert setup.half == 4
        assert np.isin(made.theta[k]["g0"], draws[4:]).all()
        assert not np.isin(made.theta[k]["g0"], draws[:4]).any()
    assert list(np.bincount(made.dynamic)) == [40] * 4


def test_milestones_of_a_world_are_those_of_its_path(made):
    passage = made.passage
    assert set(passage) >= {"W_2", "W_3", "m_10", "m_100", "H_10", "H_1"}
    assert (passage["W_3"] >= passage["W_2"]).all() and (passage["H_1"] >= passage["H_10"]).all()


def test_values_of_a_world_are_read_off_its_path(setup, plan, inputs):
    many = worlds.simulate(setup, inputs.milestones, 400, seed=2)
    time = (plan.rows["series"] == "time").to_numpy()
    # Logits of the human share fall from year to year in nearly every world of every dynamic.
    logits = many.published.value[:, time]
    assert (np.diff(logits.mean(0)) < 0).all()
    # Audited pace is at least 1 up to its own error, about .4 on the log scale.
    assert np.quantile(many.published.value[:, ~time], 0.01) > -1.2


def test_the_rows_of_a_world_are_read_as_data_are(setup, made, plan, added):
    w = 5
    rows = plan.rows[plan.counted("A", pd.Timestamp("2028-01-01"))]
    where = np.flatnonzero(plan.counted("A", pd.Timestamp("2028-01-01")))
    day = 2
    for k, name in enumerate(DYNAMICS):
        theta = {n: x[: 4 * 500] for n, x in setup.known[name].theta.items()}
        # The same rows as data, with the values of the world in the units of the archive.
        seen = rows.assign(value=np.exp(made.published.value[w, where]), lower=np.nan, upper=np.nan)
        # An interval of the plan says how precise a row is, whatever value comes out.
        widths = rows["lower"] / rows["value"], rows["upper"] / rows["value"]
        seen = seen.assign(lower=seen["value"] * widths[0], upper=seen["value"] * widths[1])
        logp = scenarios.likelihood(name, seen, theta)
        peak = logp.max()
        exact = peak + np.log(np.exp(logp - peak).mean())
        assert added[w, 0, day, k].mean() == pytest.approx(exact, abs=0.02)


def test_a_hybrid_world_has_a_floor_and_new_work(setup, plan):
    """Where tasks stay and new ones come, people keep more of their time than under either alone."""
    hybrid = worlds.simulate_hybrid(setup, 2000, seed=1).value
    assert hybrid.shape == (2000, len(plan.rows)) and np.isfinite(hybrid).all()
    last = np.flatnonzero(plan.rows["series"] == "time")[-1]
    names = list(DYNAMICS)
    parts = worlds.simulate(setup, {}, 2000, seed=1)
    for name in ("amdahl", "expanding_pie"):
        other = parts.published.value[parts.dynamic == names.index(name), last]
        error = np.hypot(other.std(), hybrid[:, last].std()) / np.sqrt(2000)
        assert hybrid[:, last].mean() > other.mean() + 3 * error


def test_worlds_are_followed_in_batches_of_one_size_and_go_on_after_an_interruption(
    setup, made, days, monkeypatch, tmp_path
):
    sizes, broken = [], True

    def follow(setup, published, tiers, days, seed):
        if sizes and broken:
            raise KeyboardInterrupt
        sizes.append(len(published.value))
        first = published.value[:, :1, None, None, None].copy()
        first[3] = -np.inf
        return np.broadcast_to(first, (len(first), 2, 3, len(DYNAMICS), setup.half))

    monkeypatch.setattr(worlds, "follow", follow)
    some = made.published.of(np.arange(30)), NAMES, days[:3], 1, tmp_path
    with pytest.raises(KeyboardInterrupt):
        worlds.follow_all(setup, *some)
    broken = False
    found = worlds.follow_all(setup, *some)
    assert sizes == [20, 20] and len(found) == 30
    expected = made.published.value[:30, 0].copy()
    # A step that failed says nothing.
    expected[[3, 23]] = np.nan
    np.testing.assert_array_equal(found[:, 0, 0, 0, 0], expected)


def test_another_process_gets_what_a_setup_is_made_of(setup, monkeypatch):
    made = []
    monkeypatch.setattr(worlds, "prepare", lambda run, plan: made.append((run, plan)) or setup)
    payload = cloudpickle.dumps(setup)
    # Once for all batches of a run and plan, and draws but no compiled program.
    assert cloudpickle.loads(payload) is cloudpickle.loads(payload) is setup
    ((run, plan),) = made
    assert list(plan.tiers) == NAMES and run.worldview.name == "neutral"
    for name, mine in run.posteriors.items():
        np.testing.assert_array_equal(mine.scores, setup.run.posteriors[name].scores)


def test_stepping_agrees_with_reweighting(setup, made, days):
    """On a first date, on two later ones, and from tier to tier; one world of each dynamic."""
    three = days[1:6:2]
    some = np.arange(3, 160, 40)
    # Twice: errors of four islands are rough.
    both = [worlds.follow(setup, made.published.of(some), NAMES, three, seed) for seed in ("one", "other")]
    stepped = np.concatenate(both, axis=-1)
    expected = reweighted(setup, made.published.of(some), NAMES, three)
    error = np.sqrt(sum(x.var(-1, ddof=1) / x.shape[-1] for x in (stepped, expected)))
    pooled_error = np.sqrt((error**2).mean(axis=0))
    away = np.abs(stepped.mean(-1) - expected.mean(-1))
    assert pooled_error.max() < 0.4
    assert (away < 4.5 * np.maximum(error, pooled_error)).all()
    # What is too low or too high under all dynamics alike, world by world.
    level = (stepped.mean(-1) - expected.mean(-1)).mean(axis=(1, 2, 3))
    assert abs(level.mean()) < 0.2


def test_what_reweighted_prior_draws_believe_is_reliable_in_worlds_of_the_prior(setup, made, days, added):
    odds = np.full(4, 0.25)
    seen = beliefs.believed(np.zeros(4), odds, added.mean(-1), made.dynamic, made.passage, AS_OF, days[:3])
    for one in calibration.reliability(
        seen.posterior[:, 1, -1], seen.truth, np.ones(len(seen.truth)), np.array([0, 0.25, 0.5, 0.75, np.inf])
    ):
        assert abs(one["true"] - one["believed"]) < 4 * one["se"] + 0.02
    record = foresight.tier_records(seen, NAMES)
    # More rows cannot tell less, on average.
    assert record[1]["more_than_first"]["2028-01-01"] > -2 * record[1]["more_than_first_se"]["2028-01-01"]


@pytest.mark.slow
def test_the_engine_learns_from_the_shipped_policies_what_they_tell(inputs):
    """Steps from the prior to two years of tier A, in worlds of the prior."""
    day = [pd.Timestamp("2028-01-01")]
    plan = load_plan(ROOT / "data" / "disclosure.toml", inputs.archive, "2026-06-30", "2028-01-01").of(["A"])
    run = prior_run(inputs.worldviews["neutral"], plan.rows, inputs, islands=8, draws=500)
    setup = worlds.prepare(run, plan)
    made = worlds.simulate(setup, {}, 20, seed=3)
    parts = [made.published.of(np.arange(i, 80, 4)) for i in range(4)]
    found = np.concatenate(
        [worlds.follow(setup, one, ["A"], day, f"learns {i}") for i, one in enumerate(parts)]
    )
    truth = np.concatenate([made.dynamic[np.arange(i, 80, 4)] for i in range(4)])
    seen = beliefs.believed(np.zeros(4), np.full(4, 0.25), found.mean(-1), truth, {}, AS_OF, day)
    error = calibration.error_of_truth(seen.posterior, found, truth)
    gained, se = beliefs.mean(beliefs.bits(seen._replace(error=error), 0)[:, 0], seen)
    print(f"{gained:.2f} +- {se:.2f} bits, noise {np.sqrt((error**2).mean()):.2f}", flush=True)
    assert gained > 3 * se
    slope = foresight.slope(seen, 0, 0)
    assert slope["value"] == pytest.approx(1.0, abs=4 * slope["se"])


# Read as data are -----------------------------------------------------------------------------------------

CAPPED = """
[series.horizon]
indicator = "metr_th50_v11"
every = 6
value = 300.0
interval = [200.0, 450.0]
[series.long]
indicator = "metr_th50_v11"
every = 6
value = 300.0
interval = [200.0, 450.0]
most = 1e99
[series.time]
indicator = "human_time_share"
every = 6
value = 50.0
interval = [45.0, 55.0]
least = 30.0
most = 90.0
[series.trial]
indicator = "uplift_rct_time"
every = 12
value = -18.0
interval = [-30.0, -5.0]
least = -50.0
[series.engineering]
indicator = "swe_pro"
every = 6
value = 80.0
n = 50
[tiers.A]
title = "all"
reason = "-"
series = ["horizon", "long", "time", "trial", "engineering"]
"""
N = 50


@pytest.fixture(scope="module")
def capped(inputs, tmp_path_factory):
    """Worlds of the prior with values that may be beyond what can be told, and scores that may be too high."""
    path = tmp_path_factory.mktemp("capped") / "disclosure.toml"
    path.write_text(CAPPED, encoding="utf-8")
    plan = load_plan(path, inputs.archive, "2026-06-30", "2028-01-01")
    return worlds.prepare(
        prior_run(inputs.worldviews["neutral"], plan.rows, inputs, islands=8, draws=60), plan
    )


@pytest.fixture(scope="module")
def shown(capped):
    return worlds.simulate(capped, {}, 60, seed=1).published


def test_a_horizon_above_the_ceiling_is_a_bound_unless_tasks_are_long(capped, shown):
    series = capped.plan.rows["series"]
    far = shown.value > np.log(960.0)
    assert 0.2 < far[:, series == "horizon"].mean() < 0.95
    np.testing.assert_array_equal(shown.side[:, series == "horizon"], far[:, series == "horizon"])
    assert not shown.side[:, series == "long"].any()


def test_what_is_beyond_the_least_or_the_most_of_a_series_is_a_bound(capped, shown):
    series = capped.plan.rows["series"]
    time, speed = shown.value[:, series == "time"], shown.value[:, series == "trial"]
    told = shown.side[:, series == "time"]
    np.testing.assert_array_equal(told, np.select([time > logit(0.9), time < logit(0.3)], [1, -1]))
    assert set(np.unique(told)) == {-1, 0, 1}
    # Half of the time is twice the speed.
    np.testing.assert_array_equal(shown.side[:, series == "trial"], speed > np.log(2.0))
    assert 0 < shown.side[:, series == "trial"].mean() < 1


def test_a_score_is_that_of_whole_tasks_with_their_error_unless_nearly_all_are_solved(capped, shown):
    scored = (capped.plan.rows["series"] == "engineering").to_numpy()
    assert (shown.score_se[:, ~scored] == 0).all()
    # y = (k + 1/2)/(n + 1) and its delta-method error, turned round.
    value, full = shown.value[:, scored], shown.side[:, scored] > 0
    y = 0.97 / (1 + np.exp(-value))
    k = y * (N + 1) - 0.5
    np.testing.assert_allclose(k[~full], np.round(k[~full]), atol=1e-6)
    expected = 0.97 / (y * (0.97 - y)) * np.sqrt(y * (1 - y) / N)
    np.testing.assert_allclose(shown.score_se[:, scored], expected, rtol=1e-6)
    # Four errors of a perfect model's score below that, all scores from there on are alike.
    edge = 0.97 - 4 * np.sqrt(0.97 * 0.03 / N)
    assert full.any() and (y[~full] < edge).all()
    np.testing.assert_allclose(y[full], edge)


def test_of_a_row_either_the_value_counts_or_a_bound(capped, shown):
    everything = np.ones(len(capped.plan.rows), bool)
    weight = capped.weight(everything, shown.side)
    assert set(np.unique(weight)) == {0.0, 1.0}
    sides = {"horizon": {0, 1}, "long": {0, 1}, "time": {-1, 0, 1}, "trial": {0, 1}, "engineering": {0, 1}}
    for i, series in enumerate(capped.plan.rows["series"]):
        mine = weight[:, capped.origin == i]
        np.testing.assert_array_equal(mine.sum(axis=1), 1.0)
        side = capped.side[capped.origin == i]
        assert sorted(side) == sorted(sides[series])
        np.testing.assert_array_equal((mine * side).sum(axis=1), shown.side[:, i])
    assert not capped.weight(~everything, shown.side).any()


def test_rows_of_today_stand_between_planned_ones_and_change_nothing(inputs, capped):
    """With some rows stored, what a step weighs is what it adds to the likelihood of all rows."""
    today = inputs.selection.rows.groupby("indicator").head(2).reset_index(drop=True)
    everything = pd.concat([today, capped.plan.rows], ignore_index=True)
    run = prior_run(inputs.worldviews["neutral"], everything, inputs, islands=8, draws=60)
    stored = run.inputs.selection._replace(rows=today)
    run = dataclasses.replace(run, inputs=dataclasses.replace(run.inputs, selection=stored))
    setup = worlds.prepare(run, capped.plan)
    assert (setup.origin < 0).sum() == len(today) and np.diff(setup.changing.where).max() > 1
    one = worlds.simulate(setup, {}, 1, seed=1).published.of(np.array([0]))
    data, counted = worlds.data_of(setup, one), np.arange(len(capped.plan.rows)) % 2 > 0
    x, label = setup.start[1].reshape(-1, setup.start.shape[-1])[:20], np.ones(20, int)
    shared = model.data_values(setup.declared) | {
        "centring": dev.centring(setup.rows, setup.counts(~counted))
    }

    def likelihood(program, where, weight):
        own = {n: np.repeat(v[:, where], 20, axis=0) for n, v in ({"weight": weight} | data).items()}
        return log_density(program, x, label, {**program.data, **shared, **own})[1]

    old, new = setup.weight(~counted, one.side), setup.weight(counted | ~counted, one.side)
    whole = [likelihood(setup.compiled, slice(None), w) for w in (old, new)]
    part = likelihood(setup.changing.compiled, setup.changing.where, new - old)
    np.testing.assert_allclose(part, whole[1] - whole[0], rtol=1e-6, atol=1e-6)


def as_file(rows: pd.DataFrame, value: np.ndarray, side: np.ndarray) -> pd.DataFrame:
    """Rows of the plan `CAPPED` with what one world publishes, in units of the archive."""
    units = {"time": lambda v: 100 * expit(v), "trial": lambda v: 100 * np.expm1(-v)}
    limit = {("time", 1): 90.0, ("time", -1): 30.0, ("trial", 1): -50.0, ("engineering", 1): 100.0}
    seen, z, filed = prepared(rows), norm.ppf(0.9), rows.copy()
    for i, series in enumerate(rows["series"]):
        if series == "engineering":
            solved = (N + 1) * 0.97 * expit(value[i]) - 0.5
            filed.loc[i, "value"] = limit.get((series, side[i]), 100 * solved / N)
            continue
        unit = units.get(series, np.exp)
        filed.loc[i, "value"] = limit.get((series, side[i]), unit(value[i]))
        # A bound of more speed is one of less time.
        filed.loc[i, "bound"] = {("time", 1): "lower", ("time", -1): "upper", ("trial", 1): "upper"}.get(
            (series, side[i]), ""
        )
        middle = {"time": logit, "trial": lambda v: -np.log1p(v)}.get(series, lambda v: np.log(100 * v))
        at = middle(filed.loc[i, "value"] / 100)
        ends = sorted([unit(at - z * seen.se_low[i]), unit(at + z * seen.se_high[i])])
        filed.loc[i, ["lower", "upper"]] = ends
    return filed


def test_the_engine_reads_simulated_rows_as_it_would_read_them_in_the_archive(capped, shown):
    """Log likelihood of the compiled model against that of a file of the same rows, at draws of every dynamic."""
    rows, everything = capped.plan.rows, np.ones(len(capped.plan.rows), bool)
    series = rows["series"].to_numpy()
    highest = np.argmax(
        np.where(shown.side.any(axis=1), shown.value[:, series == "engineering"].max(1), -np.inf)
    )
    lowest, least = (
        np.argmin(shown.side[:, series == "time"].sum(axis=1)),
        np.argmin(abs(shown.side).sum(axis=1)),
    )
    for w in (highest, lowest, least):
        one = shown.of(np.array([w]))
        filed = as_file(rows, shown.value[w], shown.side[w])
        data = worlds.data_of(capped, one)
        for k, name in enumerate(DYNAMICS):
            x = capped.start[k].reshape(-1, capped.start.shape[-1])[:40]
            each = {"weight": capped.weight(everything, one.side), **data}
            own = {n: np.repeat(v, len(x), axis=0) for n, v in each.items()}
            inputs = {**capped.compiled.data, **model.data_values(capped.declared), **own}
            inputs["centring"] = dev.centring(capped.rows, capped.counts(~everything))
            _, found = log_density(capped.compiled, x, np.full(len(x), k), inputs)
            theta = {n: v[:40] for n, v in capped.known[name].theta.items()}
            many = readings.at_draws(DYNAMICS[name], theta, model.fit_grid(rows))
            long = series == "long"
            expected = readings.rows_at(filed[~long], many).sum(1)
            # A value above the ceiling cannot stand in a file, and needs no reading of its own.
            free = readings.laws(rows, many)
            expected += model.log_likelihood(free, shown.value[w])[:, long].sum(1)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


# Commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def answered(setup, made, days, added, inputs, monkeypatch, tmp_path):
    """The command `value` with the fit and the worlds of above."""
    monkeypatch.setattr(batch, "update", lambda *a, **k: [tmp_path])
    run = dataclasses.replace(setup.run, manifest=setup.run.manifest | {"status": "done"})
    monkeypatch.setattr("forecast.accounts.read", lambda *a: run)
    monkeypatch.setattr(worlds, "prepare", lambda *a: setup)
    monkeypatch.setattr(worlds, "simulate", lambda *a: made)
    monkeypatch.setattr(worlds, "dates", lambda *a: days[:3])
    # Hybrid worlds are not stepped either, and take what others found.
    monkeypatch.setattr(
        worlds, "follow_all", lambda *a, **k: np.concatenate([added, added[: foresight.HYBRIDS]])
    )
    setup.run.inputs.milestones.update(inputs.milestones)
    data = tmp_path / "data"
    data.mkdir()
    for path in (ROOT / "data").iterdir():
        (data / path.name).symlink_to(path)
    (data / "disclosure.toml").unlink()
    (data / "disclosure.toml").write_text(PLAN, encoding="utf-8")
    return ["value", "--data", data, "--store", tmp_path / "runs", "--tier", "A", "--tier", "B"]


def test_the_value_of_disclosure_as_json(answered, command_line):
    code, out, err = command_line(*answered, "--format", "json")
    assert code == 0, err
    found = json.loads(out)
    assert found["failed"] == {} and found["until"] == found["dates"][-1]
    assert [one["tier"] for one in found["tiers"]] == NAMES
    for one in found["tiers"]:
        assert list(one["bits"]) == list(one["posterior_of_truth"]) == found["dates"]
        assert all(x >= 0 for x in one["bits_se"].values())
        assert set(one["by_dynamic"]) == set(DYNAMICS)
    assert found["worlds"] == 160 and found["noise"] < 0.5
    assert list(found["slope"]) == list(found["reliability"]) == NAMES
    for name in NAMES:
        assert list(found["slope"][name]) == list(found["reliability"][name]) == found["dates"]
        assert 0 < found["slope"][name][found["until"]]["value"] < 2
    assert sum(found["today"].values()) == pytest.approx(1.0)


def test_the_value_of_disclosure_as_a_table(answered, command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = command_line(*answered)
    assert code == 0, err
    for words in (
        "What would disclosure tell",
        "told apart",
        "in time",
        "How much warning",
        "how often is it",
        "slope",
    ):
        assert words in out
    assert "A: audited pace" in out and "nan" not in out


def test_a_stored_answer_is_that_of_its_odds_its_tiers_and_their_order(
    answered, made, added, command_line, monkeypatch, tmp_path
):
    calls = []

    def follow_all(*a, **k):
        calls.append(a)
        return np.concatenate([added, added[: foresight.HYBRIDS]])

    monkeypatch.setattr(worlds, "follow_all", follow_all)
    priors = tmp_path / "priors"
    shutil.copytree(ROOT / "priors", priors)
    turned = [*answered[:-4], "--tier", "B", "--tier", "A"]
    other = [*answered, "--priors", priors]
    for words, expected in (
        (answered, 1),
        (answered, 1),
        (turned, 2),
        (turned, 2),
        (answered, 2),
        (other, 2),
    ):
        code, _, err = command_line(*words, "--format", "json")
        assert code == 0, err
        assert len(calls) == expected
    file = priors / "neutral.toml"
    odds = file.read_text(encoding="utf-8").replace("explosive = 0.25", "explosive = 0.20")
    file.write_text(odds.replace("decaying = 0.25", "decaying = 0.30"), encoding="utf-8")
    code, _, err = command_line(*other, "--format", "json")
    assert code == 0 and len(calls) == 3, err


def test_a_missing_milestone_is_told(answered, setup, command_line, monkeypatch):
    monkeypatch.delitem(setup.run.inputs.milestones, "W_3")
    code, out, err = command_line(*answered)
    assert code == 2 and not out and "milestones.toml: no W_3" in err


def test_a_milestone_that_no_world_passes_is_a_dash(answered, made, command_line, monkeypatch):
    never = made.passage | {"m_10": np.full(len(made.published.value), np.inf)}
    monkeypatch.setattr(worlds, "simulate", lambda *a: made._replace(passage=never))
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = command_line(*answered)
    assert code == 0, err
    cells = next(line for line in out.splitlines() if line.startswith("│ such worlds")).split("│")
    assert cells[2].strip().startswith("0.00 ± ")
    above = out[: out.index("such worlds")].splitlines()[-2]
    assert above.startswith("│ B") and above.split("│")[2].strip() == "-"


def test_figures_of_a_date_that_failed_are_not_told(answered, command_line, monkeypatch):
    def third(seen, day, names):
        return ["tier A: too noisy"] if day == 2 else []

    monkeypatch.setattr(foresight, "failures", third)
    code, out, err = command_line(*answered, "--format", "json")
    assert code == 0, err
    found = json.loads(out)
    assert found["until"] == found["dates"][1] and found["failed"] == {
        found["dates"][2]: ["tier A: too noisy"]
    }
    for one in found["tiers"]:
        numbers = list(one["bits"].values())
        assert None not in numbers[:2] and numbers[2] is None
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = command_line(*answered)
    assert code == 0 and "failed its gate: tier A: too noisy" in out and "nan" not in out


def test_where_no_date_is_sound_nothing_is_told(answered, command_line, monkeypatch):
    monkeypatch.setattr(foresight, "failures", lambda *a: ["tier A: too noisy"])
    code, out, err = command_line(*answered)
    assert code == 2 and not out and "tier A: too noisy" in err


def test_no_world_is_drawn_from_a_failed_fit(answered, setup, command_line, monkeypatch):
    failed = dataclasses.replace(setup.run, manifest=setup.run.manifest | {"status": "failed"})
    monkeypatch.setattr("forecast.accounts.read", lambda *a: failed)
    code, out, err = command_line(*answered)
    assert code == 2 and not out and "failed its gate" in err


def test_calibration_is_told_and_kept(command_line, tmp_path, monkeypatch, inputs):
    names = list(model.parameters(["amdahl"], inputs.selection.rows))
    calls = []

    def fitted(dynamics, program, name, size, seed, report):
        # All dynamics are fitted one data set at a time.
        assert program == ("together" if dynamics == 1 else "alone")
        calls.append(name)
        rng = np.random.default_rng(1)
        # Each truth has some nats more.
        level = np.eye(len(DYNAMICS))[list(DYNAMICS).index(name), :dynamics, None]
        return calibration.Found(
            names, rng.random((size, len(names))), level + 0.5 * rng.normal(size=(size, dynamics, 4))
        )

    monkeypatch.setattr(calibration, "prepare", lambda rows, together: "together" if together else "alone")
    monkeypatch.setattr(calibration, "positions", partial(fitted, 1))
    monkeypatch.setattr(calibration, "weighed", partial(fitted, len(DYNAMICS)))
    words = ["calibrate", "--dynamic", "amdahl", "--quick", "--store", tmp_path]
    code, out, err = command_line(*words, "--format", "json")
    assert code == 0, err
    (one,) = json.loads(out)["dynamics"]
    assert one["simulations"] == 50 and len(one["parameters"]) == len(names)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = command_line(*words)
    assert code == 0 and "80% intervals" in out and "in their" in out and calls == ["amdahl"]
    assert "weight given" not in out
    code, _, err = command_line(*words, "--weights")
    assert code == 2 and "leave out --dynamic" in err
    every = ["calibrate", "--quick", "--weights", "--store", tmp_path]
    code, out, err = command_line(*every, "--format", "json")
    assert code == 0, err
    weights = json.loads(out)["weights"]
    assert weights["bits"]["value"] > 0 and len(weights["reliability"]) == 10
    code, out, _ = command_line(*every)
    assert code == 0 and "weight given" in out and calls == ["amdahl", *DYNAMICS]


def test_an_unknown_dynamic_is_told(command_line):
    code, _, err = command_line("calibrate", "--dynamic", "amdal")
    assert code == 2 and "did you mean 'amdahl'" in err
