"""Faster forms of what JAX and XLA compute slowly on a processor.

Importing this room changes how PyTensor hands erfcx to JAX.  JAX's own evaluates a hundred polynomials
to select one, and differentiates them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from numpy.polynomial import chebyshev
from pytensor.link.jax.dispatch.basic import jax_funcify
from pytensor.scalar.math import Erfcx
from scipy import special

_MIDDLE = 3.75


def _fitted(t: Any) -> Any:
    """(1 + 2x) erfcx(x) at x = _MIDDLE (1 + t)/(1 - t), smooth on t in [-1, 1)."""
    x = _MIDDLE * (1 + t) / (1 - t)
    return (1 + 2 * x) * special.erfcx(x)


def _fitted_slope(t: Any) -> Any:
    """-(1 + 2x)^2 erfcx'(x) at the same x; far out by the asymptotic series, where its terms cancel."""
    x = _MIDDLE * (1 + t) / (1 - t)
    far = np.maximum(x, 20.0)
    series = sum((-0.5) ** n * special.factorial2(2 * n + 1) / far ** (2 * n) for n in range(8))
    near = 2 / np.sqrt(np.pi) - 2 * x * special.erfcx(x)
    return (1 + 2 * x) ** 2 * np.where(x > 20.0, series / (np.sqrt(np.pi) * far**2), near)


# Degree 20 is exact to 4e-15, relative, for x >= 0 (the substitution is Shepherd & Laframboise's, 1981).
_VALUE, _SLOPE = (
    chebyshev.cheb2poly(chebyshev.chebinterpolate(f, 20))[::-1] for f in (_fitted, _fitted_slope)
)


def _polynomial(coefficients: np.ndarray, size: jax.Array) -> jax.Array:
    t = (size - _MIDDLE) / (size + _MIDDLE)
    return jnp.polyval(jnp.asarray(coefficients, size.dtype), t, unroll=32)


@jax.custom_jvp
def erfcx(x: jax.Array) -> jax.Array:
    """exp(x^2) erfc(x), one polynomial and one exponential."""
    size = jnp.abs(x)
    right = _polynomial(_VALUE, size) / (1 + 2 * size)
    return jnp.where(x < 0, 2 * jnp.exp(jnp.where(x < 0, x, 0.0) ** 2) - right, right)


@erfcx.defjvp
def _erfcx_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    value, size = erfcx(x), jnp.abs(x)
    # The closed form loses its digits far out, in single precision all of them.
    right = -_polynomial(_SLOPE, size) / (1 + 2 * size) ** 2
    return value, jnp.where(x < 0, 2 * x * value - 2 / np.sqrt(np.pi), right) * dx


@jax_funcify.register(Erfcx)
def _funcify_erfcx(op: Erfcx, **_: object) -> object:
    return erfcx


_COSTLY = frozenset(
    {"log", "exp", "log1p", "expm1", "erf", "erfc", "erf_inv", "div", "sqrt", "custom_jvp_call"}
)
_STORED = frozenset({"dot_general", "scan", "while", "gather", "scatter-add", "reduce_sum"})
_PRICE = 13
"""Elementary operations that one of `_COSTLY` is worth."""
RECOMPUTABLE = 12
"""Most elementary operations that a value with several uses may cost and still be computed once per use."""


def materialised(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep XLA from computing the same costly value once per use.

    Its CPU backend fuses producers into every consumer, so a logarithm of one parameter would be
    taken once per row; a barrier makes a value with several uses and a price stand in memory.
    """

    def evaluate(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        known |= dict(zip(jaxpr.invars, args, strict=True))
        uses: Counter[Any] = Counter(
            v for eqn in jaxpr.eqns for v in eqn.invars if not isinstance(v, jex.Literal)
        )
        price: dict[Any, int] = {}

        def value(v: Any) -> Any:
            return v.val if isinstance(v, jex.Literal) else known[v]

        for eqn in jaxpr.eqns:
            inputs = [value(v) for v in eqn.invars]
            name = eqn.primitive.name
            inner = eqn.params.get("jaxpr") if name in ("pjit", "jit") else None
            if inner is not None:
                out = evaluate(inner.jaxpr, inner.consts, inputs)
                cost = _PRICE
            else:
                out = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
                out = out if eqn.primitive.multiple_results else [out]
                cost = sum(price.get(v, 0) for v in eqn.invars if not isinstance(v, jex.Literal))
                cost = 0 if name in _STORED else cost + (_PRICE if name in _COSTLY else 1)
            if out and cost > RECOMPUTABLE and max(uses[v] for v in eqn.outvars) > 1:
                out, cost = jax.lax.optimization_barrier(list(out)), 0
            price |= dict.fromkeys(eqn.outvars, cost)
            known |= dict(zip(eqn.outvars, out, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def wrapped(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return wrapped
