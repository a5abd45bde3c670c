"""A PyMC model as compiled JAX functions: densities, outputs, and a move of Hamiltonian Monte Carlo."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

os.environ.setdefault("JAX_ENABLE_X64", "1")

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pymc as pm
from pymc.sampling.jax import get_jaxified_graph
from pytensor.graph.replace import clone_replace

from forecast.kernels import materialised

# On import PyMC asks for a hundred devices, for chains of its own samplers.  XLA then has a hundred threads
# that look for work in one another's queues, on however few processors: a fifth of the time.
_DEVICES = "--xla_force_host_platform_device_count=100"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "").replace(_DEVICES, "")

# Compiled programs are kept between processes; compiling the full model takes about a minute.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forecast" / "xla"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)

BLOCK = 1024
"""Particles evaluated at a time, so that one compilation serves every number of them."""


@dataclass(frozen=True)
class Compiled:
    """A model as functions of one flat vector of unconstrained values, a label and the model's data."""

    model: pm.Model
    dimension: int
    labels: int
    data: dict[str, np.ndarray]
    each: tuple[str, ...]
    """Names of the data that have a value for each particle, along their first dimension."""
    names: tuple[str, ...]
    """Names of the deterministics and constrained free variables that `outputs` returns."""
    draw_prior: Callable[[int, int], np.ndarray]
    """(seed, size) -> unconstrained prior draws, (size, dimension)."""
    density: Callable[..., Any]
    """(x, label, data) -> log prior and log likelihood under the given labels, (particle,) each."""
    outputs: Callable[..., Any]
    """(x, label, data) -> values of `names` for each particle."""
    move: Callable[..., Any] = field(repr=False)
    """As `_move`, in single precision."""
    slope: Callable[..., Any] = field(repr=False)
    """(x, label, data, powers) -> value and gradient of powers . (prior, likelihood) for each particle."""


def give_back() -> None:
    """Return to the system what compiling needed: the C library keeps it, and arrays of XLA cannot use it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Metric(NamedTuple):
    """Whitened coordinates y of x = mean + factor y, and the Gaussian reference -|tilt y + shift|^2 / 2.

    Each part has a leading dimension: groups of as many chains each, in order, that have their own.
    """

    mean: Any
    factor: Any
    tilt: Any
    shift: Any


class Chains(NamedTuple):
    """Where chains stand: values (chain, dimension), labels (chain,), step size and one random key.

    The step size is one number, or one for each group of as many chains, (group,).
    """

    x: Any
    label: Any
    step_size: Any
    key: Any


def compile_model(model: pm.Model, each: tuple[str, ...] = ()) -> Compiled:
    """Turn a PyMC model into JAX functions; compilation itself happens at first use.

    Parameters
    ----------
    model
        Continuous free variables, and at most one scalar categorical one, the label.  `pm.Data`
        become inputs, so other values of them need no new compilation.
    each
        Data of which each particle gets its own.

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
    labels = discrete[0].owner.inputs[-1].type.shape[-1] if discrete else 1
    if labels is None:
        raise ValueError("the label needs a fixed number of values")
    label = [model.rvs_to_values[rv] for rv in discrete]

    shared = {v.name: v for v in model.data_vars}
    inputs = {n: v.type(name=n) for n, v in shared.items()}
    named = list(model.deterministics)
    graphs = [model.logp(vars=free), model.datalogp, *model.replace_rvs_by_values(named)]
    graphs = clone_replace(graphs, replace={shared[n]: inputs[n] for n in shared})
    arguments = [*values, *label, *inputs.values()]
    # One graph for all outputs: what a function does not return is dropped when it is compiled.
    evaluate = get_jaxified_graph(inputs=arguments, outputs=graphs)

    def unpack(x: Any, k: Any, data: Any) -> list[Any]:
        parts = [
            x[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes, strict=True)
        ]
        return [*parts, *([k] if label else []), *(data[n] for n in inputs)]

    def terms(x: Any, k: Any, data: Any) -> tuple[Any, Any]:
        prior, likelihood, *_ = evaluate(*unpack(x, k, data))
        # A point where the model is undefined is impossible.
        return prior, jnp.where(jnp.isnan(likelihood), -jnp.inf, likelihood)

    def weighted(x: Any, k: Any, data: Any, powers: Any) -> Any:
        prior, likelihood = terms(x, k, data)
        return powers[0] * prior + powers[1] * likelihood

    axes = {n: 0 if n in each else None for n in inputs}
    batch = materialised(jax.vmap(terms, in_axes=(0, 0, axes)))
    gradient = materialised(jax.vmap(jax.value_and_grad(weighted), in_axes=(0, 0, axes, None)))

    def outputs(x: Any, k: Any, data: Any) -> Any:
        def one(x: Any, k: Any, data: Any) -> Any:
            return evaluate(*unpack(x, k, data))[2:]

        return jax.vmap(one, in_axes=(0, 0, axes))(x, k, data)

    return Compiled(
        model,
        int(ends[-1]),
        labels,
        {n: np.asarray(v.get_value()) for n, v in shared.items()},
        each,
        tuple(v.name for v in named),
        partial(_draw_prior, model, free),
        jax.jit(batch),
        jax.jit(outputs),
        partial(in_single_precision, jax.jit(partial(_move, gradient), static_argnames=("most",))),
        partial(in_single_precision, jax.jit(gradient)),
    )


