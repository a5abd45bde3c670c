"""The store of finished runs: one folder per run key, complete or invisible.

A run is ``as_of=DATE/worldview=NAME/key=KEY/`` with ``run.nc``, the tree, and ``manifest.json``, how it came
about. It is written under a dot-prefixed name beside its place and renamed once it is on disk, so a
reader never sees half a run. The folders are the only record; the catalogue is read off them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from forecast.schema import InputError

SCHEMA = 2
"""Layout of a stored run; a change of it makes older runs unreadable."""
TREE, MANIFEST = "run.nc", "manifest.json"
_COMPRESSION = {"zlib": True, "complevel": 1, "shuffle": True}
_PACKED, _NAMES = "packed", "name_in_run"
_RUN = "as_of=*/worldview=*/key=*"
_LEFTOVER = "as_of=*/worldview=*/.key=*"


# Keys -------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Turn what JSON lacks into what it has."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"cannot put {type(value).__name__} into JSON: {value!r}")


def _canonical(content: Any) -> bytes:
    # json writes floats by repr, the shortest text that reads back as the same number.
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain
    ).encode()


def run_key(content: Mapping[str, Any]) -> str:
    """Key of a run: the first 16 hex digits of the SHA-256 of what determines it.

    Parameters
    ----------
    content
        Everything whose change must give another run: data hash, priors, dynamics, settings, seed, as-of
        date, code version. The order of keys does not matter.

    Raises
    ------
    TypeError, ValueError
        A value has no place in JSON, or is a number that is not finite.
    """
    return hashlib.sha256(_canonical(content)).hexdigest()[:16]


def seed_of(text: str) -> int:
    """A seed from the name of what is drawn, so that draws do not depend on the order they are made in."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


