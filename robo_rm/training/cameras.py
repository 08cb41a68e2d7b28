"""Which cameras a model looks at, and at what size."""

from __future__ import annotations

from collections.abc import Sequence

from robo_datasets.errors import ConfigError, StoreError
from robo_rm.models.frames import input_size
from robo_rm.models.registry import FitRequest


def chosen_cameras(request: FitRequest) -> dict[str, tuple[int, int]]:
    """The cameras asked for, all by default, and the (height, width) at which the encoder takes each.

    Raises:
        ConfigError: the store has no camera, or not the one asked for.
        StoreError: a camera's images are not colour images.
    """
    store = request.store
    images = list(store.cameras)
    chosen = images if request.cameras is None else [_camera(name, images) for name in request.cameras]
    if not chosen:
        raise ConfigError(f"{store.path} has no camera; a reward model looks at images (observation.images.<camera>)")
    cameras = {}
    for key in chosen:
        shape = tuple(store.features[key]["shape"])
        if len(shape) != 3 or shape[-1] != 3:
            raise StoreError(f"{store.path}: {key} has shape {shape}; an image encoder reads colour images (H, W, 3)")
        shorter = getattr(request.encoder, "image_size", None) or min(shape[:2])
        cameras[key] = input_size(shape[0], shape[1], shorter)
    return cameras


def _camera(name: str, images: Sequence[str]) -> str:
    key = name if name in images else f"observation.images.{name}"
    if key not in images:
        raise ConfigError(f"cameras={name}: the store has {', '.join(images) or 'no camera'}")
    return key
