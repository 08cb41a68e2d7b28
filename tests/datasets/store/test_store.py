from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from small_demos import FEATURES, FRONT, add_episode, append_episodes, checksum, make_arrays, smooth_frames

from robo_core.errors import CorruptionError, LabelError, StoreError
from robo_datasets import DemoStore
from robo_datasets.store.index import DamagedEpisodeWarning

JPEG_TOLERANCE = 3.0  # mean absolute difference of 8-bit levels at quality 95, 4:4:4


def test_what_is_written_is_read_back(make_store):
    store = make_store(episodes=0)
    arrays = make_arrays(12)
    with store.writer(task="pick", source={"file": "a"}, attributes={"quality": "slow"}) as writer:
        for i in range(12):
            writer.add({key: value[i] for key, value in arrays.items()}, timestamp=5 + i / 10, stage=i // 6)
        writer.success = True
    episode = DemoStore.open(store.path)[0]
    assert (episode.length, episode.task, episode.success) == (12, "pick", True)
    assert episode.source == {"file": "a"}
    assert episode.attributes == {"quality": "slow"}
    np.testing.assert_array_equal(episode.timestamp, 5 + np.arange(12) / 10)
    np.testing.assert_array_equal(episode.stage, np.arange(12) // 6)
    assert [tuple(run) for run in episode.stages] == [(0, 6, 0, "reach"), (6, 12, 1, "place")]
    for key in ("observation.state", "action"):
        np.testing.assert_array_equal(episode[key][:], arrays[key])
    assert np.abs(episode[FRONT][:].astype(int) - arrays[FRONT]).mean() < JPEG_TOLERANCE


def test_stock_zarr_reads_the_same_arrays(make_store):
    store = make_store(episodes=1)
    episode = store[0]
    group = zarr.open_group(store.path, mode="r")[f"episodes/{episode.uuid}"]
    assert group.attrs["task"] == "pick"
    for key in (FRONT, "observation.state", "action"):
        np.testing.assert_array_equal(group[key][:], episode[key][:])
    np.testing.assert_array_equal(group["stage"][:], episode.stage)
    np.testing.assert_array_equal(group["timestamp"][:], episode.timestamp)
    assert zarr.open_group(store.path, mode="r").attrs["robo_demos"]["fps"] == 10


def test_zarr_can_write_the_jpeg_codec(tmp_path):
    from robo_datasets.store.jpeg_codec import JpegCodec

    frames = make_arrays(4)[FRONT]
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=frames.shape,
        chunks=(1, *frames.shape[1:]),
        dtype="uint8",
        serializer=JpegCodec(quality=90, subsampling="4:2:0"),
        compressors=None,
    )
    array[:] = frames
    assert np.abs(zarr.open_array(tmp_path / "a.zarr")[:].astype(int) - frames).mean() < 3 * JPEG_TOLERANCE


@pytest.mark.parametrize("codec", ["lossless", "raw", "jpeg"])
def test_lossless_and_depth_frames_are_bit_exact(tmp_path, codec):
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 65536, (5, 6, 8, 1), dtype=np.uint16)
    colour = rng.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)
    features = {
        "observation.images.depth": {"shape": (6, 8, 1), "dtype": "uint16"},
        "observation.images.front": {"shape": (6, 8, 3), "dtype": "uint8"},
    }
    store = DemoStore.create(tmp_path / "a.zarr", features, fps=10, codec=codec)
    with store.writer() as writer:
        writer.extend({"observation.images.depth": depth, "observation.images.front": colour})
    episode = store[0]
    np.testing.assert_array_equal(episode["observation.images.depth"][:], depth)
    group = zarr.open_group(episode.path, mode="r")
    np.testing.assert_array_equal(group["observation.images.depth"][:], depth)
    if codec != "jpeg":
        np.testing.assert_array_equal(episode["observation.images.front"][:], colour)
        np.testing.assert_array_equal(episode["observation.images.front"][3], colour[3])
        episode["observation.images.front"][3][:] = 0  # a copy of the reader's own
        np.testing.assert_array_equal(group["observation.images.front"][:], colour)


