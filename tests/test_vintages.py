import csv
import datetime
import hashlib
import json
import os
import random
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecast import vintages
from forecast.schema import InputError
from forecast.tables import COLUMNS, INDICATOR_COLUMNS, MODEL_COLUMNS, PROVENANCE
from forecast.vintages import (
    Archive,
    ImportResult,
    as_of,
    check,
    data_hash,
    decimal_year,
    import_rows,
    last_published,
    load_archive,
)

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def shipped() -> Archive:
    return load_archive(DATA)


def stored_rows() -> list[dict[str, str]]:
    rows = []
    for path in sorted((DATA / "observations").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as handle:
            rows += csv.DictReader(handle)
    return rows


def write(path: Path, columns, rows, order=None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, order or columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: row.get(column, "") for column in order or columns} for row in rows)
    return path


def observation(
    entity="a", observed="2025-01-01", published="2025-02-01", value="1", **other
) -> dict[str, str]:
    row = {"indicator_id": "hours", "entity": entity, "observed_at": observed, "published_at": published}
    source = {"source_title": "A report", "source_url": "https://example.org/a"}
    words = {"kind": "model", "disclosure": "independent", "unit": "hours"}
    return row | {"value": value} | words | source | other


INDICATOR = {
    "indicator_id": "hours",
    "title": "Hours of work",
    "category": "broad_capability",
    "unit": "hours",
    "range": "[0, inf]",
}
MODELS = [
    {
        "indicator_id": "hours",
        "entity": name,
        "developer": "X",
        "released": "2025-01-01",
        "tier": "other",
        "reasoning": "no",
    }
    for name in "abc"
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    (directory / "observations").mkdir(parents=True)
    write(directory / "indicators.csv", INDICATOR_COLUMNS, [INDICATOR])
    write(directory / "models.csv", MODEL_COLUMNS, MODELS)
    rows = [
        observation("a"),
        observation("a", published="2025-03-01", value="2"),
        observation("b", value="5"),
    ]
    write(directory / "observations" / "hours.csv", COLUMNS, rows)
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


# --- The shipped archive ---


def test_shipped_archive_is_sound() -> None:
    assert check(DATA) == []


def test_shipped_archive_keeps_every_row(shipped: Archive) -> None:
    assert (len(shipped.observations), len(shipped.indicators), len(shipped.models)) == (1296, 123, 910)
    rows = stored_rows()
    assert sum(Decimal(row["value"]) for row in rows) == Decimal("94021.416609")
    assert sum(int(row["n"]) for row in rows if row["n"]) == 184288
    content = json.dumps(sorted([row[column] for column in COLUMNS] for row in rows))
    assert hashlib.sha256(content.encode()).hexdigest() == (
        "d799641c79a94ffea8c2b5f1de9d42619ca50c6fd3110a57c2b7664a3417db6f"
    )


def test_shipped_archive_states_known_facts(shipped: Archive) -> None:
    rows = shipped.observations
    mythos = rows[(rows["indicator_id"] == "anthropic_aeci") & (rows["entity"] == "Claude Mythos 5")].iloc[0]
    assert mythos[["value", "lower", "upper", "interval_level", "n"]].tolist() == [
        161.29,
        157.32,
        165.39,
        0.95,
        67,
    ]
    announced = rows[
        (rows["indicator_id"] == "metr_th50_announced") & (rows["entity"] == "Claude 3.7 Sonnet")
    ]
    assert announced["value"].tolist() == [59.0, 55.0]
    assert rows["published_at"].min() == pd.Timestamp("2024-05-28")
    assert last_published(shipped) == pd.Timestamp("2026-06-30")
    assert shipped.indicators.loc["gso_opt1", ["low", "high"]].tolist() == [0, 100]


def test_shipped_files_are_sorted_and_plain() -> None:
    paths = list((DATA / "observations").glob("*.csv"))
    assert len(paths) == 115
    for path in [*paths, DATA / "indicators.csv", DATA / "models.csv"]:
        content = path.read_bytes()
        assert b"\r" not in content and content.endswith(b"\n")
        content.decode("utf-8")
    for path in paths:
        with path.open(newline="", encoding="utf-8") as handle:
            keys = [(r["published_at"], r["observed_at"], r["entity"]) for r in csv.DictReader(handle)]
        assert keys == sorted(keys)


def test_provenance_names_the_line_in_the_file(shipped: Archive) -> None:
    for row in shipped.observations.sample(20, random_state=1).itertuples():
        lines = (DATA.parent / row.file).read_text(encoding="utf-8").split("\n")
        assert lines[row.row - 1].startswith(row.indicator_id)
        assert str(row.published_at.date()) in lines[row.row - 1]


def test_shipped_archive_is_rebuilt_by_one_import(tmp_path: Path) -> None:
    rows = stored_rows()
    random.Random(1).shuffle(rows)
    directory = tmp_path / "data"
    (directory / "observations").mkdir(parents=True)
    write(directory / "indicators.csv", INDICATOR_COLUMNS, [])
    write(directory / "models.csv", MODEL_COLUMNS, [])
    with (DATA / "indicators.csv").open(newline="", encoding="utf-8") as handle:
        registry = {row["indicator_id"]: row for row in csv.DictReader(handle)}
    for row in rows:
        row |= {name: registry[row["indicator_id"]][name] for name in ("category", "rung")}
    order = ["rung", *reversed(COLUMNS), "category"]
    file = write(tmp_path / "raw.csv", COLUMNS, rows, order)
    done = import_rows(directory, file, DATA / "indicators.csv", DATA / "models.csv")
    assert done == ImportResult(added=1296, skipped=0, indicators_added=123, models_added=910)
    names = {name for name in tree(DATA) if name.startswith(("observations", "indicators", "models"))}
    assert tree(directory) == {name: content for name, content in tree(DATA).items() if name in names}


# --- as_of ---


def test_revision_replaces_the_earlier_value(small: Path) -> None:
    archive = load_archive(small)
    assert as_of(archive, "2025-02-28").set_index("entity")["value"].to_dict() == {"a": 1, "b": 5}
    assert as_of(archive, "2025-03-01").set_index("entity")["value"].to_dict() == {"a": 2, "b": 5}


def test_each_observed_day_is_an_observation_of_its_own(small: Path) -> None:
    write(
        small / "observations" / "hours.csv",
        COLUMNS,
        [observation(observed=f"2025-01-0{day}", published="2025-02-01") for day in range(1, 5)],
    )
    assert len(as_of(load_archive(small), "2025-02-01")) == 4


def test_as_of_takes_text_dates_and_timestamps(small: Path) -> None:
    archive = load_archive(small)
    frames = [
        as_of(archive, day) for day in ("2025-02-01", datetime.date(2025, 2, 1), pd.Timestamp("2025-02-01"))
    ]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_as_of_before_the_first_day_is_refused(small: Path) -> None:
    with pytest.raises(InputError, match="nothing was published by 2025-01-31; the first day is 2025-02-01"):
        as_of(load_archive(small), "2025-01-31")


@pytest.mark.parametrize("date", ["2025-02-30", "01/02/2025", "2025", "", pd.NaT])
def test_as_of_refuses_what_is_no_day(small: Path, date: object) -> None:
    with pytest.raises(InputError, match="write it as YYYY-MM-DD"):
        as_of(load_archive(small), date)


def test_as_of_after_the_last_day_says_so(small: Path) -> None:
    archive = load_archive(small)
    assert as_of(archive, "2025-03-01").attrs["note"] == ""
    assert as_of(archive, "2025-03-02").attrs["note"] == "Nothing newer than 2025-03-01 is in the archive."


def test_an_archive_without_rows_is_sound_but_has_no_past(small: Path) -> None:
    write(small / "observations" / "hours.csv", COLUMNS, [])
    assert check(small) == []
    with pytest.raises(InputError, match="no row yet"):
        as_of(load_archive(small), "2025-03-01")


def archive_of(rows: list[tuple[str, int, int, float]]) -> Archive:
    start = np.datetime64("2025-01-01", "us")
    entities, observed, lags, values = zip(*rows, strict=True)
    seen = start + np.array(observed, "timedelta64[D]")
    frame = pd.DataFrame(
        {
            "indicator_id": "hours",
            "entity": entities,
            "observed_at": seen,
            "published_at": seen + np.array(lags, "timedelta64[D]"),
            "value": values,
            "file": "data/observations/hours.csv",
            "row": range(2, len(rows) + 2),
        }
    )
    return Archive(frame, pd.DataFrame(), pd.DataFrame(), Path("data"))


ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 9), st.floats(0, 100)),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[:3],
)


