"""Stored runs to accounts: what each worldview decided, learnt and absorbed, with nothing fitted again.

A stored run gives scores of every parameter under each dynamic, the log likelihood of every row, and the
evidence.  Everything here is computed from these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from forecast import absorption, batch, evidence, model, readings, runs, worldviews
from forecast import deviation as dev
from forecast import observation as obs
from forecast.absorption import Estimate, jackknife
from forecast.dynamics import DYNAMICS
from forecast.priors import Parameter
from forecast.schema import BELT, InputError, Role
from forecast.worldviews import Worldview

PARTS = ("core", *BELT, "calibration")
"""Parts of an account within dynamics, in the order of the chain rule."""
NOTHING = 1e-9
"""Nats under which nothing was told."""


@dataclass(frozen=True)
class Posterior:
    """Stored draws of one dynamic."""

    names: tuple[str, ...]
    """Parameters as the dynamic sees them."""
    declared: dict[str, Parameter]
    """Their priors, by the same names."""
    theta: dict[str, np.ndarray]
    """Their values, (draw,) each, islands one after the other."""
    scores: np.ndarray
    """Standard-normal scores, (island, draw, parameter)."""
    likelihood: np.ndarray
    """Log likelihood of each row, (island, draw, row)."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """Core, belt group or calibration of each parameter."""
        return tuple(p.role for p in self.declared.values())

    @property
    def flat(self) -> np.ndarray:
        """Scores, (draw, parameter)."""
        return self.scores.reshape(-1, self.scores.shape[-1])


@dataclass(frozen=True)
class Run:
    """A stored run, read for accounts."""

    folder: Path
    worldview: Worldview
    inputs: batch.Inputs
    manifest: dict[str, Any]
    log_evidence: np.ndarray
    """Nats, (dynamic, island)."""
    one_shot: np.ndarray
    """Log evidence from the draws alone and its error, (dynamic, 2)."""
    posteriors: dict[str, Posterior]

    @property
    def as_of(self) -> str:
        """Day of the snapshot, YYYY-MM-DD."""
        return str(self.manifest["as_of"])

    @property
    def rows(self) -> pd.DataFrame:
        """Rows of the likelihood."""
        return self.inputs.selection.rows

    @property
    def odds(self) -> np.ndarray:
        """Prior odds of the worldview, (dynamic,)."""
        return np.array([self.worldview.odds[n] for n in DYNAMICS])

    @property
    def weights(self) -> evidence.Weights:
        """Posterior over dynamics."""
        return evidence.weights(self.log_evidence, self.odds)


# Reading ------------------------------------------------------------------------------------------------


def read(folder: Path, inputs: batch.Inputs, worldview: Worldview) -> Run:
    """Read a stored run and check that it is one of these data and priors.

    Parameters
    ----------
    inputs
        Of the run's date.

    Raises
    ------
    InputError
        The run is damaged, or its rows or priors are not today's.
    """
    tree, manifest = runs.load(folder)
    rows = inputs.selection.rows
    listed = manifest.get("observations")
    if manifest["rows"] != len(rows) or (listed and not _same(listed, batch.observations(rows))):
        raise InputError(f"{folder}: its rows are not those of data/ now; run `forecast update` first")
    found, everything = {}, declared(rows, worldview)
    for name, prior in manifest["priors"].items():
        if name in everything and str(everything[name].prior) != prior:
            raise InputError(
                f"{folder}: its prior of {name} is not that of priors/{worldview.name}.toml now; "
                "run `forecast update` first"
            )
    for name in DYNAMICS:
        found[name] = posterior(
            name,
            tree[f"{name}/posterior"].to_dataset(),
            tree[f"{name}/log_likelihood"].to_dataset()["rows"],
            everything,
        )
    one_shot = tree["evidence"].to_dataset()["one_shot"].values
    return Run(folder, worldview, inputs, manifest, runs.log_evidence(tree), one_shot, found)


def declared(rows: pd.DataFrame, worldview: Worldview) -> dict[str, Parameter]:
    """Every parameter a run of a worldview may have, by full name."""
    # A run of a history may have knots for later dates than its own.
    return worldviews.full_priors(worldview) | obs.deviation_parameters(float(rows["time"].max()) + 10.0)


def _same(listed: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> bool:
    return sorted(map(repr, listed)) == sorted(map(repr, now))


def posterior(
    name: str, draws: xr.Dataset, likelihood: xr.DataArray, everything: Mapping[str, Parameter]
) -> Posterior:
    """Stored draws of one dynamic as scores; `everything` has the priors by full name."""
    names = [str(n) for n in draws.data_vars]
    own = DYNAMICS[name].parameters
    mine = {n: everything[f"{name}.{n}" if n in own else n] for n in names}
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    theta = {n: draws[n].values.astype(float).ravel() for n in names}
    scores = np.stack([x.reshape(shape) for x in readings.scores(theta, mine).values()], axis=-1)
    return Posterior(tuple(names), mine, theta, scores, likelihood.values.astype(float))


def stored(
    store: Path, inputs: batch.Inputs, chosen: Sequence[Worldview], as_of: str | None
) -> dict[str, list[Run]]:
    """Newest run of each date of each worldview up to a day, by date; the day itself must be there.

    Raises
    ------
    InputError
        A worldview has no run of that day, or the newest failed its gate.
    """
    table = runs.newest(runs.catalogue(store))
    table = table[table["status"].ne("damaged")]
    found: dict[str, list[Run]] = {}
    for worldview in chosen:
        mine = table[table["worldview"].eq(worldview.name)]
        day = as_of or (str(mine["as_of"].max()) if len(mine) else inputs.as_of)
        mine = mine[mine["as_of"].le(day)].sort_values("as_of")
        if day not in set(mine["as_of"]):
            raise InputError(
                f"{store}: no run of '{worldview.name}' as of {day}; "
                f"run `forecast update --worldview {worldview.name} --as-of {day}` first"
            )
        if mine["status"].iloc[-1] != "done":
            raise InputError(
                f"{mine['folder'].iloc[-1]}: failed its gate, so there is nothing to account for; "
                "`forecast show` says why"
            )
        mine = mine[mine["status"].eq("done")]
        found[worldview.name] = [
            read(Path(str(one.folder)), batch.at_date(inputs, str(one.as_of)), worldview)
            for one in mine.itertuples()
        ]
    return found


def base_run(store: Path, inputs: batch.Inputs, read: Mapping[str, Sequence[Run]]) -> Run | None:
    """Run of a worldview that states no assumptions, of the date of the others; None if none is stored."""
    last = next(iter(read.values()))[-1]
    for worldview in inputs.worldviews.values():
        if worldview.lines:
            continue
        if worldview.name in read:
            return read[worldview.name][-1]
        try:
            return stored(store, inputs, [worldview], last.as_of)[worldview.name][-1]
        except InputError:
            continue
    return None


# The account --------------------------------------------------------------------------------------------


def account(run: Run, before: Run | None = None) -> dict[str, Any]:
    """What a batch of data did: decided, learnt, absorbed by group, calibration, unassigned, and the rate.

    Parameters
    ----------
    before
        Run of an earlier date, whose posterior the batch meets; by default the prior.

    Returns
    -------
    dict
        ``from`` and ``to`` (days), ``total``, ``decided``, ``learnt``, ``absorbed`` (``total`` and each
        group), ``deviation`` (what of it the correlated deviation adds to the other assumptions),
        ``calibration``, ``unassigned``, ``rate``; each number a ``value`` with its ``se``, in nats.
    """
    split, totals = [], []
    for k, name in enumerate(DYNAMICS):
        mine = run.posteriors[name]
        even = np.ones(mine.scores.shape[:2])
        split.append(parts(mine, mine.scores, even, before.posteriors[name] if before else None))
        totals.append(_exact(run, k, name, before))
    prior = before.weights.posterior if before else run.odds
    days = {"from": before.as_of if before else None, "to": run.as_of}
    return days | tally(split, totals, run.weights, prior)


def tally(
    parts: Sequence[Estimate], totals: Sequence[Estimate], weights: evidence.Weights, prior: np.ndarray
) -> dict[str, Any]:
    """The account from each dynamic's parts and exact total, the weights after and those before."""
    w = weights.posterior
    within, exact = _mixed(parts, weights), _mixed(totals, weights)
    slope = np.log(np.maximum(w, 1e-300) / prior)
    first = Estimate(absorption.decided(w, prior), float(np.sqrt(slope @ weights.covariance @ slope)))
    *group, absorbed, deviation = (Estimate(v, e) for v, e in zip(*within, strict=True))
    learnt, calibration = group[0], group[-1]
    named = Estimate(sum(g.value for g in group), 0.0)
    kept = first + learnt
    whole = kept.value + absorbed.value
    error = float(np.hypot(kept.value * absorbed.se, absorbed.value * kept.se))
    # Of nothing there is no share.
    rate = Estimate(absorbed.value / whole, error / whole**2) if abs(whole) > NOTHING else None
    return {
        "total": number(first + exact),
        "decided": number(first),
        "learnt": number(learnt),
        "absorbed": {"total": number(absorbed)}
        | {g: number(x) for g, x in zip(BELT, group[1:5], strict=True)},
        "deviation": number(deviation),
        "calibration": number(calibration),
        "unassigned": number(exact - named),
        "rate": None if rate is None else number(rate),
    }


