"""The page: stored runs as one HTML file that opens from disk and loads nothing from outside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
import vl_convert
from markupsafe import Markup

from forecast import figures, indicator_figures, page_records, path_figures, reports, views
from forecast.dynamics import DYNAMICS
from forecast.schema import T_END, InputError

HERE = Path(__file__).parent
KEY_YEARS = (2028, 2030, 2035)
"""Dates of the tables of milestones."""
THRESHOLDS = {"leaning": 3, "settled": 10}
"""Posterior odds of a pair from which the page calls it leaning or settled."""
_THEME = {figures.INK: "var(--ink)", figures.MUTED: "var(--muted)", figures.GRID: "var(--line)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(figures.COLOURS)
}
"""Colours of the page, light or dark, in place of those of a file."""


class Parts(NamedTuple):
    """What a page is made of."""

    last: Sequence[views.Stored]
    """Newest run of each worldview."""
    dated: Sequence[Mapping[str, Any]]
    """Weights by date, from `views.load`."""
    rows: pd.DataFrame
    """Rows of the likelihood."""
    indicator_titles: Mapping[str, str]
    milestones: Mapping[str, str]
    """Title by milestone."""
    explained: Sequence[Mapping[str, Any]] = ()
    """What `forecast explain --format json` prints."""
    scenarios: Sequence[Mapping[str, Any]] = ()
    """What `forecast whatif --format json` prints."""
    backtest: Mapping[str, Any] | None = None
    """What `forecast backtest --format json` prints."""


def render(parts: Parts) -> str:
    """The whole page.

    Every string of the data reaches the page through a template that escapes it or as text of a node;
    none is ever read as markup.
    """
    as_of = max(one.record["as_of"] for one in parts.last)
    charts: dict[str, figures.Spec] = {}
    texts: dict[str, dict[str, dict[str, str]]] = {}
    table = views.milestone_table(parts.last)
    figure = partial(_figure, charts)
    sections = [
        _headline(parts, charts),
        _own(charts),
        _weights(parts, charts),
        _paths(parts, charts, texts, as_of),
        _milestones(parts, table, charts, as_of),
        page_records.absorption(parts.explained, figure) if parts.explained else None,
        _evidence(parts, charts, as_of),
        page_records.scenarios(parts.scenarios, figure) if parts.scenarios else None,
        page_records.backtest(parts.backtest, figure) if parts.backtest else None,
        _data(parts),
        _provenance(parts),
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    template = environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(
        as_of=as_of,
        summary=_summary(parts),
        end=int(T_END),
        key_years=KEY_YEARS,
        thresholds=THRESHOLDS,
        dynamics=[{"name": n, "summary": d.summary} for n, d in DYNAMICS.items()],
        milestones=[{"id": m, "title": parts.milestones[m]} for m in _ordered(table)],
        telling=_telling(table),
        worldviews=[_card(one, parts.milestones) for one in parts.last],
        sections=[s for s in sections if s],
        payload=_payload(parts, table, charts, texts),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        # The stub wants a snippet; without one the bundle sets `vegaEmbed`.
        vega=Markup(vl_convert.javascript_bundle(None)),  # type: ignore[arg-type]
    )


def write(text: str, to: Path) -> None:
    """Write a page whole or not at all."""
    draft = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, to)
    except OSError as error:
        raise InputError(f"--output: {to} cannot be written ({error.strerror}); name another file") from None
    finally:
        draft.unlink(missing_ok=True)


# Sections -----------------------------------------------------------------------------------------------


def _section(name: str, nav: str, text: str = "", **content: Any) -> dict[str, Any]:
    return {"id": name, "nav": nav, "text": text, "figures": [], "tables": []} | content


def _figure(
    charts: dict[str, figures.Spec],
    name: str,
    spec: figures.Spec,
    table: dict[str, Any] | None = None,
    margin: int | None = None,
) -> dict[str, Any]:
    """Register a chart under a name, and say what stands around it."""
    *notes, source = spec["title"]["subtitle"]
    bare = {k: v for k, v in spec.items() if k not in ("title", "description")}
    bare["config"] = spec["config"] | {"background": None, "aria": False}
    if margin:
        bare["usermeta"] = {"margin": margin}
    charts[name] = bare
    about = {"title": spec["title"]["text"], "notes": " ".join(notes), "source": source}
    return about | {"id": name, "alt": spec["description"], "table": table}


def _percent(x: float, digits: int = 0) -> str:
    return f"{100 * x:.{digits}f} %"


def _summary(parts: Parts) -> str:
    """The finding in two sentences."""
    sound = [one for one in parts.last if len(views.sound(one)) == len(one.record["dynamics"])]
    text = f"{figures.leaders([one.record for one in sound])}."
    if len(sound) > 1:
        prior, posterior, pair = max(
            (_apart(a, b) for i, a in enumerate(sound) for b in sound[i + 1 :]), key=lambda x: x[0]
        )
        verb = (
            "closer together"
            if posterior < prior - 0.02
            else ("further apart" if posterior > prior + 0.02 else "no closer")
        )
        text += (
            f" The evidence brings {pair} {verb}: their odds differ by {prior:.2f} before it and by "
            f"{posterior:.2f} after it (total variation)."
        )
    return text[0].upper() + text[1:]


def _apart(a: views.Stored, b: views.Stored) -> tuple[float, float, str]:
    """Total variation of odds and of posteriors of two worldviews, and their names."""
    mine, theirs = a.record["dynamics"], b.record["dynamics"]
    prior, posterior = (
        sum(abs(mine[n][what] - theirs[n][what]) for n in mine) / 2 for what in ("prior", "posterior")
    )
    return prior, posterior, f"{a.worldview.name} and {b.worldview.name}"


def _card(one: views.Stored, titles: Mapping[str, str]) -> dict[str, Any]:
    dynamics = one.record["dynamics"]
    sound = len(views.sound(one)) == len(dynamics)
    card: dict[str, Any] = {
        "name": one.worldview.name,
        "title": one.worldview.title,
        "sound": sound,
        "reasons": "; ".join(sorted({r for d in dynamics.values() for r in d["reasons"]})),
    }
    if not sound:
        return card
    card["weights"] = [
        {
            "name": n,
            "index": k,
            "percent": round(100 * d["posterior"], 2),
            "label": f"{100 * d['posterior']:.0f} %",
            "text": f"{_percent(d['posterior'], 1)} ± {100 * d['posterior_se']:.1f}",
            "was": f"was {_percent(d['prior'])}",
        }
        for k, (n, d) in enumerate(dynamics.items())
    ]
    card["alt"] = ", ".join(f"{w['name']} {w['text']}" for w in card["weights"])
    by = {m["id"]: m for m in one.record["milestones"]}
    card["milestones"] = [
        {
            "title": f"{titles[m]}, by 2030",
            "text": f"{_percent(by[m]['by']['2030-01-01'])} ± {100 * by[m]['by_se']['2030-01-01']:.1f}",
        }
        for m in ("W_2", "automated_ai_researcher", "plateau")
        if m in by
    ]
    return card


def _headline(parts: Parts, charts: dict[str, figures.Spec]) -> dict[str, Any]:
    records = [one.record for one in parts.last]
    text = (
        "A worldview is prior odds over four dynamics plus the assumptions its holders would make. No "
        "single number is the answer: compare the worldviews. ± is one standard error of the computation, "
        "not of the models."
    )
    found = _section("headline", "What is believed", text)
    if any(d["posterior"] is not None for one in records for d in one["dynamics"].values()):
        columns = ["worldview", "dynamic", "prior", "posterior", "log evidence (nats)"]
        rows = [
            [
                one["worldview"],
                n,
                f"{d['prior']:.2f}",
                f"{d['posterior']:.3f} ± {d['posterior_se']:.3f}",
                f"{d['log_evidence']:.2f} ± {d['log_evidence_se']:.2f}",
            ]
            for one in records
            for n, d in one["dynamics"].items()
            if d["posterior"] is not None
        ]
        spec = figures.weights_now(records)
        found["figures"] = [_figure(charts, "fig-weights-now", spec, {"columns": columns, "rows": rows}, 112)]
    return found


def _own(charts: dict[str, figures.Spec]) -> dict[str, Any]:
    spec = figures.own_milestones(list(DYNAMICS))
    _figure(charts, "own-chart", spec)
    text = (
        "Set your own odds: posterior, milestones and verdicts are recomputed here from the stored "
        "evidence. The link below carries your setting."
    )
    return _section("own", "Your own prior", text)


def _weights(parts: Parts, charts: dict[str, figures.Spec]) -> dict[str, Any] | None:
    dates = [(one["worldview"], d) for one in parts.dated for d in one["dates"]]
    if len({d["as_of"] for _, d in dates}) < 2 or not any(
        x["posterior"] is not None for _, d in dates for x in d["dynamics"].values()
    ):
        return None
    rows = [
        [f"{name}, {d['as_of']}"]
        + [
            "failed" if x["posterior"] is None else f"{x['posterior']:.3f} ± {x['posterior_se']:.3f}"
            for x in d["dynamics"].values()
        ]
        for name, d in dates
    ]
    table = {"columns": ["worldview and day", *DYNAMICS], "rows": rows}
    figure = _figure(charts, "fig-weights-time", figures.weights_over_time(parts.dated), table)
    return _section(
        "time", "Weights over time", "Each date uses only what was published by then.", figures=[figure]
    )


def _paths(
    parts: Parts, charts: dict[str, figures.Spec], texts: dict[str, Any], as_of: str
) -> dict[str, Any] | None:
    sound = [one for one in parts.last if views.sound(one)]
    if not sound:
        return None
    table = views.path_table(sound, parts.rows)
    rounded = table.select_dtypes("number").columns.difference(["time"])
    table[rounded] = table[rounded].map(lambda x: float(f"{x:.4g}"))
    found = []
    for quantity in path_figures.PATHS:
        name = f"fig-path-{quantity}"
        spec = path_figures.paths(table, quantity, sound[0].worldview.name, as_of)
        found.append(_figure(charts, name, spec, _path_numbers(table, quantity)))
        texts[name] = {w: _path_words(table, quantity, w) for w in (one.worldview.name for one in sound)}
    text = (
        "Three multipliers are never the same thing: output per researcher (m), pace of software progress "
        "(P) and overall pace (W), which is far below m. The charts show the worldview chosen at the top "
        "of the page."
    )
    return _section("paths", "Paths", text, figures=found)


def _path_words(table: pd.DataFrame, quantity: str, worldview: str) -> dict[str, str]:
    title = path_figures.path_finding(table, quantity, worldview)
    notes = " ".join(path_figures.path_notes(quantity, worldview))
    return {"title": title, "notes": notes, "alt": f"{title}. {notes}"}


def _path_numbers(table: pd.DataFrame, quantity: str) -> dict[str, Any]:
    chosen = table[(table["quantity"] == quantity) & (table["what"] == "band")]

    def show(x: float) -> str:
        return _percent(x) if quantity == "H" else f"{float(f'{x:.3g}'):,g}"

    rows = []
    for (worldview, dynamic), group in chosen.groupby(["worldview", "dynamic"], sort=False):
        low, middle, high = (dict(zip(group["time"], group[q], strict=True)) for q in ("q05", "q50", "q95"))
        cells = [f"{show(middle[y])} ({show(low[y])} to {show(high[y])})" for y in map(float, KEY_YEARS)]
        rows.append([f"{worldview}, {dynamic}", *cells])
    return {"columns": ["median (90 %)", *(f"1 January {y}" for y in KEY_YEARS)], "rows": rows}


def _ordered(table: pd.DataFrame) -> list[str]:
    """Milestones, those of the short table first."""
    known = list(dict.fromkeys(table["milestone"]))
    key = [m for m in reports.KEY_MILESTONES if m in known]
    return [*key, *(m for m in known if m not in key)]


def _telling(table: pd.DataFrame) -> str | None:
    """The key milestone on whose "never" the dynamics of the first worldview differ most."""
    never = table[(table["date"] == figures.NEVER) & table["dynamic"].ne("")]
    never = never[never["milestone"].isin(reports.KEY_MILESTONES)]
    if never.empty:
        return None
    by = never[never["worldview"] == never["worldview"].iloc[0]].groupby("milestone")["probability"]
    return str((by.max() - by.min()).idxmax())


def _milestones(
    parts: Parts, table: pd.DataFrame, charts: dict[str, figures.Spec], as_of: str
) -> dict[str, Any] | None:
    mixed = table[table["dynamic"] == ""]
    if mixed.empty:
        return None
    shown = [m for m in reports.KEY_MILESTONES if m in set(mixed["milestone"])]
    spec = figures.milestones(table, parts.milestones, shown, as_of)
    dates = [*map(float, KEY_YEARS), figures.NEVER]
    rows = []
    for m in _ordered(mixed):
        for worldview, group in mixed[mixed["milestone"] == m].groupby("worldview", sort=False):
            by, error = (dict(zip(group["date"], group[c], strict=True)) for c in ("probability", "error"))
            cells = [f"{_percent(by[d], 1)} ± {100 * error[d]:.1f}" for d in dates]
            rows.append([parts.milestones[m], worldview, *cells])
    columns = ["milestone", "worldview", *(f"by {y}" for y in KEY_YEARS), f"never by {T_END:.0f}"]
    figure = _figure(charts, "fig-milestones", spec, {"columns": columns, "rows": rows})
    text = "Each has a rule by which a person would resolve it. “Never” means not by the end of the paths."
    return _section("milestones", "Milestones", text, figures=[figure])


def _evidence(parts: Parts, charts: dict[str, figures.Spec], as_of: str) -> dict[str, Any]:
    first = parts.last[0]
    table = views.indicator_table(parts.rows, parts.indicator_titles)
    spec = indicator_figures.indicators(table, views.gaps(first), first.worldview.name, as_of)
    text = (
        "Three categories: broad capability; a ladder of AI R&D benchmarks whose two upper rungs have "
        "none; and signs inside companies, which are voluntary, scattered and chosen by those who publish "
        "them."
    )
    return _section("evidence", "The evidence", text, figures=[_figure(charts, "fig-indicators", spec)])


def _data(parts: Parts) -> dict[str, Any]:
    entries: list[Any] = list(parts.rows.itertuples())
    rows = [
        {
            "title": parts.indicator_titles.get(r.indicator_id, r.indicator_id),
            "entity": r.entity,
            "observed": f"{r.observed_at:%Y-%m-%d}",
            "published": f"{r.published_at:%Y-%m-%d}",
            "value": _value(r),
            "unit": "" if pd.isna(r.unit) else r.unit,
            "disclosure": r.disclosure,
            "source": r.source_title,
            # A link is made of an address of the web only, never of a script.
            "url": r.source_url if str(r.source_url).startswith(("https://", "http://")) else "",
        }
        for r in entries
    ]
    text = (
        "Every row of the likelihood, with its source. The command forecast data snapshot lists the others."
    )
    return _section("data", "Data and sources", text, rows=rows, count=len(rows))


def _value(row: Any) -> str:
    if row.bound == "interval":
        return f"{row.lower:g} to {row.upper:g}"
    mark = {"upper": "at most ", "lower": "at least "}.get(row.bound, "")
    interval = "" if pd.isna(row.lower) or pd.isna(row.upper) else f" ({row.lower:.4g} to {row.upper:.4g})"
    return f"{mark}{row.value:.4g}{interval}"


def _provenance(parts: Parts) -> dict[str, Any]:
    gate, origin = [], []
    for one in parts.last:
        check = one.tree["evidence"].to_dataset()["one_shot"].values
        for k, (n, d) in enumerate(one.record["dynamics"].items()):
            known = d["log_evidence"] is not None
            value = f"{d['log_evidence']:.2f} ± {d['log_evidence_se']:.2f}" if known else "none"
            other = f"{check[k, 0]:.2f} ± {check[k, 1]:.2f}" if known else "none"
            verdict = "pass" if d["gate"] == "pass" else "fail: " + "; ".join(d["reasons"])
            gate.append([f"{one.worldview.name}, {n}", verdict, f"{d['min_ess']:.0f}", value, other])
        m = one.manifest
        fields = ("as_of", "created", "rows", "seed", "attempts", "seconds", "code", "key", "content_hash")
        origin.append([one.worldview.name, *(str(m.get(f, "")) for f in fields)])
    tables = [
        {
            "title": "The gate",
            "columns": ["fit", "gate", "least ESS", "log evidence (nats)", "second estimate (nats)"],
            "rows": gate,
        },
        {
            "title": "Where the runs come from",
            "columns": [
                "worldview",
                "as of",
                "made",
                "rows",
                "seed",
                "attempts",
                "seconds",
                "code",
                "key",
                "hash",
            ],
            "rows": origin,
        },
    ]
    notes = " ".join(dict.fromkeys(one.record["note"] for one in parts.last if one.record["note"]))
    return _section("provenance", "Diagnostics and provenance", notes, tables=tables)


# What the script computes with ----------------------------------------------------------------------------


def _payload(
    parts: Parts, table: pd.DataFrame, charts: Mapping[str, figures.Spec], texts: Mapping[str, Any]
) -> dict[str, Any]:
    names = list(DYNAMICS)
    dates = sorted({d for d in table["date"] if d < figures.NEVER}) if len(table) else []
    worldviews = {one.worldview.name: _evidence_of(one, table) for one in parts.last}
    first = next((n for n, w in worldviews.items() if w["log_evidence"]), None)
    return {
        "dynamics": names,
        "worldviews": worldviews,
        "first": first,
        "dates": dates,
        "never": figures.NEVER,
        "key_years": list(KEY_YEARS),
        "thresholds": THRESHOLDS,
        "milestones": [{"id": m, "title": parts.milestones[m]} for m in _ordered(table)],
        "specs": {name: _themed(spec) for name, spec in charts.items()},
        "texts": texts,
    }


def _evidence_of(one: views.Stored, table: pd.DataFrame) -> dict[str, Any]:
    """What the posterior of a worldview is computed from: by dynamic in their order."""
    names, dynamics = list(DYNAMICS), one.record["dynamics"]
    odds = [dynamics[n]["prior"] for n in names]
    if len(views.sound(one)) < len(names):
        return {"odds": odds, "log_evidence": None}
    error = np.zeros((len(names), len(names)))
    for factor in one.record["bayes_factors"]:
        i, j = names.index(factor["a"]), names.index(factor["b"])
        error[i, j] = error[j, i] = factor["se"]
    mine = table[(table["worldview"] == one.worldview.name) & (table["dynamic"] != "")]
    milestones = {}
    for m, group in mine.groupby("milestone", sort=False):
        by = [group[group["dynamic"] == n].sort_values("date") for n in names]
        milestones[m] = {
            "by": [[round(p, 9) for p in g["probability"]] for g in by],
            "se": [[float(f"{e:.3g}") for e in g["error"]] for g in by],
        }
    return {
        "odds": odds,
        "log_evidence": [dynamics[n]["log_evidence"] for n in names],
        "factor_se": error.tolist(),
        "milestones": milestones,
    }


def _themed(part: Any) -> Any:
    """The same chart in the colours of the page, which has one legend of the dynamics for all charts."""
    if isinstance(part, dict):
        bare = {"legend": None} if part.get("field") in ("dynamic", "kind") and "scale" in part else {}
        return {k: _themed(v) for k, v in part.items()} | bare
    if isinstance(part, list):
        return [_themed(v) for v in part]
    return _THEME.get(part, part) if isinstance(part, str) else part
