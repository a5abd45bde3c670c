"""Runs for tests of accounts, drawn in NumPy by an independent sampler: nothing is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from forecast import batch, bridge, model, readings, runs
from forecast.absorption import pseudo_values
from forecast.accounts import Posterior, Run
from forecast.dynamics import DYNAMICS, own_names
from forecast.priors import Parameter
from forecast.worldviews import Worldview


def own(name: str, declared: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Parameters of one dynamic, by the names it sees."""
    return {n.removeprefix(f"{name}."): declared[n] for n in own_names(declared, name)}


def prior(name: str, declared: Mapping[str, Parameter], islands: int, draws: int, seed: int) -> Posterior:
    """Draws from the prior, and no rows."""
    mine = own(name, declared)
    z = np.random.default_rng(seed).standard_normal((islands, draws, len(mine)))
    theta = readings.values({n: z[..., i].ravel() for i, n in enumerate(mine)}, mine)
    return Posterior(tuple(mine), mine, theta, z, np.zeros((islands, draws, 0)))


def prior_run(worldview: Worldview, rows: pd.DataFrame, inputs: batch.Inputs, islands=8, draws=2000) -> Run:
    """A run that has seen nothing, with the parameters that `rows` need."""
    declared = model.ordered(model.with_priors(model.parameters(list(DYNAMICS), rows), worldview.priors))
    found = {n: prior(n, declared, islands, draws, k) for k, n in enumerate(DYNAMICS)}
    nothing = np.zeros((len(DYNAMICS), islands))
    empty = batch.Inputs(
        inputs.archive, inputs.snapshot, inputs.selection._replace(rows=rows.iloc[:0]), inputs.worldviews, {}
    )
    manifest = {"as_of": "2022-12-31", "seed": 1, "content_hash": "0"}
    return Run(Path(), worldview, empty, manifest, nothing, np.zeros((len(DYNAMICS), 2)), found)


def pooled(log_z: np.ndarray) -> np.ndarray:
    """Pseudo-values of the log of a mean evidence, from the logs of that of each island."""
    return pseudo_values(lambda x: logsumexp(x) - np.log(len(x)), log_z[:, None])


def sampled(
    name: str,
    declared: Mapping[str, Parameter],
    rows: pd.DataFrame,
    islands: int = 8,
    draws: int = 250,
    moves: int = 12,
    seed: int = 1,
) -> tuple[Posterior, np.ndarray]:
    """Posterior of one dynamic and its log evidence by island: tempering with Crank-Nicolson moves.

    Every prior is standard normal in the scores, so z' = sqrt(1 - b^2) z + b xi leaves it as it is.
    """
    rng, mine = np.random.default_rng(seed), own(name, declared)
    grid = model.fit_grid(rows)

    def evaluate(z: np.ndarray) -> np.ndarray:
        theta = readings.values({n: z[:, i] for i, n in enumerate(mine)}, mine)
        found = readings.rows_at(rows, readings.at_draws(DYNAMICS[name], theta, grid))
        return np.where(np.isfinite(found), found, -1e9)

    z = rng.standard_normal((islands * draws, len(mine)))
    each = evaluate(z)
    power, log_z, size = 0.0, np.zeros(islands), 0.5
    while power < 1.0:
        total = each.sum(1)

        def share(new: float, total: np.ndarray = total, power: float = power) -> float:
            w = (new - power) * total
            return float(np.exp(2 * logsumexp(w) - logsumexp(2 * w)) / len(w))

        new = 1.0
        if share(1.0) < 0.6:
            low, high = power, 1.0
            for _ in range(30):
                middle = (low + high) / 2
                low, high = (middle, high) if share(middle) > 0.6 else (low, middle)
            new = low
        weight = ((new - power) * total).reshape(islands, draws)
        log_z += logsumexp(weight, axis=1) - np.log(draws)
        p = np.exp(weight - logsumexp(weight, axis=1, keepdims=True))
        chosen = np.concatenate(
            [i * draws + rng.choice(draws, draws, p=p[i] / p[i].sum()) for i in range(islands)]
        )
        z, each, power = z[chosen], each[chosen], new
        for _ in range(moves * (3 if power == 1.0 else 1)):
            trial = np.sqrt(1 - size**2) * z + size * rng.standard_normal(z.shape)
            there = evaluate(trial)
            chance = np.exp(np.minimum(power * (there.sum(1) - each.sum(1)), 0.0))
            accept = rng.random(len(z)) < chance
            z, each = np.where(accept[:, None], trial, z), np.where(accept[:, None], there, each)
            size = float(np.clip(size * np.exp(0.3 * (chance.mean() - 0.3)), 0.02, 0.99))
    theta = readings.values({n: z[:, i] for i, n in enumerate(mine)}, mine)
    shape = (islands, draws, -1)
    return Posterior(tuple(mine), mine, theta, z.reshape(shape), each.reshape(shape)), pooled(log_z)