def number(x: Estimate) -> dict[str, float]:
    """An estimate as plain numbers."""
    return {"value": float(x.value), "se": float(x.se)}


def parts(mine: Posterior, after: np.ndarray, weight: np.ndarray, before: Posterior | None) -> Estimate:
    """`absorption.split` of one dynamic, the sum of the groups, and what of it only the deviation adds.

    Parameters
    ----------
    mine
        For the names and roles of parameters.
    after
        Scores of draws after the batch, (island, draw, parameter), weighted by `weight` (island, draw).
    before
        Names and scores of draws before it; None for the prior.
    """
    plain = [i for i, n in enumerate(mine.names) if not dev.is_knot(n)]
    belt = [i for i, r in enumerate(mine.roles) if r == "core" or r in BELT]
    both = [i for i in belt if i in plain]

    def statistic(x: np.ndarray, w: np.ndarray, *earlier: np.ndarray) -> np.ndarray:
        reference = absorption.standard(len(mine.names))
        if before and earlier:
            reference = absorption.aligned(mine.names, absorption.moments(earlier[0]), before.names)
        now = absorption.moments(x, w)
        found = absorption.split(now, reference, mine.roles)
        without = absorption.divergence(now.of(both), reference.of(both))
        return np.array([*found, found[1:5].sum(), found[:5].sum() - without])

    return jackknife(statistic, after, weight, *([before.scores] if before else []))


