"""Early stopping: classifiers that stop before they fit wrong labels, and the theory of why that works."""
