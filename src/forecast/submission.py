"""The checks that hubverse hubs run on what is submitted to them, and on their target data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from forecast import export
from forecast.export import SCHEMA

TASK_IDS = ("origin_date", "target", "target_end_date", "horizon")
TOLERANCE = 1e-9
"""How far probabilities may be from what they must sum to."""
_MODEL = re.compile(r"[A-Za-z0-9_]+-[A-Za-z0-9_]+")
_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})-([A-Za-z0-9_]+-[A-Za-z0-9_]+)\.(parquet|csv)")
_SERIES = {"target": pa.string(), "target_end_date": pa.date32()}
TIME_SERIES = pa.schema(
    _SERIES
    | {"as_of": pa.date32(), "indicator": pa.string(), "entity": pa.string(), "observation": pa.float64()}
)
"""Columns of ``target-data/time-series.parquet``: every published value, by day of publication."""
ORACLE = pa.schema(
    _SERIES | {"output_type": pa.string(), "output_type_id": pa.string(), "oracle_value": pa.float64()}
)
"""Columns of ``target-data/oracle-output.parquet``: the newest value of each observation."""


def validate(hub_dir: Path) -> list[str]:
    """Return every broken rule of a hub's submissions and target data, one line each; none if it is sound.

    The checks are those hubs run: folder and file names, accepted formats and one such file a round,
    metadata, columns and types, task ids and output type ids that ``tasks.json`` declares, all of them
    where required, values in range, probabilities that sum to one, quantiles and cdfs that do not fall,
    numbers of samples, duplicates, horizons that fit their dates, and that a CSV says what Parquet says.
    """
    hub_dir = Path(hub_dir)
    try:
        admin, tasks = (
            json.loads((hub_dir / "hub-config" / f"{n}.json").read_text(encoding="utf-8"))
            for n in ("admin", "tasks")
        )
        rounds = {day: r for r in tasks["rounds"] for day in _round_days(r)}
        formats = set(admin["file_format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"hub-config: admin.json or tasks.json cannot be used ({type(error).__name__}: {error})"]
    problems = []
    declared = [day for r in tasks["rounds"] for day in _round_days(r)]
    if len(declared) != len(set(declared)):
        problems.append("hub-config/tasks.json: a round is declared twice")
    if not any((hub_dir / "model-output").glob("*/*")):
        problems.append("model-output: holds no submission")
    for folder in sorted((hub_dir / "model-output").glob("*")):
        if not folder.is_dir() or not _MODEL.fullmatch(folder.name):
            problems.append(f"model-output/{folder.name}: is no folder named TEAM-MODEL")
            continue
        if not (hub_dir / "model-metadata" / f"{folder.name}.yml").is_file():
            problems.append(f"model-output/{folder.name}: has no model-metadata/{folder.name}.yml")
        problems += _model_problems(folder, rounds, formats)
    return problems + _target_problems(hub_dir / "target-data", tasks)


def _round_days(one: Mapping[str, Any]) -> list[str]:
    ids = one["model_tasks"][0]["task_ids"][one["round_id"]]
    return _allowed(ids)


def _allowed(ids: Mapping[str, Any]) -> list[Any]:
    return [*(ids["required"] or []), *(ids["optional"] or [])]


def _model_problems(
    folder: Path, rounds: Mapping[str, Mapping[str, Any]], formats: Collection[str]
) -> Iterator[str]:
    tables: dict[str, pd.DataFrame] = {}
    taken: list[str] = []
    # Accepted formats first: a CSV beside them is only compared.
    for path in sorted(folder.iterdir(), key=lambda p: (p.suffix[1:] not in formats, p.name)):
        where = f"model-output/{folder.name}/{path.name}"
        match = _FILE.fullmatch(path.name)
        if not match or match[2] != folder.name:
            yield f"{where}: is not named DATE-{folder.name}.parquet or .csv"
            continue
        if match[1] not in rounds:
            yield f"{where}: {match[1]} is no round of tasks.json"
            continue
        if match[3] in formats and match[1] in taken:
            yield f"{where}: a second accepted file of the round"
        table, fault = _submission(path)
        if table is None:
            yield f"{where}: {fault}"
        elif match[1] not in tables:
            taken.append(match[1])
            tables[match[1]] = table
            if match[3] not in formats:
                yield f"{where}: {match[3]} is not accepted; formats are {', '.join(sorted(formats))}"
            yield from (f"{where}: {line}" for line in check_table(table, rounds[match[1]], match[1]))
        elif not table.equals(tables[match[1]]):
            yield f"{where}: differs from the other file of its round"


def _submission(path: Path) -> tuple[pd.DataFrame | None, str]:
    """Table of a file, or what is wrong with its columns and types."""
    try:
        table = export.read_table(path, SCHEMA)
    except (OSError, pa.ArrowException) as error:
        return None, f"cannot be read ({str(error).splitlines()[0]})"
    if table.schema.names != SCHEMA.names:
        return None, f"columns are {', '.join(table.schema.names)}, not {', '.join(SCHEMA.names)}"
    for field in SCHEMA:
        if table.schema.field(field.name).type != field.type:
            return None, f"column {field.name} is {table.schema.field(field.name).type}, not {field.type}"
    frame = table.to_pandas()
    # As tasks.json writes them: dates as text, and None rather than NaN, which equals nothing.
    for name, of in (("origin_date", str), ("target_end_date", str), ("horizon", int)):
        frame[name] = pd.Series([None if pd.isna(v) else of(v) for v in frame[name]], dtype=object)
    return frame, ""


def check_table(table: pd.DataFrame, round_: Mapping[str, Any], day: str) -> Iterator[str]:
    """Yield every rule of its round that a submission breaks."""
    if (table["origin_date"] != day).any():
        yield f"origin_date is not the {day} of the file's name in every row"
    if not np.isfinite(table["value"].to_numpy(float, na_value=np.nan)).all():
        yield "a value is missing or not finite"
    keys = [*TASK_IDS, "output_type", "output_type_id"]
    for row in table[table.duplicated(keys)].head(1).itertuples():
        yield f"{_place(row)} stands twice"
    ends = pd.to_datetime(pd.Series(table["target_end_date"], dtype="object"))
    days = (ends - pd.Timestamp(day)).dt.days
    told = pd.to_numeric(pd.Series(table["horizon"], dtype="object"))
    if not ((days == told) | (days.isna() & told.isna())).all():
        yield "horizon is not the days from origin_date to target_end_date in every row"
    left = pd.Series(True, index=table.index)
    places = table.groupby("target").indices
    for group in round_["model_tasks"]:
        ids = group["task_ids"]
        # The target first: it leaves little to look through.
        own = [places[t] for t in _allowed(ids["target"]) if t in places]
        part = table.iloc[np.sort(np.concatenate(own))] if own else table.iloc[:0]
        for name in ids if own else ():
            allowed = _allowed(ids[name])
            part = part[part[name].isin(allowed) if allowed else part[name].isna()]
        for kind, spec in group["output_type"].items():
            mine = part[part["output_type"] == kind]
            if "output_type_id" in spec:
                mine = mine[mine["output_type_id"].isin(_texts(spec))]
            left[mine.index] = False
            if len(mine) or spec["is_required"]:
                yield from _kind_problems(mine, kind, spec, group)
    for row in table[left].head(3).itertuples():
        yield f"{_place(row)} is no task of tasks.json"
    by_date = table[table["output_type"] == "cdf"].sort_values("target_end_date", kind="stable")
    for target, rows in by_date.groupby("target"):
        if (np.diff(rows["value"]) < 0).any():
            yield f"cdf of {target} falls with time"


def _place(row: Any) -> str:
    end = f" by {row.target_end_date}" if row.target_end_date else ""
    return f"{row.output_type} {row.output_type_id} of {row.target}{end}"


def _texts(spec: Mapping[str, Any]) -> list[str]:
    ids = spec["output_type_id"]["required"]
    return [i if isinstance(i, str) else f"{i:g}" for i in ids]


def _kind_problems(
    rows: pd.DataFrame, kind: str, spec: Mapping[str, Any], group: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with the rows of one output type of one group of tasks."""
    limits = spec["value"]
    low, high = limits.get("minimum", -np.inf), limits.get("maximum", np.inf)
    for row in rows[(rows["value"] < low) | (rows["value"] > high)].head(1).itertuples():
        yield f"{_place(row)} is {row.value:g}, not in {low:g} to {high:g}"
    ids = group["task_ids"]
    if spec["is_required"]:
        # A derived id follows from the others, so only those can be asked for.
        wanted = [ids[n]["required"] if _allowed(ids[n]) else [None] for n in ("target", "target_end_date")]
        present = set(zip(rows["target"], rows["target_end_date"], strict=True))
        missing = [(t, d) for t in wanted[0] or [] for d in wanted[1] or [] if (t, d) not in present]
        for target, date in missing[:1]:
            yield f"required {kind} of {target}{f' by {date}' if date else ''} is missing"
    yield from _task_problems(rows, kind, spec)


