"""What a demo store's arrays are: feature schemas in LeRobot's form, checked and normalised."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict, TypeGuard

import numpy as np

from robo_core.errors import StoreError
from robo_datasets.store.jpeg import DEFAULT_QUALITY, DEFAULT_SUBSAMPLING, SUBSAMPLINGS

LOW_DIM_DTYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
FRAME_DTYPES = ("uint8", "uint16")

CODECS = ("jpeg", "lossless", "raw")

# Columns that LeRobot keeps in every dataset; a store has its own arrays and attributes for them.
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
OWN_ARRAYS = ("timestamp", "receive_timestamp", "stage")

MAX_BYTES_PER_ROW = 1 << 30

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}\Z")


class FeatureSpec(TypedDict):
    """A feature in LeRobot's form, as ``store.features`` gives it and importers declare it."""

    dtype: str
    shape: Sequence[int]
    names: object
    """Names of the row's values, nested as LeRobot writes them; None where there are none."""
    codec: NotRequired[object]
    """How frames are stored; see ``parse_features``."""
    depth: NotRequired[DepthSpec | None]


class DepthSpec(TypedDict):
    """What the levels of a depth camera mean."""

    unit: str
    scale: float
    """Metres a level."""


@dataclass(frozen=True)
class Feature:
    """One array of an episode: its row shape, type and storage.

    Frames (cameras, depth) have a ``codec`` and are stored one chunk a frame in a shard; everything else is
    low-dimensional and stored as one chunk.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    names: object = None
    codec: str | None = None
    """"jpeg", "lossless" or "raw" for frames, None for low-dimensional features."""
    quality: int = DEFAULT_QUALITY
    subsampling: str = DEFAULT_SUBSAMPLING
    depth: DepthSpec | None = None
    """What the levels of a depth camera mean; None for images."""

    @property
    def is_frames(self) -> bool:
        """True for camera and depth images."""
        return self.codec is not None

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> FeatureSpec:
        """The feature's entry in the store's schema."""
        entry: FeatureSpec = {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}
        if self.codec == "jpeg":
            entry["codec"] = {"name": "jpeg", "quality": self.quality, "subsampling": self.subsampling}
        elif self.is_frames:
            entry["codec"] = {"name": self.codec}
        if self.depth is not None:
            entry["depth"] = self.depth
        return entry


def parse_features(
    features: Mapping[str, Mapping[str, object]],
    codec: str = "jpeg",
    quality: int = DEFAULT_QUALITY,
    subsampling: str = DEFAULT_SUBSAMPLING,
) -> dict[str, Feature]:
    """Check features in LeRobot's form ``{key: {"dtype", "shape", "names"}}`` and normalise them.

    Frames are features of dtype ``video`` or ``image``, or of uint8/uint16 with an (H, W, C) shape. A feature's own
    ``codec`` ("jpeg", "lossless", "raw" or ``{"name": "jpeg", "quality": 95, "subsampling": "4:4:4"}``) goes before the
    arguments. LeRobot's bookkeeping columns are left out.

    Raises:
        StoreError: names the key and what is wrong with it.
    """
    parsed: dict[str, Feature] = {}
    for key, entry in features.items():
        if key in BOOKKEEPING:
            continue
        parsed[key] = _parse_feature(key, entry, codec, quality, subsampling)
    if not parsed:
        raise StoreError("a store needs at least one feature, for example observation.state")
    return parsed


def check_same(own: Mapping[str, Feature], wanted: Mapping[str, Feature], where: str) -> None:
    """Check that episodes of the features ``wanted`` may be appended to a store of the features ``own``.

    Raises:
        StoreError: names the first difference and ``where``.
    """
    if wanted.keys() != own.keys():
        missing, extra = sorted(own.keys() - wanted.keys()), sorted(wanted.keys() - own.keys())
        advice = "use another store" if missing else f"drop=[{','.join(extra)}] leaves that out of an import"
        raise StoreError(
            f"{where} is a store of another schema: the new episodes lack {missing} and add {extra}; {advice}"
        )
    for key, feature in wanted.items():
        if (feature.shape, feature.dtype) != (own[key].shape, own[key].dtype):
            raise StoreError(
                f"{where} is a store of another schema: {key} is {list(own[key].shape)} {own[key].dtype} there and "
                f"{list(feature.shape)} {feature.dtype} in the new episodes; use another store"
            )
        if feature.depth != own[key].depth and own[key].depth is not None:
            raise StoreError(
                f"{where} is a store of another schema: {key} is depth of {own[key].depth} there and "
                f"{feature.depth} in the new episodes; use another store"
            )


def _parse_feature(key: str, entry: object, codec: str, quality: int, subsampling: str) -> Feature:
    if not isinstance(key, str) or not _KEY.match(key):
        raise StoreError(f"feature key {key!r} must be letters, digits, '_', '-' and '.', and not start with a dot")
    if key in OWN_ARRAYS:
        raise StoreError(f"feature key {key!r} is kept by the store itself; leave it out of the features")
    if not isinstance(entry, Mapping) or "shape" not in entry or "dtype" not in entry:
        raise StoreError(f"feature {key} needs a shape and a dtype, got {entry!r}")
    shape = _parse_shape(key, entry["shape"])
    dtype = str(entry["dtype"])
    wanted = entry.get("codec")
    if dtype in ("video", "image"):
        dtype, frames = "uint8", True
    else:
        frames = wanted is not None or (dtype in FRAME_DTYPES and len(shape) == 3)
    if dtype not in LOW_DIM_DTYPES:
        raise StoreError(f"feature {key} has dtype {dtype!r}; a store keeps {', '.join(LOW_DIM_DTYPES)} or video")
    if math.prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES_PER_ROW:
        raise StoreError(f"feature {key} with shape {shape} {dtype} is larger than 1 GiB a frame")
    names = entry.get("names")
    if not frames:
        return Feature(key, shape, dtype, names)
    if len(shape) != 3 or dtype not in FRAME_DTYPES:
        raise StoreError(f"frames {key} must be (H, W, C) uint8 or uint16, got {shape} {dtype}")
    if isinstance(wanted, Mapping):
        codec = str(wanted.get("name"))
        quality = wanted.get("quality", quality)
        subsampling = wanted.get("subsampling", subsampling)
    elif wanted is not None:
        codec = str(wanted)
    if dtype != "uint8" or shape[2] not in (1, 3):
        codec = "lossless" if wanted is None and codec == "jpeg" else codec
    found = _frames(key, shape, dtype, names, codec, quality, subsampling)
    return found if entry.get("depth") is None else replace(found, depth=_depth(found, entry["depth"]))


def _depth(feature: Feature, depth: object) -> DepthSpec:
    unit, scale = (depth.get("unit"), depth.get("scale")) if isinstance(depth, Mapping) else (None, None)
    if not is_positive(scale) or not isinstance(unit, str):
        raise StoreError(f"depth of {feature.key} is {depth!r}; unit and scale (metres per level) are needed")
    if feature.dtype != "uint16" or feature.shape[2] != 1:
        raise StoreError(f"depth {feature.key} must be uint16 (H, W, 1), got {feature.dtype} {feature.shape}")
    return {"unit": unit, "scale": float(scale)}


def is_positive(value: object) -> TypeGuard[float]:
    """Whether an untrusted value is a finite number above 0, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _frames(
    key: str, shape: tuple[int, ...], dtype: str, names: object, codec: str, quality: object, subsampling: object
) -> Feature:
    if codec not in CODECS:
        raise StoreError(f"frames {key} ask for the codec {codec!r}; it is one of {', '.join(CODECS)}")
    if codec != "jpeg":
        return Feature(key, shape, dtype, names, codec)
    if dtype != "uint8" or shape[2] not in (1, 3):
        raise StoreError(f"frames {key} of shape {shape} {dtype} cannot be JPEG; use the codec lossless or raw")
    if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
        raise StoreError(f"frames {key}: JPEG quality {quality!r} is not a whole number from 1 to 100")
    if subsampling not in SUBSAMPLINGS:
        raise StoreError(f"frames {key}: subsampling {subsampling!r} is not one of {', '.join(SUBSAMPLINGS)}")
    return Feature(key, shape, dtype, names, codec, quality, subsampling)


def _parse_shape(key: str, shape: object) -> tuple[int, ...]:
    if not isinstance(shape, int | Iterable):
        raise StoreError(f"feature {key} has the shape {shape!r}; give a list of whole numbers")
    sides: tuple[object, ...] = (shape,) if isinstance(shape, int) else tuple(shape)
    whole = [int(side) for side in sides if isinstance(side, int | np.integer) and not isinstance(side, bool)]
    if len(whole) < len(sides) or any(side < 1 or side > MAX_BYTES_PER_ROW for side in whole):
        raise StoreError(f"feature {key} has the shape {list(sides)}; every side is a whole number from 1 up")
    return tuple(whole)
