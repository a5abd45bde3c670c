"""Stored runs to what people read: one plain record per worldview, and tables of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast import evidence, prediction, runs

KEY_MILESTONES = ("m_10", "W_2", "H_20", "F_90", "automated_ai_researcher", "plateau")
"""Milestones in the short table; `--format json` has all."""
KEY_DATES = ("2028-01-01", "2030-01-01", "2035-01-01")
"""Dates in the short table."""


def record(
    tree: xr.DataTree, manifest: Mapping[str, Any], odds_name: str, odds: Mapping[str, float]
) -> dict[str, Any]:
    """Everything a stored run says at given prior odds, as plain numbers.

    A dynamic that failed its gate has no evidence and no posterior, and if any failed there is no
    mixture either: the weights of the others depend on it.

    Parameters
    ----------
    tree, manifest
        From `runs.load`.
    odds_name
        Worldview the odds come from.
    odds
        Prior probability by dynamic; missing ones are 0.

    Returns
    -------
    dict
        ``as_of``, ``worldview``, ``odds``, ``rows``, ``seconds``, ``note``, ``dynamics`` (name ->
        ``prior``, ``log_evidence``, ``log_evidence_se``, ``posterior``, ``posterior_se``, ``gate``,
        ``min_ess``, ``reasons``), ``stacking`` (as `batch.stacking` returns it, or None), ``bayes_factors``
        and ``milestones``.
    """
    weighed = weight_record(tree, manifest, odds)
    names = list(weighed["dynamics"])
    passed = [n for n, d in weighed["dynamics"].items() if d["gate"] == "pass"]
    prior = np.array([d["prior"] for d in weighed["dynamics"].values()])
    log_evidence = runs.log_evidence(tree)
    weights = evidence.weights(log_evidence, prior) if len(passed) == len(names) else None
    return {
        "as_of": manifest["as_of"],
        "worldview": manifest["worldview"],
        "odds": odds_name,
        "rows": manifest["rows"],
        "seconds": manifest["seconds"],
        "note": manifest["note"],
        "dynamics": weighed["dynamics"],
        "stacking": manifest.get("stacking"),
        "bayes_factors": [
            {"a": a, "b": b, "log_bayes_factor": value, "se": error}
            for (a, b), (value, error) in evidence.bayes_factors(tuple(names), log_evidence).items()
            if a in passed and b in passed
        ],
        "milestones": _milestones(tree, names, passed, weights),
    }


def weight_record(
    tree: xr.DataTree, manifest: Mapping[str, Any], odds: Mapping[str, float]
) -> dict[str, Any]:
    """Weights of a stored run at given prior odds: ``as_of`` and ``dynamics`` as in `record`.

    Parameters
    ----------
    tree, manifest
        From `runs.load`, or the group ``evidence`` alone and the manifest.
    odds
        Prior probability by dynamic; missing ones are 0.
    """
    found = tree["evidence"].to_dataset()
    names = [str(n) for n in found["dynamic"].values]
    log_evidence = runs.log_evidence(tree)
    prior = np.array([odds.get(n, 0.0) for n in names])
    mean, se = evidence.mean_evidence(log_evidence)
    weights = evidence.weights(log_evidence, prior)
    gate = manifest["gate"]
    whole = not any(gate.values())
    dynamics = {
        n: {
            "prior": float(prior[k]),
            "log_evidence": None if gate[n] else float(mean[k]),
            "log_evidence_se": None if gate[n] else float(se[k]),
            "posterior": float(weights.posterior[k]) if whole else None,
            "posterior_se": float(weights.posterior_se[k]) if whole else None,
            "gate": "fail" if gate[n] else "pass",
            "min_ess": float(manifest["min_ess"][n]),
            "reasons": list(gate[n]),
        }
        for k, n in enumerate(names)
    }
    return {"as_of": manifest["as_of"], "dynamics": dynamics}


def _milestones(
    tree: xr.DataTree, names: Sequence[str], passed: Sequence[str], weights: evidence.Weights | None
) -> list[dict[str, Any]]:
    dates = prediction.report_dates()
    years = list(dates.values())
    passages = {n: tree[f"{n}/predictions"].to_dataset()["passage"] for n in passed}
    if not passages:
        return []
    result = []
    for name in (str(m) for m in next(iter(passages.values()))["milestone"].values):
        times = {n: p.sel(milestone=name).values for n, p in passages.items()}
        each = {n: prediction.milestone_cdf(t, years) for n, t in times.items()}
        entry: dict[str, Any] = {
            "id": name,
            "by": None,
            "by_se": None,
            "by_dynamic": {
                n: dict(zip(dates, map(float, c.probability), strict=True)) for n, c in each.items()
            },
            "never": None,
            "never_by_dynamic": {n: float(c.never) for n, c in each.items()},
        }
        if weights is not None:
            mixed = dict(zip(names, weights.posterior, strict=True))
            mixture = prediction.mixture_cdf(times, mixed, years, weights.covariance)
            entry["by"] = dict(zip(dates, map(float, mixture.probability), strict=True))
            entry["by_se"] = dict(zip(dates, map(float, mixture.se), strict=True))
            entry["never"] = float(mixture.never)
        result.append(entry)
    return result


def tables(records: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> RenderableType:
    """Posterior and key milestones of each record, for a terminal.

    Parameters
    ----------
    records
        From `record`.
    titles
        Milestone titles by id.
    """
    parts: list[RenderableType] = []
    for one in records:
        head = f"{one['worldview']} as of {one['as_of']}: {one['rows']} rows"
        if one["odds"] != one["worldview"]:
            head += f", prior odds of {one['odds']}"
        table = Table(title=head, title_justify="left")
        for column in WEIGHT_COLUMNS:
            table.add_column(column, justify="left" if column in ("dynamic", "gate") else "right")
        for cells in weight_cells(one):
            table.add_row(*cells)
        parts.append(table)
        reasons = sorted({r for d in one["dynamics"].values() for r in d["reasons"]})
        parts += [Text(f"  failed: {r}", style="red") for r in reasons]
        if one["stacking"]:
            parts.append(Text(f"  {stacking_words(one['stacking'])}"))
        if reasons:
            parts.append(Text("  no milestones: a fit that failed is no forecast; take another --seed"))
        else:
            parts.append(_milestone_table(one, titles))
        if one["note"]:
            parts.append(Text(one["note"]))
        parts.append(Text(""))
    return Group(*parts)


WEIGHT_COLUMNS = ("dynamic", "prior", "posterior", "log evidence", "least ESS", "gate")
"""Columns of the table of weights."""


def weight_cells(one: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table of weights of a record."""
    return [
        (
            name,
            f"{d['prior']:.2f}",
            _with_error(d["posterior"], d["posterior_se"], 3),
            _with_error(d["log_evidence"], d["log_evidence_se"], 2),
            f"{d['min_ess']:.0f}",
            d["gate"],
        )
        for name, d in one["dynamics"].items()
    ]


