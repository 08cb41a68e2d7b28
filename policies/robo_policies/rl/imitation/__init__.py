"""Cloned policies that act beside the learner: behaviour priors and self-imitation."""
