"""Which cameras and state a model reads, and at what size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robo_core.console import say
from robo_core.errors import ConfigError, StoreError
from robo_rm.reward_models.frames import input_size
from robo_rm.reward_models.registry import FitRequest

PREFIX = "observation.images."
STATE_KEY = "observation.state"


def chosen_cameras(request: FitRequest) -> dict[str, tuple[int, int]]:
    """The cameras asked for, by default all that give colour images, and the (height, width) that the encoder takes.

    Raises:
        ConfigError: the store has no camera, or not the one asked for.
        StoreError: a camera's images are not colour images.
    """
    store = request.store
    images = list(store.cameras)
    if request.cameras is None:
        chosen = [key for key in images if is_colour(store, key)]
        for key in images:
            if key not in chosen:
                feature = store.features[key]
                say(
                    f"camera {key.removeprefix(PREFIX)} is left out: {feature['dtype']} frames of shape "
                    f"{tuple(feature['shape'])} are no colour images"
                )
    else:
        chosen = [_camera(name, images) for name in request.cameras]
    if not chosen:
        raise ConfigError(
            f"{store.path} has no colour camera; a reward model looks at images (observation.images.<camera>)"
            if images
            else f"{store.path} has no camera; a reward model looks at images (observation.images.<camera>)"
        )
    cameras = {}
    for key in chosen:
        shape = tuple(store.features[key]["shape"])
        if not is_colour(store, key):
            raise StoreError(
                f"{store.path}: {key} has {store.features[key]['dtype']} frames of shape {shape}; an image encoder "
                "reads colour images (H, W, 3) of 8 bits"
            )
        shorter = getattr(request.encoder, "image_size", None) or min(shape[:2])
        cameras[key] = input_size(shape[0], shape[1], shorter)
    return cameras


def chosen_state(request: FitRequest) -> tuple[str | None, int]:
    """Key and length of the state, where the settings ask for it and the store has it; otherwise None and 0."""
    if not request.reward.use_state or STATE_KEY not in request.store.features:
        return None, 0
    return STATE_KEY, int(request.store.features[STATE_KEY]["shape"][0])


def is_colour(store: Any, key: str) -> bool:
    """Whether a camera of a store gives colour images of 8 bits, and not depth or grey levels."""
    feature = store.features[key]
    shape = tuple(feature["shape"])
    return len(shape) == 3 and shape[-1] == 3 and str(feature["dtype"]) in ("uint8", "video", "image")


def _camera(name: str, images: Sequence[str]) -> str:
    key = name if name in images else PREFIX + name
    if key not in images:
        raise ConfigError(f"cameras={name}: the store has {', '.join(images) or 'no camera'}")
    return key
