"""What would have been said on each of many days: one compiled model, stepped from date to date.

The model is compiled once, for every row that counts on any of the dates; a row that does not count on a
date has weight 0 then.  The first date is fitted from the prior, and each later one is reached from the one
before by reweighting its particles and moving them.  A step that fails the gate is replaced by a fit.  Each
date is a stored run, and a step always starts from what is stored, so that an interrupted history goes on
as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from forecast import batch, evidence, free_values, inference, model, runs, selection, vintages
from forecast.compilation import Compiled
from forecast.dynamics import DYNAMICS
from forecast.particles import thin
from forecast.priors import Parameter
from forecast.schema import InputError, did_you_mean
from forecast.tables import PROVENANCE
from forecast.worldviews import Worldview, before_news

START = "2025-01-01"
"""First day of a history, unless told otherwise."""
EVERY = ("week", "month", "quarter", "half-year", "publication")
"""Steps of a history: Sundays, ends of such longer periods, or every day on which something was published."""
STEP_SWEEPS = (2, 3, 4)
"""Sweeps at the posterior of a stepped date, and of further ones from there until the gate lets it pass."""
STEP_ESS = 0.2
"""Effective share of particles at which a step puts in a posterior between; the draws come from moves."""
STEP_ACCEPTANCE = 0.93
"""Higher than in a fit: a step resamples few particles many times, and copies of one that hardly moves from
a narrow place would add up."""
WIDENED = "widened"
"""Folder within a store for runs whose late lines were widened, so that nobody takes them for the others."""


# Dates and rows -----------------------------------------------------------------------------------------


def dates(
    archive: vintages.Archive, start: str = START, end: str | None = None, every: str = "quarter"
) -> list[pd.Timestamp]:
    """Days of a history, in order.

    Parameters
    ----------
    archive
        For the days of publication.
    start, end
        First and last day that may be among them, YYYY-MM-DD; `end` defaults to the last published day.
    every
        One of `EVERY`.

    Raises
    ------
    InputError
        A day is none of the calendar or outside the archive, the order is wrong, `every` is unknown, or
        no day is left.
    """
    if every not in EVERY:
        raise InputError(
            f"--every: unknown step '{every}'{did_you_mean(every, EVERY)}; there are {', '.join(EVERY)}"
        )
    last = vintages.last_published(archive)
    published = archive.observations["published_at"]
    first = pd.Timestamp(published.min())
    low, high = vintages.day_of(start, "--from"), last if end is None else vintages.day_of(end, "--to")
    if low > high:
        raise InputError(
            f"--from: {low:%Y-%m-%d} is after --to, {high:%Y-%m-%d}; give an earlier day or a later --to"
        )
    if low < first:
        raise InputError(
            f"--from: nothing was published by {low:%Y-%m-%d}; the first day is {first:%Y-%m-%d}"
        )
    if high > last:
        raise InputError(f"--to: {high:%Y-%m-%d} is past the last published day, {last:%Y-%m-%d}")
    if every == "publication":
        days = pd.DatetimeIndex(sorted(published[published.between(low, high)].unique()))
    else:
        days = pd.date_range(low, high, freq="W" if every == "week" else "ME")
        if every != "week":
            days = days[days.month % {"month": 1, "quarter": 3, "half-year": 6}[every] == 0]
    if days.empty:
        what = "day of publication" if every == "publication" else f"end of a {every}"
        raise InputError(f"--every: no {what} from {low:%Y-%m-%d} to {high:%Y-%m-%d}; widen the dates")
    return list(days)


@dataclass(frozen=True)
class Window:
    """The dates of a history, and every row that counts on one of them."""

    inputs: tuple[batch.Inputs, ...]
    """Of each date, in order."""
    rows: pd.DataFrame
    """In the order of `selection.in_order`; rows that differ in anything but their file are two."""
    places: tuple[np.ndarray, ...]
    """Of each date, where its rows stand among `rows`, in the order of its own selection."""

    def weight(self, index: int) -> np.ndarray:
        """1 where a row counts on a date, (row,)."""
        counts = np.zeros(len(self.rows))
        counts[self.places[index]] = 1.0
        return counts


def make_window(inputs: batch.Inputs, days: Sequence[pd.Timestamp]) -> Window:
    """Rows of every date, each taken from the snapshot of its date.

    Parameters
    ----------
    inputs
        Whose archive is looked at.
    days
        From `dates`.

    Raises
    ------
    InputError
        No row counts on any of the days.
    """
    dated = tuple(batch.at_date(inputs, day) for day in days)
    every = pd.concat([one.selection.rows for one in dated], ignore_index=True)
    if every.empty:
        raise InputError(f"--to: no row that counts was published by {dated[-1].as_of}; take a later day")
    content = [c for c in every.columns if c not in PROVENANCE]
    identity = every.groupby(content, dropna=False, sort=False).ngroup()
    rows = selection.in_order(every.assign(identity=identity)[~identity.duplicated()])
    place = pd.Series(rows.index, index=rows["identity"])
    ends = np.cumsum([len(one.selection.rows) for one in dated])[:-1]
    places = tuple(place[ids].to_numpy() for ids in np.split(identity.to_numpy(), ends))
    return Window(dated, rows.drop(columns="identity"), places)


# Fits ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A date of a history under one worldview."""

    window: Window
    at: int
    worldview: Worldview
    priors: tuple[dict[str, Parameter], ...]
    """Of each date; they differ where late lines are widened."""
    settings: inference.Settings
    seed: int
    key: str
    """Under which its run is stored; it holds the keys of all dates before, and needs no run of theirs."""

    @property
    def inputs(self) -> batch.Inputs:
        """What was known on its date."""
        return self.window.inputs[self.at]

    @property
    def declared(self) -> dict[str, Parameter]:
        """Parameters on its date."""
        return self.priors[self.at]

    @property
    def name(self) -> str:
        """What progress is reported of."""
        return f"{self.worldview.name}, {self.inputs.as_of}"

    def data(self, back: int = 0) -> dict[str, np.ndarray]:
        """Values of the model's data on this date, or `back` dates earlier."""
        at = self.at - back
        return model.data_values(self.priors[at]) | model.row_data(self.window.rows, self.window.weight(at))

    def draw_seed(self, purpose: str) -> int:
        """A seed of its own for each date and purpose, so that runs do not depend on their order."""
        return runs.seed_of(f"{self.seed} {self.inputs.as_of} {purpose}")

    def alone(self) -> Step:
        """The same with no more of its window than it needs, to be sent elsewhere."""
        first = max(0, self.at - 1)
        kept = slice(first, self.at + 1)
        window = Window(self.window.inputs[kept], self.window.rows, self.window.places[kept])
        return replace(self, window=window, priors=self.priors[kept], at=self.at - first)

    def find(self, store: Path) -> Path | None:
        """Folder of its run, if that is stored."""
        return runs.find(store, self.inputs.as_of, self.worldview.name, self.key)

    def save(self, store: Path, run: Stored) -> Path:
        """Store its run, and return the folder."""
        return runs.save(store, self.inputs.as_of, self.worldview.name, self.key, *run)


