"""The command ``robo-rm COMMAND key=value ...``."""
