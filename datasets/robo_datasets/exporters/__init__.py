"""Demo stores written as datasets of other tools; one file a format."""
