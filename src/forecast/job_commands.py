"""The command for unattended jobs: `batch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.console import (
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

BUSY = 75
"""Exit code if another batch is at work on the store, EX_TEMPFAIL of sysexits."""


@app.command()
def batch(
    job: Annotated[Path, typer.Argument(help="Job file, TOML.", show_default=False)],
    store: StoreOption = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and change nothing.")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler whose workers do the fits.")
    ] = None,
    count: Annotated[int, typer.Option("--workers", help="Processes on this machine.", min=1)] = 1,
    output: FormatOption = Format.table,
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Forecast all that a job file asks for and is not stored yet, and publish it if it passed its gates.

    Exit code 75 if another batch is at work on the store.
    """
    from forecast.jobs import load_job
    from forecast.journal import ActiveError, lock

    asked = load_job(job)
    places = data or home("data"), priors or home("priors")
    if dry_run:
        _show_plan(asked, job, store, output, *places)
        return
    try:
        with lock(store), progress_bar() as progress:
            from forecast import publication, scheduling, workers

            todo = scheduling.read_plan(job, asked, *places)
            slots = workers.cluster_slots(scheduler) if scheduler else workers.local_slots(count)
            summary = scheduling.run(
                todo, store, slots, tell=lambda done, of: progress(todo.name, f"{done} of {of}", done / of)
            )
    except ActiveError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(BUSY) from None
    show_found(summary, output, lambda: publication.tables(summary))
    raise typer.Exit(1 if summary["failed"] else 0)


def _show_plan(asked: Any, job: Path, store: Path, output: Format, data: Path, priors: Path) -> None:
    from forecast import reports, scheduling

    todo = scheduling.read_plan(job, asked, data, priors)
    sound, _ = scheduling.survey(todo.steps, store)
    rows = [
        [s.inputs.as_of, s.worldview.name, "stored" if s.key in sound else "to run", s.key]
        for s in sorted(todo.steps, key=lambda s: s.inputs.as_of)
    ]
    fields = ["as_of", "worldview", "state", "key"]
    title = f"{todo.name}: {len(rows) - len(sound)} to run"
    found = [dict(zip(fields, row, strict=True)) for row in rows]
    show_found(found, output, lambda: reports.plain_table(fields, rows, title))
