"""Environments as a learner sees them: macro-actions, vector environments, shaped rewards."""
