"""What makes an import fast must not change what is stored, nor how it ends when the command is killed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robo_core import processes
from robo_core.checksummed import sync_tree
from robo_core.errors import ImportSourceError
from robo_datasets import DemoStore
from robo_datasets.importers.columns import column_array, read_row_range, read_table
from robo_datasets.importers.processes import start_helper
from robo_datasets.store.jpeg import frame_encoder, resize
from robo_datasets.video.presentation_times import frames_shown_at, shown_frames
from tests.datasets.lerobot_sets import numbered, write_v21, write_video


def coloured(count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.stack([cv2.resize(frame, (width, height)) for frame in small])


@pytest.mark.parametrize("width", [48, 50, 66])  # rows of a whole number of words, and such as are filled up
def test_frames_and_jpeg_bytes_are_those_of_pyav_and_opencv(tmp_path, width):
    path = tmp_path / "v.mp4"
    write_video(path, coloured(6, 36, width))
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = list(frames_shown_at(path, shown_frames(path).ticks))
    np.testing.assert_array_equal(np.stack(frames), np.stack(expected))
    encode = frame_encoder(95, "4:4:4")
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for frame, plain in zip(frames, expected, strict=True):
        wanted = cv2.imencode(".jpg", cv2.cvtColor(plain, cv2.COLOR_RGB2BGR), options)[1].tobytes()
        assert encode(frame) == wanted  # a view of rows that are kept blue first
        assert encode(plain) == wanted
        assert encode(np.asfortranarray(plain)) == wanted
        np.testing.assert_array_equal(resize(frame, (18, 20)), resize(plain, (18, 20)))


def test_a_frame_that_is_asked_for_twice_comes_twice_and_a_missing_one_is_named(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, numbered(5))
    ticks = shown_frames(path).ticks
    frames = list(frames_shown_at(path, ticks[[0, 0, 3, 3, 4]]))
    whole = list(frames_shown_at(path, ticks))
    for frame, number in zip(frames, (0, 0, 3, 3, 4), strict=True):
        np.testing.assert_array_equal(frame, whole[number])
    with pytest.raises(ImportSourceError, match="cannot be decoded"):
        list(frames_shown_at(path, np.array([ticks[0], ticks[1] + 1])))
    with pytest.raises(ImportSourceError, match="cannot be decoded"):
        list(frames_shown_at(path, np.array([ticks[0], ticks[-1] * 2])))


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table([pa.array([1, 2]), pa.array([3, 4]), pa.array([5, 6])], names=["a", "a", "b"]), path)
    for read in (
        lambda: read_table(path, ["a"]),
        lambda: read_table(path),
        lambda: read_row_range(path, ["a"], 0, 1),
    ):
        with pytest.raises(ImportSourceError, match="column a twice"):
            read()
    assert read_table(path, ["b"])["b"].to_pylist() == [5, 6]


def test_columns_come_in_the_order_they_are_asked_for_and_no_others(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"pose": [1], "pose.x": [2], "gaze": [3]}), path)
    assert read_table(path, ["gaze", "pose"]).column_names == ["gaze", "pose"]


def test_workers_load_neither_pandas_nor_arrows_data_sets(tmp_path):
    root = write_v21(tmp_path / "set", [4, 4])
    script = (
        "import sys\n"
        "from robo_datasets.importers.lerobot.v2 import LeRobotV2Source\n"
        "from robo_datasets.importers.run import import_source\n"
        f"import_source(LeRobotV2Source({str(root)!r}), {str(tmp_path / 'd.zarr')!r}, workers=0)\n"
        "print([name for name in ('pandas', 'pyarrow.dataset', 'torch', 'zarr') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_helper_is_only_started_where_workers_may_be_needed(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(processes.forkserver, "ensure_running", lambda: started.append(True))
    monkeypatch.setattr(processes.forkserver, "set_forkserver_preload", started.append)
    monkeypatch.setattr(processes, "_helper_runs", False)
    store = tmp_path / "d.zarr"
    start_helper(1, str(store), "lerobot.v2")
    DemoStore.create(store, {"observation.state": {"dtype": "float32", "shape": (2,), "names": None}}, fps=10)
    start_helper(2, str(store), "lerobot.v2")
    assert started == []
    start_helper(2, str(tmp_path / "new.zarr"), "lerobot.v2")
    assert started[0][-1] == "robo_datasets.importers.lerobot.v2"
    assert started[1:] == [True]
    assert processes._helper_runs


def test_kept_threads_sync_as_new_ones_do(tmp_path, monkeypatch):
    from robo_core import checksummed as sealed

    monkeypatch.setattr(sealed, "_kept", None)
    sealed.keep_sync_threads()
    seen: list[str] = []
    monkeypatch.setattr(sealed, "sync_folder", lambda path: seen.append(str(path)))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"x")
    for _ in range(2):
        sync_tree(tmp_path)
    assert sorted(seen) == sorted([str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")] * 2)
    assert sealed._kept is not None
    sealed._kept.shutdown()


def test_workers_end_with_a_command_that_is_killed_and_the_same_command_resumes(tmp_path):
    root = write_v21(tmp_path / "set", [50] * 40)
    store = tmp_path / "d.zarr"
    words = [sys.executable, "-m", "robo_core.cli.main", "import", "lerobot", f"source={root}", f"store={store}"]
    words.append("workers=2")
    command = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any((store / "episodes").glob("*-*")):
        time.sleep(0.01)
    workers = processes_of(command.pid)
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert len(workers) >= 3  # the helper and two workers
    while time.monotonic() < deadline and any(map(is_running, workers)):
        time.sleep(0.05)
    assert not [pid for pid in workers if is_running(pid)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened = DemoStore.open(store)
    assert len(opened) == 40
    for episode in opened:
        episode.verify()
    assert [json.dumps(episode.source["episode"]) for episode in opened] == [str(number) for number in range(40)]


def processes_of(session: int) -> list[int]:
    """Other processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and int(folder.name) != session:
            found.append(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "kind", [pa.bool_(), pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]
)
@pytest.mark.parametrize("span", [(0, 21), (3, 13), (20, 1), (5, 0)])
def test_columns_become_the_numbers_that_arrow_itself_gives(kind, span):
    whole = np.arange(21) * 7 % 5 if kind != pa.bool_() else np.arange(21) * 7 % 3 == 0
    values = pa.array(whole.astype(kind.to_pandas_dtype()), kind).slice(*span)
    dtype = np.dtype(kind.to_pandas_dtype()).name
    table = pa.table({"a": values, "b": pa.ListArray.from_arrays(np.arange(0, span[1] + 1, 1, np.int32), values)})
    for key, shape in (("a", ()), ("b", (1,))):
        found = column_array(table, key, {"shape": shape, "dtype": dtype}, "here")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.ravel(), values.to_numpy(zero_copy_only=False))


def test_every_module_that_a_command_preloads_exists():
    named = set()
    for package in ("robo_datasets.commands", "robo_policies.commands"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            text = Path(importlib.util.find_spec(f"{package}.{module.name}").origin).read_text()
            for call in re.findall(r"start_helper\(config\.workers, config\.store, ([^)]*)\)", text):
                named.update(re.findall(r'"([^"]+)"', call))
    assert len(named) == 8
    for name in named:
        importlib.import_module(f"robo_datasets.importers.{name}")
