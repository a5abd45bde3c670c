"""The correlated deviation of published capability from the path, and the coordinates it is sampled in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytensor.tensor as pt

from forecast.priors import Array, array_module
from forecast.schema import T0

STEP = 0.5
"""Years between knots."""
TIME = 1.0
"""Correlation time, years."""
SMALL = 0.2
"""How closely readings of the capability index pin a knot, nats: their noise is some 1.5 points, a nat is 5.5
points, and there are a few of them to a knot."""


def knots(last: float) -> np.ndarray:
    """Half-yearly knots from 2023.0 to the first at or past `last`, calendar years."""
    return T0 + STEP * np.arange(int(np.ceil((last - T0) / STEP - 1e-9)) + 1)


def names(at: np.ndarray) -> list[str]:
    """Parameters of the knots, its innovations."""
    return [f"deviation_{knot:.1f}" for knot in at]


def is_knot(name: str) -> bool:
    """Whether a parameter is an innovation of the deviation; its sd is none."""
    return name.startswith("deviation_2")


def knots_of(parameters: Iterable[str]) -> np.ndarray:
    """Knots whose innovations are among some parameters, calendar years in order."""
    return np.array(sorted(float(n.split("_")[1]) for n in parameters if is_knot(n)))


def factor(count: int) -> np.ndarray:
    """Lower factor L of an Ornstein-Uhlenbeck process of unit sd at the knots, (knot, innovation)."""
    rho = np.exp(-STEP / TIME)
    i, j = np.indices((count, count))
    scale = np.where(j == 0, 1.0, np.sqrt(1 - rho**2))
    return np.where(i >= j, rho ** np.abs(i - j) * scale, 0.0)


def at_knots(sd: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The deviation in nats, (..., knot), from its sd (...,) and innovations (..., knot)."""
    return np.asarray(sd)[..., None] * (scores @ factor(scores.shape[-1]).T)


def innovations(deviation: Array, sd: Array) -> tuple[Array, Array]:
    """Standard-normal innovations of an Ornstein-Uhlenbeck process of mean zero, and their sds, (knot,)."""
    xp = array_module(deviation, sd)
    rho = float(np.exp(-STEP / TIME))
    count = len(deviation) if xp is np else deviation.type.shape[0]
    scale = np.where(np.arange(count) == 0, 1.0, np.sqrt(1 - rho**2))
    before = xp.concatenate([0.0 * deviation[:1], rho * deviation[:-1]])
    return (deviation - before) / (sd * scale), sd * scale


def log_density(values: Array, centre: Array, sd: Array, unit: Array) -> Array:
    """Log density at the knots of `centre` and a deviation in some units of nats each."""
    scores, scale = innovations((values - centre) * unit, sd)
    return (-0.5 * scores**2 - pt.log(scale / unit) - 0.5 * np.log(2 * np.pi)).sum()


def draw(
    centre: np.ndarray, sd: np.ndarray, unit: np.ndarray, rng: np.random.Generator, size: Any = None
) -> np.ndarray:
    """One draw of what `log_density` is the density of, (knot,)."""
    return centre + at_knots(sd, rng.standard_normal(len(centre))) / unit


def centring(rows: pd.DataFrame, weight: np.ndarray | None = None) -> np.ndarray:
    """The coordinates in which the deviation is sampled at each knot, (2, knot).

    First, whether published capability is sampled there, 1, or the deviation alone, 0: rows pin the sum at
    knots they reach, and at later ones a sum would have to follow the path wherever that goes.  Second,
    whether it is in nats, 1, or in units of the deviation's sd, 0: where readings of the capability index
    pin every knot that rows reach, the sum hardly depends on the sd and only nats leave the two apart; where
    they do not, nats would hold the sd to what the knots happen to be, and a sampler would hardly reach
    small ones (the funnel of Neal 2003).

    Parameters
    ----------
    weight
        Of each row, (row,); all count by default.
    """
    counts = np.ones(len(rows), bool) if weight is None else np.asarray(weight) != 0.0
    at = knots(float(rows["time"].max()))
    reached = at < rows["time"].to_numpy(float)[counts].max(initial=-np.inf) + STEP
    read = rows["indicator"].eq("capability_index").to_numpy() & counts
    return np.stack([reached, reached & (read.sum() >= reached.sum())]).astype(float)


def unit(sd: Array, in_nats: Array) -> Array:
    """Nats in one unit of the deviation as it is sampled.

    Its sd if `in_nats` is 0, and sd / sqrt(sd^2 + `SMALL`^2) if it is 1: nearly 1 where readings outweigh the
    prior of the deviation, and in proportion to the sd where that is too small for them to tell.
    """
    return sd / (sd**2 + SMALL**2) ** (0.5 * in_nats)
