"""Figures of what `forecast explain` and `forecast whatif` print: who took in the evidence, and who would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from forecast.figures import COLOURS, INK, MUTED, Spec, finish, panels
from forecast.schema import BELT

PARTS: dict[str, str] = {
    "decided": "decided between dynamics",
    "learnt": "learnt on their cores",
    **{str(group): f"absorbed by {group}" for group in BELT},
}
"""Parts of an account, in the order of the bars, and what they are called."""
_PART_COLOURS = (INK, MUTED, *COLOURS[4:8])
"""None of a dynamic."""


def _part(account: Mapping[str, Any], name: str) -> float:
    return float((account["absorbed"][name] if name in BELT else account[name])["value"])


def account(explained: Sequence[Mapping[str, Any]]) -> Spec:
    """What the evidence did under each worldview, nats: decided, learnt, or absorbed by which group.

    Parameters
    ----------
    explained
        What `forecast explain --format json` prints.
    """
    table = pd.DataFrame(
        [
            {
                "worldview": one["worldview"],
                "part": words,
                "order": k,
                # Group terms are estimates and can come out a little below zero.
                "nats": max(0.0, _part(one["account"], name)),
            }
            for one in explained
            for k, (name, words) in enumerate(PARTS.items())
        ]
    )
    names = list(PARTS.values())
    bars = (
        alt.Chart(table)
        .mark_bar(size=26)
        .encode(
            x=alt.X("nats:Q", stack="zero", title="information (nats)"),
            y=alt.Y("worldview:N", sort=list(dict.fromkeys(table["worldview"])), title=None),
            color=alt.Color(
                "part:N",
                sort=names,
                title=None,
                scale=alt.Scale(domain=names, range=list(_PART_COLOURS)),
                legend=alt.Legend(columns=2),
            ),
            order=alt.Order("order:Q"),
            tooltip=["worldview:N", "part:N", alt.Tooltip("nats:Q", format=".2f")],
        )
    )
    rates = [100 * float(one["account"]["rate"]["value"]) for one in explained]
    low, high = f"{min(rates):.0f}", f"{max(rates):.0f}"
    share = f"{low} %" if low == high else f"{low} to {high} %"
    return finish(
        bars.properties(width=560, height=46 * len(explained)),
        f"{share} of the information went into assumptions instead of deciding between dynamics",
        f"stored runs as of {max(one['as_of'] for one in explained)}; calibration of scales is left out.",
        ["Absorbed: taken in by assumptions that holders of a dynamic may move, in four groups."],
    )


def has_frozen(explained: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any pair of dynamics was also compared with its assumptions frozen."""
    return any(pair.get("frozen") for one in explained for pair in one["pairs"])


def frozen_and_free(explained: Sequence[Mapping[str, Any]]) -> Spec:
    """Log Bayes factor of each pair with assumptions free to move and, where it was fitted, frozen.

    Parameters
    ----------
    explained
        What `forecast explain --format json` prints.
    """
    rows = []
    for one in explained:
        for pair in one["pairs"]:
            free, frozen = pair["log_bayes_factor"], pair.get("frozen")
            rows.append(
                {
                    "worldview": one["worldview"],
                    "pair": f"{pair['a']} : {pair['b']}",
                    "free": free["value"],
                    "low": free["value"] - free["se"],
                    "high": free["value"] + free["se"],
                    "frozen": frozen["value"] if frozen else None,
                    "verdict": pair["verdict"],
                }
            )
    table = pd.DataFrame(rows)
    pairs = list(dict.fromkeys(table["pair"]))
    title = "log Bayes factor (nats, first against second)"
    tooltip: list[Any] = [
        "pair:N",
        "verdict:N",
        alt.Tooltip("free:Q", format="+.2f"),
        alt.Tooltip("frozen:Q", format="+.2f"),
    ]
    base = alt.Chart(table).encode(y=alt.Y("pair:N", sort=pairs, title=None), tooltip=tooltip)
    zero = alt.Chart(table).mark_rule(color=MUTED).encode(x=alt.datum(0))
    held = base.transform_filter("isValid(datum.frozen)")
    way = held.mark_rule(strokeDash=[2, 3], color=INK).encode(x=alt.X("frozen:Q", title=title), x2="free:Q")
    frozen_points = held.mark_point(filled=False, size=70, color=INK).encode(x=alt.X("frozen:Q", title=title))
    error = base.mark_rule(strokeWidth=6, color=INK).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    free_points = base.mark_point(filled=True, size=70, color=INK).encode(x=alt.X("free:Q", title=title))
    panel = (zero + way + error + frozen_points + free_points).properties(width=220, height=150)
    open_pairs = int((table["verdict"] == "not identified").sum())
    notes = ["Filled: assumptions free to move, with one standard error."]
    if has_frozen(explained):
        notes += ["Open: assumptions frozen; the gap is what they absorb."]
    return finish(
        panels(panel, "worldview", list(dict.fromkeys(table["worldview"])), 3),
        f"{open_pairs} of {len(table)} comparisons of two dynamics are not identified by the evidence",
        f"stored runs as of {max(one['as_of'] for one in explained)}.",
        notes,
    )


def scenarios(asked: Sequence[Mapping[str, Any]]) -> Spec:
    """Weights before and after hypothetical rows, a panel for each worldview.

    Parameters
    ----------
    asked
        What `forecast whatif --format json` prints; scenarios without an answer are left out.
    """
    table = pd.DataFrame(
        [
            {
                "worldview": one["worldview"],
                "scenario": one["title"],
                "dynamic": name,
                "before": w["before"]["value"],
                "after": w["after"]["value"],
                "error": w["after"]["se"],
            }
            for one in asked
            if one["weights"]
            for name, w in one["weights"].items()
        ]
    )
    names = list(dict.fromkeys(table["dynamic"]))
    legend = alt.Legend(symbolType="circle")
    base = alt.Chart(table).encode(
        y=alt.Y("scenario:N", title=None, axis=alt.Axis(labelLimit=230)),
        yOffset=alt.YOffset("dynamic:N", sort=names),
        color=alt.Color(
            "dynamic:N",
            sort=names,
            title=None,
            scale=alt.Scale(domain=names, range=list(COLOURS)[: len(names)]),
            legend=legend,
        ),
        tooltip=[
            "worldview:N",
            "scenario:N",
            "dynamic:N",
            *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("before", "after", "error")),
        ],
    )
    axis: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1]), "title": "weight (probability)"}
    way = base.mark_rule().encode(x=alt.X("before:Q", **axis), x2="after:Q")
    points = base.mark_point(filled=True, size=50).encode(x=alt.X("after:Q", **axis))
    moves = (table["after"] - table["before"]).abs()
    most = table.iloc[int(moves.argmax())]
    panel = (way + points).properties(width=220, height=52 * table["scenario"].nunique())
    return finish(
        panels(panel, "worldview", list(dict.fromkeys(table["worldview"])), 2),
        f"Largest move: “{most['scenario']}” takes {most['dynamic']} from {most['before']:.2f} to "
        f"{most['after']:.2f} under {most['worldview']}",
        "hypothetical rows put through the same update as the data; nothing here has happened.",
        ["Points: weight after the rows; lines start at the weight before."],
    )
