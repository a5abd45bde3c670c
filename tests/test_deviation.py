"""The correlated deviation: one process, whatever coordinates it is sampled in."""

import numpy as np
import pandas as pd
import pytest

from forecast import deviation as dev


def read(index: int, others: int, last: float = 2026.0) -> pd.DataFrame:
    """Rows of the capability index and of something else, the last at a calendar year."""
    names = ["capability_index"] * index + ["time_horizon"] * others
    return pd.DataFrame({"indicator": names, "time": np.linspace(2023.5, last, len(names))})


def test_unit_is_the_sd_or_a_nat_unless_the_sd_is_too_small_to_be_seen():
    sd = np.array([1e-6, 0.1, 0.7, 2.0, 1e6])
    np.testing.assert_array_equal(dev.unit(sd, 0.0), sd)
    in_nats = dev.unit(sd, 1.0)
    assert (np.diff(in_nats) > 0).all() and in_nats[-1] == pytest.approx(1.0)
    # What is sampled is as wide as what readings leave open, however small the deviation.
    assert sd[0] / in_nats[0] == pytest.approx(dev.SMALL)


def test_nats_need_an_index_that_pins_every_knot():
    knots = len(dev.knots(2026.0))
    np.testing.assert_array_equal(dev.centring(read(knots, 3)), np.ones((2, knots)))
    np.testing.assert_array_equal(dev.centring(read(knots - 1, 200)), [np.ones(knots), np.zeros(knots)])


def test_rows_that_do_not_count_pin_nothing():
    rows = read(len(dev.knots(2026.0)), 5)
    weight = np.ones(len(rows))
    weight[0] = 0.0
    assert (dev.centring(rows) == 1.0).all() and (dev.centring(rows, np.ones(len(rows))) == 1.0).all()
    assert (dev.centring(rows, weight)[1] == 0.0).all()


def test_past_the_rows_that_count_the_deviation_is_alone():
    rows = read(30, 0, last=2026.9)
    knots = dev.knots(2026.9)
    weight = (rows["time"] < 2025.2).to_numpy(float)
    with_path, in_nats = dev.centring(rows, weight)
    # The last row that counts lies between 2025.0 and 2025.5, so it reads the deviation at both.
    np.testing.assert_array_equal(with_path, knots <= 2025.5)
    np.testing.assert_array_equal(in_nats, with_path)
    assert (dev.centring(rows, np.zeros(len(rows))) == 0.0).all()


@pytest.mark.parametrize("count", [1, 2, 9])
def test_innovations_turn_a_draw_back_into_its_scores(count):
    rng, centre, sd = np.random.default_rng(3), np.arange(count, dtype=float), np.float64(0.6)
    scores = np.random.default_rng(3).standard_normal(count)
    unit = np.full(count, 0.3)
    found, scale = dev.innovations((dev.draw(centre, sd, unit, rng) - centre) * unit, sd)
    np.testing.assert_allclose(found, scores, atol=1e-12)
    assert scale[0] == sd and (scale[1:] < sd).all()
