"""Arrays of images in other formats: which axis is what, on which scale, which way up.

A shape alone does not say it. Each rule here is checked against images from all over the array, not against the
first one (which may be black); what was assumed is reported, and a setting says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from robo_core.errors import ConfigError, ImportSourceError
from robo_datasets.store.depth import depth_record, millimetres
from robo_datasets.store.features import FeatureSpec
from robo_datasets.store.jpeg import resize

FLIPS = ("none", "vertical", "horizontal", "both")
COLOURS = ("rgb", "bgr")
SCALES = ("auto", "1", "255")
LAYOUTS = ("auto", "hwc", "chw")
DEPTH_UNITS = ("auto", "m", "mm")
NAMES = ("height", "width", "channel")

_SMALLEST = 8
_SMALLEST_WITHOUT_CHANNELS = 32
_SAMPLES = 24
_METRES = 65.5
_AXES = {"hwc": (0, 1, 2), "chw": (1, 2, 0)}


@dataclass(frozen=True)
class ImageSettings:
    """What the user says of a source's images.

    Raises:
        ConfigError: a value is not one of those known.
    """

    flip: str = "none"
    """How to turn images: vertical for rows that begin at the bottom (OpenGL), horizontal, both, or none."""
    colours: str = "rgb"
    """Order of the colours: rgb or bgr (OpenCV)."""
    image_scale: str = "auto"
    """Where floats are white: 1, 255, or auto."""
    layout: str = "auto"
    """Order of the axes: hwc, chw, or auto."""
    depth_unit: str = "auto"
    """Unit of depth arrays: m, mm, or auto."""

    def __post_init__(self) -> None:
        """Check the values."""
        known = {"flip": FLIPS, "colours": COLOURS, "image_scale": SCALES, "layout": LAYOUTS, "depth_unit": DEPTH_UNITS}
        for name, values in known.items():
            if str(getattr(self, name)) not in values:
                raise ConfigError(f"{name}={getattr(self, name)} is not one of: {', '.join(values)}")


@dataclass(frozen=True)
class ImageRule:
    """How the rows of one array become frames of a store."""

    kind: str
    """"colour" (uint8, 1 or 3 channels) or "depth" (uint16 millimetres, 1 channel)."""
    axes: tuple[int, ...] | None
    """How to order the axes as (height, width, channel); None where there is no channel axis."""
    shape: tuple[int, int, int]
    factor: float
    """What floats are multiplied with."""
    settings: ImageSettings
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def feature(self) -> FeatureSpec:
        """The feature in LeRobot's form."""
        shape = self.shape if self.size is None else (*self.size, self.shape[2])
        entry: FeatureSpec = {"dtype": "uint8", "shape": shape, "names": list(NAMES)}
        return entry if self.kind == "colour" else entry | {"dtype": "uint16", "depth": depth_record()}

    def __call__(self, row: np.ndarray, where: str) -> np.ndarray:
        """A row of the array as a frame (H, W, C).

        Raises:
            ImportSourceError: its values do not fit the scale of the others; names ``where``.
        """
        frame = row[:, :, None] if self.axes is None else np.transpose(row, self.axes)
        frame = frame[:, :, : self.shape[2]]  # without the transparency of RGBA
        frame = self._depth(frame, where) if self.kind == "depth" else self._bytes(frame, where)
        if self.settings.flip in ("vertical", "both"):
            frame = frame[::-1]
        if self.settings.flip in ("horizontal", "both"):
            frame = frame[:, ::-1]
        if self.settings.colours == "bgr" and frame.shape[2] == 3:
            frame = frame[..., ::-1]
        frame = np.ascontiguousarray(frame)
        if self.size is None or frame.shape[:2] == self.size:
            return frame
        if self.kind == "depth":  # a mean of two distances is none
            sides = self.size[1], self.size[0]
            return cv2.resize(frame, sides, interpolation=cv2.INTER_NEAREST).reshape(*self.size, 1)
        return resize(frame, self.size).reshape(*self.size, frame.shape[2])

    def _bytes(self, frame: np.ndarray, where: str) -> np.ndarray:
        if frame.dtype == np.uint8:
            return frame
        scaled = frame * self.factor
        if not (np.isfinite(scaled).all() and scaled.min() >= -0.5 and scaled.max() < 255.5):
            raise ImportSourceError(
                f"{where}: values from {frame.min():.4g} to {frame.max():.4g} do not fit the scale of the other "
                f"images (white is {255 / self.factor:g}); give image_scale=1 or 255, or leave it out with drop="
            )
        return np.rint(scaled).clip(0, 255).astype(np.uint8)

    def _depth(self, frame: np.ndarray, where: str) -> np.ndarray:
        if frame.dtype == np.uint16 and self.factor == 1:
            return frame
        try:
            return millimetres(frame.astype(np.float64) * self.factor / 1000)
        except ValueError as error:
            raise ImportSourceError(f"{where}: {error}; give depth_unit=, or leave the array out with drop=") from error


