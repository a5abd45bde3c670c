"""Observation models: one conformance row each, links by hand, the deviation's covariance."""

from __future__ import annotations

import datetime as dt
import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from forecast import deviation as dev
from forecast import indicators as ind
from forecast import observation as obs
from forecast.indicators import INDICATORS
from forecast.laws import Counted, Observed, Reported, Shortfall, SplitShortfall
from forecast.observation import Indicator, Reading
from forecast.paths import SHARED, Path
from forecast.priors import FAMILIES, Parameter
from forecast.schema import BELT
from forecast.vintages import decimal_year

EVERY = pytest.mark.parametrize("one", INDICATORS.values(), ids=lambda one: one.name)
ROLES = {"core", "calibration", *BELT}
SHARED_LAWS = {"time_horizon": SplitShortfall, "dropin_researcher": Counted}
"""Laws of indicators that are neither benchmarks nor reports."""


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Rows with the columns a selection has."""
    blank = {
        "indicator_id": "", "entity": "", "observed_at": "2025-07-01", "value": np.nan, "lower": np.nan,
        "upper": np.nan, "interval_level": np.nan, "n": np.nan, "bound": "", "kind": "company",
        "disclosure": "independent", "company": "Anthropic", "developer": "OpenAI", "reasoning": "no",
    }  # fmt: skip
    frame = pd.DataFrame([blank | row for row in rows])
    frame["observed_at"] = pd.to_datetime(frame["observed_at"])
    return frame.assign(time=decimal_year(frame["observed_at"]))


# Conformance ----------------------------------------------------------------------------------------


@EVERY
def test_says_what_it_models(one: Indicator):
    assert (one.law.__doc__ or "").strip().endswith(".")
    assert one.name == one.law.__name__
    assert inspect.signature(one.law).return_annotation == "Law"


@EVERY
def test_every_id_has_a_family_and_stands_in_the_registry(one: Indicator, archive):
    assert set(one.family) == set(one.ids)
    assert all(one.family.values())
    assert len(set(one.ids)) == len(one.ids)
    assert set(one.ids) - {"software_growth"} <= set(archive.indicators.index)


def test_no_id_is_taken_twice():
    ids = [i for one in INDICATORS.values() for i in one.ids]
    assert len(set(ids)) == len(ids)


def assert_documented(name: str, p: Parameter) -> None:
    assert p.source, f"{name} has no source"
    assert p.unit, f"{name} has no unit"
    assert p.meaning, f"{name} has no meaning"
    assert p.role in ROLES
    assert p.prior.family in FAMILIES
    assert dt.date(2023, 1, 1) <= p.informed <= dt.date(2026, 6, 30)


@EVERY
def test_every_own_parameter_has_a_source_and_a_unit(one: Indicator):
    for name, p in one.own.items():
        assert_documented(f"{one.name}.{name}", p)


def test_every_shared_parameter_has_a_source_and_a_unit():
    for name, p in (obs.SHARED | obs.deviation_parameters(2026.5)).items():
        assert_documented(name, p)


@EVERY
def test_arguments_are_known_parameters(one: Indicator):
    elsewhere = {n for other in INDICATORS.values() if not other.per_id for n in other.own}
    assert set(one.shared) <= set(obs.SHARED) | set(SHARED) | elsewhere
    assert not set(one.shared) & set(one.own)
    arguments = set(inspect.signature(one.law).parameters)
    assert arguments == {"read", "y", *one.own, *one.shared}


def test_own_names_do_not_collide():
    names = [n for one in INDICATORS.values() if not one.per_id for n in one.own]
    names += [*obs.SHARED, *SHARED]
    assert len(set(names)) == len(names)


@EVERY
def test_parameters_have_one_copy_for_each_id_or_one_for_all(one: Indicator):
    found = one.parameters(one.ids)
    if one.per_id:
        assert set(found) == {f"{i}.{n}" for i in one.ids for n in one.own}
        assert set(one.parameters(one.ids[:1])) == {f"{one.ids[0]}.{n}" for n in one.own}
    else:
        assert found == one.own


@EVERY
def test_shipped_rows_become_finite_observations(one: Indicator, selection):
    rows = selection.rows[selection.rows["indicator"] == one.name]
    assert len(rows) or set(one.ids) <= ind.UNPUBLISHED
    y = one.prepare(rows)
    assert all(len(field) == len(rows) for field in y)
    value = y.exact
    assert np.isfinite(y.low[value]).all()
    assert (y.low <= y.high).all()
    assert (np.isfinite(y.low) | np.isfinite(y.high)).all()
    assert (y.se_low >= 0).all() and (y.se_high >= 0).all()
    assert np.isfinite(y.se_low).all() and np.isfinite(y.se_high).all()
    assert not np.isnan(y.n).any()


def reading(rows: pd.DataFrame, **paths: float) -> Reading:
    """Constant paths: `at` gives them, `start` zero, capability 2, disclosure .5."""
    full = dict.fromkeys(Path._fields, 1.0) | {"ds": 2.0} | paths
    size = len(rows)
    return Reading(
        rows, lambda name, lag=0.0: np.full(size, full[name]), lambda name: full["ds"] if name == "ds" else 0.0,
        np.full(size, 2.0), np.full(size, 0.7), 5.0, np.full(size, 0.5),
    )  # fmt: skip


def law_of(name: str, rows: pd.DataFrame, view: Reading | None = None, **changed: float) -> Any:
    one = INDICATORS[name]
    known = obs.SHARED | SHARED | {n: p for i in INDICATORS.values() for n, p in i.own.items()}
    theta = {n: float(known[n].prior.quantile(0.5)) for n in (*one.own, *one.shared)} | changed
    if one.per_id:
        theta = {n: np.full(len(rows), x) if n in one.own else x for n, x in theta.items()}
    return one.law(view or reading(rows), one.prepare(rows), **theta)


@EVERY
def test_law_has_one_entry_per_row_and_a_positive_spread(one: Indicator, selection):
    rows = selection.rows[selection.rows["indicator"] == one.name]
    view = reading(rows)
    if one.name == "index_slope_ratio":
        view = Reading(**(vars(view) | {"at": lambda name, lag=0.0: np.full(len(rows), 3.0 - lag)}))
    law = law_of(one.name, rows, view)
    expected = Shortfall if one.flagship_rows else Reported
    assert isinstance(law, SHARED_LAWS.get(one.name, expected))
    for name, field in zip(law._fields, law, strict=True):
        assert np.shape(field) == (len(rows),), name
        assert np.isfinite(field).all(), name
    for name in set(law._fields) & {"sd", "sd_low", "sd_high", "scale"}:
        assert (getattr(law, name) > 0).all(), name


# Category coverage ----------------------------------------------------------------------------------


def test_all_categories_of_the_report_have_rows(selection, archive):
    rows = selection.rows[selection.rows["indicator"] != "software_growth"]
    categories = rows["indicator_id"].map(archive.indicators["category"])
    assert set(categories) == {"broad_capability", "rnd_ladder", "company_signs"}
    assert categories.value_counts().min() >= 30


def test_rows_of_each_family(selection):
    families = {i: f for one in INDICATORS.values() for i, f in one.family.items()}
    found = set(selection.rows["indicator_id"].map(families))
    assert found == {
        "long tasks", "broad index", "messy tasks", "new facts", "engineering", "experiments", "uplift, trials",
        "uplift, self-report", "delegated work", "pace", "internal gap", "staff and spending", "software growth",
        "impressions",
    }  # fmt: skip
    assert found == {f for i, f in families.items() if i not in ind.UNPUBLISHED}


def test_ladder_agrees_with_the_rungs_of_the_registry(archive):
    rung = archive.indicators["rung"]
    assert set(rung[list(ind.ENGINEERING)]) == {"engineering"}
    assert set(rung[list(ind.EXPERIMENTS)]) == {"experiments"}
    assert set(archive.indicators.loc[list(ind.MESSY), "category"]) == {"broad_capability"}


@EVERY
def test_public_benchmarks_are_the_first_two_categories(one: Indicator, archive):
    ids = [i for i in one.ids if i != "software_growth"]
    category = set(archive.indicators.loc[ids, "category"])
    assert category <= ({"broad_capability", "rnd_ladder"} if one.flagship_rows else {"company_signs"})


def test_scores_are_in_percent_and_rise_with_capability(archive):
    benchmarks = archive.indicators.loc[[*ind.MESSY, *ind.ENGINEERING, *ind.EXPERIMENTS]]
    assert set(benchmarks["unit"]) == {"percent"}
    assert benchmarks["direction"].str.startswith("up").all()


# Links by hand --------------------------------------------------------------------------------------


def prepared(name: str, **row: Any) -> Observed:
    return INDICATORS[name].prepare(table(row))


def test_standard_errors_come_from_the_interval():
    rows = table({"value": 10.0, "lower": 6.0, "upper": 20.0, "interval_level": 0.95}, {"value": 10.0})
    below, above = obs.standard_errors(rows, np.log)
    z = 1.959963984540054
    np.testing.assert_allclose(below, [np.log(10 / 6) / z, 0.0])
    np.testing.assert_allclose(above, [np.log(2) / z, 0.0])


def test_standard_errors_follow_the_level():
    below, _ = obs.standard_errors(
        table({"value": 1.0, "lower": 0.0, "upper": 2.0, "interval_level": 0.68}), lambda v: v
    )
    assert below[0] == pytest.approx(1 / stats.norm.ppf(0.84))


def test_horizon_is_ln_minutes_with_two_errors():
    y = prepared("time_horizon", value=120.0, lower=60.0, upper=360.0, interval_level=0.95)
    assert y.low == y.high == pytest.approx(np.log(120))
    assert y.se_low == pytest.approx(np.log(2) / 1.959964, rel=1e-6)
    assert y.se_high == pytest.approx(np.log(3) / 1.959964, rel=1e-6)


def test_horizon_beyond_960_minutes_is_right_censored():
    y = prepared("time_horizon", value=1044.8, lower=500.0, upper=3300.0, interval_level=0.95)
    assert y.low[0] == pytest.approx(np.log(960))
    assert y.high[0] == np.inf
    assert prepared("time_horizon", value=960.0).exact.all()


def test_censored_horizons_of_the_shipped_data(selection):
    rows = selection.rows[selection.rows["indicator"] == "time_horizon"]
    y = INDICATORS["time_horizon"].prepare(rows)
    assert rows["entity"][~y.exact].tolist() == ["claude_mythos_preview_early"]


def test_index_points_are_taken_as_they_are():
    y = prepared("capability_index", value=141.7)
    assert y.low == y.high == 141.7


@pytest.mark.parametrize("name", ["ladder", "messy_tasks"])
def test_counted_score_is_a_logit_with_half_a_success_added(name):
    y = prepared(name, value=40.0, n=50.0)
    share = (20 + 0.5) / 51
    u = 0.97
    assert y.low[0] == pytest.approx(np.log(share / (u - share)))
    assert y.low == y.high
    slope = 1 / share + 1 / (u - share)
    assert y.se_low[0] == y.se_high[0] == pytest.approx(slope * np.sqrt(share * (1 - share) / 50))


def test_score_without_a_count_takes_its_error_from_the_interval():
    y = prepared("ladder", value=28.0, lower=24.0, upper=30.0, interval_level=0.68)
    z = stats.norm.ppf(0.84)
    assert y.low[0] == pytest.approx(np.log(0.28 / 0.69))
    assert y.se_low[0] == y.se_high[0] == pytest.approx((1 / 0.28 + 1 / 0.69) * (0.04 + 0.02) / 2 / z)


@pytest.mark.parametrize("n", [75, 731])
def test_once_nearly_all_tasks_are_solved_a_score_is_a_bound(n):
    edge = 0.97 - 4 * np.sqrt(0.97 * 0.03 / n)
    k = np.arange(n + 1)
    y = [prepared("ladder", value=100 * x / n, n=float(n)) for x in k]
    bound = np.array([not one.exact[0] for one in y])
    np.testing.assert_array_equal(bound, (k + 0.5) / (n + 1) > edge)
    for one in (one for one, full in zip(y, bound, strict=True) if full):
        assert one.high[0] == np.inf and one.low[0] == pytest.approx(np.log(edge / (0.97 - edge)))


@pytest.mark.parametrize("n", [75, 200, 731])
@pytest.mark.parametrize("true", [-2.0, 0.0, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0])
def test_scores_do_not_speak_against_the_truth(n, true):
    """No other logit than the true one explains scores of tasks solved at random better, on average."""
    rng, size, spread, scale = np.random.default_rng(1), 4000, 0.3, 0.2
    latent = true - rng.exponential(scale, size) + rng.normal(0.0, spread, size)
    value, se, full = obs.solved(rng.binomial(n, 0.97 * special.expit(latent)), np.full(size, float(n)))
    y = Observed(value, np.where(full, np.inf, value), se, se, np.full(size, float(n)))

    def mean_log_p(mu: float) -> float:
        law = Shortfall(np.full(size, mu), np.hypot(se, spread), np.full(size, scale))
        return float(law.logp(y, y.at).mean())

    best = max(mean_log_p(mu) for mu in np.linspace(-4, 14, 73))
    assert best - mean_log_p(true) < 0.1


def test_no_score_of_the_shipped_data_is_a_bound(selection):
    scored = [n for n in selection.rows["indicator"] if INDICATORS[n].prepare is obs.scores]
    assert all(
        INDICATORS[n].prepare(selection.rows[selection.rows["indicator"] == n]).exact.all()
        for n in dict.fromkeys(scored)
    )


def test_scores_of_nothing_and_of_everything_stay_finite():
    for value in (0.0, 97.0, 100.0):
        y = prepared("ladder", value=value)
        assert np.isfinite(y.low).all() and np.isfinite(y.se_low).all()
    assert prepared("ladder", value=0.0, n=100.0).low[0] == pytest.approx(
        np.log((0.5 / 101) / (0.97 - 0.5 / 101))
    )


def test_task_time_turns_into_speed_with_its_interval():
    # 19 % slower: ln speed-up -ln 1.19; the upper end of the time is the lower end of the speed.
    y = prepared("uplift_trial", value=19.0, lower=2.0, upper=39.0, interval_level=0.95)
    assert y.low == y.high == pytest.approx(-np.log(1.19))
    assert y.se_low[0] == pytest.approx(np.log(1.39 / 1.19) / 1.959964, rel=1e-6)
    assert y.se_high[0] == pytest.approx(np.log(1.19 / 1.02) / 1.959964, rel=1e-6)
    assert prepared("uplift_trial", value=-18.0).low[0] > 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("reported_gain", 50.0, np.log(1.5)),
        ("reported_multiplier", 3.0, np.log(3)),
        ("work_share", 59.0, np.log(0.59 / 0.41)),
        ("code_output", 8.0, np.log(8)),
        ("internal_gap", 42.0, np.log(42 / 365.25)),
        ("headcount", 4500.0, np.log(4500)),
        ("compute_spending", 5.0, np.log(5)),
        ("software_growth", 0.1, 0.1),
    ],
)
def test_links_of_exact_company_signs(name, value, expected):
    y = prepared(name, value=value)
    assert y.low[0] == y.high[0] == pytest.approx(expected)


def test_links_of_bounds_and_intervals():
    y = prepared("code_share", value=80.0, bound="lower")
    assert (y.low[0], y.high[0]) == (pytest.approx(np.log(4)), np.inf)
    y = prepared("overall_pace", value=2.0, bound="upper")
    assert (y.low[0], y.high[0]) == (-np.inf, pytest.approx(np.log(2)))
    y = prepared("code_share", value=20.0, lower=20.0, upper=30.0, bound="interval")
    assert (y.low[0], y.high[0]) == (pytest.approx(np.log(0.25)), pytest.approx(np.log(3 / 7)))
    y = prepared("index_slope_ratio", value=1.86, lower=1.86, upper=4.3, bound="interval")
    assert (y.low[0], y.high[0]) == (pytest.approx(np.log(1.86)), pytest.approx(np.log(4.3)))


def test_a_range_without_a_level_is_no_error_bar():
    y = prepared("headcount", value=100.0, lower=50.0, upper=200.0)
    assert y.se_low == y.se_high == 0.0
    assert y.exact.all()


def test_counts_come_from_percent_and_sample_size():
    y = prepared("dropin_researcher", value=5.56, n=18.0)
    assert (y.low[0], y.high[0], y.n[0]) == (1.0, 1.0, 18.0)
    assert prepared("dropin_researcher", value=0.0, n=4.0).low[0] == 0.0


def test_counts_of_the_shipped_data(selection):
    rows = selection.rows[selection.rows["indicator"] == "dropin_researcher"]
    y = INDICATORS["dropin_researcher"].prepare(rows)
    assert y.low.tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert y.n.tolist() == [4.0, 7.0, 18.0, 16.0, 18.0]


# Predictions by hand --------------------------------------------------------------------------------


def test_horizon_law():
    rows = table(
        {"indicator_id": "metr_th50_v11", "value": 60.0}, {"indicator_id": "metr_th50_v10", "value": 60.0}
    )
    law = law_of("time_horizon", rows, h0=1.0, h1=0.6, h2=0.1, tau_h=0.3, suite_10=0.25)
    np.testing.assert_allclose(law.mu, [1 + 1.2 + 0.2, 1 + 1.2 + 0.2 + 0.25])
    np.testing.assert_allclose(law.sd_low, 0.3)
    np.testing.assert_allclose(law.scale, (0.6 + 0.2) * 0.7)


def test_a_horizon_never_falls_with_capability_and_has_the_slope_that_is_said():
    e = np.linspace(-3.0, 60.0, 6301)
    for h1, h2 in ((0.6, 0.1), (0.6, 0.0), (0.9, -0.048), (0.6, -0.2)):
        minutes, slope = obs.log_horizon(e, 1.0, h1, h2)
        np.testing.assert_allclose(np.diff(minutes), (slope[1:] + slope[:-1]) / 2 * 0.01, atol=1e-5)
        assert (np.diff(minutes) > 0).all()
        early = h1 + h2 * e > obs.MIN_HORIZON_SLOPE
        np.testing.assert_allclose(minutes[early], (1.0 + h1 * e + h2 * e**2 / 2)[early])


def test_index_law_has_a_jump_for_reasoning_models():
    rows = table(
        {"value": 120.0, "reasoning": "yes"}, {"value": 120.0}, {"value": 120.0, "reasoning": "unknown"}
    )
    law = law_of("capability_index", rows, c0=125.0, c1=5.0, J=4.0, eci_sd=1.5)
    np.testing.assert_allclose(law.mu, [139.0, 135.0, 135.0])
    np.testing.assert_allclose(law.scale, 3.5)


@pytest.mark.parametrize("name", ["ladder", "messy_tasks"])
def test_benchmark_law(name):
    law = law_of(name, table({"value": 40.0, "n": 50.0}), slope=0.5, place=3.0, spread=0.4)
    assert law.mu[0] == pytest.approx(0.5 * (2 - 3))
    assert law.scale[0] == pytest.approx(0.35)
    assert law.sd[0] == pytest.approx(np.hypot(0.4, prepared(name, value=40.0, n=50.0).se_low[0]))


def test_trial_law_charges_early_tools():
    rows = table({"value": 19.0, "observed_at": "2025-06-30"}, {"value": -4.0, "observed_at": "2025-12-31"})
    law = law_of("uplift_trial", rows, reading(rows, log_m=0.5), selection=0.1, cost=0.2, programme_metr=0.03)
    np.testing.assert_allclose(law.mu, [0.23, 0.43])
    assert (law.shape == 0).all()


def test_self_report_laws_tell_speed_from_value_and_who_asks():
    shared = {"hype_value": 0.2, "hype_speed": 0.5, "programme_anthropic": 0.01, "programme_metr": 0.03}
    rows = table(
        {"indicator_id": "staff_productivity", "value": 50},
        {"indicator_id": "card_productivity_median", "value": 100},
    )
    gain = {n: x for n, x in shared.items() if n != "programme_metr"}
    law = law_of("reported_gain", rows, **gain, respondents_anthropic=0.07)
    np.testing.assert_allclose(law.mu, [1 + 0.2 + 0.01 + 0.07, 1 + 0.5 + 0.01])
    rows = table(
        {"indicator_id": "staff_uplift_factor", "value": 4}, {"indicator_id": "staff_uplift_factor", "value": 2, "company": "industry"},
        {"indicator_id": "metr_survey_speed", "value": 3, "company": "industry"},
        {"indicator_id": "metr_survey_value", "value": 2, "company": "industry"},
    )  # fmt: skip
    law = law_of("reported_multiplier", rows, **shared, respondents_metr=0.07)
    np.testing.assert_allclose(law.mu, [1.51, 1.53, 1.6, 1.3])
    assert (law.shape == 0.5).all()


def test_delegated_work_laws():
    rows = table(*({"value": 25.0, "company": c} for c in ("Anthropic", "Google", "Microsoft")))
    law = law_of("code_share", rows, code_anthropic=0.1, code_google=0.2, code_microsoft=0.3)
    np.testing.assert_allclose(law.mu, [1.1, 1.2, 1.3])
    assert law_of("work_share", table({"value": 28.0}), use_offset=0.7).mu[0] == pytest.approx(1.7)
    law = law_of(
        "code_output",
        table({"value": 2.0}),
        reading(table({"value": 2.0}), log_m=0.5),
        kappa=1.8,
        code_level=0.1,
    )
    assert law.mu[0] == pytest.approx(1.0)


def test_pace_laws():
    rows = table({"value": 2.0, "bound": "upper"})
    assert law_of("overall_pace", rows, reading(rows, log_W=0.3)).mu[0] == pytest.approx(0.3)
    e = {0.0: 10.0, 1.0: 6.0, 2.0: 4.0}
    view = Reading(**(vars(reading(rows)) | {"at": lambda name, lag=0.0: np.array([e[lag]])}))
    law = law_of("index_slope_ratio", rows, view, c1=5.0, J=5.0)
    assert law.mu[0] == pytest.approx(np.log(5 / 2))


def test_remaining_company_laws():
    assert law_of("internal_gap", table({"value": 42.0}), release_gap=0.12).mu[0] == pytest.approx(
        np.log(0.12)
    )
    rows = table(
        {"value": 4500.0, "company": "OpenAI", "observed_at": "2026-01-01"},
        {"value": 900.0, "observed_at": "2025-01-01"},
    )
    law = law_of("headcount", rows, gL=0.6, staff_openai=8.0, staff_anthropic=7.0)
    np.testing.assert_allclose(law.mu, [8.6, 7.0])
    rows = table({"value": 5.0, "observed_at": "2026-01-01"})
    law = law_of("compute_spending", rows, reading(rows, k=4.2), gK1=1.4, spend_openai=1.6, price_fall=0.3)
    assert law.mu[0] == pytest.approx(1.6 + (4.2 - 2.8) - 0.3)
    rows = table(
        {"value": 0.0, "lower": -0.2, "upper": 0.2, "interval_level": float(2 * stats.norm.cdf(1) - 1)}
    )
    view = reading(rows, ds=2.0, log_P=0.55)
    law = law_of("software_growth", rows, view)
    assert law.mu[0] == pytest.approx(-0.55 / 2.75)
    assert law.sd[0] == pytest.approx(0.2)


def test_drop_in_law_asks_for_the_third_rung():
    rows = table({"value": 0.0, "n": 18.0})
    law = law_of("dropin_researcher", rows, reading(rows, eD=6.0), g2=1.0, g3=2.0, g4=3.0, camp=-0.5)
    # The mean of the four rungs is d50 = 5: places 2.5, 3.5, 5.5, 8.5.
    assert law.probit[0] == pytest.approx(6.0 - 5.5 - 0.5)


def test_rungs_are_apart_by_their_gaps_and_centre_on_d50():
    places = ind.rung_places(5.0, 1.0, 2.0, 3.0)
    assert places == (2.5, 3.5, 5.5, 8.5)
    assert np.mean(places) == 5.0


# The correlated deviation ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 8, 30])
def test_deviation_factor_gives_the_ornstein_uhlenbeck_covariance(count):
    factor = dev.factor(count)
    years = 0.5 * np.arange(count)
    np.testing.assert_allclose(factor @ factor.T, np.exp(-np.abs(years[:, None] - years)), rtol=1e-12)
    assert (np.triu(factor, 1) == 0).all()


def test_deviation_knots_reach_past_the_last_row():
    np.testing.assert_array_equal(dev.knots(2024.0), [2023.0, 2023.5, 2024.0])
    assert dev.knots(2024.01)[-1] == 2024.5
    assert list(obs.deviation_parameters(2023.6)) == [
        "deviation_2023.0",
        "deviation_2023.5",
        "deviation_2024.0",
    ]


@pytest.mark.parametrize(
    ("entity", "company"),
    [
        ("Anthropic Q1 2026", "Anthropic"), ("Claude Opus 4.6", "Anthropic"), ("OpenAI mid-2025", "OpenAI"),
        ("Google", "Google"), ("Microsoft (low end of stated range)", "Microsoft"),
        ("Technical staff March 2026", "industry"),
    ],
)  # fmt: skip
def test_company_behind_an_entity(entity, company):
    assert obs.company_of(entity) == company


def test_every_company_row_has_a_company(selection):
    rows = selection.rows[selection.rows["kind"] == "company"]
    assert "industry" not in set(rows["company"])
