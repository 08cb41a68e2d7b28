"""The errors a user can cause, all shown by the command as one line with exit code 2.

The hierarchy is small and each class also inherits the builtin that a Python caller would expect to catch.
"""

from __future__ import annotations


class RoboError(Exception):
    """A user's mistake or a fault in a user's file: says what is wrong, where, and what to do."""


class ConfigError(RoboError, ValueError):
    """A setting is misspelt, of the wrong type or out of range."""


class StoreError(RoboError, ValueError):
    """A demo store is missing, of another version or schema, or asked for something it does not hold."""


class StoreWriteError(StoreError):
    """The disk refuses: full, read-only or failing. Names the path; never the fault of an episode."""


class EpisodeThereError(StoreError):
    """An episode of this UUID was committed meanwhile."""


class EpisodeBusyError(StoreError):
    """Another process is writing an episode of this UUID."""


class CorruptionError(StoreError):
    """Stored bytes do not match their checksum, or cannot be decoded; names the path."""


class ImportSourceError(RoboError, ValueError):
    """A dataset to import is missing, truncated or of another layout; names file and episode."""


class LabelError(RoboError, ValueError):
    """Stage labels have gaps, overlaps or unknown names; names episode and frame."""


class ModelError(RoboError, ValueError):
    """A saved model is missing, corrupt, foreign or does not fit the data it is given."""


class WorkerDiedError(RoboError, RuntimeError):
    """A worker process was killed or crashed; says what it was at and how to go on."""


class MissingPartError(RoboError, ImportError):
    """An optional part (simulator, LeRobot, a GL backend) is not installed; says how to install it."""