def image_rule(
    key: str,
    shape: Sequence[int],
    dtype: np.dtype,
    rows: Callable[[int], np.ndarray],
    settings: ImageSettings,
    where: str,
    size: tuple[int, int] | None = None,
) -> ImageRule | None:
    """How an array of images is read; None for an array of anything else.

    Args:
        key: its name in the source.
        shape: (N, ...) of the whole array.
        dtype: of the array.
        rows: gives one row by its number.
        settings: what the user says.
        where: file and array, for errors.
        size: (height, width) to scale to.

    Raises:
        ImportSourceError: it looks like images, but its values are on no known scale; says what to set.
    """
    depth = "depth" in key.lower() and dtype != np.uint8
    kinds = dtype == np.uint8 or dtype.kind == "f" or (depth and dtype.kind in "ui")
    found = _axes_of(tuple(shape[1:]), dtype, depth, settings.layout) if kinds else None
    if found is None:
        return None
    axes, frame_shape, notes = found
    notes = [f"{key} {tuple(shape)}: {note}" for note in notes]
    if depth:
        factor = _depth_factor(dtype, rows, shape[0], settings)
        unit = {1.0: "millimetres", 1000.0: "metres"}[factor]
        if settings.depth_unit == "auto":
            notes.append(f"{key} was read as depth in {unit} (depth_unit=m or mm says otherwise)")
        return ImageRule("depth", axes, frame_shape, factor, settings, size, tuple(notes))
    factor = 1.0
    if dtype != np.uint8:
        factor = _colour_factor(rows, shape[0], settings, where)
        if settings.image_scale == "auto":
            notes.append(f"{key} holds floats; {255 / factor:g} was assumed to be white (image_scale= says otherwise)")
    return ImageRule("colour", axes, frame_shape, factor, settings, size, tuple(notes))


Axes = tuple[tuple[int, ...] | None, tuple[int, int, int], list[str]]


def _axes_of(row: tuple[int, ...], dtype: np.dtype, depth: bool, layout: str) -> Axes | None:
    channels = (1,) if depth else (1, 3)
    if len(row) == 2 and (dtype == np.uint8 or depth) and min(row) >= _SMALLEST_WITHOUT_CHANNELS:
        return None, (row[0], row[1], 1), ["assumed to be images without a channel axis"]
    if len(row) != 3:
        return None
    last = row[2] in channels and min(row[:2]) >= _SMALLEST
    first = row[0] in channels and min(row[1:]) >= _SMALLEST
    if row[2] == 4 and dtype == np.uint8 and not depth and min(row[:2]) >= _SMALLEST and layout != "chw" and not first:
        return _AXES["hwc"], (row[0], row[1], 3), ["assumed to be images of four channels; the fourth was left out"]
    chosen = layout if layout != "auto" else "hwc" if last else "chw" if first else ""
    if (chosen == "hwc" and not last) or (chosen == "chw" and not first) or not chosen:
        return None
    height, width, channel = (row[axis] for axis in _AXES[chosen])
    notes = (
        ["assumed to be images (channel, height, width); layout=hwc says otherwise"]
        if layout == "auto" and not last
        else []
    )
    return _AXES[chosen], (height, width, channel), notes


def _depth_factor(dtype: np.dtype, rows: Callable[[int], np.ndarray], count: int, settings: ImageSettings) -> float:
    if settings.depth_unit != "auto":
        return {"m": 1000.0, "mm": 1.0}[settings.depth_unit]
    if dtype.kind in "ui":
        return 1.0
    finite = [row[np.isfinite(row)] for row in _sampled(rows, count)]
    return 1000.0 if max((float(row.max(initial=0)) for row in finite), default=0) <= _METRES else 1.0


def _colour_factor(rows: Callable[[int], np.ndarray], count: int, settings: ImageSettings, where: str) -> float:
    if settings.image_scale != "auto":
        return 255.0 / float(settings.image_scale)
    low, high = np.inf, -np.inf
    for row in (*_sampled(rows, count), *_until_lit(rows, count)):
        low, high = min(low, float(row.min())), max(high, float(row.max()))
        if high > 0 and low < -0.5:
            break
    if low >= 0 and 0 < high <= 1:
        return 255.0
    if low >= -0.5 and (1 < high < 255.5 or high <= 0):
        return 1.0
    raise ImportSourceError(
        f"{where} looks like images of floats, but its values go from {low:.4g} to {high:.4g}, neither 0 to 1 nor "
        "0 to 255; give image_scale=1 or 255, or leave it out with drop="
    )


def _sampled(rows: Callable[[int], np.ndarray], count: int) -> Iterable[np.ndarray]:
    for number in sorted(set(np.linspace(0, count - 1, _SAMPLES).astype(int).tolist())):
        yield rows(number)


def _until_lit(rows: Callable[[int], np.ndarray], count: int) -> Iterable[np.ndarray]:
    """Where every sampled image is black, all of them up to the first that is not."""
    if any(row.max() > 0 for row in _sampled(rows, count)):
        return
    for number in range(count):
        row = rows(number)
        if row.max() > 0:
            yield row
            return
