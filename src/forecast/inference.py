"""Posterior draws and log marginal likelihoods of a compiled model, by vectorised sequential Monte Carlo.

A small run follows a tempered likelihood from the prior to the posterior (Del Moral, Doucet & Jasra
2006) to learn where the posterior lies.  The run that counts starts from a Gaussian fitted to it and
follows the geometric path from that Gaussian to the posterior, which is short.  Particles move by
Hamiltonian Monte Carlo in whitened coordinates and every state of every chain is kept as a particle
(waste-free SMC, Dau & Chopin 2022).  Independent islands give standard errors, and each half of them
moves in coordinates learnt from the other: coordinates learnt from the particles that move in them make
the evidence too small.  One categorical variable, if the model has one, is a label: it is summed out of the
weights and redrawn from its exact conditional at every temperature, and each of its values gets an evidence
and draws.

`advance` carries finished draws on to changed data by the same reweighting and moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from forecast.bridge import bridge, carried, constants, jackknife_values
from forecast.compilation import Compiled, Metric, give_back, in_blocks, log_densities, log_density
from forecast.particles import (
    Gaussian,
    Particles,
    by_island,
    deal,
    halves,
    moments,
    next_power,
    systematic,
    thin,
)
from forecast.sweeps import Data as Data
from forecast.sweeps import Progress as Progress
from forecast.sweeps import Run, Target
from forecast.sweeps import Settings as Settings
from forecast.sweeps import Stage as Stage

PILOT_SWEEPS = 3
"""Sweeps at the posterior in the run that only finds where it lies."""
PILOT_ESS = 0.3
"""Effective share of particles in the run that only finds where the posterior lies."""
CHECKED = 192
"""Most draws per chain from which the evidence is checked in one shot."""
REREAD = 192
"""Most draws per chain that are read under all labels after a step; neighbours say nearly the same."""
AGREES = 3.0
"""Combined errors within which two estimates of the evidence agree."""
INFLATION = 1.1
"""Standard deviations of the starting Gaussian over those of the particles it is fitted to."""


class Fit(NamedTuple):
    """Draws and evidence of every label."""

    draws: np.ndarray
    """Unconstrained draws, (label, island, draw, dimension)."""
    log_evidence: np.ndarray
    """Log marginal likelihood as jackknife pseudo-values, (label, island)."""
    check: np.ndarray
    """Log marginal likelihood by bridge sampling from the draws, and its error, (label, 2)."""
    stages: tuple[Stage, ...]
    step_size: float


class Leg(NamedTuple):
    """A path between two densities: how to evaluate its ends and what a move needs on the way."""

    ends: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Values -> log densities of start and end, (particle, label) each."""
    at: Callable[[float], Target]
    """Power -> what moves on the way."""
    reference: Gaussian | None = None


