"""diffusion_policy replay buffers: read as others write them, and written as others read them."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from small_demos import smooth_frames

from robo_core.errors import ImportSourceError, StoreError
from robo_datasets import DemoStore
from robo_datasets.exporters.diffusion_policy.exporter import export_diffusion_policy
from robo_datasets.exporters.diffusion_policy.zarr_v2 import write_array
from robo_datasets.importers.zarr.decompress import decompress
from robo_datasets.importers.zarr.zarr_v2 import FolderFiles, ZarrV2Array, ZipFiles
from robo_datasets.video.writer import VideoWriter

ENDS = [6, 14, 19]
TOTAL = ENDS[-1]
IMG = "observation.images.img"


def write_buffer(path: Path, arrays: dict[str, np.ndarray], ends: list[int] = ENDS, **options: Any) -> Path:
    """Write a replay buffer with zarr-python, in the format of version 2."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    config = {"write_empty_chunks": True}
    for key, rows in {**{f"data/{k}": v for k, v in arrays.items()}, "meta/episode_ends": np.array(ends)}.items():
        chunks = (min(5, len(rows)), *rows.shape[1:])
        root.create_array(key, shape=rows.shape, chunks=chunks, dtype=rows.dtype, config=config, **options)[:] = rows
    return path


def sim_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "img": smooth_frames(TOTAL, 24, 32).astype(np.float32),
        "state": rng.normal(size=(TOTAL, 5)).astype(np.float32),
        "action": rng.normal(size=(TOTAL, 2)).astype(np.float32),
        "keypoint": rng.normal(size=(TOTAL, 9, 2)).astype(np.float32),
        "n_contacts": rng.integers(0, 3, (TOTAL, 1)).astype(np.float32),
    }


def real_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "action": rng.normal(size=(TOTAL, 6)),
        "robot_eef_pose": rng.normal(size=(TOTAL, 6)),
        "robot_joint": rng.normal(size=(TOTAL, 6)),
        "stage": np.array([0] * 4 + [1] * 2 + [0] * 8 + [-1] * 2 + [1] * 3),
        "timestamp": 1_600_000_000 + np.arange(TOTAL) * 0.1 + 0.0001 * (np.arange(TOTAL) % 2),
    }


@pytest.fixture
def sim(tmp_path: Path) -> Path:
    return write_buffer(tmp_path / "pusht.zarr", sim_arrays())


def bring_in(run_command: Any, source: Path, store: Path, *more: str) -> DemoStore:
    code, _, err = run_command("import", "diffusion-policy", f"source={source}", f"store={store}", "workers=0", *more)
    assert code == 0, err
    return DemoStore.open(store)


def test_the_key_set_of_simulated_tasks_is_read(sim, tmp_path, run_command):
    store = bring_in(run_command, sim, tmp_path / "d.zarr", "fps=10", "codec=lossless", "task=push the T")
    wanted = sim_arrays()
    assert set(store.schema) == {
        IMG,
        "observation.state",
        "action",
        "observation.keypoint",
        "observation.n_contacts",
    }
    for number, episode in enumerate(store):
        rows = slice(([0, *ENDS])[number], ENDS[number])
        assert episode["observation.state"][:].tobytes() == wanted["state"][rows].tobytes()
        assert episode["action"][:].tobytes() == wanted["action"][rows].tobytes()
        assert episode["observation.keypoint"][:].tobytes() == wanted["keypoint"][rows].tobytes()
        np.testing.assert_array_equal(episode[IMG][:], wanted["img"][rows].astype(np.uint8))
        assert (episode.task, episode.success) == ("push the T", None)
        np.testing.assert_allclose(episode.timestamp, np.arange(episode.length) / 10)


