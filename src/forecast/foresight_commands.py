"""Commands that look into simulated worlds: `calibrate` and `value`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from forecast.console import (
    DataOption,
    Format,
    FormatOption,
    PriorsOption,
    SeedOption,
    StoreOption,
    app,
    home,
    progress_bar,
    show_found,
)

QUICK = ("A", "B", "C", "D")
"""Tiers of a quick run."""


@app.command()
def value(
    worldview: Annotated[str, typer.Option(help="Worldview whose posterior makes the worlds.")] = "neutral",
    worlds: Annotated[int, typer.Option(min=4, help="Simulated worlds, as many of each dynamic.")] = 500,
    quick: Annotated[
        bool, typer.Option("--quick", help="40 worlds, tiers A to D, dates to 2028: minutes, not hours.")
    ] = False,
    tier: Annotated[
        list[str] | None, typer.Option(help="Tier of data/disclosure.toml; repeat for several. Default all.")
    ] = None,
    seed: SeedOption = 1,
    store: StoreOption = Path("runs"),
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Say what disclosure is worth: which reports would tell the dynamics apart, by when, and how early."""
    from forecast import accounts, batch, foresight, foresight_reports, runs, vintages
    from forecast.disclosure import load_plan
    from forecast.schema import InputError
    from forecast.worldviews import pick_worldviews

    folders = data or home("data"), priors or home("priors")
    inputs = batch.load_inputs(*folders)
    chosen = pick_worldviews(inputs.worldviews, [worldview])
    end = "2028-01-01" if quick else "2031-07-01"
    plan = load_plan(folders[0] / "disclosure.toml", inputs.archive, inputs.as_of, end)
    names = plan.pick(tier or (QUICK if quick else ()))
    with progress_bar() as tell:
        folder = batch.update(inputs, chosen, store, progress=tell)[0]
        manifest = runs.load(folder)[1]
        if manifest["status"] != "done":
            raise InputError(f"{folder}: failed its gate, so no world can be drawn from it")
        content = {
            "run": manifest["key"],
            "plan": [vintages.data_hash(plan.rows), {n: plan.tiers[n].series for n in names}],
            "worlds": 40 if quick else worlds,
            "end": end,
            "seed": seed,
            "code": runs.code_version(),
        }
        kept = store / "foreseen" / f"{runs.run_key(content)}.json"
        found = runs.recall(kept)
        if found is None:
            run = accounts.read(folder, inputs, chosen[0])
            found = foresight.value(run, plan, names, content["worlds"], end, seed, partial(tell, worldview))
            runs.remember(kept, found)
    show_found(found, output, lambda: foresight_reports.tables(found))


@app.command()
def calibrate(
    dynamic: Annotated[
        list[str] | None, typer.Option(help="Dynamic to simulate and fit; repeat for several. Default all.")
    ] = None,
    simulations: Annotated[int, typer.Option(min=10, help="Simulated data sets of each dynamic.")] = 200,
    quick: Annotated[bool, typer.Option("--quick", help="50 data sets of each dynamic.")] = False,
    seed: SeedOption = 1,
    store: StoreOption = Path("runs"),
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Check the engine on simulated data: are truths where posteriors say? Some ten seconds a data set."""
    from forecast import batch, calibration, foresight_reports, model, runs, vintages
    from forecast.dynamics import DYNAMICS
    from forecast.schema import InputError, did_you_mean

    for name in dynamic or ():
        if name not in DYNAMICS:
            raise InputError(f"--dynamic: unknown dynamic '{name}'{did_you_mean(name, DYNAMICS)}")
    inputs = batch.load_inputs(data or home("data"), priors or home("priors"))
    rows, size, found = inputs.selection.rows, 50 if quick else simulations, []
    with progress_bar() as tell:
        for name in dynamic or DYNAMICS:
            content = {
                "dynamic": name,
                "rows": vintages.data_hash(rows),
                "size": size,
                "seed": seed,
                "code": runs.code_version(),
            }
            kept = store / "calibrated" / f"{runs.run_key(content)}.json"
            one = runs.recall(kept)
            if one is None:
                position = calibration.positions(name, rows, size, seed, report=partial(tell, name))
                roles = {n: p.role for n, p in model.parameters([name], rows).items()}
                one = calibration.record(name, *position, roles)
                runs.remember(kept, one)
            found.append(one)
    show_found(found, output, lambda: foresight_reports.calibration_tables(found))
