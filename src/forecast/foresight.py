"""What simulated worlds say of disclosure: information gained, when dynamics are told apart, and how early.

Every figure is a mean over worlds.  There are as many worlds of each dynamic, and each counts with the weight
its dynamic has today, so that the figures are those of worlds drawn from today's posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import betainc, logsumexp

from forecast import calibration, evidence, inference, worlds
from forecast.accounts import Run
from forecast.disclosure import Plan
from forecast.dynamics import DYNAMICS
from forecast.schema import InputError
from forecast.vintages import decimal_year

BARS = (10.0, 100.0)
"""Bayes factors at which a dynamic counts as told apart from another."""
BEFORE = ("m_10", "W_2", "W_3", "H_10")
"""Milestones that it matters to be told before."""
LEADS = (("W_2", "W_3"), ("m_10", "m_100"), ("H_10", "H_1"))
"""Pairs of milestones: the first warns of the second."""
ALARM = 0.5
"""Probability of `explosive` at which the engine gives alarm."""
SURE = 0.9
"""Probability from which a dynamic is believed for sure."""
HYBRIDS = 20
"""Simulated worlds in which none of the dynamics is true."""
GATE = {"noise": 1.0, "lost": 0.001}
"""Most the log probability of the truth in one world may err by, root mean square, nats; least probability
that a calibrated engine gives as many truths next to no chance as were seen."""
NEXT_TO_NONE = 0.01
"""Probability below which a truth was given next to no chance."""
LEVELS = (0.1, 0.5, 0.9)
"""Quantiles printed of a distribution of dates or years."""
Figure = dict[str, float | None]
"""``value`` and its Monte Carlo error ``se``."""


class Seen(NamedTuple):
    """What the engine believed in every world."""

    today: np.ndarray
    """Probability of each dynamic today, (dynamic,)."""
    truth: np.ndarray
    """Index of the true dynamic, (world,)."""
    log_posterior: np.ndarray
    """Log probability of each dynamic, (world, tier, day, dynamic); NaN where a step failed."""
    log_evidence: np.ndarray
    """Nats, up to one constant for each world, (world, tier, day, dynamic)."""
    passage: Mapping[str, np.ndarray]
    """First passage of milestones, calendar years, inf for never, (world,) each."""
    days: Sequence[pd.Timestamp]

    @property
    def posterior(self) -> np.ndarray:
        """Probability of each dynamic, (world, tier, day, dynamic)."""
        return np.exp(self.log_posterior)


def believed(
    log_evidence: np.ndarray,
    odds: np.ndarray,
    added: np.ndarray,
    truth: np.ndarray,
    passage: Mapping[str, np.ndarray],
    days: Sequence[pd.Timestamp],
) -> Seen:
    """Posteriors from log evidence of today (dynamic,) and that added since (world, tier, day, dynamic)."""
    with np.errstate(divide="ignore"):
        prior = np.log(odds)
    total = log_evidence + added
    joint = prior + total
    now = prior + log_evidence
    return Seen(
        np.exp(now - logsumexp(now)),
        truth,
        joint - logsumexp(joint, axis=-1, keepdims=True),
        total,
        passage,
        days,
    )


def until(seen: Seen, count: int) -> Seen:
    """The same worlds, followed for no more than some days."""
    return seen._replace(
        log_posterior=seen.log_posterior[:, :, :count],
        log_evidence=seen.log_evidence[:, :, :count],
        days=seen.days[:count],
    )


def mean(value: np.ndarray, seen: Seen, kept: np.ndarray | None = None) -> tuple[float, float]:
    """Mean over worlds weighted by their dynamic, and its standard error; NaN if there are none.

    Parameters
    ----------
    value
        Of each world, (world,).
    kept
        Worlds that count, (world,); all by default.
    """
    kept = np.isfinite(value) if kept is None else kept & np.isfinite(value)
    weight = _weights(seen) * kept
    if not weight.sum() > 0:
        return np.nan, np.nan
    middle = float(weight @ np.where(kept, value, 0.0) / weight.sum())
    away = weight * (np.where(kept, value, middle) - middle) / weight.sum()
    return middle, float(np.sqrt((away**2).sum()))


def _weights(seen: Seen) -> np.ndarray:
    """What each world counts, so that its dynamic counts as much as it is probable today, (world,)."""
    return np.asarray(seen.today[seen.truth] / np.bincount(seen.truth)[seen.truth])


def bits(seen: Seen, tier: int) -> np.ndarray:
    """Information on the dynamic, log2 of the truth's probability over that of today, (world, day)."""
    return (_of_truth(seen)[:, tier] - np.log(seen.today[seen.truth])[:, None]) / np.log(2)


