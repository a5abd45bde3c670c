"""The only builder: dynamics x indicators x priors x rows -> a PyMC model.

Also the only place where a path meets observations; simulation and fitting read a path the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt

from forecast import deviation as dev
from forecast import dynamics as dyn
from forecast import indicators as ind
from forecast import observation as obs
from forecast.laws import Law, Observed, cut
from forecast.paths import SHARED, Path, Restriction, integrate, make_grid
from forecast.priors import Array, Parameter, Prior, array_module, from_score


def parameters(names: Sequence[str], rows: pd.DataFrame) -> dict[str, Parameter]:
    """Every parameter of a model by full name; a dynamic's own ones are ``dynamic.name``.

    Parameters of indicators without rows are left out: their posterior is their prior.  One that an
    indicator with rows borrows from such an indicator is kept.
    """
    found = dict(SHARED)
    for name in names:
        found |= {f"{name}.{n}": p for n, p in dyn.DYNAMICS[name].parameters.items()}
    found |= obs.SHARED
    for name in dict.fromkeys(rows["indicator"]):
        mine = rows[rows["indicator"] == name]
        one = ind.INDICATORS[name]
        found |= one.parameters(dict.fromkeys(mine["indicator_id"]))
        found |= {n: p for n, p in every_parameter().items() if n in one.shared and n not in found}
    return found | obs.deviation_parameters(float(rows["time"].max()))


def every_parameter() -> dict[str, Parameter]:
    """Parameters of all observation models, with or without rows, by full name."""
    found = dict(obs.SHARED)
    for one in ind.INDICATORS.values():
        found |= one.parameters(one.ids)
    return found


def fit_grid(rows: pd.DataFrame) -> np.ndarray:
    """Grid that reaches just past the last row; what lies beyond cannot touch the likelihood."""
    return make_grid(float(rows["time"].max()))


def _between(grid: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Matrix of linear interpolation from `grid` to `at`, (row, time); the ends extrapolate."""
    step = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2)
    share = (at - grid[step]) / (grid[step + 1] - grid[step])
    matrix = np.zeros((len(at), len(grid)))
    matrix[np.arange(len(at)), step] = 1 - share
    matrix[np.arange(len(at)), step + 1] += share
    return matrix


def _along(matrix: np.ndarray, values: Array) -> Array:
    """Apply a matrix to the last axis of NumPy values (..., n), or to a PyTensor vector."""
    return values @ matrix.T if array_module(values) is np else matrix @ values


def _public(path: Path, at: np.ndarray, gap: Array) -> Array:
    """Capability of public models, `gap` years behind the one in use to first order, (..., at)."""
    here = _between(path.time, at)
    slope = np.asarray(np.gradient(np.eye(len(path.time)), path.time, axis=0))
    return _along(here, path.e) - gap * _along(here @ slope, path.e)


def _reader(
    rows: pd.DataFrame, last: float, path: Path, theta: Mapping[str, Array], deviation: Array
) -> Callable[[str], obs.Reading]:
    """Read a path at the dates of all rows at once and hand each indicator its share.

    `deviation` (knot,) is added to the capability of public models, linear between knots.
    """
    grid, when = path.time, rows["time"].to_numpy(float)
    xp = array_module(path.e)
    names = list(dict.fromkeys(rows["indicator"]))
    members = {name: rows[rows["indicator"] == name] for name in names}
    sizes = [len(m) for m in members.values()]

    many = xp is np and np.ndim(path.e) > 1

    def shares(x: Array) -> dict[str, Array]:
        return dict(zip(names, cut(x, sizes), strict=True))

    @lru_cache
    def at_all(field: str, lag: float) -> dict[str, Array]:
        return shares(_along(_between(grid, when - lag), getattr(path, field)))

    public = _public(path, when, theta["release_gap"])
    capability = public + _along(_between(dev.knots(last), when), deviation)
    leader = rows["developer"].isin(obs.LEADERS).to_numpy(float)
    shortfall = theta["shortfall"] * leader + theta["shortfall_followers"] * (1 - leader)
    voluntary = rows["disclosure"].isin(obs.VOLUNTARY) & rows["kind"].eq("company")
    lab = (voluntary & rows["company"].isin(obs.LABS)).to_numpy(float)
    tech: np.ndarray = voluntary.to_numpy(float) - lab
    disclosed = theta["disclosure_lab"] * lab + theta["disclosure_tech"] * tech
    capability, shortfall, disclosed = shares(capability), shares(shortfall), shares(disclosed)

    def reading(name: str) -> obs.Reading:
        return obs.Reading(
            members[name],
            lambda field, lag=0.0: at_all(field, lag)[name],
            lambda field: getattr(path, field)[..., :1] if many else getattr(path, field)[0],
            capability[name],
            shortfall[name],
            path.d50[..., None] if many else path.d50,
            disclosed[name],
        )

    return reading


