"""What an episode is known by: a hash of its content, wherever it stands and whatever it is called.

The hash covers, by feature key, the low-dimensional arrays (type, shape and bytes), the time stamps counted from the
first one, and the images as the source keeps them: the encoded bytes of video packets and image files, or the pixels
where they are not encoded. It leaves out everything that may change while the demonstration stays the same: container,
file names, position, episode numbers, instructions, outcomes and stages.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from robo_core.arrays import Array

# Namespace of episode names that follow from their content, so that importing again finds what is there.
_NAMESPACE = uuid.UUID("8b4f1d0e-6f0c-5b1e-9d3e-2f6a0c7b5a12")


@dataclass(frozen=True)
class Content:
    """Hashes of an episode's numbers and of its images, 32 hex digits each."""

    rows: str
    images: str

    @property
    def uuid(self) -> str:
        """The name that an episode of this content has in every store."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.rows}/{self.images}"))

    def to_json(self) -> dict[str, str]:
        """The record in the ``source`` of an imported episode."""
        return {"rows": self.rows, "pictures": self.images}


class ContentHash:
    """Collects an episode's content piece by piece; the order of keys does not matter, that of a key's pieces does."""

    def __init__(self) -> None:
        self._rows: dict[str, hashlib._Hash] = {}
        self._images: dict[str, hashlib._Hash] = {}
        self._start: float | None = None

    def add_rows(self, key: str, rows: Array) -> None:
        """Rows (n, ...) of a low-dimensional feature, in order; may be called again with the rows that follow."""
        rows = np.ascontiguousarray(rows)
        if key not in self._rows:
            kind = rows.dtype.newbyteorder("=").name
            # (n,) and (n, 1) are the same numbers: formats differ in how they write one value a row.
            shape = [side for side in rows.shape[1:] if side != 1]
            self._rows[key] = hashlib.sha256(f"{key}\0{kind}\0{shape}\0".encode())
        self._rows[key].update(rows.data if rows.size else b"")

    def add_times(self, times: Array) -> None:
        """Time stamps (n,) in seconds; only their distance from the first one counts, to a tenth of a millisecond."""
        times = np.asarray(times, np.float64).ravel()
        if len(times) and self._start is None:
            self._start = float(times[0])
        ticks = np.round((times - (self._start or 0.0)) * 1e4).astype(np.int64) if len(times) else times
        self.add_rows("\0timestamp", ticks)

    def add_image(self, key: str, data: bytes | memoryview | Array) -> None:
        """The next image of a camera: its encoded bytes, or its pixels as an array."""
        if key not in self._images:
            self._images[key] = hashlib.sha256(f"{key}\0".encode())
        if isinstance(data, np.ndarray):
            self._images[key].update(f"{data.dtype.name}{data.shape}".encode())
            data = np.ascontiguousarray(data).data
        self._images[key].update(len(data).to_bytes(8, "little") if isinstance(data, bytes) else b"")
        self._images[key].update(data)

    def add_images(self, key: str, images: Iterable[bytes | memoryview | Array]) -> None:
        """A camera's images in order of display."""
        for image in images:
            self.add_image(key, image)

    def finish(self) -> Content:
        """The content of what was added."""
        return Content(_joined(self._rows), _joined(self._images))


def _joined(parts: dict[str, hashlib._Hash]) -> str:
    digest = hashlib.sha256()
    for key in sorted(parts):
        digest.update(parts[key].digest())
    return digest.hexdigest()[:32]