def steps(
    window: Window,
    worldview: Worldview,
    seed: int = 1,
    settings: inference.Settings | None = None,
    wide: bool = False,
) -> list[Step]:
    """Every date of a window under one worldview, in order, each to be taken from the one before.

    Parameters
    ----------
    wide
        As in `update`.
    """
    settings = settings or inference.Settings()
    priors: tuple[dict[str, Parameter], ...]
    if wide:
        views = (before_news(worldview, one.as_of) for one in window.inputs)
        priors = tuple(batch.declared_parameters(window.rows, view) for view in views)
    else:
        priors = (batch.declared_parameters(window.rows, worldview),) * len(window.inputs)
    rows, before, found = vintages.data_hash(window.rows), None, list[Step]()
    for at, inputs in enumerate(window.inputs):
        content = batch.key_content(inputs, priors[at], settings, seed)
        before = runs.run_key(content | {"window": rows, "from": before})
        found.append(Step(window, at, worldview, priors, settings, seed, before))
    return found


def update(
    window: Window,
    worldviews: Sequence[Worldview],
    store: Path,
    seed: int = 1,
    settings: inference.Settings | None = None,
    progress: batch.Progress | None = None,
    wide: bool = False,
) -> dict[str, list[Path]]:
    """Fit or step to every date that is not stored yet; folders of the runs by worldview, by date.

    A date whose priors differ from those of the date before is fitted from the prior.

    Parameters
    ----------
    window
        From `make_window`.
    worldviews, store, seed, settings, progress
        As in `batch.update`.
    wide
        Whether lines informed later than a date are widened on it, by `worldviews.before_news`.
    """
    compiled: dict[tuple[str, ...], Compiled] = {}
    folders: dict[str, list[Path]] = {}
    for worldview in worldviews:
        done, before = folders.setdefault(worldview.name, []), None
        for step in steps(window, worldview, seed, settings, wide):
            found = step.find(store)
            if found is None:
                if progress:
                    progress(step.name, "compiling", 0.0)
                program = batch.compile_once(compiled, window.rows, step.declared)
                if done and before is None:
                    before = Stored(*runs.load(done[-1]))
                before = take(step, program, before, progress)
                found = step.save(store, before)
            else:
                before = None
            done.append(found)
    return folders


