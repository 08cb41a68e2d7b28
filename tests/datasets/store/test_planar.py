"""Video frames become JPEG from their own planes: nearer to what was filmed, and RGB where somebody asks for it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_datasets.store.jpeg import decode_frame, frame_encoder
from robo_datasets.store.planar import PlanarFrame, subsampling_of
from robo_datasets.video.presentation_times import colours_shown_at, frames_shown_at, shown_frames
from robo_datasets.video.rotation import turned


def smooth(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = 128 + 100 * np.sin((x + number) / 20), 128 + 100 * np.cos(y / 15), 128 + 100 * np.sin((x + y) / 25)
    return np.stack(waves, -1).astype(np.uint8)


def filmed(path: Path, images: list[np.ndarray], pix_fmt: str = "yuv420p", colours: int | None = None) -> Path:
    with av.open(str(path), "w") as container:
        # x264 takes even sizes only where colour is thinned out; FFV1 takes every one.
        codec = "libx264" if path.suffix == ".mp4" else "ffv1"
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "8"}
        if colours is not None:
            stream.codec_context.colorspace = colours
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def both(path: Path) -> tuple[list[np.ndarray | PlanarFrame], list[np.ndarray]]:
    ticks = shown_frames(path).ticks
    return list(colours_shown_at(path, ticks)), list(frames_shown_at(path, ticks))


def factors(data: bytes) -> tuple[int, int]:
    """Sampling factors of brightness (across, down), from the frame header of a JPEG file."""
    at = data.index(b"\xff\xc0")
    return data[at + 11] >> 4, data[at + 11] & 15


def error(data: bytes, image: np.ndarray) -> float:
    return float(np.abs(decode_frame(np.frombuffer(data, np.uint8)).astype(float) - image).mean())


@pytest.mark.parametrize(
    ("pix_fmt", "wanted"),
    [("yuv420p", (2, 2)), ("yuvj420p", (2, 2)), ("yuv422p", (2, 1)), ("yuv444p", (1, 1)), ("yuvj444p", (1, 1))],
)
def test_the_planes_of_a_video_are_kept_and_come_nearer_to_what_was_filmed(tmp_path, pix_fmt, wanted):
    images = [smooth(number) for number in range(6)]
    planar, rgb = both(filmed(tmp_path / "video.mp4", images, pix_fmt))
    encode = frame_encoder(95, "4:4:4")
    ours, through_rgb = [], []
    for image, frame, colours in zip(images, planar, rgb, strict=True):
        assert isinstance(frame, PlanarFrame)
        assert frame.shape == image.shape
        data = encode(frame)
        assert factors(data) == wanted
        ours.append(error(data, image))
        through_rgb.append(error(encode(colours), image))
    assert np.mean(ours) < 1.6
    assert np.mean(ours) < np.mean(through_rgb) + 0.2


def test_sizes_that_are_odd_are_kept_too(tmp_path):
    images = [smooth(number, 47, 61) for number in range(3)]
    planar, _ = both(filmed(tmp_path / "video.mkv", images))
    for image, frame in zip(images, planar, strict=True):
        assert isinstance(frame, PlanarFrame)
        assert error(frame_encoder(95, "4:4:4")(frame), image) < 3


def test_as_an_array_a_frame_is_what_the_decoder_gives_as_rgb(tmp_path):
    planar, rgb = both(filmed(tmp_path / "video.mp4", [smooth(number) for number in range(3)]))
    for frame, colours in zip(planar, rgb, strict=True):
        np.testing.assert_array_equal(np.asarray(frame), colours)


def test_colours_that_jpeg_has_not_go_through_rgb(tmp_path):
    bt709 = 1
    planar, rgb = both(filmed(tmp_path / "video.mp4", [smooth(number) for number in range(3)], colours=bt709))
    for frame, colours in zip(planar, rgb, strict=True):
        assert isinstance(frame, np.ndarray)
        np.testing.assert_array_equal(frame, colours)


def test_colour_is_thinned_out_where_less_is_asked_for_than_the_video_has(tmp_path):
    planar, rgb = both(filmed(tmp_path / "video.mp4", [smooth(0)], "yuv444p"))
    encode = frame_encoder(95, "4:2:0")
    assert encode(planar[0]) == encode(rgb[0])
    assert factors(encode(planar[0])) == (2, 2)


@pytest.mark.parametrize("codec", ["raw", "lossless"])
def test_stores_without_jpeg_hold_the_rgb_image(tmp_path, codec):
    planar, rgb = both(filmed(tmp_path / "video.mp4", [smooth(number) for number in range(3)]))
    features = {"observation.images.front": {"dtype": "uint8", "shape": (96, 128, 3), "names": None}}
    store = DemoStore.create(tmp_path / "demos.zarr", features, fps=10, codec=codec)
    with store.writer(task="look") as episode:
        for frame in planar:
            episode.add({"observation.images.front": frame})
    np.testing.assert_array_equal(store[0]["observation.images.front"][:], np.stack(rgb))


def test_a_frame_of_another_size_is_refused_as_any_array_is(tmp_path):
    planar, _ = both(filmed(tmp_path / "video.mp4", [smooth(0)]))
    features = {"observation.images.front": {"dtype": "uint8", "shape": (64, 64, 3), "names": None}}
    store = DemoStore.create(tmp_path / "demos.zarr", features, fps=10)
    with pytest.raises(StoreError, match=r"frame 0, observation\.images\.front: shape \(96, 128, 3\)"):  # noqa: SIM117
        with store.writer(task="look") as episode:
            episode.add({"observation.images.front": planar[0]})


def test_what_is_read_back_is_what_opencv_makes_of_the_bytes(tmp_path):
    planar, _ = both(filmed(tmp_path / "video.mp4", [smooth(number) for number in range(3)]))
    features = {"observation.images.front": {"dtype": "uint8", "shape": (96, 128, 3), "names": None}}
    store = DemoStore.create(tmp_path / "demos.zarr", features, fps=10)
    with store.writer(task="look") as episode:
        for frame in planar:
            episode.add({"observation.images.front": frame})
    encode = frame_encoder(95, "4:4:4")
    for number, frame in enumerate(planar):
        expected = cv2.imdecode(np.frombuffer(encode(frame), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(store[0]["observation.images.front"][number], expected)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p"])
def test_a_frame_is_turned_by_its_planes_or_as_an_image(tmp_path, pix_fmt):
    images = [smooth(0)]
    (frame,), _ = both(filmed(tmp_path / "video.mp4", images, pix_fmt))
    encode = frame_encoder(95, "4:4:4")
    for turns in (1, 2, 3):
        lying = turned(frame, turns)
        assert isinstance(lying, PlanarFrame) == (pix_fmt == "yuv420p")
        np.testing.assert_array_equal(np.asarray(lying), np.rot90(np.asarray(frame), turns))
        assert error(encode(lying), np.rot90(images[0], turns)) < 3


def test_planes_of_shapes_that_jpeg_has_not_are_refused():
    planes = np.zeros((8, 8), np.uint8), np.zeros((8, 2), np.uint8), np.zeros((8, 2), np.uint8)
    with pytest.raises(StoreError, match="no subsampling that JPEG knows"):
        subsampling_of(planes)
