"""How worldviews differ: which indicators moved each, whether they converge, and what would change them.

All of it from stored runs, by reweighting their draws; where the Pareto k of a reweighting is too large
the number is left out and only a fit can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from forecast import absorption, evidence, readings
from forecast import indicators as ind
from forecast.absorption import Estimate
from forecast.accounts import Posterior, Run, number, pairs
from forecast.dynamics import DYNAMICS
from forecast.paths import make_grid
from forecast.priors import Parameter, Prior, to_score
from forecast.schema import BELT
from forecast.worldviews import Worldview

# Who moved it -------------------------------------------------------------------------------------------

PROGRAMMES = {"metr": "METR", "uplift_rct": "METR", "epoch": "Epoch AI", "software_growth": "Epoch AI"}
"""Measuring programmes by the beginning or end of an indicator's id; a company's own rows are its own."""
OTHERS = "other boards"
"""All other programmes, most with one benchmark each; the families show those."""


def groups_of_rows(rows: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Positions of the rows of each ``("family", name)`` and ``("programme", name)``, as they appear."""
    family = [
        ind.INDICATORS[n].family[i] for n, i in zip(rows["indicator"], rows["indicator_id"], strict=True)
    ]

    def programme(indicator: str, kind: str, company: str) -> str:
        if kind == "company" and company != "industry":
            return company
        near = (p for word, p in PROGRAMMES.items() if indicator.startswith(word) or indicator.endswith(word))
        return next(near, OTHERS)

    by = [programme(*x) for x in zip(rows["indicator_id"], rows["kind"], rows["company"], strict=True)]
    found: dict[tuple[str, str], list[int]] = {}
    for what, names in (("family", family), ("programme", by)):
        for i, name in enumerate(names):
            found.setdefault((what, name), []).append(i)
    return {key: np.array(where) for key, where in found.items()}


def without_rows(run: Run, where: np.ndarray) -> tuple[np.ndarray, float]:
    """Log evidence without some rows, (dynamic, island), and the largest Pareto k.

    log Z(-rows) = log Z + ln E_post[1 / p(rows | theta)]
    """
    changes, worst = [], -np.inf
    for mine in run.posteriors.values():
        found = absorption.reweight(-mine.likelihood[..., where].sum(-1))
        worst = max(worst, found.k)
        changes.append(found.values)
    return run.log_evidence + np.stack(changes), worst


def who_moved(run: Run, refits: Mapping[str, np.ndarray] | None = None) -> list[dict[str, Any]]:
    """Pairwise log Bayes factors with and without each indicator family and programme.

    Parameters
    ----------
    refits
        Log evidence without a group from a fit, by ``kind:name``, (dynamic, island); used where the
        reweighting fails.

    Returns
    -------
    list of dict
        ``kind`` (``family`` or ``programme``), ``name``, ``rows``, ``pareto_k``, ``method``
        (``reweighted``, ``refit`` or None) and ``pairs``: ``a``, ``b``, ``with``, ``without`` and
        ``change``, what the rows add to the log Bayes factor of a against b; None without a method.
    """
    names = tuple(DYNAMICS)
    whole = evidence.bayes_factors(names, run.log_evidence)
    found = []
    for (kind, name), where in groups_of_rows(run.rows).items():
        left, k = without_rows(run, where)
        method: str | None = "reweighted" if k <= absorption.GOOD_K else None
        if method is None and refits and f"{kind}:{name}" in refits:
            left, method = refits[f"{kind}:{name}"], "refit"
        rest = evidence.bayes_factors(names, left)
        each = []
        for pair in pairs():
            now, then = Estimate(*whole[pair]), Estimate(*rest[pair])
            # Both are of the same islands, so the error of the difference is at most their sum's.
            change = Estimate(now.value - then.value, np.hypot(now.se, then.se))
            known = method is not None
            each.append(
                {
                    "a": pair[0],
                    "b": pair[1],
                    "with": number(now),
                    "without": number(then) if known else None,
                    "change": number(change) if known else None,
                }
            )
        found.append(
            {
                "kind": kind,
                "name": name,
                "rows": len(where),
                "pareto_k": float(k) if np.isfinite(k) else None,
                "method": method,
                "pairs": each,
            }
        )
    return found


