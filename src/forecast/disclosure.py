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
from forecast.observation import minutes, scores
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
    "long_tasks",
)
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
    ``long_tasks``, whether a time horizon can be measured above the ceiling."""
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
    long = fields.get("long_tasks", False)
    if type(long) is not bool:
        raise InputError(f"{where}.long_tasks: give true or false; got {long!r}")
    kept = {k: v for k, v in fields.items() if k not in ("every", "long_tasks")}
    days = pd.date_range(start, end, freq=pd.DateOffset(months=every))[1:]
    if days.empty:
        raise InputError(f"{where}.every: no date by {end:%Y-%m-%d}; give fewer months")
    # Values are simulated on the scale of the law, so a row must be a plain value.
    found = pd.DataFrame([scenarios.as_row(kept | {"date": d.date()}, where, archive) for d in days])
    prepare, n = INDICATORS[str(found["indicator"].iat[0])].prepare, fields.get("n")
    if prepare is scores and not (type(n) is int and n >= 1):
        raise InputError(f"{where}.n: give the number of tasks of the benchmark, as 500; got {n!r}")
    if long and prepare is not minutes:
        raise InputError(f"{where}.long_tasks: only a time horizon has it; leave it out")
    if not prepare(found).exact.all():
        raise InputError(f"{where}.value: so high a value is but a bound; give one that can be measured")
    return found.assign(series=name, long_tasks=long, entity=[f"{name} {d:%Y-%m-%d}" for d in days])


def _tier(name: str, fields: Any, where: str, series: Collection[str], earlier: Mapping[str, Tier]) -> Tier:
    if not isinstance(fields, dict):
        raise InputError(f"{where}: must be a table of {', '.join(TIER_FIELDS)}")
    check_known("field", fields, TIER_FIELDS, where)
    check_told(fields, ("title", "reason"), where)
    base: tuple[str, ...] = ()
    if "extends" in fields:
        check_known("tier above it", [fields["extends"]], earlier, f"{where}.extends")
        base = earlier[fields["extends"]].series
    for key, known in (("without", base), ("series", series)):
        if not isinstance(fields.get(key, []), list):
            raise InputError(f"{where}.{key}: give a list of names of series")
        check_known("series", fields.get(key, []), known, f"{where}.{key}")
    kept = [one for one in base if one not in fields.get("without", [])]
    return Tier(name, fields["title"], fields["reason"], (*kept, *fields.get("series", [])))
