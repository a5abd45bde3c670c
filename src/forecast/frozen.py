"""Frozen against free: the same evidence with assumptions held where they stood before it.

A group of assumptions is frozen by narrowing its priors, which are inputs of the compiled model, so no
model is built again; each coalition of groups is one small fit, started from the conditional distribution
of the other parameters in the stored draws.  Rows are left out by stepping the stored draws to row weights
of zero.  Each result is kept beside the run it belongs to, so an interrupted computation goes on where it
stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecast import absorption, batch, evidence, free_values, inference, model, readings, runs
from forecast import deviation as dev
from forecast.absorption import Estimate
from forecast.accounts import Posterior, Run, number, pairs
from forecast.camps import groups_of_rows, without_rows
from forecast.compilation import Compiled
from forecast.dynamics import DYNAMICS
from forecast.particles import Gaussian
from forecast.priors import Parameter
from forecast.schema import BELT

SETTINGS = inference.Settings(islands=8, chains=64, steps=4, final_sweeps=2)
"""Size of a refit: half the chains of a full fit, and no pilot."""
HELD = 0.1
"""To what sd, in nats, the deviation is held when it is frozen; held tighter it could not be sampled."""
FIRST_STEP = 0.2
"""Step size of the first move of stored draws; it adapts."""
LIMITS = {"bayes_factor_se": 0.5, "acceptance": 0.4, "distance": 0.1}
"""What a refit must keep to be shown."""
Report = Callable[[str, float], None]


# What is frozen -----------------------------------------------------------------------------------------


def medians(declared: Mapping[str, Parameter], chosen: Sequence[str]) -> dict[str, float]:
    """Prior median of each of some parameters; that of one below a cap is taken where the cap's are."""
    middle = readings.values(dict.fromkeys(declared, np.zeros(1)), declared)
    return {n: float(middle[n][0]) for n in chosen}


def freeze(declared: Mapping[str, Parameter], chosen: Sequence[str]) -> dict[str, Parameter]:
    """The same parameters, some of them frozen at their prior medians; the deviation is held near zero."""
    at = medians(declared, chosen)
    found = dict(declared)
    for name, value in at.items():
        parameter = declared[name]
        if name == "deviation_sd":
            narrow = parameter.prior.narrowed(HELD, HELD / 100)
        elif dev.is_knot(name):
            continue  # A standard normal in the model; held by its sd.
        else:
            narrow = parameter.prior.narrowed(value)
        found[name] = dataclasses.replace(parameter, prior=narrow)
    return found


def members(declared: Mapping[str, Parameter], groups: Sequence[str]) -> list[str]:
    """Parameters of some belt groups, by full name."""
    return [n for n, p in declared.items() if p.role in groups]


def coalitions() -> list[tuple[str, ...]]:
    """Every coalition of belt groups but the empty one, all four first."""
    return [some for size in range(len(BELT), 0, -1) for some in combinations(BELT, size)]


# Fits ---------------------------------------------------------------------------------------------------


def conditional(
    run: Run, declared: Mapping[str, Parameter], held: Sequence[str], seed: int, size: int = 2000
) -> Gaussian:
    """Where the posterior lies once some scores are zero: each dynamic's draws, conditioned as a Gaussian.

    Parameters
    ----------
    declared
        With the frozen priors.
    held
        Parameters that are frozen, by full name.
    """
    rng = np.random.default_rng(seed)
    scores = []
    for name, mine in run.posteriors.items():
        own = {n.removeprefix(f"{name}.") for n in held}
        fixed = [i for i, n in enumerate(mine.names) if n in own]
        chosen = rng.integers(len(mine.flat), size=size)
        moved = absorption.conditioned(mine.flat, fixed, 0.0)[chosen]
        # What is frozen keeps the score of its narrow prior.
        moved[:, fixed] = rng.standard_normal((size, len(fixed)))
        scores.append(dict(zip(mine.names, moved.T, strict=True)))
    x = free_values.from_scores(list(DYNAMICS), declared, run.rows, scores, seed)
    centre, spread = absorption.moments(x.reshape(-1, x.shape[-1]))
    return Gaussian(centre, inference.INFLATION * np.linalg.cholesky(spread + 1e-9 * np.eye(len(centre))))


