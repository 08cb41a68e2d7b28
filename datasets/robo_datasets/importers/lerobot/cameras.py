"""How the images of a LeRobot camera become frames of a store: colour, grey or depth, decided once for a dataset.

| in the dataset                             | in the store                                                      |
|---|---|
| 3 channels                                  | uint8 (H, W, 3); one channel of a file is repeated                |
| 4 channels                                  | uint8 (H, W, 3) without the fourth                                |
| 1 channel                                   | uint8 (H, W, 1), the luminance                                    |
| depth map, more than 8 bits (video, images) | uint16 (H, W, 1) in millimetres                                   |
| depth map, 8 bits                           | refused, unless it is declared to be an image                    |
| 1 channel of more than 8 bits, no depth map | uint16 (H, W, 1), the levels as they are                          |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.encoded_images import decode_bytes
from robo_datasets.importers.files import inside
from robo_datasets.importers.lerobot.features import DeclaredFeature
from robo_datasets.store.depth import METRES, DepthCodes, depth_record, is_depth_map, millimetres
from robo_datasets.store.features import DepthSpec, FeatureSpec

_NAMES = ["height", "width", "channel"]


@dataclass(frozen=True)
class CameraReading:
    """What is made of a camera's images."""

    shape: tuple[int, int, int]
    """Of the source's images, as they are stored."""
    decode: str = "rgb"
    """What the video decoder gives: rgb, grey or codes (see ``robo_datasets.video.presentation_times``)."""
    depth: DepthSpec | None = None
    table: np.ndarray | None = None
    """Millimetres by code of a quantised depth video, (4096,) uint16."""
    metres: bool = False
    """Whether the levels of depth images are metres."""
    note: str = ""

    @property
    def dtype(self) -> str:
        """Of the stored frames."""
        return "uint16" if self.decode == "codes" else "uint8"

    @property
    def as_decoded(self) -> bool:
        """Whether the frames of a video are stored as the decoder gives them."""
        return self.decode == "rgb" and self.shape[2] == 3 and self.table is None

    def feature(self, size: tuple[int, int] | None) -> FeatureSpec:
        """The feature in the store, scaled to ``size`` (height, width) where that is asked for."""
        shape = self.shape if size is None else (*size, self.shape[2])
        made: FeatureSpec = {"dtype": self.dtype, "shape": shape, "names": _NAMES}
        if self.depth is not None:
            made["depth"] = self.depth
        return made

    def finish(self, image: np.ndarray, where: str) -> np.ndarray:
        """A decoded image as it is stored: codes as millimetres, metres as millimetres.

        Raises:
            ImportSourceError: it has another form than the first one; names ``where``.
        """
        if self.table is not None:
            if image.max(initial=0) >= len(self.table):
                raise ImportSourceError(f"{where}: the code {image.max()} is beyond the {len(self.table)} of 12 bits")
            return self.table[image]
        if self.decode != "codes":
            return _as_channels(image, self.shape[2], where)
        if image.dtype == np.uint16:
            return image * np.uint16(1000) if self.metres else image
        if image.dtype != np.float32 or self.depth is None:
            raise ImportSourceError(f"{where}: the image holds {image.dtype}, the first one 16-bit levels")
        try:
            return millimetres(image if self.metres else image / 1000)
        except ValueError as error:
            raise ImportSourceError(f"{where}: {error}") from error


def _as_channels(image: np.ndarray, channels: int, where: str) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ImportSourceError(f"{where}: the image holds {image.dtype}, bytes are expected")
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, 2) if image.shape[2] == 1 else image[..., :3]
    return cv2.cvtColor(image[..., :3], cv2.COLOR_RGB2GRAY)[..., None]


