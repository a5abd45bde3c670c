"""Any PyMC model to posterior draws and log marginal likelihoods, by vectorised sequential Monte Carlo.

The model's graph becomes one JAX function.  Particles start from the prior and follow a tempered
likelihood to the posterior (Del Moral, Doucet & Jasra 2006); between temperatures they move by
Hamiltonian Monte Carlo in coordinates whitened by their own covariance, and every state of every
chain is kept as a particle (waste-free SMC, Dau & Chopin 2022).  Independent islands give standard
errors.  One categorical variable, if the model has one, is a label: it is summed out of the weights,
redrawn from its exact conditional between moves, and each of its values gets an evidence and draws.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pymc as pm
import xarray as xr
from jax.extend import core as jex
from pymc.sampling.jax import get_jaxified_graph
from pytensor.graph.replace import clone_replace
from scipy.special import logsumexp

from forecast.bridge import bridge

# Compiled programs are kept between processes; compiling the full model takes about a minute.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forecast" / "xla"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)

MAX_LEAPFROGS = 24
"""Longest trajectory, in leapfrog steps."""
_COSTLY = frozenset(
    {"log", "exp", "log1p", "expm1", "erf", "erfc", "erf_inv", "dot_general", "scan", "while"}
)


@dataclass(frozen=True)
class Settings:
    """Size of a fit; the defaults pass the gate on the shipped data.

    ``islands * chains * steps * sweeps`` particles at each temperature; a failed gate doubles `sweeps`.
    """

    islands: int = 8
    chains: int = 128
    """Chains per island."""
    steps: int = 4
    """States kept from each chain in one sweep."""
    sweeps: int = 1
    final_sweeps: int = 8
    """Sweeps at the posterior whose states become draws; one more is discarded before them."""
    ess: float = 0.5
    """Effective share of particles at which the next temperature is set."""
    trajectory: float = 1.0
    """Length of a trajectory in whitened coordinates."""
    acceptance: float = 0.8


@dataclass(frozen=True)
class Compiled:
    """A model as functions of one flat vector of unconstrained values, a label and the model's data."""

    model: pm.Model
    dimension: int
    labels: int
    data: dict[str, np.ndarray]
    names: tuple[str, ...]
    """Names of the deterministics and constrained free variables that `outputs` returns."""
    draw_prior: Callable[[int, int], np.ndarray]
    """(seed, size) -> unconstrained prior draws, (size, dimension)."""
    likelihoods: Callable[..., Any]
    """(x, data) -> log prior and log likelihood, (particle, label) each."""
    outputs: Callable[..., Any]
    """(x, label, data) -> values of `names` for each particle."""
    sweep: Callable[..., Any] = field(repr=False)


