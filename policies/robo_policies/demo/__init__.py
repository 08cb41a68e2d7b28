"""The whole line on a small task."""
