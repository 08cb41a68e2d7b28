"""Checks of a demo store: that its files are whole, and that what they say is plausible."""