def _materialised(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep XLA from computing the same costly operation once per use.

    Its CPU backend fuses producers into every consumer, so a logarithm of one parameter would be
    taken once per row; a barrier after each costly operation makes it a value.
    """

    def evaluate(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        known |= dict(zip(jaxpr.invars, args, strict=True))

        def value(v: Any) -> Any:
            return v.val if isinstance(v, jex.Literal) else known[v]

        for eqn in jaxpr.eqns:
            inputs = [value(v) for v in eqn.invars]
            inner = eqn.params.get("jaxpr") if eqn.primitive.name in ("pjit", "jit") else None
            if inner is not None:
                out = evaluate(inner.jaxpr, inner.consts, inputs)
            else:
                out = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
                out = out if eqn.primitive.multiple_results else [out]
            if out and (inner is not None or eqn.primitive.name in _COSTLY):
                out = jax.lax.optimization_barrier(list(out))
            known |= dict(zip(eqn.outvars, out, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def wrapped(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return wrapped


def compile_model(model: pm.Model) -> Compiled:
    """Turn a PyMC model into JAX functions; compilation itself happens at first use.

    Parameters
    ----------
    model
        Continuous free variables, and at most one scalar categorical one, the label.  `pm.Data`
        become inputs, so other values of them need no new compilation.

    Raises
    ------
    ValueError
        If the model has another discrete variable.
    """
    discrete = [rv for rv in model.free_RVs if rv.dtype.startswith("int")]
    if len(discrete) > 1 or any(rv.ndim for rv in discrete):
        raise ValueError("the model may have one scalar discrete variable, its label")
    free = [rv for rv in model.free_RVs if rv not in discrete]
    values = [model.rvs_to_values[rv] for rv in free]
    point = model.initial_point()
    shapes = [np.shape(point[v.name]) for v in values]
    sizes = [int(np.prod(s)) for s in shapes]
    ends = np.cumsum(sizes)
    labels = int(discrete[0].owner.inputs[-1].shape[-1].eval()) if discrete else 1
    label = [model.rvs_to_values[rv] for rv in discrete]

    shared = {v.name: v for v in model.data_vars}
    inputs = {n: v.type(name=n) for n, v in shared.items()}
    named = list(model.deterministics)
    graphs = [model.logp(vars=free), model.datalogp, *model.replace_rvs_by_values(named)]
    graphs = clone_replace(graphs, replace={shared[n]: inputs[n] for n in shared})
    arguments = [*values, *label, *inputs.values()]
    posterior = get_jaxified_graph(inputs=arguments, outputs=graphs[:2])
    described = get_jaxified_graph(inputs=arguments, outputs=graphs[2:]) if named else None

    def unpack(x: Any, k: Any, data: Any) -> list[Any]:
        parts = [
            x[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)
        ]
        return [*parts, *([k] if label else []), *(data[n] for n in inputs)]

    def terms(x: Any, k: Any, data: Any) -> tuple[Any, Any]:
        prior, likelihood = posterior(*unpack(x, k, data))
        # A point where the model is undefined is impossible.
        return prior, jnp.where(jnp.isnan(likelihood), -jnp.inf, likelihood)

    def tempered(x: Any, k: Any, data: Any, power: Any) -> Any:
        prior, likelihood = terms(x, k, data)
        return prior + power * likelihood

    batch = _materialised(jax.vmap(terms, in_axes=(0, 0, None)))
    gradient = _materialised(jax.vmap(jax.value_and_grad(tempered), in_axes=(0, 0, None, None)))

    def likelihoods(x: Any, data: Any) -> tuple[Any, Any]:
        size = x.shape[0]
        both = batch(jnp.tile(x, (labels, 1)), jnp.repeat(jnp.arange(labels), size), data)
        prior, each = (a.reshape(labels, size).T for a in both)
        return prior, each

    def outputs(x: Any, k: Any, data: Any) -> Any:
        return jax.vmap(lambda x, k: described(*unpack(x, k, data)))(x, k) if described else []

    return Compiled(
        model,
        int(ends[-1]),
        labels,
        {n: np.asarray(v.get_value()) for n, v in shared.items()},
        tuple(v.name for v in named),
        partial(_draw_prior, model, free),
        jax.jit(likelihoods),
        jax.jit(outputs),
        jax.jit(partial(_sweep, gradient, likelihoods), static_argnames=("steps",)),
    )


def _draw_prior(model: pm.Model, free: list[Any], seed: int, size: int) -> np.ndarray:
    """Unconstrained prior draws, (size, dimension)."""
    unconstrained = [
        rv if (t := model.rvs_to_transforms[rv]) is None else t.forward(rv, *rv.owner.inputs) for rv in free
    ]
    draws = pm.draw(unconstrained, draws=size, random_seed=seed)
    return np.concatenate([np.asarray(d, float).reshape(size, -1) for d in draws], axis=1)


class _Chains(NamedTuple):
    x: Any
    label: Any
    step_size: Any
    key: Any


def _sweep(
    gradient: Callable[..., Any],
    likelihoods: Callable[..., Any],
    chains: _Chains,
    data: Any,
    power: Any,
    log_pseudo: Any,
    mean: Any,
    factor: Any,
    leapfrogs: Any,
    target: Any,
    *,
    steps: int,
) -> tuple[_Chains, Any, Any, Any]:
    """Move every chain `steps` times; return the chains, all states, and what the gate looks at.

    A move is a trajectory in y = factor^-1 (x - mean), then a label from its exact conditional
    proportional to exp(log_pseudo + log prior + power * log likelihood).
    """

    def potential(y: Any, label: Any) -> tuple[Any, Any]:
        value, slope = gradient(mean + y @ factor.T, label, data, power)
        return value, slope @ factor

    def move(chains: _Chains, _: Any) -> tuple[_Chains, Any]:
        x, label, step_size, key = chains
        key, k_momentum, k_jitter, k_accept, k_label = jax.random.split(key, 5)
        y = jax.scipy.linalg.solve_triangular(factor, (x - mean).T, lower=True).T
        momentum = jax.random.normal(k_momentum, y.shape)
        eps = step_size * jax.random.uniform(k_jitter, (y.shape[0], 1), minval=0.7, maxval=1.3)
        value, slope = potential(y, label)
        energy = value - 0.5 * (momentum**2).sum(-1)

        def leap(_: Any, state: Any) -> Any:
            y, momentum, slope, _ = state
            momentum = momentum + 0.5 * eps * slope
            y = y + eps * momentum
            value, slope = potential(y, label)
            return y, momentum + 0.5 * eps * slope, slope, value

        end, momentum, _, value = jax.lax.fori_loop(0, leapfrogs, leap, (y, momentum, slope, value))
        change = value - 0.5 * (momentum**2).sum(-1) - energy
        chance = jnp.where(jnp.isnan(change), 0.0, jnp.exp(jnp.minimum(change, 0.0)))
        accept = jax.random.uniform(k_accept, chance.shape) < chance
        y_next = jnp.where(accept[:, None], end, y)
        x_next = jnp.where(accept[:, None], mean + end @ factor.T, x)
        prior, each = likelihoods(x_next, data)
        label = jax.random.categorical(k_label, log_pseudo + prior + power * each)
        step_size = step_size * jnp.exp(0.5 * (chance.mean() - target))
        moved = ((y_next - y) ** 2).sum(-1) / (2 * y.shape[1])
        return _Chains(x_next, label, step_size, key), (x_next, prior, each, chance.mean(), moved.mean())

    chains, (x, prior, each, chance, moved) = jax.lax.scan(move, chains, None, length=steps)
    return chains, (x, prior, each), chance.mean(), moved.mean()


class Particles(NamedTuple):
    """Weighted particles of all islands, states of one chain in a row."""

    x: np.ndarray
    """(island, particle, dimension)"""
    log_prior: np.ndarray
    """(island, particle, label)"""
    log_likelihood: np.ndarray
    """(island, particle, label)"""

    def log_target(self, log_pseudo: np.ndarray, power: float) -> np.ndarray:
        """Log of the tempered joint density of particle and label, (island, particle, label)."""
        return log_pseudo + self.log_prior + power * self.log_likelihood


class Stage(NamedTuple):
    """What the gate looks at for one temperature."""

    power: float
    acceptance: float
    distance: float
    """Mean squared jump over twice the variance: 1 for independent states, 0 for none."""
    leapfrogs: int


class Fit(NamedTuple):
    """Draws and evidence of every label."""

    draws: np.ndarray
    """Unconstrained draws, (label, island, draw, dimension)."""
    log_likelihood: np.ndarray
    """(label, island, draw)"""
    log_evidence: np.ndarray
    """Log marginal likelihood by label and island, (label, island)."""
    check: np.ndarray
    """Log marginal likelihood by bridge sampling from the draws, and its error, (label, 2)."""
    stages: tuple[Stage, ...]


def _systematic(rng: np.random.Generator, log_weight: np.ndarray, size: int) -> np.ndarray:
    """Systematic resampling, (size,) indices in increasing order."""
    weight = np.exp(log_weight - logsumexp(log_weight))
    at = (rng.random() + np.arange(size)) / size
    return np.minimum(np.searchsorted(np.cumsum(weight), at), len(weight) - 1)


def _next_power(cloud: Particles, log_pseudo: np.ndarray, power: float, ess: float) -> float:
    """Largest power whose weights keep the effective share of particles at `ess`."""
    now = cloud.log_target(log_pseudo, power)

    def share(new: float) -> float:
        w = (logsumexp(cloud.log_target(log_pseudo, new), axis=-1) - logsumexp(now, axis=-1)).ravel()
        return float(np.exp(2 * logsumexp(w) - logsumexp(2 * w)) / len(w))

    if share(1.0) >= ess:
        return 1.0
    low, high = power, 1.0
    for _ in range(30):
        middle = np.sqrt(low * high) if low > 0 and high / low > 2 else 0.5 * (low + high)
        low, high = (middle, high) if share(middle) >= ess else (low, middle)
    # Where much of the prior is impossible no step keeps the share; take the least one.
    return low if low > power else high


def _finite(each: np.ndarray) -> np.ndarray:
    return np.nan_to_num(each, nan=-1e300, neginf=-1e300)


def sample(
    compiled: Compiled,
    seed: int,
    settings: Settings = Settings(),
    data: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[str, float], None] | None = None,
    draw_prior: Callable[[int, int], np.ndarray] | None = None,
) -> Fit:
    """Run tempered waste-free SMC from the prior, then draw from the posterior under each label.

    Parameters
    ----------
    compiled
        From `compile_model`.
    seed
        Same seed, same bits.
    settings
        Size of the fit.
    data
        Values of `pm.Data` that differ from the model's own.
    progress
        Called with what is being done and the share done.
    draw_prior
        (seed, size) -> unconstrained prior draws whose labels cycle 0, 1, ...; needed where the prior
        of a variable depends on the label, or to spare `pm.draw`.

    Returns
    -------
    Fit
        Draws are balanced over labels; the label's prior plays no part, so any odds can be put on
        the evidence afterwards.
    """
    s = settings
    inputs = {n: jnp.asarray(v) for n, v in (compiled.data | dict(data or {})).items()}
    rng = np.random.default_rng(seed)
    K, D, count = compiled.labels, compiled.dimension, s.islands * s.chains
    per_island = s.chains * s.steps * s.sweeps
    start = draw_prior or compiled.draw_prior
    x = start(int(rng.integers(2**31)), s.islands * per_island)
    # Prior draws come with their labels in equal shares; spread every label over all islands.
    x = x.reshape(per_island, s.islands, D).swapaxes(0, 1) if K == 1 else _spread(x, s.islands, K)
    cloud = Particles(
        x,
        *(
            _finite(a).reshape(s.islands, per_island, K)
            for a in _in_blocks(compiled.likelihoods, x.reshape(-1, D), count, inputs)
        ),
    )
    key = jax.random.key(int(rng.integers(2**31)))
    log_pseudo = np.full(K, -np.log(K))
    power, step_size = 0.0, 0.3
    log_z = np.zeros(s.islands)
    stages: list[Stage] = []
    while power < 1.0:
        new = _next_power(cloud, log_pseudo, power, s.ess)
        before = logsumexp(cloud.log_target(log_pseudo, power), axis=-1)
        tempered = cloud.log_target(log_pseudo, new)
        # Pseudo-odds that give every label its share of the particles at the new temperature.
        shift = logsumexp(tempered - before[..., None], axis=(0, 1))
        log_pseudo = log_pseudo - shift - logsumexp(log_pseudo - shift)
        weight = logsumexp(cloud.log_target(log_pseudo, new), axis=-1) - before
        log_z += logsumexp(weight, axis=1) - np.log(per_island)
        power = new
        mean, factor = _moments(cloud.x, weight)
        chains = _start(rng, cloud, weight, log_pseudo, power, s.chains, step_size, key)
        cloud, chains, stage = _stage(compiled, s, chains, inputs, power, log_pseudo, mean, factor)
        step_size, key = float(chains.step_size), chains.key
        stages.append(stage)
        if progress:
            progress("tempering", power)
    tempered = cloud.log_target(log_pseudo, 1.0)
    responsibility = tempered - logsumexp(tempered, axis=-1, keepdims=True)
    log_evidence = log_z + logsumexp(responsibility, axis=1).T - np.log(per_island) - log_pseudo[:, None]

    # The draws: chains split evenly over labels, each kept at its own.
    per_label = max(1, s.chains // K)
    origin = np.empty((s.islands, K, per_label, D))
    for i in range(s.islands):
        for k in range(K):
            origin[i, k] = cloud.x[i, _systematic(rng, responsibility[i, :, k], per_label)]
    label = np.broadcast_to(np.arange(K)[:, None], (s.islands, K, per_label)).reshape(-1)
    fixed = np.where(np.arange(K) == label[:, None], 0.0, -np.inf)
    mean, factor = _moments(cloud.x, np.zeros(cloud.x.shape[:2]))
    chains = _Chains(jnp.asarray(origin.reshape(-1, D)), jnp.asarray(label), _number(step_size), key)
    kept = []
    for n in range(s.final_sweeps * s.sweeps + 1):
        chains, (states, _, each), stage = _move(compiled, s, chains, inputs, 1.0, fixed, mean, factor)
        stages.append(stage)
        if n:
            kept.append((states, each))
        if progress:
            progress("drawing", (n + 1) / (s.final_sweeps * s.sweeps + 1))
    draws = _by_label(np.concatenate([x for x, _ in kept]), s.islands, K)
    each = _by_label(np.concatenate([e for _, e in kept]), s.islands, K)
    likelihood = np.stack([each[k, ..., k] for k in range(K)])
    check = np.array([_one_shot(compiled, rng, draws[k], k, inputs) for k in range(K)])
    return Fit(draws, likelihood, log_evidence, check, tuple(stages))


def _in_blocks(
    function: Callable[..., Any], x: np.ndarray, size: int, data: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate in blocks of one shape, so that one compilation serves every number of particles."""
    padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % size, axis=0)])
    blocks = [function(jnp.asarray(padded[i : i + size]), data) for i in range(0, len(padded), size)]
    first, second = (np.concatenate([np.asarray(b[j]) for b in blocks])[: len(x)] for j in (0, 1))
    return first, second


