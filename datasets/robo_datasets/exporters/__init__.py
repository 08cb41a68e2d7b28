"""Demo stores written as data sets of other tools; one file a format."""
