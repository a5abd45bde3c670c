"""Stored runs as the plain tables that figures, page and notebooks show."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from forecast import evidence, figures, prediction, reports, runs, vintages
from forecast.figures import NEVER
from forecast.indicators import INDICATORS
from forecast.path_figures import PATHS
from forecast.schema import T_END, InputError
from forecast.selection import select
from forecast.worldviews import Worldview, pick_worldviews


class Stored(NamedTuple):
    """A run as it is read from the store, and what it says at its worldview's own odds."""

    tree: xr.DataTree
    manifest: Mapping[str, Any]
    record: Mapping[str, Any]
    """From `reports.record`."""
    worldview: Worldview

    def _repr_html_(self) -> str:
        """Weights as a table and a small figure, for a notebook."""
        head = "".join(f"<th>{c}</th>" for c in reports.WEIGHT_COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in reports.weight_cells(self.record)
        )
        title = f"{self.worldview.name} as of {self.record['as_of']}: {self.record['rows']} rows"
        text = f"<p><b>{html.escape(title)}</b></p><table><tr>{head}</tr>{body}</table>"
        sound = any(d["posterior"] is not None for d in self.record["dynamics"].values())
        return text + (figures.svg(figures.weights_now([self.record])) if sound else "")


def open_run(folder: Path, worldview: Worldview) -> Stored:
    """Read a stored run at the prior odds of a worldview."""
    tree, manifest = runs.load(folder)
    return Stored(tree, manifest, reports.record(tree, manifest, worldview.name, worldview.odds), worldview)


def load(
    store: Path, known: Mapping[str, Worldview], chosen: Sequence[str] = ()
) -> tuple[list[Stored], list[dict[str, Any]]]:
    """Newest run of each worldview, and the weights of each date before.

    Parameters
    ----------
    store
        Folder of the store.
    known
        Worldviews by name; runs of others are left out.
    chosen
        Names of the worldviews wanted, all by default.

    Returns
    -------
    list of Stored
        The last date of each worldview, in the order of `known`.
    list of dict
        ``worldview`` and ``dates``, as `figures.weights_over_time` takes them.

    Raises
    ------
    InputError
        Nothing of what is wanted is stored, a name is unknown, or a run is damaged.
    """
    names = [w.name for w in pick_worldviews(dict(known), chosen)]
    found = runs.newest(runs.catalogue(store))
    found = found[found["worldview"].isin(names)]
    if found.empty:
        raise InputError(f"{store}: no stored runs to show; run `forecast update` first")
    last, dated = [], []
    for name in names:
        folders = [Path(str(f)) for f in found.loc[found["worldview"] == name, "folder"]]
        if not folders:
            continue
        odds = known[name].odds
        dates = [
            reports.weight_record(runs.load_part(folder, ["evidence"]), runs.check(folder), odds)
            for folder in folders
        ]
        dated.append({"worldview": name, "dates": dates})
        last.append(open_run(folders[-1], known[name]))
    return last, dated


def evidence_rows(data: Path, as_of: str) -> tuple[vintages.Archive, pd.DataFrame]:
    """The archive, and the rows that count on a day."""
    archive = vintages.load_archive(data)
    return archive, select(archive, vintages.as_of(archive, as_of)).rows


def sound(one: Stored) -> list[str]:
    """Dynamics of a run that passed its gate."""
    return [n for n, d in one.record["dynamics"].items() if d["gate"] == "pass"]


# Paths --------------------------------------------------------------------------------------------------


def path_table(stored: Sequence[Stored], rows: pd.DataFrame) -> pd.DataFrame:
    """Path bands of each run, and the data that speak of the same quantity.

    Parameters
    ----------
    stored
        One run of each worldview.
    rows
        Rows of the likelihood, from `selection.select`.

    Returns
    -------
    DataFrame
        ``worldview``, ``dynamic``, ``quantity``, ``time`` (calendar years), ``what``: ``band`` with
        ``q05``, ``q25``, ``q50``, ``q75``, ``q95``, or the kind of a point with ``value`` and ``label``.
    """
    parts = []
    for one in stored:
        for name in sound(one):
            bands = one.tree[f"{name}/predictions"].to_dataset()["bands"]
            medians = one.tree[f"{name}/posterior"].to_dataset().median(("chain", "draw"))
            for quantity in PATHS:
                q = bands.sel(quantity=quantity)
                levels = {f"q{round(100 * p):02d}": q.sel(quantile=p).values for p in _LEVELS}
                points = _points(quantity, rows, medians)
                frame = pd.DataFrame({"time": q["time"].values, "what": "band", **levels})
                both = pd.concat([frame, points], ignore_index=True)
                parts.append(both.assign(worldview=one.worldview.name, dynamic=name, quantity=quantity))
    if not parts:
        raise InputError("paths: every stored fit failed its gate, so there is nothing to draw")
    return pd.concat(parts, ignore_index=True).fillna({"label": ""})


