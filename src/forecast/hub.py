"""A hubverse hub of stored runs.

A hub is a folder: ``hub-config/`` declares the tasks, ``model-output/`` holds one folder per model (here
per worldview) with a file per round (here per date of knowledge), ``target-data/`` what came true. See
https://docs.hubverse.io, schema version 6.0.0.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from forecast import export, prediction
from forecast.export import SCHEMA, Run
from forecast.prediction import Milestone
from forecast.schema import InputError
from forecast.submission import ORACLE, TIME_SERIES
from forecast.submission import validate as validate
from forecast.tables import OBSERVATION
from forecast.vintages import Archive

VERSION = "v6.0.0"
_URL = f"https://raw.githubusercontent.com/hubverse-org/schemas/main/{VERSION}"

# Writing ----------------------------------------------------------------------------------------------


def model_id(team: str, worldview: str) -> str:
    """Name of a model in a hub, ``team-worldview``, each of letters, digits and underscores."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", team):
        raise InputError(f"--team: '{team}' cannot name a team; use letters, digits and '_'")
    return f"{team}-{re.sub(r'[^A-Za-z0-9_]', '_', worldview)}"


def write(
    folder: Path,
    runs: Sequence[Run],
    archive: Archive,
    milestones: Mapping[str, Milestone],
    team: str,
    samples: int = 0,
) -> None:
    """Fill a folder with a hub, and check it.

    Parameters
    ----------
    folder
        An empty folder.
    runs
        Runs to submit, each worldview and date once.
    archive
        Where the target data come from.
    milestones
        For their titles and resolutions.
    team
        First part of the models' names.
    samples
        Joint draws of milestone dates to add.

    Raises
    ------
    InputError
        `validate` finds a problem.
    """
    series = time_series(archive)
    for sub in ("hub-config", "model-output", "model-metadata", "target-data"):
        (folder / sub).mkdir()
    rounds: dict[dt.date, list[Run]] = {}
    for run in sorted(runs, key=lambda r: (r.as_of, r.worldview)):
        rounds.setdefault(run.as_of, []).append(run)
    indicators = _indicator_tasks(archive, series)
    tasks = {
        "schema_version": f"{_URL}/tasks-schema.json",
        "rounds": [_round(day, some, milestones, indicators, samples) for day, some in rounds.items()],
        "output_type_id_datatype": "character",
        "derived_task_ids": ["horizon"],
    }
    for name, content in (_config(team) | {"tasks": tasks}).items():
        text = json.dumps(content, indent=1, allow_nan=False)
        (folder / "hub-config" / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    for day, some in rounds.items():
        dynamics = _union(run.dynamics for run in some)
        for run in some:
            model = model_id(team, run.worldview)
            place = folder / "model-output" / model
            place.mkdir(exist_ok=True)
            table = _with_all_dynamics(export.rows(run, samples), dynamics)
            for ending in ("parquet", "csv"):
                export.write_table(table, place / f"{day}-{model}.{ending}", SCHEMA)
            meta = {
                "team_name": team,
                "team_abbr": model.split("-")[0],
                "model_name": f"Worldview {run.worldview}",
                "model_abbr": model.split("-")[1],
                "designated_model": True,
            }
            lines = [f"{k}: {json.dumps(v)}\n" for k, v in meta.items()]
            (folder / "model-metadata" / f"{model}.yml").write_text("".join(lines), encoding="utf-8")
    export.write_table(series, folder / "target-data" / "time-series.parquet", TIME_SERIES)
    export.write_table(oracle_output(series), folder / "target-data" / "oracle-output.parquet", ORACLE)
    if problems := validate(folder):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"the hub breaks a rule and was not published: {problems[0]}{more}")


def _union(lists: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for one in lists for name in one))


def _with_all_dynamics(table: pd.DataFrame, dynamics: Sequence[str]) -> pd.DataFrame:
    """A run that does not know a dynamic of its round gives it no probability."""
    known = set(table.loc[table["output_type"] == "pmf", "output_type_id"])
    extra = [table.iloc[[0]].assign(output_type_id=n, value=0.0) for n in dynamics if n not in known]
    return pd.concat([*extra, table], ignore_index=True) if extra else table


