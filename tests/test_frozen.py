"""Frozen refits by the engine itself: against the densities that stand for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from forecast import absorption, accounts, batch, evidence, frozen, inference
from forecast.absorption import Estimate
from forecast.dynamics import DYNAMICS

ROOT = Path(__file__).parents[1]
SMALL = inference.Settings(islands=8, chains=64, final_sweeps=4)
ASSUMPTIONS = ("v", "f26", "tau", "pL", "sigma", "ln_qr", "chi", "g0", "gK1", "g2", "mu_D", "code_google")


@pytest.mark.slow
def test_reliance_is_the_loss_of_evidence_in_frozen_fits_of_an_early_day(tmp_path):
    """Twelve assumptions, each frozen and fitted again, under every dynamic."""
    inputs = batch.at_date(batch.load_inputs(ROOT / "data", ROOT / "priors"), "2024-12-31")
    neutral = inputs.worldviews["neutral"]
    (folder,) = batch.update(inputs, [neutral], tmp_path, settings=SMALL)
    run = accounts.read(folder, inputs, neutral)
    refitter = frozen.Refitter(run, dataclasses.replace(SMALL, final_sweeps=2))
    free = evidence.mean_evidence(run.log_evidence)
    compared = 0
    for name in ASSUMPTIONS:
        kept = refitter.frozen([name], f"frozen {name}")
        held = evidence.mean_evidence(np.array(kept["log_evidence"]))
        for k, mine in enumerate(run.posteriors.values()):
            if name not in mine.names:
                continue
            relied = absorption.reliance(mine.scores[..., mine.names.index(name)])
            if relied is None:
                continue
            lost = Estimate(free[0][k], free[1][k]) - Estimate(held[0][k], held[1][k])
            error = (relied - lost).se
            assert relied.value == pytest.approx(lost.value, abs=0.2 + 2 * error), (name, k)
            compared += 1
    assert compared >= 10 * len(DYNAMICS) / 2
