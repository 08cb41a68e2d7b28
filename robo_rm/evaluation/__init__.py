"""Judging a reward model: figures, advice, probe clips, report."""
