"""Arrays that hold images as JPEG or PNG: rows of bytes, filled up with zeros to one length, or of their own lengths.

ALOHA, RoboTwin and RoboCasa write them so. A row says itself what it is: it begins with the mark of its format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.images import ImageRule, ImageSettings, image_rule
from robo_datasets.store.features import FeatureSpec

_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def may_be_encoded(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether an array's type and shape (rows first) leave room for encoded images."""
    return (dtype.kind in "OSV" and len(shape) == 1) or (dtype == np.uint8 and len(shape) == 2)


def encoded_bytes(cell: object) -> bytes:
    """The bytes of a row without the zeros that fill it up; empty where it does not hold bytes."""
    if isinstance(cell, np.ndarray):
        cell = cell.tobytes() if cell.dtype.itemsize == 1 else b""
    elif isinstance(cell, np.void | np.bytes_):
        cell = cell.tobytes()
    return cell.rstrip(b"\0") if isinstance(cell, bytes) else b""


def is_encoded(cell: object) -> bool:
    """Whether a row begins like a JPEG or PNG image."""
    return encoded_bytes(cell).startswith(_MARKS)


def decoded(cell: object, where: str) -> np.ndarray:
    """The image of a row, (H, W, C), colours as RGB.

    Raises:
        ImportSourceError: there is none, or it is damaged; names ``where``.
    """
    return decode_bytes(encoded_bytes(cell), where)


def decode_bytes(data: bytes | memoryview, where: str) -> np.ndarray:
    """An encoded image, (H, W, C): colours as RGB, grey or depth as they stand.

    Raises:
        ImportSourceError: it cannot be decoded; names ``where``.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if len(data) else None
    except cv2.error as error:
        raise ImportSourceError(f"{where}: {error.err}") from error
    if image is None:
        raise ImportSourceError(f"{where} holds no image that can be decoded ({len(data)} bytes)")
    if image.ndim == 2:
        return image[..., None]
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class EncodedRule:
    """How the rows of an array of encoded images become frames; as ``ImageRule``, of the images decoded."""

    rule: ImageRule
    kind_of_first: tuple[tuple[int, ...], str]
    """Shape and type of the first image."""

    @property
    def feature(self) -> FeatureSpec:
        """The feature in LeRobot's form."""
        return self.rule.feature

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed."""
        return self.rule.notes

    def __call__(self, cell: object, where: str) -> np.ndarray:
        """A row as a frame (H, W, C).

        Raises:
            ImportSourceError: it is damaged, or of another size or kind than the first; names ``where``.
        """
        image = decoded(cell, where)
        if (image.shape, image.dtype.name) != self.kind_of_first:
            shape, kind = self.kind_of_first
            raise ImportSourceError(f"{where} is {image.shape} {image.dtype}, the first image is {shape} {kind}")
        return self.rule(image, where)


def encoded_rule(
    key: str,
    count: int,
    rows: Callable[[int], object],
    settings: ImageSettings,
    where: str,
    size: tuple[int, int] | None = None,
) -> EncodedRule:
    """How an array of encoded images is read.

    Args:
        key: its name in the source.
        count: rows of the array.
        rows: gives one row by its number.
        settings: what the user says.
        where: file and array, for errors.
        size: (height, width) to scale to.

    Raises:
        ImportSourceError: its first image is damaged, or no kind that a store has.
    """
    first = decoded(rows(0), f"{where}, frame 0")
    plain = replace(settings, layout="hwc")
    rule = image_rule(
        key,
        (count, *first.shape),
        first.dtype,
        lambda row: decoded(rows(row), f"{where}, frame {row}"),
        plain,
        where,
        size,
    )
    if rule is None:
        raise ImportSourceError(f"{where} holds encoded images of {first.shape} {first.dtype}, which are not read")
    notes = rule.notes
    if settings.colours == "rgb" and first.shape[2] == 3:
        notes += (
            f"{key} holds encoded images; their colours were taken as the format says (colours=bgr swaps red and "
            "blue, where the writer gave RGB to OpenCV)",
        )
    return EncodedRule(replace(rule, notes=notes), (first.shape, first.dtype.name))
