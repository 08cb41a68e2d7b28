"""The settings of all import commands whose sources hold arrays of images."""

from __future__ import annotations

from dataclasses import dataclass

from robo_datasets.importers.settings import ImportConfig


@dataclass(frozen=True)
class ImageConfig(ImportConfig):
    """What the user says of images; see ``robo_datasets.importers.images``."""

    flip: str = "none"
    """vertical turns images whose rows begin at the bottom (OpenGL) over; horizontal, both, or none."""
    colours: str = "rgb"
    """Order of the colours: rgb, or bgr as OpenCV has it."""
    image_scale: str = "auto"
    """Where images of floats are white: 1, 255, or auto, from images all over the array."""
    layout: str = "auto"
    """Order of an image's axes: hwc, chw, or auto, from where one or three channels stand."""
    depth_unit: str = "auto"
    """Unit of arrays named for depth: m, mm, or auto; they are kept in millimetres."""