def weighed(
    name: str, declared: Mapping[str, Parameter], rows: pd.DataFrame, draws: int, seed: int, islands: int = 8
) -> tuple[Posterior, np.ndarray]:
    """Posterior and log evidence by island from prior draws alone, for the few rows that allow it."""
    before = prior(name, declared, islands, draws, seed)
    each = readings.rows_at(rows, readings.at_draws(DYNAMICS[name], before.theta, model.fit_grid(rows)))
    each = np.where(np.isfinite(each), each, -1e9).reshape(islands, draws, -1)
    total, rng = each.sum(-1), np.random.default_rng(seed + 1000)
    log_z = logsumexp(total, axis=1) - np.log(draws)
    p = np.exp(total - logsumexp(total, axis=1, keepdims=True))
    chosen = np.stack([rng.choice(draws, draws, p=q / q.sum()) for q in p])[..., None]
    z, each = (np.take_along_axis(x, chosen, axis=1) for x in (before.scores, each))
    theta = readings.values({n: z[..., i].ravel() for i, n in enumerate(before.names)}, before.declared)
    return Posterior(before.names, before.declared, theta, z, each), pooled(log_z)


def made_run(
    inputs: batch.Inputs, worldview: Worldview, found: Mapping[str, tuple[Posterior, np.ndarray]]
) -> Run:
    """A run from posteriors and evidence; its one-shot evidence is bridge sampling from the draws."""
    rows = inputs.selection.rows
    declared = batch.declared_parameters(rows, worldview)
    checks = []
    for k, (name, (mine, _)) in enumerate(found.items()):

        def target(z: np.ndarray, name: str = name, mine: Posterior = mine) -> np.ndarray:
            theta = readings.values({n: z[:, i] for i, n in enumerate(mine.names)}, mine.declared)
            many = readings.at_draws(DYNAMICS[name], theta, model.fit_grid(rows))
            each = readings.rows_at(rows, many).sum(1)
            return np.where(np.isfinite(each), each, -1e9) - 0.5 * (z**2 + np.log(2 * np.pi)).sum(1)

        checks.append(bridge.bridge(mine.scores, target, np.random.default_rng(k)))
    manifest = {
        "status": "done",
        "as_of": inputs.as_of,
        "worldview": worldview.name,
        "rows": len(rows),
        "seed": 1,
        "note": "",
        "seconds": 0.0,
        "gate": {n: [] for n in DYNAMICS},
        "min_ess": dict.fromkeys(DYNAMICS, 1000.0),
        "priors": {n: str(p.prior) for n, p in declared.items()},
        "observations": batch.observations(rows),
        "content_hash": "0",
    }
    posteriors = {n: p for n, (p, _) in found.items()}
    log_evidence = np.stack([z for _, z in found.values()])
    return Run(Path(), worldview, inputs, manifest, log_evidence, np.array(checks), posteriors)


def save(run: Run, store: Path) -> Path:
    """Write a run as the engine would."""
    import xarray as xr

    tree = xr.DataTree()
    for name, mine in run.posteriors.items():
        shape = mine.scores.shape[:2]
        theta = {n: (("chain", "draw"), x.reshape(shape).astype("float32")) for n, x in mine.theta.items()}
        rows = (("chain", "draw", "row"), mine.likelihood.astype("float32"))
        tree[f"{name}/posterior"] = xr.DataTree(xr.Dataset(theta))
        tree[f"{name}/log_likelihood"] = xr.DataTree(xr.Dataset({"rows": rows}))
    tree["evidence"] = xr.DataTree(
        xr.Dataset(
            {
                "log_marginal_likelihood": (("dynamic", "island"), run.log_evidence),
                "one_shot": (("dynamic", "estimate"), run.one_shot),
            },
            coords={"dynamic": list(DYNAMICS), "estimate": ["value", "se"]},
        )
    )
    manifest = {k: v for k, v in run.manifest.items() if k not in ("as_of", "worldview", "content_hash")}
    key = runs.run_key({"seed": run.manifest["seed"]})
    return runs.save(store, run.as_of, run.worldview.name, key, tree, manifest)
