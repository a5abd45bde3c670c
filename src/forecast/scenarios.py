"""What if: hypothetical rows of the future pushed through the same update as real ones.

A scenario is a TOML file of rows.  Stored draws are reweighted by the likelihood of these rows; parameters
that no real row has informed yet are drawn from their priors.  Where the weights are too uneven the stored
draws are stepped to the posterior with the rows instead.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from forecast import absorption, accounts, batch, evidence, frozen, inference, model, readings, selection
from forecast import indicators as ind
from forecast import observation as obs
from forecast.absorption import Estimate, jackknife
from forecast.accounts import Posterior, Run, number, pairs
from forecast.dynamics import DYNAMICS
from forecast.priors import finite
from forecast.schema import (
    BELT,
    T0,
    T_END,
    InputError,
    check_known,
    check_told,
    did_you_mean,
    read_toml,
)
from forecast.vintages import Archive, decimal_year

LEVEL = 0.8
"""Level of a row's interval, unless the row says otherwise."""
LEAST = 300.0
"""Effective draws below which a reweighting is not used, whatever its Pareto k."""
DISCLOSURES = ("independent", "third_party_eval", "voluntary_company", "self_report")
FIELDS = (
    "indicator",
    "date",
    "value",
    "interval",
    "level",
    "disclosure",
    "developer",
    "bound",
    "n",
    "reasoning",
)
"""What a row of a scenario may say."""


@dataclass(frozen=True)
class Scenario:
    """Hypothetical rows, as the likelihood takes them."""

    name: str
    title: str
    reason: str
    rows: pd.DataFrame


# Reading ------------------------------------------------------------------------------------------------


def load_scenario(path: Path, archive: Archive) -> Scenario:
    """Read a scenario; raise `InputError` with the first problem.

    Parameters
    ----------
    archive
        For the columns of rows and the range of each indicator.
    """
    where = path.name
    tree = read_toml(path, "give a scenario file or one of data/scenarios/")
    check_known("key", tree, ("title", "reason", "rows"), where)
    check_told(tree, ("title", "reason"), where)
    rows = tree.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise InputError(f"{where}: no rows; add a table [[rows]] with indicator, date and value")
    records = [as_row(row, f"{where}: rows[{i}]", archive) for i, row in enumerate(rows, start=1)]
    frame = pd.DataFrame(records)
    frame["time"] = decimal_year(frame["observed_at"])
    return Scenario(path.stem, tree["title"], tree["reason"], selection.in_order(frame))


def as_row(row: Mapping[str, Any], where: str, archive: Archive) -> dict[str, Any]:
    """A hypothetical row, given by some of `FIELDS`, with every column that a likelihood reads."""
    model_of = {i: name for name, one in ind.INDICATORS.items() for i in one.ids}
    check_known("field", row, FIELDS, where)
    name: Any = str(row.get("indicator"))
    if name not in model_of:
        raise InputError(
            f"{where}.indicator: '{name}' has no observation model{did_you_mean(name, model_of)}; "
            "`forecast list indicators` prints those that have"
        )
    day = row.get("date")
    if type(day) is not datetime.date:
        raise InputError(f"{where}.date: give a day without quotes, as 2027-06-30")
    value = finite(row.get("value"))
    if value is None:
        raise InputError(f"{where}.value: give a finite number")
    low, high = (float(archive.indicators.loc[name, c]) for c in ("low", "high"))
    interval = row.get("interval", [])
    ends = [finite(x) for x in interval] if isinstance(interval, list) else [None]
    if ends and (len(ends) != 2 or None in ends or not ends[0] <= value <= ends[1]):  # type: ignore[operator]
        raise InputError(f"{where}.interval: give two numbers around the value, as [25.0, 35.0]")
    if not all(low <= x <= high for x in (value, *(e for e in ends if e is not None))):
        unit = archive.indicators.loc[name, "unit"]
        raise InputError(f"{where}.value: {name} is in {unit}, from {low:g} to {high:g}")
    level = finite(row.get("level", LEVEL))
    if level is None or not 0 < level < 1:
        raise InputError(f"{where}.level: give the probability of the interval, as 0.8")
    disclosure = row.get("disclosure", "independent")
    if disclosure not in DISCLOSURES:
        raise InputError(
            f"{where}.disclosure: unknown '{disclosure}'{did_you_mean(str(disclosure), DISCLOSURES)}; "
            f"there are {', '.join(DISCLOSURES)}"
        )
    bound = row.get("bound", "")
    if bound not in ("", "lower", "upper"):
        raise InputError(f"{where}.bound: '{bound}' is neither lower nor upper")
    when = pd.Timestamp(day)
    if not T0 + 2 <= when.year < T_END:
        raise InputError(f"{where}.date: {day} is not between {T0 + 2:.0f} and {T_END:.0f}")
    developer = str(row.get("developer", "Anthropic"))
    one = ind.INDICATORS[model_of[name]]
    company = obs.company_of(developer) if disclosure in obs.VOLUNTARY else "industry"
    return {
        "indicator_id": name,
        "entity": f"hypothetical {day}",
        "observed_at": when,
        "published_at": when,
        "value": value,
        "lower": ends[0] if ends else np.nan,
        "upper": ends[1] if ends else np.nan,
        "interval_level": level if ends else np.nan,
        "n": finite(row.get("n")) or np.nan,
        "bound": bound,
        "kind": "model" if one.flagship_rows else "industry" if company == "industry" else "company",
        "disclosure": disclosure,
        "indicator": model_of[name],
        "model": f"hypothetical {day}",
        "developer": developer,
        "tier": "flagship",
        "reasoning": "no" if row.get("reasoning") is False else "yes",
        "configuration": "",
        "company": company,
    }


