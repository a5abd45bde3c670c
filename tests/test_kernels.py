"""Faster forms of special functions, and the barriers that keep costly values in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytensor
import pytensor.tensor as pt
from scipy import integrate, special

from forecast import compilation, kernels

X = np.concatenate([np.linspace(-17.0, 30.0, 20_001), np.logspace(1, 8, 500)])


def test_erfcx_is_scipys():
    np.testing.assert_allclose(kernels.erfcx(jnp.asarray(X)), special.erfcx(X), rtol=2e-14)


def test_its_slope_is_the_closed_form_and_no_worse_than_a_difference():
    slope = jax.vmap(jax.grad(kernels.erfcx))(jnp.asarray(X))
    np.testing.assert_allclose(slope, 2 * X * special.erfcx(X) - 2 / np.sqrt(np.pi), rtol=1e-9, atol=1e-13)
    near = X[np.abs(X) < 5]
    difference = (special.erfcx(near + 1e-6) - special.erfcx(near - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope[np.abs(X) < 5], difference, rtol=1e-5)


def test_pytensor_hands_erfcx_to_it():
    x = pt.dvector("x")
    function = pytensor.function([x], pt.erfcx(x), mode="JAX")
    np.testing.assert_allclose(function(X), special.erfcx(X), rtol=2e-14)


def test_xla_has_one_device_and_no_more_threads_than_that_needs():
    assert jax.local_device_count() == 1


def several_uses(x):
    root = jnp.sqrt(1 + x**2)
    part = jax.jit(lambda a: jnp.log(a) * jnp.exp(-a))(root)
    return jax.lax.fori_loop(0, 3, lambda i, y: y * root + part, root / part), (root, part)


def test_barriers_change_no_value():
    x = jnp.linspace(0.1, 3.0, 17)
    plain, (root, part) = jax.vmap(several_uses)(x)
    kept, (root_kept, part_kept) = kernels.materialised(jax.vmap(several_uses))(x)
    for a, b in ((plain, kept), (root, root_kept), (part, part_kept)):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_a_costly_value_with_several_uses_stands_behind_a_barrier_and_others_do_not():
    def barriers(function):
        return str(jax.make_jaxpr(kernels.materialised(function))(jnp.ones(3))).count("optimization_barrier")

    assert barriers(lambda x: jnp.log(x) * 2) == 0
    assert barriers(lambda x: (y := jnp.log(x)) * 2 + y**2) == 1
    assert barriers(lambda x: (y := x + 1) * 2 + y**2) == 0


def test_the_slope_keeps_its_digits_far_out_and_in_single_precision():
    """erfcx'(x) = -4/sqrt(pi) int u exp(-u^2 - 2xu) du, which has no terms to cancel."""

    def exact(x):
        scale = 1 + 2 * x
        found, _ = integrate.quad(
            lambda w: w * np.exp(-((w / scale) ** 2) - 2 * x * w / scale), 0, 60, epsabs=0, epsrel=1e-12
        )
        return -4 / np.sqrt(np.pi) * found / scale**2

    x = np.array([0.0, 0.3, 1.0, 4.0, 15.0, 60.0, 1000.0])
    slope, expected = jax.jit(jax.vmap(jax.grad(kernels.erfcx))), [exact(v) for v in x]
    np.testing.assert_allclose(slope(x), expected, rtol=1e-11)
    narrow = compilation.in_single_precision(slope, x)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, expected, rtol=1e-6)
