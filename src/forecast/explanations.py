"""One record per worldview of how it took in the evidence, as the command prints and keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from forecast import accounts, camps, frozen, narrative
from forecast.accounts import Run
from forecast.dynamics import DYNAMICS

RULE = (
    "separated: |log Bayes factor| less two standard errors of at least ln 19 (even odds become 95 to 5); "
    "leaning: at least ln 3; not identified: less."
)
"""The rule of verdicts, as printed."""


def records(
    read: Mapping[str, Sequence[Run]], base: Run | None, refitters: Mapping[str, frozen.Refitter]
) -> list[dict[str, Any]]:
    """Everything `forecast explain` says, one entry per worldview.

    Parameters
    ----------
    read
        Runs of each worldview by date, from `accounts.stored`.
    base
        Run of a worldview without lines of its own and of the same date, from which single lines are
        judged; None if there is none.
    refitters
        Of each worldview, for the refits that were made before.

    Returns
    -------
    list of dict
        ``worldview``, ``as_of``, ``rows``, ``odds``, ``favoured``, ``account``, ``batches``, ``ledger``,
        ``deviation``, ``pairs``, ``frozen``, ``indicators``, ``convergence``, ``lines``, ``needs``,
        ``sensitivity``, ``rule`` and ``words``.
    """
    together = camps.convergence(read)
    found = []
    for name, runs in read.items():
        run = runs[-1]
        held = frozen.frozen_record(refitters[name])
        pairs = accounts.pair_records(run)
        for pair in pairs:
            match = next(
                (p for p in (held or {"pairs": []})["pairs"] if (p["a"], p["b"]) == (pair["a"], pair["b"])),
                None,
            )
            pair["frozen"] = match and match["frozen"]
            pair["absorbed"] = match and match["absorbed"]
            pair["shapley"] = match and match["shapley"]
            pair["refuted"] = match and match["refuted"]
        odds = dict(zip(DYNAMICS, map(float, run.odds), strict=True))
        top = max(odds.values())
        record = {
            "worldview": name,
            "as_of": run.as_of,
            "rows": len(run.rows),
            "odds": odds,
            "favoured": [n for n, p in odds.items() if p >= 0.6 * top and len(set(odds.values())) > 1]
            or list(odds),
            "account": accounts.account(run),
            "batches": [accounts.account(after, before) for before, after in pairwise(runs)],
            "ledger": accounts.ledger(run),
            "deviation": {n: accounts.deviation_path(run, n) for n in DYNAMICS},
            "pairs": pairs,
            "frozen": held and held["log_evidence"],
            "indicators": camps.who_moved(run, frozen.kept_without(refitters[name])),
            "convergence": together,
            "lines": camps.single_lines(base, run.worldview) if base else [],
            "needs": camps.needs(run),
            "sensitivity": camps.sensitivity(run),
            "rule": RULE,
        }
        found.append(record | {"words": narrative.explain(record)})
    return found
