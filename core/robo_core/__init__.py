"""What every package stands on: errors, console, files, processes and the command line."""
