"""The command line: each command is one library call and a table or JSON of what it returns.

Only this room prints and exits.  Rooms are imported inside the commands so that help is quick.
"""

from __future__ import annotations

import os

# Before anything imports PyTensor: draws must not depend on whether its cache is warm.
os.environ.setdefault("PYTENSOR_FLAGS", "numba__fastmath=False")

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.schema import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Which takeoff dynamic of automated AI R&D does the evidence favour, and what follows?",
)
data_app = typer.Typer(no_args_is_help=True, help="The archive of observations.")
priors_app = typer.Typer(no_args_is_help=True, help="Worldviews: prior odds and assumptions.")
app.add_typer(data_app, name="data")
app.add_typer(priors_app, name="priors")


class Format(StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


class ExportFormat(StrEnum):
    """What `forecast export` writes."""

    hubverse = "hubverse"
    netcdf = "netcdf"
    parquet = "parquet"
    csv = "csv"


class Listing(StrEnum):
    """What `forecast list` lists."""

    dynamics = "dynamics"
    indicators = "indicators"
    worldviews = "worldviews"
    milestones = "milestones"


def _home(name: str) -> Path:
    """Folder `name` here, or in the project this package was installed from."""
    here = Path(name)
    return here if here.is_dir() else Path(__file__).parents[2] / name


DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the archive; default data/.")]
PriorsOption = Annotated[Path | None, typer.Option("--priors", help="Folder of worldviews; default priors/.")]
StoreOption = Annotated[Path, typer.Option(help="Folder that keeps runs.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Table for people or JSON for programs.")]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="Day whose knowledge counts, YYYY-MM-DD; default the latest.")
]


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _print(renderable: Any) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(renderable)


@app.command()
def update(
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to update; repeat for several. Default all.")
    ] = None,
    odds: Annotated[
        str | None, typer.Option(help="Take the prior odds of this worldview instead of each one's own.")
    ] = None,
    as_of: AsOf = None,
    store: StoreOption = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of the sampler; same seed, same numbers.", min=0)] = 1,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Update worldviews on the evidence: posterior over dynamics, and milestones."""
    with _progress() as progress:
        from forecast import batch
        from forecast.worldviews import pick_worldviews

        inputs = batch.load_inputs(data or _home("data"), priors or _home("priors"), as_of)
        chosen = pick_worldviews(inputs.worldviews, worldview or [])
        source = pick_worldviews(inputs.worldviews, [odds], "--odds")[0] if odds else None
        folders = batch.update(inputs, chosen, store, seed, progress=progress)
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
    every: Annotated[str, typer.Option(help="Step by month, quarter or publication.")] = "quarter",
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to follow; repeat for several. Default all.")
    ] = None,
    store: StoreOption = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of the sampler; same seed, same numbers.", min=0)] = 1,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the weights over time to this file, .svg or .png.")
    ] = None,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Follow the weights from date to date, each on what was known then."""
    with _progress() as progress:
        from forecast import batch, figures, reports, runs
        from forecast import history as room
        from forecast.worldviews import pick_worldviews

        if figure is not None:
            figures.check_file(figure)
        inputs = batch.load_inputs(data or _home("data"), priors or _home("priors"))
        chosen = pick_worldviews(inputs.worldviews, worldview or [])
        window = room.make_window(inputs, room.dates(inputs.archive, start, end, every))
        folders = room.update(window, chosen, store, seed, progress=progress)
        days = [one.as_of for one in window.inputs]
        records = reports.with_distances(
            [
                reports.history_record(
                    [runs.load(folder) for folder in folders[w.name]],
                    w.name,
                    w.odds,
                    {day: room.late_lines(w, day) for day in days},
                )
                for w in chosen
            ]
        )
        if figure is not None:
            figures.save(figures.weights_over_time(records), figure)
    if output is Format.json:
        print(json.dumps(records, indent=1, allow_nan=False))
    else:
        _print(reports.history_tables(records, {n: m.title for n, m in inputs.milestones.items()}))
    raise typer.Exit(1 if any(d["gate"] == "fail" for r in records for d in r["dates"]) else 0)


@app.command()
def show(
    store: StoreOption = Path("runs"),
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Print the newest stored run of each worldview and date."""
    from forecast import prediction, runs
    from forecast.worldviews import load_worldviews

    known = load_worldviews(priors or _home("priors"))
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
    _show(chosen, prediction.load_milestones((data or _home("data")) / "milestones.toml"), output)


