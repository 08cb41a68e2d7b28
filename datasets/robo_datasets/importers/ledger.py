"""What the episodes of a source were when they were last read, so that repeating an import need not read them again.

    <store>/imports/<hash of the source's path>.json     {"path", "episodes": {stamp: name of the episode}}

A stamp is a hash over the paths, sizes and times of change of an episode's files. The folder is a shortcut and may be
deleted at any time: the next import reads the episodes and knows them by their content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container
from pathlib import Path

from robo_core.checksummed import open_seal, replace_durably, seal
from robo_core.errors import CorruptionError, ImportSourceError
from robo_datasets.importers.source import Source, SourceEpisode
from robo_datasets.store.layout import IMPORTS, is_uuid

# Raised when the hash of an episode's content changes, so that no name made by another rule is believed.
_FORMAT = 1


class Stamps:
    """Stamps of the episodes of one source; asks the file system once for every file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        kinds = [(key, str(entry.get("dtype"))) for key, entry in source.features.items()]
        # Which features are read decides what an episode is; the size frames are scaled to does not.
        self._reading = f"{_FORMAT}\0{source.format}\0{sorted(kinds)}\0"
        self._states: dict[Path, str] = {}
        self._last: tuple[tuple[Path, ...], str] | None = None

    def stamp(self, episode: SourceEpisode) -> str | None:
        """The episode's stamp; None where it cannot be read, a file is missing, or the source cannot say."""
        if episode.problem:
            return None
        try:
            files = self._source.files(episode)
            if not files:
                return None
            if self._last is None or self._last[0] is not files:
                self._last = files, "\n".join(self._state(path) for path in files)
            place = self._source.place(episode)
        except (OSError, ImportSourceError):
            return None
        return hashlib.sha256(f"{self._reading}{place}\0{self._last[1]}".encode()).hexdigest()[:32]

    def _state(self, path: Path) -> str:
        found = self._states.get(path)
        if found is None:
            status = path.stat()
            # The time of the inode's change too: a copy may keep the time of the content's.
            found = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
            self._states[path] = found
        return found


class Ledger:
    """The note of one source in one store."""

    def __init__(self, store: Path, source: Path) -> None:
        self._source = os.path.realpath(source)
        name = hashlib.sha256(self._source.encode()).hexdigest()[:32]
        self._file = store / IMPORTS / f"{name}.json"
        self._known = self._read()

    def name(self, stamp: str | None) -> str | None:
        """Name of the episode that had this stamp; None where it is not known."""
        return None if stamp is None else self._known.get(stamp)

    def note(self, stamps: dict[str, str], there: Container[str]) -> None:
        """Keep names by stamp, beside those noted before that are still ``there``."""
        known = {stamp: name for stamp, name in {**self._read(), **stamps}.items() if name in there}
        if known == self._known:
            return
        document = {"format": _FORMAT, "path": self._source, "episodes": known}
        try:
            self._file.parent.mkdir(exist_ok=True)
            replace_durably(self._file, seal(document, indent=None))
        except OSError:
            return  # a full or read-only disk: the note is only a shortcut
        self._known = known

    def _read(self) -> dict[str, str]:
        try:
            document = open_seal(self._file.read_bytes(), self._file)
        except (OSError, CorruptionError):
            return {}
        episodes = document.get("episodes")
        if document.get("format") != _FORMAT or document.get("path") != self._source or not isinstance(episodes, dict):
            return {}
        return {stamp: name for stamp, name in episodes.items() if isinstance(name, str) and is_uuid(name)}
