"""Image augmentation: one draw a window, another for the next, and none where it is switched off."""

from __future__ import annotations

import numpy as np

from robo_rm.settings import ImageAugmentation
from robo_rm.training.augment import augment_window

OFF = ImageAugmentation(0, 0, 0, 0, 0, 0, 0)


def window(seed: int = 0) -> np.ndarray:
    frame = np.random.default_rng(seed).integers(40, 200, (24, 32, 3), dtype=np.uint8)
    return np.repeat(frame[None], 4, axis=0)


def test_switched_off_it_changes_nothing():
    images = window()
    assert np.array_equal(augment_window(images, np.random.default_rng(0), OFF), images)


def test_frames_of_a_window_share_the_draw():
    changed = augment_window(window(), np.random.default_rng(0), ImageAugmentation())
    assert all(np.array_equal(changed[0], frame) for frame in changed)
    assert not np.array_equal(changed[0], window()[0])


def test_windows_do_not_share_it():
    rng = np.random.default_rng(0)
    first, second = (augment_window(window(), rng, ImageAugmentation()) for _ in range(2))
    assert not np.array_equal(first, second)


def test_the_source_is_left_as_it_was():
    images = window()
    before = images.copy()
    augment_window(images, np.random.default_rng(0), ImageAugmentation())
    assert np.array_equal(images, before)


def test_a_shift_moves_the_picture():
    images = np.zeros((1, 24, 32, 3), dtype=np.uint8)
    images[0, 10:14, 14:18] = 255
    only_shift = ImageAugmentation(0, 0, 0, 0, shift=0.3, zoom=0, rotation=0)
    moved = augment_window(images, np.random.default_rng(3), only_shift)
    assert moved.max() > 200
    assert not np.array_equal(moved, images)
