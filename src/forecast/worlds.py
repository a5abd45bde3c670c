"""Simulated worlds: one dynamic is true in each, its future rows are published, and the engine sees them.

What is true is drawn from stored posterior draws; half of the islands make worlds, and the engine starts from
the other half, so that no truth is among the draws it knows.  Early dates are met by reweighting these draws,
later ones by stepping from date to date, as a history does, many worlds at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from forecast import batch, crowd, frozen, inference, model, prediction, readings, runs, scenarios, selection
from forecast.absorption import pseudo_values
from forecast.accounts import Posterior, Run
from forecast.compilation import Compiled, compile_model, finite
from forecast.disclosure import Plan
from forecast.dynamics import DYNAMICS
from forecast.laws import Law, Observed
from forecast.particles import effective_share

SETTINGS = inference.Settings(islands=4, chains=16, final_sweeps=1)
"""Size of a step in a simulated world."""
LEAST = 0.2
"""Effective share of the stored draws of each dynamic below which they are stepped rather than reweighted."""


class Worlds(NamedTuple):
    """What is true in each simulated world, and what is published there."""

    dynamic: np.ndarray
    """Index of the true dynamic, (world,); as many worlds of each."""
    value: np.ndarray
    """Values of every row of a plan on the scale of its law, (world, row)."""
    passage: dict[str, np.ndarray]
    """First passage of each milestone, calendar years, inf for never, (world,) each."""
    theta: tuple[dict[str, np.ndarray], ...]
    """Parameters of the true dynamic, by dynamic, (its worlds,) each."""


@dataclass(frozen=True)
class Setup:
    """What all worlds of a run and a plan share."""

    run: Run
    plan: Plan
    known: dict[str, Posterior]
    """Stored draws of each dynamic with prior draws of parameters that only planned rows have."""
    compiled: Compiled
    start: inference.Fit
    """Draws the engine starts from; its evidence is 0, so that later evidence is what was added."""
    priors: dict[str, np.ndarray]
    planned: np.ndarray
    """Which rows of the model are planned ones, (row,)."""
    laws: tuple[Sequence[tuple[Law, Observed]], ...]
    """Laws of the planned rows at the draws the engine starts from, (draw, row), by dynamic."""

    @property
    def half(self) -> int:
        """Number of islands the engine starts from; the others make worlds."""
        return self.start.draws.shape[1]


def prepare(run: Run, plan: Plan, report: inference.Progress | None = None) -> Setup:
    """Compile the model of today's rows and of all planned ones, and place the stored draws in it."""
    if report:
        report("compiling", 0.0)
    rows = selection.in_order(pd.concat([run.rows.assign(series=""), plan.rows], ignore_index=True))
    declared = batch.declared_parameters(rows, run.worldview)
    compiled = compile_model(batch.joint_model(rows, declared), crowd.OWN)
    known = {
        name: scenarios.extended(stored, name, run, plan.rows, seed)
        for seed, (name, stored) in enumerate(run.posteriors.items(), start=1)
    }
    nothing = np.zeros_like(run.log_evidence)
    start = frozen.placed(known, declared, rows, nothing, np.zeros_like(run.one_shot), 1)
    islands, count = start.draws.shape[1:3]
    # An even number, as islands move in coordinates learnt from the other half.
    half = islands // 4 * 2
    start = start._replace(draws=start.draws[:, :half], log_evidence=nothing[:, :half])
    planned = rows["series"].ne("").to_numpy()
    laws = tuple(
        _laws(name, plan.rows, {n: v[: half * count] for n, v in mine.theta.items()})
        for name, mine in known.items()
    )
    return Setup(run, plan, known, compiled, start, model.data_values(declared), planned, laws)


def _laws(name: str, rows: pd.DataFrame, theta: Mapping[str, np.ndarray]) -> list[tuple[Law, Observed]]:
    """Law of each row at each draw, every field (draw, row)."""
    many = readings.at_draws(name, theta, model.fit_grid(rows))
    return [(type(law)(*np.broadcast_arrays(*law)), seen) for law, seen in readings.laws(rows, many)]


def simulate(setup: Setup, milestones: Mapping[str, prediction.Milestone], count: int, seed: int) -> Worlds:
    """Draw worlds, `count` of each dynamic, and the values of all planned rows in them."""
    rows, value, passage, theta = setup.plan.rows, [], [], []
    for k, (name, mine) in enumerate(setup.known.items()):
        rng = np.random.default_rng([seed, k])
        islands, draws = mine.scores.shape[:2]
        free = np.arange(setup.half * draws, islands * draws)
        chosen = rng.choice(free, count, replace=count > len(free))
        true = {n: x[chosen] for n, x in mine.theta.items()}
        drawn = [law.draw(rng, seen) for law, seen in _laws(name, rows, true)]
        value.append(np.concatenate(drawn, axis=1))
        passage.append(_passages(name, true, milestones))
        theta.append(true)
    return Worlds(
        np.repeat(np.arange(len(setup.known)), count),
        np.concatenate(value),
        {m: np.concatenate([p[m] for p in passage]) for m in passage[0]},
        tuple(theta),
    )


