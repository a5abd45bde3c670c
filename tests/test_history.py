"""Histories: their dates and rows, no look-ahead, steps that equal fits, and what the command says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import made
from forecast import (
    batch,
    console,
    evidence,
    figures,
    free_values,
    history,
    inference,
    model,
    reports,
    runs,
    vintages,
)
from forecast.dynamics import DYNAMICS
from forecast.schema import InputError
from forecast.selection import select
from forecast.tables import PROVENANCE
from forecast.vintages import Archive
from forecast.worldviews import before_news, late_names, pick_worldviews

ROOT = Path(__file__).parents[1]
NAMES = list(DYNAMICS)
TINY = inference.Settings(islands=4, chains=32, final_sweeps=2)
PAIR = ("2025-03-31", "2025-06-30")
"""Two early dates with few rows, so that a model of them is compiled quickly."""


@pytest.fixture(scope="module")
def quarters(inputs) -> history.Window:
    return history.make_window(inputs, history.dates(inputs.archive))


# Dates and rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("month", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("quarter", ["2026-03-31"]),
    ],
)
def test_dates_are_ends_of_periods(archive, every, expected):
    found = history.dates(archive, "2026-01-15", "2026-04-15", every)
    assert [f"{d:%Y-%m-%d}" for d in found] == expected


def test_publication_dates_are_those_of_the_archive(archive):
    found = history.dates(archive, "2026-01-15", "2026-04-15", "publication")
    published = archive.observations["published_at"]
    assert found == sorted(set(published[published.between("2026-01-15", "2026-04-15")]))


def test_by_default_quarters_from_2025_on(archive):
    found = [f"{d:%Y-%m-%d}" for d in history.dates(archive)]
    assert found[0] == "2025-03-31" and found[-1] == "2026-06-30" and len(found) == 6


def test_a_window_has_each_dates_own_rows(quarters):
    content = [c for c in quarters.rows if c not in PROVENANCE]
    for i, one in enumerate(quarters.inputs):
        mine = quarters.rows.iloc[quarters.places[i]].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine[content], one.selection.rows[content])
        assert quarters.weight(i).sum() == len(one.selection.rows)
    assert not quarters.rows.duplicated(content).any()
    assert np.any([quarters.weight(i) for i in range(len(quarters.inputs))], axis=0).all()


def test_a_revised_row_is_two_rows_of_which_one_counts(inputs):
    # The suite TH1.1 replaced TH1.0 at the end of January 2026.
    window = history.make_window(inputs, ["2025-12-31", "2026-06-30"])
    before, after = window.weight(0), window.weight(1)
    assert ((before == 1) & (after == 0)).any() and ((before == 0) & (after == 1)).any()


def test_early_dates_have_a_model(inputs):
    """No METR, no index and no benchmark: parameters that an indicator borrows are still there."""
    rows = inputs.selection.rows
    alone = rows[rows["indicator"].isin(["index_slope_ratio", "code_share"])].reset_index(drop=True)
    declared = model.ordered(model.parameters(NAMES, alone))
    assert {"c1", "J"} <= set(declared) and "h0" not in declared
    model.build(NAMES, alone, declared, [0.25] * 4)
    early = batch.at_date(inputs, "2024-12-31").selection.rows
    model.build(NAMES, early, model.ordered(model.parameters(NAMES, early)), [0.25] * 4)


def test_a_day_on_which_nothing_counts_is_refused(inputs, tmp_path):
    nothing = batch.at_date(inputs, "2024-06-30")
    with pytest.raises(InputError, match="no row that counts was published by 2024-06-30"):
        batch.update(nothing, pick_worldviews(inputs.worldviews, ["neutral"]), tmp_path)
    with pytest.raises(InputError, match="no row that counts"):
        history.make_window(inputs, ["2024-06-30"])


# No look-ahead --------------------------------------------------------------------------------------

DAYS = st.dates(dt.date(2024, 5, 28), dt.date(2026, 6, 30))


def poisoned(archive: Archive, day: pd.Timestamp, rng: np.random.Generator) -> Archive:
    """Set some values published after a day to 1e9 and add rows that were published after it."""
    rows = archive.observations.copy()
    later = rows["published_at"] > day
    rows.loc[later & (rng.random(len(rows)) < 0.7), ["value", "lower", "upper"]] = 1e9
    added = rows.sample(20, random_state=int(rng.integers(2**31)))
    added["published_at"] = day + pd.to_timedelta(rng.integers(1, 900, len(added)), unit="D")
    added["value"] = 1e9
    new = rng.random(len(added)) < 0.5
    added.loc[new, "observed_at"] += pd.Timedelta(days=1)
    return dataclasses.replace(archive, observations=pd.concat([rows, added], ignore_index=True))


def cases(quick: int, full: int) -> pytest.MarkDecorator:
    """A few cases by default and many with `-m slow`."""
    return pytest.mark.parametrize("count", [quick, pytest.param(full, marks=pytest.mark.slow)])


@cases(60, 400)
def test_nothing_published_later_is_seen(archive, count):
    @settings(max_examples=count, deadline=None)
    @given(DAYS)
    def check(day: dt.date) -> None:
        date = pd.Timestamp(day)
        snapshot = vintages.as_of(archive, date)
        assert (snapshot["published_at"] <= date).all()
        assert (select(archive, snapshot).rows["published_at"] <= date).all()

    check()


@cases(15, 150)
def test_later_rows_and_values_change_no_earlier_date(inputs, count):
    @settings(max_examples=count, deadline=None)
    @given(DAYS, st.integers(0, 2**31))
    def check(day: dt.date, seed: int) -> None:
        assert_later_changes_nothing(inputs, pd.Timestamp(day), np.random.default_rng(seed))

    check()


def assert_later_changes_nothing(inputs: batch.Inputs, date: pd.Timestamp, rng: np.random.Generator) -> None:
    there = dataclasses.replace(inputs, archive=poisoned(inputs.archive, date, rng))
    one, two = (batch.at_date(x, date) for x in (inputs, there))
    content = [c for c in one.selection.rows if c not in PROVENANCE]
    pd.testing.assert_frame_equal(one.selection.rows[content], two.selection.rows[content])
    if not one.selection.rows.empty:
        neutral = inputs.worldviews["neutral"]
        keys = [
            runs.run_key(batch.key_content(x, batch.declared_parameters(x.selection.rows, neutral), TINY, 1))
            for x in (one, two)
        ]
        assert keys[0] == keys[1]


@settings(max_examples=10, deadline=None)
@given(st.lists(DAYS, min_size=1, max_size=3, unique=True))
def test_no_row_weighs_before_it_is_published(inputs, days):
    try:
        window = history.make_window(inputs, sorted(map(pd.Timestamp, days)))
    except InputError:
        return
    for i, day in enumerate(sorted(days)):
        counted = window.rows[window.weight(i) > 0]
        assert (counted["published_at"] <= pd.Timestamp(day)).all()


# Fits -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lax():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "GATE", made.LAX)
        yield


@pytest.fixture(scope="module")
def pair(inputs) -> history.Window:
    return history.make_window(inputs, PAIR)


@pytest.fixture(scope="module")
def followed(inputs, pair, lax, tmp_path_factory) -> tuple[Path, list[Path]]:
    """Both dates under one worldview, at a gate that lets everything pass."""
    store = tmp_path_factory.mktemp("store")
    neutral = pick_worldviews(inputs.worldviews, ["neutral"])
    return store, history.update(pair, neutral, store, settings=TINY)["neutral"]


def test_the_first_date_is_fitted_and_the_second_stepped(followed, pair):
    trees, manifests = zip(*(runs.load(f) for f in followed[1]), strict=True)
    assert [m["method"] for m in manifests] == ["direct", "stepped"]
    assert [m["from"] for m in manifests] == [None, PAIR[0]]
    assert manifests[0]["increment"] is None
    change, error = evidence.increments(
        *(t["evidence"].to_dataset()["log_marginal_likelihood"].values for t in trees)
    )
    assert manifests[1]["increment"] == {n: [change[k], error[k]] for k, n in enumerate(NAMES)}
    for i, tree in enumerate(trees):
        likelihood = tree[f"{NAMES[0]}/log_likelihood"].to_dataset()["rows"]
        assert likelihood.sizes["row"] == len(pair.inputs[i].selection.rows) == manifests[i]["rows"]
        assert tree[f"{NAMES[0]}/particles"].to_dataset()["x"].dtype == np.float32


def test_a_second_time_nothing_is_fitted(followed, inputs, pair, lax, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(batch, "compile_once", never)
    neutral = pick_worldviews(inputs.worldviews, ["neutral"])
    assert history.update(pair, neutral, followed[0], settings=TINY)["neutral"] == followed[1]


def test_an_interrupted_history_goes_on_with_the_same_bits(followed, inputs, pair, lax, tmp_path):
    first = runs.load(followed[1][0])
    runs.save(tmp_path, PAIR[0], "neutral", first[1]["key"], *first)
    neutral = pick_worldviews(inputs.worldviews, ["neutral"])
    again = history.update(pair, neutral, tmp_path, settings=TINY)["neutral"]
    hashes = [runs.load(f)[1]["content_hash"] for f in (*again, *followed[1])]
    assert hashes[:2] == hashes[2:]


@pytest.mark.slow
def test_later_values_change_no_bit_of_an_earlier_forecast(inputs, lax, tmp_path):
    date = pd.Timestamp(PAIR[0])
    bad = dataclasses.replace(inputs, archive=poisoned(inputs.archive, date, np.random.default_rng(1)))
    neutral = pick_worldviews(inputs.worldviews, ["neutral"])
    found = [
        batch.update(batch.at_date(x, date), neutral, tmp_path / str(i), settings=TINY)[0]
        for i, x in enumerate((inputs, bad))
    ]
    one, two = (runs.load(f)[1] for f in found)
    assert one["content_hash"] == two["content_hash"] and one["key"] == two["key"]


def test_a_step_that_misses_the_gate_goes_on_from_its_own_draws(pair, inputs, monkeypatch):
    (_, step) = history.steps(pair, inputs.worldviews["neutral"])
    nothing = np.zeros((4, 4, 8, len(step.declared)))
    start = SimpleNamespace(fit=inference.Fit(nothing, np.zeros((4, 4)), None, (), 0.1))
    tries: list[tuple] = []

    def advance(compiled, seed, fit, old, new, settings, tell):
        tries.append((seed, fit, old, new, settings.final_sweeps))
        return fit._replace(step_size=fit.step_size / 2)

    def examine(compiled, fit, data, settings, *_):
        failures = {n: ["effective sample size 3"] if len(tries) < 2 else [] for n in NAMES}
        return batch.Judged(fit, {}, failures, {}, settings, {})

    monkeypatch.setattr(inference, "advance", advance)
    monkeypatch.setattr(batch, "examine", examine)
    found = history._stepped(step, None, start, None, None)
    one, two = tries
    assert not found.failed and len(found.earlier) == 1
    assert one[0] != two[0] and [one[4], two[4]] == list(history.STEP_SWEEPS[:2])
    # It starts in the coordinates of its own date, and only there.
    began, old = free_values.recentred_fit(start.fit, step.declared, pair.rows, step.data(1), step.data())
    np.testing.assert_array_equal(one[1].draws, began.draws)
    np.testing.assert_array_equal(one[2]["centring"], old["centring"])
    assert found.fit.step_size == 0.025 and two[1].step_size == 0.05
    np.testing.assert_array_equal(one[2]["weight"], step.data(1)["weight"])
    # The second has nothing left to bring in, and only moves.
    assert two[2] is two[3] and one[3] is two[3]


# What is said ---------------------------------------------------------------------------------------


@pytest.fixture
def said(followed, inputs) -> list[dict]:
    worldview = inputs.worldviews["neutral"]
    late = {day: late_names(worldview, day) for day in PAIR}
    one = reports.history_record([runs.load(f) for f in followed[1]], "neutral", worldview.odds, late)
    return reports.with_distances([one, one | {"worldview": "other"}])


def test_a_record_has_every_field(said):
    one = said[0]
    assert set(one) == {"worldview", "odds", "late_priors", "dates", "distance"}
    for date in one["dates"]:
        assert set(date) == {
            *("as_of", "rows", "gate", "method", "dynamics", "milestones", "late_lines", "late_defaults"),
        }
        assert set(date["milestones"]) == set(reports.KEY_MILESTONES)
        for d in date["dynamics"].values():
            assert set(d) == {
                *("prior", "posterior", "posterior_se", "log_evidence", "log_evidence_se"),
                *("increment", "increment_se"),
            }
        assert sum(d["posterior"] for d in date["dynamics"].values()) == pytest.approx(1)
    first, second = (date["dynamics"][NAMES[0]] for date in one["dates"])
    assert first["increment"] is None
    assert second["increment"] == pytest.approx(second["log_evidence"] - first["log_evidence"])
    assert [d["total_variation"] for d in one["distance"]] == [0.0, 0.0]
    json.dumps(said, allow_nan=False)


def test_tables_have_a_row_for_each_date_and_the_sum(said, capsys):
    console.show_table(reports.history_tables(said, {reports.HISTORY_MILESTONE: "All of it"}))
    out = capsys.readouterr().out
    assert all(text in out for text in (*PAIR, "increments", "All of it", "pass"))


def test_lines_that_know_the_future_are_named(inputs):
    plateau = inputs.worldviews["plateau"]
    early, late = (late_names(plateau, day) for day in ("2025-01-01", "2030-01-01"))
    assert late == {"late_lines": [], "late_defaults": []}
    assert set(early["late_lines"]) <= set(plateau.lines) and early["late_lines"]
    for name in early["late_lines"]:
        assert plateau.lines[name].informed > dt.date(2025, 1, 1)
    # Defaults that the worldview leaves as they are know the future too; standard scores know nothing.
    assert not set(early["late_defaults"]) & set(plateau.lines)
    assert {"g0", "c0"} <= set(early["late_defaults"])
    assert not [n for n in early["late_defaults"] if n.endswith(".place")]
    assert "g0" not in late_names(plateau, "2025-12-31")["late_defaults"]


@pytest.mark.slow
def test_dates_with_other_priors_are_not_stepped_to(inputs, pair, lax, followed, tmp_path, monkeypatch):
    neutral = pick_worldviews(inputs.worldviews, ["neutral"])
    # As if everything had become known between the two dates.
    monkeypatch.setattr(history, "before_news", lambda w, day: before_news(w, day) if day == PAIR[0] else w)
    found = history.update(pair, neutral, tmp_path, settings=TINY, wide=True)["neutral"]
    wide, known = (runs.load(f)[1] for f in found)
    kept = runs.load(followed[1][0])[1]
    assert wide["priors"]["g0"] == "lognormal(median 1.5, sd 0.8)" and wide["key"] != kept["key"]
    assert wide["priors"]["decaying.room"] == kept["priors"]["decaying.room"]
    assert known["priors"] == kept["priors"]
    assert known["method"] == "direct" and known["increment"] is None


def test_what_is_late_on_one_day_is_known_on_another(inputs):
    neutral = inputs.worldviews["neutral"]
    early, late = (before_news(neutral, day).priors for day in ("2025-07-09", "2025-07-10"))
    assert early["hype_speed"].b == 0.4 and "hype_speed" not in late


def test_what_failed_has_no_numbers(followed, inputs):
    tree, manifest = runs.load(followed[1][1])
    late = {PAIR[1]: late_names(inputs.worldviews["neutral"], PAIR[1])}
    bad = manifest | {"gate": {n: ["effective sample size 3"] for n in NAMES}, "increment": None}
    one = reports.history_record([(tree, bad)], "neutral", inputs.worldviews["neutral"].odds, late)
    (date,) = one["dates"]
    assert date["gate"] == "fail" and date["milestones"] == {}
    for d in date["dynamics"].values():
        assert all(value is None for name, value in d.items() if name != "prior")
    with pytest.raises(InputError, match="nothing to draw"):
        figures.weights_over_time([one])


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_figure_states_the_finding_and_its_units(said, tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    figures.save(figures.weights_over_time(said), file)
    if suffix == ".svg":
        text = file.read_text(encoding="utf-8")
        assert all(t in text for t in ("Largest move", "probability", "Source", *NAMES))
    else:
        assert file.read_bytes().startswith(b"\x89PNG")


# The command ----------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, command_line) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(ROOT)
    return partial(command_line, "history")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--from", "2026-06-30", "--to", "2025-01-01"), "is after --to"),
        (("--from", "2020-01-01"), "the first day is 2024-05-28"),
        (("--to", "2031-01-01"), "past the last published day"),
        (("--from", "2025-02-30"), "not a day of the calendar"),
        (("--every", "weekly"), "unknown step 'weekly'"),
        (("--every", "quarters"), "did you mean 'quarter'"),
        (("--from", "2026-06-01", "--to", "2026-06-02"), "no end of a quarter"),
        (("--worldview", "rapd"), "did you mean 'rapid'"),
        (("--figure", "weights.pdf"), "must end in .svg or .png"),
        (("--figure", "nowhere/weights.svg"), "no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, words, text):
    code, out, err = command("--store", tmp_path, *words)
    (line,) = err.strip().splitlines()
    assert code == 2 and out == "" and line.startswith("error: ") and text in line
    assert not list(tmp_path.iterdir())


def test_the_command_prints_json_and_draws(command, followed, monkeypatch, tmp_path):
    monkeypatch.setattr(history, "update", lambda *_, **__: {"neutral": followed[1]})
    words = ("--worldview", "neutral", "--from", "2025-01-01", "--to", PAIR[1], "--format", "json")
    code, out, err = command(*words, "--figure", tmp_path / "w.svg")
    (one,) = json.loads(out)
    assert code == 0 and err == "" and [d["as_of"] for d in one["dates"]] == list(PAIR)
    assert (tmp_path / "w.svg").is_file()


# Stepping equals fitting ----------------------------------------------------------------------------


def fit_from_prior(compiled, declared, step: history.Step, seed: int) -> inference.Fit:
    centring = step.data()["centring"]

    def draw_prior(s: int, n: int) -> np.ndarray:
        return free_values.prior_draws(NAMES, declared, step.window.rows, s, n, centring)[0]

    return inference.sample(compiled, seed, step.settings, step.data(), draw_prior=draw_prior)


def assert_same(stepped: inference.Fit, direct: inference.Fit, date: str) -> None:
    """Evidence within 3 combined errors, and means of the free variables within 4."""
    (a, a_se), (b, b_se) = (evidence.mean_evidence(f.log_evidence) for f in (stepped, direct))
    assert (np.abs(a - b) < 3 * np.hypot(a_se, b_se)).all(), f"{date}: {a} {b} {a_se} {b_se}"
    for k, name in enumerate(NAMES):
        islands = [f.draws[k].mean(axis=1) for f in (stepped, direct)]
        count = len(islands[0])
        error = np.sqrt(sum(x.var(axis=0, ddof=1) for x in islands) / count)
        away = (islands[0].mean(axis=0) - islands[1].mean(axis=0)) / error
        # Means of few islands are Student's t: the same tail as 4 normal errors.
        assert np.abs(away).max() < 4 * (1 + 6 / count), f"{date}, {name}"


def test_stepping_equals_fitting_on_few_rows(pair, inputs):
    size = inference.Settings(islands=8, chains=48, sweeps=2, final_sweeps=2)
    first, second = history.steps(pair, inputs.worldviews["neutral"], settings=size)
    declared = second.declared
    compiled = batch.compile_once({}, pair.rows, declared)
    start = fit_from_prior(compiled, declared, first, 1)
    fit, old = free_values.recentred_fit(start, declared, pair.rows, first.data(), second.data())
    stepped = inference.advance(compiled, 11, fit, old, second.data(), size)
    assert_same(stepped, fit_from_prior(compiled, declared, second, 101), PAIR[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neutral", "rapid", "plateau"])
def test_stepping_equals_fitting(quarters, inputs, name, tmp_path):
    """What a history stores of its five later dates, against a fit of each from the prior."""
    worldview = inputs.worldviews[name]
    folders = history.update(quarters, [worldview], tmp_path)[name]
    compiled: dict = {}
    for i, (step, folder) in enumerate(zip(history.steps(quarters, worldview), folders, strict=True)):
        program = batch.compile_once(compiled, quarters.rows, step.declared)
        stored = history.Stored(*runs.load(folder))
        if i:
            assert stored.manifest["method"] == "stepped"
            direct = fit_from_prior(program, step.declared, step, 100 + i)
            assert_same(stored.fit, direct, step.inputs.as_of)


def test_a_step_to_draws_that_are_not_finite_fails_the_gate_and_predicts_nothing(monkeypatch):
    """So that the date is fitted from the prior instead, and no error ends the history."""
    draws = np.full((4, 4, 8, 1), np.nan)
    fit = inference.Fit(draws, np.zeros((4, 4)), np.zeros((4, 2)), (), 0.1)
    theta = xr.DataArray(draws[0], dims=("chain", "draw", "parameter"), coords={"parameter": ["tau"]})
    monkeypatch.setattr(inference, "describe", lambda *_: theta.to_dataset(name="theta"))

    def never(*_):
        raise AssertionError("it must not predict")

    judged = batch.examine(None, fit, {}, inference.Settings(), never)
    assert judged.failed and not judged.predicted
    assert all("draws or evidence not finite" in reasons for reasons in judged.failures.values())
