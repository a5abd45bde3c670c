"""Commands that draw: `plot` and `report`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from forecast.console import DataOption, PriorsOption, StoreOption, app, home
from forecast.schema import InputError


class Figure(StrEnum):
    """What `forecast plot` draws."""

    weights = "weights"
    paths = "paths"
    milestones = "milestones"
    absorption = "absorption"
    indicators = "indicators"


class Quantity(StrEnum):
    """Quantity of the paths that `forecast plot paths` draws."""

    e = "e"
    m = "m"
    W = "W"
    H = "H"


WorldviewOption = Annotated[
    list[str] | None, typer.Option("--worldview", help="Worldview to draw; repeat for several. Default all.")
]
ScenariosOption = Annotated[
    Path | None, typer.Option("--scenarios", help="What `forecast whatif --format json` printed.")
]
BacktestOption = Annotated[
    Path | None, typer.Option("--backtest", help="What `forecast backtest --format json` printed.")
]
ExplainedOption = Annotated[
    Path | None, typer.Option("--explained", help="What `forecast explain --format json` printed.")
]


@app.command()
def plot(
    what: Figure,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, .svg or .png; default FIGURE.svg.")
    ] = None,
    worldview: WorldviewOption = None,
    quantity: Annotated[Quantity, typer.Option(help="Quantity of the paths.")] = Quantity.W,
    explained: ExplainedOption = None,
    store: StoreOption = Path("runs"),
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Draw a figure of what is stored, the same as the page has."""
    from forecast import figures

    to = to or Path(f"{what.value}.svg")
    figures.check_file(to, "--output")
    figures.save(_chart(what, worldview or [], quantity.value, explained, store, data, priors), to)
    print(to)


@app.command()
def report(
    to: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("report.html"),
    worldview: WorldviewOption = None,
    explained: ExplainedOption = None,
    scenarios: ScenariosOption = None,
    backtest: BacktestOption = None,
    store: StoreOption = Path("runs"),
    data: DataOption = None,
    priors: PriorsOption = None,
) -> None:
    """Write what is stored as one page that opens from disk: headline, your own prior, figures, data."""
    if not to.parent.is_dir():
        raise InputError(f"--output: there is no folder {to.parent}; make it first")
    from forecast import page, prediction, views
    from forecast.worldviews import load_worldviews

    folder = data or home("data")
    last, dated = views.load(store, load_worldviews(priors or home("priors")), worldview or [])
    archive, rows = views.evidence_rows(folder, max(one.record["as_of"] for one in last))
    titles = prediction.titles(prediction.load_milestones(folder / "milestones.toml"))
    parts = page.Parts(
        last,
        dated,
        rows,
        dict(archive.indicators["title"]),
        titles,
        _said(explained, *_EXPLAINED) if explained else (),
        _said(scenarios, *_SCENARIOS) if scenarios else (),
        _said(backtest, *_BACKTEST)[0] if backtest else None,
    )
    page.write(page.render(parts), to)
    print(to)


def _chart(
    what: Figure,
    chosen: list[str],
    quantity: str,
    explained: Path | None,
    store: Path,
    data: Path | None,
    priors: Path | None,
) -> Any:
    """The figure of `plot`."""
    from forecast import figures, indicator_figures, path_figures, views
    from forecast.worldviews import load_worldviews

    if what is Figure.absorption:
        from forecast import absorption_figures

        return absorption_figures.account(_said(explained, *_EXPLAINED))
    last, dated = views.load(store, load_worldviews(priors or home("priors")), chosen)
    if what is Figure.weights:
        if any(len(one["dates"]) > 1 for one in dated):
            return figures.weights_over_time(dated)
        return figures.weights_now([one.record for one in last])
    folder, as_of = data or home("data"), last[0].record["as_of"]
    if what is Figure.milestones:
        from forecast import prediction, reports

        titles = prediction.titles(prediction.load_milestones(folder / "milestones.toml"))
        return figures.milestones(views.milestone_table(last), titles, reports.KEY_MILESTONES, as_of)
    archive, rows = views.evidence_rows(folder, as_of)
    if what is Figure.paths:
        return path_figures.paths(views.path_table(last[:1], rows), quantity, last[0].worldview.name, as_of)
    table = views.indicator_table(rows, dict(archive.indicators["title"]))
    return indicator_figures.indicators(table, views.gaps(last[0]), last[0].worldview.name, as_of)


_EXPLAINED = ("--explained", "forecast explain", ("worldview", "as_of", "account", "pairs"))
_SCENARIOS = ("--scenarios", "forecast whatif", ("worldview", "title", "weights"))
_BACKTEST = ("--backtest", "forecast backtest", ("truth", "origins", "scores", "skill"))


def _said(path: Path | None, option: str, command: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """What another command printed as JSON: one entry or a list of them, each with some fields."""
    maker = f"{command} --format json"
    if path is None:
        raise InputError(f"{option}: name the file that holds what `{maker}` printed")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise InputError(f"{option}: {path} is not JSON ({error}); make it with `{maker}`") from None
    entries = said if isinstance(said, list) else [said]
    for number, entry in enumerate(entries, 1):
        for field in fields:
            if not isinstance(entry, dict) or field not in entry:
                raise InputError(
                    f"{option}: {path}: entry {number} lacks '{field}'; make the file with `{maker}`"
                )
    return entries
