"""What simulated worlds say of disclosure: information gained, when dynamics are told apart, and how early.

Every figure is a mean over worlds, each counted with its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betainc

from forecast import beliefs, calibration, evidence, inference, worlds
from forecast.accounts import Run
from forecast.beliefs import Seen
from forecast.disclosure import Plan
from forecast.dynamics import DYNAMICS
from forecast.schema import InputError

BARS = (10.0, 100.0)
"""Bayes factors at which a dynamic counts as told apart from another."""
EXPLOSIVE = list(DYNAMICS).index("explosive")
"""Its place among the dynamics."""
BEFORE = ("m_10", "W_2", "W_3", "H_10")
"""Milestones that it matters to be told before."""
LEADS = (("W_2", "W_3"), ("m_10", "m_100"), ("H_10", "H_1"))
"""Pairs of milestones: the first warns of the second."""
ALARM = 0.5
"""Probability of `explosive` at which the engine gives alarm."""
SURE = 0.9
"""Probability from which a dynamic is believed for sure."""
HYBRIDS = 20
"""Simulated worlds in which none of the dynamics is true."""
GATE = {"noise": 0.5, "surprise": 0.001, "lost": 0.05}
"""Most the log probability of the truth in one world may err by, root mean square, nats; least probability
that a calibrated engine gives as many truths next to no chance as were seen; largest share of the worlds of a
dynamic in which a step may have failed."""
NEXT_TO_NONE = (1e-2, 1e-4, 1e-8)
"""Probabilities below which a truth was given next to no chance: many of the first, or one of the last."""
LEVELS = (0.1, 0.5, 0.9)
"""Quantiles printed of a distribution of dates or years."""
Figure = dict[str, float | None]
"""``value`` and its Monte Carlo error ``se``."""


def value(
    run: Run,
    plan: Plan,
    names: Sequence[str],
    size: int,
    days: Sequence[pd.Timestamp],
    seed: int,
    kept: Path,
    report: inference.Progress | None = None,
    each: Callable[..., Any] = starmap,
) -> dict[str, Any]:
    """Simulate worlds from a stored run, show the engine what each tier publishes, and say what it is worth.

    Parameters
    ----------
    names
        Tiers; the others are compared with the first.
    size
        Number of worlds, rounded up to as many of each dynamic.
    days
        Days looked at, in order.
    kept
        Folder for what was learnt in some worlds, so that an interrupted run goes on there.
    each
        As in `worlds.follow_all`.

    Returns
    -------
    dict
        ``worldview``, ``as_of``, ``worlds``, ``today`` (dynamic -> probability), ``dates``, ``until``, the
        last sound one, ``failed`` (date -> `failures`), ``tiers`` (`tier_records`, with ``title``, ``reason``
        and ``rows``), ``warning`` (`warning_records`), ``reliability`` and ``slope`` (tier -> date ->
        `reliability` and `slope`), ``hybrid`` (`hybrid_record`), ``noise``, the standard error of the truth's
        log probability in one world on the last sound date, root mean square over worlds and tiers, nats, and
        ``lost``, the number of worlds in which a step failed by then, which count nowhere.  What went wrong
        on a date is carried on, so that nothing is told of the first date that fails and later ones.

    Raises
    ------
    InputError
        The first date fails, or a milestone that is asked for is missing.
    """
    needed = {*BEFORE, *(m for pair in LEADS for m in pair)}
    if missing := sorted(needed - set(run.inputs.milestones)):
        raise InputError(f"milestones.toml: no {', '.join(missing)}, which this asks for; put it back")
    setup = worlds.prepare(run, plan, report)
    made = worlds.simulate(setup, run.inputs.milestones, -(-size // len(DYNAMICS)), seed)
    hybrid = worlds.simulate_hybrid(setup, HYBRIDS, seed)
    shown = worlds.joined(made.published, hybrid)
    every = worlds.follow_all(setup, shown, names, days, seed, kept, report, each)
    added, of_hybrid = np.split(every, [len(made.dynamic)])
    now = evidence.mean_evidence(run.log_evidence)[0]
    isos = [beliefs.iso(day) for day in days]
    today = pd.Timestamp(run.as_of)
    every_day = beliefs.believed(now, run.odds, added.mean(-1), made.dynamic, made.passage, today, days)
    errors = calibration.error_of_truth(every_day.posterior, added, made.dynamic)
    every_day = every_day._replace(error=errors)
    titles = [f"tier {name}" for name in names]
    failed = {iso: found for d, iso in enumerate(isos) if (found := failures(every_day, d, titles))}
    sound = isos.index(next(iter(failed))) if failed else len(days)
    if not sound:
        raise InputError(f"{isos[0]}: {'; '.join(failed[isos[0]])}; take other tiers or a sharper posterior")
    seen, kept_worlds = beliefs.without_lost(beliefs.until(every_day, sound))
    # No dynamic is the truth of these.
    nobody = np.full(len(of_hybrid), -1)
    every_hybrid = beliefs.believed(now, run.odds, of_hybrid.mean(-1), nobody, {}, today, days)
    seen_hybrid, _ = beliefs.without_lost(beliefs.until(every_hybrid, sound))
    records = tier_records(seen, names, isos[sound:])
    for record in records:
        tier = plan.tiers[record["tier"]]
        rows = int(plan.counted(tier.name, days[sound - 1]).sum())
        record |= {"title": tier.title, "reason": tier.reason, "rows": rows}
    return {
        "worldview": run.worldview.name,
        "as_of": run.as_of,
        "worlds": len(made.dynamic),
        "today": dict(zip(DYNAMICS, map(float, seen.today), strict=True)),
        "dates": isos,
        "until": isos[sound - 1],
        "failed": failed,
        "tiers": records,
        "warning": warning_records(worlds.passages(setup, run.inputs.milestones)),
        "reliability": by_date(reliability, seen, names),
        "slope": by_date(slope, seen, names),
        "hybrid": hybrid_record(seen_hybrid, names),
        "lost": int((~kept_worlds).sum()),
        "noise": noise(seen, seen.error[:, :, -1].T),
    }


def noise(seen: Seen, errors: np.ndarray) -> float:
    """Root mean square of errors (..., world), each world counted with its weight where no step failed."""
    each = errors.reshape(-1, errors.shape[-1])
    return float(np.sqrt(np.mean([beliefs.mean(one**2, seen)[0] for one in each])))


def failures(seen: Seen, day: int, names: Sequence[str]) -> list[str]:
    """Reasons for which nothing can be told of a day; none if it is sound.

    A calibrated engine may give a truth next to no chance, but no more often than it says.

    Parameters
    ----------
    names
        What to call the tiers, in the order of `seen`.
    """
    found, weight = [], beliefs.weights(seen)
    for t, name in enumerate(names):
        gone = np.isnan(seen.log_posterior[:, t, day]).any(axis=1)
        lost = np.bincount(seen.truth, gone) / np.bincount(seen.truth)
        if lost.max() > GATE["lost"]:
            worst = list(DYNAMICS)[int(lost.argmax())]
            found.append(f"{name}: a step failed in {lost.max():.0%} of the worlds of {worst}")
            continue
        error = noise(seen, seen.error[:, t, day])
        if not error <= GATE["noise"]:
            found.append(f"{name}: the log probability of the truth has an error of {error:.2f} nats")
        if surprise := _surprise(seen.posterior[:, t, day], seen.truth, weight):
            found.append(f"{name}: {surprise}")
    return found


def _surprise(p: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> str:
    """Whether truths were given next to no chance more often than a calibrated engine would, in words."""
    for most in NEXT_TO_NONE:
        for low in calibration.reliability(p, truth, weight, np.array([0.0, most])):
            true = low["true"] * low["worlds"]
            if true and betainc(true, low["worlds"] - true + 1, low["believed"]) < GATE["surprise"]:
                return (
                    f"dynamics given less than {most:g} are true in {low['true']:.2%} of the times they were"
                )
    return ""


# Records --------------------------------------------------------------------------------------------------


def figure(found: tuple[float, float]) -> Figure:
    """As JSON has it: None where there is no number."""
    value, se = (float(x) if np.isfinite(x) else None for x in found)
    return {"value": value, "se": se}


def quantiles(value: np.ndarray) -> list[float | None]:
    """`LEVELS` of dates or years, None for never."""
    if not len(value):
        return [None] * len(LEVELS)
    found = np.quantile(value, LEVELS, method="inverted_cdf")
    return [round(float(x), 2) if np.isfinite(x) else None for x in found]


def tier_records(seen: Seen, names: Sequence[str], later: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What each tier is worth.

    Parameters
    ----------
    names
        Tiers, in the order of `seen`; the others are compared with the first.
    later
        Dates of which nothing can be told, YYYY-MM-DD.

    Returns
    -------
    list of dict
        ``tier``; ``bits``, ``bits_se``, ``posterior_of_truth``, ``posterior_of_truth_se``,
        ``more_than_first`` and ``more_than_first_se`` (bits over those of the first in the same worlds),
        each date -> number or None;
        ``by_dynamic``, dynamic -> ``posterior_of_truth`` at the last date, ``told_apart`` (Bayes factor ->
        ``ever``, the share of worlds, ``year``, quantiles, ``against``, the same of each rival, and
        ``misled``, the share in which another dynamic is the first to pass), ``in_time`` and `alarm`;
        ``in_time``, Bayes factor -> milestone -> `in_time`, in worlds of all dynamics; and `false_alarms`.
    """
    found, unknown = [], [figure((np.nan, np.nan))] * len(later)
    isos = [*(beliefs.iso(day) for day in seen.days), *later]
    truth, first = np.exp(beliefs.of_truth(seen)), beliefs.bits(seen, 0)
    for t, name in enumerate(names):
        gained = beliefs.bits(seen, t)
        record: dict[str, Any] = {"tier": name}
        for key, value in (
            ("bits", gained),
            ("posterior_of_truth", truth[:, t]),
            ("more_than_first", gained - first),
        ):
            each = [figure(beliefs.mean(value[:, d], seen)) for d in range(len(seen.days))] + unknown
            record[key] = {iso: x["value"] for iso, x in zip(isos, each, strict=True)}
            record[f"{key}_se"] = {iso: x["se"] for iso, x in zip(isos, each, strict=True)}
        record["false_alarms"] = false_alarms(seen, t)
        record["by_dynamic"] = {n: _of_dynamic(seen, t, k) for k, n in enumerate(DYNAMICS)}
        record["in_time"] = _in_time(seen, t)
        found.append(record)
    return found


