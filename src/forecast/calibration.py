"""Simulation-based calibration: data simulated from known parameters are fitted, and the truth is looked for.

If parameters come from the prior and data from the model, the share of posterior draws below the truth is
uniform for a correct engine (Talts et al. 2018), whatever the model; and among data sets that give a
dynamic a probability, it made as large a share of them.  Both are asked of data from the prior; `foresight`
asks the second of what is learnt after today in worlds from the posterior.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import softmax

from forecast import batch, crowd, evidence, free_values, inference, model, runs
from forecast.compilation import Compiled, compile_model, in_blocks
from forecast.dynamics import DYNAMICS, own_names
from forecast.indicators import prepared
from forecast.priors import Parameter
from forecast.sweeps import FIRST_STEP

SETTINGS = inference.Settings(islands=4, chains=16, final_sweeps=4, ess=0.2)
"""Size of the fit of one simulated data set."""
WEIGHED = inference.Settings(islands=4, chains=48, final_sweeps=2)
"""Size of the fit of all dynamics to one simulated data set."""
BAND = 0.95
"""Probability that the curve of a calibrated parameter lies inside its band, or that all curves do."""
WIDTHS = 40_000
"""Simulated curves from which the width of a band is found."""
LEVELS = (0.5, 0.8, 0.95)
"""Central intervals whose coverage is told."""
TENTHS = np.linspace(0, 1, 11)
"""Quantiles of what was believed, between which believed and true are compared."""
STEEPEST = 20.0
"""Largest factor that is looked for in `slope`."""


class Program(NamedTuple):
    """The joint model of some rows whose values are simulated."""

    rows: pd.DataFrame
    declared: dict[str, Parameter]
    compiled: Compiled
    exact: np.ndarray
    """Rows that say what a value is, and not only where it lies; the others do not count, (row,)."""

    def draw_prior(self, seed: int, size: int) -> np.ndarray:
        """Unconstrained prior draws whose dynamics cycle, (draw, dimension)."""
        return free_values.prior_draws(list(DYNAMICS), self.declared, self.rows, seed, size)[0]

    def prior(self, label: int, seed: int, size: int) -> np.ndarray:
        """Unconstrained prior draws of one dynamic, (draw, dimension)."""
        return self.draw_prior(seed, size * len(DYNAMICS))[label :: len(DYNAMICS)]

    def theta(self, x: np.ndarray, label: int) -> np.ndarray:
        """Parameters at unconstrained values of one dynamic, (draw, parameter)."""
        empty = {n: np.zeros((len(x), len(self.rows))) for n in self.compiled.each}
        data = {**self.compiled.data, **model.data_values(self.declared), **empty}
        values = in_blocks(self.compiled.outputs, (x, np.full(len(x), label)), data, self.compiled.each)
        return dict(zip(self.compiled.names, values, strict=True))["theta"]


def prepare(rows: pd.DataFrame, together: bool = True) -> Program:
    """Compile the joint model of `selection.Selection.rows`, under default priors.

    Parameters
    ----------
    together
        Whether many data sets are fitted at once, as `positions` does.
    """
    declared = model.ordered(model.parameters(list(DYNAMICS), rows))
    compiled = compile_model(batch.joint_model(rows, declared), crowd.OWN if together else ())
    return Program(rows, declared, compiled, prepared(rows).exact)


class Found(NamedTuple):
    """What fits of data simulated from one dynamic found."""

    parameters: list[str]
    """Those of the dynamic."""
    position: np.ndarray
    """Share of posterior draws below the truth, (simulation, parameter)."""
    log_evidence: np.ndarray
    """Of each dynamic that was fitted, as jackknife pseudo-values, (simulation, dynamic, island)."""


class Simulated(NamedTuple):
    """Data sets of one dynamic at prior draws of its parameters."""

    label: int
    """Index of the dynamic."""
    parameters: list[str]
    """Its own."""
    theta: np.ndarray
    """All parameters, (simulation, parameter)."""
    value: np.ndarray
    """(simulation, row)"""

    def position(self, program: Program, x: np.ndarray, those: np.ndarray) -> np.ndarray:
        """Share of draws of sets (set, island, draw, dimension) below the truth, (set, own parameter)."""
        theta = program.theta(x.reshape(-1, x.shape[-1]), self.label).reshape(len(x), -1, self.theta.shape[1])
        below = (theta < self.theta[those, None]).mean(axis=1)
        return below[:, [list(program.declared).index(n) for n in self.parameters]]


def simulate(program: Program, name: str, simulations: int, rng: np.random.Generator) -> Simulated:
    """Draw parameters of a dynamic from the prior, and the values of all rows from them."""
    k, declared = list(DYNAMICS).index(name), program.declared
    theta = program.theta(program.prior(k, int(rng.integers(2**31)), simulations), k)
    drawn = [
        model.simulate_rows(name, program.rows, dict(zip(declared, one, strict=True)), int(seed))
        for one, seed in zip(theta, rng.integers(2**31, size=simulations), strict=True)
    ]
    value = np.where(
        program.exact, [np.concatenate(parts) for parts in drawn], program.compiled.data["value"]
    )
    return Simulated(k, own_names(declared, name), theta, value)


def positions(
    program: Program,
    name: str,
    simulations: int,
    seed: int = 1,
    settings: inference.Settings = SETTINGS,
    report: inference.Progress | None = None,
) -> Found:
    """Simulate data from one dynamic at prior draws, fit it to them, many at a time, and look for the truth.

    Parameters
    ----------
    name
        The dynamic that is true.
    simulations
        Number of data sets.
    """
    rng = np.random.default_rng([seed, list(DYNAMICS).index(name)])
    made = simulate(program, name, simulations, rng)
    nothing, weight = np.zeros(len(program.rows)), program.exact.astype(float)
    shared = model.data_values(program.declared)
    position, log_evidence, done = [], [], 0
    for those, count in crowd.batches(simulations):
        start = _from_prior(program, made.label, int(rng.integers(2**31)), len(those), settings)
        step, seen = int(rng.integers(2**31)), {"value": made.value[those]}
        fit = crowd.advance(program.compiled, step, start, seen, nothing, weight, shared, settings)
        position.append(made.position(program, fit.draws[:count, 0], those[:count]))
        log_evidence.append(fit.log_evidence[:count])
        done += count
        if report:
            report(f"fitting simulated data of {name}", done / simulations)
    return Found(made.parameters, np.concatenate(position), np.concatenate(log_evidence))


def _from_prior(
    program: Program, label: int, seed: int, sets: int, settings: inference.Settings
) -> crowd.Crowd:
    """Prior draws of one dynamic for every data set, as many as are kept at a temperature."""
    islands, count = settings.islands, settings.chains * settings.steps * settings.sweeps
    x = program.prior(label, seed, sets * islands * count).reshape(sets, 1, islands, count, -1)
    return crowd.begin(x, FIRST_STEP, [label])


def weighed(
    program: Program,
    name: str,
    simulations: int,
    seed: int = 1,
    settings: inference.Settings = WEIGHED,
    report: inference.Progress | None = None,
) -> Found:
    """As `positions`, with all dynamics fitted to each data set, one set at a time, as `update` fits.

    A crowd that has to come from the prior takes longer, and its log evidence errs three times as much.

    Parameters
    ----------
    program
        Prepared for one at a time.
    """
    rng = np.random.default_rng([seed, list(DYNAMICS).index(name)])
    made = simulate(program, name, simulations, rng)
    shared = model.data_values(program.declared) | {"weight": program.exact.astype(float)}
    position, log_evidence = [], []
    for i, value in enumerate(made.value):
        own, fit_seed = {**shared, "value": value}, int(rng.integers(2**31))
        fit = inference.sample(program.compiled, fit_seed, settings, own, draw_prior=program.draw_prior)
        position.append(made.position(program, fit.draws[None, made.label], np.array([i])))
        log_evidence.append(fit.log_evidence)
        if report:
            report(f"fitting simulated data of {name}", (i + 1) / simulations)
    return Found(made.parameters, np.concatenate(position), np.array(log_evidence))


def coverage(position: np.ndarray, level: float) -> np.ndarray:
    """Whether the central interval of a level holds the truth, for positions of any shape."""
    return np.abs(2 * np.asarray(position) - 1) <= level


def record(name: str, found: Found, roles: Mapping[str, str]) -> dict[str, Any]:
    """What the fits of data simulated from one dynamic say of its calibration.

    Returns
    -------
    dict
        ``dynamic``, ``simulations``, ``coverage`` (level -> share of all truths, with ``se`` over
        simulations), ``inside`` (share of parameters whose curve of positions lies in its simultaneous band),
        ``beyond`` (names of those that leave the wider band which holds all curves at once),
        ``parameters`` (list of ``name``, ``role``, ``inside``, ``coverage`` of 80 % and ``positions``), and
        ``log_evidence``, as in `Found`, None where a fit failed, empty where no other dynamic was fitted.
    """
    parameters, position, log_evidence = found
    # The band that holds all curves is by Bonferroni.
    inside, together = (_in_band(position, p) for p in (BAND, 1 - (1 - BAND) / len(parameters)))
    each = []
    for j, parameter in enumerate(parameters):
        each.append(
            {
                "name": parameter,
                "role": roles[parameter],
                "inside": bool(inside[j]),
                "coverage": float(coverage(position[:, j], 0.8).mean()),
                "positions": [round(float(u), 4) for u in position[:, j]],
            }
        )
    levels = {}
    for level in LEVELS:
        # Parameters of one data set are not independent, data sets are.
        held, se = mean(coverage(position, level).mean(axis=1))
        levels[f"{level:g}"] = {"value": held, "se": se}
    return {
        "dynamic": name,
        "simulations": len(position),
        "coverage": levels,
        "inside": float(inside.mean()),
        "beyond": [n for n, held in zip(parameters, together, strict=True) if not held],
        "parameters": each,
        "log_evidence": runs.listed(log_evidence) if log_evidence.shape[1] > 1 else [],
    }


def error_of_truth(p: np.ndarray, log_evidence: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Monte Carlo errors of the truth's log probability, to first order, (set, ...).

    The gradient of log p_t in the log evidence of dynamic k is [k = t] - p_k.  Where the dynamics are far
    apart their Bayes factors err by nats and this hardly at all.

    Parameters
    ----------
    p
        Probability of each dynamic, (set, ..., dynamic).
    log_evidence
        As jackknife pseudo-values, (set, ..., dynamic, island).
    truth
        Index of the true one, (set,).
    """
    true = np.eye(p.shape[-1])[truth].reshape(len(truth), *[1] * (p.ndim - 2), -1)
    return evidence.mean_evidence(((true - p)[..., None] * log_evidence).sum(axis=-2))[1]