# The update ---------------------------------------------------------------------------------------------


class Met(NamedTuple):
    """One dynamic before and after hypothetical rows."""

    before: Posterior
    """Stored draws, with prior draws of what no row has informed."""
    after: np.ndarray
    """Scores of draws after the rows, (island, draw, parameter), to be weighted by `weight`."""
    weight: np.ndarray
    """(island, draw); even after a refit."""
    likelihood: np.ndarray
    """Log likelihood of the hypothetical rows at `after`, (island, draw)."""
    k: float
    ess: float


def extended(mine: Posterior, name: str, run: Run, rows: pd.DataFrame, seed: int) -> Posterior:
    """Stored draws with prior draws of the parameters that only hypothetical rows have."""
    everything = accounts.declared(pd.concat([run.rows, rows]), run.worldview)
    wanted = model.parameters([name], rows) | obs.deviation_parameters(
        max(float(rows["time"].max()), float(run.rows["time"].max()))
    )
    own = DYNAMICS[name].parameters
    new = [n.removeprefix(f"{name}.") for n in wanted if n.removeprefix(f"{name}.") not in mine.names]
    if not new:
        return mine
    rng = np.random.default_rng(seed)
    shape = mine.scores.shape[:2]
    drawn = rng.standard_normal((*shape, len(new)))
    declared = {n: everything[f"{name}.{n}" if n in own else n] for n in new}
    scores = {n: drawn[..., i].ravel() for i, n in enumerate(new)}
    return replace(
        mine,
        names=(*mine.names, *new),
        declared=mine.declared | declared,
        theta=mine.theta | readings.values(scores, declared),
        scores=np.concatenate([mine.scores, drawn], axis=-1),
    )


