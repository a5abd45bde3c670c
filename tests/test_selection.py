"""Which rows of the shipped data enter the likelihood, and that each of the others has a reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast.indicators import INDICATORS
from forecast.observation import SOFTWARE_GROWTH_ROW
from forecast.selection import CHOSEN_ROWS, Selection, select
from forecast.vintages import Archive, as_of

COUNTS = {
    "time_horizon": 34,
    "capability_index": 87,
    "messy_tasks": 37,
    "ladder": 136,
    "uplift_trial": 3,
    "reported_gain": 4,
    "reported_multiplier": 5,
    "code_share": 6,
    "work_share": 2,
    "code_output": 6,
    "overall_pace": 1,
    "index_slope_ratio": 1,
    "internal_gap": 1,
    "headcount": 2,
    "compute_spending": 1,
    "software_growth": 1,
    "dropin_researcher": 5,
}
"""Rows of each observation model at the end of June 2026."""
PER_ROW = ["indicator_id", "entity", "observed_at"]
FIRST, LAST = dt.date(2024, 5, 28), dt.date(2026, 6, 30)
TH11_PUBLISHED = pd.Timestamp("2026-01-29")


@pytest.fixture(scope="module")
def at(archive: Archive) -> Callable[[dt.date | str], Selection]:
    return cache(lambda date: select(archive, as_of(archive, date)))


def test_counts_of_every_observation_model(selection):
    assert selection.rows["indicator"].value_counts(sort=False).to_dict() == COUNTS


def test_rows_stand_in_registry_order_and_by_date(selection):
    rows = selection.rows
    assert list(dict.fromkeys(rows["indicator"])) == [n for n in INDICATORS if n in COUNTS]
    assert rows.groupby("indicator")["time"].apply(lambda t: t.is_monotonic_increasing).all()
    assert rows.index.tolist() == list(range(len(rows)))


def test_nothing_is_lost_and_every_excluded_row_has_a_reason(selection, snapshot):
    rows, excluded = selection
    declared = rows["indicator"] == "software_growth"
    assert declared.sum() == 1
    assert len(rows) - 1 + len(excluded) == len(snapshot)
    assert excluded["reason"].str.len().gt(3).all()
    keys = pd.concat([rows[~declared], excluded])[PER_ROW].sort_values(PER_ROW, ignore_index=True)
    pd.testing.assert_frame_equal(keys, snapshot[PER_ROW].sort_values(PER_ROW, ignore_index=True))


def test_values_are_those_of_the_snapshot(selection, snapshot):
    both = selection.rows.merge(snapshot, on=PER_ROW, suffixes=("", "_archive"))
    assert len(both) == len(selection.rows) - 1
    for column in ("value", "n", "interval_level", "published_at", "source_url", "kind"):
        pd.testing.assert_series_equal(
            both[column], both[f"{column}_archive"], check_names=False, check_dtype=False
        )
    plain = both["bound"] != "interval"
    for column in ("lower", "upper", "bound"):
        pd.testing.assert_series_equal(
            both[column][plain], both[f"{column}_archive"][plain], check_names=False
        )


def test_one_row_per_model_and_date_of_a_benchmark(selection):
    rows = selection.rows
    flagship = rows[rows["indicator"].map(lambda n: INDICATORS[n].flagship_rows)]
    assert flagship["model"].ne("").all()
    assert flagship["developer"].ne("").all()
    assert not flagship.duplicated(["indicator_id", "model", "observed_at"]).any()
    assert not flagship.duplicated(["indicator_id", "entity"]).any()
    assert set(flagship["kind"]) == {"model"}
    assert set(flagship["tier"]) == {"flagship"}


def test_better_documented_configuration_enters(selection):
    folded = selection.excluded[selection.excluded["reason"].str.startswith("another configuration")]
    assert len(folded) == 21
    kept = folded.merge(selection.rows, on=["indicator_id", "model", "observed_at"], suffixes=("", "_kept"))
    assert len(kept) == len(folded)
    other = kept[~kept.set_index(["indicator_id", "entity_kept"]).index.isin(list(CHOSEN_ROWS))]
    assert (other["lower_kept"].notna() | other["lower"].isna()).all()


def test_core_bench_regraded_by_hand_stays_out(selection):
    rows, excluded = selection
    opus = rows[(rows["indicator_id"] == "core_bench_hard") & (rows["model"] == "Claude Opus 4.5")]
    assert opus["value"].tolist() == [78.0]
    regraded = excluded[excluded["entity"] == "Claude Opus 4.5 Claude Code (regraded)"]
    assert regraded["value"].tolist() == [95.0]
    assert regraded["reason"].str.startswith("declared").all()


def test_two_ends_of_one_statement_are_one_interval(selection):
    rows, excluded = selection
    intervals = rows[rows["bound"] == "interval"].set_index("indicator_id")
    assert intervals.loc["ai_code_share", ["lower", "upper"]].tolist() == [20.0, 30.0]
    assert intervals.loc["ai_code_share", "company"] == "Microsoft"
    assert intervals.loc["aeci_slope_ratio", ["lower", "upper"]].tolist() == [1.86, 4.3]
    assert len(intervals) == 2
    other = excluded[excluded["reason"].str.startswith("the other end")]
    assert sorted(other["indicator_id"]) == ["aeci_slope_ratio", "ai_code_share"]


def test_bounds_that_are_no_pair_stay_bounds(selection):
    bounds = selection.rows[selection.rows["bound"].isin(["lower", "upper"])]
    assert sorted(zip(bounds["indicator_id"], bounds["company"], bounds["bound"], strict=True)) == [
        ("ai_code_share", "Anthropic", "lower"),
        ("ai_code_share", "Google", "lower"),
        ("ai_code_share", "Google", "lower"),
        ("overall_acceleration", "Anthropic", "upper"),
    ]


def horizons(selected: Selection) -> pd.DataFrame:
    return selected.rows[selected.rows["indicator"] == "time_horizon"]


def test_older_suite_only_where_the_newer_has_no_row(selection, snapshot):
    rows = horizons(selection)
    newer = snapshot[snapshot["indicator_id"] == "metr_th50_v11"]
    older = rows[rows["indicator_id"] == "metr_th50_v10"]
    assert len(older) == 11
    assert not set(older["entity"]) & set(newer["entity"])
    assert not rows.duplicated(["model", "observed_at"]).any()


def test_before_the_newer_suite_was_published_only_the_older_enters(at):
    for date in ("2025-04-01", "2025-09-01", "2026-01-28"):
        rows = horizons(at(date))
        assert len(rows) > 5
        assert set(rows["indicator_id"]) == {"metr_th50_v10"}
    assert set(horizons(at("2026-01-29"))["indicator_id"]) == {"metr_th50_v10", "metr_th50_v11"}


def test_no_model_loses_its_horizon_when_the_newer_suite_arrives(at):
    before, after = horizons(at("2026-01-28")), horizons(at("2026-01-29"))
    assert set(before["model"]) <= set(after["model"])


def test_eighty_percent_horizons_stay_out(selection):
    out = selection.excluded[selection.excluded["indicator_id"].str.startswith("metr_th80_v")]
    assert len(out) == 59
    assert set(out["reason"]) == {"same runs as the 50 % horizon"}


def test_doubtful_rows_stay_out_but_the_declared_one(selection):
    doubtful = selection.rows[selection.rows["note"].fillna("").str.contains("AUDIT: doubtful")]
    assert doubtful["entity"].tolist() == ["Claude Opus 4.5 Claude Code (before regrading)"]
    assert CHOSEN_ROWS["core_bench_hard", doubtful["entity"].iloc[0]]


def test_declared_choices_name_rows_that_exist(snapshot):
    assert (
        pd.MultiIndex.from_tuples(CHOSEN_ROWS)
        .isin(snapshot.set_index(["indicator_id", "entity"]).index)
        .all()
    )


def test_only_models_companies_and_industry(selection):
    assert set(selection.rows["kind"]) == {"model", "company", "industry", "declared"}
    signs = selection.rows[selection.rows["kind"].isin(["company", "industry"])]
    assert not any(INDICATORS[n].flagship_rows for n in signs["indicator"])


def test_nothing_observed_before_the_paths_start(selection):
    assert selection.rows["time"].min() >= 2023.0
    early = selection.excluded[selection.excluded["reason"].str.startswith("observed before 2023")]
    assert len(early) == 6
    assert (early["time"] < 2023.0).all()


def test_declared_row_enters_once_it_was_published(at):
    published = SOFTWARE_GROWTH_ROW["published_at"]
    before, after = at(published - dt.timedelta(days=1)), at(published)
    assert "software_growth" not in set(before.rows["indicator"])
    assert (after.rows["indicator"] == "software_growth").sum() == 1


def test_scaffold_teams_take_the_developer_of_the_model(selection):
    board = selection.rows[selection.rows["indicator_id"] == "mle_bench_board"]
    developers = dict(zip(board["model"], board["developer"], strict=True))
    assert developers["DeepSeek R1"] == "DeepSeek"
    assert developers["GPT-5"] == "OpenAI"
    assert developers["Gemini 2.5 Pro"].startswith("Google")
    unnamed = board.loc[board["developer"] == "scaffold team", "model"]
    assert not unnamed.str.contains("GPT|Claude|Gemini|^o[0-9]").any()


def test_developers_do_not_depend_on_the_date(at, selection):
    # The mean shortfall differs between leaders and followers; a vintage must not move a model between them.
    last = dict(zip(selection.rows["model"], selection.rows["developer"], strict=True))
    for date in ("2024-12-01", "2025-06-01", "2025-10-15"):
        rows = at(date).rows
        found = {m: d for m, d in zip(rows["model"], rows["developer"], strict=True) if m in last}
        assert found == {m: last[m] for m in found}


def test_selection_leaves_the_snapshot_alone(archive, snapshot):
    before = snapshot.copy()
    select(archive, snapshot)
    pd.testing.assert_frame_equal(snapshot, before)


@given(date=st.dates(FIRST, LAST))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_row_is_known_before_it_was_published(at, date):
    rows, excluded = at(date)
    today = pd.Timestamp(date)
    assert (rows["published_at"] <= today).all()
    assert (excluded["published_at"] <= today).all()
    assert (rows["time"] >= 2023.0).all()
    assert excluded["reason"].ne("").all()
    assert np.isfinite(rows["value"]).all()
    if today < TH11_PUBLISHED:
        assert "metr_th50_v11" not in set(rows["indicator_id"])


@given(dates=st.tuples(st.dates(FIRST, LAST), st.dates(FIRST, LAST)))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_families_never_disappear_with_time(at, dates):
    early, late = sorted(dates)
    assert set(at(early).rows["indicator"]) <= set(at(late).rows["indicator"])
