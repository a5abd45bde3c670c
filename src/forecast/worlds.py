"""Simulated worlds: one dynamic is true in each, its future rows are published, and the engine sees them.

What is true is drawn from stored posterior draws; half of the islands make worlds, and the engine starts from
the other half, so that no truth is among the draws it knows.  Simulated values are read as data are: one that
is beyond what a series can tell is a bound, and a score near the best one says little.  The engine steps from
date to date, as a history does, and from one policy to the next, many worlds at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

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
    vintages,
)
from forecast import deviation as dev
from forecast import observation as obs
from forecast.accounts import Posterior, Run
from forecast.compilation import Compiled, compile_model
from forecast.disclosure import Plan, ends
from forecast.dynamics import DYNAMICS, HYBRID, Dynamic
from forecast.indicators import INDICATORS, prepared
from forecast.laws import Observed
from forecast.priors import Parameter
from forecast.sweeps import FIRST_STEP

OWN = (*crowd.OWN, "score_se")
"""Data of the model of which each particle gets its own."""
SETTINGS = inference.Settings(islands=4, chains=64, final_sweeps=1, ess=0.4)
"""Size of a step in a simulated world."""
START = 128
"""Stored draws of each dynamic and island that a world starts from."""


class Published(NamedTuple):
    """What is published in simulated worlds, for every row of a plan, (world, row) each."""

    value: np.ndarray
    """On the scale of the row's law."""
    score_se: np.ndarray
    """Standard errors of scores, as in `model.laws`; 0 for other rows."""
    side: np.ndarray
    """1 where all that is known is that the value is above the most that can be told, -1 where it is below
    the least, 0 where the value is known."""

    def of(self, some: np.ndarray) -> Published:
        """Of some worlds alone."""
        return Published(*(x[some] for x in self))