def _moments(x: np.ndarray, log_weight: np.ndarray) -> tuple[Any, Any]:
    """Weighted mean and lower Cholesky factor of the covariance over all islands."""
    flat, weight = x.reshape(-1, x.shape[-1]), np.exp(log_weight - logsumexp(log_weight)).ravel()
    mean = weight @ flat
    centred = flat - mean
    covariance = (centred * weight[:, None]).T @ centred
    covariance[np.diag_indices_from(covariance)] += 1e-6 * np.trace(covariance) / len(mean)
    return jnp.asarray(mean), jnp.asarray(np.linalg.cholesky(covariance))


def _start(
    rng: np.random.Generator,
    cloud: Particles,
    log_weight: np.ndarray,
    log_pseudo: np.ndarray,
    power: float,
    size: int,
    step_size: float,
    key: Any,
) -> _Chains:
    """Resample each island to `size` chains and draw their labels."""
    chosen = np.stack([_systematic(rng, w, size) for w in log_weight])
    x = np.take_along_axis(cloud.x, chosen[..., None], axis=1)
    target = np.take_along_axis(cloud.log_target(log_pseudo, power), chosen[..., None], axis=1)
    label = np.argmax(target + rng.gumbel(size=target.shape), axis=-1)
    return _Chains(
        jnp.asarray(x.reshape(-1, x.shape[-1])), jnp.asarray(label.ravel()), _number(step_size), key
    )


