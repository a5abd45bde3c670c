"""What would have been forecast on past days, scored on what was published since.

At each origin every dynamic is fitted on what was known then, by `history`, and predicts every row that
was published later.  A prediction is conditional on what a row says besides its value: which model or
company it is of, when it was observed, its sample size and standard error.  Rows that restate what was
known (a revision, the same model on a successor suite) are no forecasts and are not scored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from forecast import baselines, batch, evidence, history, inference, model, runs, scoring, vintages
from forecast.compilation import Compiled
from forecast.dynamics import DYNAMICS
from forecast.laws import Counted, Law, Observed
from forecast.particles import thin
from forecast.schema import InputError
from forecast.scoring import Numbers, Outcome
from forecast.selection import Selection
from forecast.tables import OBSERVATION
from forecast.worldviews import Worldview, before_news

START = "2024-07-01"
"""First day that may be an origin, unless told otherwise."""
HORIZONS = "3m,6m,12m"
"""Horizons, unless told otherwise."""
FOLDER, FORECASTS = "backtest", "forecasts"
"""Folders within a store: of fits at the origins, and of what they predict."""
DRAWS = 125
"""Predictive draws kept of each dynamic and island."""
MIXTURE, STACKING, EVERY_WORLDVIEW, NO_WORLDVIEW = "mixture", "stacking", "all", "none"
"""Forecasters besides dynamics and baselines, and worldviews besides those on file."""

Rows = list[tuple[Law, Observed]]


# What is forecast ---------------------------------------------------------------------------------------


def parse_horizons(text: str) -> tuple[int, ...]:
    """Months of horizons such as ``3m,6m,12m``, rising."""
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]?m", word) for word in words):
        raise InputError(f"--horizons: '{text}' is no list of months; write 3m,6m,12m")
    months = tuple(int(word[:-1]) for word in words)
    if list(months) != sorted(set(months)):
        raise InputError(f"--horizons: '{text}' does not rise; write each once, the shortest first")
    return months


def labels(horizons: Sequence[int]) -> list[str]:
    """Names of horizons: a row belongs to the first one by whose end it was published."""
    return [f"{low}-{high}m" for low, high in zip((0, *horizons), horizons, strict=False)]


def identities(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """What each row is an observation of, (row,): the same for revisions and successor suites."""
    subject = frame["model"].where(frame["model"].fillna("") != "", frame["entity"])
    return list(zip(baselines.quantities(frame), subject, frame["observed_at"], strict=True))


def _published(selection: Selection) -> pd.DataFrame:
    """Every row of a snapshot, whether it enters the likelihood or not."""
    return pd.concat([selection.rows, selection.excluded], ignore_index=True)


@dataclass(frozen=True)
class Plan:
    """Origins, and for each the rows that its forecasts are scored on."""

    window: history.Window
    """Of the origins; its rows are those of the truth date too."""
    truth: str
    horizons: tuple[int, ...]
    targets: tuple[pd.DataFrame, ...]
    """Of each origin: ``row``, place among the window's rows; ``first_published``; ``horizon``."""
    learnt: tuple[dict[int, NDArray[np.int64]], ...]
    """Of each origin: by earlier origin, places of rows published in between, as they were known then."""
    skipped: tuple[str, ...]
    """Days on which no row counted."""


def make_plan(
    inputs: batch.Inputs,
    start: str = START,
    end: str | None = None,
    every: str = "quarter",
    horizons: str = HORIZONS,
    truth: str | None = None,
) -> Plan:
    """Origins and what is to be forecast at each.

    Parameters
    ----------
    inputs
        Whose archive is looked at.
    start, end, every
        As in `history.dates`; `end` defaults to the last origin with a row published after it.
    horizons
        As `parse_horizons` takes them, from the origin to a row's first publication.
    truth
        Day as of which values are scored, YYYY-MM-DD; by default the last published one.

    Raises
    ------
    InputError
        A day is none of the calendar or outside the archive, or nothing is left to score.
    """
    months = parse_horizons(horizons)
    archive = inputs.archive
    day = vintages.last_published(archive) if truth is None else vintages.day_of(truth, "--truth")
    if day > (last := vintages.last_published(archive)):
        raise InputError(f"--truth: {day:%Y-%m-%d} is past the last published day, {last:%Y-%m-%d}")
    days = [d for d in history.dates(archive, start, end or f"{day:%Y-%m-%d}", every) if d < day]
    dated = [batch.at_date(inputs, d) for d in days]
    skipped = tuple(one.as_of for one in dated if one.selection.rows.empty)
    days = [d for d, one in zip(days, dated, strict=True) if not one.selection.rows.empty]
    if not days:
        raise InputError(f"--to: no row that counts was published by an origin before {day:%Y-%m-%d}")
    whole = history.make_window(inputs, [*days, day])
    known = [set(identities(_published(one.selection))) for one in whole.inputs]
    first = _first_published(archive, whole.inputs[-1].selection)
    names = identities(whole.rows)
    statement = (whole.rows["kind"] == "declared").to_numpy()

    def since(place: NDArray[np.int64], origin: int) -> NDArray[np.int64]:
        return np.array([p for p in place if names[p] not in known[origin] and not statement[p]], int)

    targets = []
    for i, origin in enumerate(days):
        place = since(whole.places[-1], i)
        dates = pd.Series([first[names[p]] for p in place], dtype="datetime64[ns]")
        ends = [origin + pd.DateOffset(months=m) for m in months]
        within = [next((n for n, e in zip(labels(months), ends, strict=True) if d <= e), "") for d in dates]
        table = pd.DataFrame({"row": place, "first_published": dates, "horizon": within})
        targets.append(table[table["horizon"] != ""].reset_index(drop=True))
    if not any(len(t) for t in targets):
        raise InputError(f"--truth: no row was published after an origin by {day:%Y-%m-%d}; take a later day")
    learnt = tuple({j: since(whole.places[i], j) for j in range(i)} for i in range(len(days)))
    window = history.Window(whole.inputs[:-1], whole.rows, whole.places[:-1])
    return Plan(window, f"{day:%Y-%m-%d}", months, tuple(targets), learnt, skipped)


