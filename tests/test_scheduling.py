"""Batches: nothing twice, nothing bad published, nothing lost, and the same from any number of workers."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import made
from forecast import batch, export, journal, publication, runs, scheduling, vintages, workers
from forecast.jobs import Dates, Job
from forecast.schema import InputError

ROOT = Path(__file__).parents[1]
DAYS = [dt.date(2025, 3, 31), dt.date(2025, 6, 30)]
"""Two early dates, with few rows."""
JOB = {
    "worldviews": ["neutral", "rapid"],
    "dates": {"on": DAYS[:1]},
    "outputs": {"folder": "out", "history": True},
    "triggers": [
        {"name": "pace", "milestone": "W_2", "by": dt.date(2030, 6, 1), "above": 0.01},
        {"name": "rise", "dynamic": "explosive", "up": 0.02},
        {"name": "rapid only", "dynamic": "amdahl", "below": 0.01, "worldviews": ["rapid"]},
    ],
}

CHAIN = {"worldviews": ["neutral"], "dates": {"on": DAYS}, "triggers": []}


def planned(inputs: batch.Inputs, **fields: Any) -> scheduling.Plan:
    """`JOB` with other fields, planned."""
    return scheduling.plan("job", Job.model_validate(JOB | fields), inputs, ROOT / "data")


@pytest.fixture(scope="module")
def todo(inputs) -> scheduling.Plan:
    return planned(inputs)


@pytest.fixture(scope="module")
def chained(inputs) -> scheduling.Plan:
    """One worldview stepped over two days."""
    return planned(inputs, **CHAIN)


@pytest.fixture
def here(monkeypatch, tmp_path) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(todo: scheduling.Plan, **fields: Any) -> scheduling.Plan:
    """The same runs with other gates, outputs or triggers."""
    return dataclasses.replace(todo, job=Job.model_validate(todo.job.model_dump() | fields))


def reseeded(todo: scheduling.Plan, seed: int) -> scheduling.Plan:
    """The same job as if something that counts had changed: other keys, and so other numbers."""
    chains = [
        [dataclasses.replace(s, key=runs.run_key({"seed": seed, "key": s.key})) for s in chain]
        for chain in todo.chains
    ]
    return dataclasses.replace(todo, chains=chains)


def do(
    todo: scheduling.Plan, store: Path, take: workers.Take = made.fit, slots: Any = None
) -> dict[str, Any]:
    slots = slots or contextlib.nullcontext([made.Inline()])
    with journal.lock(store):
        return scheduling.run(todo, store, slots, take)


def hashes(store: Path) -> dict[str, str]:
    return {f.parent.name + f.name: runs.load(f)[1]["content_hash"] for f in store.glob("as_of=*/*/key=*")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def events(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "batch/job/log.jsonl").read_text().splitlines()]


def never(*_: object) -> None:
    raise AssertionError("fitted again")


# Plans ----------------------------------------------------------------------------------------------------


def test_chains_are_counted_from_the_first_day_and_the_newest_day_stands_alone(archive):
    dates = Dates(every="week", since=dt.date(2025, 7, 1), until=dt.date(2025, 9, 30), chain=5, latest=True)
    chains = scheduling.days(dates, archive)
    assert [len(c) for c in chains] == [5, 5, 3, 1] and chains[-1] == [vintages.last_published(archive)]
    assert all(day.day_of_week == 6 for chain in chains[:-1] for day in chain)
    longer = scheduling.days(dates.model_copy(update={"until": dt.date(2025, 10, 7)}), archive)
    assert longer[:2] == chains[:2] and longer[2][:3] == chains[2]


def test_days_are_united(archive):
    dates = Dates(
        on=[DAYS[1], DAYS[0]], every="quarter", since=dt.date(2025, 4, 1), until=dt.date(2025, 7, 1)
    )
    assert scheduling.days(dates, archive) == [list(map(pd.Timestamp, DAYS))]


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        ({"on": [dt.date(2031, 1, 1)]}, r"dates\.on: 2031-01-01 is past the last published day"),
        ({"every": "weekly", "since": DAYS[0]}, r"dates\.every: unknown step 'weekly'"),
        (
            {"every": "week", "since": dt.date(2020, 1, 1)},
            r"dates\.since: nothing was published by 2020-01-01",
        ),
        ({"every": "week", "since": DAYS[1], "until": DAYS[0]}, r"dates\.since: .* is after dates\.until"),
    ],
)
def test_days_outside_the_archive_are_refused(archive, dates, said):
    with pytest.raises(InputError, match=said):
        scheduling.days(Dates(**dates), archive)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"worldviews": ["rapd"]}, "worldviews: unknown worldview 'rapd'; did you mean 'rapid'"),
        ({"odds": ["rapd"]}, "odds: unknown worldview 'rapd'"),
        ({"sampler": {"sweps": 1}}, r"sampler\.sweps: unknown setting; did you mean 'sweeps'"),
        ({"sampler": {"sweeps": 1.5}}, r"sampler\.sweeps: give a whole number above 0, not 1\.5"),
        ({"sampler": {"islands": 2}}, "at least 3 islands"),
        ({"sampler": {"islands": 5}}, "come in halves; give an even number"),
        (
            {"triggers": [{"name": "t", "dynamic": "amdal", "up": 0.1}]},
            r"triggers\.0\.dynamic: unknown dynamic 'amdal'; did you mean 'amdahl'",
        ),
        (
            {"triggers": [{"name": "t", "milestone": "W2", "by": DAYS[0], "up": 0.1}]},
            r"triggers\.0\.milestone: unknown milestone 'W2'; did you mean 'W_2'",
        ),
        (
            {"triggers": [{"name": "t", "dynamic": "amdahl", "up": 0.1, "worldviews": ["plateau"]}]},
            "unknown worldview 'plateau'; there are neutral, rapid",
        ),
    ],
)
def test_a_job_that_names_what_does_not_exist_is_refused(inputs, fields, said):
    with pytest.raises(InputError, match=said):
        planned(inputs, **fields)


def test_settings_of_the_sampler_are_in_the_keys(inputs, todo):
    other = planned(inputs, sampler={"chains": 16})
    assert other.steps[0].settings.chains == 16
    assert not {s.key for s in other.steps} & {s.key for s in todo.steps}


# Nothing twice, nothing lost ------------------------------------------------------------------------------


def test_a_batch_stores_publishes_and_sums_up(here, todo):
    found = do(todo, here / "store")
    assert len(found["ran"]) == 2 and found["skipped"] == 0 and not found["failed"]
    assert found["published"] == "new" and found["moved"] == [] and found["dates"] == [str(DAYS[0])]
    records = json.loads((here / "out/history.json").read_text())
    assert [r["worldview"] for r in records] == ["neutral", "rapid"]
    assert [d["as_of"] for d in records[0]["dates"]] == [str(DAYS[0])]
    told = [e["event"] for e in events(here / "store")]
    assert told == ["begun", *["started", "stored"] * 2, "ended"]
    assert all({"time", "elapsed"} <= set(e) for e in events(here / "store"))


def test_the_second_time_nothing_is_done_and_the_same_is_said(here, todo):
    first = do(todo, here / "store")
    before = files(here / "out")
    again = do(todo, here / "store", never)
    assert again["ran"] == [] and again["skipped"] == 2 and again["published"] == "unchanged"
    assert again["triggers"] == first["triggers"] and files(here / "out") == before


def test_what_changed_is_made_again_and_compared_with_the_batch_before(here, todo):
    first = do(todo, here / "store")
    other = reseeded(todo, 2)
    second = do(other, here / "store")
    assert len(second["ran"]) == 2 and second["published"] == "new" and second["moved"]
    rise = {t["reading"]: t for t in second["triggers"] if t["trigger"] == "rise"}
    for one in (t for t in first["triggers"] if t["trigger"] == "rise"):
        assert one["last"] is None and one["fired"] is None
        assert rise[one["reading"]]["last"] == one["value"]
        change = rise[one["reading"]]["value"] - one["value"]
        assert rise[one["reading"]]["fired"] == (change > 0.02)
    assert {t["reading"] for t in second["triggers"] if t["trigger"] == "rapid only"} == {"rapid"}
    third = do(other, here / "store", never)
    assert third["moved"] == second["moved"] and third["triggers"] == second["triggers"]


def test_a_batch_cut_short_goes_on_where_it_stopped(here, chained, expected):
    do(dataclasses.replace(chained, chains=[chained.steps[:1]]), here / "store")
    found = do(chained, here / "store")
    assert found["ran"] == [chained.steps[1].name] and found["skipped"] == 1
    assert (hashes(here / "store"), files(here / "out")) == expected


@pytest.mark.parametrize("crossed", [["own", "plateau"], ["neutral"]])
def test_odds_cross_without_another_fit(here, todo, crossed):
    do(todo, here / "store")
    found = do(changed(todo, odds=crossed), here / "store", never)
    names = {t["reading"] for t in found["triggers"]}
    expected = {"neutral", "rapid", "neutral_at_plateau", "rapid_at_plateau"}
    assert names == (expected if "own" in crossed else {"neutral", "rapid_at_neutral"})
    assert found["published"] == "new"


def test_a_hub_is_published_that_passes_the_checks_of_hubs(here, inputs):
    fields = {"worldviews": ["neutral"], "odds": ["own", "rapid"], "dates": {"on": DAYS[:1]}, "triggers": []}
    todo = planned(inputs, **fields, outputs={"folder": "out", "hub": True, "samples": 2})
    assert do(todo, here / "store")["published"] == "new"
    # It was checked before it was put in place; the crossing is a model of its own.
    models = sorted(p.name for p in (here / "out/hub/model-output").iterdir())
    assert models == ["forecast-neutral", "forecast-neutral_at_rapid"]


def test_a_page_and_scenarios_are_published(here, inputs):
    asked = ["trial_shows_slowdown_again", "two_years_of_plateau"]
    fields = {
        "dates": {"on": DAYS},
        "triggers": [],
        "outputs": {"folder": "out", "report": True, "scenarios": asked},
    }
    todo = planned(inputs, **fields)
    assert do(todo, here / "store", made.with_draws)
    met = json.loads((here / "out/scenarios.json").read_text())
    assert [(m["scenario"], m["worldview"], m["as_of"]) for m in met] == [
        (name, worldview, "2025-06-30") for name in asked for worldview in ("neutral", "rapid")
    ]
    page = (here / "out/report.html").read_text()
    assert all(m["title"] in page for m in met) and "2025-03-31" in page
    before = files(here / "out")
    again = do(todo, here / "store", never)
    assert again["published"] == "unchanged" and files(here / "out") == before


def test_a_scenario_that_does_not_exist_is_refused_before_any_fit(inputs):
    with pytest.raises(InputError, match=r"did you mean .two_years_of_plateau."):
        planned(inputs, outputs={"folder": "out", "scenarios": ["two_years_of_platau"]})


# Gates ----------------------------------------------------------------------------------------------------


def test_nothing_is_published_beside_a_failed_run_and_the_last_publication_stays(here, todo):
    do(todo, here / "store")
    before, remembered = files(here / "out"), (here / "store/batch/job/state.json").read_text()
    found = do(reseeded(todo, 2), here / "store", made.fail_rapid)
    assert found["published"] == "held" and len(found["failed"]) == 1 and len(found["ran"]) == 2
    assert all("effective sample size 3" in one["reason"] for one in found["failed"])
    assert files(here / "out") == before
    assert (here / "store/batch/job/state.json").read_text() == remembered
    # A failed run is stored as failed, and not tried again.
    assert do(reseeded(todo, 2), here / "store", never)["failed"] == found["failed"]


def test_a_job_may_publish_what_passed(here, todo):
    fields = {"gates": {"failed": "leave out"}, "outputs": {"folder": "out", "history": True}}
    found = do(changed(todo, **fields), here / "store", made.fail_rapid)
    assert found["published"] == "new" and len(found["failed"]) == 1
    neutral, rapid = json.loads((here / "out/history.json").read_text())
    assert all(d["posterior"] is not None for day in neutral["dates"] for d in day["dynamics"].values())
    assert all(d["posterior"] is None for day in rapid["dates"] for d in day["dynamics"].values())


@pytest.mark.parametrize(
    ("gates", "said"), [({"ess": 501.0}, "below the job's 501"), ({"weight_se": 1e-6}, "above")]
)
def test_a_job_may_ask_more_than_the_gate(here, todo, gates, said):
    found = do(changed(todo, gates=gates), here / "store")
    assert found["published"] == "held" and not (here / "out").exists()
    assert len(found["failed"]) == 2 and all(said in one["reason"] for one in found["failed"])


def test_a_folder_of_others_is_left_alone(here, todo):
    (here / "out").mkdir()
    (here / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an earlier export"):
        do(todo, here / "store")
    assert files(here / "out") == {"mine.txt": b"mine"} and len(hashes(here / "store")) == 2
    assert events(here / "store")[-1]["event"] == "aborted"


# Damage ---------------------------------------------------------------------------------------------------


def corrupt(folder: Path) -> None:
    data = bytearray((folder / runs.TREE).read_bytes())
    data[len(data) // 2] ^= 255
    (folder / runs.TREE).write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped byte": corrupt,
    "no file": lambda f: (f / runs.TREE).unlink(),
    "half a manifest": lambda f: os.truncate(f / runs.MANIFEST, 99),
    "another run's file": lambda f: shutil.copy(
        next(p for p in f.parent.parent.parent.glob(f"*/*/*/{runs.TREE}") if p.parent != f), f
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_run_is_put_aside_and_made_anew(here, todo, how):
    do(todo, here / "store")
    whole, out = hashes(here / "store"), files(here / "out")
    folder = todo.steps[0].find(here / "store")
    DAMAGE[how](folder)
    found = do(todo, here / "store")
    assert found["ran"] == [todo.steps[0].name] and found["healed"] == [str(folder)]
    assert hashes(here / "store") == whole and files(here / "out") == out
    (told,) = [e for e in events(here / "store") if e["event"] == "damaged"]
    assert str(folder) in told["reason"] and "\n" not in told["reason"] and Path(told["kept"]).is_dir()


def test_a_damaged_publication_is_made_anew(here, todo):
    do(todo, here / "store")
    out = files(here / "out")
    (here / "out/history.json").write_text("{")
    assert do(todo, here / "store", never)["published"] == "new" and files(here / "out") == out


def test_a_line_of_the_log_cut_short_is_mended(here, todo):
    do(todo, here / "store")
    log = here / "store/batch/job/log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"time": "20')
    do(todo, here / "store", never)
    assert [e["event"] for e in events(here / "store")][-2:] == ["begun", "ended"]


def test_a_lost_memory_only_costs_the_comparison(here, todo):
    first = do(todo, here / "store")
    (here / "store/batch/job/state.json").write_text("{")
    assert do(todo, here / "store", never)["triggers"] == first["triggers"]


def test_a_clock_that_goes_back_is_told_and_changes_nothing(here, todo):
    do(todo, here / "store")
    log = here / "store/batch/job/log.jsonl"
    log.write_text(log.read_text().replace('"time": "20', '"time": "30'))
    for manifest in (here / "store").glob(f"as_of=*/*/key=*/{runs.MANIFEST}"):
        manifest.write_text(manifest.read_text().replace('"created": "20', '"created": "22'))
    found = do(reseeded(todo, 2), here / "store")
    assert found["published"] == "new" and "before 30" in found["clock"]
    # What was made last is still the newest, whatever the clock says.
    newest = runs.newest(runs.catalogue(here / "store"))
    assert set(newest["key"]) == {s.key for s in reseeded(todo, 2).steps}


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    place.mkdir()
    made_it = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    if made_it.returncode:
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("size", ["80k", pytest.param("160k", marks=pytest.mark.slow)])
def test_a_full_disk_is_told_in_one_line_and_loses_nothing(here, todo, size):
    with mounted(here / "store", f"size={size}"):
        with pytest.raises(InputError, match=r"cannot be written .*; make room") as caught:
            do(todo, here / "store")
        assert "\n" not in str(caught.value) and not (here / "out").exists()
        kept = hashes(here / "store")
        subprocess.run(["mount", "-o", "remount,size=50m", here / "store"], check=True)
        found = do(todo, here / "store")
        assert found["skipped"] == len(kept) and found["published"] == "new"
        assert kept.items() <= hashes(here / "store").items()
        assert not list((here / "store").glob("as_of=*/*/.key=*"))


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_publication(here, todo):
    with mounted(here / "small", "size=150k"):
        one = changed(todo, outputs={"folder": "small/out", "history": True})
        do(one, here / "store")
        before = files(here / "small")
        filler = here / "small/filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(10**6))
        with pytest.raises(InputError, match="out: cannot be written"):
            do(reseeded(one, 2), here / "store")
        filler.unlink()
        assert files(here / "small") == before
        assert do(reseeded(one, 2), here / "store", never)["published"] == "new"


def test_a_store_that_may_not_be_written_is_told_in_one_line(here, todo):
    do(todo, here / "other")
    with mounted(here / "store", "size=50m"):
        shutil.copytree(here / "other", here / "store", dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", here / "store"], check=True)
        with pytest.raises(InputError, match=r"cannot be written .*Read-only"):
            do(todo, here / "store")
        assert hashes(here / "store") == hashes(here / "other")


# Workers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(chained, tmp_path_factory) -> tuple[dict[str, str], dict[str, bytes]]:
    """What one process makes of the job."""
    place = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        do(chained, place / "store")
    return hashes(place / "store"), files(place / "out")


def test_processes_give_the_same_bits(here, chained, expected):
    found = do(chained, here / "store", slots=workers.local_slots(2))
    assert not found["failed"]
    assert (hashes(here / "store"), files(here / "out")) == expected


def test_a_dask_cluster_gives_the_same_bits(here, chained, expected):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster:
        found = do(chained, here / "store", slots=workers.cluster_slots(cluster.scheduler_address))
    assert not found["failed"]
    assert (hashes(here / "store"), files(here / "out")) == expected


def test_a_cluster_that_does_not_answer_is_told(here, todo):
    with pytest.raises(InputError, match=r"nothing answers at tcp://127\.0\.0\.1:1"):
        do(todo, here / "store", slots=workers.cluster_slots("tcp://127.0.0.1:1"))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(here, chained, expected, monkeypatch):
    monkeypatch.setenv("FORECAST_TEST_MARK", str(here / "mark"))
    found = do(chained, here / "store", made.die_once, workers.local_slots(1))
    assert not found["failed"] and [e["event"] for e in events(here / "store")].count("died") == 1
    assert (hashes(here / "store"), files(here / "out")) == expected


@pytest.mark.slow
def test_a_fit_on_which_every_worker_dies_is_given_up_and_tried_next_time(here, chained, expected):
    found = do(chained, here / "store", made.die, workers.local_slots(1))
    assert found["ran"] == [] and found["published"] == "held"
    ((run, reason),) = [one.values() for one in found["failed"]]
    assert run == chained.steps[0].name and "BrokenProcessPool" in reason
    assert [e["event"] for e in events(here / "store")].count("died") == scheduling.ATTEMPTS
    do(chained, here / "store")
    assert (hashes(here / "store"), files(here / "out")) == expected


def test_a_fit_that_raises_stops_its_own_chain_only(here, todo):
    found = do(todo, here / "store", made.crash)
    assert len(found["ran"]) == 1 and found["published"] == "held"
    assert found["failed"] == [{"run": "rapid, 2025-03-31", "reason": "FloatingPointError: no number"}]
    again = do(todo, here / "store")
    assert len(again["ran"]) == 1 and again["published"] == "new"


def test_work_is_spread_over_processes_and_comes_back_as_it_is_done():
    found = list(workers.spread(2)(made.where, [(i,) for i in range(5)]))
    assert sorted(i for i, _ in found) == list(range(5))
    assert len({process for _, process in found}) == 2 and os.getpid() not in {
        process for _, process in found
    }


def test_a_process_that_dies_over_its_work_is_told():
    with pytest.raises(InputError, match="a worker process died"):
        list(workers.spread(2)(made.die, [(None, None)]))


def test_a_worker_of_other_code_is_refused(here, todo, monkeypatch):
    payload = workers.pack(made.fit, todo.steps[0].alone(), None)
    monkeypatch.setattr(workers, "CODE", "other")
    with pytest.raises(InputError, match="a worker has other code, other, than"):
        workers.work(payload)


# The real engine ------------------------------------------------------------------------------------------

SMALL = {"islands": 4, "chains": 16, "steps": 2, "final_sweeps": 1}
"""Sampler of a fit whose numbers mean nothing."""


@pytest.fixture(scope="module")
def real(inputs) -> scheduling.Plan:
    return planned(inputs, **CHAIN | {"worldviews": ["neutral", "rapid"], "sampler": SMALL})


@pytest.mark.slow
def test_the_engine_gives_the_same_bits_from_any_number_of_workers(tmp_path, monkeypatch, real):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    found = []
    for count in (1, 2, 4):
        assert not do(real, tmp_path / str(count), made.real, workers.local_slots(count))["failed"]
        found.append((hashes(tmp_path / str(count)), files(tmp_path / "out")))
        shutil.rmtree(tmp_path / "out")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        do(real, tmp_path / "dask", made.real, workers.cluster_slots(cluster.scheduler_address))
    found.append((hashes(tmp_path / "dask"), files(tmp_path / "out")))
    assert all(one == found[0] for one in found) and len(found[0][0]) == 4


# Kills and starts -----------------------------------------------------------------------------------------


def write_job(path: Path, some: list[dt.date] = DAYS, **fields: object) -> Path:
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    days = ", ".join(map(str, some))
    text = "\n".join([*lines, f"[dates]\non = [{days}]", '[outputs]\nfolder = "out"\nhistory = true\n'])
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("points", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_batch_may_be_killed_at_any_point(tmp_path, points):
    first = write_job(tmp_path / "one.toml", worldviews=["neutral"])
    second = write_job(tmp_path / "two.toml", worldviews=["neutral"], seed=2)
    (tmp_path / "work").mkdir()
    words = [sys.executable, ROOT / "tests/killed.py", first, second, tmp_path / "work", points, 1]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["kills"] == points


@pytest.fixture
def batches(tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command on one job and store, its fits held back until the file `mark` is there."""
    job, mark = write_job(tmp_path / "job.toml", worldviews=["neutral"]), tmp_path / "mark"
    places = ["--store", tmp_path / "store", "--data", ROOT / "data", "--priors", ROOT / "priors"]
    words = [sys.executable, ROOT / "tests/made.py", "held", "batch", job, *places]
    environment = os.environ | {"FORECAST_TEST_MARK": str(mark)}
    started = []

    def start() -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(list(map(str, words)), cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stderr.close()


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_of_batches_that_start_at_once_one_works(tmp_path, batches, count):
    store, started = tmp_path / "store", [batches() for _ in range(count)]
    while sum(one.poll() is None for one in started) > 1:
        time.sleep(0.05)
    (tmp_path / "mark").touch()
    said = [one.communicate()[1] for one in started]
    codes = [one.returncode for one in started]
    assert sorted(codes) == [0] + [75] * (count - 1), said
    busy = f"error: {store}: another batch is at work on this store\n"
    assert all(text == busy for text, code in zip(said, codes, strict=True) if code)
    assert len(hashes(store)) == len(DAYS)


@pytest.mark.slow
def test_workers_end_with_a_batch_that_is_killed(tmp_path, batches):
    psutil = pytest.importorskip("psutil")
    store, killed = tmp_path / "store", batches()
    while not (children := psutil.Process(killed.pid).children(recursive=True)):
        assert killed.poll() is None
        time.sleep(0.05)
    time.sleep(5)  # for the worker to be at its fit
    killed.kill()
    assert not psutil.wait_procs(children, timeout=20)[1]
    with journal.lock(store):  # nobody holds it any more
        pass


# The command ----------------------------------------------------------------------------------------------


@pytest.fixture
def command(here, command_line) -> Callable[..., tuple[int, str, str]]:
    places = ("--data", ROOT / "data", "--priors", ROOT / "priors")
    return lambda *words: command_line("batch", *words, *places)


def test_a_dry_run_says_what_would_run_and_changes_nothing(command, here, inputs):
    job = write_job(here / "job.toml", worldviews=["neutral"])
    code, out, err = command(job, "--store", here / "store", "--dry-run", "--format", "json")
    assert code == 0 and err == "" and [r["state"] for r in json.loads(out)] == ["to run"] * 2
    assert not (here / "store").exists()
    code, out, _ = command(job, "--store", here / "store", "--dry-run")
    assert code == 0 and "2 to run" in out


@pytest.mark.parametrize(("take", "code"), [(made.fit, 0), (made.fail_rapid, 1)])
def test_the_command_publishes_and_ends_with_the_code_of_the_gate(command, here, todo, take, code):
    job = write_job(here / "job.toml", DAYS[:1], worldviews=["neutral", "rapid"])
    do(changed(todo, outputs={"folder": "elsewhere", "history": True}, triggers=[]), here / "store", take)
    ended, out, err = command(job, "--store", here / "store", "--format", "json")
    found = json.loads(out)
    assert ended == code and err == "" and found["skipped"] == 2
    assert found["published"] == ("new" if code == 0 else "held") and (here / "out").exists() == (code == 0)
    assert command(job, "--store", here / "store")[1].startswith("job: 2025-03-31, neutral, rapid")


def test_a_bad_job_ends_with_2_and_changes_nothing(command, here):
    job = here / "job.toml"
    job.write_text("[dates]\nlattest = true\n")
    code, out, err = command(job, "--store", here / "store")
    assert code == 2 and out == "" and err.startswith(f"error: {job}: dates.lattest: unknown key")
    assert not (here / "store").exists()
    write_job(job, worldviews=["rapd"])
    code, out, err = command(job, "--store", here / "store")
    assert code == 2 and out == "" and err.startswith(f"error: {job}: worldviews: unknown worldview")


def test_a_busy_store_ends_with_75_at_once(command, here):
    job = write_job(here / "job.toml")
    with journal.lock(here / "store"):
        began = time.monotonic()
        code, out, err = command(job, "--store", here / "store")
    assert code == 75 and out == "" and "another batch is at work" in err and time.monotonic() - began < 5


def test_a_summary_is_shown_whole(here, todo, capsys):
    from forecast.console import show_table

    do(todo, here / "store")
    found = do(reseeded(todo, 2), here / "store", made.fail_rapid) | {"clock": "the clock reads x"}
    show_table(publication.tables(found))
    out = capsys.readouterr().out
    words = ("Clock", "Failed", "Moved", "Triggers", "effective sample size 3", "held")
    assert [word for word in words if word not in out] == []


def test_an_export_of_the_command_is_replaced_and_known(here, todo):
    do(todo, here / "store")
    mark = json.loads((here / "out" / export.MARK).read_bytes())
    assert export.is_current(here / "out", mark["content"]) and not export.is_current(here / "out", "other")
    assert sorted(mark["files"]) == ["history.json"] and len(mark["runs"]) == 2
