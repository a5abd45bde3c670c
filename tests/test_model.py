"""The model room: scores to parameters, prior draws, one likelihood for every way of building it, simulation.

The real model's likelihood is evaluated in plain Python at a few points, never compiled to JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import jax
import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy import special, stats

from forecast import deviation as dev
from forecast import dynamics as dyn
from forecast import free_values
from forecast import indicators as ind
from forecast import model as room
from forecast.compilation import compile_model, in_single_precision
from forecast.paths import SHARED
from forecast.priors import Beta, LogNormal, LogUniform, Normal, Parameter, Prior, Uniform

NAMES = tuple(dyn.DYNAMICS)
EVEN = [1 / len(NAMES)] * len(NAMES)


@pytest.fixture(scope="module")
def rows(selection) -> pd.DataFrame:
    """The first and the last row of every archive id, ordered as in a selection."""
    ids = selection.rows.groupby("indicator_id", sort=False)
    return (
        pd.concat([ids.head(1), ids.tail(1)])
        .sort_index()
        .pipe(lambda r: r[~r.index.duplicated()])
        .reset_index(drop=True)
    )


@pytest.fixture(scope="module")
def declared(rows) -> Callable[..., dict[str, Parameter]]:
    return cache(lambda *names: room.ordered(room.parameters(names, rows)))


class Point(dict[str, np.ndarray]):
    """Values of a model's free variables by name."""


class Evaluated:
    """A model's deterministics and log densities as plain Python functions of its free variables."""

    def __init__(self, model: pm.Model) -> None:
        self.model = model
        with pytensor.config.change_flags(cxx=""):
            free = [rv for rv in model.free_RVs if rv.name != "dynamic"]
            outputs = model.replace_rvs_by_values([model["row_log_likelihood"], model["theta"]])
            outputs += [model.datalogp, model.logp(vars=free)]
            self.function = pytensor.function(
                list(model.value_vars), outputs, mode=Mode("py", "fast_compile"), on_unused_input="ignore"
            )

    def __call__(self, point: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found = self.function(*(np.asarray(point[v.name]) for v in self.model.value_vars))
        return dict(zip(("rows", "theta", "likelihood", "prior"), found, strict=True))

    def set_data(self, values: Mapping[str, np.ndarray]) -> None:
        with self.model, pytensor.config.change_flags(cxx="", mode="FAST_COMPILE"):
            pm.set_data(values)


@pytest.fixture(scope="module")
def evaluated(rows, declared) -> Callable[..., Evaluated]:
    """One of these per set of dynamics."""
    return cache(lambda *names: Evaluated(room.build(names, rows, declared(*names), EVEN[: len(names)])))


def as_point(x: np.ndarray, label: int, names: dict[str, Parameter]) -> Point:
    """Split a flat vector of `prior_draws` into the model's free variables."""
    scored = sum(not room.is_centred(n) for n in names)
    knots = sum(n.startswith("deviation_2") for n in names)
    z, published, place = np.split(x, [scored, scored + knots])
    return Point(z=z, published=published, place=place, dynamic=np.asarray(label))


# Scores to parameters -------------------------------------------------------------------------------


def by_hand(declared: Mapping[str, Parameter], scores: np.ndarray) -> dict[str, np.ndarray]:
    """Each prior's own quantile at its score, the cap of pK applied as the design says: U(a, min(b, 1 - pL))."""
    q = special.ndtr(scores)
    theta = {n: p.prior.quantile(q[..., i]) for i, (n, p) in enumerate(declared.items())}
    i = list(declared).index("pK")
    a, b = declared["pK"].prior.a, declared["pK"].prior.b
    theta["pK"] = a + q[..., i] * (np.minimum(b, 1 - theta["pL"]) - a)
    return theta


@pytest.fixture(scope="module")
def scored(declared) -> dict[str, Parameter]:
    return {n: p for n, p in declared(*NAMES).items() if not room.is_centred(n)}


@pytest.mark.parametrize(
    "change", [{}, {"pK": Uniform(0.4, 1.0)}, {"pK": Uniform(0.0, 0.4), "pL": LogUniform(0.25, 0.6)}]
)
def test_natural_gives_the_quantiles_of_the_priors(scored, change):
    names = room.with_priors(scored, change)
    scores = np.random.default_rng(0).normal(size=(200, len(names)))
    found = room.natural(scores, names, room.hyper_parameters(names))
    expected = by_hand(names, scores)
    assert list(found) == list(names)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=name)
    assert (found["pL"] + found["pK"] <= 1 + 1e-12).all()