def _exact(run: Run, k: int, name: str, before: Run | None) -> Estimate:
    """E_post[log p(B | theta)] - log p(B | before) of one dynamic, nats."""
    mine = run.posteriors[name]
    fit = mine.likelihood.sum(-1)
    change = evidence.mean_evidence(run.log_evidence)
    gained = Estimate(change[0][k], change[1][k])
    if before is not None:
        grid = model.fit_grid(pd.concat([run.rows, before.rows]))
        old = readings.rows_at(before.rows, readings.at_draws(DYNAMICS[name], mine.theta, grid)).sum(-1)
        fit = fit - old.reshape(fit.shape)
        step = evidence.increments(before.log_evidence, run.log_evidence)
        gained = Estimate(step[0][k], step[1][k])
    return jackknife(np.mean, fit) - gained


def _mixed(each: Sequence[Estimate], weights: evidence.Weights) -> Estimate:
    """Mean over dynamics by weight, with the errors of both."""
    values, errors = (np.stack([np.asarray(x, float) for x in part]) for part in zip(*each, strict=True))
    variance = np.tensordot(weights.posterior**2, errors**2, 1)
    variance += (values * np.tensordot(weights.covariance, values, 1)).sum(0)
    return Estimate(np.tensordot(weights.posterior, values, 1), np.sqrt(np.maximum(variance, 0.0)))


# The ledger ---------------------------------------------------------------------------------------------


def ledger(run: Run) -> dict[str, Any]:
    """Log evidence of each dynamic as fit less price, and what its assumptions took in.

    The price is that of the draws alone, from the bridge-sampled evidence, so that fit - price = log
    evidence is a check and not a definition.

    Returns
    -------
    dict
        By dynamic: ``log_evidence``, ``fit``, ``price``, ``gap`` (fit - price - log evidence) and
        ``assumptions``, a list of ``name``, ``role``, ``shift``, ``sd`` (in prior sd), ``first_moved``,
        ``last_moved`` and ``reliance`` (nats; ``reliance`` is None where it cannot be read off draws), by
        falling ``first_moved``.  All knots of the deviation are one assumption.
    """
    mean, se = evidence.mean_evidence(run.log_evidence)
    found = {}
    for k, (name, mine) in enumerate(run.posteriors.items()):
        fit = jackknife(np.mean, mine.likelihood.sum(-1))
        price = fit - Estimate(*run.one_shot[k])
        logz = Estimate(mean[k], se[k])
        gap = Estimate(run.one_shot[k, 0] - mean[k], np.hypot(run.one_shot[k, 1], se[k]))
        found[name] = {
            "log_evidence": number(logz),
            "fit": number(fit),
            "price": number(price),
            "gap": number(gap),
            "assumptions": assumptions(mine),
        }
    return found


