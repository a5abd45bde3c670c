"""Unattended batches: what is missing is fitted by workers, stored one by one, and published as a whole.

The unit of work is a date of a chain (`history.Step`): its key is known before anything is fitted, so what is
stored is skipped, and a batch that was cut short goes on where it stopped.  Workers only compute; one
process, which holds the lock of the store, reads and writes.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from forecast import batch, history, inference, publication, runs, scenarios, vintages
from forecast.jobs import Dates, Job
from forecast.journal import Log
from forecast.publication import Reading
from forecast.scenarios import Scenario
from forecast.schema import InputError, did_you_mean
from forecast.workers import Slot, Take, fit, pack
from forecast.worldviews import Worldview, pick_worldviews

ATTEMPTS = 2
"""Workers that may die on one date before it is given up."""
Chain = list[history.Step]
"""Dates of one worldview, each stepped from the one before, in order."""


# Plans --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a job asks for on the archive as it is."""

    name: str
    job: Job
    inputs: batch.Inputs
    worldviews: list[Worldview]
    chains: list[Chain]
    scenarios: list[Scenario]

    @property
    def steps(self) -> list[history.Step]:
        """Every date of every worldview."""
        return [step for chain in self.chains for step in chain]

    @property
    def key(self) -> str:
        """Of all its runs."""
        return runs.run_key({"runs": sorted(step.key for step in self.steps)})


def days(dates: Dates, archive: vintages.Archive) -> list[list[pd.Timestamp]]:
    """Days of a job in chains.

    Chains are counted from the first day, so that a day added at the end leaves the earlier ones as they
    are; the last published day, which is another one after every import, has a chain of its own.
    """
    last = vintages.last_published(archive)
    found = {vintages.day_of(day, "dates.on") for day in dates.on}
    if late := sorted(day for day in found if day > last):
        raise InputError(f"dates.on: {late[0]:%Y-%m-%d} is past the last published day, {last:%Y-%m-%d}")
    if dates.every is not None:
        end = None if dates.until is None else str(dates.until)
        try:
            found |= set(history.dates(archive, str(dates.since), end, dates.every))
        except InputError as error:
            text = str(error)
            for option, name in (("--every", "every"), ("--from", "since"), ("--to", "until")):
                text = text.replace(option, f"dates.{name}")
            raise InputError(text) from None
    regular = sorted(found)
    chains = [regular[i : i + dates.chain] for i in range(0, len(regular), dates.chain)]
    return chains + ([[last]] if dates.latest and last not in found else [])


def settings(sampler: Mapping[str, int | float]) -> inference.Settings:
    """Settings of the sampler with the fields of a job's table."""
    known = {f.name: f.default for f in fields(inference.Settings)}
    for name, value in sampler.items():
        if name not in known:
            raise InputError(f"sampler.{name}: unknown setting{did_you_mean(name, known)}")
        whole = isinstance(known[name], int)
        if not value > 0 or (whole and not isinstance(value, int)):
            raise InputError(f"sampler.{name}: give a {'whole ' if whole else ''}number above 0, not {value}")
    if sampler.get("islands", 3) < 3:
        raise InputError("sampler.islands: standard errors need at least 3 islands")
    if sampler.get("islands", 4) % 2:
        raise InputError("sampler.islands: islands come in halves; give an even number")
    return inference.Settings(**dict(sampler))  # type: ignore[arg-type]


def plan(name: str, job: Job, inputs: batch.Inputs, data: Path) -> Plan:
    """Every run that a job asks for, and its key.

    Parameters
    ----------
    data
        Folder of the shipped scenarios.

    Raises
    ------
    InputError
        The job names what does not exist, or a day without data.
    """
    chosen = pick_worldviews(inputs.worldviews, job.worldviews, "worldviews")
    publication.crossings(chosen, job.odds, inputs)
    publication.check_triggers(job, inputs, chosen)
    paths = [scenarios.find(Path(one), data) for one in job.outputs.scenarios]
    met = [scenarios.load_scenario(path, inputs.archive) for path in paths]
    size = settings(job.sampler)
    chains = []
    for some in days(job.dates, inputs.archive):
        window = history.make_window(inputs, some)
        chains += [history.steps(window, one, job.seed, size) for one in chosen]
    return Plan(name, job, inputs, chosen, chains, met)


