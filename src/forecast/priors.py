"""Prior distributions as maps from standard-normal scores, and the parameters they belong to.

Every parameter is written theta = Q(Phi(z)) with z ~ N(0, 1) and Q the quantile function of its
prior.  In the scores z the prior of every dynamic and worldview is the same standard normal, so a
changed prior is a changed map, not a changed model: nothing is compiled again.
"""

from __future__ import annotations

import datetime as dt
import re
import reprlib
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special, stats

from forecast.schema import InputError, Role, did_you_mean

Array = Any
"""A float, a NumPy array or a PyTensor variable."""

SCORE_MAX = 9.0
"""Scores beyond this are clamped in tabulated quantile functions; P(|z| > 9) is 2e-19."""
TABLE_NODES = 289
_NODE_STEP = 2 * SCORE_MAX / (TABLE_NODES - 1)


@dataclass(frozen=True)
class Prior:
    """One univariate prior: a family of `FAMILIES` and its two hyper-parameters, in order."""

    family: str
    a: float
    b: float

    def __str__(self) -> str:
        names = FAMILIES[self.family].fields
        # Calendar years need the digits.
        shown = (f"{v:.6g}" if abs(v) >= 1000 else f"{v:.4g}" for v in (self.a, self.b))
        inner = ", ".join(f"{n} {v}" for n, v in zip(names, shown, strict=False))
        return f"{self.family}({inner})"

    def narrowed(self, value: float, width: float = 1e-4) -> Prior:
        """A prior of the same family so narrow around a value that its parameter is frozen there."""
        match self.family:
            case "uniform":
                return Prior(self.family, value - width, value + width)
            case "loguniform":
                return Prior(self.family, value * (1 - width), value * (1 + width))
            case "halfnormal":
                return Prior(self.family, width, value)
            case "beta":
                return Prior(self.family, 10 * value / width, 10 * (1 - value) / width)
        return Prior(self.family, value, width)

    @property
    def hyper(self) -> np.ndarray:
        """Row of numbers that `from_score` takes: (2,), or (TABLE_NODES,) for tabulated families."""
        if self.family == "beta":
            return _beta_table(self.a, self.b)
        return np.array([self.a, self.b])

    def quantile(self, q: Array) -> Array:
        """Quantile function; relative error below 1e-7 for scores within 6."""
        return from_score(self.family, special.ndtri(np.asarray(q, float)), self.hyper)

    def frozen(self) -> Any:
        """Return the same distribution as a frozen SciPy one, the reference in tests."""
        return FAMILIES[self.family].scipy(self.a, self.b)


@dataclass(frozen=True)
class Family:
    """Fields a TOML line of this family must give, its SciPy twin and the condition on its fields."""

    fields: tuple[str, ...]
    scipy: Callable[[float, float], Any]
    valid: Callable[[float, float], bool]
    needs: str


def _truncated(mean: float, sd: float) -> Any:
    return stats.truncnorm(-mean / sd, np.inf, loc=mean, scale=sd)


FAMILIES: dict[str, Family] = {
    "normal": Family(("mean", "sd"), stats.norm, lambda a, b: b > 0, "sd > 0"),
    "lognormal": Family(
        ("median", "sd"),
        lambda a, b: stats.lognorm(b, scale=a),
        lambda a, b: a > 0 and b > 0,
        "median > 0 and sd > 0",
    ),
    "logitnormal": Family(
        ("median", "sd"),
        lambda a, b: None,
        lambda a, b: 0 < a < 1 and b > 0,
        "median between 0 and 1 and sd > 0",
    ),
    "uniform": Family(
        ("lower", "upper"), lambda a, b: stats.uniform(a, b - a), lambda a, b: a < b, "lower < upper"
    ),
    "loguniform": Family(("lower", "upper"), stats.loguniform, lambda a, b: 0 < a < b, "0 < lower < upper"),
    "halfnormal": Family(("sd",), lambda a, b: stats.halfnorm(loc=b, scale=a), lambda a, b: a > 0, "sd > 0"),
    "positive_normal": Family(
        ("mean", "sd"), _truncated, lambda a, b: b > 0 and a > -5 * b, "sd > 0 and mean > -5 sd"
    ),
    "beta": Family(
        ("alpha", "beta"), stats.beta, lambda a, b: min(a, b) >= 0.1, "alpha and beta of at least 0.1"
    ),
}
"""Distributions a prior may have; `positive_normal` is a normal cut at zero."""


