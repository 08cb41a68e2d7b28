"""Reward models to compare with, each behind the same protocol: what one gets without stages."""