def likelihood(name: str, rows: pd.DataFrame, theta: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log likelihood of hypothetical rows together at each draw, (draw,)."""
    many = readings.at_draws(DYNAMICS[name], theta, model.fit_grid(rows))
    found = readings.rows_at(rows, many).sum(-1)
    return np.where(np.isfinite(found), found, -np.inf)


def reweighted(run: Run, scenario: Scenario, seed: int = 1) -> dict[str, Met]:
    """Every dynamic met by the rows of a scenario, by reweighting."""
    found = {}
    for name, stored in run.posteriors.items():
        mine = extended(stored, name, run, scenario.rows, seed)
        logp = likelihood(name, scenario.rows, mine.theta).reshape(mine.scores.shape[:2])
        weighed = absorption.reweight(logp)
        weight = np.exp(weighed.log_weight)
        ess = float(1 / (weight**2).sum())
        found[name] = Met(mine, mine.scores, weight, logp, weighed.k, ess)
    return found


def refitted(
    run: Run,
    scenario: Scenario,
    met: Mapping[str, Met],
    settings: inference.Settings,
    report: inference.Progress | None = None,
) -> tuple[dict[str, Met], np.ndarray]:
    """Every dynamic after the rows, by stepping the stored draws, and the log evidence, (dynamic, island)."""
    rows = selection.in_order(
        pd.concat([run.rows.assign(hypothetical=0.0), scenario.rows.assign(hypothetical=1.0)])
    )
    declared = batch.declared_parameters(rows, run.worldview)
    if report:
        report("compiling", 0.0)
    compiled = batch.compile_once({}, rows, declared)
    known = {name: m.before for name, m in met.items()}
    start = frozen.placed(known, declared, rows, run.log_evidence, run.one_shot, 1)
    priors = model.data_values(declared)
    new = rows["hypothetical"].to_numpy(float)
    fit = inference.advance(
        compiled,
        int(run.manifest["seed"]),
        start,
        priors | {"weight": 1.0 - new},
        priors | {"weight": np.ones(len(rows))},
        replace(settings, islands=start.draws.shape[1]),
        report,
    )
    found = {}
    for k, (name, before) in enumerate(met.items()):
        described = inference.describe(compiled, fit, k, priors | {"weight": np.ones(len(rows))})
        theta = batch.named(described["theta"], name)
        after = accounts.posterior(
            name, theta, described["row_log_likelihood"], accounts.declared(rows, run.worldview)
        )
        order = [after.names.index(n) for n in before.before.names]
        even = np.full(after.scores.shape[:2], 1 / np.prod(after.scores.shape[:2]))
        own = after.likelihood[..., new > 0].sum(-1)
        found[name] = Met(before.before, after.scores[..., order], even, own, before.k, float(even.size))
    return found, fit.log_evidence


# What is said -------------------------------------------------------------------------------------------


def whatif(
    run: Run,
    scenario: Scenario,
    settings: inference.Settings | None = None,
    report: inference.Progress | None = None,
) -> dict[str, Any]:
    """How a worldview would take in a scenario.

    Parameters
    ----------
    settings
        Size of a refit where reweighting fails; with None there is no refit and no number.

    Returns
    -------
    dict
        ``worldview``, ``as_of``, ``scenario``, ``title``, ``rows``, ``method`` (``reweighted``, ``refit``
        or None), ``pareto_k`` and ``ess`` (the worst over dynamics), ``weights`` (by dynamic, ``before`` and
        ``after``), ``account``, ``movers`` (by dynamic, as `movers`), ``pairs`` (``a``, ``b``, ``free`` and
        ``frozen`` log Bayes factor of the rows, ``absorbed`` = frozen - free) and ``note``.
    """
    met = reweighted(run, scenario)
    k, ess = max(m.k for m in met.values()), min(m.ess for m in met.values())
    good = k <= absorption.GOOD_K and ess >= LEAST
    base = {
        "worldview": run.worldview.name,
        "as_of": run.as_of,
        "scenario": scenario.name,
        "title": scenario.title,
        "rows": len(scenario.rows),
        "pareto_k": float(k) if np.isfinite(k) else None,
        "ess": ess,
    }
    note = ""
    if good:
        method = "reweighted"
        change = np.stack([absorption.reweight(m.likelihood).values for m in met.values()])
        after = run.log_evidence + change
    else:
        why = f"Pareto k {k:.2f}, {ess:.0f} effective draws"
        if settings is None:
            empty = dict.fromkeys(("weights", "account", "movers", "pairs"))
            return base | empty | {"method": None, "note": f"stored draws cannot tell ({why}); a refit can"}
        method, note = "refit", f"stored draws could not tell ({why}), so they were stepped to the rows"
        met, after = refitted(run, scenario, met, settings, report)
    return base | {
        "method": method,
        "weights": _weights(run, after),
        "account": _account(run, met, after),
        "movers": {name: movers(m) for name, m in met.items()},
        "pairs": _pairs(run, scenario, met, after),
        "note": note,
    }


def _weights(run: Run, after: np.ndarray) -> dict[str, Any]:
    now, then = run.weights, evidence.weights(after, run.odds)
    return {
        name: {
            "before": number(Estimate(now.posterior[k], now.posterior_se[k])),
            "after": number(Estimate(then.posterior[k], then.posterior_se[k])),
        }
        for k, name in enumerate(DYNAMICS)
    }


def _account(run: Run, met: Mapping[str, Met], after: np.ndarray) -> dict[str, Any]:
    parts, totals = [], []
    change = evidence.increments(run.log_evidence, after)
    for k, m in enumerate(met.values()):
        parts.append(accounts.parts(m.before, m.after, m.weight, m.before))
        fit = jackknife(lambda x, w: (w * x).sum() / w.sum(), m.likelihood, m.weight)
        totals.append(fit - Estimate(change[0][k], change[1][k]))
    return accounts.tally(parts, totals, evidence.weights(after, run.odds), run.weights.posterior)


def movers(m: Met) -> list[dict[str, Any]]:
    """Assumptions by how far the rows move them, most first.

    Each has ``name``, ``role``, ``before`` and ``after`` (means, in prior sd), ``shift`` (in sd of
    before) and ``nats`` (first-moved).
    """
    groups = accounts.blocks(m.before)

    def statistic(x: np.ndarray, w: np.ndarray, earlier: np.ndarray) -> np.ndarray:
        now, then = absorption.moments(x, w), absorption.moments(earlier)
        rows = []
        for where in groups.values():
            one, other = now.of(where), then.of(where)
            sd = np.sqrt(np.trace(other.covariance) / len(where))
            nats = absorption.divergence(one, other)
            rows.append([other.mean.mean(), one.mean.mean(), (one.mean - other.mean).mean() / sd, nats])
        return np.array(rows).T

    found = jackknife(statistic, m.after, m.weight, m.before.scores)
    roles = dict(zip(m.before.names, m.before.roles, strict=True))
    listed = []
    for j, (name, where) in enumerate(groups.items()):
        figures = [number(Estimate(found.value[i, j], found.se[i, j])) for i in range(4)]
        role = roles[m.before.names[where[0]]]
        entry = dict(zip(("before", "after", "shift", "nats"), figures, strict=True))
        listed.append({"name": name, "role": role} | entry)
    return sorted(listed, key=lambda e: -e["nats"]["value"])


def _pairs(run: Run, scenario: Scenario, met: Mapping[str, Met], after: np.ndarray) -> list[dict[str, Any]]:
    """Log Bayes factors that the rows add, with the belt free and frozen where it stood before them."""
    names = list(DYNAMICS)
    free = after - run.log_evidence
    held = np.stack([_frozen(run, scenario, met, name) for name in names])
    by = [evidence.bayes_factors(tuple(names), x) for x in (free, held)]
    found = []
    for a, b in pairs():
        loose, tight = (Estimate(*factors[a, b]) for factors in by)
        found.append(
            {
                "a": a,
                "b": b,
                "free": number(loose),
                "frozen": number(tight),
                "absorbed": number(tight - loose),
            }
        )
    return found


def _frozen(run: Run, scenario: Scenario, met: Mapping[str, Met], name: str) -> np.ndarray:
    """Log evidence of the rows with the belt at its posterior medians of before, by island.

    Shared assumptions stand at one value, the median under the weights of before.  The core and the
    calibration are drawn from their distribution given that value, by conditioning a Gaussian.
    """
    w = run.weights.posterior
    mine = met[name].before
    belt = [i for i, r in enumerate(mine.roles) if r in BELT]
    target = []
    for i in belt:
        n = mine.names[i]
        shared = [
            (w[k], m.before)
            for k, m in enumerate(met.values())
            if n in m.before.names and m.before.declared[n] is mine.declared[n]
        ]
        values = np.concatenate([m.flat[:, m.names.index(n)] for _, m in shared])
        weight = np.repeat([v for v, _ in shared], len(mine.flat))
        target.append(_median(values, weight))
    x = absorption.conditioned(mine.flat, belt, np.array(target))
    theta = readings.values({n: x[:, i] for i, n in enumerate(mine.names)}, mine.declared)
    logp = likelihood(name, scenario.rows, theta).reshape(mine.scores.shape[:2])
    return absorption.reweight(logp).values


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def shipped(folder: Path) -> dict[str, Path]:
    """Scenarios of a data folder by name."""
    return {p.stem: p for p in sorted((folder / "scenarios").glob("*.toml"))}


def find(name: Path, folder: Path) -> Path:
    """Path of a scenario given as a file or as the name of a shipped one."""
    known = shipped(folder)
    if name.is_file() or name.suffix:
        return name
    if str(name) not in known:
        raise InputError(
            f"no scenario '{name}'{did_you_mean(str(name), known)}; "
            f"there are {', '.join(known)}, or give a file"
        )
    return known[str(name)]
