"""What observation models are made of: a path read at rows, shared parameters, and rows as numbers.

The models themselves are in `indicators`, and importing that fills the registry.
"""

from __future__ import annotations

import datetime as dt
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from forecast import deviation as dev
from forecast.laws import Law, Observed
from forecast.priors import (
    Array,
    HalfNormal,
    LogNormal,
    Normal,
    Parameter,
    Prior,
    array_module,
    declared_in,
)
from forecast.schema import Role

HORIZON_CEILING = 960.0
"""Minutes above which METR calls its time horizons unreliable; longer ones are right-censored."""
MIN_HORIZON_SLOPE = 0.05
"""Least growth of ln horizon per nat: a curve that bends down goes on like this and does not fall."""
BEST_SCORE = 0.97
"""Score of a perfect model on a benchmark: the rest are broken or mislabelled items."""
SATURATED = 4.0
"""Sampling errors under the best score from which a score says only that the true one is above."""
LEADERS = ("OpenAI", "Anthropic", "Google")
"""Developers whose flagships share one mean shortfall from the frontier; the others share another."""


@dataclass(frozen=True)
class Reading:
    """A path read at the dates of an indicator's rows.

    Attributes
    ----------
    rows
        The rows: columns of the archive and of `models.csv`, `time` in calendar years, `company`.
    at
        ``at(name, lag=0.0)``: a field of `paths.Path` at the rows' dates less `lag` years, (row,).
    start
        ``start(name)``: the same field at 2023.0.
    capability
        Capability of the best public models plus the correlated deviation, nats, (row,).
    shortfall
        Mean shortfall of each row's developer from the frontier, nats, (row,).
    d50
        Deployed capability at which half of the automatable basket is automated, nats.
    disclosed
        Shape of voluntary disclosure of each row, 0 where the publisher is independent, (row,).
    """

    rows: pd.DataFrame
    at: Callable[..., Array]
    start: Callable[[str], Array]
    capability: Array
    shortfall: Array
    d50: Array
    disclosed: Array


@dataclass(frozen=True)
class Indicator:
    """An observation model: the archive ids it takes, how rows become observations, and its law."""

    name: str
    ids: tuple[str, ...]
    family: dict[str, str]
    """Indicator family by archive id."""
    prepare: Callable[[pd.DataFrame], Observed]
    law: Callable[..., Law]
    own: dict[str, Parameter]
    """Own parameters by argument of `law`."""
    shared: tuple[str, ...]
    """Arguments of `law` that are parameters declared elsewhere."""
    per_id: bool
    """Whether each archive id has its own copy of the own parameters, ``id.argument``."""
    flagship_rows: bool

    def parameters(self, ids: Iterable[str]) -> dict[str, Parameter]:
        """Own parameters by full name, given the archive ids that have rows."""
        if not self.per_id:
            return dict(self.own)
        return {f"{i}.{n}": p for i in ids for n, p in self.own.items()}


INDICATORS: dict[str, Indicator] = {}
"""Registry of observation models by name; `indicators` fills it."""


def indicator(
    *ids: str,
    family: str | dict[str, str],
    prepare: Callable[[pd.DataFrame], Observed],
    per_id: bool = False,
    flagship_rows: bool = False,
) -> Callable[[Callable[..., Law]], Callable[..., Law]]:
    """Register an observation model for the archive ids it takes, the preferred one first.

    With ``per_id`` the own parameters reach the law as one value per row, (row,), each archive id
    having its own.
    """

    def register(function: Callable[..., Law]) -> Callable[..., Law]:
        own = declared_in(function)
        shared = [n for n in typing.get_type_hints(function) if n not in ("read", "y", "return", *own)]
        INDICATORS[function.__name__] = Indicator(
            function.__name__,
            ids,
            family if isinstance(family, dict) else dict.fromkeys(ids, family),
            prepare,
            function,
            own,
            tuple(shared),
            per_id,
            flagship_rows,
        )
        return function

    return register


_J = dt.date(2026, 1, 31)


def param(
    prior: Prior, unit: str, role: Role, meaning: str, source: str = "judgement", informed: dt.date = _J
) -> Parameter:
    """A parameter of an observation model, informed by the time of the report unless said otherwise."""
    return Parameter(prior, unit, role, meaning, source, informed)


# Parameters that every reading shares ---------------------------------------------------------------