def _of_dynamic(seen: Seen, tier: int, k: int) -> dict[str, Any]:
    mine = seen.truth == k
    apart = {}
    for bar in BARS:
        day = beliefs.told_apart(seen, tier, bar)
        against = {n: beliefs.told_apart(seen, tier, bar, j) for j, n in enumerate(DYNAMICS) if j != k}
        apart[f"{bar:g}"] = {
            **_ever(day, mine),
            "against": {n: _ever(one, mine) for n, one in against.items()},
            "misled": figure(calibration.share(beliefs.misled(seen, tier, bar) < day, mine)),
        }
    return {
        "posterior_of_truth": figure(beliefs.mean(np.exp(beliefs.of_truth(seen)[:, tier, -1]), seen, mine)),
        "told_apart": apart,
        "in_time": _in_time(seen, tier, mine),
        "alarm": alarm(seen, tier, k),
    }


def _ever(day: np.ndarray, mine: np.ndarray) -> dict[str, Any]:
    return {"ever": figure(calibration.share(np.isfinite(day), mine)), "year": quantiles(day[mine])}


def _in_time(seen: Seen, tier: int, kept: np.ndarray | bool = True) -> dict[str, Any]:
    days = {f"{bar:g}": beliefs.told_apart(seen, tier, bar) for bar in BARS}
    return {bar: {m: in_time(seen, day, m, kept) for m in BEFORE} for bar, day in days.items()}


