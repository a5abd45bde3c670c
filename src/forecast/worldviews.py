"""Worldviews: prior odds over the dynamics, and the assumptions that differ from the defaults.

A worldview is one TOML file. It states only where it differs from the priors at the functions, each
line with its reason, its source and the date of the newest information in it.
"""

from __future__ import annotations

import codecs
import datetime
import math
import reprlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from forecast import dynamics as dyn
from forecast.paths import SHARED, make_grid
from forecast.priors import FAMILIES, Parameter, Prior, finite, make_prior, widened
from forecast.schema import T0, InputError, did_you_mean

STATED = ("reason", "source", "informed")  # beside the prior
SHARES = ("beta", "logitnormal")  # families within (0, 1)
_LINKS: dict[tuple[float | None, ...], tuple[str, Callable[[float], float], Callable[[float], float]]] = {
    (None, None): ("normal", float, float),
    (0.0, None): ("lognormal", math.log, math.exp),
    (0.0, 1.0): ("logitnormal", special.logit, special.expit),
}
"""Bounds beside ``ci80`` -> family, the link that makes it a normal, and the way back."""


@dataclass(frozen=True)
class Line:
    """One assumption of a worldview: its prior and why, and how new what it rests on is."""

    prior: Prior
    reason: str
    source: str
    informed: datetime.date


@dataclass(frozen=True)
class Worldview:
    """Prior odds over the dynamics plus the assumptions that differ from the defaults."""

    name: str
    title: str
    odds: dict[str, float]
    """Prior probability of every registered dynamic; 0 for one that the file does not name."""
    odds_reason: str
    lines: dict[str, Line]
    """Assumptions by full name of the parameter: ``tau``, ``decaying.room``, ``gso_opt1.slope``."""

    @property
    def priors(self) -> dict[str, Prior]:
        """Changed priors by full name."""
        return {name: line.prior for name, line in self.lines.items()}


def known_parameters() -> dict[str, Parameter]:
    """Return everything a worldview may change by full name: all but the deviation's innovations."""
    from forecast import indicators as ind
    from forecast import observation as obs

    own = {f"{d.name}.{n}": p for d in dyn.DYNAMICS.values() for n, p in d.parameters.items()}
    found = SHARED | own | obs.SHARED
    for indicator in ind.INDICATORS.values():
        found |= indicator.parameters(indicator.ids)
    return found


