"""Particles: densities, resampling, temperatures and islands against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from forecast.particles import (
    Gaussian,
    Particles,
    by_island,
    deal,
    halves,
    moments,
    next_power,
    resampled,
    systematic,
)

RNG = np.random.default_rng(3)


def test_a_gaussian_has_the_density_it_draws_from():
    factor = np.tril(RNG.normal(size=(4, 4))) + 3 * np.eye(4)
    one = Gaussian(np.arange(4.0), factor)
    x = RNG.normal(size=(7, 4))
    exact = multivariate_normal(one.mean, factor @ factor.T).logpdf(x)
    np.testing.assert_allclose(one.log_density(x), exact)
    drawn = one.draw(RNG, 200_000)
    np.testing.assert_allclose(np.cov(drawn.T), factor @ factor.T, atol=0.5)


def test_each_particle_is_taken_as_often_as_its_weight_says_give_or_take_one():
    log_weight = RNG.normal(0, 3, 50) - 700
    share = np.exp(log_weight - log_weight.max())
    for size in (1, 10, 1000):
        taken = np.bincount(systematic(RNG, log_weight, size), minlength=50)
        assert taken.sum() == size
        assert np.abs(taken - size * share / share.sum()).max() <= 1


def test_small_islands_of_a_group_are_resampled_without_bias():
    """Many groups of few particles: a weighted mean over each island alone would lie too low by a quarter."""
    groups, islands, count = 10_000, 4, 8
    x = RNG.normal(size=(groups, islands, count))
    log_weight = x - 300.0
    found = resampled(RNG, log_weight, count)
    assert found.shape == x.shape
    taken = np.take_along_axis(x.reshape(groups, -1), found.reshape(groups, -1), axis=1)
    # Weights exp(x) turn N(0, 1) into N(1, 1); 32 particles fall short of it by some two over their number.
    w = np.exp(x)
    apart, together = ((w * x).sum(axis) / w.sum(axis) for axis in (-1, (-2, -1)))
    assert taken.mean() == pytest.approx(together.mean(), abs=0.005)
    assert 1 - together.mean() < 0.35 * (1 - apart.mean())


def test_most_resampled_particles_stay_on_their_island():
    found = resampled(RNG, RNG.normal(size=(50, 4, 100)), 20)
    assert (np.diff(found.reshape(50, -1), axis=1) >= 0).all()
    assert (found // 100 == np.arange(4)[:, None]).mean() > 0.8


def test_the_next_temperature_keeps_the_asked_share_of_particles():
    start, end = np.zeros((2, 500, 1)), RNG.normal(0, 20, (2, 500, 1))
    cloud = Particles(np.zeros((2, 500, 3)), start, end)
    power = next_power(cloud, np.zeros(1), 0.1, 0.5)
    w = np.exp((power - 0.1) * (end - end.max()))
    assert 0.1 < power < 1
    assert w.sum() ** 2 / (w**2).sum() / w.size == pytest.approx(0.5, abs=1e-3)
    # Where one step will do it is taken.
    assert next_power(cloud, np.zeros(1), 0.999, 0.5) == 1.0


def test_each_half_of_the_islands_gets_the_moments_of_the_other():
    x = RNG.normal(size=(4, 300, 2)) @ np.array([[1.0, 4.0], [0.0, 3.0]])
    log_weight = RNG.normal(size=(4, 300))
    first, second = halves(x, log_weight)
    for found, part in ((first, slice(2, 4)), (second, slice(0, 2))):
        again = moments(x[part], log_weight[part])
        np.testing.assert_array_equal(found.mean, again.mean)
        w = np.exp(log_weight[part]).ravel()
        np.testing.assert_allclose(again.mean, np.average(x[part].reshape(-1, 2), axis=0, weights=w))
        exact = np.cov(x[part].reshape(-1, 2).T, aweights=w, ddof=0)
        # With two parameters and hundreds of particles almost nothing is shrunk.
        found_covariance = again.factor @ again.factor.T
        np.testing.assert_allclose(np.diag(found_covariance), np.diag(exact), rtol=1e-4)
        assert abs(found_covariance[0, 1] - exact[0, 1]) < 0.05 * abs(exact[0, 1]) + 1e-4


def test_few_particles_give_usable_moments_in_many_dimensions():
    D = 60
    truth = 0.7 ** np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
    scale = np.geomspace(0.01, 100, D)
    x = RNG.multivariate_normal(np.zeros(D), truth, size=(1, 40)) * scale
    found = moments(x)
    correlation = (found.factor @ found.factor.T) / np.outer(scale, scale)
    plain = np.cov((x[0] / scale).T, ddof=0)
    assert np.abs(correlation - truth).mean() < 0.8 * np.abs(plain - truth).mean()
    # Forty particles span forty directions of sixty: without shrinkage the others would have no spread.
    assert np.linalg.eigvalsh(correlation).min() > 0.02
    # Many particles are taken at their word.
    many = moments(RNG.multivariate_normal(np.zeros(D), truth, size=(1, 100_000)))
    np.testing.assert_allclose(many.factor @ many.factor.T, truth, atol=0.02)


def test_islands_get_every_label_as_often():
    x = np.arange(24.0)[:, None]
    dealt = deal(x, islands=3, labels=4)
    assert dealt.shape == (3, 8, 1)
    assert np.sort(dealt.ravel()).tolist() == x.ravel().tolist()
    assert (np.sort(dealt[..., 0].astype(int) % 4, axis=1) == np.repeat(np.arange(4), 2)).all()
    with pytest.raises(ValueError, match="multiple"):
        deal(x[:-1], islands=3, labels=4)


def test_states_of_a_chain_stand_in_a_row():
    # Value 100 step + chain: two islands of three chains, four steps.
    states = (100 * np.arange(4)[:, None] + np.arange(6.0))[..., None]
    found = by_island(states, 2)[..., 0]
    assert found.shape == (2, 12)
    assert found[1, :4].tolist() == [3, 103, 203, 303]
