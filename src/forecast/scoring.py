"""Proper scores of predictive distributions against published values, and how they are compared.

A log score is the log predictive density of a value, or the log probability of a bound or interval, in
nats: more is better.  CRPS is in the units of the scale on which an indicator is modelled and a Brier
score is a squared probability: less is better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

Numbers = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.95)
"""Central intervals whose coverage is looked at."""
QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles of each predictive distribution that are kept beside its scores."""
RESAMPLES = 2000
"""Bootstrap samples behind an interval."""
CONFIDENCE = 0.9
"""Level of the intervals of comparisons."""


class Outcome(NamedTuple):
    """What was published, on the scale of its law, (row,) each, and the threshold of an event."""

    low: Numbers
    high: Numbers
    """``low == high`` is a value; otherwise the value lies between, one of them infinite for a bound."""
    threshold: Numbers
    """The event is a value above this; NaN for none."""

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Which rows are values rather than bounds or intervals."""
        return np.asarray(self.low == self.high)

    @property
    def event(self) -> Numbers:
        """1 if the value is above the threshold, 0 if not, NaN if unknown, (row,)."""
        above, below = self.low > self.threshold, self.high <= self.threshold
        return np.where(above, 1.0, np.where(below, 0.0, np.nan))


class Student(NamedTuple):
    """Student-t predictive distributions, (row,) each; NaN where there is no forecast."""

    df: Numbers
    loc: Numbers
    scale: Numbers


def score_student(outcome: Outcome, forecast: Student) -> pd.DataFrame:
    """Scores of t distributions, a row per outcome.

    Returns
    -------
    DataFrame
        ``log_score``, ``crps``, ``pit``, ``covered_50`` and so on for `LEVELS`, ``event``, ``probability``
        of the event, ``brier``, and ``q10``, ``q50``, ``q90``; NaN where there is no forecast, and all but
        the log score and the event where the outcome is a bound or interval.
    """
    import scoringrules  # Compiles on import, for seconds, and few commands score.

    law = stats.t(*forecast)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = law.cdf(outcome.low), law.cdf(outcome.high)
        # The upper tail is read from above, where it is precise.
        inside = np.where(low > 0.5, law.sf(outcome.low) - law.sf(outcome.high), high - low)
        log_score = np.where(outcome.exact, law.logpdf(outcome.low), np.log(inside))
    value = np.where(outcome.exact, outcome.low, forecast.loc)
    crps = scoringrules.crps_t(value, *forecast, backend="numpy")
    quantiles = {f"q{100 * q:.0f}": law.ppf(q) for q in QUANTILES}
    return _table(outcome, log_score, crps, low, law.sf(outcome.threshold), quantiles)


def score_draws(
    outcome: Outcome, log_score: Numbers, draws: Numbers, weight: Numbers, seed: int
) -> pd.DataFrame:
    """Scores of weighted predictive draws, with fields as in `score_student`.

    Parameters
    ----------
    log_score
        Log predictive density or probability, known without the draws, (row,).
    draws
        (draw, row).
    weight
        Of each draw, summing to one, (draw,).
    seed
        Of the random ranks that values equal to draws get in the PIT (Czado, Gneiting & Held 2009).
    """
    import scoringrules  # As above.

    rank = np.random.default_rng(seed).random(len(outcome.low))
    pit = weight @ (draws < outcome.low) + rank * (weight @ (draws == outcome.low))
    # NaN is above nothing, and such rows have no event.
    probability = np.where(np.isnan(outcome.threshold), np.nan, weight @ (draws > outcome.threshold))
    value = np.where(np.isfinite(outcome.low), outcome.low, outcome.high)
    members = np.ascontiguousarray(draws.T)
    crps = scoringrules.crps_ensemble(
        value, members, ens_w=np.broadcast_to(weight, members.shape), backend="numpy"
    )
    found = np.quantile(draws, QUANTILES, axis=0, weights=weight, method="inverted_cdf")
    quantiles = {f"q{100 * q:.0f}": x for q, x in zip(QUANTILES, found, strict=True)}
    return _table(outcome, log_score, crps, pit, probability, quantiles)


def _table(
    outcome: Outcome,
    log_score: Numbers,
    crps: Numbers,
    pit: Numbers,
    probability: Numbers,
    quantiles: dict[str, Numbers],
) -> pd.DataFrame:
    none = np.isnan(log_score)
    pit = np.where(outcome.exact & ~none, pit, np.nan)
    event = outcome.event
    fields = {"log_score": log_score, "crps": np.where(np.isnan(pit), np.nan, crps), "pit": pit}
    for level in LEVELS:
        covered = (np.abs(pit - 0.5) <= level / 2).astype(float)
        fields[f"covered_{100 * level:.0f}"] = np.where(np.isnan(pit), np.nan, covered)
    known = ~np.isnan(event) & ~none
    fields["event"] = np.where(known, event, np.nan)
    fields["probability"] = np.where(known, probability, np.nan)
    fields["brier"] = (fields["probability"] - fields["event"]) ** 2
    return pd.DataFrame(fields | quantiles)


def stack(log_density: Numbers) -> Numbers:
    """Weights of a mixture that would have had the highest sum of log scores (Yao et al. 2018).

    Maximises sum_n ln sum_k w_k p_k(y_n) over the simplex by expectation-maximisation, which never leaves
    it.  The target is concave, so the start does not matter.

    Parameters
    ----------
    log_density
        Log predictive densities of values seen since, (value, component); with no value the weights are
        equal.

    Returns
    -------
    ndarray
        (component,), summing to one.
    """
    # What every component calls impossible says nothing about weights.
    log_density = log_density[np.isfinite(log_density).any(axis=1)]
    count, components = log_density.shape
    log_w = np.full(components, -np.log(components))
    for _ in range(2000 if count else 0):
        joint = log_density + log_w
        new = logsumexp(joint - logsumexp(joint, axis=1, keepdims=True), axis=0) - np.log(count)
        done = np.abs(np.exp(new) - np.exp(log_w)).max() < 1e-7
        log_w = new
        if done:
            break
    return np.exp(log_w)


def block_bootstrap(
    origin: NDArray[np.int64], length: int, statistic: Callable[[Numbers], float], seed: int = 1
) -> tuple[float, float] | None:
    """Interval of a statistic of scored rows, by resampling blocks of neighbouring origins.

    Rows of one origin are dependent, and so are origins whose horizons reach the same row; blocks of
    `length` origins, taken round the circle (Politis & Romano 1992), keep them together.

    Parameters
    ----------
    origin
        Number of each row's origin in order of time, (row,).
    length
        Origins in a block.
    statistic
        Of a weight for each row, (row,) -> number.

    Returns
    -------
    tuple of float or None
        Ends of the central `CONFIDENCE` interval; None where there are fewer than three blocks.
    """
    present, place = np.unique(origin, return_inverse=True)
    count = len(present)
    if count < 3 * length:
        return None
    rng = np.random.default_rng(seed)
    blocks = -(-count // length)
    found = []
    for _ in range(RESAMPLES):
        start = rng.integers(count, size=blocks)
        chosen = ((start[:, None] + np.arange(length)) % count).ravel()[:count]
        found.append(statistic(np.bincount(chosen, minlength=count)[place].astype(float)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(found, [tail, 1 - tail])
    return float(low), float(high)
