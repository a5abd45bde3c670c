"""What the commands share: the application, common options, and how results and progress are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

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


class LateLines(StrEnum):
    """What to do with priors that rest on information newer than a date."""

    keep = "keep"
    widen = "widen"


def home(name: str) -> Path:
    """Folder `name` here, or in the project this package was installed from."""
    here = Path(name)
    return here if here.is_dir() else Path(__file__).parents[2] / name


DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of the archive; default data/.")]
PriorsOption = Annotated[Path | None, typer.Option("--priors", help="Folder of worldviews; default priors/.")]
StoreOption = Annotated[Path, typer.Option(help="Folder that keeps runs.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Table for people or JSON for programs.")]
LateOption = Annotated[
    LateLines,
    typer.Option("--late-lines", help="Priors informed later than a date: keep them, or widen them."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the sampler; same seed, same numbers.", min=0)]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="Day whose knowledge counts, YYYY-MM-DD; default the latest.")
]


def show_table(renderable: Any) -> None:
    """Print a table or text on standard output."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(renderable)


def show_found(found: Any, output: Format, tables: Callable[[], Any]) -> None:
    """Print what a command found: itself as JSON, or the table that is made of it."""
    if output is Format.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        show_table(tables())


class progress_bar:
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
        """Show what is being done and the share done."""
        # Temperatures grow by factors, so their logarithm is the fairer measure of progress.
        done = share**0.25 if what == "tempering" else share
        self.bar.update(self.task, description=f"{worldview}: {what}", completed=done)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def report_problems(problems: list[str], good: str) -> None:
    """End with code 2 after printing problems a line each, or print that all is good."""
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    print(good)
