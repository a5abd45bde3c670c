"""The family of equations that every dynamic restricts: time and parameters in, a `Path` out.

Plain numbers give NumPy paths; PyTensor variables give the same paths as a graph.  The keyword-only
signature of `integrate` is the schema of the parameters that all dynamics share: each is annotated with
its default prior, unit, role and source.

References
----------
Davidson & Houlden (2025) and Jones (1995) for idea production with a ceiling; Acemoglu & Restrepo (2018)
for new tasks as old ones are automated; Kwa (2025) for automation velocity.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
from scipy import special

from forecast.priors import (
    Array,
    Beta,
    LogNormal,
    LogUniform,
    Normal,
    Parameter,
    PositiveNormal,
    Uniform,
    array_module,
    declared_in,
)
from forecast.schema import T0, T_END

NO_FLOOR = 0.001
"""Share of tasks kept human in dynamics without a floor; keeps logarithms finite."""
MIN_CURVATURE = 1.05
"""Declared floor of p = beta s_max, the power with which growth falls towards the ceiling."""
HEADCOUNT_SLOWS = 2029.0
"""Year from which research headcount grows at `LATE_HEADCOUNT_GROWTH`."""
LATE_HEADCOUNT_GROWTH = 0.1
"""Headcount growth after `HEADCOUNT_SLOWS`, nats per year."""
MAX_REACH = 0.98
"""Largest f26 as a share of what can be automated at all, 1 - phi."""
LARGEST_LOG = 80.0
"""Cap of ln s', below the overflow of the exponential in single precision."""
TINY = 1e-37
"""Least phi and H inside a logarithm, a normal number in single precision too."""


class Path(NamedTuple):
    """One path on the grid; every array has dims (..., time).

    The three multipliers are never the same thing: ``m`` is output per researcher against no AI,
    ``P`` the pace of software progress and ``W`` the overall pace of progress, both against the same
    state without AI.
    """

    time: np.ndarray
    """Calendar year, (time,)."""
    s: Array
    """ln software level, nats since 2023.0."""
    k: Array
    """ln compute, nats since 2023.0."""
    e: Array
    """Capability s + k, nats."""
    eD: Array
    """Capability deployed in R&D, nats."""
    log_H: Array
    """ln human share of required R&D tasks, current basket."""
    logit_F: Array
    """Logit of F, the automated share of the basket frozen at the beginning."""
    log_m: Array
    """ln researcher-output multiplier m."""
    log_P: Array
    """ln software-pace multiplier P."""
    log_W: Array
    """ln overall-pace multiplier W."""
    ds: Array
    """Software growth s', nats per year."""
    d50: Array
    """Deployed capability at which half of the automatable basket is automated, nats; (...)."""

    @property
    def H(self) -> Array:
        """Human share of required R&D tasks, current basket, in (0, 1]."""
        return np.exp(self.log_H)

    @property
    def F(self) -> Array:
        """Automated share of the frozen basket, in [0, 1)."""
        return special.expit(self.logit_F)

    @property
    def m(self) -> Array:
        """Researcher-output multiplier, >= 1."""
        return np.exp(self.log_m)

    @property
    def P(self) -> Array:
        """Software-pace multiplier, >= 1."""
        return np.exp(self.log_P)

    @property
    def W(self) -> Array:
        """Overall-pace multiplier, >= 1."""
        return np.exp(self.log_W)


class Restriction(NamedTuple):
    """What sets one dynamic apart within the family."""

    r: Array
    """Local return to software effort at 2026.0."""
    room: Array
    """Software progress left at 2026.0, nats."""
    phi: Array = NO_FLOOR
    """Share of the task set that is never automated."""
    h: Array = 0.0
    """Share of automation that comes back as new human work."""
    gamma: Array = 0.0
    """Gain in output per nat of new kinds of task."""


class Cap(NamedTuple):
    """An intervention on the compute path: from `start` on, compute grows no faster than `growth`."""

    start: float
    """Calendar year, after 2026.0."""
    growth: float
    """Nats a year."""


