"""Figures of what stored runs say: a title that states the finding, units on every axis, and the source.

Each function takes a plain table from `views` and returns a chart that stands alone: `save` writes it, the
page draws the same one.  Two parameters of a chart may be set from outside: ``focus``, the dynamic to
stress, and ``worldview``, the one to draw where a table holds several.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from forecast.schema import InputError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7bb5", "#8c6d46")
"""Colours that colour-blind readers can tell apart: those of Okabe & Ito, the first four for the dynamics,
and two more."""
INK, MUTED, GRID = "#1f2933", "#5b6672", "#dde2e7"
"""Colours of words and data without a dynamic, of axes, and of grid lines."""
SCALE = 2.0
"""Pixels of a PNG for each unit of the drawing."""
NEVER = 2042.5
"""Place of "never" on an axis of dates, past the end of the paths."""
Spec = dict[str, Any]
"""A chart in Vega-Lite's words."""
_IN_FOCUS = "focus === null || !isValid(datum.dynamic) || datum.dynamic === focus"
_CONFIG = {
    "background": "white",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "title": {"color": INK, "subtitleColor": MUTED, "fontSize": 15, "subtitleFontSize": 11, "offset": 12},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": GRID,
        "domainColor": GRID,
        "tickColor": GRID,
        "titleFontWeight": "normal",
    },
    "header": {"labelColor": INK, "labelFontWeight": "bold", "labelLimit": 260},
    "legend": {"labelColor": INK, "titleColor": MUTED, "orient": "bottom", "labelLimit": 260},
    "mark": {"color": INK},
}


# What all figures share ---------------------------------------------------------------------------------


def colour_of(names: Sequence[str]) -> alt.Color:
    """Colour by dynamic."""
    scale = alt.Scale(domain=list(names), range=list(COLOURS)[: len(names)])
    legend = alt.Legend(symbolOpacity=1, symbolType="circle", symbolStrokeWidth=0)
    return alt.Color("dynamic:N", sort=list(names), scale=scale, title=None, legend=legend)


def colour_of_worldviews(names: Sequence[str], legend: Any = alt.Undefined) -> alt.Color:
    """Colour by worldview, none of a dynamic while there are others."""
    scale = alt.Scale(domain=list(names), range=[INK, *COLOURS[4:], *COLOURS[:4]][: len(names)])
    return alt.Color("worldview:N", sort=list(names), title=None, scale=scale, legend=legend)


def faded(shown: float = 1.0) -> Any:
    """Opacity of a mark: full, or faint while another dynamic is in focus."""
    return alt.condition(_IN_FOCUS, alt.value(shown), alt.value(shown / 6))


def finish(
    chart: Any, title: str, source: str, notes: Sequence[str] = (), worldview: str | None = None
) -> Spec:
    """Give a chart its finding, its source, its parameters and its look.

    Parameters
    ----------
    title
        The finding.
    source
        Where the numbers come from, a sentence.
    notes
        How to read the chart.
    worldview
        The one drawn, where the data hold several.
    """
    spec: Spec = chart.to_dict()
    spec |= {
        "title": {"text": title, "subtitle": [*notes, f"Source: {source}"], "anchor": "start"},
        "description": " ".join([f"{title}.", *notes]),
        # Altair would move parameters into the panels, where the rest of a chart does not see them.
        "params": [{"name": "focus", "value": None}],
        "config": _CONFIG,
    }
    if worldview is not None:
        spec["params"].append({"name": "worldview", "value": worldview})
    return spec


def panels(chart: Any, field: str, order: Sequence[str], columns: int) -> Any:
    """A panel for each value of a field, in an order."""
    return chart.facet(
        facet=alt.Facet(
            f"{field}:N",
            sort=list(order),
            title=None,
            header=alt.Header(labelAnchor="start", labelExpr="split(datum.label, '\\n')"),
        ),
        columns=columns,
    )


def names_in(table: pd.DataFrame, column: str) -> list[str]:
    """Values of a column, in order of appearance."""
    return list(dict.fromkeys(table[column]))