def test_natural_is_the_same_on_pytensor(scored):
    scores = np.random.default_rng(1).normal(size=len(scored))
    hyper = room.hyper_parameters(scored)
    z = pt.vector("z", shape=(len(scored),))
    graph = room.natural(z, scored, {f: pt.as_tensor(t) for f, t in hyper.items()})
    with pytensor.config.change_flags(cxx=""):
        found = pytensor.function([z], list(graph.values()), mode=Mode("py", "fast_compile"))(scores)
    np.testing.assert_allclose(found, list(room.natural(scores, scored, hyper).values()), rtol=1e-12)
    assert list(graph) == list(scored)


def test_ordered_keeps_each_family_in_one_block_and_centred_ones_last(declared):
    names = declared(*NAMES)
    centred = [room.is_centred(n) for n in names]
    assert centred == sorted(centred)
    families = [p.prior.family for n, p in names.items() if not room.is_centred(n)]
    assert len([f for i, f in enumerate(families) if i == 0 or families[i - 1] != f]) == len(set(families))
    assert list(names).index("pL") < list(names).index("pK")


def test_parameters_name_own_ones_of_each_dynamic(declared):
    names = declared(*NAMES)
    own = {f"{d}.{n}" for d, one in dyn.DYNAMICS.items() for n in one.parameters}
    assert own <= set(names)
    assert set(SHARED) <= set(names)
    assert not {n for n in declared("amdahl") if n.startswith(("explosive.", "decaying.", "expanding_pie."))}
    assert {n for n in names if n.endswith(".place")} == {
        f"{i}.place" for i in (*ind.MESSY, *ind.ENGINEERING, *ind.EXPERIMENTS)
    }


def test_indicators_without_rows_bring_no_parameters(rows):
    few = rows[rows["indicator"].isin(["time_horizon", "ladder"])]
    few = few[few["indicator_id"] != "gso_opt1"]
    names = room.parameters(["amdahl"], few)
    assert "h0" in names and "swe_pro.slope" in names
    assert not {"c0", "kappa", "gso_opt1.slope", "apex_agents.slope"} & set(names)


# Prior draws ----------------------------------------------------------------------------------------

DRAWS = 8000


@pytest.fixture(scope="module")
def drawn(rows, declared) -> tuple[np.ndarray, np.ndarray]:
    return free_values.prior_draws(NAMES, declared(*NAMES), rows, 11, DRAWS)


def test_labels_of_prior_draws_cycle(drawn):
    np.testing.assert_array_equal(drawn[1], np.arange(DRAWS) % 4)


def test_same_seed_same_prior_draws(rows, declared, drawn):
    x, _ = free_values.prior_draws(NAMES, declared(*NAMES), rows, 11, DRAWS)
    np.testing.assert_array_equal(x, drawn[0])
    y, _ = free_values.prior_draws(NAMES, declared(*NAMES), rows, 12, DRAWS)
    assert not np.array_equal(y, x)


def test_scores_of_prior_draws_are_standard_normal(drawn, scored):
    z = drawn[0][:, : len(scored)]
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(DRAWS)
    assert np.abs(z.var(0) - 1).max() < 4.5 * np.sqrt(2 / DRAWS)
    correlation = np.corrcoef(z.T) - np.eye(len(scored))
    assert np.abs(correlation).max() < 5.5 / np.sqrt(DRAWS)
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01


def test_published_capability_of_prior_draws_scatters_around_that_of_public_models(
    rows, declared, drawn, scored
):
    x, label = drawn
    names = declared(*NAMES)
    theta = room.natural(x[:, : len(scored)], scored, room.hyper_parameters(scored))
    knots = dev.knots(rows["time"].max())
    for k, name in enumerate(NAMES):
        own = {n: v[label == k] for n, v in theta.items()}
        path = dyn.DYNAMICS[name](room.fit_grid(rows), room.own_view(own, name))
        public = path.e - own["release_gap"][:, None] * np.gradient(path.e, path.time, axis=-1)
        centre = np.array([np.interp(knots, path.time, e) for e in public])
        points = [as_point(one, k, names) for one in x[label == k]]
        sd = own["deviation_sd"][:, None]
        away = np.array([p["published"] for p in points]) - centre
        scaled = away * dev.unit(sd, dev.centring(rows)[1]) / sd
        covariance = np.exp(-np.abs(knots[:, None] - knots))
        assert np.abs(scaled.mean(0)).max() < 4.5 / np.sqrt(len(points))
        np.testing.assert_allclose(np.cov(scaled.T), covariance, atol=5 * np.sqrt(2 / len(points)))
        places = np.array([p["place"] for p in points])
        first = ind.rung_places(path.d50, own["g2"], own["g3"], own["g4"])[0]
        ids = [n.removesuffix(".place") for n in names if n.endswith(".place")]
        for i, column in zip(ids, places.T, strict=True):
            if i in ind.MESSY:
                centred = (column - path.d50) / ind.MESSY_SD
            else:
                rung = own["g2"] if i in ind.EXPERIMENTS else 0.0
                centred = (column - (first + rung - own["mu_D"])) / ind.BENCHMARK_SD
            assert stats.kstest(centred, "norm").pvalue > 1e-4, (name, i)


