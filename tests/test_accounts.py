"""Accounts of stored runs: what adds up, what reliance means, and what the command says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from forecast import (
    absorption,
    accounts,
    batch,
    camps,
    evidence,
    explanations,
    frozen,
    model,
    narrative,
    readings,
)
from forecast import scenarios as sc
from forecast.absorption_reports import percent
from forecast.cli import app
from forecast.dynamics import DYNAMICS
from forecast.schema import BELT, InputError
from sampled import made_run, own, prior_run, sampled, save, weighed

ROOT = Path(__file__).parents[1]
DAY = "2024-12-31"
"""An early day with few rows."""
DRAWS = 1500
"""Draws of each of eight islands where few rows allow to weigh those of the prior."""


@pytest.fixture(scope="module")
def early(inputs) -> batch.Inputs:
    return batch.at_date(inputs, DAY)


@pytest.fixture(scope="module")
def run(early) -> accounts.Run:
    """All rows of an early day, by an independent sampler."""
    neutral = early.worldviews["neutral"]
    rows = early.selection.rows
    declared = batch.declared_parameters(rows, neutral)
    found = {n: sampled(n, declared, rows, draws=120, moves=6, seed=k) for k, n in enumerate(DYNAMICS)}
    return made_run(early, neutral, found)


@pytest.fixture(scope="module")
def store(run, early, tmp_path_factory) -> Path:
    """The run as it is stored, and one of another worldview and one that failed."""
    folder = tmp_path_factory.mktemp("store")
    save(run, folder)
    plateau = early.worldviews["plateau"]
    rows = early.selection.rows
    declared = batch.declared_parameters(rows, plateau)
    found = {n: weighed(n, declared, rows, 300, k) for k, n in enumerate(DYNAMICS)}
    save(made_run(early, plateau, found), folder)
    return folder


def explain(store: Path, *words: str) -> object:
    return CliRunner().invoke(app, ["explain", "--store", str(store), *words])


# Adding up ------------------------------------------------------------------------------------------


def test_fit_less_price_is_the_log_evidence_of_every_dynamic(run):
    for name, entry in accounts.ledger(run).items():
        difference = entry["fit"]["value"] - entry["price"]["value"] - entry["log_evidence"]["value"]
        assert difference == pytest.approx(entry["gap"]["value"])
        assert abs(difference) < 3 * entry["gap"]["se"] + 0.2, name


def test_the_account_adds_up_to_its_exact_total_and_absorbs_most(run):
    found = accounts.account(run)
    parts = ("decided", "learnt", "calibration", "unassigned")
    total = sum(found[p]["value"] for p in parts) + found["absorbed"]["total"]["value"]
    assert total == pytest.approx(found["total"]["value"])
    groups = sum(found["absorbed"][g]["value"] for g in BELT)
    assert groups == pytest.approx(found["absorbed"]["total"]["value"])
    # A Gaussian divergence is at most the true one.
    assert found["unassigned"]["value"] > -3 * found["unassigned"]["se"] - 0.5
    assert 0.5 < found["rate"]["value"] <= 1.0


def test_a_batch_of_nothing_does_nothing(run):
    found = accounts.account(run, run)
    for part in ("total", "decided", "learnt", "calibration"):
        assert found[part]["value"] == pytest.approx(0.0, abs=1e-6)
    assert found["rate"] is None and percent(found["rate"]) == "-"


def test_the_rows_of_an_earlier_run_are_read_at_the_draws_of_a_later_one(run):
    """Likelihoods evaluated in NumPy are those that were stored."""
    for name, mine in run.posteriors.items():
        many = readings.at_draws(DYNAMICS[name], mine.theta, model.fit_grid(run.rows))
        again = readings.rows_at(run.rows, many)
        np.testing.assert_allclose(again, mine.likelihood.reshape(again.shape), rtol=1e-9, atol=1e-9)


def test_scores_and_values_are_inverse(run):
    for mine in run.posteriors.values():
        back = readings.scores(mine.theta, mine.declared)
        for i, name in enumerate(mine.names):
            np.testing.assert_allclose(back[name], mine.flat[:, i], atol=2e-5, err_msg=name)


# Reliance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["explosive", "amdahl"])
def test_savage_dickey_is_the_frozen_refit(inputs, name):
    """At least ten assumptions: the density ratio against the evidence with the assumption at its median."""
    scenario = sc.load_scenario(ROOT / "data" / "scenarios" / "audited_pace_of_three.toml", inputs.archive)
    more = sc.load_scenario(ROOT / "data" / "scenarios" / "human_share_stuck.toml", inputs.archive)
    rows = pd.concat([scenario.rows, more.rows.iloc[:1]], ignore_index=True)
    neutral = inputs.worldviews["neutral"]
    declared = model.ordered(model.with_priors(model.parameters([name], rows), neutral.priors))
    free, log_z = weighed(name, declared, rows, DRAWS, 1)
    base = prior_run(neutral, rows, inputs, draws=DRAWS).posteriors[name]
    grid = model.fit_grid(rows)
    compared = 0
    for i, assumption in enumerate(base.names):
        relied = absorption.reliance(free.scores[..., i])
        if base.declared[assumption].role == "calibration" or relied is None or compared == 12:
            continue
        scores = {n: base.flat[:, j] for j, n in enumerate(base.names)}
        theta = readings.values(scores | {assumption: 0.0 * base.flat[:, 0]}, base.declared)
        held = readings.rows_at(rows, readings.at_draws(DYNAMICS[name], theta, grid)).sum(1).reshape(8, -1)
        lost = absorption.reweight(held).change
        whole = evidence.mean_evidence(log_z[None])
        expected = whole[0][0] - lost.value
        error = np.sqrt(relied.se**2 + lost.se**2 + whole[1][0] ** 2)
        assert relied.value == pytest.approx(expected, abs=0.2 + 2 * error), assumption
        compared += 1
    assert compared >= 10


def test_a_frozen_prior_puts_every_draw_at_one_value(inputs):
    neutral = inputs.worldviews["neutral"]
    declared = batch.declared_parameters(inputs.selection.rows, neutral)
    belt = frozen.members(declared, BELT)
    at = frozen.medians(declared, belt)
    held = frozen.freeze(declared, belt)
    mine = own("amdahl", held)
    z = np.random.default_rng(1).standard_normal((500, len(mine)))
    theta = readings.values({n: z[:, i] for i, n in enumerate(mine)}, mine)
    for name in mine:
        full = f"amdahl.{name}" if f"amdahl.{name}" in at else name
        if full in at and not name.startswith("deviation"):
            np.testing.assert_allclose(theta[name], at[full], rtol=0.03, atol=0.02, err_msg=name)
    assert np.std(theta["phi"]) > 0.05, "the core stays free"
    shapes = [{n: x.shape for n, x in model.data_values(d).items()} for d in (declared, held)]
    assert shapes[0] == shapes[1], "freezing changes inputs, not the model"


def test_there_are_fifteen_coalitions_and_the_whole_belt_comes_first():
    assert len(frozen.coalitions()) == 15 and frozen.coalitions()[0] == BELT


def test_frozen_against_free_is_read_from_kept_refits_and_names_what_is_refuted(run, tmp_path):
    run = dataclasses.replace(run, folder=tmp_path)
    refitter = frozen.Refitter(run)
    assert frozen.frozen_record(refitter) is None
    for some in frozen.coalitions():
        what = "frozen " + " ".join(some)
        place = refitter.place(what)
        place.parent.mkdir(exist_ok=True)
        shift = np.array([[-12.0 if len(some) == 4 else -1.0], [-1.0], [0.0], [0.5]])
        kept = {"what": what, "log_evidence": (run.log_evidence + shift).tolist(), "failures": []}
        place.write_text(json.dumps(kept))
    found = frozen.frozen_record(refitter)
    for pair in found["pairs"]:
        assert sum(pair["shapley"].values()) == pytest.approx(pair["absorbed"]["value"])
        expected = ["+".join(BELT)] if "explosive" in (pair["a"], pair["b"]) else []
        assert pair["refuted"] == expected
    assert found["log_evidence"]["+".join(BELT)]["explosive"]["cost"]["value"] == pytest.approx(12.0)


# Indicators, camps, needs ---------------------------------------------------------------------------


def test_leaving_rows_out_and_putting_them_back_is_the_evidence(inputs):
    scenario = sc.load_scenario(
        ROOT / "data" / "scenarios" / "audited_tenfold_productivity.toml", inputs.archive
    )
    neutral = inputs.worldviews["neutral"]
    empty = prior_run(neutral, scenario.rows, inputs, draws=3000)
    declared = model.ordered(model.parameters(list(DYNAMICS), scenario.rows))
    found = {n: weighed(n, declared, scenario.rows, 3000, k + 50) for k, n in enumerate(DYNAMICS)}
    after = dataclasses.replace(
        empty,
        posteriors={n: p for n, (p, _) in found.items()},
        log_evidence=np.stack([z for _, z in found.values()]),
    )
    left, k = camps.without_rows(after, np.array([0]))
    if k <= absorption.GOOD_K:
        mean, se = evidence.mean_evidence(left)
        np.testing.assert_allclose(mean, 0.0, atol=float(0.1 + 4 * se.max()))


def test_every_row_is_of_one_family_and_one_programme(early, inputs):
    for rows in (early.selection.rows, inputs.selection.rows):
        groups = camps.groups_of_rows(rows)
        for kind in ("family", "programme"):
            where = np.concatenate([w for (k, _), w in groups.items() if k == kind])
            assert sorted(where) == list(range(len(rows)))
    assert {"METR", "Epoch AI", "Anthropic"} <= {n for k, n in groups if k == "programme"}


def test_what_it_takes_is_what_brings_a_dynamic_to_one_half(run):
    w = run.weights.posterior
    for k, need in enumerate(camps.needs(run)):
        odds = w[k] / (1 - w[k]) * np.exp(need["log_bayes_factor"]["value"])
        assert odds == pytest.approx(1.0)


def test_worldviews_with_the_same_assumptions_differ_by_odds_alone(run):
    other = dataclasses.replace(run.worldview, name="other", odds={**run.worldview.odds, "explosive": 0.4})
    twin = dataclasses.replace(run, worldview=other)
    found = camps.convergence({"neutral": [run], "other": [twin]})
    assert found["dates"][0]["evidence_gap"]["value"] == pytest.approx(0.0)
    same = [c["posterior"]["decaying"]["value"] for c in found["cross"] if c["odds"] == "neutral"]
    assert same[0] == pytest.approx(same[1])


def test_a_line_that_changes_nothing_moves_nothing_and_one_out_of_reach_has_no_number(run, inputs):
    plateau = inputs.worldviews["plateau"]
    line = next(iter(plateau.lines.values()))
    same = dataclasses.replace(line, prior=run.posteriors["explosive"].declared["v"].prior)
    room = plateau.lines["explosive.room"]
    mine = dataclasses.replace(plateau, lines={"v": same, "explosive.room": room, "J": line})
    found = {x["line"]: x for x in camps.single_lines(run, mine)}
    assert found["v"]["distance"] == pytest.approx(0.0, abs=1e-9)
    assert found["explosive.room"]["method"] is None
    # No row reads it yet, so it cannot matter.
    assert found["J"]["distance"] == pytest.approx(0.0, abs=1e-9)


# The command ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(store) -> list[dict]:
    done = explain(
        store, "--as-of", DAY, "--worldview", "neutral", "--worldview", "plateau", "--format", "json"
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_explain_prints_what_programs_need(printed):
    assert [r["worldview"] for r in printed] == ["neutral", "plateau"]
    for record in printed:
        assert {"decided", "learnt", "absorbed", "calibration", "unassigned", "rate"} <= set(
            record["account"]
        )
        assert set(record["account"]["absorbed"]) == {"total", *BELT}
        for entry in record["ledger"].values():
            assert {"log_evidence", "fit", "price", "assumptions"} <= set(entry)
        assert len(record["pairs"]) == 6
        for pair in record["pairs"]:
            fields = {"a", "b", "log_bayes_factor", "frozen", "absorbed", "verdict", "pin_down"}
            assert fields <= set(pair)
            assert pair["verdict"] in ("separated", "leaning", "not identified")
        assert record["indicators"] and record["convergence"]["cross"]


def test_explain_again_is_read_from_disk_and_the_same(store, printed, monkeypatch):
    monkeypatch.setattr(explanations, "records", lambda *_: pytest.fail("computed again"))
    words = ("--as-of", DAY, "--worldview", "plateau", "--worldview", "neutral", "--format", "json")
    assert json.loads(explain(store, *words).stdout) == printed


def test_tables_have_the_headline_the_verdicts_and_the_rule(store, printed):
    text = explain(store, "--as-of", DAY, "--worldview", "neutral", "--worldview", "plateau").stdout
    for words in (
        "What the evidence did",
        "Ledger",
        "Pairs of dynamics",
        "separated:",
        "Do the camps converge",
    ):
        assert words in text


def test_every_figure_in_words_is_a_figure_of_the_record(printed):
    """Each number with an error in the text is a value and error of the record, or the one stated sum."""
    import re

    for record in printed:
        figures = set()

        def collect(x: object, figures: set = figures) -> None:
            if isinstance(x, dict):
                if {"value", "se"} <= set(x):
                    for digits in (1, 2):
                        figures.add(f"{abs(x['value']):.{digits}f} ± {x['se']:.{digits}f}")
                for y in x.values():
                    collect(y)
            elif isinstance(x, list):
                for y in x:
                    collect(y)

        collect({k: v for k, v in record.items() if k != "words"})
        whole = narrative._sum(record["account"])
        figures |= {f"{abs(whole['value']):.{d}f} ± {whole['se']:.{d}f}" for d in (1, 2)}
        text = " ".join(record["words"])
        found = re.findall(r"(\d+\.\d+ ± \d+\.\d+)", text)
        assert found and set(found) <= figures, set(found) - figures
        assert f"`{record['worldview']}`" in text


def test_words_name_who_was_favoured_and_who_gained_or_lost_much():
    def told(**after: float) -> str:
        needs = [{"dynamic": n, "posterior": {"value": p, "se": 0.01}} for n, p in after.items()]
        odds = {"explosive": 0.05, "decaying": 0.4, "amdahl": 0.35}
        return narrative._kept({"worldview": "w", "favoured": ["decaying"], "needs": needs, "odds": odds})

    said = told(explosive=0.28, decaying=0.43, amdahl=0.12)
    assert "gained faith in `explosive` (0.05" in said
    assert "kept `decaying`" in said and "lost faith in `amdahl`" in said
    assert told(explosive=0.1, decaying=0.2, amdahl=0.3) == (
        "`w` lost faith in `decaying` (0.40 before the data, 0.20 ± 0.01 after)."
    )


def test_a_day_or_worldview_without_a_run_is_refused_with_the_mend(store):
    done = explain(store, "--worldview", "rapid")
    assert isinstance(done.exception, InputError)
    assert "forecast update --worldview rapid" in str(done.exception)
    done = explain(store, "--worldview", "neutral", "--as-of", "2025-12-31")
    assert "as of 2025-12-31" in str(done.exception)


def test_a_run_of_other_priors_is_refused(store, tmp_path):
    priors = tmp_path / "priors"
    shutil.copytree(ROOT / "priors", priors)
    file = priors / "plateau.toml"
    text = file.read_text(encoding="utf-8")
    changed = text.replace("median = 0.28", "median = 0.29")
    assert changed != text
    file.write_text(changed, encoding="utf-8")
    done = explain(store, "--worldview", "plateau", "--as-of", DAY, "--priors", str(priors))
    assert "its prior of v is not that of priors/plateau.toml now" in str(done.exception)