def joined(words: Sequence[str]) -> str:
    """Words as an enumeration: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# Weights ------------------------------------------------------------------------------------------------


def leaders(records: Sequence[Mapping[str, Any]]) -> str:
    """Which dynamic has the largest weight under which worldview, in words."""
    led: dict[str, list[str]] = {}
    for one in records:
        known = {n: d["posterior"] for n, d in one["dynamics"].items() if d["posterior"] is not None}
        if known:
            first = max(known, key=known.__getitem__)
            led.setdefault(first, []).append(f"{one['worldview']} ({known[first]:.2f})")
    return "; ".join(f"{name} leads under {joined(where)}" for name, where in led.items()) or "No fit passed"


def weights_now(records: Sequence[Mapping[str, Any]]) -> Spec:
    """Prior and posterior weight of each dynamic, a panel for each worldview, with one standard error.

    Parameters
    ----------
    records
        From `reports.record`, one for each worldview; those whose fit failed are left out.

    Raises
    ------
    InputError
        If every fit failed its gate.
    """
    table = pd.DataFrame(
        [
            {
                "worldview": one["worldview"],
                "dynamic": name,
                "prior": d["prior"],
                "posterior": d["posterior"],
                "error": d["posterior_se"],
                "low": max(0.0, d["posterior"] - d["posterior_se"]),
                "high": min(1.0, d["posterior"] + d["posterior_se"]),
            }
            for one in records
            for name, d in one["dynamics"].items()
            if d["posterior"] is not None
        ]
    )
    if table.empty:
        raise nothing("weights")
    names = names_in(table, "dynamic")
    axis: dict[str, Any] = {
        "scale": alt.Scale(domain=[0, 1]),
        "title": "weight (probability)",
        "axis": alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f"),
    }
    tooltip = [
        alt.Tooltip("worldview:N"),
        alt.Tooltip("dynamic:N"),
        alt.Tooltip("prior:Q", format=".3f"),
        alt.Tooltip("posterior:Q", format=".3f"),
        alt.Tooltip("error:Q", format=".3f", title="standard error"),
    ]
    base = alt.Chart(table).encode(
        y=alt.Y("dynamic:N", sort=names, title=None), color=colour_of(names), opacity=faded(), tooltip=tooltip
    )
    way = base.mark_rule(strokeDash=[2, 3]).encode(x=alt.X("prior:Q", **axis), x2="posterior:Q")
    error = base.mark_rule(strokeWidth=7).encode(x=alt.X("low:Q", **axis), x2="high:Q")
    prior = base.mark_point(filled=False, size=70).encode(x=alt.X("prior:Q", **axis))
    posterior = base.mark_point(filled=True, size=90).encode(x=alt.X("posterior:Q", **axis))
    panel = (way + error + prior + posterior).properties(width=220, height=130)
    return finish(
        panels(panel, "worldview", names_in(table, "worldview"), 3),
        leaders(records),
        f"the project's archive as known on {joined(sorted({r['as_of'] for r in records}))}.",
        ["Open: prior odds. Filled: posterior, with one standard error of the computation."],
    )


def weights_over_time(records: Sequence[Mapping[str, Any]]) -> Spec:
    """Posterior weight of each dynamic by date, a panel for each worldview, with one standard error.

    Parameters
    ----------
    records
        From `reports.history_record` or `views.by_worldview`; dates whose fit failed are left out.

    Raises
    ------
    InputError
        If no date of any worldview passed its gate.
    """
    table = pd.DataFrame(
        [
            {
                "worldview": one["worldview"],
                "as_of": date["as_of"],
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
        raise nothing("weights")
    names = names_in(table, "dynamic")
    label = "posterior weight (probability)"
    base = alt.Chart(table).encode(
        x=alt.X(
            "as_of:T",
            title="what was known on (date)",
            axis=alt.Axis(format="%b %Y", labelAngle=-40, tickCount=5),
        ),
        color=colour_of(names),
    )
    weight = alt.Y("weight:Q", title=label, scale=alt.Scale(domain=[0, 1]))
    band = base.mark_area().encode(y=alt.Y("low:Q", title=label), y2="high:Q", opacity=faded(0.25))
    line = base.mark_line().encode(y=weight, opacity=faded())
    point = base.mark_point(filled=True, size=45).encode(
        y=weight,
        opacity=faded(),
        tooltip=[
            alt.Tooltip("worldview:N"),
            alt.Tooltip("dynamic:N"),
            alt.Tooltip("as_of:N", title="known on"),
            alt.Tooltip("weight:Q", format=".3f"),
        ],
    )
    shown = set(table["worldview"])
    return finish(
        panels(
            (band + line + point).properties(width=240, height=200),
            "worldview",
            [r["worldview"] for r in records if r["worldview"] in shown],
            3,
        ),
        _largest_move(table),
        f"the project's archive as known on each date, the last {max(table['as_of'])}.",
        ["Bands: one standard error of the computation."],
    )


def _largest_move(table: pd.DataFrame) -> str:
    """The largest change of a weight from first to last date, in words."""
    moves = []
    for (worldview, dynamic), line in table.sort_values("as_of").groupby(
        ["worldview", "dynamic"], sort=False
    ):
        first, last = line.iloc[0], line.iloc[-1]
        dates = f"between {first['as_of']} and {last['as_of']}"
        a, b = float(first["weight"]), float(last["weight"])
        verb = "rises" if b > a else "falls"
        text = f"Largest move: under {worldview}, {dynamic} {verb} from {a:.2f} to {b:.2f} {dates}"
        moves.append((abs(b - a), text))
    size, text = max(moves)
    return text if size >= 0.005 else "No weight has moved"


# Milestones ---------------------------------------------------------------------------------------------


def milestones(table: pd.DataFrame, titles: Mapping[str, str], shown: Sequence[str], as_of: str) -> Spec:
    """Probability that each milestone has happened by a date, a line for each worldview, and "never".

    Parameters
    ----------
    table
        From `views.milestone_table`.
    titles
        Title by milestone.
    shown
        Milestones with a panel.
    as_of
        Date of the data, YYYY-MM-DD.
    """
    # A worldview's own line has no dynamic; its column says so with an empty name.
    chosen = table[table["milestone"].isin(shown) & (table["dynamic"] == "")].drop(columns="dynamic")
    if chosen.empty:
        raise nothing("milestones")
    views = names_in(chosen, "worldview")
    chosen = chosen.assign(title=chosen["milestone"].map(lambda m: _wrapped(titles[m])))
    dash = alt.StrokeDash(
        "worldview:N", sort=views, title=None, scale=alt.Scale(domain=views, range=_DASHES[: len(views)])
    )
    panel = _cdf(chosen, colour_of_worldviews(views), dash, ["worldview:N"])
    by = chosen[chosen["date"] == 2030.0].groupby("milestone", sort=False)["probability"]
    apart = str((by.max() - by.min()).idxmax())
    low, high = 100 * float(by.min()[apart]), 100 * float(by.max()[apart])
    words = f"{low:.0f} %" if len(views) == 1 else f"{low:.0f} % to {high:.0f} % by worldview"
    return finish(
        panels(panel, "title", [_wrapped(titles[m]) for m in shown], 3),
        f"By 2030, {words}: {titles[apart]}",
        f"stored runs; the project's archive as known on {as_of}.",
        ["Far right: probability of not happening by 2041. Bars: one standard error of the draws."],
    )


_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])


def own_milestones(names: Sequence[str]) -> Spec:
    """Empty chart of one milestone by dynamic and for a reader's own odds; the page gives it its data."""
    kinds = [*names, "your odds"]
    colour = alt.Color(
        "kind:N", sort=kinds, title=None, scale=alt.Scale(domain=kinds, range=[*COLOURS[: len(names)], INK])
    )
    panel = _cdf(
        alt.NamedData("own"), colour, alt.value([1, 0]), ["kind:N"], strong="datum.kind === 'your odds'"
    )
    return finish(panel.properties(width=560, height=260), "Your own prior", "stored runs")


