"""Milestones, first passage and predictions."""

from __future__ import annotations

import itertools
import time as clock
from pathlib import Path as FilePath

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from forecast.dynamics import DYNAMICS
from forecast.evidence import weights
from forecast.paths import Path, make_grid
from forecast.prediction import (
    BANDS,
    QUANTILES,
    QUANTITIES,
    Condition,
    Milestone,
    first_passage,
    ideation_place,
    load_milestones,
    milestone_cdf,
    mixture_cdf,
    passage_times,
    predict,
    report_dates,
    warning_lead,
)
from forecast.schema import InputError
from test_dynamics import prior_draws

SHIPPED = FilePath(__file__).parents[1] / "data" / "milestones.toml"
GRID = make_grid()
INF = np.inf


@pytest.fixture(scope="module")
def milestones() -> dict[str, Milestone]:
    return load_milestones(SHIPPED)


def flat_path(grid: np.ndarray = GRID, **fields: np.ndarray) -> Path:
    """Path whose fields are zero except those given, (draw, time)."""
    shape = np.broadcast_shapes((1, grid.size), *(x.shape for x in fields.values()))
    given = {name: np.broadcast_to(x, shape) for name, x in fields.items()}
    zero = np.zeros(shape)
    return Path(grid, *(given.get(f, zero) for f in Path._fields[1:-1]), np.zeros(shape[:-1]))


def milestone(*conditions: Condition, duration: float = 0.0) -> Milestone:
    return Milestone("x", "x", conditions, duration, "x", "x")


