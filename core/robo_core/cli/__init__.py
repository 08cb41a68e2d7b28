"""The command ``robo-rm VERB key=value ...``."""