def read_plan(file: Path, job: Job, data: Path, priors: Path) -> Plan:
    """Read the archive and the worldviews, and plan the job of a file; an error names the file."""
    inputs = batch.load_inputs(data, priors)
    try:
        return plan(file.stem, job, inputs, data)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


# Running ------------------------------------------------------------------------------------------------


def survey(
    steps: Sequence[history.Step], store: Path
) -> tuple[dict[str, dict[str, Any]], dict[Path, InputError]]:
    """Manifests of what is stored, by key, and folders of runs that are damaged, with how."""
    sound, damaged = {}, {}
    for step in steps:
        if folder := step.find(store):
            try:
                sound[step.key] = runs.check(folder)
            except InputError as error:
                damaged[folder] = error
    return sound, damaged


def fill(
    chains: Sequence[Chain],
    store: Path,
    slots: Sequence[Slot],
    take: Take,
    log: Log,
    tell: Callable[[str], None] = lambda name: None,
) -> list[dict[str, str]]:
    """Have every date made that is not stored, and store it; return what could not be made.

    Parameters
    ----------
    chains
        Each is followed by one worker, so that its model is compiled there once.
    slots
        At least one.
    tell
        Told the name of each date that was stored.
    """
    waiting, idle = deque(deque(chain) for chain in chains), deque(slots)
    busy: dict[cf.Future[history.Stored], tuple[Slot, deque[history.Step], int, Path | None]] = {}
    errors: list[dict[str, str]] = []

    def give_up(step: history.Step, why: str) -> None:
        errors.append({"run": step.name, "reason": why})
        log.write("error", run=step.name, reason=why)

    def start(slot: Slot, left: deque[history.Step], before: Path | None, attempt: int = 1) -> None:
        """Put the next date of a chain that is missing to work, or free the slot."""
        while left and (stored := left[0].find(store)):
            before = stored
            left.popleft()
        if not left:
            idle.append(slot)
            return
        try:
            loaded = None if before is None else history.Stored(*runs.load(before))
        except InputError as error:
            give_up(left[0], str(error))
            idle.append(slot)
            return
        log.write("started", run=left[0].name, key=left[0].key)
        busy[slot.submit(pack(take, left[0].alone(), loaded))] = slot, left, attempt, before

    while True:
        while idle and waiting:
            start(idle.popleft(), waiting.popleft(), None)
        if not busy:
            return errors
        done, _ = cf.wait(busy, return_when=cf.FIRST_COMPLETED)
        for future in done:
            slot, left, attempt, before = busy.pop(future)
            try:
                made = future.result()
            except InputError:
                raise
            except Exception as error:
                why = f"{type(error).__name__}: {' '.join(str(error).split())}"
                # A process that was killed breaks its pool; a cluster reports a killed worker.
                name = type(error).__name__
                if isinstance(error, cf.BrokenExecutor) or "Killed" in name or "Cancelled" in name:
                    slot.close()
                    log.write("died", run=left[0].name, reason=why, attempt=attempt)
                    if attempt < ATTEMPTS:
                        start(slot, left, before, attempt + 1)
                        continue
                give_up(left[0], why)
                idle.append(slot)
                continue
            step = left.popleft()
            before = step.save(store, made)
            gate = made.manifest["status"]
            log.write("stored", run=step.name, key=step.key, gate=gate, seconds=made.manifest.get("seconds"))
            tell(step.name)
            start(slot, left, before)


