"""Two stored runs side by side: what moved between them, by how much more than noise, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from forecast import reports
from forecast.reports import KEY_DATES, KEY_MILESTONES

NOISE = 2.0
"""Combined standard errors that a change must exceed to count as more than noise."""
_ABOUT = ("as_of", "worldview", "key", "created", "status", "rows")
_OBSERVATION = 3
"""Leading fields of a row of a manifest's ``observations`` that say which observation it is."""
_Number = tuple[float, float]
"""A value and its standard error."""


def compare(
    a: tuple[Mapping[str, Any], Mapping[str, Any]], b: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> dict[str, Any]:
    """Differences between two runs.

    Parameters
    ----------
    a, b
        Of each run, what `reports.record` says and its manifest.

    Returns
    -------
    dict
        ``a`` and ``b``, which runs; ``weights`` and ``log_evidence`` by dynamic and ``milestones`` by id and
        date, each with ``a``, ``b``, ``change``, ``se`` (combined Monte Carlo error) and ``beyond_noise``,
        null where a run failed its gate or does not know the name; ``data`` with ``known``, ``added``,
        ``removed`` and ``revised`` rows; ``priors``, ``settings``, ``seed``, ``code`` and ``odds``: what
        differs, each as ``a`` and ``b``.
    """
    (left, left_manifest), (right, right_manifest) = a, b
    found: dict[str, Any] = {
        side: {k: manifest.get(k) for k in _ABOUT}
        for side, manifest in (("a", left_manifest), ("b", right_manifest))
    }
    ours, theirs = left["dynamics"], right["dynamics"]
    for name, field in (("weights", "posterior"), ("log_evidence", "log_evidence")):
        found[name] = {
            n: _change(*(_pair(side.get(n), field) for side in (ours, theirs)))
            for n in dict.fromkeys([*ours, *theirs])
        }
    found["milestones"] = _milestones(left, right)
    found["data"] = _data(left_manifest.get("observations"), right_manifest.get("observations"))
    for name in ("priors", "settings"):
        found[name] = _differing(left_manifest.get(name) or {}, right_manifest.get(name) or {})
    found["odds"] = _differing(*({n: d["prior"] for n, d in side.items()} for side in (ours, theirs)))
    for name in ("seed", "code"):
        found |= {name: _differing(left_manifest, right_manifest).get(name)}
    return found


def _pair(one: Mapping[str, Any] | None, field: str) -> _Number | None:
    """Value and standard error, or None where there is none."""
    return None if one is None or one[field] is None else (one[field], one[f"{field}_se"])


def _change(a: _Number | None, b: _Number | None) -> dict[str, Any]:
    found: dict[str, Any] = {"a": a and a[0], "b": b and b[0], "change": None, "se": None}
    if a is None or b is None:
        return found | {"beyond_noise": None}
    change, se = b[0] - a[0], float(np.hypot(a[1], b[1]))
    return found | {"change": change, "se": se, "beyond_noise": bool(abs(change) > NOISE * se)}


def _milestones(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sides = [{m["id"]: dated(m, one["dynamics"]) for m in one["milestones"]} for one in (a, b)]
    return {
        name: {
            date: _change(*(side.get(name, {}).get(date) for side in sides))
            for date in dict.fromkeys(d for side in sides for d in side.get(name, {}))
        }
        for name in dict.fromkeys([*sides[0], *sides[1]])
    }


def dated(milestone: Mapping[str, Any], dynamics: Mapping[str, Any]) -> dict[str, tuple[float, float] | None]:
    """Probability by each date and its error, that of the weights included."""
    if milestone["by"] is None:
        return dict.fromkeys(next(iter(milestone["by_dynamic"].values())))
    found: dict[str, _Number | None] = {}
    errors = {name: d["posterior_se"] for name, d in dynamics.items()}
    for date, p in milestone["by"].items():
        # Errors of weights cancel in their sum, so only distances from the mixture count.
        of_weights = [(each[date] - p) * errors[name] for name, each in milestone["by_dynamic"].items()]
        found[date] = (p, float(np.hypot(milestone["by_se"][date], np.linalg.norm(of_weights))))
    return found


def _data(a: Sequence[Sequence[Any]] | None, b: Sequence[Sequence[Any]] | None) -> dict[str, Any]:
    """Rows of the likelihood that came, went, or have another value or day of publication."""
    if a is None or b is None:
        return {"known": False, "added": [], "removed": [], "revised": []}
    ours, theirs = ({tuple(r[:_OBSERVATION]): list(r) for r in rows} for rows in (a, b))
    return {
        "known": True,
        "added": [r for k, r in theirs.items() if k not in ours],
        "removed": [r for k, r in ours.items() if k not in theirs],
        "revised": [{"a": r, "b": theirs[k]} for k, r in ours.items() if k in theirs and theirs[k] != r],
    }


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys([*a, *b])
    return {n: {"a": a.get(n), "b": b.get(n)} for n in names if a.get(n) != b.get(n)}


# Tables -----------------------------------------------------------------------------------------------


def tables(found: Mapping[str, Any], titles: Mapping[str, str]) -> RenderableType:
    """What `compare` found, for a terminal; key milestones only.

    Parameters
    ----------
    found
        From `compare`.
    titles
        Milestone titles by id.
    """
    head = [Text(f"{s}: {found[s]['worldview']} as of {found[s]['as_of']}, {found[s]['key']}") for s in "ab"]
    columns = ["a", "b", "change", "beyond noise"]
    parts: list[RenderableType] = [*head]
    for name, title, digits in (("weights", "Weights", 3), ("log_evidence", "Log evidence", 2)):
        rows = [[n, *_cells(c, digits)] for n, c in found[name].items()]
        parts.append(reports.plain_table(["dynamic", *columns], rows, title))
    if found["data"]["known"] and any(found["data"][k] for k in ("added", "removed", "revised")):
        parts.append(Text("The data differ, so compare log evidence between dynamics only."))
    rows = [
        [titles.get(m, m), date, *_cells(dates[date], 2)]
        for m, dates in found["milestones"].items()
        for date in KEY_DATES
        if m in KEY_MILESTONES and date in dates
    ]
    parts.append(reports.plain_table(["milestone", "by", *columns], rows, "Probability of having happened"))
    data = found["data"]
    if not data["known"]:
        parts.append(Text("Data: unknown, a run is from a version that did not list its rows"))
    changed = [["added", *r] for r in data["added"]] + [["removed", *r] for r in data["removed"]]
    for r in data["revised"]:
        changed.append(["revised", *r["b"][:-1], f"{r['a'][-1]:g} -> {r['b'][-1]:g}"])
    fields = ["row", "indicator", "entity", "observed", "published", "value"]
    if changed:
        parts.append(reports.plain_table(fields, [[str(c) for c in r] for r in changed], "Data"))
    other = [
        [group, name, str(pair["a"]), str(pair["b"])]
        for group in ("priors", "settings", "odds")
        for name, pair in found[group].items()
    ]
    other += [[n, "", str(found[n]["a"]), str(found[n]["b"])] for n in ("seed", "code") if found[n]]
    if other:
        parts.append(reports.plain_table(["what", "name", "a", "b"], other, "Made differently"))
    elif data["known"] and not changed:
        parts.append(Text("Same data, priors, settings, seed and code"))
    return Group(*parts)


def _cells(one: Mapping[str, Any], digits: int) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    if one["change"] is None:
        return [number(one["a"]), number(one["b"]), "-", "-"]
    change = f"{one['change']:+.{digits}f} ± {one['se']:.{digits}f}"
    return [number(one["a"]), number(one["b"]), change, "yes" if one["beyond_noise"] else "no"]