READING: dict[str, Parameter] = {
    "release_gap": param(
        LogNormal(0.12, 0.5),
        "yr",
        "measurement",
        "internal use of a model before its release",
        "judgement: weeks to months",
    ),
    "shortfall": param(
        HalfNormal(0.7),
        "nats",
        "calibration",
        "mean shortfall of a leading developer's flagship from the frontier",
    ),
    "shortfall_followers": param(
        HalfNormal(1.5),
        "nats",
        "calibration",
        "mean shortfall of another developer's flagship from the frontier",
    ),
    # Next to nothing at 0: there readings pin the path itself, a narrow corner that samplers do not enter.
    "deviation_sd": param(
        LogNormal(0.5, 0.7),
        "nats",
        "measurement",
        "sd of the correlated deviation of published capability from the path",
    ),
    "disclosure_lab": param(
        HalfNormal(1.0), "-", "measurement", "how strongly AI companies report favourable noise"
    ),
    "disclosure_tech": param(
        HalfNormal(1.0), "-", "measurement", "how strongly large technology companies report favourable noise"
    ),
}
LADDER: dict[str, Parameter] = {
    "g2": param(LogNormal(1.5, 0.6), "nats", "timing", "gap from engineering to experiments"),
    "g3": param(LogNormal(2.5, 0.6), "nats", "timing", "gap from experiments to creative ideation"),
    "g4": param(LogNormal(2.5, 0.6), "nats", "timing", "gap from ideation to strategy and leadership"),
    "mu_D": param(
        Normal(1.0, 1.5),
        "nats",
        "measurement",
        "transfer gap: how much easier benchmarks are than the real work of their rung",
    ),
}
SURVEYS: dict[str, Parameter] = {
    "programme_anthropic": param(Normal(0.0, 0.3), "nats", "calibration", "Anthropic's measuring programme"),
    "programme_metr": param(Normal(0.0, 0.3), "nats", "calibration", "METR's measuring programme"),
    "respondents_anthropic": param(
        Normal(0.0, 0.2),
        "nats",
        "calibration",
        "error shared by recalled and current values of Anthropic's survey",
    ),
    "respondents_metr": param(
        Normal(0.0, 0.2),
        "nats",
        "calibration",
        "error shared by recalled and current values of METR's survey",
    ),
    "hype_speed": param(
        Normal(0.40, 0.2),
        "nats",
        "measurement",
        "overstatement when staff report speed",
        "belief gap of the METR trial: +24 % believed, -19 % measured",
        dt.date(2025, 7, 10),
    ),
    "hype_value": param(Normal(0.25, 0.25), "nats", "measurement", "overstatement when staff report value"),
}
SHARED: dict[str, Parameter] = READING | LADDER | SURVEYS
"""Observation parameters that more than one indicator reads."""


def deviation_parameters(last: float) -> dict[str, Parameter]:
    """One standard-normal innovation per knot of the deviation."""
    knots = dev.knots(last)
    meaning = "innovation of the correlated deviation at"
    return {
        name: param(Normal(0.0, 1.0), "sd", "measurement", f"{meaning} {knot:.1f}")
        for name, knot in zip(dev.names(knots), knots, strict=True)
    }


SOFTWARE_GROWTH_ROW = {
    "indicator_id": "software_growth",
    "entity": "frontier",
    "observed_at": dt.date(2025, 10, 1),
    "published_at": dt.date(2025, 10, 1),
    "value": 0.0,
    "lower": -0.2,
    "upper": 0.2,
    "interval_level": float(2 * stats.norm.cdf(1) - 1),
    "kind": "declared",
    "disclosure": "independent",
    "source_title": "Epoch AI: algorithmic progress, read as growth constant within .2 nats a year a year",
}
"""A row of evidence that stands in no table: software growth without AI was roughly constant."""


def log_horizon(e: Array, h0: Array, h1: Array, h2: Array) -> tuple[Array, Array]:
    """Ln minutes h0 + h1 e + h2 e^2/2, a straight line from where its slope gets least, and the slope."""
    xp = array_module(e)
    # Where a curve that bends down gets there; one that does not, never does.
    bent = xp.minimum(e, (h1 - MIN_HORIZON_SLOPE) / xp.maximum(-h2, 1e-6))
    minutes = h0 + h1 * bent + h2 * bent**2 / 2 + MIN_HORIZON_SLOPE * (e - bent)
    return minutes, xp.maximum(h1 + h2 * e, MIN_HORIZON_SLOPE)


# Rows to observations -------------------------------------------------------------------------------

_COMPANIES = {
    "Anthropic": ("Anthropic", "Claude"),
    "OpenAI": ("OpenAI", "Codex"),
    "Google": ("Google",),
    "Microsoft": ("Microsoft",),
}
VOLUNTARY = ("voluntary_company", "self_report")
"""Disclosures that a company chooses to make."""
LABS = ("Anthropic", "OpenAI")
"""Companies whose main business is AI; the other named companies are large technology companies."""


def company_of(entity: str) -> str:
    """Company an entity of category 3 speaks for, or ``industry``."""
    return next((c for c, words in _COMPANIES.items() if any(w in entity for w in words)), "industry")