def run(
    todo: Plan,
    store: Path,
    slots: contextlib.AbstractContextManager[list[Slot]],
    take: Take = fit,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Do a plan: fit what is missing, publish if all passed, remember the newest numbers; the summary.

    The caller holds `journal.lock` of the store.

    Parameters
    ----------
    todo
        From `plan`.
    slots
        From `workers.local_slots` or `workers.cluster_slots`; not opened if nothing is missing.
    take
        What workers do.
    tell
        Told how many runs of how many are stored.

    Returns
    -------
    dict
        ``job``, ``plan``, ``dates``, ``worldviews``, ``ran``, ``skipped``, ``healed``, ``failed`` (each with
        ``run`` and ``reason``), ``moved``, ``triggers``, ``published`` (``new``, ``unchanged``, ``held`` or
        ``nothing``), ``clock`` (a sentence if it went back), ``seconds``.
    """
    place = Path(store) / "batch" / todo.name
    log = Log(place / "log.jsonl")
    clock = _clock(log.open())
    steps = todo.steps
    log.write("begun", job=todo.name, plan=todo.key, runs=len(steps), **({"clock": clock} if clock else {}))
    try:
        runs.sweep(store)
        there, damaged = survey(steps, store)
        for folder, error in damaged.items():
            log.write("damaged", reason=str(error), kept=str(runs.set_aside(folder)))
        errors: list[dict[str, str]] = []
        count = [len(there)]

        def one_more(_: str) -> None:
            count[0] += 1
            tell(count[0], len(steps))

        tell(count[0], len(steps))
        if len(there) < len(steps):
            with slots as opened:
                errors = fill(todo.chains, store, opened, take, log, one_more)
        summary = _conclude(todo, store, errors, there, place)
    except Exception as error:
        with contextlib.suppress(InputError):  # The disk may be what failed.
            log.write("aborted", reason=f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    summary |= {
        "healed": list(map(str, damaged)),
        "clock": clock,
        "seconds": round(time.monotonic() - log.began, 1),
    }
    log.write("ended", **summary)
    return summary


def _clock(last: str) -> str:
    """A sentence if the clock stands before the last entry of the log."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    if now >= last:
        return ""
    return f"the clock reads {now}, before {last} of the last entry; no number or order depends on it"


def _conclude(
    todo: Plan, store: Path, errors: list[dict[str, str]], there: dict[str, Any], place: Path
) -> dict[str, Any]:
    """What a batch whose fits are done publishes, remembers and says."""
    job, steps = todo.job, todo.steps
    stored = {step.key: folder for step in steps if (folder := step.find(store))}
    manifests = there | {key: runs.check(folder) for key, folder in stored.items() if key not in there}
    pairs = publication.crossings(todo.worldviews, job.odds, todo.inputs)
    readings = [
        Reading(stored[s.key], manifests[s.key], w, odds).judged(job.gates)
        for s in sorted(steps, key=lambda s: s.inputs.as_of)
        for w, odds in pairs
        if w.name == s.worldview.name and s.key in stored
    ]
    bad = [r for r in readings if r.failed]
    failed = [*errors]
    for r in bad:
        why = next(f"{n}: {t[0]}" for n, t in r.manifest["gate"].items() if t)
        failed.append({"run": f"{r.worldview}, {r.as_of}", "reason": why})
    good = [r for r in readings if not r.failed]
    hold = bool(errors) or not good or (bool(bad) and job.gates.failed == "hold")
    published = "nothing"
    if hold and job.outputs.folder:
        published = "held"
    elif job.outputs.folder:
        new = publication.publish(readings, todo.inputs, job.outputs, todo.scenarios)
        published = "new" if new else "unchanged"
    newest = max(step.inputs.as_of for step in steps)
    now = publication.state([r for r in good if str(r.as_of) == newest], job.triggers)
    # The same batch once more compares with what it compared with the first time.
    # Without it a batch has nothing to compare itself with, and that is all.
    found = runs.recall(place / "state.json")
    kept = found if isinstance(found, dict) else {}
    again = kept.get("plan") == todo.key
    last = (kept.get("last") if again else kept.get("now")) or {}
    if not hold:
        runs.remember(place / "state.json", {"plan": todo.key, "now": now, "last": last})
    return {
        "job": todo.name,
        "plan": todo.key,
        "dates": sorted({step.inputs.as_of for step in steps}),
        "worldviews": [w.name for w in todo.worldviews],
        "ran": [s.name for s in steps if s.key in stored and s.key not in there],
        "skipped": len(there),
        "failed": failed,
        "moved": publication.moved(now, last),
        "triggers": publication.fired(job.triggers, now, last),
        "published": published,
    }
