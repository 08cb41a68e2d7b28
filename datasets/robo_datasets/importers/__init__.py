"""Data sets of other tools, read into demo stores; one file a format, all with the protocol of ``source.py``."""
