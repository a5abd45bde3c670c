"""The archive of observations, and what it held on a given day.

``data/observations/`` has one CSV file per indicator and one row per published value. Rows are only
ever appended: a correction is a new row of the same observed day with a later ``published_at``, so
that `as_of` can return what was known on any past day. ``data/indicators.csv`` says what each
indicator is; ``data/models.csv`` says which model stands behind each entity.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from forecast.schema import InputError, did_you_mean

COLUMNS = (
    *("indicator_id", "entity", "observed_at", "published_at", "value", "unit", "lower", "upper"),
    *("interval_level", "n", "bound", "kind", "disclosure", "source_title", "source_url", "note"),
)
"""Columns of every file in ``data/observations/``, in their order."""
INDICATOR_COLUMNS = (
    *("indicator_id", "title", "category", "rung", "unit", "range"),
    *("measures", "direction", "known_biases", "license_terms"),
)
"""Columns of ``data/indicators.csv``."""
MODEL_COLUMNS = (
    *("indicator_id", "entity", "model", "developer", "released"),
    *("tier", "reasoning", "configuration", "note"),
)
"""Columns of ``data/models.csv``."""
OBSERVATION = ("indicator_id", "entity", "observed_at")
"""What identifies an observation; rows that differ only in ``published_at`` are its revisions."""
KEY = (*OBSERVATION, "published_at")
"""What identifies a row."""
PROVENANCE = ("file", "row")
"""Columns added on loading: the file of a row, and its line as an editor counts them."""

_DATES = ["observed_at", "published_at", "released"]
_NUMBERS = ["value", "lower", "upper", "interval_level", "n"]
_WORDS = {
    "kind": ("model", "human", "company", "industry", "average", "plan"),
    "disclosure": ("third_party_eval", "independent", "voluntary_company", "self_report"),
    "bound": ("", "lower", "upper"),
    "category": ("broad_capability", "rnd_ladder", "company_signs"),
    "rung": ("", "engineering", "experiments", "ideation", "strategy"),
    "tier": ("flagship", "small", "other"),
    "reasoning": ("yes", "no", "unknown"),
}


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
    _refuse(problems)
    return Archive(
        observations=_typed(text.observations).drop(columns="filed"),
        indicators=_with_ends(text.indicators).set_index("indicator_id"),
        models=_typed(text.models),
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
    day = pd.NaT if isinstance(date, str) and not _is_day(date) else pd.Timestamp(date).tz_localize(None)
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
    _refuse(problems)
    new, _ = _incoming(indicators, INDICATOR_COLUMNS, KEY[:1], stored.indicators, _indicator_problems)
    registry = pd.concat([stored.indicators, new], ignore_index=True)
    # Registries first: if a crash stops the replacing, no observation stands without its indicator.
    additions = {directory / "indicators.csv": new}
    examine = partial(_model_problems, indicators=registry)
    new, _ = _incoming(models, MODEL_COLUMNS, KEY[:2], stored.models, examine)
    entities = pd.concat([stored.models, new], ignore_index=True)
    additions[directory / "models.csv"] = new
    examine = partial(_observation_problems, indicators=registry, models=entities)
    new, skipped = _incoming(file, COLUMNS, KEY, stored.observations, examine)
    new = new.sort_values(["published_at", "observed_at", "entity"], kind="stable")
    for indicator, rows in new.groupby("indicator_id"):
        additions[directory / "observations" / f"{indicator}.csv"] = rows
    _append(additions)
    grown = (len(registry) - len(stored.indicators), len(entities) - len(stored.models))
    return ImportResult(len(new), skipped, *grown)


class _Problem(NamedTuple):
    file: str
    row: int  # 0 for the file as a whole
    text: str  # what follows the place, from its comma or colon on

    @property
    def line(self) -> str:
        return f"{self.file}{f', row {self.row}' if self.row else ''}{self.text}"


_NONE = pd.DataFrame()
_Records = tuple[list[dict[str, Any]], list[_Problem]]


def _refuse(problems: Collection[_Problem]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(min(problems).line + more)


def _examine(directory: Path) -> tuple[Archive, list[_Problem]]:
    """Return the archive, all of it text and ``filed`` the name of a row's file, and every problem in it."""
    if not (directory / "observations").is_dir():
        text = ": it has no folder 'observations'; name the folder of the archive"
        return Archive(_NONE, _NONE, _NONE, directory), [_Problem(str(directory), 0, text)]
    name = directory.resolve().name
    records, problems = _read(directory / "indicators.csv", f"{name}/indicators.csv", INDICATOR_COLUMNS)
    indicators = _frame(records, INDICATOR_COLUMNS)
    if problems := problems or _indicator_problems(indicators):
        return Archive(
            _NONE, _NONE, _NONE, directory
        ), problems  # without a sound registry nothing else can be judged
    records, problems = _read(directory / "models.csv", f"{name}/models.csv", MODEL_COLUMNS)
    models = _frame(records, MODEL_COLUMNS)
    problems = problems or _model_problems(models, indicators)
    entities = None if problems else models  # not to call every entity of a broken list unknown
    known = set(indicators["indicator_id"])
    records = []
    for path in sorted((directory / "observations").glob("*.csv")):
        file = f"{name}/observations/{path.name}"
        if path.stem in known:
            rows, faults = _read(path, file, COLUMNS)
            records += [row | {"filed": path.stem} for row in rows]
            problems += faults
        else:
            text = f": no indicator '{path.stem}' in indicators.csv; add it there or rename the file"
            problems.append(_Problem(file, 0, text + did_you_mean(path.stem, known)))
    observations = _frame(records, (*COLUMNS, "filed"))
    problems += _observation_problems(observations, indicators, entities)
    return Archive(observations, indicators, models, directory), problems