@settings(max_examples=500, deadline=None)
@given(rows=ROWS, day=st.integers(0, 12))
def test_no_snapshot_holds_a_row_published_later(rows, day) -> None:
    archive = archive_of(rows)
    date = pd.Timestamp("2025-01-01") + pd.Timedelta(days=day)
    published = archive.observations["published_at"]
    if date < published.min():
        with pytest.raises(InputError):
            as_of(archive, date)
        return
    snapshot = as_of(archive, date)
    assert (snapshot["published_at"] <= date).all()
    latest: dict[tuple[str, int], tuple[int, float]] = {}
    for entity, observed, lag, value in rows:
        if observed + lag <= day and lag >= latest.get((entity, observed), (-1, 0.0))[0]:
            latest[entity, observed] = (lag, value)
    assert snapshot["value"].tolist() == [latest[key][1] for key in sorted(latest)]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, later=ROWS, day=st.integers(0, 12))
def test_later_rows_leave_earlier_snapshots_alone(rows, later, day) -> None:
    before = archive_of(rows)
    date = pd.Timestamp("2025-01-01") + pd.Timedelta(days=day)
    if date < before.observations["published_at"].min():
        return
    added = [(entity, observed, lag + 13, 1e9) for entity, observed, lag, _ in later]
    after = archive_of([*rows, *added])
    poisoned = after.observations.copy()
    poisoned.loc[poisoned["published_at"] > date, "value"] = 1e9
    for archive in (after, Archive(poisoned, after.indicators, after.models, after.directory)):
        snapshot = as_of(archive, date)
        snapshot.attrs = {}
        expected = as_of(before, date)
        expected.attrs = {}
        pd.testing.assert_frame_equal(snapshot, expected)
        assert data_hash(snapshot) == data_hash(expected)


