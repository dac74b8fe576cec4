"""Guided diffusion: a diffusion model steered by a classifier of noisy pictures."""
