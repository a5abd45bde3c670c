"""The house: rooms import only downward, in no circle, and stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {p.stem: p for p in sorted((ROOT / "src" / "forecast").glob("*.py")) if p.stem != "__init__"}

FLOORS = (
    (
        "schema",
        "kernels",
        "compilation",
        "particles",
        "bridge",
        "sweeps",
        "inference",
        "crowd",
        "evidence",
        "absorption",
    ),
    ("priors", "tables", "vintages", "runs", "laws"),
    (
        "paths",
        "dynamics",
        "deviation",
        "observation",
        "indicators",
        "selection",
        "prediction",
        "scoring",
        "baselines",
    ),
    ("model", "free_values", "readings", "reports", "figures", "worldviews"),
    ("export", "submission", "hub", "comparison"),
    ("batch", "interventions"),
    ("history", "backtest", "scorecard", "moves"),
    ("accounts", "camps", "frozen", "scenarios", "narrative", "explanations", "absorption_reports"),
    ("calibration", "disclosure", "worlds", "beliefs", "foresight", "foresight_reports"),
    (
        "path_figures",
        "indicator_figures",
        "absorption_figures",
        "backtest_figures",
        "calibration_figures",
        "views",
    ),
    ("page_records",),
    ("page",),
    ("jobs", "journal", "workers", "publication", "scheduling"),
    ("console",),
    (
        "input_commands",
        "run_commands",
        "record_commands",
        "job_commands",
        "absorption_commands",
        "foresight_commands",
    ),
    ("page_commands",),
    ("cli",),
)
"""Rooms from the ground up; a room may import what stands before it, on its floor or below."""
ORDER = [room for floor in FLOORS for room in floor]

LINES = 500
TESTED_WITH = {
    "bridge": "inference",
    "sweeps": "inference",
    "kernels": "compilation",
    "paths": "dynamics",
    "free_values": "model",
    "beliefs": "foresight",
    "console": "cli",
    "input_commands": "cli",
    "job_commands": "scheduling",
    "run_commands": "cli",
    "record_commands": "cli",
    "absorption_commands": "cli",
    "absorption_reports": "cli",
    "foresight_commands": "worlds",
    "foresight_reports": "worlds",
    "page_commands": "cli",
    "absorption_figures": "page",
    "backtest_figures": "page",
    "indicator_figures": "page",
    "path_figures": "page",
}
"""Rooms tested through another that uses them."""


def imported(path: Path) -> set[str]:
    """Rooms that a file imports anywhere, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("forecast.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}, line {node.lineno}: import by full name"
            if node.module == "forecast":
                found |= {a.name for a in node.names}
            elif (node.module or "").startswith("forecast."):
                found.add(str(node.module).split(".")[1])
    return found


def test_every_room_has_its_place():
    assert sorted(ORDER) == sorted(SOURCES), "give the new room a floor"
    assert not [p for p in (ROOT / "src" / "forecast").iterdir() if p.is_dir() and p.name != "__pycache__"]


@pytest.mark.parametrize("room", SOURCES)
def test_rooms_import_only_downward(room):
    # Imports that go down a line cannot go round in a circle.
    above = imported(SOURCES[room]) - set(ORDER[: ORDER.index(room)])
    assert not above, f"{room} imports {sorted(above)}"


def test_imports_are_found_in_functions_too(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "import forecast.runs\nimport os\n\ndef f():\n    from forecast import batch, cli\n"
        "    from forecast.model import build\n"
    )
    assert imported(file) == {"runs", "batch", "cli", "model"}


ENGINE = {"bridge", "compilation", "crowd", "evidence", "inference", "kernels", "particles", "sweeps"}


@pytest.mark.parametrize("room", sorted(ENGINE))
def test_the_engine_knows_nothing_of_dynamics(room):
    assert imported(SOURCES[room]) <= ENGINE | {"schema"}


def test_no_room_is_a_lumber_room():
    for name in SOURCES:
        assert not {"util", "utils", "base", "common", "helper", "helpers", "manager", "misc"} & {
            *name.split("_")
        }


@pytest.mark.parametrize("room", SOURCES)
def test_rooms_are_short(room):
    lines = len(SOURCES[room].read_text(encoding="utf-8").splitlines())
    assert lines <= LINES, f"{lines} lines: split it"


@pytest.mark.parametrize("room", SOURCES)
def test_every_room_is_tested(room):
    """Each room has its own test file, or is imported by one."""
    room = TESTED_WITH.get(room, room)
    own = ROOT / "tests" / f"test_{room}.py"
    assert own.exists() or any(room in imported(p) for p in (ROOT / "tests").glob("test_*.py"))
