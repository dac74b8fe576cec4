"""Mislabeled samples by area under the margin, and the classifier that is trained on what is left."""
