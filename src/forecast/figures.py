"""Figures of what reports say: a title that states the finding, units on every axis, and the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from forecast.schema import InputError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that colour-blind readers can tell apart (Okabe & Ito), one for each dynamic."""
SCALE = 2.0
"""Pixels of a PNG for each unit of the drawing."""


def weights_over_time(records: Sequence[Mapping[str, Any]]) -> alt.FacetChart:
    """Posterior weight of each dynamic by date, a panel for each worldview, with one standard error.

    Parameters
    ----------
    records
        From `reports.history_record`; dates whose fit failed are left out.

    Raises
    ------
    InputError
        If no date of any worldview passed its gate.
    """
    table = pd.DataFrame(
        [
            {
                "worldview": one["worldview"],
                "as_of": pd.Timestamp(date["as_of"]),
                "dynamic": name,
                "weight": d["posterior"],
                "low": max(0.0, d["posterior"] - d["posterior_se"]),
                "high": min(1.0, d["posterior"] + d["posterior_se"]),
            }
            for one in records
            for date in one["dates"]
            for name, d in date["dynamics"].items()
            if d["posterior"] is not None
        ]
    )
    if table.empty:
        raise InputError("--figure: every fit failed its gate, so there is nothing to draw")
    names = list(dict.fromkeys(table["dynamic"]))
    latest = f"{table['as_of'].max():%Y-%m-%d}"
    base = alt.Chart(table).encode(
        x=alt.X("as_of:T", title="what was known on (date)"),
        color=alt.Color(
            "dynamic:N", sort=names, scale=alt.Scale(domain=names, range=list(COLOURS)[: len(names)])
        ),
    )
    label = "posterior weight (probability)"
    weight = alt.Y("weight:Q", title=label, scale=alt.Scale(domain=[0, 1]))
    band = base.mark_area(opacity=0.25).encode(y=alt.Y("low:Q", title=label), y2="high:Q")
    panels = (band + base.mark_line(point=True).encode(y=weight)).properties(width=260, height=220)
    return (
        panels.facet(column=alt.Column("worldview:N", sort=[r["worldview"] for r in records], title=None))
        .properties(
            title=alt.TitleParams(
                _largest_move(table),
                subtitle=[
                    "Bands: one standard error of the computation.",
                    f"Source: the project's archive as known on each date, the last {latest}.",
                ],
                anchor="start",
            )
        )
        .configure_view(stroke=None)
    )


def _largest_move(table: pd.DataFrame) -> str:
    """The largest change of a weight from first to last date, in words."""
    moves = []
    for (worldview, dynamic), line in table.sort_values("as_of").groupby(
        ["worldview", "dynamic"], sort=False
    ):
        first, last = line.iloc[0], line.iloc[-1]
        dates = f"between {first['as_of']:%Y-%m-%d} and {last['as_of']:%Y-%m-%d}"
        a, b = float(first["weight"]), float(last["weight"])
        verb = "rises" if b > a else "falls"
        text = f"Largest move: under {worldview}, {dynamic} {verb} from {a:.2f} to {b:.2f} {dates}"
        moves.append((abs(b - a), text))
    size, text = max(moves)
    return text if size >= 0.005 else "No weight has moved"


def check_file(path: Path) -> None:
    """Raise `InputError` if a figure cannot be written to `path`."""
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"--figure: '{path}' must end in .svg or .png")
    if not path.parent.is_dir():
        raise InputError(f"--figure: there is no folder {path.parent}; make it first")


def save(chart: alt.TopLevelMixin, path: Path) -> None:
    """Write a chart as SVG or PNG, by the ending of `path`; nothing is fetched."""
    check_file(path)
    drawing = chart.to_json()
    if path.suffix == ".svg":
        path.write_text(vl_convert.vegalite_to_svg(drawing), encoding="utf-8")
    else:
        path.write_bytes(vl_convert.vegalite_to_png(drawing, scale=SCALE))
