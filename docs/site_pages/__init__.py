"""Writes the pages of the site that are generated: commands and settings, the Python API, the project's own files."""
