"""Robust optimal transport: Wasserstein distance with chi-square relaxed marginals."""