def test_shipped_snapshots_only_grow_in_observations(shipped: Archive) -> None:
    known: set[tuple[object, ...]] = set()
    for date in pd.date_range("2024-06-01", "2026-07-01", freq="QS"):
        snapshot = as_of(shipped, date)
        assert (snapshot["published_at"] <= date).all()
        keys = set(zip(snapshot["indicator_id"], snapshot["entity"], snapshot["observed_at"], strict=True))
        assert len(keys) == len(snapshot) and known <= keys
        known = keys


# --- data_hash, decimal_year ---


def test_hash_ignores_order_and_provenance_but_not_content(shipped: Archive) -> None:
    frame = as_of(shipped, "2025-06-01")
    shuffled = frame.sample(frac=1, random_state=2)[list(reversed(frame.columns))]
    assert data_hash(shuffled) == data_hash(frame.drop(columns=list(PROVENANCE))) == data_hash(frame)
    changed = frame.copy()
    changed.loc[3, "value"] = np.nextafter(changed.loc[3, "value"], np.inf)
    assert data_hash(changed) != data_hash(frame)
    assert data_hash(frame.iloc[1:]) != data_hash(frame)


def test_hash_is_the_same_on_every_machine() -> None:
    frame = archive_of([("a", 0, 1, 0.1), ("b", 2, 3, 1e-3)]).observations
    assert data_hash(frame) == "cae3687c15621ae18831d6112b70628002202191b42778d2b1fe2d9faabe9b28"


def test_decimal_year_knows_leap_years() -> None:
    days = pd.to_datetime(["2024-01-01", "2024-07-02", "2023-07-02", "2023-12-31", None])
    expected = [2024, 2024 + 183 / 366, 2023 + 182 / 365, 2023 + 364 / 365, np.nan]
    np.testing.assert_allclose(decimal_year(days), expected, rtol=0, atol=1e-12)
    assert decimal_year([datetime.date(2026, 1, 1)]).tolist() == [2026.0]
    assert decimal_year([]).shape == (0,)


# --- import_rows ---


def test_import_appends_and_keeps_the_bytes_before(small: Path, tmp_path: Path) -> None:
    path = small / "observations" / "hours.csv"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    before = path.read_bytes()
    rows = [
        observation("c", published="2025-04-01"),
        observation("a"),
        observation("c", published="2025-01-15"),
    ]
    rows[0]["note"] = 'two\nlines, "quoted"'
    file = write(tmp_path / "new.csv", COLUMNS, rows)
    assert import_rows(small, file) == ImportResult(2, 1, 0, 0)
    assert path.read_bytes().startswith(before + b"\n")
    assert [path.name for path in small.rglob("*")].count("hours.csv") == 1
    assert not list(small.rglob("*.tmp"))
    archive = load_archive(small)
    assert archive.observations["published_at"].dt.strftime("%m-%d").tolist()[3:] == ["01-15", "04-01"]
    assert archive.observations["note"].tolist()[-1] == rows[0]["note"]
    assert archive.observations["row"].tolist() == [2, 3, 4, 5, 6]


