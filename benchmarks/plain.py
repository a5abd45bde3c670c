"""The plain way to a posterior: one dynamic under one worldview, compiled and sampled by itself."""

from __future__ import annotations

import time

import pandas as pd
import pymc as pm
import xarray as xr

from forecast import batch, model
from forecast.worldviews import Worldview


def nuts(
    name: str, worldview: Worldview, rows: pd.DataFrame, draws: int, tune: int
) -> tuple[float, pm.Model, xr.Dataset]:
    """Seconds to compile and sample with nutpie, the model, and its free variables' draws."""
    declared = batch.declared_parameters(rows, worldview, [name])
    began = time.perf_counter()
    built = model.build([name], rows, declared, [1.0])
    with built:
        trace = pm.sample(
            draws=draws,
            tune=tune,
            chains=4,
            cores=2,
            nuts_sampler="nutpie",
            random_seed=1,
            progressbar=False,
            quiet=True,
            var_names=[rv.name for rv in built.free_RVs],
        )
    return time.perf_counter() - began, built, trace["posterior"].to_dataset()
