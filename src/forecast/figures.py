"""Figures of what stored runs say: a title that states the finding, units on every axis, and the source.

Each function takes a plain table from `views` and returns a chart that stands alone: `save` writes it, the page
draws the same one.  Two parameters of a chart may be set from outside: ``focus``, the dynamic to stress, and
``worldview``, the one to draw where a table holds several.
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

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that colour-blind readers can tell apart (Okabe & Ito), one for each dynamic."""
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


def _colour(names: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(names), range=list(COLOURS)[: len(names)])
    legend = alt.Legend(symbolOpacity=1, symbolType="circle", symbolStrokeWidth=0)
    return alt.Color("dynamic:N", sort=list(names), scale=scale, title=None, legend=legend)


def _faded(shown: float = 1.0) -> Any:
    """Opacity of a mark: full, or faint while another dynamic is in focus."""
    return alt.condition(_IN_FOCUS, alt.value(shown), alt.value(shown / 6))


def _finish(
    chart: Any, title: str, source: str, notes: Sequence[str] = (), worldview: str | None = None
) -> Spec:
    """Give a chart its finding, its source, its parameters and its look."""
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


def _panels(chart: Any, field: str, order: Sequence[str], columns: int) -> Any:
    return chart.facet(
        facet=alt.Facet(f"{field}:N", sort=list(order), title=None, header=alt.Header(labelAnchor="start", labelExpr="split(datum.label, '\\n')")),
        columns=columns,
    )