# What would it take -------------------------------------------------------------------------------------


def needs(run: Run) -> list[dict[str, Any]]:
    """Log Bayes factor a dynamic needs against the others together to pass one half: -logit(weight)."""
    w, se, _ = run.weights
    return [
        {
            "dynamic": name,
            "posterior": number(Estimate(w[k], se[k])),
            "log_bayes_factor": number(Estimate(np.log1p(-w[k]) - np.log(w[k]), se[k] / (w[k] * (1 - w[k]))))
            if 0 < w[k] < 1
            else None,
        }
        for k, name in enumerate(DYNAMICS)
    ]


YEAR = 2030.0
"""Year of the forecast whose sensitivity is asked for."""


def sensitivity(run: Run) -> list[dict[str, Any]]:
    """Prior-power-scaling sensitivity of each dynamic's core and of ln m in 2030 (Kallioinen et al. 2024).

    A list of ``dynamic``, ``quantity``, ``likelihood`` and ``prior`` (by group): how far the posterior
    moves when that part is raised to a power a little off one; above .05 it matters.
    """
    import arviz as az

    found = []
    for name, mine in run.posteriors.items():
        shape = mine.scores.shape[:2]
        path = readings.at_draws(DYNAMICS[name], mine.theta, make_grid(YEAR)).path
        core = {n: mine.theta[n] for n, role in zip(mine.names, mine.roles, strict=True) if role == "core"}
        quantities = core | {f"ln m {YEAR:.0f}": path.log_m[:, -1]}
        log_prior: dict[str, np.ndarray] = {
            g: -0.5 * (mine.scores[..., [i for i, r in enumerate(mine.roles) if r == g]] ** 2).sum(-1)
            for g in ("core", *BELT)
        }

        def grouped(values: Mapping[str, np.ndarray], shape: tuple[int, ...] = shape) -> xr.Dataset:
            return xr.Dataset({n: (("chain", "draw"), x.reshape(shape)) for n, x in values.items()})

        tree = xr.DataTree.from_dict(
            {
                "posterior": grouped(quantities),
                "log_prior": grouped(log_prior),
                "log_likelihood": grouped({"rows": mine.likelihood.sum(-1)}),
            }
        )
        prior = {g: az.psense(tree, group="prior", group_var_names=[g]) for g in log_prior}
        likelihood = az.psense(tree, group="likelihood")
        found += [
            {
                "dynamic": name,
                "quantity": q,
                "likelihood": float(likelihood[q]),
                "prior": {g: float(t[q]) for g, t in prior.items()},
            }
            for q in quantities
        ]
    return found


# Do the camps converge ----------------------------------------------------------------------------------


def assumption_evidence(run: Run, odds: np.ndarray) -> Estimate:
    """Log evidence of a set of assumptions: of all dynamics together at some odds, nats."""
    prior = np.log(np.maximum(odds, 1e-300))
    islands = run.log_evidence.T[:, None]
    return absorption.jackknife(lambda x: logsumexp(x.mean(0) + prior), islands)


