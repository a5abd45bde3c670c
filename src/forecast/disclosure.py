"""Disclosure tiers: which series a policy would have published, how often and how well measured.

A tier is a timetable, not data: its rows say when something is measured and with what error, and their
values are simulated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecast import scenarios, selection
from forecast.indicators import INDICATORS
from forecast.observation import HORIZON_CEILING, VOLUNTARY, counts, logs, minutes, scores, speed_up
from forecast.priors import finite
from forecast.schema import InputError, check_known, check_told, read_toml
from forecast.vintages import Archive, decimal_year

SERIES_FIELDS = (
    "indicator",
    "every",
    "value",
    "interval",
    "level",
    "n",
    "disclosure",
    "developer",
    "least",
    "most",
)
NEED_INTERVAL = ("uplift_trial", "software_growth")
"""Observation models whose error is that of the interval alone."""
TIER_FIELDS = ("title", "reason", "extends", "without", "series")


@dataclass(frozen=True)
class Tier:
    """A disclosure policy."""

    name: str
    title: str
    reason: str
    series: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that any tier would have published by some day."""

    rows: pd.DataFrame
    """As the likelihood takes them, in the order of `selection.in_order`, with a column ``series``, and
    ``least`` and ``most``, the smallest and the largest value that can be told, in the indicator's unit."""
    tiers: dict[str, Tier]

    def counted(self, tier: str, day: pd.Timestamp) -> np.ndarray:
        """Which rows a tier has published by a day, (row,)."""
        rows = self.rows
        mine = rows["series"].isin(self.tiers[tier].series) & (rows["published_at"] <= day)
        return np.asarray(mine, bool)

    def pick(self, names: Sequence[str]) -> list[str]:
        """Names of tiers that were asked for, all by default; the first is what others are compared with."""
        check_known("tier", names, self.tiers, "--tier")
        return list(dict.fromkeys(names)) or list(self.tiers)

    def of(self, names: Sequence[str]) -> Plan:
        """What some tiers would have published, alone."""
        wanted = {one for name in names for one in self.tiers[name].series}
        rows = self.rows[self.rows["series"].isin(wanted)].reset_index(drop=True)
        if rows.empty:
            raise InputError(
                f"disclosure.toml: tiers.{names[0]}: nothing is published by the last date; look further"
            )
        return Plan(rows, {name: self.tiers[name] for name in names})


def load_plan(path: Path, archive: Archive, start: str, end: str) -> Plan:
    """Read ``disclosure.toml`` and lay out every series from the day after `start` to `end`.

    Raises
    ------
    InputError
        The file cannot be read, or a series or tier has an unknown, missing or senseless field.
    """
    tree = read_toml(path, "check the path")
    check_known("table", tree, ("series", "tiers"), path.name)
    for table in ("series", "tiers"):
        if not isinstance(tree.get(table), dict) or not tree[table]:
            raise InputError(f"{path.name}: no {table}; add a table such as [{table}.A]")
    frames = [
        _series(name, fields, f"{path.name}: series.{name}", archive, pd.Timestamp(start), pd.Timestamp(end))
        for name, fields in tree["series"].items()
    ]
    rows = pd.concat(frames, ignore_index=True)
    rows["time"] = decimal_year(rows["observed_at"])
    tiers: dict[str, Tier] = {}
    for name, fields in tree["tiers"].items():
        tiers[name] = _tier(name, fields, f"{path.name}: tiers.{name}", tree["series"], tiers)
    return Plan(selection.in_order(rows), tiers)