def blocks(mine: Posterior) -> dict[str, list[int]]:
    """Assumptions of one dynamic, calibration apart: parameters by name, and the deviation's knots as one."""
    found: dict[str, list[int]] = {}
    for i, (name, role) in enumerate(zip(mine.names, mine.roles, strict=True)):
        if role != "calibration":
            found.setdefault("deviation" if dev.is_knot(name) else name, []).append(i)
    return found


def assumptions(mine: Posterior, before: Posterior | None = None) -> list[dict[str, Any]]:
    """What each assumption of one dynamic took in, as in `ledger`; `before` in place of the prior."""
    groups = blocks(mine)

    def statistic(after: np.ndarray, *earlier: np.ndarray) -> np.ndarray:
        reference = None
        if before and earlier:
            reference = absorption.aligned(mine.names, absorption.moments(earlier[0]), before.names)
        return np.stack(absorption.moved(absorption.moments(after), reference, list(groups.values())))

    found = jackknife(statistic, mine.scores, *([before.scores] if before else []))
    rows = []
    for j, (name, where) in enumerate(groups.items()):
        shift, sd, first, last = (number(Estimate(found.value[i, j], found.se[i, j])) for i in range(4))
        single = len(where) == 1
        relied = absorption.reliance(mine.scores[..., where[0]]) if single and before is None else None
        rows.append(
            {
                "name": name,
                "role": mine.roles[where[0]],
                "shift": shift if single else None,
                "sd": sd if single else None,
                "first_moved": first,
                "last_moved": last if before is None else None,
                "reliance": number(relied) if relied else None,
            }
        )
    return sorted(rows, key=lambda row: -row["first_moved"]["value"])


def deviation_path(run: Run, name: str) -> dict[str, dict[str, float]]:
    """Deviation of published capability from the path of one dynamic at each knot: mean and sd, nats."""
    mine = run.posteriors[name]
    many = readings.at_draws(DYNAMICS[name], mine.theta, model.fit_grid(run.rows))
    knots = sorted(n for n in mine.names if dev.is_knot(n))
    values = many.deviation
    return {
        n.removeprefix("deviation_"): {"mean": float(values[:, i].mean()), "sd": float(values[:, i].std())}
        for i, n in enumerate(knots)
    }


# Pairs --------------------------------------------------------------------------------------------------


def pairs() -> list[tuple[str, str]]:
    """Pairs of dynamics, in order."""
    return list(combinations(DYNAMICS, 2))


def pin_down(run: Run, a: str, b: str) -> list[dict[str, Any]]:
    """Shared assumptions by how far knowing one exactly would tell two dynamics apart, nats, most first."""
    one, two = run.posteriors[a], run.posteriors[b]
    shared = [
        n
        for n in one.names
        if n in two.names and one.declared[n] is two.declared[n] and one.declared[n].role in BELT
        and not dev.is_knot(n)
    ]  # fmt: skip
    here, there = ([p.names.index(n) for n in shared] for p in (one, two))

    def statistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        left, right = absorption.moments(x[:, here]), absorption.moments(y[:, there])
        return np.array([absorption.pinned(left, right, [i]) for i in range(len(shared))])

    found = jackknife(statistic, one.scores, two.scores)
    order = np.argsort(-found.value)
    return [
        {"name": shared[i], "role": one.declared[shared[i]].role}
        | number(Estimate(found.value[i], found.se[i]))
        for i in order
    ]


def pair_records(run: Run, pinned: int = 3) -> list[dict[str, Any]]:
    """Each pair of dynamics: ``a``, ``b``, ``log_bayes_factor``, ``verdict`` and ``pin_down``."""
    factors = evidence.bayes_factors(tuple(DYNAMICS), run.log_evidence)
    return [
        {
            "a": a,
            "b": b,
            "log_bayes_factor": number(Estimate(*factors[a, b])),
            "verdict": absorption.verdict(*factors[a, b]),
            "pin_down": pin_down(run, a, b)[:pinned],
        }
        for a, b in pairs()
    ]
