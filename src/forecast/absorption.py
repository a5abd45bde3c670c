"""Absorption measured: what evidence decides, what it teaches, and what assumptions take in.

By the chain rule the information gained from data splits exactly:

    KL(all) = KL(weights' || weights)              decided between dynamics
            + sum w' KL(core)                      learnt within them
            + sum w' KL(belt | core)               absorbed by assumptions
            + sum w' KL(calibration | core, belt)

Divergences are those of Gaussians with the moments of the normal scores in which every prior is a standard
normal.  Such a divergence never exceeds the true one, so what it misses is printed as unassigned.  Errors
are jackknifes over islands, which also take out the bias of a covariance estimated from finite draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from forecast.bridge import jackknife_values
from forecast.schema import BELT, Role


class Estimate(NamedTuple):
    """A number or array and its Monte Carlo standard error."""

    value: Any
    se: Any

    def __add__(self, other: Any) -> Estimate:
        """Sum of independent estimates."""
        return Estimate(self.value + other.value, np.hypot(self.se, other.se))

    def __sub__(self, other: Estimate) -> Estimate:
        """Difference of independent estimates."""
        return Estimate(self.value - other.value, np.hypot(self.se, other.se))


def pseudo_values(statistic: Callable[..., Any], *draws: np.ndarray) -> np.ndarray:
    """`bridge.jackknife_values` of a statistic of pooled draws, (island, ...).

    Parameters
    ----------
    statistic
        From arrays (draw, ...) to a number or an array.
    draws
        Arrays (island, draw, ...) with the same number of islands; island i of each is left out together,
        so that islands stepped from one another may be dependent.
    """

    def pooled(kept: np.ndarray) -> np.ndarray:
        return np.asarray(statistic(*(x[kept].reshape(-1, *x.shape[2:]) for x in draws)), float)

    return np.moveaxis(jackknife_values(pooled, len(draws[0])), -1, 0)


def jackknife(statistic: Callable[..., Any], *draws: np.ndarray) -> Estimate:
    """Statistic of pooled islands, its first-order bias removed, and its error: mean of `pseudo_values`."""
    return _mean(pseudo_values(statistic, *draws))


def _mean(values: np.ndarray) -> Estimate:
    return Estimate(values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values)))


# Divergences --------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """Mean (parameter,) and covariance (parameter, parameter) of scores."""

    mean: np.ndarray
    covariance: np.ndarray

    def of(self, chosen: Sequence[int]) -> Moments:
        """Those of some of the parameters."""
        return Moments(self.mean[list(chosen)], self.covariance[np.ix_(chosen, chosen)])


def moments(x: np.ndarray, weight: np.ndarray | None = None) -> Moments:
    """Moments of draws (draw, parameter), weighted if weights (draw,) are given."""
    w = np.full(len(x), 1 / len(x)) if weight is None else weight / weight.sum()
    mean = w @ x
    away = (x - mean) * np.sqrt(w)[:, None]
    return Moments(mean, away.T @ away)


def conditioned(x: np.ndarray, fixed: Sequence[int], at: Any) -> np.ndarray:
    """Draws (draw, parameter) moved to where some parameters have given values, as a Gaussian's would be."""
    free = [i for i in range(x.shape[1]) if i not in fixed]
    cov = moments(x).covariance
    moved = x.copy()
    moved[:, fixed] = at
    if len(fixed):
        slope = np.linalg.solve(cov[np.ix_(fixed, fixed)], cov[np.ix_(fixed, free)])
        moved[:, free] += (at - x[:, fixed]) @ slope
    return moved


def standard(count: int) -> Moments:
    """Moments of standard-normal scores, the prior of every parameter."""
    return Moments(np.zeros(count), np.eye(count))


def divergence(after: Moments, before: Moments) -> float:
    """KL(after || before) of two Gaussians, nats.

    (tr(S0^-1 S) - D + (m - m0)' S0^-1 (m - m0) + ln|S0| - ln|S|) / 2
    """
    if not len(after.mean):
        return 0.0
    away = after.mean - before.mean
    both = np.linalg.solve(before.covariance, np.column_stack([after.covariance, away]))
    logs = np.linalg.slogdet(before.covariance)[1] - np.linalg.slogdet(after.covariance)[1]
    return float(0.5 * (np.trace(both[:, :-1]) - len(away) + away @ both[:, -1] + logs))


def aligned(names: Sequence[str], before: Moments, names_before: Sequence[str]) -> Moments:
    """`before` in the order of `names`; a parameter it lacks has its prior."""
    found = standard(len(names))
    at = {n: i for i, n in enumerate(names_before)}
    here = [i for i, n in enumerate(names) if n in at]
    there = [at[names[i]] for i in here]
    found.mean[here] = before.mean[there]
    found.covariance[np.ix_(here, here)] = before.covariance[np.ix_(there, there)]
    return found


