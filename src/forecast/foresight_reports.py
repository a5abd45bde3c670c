"""What simulated worlds say, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from forecast.absorption_reports import cell, table

SHOWN = (1, 2, 4)
"""Januaries from today on in the table of tiers; the last sound date is added, `--format json` has all."""


def tables(found: Mapping[str, Any]) -> RenderableType:
    """Everything `forecast value` shows."""
    januaries = [d for d in found["dates"] if d[5:7] == "01"]
    dates = sorted({*(januaries[n - 1] for n in SHOWN if n <= len(januaries)), found["until"]})
    today = ", ".join(f"{name} {p:.2f}" for name, p in found["today"].items())
    head = (
        f"{found['worldview']} as of {found['as_of']}: {found['worlds']} simulated worlds, true dynamics as "
        f"probable as today ({today})"
    )
    return Group(
        Text(head, style="bold"),
        _worth(found["tiers"], dates, found["until"]),
        Text(
            "1 bit tells two equally likely dynamics apart. Errors are those of the number of worlds; in one "
            f"world the truth's log probability has an error of {found['noise']:.2f} nats, whose effect on "
            "the mean is taken out of the bits."
        ),
        *([Text(f"Worlds in which a step failed count nowhere: {found['lost']}.")] if found["lost"] else []),
        *(Text(f"{date} failed its gate: {'; '.join(why)}.") for date, why in found["failed"].items()),
        _apart(found["tiers"], found["until"]),
        _in_time(found["tiers"], found["until"]),
        _warning(found["warning"], found["tiers"][0], found["until"]),
        _reliability(found["reliability"], found["slope"], found["until"]),
        _hybrid(found["hybrid"], found["until"]),
    )


def _worth(tiers: Sequence[Mapping[str, Any]], dates: Sequence[str], last: str) -> RenderableType:
    rows = []
    for one in tiers:
        gained = ["failed" if d > last else cell(_at(one, "bits", d)) for d in dates]
        more, truth = _at(one, "more_than_first", last), _at(one, "posterior_of_truth", last)
        name = f"{one['tier']}: {one['title']}"
        rows.append([name, *gained, cell(more, sign=True) if one is not tiers[0] else "", cell(truth)])
    columns = (
        "tier",
        *(f"bits by {d}" for d in dates),
        f"more than {tiers[0]['tier']} by {last}",
        "probability of the truth then",
    )
    return table("What would disclosure tell of the dynamic?", columns, rows)


def _at(record: Mapping[str, Any], key: str, date: str) -> dict[str, Any]:
    return {"value": record[key][date], "se": record[f"{key}_se"][date]}


def _apart(tiers: Sequence[Mapping[str, Any]], last: str) -> RenderableType:
    rows = []
    for one in tiers:
        for name, mine in one["by_dynamic"].items():
            apart = mine["told_apart"]
            rows.append(
                [
                    one["tier"] if name == next(iter(one["by_dynamic"])) else "",
                    name,
                    *(cell(each["ever"]) for each in apart.values()),
                    _years(next(iter(apart.values()))["year"]),
                    cell(next(iter(apart.values()))["misled"]),
                ]
            )
    bars = list(next(iter(tiers[0]["by_dynamic"].values()))["told_apart"])
    columns = (
        "tier",
        "true dynamic",
        *(f"Bayes factor {b}" for b in bars),
        f"when, {bars[0]}",
        "another first",
    )
    return table(f"Is the truth told apart from every other dynamic by {last}?", columns, rows, left=2)


def _years(dates: Sequence[float | None]) -> str:
    """Quantiles of dates; None is never."""
    return " / ".join("never" if d is None else f"{d:.1f}" for d in dates)


def _in_time(tiers: Sequence[Mapping[str, Any]], last: str) -> RenderableType:
    bar, milestones = next(iter(tiers[0]["in_time"].items()))
    rows = [
        [f"{one['tier']}{words}", *(cell(one["in_time"][bar][m][key]) for m in milestones)]
        for one in tiers
        for key, words in (("probability", ""), ("late", ", too late"))
    ]
    rows.append(["such worlds", *(cell(each["passes"]) for each in milestones.values())])
    return table(
        f"Is it told in time? Probability of a Bayes factor of {bar} by {last} and before the milestone, in "
        "worlds where that comes; or that it comes by then and has not been told",
        ("tier", *milestones),
        rows,
    )


def _warning(warning: Mapping[str, Any], first: Mapping[str, Any], last: str) -> RenderableType:
    pairs = list(next(iter(warning.values())))
    rows = []
    for name, mine in warning.items():
        alarm = first["by_dynamic"][name]["alarm"]
        rows.append(
            [
                name,
                *(f"{_span(mine[p]['years'])} ({mine[p]['passes']['value']:.0%})" for p in pairs),
                cell(alarm["sounds"][last]),
                cell(alarm["in_time"]),
                _span(alarm["years_to_W_3"]),
            ]
        )
    rows.append(["false alarms", *("" for _ in pairs), cell(first["false_alarms"][last]["share"]), "", ""])
    columns = (
        "true dynamic",
        *(f"years {p}" for p in pairs),
        f"alarm on {last}",
        "alarm when W_3 comes",
        "years it has stood then",
    )
    return table(
        "How much warning? 10/50/90 % of years and share of today's draws that pass both; then, of simulated "
        f"worlds, the alarm that P(explosive) is above one half under {first['tier']}, today's included",
        columns,
        rows,
    )


def _span(years: Sequence[float | None]) -> str:
    return " / ".join("-" if y is None else f"{y:.1f}" for y in years)


def _reliability(
    by_tier: Mapping[str, Mapping[str, Any]], slope: Mapping[str, Mapping[str, Any]], last: str
) -> RenderableType:
    rows = [
        [
            name if i == 0 else "",
            *_tenth(one),
            cell(slope[name][last]) if i == 0 else "",
        ]
        for name, dates in by_tier.items()
        for i, one in enumerate(dates[last])
    ]
    columns = ("tier", "probability given", "mean", "share true", "slope, 1 if calibrated")
    return table(
        f"When it gives a probability on {last}, how often is it true? By tenths of all given",
        columns,
        rows,
        left=2,
    )


def _tenth(one: Mapping[str, Any]) -> list[str]:
    """A range of probabilities given, their mean and how often they came true."""
    often = cell({"value": one["true"], "se": one["se"]})
    return [f"{one['low']:.2f} to {one['high']:.2f}", f"{one['believed']:.2f}", often]


def _hybrid(record: Mapping[str, Any], last: str) -> RenderableType:
    rows = [
        [name, *(cell(p) for p in one["posterior"].values()), cell(one["largest"]), cell(one["sure"])]
        for name, one in record["tiers"].items()
    ]
    columns = ("tier", *next(iter(record["tiers"].values()))["posterior"], "largest", "one has .9 or more")
    title = (
        f"What if none of the four is right? Mean probabilities on {last} in {record['worlds']} worlds where "
        "amdahl and expanding_pie hold at once"
    )
    return table(title, columns, rows)


WORST = 5
"""Parameters outside their band that are shown of each dynamic; `--format json` has all."""


def calibration_tables(found: Mapping[str, Any]) -> RenderableType:
    """Everything `forecast calibrate` shows."""
    levels = list(found["dynamics"][0]["coverage"])
    rows = []
    for one in found["dynamics"]:
        outside = [p["name"] for p in one["parameters"] if not p["inside"]]
        more = ", ..." if len(outside) > WORST else ""
        rows.append(
            [
                one["dynamic"],
                str(one["simulations"]),
                *(cell(one["coverage"][x], 3) for x in levels),
                f"{one['inside']:.1%}",
                ", ".join(outside[:WORST]) + more or "none",
                ", ".join(one["beyond"]) or "none",
            ]
        )
    columns = (
        "dynamic",
        "data sets",
        *(f"{float(x):.0%} intervals cover" for x in levels),
        "curves in their band",
        "outside",
        "outside all curves' band",
    )
    note = (
        "The curve is the distribution of the truth's place in its posterior, over data sets; of a "
        "calibrated engine 95 % of curves lie in their band, which is simultaneous along each curve. A "
        "wider band holds all curves at once, with a probability of 95 %."
    )
    weights = _weights(found["weights"]) if "weights" in found else []
    return Group(table("Are truths where the posteriors say?", columns, rows), Text(note), *weights)


def _weights(record: Mapping[str, Any]) -> list[RenderableType]:
    if record["failed"]:
        return [Text(f"Weights failed their gate: {'; '.join(record['failed'])}.")]
    text = (
        f"Bits on the dynamic that made the data, of 2: {cell(record['bits'])}. Slope, 1 if weights are "
        f"calibrated: {cell(record['slope'])}; noise makes it less: in one data set the truth's log weight "
        f"has an error of {record['noise']:.2f} nats."
    )
    lost = [Text(f"Data sets that some dynamic could not be fitted to count nowhere: {record['lost']}.")]
    return [
        table(
            "When a dynamic is given a weight, how often did it make the data? By tenths of all given",
            ("weight given", "mean", "share true"),
            [_tenth(one) for one in record["reliability"]],
            left=1,
        ),
        Text(text),
        *(lost if record["lost"] else []),
    ]
