"""Simulation-based calibration: data simulated from known parameters are fitted, and the truth is looked for.

If parameters come from the prior and data from the model, the share of posterior draws below the truth is
uniform for a correct engine (Talts et al. 2018), whatever the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forecast import inference, model
from forecast.compilation import compile_model
from forecast.indicators import INDICATORS

SETTINGS = inference.Settings(islands=4, chains=48, final_sweeps=2)
"""Size of the fit of one simulated data set."""
BAND = 0.95
"""Probability that the whole curve of a calibrated parameter lies inside its band."""
LEVELS = (0.5, 0.8, 0.95)
"""Central intervals whose coverage is told."""


def positions(
    name: str,
    rows: pd.DataFrame,
    simulations: int,
    seed: int = 1,
    settings: inference.Settings = SETTINGS,
    report: inference.Progress | None = None,
) -> tuple[list[str], np.ndarray]:
    """Where the truth lies in its posterior, for data simulated from one dynamic at prior draws.

    Parameters
    ----------
    name
        The dynamic that is true and fitted.
    rows
        `selection.Selection.rows`; their values are simulated, and rows that are bounds or intervals,
        which say where a value lies and not what it is, do not count.

    Returns
    -------
    tuple
        Parameters, and the share of posterior draws below the truth, (simulation, parameter).
    """
    declared = model.ordered(model.parameters([name], rows))
    compiled = compile_model(model.build([name], rows, declared, [1.0]))

    def draw_prior(seed: int, size: int) -> np.ndarray:
        return model.prior_draws([name], declared, rows, seed, size)[0]

    x = draw_prior(seed, simulations)
    values = compiled.outputs(x, np.zeros(simulations, int), compiled.data)
    truth = np.asarray(dict(zip(compiled.names, values, strict=True))["theta"])
    exact = np.concatenate(
        [INDICATORS[n].prepare(rows[rows["indicator"] == n]).exact for n in dict.fromkeys(rows["indicator"])]
    )
    found = []
    for i in range(simulations):
        drawn = model.simulate_rows(name, rows, dict(zip(declared, truth[i], strict=True)), seed=i)
        data = {
            "value": np.where(exact, np.concatenate(drawn), compiled.data["value"]),
            "weight": exact.astype(float),
        }
        fit = inference.sample(compiled, i, settings, data, draw_prior=draw_prior)
        posterior = inference.describe(compiled, fit, 0, data)["theta"].values.reshape(-1, len(declared))
        found.append((posterior < truth[i]).mean(axis=0))
        if report:
            report(f"fitting simulated data of {name}", (i + 1) / simulations)
    return list(declared), np.array(found)


def coverage(position: np.ndarray, level: float) -> np.ndarray:
    """Whether the central interval of a level holds the truth, for positions of any shape."""
    return np.abs(2 * np.asarray(position) - 1) <= level


def record(
    name: str, parameters: Sequence[str], position: np.ndarray, roles: Mapping[str, str]
) -> dict[str, Any]:
    """What positions (simulation, parameter) say of the calibration of one dynamic.

    Returns
    -------
    dict
        ``dynamic``, ``simulations``, ``coverage`` (level -> share of all truths, with ``se`` over
        simulations), ``inside`` (share of parameters whose curve of positions lies in its simultaneous band),
        ``parameters`` (list of ``name``, ``role``, ``inside``, ``coverage`` of 80 % and ``positions``).
    """
    from arviz_stats.ecdf_utils import ecdf_pit

    # The band depends on the number of data sets alone.
    at, _, low, high = ecdf_pit(position[:, 0], BAND, 1000, rng=np.random.default_rng(1))
    each = []
    for j, parameter in enumerate(parameters):
        curve = np.searchsorted(np.sort(position[:, j]), at[1:-1], side="right") / len(position)
        each.append(
            {
                "name": parameter,
                "role": roles[parameter],
                "inside": bool(((low[1:-1] <= curve) & (curve <= high[1:-1])).all()),
                "coverage": float(coverage(position[:, j], 0.8).mean()),
                "positions": [round(float(u), 4) for u in position[:, j]],
            }
        )
    levels = {}
    for level in LEVELS:
        # Parameters of one data set are not independent, data sets are.
        of_each = coverage(position, level).mean(axis=1)
        levels[f"{level:g}"] = {
            "value": float(of_each.mean()),
            "se": float(of_each.std(ddof=1) / np.sqrt(len(of_each))),
        }
    return {
        "dynamic": name,
        "simulations": len(position),
        "coverage": levels,
        "inside": float(np.mean([one["inside"] for one in each])),
        "parameters": each,
    }
