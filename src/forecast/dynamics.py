"""The four takeoff dynamics, each a restriction of one family of equations.

A dynamic's keyword-only signature is its schema: each parameter is annotated with its default prior, unit,
role and source.

References
----------
CSET, "When AI Builds AI" (January 2026), for the four dynamics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from forecast.paths import DH, JUDGEMENT, SHARED, Cap, Path, Restriction, integrate
from forecast.priors import Array, Beta, LogNormal, LogUniform, Parameter, Uniform, declared_in


@dataclass(frozen=True)
class Dynamic:
    """A dynamic: a pure function from time and parameters to a `Path`."""

    name: str
    restrict: Callable[..., Restriction]
    """From the dynamic's own parameters to its restriction of the family."""
    parameters: dict[str, Parameter]
    """Own parameters by name; `SHARED` has the others."""

    @property
    def summary(self) -> str:
        """One line on what the dynamic says."""
        return (self.restrict.__doc__ or "").strip()

    def restriction(self, theta: Mapping[str, Array]) -> Restriction:
        """Restriction at the own parameters in `theta`, which may hold others."""
        return self.restrict(**{n: theta[n] for n in self.parameters})

    def __call__(self, time: np.ndarray, theta: Mapping[str, Array], cap: Cap | None = None) -> Path:
        """Path on the grid `time`; `theta` holds own and shared parameters and may hold others."""
        return integrate(time, self.restriction(theta), **{n: theta[n] for n in SHARED}, cap=cap)


DYNAMICS: dict[str, Dynamic] = {}
"""Registry of dynamics by name, filled by `dynamic`."""


def own_names(names: Iterable[str], name: str) -> list[str]:
    """Those of the joint model's parameters that one dynamic has: shared ones, and its own."""
    others = tuple(f"{other}." for other in DYNAMICS if other != name)
    return [n for n in names if not n.startswith(others)]


def dynamic(function: Callable[..., Restriction]) -> Dynamic:
    """Register a dynamic under its function's name."""
    return DYNAMICS.setdefault(function.__name__, Dynamic(function.__name__, function, declared_in(function)))


_RETURNS = "Davidson & Houlden 2025: .4-3.6; Ho & Whitfill 2025: language 1.89 (90 % interval 1.07-3.21)"
_ROOM = "Davidson & Houlden 2025: 6 to 16 orders of magnitude"


@dynamic
def explosive(
    *,
    r: Annotated[
        Array,
        Parameter(
            LogUniform(1.2, 3.6),
            "-",
            "core",
            "local return to software effort at 2026.0, above one",
            _RETURNS,
            DH,
        ),
    ],
    room: Annotated[
        Array,
        Parameter(
            Uniform(14.0, 37.0), "nats", "core", "software progress left at 2026.0: a far ceiling", _ROOM, DH
        ),
    ],
) -> Restriction:
    """Automation rises to everything, returns exceed one and the ceiling is far: gains compound."""
    return Restriction(r, room)


@dynamic
def decaying(
    *,
    r: Annotated[
        Array,
        Parameter(
            LogUniform(0.25, 1.0),
            "-",
            "core",
            "local return to software effort at 2026.0, below one",
            "Ho & Whitfill 2025: below 1 after a compute-share cut",
            DH,
        ),
    ],
    room: Annotated[
        Array,
        Parameter(
            LogNormal(4.5, 0.5),
            "nats",
            "core",
            "software progress left at 2026.0: a near ceiling",
            "judgement: about two orders of magnitude",
            JUDGEMENT,
        ),
    ],
) -> Restriction:
    """Automation rises too, but returns below one and a near ceiling let the multiplier decay."""
    return Restriction(r, room)


# Where returns and ceiling do not set the dynamic apart, they are as wide as the literature has them.
_WideReturn = Annotated[
    Array,
    Parameter(
        LogUniform(0.4, 3.6),
        "-",
        "production",
        "local return to software effort at 2026.0",
        _RETURNS,
        DH,
    ),
]
_WideRoom = Annotated[
    Array,
    Parameter(Uniform(14.0, 37.0), "nats", "production", "software progress left at 2026.0", _ROOM, DH),
]


@dynamic
def amdahl(
    *,
    r: _WideReturn,
    room: _WideRoom,
    phi: Annotated[
        Array,
        Parameter(
            Beta(2.0, 8.0),
            "share",
            "core",
            "share of a fixed task set that is never automated",
            "judgement",
            JUDGEMENT,
        ),
    ],
) -> Restriction:
    """Some of a fixed set of tasks cannot be automated, and they bind."""
    return Restriction(r, room, phi=phi)


@dynamic
def expanding_pie(
    *,
    r: _WideReturn,
    room: _WideRoom,
    h: Annotated[
        Array,
        Parameter(
            Beta(3.0, 5.0),
            "share",
            "core",
            "share of automation that comes back as new human work",
            "judgement",
            JUDGEMENT,
        ),
    ],
    gamma: Annotated[
        Array,
        Parameter(
            LogNormal(0.5, 0.5),
            "-",
            "production",
            "gain in output per nat of new kinds of task",
            "judgement",
            JUDGEMENT,
        ),
    ],
) -> Restriction:
    """Each step of automation reveals contributions that only humans can make; the task set grows."""
    return Restriction(r, room, h=h, gamma=gamma)


def _hybrid(*, r: Array, room: Array, phi: Array, h: Array, gamma: Array) -> Restriction:
    """Some tasks are never automated, and automation brings new human work."""
    return Restriction(r, room, phi, h, gamma)


HYBRID = Dynamic("hybrid", _hybrid, amdahl.parameters | expanding_pie.parameters)
"""`amdahl` and `expanding_pie` at once.  Not registered: in worlds simulated from it none of the dynamics is
true."""