def _draw_prior(model: pm.Model, free: list[Any], seed: int, size: int) -> np.ndarray:
    """Unconstrained prior draws, (size, dimension)."""
    unconstrained = [
        rv if (t := model.rvs_to_transforms[rv]) is None else t.forward(rv, *rv.owner.inputs) for rv in free
    ]
    draws = pm.draw(unconstrained, draws=size, random_seed=seed)
    return np.concatenate([np.asarray(d, float).reshape(size, -1) for d in draws], axis=1)


def in_single_precision(function: Callable[..., Any], *args: Any, **static: Any) -> Any:
    """Call a compiled function with numbers of 32 bits, which takes half the time.

    A move needs no more: rounding shifts a log density of hundreds of nats by 1e-4, which changes where
    chains settle by as little, and every density that enters a weight or an evidence is evaluated in 64 bits.
    """
    narrow = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}

    def halved(x: Any) -> Any:
        return np.asarray(x, narrow[x.dtype]) if x.dtype in narrow else x

    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype")
        return function(*jax.tree.map(halved, args), **static)


def _move(
    gradient: Callable[..., Any],
    chains: Chains,
    data: Any,
    powers: Any,
    metric: Metric,
    leapfrogs: Any,
    target: Any,
    steps: Any,
    *,
    most: int,
) -> tuple[Chains, Any, Any, Any]:
    """Move every chain `steps` times at its own label; `most` steps are compiled for.

    The target is, in logarithms, powers . (reference, prior, likelihood).

    Returns
    -------
    tuple
        Chains, states (most, chain, dimension) of which the first `steps` are set, mean acceptance, and
        mean squared jump over twice the variance (1 for independent states, 0 for none).
    """
    mean, factor, tilt, shift = metric
    groups = len(mean)

    def grouped(x: Any) -> Any:
        return x.reshape(*x.shape[:-2], groups, -1, x.shape[-1])

    def values(y: Any) -> Any:
        return (mean[:, None] + grouped(y) @ jnp.swapaxes(factor, 1, 2)).reshape(y.shape)

    def potential(y: Any, label: Any) -> tuple[Any, Any]:
        value, slope = gradient(values(y), label, data, powers[1:])
        away = grouped(y) @ jnp.swapaxes(tilt, 1, 2) + shift[:, None]
        value = value - powers[0] * 0.5 * (away**2).sum(-1).ravel()
        return value, (grouped(slope) @ factor - powers[0] * (away @ tilt)).reshape(y.shape)

    def move(i: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        y, value, slope, step_size, key, states, total = state
        key, k_momentum, k_jitter, k_accept = jax.random.split(key, 4)
        momentum = jax.random.normal(k_momentum, y.shape)
        # One trajectory in eight is short, to free a chain from a narrow place.
        u = jax.random.uniform(k_jitter, (y.shape[0], 1))
        jitter = jnp.where(u < 0.12, 0.35, 0.65 + 0.65 * u)
        eps = jnp.repeat(step_size.ravel(), len(u) // step_size.size)[:, None] * jitter
        energy = value - 0.5 * (momentum**2).sum(-1)

        def leap(_: Any, state: Any) -> Any:
            y, momentum, slope, _ = state
            momentum = momentum + 0.5 * eps * slope
            y = y + eps * momentum
            value, slope = potential(y, chains.label)
            return y, momentum + 0.5 * eps * slope, slope, value

        end, momentum, slope_end, value_end = jax.lax.fori_loop(
            0, leapfrogs, leap, (y, momentum, slope, value)
        )
        change = value_end - 0.5 * (momentum**2).sum(-1) - energy
        chance = jnp.where(jnp.isnan(change), 0.0, jnp.exp(jnp.minimum(change, 0.0)))
        accept = jax.random.uniform(k_accept, chance.shape) < chance
        y_next = jnp.where(accept[:, None], end, y)
        slope = jnp.where(accept[:, None], slope_end, slope)
        value = jnp.where(accept, value_end, value)
        accepted = chance.reshape(*step_size.shape, -1).mean(-1)
        step_size = step_size * jnp.exp(1.5 * (accepted - target))
        moved = ((y_next - y) ** 2).mean() / 2
        total = total + jnp.stack([chance.mean(), moved]) / steps
        return y_next, value, slope, step_size, key, states.at[i].set(y_next), total

    away = jnp.swapaxes(grouped(chains.x) - mean[:, None], 1, 2)
    y = jnp.swapaxes(jax.scipy.linalg.solve_triangular(factor, away, lower=True), 1, 2)
    y = y.reshape(chains.x.shape)
    states = jnp.zeros((most, *y.shape))
    start = (y, *potential(y, chains.label), chains.step_size, chains.key, states, jnp.zeros(2))
    y, _, _, step_size, key, states, total = jax.lax.fori_loop(0, steps, move, start)
    chains = Chains(values(y), chains.label, step_size, key)
    return chains, values(states), total[0], total[1]


def in_blocks(
    function: Callable[..., Any], arrays: tuple[np.ndarray, ...], data: Any, each: tuple[str, ...] = ()
) -> list[np.ndarray]:
    """Evaluate in blocks of one size and join the results; of the data `each`, a block gets its own."""
    size = len(arrays[0])
    pad = -size % BLOCK
    arrays = (*arrays, *(np.asarray(data[n]) for n in each))
    padded = [np.concatenate([a, np.repeat(a[-1:], pad, axis=0)]) for a in arrays]
    blocks = []
    for i in range(0, size + pad, BLOCK):
        parts = [jnp.asarray(a[i : i + BLOCK]) for a in padded]
        own = dict(zip(each, parts[len(parts) - len(each) :], strict=True))
        found = function(*parts[: len(parts) - len(each)], {**data, **own})
        blocks.append([np.asarray(y) for y in found])
    return [np.concatenate(parts)[:size] for parts in zip(*blocks, strict=True)]


def finite(values: np.ndarray) -> np.ndarray:
    """Log densities with a very low one for what is impossible or undefined."""
    return np.nan_to_num(values, nan=-1e300, neginf=-1e300)


def log_density(
    compiled: Compiled, x: np.ndarray, label: np.ndarray, data: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Log prior and log likelihood under the given labels, (particle,) each."""
    prior, likelihood = in_blocks(compiled.density, (x, label), data, compiled.each)
    return finite(prior), finite(likelihood)


def log_densities(compiled: Compiled, x: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log prior and log likelihood under every label, (particle, label) each."""
    # One program, label by label: a program for all labels at once takes as long to run and more to compile.
    each = [log_density(compiled, x, np.full(len(x), k), data) for k in range(compiled.labels)]
    prior, likelihood = (np.stack(parts, axis=1) for parts in zip(*each, strict=True))
    return prior, likelihood