def test_import_twice_changes_nothing(small: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "new.csv", COLUMNS, [observation("c", value="7.50")])
    assert import_rows(small, file).added == 1
    before = tree(small)
    assert import_rows(small, file) == ImportResult(0, 1, 0, 0)
    # A spreadsheet may write the same number another way.
    assert (
        import_rows(small, write(tmp_path / "new.csv", COLUMNS, [observation("c", value="7.5")])).skipped == 1
    )
    assert tree(small) == before


def test_import_takes_new_indicators_and_models(small: Path, tmp_path: Path) -> None:
    new = {**INDICATOR, "indicator_id": "days", "unit": "days", "category": "rnd_ladder", "rung": "ideation"}
    model = {**MODELS[0], "indicator_id": "days", "entity": "z"}
    row = observation("z", indicator_id="days", unit="days", category="rnd_ladder", rung="ideation")
    file = write(tmp_path / "new.csv", COLUMNS, [row], [*COLUMNS, "category", "rung"])
    indicators = write(tmp_path / "i.csv", INDICATOR_COLUMNS, [INDICATOR, new])
    models = write(tmp_path / "m.csv", MODEL_COLUMNS, [*MODELS, model])
    assert import_rows(small, file, indicators, models) == ImportResult(1, 0, 1, 1)
    assert check(small) == []
    assert as_of(load_archive(small), "2025-02-01")["indicator_id"].tolist() == ["days", "hours", "hours"]
    assert import_rows(small, file, indicators, models) == ImportResult(0, 1, 0, 0)


@pytest.mark.parametrize("crash", [0, 1, 3])
def test_a_crash_leaves_each_file_old_or_complete(
    small: Path, tmp_path: Path, monkeypatch, crash: int
) -> None:
    new = {**INDICATOR, "indicator_id": "days", "unit": "days"}
    models = write(tmp_path / "m.csv", MODEL_COLUMNS, [{**MODELS[0], "indicator_id": "days", "entity": "z"}])
    indicators = write(tmp_path / "i.csv", INDICATOR_COLUMNS, [new])
    rows = [observation("z", indicator_id="days", unit="days"), observation("c")]
    file = write(tmp_path / "new.csv", COLUMNS, rows)
    old = tree(small)
    done = tmp_path / "done" / "data"
    shutil.copytree(small, done)
    import_rows(done, file, indicators, models)

    replaced = []

    def replace(source: Path, target: Path) -> None:
        if len(replaced) == crash:
            raise OSError("power cut")
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(vintages.os, "replace", replace)
    with pytest.raises(OSError, match="power cut"):
        import_rows(small, file, indicators, models)
    assert len(replaced) == crash
    new_tree = tree(done)
    assert all(content in (old.get(name), new_tree[name]) for name, content in tree(small).items())
    assert check(small) == []
    monkeypatch.undo()
    import_rows(small, file, indicators, models)
    assert tree(small) == new_tree


def test_nothing_is_replaced_before_all_is_staged(small: Path, tmp_path: Path, monkeypatch) -> None:
    before = tree(small)

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(vintages.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        import_rows(small, write(tmp_path / "new.csv", COLUMNS, [observation("c")]))
    assert tree(small) == before


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_import_and_load_agree(small: Path, tmp_path: Path, rows) -> None:
    start = datetime.date(2025, 1, 1)
    write(small / "observations" / "hours.csv", COLUMNS, [])
    days = [(start + datetime.timedelta(o), start + datetime.timedelta(o + lag)) for _, o, lag, _ in rows]
    file = write(
        tmp_path / "new.csv",
        COLUMNS,
        [
            observation(entity, str(seen), str(out), repr(value))
            for (entity, _, _, value), (seen, out) in zip(rows, days, strict=True)
        ],
    )
    assert import_rows(small, file).added == len(rows)
    before = tree(small)
    assert import_rows(small, file).skipped == len(rows)
    assert tree(small) == before
    assert sorted(load_archive(small).observations["value"]) == sorted(row[3] for row in rows)