@pytest.mark.parametrize(
    "index", [0, -1, 11, slice(None), slice(2, 9, 3), slice(None, None, -2), [3, 1, 1], np.array([5]), []]
)
def test_indexing_is_that_of_numpy(make_store, index):
    episode = make_store(episodes=1)[0]
    for key in (FRONT, "action"):
        whole = episode[key][:]
        expected = whole[np.asarray(index, int) if isinstance(index, list) else index]
        np.testing.assert_array_equal(episode[key][index], expected)


def test_indices_outside_the_episode_are_errors(make_store):
    episode = make_store(episodes=1)[0]
    for index in (12, -13, [0, 12]):
        with pytest.raises(IndexError):
            episode[FRONT][index]
        with pytest.raises(IndexError):
            episode["action"][index]


@given(
    length=st.integers(1, 9),
    width=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool", "int16"]),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_any_low_dimensional_bits_survive(tmp_path_factory, length, width, dtype, data):
    size = length * width * np.dtype(dtype).itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    rows = np.frombuffer(raw, np.uint8 if dtype == "bool" else dtype)
    rows = (rows > 127 if dtype == "bool" else rows).reshape(length, width)
    path = tmp_path_factory.mktemp("bits") / "a.zarr"
    store = DemoStore.create(path, {"x": {"shape": (width,), "dtype": dtype}}, fps=1)
    with store.writer() as writer:
        writer.extend({"x": rows})
    assert DemoStore.open(path)[0]["x"][:].tobytes() == rows.tobytes()


def test_resized_frames_are_close_to_the_resized_original(tmp_path):
    import cv2

    frames = smooth_frames(2, 240, 320)
    store = DemoStore.create(tmp_path / "a.zarr", {FRONT: {"shape": (240, 320, 3), "dtype": "uint8"}}, fps=10)
    with store.writer() as writer:
        writer.extend({FRONT: frames})
    for size in ((120, 160), (84, 84), (96, 128), (30, 40), (17, 200), (480, 640)):
        small = store[0].frames(FRONT, [1, 0], size=size)
        method = cv2.INTER_AREA if size[0] <= 240 and size[1] <= 320 else cv2.INTER_LINEAR
        expected = np.stack([cv2.resize(frames[i], size[::-1], interpolation=method) for i in (1, 0)])
        assert small.shape == (2, *size, 3)
        assert np.abs(small.astype(int) - expected).mean() < 3


def test_an_exception_discards_the_episode(make_store):
    store = make_store(episodes=1)

    def record():
        with store.writer() as writer:
            writer.extend(make_arrays(3))
            raise RuntimeError("the robot fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        record()
    assert len(DemoStore.open(store.path)) == 1
    assert os.listdir(store.path / ".staging") == []


def test_frames_that_do_not_fit_are_refused_and_name_frame_and_key(make_store):
    store = make_store(episodes=0)
    good = {key: value[0] for key, value in make_arrays(1).items()}
    with store.writer() as writer:
        writer.add(good)
        wrong = [
            ({**good, "action": np.zeros(4, np.float32)}, "frame 1, action: shape"),
            ({**good, "action": np.array(["a", "b", "c"])}, "frame 1, action: type"),
            ({**good, FRONT: good[FRONT].astype(np.float32)}, f"frame 1, {FRONT}: type"),
            ({"action": good["action"]}, "missing features"),
            ({**good, "extra": 1}, r"unknown features \['extra'\]"),
        ]
        for frame, message in wrong:
            with pytest.raises(StoreError, match=message):
                writer.add(frame)
        with pytest.raises(LabelError, match="unknown stage 'fly'"):
            writer.add(good, stage="fly")
        with pytest.raises(LabelError, match="frame 1: stage 2"):
            writer.add(good, stage=2)
        with pytest.raises(StoreError, match="for all frames of an episode or for none"):
            writer.add(good, timestamp=1.0)
        writer.add(good, stage="place")
    assert store[0].length == 2
    assert store[0].stage.tolist() == [-1, 1]


def test_an_episode_without_frames_is_an_error(make_store):
    store = make_store(episodes=0)
    with pytest.raises(StoreError, match="without frames"), store.writer():
        pass
    assert len(DemoStore.open(store.path)) == 0


def test_attributes_that_are_no_json_are_an_error(make_store):
    store = make_store(episodes=0)
    with pytest.raises(StoreError, match="plain JSON"), store.writer(attributes={"x": object()}) as writer:
        writer.extend(make_arrays(2))
    assert os.listdir(store.path / ".staging") == []


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "at least one feature"),
        ({"../escape": {"shape": (1,), "dtype": "float32"}}, "feature key"),
        ({"a": {"shape": (0,), "dtype": "float32"}}, "from 1 up"),
        ({"a": {"shape": (10**12,), "dtype": "float32"}}, "from 1 up"),
        ({"a": {"shape": (10**5, 10**5), "dtype": "float32"}}, "larger than 1 GiB"),
        ({"a": {"shape": (1,), "dtype": "object"}}, "dtype 'object'"),
        ({"stage": {"shape": (1,), "dtype": "int16"}}, "kept by the store"),
        ({"a": {"dtype": "float32"}}, "needs a shape"),
        ({FRONT: {"shape": (4, 4, 3), "dtype": "uint8", "codec": "webp"}}, "codec 'webp'"),
        ({FRONT: {"shape": (4, 4, 3), "dtype": "uint8", "codec": {"name": "jpeg", "quality": 0}}}, "quality"),
    ],
)
def test_impossible_features_are_refused(tmp_path, features, message):
    with pytest.raises(StoreError, match=message):
        DemoStore.create(tmp_path / "a.zarr", features, fps=10)
    assert not (tmp_path / "a.zarr").exists()


