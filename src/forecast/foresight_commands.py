"""Commands that look into simulated worlds: `calibrate` and `value`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any

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

POLICIES = ("A", "B", "C", "D")
"""Tiers that are compared unless told otherwise."""


@app.command()
def value(
    worldview: Annotated[str, typer.Option(help="Worldview whose posterior makes the worlds.")] = "neutral",
    worlds: Annotated[
        int | None, typer.Option(min=8, help="Simulated worlds, as many of each dynamic. Default 100.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="The next two Januaries instead of five years, and 40 worlds unless told otherwise.",
        ),
    ] = False,
    tier: Annotated[
        list[str] | None, typer.Option(help="Tier of data/disclosure.toml; repeatable. Default A to D.")
    ] = None,
    seed: SeedOption = 1,
    store: StoreOption = Path("runs"),
    count: Annotated[int, typer.Option("--workers", help="Processes on this machine.", min=1)] = 1,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Say what disclosure is worth: which reports would tell the dynamics apart, by when, and how early."""
    from forecast import accounts, batch, foresight, foresight_reports, runs, vintages, workers
    from forecast.disclosure import load_plan
    from forecast.schema import InputError
    from forecast.worlds import dates
    from forecast.worldviews import pick_worldviews

    folders = data or home("data"), priors or home("priors")
    inputs = batch.load_inputs(*folders)
    chosen = pick_worldviews(inputs.worldviews, [worldview])
    days = dates(inputs.as_of, 2, (1,)) if quick else dates(inputs.as_of, 10)
    size = worlds or (40 if quick else 100)
    plan = load_plan(folders[0] / "disclosure.toml", inputs.archive, inputs.as_of, f"{days[-1]:%Y-%m-%d}")
    names = plan.pick(tier or [name for name in POLICIES if name in plan.tiers])
    # Rows of other tiers would be carried along for nothing.
    plan = plan.of(names)
    with progress_bar() as tell:
        folder = batch.update(inputs, chosen, store, progress=tell)[0]
        content = {
            "run": folder.name,
            # A run is stored without the odds, and tiers are compared with the first.
            "odds": [worldview, dict(chosen[0].odds)],
            "plan": [vintages.data_hash(plan.rows), [asdict(plan.tiers[n]) for n in names]],
            "worlds": size,
            "dates": [f"{day:%Y-%m-%d}" for day in days],
            "seed": seed,
            "code": runs.code_version(),
        }

        kept = store / "foreseen" / runs.run_key(content)

        def foresee() -> dict[str, Any]:
            run = accounts.read(folder, inputs, chosen[0])
            if run.manifest["status"] != "done":
                raise InputError(f"{folder}: failed its gate, so no world can be drawn from it")
            each = workers.spread(count) if count > 1 else starmap
            return foresight.value(run, plan, names, size, days, seed, kept, partial(tell, worldview), each)

        found = runs.once(kept.with_suffix(".json"), foresee)
    show_found(found, output, lambda: foresight_reports.tables(found))


@app.command()
def calibrate(
    dynamic: Annotated[
        list[str] | None, typer.Option(help="Dynamic to simulate and fit; repeat for several. Default all.")
    ] = None,
    simulations: Annotated[
        int | None, typer.Option(min=10, help="Simulated data sets of each dynamic. Default 200.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="50 data sets of each dynamic unless told otherwise.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Fit every dynamic to all data, and look whether each is true as often as believed; takes "
            "hours.",
        ),
    ] = False,
    seed: SeedOption = 1,
    store: StoreOption = Path("runs"),
    figure: Annotated[
        Path | None, typer.Option(help="Draw where truths lie to this file, .svg or .png.")
    ] = None,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Check the engine on data simulated from the prior: do truths lie where posteriors say?"""
    from forecast import (
        batch,
        calibration,
        calibration_figures,
        figures,
        foresight,
        foresight_reports,
        model,
        runs,
        vintages,
    )
    from forecast.dynamics import DYNAMICS
    from forecast.schema import InputError, check_known

    if figure is not None:
        figures.check_file(figure)
    check_known("dynamic", dynamic or (), DYNAMICS, "--dynamic")
    if weights and dynamic:
        raise InputError("--weights: compares all dynamics; leave out --dynamic")
    inputs = batch.load_inputs(data or home("data"), priors or home("priors"))
    rows, size, found = inputs.selection.rows, simulations or (50 if quick else 200), []
    roles = {n: p.role for n, p in model.parameters(list(DYNAMICS), rows).items()}

    program: list[calibration.Program] = []

    def made(name: str, tell: Any) -> dict[str, Any]:
        if not program:
            tell(name, "compiling", 0.0)
            program.append(calibration.prepare(rows, together=not weights))
        fit = calibration.weighed if weights else calibration.positions
        return calibration.record(name, fit(program[0], name, size, seed, report=partial(tell, name)), roles)

    with progress_bar() as tell:
        for name in dynamic or DYNAMICS:
            content = {
                "dynamic": name,
                "rows": vintages.data_hash(rows),
                "size": size,
                "weights": weights,
                "seed": seed,
                "code": runs.code_version(),
            }
            kept = store / "calibrated" / f"{runs.run_key(content)}.json"
            found.append(runs.once(kept, partial(made, name, tell)))
    told = {"dynamics": found} | (
        {"weights": foresight.weight_record(found, inputs.as_of)} if weights else {}
    )
    if figure is not None:
        figures.save(calibration_figures.curves(told), figure)
    show_found(told, output, lambda: foresight_reports.calibration_tables(told))