def _first_published(archive: vintages.Archive, selection: Selection) -> dict[tuple[Any, ...], pd.Timestamp]:
    """Day on which each observation that a snapshot knows was first published in any form."""
    frame = _published(selection)
    first = archive.observations.groupby(list(OBSERVATION))["published_at"].min()
    keys = zip(*(frame[c] for c in OBSERVATION), strict=True)
    found: dict[tuple[Any, ...], pd.Timestamp] = {}
    for name, key, day in zip(identities(frame), keys, frame["published_at"], strict=True):
        # Rows declared in code stand in no file.
        when = first.get(key, day)
        found[name] = min(when, found.get(name, when))
    return found


# Forecasts ----------------------------------------------------------------------------------------------


class Forecast(NamedTuple):
    """What the dynamics of one worldview predict at one origin."""

    log_density: Numbers
    """Log predictive density of every row of the window, nats, (dynamic, row)."""
    log_density_se: Numbers
    """Its Monte Carlo standard error, (dynamic, row)."""
    draws: Numbers
    """Predictive draws of the origin's targets, (dynamic, draw, target)."""
    weight: Numbers
    """Posterior weights, (dynamic,)."""
    weight_se: Numbers
    failed: dict[str, list[str]]
    """Reasons by dynamic for which the gate refused its fit; empty where it passed."""

    @property
    def sound(self) -> list[int]:
        """Dynamics that passed."""
        return [k for k, name in enumerate(DYNAMICS) if not self.failed[name]]


def forecast(
    plan: Plan,
    worldviews: Sequence[Worldview],
    store: Path,
    seed: int = 1,
    settings: inference.Settings | None = None,
    progress: batch.Progress | None = None,
    wide: bool = False,
) -> dict[str, list[Forecast]]:
    """Forecasts of every worldview at every origin, in order; what is stored is not made again.

    Parameters are those of `history.update`; `store` is the folder in which `FOLDER` is made.
    """
    place = store / FOLDER
    folders = history.update(plan.window, worldviews, place, seed, settings, progress, wide)
    compiled: dict[tuple[str, ...], Compiled] = {}
    found: dict[str, list[Forecast]] = {}
    for worldview in worldviews:
        found[worldview.name] = []
        for i, folder in enumerate(folders[worldview.name]):
            found[worldview.name].append(
                _forecast(plan, i, worldview, folder, place, compiled, progress, wide)
            )
    return found


def _forecast(
    plan: Plan,
    i: int,
    worldview: Worldview,
    folder: Path,
    place: Path,
    compiled: dict[tuple[str, ...], Compiled],
    progress: batch.Progress | None,
    wide: bool,
) -> Forecast:
    fitted = history.Stored(*runs.load(folder))
    as_of, rows = plan.window.inputs[i].as_of, plan.window.rows
    target = plan.targets[i]["row"].to_numpy(int)
    key = runs.run_key({"fit": fitted.manifest["key"], "targets": target, "draws": DRAWS})
    stored = runs.find(place / FORECASTS, as_of, worldview.name, key)
    if stored is None:
        if progress:
            progress(f"{worldview.name}, {as_of}", "predicting", 0.0)
        declared = batch.declared_parameters(rows, before_news(worldview, as_of) if wide else worldview)
        program = batch.compile_once(compiled, rows, declared, predictive=True)
        pairs = model.median_laws(next(iter(DYNAMICS)), rows, declared)
        data = model.data_values(declared) | model.row_data(rows, plan.window.weight(i))
        tree = _predict(program, fitted.fit, data, pairs, target, int(key[:8], 16))
        manifest = {"fit": fitted.manifest["key"], "status": fitted.manifest["status"]}
        stored = runs.save(place / FORECASTS, as_of, worldview.name, key, tree, manifest)
    found = runs.load(stored)[0]["forecast"].to_dataset()
    odds = np.array([worldview.odds[n] for n in DYNAMICS])
    weights = evidence.weights(runs.log_evidence(fitted.tree), odds)
    return Forecast(
        log_density=found["log_density"].values,
        log_density_se=found["log_density_se"].values,
        draws=found["draws"].values.astype(float),
        weight=weights.posterior,
        weight_se=weights.posterior_se,
        failed=fitted.manifest["gate"],
    )


