"""Bayesian updating over the takeoff dynamics of automated AI research and development."""

import os

# Before anything imports PyTensor, in workers too: draws must not depend on whether its cache is warm.
os.environ.setdefault("PYTENSOR_FLAGS", "numba__fastmath=False")
