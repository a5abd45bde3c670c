"""Weights over dynamics from their evidence, with Monte Carlo errors that know evidences are paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from forecast.bridge import jackknife_values


class Weights(NamedTuple):
    """Posterior over dynamics, (dynamic,) each."""

    posterior: np.ndarray
    posterior_se: np.ndarray
    covariance: np.ndarray
    """Covariance of the errors of `posterior`, (dynamic, dynamic); its rows sum to zero."""


def mean_evidence(log_evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log evidence and its standard error in nats, (dynamic,) each.

    Parameters
    ----------
    log_evidence
        Log marginal likelihood as jackknife pseudo-values, nats, (dynamic, island).
    """
    count = log_evidence.shape[-1]
    return log_evidence.mean(axis=-1), log_evidence.std(axis=-1, ddof=1) / np.sqrt(count)


def increments(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change of log evidence and its standard error in nats, (dynamic,) each.

    An island that was stepped from `before` to `after` carries its error along, which cancels.

    Parameters
    ----------
    before, after
        Log marginal likelihoods as `mean_evidence` takes them, (dynamic, island).
    """
    return mean_evidence(after - before)


def weights(log_evidence: np.ndarray, odds: np.ndarray) -> Weights:
    """Posterior probability of each dynamic: odds times evidence, normalised.

    The standard error is a jackknife over islands, each of which has all dynamics, so what is common
    to them cancels.

    Parameters
    ----------
    log_evidence
        As `mean_evidence` takes it, (dynamic, island).
    odds
        Prior probabilities, (dynamic,).
    """
    with np.errstate(divide="ignore"):
        prior = np.log(np.asarray(odds, float))

    def normalise(evidence: np.ndarray) -> np.ndarray:
        joint = prior + evidence
        return np.exp(joint - logsumexp(joint))

    count = log_evidence.shape[-1]
    values = jackknife_values(lambda used: normalise(log_evidence[:, used].mean(-1)), count)
    covariance = np.cov(values) / count
    return Weights(normalise(mean_evidence(log_evidence)[0]), np.sqrt(np.diag(covariance)), covariance)


def mixture_se(
    weight: np.ndarray, covariance: np.ndarray, value: np.ndarray, value_se: np.ndarray
) -> np.ndarray:
    """Standard error of a weighted sum over dynamics, from errors of its values and of the weights, (...,).

    Parameters
    ----------
    weight, covariance
        As `Weights` has them, (dynamic,) and (dynamic, dynamic).
    value, value_se
        Of each dynamic, (dynamic, ...).
    """
    # Rounding can take a sum that is zero below it.
    ours = np.maximum(((covariance @ value) * value).sum(0), 0.0)
    return np.asarray(np.sqrt(weight**2 @ value_se**2 + ours))


def bayes_factors(
    names: tuple[str, ...], log_evidence: np.ndarray
) -> Mapping[tuple[str, str], tuple[float, float]]:
    """Log Bayes factor of each pair and its standard error, nats: ``(a, b) -> (a against b, se)``."""
    found = {}
    for i, a in enumerate(names):
        for j, b in enumerate(names[i + 1 :], i + 1):
            mean, se = mean_evidence(log_evidence[i] - log_evidence[j])
            found[a, b] = float(mean), float(se)
    return found