def _predict(
    compiled: Compiled,
    fit: inference.Fit,
    data: Mapping[str, Numbers],
    pairs: Rows,
    target: NDArray[np.int64],
    seed: int,
) -> xr.DataTree:
    """Log densities of every row and draws of the targets, at the draws of a fit."""
    density, error, draws = [], [], []
    for k in range(len(DYNAMICS)):
        values = inference.describe(compiled, fit, k, data)
        # A draw at which a law is undefined gives a value no density.
        each = np.nan_to_num(values["row_log_likelihood"].values, nan=-np.inf, neginf=-np.inf)
        islands, count = each.shape[:2]
        by_island = logsumexp(each, axis=1) - np.log(count)
        density.append(logsumexp(by_island, axis=0) - np.log(islands))
        share = np.exp(by_island - density[-1])
        error.append(share.std(axis=0, ddof=1) / np.sqrt(islands))
        table = values["law"].values[:, thin(count, DRAWS)].reshape(-1, *values["law"].shape[2:])
        draws.append(model.draw_rows(pairs, table, seed + k)[:, target].astype("float32"))
    dims = {"log_density": ("dynamic", "row"), "log_density_se": ("dynamic", "row")}
    dims["draws"] = ("dynamic", "sample", "target")  # type: ignore[assignment]
    arrays = zip(dims.items(), (density, error, draws), strict=True)
    data_vars = {name: (names, np.array(array)) for (name, names), array in arrays}
    return xr.DataTree.from_dict({"forecast": xr.Dataset(data_vars, {"dynamic": list(DYNAMICS)})})


# Scores -------------------------------------------------------------------------------------------------


class Scored(NamedTuple):
    """What a backtest found."""

    table: pd.DataFrame
    """A row for each origin, forecaster and row forecast."""
    weights: list[dict[str, Any]]
    """Of the stacked mixtures: ``worldview``, ``origin``, number of ``rows`` fitted on, ``weights``."""


def score(plan: Plan, forecasts: Mapping[str, Sequence[Forecast]], archive: vintages.Archive) -> Scored:
    """Scores of every dynamic, mixture and baseline at every origin.

    Returns
    -------
    Scored
        Columns of the table: ``origin``, ``truth``, ``worldview`` (`NO_WORLDVIEW` for baselines),
        ``forecaster``, ``horizon``, ``category``, ``series``, ``indicator_id``, ``entity``, ``observed_at``,
        ``first_published``, ``backfilled`` (observed by the origin), ``row``, ``low`` and ``high`` (the
        outcome on the scale of its law), ``threshold``, ``log_score_se`` (Monte Carlo) and the fields of
        `scoring.score_draws`.
    """
    rows = plan.window.rows
    inputs = plan.window.inputs[0]
    declared = batch.declared_parameters(rows, next(iter(inputs.worldviews.values())))
    pairs = model.median_laws(next(iter(DYNAMICS)), rows, declared)
    seen = Observed(*(np.concatenate(x) for x in zip(*(y for _, y in pairs), strict=True)))
    counted = np.concatenate([np.full(len(y.low), isinstance(law, Counted)) for law, y in pairs])
    # A count is of its own sample, so it is compared with no other.
    value = np.where(seen.exact & ~counted, seen.low, np.nan)
    series = baselines.series(rows).to_numpy()
    parts, weights = [], []
    for i, target in enumerate(plan.targets):
        place, known = target["row"].to_numpy(int), plan.window.places[i]
        past = known[~np.isnan(value[known])]
        best = pd.Series(value[past]).groupby(series[past]).max()
        outcome = Outcome(seen.low[place], seen.high[place], best.reindex(series[place]).to_numpy(float))
        about = _about(plan, i, archive, series).assign(low=outcome.low, high=outcome.high)
        about["threshold"] = outcome.threshold
        for name in baselines.BASELINES:
            student = baselines.predict(name, rows, value, known, place)
            found = scoring.score_student(outcome, student).assign(log_score_se=0.0)
            parts.append(_join(about, found, NO_WORLDVIEW, name))
        mixes, stacked = _mixtures(plan, forecasts, i)
        weights += stacked
        for (worldview, forecaster), mix in mixes.items():
            found = _score_mixture(mix, outcome, place)
            parts.append(_join(about, found, worldview, forecaster))
    return Scored(pd.concat(parts, ignore_index=True), weights)


