"""What the engine believed in simulated worlds, and what each world counts.

There are as many worlds of each dynamic, and each counts with the weight its dynamic has today, so that means
are those of worlds drawn from today's posterior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from forecast.vintages import decimal_year


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
    error: np.ndarray
    """Monte Carlo error of the log probability of the truth, (world, tier, day)."""
    passage: Mapping[str, np.ndarray]
    """First passage of milestones, calendar years, inf for never, (world,) each."""
    as_of: pd.Timestamp
    """Today."""
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
    as_of: pd.Timestamp,
    days: Sequence[pd.Timestamp],
) -> Seen:
    """Exact posteriors from log evidence today (dynamic,) and since then (world, tier, day, dynamic)."""
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
        np.zeros(added.shape[:-1]),
        passage,
        as_of,
        days,
    )


def until(seen: Seen, count: int) -> Seen:
    """The same worlds, followed for no more than some days."""
    return seen._replace(
        log_posterior=seen.log_posterior[:, :, :count],
        log_evidence=seen.log_evidence[:, :, :count],
        error=seen.error[:, :, :count],
        days=seen.days[:count],
    )


def mean(value: np.ndarray, seen: Seen, kept: np.ndarray | None = None) -> tuple[float, float]:
    """Mean over worlds weighted by their dynamic, and its standard error; NaN if there are none.

    How many worlds there are of each dynamic is not left to chance, so only scatter within each counts, and
    one world alone tells no error.

    Parameters
    ----------
    value
        Of each world, (world,).
    kept
        Worlds that count, (world,); all by default.
    """
    kept = np.isfinite(value) if kept is None else kept & np.isfinite(value)
    weight = weights(seen) * kept
    if not weight.sum() > 0:
        return np.nan, np.nan
    known = np.where(kept, value, 0.0)
    count = np.bincount(seen.truth, kept)[seen.truth]
    away = weight * (known - np.bincount(seen.truth, known)[seen.truth] / np.maximum(count, 1))
    scatter = (away**2 * count / np.maximum(count - 1, 1)).sum()
    alone = (count[weight > 0] < 2).any()
    return float(weight @ known / weight.sum()), np.nan if alone else float(np.sqrt(scatter) / weight.sum())


def weights(seen: Seen) -> np.ndarray:
    """What each world counts, so that its dynamic counts as much as it is probable today, (world,)."""
    return np.asarray(seen.today[seen.truth] / np.bincount(seen.truth)[seen.truth])


def bits(seen: Seen, tier: int) -> np.ndarray:
    """Information on the dynamic, log2 of the truth's probability over that of today, (world, day).

    An error of sd s takes the log probability s^2/2 too low on average over worlds, to second order, as its
    expected curvature is the expected square of its gradient (Bartlett's identity).  This is given back.
    """
    gained = of_truth(seen)[:, tier] - np.log(seen.today[seen.truth])[:, None]
    return (gained + seen.error[:, tier] ** 2 / 2) / np.log(2)


def of_truth(seen: Seen) -> np.ndarray:
    """Log probability of the true dynamic, (world, tier, day)."""
    return np.take_along_axis(seen.log_posterior, seen.truth[:, None, None, None], axis=-1)[..., 0]


def told_apart(seen: Seen, tier: int, bar: float, rival: int | None = None) -> np.ndarray:
    """First day looked at on which the truth's Bayes factor passes a bar, a calendar year, inf for never.

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
    return first_day(np.isfinite(least) & (least >= np.log(bar)), seen.days)


def misled(seen: Seen, tier: int, bar: float) -> np.ndarray:
    """First day looked at on which another dynamic than the truth passes a bar against all, (world,)."""
    evidence = seen.log_evidence[:, tier]
    second, first = np.moveaxis(np.sort(evidence, axis=-1)[..., -2:], -1, 0)
    with np.errstate(invalid="ignore"):
        leads = first - second >= np.log(bar)
    return first_day(leads & (evidence.argmax(axis=-1) != seen.truth[:, None]), seen.days)


def as_years(days: Sequence[pd.Timestamp]) -> np.ndarray:
    """Days as calendar years, (day,)."""
    return np.asarray(decimal_year(pd.Series(days)), float)


def first_day(holds: np.ndarray, days: Sequence[pd.Timestamp]) -> np.ndarray:
    """First day on which something holds (world, day), as a calendar year, inf for never, (world,)."""
    years = as_years(days)
    return np.where(holds.any(axis=1), years[holds.argmax(axis=1)], np.inf)


def without_lost(seen: Seen) -> tuple[Seen, np.ndarray]:
    """The worlds in which no step failed, under any tier on any day, and which these are, (world,)."""
    kept = ~np.isnan(seen.log_posterior).any(axis=(1, 2, 3))
    found = seen._replace(
        truth=seen.truth[kept],
        log_posterior=seen.log_posterior[kept],
        log_evidence=seen.log_evidence[kept],
        error=seen.error[kept],
        passage={m: x[kept] for m, x in seen.passage.items()},
    )
    return found, kept


def iso(day: pd.Timestamp) -> str:
    """YYYY-MM-DD."""
    return f"{day:%Y-%m-%d}"