def laws(
    rows: pd.DataFrame,
    path: Path,
    theta: Mapping[str, Array],
    deviation: Array,
    last: float | None = None,
    score_se: Array | None = None,
) -> list[tuple[Law, Observed]]:
    """Law and observations of each indicator, in the order of `rows`.

    One path, or many in NumPy: then fields of `path` are (draw, time), parameters (draw, 1) and
    `deviation` (draw, knot).

    Parameters
    ----------
    last
        Calendar year up to which the deviation has knots; the last row's by default.
    score_se
        Standard errors of the rows that are scores, on the logit scale, (row,); by default those that rows
        imply.
    """
    last = float(rows["time"].max()) if last is None else last
    public = rows["indicator"].map({n: i.flagship_rows for n, i in ind.INDICATORS.items()}).eq(True)
    result: list[tuple[Law, Observed]] = []
    for group in (rows[public], rows[~public]):
        if group.empty:
            continue
        reading = _reader(group, last, path, theta, deviation)
        for name in dict.fromkeys(group["indicator"]):
            one, view = ind.INDICATORS[name], reading(name)
            seen = measured = one.prepare(view.rows)
            if score_se is not None and one.prepare is obs.scores:
                first = sum(len(y.low) for _, y in result)
                se = score_se[first : first + len(seen.low)]
                measured = seen._replace(se_low=se, se_high=se)
            arguments = {n: theta[n] for n in one.shared}
            ids = list(dict.fromkeys(view.rows["indicator_id"]))
            member = (view.rows["indicator_id"].to_numpy()[:, None] == np.array(ids)).astype(float)
            for n in one.own:
                if one.per_id:
                    copies = [theta[f"{i}.{n}"] for i in ids]
                    xp = array_module(*copies)
                    stacked = np.concatenate(copies, axis=-1) if np.ndim(copies[0]) else xp.stack(copies)
                    arguments[n] = _along(member, stacked)
                else:
                    arguments[n] = theta[n]
            result.append((one.law(view, measured, **arguments), seen))
    return result


def values_of(pairs: Sequence[tuple[Law, Observed]]) -> np.ndarray:
    """Observed value of each row on the scale of its law, (row,), as the model's data ``value``."""
    return np.concatenate([seen.at for _, seen in pairs])


def log_likelihood(pairs: Sequence[tuple[Law, Observed]], value: Array) -> Array:
    """Log likelihood of each row at `value`, (..., row); laws of one kind are evaluated together."""
    xp = array_module(value, *(law[0] for law, _ in pairs))
    ends = np.cumsum([len(seen.low) for _, seen in pairs])
    kinds: dict[type, list[int]] = {}
    for i, (law, _) in enumerate(pairs):
        kinds.setdefault(type(law), []).append(i)
    parts: list[Array] = [None] * len(pairs)
    for kind, members in kinds.items():
        chosen = [pairs[i] for i in members]
        seen = Observed(*(np.concatenate(x) for x in zip(*(y for _, y in chosen), strict=True)))
        fields = [law if xp is pt else np.broadcast_arrays(*law) for law, _ in chosen]
        law = kind(*(xp.concatenate(x, axis=-1) for x in zip(*fields, strict=True)))
        sizes = [len(y.low) for _, y in chosen]
        at = xp.concatenate([value[ends[i] - size : ends[i]] for i, size in zip(members, sizes, strict=True)])
        for i, part in zip(members, cut(law.logp(seen, at), sizes), strict=True):
            parts[i] = part
    return xp.concatenate(parts, axis=-1)


