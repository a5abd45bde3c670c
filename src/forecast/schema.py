"""Names every room shares: the grid, the groups of assumptions, and the one error a user sees.

The words of this project: a *dynamic* is a structural model of how AI R&D feeds on itself; a
*worldview* is prior odds over dynamics plus the assumptions that differ from the defaults; an
*indicator* is an observed series with its observation model; *absorption* is evidence taken in by
assumptions instead of by the weights over dynamics.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

T0 = 2023.0
"""Start of the grid, calendar year."""
T_REFERENCE = 2026.0
"""Date at which r, room, q_r and f26 are stated, calendar year."""
T_END = 2041.0
"""End of the grid, calendar year."""

Role = Literal["core", "timing", "inputs", "production", "measurement", "calibration"]
"""What a parameter is to its dynamic: its core, a belt group its holders may move, or calibration."""
BELT: tuple[Role, ...] = ("timing", "inputs", "production", "measurement")
"""The four groups of belt assumptions."""


class InputError(ValueError):
    """Bad input from a user: one line naming file, row, field and the mend."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
