"""Log normalising constants from posterior draws, by bridge sampling between two or more densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit, logsumexp

ROUNDS = 50
"""Most steps of Newton's method in `ratio`."""
CLOSE = 1e-10
"""Largest step, in nats, after which there is no other."""
FLATTEST = 0.01
"""Least slope that a step believes, so that none is wild; where densities hardly overlap it is so small."""


def bridge(
    draws: np.ndarray, log_target: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """Log normalising constant by bridge sampling (Meng & Wong 1996; Meng & Schilling 2002).

    Each half of the chains is bridged to a Gaussian fitted to the other half.  What is bridged is the mean
    of the target and its mirror image at the Gaussian's mean, whose constant is the same and which has
    no skewness to bridge.

    Parameters
    ----------
    draws
        Posterior draws in unconstrained space, (chain, draw, dimension).
    log_target
        Log of the unnormalised density, (point, dimension) -> (point,).

    Returns
    -------
    tuple of float
        Estimate and standard error (Fruehwirth-Schnatter 2004, draws thinned by their own ESS).
    """
    import arviz as az

    half = len(draws) // 2
    fits, points = [], []
    for fitted, used in ((draws[:half], draws[half:]), (draws[half:], draws[:half])):
        flat, own = fitted.reshape(-1, draws.shape[-1]), used.reshape(-1, draws.shape[-1])
        mean, factor = flat.mean(0), np.linalg.cholesky(np.cov(flat.T) + 1e-9 * np.eye(flat.shape[1]))
        proposed = mean + rng.standard_normal((len(own), len(mean))) @ factor.T
        x = np.concatenate([own, proposed])
        y = np.linalg.solve(factor, (x - mean).T)
        log_q = -0.5 * (y**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
        fits.append((used.shape[:2], log_q))
        points += [x, 2 * mean - x]
    # All at once: targets are evaluated in blocks of a fixed size.
    parts = np.split(log_target(np.concatenate(points)), np.cumsum([len(x) for x in points])[:-1])
    results = []
    for (shape, log_q), here, mirrored in zip(fits, parts[::2], parts[1::2], strict=True):
        ratio = np.logaddexp(here, mirrored) - np.log(2) - log_q
        posterior, proposal = np.split(ratio, 2)
        ess = float(az.ess(posterior.reshape(shape), method="mean"))
        results.append(_bridge_solve(posterior, proposal, ess))
    estimates, errors = zip(*results, strict=True)
    return float(np.mean(estimates)), float(np.hypot(*errors) / 2)


def _bridge_solve(posterior: np.ndarray, proposal: np.ndarray, ess: float) -> tuple[float, float]:
    n1, n2 = len(posterior), len(proposal)
    s1, s2 = np.log(ess / (ess + n2)), np.log(n2 / (ess + n2))

    def gap(z: float) -> float:
        top = logsumexp(proposal - np.logaddexp(s1 + proposal, s2 + z)) - np.log(n2)
        bottom = logsumexp(-np.logaddexp(s1 + posterior, s2 + z)) - np.log(n1)
        return float(top - bottom) - z

    # The gap falls, and is zero between the least and the largest ratio.
    z = brentq(gap, min(proposal.min(), posterior.min()) - 1, max(proposal.max(), posterior.max()) + 1)
    f = proposal - np.logaddexp(s1 + proposal, s2 + z)
    g = -np.logaddexp(s1 + posterior, s2 + z)
    # Only ratios to the mean count, so each is scaled by its largest value.
    f, g = np.exp(f - f.max()), np.exp(g - g.max())
    variance = f.var() / f.mean() ** 2 / n2 + g.var() / g.mean() ** 2 / ess
    return z, float(np.sqrt(variance))


def constants(log_density: np.ndarray, size: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Log normalising constants of several densities, up to a common one, from draws of each.

    Every draw is used under every density (Shirts & Chodera 2008): the constants solve

        Z_k = sum_n f_k(x_n) / sum_j size_j f_j(x_n) / Z_j.

    Parameters
    ----------
    log_density
        Log unnormalised densities at the draws of all of them together, (draw, density).
    size
        Number of draws of each density, (density,).
    start
        First guess, (density,); densities that no draw connects keep their difference.

    Returns
    -------
    np.ndarray
        (density,), with the mean of `start`.
    """
    share, first = size / size.sum(), np.asarray(start, float)

    def weights(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_w = log_density + np.log(share) - z
        total = logsumexp(log_w, axis=1, keepdims=True)
        return total, np.exp(log_w - total)

    # The equations are the gradient of a convex function (Shirts & Chodera 2008, appendix C), here with a
    # term that fixes the sum of the constants, which is free.
    def value(z: np.ndarray) -> tuple[float, np.ndarray]:
        total, w = weights(z)
        away = (z - first).sum()
        return float(total.mean() + share @ z + away**2 / 2), share - w.mean(0) + away

    def curvature(z: np.ndarray) -> np.ndarray:
        _, w = weights(z)
        return np.diag(w.mean(0)) - w.T @ w / len(w) + 1.0

    return np.asarray(minimize(value, first, jac=True, hess=curvature, method="trust-exact", tol=1e-8).x)


def ratio(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Log ratio of normalising constants, from log ratios of densities at draws of both (Bennett 1976).

    What `constants` finds for two densities, for many pairs at once.  Where a draw is taken for one of the
    second density with probability expit(log ratio - result + log(m/n)), m of all n + m are on average.

    Parameters
    ----------
    before, after
        At draws of the first density and of the second, (..., island, draw).
    """
    x = np.concatenate([before, after], axis=-1).reshape(*before.shape[:-2], -1)
    n, m = (np.prod(part.shape[-2:]) for part in (before, after))
    odds = np.log(m / n)
    # All draws of the second density are possible, so that their middle is near.
    found = np.median(after, axis=(-2, -1))[..., None]
    for _ in range(ROUNDS):
        second = expit(x - found + odds)
        share = second.mean(axis=-1, keepdims=True)
        slope = (second * (1 - second)).mean(axis=-1, keepdims=True) / (share * (1 - share))
        step = (logit(share) - odds) / np.maximum(slope, FLATTEST)
        found = found + step
        if np.abs(step).max() < CLOSE:
            break
    return np.asarray(found[..., 0])


def carried(
    log_evidence: np.ndarray, steps: Sequence[tuple[np.ndarray, np.ndarray]], used: np.ndarray
) -> np.ndarray:
    """Log evidence carried along a path by `ratio`, from some islands, (...,).

    Parameters
    ----------
    log_evidence
        Pseudo-values before the first step, (..., island).
    steps
        Log ratios of the densities after and before each step, at draws of both, (..., island, draw) each.
    used
        Indices of islands.
    """
    added = sum(ratio(before[..., used, :], after[..., used, :]) for before, after in steps)
    return np.asarray(log_evidence[..., used].mean(axis=-1) + added)


def jackknife_values(estimate: Callable[[np.ndarray], np.ndarray], islands: int) -> np.ndarray:
    """Pseudo-values of an estimate made from independent islands (Quenouille 1956; Tukey 1958).

    Parameters
    ----------
    estimate
        Indices of the islands used -> estimate, (...,).
    islands
        How many there are, at least two.

    Returns
    -------
    np.ndarray
        (..., island); their mean is the estimate without its bias of first order, and their standard
        deviation over the root of their number is its standard error.
    """
    every = np.arange(islands)
    whole = estimate(every)
    without = np.stack([estimate(np.delete(every, i)) for i in every], axis=-1)
    return islands * whole[..., None] - (islands - 1) * without