def video_reading(
    key: str, entry: DeclaredFeature, bits: int, pixel_format: str, as_image: bool, where: str
) -> CameraReading:
    """How a camera's video is read.

    Args:
        key: feature key.
        entry: the feature in info.json, its shape (H, W, C).
        bits: bits of a sample in the file.
        pixel_format: of the file.
        as_image: whether the user declares that the camera shows images, not distances.
        where: the file, for errors.

    Raises:
        ImportSourceError: depth in 8 bits, or its scale makes no sense.
    """
    height, width, channels = entry["shape"]
    depth = is_depth_map(entry)
    if bits > 8 and depth and not as_image:
        try:
            codes = DepthCodes.of(entry, f"{where}: {key}")
        except ValueError as error:
            raise ImportSourceError(str(error)) from error
        return CameraReading((height, width, 1), "codes", depth_record(), codes.table())
    if not as_image:
        _refuse_grey_depth(key, depth, f"an 8-bit video ({pixel_format})", where)
    if bits > 8 and channels == 1 and not as_image:
        note = f"{key} has {bits} bits and no unit: its levels are kept as they are"
        return CameraReading((height, width, 1), "codes", note=note)
    return _image(key, (height, width, channels))


def image_reading(
    key: str, entry: DeclaredFeature, first: np.ndarray | None, as_image: bool, where: str
) -> CameraReading:
    """How a camera's images are read, from the first of them; arguments as ``video_reading``.

    Raises:
        ImportSourceError: depth in 8 bits, or 16-bit colours.
    """
    height, width, channels = entry["shape"]
    depth = is_depth_map(entry)
    if first is None or first.dtype == np.uint8:
        if not as_image:
            _refuse_grey_depth(key, depth, "8-bit images", where)
        return _image(key, (height, width, channels))
    if first.shape[2] != 1:
        raise ImportSourceError(f"{where}: {key} holds {first.dtype} colours, which are not read; drop=[{key}]")
    info = entry["info"]
    unit = info.get("depth_unit") if isinstance(info, Mapping) else None
    if first.dtype == np.uint16 and not depth and unit is None:
        note = f"{key} has 16 bits and no unit: its levels are kept as they are"
        return CameraReading((height, width, 1), "codes", note=note)
    metres = unit == METRES or (unit is None and first.dtype == np.float32)
    note = f"{key} is depth in metres: it is kept in whole millimetres, NaN and infinity as 0" if metres else ""
    return CameraReading((height, width, 1), "codes", depth_record(), metres=metres, note=note)


def _refuse_grey_depth(key: str, depth: bool, what: str, where: str) -> None:
    if depth or "depth" in key.rsplit(".", 1)[-1].lower():
        kind = "is a depth map" if depth else "is called depth"
        raise ImportSourceError(
            f"{where}: {key} {kind} and stands in {what}, where distances are lost; depth_pictures=[{key}] keeps it as "
            f"an image, drop=[{key}] leaves it out"
        )


def _image(key: str, shape: tuple[int, int, int]) -> CameraReading:
    height, width, channels = shape
    if channels == 1:
        return CameraReading(shape, "grey")
    note = f"{key} has four channels: the fourth is left out" if channels == 4 else ""
    return CameraReading((height, width, 3), "rgb", note=note)


def decode_image(cell: object, root: Path, where: str) -> np.ndarray:
    """An image of a parquet cell {bytes, path}, (H, W, C): RGB, grey or depth, uint8, uint16 or float32.

    Raises:
        ImportSourceError: there is none, or it is damaged; names ``where``.
    """
    return decode_bytes(image_bytes(cell, root, where), where)


def image_bytes(cell: object, root: Path, where: str) -> bytes:
    """The encoded bytes of an image: in the cell, or in the file that it names inside the dataset.

    Raises:
        ImportSourceError: there are none; names ``where``.
    """
    fields = cell if isinstance(cell, dict) else {"bytes": cell}
    data, name = fields.get("bytes"), fields.get("path")
    if isinstance(data, bytes) and data:
        return data
    if isinstance(name, str) and name:
        file = inside(root, name)
        if file.is_file():
            return file.read_bytes()
        raise ImportSourceError(f"{where} holds no image, and {file} is missing")
    raise ImportSourceError(f"{where} holds no image")
