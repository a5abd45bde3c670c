"""The command line: what it prints, what it refuses, and how it exits."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
import xarray as xr

from forecast import batch, cli, evidence, model, prediction, reports, runs
from forecast.dynamics import DYNAMICS
from forecast.tables import COLUMNS
from forecast.worldviews import load_worldviews

ROOT = Path(__file__).parents[1]
SCRIPT = Path(sys.executable).with_name("forecast")
NAMES = list(DYNAMICS)
MILESTONES = prediction.load_milestones(ROOT / "data" / "milestones.toml")


@pytest.fixture
def forecast(monkeypatch, capsys):
    """Run a command line as the script does; return exit code, standard output and standard error."""
    monkeypatch.chdir(ROOT)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["forecast", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(forecast):
    """Run a command that must be refused, and return its one line."""

    def run(*words):
        code, out, err = forecast(*words)
        assert code == 2 and out == ""
        (line,) = err.strip().splitlines()
        assert line.startswith("error: ") and "Traceback" not in line
        return line

    return run


def content(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# Help and imports -------------------------------------------------------------------------------------


def paths(group=None, path=()):
    group = typer.main.get_command(cli.app) if group is None else group
    yield path
    for name, command in group.commands.items():
        yield from paths(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_everything_has_help(forecast, path):
    code, out, err = forecast(*path, "--help")
    assert code == 0 and err == ""
    about = out.split("\n\n")[1].strip()
    assert out.startswith(f"Usage: {' '.join(('forecast', *path))}") and about.endswith((".", "?"))


def test_importing_the_command_line_imports_nothing_heavy():
    heavy = ["pymc", "pytensor", "jax", "pandas", "numpy", "scipy", "xarray", "arviz", "pandera", "rich"]
    heavy += ["altair", "vl_convert"]
    code = f"import sys, forecast.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_script_is_this_command_line(tmp_path):
    done = subprocess.run(
        [SCRIPT, "show", "--store", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path}: no stored runs; run `forecast update` first\n"


def test_commands_work_from_another_folder(forecast, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert forecast("priors", "check")[0] == 0


# The archive ------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path) -> Path:
    return Path(shutil.copytree(ROOT / "data", tmp_path / "data"))


def rows_file(path: Path, *changes: dict[str, str]) -> Path:
    """A file of rows like the first stored one of an index, each with changes."""
    with (ROOT / "data" / "observations" / "epoch_eci.csv").open(newline="", encoding="utf-8") as handle:
        stored = next(csv.DictReader(handle))
    stored |= {"lower": "", "upper": "", "interval_level": ""}
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(stored | change for change in changes)
    return path


def test_the_shipped_archive_is_sound(forecast):
    code, out, err = forecast("data", "check")
    assert code == 0 and err == "" and out.endswith("indicators are sound\n")


def test_each_problem_of_an_archive_is_a_line(forecast, data):
    file = data / "observations" / "epoch_eci.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    for n in (1, 2):
        lines[n] = lines[n].replace("-", "/", 1)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, out, err = forecast("data", "check", "--data", data)
    assert code == 2 and out == "" and len(err.splitlines()) == 2
    assert all(line.startswith("error: ") and "epoch_eci.csv" in line for line in err.splitlines())


def test_rows_are_added_once(forecast, data, tmp_path):
    file = rows_file(tmp_path / "new.csv", {"published_at": "2026-11-01", "value": "1"})
    code, out, err = forecast("data", "import", file, "--data", data)
    assert (code, out, err) == (
        0,
        "1 rows added, 0 already there, 0 indicators and 0 models added\n",
        "",
    )
    before = content(data)
    assert forecast("data", "import", file, "--data", data)[1].startswith("0 rows added, 1 already there")
    assert content(data) == before


def test_a_refused_import_changes_nothing(refused, data, tmp_path):
    good = {"published_at": "2026-11-01", "value": "1"}
    file = rows_file(tmp_path / "new.csv", good, good | {"value": "many", "observed_at": "2026-01-01"})
    before = content(data)
    line = refused("data", "import", file, "--data", data)
    assert "new.csv, row 3" in line and "value" in line
    assert content(data) == before


@pytest.mark.parametrize("file", ["none.csv", "."])
def test_an_import_of_no_file_is_refused(refused, data, tmp_path, file):
    before = content(data)
    refused("data", "import", tmp_path / file, "--data", data)
    assert content(data) == before


def test_the_snapshot_says_what_enters_and_why_the_rest_does_not(forecast):
    code, out, err = forecast("data", "snapshot", "--as-of", "2025-12-31")
    assert code == 0 and err == ""
    assert "rows enter the likelihood as of 2025-12-31" in out
    for why in ("audit: doubtful", "context only", "tier small"):
        assert why in out


@pytest.mark.parametrize("command", [("data", "snapshot"), ("update",)], ids=" ".join)
@pytest.mark.parametrize(
    ("day", "says"),
    [("2001-01-01", "nothing was published"), ("2025-02-30", "calendar"), ("yesterday", "calendar")],
)
def test_a_bad_day_is_refused(refused, command, day, says):
    line = refused(*command, "--as-of", day)
    assert says in line and day in line


def test_a_folder_without_an_archive_is_refused(refused, tmp_path):
    for words in (("data", "check"), ("data", "snapshot"), ("update",), ("list", "indicators")):
        assert str(tmp_path.name) in refused(*words, "--data", tmp_path)


# Worldviews and lists ---------------------------------------------------------------------------------


def test_the_shipped_worldviews_are_sound(forecast):
    assert forecast("priors", "check") == (0, "3 worldviews are sound\n", "")


def test_a_bad_worldview_is_refused(refused, tmp_path):
    priors = Path(shutil.copytree(ROOT / "priors", tmp_path / "priors"))
    file = priors / "rapid.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace("[assumptions.tau]", "[assumptions.tua]"), "utf-8"
    )
    for words in (("priors", "check"), ("priors", "show", "rapid"), ("update",)):
        assert "priors/rapid.toml: assumptions.tua" in refused(*words, "--priors", priors)


def test_a_worldview_is_shown_with_what_it_predicts(forecast):
    code, out, err = forecast("priors", "show", "plateau", "--draws", "100")
    assert code == 0 and err == ""
    for title in ("Differs in", "Inherits", "Predicts before any evidence", *NAMES):
        assert title in out


@pytest.mark.parametrize(
    "words",
    [
        ("priors", "show", "rapd"),
        ("update", "--worldview", "rapd"),
        ("update", "--worldview", "neutral", "--odds", "rapd"),
    ],
    ids=" ".join,
)
def test_an_unknown_worldview_is_refused(refused, words):
    line = refused(*words)
    assert "unknown worldview 'rapd'" in line and "did you mean 'rapid'" in line and "neutral" in line


@pytest.mark.parametrize("what", ["dynamics", "indicators", "worldviews", "milestones"])
def test_lists_have_every_name(forecast, what):
    code, out, err = forecast("list", what)
    assert code == 0 and err == ""
    known = {
        "dynamics": NAMES,
        "indicators": ["metr_th50_v11", "epoch_eci"],
        "worldviews": list(load_worldviews(ROOT / "priors")),
        "milestones": list(MILESTONES),
    }[what]
    assert all(name in out for name in known)


# Runs -------------------------------------------------------------------------------------------------


def made_run(failures: dict[str, list[str]] | None = None) -> tuple[xr.DataTree, dict]:
    """A run as `batch` writes it, small: half of all draws reach every milestone in 2029."""
    rng = np.random.default_rng(1)
    failures = {name: [] for name in NAMES} | (failures or {})
    theta = xr.Dataset({"tau": (("chain", "draw"), rng.random((2, 10)))})
    passage = np.full((len(MILESTONES), 2, 10), np.inf)
    passage[..., :5] = 2029.25
    parts = {}
    for name in NAMES:
        parts[f"/{name}/posterior"] = theta.astype("float32")
        likelihood = xr.DataArray(rng.random((2, 10, 3)), dims=("chain", "draw", "row"))
        parts[f"/{name}/log_likelihood"] = likelihood.to_dataset(name="rows")
        parts[f"/{name}/predictions"] = xr.Dataset(
            {"passage": (("milestone", "chain", "draw"), passage)}, coords={"milestone": list(MILESTONES)}
        )
    noise = rng.normal(0, 0.05, (len(NAMES), 8))
    parts["/evidence"] = xr.Dataset(
        {
            "log_marginal_likelihood": (
                ("dynamic", "island"),
                np.arange(len(NAMES))[:, None] / 2 - 9 + noise,
            ),
            "one_shot": (("dynamic", "estimate"), np.ones((len(NAMES), 2))),
        },
        coords={"dynamic": NAMES, "estimate": ["value", "se"]},
    )
    manifest = {
        "status": "failed" if any(failures.values()) else "done",
        "note": "",
        "rows": 3,
        "seconds": 1.5,
        "gate": failures,
        "min_ess": dict.fromkeys(NAMES, 500.0),
    }
    return xr.DataTree.from_dict(parts), manifest


@pytest.fixture
def fits(monkeypatch):
    """Put made-up fits in the place of the sampler's; holds a worldview's name for each one made."""
    made: list[str] = []
    failures: dict[str, list[str]] = {}

    def fit(inputs, worldview, declared, compiled, settings, seed, progress):
        progress(worldview.name, "tempering", 0.5)
        made.append(worldview.name)
        return made_run(failures)

    monkeypatch.setattr(batch, "_fit", fit)
    monkeypatch.setattr(model, "build", lambda *_: None)
    monkeypatch.setattr(batch, "compile_model", lambda _: None)
    return made, failures


RECORD = {
    *("as_of", "worldview", "odds", "rows", "seconds", "note"),
    *("dynamics", "stacking", "bayes_factors", "milestones"),
}
DYNAMIC = {
    *("prior", "log_evidence", "log_evidence_se", "posterior", "posterior_se"),
    *("gate", "min_ess", "reasons"),
}
MILESTONE = {"id", "by", "by_se", "by_dynamic", "never", "never_by_dynamic"}


def test_json_is_all_there_is_on_standard_output(forecast, fits, tmp_path):
    code, out, _ = forecast("update", "--store", tmp_path, "--format", "json")
    records = json.loads(out)
    assert code == 0 and [r["worldview"] for r in records] == ["neutral", "plateau", "rapid"] == fits[0]
    for one in records:
        assert set(one) == RECORD and one["odds"] == one["worldview"]
        assert list(one["dynamics"]) == NAMES
        assert all(set(d) == DYNAMIC and d["gate"] == "pass" for d in one["dynamics"].values())
        assert sum(d["posterior"] for d in one["dynamics"].values()) == pytest.approx(1)
        assert [m["id"] for m in one["milestones"]] == list(MILESTONES)
        for milestone in one["milestones"]:
            assert set(milestone) == MILESTONE and set(milestone["by_dynamic"]) == set(NAMES)
            assert milestone["never"] == pytest.approx(0.5)
            assert milestone["by"]["2029-01-01"] == 0
            assert milestone["by"]["2030-01-01"] == pytest.approx(0.5)
        assert len(one["bayes_factors"]) == 6
        assert set(one["bayes_factors"][0]) == {"a", "b", "log_bayes_factor", "se"}

    assert json.loads(forecast("show", "--store", tmp_path, "--format", "json")[1]) == records


def test_a_stored_run_is_not_fitted_again(forecast, fits, tmp_path):
    words = ("update", "--worldview", "neutral", "--store", tmp_path, "--format", "json")
    first = forecast(*words)[:2]
    before = content(tmp_path)
    assert forecast(*words)[:2] == first and fits[0] == ["neutral"] and content(tmp_path) == before
    forecast(*words, "--seed", "2")
    assert fits[0] == ["neutral", "neutral"], "another seed is another run"


def test_odds_change_the_posterior_and_not_the_run(forecast, fits, tmp_path):
    words = ("update", "--worldview", "neutral", "--store", tmp_path, "--format", "json")
    (own,) = json.loads(forecast(*words)[1])
    before = content(tmp_path)
    (other,) = json.loads(forecast(*words, "--odds", "plateau")[1])
    assert fits[0] == ["neutral"] and content(tmp_path) == before
    assert (other["worldview"], other["odds"]) == ("neutral", "plateau")
    plateau = load_worldviews(ROOT / "priors")["plateau"].odds
    joint = {}
    for name in NAMES:
        mine, theirs = own["dynamics"][name], other["dynamics"][name]
        assert mine["log_evidence"] == theirs["log_evidence"]
        assert theirs["prior"] == plateau[name]
        joint[name] = plateau[name] * np.exp(mine["log_evidence"])
    for name in NAMES:
        expected = joint[name] / sum(joint.values())
        assert other["dynamics"][name]["posterior"] == pytest.approx(expected)
    assert own["bayes_factors"] == other["bayes_factors"]


def test_a_failed_gate_shows_no_number_and_exits_with_1(forecast, fits, tmp_path):
    bad = NAMES[1]
    fits[1][bad] = ["effective sample size 12"]
    words = ("update", "--worldview", "neutral", "--store", tmp_path)
    code, out, _ = forecast(*words, "--format", "json")
    (one,) = json.loads(out)
    assert code == 1
    failed = one["dynamics"].pop(bad)
    assert failed["gate"] == "fail" and failed["reasons"] == fits[1][bad]
    numbers = ("log_evidence", "log_evidence_se", "posterior", "posterior_se")
    assert all(failed[n] is None for n in numbers)
    for other in one["dynamics"].values():
        assert other["gate"] == "pass" and other["log_evidence"] is not None
        assert other["posterior"] is other["posterior_se"] is None, "it depends on the failed one"
    assert all(bad not in (f["a"], f["b"]) for f in one["bayes_factors"]) and len(one["bayes_factors"]) == 3
    for milestone in one["milestones"]:
        assert milestone["by"] is milestone["by_se"] is milestone["never"] is None
        assert set(milestone["by_dynamic"]) == set(NAMES) - {bad}

    code, out, _ = forecast(*words)
    assert code == 1 and "failed: effective sample size 12" in out and fits[0] == ["neutral"]


def test_if_all_fail_there_are_no_milestones(forecast, fits, tmp_path):
    fits[1].update({name: ["acceptance 0.10 at power 1.0000"] for name in NAMES})
    code, out, _ = forecast("update", "--worldview", "neutral", "--store", tmp_path, "--format", "json")
    (one,) = json.loads(out)
    assert code == 1 and one["milestones"] == one["bayes_factors"] == []


def test_tables_name_what_is_asked(forecast, fits, tmp_path):
    code, out, _ = forecast("update", "--worldview", "rapid", "--odds", "plateau", "--store", tmp_path)
    assert code == 0 and "rapid as of 2026-06-30: 3 rows, prior odds of plateau" in out
    assert all(name in out for name in NAMES) and "±" in out
    for milestone in reports.KEY_MILESTONES:
        assert " ".join(MILESTONES[milestone].title.split()[:3]) in out


def test_show_has_the_newest_run_of_each_worldview(forecast, fits, tmp_path):
    tree, manifest = made_run()
    for key, day, seconds in (("aa", "01", 1.0), ("bb", "03", 3.0), ("cc", "02", 2.0)):
        stamp = {"created": f"2026-07-{day}T00:00:00+00:00", "seconds": seconds}
        runs.save(tmp_path, "2026-06-30", "neutral", key, tree, manifest | stamp)
    (one,) = json.loads(forecast("show", "--store", tmp_path, "--format", "json")[1])
    assert one["seconds"] == 3.0


def test_show_without_runs_is_refused(refused, tmp_path):
    assert "no stored runs" in refused("show", "--store", tmp_path / "none")


def test_show_of_a_lost_worldview_is_refused(refused, tmp_path):
    runs.save(tmp_path, "2026-06-30", "lost", "aa", *made_run())
    assert "'lost' is no longer in priors/" in refused("show", "--store", tmp_path)


def test_show_of_a_damaged_run_is_refused(refused, tmp_path):
    folder = runs.save(tmp_path, "2026-06-30", "neutral", "aa", *made_run())
    (folder / "run.nc").write_bytes(b"no")
    assert "damaged" in refused("show", "--store", tmp_path)


def test_a_refused_update_writes_its_one_line_and_nothing_else(forecast):
    assert len(forecast("update", "--worldview", "nobody")[2].splitlines()) == 1


@pytest.mark.parametrize(
    "words", [("nonsense",), ("list", "nonsense"), ("update", "--seed", "-1"), ("update", "--format", "xml")]
)
def test_a_bad_command_line_exits_with_2(forecast, words):
    code, out, err = forecast(*words)
    assert code == 2 and out == "" and "Error: " in err and "Traceback" not in err


def test_weights_at_equal_evidence_are_the_odds():
    odds = np.array([0.4, 0.3, 0.3, 0.0])
    found = evidence.weights(np.full((4, 8), -40.0), odds)
    np.testing.assert_allclose(found.posterior, odds)
    np.testing.assert_allclose(found.posterior_se, 0, atol=1e-12)


@pytest.mark.slow
def test_a_real_update(tmp_path):
    words = ["update", "--worldview", "neutral", "--store", str(tmp_path), "--format", "json"]
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)
    assert set(one) == RECORD and all(d["gate"] == "pass" for d in one["dynamics"].values())
    assert sum(d["posterior"] for d in one["dynamics"].values()) == pytest.approx(1)
    again = subprocess.run([SCRIPT, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert again.stdout == done.stdout


# Export and comparison --------------------------------------------------------------------------------


def stored(store: Path, key: str, failures: dict[str, list[str]] | None = None, **fields) -> Path:
    """A made-up run on disk, with paths."""
    tree, manifest = made_run(failures)
    time = np.arange(2023.0, 2041.5)
    levels = len(prediction.QUANTILES)
    bands = np.tile(np.linspace(0.2, 0.8, levels)[:, None], (len(prediction.BANDS), 1, len(time)))
    for name in NAMES:
        tree[f"{name}/predictions"] = xr.DataTree(
            tree[f"{name}/predictions"]
            .to_dataset()
            .assign(bands=(("quantity", "quantile", "time"), bands))
            .assign_coords(quantity=list(prediction.BANDS), quantile=list(prediction.QUANTILES), time=time)
        )
    return runs.save(store, "2026-06-30", "neutral", key, tree, manifest | {"seed": 1} | fields)


@pytest.mark.parametrize("to", ["hubverse", "netcdf", "parquet", "csv"])
def test_a_stored_run_is_exported(forecast, tmp_path, to):
    stored(tmp_path / "runs", "a")
    words = ("export", "--store", tmp_path / "runs", "--format", to, "-o", tmp_path / "out")
    code, out, err = forecast(*words)
    assert code == 0 and "1 runs" in out and not err
    expected = {
        "hubverse": "hub-config/tasks.json",
        "netcdf": "2026-06-30-neutral.nc",
        "parquet": "forecasts.parquet",
        "csv": "weights.csv",
    }
    assert (tmp_path / "out" / expected[to]).is_file()
    assert {p.name for p in tmp_path.iterdir()} == {"out", "runs"}


def test_a_failed_run_is_not_exported_and_what_was_published_stays(forecast, tmp_path):
    words = ("export", "--store", tmp_path / "runs", "--format", "csv", "-o", tmp_path / "out")
    stored(tmp_path / "runs", "a", created="2026-07-01T00:00:00+00:00")
    assert forecast(*words)[0] == 0
    before = content(tmp_path / "out")
    stored(tmp_path / "runs", "b", {"amdahl": ["effective sample size 12"]})
    code, out, err = forecast(*words)
    assert code == 1 and not out and content(tmp_path / "out") == before
    assert err.splitlines()[0] == "neutral as of 2026-06-30: failed its gate, left out"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--worldview", "neutrl"), "did you mean 'neutral'"),
        (("--as-of", "2020-01-01"), "no stored run"),
        (("--team", "a-b"), "cannot name a team"),
    ],
)
def test_a_bad_export_is_refused(refused, tmp_path, words, says):
    stored(tmp_path / "runs", "a")
    assert says in refused("export", "--store", tmp_path / "runs", "-o", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_two_runs_are_compared(forecast, refused, tmp_path):
    a, b = stored(tmp_path, "a"), stored(tmp_path, "b", code="other")
    code, out, _ = forecast("diff", a, b, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["code"] == {"a": None, "b": "other"} and list(found["weights"]) == NAMES
    code, out, _ = forecast("diff", a, b)
    assert code == 0 and "beyond noise" in out
    assert "damaged" in refused("diff", a, tmp_path / "none")