def stacking_words(found: Mapping[str, Any]) -> str:
    """What `batch.stacking` found, in a sentence."""
    if found["weights"] is not None:
        shares = ", ".join(f"{n} {w:.2f} ± {se:.2f}" for n, (w, se) in found["weights"].items())
        return f"stacking weights, for predicting a row from the others: {shares}"
    if found["apart"] is None:
        return "no stacking weights: the draws cannot leave out a tenth of the rows"
    return (
        f"no stacking weights: the dynamics predict a row from the others alike, {found['apart']:.1f} nats "
        f"apart over {found['rows']} rows"
    )


def _milestone_table(one: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    table = Table(title="Probability of having happened by", title_justify="left")
    table.add_column("milestone")
    for date in (*KEY_DATES, "never by 2041"):
        table.add_column(date, justify="right")
    for milestone in one["milestones"]:
        if milestone["id"] in KEY_MILESTONES:
            cells = [_with_error(milestone["by"][d], milestone["by_se"][d], 3) for d in KEY_DATES]
            table.add_row(titles[milestone["id"]], *cells, f"{milestone['never']:.3f}")
    return table


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None or error is None:
        return "failed"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def history_record(
    loaded: Sequence[tuple[xr.DataTree, Mapping[str, Any]]],
    worldview: str,
    odds: Mapping[str, float],
    late: Mapping[str, Mapping[str, Sequence[str]]],
    wide: bool = False,
) -> dict[str, Any]:
    """What one worldview says on each date of its history, as plain numbers.

    Parameters
    ----------
    loaded
        Runs of a history by date, from `runs.load`.
    worldview
        Name of the worldview, whose odds are used.
    odds
        Prior probability by dynamic; missing ones are 0.
    late
        By date, `worldviews.late_names`: priors that rest on newer information.
    wide
        Whether those priors were widened.

    Returns
    -------
    dict
        ``worldview``, ``odds``, ``late_priors`` (``kept`` or ``widened``) and ``dates``, a list of ``as_of``,
        ``rows``, ``gate``, ``method``, ``dynamics`` (name -> ``prior``, ``posterior``, ``log_evidence``,
        ``increment``, the latter three with ``_se``), ``milestones`` (id -> ``by``, ``by_se``, ``never``),
        ``late_lines`` and ``late_defaults``.  What failed its gate is None.
    """
    dates = []
    for tree, manifest in loaded:
        one = record(tree, manifest, worldview, odds)
        dynamics = {}
        for name, d in one["dynamics"].items():
            fields = ("prior", "posterior", "posterior_se", "log_evidence", "log_evidence_se")
            change, error = (manifest["increment"] or {}).get(name, (None, None))
            dynamics[name] = {f: d[f] for f in fields} | {"increment": change, "increment_se": error}
        dates.append(
            {
                "as_of": one["as_of"],
                "rows": one["rows"],
                "gate": "fail" if any(manifest["gate"].values()) else "pass",
                "method": manifest["method"],
                "dynamics": dynamics,
                "milestones": {
                    m["id"]: {f: m[f] for f in ("by", "by_se", "never")}
                    for m in one["milestones"]
                    if m["id"] in KEY_MILESTONES
                },
            }
            | {name: list(lines) for name, lines in late[one["as_of"]].items()}
        )
    how = "widened" if wide else "kept"
    return {"worldview": worldview, "odds": worldview, "late_priors": how, "dates": dates}


def with_distances(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add how far each worldview's posterior is from each other one's, by date.

    Parameters
    ----------
    records
        From `history_record`, over the same dates.

    Returns
    -------
    list of dict
        The records with ``distance``, a list of ``as_of``, ``worldview`` and ``total_variation``: half the
        summed absolute differences of weights, None where a fit failed.
    """
    found = []
    for one in records:
        distance = []
        for other in records:
            if other is one:
                continue
            for mine, theirs in zip(one["dates"], other["dates"], strict=True):
                pairs = [
                    (d["posterior"], theirs["dynamics"][n]["posterior"]) for n, d in mine["dynamics"].items()
                ]
                known = all(a is not None and b is not None for a, b in pairs)
                apart = sum(abs(a - b) for a, b in pairs) / 2 if known else None
                distance.append(
                    {"as_of": mine["as_of"], "worldview": other["worldview"], "total_variation": apart}
                )
        found.append(dict(one) | {"distance": distance})
    return found


HISTORY_MILESTONE, HISTORY_DATE = "automated_ai_researcher", "2030-01-01"
"""The milestone in the table of a history, and by when."""


def history_tables(records: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> RenderableType:
    """Weights and one milestone by date, a table for each worldview, for a terminal.

    Parameters
    ----------
    records
        From `history_record`.
    titles
        Milestone titles by id.
    """
    parts: list[RenderableType] = []
    for one in records:
        names = list(one["dates"][0]["dynamics"])
        table = Table(title=f"{one['worldview']}: posterior by date", title_justify="left")
        table.add_column("as of")
        for column in ("rows", *names, f"{HISTORY_MILESTONE} by {HISTORY_DATE}", "gate"):
            table.add_column(column, justify="right")
        sums: dict[str, float] = dict.fromkeys(names, 0.0)
        for date in one["dates"]:
            weights = [_with_error(d["posterior"], d["posterior_se"], 3) for d in date["dynamics"].values()]
            milestone = date["milestones"].get(HISTORY_MILESTONE) or {"by": None}
            reached = (
                "failed"
                if milestone["by"] is None
                else _with_error(milestone["by"][HISTORY_DATE], milestone["by_se"][HISTORY_DATE], 2)
            )
            late = "*" if late_count(date) else ""
            table.add_row(date["as_of"] + late, str(date["rows"]), *weights, reached, date["gate"])
            for name, d in date["dynamics"].items():
                sums[name] += d["increment"] or 0.0
        total = [f"{sums[n]:+.2f}" for n in names]
        table.add_section()
        table.add_row("increments", "", *total, "", "")
        parts.append(table)
        if late_count(one["dates"][0]):
            parts.append(Text(f"* {late_note(one['dates'][0])}, and were {one['late_priors']}"))
        parts.append(Text(""))
    parts.append(Text("increments: sum of the changes of the log evidence, nats"))
    if HISTORY_MILESTONE in titles:
        parts.append(Text(f"{HISTORY_MILESTONE}: {titles[HISTORY_MILESTONE]}"))
    return Group(*parts)


def late_count(date: Mapping[str, Any]) -> int:
    """Number of priors that rest on information newer than a date of a record."""
    return len(date["late_lines"]) + len(date["late_defaults"])


def late_note(date: Mapping[str, Any]) -> str:
    """How many priors are late on a date of a record, in words."""
    own, others = len(date["late_lines"]), len(date["late_defaults"])
    some = f"{own} of its own assumptions and {others} default priors"
    return f"on {date['as_of']} {some} rest on newer information"


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """Table of text cells."""
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