_LEVELS = (0.05, 0.25, 0.50, 0.75, 0.95)


def _points(quantity: str, rows: pd.DataFrame, medians: xr.Dataset) -> pd.DataFrame:
    """Rows that speak of a quantity, on its scale: ``time``, ``what``, ``value``, ``label``."""
    empty = pd.DataFrame({"time": [], "what": [], "value": [], "label": []})
    maker = {"e": _capability, "m": _output, "W": _pace}.get(quantity)
    parts = [empty] if maker is None else [p for p in maker(rows, medians) if len(p)]
    return pd.concat(parts, ignore_index=True) if parts else empty


def _point(rows: pd.DataFrame, what: Any, value: Any) -> pd.DataFrame:
    label = rows["entity"] + ", " + rows["observed_at"].dt.strftime("%Y-%m-%d")
    return pd.DataFrame({"time": rows["time"], "what": what, "value": value, "label": label})


def _capability(rows: pd.DataFrame, medians: xr.Dataset) -> list[pd.DataFrame]:
    """Capability at which the laws `time_horizon` and `capability_index` expect each row's value."""
    m = {str(k): float(v) for k, v in medians.data_vars.items() if not v.ndim}
    horizons, index = (rows[rows["indicator"] == n] for n in ("time_horizon", "capability_index"))
    found = []
    if len(horizons):
        older = horizons["indicator_id"].eq("metr_th50_v10").to_numpy(float)
        gain = np.log(horizons["value"].to_numpy()) - m["h0"] - m.get("suite_10", 0.0) * older
        # The rising root of h1 e + h2 e^2/2 = gain, written so that h2 may be 0.
        root = np.sqrt(np.maximum(m["h1"] ** 2 + 2 * m["h2"] * gain, 0.0))
        found.append(_point(horizons, "horizon", 2 * gain / (m["h1"] + root)))
    if len(index):
        jump = m.get("J", 0.0) * index["reasoning"].eq("yes").to_numpy(float)
        found.append(_point(index, "index", (index["value"].to_numpy() - m["c0"] - jump) / m["c1"]))
    return found


def _output(rows: pd.DataFrame, _: xr.Dataset) -> list[pd.DataFrame]:
    """Reported and measured gains of researchers, as multiples."""
    gain, factor, trial = (
        rows[rows["indicator"] == n] for n in ("reported_gain", "reported_multiplier", "uplift_trial")
    )
    return [
        _point(gain, "report", 1 + gain["value"] / 100),
        _point(factor, "report", factor["value"]),
        _point(trial, "trial", 1 / (1 + trial["value"] / 100)),
    ]


def _pace(rows: pd.DataFrame, _: xr.Dataset) -> list[pd.DataFrame]:
    stated = rows[rows["indicator"] == "overall_pace"]
    kind = stated["bound"].map({"upper": "at most", "lower": "at least"}).fillna("report")
    return [_point(stated, kind, stated["value"])]


# Milestones ---------------------------------------------------------------------------------------------


def milestone_dates(as_of: str) -> np.ndarray:
    """Half-years from the year of `as_of` to the end of the paths, calendar years."""
    return np.arange(float(as_of[:4]), T_END + 0.25, 0.5)


