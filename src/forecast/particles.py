"""Particles of independent islands: their moments, resampling, and the next step along a path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp


class Gaussian(NamedTuple):
    """A normal distribution by mean (dimension,) and lower Cholesky factor of its covariance."""

    mean: np.ndarray
    factor: np.ndarray

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """(size, dimension)."""
        return self.mean + rng.standard_normal((size, len(self.mean))) @ self.factor.T

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density of each point, (point,)."""
        y = solve_triangular(self.factor, (x - self.mean).T, lower=True)
        constant = np.log(np.diag(self.factor)).sum() + 0.5 * len(self.mean) * np.log(2 * np.pi)
        return np.asarray(-0.5 * (y**2).sum(0) - constant)


class Particles(NamedTuple):
    """Particles of all islands, states of one chain in a row, on a path between two densities."""

    x: np.ndarray
    """(island, particle, dimension)"""
    start: np.ndarray
    """Log density at the beginning of the path, (island, particle, label)."""
    end: np.ndarray
    """Log density at its end, (island, particle, label)."""

    def log_target(self, log_pseudo: np.ndarray, power: float) -> np.ndarray:
        """Log joint density of particle and label at a point of the path, (island, particle, label)."""
        return log_pseudo + (1 - power) * self.start + power * self.end


def systematic(rng: np.random.Generator, log_weight: np.ndarray, size: int) -> np.ndarray:
    """Systematic resampling, (size,) indices in increasing order."""
    weight = np.exp(log_weight - logsumexp(log_weight))
    at = (rng.random() + np.arange(size)) / size
    return np.minimum(np.searchsorted(np.cumsum(weight), at), len(weight) - 1)


def resampled(rng: np.random.Generator, log_weight: np.ndarray, size: int) -> np.ndarray:
    """Systematic resampling over all islands of a group: where each new particle comes from.

    Weights that sum to one on every small island would make the evidence too small, the more so the fewer its
    particles, and no comparison of islands could tell.  Taken in order, most still come from their own.

    Parameters
    ----------
    log_weight
        (group, island, particle).
    size
        New particles on each island.

    Returns
    -------
    ndarray
        Indices among the particles of all islands of the group, (group, island, size).
    """
    groups, islands, _ = log_weight.shape
    found = [systematic(rng, one.ravel(), islands * size) for one in log_weight]
    return np.reshape(found, (groups, islands, size))


def thin(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` draws, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def effective_share(log_weight: np.ndarray) -> float:
    """Effective share of weighted particles, 1 / (n sum w^2) for weights that sum to one (Kish 1965)."""
    w = log_weight.ravel()
    return float(np.exp(2 * logsumexp(w) - logsumexp(2 * w)) / len(w))


def next_power(cloud: Particles, log_pseudo: np.ndarray, power: float, ess: float) -> float:
    """Largest power whose weights keep the effective share of particles at `ess`."""
    now = logsumexp(cloud.log_target(log_pseudo, power), axis=-1)

    def enough(new: np.ndarray) -> np.ndarray:
        change = [logsumexp(cloud.log_target(log_pseudo, p), axis=-1) - now for p in new]
        return np.array([effective_share(log_w) >= ess for log_w in change])

    return float(next_powers(enough, np.array([power]))[0])


def next_powers(enough: Callable[[np.ndarray], np.ndarray], power: np.ndarray) -> np.ndarray:
    """Largest powers up to 1 that will do, by bisection.

    Parameters
    ----------
    enough
        Powers (group,) -> whether each will do, (group,).
    power
        Where the steps begin, (group,).
    """
    low, high = power, np.ones(len(power))
    last = enough(high)
    if last.all():
        return high
    for _ in range(30):
        wide = (low > 0) & (high > 2 * low)
        middle = np.where(wide, np.sqrt(low * high), 0.5 * (low + high))
        fits = enough(middle)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    # Where much of the prior is impossible no step keeps the share; take the least one.
    return np.where(last, 1.0, np.where(low > power, low, high))


def moments(x: np.ndarray, log_weight: np.ndarray | None = None) -> Gaussian:
    """Gaussian with the weighted moments of all islands, correlations shrunk by their sampling error.

    Few particles in many dimensions leave a covariance close to singular; the least expected squared
    error has the correlations times ``1 - sum var(r) / sum r^2`` (Schäfer & Strimmer 2005).
    """
    flat = x.reshape(-1, x.shape[-1])
    weight = np.full(len(flat), 1 / len(flat))
    if log_weight is not None:
        weight = np.exp(log_weight - logsumexp(log_weight)).ravel()
    mean = weight @ flat
    centred = flat - mean
    covariance = (centred * weight[:, None]).T @ centred
    variance = np.diag(covariance)
    covariance[np.diag_indices_from(covariance)] += 1e-6 * variance + 1e-9 * variance.mean()
    sd = np.sqrt(np.diag(covariance))
    square = np.square(covariance / np.outer(sd, sd))[np.triu_indices_from(covariance, 1)]
    error = np.square(1 - square).sum() * (weight**2).sum()
    kept = 1 - min(1.0, error / square.sum()) if len(square) else 1.0
    covariance = kept * covariance + (1 - kept) * np.diag(sd**2)
    return Gaussian(mean, np.linalg.cholesky(covariance))


def halves(x: np.ndarray, log_weight: np.ndarray | None = None) -> tuple[Gaussian, Gaussian]:
    """For each half of the islands, a Gaussian with the moments of the other half."""
    half = len(x) // 2
    parts = (slice(half, None), slice(half))
    first, second = (moments(x[p], None if log_weight is None else log_weight[p]) for p in parts)
    return first, second


def deal(x: np.ndarray, islands: int, labels: int) -> np.ndarray:
    """Deal draws whose labels cycle 0, 1, ... to islands so that each has every label equally."""
    if len(x) % (islands * labels):
        raise ValueError("particles per island must be a multiple of the number of labels")
    rounds = x.reshape(-1, islands, labels, x.shape[-1])
    return np.moveaxis(rounds, 1, 0).reshape(islands, -1, x.shape[-1])


def by_island(states: np.ndarray, islands: int) -> np.ndarray:
    """(step, island x chain, dimension) -> (island, chain x step, dimension), chains contiguous."""
    steps, total, D = states.shape
    shaped = states.reshape(steps, islands, total // islands, D)
    return np.moveaxis(shaped, 0, 2).reshape(islands, -1, D)
