"""Kill batches at random points and look at what they leave: JOB SECOND_JOB FOLDER POINTS SEED.

The first job has been published when the second begins, which is killed with SIGKILL at a random file
operation or after a random time, started again, and so on until it ends.  After every kill all that can be
seen must be whole; at the end all must be as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import made
from forecast import batch, export, journal, runs, scheduling
from forecast.jobs import load_job

ROOT = Path(__file__).parents[1]
COUNTED = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def state_of(store: Path, out: Path) -> dict[str, object]:
    """All that a batch leaves but times, damage raising an error."""
    found = runs.catalogue(store)
    assert not found.duplicated(["as_of", "worldview", "key"]).any()
    hashes = {folder: runs.load(Path(folder))[1]["content_hash"] for folder in found["folder"]}
    remembered = {str(p.relative_to(store)): p.read_text() for p in sorted(store.glob("batch/*/state.json"))}
    return {
        "runs": {str(Path(f).relative_to(store)): h for f, h in hashes.items()},
        "remembered": {name: json.loads(text) for name, text in remembered.items()},
        "published": published(out),
    }


def published(out: Path) -> object:
    """Content of a publication, checked file by file; None if there is none."""
    if not out.exists():
        return None
    mark = json.loads((out / export.MARK).read_bytes())
    assert export.is_current(out, mark["content"]), "half a publication"
    return mark


def child(todo, store: Path, out: Path, event: int | None, seconds: float | None) -> tuple[int, int]:
    """Do a batch in another process, which may be killed; its signal, and the operations it counted."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX, which has started no thread here
        pid = os.fork()
    if pid == 0:
        count = [0]

        def hook(name: str, about: tuple) -> None:
            if name in COUNTED and (name != "open" or about[2] & (os.O_WRONLY | os.O_RDWR)):
                count[0] += 1
                if count[0] == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(hook)
            if seconds is not None:
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            outputs = todo.job.outputs.model_copy(update={"folder": str(out)})
            todo = dataclasses.replace(todo, job=todo.job.model_copy(update={"outputs": outputs}))
            with journal.lock(store):
                scheduling.run(todo, store, contextlib.nullcontext([made.Inline()]), take=made.fit)
            os.write(write, str(count[0]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    told = os.read(read, 99)
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the batch failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, int(told or 0)


def main() -> None:
    """Print how many kills were made and how many batches ended."""
    first, second, folder, points, seed = sys.argv[1:]
    inputs = batch.load_inputs(ROOT / "data", ROOT / "priors")
    # Under one name, as one job whose content changed.
    one, two = (scheduling.plan("job", load_job(Path(p)), inputs, ROOT / "data") for p in (first, second))
    place, rng = Path(folder), random.Random(int(seed))
    start, out = place / "start", place / "out"
    child(one, start, out, None, None)
    before = published(out)
    clean, aside = place / "clean", place / "out_clean"
    shutil.copytree(start, clean)
    shutil.copytree(out, aside)
    began = time.monotonic()
    total = child(two, clean, aside, None, None)[1]
    took = time.monotonic() - began
    whole = state_of(clean, aside)
    assert whole["published"] != before
    kills = ended = 0
    while kills < int(points) or ended == 0:
        store, out_now = place / f"store{ended}", place / f"out{ended}"
        if not store.exists():
            shutil.copytree(start, store)
            shutil.copytree(out, out_now)
        at = rng.randint(1, total) if rng.random() < 0.6 else None
        ended_by, _ = child(two, store, out_now, at, None if at else rng.uniform(0, took))
        left = state_of(store, out_now)
        assert left["published"] in (before, whole["published"]), "the last publication is gone"
        assert set(left["runs"].items()) <= set(whole["runs"].items())
        if ended_by:
            kills += 1
        else:
            assert left == whole, "not as if nothing had happened"
            for line in (store / "batch/job/log.jsonl").read_text().splitlines():
                json.loads(line)
            shutil.rmtree(store)
            shutil.rmtree(out_now)
            ended += 1
    print(json.dumps({"kills": kills, "ended": ended, "operations": total}))


if __name__ == "__main__":
    main()