def _read(path: Path, shown: str, columns: Sequence[str], extra: Sequence[str] | None = None) -> _Records:
    """Return the rows of a file as text; ``extra`` columns may be there, None asks for the exact header."""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        return [], [_Problem(shown, 0, f": {error.strerror}; give the path of a CSV file")]
    if not data.strip():
        return [], [_Problem(shown, 0, f": the file is empty; start it with the line {','.join(columns)}")]
    if b"\0" in data:
        row = data.count(b"\n", 0, data.index(b"\0")) + 1
        return [], [_Problem(shown, row, ": a NUL byte; save the file as plain text in UTF-8")]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        return [], [_Problem(shown, row, ": not UTF-8; save the file in that encoding")]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = []
    start = 1
    try:
        for fields in reader:
            if fields:
                lines.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        return [], [_Problem(shown, start, f": {error}; close the quote, or double one inside a field")]
    (start, header), *lines = lines
    if fault := _header_fault(header, columns, extra):
        return [], [_Problem(shown, start, fault)]
    records, problems = [], []
    for row, fields in lines:
        if len(fields) == len(header):
            records.append(dict(zip(header, fields, strict=True)) | {"file": shown, "row": row})
            continue
        mend = "complete it" if len(fields) < len(header) else "quote the field that holds a comma"
        text = f": the line has {len(fields)} fields, the header {len(header)}; {mend}"
        problems.append(_Problem(shown, row, text))
    return records, problems


def _header_fault(header: Sequence[str], columns: Sequence[str], extra: Sequence[str] | None) -> str:
    missing = [column for column in columns if column not in header]
    for column in header:
        if column not in (*columns, *(extra or ())):
            mend = did_you_mean(column, missing) or "; remove it"
            return f", column '{column}': no such column here{mend}"
        if header.count(column) > 1:
            return f", column '{column}': stands twice; remove one"
    if missing:
        return f", column '{missing[0]}': missing; add it to the header and to every row"
    if extra is None and list(header) != list(columns):
        return f": the columns stand in another order; write them as {','.join(columns)}"
    return ""


