"""Malformed data files: one plain line each that names file, row, column and mend, and nothing changes."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from forecast.schema import InputError
from forecast.tables import COLUMNS, INDICATOR_COLUMNS, MODEL_COLUMNS
from forecast.vintages import check, import_rows, load_archive

GSO = 'gso_opt1,GSO,rnd_ladder,engineering,percent,"[0, 100]",tasks solved,up = more capable,,cite\n'
HOURS = 'hours,Hours,broad_capability,,hours,"[0, inf]",hours,up = more capable,,cite\n'
INDICATORS = ",".join(INDICATOR_COLUMNS) + "\n" + GSO + HOURS
MODELS = ",".join(MODEL_COLUMNS) + "\n" + "gso_opt1,GPT-5,GPT-5,OpenAI,2025-08-07,flagship,yes,,\n"
HEADER = ",".join(COLUMNS) + "\n"
ROW_2 = (
    "gso_opt1,GPT-5,2025-08-07,2025-08-08,6.9,percent,4,9,0.95,102,,model,independent,GSO,https://a.org,\n"
)
ROW_3 = "gso_opt1,Experts,2025-08-09,2025-08-10,7,percent,,,,,,human,independent,GSO board,https://b.org,x\n"
ROW_4 = (
    "gso_opt1,GPT-5,2025-08-07,2025-08-11,7.5,percent,5,9,0.95,102,,model,independent,GSO,https://a.org,\n"
)
GOOD = HEADER + ROW_2 + ROW_3 + ROW_4


def put(column: str, field: str) -> Callable[[], bytes]:
    """Return a maker of the good file with one field of row 3 changed."""

    def content() -> bytes:
        rows = list(csv.reader(io.StringIO(GOOD)))
        rows[2][COLUMNS.index(column)] = field
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue().encode()

    return content


def swap(old: str, new: str) -> Callable[[], bytes]:
    return lambda: GOOD.replace(old, new, 1).encode()


BAD_FILES = [
    # name, content, place of the fault, mend
    ("date format", put("observed_at", "09/08/2025"), "row 3, column 'observed_at'", "YYYY-MM-DD"),
    ("impossible date", put("observed_at", "2025-02-30"), "row 3, column 'observed_at'", "calendar"),
    (
        "order of dates",
        put("published_at", "2025-08-08"),
        "row 3, column 'published_at'",
        "observed_at 2025-08-09",
    ),
    ("unit", put("unit", "fraction"), "row 3, column 'unit'", "is not 'percent'"),
    ("above range", put("value", "107"), "row 3, column 'value'", "[0, 100]"),
    ("NaN", put("value", "NaN"), "row 3, column 'value'", "write digits"),
    ("inf", put("value", "inf"), "row 3, column 'value'", "write digits"),
    ("one bound", put("upper", "9"), "row 3, column 'lower'", "give both or neither"),
    ("lower bound", swap("6.9,percent,4", "6.9,percent,7"), "row 2, column 'lower'", "lower <= value"),
    ("upper bound", swap("6.9,percent,4,9", "6.9,percent,4,5"), "row 2, column 'upper'", "upper >= value"),
    ("level in percent", swap("4,9,0.95", "4,9,95"), "row 2, column 'interval_level'", "0.95 for 95 %"),
    ("level zero", swap("4,9,0.95", "4,9,0"), "row 2, column 'interval_level'", "0.95 for 95 %"),
    ("level alone", put("interval_level", "0.9"), "row 3, column 'interval_level'", "has no bounds"),
    ("negative n", put("n", "-5"), "row 3, column 'n'", "positive whole number"),
    ("kind", put("kind", "humans"), "row 3, column 'kind'", "did you mean 'human'?"),
    (
        "disclosure",
        put("disclosure", "self-report"),
        "row 3, column 'disclosure'",
        "did you mean 'self_report'?",
    ),
    ("no entity", put("entity", ""), "row 3, column 'entity'", "give the text"),
    ("no source title", put("source_title", ""), "row 3, column 'source_title'", "give the text"),
    (
        "unknown indicator",
        put("indicator_id", "gso_optl"),
        "row 3, column 'indicator_id'",
        "mean 'gso_opt1'?",
    ),
    ("unknown model", put("kind", "model"), "row 3, column 'entity'", "models.csv"),
    ("duplicate", lambda: (GOOD + ROW_3).encode(), "row 5, column 'published_at'", "row 3"),
    ("duplicate, other value", swap("2025-08-11", "2025-08-08"), "row 4, column 'published_at'", "row 2"),
    (
        "unknown column",
        swap(",disclosure,", ",disclosures,"),
        "row 1, column 'disclosures'",
        "mean 'disclosure'?",
    ),
    ("column too many", swap("note\n", "note,colour\n"), "row 1, column 'colour'", "remove it"),
    ("column twice", swap(",note", ",note,note"), "row 1, column 'note'", "remove one"),
    ("missing column", swap(",bound,", ","), "row 1, column 'bound'", "add it to the header"),
    ("truncated line", lambda: GOOD[:-40].encode(), "row 4", "complete it"),
    ("extra field", swap("GSO board", "GSO, board"), "row 3", "quote the field"),
    ("unclosed quote", swap("GSO board", '"GSO board'), "row 3", "close the quote"),
    ("quote inside", swap("GSO board", '"GSO" board'), "row 3", "close the quote"),
    ("empty file", lambda: b"", "", "indicator_id,entity"),
    ("blank file", lambda: b"\xef\xbb\xbf\n\n", "", "indicator_id,entity"),
    ("no header", lambda: (ROW_2 + ROW_3).encode(), "row 1, column 'gso_opt1'", "remove it"),
    ("latin-1", lambda: GOOD.replace("GSO board", "Grün").encode("latin-1"), "row 3", "not UTF-8"),
    ("utf-16", lambda: GOOD.encode("utf-16"), "row 1", "UTF-8"),
    ("NUL byte", swap("GSO board", "GSO\0board"), "row 3", "NUL byte"),
]


BAD_FIELDS = [
    ("observed_at", "2025-8-9", "YYYY-MM-DD"),
    ("published_at", "20250810", "YYYY-MM-DD"),
    ("published_at", "", "YYYY-MM-DD"),
    ("published_at", "2025-08-10T12:00", "YYYY-MM-DD"),
    ("value", "-0.1", "[0, 100]"),
    ("value", "1e999", "write digits"),
    ("value", "", "write digits"),
    ("value", "6,9", "with a point"),
    ("value", "1_0", "write digits"),
    ("value", "٧", "write digits"),
    ("lower", "n/a", "leave it empty"),
    ("n", "0", "positive whole number"),
    ("n", "10.5", "positive whole number"),
    ("bound", "above", "(empty), lower, upper"),
    ("entity", "Experts ", "spaces around it"),
    ("source_url", " ", "give the text"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    (directory / "observations").mkdir(parents=True)
    (directory / "indicators.csv").write_text(INDICATORS, encoding="utf-8")
    (directory / "models.csv").write_text(MODELS, encoding="utf-8")
    (directory / "observations" / "gso_opt1.csv").write_text(HEADER, encoding="utf-8")
    return directory


def tree(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refusal(data: Path, *files: Path) -> str:
    """Return the message with which an import is refused, after checking that nothing changed."""
    before = tree(data)
    with pytest.raises(InputError) as refused:
        import_rows(data, *files)
    assert tree(data) == before
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "place", "mend"), [c[1:] for c in BAD_FILES], ids=[c[0] for c in BAD_FILES]
)
def test_a_bad_file_gets_one_line(data: Path, tmp_path: Path, content, place: str, mend: str) -> None:
    new = tmp_path / "new.csv"
    new.write_bytes(content())
    message = refusal(data, new)
    (data / "observations" / "gso_opt1.csv").write_bytes(content())
    problems = check(data)
    assert len(problems) == 1
    line = problems[0]
    file = "data/observations/gso_opt1.csv"
    assert line.startswith(f"{file}, {place}" if place else f"{file}: ")
    assert mend in line
    assert "\n" not in line and "Error" not in line
    if "indicator_id'" not in place:
        assert message == line.replace(file, str(new))
    else:
        assert message.startswith(f"{new}, {place}") and mend in message


@pytest.mark.parametrize(
    "content",
    [
        HEADER.encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.rstrip("\n").encode(),
        (GOOD + "\n").encode(),
        GOOD.replace("GSO board", '"GSO, the ""board"",\nspring"').encode(),
        GOOD.replace(",4,9,0.95,", ",4,9,,").encode(),
        GOOD.replace(",6.9,percent,4,9,", ",6.9,percent,6.9,6.9,").encode(),
    ],
    ids=["header only", "BOM", "CRLF", "no last newline", "blank line", "quotes", "no level", "zero width"],
)
def test_a_sound_file_is_taken(data: Path, tmp_path: Path, content: bytes) -> None:
    path = data / "observations" / "gso_opt1.csv"
    path.write_bytes(content)
    stored = load_archive(data).observations
    path.write_text(HEADER, encoding="utf-8")
    new = tmp_path / "new.csv"
    new.write_bytes(content)
    assert import_rows(data, new).added == len(stored)


def test_every_problem_has_its_line_in_order(data: Path) -> None:
    rows = (
        ROW_2.replace("model,", "modle,")
        + ROW_3.replace(",7,", ",700,").replace("human", "humn")
        + ROW_4[:50]
    )
    (data / "observations" / "gso_opt1.csv").write_text(HEADER + rows, encoding="utf-8")
    (data / "observations" / "hours.csv").write_text("", encoding="utf-8")
    places = [line.split(":")[0] for line in check(data)]
    assert places == [
        "data/observations/gso_opt1.csv, row 2, column 'kind'",
        "data/observations/gso_opt1.csv, row 3, column 'kind'",
        "data/observations/gso_opt1.csv, row 4",
        "data/observations/hours.csv",
    ]
    with pytest.raises(InputError, match=r"row 2, column 'kind'.* \(and 3 more\)$"):
        load_archive(data)


def test_each_bad_field_gets_one_line(data: Path) -> None:
    rows = [dict(zip(COLUMNS, ROW_3.strip().split(","), strict=True)) for _ in BAD_FIELDS]
    for number, (row, (column, field, _)) in enumerate(zip(rows, BAD_FIELDS, strict=True)):
        row |= {"entity": f"Expert {number}"} | {column: field}
    with (data / "observations" / "gso_opt1.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = check(data)
    assert len(lines) == len(BAD_FIELDS)
    for number, (line, (column, _, mend)) in enumerate(zip(lines, BAD_FIELDS, strict=True), 2):
        assert line.startswith(f"data/observations/gso_opt1.csv, row {number}, column '{column}': ")
        assert mend in line


def test_lines_are_counted_as_an_editor_does(data: Path) -> None:
    tall = GOOD.replace(",https://a.org,\n", ',https://a.org,"two\nlines"\n', 1).replace(",7,", ",seven,")
    (data / "observations" / "gso_opt1.csv").write_text(tall, encoding="utf-8")
    assert check(data)[0].startswith("data/observations/gso_opt1.csv, row 4, column 'value': 'seven'")


def test_one_line_in_full(data: Path) -> None:
    (data / "observations" / "gso_opt1.csv").write_bytes(swap("6.9,percent,4,9", "7,percent,4,5")())
    assert check(data) == [
        "data/observations/gso_opt1.csv, row 2, column 'upper': 5 is below value 7; "
        "give upper >= value or leave both bounds empty"
    ]


STORED_ONLY = [
    (
        "stray row",
        "gso_opt1",
        ROW_3.replace("gso_opt1", "hours"),
        "row 2, column 'indicator_id'",
        "move the row",
    ),
    ("unknown file", "gso_optl", ROW_3, "", "did you mean 'gso_opt1'?"),
]


@pytest.mark.parametrize(
    ("name", "row", "place", "mend"), [c[1:] for c in STORED_ONLY], ids=["stray row", "file"]
)
def test_a_row_stands_in_the_file_of_its_indicator(data: Path, name, row, place, mend) -> None:
    (data / "observations" / f"{name}.csv").write_text(HEADER + row, encoding="utf-8")
    (line,) = check(data)
    assert line.startswith(f"data/observations/{name}.csv" + (f", {place}" if place else ": "))
    assert mend in line


def test_stored_columns_keep_their_order(data: Path) -> None:
    header = ",".join(reversed(COLUMNS)) + "\n"
    (data / "observations" / "gso_opt1.csv").write_text(header, encoding="utf-8")
    assert "row 1: the columns stand in another order" in check(data)[0]


REGISTRIES = [
    ("indicators", GSO, GSO + GSO, "row 3, column 'indicator_id'", "remove one"),
    ("indicators", "gso_opt1,", "../gso,", "row 2, column 'indicator_id'", "cannot name a file"),
    ("indicators", "rnd_ladder", "rnd_lader", "row 2, column 'category'", "did you mean 'rnd_ladder'?"),
    ("indicators", "engineering", "enginering", "row 2, column 'rung'", "did you mean 'engineering'?"),
    ("indicators", ",engineering,", ",,", "row 2, column 'rung'", "say on which rung"),
    ("indicators", "[0, 100]", "0-100", "row 2, column 'range'", "[0, inf]"),
    ("indicators", "[0, 100]", "[100, 0]", "row 2, column 'range'", "[0, inf]"),
    ("indicators", "[0, 100]", "[0, nan]", "row 2, column 'range'", "[0, inf]"),
    ("indicators", ",range,", ",rang,", "row 1, column 'rang'", "did you mean 'range'?"),
    ("indicators", ",Hours,", ",,", "row 3, column 'title'", "give the text"),
    ("models", "flagship", "flag ship", "row 2, column 'tier'", "did you mean 'flagship'?"),
    ("models", ",yes,", ",true,", "row 2, column 'reasoning'", "yes, no, unknown"),
    ("models", "2025-08-07", "August 2025", "row 2, column 'released'", "leave it empty"),
    ("models", "gso_opt1,", "gso_opt2,", "row 2, column 'indicator_id'", "did you mean 'gso_opt1'?"),
    ("models", "OpenAI", "", "row 2, column 'developer'", "give the text"),
    ("models", ",tier,", ",", "row 1, column 'tier'", "add it to the header"),
    ("models", ",yes,,", ",yes,", "row 2", "complete it"),
]


@pytest.mark.parametrize(("table", "old", "new", "place", "mend"), REGISTRIES)
def test_a_bad_registry_gets_one_line(data: Path, table, old, new, place, mend) -> None:
    good = {"indicators": INDICATORS, "models": MODELS}[table]
    assert old in good
    (data / f"{table}.csv").write_text(good.replace(old, new, 1), encoding="utf-8")
    (line,) = check(data)
    assert line.startswith(f"data/{table}.csv, {place}")
    assert mend in line


@pytest.mark.parametrize(("table", "old"), [("indicators", "rnd_ladder"), ("models", "flagship")])
def test_a_bad_registry_is_not_imported(data: Path, tmp_path: Path, table: str, old: str) -> None:
    content = {"indicators": INDICATORS, "models": MODELS}
    paths = {name: tmp_path / f"{name}.csv" for name in content}
    for name, path in paths.items():
        path.write_text(content[name].replace(old, "x" + old), encoding="utf-8")
    (tmp_path / "new.csv").write_text(GOOD, encoding="utf-8")
    message = refusal(data, tmp_path / "new.csv", paths["indicators"], paths["models"])
    assert message.startswith(f"{paths[table]}, row 2, column '") and f"did you mean '{old}'?" in message


def test_a_model_stands_once_in_models(data: Path) -> None:
    with (data / "models.csv").open("a", encoding="utf-8") as handle:
        handle.write(MODELS.split("\n")[1] + "\n")
    assert check(data) == [
        "data/models.csv, row 3, column 'entity': 'GPT-5' of gso_opt1 stands in row 2 too; remove one"
    ]


@pytest.mark.parametrize("name", ["indicators.csv", "models.csv"])
def test_a_missing_registry_is_named(data: Path, name: str) -> None:
    (data / name).unlink()
    (line,) = check(data)
    assert line.startswith(f"data/{name}: ") and "no such file" in line.lower()


def test_a_missing_archive_or_file_is_named(data: Path, tmp_path: Path) -> None:
    (line,) = check(tmp_path / "elsewhere")
    assert line.startswith(f"{tmp_path / 'elsewhere'}: ") and "name the folder" in line
    assert refusal(data, tmp_path / "absent.csv").startswith(f"{tmp_path / 'absent.csv'}: No such file")


def test_a_stored_row_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    (data / "observations" / "gso_opt1.csv").write_text(GOOD, encoding="utf-8")
    new = tmp_path / "new.csv"
    new.write_text(HEADER + ROW_2 + ROW_3.replace(",7,", ",8,"), encoding="utf-8")
    assert refusal(data, new) == (
        f"{new}, row 3, column 'value': '8' is stored as '7' in data/observations/gso_opt1.csv, row 3; "
        "a revision needs a later published_at"
    )
    models = tmp_path / "models.csv"
    models.write_text(MODELS.replace("flagship", "small"), encoding="utf-8")
    new.write_text(GOOD, encoding="utf-8")
    before = tree(data)
    with pytest.raises(InputError, match=r"'small' is stored as 'flagship' in data/models\.csv, row 2"):
        import_rows(data, new, models=models)
    assert tree(data) == before


@pytest.mark.parametrize(("column", "word"), [("category", "company_signs"), ("rung", "experiments")])
def test_category_and_rung_agree_with_the_registry(
    data: Path, tmp_path: Path, column: str, word: str
) -> None:
    new = tmp_path / "new.csv"
    lines = [HEADER.strip() + f",{column}", ROW_3.strip() + f",{word}", ""]
    new.write_text("\n".join(lines), encoding="utf-8")
    message = refusal(data, new)
    assert (
        message.startswith(f"{new}, row 2, column '{column}': '{word}' is not '")
        and "indicators.csv" in message
    )


def test_an_import_into_a_broken_archive_is_refused(data: Path, tmp_path: Path) -> None:
    (data / "models.csv").write_text(MODELS.replace("flagship", "flag"), encoding="utf-8")
    new = tmp_path / "new.csv"
    new.write_text(GOOD, encoding="utf-8")
    assert refusal(data, new).startswith("data/models.csv, row 2, column 'tier'")