def in_time(seen: Seen, day: np.ndarray, milestone: str, kept: np.ndarray | bool = True) -> dict[str, Any]:
    """Whether the truth is told apart before a milestone, among worlds that pass it after today.

    It is looked at on some days only, so that it is never told before the first, and what comes between two
    counts from the later.

    Parameters
    ----------
    day
        On which it is, as `beliefs.told_apart` finds it, (world,).
    kept
        Worlds that count, (world,); all by default.

    Returns
    -------
    dict
        ``probability``, the share in which it is; ``late``, that in which the milestone comes by the last day
        and it is not; in the rest the milestone comes later and nothing is told yet; and ``passes``, the
        share of all worlds that pass the milestone.
    """
    when, counted = seen.passage[milestone], beliefs.weights(seen) * kept
    first, last = beliefs.as_years([seen.as_of, seen.days[-1]])
    passes = np.isfinite(when) & (when > first)
    return {
        "probability": figure(calibration.share(day < when, counted * passes)),
        "late": figure(calibration.share((day >= when) & (when <= last), counted * passes)),
        "passes": figure(calibration.share(passes, counted)),
    }


def alarm(seen: Seen, tier: int, k: int) -> dict[str, Any]:
    """The engine's alarm in worlds of one dynamic.

    Returns
    -------
    dict
        ``sounds``, date -> share of worlds in which it sounds then; ``in_time``, the share in which it sounds
        on the last day before W of 3, today included; and ``years_to_W_3``, quantiles of the years from the
        first day of that spell to W of 3, None where it does not sound; both among worlds that get there
        after today and by the last day.
    """
    mine, sounds = seen.truth == k, seen.posterior[:, tier, :, EXPLOSIVE] > ALARM
    when, years = seen.passage["W_3"], beliefs.as_years([seen.as_of, *seen.days])
    passes = mine & (when > years[0]) & (when <= years[-1])
    today = np.full((len(when), 1), seen.today[EXPLOSIVE] > ALARM)
    holds = np.concatenate([today, sounds], axis=1)
    last = (years < when[:, None]).sum(axis=1) - 1
    silent = ~holds & (np.arange(len(years)) <= last[:, None])
    start = np.where(silent, np.arange(len(years)), -1).max(axis=1) + 1
    since = np.where(start <= last, years[np.minimum(start, len(years) - 1)], np.inf)
    return {
        "sounds": {
            beliefs.iso(day): figure(calibration.share(x, mine))
            for day, x in zip(seen.days, sounds.T, strict=True)
        },
        "in_time": figure(calibration.share(np.isfinite(since), passes)),
        # No warning at all is the least.
        "years_to_W_3": quantiles(when[passes] - since[passes]),
    }


