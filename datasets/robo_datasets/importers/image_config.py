"""The settings of all import commands whose sources hold arrays of pictures."""

from __future__ import annotations

from dataclasses import dataclass

from robo_datasets.importers.settings import ImportConfig


@dataclass(frozen=True)
class PictureConfig(ImportConfig):
    """What the user says of pictures; see ``robo_datasets.importers.images``."""

    flip: str = "none"
    """vertical turns pictures whose rows begin at the bottom (OpenGL) over; horizontal, both, or none."""
    colours: str = "rgb"
    """Order of the colours: rgb, or bgr as OpenCV has it."""
    image_scale: str = "auto"
    """Where pictures of floats are white: 1, 255, or auto, from pictures all over the array."""
    layout: str = "auto"
    """Order of a picture's axes: hwc, chw, or auto, from where one or three channels stand."""
    depth_unit: str = "auto"
    """Unit of arrays named for depth: m, mm, or auto; they are kept in millimetres."""
