"""Evaluating a reward model: metrics, advice, probe clips, report."""