def test_prior_density_of_the_model_is_that_of_the_draws(rows, evaluated, declared, drawn, scored):
    names = declared(*NAMES)
    for draw in range(4):
        x, label = drawn[0][draw], int(drawn[1][draw])
        point = as_point(x, label, names)
        theta = dict(zip(names, evaluated(*NAMES)(point)["theta"], strict=True))
        unit = [theta[n] for n in names if room.is_centred(n)]
        log_density = stats.norm.logpdf(np.concatenate([point["z"], unit])).sum()
        knots, places = (
            len(point["published"]),
            [n.removesuffix(".place") for n in names if n.endswith(".place")],
        )
        step = np.sqrt(1 - np.exp(-2 * dev.STEP / dev.TIME))
        sd = theta["deviation_sd"] / dev.unit(theta["deviation_sd"], dev.centring(rows)[1])
        log_density -= np.log(sd).sum() + (knots - 1) * np.log(step)
        log_density -= sum(np.log(ind.MESSY_SD if i in ind.MESSY else ind.BENCHMARK_SD) for i in places)
        assert evaluated(*NAMES)(point)["prior"] == pytest.approx(log_density, abs=1e-8)


@pytest.mark.parametrize("k", range(4))
def test_coordinates_of_the_deviation_change_neither_rows_nor_parameters(rows, declared, evaluated, k):
    """And the density only by the logarithm of the change of units, one for each knot."""
    names, knots = declared(*NAMES), len(dev.knots(rows["time"].max()))
    half = np.arange(knots) < knots // 2
    ways = {
        "nats": np.ones((2, knots)),
        "sds": np.stack([np.ones(knots), np.zeros(knots)]),
        "alone": np.zeros((2, knots)),
        "both": np.stack([half, half]).astype(float),
    }
    x = {way: free_values.prior_draws(NAMES, names, rows, 5, 8, c)[0][[k]] for way, c in ways.items()}
    model, found = evaluated(*NAMES), {}
    for way, c in ways.items():
        model.set_data({"centring": c})
        found[way] = model(as_point(x[way][0], k, names))
    model.set_data({"centring": dev.centring(rows)})
    sd = found["nats"]["theta"][list(names).index("deviation_sd")]
    for old in ways:
        np.testing.assert_allclose(found[old]["theta"], found["nats"]["theta"], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found[old]["rows"], found["nats"]["rows"], rtol=1e-8, atol=1e-8)
        for new, centring in ways.items():
            moved = free_values.recentred(NAMES[k], x[old], names, rows, ways[old], centring)
            np.testing.assert_allclose(moved, x[new], rtol=1e-7, atol=1e-7)
        change = found[old]["prior"] - found["nats"]["prior"]
        units = [np.log(dev.unit(sd, ways[way][1])).sum() for way in (old, "nats")]
        assert change == pytest.approx(units[0] - units[1], abs=1e-7)


# One likelihood however it is built -----------------------------------------------------------------


def restricted(point: Point, joint: dict[str, Parameter], single: dict[str, Parameter]) -> Point:
    """The joint model's point as one of a single dynamic's model."""
    scores = dict(zip([n for n in joint if not room.is_centred(n)], point["z"], strict=True))
    z = np.array([scores[n] for n in single if not room.is_centred(n)])
    return Point(z=z, published=point["published"], place=point["place"])


