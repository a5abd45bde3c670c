"""The plain way to a posterior: one dynamic under one worldview, compiled and sampled by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import xarray as xr

from forecast import batch, inference, model
from forecast.compilation import compile_model
from forecast.worldviews import Worldview


def nuts(
    name: str, worldview: Worldview, rows: pd.DataFrame, draws: int, tune: int
) -> tuple[float, float, pm.Model, xr.Dataset]:
    """Seconds to compile, seconds of four chains of nutpie, the model, and its free variables' draws."""
    declared = batch.declared_parameters(rows, worldview, [name])
    began = time.perf_counter()
    built = model.build([name], rows, declared, [1.0])
    compiled = nutpie.compile_pymc_model(built, var_names=[rv.name for rv in built.free_RVs])
    ready = time.perf_counter()
    trace = nutpie.sample(
        compiled, draws=draws, tune=tune, chains=4, cores=2, seed=1, progress_bar=False, save_warmup=False
    )
    done = time.perf_counter()
    return ready - began, done - ready, built, trace["posterior"].to_dataset()


def bridging(built: pm.Model, posterior: xr.Dataset) -> Callable[[], tuple[float, float]]:
    """What bridges draws to their log evidence and its error; its first call compiles."""
    draws = np.concatenate([posterior[rv.name].values for rv in built.free_RVs], axis=-1)
    compiled = compile_model(built)
    return lambda: inference.one_shot(compiled, np.random.default_rng(1), draws, 0, compiled.data)