def make_grid(end: float = T_END, per_year: int = 4) -> np.ndarray:
    """Grid from 2023.0 to the first step at or past `end`; 4 steps a year, or 12 for monthly."""
    steps = int(np.ceil((end - T0) * per_year - 1e-9))
    return T0 + np.arange(steps + 1) / per_year


def _softplus(xp: Any, x: Array) -> Array:
    return np.logaddexp(0.0, x) if xp is np else xp.softplus(x)


def _scan(
    xp: Any,
    step: Callable[..., Any],
    k: Array,
    forcing: Array,
    start: tuple[Array, Array],
    fixed: list[Array],
) -> tuple[Array, Array]:
    """Run `step` along the last axis of (k, forcing) and stack its states along a last axis."""
    if xp is np:
        states = [start]
        for i in range(1, k.shape[-1]):
            states.append(step(k[..., i], forcing[..., i - 1], *states[-1], *fixed))
        first, second = zip(*states, strict=True)
        return np.stack(np.broadcast_arrays(*first), -1), np.stack(np.broadcast_arrays(*second), -1)
    import pytensor

    fixed = [xp.as_tensor(x, dtype="float64") for x in fixed]
    tail = pytensor.scan(
        step,
        sequences=[k[1:], forcing[:-1]],
        outputs_info=[xp.as_tensor(x, dtype="float64") for x in start],
        non_sequences=fixed,
        strict=True,
        return_updates=False,
    )
    return tuple(
        xp.concatenate([xp.shape_padleft(xp.as_tensor(a, dtype="float64")), b])
        for a, b in zip(start, tail, strict=True)
    )


def _compute(
    xp: Any, time: np.ndarray, early: Array, late: Array, slows: Array, cap: Cap | None
) -> tuple[Array, Array]:
    """Ln compute and the log of its growth, (..., time): one rate, then another, both capped if asked."""
    growth = early + (late - early) * (time >= slows)
    if cap is None:
        return early * (time - T0) + (late - early) * xp.maximum(time - slows, 0.0), xp.log(growth)
    until = np.minimum(time, cap.start)
    k = early * (until - T0) + (late - early) * xp.maximum(until - slows, 0.0)
    k = k + xp.minimum(early, cap.growth) * (xp.maximum(xp.minimum(time, slows), cap.start) - cap.start)
    k = k + xp.minimum(late, cap.growth) * xp.maximum(time - xp.maximum(slows, cap.start), 0.0)
    capped = xp.where(time >= cap.start, xp.minimum(growth, cap.growth), growth)
    return k, xp.log(xp.maximum(capped, TINY))


AIFM = dt.date(2025, 12, 31)
"""What the AI Futures Model knew, as the days below are of other sources."""
DH = dt.date(2025, 3, 31)
KWA = dt.date(2026, 1, 31)
JUDGEMENT = dt.date(2026, 1, 31)