@cache
def code_version(folder: Path = Path(__file__).parent) -> str:
    """Version of this package and a hash of its sources, as they were when first asked for."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        source = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(source)}\0".encode() + source)
    return f"{version('forecast')}+{digest.hexdigest()[:12]}"


def _variable_bytes(variable: xr.Variable) -> bytes:
    values = variable.to_numpy()
    if values.dtype.kind == "M":
        # A file may bring dates back in another unit.
        values = values.astype("datetime64[ns]").astype("int64")
    if values.dtype.kind in "biuf":
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        return f"{values.dtype.kind}{values.dtype.itemsize}".encode() + np.ascontiguousarray(little).tobytes()
    return b"text" + json.dumps([str(v) for v in values.ravel()]).encode()


def content_hash(tree: xr.DataTree) -> str:
    """SHA-256 of every variable of a tree: its group, name, dims, shape and values.

    The file is not hashed: it embeds the time of writing, and compression differs between versions.
    """
    digest = hashlib.sha256()
    for node in sorted(tree.subtree, key=lambda node: node.path):
        variables = node.to_dataset(inherit=False).variables
        for name in sorted(variables, key=str):
            array, data = variables[name], _variable_bytes(variables[name])
            digest.update(_canonical([node.path, str(name), array.dims, array.shape, len(data)]) + data)
    return digest.hexdigest()


# Folders ----------------------------------------------------------------------------------------------


def _place(store: Path, as_of: str, worldview: str, key: str) -> Path:
    try:
        dt.date.fromisoformat(as_of)
    except ValueError:
        raise InputError(f"as_of '{as_of}' is not a date; give YYYY-MM-DD") from None
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", worldview):
        raise InputError(f"worldview '{worldview}' cannot name a folder; use letters, digits, '-' and '_'")
    if not re.fullmatch(r"[0-9a-f]+", key):
        raise InputError(f"run key '{key}' is not hexadecimal; take it from run_key")
    return Path(store) / f"as_of={as_of}" / f"worldview={worldview}" / f"key={key}"


def unwritable(path: Path, error: OSError) -> InputError:
    """What a user is told of a file of a store that cannot be written."""
    reason = error.strerror or error
    return InputError(f"{path}: cannot be written ({reason}); make room or name another store")


def listed(value: np.ndarray) -> list[Any]:
    """An array as JSON has it, None where there is no number."""
    known = value.astype(object)
    known[~np.isfinite(value)] = None
    return list(known.tolist())


def remember(path: Path, content: Any) -> None:
    """Write a small JSON file, all of it or nothing; its folder is made if missing."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def recall(path: Path) -> Any:
    """What `remember` wrote, None if there is nothing that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def once(path: Path, make: Callable[[], Any]) -> Any:
    """What was remembered, or made and remembered now."""
    found = recall(path)
    if found is None:
        found = make()
        remember(path, found)
    return found


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_hash(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packed(group: xr.Dataset) -> xr.Dataset:
    """One variable in place of many of the same shape: a file is read a hundred times faster so."""
    kinds = {(v.dims, v.dtype, tuple(v.attrs)) for v in group.data_vars.values()}
    alike = len(kinds) == 1 and len(group.data_vars) > 1 and not next(iter(kinds))[2]
    return group.to_dataarray(_NAMES, name=_PACKED).to_dataset() if alike else group


def _unpacked(group: xr.Dataset) -> xr.Dataset:
    return group[_PACKED].to_dataset(dim=_NAMES) if _PACKED in group else group


def netcdf(tree: xr.DataTree, encoding: Mapping[str, Any] | None = None) -> bytes:
    """A tree as the bytes of a netCDF file; in memory, as HDF5 ends the process when a disk is full."""
    # What comes back is a view of a buffer, which complains if it is thrown away before its view.
    with memoryview(tree.to_netcdf(engine="h5netcdf", encoding=encoding)) as view:
        return bytes(view)


def _write(folder: Path, tree: xr.DataTree, manifest: Mapping[str, Any]) -> None:
    tree = tree.map_over_datasets(_packed)
    encoding = {
        node.path: {
            str(name): _COMPRESSION
            for name, array in node.to_dataset(inherit=False).variables.items()
            if array.dtype.kind == "f" and array.ndim and array.size
        }
        for node in tree.subtree
    }
    content = netcdf(tree, encoding)
    (folder / TREE).write_bytes(content)
    whole = dict(manifest) | {"file_hash": hashlib.sha256(content).hexdigest()}
    text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False, default=_plain)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    for path in (folder / TREE, folder / MANIFEST, folder):
        sync(path)


def _after(folder: Path) -> dt.datetime:
    """Now, or past the runs of a folder where the clock has gone back: the newest must stay the newest."""
    last = dt.datetime.now(dt.UTC)
    for other in folder.glob("key=*"):
        try:
            made = dt.datetime.fromisoformat(_manifest(other)["created"])
            last = max(last, made + dt.timedelta(seconds=1))
        except (InputError, KeyError, ValueError, TypeError):
            continue  # Nothing is newer than what cannot be read.
    return last


def save(
    store: Path, as_of: str, worldview: str, key: str, tree: xr.DataTree, manifest: Mapping[str, Any]
) -> Path:
    """Store a run, all of it or nothing; a run already stored under the key is kept.

    Parameters
    ----------
    store
        Folder of the store, made if missing.
    as_of, worldview, key
        What the run is of; `key` from `run_key`.
    tree
        Groups of variables; floats are stored compressed, without loss.
    manifest
        How the run came about, in JSON's types; ``status`` is ``done`` unless given. The time of
        writing, the layout, the content hash and a hash of the file are added.

    Returns
    -------
    Path
        Folder of the stored run.

    Raises
    ------
    InputError
        A bad name, or the store cannot be written.
    """
    final = _place(store, as_of, worldview, key)
    if final.is_dir():
        return final
    created = _after(final.parent).isoformat(timespec="seconds")
    whole = {"created": created, "status": "done"} | dict(manifest)
    whole |= {"schema": SCHEMA, "as_of": as_of, "worldview": worldview, "key": key}
    whole["content_hash"] = content_hash(tree)
    draft = final.with_name(f".{final.name}.{os.getpid()}.{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        _write(draft, tree, whole)
        try:
            os.rename(draft, final)
        except OSError:
            # Another writer of the same key came first; equal keys mean equal runs.
            if not final.is_dir():
                raise
        sync(final.parent)
    except OSError as error:
        raise unwritable(final, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final


def find(store: Path, as_of: str, worldview: str, key: str) -> Path | None:
    """Folder of a stored run, or None."""
    folder = _place(store, as_of, worldview, key)
    return folder if folder.is_dir() else None


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(
        f"{folder}: the stored run is damaged ({reason}); delete the folder and run `forecast update` again"
    )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise _damaged(folder, f"{MANIFEST}: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(folder, f"{MANIFEST} is not JSON") from error
    if not isinstance(manifest, dict) or "content_hash" not in manifest:
        raise _damaged(folder, f"{MANIFEST} lacks the content hash")
    if manifest.get("schema") != SCHEMA:
        raise _damaged(folder, f"layout {manifest.get('schema')!r}, and this version reads {SCHEMA}")
    return manifest


def load(folder: Path) -> tuple[xr.DataTree, dict[str, Any]]:
    """Read a stored run, its tree in memory, and its manifest, and check the one against the other.

    Raises
    ------
    InputError
        A file is missing, cannot be read, or does not hold what was stored.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    try:
        with xr.open_datatree(folder / TREE, engine="h5netcdf") as file:
            tree = file.load().map_over_datasets(_unpacked)
    except FileNotFoundError as error:
        raise _damaged(folder, f"{TREE} is missing") from error
    except Exception as error:
        # A broken HDF5 file surfaces as any of half a dozen kinds of error, some over several lines.
        raise _damaged(folder, f"{TREE} cannot be read, {type(error).__name__}") from error
    if content_hash(tree) != manifest["content_hash"]:
        raise _damaged(folder, "content hash differs")
    return tree, manifest


