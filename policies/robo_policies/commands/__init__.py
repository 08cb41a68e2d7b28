"""Commands of the command that need environments and policies."""
