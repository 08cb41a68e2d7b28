"""UMI archives: a zipped replay buffer whose frames are JPEG XL."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from small_demos import smooth_frames

from robo_datasets import DemoStore

ENDS = [5, 12]
CAMERA = "observation.images.camera0"


def numbers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    widths = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1, "demo_start_pose": 6, "demo_end_pose": 6}
    return {
        f"robot0_{name}": rng.normal(size=(12, width)).astype(np.float64 if "demo" in name else np.float32)
        for name, width in widths.items()
    }


def describe(rows: np.ndarray, chunks: list[int], compressor: dict[str, Any] | None) -> str:
    return json.dumps(
        {
            "zarr_format": 2, "shape": list(rows.shape), "chunks": chunks, "dtype": rows.dtype.str, "filters": None,
            "compressor": compressor, "fill_value": 0, "order": "C",
        }
    )  # fmt: skip


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The files of an archive, in a folder."""
    root = tmp_path / "unpacked"
    frames = smooth_frames(12, 32, 40)
    arrays = {f"data/{key}": rows for key, rows in numbers().items()} | {"meta/episode_ends": np.array(ENDS)}
    for key, rows in arrays.items():
        (root / key).mkdir(parents=True)
        (root / key / ".zarray").write_text(describe(rows, list(rows.shape), None))
        (root / key / ".".join("0" * rows.ndim)).write_bytes(rows.tobytes())
    place = root / "data/camera0_rgb"
    place.mkdir()
    codec = {"id": "imagecodecs_jpegxl", "level": 99, "effort": 3, "numthreads": 1}
    (place / ".zarray").write_text(describe(frames, [1, 32, 40, 3], codec))
    for number, frame in enumerate(frames):
        (place / f"{number}.0.0.0").write_bytes(imagecodecs.jpegxl_encode(frame, lossless=True))
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    return root


