"""Sections of the page from what `explain`, `whatif` and `backtest` print as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forecast import absorption_figures, figures
from forecast.schema import BELT

Figure = Callable[[str, figures.Spec, Any, int | None], dict[str, Any]]
"""Registers a chart: its name, the chart, a table of its numbers, room for its axis."""


def _cell(number: Mapping[str, float] | None, digits: int = 2, sign: bool = False) -> str:
    if number is None:
        return "not computed"
    return f"{number['value']:{'+' if sign else ''}.{digits}f} ± {number['se']:.{digits}f}"


def absorption(explained: Sequence[Mapping[str, Any]], figure: Figure) -> dict[str, Any]:
    """Who took in the evidence.

    Parameters
    ----------
    explained
        What `forecast explain --format json` prints: at least ``worldview``, ``as_of``, ``account`` and
        ``pairs``; ``words`` and ``rule`` are shown if there.
    figure
        Makes a figure of a chart.
    """
    accounts = [
        [
            one["worldview"],
            _cell(one["account"]["decided"]),
            _cell(one["account"]["learnt"]),
            *(_cell(one["account"]["absorbed"][g]) for g in ("total", *BELT)),
            f"{100 * one['account']['rate']['value']:.0f} %",
        ]
        for one in explained
    ]
    pairs = [
        [
            f"{one['worldview']}: {p['a']} against {p['b']}",
            _cell(p["log_bayes_factor"], sign=True),
            _cell(p.get("frozen"), sign=True),
            _cell(p.get("absorbed"), sign=True),
            p["verdict"],
            ", ".join(a["name"] if isinstance(a, dict) else str(a) for a in p.get("pin_down") or ()),
        ]
        for one in explained
        for p in one["pairs"]
    ]
    first = figure(
        "fig-account",
        absorption_figures.account(explained),
        {
            "columns": ["worldview", "decided", "learnt", "absorbed", *BELT, "rate"],
            "rows": accounts,
        },
        90,
    )
    second = figure(
        "fig-frozen",
        absorption_figures.frozen_and_free(explained),
        {
            "columns": ["pair", "free (nats)", "frozen (nats)", "absorbed (nats)", "verdict", "pin down"],
            "rows": pairs,
        },
        190,
    )
    words = [
        {
            "title": f"In words: {one['worldview']}",
            "columns": ["what happened"],
            # Names stand in backticks for a terminal.
            "rows": [[w.replace("`", "")] for w in one["words"]],
        }
        for one in explained
        if one.get("words")
    ]
    rule = explained[0].get("rule", "")
    text = (
        "Each camp has assumptions that explain contrary evidence away. Evidence that moves them instead "
        "of the weights of the dynamics is absorbed; where assumptions could make up for any difference, a "
        "pair is not identified. "
    )
    return {
        "id": "absorption",
        "nav": "Who absorbed what",
        "text": text + (rule if isinstance(rule, str) else ""),
        "figures": [first, second],
        "tables": words,
    }


def scenarios(asked: Sequence[Mapping[str, Any]], figure: Figure) -> dict[str, Any]:
    """What hypothetical rows would do; those without an answer are in the table alone.

    Parameters
    ----------
    asked
        What `forecast whatif --format json` prints: ``worldview``, ``title``, ``weights``, ``note``.
    figure
        Makes a figure of a chart.
    """
    answered = [one for one in asked if one["weights"]]
    names = list(answered[0]["weights"]) if answered else ["answer"]

    def cells(weights: Mapping[str, Any] | None) -> list[str]:
        if weights is None:
            return ["none"] * len(names)
        sides = ((w["before"], w["after"]) for w in weights.values())
        return [f"{b['value']:.2f} to {a['value']:.2f} ± {a['se']:.2f}" for b, a in sides]

    rows = [
        [f"{one['title']}, {one['worldview']}", *cells(one["weights"]), one.get("note") or ""]
        for one in asked
    ]
    table = {"columns": ["scenario and worldview", *names, "note"], "rows": rows}
    return {
        "id": "scenarios",
        "nav": "What would change minds",
        "text": "Rows nobody has published, put through the same update: questions, not forecasts.",
        "figures": [figure("fig-scenarios", absorption_figures.scenarios(answered), table, 250)]
        if answered
        else [],
        "tables": [] if answered else [{"title": "Scenarios", **table}],
    }


def backtest(scored: Mapping[str, Any]) -> dict[str, Any]:
    """The record of past forecasts.

    Parameters
    ----------
    scored
        What `forecast backtest --format json` prints: ``scores`` and ``skill``, lists of entries by
        ``worldview``, ``forecaster``, ``category`` and ``horizon``.
    """
    tables = []
    for key, title in (("scores", "Mean scores"), ("skill", "Skill against baselines")):
        entries = scored.get(key) or []
        plain = [{k: v for k, v in entry.items() if not isinstance(v, list | dict)} for entry in entries]
        if plain:
            columns = list(dict.fromkeys(k for entry in plain for k in entry))
            rows = [[_plain(entry.get(c)) for c in columns] for entry in plain]
            tables.append({"title": title, "columns": [c.replace("_", " ") for c in columns], "rows": rows})
    text = (
        "Forecasts made with what was known on past days, scored on what was published since. Of log score "
        "and skill higher is better, of the Brier score lower."
    )
    return {"id": "backtest", "nav": "Backtest record", "text": text, "figures": [], "tables": tables}


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