@pytest.mark.parametrize("name", NAMES)
def test_joint_model_at_a_label_is_the_model_of_that_dynamic(name, evaluated, declared, drawn):
    joint, single = declared(*NAMES), declared(name)
    k = NAMES.index(name)
    for x in drawn[0][drawn[1] == k][:3]:
        point = as_point(x, k, joint)
        both = evaluated(*NAMES)(point), evaluated(name)(restricted(point, joint, single))
        assert np.isfinite(both[0]["rows"]).all()
        np.testing.assert_allclose(both[0]["rows"], both[1]["rows"], rtol=1e-9, atol=1e-9)
        theta = dict(zip(joint, both[0]["theta"], strict=True))
        np.testing.assert_allclose([theta[n] for n in single], both[1]["theta"], rtol=1e-9, atol=1e-9)


def test_label_matters(evaluated, declared, drawn):
    joint = declared(*NAMES)
    found = [evaluated(*NAMES)(as_point(drawn[0][0], k, joint))["likelihood"] for k in range(4)]
    assert len(set(np.round(found, 6))) == 4


def test_theta_is_the_parameters_of_the_scores(evaluated, declared, drawn, scored):
    joint = declared(*NAMES)
    point = as_point(drawn[0][5], 1, joint)
    theta = dict(zip(joint, evaluated(*NAMES)(point)["theta"], strict=True))
    expected = room.natural(point["z"], scored, room.hyper_parameters(scored))
    np.testing.assert_allclose([theta[n] for n in scored], list(expected.values()), rtol=1e-9)


def absolute(
    name: str, rows: pd.DataFrame, theta: dict[str, float]
) -> tuple[Any, dict[str, float], np.ndarray]:
    """Path, parameters with places in nats, and the deviation at the knots, all by hand."""
    path = dyn.DYNAMICS[name](room.fit_grid(rows), room.own_view(theta, name))
    first = ind.rung_places(path.d50, theta["g2"], theta["g3"], theta["g4"])[0] - theta["mu_D"]
    moved = dict(theta)
    for n in [n for n in theta if n.endswith(".place")]:
        i = n.removesuffix(".place")
        if i in ind.MESSY:
            moved[n] = path.d50 + ind.MESSY_SD * theta[n]
        else:
            moved[n] = first + theta["g2"] * (i in ind.EXPERIMENTS) + ind.BENCHMARK_SD * theta[n]
    knots = dev.knots(rows["time"].max())
    scores = np.array([theta[f"deviation_{k:.1f}"] for k in knots])
    return path, moved, theta["deviation_sd"] * (dev.factor(len(knots)) @ scores)


@pytest.fixture(scope="module")
def known(declared, evaluated, drawn) -> dict[str, float]:
    """Parameters of `expanding_pie` at one prior draw, places and deviations as scores."""
    joint = declared(*NAMES)
    point = as_point(drawn[0][3], 3, joint)
    single = restricted(point, joint, declared("expanding_pie"))
    return dict(zip(declared("expanding_pie"), evaluated("expanding_pie")(single)["theta"], strict=True))


def test_rows_of_the_model_are_the_laws_on_the_numpy_path(rows, declared, evaluated, drawn, known):
    """The graph's likelihood against the same laws on the NumPy path, parameters taken from ``theta``."""
    joint = declared(*NAMES)
    single = restricted(as_point(drawn[0][3], 3, joint), joint, declared("expanding_pie"))
    path, theta, deviation = absolute("expanding_pie", rows, known)
    pairs = room.laws(rows, path, theta, deviation)
    found = np.concatenate([law.logp(y, y.at) for law, y in pairs])
    np.testing.assert_allclose(evaluated("expanding_pie")(single)["rows"], found, rtol=1e-8, atol=1e-8)


def test_rows_of_the_likelihood_stand_in_the_order_of_the_rows(selection):
    order = list(dict.fromkeys(selection.rows["indicator"]))
    public = [ind.INDICATORS[n].flagship_rows for n in order]
    assert public == sorted(public, reverse=True)


def test_places_in_years_before_the_grid_read_its_straight_end(rows):
    grid = np.array([2023.0, 2023.25, 2023.5])
    at = np.array([2022.9, 2023.0, 2023.1, 2023.5, 2023.6])
    np.testing.assert_allclose(room._between(grid, at) @ (3 * grid), 3 * at)


# Weights and priors are inputs ----------------------------------------------------------------------


@pytest.fixture
def amdahl(evaluated) -> Iterator[Evaluated]:
    """The model of one dynamic, its data restored afterwards."""
    one = evaluated("amdahl")
    before = {v.name: v.get_value() for v in one.model.data_vars}
    yield one
    one.set_data(before)


