"""Training a reward model on a demo store: data, windows, budget, resume."""
