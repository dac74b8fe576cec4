"""Queueing a job from any route: the same refusals, the same answer."""
