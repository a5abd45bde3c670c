"""Milestones and when paths reach them: first-passage dates, their distribution, and path bands.

A milestone is a set of conditions on a path that must hold together for a stated time, with a rule
by which a person would resolve it in the real world. Its date is read off every posterior draw; a draw
that does not get there on the grid has the date infinity, so "never by the end of the grid" keeps its
probability.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from forecast.dynamics import DYNAMICS
from forecast.evidence import mixture_se
from forecast.observation import log_horizon
from forecast.paths import SHARED, Cap, Path, make_grid
from forecast.schema import InputError, did_you_mean

Numbers = NDArray[np.float64]
Theta = Mapping[str, ArrayLike]
"""Parameters by name, scalars or (draw,)."""

QUANTILES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
"""Quantiles of the path bands."""
BANDS = ("e", "m", "P", "W", "H", "F")
"""Quantities that have path bands."""
WINDOW = 2.0
"""Years over which a plateau compares capability gains."""
WARNING = (1.5, 3.0)
"""Overall pace W at which warning begins and at which it is too late."""
WARNING_DURATION = 0.5
"""Years that W must hold at either end of the warning, two quarters."""
_LARGEST = 700.0
_INF = math.inf


# Quantities a milestone may speak of ------------------------------------------------------------------


def _exp(x: Numbers) -> Numbers:
    # Past any threshold; without the cut a path far beyond it would overflow.
    return np.asarray(np.exp(np.minimum(x, _LARGEST)), float)


def _along(x: ArrayLike) -> Numbers:
    """Put a parameter, (...), beside time, (..., 1)."""
    return np.asarray(x, float)[..., None]


def ideation_place(d50: ArrayLike, g2: ArrayLike, g3: ArrayLike, g4: ArrayLike) -> Numbers:
    """Deployed capability at which the ideation rung is half automated, nats, (...).

    Third of `indicators.rung_places`, written out because that room loads PyTensor; a test holds the
    two together.
    """
    d50, g2, g3, g4 = (np.asarray(x, float) for x in (d50, g2, g3, g4))
    return np.asarray(d50 + (g2 + 2 * g3 - g4) / 4)


def _ideation(path: Path, theta: Theta) -> Numbers:
    return np.asarray(path.eD - _along(ideation_place(path.d50, theta["g2"], theta["g3"], theta["g4"])))


def _horizon(path: Path, theta: Theta) -> Numbers:
    # As `model` reads public rows: release_gap years behind the capability in use, to first order.
    public = path.e - _along(theta["release_gap"]) * np.gradient(path.e, path.time, axis=-1)
    return _exp(log_horizon(public, *(_along(theta[n]) for n in ("h0", "h1", "h2")))[0])


def _gain_ratio(path: Path, theta: Theta) -> Numbers:
    """Capability gain of the last `WINDOW` over that of the one before; inf before both have passed."""
    n = round(WINDOW / (path.time[1] - path.time[0]))
    gain = path.e[..., n:] - path.e[..., :-n]
    now, before = gain[..., n:], gain[..., :-n]
    ratio = np.full(path.e.shape, np.inf)
    np.divide(now, before, out=ratio[..., 2 * n :], where=before > 0)
    return ratio


def _release_gap(path: Path, theta: Theta) -> Numbers:
    return np.broadcast_to(_along(theta["release_gap"]), path.e.shape)


class Quantity(NamedTuple):
    """Something a milestone can put a threshold on."""

    of: Callable[[Path, Theta], Numbers]
    """Values (..., time) from a path and its parameters."""
    meaning: str
    low: float = -_INF
    """Least sensible threshold."""
    high: float = _INF
    """Largest sensible threshold."""
    needs: tuple[str, ...] = ()
    """Parameters it reads besides the path's."""


QUANTITIES: dict[str, Quantity] = {
    "e": Quantity(lambda p, _: p.e, "capability, nats since 2023.0"),
    "m": Quantity(lambda p, _: _exp(p.log_m), "researcher-output multiplier", 1.0),
    "P": Quantity(lambda p, _: _exp(p.log_P), "software-pace multiplier", 1.0),
    "W": Quantity(lambda p, _: _exp(p.log_W), "overall-pace multiplier", 1.0),
    "W_so_far": Quantity(
        lambda p, _: _exp(np.maximum.accumulate(p.log_W, axis=-1)), "largest overall pace so far", 1.0
    ),
    "H": Quantity(lambda p, _: p.H, "human share of required tasks, current basket", 0.0, 1.0),
    "F": Quantity(lambda p, _: p.F, "automated share of the frozen basket", 0.0, 1.0),
    "ideation_margin": Quantity(
        _ideation, "deployed capability beyond the ideation rung, nats", -_INF, _INF, ("g2", "g3", "g4")
    ),
    "horizon_minutes": Quantity(
        _horizon, "50 % horizon of the best public model", 0.0, _INF, ("h0", "h1", "h2", "release_gap")
    ),
    "gain_ratio": Quantity(_gain_ratio, "24-month capability gain over that of the 24 months before", 0.0),
    "years_to_compute_slow_down": Quantity(
        lambda p, theta: _along(theta["ts"]) - p.time, "years until compute growth slows", needs=("ts",)
    ),
    "release_gap": Quantity(
        _release_gap, "internal use of a model before its release, years", 0.0, _INF, ("release_gap",)
    ),
}
"""Registry of quantities by name."""