def sample(
    compiled: Compiled,
    seed: int,
    settings: Settings = Settings(),
    data: Data | None = None,
    progress: Progress | None = None,
    draw_prior: Callable[[int, int], np.ndarray] | None = None,
    reference: Gaussian | None = None,
) -> Fit:
    """Posterior draws and evidence of every label.

    Parameters
    ----------
    compiled
        From `compile_model`.
    seed
        Same seed, same bits.
    settings
        Size of the fit.
    data
        Values of `pm.Data` that differ from the model's own.
    progress
        Called with what is being done and the share done.
    draw_prior
        (seed, size) -> unconstrained prior draws whose labels cycle 0, 1, ...; needed where the prior
        of a variable depends on the label, or to spare `pm.draw`.
    reference
        Where the posterior lies, if that is known, say from a neighbouring model: the path starts there.
        By default a pilot run finds out.

    Returns
    -------
    Fit
        Draws are balanced over labels; the label's prior plays no part, so any odds can be put on
        the evidence afterwards.
    """
    if settings.islands % 2:
        raise ValueError("islands come in halves; take an even number")
    run, inputs = Run(compiled, seed, settings, progress), _inputs(compiled, data)
    if reference is None:
        reference = _pilot(run, inputs, draw_prior or compiled.draw_prior)
    give_back()
    s, rng, K = settings, run.rng, compiled.labels

    def ends(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prior, likelihood = log_densities(compiled, x, inputs)
        return np.broadcast_to(reference.log_density(x)[:, None], prior.shape), prior + likelihood

    leg = Leg(ends, lambda t: ((1 - t, t, t), inputs), reference)
    size = s.chains * s.steps * s.sweeps
    cloud = _cloud(reference.draw(rng, s.islands * size).reshape(s.islands, size, -1), leg)
    path = _temper(run, cloud, leg, s.ess, s.sweeps, "tempering")
    cloud = path[-1].cloud
    tempered = cloud.log_target(path[-1].log_pseudo, 1.0)
    responsibility = tempered - logsumexp(tempered, axis=-1, keepdims=True)
    # The draws: chains split evenly over labels, each kept at its own.
    per_label = max(1, s.chains // K)
    chosen = [
        [cloud.x[i, systematic(rng, responsibility[i, :, k], per_label)] for k in range(K)]
        for i in range(s.islands)
    ]
    draws = _draw(run, np.array(chosen), leg, coordinates(halves(cloud.x), reference))
    estimate = _along(path, _cloud(np.moveaxis(draws, 0, 1).reshape(s.islands, -1, draws.shape[-1]), leg))
    check = _one_shots(compiled, rng, draws, inputs)
    return Fit(draws, jackknife_values(estimate, s.islands), check, tuple(run.stages), float(run.step_size))


def pooled(fits: Sequence[Fit]) -> Fit:
    """Independent fits of one posterior as one: on each island their draws follow each other.

    Stages are those of all, the step size is that of the last.
    """
    check = np.stack([f.check for f in fits])
    error = np.sqrt((check[..., 1] ** 2).sum(0)) / len(fits)
    return Fit(
        np.concatenate([f.draws for f in fits], axis=2),
        np.mean([f.log_evidence for f in fits], axis=0),
        np.stack([check[..., 0].mean(0), error], axis=-1),
        tuple(stage for f in fits for stage in f.stages),
        fits[-1].step_size,
    )


def _along(path: list[_Visit], draws: Particles) -> Callable[[np.ndarray], np.ndarray]:
    """Log evidence of each label from the draws and the particles at every temperature of some islands.

    Each label at each temperature is a density of its own, and all particles are used under all of
    them.  How many particles a label got plays no part.

    Parameters
    ----------
    path
        Temperatures, the first at a normalised density and the last at 1.
    draws
        Draws of each label in a row, as many of each.
    """
    K = draws.end.shape[-1]
    start = np.concatenate([*(v.cloud.start[..., 0] for v in path), draws.start[..., 0]], axis=1)
    end = np.concatenate([*(v.cloud.end for v in path), draws.end], axis=1)
    mixed = [(1 - v.power) * start[..., None] + v.power * end for v in path[1:]]
    log_density = np.concatenate([start[..., None], *mixed], axis=-1)
    islands, size = len(start), path[0].cloud.x.shape[1]
    count = np.concatenate(
        [np.full((islands, 1), size)] + [(v.label[..., None] == np.arange(K)).sum(1) for v in path[1:]],
        axis=1,
    )
    count[:, -K:] += draws.x.shape[1] // K
    first = np.concatenate([[0.0], *(v.log_z - v.log_pseudo - np.log(K) for v in path[1:])])

    def estimate(used: np.ndarray) -> np.ndarray:
        found = constants(log_density[used].reshape(-1, len(first)), count[used].sum(0), first)
        return found[-K:] - found[0]

    return estimate


def read_off(
    log_evidence: np.ndarray, steps: Sequence[tuple[np.ndarray, np.ndarray]], joint: np.ndarray
) -> np.ndarray:
    """Log evidence of each label after a step, by the more precise of two estimates.

    One adds the step's own increments, each bridged from the draws before and after it.  The other reads what
    sets labels apart off the new draws, used under all labels, with the mean of the first; errors of steps do
    not add up in it.

    Parameters
    ----------
    log_evidence
        Pseudo-values before the step, (label, island).
    steps
        Log ratios of the densities after and before each part of the step, at draws of both,
        (label, island, draw) each.
    joint
        Log density under each label of the draws of each, (label, island, draw, label).

    Returns
    -------
    ndarray
        Pseudo-values, (label, island).
    """
    K, islands, count, _ = joint.shape

    def both(used: np.ndarray) -> np.ndarray:
        along, size = carried(log_evidence, steps, used), np.full(K, len(used) * count)
        return np.stack([along, constants(joint[:, used].reshape(-1, K), size, along)])

    found = jackknife_values(both, islands)
    errors = (found - found.mean(axis=1, keepdims=True)).var(axis=-1).sum(axis=-1)
    return np.asarray(found[np.argmin(errors)])


def anchored(log_evidence: np.ndarray, check: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log evidence at the mean level of the one-shot estimates, if that is known better and agrees.

    Steps too small by a tenth of a nat each add up; one-shot estimates know nothing of earlier dates.

    Parameters
    ----------
    log_evidence, check
        Pseudo-values, (label, island); one-shot estimates and their errors, (label, 2).

    Returns
    -------
    ndarray
        Pseudo-values; what sets labels apart is as it was.  Their level scatters at random, since its error
        shares nothing with the date before.
    """
    K, islands = log_evidence.shape
    level, away = log_evidence.mean(0), check[:, 0] - log_evidence.mean(1)
    own = level.std(ddof=1) / np.sqrt(islands)
    # Errors of one-shot estimates are those of their draws; how far they lie apart shows the rest.
    error = max(np.sqrt((check[:, 1] ** 2).sum()) / K, away.std(ddof=1) / np.sqrt(K) if K > 1 else 0.0)
    if not (error < own and abs(away.mean()) < AGREES * np.hypot(error, own)):
        return log_evidence
    scatter = rng.normal(size=level.shape)
    scatter = (scatter - scatter.mean()) / scatter.std(ddof=1) * np.sqrt(islands)
    return np.asarray(log_evidence - level + level.mean() + away.mean() + error * scatter)


def _pilot(run: Run, inputs: Any, draw_prior: Callable[[int, int], np.ndarray]) -> Gaussian:
    """Gaussian over all labels, from a small run along the tempered likelihood."""
    compiled, s = run.compiled, run.settings
    K, size = compiled.labels, s.chains * s.steps
    x = draw_prior(int(run.rng.integers(2**31)), s.islands * size)

    def ends(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prior, likelihood = log_densities(compiled, x, inputs)
        return prior, prior + likelihood

    leg = Leg(ends, lambda t: ((0.0, 1.0, t), inputs))
    cloud = _cloud(deal(x, s.islands, K), leg)
    path = _temper(run, cloud, leg, PILOT_ESS, PILOT_SWEEPS, "looking for the posterior", quick=True)
    mean, factor = moments(path[-1].cloud.x)
    run.stages.clear()
    return Gaussian(mean, INFLATION * factor)


class _Visit(NamedTuple):
    """Particles at one temperature."""

    power: float
    cloud: Particles
    label: np.ndarray
    """Label at which each particle moved, (island, particle)."""
    log_pseudo: np.ndarray
    """Log pseudo-odds that give every label its share of the particles, (label,)."""
    log_z: float
    """First guess of the log normalising constant at these pseudo-odds."""


def _temper(
    run: Run, cloud: Particles, leg: Leg, ess: float, sweeps: int, what: str, quick: bool = False
) -> list[_Visit]:
    """Take particles along a path and return them at each temperature, the start included.

    A quick run moves particles only once before the last temperature.
    """
    K, s, rng = cloud.end.shape[-1], run.settings, run.rng
    path = [_Visit(0.0, cloud, np.zeros(cloud.x.shape[:2], int), np.full(K, -np.log(K)), 0.0)]
    while path[-1].power < 1.0:
        power, cloud, _, log_pseudo, log_z = path[-1]
        new = next_power(cloud, log_pseudo, power, ess)
        before = logsumexp(cloud.log_target(log_pseudo, power), axis=-1)
        shift = logsumexp(cloud.log_target(log_pseudo, new) - before[..., None], axis=(0, 1))
        log_pseudo = log_pseudo - shift - logsumexp(log_pseudo - shift)
        target = cloud.log_target(log_pseudo, new)
        weight = logsumexp(target, axis=-1) - before
        log_z += logsumexp(weight) - np.log(weight.size)
        metric = coordinates(halves(cloud.x, weight), leg.reference)
        chosen = np.stack([systematic(rng, w, s.chains) for w in weight])
        x = np.take_along_axis(cloud.x, chosen[..., None], axis=1)
        target = np.take_along_axis(target, chosen[..., None], axis=1)
        label = np.argmax(target + rng.gumbel(size=target.shape), axis=-1)
        moves, times = (1, 1) if quick and new < 1.0 else (s.steps, sweeps)
        states = run.stage(x.reshape(-1, x.shape[-1]), label.ravel(), leg.at(new), new, metric, times, moves)
        cloud = _cloud(by_island(states, s.islands), leg)
        path.append(_Visit(new, cloud, np.repeat(label, moves * times, axis=1), log_pseudo, log_z))
        run.report(what, new)
    return path


def _draw(run: Run, origin: np.ndarray, leg: Leg, metric: Metric) -> np.ndarray:
    """Draws (label, island, draw, dimension) at the end of a path from (island, label, chain, dimension)."""
    s = run.settings
    x, kept = origin, []
    for n in range(s.final_sweeps * s.sweeps):
        kept.append(_final(run, x, leg, metric))
        x = kept[-1][-1]
        run.report("drawing", (n + 1) / (s.final_sweeps * s.sweeps))
    return _in_a_row(np.concatenate(kept))


def _final(run: Run, origin: np.ndarray, leg: Leg, metric: Metric) -> np.ndarray:
    """One sweep at the end of a path, (step, island, label, chain, dimension)."""
    islands, K, chains, D = origin.shape
    label = np.tile(np.repeat(np.arange(K), chains), islands)
    states, stage = run.move(origin.reshape(-1, D), label, leg.at(1.0), 1.0, metric, run.settings.steps)
    run.stages.append(stage)
    return states.reshape(-1, *origin.shape)


def _in_a_row(states: np.ndarray) -> np.ndarray:
    """(step, island, label, chain, dimension) -> draws (label, island, draw, dimension), chain by chain."""
    steps, islands, K, _, D = states.shape
    rows = by_island(states.reshape(steps, -1, D), islands * K)
    return np.ascontiguousarray(rows.reshape(islands, K, -1, D).swapaxes(0, 1))


def advance(
    compiled: Compiled,
    seed: int,
    fit: Fit,
    old: Data,
    new: Data,
    settings: Settings = Settings(),
    progress: Progress | None = None,
) -> Fit:
    """Carry a fit on to changed row weights by reweighting and moving, label by label.

    The path between the two posteriors interpolates the data ``weight``, to which the log likelihood
    must be proportional; other data of the model must be the same in `old` and `new`.

    Parameters
    ----------
    fit
        Fit under `old`; its draws are the particles.
    old, new
        Values of `pm.Data`, as in `sample`.

    Returns
    -------
    Fit
        Under `new`; its log evidence is from `read_off` and `anchored`.
    """
    run, s = Run(compiled, seed, settings, progress), settings
    before, after = _inputs(compiled, old), _inputs(compiled, new)
    K, islands, _, D = fit.draws.shape
    changed = {**after, "weight": after["weight"] - before["weight"]}
    run.step_size = fit.step_size
    per_label = max(1, s.chains // K)
    label = np.tile(np.arange(K), islands)

    def ends(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Only what sets the ends apart counts, and that is the log likelihood of the change.
        _, change = log_density(compiled, x, np.repeat(label, len(x) // len(label)), changed)
        return np.zeros_like(change), change

    def at(t: float) -> tuple[tuple[float, float, float], Any]:
        return (0.0, 1.0, 1.0), {**after, "weight": (1 - t) * before["weight"] + t * after["weight"]}

    leg = Leg(ends, at)

    def at_ends(draws: np.ndarray) -> Particles:
        return _cloud(np.moveaxis(draws, 0, 1).reshape(islands * K, -1, D), leg)

    def of_labels(x: np.ndarray) -> np.ndarray:
        return x.reshape(islands, K, -1).swapaxes(0, 1)

    cloud, power = at_ends(fit.draws), 0.0
    steps = list[tuple[np.ndarray, np.ndarray]]()
    while power < 1.0:
        new_power = min(
            next_power(Particles(*(a[label == k] for a in cloud)), np.zeros(1), power, s.ess)
            for k in range(K)
        )
        size, power = new_power - power, new_power
        weight = size * cloud.end[..., 0]
        # Labels differ in their increments, and none may set the coordinates alone.
        even = weight - logsumexp(weight, axis=1, keepdims=True)
        metric = coordinates(halves(cloud.x, even))
        # At the end every sweep has chains of its own: more of the particles live on in the draws.
        sweeps = s.final_sweeps * s.sweeps if power == 1.0 else 1
        chosen = np.stack([systematic(run.rng, w, per_label * sweeps) for w in weight])
        origin = np.take_along_axis(cloud.x, chosen[..., None], axis=1)
        if power < 1.0:
            here, each = origin.reshape(-1, D), np.repeat(label, per_label)
            states = run.stage(here, each, leg.at(power), power, metric, s.sweeps, s.steps)
            cloud = _cloud(by_island(states, islands * K), leg)
            steps.append((of_labels(weight), of_labels(size * cloud.end[..., 0])))
            run.report("reweighting", power)
    origin = origin.reshape(islands, K, per_label, sweeps, D)
    kept = []
    for n in range(sweeps):
        kept.append(_final(run, origin[:, :, :, n], leg, metric))
        run.report("drawing", (n + 1) / sweeps)
    # Particles that were chosen more than once stay side by side, where effective sizes see them.
    draws = _in_a_row(np.stack(kept, axis=4).reshape(s.steps, islands, K, -1, D))
    check = _one_shots(compiled, run.rng, draws, after)
    steps.append((of_labels(weight), of_labels(size * at_ends(draws).end[..., 0])))
    read = draws[:, :, thin(draws.shape[2], REREAD)]
    joint = np.add(*log_densities(compiled, read.reshape(-1, D), after)).reshape(*read.shape[:3], K)
    found = anchored(read_off(fit.log_evidence, steps, joint), check, run.rng)
    return Fit(draws, found, check, tuple(run.stages), float(run.step_size))


def _inputs(compiled: Compiled, data: Data | None) -> dict[str, Any]:
    return {n: jnp.asarray(v) for n, v in (compiled.data | dict(data or {})).items()}


def _cloud(x: np.ndarray, leg: Leg) -> Particles:
    """Evaluate particles (island, particle, dimension) at both ends of a path."""
    start, end = leg.ends(x.reshape(-1, x.shape[-1]))
    return Particles(x, start.reshape(*x.shape[:2], -1), end.reshape(*x.shape[:2], -1))


def coordinates(around: tuple[Gaussian, Gaussian], reference: Gaussian | None = None) -> Metric:
    """Coordinates in which each of `around` is standard normal, and the path's reference in them."""
    mean, factor = (np.stack(parts) for parts in zip(*around, strict=True))
    tilt, shift = np.zeros_like(factor), np.zeros_like(mean)
    if reference is not None:
        tilt = np.stack([solve_triangular(reference.factor, f, lower=True) for f in factor])
        away = (mean - reference.mean).T
        shift = solve_triangular(reference.factor, away, lower=True).T
    return Metric(mean, factor, tilt, shift)


def one_shot(
    compiled: Compiled, rng: np.random.Generator, draws: np.ndarray, label: int, data: Any
) -> tuple[float, float]:
    """Log evidence of one label from its draws alone, and its error, by `bridge.bridge`.

    Parameters
    ----------
    draws
        Unconstrained draws of the label, (chain, draw, dimension).
    data
        Values of all `pm.Data` of the model.
    """

    def log_target(x: np.ndarray) -> np.ndarray:
        prior, likelihood = log_density(compiled, x, np.full(len(x), label), data)
        return prior + likelihood

    return bridge(draws, log_target, rng)


def _one_shots(compiled: Compiled, rng: np.random.Generator, draws: np.ndarray, data: Any) -> np.ndarray:
    """`one_shot` of every label from draws (label, chain, draw, dimension), evenly thinned, (label, 2)."""
    spread = thin(draws.shape[2], CHECKED)
    return np.array([one_shot(compiled, rng, d[:, spread], k, data) for k, d in enumerate(draws)])


def describe(compiled: Compiled, fit: Fit, label: int, data: Data | None = None) -> xr.Dataset:
    """Values of the model's deterministics at the draws of one label, with dims (chain, draw, ...)."""
    draws = fit.draws[label]
    x = draws.reshape(-1, draws.shape[-1])
    values = in_blocks(compiled.outputs, (x, np.full(len(x), label)), _inputs(compiled, data))
    model = compiled.model
    coords = {d: np.asarray(model.coords[d]) for d in model.coords if model.coords[d] is not None}
    found = {}
    for name, value in zip(compiled.names, values, strict=True):
        shape = value.shape[1:]
        dims = model.named_vars_to_dims.get(name) or tuple(f"{name}_dim_{i}" for i in range(len(shape)))
        found[name] = (("chain", "draw", *dims), value.reshape(*draws.shape[:2], *shape))
    used = {d for dims, _ in found.values() for d in dims}
    return xr.Dataset(found, coords={d: v for d, v in coords.items() if d in used})