@lru_cache
def band(size: int, probability: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The simultaneous band of a curve of positions (Sailynoja, Buerkner & Vehtari 2022).

    Parameters
    ----------
    size
        Number of positions.
    probability
        With which the whole curve of a calibrated parameter lies inside.

    Returns
    -------
    tuple of ndarray
        Positions, and the ends of the band for the share of truths at or below each, (point,) each.
    """
    from arviz_stats.ecdf_utils import ecdf_pit

    at, _, low, high = ecdf_pit(np.zeros(size), probability, WIDTHS, rng=np.random.default_rng(1))
    return at[1:-1], low[1:-1], high[1:-1]


def _in_band(position: np.ndarray, probability: float) -> np.ndarray:
    """Whether each curve of positions (simulation, parameter) lies in its `band`, (parameter,)."""
    at, low, high = band(len(position), probability)
    curve = (position[:, :, None] <= at).mean(axis=0)
    return np.asarray(((low <= curve) & (curve <= high)).all(axis=1))


def mean(value: np.ndarray) -> tuple[float, float]:
    """Mean of what counts alike, and its standard error."""
    return float(value.mean()), float(value.std(ddof=1) / np.sqrt(len(value)))


def reliability(
    p: np.ndarray, truth: np.ndarray, weight: np.ndarray, edges: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """How often a dynamic that was given a probability is true, by ranges of probability.

    The ranges are deciles of what was believed (Hosmer & Lemeshow 1980), each with a tenth of the weight, so
    that all are tested as sharply.

    Parameters
    ----------
    p
        Probability of each dynamic, (world, dynamic).
    truth
        Index of the true one, (world,).
    weight
        What each world counts, (world,).
    edges
        Ends of other ranges; an upper one belongs to the next range.

    Returns
    -------
    list of dict
        ``low``, ``high``, ``believed``, ``true``, ``se`` and ``worlds`` (effective number) of each range
        that any world fell in.
    """
    true = np.arange(p.shape[1]) == truth[:, None]
    if edges is None:
        known = np.isfinite(p)
        each = np.broadcast_to(weight[:, None], p.shape)[known]
        inner = np.quantile(p[known], TENTHS[1:-1], weights=each, method="inverted_cdf")
        edges = np.unique([0.0, *inner, np.inf])
    found = []
    for low, high in pairwise(edges):
        inside = (p >= low) & (p < high)
        w = np.where(inside, weight[:, None], 0.0)
        if not w.sum() > 0:
            continue
        often, se = share(true, w)
        found.append(
            {
                "low": float(low),
                "high": float(min(high, 1.0)),
                "believed": float(w[inside] @ p[inside] / w.sum()),
                "true": often,
                "se": se,
                "worlds": _size(w),
            }
        )
    return found


def share(holds: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted share of what holds, and its binomial error; NaN if nothing counts.

    The error is that with one more that holds and one more that does not, so that it is never 0.
    """
    if not weight.sum() > 0:
        return np.nan, np.nan
    found, size = float((weight * holds).sum() / weight.sum()), _size(weight)
    smooth = (found * size + 1) / (size + 2)
    return found, float(np.sqrt(smooth * (1 - smooth) / size))


def _size(weight: np.ndarray) -> float:
    """Effective number of what is weighted (Kish 1965)."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def slope(
    before: np.ndarray, after: np.ndarray, truth: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """Factor of the evidence with which beliefs fit truths best, and its standard error (Cox 1958).

    The maximum over b of sum w log p_truth, where p is proportional to before^(1 - b) after^b: 1 for a
    calibrated engine, less for one that is too sure; NaN where no finite b is best.

    Parameters
    ----------
    before, after
        Log probability of each dynamic, (dynamic,) and (world, dynamic).
    truth
        Index of the true one, (world,).
    weight
        What each world counts, (world,).
    """
    possible, each = np.isfinite(before), np.arange(len(after))
    added = np.where(possible, after - np.where(possible, before, 0.0), 0.0)

    def pull(b: float) -> tuple[np.ndarray, np.ndarray]:
        """Slope of each world's log p_truth, and how much it bends."""
        p = softmax(before + b * added, axis=1)
        mean = (p * added).sum(axis=1)
        return added[each, truth] - mean, (p * (added - mean[:, None]) ** 2).sum(axis=1)

    if not weight @ pull(0.0)[0] > 0 > weight @ pull(STEEPEST)[0]:
        return np.nan, np.nan
    best = float(brentq(lambda b: weight @ pull(b)[0], 0.0, STEEPEST))
    first, second = pull(best)
    return best, float(np.sqrt((weight**2) @ first**2) / (weight @ second))
