"""Which rows of a snapshot enter the likelihood, and why the others do not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from forecast.indicators import INDICATORS
from forecast.observation import SOFTWARE_GROWTH_ROW, company_of
from forecast.schema import T0
from forecast.vintages import Archive, decimal_year

CHOSEN_ROWS = {
    ("core_bench_hard", "Claude Opus 4.5 Claude Code (before regrading)"): True,
    ("core_bench_hard", "Claude Opus 4.5 Claude Code (regraded)"): False,
}
"""Rows taken or left against the general rules: regrading by hand is not comparable across models."""

NO_MODEL = {
    "metr_th80_v10": "same runs as the 50 % horizon",
    "metr_th80_v11": "same runs as the 50 % horizon",
    "card_productivity_mean": "the median of the same survey enters",
    "card_productivity_individual": "single respondents; one summary a survey enters",
}
"""Indicators left out for a reason of their own."""


class Selection(NamedTuple):
    """Rows that enter the likelihood, and the others with a reason in column ``reason``."""

    rows: pd.DataFrame
    excluded: pd.DataFrame


def select(archive: Archive, snapshot: pd.DataFrame) -> Selection:
    """Apply the declared rules, in order, to a snapshot.

    Parameters
    ----------
    archive
        For the registry of models.
    snapshot
        One vintage, from `vintages.as_of`; its ``attrs["as_of"]`` is the date.

    Returns
    -------
    Selection
        ``rows`` has the archive's columns plus ``time`` (calendar year), ``indicator`` (observation
        model), ``model``, ``developer``, ``reasoning``, ``configuration`` and ``company``, ordered by
        observation model and date.
    """
    model_of = {archive_id: name for name, i in INDICATORS.items() for archive_id in i.ids}
    frame = snapshot.merge(
        archive.models.drop(columns=["note", "released", "file", "row"], errors="ignore"),
        on=["indicator_id", "entity"],
        how="left",
        validate="many_to_one",
    )
    text = ["model", "developer", "tier", "reasoning", "configuration"]
    frame[text] = frame[text].fillna("")
    frame["developer"] = _true_developer(frame, archive.models)
    frame["time"] = decimal_year(frame["observed_at"])
    frame["indicator"] = frame["indicator_id"].map(model_of).fillna("")
    frame["company"] = frame["entity"].map(company_of)
    chosen = pd.Series(
        [CHOSEN_ROWS.get(key) for key in zip(frame["indicator_id"], frame["entity"], strict=True)],
        index=frame.index,
        dtype=object,
    )
    flagship = frame["indicator"].map({n: i.flagship_rows for n, i in INDICATORS.items()}).eq(True)
    no_model = frame["indicator_id"].map(NO_MODEL).fillna("no observation model: context only")

    reason = pd.Series("", index=frame.index)

    def drop(mask: pd.Series, why: str | pd.Series) -> None:
        nonlocal reason
        reason = reason.mask((reason == "") & mask, why)

    drop(frame["indicator"].eq(""), no_model)
    drop(chosen.eq(False), "declared: not comparable with the other rows of this benchmark")
    drop(frame["time"] < T0, f"observed before {T0:.0f}, where the paths start")
    drop(
        frame["kind"].isin(["human", "average", "plan"]),
        "kind " + frame["kind"] + ": not an observation of a model or company",
    )
    drop(frame["note"].str.contains("AUDIT: doubtful") & ~chosen.eq(True), "audit: doubtful")
    drop(flagship & frame["tier"].ne("flagship"), "tier " + frame["tier"] + ": only flagships enter")
    live = frame[reason.eq("")]
    frame, folded = _fold_statements(frame, live)
    reason = reason.mask(
        reason.eq("") & folded, "the other end of the same statement is in the row that enters"
    )
    drop(
        _older_suite(frame[reason.eq("")]).reindex(frame.index, fill_value=False),
        "the same model has a row of suite TH1.1",
    )
    drop(
        _other_configuration(frame[reason.eq("") & flagship], chosen).reindex(frame.index, fill_value=False),
        "another configuration of the same model on that date is better documented",
    )
    enters = reason.eq("")
    rows = in_order(pd.concat([frame[enters], _declared(snapshot)], ignore_index=True))
    excluded = frame[~enters].assign(reason=reason[~enters]).reset_index(drop=True)
    return Selection(rows, excluded)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by observation model, date and entity; others keep their order."""
    order = {name: i for i, name in enumerate(INDICATORS)}
    return rows.sort_values(
        ["indicator", "time", "entity"],
        key=lambda c: c.map(order) if c.name == "indicator" else c,
        kind="stable",
        ignore_index=True,
    )


