"""Values of a model's free variables, in the order z, published, place: draws, given scores, other units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from forecast import deviation as dev
from forecast import dynamics as dyn
from forecast import inference, model
from forecast.priors import Parameter


def prior_draws(
    names: Sequence[str],
    declared: Mapping[str, Parameter],
    rows: pd.DataFrame,
    seed: int,
    size: int,
    centring: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Prior draws of the joint model's free variables, labels in equal shares.

    Parameters
    ----------
    names, declared, rows
        As in `model.build`.
    centring
        Of the model; the one of rows that all count by default.

    Returns
    -------
    tuple of array
        Unconstrained values (draw, dimension) in the order z, published, place; and labels (draw,).
    """
    rng = np.random.default_rng(seed)
    scored, places, knots = model.split(declared)
    label = np.arange(size) % len(names)
    z = rng.standard_normal((size, len(scored)))
    innovations = rng.standard_normal((size, len(knots)))
    offsets = rng.standard_normal((size, len(places)))
    centred = dev.centring(rows) if centring is None else centring
    return _unconstrained(names, declared, rows, z, innovations, offsets, label, centred), label


def _unconstrained(
    names: Sequence[str],
    declared: Mapping[str, Parameter],
    rows: pd.DataFrame,
    z: np.ndarray,
    innovations: np.ndarray,
    offsets: np.ndarray,
    label: np.ndarray,
    centring: np.ndarray,
) -> np.ndarray:
    """Values of the free variables from scores of each kind, (draw, dimension)."""
    scored, places, knots = model.split(declared)
    size = len(z)
    theta = model.natural(z, scored, model.hyper_parameters(scored))
    published, place = np.empty((size, len(knots))), np.empty((size, len(places)))
    for k, name in enumerate(names):
        mine = label == k
        own = {n: x[mine] for n, x in theta.items()}
        path = dyn.DYNAMICS[name](model.fit_grid(rows), model.own_view(own, name))
        capability, where, sd = model.centres(path, own, places, knots)
        deviation = dev.at_knots(own["deviation_sd"], innovations[mine])
        with_path, in_nats = centring
        unit = dev.unit(own["deviation_sd"][:, None], in_nats)
        published[mine] = with_path * capability + deviation / unit
        place[mine] = where.T + sd * offsets[mine]
    return np.concatenate([z, published, place], axis=1)


def from_scores(
    names: Sequence[str],
    declared: Mapping[str, Parameter],
    rows: pd.DataFrame,
    scores: Sequence[Mapping[str, np.ndarray]],
    seed: int,
    centring: np.ndarray | None = None,
) -> np.ndarray:
    """Values of the free variables of the joint model at given scores, (dynamic, draw, dimension).

    Parameters
    ----------
    scores
        Of each dynamic, by the names it sees, (draw,) each and the same number for all; what is missing,
        such as parameters of the other dynamics, is drawn from the prior.
    centring
        Of the model; the one of rows that all count by default.
    """
    rng = np.random.default_rng(seed)
    centred = dev.centring(rows) if centring is None else centring
    scored, places, knots = model.split(declared)
    parts = []
    for k, (name, mine) in enumerate(zip(names, scores, strict=True)):
        size = len(next(iter(mine.values())))

        def column(full: str, name: str = name, mine: Any = mine, size: int = size) -> np.ndarray:
            own = full.removeprefix(f"{name}.")
            return np.asarray(mine[own]) if own in mine else rng.standard_normal(size)

        wanted = (list(scored), dev.names(knots), places)
        blocks = [
            np.stack([column(n) for n in some], axis=1) if some else np.zeros((size, 0)) for some in wanted
        ]
        z, innovations, offsets = blocks
        label = np.full(size, k)
        parts.append(_unconstrained(names, declared, rows, z, innovations, offsets, label, centred))
    return np.stack(parts)


def recentred(
    name: str,
    x: np.ndarray,
    declared: Mapping[str, Parameter],
    rows: pd.DataFrame,
    old: np.ndarray,
    new: np.ndarray,
) -> np.ndarray:
    """The same draws at another ``centring``.

    Parameters
    ----------
    name
        The dynamic they are draws of.
    x
        Values of the free variables in the order z, published, place, (..., dimension).
    rows
        Of the model.
    old, new
        The ``centring`` of `x` and the other one.
    """
    scored, _, knots = model.split(declared)
    flat = np.array(x.reshape(-1, x.shape[-1]))
    theta = model.natural(flat[:, : len(scored)], scored, model.hyper_parameters(scored))
    path = dyn.DYNAMICS[name](model.fit_grid(rows), model.own_view(theta, name))
    capability, _, _ = model.centres(path, theta, [], knots)
    was, now = (dev.unit(theta["deviation_sd"][:, None], in_nats) for _, in_nats in (old, new))
    published = slice(len(scored), len(scored) + len(knots))
    deviation = was * (flat[:, published] - old[0] * capability)
    flat[:, published] = new[0] * capability + deviation / now
    return flat.reshape(x.shape)


def recentrings(
    declared: Mapping[str, Parameter], rows: pd.DataFrame, old: np.ndarray, new: np.ndarray
) -> list[Callable[[np.ndarray], np.ndarray]]:
    """`recentred` of the draws of each dynamic, in order."""
    return [partial(recentred, n, declared=declared, rows=rows, old=old, new=new) for n in dyn.DYNAMICS]


def recentred_fit(
    fit: inference.Fit,
    declared: dict[str, Parameter],
    rows: pd.DataFrame,
    old: inference.Data,
    new: inference.Data,
) -> tuple[inference.Fit, dict[str, np.ndarray]]:
    """The same fit and its data at the ``centring`` of other data, to start a step from."""
    ways = old["centring"], new["centring"]
    if np.array_equal(*ways):
        return fit, dict(old)
    draws = [to(x) for to, x in zip(recentrings(declared, rows, *ways), fit.draws, strict=True)]
    return fit._replace(draws=np.stack(draws)), {**old, "centring": ways[1]}
