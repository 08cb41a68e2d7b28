"""Reinforcement learning in simulation with policy-invariant shaped rewards."""