def false_alarms(seen: Seen, tier: int) -> dict[str, dict[str, Figure]]:
    """How often the alarm is false.

    Returns
    -------
    dict
        Date -> ``share`` of alarms that sound in worlds which are not `explosive`, and ``rate``, the share of
        such worlds in which it sounds.
    """
    counted, sounds = beliefs.weights(seen), seen.posterior[:, tier, :, EXPLOSIVE] > ALARM
    false = seen.truth != EXPLOSIVE
    return {
        beliefs.iso(day): {
            "share": figure(calibration.share(false, counted * x)),
            "rate": figure(calibration.share(x, counted * false)),
        }
        for day, x in zip(seen.days, sounds.T, strict=True)
    }


def warning_records(passage: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Years between milestones of one path, by dynamic and pair: ``passes`` both, and ``years`` among those.

    Parameters
    ----------
    passage
        Dynamic -> milestone -> first passages at posterior draws, calendar years, (draw,).
    """
    found: dict[str, Any] = {}
    for name, times in passage.items():
        found[name] = {}
        for first, last in LEADS:
            both = np.isfinite(times[first]) & np.isfinite(times[last])
            years = times[last][both] - times[first][both]
            found[name][f"{first} -> {last}"] = {
                "passes": figure(calibration.share(both, np.ones(len(both)))),
                "years": quantiles(years),
            }
    return found


def hybrid_record(seen: Seen, names: Sequence[str]) -> dict[str, Any]:
    """What the engine believes at the last date in worlds where none of its dynamics is true.

    Returns
    -------
    dict
        ``worlds``; ``tiers``, tier -> ``posterior`` (dynamic -> mean probability), ``largest``, the mean of
        the largest probability, and ``sure``, the share of worlds in which one dynamic has nine tenths.
    """
    found = {}
    for t, name in enumerate(names):
        p = seen.posterior[:, t, -1]
        p = p[np.isfinite(p).all(axis=1)]
        largest = p.max(axis=1)
        found[name] = {
            "posterior": {n: figure(calibration.mean(x)) for n, x in zip(DYNAMICS, p.T, strict=True)},
            "largest": figure(calibration.mean(largest)),
            "sure": figure(calibration.share(largest >= SURE, np.ones(len(p)))),
        }
    return {"worlds": len(seen.truth), "tiers": found}


def by_date(of: Callable[[Seen, int, int], Any], seen: Seen, names: Sequence[str]) -> dict[str, Any]:
    """Tier -> date -> what a function of worlds, tier and day finds."""
    isos = [beliefs.iso(day) for day in seen.days]
    return {name: {iso: of(seen, t, d) for d, iso in enumerate(isos)} for t, name in enumerate(names)}


def reliability(seen: Seen, tier: int, day: int) -> list[dict[str, Any]]:
    """`calibration.reliability` under one tier on one day, each world counted with its weight."""
    return calibration.reliability(seen.posterior[:, tier, day], seen.truth, beliefs.weights(seen))


def slope(seen: Seen, tier: int, day: int) -> Figure:
    """`calibration.slope` of what one tier added by a day, each world counted with its weight."""
    after = seen.log_posterior[:, tier, day]
    kept = ~np.isnan(after).any(axis=1)
    with np.errstate(divide="ignore"):
        now = np.log(seen.today)
    return figure(calibration.slope(now, after[kept], seen.truth[kept], beliefs.weights(seen)[kept]))


def weight_record(records: Sequence[Mapping[str, Any]], as_of: str) -> dict[str, Any]:
    """How well weights at even odds tell which dynamic made each of some simulated data sets.

    Parameters
    ----------
    records
        Of `calibration.record`, one of each dynamic in their order, with ``log_evidence``.
    as_of
        Day of the rows that were simulated.

    Returns
    -------
    dict
        ``bits`` that the data tell of the dynamic, of the two that would settle it; ``reliability`` and
        ``slope``, as the functions of that name; ``noise`` and ``lost``, as in `value`; and ``failed``, the
        reasons for which nothing else is told, empty if it is sound.
    """
    pseudo = np.concatenate([np.array(one["log_evidence"], float) for one in records])[:, None, None]
    truth = np.repeat(np.arange(len(records)), [one["simulations"] for one in records])
    odds, day = np.full(len(records), 1 / len(records)), pd.Timestamp(as_of)
    every = beliefs.believed(np.zeros(len(odds)), odds, pseudo.mean(-1), truth, {}, day, [day])
    every = every._replace(error=calibration.error_of_truth(every.posterior, pseudo, truth))
    failed = failures(every, 0, ["weights"])
    seen, kept = beliefs.without_lost(every)
    return {
        "bits": None if failed else figure(beliefs.mean(beliefs.bits(seen, 0)[:, 0], seen)),
        "slope": None if failed else slope(seen, 0, 0),
        "reliability": [] if failed else reliability(seen, 0, 0),
        "noise": noise(seen, seen.error[:, 0, 0]),
        "lost": int((~kept).sum()),
        "failed": failed,
    }