def _show(chosen: list[tuple[Path, Any]], milestones: dict[str, Any], output: Format) -> bool:
    """Print stored runs at given odds; return whether any failed its gate."""
    from forecast import reports, runs

    records = [reports.record(*runs.load(folder), odds.name, odds.odds) for folder, odds in chosen]
    if output is Format.json:
        print(json.dumps(records, indent=1, allow_nan=False))
    else:
        _print(reports.tables(records, {n: m.title for n, m in milestones.items()}))
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

    known = load_worldviews(priors or _home("priors"))
    chosen = [w.name for w in pick_worldviews(known, worldview or [])]
    folders, notes = exporting.choose(store, chosen, as_of)
    for note in notes:
        print(note, file=sys.stderr)
    if not folders:
        print(f"{to}: nothing left to export, left as it was", file=sys.stderr)
        raise typer.Exit(1)
    loaded = [runs.load(folder) for folder in folders]
    found = [exporting.Run(tree, m, known[m["worldview"]].odds) for tree, m in loaded]
    folder = data or _home("data")

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

    known = load_worldviews(priors or _home("priors"))
    sides = []
    for folder in (run_a, run_b):
        tree, manifest = runs.load(folder)
        name = manifest["worldview"]
        if name not in known:
            raise InputError(f"{folder}: its worldview '{name}' is no longer in priors/; restore the file")
        sides.append((reports.record(tree, manifest, name, known[name].odds), manifest))
    found = comparison.compare(sides[0], sides[1])
    if output is Format.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        titles = prediction.load_milestones((data or _home("data")) / "milestones.toml")
        _print(comparison.tables(found, {n: m.title for n, m in titles.items()}))


class _progress:
    """A progress bar on standard error, shown as soon as the command starts."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self.task = self.bar.add_task("reading", total=1.0)
        self.bar.start()
        return self.tell

    def tell(self, worldview: str, what: str, share: float) -> None:
        # Temperatures grow by factors, so their logarithm is the fairer measure of progress.
        done = share**0.25 if what == "tempering" else share
        self.bar.update(self.task, description=f"{worldview}: {what}", completed=done)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


@app.command("list")
def list_(what: Listing, data: DataOption = None, priors: PriorsOption = None) -> None:
    """List dynamics, indicators, worldviews or milestones."""
    from forecast import reports

    if what is Listing.dynamics:
        from forecast.dynamics import DYNAMICS

        rows = [[d.name, d.summary, ", ".join(d.parameters)] for d in DYNAMICS.values()]
        columns = ["dynamic", "what it says", "own parameters"]
    elif what is Listing.indicators:
        from forecast import vintages
        from forecast.indicators import INDICATORS

        archive = vintages.load_archive(data or _home("data"))
        counts = archive.observations["indicator_id"].value_counts()
        taken: dict[str, tuple[str, ...]] = {
            i: (name, one.family[i]) for name, one in INDICATORS.items() for i in one.ids
        }
        columns = ["indicator", "title", "category", "rows", "observation model"]
        rows = [
            [
                str(i),
                r.title,
                r.category,
                str(counts.get(i, 0)),
                " / ".join(taken.get(str(i), ("context only",))),
            ]
            for i, r in archive.indicators.iterrows()
        ]
    elif what is Listing.worldviews:
        from forecast.worldviews import load_worldviews

        columns = ["worldview", "title", "odds", "assumptions that differ"]
        rows = [
            [w.name, w.title, ", ".join(f"{n} {p:g}" for n, p in w.odds.items()), str(len(w.lines))]
            for w in load_worldviews(priors or _home("priors")).values()
        ]
    else:
        from forecast.prediction import load_milestones

        columns = ["milestone", "title", "resolved when"]
        found = load_milestones((data or _home("data")) / "milestones.toml")
        rows = [[m.id, m.title, " ".join(m.resolution.split())] for m in found.values()]
    _print(reports.plain_table(columns, rows))


def _report_problems(problems: list[str], good: str) -> None:
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    print(good)


@data_app.command("check")
def data_check(data: DataOption = None) -> None:
    """Check every file of the archive."""
    from forecast import vintages

    folder = data or _home("data")
    problems = vintages.check(folder)
    good = ""
    if not problems:
        archive = vintages.load_archive(folder)
        good = f"{len(archive.observations)} rows of {len(archive.indicators)} indicators are sound"
    _report_problems(problems, good)


@data_app.command("import")
def data_import(
    file: Path,
    indicators: Annotated[
        Path | None, typer.Option(help="New indicators, in the columns of data/indicators.csv.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="New models, in the columns of data/models.csv.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Append new rows; the whole file is refused if one row is bad."""
    from forecast import vintages

    done = vintages.import_rows(data or _home("data"), file, indicators, models)
    print(
        f"{done.added} rows added, {done.skipped} already there, {done.indicators_added} indicators and "
        f"{done.models_added} models added"
    )