def standard_errors(rows: pd.DataFrame, link: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors below and above each value on the scale of `link`; 0 where no interval is given."""
    z = stats.norm.ppf((1 + rows["interval_level"].to_numpy(float)) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        y, low, high = (link(rows[c].to_numpy(float)) for c in ("value", "lower", "upper"))
        below, above = (y - low) / z, (high - y) / z
    return np.nan_to_num(below, posinf=0.0), np.nan_to_num(above, posinf=0.0)


def observed(rows: pd.DataFrame, link: Callable[[Any], Any]) -> Observed:
    """Values, bounds and intervals on the scale of `link`; `bound` says which."""
    y = link(rows["value"].to_numpy(float))
    ends = (link(rows[c].to_numpy(float)) for c in ("lower", "upper"))
    interval = (rows["bound"] == "interval").to_numpy()
    low = np.where(rows["bound"] == "upper", -np.inf, y)
    high = np.where(rows["bound"] == "lower", np.inf, y)
    low, high = (np.where(interval, end, x) for end, x in zip(ends, (low, high), strict=True))
    below, above = standard_errors(rows, link)
    return Observed(low, high, below, above, np.nan_to_num(rows["n"].to_numpy(float)))


def logs(rows: pd.DataFrame) -> Observed:
    """Values on a log scale."""
    return observed(rows, np.log)


def growth(rows: pd.DataFrame) -> Observed:
    """A gain in percent, as ln of the ratio."""
    return observed(rows, lambda v: np.log1p(v / 100))


def speed_up(rows: pd.DataFrame) -> Observed:
    """A change in task time, percent, as ln of the gain in speed; intervals and bounds turn round."""
    bound = rows["bound"].replace({"lower": "upper", "upper": "lower"})
    turned = rows.assign(lower=rows["upper"], upper=rows["lower"], bound=bound)
    return observed(turned, lambda v: -np.log1p(v / 100))


def _logit_percent(v: Array) -> Array:
    return special.logit(np.asarray(v) / 100)


def shares(rows: pd.DataFrame) -> Observed:
    """Percent, as logit."""
    return observed(rows, _logit_percent)


def days(rows: pd.DataFrame) -> Observed:
    """Days, as ln of years."""
    return observed(rows, lambda v: np.log(v / 365.25))


def counts(rows: pd.DataFrame) -> Observed:
    """Percent of n people, as a count."""
    n = rows["n"].to_numpy(float)
    k = np.round(rows["value"].to_numpy(float) / 100 * n)
    return Observed(k, k, 0 * n, 0 * n, n)


def points(rows: pd.DataFrame) -> Observed:
    """Values as they are."""
    return observed(rows, lambda v: v)


def minutes(rows: pd.DataFrame) -> Observed:
    """Ln minutes, right-censored at the ceiling."""
    seen = observed(rows, np.log)
    censored = seen.low > np.log(HORIZON_CEILING)
    return seen._replace(
        low=np.where(censored, np.log(HORIZON_CEILING), seen.low), high=np.where(censored, np.inf, seen.high)
    )


def score(y: np.ndarray, se: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logit of y/u and its standard error, from a share of items solved and that of the share."""
    y = np.clip(y, 1e-4, BEST_SCORE - 1e-3)
    return special.logit(y / BEST_SCORE), BEST_SCORE / (y * (BEST_SCORE - y)) * se


def solved(k: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`score` of k of n items, y = (k + 1/2)/(n + 1), with its sampling error, and whether it is but a bound.

    A perfect model scores y within some `SATURATED` errors of u, where logits stretch without end and the
    error of one says nothing of how far above the truth may be: there the true score is above the edge.
    """
    share = (k + 0.5) / (n + 1)
    edge = BEST_SCORE - SATURATED * np.sqrt(BEST_SCORE * (1 - BEST_SCORE) / n)
    y = np.clip(np.minimum(share, edge), 1e-4, BEST_SCORE - 1e-3)
    return *score(y, np.sqrt(y * (1 - y) / n)), share > edge


def scores(rows: pd.DataFrame) -> Observed:
    """`solved` of each row; where n is not known, `score` with the error of the interval."""
    n = rows["n"].to_numpy(float)
    share = rows["value"].to_numpy(float) / 100
    below, above = standard_errors(rows, lambda v: v / 100)
    *counted, full = solved(share * n, n)
    stated = score(share, (below + above) / 2)
    value, se = (np.where(np.isnan(n), x, y) for x, y in zip(stated, counted, strict=True))
    return Observed(value, np.where(full, np.inf, value), se, se, np.nan_to_num(n))


def combined_sd(y: Observed, least: float) -> np.ndarray:
    """Sd of a measurement with an interval, and what no interval tells, in quadrature."""
    return np.hypot((y.se_low + y.se_high) / 2, least)