def _of_truth(seen: Seen) -> np.ndarray:
    """Log probability of the true dynamic, (world, tier, day)."""
    return np.take_along_axis(seen.log_posterior, seen.truth[:, None, None, None], axis=-1)[..., 0]


def told_apart(seen: Seen, tier: int, bar: float, rival: int | None = None) -> np.ndarray:
    """First day, as a calendar year, on which the truth's Bayes factor passes a bar; inf for never, (world,).

    Parameters
    ----------
    rival
        Against this dynamic; by default against the closest of all others.
    """
    own = np.take_along_axis(seen.log_evidence, seen.truth[:, None, None, None], axis=-1)[:, tier]
    lead = own - seen.log_evidence[:, tier]
    others = np.arange(len(seen.today))[None, :] != seen.truth[:, None]
    if rival is not None:
        others &= np.arange(len(seen.today)) == rival
    # Against itself the truth has no Bayes factor.
    least = np.where(others[:, None, :], lead, np.inf).min(axis=-1)
    return _first(np.isfinite(least) & (least >= np.log(bar)), seen.days)


def _years(days: Sequence[pd.Timestamp]) -> np.ndarray:
    return np.asarray(decimal_year(pd.Series(days)), float)


def _first(holds: np.ndarray, days: Sequence[pd.Timestamp]) -> np.ndarray:
    years = _years(days)
    return np.where(holds.any(axis=1), years[holds.argmax(axis=1)], np.inf)