def integrate(
    time: np.ndarray,
    restriction: Restriction,
    *,
    g0: Annotated[
        Array,
        Parameter(
            LogNormal(1.5, 0.40),
            "nats/yr",
            "production",
            "software growth in 2023",
            "AI Futures Model: .25-2.5 orders of magnitude a year; Epoch AI: 3x-10x a year; Kwa: 5x a year",
            AIFM,
        ),
    ],
    pL: Annotated[
        Array,
        Parameter(
            LogUniform(0.15, 0.60),
            "-",
            "production",
            "elasticity of software pace to research labour",
            "Davidson & Houlden 2025, parameter p",
            DH,
        ),
    ],
    pK: Annotated[
        Array,
        Parameter(
            Uniform(0.0, 1.0),
            "-",
            "production",
            "elasticity of software pace to compute, at most 1 - pL",
            "Davidson & Houlden 2025 and Kwa 2026: pL + pK <= 1",
            KWA,
            cap=lambda p: 1.0 - p["pL"],
        ),
    ],
    v: Annotated[
        Array,
        Parameter(
            LogNormal(0.38, 0.27),
            "1/nat",
            "timing",
            "automation velocity per nat of deployed capability",
            "Kwa 2026: 1/v between 1.5 and 4.2",
            KWA,
        ),
    ],
    f26: Annotated[
        Array,
        Parameter(
            Beta(6.0, 11.0),
            "share",
            "timing",
            "automated share of the frozen basket, January 2026",
            "Kwa 2026: .25-.5, widened downwards",
            KWA,
        ),
    ],
    sigma: Annotated[
        Array,
        Parameter(
            Beta(4.0, 8.0),
            "-",
            "production",
            "elasticity of substitution between tasks",
            "AI Futures Model: rho -5, -2, -1",
            AIFM,
        ),
    ],
    ln_qr: Annotated[
        Array,
        Parameter(
            Normal(float(np.log(2.0)), 0.7),
            "nats",
            "production",
            "ln AI speed-up over a human on automated tasks at 2026.0 (q = 1 + exp(ln_qr))",
            "OpenAI 2026: 3.1 agent-workdays per workday",
            dt.date(2026, 6, 25),
        ),
    ],
    chi: Annotated[
        Array,
        Parameter(
            LogNormal(0.7, 0.4),
            "-",
            "production",
            "slope of ln AI productivity in deployed capability",
            "judgement",
            JUDGEMENT,
        ),
    ],
    tau: Annotated[
        Array,
        Parameter(
            LogNormal(0.35, 0.40),
            "yr",
            "timing",
            "lag from discovery to deployment in R&D",
            "judgement: training plus deployment time",
            JUDGEMENT,
        ),
    ],
    gK1: Annotated[
        Array,
        Parameter(
            Normal(1.38, 0.12),
            "nats/yr",
            "inputs",
            "compute growth before the slow-down",
            "AI Futures Model",
            AIFM,
        ),
    ],
    ts: Annotated[
        Array,
        Parameter(
            Uniform(2026.5, 2030.0),
            "calendar year",
            "inputs",
            "date at which compute growth slows",
            "AI Futures Model",
            AIFM,
        ),
    ],
    gK2: Annotated[
        Array,
        Parameter(
            PositiveNormal(0.58, 0.18),
            "nats/yr",
            "inputs",
            "compute growth after the slow-down",
            "AI Futures Model",
            AIFM,
        ),
    ],
    gL: Annotated[
        Array,
        Parameter(
            Normal(0.65, 0.12),
            "nats/yr",
            "inputs",
            "research headcount growth until 2029",
            "Epoch AI; Kwa 2026",
            KWA,
        ),
    ],
    cap: Cap | None = None,
) -> Path:
    """Integrate the family on a grid.

    The equations, with x = 1 - s/s_max and u = v (1 - phi)(eD - d50)::

        (1) ds/dt  = g0 exp{pL (l + ln m - ln m(t0)) + pK k} x^(beta s_max)
        (2) s_max  = s_r + room,  s_r = 3 g0,  beta = pL chi (1 - s_r/s_max) / r
        (3) deD/dt = (e - eD)/tau
        (4) H      = H* + (1 - H*) sigmoid(-u),  H* = phi + (1 - phi) h
        (5) F      = (1 - phi) sigmoid(u)
        (6) ln q   = softplus(ln q_r + chi (eD - e_r))
        (7) ln m   = -logaddexp(ln H, ln(1-H) - (1-sigma) ln q)/(1-sigma) + gamma h softplus(u)
        (8) W      = (s' + k') / (s'/P + k'),  P = (m/m(t0))^pL

    Within a step of length D the factor G = g0 exp{...} is frozen and dx/dt = -(G/s_max) x^p solved
    exactly, so the ceiling bounds s and nothing blows up.

    Parameters
    ----------
    time
        Equally spaced calendar years from 2023.0, (time,).
    restriction
        What sets the dynamic apart.
    cap
        An intervention: what it changes is the path from its start on, and nothing of what is known.

    Returns
    -------
    Path
        Arrays (..., time) where the parameters are broadcast to (...).
    """
    r, room, phi, h, gamma = restriction
    xp = array_module(r, room, phi, h, gamma, g0, pL, v, f26)
    if xp is np:
        r, room, phi, h, gamma, g0, pL, pK, v, f26, sigma, ln_qr, chi, tau, gK1, ts, gK2, gL = (
            np.asarray(x, float)
            for x in (r, room, phi, h, gamma, g0, pL, pK, v, f26, sigma, ln_qr, chi, tau, gK1, ts, gK2, gL)
        )
    D = float(time[1] - time[0])

    def along(x: Array) -> Array:
        return x[..., None] if getattr(x, "ndim", 0) else x

    s_r = 3.0 * g0
    s_max = s_r + room  # (2)
    beta = pL * chi * (1.0 - s_r / s_max) / r
    p = xp.maximum(beta * s_max, MIN_CURVATURE)
    c = pL * gL + pK * gK1 - beta * g0
    c = xp.where(xp.abs(c) < 1e-8, 1e-8, c)
    e_r = g0 * xp.expm1(3 * c) / c + 3 * gK1 - tau * (g0 * xp.exp(3 * c) + gK1)
    reach = xp.minimum(f26 / (1 - phi), MAX_REACH)
    velocity = v * (1 - phi)
    d50 = e_r - xp.log(reach / (1 - reach)) / velocity
    H_star = phi + (1 - phi) * h

    k, log_dk = _compute(xp, time, along(gK1), along(gK2), along(ts), cap)
    headcount = along(gL) * (np.minimum(time, HEADCOUNT_SLOWS) - T0) + LATE_HEADCOUNT_GROWTH * np.maximum(
        time - HEADCOUNT_SLOWS, 0.0
    )
    forcing = along(pL) * headcount + along(pK) * k

    def multiplier(eD: Array, *q: Array) -> tuple[Array, Array, Array]:
        H_star, velocity, d50, sigma, ln_qr, chi, e_r, gamma_h = q
        u = velocity * (eD - d50)
        log_H = xp.log(xp.maximum(H_star + (1 - H_star) * xp.exp(-_softplus(xp, u)), TINY))  # (4)
        log_A = xp.log1p(-H_star) - _softplus(xp, -u)  # ln(1 - H)
        ln_q = _softplus(xp, ln_qr + chi * (eD - e_r))  # (6)
        ces = -xp.logaddexp(log_H, log_A - (1 - sigma) * ln_q) / (1 - sigma)
        return u, log_H, ces + gamma_h * _softplus(xp, u)  # (7)

    task = [H_star, velocity, d50, sigma, ln_qr, chi, e_r, gamma * h]
    eD_start = -tau * (g0 + gK1)  # (3) at t0
    log_m0 = multiplier(eD_start, *task)[2]
    decay = -xp.expm1(-D / tau)

    def step(k_next: Array, forcing: Array, log_x: Array, eD: Array, *fixed: Array) -> tuple[Array, Array]:
        g0, pL, log_m0, p, s_max, decay, *task = fixed
        log_G = xp.log(g0) + forcing + pL * (multiplier(eD, *task)[2] - log_m0)  # (1)
        z = xp.log(p - 1) + log_G + np.log(D) - xp.log(s_max) + (p - 1) * log_x
        log_x = log_x - _softplus(xp, z) / (p - 1)
        s = -s_max * xp.expm1(log_x)
        return log_x, eD + decay * (s + k_next - eD)  # (3)

    zero = 0.0 * (g0 + eD_start)
    log_x, eD = _scan(xp, step, k, forcing, (zero, eD_start), [g0, pL, log_m0, p, s_max, decay, *task])
    s = -along(s_max) * xp.expm1(log_x)
    u, log_H, log_m = multiplier(eD, *(along(x) for x in task))
    log_P = along(pL) * (log_m - along(log_m0))
    log_ds = xp.log(along(g0)) + forcing + log_P + along(p) * log_x
    log_W = xp.logaddexp(log_ds, log_dk) - xp.logaddexp(log_ds - log_P, log_dk)  # (8)
    # The cap leaves every plausible path alone; without it exp overflows in extreme draws.
    ds = xp.exp(xp.minimum(log_ds, LARGEST_LOG))
    log_phi = xp.log(xp.maximum(along(phi), TINY))
    logit_F = xp.log1p(-along(phi)) - xp.logaddexp(-u, log_phi)  # (5)
    return Path(time, s, k, s + k, eD, log_H, logit_F, log_m, log_P, log_W, ds, d50)


SHARED: dict[str, Parameter] = declared_in(integrate)
"""Parameters every dynamic shares, in declaration order."""