def test_the_key_set_of_real_robots_is_read_with_stages_clock_and_videos(tmp_path, run_command):
    root = tmp_path / "real"
    write_buffer(root / "replay_buffer.zarr", real_arrays())
    for number, length in enumerate(np.diff([0, *ENDS])):
        for camera in (0, 1):
            (root / f"videos/{number}").mkdir(parents=True, exist_ok=True)
            frames = smooth_frames(int(length) * 3, 48, 64, seed=10 * number + camera)
            with VideoWriter(root / f"videos/{number}/{camera}.mp4", 48, 64, 30, crf=5) as video:
                for frame in frames:
                    video.add(frame)
    store = bring_in(run_command, root, tmp_path / "d.zarr", "stage_names=[reach,push]", "cameras=[camera_1]")
    wanted = real_arrays()
    assert (store.fps, store.stages, store.cameras) == (10, ["reach", "push"], ["observation.images.camera_1"])
    assert [segment[:3] for segment in store[0].stages] == [(0, 4, 0), (4, 6, 1)]
    assert [episode.success for episode in store] == [None, False, None]
    assert (store[2].stage == [-1, -1, 1, 1, 1]).all()
    assert store[1].timestamp.tobytes() == wanted["timestamp"][6:14].tobytes()
    assert store[1]["observation.state"][:].tobytes() == wanted["robot_eef_pose"][6:14].tobytes()
    assert store[1]["observation.robot_joint"][:].tobytes() == wanted["robot_joint"][6:14].tobytes()
    shown = smooth_frames(24, 48, 64, seed=11)[::3]
    assert np.abs(store[1]["observation.images.camera_1"][:].astype(int) - shown).mean() < 6


def test_the_state_may_be_put_together(tmp_path, run_command):
    source = write_buffer(tmp_path / "b.zarr", real_arrays())
    store = bring_in(run_command, source, tmp_path / "d.zarr", "state=[robot_joint,robot_eef_pose]")
    wanted = real_arrays()
    joined = np.concatenate([wanted["robot_joint"], wanted["robot_eef_pose"]], 1)
    assert store[0]["observation.state"][:].tobytes() == joined[:6].tobytes()
    assert store.stages == ["stage 0", "stage 1"]


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float_images_on_either_scale_become_bytes(tmp_path, run_command, scale):
    arrays = sim_arrays() | {"img": smooth_frames(TOTAL, 24, 32).astype(np.float32) / 255 * scale}
    source = write_buffer(tmp_path / "b.zarr", arrays)
    store = bring_in(run_command, source, tmp_path / "d.zarr", "fps=10", "codec=lossless")
    np.testing.assert_array_equal(store[0][IMG][:], smooth_frames(TOTAL, 24, 32)[:6])


def make_store(path: Path) -> DemoStore:
    features = {
        IMG: {"shape": (24, 32, 3), "dtype": "uint8"},
        "observation.depth": {"shape": (6, 8, 1), "dtype": "uint16"},
        "observation.state": {"shape": (3,), "dtype": "float32", "names": ["x", "y", "z"]},
        "observation.pose": {"shape": (2, 2), "dtype": "float64"},
        "action": {"shape": (2,), "dtype": "float32"},
        "next.reward": {"shape": (), "dtype": "float32"},
        "simulator.progress": {"shape": (1,), "dtype": "float32"},
        "gripper": {"shape": (1,), "dtype": "bool"},
    }
    contract = {"contract_hash": "h", "contract": {"robot": "ur5", "joints": [{"name": "a"}]}}
    store = DemoStore.create(path, features, 12.5, ["reach", "push"], robot="ur5", codec="lossless", **contract)
    rng = np.random.default_rng(2)
    for number, length in enumerate((5, 7)):
        frames = smooth_frames(length, 24, 32, number)
        with store.writer(
            task=f"task {number}", success=[None, False][number], attributes={"terminated": True}
        ) as episode:
            for row in range(length):
                frame = {
                    IMG: frames[row],
                    "observation.depth": rng.integers(0, 65536, (6, 8, 1)).astype(np.uint16),
                    "observation.state": rng.normal(size=3).astype(np.float32),
                    "observation.pose": rng.normal(size=(2, 2)),
                    "action": rng.normal(size=2).astype(np.float32),
                    "next.reward": np.float32(row),
                    "simulator.progress": np.array([row / length], np.float32),
                    "gripper": np.array([row % 2 == 0]),
                }
                episode.add(frame, 5 + row / 12.5, [-1, 0, 1][row % 3] if number else 0, 6.25 + row / 12.5)
    return store