# Milestones -------------------------------------------------------------------------------------------

SLOW = 1.0
"""Growth of compute under which it has slowed down, nats a year, as the milestones resolve it."""


class Condition(NamedTuple):
    """One quantity on one side of a threshold; `above` includes the threshold, `below` does not."""

    quantity: str
    threshold: float
    direction: str

    def __str__(self) -> str:
        return f"{self.quantity} {'>=' if self.direction == 'above' else '<'} {self.threshold:g}"

    def holds(self, path: Path, theta: Theta) -> NDArray[np.bool_]:
        """Where the condition holds, (..., time)."""
        value = QUANTITIES[self.quantity].of(path, theta)
        return value >= self.threshold if self.direction == "above" else value < self.threshold


@dataclass(frozen=True)
class Milestone:
    """Conditions that hold together for `duration` years, and how a person would resolve them."""

    id: str
    title: str
    conditions: tuple[Condition, ...]
    duration: float
    resolution: str
    source: str

    @property
    def needs(self) -> frozenset[str]:
        """Parameters its conditions read besides those of the path."""
        return frozenset(n for c in self.conditions for n in QUANTITIES[c.quantity].needs)


_FIELDS = ("title", *Condition._fields, "duration", "and", "resolution", "source")


def titles(milestones: Mapping[str, Milestone]) -> dict[str, str]:
    """Title of each milestone by id."""
    return {name: one.title for name, one in milestones.items()}


