"""Stored runs as rows of forecasts in the field's columns, and as plain files for analysts.

One row is one number: a probability or a quantile of a target. Targets are ``dynamic`` (which one is
right), ``milestone.ID`` (its date, in calendar years), ``path.QUANTITY`` (its value on a date); numbers
are of the worldview as a whole, all dynamics together at their posterior weights.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import xarray as xr

from forecast import evidence, prediction, runs
from forecast.schema import InputError

SCHEMA = pa.schema(
    {
        "origin_date": pa.date32(),
        "target": pa.string(),
        "target_end_date": pa.date32(),
        "horizon": pa.int32(),
        "output_type": pa.string(),
        "output_type_id": pa.string(),
        "value": pa.float64(),
    }
)
"""Columns of a forecast; ``horizon`` is in days from ``origin_date`` to ``target_end_date``."""
LEVELS = prediction.QUANTILES
"""Levels of all exported quantiles."""
MARK = "export.json"
"""File by which an export is known as one, and may be replaced by the next."""
_FINE = np.linspace(0.0, 1.0, 1001)
_DATE, _PATH = "milestone.", "path."
_Row = tuple[str, dt.date | None, str, str, float]
"""Target, end date, output type, its id, value."""


@dataclass(frozen=True)
class Run:
    """A stored run that passed its gate, and the prior odds it is read at."""

    tree: xr.DataTree
    manifest: Mapping[str, Any]
    odds: Mapping[str, float]

    @property
    def as_of(self) -> dt.date:
        """Day whose knowledge it rests on."""
        return dt.date.fromisoformat(self.manifest["as_of"])

    @property
    def worldview(self) -> str:
        """Its worldview."""
        return str(self.manifest["worldview"])

    @property
    def dynamics(self) -> list[str]:
        """Names of its dynamics."""
        return [str(n) for n in self.tree["evidence"].to_dataset()["dynamic"].values]

    @property
    def milestones(self) -> list[str]:
        """Ids of its milestones."""
        return [str(n) for n in self._predictions(self.dynamics[0])["milestone"].values]

    @property
    def times(self) -> np.ndarray:
        """Dates of its paths, calendar years."""
        return np.asarray(self._predictions(self.dynamics[0])["time"].values, float)

    @property
    def never(self) -> float:
        """Calendar year that stands for "not by the end of the paths": one step past their last date."""
        return float(2 * self.times[-1] - self.times[-2])

    @property
    def log_evidence(self) -> np.ndarray:
        """Log marginal likelihood, nats, (dynamic, island)."""
        return runs.log_evidence(self.tree)

    def weights(self) -> evidence.Weights:
        """Posterior over its dynamics."""
        prior = np.array([self.odds.get(n, 0.0) for n in self.dynamics])
        return evidence.weights(self.log_evidence, prior)

    def _predictions(self, name: str) -> xr.Dataset:
        return self.tree[f"{name}/predictions"].to_dataset()

    def passages(self, milestone: str) -> dict[str, np.ndarray]:
        """First-passage dates by dynamic, (chain, draw), inf for never."""
        return {n: self._predictions(n)["passage"].sel(milestone=milestone).values for n in self.dynamics}

    def bands(self) -> xr.DataArray:
        """Quantiles of the paths, (dynamic, quantity, quantile, time)."""
        each = [self._predictions(n)["bands"] for n in self.dynamics]
        return xr.concat(each, pd.Index(self.dynamics, name="dynamic"))


def choose(store: Path, worldviews: Sequence[str], as_of: str | None = None) -> tuple[list[Path], list[str]]:
    """Newest stored run of each worldview and date, those that may be published.

    Parameters
    ----------
    store
        Folder of runs.
    worldviews
        Worldviews wanted.
    as_of
        Date wanted, YYYY-MM-DD; every stored date if None.

    Returns
    -------
    list of Path, list of str
        Folders in order of date and worldview; for each run left out, a line that says why.
    """
    found = runs.catalogue(store)
    found = found[found["worldview"].isin(list(worldviews))]
    if as_of is not None:
        found = found[found["as_of"] == as_of]
    if found.empty:
        when = f" as of {as_of}" if as_of else ""
        raise InputError(
            f"{store}: no stored run of {', '.join(worldviews)}{when}; run `forecast update` first"
        )
    # A damaged run has no date of making; it must not hide a sound one.
    damaged = found[found["status"] == "damaged"]
    notes = [f"{folder}: damaged, left out" for folder in damaged["folder"]]
    newest = runs.newest(found[found["status"] != "damaged"])
    notes += [
        f"{r.worldview} as of {r.as_of}: failed its gate, left out"
        for r in newest.itertuples()
        if r.status != "done"
    ]
    return [Path(f) for f in newest.loc[newest["status"] == "done", "folder"]], notes


# Rows -------------------------------------------------------------------------------------------------


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Least value that weight `level` of all does not exceed, (level,).

    Nothing is averaged, so a date and "never" do not mix into a date in between.

    Parameters
    ----------
    values
        Any numbers, inf among them, (n,).
    weights
        At least 0, some above, (n,).
    levels
        Between 0 and 1.
    """
    order = np.argsort(values, kind="stable")
    order = order[weights[order] > 0]
    share = np.cumsum(weights[order])
    # Rounding must not push a level that is met exactly to the next value.
    place = np.searchsorted(share / share[-1], np.asarray(levels) - 1e-12)
    return np.asarray(values[order][np.minimum(place, len(order) - 1)], float)


