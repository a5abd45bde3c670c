"""A backtest in short: mean scores, skill against the baselines with its uncertainty, and their tables."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from forecast import backtest, reports, scoring
from forecast.baselines import BASELINES
from forecast.schema import InputError
from forecast.worldviews import Worldview, late_names

ALL = "all"
"""Every category, or every horizon."""
OBSERVED_LATER = "observed later"
"""In place of a category: rows of all of them that were observed after the origin."""
_KEYS = ["worldview", "forecaster"]
_MONTH = 30.44
"""Days in a month."""
BINS = 10
"""Bins of the PIT histogram."""


def summary(
    plan: backtest.Plan,
    forecasts: Mapping[str, Sequence[backtest.Forecast]],
    scored: backtest.Scored,
    worldviews: Sequence[Worldview],
    wide: bool,
) -> dict[str, Any]:
    """What a backtest found, as plain numbers.

    Returns
    -------
    dict
        ``truth``, ``horizons``, ``late_priors`` (``kept`` or ``widened``), ``skipped`` (days on which no row
        counted); ``origins``: for each and each worldview ``as_of``, ``worldview``, ``rows``, ``targets``,
        ``gate``, ``reasons``, ``late_lines``, ``late_defaults``; ``scores``: means by worldview,
        forecaster, category and horizon, with the number of ``rows`` and the ``pit`` histogram; ``skill``:
        by the same and ``baseline``, on rows that both forecast, from `compare`; ``stacking``: weights.
    """
    late = {w.name: {one.as_of: late_names(w, one.as_of) for one in plan.window.inputs} for w in worldviews}
    origins = [
        {
            "as_of": one.as_of,
            "worldview": name,
            "rows": len(one.selection.rows),
            "targets": len(plan.targets[i]),
            "gate": "fail" if any(forecasts[name][i].failed.values()) else "pass",
            "reasons": {n: list(r) for n, r in forecasts[name][i].failed.items() if r},
        }
        | late[name][one.as_of]
        for name in forecasts
        for i, one in enumerate(plan.window.inputs)
    ]
    table = scored.table
    means, skills = [], []
    for category, horizon, part in _groups(table, backtest.labels(plan.horizons)):
        for (worldview, forecaster), rows in part.groupby(_KEYS, sort=False):
            about = {"worldview": worldview, "forecaster": forecaster}
            about |= {"category": category, "horizon": horizon}
            known = rows[rows["log_score"].notna()]
            if known.empty:
                continue
            means.append(about | _means(known))
            if worldview == backtest.NO_WORLDVIEW:
                continue
            for baseline in BASELINES:
                other = part[part["forecaster"] == baseline]
                length = _block(plan, horizon)
                if (found := compare(known, other, length)) is not None:
                    skills.append(about | {"baseline": baseline} | found)
    return {
        "truth": plan.truth,
        "horizons": backtest.labels(plan.horizons),
        "late_priors": "widened" if wide else "kept",
        "skipped": list(plan.skipped),
        "origins": origins,
        "scores": means,
        "skill": skills,
        "stacking": scored.weights,
    }


def _groups(table: pd.DataFrame, horizons: Sequence[str]) -> list[tuple[str, str, pd.DataFrame]]:
    """Category, horizon and their rows, each also over all, and what was not even observed by the origin."""
    parts = {ALL: table, OBSERVED_LATER: table[~table["backfilled"]]}
    parts |= {str(name): rows for name, rows in table.groupby("category")}
    found = []
    for category, mine in parts.items():
        for horizon in (ALL, *horizons):
            part = mine if horizon == ALL else mine[mine["horizon"] == horizon]
            if len(part):
                found.append((category, horizon, part))
    return found


def _block(plan: backtest.Plan, horizon: str) -> int:
    """Neighbouring origins that may be scored on the same row within a horizon."""
    days = pd.DatetimeIndex([one.as_of for one in plan.window.inputs])
    if len(days) < 2:
        return 1
    low, high = (0, plan.horizons[-1]) if horizon == ALL else map(int, horizon.rstrip("m").split("-"))
    apart = float(np.median(np.diff(days.to_numpy()) / np.timedelta64(1, "D"))) / _MONTH
    # Ends of months are some days more or less than whole months apart.
    return max(1, math.ceil((high - low) / apart - 0.1))


def _means(rows: pd.DataFrame) -> dict[str, Any]:
    fields = ["log_score", "log_score_se", "brier", *(f"covered_{100 * x:.0f}" for x in scoring.LEVELS)]
    found: dict[str, Any] = {"rows": len(rows), "origins": int(rows["origin"].nunique())}
    found |= {name: _plain(rows[name].mean()) for name in fields}
    pit = rows["pit"].dropna()
    return found | {"pit": np.histogram(pit, bins=BINS, range=(0, 1))[0].tolist()}


def _plain(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def compare(rows: pd.DataFrame, other: pd.DataFrame, length: int) -> dict[str, Any] | None:
    """Skill of a forecaster against a baseline on rows that both forecast.

    Parameters
    ----------
    rows, other
        Their scores, as `backtest.score` has them.
    length
        Origins in a block of the bootstrap.

    Returns
    -------
    dict or None
        ``rows``; ``log_score``, the mean difference in nats, above 0 if the forecaster is better; ``crps``,
        1 less the ratio of mean CRPS by series, averaged over rows, above 0 if it is better; ``brier``, the
        mean difference turned so that above 0 is better; each with ``_low`` and ``_high``, the
        interval of `scoring.block_bootstrap`, None where there are too few origins.  None if they have
        no row in common.
    """
    both = rows.merge(other, on=["origin", "row"], suffixes=("", "_other"))
    both = both[both["log_score_other"].notna()]
    if both.empty:
        return None
    origin = pd.Categorical(both["origin"]).codes.astype(np.int64)
    # Units differ between series, so each row's CRPS counts in units of what the baseline has there.
    unit = both.groupby("series")["crps_other"].transform("mean")
    gain = {
        "log_score": both["log_score"] - both["log_score_other"],
        "crps": (both["crps_other"] - both["crps"]) / unit,
        "brier": both["brier_other"] - both["brier"],
    }
    found: dict[str, Any] = {"rows": len(both), "origins": int(both["origin"].nunique())}
    for name, value in gain.items():
        known = value.notna().to_numpy()
        x, at = value.to_numpy(float)[known], origin[known]
        found[name] = _plain(x.mean()) if len(x) else None

        def mean(weight: np.ndarray, x: np.ndarray = x) -> float:
            return float(weight @ x / weight.sum()) if weight.sum() else np.nan

        ends = scoring.block_bootstrap(at, length, mean) if len(x) else None
        found |= {f"{name}_low": ends and ends[0], f"{name}_high": ends and ends[1]}
    return found


def write(table: pd.DataFrame, file: Path) -> None:
    """Write the scores as Parquet, all of them or nothing."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        table.to_parquet(draft, index=False)
        os.replace(draft, file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{file}: cannot be written ({reason}); name another file") from error
    finally:
        draft.unlink(missing_ok=True)


def check_file(file: Path) -> None:
    """Refuse a file that could not be written, before anything is computed for it."""
    if file.suffix != ".parquet":
        raise InputError(f"--output: {file} must end in .parquet")
    if not file.parent.is_dir():
        raise InputError(f"--output: no folder {file.parent}; make it first")


# Tables -------------------------------------------------------------------------------------------------


def tables(found: Mapping[str, Any]) -> RenderableType:
    """What `summary` says, for a terminal."""
    parts: list[RenderableType] = []
    days = sorted({one["as_of"] for one in found["origins"]})
    parts.append(Text(f"Origins {', '.join(days)}; values as of {found['truth']}"))
    if found["skipped"]:
        parts.append(Text(f"No row counted on {', '.join(found['skipped'])}: no origin"))
    for one in found["origins"]:
        if one["gate"] == "fail":
            reasons = sorted({r for rs in one["reasons"].values() for r in rs})
            head = f"{one['worldview']}, {one['as_of']}: failed, in part not scored:"
            parts.append(Text(f"{head} {'; '.join(reasons)}", style="red"))
        if one["as_of"] == days[0]:
            parts.append(
                Text(f"{one['worldview']}: {reports.late_note(one)}, and were {found['late_priors']}")
            )
    columns = ["worldview", "forecaster", "rows", "log score", "Brier", "in 50 %", "in 80 %", "in 95 %"]
    rows = [
        [
            *(one[k] for k in _KEYS),
            str(one["rows"]),
            _cell(one["log_score"], "{:+.2f}"),
            _cell(one["brier"], "{:.3f}"),
            *(_cell(one[f"covered_{100 * x:.0f}"], "{:.2f}") for x in scoring.LEVELS),
        ]
        for one in found["scores"]
        if one["category"] == one["horizon"] == ALL
    ]
    parts.append(reports.plain_table(columns, rows, "Mean scores, each on the rows it forecast"))
    columns = [
        "worldview",
        "forecaster",
        "category",
        "horizon",
        "baseline",
        "rows",
        "log score",
        "CRPS",
        "Brier",
    ]
    rows = [
        [
            *(one[k] for k in (*_KEYS, "category", "horizon", "baseline")),
            str(one["rows"]),
            *(_skill(one, name) for name in ("log_score", "crps", "brier")),
        ]
        for one in found["skill"]
        if one["forecaster"] in (backtest.MIXTURE, backtest.STACKING)
        and (ALL in (one["category"], one["horizon"]) or one["forecaster"] == backtest.MIXTURE)
    ]
    level = f"{100 * scoring.CONFIDENCE:.0f} %"
    title = f"Skill against the baselines on the same rows, above 0 is better, [{level} interval]"
    parts.append(reports.plain_table(columns, rows, title))
    parts.append(
        Text(
            "log score: nats a row; CRPS: share of the baseline's; Brier: difference; "
            "no interval: too few origins"
        )
    )
    return Group(*parts)


def _cell(x: float | None, form: str) -> str:
    return "-" if x is None else form.format(x)


def _skill(one: Mapping[str, Any], name: str) -> str:
    value, low, high = (one[name + end] for end in ("", "_low", "_high"))
    cell = _cell(value, "{:+.2f}")
    return cell if low is None else f"{cell} [{low:+.2f}, {high:+.2f}]"