def load_milestones(path: FilePath | str) -> dict[str, Milestone]:
    """Read ``milestones.toml``: one table per milestone, its name being the id.

    A table gives ``title``, ``quantity``, ``threshold``, ``direction``, ``duration`` (years, 0 for none),
    ``resolution`` and ``source``; further conditions stand in ``and``, a list of tables of ``quantity``,
    ``threshold`` and ``direction``.

    Raises
    ------
    InputError
        The file cannot be read, or a milestone has an unknown, missing or senseless field.
    """
    try:
        tables = tomllib.loads(FilePath(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid TOML ({error}); mend the place named") from error
    if not tables:
        raise InputError(f"{path}: no milestones; add a table such as [m_10]")
    return {name: _milestone(name, table, f"{path}: milestone '{name}'") for name, table in tables.items()}


def _milestone(name: str, table: Any, where: str) -> Milestone:
    _check_keys(table, _FIELDS, where)
    others = table.get("and", [])
    if not isinstance(others, list):
        raise InputError(f"{where}: 'and' must be a list of tables of {', '.join(Condition._fields)}")
    conditions = [_condition({k: v for k, v in table.items() if k in Condition._fields}, where)]
    conditions += [_condition(other, f"{where}: condition {i} of 'and'") for i, other in enumerate(others, 1)]
    duration = _number(table, "duration", where)
    if not 0 <= duration <= 10:
        raise InputError(
            f"{where}: duration {duration:g} is not in 0 to 10; give years, 0.5 for two quarters"
        )
    title, resolution, source = (_text(table, field, where) for field in ("title", "resolution", "source"))
    return Milestone(name, title, tuple(conditions), duration, resolution, source)


def _condition(table: Any, where: str) -> Condition:
    _check_keys(table, Condition._fields, where)
    quantity, direction = (_text(table, field, where) for field in ("quantity", "direction"))
    _check_known("quantity", quantity, QUANTITIES, where)
    _check_known("direction", direction, ("above", "below"), where)
    threshold, kind = _number(table, "threshold", where), QUANTITIES[quantity]
    if not kind.low <= threshold <= kind.high:
        raise InputError(
            f"{where}: threshold {threshold:g} of '{quantity}' is not in {kind.low:g} to {kind.high:g}"
            + ("; give a share, not a percentage" if kind.high == 1 else f"; it is the {kind.meaning}")
        )
    return Condition(quantity, threshold, direction)


def _check_keys(table: Any, known: Collection[str], where: str) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{where}: must be a table of {', '.join(known)}, got {table!r}")
    for key in table:
        _check_known("field", key, known, where)


def _check_known(what: str, word: str, known: Collection[str], where: str) -> None:
    if word not in known:
        hint = did_you_mean(word, known) or f"; known are {', '.join(known)}"
        raise InputError(f"{where}: unknown {what} '{word}'{hint}")


def _text(table: dict[str, Any], field: str, where: str) -> str:
    value = table.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: '{field}' must be text that is not empty; add {field} = \"...\"")
    return value.strip()


def _number(table: dict[str, Any], field: str, where: str) -> float:
    value = table.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: '{field}' must be a finite number; got {value!r}")
    return float(value)


# First passage ----------------------------------------------------------------------------------------


def first_passage(time: Numbers, holds: NDArray[np.bool_], duration: float = 0.0) -> Numbers:
    """First date from which a condition holds for `duration`.

    Parameters
    ----------
    time
        Equally spaced calendar years, (time,).
    holds
        Whether the condition holds, (..., time).
    duration
        Years; ``max(1, round(duration x points a year))`` consecutive grid points must hold, so half a
        year on a quarterly grid is two consecutive quarters.

    Returns
    -------
    ndarray
        Calendar year at which the first spell long enough starts, (...); inf where there is none. A
        spell that the end of the grid cuts short does not count.
    """
    points = max(1, round(duration / (time[1] - time[0]))) if len(time) > 1 else 1
    if points > holds.shape[-1]:
        return np.full(holds.shape[:-1], np.inf)
    spells = np.lib.stride_tricks.sliding_window_view(holds, points, axis=-1).all(axis=-1)
    result: Numbers = np.where(spells.any(axis=-1), time[spells.argmax(axis=-1)], np.inf)
    return result


def passage_times(milestone: Milestone, path: Path, theta: Theta) -> Numbers:
    """First-passage date of a milestone, calendar years from the start of the grid, (...).

    The path carries no correlated deviation: a time horizon is the one its trend implies. Passages before
    the present are kept at their early dates.

    Raises
    ------
    InputError
        `theta` lacks a parameter that the milestone needs.
    """
    for need in sorted(milestone.needs - set(theta)):
        raise InputError(
            f"milestone '{milestone.id}' needs parameter '{need}', which the draws do not have; "
            "add its prior draws or leave the milestone out"
        )
    holds = np.logical_and.reduce([c.holds(path, theta) for c in milestone.conditions])
    return first_passage(path.time, holds, milestone.duration)


def warning_lead(path: Path) -> Numbers:
    """Years from W passing 1.5 to W passing 3, each for two quarters, (...); inf if it never passes 3."""
    first, last = (first_passage(path.time, path.log_W >= np.log(w), WARNING_DURATION) for w in WARNING)
    return np.where(np.isinf(last), np.inf, last - np.where(np.isinf(first), 0.0, first))


# Distributions ----------------------------------------------------------------------------------------


class Cdf(NamedTuple):
    """Probability that a milestone has passed by each date, with Monte Carlo standard errors."""

    probability: Numbers
    """P(T <= date), (date,)."""
    se: Numbers
    """Standard error of `probability`, (date,)."""
    never: float
    """P(T = inf): not on the grid."""
    never_se: float


def report_dates() -> dict[str, float]:
    """Dates reported by default, ISO date to calendar year."""
    return {f"{year}-01-01": float(year) for year in (2027, 2028, 2029, 2030, 2032, 2035, 2040)}


def milestone_cdf(times: ArrayLike, dates: ArrayLike) -> Cdf:
    """Distribution of a first-passage date.

    Parameters
    ----------
    times
        Calendar years, inf for never, (chain, draw) or (draw,).
    dates
        Calendar years, (date,).

    Returns
    -------
    Cdf
        Standard errors are the sd of the chains' means over the root of their number, or binomial where
        there is one chain.

    Raises
    ------
    ValueError
        A time is NaN.
    """
    draws = np.atleast_2d(np.asarray(times, float))
    if np.isnan(draws).any():
        raise ValueError("a first-passage date is NaN; inf stands for never")
    reached = draws[..., None] <= np.append(np.asarray(dates, float), np.finfo(float).max)
    chains, count = draws.shape
    p, means = reached.mean(axis=(0, 1)), reached.mean(axis=1)
    se = np.sqrt(means.var(axis=0, ddof=1) / chains if chains > 1 else p * (1 - p) / count)
    return Cdf(p[:-1], se[:-1], float(1 - p[-1]), float(se[-1]))


def mixture_cdf(
    passages: Mapping[str, ArrayLike],
    weights: Mapping[str, float],
    dates: ArrayLike,
    covariance: np.ndarray | None = None,
) -> Cdf:
    """Distribution of a first-passage date over all dynamics: each one's own times its weight, summed.

    Parameters
    ----------
    passages
        First-passage dates of each dynamic, (chain, draw) or (draw,).
    weights
        Posterior weight of each dynamic; they sum to one. One without weight needs no passages.
    dates
        Calendar years, (date,).
    covariance
        Covariance of the errors of the weights in their order, (dynamic, dynamic); none by default.

    Returns
    -------
    Cdf
        Standard errors are those of the draws and of the weights.

    Raises
    ------
    ValueError
        A weight has no passages or is negative, or the weights do not sum to one.
    """
    if not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-6) or min(weights.values()) < 0:
        raise ValueError(f"weights must be at least 0 and sum to 1, got {dict(weights)}")
    used = {name: weight for name, weight in weights.items() if weight > 0}
    for name in used:
        if name not in passages:
            raise ValueError(f"no passages for '{name}', which has weight{did_you_mean(name, passages)}")
    parts = [milestone_cdf(passages[name], dates) for name in used]
    w = np.array(list(used.values()))
    kept = [weight > 0 for weight in weights.values()]
    errors = 0.0 * np.outer(w, w) if covariance is None else covariance[np.ix_(kept, kept)]
    p, se, never, never_se = (np.array([part[i] for part in parts]) for i in range(4))
    all_se = mixture_se(w, errors, p, se)
    return Cdf(w @ p, all_se, float(w @ never), float(mixture_se(w, errors, never, never_se)))