def _stage(
    compiled: Compiled,
    s: Settings,
    chains: _Chains,
    data: Any,
    power: float,
    log_pseudo: np.ndarray,
    mean: Any,
    factor: Any,
) -> tuple[Particles, _Chains, Stage]:
    """Move the chains and keep every state as a particle."""
    kept: list[list[np.ndarray]] = []
    seen: list[Stage] = []
    tries = 0
    while len(kept) < s.sweeps:
        chains, states, stage = _move(compiled, s, chains, data, power, log_pseudo, mean, factor)
        tries += 1
        # While the step size is still finding its length the states are a warm-up, not particles.
        if abs(stage.acceptance - s.acceptance) < 0.15 or tries > s.sweeps + 3:
            kept.append(states)
            seen.append(stage)
    x, prior, each = (np.concatenate(a) for a in zip(*kept, strict=True))
    cloud = Particles(*(_by_label(a, s.islands, 1)[0] for a in (x, _finite(prior), _finite(each))))
    return cloud, chains, Stage(*np.mean(seen, axis=0))


def _move(
    compiled: Compiled,
    s: Settings,
    chains: _Chains,
    data: Any,
    power: float,
    log_pseudo: np.ndarray,
    mean: Any,
    factor: Any,
) -> tuple[_Chains, list[np.ndarray], Stage]:
    """One sweep, with arguments of fixed shapes and types so that it is compiled once."""
    leapfrogs = int(np.clip(round(s.trajectory / float(chains.step_size)), 2, MAX_LEAPFROGS))
    pseudo = np.broadcast_to(log_pseudo, (len(chains.x), compiled.labels))
    chains, states, chance, moved = compiled.sweep(
        chains,
        data,
        _number(power),
        jnp.asarray(pseudo),
        mean,
        factor,
        jnp.asarray(leapfrogs),
        _number(s.acceptance),
        steps=s.steps,
    )
    return chains, [np.asarray(a) for a in states], Stage(power, float(chance), float(moved), leapfrogs)


