"""The README says what is true: its commands run, its examples load, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from forecast import dynamics, indicators
from forecast.cli import app
from forecast.disclosure import load_plan
from forecast.prediction import load_milestones
from forecast.worldviews import known_parameters, load_worldview, load_worldviews

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = ("list", "data check", "data snapshot", "priors")
"""Beginnings of commands that change nothing and take seconds."""


def blocks(*languages: str, text: str = TEXT) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [body for language, body in fences if language in languages]


def lines(text: str = TEXT) -> list[str]:
    found = "\n".join(blocks("sh", "console", "bash", text=text)).splitlines()
    return [line.removeprefix("$ ") for line in found if line.strip()]


FORECAST = [line.removeprefix("uv run forecast ") for line in lines() if line.startswith("uv run forecast")]


def walk(group, path=()):
    """Every command under a group: its words, and itself."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(walk(typer.main.get_command(app)))


def test_the_quick_start_is_two_commands():
    section = TEXT.split("\n## Quick start\n")[1].split("\n## ")[0]
    assert lines(section) == ["uv run forecast update", "uv run pytest"]


def test_every_fenced_command_is_of_this_project():
    assert {" ".join(line.split()[:3]) for line in lines()} <= {"uv run forecast", "uv run pytest"}


@pytest.mark.parametrize("line", FORECAST)
def test_fenced_commands_parse(line):
    words = shlex.split(line)
    path = next(p for p in COMMANDS if tuple(words[: len(p)]) == p)
    COMMANDS[path].make_context(" ".join(path), words[len(path) :])


@pytest.mark.parametrize("line", [line for line in FORECAST if line.startswith(QUICK)])
def test_quick_commands_run(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0 and done.stdout.strip() and not done.stderr


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_in_the_reference(path):
    row = re.search(rf"^\| `forecast {' '.join(path)}` \|(.*)\|$", TEXT, flags=re.M)
    assert row, f"add `forecast {' '.join(path)}`"
    real = {o for p in COMMANDS[path].params for o in p.opts if o.startswith("--") and o != "--help"}
    assert set(re.findall(r"--[a-z-]+", row[1])) == real


def test_the_reference_has_no_other_command():
    known = {" ".join(p) for p in COMMANDS}
    assert set(re.findall(r"^\| `forecast ([^`]*)` \|", TEXT, flags=re.M)) == known


def test_links_resolve():
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXT)
    assert links
    for link in links:
        assert "://" in link or (ROOT / link).exists(), link


def test_the_place_of_the_output_is_marked_once():
    assert re.search(r"<!-- output -->\n```text\n.*?```\n<!-- /output -->", TEXT, flags=re.S)
    assert TEXT.count("<!-- output -->") == TEXT.count("<!-- /output -->") == 1


def test_the_worldview_example_is_sound(tmp_path):
    example = next(b for b in blocks("toml") if "[odds]" in b)
    path = tmp_path / "cautious.toml"
    path.write_text(example, encoding="utf-8")
    assert {line.prior.family for line in load_worldview(path).lines.values()} == {"lognormal", "logitnormal"}


def test_the_milestone_example_is_sound(tmp_path):
    example = next(b for b in blocks("toml") if "threshold" in b)
    path = tmp_path / "milestones.toml"
    path.write_text(example, encoding="utf-8")
    assert len(load_milestones(path)) == 1


def test_the_disclosure_example_is_sound(tmp_path, archive):
    example = next(b for b in blocks("toml") if "[tiers.E]" in b)
    path = tmp_path / "disclosure.toml"
    shipped = (ROOT / "data" / "disclosure.toml").read_text(encoding="utf-8")
    path.write_text(f"{shipped}\n{example}", encoding="utf-8")
    tiers = load_plan(path, archive, "2026-06-30", "2028-01-01").tiers
    assert set(tiers["D"].series) ^ set(tiers["E"].series) == {"audited_pace", "audited_pace_twice_a_year"}


@pytest.mark.parametrize(
    ("room", "registry", "marker"),
    [(dynamics, dynamics.DYNAMICS, "@dynamic"), (indicators, indicators.INDICATORS, "@indicator")],
)
def test_the_python_examples_register(room, registry, marker):
    example = next(b for b in blocks("python") if b.startswith(marker))
    before = dict(registry)
    try:
        # Annotations as text, as in the room itself.
        names = vars(room) | {"__name__": room.__name__}
        exec(compile("from __future__ import annotations\n" + example, "README.md", "exec"), names)
        (added,) = set(registry) - set(before)
        assert registry[added].parameters if room is dynamics else registry[added].own
    finally:
        registry.clear()
        registry.update(before)


def test_the_shares_of_judgement_are_counted_right():
    known = known_parameters().values()
    real = [p for p in known if p.role != "calibration"]
    judged = [sum("judgement" in p.source.lower() for p in some) for some in (known, real)]
    flat = " ".join(TEXT.split())
    assert f"Of {len(known)} default priors {judged[0]} rest on judgement" in flat
    assert f"{judged[1]} of {len(real)}." in flat
    for worldview in load_worldviews(ROOT / "priors").values():
        if worldview.lines:
            count = sum("judgement" in line.source.lower() for line in worldview.lines.values())
            assert re.search(rf"{count} of the {len(worldview.lines)} .*?`{worldview.name}`", flat)


def test_ci_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
