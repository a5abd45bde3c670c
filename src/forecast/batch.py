"""The flow: archive -> snapshot -> model -> posterior and evidence -> predictions -> run on disk."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from forecast import evidence, free_values, inference, model, prediction, runs, scoring, vintages
from forecast.compilation import Compiled, compile_model
from forecast.dynamics import DYNAMICS, own_names
from forecast.particles import thin
from forecast.priors import Parameter
from forecast.schema import T_END, InputError
from forecast.selection import Selection, select
from forecast.worldviews import Worldview, load_worldviews

Progress = Callable[[str, str, float], None]
"""Told the worldview, what is being done, and the share done."""
Predictor = Callable[[str, xr.Dataset], xr.Dataset]
"""A dynamic and its draws -> what `predict` returns."""

GATE = {
    "ess": 400.0,
    "probability_se": 0.01,
    "weight_se": 0.02,
    "bayes_factor_se": 0.15,
    "acceptance_low": 0.5,
    "acceptance_high": 0.98,
    "distance": 0.15,
    "agreement": 0.5,
}
"""Limits a fit must keep: least ESS, largest errors (a milestone whose probabilities have smaller ones needs
no ESS, which 400 draws at even odds would leave at 0.025), acceptance and distance moved, and the largest
difference in nats between one-shot and sequential evidence beyond two of their standard errors."""
ATTEMPTS = 3
"""Fits pooled before a failed gate is stored as failed."""
LEFT_OUT = 0.9
"""Least share of rows that stacking weights rest on."""
APART = 4.0
"""Nats of leave-one-out score under which dynamics are not told apart."""
RESAMPLED = 100
"""Resamples of rows for the errors of stacking weights."""
KEPT_DRAWS = 250
"""Draws per chain that a stored run keeps; diagnostics are of all draws."""


@dataclass(frozen=True)
class Inputs:
    """Everything a fit is made of."""

    archive: vintages.Archive
    snapshot: pd.DataFrame
    selection: Selection
    worldviews: dict[str, Worldview]
    milestones: dict[str, prediction.Milestone]

    @property
    def as_of(self) -> str:
        """Date of the snapshot, YYYY-MM-DD."""
        return f"{self.snapshot.attrs['as_of']:%Y-%m-%d}"

    @cached_property
    def data_hash(self) -> str:
        """Of the snapshot's content."""
        return vintages.data_hash(self.snapshot)


def load_inputs(data: Path, priors: Path, as_of: str | None = None) -> Inputs:
    """Read and check data, priors and milestones; `as_of` defaults to the last published date."""
    archive = vintages.load_archive(data)
    snapshot = vintages.as_of(archive, as_of or vintages.last_published(archive))
    return Inputs(
        archive,
        snapshot,
        select(archive, snapshot),
        load_worldviews(priors),
        prediction.load_milestones(data / "milestones.toml"),
    )


def at_date(inputs: Inputs, date: pd.Timestamp | str) -> Inputs:
    """The same inputs with what was known on another day."""
    snapshot = vintages.as_of(inputs.archive, date)
    return replace(inputs, snapshot=snapshot, selection=select(inputs.archive, snapshot))


def declared_parameters(
    rows: pd.DataFrame, worldview: Worldview, names: Sequence[str] = ()
) -> dict[str, Parameter]:
    """Parameters of the model of some dynamics, all if none is named, in the model's order."""
    return model.ordered(model.with_priors(model.parameters(names or list(DYNAMICS), rows), worldview.priors))


