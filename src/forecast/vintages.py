"""The archive of observations, and what it held on a given day.

``data/observations/`` has one CSV file per indicator and one row per published value. Rows are only
ever appended: a correction is a new row of the same observed day with a later ``published_at``, so
that `as_of` can return what was known on any past day. ``data/indicators.csv`` says what each
indicator is; ``data/models.csv`` says which model stands behind each entity.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecast.schema import InputError, did_you_mean
from forecast.tables import (
    COLUMNS,
    INDICATOR_COLUMNS,
    KEY,
    MODEL_COLUMNS,
    NUMBERS,
    OBSERVATION,
    PROVENANCE,
    Problem,
    frame_of,
    indicator_problems,
    is_day,
    model_problems,
    number,
    observation_problems,
    read_text,
    refuse,
    typed,
    with_ends,
)


@dataclass(frozen=True)
class Archive:
    """Every value ever published, read from ``directory``; each table with `PROVENANCE`.

    Attributes
    ----------
    observations
        `COLUMNS`, one row per published value. Dates are timestamps; ``value``, ``lower`` and ``upper``
        floats in ``unit``, ``interval_level`` a fraction, ``n`` a count, NaN where empty; the rest is text.
    indicators
        `INDICATOR_COLUMNS`, indexed by ``indicator_id``, and the ends of ``range`` as floats ``low`` and
        ``high``, in ``unit``.
    models
        `MODEL_COLUMNS`, one row per (indicator_id, entity); ``released`` is a timestamp or NaT.
    """

    observations: pd.DataFrame
    indicators: pd.DataFrame
    models: pd.DataFrame
    directory: Path

    @cached_property
    def models_hash(self) -> str:
        """`data_hash` of the models, which every run's key has."""
        return data_hash(self.models)


@dataclass(frozen=True)
class ImportResult:
    """What `import_rows` did: rows added, rows stored already, additions to the two registries."""

    added: int
    skipped: int
    indicators_added: int
    models_added: int


def load_archive(directory: Path) -> Archive:
    """Read the archive in ``directory``; raise `InputError` with the first problem that `check` finds."""
    text, problems = _examine(directory)
    refuse(problems)
    return Archive(
        observations=typed(text.observations).drop(columns="filed"),
        indicators=with_ends(text.indicators).set_index("indicator_id"),
        models=typed(text.models),
        directory=directory,
    )


def check(directory: Path) -> list[str]:
    """Return every problem of the archive in ``directory``, one plain line each; none if it is sound."""
    return [problem.line for problem in sorted(_examine(directory)[1])]


def last_published(archive: Archive) -> pd.Timestamp:
    """Return the latest ``published_at`` of the archive; raise `InputError` if it holds no row."""
    if archive.observations.empty:
        raise InputError(f"{archive.directory}/observations: no row yet; import some first")
    return pd.Timestamp(archive.observations["published_at"].max())


def day_of(date: pd.Timestamp | datetime.date | str, where: str) -> pd.Timestamp:
    """A day of the calendar, as text YYYY-MM-DD; `where` is what an error blames."""
    day = pd.NaT if isinstance(date, str) and not is_day(date) else pd.Timestamp(date).tz_localize(None)
    if pd.isna(day):
        raise InputError(f"{where}: '{date}' is not a day of the calendar; write it as YYYY-MM-DD")
    return day


def as_of(archive: Archive, date: pd.Timestamp | datetime.date | str) -> pd.DataFrame:
    """Return what was known on a day: of each `OBSERVATION`, the last value published by then.

    Parameters
    ----------
    archive
        From `load_archive`.
    date
        The day, included; as text, YYYY-MM-DD.

    Returns
    -------
    pd.DataFrame
        Rows of ``archive.observations`` in order of indicator, entity and observed day. ``attrs["note"]``
        is a sentence if the archive holds nothing newer than an earlier day, else ``''``; ``attrs["as_of"]``
        is the day.

    Raises
    ------
    InputError
        If ``date`` is no day of the calendar, or before the first published row.
    """
    day = day_of(date, "as_of")
    last = last_published(archive)
    first = archive.observations["published_at"].min()
    if day < first:
        raise InputError(f"as_of: nothing was published by {day:%Y-%m-%d}; the first day is {first:%Y-%m-%d}")
    known = archive.observations[archive.observations["published_at"] <= day]
    known = known.sort_values("published_at", kind="stable").drop_duplicates(list(OBSERVATION), keep="last")
    known = known.sort_values(list(OBSERVATION), ignore_index=True)
    beyond = day.normalize() > last
    known.attrs["as_of"] = day
    known.attrs["note"] = f"Nothing newer than {last:%Y-%m-%d} is in the archive." if beyond else ""
    return known