@pytest.mark.parametrize("keys", ["sim", "real"])
def test_a_store_comes_back_equal_to_the_last_bit_pixels_too(tmp_path, run_command, keys):
    store = make_store(tmp_path / "a.zarr")
    target = tmp_path / "out.zarr"
    code, out, err = run_command(
        "export", "diffusion-policy", f"store={store.path}", f"target={target}", f"keys={keys}", "workers=0"
    )
    assert (code, "2 episodes, 12 frames" in out) == (0, True), err
    back = bring_in(run_command, target, tmp_path / "b.zarr", "codec=lossless")
    assert (back.fps, back.stages, back.robot, back.contract_hash) == (12.5, ["reach", "push"], "ur5", "h")
    assert back.contract == store.contract is not None
    if keys == "sim":
        assert back.schema == store.schema
        assert bring_in(run_command, target, store.path).uuids == store.uuids, "its own episodes come in once"
    for one, two in zip(store, back, strict=True):
        for key in store.schema:
            assert one[key][:].tobytes() == two[key][:].tobytes(), key
        assert one.timestamp.tobytes() == two.timestamp.tobytes()
        assert one.receive_timestamp.tobytes() == two.receive_timestamp.tobytes()
        np.testing.assert_array_equal(one.stage, two.stage)
        assert (one.task, one.success, one.attributes) == (two.task, two.success, two.attributes)


def test_zarr_python_reads_what_is_written(tmp_path):
    store = make_store(tmp_path / "a.zarr")
    export_diffusion_policy(store, tmp_path / "out.zarr", workers=2)
    root = zarr.open_group(tmp_path / "out.zarr", mode="r", zarr_format=2)
    assert root["meta/episode_ends"][:].tolist() == [5, 12]
    assert sorted(root["data"].array_keys()) == [
        "action", "depth", "gripper", "img", "next.reward", "pose", "receive_timestamp", "simulator.progress", "stage",
        "state", "timestamp",
    ]  # fmt: skip
    np.testing.assert_array_equal(root["data/img"][5:12], store[1][IMG][:])
    np.testing.assert_array_equal(root["data/action"][:5], store[0]["action"][:])
    assert root["data/img"].chunks == (1, 24, 32, 3)
    assert root["data/stage"][:5].tolist() == [0] * 5


def test_names_that_would_meet_are_told_apart(tmp_path):
    features = {"observation.x": {"shape": (1,), "dtype": "float32"}, "x": {"shape": (1,), "dtype": "float32"}}
    store = DemoStore.create(tmp_path / "a.zarr", features, 10)
    with store.writer() as episode:
        episode.add({"observation.x": [1.0], "x": [2.0]})
    export_diffusion_policy(store, tmp_path / "out.zarr", workers=0)
    root = zarr.open_group(tmp_path / "out.zarr", mode="r", zarr_format=2)
    assert (float(root["data/observation.x"][0, 0]), float(root["data/x"][0, 0])) == (1, 2)
    with pytest.raises(StoreError, match="holds something"):
        export_diffusion_policy(store, tmp_path / "out.zarr", workers=0)


# --- files that lie ---