def _true_developer(frame: pd.DataFrame, models: pd.DataFrame) -> pd.Series:
    """Developer of the model a scaffold team used, where the registry names it anywhere."""
    named = models[~models["developer"].isin(["", "scaffold team"])]
    by_model = dict(zip(named["model"], named["developer"], strict=True))
    team = frame["developer"].eq("scaffold team")
    return frame["developer"].mask(team, frame["model"].map(lambda m: by_model.get(m, "scaffold team")))


def _fold_statements(frame: pd.DataFrame, live: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Make one interval row of two rows that are the two ends of one statement."""
    frame, folded = frame.copy(), pd.Series(False, index=frame.index)
    ends = live[live["bound"].isin(["lower", "upper"]) & live["kind"].ne("model")]
    for _, pair in ends.groupby(["indicator_id", "company", "observed_at", "source_title"]):
        if sorted(pair["bound"]) == ["lower", "upper"]:
            low, high = pair.sort_values("bound").index
            frame.loc[low, ["lower", "upper", "bound"]] = [
                pair.loc[low, "value"],
                pair.loc[high, "value"],
                "interval",
            ]
            folded[high] = True
    return frame, folded


def _older_suite(live: pd.DataFrame) -> pd.Series:
    """Rows of a superseded suite whose model has a row of the suite that replaced it."""
    dropped = pd.Series(False, index=live.index)
    for name, one in INDICATORS.items():
        if one.flagship_rows and not one.per_id and len(one.ids) > 1:
            rows = live[live["indicator"] == name]
            newest = rows[rows["indicator_id"] == one.ids[0]]
            known = set(zip(newest["model"], newest["observed_at"], strict=True))
            key = pd.Series(
                list(zip(rows["model"], rows["observed_at"], strict=True)), index=rows.index, dtype=object
            )
            dropped[rows.index] = key.isin(known) & rows["indicator_id"].ne(one.ids[0])
    return dropped


def _other_configuration(live: pd.DataFrame, chosen: pd.Series) -> pd.Series:
    """All but the best-documented configuration of each model on each date.

    Best documented: chosen by declaration, then with an interval, then with a sample size, then first
    published, then first in the file.
    """
    ranked = live.assign(
        chosen=chosen[live.index].eq(True),
        interval=live["lower"].notna(),
        counted=live["n"].notna(),
        order=np.arange(len(live)),
    ).sort_values(
        ["chosen", "interval", "counted", "published_at", "order"],
        ascending=[False, False, False, True, True],
    )
    return ranked.duplicated(["indicator_id", "model", "observed_at"]).reindex(live.index)


def _declared(snapshot: pd.DataFrame) -> pd.DataFrame:
    """Rows of evidence declared in code, if they were known at the snapshot's date."""
    row = {**SOFTWARE_GROWTH_ROW, "indicator": "software_growth", "company": "industry", "bound": ""}
    frame = pd.DataFrame([row])
    for column in ("observed_at", "published_at"):
        frame[column] = pd.to_datetime(frame[column])
    frame["time"] = decimal_year(frame["observed_at"])
    return frame[frame["published_at"] <= snapshot.attrs["as_of"]]