@pytest.fixture(scope="module")
def point(declared, drawn) -> Point:
    """A prior draw of `amdahl`."""
    joint = declared(*NAMES)
    return restricted(as_point(drawn[0][2], 2, joint), joint, declared("amdahl"))


def test_weight_zero_removes_a_row(amdahl, point, rows):
    full = amdahl(point)
    assert full["likelihood"] == pytest.approx(full["rows"].sum())
    for i in (0, 7, len(rows) - 1):
        weight = np.ones(len(rows))
        weight[i] = 0.0
        amdahl.set_data({"weight": weight})
        less = amdahl(point)
        np.testing.assert_array_equal(less["rows"], full["rows"])
        assert less["likelihood"] == pytest.approx(full["likelihood"] - full["rows"][i], abs=1e-9)
        assert less["prior"] == pytest.approx(full["prior"])


def test_errors_of_scores_are_data_where_asked_for(amdahl, point, rows, declared):
    """With those that rows imply nothing changes; another one changes its row alone, as the law says."""
    se = ind.prepared(rows).se_low
    free = Evaluated(room.build(["amdahl"], rows, declared("amdahl"), [1.0], score_se=se))
    expected = amdahl(point)["rows"]
    np.testing.assert_allclose(free(point)["rows"], expected, rtol=1e-12)
    scored = rows["indicator"].isin(["ladder", "messy_tasks"]).to_numpy()
    i, other = np.flatnonzero(scored)[3], np.flatnonzero(~scored)[0]
    free.set_data({"score_se": np.where(np.isin(np.arange(len(rows)), [i, other]), 2.0, se)})
    changed = free(point)["rows"]
    assert np.flatnonzero(np.abs(changed - expected) > 1e-9).tolist() == [i]


def test_changed_priors_are_changed_data(amdahl, point, declared):
    before = declared("amdahl")
    changes: dict[str, Prior] = {
        "f26": Beta(9.0, 11.0), "pL": LogUniform(0.25, 0.6), "gL": Normal(0.3, 0.05), "amdahl.phi": Beta(4.0, 10.0),
        "release_gap": LogNormal(0.5, 0.2),
    }  # fmt: skip
    after = room.with_priors(before, changes)
    assert list(after) == list(before)
    old = amdahl(point)
    amdahl.set_data(room.data_values(after))
    new = amdahl(point)
    scored = {n: p for n, p in after.items() if not room.is_centred(n)}
    theta = dict(zip(after, new["theta"], strict=True))
    expected = by_hand(scored, point["z"])
    np.testing.assert_allclose([theta[n] for n in scored], [expected[n] for n in scored], rtol=1e-6)
    moved = {n for n, a, b in zip(before, old["theta"], new["theta"], strict=True) if a != b and n in scored}
    assert moved == {*changes, "pK"}
    assert abs(new["likelihood"] - old["likelihood"]) > 0.1


# Simulated rows -------------------------------------------------------------------------------------

SIZE = 1500


@pytest.fixture(scope="module")
def simulated(rows, known) -> np.ndarray:
    """Draws from the laws on a path integrated here, (draw, row)."""
    pairs = room.laws(rows, *absolute("expanding_pie", rows, known))
    rng = np.random.default_rng(5)
    return np.array([np.concatenate([law.draw(rng, y) for law, y in pairs]) for _ in range(SIZE)])