def passages(
    setup: Setup, milestones: Mapping[str, prediction.Milestone]
) -> dict[str, dict[str, np.ndarray]]:
    """First passages of every dynamic at all stored draws: dynamic -> milestone -> (draw,)."""
    return {name: _passages(name, mine.theta, milestones) for name, mine in setup.known.items()}


def _passages(
    name: str, theta: Mapping[str, np.ndarray], milestones: Mapping[str, prediction.Milestone]
) -> dict[str, np.ndarray]:
    known = {m: one for m, one in milestones.items() if one.needs <= set(theta)}
    found = prediction.predict(name, theta, known)["passage"]
    return {m: found.sel(milestone=m).values.ravel() for m in known}


def follow(
    setup: Setup,
    value: np.ndarray,
    tiers: Sequence[str],
    days: Sequence[pd.Timestamp],
    seed: str,
    settings: inference.Settings = SETTINGS,
) -> np.ndarray:
    """What the engine learns in some worlds that move together, tier by tier and day by day.

    Parameters
    ----------
    value
        Of every planned row, (world, row); an even number of worlds.
    seed
        Words from which the seed of each step is made.

    Returns
    -------
    ndarray
        Log evidence of the rows published since today as jackknife pseudo-values, nats,
        (world, tier, day, dynamic, island).
    """
    plan, half, size = setup.plan, setup.half, len(value)
    # At the draws the engine starts from, (world, dynamic, draw, row).
    each = np.array([[_log_likelihood(pairs, v) for pairs in setup.laws] for v in value])
    found = np.zeros((size, len(tiers), len(days), len(DYNAMICS), half))
    observed = np.tile(setup.compiled.data["value"], (size, 1))
    observed[:, setup.planned] = value

    def weight(counted: np.ndarray) -> np.ndarray:
        one = np.ones(len(setup.planned))
        one[setup.planned] = counted
        return one

    nothing = np.zeros(len(plan.rows), bool)
    for t, tier in enumerate(tiers):
        # The draws at hand, the rows they have seen, and those that were published on the day before.
        many, seen, last = None, nothing, nothing
        for d, day in enumerate(days):
            counted = plan.counted(tier, day)
            if np.array_equal(counted, last):
                found[:, t, d] = found[:, t, d - 1] if d else 0.0
                continue
            last, change = counted, None
            if many is None:
                change = each[..., counted].sum(-1).reshape(size, len(DYNAMICS), half, -1)
                if min(effective_share(x) for world in change for x in world) >= LEAST:
                    found[:, t, d] = [[pseudo_values(_log_mean, x) for x in world] for world in change]
                    continue
                many = _start(setup, size)
            step = runs.seed_of(f"{seed} {tier} {day:%Y-%m-%d}")
            many = crowd.advance(
                setup.compiled,
                step,
                many,
                observed,
                weight(seen),
                weight(counted),
                setup.priors,
                settings,
                change,
            )
            found[:, t, d], seen = many.log_evidence, counted
    return found


def _start(setup: Setup, size: int) -> crowd.Crowd:
    """The draws the engine starts from, in each of some worlds."""
    known = setup.start.draws, setup.start.log_evidence
    draws, evidence = (np.broadcast_to(x, (size, *x.shape)) for x in known)
    return crowd.Crowd(draws, evidence, setup.start.step_size)


def _log_likelihood(pairs: Sequence[tuple[Law, Observed]], value: np.ndarray) -> np.ndarray:
    return finite(np.asarray(model.log_likelihood(pairs, value)))


def _log_mean(log_ratio: np.ndarray) -> float:
    return float(logsumexp(log_ratio) - np.log(len(log_ratio)))


def follow_all(
    setup: Setup,
    worlds: Worlds,
    tiers: Sequence[str],
    days: Sequence[pd.Timestamp],
    seed: int,
    settings: inference.Settings = SETTINGS,
    report: inference.Progress | None = None,
) -> np.ndarray:
    """`follow` every world, (world, tier, day, dynamic, island)."""
    size = len(worlds.dynamic)
    found = np.zeros((size, len(tiers), len(days), len(DYNAMICS), setup.half))
    done = 0
    for those, count in crowd.batches(size):
        seen = follow(setup, worlds.value[those], tiers, days, f"{seed} worlds from {done}", settings)
        found[done : done + count] = seen[:count]
        done += count
        if report:
            report("following worlds", done / size)
    return found


def half_years(as_of: str, end: str) -> list[pd.Timestamp]:
    """First days of January and July from a month after a day to another day."""
    first = pd.Timestamp(as_of) + pd.Timedelta(days=31)
    return [day for day in pd.date_range(first, end, freq="MS") if day.month in (1, 7)]
