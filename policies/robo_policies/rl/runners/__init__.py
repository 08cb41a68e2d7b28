"""The loops around the algorithms, their checkpoints, and the set-up of a run."""