def time_series(archive: Archive) -> pd.DataFrame:
    """Observed values of all indicators, in the columns of `TIME_SERIES`.

    Plans and values known only to lie above or below are left out: neither is an outcome. A target is
    ``indicator.ID/ENTITY``, since an indicator has many entities on one day.
    """
    rows = archive.observations
    rows = rows[(rows["kind"] != "plan") & (rows["bound"] == "")]
    rows = rows.sort_values([*OBSERVATION, "published_at"], ignore_index=True)
    return pd.DataFrame(
        {
            "target": "indicator." + rows["indicator_id"] + "/" + rows["entity"],
            "target_end_date": rows["observed_at"].dt.date,
            "as_of": rows["published_at"].dt.date,
            "indicator": rows["indicator_id"],
            "entity": rows["entity"],
            "observation": rows["value"],
        }
    )


def oracle_output(series: pd.DataFrame) -> pd.DataFrame:
    """Newest value of each observation, as the quantile a forecaster who knew it would have given.

    Milestones and dynamics have no row: none is resolved by the archive alone.
    """
    newest = series.sort_values("as_of", kind="stable").drop_duplicates(
        ["target", "target_end_date"], keep="last"
    )
    newest = newest.sort_values(["target", "target_end_date"], ignore_index=True)
    table = newest.rename(columns={"observation": "oracle_value"})
    return table.assign(output_type="quantile", output_type_id=None)[ORACLE.names]


def _config(team: str) -> dict[str, Any]:
    meta = {name: {"type": "string"} for name in ("team_name", "team_abbr", "model_name", "model_abbr")}
    return {
        "admin": {
            "schema_version": f"{_URL}/admin-schema.json",
            "name": "Takeoff dynamics of automated AI research",
            "maintainer": team,
            "contact": {"name": team},
            "repository": {"host": "github", "owner": team, "name": "forecast-hub"},
            # The CSV beside each Parquet file is for reading; accepted twice, every row would count twice.
            "file_format": ["parquet"],
            # The schema knows no UTC; Iceland keeps it all year.
            "timezone": "Atlantic/Reykjavik",
        },
        "target-data": {
            "schema_version": f"{_URL}/target-data-schema.json",
            "observable_unit": ["target", "target_end_date"],
            "date_col": "target_end_date",
            "versioned": False,
            "time-series": {
                "non_task_id_schema": {"indicator": "character", "entity": "character"},
                "versioned": True,
            },
            "oracle-output": {"has_output_type_ids": True},
        },
        "model-metadata-schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {**meta, "designated_model": {"type": "boolean"}},
            "required": ["team_abbr", "model_abbr", "designated_model"],
        },
    }


# Tasks ------------------------------------------------------------------------------------------------

_NONE: dict[str, Any] = {"required": None, "optional": None}


def _values(required: Sequence[Any], optional: Sequence[Any] = ()) -> dict[str, Any]:
    return {"required": list(required) or None, "optional": list(optional) or None}