def _series(
    name: str, fields: Any, where: str, archive: Archive, start: pd.Timestamp, end: pd.Timestamp
) -> pd.DataFrame:
    """Rows of one series, all with the same placeholder value."""
    if not isinstance(fields, dict):
        raise InputError(f"{where}: must be a table of {', '.join(SERIES_FIELDS)}")
    check_known("field", fields, SERIES_FIELDS, where)
    every = fields.get("every")
    if type(every) is not int or not 1 <= every <= 60:
        raise InputError(f"{where}.every: give whole months from 1 to 60, as 6; got {every!r}")
    kept = {k: v for k, v in fields.items() if k not in ("every", "least", "most")}
    step = pd.DateOffset(months=every)
    # A series that is not published by the end is looked at too.
    days = pd.date_range(start + step, max(end, start + step), freq=step)
    found = pd.DataFrame([scenarios.as_row(kept | {"date": d.date()}, where, archive) for d in days])
    model, n = str(found["indicator"].iat[0]), fields.get("n")
    prepare = INDICATORS[model].prepare
    if prepare in (scores, counts) and not (type(n) is int and n >= 1):
        raise InputError(f"{where}.n: give the number of tasks or people, as 500; got {n!r}")
    if model in NEED_INTERVAL and "interval" not in fields:
        raise InputError(f"{where}.interval: {model} has no other error; give two numbers around the value")
    # Values are simulated on the scale of the law, so a row must be a plain value.
    seen = prepare(found)
    if not (seen.exact & np.isfinite(seen.low)).all():
        raise InputError(f"{where}.value: so extreme a value is but a bound; give one that can be measured")
    if model in NEED_INTERVAL and not (np.minimum(seen.se_low, seen.se_high) > 0).all():
        raise InputError(f"{where}.interval: give two numbers with the value between them")
    least, most = _limits(fields, where, found)
    found = found.assign(series=name, least=least, most=most, entity=[f"{name} {d:%Y-%m-%d}" for d in days])
    return found[found["published_at"] <= end]


def _limits(fields: Mapping[str, Any], where: str, rows: pd.DataFrame) -> tuple[float, float]:
    """Smallest and largest value that a report can tell."""
    model = INDICATORS[str(rows["indicator"].iat[0])]
    limits = {"least": -np.inf, "most": HORIZON_CEILING if model.prepare is minutes else np.inf}
    for key in [k for k in limits if k in fields]:
        if model.prepare in (scores, counts):
            raise InputError(f"{where}.{key}: limits of a count follow from n; leave it out")
        if model.flagship_rows and key == "least":
            raise InputError(f"{where}.least: a model's capability is only bounded from below; leave it out")
        if fields.get("disclosure") in VOLUNTARY:
            raise InputError(f"{where}.{key}: a voluntary report has none; leave it out, or the disclosure")
        end, value = finite(fields[key]), float(fields["value"])
        if end is None or not (end < value if key == "least" else end > value):
            side = "below" if key == "least" else "above"
            raise InputError(f"{where}.{key}: give a number {side} the value; got {fields[key]!r}")
        with np.errstate(divide="ignore", invalid="ignore"):
            told = ends(rows.assign(**{"least": -np.inf, "most": np.inf, key: end}))
        if not np.isfinite(told).any():
            raise InputError(f"{where}.{key}: {end:g} is no value that it can have; leave it out")
        limits[key] = end
    return limits["least"], limits["most"]


def ends(rows: pd.DataFrame) -> np.ndarray:
    """Least and most that each row of a plan can tell, on the scale of its law, (2, row)."""
    found = np.tile([[-np.inf], [np.inf]], len(rows))
    for name in dict.fromkeys(rows["indicator"]):
        prepare = INDICATORS[name].prepare
        # `minutes` knows one ceiling, and more time is less speed.
        read, places = logs if prepare is minutes else prepare, (1, 0) if prepare is speed_up else (0, 1)
        for place, column in zip(places, ("least", "most"), strict=True):
            mine = np.flatnonzero((rows["indicator"] == name) & np.isfinite(rows[column]))
            if mine.size:
                told = rows.iloc[mine]
                found[place, mine] = read(told.assign(value=told[column], lower=np.nan, upper=np.nan)).low
    return found


def _tier(name: str, fields: Any, where: str, series: Collection[str], earlier: Mapping[str, Tier]) -> Tier:
    if not isinstance(fields, dict):
        raise InputError(f"{where}: must be a table of {', '.join(TIER_FIELDS)}")
    check_known("field", fields, TIER_FIELDS, where)
    check_told(fields, ("title", "reason"), where)
    base: tuple[str, ...] = ()
    if "extends" in fields:
        check_known("tier above it", [str(fields["extends"])], earlier, f"{where}.extends")
        base = earlier[fields["extends"]].series
    for key, known in (("without", base), ("series", series)):
        asked = fields.get(key, [])
        if not isinstance(asked, list) or not all(isinstance(one, str) for one in asked):
            raise InputError(f"{where}.{key}: give a list of names of series")
        check_known("series", asked, known, f"{where}.{key}")
    kept = [one for one in base if one not in fields.get("without", [])]
    if not (every := (*kept, *fields.get("series", []))):
        raise InputError(f"{where}.series: give at least one series")
    return Tier(name, fields["title"], fields["reason"], every)
