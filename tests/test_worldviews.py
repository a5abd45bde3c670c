"""The shipped worldviews, what a file may say, and the reference prior predictive."""

import dataclasses
import datetime
import math
from pathlib import Path

import numpy as np
import pytest

from forecast import dynamics as dyn
from forecast import indicators as ind
from forecast import observation as obs
from forecast.paths import SHARED
from forecast.priors import Beta, HalfNormal, LogNormal, LogUniform, Normal, PositiveNormal, Uniform
from forecast.schema import InputError
from forecast.worldviews import (
    before_news,
    check,
    differences,
    full_priors,
    known_parameters,
    late_lines,
    load_worldview,
    load_worldviews,
    prior_predictive,
)

PRIORS = Path(__file__).parents[1] / "priors"
HEAD = """
title = "A view"
[odds]
explosive = 0.25
decaying = 0.25
amdahl = 0.25
expanding_pie = 0.25
reason = "even"
"""
WHY = 'reason = "a reason"\nsource = "a source"\ninformed = 2025-12-31\n'


@pytest.fixture(scope="module")
def shipped():
    return load_worldviews(PRIORS)


@pytest.fixture
def write(tmp_path):
    def file(text: str, name: str = "view.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return file


# The shipped files -----------------------------------------------------------------------------------


def test_three_worldviews_load_neutral_first(shipped):
    assert list(shipped) == ["neutral", "plateau", "rapid"]
    assert [w.name for w in shipped.values()] == list(shipped)
    assert check(PRIORS) == []


def test_neutral_changes_nothing(shipped):
    neutral = shipped["neutral"]
    assert neutral.odds == dict.fromkeys(dyn.DYNAMICS, 0.25)
    assert neutral.lines == {} and neutral.priors == {}
    assert full_priors(neutral) == known_parameters()


@pytest.mark.parametrize(
    ("name", "odds"), [("rapid", (0.55, 0.10, 0.15, 0.20)), ("plateau", (0.05, 0.40, 0.35, 0.20))]
)
def test_odds_of_the_camps(shipped, name, odds):
    order = ("explosive", "decaying", "amdahl", "expanding_pie")
    assert tuple(shipped[name].odds[n] for n in order) == odds


CAMPS = {
    "f26": (Beta(9, 11), Beta(3, 12)),
    "v": (LogNormal(0.50, 0.25), LogNormal(0.28, 0.20)),
    "pL": (LogUniform(0.25, 0.60), LogUniform(0.10, 0.35)),
    "pK": (Uniform(0.0, 0.4), Uniform(0.4, 1.0)),
    "explosive.r": (LogUniform(1.2, 3.6), LogUniform(1.0, 1.5)),
    "amdahl.r": (LogUniform(0.8, 3.6), LogUniform(0.3, 1.2)),
    "expanding_pie.r": (LogUniform(0.8, 3.6), LogUniform(0.3, 1.2)),
    "decaying.r": (LogUniform(0.4, 1.0), LogUniform(0.25, 0.9)),
    "explosive.room": (Uniform(18, 37), Uniform(9, 23)),
    "amdahl.room": (Uniform(18, 37), Uniform(9, 23)),
    "expanding_pie.room": (Uniform(18, 37), Uniform(9, 23)),
    "decaying.room": (LogNormal(6, 0.4), LogNormal(3.5, 0.4)),
    "amdahl.phi": (Beta(1, 12), Beta(4, 10)),
    "expanding_pie.h": (Beta(2, 8), Beta(4, 5)),
    "sigma": (Beta(5, 7), Beta(2, 10)),
    "ln_qr": (Normal(math.log(3), 0.6), Normal(0.0, 0.6)),
    "tau": (LogNormal(0.20, 0.35), LogNormal(0.60, 0.40)),
    "g3": (LogNormal(1.2, 0.5), LogNormal(4.0, 0.6)),
    "g4": (LogNormal(1.2, 0.5), LogNormal(4.0, 0.6)),
    "mu_D": (Normal(0.5, 0.8), Normal(4.0, 1.5)),
    "h2": (Normal(0.05, 0.03), Normal(0.0, 0.01)),
    "J": (HalfNormal(2), HalfNormal(10)),
    "hype_speed": (Normal(0.15, 0.15), Normal(0.60, 0.25)),
    "hype_value": (Normal(0.10, 0.15), Normal(0.45, 0.25)),
    "selection": (HalfNormal(0.50), HalfNormal(0.05)),
    "disclosure_lab": (HalfNormal(0.5), HalfNormal(2)),
    "disclosure_tech": (HalfNormal(0.5), HalfNormal(2)),
    "gK2": (PositiveNormal(0.70, 0.15), PositiveNormal(0.30, 0.12)),
    "ts": (Uniform(2028, 2031), Uniform(2026.5, 2028.5)),
}
"""Every line of the two camps: rapid, plateau."""


def test_camps_state_these_lines_and_no_others(shipped):
    assert shipped["rapid"].priors == {name: pair[0] for name, pair in CAMPS.items()}
    assert shipped["plateau"].priors == {name: pair[1] for name, pair in CAMPS.items()}


def test_every_line_says_why_and_since_when(shipped):
    for worldview in shipped.values():
        for line in worldview.lines.values():
            assert len(line.reason) > 20 and line.source
            assert datetime.date(2023, 1, 1) < line.informed <= datetime.date(2026, 9, 30)


def test_full_priors_carry_source_and_date_of_the_line(shipped):
    rapid, default = full_priors(shipped["rapid"]), known_parameters()
    assert list(rapid) == list(default)
    assert rapid["f26"].prior == Beta(9, 11) and rapid["f26"].informed == datetime.date(2025, 12, 31)
    assert rapid["f26"].source == shipped["rapid"].lines["f26"].source != default["f26"].source
    assert rapid["g0"] == default["g0"]
    assert rapid["pK"].cap is default["pK"].cap


def test_differences_lists_what_a_worldview_changes(shipped):
    columns = ["parameter", "default", "prior", "reason", "source", "informed"]
    assert list(differences(shipped["neutral"]).columns) == columns and differences(shipped["neutral"]).empty
    table = differences(shipped["plateau"]).set_index("parameter")
    assert set(table.index) == set(CAMPS)
    assert table.loc["f26", ["default", "prior"]].tolist() == [
        "beta(alpha 6, beta 11)",
        "beta(alpha 3, beta 12)",
    ]
    order = list(known_parameters())
    assert [order.index(n) for n in table.index] == sorted(order.index(n) for n in table.index)


# What a worldview may change -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["neutral", "rapid", "plateau"])
def test_late_lines_are_widened_but_the_core_and_what_was_known(shipped, name):
    worldview, day = shipped[name], "2025-06-30"
    late, now, then = (
        late_lines(worldview, day),
        full_priors(worldview),
        full_priors(before_news(worldview, day)),
    )
    assert late and all(p.informed > datetime.date(2025, 6, 30) for p in late.values())
    for parameter, p in now.items():
        changed = then[parameter].prior != p.prior
        assert changed == (parameter in late and p.role != "core")
        # The family is the compiled model's; where it came from and when is said as before.
        assert then[parameter].prior.family == p.prior.family
        assert (then[parameter].source, then[parameter].informed) == (p.source, p.informed)


@pytest.mark.parametrize("name", ["neutral", "rapid", "plateau"])
def test_widened_worldviews_predict_finite_paths(shipped, name):
    wide = before_news(shipped[name], "2024-12-31")
    assert full_priors(wide)["pL"].prior.b < 1
    table = prior_predictive(wide, 1, 400)
    assert np.isfinite(table[["q05", "q50", "q95"]]).all(axis=None)
    plain = prior_predictive(shipped[name], 1, 400)
    ratio = np.log(table["q95"] / table["q05"]).sum() / np.log(plain["q95"] / plain["q05"]).sum()
    assert ratio > 1.2


def test_after_the_newest_line_nothing_is_late(shipped):
    for worldview in shipped.values():
        assert late_lines(worldview, "2030-01-01") == {} and before_news(worldview, "2030-01-01") == worldview


def test_known_parameters_are_those_of_the_registries():
    expected = len(SHARED) + sum(len(d.parameters) for d in dyn.DYNAMICS.values()) + len(obs.SHARED)
    expected += sum(len(i.own) * (len(i.ids) if i.per_id else 1) for i in ind.INDICATORS.values())
    known = known_parameters()
    assert len(known) == expected  # no name hides another
    assert {"f26", "decaying.room", "hype_speed", "disclosure_lab", "camp", "gso_opt1.slope"} <= set(known)
    assert not any(name.startswith("deviation_2") for name in known)


def test_a_fifth_dynamic_needs_no_edit_of_files(monkeypatch):
    stranger = dataclasses.replace(dyn.DYNAMICS["decaying"], name="stranger")
    monkeypatch.setitem(dyn.DYNAMICS, "stranger", stranger)
    assert load_worldview(PRIORS / "rapid.toml").odds["stranger"] == 0.0
    assert "stranger.room" in known_parameters()


def test_a_new_worldview_needs_no_edit_of_code(write):
    write(HEAD, "neutral.toml")
    write(HEAD.replace("A view", "Another"), "alone.toml")
    write("not a worldview", ".hidden.toml")
    found = load_worldviews(write(HEAD, "zebra.toml").parent)
    assert list(found) == ["neutral", "alone", "zebra"]
    assert found["alone"].title == "Another" and found["alone"].odds_reason == "even"


def test_missing_dynamics_have_no_odds(write):
    text = HEAD.replace("decaying = 0.25\n", "").replace("explosive = 0.25", "explosive = 0.5")
    assert load_worldview(write(text)).odds["decaying"] == 0.0


def test_quoted_and_nested_names_are_the_same(write):
    body = 'dist = "lognormal"\nmedian = 6\nsd = 0.4\n' + WHY
    quoted = load_worldview(write(f'{HEAD}[assumptions."decaying.room"]\n{body}'))
    nested = load_worldview(write(f"{HEAD}[assumptions.decaying.room]\n{body}"))
    assert quoted == nested
    assert quoted.priors == {"decaying.room": LogNormal(6.0, 0.4)}
    assert load_worldview(write(f"{HEAD}[assumptions.gso_opt1.slope]\n{body}")).priors == {
        "gso_opt1.slope": LogNormal(6.0, 0.4)
    }


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "view.toml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    assert load_worldview(path).title == "A view"


@pytest.mark.parametrize(
    ("name", "low", "high", "bounds", "family"),
    [
        ("mu_D", -1.5, 2.25, "", "normal"),
        ("hype_speed", 0.0, 0.5, "", "normal"),
        ("tau", 0.2, 0.6, "lower = 0", "lognormal"),
        ("decaying.room", 2.0, 11.0, "lower = 0.0", "lognormal"),
        ("f26", 0.1, 0.55, "lower = 0\nupper = 1", "logitnormal"),
        ("expanding_pie.h", 0.001, 0.999, "lower = 0.0\nupper = 1.0", "logitnormal"),
    ],
)
def test_ci80_gives_the_10_and_90_percent_quantiles(write, name, low, high, bounds, family):
    text = f"{HEAD}[assumptions.{name}]\nci80 = [{low}, {high}]\n{bounds}\n{WHY}"
    prior = load_worldview(write(text)).priors[name]
    assert prior.family == family
    np.testing.assert_allclose(prior.quantile([0.1, 0.9]), [low, high], rtol=1e-12, atol=1e-15)


def test_priors_inside_the_support_are_taken(write):
    stated = {
        "tau": 'dist = "uniform"\nlower = 0\nupper = 1',
        "amdahl.phi": 'dist = "uniform"\nlower = 0.1\nupper = 0.4',
        "expanding_pie.h": 'dist = "loguniform"\nlower = 0.1\nupper = 0.4',
        "explosive.room": 'dist = "lognormal"\nmedian = 20\nsd = 0.2',
        "ts": 'dist = "positive_normal"\nmean = 2028.5\nsd = 0.5',
        "gK1": 'dist = "uniform"\nlower = -0.1\nupper = 2',
        "pK": 'dist = "uniform"\nlower = 0.39\nupper = 1',
        "pL": 'dist = "beta"\nalpha = 4\nbeta = 20',
    }
    text = HEAD + "".join(f'[assumptions."{name}"]\n{body}\n{WHY}' for name, body in stated.items())
    assert set(load_worldview(write(text)).priors) == set(stated)


def test_folder_without_worldviews_says_so(tmp_path):
    with pytest.raises(InputError, match="no worldview here; name the folder"):
        load_worldviews(tmp_path)
    assert len(check(tmp_path / "nowhere")) == 1


# Prior predictive ------------------------------------------------------------------------------------

REFERENCE = {
    # m(2026), W(2026.7), H(2030), m(2030)/m(2023): quantiles at 5, 50, 95 %
    "explosive": ((1.00, 1.20, 1.87), (1.03, 1.27, 2.12), (0.00, 0.00, 0.11), (19, 4100, 590000)),
    "decaying": ((1.00, 1.15, 1.80), (1.00, 1.07, 1.27), (0.01, 0.14, 0.88), (1.0, 13, 500)),
    "amdahl": ((1.00, 1.23, 1.90), (1.02, 1.15, 1.52), (0.05, 0.21, 0.50), (2.7, 9.8, 131)),
    "expanding_pie": ((1.01, 1.21, 1.79), (1.02, 1.14, 1.49), (0.15, 0.39, 0.69), (3.3, 12, 127)),
}
"""An independent NumPy implementation, neutral priors, quarterly steps, 20,000 draws."""


@pytest.fixture(scope="module")
def predictive(shipped):
    table = prior_predictive(shipped["neutral"], seed=1, draws=20_000, years=(2026.0, 2026.7, 2030.0))
    assert list(table.columns) == ["dynamic", "quantity", "year", "q05", "q50", "q95"]
    return table.set_index(["dynamic", "quantity", "year"])


@pytest.mark.parametrize("name", REFERENCE)
def test_prior_predictive_agrees_with_the_reference(predictive, name):
    now, pace, human, growth = REFERENCE[name]
    rounding = 0.005
    found = predictive.loc[(name, "m", 2026.0)]
    np.testing.assert_allclose(found, now, rtol=0.025, atol=rounding)
    found = predictive.loc[(name, "W", 2026.7)]
    np.testing.assert_allclose(found, pace, rtol=0.02, atol=rounding)
    found = predictive.loc[(name, "H", 2030.0)]
    np.testing.assert_allclose(found, human, rtol=0.03, atol=rounding + 0.005)
    found = predictive.loc[(name, "m_ratio", 2030.0)]
    # One unit in the last printed digit, and the error of both samples; wide in the upper tail.
    np.testing.assert_allclose(found[:2], growth[:2], rtol=0.06, atol=0.05)
    np.testing.assert_allclose(found.iloc[2], growth[2], rtol=0.20)


def test_prior_predictive_is_reproducible_and_ordered(shipped):
    first, again = (prior_predictive(shipped["rapid"], seed=3, draws=200) for _ in range(2))
    assert first.equals(again)
    assert set(first["year"]) == {2026.0, 2030.0}
    assert (first["q05"] <= first["q50"]).all() and (first["q50"] <= first["q95"]).all()
    assert (first.loc[first["quantity"].isin(["m", "W"]), "q05"] >= 1 - 1e-9).all()
    assert first.loc[first["quantity"] == "H", "q95"].le(1).all()


def test_camps_disagree_in_the_expected_direction(shipped):
    rapid, plateau = (
        prior_predictive(shipped[n], seed=4, draws=2000).set_index(["dynamic", "quantity", "year"])["q50"]
        for n in ("rapid", "plateau")
    )
    for name in dyn.DYNAMICS:
        assert rapid[name, "m", 2030.0] > plateau[name, "m", 2030.0]
        assert rapid[name, "H", 2030.0] < plateau[name, "H", 2030.0]