def shapley(worth: Mapping[frozenset[str], Any], players: Sequence[str]) -> dict[str, Any]:
    """Shapley value of each player: the mean of what it adds over all orders (Shapley 1953).

    Parameters
    ----------
    worth
        Value of every coalition, the empty one included; the shares sum to that of all less that of none.
    """
    count = len(players)
    share = {}
    for player in players:
        others = [p for p in players if p != player]
        total: Any = 0.0
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for some in map(frozenset, combinations(others, size)):
                total = total + weight * (worth[some | {player}] - worth[some])
        share[player] = total
    return share


def split(after: Moments, before: Moments, roles: Sequence[Role]) -> np.ndarray:
    """Core, the four belt groups, calibration: parts of a divergence in the order of the chain rule, (6,).

    What a group takes in depends on which moves first, so a group gets the mean over all orders.  The
    parts sum to the divergence of all.
    """
    of: dict[str, list[int]] = {
        role: [i for i, r in enumerate(roles) if r == role] for role in ("core", *BELT)
    }

    def worth(groups: Sequence[str]) -> float:
        chosen = [*of["core"], *(i for g in groups for i in of[g])]
        return divergence(after.of(chosen), before.of(chosen))

    every: dict[frozenset[str], float] = {
        frozenset(some): worth(some) for size in range(5) for some in combinations(BELT, size)
    }
    shares = shapley(every, BELT)
    rest = divergence(after, before) - every[frozenset(BELT)]
    return np.array([every[frozenset()], *(shares[g] for g in BELT), rest])


# The ledger ---------------------------------------------------------------------------------------------


class Moved(NamedTuple):
    """What data did to each of some assumptions, arrays (assumption,)."""

    shift: np.ndarray
    """Posterior mean in prior sd."""
    spread: np.ndarray
    """Posterior sd in prior sd."""
    first: np.ndarray
    """Divergence of the assumption alone: as if it moved first, nats."""
    last: np.ndarray
    """What it adds once all others have moved, nats; less than `first` where others can stand in."""


def moved(after: Moments, before: Moments | None, blocks: Sequence[Sequence[int]]) -> Moved:
    """How blocks of parameters moved from `before`, or from the prior if None.

    A block of one parameter has a shift and a spread.  Against the prior, what a block b adds to all
    others is (tr C_bb - |b| + m_b' m_b + ln|(C^-1)_bb|) / 2; it is NaN against anything else.
    """
    reference = before or standard(len(after.mean))
    precision = np.linalg.inv(after.covariance)
    last = np.full(len(blocks), np.nan)
    single = np.full((2, len(blocks)), np.nan)
    for j, b in enumerate(blocks):
        own = after.of(b)
        if before is None:
            rest = np.linalg.slogdet(precision[np.ix_(b, b)])[1]
            last[j] = 0.5 * (np.trace(own.covariance) - len(b) + own.mean @ own.mean + rest)
        if len(b) == 1:
            there = reference.of(b)
            single[0, j] = own.mean[0] - there.mean[0]
            single[1, j] = np.sqrt(own.covariance[0, 0] / there.covariance[0, 0])
    first = np.array([divergence(after.of(b), reference.of(b)) for b in blocks])
    return Moved(single[0], single[1], first, last)


FAR = 2.5
"""Posterior sds beyond which no density is read off draws."""
_GRID = np.linspace(-7.0, 7.0, 281)
_BASIS = _GRID[:, None] ** np.arange(1, 5)


def log_density(x: np.ndarray, at: float) -> float:
    """Log density of draws (draw,) at a point: exp of a quartic with the first four moments of the draws.

    The maximum-likelihood member of an exponential family (Barron & Sheu 1991), found by Newton's method
    on standardised draws.  Smooth in the draws, and right for a Gaussian.
    """
    mean, sd = x.mean(), x.std()
    y, t = (x - mean) / sd, (at - mean) / sd
    powers = np.arange(1, 5)
    target = (y[:, None] ** powers).mean(0)
    coefficient = np.array([0.0, -0.5, 0.0, 0.0])

    def normal(c: np.ndarray) -> tuple[float, np.ndarray]:
        """Log normalising constant less that of the grid's step, and the density on the grid."""
        exponent = _BASIS @ c
        top = exponent.max()
        weight = np.exp(exponent - top)
        return float(top + np.log(weight.sum())), weight / weight.sum()

    constant, p = normal(coefficient)
    for _ in range(50):
        mean_basis = p @ _BASIS
        gradient = mean_basis - target
        if np.abs(gradient).max() < 1e-6:
            break
        hessian = (_BASIS * p[:, None]).T @ _BASIS - np.outer(mean_basis, mean_basis)
        direction = np.linalg.solve(hessian + 1e-10 * np.eye(4), gradient)
        value, size = constant - coefficient @ target, 1.0
        while True:
            trial = coefficient - size * direction
            constant, p = normal(trial)
            if constant - trial @ target <= value or size < 1e-6:
                break
            size /= 2
        coefficient = trial
    return float(t**powers @ coefficient - constant - np.log(_GRID[1] - _GRID[0]) - np.log(sd))