def finite(value: object) -> float | None:
    """Return a finite number as a float, None for anything else (also true, NaN and 10^400)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return None
    return None if value != value else float(value)


def make_prior(family: str, fields: Mapping[str, float], where: str) -> Prior:
    """Build a `Prior` from named fields.

    Raises
    ------
    InputError
        Unknown family or field, missing field, a number that is not finite, or a violated condition.
    """
    if family not in FAMILIES:
        raise InputError(f"{where}: unknown dist '{family}'{did_you_mean(family, FAMILIES)}")
    kind = FAMILIES[family]
    for name in fields:
        if name not in kind.fields:
            raise InputError(
                f"{where}: {family} has no field '{name}'{did_you_mean(name, kind.fields)}; "
                f"give {' and '.join(kind.fields)}"
            )
    for name in kind.fields:
        if finite(fields.get(name)) is None:
            got = reprlib.repr(fields[name]) if name in fields else "nothing"
            raise InputError(f"{where}.{name}: {family} needs a finite number here, got {got}")
    values = [float(fields[name]) for name in kind.fields] + [0.0]
    if not kind.valid(values[0], values[1]):
        raise InputError(f"{where}: {family} needs {kind.needs}")
    return Prior(family, values[0], values[1])


@lru_cache(maxsize=256)
def _beta_table(alpha: float, beta: float) -> np.ndarray:
    """Logit of the beta quantile at equally spaced scores, from whichever tail is precise."""
    z = np.linspace(-SCORE_MAX, SCORE_MAX, TABLE_NODES)
    low, high = special.ndtr(z), special.ndtr(-z)
    x, y = special.betaincinv(alpha, beta, low), special.betaincinv(beta, alpha, high)
    # x is theta and y is 1 - theta, each precise near its own zero.
    with np.errstate(divide="ignore"):
        table = np.where(x < 0.5, np.log(x) - np.log1p(-x), np.log1p(-y) - np.log(y))
    table.flags.writeable = False
    return table


def read_prior(text: str) -> Prior:
    """The prior that prints as `text`, to the digits printed.

    Raises
    ------
    InputError
        The text is none that a prior prints as.
    """
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if not match:
        raise InputError(f"'{text}' is no prior; write it as normal(mean 0, sd 1)")
    parts = [part.split() for part in match[2].split(", ")]
    if not all(len(part) == 2 for part in parts):
        raise InputError(f"'{text}': give each field as a name and a number")
    return make_prior(match[1], {name: _number(number) for name, number in parts}, text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


WIDER = 2.0
"""How much wider `widened` makes a prior, as a factor of its standard deviation."""
LEAST_COUNT = 0.5
"""Least alpha and beta of a widened beta prior, those of Jeffreys' prior."""


def widened(prior: Prior) -> Prior:
    """The same prior, about twice as wide: what might have been believed before it was informed.

    The family stays, so nothing is compiled again, and so does the centre:

    - (log-, logit-)normal, half-normal and positive normal: ``sd`` times `WIDER`;
    - uniform: range times `WIDER` around its middle, cut at 0 if it did not reach below;
    - log-uniform: the same with the logarithm, uncut;
    - beta: ``alpha`` and ``beta`` over the square of `WIDER`, which keeps the mean and about doubles the
      sd, but the smaller of them not below `LEAST_COUNT`.
    """
    a, b = prior.a, prior.b
    if prior.family == "uniform":
        reach = (WIDER - 1) * (b - a) / 2
        return Prior("uniform", max(a - reach, 0.0) if a >= 0 else a - reach, b + reach)
    if prior.family == "loguniform":
        factor = (b / a) ** ((WIDER - 1) / 2)
        return Prior("loguniform", a / factor, b * factor)
    if prior.family == "beta":
        share = min(1.0, max(WIDER**-2, LEAST_COUNT / min(a, b)))
        return Prior("beta", a * share, b * share)
    if prior.family == "halfnormal":
        return Prior("halfnormal", WIDER * a, b)
    return Prior(prior.family, a, WIDER * b)


def array_module(*values: Array) -> Any:
    """Return `pytensor.tensor` if any value is a PyTensor variable, else `numpy`."""
    if any(hasattr(v, "owner") for v in values):
        import pytensor.tensor as pt

        return pt
    return np


def from_score(family: str, z: Array, hyper: Array) -> Array:
    """Parameter value at a standard-normal score, theta = Q(Phi(z)).

    Parameters
    ----------
    family
        Key of `FAMILIES`.
    z
        Scores, any shape; NumPy or PyTensor.
    hyper
        `Prior.hyper`, last axis (2,) or (TABLE_NODES,); leading axes broadcast against `z`.

    Returns
    -------
    Array
        Same shape as `z`, in the parameter's unit.
    """
    if family == "beta":
        return _interpolate(z, hyper)
    xp = array_module(z, hyper)
    erfc, erfcinv = (special.erfc, special.erfcinv) if xp is np else (xp.erfc, xp.erfcinv)
    a, b = hyper[..., 0], hyper[..., 1]
    root2 = np.sqrt(2.0)
    if family == "normal":
        return a + b * z
    if family == "lognormal":
        return a * xp.exp(b * z)
    if family == "logitnormal":
        return 1.0 / (1.0 + xp.exp(-(xp.log(a / (1 - a)) + b * z)))
    if family == "uniform":
        return a + (b - a) * 0.5 * erfc(-z / root2)
    if family == "loguniform":
        return a * xp.exp(xp.log(b / a) * 0.5 * erfc(-z / root2))
    # Both below solve for the upper tail: 1 - Phi((theta - mean)/sd) = Phi(-z) Phi(mean/sd).
    tail = 0.5 * erfc(z / root2)
    if family == "halfnormal":
        return b + a * root2 * erfcinv(tail)
    return a + b * root2 * erfcinv(tail * erfc(-a / b / root2))


