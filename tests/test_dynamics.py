"""The dynamics against their own equations: identities, bounds, closed forms, step size, both backends."""

from __future__ import annotations

import inspect
import typing

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from forecast import paths
from forecast.dynamics import DYNAMICS
from forecast.paths import SHARED, Path, Restriction, integrate, make_grid
from forecast.priors import Parameter, from_score

FIELDS = [f for f in Path._fields if f not in ("time", "d50")]


def prior_draws(name: str, draws: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Prior draws of a dynamic's parameters, (draw,)."""
    rng = np.random.default_rng(seed)
    theta: dict[str, np.ndarray] = {}
    for key, parameter in (SHARED | DYNAMICS[name].parameters).items():
        prior = parameter.prior
        x = from_score(prior.family, rng.standard_normal(draws), prior.hyper)
        if parameter.cap is not None:
            x = prior.a + (x - prior.a) / (prior.b - prior.a) * (parameter.cap(theta) - prior.a)
        theta[key] = x
    return theta


def shared(theta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: theta[key] for key in SHARED}


# Registry ---------------------------------------------------------------------------------------------


def test_the_four_dynamics_are_registered():
    assert set(DYNAMICS) == {"explosive", "decaying", "amdahl", "expanding_pie"}


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_dynamic_says_what_it_is_and_where_its_priors_come_from(name):
    one = DYNAMICS[name]
    assert one.summary.endswith(".") and len(one.summary) > 40
    assert one.parameters, "a dynamic has parameters of its own"
    assert any(p.role == "core" for p in one.parameters.values())
    assert not set(one.parameters) & set(SHARED)
    for key, parameter in (SHARED | one.parameters).items():
        assert isinstance(parameter, Parameter), key
        assert parameter.meaning and parameter.unit and parameter.source and parameter.informed, key


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_argument_of_a_dynamic_is_an_annotated_keyword(name):
    function = DYNAMICS[name].restrict
    arguments = inspect.signature(function).parameters
    assert all(a.kind is inspect.Parameter.KEYWORD_ONLY for a in arguments.values())
    assert set(arguments) == set(DYNAMICS[name].parameters)
    assert typing.get_type_hints(function)["return"] is Restriction


@pytest.mark.parametrize("name", DYNAMICS)
def test_scalars_and_arrays_of_draws_give_finite_paths_of_the_right_shape(name):
    grid = make_grid()
    theta = prior_draws(name, 6)
    many = DYNAMICS[name](grid, theta)
    one = DYNAMICS[name](grid, {key: float(x[2]) for key, x in theta.items()})
    square = DYNAMICS[name](grid, {key: x.reshape(2, 3) for key, x in theta.items()})
    for field in FIELDS:
        values = np.broadcast_to(getattr(many, field), (6, grid.size))
        assert np.isfinite(values).all(), field
        np.testing.assert_allclose(
            np.broadcast_to(getattr(one, field), grid.shape), values[2], rtol=1e-13, atol=1e-13
        )
        np.testing.assert_array_equal(getattr(square, field).reshape(6, -1), values)
    assert one.d50.shape == () and many.d50.shape == (6,)


def test_the_grid_reaches_its_end():
    assert make_grid()[[0, -1]].tolist() == [2023.0, 2041.0] and make_grid().size == 73
    assert make_grid(2026.6)[-1] == 2026.75
    assert make_grid(2024.0, 12).size == 13


# Identities and bounds --------------------------------------------------------------------------------


def test_amdahl_and_an_expanding_pie_without_gain_are_the_same_world():
    theta = prior_draws("amdahl", 500, seed=1)
    phi = theta["phi"]
    # Where nearly all that can be automated is, the cap on f26 acts on both alike.
    common = shared(theta)
    floor = integrate(make_grid(), Restriction(theta["r"], theta["room"], phi=phi), **common)
    turned = common | {"v": theta["v"] * (1 - phi), "f26": theta["f26"] / (1 - phi)}
    pie = integrate(make_grid(), Restriction(theta["r"], theta["room"], phi=0.0, h=phi, gamma=0.0), **turned)
    for field in ("log_H", "H", "log_m", "s", "log_W", "eD"):
        np.testing.assert_allclose(
            getattr(pie, field), getattr(floor, field), rtol=1e-12, atol=1e-12, err_msg=field
        )
    # Only the frozen basket tells them apart.
    assert np.abs(pie.F - floor.F).max() > 0.1


@pytest.mark.parametrize("name", DYNAMICS)
def test_multipliers_shares_and_software_stay_in_their_bounds(name):
    theta = prior_draws(name, 2000, seed=2)
    path = DYNAMICS[name](make_grid(), theta)
    for field in ("log_m", "log_P", "log_W"):
        assert getattr(path, field).min() >= -1e-12, field
    assert (1 - path.H <= path.F + 1e-12).all()
    assert path.H.min() > 0 and path.H.max() <= 1 and path.F.min() >= 0 and path.F.max() < 1
    assert (path.s <= (3 * theta["g0"] + theta["room"])[:, None] * (1 + 1e-12)).all()
    assert (np.diff(path.s) >= 0).all() and (np.diff(path.eD) > 0).all()


def stress_draws(draws: int, seed: int) -> tuple[dict[str, np.ndarray], Restriction]:
    """Draws far outside every prior, many at the edge of what is defined."""
    rng = np.random.default_rng(seed)

    def flat(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, draws)

    def log(low: float, high: float) -> np.ndarray:
        return np.exp(flat(np.log(low), np.log(high)))

    def share(edge: float) -> np.ndarray:
        near = log(edge, 0.1)
        return np.select(
            [rng.random(draws) < p for p in (1 / 3, 1 / 2)], [near, 1 - near], flat(edge, 1 - edge)
        )

    theta = {
        "g0": log(0.01, 50), "pL": log(0.001, 5), "pK": flat(0, 1), "v": log(0.01, 20), "f26": share(1e-9),
        "sigma": share(1e-6), "ln_qr": 10 * rng.standard_normal(draws), "chi": log(0.01, 10),
        "tau": log(1e-6, 10), "gK1": flat(0.1, 3), "ts": flat(2023, 2045), "gK2": log(1e-3, 2),
        "gL": flat(0, 1.5),
    }  # fmt: skip
    some = rng.integers(0, 2, draws)
    gamma = log(1e-3, 10) * some
    return theta, Restriction(log(0.05, 50), log(0.1, 100), share(1e-6), share(1e-6) * some, gamma)


@pytest.mark.parametrize("per_year", [4, 12])
def test_extreme_draws_stay_finite_and_in_bounds(per_year):
    theta, restriction = stress_draws(10_000 if per_year == 4 else 2000, seed=per_year)
    path = integrate(make_grid(per_year=per_year), restriction, **theta)
    for field in Path._fields:
        assert np.isfinite(getattr(path, field)).all(), field
    # ln m divides a sum of rounded logarithms by 1 - sigma, here down to 1e-6.
    for field in ("log_m", "log_P", "log_W"):
        assert getattr(path, field).min() >= -1e-8, field
    assert (path.s <= (3 * theta["g0"] + restriction.room)[:, None] * (1 + 1e-12)).all()
    assert (1 - path.H <= path.F + 1e-9).all()


def test_the_corner_named_in_the_design_stays_finite():
    theta = {key: float(x[0]) for key, x in prior_draws("explosive", 1).items()}
    path = integrate(
        make_grid(), Restriction(50.0, 37.0, phi=1e-3), **shared(theta) | {"pL": 5.0, "g0": 50.0}
    )
    assert all(np.isfinite(getattr(path, field)).all() for field in FIELDS)
    assert path.s.max() <= 150.0 + 37.0


# Closed forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phi", "h"), [(0.001, 0.0), (0.2, 0.0), (0.001, 0.4), (0.3, 0.25)])
def test_shares_solve_their_differential_equations(phi, h):
    # dH/de = -v (1-H)(H-phi) + omega (1-H)^2 with h = omega/(v+omega); dF/de = v F (1-phi-F).
    theta = {key: float(np.median(x)) for key, x in prior_draws("amdahl", 200).items()} | {"ln_qr": -3.0}
    path = integrate(make_grid(), Restriction(1.0, 20.0, phi=phi, h=h), **shared(theta))
    v, order = theta["v"], np.argsort(path.eD)
    omega = v * h / (1 - h)

    def slope(e: float, y: np.ndarray) -> list[float]:
        H, F = y
        return [-v * (1 - H) * (H - phi) + omega * (1 - H) ** 2, v * F * (1 - phi - F)]

    deployed = path.eD[order]
    solution = solve_ivp(
        slope,
        deployed[[0, -1]],
        [path.H[order][0], path.F[order][0]],
        t_eval=deployed,
        rtol=1e-10,
        atol=1e-12,
    )
    np.testing.assert_allclose(path.H[order], solution.y[0], rtol=0, atol=1e-7)
    np.testing.assert_allclose(path.F[order], solution.y[1], rtol=0, atol=1e-7)


def test_software_solves_its_differential_equation_without_feedback():
    # ds/dt = g0 e^(at) x^p has x^(1-p) = 1 + (p-1) g0/s_max (e^(at)-1)/a.
    g0, pK, gK1, pL, chi, r, room = 2.0, 0.3, 1.2, 0.5, 0.7, 0.8, 6.0
    quiet = {"ln_qr": -60.0, "pL": pL, "pK": pK, "gK1": gK1, "gL": 0.0, "g0": g0, "chi": chi, "ts": 2040.0}
    theta = {key: float(np.median(x)) for key, x in prior_draws("explosive", 50).items()}
    grid = make_grid(2028.0, 96)
    path = integrate(grid, Restriction(r, room), **shared(theta) | quiet)
    s_max, a, t = 3 * g0 + room, pK * gK1, grid - 2023.0
    p = pL * chi * (1 - 3 * g0 / s_max) / r * s_max
    x = (1 + (p - 1) * g0 / s_max * np.expm1(a * t) / a) ** (-1 / (p - 1))
    np.testing.assert_allclose(path.s, s_max * (1 - x), atol=0.01)
    assert path.s[-1] > 0.6 * s_max


def test_the_frozen_share_at_the_reference_date_is_f26_when_growth_is_steady():
    # AI without effect (q = 1), no forcing and no ceiling: then the lagged path to 2026.0 is a straight line.
    draws = prior_draws("amdahl", 300, seed=5)
    steady = {"ln_qr": np.full(300, -60.0), "pL": np.full(300, 1e-9), "pK": np.zeros(300)}
    theta = shared(draws) | steady
    ok = theta["f26"] / (1 - draws["phi"]) < paths.MAX_REACH
    error = []
    for per_year in (24, 96):
        grid = make_grid(2026.0, per_year)
        path = integrate(grid, Restriction(1e6, 1e8, phi=draws["phi"]), **theta)
        error.append(np.abs(path.F[:, -1] - theta["f26"])[ok])
    assert error[1].max() < 5e-3 and np.median(error[1]) < 2e-3
    # What is left is the step: the lag follows the end of each step.
    assert np.median(error[0] / error[1]) == pytest.approx(4.0, rel=0.05)


def date_of_m(path: Path, level: float = 100.0) -> np.ndarray:
    """Date at which m passes a level, interpolated; NaN if it does not."""
    over = path.log_m >= np.log(level)
    i = np.maximum(over.argmax(-1), 1)
    rows = np.arange(len(i))
    low, high = path.log_m[rows, i - 1], path.log_m[rows, i]
    share = (np.log(level) - low) / np.where(high > low, high - low, 1.0)
    return np.where(over.any(-1), path.time[i - 1] + share * (path.time[i] - path.time[i - 1]), np.nan)


def test_halving_the_step_moves_the_date_of_a_hundredfold_output_little():
    errors: dict[int, list[np.ndarray]] = {4: [], 12: [], 24: []}
    for name in DYNAMICS:
        theta = prior_draws(name, 100, seed=3)
        fine = date_of_m(DYNAMICS[name](make_grid(per_year=192), theta))
        for per_year, found in errors.items():
            difference = np.abs(date_of_m(DYNAMICS[name](make_grid(per_year=per_year), theta)) - fine)
            found.append(difference[np.isfinite(difference)])
    median = {per_year: np.median(np.concatenate(found)) for per_year, found in errors.items()}
    assert np.concatenate(errors[4]).size > 100
    assert median[4] < 0.1 and median[12] < 0.03
    assert median[24] < median[12] < median[4]


# Both backends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DYNAMICS)
def test_the_graph_gives_the_same_path_as_numpy(name):
    import pytensor
    import pytensor.tensor as pt

    grid = make_grid(2032.0)
    theta = {key: float(x[0]) for key, x in prior_draws(name, 1, seed=7).items()}
    symbols = {key: pt.dscalar(key) for key in theta}
    graph = DYNAMICS[name](grid, symbols)
    outputs = [pt.as_tensor(getattr(graph, field)) for field in (*FIELDS, "d50")]
    function = pytensor.function(
        list(symbols.values()), outputs, mode="FAST_COMPILE", on_unused_input="ignore"
    )
    for draw in range(3):
        theta = {key: float(x[draw]) for key, x in prior_draws(name, 3, seed=7).items()}
        path = DYNAMICS[name](grid, theta)
        for field, values in zip((*FIELDS, "d50"), function(*theta.values()), strict=True):
            np.testing.assert_allclose(values, getattr(path, field), rtol=1e-12, atol=1e-12, err_msg=field)
