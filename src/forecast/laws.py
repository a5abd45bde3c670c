"""Distributions of observed values given a model's prediction, each with its density and its draw.

Densities are PyTensor graphs, one entry per row; draws are NumPy.  An indicator returns a law, and
the model room records its density.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.dist_math import log_diff_normal_cdf, normal_lcdf
from scipy import special

from forecast.priors import Array

_ROOT2 = np.sqrt(2.0)
_FAR = -25.0
"""Below this the exponential tail of an exponentially modified normal is exact to 1e-270."""


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


def _log_ex(x: Array, sd: Array, scale: Array) -> Array:
    """Log density of N(0, sd^2) + Exponential(mean scale) at x.

    -ln scale - x^2/(2 sd^2) + ln(erfcx(a/sqrt 2)/2), a = sd/scale - x/sd.
    """
    z = x / sd
    a = sd / scale - z
    near = pt.log(0.5 * pt.erfcx(pt.maximum(a, _FAR) / _ROOT2))
    return -pt.log(scale) - 0.5 * z**2 + pt.switch(a > _FAR, near, 0.5 * a**2)


def _log_ex_cdf(x: Array, sd: Array, scale: Array) -> Array:
    """Log distribution function of the same sum."""
    z = x / sd
    low = pt.minimum(z, 0.0)
    below = -0.5 * low**2 + pt.log(
        0.5 * (pt.erfcx(-low / _ROOT2) - pt.erfcx((sd / scale - low) / _ROOT2))
    )
    high = pt.maximum(z, 0.0)
    # Phi(z) - scale times the density, which is the second term of the closed form.
    tail = pt.exp(_log_ex(high * sd, sd, scale) + pt.log(scale))
    above = pt.log(pt.maximum(0.5 * pt.erfc(-high / _ROOT2) - tail, 1e-12))
    return pt.switch(z < 0, below, above)


class Shortfall(NamedTuple):
    """y = mu - Exponential(mean scale) + N(0, sd^2): a frontier, a shortfall from it, and noise.

    Source: the exponentially modified normal; the standard form of a stochastic frontier (Aigner,
    Lovell & Schmidt 1977).
    """

    mu: Array
    sd: Array
    scale: Array

    def logp(self, y: Observed) -> Array:
        """Log density of each row, (row,)."""
        return _log_ex(self.mu - y.low, self.sd, self.scale)

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

    def _pieces(self) -> tuple[Array, Array]:
        zero = 0.0 * self.mu
        ratio = _log_ex(zero, self.sd_low, self.scale) - _log_ex(zero, self.sd_high, self.scale)
        below = pt.exp(_log_ex_cdf(zero, self.sd_low, self.scale))
        above = 1.0 - pt.exp(_log_ex_cdf(zero, self.sd_high, self.scale))
        log_below = -pt.log(below + above * pt.exp(ratio))
        return log_below, log_below + ratio

    def logp(self, y: Observed) -> Array:
        """Log density, or log probability above the bound, of each row, (row,)."""
        log_below, log_above = self._pieces()
        x = self.mu - y.low
        sd = pt.switch(x < 0, self.sd_low, self.sd_high)
        value = _log_ex(x, sd, self.scale) + pt.switch(x < 0, log_below, log_above)
        low = log_below + _log_ex_cdf(pt.minimum(x, 0.0), self.sd_low, self.scale)
        rest = 1.0 - pt.exp(_log_ex_cdf(pt.maximum(x, 0.0), self.sd_high, self.scale))
        high = pt.log1p(-pt.minimum(pt.exp(log_above) * rest, 1.0 - 1e-12))
        return pt.switch(y.exact, value, pt.switch(x < 0, low, high))

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,), by rejection within each piece."""
        log_below = np.broadcast_to(_evaluate(self._pieces()[0]), self.mu.shape)
        zero = np.zeros_like(self.mu)
        below = np.exp(log_below + _evaluate(_log_ex_cdf(zero, self.sd_low, self.scale)))
        left = rng.random(self.mu.shape) < below
        sd = np.where(left, self.sd_low, self.sd_high)
        x = np.full(self.mu.shape, np.nan)
        while (todo := np.isnan(x)).any():
            trial = rng.exponential(np.broadcast_to(self.scale, x.shape)) + rng.normal(0.0, sd)
            x = np.where(todo & ((trial < 0) == left), trial, x)
        return self.mu - x


def _evaluate(graph: Any) -> np.ndarray:
    return np.asarray(graph.eval(mode="FAST_COMPILE"))


class Reported(NamedTuple):
    """y ~ skew-normal(mu, sd, shape): what is reported when favourable noise is reported more often.

    If a row is reported with probability Phi(shape z), z its own noise, the reported value has
    density (2/sd) phi(z) Phi(shape z) (Azzalini 1985).  Bounds and intervals use the normal part
    alone: a bound is chosen by what can be claimed, not by the noise of one value.
    """

    mu: Array
    sd: Array
    shape: Array

    def logp(self, y: Observed) -> Array:
        """Log density, or log probability of the bound or interval, of each row, (row,)."""
        exact, lower = y.exact, np.isinf(y.high)
        at = np.where(np.isfinite(y.low), y.low, y.high)
        z = (at - self.mu) / self.sd
        value = (
            np.log(2.0) - 0.5 * np.log(2 * np.pi) - pt.log(self.sd) - 0.5 * z**2
            + normal_lcdf(0.0, 1.0, self.shape * z)
        )
        bound = normal_lcdf(0.0, 1.0, pt.switch(lower, -z, z))
        inside = ~exact & np.isfinite(y.low) & np.isfinite(y.high)
        if not inside.any():
            return pt.switch(exact, value, bound)
        high = (np.where(inside, y.high, at + 1.0) - self.mu) / self.sd
        between = log_diff_normal_cdf(0.0, 1.0, high, z)
        return pt.switch(exact, value, pt.switch(inside, between, bound))

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,)."""
        delta = self.shape / np.sqrt(1 + self.shape**2)
        size = np.shape(self.mu)
        z = delta * np.abs(rng.normal(size=size)) + np.sqrt(1 - delta**2) * rng.normal(size=size)
        return self.mu + self.sd * z


class Counted(NamedTuple):
    """k of n ~ Binomial(n, Phi(probit)); the observed value is k."""

    probit: Array

    def logp(self, y: Observed) -> Array:
        """Log probability of each row, (row,)."""
        choose = special.gammaln(y.n + 1) - special.gammaln(y.low + 1) - special.gammaln(y.n - y.low + 1)
        yes, no = normal_lcdf(0.0, 1.0, self.probit), normal_lcdf(0.0, 1.0, -self.probit)
        return choose + y.low * yes + (y.n - y.low) * no

    def draw(self, rng: np.random.Generator, y: Observed) -> np.ndarray:
        """One draw per row, (row,)."""
        return rng.binomial(y.n.astype(int), special.ndtr(self.probit)).astype(float)


Law = Shortfall | SplitShortfall | Reported | Counted
"""The distribution of an indicator's rows."""