def with_observation_parameters(theta: dict[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Add prior draws of the parameters that milestones read besides the path's."""
    rng = np.random.default_rng(seed)
    n = len(theta["g0"])
    gaps = {
        key: m * np.exp(0.6 * rng.standard_normal(n)) for key, m in (("g2", 1.5), ("g3", 2.5), ("g4", 2.5))
    }
    horizon = {
        "h0": np.log(4) + 0.7 * rng.standard_normal(n),
        "h1": 0.6 * np.exp(0.5 * rng.standard_normal(n)),
        "h2": 0.02 + 0.04 * rng.standard_normal(n),
    }
    return theta | gaps | horizon | {"release_gap": 0.12 * np.exp(0.5 * rng.standard_normal(n))}


# First passage ----------------------------------------------------------------------------------------


def test_an_exponential_path_passes_its_threshold_at_the_known_date():
    rate = np.array([[0.2], [0.5], [1.0]])
    path = flat_path(log_W=rate * (GRID - 2025.0).clip(0))
    # W = e^{rate (t - 2025)} reaches 3 at 2025 + ln 3 / rate; the grid's next quarter is the date.
    exact = 2025.0 + np.log(3.0) / rate[:, 0]
    found = passage_times(milestone(Condition("W", 3.0, "above")), path, {})
    np.testing.assert_allclose(found, np.ceil(exact * 4) / 4)


def test_a_threshold_met_exactly_counts_above_and_not_below():
    path = flat_path(e=np.array([[0.0, 1.0, 2.0]]), grid=GRID[:3])
    assert passage_times(milestone(Condition("e", 1.0, "above")), path, {}) == GRID[1]
    falling = path._replace(e=-path.e)
    assert passage_times(milestone(Condition("e", -1.0, "below")), falling, {}) == GRID[2]


def test_never_is_infinite():
    path = flat_path(log_H=np.full((3, GRID.size), np.log(0.6)))
    assert passage_times(milestone(Condition("H", 0.5, "below")), path, {}).tolist() == [INF] * 3


@pytest.mark.parametrize(
    ("holds", "duration", "date"),
    [
        ("00110000", 0.0, 2023.5),
        ("00110000", 0.25, 2023.5),
        ("00110000", 0.5, 2023.5),
        ("01011000", 0.5, 2023.75),  # A single quarter is no spell of two.
        ("01011000", 1.0, INF),
        ("01101111", 1.0, 2024.0),
        ("00000001", 0.0, 2024.75),
        ("00000001", 0.5, INF),  # Cut by the end of the grid.
        ("11111111", 1.0, 2023.0),
        ("11111111", 9.0, INF),
    ],
)
def test_a_spell_must_last(holds, duration, date):
    mask = np.array([list(holds)]) == "1"
    assert first_passage(GRID[:8], mask, duration).tolist() == [date]


def test_the_same_duration_takes_more_points_on_a_monthly_grid():
    monthly = make_grid(2025.0, 12)
    mask = np.zeros((2, monthly.size), bool)
    mask[0, 3:8], mask[1, 3:9] = True, True
    assert first_passage(monthly, mask, 0.5).tolist() == [INF, 2023.25]


@given(
    st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_first_passage_is_the_first_start_of_a_long_enough_spell(rows, duration):
    time = GRID[:12]
    n = max(1, round(duration * 4))
    starts = [[i for i in range(13 - n) if all(row[i : i + n])] for row in rows]
    expected = [time[s[0]] if s else INF for s in starts]
    assert first_passage(time, np.array(rows), duration).tolist() == expected


def test_conditions_hold_together_or_not_at_all():
    path = flat_path(
        logit_F=np.linspace(-6, 6, GRID.size)[None], log_H=np.log(np.linspace(0.9, 0.05, GRID.size))[None]
    )
    both = milestone(Condition("F", 0.9, "above"), Condition("H", 0.2, "above"), duration=1.0)
    f = first_passage(GRID, path.F >= 0.9)
    assert passage_times(both, path, {}) == f
    faster = path._replace(log_H=path.log_H * 4)
    assert passage_times(both, faster, {}).tolist() == [INF]


def test_the_warning_lasts_from_one_and_a_half_to_three():
    rise = np.array([[0.5], [1.0], [0.1], [0.0]]) * (GRID - 2025.0).clip(0)
    sudden = np.where(GRID >= 2030.0, np.log(4.0), 0.0)[None]
    lead = warning_lead(flat_path(log_W=np.concatenate([rise, sudden])))

    def passes(level: float, rate: float) -> float:
        return np.ceil((2025 + np.log(level) / rate) * 4) / 4

    expected = [passes(3.0, rate) - passes(1.5, rate) for rate in (0.5, 1.0, 0.1)]
    assert lead.tolist() == [*expected, INF, 0.0]


# Quantities -------------------------------------------------------------------------------------------


def test_the_ideation_rung_is_where_the_indicators_put_it():
    from forecast.indicators import rung_places

    rng = np.random.default_rng(0)
    d50, g2, g3, g4 = rng.normal(10, 3, 20), *rng.lognormal(1, 0.5, (3, 20))
    np.testing.assert_allclose(ideation_place(d50, g2, g3, g4), rung_places(d50, g2, g3, g4)[2], rtol=1e-14)


def test_a_straight_line_of_capability_gives_the_horizon_in_closed_form():
    # e = 3 t and a quarter of a year from internal use to release: public capability is 3 t - .75.
    path = flat_path(e=3.0 * (GRID - 2023.0)[None])
    theta = {"h0": np.log(4.0), "h1": 0.5, "h2": 0.0, "release_gap": 0.25}
    line = milestone(Condition("horizon_minutes", 10020.0, "above"))
    exact = 2023.0 + (np.log(10020.0 / 4.0) / 0.5 + 0.75) / 3.0
    assert passage_times(line, path, theta) == np.ceil(exact * 4) / 4


def test_a_plateau_needs_a_halved_gain_and_an_unhurried_pace(milestones):
    years = GRID - 2023.0
    steady = 3 * years
    stalled = np.where(years < 6, 3 * years, 18 + 0.3 * (years - 6))
    hurried = np.where(GRID >= 2026.0, np.log(1.6), 0.0)
    passed = np.where((GRID >= 2026.0) & (GRID < 2026.5), np.log(1.6), 0.0)
    path = flat_path(
        e=np.stack([steady, stalled, stalled, stalled]),
        log_W=np.stack([0 * years, 0 * years, hurried, passed]),
    )
    theta = {"ts": np.array([2040.0, 2030.0, 2030.0, 2030.0])}
    dates = passage_times(milestones["plateau"], path, theta)
    # The gain of 24 months falls from 6 nats by 2.7 a year of stall, and is halved when 3 are gone.
    halved = 2029.0 + (6 - 3) / (3 - 0.3)
    assert dates.tolist() == [INF, np.ceil(halved * 4) / 4, INF, INF]
    assert passage_times(milestones["plateau_before_compute_slows"], path, theta)[1] == INF
    later = {"ts": np.full(4, 2031.0)}
    assert passage_times(milestones["plateau_before_compute_slows"], path, later)[1] == dates[1]


def test_the_internal_gap_is_now_or_never(milestones):
    theta = {"release_gap": np.array([0.1, 0.5, 0.7])}
    dates = passage_times(milestones["internal_gap_6_months"], flat_path(e=np.zeros((3, GRID.size))), theta)
    assert dates.tolist() == [INF, 2023.0, 2023.0]


def test_a_path_far_past_a_threshold_does_not_overflow():
    path = flat_path(log_m=np.full((1, GRID.size), 5000.0), e=np.full((1, GRID.size), 500.0))
    assert passage_times(milestone(Condition("m", 1000.0, "above")), path, {}) == 2023.0
    theta = {"h0": 0.0, "h1": 1.0, "h2": 1.0, "release_gap": 0.0}
    assert np.isfinite(QUANTITIES["horizon_minutes"].of(path, theta)).all()


# Distributions ----------------------------------------------------------------------------------------


def test_the_distribution_counts_draws_and_keeps_never():
    times = np.array([[2026.0, 2028.0, INF, INF], [2026.0, 2026.0, 2030.0, INF]])
    cdf = milestone_cdf(times, [2025.0, 2026.0, 2030.0])
    assert cdf.probability.tolist() == [0.0, 3 / 8, 5 / 8]
    assert cdf.never == 3 / 8
    # Chain means 1/4 and 1/2: sd .1768 over root 2.
    np.testing.assert_allclose(cdf.se, [0.0, 0.125, 0.125])
    assert cdf.never_se == pytest.approx(0.125)


def test_one_chain_has_binomial_errors():
    cdf = milestone_cdf(np.r_[np.full(30, 2026.0), np.full(70, INF)], [2027.0])
    assert cdf.se[0] == pytest.approx(np.sqrt(0.3 * 0.7 / 100)) and cdf.never == pytest.approx(0.7)


def test_a_date_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        milestone_cdf([2026.0, np.nan], [2027.0])


dates = st.one_of(st.floats(2023.0, 2041.0), st.just(INF))


@given(st.lists(dates, min_size=1, max_size=40), st.lists(st.floats(2020.0, 2050.0), min_size=1, max_size=10))
def test_a_distribution_never_falls_and_ends_at_one(times, when):
    cdf = milestone_cdf(times, sorted(when))
    assert (np.diff(cdf.probability) >= 0).all()
    assert ((cdf.probability >= 0) & (cdf.probability <= 1)).all()
    assert cdf.probability[-1] + cdf.never <= 1 + 1e-12
    assert milestone_cdf(times, [2041.0]).probability[0] + cdf.never == pytest.approx(1)


def test_the_mixture_is_the_weighted_sum():
    rng = np.random.default_rng(0)
    passages = {
        name: np.where(rng.random((4, 50)) < 0.3, INF, rng.uniform(2023, 2041, (4, 50))) for name in "abc"
    }
    weights, when = {"a": 0.5, "b": 0.3, "c": 0.2}, [2026.0, 2030.0, 2041.0]
    mixed = mixture_cdf(passages, weights, when)
    parts = {name: milestone_cdf(x, when) for name, x in passages.items()}
    np.testing.assert_allclose(mixed.probability, sum(w * parts[n].probability for n, w in weights.items()))
    assert mixed.never == pytest.approx(sum(w * parts[n].never for n, w in weights.items()))
    np.testing.assert_allclose(mixed.se**2, sum((w * parts[n].se) ** 2 for n, w in weights.items()))


def test_errors_of_weights_reach_the_mixture():
    sure = {"a": np.full((2, 10), 2030.0), "b": np.full((2, 10), INF), "c": np.full((2, 10), 2030.0)}
    log_evidence = np.random.default_rng(1).normal([[0.0], [0.5], [-1.0]], 0.2, (3, 8))
    found = weights(log_evidence, np.full(3, 1 / 3))
    mixed = mixture_cdf(
        sure, dict(zip("abc", found.posterior, strict=True)), [2031.0, 2029.0], found.covariance
    )
    # All of `a` and `c` and none of `b` have happened: the error is that of the weight of `b`.
    np.testing.assert_allclose(mixed.se, [found.posterior_se[1], 0.0], atol=1e-12)
    assert mixed.never_se == pytest.approx(found.posterior_se[1])
    # What has happened under every dynamic, or none, does not hang on their weights.
    assert found.covariance.sum(0) == pytest.approx(np.zeros(3), abs=1e-12)


def test_a_mixture_with_senseless_weights_is_refused():
    passages = {"amdahl": np.array([2030.0])}
    assert mixture_cdf(passages, {"amdahl": 1.0, "decaying": 0.0}, [2031.0]).probability.tolist() == [1.0]
    for senseless in ({"amdahl": 0.9}, {"amdahl": 1.5, "decaying": -0.5}):
        with pytest.raises(ValueError, match="sum to 1"):
            mixture_cdf(passages, senseless, [2031.0])
    with pytest.raises(ValueError, match=r"no passages for 'amdhal'.*did you mean 'amdahl'"):
        mixture_cdf(passages, {"amdhal": 1.0}, [2031.0])


def test_the_reported_dates_are_year_starts():
    assert report_dates()["2027-01-01"] == 2027.0
    assert list(report_dates()) == [f"{y}-01-01" for y in (2027, 2028, 2029, 2030, 2032, 2035, 2040)]


# Prediction -------------------------------------------------------------------------------------------


def draws_of(name: str, chains: int, draws: int) -> xr.Dataset:
    theta = with_observation_parameters(prior_draws(name, chains * draws, seed=11))
    own = DYNAMICS[name].parameters
    return xr.Dataset(
        {
            f"{name}.{key}" if key in own else key: (("chain", "draw"), x.reshape(chains, draws))
            for key, x in theta.items()
        },
        coords={"chain": range(chains), "draw": range(draws)},
    )


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_shipped_milestone_evaluates_on_prior_draws(name, milestones):
    theta = draws_of(name, 2, 100).assign(deviation=(("chain", "draw", "knot"), np.zeros((2, 100, 3))))
    result = predict(name, theta, milestones)
    assert dict(result.sizes) == {
        "milestone": len(milestones), "chain": 2, "draw": 100, "quantity": 6, "quantile": 7, "time": 73
    }  # fmt: skip
    assert result["passage"].dims == ("milestone", "chain", "draw")
    assert result["warning_lead"].dims == ("chain", "draw")
    assert result["bands"].dims == ("quantity", "quantile", "time")
    assert not result["passage"].isnull().any() and not result["warning_lead"].isnull().any()
    assert np.isfinite(result["bands"]).all()
    assert result["passage"].min() >= 2023.0
    assert (result["bands"].diff("quantile") >= 0).all()
    assert result["quantity"].values.tolist() == list(BANDS) and result["quantile"].values.tolist() == list(
        QUANTILES
    )
    assert (result["bands"].sel(quantity=["m", "P", "W"]) >= 1 - 1e-12).all()
    # Higher thresholds come later.
    for family in (
        ["W_1_5", "W_2", "W_3", "W_5", "W_10", "W_100"],
        ["F_50", "F_90", "F_99"],
        ["H_50", "H_20", "H_10", "H_1"],
    ):
        for low, high in itertools.pairwise(family):
            assert (result["passage"].sel(milestone=low) <= result["passage"].sel(milestone=high)).all()
    single = predict(name, theta.isel(chain=[1], draw=[7]), milestones)
    np.testing.assert_array_equal(single["passage"].squeeze(), result["passage"].isel(chain=1, draw=7))


def test_dynamics_leave_their_marks_on_the_milestones(milestones):
    never = {}
    for name in DYNAMICS:
        passage = predict(name, draws_of(name, 1, 400), milestones)["passage"]
        never[name] = np.isinf(passage).mean(("chain", "draw"))
    assert never["amdahl"].sel(milestone="H_1") > 0.9 > 0.5 > never["explosive"].sel(milestone="H_1")
    assert (
        never["expanding_pie"].sel(milestone="divergence")
        < 0.5
        < never["explosive"].sel(milestone="divergence")
    )
    assert never["decaying"].sel(milestone="plateau") < min(
        never[n].sel(milestone="plateau") for n in never if n != "decaying"
    )


def test_a_mapping_of_plain_draws_predicts_the_same(milestones):
    labelled = draws_of("amdahl", 1, 20)
    plain = {str(key).removeprefix("amdahl."): x.to_numpy()[0] for key, x in labelled.items()}
    xr.testing.assert_identical(predict("amdahl", plain, milestones), predict("amdahl", labelled, milestones))
    plain["gL"] = 0.65
    assert predict("amdahl", plain, {}).sizes["milestone"] == 0


def test_dims_may_come_in_any_order(milestones):
    theta = draws_of("decaying", 2, 5)
    xr.testing.assert_identical(
        predict("decaying", theta.transpose("draw", "chain"), milestones),
        predict("decaying", theta, milestones),
    )


def test_four_thousand_draws_take_less_than_a_second(milestones):
    theta = draws_of("expanding_pie", 4, 1000)
    best = INF
    for _ in range(3):
        start = clock.perf_counter()
        predict("expanding_pie", theta, milestones)
        best = min(best, clock.perf_counter() - start)
    assert best < 1.0


def test_predictions_that_cannot_be_made_say_why(milestones):
    theta = draws_of("amdahl", 1, 3)
    with pytest.raises(InputError, match="unknown dynamic 'amdhal'; did you mean 'amdahl'"):
        predict("amdhal", theta, milestones)
    with pytest.raises(InputError, match="amdahl: the draws lack parameter 'tau'"):
        predict("amdahl", theta.drop_vars("tau"), milestones)
    with pytest.raises(InputError, match="milestone 'horizon_167h' needs parameter 'h1'"):
        predict("amdahl", theta.drop_vars("h1"), milestones)
    broken = theta.copy(deep=True)
    broken["v"][0, 1] = np.nan
    with pytest.raises(InputError, match="draws of 'v' are not all finite"):
        predict("amdahl", broken, milestones)


# The file ---------------------------------------------------------------------------------------------


def test_the_shipped_milestones_cover_the_design(milestones):
    stated = {str(c) for m in milestones.values() for c in m.conditions}
    wanted = [f"m >= {x}" for x in (10, 100, 1000)] + [f"W >= {x}" for x in (1.5, 2, 3, 5, 10, 100)]
    wanted += [f"H < {x}" for x in (0.5, 0.2, 0.1, 0.01)] + [f"F >= {x}" for x in (0.5, 0.9, 0.99)]
    wanted += ["ideation_margin >= 0", "horizon_minutes >= 10020", "release_gap >= 0.5", "gain_ratio < 0.5"]
    assert set(wanted) <= stated
    assert all(m.duration == 0.5 for name, m in milestones.items() if name.startswith("W_"))
    assert milestones["divergence"].duration == 1.0
    assert "March 2028" in milestones["automated_ai_researcher"].source
    assert all(len(m.resolution) > 80 and "\n" not in m.resolution + m.source for m in milestones.values())


GOOD = """
[m_10]
title = "Ten times"
quantity = "m"
threshold = 10
direction = "above"
duration = 0
resolution = "A panel says so."
source = "judgement"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold", "thresold", "milestone 'm_10': unknown field 'thresold'; did you mean 'threshold'?"),
        ("title", "zzz", "milestone 'm_10': unknown field 'zzz'; known are title, quantity,"),
        ('"m"', '"w"', "milestone 'm_10': unknown quantity 'w'"),
        ('"m"', '"gain_rate"', "unknown quantity 'gain_rate'; did you mean 'gain_ratio'?"),
        ('"above"', '"abov"', "milestone 'm_10': unknown direction 'abov'; did you mean 'above'?"),
        ("= 10\n", '= "10"\n', "milestone 'm_10': 'threshold' must be a finite number; got '10'"),
        ("= 10\n", "= nan\n", "'threshold' must be a finite number; got nan"),
        ("= 10\n", "= true\n", "'threshold' must be a finite number; got True"),
        ("= 10\n", "= 0.5\n", "threshold 0.5 of 'm' is not in 1 to inf"),
        ("duration = 0", "duration = -1", "duration -1 is not in 0 to 10; give years"),
        ("duration = 0", "", "'duration' must be a finite number; got None"),
        ('"judgement"', '" "', "milestone 'm_10': 'source' must be text that is not empty"),
        ('resolution = "A panel says so."', "", "'resolution' must be text that is not empty"),
        ("duration = 0", "duration = 0\nand = 3", "'and' must be a list of tables of quantity,"),
        ("duration = 0", "duration = 0\nand = [3]", "condition 1 of 'and': must be a table of quantity, "),
        (
            "duration = 0",
            'duration = 0\nand = [{quantity = "H", threshold = 20, direction = "above"}]',
            "condition 1 of 'and': threshold 20 of 'H' is not in 0 to 1; give a share, not a percentage",
        ),
        (
            "duration = 0",
            'duration = 0\nand = [{quantity = "H", threshold = 0.2, direction = "above", duration = 1}]',
            "condition 1 of 'and': unknown field 'duration'",
        ),
        (GOOD, "m_10 = 3", "milestone 'm_10': must be a table of title, "),
        (GOOD, "", "no milestones; add a table"),
        (GOOD, "[m_10", "not valid TOML"),
        (GOOD, GOOD + GOOD, "not valid TOML"),
    ],
)
def test_a_bad_milestone_file_is_refused_in_one_line(tmp_path, old, new, message):
    assert GOOD.count(old) == 1
    file = tmp_path / "milestones.toml"
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_milestones(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and message in text and "\n" not in text


def test_a_good_file_loads_and_unreadable_ones_say_why(tmp_path):
    file = tmp_path / "milestones.toml"
    file.write_text(GOOD, encoding="utf-8")
    assert load_milestones(file)["m_10"].conditions == (Condition("m", 10.0, "above"),)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not valid TOML"):
        load_milestones(file)
    with pytest.raises(InputError, match="cannot be read \\(No such file"):
        load_milestones(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read \\(Is a directory"):
        load_milestones(tmp_path)
