"""The ledger of a move: shares of rows against closed forms, causes between runs, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import made
from forecast import batch, history, inference, moves, runs
from forecast.dynamics import DYNAMICS
from forecast.moves import _NODES, Node, effects
from forecast.schema import InputError
from forecast.worldviews import pick_worldviews

ROOT = Path(__file__).parents[1]
NAMES = list(DYNAMICS)
PAIR = ("2025-03-31", "2025-06-30")
TINY = inference.Settings(islands=4, chains=32, final_sweeps=1)
VALUES, ERRORS = np.array([1.5, 1.5, -0.5, 0.3]), np.array([1.0, 1.0, 1.0, 40.0])
CUTS = np.array([0.0, 1.0])


# Closed forms ---------------------------------------------------------------------------------------


def normal_node(t: float, prior_means: np.ndarray, size: int = 200_000) -> Node:
    """Exact draws of theta ~ N(mean_k, 1) with rows y_r ~ N(theta, se_r^2) of weight t, a model per mean."""
    reached, gain, both, log_evidence = [], [], [], []
    rng = np.random.default_rng(int(1000 * t))
    for mean in prior_means:
        precision = 1 + t * (ERRORS**-2).sum()
        centre = (mean + t * (VALUES / ERRORS**2).sum()) / precision
        theta = centre + rng.standard_normal((4, size // 4)) / np.sqrt(precision)
        event = (theta[..., None] > CUTS).astype(float)
        row = stats.norm(theta[..., None], ERRORS).logpdf(VALUES)
        reached.append(event.mean(axis=1))
        gain.append(row.mean(axis=1))
        both.append(np.einsum("ide,idr->ier", event, row) / event.shape[1])
        # ln of the integral of prior times likelihood to the power t.
        constant = t * (-np.log(ERRORS) - 0.5 * np.log(2 * np.pi) - 0.5 * VALUES**2 / ERRORS**2).sum()
        z = constant - 0.5 * mean**2 + 0.5 * precision * centre**2 - 0.5 * np.log(precision)
        log_evidence.append(np.full(4, z))
    return Node(*(np.array(x) for x in (reached, gain, both, log_evidence)))


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    return [normal_node(t, np.array([-1.0, 0.5])) for t in _NODES]


def test_rows_share_the_whole_change(nodes):
    found = effects(nodes, _NODES, np.array([0.5, 0.5]))
    np.testing.assert_allclose(found.rows.sum(axis=1), found.last - found.first, atol=0.01)
    assert (found.last - found.first > 0.05).all()


def test_equal_rows_have_equal_shares_and_vague_ones_none(nodes):
    rows = effects(nodes, _NODES, np.array([0.5, 0.5])).rows
    np.testing.assert_allclose(rows[:, 0], rows[:, 1], rtol=1e-9)
    assert (rows[:, 0] > 0).all() and (rows[:, 2] < rows[:, 0]).all()
    np.testing.assert_allclose(rows[:, 3], 0.0, atol=2e-3)


def test_weights_of_dynamics_move_events_too(nodes):
    """With odds on one model alone its own change is found; with both, what the weights do comes on top."""
    for k, odds in enumerate(np.eye(2)):
        found = effects(nodes, _NODES, odds)
        for end, value in ((0, found.first), (-1, found.last)):
            np.testing.assert_allclose(value, nodes[end].reached[k].mean(axis=0), atol=1e-12)
    both = effects(nodes, _NODES, np.array([0.5, 0.5]))
    within = sum(effects(nodes, _NODES, odds).rows.sum(axis=1) for odds in np.eye(2)) / 2
    # The evidence favours the second model, in which the events are likelier.
    assert (both.rows.sum(axis=1) > within + 0.02).all()


def test_a_node_without_an_island_lacks_it(nodes):
    one = nodes[2].without(1)
    assert one.reached.shape == (2, 3, 2)
    np.testing.assert_array_equal(one.gain[:, 1], nodes[2].gain[:, 2])


# Rows and runs --------------------------------------------------------------------------------------


def test_a_successor_suite_revises_and_a_new_model_is_new(inputs):
    window = history.make_window(inputs, ["2025-12-31", "2026-03-31"])
    kinds = moves._kinds(window)
    changed = np.flatnonzero(window.weight(0) != window.weight(1))
    assert list(kinds) == list(changed) and set(kinds.values()) == {"new", "revised"}
    rows = window.rows
    for r, kind in kinds.items():
        gone = window.weight(1)[r] == 0
        assert kind == "revised" if gone else True
    suites = [r for r in changed if rows["indicator_id"][r] == "metr_th50_v11"]
    assert {kinds[r] for r in suites} == {"new", "revised"}


@pytest.fixture(scope="module")
def store(inputs, tmp_path_factory) -> Path:
    """A ledger of two early days, at a gate that lets everything pass."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "GATE", made.LAX)
        moves.ledger(inputs, PAIR, inputs.worldviews["neutral"], folder, settings=TINY)
    return folder


