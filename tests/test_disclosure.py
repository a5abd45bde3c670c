"""Disclosure tiers: the shipped file, what each tier adds, and how a bad file is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from forecast.disclosure import load_plan
from forecast.indicators import prepared
from forecast.schema import InputError

SHIPPED = Path(__file__).parents[1] / "data" / "disclosure.toml"
HEAD = '[series.gap]\nindicator = "int_ext_gap_days"\nevery = 6\nvalue = 60.0\n'
SCORES = '[series.gap]\nindicator = "swe_pro"\nevery = 6\nvalue = 60.0\n'
LONG = '[series.gap]\nindicator = "metr_th50_v11"\nevery = 6\nvalue = 3000.0\nmost = 9600.0\n'
SHARE = SCORES.replace("swe_pro", "ai_code_share")
TRIAL = SCORES.replace("swe_pro", "uplift_rct_time")
TIER = '[tiers.A]\ntitle = "t"\nreason = "r"\nseries = ["gap"]\n'


@pytest.fixture(scope="module")
def plan(archive):
    return load_plan(SHIPPED, archive, "2026-06-30", "2028-01-01")


def test_the_shipped_tiers_extend_each_other(plan):
    one = {name: set(tier.series) for name, tier in plan.tiers.items()}
    assert one["A"] < one["B"] < one["C"] < one["D"]
    assert one["B"] - one["A"] == {"frozen_basket"} and one["C"] - one["B"] == {"human_time"}
    assert one["D_without_frozen_basket"] == one["D"] - {"frozen_basket"}
    assert not {s.removesuffix("_mandated") for s in one["A_mandated"] - one["A"]} & one["A_mandated"]


def test_a_series_is_published_on_its_timetable_and_not_before(plan):
    rows = plan.rows
    audits = rows[rows["series"] == "audited_pace"]
    assert list(audits["published_at"]) == [pd.Timestamp("2027-06-30")]
    assert list(rows.loc[rows["series"] == "horizon", "published_at"].dt.month) == [9, 12, 3, 6, 9, 12]
    assert rows["observed_at"].min() > pd.Timestamp("2026-06-30")
    assert not plan.counted("D", pd.Timestamp("2026-09-29")).any()
    early, late = (plan.counted("B", pd.Timestamp(d)) for d in ("2027-01-01", "2027-07-01"))
    assert early.sum() < late.sum() and not (early & ~late).any()
    assert set(rows.loc[late, "series"]) == set(plan.tiers["B"].series)


def test_every_row_is_a_plain_value(plan):
    # What is simulated is a value; a bound would say only on which side of it the truth is.
    assert plan.rows["bound"].eq("").all() and prepared(plan.rows).exact.all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no series"),
        (HEAD, "no tiers"),
        (HEAD + TIER + "[tier.B]\n", "unknown table 'tier'; did you mean 'tiers'"),
        (HEAD.replace("every = 6", "every = 0.5") + TIER, "series.gap.every: give whole months"),
        (HEAD.replace("every", "evry") + TIER, "unknown field 'evry'; did you mean 'every'"),
        (HEAD.replace("int_ext", "int_ex") + TIER, "did you mean 'int_ext_gap_days'"),
        (HEAD + TIER.replace('"gap"', '"gapp"'), "unknown series 'gapp'; did you mean 'gap'"),
        (HEAD + TIER.replace('"r"', '" "'), "tiers.A: reason is missing"),
        (HEAD + TIER + TIER.replace("tiers.A", "tiers.B") + 'extends = "C"\n', "tiers.B.extends: unknown"),
        (HEAD + TIER + 'without = "gap"\n', "tiers.A.without: give a list"),
        (HEAD + "[tiers\n", "not TOML"),
        (SCORES + TIER, "series.gap.n: give the number of tasks or people, as 500; got None"),
        (
            SCORES.replace("swe_pro", "dropin_yes_share") + TIER,
            "series.gap.n: give the number of tasks or people",
        ),
        (
            TRIAL + TIER,
            "series.gap.interval: uplift_trial has no other",
        ),
        (
            SHARE.replace("60.0", "100.0") + TIER,
            "so extreme a value is but",
        ),
        (HEAD.replace('"int_ext_gap_days"', '["a"]') + TIER, "has no observation model"),
        (HEAD + TIER.replace('["gap"]', "[]"), "tiers.A.series: give at least one series"),
        (HEAD + TIER.replace('["gap"]', '[["gap"]]'), "tiers.A.series: give a list of names"),
        (HEAD + TIER + 'extends = ["A"]\n', "tiers.A.extends: unknown"),
        (SCORES + "n = 0\n" + TIER, "series.gap.n: give the number of tasks"),
        (SCORES + "n = true\n" + TIER, "series.gap.n: give the number of tasks"),
        (HEAD + "most = 50.0\n" + TIER, "series.gap.most: give a number above the value; got 50.0"),
        (HEAD + "least = 60.0\n" + TIER, "series.gap.least: give a number below the value; got 60.0"),
        (HEAD + "most = true\n" + TIER, "series.gap.most: give a number above the value; got True"),
        (SCORES + "n = 50\nmost = 80\n" + TIER, "series.gap.most: limits of a count follow from n"),
        (LONG + "least = 9.0\n" + TIER, "so extreme a value"),
        (LONG.replace("3000.0", "300.0") + "least = 9.0\n" + TIER, "series.gap.least: a model's capability"),
        (
            HEAD + 'most = 90.0\ndisclosure = "self_report"\n' + TIER,
            "series.gap.most: a voluntary report has",
        ),
        (SHARE + "most = 100\n" + TIER, "series.gap.most: 100 is no value that it can have"),
        (SHARE + "least = -1\n" + TIER, "series.gap.least: -1 is no value that it can have"),
        (TRIAL + "interval = [60.0, 60.0]\n" + TIER, "series.gap.interval: give two numbers with the value"),
        (LONG + TIER, "series.gap.value: so extreme a value is but a bound"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(text, said, tmp_path, archive):
    path = tmp_path / "disclosure.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"disclosure\.toml") as error:
        load_plan(path, archive, "2026-06-30", "2028-01-01")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_series_that_comes_later_matters_where_nothing_else_does(tmp_path, archive):
    path = tmp_path / "disclosure.toml"
    late = HEAD.replace("every = 6", "every = 48").replace("gap]", "late]")
    path.write_text(HEAD + late + TIER + TIER.replace("tiers.A", "tiers.B").replace("gap", "late"), "utf-8")
    plan = load_plan(path, archive, "2026-06-30", "2028-01-01")
    assert set(plan.of(["A", "B"]).rows["series"]) == {"gap"}
    with pytest.raises(InputError, match=r"tiers\.B: nothing is published by the last date"):
        plan.of(["B"])


def test_an_unknown_tier_is_told(plan):
    with pytest.raises(InputError, match="--tier: unknown tier 'AB'"):
        plan.pick(["AB"])
    assert plan.pick(["C", "A", "C"]) == ["C", "A"] and plan.pick([]) == list(plan.tiers)