def placed(
    posteriors: Mapping[str, Posterior],
    declared: Mapping[str, Parameter],
    rows: pd.DataFrame,
    log_evidence: np.ndarray,
    one_shot: np.ndarray,
    seed: int,
    centring: np.ndarray | None = None,
) -> inference.Fit:
    """Stored draws as a fit of the joint model of some rows, from which `inference.advance` can step.

    Parameters
    ----------
    posteriors
        Of every dynamic; parameters that they lack are drawn from the prior.
    declared, rows
        Of the model.
    log_evidence, one_shot
        As in `accounts.Run`.
    centring
        As in `free_values.from_scores`.
    """
    scores = [{n: mine.flat[:, i] for i, n in enumerate(mine.names)} for mine in posteriors.values()]
    x = free_values.from_scores(list(DYNAMICS), declared, rows, scores, seed, centring)
    shape = next(iter(posteriors.values())).scores.shape
    return inference.Fit(x.reshape(len(DYNAMICS), *shape[:2], -1), log_evidence, one_shot, (), FIRST_STEP)


class Refitter:
    """Refits of one run, its model compiled at the first that is not kept yet."""

    def __init__(
        self,
        run: Run,
        settings: inference.Settings = SETTINGS,
        programs: dict[tuple[str, ...], Compiled] | None = None,
        report: Report | None = None,
    ):
        self.run, self.settings = run, settings
        self.programs = {} if programs is None else programs
        self.report = report or (lambda what, share: None)
        self.declared = batch.declared_parameters(run.rows, run.worldview)

    @property
    def compiled(self) -> Compiled:
        """The run's model."""
        return batch.compile_once(self.programs, self.run.rows, self.declared)

    def seed(self, what: str) -> int:
        """A seed of its own for each refit."""
        return runs.seed_of(f"{self.run.manifest['seed']} {what}")

    def place(self, what: str) -> Path:
        """Where a refit is kept."""
        content = json.dumps([what, dataclasses.asdict(self.settings), self.run.manifest["content_hash"]])
        return self.run.folder / "refits" / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"

    def kept(self, what: str) -> dict[str, Any] | None:
        """A refit that was made before."""
        found = runs.recall(self.place(what))
        return None if found is None else dict(found)

    def _keep(self, what: str, refit: Callable[[int, inference.Settings], inference.Fit]) -> dict[str, Any]:
        """Make a refit, again with more sweeps where it cannot be trusted, and keep it."""
        for attempt in range(batch.ATTEMPTS):
            sizes = dataclasses.replace(self.settings, sweeps=self.settings.sweeps * 2**attempt)
            fit = refit(self.seed(f"{what} {attempt}"), sizes)
            failures = sound(fit)
            if not failures:
                break
        found = {"what": what, "log_evidence": fit.log_evidence.tolist(), "failures": failures}
        runs.remember(self.place(what), found)
        return found

    def frozen(self, chosen: Sequence[str], what: str) -> dict[str, Any]:
        """Log evidence with some parameters frozen at their prior medians."""
        if (found := self.kept(what)) is not None:
            return found
        self.report(what, 0.0)
        declared = freeze(self.declared, chosen)
        reference = conditional(self.run, declared, chosen, self.seed(what))

        def refit(seed: int, settings: inference.Settings) -> inference.Fit:
            data = model.data_values(declared)
            return inference.sample(
                self.compiled, seed, settings, data, self._tell(what), reference=reference
            )

        return self._keep(what, refit)

    def without(self, where: np.ndarray, what: str) -> dict[str, Any]:
        """Log evidence without some rows, stepped from the stored draws."""
        if (found := self.kept(what)) is not None:
            return found
        self.report(what, 0.0)
        run = self.run
        evidences = run.log_evidence, run.one_shot
        start = placed(run.posteriors, self.declared, run.rows, *evidences, self.seed(what))
        priors = model.data_values(self.declared)
        counted = np.ones(len(run.rows))
        counted[where] = 0.0
        old, new = priors | {"weight": np.ones(len(run.rows))}, priors | {"weight": counted}

        def refit(seed: int, settings: inference.Settings) -> inference.Fit:
            sizes = dataclasses.replace(settings, islands=start.draws.shape[1])
            return inference.advance(self.compiled, seed, start, old, new, sizes, self._tell(what))

        return self._keep(what, refit)

    def _tell(self, what: str) -> inference.Progress:
        return lambda _, share: self.report(what, share)


