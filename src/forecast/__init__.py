"""Bayesian updating over the takeoff dynamics of automated AI research and development."""