def _names(table: pd.DataFrame, column: str) -> list[str]:
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
        raise _nothing("weights")
    names = _names(table, "dynamic")
    axis = {"scale": alt.Scale(domain=[0, 1]), "title": "weight (probability)"}
    tooltip = [
        alt.Tooltip("worldview:N"),
        alt.Tooltip("dynamic:N"),
        alt.Tooltip("prior:Q", format=".3f"),
        alt.Tooltip("posterior:Q", format=".3f"),
        alt.Tooltip("error:Q", format=".3f", title="standard error"),
    ]
    base = alt.Chart(table).encode(
        y=alt.Y("dynamic:N", sort=names, title=None), color=_colour(names), opacity=_faded(), tooltip=tooltip
    )
    way = base.mark_rule(strokeDash=[2, 3]).encode(x=alt.X("prior:Q", **axis), x2="posterior:Q")
    error = base.mark_rule(strokeWidth=7).encode(x=alt.X("low:Q", **axis), x2="high:Q")
    prior = base.mark_point(filled=False, size=70).encode(x=alt.X("prior:Q", **axis))
    posterior = base.mark_point(filled=True, size=90).encode(x=alt.X("posterior:Q", **axis))
    panel = (way + error + prior + posterior).properties(width=220, height=130)
    return _finish(
        _panels(panel, "worldview", _names(table, "worldview"), 3),
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
        raise _nothing("weights")
    names = _names(table, "dynamic")
    label = "posterior weight (probability)"
    base = alt.Chart(table).encode(
        x=alt.X("as_of:T", title="what was known on (date)", axis=alt.Axis(format="%b %Y", labelAngle=-40)),
        color=_colour(names),
    )
    weight = alt.Y("weight:Q", title=label, scale=alt.Scale(domain=[0, 1]))
    band = base.mark_area().encode(y=alt.Y("low:Q", title=label), y2="high:Q", opacity=_faded(0.25))
    line = base.mark_line().encode(y=weight, opacity=_faded())
    point = base.mark_point(filled=True, size=45).encode(
        y=weight,
        opacity=_faded(),
        tooltip=[
            alt.Tooltip("worldview:N"),
            alt.Tooltip("dynamic:N"),
            alt.Tooltip("as_of:N", title="known on"),
            alt.Tooltip("weight:Q", format=".3f"),
        ],
    )
    shown = set(table["worldview"])
    return _finish(
        _panels(
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


# Paths --------------------------------------------------------------------------------------------------

PATHS: dict[str, dict[str, Any]] = {
    "e": {"title": "capability e (nats since 2023)", "scale": alt.Scale(domain=[-2, 40])},
    "m": {
        "title": "output per researcher m (times without AI)",
        "scale": alt.Scale(type="log", domain=[0.5, 10_000]),
        "axis": alt.Axis(values=[1, 10, 100, 1000, 10_000], format="~s"),
    },
    "W": {
        "title": "overall pace W (times without AI)",
        "scale": alt.Scale(type="log", domain=[1, 100]),
        "axis": alt.Axis(values=[1, 2, 5, 10, 20, 50, 100]),
    },
    "H": {
        "title": "human share H of tasks then required",
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
    names = _names(chosen, "dynamic")
    y = PATHS[quantity]
    x = alt.X(
        "time:Q",
        title="year",
        scale=alt.Scale(domain=list(SHOWN), nice=False),
        axis=alt.Axis(format="d", values=[2024, 2028, 2032, 2036]),
    )
    base = alt.Chart(chosen.drop(columns="quantity")).transform_filter("datum.worldview === worldview")
    bands = base.transform_filter("datum.what === 'band'").encode(x=x, color=_colour(names).legend(None))
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
    return _finish(
        _panels((wide + narrow + line + points).properties(width=170, height=170), "dynamic", names, 4),
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
        raise _nothing("paths")
    low, high = now.loc[now["q50"].idxmin()], now.loc[now["q50"].idxmax()]
    show = "{:.0%}".format if quantity == "H" else "{:.3g}".format
    return (
        f"By 2030, {what[quantity]}: {show(low['q50'])} ({low['dynamic']}) to {show(high['q50'])} "
        f"({high['dynamic']}) in the median"
    )


# Milestones ---------------------------------------------------------------------------------------------


def milestones(
    table: pd.DataFrame, titles: Mapping[str, str], shown: Sequence[str], as_of: str
) -> Spec:
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
        raise _nothing("milestones")
    views = _names(chosen, "worldview")
    chosen = chosen.assign(title=chosen["milestone"].map(lambda m: _wrapped(titles[m])))
    colour = alt.Color(
        "worldview:N",
        sort=views,
        title=None,
        scale=alt.Scale(domain=views, range=[INK, *COLOURS[4:], *COLOURS[:4]][: len(views)]),
    )
    dash = alt.StrokeDash(
        "worldview:N", sort=views, title=None, scale=alt.Scale(domain=views, range=_DASHES[: len(views)])
    )
    panel = _cdf(chosen, colour, dash, ["worldview:N"])
    by = chosen[chosen["date"] == 2030.0].groupby("milestone", sort=False)["probability"]
    apart = (by.max() - by.min()).idxmax()
    low, high = 100 * by.min()[apart], 100 * by.max()[apart]
    words = f"{low:.0f} %" if len(views) == 1 else f"{low:.0f} % to {high:.0f} % by worldview"
    return _finish(
        _panels(panel, "title", [_wrapped(titles[m]) for m in shown], 3),
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
    panel = _cdf(alt.NamedData("own"), colour, alt.value([1, 0]), ["kind:N"], strong="datum.kind === 'your odds'")
    return _finish(panel.properties(width=560, height=260), "Your own prior", "stored runs")


def _cdf(table: pd.DataFrame | alt.NamedData, colour: Any, dash: Any, also: list[str], strong: str = "true") -> Any:
    x = alt.X(
        "date:Q",
        title="by 1 January",
        scale=alt.Scale(domain=[2026, NEVER + 0.5], nice=False),
        axis=alt.Axis(
            values=[2026, 2030, 2035, 2040, NEVER], labelExpr=f"datum.value > {NEVER - 1} ? 'never' : datum.value"
        ),
    )
    y = alt.Y(
        "probability:Q", title="probability", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")
    )
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
            opacity=_faded(),
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
    bars = never.mark_rule().encode(y=alt.Y("low:Q", title="probability"), y2="high:Q", opacity=_faded())
    points = never.mark_point(filled=True, size=60).encode(
        y=y, opacity=_faded(), tooltip=[*also, alt.Tooltip("probability:Q", title="never by 2041", format=".3f")]
    )
    return (lines + bars + points).properties(width=240, height=160)


def _wrapped(title: str) -> str:
    """A title in two lines at most; the whole stands in the table beside a figure."""
    return "\n".join(textwrap.wrap(title, 38, max_lines=2, placeholder=" …"))


def _nothing(what: str) -> InputError:
    return InputError(f"{what}: every stored fit failed its gate, so there is nothing to draw")


# Indicators ---------------------------------------------------------------------------------------------

_SCORE = {"title": "score (%)", "scale": alt.Scale(domain=[0, 100])}
_SHARE = {"title": "share (%)", "scale": alt.Scale(domain=[0, 100])}
_TIMES = {
    "title": "as stated (times)",
    "scale": alt.Scale(type="log", domain=[0.5, 10]),
    "axis": alt.Axis(values=[0.5, 1, 2, 5, 10]),
}
_MINUTES = {
    "title": "50 % horizon (minutes)",
    "scale": alt.Scale(type="log", domain=[1, 3000]),
    "axis": alt.Axis(values=[1, 10, 100, 1000], format="~s"),
}
PANELS: dict[str, tuple[str, dict[str, Any]]] = {
    "long tasks": ("1 Broad: long tasks (METR)", _MINUTES),
    "broad index": ("1 Broad: index (Epoch AI)", {"title": "points", "scale": alt.Scale(zero=False)}),
    "messy tasks": ("1 Broad: messy tasks", _SCORE),
    "new facts": ("1 Broad: new facts and skills", _SCORE),
    "engineering": ("2 Ladder, rung 1: engineering", _SCORE),
    "experiments": ("2 Ladder, rung 2: experiments", _SCORE),
    "ideation": ("2 Ladder, rung 3: ideation", {}),
    "strategy": ("2 Ladder, rung 4: strategy", {}),
    "output per researcher": ("3 Companies: output per researcher", _TIMES),
    "pace": ("3 Companies: overall pace", _TIMES),
    "delegated work": ("3 Companies: code or work by AI", _SHARE),
    "impressions": ("3 Companies: “drop-in researcher”", _SHARE | {"title": "staff saying yes (%)"}),
}
"""Panels by name: title with the category's number, and the vertical axis."""
UNOBSERVED = {"ideation": "g3", "strategy": "g4"}
"""Rungs without a benchmark in the likelihood, and the gap that leads up to each."""


def indicators(
    table: pd.DataFrame, gaps: Mapping[str, tuple[float, float, float]], worldview: str, as_of: str
) -> Spec:
    """The evidence: three categories, and a ladder whose two upper rungs have no data.

    Parameters
    ----------
    table
        From `views.indicator_table`.
    gaps
        From `views.gaps`, of `worldview`.
    as_of
        Date of the data, YYYY-MM-DD.
    """
    panels = []
    size = {"width": 190, "height": 140}
    for name, (title, y) in PANELS.items():
        rows = table[table["panel"] == name].drop(columns="panel")
        head = alt.TitleParams(title, fontSize=12, anchor="start", frame="group")
        if name in UNOBSERVED or rows.empty:
            words = ["No benchmark enters: what", "the model says here is prior."]
            if gap := gaps.get(UNOBSERVED.get(name, "")):
                words += [f"Gap below it, {worldview}:", "{1:.1f} nats (90 %: {0:.1f} to {2:.1f})".format(*gap)]
            empty = alt.Chart(pd.DataFrame({"time": [0.0]})).mark_text(
                text=words, color=MUTED, fontSize=11, lineHeight=16, align="center", dy=-16
            )
            frame = alt.ViewConfig(stroke=MUTED, strokeDash=[3, 4])
            panels.append(empty.properties(title=head, view=frame, **size))
            continue
        points = alt.Chart(rows).mark_point(filled=True, size=24, opacity=0.6, color=INK)
        encoded = points.encode(
            x=alt.X(
                "time:Q",
                title=None,
                scale=alt.Scale(domain=[2023, float(int(table["time"].max()) + 1)]),
                axis=alt.Axis(format="d", tickCount=3),
            ),
            y=alt.Y("value:Q", **y),
            tooltip=[
                alt.Tooltip("label:N", title="row"),
                alt.Tooltip("series:N", title="indicator"),
                alt.Tooltip("value:Q", format=".3~g"),
            ],
        )
        panels.append(encoded.properties(title=head, **size))
    # Without a shared y each panel keeps its unit.
    chart = alt.concat(*panels, columns=4).resolve_scale(y="independent", x="independent")
    return _finish(
        chart,
        f"{len(table)} published values speak on tasks, benchmarks and companies; none on ideation or strategy",
        f"the project's archive as known on {as_of}; each row's own source stands in the table of data.",
        ["Rows of the likelihood: 1 broad capability, 2 the ladder of R&D benchmarks, 3 signs inside companies."],
    )


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
