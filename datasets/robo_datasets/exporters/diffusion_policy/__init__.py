"""Writes replay buffers of Diffusion Policy."""
