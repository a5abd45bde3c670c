"""Exports: what a run forecasts, the hub it goes into, and the checks that a hub makes."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast import export, hub, prediction, runs
from forecast.dynamics import DYNAMICS
from forecast.schema import InputError
from forecast.submission import ORACLE, TIME_SERIES, check_table
from forecast.tables import OBSERVATION

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT.parent / "shared" / "hubverse" / hub.VERSION
NAMES = list(DYNAMICS)
TIME = np.arange(2023.0, 2041.5)
"""A coarse grid, so that the tests are quick."""
MILESTONES = ("m_10", "W_2")
EVEN = dict.fromkeys(NAMES, 1 / len(NAMES))
ALL = prediction.load_milestones(ROOT / "data" / "milestones.toml")


def made_tree(seed: int = 1, spread: float = 1.0) -> xr.DataTree:
    """A run as `batch` writes it, without what an export does not read."""
    rng = np.random.default_rng(seed)
    parts = {}
    for name in NAMES:
        passage = np.where(rng.random((2, 4, 25)) < 0.3, np.inf, rng.choice(TIME, (2, 4, 25)))
        levels = np.sort(rng.normal(0, spread, (6, 7, 1)), axis=1)
        bands = np.exp(levels + np.linspace(0, 2, len(TIME)))
        parts[f"/{name}/predictions"] = xr.Dataset(
            {
                "passage": (("milestone", "chain", "draw"), passage),
                "bands": (("quantity", "quantile", "time"), bands),
            },
            coords={
                "milestone": list(MILESTONES),
                "quantity": list(prediction.BANDS),
                "quantile": list(prediction.QUANTILES),
                "time": TIME,
            },
        )
    parts["/evidence"] = xr.Dataset(
        {"log_marginal_likelihood": (("dynamic", "island"), rng.normal(-9, spread, (len(NAMES), 8)))},
        coords={"dynamic": NAMES},
    )
    return xr.DataTree.from_dict(parts)


def made_run(
    worldview: str = "neutral", as_of: str = "2026-06-30", seed: int = 1, spread: float = 1.0
) -> export.Run:
    manifest = {"as_of": as_of, "worldview": worldview, "seed": seed, "key": f"{seed:x}", "code": "1"}
    return export.Run(made_tree(seed, spread), manifest, EVEN)


@pytest.fixture(scope="module")
def some_archive(archive):
    """A few indicators of the archive, among them a plan, bounds and revised values."""
    rows = archive.observations
    few = {"headcount_plan", *rows.loc[rows["bound"] != "", "indicator_id"].head(3)}
    few |= set(rows.loc[rows.duplicated(list(OBSERVATION)), "indicator_id"].head(1))
    return replace(archive, observations=rows[rows["indicator_id"].isin(few)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory, some_archive):
    """A hub of three runs of two days; tests must not change it."""
    place = tmp_path_factory.mktemp("export") / "hub"
    some = [made_run(), made_run("rapid", seed=2), made_run(as_of="2025-12-31", seed=3)]
    export.publish(place, lambda d: hub.write(d, some, some_archive, ALL, "team", 5), some)
    return place


@pytest.fixture(scope="module")
def small(tmp_path_factory, some_archive):
    """A hub of one run, to spoil copies of."""
    place = tmp_path_factory.mktemp("export") / "hub"
    some = [made_run()]
    export.publish(place, lambda d: hub.write(d, some, some_archive, ALL, "team"), some)
    return place


# Rows -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**20), spread=st.sampled_from([1e-9, 0.1, 3.0, 30.0]))
def test_any_run_gives_a_sound_table(seed, spread):
    table = export.rows(made_run(seed=seed, spread=spread), samples=3)
    kinds = dict(list(table.groupby("output_type")))
    assert set(kinds) == {"pmf", "cdf", "quantile", "sample"}
    assert abs(kinds["pmf"]["value"].sum() - 1) <= 1e-9 and kinds["pmf"]["value"].between(0, 1).all()
    for _, rows in kinds["cdf"].groupby("target"):
        assert rows["target_end_date"].is_monotonic_increasing
        assert rows["value"].is_monotonic_increasing and rows["value"].between(0, 1).all()
    for _, rows in kinds["quantile"].groupby(["target", "target_end_date"], dropna=False):
        assert rows["output_type_id"].astype(float).tolist() == list(export.LEVELS)
        assert rows["value"].is_monotonic_increasing and np.isfinite(rows["value"]).all()


def test_a_date_quantile_is_a_date_of_a_draw_or_stands_for_never():
    run = made_run()
    table = export.rows(run)
    dates = table[(table["target"] == "milestone.m_10") & (table["output_type"] == "quantile")]["value"]
    assert run.never == 2042.0 and dates.max() == run.never
    assert set(dates) <= {*TIME, run.never}, "no average of a date and never"


def test_cdf_and_quantiles_agree():
    run = made_run()
    table = export.rows(run)
    one = table[table["target"] == "milestone.W_2"]
    cdf = one[one["output_type"] == "cdf"].set_index("output_type_id")["value"]
    for level, date in one[one["output_type"] == "quantile"][["output_type_id", "value"]].to_numpy():
        later = f"{int(np.ceil(date))}"
        if later in cdf:
            assert cdf[later] >= float(level) - 1e-9


def test_with_one_dynamic_path_quantiles_are_the_stored_bands():
    run = made_run()
    run = export.Run(run.tree, run.manifest, {"amdahl": 1.0})
    table = export.rows(run)
    bands = run.tree["amdahl/predictions/bands"].sel(quantity="W", time=2030.0).values
    end = table["target_end_date"].astype(str) == "2030-01-01"
    found = table[(table["target"] == "path.W") & end]["value"]
    assert found.to_numpy() == pytest.approx(bands)


def test_horizons_are_days_and_nothing_is_forecast_of_the_past():
    table = export.rows(made_run())
    dated = table.dropna(subset=["target_end_date"])
    assert dated["horizon"].min() == 185
    assert dated[dated["target_end_date"].astype(str) == "2027-01-01"]["horizon"].unique() == [185]


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.01, 1)), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), min_size=1),
)
def test_weighted_quantiles_rise_and_are_values(pairs, levels):
    values, weights = map(np.array, zip(*pairs, strict=True))
    found = export.weighted_quantiles(values, weights, sorted(levels))
    assert (np.diff(found) >= 0).all() and set(found) <= set(values)


def test_samples_are_joint_and_the_same_each_time():
    first, again = (export.rows(made_run(), samples=4) for _ in range(2))
    assert first.equals(again)
    drawn = first[first["output_type"] == "sample"].pivot(
        index="output_type_id", columns="target", values="value"
    )
    assert drawn.shape == (4, 2)
    run = made_run()
    joint = {
        pair
        for n in NAMES
        for pair in zip(*(np.minimum(run.passages(m)[n].ravel(), run.never) for m in MILESTONES), strict=True)
    }
    assert set(drawn[[f"milestone.{m}" for m in MILESTONES]].itertuples(index=False, name=None)) <= joint


# The hub ----------------------------------------------------------------------------------------------


def test_a_hub_has_its_files(sound):
    models = {p.relative_to(sound / "model-output").as_posix() for p in sound.glob("model-output/*/*")}
    assert models == {
        f"team-{w}/{d}-team-{w}.{e}"
        for w, d in (("neutral", "2026-06-30"), ("rapid", "2026-06-30"), ("neutral", "2025-12-31"))
        for e in ("parquet", "csv")
    }
    assert hub.validate(sound) == []
    assert {p.name for p in sound.parent.iterdir()} == {"hub"}, "nothing is left aside"


@pytest.mark.parametrize("name", ["tasks", "admin", "target-data"])
def test_the_config_is_valid_under_the_published_schema(sound, name):
    schema = PUBLISHED / f"{name}-schema.json"
    if not schema.is_file():
        pytest.skip(f"the published schema is not at {PUBLISHED}")
    jsonschema = pytest.importorskip("jsonschema")
    rules = json.loads(schema.read_text(encoding="utf-8"))
    content = json.loads((sound / "hub-config" / f"{name}.json").read_text(encoding="utf-8"))
    check = jsonschema.validators.validator_for(rules)
    assert [e.message for e in check(rules).iter_errors(content)] == []


def test_target_ids_are_short_and_their_own(sound):
    tasks = json.loads((sound / "hub-config" / "tasks.json").read_text(encoding="utf-8"))
    for one in tasks["rounds"]:
        about = [m for group in one["model_tasks"] for m in group["target_metadata"]]
        ids = {m["target_id"]: m["target_keys"]["target"] for m in about}
        assert max(map(len, ids)) <= 30 and len(set(ids.values())) == len(ids)
        assert all(len(m["target_name"]) <= 100 and len(m["target_units"]) <= 100 for m in about)


def test_hubdata_reads_the_hub(sound):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hubdata = pytest.importorskip("hubdata")
        from hubdata.connect_target_data import connect_target_data
        from hubdata.create_target_data_schema import TargetType

    connection = hubdata.connect_hub(sound)
    table = connection.to_table().to_pandas()
    assert set(table["model_id"]) == {"team-neutral", "team-rapid"}
    assert len(table) == sum(
        len(export.read_table(p)) for p in (sound / "model-output").glob("*/*.parquet")
    ), "the CSV files are not read a second time"
    pmf = table[table["output_type"] == "pmf"]
    assert pmf.groupby(["model_id", "origin_date"])["value"].sum().to_numpy() == pytest.approx(1, abs=1e-9)
    for kind, schema in ((TargetType.TIME_SERIES, TIME_SERIES), (TargetType.ORACLE_OUTPUT, ORACLE)):
        target = connect_target_data(sound, kind).to_table()
        assert len(target) and set(target.schema.names) == set(schema.names)


def test_target_data_are_the_archive_and_no_more(sound, some_archive):
    series = export.read_table(sound / "target-data" / "time-series.parquet").to_pandas()
    rows = some_archive.observations
    known = set(
        zip(rows["indicator_id"], rows["entity"], rows["observed_at"].dt.date, rows["value"], strict=True)
    )
    fields = ["indicator", "entity", "target_end_date", "observation"]
    assert set(series[fields].itertuples(index=False, name=None)) <= known
    left_out = rows[(rows["kind"] == "plan") | (rows["bound"] != "")]
    assert len(series) == len(rows) - len(left_out)
    oracle = export.read_table(sound / "target-data" / "oracle-output.parquet").to_pandas()
    assert set(oracle["target"]) <= set(series["target"]), "no milestone or dynamic is called resolved"
    newest = series.sort_values("as_of").groupby(["target", "target_end_date"])["observation"].last()
    found = oracle.set_index(["target", "target_end_date"])["oracle_value"]
    assert found.sort_index().equals(newest.sort_index().rename("oracle_value"))


# Its checks -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def submission(sound):
    """A sound table as the checks see it, and its round."""
    from forecast.submission import _submission

    tasks = json.loads((sound / "hub-config" / "tasks.json").read_text(encoding="utf-8"))
    table, fault = _submission(sound / "model-output" / "team-neutral" / "2026-06-30-team-neutral.parquet")
    assert table is not None and not fault
    return table, tasks["rounds"][1]


def where(table, **fields):
    return np.logical_and.reduce([table[k] == v for k, v in fields.items()])


def swap(table, mask):
    """Exchange the first and last value of some rows."""
    places = table.index[mask]
    values = table["value"].copy()
    values[[places[0], places[-1]]] = values[[places[-1], places[0]]].to_numpy()
    return table.assign(value=values)


def with_value(table, mask, value):
    return table.assign(value=table["value"].mask(mask & (np.cumsum(mask) == 1), value))


TABLES = {
    "pmf of dynamic: sums to": lambda t: with_value(t, where(t, output_type="pmf"), 0.5 + 1e-8),
    "not in 0 to 1": lambda t: with_value(t, where(t, output_type="pmf"), -0.1),
    "not in -inf to 2042": lambda t: with_value(
        t, where(t, output_type="sample", target="milestone.m_10"), 2050.0
    ),
    "falls as the level rises": lambda t: swap(t, where(t, output_type="quantile", target="milestone.m_10")),
    "falls with time": lambda t: swap(t, where(t, output_type="cdf", target="milestone.m_10")),
    "lacks 0.5": lambda t: t[~where(t, target="milestone.m_10", output_type_id="0.5")],
    "lacks amdahl": lambda t: t[~where(t, output_type_id="amdahl")],
    "required pmf of dynamic is missing": lambda t: t[t["output_type"] != "pmf"],
    "required cdf of milestone.m_10 by 2030-01-01 is missing": lambda t: t[
        ~where(t, target="milestone.m_10", target_end_date="2030-01-01")
    ],
    "required quantile of path.W by 2030-01-01": lambda t: t[
        ~where(t, target="path.W", target_end_date="2030-01-01")
    ],
    "stands twice": lambda t: pd.concat([t, t.tail(1)], ignore_index=True),
    "is no task of tasks.json": lambda t: t.assign(target=t["target"].replace("path.W", "path.w")),
    "pmf other of dynamic is no task": lambda t: t.assign(
        output_type_id=t["output_type_id"].replace("amdahl", "other")
    ),
    "origin_date is not the 2026-06-30": lambda t: t.assign(origin_date="2026-06-29"),
    "horizon is not the days": lambda t: t.assign(horizon=t["horizon"].replace(185, 186)),
    "missing or not finite": lambda t: with_value(t, where(t, target="path.W"), np.nan),
    "draws, not as many": lambda t: t[~where(t, output_type="sample", output_type_id="0")],
    "is too long": lambda t: t.assign(
        output_type_id=t["output_type_id"].mask(where(t, output_type="sample", output_type_id="0"), "0000")
    ),
}


def test_a_sound_table_passes(submission):
    table, one = submission
    assert list(check_table(table, one, "2026-06-30")) == []


@pytest.mark.parametrize("says", TABLES)
def test_each_fault_of_a_table_is_found(submission, says):
    table, one = submission
    found = list(check_table(TABLES[says](table).reset_index(drop=True), one, "2026-06-30"))
    assert any(says in line for line in found), found


def first(place: Path) -> Path:
    return place / "model-output" / "team-neutral" / "2026-06-30-team-neutral.parquet"


def rename(to: str):
    return lambda place: first(place).rename(first(place).with_name(to))


def retype(place):
    table = export.read_table(first(place)).to_pandas()
    floats = export.SCHEMA.set(3, pa.field("horizon", pa.float64()))
    export.write_table(table, first(place), floats)


def recolumn(place):
    export.write_table(export.read_table(first(place)).to_pandas().drop(columns="horizon"), first(place))


def edit_csv(place):
    path = first(place).with_suffix(".csv")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def accept_csv(place):
    path = place / "hub-config" / "admin.json"
    path.write_text(path.read_text().replace('"parquet"', '"parquet", "csv"'))


def oracle(change):
    def apply(place):
        path = place / "target-data" / "oracle-output.parquet"
        export.write_table(change(export.read_table(path).to_pandas()), path, ORACLE)

    return apply


FOLDERS = {
    "is not named DATE-team-neutral": rename("2026-06-30-neutral.parquet"),
    "2026-06-29 is no round": rename("2026-06-29-team-neutral.parquet"),
    "csv is not accepted": lambda p: first(p).unlink(),
    "a second accepted file": accept_csv,
    "differs from the other file": edit_csv,
    "column horizon is": retype,
    "columns are": recolumn,
    "cannot be read (": lambda p: first(p).write_bytes(b"no table"),
    "is no folder named TEAM-MODEL": lambda p: first(p).parent.rename(p / "model-output" / "neutral"),
    "has no model-metadata": lambda p: (p / "model-metadata" / "team-neutral.yml").unlink(),
    "holds no submission": lambda p: shutil.rmtree(p / "model-output"),
    "cannot be used": lambda p: (p / "hub-config" / "tasks.json").write_text("{"),
    "time-series.parquet: cannot be read": lambda p: (p / "target-data" / "time-series.parquet").unlink(),
    "oracle-output.parquet: an observation stands twice": oracle(lambda t: pd.concat([t, t.head(1)])),
    "oracle-output.parquet: no task asks for": oracle(lambda t: t.assign(target="milestone.none")),
    "oracle-output.parquet: a value is missing": oracle(lambda t: t.assign(oracle_value=np.nan)),
}


@pytest.mark.parametrize("says", FOLDERS)
def test_each_fault_of_a_hub_is_found(small, tmp_path, says):
    place = shutil.copytree(small, tmp_path / "hub")
    FOLDERS[says](place)
    found = hub.validate(place)
    assert any(says in line for line in found), found


def test_a_round_declared_twice_is_found(small, tmp_path):
    place = shutil.copytree(small, tmp_path / "hub")
    path = place / "hub-config" / "tasks.json"
    tasks = json.loads(path.read_text())
    tasks["rounds"].append(tasks["rounds"][0])
    path.write_text(json.dumps(tasks))
    assert "declared twice" in hub.validate(place)[0]


# Publishing -------------------------------------------------------------------------------------------


def test_a_hub_that_breaks_a_rule_is_not_published(small, tmp_path, some_archive, monkeypatch):
    place = shutil.copytree(small, tmp_path / "hub")
    before = (place / export.MARK).read_bytes()
    sound_rows = export.rows
    monkeypatch.setattr(export, "rows", lambda run, samples=0: sound_rows(run, samples).iloc[1:])
    some = [made_run()]
    with pytest.raises(InputError, match="not published"):
        export.publish(place, lambda d: hub.write(d, some, some_archive, ALL, "team"), some)
    assert (place / export.MARK).read_bytes() == before and hub.validate(place) == []
    assert [p.name for p in tmp_path.iterdir()] == ["hub"]


def test_a_writer_that_is_stopped_leaves_the_earlier_export(tmp_path):
    export.publish(tmp_path / "out", lambda d: (d / "a").touch(), [])

    def stop(folder):
        (folder / "b").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.publish(tmp_path / "out", stop, [])
    assert {p.name for p in tmp_path.rglob("*")} == {"out", "a", export.MARK}


def test_an_earlier_export_is_replaced_and_nothing_else_is(tmp_path):
    export.publish(tmp_path / "out", lambda d: (d / "a").touch(), [])
    export.publish(tmp_path / "out", lambda d: (d / "b").touch(), [])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"b", export.MARK}
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(InputError, match="left alone"):
        export.publish(other, lambda d: None, [])
    assert [p.name for p in other.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("team", ["a-b", "", "a b"])
def test_a_team_that_cannot_be_a_folder_is_refused(team):
    with pytest.raises(InputError, match="--team"):
        hub.model_id(team, "neutral")


def test_runs_that_know_different_things_share_a_round(tmp_path, some_archive):
    less = made_run("rapid", seed=2)
    parts = {
        f"/{n}/predictions": less.tree[f"{n}/predictions"].to_dataset().isel(milestone=[0]) for n in NAMES[1:]
    }
    parts["/evidence"] = less.tree["evidence"].to_dataset().sel(dynamic=NAMES[1:])
    some = [made_run(), export.Run(xr.DataTree.from_dict(parts), less.manifest, EVEN)]
    export.publish(tmp_path / "hub", lambda d: hub.write(d, some, some_archive, ALL, "team"), some)


# Choice and plain files -------------------------------------------------------------------------------


def store_run(store: Path, key: str, worldview: str = "neutral", as_of: str = "2026-06-30", **fields) -> Path:
    manifest = {"status": "done", "seed": 1, "created": f"2026-07-01T00:00:0{key}+00:00"} | fields
    return runs.save(store, as_of, worldview, key, made_tree(), manifest)


def test_the_newest_run_counts_and_failed_ones_never(tmp_path):
    store_run(tmp_path, "1")
    newest = store_run(tmp_path, "2")
    store_run(tmp_path, "3", "rapid")
    store_run(tmp_path, "4", "rapid", status="failed")
    damaged = store_run(tmp_path, "5")
    (damaged / runs.MANIFEST).unlink()
    folders, notes = export.choose(tmp_path, ["neutral", "rapid"])
    assert folders == [newest]
    assert [n.split(": ")[-1] for n in notes] == ["damaged, left out", "failed its gate, left out"]
    with pytest.raises(InputError, match="no stored run of rapid as of 2020-01-01"):
        export.choose(tmp_path, ["rapid"], "2020-01-01")


@pytest.mark.parametrize("ending", ["parquet", "csv", "nc"])
def test_plain_files_bring_everything_back(tmp_path, ending):
    run = made_run()
    export.write_plain([run], ending, 2, tmp_path)
    if ending == "nc":
        with xr.open_datatree(tmp_path / "2026-06-30-neutral.nc", engine="h5netcdf") as tree:
            assert json.loads(tree.attrs["manifest"]) == run.manifest
            assert tree["weights/posterior"].values == pytest.approx(run.weights().posterior)
            assert (
                tree["amdahl/predictions"]
                .to_dataset()
                .load()
                .equals(run.tree["amdahl/predictions"].to_dataset())
            )
        return
    read = pd.read_parquet if ending == "parquet" else pd.read_csv
    table, weights = (read(tmp_path / f"{name}.{ending}") for name in ("forecasts", "weights"))
    assert table["value"].tolist() == export.rows(run, 2)["value"].tolist(), "not a bit is lost"
    assert weights["posterior"].sum() == pytest.approx(1, abs=1e-12)