def _law_table(of_rows: Sequence[Law]) -> Array:
    """Fields of each row's law, zeros after its last, (row, field)."""
    most = max(len(law) for law in of_rows)
    tables = [pt.stack([*law, *[pt.zeros_like(law[0])] * (most - len(law))], axis=1) for law in of_rows]
    return pt.concatenate(tables)


def draw_rows(pairs: Sequence[tuple[Law, Observed]], table: np.ndarray, seed: int) -> np.ndarray:
    """Draws of every row from the laws that a model of the same rows recorded, (draw, row).

    Parameters
    ----------
    pairs
        From `laws_at`, at any parameters: they say of which kind each row's law is.
    table
        Values of ``law`` at draws of the parameters, (draw, row, field).
    """
    rng, start, found = np.random.default_rng(seed), 0, []
    for law, seen in pairs:
        part = table[:, start : start + len(seen.low), : len(law)]
        found.append(type(law)(*np.moveaxis(part, -1, 0)).draw(rng, seen))
        start += len(seen.low)
    return np.concatenate(found, axis=1)


def natural(scores: Array, declared: Mapping[str, Parameter], hyper: Mapping[str, Array]) -> dict[str, Array]:
    """Parameters from their standard-normal scores.

    Parameters
    ----------
    scores
        (..., parameter), in the order of `declared`; NumPy or PyTensor (one vector).
    declared
        Parameters by full name, sorted by `ordered`.
    hyper
        Hyper-parameters by family, from `hyper_parameters`.
    """
    families = [p.prior.family for p in declared.values()]
    theta: dict[str, Array] = {}
    names = iter(declared)
    start = 0
    for family, table in hyper.items():
        size = families.count(family)
        block = from_score(family, scores[..., start : start + size], table)
        if array_module(block) is pt:
            columns = [x[0] for x in pt.split(block, [1] * size, n_splits=size)] if size > 1 else [block[0]]
        else:
            columns = list(np.moveaxis(block, -1, 0))
        theta |= dict(zip([next(names) for _ in range(size)], columns, strict=True))
        start += size
    for i, (name, parameter) in enumerate(declared.items()):
        if parameter.cap is not None:
            family = families[i]
            a, b = (hyper[family][i - families.index(family), j] for j in (0, 1))
            top = array_module(theta[name], a).minimum(b, parameter.cap(theta))
            theta[name] = a + (theta[name] - a) / (b - a) * (top - a)
    return theta


