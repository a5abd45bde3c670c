"""Distributions of observed values given a model's prediction, each with its density and its draw.

Densities have one entry per row, of the value `at` which each row is taken: `Observed.at`, or other values
of rows that are no bounds or intervals.  They are PyTensor graphs (row,), or NumPy arrays (..., row) where
the fields of the law are.  Draws are NumPy.  An indicator returns a law, and the model room records its
density.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from scipy import special

from forecast.priors import Array, array_module

_ROOT2, _ROOT2PI = np.sqrt(2.0), np.sqrt(2 * np.pi)
_FAR = -12.0
"""Below this the exponential tail of an exponentially modified normal is exact to 1e-32, and above it
nothing overflows single precision."""
_LEAST = 1e-6
"""Least probability inside a logarithm; smaller ones only stand in branches that are not taken."""


class Observed(NamedTuple):
    """What was observed, on the scale of the law; arrays (row,).

    ``low == high`` is a value, ``high = inf`` a lower bound, ``low = -inf`` an upper bound, anything
    else an interval that holds the value.  ``se_low`` and ``se_high`` are the standard errors of the
    measurement downwards and upwards; ``n`` a sample size where the law counts.
    """

    low: np.ndarray
    high: np.ndarray
    se_low: np.ndarray
    se_high: np.ndarray
    n: np.ndarray

    @property
    def exact(self) -> np.ndarray:
        """Which rows are values rather than bounds or intervals."""
        return self.low == self.high

    @property
    def at(self) -> np.ndarray:
        """The value, the bound, or the lower end of the interval."""
        return np.where(np.isfinite(self.low), self.low, self.high)


def _special(xp: Any) -> Any:
    """Where `erfcx` and `gammaln` of an array module are."""
    return special if xp is np else xp


def cut(x: Array, sizes: Sequence[int]) -> list[Array]:
    """Split the last axis into parts of the given sizes."""
    if len(sizes) == 1:
        return [x]
    if array_module(x) is np:
        return list(np.split(x, np.cumsum(sizes)[:-1], axis=-1))
    return list(pt.split(x, sizes, n_splits=len(sizes)))


def _log_ex(x: Array, sd: Array, scale: Array) -> Array:
    """Log density of N(0, sd^2) + Exponential(mean scale) at x.

    -ln scale - x^2/(2 sd^2) + ln(erfcx(a/sqrt 2)/2), a = sd/scale - x/sd.
    """
    xp = array_module(x, sd, scale)
    z = x / sd
    a = sd / scale - z
    near = xp.log(0.5 * _special(xp).erfcx(xp.maximum(a, _FAR) / _ROOT2))
    return -xp.log(scale) - 0.5 * z**2 + xp.where(a > _FAR, near, 0.5 * a**2)


def _log_ex_cdf(x: Array, sd: Array, scale: Array) -> Array:
    """Log distribution function of the same sum, Phi(z) less scale times the density."""
    xp = array_module(x, sd, scale)
    z = x / sd
    a = sd / scale - z
    both = _special(xp).erfcx(xp.concatenate([abs(z), xp.maximum(a, _FAR)], axis=-1) / _ROOT2)
    normal, tail = cut(both, [z.shape[-1]] * 2)
    below = -0.5 * z**2 + xp.log(xp.where(z < 0, 0.5 * (normal - tail), 1.0))
    near = xp.exp(-0.5 * z**2) * 0.5 * (normal + tail)
    far = xp.exp(0.5 * xp.minimum(a, 0.0) ** 2 - 0.5 * z**2)
    above = xp.log1p(-xp.minimum(xp.where(a > _FAR, near, far), 1.0 - _LEAST))
    return xp.where(z < 0, below, above)


def log_normal_cdf(x: Array) -> Array:
    """Log Phi(x), precise in both tails with one special function."""
    xp = array_module(x)
    # Not abs(x), whose slope of 0 at 0 would be wrong here.
    half = 0.5 * _special(xp).erfcx(xp.where(x < 0, -x, x) / _ROOT2)
    return xp.where(x < 0, xp.log(half) - 0.5 * x**2, xp.log1p(-half * xp.exp(-0.5 * x**2)))


def _join(parts: list[tuple[np.ndarray, Array]]) -> Array:
    """Put values computed for disjoint sets of rows back into row order."""
    parts = [(rows, value) for rows, value in parts if len(rows)]
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    values = [value for _, value in parts]
    return array_module(*values).concatenate(values, axis=-1)[..., order]


class Shortfall(NamedTuple):
    """y = mu - Exponential(mean scale) + N(0, sd^2): a frontier, a shortfall from it, and noise.

    Bounds are lower ones.

    Source: the exponentially modified normal; the standard form of a stochastic frontier (Aigner,
    Lovell & Schmidt 1977).
    """

    mu: Array
    sd: Array
    scale: Array

    def logp(self, y: Observed, at: Array) -> Array:
        """Log density, or log probability of the bound, of each row, (row,)."""
        x, value = self.mu - at, np.flatnonzero(y.exact)
        if len(value) == len(y.low):
            return _log_ex(x, self.sd, self.scale)
        parts = []
        for rows, log_p in ((value, _log_ex), (np.flatnonzero(~y.exact), _log_ex_cdf)):
            parts.append((rows, log_p(x[..., rows], self.sd[..., rows], self.scale[..., rows])))
        return _join(parts)

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,)."""
        return self.mu - rng.exponential(self.scale) + rng.normal(0.0, self.sd)


