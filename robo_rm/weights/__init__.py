"""Reward-aligned sample weights."""
