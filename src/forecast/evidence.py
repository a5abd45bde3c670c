"""Weights over dynamics from their evidence, with Monte Carlo errors that know evidences are paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp


class Weights(NamedTuple):
    """Posterior over dynamics, (dynamic,) each."""

    posterior: np.ndarray
    posterior_se: np.ndarray


def mean_evidence(log_evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the mean evidence over islands and its standard error in nats, (dynamic,) each.

    The mean is of evidences, not of their logarithms: each island is unbiased for the evidence.

    Parameters
    ----------
    log_evidence
        Log marginal likelihood, nats, (dynamic, island).
    """
    count = log_evidence.shape[-1]
    mean = logsumexp(log_evidence, axis=-1) - np.log(count)
    relative = np.exp(log_evidence - mean[..., None])
    return mean, relative.std(axis=-1, ddof=1) / np.sqrt(count)


def _leave_one_out(log_evidence: np.ndarray) -> np.ndarray:
    """Log mean evidence without each island, (dynamic, island)."""
    count = log_evidence.shape[-1]
    return np.stack([mean_evidence(np.delete(log_evidence, i, axis=-1))[0] for i in range(count)], axis=-1)


def _jackknife(values: np.ndarray) -> np.ndarray:
    count = values.shape[-1]
    return np.sqrt((count - 1) * values.var(axis=-1))


def increments(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change of log evidence and its standard error in nats, (dynamic,) each.

    The standard error is a jackknife over islands: an island that was stepped from `before` to `after`
    carries its error along, which cancels.

    Parameters
    ----------
    before, after
        Log marginal likelihoods, nats, (dynamic, island).
    """
    change = mean_evidence(after)[0] - mean_evidence(before)[0]
    return change, _jackknife(_leave_one_out(after) - _leave_one_out(before))


def weights(log_evidence: np.ndarray, odds: np.ndarray) -> Weights:
    """Posterior probability of each dynamic: odds times evidence, normalised.

    The standard error is a jackknife over islands, each of which has all dynamics, so what is common
    to them cancels.

    Parameters
    ----------
    log_evidence
        Nats, (dynamic, island).
    odds
        Prior probabilities, (dynamic,).
    """
    with np.errstate(divide="ignore"):
        prior = np.log(np.asarray(odds, float))

    def normalise(evidence: np.ndarray) -> np.ndarray:
        joint = prior + evidence
        return np.exp(joint - logsumexp(joint))

    without = np.stack([normalise(x) for x in _leave_one_out(log_evidence).T], axis=-1)
    return Weights(normalise(mean_evidence(log_evidence)[0]), _jackknife(without))


def bayes_factors(
    names: tuple[str, ...], log_evidence: np.ndarray
) -> Mapping[tuple[str, str], tuple[float, float]]:
    """Log Bayes factor of each pair and its standard error, nats: ``(a, b) -> (a against b, se)``."""
    mean, without = mean_evidence(log_evidence)[0], _leave_one_out(log_evidence)
    return {
        (a, b): (float(mean[i] - mean[j]), float(_jackknife(without[i] - without[j])))
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i < j
    }