def milestone_table(stored: Sequence[Stored], dates: np.ndarray | None = None) -> pd.DataFrame:
    """Distribution of every milestone's date, under each dynamic and for the worldview's own posterior.

    Parameters
    ----------
    stored
        One run of each worldview.
    dates
        Calendar years, `milestone_dates` by default.

    Returns
    -------
    DataFrame
        ``worldview``, ``milestone``, ``dynamic`` (empty for the mixture), ``date`` (calendar year, or
        `figures.NEVER` for not by the end of the paths), ``probability``, ``error`` (one standard error of
        draws and weights). The mixture is missing where a fit failed.
    """
    rows: list[tuple[Any, ...]] = []
    for one in stored:
        when = milestone_dates(one.record["as_of"]) if dates is None else dates
        names = sound(one)
        passages = {n: one.tree[f"{n}/predictions"].to_dataset()["passage"] for n in names}
        prior = np.array([entry["prior"] for entry in one.record["dynamics"].values()])
        weights = evidence.weights(runs.log_evidence(one.tree), prior)
        whole = len(names) == len(one.record["dynamics"])
        for m in (str(m) for m in passages[names[0]]["milestone"].values) if names else ():
            times = {n: p.sel(milestone=m).values for n, p in passages.items()}
            cdfs = {n: prediction.milestone_cdf(t, when) for n, t in times.items()}
            if whole:
                mixed = dict(zip(names, weights.posterior, strict=True))
                cdfs[""] = prediction.mixture_cdf(times, mixed, when, weights.covariance)
            for n, cdf in cdfs.items():
                entries = zip(
                    (*when, NEVER), (*cdf.probability, cdf.never), (*cdf.se, cdf.never_se), strict=True
                )
                rows += [(one.worldview.name, m, n, *map(float, entry)) for entry in entries]
    return pd.DataFrame(rows, columns=["worldview", "milestone", "dynamic", "date", "probability", "error"])


# Indicators ---------------------------------------------------------------------------------------------

_PANELS = {
    "long tasks": "long tasks",
    "broad index": "broad index",
    "messy tasks": "messy tasks",
    "new facts": "new facts",
    "engineering": "engineering",
    "experiments": "experiments",
    "uplift, trials": "output per researcher",
    "uplift, self-report": "output per researcher",
    "delegated work": "delegated work",
    "impressions": "impressions",
    "pace": "pace",
}
"""Panel of `indicator_figures.PANELS` by indicator family; families not named here have a row or two."""


def indicator_table(rows: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """Rows of the likelihood by panel of `indicator_figures.indicators`.

    Parameters
    ----------
    rows
        From `selection.select`.
    titles
        Title by archive id.

    Returns
    -------
    DataFrame
        ``panel``, ``time`` (calendar years), ``value`` in the panel's unit, ``label`` and ``series``.
    """
    family = {i: f for one in INDICATORS.values() for i, f in one.family.items()}
    kept = rows.assign(panel=rows["indicator_id"].map(lambda i: _PANELS.get(family.get(i, ""), "")))
    # These two have another unit than the rest of their family.
    kept = kept[kept["panel"].ne("") & ~kept["indicator"].isin(["code_output", "index_slope_ratio"])]
    gains = pd.concat(_output(kept, xr.Dataset()), ignore_index=False)
    value = kept["value"].copy()
    value[gains.index] = gains["value"]
    label = kept["entity"] + ", " + kept["observed_at"].dt.strftime("%Y-%m-%d")
    series = kept["indicator_id"].map(lambda i: titles.get(i, i))
    return pd.DataFrame(
        {"panel": kept["panel"], "time": kept["time"], "value": value, "label": label, "series": series}
    ).reset_index(drop=True)


def gaps(one: Stored) -> dict[str, tuple[float, float, float]]:
    """Posterior of the gaps below the two unobserved rungs, nats: 5, 50 and 95 %, mixed over dynamics."""
    names = sound(one)
    weights = [one.record["dynamics"][n]["posterior"] for n in names]
    if not names or None in weights:
        return {}
    found = {}
    for gap in ("g3", "g4"):
        posteriors = [one.tree[f"{n}/posterior"].to_dataset() for n in names]
        if all(gap in p for p in posteriors):
            draws = [p[gap] for p in posteriors]
            values = np.concatenate([np.ravel(d) for d in draws])
            each = np.concatenate([np.full(d.size, w / d.size) for d, w in zip(draws, weights, strict=True)])
            order = np.argsort(values)
            places = np.searchsorted(np.cumsum(each[order]), (0.05, 0.5, 0.95))
            low, middle, high = (float(values[order][min(i, len(order) - 1)]) for i in places)
            found[gap] = (low, middle, high)
    return found