def test_opening_what_is_no_store_says_so(tmp_path):
    with pytest.raises(StoreError, match="there is no demo store"):
        DemoStore.open(tmp_path / "none.zarr")
    with pytest.raises(StoreError, match="not a demo store"):
        DemoStore.open(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="no robo_demos"):
        DemoStore.open(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="already holds something"):
        DemoStore.create(tmp_path / "other.zarr", FEATURES, fps=10)


def test_another_version_is_named(make_store):
    store = make_store(episodes=0)
    path = store.path / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["robo_demos"]["version"] = 7
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="version 7"):
        DemoStore.open(store.path)


def test_another_schema_is_refused_when_appending(make_store):
    store = make_store(episodes=0)
    same = DemoStore.open_or_create(store.path, FEATURES, 10, ["reach", "place"])
    assert same.stages == ["reach", "place"]
    with pytest.raises(StoreError, match="action is"):
        DemoStore.open_or_create(store.path, {**FEATURES, "action": {"shape": (7,), "dtype": "float32"}}, 10)
    with pytest.raises(StoreError, match="another schema"):
        DemoStore.open_or_create(store.path, {"action": FEATURES["action"]}, 10)
    more = {**FEATURES, "extra": {"shape": (2,), "dtype": "float32"}}
    with pytest.raises(StoreError, match=r"add \['extra'\]; drop=\[extra\] leaves that out of an import"):
        DemoStore.open_or_create(store.path, more, 10)
    with pytest.raises(StoreError, match="frames/s"):
        DemoStore.open_or_create(store.path, FEATURES, 30)
    with pytest.raises(StoreError, match="stages"):
        DemoStore.open_or_create(store.path, FEATURES, 10, ["fly"])


def test_the_index_may_vanish_break_or_lag(make_store):
    store = make_store(episodes=3)
    expected = store.uuids
    index = store.path / "index.json"
    for damage in (index.unlink, lambda: index.write_bytes(b""), lambda: index.write_bytes(index.read_bytes()[:-40])):
        DemoStore.open(store.path)
        damage()
        assert DemoStore.open(store.path).uuids == expected
        assert index.exists()
    other = DemoStore.open(store.path)
    add_episode(store, seed=9)
    assert len(other) == 3
    other.refresh()
    assert other.uuids == store.uuids == DemoStore.open(store.path).uuids


def test_losing_an_episode_shifts_no_other(make_store):
    import shutil

    store = make_store(episodes=4)
    uuids = store.uuids
    shutil.rmtree(store.path / "episodes" / uuids[1])
    left = DemoStore.open(store.path)
    assert left.uuids == [uuids[0], uuids[2], uuids[3]]


def test_an_episode_without_commit_record_is_ignored(make_store):
    store = make_store(episodes=1)
    stray = store.path / "episodes" / "00000000-0000-4000-8000-000000000000"
    stray.mkdir()
    (stray / "zarr.json").write_text("{}")
    assert DemoStore.open(store.path).uuids == store.uuids


