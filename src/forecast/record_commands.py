"""Commands on the record of forecasts: `backtest` and `moved`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecast.console import (
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


@app.command()
def backtest(
    horizons: Annotated[
        str, typer.Option(help="Months from origin to publication, rising: 3m,6m,12m.")
    ] = "3m,6m,12m",
    start: Annotated[
        str, typer.Option("--from", help="First day that may be an origin, YYYY-MM-DD.")
    ] = "2024-07-01",
    end: Annotated[
        str | None, typer.Option("--to", help="Last day that may be one; default the last before the truth.")
    ] = None,
    every: Annotated[
        str, typer.Option(help="Origins at ends of a month, quarter or half-year, or each publication.")
    ] = "quarter",
    truth: Annotated[
        str | None, typer.Option(help="Day as of which values are scored; default the last published one.")
    ] = None,
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to score; repeat for several. Default all.")
    ] = None,
    late: LateOption = LateLines.keep,
    table: Annotated[Path, typer.Option("--output", "-o", help="Parquet file for every score.")] = Path(
        "backtest.parquet"
    ),
    store: StoreOption = Path("runs"),
    seed: SeedOption = 1,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Score what would have been forecast on past days on what was published since, against baselines."""
    with progress_bar() as progress:
        from forecast import backtest as room
        from forecast import batch, scorecard
        from forecast.worldviews import pick_worldviews

        scorecard.check_file(table)
        inputs = batch.load_inputs(data or home("data"), priors or home("priors"))
        chosen = pick_worldviews(inputs.worldviews, worldview or [])
        plan = room.make_plan(inputs, start, end, every, horizons, truth)
        wide = late is LateLines.widen
        forecasts = room.forecast(plan, chosen, store, seed, None, progress, wide)
        scored = room.score(plan, forecasts, inputs.archive)
        scorecard.write(scored.table, table)
        found = scorecard.summary(plan, forecasts, scored, chosen, wide)
    show_found(found, output, lambda: scorecard.tables(found))
    raise typer.Exit(1 if any(one["gate"] == "fail" for one in found["origins"]) else 0)


@app.command()
def moved(
    start: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
    end: Annotated[
        str | None, typer.Option("--to", help="Second day, YYYY-MM-DD; default the last published one.")
    ] = None,
    worldview: Annotated[
        list[str] | None, typer.Option(help="Worldview to account for; repeat for several. Default all.")
    ] = None,
    store: StoreOption = Path("runs"),
    seed: SeedOption = 1,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Say why each milestone moved between two days: new and revised rows, priors, code, noise."""
    with progress_bar() as progress:
        from rich.console import Group

        from forecast import batch, moves, prediction, vintages
        from forecast.worldviews import pick_worldviews

        inputs = batch.load_inputs(data or home("data"), priors or home("priors"))
        chosen = pick_worldviews(inputs.worldviews, worldview or [])
        last = vintages.last_published(inputs.archive)
        days = vintages.day_of(start, "--from"), last if end is None else vintages.day_of(end, "--to")
        if not days[0] < days[1] <= last:
            raise InputError(
                f"--to: give a day after --from, {days[0]:%Y-%m-%d}, and up to the last published, "
                f"{last:%Y-%m-%d}"
            )
        names = tuple(f"{day:%Y-%m-%d}" for day in days)
        found = [moves.ledger(inputs, (names[0], names[1]), w, store, seed, None, progress) for w in chosen]
    titles = prediction.titles(inputs.milestones)
    show_found(found, output, lambda: Group(*(moves.tables(one, titles) for one in found)))
    raise typer.Exit(1 if any(one["gate"] == "fail" for one in found) else 0)