@pytest.fixture
def told(store, inputs, monkeypatch):
    """Read the ledger again; nothing may be fitted for it."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(batch, "GATE", made.LAX)
    monkeypatch.setattr(batch, "compile_once", never)
    return lambda: moves.ledger(inputs, PAIR, inputs.worldviews["neutral"], store, settings=TINY)


@pytest.mark.slow
def test_parts_and_indicators_add_up(told):
    found = told()
    assert (
        found["reasons"] == []
        and found["gate"] == "pass"
        and found["stored"] is None
        and found["rows"]["new"] > 5
    )
    assert {m["id"] for m in found["milestones"]} >= {"m_10", "W_2"}
    for m in found["milestones"]:
        parts = {name: p["value"] for name, p in m["parts"].items()}
        assert set(parts) == set(moves.PARTS)
        assert sum(parts.values()) == pytest.approx(m["change"], abs=1e-9)
        assert m["to"] - m["from"] == pytest.approx(m["change"])
        assert sum(i["value"] for i in m["indicators"]) == pytest.approx(
            parts["new_rows"] + parts["revised_rows"]
        )
        assert parts["priors"] == parts["code"] == parts["noise"] == 0
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("cause", ["noise", "priors", "code"])
def test_what_lies_between_a_stored_run_and_the_present_has_a_cause(
    cause, inputs, store, monkeypatch, tmp_path
):
    (folder,) = (store / moves.FOLDER).glob(f"as_of={PAIR[0]}/worldview=neutral/key=*")
    tree, manifest = runs.load(folder)
    if cause == "priors":
        manifest = manifest | {"priors": manifest["priors"] | {"tau": "lognormal(median 0.5, sd 0.4)"}}
    if cause == "code":
        manifest = manifest | {"code": "0.0.1+old"}
    runs.save(tmp_path, PAIR[0], "neutral", "ab12", tree, manifest)
    monkeypatch.setattr(batch, "GATE", made.LAX)
    said, present = moves._said(tmp_path, PAIR[0], "neutral"), history.Stored(*runs.load(folder))
    about = moves._differences(said, present)
    assert about["stored"]["key"] == "ab12" and bool(about["code"]) == (cause == "code")
    assert list(about["priors"]) == (["tau"] if cause == "priors" else [])
    # Two nodes made of one fit: nothing moves on the way, so the cause has all of the change.
    rows = history.make_window(inputs, PAIR)
    fit = present.fit
    size = len(inputs.milestones) * len(moves.prediction.report_dates())
    changed = len(moves._kinds(rows))
    node = Node(
        np.full((4, 4, size), 0.25),
        np.zeros((4, 4, changed)),
        np.zeros((4, 4, size, changed)),
        fit.log_evidence,
    )
    monkeypatch.setattr(moves, "_walk", lambda *_: ([node] * len(_NODES), []))
    found = moves._account(rows, inputs.worldviews["neutral"], about, (said, present, present), TINY, 1, None)
    for m in found["milestones"]:
        parts = {name: p["value"] for name, p in m["parts"].items()}
        assert parts[cause] == pytest.approx(m["change"]) == pytest.approx(0.25 - m["from"])
        assert sum(abs(v) for name, v in parts.items() if name != cause) == pytest.approx(0, abs=1e-12)


def test_old_priors_are_put_back_as_printed(inputs):
    plateau = inputs.worldviews["plateau"]
    changed = {"tau": {"from": "lognormal(median 0.5, sd 0.4)", "to": "x"}}
    old = moves._with_old_priors(plateau, changed)
    assert str(old.priors["tau"]) == "lognormal(median 0.5, sd 0.4)"
    assert {n: p for n, p in old.priors.items() if n != "tau"} == {
        n: p for n, p in plateau.priors.items() if n != "tau"
    }


def test_a_refused_fit_has_no_numbers(inputs, store, monkeypatch, capsys):
    present = history.Stored(*runs.load(next((store / moves.FOLDER).glob("as_of=*/worldview=*/key=*"))))
    bad = present._replace(manifest=present.manifest | {"gate": {"amdahl": ["effective sample size 3"]}})
    about = moves._differences(None, present)
    window = history.make_window(inputs, PAIR)
    found = moves._account(window, inputs.worldviews["neutral"], about, (None, bad, bad), TINY, 1, None)
    assert found["gate"] == "fail" and found["milestones"] is None
    whole = {"worldview": "neutral", "from": PAIR[0], "to": PAIR[1]} | about | found
    from forecast.console import show_table

    show_table(moves.tables(whole, {}))
    assert "effective sample size 3" in capsys.readouterr().out


# The command ----------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, command_line) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(ROOT)
    return partial(command_line, "moved")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "json"])
def test_the_command_tells_what_moved(told, command, store, monkeypatch, form):
    monkeypatch.setattr(inference, "Settings", lambda: TINY)
    words = ("--from", PAIR[0], "--to", PAIR[1], "--worldview", "neutral", "--store", store)
    code, out, err = command(*words, "--format", form)
    assert code == 0 and err == ""
    if form == "json":
        assert json.loads(out) == [told()]
    else:
        assert all(
            word in out for word in ("new rows", "remainder", "automated_ai_researcher", "No run of", "±.")
        )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--from", "2026-06-30", "--to", "2026-03-31"), "give a day after --from"),
        (("--from", "2026-03-31", "--to", "2031-01-01"), "up to the last published"),
        (("--from", "2026-02-30"), "not a day of the calendar"),
        (("--from", "2026-03-31", "--worldview", "rapd"), "did you mean 'rapid'"),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, words, text):
    code, out, err = command(*words, "--store", tmp_path)
    (line,) = err.strip().splitlines()
    assert code == 2 and out == "" and line.startswith("error: ") and text in line


def test_a_worldview_is_named(inputs):
    with pytest.raises(InputError):
        pick_worldviews(inputs.worldviews, ["nobody"])