def pack(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target


def bring_in(run_command: Any, source: Path, store: Path, *more: str) -> DemoStore:
    code, _, err = run_command("import", "umi", f"source={source}", f"store={store}", "workers=0", *more)
    assert code == 0, err
    return DemoStore.open(store)


def test_an_archive_is_read_pixel_by_pixel_and_bit_by_bit(unpacked, tmp_path, run_command):
    source = pack(unpacked, tmp_path / "cup.zarr.zip")
    store = bring_in(run_command, source, tmp_path / "d.zarr", "codec=lossless", "task=place the cup")
    assert (len(store), store.cameras, store[0].task) == (2, [CAMERA], "place the cup")
    assert store.fps == pytest.approx(59.94, abs=1e-3)
    wanted = numbers()
    parts = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
    states = np.concatenate([wanted[f"robot0_{part}"] for part in parts], 1)
    for episode, rows in zip(store, (slice(0, 5), slice(5, 12)), strict=True):
        np.testing.assert_array_equal(episode[CAMERA][:], smooth_frames(12, 32, 40)[rows])
        assert episode["observation.state"][:].tobytes() == states[rows].tobytes()
        assert episode["action"][:-1].tobytes() == states[rows][1:].tobytes()
        assert episode["action"][-1].tobytes() == states[rows][-1].tobytes()
        start = episode["observation.robot0_demo_start_pose"][:]
        assert start.tobytes() == wanted["robot0_demo_start_pose"][rows].tobytes()


def test_two_processes_read_one_archive(unpacked, tmp_path, run_command):
    source = pack(unpacked, tmp_path / "cup.zarr.zip")
    one = bring_in(run_command, source, tmp_path / "a.zarr", "action=none", "size=[16,20]")
    words = (f"source={source}", f"store={tmp_path / 'b.zarr'}", "action=none", "size=[16,20]", "workers=2")
    assert run_command("import", "umi", *words)[0] == 0
    for first, second in zip(one, DemoStore.open(tmp_path / "b.zarr"), strict=True):
        assert "action" not in first
        assert first[CAMERA][:].tobytes() == second[CAMERA][:].tobytes()


def test_without_the_package_for_jpeg_xl_the_command_says_what_to_install(unpacked, tmp_path, run_command, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    code, _, err = run_command("import", "umi", f"source={unpacked}", f"store={tmp_path / 'd.zarr'}")
    assert (code, "pip install 'robo-rm[umi]'" in err) == (2, True), err
    assert not (tmp_path / "d.zarr").exists()


def edit(root: Path, key: str, **values: Any) -> None:
    path = root / "data" / key / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def frame(root: Path, number: int) -> Path:
    return root / f"data/camera0_rgb/{number}.0.0.0"


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated frame": (lambda r: frame(r, 7).write_bytes(frame(r, 7).read_bytes()[:90]), "7.0.0.0 is truncated"),
    "empty frame": (lambda r: frame(r, 7).write_bytes(b""), "7.0.0.0 is truncated"),
    "missing frame": (lambda r: frame(r, 7).unlink(), "7.0.0.0 is missing"),
    "frame of another size": (
        lambda r: frame(r, 7).write_bytes(imagecodecs.jpegxl_encode(np.zeros((99, 40, 3), np.uint8))),
        "7.0.0.0 holds 11880 bytes",
    ),
    "frame that is text": (lambda r: frame(r, 7).write_bytes(b"hello" * 99), "7.0.0.0 is truncated or damaged"),
    "huge shape": (lambda r: edit(r, "camera0_rgb", shape=[12, 10**9, 10**9, 3]), "larger than read"),
    "no robot": (lambda r: shutil.rmtree(r / "data/robot0_gripper_width"), "lacks ['robot0_gripper_width']"),
    "objects": (lambda r: edit(r, "robot0_eef_pos", dtype="|O"), "never objects that need unpickling"),
    "other codec": (lambda r: edit(r, "camera0_rgb", compressor={"id": "imagecodecs_rgbe"}), "imagecodecs_rgbe"),
    "no episodes": (lambda r: shutil.rmtree(r / "meta"), "is not a replay buffer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line_and_nothing_is_left(unpacked, tmp_path, run_command, fault):
    damage, words = FAULTS[fault]
    damage(unpacked)
    source = pack(unpacked, tmp_path / "cup.zarr.zip")
    code, _, err = run_command("import", "umi", f"source={source}", f"store={tmp_path / 'd.zarr'}", "workers=0")
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "d.zarr").exists()


def damaged_member(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("data/robot0_eef_pos/0.0").header_offset + 60
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)


def name_that_leads_out(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.py", "boom")


ARCHIVE_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "truncated or not a zip archive"),
    "empty": (lambda p: p.write_bytes(b""), "truncated or not a zip archive"),
    "missing": (lambda p: p.unlink(), "there is no replay buffer"),
    "damaged": (damaged_member, "robot0_eef_pos/0.0 is damaged: Bad CRC-32"),
    "leads out": (name_that_leads_out, "leads out of the archive"),
}


@pytest.mark.parametrize("fault", ARCHIVE_FAULTS)
def test_a_bad_archive_is_one_clear_line(unpacked, tmp_path, run_command, fault):
    damage, words = ARCHIVE_FAULTS[fault]
    source = pack(unpacked, tmp_path / "cup.zarr.zip")
    damage(source)
    code, _, err = run_command("import", "umi", f"source={source}", f"store={tmp_path / 'd.zarr'}", "workers=0")
    lines = [line for line in err.strip().splitlines() if "robo-rm" in line]
    assert (code, len(lines), words in lines[-1] if lines else False) == (2, 1, True), err
    assert not (tmp_path / "d.zarr").exists()
    assert not (tmp_path.parent / "evil.py").exists()


def test_an_archive_as_umi_writes_it_is_read(unpacked, tmp_path, run_command):
    """Frames of lossy JPEG XL with all of the codec's settings, group files, and members that were written twice."""
    frames = smooth_frames(12, 32, 40)
    codec = {
        "id": "imagecodecs_jpegxl", "level": 99, "effort": None, "distance": None, "lossless": False,
        "decodingspeed": None, "photometric": None, "planar": None, "usecontainer": None, "index": None,
        "keeporientation": None, "numthreads": 1,
    }  # fmt: skip
    edit(unpacked, "camera0_rgb", compressor=codec)
    lossy = [imagecodecs.jpegxl_encode(image, level=99, lossless=False, numthreads=1) for image in frames]
    for number, data in enumerate(lossy):
        frame(unpacked, number).write_bytes(data)
    source = pack(unpacked, tmp_path / "cup.zarr.zip")
    with zipfile.ZipFile(source, "a") as archive:
        for name in ("data/.zgroup", "meta/.zgroup"):
            archive.writestr(name, '{"zarr_format": 2}')
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(".zgroup", '{"zarr_format": 2}')
    store = bring_in(run_command, source, tmp_path / "d.zarr", "codec=lossless")
    read = np.concatenate([episode[CAMERA][:] for episode in store])
    np.testing.assert_array_equal(read, np.stack([imagecodecs.jpegxl_decode(data) for data in lossy]))
    assert np.abs(read.astype(int) - frames).mean() < 2
