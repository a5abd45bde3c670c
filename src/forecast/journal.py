"""One batch at a time on a store, and a log of what each did."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from forecast.runs import unwritable


class ActiveError(Exception):
    """Another batch is at work on the store."""


@contextlib.contextmanager
def lock(store: Path) -> Iterator[None]:
    """Hold a store for one batch; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    ActiveError
        Another batch holds it.
    InputError
        The store cannot be written.
    """
    path = Path(store) / "batch" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(path, timeout=0, fallback_to_soft=False, preserve_lock_file=True)
        held.acquire()
    except filelock.Timeout:
        raise ActiveError(f"{store}: another batch is at work on this store") from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        held.release()


@dataclass
class Log:
    """Lines of JSON about one job, one event each, with the time and the seconds since the batch began."""

    path: Path
    began: float = field(default_factory=time.monotonic)

    def open(self) -> str:
        """Mend a line that a crash cut short; return the time of the last entry, '' if there is none."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = self.path.read_bytes() if self.path.exists() else b""
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                os.truncate(self.path, len(whole))
        except OSError as error:
            raise unwritable(self.path, error) from error
        last = whole.splitlines()[-1:] or [b"{}"]
        return str(json.loads(last[0]).get("time", ""))

    def write(self, event: str, **about: Any) -> None:
        """Append an entry."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        entry = {"time": now, "elapsed": round(time.monotonic() - self.began, 2), "event": event} | about
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise unwritable(self.path, error) from error
