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
from threadpoolctl import threadpool_limits

from forecast.bridge import carried, jackknife_values
from forecast.compilation import Compiled, Metric, in_blocks, log_density
from forecast.particles import by_island, moments, next_powers, resampled
from forecast.sweeps import Data, Run, Settings

OWN = ("value", "weight")
"""Data of the model of which each particle gets its own at least."""
TOGETHER = 20
"""Data sets that are carried on together."""
MOVED = 10
"""Groups of chains that move in one call, a group being one label of one data set."""


def batches(size: int) -> list[tuple[np.ndarray, int]]:
    """Indices of data sets that move together, `TOGETHER` each, and how many of them count.

    The last batch is filled up from the first sets, so that nothing is compiled for another size.
    """
    firsts = range(0, size, TOGETHER)
    return [(np.arange(i, i + TOGETHER) % size, min(TOGETHER, size - i)) for i in firsts]


class Changing(NamedTuple):
    """The rows whose weights may change, so that what others say need not be worked out again."""

    compiled: Compiled
    """Model of these rows alone, with the free variables of the whole."""
    where: np.ndarray
    """Their places among all rows."""


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
    changing: Changing | None = None,
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
    changing
        All rows by default.

    Returns
    -------
    Crowd
        Under `new`.  The evidence of a label of a data set is NaN where the change makes all its draws
        impossible.

    Raises
    ------
    ValueError
        A weight changes of a row that is not among `changing`.
    """
    sets, K, islands, _, D = crowd.draws.shape
    of, s, groups = np.repeat(np.arange(sets), K), settings, sets * K
    chains = max(1, s.chains // K)
    old, new = (np.broadcast_to(w, (sets, w.shape[-1]))[of] for w in (old, new))
    part = changing or Changing(compiled, np.arange(new.shape[-1]))
    if np.delete(old != new, part.where, axis=1).any():
        raise ValueError("weights change of rows that are not among those that may")
    path = _Path(compiled, part, np.tile(crowd.labels, sets), of, seen, old, new, shared)
    mover = _Mover(Run(compiled, seed, s, None), path, crowd.step_size.ravel().copy())

    every, power = np.arange(groups), np.zeros(groups)
    x, factor = crowd.draws.reshape(groups, islands, -1, D), crowd.factor.reshape(groups, D, D).copy()
    change, steps = path.gain(every, x), list[tuple[np.ndarray, np.ndarray]]()
    lost = _impossible(change)
    while len(some := np.flatnonzero((power < 1.0) & ~lost)):
        before = change[some]
        higher = _next(before, power[some], s.ess)
        step, power[some] = (higher - power[some])[:, None, None], higher
        chosen = resampled(mover.run.rng, step * before, chains).reshape(len(some), -1, 1)
        origin = np.take_along_axis(x[some].reshape(len(some), -1, D), chosen, axis=1)
        origin = origin.reshape(len(some), islands, chains, D)
        factor[some] = _sharpened(path, some, origin.mean(axis=(1, 2)), factor[some], step[..., 0])
        states = mover.move(some, origin, power, factor, s.sweeps)
        if not steps:
            # From now on there are as many draws as states; those of what is lost mean nothing.
            x, change = np.zeros((groups, *states.shape[1:])), np.zeros((groups, *states.shape[1:-1]))
        x[some], change[some] = states, path.gain(some, states)
        lost[some] = _impossible(change[some])
        pair = np.zeros((groups, *before.shape[1:])), np.zeros(change.shape)
        for full, gained in zip(pair, (before, change[some]), strict=True):
            full[some] = step * gained
        steps.append(pair)
    if s.final_sweeps > s.sweeps:
        last = x.reshape(groups, islands, chains, -1, D)[..., -1, :]
        more = mover.move(every, last, power, factor, s.final_sweeps - s.sweeps)
        x = np.concatenate([x, more], axis=2)

    found = jackknife_values(partial(carried, crowd.log_evidence.reshape(groups, islands), steps), islands)
    found[lost], shape = np.nan, (sets, K)
    return Crowd(
        x.reshape(*shape, *x.shape[1:]),
        found.reshape(*shape, islands),
        factor.reshape(*shape, D, D),
        mover.step_size.reshape(shape),
        crowd.labels,
    )


class _Path(NamedTuple):
    """From some weights of rows to others, in groups: one label of one data set each."""

    compiled: Compiled
    changing: Changing
    label: np.ndarray
    """(group,)"""
    of: np.ndarray
    """Data set, (group,)."""
    seen: Mapping[str, np.ndarray]
    """(set, row) each."""
    old: np.ndarray
    """(group, row)"""
    new: np.ndarray
    """(group, row)"""
    shared: Data

    def data(self, some: np.ndarray, power: np.ndarray, count: int) -> tuple[np.ndarray, Data]:
        """Labels and data of the model at powers (group,), for `count` particles of some groups in a row."""
        weight = self.old[some] + power[some, None] * (self.new - self.old)[some]
        return self._data(self.compiled, slice(None), some, weight, count)

    def change(self, some: np.ndarray, count: int) -> tuple[np.ndarray, Data]:
        """Labels and data of the model of the rows that change, weighted by their change."""
        program, rows = self.changing
        return self._data(program, rows, some, (self.new - self.old)[some], count)

    def gain(self, some: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Log likelihood of the change at draws of some groups, (group, island, draw)."""
        flat, own = x.reshape(-1, x.shape[-1]), self.change(some, x.shape[1] * x.shape[2])
        return log_density(self.changing.compiled, flat, *own)[1].reshape(x.shape[:-1])

    def _data(
        self, program: Compiled, rows: np.ndarray | slice, some: np.ndarray, weight: np.ndarray, count: int
    ) -> tuple[np.ndarray, Data]:
        own = {n: x[self.of[some]] for n, x in self.seen.items()} | {"weight": weight}
        each = {n: np.repeat(x[:, rows], count, axis=0) for n, x in own.items()}
        return np.repeat(self.label[some], count), {**program.data, **self.shared, **each}