def to_score(prior: Prior, x: np.ndarray) -> np.ndarray:
    """Standard-normal score of a parameter's value: `from_score` turned round, in NumPy.

    Values at a bound, where single precision may put them, get a score of `SCORE_MAX` at most.
    """
    a, b = prior.a, prior.b
    with np.errstate(divide="ignore", invalid="ignore"):
        match prior.family:
            case "normal":
                z = (x - a) / b
            case "lognormal":
                z = np.log(x / a) / b
            case "logitnormal":
                z = (special.logit(x) - special.logit(a)) / b
            case "uniform":
                z = special.ndtri(np.clip((x - a) / (b - a), 0.0, 1.0))
            case "loguniform":
                z = special.ndtri(np.clip(np.log(x / a) / np.log(b / a), 0.0, 1.0))
            case "beta":
                low, high = special.betainc(a, b, x), special.betaincc(a, b, x)
                z = np.where(low < 0.5, special.ndtri(low), -special.ndtri(high))
            case "halfnormal":
                y = (x - b) / a / np.sqrt(2.0)
                z = np.where(y < 0.5, special.ndtri(special.erf(y)), -special.ndtri(special.erfc(y)))
            case _:
                z = -special.ndtri(special.ndtr((a - x) / b) / special.ndtr(a / b))
    return np.clip(z, -SCORE_MAX, SCORE_MAX)


def _interpolate(z: Array, table: Array) -> Array:
    """Cubic Hermite interpolation of a tabulated logit quantile, slopes from five points.

    Error below 1e-7 of the logit, or of 1 where that is larger, for alpha and beta from .5 to 100.
    """
    xp = array_module(z, table)
    x = (xp.clip(z, -SCORE_MAX, SCORE_MAX) + SCORE_MAX) / _NODE_STEP
    i = xp.clip(xp.floor(x), 2, TABLE_NODES - 4).astype("int64")
    s = x - i
    rows = () if table.ndim == 1 else (xp.arange(table.shape[0]),)
    a, b, p1, p2, c, d = (table[*rows, i + k] for k in (-2, -1, 0, 1, 2, 3))
    m1, m2 = (a - 8 * b + 8 * p2 - c) / 12, (b - 8 * p1 + 8 * c - d) / 12
    value = p1 + s * m1 + s**2 * (3 * (p2 - p1) - 2 * m1 - m2) + s**3 * (2 * (p1 - p2) + m1 + m2)
    return 1.0 / (1.0 + xp.exp(-value))


@dataclass(frozen=True)
class Parameter:
    """A parameter as its owner declares it: prior, unit, role, and where the prior comes from.

    ``informed`` is the date of the newest information the prior uses; a backtest from an earlier
    origin must say so.  ``cap`` gives an upper limit that depends on parameters declared before it;
    it squeezes a uniform prior below the limit.
    """

    prior: Prior
    unit: str
    role: Role
    meaning: str
    source: str
    informed: dt.date
    cap: Callable[[Mapping[str, Array]], Array] | None = None


def declared_in(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Parameters that a function's signature declares, by argument: a signature is a schema."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = {n: getattr(hint, "__metadata__", (None,))[0] for n, hint in hints.items()}
    return {n: p for n, p in found.items() if isinstance(p, Parameter)}


def Normal(mean: float, sd: float) -> Prior:
    """Normal prior."""
    return Prior("normal", mean, sd)


def LogNormal(median: float, sd: float) -> Prior:
    """Log-normal prior by its median and the sd of the logarithm."""
    return Prior("lognormal", median, sd)


def Uniform(lower: float, upper: float) -> Prior:
    """Uniform prior."""
    return Prior("uniform", lower, upper)


def LogUniform(lower: float, upper: float) -> Prior:
    """Prior uniform in the logarithm."""
    return Prior("loguniform", lower, upper)


def HalfNormal(sd: float) -> Prior:
    """Half-normal prior by the sd of the normal that is folded; `Prior.b` is where it starts."""
    return Prior("halfnormal", sd, 0.0)


def PositiveNormal(mean: float, sd: float) -> Prior:
    """Normal prior cut at zero."""
    return Prior("positive_normal", mean, sd)


def Beta(alpha: float, beta: float) -> Prior:
    """Beta prior."""
    return Prior("beta", alpha, beta)
