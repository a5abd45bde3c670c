"""Fits of many simulated data sets at once, carried on to more rows in one batch of chains.

What `inference.advance` does for one data set, for many that share a model but neither values nor weights of
rows: alone, the few chains of each would leave a processor idle.  So few cannot learn coordinates to move in
either; these come from a covariance that follows each data set, sharpened by the curvature of the rows that
are brought in, as an extended Kalman filter does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from forecast.bridge import carried, jackknife_values
from forecast.compilation import Compiled, Metric, in_blocks, log_density
from forecast.particles import Particles, by_island, moments, next_power, resampled
from forecast.sweeps import Data, Run, Settings

OWN = ("value", "weight")
"""Data of the model of which each particle gets its own at least."""
TOGETHER = 20
"""Data sets in one batch of chains."""


def batches(size: int) -> list[tuple[np.ndarray, int]]:
    """Indices of data sets that move together, `TOGETHER` each, and how many of them count.

    The last batch is filled up from the first sets, so that nothing is compiled for another size.
    """
    firsts = range(0, size, TOGETHER)
    return [(np.arange(i, i + TOGETHER) % size, min(TOGETHER, size - i)) for i in firsts]


class Crowd(NamedTuple):
    """Draws and evidence of some labels, the same ones, of many data sets."""

    draws: np.ndarray
    """Unconstrained draws, (set, label, island, draw, dimension)."""
    log_evidence: np.ndarray
    """Log marginal likelihood as jackknife pseudo-values, (set, label, island)."""
    factor: np.ndarray
    """Lower Cholesky factor of a covariance like that of the draws, (set, label, dimension, dimension)."""
    step_size: np.ndarray
    """Of each label of each set: where one is narrow, the others need not creep, (set, label)."""
    labels: tuple[int, ...]
    """Those that are followed."""


def begin(draws: np.ndarray, step_size: float, labels: Sequence[int] | None = None) -> Crowd:
    """A crowd whose sets all have the same posteriors and an evidence of 0.

    Parameters
    ----------
    draws
        As in `Crowd`.
    labels
        Those of the draws; all by default.
    """
    sets, K, islands, _, D = draws.shape
    factor = np.stack([moments(draws[:, k].reshape(1, -1, D)).factor for k in range(K)])
    every, sizes = np.broadcast_to(factor, (sets, K, D, D)), np.full((sets, K), step_size)
    return Crowd(draws, np.zeros((sets, K, islands)), every, sizes, tuple(labels or range(K)))


def recast(crowd: Crowd, maps: Sequence[Callable[[np.ndarray], np.ndarray]]) -> Crowd:
    """The same crowd in other coordinates; the maps, one for each label, take values (..., dimension)."""
    mean = crowd.draws.mean(axis=(2, 3))
    away = np.swapaxes(crowd.factor, -1, -2)
    draws, factor = [], []
    for k, to in enumerate(maps):
        draws.append(to(crowd.draws[:, k]))
        ends = [to(mean[:, k, None] + sign * away[:, k]) for sign in (1.0, -1.0)]
        factor.append(_lower(np.swapaxes(ends[0] - ends[1], -1, -2) / 2))
    return crowd._replace(draws=np.stack(draws, axis=1), factor=np.stack(factor, axis=1))


def _lower(root: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of the covariance that has a square root, (..., dimension, dimension)."""
    return np.linalg.cholesky(root @ np.swapaxes(root, -1, -2))


