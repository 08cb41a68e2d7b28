"""Reinforcement learning in the worlds with policy-invariant shaped rewards."""