def edit_array(root: Path, key: str, **values: Any) -> None:
    path = root / key / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def pickle_bomb(root: Path) -> None:
    """An array of objects whose one chunk would run code if it were unpickled."""
    import os
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, Any]:
            return os.mkdir, (str(root / "boom"),)

    edit_array(root, "data/state", dtype="|O", filters=[{"id": "pickle", "protocol": 5}], compressor=None)
    (root / "data/state/0.0").write_bytes(pickle.dumps(np.array([Bomb()] * 5, object)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no group": (lambda r: shutil.rmtree(r / "data"), "is not a replay buffer"),
    "no ends": (lambda r: shutil.rmtree(r / "meta"), "is not a replay buffer"),
    "empty ends": (lambda r: edit_array(r, "meta/episode_ends", shape=[0]), "holds no episodes"),
    "ends go back": (lambda r: spoil_ends(r, [6, 5, 19]), "episode 1 ends at row 5"),
    "ends too far": (lambda r: spoil_ends(r, [6, 14, 10**12]), "has 19 rows"),
    "ends negative": (lambda r: spoil_ends(r, [-6, 14, 19]), "episode 0 ends at row -6"),
    "huge shape": (lambda r: edit_array(r, "data/action", shape=[10**14, 2]), "has 100000000000000 rows"),
    "huge rows": (lambda r: edit_array(r, "data/action", shape=[19, 10**12]), "larger than read"),
    "huge chunks": (lambda r: edit_array(r, "data/action", chunks=[10**12, 2]), "larger than read"),
    "zero chunks": (lambda r: edit_array(r, "data/action", chunks=[0, 2]), "chunks is [0, 2]"),
    "no numbers": (lambda r: edit_array(r, "data/action", shape="many"), "shape is 'many'"),
    "pickled objects": (pickle_bomb, "never objects that need unpickling"),
    "structures": (lambda r: edit_array(r, "data/action", dtype=[["a", "<f4"]]), "only numbers are read"),
    "strange codec": (lambda r: edit_array(r, "data/action", compressor={"id": "pickle"}), "the codec 'pickle'"),
    "strange filter": (lambda r: edit_array(r, "data/action", filters=[{"id": "pickle"}]), "the filter 'pickle'"),
    "truncated chunk": (lambda r: truncate(r / "data/action/0.0"), "truncated or damaged"),
    "empty chunk": (lambda r: (r / "data/action/3.0").write_bytes(b""), "truncated or damaged"),
    "missing chunk": (lambda r: (r / "data/action/3.0").unlink(), "chunk data/action/3.0 is missing"),
    "missing frame": (lambda r: (r / "data/img/1.0.0.0").unlink(), "chunk data/img/1.0.0.0 is missing"),
    "small chunk": (lambda r: small_chunk(r), "says 12 bytes, 40 are expected"),
    "truncated description": (lambda r: truncate(r / "data/action/.zarray"), "not JSON"),
    "description too deep": (lambda r: (r / "data/action/.zarray").write_text("[" * 10**5), "not JSON"),
    "version 3": (lambda r: edit_array(r, "data/action", zarr_format=3), "a Zarr v2 array cannot have"),
    "stage of floats": (lambda r: shutil.copytree(r / "data/n_contacts", r / "data/stage"), "one whole number a row"),
}


def spoil_ends(root: Path, ends: list[int]) -> None:
    edit_array(root, "meta/episode_ends", compressor=None)
    (root / "meta/episode_ends/0").write_bytes(np.array(ends, "<i8").tobytes())


def small_chunk(root: Path) -> None:
    codec = json.loads((root / "data/action/.zarray").read_text())["compressor"]
    (root / "data/action/0.0").write_bytes(bytes(numcodecs.get_codec(codec).encode(np.zeros(3, np.float32))))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line_and_nothing_is_left(sim, tmp_path, run_command, fault):
    damage, words = FAULTS[fault]
    damage(sim)
    code, _, err = run_command(
        "import", "diffusion-policy", f"source={sim}", f"store={tmp_path / 'd.zarr'}", "workers=0", "fps=10"
    )
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "d.zarr").exists()
    assert not (sim / "boom").exists()


def test_missing_chunks_may_be_zeros_where_the_user_says_so(sim, tmp_path, run_command):
    (sim / "data/n_contacts/1.0").unlink()
    store = bring_in(run_command, sim, tmp_path / "d.zarr", "fps=10", "missing_chunks=zeros")
    assert store[1]["observation.n_contacts"][:4].tolist() == [[0.0]] * 4


def test_a_rate_must_be_known(sim, tmp_path, run_command):
    code, _, err = run_command("import", "diffusion-policy", f"source={sim}", f"store={tmp_path / 'd.zarr'}")
    assert (code, "give, say, fps=10" in err) == (2, True)


