"""The recipes of the README for schedules: each is read, and its command run, where that can be done here."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from cronsim import CronSim

import made
from forecast import journal, scheduling
from forecast.jobs import load_job

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = TEXT.split("\n### On a schedule\n")[1].split("\n## ")[0]


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, flags=re.M | re.S)[number]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with a small weekly job whose runs are stored, where `uv run` runs what is installed here."""
    place = tmp_path_factory.mktemp("project")
    (place / "jobs").mkdir()
    job = place / "jobs/weekly.toml"
    job.write_text('worldviews = ["neutral"]\n[dates]\non = [2025-03-31]\n', encoding="utf-8")
    todo = scheduling.read_plan(job, load_job(job), ROOT / "data", ROOT / "priors")
    with journal.lock(place / "runs"):
        scheduling.run(todo, place / "runs", contextlib.nullcontext([made.Inline()]), made.fit)
    tools = place / "bin"
    tools.mkdir()
    (tools / "uv").write_text(f'#!/bin/sh\nshift\nPATH="{Path(sys.executable).parent}:$PATH" exec "$@"\n')
    (tools / "uv").chmod(0o755)
    return place


@pytest.fixture
def shell(project, monkeypatch):
    monkeypatch.setenv("PATH", f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def run(command: str, cwd: Path = project) -> subprocess.CompletedProcess[str]:
        command = command.replace("/path/to/forecast", str(project))
        return subprocess.run(["/bin/sh", "-c", command], cwd=cwd, capture_output=True, text=True)

    return run


def next_times(expression: str) -> list[dt.datetime]:
    times = CronSim(expression, dt.datetime(2026, 7, 1))
    return [next(times) for _ in range(3)]


MONDAYS = [dt.datetime(2026, 7, day, 6) for day in (6, 13, 20)]


def test_the_cron_line_is_for_mondays_at_six_and_its_command_runs(shell, project, tmp_path):
    (line,) = block("text").splitlines()
    schedule, command = re.fullmatch(r"((?:\S+ ){4}\S+)\s+(.*)", line).groups()
    assert next_times(schedule) == MONDAYS
    assert "%" not in command  # which cron would take for a line break
    done = shell(command, tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads((project / "weekly.json").read_text())["skipped"] == 1


def test_a_busy_store_is_code_75_to_a_scheduler(shell, project):
    with journal.lock(project / "runs"):
        assert shell(block("text").split("&&")[1]).returncode == 75


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_units_are_sound(tmp_path):
    for number, ending in enumerate(("service", "timer")):
        unit = block("ini", number).replace("/path/to/forecast", str(ROOT))
        (tmp_path / f"forecast.{ending}").write_text(unit, encoding="utf-8")
    words = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True)
    # What it does not understand is told, and no error.
    assert done.returncode == 0 and done.stdout + done.stderr == ""
    when = re.search(r"OnCalendar=(.*)", block("ini", 1))[1]
    words = ["systemd-analyze", "calendar", "--base-time=2026-07-01", "--iterations=2", when]
    told = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"TZ": "UTC"}).stdout
    assert "2026-07-06 06:00:00" in told and "2026-07-13 06:00:00" in told


def test_the_command_of_the_service_runs(shell):
    command = re.search(r"ExecStart=(.*)", block("ini"))[1]
    assert shell(command).returncode == 0
    assert "SuccessExitStatus=75" in block("ini")


def test_the_workflow_is_for_mondays_at_six_and_its_command_runs(shell, project):
    flow = yaml.safe_load(block("yaml"))
    # YAML 1.1 takes the key `on` for a truth value.
    assert next_times(flow[True]["schedule"][0]["cron"]) == MONDAYS
    steps = flow["jobs"]["weekly"]["steps"]
    (command,) = [s["run"] for s in steps if "run" in s]
    (project / "weekly.json").unlink(missing_ok=True)
    assert shell(command).returncode == 0 and (project / "weekly.json").stat().st_size
    assert [s["with"]["path"] for s in steps if "cache" in s.get("uses", "")] == ["runs"]


def test_the_flow_runs_with_stand_ins_for_prefect(project, shell, monkeypatch):
    """Prefect is not installed: its decorators are replaced by ones that do nothing."""
    stand_in = types.ModuleType("prefect")
    stand_in.task = stand_in.flow = lambda **_: lambda function: function
    monkeypatch.setitem(sys.modules, "prefect", stand_in)
    monkeypatch.chdir(project)
    names = {"__name__": "flows"}
    exec(compile(block("python"), "README.md", "exec"), names)
    assert names["reforecast"]()["skipped"] == 1
    with journal.lock(project / "runs"), pytest.raises(RuntimeError, match="another batch is at work"):
        names["batch"]("jobs/weekly.toml")


def test_the_example_of_a_job_is_sound(tmp_path):
    example = next(b for b in re.findall(r"^```toml\n(.*?)^```$", TEXT, flags=re.M | re.S) if "[dates]" in b)
    path = tmp_path / "job.toml"
    path.write_text(example, encoding="utf-8")
    job = load_job(path)
    assert job.triggers[1].up == 0.15 and job.gates.weight_se == 0.02
    assert scheduling.settings(job.sampler).chains == 128


def test_every_recipe_names_a_job_that_is_shipped():
    for words in re.findall(r"forecast batch (\S+)", TEXT):
        assert (ROOT / shlex.split(words)[0]).is_file(), words
