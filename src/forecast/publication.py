"""What a finished batch says: what moved since the one before, which triggers fired, and its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Group, RenderableType
from rich.text import Text

from forecast import (
    accounts,
    batch,
    comparison,
    export,
    hub,
    page,
    prediction,
    reports,
    runs,
    scenarios,
    views,
    vintages,
)
from forecast.batch import Inputs
from forecast.comparison import NOISE
from forecast.jobs import OWN, Gates, Job, Outputs, Trigger
from forecast.scenarios import Scenario
from forecast.schema import InputError, did_you_mean
from forecast.worldviews import Worldview, late_names, pick_worldviews

KEPT = ("as_of", "worldview", "key", "rows")
"""What is remembered of the manifest of a run on the newest day."""


class Reading(export.Run):
    """A stored run of a batch at some prior odds; its tree is read when it is asked for."""

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], worldview: Worldview, odds: Worldview
    ) -> None:
        own = odds.name == worldview.name
        # Under this name it is exported and reported.
        name = worldview.name if own else f"{worldview.name}_at_{odds.name}"
        fields = {"folder": folder, "manifest": {**manifest, "worldview": name}, "odds": odds.odds}
        for field, value in (fields | {"view": worldview, "read_at": odds}).items():
            object.__setattr__(self, field, value)

    folder: Path
    view: Worldview
    """Fitted."""
    read_at: Worldview
    """Whose odds are used."""

    @property
    def tree(self) -> xr.DataTree:
        """Predictions and evidence; draws, which are most of a run, are left out."""
        return _predictions(self.folder)

    @property
    def failed(self) -> bool:
        """Whether any dynamic missed a limit."""
        return any(self.manifest["gate"].values())

    def judged(self, gates: Gates) -> Reading:
        """The same with what the job's own limits find added to what the gate of the fit found."""
        found = []
        least = min(self.manifest["min_ess"].values())
        if gates.ess is not None and not least >= gates.ess:
            found.append(f"effective sample size {least:.0f}, below the job's {gates.ess:g}")
        if gates.weight_se is not None:
            worst = float(self.weights().posterior_se.max())
            if not worst <= gates.weight_se:
                found.append(f"standard error of a weight {worst:.3f}, above the job's {gates.weight_se:g}")
        gate = {name: [*texts, *found] for name, texts in self.manifest["gate"].items()}
        return Reading(self.folder, {**self.manifest, "gate": gate}, self.view, self.read_at)


@lru_cache(maxsize=32)
def _predictions(folder: Path) -> xr.DataTree:
    return runs.load_part(folder, ("predictions", "evidence"))


def crossings(worldviews: Sequence[Worldview], odds: Sequence[str], inputs: Inputs) -> list[tuple[Any, Any]]:
    """Each worldview with the odds it is read at, each pair once."""
    others = {n: None if n == OWN else pick_worldviews(inputs.worldviews, [n], "odds")[0] for n in odds}
    pairs = [(w, other or w) for w in worldviews for other in others.values()]
    return list({(w.name, o.name): (w, o) for w, o in pairs}.values())


# Changes and triggers ---------------------------------------------------------------------------------


def check_triggers(job: Job, inputs: Inputs, chosen: Sequence[Worldview]) -> None:
    """Raise `InputError` where a trigger names what does not exist."""
    names = [w.name for w in chosen]
    for i, trigger in enumerate(job.triggers):
        for field, value, known in (
            ("milestone", trigger.milestone, list(inputs.milestones)),
            ("dynamic", trigger.dynamic, list(chosen[0].odds)),
            *(("worldviews", w, names) for w in trigger.worldviews),
        ):
            if value is not None and value not in known:
                mend = did_you_mean(value, known) or f"; there are {', '.join(known)}"
                raise InputError(f"triggers.{i}.{field}: unknown {field.rstrip('s')} '{value}'{mend}")


def state(readings: Sequence[Reading], triggers: Sequence[Trigger]) -> dict[str, Any]:
    """What the next batch compares itself with: the newest runs in plain numbers, by name of the reading."""
    return {
        one.worldview: {
            "record": reports.record(one.tree, one.manifest, one.read_at.name, one.odds),
            "manifest": {k: one.manifest.get(k) for k in KEPT},
            "watched": {
                t.name: _watched(one, t)
                for t in triggers
                if not t.worldviews or one.view.name in t.worldviews
            },
        }
        for one in readings
    }