def grid_date(year: float) -> dt.date:
    """First day of the month in which a point of the grid lies."""
    months = round(year * 12)
    return dt.date(months // 12, months % 12 + 1, 1)


def rows(run: Run, samples: int = 0) -> pd.DataFrame:
    """Everything a run forecasts, in the columns of `SCHEMA`.

    Parameters
    ----------
    run
        The run.
    samples
        Joint draws of all milestone dates to add, 0 for none.

    Returns
    -------
    DataFrame
        ``pmf`` of the dynamics; ``cdf`` of each milestone: the probability of having happened by each
        1 January after the origin; ``quantile`` of milestone dates, in calendar years, `Run.never` standing
        for later than the paths go; ``quantile`` of path quantities at each later point of the grid.

    Notes
    -----
    Path quantiles are of the mixture of the dynamics' stored bands, linear between their levels (in
    logs for multipliers) and cut at the lowest and highest of them.
    """
    weights = run.weights().posterior
    parts: list[_Row] = [("dynamic", None, "pmf", n, w) for n, w in zip(run.dynamics, weights, strict=True)]
    years = list(range(run.as_of.year + 1, int(run.times[-1]) + 1))
    mixed = dict(zip(run.dynamics, map(float, weights), strict=True))
    each = {name: run.passages(name) for name in run.milestones}
    for name, passages in each.items():
        reached = prediction.mixture_cdf(passages, mixed, years).probability
        reached = np.maximum.accumulate(np.clip(reached, 0.0, 1.0))
        parts += [
            (_DATE + name, dt.date(y, 1, 1), "cdf", str(y), p) for y, p in zip(years, reached, strict=True)
        ]
        pooled = np.concatenate([passages[n].ravel() for n in run.dynamics])
        share = np.concatenate([np.full(passages[n].size, mixed[n] / passages[n].size) for n in run.dynamics])
        dates = np.minimum(weighted_quantiles(pooled, share, LEVELS), run.never)
        parts += [(_DATE + name, None, "quantile", f"{q:g}", v) for q, v in zip(LEVELS, dates, strict=True)]
    parts += _path_rows(run, weights)
    parts += _samples(run, each, weights, samples)
    table = pd.DataFrame(parts, columns=[n for n in SCHEMA.names if n not in ("origin_date", "horizon")])
    horizon = [None if d is None else (d - run.as_of).days for d in table["target_end_date"]]
    table = table.assign(origin_date=run.as_of, horizon=pd.array(horizon, dtype="Int32"))
    return table[SCHEMA.names]


def _path_rows(run: Run, weights: np.ndarray) -> list[_Row]:
    bands = run.bands()
    share = np.repeat(weights, len(_FINE))
    found: list[_Row] = []
    for quantity in map(str, bands["quantity"].values):
        one = bands.sel(quantity=quantity)
        multiplier = prediction.QUANTITIES[quantity].low == 1.0
        for year in run.times:
            if (date := grid_date(year)) <= run.as_of:
                continue
            known = one.sel(time=year).values
            known = np.log(known) if multiplier else known
            values = np.concatenate([np.interp(_FINE, one["quantile"].values, band) for band in known])
            mixed = weighted_quantiles(values, share, LEVELS)
            mixed = np.exp(mixed) if multiplier else mixed
            found += [
                (_PATH + quantity, date, "quantile", f"{q:g}", v) for q, v in zip(LEVELS, mixed, strict=True)
            ]
    return found


def _samples(
    run: Run, passages: Mapping[str, Mapping[str, np.ndarray]], weights: np.ndarray, count: int
) -> list[_Row]:
    """Draws of a dynamic and, under it, of all milestone dates together."""
    rng = np.random.default_rng(run.manifest.get("seed", 0))
    dynamics = rng.choice(len(weights), size=count, p=weights / weights.sum())
    places = rng.random(count)
    found: list[_Row] = []
    for name, each in passages.items():
        flat = [each[n].ravel() for n in run.dynamics]
        for i, (k, u) in enumerate(zip(dynamics, places, strict=True)):
            value = min(float(flat[k][int(u * len(flat[k]))]), run.never)
            found.append((_DATE + name, None, "sample", str(i), value))
    return found


def weight_rows(run: Run) -> pd.DataFrame:
    """Prior and posterior of each dynamic and its evidence, with Monte Carlo errors."""
    mean, se = evidence.mean_evidence(run.log_evidence)
    posterior, posterior_se, _ = run.weights()
    return pd.DataFrame(
        {
            "as_of": run.as_of,
            "worldview": run.worldview,
            "dynamic": run.dynamics,
            "prior": [run.odds.get(n, 0.0) for n in run.dynamics],
            "posterior": posterior,
            "posterior_se": posterior_se,
            "log_evidence": mean,
            "log_evidence_se": se,
        }
    )


# Files ------------------------------------------------------------------------------------------------


def write_table(table: pd.DataFrame, path: Path, schema: pa.Schema | None = None) -> None:
    """Write a table as Parquet or, by the ending, CSV with ``NA`` for what is missing."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False), path)
    else:
        # Seventeen digits bring every float back as it was.
        table.to_csv(path, index=False, na_rep="NA", lineterminator="\n", float_format="%.17g")


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read what `write_table` wrote; a CSV file takes its types from `schema`."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    options = pa_csv.ConvertOptions(column_types=schema, null_values=["NA", ""], strings_can_be_null=True)
    return pa_csv.read_csv(path, convert_options=options)


def write_plain(runs_: Sequence[Run], ending: str, samples: int, folder: Path) -> None:
    """Fill a folder for analysts.

    ``nc``: each run whole, its manifest and weights within. ``parquet`` and ``csv``: ``forecasts`` (`rows`
    of all runs) and ``weights`` (`weight_rows`).
    """
    if ending == "nc":
        for run in runs_:
            tree = run.tree.copy()
            tree.attrs["manifest"] = json.dumps(run.manifest)
            weights = weight_rows(run).drop(columns=["as_of", "worldview"]).set_index("dynamic")
            tree["weights"] = xr.DataTree(weights.to_xarray())
            (folder / f"{run.as_of}-{run.worldview}.nc").write_bytes(runs.netcdf(tree))
        return
    tables = []
    for run in runs_:
        table = rows(run, samples)
        table.insert(0, "worldview", run.worldview)
        tables.append(table)
    schema = pa.schema([("worldview", pa.string()), *SCHEMA])
    write_table(pd.concat(tables, ignore_index=True), folder / f"forecasts.{ending}", schema)
    weights = pd.concat([weight_rows(run) for run in runs_], ignore_index=True)
    write_table(weights, folder / f"weights.{ending}")


def publish(
    final: Path, fill: Callable[[Path], None], runs_: Sequence[Run], content: str | None = None
) -> None:
    """Fill a folder aside and put it in place in one act; an earlier export there is replaced.

    Parameters
    ----------
    final
        The place; missing, empty or an earlier export.
    fill
        Writes into the folder it is given, and raises if the result must not be seen.
    runs_
        What was exported, for the file `MARK`.
    content
        Hash of everything the export is made of, by which `is_current` knows it.

    Raises
    ------
    InputError
        The place holds something else or cannot be written.
    """
    final = Path(os.path.abspath(final))
    if final.exists() and not (final / MARK).is_file() and not (final.is_dir() and not any(final.iterdir())):
        raise InputError(f"{final}: is not an earlier export and is left alone; name another folder")
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex}.new")
    try:
        draft.mkdir(parents=True)
        fill(draft)
        made = [{k: run.manifest.get(k) for k in ("as_of", "worldview", "key", "code")} for run in runs_]
        mark = {"forecast": version("forecast"), "content": content, "runs": made, "files": _files(draft)}
        (draft / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
        for path in (*draft.rglob("*"), draft):
            runs.sync(path)
        if final.exists():
            _swap(draft, final)
        else:
            os.rename(draft, final)
        runs.sync(final.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{final}: cannot be written ({reason}); make room or name another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_current(final: Path, content: str) -> bool:
    """Whether an export was made of this content, and no file of it has changed since."""
    try:
        mark = json.loads((final / MARK).read_bytes())
        return bool(mark["content"] == content and mark["files"] == _files(final))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def sweep(final: Path, older_than: float = 3600.0) -> None:
    """Remove what crashed exports left beside a place; a younger draft may belong to one at work."""
    limit = time.time() - older_than
    for aside in Path(os.path.abspath(final)).parent.glob(f".{final.name}.*"):
        if aside.suffix in (".new", ".old") and aside.stat().st_mtime <= limit:
            shutil.rmtree(aside, ignore_errors=True)


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of an export but its mark."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p != folder / MARK)
    return {p.relative_to(folder).as_posix(): runs.file_hash(p) for p in found}


def _swap(draft: Path, final: Path) -> None:
    """Exchange two folders, so that a reader always finds one: in one act where the system can (Linux)."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if exchange and exchange(here, os.fsencode(draft), here, os.fsencode(final), both) == 0:
        return
    old = draft.with_suffix(".old")
    os.rename(final, old)
    try:
        os.rename(draft, final)
    except OSError:
        os.rename(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)
