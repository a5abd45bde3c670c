"""Who does the work of a batch: processes of this machine, or the workers of a Dask cluster.

Each piece depends on nothing but what it is handed, so that any number of workers gives the same bits.
"""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any, Protocol

import cloudpickle

from forecast import batch, history, runs, vintages
from forecast.compilation import Compiled
from forecast.schema import InputError

CODE = runs.code_version()
"""What this process has imported, whatever happens to the files meanwhile."""
Take = Callable[[history.Step, history.Stored | None], history.Stored]
"""What a worker does: a date, and the run of the date before, to the run of the date."""
_PROGRAMS: dict[str, dict[tuple[str, ...], Compiled]] = {}
"""Models this process has compiled, by the rows of their window; those of the last window only."""


def fit(step: history.Step, before: history.Stored | None) -> history.Stored:
    """Fit or step to a date, with a model that is compiled once in this process."""
    rows = vintages.data_hash(step.window.rows)
    if rows not in _PROGRAMS:
        _PROGRAMS.clear()
        _PROGRAMS[rows] = {}
    return history.take(step, batch.compile_once(_PROGRAMS[rows], step.window.rows, step.declared), before)


def work(payload: bytes) -> Any:
    """Do in a worker what `pack` packed."""
    code, take, of = cloudpickle.loads(payload)
    if code != CODE:
        raise InputError(f"a worker has other code, {CODE}, than {code}; install the same")
    return take(*of)


def pack(take: Callable[..., Any], *of: Any) -> bytes:
    """A function and what it is called with as bytes, for `work`."""
    # By value: bounds of parameters are functions without a name, which pickle refuses.
    return cloudpickle.dumps((CODE, take, of))


class Slot(Protocol):
    """A place where one piece is worked on at a time."""

    def submit(self, payload: bytes) -> cf.Future[Any]:
        """Start `work`."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


def _follow(parent: Any) -> None:
    """End this process when its parent ends, even if that was killed."""
    wait([parent.sentinel])
    os._exit(1)


def _prepare() -> None:
    parent = multiprocessing.parent_process()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


class LocalSlot:
    """One spawned process of this machine, replaced when it dies."""

    def __init__(self) -> None:
        self._pool: cf.ProcessPoolExecutor | None = None
        self._processes: set[Any] = set()

    def submit(self, payload: bytes) -> cf.Future[Any]:
        """Start `work` in the process."""
        others = set(multiprocessing.active_children())
        if self._pool is None:
            self._pool = cf.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare)
        future = self._pool.submit(work, payload)
        self._processes |= set(multiprocessing.active_children()) - others
        return future

    def close(self) -> None:
        """End the process, also in the middle of a fit."""
        if self._pool is None:
            return
        for process in self._processes:
            process.kill()
        self._pool.shutdown(cancel_futures=True)
        self._pool, self._processes = None, set()


class ClusterSlot:
    """A worker of a Dask cluster, or another one where it is gone."""

    def __init__(self, client: Any, worker: str) -> None:
        self.client, self.worker = client, worker

    def submit(self, payload: bytes) -> cf.Future[Any]:
        """Start `work` on the worker."""
        where = {"workers": [self.worker], "allow_other_workers": True, "pure": False}
        return self.client.get_executor(**where).submit(work, payload)

    def close(self) -> None:
        """Do nothing: the cluster is not ours to end, and what is under way is cancelled with the client."""


@contextlib.contextmanager
def local_slots(count: int) -> Iterator[list[Slot]]:
    """As many processes on this machine."""
    slots: list[Slot] = [LocalSlot() for _ in range(count)]
    try:
        yield slots
    finally:
        for slot in slots:
            slot.close()


def spread(count: int) -> Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]:
    """Like `itertools.starmap`, over as many processes of this machine, and in the order pieces are done.

    Raises
    ------
    InputError
        A process died.
    """

    def each(take: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        with local_slots(count) as slots:
            free, busy = list(slots), dict[cf.Future[Any], Slot]()
            for job in jobs:
                if not free:
                    yield from _done(busy, free)
                slot = free.pop()
                busy[slot.submit(pack(take, *job))] = slot
            while busy:
                yield from _done(busy, free)

    return each


def _done(busy: dict[cf.Future[Any], Slot], free: list[Slot]) -> Iterator[Any]:
    """What the next processes to be done found; they are free then."""
    for future in cf.wait(busy, return_when=cf.FIRST_COMPLETED).done:
        free.append(busy.pop(future))
        try:
            yield future.result()
        except cf.BrokenExecutor as error:
            raise InputError(
                "a worker process died; run the same again, what was finished is kept"
            ) from error


@contextlib.contextmanager
def cluster_slots(address: str) -> Iterator[list[Slot]]:
    """Every worker of the Dask cluster whose scheduler is at an address.

    Raises
    ------
    InputError
        Dask is not installed, or no scheduler or worker answers.
    """
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler: Dask is not installed; install `forecast[cluster]`") from None
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler: nothing answers at {address} ({type(error).__name__}); start a scheduler there"
        ) from error
    # A date and the run before it are some tens of megabytes, and Dask warns of far less.
    with client, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):
        # The order of workers moves no number, only which of them does what.
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise InputError(f"--scheduler: {address} has no worker; start some")
        yield [ClusterSlot(client, worker) for worker in workers]
