"""Sweeps of Hamiltonian Monte Carlo over all chains of a fit, with a step size that finds its length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from forecast.compilation import Chains, Compiled, Metric

FIRST_STEP = 0.3
"""Step size of the first move, in whitened coordinates; it adapts."""
MAX_LEAPFROGS = 24
"""Longest trajectory, in leapfrog steps."""
Progress = Callable[[str, float], None]
"""Told what is being done, and the share done."""
Data = Mapping[str, np.ndarray]
Target = tuple[tuple[float, float, float], Any]
"""Powers of reference, prior and likelihood in a density, and the model's data."""


@dataclass(frozen=True)
class Settings:
    """Size of a fit; the defaults pass the gate on the shipped data.

    ``islands * chains * steps * sweeps`` particles at each temperature.
    """

    islands: int = 8
    """An even number."""
    chains: int = 96
    """Chains per island."""
    steps: int = 4
    """States kept from each chain in one sweep."""
    sweeps: int = 1
    final_sweeps: int = 8
    """Sweeps at the posterior whose states become draws."""
    ess: float = 0.5
    """Effective share of particles at which the next temperature is set."""
    trajectory: float = 1.5
    """Length of a trajectory in whitened coordinates."""
    acceptance: float = 0.8


class Stage(NamedTuple):
    """What the gate looks at for one temperature."""

    power: float
    acceptance: float
    distance: float
    """Mean squared jump over twice the variance: 1 for independent states, 0 for none."""
    leapfrogs: int


class Run:
    """What stays the same during one fit, and the state that moves carry from one to the next."""

    def __init__(self, compiled: Compiled, seed: int, settings: Settings, progress: Progress | None):
        self.compiled, self.settings = compiled, settings
        self.rng = np.random.default_rng(seed)
        self.key = jax.random.key(int(self.rng.integers(2**31)))
        self.step_size: float | np.ndarray = FIRST_STEP
        self.stages: list[Stage] = []
        self.report = progress or (lambda what, share: None)

    def move(
        self, x: np.ndarray, label: np.ndarray, target: Target, power: float, metric: Metric, steps: int
    ) -> tuple[np.ndarray, Stage]:
        """One sweep at a target, which is reported to be at `power`: states (step, chain, dimension)."""
        powers, data = target
        typical = float(np.median(self.step_size))
        leapfrogs = int(np.clip(round(self.settings.trajectory / typical), 2, MAX_LEAPFROGS))
        chains = Chains(x, label, np.asarray(self.step_size, float), self.key)
        goal, most = np.float64(self.settings.acceptance), self.settings.steps
        chains, states, chance, moved = self.compiled.move(
            chains, data, np.asarray(powers), metric, np.int64(leapfrogs), goal, np.int64(steps), most=most
        )
        self.step_size, self.key = np.asarray(chains.step_size, float), chains.key
        return np.asarray(states[:steps], float), Stage(power, float(chance), float(moved), leapfrogs)

    def stage(
        self,
        x: np.ndarray,
        label: np.ndarray,
        target: Target,
        power: float,
        metric: Metric,
        sweeps: int,
        steps: int,
    ) -> np.ndarray:
        """Sweeps at one temperature: all states, (steps, chain, dimension)."""
        kept: list[np.ndarray] = []
        seen: list[Stage] = []
        tries = 0
        while len(kept) < sweeps:
            states, stage = self.move(x, label, target, power, metric, steps)
            x = states[-1]
            tries += 1
            # While the step size is still finding its length the states are a warm-up, not particles.
            if steps == 1 or abs(stage.acceptance - self.settings.acceptance) < 0.15 or tries > sweeps + 3:
                kept.append(states)
                seen.append(stage)
        self.stages.append(Stage(*np.mean(seen, axis=0)))
        return np.concatenate(kept)
