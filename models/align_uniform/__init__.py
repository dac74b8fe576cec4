"""Alignment and uniformity on the hypersphere (Wang & Isola, ICML 2020)."""
