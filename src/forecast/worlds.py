"""Simulated worlds: one dynamic is true in each, its future rows are published, and the engine sees them.

What is true is drawn from stored posterior draws; half of the islands make worlds, and the engine starts from
the other half, so that no truth is among the draws it knows.  It steps from date to date, as a history does,
and from one policy to the next, many worlds at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from forecast import (
    batch,
    crowd,
    free_values,
    frozen,
    inference,
    model,
    prediction,
    readings,
    runs,
    scenarios,
    selection,
)
from forecast import deviation as dev
from forecast.accounts import Posterior, Run
from forecast.compilation import Compiled, compile_model
from forecast.disclosure import Plan
from forecast.dynamics import DYNAMICS, HYBRID, Dynamic
from forecast.priors import Parameter
from forecast.sweeps import FIRST_STEP

SETTINGS = inference.Settings(islands=4, chains=32, final_sweeps=1, ess=0.4)
"""Size of a step in a simulated world."""
START = 64
"""Stored draws of each dynamic and island that a world starts from."""


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
    rows: pd.DataFrame
    """Of the model."""
    declared: dict[str, Parameter]
    start: np.ndarray
    """Unconstrained draws the engine starts from at today's ``centring``, (dynamic, island, draw, ...)."""
    planned: np.ndarray
    """Which rows of the model are planned ones, (row,)."""

    @property
    def half(self) -> int:
        """Number of islands the engine starts from; the others make worlds."""
        return self.start.shape[1]

    def weight(self, counted: np.ndarray) -> np.ndarray:
        """Weights of the model's rows where some planned ones count, (row,)."""
        one = np.ones(len(self.rows))
        one[self.planned] = counted
        return one


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
    planned = rows["series"].ne("").to_numpy()
    today = dev.centring(rows, (~planned).astype(float))
    start = frozen.placed(known, declared, rows, run.log_evidence, run.one_shot, 1, today).draws
    # The other half of the islands makes worlds.
    return Setup(run, plan, known, compiled, rows, declared, start[:, : start.shape[1] // 2], planned)


def _published(
    dynamic: Dynamic, rows: pd.DataFrame, theta: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Values of rows drawn at each draw of the parameters, on the scale of their laws, (draw, row)."""
    laws = readings.laws(rows, readings.at_draws(dynamic, theta, model.fit_grid(rows)))
    drawn = [type(law)(*np.broadcast_arrays(*law)).draw(rng, seen) for law, seen in laws]
    return np.concatenate(drawn, axis=1)


def simulate(setup: Setup, milestones: Mapping[str, prediction.Milestone], count: int, seed: int) -> Worlds:
    """Draw worlds, `count` of each dynamic, and the values of all planned rows in them."""
    rows, value, passage, theta = setup.plan.rows, [], [], []
    for k, (name, mine) in enumerate(setup.known.items()):
        rng = np.random.default_rng([seed, k])
        true = _truths(setup, mine, count, rng)
        value.append(_published(DYNAMICS[name], rows, true, rng))
        passage.append(_passages(name, true, milestones))
        theta.append(true)
    return Worlds(
        np.repeat(np.arange(len(setup.known)), count),
        np.concatenate(value),
        {m: np.concatenate([p[m] for p in passage]) for m in passage[0]},
        tuple(theta),
    )


def _truths(setup: Setup, mine: Posterior, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Stored draws of a dynamic that the engine does not start from, (world,) each."""
    islands, draws = mine.scores.shape[:2]
    free = np.arange(setup.half * draws, islands * draws)
    chosen = rng.choice(free, count, replace=count > len(free))
    return {n: x[chosen] for n, x in mine.theta.items()}


def simulate_hybrid(setup: Setup, count: int, seed: int) -> np.ndarray:
    """Values of all planned rows in worlds where none of the dynamics is true but `HYBRID`, (world, row).

    They are draws of `expanding_pie` with the share never automated of draws of `amdahl`.
    """
    rng = np.random.default_rng([seed, len(DYNAMICS)])
    parts = [_truths(setup, setup.known[name], count, rng) for name in ("amdahl", "expanding_pie")]
    return _published(HYBRID, setup.plan.rows, {**parts[0], **parts[1]}, rng)


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
    """What the engine learns in some worlds that move together, day by day and tier by tier.

    A tier is stepped to from the draws that have seen rows most like its own: those of its day before, or
    those of another tier on the same day.

    Parameters
    ----------
    value
        Of every planned row, (world, row).
    seed
        Words from which the seed of each step is made.

    Returns
    -------
    ndarray
        Log evidence of the rows published since today as jackknife pseudo-values, nats,
        (world, tier, day, dynamic, island).
    """
    size = len(value)
    observed = np.tile(setup.compiled.data["value"], (size, 1))
    observed[:, setup.planned] = value
    found = np.zeros((size, len(tiers), len(days), *setup.start.shape[:2]))
    nothing = np.zeros(len(setup.plan.rows), bool)
    start = nothing, _start(setup, size, runs.seed_of(f"{seed} start"))
    latest = dict.fromkeys(tiers, start)
    for d, day in enumerate(days):
        today = [start]
        for t, tier in enumerate(tiers):
            counted = setup.plan.counted(tier, day)
            seen, many = min((*today, latest[tier]), key=lambda one: (one[0] != counted).sum())
            if not np.array_equal(seen, counted):
                step = runs.seed_of(f"{seed} {tier} {day:%Y-%m-%d}")
                many = _step(setup, many, observed, seen, counted, step, settings)
            found[:, t, d], latest[tier] = many.log_evidence, (counted, many)
            today.append(latest[tier])
    return found


def _start(setup: Setup, size: int, seed: int) -> crowd.Crowd:
    """In each of some worlds, some of the draws the engine starts from."""
    rng = np.random.default_rng(seed)
    K, islands, count, _ = setup.start.shape
    some = rng.integers(count, size=(size, K, islands, START, 1))
    return crowd.begin(np.take_along_axis(setup.start[None], some, axis=3), FIRST_STEP)


def _step(
    setup: Setup,
    many: crowd.Crowd,
    observed: np.ndarray,
    seen: np.ndarray,
    counted: np.ndarray,
    seed: int,
    settings: inference.Settings,
) -> crowd.Crowd:
    """Step from some planned rows that count to others, in the coordinates of the latter."""
    old, new = setup.weight(seen), setup.weight(counted)
    ways = dev.centring(setup.rows, old), dev.centring(setup.rows, new)
    if not np.array_equal(*ways):
        many = crowd.recast(many, free_values.recentrings(setup.declared, setup.rows, *ways))
    shared = model.data_values(setup.declared) | {"centring": ways[1]}
    return crowd.advance(setup.compiled, seed, many, observed, old, new, shared, settings)


def follow_all(
    setup: Setup,
    value: np.ndarray,
    tiers: Sequence[str],
    days: Sequence[pd.Timestamp],
    seed: int,
    kept: Path,
    report: inference.Progress | None = None,
) -> np.ndarray:
    """`follow` every world, of values (world, row): (world, tier, day, dynamic, island).

    Batches that were finished are in the folder `kept`, and those not found there are made and put there.
    """
    size = len(value)
    found = np.zeros((size, len(tiers), len(days), len(DYNAMICS), setup.half))
    done = 0
    for those, count in crowd.batches(size):
        words = f"{seed} worlds from {done}"
        make = partial(_as_lists, setup, value[those], tiers, days, words)
        seen = np.array(runs.once(kept / f"{done}.json", make), float)
        found[done : done + count] = seen[:count]
        done += count
        if report:
            report("following worlds", done / size)
    return found


def _as_lists(*of: Any) -> Any:
    """`follow`, as JSON has it: None where a step failed."""
    found = follow(*of)
    listed = found.astype(object)
    listed[~np.isfinite(found)] = None
    return listed.tolist()


def dates(as_of: str, end: str, months: Collection[int] = (1, 7)) -> list[pd.Timestamp]:
    """First days of some months, January and July by default, from a month after a day to another day."""
    first = pd.Timestamp(as_of) + pd.Timedelta(days=31)
    return [day for day in pd.date_range(first, end, freq="MS") if day.month in months]
