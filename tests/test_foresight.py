"""Figures of simulated worlds against closed forms: information, times, alarms and reliability."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from forecast import beliefs, calibration, foresight
from forecast.dynamics import DYNAMICS

RNG = np.random.default_rng(3)
AS_OF = pd.Timestamp("2026-06-30")
DAYS = [pd.Timestamp(d) for d in ("2027-01-01", "2028-01-01", "2029-01-01")]
K = len(DYNAMICS)


def gaussian_worlds(size: int, gain: float, odds=(0.4, 0.3, 0.2, 0.1)) -> beliefs.Seen:
    """Worlds with an observation N(gain e_k, I) a day, whose exact posterior is known."""
    truth = np.repeat(np.arange(K), size)
    seen = RNG.normal(size=(len(truth), len(DAYS), K))
    seen[np.arange(len(truth)), :, truth] += gain
    # Log likelihood under k, up to what all share: gain x_k, summed over days; the norms are equal.
    added = np.cumsum(gain * seen, axis=1)[:, None]
    passage = {m: np.full(len(truth), np.inf) for m in ("W_2", "W_3", "m_10", "H_10")}
    return beliefs.believed(np.zeros(K), np.array(odds), added, truth, passage, AS_OF, DAYS)


def test_data_that_say_nothing_are_worth_nothing():
    seen = gaussian_worlds(50, 0.0)
    record = foresight.tier_records(seen, ["A"])[0]
    assert all(x == pytest.approx(0.0, abs=1e-12) for x in record["bits"].values())
    # The chance of naming the truth is then that of today's weights.
    expected = (np.array([0.4, 0.3, 0.2, 0.1]) ** 2).sum()
    assert list(record["posterior_of_truth"].values()) == pytest.approx([expected] * 3)


def test_overwhelming_data_are_worth_the_entropy_of_today():
    seen = gaussian_worlds(50, 40.0)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    entropy = -(p * np.log2(p)).sum()
    record = foresight.tier_records(seen, ["A"])[0]
    assert record["bits"]["2029-01-01"] == pytest.approx(entropy, rel=1e-6)
    assert record["posterior_of_truth"]["2029-01-01"] == pytest.approx(1.0)
    for one in record["by_dynamic"].values():
        assert one["told_apart"]["100"]["ever"]["value"] == 1.0
        assert one["told_apart"]["100"]["year"] == [2027.0] * 3


def test_bits_are_the_mutual_information():
    seen = gaussian_worlds(40_000, 0.7, odds=(0.25,) * 4)
    record = foresight.tier_records(seen, ["A"])[0]
    # Mutual information by the other road: entropy of today less the mean entropy of the posterior.
    p = seen.posterior[:, 0]
    left = -(p * np.log2(p)).sum(-1).mean(0)
    for d, (iso, value) in enumerate(record["bits"].items()):
        assert value == pytest.approx(2.0 - left[d], abs=4 * record["bits_se"][iso] + 0.01)
    assert record["bits"]["2027-01-01"] < record["bits"]["2028-01-01"] < record["bits"]["2029-01-01"]


@pytest.mark.parametrize("gain", [0.7, 2.0])
def test_errors_of_means_are_those_of_repeated_simulations(gain):
    """Also where bits differ more between dynamics, whose numbers are fixed, than between worlds of one."""
    repeated = [gaussian_worlds(60, gain) for _ in range(200)]
    values, said = np.transpose([beliefs.mean(beliefs.bits(one, 0)[:, 1], one) for one in repeated])
    assert said.mean() == pytest.approx(np.std(values), rel=0.2)


def test_one_world_of_a_dynamic_tells_no_error():
    record = foresight.tier_records(gaussian_worlds(1, 0.7), ["A"])[0]
    assert record["bits"]["2028-01-01"] is not None and record["bits_se"]["2028-01-01"] is None


def test_noise_of_the_engine_does_not_take_bits_away():
    seen, noise = gaussian_worlds(20_000, 0.7), 0.4
    added = seen.log_evidence + RNG.normal(scale=noise, size=seen.log_evidence.shape)
    rough = beliefs.believed(
        np.zeros(K), np.array([0.4, 0.3, 0.2, 0.1]), added, seen.truth, seen.passage, AS_OF, DAYS
    )
    # In islands of which each is twice as noisy.
    islands = rough.log_evidence[..., None] + RNG.normal(scale=2 * noise, size=(*added.shape, 4))
    islands += (rough.log_evidence - islands.mean(-1))[..., None]
    told = rough._replace(error=calibration.error_of_truth(rough.posterior, islands, seen.truth))
    exact, low, mended = (
        foresight.tier_records(one, ["A"])[0]["bits"]["2028-01-01"] for one in (seen, rough, told)
    )
    assert low < exact - 0.03
    assert mended == pytest.approx(exact, abs=0.01)


def test_the_bar_is_passed_on_the_first_day_it_holds_and_against_the_closest_rival():
    log_evidence = np.zeros((1, 1, 3, K))
    log_evidence[0, 0, :, 0] = [0.0, np.log(11), np.log(50)]
    log_evidence[0, 0, :, 2] = [0.0, np.log(2), 0.0]
    seen = beliefs.believed(np.zeros(K), np.full(K, 0.25), log_evidence, np.array([0]), {}, AS_OF, DAYS)
    assert beliefs.told_apart(seen, 0, 10.0) == [2029.0]
    assert beliefs.told_apart(seen, 0, 10.0, rival=1) == [2028.0]
    assert np.isinf(beliefs.told_apart(seen, 0, 100.0))
    # Nothing tells a dynamic from itself.
    assert np.isinf(beliefs.told_apart(seen, 0, 10.0, rival=0))


def test_who_is_misled_sees_another_dynamic_pass_the_bar_first():
    log_evidence = np.zeros((3, 1, 3, K))
    # The truth at once; another and then the truth; another that leads one rival but not all.
    log_evidence[0, 0, :, 0] = 5.0
    log_evidence[1, 0, 1, 2], log_evidence[1, 0, 2, 0] = 5.0, 5.0
    log_evidence[2, 0, :, 1:3] = 5.0
    seen = beliefs.believed(np.zeros(K), np.full(K, 0.25), log_evidence, np.zeros(3, int), {}, AS_OF, DAYS)
    assert list(beliefs.misled(seen, 0, 10.0)) == [np.inf, 2028.0, np.inf]
    passage = {m: np.full(3, np.inf) for m in foresight.BEFORE}
    apart = foresight.tier_records(seen._replace(passage=passage), ["A"])[0]["by_dynamic"]["explosive"]
    assert apart["told_apart"]["10"]["misled"]["value"] == pytest.approx(1 / 3)
    assert apart["told_apart"]["10"]["ever"]["value"] == pytest.approx(2 / 3)
    assert apart["told_apart"]["10"]["against"]["decaying"]["year"] == [2027.0, 2029.0, None]


def test_in_time_counts_worlds_that_pass_the_milestone_after_today():
    truth = np.zeros(4, int)
    log_evidence = np.zeros((4, 1, 3, K))
    log_evidence[:, 0, 1:, 0] = 10.0
    passage = {"W_3": np.array([2027.5, 2028.5, np.inf, 2026.0])}
    seen = beliefs.believed(np.zeros(K), np.full(K, 0.25), log_evidence, truth, passage, AS_OF, DAYS)
    found = foresight.in_time(seen, beliefs.told_apart(seen, 0, 10.0), "W_3")
    # Told apart in 2028.0: too late for the first, in time for the second; the others do not count.
    assert found["probability"]["value"] == found["late"]["value"] == pytest.approx(0.5)
    assert found["passes"]["value"] == pytest.approx(0.5)
    # Of one dynamic alone, and where it is neither told nor too late on the last day.
    some = foresight.in_time(seen, beliefs.told_apart(seen, 0, 10.0), "W_3", np.arange(4) == 1)
    assert some["probability"]["value"] == 1.0 and some["late"]["value"] == 0.0
    early = beliefs.until(seen, 1)
    undecided = foresight.in_time(early, beliefs.told_apart(early, 0, 10.0), "W_3")
    assert undecided["probability"]["value"] == undecided["late"]["value"] == 0.0


def test_the_alarm_of_a_world_and_the_years_it_has_stood():
    truth = np.array([0, 0, 0, 1])
    log_evidence = np.zeros((4, 1, 3, K))
    log_evidence[0, 0, 1:, 0] = 5.0
    # Given up before it matters.
    log_evidence[2, 0, 0, 0] = 5.0
    log_evidence[3, 0, 2, 0] = 5.0
    # The last day looked at is 2029.0.
    passage = {"W_3": np.array([2028.75, 2028.75, 2029.0, np.inf])}
    seen = beliefs.believed(np.zeros(K), np.full(K, 0.25), log_evidence, truth, passage, AS_OF, DAYS)
    mine = foresight.alarm(seen, 0, 0)
    assert [x["value"] for x in mine["sounds"].values()] == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert mine["years_to_W_3"] == [None, None, 0.75] and mine["in_time"]["value"] == pytest.approx(1 / 3)
    other = foresight.alarm(seen, 0, 1)
    assert other["sounds"]["2029-01-01"]["value"] == 1.0 and other["years_to_W_3"] == [None] * 3
    # Three worlds of one dynamic count as much as the one of the other.
    false = foresight.false_alarms(seen, 0)
    assert false["2028-01-01"]["share"]["value"] == 0.0
    assert false["2029-01-01"]["share"]["value"] == pytest.approx(3 / 4)
    assert [one["rate"]["value"] for one in false.values()] == [0.0, 0.0, 1.0]
    # Whether it still stands after the last day, nobody has looked.
    later = seen._replace(passage={"W_3": np.full(4, 2029.5)})
    assert foresight.alarm(later, 0, 0)["in_time"]["value"] is None


def test_an_alarm_that_sounds_today_counts_from_today_unless_it_is_taken_back():
    odds, truth = np.array([0.6, 0.2, 0.1, 0.1]), np.zeros(4, int)
    log_evidence = np.zeros((4, 1, 3, K))
    log_evidence[1, 0, 0, 1] = 5.0
    log_evidence[2, 0, 1:, 1] = 5.0
    # The last gets there before today.
    passage = {"W_3": np.array([2028.75, 2028.75, 2028.75, 2026.25])}
    seen = beliefs.believed(np.zeros(K), odds, log_evidence, truth, passage, AS_OF, DAYS)
    mine = foresight.alarm(seen, 0, 0)
    assert mine["in_time"]["value"] == pytest.approx(2 / 3)
    # From 2028 on in the second, from today on in the first.
    assert mine["years_to_W_3"] == [None, 0.75, pytest.approx(2.25, abs=0.01)]
    # Before the first day that is looked at, only today's counts.
    early = seen._replace(passage={"W_3": np.full(4, 2026.75)})
    assert foresight.alarm(early, 0, 0)["years_to_W_3"] == [pytest.approx(0.25, abs=0.02)] * 3


def test_shares_are_never_without_an_error():
    seen = gaussian_worlds(50, 40.0)
    passing = seen._replace(passage={"W_3": np.full(50 * K, 2030.0)})
    found = foresight.in_time(passing, beliefs.told_apart(passing, 0, 10.0), "W_3")
    assert found["probability"]["value"] == found["passes"]["value"] == 1.0
    # Weights of .4 to .1 leave 167 of 200 worlds.
    assert found["probability"]["se"] == pytest.approx(
        np.sqrt(1 / 168.67 * (1 - 1 / 168.67) / 166.67), rel=0.01
    )


def test_worlds_in_which_a_step_failed_count_nowhere():
    seen = gaussian_worlds(50, 40.0)
    lost = seen.log_posterior.copy()
    lost[:2, 0, 1] = np.nan
    left, kept = beliefs.without_lost(seen._replace(log_posterior=lost))
    assert (~kept).sum() == 2 and list(np.bincount(left.truth)) == [48, 50, 50, 50]
    # Each dynamic counts as much as it is probable today, whatever was lost of it.
    weight = np.bincount(left.truth, beliefs.weights(left))
    np.testing.assert_allclose(weight, [0.4, 0.3, 0.2, 0.1])
    assert foresight.failures(seen._replace(log_posterior=lost), 1, ["tier A"]) == []
    lost[:3, 0, 1] = np.nan
    assert foresight.failures(seen._replace(log_posterior=lost), 0, ["tier A"]) == []
    found = foresight.failures(seen._replace(log_posterior=lost), 1, ["tier A"])
    assert found == ["tier A: a step failed in 6% of the worlds of explosive"]


def test_noise_is_that_of_worlds_drawn_from_today():
    seen = gaussian_worlds(10, 0.5)
    errors = np.where(seen.truth == 0, 1.0, 0.5)
    assert foresight.noise(seen, errors) == pytest.approx(np.sqrt(0.4 + 0.6 * 0.25))


def test_an_exact_posterior_is_reliable():
    seen = gaussian_worlds(20_000, 0.5)
    deciles = foresight.reliability(seen, 0, 2)
    assert len(deciles) == 10
    for one in deciles:
        assert one["true"] == pytest.approx(one["believed"], abs=4 * one["se"])
    slope = foresight.slope(seen, 0, 2)
    assert 0 < slope["se"] < 0.02 and slope["value"] == pytest.approx(1.0, abs=4 * slope["se"])


def test_an_overconfident_posterior_is_not():
    seen = gaussian_worlds(5000, 0.5)
    joint = 3 * seen.log_posterior
    sharper = joint - np.logaddexp.reduce(joint, axis=-1, keepdims=True)
    top = foresight.reliability(seen._replace(log_posterior=sharper), 0, 2)[-1]
    assert top["true"] < top["believed"] - 4 * top["se"]


def weighed(level: float, factor: float, noise: float, simulations: int = 200) -> list[dict]:
    """Records of data sets N(level e_k, I) of each dynamic k, with log evidence level x_k times a factor."""
    records = []
    for k in range(K):
        x = RNG.normal(size=(simulations, K)) + level * np.eye(K)[k]
        pseudo = factor * level * x[..., None] + noise * RNG.normal(size=(simulations, K, 4))
        found = calibration.Found(["x"], RNG.random((simulations, 1)), pseudo)
        if k == 2:
            found.log_evidence[5, 1, 0] = np.nan
        records.append(calibration.record("-", found, {"x": "core"}))
    # As it is kept in a file.
    return json.loads(json.dumps(records, allow_nan=False))


@pytest.mark.parametrize("factor", [1.0, 0.6])
def test_weights_tell_which_dynamic_made_the_data_and_whether_they_are_too_timid(factor):
    found = foresight.weight_record(weighed(1.2, factor, 0.2), "2026-06-30")
    slope = found["slope"]
    # So little noise makes no slope.
    assert slope["value"] == pytest.approx(1 / factor, abs=4 * slope["se"])
    assert found["lost"] == 1 and found["failed"] == []
    # Of four islands of sd .2, and the gradient is no longer than that of two dynamics that swap.
    assert 0.04 < found["noise"] < 0.1 * np.sqrt(2)
    if factor == 1.0:
        assert found["bits"]["value"] > 4 * found["bits"]["se"]
        for one in found["reliability"]:
            assert one["true"] == pytest.approx(one["believed"], abs=4 * one["se"])


def test_weights_of_rough_fits_and_weights_without_a_slope_are_no_numbers():
    rough = foresight.weight_record(weighed(1.2, 1.0, 2.0, 50), "2026-06-30")
    assert rough["bits"] is rough["slope"] is None and "weights: the log probability" in rough["failed"][0]
    sure = foresight.weight_record(weighed(9.0, 1.0, 0.1, 50), "2026-06-30")
    assert sure["slope"] == {"value": None, "se": None}
    json.dumps([rough, sure], allow_nan=False)
    # Weights that are far too sure give truths next to no chance.
    (why,) = foresight.weight_record(weighed(1.2, 2.5, 0.2), "2026-06-30")["failed"]
    assert "given less than 0.01 are true" in why


def test_a_date_is_sound_unless_errors_are_large_or_truths_are_lost():
    errors = np.full((500 * K, 1, len(DAYS)), 0.4)
    errors[:, 0, 1] = 0.6
    seen = gaussian_worlds(500, 0.5)._replace(error=errors)
    assert foresight.failures(seen, 0, ["tier A"]) == []
    assert foresight.failures(seen, 1, ["tier A"]) == [
        "tier A: the log probability of the truth has an error of 0.60 nats"
    ]
    assert foresight.failures(seen, 2, ["tier A"]) == []
    # Of two thousand worlds, one and many in which the truth was lost by tens of nats, and one that is not known.
    lost, where = seen.log_posterior.copy(), RNG.choice(500 * K, 40, replace=False)
    lost[-1] = np.nan
    for some, chance, expected in (
        (where[:1], -5.0, 0),
        (where, -5.0, 1),
        (where[:1], -30.0, 1),
    ):
        told = lost.copy()
        told[some, 0, 2, seen.truth[some]] = chance
        found = foresight.failures(seen._replace(log_posterior=told), 2, ["tier A"])
        assert len(found) == expected, (chance, len(some))
        assert all(("less than 0.01 " in f) == (chance > -9) for f in found)


def test_the_error_of_a_truth_is_that_of_repeated_estimates():
    """Four islands scatter around the log evidence of worlds that are told apart from not at all to wholly."""
    level = np.array([0.0, 1.0, 40.0])[:, None, None, None] * np.eye(K)[0]
    truth, odds = np.zeros(3, int), np.full(K, 0.25)

    def told(noise: np.ndarray) -> beliefs.Seen:
        return beliefs.believed(np.zeros(K), odds, level + noise.mean(-1), truth, {}, AS_OF, DAYS[:1])

    many = RNG.normal(scale=0.2, size=(4000, 3, 1, 1, K, 4))
    repeated = np.std([told(noise).log_posterior[:, 0, 0, 0] for noise in many], axis=0)
    pseudo = [level[..., None] + noise for noise in many]
    said = [
        calibration.error_of_truth(told(noise).posterior, x, truth)[:, 0, 0]
        for noise, x in zip(many, pseudo, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(said), axis=0)) == pytest.approx(repeated, rel=0.05, abs=1e-6)
    assert repeated[2] < 1e-6 < 0.05 < repeated[0]


def test_nothing_is_told_of_dates_that_failed():
    record = foresight.tier_records(gaussian_worlds(50, 0.7), ["A"], ["2030-01-01"])[0]
    assert list(record["bits"]) == ["2027-01-01", "2028-01-01", "2029-01-01", "2030-01-01"]
    assert record["bits"]["2030-01-01"] is record["posterior_of_truth_se"]["2030-01-01"] is None


def test_warning_is_the_years_between_two_milestones_where_both_come():
    inf = np.inf
    times = {
        "W_2": np.array([2027.0, 2028.0, inf]),
        "W_3": np.array([2028.0, 2030.0, inf]),
        "m_10": np.array([2027.0, 2027.0, 2027.0]),
        "m_100": np.array([inf, inf, inf]),
        "H_10": np.array([2027.0, inf, 2027.0]),
        "H_1": np.array([2027.5, inf, 2028.5]),
    }
    found = foresight.warning_records({"explosive": times})["explosive"]
    assert found["W_2 -> W_3"]["years"] == [1.0, 1.0, 2.0]
    assert found["W_2 -> W_3"]["passes"]["value"] == pytest.approx(2 / 3)
    assert found["m_10 -> m_100"]["years"] == [None] * 3
    assert found["H_10 -> H_1"]["years"] == [0.5, 0.5, 1.5]


def test_what_is_believed_where_nothing_is_true():
    log_evidence = np.zeros((4, 1, 3, K))
    log_evidence[:2, 0, 2, 1] = 50.0
    log_evidence[2:, 0, 2, 3] = 50.0
    seen = beliefs.believed(np.zeros(K), np.full(K, 0.25), log_evidence, np.full(4, -1), {}, AS_OF, DAYS)
    found = foresight.hybrid_record(seen, ["A"])
    one = found["tiers"]["A"]
    assert found["worlds"] == 4 and one["largest"]["value"] == one["sure"]["value"] == pytest.approx(1.0)
    assert [p["value"] for p in one["posterior"].values()] == pytest.approx([0.0, 0.5, 0.0, 0.5])
    # Of 0, 0, 1 and 1 the standard deviation is 1 / sqrt(3), and its error half of that.
    assert one["posterior"]["decaying"]["se"] == pytest.approx(np.sqrt(1 / 3) / 2)
