"""Weights of every dynamic under every worldview on many dates, against one plain PyMC fit for each cell.

The plain way compiles a model of each dynamic once, samples it with nutpie for each worldview and date, and
bridges its draws to a Gaussian for the evidence.  It is timed on one dynamic and date and counted once per
cell; where it has fewer effective draws than the engine, its draws are scaled to match.  Both ways see the
same rows and priors on the same machine in one run.

Run ``uv run python benchmarks/history.py``; ``--quick`` is a smoke run on few dates, indicators and draws.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("PYTENSOR_FLAGS", "numba__fastmath=False")

import arviz as az
import jax
import pandas as pd
from plain import bridging, nuts

from forecast import batch, history, inference, runs
from forecast.dynamics import DYNAMICS

# A cold start compiles everything.
jax.config.update("jax_enable_compilation_cache", False)

ROOT = Path(__file__).parents[1]
DATES = 12
FEW = ("metr_th50_v11", "uplift_rct_time", "code_per_engineer")
"""Indicators of the smoke run."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smoke run: two dates, few rows and draws")
    parser.add_argument("--dynamic", default="explosive", help="dynamic the plain way is timed on")
    return parser.parse_args()


def month_ends(inputs: batch.Inputs, count: int) -> list[pd.Timestamp]:
    """The last ends of months; the archive has rows that count for fewer than twelve quarters."""
    return history.dates(inputs.archive, every="month")[-count:]


def main() -> None:
    """Print both ways and the ratio."""
    arguments = parse()
    inputs = batch.load_inputs(ROOT / "data", ROOT / "priors")
    worldviews = list(inputs.worldviews.values())
    days, settings, draws = month_ends(inputs, DATES), inference.Settings(), 400
    if arguments.quick:
        print("smoke run: its figures mean nothing")
        worldviews, days, draws = worldviews[:1], days[:2], 20
        settings = inference.Settings(islands=4, chains=16, final_sweeps=2)
        seen = inputs.archive.observations
        few = seen[seen["indicator_id"].isin(FEW)].reset_index(drop=True)
        inputs = replace(inputs, archive=replace(inputs.archive, observations=few))
        # Too few particles for the gate, and a failed one would only be fitted again.
        batch.ATTEMPTS = 1
    window = history.make_window(inputs, days)
    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        folders = history.update(window, worldviews, Path(store), settings=settings)
        took = time.perf_counter() - began
        manifests = [runs.load(f)[1] for each in folders.values() for f in each]
    cells = len(DYNAMICS) * len(manifests)
    passed = sum(not reasons for m in manifests for reasons in m["gate"].values())
    stepped = sum(m["method"] == "stepped" for m in manifests)
    least = min(e for m in manifests for e in m["min_ess"].values())
    print(
        f"engine: {len(DYNAMICS)} dynamics, {len(worldviews)} worldviews, {len(days)} dates in {took:.1f} s; "
        f"{passed} of {cells} cells pass the gate, {stepped} of {len(manifests)} dates stepped, "
        f"least ESS {least:.0f}",
        flush=True,
    )
    # The middle date has a typical number of rows.
    middle = batch.at_date(inputs, days[len(days) // 2])
    rows = middle.selection.rows
    compiling, sampling, built, posterior = nuts(arguments.dynamic, worldviews[0], rows, draws, draws)
    bridge = bridging(built, posterior)
    bridge()
    began = time.perf_counter()
    _, error = bridge()
    bridged = time.perf_counter() - began
    ess = float(az.ess(posterior).to_array().min())
    print(
        f"plain, {arguments.dynamic} as of {middle.as_of}: compiled in {compiling:.1f} s, "
        f"sampled in {sampling:.1f} s ({draws} draws, least ESS {ess:.0f}), "
        f"bridged in {bridged:.1f} s (error {error:.2f})"
    )
    # Half of the sampling is warm-up, which better draws do not need more of.
    each = sampling / 2 * (1 + max(1.0, least / ess)) + bridged
    print(f"{cells * (compiling + each) / took:.1f} times, were it compiled for the rows of every cell")
    print(f"{(len(DYNAMICS) * compiling + cells * each) / took:.1f} times the plain way")


if __name__ == "__main__":
    main()
