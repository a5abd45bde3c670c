"""Backtests: what may be forecast and when it is known, mixtures and stacking, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

import made
from forecast import backtest, batch, history, inference, model, runs, scorecard
from forecast.baselines import BASELINES
from forecast.dynamics import DYNAMICS
from forecast.laws import Counted
from forecast.schema import InputError
from forecast.worldviews import pick_worldviews

ROOT = Path(__file__).parents[1]
NAMES = list(DYNAMICS)
TINY = inference.Settings(islands=4, chains=32, final_sweeps=1)


@pytest.fixture(scope="module")
def plan(inputs) -> backtest.Plan:
    return backtest.make_plan(inputs)


# What is forecast -----------------------------------------------------------------------------------


def test_horizons_are_read_as_months():
    assert backtest.parse_horizons("3m, 6m,12m") == (3, 6, 12)
    assert backtest.labels((3, 6, 12)) == ["0-3m", "3-6m", "6-12m"]


@pytest.mark.parametrize(
    ("text", "message"), [("3,6", "no list of months"), ("", "no list"), ("6m,3m", "rise"), ("3m,3m", "rise")]
)
def test_bad_horizons_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        backtest.parse_horizons(text)


def test_origins_start_with_the_first_row_that_counts(plan):
    assert plan.skipped == ("2024-09-30",)
    assert [one.as_of for one in plan.window.inputs][:2] == ["2024-12-31", "2025-03-31"]
    assert plan.truth == "2026-06-30" and plan.window.inputs[-1].as_of == "2026-03-31"


def test_targets_are_unknown_at_the_origin_and_resolved_by_the_truth_date(plan, inputs):
    truth = batch.at_date(inputs, plan.truth).selection.rows
    for i, target in enumerate(plan.targets):
        origin = pd.Timestamp(plan.window.inputs[i].as_of)
        rows = plan.window.rows.iloc[target["row"]]
        assert (target["first_published"] > origin).all()
        assert (target["first_published"] <= rows["published_at"].to_numpy()).all()
        assert (rows["published_at"] <= pd.Timestamp(plan.truth)).all()
        known = inputs.archive.observations
        known = known[known["published_at"] <= origin]
        mine = set(zip(rows["indicator_id"], rows["entity"], rows["observed_at"], strict=True))
        assert not mine & set(zip(known["indicator_id"], known["entity"], known["observed_at"], strict=True))
        # Values are those of the truth date, revisions included.
        final = truth.merge(rows[["indicator_id", "entity", "observed_at", "value"]])
        assert len(final) == len(rows)


def test_every_later_row_is_a_target_of_one_horizon(plan):
    origin = pd.Timestamp("2025-12-31")
    (i,) = [k for k, one in enumerate(plan.window.inputs) if one.as_of == "2025-12-31"]
    target = plan.targets[i]
    quarter = target["first_published"] <= pd.Timestamp("2026-03-31")
    assert set(target["horizon"][quarter]) == {"0-3m"} and set(target["horizon"][~quarter]) == {"3-6m"}
    # All that was published later but what was known in another form: TH1.0 rows came back as TH1.1.
    final = batch.at_date(plan.window.inputs[0], plan.truth).selection.rows
    later = final[(final["published_at"] > origin) & (final["kind"] != "declared")]
    left = set(later["entity"]) - set(plan.window.rows.iloc[target["row"]]["entity"])
    old = plan.window.inputs[i].selection
    seen = pd.concat([old.rows, old.excluded])
    assert len(later) > len(target) > 100
    for entity in left:
        row = later[later["entity"] == entity].iloc[0]
        assert ((seen["observed_at"] == row["observed_at"]) & (seen["model"] == row["model"])).any()


def test_stacking_learns_only_from_what_was_published_meanwhile(plan):
    for i, learnt in enumerate(plan.learnt):
        now = pd.Timestamp(plan.window.inputs[i].as_of)
        assert list(learnt) == list(range(i))
        for j, place in learnt.items():
            then = pd.Timestamp(plan.window.inputs[j].as_of)
            assert plan.window.rows.iloc[place]["published_at"].between(then, now, inclusive="right").all()
            assert set(place) <= set(plan.window.places[i])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"truth": "2027-01-01"}, "past the last published day"),
        ({"truth": "2024-12-31", "end": "2024-11-30"}, "no row that counts"),
        ({"start": "2026-06-30"}, "no row that counts"),
        ({"every": "half-yer"}, "did you mean 'half-year'"),
    ],
)
def test_nothing_to_score_is_said_in_one_line(inputs, words, message):
    with pytest.raises(InputError, match=message):
        backtest.make_plan(inputs, **words)


# Mixtures and scores --------------------------------------------------------------------------------


def made_up(plan: backtest.Plan, i: int, seed: int, failed: str = "") -> backtest.Forecast:
    """A forecast of invented numbers."""
    rng = np.random.default_rng(seed)
    count, targets = len(plan.window.rows), len(plan.targets[i])
    return backtest.Forecast(
        rng.normal(-2, 1, (4, count)),
        rng.uniform(0.01, 0.1, (4, count)),
        rng.normal(size=(4, 50, targets)),
        np.array([0.4, 0.3, 0.2, 0.1]),
        np.zeros(4),
        {n: ["effective sample size 3"] if n == failed else [] for n in NAMES},
    )


@pytest.fixture(scope="module")
def forecasts(plan) -> dict[str, list[backtest.Forecast]]:
    count = len(plan.targets)
    return {"neutral": [made_up(plan, i, i, "amdahl" if i == 1 else "") for i in range(count)]}


@pytest.fixture(scope="module")
def scored(plan, forecasts, inputs) -> backtest.Scored:
    return backtest.score(plan, forecasts, inputs.archive)


def test_a_mixture_scores_the_weighted_density(plan, forecasts, scored):
    table = scored.table
    last = len(plan.targets) - 1
    place, one = plan.targets[last]["row"].to_numpy(), forecasts["neutral"][last]
    mine = table[(table["origin"] == "2026-03-31") & (table["forecaster"] == backtest.MIXTURE)]
    expected = logsumexp(one.log_density[:, place] + np.log(one.weight)[:, None], axis=0)
    np.testing.assert_allclose(mine["log_score"], expected, rtol=1e-12)
    alone = table[(table["origin"] == "2026-03-31") & (table["forecaster"] == NAMES[2])]
    np.testing.assert_allclose(alone["log_score"], one.log_density[2, place])
    np.testing.assert_allclose(alone["log_score_se"], one.log_density_se[2, place])


def test_what_failed_its_gate_is_not_scored(scored):
    table = scored.table[scored.table["origin"] == "2025-03-31"]
    assert set(table["forecaster"]) == {*BASELINES, *NAMES} - {"amdahl"}
    assert "2025-03-31" not in [w["origin"] for w in scored.weights]


def test_stacking_does_not_look_ahead(plan, forecasts, inputs):
    def weights(changed):
        return backtest._mixtures(plan, {"neutral": changed}, i)[1][0]["weights"]

    i = 4
    known = np.unique(np.concatenate(list(plan.learnt[i].values())))
    unknown = np.setdiff1d(np.arange(len(plan.window.rows)), known)
    before = weights(forecasts["neutral"])
    poisoned = [f._replace(log_density=f.log_density.copy()) for f in forecasts["neutral"]]
    for f in poisoned:
        f.log_density[:, unknown] = 1e9 * np.arange(4)[:, None]
    for f in poisoned[i:]:
        f.log_density[:] = -1e9
    assert weights(poisoned) == before
    assert sum(before.values()) == pytest.approx(1) and max(before.values()) < 1


def test_the_first_stacked_mixture_is_even(scored):
    first = scored.weights[0]
    assert first["rows"] == 0 and set(first["weights"].values()) == {0.25}


def test_the_table_is_tidy(scored, plan):
    table = scored.table
    key = ["origin", "worldview", "forecaster", "row"]
    assert not table.duplicated(key).any()
    assert set(table["horizon"]) == set(backtest.labels(plan.horizons))
    assert (
        table[["origin", "truth", "category", "series", "observed_at", "first_published"]]
        .notna()
        .all(axis=None)
    )
    trend = table[table["forecaster"] == "trend"]
    known = trend["log_score"].notna()
    assert known.any() and not known.all()
    counts = table["indicator_id"] == "dropin_yes_share"
    assert table[counts & table["forecaster"].isin(BASELINES)]["log_score"].isna().all()


def test_a_threshold_is_the_best_value_known_at_the_origin(scored, inputs):
    one = scored.table[
        (scored.table["origin"] == "2026-03-31") & (scored.table["series"] == "capability_index")
    ]
    known = batch.at_date(inputs, "2026-03-31").selection.rows
    best = known[known["indicator"] == "capability_index"]["value"].max()
    assert len(one) and (one["threshold"] == best).all()
    exact = one["event"].notna()
    assert ((one["low"] > best) == (one["event"] == 1))[exact].all()


def test_skill_against_oneself_is_nothing_and_halved_errors_are_half(scored):
    trend = scored.table[scored.table["forecaster"] == "trend"]
    trend = trend[trend["log_score"].notna()]
    same = scorecard.compare(trend, trend, 1)
    assert same["log_score"] == same["crps"] == same["brier"] == 0
    better = trend.assign(log_score=trend["log_score"] + 0.7, crps=trend["crps"] / 2)
    found = scorecard.compare(better, trend, 1)
    assert found["log_score"] == pytest.approx(0.7) and found["crps"] == pytest.approx(0.5)
    assert (
        found["log_score_low"] == pytest.approx(0.7) and 0.3 < found["crps_low"] <= 0.5 <= found["crps_high"]
    )
    assert scorecard.compare(trend[:0], trend, 1) is None


def test_blocks_are_as_long_as_horizons_overlap(plan):
    assert [scorecard._block(plan, h) for h in ("0-3m", "3-6m", "6-12m", scorecard.ALL)] == [1, 1, 2, 4]


def test_a_summary_says_all_and_is_json(plan, forecasts, scored, inputs, capsys):
    neutral = [inputs.worldviews["neutral"]]
    found = scorecard.summary(plan, forecasts, scored, neutral, False)
    json.dumps(found, allow_nan=False)
    assert {(o["as_of"], o["gate"]) for o in found["origins"]} >= {
        ("2025-03-31", "fail"),
        ("2025-06-30", "pass"),
    }
    assert found["origins"][0]["late_defaults"] and found["late_priors"] == "kept"
    whole = [s for s in found["scores"] if s["category"] == s["horizon"] == "all"]
    assert {s["forecaster"] for s in whole} == {*NAMES, *BASELINES, backtest.MIXTURE, backtest.STACKING}
    by_category = {s["category"] for s in found["skill"]}
    assert {"all", "broad_capability", "rnd_ladder"} <= by_category
    from forecast.console import show_table

    show_table(scorecard.tables(found))
    out = capsys.readouterr().out
    assert all(word in out for word in ("2025-03-31: failed", "Skill", "mixture", "trend", "default priors"))


def test_scores_are_written_whole_or_not_at_all(scored, tmp_path):
    file = tmp_path / "scores.parquet"
    scorecard.write(scored.table, file)
    pd.testing.assert_frame_equal(pd.read_parquet(file), scored.table, check_dtype=False)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]
    for bad in (tmp_path / "scores.csv", tmp_path / "no" / "scores.parquet"):
        with pytest.raises(InputError, match="--output"):
            scorecard.check_file(bad)


# With fits ------------------------------------------------------------------------------------------

FEW = ("--from", "2025-03-01", "--to", "2025-03-31", "--truth", "2025-06-30", "--horizons", "1m,3m")


@pytest.fixture(scope="module")
def small(inputs) -> backtest.Plan:
    return backtest.make_plan(inputs, "2025-03-01", "2025-03-31", "quarter", "1m,3m", "2025-06-30")


@pytest.fixture(scope="module")
def fitted(inputs, small, tmp_path_factory) -> tuple[Path, backtest.Forecast]:
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "GATE", made.LAX)
        neutral = pick_worldviews(inputs.worldviews, ["neutral"])
        (one,) = backtest.forecast(small, neutral, store, settings=TINY)["neutral"]
    return store, one


def test_predictive_draws_come_from_the_predictive_density(fitted, inputs, small):
    """Integrated over values, the density of each target is the distribution of its draws."""
    store, one = fitted
    rows, place = small.window.rows, small.targets[0]["row"].to_numpy()
    (folder,) = (store / backtest.FOLDER).glob("as_of=*/worldview=neutral/key=*")
    fit = history.Stored(*runs.load(folder)).fit
    declared = batch.declared_parameters(rows, inputs.worldviews["neutral"])
    compiled = batch.compile_once({}, rows, declared, predictive=True)
    pairs = model.median_laws(NAMES[0], rows, declared)
    smooth = np.concatenate([y.exact & (not isinstance(law, Counted)) for law, y in pairs])[place]

    # The draws are in the coordinates of the origin.
    origin = model.row_data(rows, small.window.weight(0))

    def density(value: np.ndarray) -> np.ndarray:
        found = inference.describe(compiled, fit, 0, origin | {"value": value})["row_log_likelihood"].values
        return np.exp(logsumexp(found, axis=(0, 1)) - np.log(found[..., 0].size))

    own = density(compiled.data["value"])
    np.testing.assert_allclose(one.log_density[0], np.log(own), rtol=1e-6)
    table = inference.describe(compiled, fit, 0, origin)["law"].values
    table = table.reshape(-1, *table.shape[2:])
    draws = np.concatenate([model.draw_rows(pairs, table, s) for s in range(40)])[:, place]
    level = np.linspace(0.02, 0.98, 33)
    at, value = np.quantile(draws, level, axis=0), compiled.data["value"].copy()
    heights = []
    for x in at:
        value[place] = x
        heights.append(density(value)[place])
    middle = (np.array(heights)[1:] + np.array(heights)[:-1]) / 2
    mass = level[0] + np.cumsum(np.diff(at, axis=0) * middle, axis=0)
    assert smooth.sum() > 5
    assert np.abs(mass - level[1:, None])[:, smooth].max() < 0.05
    # The stored draws are of the same distribution.
    ranks = (one.draws[0][:, None, smooth] > at[None][..., smooth]).mean(axis=0)
    assert np.abs(ranks - (1 - level)[:, None]).mean() < 0.06


def test_a_log_density_has_the_error_of_its_islands(fitted):
    one = fitted[1]
    assert np.isfinite(one.log_density).all() and (one.log_density_se > 0).all()
    assert one.weight.sum() == pytest.approx(1)


def test_the_command_takes_up_what_is_stored_and_prints_json(fitted, monkeypatch, command_line, tmp_path):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(batch, "GATE", made.LAX)
    monkeypatch.setattr(batch, "compile_once", never)
    monkeypatch.setattr(inference, "Settings", lambda: TINY)
    file = tmp_path / "scores.parquet"
    words = [*FEW, "--worldview", "neutral", "--store", fitted[0], "--output", file]
    code, out, _ = command_line("backtest", *words, "--format", "json")
    assert code == 0 and json.loads(out)["horizons"] == ["0-1m", "1-3m"]
    assert len(pd.read_parquet(file)) > 0
