"""Accounts in words: every clause stands on a figure of the record it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PLAIN = {
    "J": "the one-off jump of reasoning models",
    "deviation": "the correlated deviation of published capability from the path",
    "deviation_sd": "the size of that deviation",
    "mu_D": "the gap between benchmarks and real work",
    "f26": "the share of tasks automated in 2026",
    "v": "the speed of automation",
    "tau": "the lag from discovery to deployment",
    "g0": "software growth in 2023",
    "pL": "the pull of research labour",
    "pK": "the pull of compute",
    "kappa": "code counted per unit of output",
    "code_google": "Google's code against automated tasks",
    "code_anthropic": "Anthropic's code against automated tasks",
    "code_microsoft": "Microsoft's code against automated tasks",
    "use_offset": "use of AI against automated tasks",
    "camp": "how easily staff say yes",
    "selection": "selection in trials",
    "cost": "the cost of early tools",
    "hype_speed": "exaggeration of speed",
    "hype_value": "exaggeration of value",
    "disclosure_lab": "selective reporting by AI companies",
    "phi": "the share never automated",
    "h": "the share that comes back as new human work",
    "gamma": "the gain from new kinds of task",
    "chi": "the slope of AI productivity",
    "ln_qr": "AI productivity in 2026",
    "sigma": "substitution between tasks",
    "gK1": "compute growth",
    "gK2": "compute growth after its slow-down",
    "ts": "the date of the compute slow-down",
    "gL": "headcount growth",
    "g2": "the gap to experiments",
    "g3": "the gap to ideation",
    "g4": "the gap to strategy",
    "release_gap": "internal use before release",
    "h2": "the curvature of time horizons",
    "r": "the return to software effort",
    "room": "the room below the ceiling",
}
"""Assumptions as a sentence names them; others go by their name."""
MUCH = 0.1
"""Change of weight from which a dynamic is named that was not favoured."""


def plain(name: str) -> str:
    """An assumption in words, with the name it has in tables."""
    return f"{PLAIN[name]} (`{name}`)" if name in PLAIN else f"`{name}`"


def explain(record: Mapping[str, Any]) -> list[str]:
    """Sentences on what one worldview did with the evidence, from its record."""
    account, pairs = record["account"], record["pairs"]
    whole, absorbed = _nats(_sum(account)), _nats(account["absorbed"]["total"])
    decided, learnt, deviation = (_nats(account[part]) for part in ("decided", "learnt", "deviation"))
    told = [
        _kept(record),
        f"Of {whole} that the data told about dynamics and assumptions, {decided} decided between dynamics, "
        f"{learnt} taught about their cores, and {absorbed} were absorbed ({_percent(account['rate'])}), "
        f"{deviation} of them only by the correlated deviation, which is close to noise.",
    ]
    told += [_absorbers(record, name) for name in record["favoured"]]
    told += _moved(record)
    told.append(_verdicts(pairs))
    told += _best_argument(record)
    told += _open(account)
    return told


def _kept(record: Mapping[str, Any]) -> str:
    """What became of the dynamics that the worldview favoured, and of others whose weight changed much."""
    clauses = []
    for need in record["needs"]:
        name, after = need["dynamic"], need["posterior"]
        before = record["odds"][name]
        if name in record["favoured"] or abs(after["value"] - before) > max(MUCH, 2 * after["se"]):
            kept = abs(after["value"] - before) <= max(0.05, 2 * after["se"])
            how = "kept" if kept else "lost faith in" if after["value"] < before else "gained faith in"
            clauses.append(f"{how} `{name}` ({before:.2f} before the data, {_error(after)} after)")
    return f"`{record['worldview']}` {_list(clauses)}."


def _absorbers(record: Mapping[str, Any], name: str, count: int = 4) -> str:
    """What took in the evidence under one dynamic."""
    belt = [a for a in record["ledger"][name]["assumptions"] if a["role"] != "core"]
    clauses = []
    for one in belt[:count]:
        figures = f"{one['first_moved']['value']:.1f} nats"
        if one["shift"] is not None:
            figures = f"{one['shift']['value']:+.1f} sd, {figures}"
        clauses.append(f"{plain(one['name'])} ({figures})")
    return f"Under `{name}` the evidence was taken in by {_list(clauses)}."


def _moved(record: Mapping[str, Any]) -> list[str]:
    """The indicators that moved the favoured dynamics against each other or the rest most."""
    best = []
    for one in record["indicators"]:
        for pair in one["pairs"]:
            change = pair["change"]
            if one["kind"] == "family" and change and abs(change["value"]) > 2 * change["se"]:
                best.append((abs(change["value"]), one["name"], pair))
    told = []
    for _, name, pair in sorted(best, key=lambda x: -x[0])[:2]:
        change = pair["change"]
        a, b = (pair["a"], pair["b"]) if change["value"] > 0 else (pair["b"], pair["a"])
        told.append(
            f"Rows on {name} speak for `{a}` against `{b}` by {abs(change['value']):.1f} ± "
            f"{change['se']:.1f} nats."
        )
    unknown = [x["name"] for x in record["indicators"] if x["kind"] == "family" and x["method"] is None]
    if unknown:
        told.append(
            f"What {len(unknown)} of the indicator families contributed cannot be read off stored draws "
            "(Pareto k above 0.7); `--refit` computes it."
        )
    return told


def _verdicts(pairs: Sequence[Mapping[str, Any]]) -> str:
    """How many pairs are told apart, and what would have to be pinned down for those that are not."""
    apart = [p for p in pairs if p["verdict"] == "separated"]
    leaning = [p for p in pairs if p["verdict"] == "leaning"]
    open_ = [p for p in pairs if p["verdict"] == "not identified"]
    told = []
    if apart:
        told.append("separated: " + _list([_sign(p) for p in apart]))
    if leaning:
        told.append("leaning: " + _list([_sign(p) for p in leaning]))
    if open_:
        told.append("not identified: " + _list([_sign(p) for p in open_]))
    text = "Of the pairs, " + "; ".join(told) + "."
    weak = [p for p in [*open_, *leaning] if p["pin_down"]]
    if weak:
        one = max(weak, key=lambda p: p["pin_down"][0]["value"])
        pin = one["pin_down"][0]
        text += (
            f" Knowing {plain(pin['name'])} exactly would tell `{one['a']}` from `{one['b']}` by "
            f"{pin['value']:.1f} ± {pin['se']:.1f} nats on average, more than any other single assumption "
            "of a pair not separated; 2.9 are needed."
        )
    return text


def _best_argument(record: Mapping[str, Any]) -> list[str]:
    """What a critic of the worldview would say: its assumptions against those of others, and its rivals."""
    told = []
    mine = record["worldview"]
    last = [d for d in record["convergence"]["dates"] if d["as_of"] == record["as_of"]]
    for one in last:
        if mine not in (one["a"], one["b"]):
            continue
        other = one["b"] if one["a"] == mine else one["a"]
        gap = one["evidence_gap"]["value"] * (1 if one["a"] == mine else -1)
        better = "better" if gap > 0 else "worse"
        told.append(
            f"Its assumptions predicted the data {better} than those of `{other}` by {abs(gap):.1f} ± "
            f"{one['evidence_gap']['se']:.1f} nats at even odds."
        )
    rivals = [p for p in record["pairs"] if {p["a"], p["b"]} & set(record["favoured"])]
    for pair in rivals:
        value = pair["log_bayes_factor"]["value"]
        loser = pair["b"] if value > 0 else pair["a"]
        winner = pair["a"] if value > 0 else pair["b"]
        if (
            loser in record["favoured"]
            and winner not in record["favoured"]
            and pair["verdict"] != "not identified"
        ):
            told.append(
                f"Even under its own assumptions the data lean to `{winner}` against `{loser}`, by "
                f"{abs(value):.1f} ± {pair['log_bayes_factor']['se']:.1f} nats."
            )
    lines = [x for x in record["lines"] if x["distance"]]
    if lines:
        top = lines[0]
        told.append(
            f"Of its assumptions, {plain(top['line'].split('.')[-1])} alone would move the weights most "
            f"(total variation {top['distance']:.2f} from those of `neutral`)."
        )
    return told


def _open(account: Mapping[str, Any]) -> list[str]:
    return [
        f"{_nats(account['unassigned'])} of the information gained are not assigned to anything: the "
        "account is of Gaussians, and the draws are not quite Gaussian."
    ]


def _sum(account: Mapping[str, Any]) -> dict[str, float]:
    parts = (account["decided"], account["learnt"], account["absorbed"]["total"])
    return {"value": sum(p["value"] for p in parts), "se": sum(p["se"] ** 2 for p in parts) ** 0.5}


def _nats(x: Mapping[str, float]) -> str:
    return (
        f"{x['value']:.1f} ± {x['se']:.1f} nats"
        if x["se"] >= 0.05
        else f"{x['value']:.2f} ± {x['se']:.2f} nats"
    )


def _error(x: Mapping[str, float]) -> str:
    return f"{x['value']:.2f} ± {x['se']:.2f}"


def _percent(x: Mapping[str, float]) -> str:
    return f"{100 * x['value']:.0f} ± {max(1, round(100 * x['se'])):.0f} %"


def _sign(pair: Mapping[str, Any]) -> str:
    value = pair["log_bayes_factor"]
    a, b = (pair["a"], pair["b"]) if value["value"] >= 0 else (pair["b"], pair["a"])
    return f"`{a}` over `{b}` by {abs(value['value']):.1f} ± {value['se']:.1f} nats"


def _list(clauses: Sequence[str]) -> str:
    return clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
