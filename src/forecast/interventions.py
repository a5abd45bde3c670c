"""Compute as a lever: what a cap on the growth of compute would do to each milestone, under each dynamic.

This is an intervention, not an observation (Pearl 2009): the posterior stays what it is, because nothing was
learnt, and only paths after the start of the cap change.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast import batch, evidence, prediction, reports, runs
from forecast.dynamics import DYNAMICS
from forecast.paths import Cap
from forecast.priors import finite
from forecast.schema import T_END, InputError, check_known, check_told, read_toml
from forecast.vintages import decimal_year
from forecast.worldviews import Worldview

FIELDS = ("title", "reason", "from", "most")


@dataclass(frozen=True)
class Intervention:
    """A cap on the growth of research compute."""

    title: str
    reason: str
    start: datetime.date
    most: float
    """Largest factor by which compute grows in a year."""

    @property
    def cap(self) -> Cap:
        """As the dynamics take it."""
        return Cap(float(decimal_year([self.start])[0]), math.log(self.most))


def load_intervention(path: Path, as_of: str) -> Intervention:
    """Read an intervention: ``title``, ``reason``, ``from`` (a day after `as_of`) and ``most`` (a factor).

    Raises
    ------
    InputError
        The file cannot be read, or a field is unknown, missing or senseless.
    """
    tree = read_toml(path, "check the path")
    check_known("field", tree, FIELDS, path.name)
    check_told(tree, ("title", "reason"), path.name)
    start, most = tree.get("from"), finite(tree.get("most"))
    if type(start) is not datetime.date:
        raise InputError(f"{path.name}: from: give a day without quotes, as 2027-01-01")
    if not datetime.date.fromisoformat(as_of) < start < datetime.date(int(T_END), 1, 1):
        raise InputError(f"{path.name}: from: {start} is not after {as_of} and before {T_END:.0f}")
    if most is None or not 1.0 <= most <= 100.0:
        raise InputError(
            f"{path.name}: most: give the largest factor of growth in a year, 1 for no growth; "
            f"got {tree.get('most')!r}"
        )
    return Intervention(tree["title"], tree["reason"], start, most)


def compare(
    folder: Path, inputs: batch.Inputs, worldview: Worldview, odds: Worldview, asked: Intervention
) -> dict[str, Any]:
    """Milestones of a stored run without and with an intervention, at the same draws.

    Parameters
    ----------
    worldview, odds
        Of the run, and the one whose odds count.

    Returns
    -------
    dict
        ``worldview``, ``odds``, ``as_of``, ``compute`` (``title``, ``reason``, ``from``, ``most``) and
        ``milestones``, a list of ``id`` and of ``without``, ``with`` and ``change``, each ``by`` (date ->
        probability) and ``by_dynamic``; ``change`` also has ``by_se``.

    Raises
    ------
    InputError
        The run failed its gate.
    """
    tree, manifest = runs.load(folder)
    if manifest["status"] != "done":
        raise InputError(f"{folder}: failed its gate, so nothing can be said of an intervention")
    weights = evidence.weights(runs.log_evidence(tree), np.array([odds.odds.get(n, 0.0) for n in DYNAMICS]))
    sides = [_reached(tree, inputs, worldview, manifest, cap) for cap in (None, asked.cap)]
    dates, found = list(prediction.report_dates()), []
    for i, milestone in enumerate(inputs.milestones):
        entry: dict[str, Any] = {"id": milestone}
        for key, reached in zip(("without", "with", "change"), (*sides, sides[1] - sides[0]), strict=True):
            share = reached[:, i].mean(axis=-1)
            # Errors of the draws are those between chains; both sides have the same draws.
            draws = reached[:, i].var(axis=-1, ddof=1) / reached.shape[-1]
            whole = weights.posterior @ share
            se = evidence.mixture_se(weights.posterior, weights.covariance, share, np.sqrt(draws))
            entry[key] = {
                "by": dict(zip(dates, map(float, whole), strict=True)),
                "by_se": dict(zip(dates, map(float, se), strict=True)),
                "by_dynamic": {
                    n: dict(zip(dates, map(float, share[k]), strict=True)) for k, n in enumerate(DYNAMICS)
                },
            }
        found.append(entry)
    said = {"title": asked.title, "reason": asked.reason, "from": str(asked.start), "most": asked.most}
    return {
        "worldview": worldview.name,
        "odds": odds.name,
        "as_of": manifest["as_of"],
        "compute": said,
        "milestones": found,
    }


def _reached(
    tree: xr.DataTree,
    inputs: batch.Inputs,
    worldview: Worldview,
    manifest: Mapping[str, Any],
    cap: Cap | None,
) -> np.ndarray:
    """Share of draws that have passed each milestone by each date, (dynamic, milestone, date, chain)."""
    declared = batch.declared_parameters(inputs.selection.rows, worldview)
    years, found = np.array(list(prediction.report_dates().values())), []
    for name in DYNAMICS:
        theta = tree[f"{name}/posterior"].to_dataset()
        theta = batch.with_priors(theta, inputs, declared, int(manifest["seed"]))
        passage = prediction.predict(name, theta, inputs.milestones, cap=cap)["passage"].values
        found.append((passage[:, None] <= years[:, None, None]).mean(axis=-1))
    return np.array(found)


def tables(records: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> RenderableType:
    """How an intervention moves key milestones, a table for each worldview, for a terminal."""
    parts: list[RenderableType] = []
    for one in records:
        asked = one["compute"]
        parts.append(
            Text(
                f"{one['worldview']} as of {one['as_of']}: {asked['title']} (research compute grows at most "
                f"{asked['most']:g} times a year from {asked['from']}; the posterior stays as it is)"
            )
        )
        table = Table(title="Probability of having happened by, without -> with", title_justify="left")
        table.add_column("milestone")
        for column in (*reports.KEY_DATES, "change by " + reports.KEY_DATES[-1]):
            table.add_column(column, justify="right")
        for milestone in one["milestones"]:
            if milestone["id"] not in reports.KEY_MILESTONES:
                continue
            cells = [
                f"{milestone['without']['by'][d]:.3f} -> {milestone['with']['by'][d]:.3f}"
                for d in reports.KEY_DATES
            ]
            change = milestone["change"]
            last = reports.KEY_DATES[-1]
            table.add_row(
                titles[milestone["id"]], *cells, f"{change['by'][last]:+.3f} ± {change['by_se'][last]:.3f}"
            )
            for name in DYNAMICS:
                sides = [milestone[side]["by_dynamic"][name] for side in ("without", "with")]
                each = [f"{sides[0][d]:.3f} -> {sides[1][d]:.3f}" for d in reports.KEY_DATES]
                table.add_row(f"  {name}", *each, f"{change['by_dynamic'][name][last]:+.3f}", style="dim")
        parts.append(table)
    return Group(*parts)