class SplitShortfall(NamedTuple):
    """`Shortfall` with one sd below the observed value and another above it, right-censored if bounded.

    With x = mu - y, the density is A g(x; sd_low) for x < 0 and A' g(x; sd_high) for x > 0, A and A'
    making it continuous and integrate to one: a two-piece normal if the shortfall is nothing.
    """

    mu: Array
    sd_low: Array
    sd_high: Array
    scale: Array

    def _pieces(self) -> tuple[Array, Array, Array]:
        """A, A' and the probability of x < 0; at zero density and distribution are closed forms."""
        xp = array_module(self.mu, self.scale)
        erfcx = special.erfcx if xp is np else pt.erfcx
        both = erfcx(xp.stack([self.sd_low, self.sd_high]) / self.scale / _ROOT2)
        low, high = both[0], both[1]
        below = 0.5 * (1.0 - low)
        factor = 1.0 / (below + 0.5 * (1.0 + high) * low / high)
        return factor, factor * low / high, factor * below

    def logp(self, y: Observed, at: Array) -> Array:
        """Log density, or log probability above the bound, of each row, (row,)."""
        xp = array_module(self.mu, self.scale)
        factor, factor_above, _ = self._pieces()
        x = self.mu - at
        value, bound = np.flatnonzero(y.exact), np.flatnonzero(~y.exact)
        sd = xp.where(x < 0, self.sd_low, self.sd_high)
        parts = []
        if len(value):
            scaled = xp.log(xp.where(x < 0, factor, factor_above)[..., value])
            density = _log_ex(x[..., value], sd[..., value], self.scale[..., value])
            parts.append((value, scaled + density))
        if len(bound):
            below = _log_ex_cdf(x[..., bound], sd[..., bound], self.scale[..., bound])
            above = 1.0 - xp.minimum(factor_above[..., bound] * (1.0 - xp.exp(below)), 1.0 - _LEAST)
            inside = xp.log(factor[..., bound]) + below
            parts.append((bound, xp.where(x[..., bound] < 0, inside, xp.log(above))))
        return _join(parts)

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,), by rejection within each piece."""
        shape = np.shape(self.mu)
        left = (rng.random(shape) < self._pieces()[2]).ravel()
        sd = np.where(
            left, np.broadcast_to(self.sd_low, shape).ravel(), np.broadcast_to(self.sd_high, shape).ravel()
        )
        scale = np.broadcast_to(self.scale, shape).ravel()
        x = np.empty(left.size)
        # Some pieces are improbable, so only what was refused is drawn again.
        todo = np.arange(left.size)
        while len(todo):
            trial = rng.exponential(scale[todo]) + rng.normal(0.0, sd[todo])
            taken = (trial < 0) == left[todo]
            x[todo[taken]] = trial[taken]
            todo = todo[~taken]
        return self.mu - x.reshape(shape)


class Reported(NamedTuple):
    """y ~ skew-normal(mu, sd, shape): what is reported when favourable noise is reported more often.

    If a row is reported with probability Phi(shape z), z its own noise, the reported value has
    density (2/sd) phi(z) Phi(shape z) (Azzalini 1985).  Bounds and intervals use the normal part
    alone: a bound is chosen by what can be claimed, not by the noise of one value.
    """

    mu: Array
    sd: Array
    shape: Array

    def logp(self, y: Observed, at: Array) -> Array:
        """Log density, or log probability of the bound or interval, of each row, (row,)."""
        inside = ~y.exact & np.isfinite(y.low) & np.isfinite(y.high)
        value, between = np.flatnonzero(y.exact), np.flatnonzero(inside)
        bound = np.flatnonzero(~y.exact & ~inside)
        xp = array_module(self.mu, self.shape, at)
        sign = np.where(np.isinf(y.high), -1.0, 1.0)[bound]
        z = (at - self.mu) / self.sd
        # An interval is read in the lower tail, where a difference of probabilities is precise.
        far = (xp.where(inside, np.where(inside, y.high, 0.0), at) - self.mu) / self.sd
        flip = xp.where(z + far > 0, -1.0, 1.0)[..., between]
        ends = [flip * z[..., between], flip * far[..., between]]
        skewed = self.shape[..., value] * z[..., value]
        asked = [skewed, sign * z[..., bound], xp.maximum(*ends), xp.minimum(*ends)]
        sizes = [len(value), len(bound), len(between), len(between)]
        skew, outside, top, bottom = cut(log_normal_cdf(xp.concatenate(asked, axis=-1)), sizes)
        density = -0.5 * z[..., value] ** 2 - xp.log(self.sd[..., value] * _ROOT2PI / 2)
        inside = top + xp.log1p(-xp.exp(bottom - top))
        parts = [(value, density + skew), (bound, outside), (between, inside)]
        return _join(parts)

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,)."""
        delta = self.shape / np.sqrt(1 + self.shape**2)
        size = np.shape(self.mu)
        z = delta * np.abs(rng.normal(size=size)) + np.sqrt(1 - delta**2) * rng.normal(size=size)
        return self.mu + self.sd * z


class Counted(NamedTuple):
    """k of n ~ Binomial(n, Phi(probit)); the observed value is k."""

    probit: Array

    def logp(self, y: Observed, at: Array) -> Array:
        """Log probability of each row, (row,)."""
        gammaln = _special(array_module(at)).gammaln
        choose = special.gammaln(y.n + 1) - gammaln(at + 1) - gammaln(y.n - at + 1)
        yes, no = (log_normal_cdf(sign * self.probit) for sign in (1.0, -1.0))
        return choose + at * yes + (y.n - at) * no

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,)."""
        return rng.binomial(y.n.astype(int), special.ndtr(self.probit)).astype(float)


Law = Shortfall | SplitShortfall | Reported | Counted
"""The distribution of an indicator's rows."""
