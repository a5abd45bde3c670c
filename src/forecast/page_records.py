"""Sections of the page from what `explain`, `whatif` and `backtest` print as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forecast import absorption_figures, backtest_figures, figures
from forecast.absorption_reports import percent
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
            percent(one["account"]["rate"]),
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


def backtest(scored: Mapping[str, Any], figure: Figure) -> dict[str, Any]:
    """The record of past forecasts: every forecaster over all categories; the rest is in the Parquet table.

    Parameters
    ----------
    scored
        What `forecast backtest --format json` prints.
    figure
        Makes a figure of a chart.
    """
    skill = [
        [
            f"{e['worldview']} {e['forecaster']}",
            e["baseline"].replace("_", " "),
            e["horizon"],
            str(e["rows"]),
            f"{e['log_score']:+.2f}{_interval(e['log_score_low'], e['log_score_high'])}",
        ]
        for e in backtest_figures.by_horizon(scored["skill"])
    ]
    scores = [
        [
            e["forecaster"] if e["worldview"] == "none" else f"{e['worldview']} {e['forecaster']}",
            e["horizon"],
            str(e["rows"]),
            f"{e['log_score']:.2f} ± {e['log_score_se']:.2f}",
            *(f"{100 * e[f'covered_{level}']:.0f} %" for level in (50, 80, 95)),
        ]
        for e in backtest_figures.by_horizon(scored["scores"])
    ]
    drawn = []
    if backtest_figures.of_mixtures(scored["skill"]):
        columns = ["forecaster", "against", "published after", "rows", "nats a row (90 %)"]
        spec = backtest_figures.skill(scored)
        drawn.append(figure("fig-skill", spec, {"columns": columns, "rows": skill}, 60))
    if backtest_figures.of_mixtures(scored["scores"]):
        columns = ["forecaster", "published after", "rows", "log score", "50 %", "80 %", "95 %"]
        spec = backtest_figures.coverage(scored)
        drawn.append(figure("fig-coverage", spec, {"columns": columns, "rows": scores}, 60))
    text = (
        "Forecasts made with what was known on past days, scored on what was published since. "
        "Simple baselines have no forecast of a series that is new. "
    )
    nothing = "" if drawn else "No worldview's mixture was scored."
    return {
        "id": "backtest",
        "nav": "Backtest record",
        "text": text + nothing,
        "figures": drawn,
        "tables": [],
    }


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:+.2f} to {high:+.2f})"
