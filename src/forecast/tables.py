"""Text of the archive's files, and everything that can be wrong with it.

A table is read as text and judged as text, so that a fault is told in the words of the file.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import math
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pandera.pandas as pa

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
NUMBERS = ["value", "lower", "upper", "interval_level", "n"]
_WORDS = {
    "kind": ("model", "human", "company", "industry", "average", "plan"),
    "disclosure": ("third_party_eval", "independent", "voluntary_company", "self_report"),
    "bound": ("", "lower", "upper"),
    "category": ("broad_capability", "rnd_ladder", "company_signs"),
    "rung": ("", "engineering", "experiments", "ideation", "strategy"),
    "tier": ("flagship", "small", "other"),
    "reasoning": ("yes", "no", "unknown"),
}


class Problem(NamedTuple):
    """Something wrong at a place."""

    file: str
    row: int
    """Line as an editor counts it, 0 for the file as a whole."""
    text: str
    """What follows the place, from its comma or colon on."""

    @property
    def line(self) -> str:
        """The place and what is wrong there."""
        return f"{self.file}{f', row {self.row}' if self.row else ''}{self.text}"


Records = tuple[list[dict[str, Any]], list[Problem]]


def refuse(problems: Collection[Problem]) -> None:
    """Raise `InputError` with the first problem, if there is one."""
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(min(problems).line + more)


def read_text(path: Path, shown: str, columns: Sequence[str], extra: Sequence[str] | None = None) -> Records:
    """Return the rows of a file as text; ``extra`` columns may be there, None asks for the exact header."""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        return [], [Problem(shown, 0, f": {error.strerror}; give the path of a CSV file")]
    if not data.strip():
        return [], [Problem(shown, 0, f": the file is empty; start it with the line {','.join(columns)}")]
    if b"\0" in data:
        row = data.count(b"\n", 0, data.index(b"\0")) + 1
        return [], [Problem(shown, row, ": a NUL byte; save the file as plain text in UTF-8")]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        return [], [Problem(shown, row, ": not UTF-8; save the file in that encoding")]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = []
    start = 1
    try:
        for fields in reader:
            if fields:
                lines.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        return [], [Problem(shown, start, f": {error}; close the quote, or double one inside a field")]
    (start, header), *lines = lines
    if fault := _header_fault(header, columns, extra):
        return [], [Problem(shown, start, fault)]
    records, problems = [], []
    for row, fields in lines:
        if len(fields) == len(header):
            records.append(dict(zip(header, fields, strict=True)) | {"file": shown, "row": row})
            continue
        mend = "complete it" if len(fields) < len(header) else "quote the field that holds a comma"
        text = f": the line has {len(fields)} fields, the header {len(header)}; {mend}"
        problems.append(Problem(shown, row, text))
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


def frame_of(records: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as text, with `PROVENANCE`."""
    return pd.DataFrame(records, columns=[*columns, *PROVENANCE], dtype="str").astype({"row": "int64"})


def number(text: str) -> float:
    """Return the finite number that ``text`` writes, else NaN."""
    written = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text)
    number = float(text) if written else math.nan
    return number if math.isfinite(number) else math.nan


def is_day(text: str) -> bool:
    """Whether a text is a day of the calendar, written YYYY-MM-DD."""
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def _range(text: str) -> tuple[float, float] | None:
    """Return the ends of a range such as ``[0, inf]``, or None if it is no range."""
    if not (match := re.fullmatch(r"\[([^, ]+), ?([^, ]+)\]", text)):
        return None
    low, high = (float(end) if end in ("-inf", "inf") else number(end) for end in match.groups())
    return (low, high) if low < high else None


def typed(text: pd.DataFrame) -> pd.DataFrame:
    """Dates as timestamps and numbers as floats; NaT and NaN where a text is neither."""
    typed = text.copy()
    for name in typed.columns.intersection(_DATES):
        typed[name] = pd.to_datetime(text[name], format="%Y-%m-%d", errors="coerce").astype("datetime64[us]")
    for name in typed.columns.intersection(NUMBERS):
        typed[name] = np.array([number(field) for field in text[name]], dtype=np.float64)
    return typed


def with_ends(indicators: pd.DataFrame) -> pd.DataFrame:
    """Add the ends of ``range``, ``low`` and ``high``; infinite where it is no range."""
    ends = [_range(text) or (-math.inf, math.inf) for text in indicators["range"]]
    return indicators.assign(low=[low for low, _ in ends], high=[high for _, high in ends])


_Ids = Collection[str]
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


_DAY = (is_day, "is not a day of the calendar; write it as YYYY-MM-DD")
_NUMBER = (lambda text: math.isfinite(number(text)), "is not a finite number; write digits with a point")
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
    rules: pa.DataFrameSchema, text: pd.DataFrame, key: Sequence[str], ids: _Ids = (), *, values: bool = False
) -> list[Problem]:
    """Return what breaks ``rules``, told in the words of the file."""
    first_row = text.groupby(list(key))["row"].transform("first")
    text = text.assign(known=text["indicator_id"].isin(ids), first_row=first_row)
    if text.empty:
        return []
    try:
        rules.validate(typed(text) if values else text, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases.drop_duplicates(["check", "index"])
    else:
        return []
    words: dict[str, _Ids] = {**_WORDS, "indicator_id": ids}
    problems = []
    for check, label in zip(cases["check"], cases["index"], strict=True):
        row = text.loc[label]
        column, says = check.split("|", 1)
        field = row[column] if math.isfinite(number(row[column])) else f"'{row[column]}'"
        hint = (
            "" if row[column] in words.get(column, ()) else did_you_mean(row[column], words.get(column, ()))
        )
        line = f", column '{column}': {field} {says.format_map(row)}{hint}"
        problems.append(Problem(row["file"], row["row"], line))
    return problems


def indicator_problems(frame: pd.DataFrame) -> list[Problem]:
    """What is wrong with rows of ``indicators.csv``."""
    return _find(_INDICATOR_RULES, frame, KEY[:1])


def model_problems(frame: pd.DataFrame, indicators: pd.DataFrame) -> list[Problem]:
    """What is wrong with rows of ``models.csv``, given those of ``indicators.csv``."""
    return _find(_MODEL_RULES, frame, KEY[:2], set(indicators["indicator_id"]))


def observation_problems(
    frame: pd.DataFrame, indicators: pd.DataFrame, models: pd.DataFrame | None
) -> list[Problem]:
    """What is wrong with observations; without `models` no entity is called unknown."""
    registry = with_ends(indicators).set_index("indicator_id")
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
    return [*problems, *_find(_ROW_RULES, text[~places.isin(faulty)], KEY, values=True)]
