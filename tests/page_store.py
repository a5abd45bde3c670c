"""Made-up runs with real paths: prior draws of each dynamic, so that no sampler is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from forecast import prediction, runs
from forecast.dynamics import DYNAMICS
from forecast.selection import Selection
from forecast.worldviews import full_priors, load_worldview

ROOT = Path(__file__).parents[1]
NAMES = tuple(DYNAMICS)
MILESTONES = prediction.load_milestones(ROOT / "data" / "milestones.toml")
CHAINS, DRAWS = 4, 25
OTHERS = {n: tuple(f"{other}." for other in NAMES if other != n) for n in NAMES}


def made(worldview: str, shift: float, selection: Selection, failures: dict[str, list[str]] | None = None):
    """Tree and manifest of a run whose draws are those of the worldview's prior."""
    rng = np.random.default_rng(7)
    everything = full_priors(load_worldview(ROOT / "priors" / f"{worldview}.toml"))
    tree = xr.DataTree()
    for name in NAMES:
        mine = {
            n.removeprefix(f"{name}."): p for n, p in everything.items() if not n.startswith(OTHERS[name])
        }
        draws = {n: p.prior.quantile(rng.random((CHAINS, DRAWS))) for n, p in mine.items()}
        draws["pK"] = draws["pK"] * (1 - draws["pL"])
        theta = xr.Dataset({n: (("chain", "draw"), x) for n, x in draws.items()})
        tree[f"{name}/posterior"] = xr.DataTree(theta.astype("float32"))
        tree[f"{name}/predictions"] = xr.DataTree(prediction.predict(name, theta, MILESTONES))
    evidence = shift * np.arange(len(NAMES))[:, None] + rng.normal(0, 0.1, (len(NAMES), 8)) - 450
    tree["evidence"] = xr.DataTree(
        xr.Dataset(
            {
                "log_marginal_likelihood": (("dynamic", "island"), evidence),
                "one_shot": (("dynamic", "estimate"), np.tile([-450.0, 0.1], (len(NAMES), 1))),
            },
            coords={"dynamic": list(NAMES), "estimate": ["value", "se"]},
        )
    )
    manifest = {
        "status": "failed" if failures else "done",
        "note": "",
        "rows": len(selection.rows),
        "seconds": 1.5,
        "seed": 1,
        "attempts": 1,
        "code": "test",
        "gate": {name: [] for name in NAMES} | (failures or {}),
        "min_ess": dict.fromkeys(NAMES, 500.0),
    }
    return tree, manifest


def fill(store: Path, selection: Selection) -> Path:
    """Three worldviews on the last date, and one of them on an earlier date."""
    for worldview, shift in (("neutral", -0.4), ("plateau", 0.1), ("rapid", -0.7)):
        runs.save(store, "2026-06-30", worldview, "ab", *made(worldview, shift, selection))
    runs.save(store, "2025-12-31", "neutral", "ac", *made("neutral", 0.2, selection))
    return store
