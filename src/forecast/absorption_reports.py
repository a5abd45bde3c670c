"""Accounts and scenarios as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forecast.schema import BELT

LARGEST = 8
"""Assumptions shown of each dynamic; `--format json` has all."""


def cell(x: Mapping[str, Any] | None, digits: int = 2, sign: bool = False) -> str:
    """A number with its error, or a dash where there is none."""
    if x is None or x["value"] is None:
        return "-"
    error = "?" if x["se"] is None else f"{x['se']:.{digits}f}"
    return f"{x['value']:{'+' if sign else ''}.{digits}f} ± {error}"


def percent(x: Mapping[str, float] | None) -> str:
    """A share in per cent, or a dash."""
    return "-" if x is None else f"{100 * x['value']:.0f} %"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table of plain words, the first `left` columns set left."""
    found = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        found.add_column(column, justify="left" if i < left else "right", overflow="fold")
    for row in rows:
        found.add_row(*(Text(x) for x in row))
    return found


def tables(records: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Everything `forecast explain` shows, headline first, then a part for each worldview."""
    parts: list[RenderableType] = [_accounts(records)]
    for one in records:
        parts += [
            Text(""),
            Text(f"{one['worldview']} as of {one['as_of']}: {one['rows']} rows", style="bold"),
        ]
        parts += [Text("  " + sentence) for sentence in one["words"]]
        parts.append(_ledger(one))
        parts.append(_pairs(one))
        parts.append(Text(one["rule"]))
        if one["frozen"] is None:
            parts.append(Text("Frozen against free was not computed for this run; `--refit` does it."))
        else:
            parts += _frozen(one)
        parts.append(_moved(one))
        parts.append(_needs(one))
    parts += _camps(records)
    return Group(*parts)


def _accounts(records: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("batch", "decided", "learnt", "absorbed", *BELT, "calibration", "unassigned", "rate")
    rows = []
    for one in records:
        for label, batch in [("all", one["account"]), *((b["to"], b) for b in one["batches"])]:
            rows.append(
                (
                    f"{one['worldview']}, {label}",
                    cell(batch["decided"]),
                    cell(batch["learnt"]),
                    cell(batch["absorbed"]["total"], 1),
                    *(cell(batch["absorbed"][g], 1) for g in BELT),
                    cell(batch["calibration"], 1),
                    cell(batch["unassigned"], 1),
                    percent(batch["rate"]),
                )
            )
    return table("What the evidence did, nats", columns, rows)


def _ledger(one: Mapping[str, Any]) -> Table:
    columns = ("dynamic", "assumption", "group", "shift, sd", "first moved", "last moved", "reliance")
    rows = []
    for name, entry in one["ledger"].items():
        rows.append(
            (
                name,
                f"log evidence {cell(entry['log_evidence'])}",
                "",
                "",
                f"fit {cell(entry['fit'])}",
                f"price {cell(entry['price'])}",
                f"gap {cell(entry['gap'])}",
            )
        )
        for a in entry["assumptions"][:LARGEST]:
            cells = (cell(a["shift"], 2, True), cell(a["first_moved"]), cell(a["last_moved"]))
            rows.append(("", a["name"], a["role"], *cells, cell(a["reliance"], 2, True)))
    return table(
        "Ledger: log evidence = fit - price, and what each assumption took in, nats", columns, rows, 3
    )


def _pairs(one: Mapping[str, Any]) -> Table:
    rows = []
    for p in one["pairs"]:
        pins = ", ".join(f"{x['name']} {x['value']:.2f}" for x in p["pin_down"])
        rows.append(
            (
                f"{p['a']} : {p['b']}",
                cell(p["log_bayes_factor"], 2, True),
                cell(p["frozen"], 2, True),
                cell(p["absorbed"], 2, True),
                p["verdict"],
                pins,
            )
        )
    columns = ("pair", "log Bayes factor", "belt frozen", "absorbed", "verdict", "pinning down adds, nats")
    return table("Pairs of dynamics", columns, rows)


def _frozen(one: Mapping[str, Any]) -> list[RenderableType]:
    rows, costs = [], []
    for p in one["pairs"]:
        if p["shapley"]:
            rows.append((f"{p['a']} : {p['b']}", *(f"{p['shapley'][g]:+.2f}" for g in BELT)))
    for some, by in one["frozen"].items():
        cells = (cell(x["cost"], 1) + (" refuted" if x["refuted"] else "") for x in by.values())
        costs.append((some.replace("+", ", "), *cells))
    parts: list[RenderableType] = []
    if rows:
        parts.append(table("Shapley shares of what freezing the belt adds, nats", ("pair", *BELT), rows))
    dynamics = list(next(iter(one["frozen"].values())))
    parts.append(table("What freezing costs in log evidence, nats", ("frozen", *dynamics), costs))
    return parts


def _moved(one: Mapping[str, Any]) -> Table:
    pairs = [f"{p['a']} : {p['b']}" for p in one["pairs"]]
    rows = []
    for x in one["indicators"]:
        cells = [cell(p["change"], 2, True) for p in x["pairs"]]
        k = "-" if x["pareto_k"] is None else f"{x['pareto_k']:.2f}"
        rows.append(
            (x["kind"], x["name"], str(x["rows"]), *cells, f"{x['method'] or 'needs --refit'} (k {k})")
        )
    return table(
        "Who moved it: nats each family and programme adds to the log Bayes factor",
        ("", "name", "rows", *pairs, "method"),
        rows,
        2,
    )


def _needs(one: Mapping[str, Any]) -> Table:
    rows = [
        (n["dynamic"], cell(n["posterior"], 3), cell(n["log_bayes_factor"], 2, True)) for n in one["needs"]
    ]
    return table(
        "What it would take: log Bayes factor against the others to pass one half",
        ("dynamic", "posterior", "needed, nats"),
        rows,
    )


def _camps(records: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    together = records[0]["convergence"]
    rows = [
        (
            d["as_of"],
            f"{d['a']}, {d['b']}",
            f"{d['prior_distance']:.2f}",
            f"{d['posterior_distance']:.2f}",
            cell(d["evidence_gap"], 1, True),
        )
        for d in together["dates"]
    ]
    parts: list[RenderableType] = []
    if rows:
        parts.append(
            table(
                "Do the camps converge? Distance is total variation; gap is what the data say of assumptions",
                ("as of", "worldviews", "distance of odds", "of posteriors", "gap, first over second, nats"),
                rows,
                2,
            )
        )
    names = list(records[0]["odds"])
    cross = [
        (c["odds"], c["assumptions"], *(cell(c["posterior"][n], 3) for n in names)) for c in together["cross"]
    ]
    parts.append(
        table("Odds of one worldview, assumptions of another", ("odds", "assumptions", *names), cross, 2)
    )
    for one in records:
        lines = [
            (
                x["line"],
                *(cell(x["log_evidence"] and x["log_evidence"][n], 2, True) for n in names),
                "-" if x["distance"] is None else f"{x['distance']:.3f}",
            )
            for x in one["lines"]
        ]
        if lines:
            parts.append(
                table(
                    f"What each line of {one['worldview']} does alone: change of log evidence, nats",
                    ("line", *names, "distance moved"),
                    lines,
                )
            )
    return parts


def scenario_tables(records: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What a scenario would do to each worldview: weights, account, discriminating evidence and movers."""
    parts: list[RenderableType] = [Text(records[0]["title"], style="bold")]
    told = [r for r in records if r["method"]]
    if told:
        names = list(told[0]["weights"])
        rows, accounts = [], []
        for one in told:
            weights = (f"{x['before']['value']:.2f} to {cell(x['after'])}" for x in one["weights"].values())
            rows.append((one["worldview"], *weights, one["method"]))
            batch = one["account"]
            cells = (batch["decided"], batch["learnt"], batch["absorbed"]["total"])
            groups = (batch["absorbed"][g] for g in BELT)
            rate = percent(batch["rate"])
            accounts.append((one["worldview"], *(cell(x) for x in (*cells, *groups)), rate))
        parts.append(table("Weights, before to after", ("worldview", *names, "method"), rows))
        columns = ("worldview", "decided", "learnt", "absorbed", *BELT, "rate")
        parts.append(table("What the rows would do, nats", columns, accounts))
    for one in told:
        pairs = [
            (f"{p['a']} : {p['b']}", *(cell(p[x], 2, True) for x in ("free", "frozen", "absorbed")))
            for p in one["pairs"]
        ]
        columns = ("pair", "log Bayes factor", "belt frozen", "absorbed")
        parts.append(table(f"{one['worldview']}: evidence between dynamics, nats", columns, pairs))
        rows = []
        for name, listed in one["movers"].items():
            for m in [x for x in listed if x["role"] != "calibration"][:3]:
                rows.append((name, m["name"], m["role"], cell(m["shift"], 2, True), cell(m["nats"])))
        columns = ("dynamic", "assumption", "group", "shift, sd", "nats")
        parts.append(table(f"{one['worldview']}: what moves most", columns, rows, 3))
    parts += [Text(f"{r['worldview']}: {r['note']}") for r in records if r["note"]]
    return Group(*parts)
