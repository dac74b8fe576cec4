"""Summaries learnt from preferences: supervised training, a reward model from comparisons, PPO against it."""
