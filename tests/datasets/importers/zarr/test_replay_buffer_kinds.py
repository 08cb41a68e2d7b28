"""Replay buffers as people have them: Zarr v3, channels first, OpenGL rows, BGR, floats, depth, odd arrays."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_demos import smooth_frames

from robo_core.errors import ImportSourceError
from robo_datasets import DemoStore
from robo_datasets.importers.zarr.zarr_v2 import FolderFiles
from robo_datasets.importers.zarr.zarr_v3 import open_array

ENDS = (12, 30)
IMAGES = smooth_frames(30, 24, 32)
CAM = "observation.images.cam"


def write(path: Path, version: int = 2, ends: tuple[int, ...] = ENDS, seed: int = 0, **arrays: Any) -> Path:
    rng = np.random.default_rng(seed)
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    data, meta = group.create_group("data"), group.create_group("meta")
    numbers = {key: rng.normal(size=(ends[-1], 4)).astype("f4") for key in ("state", "action")}
    for key, rows in {**numbers, **arrays}.items():
        with zarr.config.set({"array.write_empty_chunks": True}):
            data.create_array(key, data=rows, chunks=(7, *rows.shape[1:]))
    meta.create_array("episode_ends", data=np.array(ends, "i8"))
    return path


@pytest.fixture
def bring_in(tmp_path: Path, run_command: Any) -> Any:
    def run(source: Path, *more: str, name: str = "d.zarr") -> tuple[DemoStore | None, str]:
        store = tmp_path / "stores" / name
        words = (f"source={source}", f"store={store}", "workers=0", "fps=10", "codec=lossless", *more)
        code, out, err = run_command("import", "diffusion-policy", *words)
        assert code in (0, 2), out + err
        return (DemoStore.open(store) if code == 0 else None), out + err

    return run


def images_of(store: DemoStore, key: str = CAM) -> np.ndarray:
    return np.concatenate([episode[key][:] for episode in store])


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_of_zarr_are_read(tmp_path, bring_in, version):
    store, _ = bring_in(write(tmp_path / "a.zarr", version, cam=IMAGES))
    assert [episode.length for episode in store] == [12, 18]
    np.testing.assert_array_equal(images_of(store), IMAGES)
    wanted = np.random.default_rng(0).normal(size=(30, 4)).astype("f4")
    assert np.concatenate([episode["observation.state"][:] for episode in store]).tobytes() == wanted.tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_v3_array_of_zarr_python_reads_the_same(tmp_path_factory, data):
    """Ranks, chunks, shards, orders, types and codecs, against zarr-python itself."""
    from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    chunks = tuple(data.draw(st.integers(1, side + 2)) for side in shape)
    dtype = data.draw(st.sampled_from(["float32", "float64", "uint8", "int64", "uint16", "bool", "float16"]))
    packing = data.draw(
        st.lists(st.sampled_from([ZstdCodec(), GzipCodec(), BloscCodec(), Crc32cCodec()]), max_size=2, unique_by=type)
    )
    options: dict[str, Any] = {"compressors": packing or None}
    if data.draw(st.booleans()):
        options["shards"] = tuple(side * data.draw(st.integers(1, 3)) for side in chunks)
    if data.draw(st.booleans()):
        order = data.draw(st.permutations(range(len(shape))))
        options["filters"] = [TransposeCodec(order=tuple(order))]
    if data.draw(st.booleans()):
        options["chunk_key_encoding"] = {"name": "v2", "separator": "."}
    folder = tmp_path_factory.mktemp("any")
    rows = (np.random.default_rng(0).normal(size=shape) * 9).astype(dtype)
    array = zarr.create_array(
        str(folder / "a"), shape=shape, chunks=chunks, dtype=dtype, zarr_format=3,
        config={"write_empty_chunks": True}, **options,
    )  # fmt: skip
    array[:] = rows
    found = open_array(FolderFiles(folder), "a")
    assert found.rows(0, shape[0]).tobytes() == rows.tobytes()
    for file in (path for path in (folder / "a").rglob("*") if path.is_file() and path.name != "zarr.json"):
        file.write_bytes(file.read_bytes()[:-1])
    cut = open_array(FolderFiles(folder), "a")
    with pytest.raises(ImportSourceError, match="truncated or damaged"):
        cut.rows(0, shape[0])


def test_a_chunk_of_a_v3_buffer_that_is_missing_is_an_error_unless_it_stands_for_zeros(tmp_path, bring_in):
    source = write(tmp_path / "a.zarr", 3)
    (source / "data/action/c/1/0").unlink()
    _, said = bring_in(source)
    assert "chunk data/action/c/1/0 is missing" in said
    store, _ = bring_in(source, "missing_chunks=zeros")
    assert not store[0]["action"][7:12].any()


@pytest.mark.parametrize("version", [2, 3])
def test_channels_first_become_cameras_and_it_is_said(tmp_path, bring_in, version):
    source = write(tmp_path / "a.zarr", version, cam=np.ascontiguousarray(np.moveaxis(IMAGES, -1, 1)))
    store, said = bring_in(source)
    np.testing.assert_array_equal(images_of(store), IMAGES)
    assert "cam (30, 3, 24, 32): assumed to be images (channel, height, width)" in said
    _, said = bring_in(source, "layout=hwc", name="e.zarr")
    assert "observation.images" not in said


@pytest.mark.parametrize(
    ("flip", "turned"),
    [
        ("vertical", lambda rows: rows[:, ::-1]),
        ("horizontal", lambda rows: rows[:, :, ::-1]),
        ("both", lambda rows: rows[:, ::-1, ::-1]),
    ],
)
def test_images_may_be_turned(tmp_path, bring_in, flip, turned):
    store, _ = bring_in(write(tmp_path / "a.zarr", cam=np.ascontiguousarray(turned(IMAGES))), f"flip={flip}")
    np.testing.assert_array_equal(images_of(store), IMAGES)


def test_blue_may_stand_first(tmp_path, bring_in):
    store, _ = bring_in(write(tmp_path / "a.zarr", cam=IMAGES[..., ::-1].copy()), "colours=bgr")
    np.testing.assert_array_equal(images_of(store), IMAGES)
    _, said = bring_in(tmp_path / "a.zarr", "colours=blue", name="e.zarr")
    assert "colours=blue is not one of: rgb, bgr" in said


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("black", [1, 29])
def test_the_scale_of_floats_is_seen_past_black_frames(tmp_path, bring_in, white, black):
    """A camera that starts late gives black frames; the first one says nothing."""
    rows = IMAGES.astype("f4") * (white / 255)
    rows[:black] = 0
    store, said = bring_in(write(tmp_path / "a.zarr", cam=rows))
    np.testing.assert_array_equal(images_of(store)[black:], IMAGES[black:])
    assert f"{white} was assumed to be white" in said


def test_floats_on_no_known_scale_are_named(tmp_path, bring_in):
    source = write(tmp_path / "a.zarr", cam=IMAGES.astype("f4") / 127.5 - 1)
    _, said = bring_in(source)
    assert "cam looks like images of floats, but its values go from" in said
    store, _ = bring_in(source, "drop=[cam]")
    assert store.cameras == []
    dim = write(tmp_path / "b.zarr", cam=np.full((30, 24, 32, 3), 1.0, "f4"))
    store, _ = bring_in(dim, "image_scale=255", name="e.zarr")
    assert set(np.unique(images_of(store))) == {1}


def test_depth_stays_depth(tmp_path, bring_in):
    metres = np.random.default_rng(1).uniform(0.3, 4, (30, 24, 32)).astype("f4")
    metres[0, 0] = np.nan
    levels = np.rint(np.nan_to_num(metres).astype("f8") * 1000).astype("u2")
    wide = np.random.default_rng(1).uniform(0.3, 4, (30, 1, 40, 48)).astype("f4")
    source = write(tmp_path / "a.zarr", head_depth=levels[..., None], wrist_depth=metres[..., None], left_depth=wide)
    store, said = bring_in(source)
    for key in ("head_depth", "wrist_depth"):
        assert store.schema[f"observation.images.{key}"].dtype == "uint16"
        np.testing.assert_array_equal(images_of(store, f"observation.images.{key}")[..., 0], levels)
    assert store.schema["observation.images.left_depth"].shape == (40, 48, 1)
    assert store.schema["observation.images.head_depth"].depth == {"unit": "mm", "scale": 0.001}
    assert "wrist_depth was read as depth in metres" in said


def test_what_cannot_be_read_can_be_left_out(tmp_path, bring_in):
    source = write(tmp_path / "a.zarr")
    (source / "data/note").mkdir()
    entry = {
        "zarr_format": 2, "shape": [30], "chunks": [30], "dtype": "|O", "compressor": None, "fill_value": None,
        "order": "C", "filters": [{"id": "vlen-utf8"}],
    }  # fmt: skip
    (source / "data/note/.zarray").write_text(json.dumps(entry))
    (source / "data/note/0").write_bytes(numcodecs.VLenUTF8().encode(np.array(["a"] * 30, object)))
    _, said = bring_in(source)
    assert "data/note is of dtype '|O'" in said
    assert "drop=[note] leaves it out" in said
    store, said = bring_in(source, "drop=[note]")
    assert len(store) == 2
    assert "left out: note" in said


def test_an_archive_of_the_folder_itself_is_read(tmp_path, bring_in):
    source = write(tmp_path / "a.zarr", cam=IMAGES)
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w") as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.write(path, f"a.zarr/{path.relative_to(source)}")
    store, _ = bring_in(tmp_path / "a.zarr.zip")
    np.testing.assert_array_equal(images_of(store), IMAGES)


def test_what_is_missing_is_named(tmp_path, bring_in):
    source = write(tmp_path / "all/a.zarr")
    _, said = bring_in(tmp_path / "all")
    assert "is the folder of a.zarr; give one of them as source=" in said
    shutil.rmtree(source / "meta")
    _, said = bring_in(source)
    assert "it lacks meta/episode_ends; it has data, data/action, data/state" in said


def test_the_instruction_may_stand_in_the_attributes(tmp_path, bring_in):
    source = write(tmp_path / "a.zarr")
    _, said = bring_in(source)
    assert "the format holds no instruction" in said
    zarr.open_group(str(source), mode="a").attrs["instruction"] = "stack the blocks"
    store, said = bring_in(source, name="e.zarr")
    assert {episode.task for episode in store} == {"stack the blocks"}


@pytest.mark.parametrize("version", [2, 3])
def test_a_buffer_that_grows_or_is_written_anew_adds_what_is_new(tmp_path, bring_in, version):
    more = smooth_frames(40, 24, 32)
    numbers = {key: np.random.default_rng(9).normal(size=(40, 4)).astype("f4") for key in ("state", "action")}
    write(tmp_path / "a.zarr", 2, ENDS, cam=more[:30], **{key: rows[:30] for key, rows in numbers.items()})
    first, _ = bring_in(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", version, (12, 30, 40), cam=more, **numbers)
    again, said = bring_in(tmp_path / "b.zarr")
    assert (len(again), "2 were there already" in said) == (3, True)
    same, said = bring_in(tmp_path / "b.zarr", "flip=vertical", "task=another")
    assert len(same) == 3
    assert {episode.uuid for episode in first} <= {episode.uuid for episode in same}


def test_two_buffers_of_one_shape_are_two(tmp_path, bring_in):
    bring_in(write(tmp_path / "a.zarr", seed=1))
    store, _ = bring_in(write(tmp_path / "b.zarr", seed=2))
    assert len(store) == 4


def test_videos_of_a_lower_rate_beside_a_buffer_are_aligned_by_time(tmp_path, bring_in):
    """The robot is recorded at 10 Hz, its camera at 5: taken frame by frame the images would run ahead."""
    from robo_datasets.video.writer import VideoWriter

    write(tmp_path / "real/replay_buffer.zarr", timestamp=100 + np.arange(30) / 10)
    for episode, (start, end) in enumerate(((0, 12), (12, 30))):
        path = tmp_path / f"real/videos/{episode}/0.mp4"
        path.parent.mkdir(parents=True)
        with VideoWriter(path, 48, 64, 5, crf=5) as video:
            for number in range((end - start) // 2):
                video.add(np.full((48, 64, 3), 20 + 10 * number, np.uint8))
    store, _ = bring_in(tmp_path / "real")
    for episode in store:
        levels = (episode["observation.images.camera_0"][:].mean((1, 2, 3)) - 20) / 10
        wanted = np.arange(episode.length) / 2
        assert (np.abs(levels - np.minimum(wanted, wanted[-2])) <= 0.75).all()


def test_an_episode_without_rows_need_not_stop_the_others(tmp_path, bring_in):
    stage = np.zeros(30, "i8")
    source = write(tmp_path / "a.zarr", ends=(12, 12, 30), timestamp=np.arange(30) / 10, stage=stage)
    _, said = bring_in(source)
    assert "episode 1 of meta/episode_ends has no rows" in said
    store, said = bring_in(source, "skip_bad=true")
    assert [episode.length for episode in store] == [12, 18]
    _, said = bring_in(write(tmp_path / "b.zarr", ends=(12, 10, 30)), name="b.zarr")
    assert "episode 1 ends at row 10 and starts at 12" in said


def test_a_group_among_the_arrays_is_called_one(tmp_path, bring_in):
    source = write(tmp_path / "a.zarr", 3, **{"obs/cam": IMAGES})
    _, said = bring_in(source)
    assert "data/obs is a group of cam" in said
    store, _ = bring_in(source, "drop=[obs]", name="e.zarr")
    assert len(store) == 2


def test_time_stamps_that_go_back_or_jump_are_said(tmp_path, bring_in):
    times = np.arange(30) / 10
    times[5:12] -= 0.3
    times[20:] += 7
    store, said = bring_in(write(tmp_path / "a.zarr", timestamp=times))
    assert "episode 0: the time stamps do not rise at frame 5 (0.400 to 0.200 s)" in said
    assert "episode 1: the time stamps jump by 7.100 s after frame 7" in said
    assert store[1].timestamp[-1] == times[-1]


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_of_one_row_an_episode_are_kept_and_tell_the_outcome(tmp_path, bring_in, version):
    source = write(tmp_path / "a.zarr", version)
    meta = zarr.open_group(str(source), mode="a")["meta"]
    meta.create_array("episode_success", data=np.array([True, False]))
    meta.create_array("scene", data=np.array([4, 7]))
    meta.create_array("start", data=np.arange(6.0).reshape(2, 3))
    meta.create_array("lengths", data=np.arange(1, 31))
    store, said = bring_in(source)
    assert [episode.success for episode in store] == [True, False]
    assert store[1].attributes == {"episode_success": False, "scene": 7, "start": [3.0, 4.0, 5.0]}
    assert "nothing in the data says" not in said
    assert "meta/lengths was left out: it has the shape (30,), not one row for each episode" in said