def expected_means(rows: pd.DataFrame, known: dict[str, float]) -> dict[str, np.ndarray]:
    """Mean of each simple indicator's rows, written out from the design."""
    path, theta, deviation = absolute("expanding_pie", rows, known)
    t = {
        name: rows.loc[rows["indicator"] == name, "time"].to_numpy()
        for name in dict.fromkeys(rows["indicator"])
    }
    of = {name: rows[rows["indicator"] == name] for name in t}

    def at(field: str, name: str) -> np.ndarray:
        return np.interp(t[name], path.time, getattr(path, field))

    def capability(name: str) -> np.ndarray:
        slope = np.gradient(path.e, path.time)
        late = theta["release_gap"] * np.interp(t[name], path.time, slope)
        return at("e", name) - late + np.interp(t[name], dev.knots(rows["time"].max()), deviation)

    def shortfall(name: str) -> np.ndarray:
        leads = of[name]["developer"].isin(["OpenAI", "Anthropic", "Google"])
        return np.where(leads, theta["shortfall"], theta["shortfall_followers"])

    def tilt(name: str, sd: float) -> np.ndarray:
        """Mean of the skew-normal above its location: voluntary reports only."""
        voluntary = of[name]["disclosure"].isin(["voluntary_company", "self_report"]) & of[name]["kind"].eq(
            "company"
        )
        lab = of[name]["company"].isin(["Anthropic", "OpenAI"])
        shape = voluntary * np.where(lab, theta["disclosure_lab"], theta["disclosure_tech"])
        return sd * shape / np.sqrt(1 + shape**2) * np.sqrt(2 / np.pi)

    eci, ladder, years = "capability_index", "ladder", t["headcount"] - 2025.0
    steep = np.array([theta[f"{i}.slope"] for i in of[ladder]["indicator_id"]])
    place = np.array([theta[f"{i}.place"] for i in of[ladder]["indicator_id"]])
    offset = of["code_share"]["company"].map(
        {c: theta[f"code_{c.lower()}"] for c in ("Anthropic", "Google", "Microsoft")}
    )
    return {
        eci: theta["c0"] + theta["c1"] * (capability(eci) - shortfall(eci)) + theta["J"] * of[eci]["reasoning"].eq("yes"),
        ladder: steep * (capability(ladder) - place - shortfall(ladder)),
        "code_share": at("logit_F", "code_share") + offset + tilt("code_share", 0.4),
        "code_output": theta["kappa"] * (at("log_m", "code_output") - path.log_m[0]) + theta["code_level"]
        + tilt("code_output", 0.35),
        "overall_pace": at("log_W", "overall_pace") + tilt("overall_pace", 0.2),
        "headcount": theta["staff_openai"] + theta["gL"] * years,
        "internal_gap": np.log(theta["release_gap"]) + tilt("internal_gap", 0.5),
        "software_growth": (
            np.log(at("ds", "software_growth") / path.ds[0]) - at("log_P", "software_growth") + path.log_P[0]
        ) / 2.75,
        "dropin_researcher": of["dropin_researcher"]["n"] * stats.norm.cdf(
            at("eD", "dropin_researcher") - ind.rung_places(path.d50, theta["g2"], theta["g3"], theta["g4"])[2]
            + theta["camp"]
        ),
    }  # fmt: skip


def test_draws_of_the_laws_have_the_means_of_the_design(rows, known, simulated):
    for name, mean in expected_means(rows, known).items():
        mine = simulated[:, (rows["indicator"] == name).to_numpy()]
        # The floor serves a count whose expected value is less than one in all draws.
        error = mine.std(0) / np.sqrt(SIZE) + 1 / SIZE
        assert (np.abs(mine.mean(0) - mean) < 4.5 * error).all(), name


def test_simulated_rows_are_draws_of_those_laws(rows, known, simulated):
    found = np.array([np.concatenate(room.simulate_rows("expanding_pie", rows, known, s)) for s in range(30)])
    assert found.shape == (30, len(rows))
    assert np.isfinite(found).all()
    rank = (simulated[:, None] < found).mean(0)
    # Thirty seeds a row and a hundred rows: uniform if, and only if, path and parameters are the same.
    assert stats.kstest(rank[:, simulated.std(0) > 0.1].ravel(), "uniform").pvalue > 0.01
    away = np.abs(found.mean(0) - simulated.mean(0)) / (simulated.std(0) / np.sqrt(30) + 1 / SIZE)
    assert away.max() < 5


def test_same_seed_same_simulation(rows, known):
    first, again, other = (
        np.concatenate(room.simulate_rows("expanding_pie", rows, known, s)) for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_moves_in_single_precision_see_the_same_density(selection):
    """A move settles where its own density is highest: 32 bits must neither overflow nor mislead."""
    rows, names = selection.rows, ["expanding_pie"]
    declared = room.ordered(room.parameters(names, rows))
    compiled = compile_model(room.build(names, rows, declared, [1.0]))
    x, label = free_values.prior_draws(names, declared, rows, 1, 512)

    def density(x, label, data):
        one = jax.value_and_grad(lambda x, k: sum(d[0] for d in compiled.density(x[None], k[None], data)))
        return jax.vmap(one)(x, label)

    wide = jax.jit(density)(x, label, compiled.data)[0]
    value, slope = in_single_precision(jax.jit(density), x, label, compiled.data)
    assert value.dtype == np.float32 and np.isfinite(slope).all()
    # Of 332 terms rounded to 6e-8 each; a prior draw may be where the rows are impossible, down to -1e5.
    error = np.abs(value - wide) / np.abs(wide)
    assert np.quantile(error, 0.98) < 2e-6 and error.max() < 2e-5
