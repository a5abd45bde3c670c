"""Commands on what goes in: `list`, `data check|import|snapshot` and `priors check|show`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.console import (
    AsOf,
    DataOption,
    PriorsOption,
    app,
    data_app,
    home,
    priors_app,
    report_problems,
    show_table,
)
from forecast.schema import InputError


class Listing(StrEnum):
    """What `forecast list` lists."""

    dynamics = "dynamics"
    indicators = "indicators"
    worldviews = "worldviews"
    milestones = "milestones"


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

        archive = vintages.load_archive(data or home("data"))
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
            for w in load_worldviews(priors or home("priors")).values()
        ]
    else:
        from forecast.prediction import load_milestones

        columns = ["milestone", "title", "resolved when"]
        found = load_milestones((data or home("data")) / "milestones.toml")
        rows = [[m.id, m.title, " ".join(m.resolution.split())] for m in found.values()]
    show_table(reports.plain_table(columns, rows))


@data_app.command("check")
def data_check(data: DataOption = None) -> None:
    """Check every file of the archive."""
    from forecast import vintages

    folder = data or home("data")
    problems = vintages.check(folder)
    good = ""
    if not problems:
        archive = vintages.load_archive(folder)
        good = f"{len(archive.observations)} rows of {len(archive.indicators)} indicators are sound"
    report_problems(problems, good)


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

    done = vintages.import_rows(data or home("data"), file, indicators, models)
    print(
        f"{done.added} rows added, {done.skipped} already there, {done.indicators_added} indicators and "
        f"{done.models_added} models added"
    )


@data_app.command("snapshot")
def data_snapshot(as_of: AsOf = None, data: DataOption = None) -> None:
    """Print the rows that enter the likelihood, and why the others do not."""
    from forecast import reports, vintages
    from forecast.selection import select

    archive = vintages.load_archive(data or home("data"))
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
    show_table(
        reports.plain_table(
            [*fields, "observation model"],
            cells(chosen.rows, "indicator"),
            f"{len(chosen.rows)} rows enter the likelihood as of {date}",
        )
    )
    show_table(
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

    folder = priors or home("priors")
    problems = worldviews.check(folder)
    good = "" if problems else f"{len(worldviews.load_worldviews(folder))} worldviews are sound"
    report_problems(problems, good)


@priors_app.command("show")
def priors_show(
    name: str,
    priors: PriorsOption = None,
    draws: Annotated[int, typer.Option(help="Prior draws of the predictive table.", min=100)] = 4000,
) -> None:
    """Show where a worldview differs, what it inherits, and what it predicts before any evidence."""
    from forecast import reports, worldviews
    from forecast.schema import did_you_mean

    known = worldviews.load_worldviews(priors or home("priors"))
    if name not in known:
        raise InputError(
            f"unknown worldview '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    one = known[name]
    show_table(
        reports.plain_table(
            ["dynamic", "prior odds"], [[n, f"{p:g}"] for n, p in one.odds.items()], one.title
        )
    )
    differs = worldviews.differences(one)
    if not differs.empty:
        show_table(
            reports.plain_table(list(differs.columns), differs.astype(str).to_numpy().tolist(), "Differs in")
        )
    rest = {n: p for n, p in worldviews.known_parameters().items() if n not in one.lines}
    show_table(
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
    show_table(reports.plain_table(list(table.columns), cells, "Predicts before any evidence"))