def _cdf(
    table: pd.DataFrame | alt.NamedData, colour: Any, dash: Any, also: list[str], strong: str = "true"
) -> Any:
    x = alt.X(
        "date:Q",
        title="by 1 January",
        scale=alt.Scale(domain=[2026, NEVER + 0.5], nice=False),
        axis=alt.Axis(
            values=[2026, 2030, 2035, 2040, NEVER],
            labelExpr=f"datum.value > {NEVER - 1} ? 'never' : datum.value",
        ),
    )
    y = alt.Y("probability:Q", title="probability", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    base = (
        alt.Chart(table)
        .transform_calculate(
            low="max(0, datum.probability - datum.error)", high="min(1, datum.probability + datum.error)"
        )
        .encode(x=x, color=colour)
    )
    lines = (
        base.transform_filter(f"datum.date < {NEVER}")
        .mark_line(interpolate="step-after")
        .encode(
            y=y,
            strokeDash=dash,
            opacity=faded(),
            strokeWidth=alt.condition(strong, alt.value(2.5), alt.value(1.2)),
            tooltip=[
                *also,
                alt.Tooltip("date:Q", title="by 1 January", format="d"),
                alt.Tooltip("probability:Q", format=".3f"),
                alt.Tooltip("error:Q", title="standard error", format=".3f"),
            ],
        )
    )
    never = base.transform_filter(f"datum.date === {NEVER}")
    bars = never.mark_rule().encode(y=alt.Y("low:Q", title="probability"), y2="high:Q", opacity=faded())
    points = never.mark_point(filled=True, size=60).encode(
        y=y,
        opacity=faded(),
        tooltip=[*also, alt.Tooltip("probability:Q", title="never by 2041", format=".3f")],
    )
    return (lines + bars + points).properties(width=240, height=160)


def _wrapped(title: str) -> str:
    """A title in two lines at most; the whole stands in the table beside a figure."""
    return "\n".join(textwrap.wrap(title, 38, max_lines=2, placeholder=" …"))


def nothing(what: str) -> InputError:
    """What to raise when there is nothing to draw."""
    return InputError(f"{what}: every stored fit failed its gate, so there is nothing to draw")


# Files --------------------------------------------------------------------------------------------------


def check_file(path: Path, option: str = "--figure") -> None:
    """Raise `InputError` if a figure cannot be written to `path`."""
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"{option}: '{path}' must end in .svg or .png")
    if not path.parent.is_dir():
        raise InputError(f"{option}: there is no folder {path.parent}; make it first")


def svg(spec: Spec) -> str:
    """Draw a chart as SVG; nothing is fetched."""
    return str(vl_convert.vegalite_to_svg(spec))


def save(spec: Spec, path: Path) -> None:
    """Write a chart as SVG or PNG, by the ending of `path`; nothing is fetched."""
    check_file(path)
    if path.suffix == ".svg":
        path.write_text(svg(spec), encoding="utf-8")
    else:
        path.write_bytes(vl_convert.vegalite_to_png(spec, scale=SCALE))