class Worlds(NamedTuple):
    """What is true in each simulated world, and what is published there."""

    dynamic: np.ndarray
    """Index of the true dynamic, (world,); as many worlds of each."""
    published: Published
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
    changing: crowd.Changing
    """The planned rows."""
    rows: pd.DataFrame
    """Of the model."""
    declared: dict[str, Parameter]
    start: np.ndarray
    """Unconstrained draws the engine starts from at today's ``centring``, (dynamic, island, draw, ...)."""
    origin: np.ndarray
    """Place in the plan of each row of the model, -1 for today's, (row,)."""
    side: np.ndarray
    """Which rows of the model stand for values above the most, 1, or below the least, -1, (row,)."""
    limit: np.ndarray
    """The most or the least that these can tell, on the scale of their law, (row,)."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the run and the plan, and compiles for itself."""
        return _prepared, (self.run, self.plan)

    @property
    def half(self) -> int:
        """Number of islands the engine starts from; the others make worlds."""
        return self.start.shape[1]

    def on_rows(self, planned: np.ndarray, today: np.ndarray) -> np.ndarray:
        """Values for the model's rows, (..., row), from those of planned rows (..., row) and of today's."""
        return np.where(self.origin < 0, today, planned[..., self.origin])

    def counts(self, counted: np.ndarray) -> np.ndarray:
        """Which of the model's rows count where some planned ones do, as 0 and 1, (row,)."""
        return self.on_rows(counted, np.ones(len(self.rows)))

    def weight(self, counted: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Weights of the model's rows where some planned ones count, (world, row).

        Of a row that can be out of range either the value counts or a bound.

        Parameters
        ----------
        counted
            Planned rows that do, (row,).
        side
            As in `Published`.
        """
        return self.counts(counted) * (self.on_rows(side, self.side) == self.side)


def prepare(run: Run, plan: Plan, report: inference.Progress | None = None) -> Setup:
    """Compile the model of today's rows and of all planned ones, and place the stored draws in it."""
    if report:
        report("compiling", 0.0)
    planned = plan.rows.assign(origin=np.arange(len(plan.rows)), side=0)
    stored = run.rows.assign(origin=-1, side=0)
    least, most = limits = ends(planned)
    rows = selection.in_order(pd.concat([stored, planned, *_bounds(planned, limits)], ignore_index=True))
    declared = batch.declared_parameters(rows, run.worldview)
    origin, side = (rows[c].to_numpy() for c in ("origin", "side"))
    compiled, new = (
        compile_model(batch.joint_model(some, declared, score_se=prepared(some).se_low), OWN)
        for some in (rows, rows[origin >= 0])
    )
    known = {
        name: scenarios.extended(stored, name, run, plan.rows, seed)
        for seed, (name, stored) in enumerate(run.posteriors.items(), start=1)
    }
    today = dev.centring(rows, (origin < 0).astype(float))
    start = frozen.placed(known, declared, rows, run.log_evidence, run.one_shot, 1, today).draws
    # The other half of the islands makes worlds.
    start = start[:, : start.shape[1] // 2]
    changing = crowd.Changing(new, np.flatnonzero(origin >= 0))
    # Where a score stops being told is in the row itself.
    end = np.where(side > 0, most[origin], least[origin])
    limit = np.where(np.isfinite(end), end, compiled.data["value"])
    return Setup(run, plan, known, compiled, changing, rows, declared, start, origin, side, limit)


_SETUPS: dict[str, Setup] = {}
"""Of the run and plan that this process was handed last."""


def _prepared(run: Run, plan: Plan) -> Setup:
    """`prepare`, once for all that a process is handed of a run and a plan."""
    key = f"{run.folder} {run.manifest['content_hash']} {vintages.data_hash(plan.rows)}"
    if key not in _SETUPS:
        _SETUPS.clear()
        _SETUPS[key] = prepare(run, plan)
    return _SETUPS[key]


def _bounds(planned: pd.DataFrame, limits: np.ndarray) -> list[pd.DataFrame]:
    """For each planned row that some value would turn into a bound, that bound; limits are its `ends`."""
    least, most = limits
    turned = _is_read(planned, obs.speed_up)
    low, high = np.where(turned, "lower", "upper"), np.where(turned, "upper", "lower")
    return [
        planned.assign(side=-1, bound=low)[np.isfinite(least)],
        planned.assign(side=1, bound=high)[np.isfinite(most)],
        planned.assign(side=1, value=100.0)[_is_read(planned, obs.scores)],
    ]


def _is_read(rows: pd.DataFrame, prepare: Callable[[pd.DataFrame], Observed]) -> np.ndarray:
    """Which rows become observations by one of the ways in `observation`, (row,)."""
    return np.array([INDICATORS[n].prepare is prepare for n in rows["indicator"]], bool)


def publish(
    dynamic: Dynamic, rows: pd.DataFrame, theta: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Published:
    """What a plan's rows would say at each draw of the parameters of a dynamic."""
    laws = readings.laws(rows, readings.at_draws(dynamic, theta, model.fit_grid(rows)))
    (least, most), parts, first = ends(rows), list[Published](), 0
    for law, seen in laws:
        mine = slice(first, first := first + len(seen.low))
        prepare = INDICATORS[str(rows["indicator"].iat[mine.start])].prepare
        one = type(law)(*np.broadcast_arrays(*law))
        if prepare is obs.scores:
            parts.append(Published(*_scores(one, seen, rng)))
            continue
        value = one.draw(rng, seen)
        side = (value > most[mine]).astype(int) - (value < least[mine])
        parts.append(Published(value, np.zeros(value.shape), side))
    return Published(*(np.concatenate(x, axis=1) for x in zip(*parts, strict=True)))


def _scores(law: Any, seen: Observed, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores from the number of items solved, as `observation.solved` reads it."""
    # What a law adds to the sampling error is there before items are counted.
    spread = np.sqrt(np.maximum(law.sd**2 - seen.se_low**2, 0.0))
    share = obs.BEST_SCORE * expit(law._replace(sd=spread).draw(rng, seen))
    value, se, full = obs.solved(rng.binomial(seen.n.astype(int), share), seen.n)
    return value, se, full.astype(int)


def simulate(setup: Setup, milestones: Mapping[str, prediction.Milestone], count: int, seed: int) -> Worlds:
    """Draw worlds, `count` of each dynamic, and the values of all planned rows in them."""
    rows, published, passage, theta = setup.plan.rows, [], [], []
    for k, (name, mine) in enumerate(setup.known.items()):
        rng = np.random.default_rng([seed, k])
        true = _truths(setup, mine, count, rng)
        published.append(publish(DYNAMICS[name], rows, true, rng))
        passage.append(_passages(name, true, milestones))
        theta.append(true)
    return Worlds(
        np.repeat(np.arange(len(setup.known)), count),
        joined(*published),
        {m: np.concatenate([p[m] for p in passage]) for m in passage[0]},
        tuple(theta),
    )


def joined(*parts: Published) -> Published:
    """Worlds one after the other."""
    return Published(*map(np.concatenate, zip(*parts, strict=True)))


def _truths(setup: Setup, mine: Posterior, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Stored draws of a dynamic that the engine does not start from, (world,) each."""
    islands, draws = mine.scores.shape[:2]
    free = np.arange(setup.half * draws, islands * draws)
    chosen = rng.choice(free, count, replace=count > len(free))
    return {n: x[chosen] for n, x in mine.theta.items()}


def simulate_hybrid(setup: Setup, count: int, seed: int) -> Published:
    """What is published in worlds where none of the dynamics is true but `HYBRID`.

    They are draws of `expanding_pie` with the share never automated of draws of `amdahl`.
    """
    rng = np.random.default_rng([seed, len(DYNAMICS)])
    parts = [_truths(setup, setup.known[name], count, rng) for name in ("amdahl", "expanding_pie")]
    return publish(HYBRID, setup.plan.rows, {**parts[0], **parts[1]}, rng)


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
    published: Published,
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
    published
        In these worlds.
    seed
        Words from which the seed of each step is made.

    Returns
    -------
    ndarray
        Log evidence of the rows published since today as jackknife pseudo-values, nats,
        (world, tier, day, dynamic, island).
    """
    size, data = len(published.value), data_of(setup, published)
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
                many = _step(setup, many, data, published.side, (seen, counted), step, settings)
            found[:, t, d], latest[tier] = many.log_evidence, (counted, many)
            today.append(latest[tier])
    return found


def data_of(setup: Setup, published: Published) -> dict[str, np.ndarray]:
    """Data of the model in each of some worlds but weights: name -> (world, row)."""
    own = setup.compiled.data
    value = np.where(setup.side != 0, setup.limit, setup.on_rows(published.value, own["value"]))
    return {"value": value, "score_se": setup.on_rows(published.score_se, own["score_se"])}


def _start(setup: Setup, size: int, seed: int) -> crowd.Crowd:
    """In each of some worlds, some of the draws the engine starts from."""
    rng = np.random.default_rng(seed)
    K, islands, count, _ = setup.start.shape
    some = rng.random((size, K, islands, count, 1)).argsort(axis=3)[:, :, :, :START]
    return crowd.begin(np.take_along_axis(setup.start[None], some, axis=3), FIRST_STEP)


def _step(
    setup: Setup,
    many: crowd.Crowd,
    data: Mapping[str, np.ndarray],
    side: np.ndarray,
    counted: tuple[np.ndarray, np.ndarray],
    seed: int,
    settings: inference.Settings,
) -> crowd.Crowd:
    """Step from some planned rows that count to others, in the coordinates of the latter."""
    old, new = (setup.weight(c, side) for c in counted)
    ways = [dev.centring(setup.rows, setup.counts(c)) for c in counted]
    if not np.array_equal(ways[0], ways[1]):
        many = crowd.recast(many, free_values.recentrings(setup.declared, setup.rows, *ways))
    shared = model.data_values(setup.declared) | {"centring": ways[1]}
    return crowd.advance(setup.compiled, seed, many, data, old, new, shared, settings, setup.changing)


def follow_all(
    setup: Setup,
    published: Published,
    tiers: Sequence[str],
    days: Sequence[pd.Timestamp],
    seed: int,
    kept: Path,
    report: inference.Progress | None = None,
    each: Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]] = starmap,
) -> np.ndarray:
    """`follow` every world: (world, tier, day, dynamic, island).

    Parameters
    ----------
    kept
        Folder with the batches that were finished; those not found there are made and put there.
    each
        What calls a function with each of some arguments: `itertools.starmap`, or `workers.spread`.
    """
    size = len(published.value)
    every = {int(those[0]): those for those, _ in crowd.batches(size)}
    place = {first: kept / f"{first}.json" for first in every}
    done = {first: seen for first, path in place.items() if (seen := runs.recall(path)) is not None}
    jobs = [
        (setup, published.of(those), tiers, days, f"{seed} worlds from {first}", place[first], first)
        for first, those in every.items()
        if first not in done
    ]
    for first, seen in each(_follow, jobs):
        done[first] = seen
        if report:
            report("following worlds", len(done) / len(every))
    # The last batch is filled up.
    return np.concatenate([np.array(done[first], float) for first in every])[:size]


def _follow(
    setup: Setup,
    published: Published,
    tiers: Sequence[str],
    days: Sequence[pd.Timestamp],
    seed: str,
    path: Path,
    first: int,
) -> tuple[int, Any]:
    """`follow` one batch and keep what was learnt, as JSON has it: None where a step failed."""
    kept = runs.listed(follow(setup, published, tiers, days, seed))
    runs.remember(path, kept)
    return first, kept


def dates(as_of: str, count: int, months: Collection[int] = (1, 7)) -> list[pd.Timestamp]:
    """First days of the next Januaries and Julys, or of other months, from a month after a day on."""
    first = pd.Timestamp(as_of) + pd.Timedelta(days=31)
    every = pd.date_range(first, periods=12 * count, freq="MS")
    return [day for day in every if day.month in months][:count]
