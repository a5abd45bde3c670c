"""Fits that cost nothing, for tests of batches; workers of other processes import them by name."""

from __future__ import annotations

import concurrent.futures as cf
import functools
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr

import page_store
from forecast import batch, history, prediction, workers
from forecast.dynamics import DYNAMICS

NAMES = list(DYNAMICS)
TIME = np.arange(2023.0, 2041.01, 0.25)
LAX = {
    **{"ess": 0.0, "weight_se": 99.0, "bayes_factor_se": 99.0, "agreement": np.inf},
    "probability_se": 0.0,
    **{"acceptance_low": 0.0, "acceptance_high": 1.0, "distance": 0.0},
}
"""A gate that lets tiny fits pass."""


def fit(step: history.Step, before: history.Stored | None) -> history.Stored:
    """A run made up from its key and from the run before, as small as exports can read."""
    base = 0.0 if before is None else float(before.tree["evidence"].to_dataset()["one_shot"].sum())
    rng = np.random.default_rng([int(step.key, 16), int(abs(base) * 1e6)])
    milestones = list(step.inputs.milestones)
    parts = {}
    for name in NAMES:
        passage = 2024 + 20 * rng.random((len(milestones), 4, 25))
        passage[passage > TIME[-1]] = np.inf
        start = np.where(np.isin(prediction.BANDS, ["H", "F"]), -3.0, 0.0)
        levels = start[:, None, None] + np.sort(rng.random((len(prediction.BANDS), 7, 1)), axis=1)
        parts[f"/{name}/predictions"] = xr.Dataset(
            {
                "passage": (("milestone", "chain", "draw"), passage),
                "bands": (
                    ("quantity", "quantile", "time"),
                    np.exp(levels + np.linspace(0, 2, len(TIME))),
                ),
            },
            coords={
                "milestone": milestones,
                "quantity": list(prediction.BANDS),
                "quantile": list(prediction.QUANTILES),
                "time": TIME,
            },
        )
    parts["/evidence"] = xr.Dataset(
        {
            # Levels far apart beside the noise of islands, so that another key is another number.
            "log_marginal_likelihood": (
                ("dynamic", "island"),
                rng.normal(-9, 1.0, (len(NAMES), 1)) + rng.normal(0, 0.05, (len(NAMES), 8)),
            ),
            "one_shot": (("dynamic", "estimate"), rng.random((len(NAMES), 2))),
        },
        coords={"dynamic": NAMES, "estimate": ["value", "se"]},
    )
    manifest = {
        "status": "done",
        "note": "",
        "rows": len(step.inputs.selection.rows),
        "seed": step.seed,
        "code": "made up",
        "seconds": 0.0,
        "gate": {name: [] for name in NAMES},
        "min_ess": dict.fromkeys(NAMES, 500.0),
        "method": "direct" if before is None else "stepped",
        "increment": None,
    }
    return history.Stored(xr.DataTree.from_dict(parts), manifest)


def with_draws(step: history.Step, before: history.Stored | None) -> history.Stored:
    """A made-up run that has draws, those of the prior, as a page and scenarios need them."""
    tree, _ = page_store.made(step.worldview.name, 0.5, step.inputs.selection)
    rows = len(step.inputs.selection.rows)
    for name in NAMES:
        none = xr.Dataset({"rows": (("chain", "draw", "row"), np.zeros((4, 25, rows)))})
        tree[f"{name}/log_likelihood"] = xr.DataTree(none)
    return history.Stored(tree, fit(step, before).manifest | {"priors": {}})


def fail_rapid(step: history.Step, before: history.Stored | None) -> history.Stored:
    """One worldview fails its gate."""
    made = fit(step, before)
    if step.worldview.name != "rapid":
        return made
    gate = {name: ["effective sample size 3"] for name in NAMES}
    return history.Stored(made.tree, made.manifest | {"status": "failed", "gate": gate})


def held(step: history.Step, before: history.Stored | None) -> history.Stored:
    """Ends when it is told to."""
    while not Path(os.environ["FORECAST_TEST_MARK"]).exists():
        time.sleep(0.05)
    return fit(step, before)


def die_once(step: history.Step, before: history.Stored | None) -> history.Stored:
    """The process of the first fit of all is killed in the middle of it."""
    mark = Path(os.environ["FORECAST_TEST_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(step, before)


def die(step: history.Step, before: history.Stored | None) -> history.Stored:
    """The process of every fit is killed in the middle of it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return fit(step, before)


def where(piece: int) -> tuple[int, int]:
    """A piece of work and the process that did it."""
    time.sleep(0.5)
    return piece, os.getpid()


def crash(step: history.Step, before: history.Stored | None) -> history.Stored:
    """Every fit of one worldview raises."""
    if step.worldview.name == "rapid":
        raise FloatingPointError("no\nnumber")
    return fit(step, before)


def real(step: history.Step, before: history.Stored | None) -> history.Stored:
    """The engine, at a gate that lets everything pass and is tried once."""
    batch.GATE, batch.ATTEMPTS = LAX, 1
    return workers.fit(step, before)


class Inline:
    """Fits in this process."""

    def submit(self, payload: bytes) -> cf.Future[history.Stored]:
        future: cf.Future[history.Stored] = cf.Future()
        try:
            future.set_result(workers.work(payload))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        pass


def main() -> None:
    """The command line, with one of these fits for that of the engine: FIT WORD...."""
    from forecast import cli, scheduling

    name, *words = sys.argv[1:]
    scheduling.run = functools.partial(scheduling.run, take=getattr(made(), name))
    sys.argv = ["forecast", *words]
    cli.main()


def made():
    """This module under its own name, so that workers can import what it holds."""
    import importlib

    return importlib.import_module("made")


if __name__ == "__main__":
    main()
