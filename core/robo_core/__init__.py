"""What every package stands on: errors, console, files, processes and the command line."""

__version__ = "0.1.0"
