"""Depth stays depth: 12-bit video and 16-bit images in millimetres, and nothing that 8 bits have lost."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from robo_core.errors import ImportSourceError, StoreError
from robo_datasets import DemoStore
from robo_datasets.doctor.examine import examine
from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings
from robo_datasets.importers.lerobot.alignment import LeRobotReading
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source
from robo_datasets.importers.lerobot.v3 import LeRobotV3Source
from robo_datasets.importers.run import import_source
from tests.datasets.lerobot_sets import HEIGHT, WIDTH, as_v3, png, tiff, write_v21

DEPTH = "observation.images.top"
MM = {"unit": "mm", "scale": 0.001}


def scene(length: int, seed: int = 0) -> np.ndarray:
    """Depth (T, H, W) uint16 in millimetres, from 300 to 4000."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(300, 3000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return (slope + rng.integers(0, 1000, (length, 1, 1))).astype(np.uint16)


def quantised(depth: np.ndarray, use_log: bool) -> np.ndarray:
    """Codes as LeRobot 0.6 makes them of millimetres."""
    low, high, shift = 0.01, 10.0, 3.5
    metres = depth / 1000
    part = (metres - low) / (high - low)
    if use_log:
        part = (np.log(metres + shift) - np.log(low + shift)) / (np.log(high + shift) - np.log(low + shift))
    return np.rint(part * 4095).clip(0, 4095).astype(np.uint16)