def _watched(run: Reading, trigger: Trigger) -> list[float]:
    """The number a trigger watches, and its Monte Carlo error."""
    weights = run.weights()
    if trigger.dynamic is not None:
        k = run.dynamics.index(trigger.dynamic)
        return [float(weights.posterior[k]), float(weights.posterior_se[k])]
    year = vintages.decimal_year([trigger.by])
    passages = run.passages(str(trigger.milestone))
    mixed = dict(zip(run.dynamics, map(float, weights.posterior), strict=True))
    found = prediction.mixture_cdf(passages, mixed, year, weights.covariance)
    return [float(found.probability[0]), float(found.se[0])]


def moved(now: Mapping[str, Any], last: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Weights and key milestones on the newest day that changed by more than noise between two `state`s."""
    found = []
    for name in now:
        if name not in last:
            continue
        sides = [(side[name]["record"], side[name]["manifest"]) for side in (last, now)]
        change = comparison.compare(*sides)
        key = {m: dates for m, dates in change["milestones"].items() if m in reports.KEY_MILESTONES}
        numbers = [(f"weight of {n}", c) for n, c in change["weights"].items()]
        numbers += [
            (f"P({m} by {day})", c)
            for m, dates in key.items()
            for day, c in dates.items()
            if day in reports.KEY_DATES
        ]
        found += [
            {"reading": name, "what": what, **{k: c[k] for k in ("a", "b", "change", "se")}}
            for what, c in numbers
            if c["beyond_noise"]
        ]
    return found


def fired(
    triggers: Sequence[Trigger], now: Mapping[str, Any], last: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every trigger for every reading: its number, by how much it passed its limit, and whether beyond noise.

    Returns
    -------
    list of dict
        ``trigger``, ``reading``, ``value``, ``se``, ``last`` (None at first), ``limit``, ``fired`` (None
        where there is nothing to compare with), and ``beyond_noise``: whether the distance from the limit
        exceeds `comparison.NOISE` standard errors.
    """
    found = []
    for trigger in triggers:
        for name, one in now.items():
            if trigger.name not in one["watched"]:
                continue
            value, se = one["watched"][trigger.name]
            before = last.get(name, {}).get("watched", {}).get(trigger.name)
            kind, limit = next(
                (k, v) for k in ("above", "below", "up", "down") if (v := getattr(trigger, k)) is not None
            )
            excess = error = None
            if kind in ("above", "below"):
                excess, error = value - limit if kind == "above" else limit - value, se
            elif before is not None:
                change = value - before[0]
                excess, error = (change if kind == "up" else -change) - limit, float(np.hypot(se, before[1]))
            found.append(
                {
                    "trigger": trigger.name,
                    "reading": name,
                    "value": value,
                    "se": se,
                    "last": before and before[0],
                    "limit": f"{kind} {limit:g}",
                    "fired": None if excess is None else bool(excess > 0),
                    "beyond_noise": None if excess is None else bool(abs(excess) > NOISE * (error or 0.0)),
                }
            )
    return found


# Outputs ----------------------------------------------------------------------------------------------


def content(
    readings: Sequence[Reading], inputs: Inputs, outputs: Outputs, asked: Sequence[Scenario] = ()
) -> str:
    """Hash of all a publication is made of: runs, odds, assumptions, the archive, and what is asked for."""
    made_of = {
        "runs": [[one.worldview, one.manifest["key"], one.odds, one.manifest["gate"]] for one in readings],
        "worldviews": {one.view.name: repr(one.view) for one in readings},
        "archive": vintages.data_hash(inputs.archive.observations),
        "indicators": inputs.archive.indicators.to_csv(),
        "milestones": repr(inputs.milestones),
        "outputs": outputs.model_dump(exclude={"folder"}),
        "scenarios": [[one.name, one.title, one.rows.to_csv()] for one in asked],
        "code": runs.code_version(),
    }
    return runs.run_key(made_of)


def publish(
    readings: Sequence[Reading], inputs: Inputs, outputs: Outputs, asked: Sequence[Scenario] = ()
) -> bool:
    """Write the outputs of a batch, replacing the last as a whole; False if they stand there already.

    A run that failed is left out of the hub, the scenarios and the page, and in the history it has no
    numbers.

    Parameters
    ----------
    asked
        Those that `outputs` names.
    """
    final = Path(str(outputs.folder))
    key = content(readings, inputs, outputs, asked)
    if export.is_current(final, key):
        return False
    export.sweep(final)
    found = [one for one in readings if not one.failed]
    own = [one for one in found if one.view.name == one.read_at.name]
    last = max((one.as_of for one in own), default=None)
    newest = [one for one in own if one.as_of == last]

    def fill(place: Path) -> None:
        if outputs.history:
            _write(place / "history.json", _history(readings))
        if outputs.hub:
            (place / "hub").mkdir()
            hub.write(place / "hub", found, inputs.archive, inputs.milestones, outputs.team, outputs.samples)
        # Where none passed at its own odds there is nothing that these could show.
        if newest and (asked or outputs.report):
            known = batch.at_date(inputs, str(last))
            met = _met(newest, known, asked) if asked else []
            if asked:
                _write(place / "scenarios.json", met)
            if outputs.report:
                page.write(page.render(_parts(newest, own, known, met)), place / "report.html")

    export.publish(final, fill, found, key)
    return True


def _write(path: Path, found: Any) -> None:
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _met(newest: Sequence[Reading], inputs: Inputs, asked: Sequence[Scenario]) -> list[dict[str, Any]]:
    """Records as `forecast whatif` prints them, of every scenario and worldview, on inputs of their day."""
    read = [accounts.read(one.folder, inputs, one.view) for one in newest]
    return [scenarios.whatif(run, scenario) for scenario in asked for run in read]


def _parts(
    newest: Sequence[Reading], own: Sequence[Reading], inputs: Inputs, met: Sequence[Mapping[str, Any]]
) -> page.Parts:
    """What the page shows: the newest day of each worldview at its own odds, and its weights before."""
    dates: dict[str, list[dict[str, Any]]] = {one.worldview: [] for one in newest}
    for one in sorted(own, key=lambda r: r.as_of):
        if one.worldview in dates:
            dates[one.worldview].append(reports.weight_record(one.tree, one.manifest, one.odds))
    return page.Parts(
        [views.open_run(one.folder, one.view) for one in newest],
        [{"worldview": name, "dates": found} for name, found in dates.items()],
        inputs.selection.rows,
        dict(inputs.archive.indicators["title"]),
        prediction.titles(inputs.milestones),
        scenarios=met,
    )


def _history(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Records as `forecast history` prints them, one for each worldview and odds."""
    by_name: dict[str, list[Reading]] = {}
    for one in sorted(readings, key=lambda r: r.as_of):
        by_name.setdefault(one.worldview, []).append(one)
    records = []
    for name, some in by_name.items():
        late = {str(one.as_of): late_names(one.view, str(one.as_of)) for one in some}
        loaded = [(one.tree, one.manifest) for one in some]
        record = reports.history_record(loaded, name, some[0].odds, late)
        records.append(record | {"odds": some[0].read_at.name})
    return reports.with_distances(records)


# The summary --------------------------------------------------------------------------------------------


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """What `scheduling.run` returned, for a terminal."""
    days = summary["dates"]
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} dates"
    parts: list[RenderableType] = [
        Text(f"{summary['job']}: {span}, {', '.join(summary['worldviews'])}"),
        Text(
            f"{len(summary['ran'])} ran, {summary['skipped']} were stored, {len(summary['failed'])} failed, "
            f"{len(summary['healed'])} were damaged and made anew; {summary['seconds']:.0f} s; "
            f"publication: {summary['published']}"
        ),
    ]
    if summary["clock"]:
        parts.append(Text(f"Clock: {summary['clock']}."))
    if summary["failed"]:
        rows = [[one["run"], one["reason"]] for one in summary["failed"]]
        parts.append(reports.plain_table(["run", "reason"], rows, "Failed"))
    if summary["moved"]:
        rows = [
            [m["reading"], m["what"], f"{m['a']:.3f}", f"{m['b']:.3f}", f"{m['change']:+.3f} ± {m['se']:.3f}"]
            for m in summary["moved"]
        ]
        columns = ["worldview", "number", "last", "now", "change"]
        parts.append(reports.plain_table(columns, rows, "Moved by more than noise since the last batch"))
    if summary["triggers"]:
        rows = [
            [
                t["trigger"],
                t["reading"],
                f"{t['value']:.3f} ± {t['se']:.3f}",
                "-" if t["last"] is None else f"{t['last']:.3f}",
                t["limit"],
                {None: "-", True: "YES", False: "no"}[t["fired"]]
                + (", within noise" if t["beyond_noise"] is False else ""),
            ]
            for t in summary["triggers"]
        ]
        columns = ["trigger", "worldview", "number", "last", "limit", "fired"]
        parts.append(reports.plain_table(columns, rows, "Triggers"))
    return Group(*parts)
