"""How far a image lies from those of training: principal components of small thumbnails.

It sees a moved camera, a covered lens, other light or another scene, for any reward model and at almost no cost. It
does not see small things: an object of a few pixels does not move a thumbnail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 16, 12
_COMPONENTS = 24
_FEWEST = 50
"""Fewer images than this say too little about what is usual."""


@dataclass(frozen=True)
class ImageModel:
    """Per camera: mean (P,), components (k, P), their standard deviations (k,), and the usual distance from them."""

    cameras: tuple[str, ...]
    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]
    deviations: npt.NDArray[np.float32]
    residual: npt.NDArray[np.float32]
    """(C,) root mean square distance of training images from the plane of the components."""

    @classmethod
    def fit(cls, frames: Mapping[str, Sequence[npt.NDArray[np.uint8]]]) -> ImageModel | None:
        """Fit to images (H, W, 3) of training, by camera; None where there are too few."""
        if not frames or min(len(images) for images in frames.values()) < _FEWEST:
            return None
        parts = [_principal(np.stack([thumbnail(image) for image in images])) for images in frames.values()]
        return cls(tuple(frames), *(np.stack(part).astype(np.float32) for part in zip(*parts, strict=True)))

    def distance(self, frames: Mapping[str, npt.NDArray[np.uint8]]) -> float:
        """The largest distance over cameras, about 1 for images as in training."""
        return max(self._one(index, frames[camera]) for index, camera in enumerate(self.cameras))

    def _one(self, index: int, image: npt.NDArray[np.uint8]) -> float:
        away = thumbnail(image) - self.mean[index]
        along = self.components[index] @ away
        rest = np.linalg.norm(away - along @ self.components[index]) / self.residual[index]
        inside = np.sqrt(np.mean(np.square(along / self.deviations[index])))
        return float(max(rest, inside))


def thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(P,) a image (H, W, 3) at 16 x 12, each pixel the mean of its area, in [0, 1]."""
    import cv2

    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32).reshape(-1) / np.float32(255)


def _principal(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
    """Mean, components, their deviations, and the usual distance from their plane, of rows (n, P)."""
    mean = rows.mean(axis=0)
    _, values, components = np.linalg.svd(rows - mean, full_matrices=False)
    components = components[:_COMPONENTS]
    # A floor of half a grey level: a camera that never changed must not make noise look like another scene.
    deviations = np.maximum(values[:_COMPONENTS] / np.sqrt(len(rows)), 0.5 / 255)
    rest = (rows - mean) - (rows - mean) @ components.T @ components
    residual = max(float(np.sqrt(np.mean(np.sum(np.square(rest), axis=1)))), 0.5 / 255 * np.sqrt(rows.shape[1]))
    return mean, components, deviations, np.array(residual, dtype=np.float32)
