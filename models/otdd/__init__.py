"""Optimal transport data set distance (OTDD)."""
