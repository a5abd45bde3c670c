"""Many draws of one dynamic in NumPy: their normal scores, their paths, and the rows read at them.

What the compiled model says of a draw, for thousands at once and with nothing compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from forecast import deviation as dev
from forecast import dynamics as dyn
from forecast import model
from forecast.laws import Law, Observed
from forecast.paths import Path
from forecast.priors import Parameter, to_score


def scores(theta: Mapping[str, np.ndarray], declared: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Standard-normal scores of parameters: `model.natural` turned round, in NumPy.

    Parameters
    ----------
    theta
        Parameters by full name; places and innovations of the deviation are scores already.
    declared
        The same parameters with their priors.
    """
    found = {}
    for name, parameter in declared.items():
        x = np.asarray(theta[name], float)
        if not model.is_centred(name):
            prior = parameter.prior
            if parameter.cap is not None:
                top = np.minimum(prior.b, parameter.cap(theta))
                x = prior.a + (x - prior.a) / (top - prior.a) * (prior.b - prior.a)
            x = to_score(prior, x)
        found[name] = x
    return found


def values(z: Mapping[str, np.ndarray], declared: Mapping[str, Parameter]) -> dict[str, np.ndarray]:
    """Parameters at normal scores: `scores` turned round; places and innovations stay scores."""
    scored = {n: p for n, p in model.ordered(declared).items() if not model.is_centred(n)}
    found: dict[str, np.ndarray] = {}
    if scored:
        block = np.stack([z[n] for n in scored], axis=-1)
        found = model.natural(block, scored, model.hyper_parameters(scored))
    return found | {n: np.asarray(z[n]) for n in declared if model.is_centred(n)}


class Many(NamedTuple):
    """Many draws of one dynamic, at which rows can be read."""

    theta: dict[str, np.ndarray]
    """Parameters, (draw, 1) each; places in nats."""
    path: Path
    """(draw, time)"""
    deviation: np.ndarray
    """(draw, knot)"""
    last: float


def at_draws(dynamic: dyn.Dynamic, theta: Mapping[str, np.ndarray], grid: np.ndarray) -> Many:
    """Paths of many draws at once, in NumPy.

    Parameters
    ----------
    theta
        Parameters as the dynamic sees them, (draw,) each; places and innovations of the deviation
        are scores, as in the deterministic ``theta`` of `model.build`.
    grid
        From `paths.make_grid`; no row that is read may be later.
    """
    path = dynamic(grid, theta)
    places = [n for n in theta if n.endswith(".place")]
    knots = dev.knots_of(theta)
    _, where, sd = model.centres(path, theta, places, knots)
    innovations = np.stack([theta[n] for n in dev.names(knots)], axis=-1)
    deviation = dev.at_knots(theta["deviation_sd"], innovations)
    absolute = {n: where[i] + sd[i] * theta[n] for i, n in enumerate(places)}
    columns = {n: np.asarray(x)[:, None] for n, x in {**theta, **absolute}.items()}
    return Many(columns, path, deviation, float(knots[-1]))


def laws(rows: pd.DataFrame, many: Many) -> list[tuple[Law, Observed]]:
    """`model.laws` at each draw, fields that broadcast to (draw, row)."""
    return model.laws(rows, many.path, many.theta, many.deviation, many.last)


def rows_at(rows: pd.DataFrame, many: Many) -> np.ndarray:
    """Log likelihood of each row at each draw, (draw, row), in NumPy."""
    pairs = laws(rows, many)
    return np.asarray(model.log_likelihood(pairs, model.values_of(pairs)))
