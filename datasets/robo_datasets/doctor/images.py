"""Whether a camera's images show anything: black, of one colour, blurred to nothing, or standing still.

A few small images per second are measured; where one is bad, the ends of the bad run are searched frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from robo_datasets.doctor.findings import ERROR, WARNING, Finding
from robo_datasets.doctor.signals import FROZEN_SECONDS, IDLE_SECONDS, list_spans, runs
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode

# Images measured per second, and their longer side in pixels.
IMAGES_PER_SECOND = 4.0
IMAGE_SIDE = 160
# Levels of 255: darker than this throughout is black, of less contrast than this is one colour.
BLACK = 12.0
PLAIN = 2.0
# Edges this many times weaker than those the camera usually sees are none.
BLURRED = 0.2
_BLOCK = 256


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of images of one camera in one episode, (n,) each."""

    frames: np.ndarray
    """Which frames these are."""
    bright: np.ndarray
    """The 99th percentile of the levels of an image."""
    contrast: np.ndarray
    """Standard deviation of its levels."""
    edges: np.ndarray
    """Mean absolute Laplacian."""


def measure_images(episode: Episode, store: DemoStore, key: str, frames: np.ndarray | None = None) -> ImageStatistics:
    """Measure a camera's images: ``IMAGES_PER_SECOND`` of them, or those of ``frames`` (n,)."""
    if frames is None:
        step = max(1, int(store.fps / IMAGES_PER_SECOND))
        frames = np.unique(np.append(np.arange(0, episode.length, step), episode.length - 1))
    height, width = store.schema[key].shape[:2]
    scale = min(1.0, IMAGE_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    rows: list[tuple[float, float, float]] = []
    for start in range(0, len(frames), _BLOCK):
        # From the episode itself: a damaged cache is a finding of its own and must not end the examination.
        numbers = frames[start : start + _BLOCK].tolist()
        for image in episode.stored_frames(store.schema[key], numbers, size):
            grey = image.astype(np.float32).mean(axis=2)
            edges = float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean())
            rows.append((float(np.percentile(grey, 99)), float(grey.std()), edges))
    table = np.array(rows, np.float64).reshape(-1, 3)
    return ImageStatistics(frames, *table.T)


def check_images(
    episode: Episode, store: DemoStore, statistics: Mapping[str, ImageStatistics], usual: Mapping[str, float]
) -> Iterator[Finding]:
    """Runs of black, plain or blurred images.

    Args:
        episode: the episode.
        store: its store.
        statistics: by camera.
        usual: edges that each camera usually sees, over the whole store.
    """
    for key, found in statistics.items():
        for what, severity in (("black", ERROR), ("plain", WARNING), ("blurred", WARNING)):
            bad = _find_bad(found, what, store, key, usual[key])
            spans = [_refined(episode, store, key, found, span, what, usual[key]) for span in runs(bad, 1)]
            shortest = min(max(int(np.ceil(FROZEN_SECONDS * store.fps)), 3), episode.length)
            spans = [(a, b) for a, b in spans if b - a >= shortest]
            if spans:
                frames = sum(b - a for a, b in spans)
                words = {
                    "black": "is black" if store.schema[key].dtype == "uint8" else "holds no depth",
                    "plain": "shows one colour",
                    "blurred": "is blurred to nothing",
                }[what]
                message = f"{key} {words} for {frames} frames: {list_spans(spans)}"
                yield Finding("dead_camera", severity, episode.uuid, message)


def check_twins(episode: Episode, store: DemoStore, statistics: Mapping[str, ImageStatistics]) -> Iterator[Finding]:
    """Two cameras that show the same images: one device recorded under two names, which leaves the other out.

    Args:
        episode: the episode.
        store: its store.
        statistics: by camera.
    """
    first: dict[bytes, str] = {}
    for key, found in statistics.items():
        table = np.stack([found.frames, found.bright, found.contrast, found.edges])
        if len(found.frames) < 3 or float(np.median(found.contrast)) < PLAIN:
            continue  # nothing to know a view by
        name = str(store.schema[key].dtype).encode() + table.tobytes()
        other = first.setdefault(name, key)
        if other != key:
            message = f"{key} shows the same images as {other}: one camera recorded twice?"
            yield Finding("twin_camera", WARNING, episode.uuid, message)


def usual_edges(statistics: Mapping[str, list[ImageStatistics]]) -> dict[str, float]:
    """The median of the edges of a camera's images that show anything."""
    usual = {}
    for key, found in statistics.items():
        edges = np.concatenate([one.edges[(one.bright >= BLACK) & (one.contrast >= PLAIN)] for one in found])
        usual[key] = float(np.median(edges)) if len(edges) else 0.0
    return usual


def check_frozen(episode: Episode, store: DemoStore, still: np.ndarray | None) -> Iterator[Finding]:
    """Cameras whose image stands still, pixel by pixel, while something moves.

    Args:
        episode: the episode.
        store: its store.
        still: (T - 1,) whether the robot stood still, None where no signal says so. Then the other cameras say whether
            something moved; a camera alone is only suspected, after a longer while.
    """
    same = {key: store.camera_repeats(episode.uuid, key) for key in store.cameras}
    for key, repeats in same.items():
        others = [other for name, other in same.items() if name != key]
        if still is not None:
            moved, severity, seconds, while_ = ~still, ERROR, FROZEN_SECONDS, "while the robot moves"
        elif others:
            moved, severity, seconds = ~np.all(others, axis=0), ERROR, FROZEN_SECONDS
            while_ = "while other cameras see changes"
        else:
            moved, severity, seconds = np.ones(len(repeats), bool), WARNING, IDLE_SECONDS
            while_ = "or nothing moves at all"
        steps = np.concatenate([[0], np.cumsum(moved)])
        shortest = max(int(np.ceil(seconds * store.fps)), 3)
        spans = [(a, b) for a, b in runs(repeats, shortest) if steps[b] - steps[a] > (b - a) / 2]
        if spans:
            message = f"{key} is frozen {while_}, in frames {list_spans(spans)}"
            yield Finding("frozen_camera", severity, episode.uuid, message)


def _find_bad(found: ImageStatistics, what: str, store: DemoStore, key: str, usual: float) -> np.ndarray:
    if store.schema[key].dtype != "uint8":  # depth: any level but 0 is a reading
        return found.bright == 0 if what == "black" else np.zeros(len(found.frames), bool)
    black = found.bright < BLACK
    plain = ~black & (found.contrast < PLAIN)
    if what == "blurred":
        return ~black & ~plain & (found.edges < BLURRED * usual)
    return black if what == "black" else plain


def _refined(
    episode: Episode, store: DemoStore, key: str, found: ImageStatistics, span: tuple[int, int], what: str, usual: float
) -> tuple[int, int]:
    """The frames [start, end) of a run that was found in the images [span) of ``found``."""
    first, last = int(found.frames[span[0]]), int(found.frames[span[1] - 1])
    before = int(found.frames[span[0] - 1]) + 1 if span[0] else 0
    after = int(found.frames[span[1]]) if span[1] < len(found.frames) else episode.length
    for frames, forward in ((np.arange(before, first), False), (np.arange(last + 1, after), True)):
        if not len(frames):
            continue
        bad = _find_bad(measure_images(episode, store, key, frames), what, store, key, usual)
        run = int((bad if forward else bad[::-1]).cumprod().sum())
        first, last = (first, last + run) if forward else (first - run, last)
    return first, last + 1
