"""The commands of this layer: one module each, found through the entry points of the distribution."""