def _draws(name: str, theta: xr.Dataset | Theta, needs: Iterable[str]) -> dict[str, Numbers]:
    """Parameters that the dynamic and the milestones need, each (chain, draw)."""
    wanted = {n: f"{name}.{n}" if f"{name}.{n}" in theta else n for n in DYNAMICS[name].parameters}
    wanted |= {n: n for n in (*SHARED, *needs)}
    arrays = []
    for key in wanted.values():
        if key not in theta:
            raise InputError(f"{name}: the draws lack parameter '{key}'{did_you_mean(key, map(str, theta))}")
        value: Any = theta[key]
        if isinstance(value, xr.DataArray):
            value = value.transpose("chain", "draw")
        arrays.append(np.atleast_2d(np.asarray(value, float)))
        # A comparison with NaN is false, so a broken draw would read as "never".
        if not np.isfinite(arrays[-1]).all():
            raise InputError(f"{name}: draws of '{key}' are not all finite; the fit failed, run it again")
    return dict(zip(wanted, np.broadcast_arrays(*arrays), strict=True))


def predict(
    name: str,
    theta: xr.Dataset | Theta,
    milestones: Mapping[str, Milestone],
    grid: Numbers | None = None,
    cap: Cap | None = None,
) -> xr.Dataset:
    """Paths and milestones of one dynamic at posterior or prior draws.

    Parameters
    ----------
    name
        The dynamic, a key of `DYNAMICS`.
    theta
        Draws by parameter, (chain, draw), or in a mapping also (draw,) or scalars. The dynamic's own
        parameters are read as ``name.parameter`` where present, else by their bare names; others ignored.
    milestones
        As `load_milestones` returns them.
    grid
        Calendar years from 2023.0, (time,); by default quarterly to 2041.0.
    cap
        An intervention on the compute path; none by default.

    Returns
    -------
    Dataset
        ``passage`` (milestone, chain, draw), calendar years, inf for never on the grid;
        ``warning_lead`` (chain, draw), years, inf for never; ``bands`` (quantity, quantile, time), pointwise
        quantiles of capability e in nats, the multipliers m, P, W and the shares H, F.

    Raises
    ------
    InputError
        Unknown dynamic, a missing parameter, or draws that are not finite.
    """
    if name not in DYNAMICS:
        raise InputError(f"unknown dynamic '{name}'{did_you_mean(name, DYNAMICS)}")
    time = make_grid() if grid is None else grid
    draws = _draws(name, theta, sorted({n for m in milestones.values() for n in m.needs if n in theta}))
    shape = draws["g0"].shape
    flat = {n: values.reshape(-1) for n, values in draws.items()}
    path = DYNAMICS[name](time, flat, cap)
    if cap is not None and cap.growth < SLOW:
        flat["ts"] = np.minimum(flat["ts"], cap.start)
    passage = [passage_times(m, path, flat).reshape(shape) for m in milestones.values()]
    bands = [np.quantile(QUANTITIES[q].of(path, flat), QUANTILES, axis=0) for q in BANDS]
    labels = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), "time": time}
    names = {
        "milestone": np.array(list(milestones), str),
        "quantity": list(BANDS),
        "quantile": list(QUANTILES),
    }
    return xr.Dataset(
        {
            "passage": (("milestone", "chain", "draw"), np.reshape(passage, (len(milestones), *shape))),
            "warning_lead": (("chain", "draw"), warning_lead(path).reshape(shape)),
            "bands": (("quantity", "quantile", "time"), np.stack(bands)),
        },
        coords=names | labels,
        attrs={"dynamic": name},
    )
