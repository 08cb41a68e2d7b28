"""Verbs of the command that need worlds and policies."""