class Stored(NamedTuple):
    """A run as it is read from the store."""

    tree: xr.DataTree
    manifest: dict[str, Any]

    @property
    def fit(self) -> inference.Fit:
        """The fit a later date starts from; its draws are those kept, in single precision."""
        draws = np.stack([self.tree[f"{n}/particles"].to_dataset()["x"].values for n in DYNAMICS]).astype(
            float
        )
        check = self.tree["evidence"].to_dataset()["one_shot"].values
        return inference.Fit(
            draws, runs.log_evidence(self.tree), check, (), float(self.manifest["step_size"])
        )


def take(
    step: Step, compiled: Compiled, before: Stored | None, progress: batch.Progress | None = None
) -> Stored:
    """What is stored of one date.

    Parameters
    ----------
    step
        From `steps`.
    compiled
        The model of the rows of its window.
    before
        Run of the date before, None at the first.
    """
    began = time.monotonic()
    start = None
    # Nothing can be stepped from a fit that failed, or to other priors.
    if before and before.manifest["status"] == "done" and step.declared == step.priors[step.at - 1]:
        start = before
    if start and np.array_equal(step.data(1)["weight"], step.data()["weight"]):
        kept = {name: value for name, value in start.manifest.items() if name != "created"}
        changed = {"method": "unchanged", "note": step.inputs.snapshot.attrs["note"], "step_failures": {}}
        done = Stored(start.tree, kept | changed)
    else:
        done = _fit(step, compiled, start, progress)
    increment = None
    if start and done.manifest["status"] == "done":
        change, error = evidence.increments(runs.log_evidence(start.tree), runs.log_evidence(done.tree))
        increment = {n: [float(change[k]), float(error[k])] for k, n in enumerate(DYNAMICS)}
    earlier = step.window.inputs[step.at - 1].as_of if before else None
    how = {"from": earlier, "increment": increment}
    return Stored(done.tree, done.manifest | how | {"seconds": round(time.monotonic() - began, 2)})


def _fit(step: Step, compiled: Compiled, start: Stored | None, progress: batch.Progress | None) -> Stored:
    """Step from a stored run if there is one and the gate lets the result pass; else fit from the prior."""
    data = step.data()
    tell = None if progress is None else partial(progress, step.name)
    predictor = partial(batch.predict, inputs=step.inputs, declared=step.declared, seed=step.seed)
    judged = _stepped(step, compiled, start, predictor, tell) if start else None
    method, failures = "stepped", judged.failures if judged and judged.failed else {}
    if judged is None or judged.failed:
        method, seed = "direct", step.draw_seed("fit")
        judged = batch.sample_until_sound(
            compiled, step.declared, step.window.rows, data, step.settings, seed, tell, predictor
        )
    places = step.window.places[step.at]
    tree, manifest = batch.package(step.inputs, step.declared, judged, step.seed, places)
    spread = thin(judged.fit.draws.shape[2], batch.KEPT_DRAWS)
    for k, name in enumerate(DYNAMICS):
        x = xr.DataArray(
            judged.fit.draws[k][:, spread].astype("float32"), dims=("chain", "draw", "dimension")
        )
        tree[f"{name}/particles"] = xr.DataTree(x.to_dataset(name="x"))
    size = judged.fit.step_size
    return Stored(tree, manifest | {"method": method, "step_failures": failures, "step_size": size})


def _stepped(
    step: Step,
    compiled: Compiled,
    start: Stored,
    predictor: batch.Predictor,
    tell: inference.Progress | None,
) -> batch.Judged:
    """Step from a stored run and, while the gate does not let that pass, go on moving what came out."""
    old, data = step.data(1), step.data()
    fit, old = free_values.recentred_fit(start.fit, step.declared, step.window.rows, old, data)
    earlier: tuple[dict[str, list[str]], ...] = ()
    for attempt, sweeps in enumerate(STEP_SWEEPS):
        size = replace(
            step.settings,
            final_sweeps=min(sweeps, step.settings.final_sweeps),
            ess=STEP_ESS,
            acceptance=STEP_ACCEPTANCE,
        )
        seed = step.draw_seed(f"step {attempt}")
        fit = inference.advance(compiled, seed, fit, old, data, size, tell)
        judged = batch.examine(compiled, fit, data, size, predictor)._replace(earlier=earlier)
        if not judged.failed:
            break
        old, earlier = data, (*earlier, judged.failures)
    return judged
