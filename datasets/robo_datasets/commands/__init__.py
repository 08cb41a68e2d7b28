"""The verbs of this floor: one module each, found through the entry points of the distribution."""