@data_app.command("snapshot")
def data_snapshot(as_of: AsOf = None, data: DataOption = None) -> None:
    """Print the rows that enter the likelihood, and why the others do not."""
    from forecast import reports, vintages
    from forecast.selection import select

    archive = vintages.load_archive(data or _home("data"))
    snapshot = vintages.as_of(archive, as_of or vintages.last_published(archive))
    chosen = select(archive, snapshot)
    fields = ["indicator_id", "entity", "observed_at", "published_at", "value"]

    def cells(frame: Any, extra: str) -> list[list[str]]:
        return [
            [
                r["indicator_id"],
                r["entity"],
                f"{r['observed_at']:%Y-%m-%d}",
                f"{r['published_at']:%Y-%m-%d}",
                f"{r['value']:g}",
                r[extra],
            ]
            for r in frame.to_dict("records")
        ]

    date = f"{snapshot.attrs['as_of']:%Y-%m-%d}"
    _print(
        reports.plain_table(
            [*fields, "observation model"],
            cells(chosen.rows, "indicator"),
            f"{len(chosen.rows)} rows enter the likelihood as of {date}",
        )
    )
    _print(
        reports.plain_table(
            [*fields, "why not"], cells(chosen.excluded, "reason"), f"{len(chosen.excluded)} rows do not"
        )
    )
    if snapshot.attrs["note"]:
        print(snapshot.attrs["note"])


@priors_app.command("check")
def priors_check(priors: PriorsOption = None) -> None:
    """Check every worldview."""
    from forecast import worldviews

    folder = priors or _home("priors")
    problems = worldviews.check(folder)
    good = "" if problems else f"{len(worldviews.load_worldviews(folder))} worldviews are sound"
    _report_problems(problems, good)


@priors_app.command("show")
def priors_show(
    name: str,
    priors: PriorsOption = None,
    draws: Annotated[int, typer.Option(help="Prior draws of the predictive table.", min=100)] = 4000,
) -> None:
    """Show where a worldview differs, what it inherits, and what it predicts before any evidence."""
    from forecast import reports, worldviews
    from forecast.schema import did_you_mean

    known = worldviews.load_worldviews(priors or _home("priors"))
    if name not in known:
        raise InputError(
            f"unknown worldview '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    one = known[name]
    _print(
        reports.plain_table(
            ["dynamic", "prior odds"], [[n, f"{p:g}"] for n, p in one.odds.items()], one.title
        )
    )
    differs = worldviews.differences(one)
    if not differs.empty:
        _print(
            reports.plain_table(list(differs.columns), differs.astype(str).to_numpy().tolist(), "Differs in")
        )
    rest = {n: p for n, p in worldviews.known_parameters().items() if n not in one.lines}
    _print(
        reports.plain_table(
            ["parameter", "prior", "meaning", "source"],
            [[n, str(p.prior), f"{p.meaning} [{p.unit}]", p.source] for n, p in rest.items()],
            "Inherits",
        )
    )
    table = worldviews.prior_predictive(one, seed=1, draws=draws)
    cells = [
        [f"{x:.3g}" if isinstance(x, float) and x < 1000 else str(x) for x in row]
        for row in table.to_numpy().tolist()
    ]
    _print(reports.plain_table(list(table.columns), cells, "Predicts before any evidence"))