def load_worldview(path: Path) -> Worldview:
    """Read one worldview; raise `InputError` with the first problem of the file."""
    worldview, problems = _examine(path)
    if worldview is None:
        raise InputError(problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    return worldview


def load_worldviews(directory: Path) -> dict[str, Worldview]:
    """Read every worldview of a folder by name, ``neutral`` first; raise `InputError` as `load_worldview`."""
    return {path.stem: load_worldview(path) for path in _files(directory)}


def pick_worldviews(
    known: dict[str, Worldview], names: Sequence[str], option: str = "--worldview"
) -> list[Worldview]:
    """Worldviews by name, all if none is named; `option` is what an error blames."""
    for name in names:
        if name not in known:
            raise InputError(
                f"{option}: unknown worldview '{name}'{did_you_mean(name, known)}; "
                f"there are {', '.join(known)}"
            )
    return [known[n] for n in (names or known)]


def check(directory: Path) -> list[str]:
    """Return one plain line for each problem in a folder's worldviews."""
    try:
        return [problem for path in _files(directory) for problem in _examine(path)[1]]
    except InputError as error:
        return [str(error)]


def full_priors(worldview: Worldview) -> dict[str, Parameter]:
    """Return `known_parameters` with the worldview's priors, sources and information dates."""
    found = known_parameters()
    for name, line in worldview.lines.items():
        found[name] = replace(found[name], prior=line.prior, source=line.source, informed=line.informed)
    return found


def late_lines(worldview: Worldview, as_of: str) -> dict[str, Parameter]:
    """Priors of a worldview, its own and the defaults, that rest on information newer than a day.

    Standard-normal scores are left out: they are so by definition.
    """
    day = datetime.date.fromisoformat(as_of)
    return {n: p for n, p in full_priors(worldview).items() if p.informed > day and p.unit != "sd"}


def late_names(worldview: Worldview, as_of: str) -> dict[str, list[str]]:
    """Names of late lines: the worldview's own as ``late_lines``, the others as ``late_defaults``."""
    late = late_lines(worldview, as_of)
    own = [name for name in late if name in worldview.lines]
    return {"late_lines": own, "late_defaults": [name for name in late if name not in worldview.lines]}


def before_news(worldview: Worldview, as_of: str) -> Worldview:
    """The worldview with its late lines widened by `priors.widened`.

    Core lines stay as they are: they say what a dynamic is.  A range keeps its upper end where a wider
    one would leave no room for a parameter that it limits.
    """
    known, lines = known_parameters(), dict(worldview.lines)
    for name, parameter in late_lines(worldview, as_of).items():
        if parameter.role == "core":
            continue
        prior = widened(parameter.prior)
        if prior.family.endswith("uniform"):
            try:
                _below_caps(known, worldview.priors | {name: prior})
            except InputError:
                prior = replace(prior, b=parameter.prior.b)
        reason = f"{parameter.prior} widened, as it was informed after {as_of}"
        lines[name] = Line(prior, reason, parameter.source, parameter.informed)
    return replace(worldview, lines=lines)


def differences(worldview: Worldview) -> pd.DataFrame:
    """Table of what the worldview changes, in the order of `known_parameters`; priors as text."""
    rows = []
    for name, parameter in known_parameters().items():
        if line := worldview.lines.get(name):
            rows.append((name, str(parameter.prior), str(line.prior), *(getattr(line, n) for n in STATED)))
    return pd.DataFrame(rows, columns=["parameter", "default", "prior", *STATED])


def prior_predictive(
    worldview: Worldview, seed: int, draws: int, years: Sequence[float] = (2026.0, 2030.0)
) -> pd.DataFrame:
    """Quantiles of what each dynamic expects before any data, `draws` from each; the odds play no part.

    `years` are calendar years from 2023.0; between quarters the logarithms are interpolated.

    Returns
    -------
    pd.DataFrame
        Columns ``dynamic``, ``quantity``, ``year``, ``q05``, ``q50``, ``q95``. The quantities are
        ``m``, ``m_ratio`` (m over its value in 2023.0), ``W`` and ``H``, all without unit.
    """
    from forecast.model import hyper_parameters, natural, ordered, own_view

    grid, rng, everything = make_grid(max(years)), np.random.default_rng(seed), full_priors(worldview)
    place = (np.asarray(years) - T0) / (grid[1] - T0)
    i = np.minimum(place.astype(int), len(grid) - 2)
    rows: list[tuple[Any, ...]] = []
    for name, dynamic in dyn.DYNAMICS.items():
        own = (f"{name}.{n}" for n in dynamic.parameters)
        declared = ordered({n: everything[n] for n in (*SHARED, *own)})
        scores = rng.standard_normal((draws, len(declared)))
        path = dynamic(grid, own_view(natural(scores, declared, hyper_parameters(declared)), name))
        logs = {"m": path.log_m, "m_ratio": path.log_m - path.log_m[:, :1], "W": path.log_W, "H": path.log_H}
        for quantity, log in logs.items():
            values = log[:, i] + (place - i) * (log[:, i + 1] - log[:, i])
            q = np.exp(np.quantile(values, [0.05, 0.5, 0.95], axis=0))
            rows += [(name, quantity, year, *q[:, j]) for j, year in enumerate(years)]
    return pd.DataFrame(rows, columns=["dynamic", "quantity", "year", "q05", "q50", "q95"])


def _files(directory: Path) -> list[Path]:
    if not (found := sorted(directory.glob("[!.]*.toml"), key=lambda path: (path.stem != "neutral", path))):
        raise InputError(f"{directory}: no worldview here; name the folder that holds the TOML files")
    return found


def _examine(path: Path) -> tuple[Worldview | None, list[str]]:
    """Return the worldview of a file, or None and every problem that one of the parts below raised."""
    known, problems = known_parameters(), list[str]()

    def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:  # on one line: a quoted key may hold a line break
            problems.append(" ".join(f"{path.resolve().parent.name}/{path.name}: {error}".split()))
            return None

    tree = attempt(_read, path)
    if tree is None:
        return None, problems
    for key in tree:
        attempt(_one_of, key, ("title", "odds", "assumptions"), key, "key")
    title, odds, lines = attempt(_stated, tree, "title", "title"), attempt(_odds, tree), {}
    for name, fields in (attempt(_flat, tree) or {}).items() if "assumptions" in tree else ():
        where = f"assumptions.{name}"
        if attempt(_one_of, name, tuple(known), where, "parameter") and attempt(_table, fields, where):
            prior = attempt(_prior, fields, where, known[name])
            lines[name] = Line(prior, *(attempt(_stated, fields, n, f"{where}.{n}") for n in STATED))
    if not problems:
        attempt(_below_caps, known, {name: line.prior for name, line in lines.items()})
    return None if problems else Worldview(path.stem, title, odds, tree["odds"]["reason"], lines), problems


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8).decode())
    except OSError as error:
        raise InputError(f"{error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"line {line}: not UTF-8; save the file in that encoding") from None
    except (ValueError, RecursionError) as error:  # tomllib names line and column
        raise InputError(f"not TOML: {error}; mend the syntax there") from None
    if not tree:
        raise InputError("the file is empty; start it with a title and a table [odds]")
    return tree


def _one_of(word: str, known: Sequence[str], where: str, what: str) -> bool:
    if word not in known:
        full = [n for n in known if n.endswith(f".{word}") or n.startswith(f"{word}.")] or known
        shown = f"; choose from {', '.join(full[:8])}{', ...' if len(full) > 8 else ''}"
        mend = did_you_mean(word, known) if full is known else shown
        raise InputError(f"{where}: unknown {what} '{word}'{mend or shown}")
    return True


def _table(value: Any, where: str) -> Any:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{where}: missing, empty or not a table; write [{where}] and its fields below")
    return value


def _stated(fields: Mapping[str, Any], name: str, where: str) -> Any:
    """Text, or the date ``informed``."""
    value, date = fields.get(name), name == "informed"
    if type(value) is not (datetime.date if date else str) or not str(value).strip():
        form = "2025-12-31, without quotes" if date else '"..."'
        raise InputError(f"{where}: missing or not {'a date' if date else 'text'}; add {name} = {form}")
    return value


def _odds(tree: Mapping[str, Any]) -> dict[str, float]:
    """Odds of every registered dynamic, 0 where the file is silent."""
    odds, table = dict.fromkeys(dyn.DYNAMICS, 0.0), _table(tree.get("odds"), "odds")
    _stated(table, "reason", "odds.reason")
    for name in (n for n in table if n != "reason"):
        _one_of(name, tuple(odds), f"odds.{name}", "dynamic")
        odds[name] = -1.0 if (number := finite(table[name])) is None else number
        if odds[name] < 0:
            raise InputError(f"odds.{name}: give a number from 0 to 1, not {reprlib.repr(table[name])}")
    if abs((total := math.fsum(odds.values())) - 1) > 1e-9:
        raise InputError(f"odds: they sum to {total:.10g}; make it 1")
    return odds


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Assumptions by full name, whether written ``"decaying.room"`` or ``decaying.room``."""
    found: dict[str, Any] = {}
    for name, value in _table(tree["assumptions"], "assumptions").items():
        group = isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values())
        inner = {f"{name}.{n}": v for n, v in value.items()} if group else {name: value}
        if twice := [full for full in inner if full in found]:
            raise InputError(f"assumptions.{twice[0]}: stands twice, quoted and unquoted; keep one")
        found |= inner
    return found


def _prior(fields: Mapping[str, Any], where: str, parameter: Parameter) -> Prior:
    """Prior from ``dist`` and its fields or from ``ci80`` and bounds, within what the parameter may be."""
    if parameter.unit == "sd":
        raise InputError(f"{where}: a standard-normal score by definition; remove the table")
    if ("dist" in fields) == ("ci80" in fields):
        raise InputError(f"{where}: {'both' if 'dist' in fields else 'neither'} of dist and ci80; give one")
    own: tuple[str, ...] = ("lower", "upper")
    kind = "ci80" if "ci80" in fields else "dist"
    if kind == "dist" and _one_of(str(fields["dist"]), tuple(FAMILIES), f"{where}.dist", "dist"):
        own = FAMILIES[fields["dist"]].fields
    for name in fields:
        _one_of(name, (kind, *own, *STATED), f"{where}.{name}", "field")
    chosen = {n: fields[n] for n in own if n in fields}
    prior = (make_prior if kind == "dist" else _from_ci80)(fields[kind], chosen, where)
    low, high = _ends(prior)
    if parameter.cap is not None and prior.family != "uniform":
        raise InputError(f'{where}: {parameter.meaning}; only dist = "uniform" can be squeezed so')
    if parameter.prior.family in SHARES and not 0 <= low < high <= 1:
        raise InputError(f"{where}: {prior} leaves [0, 1]; use beta, logitnormal or a uniform within")
    if _ends(parameter.prior)[0] >= 0 > low:
        raise InputError(f"{where}: {prior} can be negative; use lognormal, positive_normal or uniform")
    return prior


def _from_ci80(given: Any, bounds: Mapping[str, Any], where: str) -> Prior:
    """Prior whose 10 % and 90 % quantiles are the two numbers of ``ci80``."""
    ends = [finite(value) for value in given] if isinstance(given, list) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
        raise InputError(f"{where}.ci80: give two rising numbers, the 10 % and 90 % quantiles: [0.2, 0.6]")
    key = tuple(finite(bounds.get(n)) for n in ("lower", "upper"))
    if key not in _LINKS or sum(x is not None for x in key) < len(bounds):
        forms = "no bounds (normal), lower = 0 (log-normal), or lower = 0 and upper = 1 (logit-normal)"
        raise InputError(f"{where}.{max(bounds)}: ci80 goes with {forms}; use dist for others")
    if (key[0] is not None and ends[0] <= key[0]) or (key[1] is not None and ends[1] >= key[1]):
        raise InputError(f"{where}.ci80: not strictly within its bounds; move the numbers or the bounds")
    family, link, back = _LINKS[key]
    low, high = link(ends[0]), link(ends[1])
    values = (float(back((low + high) / 2)), float((high - low) / (2 * special.ndtri(0.9))))
    return make_prior(family, dict(zip(FAMILIES[family].fields, values, strict=True)), where)


def _ends(prior: Prior) -> tuple[float, float]:
    """Bounds of a prior."""
    if prior.family.endswith("uniform"):
        return prior.a, prior.b
    return -np.inf if prior.family == "normal" else 0.0, 1.0 if prior.family in SHARES else np.inf


def _below_caps(known: Mapping[str, Parameter], changed: dict[str, Prior]) -> None:
    """Refuse a prior that starts above the least value of its cap, tails of the others cut at .1 %."""
    priors = {name: p.prior for name, p in known.items()} | changed
    tops = {n: p.b if p.family.endswith("uniform") else float(p.quantile(0.999)) for n, p in priors.items()}
    for name, parameter in known.items():
        if parameter.cap and priors[name].a >= (least := float(parameter.cap(tops))):
            limit = f"its lower bound {priors[name].a:.4g} must lie below {least:.4g}"
            raise InputError(f"assumptions.{name}: {parameter.meaning}; {limit}, the least limit here")