def advance(
    compiled: Compiled,
    seed: int,
    crowd: Crowd,
    seen: Mapping[str, np.ndarray],
    old: np.ndarray,
    new: np.ndarray,
    shared: Data,
    settings: Settings,
) -> Crowd:
    """Carry every data set on to changed row weights by reweighting and moving, label by label.

    Parameters
    ----------
    compiled
        With ``weight`` and the data `seen` given for each particle; its log likelihood must be proportional
        to the weights.
    crowd
        Under the weights `old`; its draws are the particles.
    seen
        Data of each data set by name, ``value`` among them, (set, row) each.
    old, new
        Weights of rows before and after, (row,), or those of each set, (set, row).
    shared
        Values of other data that differ from the model's own.

    Returns
    -------
    Crowd
        Under `new`.
    """
    run, s = Run(compiled, seed, settings, None), settings
    run.step_size = crowd.step_size.ravel()
    sets, K, islands, _, D = crowd.draws.shape
    chains = max(1, s.chains // K)
    old, new = (np.broadcast_to(w, (sets, w.shape[-1]))[:, None] for w in (old, new))

    def data(weight: np.ndarray, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Labels and data of the model for `count` particles of each label of each set in a row.

        Weights are those of each set, (set, 1, row), or of its labels, (set, label, row).
        """

        def own(x: np.ndarray) -> np.ndarray:
            return np.repeat(np.broadcast_to(x, (sets, K, x.shape[-1])).reshape(sets * K, -1), count, axis=0)

        each = {n: own(x[:, None]) for n, x in seen.items()} | {"weight": own(weight)}
        return np.tile(np.repeat(crowd.labels, count), sets), {**compiled.data, **shared, **each}

    def gain(x: np.ndarray) -> np.ndarray:
        """Log likelihood of the change at draws, (set, label, island, draw)."""
        _, found = log_density(compiled, x.reshape(-1, D), *data(new - old, islands * x.shape[3]))
        return found.reshape(x.shape[:-1])

    x, factor, power = crowd.draws, crowd.factor, np.zeros((sets, K))
    change, steps = gain(x), list[tuple[np.ndarray, np.ndarray]]()
    slopes = data(new - old, D + 1)
    while power.min() < 1.0:
        pairs = zip(change.reshape(sets * K, islands, -1), power.ravel(), strict=True)
        higher = np.array([_next(c, p, s.ess) for c, p in pairs]).reshape(sets, K)
        step, power = (higher - power)[..., None, None], higher
        weight = (step * change).reshape(sets * K, islands, -1)
        chosen = resampled(run.rng, weight, chains).reshape(sets, K, -1, 1)
        origin = np.take_along_axis(x.reshape(sets, K, -1, D), chosen, axis=2)
        origin = origin.reshape(sets, K, islands, chains, D)
        mean, nowhere = origin.mean(axis=(2, 3)), np.zeros((sets * K, D))
        factor = _sharpened(compiled, mean, factor, step[..., 0], slopes)
        label, inputs = data(old + power[..., None] * (new - old), islands * chains)
        states = run.stage(
            origin.reshape(-1, D),
            label,
            ((0.0, 1.0, 1.0), inputs),
            float(power.mean()),
            Metric(nowhere, factor.reshape(-1, D, D), np.zeros((sets * K, D, D)), nowhere),
            s.final_sweeps if power.min() == 1.0 else s.sweeps,
            s.steps,
        )
        x = by_island(states, sets * K * islands).reshape(*x.shape[:3], -1, D)
        before, change = change, gain(x)
        steps.append((step * before, step * change))

    found = jackknife_values(partial(carried, crowd.log_evidence, steps), islands)
    return Crowd(x, found, factor, np.reshape(run.step_size, (sets, K)), crowd.labels)


def _next(change: np.ndarray, power: float, ess: float) -> float:
    """Next power of one label of one data set, with the change at its draws, (island, draw)."""
    nothing = np.zeros((*change.shape, 1))
    part = Particles(nothing, nothing, change[..., None])
    return 1.0 if power == 1.0 else next_power(part, np.zeros(1), power, ess)


def _sharpened(
    compiled: Compiled,
    mean: np.ndarray,
    factor: np.ndarray,
    step: np.ndarray,
    inputs: tuple[np.ndarray, Data],
) -> np.ndarray:
    """Factors after a step of the power, (set, label, dimension, dimension), by the extended Kalman filter.

    The curvature of the log likelihood is read off its slopes at the mean and one standard deviation away
    from it along every coordinate; where it bends upwards it changes nothing.
    """
    D, (label, data) = mean.shape[-1], inputs
    away = np.concatenate([np.zeros((*mean.shape[:2], 1, D)), np.swapaxes(factor, -1, -2)], axis=2)
    points, likelihood = (mean[:, :, None] + away).reshape(-1, D), np.array([0.0, 1.0])
    _, found = in_blocks(
        lambda x, k, own: compiled.slope(x, k, own, likelihood), (points, label), data, compiled.each
    )
    slope = np.nan_to_num(found.astype(float), posinf=0.0, neginf=0.0).reshape(away.shape) @ factor
    bent = slope[:, :, :1] - slope[:, :, 1:]
    curvature, axes = np.linalg.eigh((bent + np.swapaxes(bent, -1, -2)) / 2)
    return _lower(factor @ (axes / np.sqrt(1 + step * np.maximum(curvature, 0.0))[:, :, None]))
