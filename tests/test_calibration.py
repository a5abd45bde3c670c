"""Calibration: what positions of truths in their posteriors say, on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from forecast import calibration, calibration_figures, figures

RNG = np.random.default_rng(7)
NAMES = [f"x{i}" for i in range(60)]
ROLES = dict.fromkeys(NAMES, "core")


def alone(position: np.ndarray) -> calibration.Found:
    """What is found if no rival is fitted."""
    return calibration.Found(NAMES[: position.shape[1]], position, np.zeros((len(position), 1, 4)))


def test_uniform_positions_lie_inside_their_bands_as_often_as_said():
    found = calibration.record("explosive", alone(RNG.random((200, 60))), ROLES)
    assert 0.85 <= found["inside"] <= 1.0
    assert found["beyond"] == []
    for level, each in found["coverage"].items():
        assert each["value"] == pytest.approx(float(level), abs=4 * each["se"] + 1e-3)


@pytest.mark.parametrize("power", [0.6, 1.7])
def test_positions_of_a_biased_engine_leave_the_band(power):
    found = calibration.record("explosive", alone(RNG.random((200, 60)) ** power), ROLES)
    assert found["inside"] < 0.1


def test_one_parameter_of_many_that_is_far_off_is_named():
    position = RNG.random((200, 60))
    position[:, 7] **= 2
    assert calibration.record("explosive", alone(position), ROLES)["beyond"] == ["x7"]


def test_the_figure_has_a_panel_for_each_dynamic_and_stresses_curves_outside(tmp_path):
    position = RNG.random((200, 60))
    position[:, 7] **= 2
    found = [calibration.record(n, alone(position), ROLES) for n in ("explosive", "amdahl")]
    spec = calibration_figures.curves({"dynamics": found})
    share = np.mean([p["inside"] for p in found[0]["parameters"]])
    assert f"Of 120 parameters {share:.0%}" in spec["title"]["text"]
    (table,) = spec["datasets"].values()
    outside = {row["parameter"] for row in table if row["curve"] == "outside"}
    assert "x7" in outside and {row["dynamic"] for row in table} == {"explosive", "amdahl"}
    # Truths of x7 lie low: more of them than a tenth are below the tenth.
    low = [row["excess"] for row in table if row["parameter"] == "x7" and row["position"] == 0.1]
    assert low == pytest.approx([np.mean(position[:, 7] <= 0.1) - 0.1] * 2, abs=1e-3)
    figures.save(spec, tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "explosive" in drawn and "amdahl" in drawn


def test_intervals_that_are_too_narrow_cover_too_little():
    truth = RNG.normal(size=(300, 1))
    data = truth + RNG.normal(size=(300, 1))
    # The posterior is N(data/2, 1/2); this engine says its variance is a quarter of that.
    draws = data[..., None] / 2 + 0.5 * np.sqrt(0.5) * RNG.normal(size=(300, 1, 2000))
    position = (draws < truth[..., None]).mean(-1)
    found = calibration.record("explosive", alone(position), ROLES)
    assert found["coverage"]["0.8"]["value"] == pytest.approx(0.478, abs=0.1)
    assert not found["parameters"][0]["inside"]


def test_dynamics_are_true_as_often_as_they_are_believed_and_not_under_a_boastful_engine():
    p = RNG.dirichlet(np.ones(4) * 0.7, 4000)
    truth = np.array([RNG.choice(4, p=each) for each in p])
    for one in calibration.reliability(p, truth, np.ones(4000)):
        assert abs(one["true"] - one["believed"]) < 4 * one["se"]
    boastful = p**3 / (p**3).sum(1, keepdims=True)
    top = calibration.reliability(boastful, truth, np.ones(4000))[-1]
    assert top["believed"] - top["true"] > 4 * top["se"]


def test_beliefs_are_compared_in_tenths_of_equal_weight():
    p, weight = RNG.dirichlet(np.ones(4), 2000), RNG.uniform(0.5, 2.0, 2000)
    truth = RNG.integers(4, size=2000)
    found = calibration.reliability(p, truth, weight)
    assert len(found) == 10
    lost = np.concatenate([p, np.full((3, 4), np.nan)])
    without = calibration.reliability(lost, np.r_[truth, 0, 0, 0], np.r_[weight, 1, 1, 1])
    np.testing.assert_allclose([[*one.values()] for one in without], [[*one.values()] for one in found])
    each = np.repeat(weight[:, None], 4, axis=1)
    for one in found:
        inside = (p >= one["low"]) & (p < one["high"])
        assert each[inside].sum() / each.sum() == pytest.approx(0.1, abs=0.001)
        assert one["believed"] == pytest.approx(np.average(p[inside], weights=each[inside]))
    # Beliefs that are alike are not cut, and each counts once.
    same = calibration.reliability(np.full((8, 4), 0.25), np.arange(8) % 4, np.ones(8))
    assert [(one["believed"], one["true"], one["worlds"]) for one in same] == [(0.25, 0.25, 32.0)]
    sure = calibration.reliability(np.eye(4)[[0, 1, 2]], np.array([0, 1, 0]), np.ones(3))
    assert [(one["believed"], one["true"], one["worlds"]) for one in sure] == [(0, 1 / 9, 9), (1, 2 / 3, 3)]
    assert sure[-1]["high"] == 1.0


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_slope_finds_what_evidence_was_multiplied_by(factor):
    """Beliefs from evidence taken three times are put right by a third of it; an impossible dynamic changes nothing."""
    before = np.array([*np.log([0.4, 0.35, 0.25]), -np.inf])
    added, weight = RNG.normal(size=(6000, 4)), RNG.uniform(0.5, 2.0, 6000)

    def log_p(times: float) -> np.ndarray:
        joint = before + times * added
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    truth = np.array([RNG.choice(4, p=p) for p in np.exp(log_p(1.0))])
    found, se = calibration.slope(before, log_p(factor), truth, weight)
    assert 0 < se < 0.05 / factor and found == pytest.approx(1 / factor, abs=4 * se)


def test_beliefs_that_point_away_from_truths_have_no_slope():
    after = np.log(np.tile([0.1, 0.3, 0.3, 0.3], (50, 1)))
    found = calibration.slope(np.log(np.full(4, 0.25)), after, np.zeros(50, int), np.ones(50))
    assert np.isnan(found).all()
