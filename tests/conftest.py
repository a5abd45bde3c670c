"""The shipped archive and one selection from it, read once for all tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pandas as pd
import pytest

from forecast import batch, cli
from forecast.selection import Selection, select
from forecast.vintages import Archive, as_of, load_archive

# How long one example takes says nothing on a machine that does other work.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

DATA = Path(__file__).parent.parent / "data"
LAST = "2026-06-30"


@pytest.fixture(scope="session")
def archive() -> Archive:
    """The shipped archive; tests must not change it."""
    return load_archive(DATA)


@pytest.fixture(scope="session")
def snapshot(archive: Archive) -> pd.DataFrame:
    """What was known at the end of June 2026."""
    return as_of(archive, LAST)


@pytest.fixture(scope="session")
def selection(archive: Archive, snapshot: pd.DataFrame) -> Selection:
    """Rows that enter the likelihood at the end of June 2026, and the others."""
    return select(archive, snapshot)


@pytest.fixture(scope="session")
def inputs() -> batch.Inputs:
    """Everything a fit of the shipped archive is made of; tests must not change it."""
    return batch.load_inputs(DATA, DATA.parent / "priors")


@pytest.fixture
def command_line(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command line as the script does; exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["forecast", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run
