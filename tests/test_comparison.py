"""Two runs side by side: what moved beyond noise, and what was made differently."""

import io
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from forecast import batch, comparison

ROW = ["ai_code_share", "Google", "2025-01-01", "2025-02-01", 0.3]
MANIFEST = {
    "as_of": "2026-06-30",
    "worldview": "neutral",
    "key": "aa",
    "created": "2026-07-01T00:00:00+00:00",
    "status": "done",
    "rows": 1,
    "seed": 1,
    "code": "0.1.0+a",
    "settings": {"islands": 4, "sweeps": 8},
    "priors": {"v": "normal(mean 0, sd 1)"},
    "observations": [ROW],
}


def made_record(weight: float = 0.4, se: float = 0.01) -> dict:
    dynamics = {
        n: {"prior": 0.5, "posterior": w, "posterior_se": se, "log_evidence": -w, "log_evidence_se": 0.2}
        for n, w in (("explosive", weight), ("amdahl", 1 - weight))
    }
    by = {"explosive": {"2030-01-01": 1.0}, "amdahl": {"2030-01-01": 0.0}}
    milestone = {"id": "m_10", "by": {"2030-01-01": weight}, "by_se": {"2030-01-01": 0.0}, "by_dynamic": by}
    return {"dynamics": dynamics, "milestones": [milestone]}


def compare(a=None, b=None, **changed):
    return comparison.compare((a or made_record(), MANIFEST), (b or made_record(), MANIFEST | changed))


def text(found) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(comparison.tables(found, {"m_10": "Ten times"}))
    return console.file.getvalue()


def test_equal_runs_do_not_differ():
    found = compare()
    assert all(not c["beyond_noise"] and c["change"] == 0 for c in found["weights"].values())
    assert found["data"] == {"known": True, "added": [], "removed": [], "revised": []}
    assert not any(found[k] for k in ("priors", "settings", "odds", "seed", "code"))
    assert "Same data, priors, settings, seed and code" in text(found)


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0, 0.1))
def test_noise_is_two_combined_errors(one, other, se):
    change = compare(made_record(one, se), made_record(other, se))["weights"]["explosive"]
    assert change["change"] == other - one and change["se"] == pytest.approx(se * 2**0.5)
    assert change["beyond_noise"] == (abs(other - one) > 2 * change["se"])


def test_errors_of_milestones_include_those_of_the_weights():
    found = compare(made_record(0.4), made_record(0.5))["milestones"]["m_10"]["2030-01-01"]
    # 0.6 and 0.4 from the mixture on one side, 0.5 and 0.5 on the other.
    assert found["se"] == pytest.approx(0.01 * np.sqrt(0.6**2 + 0.4**2 + 2 * 0.5**2))
    assert found["change"] == pytest.approx(0.1) and found["beyond_noise"]


def test_rows_come_go_and_are_revised():
    other = ["ai_code_share", "Meta", "2025-01-01", "2025-02-01", 0.2]
    revised = [*ROW[:3], "2025-06-01", 0.35]
    found = compare(observations=[revised, other])
    assert found["data"]["added"] == [other] and found["data"]["removed"] == []
    assert found["data"]["revised"] == [{"a": ROW, "b": revised}]
    shown = text(found)
    assert "0.3 -> 0.35" in shown and "Meta" in shown and "compare log evidence between dynamics" in shown
    assert compare(observations=[])["data"]["removed"] == [ROW]


def test_a_run_without_a_list_of_rows_says_so():
    found = compare(observations=None)
    assert not found["data"]["known"] and "Data: unknown" in text(found)


def test_what_was_made_differently_is_listed():
    found = compare(
        priors={"v": "normal(mean 0, sd 2)", "w": "x"}, settings={"islands": 8, "sweeps": 8}, seed=2, code="b"
    )
    assert found["priors"] == {
        "v": {"a": "normal(mean 0, sd 1)", "b": "normal(mean 0, sd 2)"},
        "w": {"a": None, "b": "x"},
    }
    assert found["settings"] == {"islands": {"a": 4, "b": 8}}
    assert found["seed"] == {"a": 1, "b": 2} and found["code"] == {"a": "0.1.0+a", "b": "b"}
    shown = text(found)
    assert "normal(mean 0, sd 2)" in shown and "islands" in shown and "0.1.0+a" in shown


def test_odds_that_differ_are_listed():
    other = made_record()
    other["dynamics"]["amdahl"]["prior"] = 0.25
    assert compare(b=other)["odds"] == {"amdahl": {"a": 0.5, "b": 0.25}}


def test_a_failed_run_has_no_numbers_to_compare():
    failed = deepcopy(made_record())
    for one in failed["dynamics"].values():
        one |= {"posterior": None, "posterior_se": None, "log_evidence": None, "log_evidence_se": None}
    failed["milestones"][0] |= {"by": None, "by_se": None}
    found = compare(b=failed)
    for one in (
        *found["weights"].values(),
        *found["log_evidence"].values(),
        *found["milestones"]["m_10"].values(),
    ):
        assert one["a"] is not None and one["b"] is one["change"] is one["beyond_noise"] is None
    assert "beyond noise" in text(found)


def test_a_name_that_one_run_lacks_has_no_change():
    other = made_record()
    other["dynamics"]["late_wall"] = other["dynamics"].pop("amdahl")
    other["milestones"] = []
    found = compare(b=other)
    assert found["weights"]["late_wall"]["a"] is None and found["weights"]["amdahl"]["b"] is None
    assert found["milestones"]["m_10"]["2030-01-01"]["change"] is None


def test_a_manifest_lists_the_rows_of_the_likelihood():
    days = pd.to_datetime(["2025-01-01", "2025-02-01"])
    rows = pd.DataFrame(
        {
            "indicator_id": ["ai_code_share"],
            "entity": ["Google"],
            "observed_at": days[:1],
            "published_at": days[1:],
            "value": [0.3],
        }
    )
    assert batch.observations(rows) == [ROW]