def data_hash(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of a snapshot's content: same rows, same hash, in any order, on any machine."""
    columns = sorted(set(frame.columns) - set(PROVENANCE))
    rows = zip(*(frame[column].tolist() for column in columns), strict=True)
    lines = [json.dumps(columns), *sorted(json.dumps(row, default=str) for row in rows)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def decimal_year(timestamps: Iterable[Any]) -> NDArray[np.float64]:
    """Return days as calendar years: year + (day of year - 1) / (days in that year).

    Parameters
    ----------
    timestamps
        Dates or timestamps, dims (row,); hours are ignored, NaT gives NaN.
    """
    days = pd.DatetimeIndex(pd.to_datetime(list(timestamps)))
    length = np.where(days.is_leap_year, 366.0, 365.0)
    return np.asarray(days.year + (days.day_of_year - 1) / length, dtype=np.float64)


def import_rows(
    directory: Path, file: Path, indicators: Path | None = None, models: Path | None = None
) -> ImportResult:
    """Append the new rows of ``file`` to the archive, or refuse the file whole.

    Rows equal to stored ones are skipped, so importing twice changes nothing. Every changed file is
    written in full under a temporary name before the first is replaced: a crash leaves each file old
    or complete, and importing again finishes the work.

    Parameters
    ----------
    directory
        Folder of the archive.
    file
        CSV with `COLUMNS` in any order; ``category`` and ``rung`` may stand beside them.
    indicators, models
        CSV with `INDICATOR_COLUMNS` and with `MODEL_COLUMNS`, for what the archive does not know yet.

    Raises
    ------
    InputError
        If the archive or one row of the files is bad; nothing is changed then.
    """
    stored, problems = _examine(directory)
    refuse(problems)
    new, _ = _incoming(indicators, INDICATOR_COLUMNS, KEY[:1], stored.indicators, indicator_problems)
    registry = pd.concat([stored.indicators, new], ignore_index=True)
    # Registries first: if a crash stops the replacing, no observation stands without its indicator.
    additions = {directory / "indicators.csv": new}
    examine = partial(model_problems, indicators=registry)
    new, _ = _incoming(models, MODEL_COLUMNS, KEY[:2], stored.models, examine)
    entities = pd.concat([stored.models, new], ignore_index=True)
    additions[directory / "models.csv"] = new
    examine = partial(observation_problems, indicators=registry, models=entities)
    new, skipped = _incoming(file, COLUMNS, KEY, stored.observations, examine)
    new = new.sort_values(["published_at", "observed_at", "entity"], kind="stable")
    for indicator, rows in new.groupby("indicator_id"):
        additions[directory / "observations" / f"{indicator}.csv"] = rows
    _append(additions)
    grown = (len(registry) - len(stored.indicators), len(entities) - len(stored.models))
    return ImportResult(len(new), skipped, *grown)


_NONE = pd.DataFrame()
Examine = Callable[[pd.DataFrame], list[Problem]]


def _examine(directory: Path) -> tuple[Archive, list[Problem]]:
    """Return the archive, all of it text and ``filed`` the name of a row's file, and every problem in it."""
    if not (directory / "observations").is_dir():
        text = ": it has no folder 'observations'; name the folder of the archive"
        return Archive(_NONE, _NONE, _NONE, directory), [Problem(str(directory), 0, text)]
    name = directory.resolve().name
    records, problems = read_text(directory / "indicators.csv", f"{name}/indicators.csv", INDICATOR_COLUMNS)
    indicators = frame_of(records, INDICATOR_COLUMNS)
    if problems := problems or indicator_problems(indicators):
        return Archive(
            _NONE, _NONE, _NONE, directory
        ), problems  # without a sound registry nothing else can be judged
    records, problems = read_text(directory / "models.csv", f"{name}/models.csv", MODEL_COLUMNS)
    models = frame_of(records, MODEL_COLUMNS)
    problems = problems or model_problems(models, indicators)
    entities = None if problems else models  # not to call every entity of a broken list unknown
    known = set(indicators["indicator_id"])
    records = []
    for path in sorted((directory / "observations").glob("*.csv")):
        file = f"{name}/observations/{path.name}"
        if path.stem in known:
            rows, faults = read_text(path, file, COLUMNS)
            records += [row | {"filed": path.stem} for row in rows]
            problems += faults
        else:
            text = f": no indicator '{path.stem}' in indicators.csv; add it there or rename the file"
            problems.append(Problem(file, 0, text + did_you_mean(path.stem, known)))
    observations = frame_of(records, (*COLUMNS, "filed"))
    problems += observation_problems(observations, indicators, entities)
    return Archive(observations, indicators, models, directory), problems


def _incoming(
    file: Path | None, columns: Sequence[str], key: Sequence[str], stored: pd.DataFrame, examine: Examine
) -> tuple[pd.DataFrame, int]:
    """Return the rows of ``file`` that are not stored yet, and the number that are."""
    if file is None:
        return stored.loc[[], list(columns)], 0
    extra = ("category", "rung") if columns is COLUMNS else ()
    records, problems = read_text(file, str(file), columns, extra)
    refuse(problems)
    frame = frame_of(records, [*columns, *(name for name in extra if records and name in records[0])])
    refuse(examine(frame))
    mend = "a revision needs a later published_at" if columns is COLUMNS else "leave the row out"
    known: dict[Any, Any] = {tuple(row[c] for c in key): row for row in stored.to_dict("records")}
    olds = [known.get(tuple(row[c] for c in key), {}) for row in records]
    for row, old in zip(records, olds, strict=True):
        for name in columns if old else ():
            if row[name] == old[name] or (name in NUMBERS and number(row[name]) == number(old[name])):
                continue
            text = f"'{row[name]}' is stored as '{old[name]}' in {old['file']}, row {old['row']}; {mend}"
            problems.append(Problem(row["file"], row["row"], f", column '{name}': {text}"))
            break
    refuse(problems)
    new = [not old for old in olds]
    return frame.loc[new, list(columns)], len(frame) - sum(new)


def _append(additions: dict[Path, pd.DataFrame]) -> None:
    """Append rows to files, or start them, such that a crash leaves each file old or complete."""
    staged = {}
    try:
        for path, rows in additions.items():
            if rows.empty:
                continue
            old = path.read_bytes() if path.exists() else b""
            if old and not old.endswith(b"\n"):
                old += b"\n"
            new = rows.to_csv(index=False, header=not old, lineterminator="\n").encode()
            staged[path] = path.with_name(f".{path.name}.tmp")
            with staged[path].open("wb") as handle:
                handle.write(old + new)
                handle.flush()
                os.fsync(handle.fileno())
        for path, temporary in staged.items():
            os.replace(temporary, path)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