def _about(plan: Plan, i: int, archive: vintages.Archive, series: NDArray[Any]) -> pd.DataFrame:
    """What the targets of an origin are."""
    target, origin = plan.targets[i], plan.window.inputs[i].as_of
    rows = plan.window.rows.iloc[target["row"]].reset_index(drop=True)
    fields = rows[["indicator_id", "entity", "observed_at"]].assign(
        origin=origin,
        truth=plan.truth,
        category=rows["indicator_id"].map(archive.indicators["category"]),
        series=series[target["row"]],
        backfilled=rows["observed_at"] <= pd.Timestamp(origin),
    )
    return fields.join(target)


def _join(about: pd.DataFrame, found: pd.DataFrame, worldview: str, forecaster: str) -> pd.DataFrame:
    return about.assign(worldview=worldview, forecaster=forecaster).join(found)


class _Mix(NamedTuple):
    """A mixture of components, each a dynamic of some worldview."""

    parts: list[tuple[Forecast, int]]
    weight: Numbers
    weight_se: Numbers


def _mixtures(
    plan: Plan, forecasts: Mapping[str, Sequence[Forecast]], i: int
) -> tuple[dict[tuple[str, str], _Mix], list[dict[str, Any]]]:
    """Every forecaster of an origin by worldview and name; mixtures need dynamics that passed the gate."""
    mixes: dict[tuple[str, str], _Mix] = {}
    stacked: list[dict[str, Any]] = []
    names = list(DYNAMICS)
    groups = {name: [name] for name in forecasts}
    if len(forecasts) > 1:
        groups[EVERY_WORLDVIEW] = list(forecasts)
    for worldview, members in groups.items():
        if worldview in forecasts:
            one = forecasts[worldview][i]
            for k in one.sound:
                mixes[worldview, names[k]] = _Mix([(one, k)], np.ones(1), np.zeros(1))
            if len(one.sound) == len(names):
                every = [(one, k) for k in range(len(names))]
                mixes[worldview, MIXTURE] = _Mix(every, one.weight, one.weight_se)
        if all(len(forecasts[m][i].sound) == len(names) for m in members):
            parts = [(forecasts[m][i], k) for m in members for k in range(len(names))]
            past = _past(plan, forecasts, members, i)
            weight = scoring.stack(past)
            mixes[worldview, STACKING] = _Mix(parts, weight, np.zeros(len(weight)))
            titles = [f"{m}/{n}" if len(members) > 1 else n for m in members for n in names]
            chosen = {t: float(w) for t, w in zip(titles, weight, strict=True)}
            origin = plan.window.inputs[i].as_of
            stacked.append({"worldview": worldview, "origin": origin, "rows": len(past), "weights": chosen})
    return mixes, stacked


def _past(plan: Plan, forecasts: Mapping[str, Sequence[Forecast]], members: Sequence[str], i: int) -> Numbers:
    """Log densities that earlier origins gave to rows published since, as known at an origin."""
    found = [np.zeros((0, len(members) * len(DYNAMICS)))]
    for j, place in plan.learnt[i].items():
        if all(len(forecasts[m][j].sound) == len(DYNAMICS) for m in members):
            found.append(np.concatenate([forecasts[m][j].log_density[:, place].T for m in members], axis=1))
    return np.concatenate(found)


def _score_mixture(mix: _Mix, outcome: Outcome, place: NDArray[np.int64]) -> pd.DataFrame:
    density = np.stack([one.log_density[k, place] for one, k in mix.parts])
    error = np.stack([one.log_density_se[k, place] for one, k in mix.parts])
    with np.errstate(divide="ignore"):
        joint = np.log(mix.weight)[:, None] + density
    log_score = logsumexp(joint, axis=0)
    ratio = np.exp(density - log_score)
    share = mix.weight[:, None] * ratio
    # Errors of weights cancel in their sum, so only distances from the mixture count.
    se = np.sqrt(((share * error) ** 2 + ((ratio - 1) * mix.weight_se[:, None]) ** 2).sum(0))
    draws = np.concatenate([one.draws[k] for one, k in mix.parts])
    sizes = [one.draws.shape[1] for one, _ in mix.parts]
    weight = np.repeat(mix.weight / sizes, sizes)
    return scoring.score_draws(outcome, log_score, draws, weight, 1).assign(log_score_se=se)