def convergence(read: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Whether worldviews come together, by date, and the cross table of odds and assumptions.

    Returns
    -------
    dict
        ``dates``: for every two worldviews and every date both have, ``as_of``, ``a``, ``b``,
        ``prior_distance`` and ``posterior_distance`` (total variation), their ``ratio``, and
        ``evidence_gap``, by how many nats the data favour the assumptions of a at even odds.
        ``cross``: ``odds``, ``assumptions`` and ``posterior`` by dynamic, at the last date.
    """
    even = np.full(len(DYNAMICS), 1 / len(DYNAMICS))
    names = list(read)
    dates = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            theirs = {run.as_of: run for run in read[b]}
            for one in read[a]:
                if one.as_of not in theirs:
                    continue
                other = theirs[one.as_of]
                apart = absorption.total_variation(one.odds, other.odds)
                now = absorption.total_variation(one.weights.posterior, other.weights.posterior)
                gap = assumption_evidence(one, even) - assumption_evidence(other, even)
                dates.append(
                    {
                        "as_of": one.as_of,
                        "a": a,
                        "b": b,
                        "prior_distance": apart,
                        "posterior_distance": now,
                        "ratio": now / apart if apart else None,
                        "evidence_gap": number(gap),
                    }
                )
    cross = []
    for assumptions in names:
        last = read[assumptions][-1]
        for odds in names:
            w = evidence.weights(last.log_evidence, read[odds][-1].odds)
            found = {n: number(Estimate(w.posterior[k], w.posterior_se[k])) for k, n in enumerate(DYNAMICS)}
            cross.append({"odds": odds, "assumptions": assumptions, "posterior": found})
    return {"dates": dates, "cross": cross}


# What one line does -------------------------------------------------------------------------------------


def _log_prior(
    prior: Prior, parameter: Parameter, x: np.ndarray, theta: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Log prior density of a parameter at draws, up to nothing; a capped one is uniform below its cap."""
    with np.errstate(divide="ignore"):
        if parameter.cap is not None:
            top = np.minimum(prior.b, parameter.cap(theta))
            return np.where((x >= prior.a) & (x <= top), -np.log(top - prior.a), -np.inf)
        if prior.family == "logitnormal":
            z = to_score(prior, x)
            return np.asarray(-0.5 * z**2 - np.log(prior.b * x * (1 - x)) - 0.5 * np.log(2 * np.pi))
        return np.asarray(prior.frozen().logpdf(x))


def _covered(new: Prior, old: Prior) -> bool:
    """Whether the new prior stays within the bounds of the old one; tails are the Pareto k's affair."""
    if not old.family.endswith("uniform"):
        return True
    return new.family.endswith("uniform") and new.a >= old.a and new.b <= old.b


def single_lines(base: Run, worldview: Worldview) -> list[dict[str, Any]]:
    """What each assumption of a worldview does alone, all others staying at the base's.

    The log evidence of a dynamic changes by ln E_post[new prior / old prior], by reweighting the base's
    draws.

    Returns
    -------
    list of dict
        ``line``, ``log_evidence`` (change by dynamic), ``posterior`` (by dynamic, at the base's odds),
        ``distance`` (total variation from the base's posterior), ``pareto_k`` and ``method``
        (``reweighted``, or None where draws cannot stand for the new prior), by falling distance.
    """
    found = []
    for name, line in worldview.lines.items():
        changes, ks = [], [-np.inf]
        covered = True
        for dynamic, mine in base.posteriors.items():
            prefix, _, short = name.rpartition(".")
            own = short if prefix == dynamic else name
            if own not in mine.names or (prefix in DYNAMICS and prefix != dynamic):
                changes.append(np.zeros(base.log_evidence.shape[1]))
                continue
            parameter = mine.declared[own]
            covered &= _covered(line.prior, parameter.prior)
            ratio = _ratio(mine, own, line.prior)
            weighed = absorption.reweight(ratio)
            ks.append(weighed.k)
            changes.append(weighed.values)
        k = max(ks)
        entry: dict[str, Any] = {"line": name, "pareto_k": float(k) if np.isfinite(k) else None}
        if covered and k <= absorption.GOOD_K:
            shifted = base.log_evidence + np.stack(changes)
            w = evidence.weights(shifted, base.odds)
            change = evidence.increments(base.log_evidence, shifted)
            entry |= {
                "method": "reweighted",
                "log_evidence": {
                    n: number(Estimate(change[0][i], change[1][i])) for i, n in enumerate(DYNAMICS)
                },
                "posterior": {
                    n: number(Estimate(w.posterior[i], w.posterior_se[i])) for i, n in enumerate(DYNAMICS)
                },
                "distance": absorption.total_variation(w.posterior, base.weights.posterior),
            }
        else:
            entry |= {"method": None, "log_evidence": None, "posterior": None, "distance": None}
        found.append(entry)
    return sorted(found, key=lambda e: -(e["distance"] or 0.0))


def _ratio(mine: Posterior, name: str, new: Prior) -> np.ndarray:
    """Log ratio of a new prior to the old one at the draws, (island, draw)."""
    x, parameter = mine.theta[name], mine.declared[name]
    both = [_log_prior(p, parameter, x, mine.theta) for p in (new, parameter.prior)]
    return np.asarray(both[0] - both[1]).reshape(mine.scores.shape[:2])