CODECS = [numcodecs.Blosc("zstd"), numcodecs.Blosc("lz4"), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.LZ4(),
          numcodecs.BZ2(), numcodecs.Zlib()]  # fmt: skip


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.codec_id} {getattr(codec, 'cname', '')}")
def test_a_chunk_that_was_cut_or_lengthened_is_never_read(codec):
    for rows in (np.random.default_rng(0).normal(size=10), np.zeros(5000)):
        whole = bytes(codec.encode(rows))
        assert decompress(codec.codec_id, whole, rows.nbytes) == rows.tobytes()
        for cut in range(0, len(whole), max(1, len(whole) // 40)):
            with pytest.raises(ValueError):
                decompress(codec.codec_id, whole[:cut], rows.nbytes)
        with pytest.raises(ValueError, match="expected"):
            decompress(codec.codec_id, whole, rows.nbytes - 8)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_array_of_zarr_python_reads_the_same(tmp_path_factory, data):
    """Ranks, chunk shapes, orders, types, codecs and filters, against zarr-python itself."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    chunks = tuple(data.draw(st.integers(1, side + 2)) for side in shape)
    dtype = data.draw(st.sampled_from(["<f4", "<f8", ">f4", "|u1", "<i8", ">u2", "|b1", "<f2"]))
    codec = data.draw(
        st.sampled_from([None, numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.LZ4(), numcodecs.BZ2()])
    )
    order = data.draw(st.sampled_from("CF"))
    separator = data.draw(st.sampled_from("./"))
    root = tmp_path_factory.mktemp("arrays")
    rows = np.random.default_rng(0).integers(0, 2 if dtype == "|b1" else 99, shape).astype(dtype)
    array = zarr.create_array(
        root, name="x", shape=shape, chunks=chunks, dtype=dtype, zarr_format=2, compressors=codec, order=order,
        chunk_key_encoding={"name": "v2", "separator": separator}, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:] = rows
    ours = ZarrV2Array(FolderFiles(root), "x")
    start = data.draw(st.integers(0, shape[0]))
    stop = data.draw(st.integers(start, shape[0]))
    np.testing.assert_array_equal(ours.rows(start, stop), rows[start:stop])
    np.testing.assert_array_equal(np.array([*ours.blocks(0, shape[0], 3)]).reshape(shape), rows)
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        for path in (root / "x").rglob("*"):
            if path.is_file():
                archive.write(path, f"x/{path.relative_to(root / 'x')}")
    np.testing.assert_array_equal(ZarrV2Array(ZipFiles(root / "x.zip"), "x").rows(start, stop), rows[start:stop])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 12))
def test_arrays_written_in_parts_are_whole(tmp_path_factory, lengths, chunk):
    root = tmp_path_factory.mktemp("written")
    rows = np.random.default_rng(0).normal(size=(sum(lengths), 2)).astype(np.float32)
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    write_array(root / "x", parts, len(rows), chunk)
    np.testing.assert_array_equal(zarr.open_array(root / "x", mode="r", zarr_format=2)[:], rows)


def test_an_archive_whose_names_lead_out_is_refused(tmp_path):
    for name in ("../evil", "/etc/evil", "a/../../evil", "C:/evil"):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(name, "boom")
        with pytest.raises(ImportSourceError, match="leads out of the archive"):
            ZipFiles(tmp_path / "x.zip")


def chunks_of_two_megabytes(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks as diffusion_policy chooses them: whole inner sides, and about 2 MB in all."""
    chunks, size = [], itemsize
    for side in reversed(shape):
        fits = min(side, max(1, -(-2_000_000 // size)))
        chunks.append(fits)
        size *= fits
    return tuple(reversed(chunks))


def test_a_buffer_saved_by_diffusion_policy_is_read(tmp_path, run_command):
    """Its own defaults: Blosc LZ4 without shuffling, 2 MB a chunk, ends uncompressed, and a note beside the arrays."""
    arrays = {**sim_arrays(), "img": np.repeat(np.repeat(sim_arrays()["img"], 12, 1), 12, 2)}
    root = zarr.open_group(tmp_path / "pusht.zarr", mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    plain = numcodecs.Blosc("lz4", 5, numcodecs.Blosc.NOSHUFFLE)
    for key, rows in arrays.items():
        chunks = chunks_of_two_megabytes(rows.shape, rows.itemsize)
        array = data.create_array(key, shape=rows.shape, chunks=chunks, dtype=rows.dtype, compressors=plain)
        array[:] = rows
    assert data["img"].chunks[0] < TOTAL
    meta.create_array("episode_ends", shape=(3,), chunks=(3,), dtype="int64", compressors=None)[:] = ENDS
    meta.create_array("seed", shape=(), chunks=(), dtype="int64")[()] = 7
    store = bring_in(run_command, tmp_path / "pusht.zarr", tmp_path / "d.zarr", "fps=10", "codec=raw")
    for key, feature in (("img", IMG), ("state", "observation.state"), ("action", "action")):
        read = np.concatenate([episode[feature][:] for episode in store])
        np.testing.assert_array_equal(read, arrays[key].astype(read.dtype))
