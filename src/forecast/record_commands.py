"""Commands on the record of forecasts: `backtest` and `moved`."""

from __future__ import annotations

import json
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
    StoreOption,
    app,
    home,
    progress_bar,
    show_table,
)


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
    seed: Annotated[int, typer.Option(help="Seed of the sampler; same seed, same numbers.", min=0)] = 1,
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
    if output is Format.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        show_table(scorecard.tables(found))
    raise typer.Exit(1 if any(one["gate"] == "fail" for one in found["origins"]) else 0)
