"""Posterior and evidence of every dynamic of one worldview, against the plain PyMC way.

The plain way, for one dynamic: compile, `pm.sample` with nutpie for the posterior, bridge sampling on
its draws for the evidence.  It is timed on one dynamic and counted once per dynamic.  Both ways see the
same rows and priors on the same machine in one run; where the plain way has fewer effective draws than the
engine, the time it samples is scaled to match.  Both errors of the evidence are printed, and none is charged.

Run ``uv run python benchmarks/posterior.py``; ``--quick`` is a smoke run on fewer draws and rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

os.environ.setdefault("PYTENSOR_FLAGS", "numba__fastmath=False")

import arviz as az
import jax
import numpy as np
from plain import bridging, nuts

from forecast import batch, evidence, free_values, inference, model
from forecast.compilation import compile_model
from forecast.dynamics import DYNAMICS
from forecast.worldviews import pick_worldviews

# A cold start compiles everything.
jax.config.update("jax_enable_compilation_cache", False)

ROOT = Path(__file__).parents[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smoke run: few rows, few draws")
    parser.add_argument("--worldview", default="neutral")
    parser.add_argument("--dynamic", default="explosive", help="dynamic the plain way is timed on")
    return parser.parse_args()


def engine(names, rows, declared, settings):
    """Time a cold fit (compilation included) and a warm one; return the warm fit and its least ESS."""
    began = time.perf_counter()
    built = model.build(names, rows, declared, [1 / len(names)] * len(names))
    compiled = compile_model(built)
    data = model.data_values(declared)

    def fit(seed):
        return inference.sample(
            compiled,
            seed,
            settings,
            data,
            draw_prior=lambda s, n: free_values.prior_draws(names, declared, rows, s, n)[0],
        )

    fit(1)
    cold = time.perf_counter() - began
    began = time.perf_counter()
    result = fit(2)
    warm = time.perf_counter() - began
    least = min(
        float(az.ess(inference.describe(compiled, result, k, data)["theta"]).min()) for k in range(len(names))
    )
    return cold, warm, result, least


def plain(name, rows, worldview, draws):
    """Time nutpie and bridge sampling on one dynamic."""
    compiling, sampling, built, posterior = nuts(name, worldview, rows, draws, tune=draws)
    bridge = bridging(built, posterior)
    began = time.perf_counter()
    value, error = bridge()
    bridged = time.perf_counter() - began
    return compiling + sampling, bridged, value, error, float(az.ess(posterior).to_array().min())


def peak_memory() -> float:
    """Largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print both ways and the ratio."""
    arguments = parse()
    names = list(DYNAMICS)
    inputs = batch.load_inputs(ROOT / "data", ROOT / "priors")
    worldview = pick_worldviews(inputs.worldviews, [arguments.worldview])[0]
    rows, settings, draws = inputs.selection.rows, inference.Settings(), 400
    if arguments.quick:
        print("smoke run: its figures mean nothing")
        rows = rows[rows["indicator"].isin(["time_horizon", "uplift_trial", "code_output"])].reset_index(
            drop=True
        )
        settings, draws = inference.Settings(islands=4, chains=16, final_sweeps=2), 10
    declared = batch.declared_parameters(rows, worldview)
    cold, warm, fit, least = engine(names, rows, declared, settings)
    mean, se = evidence.mean_evidence(fit.log_evidence)
    print(
        f"engine, {len(names)} dynamics: cold {cold:.1f} s, warm {warm:.1f} s, least ESS {least:.0f}, "
        f"log evidence {np.round(mean, 2)} +- {np.round(se, 2)}",
        flush=True,
    )
    print(f"peak memory of the engine {peak_memory():.2f} GiB", flush=True)
    sampled, bridged, value, error, ess = plain(arguments.dynamic, rows, worldview, draws)
    print(
        f"plain, {arguments.dynamic}: nutpie {sampled:.1f} s, bridge {bridged:.1f} s, least ESS {ess:.0f}, "
        f"log evidence {value:.2f} +- {error:.2f}"
    )
    scale = max(1.0, least / ess)
    each = sampled * scale + bridged
    print(f"unscaled, warm: {len(names) * (sampled + bridged) / warm:.1f} times the plain way")
    print(f"peak memory of both {peak_memory():.2f} GiB")
    print(f"cold: {len(names) * each / cold:.1f} times the plain way")
    print(f"{len(names) * each / warm:.1f} times the plain way")


if __name__ == "__main__":
    main()
