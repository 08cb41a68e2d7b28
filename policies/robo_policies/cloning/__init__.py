"""Cloning policies from weighted demonstrations."""