def test_an_unindexed_episode_with_a_damaged_record_is_left_out_with_a_warning(make_store):
    store = make_store(episodes=2)
    (store.path / "index.json").unlink(missing_ok=True)
    path = store[0].path / "COMMIT.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(DamagedEpisodeWarning, match=r"COMMIT\.json"):
        assert DemoStore.open(store.path).uuids == store.uuids[1:]


def test_edits_are_versioned_and_change_the_hash(make_store):
    store = make_store(episodes=1)
    uuid, first = store.uuids[0], store.content_hash()
    store.set_stages(uuid, np.full(12, -1))
    store.set_success(uuid, False)
    episode = DemoStore.open(store.path)[0]
    assert episode.stage.tolist() == [-1] * 12
    assert episode.stages == []
    assert episode.success is False
    assert len(list((store.path / "annotations" / uuid).glob("*.json"))) == 2
    assert store.content_hash() != first
    store.set_success(uuid, None)
    assert store[0].success is None
    assert store[0].stage.tolist() == [-1] * 12


def test_wrong_edits_name_episode_and_frame(make_store):
    store = make_store(episodes=1)
    uuid = store.uuids[0]
    with pytest.raises(LabelError, match=f"{uuid}, frame 3: stage 2"):
        store.set_stages(uuid, [0, 0, 0, 2] + [0] * 8)
    with pytest.raises(LabelError, match="12 frames"):
        store.set_stages(uuid, [0])
    with pytest.raises(LabelError, match="whole numbers"):
        store.set_stages(uuid, np.zeros(12))
    with pytest.raises(StoreError, match="no episode"):
        store.set_success("nobody", True)
    with pytest.raises(StoreError, match="true, false or null"):
        store.set_success(uuid, "yes")
    assert not (store.path / "annotations").exists()


def test_content_hash_depends_on_content_alone(make_store, tmp_path):
    import shutil

    store = make_store(episodes=2)
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    (tmp_path / "copy.zarr" / "index.json").unlink(missing_ok=True)
    assert DemoStore.open(tmp_path / "copy.zarr").content_hash() == store.content_hash()
    before = store.content_hash()
    add_episode(store)
    assert store.content_hash() != before


def test_removing_takes_annotations_and_derived_arrays_along(make_store):
    store = make_store(episodes=2)
    uuid, kept = store.uuids
    store.set_success(uuid, False)
    derived = store.derive("progress", {})
    derived.write(uuid, {"progress": np.zeros(12, np.float32)})
    store.remove([uuid])
    assert DemoStore.open(store.path).uuids == store.uuids == [kept]
    assert not (store.path / "annotations" / uuid).exists()
    assert uuid not in derived


def test_several_processes_append_at_once(make_store):
    store = make_store(episodes=0)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_episodes, args=(store.path, seed, 10)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store.refresh()
    assert len(store) == 30
    for episode in store:
        episode.verify()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_open_stores_work_in_forked_and_spawned_processes(make_store, method):
    store = make_store(episodes=3)
    expected = [checksum(episode) for episode in store]  # the maps are open when the workers start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking this test process, which has threads
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(checksum, list(store)) == expected


def test_a_pickled_store_shows_what_the_original_showed(make_store):
    store = make_store(episodes=2)
    raw = pickle.dumps(store)
    add_episode(store)
    assert len(pickle.loads(raw)) == 2


def test_open_maps_are_bounded(make_store, monkeypatch):
    monkeypatch.setattr("robo_datasets.store.demo_store.MAX_OPEN_SHARDS", 2)
    store = make_store(episodes=5)
    for episode in [*store, *store]:
        assert len(episode[FRONT][:2]) == 2
    assert len(store._shards) == 2


def test_a_shard_truncated_while_open_is_an_error_not_a_crash(make_store):
    store = make_store(episodes=1)
    episode = store[0]
    assert episode[FRONT][0].shape == (24, 32, 3)
    shard = next((episode.path / FRONT).glob("c.*"))
    os.truncate(shard, 10)
    with pytest.raises(CorruptionError, match="changed its size"):
        episode[FRONT][0]
