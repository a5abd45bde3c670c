"""Figures of paths: each quantity under each dynamic, with bands and the data that speak of it."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from forecast.figures import INK, Spec, colour_of, finish, names_in, nothing, panels

PATHS: dict[str, dict[str, Any]] = {
    "e": {"title": "capability e (nats since 2023)", "scale": alt.Scale(domain=[-2, 40])},
    "m": {
        "title": "output per researcher m (times)",
        "scale": alt.Scale(type="log", domain=[0.5, 10_000]),
        "axis": alt.Axis(values=[1, 10, 100, 1000, 10_000], format="~s"),
    },
    "W": {
        "title": "overall pace W (times)",
        "scale": alt.Scale(type="log", domain=[1, 100]),
        "axis": alt.Axis(values=[1, 2, 5, 10, 20, 50, 100]),
    },
    "H": {
        "title": "human share of tasks H",
        "scale": alt.Scale(domain=[0, 1]),
        "axis": alt.Axis(format="%"),
    },
}
"""Quantities of a path that are drawn, with their vertical axes."""
SHOWN = (2023, 2036)
"""Years that the figures of paths show."""
_TAKEN = {
    "e": "METR horizons and Epoch's index at the run's posterior medians; most models trail the frontier.",
    "m": "what staff report (circles) and trials measure (diamonds), as stated, without any correction.",
    "W": "companies' statements; a triangle is a bound.",
    "H": "none. Nobody publishes the human share of today's tasks.",
}


def paths(table: pd.DataFrame, quantity: str, worldview: str, as_of: str) -> Spec:
    """Paths of one quantity with bands and the data on them, a panel for each dynamic.

    Parameters
    ----------
    table
        From `views.path_table`.
    quantity
        A key of `PATHS`.
    worldview
        The one drawn first.
    as_of
        Date of the data, YYYY-MM-DD.
    """
    chosen = table[table["quantity"] == quantity]
    names = names_in(chosen, "dynamic")
    y = PATHS[quantity]
    x = alt.X(
        "time:Q",
        title="year",
        scale=alt.Scale(domain=list(SHOWN), nice=False),
        axis=alt.Axis(format="d", values=[2024, 2028, 2032, 2036]),
    )
    base = alt.Chart(chosen.drop(columns="quantity")).transform_filter("datum.worldview === worldview")
    bands = base.transform_filter("datum.what === 'band'").encode(x=x, color=colour_of(names).legend(None))
    wide = bands.mark_area(clip=True, opacity=0.18).encode(y=alt.Y("q05:Q", **y), y2="q95:Q")
    narrow = bands.mark_area(clip=True, opacity=0.3).encode(y=alt.Y("q25:Q", **y), y2="q75:Q")
    line = bands.mark_line(clip=True, strokeWidth=2.5).encode(
        y=alt.Y("q50:Q", **y),
        tooltip=[
            alt.Tooltip("dynamic:N"),
            alt.Tooltip("time:Q", title="year", format=".2f"),
            *(alt.Tooltip(f"q{q:02d}:Q", title=f"{q} %", format=".3~g") for q in (5, 25, 50, 75, 95)),
        ],
    )
    data = base.transform_filter("datum.what !== 'band'").encode(
        x=x,
        y=alt.Y("value:Q", **y),
        shape=alt.Shape(
            "what:N",
            legend=None,
            scale=alt.Scale(
                domain=["at most", "at least", "trial", "report", "horizon", "index"],
                range=["triangle-down", "triangle-up", "diamond", "circle", "diamond", "circle"],
            ),
        ),
        tooltip=[
            alt.Tooltip("label:N", title="row"),
            alt.Tooltip("what:N", title="kind"),
            alt.Tooltip("value:Q", format=".3~g"),
        ],
    )
    points = data.mark_point(filled=True, size=22, color=INK, opacity=0.55, clip=True)
    return finish(
        panels((wide + narrow + line + points).properties(width=170, height=170), "dynamic", names, 4),
        path_finding(table, quantity, worldview),
        f"stored runs; the project's archive as known on {as_of}.",
        path_notes(quantity, worldview),
        worldview,
    )


def path_notes(quantity: str, worldview: str) -> list[str]:
    """How to read a figure of paths."""
    return [f"Worldview {worldview}. Line: median. Bands: 50 % and 90 %.", f"Data: {_TAKEN[quantity]}"]


def path_finding(table: pd.DataFrame, quantity: str, worldview: str) -> str:
    """Lowest and highest median in 2030 of a table from `views.path_table`, in words."""
    what = {
        "e": "capability, nats",
        "m": "output per researcher, times",
        "W": "overall pace, times",
        "H": "human share",
    }
    mine = table[(table["worldview"] == worldview) & (table["quantity"] == quantity)]
    now = mine[(mine["what"] == "band") & (mine["time"] == 2030.0)]
    if now.empty:
        raise nothing("paths")
    low, high = now.iloc[int(now["q50"].argmin())], now.iloc[int(now["q50"].argmax())]

    def show(x: float) -> str:
        return f"{100 * x:.0f} %" if quantity == "H" else f"{float(f'{x:.3g}'):,g}" if x < 1e9 else f"{x:.0e}"

    return (
        f"By 2030, {what[quantity]}: {show(low['q50'])} ({low['dynamic']}) to {show(high['q50'])} "
        f"({high['dynamic']}) in the median"
    )
