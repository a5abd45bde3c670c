"""How the time of the engine grows: from 4 to 40 dates of a history, from some 300 to 3,000 rows of a fit.

The rows are noisy copies of the real ones.  Compiling is not counted.  Run
``uv run python benchmarks/growth.py``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("PYTENSOR_FLAGS", "numba__fastmath=False")

import numpy as np
import pandas as pd

from forecast import batch, history, inference, model

ROOT = Path(__file__).parents[1]
WEEKS = 40
TIMES = 10
NOISE = 0.01
"""Largest relative change of a copied value; whole numbers are counts or bounds and stay."""


def timed_history(inputs: batch.Inputs, days: list[pd.Timestamp]) -> float:
    """Seconds of a history of one worldview."""
    window = history.make_window(inputs, days)
    steps = history.steps(window, inputs.worldviews["neutral"])
    compiled = batch.compile_once({}, window.rows, steps[0].declared)
    # What is compiled on first use, by a fit and by a step.
    before = history.take(steps[0], compiled, None)
    history.take(steps[1], compiled, before)
    before, began = None, time.perf_counter()
    for step in steps:
        before = history.take(step, compiled, before)
    return time.perf_counter() - began


def timed_fit(inputs: batch.Inputs, copies: int) -> tuple[int, float]:
    """Number of rows with as many copies of each, and seconds of a fit to them."""
    rng = np.random.default_rng(1)
    rows = pd.concat([inputs.selection.rows] * copies, ignore_index=True)
    whole = rows["value"] % 1 == 0
    rows["value"] = rows["value"].where(whole, rows["value"] * (1 - NOISE * rng.random(len(rows))))
    declared = batch.declared_parameters(rows, inputs.worldviews["neutral"])
    compiled = batch.compile_once({}, rows, declared)
    data = model.data_values(declared) | model.row_data(rows, np.ones(len(rows)))
    took = 0.0
    for seed in (1, 2):
        began = time.perf_counter()
        batch.sample_until_sound(compiled, declared, rows, data, inference.Settings(), seed, None)
        took = time.perf_counter() - began
    return len(rows), took


def main() -> None:
    """Print how time grows with dates and with rows."""
    # A second try would hide what one costs.
    batch.ATTEMPTS = 1
    inputs = batch.load_inputs(ROOT / "data", ROOT / "priors")
    weeks = history.dates(inputs.archive, every="week")[-WEEKS:]
    few, many = timed_history(inputs, weeks[:: -WEEKS // 4][::-1]), timed_history(inputs, weeks)
    print(f"4 dates {few:.1f} s, {WEEKS} dates of the same weeks {many:.1f} s", flush=True)
    (one, short), (ten, long) = timed_fit(inputs, 1), timed_fit(inputs, TIMES)
    print(f"{one} rows {short:.1f} s, {ten} rows {long:.1f} s: {long / short:.1f} times for {TIMES} times")
    print(f"{many / few:.1f} times the time of 4 dates for {WEEKS}")


if __name__ == "__main__":
    main()
