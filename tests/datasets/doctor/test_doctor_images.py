"""What the doctor says of images, also where a store holds nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from robo_datasets import DemoStore
from robo_datasets.doctor.examine import examine
from robo_datasets.importers.keyframes.source import KeyframeSource
from robo_datasets.importers.options import plan_import
from robo_datasets.importers.run import import_source

LENGTH, FPS = 90, 10
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def scene(seed: int, length: int = LENGTH, still: bool = False) -> np.ndarray:
    """Boxes that move before a textured wall, (T, 96, 128, 3)."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(rng.integers(60, 200, (24, 32, 3)).astype(np.uint8), (128, 96), interpolation=cv2.INTER_NEAREST)
    frames = np.repeat(wall[None], length, axis=0)
    for number in range(length):
        x = 10 if still else 10 + number % 80
        frames[number, 30:60, x : x + 20] = (200, 40, 40)
    return frames


def store_of(path: Path, cameras: dict[str, np.ndarray], numbers: dict[str, np.ndarray] | None = None) -> DemoStore:
    features: dict[str, Any] = {
        key: {"shape": rows.shape[1:], "dtype": rows.dtype.name} for key, rows in cameras.items()
    }
    features |= {key: {"shape": rows.shape[1:], "dtype": rows.dtype.name} for key, rows in (numbers or {}).items()}
    store = DemoStore.create(path, features, fps=FPS)
    length = len(next(iter(cameras.values())))
    with store.writer(task="x") as writer:
        writer.extend({**cameras, **(numbers or {})}, np.arange(length) / FPS)
    return store


def found_in(store: DemoStore) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for finding in examine(store.path).findings:
        found.setdefault(finding.check, []).append(finding)
    return found


def test_images_alone_say_nothing_of_idling(tmp_path):
    assert found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0), WRIST: scene(1)})) == {}


def test_numbers_that_never_change_say_nothing_of_idling_either(tmp_path):
    numbers = {"observation.state": np.ones((LENGTH, 3), np.float32)}
    assert set(found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0)}, numbers))) == {"constant"}


def blurred(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 12) for frame in frames])


@pytest.mark.parametrize(
    ("spoil", "severity", "words"),
    [
        (lambda frames: np.zeros_like(frames), "error", "is black for 37 frames: 21 to 58"),
        (lambda frames: frames // 40, "error", "is black for 37 frames: 21 to 58"),
        (lambda frames: np.full_like(frames, 90), "warning", "shows one colour for 37 frames: 21 to 58"),
        (blurred, "warning", "is blurred to nothing for 37 frames: 21 to 58"),
    ],
)
@pytest.mark.parametrize("with_state", [False, True])
def test_a_camera_that_shows_nothing_for_a_while_is_found(tmp_path, spoil, severity, words, with_state):
    frames = scene(1)
    frames[21:58] = spoil(frames[21:58])
    state = np.sin(np.arange(LENGTH) / 9)[:, None].astype(np.float32)
    numbers = {"observation.state": state} if with_state else None
    findings = found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0), WRIST: frames}, numbers))
    dead = findings["dead_camera"]
    assert [(finding.severity, finding.message) for finding in dead] == [(severity, f"{WRIST} {words}")]


def test_one_camera_recorded_under_two_names_is_found(tmp_path):
    same = scene(0)
    findings = found_in(store_of(tmp_path / "a.zarr", {FRONT: same, WRIST: same}))
    assert [finding.message for finding in findings["twin_camera"]] == [
        f"{WRIST} shows the same images as {FRONT}: one camera recorded twice?"
    ]
    other = same.copy()
    other[40:, 5:20, 5:20] = 30
    assert found_in(store_of(tmp_path / "b.zarr", {FRONT: same, WRIST: other})) == {}


def test_a_dark_moment_is_no_dead_camera(tmp_path):
    frames = scene(1)
    frames[21:24] = 0
    assert found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0), WRIST: frames})) == {}


def test_a_camera_that_never_shows_anything_is_found(tmp_path):
    findings = found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0), WRIST: np.zeros_like(scene(1))}))
    assert f"{WRIST} is black for 90 frames: 0 to 90" in findings["dead_camera"][0].message


def test_a_depth_camera_without_a_reading_is_found_and_a_dark_one_is_none(tmp_path):
    depth = np.random.default_rng(0).integers(1, 9, (LENGTH, 48, 64, 1)).astype(np.uint16)
    depth[40:60] = 0
    findings = found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0), "observation.images.depth": depth}))
    assert [finding.message for finding in findings["dead_camera"]] == [
        "observation.images.depth holds no depth for 20 frames: 40 to 60"
    ]


def test_a_frozen_camera_is_told_by_the_others(tmp_path):
    frames = scene(1)
    frames[30:60] = frames[30]
    findings = found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0), WRIST: frames}))
    (frozen,) = findings["frozen_camera"]
    assert (frozen.severity, frozen.message) == (
        "error", f"{WRIST} is frozen while other cameras see changes, in frames 30 to 59"
    )  # fmt: skip
    (alone,) = found_in(store_of(tmp_path / "b.zarr", {WRIST: frames}))["frozen_camera"]
    assert (alone.severity, "or nothing moves at all" in alone.message) == ("warning", True)
    both = {FRONT: scene(0, still=True), WRIST: scene(1, still=True)}
    assert "frozen_camera" not in found_in(store_of(tmp_path / "c.zarr", both))


def test_a_dimension_without_a_number_is_not_constant(tmp_path):
    state = np.sin(np.arange(LENGTH) / 9)[:, None] * np.ones(3)
    state[:, 1] = np.nan
    findings = found_in(store_of(tmp_path / "a.zarr", {FRONT: scene(0)}, {"observation.state": state.astype("f4")}))
    assert set(findings) == {"nan"}


def test_the_real_clean_table_is_clean_until_a_camera_fails(shared_data, tmp_path):
    source = KeyframeSource(shared_data / "clean_table", size=(120, 160))
    import_source(source, tmp_path / "a.zarr", plan_import(source, tmp_path / "a.zarr"), workers=0)
    store = DemoStore.open(tmp_path / "a.zarr")
    assert found_in(store) == {}
    high, left = (store[0][f"observation.images.cam_{name}"][:] for name in ("high", "left_wrist"))
    left[500:848] = 0
    findings = found_in(store_of(tmp_path / "b.zarr", {FRONT: high, WRIST: left}))
    assert [finding.message for finding in findings["dead_camera"]] == [f"{WRIST} is black for 348 frames: 500 to 848"]
