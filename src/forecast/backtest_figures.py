"""Figures of what `forecast backtest` prints: skill against simple baselines, and coverage of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from forecast.figures import MUTED, Spec, colour_of_worldviews, finish, names_in, panels

_LEVELS = (50, 80, 95)
_CIRCLE = alt.Legend(symbolType="circle")


def by_horizon(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Scores or skill over all categories, by horizon."""
    return [e for e in entries if e["category"] == "all" and e["horizon"] != "all"]


def of_mixtures(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`by_horizon` of what each worldview forecasts as a whole, which the figures draw."""
    return [e for e in by_horizon(entries) if e["forecaster"] == "mixture"]


def skill(scored: Mapping[str, Any]) -> Spec:
    """Mean log score of each worldview's mixture over that of each baseline, nats a row, by horizon.

    Parameters
    ----------
    scored
        What `forecast backtest --format json` prints.
    """
    keys = ("worldview", "horizon", "baseline", "rows", "log_score", "log_score_low", "log_score_high")
    table = pd.DataFrame([{k: e[k] for k in keys} for e in of_mixtures(scored["skill"])])
    table["baseline"] = "against the " + table["baseline"].str.replace("_", " ")
    base = alt.Chart(table).encode(
        y=alt.Y("horizon:N", sort=names_in(table, "horizon"), title="published after"),
        yOffset=alt.YOffset("worldview:N", sort=names_in(table, "worldview")),
        color=colour_of_worldviews(names_in(table, "worldview"), _CIRCLE),
        tooltip=[
            *(alt.Tooltip(f"{n}:N") for n in ("worldview", "horizon", "baseline")),
            "rows:Q",
            *(
                alt.Tooltip(f"{n}:Q", format="+.2f", title=title)
                for n, title in (
                    ("log_score", "nats a row"),
                    ("log_score_low", "low"),
                    ("log_score_high", "high"),
                )
            ),
        ],
    )
    axis: dict[str, Any] = {"title": "log score above the baseline's (nats a row)"}
    zero = alt.Chart(table).mark_rule(color=MUTED).encode(x=alt.datum(0))
    known = base.transform_filter("isValid(datum.log_score_low)")
    error = known.mark_rule(strokeWidth=2).encode(x=alt.X("log_score_low:Q", **axis), x2="log_score_high:Q")
    point = base.mark_point(filled=True, size=60).encode(x=alt.X("log_score:Q", **axis))
    panel = (zero + error + point).properties(width=300, height=150)
    return finish(
        panels(panel, "baseline", names_in(table, "baseline"), 2),
        _found(table),
        f"forecasts of {_origins(scored)}, scored on values known on {scored['truth']}.",
        [
            "Above zero the engine predicted better, on rows for which the baseline has a forecast.",
            "Lines: 90 % bootstrap intervals over origins; none where a few origins are all there is.",
        ],
    )


def _found(table: pd.DataFrame) -> str:
    """Where the mixtures beat the baselines beyond doubt."""
    clear = table["log_score_low"] > 0
    lost = table["log_score_high"] < 0
    known = table["log_score_low"].notna()
    text = f"Mixtures beat simple baselines in {int(clear.sum())} of {int(known.sum())} comparisons"
    return f"{text} with an interval and lose in {int(lost.sum())}"


def _origins(scored: Mapping[str, Any]) -> str:
    days = sorted({one["as_of"] for one in scored["origins"]})
    return " to ".join(dict.fromkeys([days[0], days[-1]]))


def coverage(scored: Mapping[str, Any]) -> Spec:
    """Share of published values inside the central intervals of each worldview's mixture, by horizon.

    Parameters
    ----------
    scored
        What `forecast backtest --format json` prints.
    """
    table = pd.DataFrame(
        [
            {
                "worldview": e["worldview"],
                "horizon": e["horizon"],
                "rows": e["rows"],
                "level": level / 100,
                "covered": e[f"covered_{level}"],
            }
            for e in of_mixtures(scored["scores"])
            for level in _LEVELS
        ]
    )
    percent = alt.Axis(values=[0.5, 0.8, 0.95], format=".0%")
    scale = alt.Scale(domain=[0.25, 1])
    base = alt.Chart(table).encode(
        x=alt.X("level:Q", title="interval", scale=scale, axis=percent),
        y=alt.Y("covered:Q", title="values inside", scale=scale, axis=percent),
        color=colour_of_worldviews(names_in(table, "worldview"), _CIRCLE),
        tooltip=[
            *(alt.Tooltip(f"{n}:N") for n in ("worldview", "horizon")),
            "rows:Q",
            *(alt.Tooltip(f"{n}:Q", format=".0%") for n in ("level", "covered")),
        ],
    )
    right = (
        alt.Chart(table)
        .mark_line(color=MUTED, strokeDash=[3, 3])
        .encode(x=alt.X("level:Q", scale=scale), y=alt.Y("level:Q", scale=scale))
    )
    panel = (right + base.mark_line() + base.mark_point(filled=True, size=50)).properties(
        width=200, height=180
    )
    inside = table.loc[table["level"] == 0.8, "covered"]
    low, high = f"{100 * inside.min():.0f}", f"{100 * inside.max():.0f}"
    verdict = (
        "are too narrow" if inside.max() < 0.8 else "are too wide" if inside.min() > 0.8 else "about held"
    )
    return finish(
        panels(panel, "horizon", names_in(table, "horizon"), 3),
        f"80 % intervals {verdict}: {low} to {high} % of values lay inside",
        f"forecasts of {_origins(scored)}, scored on values known on {scored['truth']}.",
        ["Dashed: as many as there should be; below it forecasts were too sure of themselves."],
    )
