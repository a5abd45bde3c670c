"""Commands that make and show runs: `update`, `show`, `history`, `export` and `diff`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.console import (
    AsOf,
    DataOption,
    Format,
    FormatOption,
    LateLines,
    LateOption,
    PriorsOption,
    SeedOption,
    StoreOption,
    app,
    home,
    progress_bar,
    show_found,
)
from forecast.schema import InputError


class ExportFormat(StrEnum):
    """What `forecast export` writes."""

    hubverse = "hubverse"
    netcdf = "netcdf"
    parquet = "parquet"
    csv = "csv"


@app.command()
def update(
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to update; repeat for several. Default all.")
    ] = None,
    odds: Annotated[
        str | None, typer.Option(help="Take the prior odds of this worldview instead of each one's own.")
    ] = None,
    as_of: AsOf = None,
    compute: Annotated[
        Path | None,
        typer.Option(help="Say instead what a cap on compute, given by this file, does to milestones."),
    ] = None,
    store: StoreOption = Path("runs"),
    seed: SeedOption = 1,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Update worldviews on the evidence: posterior over dynamics, and milestones."""
    with progress_bar() as progress:
        from forecast import batch, interventions, prediction
        from forecast.worldviews import pick_worldviews

        inputs = batch.load_inputs(data or home("data"), priors or home("priors"), as_of)
        asked = interventions.load_intervention(compute, inputs.as_of) if compute else None
        chosen = pick_worldviews(inputs.worldviews, worldview or [])
        source = pick_worldviews(inputs.worldviews, [odds], "--odds")[0] if odds else None
        folders = batch.update(inputs, chosen, store, seed, progress=progress)
    if asked:
        found = [
            interventions.compare(folder, inputs, w, source or w, asked)
            for folder, w in zip(folders, chosen, strict=True)
        ]
        show_found(found, output, lambda: interventions.tables(found, prediction.titles(inputs.milestones)))
        return
    failed = _show(
        [(folder, source or w) for folder, w in zip(folders, chosen, strict=True)], inputs.milestones, output
    )
    raise typer.Exit(1 if failed else 0)


@app.command()
def history(
    start: Annotated[
        str, typer.Option("--from", help="First day of the history, YYYY-MM-DD.")
    ] = "2025-01-01",
    end: Annotated[
        str | None, typer.Option("--to", help="Last day, YYYY-MM-DD; default the last published one.")
    ] = None,
    every: Annotated[
        str, typer.Option(help="Step by week, month, quarter, half-year or publication.")
    ] = "quarter",
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to follow; repeat for several. Default all.")
    ] = None,
    store: StoreOption = Path("runs"),
    seed: SeedOption = 1,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the weights over time to this file, .svg or .png.")
    ] = None,
    late: LateOption = LateLines.keep,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Follow the weights from date to date, each on what was known then."""
    with progress_bar() as progress:
        from forecast import batch, figures, prediction, reports, runs
        from forecast import history as room
        from forecast.worldviews import late_names, pick_worldviews

        if figure is not None:
            figures.check_file(figure)
        inputs = batch.load_inputs(data or home("data"), priors or home("priors"))
        chosen = pick_worldviews(inputs.worldviews, worldview or [])
        window = room.make_window(inputs, room.dates(inputs.archive, start, end, every))
        wide = late is LateLines.widen
        folders = room.update(
            window, chosen, store / room.WIDENED if wide else store, seed, progress=progress, wide=wide
        )
        days = [one.as_of for one in window.inputs]
        records = reports.with_distances(
            [
                reports.history_record(
                    [runs.load(folder) for folder in folders[w.name]],
                    w.name,
                    w.odds,
                    {day: late_names(w, day) for day in days},
                    wide,
                )
                for w in chosen
            ]
        )
        if figure is not None:
            figures.save(figures.weights_over_time(records), figure)
    show_found(
        records,
        output,
        lambda: reports.history_tables(records, prediction.titles(inputs.milestones)),
    )
    raise typer.Exit(1 if any(d["gate"] == "fail" for r in records for d in r["dates"]) else 0)


@app.command()
def show(
    store: StoreOption = Path("runs"),
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Print the newest stored run of each worldview and date; code 1 if one of them failed its gate."""
    from forecast import prediction, runs
    from forecast.worldviews import load_worldviews

    known = load_worldviews(priors or home("priors"))
    found = runs.catalogue(store)
    if found.empty:
        raise InputError(f"{store}: no stored runs; run `forecast update` first")
    chosen = []
    for run in runs.newest(found).itertuples():
        if run.worldview not in known:
            raise InputError(
                f"{run.folder}: its worldview '{run.worldview}' is no longer in priors/; restore the file"
            )
        chosen.append((Path(str(run.folder)), known[str(run.worldview)]))
    if _show(chosen, prediction.load_milestones((data or home("data")) / "milestones.toml"), output):
        raise typer.Exit(1)


