"""The store: whole runs or none, keys that follow content, damage that is found."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from forecast import runs
from forecast.runs import catalogue, code_version, content_hash, find, load, run_key, save, sweep
from forecast.schema import InputError

AT = ("2026-06-30", "neutral", "0123456789abcdef")
MANIFEST = {
    "seed": 7,
    "diagnostics": {"ess": np.float64(812.5), "draws": np.int64(4000)},
    "date": dt.date(2026, 6, 30),
}


def make_tree(seed: int = 0) -> xr.DataTree:
    rng = np.random.default_rng(seed)
    draws = xr.Dataset(
        {
            "explosive.r": (("chain", "draw"), rng.standard_normal((2, 50))),
            "label": (("chain", "draw"), rng.integers(0, 4, (2, 50))),
            "log_evidence": ((), -47.25),
        },
        coords={"chain": [0, 1]},
    )
    passage = xr.Dataset(
        {
            "passage": (("milestone", "draw"), np.array([[2026.25, np.inf], [np.nan, 2030.0]])),
            "passed": (("milestone",), np.array([True, False])),
            "published": (("milestone",), np.array(["2026-01-01", "2026-02-01"], "datetime64[ns]")),
        },
        coords={"milestone": ["m_10", "W_1_5"]},
        attrs={"dynamic": "explosive"},
    )
    weights = xr.Dataset({"weights": ("dynamic", [0.5, 0.5])}, coords={"dynamic": ["a", "b"]})
    empty = xr.Dataset({"none": ("x", np.zeros(0))})
    groups = {"/": weights, "/posterior": draws, "/prediction/explosive": passage, "/empty": empty}
    return xr.DataTree.from_dict(groups)


def visible(store) -> list[str]:
    return catalogue(store)["key"].tolist()


# Round trip -------------------------------------------------------------------------------------------


def test_a_stored_run_comes_back_as_it_was(tmp_path):
    tree = make_tree()
    folder = save(tmp_path, *AT, tree, MANIFEST)
    assert folder == tmp_path / "as_of=2026-06-30" / "worldview=neutral" / "key=0123456789abcdef"
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "run.nc"]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    back, manifest = load(folder)
    assert [node.path for node in back.subtree] == [node.path for node in tree.subtree]
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            other = back[node.path].to_dataset(inherit=False).variables[name]
            assert other.dims == variable.dims
            np.testing.assert_array_equal(other.values, variable.values, err_msg=str(name))
    assert manifest["content_hash"] == content_hash(tree) and manifest["schema"] == runs.SCHEMA
    assert manifest["seed"] == 7 and manifest["diagnostics"] == {"draws": 4000, "ess": 812.5}
    assert (manifest["as_of"], manifest["worldview"], manifest["key"]) == AT
    assert manifest["status"] == "done" and manifest["date"] == "2026-06-30"
    assert dt.datetime.fromisoformat(manifest["created"]).tzinfo is not None


def test_a_loaded_run_can_be_stored_again(tmp_path):
    first = save(tmp_path / "a", *AT, make_tree(), {})
    tree, manifest = load(first)
    second = save(tmp_path / "b", *AT, tree, manifest)
    # The bytes of a file hold the time of writing; what it says is the same.
    again = load(second)[1]
    assert again | {"file_hash": ""} == manifest | {"file_hash": ""}


def test_a_loaded_run_holds_no_file_open(tmp_path):
    folder = save(tmp_path, *AT, make_tree(), {})
    tree, _ = load(folder)
    shutil.rmtree(folder)
    assert np.isfinite(tree["posterior"]["explosive.r"].values).all()


def test_large_floats_are_compressed(tmp_path):
    tree = xr.DataTree.from_dict({"/p": xr.Dataset({"x": ("draw", np.zeros(200_000))})})
    assert (save(tmp_path, *AT, tree, {}) / "run.nc").stat().st_size < 100_000


def test_found_or_not(tmp_path):
    assert find(tmp_path, *AT) is None
    folder = save(tmp_path, *AT, make_tree(), {})
    assert find(tmp_path, *AT) == folder
    assert find(tmp_path, "2026-06-29", *AT[1:]) is None


# All or nothing ---------------------------------------------------------------------------------------


def test_a_writer_that_dies_before_the_rename_leaves_nothing_to_see(tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", die)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # A killed process cleans nothing.
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, *AT, make_tree(), MANIFEST)
    monkeypatch.undo()
    left = list((tmp_path / "as_of=2026-06-30" / "worldview=neutral").iterdir())
    assert len(left) == 1 and left[0].name.startswith(".key=") and (left[0] / "run.nc").exists()
    assert find(tmp_path, *AT) is None and visible(tmp_path) == []

    assert sweep(tmp_path) == [], "it may belong to a writer at work"
    folder = save(tmp_path, *AT, make_tree(), MANIFEST)
    assert sweep(tmp_path, older_than=0) == left and not left[0].exists()
    assert visible(tmp_path) == [AT[2]] and load(folder)


def test_a_writer_that_is_stopped_cleans_up(tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, *AT, make_tree(), MANIFEST)
    assert list((tmp_path / "as_of=2026-06-30" / "worldview=neutral").iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path, monkeypatch):
    rename = os.rename

    def other_writer_first(draft, final):
        monkeypatch.setattr(os, "rename", rename)
        save(tmp_path, *AT, make_tree(1), {"writer": "first"})
        rename(draft, final)

    monkeypatch.setattr(os, "rename", other_writer_first)
    folder = save(tmp_path, *AT, make_tree(2), {"writer": "second"})
    assert load(folder)[1]["writer"] == "first"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_run_already_stored_is_kept(tmp_path):
    save(tmp_path, *AT, make_tree(1), {"writer": "first"})
    folder = save(tmp_path, *AT, make_tree(2), {"writer": "second"})
    tree, manifest = load(folder)
    assert manifest["writer"] == "first" and content_hash(tree) == content_hash(make_tree(1))


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
def test_a_store_that_cannot_be_written_says_so_in_one_line(tmp_path, monkeypatch, code, words):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(
        InputError, match=f"cannot be written \\({words}.*make room or name another store"
    ) as caught:
        save(tmp_path, *AT, make_tree(), {})
    assert "\n" not in str(caught.value)
    assert visible(tmp_path) == [] and sweep(tmp_path, older_than=0) == []


def test_a_store_that_is_a_file_says_so(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(InputError, match="cannot be written \\(Not a directory\\)"):
        save(tmp_path / "store", *AT, make_tree(), {})


@pytest.mark.parametrize(
    ("as_of", "worldview", "key", "words"),
    [
        ("30 June", "neutral", "ab", "as_of '30 June' is not a date"),
        ("2026-06-30", "../up", "ab", "worldview '../up' cannot name a folder"),
        ("2026-06-30", "neutral", "../../x", "run key '../../x' is not hexadecimal"),
    ],
)
def test_names_that_would_leave_the_store_are_refused(tmp_path, as_of, worldview, key, words):
    for attempt in (
        lambda: save(tmp_path, as_of, worldview, key, make_tree(), {}),
        lambda: find(tmp_path, as_of, worldview, key),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert str(caught.value).startswith(words)


# Damage -----------------------------------------------------------------------------------------------


def rewrite(folder, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(change(manifest)))


def other_values(folder) -> None:
    tree = make_tree(9)
    tree.to_netcdf(folder / "run.nc", engine="h5netcdf")


def flip_middle(folder) -> None:
    data = bytearray((folder / "run.nc").read_bytes())
    data[:2000] = bytes(2000)
    (folder / "run.nc").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_values, "content hash differs"),
        (flip_middle, "run.nc cannot be read"),
        (lambda f: (f / "run.nc").write_bytes((f / "run.nc").read_bytes()[:3000]), "run.nc cannot be read"),
        (lambda f: (f / "run.nc").write_bytes(b""), "run.nc cannot be read"),
        (lambda f: (f / "run.nc").unlink(), "run.nc is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json: No such file"),
        (lambda f: (f / "manifest.json").write_text('{"a": '), "manifest.json is not JSON"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json lacks the content hash"),
        (lambda f: rewrite(f, lambda m: m | {"content_hash": "0"}), "content hash differs"),
        (
            lambda f: rewrite(f, lambda m: m | {"schema": 99}),
            f"layout 99, and this version reads {runs.SCHEMA}",
        ),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(tmp_path, damage, reason):
    folder = save(tmp_path, *AT, make_tree(), MANIFEST)
    damage(folder)
    with pytest.raises(InputError) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith(f"{folder}: the stored run is damaged (") and reason in text and "\n" not in text
    assert text.endswith("delete the folder and run `forecast update` again")


def test_every_value_name_and_dim_is_in_the_content_hash():
    base = make_tree()
    hashes = [content_hash(base), content_hash(make_tree(1))]
    posterior = base["posterior"].to_dataset()
    changes = [
        posterior.rename({"label": "labels"}),
        posterior.rename({"draw": "sample"}),
        posterior.assign_coords(chain=[1, 0]),
        posterior.assign(label=posterior["label"].astype(float)),
        posterior.drop_vars("log_evidence"),
    ]
    for changed in changes:
        tree = base.copy()
        tree["posterior"] = xr.DataTree(changed)
        hashes.append(content_hash(tree))
    assert len(set(hashes)) == len(hashes)
    assert content_hash(make_tree()) == hashes[0]


# Catalogue --------------------------------------------------------------------------------------------


def test_the_catalogue_is_read_off_the_folders(tmp_path):
    assert catalogue(tmp_path).empty and "status" in catalogue(tmp_path / "none")
    save(tmp_path, "2026-06-30", "rapid", "aa", make_tree(), {"status": "failed"})
    save(tmp_path, "2025-12-31", "neutral", "bb", make_tree(), {})
    broken = save(tmp_path, "2026-06-30", "neutral", "cc", make_tree(), {})
    (broken / "manifest.json").write_text("{")
    hollow = save(tmp_path, "2026-06-30", "neutral", "dd", make_tree(), {})
    (hollow / "run.nc").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    table = catalogue(tmp_path)
    assert list(table.columns) == ["as_of", "worldview", "key", "created", "folder", "status"]
    assert table[["as_of", "worldview", "key", "status"]].to_numpy().tolist() == [
        ["2025-12-31", "neutral", "bb", "done"],
        ["2026-06-30", "neutral", "cc", "damaged"],
        ["2026-06-30", "neutral", "dd", "damaged"],
        ["2026-06-30", "rapid", "aa", "failed"],
    ]
    assert isinstance(table["created"].dtype, pd.DatetimeTZDtype) and table["created"].isna().tolist()[1]
    assert load(table["folder"].iloc[0])[1]["key"] == "bb"


# Keys -------------------------------------------------------------------------------------------------

CONTENT = {
    "data": "9f2c",
    "priors": {"g0": ["lognormal", 1.5, 0.4]},
    "dynamics": ["explosive", "amdahl"],
    "settings": {"particles": 1024, "monthly": False},
    "seed": 7,
    "as_of": dt.date(2026, 6, 30),
    "code": "0.1.0",
}


@pytest.mark.parametrize(
    "change",
    [
        {"data": "9f2d"},
        {"priors": {"g0": ["lognormal", 1.5, 0.4000000000000001]}},
        {"priors": {"g1": ["lognormal", 1.5, 0.4]}},
        {"dynamics": ["amdahl", "explosive"]},
        {"settings": {"particles": 1025, "monthly": False}},
        {"settings": {"particles": 1024, "monthly": True}},
        {"settings": {"particles": 1024}},
        {"seed": 8},
        {"as_of": dt.date(2026, 6, 29)},
        {"code": "0.1.1"},
        {"extra": None},
    ],
)
def test_any_changed_content_is_another_key(change):
    assert run_key(CONTENT | change) != run_key(CONTENT)


def test_a_key_is_short_and_does_not_mind_order_or_numpy():
    key = run_key(CONTENT)
    assert len(key) == 16 and int(key, 16) >= 0
    assert run_key(dict(reversed(CONTENT.items()))) == key
    numpy = {"seed": np.int64(7), "dynamics": ("explosive", "amdahl"), "as_of": "2026-06-30"}
    assert run_key(CONTENT | numpy | {"priors": {"g0": ["lognormal", np.float64(1.5), 0.4]}}) == key
    # Fixed for good: a changed recipe would orphan every stored run.
    assert run_key({"a": 0.1, "b": [1, None]}) == "99c2505ae8eb72b7"


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_have_one_key_each(a, b):
    assert (run_key({"x": a}) == run_key({"x": b})) == (repr(a) == repr(b))


def test_content_without_a_place_in_a_key_is_refused():
    with pytest.raises(TypeError, match="cannot put set into JSON"):
        run_key({"x": {1, 2}})
    with pytest.raises(ValueError):
        run_key({"x": float("nan")})


def test_the_code_version_follows_the_sources(tmp_path):
    def version():
        code_version.cache_clear()
        return code_version(package)

    real = code_version()
    assert real.split("+")[0] and len(real.split("+")[1]) == 12
    package = tmp_path / "forecast"
    shutil.copytree(os.path.dirname(runs.__file__), package, ignore=shutil.ignore_patterns("__pycache__"))
    assert version() == real
    (package / "schema.py").write_text((package / "schema.py").read_text() + "\n")
    assert code_version(package) == real, "a process keeps the code it has"
    changed = version()
    assert changed != real
    (package / "notes.txt").write_text("not code")
    assert version() == changed
