"""Policy-invariant reward shaping: the core, the modes to compare it with, potentials, and the checker."""