def _common(lists: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Task-id values that every run of a round has are required, others optional."""
    every = list(dict.fromkeys(v for one in lists for v in one))
    shared = [v for v in every if all(v in one for one in lists)]
    return _values(shared, [v for v in every if v not in shared])


def _about(target: str, name: str, unit: str, kind: str, description: str, **extra: Any) -> dict[str, Any]:
    short = (
        target if len(target) <= 30 else f"{target[:21]}-{hashlib.sha256(target.encode()).hexdigest()[:8]}"
    )
    about = {
        "target_id": short,
        "target_name": name[:100],
        "target_units": unit[:100],
        "target_keys": {"target": target},
        "description": " ".join(description.split()),
        "target_type": kind,
        "is_step_ahead": kind == "continuous" and not target.startswith("milestone."),
    }
    if about["is_step_ahead"]:
        about["time_unit"] = "day"
    return about | ({"additional_metadata": extra} if extra else {})


def _path_about(quantity: str) -> dict[str, Any]:
    meaning = prediction.QUANTITIES[quantity].meaning
    unit = next((u for word, u in (("nats", "nats"), ("multiplier", "times")) if word in meaning), "share")
    name = meaning[:1].upper() + meaning[1:]
    return _about(f"path.{quantity}", name, unit, "continuous", meaning)


def _quantiles(required: bool, **limits: float) -> dict[str, Any]:
    return {
        "output_type_id": {"required": list(export.LEVELS)},
        "value": {"type": "double", **limits},
        "is_required": required,
    }


def _probabilities(ids: Sequence[Any]) -> dict[str, Any]:
    value = {"type": "double", "minimum": 0, "maximum": 1}
    return {"output_type_id": {"required": list(ids)}, "value": value, "is_required": True}


def _round(
    day: dt.date,
    runs: Sequence[Run],
    milestones: Mapping[str, Milestone],
    indicators: Sequence[dict[str, Any]],
    samples: int,
) -> dict[str, Any]:
    """One round: everything asked of a model that knew what was known on a day."""
    origin = _values([str(day)])
    never = max(run.never for run in runs)
    end = export.grid_date(max(run.times[-1] for run in runs))
    last = min(int(run.times[-1]) for run in runs)
    dates = [[d for d in map(export.grid_date, run.times) if d > day] for run in runs]

    def ids(target: dict[str, Any], ends: Sequence[Sequence[dt.date]] | None) -> dict[str, Any]:
        if ends is None:
            return {"origin_date": origin, "target": target, "target_end_date": _NONE, "horizon": _NONE}
        days = sorted({(d - day).days for one in ends for d in one})
        texts = _common([[str(d) for d in one] for one in ends])
        return {
            "origin_date": origin,
            "target": target,
            "target_end_date": texts,
            "horizon": _values([], days),
        }

    dynamic = _about("dynamic", "Takeoff dynamic", "dynamic", "nominal", "Which takeoff dynamic holds.")
    groups = [
        {
            "task_ids": ids(_values(["dynamic"]), None),
            "output_type": {"pmf": _probabilities(_union(run.dynamics for run in runs))},
            "target_metadata": [dynamic],
        }
    ]
    wanted = _common([["milestone." + m for m in run.milestones] for run in runs])
    about = [
        _about(
            f"milestone.{name}",
            milestones[name].title if name in milestones else name,
            "calendar year",
            "continuous",
            milestones[name].resolution if name in milestones else name,
            never=never,
            never_means=f"not by {end}, where the paths end",
        )
        for name in _union(run.milestones for run in runs)
    ]
    dated: dict[str, Any] = {"quantile": _quantiles(True, maximum=never)}
    if samples:
        dated["sample"] = {
            "output_type_id_params": {
                "type": "character",
                "max_length": len(str(samples)),
                "min_samples_per_task": samples,
                "max_samples_per_task": samples,
                "compound_taskid_set": ["origin_date"],
            },
            "value": {"type": "double", "maximum": never},
            "is_required": False,
        }
    groups.append({"task_ids": ids(wanted, None), "output_type": dated, "target_metadata": about})
    for year in range(day.year + 1, last + 1):
        # A group for each date: the threshold asked for is the date itself.
        by = {"cdf": _probabilities([year])}
        ends = [[dt.date(year, 1, 1)]]
        groups.append({"task_ids": ids(wanted, ends), "output_type": by, "target_metadata": about})
    quantities = _common([list(run.bands()["quantity"].values.astype(str)) for run in runs])
    names = [*(quantities["required"] or []), *(quantities["optional"] or [])]
    paths = {k: [f"path.{q}" for q in v] if v else None for k, v in quantities.items()}
    told = [_path_about(q) for q in names]
    groups.append(
        {
            "task_ids": ids(paths, dates),
            "output_type": {"quantile": _quantiles(True)},
            "target_metadata": told,
        }
    )
    for one in indicators:
        ends = [[dt.date.fromisoformat(d) for d in one["dates"]]]
        open_ids = ids(_values([], one["targets"]), ends)
        open_ids["target_end_date"] = _values([], one["dates"])
        optional = {"quantile": _quantiles(False)}
        groups.append({"task_ids": open_ids, "output_type": optional, "target_metadata": one["about"]})
    return {
        "round_id_from_variable": True,
        "round_id": "origin_date",
        "round_name": f"As of {day}",
        "model_tasks": groups,
        "submissions_due": {"relative_to": "origin_date", "start": 0, "end": 7},
        "last_data_date": str(day),
    }


def _indicator_tasks(archive: Archive, series: pd.DataFrame) -> list[dict[str, Any]]:
    """One optional group per indicator, so that its target data belong to a declared task."""
    found = []
    for name, rows in series.groupby("indicator"):
        one = archive.indicators.loc[str(name)]
        unit, measures = str(one["unit"]), str(one["measures"])
        entities = rows.drop_duplicates("target").sort_values("target")
        found.append(
            {
                "targets": entities["target"].tolist(),
                "dates": sorted({str(d) for d in rows["target_end_date"]}),
                "about": [
                    _about(target, f"{entity}: {one['title']}", unit, "continuous", measures)
                    for target, entity in zip(entities["target"], entities["entity"], strict=True)
                ],
            }
        )
    return found
