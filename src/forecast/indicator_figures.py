"""The figure of the evidence itself: three categories, and a ladder with two rungs that nobody measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from forecast.figures import INK, MUTED, Spec, finish

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
    made = []
    size = {"width": 190, "height": 140}
    for name, (title, y) in PANELS.items():
        rows = table[table["panel"] == name].drop(columns="panel")
        head = alt.TitleParams(title, fontSize=12, anchor="start", frame="group")
        if name in UNOBSERVED or rows.empty:
            words = ["No benchmark enters: what", "the model says here is prior."]
            if gap := gaps.get(UNOBSERVED.get(name, "")):
                words += [
                    f"Gap below it, {worldview}:",
                    "{1:.1f} nats (90 %: {0:.1f} to {2:.1f})".format(*gap),
                ]
            empty = alt.Chart(pd.DataFrame({"time": [0.0]})).mark_text(
                text=words, color=MUTED, fontSize=11, lineHeight=16, align="center", dy=-16
            )
            frame = alt.ViewConfig(stroke=MUTED, strokeDash=[3, 4])
            made.append(empty.properties(title=head, view=frame, **size))
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
        made.append(encoded.properties(title=head, **size))
    # Without a shared y each panel keeps its unit.
    chart = alt.concat(*made, columns=4).resolve_scale(y="independent", x="independent")
    return finish(
        chart,
        f"{len(table)} published values on tasks, benchmarks and companies; none on ideation or strategy",
        f"the project's archive as known on {as_of}; each row's own source stands in the table of data.",
        ["Rows of the likelihood: 1 broad capability, 2 ladder of R&D benchmarks, 3 inside companies."],
    )