def _number(x: float) -> Any:
    return jnp.asarray(x, jnp.float64)


def _spread(x: np.ndarray, islands: int, labels: int) -> np.ndarray:
    """Deal draws whose labels cycle 0, 1, ... to islands so that each has every label equally."""
    rounds = x.reshape(-1, islands, labels, x.shape[-1]) if len(x) % (islands * labels) == 0 else None
    if rounds is None:
        raise ValueError("particles per island must be a multiple of the number of labels")
    return np.moveaxis(rounds, 1, 0).reshape(islands, -1, x.shape[-1])


def _by_label(states: np.ndarray, islands: int, labels: int) -> np.ndarray:
    """(step, island x label x chain, ...) -> (label, island, chain x step, ...), chains contiguous."""
    steps, total = states.shape[:2]
    rest = states.shape[2:]
    shaped = states.reshape(steps, islands, labels, total // islands // labels, *rest)
    moved = np.moveaxis(shaped, (2, 1, 3, 0), (0, 1, 2, 3))
    return moved.reshape(labels, islands, -1, *rest)


def _one_shot(
    compiled: Compiled, rng: np.random.Generator, draws: np.ndarray, label: int, data: Any
) -> tuple[float, float]:
    """Log evidence of one label from its draws alone, by bridge sampling against a fitted Gaussian."""

    def log_target(x: np.ndarray) -> np.ndarray:
        prior, each = _in_blocks(compiled.likelihoods, x, 1024, data)
        return (prior + _finite(each))[:, label]

    return bridge(draws, log_target, rng)


def describe(
    compiled: Compiled, fit: Fit, label: int, data: Mapping[str, np.ndarray] | None = None
) -> xr.Dataset:
    """Values of the model's deterministics at the draws of one label, with dims (chain, draw, ...)."""
    merged = {n: jnp.asarray(v) for n, v in (compiled.data | dict(data or {})).items()}
    draws = fit.draws[label]
    x = draws.reshape(-1, draws.shape[-1])
    values = compiled.outputs(jnp.asarray(x), jnp.full(len(x), label), merged)
    model = compiled.model
    coords = {d: np.asarray(model.coords[d]) for d in model.coords if model.coords[d] is not None}
    found = {}
    for name, value in zip(compiled.names, values, strict=True):
        shape = np.shape(value)[1:]
        dims = model.named_vars_to_dims.get(name) or tuple(f"{name}_dim_{i}" for i in range(len(shape)))
        found[name] = (("chain", "draw", *dims), np.asarray(value).reshape(*draws.shape[:2], *shape))
    used = {d for dims, _ in found.values() for d in dims}
    return xr.Dataset(found, coords={d: v for d, v in coords.items() if d in used})
