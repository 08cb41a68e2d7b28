"""Depth images: what a level means in metres, and how formats write it down.

A store keeps depth as uint16 (H, W, 1) without loss, with ``{"unit": "mm", "scale": 0.001}`` in its schema: a level
times the scale is a distance in metres. 0 stands for "no reading", as depth cameras give it.

LeRobot 0.6 writes depth maps as 12-bit video, quantised in log space (``video.depth_min``, ``depth_max``, ``shift``,
``use_log`` in info.json, all in metres), and as TIFF: uint16 in millimetres or float32 in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robo_datasets.store.features import DepthSpec

MILLIMETRES = "mm"
METRES = "m"
SCALES = {MILLIMETRES: 0.001, METRES: 1.0}
_CODES = 4095
_LARGEST = 65535
_DEFAULTS = {"depth_min": 0.01, "depth_max": 10.0, "shift": 3.5}


def depth_record(unit: str = MILLIMETRES, scale: float | None = None) -> DepthSpec:
    """What a feature of depth says of its levels: unit and metres per level."""
    return {"unit": unit, "scale": SCALES[unit] if scale is None else scale}


def is_depth_map(entry: Mapping[str, object]) -> bool:
    """Whether a LeRobot feature is flagged as depth, in any of the places where versions of LeRobot put the flag."""
    info, video = entry.get("info"), entry.get("video_info")
    places = [place for place in (info, video) if isinstance(place, Mapping)]
    return any(place.get("is_depth_map") is True or place.get("video.is_depth_map") is True for place in places)


@dataclass(frozen=True)
class DepthCodes:
    """How 12-bit codes of a LeRobot depth video stand for distances; lengths in metres."""

    depth_min: float
    depth_max: float
    shift: float
    use_log: bool

    @classmethod
    def of(cls, entry: Mapping[str, object], where: str) -> DepthCodes:
        """From a feature of info.json; what it does not say is LeRobot's default.

        Raises:
            ValueError: a value is not a number, or they contradict each other; names ``where``.
        """
        info = entry.get("info")
        info = info if isinstance(info, Mapping) else {}
        values = {}
        for name, default in _DEFAULTS.items():
            value = info.get(f"video.{name}", info.get(name, default))
            if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value):
                raise ValueError(f"{where}: video.{name} is {value!r}, metres are needed")
            values[name] = float(value)
        use_log = info.get("video.use_log", info.get("use_log", True))
        codes = cls(**values, use_log=bool(use_log))
        if codes.depth_max <= codes.depth_min or (codes.use_log and codes.depth_min + codes.shift <= 0):
            raise ValueError(
                f"{where}: depth from {codes.depth_min} to {codes.depth_max} m with shift {codes.shift} is not a range"
            )
        return codes

    def table(self) -> np.ndarray:
        """Millimetres of every code, (4096,) uint16."""
        codes = np.arange(_CODES + 1) / _CODES
        if self.use_log:
            low, high = np.log(self.depth_min + self.shift), np.log(self.depth_max + self.shift)
            metres = np.exp(low + codes * (high - low)) - self.shift
        else:
            metres = self.depth_min + codes * (self.depth_max - self.depth_min)
        return np.clip(np.rint(np.clip(metres, self.depth_min, self.depth_max) * 1000), 0, _LARGEST).astype(np.uint16)


def millimetres(depth: np.ndarray) -> np.ndarray:
    """Depth in metres, floats, as uint16 millimetres; what is not a reading (NaN, infinite, negative) as 0.

    Raises:
        ValueError: a distance is beyond 65.535 m.
    """
    known = np.isfinite(depth) & (depth >= 0)
    levels = np.rint(np.where(known, depth, 0).astype(np.float64) * 1000)
    if levels.max(initial=0) > _LARGEST:
        raise ValueError(f"a depth of {levels.max() / 1000:.1f} m is beyond the 65.535 m of 16 bits of millimetres")
    return levels.astype(np.uint16)
