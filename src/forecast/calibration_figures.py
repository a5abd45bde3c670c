"""The figure of what `forecast calibrate` prints: where truths lie in their posteriors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from forecast import calibration
from forecast.figures import COLOURS, GRID, MUTED, Spec, finish, panels

_POINTS = 40
"""Points of a curve."""


def curves(found: Mapping[str, Any]) -> Spec:
    """Share of truths at or below each position in their posterior, less the position, by parameter.

    Parameters
    ----------
    found
        What `forecast calibrate --format json` prints.
    """
    lines, bands = [], []
    at = np.arange(1, _POINTS) / _POINTS
    for one in found["dynamics"]:
        name = one["dynamic"]
        where, *ends = calibration.band(one["simulations"], calibration.BAND)
        low, high = (np.interp(at, where, end) - at for end in ends)
        bands.append(pd.DataFrame({"dynamic": name, "position": at, "low": low, "high": high}))
        for each in one["parameters"]:
            share = (np.array(each["positions"])[:, None] <= at).mean(axis=0) - at
            inside = "inside" if each["inside"] else "outside"
            line = {"dynamic": name, "parameter": each["name"], "curve": inside, "position": at}
            lines.append(pd.DataFrame({**line, "excess": share}))
    # One table, since panels split one only.
    table = pd.concat([*bands, *lines], ignore_index=True)
    x = alt.X("position:Q", title="position of the truth in its posterior", axis=alt.Axis(format="%"))
    title = "excess of truths at or below it"
    area = alt.Chart(table).transform_filter("isValid(datum.low)").mark_area(color=GRID)
    scale = alt.Scale(domain=["inside", "outside"], range=[MUTED, COLOURS[1]])
    line = alt.Chart(table).transform_filter("isValid(datum.excess)").mark_line(strokeWidth=0.5)
    panel = area.encode(
        x=x, y=alt.Y("low:Q", title=title, axis=alt.Axis(format="+%")), y2="high:Q"
    ) + line.encode(
        x=x,
        y="excess:Q",
        detail="parameter:N",
        color=alt.Color("curve:N", scale=scale, title="curve of a parameter, of its band"),
    )
    names = [one["dynamic"] for one in found["dynamics"]]
    every = [p["inside"] for one in found["dynamics"] for p in one["parameters"]]
    sets = ", ".join(f"{one['simulations']} of {one['dynamic']}" for one in found["dynamics"])
    with alt.data_transformers.disable_max_rows():
        return finish(
            panels(panel.properties(width=300, height=170), "dynamic", names, 2),
            f"Of {len(every)} parameters {np.mean(every):.0%} lie where posteriors say, to within chance",
            f"fits of simulated data sets, {sets}.",
            [
                "Below zero truths lie high in their posteriors, above it low.",
                "A calibrated engine has 95 % of its curves wholly inside the band.",
            ],
        )