class _Mover(NamedTuple):
    """Moves groups of chains, those with step sizes alike together."""

    run: Run
    path: _Path
    step_size: np.ndarray
    """(group,); each move adapts it."""

    def move(
        self, some: np.ndarray, origin: np.ndarray, power: np.ndarray, factor: np.ndarray, sweeps: int
    ) -> np.ndarray:
        """States of chains of some groups, (group, island, state, dimension).

        Parameters
        ----------
        origin
            Where they start, (group, island, chain, dimension).
        power, factor
            Of all groups, (group,) and (group, dimension, dimension).
        """
        _, islands, chains, D = origin.shape
        found = np.empty((len(some), islands, chains * self.run.settings.steps * sweeps, D))
        order, size = np.argsort(self.step_size[some], kind="stable"), min(MOVED, len(power))
        for i in range(0, len(order), size):
            # Filled up, so that nothing is compiled for another size.
            mine = np.resize(order[i : i + size], size)
            those, count = some[mine], min(size, len(order) - i)
            self.run.step_size, nowhere = self.step_size[those], np.zeros((size, D))
            label, data = self.path.data(those, power, islands * chains)
            states = self.run.stage(
                origin[mine].reshape(-1, D),
                label,
                ((0.0, 1.0, 1.0), data),
                float(power[those].mean()),
                Metric(nowhere, factor[those], np.zeros((size, D, D)), nowhere),
                sweeps,
                self.run.settings.steps,
            )
            kept = by_island(states, size * islands).reshape(size, *found.shape[1:])
            found[mine[:count]] = kept[:count]
            self.step_size[those[:count]] = np.asarray(self.run.step_size)[:count]
        return found


def _impossible(change: np.ndarray) -> np.ndarray:
    """Groups with a change of the log likelihood (group, island, draw) that no draw survives, (group,)."""
    return np.asarray((change < -1e200).all(axis=(1, 2)))


def _next(change: np.ndarray, power: np.ndarray, ess: float) -> np.ndarray:
    """Largest power that keeps the effective share of draws at `ess`, (group,), from the change at them."""
    flat = change.reshape(len(change), -1)

    def enough(new: np.ndarray) -> np.ndarray:
        log_w = (new - power)[:, None] * flat
        w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
        return np.asarray(w.sum(axis=1) ** 2 >= ess * flat.shape[1] * (w**2).sum(axis=1))

    return next_powers(enough, power)


def _sharpened(
    path: _Path, some: np.ndarray, mean: np.ndarray, factor: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """Factors of some groups after a step of the power (group, 1), by the extended Kalman filter.

    The curvature of the log likelihood is read off its slopes at the mean and one standard deviation away
    from it along every coordinate; where it bends upwards it changes nothing.
    """
    D, program = mean.shape[-1], path.changing.compiled
    away = np.concatenate([np.zeros((len(mean), 1, D)), np.swapaxes(factor, -1, -2)], axis=1)
    points, likelihood = (mean[:, None] + away).reshape(-1, D), np.array([0.0, 1.0])
    label, data = path.change(some, D + 1)
    _, found = in_blocks(
        lambda x, k, own: program.slope(x, k, own, likelihood), (points, label), data, program.each
    )
    slope = np.nan_to_num(found.astype(float), posinf=0.0, neginf=0.0).reshape(away.shape)
    # Of so small matrices threads do nothing but wait for one another, where others are at work for seconds.
    with threadpool_limits(limits=1, user_api="blas"):
        bent = (slope[:, :1] - slope[:, 1:]) @ factor
        curvature, axes = np.linalg.eigh((bent + np.swapaxes(bent, -1, -2)) / 2)
        return _lower(factor @ (axes / np.sqrt(1 + step * np.maximum(curvature, 0.0))[:, None]))
