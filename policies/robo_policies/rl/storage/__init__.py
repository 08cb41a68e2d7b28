"""Transitions: the replay buffer, and demonstrations as transitions."""
