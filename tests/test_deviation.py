"""The correlated deviation: one process, whatever coordinates it is sampled in."""

import numpy as np
import pandas as pd
import pytest

from forecast import deviation as dev


def read(index: int, others: int, last: float = 2026.0) -> pd.DataFrame:
    """Rows of the capability index and of something else, the last at a calendar year."""
    names = ["capability_index"] * index + ["time_horizon"] * others
    return pd.DataFrame({"indicator": names, "time": np.linspace(2023.5, last, len(names))})


def test_unit_is_a_nat_where_the_path_is_centred_and_the_sd_where_it_is_not():
    sd = np.array([0.1, 0.7, 2.0])
    np.testing.assert_array_equal(dev.unit(sd, 1.0), np.ones(3))
    np.testing.assert_array_equal(dev.unit(sd, 0.0), sd)


def test_nats_need_an_index_that_pins_every_knot():
    knots = len(dev.knots(2026.0))
    assert dev.centring(read(knots, 3)) == 1.0
    assert dev.centring(read(knots - 1, 200)) == 0.0


def test_rows_that_do_not_count_pin_nothing():
    rows = read(len(dev.knots(2026.0)), 5)
    weight = np.ones(len(rows))
    weight[0] = 0.0
    assert dev.centring(rows) == dev.centring(rows, np.ones(len(rows))) == 1.0
    assert dev.centring(rows, weight) == 0.0


@pytest.mark.parametrize("count", [1, 2, 9])
def test_innovations_turn_a_draw_back_into_its_scores(count):
    rng, centre, sd = np.random.default_rng(3), np.arange(count, dtype=float), np.float64(0.6)
    scores = np.random.default_rng(3).standard_normal(count)
    found, scale = dev.innovations(dev.draw(centre, sd, rng), centre, sd)
    np.testing.assert_allclose(found, scores, atol=1e-12)
    assert scale[0] == sd and (scale[1:] < sd).all()