def depth_video(use_log: bool, pixel_format: str):
    def make(path: Path, frames: np.ndarray, fps: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx265", rate=10)
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixel_format
            stream.options = {"x265-params": "lossless=1:log-level=none"}
            for codes in quantised(scene(len(frames)), use_log):
                frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
                for plane in frame.planes:
                    plane.update(np.full(plane.buffer_size // 2, 2048, "<u2").tobytes())
                line = frame.planes[0].line_size // 2
                padded = np.zeros((HEIGHT, line), "<u2")
                padded[:, :WIDTH] = codes
                frame.planes[0].update(padded.tobytes())
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return make


@pytest.mark.parametrize("pixel_format", ["gray12le", "yuv420p12le"])
@pytest.mark.parametrize("use_log", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_twelve_bit_video_is_read_in_millimetres(tmp_path, version, use_log, pixel_format):
    info = {"is_depth_map": True, "depth_unit": "mm", "video.depth_min": 0.01, "video.depth_max": 10.0}
    info |= {"video.shift": 3.5, "video.use_log": use_log}
    camera = {"shape": [HEIGHT, WIDTH, 1], "info": info}
    make = depth_video(use_log, pixel_format)
    root = write_v21(tmp_path / "set", [6, 7], make_video=make, camera=camera, key=DEPTH)
    source = LeRobotV2Source(root) if version == 2 else LeRobotV3Source(as_v3(root, tmp_path / "v3"))
    import_source(source, tmp_path / "d.zarr", workers=0)
    store = DemoStore.open(tmp_path / "d.zarr")
    assert store.features[DEPTH]["depth"] == MM
    assert (store.schema[DEPTH].dtype, store.schema[DEPTH].codec) == ("uint16", "lossless")
    step = 3 if use_log else 2  # millimetres between two codes, halved, and rounding
    difference = np.abs(store[0][DEPTH][:].astype(int)[..., 0] - scene(6).astype(int))
    assert difference.max() <= step
    assert [f.message for f in examine(store.path).findings if DEPTH in f.message] == []


def images_of(kind):
    return lambda number, length: [kind(image) for image in scene(length, number)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", [png, tiff], ids=["png", "tiff"])
def test_sixteen_bit_images_are_kept_to_the_bit(tmp_path, version, kind):
    camera = {"shape": [HEIGHT, WIDTH, 1], "info": {"is_depth_map": True, "depth_unit": "mm"}}
    root = write_v21(tmp_path / "set", [6, 7], images=images_of(kind), camera=camera, key=DEPTH)
    source = LeRobotV2Source(root) if version == 2 else LeRobotV3Source(as_v3(root, tmp_path / "v3"))
    import_source(source, tmp_path / "d.zarr", workers=0)
    store = DemoStore.open(tmp_path / "d.zarr")
    assert store.features[DEPTH]["depth"] == MM
    assert np.array_equal(store[1][DEPTH][:][..., 0], scene(7, 1))


def test_metres_become_whole_millimetres_and_no_reading_is_zero(tmp_path):
    def floats(number: int, length: int) -> list[bytes]:
        depth = scene(length, number).astype(np.float32) / 1000
        depth[:, 0, 0], depth[:, 0, 1] = np.nan, np.inf
        return [tiff(image) for image in depth]

    camera = {"shape": [HEIGHT, WIDTH, 1], "info": {"is_depth_map": True, "depth_unit": "m"}}
    source = LeRobotV2Source(write_v21(tmp_path / "set", [6], images=floats, camera=camera, key=DEPTH))
    import_source(source, tmp_path / "d.zarr", workers=0)
    got, expected = DemoStore.open(tmp_path / "d.zarr")[0][DEPTH][:][..., 0], scene(6)
    expected[:, 0, :2] = 0
    assert np.array_equal(got, expected)
    assert any("metres" in note for note in source.notes)


def test_levels_without_a_unit_are_kept_and_said(tmp_path):
    camera = {"shape": [HEIGHT, WIDTH, 1]}
    source = LeRobotV2Source(write_v21(tmp_path / "set", [6], images=images_of(png), camera=camera, key=DEPTH))
    import_source(source, tmp_path / "d.zarr", workers=0)
    store = DemoStore.open(tmp_path / "d.zarr")
    assert "depth" not in store.features[DEPTH]
    assert np.array_equal(store[0][DEPTH][:][..., 0], scene(6))
    assert any("no unit" in note for note in source.notes)


@pytest.mark.parametrize(
    ("key", "camera"),
    [
        (DEPTH, {"info": {"is_depth_map": True}}),
        (DEPTH, {"info": {"video.is_depth_map": True}, "shape": [HEIGHT, WIDTH, 1]}),
        (DEPTH, {"video_info": {"video.is_depth_map": True}}),
        ("observation.images.wrist_depth", {}),
    ],
)
def test_depth_in_eight_bits_is_refused_unless_it_is_declared_a_image(tmp_path, key, camera):
    root = write_v21(tmp_path / "set", [6], camera=camera, key=key)
    with pytest.raises(ImportSourceError, match=r"8-bit video .* distances are lost; depth_pictures="):
        LeRobotV2Source(root)
    import_source(LeRobotV2Source(root, LeRobotReading(depth_pictures=[key])), tmp_path / "d.zarr", workers=0)
    assert DemoStore.open(tmp_path / "d.zarr").schema[key].dtype == "uint8"
    assert key not in LeRobotV2Source(root, LeRobotReading(drop=[key])).features


@pytest.mark.parametrize("version", [2, 3])
def test_a_grey_camera_has_one_channel(tmp_path, version):
    root = write_v21(tmp_path / "set", [6], camera={"shape": [HEIGHT, WIDTH, 1]})
    source = LeRobotV2Source(root) if version == 2 else LeRobotV3Source(as_v3(root, tmp_path / "v3"))
    import_source(source, tmp_path / "d.zarr", workers=0)
    frames = DemoStore.open(tmp_path / "d.zarr")[0]["observation.images.front"][:]
    assert frames.shape == (6, HEIGHT, WIDTH, 1)
    assert np.abs(frames.mean((1, 2, 3)) - (np.arange(6) * 4 + 16)).max() < 2


def test_grey_images_of_a_colour_camera_are_repeated_and_the_fourth_channel_is_left_out(tmp_path):
    def grey(number: int, length: int) -> list[bytes]:
        return [png(np.full((HEIGHT, WIDTH), 7 * row, np.uint8)) for row in range(length)]

    import_source(LeRobotV2Source(write_v21(tmp_path / "a", [6], images=grey)), tmp_path / "a.zarr", workers=0)
    frames = DemoStore.open(tmp_path / "a.zarr")[0]["observation.images.front"][:]
    assert frames.shape == (6, HEIGHT, WIDTH, 3)
    assert (np.abs(frames[3].astype(int) - 21) <= 1).all()

    def four(number: int, length: int) -> list[bytes]:
        return [png(np.full((HEIGHT, WIDTH, 4), 9, np.uint8)) for _ in range(length)]

    source = LeRobotV2Source(write_v21(tmp_path / "b", [6], images=four, camera={"shape": [HEIGHT, WIDTH, 4]}))
    import_source(source, tmp_path / "b.zarr", workers=0)
    assert DemoStore.open(tmp_path / "b.zarr").schema["observation.images.front"].shape == (HEIGHT, WIDTH, 3)
    assert any("fourth" in note for note in source.notes)


@pytest.mark.parametrize("images", ["h264", "png"])
def test_depth_goes_out_and_comes_back_with_its_unit(tmp_path, images):
    camera = {"shape": [HEIGHT, WIDTH, 1], "info": {"is_depth_map": True, "depth_unit": "mm"}}
    root = write_v21(tmp_path / "set", [6, 7], images=images_of(png), camera=camera, key=DEPTH)
    import_source(LeRobotV2Source(root), tmp_path / "d.zarr", workers=0)
    store = DemoStore.open(tmp_path / "d.zarr")
    export_lerobot(store, tmp_path / "out", LeRobotSettings(images=images), workers=0)
    for record in (True, False):
        if not record:
            (tmp_path / "out/meta/robo_rm.json").unlink()
        import_source(LeRobotV3Source(tmp_path / "out"), tmp_path / f"{record}.zarr", workers=0)
        again = DemoStore.open(tmp_path / f"{record}.zarr")
        assert again.features[DEPTH]["depth"] == MM
        for one, two in zip(store, again, strict=True):
            assert np.array_equal(one[DEPTH][:], two[DEPTH][:])


def test_depth_is_scaled_to_a_size_without_mixing_levels(tmp_path):
    camera = {"shape": [HEIGHT, WIDTH, 1], "info": {"is_depth_map": True, "depth_unit": "mm"}}
    root = write_v21(tmp_path / "set", [3], images=images_of(png), camera=camera, key=DEPTH)
    import_source(LeRobotV2Source(root, LeRobotReading(size=(16, 24))), tmp_path / "d.zarr", workers=0)
    small = DemoStore.open(tmp_path / "d.zarr")[0][DEPTH][:]
    assert small.shape == (3, 16, 24, 1)
    assert np.isin(small, scene(3)).all()


def test_depth_of_another_unit_is_another_schema(tmp_path):
    feature = {"dtype": "uint16", "shape": (4, 4, 1)}
    store = DemoStore.create(tmp_path / "d.zarr", {"depth": {**feature, "depth": MM}}, fps=10)
    with pytest.raises(StoreError, match="another schema: depth is depth of"):
        store.check_schema({"depth": {**feature, "depth": {"unit": "mm", "scale": 0.00025}}}, 10)
    with pytest.raises(StoreError, match="unit and scale"):
        DemoStore.create(tmp_path / "e.zarr", {"depth": {**feature, "depth": {"unit": "mm", "scale": 0}}}, fps=10)