def _frame(records: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(records, columns=[*columns, *PROVENANCE], dtype="str").astype({"row": "int64"})


def _number(text: str) -> float:
    """Return the finite number that ``text`` writes, else NaN."""
    written = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    number = float(text) if written else math.nan
    return number if math.isfinite(number) else math.nan


def _is_day(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def _range(text: str) -> tuple[float, float] | None:
    """Return the ends of a range such as ``[0, inf]``, or None if it is no range."""
    if not (match := re.fullmatch(r"\[([^, ]+), ?([^, ]+)\]", text)):
        return None
    low, high = (float(end) if end in ("-inf", "inf") else _number(end) for end in match.groups())
    return (low, high) if low < high else None


def _typed(text: pd.DataFrame) -> pd.DataFrame:
    typed = text.copy()
    for name in typed.columns.intersection(_DATES):
        typed[name] = pd.to_datetime(text[name], format="%Y-%m-%d", errors="coerce").astype("datetime64[us]")
    for name in typed.columns.intersection(_NUMBERS):
        typed[name] = np.array([_number(field) for field in text[name]], dtype=np.float64)
    return typed


def _with_ends(indicators: pd.DataFrame) -> pd.DataFrame:
    ends = [_range(text) or (-math.inf, math.inf) for text in indicators["range"]]
    return indicators.assign(low=[low for low, _ in ends], high=[high for _, high in ends])


_Ids = Collection[str]
_Examine = Callable[[pd.DataFrame], list[_Problem]]
_Test = tuple[Callable[[str], object], str]
"""A test on the text of one field, and what to say after a text that fails it."""
_Fault = tuple[str, str, str]
"""The column to mend, an expression true of a bad row, and what to say after the field."""


def _schema(fields: dict[str, _Test], faults: list[_Fault]) -> pa.DataFrameSchema:
    """Return a schema whose errors read ``column|template over the fields of the row``."""

    def passes(field: pd.Series, test: Callable[[str], object]) -> pd.Series:
        return field.map(test).astype(bool)

    def sound(frame: pd.DataFrame, fault: str) -> Any:
        used = {name: frame[name] for name in re.findall("[a-z_]+", fault) if name in frame}
        return ~pd.eval(fault, local_dict=used)  # type: ignore[operator]

    columns = {
        name: pa.Column(checks=pa.Check(passes, error=f"{name}|{says}", ignore_na=False, test=test))
        for name, (test, says) in fields.items()
    }
    rows = ((f"{name}|{says}", fault) for name, fault, says in faults)
    checks = [pa.Check(sound, error=error, ignore_na=False, fault=fault) for error, fault in rows]
    return pa.DataFrameSchema(columns, checks=checks)


def _one_of(*names: str) -> dict[str, _Test]:
    listed = {name: ", ".join(word or "(empty)" for word in _WORDS[name]) for name in names}
    return {name: (_WORDS[name].__contains__, f"is none of {listed[name]}") for name in names}


def _or_blank(test: _Test) -> _Test:
    return lambda text: not text or test[0](text), f"{test[1]} or leave it empty"


_DAY = (_is_day, "is not a day of the calendar; write it as YYYY-MM-DD")
_NUMBER = (lambda text: math.isfinite(_number(text)), "is not a finite number; write digits with a point")
_FILLED = (
    re.compile(r"\S(.*\S)?", re.DOTALL).fullmatch,
    "is empty or has spaces around it; give the text alone",
)
_UNKNOWN = ("indicator_id", "not known", "is not in indicators.csv; register it there")
_INDICATOR_RULES = _schema(
    {
        "indicator_id": (re.compile("[a-z0-9_]+").fullmatch, "cannot name a file; use only a-z, 0-9 and _"),
        "range": (_range, "is no range; write one such as [0, inf]"),
        **dict.fromkeys(["title", "unit"], _FILLED),
        **_one_of("category", "rung"),
    },
    [
        ("rung", "(category == 'rnd_ladder') & (rung == '')", "is empty; say on which rung of the ladder"),
        ("indicator_id", "row != first_row", "stands in row {first_row} too; remove one"),
    ],
)
# A model may be released after its first observation (tried before release), or on no known day.
_MODEL_RULES = _schema(
    {"released": _or_blank(_DAY), "entity": _FILLED, "developer": _FILLED, **_one_of("tier", "reasoning")},
    [_UNKNOWN, ("entity", "row != first_row", "of {indicator_id} stands in row {first_row} too; remove one")],
)
_FIELD_RULES = _schema(
    {
        "value": _NUMBER,
        **dict.fromkeys(["lower", "upper", "interval_level", "n"], _or_blank(_NUMBER)),
        **dict.fromkeys(["observed_at", "published_at"], _DAY),
        **dict.fromkeys(["entity", "source_title", "source_url"], _FILLED),
        **_one_of("bound", "kind", "disclosure"),
    },
    [
        _UNKNOWN,
        ("indicator_id", "known & (indicator_id != filed)", "is in the file of '{filed}'; move the row"),
    ],
)
# Bounds without a level are legal: stated ranges, and error bars whose meaning is not printed.
_ROW_FAULTS = [
    ("category", "category != its_category", "is not '{its_category}' as in indicators.csv; use that"),
    ("rung", "rung != its_rung", "is not '{its_rung}' as in indicators.csv; use that"),
    ("unit", "unit != its_unit", "is not '{its_unit}', the unit of {indicator_id}; convert the row"),
    ("value", "(value < its_low) | (value > its_high)", "is outside {its_range}; mend it or its unit"),
    ("published_at", "published_at < observed_at", "is before observed_at {observed_at}; mend one"),
    ("lower", "(lower == lower) != (upper == upper)", "stands with upper '{upper}'; give both or neither"),
    ("lower", "lower > value", "is above value {value}; give lower <= value or leave both bounds empty"),
    ("upper", "upper < value", "is below value {value}; give upper >= value or leave both bounds empty"),
    ("interval_level", "(interval_level <= 0) | (interval_level >= 1)", "is no share; write 0.95 for 95 %"),
    ("interval_level", "(interval_level > 0) & (lower != lower)", "has no bounds; give them or empty it"),
    ("n", "(n <= 0) | (n % 1 > 0)", "is not a positive whole number; give the count or leave it empty"),
    ("published_at", "row != first_row", "is as in row {first_row}, so are entity and observed_at; mend one"),
    (
        "entity",
        "(kind == 'model') & ~listed",
        "of {indicator_id} is not in models.csv; add it (import: --models)",
    ),
]
_ROW_RULES = _schema({}, _ROW_FAULTS)


def _find(
    rules: pa.DataFrameSchema, text: pd.DataFrame, key: Sequence[str], ids: _Ids = (), *, typed: bool = False
) -> list[_Problem]:
    """Return what breaks ``rules``, told in the words of the file."""
    first_row = text.groupby(list(key))["row"].transform("first")
    text = text.assign(known=text["indicator_id"].isin(ids), first_row=first_row)
    if text.empty:
        return []
    try:
        rules.validate(_typed(text) if typed else text, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases.drop_duplicates(["check", "index"])
    else:
        return []
    words: dict[str, _Ids] = {**_WORDS, "indicator_id": ids}
    problems = []
    for check, label in zip(cases["check"], cases["index"], strict=True):
        row = text.loc[label]
        column, says = check.split("|", 1)
        field = row[column] if math.isfinite(_number(row[column])) else f"'{row[column]}'"
        hint = (
            "" if row[column] in words.get(column, ()) else did_you_mean(row[column], words.get(column, ()))
        )
        line = f", column '{column}': {field} {says.format_map(row)}{hint}"
        problems.append(_Problem(row["file"], row["row"], line))
    return problems


def _indicator_problems(frame: pd.DataFrame) -> list[_Problem]:
    return _find(_INDICATOR_RULES, frame, KEY[:1])


def _model_problems(frame: pd.DataFrame, indicators: pd.DataFrame) -> list[_Problem]:
    return _find(_MODEL_RULES, frame, KEY[:2], set(indicators["indicator_id"]))


def _observation_problems(
    frame: pd.DataFrame, indicators: pd.DataFrame, models: pd.DataFrame | None
) -> list[_Problem]:
    registry = _with_ends(indicators).set_index("indicator_id")
    its = registry[["category", "rung", "unit", "range", "low", "high"]].add_prefix("its_")
    text = frame.join(its, on="indicator_id")
    # Stored rows do not repeat category and rung, and imported ones are in no file yet.
    implied = {"category": text["its_category"], "rung": text["its_rung"], "filed": text["indicator_id"]}
    text = text.assign(**{name: column for name, column in implied.items() if name not in frame})
    pairs = [] if models is None else list(zip(models["indicator_id"], models["entity"], strict=True))
    listed = pd.MultiIndex.from_frame(text[["indicator_id", "entity"]]).isin(pairs)
    text = text.assign(listed=listed | (models is None))
    problems = _find(_FIELD_RULES, text, KEY, set(registry.index))
    # A row with a bad field is judged no further: one fault, one line.
    faulty = {problem[:2] for problem in problems}
    places = pd.MultiIndex.from_frame(text[["file", "row"]])
    return [*problems, *_find(_ROW_RULES, text[~places.isin(faulty)], KEY, typed=True)]


def _incoming(
    file: Path | None, columns: Sequence[str], key: Sequence[str], stored: pd.DataFrame, examine: _Examine
) -> tuple[pd.DataFrame, int]:
    """Return the rows of ``file`` that are not stored yet, and the number that are."""
    if file is None:
        return stored.loc[[], list(columns)], 0
    extra = ("category", "rung") if columns is COLUMNS else ()
    records, problems = _read(file, str(file), columns, extra)
    _refuse(problems)
    frame = _frame(records, [*columns, *(name for name in extra if records and name in records[0])])
    _refuse(examine(frame))
    mend = "a revision needs a later published_at" if columns is COLUMNS else "leave the row out"
    known: dict[Any, Any] = {tuple(row[c] for c in key): row for row in stored.to_dict("records")}
    olds = [known.get(tuple(row[c] for c in key), {}) for row in records]
    for row, old in zip(records, olds, strict=True):
        for name in columns if old else ():
            if row[name] == old[name] or (name in _NUMBERS and _number(row[name]) == _number(old[name])):
                continue
            text = f"'{row[name]}' is stored as '{old[name]}' in {old['file']}, row {old['row']}; {mend}"
            problems.append(_Problem(row["file"], row["row"], f", column '{name}': {text}"))
            break
    _refuse(problems)
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
