"""Networks, their normalization and their optimizers."""