def hyper_parameters(declared: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Hyper-parameters by family, (parameter of that family, hyper), families in order."""
    tables: dict[str, list[np.ndarray]] = {}
    for p in declared.values():
        tables.setdefault(p.prior.family, []).append(p.prior.hyper)
    return {family: np.stack(rows) for family, rows in tables.items()}


def data_values(declared: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Values of the model's hyper-parameter data for these priors."""
    scored = split(declared)[0]
    return {f"hyper_{family}": table for family, table in hyper_parameters(scored).items()}


def row_data(rows: pd.DataFrame, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Values of the model's data where rows have other weights than 1, (row,)."""
    return {"weight": weight, "centring": dev.centring(rows, weight)}


def own_view(theta: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Parameters as the dynamic `name` sees them: its own ones without their prefix."""
    return {n.removeprefix(f"{name}."): x for n, x in theta.items()}


def with_priors(declared: Mapping[str, Parameter], changed: Mapping[str, Prior]) -> dict[str, Parameter]:
    """Replace the priors a worldview changes."""
    return {n: dataclasses.replace(p, prior=changed[n]) if n in changed else p for n, p in declared.items()}


def is_centred(name: str) -> bool:
    """Whether a parameter is sampled in absolute units around what the path implies, not as a score.

    Data pin a benchmark's place and published capability far better than any structural parameter; sampling
    them as scores would tie every structural parameter to all of them at once.
    """
    return name.endswith(".place") or dev.is_knot(name)


def ordered(declared: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Sort parameters: scores first, each prior family one block, then those sampled in absolute units."""
    return dict(sorted(declared.items(), key=lambda item: (is_centred(item[0]), item[1].prior.family)))


def split(declared: Mapping[str, Parameter]) -> tuple[dict[str, Parameter], list[str], np.ndarray]:
    """Scored parameters, names of placed ones, and the knots of the deviation."""
    scored = {n: p for n, p in declared.items() if not is_centred(n)}
    places = [n for n in declared if n.endswith(".place")]
    return scored, places, dev.knots_of(declared)


def centres(
    path: Path, theta: Mapping[str, Array], places: list[str], knots: np.ndarray
) -> tuple[Array, Array, np.ndarray]:
    """Where the path puts published capability (..., knot), benchmarks (benchmark, ...), and the latter's sd.

    Published capability is that of public models, `release_gap` behind what is in use, for that is what rows
    read: a gap sampled apart from it would have hardly any room where it is long.
    """
    xp = array_module(path.d50)
    ids = [n.removesuffix(".place") for n in places]
    rungs = ind.rung_places(path.d50, theta["g2"], theta["g3"], theta["g4"])
    where = [path.d50 if i in ind.MESSY else rungs[ind.RUNGS[i]] - theta["mu_D"] for i in ids]
    sd = np.array([ind.MESSY_SD if i in ind.MESSY else ind.BENCHMARK_SD for i in ids])
    nowhere = np.zeros((0, *np.shape(path.d50))) if xp is np else np.zeros(0)
    gap = theta["release_gap"]
    public = _public(path, knots, gap[..., None] if xp is np and np.ndim(gap) else gap)
    return public, xp.stack(where) if where else nowhere, sd


def build(
    names: Sequence[str],
    rows: pd.DataFrame,
    declared: Mapping[str, Parameter],
    odds: Sequence[float],
    predictive: bool = False,
    score_se: np.ndarray | None = None,
) -> pm.Model:
    """Joint model of (dynamic, parameters), or of one dynamic if one name is given.

    Parameters
    ----------
    names
        Dynamics, in the order of the label.
    rows
        `selection.Selection.rows`.
    declared
        `ordered(parameters(names, rows))`, with a worldview's priors.
    odds
        Prior probability of each dynamic, (dynamic,).
    predictive
        Whether the model also records ``law`` (row, field), from which `draw_rows` draws.
    score_se
        As in `laws`; if given, it is data, for rows whose values are too.

    Returns
    -------
    pm.Model
        Free variables ``z`` (scored,), standard-normal scores of most parameters; ``published``
        (knot,), published capability in nats; ``place`` (benchmark,), in nats; and ``dynamic`` if there
        are several.  Data ``hyper_FAMILY``, ``weight`` (row,), 0 for a row that is not counted, and
        ``value`` (row,), what was observed on the scale of its law.
        Deterministics ``theta`` (parameter,) and ``row_log_likelihood`` (row,).
    """
    grid = fit_grid(rows)
    scored, places, knots = split(declared)
    coords: dict[str, Any] = {
        "parameter": list(declared),
        "scored": list(scored),
        "benchmark": places,
        "knot": knots,
        "row": np.arange(len(rows)),
    }
    with pm.Model(coords=coords) as model:
        z = pm.Normal("z", 0.0, 1.0, dims="scored")
        hyper = {f: pm.Data(f"hyper_{f}", table) for f, table in hyper_parameters(scored).items()}
        weight = pm.Data("weight", np.ones(len(rows)), dims="row")
        theta = natural(z, scored, hyper)
        each = [dyn.DYNAMICS[n].restriction(own_view(theta, n)) for n in names]
        if len(names) == 1:
            restriction = each[0]
        else:
            label = pm.Categorical("dynamic", p=np.asarray(odds, float))
            restriction = Restriction(*(pt.stack(field)[label] for field in zip(*each, strict=True)))
        path = integrate(grid, restriction, **{n: theta[n] for n in SHARED})
        capability, where, sd = centres(path, theta, places, knots)
        capability = pt.specify_shape(capability, (len(knots),))
        centring = pm.Data("centring", dev.centring(rows))
        centre, unit = centring[0] * capability, dev.unit(theta["deviation_sd"], centring[1])
        published = pm.CustomDist(
            "published",
            centre,
            theta["deviation_sd"],
            unit,
            logp=dev.log_density,
            random=dev.draw,
            signature="(k),(),(k)->(k)",
            dims="knot",
        )
        deviation = unit * (published - centre)
        # Early snapshots have no benchmark yet.
        place = pm.Normal("place", where, sd, dims="benchmark") if places else where
        innovations, _ = dev.innovations(deviation, theta["deviation_sd"])
        for names_of, values in (
            (places, (place - where) / sd),
            (dev.names(knots), innovations),
        ):
            theta |= {n: values[i] for i, n in enumerate(names_of)}
        pm.Deterministic("theta", pt.stack([theta[n] for n in declared]), dims="parameter")
        errors = None if score_se is None else pm.Data("score_se", score_se, dims="row")
        pairs = laws(rows, path, theta | _absolute(places, place), deviation, score_se=errors)
        rows_logp = log_likelihood(pairs, pm.Data("value", values_of(pairs), dims="row"))
        pm.Deterministic("row_log_likelihood", rows_logp, dims="row")
        if predictive:
            pm.Deterministic("law", _law_table([law for law, _ in pairs]))
        pm.Potential("evidence", (weight * pt.switch(pt.neq(weight, 0.0), rows_logp, 0.0)).sum())
    return model


def _absolute(places: list[str], values: Array) -> dict[str, Array]:
    """Places in nats under the argument's name, as the indicators take them."""
    return {n: values[i] for i, n in enumerate(places)}


def laws_at(name: str, rows: pd.DataFrame, theta: Mapping[str, Array]) -> list[tuple[Law, Observed]]:
    """Law and observations of each indicator under one dynamic at known parameters.

    Places and deviations in `theta` are scores, as in the deterministic ``theta`` of `build`.
    """
    path = dyn.DYNAMICS[name](fit_grid(rows), own_view(theta, name))
    places = [n for n in theta if n.endswith(".place")]
    knots = dev.knots(float(rows["time"].max()))
    _, where, sd = centres(path, theta, places, knots)
    deviation = dev.at_knots(theta["deviation_sd"], np.array([theta[n] for n in dev.names(knots)]))
    absolute = _absolute(places, where + sd * np.array([theta[n] for n in places]))
    return laws(rows, path, {**theta, **absolute}, deviation)


def median_laws(
    name: str, rows: pd.DataFrame, declared: Mapping[str, Parameter]
) -> list[tuple[Law, Observed]]:
    """`laws_at` the prior medians."""
    scored, places, knots = split(declared)
    theta = natural(np.zeros(len(scored)), scored, hyper_parameters(scored))
    return laws_at(name, rows, theta | dict.fromkeys([*places, *dev.names(knots)], 0.0))


def simulate_rows(name: str, rows: pd.DataFrame, theta: Mapping[str, Array], seed: int) -> list[np.ndarray]:
    """Draw the value of every row from one dynamic at known parameters, on the scale of its law."""
    rng = np.random.default_rng(seed)
    return [law.draw(rng, seen) for law, seen in laws_at(name, rows, theta)]