def load_part(folder: Path, names: Collection[str]) -> xr.DataTree:
    """Groups of these names of a stored run that `check` has found sound, wherever they stand in its tree."""
    try:
        with xr.open_datatree(folder / TREE, engine="h5netcdf") as file:
            return xr.DataTree.from_dict(
                {n.path: _unpacked(n.to_dataset().load()) for n in file.subtree if n.name in names}
            )
    except Exception as error:  # as in `load`
        raise _damaged(folder, f"{TREE} cannot be read, {type(error).__name__}") from error


def check(folder: Path) -> dict[str, Any]:
    """Manifest of a stored run whose file is the one that was written; quick, as the tree is not read.

    Raises
    ------
    InputError
        A file is missing, cannot be read, or is not what was stored.
    """
    manifest = _manifest(folder)
    if "file_hash" not in manifest:  # of an earlier version
        return load(folder)[1]
    try:
        found = file_hash(folder / TREE)
    except OSError as error:
        raise _damaged(folder, f"{TREE}: {error.strerror}") from error
    if found != manifest["file_hash"]:
        raise _damaged(folder, f"{TREE} is not the file that was written")
    return manifest


def set_aside(folder: Path) -> Path:
    """Hide a damaged run, so that its place is free for a new one; return where it is kept."""
    hidden = folder.with_name(f".damaged.{folder.name}.{uuid.uuid4().hex}")
    try:
        os.rename(folder, hidden)
    except OSError as error:
        raise InputError(f"{folder}: cannot be renamed ({error.strerror}); check who owns it") from error
    return hidden


def catalogue(store: Path) -> pd.DataFrame:
    """Every stored run, read off the folders.

    Returns
    -------
    DataFrame
        Columns ``as_of``, ``worldview``, ``key``, ``created`` (UTC, NaT where unknown), ``folder`` and
        ``status``: what the manifest says, or ``damaged`` where a file is missing or the manifest cannot be
        read. Trees are not opened, so only `load` finds damage inside them.
    """
    rows = []
    for folder in sorted(Path(store).glob(_RUN)):
        names = dict(part.split("=", 1) for part in folder.parts[-3:])
        try:
            manifest = _manifest(folder)
            status = str(manifest["status"]) if (folder / TREE).is_file() else "damaged"
            created = pd.to_datetime(manifest["created"], utc=True)
        except (InputError, KeyError, ValueError, TypeError):
            status, created = "damaged", pd.NaT
        rows.append(names | {"created": created, "folder": str(folder), "status": status})
    table = pd.DataFrame(rows, columns=["as_of", "worldview", "key", "created", "folder", "status"])
    return table.assign(created=pd.to_datetime(table["created"], utc=True))


def newest(table: pd.DataFrame) -> pd.DataFrame:
    """Newest run of each date and worldview among those of a `catalogue`, in that order."""
    last = table.sort_values("created", kind="stable").drop_duplicates(["as_of", "worldview"], keep="last")
    return last.sort_values(["as_of", "worldview"])


def log_evidence(tree: xr.DataTree) -> np.ndarray:
    """Log marginal likelihood of a run's dynamics, nats, (dynamic, island)."""
    return np.asarray(tree["evidence"].to_dataset()["log_marginal_likelihood"].values, float)


def sweep(store: Path, older_than: float = 3600.0) -> list[Path]:
    """Remove what crashed writers left, and return it.

    Parameters
    ----------
    store
        Folder of the store.
    older_than
        Seconds since a leftover was last touched; a younger one may belong to a writer at work.
    """
    limit = time.time() - older_than
    removed = []
    for folder in sorted(Path(store).glob(_LEFTOVER)):
        try:
            if folder.stat().st_mtime <= limit:
                shutil.rmtree(folder)
                removed.append(folder)
        except FileNotFoundError:
            continue  # Its writer finished meanwhile.
        except OSError as error:
            raise InputError(f"{folder}: cannot be removed ({error.strerror}); check who owns it") from error
    return removed
