"""Why a forecast moved between two days: new rows, revised rows, priors, code, or the sampler's noise.

What was said on the first day is the newest stored run of it; what is said of the second is what the
present code and priors make of the rows known then.  Between the two stands the first day's rows under the
present priors and code.  From there on the rows are brought in together, little by little, and what
each of them does on the way is its own: a Shapley value over infinitely small pieces (Aumann & Shapley
1974), so that it does not depend on an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from forecast import (
    backtest,
    batch,
    comparison,
    evidence,
    free_values,
    history,
    inference,
    model,
    prediction,
    reports,
    runs,
)
from forecast.compilation import Compiled
from forecast.dynamics import DYNAMICS
from forecast.particles import thin
from forecast.priors import read_prior
from forecast.reports import KEY_DATES, KEY_MILESTONES
from forecast.scoring import Numbers
from forecast.worldviews import Line, Worldview, full_priors

FOLDER = "moved"
"""Folder within a store for the fits and ledgers of this room."""
STEPS = 4
"""Steps from the old rows to the new, an even number; shortest at the start, where a row moves most."""
PARTS = ("new_rows", "revised_rows", "priors", "code", "noise", "remainder")
"""What a change is made of."""
_NODES = (np.arange(STEPS + 1) / STEPS) ** 2
"""Weight of the new rows at each node."""


class Node(NamedTuple):
    """Posterior at one point of the way, by dynamic and island."""

    reached: Numbers
    """Probability of each milestone by each date, (dynamic, island, event)."""
    gain: Numbers
    """Mean change of the log likelihood by each row that comes or goes, (dynamic, island, row)."""
    both: Numbers
    """Mean product of the two, (dynamic, island, event, row)."""
    log_evidence: Numbers
    """(dynamic, island)."""

    def without(self, island: int) -> Node:
        """The same without one island."""
        return Node(*(np.delete(x, island, axis=1) for x in self))


class Effects(NamedTuple):
    """What rows do to events on the way."""

    first: Numbers
    """Probability at the start, (event,)."""
    last: Numbers
    rows: Numbers
    """Change by each row, (event, row)."""


def _node(
    fit: inference.Fit,
    draws: Mapping[str, xr.Dataset],
    passages: Mapping[str, Numbers],
    change: Numbers,
    years: Numbers,
) -> Node:
    """Means of a fit: `passages` (milestone, island, draw) by dynamic, `change` of weight (row,)."""
    moved = np.flatnonzero(change)
    reached, gain, both = [], [], []
    for name in DYNAMICS:
        happened = passages[name][..., None] <= years
        event = np.moveaxis(happened, (1, 2), (0, 1)).reshape(*happened.shape[1:3], -1).astype(float)
        row = draws[name]["row_log_likelihood"].values[..., moved] * change[moved]
        # Means over draws of one product a pair, as a matrix product.
        both.append(np.einsum("ide,idr->ier", event, row, optimize=True) / event.shape[1])
        reached.append(event.mean(axis=1))
        gain.append(row.mean(axis=1))
    return Node(np.array(reached), np.array(gain), np.array(both), fit.log_evidence)


def effects(nodes: list[Node], at: Numbers, odds: Numbers) -> Effects:
    """Change of every event by row, along the way.

    With weight t on the new rows, d P(event)/dt = sum_r Cov_t(event, gain_r), the posterior at t being that
    of all dynamics together.  The integral is Simpson's rule in the square root of t.

    Parameters
    ----------
    nodes
        Posteriors, an odd number of them.
    at
        Their t, squares of equally spaced numbers from 0 to 1, (node,).
    odds
        Prior probabilities, (dynamic,).
    """
    probability, slope = [], []
    for node in nodes:
        weight = evidence.weights(node.log_evidence, odds).posterior
        reached, gain, both = (np.tensordot(weight, x.mean(axis=1), axes=1) for x in node[:3])
        probability.append(reached)
        slope.append(both - reached[:, None] * gain)
    root = np.sqrt(at)
    simpson = np.ones(len(at))
    simpson[1:-1:2], simpson[2:-1:2] = 4.0, 2.0
    simpson *= (root[1] - root[0]) / 3
    total = np.tensordot(simpson * 2 * root, np.array(slope), axes=1)
    return Effects(probability[0], probability[-1], total)


# The ledger ---------------------------------------------------------------------------------------------


def ledger(
    inputs: batch.Inputs,
    days: tuple[str, str],
    worldview: Worldview,
    store: Path,
    seed: int = 1,
    settings: inference.Settings | None = None,
    progress: batch.Progress | None = None,
) -> dict[str, Any]:
    """Split the change of every milestone between two days into its parts.

    Parameters
    ----------
    inputs
        Whose archive is looked at.
    days
        First and second day, YYYY-MM-DD.
    worldview, store, seed, settings, progress
        As in `history.update`, for one worldview.

    Returns
    -------
    dict
        ``worldview``, ``from``, ``to``; ``stored``: key and code of the run that the change starts from, None
        if there is none and it starts from the present code and priors; ``gate`` and ``reasons``; ``code``
        and ``priors``: what differs from that run; ``rows``: number of ``new`` and of ``revised`` rows;
        ``milestones``: list of ``id``, ``by``, ``from``, ``to``, ``change``, ``change_se``, ``parts`` (of
        `PARTS`, each ``value`` and ``se``), which sum to the change, and ``indicators``: ``indicator``,
        ``rows``, ``value``, ``se``.  None where the gate refused a fit.
    """
    settings = settings or inference.Settings()
    window = history.make_window(inputs, [pd.Timestamp(day) for day in days])
    early = history.Window(window.inputs[:1], window.rows, window.places[:1])
    place = store / FOLDER

    def fit_first(view: Worldview) -> history.Stored:
        folders = history.update(early, [view], place, seed, settings, progress)
        return history.Stored(*runs.load(folders[view.name][0]))

    said = _said(store, days[0], worldview.name)
    present = fit_first(worldview)
    about = _differences(said, present)
    between = present
    if said and about["code"] and about["priors"]:
        between = fit_first(_with_old_priors(worldview, about["priors"]))
    key = runs.run_key(
        {
            "first": present.manifest["key"],
            "between": between.manifest["key"],
            "said": said and said.manifest["key"],
            "rows": window.weight(1),
            "nodes": _NODES,
            "odds": worldview.odds,
        }
    )
    stored = runs.find(place / "ledgers", days[1], worldview.name, key)
    if stored is None:
        found = {"worldview": worldview.name, "from": days[0], "to": days[1]} | about
        found |= _account(window, worldview, about, (said, between, present), settings, seed, progress)
        status = "done" if found["gate"] == "pass" else "failed"
        manifest = {"status": status, "ledger": found}
        stored = runs.save(place / "ledgers", days[1], worldview.name, key, xr.DataTree(), manifest)
    return dict(runs.load(stored)[1]["ledger"])


def _said(store: Path, day: str, worldview: str) -> history.Stored | None:
    """Newest stored run of a day that passed its gate."""
    table = runs.catalogue(store)
    mine = table[(table["as_of"] == day) & (table["worldview"] == worldview) & (table["status"] == "done")]
    if mine.empty:
        return None
    return history.Stored(*runs.load(Path(str(runs.newest(mine).iloc[-1]["folder"]))))


def _differences(said: history.Stored | None, present: history.Stored) -> dict[str, Any]:
    """Code and priors of the stored run that are no longer those in use."""
    if said is None:
        return {"stored": None, "code": None, "priors": {}}
    old, new = said.manifest, present.manifest
    code = {"from": old["code"], "to": new["code"]} if old["code"] != new["code"] else None
    both = [n for n in old["priors"] if n in new["priors"]]
    priors = {
        n: {"from": old["priors"][n], "to": new["priors"][n]}
        for n in both
        if old["priors"][n] != new["priors"][n]
    }
    return {"stored": {"key": old["key"], "code": old["code"]}, "code": code, "priors": priors}


def _with_old_priors(worldview: Worldview, changed: Mapping[str, Mapping[str, str]]) -> Worldview:
    """The worldview with the priors of a stored run, as it printed them."""
    every = full_priors(worldview)
    lines = {
        n: Line(read_prior(pair["from"]), "as in the stored run", every[n].source, every[n].informed)
        for n, pair in changed.items()
    }
    return replace(worldview, lines=worldview.lines | lines)


def _account(
    window: history.Window,
    worldview: Worldview,
    about: Mapping[str, Any],
    fits: tuple[history.Stored | None, history.Stored, history.Stored],
    settings: inference.Settings,
    seed: int,
    progress: batch.Progress | None,
) -> dict[str, Any]:
    """Gate, counts of rows and milestones of a ledger; `fits` as said, between and present."""
    said, between, present = fits
    reasons = [r for x in (between, present) for rs in x.manifest["gate"].values() for r in rs]
    kinds = _kinds(window)
    counts = {kind: int(sum(k == kind for k in kinds.values())) for kind in ("new", "revised")}
    nodes: list[Node] = []
    if not reasons:
        nodes, reasons = _walk(window, worldview, present, settings, seed, progress)
    found: dict[str, Any] = {"gate": "fail" if reasons else "pass", "reasons": sorted(set(reasons))}
    found |= {"rows": counts, "milestones": None}
    if reasons:
        return found
    odds = np.array([worldview.odds[n] for n in DYNAMICS])
    whole = effects(nodes, _NODES, odds)
    islands = range(nodes[0].log_evidence.shape[1])
    parts = [effects([n.without(i) for n in nodes], _NODES, odds) for i in islands]

    def error(values: Sequence[float]) -> float:
        return float(np.sqrt((len(values) - 1) * np.var(values)))

    rows = np.flatnonzero(window.weight(1) - window.weight(0))
    ids = window.rows["indicator_id"].to_numpy()[rows]
    kind = np.array([kinds[int(r)] for r in rows])

    def part(chosen: NDArray[np.bool_], event: int) -> dict[str, float]:
        value = float(whole.rows[event, chosen].sum())
        return {"value": value, "se": error([float(p.rows[event, chosen].sum()) for p in parts])}

    before = _dated_of(said, worldview) if said else None
    middle = _dated_of(between, worldview) if between is not present else None
    # With one cause at most, all that lies between the stored run and the present one is its doing.
    cause = "code" if about["code"] else "priors" if about["priors"] else "noise"
    milestones = []
    dates = prediction.report_dates()
    names = [(m, d) for m in window.inputs[0].milestones for d in dates]
    for e, (milestone, date) in enumerate(names):
        start, end = float(whole.first[e]), float(whole.last[e])
        start_se = error([float(p.first[e]) for p in parts])
        remainder = end - start - float(whole.rows[e].sum())
        left = [float(p.last[e] - p.first[e] - p.rows[e].sum()) for p in parts]
        split = {
            "new_rows": part(kind == "new", e),
            "revised_rows": part(kind == "revised", e),
            **{name: {"value": 0.0, "se": 0.0} for name in ("priors", "code", "noise")},
            "remainder": {"value": remainder, "se": error(left)},
        }
        said_value = (start, start_se)
        if before is not None and (known := before.get(milestone, {}).get(date)) is not None:
            said_value = known
            here = (start, start_se)
            if middle is not None and (mid := middle[milestone][date]) is not None:
                split["code"], split["priors"] = _difference(known, mid), _difference(mid, here)
            else:
                split[cause] = _difference(known, here)
        gains = {i: abs(whole.rows[e, ids == i].sum()) for i in dict.fromkeys(ids)}
        order = sorted(gains, key=lambda i: -gains[i])
        end_se = error([float(p.last[e]) for p in parts])
        milestones.append(
            {
                "id": milestone,
                "by": date,
                "from": said_value[0],
                "to": end,
                "change": end - said_value[0],
                "change_se": float(np.hypot(said_value[1], end_se)),
                "parts": split,
                "indicators": [
                    {"indicator": str(i), "rows": int((ids == i).sum())} | part(ids == i, e) for i in order
                ],
            }
        )
    return found | {"milestones": milestones}


def _difference(a: tuple[float, float], b: tuple[float, float]) -> dict[str, float]:
    return {"value": b[0] - a[0], "se": float(np.hypot(a[1], b[1]))}


def _dated_of(fit: history.Stored, worldview: Worldview) -> dict[str, dict[str, Any]]:
    """Probability of each milestone by each date in a stored run, with its error."""
    one = reports.record(fit.tree, fit.manifest, worldview.name, worldview.odds)
    return {m["id"]: comparison.dated(m, one["dynamics"]) for m in one["milestones"]}


def _kinds(window: history.Window) -> dict[int, str]:
    """Rows whose weight changes: ``new``, or ``revised`` if one restates or withdraws what was known."""
    before, after = window.weight(0), window.weight(1)
    names = backtest.identities(window.rows)
    known = {name for name, weight in zip(names, before, strict=True) if weight}
    changed = np.flatnonzero(before != after)
    return {int(r): "revised" if names[r] in known else "new" for r in changed}


def _walk(
    window: history.Window,
    worldview: Worldview,
    present: history.Stored,
    settings: inference.Settings,
    seed: int,
    progress: batch.Progress | None,
) -> tuple[list[Node], list[str]]:
    """Posteriors on the way from the old rows to the new, or the reasons for which the gate refused one."""
    declared = batch.declared_parameters(window.rows, worldview)
    program: Compiled = batch.compile_once({}, window.rows, declared)
    tell = None if progress is None else partial(progress, worldview.name)
    fixed, before, after = model.data_values(declared), window.weight(0), window.weight(1)
    years = np.array(list(prediction.report_dates().values()))
    inputs, nodes = window.inputs[1], list[Node]()
    fixed |= model.row_data(window.rows, after)
    start = fixed | model.row_data(window.rows, before)
    fit, _ = free_values.recentred_fit(present.fit, declared, window.rows, start, fixed)

    def data(t: float) -> dict[str, Numbers]:
        return fixed | {"weight": (1 - t) * before + t * after}

    for i, t in enumerate(_NODES):
        if i:
            fit = inference.advance(program, seed + i, fit, data(_NODES[i - 1]), data(t), settings, tell)
            judged = batch.examine(program, fit, data(t), settings)
            if judged.failed:
                return [], [r for reasons in judged.failures.values() for r in reasons]
            draws = judged.draws
        else:
            draws = {n: inference.describe(program, fit, k, data(t)) for k, n in enumerate(DYNAMICS)}
        thinned = {n: d.isel(draw=thin(d.sizes["draw"], batch.KEPT_DRAWS)) for n, d in draws.items()}
        passages = {
            n: batch.predict(n, d, inputs, declared, seed)["passage"].values for n, d in thinned.items()
        }
        nodes.append(_node(fit, thinned, passages, after - before, years))
    return nodes, []


# Tables -------------------------------------------------------------------------------------------------


def tables(found: Mapping[str, Any], titles: Mapping[str, str]) -> RenderableType:
    """One ledger for a terminal: key milestones and dates, and which indicators moved them.

    Parameters
    ----------
    found
        From `ledger`.
    titles
        Milestone titles by id.
    """
    rows = found["rows"]
    head = f"{found['worldview']}, {found['from']} to {found['to']}: {rows['new']} new rows"
    parts: list[RenderableType] = [Text(f"{head}, {rows['revised']} revised or withdrawn")]
    if found["stored"] is None:
        parts.append(
            Text(f"No run of {found['from']} is stored: from what present code and priors say of it")
        )
    if found["code"]:
        parts.append(Text(f"Code {found['code']['from']} -> {found['code']['to']}"))
    parts += [Text(f"Prior {n}: {p['from']} -> {p['to']}") for n, p in found["priors"].items()]
    if found["gate"] == "fail":
        return Group(*parts, *(Text(f"  failed: {r}", style="red") for r in found["reasons"]))
    shown = [m for m in found["milestones"] if m["id"] in KEY_MILESTONES and m["by"] in KEY_DATES]
    # Parts that played no role would only make the table too wide to read.
    used = [p for p in PARTS if any(any(m["parts"][p].values()) for m in found["milestones"])]
    columns = ["milestone", "by", "from→to", "change", *(p.removesuffix("_rows") for p in used)]
    cells = [
        [
            m["id"],
            m["by"][:4],
            f"{m['from']:.2f}→{m['to']:.2f}",
            _moved(m["change"], m["change_se"]),
            *(_moved(m["parts"][p]["value"], m["parts"][p]["se"]) for p in used),
        ]
        for m in shown
    ]
    parts.append(
        reports.plain_table(
            columns, cells, "Change of the probability of having happened by 1 January, and its parts"
        )
    )
    for m in shown:
        if m["by"] == KEY_DATES[1]:
            movers = [f"{x['indicator']} {_moved(x['value'], x['se'])}" for x in m["indicators"][:5]]
            parts.append(Text(f"{titles.get(m['id'], m['id'])}, by {m['by']}: {', '.join(movers)}"))
    return Group(*parts)


def _moved(value: float, se: float) -> str:
    return f"{value:+.3f}±{se:.3f}".replace("±0.", "±.")