def update(
    inputs: Inputs,
    worldviews: Sequence[Worldview],
    store: Path,
    seed: int = 1,
    settings: inference.Settings | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Fit every worldview that is not stored yet, and return the folders of the runs in order.

    The model is compiled once for all worldviews whose priors have the same families.
    """
    if inputs.selection.rows.empty:
        raise InputError(f"as_of: no row that counts was published by {inputs.as_of}; take a later day")
    settings = settings or inference.Settings()
    compiled: dict[tuple[str, ...], Compiled] = {}
    folders = []
    for worldview in worldviews:
        declared = declared_parameters(inputs.selection.rows, worldview)
        key = runs.run_key(key_content(inputs, declared, settings, seed))
        found = runs.find(store, inputs.as_of, worldview.name, key)
        if found is None:
            if progress:
                progress(worldview.name, "compiling", 0.0)
            program = compile_once(compiled, inputs.selection.rows, declared)
            tree, manifest = _fit(inputs, worldview, declared, program, settings, seed, progress)
            found = runs.save(store, inputs.as_of, worldview.name, key, tree, manifest)
        folders.append(found)
    return folders


def compile_once(
    compiled: dict[tuple[str, ...], Compiled],
    rows: pd.DataFrame,
    declared: dict[str, Parameter],
    predictive: bool = False,
) -> Compiled:
    """The joint model of `rows`, compiled unless `compiled` has one of the same families of priors.

    A `predictive` one also records the law of each row; one dictionary holds models of one kind.
    """
    shape = tuple(f"{n} {p.prior.family}" for n, p in declared.items())
    if shape not in compiled:
        compiled[shape] = compile_model(joint_model(rows, declared, predictive))
    return compiled[shape]


def joint_model(
    rows: pd.DataFrame,
    declared: dict[str, Parameter],
    predictive: bool = False,
    score_se: np.ndarray | None = None,
) -> pm.Model:
    """`model.build` of all dynamics at even odds."""
    even = [1 / len(DYNAMICS)] * len(DYNAMICS)
    return model.build(list(DYNAMICS), rows, declared, even, predictive, score_se)


def key_content(
    inputs: Inputs, declared: dict[str, Parameter], settings: inference.Settings, seed: int
) -> dict[str, Any]:
    """What could change the numbers of a run, and nothing else (odds do not)."""
    return {
        "as_of": inputs.as_of,
        "data": inputs.data_hash,
        "models": inputs.archive.models_hash,
        "priors": {n: [p.prior.family, p.prior.a, p.prior.b] for n, p in declared.items()},
        "milestones": repr(inputs.milestones),
        "dynamics": list(DYNAMICS),
        "settings": asdict(settings),
        "seed": seed,
        "code": runs.code_version(),
    }


def _fit(
    inputs: Inputs,
    worldview: Worldview,
    declared: dict[str, Parameter],
    compiled: Compiled,
    settings: inference.Settings,
    seed: int,
    progress: Progress | None,
) -> tuple[xr.DataTree, dict[str, Any]]:
    """Fit as `sample_until_sound` does, and predict."""
    began = time.monotonic()
    tell = None if progress is None else partial(progress, worldview.name)
    rows = inputs.selection.rows
    data = model.data_values(declared) | model.row_data(rows, np.ones(len(rows)))
    judged = sample_until_sound(compiled, declared, rows, data, settings, seed, tell)
    tree, manifest = package(inputs, declared, judged, seed)
    manifest["stacking"] = None if judged.failed else stacking(tree, seed)
    return tree, manifest | {"seconds": round(time.monotonic() - began, 2)}


class Judged(NamedTuple):
    """A fit, what its draws mean, and what the gate says of it."""

    fit: inference.Fit
    draws: dict[str, xr.Dataset]
    """From `inference.describe`, by dynamic."""
    failures: dict[str, list[str]]
    min_ess: dict[str, float]
    settings: inference.Settings
    predicted: dict[str, xr.Dataset]
    """From `predict`, by dynamic; empty if the gate had no need of it."""
    earlier: tuple[dict[str, list[str]], ...] = ()
    """Failures of the attempts before."""

    @property
    def failed(self) -> bool:
        """Whether any dynamic missed a limit."""
        return any(self.failures.values())


def examine(
    compiled: Compiled,
    fit: inference.Fit,
    data: inference.Data,
    settings: inference.Settings,
    predictor: Predictor | None = None,
) -> Judged:
    """Put a fit before the gate.

    Parameters
    ----------
    predictor
        Dynamic and its draws -> what `predict` returns.  With it the dates of all milestones need enough
        effective draws or known probabilities, without it all parameters.
    """
    draws = {name: inference.describe(compiled, fit, k, data) for k, name in enumerate(DYNAMICS)}
    predicted: dict[str, xr.Dataset] = {}
    # Draws that are not finite predict nothing, and fail by their parameters.
    if predictor and np.isfinite(fit.draws).all():
        predicted = {name: predictor(name, each) for name, each in draws.items()}
        watched = {name: _dates(each["passage"]) for name, each in predicted.items()}
    else:
        watched = {name: named(each["theta"], name) for name, each in draws.items()}
    return Judged(fit, draws, *judge(fit, watched), settings, predicted)


def sample_until_sound(
    compiled: Compiled,
    declared: dict[str, Parameter],
    rows: pd.DataFrame,
    data: inference.Data,
    settings: inference.Settings,
    seed: int,
    tell: inference.Progress | None,
    predictor: Predictor | None = None,
) -> Judged:
    """Fit, judge, and if the gate fails pool another fit with it: a few chains that stick spoil one.

    Parameters
    ----------
    rows
        Those the model is compiled for.
    data
        Hyper-parameters and `model.row_data`.
    predictor
        As in `examine`.
    """
    names, centring = list(DYNAMICS), data["centring"]
    fits: list[inference.Fit] = []
    earlier: tuple[dict[str, list[str]], ...] = ()
    for attempt in range(ATTEMPTS):
        fit = inference.sample(
            compiled,
            seed + 1_000_003 * attempt,
            settings,
            data,
            tell,
            lambda s, n: free_values.prior_draws(names, declared, rows, s, n, centring)[0],
        )
        # Nothing is gained by pooling with one that is wrong.
        fits = [*(f for f in fits if _is_finite(f).all() and not _bad_moves(f)), fit]
        judged = examine(compiled, inference.pooled(fits), data, settings, predictor)
        judged = judged._replace(earlier=earlier)
        if not judged.failed:
            break
        earlier += (judged.failures,)
    return judged


def package(
    inputs: Inputs,
    declared: dict[str, Parameter],
    judged: Judged,
    seed: int,
    counted: np.ndarray | None = None,
) -> tuple[xr.DataTree, dict[str, Any]]:
    """Draws, log likelihoods, predictions and evidence as a run stores them, and its manifest.

    Parameters
    ----------
    counted
        Which rows of the compiled model count, by position; all by default.
    """
    tree = xr.DataTree()
    predicted = judged.predicted or {
        name: predict(name, draws, inputs, declared, seed) for name, draws in judged.draws.items()
    }
    for name in DYNAMICS:
        theta = named(judged.draws[name]["theta"], name)
        spread = thin(theta.sizes["draw"], KEPT_DRAWS)
        tree[f"{name}/posterior"] = xr.DataTree(theta.isel(draw=spread).astype("float32"))
        likelihood = judged.draws[name]["row_log_likelihood"].isel(draw=spread)
        if counted is not None:
            likelihood = likelihood.isel(row=counted)
        tree[f"{name}/log_likelihood"] = xr.DataTree(likelihood.astype("float32").to_dataset(name="rows"))
        tree[f"{name}/predictions"] = xr.DataTree(predicted[name])
    tree["evidence"] = xr.DataTree(
        xr.Dataset(
            {
                "log_marginal_likelihood": (("dynamic", "island"), judged.fit.log_evidence),
                "one_shot": (("dynamic", "estimate"), judged.fit.check),
            },
            coords={"dynamic": list(DYNAMICS), "estimate": ["value", "se"]},
        )
    )
    manifest = {
        "status": "failed" if judged.failed else "done",
        "note": inputs.snapshot.attrs["note"],
        "rows": len(inputs.selection.rows),
        "seed": seed,
        "attempts": len(judged.earlier) + 1,
        "gate": judged.failures,
        "failed_attempts": list(judged.earlier),
        "min_ess": judged.min_ess,
        "stages": [list(stage) for stage in judged.fit.stages],
        "settings": asdict(judged.settings),
        "priors": {n: str(p.prior) for n, p in declared.items()},
        "code": runs.code_version(),
        "observations": observations(inputs.selection.rows),
    }
    return tree, manifest


def stacking(tree: xr.DataTree, seed: int) -> dict[str, Any]:
    """Weights of the dynamics whose mixture best predicts each row from the others (Yao et al. 2018).

    They ask which mixture predicts rows like those of today, and evidence which dynamic made them all.

    Parameters
    ----------
    tree
        Of a run, with ``posterior`` and ``log_likelihood`` of each dynamic.
    seed
        Of the resampled rows.

    Returns
    -------
    dict
        ``rows``, whose leaving out the draws can tell (Pareto k below the limit of `az.loo` under each
        dynamic); ``apart``, how far the best and the worst dynamic are in nats on them, None if they are too
        few; ``weights``, weight and standard error over resampled rows by dynamic, None if the dynamics
        are less than `APART` nats apart, which tells nothing (Sivula et al. 2020).
    """
    left_out, sound = [], []
    for name in DYNAMICS:
        with warnings.catch_warnings():
            # What it warns of is looked at below.
            warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
            loo = az.loo(tree[name], pointwise=True)
        left_out.append(loo.elpd_i.values)
        sound.append(loo.pareto_k.values <= loo.good_k)
    density, rng = np.stack(left_out, axis=1)[np.all(sound, axis=0)], np.random.default_rng(seed)
    found: dict[str, Any] = {"rows": len(density), "apart": None, "weights": None}
    if len(density) < LEFT_OUT * len(left_out[0]):
        return found
    found["apart"] = float(np.ptp(density.sum(axis=0)))
    if found["apart"] < APART:
        return found
    again = [scoring.stack(density[rng.integers(len(density), size=len(density))]) for _ in range(RESAMPLED)]
    pairs = zip(scoring.stack(density), np.std(again, axis=0), strict=True)
    weights = {name: [float(w), float(se)] for name, (w, se) in zip(DYNAMICS, pairs, strict=True)}
    return found | {"weights": weights}


def predict(
    name: str, draws: xr.Dataset, inputs: Inputs, declared: dict[str, Parameter], seed: int
) -> xr.Dataset:
    """Paths and milestones of one dynamic at its draws, those of `inference.describe`."""
    theta = with_priors(named(draws["theta"], name), inputs, declared, seed)
    return prediction.predict(name, theta, inputs.milestones)


def observations(rows: pd.DataFrame) -> list[list[Any]]:
    """Rows of a likelihood as a manifest lists them: indicator, entity, observed, published, value."""
    days = (rows[name].dt.strftime("%Y-%m-%d") for name in ("observed_at", "published_at"))
    return [list(row) for row in zip(rows["indicator_id"], rows["entity"], *days, rows["value"], strict=True)]


def judge(
    fit: inference.Fit, watched: dict[str, xr.Dataset]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Reasons for which each dynamic fails the gate, and its least effective sample size.

    Looked at: bulk and tail ESS of everything in `watched`, by dynamic, standard errors of weights (at
    equal odds) and of pairwise Bayes factors, acceptance and distance moved at every temperature,
    agreement of sequential and one-shot evidence, and that everything is finite.
    """
    names = tuple(watched)
    even = np.full(len(names), 1 / len(names))
    weight_se = evidence.weights(fit.log_evidence, even).posterior_se
    factors = evidence.bayes_factors(names, fit.log_evidence)
    mean, se = evidence.mean_evidence(fit.log_evidence)
    common, finite = _bad_moves(fit), _is_finite(fit)
    failures: dict[str, list[str]] = {}
    smallest: dict[str, float] = {}
    for k, name in enumerate(names):
        found = list(common)
        if not finite[k]:
            found.append("draws or evidence not finite")
        smallest[name] = _least_ess(watched[name], int(np.prod(fit.draws.shape[1:3])))
        if not smallest[name] >= GATE["ess"]:
            found.append(f"effective sample size {smallest[name]:.0f}")
        if not weight_se[k] <= GATE["weight_se"]:
            found.append(f"standard error of the weight {weight_se[k]:.3f}")
        worst = max(error for pair, (_, error) in factors.items() if name in pair)
        if not worst <= GATE["bayes_factor_se"]:
            found.append(f"standard error of a log Bayes factor {worst:.2f}")
        gap = abs(mean[k] - fit.check[k, 0])
        if not gap <= GATE["agreement"] + 2 * np.hypot(se[k], fit.check[k, 1]):
            found.append(f"one-shot and sequential evidence differ by {gap:.2f} nats")
        failures[name] = found
    return failures, smallest


def _bad_moves(fit: inference.Fit) -> list[str]:
    """Temperatures at which too few moves were accepted, too many, or none led far."""
    found = []
    for stage in fit.stages:
        if not GATE["acceptance_low"] <= stage.acceptance <= GATE["acceptance_high"]:
            found.append(f"acceptance {stage.acceptance:.2f} at power {stage.power:.4f}")
        if stage.distance < GATE["distance"]:
            found.append(f"distance moved {stage.distance:.2f} at power {stage.power:.4f}")
    return found


def _is_finite(fit: inference.Fit) -> np.ndarray:
    """Whether draws and evidence of each label are finite, (label,)."""
    return np.array(
        [
            np.isfinite(x).all() and np.isfinite(z).all()
            for x, z in zip(fit.draws, fit.log_evidence, strict=True)
        ]
    )


def _least_ess(watched: xr.Dataset, draws: int) -> float:
    """Least bulk or tail ESS of all variables; where there is none to watch, the number of draws."""
    if not watched.data_vars:
        return float(draws)
    found = (az.ess(watched, method="bulk"), az.ess(watched, method="tail", prob=(0.05, 0.95)))
    return min(float(v) for one in found for v in one.data_vars.values())


def _dates(passage: xr.DataArray) -> xr.Dataset:
    """First passages (milestone, chain, draw) as variables, never as one step past the grid.

    Left out are milestones whose probability by every reported date is known closely: where nearly all draws
    agree, ranks are ties and the few others, states of one or two chains, make ESS as small as the number
    of islands.
    """
    years = xr.DataArray(list(prediction.report_dates().values()), dims="date")
    islands = (passage <= years).mean("draw")
    se = islands.std("chain", ddof=1) / np.sqrt(islands.sizes["chain"])
    open_ = (se > GATE["probability_se"]).any("date")
    finite = passage.clip(max=T_END + 0.25)
    return xr.Dataset({str(m): finite.sel(milestone=m, drop=True) for m in finite["milestone"].values[open_]})


def named(theta: xr.DataArray, name: str) -> xr.Dataset:
    """Parameters of one dynamic as variables, its own ones without their prefix."""
    mine = own_names(map(str, theta["parameter"].values), name)
    return xr.Dataset({p.removeprefix(f"{name}."): theta.sel(parameter=p, drop=True) for p in mine})


def with_priors(theta: xr.Dataset, inputs: Inputs, declared: dict[str, Parameter], seed: int) -> xr.Dataset:
    """Add prior draws of parameters a milestone needs and no row informs."""
    needed = {n for m in inputs.milestones.values() for n in m.needs} - set(theta.data_vars)
    absent = {n: p for n, p in model.every_parameter().items() if n in needed and n not in declared}
    rng = np.random.default_rng(seed)
    shape = (theta.sizes["chain"], theta.sizes["draw"])
    return theta.assign(
        {n: (("chain", "draw"), p.prior.quantile(rng.random(shape))) for n, p in absent.items()}
    )
