"""Log normalising constants from posterior draws, by bridge sampling between two or more densities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp


def bridge(
    draws: np.ndarray, log_target: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> tuple[float, float]:
    """Log normalising constant by bridge sampling (Meng & Wong 1996).

    Each half of the chains is bridged to a Gaussian fitted to the other half.

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
    results = []
    for fitted, used in ((draws[:half], draws[half:]), (draws[half:], draws[:half])):
        flat, own = fitted.reshape(-1, draws.shape[-1]), used.reshape(-1, draws.shape[-1])
        mean, factor = flat.mean(0), np.linalg.cholesky(np.cov(flat.T) + 1e-9 * np.eye(flat.shape[1]))
        proposed = mean + rng.standard_normal((len(own), len(mean))) @ factor.T

        def log_ratio(x: np.ndarray, mean: np.ndarray = mean, factor: np.ndarray = factor) -> np.ndarray:
            y = np.linalg.solve(factor, (x - mean).T)
            log_q = -0.5 * (y**2).sum(0) - np.log(np.diag(factor)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
            return log_target(x) - log_q

        posterior, proposal = log_ratio(own), log_ratio(proposed)
        ess = float(az.ess(posterior.reshape(used.shape[:2]), method="mean"))
        results.append(_bridge_iterate(posterior, proposal, ess))
    estimates, errors = zip(*results, strict=True)
    return float(np.mean(estimates)), float(np.hypot(*errors) / 2)


def _bridge_iterate(posterior: np.ndarray, proposal: np.ndarray, ess: float) -> tuple[float, float]:
    n1, n2 = len(posterior), len(proposal)
    s1, s2 = np.log(ess / (ess + n2)), np.log(n2 / (ess + n2))
    z = float(np.median(posterior))
    for _ in range(1000):
        top = logsumexp(proposal - np.logaddexp(s1 + proposal, s2 + z)) - np.log(n2)
        bottom = logsumexp(-np.logaddexp(s1 + posterior, s2 + z)) - np.log(n1)
        z, last = float(top - bottom), z
        if abs(z - last) < 1e-10:
            break
    f = proposal - np.logaddexp(s1 + proposal, s2 + z)
    g = -np.logaddexp(s1 + posterior, s2 + z)
    # Only ratios to the mean count, so each is scaled by its largest value.
    f, g = np.exp(f - f.max()), np.exp(g - g.max())
    variance = f.var() / f.mean() ** 2 / n2 + g.var() / g.mean() ** 2 / ess
    return z, float(np.sqrt(variance))


def relative_constants(
    log_density: np.ndarray, size: np.ndarray, log_mix: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Log normalising constants of several densities, up to a common one, from draws of mixtures of them.

    Every draw is used under every density (Shirts & Chodera 2008): group g has draws of the mixture
    proportional to sum_k exp(log_mix_gk) f_k, and the constants solve

        Z_k = sum_n f_k(x_n) / sum_j c_j f_j(x_n),   c_j = sum_g size_g exp(log_mix_gj) / Z_g,
        Z_g = sum_j exp(log_mix_gj) Z_j.

    Parameters
    ----------
    log_density
        Log unnormalised densities at the draws of all groups, (draw, density).
    size
        Number of draws of each group, (group,).
    log_mix
        Log weights of the densities in each group, -inf for none, (group, density).
    start
        First guess, (density,); densities that no draw connects keep their difference.

    Returns
    -------
    np.ndarray
        (density,), with the mean of `start`.
    """
    z = np.asarray(start, float)
    for _ in range(10_000):
        log_c = logsumexp(
            np.log(size)[:, None] + log_mix - logsumexp(log_mix + z, axis=1, keepdims=True), axis=0
        )
        new = logsumexp(log_density - logsumexp(log_density + log_c, axis=1, keepdims=True), axis=0)
        new += np.mean(start) - new.mean()
        z, last = new, z
        if np.abs(z - last).max() < 1e-9:
            break
    return z