def value(
    run: Run,
    plan: Plan,
    names: Sequence[str],
    size: int,
    days: Sequence[pd.Timestamp],
    seed: int,
    kept: Path,
    report: inference.Progress | None = None,
) -> dict[str, Any]:
    """Simulate worlds from a stored run, show the engine what each tier publishes, and say what it is worth.

    Parameters
    ----------
    names
        Tiers; the others are compared with the first.
    size
        Number of worlds, rounded up to as many of each dynamic.
    days
        Days looked at, in order.
    kept
        Folder for what was learnt in some worlds, so that an interrupted run goes on there.

    Returns
    -------
    dict
        ``worldview``, ``as_of``, ``worlds``, ``today`` (dynamic -> probability), ``dates``, ``until``, the
        last sound one, ``failed`` (date -> `failures`), ``tiers`` (`tier_records`, with ``title``, ``reason``
        and ``rows``), ``warning`` (`warning_records`), ``reliability`` and ``slope`` (tier -> date ->
        `reliability` and `slope`), ``hybrid`` (`hybrid_record`), ``noise``, the standard error of the truth's
        log probability in one world on the last sound date, root mean square over worlds and tiers, nats, and
        ``lost``, the number of worlds in which a step failed, which count nowhere.  What went wrong on a
        date is carried on, so that nothing is told of the first date that fails and later ones.

    Raises
    ------
    InputError
        The first date fails.
    """
    setup = worlds.prepare(run, plan, report)
    made = worlds.simulate(setup, run.inputs.milestones, -(-size // len(DYNAMICS)), seed)
    hybrid = worlds.simulate_hybrid(setup, HYBRIDS, seed)
    every = worlds.follow_all(setup, np.concatenate([made.value, hybrid]), names, days, seed, kept, report)
    added, of_hybrid = np.split(every, [len(made.value)])
    now = evidence.mean_evidence(run.log_evidence)[0]
    isos = [f"{day:%Y-%m-%d}" for day in days]
    every_day = believed(now, run.odds, added.mean(-1), made.dynamic, made.passage, days)
    errors = errors_of_truth(every_day, added)
    failed = {iso: found for d, iso in enumerate(isos) if (found := failures(every_day, errors, d, names))}
    sound = isos.index(next(iter(failed))) if failed else len(days)
    if not sound:
        raise InputError(f"{isos[0]}: {'; '.join(failed[isos[0]])}; take other tiers or a sharper posterior")
    seen = until(every_day, sound)
    # No dynamic is the truth of these.
    nobody = np.full(len(hybrid), -1)
    seen_hybrid = until(believed(now, run.odds, of_hybrid.mean(-1), nobody, {}, days), sound)
    records = tier_records(seen, names, isos[sound:])
    for record in records:
        tier = plan.tiers[record["tier"]]
        rows = int(plan.counted(tier.name, days[sound - 1]).sum())
        record |= {"title": tier.title, "reason": tier.reason, "rows": rows}
    return {
        "worldview": run.worldview.name,
        "as_of": run.as_of,
        "worlds": len(made.dynamic),
        "today": dict(zip(DYNAMICS, map(float, seen.today), strict=True)),
        "dates": isos,
        "until": isos[sound - 1],
        "failed": failed,
        "tiers": records,
        "warning": warning_records(worlds.passages(setup, run.inputs.milestones)),
        "reliability": by_date(reliability, seen, names),
        "slope": by_date(slope, seen, names),
        "hybrid": hybrid_record(seen_hybrid, names),
        "lost": int((~np.isfinite(added[:, :, :sound]).all(axis=(1, 2, 3, 4))).sum()),
        "noise": _root_mean_square(errors[:, :, sound - 1]),
    }


def errors_of_truth(seen: Seen, added: np.ndarray) -> np.ndarray:
    """Monte Carlo errors of the truth's log probability, to first order, (world, tier, day).

    The gradient of log p_t in the log evidence of dynamic k is [k = t] - p_k.  Where the dynamics are far
    apart their Bayes factors err by nats and this hardly at all.

    Parameters
    ----------
    added
        Log evidence as jackknife pseudo-values, (world, tier, day, dynamic, island).
    """
    true = np.eye(len(seen.today))[seen.truth][:, None, None]
    along = ((true - seen.posterior)[..., None] * added).sum(axis=-2)
    return evidence.mean_evidence(along)[1]


def _root_mean_square(errors: np.ndarray) -> float:
    """Over worlds in which no step failed."""
    return float(np.sqrt(np.nanmean(errors**2)))


def failures(seen: Seen, errors: np.ndarray, day: int, names: Sequence[str]) -> list[str]:
    """Reasons for which nothing can be told of a day; none if it is sound.

    A calibrated engine may give a truth next to no chance, but no more often than it says.

    Parameters
    ----------
    errors
        From `errors_of_truth`.
    names
        Tiers, in the order of `seen`.
    """
    found = []
    for t, name in enumerate(names):
        noise = _root_mean_square(errors[:, t, day])
        if not noise <= GATE["noise"]:
            found.append(f"tier {name}: the log probability of the truth has an error of {noise:.2f} nats")
        edges = np.array([0.0, NEXT_TO_NONE])
        for low in calibration.reliability(seen.posterior[:, t, day], seen.truth, _weights(seen), edges):
            true = low["true"] * low["worlds"]
            if true and betainc(true, low["worlds"] - true + 1, low["believed"]) < GATE["lost"]:
                share = f"{low['true']:.1%} of the times they were"
                found.append(f"tier {name}: dynamics given less than {NEXT_TO_NONE:g} are true in {share}")
    return found


# Records --------------------------------------------------------------------------------------------------


def figure(found: tuple[float, float]) -> Figure:
    """As JSON has it: None where there is no number."""
    value, se = (float(x) if np.isfinite(x) else None for x in found)
    return {"value": value, "se": se}


def quantiles(value: np.ndarray) -> list[float | None]:
    """`LEVELS` of dates or years, None for never."""
    if not len(value):
        return [None] * len(LEVELS)
    found = np.quantile(value, LEVELS, method="inverted_cdf")
    return [round(float(x), 2) if np.isfinite(x) else None for x in found]


def tier_records(seen: Seen, names: Sequence[str], later: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What each tier is worth.

    Parameters
    ----------
    names
        Tiers, in the order of `seen`; the others are compared with the first.
    later
        Dates of which nothing can be told, YYYY-MM-DD.

    Returns
    -------
    list of dict
        ``tier``; ``bits``, ``bits_se``, ``posterior_of_truth``, ``posterior_of_truth_se``,
        ``more_than_first`` and ``more_than_first_se`` (bits over those of the first in the same worlds),
        each date -> number or None;
        ``by_dynamic``, dynamic -> ``posterior_of_truth`` at the last date, ``told_apart`` (Bayes factor ->
        ``ever``, the share of worlds, ``year``, quantiles, and ``against`` each rival) and ``alarm``;
        ``in_time``, Bayes factor -> milestone -> `in_time`.
    """
    found, unknown = [], [figure((np.nan, np.nan))] * len(later)
    isos = [*(f"{day:%Y-%m-%d}" for day in seen.days), *later]
    truth, first = np.exp(_of_truth(seen)), bits(seen, 0)
    for t, name in enumerate(names):
        gained = bits(seen, t)
        record: dict[str, Any] = {"tier": name}
        for key, value in (
            ("bits", gained),
            ("posterior_of_truth", truth[:, t]),
            ("more_than_first", gained - first),
        ):
            each = [figure(mean(value[:, d], seen)) for d in range(len(seen.days))] + unknown
            record[key] = {iso: x["value"] for iso, x in zip(isos, each, strict=True)}
            record[f"{key}_se"] = {iso: x["se"] for iso, x in zip(isos, each, strict=True)}
        record["by_dynamic"] = {n: _of_dynamic(seen, t, k) for k, n in enumerate(DYNAMICS)}
        record["in_time"] = {
            f"{bar:g}": {m: in_time(seen, t, bar, m) for m in BEFORE if m in seen.passage} for bar in BARS
        }
        found.append(record)
    return found


def _of_dynamic(seen: Seen, tier: int, k: int) -> dict[str, Any]:
    mine = seen.truth == k
    apart = {}
    for bar in BARS:
        day = told_apart(seen, tier, bar)[mine]
        against = {
            n: figure(_share(np.isfinite(told_apart(seen, tier, bar, j)[mine])))
            for j, n in enumerate(DYNAMICS)
            if j != k
        }
        apart[f"{bar:g}"] = {
            "ever": figure(_share(np.isfinite(day))),
            "year": quantiles(day),
            "against": against,
        }
    return {
        "posterior_of_truth": figure(mean(np.exp(_of_truth(seen)[:, tier, -1]), seen, mine)),
        "told_apart": apart,
        "alarm": alarm(seen, tier, k),
    }


def _share(holds: np.ndarray) -> tuple[float, float]:
    """Share of worlds and its binomial error, with one world more and one less so that it is never 0."""
    if not len(holds):
        return np.nan, np.nan
    count = len(holds)
    p = (holds.sum() + 1) / (count + 2)
    return float(holds.mean()), float(np.sqrt(p * (1 - p) / count))


def _plain(value: np.ndarray) -> tuple[float, float]:
    """Mean over worlds that count alike, and its standard error."""
    return float(value.mean()), float(value.std(ddof=1) / np.sqrt(len(value)))


def in_time(seen: Seen, tier: int, bar: float, milestone: str) -> dict[str, Any]:
    """Probability that the truth is told apart before a milestone, among worlds that pass it after today."""
    when, day = seen.passage[milestone], told_apart(seen, tier, bar)
    first = _years(seen.days)[0]
    passes = np.isfinite(when) & (when >= first)
    return {
        "probability": figure(mean((day < when).astype(float), seen, passes)),
        "passes": figure(mean(passes.astype(float), seen)),
    }


def alarm(seen: Seen, tier: int, k: int) -> dict[str, Any]:
    """The engine's alarm in worlds of one dynamic: how often it is given, and years from it to W of 3."""
    mine = seen.truth == k
    when = _first(seen.posterior[:, tier, :, list(DYNAMICS).index("explosive")] > ALARM, seen.days)
    passes = mine & np.isfinite(seen.passage["W_3"])
    return {
        "given": figure(_share(np.isfinite(when[mine]))),
        "years_to_W_3": quantiles(seen.passage["W_3"][passes] - when[passes]),
        "in_time": figure(_share(when[passes] < seen.passage["W_3"][passes])),
    }


def warning_records(passage: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Years between milestones of one path, by dynamic and pair: ``passes`` both, and ``years`` among those.

    Parameters
    ----------
    passage
        Dynamic -> milestone -> first passages at posterior draws, calendar years, (draw,).
    """
    found: dict[str, Any] = {}
    for name, times in passage.items():
        found[name] = {}
        for first, last in LEADS:
            both = np.isfinite(times[first]) & np.isfinite(times[last])
            years = times[last][both] - times[first][both]
            found[name][f"{first} -> {last}"] = {
                "passes": figure(_share(both)),
                "years": quantiles(years),
            }
    return found


def hybrid_record(seen: Seen, names: Sequence[str]) -> dict[str, Any]:
    """What the engine believes at the last date in worlds where none of its dynamics is true.

    Returns
    -------
    dict
        ``worlds``; ``tiers``, tier -> ``posterior`` (dynamic -> mean probability), ``largest``, the mean of
        the largest probability, and ``sure``, the share of worlds in which one dynamic has nine tenths.
    """
    found = {}
    for t, name in enumerate(names):
        p = seen.posterior[:, t, -1]
        p = p[np.isfinite(p).all(axis=1)]
        largest = p.max(axis=1)
        found[name] = {
            "posterior": {n: figure(_plain(x)) for n, x in zip(DYNAMICS, p.T, strict=True)},
            "largest": figure(_plain(largest)),
            "sure": figure(_share(largest >= SURE)),
        }
    return {"worlds": len(seen.truth), "tiers": found}


def by_date(of: Callable[[Seen, int, int], Any], seen: Seen, names: Sequence[str]) -> dict[str, Any]:
    """Tier -> date -> what a function of worlds, tier and day finds."""
    isos = [f"{day:%Y-%m-%d}" for day in seen.days]
    return {name: {iso: of(seen, t, d) for d, iso in enumerate(isos)} for t, name in enumerate(names)}


def reliability(seen: Seen, tier: int, day: int) -> list[dict[str, Any]]:
    """`calibration.reliability` under one tier on one day, each world counted with its weight."""
    return calibration.reliability(seen.posterior[:, tier, day], seen.truth, _weights(seen))


def slope(seen: Seen, tier: int, day: int) -> Figure:
    """`calibration.slope` of what one tier added by a day, each world counted with its weight."""
    after = seen.log_posterior[:, tier, day]
    kept = ~np.isnan(after).any(axis=1)
    with np.errstate(divide="ignore"):
        now = np.log(seen.today)
    return figure(calibration.slope(now, after[kept], seen.truth[kept], _weights(seen)[kept]))
