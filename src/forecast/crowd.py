"""Fits of many simulated data sets at once, carried on to more rows in one batch of chains.

What `inference.advance` does for one data set, for many that share a model but neither values nor weights of
rows: alone, the few chains of each would leave a processor idle.  Chains of either half of the data sets
move in coordinates learnt from the other half, which has seen rows like theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from forecast.compilation import Compiled, Metric, log_densities, log_density
from forecast.inference import coordinates, read_off
from forecast.particles import Particles, by_island, halves, next_power, systematic
from forecast.sweeps import Data, Run, Settings

OWN = ("value", "weight")
"""Data of the model of which each particle gets its own."""
TOGETHER = 20
"""Data sets in one batch of chains, an even number."""


def batches(size: int) -> list[tuple[np.ndarray, int]]:
    """Indices of data sets that move together, `TOGETHER` each, and how many of them count.

    The last batch is filled up from the first sets, so that nothing is compiled for another size.
    """
    firsts = range(0, size, TOGETHER)
    return [(np.arange(i, i + TOGETHER) % size, min(TOGETHER, size - i)) for i in firsts]


class Crowd(NamedTuple):
    """Draws and evidence of every label of many data sets, an even number."""

    draws: np.ndarray
    """Unconstrained draws, (set, label, island, draw, dimension)."""
    log_evidence: np.ndarray
    """Log marginal likelihood as jackknife pseudo-values, (set, label, island)."""
    step_size: float


def advance(
    compiled: Compiled,
    seed: int,
    crowd: Crowd,
    value: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    shared: Data,
    settings: Settings,
    change: np.ndarray | None = None,
) -> Crowd:
    """Carry every data set on to changed row weights by reweighting and moving, label by label.

    Parameters
    ----------
    compiled
        With the data `OWN` given for each particle; its log likelihood must be proportional to the weights.
    crowd
        Under the weights `old`; its draws are the particles.
    value
        Of every row of each data set, (set, row).
    old, new
        Weights of rows before and after, (row,).
    shared
        Values of other data that differ from the model's own.
    change
        Log likelihood of the change at the draws, (set, label, island, draw), if it is known.

    Returns
    -------
    Crowd
        Under `new`.
    """
    run, s = Run(compiled, seed, settings, None), settings
    run.step_size = crowd.step_size
    sets, K, islands, _, D = crowd.draws.shape
    chains = max(1, s.chains // K)

    def data(weight: np.ndarray, count: int) -> dict[str, np.ndarray]:
        """For `count` particles of each set in a row."""
        each = np.broadcast_to(weight, value.shape)
        own = {"value": np.repeat(value, count, axis=0), "weight": np.repeat(each, count, axis=0)}
        return {**compiled.data, **shared, **own}

    def label(count: int) -> np.ndarray:
        return np.tile(np.repeat(np.arange(K), islands * count), sets)

    x, power, log_z = crowd.draws, np.zeros(sets), np.zeros((sets, K, islands))
    while power.min() < 1.0:
        count = x.shape[3]
        if change is None:
            inputs = data(new - old, K * islands * count)
            _, gain = log_density(compiled, x.reshape(-1, D), label(count), inputs)
            change = gain.reshape(x.shape[:4])
        higher = np.array([_next(c, p, s.ess) for c, p in zip(change, power, strict=True)])
        weight = (higher - power)[:, None, None, None] * change
        even = weight - logsumexp(weight, axis=-1, keepdims=True)
        log_z += logsumexp(weight, axis=-1) - np.log(count)
        power, change = higher, None
        metric = _coordinates(x.reshape(sets, -1, D), even.reshape(sets, -1))
        chosen = np.stack([systematic(run.rng, w, chains) for w in weight.reshape(-1, count)])
        origin = np.take_along_axis(x, chosen.reshape(*x.shape[:3], chains, 1), axis=3)
        inputs = data(old + power[:, None] * (new - old), K * islands * chains)
        sweeps = s.final_sweeps if power.min() == 1.0 else s.sweeps
        states = run.stage(
            origin.reshape(-1, D),
            label(chains),
            ((0.0, 1.0, 1.0), inputs),
            float(power.mean()),
            metric,
            sweeps,
            s.steps,
        )
        x = by_island(states, sets * K * islands).reshape(*x.shape[:3], -1, D)
    count = x.shape[3]
    joint = np.add(*log_densities(compiled, x.reshape(-1, D), data(new, K * islands * count)))
    parts = zip(crowd.log_evidence, log_z, joint.reshape(*x.shape[:4], K), strict=True)
    return Crowd(x, np.stack([read_off(*part) for part in parts]), run.step_size)


def _next(change: np.ndarray, power: float, ess: float) -> float:
    """Next power of one data set: the least that any label allows."""
    nothing = np.zeros((*change.shape[1:], 1))
    parts = [Particles(nothing, nothing, c[..., None]) for c in change]
    return 1.0 if power == 1.0 else min(next_power(part, np.zeros(1), power, ess) for part in parts)


def _coordinates(x: np.ndarray, log_weight: np.ndarray) -> Metric:
    """For each half of the data sets, the spread within sets of the other half."""
    weight = np.exp(log_weight - logsumexp(log_weight, axis=1, keepdims=True))
    centred = x - np.einsum("sp,spd->sd", weight, x)[:, None]
    return coordinates(halves(centred, np.log(np.maximum(weight, 1e-300))))