def sound(fit: inference.Fit) -> list[str]:
    """Reasons for which a refit cannot be trusted."""
    found = []
    worst = max(se for _, se in evidence.bayes_factors(tuple(DYNAMICS), fit.log_evidence).values())
    if not worst <= LIMITS["bayes_factor_se"]:
        found.append(f"standard error of a log Bayes factor {worst:.2f}")
    for stage in fit.stages:
        if stage.acceptance < LIMITS["acceptance"] or stage.distance < LIMITS["distance"]:
            found.append(
                f"acceptance {stage.acceptance:.2f}, distance {stage.distance:.2f} at {stage.power:.3f}"
            )
    return found


# What is shown ------------------------------------------------------------------------------------------


def refit_all(refitter: Refitter) -> None:
    """Make every refit that an account can use and is not kept yet: coalitions, then groups of rows."""
    for some in coalitions():
        refitter.frozen(members(refitter.declared, some), "frozen " + " ".join(some))
    for (kind, name), where in groups_of_rows(refitter.run.rows).items():
        if without_rows(refitter.run, where)[1] > absorption.GOOD_K:
            refitter.without(where, f"without {kind}:{name}")


def kept_without(refitter: Refitter) -> dict[str, np.ndarray]:
    """Log evidence without groups of rows, from refits made before, by ``kind:name``."""
    found = {}
    for kind, name in groups_of_rows(refitter.run.rows):
        kept = refitter.kept(f"without {kind}:{name}")
        if kept and not kept["failures"]:
            found[f"{kind}:{name}"] = np.array(kept["log_evidence"])
    return found


def frozen_record(refitter: Refitter) -> dict[str, Any] | None:
    """Frozen against free, from refits made before; None if the whole belt was never frozen.

    Returns
    -------
    dict
        ``log_evidence``: by coalition, by dynamic, with the loss ``cost`` of freezing, and ``refuted``
        where it is above `absorption.REFUTED`.  ``pairs``: ``a``, ``b``, ``free`` and ``frozen`` log Bayes
        factors, ``absorbed`` = frozen - free, ``shapley`` shares of the groups, which sum to it, and
        ``refuted``, the freezes of the pair that the data refute.
    """
    names = tuple(DYNAMICS)
    run = refitter.run
    kept = {some: refitter.kept("frozen " + " ".join(some)) for some in coalitions()}
    good = {s: np.array(k["log_evidence"]) for s, k in kept.items() if k and not k["failures"]}
    if BELT not in good:
        return None
    free_mean, free_se = evidence.mean_evidence(run.log_evidence)
    table = {}
    for some, values in good.items():
        mean, se = evidence.mean_evidence(values)
        table["+".join(some)] = {
            n: {
                "log_evidence": number(Estimate(mean[k], se[k])),
                "cost": number(Estimate(free_mean[k] - mean[k], np.hypot(free_se[k], se[k]))),
                "refuted": bool(free_mean[k] - mean[k] > absorption.REFUTED),
            }
            for k, n in enumerate(names)
        }
    free = evidence.bayes_factors(names, run.log_evidence)
    by = {some: evidence.bayes_factors(names, values) for some, values in good.items()}
    found = []
    for a, b in pairs():
        whole = Estimate(*free[a, b])
        held = Estimate(*by[BELT][a, b])
        worth = {frozenset(some): factors[a, b][0] for some, factors in by.items()}
        worth[frozenset()] = whole.value
        complete = len(worth) == 2 ** len(BELT)
        found.append(
            {
                "a": a,
                "b": b,
                "free": number(whole),
                "frozen": number(held),
                "absorbed": number(held - whole),
                "shapley": absorption.shapley(worth, BELT) if complete else None,
                "refuted": [s for s, row in table.items() if row[a]["refuted"] or row[b]["refuted"]],
            }
        )
    return {"log_evidence": table, "pairs": found}
