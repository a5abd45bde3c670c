"""Names every room shares: the grid, the groups of assumptions, and the one error a user sees.

The words of this project: a *dynamic* is a structural model of how AI R&D feeds on itself; a
*worldview* is prior odds over dynamics plus the assumptions that differ from the defaults; an
*indicator* is an observed series with its observation model; *absorption* is evidence taken in by
assumptions instead of by the weights over dynamics.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

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


def check_known(what: str, words: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise `InputError` at the first word that is not known."""
    for word in words:
        if word not in known:
            raise InputError(f"{where}: unknown {what} '{word}'{did_you_mean(word, known)}")


def check_told(fields: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raise `InputError` at the first key without words."""
    for key in keys:
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise InputError(f'{where}: {key} is missing; add {key} = "..."')


def read_toml(path: Path, mend: str) -> dict[str, Any]:
    """Read a TOML file; raise `InputError` with what would `mend` it if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {mend}") from None
    except ValueError as error:
        raise InputError(f"{path.name}: not TOML: {error}; mend the syntax there") from None
