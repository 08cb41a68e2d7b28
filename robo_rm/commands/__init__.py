"""The verbs of this package, one module each."""
