"""Sharpness-aware minimization (Foret et al., ICLR 2021)."""
