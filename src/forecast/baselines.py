"""Forecasts that need no model: a trend and a random walk of each series, on the scale of its law.

The scale is logarithmic for amounts and multiples, logit for shares and scores, and plain for index
points, so a line on it is a log-linear trend.  A series is an indicator, of one company where companies
report it; two suites that measure the same quantity are one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecast.indicators import INDICATORS
from forecast.scoring import Numbers, Student

LEAST_ROWS = 4
"""Fewest rows, or quarters, from which a baseline forecasts: three leave one degree of freedom, whose
predictive distribution has no mean and no CRPS."""


def quantities(rows: pd.DataFrame) -> pd.Series:
    """What each row measures: its indicator, or the observation model that joins several suites, (row,)."""
    pooled = rows["indicator"].map(lambda n: n in INDICATORS and _flagship(n) and not INDICATORS[n].per_id)
    return rows["indicator_id"].mask(pooled.astype(bool), rows["indicator"])


def series(rows: pd.DataFrame) -> pd.Series:
    """Name of each row's series, (row,)."""
    own = rows["indicator"].map(_flagship).astype(bool)
    name = quantities(rows)
    return name.where(own, name + "/" + rows["company"])


def _flagship(name: str) -> bool:
    return INDICATORS[name].flagship_rows


def trend(time: Numbers, value: Numbers, at: Numbers) -> Student:
    """Least-squares line in time with its residual error.

    y(t) = a + b t + e, e ~ N(0, s^2): Student's t with n - 2 degrees of freedom around the line and
    scale s sqrt(1 + 1/n + (t - mean)^2 / sum (t_i - mean)^2).

    Parameters
    ----------
    time, value
        Rows known at the origin: calendar years, and values on the scale of the law.
    at
        When the rows to forecast are observed, calendar years.

    Returns
    -------
    Student
        NaN if fewer than `LEAST_ROWS` rows, one date, or no residual error.
    """
    if len(time) < LEAST_ROWS or np.ptp(time) == 0:
        return _none(at)
    away = time - time.mean()
    spread = float(away @ away)
    slope = float(away @ value) / spread
    residual = value - value.mean() - slope * away
    df = len(time) - 2
    sd = np.sqrt(residual @ residual / df)
    ahead = at - time.mean()
    return _student(df, value.mean() + slope * ahead, sd * np.sqrt(1 + 1 / len(time) + ahead**2 / spread))


def random_walk(time: Numbers, value: Numbers, at: Numbers) -> Student:
    """Random walk with drift over the means of calendar quarters.

    y(q + k) = y(q) + k d + e, e ~ N(0, k s^2), with d and s from the steps between quarters that have rows:
    Student's t around the nearest known quarter, n - 2 degrees of freedom for n quarters, scale
    s sqrt(k + k^2/K), K the quarters from first to last.  A row of a known quarter counts as a step away.

    Parameters and returns are those of `trend`.
    """
    table = pd.Series(value).groupby(np.floor(4 * np.asarray(time))).mean()
    quarter, mean = table.index.to_numpy(float), table.to_numpy(float)
    if len(quarter) < LEAST_ROWS:
        return _none(at)
    gap, whole = np.diff(quarter), quarter[-1] - quarter[0]
    drift = (mean[-1] - mean[0]) / whole
    df = len(quarter) - 2
    sd = np.sqrt((((np.diff(mean) - drift * gap) ** 2) / gap).sum() / df)
    target = np.floor(4 * np.asarray(at))
    nearest = np.abs(target[:, None] - quarter).argmin(axis=1)
    steps = target - quarter[nearest]
    far = np.maximum(np.abs(steps), 1.0)
    return _student(df, mean[nearest] + drift * steps, sd * np.sqrt(far + far**2 / whole))


BASELINES: dict[str, Callable[[Numbers, Numbers, Numbers], Student]] = {
    "trend": trend,
    "random_walk": random_walk,
}
"""Registry of baselines by name."""


def predict(
    name: str, rows: pd.DataFrame, value: Numbers, known: NDArray[np.int64], targets: NDArray[np.int64]
) -> Student:
    """Forecasts of some rows by a baseline fitted to others.

    Parameters
    ----------
    name
        Key of `BASELINES`.
    rows
        Rows of every date, as `selection.select` gives them.
    value
        On the scale of the law, NaN where a row is a bound, an interval or a count, (row,).
    known, targets
        Places in `rows` of those known at the origin and of those to forecast.
    """
    names, time = series(rows).to_numpy(), rows["time"].to_numpy(float)
    found = _none(time[targets])
    usable = known[~np.isnan(value[known])]
    for one in dict.fromkeys(names[targets]):
        mine, past = names[targets] == one, usable[names[usable] == one]
        forecast = BASELINES[name](time[past], value[past], time[targets][mine])
        for field, column in zip(found, forecast, strict=True):
            field[mine] = column
    return found


def _student(df: float, loc: Numbers, scale: Numbers) -> Student:
    if not (scale > 0).all():
        return _none(loc)
    return Student(np.full(len(loc), float(df)), loc, scale)


def _none(at: Numbers) -> Student:
    return Student(*(np.full(len(at), np.nan) for _ in Student._fields))
