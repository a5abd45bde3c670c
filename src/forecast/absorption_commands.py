"""Commands that show how assumptions take in evidence: `explain` and `whatif`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.console import (
    AsOf,
    DataOption,
    Format,
    FormatOption,
    PriorsOption,
    StoreOption,
    app,
    home,
    progress_bar,
    show_found,
)


@app.command()
def explain(
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to explain; repeat for several. Default all.")
    ] = None,
    as_of: AsOf = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Also compute what stored draws cannot tell: half an hour, once.")
    ] = False,
    store: StoreOption = Path("runs"),
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Show how each worldview took in the evidence: decided, learnt, absorbed by which assumptions."""
    from forecast import runs
    from forecast.absorption_reports import tables

    folders = data or home("data"), priors or home("priors")
    key = _key(store, folders, worldview or [], as_of)
    found = None if refit else runs.recall(_answer(store, key))
    if found is None:
        with progress_bar() as tell:
            found = _explain(store, folders, worldview or [], as_of, refit, tell)
        # Refits are part of the key.
        runs.remember(_answer(store, _key(store, folders, worldview or [], as_of)), found)
    show_found(found, output, lambda: tables(found))


@app.command()
def whatif(
    scenario: Annotated[Path, typer.Argument(help="Scenario file, or the name of one in data/scenarios/.")],
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to ask; repeat for several. Default all.")
    ] = None,
    as_of: AsOf = None,
    no_refit: Annotated[
        bool,
        typer.Option("--no-refit", help="Leave out what needs a fit, which takes minutes; it is kept."),
    ] = False,
    store: StoreOption = Path("runs"),
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Push hypothetical future rows through the same update: what would move, and what would be absorbed."""
    from forecast import accounts, batch, inference, runs, scenarios
    from forecast.absorption_reports import scenario_tables
    from forecast.worldviews import pick_worldviews

    folder = data or home("data")
    folders = folder, priors or home("priors")
    inputs = batch.load_inputs(*folders)
    path = scenarios.find(scenario, folder)
    asked = scenarios.load_scenario(path, inputs.archive)
    key = _key(store, folders, worldview or [], as_of, f"{no_refit} {path.read_text(encoding='utf-8')}")

    def made() -> list[dict[str, Any]]:
        read = accounts.stored(store, inputs, pick_worldviews(inputs.worldviews, worldview or []), as_of)
        settings = None if no_refit else inference.Settings()
        with progress_bar() as tell:
            return [
                scenarios.whatif(one[-1], asked, settings, partial(tell, name)) for name, one in read.items()
            ]

    found = runs.once(_answer(store, key), made)
    show_found(found, output, lambda: scenario_tables(found))


def _explain(
    store: Path, folders: tuple[Path, Path], names: Sequence[str], as_of: str | None, refit: bool, tell: Any
) -> list[dict[str, Any]]:
    """Records from stored runs, after the refits if they are asked for."""
    from forecast import accounts, batch, explanations, frozen
    from forecast.worldviews import pick_worldviews

    inputs = batch.load_inputs(*folders)
    chosen = pick_worldviews(inputs.worldviews, names)
    read = accounts.stored(store, inputs, chosen, as_of)
    programs: dict[Any, Any] = {}
    refitters = {
        n: frozen.Refitter(runs[-1], programs=programs, report=partial(tell, n)) for n, runs in read.items()
    }
    if refit:
        for refitter in refitters.values():
            frozen.refit_all(refitter)
    return explanations.records(read, accounts.base_run(store, inputs, read), refitters)


def _key(
    store: Path, folders: tuple[Path, Path], names: Sequence[str], as_of: str | None, asked: str = ""
) -> str:
    """Hash of all an answer depends on: stored runs and refits, data, priors, code and what is asked."""
    from forecast import runs

    digest = hashlib.sha256(json.dumps([sorted(names), as_of, asked, runs.code_version()]).encode())
    kept = sorted(str(p.relative_to(store)) for p in store.glob("as_of=*/worldview=*/key=*/**/*.json"))
    digest.update(json.dumps(kept).encode())
    for folder in folders:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _answer(store: Path, key: str) -> Path:
    """Where an answer is kept."""
    return store / "explained" / f"{key}.json"
