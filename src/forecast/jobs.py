"""Job files: which dates and worldviews to forecast unattended, what to publish, and what to watch for."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forecast.schema import InputError, did_you_mean

OWN = "own"
"""Prior odds that a worldview states itself."""
Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    """A table of a job file: no unknown keys, no conversion of types, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Dates(_Table):
    """Days to forecast from, united from all that is given."""

    on: list[dt.date] = []
    """Fixed days."""
    every: str | None = None
    """One of `history.EVERY`, from `since` to `until`."""
    since: dt.date | None = None
    until: dt.date | None = None
    """Last day that may be among them; the last published one by default."""
    latest: bool = False
    """The last published day."""
    chain: int = Field(13, ge=1)
    """Days stepped from one to the next before a new fit from the prior; what a new row makes anew."""

    @model_validator(mode="after")
    def _consistent(self) -> Dates:
        if not (self.on or self.every or self.latest):
            raise ValueError("names no day; give on, every with since, or latest = true")
        if (self.every is None) != (self.since is None):
            raise ValueError("every and since go together; give both or neither")
        if self.until is not None and self.every is None:
            raise ValueError("until goes with every and since")
        return self


class Gates(_Table):
    """What a publication asks of its runs beyond the gate of the fit."""

    failed: Literal["hold", "leave out"] = "hold"
    """With a failed run: publish nothing, or the others."""
    ess: Size | None = None
    """Least effective sample size."""
    weight_se: Size | None = None
    """Largest standard error of a weight, at the odds of the worldview."""


class Outputs(_Table):
    """What is published beside the stored runs, all in one folder that is replaced as a whole."""

    folder: str | None = None
    history: bool = False
    """``history.json``, as `forecast history --format json`."""
    hub: bool = False
    """``hub/``, as `forecast export --format hubverse`."""
    team: str = Field("forecast", pattern=r"^[A-Za-z0-9_]+$")
    """First part of the names of models in the hub."""
    samples: int = Field(0, ge=0)
    """Joint draws of milestone dates in the hub."""
    scenarios: list[str] = []
    """``scenarios.json``: each, a file or the name of a shipped one, met by the newest run of each worldview
    at its own odds, as `forecast whatif --no-refit --format json`."""
    report: bool = False
    """``report.html``, as `forecast report`, with the scenarios."""

    @model_validator(mode="after")
    def _consistent(self) -> Outputs:
        if (self.folder is None) == bool(self.history or self.hub or self.report or self.scenarios):
            raise ValueError(
                "a folder goes with history, hub, report or scenarios; give it and one of them, or none"
            )
        return self


class Trigger(_Table):
    """A number to watch on the newest day: a milestone's probability or the weight of a dynamic."""

    name: str = Field(min_length=1)
    milestone: str | None = None
    by: dt.date | None = None
    dynamic: str | None = None
    worldviews: list[str] = []
    """All of the job by default."""
    above: Share | None = None
    below: Share | None = None
    up: Share | None = None
    """Fires when the number has risen by this since the batch before."""
    down: Share | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Trigger:
        if (self.milestone is None) == (self.dynamic is None) or (self.milestone is None) != (
            self.by is None
        ):
            raise ValueError("watches nothing or too much; give milestone and by, or dynamic")
        if sum(x is not None for x in (self.above, self.below, self.up, self.down)) != 1:
            raise ValueError("has no limit or several; give one of above, below, up and down")
        return self


class Job(_Table):
    """A job file."""

    title: str = ""
    worldviews: list[str] = []
    """All by default."""
    odds: list[str] = Field([OWN], min_length=1)
    """Prior odds each worldview is read at: `OWN`, or another worldview's; changes no fit."""
    seed: int = Field(1, ge=0)
    dates: Dates
    sampler: dict[str, int | float] = {}
    """Fields of `inference.Settings` that differ."""
    gates: Gates = Gates.model_validate({})
    outputs: Outputs = Outputs.model_validate({})
    triggers: list[Trigger] = []

    @model_validator(mode="after")
    def _consistent(self) -> Job:
        for what, names in (
            ("worldviews", self.worldviews),
            ("odds", self.odds),
            ("outputs.scenarios", self.outputs.scenarios),
            ("triggers", [t.name for t in self.triggers]),
            ("dates.on", self.dates.on),
        ):
            if twice := sorted({str(n) for n in names if list(names).count(n) > 1}):
                raise ValueError(f"{what}: {twice[0]} stands twice; keep one")
        if (self.outputs.report or self.outputs.scenarios) and OWN not in self.odds:
            raise ValueError(f"odds: a report and scenarios are of worldviews at their own; add '{OWN}'")
        return self


def load_job(path: Path) -> Job:
    """Read a job file.

    Raises
    ------
    InputError
        The file cannot be read or breaks the schema; the first problem, in one line.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the path of a TOML file") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise InputError(f"{path}: not TOML: {' '.join(str(error).split())}; mend the syntax there") from None
    try:
        return Job.model_validate(tree)
    except ValidationError as error:
        problems = [_line(one) for one in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{path}: {problems[0]}{more}") from None


def _line(problem: Any) -> str:
    """One problem that pydantic found, as place, fault and mend."""
    place, fault = ".".join(str(part) for part in problem["loc"]), str(problem["msg"])
    if problem["type"] == "extra_forbidden":
        known = _fields(problem["loc"][:-1])
        name = str(problem["loc"][-1])
        return f"{place}: unknown key{did_you_mean(name, known) or '; keys are ' + ', '.join(known)}"
    if problem["type"] == "missing":
        return f"{place}: missing; add it"
    given = problem["input"]
    shown = "" if isinstance(given, dict | list) else f", not {given!r}"
    fault = fault.removeprefix("Value error, ").removeprefix("Input ")
    return ": ".join(part for part in (place, f"{fault}{shown}") if part)


def _fields(place: Iterable[Any]) -> list[str]:
    """Keys that a table of a job file may have."""
    tables: dict[Any, type[_Table]] = {
        "dates": Dates,
        "gates": Gates,
        "outputs": Outputs,
        "triggers": Trigger,
    }
    table = next((tables[p] for p in place if p in tables), Job)
    return list(table.model_fields)