def _task_problems(rows: pd.DataFrame, kind: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with tasks one by one: the number of their rows, their sums and their order."""
    order = {} if kind == "sample" else {text: i for i, text in enumerate(_texts(spec))}
    task = rows.groupby(list(TASK_IDS), dropna=False, sort=False).ngroup()
    rank = rows["output_type_id"].map(order) if order else 0
    rows = rows.assign(task=task, rank=rank).sort_values(["task", "rank"], kind="stable")
    tasks = rows.groupby("task")

    def wrong(holds: pd.Series, says: Callable[[pd.DataFrame], str]) -> Iterator[str]:
        for one in holds.index[holds]:
            mine = tasks.get_group(one)
            target, end = mine[["target", "target_end_date"]].iloc[0]
            yield f"{kind} of {target}{f' by {end}' if isinstance(end, str) else ''}{says(mine)}"

    if kind == "sample":
        params, count = spec["output_type_id_params"], tasks.size()
        low, high = params["min_samples_per_task"], params["max_samples_per_task"]
        few = (count < low) | (count > high)
        yield from wrong(few, lambda mine: f": {len(mine)} draws, not as many as tasks.json says")
        longest = rows["output_type_id"].str.len().groupby(rows["task"]).max()
        long = longest > params.get("max_length", np.inf)
        yield from wrong(long, lambda mine: ": an output_type_id is too long")
    else:
        lacking = tasks["output_type_id"].nunique() < len(order)
        yield from wrong(
            lacking,
            lambda mine: f": lacks {', '.join(i for i in order if i not in set(mine['output_type_id']))}",
        )
    if kind == "pmf":
        total = tasks["value"].sum()
        yield from wrong(
            ~((total - 1).abs() <= TOLERANCE), lambda mine: f": sums to {mine['value'].sum():.12g}, not 1"
        )
    if kind in ("quantile", "cdf"):
        rises = "the level" if kind == "quantile" else "time"
        falls = (tasks["value"].diff() < 0).groupby(rows["task"]).any()
        yield from wrong(falls, lambda mine: f": falls as {rises} rises")


def _target_problems(folder: Path, tasks: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the target data: columns, duplicates, and targets that no task asks for."""
    declared = {
        t for r in tasks["rounds"] for g in r["model_tasks"] for t in _allowed(g["task_ids"]["target"])
    }
    problems = []
    for name, schema in (("time-series", TIME_SERIES), ("oracle-output", ORACLE)):
        where = f"target-data/{name}.parquet"
        try:
            table = export.read_table(folder / f"{name}.parquet")
        except (OSError, pa.ArrowException) as error:
            problems.append(f"{where}: cannot be read ({type(error).__name__})")
            continue
        if not table.schema.equals(schema):
            problems.append(f"{where}: columns and types are not {', '.join(schema.names)}")
            continue
        frame = table.to_pandas()
        keys = [n for n in ("target", "target_end_date", "as_of", "output_type") if n in frame]
        if frame.duplicated(keys).any():
            problems.append(f"{where}: an observation stands twice")
        if unknown := set(frame["target"]) - declared:
            problems.append(f"{where}: no task asks for {min(unknown)}")
        if not np.isfinite(frame[schema.names[-1]]).all():
            problems.append(f"{where}: a value is missing or not finite")
    return problems