def reliance(x: np.ndarray, at: float = 0.0) -> Estimate | None:
    """How much log evidence a dynamic would lose if one assumption were frozen, nats.

    ln p(a0) - ln p(a0 | data) at score `at`, 0 being the prior median (Savage & Dickey): the log evidence
    with the assumption free less that with it frozen.  Negative where freezing would save its price.

    Parameters
    ----------
    x
        Scores of the assumption, (island, draw).

    Returns
    -------
    Estimate or None
        None where `at` is more than `FAR` posterior sds from the mean: then only a frozen refit tells.
    """
    if abs(x.mean() - at) > FAR * x.std():
        return None
    prior = -0.5 * at**2 - 0.5 * np.log(2 * np.pi)
    return jackknife(lambda draws: prior - log_density(draws, at), x)


def pinned(a: Moments, b: Moments, chosen: Sequence[int]) -> float:
    """Nats by which knowing some assumptions exactly would on average tell two dynamics apart.

    Half of KL(a || b) + KL(b || a) of the posteriors of assumptions that both share: if their values were
    revealed, the log Bayes factor would on average move by the one divergence toward a if a is true, and
    by the other toward b if b is.
    """
    one, two = a.of(chosen), b.of(chosen)
    return 0.5 * (divergence(one, two) + divergence(two, one))


# Verdicts -----------------------------------------------------------------------------------------------

SEPARATED, LEANING = float(np.log(19.0)), float(np.log(3.0))
"""Least log Bayes factors, nats: even odds become 95 to 5, and 3 to 1."""
REFUTED = 10.0
"""A freeze that costs this many nats of log evidence is refuted by the data, not a way to read them."""


def verdict(value: float, se: float) -> str:
    """What a log Bayes factor says of a pair, after two standard errors are taken off it.

    ``separated`` from ln 19 on, ``leaning`` from ln 3 on, else ``not identified``.
    """
    sure = abs(value) - 2 * se
    return "separated" if sure >= SEPARATED else "leaning" if sure >= LEANING else "not identified"


# Reweighting --------------------------------------------------------------------------------------------

GOOD_K = 0.7
"""Largest Pareto k at which an importance estimate is used (Vehtari et al. 2024)."""


class Reweighted(NamedTuple):
    """A change of log evidence by importance sampling from stored draws."""

    values: np.ndarray
    """Change ln E[exp(log ratio)] as jackknife pseudo-values, nats, (island,)."""
    k: float
    """Pareto k of the ratios."""
    log_weight: np.ndarray
    """Smoothed and normalised, (island, draw)."""

    @property
    def change(self) -> Estimate:
        """Change of log evidence, nats."""
        return _mean(self.values)


def reweight(log_ratio: np.ndarray) -> Reweighted:
    """Log of the mean ratio over draws (island, draw), its tail smoothed (Pareto-smoothed importance)."""
    from arviz_stats.base import array_stats

    flat = log_ratio.ravel() - log_ratio.max()
    # Smoothing moves only the largest ratios; one below them gives the scale back.
    below = int(np.argsort(flat)[int(0.8 * flat.size) - 1])
    try:
        # ArviZ takes log likelihoods, whose reciprocals are the ratios of leaving a row out.
        smoothed, k = array_stats.psislw(-flat)
    except ValueError:
        smoothed, k = flat, -np.inf  # The largest ratios are all the same: nothing to smooth.
    smoothed = np.asarray(smoothed) - logsumexp(smoothed)
    if not np.isfinite(flat[below]):
        return Reweighted(np.full(len(log_ratio), np.nan), np.inf, smoothed.reshape(log_ratio.shape))
    scaled = (smoothed - smoothed[below] + flat[below] + log_ratio.max()).reshape(log_ratio.shape)
    change = pseudo_values(lambda x: logsumexp(x) - np.log(len(x)), scaled)
    if np.isnan(k):  # No tail could be fitted: ratios are all but equal, or very few count.
        k = -np.inf if np.exp(-logsumexp(2 * smoothed)) > 0.5 * flat.size else np.inf
    return Reweighted(change, float(k), smoothed.reshape(log_ratio.shape))


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Half the summed absolute differences of two distributions."""
    return float(0.5 * np.abs(np.asarray(a) - np.asarray(b)).sum())


def decided(posterior: np.ndarray, prior: np.ndarray) -> float:
    """KL(posterior || prior) of weights over dynamics, nats."""
    seen = posterior > 0
    return float((posterior[seen] * np.log(posterior[seen] / prior[seen])).sum())