def _show(chosen: list[tuple[Path, Any]], milestones: dict[str, Any], output: Format) -> bool:
    """Print stored runs at given odds; return whether any failed its gate."""
    from forecast import prediction, reports, runs

    records = [reports.record(*runs.load(folder), odds.name, odds.odds) for folder, odds in chosen]
    show_found(records, output, lambda: reports.tables(records, prediction.titles(milestones)))
    return any(d["gate"] == "fail" for r in records for d in r["dynamics"].values())


@app.command()
def export(
    to: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; an older export is replaced.")],
    what: Annotated[
        ExportFormat, typer.Option("--format", help="A hub, or plain files.")
    ] = ExportFormat.hubverse,
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to export; repeat for several. Default all.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Date of the runs, YYYY-MM-DD; default every stored one.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Joint draws of milestone dates to add.", min=0)] = 0,
    team: Annotated[str, typer.Option(help="First part of the models' names in a hub.")] = "forecast",
    store: StoreOption = Path("runs"),
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Write the newest stored run of each worldview and date as a hubverse hub or as plain files."""
    from forecast import export as exporting
    from forecast import hub, prediction, runs, vintages
    from forecast.worldviews import load_worldviews, pick_worldviews

    known = load_worldviews(priors or home("priors"))
    chosen = [w.name for w in pick_worldviews(known, worldview or [])]
    folders, notes = exporting.choose(store, chosen, as_of)
    for note in notes:
        print(note, file=sys.stderr)
    if not folders:
        print(f"{to}: nothing left to export, left as it was", file=sys.stderr)
        raise typer.Exit(1)
    loaded = [runs.load(folder) for folder in folders]
    found = [exporting.Run(tree, m, known[m["worldview"]].odds) for tree, m in loaded]
    folder = data or home("data")

    def fill(place: Path) -> None:
        if what is ExportFormat.hubverse:
            titles = prediction.load_milestones(folder / "milestones.toml")
            hub.write(place, found, vintages.load_archive(folder), titles, team, samples)
        else:
            ending = "nc" if what is ExportFormat.netcdf else what.value
            exporting.write_plain(found, ending, samples, place)

    exporting.publish(to, fill, found)
    print(f"{to}: {len(found)} runs")


@app.command()
def diff(
    run_a: Path,
    run_b: Path,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Compare two stored runs, given by their folders: weights, milestones, evidence, data, priors, code."""
    from forecast import comparison, prediction, reports, runs
    from forecast.worldviews import load_worldviews

    known = load_worldviews(priors or home("priors"))
    sides = []
    for folder in (run_a, run_b):
        tree, manifest = runs.load(folder)
        name = manifest["worldview"]
        if name not in known:
            raise InputError(f"{folder}: its worldview '{name}' is no longer in priors/; restore the file")
        sides.append((reports.record(tree, manifest, name, known[name].odds), manifest))
    found = comparison.compare(sides[0], sides[1])
    milestones = prediction.load_milestones((data or home("data")) / "milestones.toml")
    titles = prediction.titles(milestones)
    show_found(found, output, lambda: comparison.tables(found, titles))
