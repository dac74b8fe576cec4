"""Optimal transport: ground costs, exact and entropic solvers, c-transforms, and couplings."""
